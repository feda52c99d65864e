"""Prints which versions `make test-lowest` installs: the lowest that pyproject.toml allows of
what zsg and its tests need, and what constraints.txt says of what those need in turn."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOUND = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?\s*>=\s*(?P<version>[0-9][0-9.]*)(,[^;]*)?(;.*)?"
)
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==\S+")

# Each pydantic needs exactly one core, and an early import-linter exactly one grimp.
CHOSEN_BY_PIP = {"grimp", "pydantic-core"}


def normalize_name(name: str) -> str:
    """A package's name as indexes compare it: `ruamel.yaml` is `ruamel-yaml`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_lowest(requirement: str) -> tuple[str, str]:
    """The name and the lowest version of a requirement: of `a[b]>=1,<2`, `a` and `1`.

    ValueError for one without a lower bound, as nobody could say what holds.
    """
    bound = BOUND.fullmatch(requirement.strip())
    if bound is None:
        raise ValueError(f"pyproject.toml: {requirement!r} has no bound `>=`")
    return bound["name"], bound["version"]


def make_constraints(project: dict[str, Any], constraints: str) -> list[str]:
    """Lines of pins, by pyproject's table `project` and the text of constraints.txt.

    Only what the fast tests need is at its lowest: the dependencies and the extra `dev`.
    """
    requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lowest = dict(find_lowest(requirement) for requirement in requirements)
    passed_over = {normalize_name(name) for name in lowest} | CHOSEN_BY_PIP
    lines = [f"{name}=={version}" for name, version in lowest.items()]
    for line in constraints.splitlines():
        pin = PIN.fullmatch(line)
        if pin and normalize_name(pin["name"]) not in passed_over:
            lines.append(line)
    return lines


if __name__ == "__main__":
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = make_constraints(
        pyproject["project"], (ROOT / "constraints.txt").read_text()
    )
    print("\n".join(pins))
