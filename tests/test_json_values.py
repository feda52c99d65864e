"""Whatever JSON a damaged file of a workspace holds, there is one kind of error."""

from pathlib import Path

import msgspec
import pytest

from jobs.contract import ledger_rows
from jobs.contract.exit_record import ExitRecord
from jobs.contract.folder import Damaged
from jobs.contract.journal_rows import decode_row
from jobs.contract.json_values import DECODE_ERRORS, convert_json
from jobs.contract.records import read_record

DEPTH = 100_000
DAMAGE = {
    "half of a character in a key": rb'{"schema": 1, "dat\ud800a": 1}',
    "half of a character in a key, as bytes": b'{"dat\xed\xa0\x80a": 1}',
    "half of a character in a key within": rb'{"kind": "metric", "data": {"\udc00": 1}}',
    "bytes that are no UTF-8": b'{"schema": "\xff"}',
    "nested too deep": b'{"attempt": ' + b'{"a":' * DEPTH + b"1" + b"}" * DEPTH + b"}",
    "an array nested too deep": b"[" * DEPTH + b"]" * DEPTH,
}


class Point(msgspec.Struct):
    step: int


@pytest.mark.parametrize("name", DAMAGE)
def test_a_line_of_a_journal_that_is_no_row_is_called_damaged(name: str) -> None:
    """Neither halves of characters nor deep nesting end in another error."""
    with pytest.raises(Damaged, match=r"1-train-0\.jsonl"):
        decode_row(Path("1-train-0.jsonl"), DAMAGE[name])


@pytest.mark.parametrize("name", DAMAGE)
def test_a_record_that_is_none_is_called_damaged(tmp_path: Path, name: str) -> None:
    """The same for the small files of a run folder."""
    path = tmp_path / "exit.json"
    path.write_bytes(DAMAGE[name])
    with pytest.raises(Damaged, match=r"exit\.json"):
        read_record(path, ExitRecord)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_line_of_the_ledger_that_is_no_row_is_named(
    tmp_path: Path, name: str
) -> None:
    """The line is called damaged or lost; there is no other error."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(DAMAGE[name] + b"\n")
    try:
        [line] = ledger_rows.read_lines(path)
    except Damaged as error:
        assert "ledger.jsonl" in str(error)
    else:
        assert isinstance(line, ledger_rows.LostLine)


def test_a_key_that_holds_half_of_a_character_is_no_value_of_a_type() -> None:
    """msgspec alone raises an error of Unicode there."""
    with pytest.raises(msgspec.ValidationError, match="half of a character"):
        convert_json({"ste\ud800p": 1}, Point)


def test_what_msgspec_raises_for_bytes_is_among_the_errors_of_decoding() -> None:
    """For each damage."""
    for damage in DAMAGE.values():
        with pytest.raises(DECODE_ERRORS):
            msgspec.json.decode(damage, type=Point)
