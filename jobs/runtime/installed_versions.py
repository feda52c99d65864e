"""Tells a job where its node has other versions than the machine that submitted it: what
it computes and writes may then differ.

The submit notes its own versions in the job's script (ZSG_SUBMITTED_VERSIONS), not in
job.json: what a run is does not depend on them. A job replayed by hand has no such note.
What either side lacks is no difference: a login node seldom has torch. Nothing is
imported, only the records of what is installed are read.
"""

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from functools import cache

VARIABLE = "ZSG_SUBMITTED_VERSIONS"  # `python=3.11.7 torch=2.13.0`
# what can change numbers, or the files that are written
PACKAGES = (
    "zsg",
    "torch",
    "transformers",
    "tokenizers",
    "deepspeed",
    "peft",
    "numpy",
    "pyarrow",
    "msgspec",
)
PYTHON = "python"
SOUND = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,63}")


@cache
def read_versions() -> Mapping[str, str]:
    """The versions that are installed here, Python's first; of what is absent none."""
    installed = {PYTHON: platform.python_version()}
    installed |= {name: read_version(name) for name in PACKAGES}
    return {
        name: version for name, version in installed.items() if SOUND.fullmatch(version)
    }


def read_version(name: str) -> str:
    """The version of a package; empty where none is recorded here."""
    try:
        return str(importlib.metadata.version(name))
    except Exception:  # absent, or a damaged record, which is no reason to fail
        return ""


def spell_versions(versions: Mapping[str, str]) -> str:
    """The value of VARIABLE."""
    return " ".join(f"{name}={version}" for name, version in versions.items())


def parse_versions(text: str) -> dict[str, str]:
    """What a value of VARIABLE tells; words that are none of its are passed over."""
    pairs = [word.partition("=") for word in text.split()]
    return {
        name: version
        for name, _, version in pairs
        if name in (PYTHON, *PACKAGES) and SOUND.fullmatch(version)
    }


def describe_difference(
    submitted: Mapping[str, str], installed: Mapping[str, str]
) -> str | None:
    """Which versions of a node are others than those of the submit, in a sentence; None
    if none is. Pure."""
    differences = [
        f"{name} {installed[name]} (submitted with {version})"
        for name, version in submitted.items()
        if name in installed and not _is_same(version, installed[name])
    ]
    if not differences:
        return None
    return f"this node has other versions than the submit: {', '.join(differences)}"


def _is_same(submitted: str, installed: str) -> bool:
    """Whether two versions are one. Where one side tells no build or that for CPUs, as
    login nodes have it (`2.13.0+cpu`), the build does not count."""
    (version, _, build), (other_version, _, other_build) = (
        submitted.partition("+"),
        installed.partition("+"),
    )
    if version != other_version:
        return False
    builds = {build, other_build}
    return len(builds) == 1 or bool(builds & {"", "cpu"})


def find_difference(environ: Mapping[str, str] = os.environ) -> str | None:
    """The same for this process, as the script that started it tells the submit's."""
    text = environ.get(VARIABLE)
    if not text:
        return None
    return describe_difference(parse_versions(text), read_versions())
