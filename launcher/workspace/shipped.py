"""Finds the data that ships with zsg: templates/ and cluster_profiles/, in a checkout
or an installed wheel."""

from pathlib import Path

from zsg_core.errors import UserError


def find_shipped(folder: str) -> Path:
    """The shipped folder of that name."""
    here = Path(__file__).resolve().parents[1]
    for root in (here, here.parent):  # an installed wheel, then a checkout
        if (root / folder).is_dir():
            return root / folder
    raise UserError(f"{folder}/ is neither in {here} nor beside it; reinstall zsg")
