"""Does the benchmark of status measure what it says, in the form of every benchmark?"""

from pathlib import Path

from benchmarks import status


def test_it_measures_a_small_workspace(tmp_path: Path, monkeypatch) -> None:
    """On a hundred runs: six rows, Slurm asked once for each kind of answer."""
    monkeypatch.setattr(status, "RESTED_S", 0)
    rows = {row.measure: row for row in status.measure(tmp_path, runs=100, live=4)}

    assert len(rows) == 6
    assert (
        rows["squeue calls of one status"].value,
        rows["sacct calls of one status"].value,
    ) == (
        1,
        1,
    )
    assert all(row.value > 0 for row in rows.values())
