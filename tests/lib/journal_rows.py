"""Rows of journals as tests write and read them: plain JSON, as it stands in the files."""

from pathlib import Path
from typing import Any

import msgspec

from jobs.contract import journal
from jobs.contract.journal_rows import Row, convert_row

# lines that stand in a journal and are no rows of one
NO_ROWS = {
    "cut in the middle": b'{"seq": 1, "ts": 5, "attem\n',
    "zeroes": b"\0" * 64 + b"\n",
    "of wrong types": b'{"seq":1,"ts":"now","attempt":1,"stage":"s","step":0,"examples":0,'
    b'"kind":"metric","data":{"loss":[1]}}\n',
    "of another program": b'["of", "another", "program"]\n',
}
FRAME = {"seq": 0, "ts": 0, "attempt": 1, "stage": "s", "step": 0, "examples": 0}


def plain_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run that count."""
    return [msgspec.to_builtins(row) for row in journal.read_journal(folder)]


def break_journal(folder: Path, line: bytes) -> Path:
    """Puts a line between the rows of a run's first journal; the path of its file."""
    [path, *_] = journal.list_journal_files(folder)
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([rows[0], line, *rows[1:]]))
    return path


def typed_rows(rows: list[dict[str, Any]]) -> list[Row]:
    """Rows as a journal's reader gives them; what one does not tell is as in FRAME."""
    return [convert_row(FRAME | row) for row in rows]
