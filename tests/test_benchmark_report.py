"""Does the benchmark of the report measure what it says, in the form of every benchmark?"""

from pathlib import Path

from benchmarks import report


def test_it_measures_a_small_grid(tmp_path: Path) -> None:
    """On ten runs: three rows, of which the first has a peer that parses the same
    journals; each is met where its value is within its goal."""
    rows = report.measure(tmp_path, runs=10)

    assert len(rows) == 3
    assert [row.unit for row in rows] == ["s", "MB", "MB"]
    assert rows[0].peer
    assert all(row.value > 0 for row in rows)
    for row in rows:
        assert row.goal is not None
        assert row.met == (row.value <= row.goal)
