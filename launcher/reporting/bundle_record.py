"""The first file of a bundle, bundle.json: what it holds, with the digest of each file,
and what the runs stand on.

A bundle is a gzipped tar archive in the USTAR format: bundle.json, then the files that
it lists, in their order. workspace/ is the part of a workspace that reports and checks
read; code/ is the code that the jobs ran.
"""

import re
from typing import Any

import msgspec

SCHEMA = 1
NAME = "bundle.json"
WORKSPACE, CODE = "workspace", "code"
MOST_MANIFEST = 256 << 20  # bytes
MOST_FILES = 1_000_000
# a path within a bundle: names of letters, digits and a few signs, none of which leads up
_PART = r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,99}"
_PATH = re.compile(rf"(?:{WORKSPACE}|{CODE})(?:/{_PART}){{1,12}}")
MOST_PATH = 240  # what USTAR has room for


class BundledFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a bundle: its path there, its size in bytes, its digest."""

    path: str
    size: int
    sha256: str


class BundledRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run stands on, as it recorded it: digests of data and model, code, device;
    of its first attempt the versions and the machine. `trouble`: why it cannot be read."""

    run: str
    axes: dict[str, Any]
    facts: dict[str, str] = {}
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    trouble: str | None = None


class BundledLicence(msgspec.Struct, frozen=True, kw_only=True):
    """The licence of a model or a data set that runs were trained on, as the file
    `source` beside it tells it; without one it is not known. `kind`: model or data."""

    kind: str
    name: str
    licence: str
    source: str = ""


class BundleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle holds.

    `packages`: what is installed where the bundle was made, one `name==version` each: of
    a profile `local` the jobs' own environment; else only `versions` are the jobs'.
    """

    schema: int = SCHEMA
    kind: str = "zsg bundle"
    grid: str
    zsg: str
    python: str
    packages: list[str] = []
    runs: list[BundledRun] = []
    licences: list[BundledLicence] = []
    files: list[BundledFile] = []


def is_sound_path(path: str) -> bool:
    """Whether a path can be one of a bundle's."""
    return len(path) <= MOST_PATH and _PATH.fullmatch(path) is not None
