"""Is the package what the README and the layout promise?"""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from launcher.clusters import profiles
from launcher.clusters.profiles import Profile
from tests.lib.command_line import Zsg

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch",
    "transformers",
    "deepspeed",
    "mlflow",
    "sentence_transformers",
    "pandas",
    "sklearn",
    "huggingface_hub",
    "matplotlib",
    "jinja2",
    "pyarrow",
)


def test_the_command_line_loads_no_engine() -> None:
    """`import launcher.cli` in a fresh interpreter imports no engine and no tracker."""
    code = "import sys, launcher.cli; print([name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["launcher.cli", "launcher.status.queries"])
def test_help_and_status_start_quickly(module: str) -> None:
    """What `zsg --help` and `zsg status` import is light: neither the settings nor the
    submitting comes along."""
    code = "import sys, importlib; importlib.import_module(sys.argv[1]);"
    code += "print([name for name in sys.argv[2:] if name in sys.modules])"
    slow = [
        "pydantic",
        "numpy",
        "submitit",
        "ruamel.yaml",
        "launcher.submission.workflow",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, module, *slow],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_import_contracts_hold() -> None:
    """Dependencies point at the science, and each foreign system is known to one module."""
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "planted", "contract"),
    [
        (
            "launcher/workspace/disk.py",
            "import launcher.views.show",
            "The launcher's layers",
        ),
        ("jobs/contract/journal.py", "import jobs.training.state", "The jobs' layers"),
        ("zsg_core/errors.py", "import zsg_core.recipe", "The science's layers"),
        (
            "zsg_core/digest.py",
            "import jobs.contract.folder",
            "Dependencies point at the science",
        ),
        ("launcher/somewhere/__init__.py", "", "The launcher's layers"),
        (
            "launcher/status/progress.py",
            "import jobs.training.batches",
            "The launcher enters jobs by its doors",
        ),
    ],
)
def test_an_upward_import_breaks_a_contract(
    tmp_path: Path, module: str, planted: str, contract: str
) -> None:
    """Also a folder that stands in no layer."""
    for package in ("zsg", "launcher", "jobs", "zsg_core"):
        shutil.copytree(
            ROOT / package,
            tmp_path / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / module).parent.mkdir(exist_ok=True)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{planted}\n")
    told = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert told.returncode == 1
    without_colours = re.sub(r"\x1b\[\d+m", "", told.stdout)
    assert f"{contract} BROKEN" in without_colours


def test_what_programs_may_import_is_light() -> None:
    """`import zsg` has its version and types, and brings no engine."""
    code = (
        "import sys, zsg; print(zsg.__version__, zsg.Example.__name__, [n for n in sys.argv[1:] if"
        " n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == [importlib.metadata.version("zsg"), "Example", "[]"]


def test_every_profile_key_is_documented() -> None:
    """cluster_profiles/README.md has exactly a row for each key: with its default, and
    its description in the code."""
    readme = (ROOT / "cluster_profiles/README.md").read_text()
    expected = [
        f"| `{key}` | {default} | {description} |"
        for key, default, description in _keys(Profile)
    ]

    assert (
        readme.partition("| key | default | meaning |\n|---|---|---|\n")[2].splitlines()
        == expected
    )


def test_shipped_profiles_are_documented() -> None:
    """Each shipped profile loads under its own name and is in the table of
    cluster_profiles/README.md."""
    for path in (ROOT / "cluster_profiles").glob("*.yaml"):
        assert profiles.load_profile(path.stem, Path()).name == path.stem
        assert f"| `{path.stem}` |" in (ROOT / "cluster_profiles/README.md").read_text()


def test_the_faiss_extras_exclude_one_another() -> None:
    """One extra for CPUs and one for GPUs, each with one distribution of faiss,
    declared as a conflict."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    owners = {
        name: [d for d in needs if d.startswith("faiss")]
        for name, needs in extras.items()
    }

    assert {name: len(found) for name, found in owners.items() if found} == {
        "cpu": 1,
        "gpu": 1,
    }
    assert project["tool"]["uv"]["conflicts"] == [[{"extra": "cpu"}, {"extra": "gpu"}]]


def test_constraints_name_no_index() -> None:
    """The constraints are plain pins: no address, no path, no option."""
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]

    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in lines)


def test_a_user_error_is_one_line_and_exit_2(zsg: Zsg) -> None:
    """A mistake in a grid is one line on stderr with file and line, nothing on stdout,
    exit code 2."""
    printed = zsg("submit", zsg.write("bad.yaml", "name: x\ndefalts: {}\n"), code=2)

    assert printed == ""
    assert zsg.said.startswith(
        f"error: {zsg.folder}/bad.yaml:2: unknown key 'defalts'. Did you mean 'defaults'?"
    )
    assert zsg.said.count("\n") == 1
    assert not zsg.work.exists()


def _keys(
    model: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, str, str | None]]:
    for name, field in model.model_fields.items():
        inner = next(
            (kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)),
            None,
        )
        if field.description:
            default = field.get_default(call_default_factory=True)
            shown = "" if field.is_required() else f"`{_as_written(default)}`"
            yield prefix + name, shown, field.description
        if inner:
            yield from _keys(inner, f"{prefix}{name}.")


def _as_written(default: Any) -> str:
    return default if isinstance(default, str) else json.dumps(default)


def _kinds(annotation: Any) -> list[type]:
    return [
        kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)
    ]
