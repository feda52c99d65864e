"""A user's folder with a good grid, and what it means that a command was refused in it."""

from dataclasses import dataclass
from pathlib import Path

from tests.lib.builders import write_niv2

GRID = "name: g\ndefaults:\n  data: {path: data}\n  train: {batch: 4}\n"


@dataclass
class Ended:
    """How a command ended."""

    code: int
    printed: str
    said: str


class Home:
    """A user's folder with data and a grid, in a surrounding folder that must stay as it is."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "home"
        self.folder.mkdir()
        write_niv2(self.folder / "data")
        self.write("grid.yaml", GRID)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def listing(self) -> dict[str, str]:
        """Every name around, with what it holds."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            found[name] = (
                str(path.readlink())
                if path.is_symlink()
                else ""
                if path.is_dir()
                else _content(path)
            )
        return found


def _content(path: Path) -> str:
    return (
        str(path.stat().st_size)
        if path.stat().st_size > 100_000
        else path.read_bytes().hex()
    )


def assert_refused(
    home: Home, before: dict[str, str], ended: Ended, code: int, said: list[str]
) -> None:
    """One message on stderr, nothing on stdout, the code, and everything as it was."""
    assert ended.said.startswith("error: ") and ended.said.count("\n") == 1, ended.said
    assert "Traceback" not in ended.said
    assert (ended.code, ended.printed) == (code, "")
    assert [part for part in said if part not in ended.said] == [], ended.said
    assert len(ended.said) < 2000
    assert home.listing() == before
