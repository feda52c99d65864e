"""Stops runs for good: the wish is on disk before anything is signalled, so that
nothing that comes later revives them.

Never stopped is what somebody else still wants: a run that another grid lists, or one
that others wait for.
"""

import os
import signal
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.contract import attempt as attempts
from jobs.contract import cancellation, job_file
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.job_file import jobs_before, runs_served
from jobs.contract.states import State
from launcher.clusters import slurm
from launcher.grids.selection import Selection
from launcher.status import queries
from launcher.status.status import collect_states, is_locked
from launcher.status.terminal_cache import TerminalCache
from launcher.workspace import recorded_grids, scheduler_job
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger, submit_lock
from zsg_core.errors import UserError


@dataclass(frozen=True)
class Wish:
    """What is to stop. `grids` are asked for as a whole, `runs` by their ids; `force`
    disregards other grids."""

    grids: Collection[str]
    runs: Collection[str] = ()
    force: bool = False


@dataclass(frozen=True)
class Scene:
    """What there is: who lists which run, the states of all jobs, and what each waits for."""

    listed: Mapping[str, Collection[str]]  # job folder → the grids that list it
    states: Mapping[str, JobState]
    after: Mapping[str, Collection[str]] = field(default_factory=dict)
    helpers: Collection[str] = ()  # prepare jobs, and stages that only serve others
    # evaluate job → the runs' folders
    serves: Mapping[str, Collection[str]] = field(default_factory=dict)
    # helper → the grid that submitted it
    grid_of: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Decision:
    """The job folders to stop, and those left alone, with the reason. `ended`: of the
    first, those that have ended and whose allocations have not."""

    stop: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)


def choose_cancellations(chosen: Iterable[str], wish: Wish, scene: Scene) -> Decision:
    """Which of the chosen job folders stop, and which helpers that nobody else waits for. Pure."""
    made = Decision()
    chosen = list(chosen)
    for item in chosen:
        if not _can_stop(scene.states[item]):
            continue
        named = item.removeprefix("runs/") in wish.runs
        grids = sorted(scene.listed.get(item, ()))
        others = (
            grids
            if named and len(grids) > 1
            else []
            if named
            else [g for g in grids if g not in wish.grids]
        )
        if _has_outlived(scene.states[item]):
            others = []  # the run has ended: nobody loses it
        if others and not wish.force:
            made.left[item] = (
                f"{' and '.join(others)} {'want' if len(others) > 1 else 'wants'} it (--force"
                " stops it)"
            )
        else:
            made.stop.append(item)
    if not wish.force:
        _leave_what_others_wait_for(made, scene)
    while more := [
        item
        for item in scene.helpers
        if item not in made.stop and _is_idle(item, wish, scene, made.stop)
    ]:
        made.stop += more
    made.stop += [
        item
        for item in scene.serves
        if _serves_nobody(item, set(chosen), wish, scene, made.stop)
    ]
    made.ended = [item for item in made.stop if _has_outlived(scene.states[item])]
    return made


def _can_stop(state: JobState) -> bool:
    # Unknown is also what a killed submit has left with Slurm.
    return state.is_active or state.state == State.UNKNOWN or bool(state.replaced)


def _has_outlived(state: JobState) -> bool:
    """Whether a job has ended and its allocation has not."""
    return (state.in_queue or bool(state.replaced)) and state.state in (
        State.DONE,
        State.FAILED,
        State.CANCELLED,
    )


def _is_at_work(state: JobState) -> bool:
    return state.is_active and not state.stopped


def _waiting_for(item: str, scene: Scene) -> list[str]:
    return [
        other
        for other, needs in scene.after.items()
        if item in needs and _is_at_work(scene.states[other])
    ]


def _leave_what_others_wait_for(made: Decision, scene: Scene) -> None:
    changed = True
    while changed:
        changed = False
        for item in list(made.stop):
            waits = [
                other for other in _waiting_for(item, scene) if other not in made.stop
            ]
            if waits:
                made.stop.remove(item)
                made.left[item] = (
                    f"{', '.join(waits)} {'wait' if len(waits) > 1 else 'waits'} for it"
                )
                changed = True


def _is_idle(item: str, wish: Wish, scene: Scene, stop: Collection[str]) -> bool:
    """Whether a helper is at work only for what stops, or has ended and its allocation has not."""
    if _has_outlived(scene.states[item]):
        return scene.grid_of.get(item) in wish.grids
    waits = _waiting_for(item, scene)
    others = [grid for grid in scene.listed.get(item, ()) if grid not in wish.grids]
    return (
        _can_stop(scene.states[item])
        and bool(waits)
        and set(waits) <= set(stop)
        and not others
    )


def _serves_nobody(
    item: str, chosen: set[str], wish: Wish, scene: Scene, stop: Collection[str]
) -> bool:
    """Whether an evaluate job has no run left but those that were chosen and that
    nobody else wants or trains."""
    runs = set(scene.serves[item])
    if not _can_stop(scene.states[item]) or not runs <= chosen:
        return False
    others = {
        grid
        for run in runs
        for grid in scene.listed.get(run, ())
        if grid not in wish.grids
    }
    at_work = [
        run
        for run in runs
        if run not in stop and run in scene.states and _is_at_work(scene.states[run])
    ]
    return not at_work and (wish.force or not others or bool(wish.runs))


