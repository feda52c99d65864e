"""Is nothing of a CSV computed by a spreadsheet that opens it?"""

import csv
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from launcher.reporting import frames
from launcher.reporting.data import csv_cells


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+1", "'+1+1"),
        ("-1+1", "'-1+1"),
        ("@SUM(1)", "'@SUM(1)"),
        (" \u00a0=1", " \u00a0'=1"),
        ("＝1", "'＝1"),
        ("a;=1+1", "a;'=1+1"),
        ('x",=1', "x\",'=1"),
        ("\t=1", r"\t=1"),
        ("\r=1\n=2", r"\r=1\n=2"),
        ("a\x1b[8m\u202e", r"a\x1b[8m\u202e"),
    ],
)
def test_a_text_that_a_spreadsheet_computes_gets_an_apostrophe(
    text: str, cell: str
) -> None:
    """At its beginning, behind blanks and behind what parts cells elsewhere; line ends
    and tabs are escapes."""
    assert csv_cells.make_cell(text) == cell


@pytest.mark.parametrize(
    "text",
    ["-1.5", "+2", "-.5e-3", "[1,-1]", "a-b", "x=1", "me@home", "rt − nft", "", "é 漢"],
)
def test_numbers_and_other_texts_stay(text: str) -> None:
    """A number with its sign, also in a list, is a number; signs within a word compute nothing."""
    assert csv_cells.make_cell(text) == text


def test_a_written_table_keeps_numbers_and_gaps_and_parquet_keeps_texts(
    tmp_path: Path,
) -> None:
    """Only texts are changed, and only in CSV; its heading too."""
    schema = pa.schema(
        [("=a", pa.string()), ("loss", pa.float64()), ("step", pa.int64())]
    )
    held = {
        "=a": ["=1", None, "b", "=1"],
        "loss": [-1.5, None, 2.0, -0.5],
        "step": [-1, 0, 1, 2],
    }
    for kind in ("csv", "parquet"):
        with frames.TableWriter(tmp_path / f"t.{kind}", schema, kind) as file:
            file.add(held)
            file.add(held)
    frames.write_csv(tmp_path / "once.csv", held)

    wanted = [
        ["'=a", "loss", "step"],
        *[["'=1", "-1.5", "-1"], ["", "", "0"], ["b", "2", "1"], ["'=1", "-0.5", "2"]],
    ]
    with (tmp_path / "once.csv").open(newline="") as lines:
        assert list(csv.reader(lines)) == wanted
    with (tmp_path / "t.csv").open(newline="") as lines:
        assert list(csv.reader(lines)) == [*wanted, *wanted[1:]]
    assert (
        parquet.read_table(tmp_path / "t.parquet")["=a"].to_pylist() == held["=a"] * 2
    )
