"""May the other runs of a grid start, by what the first of them has shown?"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.causes import Cause, Known
from jobs.contract.exit_record import ExitRecord
from jobs.runtime.canary import FirstRunResult, is_submitted_again, judge_first_run
from launcher.grids.runs import Run
from launcher.planning.plan import Plan
from launcher.submission.canary import AT_ONCE, with_first
from launcher.submission.sbatch import build_dependency
from tests.lib.command_line import Zsg, wait_until
from tests.lib.job_records import write_job_file
from tests.lib.journal_rows import typed_rows
from tests.lib.light_grid import CLUSTER, LIGHT, write_grid
from tests.lib.planned_runs import a_run, planned

Row = dict[str, Any]


def row(step: int, kind: str = "metric", **data: Any) -> Row:
    """A row of a journal."""
    return {
        "step": step,
        "kind": kind,
        "data": {key.replace("__", "/"): value for key, value in data.items()},
    }


def trained(*speeds: float, loss: Any = None, first: int = 0) -> list[Row]:
    """The journal of a run that has taken a step at each speed, with a loss before the
    first and after the last."""
    rows = [row(first, "event", event="start", **{"from": first}), row(first, loss=5.0)]
    rows += [
        row(first + n, speed__tokens_per_s=speed) for n, speed in enumerate(speeds, 1)
    ]
    return rows if loss is None else [*rows, row(first + len(speeds), loss=loss)]


def ended(outcome: str, **facts: Any) -> ExitRecord:
    """An exit record."""
    told = {"step": 9, "loss": 2.5, **facts}
    return ExitRecord(attempt=1, submission="s", nonce="n", outcome=outcome, **told)


ENOUGH = [
    pytest.param(
        trained(10, 90, 100, 104, loss=3.5),
        None,
        FirstRunResult("r", 4, 3.5, 102),
        id="a checkpoint",
    ),
    pytest.param(
        trained(10, loss=3.5, first=40),
        None,
        FirstRunResult("r", 41, 3.5, 10),
        id="of a later stage",
    ),
    pytest.param(
        trained(10),
        ended("done"),
        FirstRunResult("r", 9, 2.5, 10),
        id="it is done, with no other checkpoint",
    ),
    pytest.param(
        [],
        ended("done", loss=None),
        FirstRunResult("r", 9, None, None),
        id="it was done before",
    ),
    pytest.param(
        trained(10, 20, loss=3.5),
        ended("failed"),
        FirstRunResult("r", 2, 3.5, 15),
        id="it fails later",
    ),
]


@pytest.mark.parametrize(("rows", "record", "shown"), ENOUGH)
def test_the_others_may_start(
    rows: list[Row], record: ExitRecord | None, shown: FirstRunResult
) -> None:
    """Once there is a finite loss after a step of its own and a speed, of which the
    first two steps do not count."""
    assert judge_first_run("r", typed_rows(rows), record) == shown


WAIT = [
    pytest.param([], None, id="nothing has begun"),
    pytest.param(trained(), None, id="only the loss before training"),
    pytest.param(trained(10, 10), None, id="steps, and no checkpoint yet"),
    pytest.param(
        trained(10, 10), ended("continue"), id="its time limit came, it goes on"
    ),
]


@pytest.mark.parametrize(("rows", "record"), WAIT)
def test_the_others_wait(rows: list[Row], record: ExitRecord | None) -> None:
    """While that has not been shown and may yet be."""
    assert judge_first_run("r", typed_rows(rows), record) is None


FAIL = [
    pytest.param(
        trained(10, loss="nan"),
        None,
        "loss nan at its first checkpoint, step 1",
        id="not a number",
    ),
    pytest.param(
        trained(10, loss="inf"),
        None,
        "loss inf at its first checkpoint, step 1",
        id="infinite",
    ),
    pytest.param(
        trained(10),
        ended("failed", cause="out of memory", evidence="CUDA out of memory"),
        "ended before its first checkpoint: out of memory: CUDA out of memory",
        id="it does not fit",
    ),
    pytest.param(
        [],
        ended("cancelled"),
        "ended before its first checkpoint: cancelled",
        id="it was cancelled",
    ),
]


@pytest.mark.parametrize(("rows", "record", "said"), FAIL)
def test_the_others_do_not_start(
    rows: list[Row], record: ExitRecord | None, said: str
) -> None:
    """Where the first has failed, or learns nothing: with the reason."""
    with pytest.raises(Known, match=said) as raised:
        judge_first_run("r", typed_rows(rows), record)
    assert raised.value.cause == Cause.CANARY_FAILED


def many(count: int = AT_ONCE + 1, **changes: Any) -> list[Run]:
    """So many runs, which differ in their learning rate."""
    return [
        a_run(train={"lr": number / 1000}, **changes) for number in range(1, count + 1)
    ]


def first_of(plan: Plan) -> str:
    """The run that goes first."""
    assert plan.canary
    return plan.canary.run.id


def test_a_watch_ends_when_its_run_is_submitted_again(tmp_path: Path) -> None:
    """The new submission has a watch of its own; without a job file that can be read it
    waits on."""
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    assert not is_submitted_again(run, "first")
    write_job_file(run, submission="first")
    assert not is_submitted_again(run, "first")
    write_job_file(run, submission="second")
    assert is_submitted_again(run, "first")
    (run / "job.json").write_text("{")
    assert not is_submitted_again(run, "first")


def test_few_runs_need_no_first() -> None:
    """Eight are submitted at once."""
    assert with_first(planned(many(AT_ONCE)), lambda run: 0, []).canary is None


def test_of_many_runs_the_largest_goes_first() -> None:
    """It waits only for what it needs itself; the others wait for the job that watches it, too."""
    runs = many()
    plan = planned(runs)
    gated = with_first(plan, lambda run: float(run is runs[4]), [])

    assert first_of(gated) == runs[4].id
    alone, others = gated.groups
    assert alone.runs == [runs[4]] and alone.after == plan.groups[0].after
    assert others.runs == [run for run in runs if run is not runs[4]]
    assert others.after == (*plan.groups[0].after, f"canary/{runs[4].id}")
    assert gated.jobs(0) == plan.jobs(0) + 1
    assert {
        run.id for run in runs if f"canary/{runs[4].id}" in gated.needed[run.id]
    } == {run.id for run in others.runs}


def test_of_equal_runs_the_first_goes_first() -> None:
    """So that a grid has the same canary on every machine."""
    runs = many()
    assert first_of(with_first(planned(runs), lambda run: 1.0, [])) == runs[0].id


def test_a_model_on_trial_does_not_go_first() -> None:
    """Refused, it would end all that wait for it; where all are on trial the largest goes."""
    runs = [replace(run, proof="p") if at < 3 else run for at, run in enumerate(many())]
    all_on_trial = [replace(run, proof="p") for run in runs]

    def need(run: Run) -> float:
        return -float(run.stage["train"]["lr"])

    plan = planned(runs)
    assert any(runs[0].proof_item in prepare.makes for prepare in plan.prepares)
    assert first_of(with_first(plan, need, [])) == runs[3].id
    assert first_of(with_first(replace(plan, prepares=[]), need, [])) == runs[0].id
    assert first_of(with_first(planned(all_on_trial), need, [])) == runs[0].id


def test_what_has_been_shown_need_not_be_shown_again() -> None:
    """A run of the same size that trains, or has, stands for the first; one of another
    size does not."""
    runs, plan = many(), planned(many())
    assert with_first(plan, lambda run: 0, [a_run(seed=7)]).canary is None
    assert with_first(
        plan, lambda run: 0, [replace(runs[0], size=a_run(nodes=2).size)]
    ).canary


def test_many_groups_wait_for_the_first_and_for_the_end_of_their_prepares() -> None:
    """That of the first must be good; what the prepare jobs made each run sees for itself."""
    assert (
        build_dependency(["5_0", "5_1", "9"], whatever_they_made=True, well="9")
        == "afterany:5,afterok:9"
    )


def on_slurm(
    zsg: Zsg, tasks: Path, step_s: float, **environment: str
) -> list[dict[str, Any]]:
    """The grid of nine runs in a new workspace on Slurm, whose jobs wait for nothing to be made."""
    grid = write_grid(zsg, tasks, runs=9, steps=20)
    text = CLUSTER.format(light=LIGHT, step_s=step_s)
    text = text.replace(
        "set: {",
        "set: {" + "".join(f'{key}: "{value}", ' for key, value in environment.items()),
    )
    zsg("submit", grid, "--profile", zsg.write("slurm.yaml", text))
    assert "goes first: 8 others wait" in zsg.said
    return zsg.status()


@pytest.mark.slurm
def test_a_canary_lets_the_others_start(prepared_on_slurm: Zsg, tasks: Path) -> None:
    """Until its first checkpoint nobody else has begun; then all do, and its speed is
    kept for later plans."""
    zsg = prepared_on_slurm
    rows = on_slurm(zsg, tasks, step_s=0.5)
    first, *others = [row["run"] for row in rows]
    wait_until(lambda: (zsg.work / "runs" / first / "attempt.json").exists())
    time.sleep(1)
    assert not [
        run for run in others if (zsg.work / "runs" / run / "attempt.json").exists()
    ]

    wait_until(lambda: {row["state"] for row in zsg.status()} == {"done"}, 240)
    assert (
        "the others may start"
        in (zsg.work / f"canary/{first}/journal/1-canary-0.jsonl").read_text()
    )
    assert list((zsg.work / "speeds").glob("*.json"))
    assert "9 done" in zsg(
        "submit", zsg.folder / "grid.yaml", "--profile", zsg.folder / "slurm.yaml"
    )


@pytest.mark.slurm
def test_a_canary_that_diverges_stops_the_others(
    prepared_on_slurm: Zsg, tasks: Path
) -> None:
    """They never start and have failed for that reason, which `zsg why` tells; eight of
    them need no new canary."""
    zsg = prepared_on_slurm
    rows = on_slurm(zsg, tasks, step_s=0.05, LIGHT_DIVERGES="yes")
    others = [row["run"] for row in rows[1:]]
    wait_until(
        lambda: (
            {row["state"] for row in zsg.status() if row["run"] in others} == {"failed"}
        ),
        120,
    )

    rows = [row for row in zsg.status() if row["run"] in others]
    assert {row["cause"] for row in rows} == {"canary failed"}
    assert all(
        "loss nan at its first checkpoint, step 5" in row["evidence"] for row in rows
    )
    assert not [
        run for run in others if (zsg.work / "runs" / run / "attempt.json").exists()
    ]
    assert "loss nan" in zsg("why", "storm")
    plan = zsg(
        "plan",
        zsg.folder / "grid.yaml",
        "--profile",
        zsg.folder / "slurm.yaml",
        "--retry",
    )
    assert "waits for that run's first checkpoint" not in plan
