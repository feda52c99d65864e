"""Do runs of later splits wait for the look before them, and end where it finds them needless?"""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from benchmarks.report import listed_run, record_run
from jobs.contract import attempt as attempts
from jobs.contract import cancellation, exit_record, job_file, look_decision
from jobs.contract.causes import Cause, Known
from jobs.contract.exit_record import ExitRecord
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import (
    DatedClaim,
    GridRecord,
    ListedRun,
    write_grid_record,
)
from jobs.contract.job_file import LookedRun, LookJob, Paths, Resources
from jobs.contract.look_decision import LookDecision
from jobs.contract.states import Outcome, State
from jobs.deciding import judged_claims, look
from launcher.clusters.profiles import Profile
from launcher.grids import claim_deviations, grid_claims
from launcher.grids.grid import Grid
from launcher.grids.runs import Run
from launcher.planning import job_lines
from launcher.planning.estimates import Estimate
from launcher.planning.plan import SKIP, SUBMIT, Action, Plan, run_item
from launcher.planning.site import Site
from launcher.status import look_notes
from launcher.status.status import collect_states
from launcher.submission import canary, local, submit, waves
from launcher.submission.submit import order_arrays
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from tests.lib.planned_runs import a_run, planned
from zsg_core.settings.claims import OF_A_GRID
from zsg_core.settings.looks import Looks
from zsg_core.stats.verdict import SUPPORTED, ClaimVerdict

SPLITS = 6
[CLAIM] = OF_A_GRID.validate_python(
    [{"claim": "rises", "along": "arrangement.order", "values": ["nft", "fft"]}]
)
LOOKS = Looks(at=[4, 5, 6])


def make_grid() -> Grid:
    """A grid whose claim is looked at after 4, 5 and 6 splits."""
    return Grid(Path("g.yaml"), "g", None, [], [], (), (CLAIM,), LOOKS)


def list_runs() -> list[Run]:
    """Two orders on each of six splits."""
    runs: list[Run] = []
    for order in ("random", "cluster"):
        for split in range(SPLITS):
            run = a_run(
                order, data={"held_out": {"by": "seed", "tasks": 2, "seed": split}}
            )
            axes = {"arrangement.order": order, "data.held_out.seed": split}
            runs.append(dataclasses.replace(run, axes=axes))
    return runs


def plan_waves(
    decided: set[str] | None = None, active: set[str] | None = None
) -> tuple[Plan, list[Run]]:
    """The plan of all runs, where these looks were taken and these jobs are under way."""
    runs = list_runs()
    looks = waves.list_looks(make_grid(), runs)
    chosen = {looks[int(number) - 1].item for number in decided or ()}
    busy = active or set[str]()
    plan = waves.with_looks(planned(runs), looks, chosen, lambda item: item in busy)
    return plan, runs


def test_each_wave_waits_for_the_look_before_it() -> None:
    """Whole splits in a wave; the look waits for all runs up to it; each run is in one
    array, and arrays come after what they wait for."""
    plan, runs = plan_waves()
    first, second = plan.looks
    split_of = {run.id: run.axes["data.held_out.seed"] for run in runs}

    assert [look.number for look in plan.looks] == [1, 2]
    assert len(first.after) == 8
    assert second.after[0] == first.item
    assert len(second.after) == 1 + 10
    for group in plan.groups:
        splits = {split_of[run.id] for run in group.runs}
        if first.item in group.after:
            assert splits == {4}
        elif second.item in group.after:
            assert splits == {5}
        else:
            assert splits <= {0, 1, 2, 3}
    listed = [run.id for group in plan.groups for run in group.runs]
    assert sorted(listed) == sorted(run.id for run in runs)
    seen: set[str] = set()
    for array in order_arrays(plan):
        if isinstance(array, list):
            continue
        for item in array.after:
            after = {one.item: one.after for one in plan.looks}.get(item, ())
            assert seen.issuperset(filter(job_file.is_run_item, after))
        seen |= {run_item(run) for run in array.runs}


