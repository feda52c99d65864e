"""Does the benchmark of the report measure what it says, in the form of every benchmark?"""

from pathlib import Path

from benchmarks import report


def test_it_measures_a_small_grid(tmp_path: Path) -> None:
    """On ten runs: three rows, with a peer that parses the same journals, far below
    their limits."""
    rows = report.measure(tmp_path, runs=10)

    assert len(rows) == 3
    assert rows[0].peer and rows[0].value > rows[0].peer
    assert all(row.met for row in rows)
