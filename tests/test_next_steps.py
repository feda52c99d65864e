"""Is what `zsg why` says to do next what `zsg retry` does, with the run's own settings?"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from jobs.contract import attempt as attempts
from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.journal import Journal
from jobs.contract.ledger_rows import Retried
from jobs.contract.states import Outcome, State
from launcher.grids.selection import Selection
from launcher.lifecycle import explain, retry
from launcher.status import status
from launcher.status.next_steps import NEXT, Outlook, RunSettings, read_settings
from launcher.status.slurm_states import NO_ANSWER
from launcher.status.status_view import Row
from launcher.status.why import ProvenCause, by_cause, make_why_row
from launcher.views.why_view import draw_group, draw_why
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import CUT_SHORT, JobState
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import job_record, write_job_file
from tests.lib.recorded_run import (
    ITEM,
    FakeSlurm,
    begins,
    started,
    submitted,
    workspace,
)
from zsg_core.errors import UserError

__all__ = ["workspace"]

GOLDEN = Path(__file__).parent / "golden" / "why"
NOT_FINITE = (
    "step 2: DeepSpeed skipped the update because a gradient was not finite, at a training"
    " loss of 8.391 (of the step before it was 8.392); lower train.lr (it is 1e+20)"
)
CLUSTERS = {
    "local": ("local", FakeSlurm()),
    "slurm with accounting": ("slurm", FakeSlurm(sacct="7|FAILED|1:0")),
    "slurm without": ("slurm", FakeSlurm()),
}


@pytest.fixture
def grid(workspace: Workspace) -> Workspace:
    """A workspace whose grid g lists the one run."""
    path = workspace.root / "g.yaml"
    path.write_text("name: g\n")
    record = GridRecord(name="g", runs=[ListedRun(run="r", axes={})])
    recorded_grids.write_grid(workspace, path, record)
    return workspace


def ask(monkeypatch: pytest.MonkeyPatch, slurm: FakeSlurm) -> None:
    """Makes why and retry ask a Slurm that says what a test has it say."""

    def collect(*arguments: Any, **options: Any) -> dict[str, JobState]:
        return status.collect_states(*arguments, run=slurm, **options)

    monkeypatch.setattr(explain, "collect_states", collect)
    monkeypatch.setattr(retry, "collect_states", collect)


def is_taken(workspace: Workspace, state: str | None, force: bool) -> bool:
    """Whether `zsg retry g` would try the run again, with `--only state=…` or --force."""
    only = [f"state={state}"] if state else None
    selection = Selection.parse(only, None)
    return "r" in retry.choose_retries(workspace, "g", selection, (), force).runs


def check_command(workspace: Workspace, advice: str) -> None:
    """Fails unless the command of an advice takes the run, and one with fewer options
    does not; of another command, unless `zsg retry g` leaves it."""
    command = advice.rpartition("then: ")[2]
    words = command.partition(";")[0].split()
    if words[:3] != ["zsg", "retry", "g"]:
        assert not is_taken(workspace, None, force=False), advice
        return
    force = "--force" in words
    states = [word.removeprefix("state=") for word in words if "state=" in word]
    state = states[0] if states else None
    assert is_taken(workspace, state, force), advice
    if force:
        assert not is_taken(workspace, state, force=False), advice
    if state:
        assert not is_taken(workspace, None, force), advice


@pytest.mark.parametrize(
    ("cluster", "times"),
    [*((cluster, 0) for cluster in CLUSTERS), ("local", 12)],
)
@pytest.mark.parametrize("cause", Cause)
def test_what_is_next_is_what_retry_does(
    cause: Cause,
    cluster: str,
    times: int,
    grid: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a run that has failed of any cause, on this machine and on Slurm, with and
    without accounting; also once its tries are used up."""
    scheduler, slurm = CLUSTERS[cluster]
    ask(monkeypatch, slurm)
    ledger = Ledger(grid)
    earlier = Retried(cause=cause, signature=None)
    for _ in range(times):
        ledger.intend(
            scheduler=scheduler,
            kind="train",
            grid="g",
            items=[ITEM],
            retries={ITEM: earlier},
        )
    attempt = started(grid, submitted(grid, scheduler))
    write_job_file(grid.root / ITEM)
    attempts.end_attempt(
        grid.root / ITEM, attempt, Outcome.FAILED, cause=cause, evidence="line"
    )

    advice = explain.why_run(grid, "r")["next"]
    check_command(grid, advice)
    assert (
        advice == explain.why_grid(grid, "g")[0]["next"]
        or "step" in advice
        or ("again" in advice)
    )


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("end", ["killed", "cancelled", "stopped", "unbegun"])
def test_what_is_next_of_other_ends_is_what_retry_does(
    end: str, cluster: str, grid: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed without a record, cancelled, stopped by its time limit, or never begun."""
    scheduler, slurm = CLUSTERS[cluster]
    ask(monkeypatch, slurm)
    submission = submitted(grid, scheduler)
    write_job_file(grid.root / ITEM)
    if end == "killed":
        begins(grid, "loading\n")
    if end in ("cancelled", "stopped"):
        outcome = Outcome.CANCELLED if end == "cancelled" else Outcome.CONTINUE
        cause = Cause.CANCELLED if end == "cancelled" else Cause.TIME_LIMIT
        attempt = started(grid, submission)
        facts: dict[str, Any] = {"cause": cause, "evidence": "told to stop"}
        facts |= {"step": 4, "saved": 4}
        attempts.end_attempt(grid.root / ITEM, attempt, outcome, **facts)

    told = explain.why_run(grid, "r")
    assert told["next"], told
    check_command(grid, told["next"])


@pytest.mark.parametrize(
    ("state", "command"),
    [
        (JobState(state=State.FAILED, cause=Cause.DIED, in_queue=True), "zsg cancel r"),
        (
            JobState(state=State.UNKNOWN, cause=f"{NO_ANSWER} (x)", in_queue=True),
            "look again",
        ),
        (JobState(state=State.UNKNOWN, cause=CUT_SHORT), "zsg submit GRID.YAML"),
        (
            JobState(state=State.UNKNOWN, cause="it left no record", attempt=1),
            "zsg retry g --only state=unknown",
        ),
    ],
)
def test_what_slurm_may_still_have_is_not_retried(
    state: JobState, command: str, grid: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why and retry go by the same: what is in the queue is cancelled or asked for again."""

    def collect(*_: Any, **options: Any) -> dict[str, JobState]:
        return {ITEM: state}

    submitted(grid)
    write_job_file(grid.root / ITEM)
    monkeypatch.setattr(explain, "collect_states", collect)
    monkeypatch.setattr(retry, "collect_states", collect)
    advice = explain.why_run(grid, "r")["next"]

    assert command in advice
    check_command(grid, advice)


def test_a_stage_is_trained_again_with_the_runs_that_start_from_it(
    grid: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its grid does not list it as a run of its own, so retry takes those that wait."""
    ask(monkeypatch, FakeSlurm())
    before = Ledger(grid).intend(
        scheduler="local", kind="train", grid="g", items=["runs/stage"]
    )
    Ledger(grid).submitted(before, ["local"])
    folder = grid.root / "runs/stage"
    attempt = attempts.begin_attempt(folder, before.id)
    write_job_file(folder)
    attempts.end_attempt(
        folder, attempt, Outcome.FAILED, cause=Cause.CLUSTER, evidence="line"
    )
    submitted(grid, "local")
    write_job_file(grid.root / ITEM, before=["stage"], after=["runs/stage"])

    advice = explain.why_run(grid, "stage")["next"]
    assert advice.endswith("zsg retry g (for the runs that wait for it)")
    check_command(grid, advice)


def test_a_name_that_is_none_is_said_to_be_no_run_and_no_grid(grid: Workspace) -> None:
    """Why takes either."""
    with pytest.raises(UserError, match="no run or grid 'foo' in"):
        explain.why_run(grid, "foo")


def test_a_run_that_never_started_is_submitted(
    grid: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its submit ended before its turn came: nothing failed, so nothing is retried, and
    why and retry name the same command."""
    ask(monkeypatch, FakeSlurm())
    submitted(grid, "local")
    write_job_file(grid.root / ITEM)
    choice = retry.choose_retries(grid, "g", Selection.parse(None, None), (), False)

    assert explain.why_run(grid, "r")["next"] == "zsg submit GRID.YAML starts it"
    assert choice.describe_left("g") == [
        "left: 1 never started (r); zsg submit GRID.YAML starts them"
    ]


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (Cause.DIED, "zsg retry g (for the runs that wait for it)"),
        (Cause.BAD_DATA, "zsg submit with the change; zsg retry g leaves this run"),
    ],
)
def test_a_prepare_job_is_made_again_as_the_runs_that_wait_for_it(
    cause: Cause, expected: str, grid: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no run: what retry does with those that failed for it is what is next."""
    ask(monkeypatch, FakeSlurm(sacct="7|CANCELLED by 0|0:0\n6|FAILED|1:0"))
    ledger = Ledger(grid)
    before = ledger.intend(
        scheduler="slurm", kind="prepare", grid="g", items=["prepare/p"]
    )
    ledger.submitted(before, ["6"])
    attempt = attempts.begin_attempt(grid.root / "prepare/p", before.id)
    submitted(grid)
    write_job_file(grid.root / ITEM, after=["prepare/p"])
    attempts.end_attempt(
        grid.root / "prepare/p", attempt, Outcome.FAILED, cause=cause, evidence="line"
    )

    advice = explain.why_run(grid, "prepare/p")["next"]
    assert expected in advice
    check_command(grid, advice)


@pytest.mark.parametrize(
    ("cause", "settings", "state", "has", "lacks"),
    [
        (
            Cause.OUT_OF_MEMORY,
            RunSettings(zero_stage=1, nodes=2, gpus=8, recomputes=False),
            JobState(state=State.FAILED),
            "a larger deepspeed.zero_stage (it is 1) or more nodes (it has 2) or"
            " trainer.recompute: true",
            "on each node",
        ),
        (
            Cause.OUT_OF_MEMORY,
            RunSettings(zero_stage=3, nodes=1, recomputes=True),
            JobState(state=State.FAILED),
            "less memory on each node: more nodes (it has 1); zsg plan",
            "zero_stage",
        ),
        (
            Cause.TIME_LIMIT,
            RunSettings(time_min=60),
            JobState(state=State.FAILED),
            "it has saved nothing",
            "goes on",
        ),
        (
            Cause.TIME_LIMIT,
            RunSettings(time_min=60),
            JobState(state=State.FAILED, saved=8),
            "raise train.time_min in the profile (it is 60); then: zsg retry g resumes from"
            " step 8",
            "nothing",
        ),
        (
            Cause.DIVERGED,
            RunSettings(precision="fp32"),
            JobState(state=State.FAILED),
            NEXT[Cause.DIVERGED],
            "precision",
        ),
        (
            Cause.DIVERGED,
            RunSettings(precision="bf16", overflow="error"),
            JobState(state=State.FAILED),
            "use train.precision: fp32 (each",
            "overflow",
        ),
        (
            Cause.DIVERGED,
            RunSettings(precision="fp16", overflow="skip"),
            JobState(state=State.FAILED),
            "use train.precision: bf16 or fp32",
            "overflow",
        ),
        (
            Cause.BAD_DATA,
            RunSettings(passes_bad_rows=True),
            JobState(state=State.FAILED),
            "repair the row",
            "on_bad_row",
        ),
    ],
)
def test_no_advice_is_given_that_is_followed_already(
    cause: Cause, settings: RunSettings, state: JobState, has: str, lacks: str
) -> None:
    """Nothing is advised that the run has: a precision, a ZeRO stage, a rule for rows."""
    outlook = Outlook(settings=settings)
    advice = make_why_row("r", "g", state, ProvenCause(cause), outlook)["next"]

    assert has in advice
    assert lacks not in advice


def test_settings_are_read_from_the_job() -> None:
    """By job.json; of one that says something else by the same keys they are not
    known."""
    known = read_settings(job_record())
    odd = read_settings(
        job_record(recipe={"stages": 3}, deepspeed={"zero_optimization": 3})
    )

    assert (known.precision, known.zero_stage, known.time_min) == ("fp32", 1, 60)
    assert not known.passes_bad_rows
    assert (odd.precision, odd.zero_stage, odd.time_min) == (None, None, 60)


def diverge(
    workspace: Workspace, run: str, precision: str = "fp32", losses: int = 1
) -> None:
    """A run of this machine whose gradient was not finite after so many steps."""
    item = f"runs/{run}"
    ledger = Ledger(workspace)
    submission = ledger.intend(
        scheduler="local", kind="train", grid="fail", items=[item]
    )
    ledger.submitted(submission, ["local"])
    folder = workspace.root / item
    attempt = attempts.begin_attempt(folder, submission.id)
    journal = Journal(folder, attempt, "train", "1")
    for step in range(1, losses + 1):
        values = {"train/loss": 8.391762733459473, "train/lr": 1e20}
        journal.add_metrics(values, step=step, examples=step)
    journal.add_metrics({"train/loss": float("nan")}, step=losses + 1, examples=9)
    journal.close()
    write_job_file(folder)
    fields = read_fields(folder)
    fields["recipe"]["stages"][0]["train"]["precision"] = precision
    write_fields(folder, fields)
    attempts.end_attempt(
        folder,
        attempt,
        Outcome.FAILED,
        cause=Cause.DIVERGED,
        evidence=NOT_FINITE,
        signature="6818e2aa",
        step=losses + 1,
    )


def read_fields(folder: Path) -> dict[str, Any]:
    """A job.json."""
    return json.loads((folder / "job.json").read_text())


def write_fields(folder: Path, fields: dict[str, Any]) -> None:
    """Writes a job.json."""
    (folder / "job.json").write_text(json.dumps(fields))


@pytest.fixture
def diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A grid of which three runs have diverged, one of them in bf16, and one had a full
    disk."""
    monkeypatch.setenv("ZSG_WORKSPACE", str(tmp_path))
    place = Workspace(tmp_path)
    runs = ["59725024575a", "5dad01f76a67", "0aa3866a6224", "e4a6866a6224"]
    path = tmp_path / "fail.yaml"
    path.write_text("name: fail\n")
    record = GridRecord(
        name="fail",
        file="fail.yaml",
        opened_with="local",
        runs=[ListedRun(run=run, axes={}) for run in runs],
    )
    recorded_grids.write_grid(place, path, record)
    diverge(place, runs[0])
    diverge(place, runs[1])
    diverge(place, runs[2], precision="bf16", losses=3)
    item = f"runs/{runs[3]}"
    ledger = Ledger(place)
    submission = ledger.intend(
        scheduler="local", kind="train", grid="fail", items=[item]
    )
    ledger.submitted(submission, ["local"])
    attempts.end_attempt(
        place.root / item,
        attempts.begin_attempt(place.root / item, submission.id),
        Outcome.FAILED,
        cause=Cause.DISK_FULL,
        evidence="OSError: [Errno 28] No space left on device: 'snapshots/24'",
    )
    return place


def drawn(rows: Sequence[Row], draw: Callable[..., Any]) -> list[str]:
    """What is printed at 80 columns."""
    lines = [line for row in rows for line in draw(row, 80)]
    return ["".join(text for text, _ in line) for line in lines]


def test_a_diverged_run_is_told_as_kept(diverged: Workspace) -> None:
    """At 80 columns: the cause, the last loss that was a number with its step and rate,
    and what to do."""
    row = explain.why_run(diverged, "5972")
    lines = drawn([row], draw_why)

    assert lines == (GOLDEN / "diverged_run.txt").read_text().splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert (row["last_loss_step"], row["lr"]) == (1, 1e20)


def test_the_failures_of_a_grid_are_told_as_kept(diverged: Workspace) -> None:
    """At 80 columns: runs that are given other advice are another group."""
    lines = drawn(explain.why_grid(diverged, "fail"), draw_group)

    assert lines == (GOLDEN / "grid_groups.txt").read_text().splitlines()
    assert max(map(cell_len, lines)) <= 80


def test_runs_of_which_some_have_no_tries_left_are_two_groups() -> None:
    """One command for all of them would leave some."""
    rows = [
        make_why_row(
            run,
            "g",
            JobState(state=State.FAILED),
            ProvenCause(Cause.CLUSTER, "the line"),
            Outlook(refusal=refusal, is_alone=False),
        )
        for run, refusal in (
            ("a1", None),
            ("b2", "retried 3 times already, it"),
            ("c3", None),
        )
    ]
    groups = by_cause(rows)

    assert [group["runs"] for group in groups] == [["a1", "c3"], ["b2"]]
    assert groups[0]["next"].endswith("zsg retry g")
    assert "zsg retry g --force" in groups[1]["next"]