def test_a_plan_says_which_look_may_spare_which_jobs() -> None:
    """Of those of the first wave it says nothing."""
    plan, _ = plan_waves()
    work = SimpleNamespace(steps=9, train_tokens=99, examples_are="", tokens_are="")
    estimate = cast(Estimate, SimpleNamespace(work=work))
    lines = job_lines.describe_jobs(
        plan, Profile(name="p", kind="local"), lambda run: estimate
    )
    begun = [line.words.partition(":")[0] for line in lines]

    assert [words for words in begun if "train job" in words] == [
        "8 train jobs",
        "2 train jobs, unless look 1 spares them",
        "2 train jobs, unless look 2 spares them",
    ]


def test_a_look_that_is_taken_or_under_way_is_not_made_again() -> None:
    """What waits for it waits for that one; what it let go on waits no more."""
    plan, _ = plan_waves()
    first, second = (look.item for look in plan.looks)
    under_way, _ = plan_waves(active={first})
    taken, _ = plan_waves(decided={"1"})

    assert [look.item for look in under_way.looks] == [second]
    assert any(first in group.after for group in under_way.groups)
    assert not any(first in group.after for group in taken.groups)
    assert [look.item for look in taken.looks] == [second]


def test_a_grid_that_was_edited_has_looks_of_its_own() -> None:
    """Of other runs or other claims; those of the same are the same."""
    runs, grid = list_runs(), make_grid()
    items = [one.item for one in waves.list_looks(grid, runs)]
    other = dataclasses.replace(grid, looks=Looks(at=[4, 5, 6], error_rate=0.1))

    assert items == [one.item for one in waves.list_looks(grid, runs)]
    assert set(items).isdisjoint(one.item for one in waves.list_looks(other, runs))
    fewer = waves.list_looks(grid, [run for run in runs if run is not runs[0]])
    assert set(items).isdisjoint(one.item for one in fewer)
    assert waves.list_looks(dataclasses.replace(grid, looks=None), runs) == []


def test_one_of_the_first_wave_goes_first() -> None:
    """Later waves wait for looks, not for it."""
    plan, _ = plan_waves()
    gated = canary.with_first(plan, lambda run: 0.0, [])

    assert gated.canary is not None
    assert gated.canary.waiting == 7
    assert all(gated.canary.item in one.after for one in gated.looks)
    for group in gated.groups:
        if any(one.item in group.after for one in gated.looks):
            assert gated.canary.item not in group.after


def decide(item: str, *, is_over: bool) -> dict[str, LookDecision]:
    """A decision of a look."""
    decision = LookDecision(
        grid="g", number=1, splits=4, is_over=is_over, why="decided", claims=[], at=1
    )
    return {item: decision}


def test_what_a_look_has_spared_is_not_submitted() -> None:
    """However often; and is, once the grid has other looks."""
    runs = list_runs()
    looks = waves.list_looks(make_grid(), runs)
    actions = [Action(run, SUBMIT, "new") for run in runs]
    states = {run_item(run): JobState(state=State.ABSENT) for run in runs}
    over = waves.spare_actions(
        actions, looks, decide(looks[0].item, is_over=True), states
    )
    goes_on = waves.spare_actions(
        actions, looks, decide(looks[0].item, is_over=False), states
    )

    spared = [
        action.run.axes["data.held_out.seed"] for action in over if action.kind == SKIP
    ]
    assert sorted(spared) == [4, 4, 5, 5]
    assert sum(map(waves.is_spared, over)) == 4
    assert not any(map(waves.is_spared, goes_on))
    assert goes_on == actions
    skipped = [Action(run, SKIP, "cancelled", State.CANCELLED) for run in runs]
    told = JobState(state=State.CANCELLED, cause=Cause.SPARED, evidence="decided")
    again = waves.spare_actions(
        skipped, looks, {}, {run_item(run): told for run in runs}
    )
    assert {action.kind for action in again} == {SUBMIT}


