"""Finds the newest Python of this machine that torch has a wheel for, for `make test-newest`:
prints its path and nothing else, or nothing where none is newer than the one that looks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# The torch of constraints.txt, and the newest Python 3 that it has wheels for.
TORCH = "2.13.0"
NEWEST_MINOR = 14

# Some builds of Python lack parts of the standard library.
PROBE = "import sys, ssl, sqlite3, venv; print(sys.version_info.minor, sys.executable)"


def find_newest_python() -> str | None:
    """The path of the newest Python 3 that starts, has what the suite needs of the
    standard library, and is newer than this one."""
    for minor in range(NEWEST_MINOR, sys.version_info.minor, -1):
        for candidate in list_candidates(f"python3.{minor}"):
            path = probe(candidate, minor)
            if path:
                return path
    return None


def list_candidates(name: str) -> Iterator[Path]:
    """The programs of a name on PATH, and those that pyenv has beside the chosen one."""
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted((pyenv / "versions").glob(f"*/bin/{name}"), reverse=True)


def probe(program: Path, minor: int) -> str | None:
    """The path by which a Python knows itself; None for one that does not start, as
    pyenv's stand-in for one that is not chosen."""
    try:
        answer = subprocess.run(
            [program, "-c", PROBE], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found_minor, _, path = answer.stdout.strip().partition(" ")
    if answer.returncode != 0 or found_minor != str(minor):
        return None
    return path


if __name__ == "__main__":
    print(find_newest_python() or "")
