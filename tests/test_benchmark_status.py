"""Does the benchmark of status measure what it says, in the form of every benchmark?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import status


@pytest.mark.process
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


def test_its_live_runs_are_running(tmp_path: Path, monkeypatch) -> None:
    """What is measured is the work of a sound workspace: no run is shown as unknown."""
    monkeypatch.setattr(status, "RESTED_S", 0)
    place = status.many_runs(tmp_path, 20, live=4)

    command = [sys.executable, "-m", "launcher.cli", "status", "--json"]
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    shown = subprocess.run(
        [*command, "--workspace", place.root],
        env=environment,
        capture_output=True,
        check=True,
    )
    states = [row["state"] for row in json.loads(shown.stdout)]

    assert states.count("running") == 4
    assert "unknown" not in states
