"""Do the benchmarks measure what they say?"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace
from launcher.status import queries
from tests.lib.command_line import Zsg
from tests.lib.slurm_cluster import SlurmCluster
from zsg_core import skills

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.process
def test_the_command_line_benchmark_prints_its_rows() -> None:
    """`python -m benchmarks.cli --json` prints a row for help and one for status, each
    against the same peer."""
    command = [sys.executable, "-m", "benchmarks.cli", "--json", "--repeats", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    rows = json.loads(done.stdout)
    assert [list(row) for row in rows] == [
        ["measure", "value", "unit", "peer", "goal", "met"]
    ] * 2
    assert rows[0]["peer"] == rows[1]["peer"] > 0
    assert [row["goal"] / row["peer"] for row in rows] == pytest.approx([1.4, 2.0])
    assert all(row["met"] == (row["value"] <= row["goal"]) for row in rows)


@pytest.mark.process
def test_its_grid_has_really_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace on which `zsg status` is timed has 30 different runs, all done with a loss."""
    monkeypatch.syspath_prepend(ROOT)
    work = importlib.import_module("benchmarks.cli").finished_grid(tmp_path)

    rows = queries.status_rows(Workspace(work), "finished")
    assert len({row["run"] for row in rows}) == 30
    assert {(row["state"], row["step"], row["steps"], row["loss"]) for row in rows} == {
        ("done", 60, 60, 1.4)
    }


@pytest.mark.process
def test_the_readers_benchmark_reads_what_its_peer_parses() -> None:
    """`python -m benchmarks.readers --json` has a row of seconds, against the peer, and
    one of peak memory, of a published array and of rows of one's own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.readers",
        "--json",
        "--records",
        "4000",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    rows = json.loads(done.stdout)
    assert len(rows) == 4
    for taken, peak in (rows[:2], rows[2:]):
        assert taken["goal"] == pytest.approx(2 * taken["peer"])
        assert taken["met"] == (taken["value"] <= taken["goal"])
        assert 0 < peak["value"] < peak["goal"] == 1.0


@pytest.mark.slurm
def test_the_launcher_benchmark_submits_and_plans_what_it_says(
    zsg_on_slurm: Zsg,
    slurm: SlurmCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its grids reach Slurm by an sbatch to prepare, two for the canary, one for the
    others; all calls are timed."""
    monkeypatch.syspath_prepend(ROOT)
    bench = importlib.import_module("benchmarks.launcher")
    monkeypatch.setattr(bench, "ONE_BY_ONE", 2)
    skills.write_tasks(tmp_path / "tasks", per_task=2)
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    submit, in_slurm, calls, each = bench.submitting(tmp_path, slurm.env, 20, 1)
    took, peak = bench.planning(tmp_path, 50, 1)

    assert (
        len(
            slurm.run(
                "squeue", "-h", "-r", "-u", "root", "-n", "submitit", "-o", "%i"
            ).split()
        )
        == 2
    )
    assert (calls.value, calls.goal) == (4, 4)
    assert 0 < in_slurm.value < submit.value
    assert (each.value, each.goal) == (
        pytest.approx(submit.value / 20 * 1e3),
        pytest.approx(each.peer / 40),
    )
    assert (took.goal, peak.goal) == (3.0, 400.0)
    assert took.value > 0 and 0 < peak.value < 400
