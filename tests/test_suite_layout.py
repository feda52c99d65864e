"""Does every test module stand on its own, with what several share in tests/lib?"""

import ast
from pathlib import Path

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
