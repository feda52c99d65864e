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
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract import cancellation, job_file, node_check
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import GridRecord
from jobs.contract.job_file import AnyJob, jobs_before, runs_served
from jobs.contract.states import State
from jobs.files import locks
from launcher.clusters import slurm
from launcher.grids.selection import Selection
from launcher.status import queries
from launcher.status.status import collect_states
from launcher.status.terminal_cache import TerminalCache
from launcher.workspace import recorded_grids, scheduler_job
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger, Submission
from launcher.workspace.side_by_side import write_side_by_side
from launcher.workspace.submit_lock import submit_lock
from zsg_core.errors import UserError
from zsg_core.shown_text import name_few


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
    after: Mapping[str, Collection[str]] = field(
        default_factory=dict[str, Collection[str]]
    )
    helpers: Collection[str] = ()  # prepare jobs, and stages that only serve others
    # evaluate job → the runs' folders
    serves: Mapping[str, Collection[str]] = field(
        default_factory=dict[str, Collection[str]]
    )
    # helper → the grid that submitted it
    grid_of: Mapping[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def waiting(self) -> Mapping[str, Sequence[str]]:
        """By the folder of a job, the jobs at work that wait for it."""
        waiting: dict[str, list[str]] = {}
        for job, needs in self.after.items():
            if _is_at_work(self.states[job]):
                for need in dict.fromkeys(needs):
                    waiting.setdefault(need, []).append(job)
        return waiting


@dataclass
class Decision:
    """The job folders to stop, and those left alone, with the reason. `ended`: of the
    first, those that have ended and whose allocations have not."""

    stop: list[str] = field(default_factory=list[str])
    left: dict[str, str] = field(default_factory=dict[str, str])
    ended: list[str] = field(default_factory=list[str])

    def stops_beyond(self, agreed: "Decision") -> bool:
        """Whether it stops what another does not, or what that one only clears up after
        its end."""
        running = set(self.stop).difference(self.ended)
        agreed_running = set(agreed.stop).difference(agreed.ended)
        return not (running <= agreed_running and set(self.stop) <= set(agreed.stop))


def choose_cancellations(chosen: Iterable[str], wish: Wish, scene: Scene) -> Decision:
    """Which of the chosen job folders stop, and which helpers that nobody else waits for. Pure."""
    decision = Decision()
    chosen = list(chosen)
    for item in chosen:
        if _can_stop(scene.states[item]):
            _decide_run(decision, item, wish, scene)
    if not wish.force:
        _leave_what_others_wait_for(decision, scene)
    _stop_idle_helpers(decision, wish, scene)
    run_folders, stop = set(chosen), set(decision.stop)
    decision.stop += [
        item
        for item in scene.serves
        if _serves_nobody(item, run_folders, wish, scene, stop)
    ]
    decision.ended = [
        item for item in decision.stop if _has_outlived(scene.states[item])
    ]
    return decision


def _decide_run(decision: Decision, item: str, wish: Wish, scene: Scene) -> None:
    """A chosen run stops, unless other grids want it."""
    grids = _find_claimants(item, wish, scene)
    if not grids or wish.force:
        decision.stop.append(item)
        return
    verb = "want" if len(grids) > 1 else "wants"
    decision.left[item] = f"{' and '.join(grids)} {verb} it (--force stops it)"


def _find_claimants(item: str, wish: Wish, scene: Scene) -> list[str]:
    """The grids that want a run besides those that are cancelled."""
    if _has_outlived(scene.states[item]):
        return []  # the run has ended: nobody loses it
    grids = sorted(scene.listed.get(item, ()))
    is_named = item.removeprefix("runs/") in wish.runs
    if is_named:
        return grids if len(grids) > 1 else []
    return [grid for grid in grids if grid not in wish.grids]


def _stop_idle_helpers(decision: Decision, wish: Wish, scene: Scene) -> None:
    """Helpers that wait for nothing but what stops stop with it; so may those before
    them."""
    stop = set(decision.stop)
    while idle := [
        item
        for item in scene.helpers
        if item not in stop and _is_idle(item, wish, scene, stop)
    ]:
        decision.stop += idle
        stop |= set(idle)


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


def _leave_what_others_wait_for(decision: Decision, scene: Scene) -> None:
    is_changed = True
    while is_changed:
        is_changed = False
        stop = set(decision.stop)
        for item in list(decision.stop):
            waiting = [job for job in scene.waiting.get(item, ()) if job not in stop]
            if waiting:
                decision.stop.remove(item)
                stop.remove(item)
                verb = "wait" if len(waiting) > 1 else "waits"
                decision.left[item] = f"{name_few(waiting)} {verb} for it"
                is_changed = True


def _is_idle(item: str, wish: Wish, scene: Scene, stop: set[str]) -> bool:
    """Whether a helper is at work only for what stops, or has ended and its allocation has not."""
    if _has_outlived(scene.states[item]):
        return scene.grid_of.get(item) in wish.grids
    waiting = scene.waiting.get(item, ())
    return (
        _can_stop(scene.states[item])
        and bool(waiting)
        and stop.issuperset(waiting)
        and set(scene.listed.get(item, ())) <= set(wish.grids)
    )


def _serves_nobody(
    item: str, chosen: set[str], wish: Wish, scene: Scene, stop: set[str]
) -> bool:
    """Whether an evaluate job has no run left but those that were chosen and that
    nobody else wants or trains."""
    runs = set(scene.serves[item])
    if not _can_stop(scene.states[item]) or not runs <= chosen:
        return False
    for run in runs - stop:
        if run in scene.states and _is_at_work(scene.states[run]):
            return False
    if wish.force or wish.runs:
        return True
    return all(set(scene.listed.get(run, ())) <= set(wish.grids) for run in runs)


def plan_cancellation(
    workspace: Workspace, names: Sequence[str], selection: Selection, force: bool
) -> Decision:
    """Which job folders stop if these grids and runs, as far as they are selected, are cancelled.

    UserError for a name that is neither a grid nor the unique prefix of a run's id.
    """
    for name in names:
        _refuse_check(workspace, name)
    records = {
        name: recorded_grids.read_grid(workspace, name)
        for name in recorded_grids.select_grids(workspace)
    }
    grids = [name for name in names if name in records]
    runs = [_find_run(workspace, name) for name in names if name not in records]
    ledger = Ledger(workspace)
    axes_of = {row.run: row.axes for name in grids for row in records[name].runs}
    named = dict.fromkeys([*axes_of, *runs])
    states = collect_states(
        workspace,
        {*ledger.by_item(), *(f"runs/{run}" for run in named)},
        ledger,
        settled=TerminalCache(workspace),
    )
    chosen = _select_runs(named, axes_of, states, selection)
    wish = Wish(grids, runs, force)
    scene = _read_scene(workspace, ledger, list(records.values()), states, grids)
    return choose_cancellations(chosen, wish, scene)


def _refuse_check(workspace: Workspace, name: str) -> None:
    """UserError for a check of nodes, which is no grid's."""
    if not name.startswith(f"{node_check.FOLDER}/"):
        return
    last = Ledger(workspace).last(name)
    job = last.ids[0] if last and last.ids else "JOB"
    raise UserError(
        f"{name} is a check of nodes, which no grid has: Ctrl-C ends it where zsg doctor --on-node"
        f" waits for it, and so does scancel {job}"
    )


def _select_runs(
    runs: Iterable[str],
    axes_of: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, JobState],
    selection: Selection,
) -> list[str]:
    """The folders of the runs that are selected. UserError for a selection that names
    nothing."""
    candidates = [
        (run, axes_of.get(run, {}), states[f"runs/{run}"].state) for run in runs
    ]
    selection.check(candidates)
    return [
        f"runs/{run}"
        for run, axes, state in candidates
        if selection.matches(run, axes, state)
    ]


