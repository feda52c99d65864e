"""Which job folders are there: of a grid that is new none is, and no file of them need be
looked for."""

import os
from pathlib import Path


def list_names(folder: Path) -> set[str] | None:
    """The names in a folder; None where it may not be listed."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208  thousands of names, no paths
    except FileNotFoundError:
        return set()
    except OSError:
        return None
