"""Does every test module stand on its own, with what several share in tests/lib?"""

import ast
import re
from pathlib import Path

import pytest

from tests.lib import suite

TESTS = Path(__file__).resolve().parent


def imported_modules(path: Path) -> set[str]:
    """The last words of all modules that a file imports, or imports from."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {alias.name for alias in node.names}
    return {name.rpartition(".")[2] for name in names}


def test_no_test_module_imports_another() -> None:
    """Nor does a helper import a test, or anybody conftest: helpers stand in tests/lib."""
    modules = {path.stem for path in TESTS.glob("test_*.py")} | {"conftest"}
    importing = {
        str(path.relative_to(TESTS)): sorted(imported_modules(path) & modules)
        for path in TESTS.rglob("*.py")
    }

    assert {path: names for path, names in importing.items() if names} == {}


def test_every_part_of_the_soak_has_a_target() -> None:
    """`make soak` runs each part once, and no other; a proof of no part is refused when
    tests are collected."""
    makefile = (suite.ROOT / "Makefile").read_text()
    parts = [f"soak-{part}" for part in suite.SOAK_PARTS]
    [together] = re.findall(r"^soak: (.*?)  ##", makefile, re.M)

    assert together.split() == parts
    assert re.findall(r"-m \"soak\(part='(\w+)'\)\"", makefile) == list(
        suite.SOAK_PARTS
    )
    assert re.findall(r"^(soak-\w+):", makefile, re.M) == parts


@pytest.mark.parametrize("parts", [[None], ["all"], ["slurm", "models"]])
def test_a_long_proof_without_one_known_part_is_refused(
    request: pytest.FixtureRequest, parts: list[str | None]
) -> None:
    """Also one that two parts would run."""
    item = pytest.Function.from_parent(
        request.node.parent, name="a_proof", callobj=lambda: None
    )
    for part in parts:
        item.add_marker(pytest.mark.soak(part=part))

    with pytest.raises(pytest.UsageError, match="mark it soak"):
        suite.check_soak_part(item)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_engines", True),  # imports torch
        ("test_answer_loss", True),  # imports a module of the jobs that imports torch
        ("test_grid", False),
        ("test_suite_layout", False),
    ],
)
def test_what_imports_an_engine_is_not_fast(name: str, expected: bool) -> None:
    """Found by what is imported, also by what that imports."""
    assert suite.needs_extras(TESTS / f"{name}.py") is expected
