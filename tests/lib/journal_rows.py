"""Rows of journals as tests write and read them: plain JSON, as it stands in the files."""

from pathlib import Path
from typing import Any

import msgspec

from jobs.contract import journal
from jobs.contract.journal_rows import Row, convert_row

FRAME = {"seq": 0, "ts": 0, "attempt": 1, "stage": "s", "step": 0, "examples": 0}


def plain_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run that count."""
    return [msgspec.to_builtins(row) for row in journal.read(folder)]


def typed_rows(rows: list[dict[str, Any]]) -> list[Row]:
    """Rows as a journal's reader gives them; what one does not tell is as in FRAME."""
    return [convert_row(FRAME | row) for row in rows]
