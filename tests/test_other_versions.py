"""Do `make test-lowest` and `make test-newest` run with the versions that they promise?"""

import re
from pathlib import Path

import pytest

from tests.lib import lowest_versions, newest_python

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("requirement", "lowest"),
    [
        ("numpy>=1.26", ("numpy", "1.26")),
        ("pyright[nodejs]>=1.1.400", ("pyright", "1.1.400")),
        ("mlflow>=3.7,<3.18", ("mlflow", "3.7")),
        ("ruamel.yaml >= 0.18", ("ruamel.yaml", "0.18")),
        ("a>=1.9; sys_platform == 'linux'", ("a", "1.9")),
    ],
)
def test_the_lowest_version_is_the_lower_bound(
    requirement: str, lowest: tuple[str, str]
) -> None:
    """Without extras, upper bounds and conditions."""
    assert lowest_versions.find_lowest(requirement) == lowest


@pytest.mark.parametrize("requirement", ["numpy", "numpy<2", "numpy==2.0"])
def test_a_requirement_without_a_lower_bound_is_refused(requirement: str) -> None:
    """Nobody could say which version is the lowest."""
    with pytest.raises(ValueError, match="has no bound `>=`"):
        lowest_versions.find_lowest(requirement)


def test_what_zsg_needs_is_at_its_lowest_and_the_rest_as_ever() -> None:
    """Whatever way a name is written; the core of pydantic is chosen by pydantic."""
    project = {
        "dependencies": ["ruamel.yaml>=0.18", "pydantic>=2.12"],
        "optional-dependencies": {"dev": ["pytest>=8.4"], "train": ["torch>=2.11"]},
    }
    constraints = (
        "# tried\nclick==8.5.1\nRuamel_Yaml==0.19.1\npydantic_core==2.50.4\n"
        "pydantic==2.14.3\npytest==9.2.0\n"
    )

    assert lowest_versions.make_constraints(project, constraints) == [
        "ruamel.yaml==0.18",
        "pydantic==2.12",
        "pytest==8.4",
        "click==8.5.1",
    ]


def make_program(path: Path, script: str) -> None:
    """A program of the shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_newest_python_is_one_that_starts_and_that_torch_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in of pyenv that only says what to choose is none, nor one that lacks parts
    of the standard library, nor one newer than torch knows; none at all is no error."""
    monkeypatch.setattr(newest_python, "NEWEST_MINOR", 30)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert newest_python.find_newest_python() is None

    make_program(tmp_path / "bin/python3.31", "echo 31 /unknown/to/torch")
    make_program(tmp_path / "bin/python3.30", "exit 127")
    make_program(tmp_path / "bin/python3.29", "echo no module named ssl >&2; exit 1")
    make_program(tmp_path / "pyenv/versions/3.28.1/bin/python3.28", "echo 28 /a b/p")
    make_program(tmp_path / "bin/python3.27", "echo 27 /older")

    assert newest_python.find_newest_python() == "/a b/p"


def test_the_pythons_of_torch_are_those_of_the_torch_in_use() -> None:
    """Who raises torch in constraints.txt looks up which Pythons it has wheels for."""
    constraints = (ROOT / "constraints.txt").read_text()

    assert re.findall(r"^torch==(.*)$", constraints, re.MULTILINE) == [
        newest_python.TORCH
    ]
