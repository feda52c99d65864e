"""Is every checkpoint scored once on a real Slurm, by few evaluators, whatever is killed?"""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.folder import read_json
from tests.lib.command_line import Zsg, wait_until
from tests.lib.evaluate_jobs import answered, fresh_copy, metric_rows, scores, serve
from tests.lib.forked_jobs import ForkedJobs, JobServer
from tests.lib.mlflow_contents import assert_exactly_once, child_runs
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import ACTIVE, profile, wait_until_ended

pytestmark = pytest.mark.slurm

GRID = """
name: scored
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 12, test_per_task: 6, positive_examples: 0}}
  train: {{batch: 8, lr: 2e-3, max_length: 96, precision: fp32, epochs: 20, steps: 40}}
  checkpoints: {{every: 2, snapshots: 2, metrics: [loss, exact_match], generation: {{preset: paper}}}}
  resources: {{evaluators: 2}}
grid:
  arrangement.order: [cluster]
"""
STEPS = list(range(0, 41, 2))


def starts(zsg: Zsg) -> list[int]:
    """How often each evaluate job has begun, of those that have."""
    return [
        read_json(path)["attempt"]
        for path in (zsg.work / "evaluate").glob("*/attempt.json")
    ]


def holder(zsg: Zsg, run: Path) -> dict[str, Any] | None:
    """The attempt of an evaluate job that is at work at a snapshot."""
    held = [
        json.loads(path.read_text())["holder"]
        for path in (run / "queue").glob("[0-9]*.lease")
        if path.exists()
    ]
    return read_json(zsg.work / held[0] / "attempt.json") if held else None


@pytest.mark.soak(part="slurm")
def test_a_killed_evaluator_loses_nothing_and_doubles_nothing(
    zsg_on_slurm: Zsg,
    slurm: SlurmCluster,
    tasks: Path,
    tmp_path: Path,
    job_server: JobServer,
) -> None:
    """Of two beside a run of 20 snapshots one is killed half-way: all are scored once,
    in three starts, as afresh."""
    zsg = zsg_on_slurm
    grid = zsg.write("grid.yaml", GRID.format(tasks=json.dumps(str(tasks))))
    zsg("submit", grid, "--profile", profile(zsg))
    [run] = [
        zsg.work / "runs" / row["run"]
        for row in zsg.status()
        if not row["run"].startswith("evaluate/")
    ]
    wait_until(lambda: 5 <= len(metric_rows(run)) < 15 and holder(zsg, run), 240)
    killed = holder(zsg, run)
    assert killed
    slurm.run("scancel", "--signal=KILL", "--full", killed["slurm_job_id"])

    wait_until(lambda: not any(row["state"] in ACTIVE for row in zsg.status()), 400)
    assert sorted(row["step"] for row in metric_rows(run)) == STEPS
    assert sum(starts(zsg)) <= 3
    # what the killed one left, others have done
    assert [row["state"] for row in zsg.status()] == ["done"]
    assert "1 done" in zsg("submit", grid, "--profile", profile(zsg))
    zsg("sync", "scored")
    assert_exactly_once(zsg.work, "scored", [run.name])

    alone, [how] = (
        ForkedJobs(job_server),
        {json.dumps(one["suites"][0]["how"]) for one in _serves(zsg)},
    )
    try:
        for step in STEPS:
            fresh = fresh_copy(run, step, tmp_path / f"alone{step}")
            assert alone.run(serve([fresh], how=json.loads(how)))["outcome"] == "done"
            assert (
                answered(fresh, json.loads(how))[step]
                == answered(run, json.loads(how))[step]
            )
            assert scores(fresh)[step] == scores(run)[step]
    finally:
        alone.stop()


@pytest.mark.soak(part="slurm")
def test_an_evaluator_is_requeued_at_its_time_limit(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """Told of it while it works, it is queued again under its own id and ends as
    attempt 2; nothing is scored twice."""
    zsg = zsg_on_slurm
    grid = zsg.write("grid.yaml", GRID.format(tasks=json.dumps(str(tasks))))
    zsg("submit", grid, "--profile", profile(zsg), "--set", "resources.evaluators=0")
    [run] = [
        zsg.work / "runs" / row["run"]
        for row in zsg.status()
        if not row["run"].startswith("evaluate/")
    ]
    wait_until(lambda: len(metric_rows(run)) >= 3 and holder(zsg, run), 240)
    stopped = holder(zsg, run)
    assert stopped
    # as Slurm does before the time limit
    slurm.run("scancel", "--signal=USR2", stopped["slurm_job_id"])
    wait_until(
        lambda: (
            "PENDING"
            in slurm.run("squeue", "-h", "-j", stopped["slurm_job_id"], "-o", "%T")
        ),
        60,
    )
    assert "nothing to submit" in zsg(
        "submit", grid, "--profile", profile(zsg), "--set", "resources.evaluators=0"
    )
    slurm.start_requeued()
    wait_until(lambda: not any(row["state"] in ACTIVE for row in zsg.status()), 400)

    assert starts(zsg) == [2]
    assert sorted(row["step"] for row in metric_rows(run)) == STEPS


@pytest.mark.soak(part="slurm")
def test_what_is_asked_for_later_comes_of_kept_snapshots(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """By an evaluate job alone; what somebody else scores comes by hand; MLflow has all
    of it once."""
    zsg = zsg_on_slurm
    grid = zsg.write("grid.yaml", GRID.format(tasks=json.dumps(str(tasks))))
    asked = (
        "--profile",
        profile(zsg),
        "--set",
        "checkpoints.snapshots=10",
        "--set",
        "resources.evaluators=1",
    )
    zsg("submit", grid, *asked, "--set", "checkpoints.metrics=[loss]")
    [row] = wait_until_ended(zsg, 300)
    run = zsg.work / "runs" / row["run"]
    assert metric_rows(run) == []

    zsg("submit", grid, *asked)
    wait_until(lambda: not any(row["state"] in ACTIVE for row in zsg.status()), 300)
    assert sorted(row["step"] for row in metric_rows(run)) == STEPS[::5]
    assert (read_json(run / "attempt.json")["attempt"], starts(zsg)) == (1, [1])

    answers = [
        json.loads(line)
        for line in zsg("answers", "export", run.name, "--step", "40").splitlines()
    ]
    rated = [
        answer | {"metric": "judge", "score": len(answer["answer"])}
        for answer in answers
    ]
    zsg(
        "score",
        zsg.write("scores.jsonl", "".join(json.dumps(row) + "\n" for row in rated)),
    )
    for _ in range(2):
        zsg("sync", "scored")
        assert_exactly_once(zsg.work, "scored", [run.name])
    judged = [
        point[:2]
        for point in child_runs(zsg.work, "scored")[run.name]["points"]
        if point[0] == "judge"
    ]
    assert judged == [["judge", 40]]


def _serves(zsg: Zsg) -> list[dict[str, Any]]:
    return [
        one
        for path in (zsg.work / "evaluate").glob("*/job.json")
        for one in read_json(path)["serves"]
    ]