def _find_stages(records: Iterable[GridRecord]) -> set[str]:
    """The folders of the stages that the runs of these grids begin with."""
    return {f"runs/{row.run}" for record in records for row in record.before}


def _find_listing(records: Sequence[GridRecord]) -> dict[str, set[str]]:
    """The grids that list each run, or begin with it, by its folder."""
    listed: dict[str, set[str]] = {}
    for record in records:
        for row in [*record.runs, *record.before]:
            listed.setdefault(f"runs/{row.run}", set()).add(record.name)
    return listed


def _read_scene(
    workspace: Workspace,
    ledger: Ledger,
    records: Sequence[GridRecord],
    states: Mapping[str, JobState],
    grids: Collection[str],
) -> Scene:
    """Who lists which run, and what each job that may stop waits for; `grids`: those
    that are cancelled, whose stages stop with them."""
    stages = _find_stages([record for record in records if record.name in grids])
    submissions = ledger.by_item()
    jobs = {
        item: job_file.read_job_if_sound(workspace.root / item)
        for item in submissions
        if _can_stop(states[item])
    }
    return Scene(
        listed=_find_listing(records),
        states=states,
        after={item: jobs_before(job) for item, job in jobs.items()},
        helpers=[item for item in jobs if _is_helper(item, stages)],
        serves=_find_served(jobs),
        grid_of={item: last.grid for item, last in submissions.items()},
    )