def run_here(
    place: Workspace, outcomes: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Submits the waves on this machine, where jobs end at once: as `outcomes` say, by
    folder, else well. Returns those that were started."""
    plan, _ = plan_waves()
    profile = Profile.model_validate({"name": "p", "kind": "local", "max_parallel": 3})
    site = Site(place, profile)
    jobs, locks = submit.submit_local(site, make_grid(), plan, Ledger(place))
    started: list[str] = []

    def start(command: list[str], **options: Any) -> Any:
        folder = Path(command[-1])
        item = f"{folder.parent.name}/{folder.name}"
        started.append(item)
        record = job_file.read_job(folder)
        assert record is not None
        attempt = attempts.begin_attempt(folder, record.submission)
        end = ExitRecord(
            attempt=attempt.attempt,
            submission=record.submission,
            nonce=attempt.nonce,
            outcome=outcomes.get(item, Outcome.DONE),
        )
        exit_record.write_exit_record(folder, end)
        return SimpleNamespace(poll=lambda: 0)

    monkeypatch.setattr(local.subprocess, "Popen", start)
    monkeypatch.setattr(local, "POLL_S", 0)
    monkeypatch.setattr(local.model_proofs, "lets_start", lambda *given: True)
    local.run_all(place, profile, jobs, lambda: None)
    for lock in locks:
        os.close(lock)
    return [item for item in started if not item.startswith("prepare/")]


def test_on_this_machine_no_wave_starts_behind_a_look_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the look behind it: they are told to have failed for it, as on Slurm."""
    place = Workspace(tmp_path)
    place.create()
    plan, runs = plan_waves()
    first, second = (look.item for look in plan.looks)
    early = {run_item(run) for run in runs if run.axes["data.held_out.seed"] < 4}
    started = run_here(place, {first: Outcome.FAILED}, monkeypatch)
    late = {run_item(run) for run in runs} - early
    states = collect_states(place, [*late, second], Ledger(place))

    assert set(started) == early | {first}
    assert {state.cause for state in states.values()} == {Cause.LOOK_FAILED}


def test_on_this_machine_waves_start_once_the_looks_before_them_have_ended_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in its turn, also behind a run that failed."""
    place = Workspace(tmp_path)
    place.create()
    plan, runs = plan_waves()
    first, second = (look.item for look in plan.looks)
    started = run_here(place, {run_item(runs[0]): Outcome.FAILED}, monkeypatch)
    behind = {
        number: [
            started.index(run_item(run))
            for run in runs
            if run.axes["data.held_out.seed"] == number
        ]
        for number in (3, 4, 5)
    }

    assert len(started) == len(runs) + 2
    assert max(behind[3]) < started.index(first) < min(behind[4])
    assert max(behind[4]) < started.index(second) < min(behind[5])


def record_study(
    place: Workspace, step: float, done: int = SPLITS
) -> list[dict[str, Any]]:
    """The runs of six splits with tasks of their own, of which so many splits are done."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for split in range(SPLITS):
        names = [f"s{split}t{number // 2}" for number in range(16)]
        height = rng.normal(0, 1, 16)
        for place_of, order in enumerate(("nft", "fft")):
            axes = {"arrangement.order": order, "data.held_out.seed": split}
            row = listed_run(f"{order}{split}", axes)
            rows.append(row)
            losses = step * place_of + height + rng.normal(0, 0.05, (4, 16))
            outcome = "done" if split < done else None
            trained = split < done
            record_run(
                place,
                row,
                [0, 10, 20, 30],
                names,
                losses,
                outcome=outcome,
                trained=trained,
            )
    return rows


def make_look(place: Workspace, rows: list[dict[str, Any]], **looks: Any) -> LookJob:
    """The job of the first look."""
    settings = LOOKS.model_dump(mode="json", exclude={"expect"}) | looks
    before = [row for row in rows if row["axes"]["data.held_out.seed"] < 4]
    return LookJob(
        schema=1,
        run_id=None,
        submission="s",
        resources=Resources(
            profile="p", nodes=1, ranks_per_node=1, cpus_per_rank=1, time_min=60
        ),
        paths=Paths(workspace=str(place.root)),
        stage_id="one",
        grid="g",
        number=1,
        runs=[LookedRun(run=row["run"], axes=row["axes"]) for row in before],
        spares=[row["run"] for row in rows if row not in before],
        claims=[grid_claims.make_claim_key(CLAIM)],
        looks=settings,
        after=[],
        makes=["looks/one/decision.json"],
    )


def wait_at_start(place: Workspace, rows: list[dict[str, Any]]) -> list[str]:
    """Has the runs of later splits wait in the queue, as jobs that have not begun."""
    waiting = [row["run"] for row in rows if row["axes"]["data.held_out.seed"] >= 4]
    for run in waiting:
        (place.run(run) / "attempt.json").unlink()
        (place.run(run) / "exit.json").unlink(missing_ok=True)
    return waiting


def list_told(place: Workspace, runs: list[str]) -> list[str]:
    """The runs that are told to end when they start."""
    told: list[str] = []
    for run in runs:
        request = cancellation.read_cancellation(place.run(run), "submission")
        if request is not None:
            assert request.facts["cause"] == Cause.SPARED
            told.append(run)
    return told


def test_a_look_that_decides_ends_the_waves_behind(tmp_path: Path) -> None:
    """But a run that another grid lists, or that has begun."""
    place = Workspace(tmp_path)
    rows = record_study(place, 1.0)
    waiting = wait_at_start(place, rows[:-1])
    other = ListedRun(run=waiting[0], axes={})
    write_grid_record(place, GridRecord(name="other", runs=[other]))
    decision = look.take_look(make_look(place, rows))

    assert decision.is_over
    assert decision.claims == ["rises: supported"]
    assert list_told(place, [*waiting, rows[-1]["run"]]) == waiting[1:]


def test_a_look_that_was_killed_decides_the_same(tmp_path: Path) -> None:
    """Before its decision was written, or behind it; later splits change nothing."""
    place = Workspace(tmp_path)
    rows = record_study(place, 1.0)
    job = make_look(place, rows)
    first = look.decide(job)
    for row in rows:
        if row["axes"]["data.held_out.seed"] >= 4:
            (place.run(row["run"]) / "exit.json").unlink(missing_ok=True)
    again = look.decide(job)
    waiting = wait_at_start(place, rows)
    written = look.take_look(job)
    (place.run(waiting[0]) / "cancel.json").unlink()
    restarted = look.take_look(job)

    assert dataclasses_equal(first, again)
    assert written == restarted
    assert list_told(place, waiting) == waiting


def dataclasses_equal(one: LookDecision, other: LookDecision) -> bool:
    """Whether two decisions are the same but for when they were made."""
    return (one.is_over, one.why, one.claims) == (
        other.is_over,
        other.why,
        other.claims,
    )


@pytest.mark.parametrize(
    ("step", "done", "said"),
    [(0.0, 6, "it goes on"), (1.0, 3, "lacks runs, so it goes on as it was planned")],
)
def test_a_look_without_a_decision_ends_nothing(
    tmp_path: Path, step: float, done: int, said: str
) -> None:
    """Nor one that lacks runs: it is passed over."""
    place = Workspace(tmp_path)
    rows = record_study(place, step, done)
    waiting = wait_at_start(place, rows) if done == SPLITS else []
    decision = look.take_look(make_look(place, rows))

    assert not decision.is_over
    assert said in decision.why
    assert list_told(place, waiting) == []


def test_a_look_without_any_run_that_is_done_fails(tmp_path: Path) -> None:
    """What has ended them all would end those behind it; they wait for it to end well."""
    place = Workspace(tmp_path)
    job = make_look(place, record_study(place, 1.0, done=0))

    with pytest.raises(Known, match="none of the 8 runs before look 1 is done"):
        look.take_look(job)
    assert look_decision.read_decision(tmp_path / "looks/one") is None


def test_a_look_of_an_earlier_design_spares_nothing(tmp_path: Path) -> None:
    """The grid's claims or looks were edited since: its runs are for looks of their own."""
    place = Workspace(tmp_path)
    rows = record_study(place, 1.0)
    waiting = wait_at_start(place, rows)
    job = make_look(place, rows)
    runs = [ListedRun(run=row["run"], axes=row["axes"]) for row in rows]
    dated = DatedClaim(claim=job.claims[0], since=1, done=0)
    told: list[int] = []
    for at in ([4, 6], [4, 5, 6]):
        locked = claim_deviations.lock_looks(Looks(at=at))
        assert locked is not None
        record = GridRecord(name="g", runs=runs, claims=[dated], looks=locked)
        write_grid_record(place, record)
        assert look.take_look(job).is_over
        told.append(len(list_told(place, waiting)))

    assert told == [0, 4]


def test_status_tells_what_the_newest_look_has_decided(tmp_path: Path) -> None:
    """Of the grid as it is today: nothing of a look at other claims, looks or runs, and
    nothing before a look has decided."""
    place = Workspace(tmp_path)
    rows = record_study(place, 1.0)
    job = make_look(place, rows)
    job_file.write_job(place.root / look_decision.FOLDER / "one", job)
    runs = [ListedRun(run=row["run"], axes=row["axes"]) for row in rows]
    dated = DatedClaim(claim=job.claims[0], since=1, done=0)
    record = GridRecord(
        name="g",
        runs=runs,
        claims=[dated],
        looks=claim_deviations.lock_looks(LOOKS) or UNSET,
    )
    write_grid_record(place, record)
    before = look_notes.of_grids(place, ["g"])
    look.take_look(job)
    after = look_notes.of_grids(place, ["g", "other"])
    write_grid_record(place, msgspec.structs.replace(record, runs=runs[:-1]))

    assert before == []
    assert after == [
        "g: after 4 held-out splits all claims are decided at look 1 of 3: supported"
    ]
    assert look_notes.of_grids(place, ["g"]) == []


def test_a_budget_that_is_spent_ends_the_study(tmp_path: Path) -> None:
    """Whatever the claims say: a run that held eight GPUs for an hour took eight hours."""
    place = Workspace(tmp_path)
    rows = record_study(place, 0.0)
    folder = place.run(rows[0]["run"])
    attempt = attempts.read_attempt(folder)
    assert attempt is not None
    began = attempt.started - 3_600_000
    attempts.write_attempt(
        folder, msgspec.structs.replace(attempt, gpus=8, started=began)
    )

    assert look.sum_gpu_hours(place, [rows[0]["run"]]) == pytest.approx(8, abs=0.1)
    spent = look.decide(make_look(place, rows, gpu_hours=7))
    assert spent.is_over
    assert "the budget is spent" in spent.why
    assert not look.decide(make_look(place, rows, gpu_hours=9)).is_over


def test_a_look_is_read_from_its_file(tmp_path: Path) -> None:
    """As any job; the jobs that it waits for are told."""
    place = Workspace(tmp_path)
    rows = record_study(place, 1.0)
    job = make_look(place, rows)
    folder = place.root / look_decision.FOLDER / "one"
    job_file.write_job(folder, job)

    assert job_file.read_job(folder) == job
    assert job_file.jobs_before(job) == []
    behind = msgspec.structs.replace(job, after=["looks/two", "runs/r"])
    assert job_file.jobs_needed(behind) == ["looks/two"]


def test_tests_of_later_splits_do_not_turn_a_look_that_was_taken(
    tmp_path: Path,
) -> None:
    """Though the items of one are all of one task, which is another kind of evidence."""
    place = Workspace(tmp_path)
    rows = record_study(place, 1.0)
    last = SPLITS - 1
    for row in rows:
        if row["axes"]["data.held_out.seed"] == last:
            values = np.zeros((4, 16))
            record_run(place, row, [0, 10, 20, 30], ["alone"] * 16, values)
    listed = [ListedRun(run=row["run"], axes=row["axes"]) for row in rows]
    early = [row for row in listed if row.axes["data.held_out.seed"] < 4]

    def judge(runs: list[ListedRun]) -> ClaimVerdict:
        record = GridRecord(name="g", runs=runs)
        [judged] = judged_claims.judge_claims(place, record, [CLAIM], LOOKS)
        return judged.verdict

    assert judge(early).word == SUPPORTED
    assert judge(listed) == judge(early)