def plan_cancellation(
    place: Workspace, names: Sequence[str], selection: Selection, force: bool
) -> Decision:
    """Which job folders stop if these grids and runs, as far as they are selected, are cancelled.

    UserError for a name that is neither a grid nor the beginning of one run's id.
    """
    known = recorded_grids.select_grids(place)
    grids = [name for name in names if name in known]
    runs = [_run(place, name) for name in names if name not in known]
    records = {name: recorded_grids.read_grid(place, name) for name in known}
    ledger = Ledger(place)
    items = list(ledger.by_item())
    axes_of = {row.run: row.axes for name in grids for row in records[name].runs}
    states = collect_states(
        place,
        {*items, *(f"runs/{run}" for run in [*axes_of, *runs])},
        ledger,
        settled=TerminalCache(place),
    )
    every = [
        (run, axes_of.get(run, {}), states[f"runs/{run}"].state)
        for run in dict.fromkeys([*axes_of, *runs])
    ]
    selection.check(every)
    chosen = [
        f"runs/{run}"
        for run, axes, state in every
        if selection.matches(run, axes, state)
    ]
    listed: dict[str, set[str]] = {}
    for name, record in records.items():
        for row in [*record.runs, *record.before]:
            listed.setdefault(f"runs/{row.run}", set()).add(name)
    active = [item for item in items if _can_stop(states[item])]
    stages = {f"runs/{row.run}" for name in grids for row in records[name].before}
    helpers = [
        item
        for item in active
        if item.startswith(("prepare/", "canary/")) or item in stages
    ]
    after = {
        item: jobs_before(job_file.read_job_if_sound(place.root / item))
        for item in active
    }
    serves = {
        item: _served(place, item) for item in active if item.startswith("evaluate/")
    }
    grid_of = {item: last.grid for item, last in ledger.by_item().items()}
    return choose_cancellations(
        chosen,
        Wish(grids, runs, force),
        Scene(listed, states, after, helpers, serves, grid_of),
    )


def _served(place: Workspace, item: str) -> list[str]:
    """The folders of the runs that an evaluate job serves."""
    return [
        f"runs/{served.run}"
        for served in runs_served(job_file.read_job_if_sound(place.root / item))
    ]


def _run(place: Workspace, name: str) -> str:
    kind, _, run = queries.find_item(place, name).partition("/")
    if kind != "runs":
        raise UserError(
            f"{name} is no run; a prepare job stops with the runs that wait for it"
        )
    return run


def carry_out(
    place: Workspace, items: Sequence[str], save: bool, ended: Collection[str] = ()
) -> list[str]:
    """Writes the wish down, then stops the jobs; returns what could not be reached, in words.

    How those of `ended` have ended stays as it is: only their allocations are given back.

    UserError while a submit is at work; ClusterError if Slurm does not answer, in which
    case the wish stands.
    """
    with submit_lock(place):
        ledger = Ledger(place)
        last = {item: found for item in items if (found := ledger.last(item))}
        for submission in {one.id: one for one in last.values()}.values():
            mine = [
                item
                for item, one in last.items()
                if one.id == submission.id and item not in ended
            ]
            for item in mine:
                cancellation.request_cancellation(
                    place.root / item, submission.id, save
                )
            if mine:
                ledger.cancelled(submission, mine)
        # Also the jobs that a later submission has replaced: Slurm may have them all the same.
        left = [job for item in last if item in ended for job in ledger.jobs_of(item)]
        jobs = [
            job for item in last if item not in ended for job in ledger.jobs_of(item)
        ]
        untouched = [
            f"{why}; it was not touched"
            for why in _end_jobs(left, save=False) + _end_jobs(jobs, save)
        ]
    local = [item for item, one in last.items() if one.scheduler == "local"]
    return untouched + [
        trouble for item in local if (trouble := _signal(place.root / item, save))
    ]


def _end_jobs(jobs: Sequence[scheduler_job.Job], save: bool) -> list[str]:
    """Ends jobs of Slurm, if there are any; returns what was not touched, in words."""
    return slurm.cancel_jobs(jobs, save) if jobs else []


def _signal(folder: Path, save: bool) -> str | None:
    """Tells a job of this machine to stop; one that has not begun will see the wish itself."""
    try:
        attempt = attempts.read_attempt(folder)
    except Damaged as error:  # the others are told to stop all the same
        return f"{folder.name} was not told to stop, since nobody knows its process: {error}"
    if not is_locked(folder / "lock") or not attempt:
        return None
    if attempt.host != socket.gethostname():
        return f"{folder.name} runs on {attempt.host}: call zsg cancel there"
    if _is_of(attempt.pid, folder):
        os.kill(attempt.pid, signal.SIGUSR1 if save else signal.SIGTERM)
    return None


def _is_of(pid: int, folder: Path) -> bool:
    """Whether a process is the job of a folder: ids are given anew."""
    process = Path(f"/proc/{pid}")
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        is_ours = process.stat().st_uid == os.geteuid()
    except OSError:
        return False
    return is_ours and str(folder).encode() in words