def _is_helper(item: str, stages: Collection[str]) -> bool:
    return item.startswith(("prepare/", "canary/", "looks/")) or item in stages


def _find_served(jobs: Mapping[str, AnyJob | None]) -> dict[str, list[str]]:
    """The folders of the runs that each evaluate job serves."""
    return {
        item: [f"runs/{served.run}" for served in runs_served(job)]
        for item, job in jobs.items()
        if item.startswith("evaluate/")
    }


def _find_run(workspace: Workspace, name: str) -> str:
    kind, _, run = queries.find_item(workspace, name).partition("/")
    if kind != "runs":
        raise UserError(
            f"{name} is no run; a prepare job stops with the runs that wait for it"
        )
    return run


def cancel_selected(
    workspace: Workspace,
    names: Sequence[str],
    selection: Selection,
    force: bool,
    save: bool,
    agreed: Decision | None = None,
) -> tuple[Decision, list[str] | None]:
    """Stops what `plan_cancellation` chooses; returns that, and what could not be
    reached, in words.

    Waits for a submit that is at work (UserError where that takes too long), and only
    then chooses: what that one has submitted meanwhile stops, too. Where somebody has
    `agreed` to less, nothing is stopped, and None stands in place of the words.
    """
    with submit_lock(workspace):
        decision = plan_cancellation(workspace, names, selection, force)
        if agreed is not None and decision.stops_beyond(agreed):
            return decision, None
        troubles = carry_out(workspace, decision.stop, save, decision.ended)
    return decision, troubles


def carry_out(
    workspace: Workspace, items: Sequence[str], save: bool, ended: Collection[str] = ()
) -> list[str]:
    """Writes the wish down, then stops the jobs; returns what could not be reached, in words.

    How those of `ended` have ended stays as it is: only their allocations are given back.

    No submit may be at work meanwhile. ClusterError if Slurm does not answer, in which
    case the wish stands.
    """
    ledger = Ledger(workspace)
    newest = ledger.by_item()
    submitted = {item: newest[item] for item in items if item in newest}
    running = {item: last for item, last in submitted.items() if item not in ended}
    _write_wish(workspace, ledger, running, save)
    # Also the jobs that a later submission has replaced: Slurm may have them all the same.
    outliving = [item for item in submitted if item not in running]
    reasons = _end_jobs(_find_jobs(ledger, outliving), save=False)
    reasons += _end_jobs(_find_jobs(ledger, running), save)
    untouched = [f"{reason}; it was not touched" for reason in reasons]
    return untouched + _signal_local(workspace, submitted, save)


def _signal_local(
    workspace: Workspace, submitted: Mapping[str, Submission], save: bool
) -> list[str]:
    """Tells the jobs of this machine to stop; returns what could not be reached, in words."""
    local = [item for item, last in submitted.items() if last.scheduler == "local"]
    troubles = [_signal(workspace.root / item, save) for item in local]
    return [trouble for trouble in troubles if trouble]


def _write_wish(
    workspace: Workspace, ledger: Ledger, last: Mapping[str, Submission], save: bool
) -> None:
    """Writes down that these job folders are cancelled: in each, and for each of their
    `last` submissions in the ledger."""

    def write(item: str) -> None:
        cancellation.request_cancellation(workspace.root / item, last[item].id, save)

    items_of: dict[str, list[str]] = {}
    for item, submission in last.items():
        items_of.setdefault(submission.id, []).append(item)
    write_side_by_side(write, last)
    for items in items_of.values():
        ledger.cancelled(last[items[0]], items)


def _find_jobs(ledger: Ledger, items: Iterable[str]) -> list[scheduler_job.Job]:
    return [job for item in items for job in ledger.jobs_of(item)]


def _end_jobs(jobs: Sequence[scheduler_job.Job], save: bool) -> list[str]:
    """Ends jobs of Slurm, if there are any; returns what was not touched, in words."""
    return slurm.cancel_jobs(jobs, save) if jobs else []


def _signal(folder: Path, save: bool) -> str | None:
    """Tells a job of this machine to stop; one that has not begun will see the wish itself."""
    try:
        attempt = attempts.read_attempt(folder)
    except Damaged as error:  # the others are told to stop all the same
        return f"{folder.name} was not told to stop, since nobody knows its process: {error}"
    if not locks.is_locked(folder / "lock") or not attempt:
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
    return is_ours and any(_is_folder(os.fsdecode(word), folder) for word in words)


def _is_folder(word: str, folder: Path) -> bool:
    """Whether a word of a command is a job's folder, by whatever links it was named."""
    path = Path(word)
    if path.name != folder.name or not path.is_absolute():
        return False
    try:
        return path.samefile(folder)
    except OSError:
        return False
