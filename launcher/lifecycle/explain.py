"""Says why runs are not done, and whether zsg retry would try them again."""

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.contract import job_file
from jobs.contract.causes import Cause
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import GridOutline
from jobs.contract.job_file import TrainJob, jobs_before
from jobs.contract.states import State
from launcher.lifecycle import retry
from launcher.status import next_steps, why
from launcher.status.journal_checks import flag_journals
from launcher.status.last_loss import LastLoss, read_last_loss
from launcher.status.next_steps import Outlook, RunSettings
from launcher.status.queries import find_item
from launcher.status.status import collect_states
from launcher.status.submitting import add_submit_under_way
from launcher.status.terminal_cache import TerminalCache
from launcher.status.why import ProvenCause
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import GRID_FILE, JobState
from launcher.workspace.ledger import Ledger
from launcher.workspace.submit_lock import find_submit_under_way
from zsg_core.errors import UserError

RUNS = "runs/"
# of which what helps depends on how the run is set
BY_SETTINGS = (
    Cause.OUT_OF_MEMORY,
    Cause.TIME_LIMIT,
    Cause.DIVERGED,
    Cause.BAD_DATA,
    Cause.PREPARE_FAILED,
    Cause.STAGE_FAILED,
)


def why_run(workspace: Workspace, text: str) -> dict[str, Any]:
    """Why a run stands where it stands."""
    item = find_item(workspace, text, "run or grid")
    submit = find_submit_under_way(workspace)
    ledger = Ledger(workspace)
    last = ledger.last(item)
    grid = last.grid if last else ""
    states = _look(workspace, [item], ledger)
    states = add_submit_under_way(states, grid, [item], submit)
    state = states[item]
    cause = why.of_job(workspace, item, state)
    outlook = Outlook()
    if cause and last:
        judge = _Judge(workspace, grid, ledger, dict(states))
        outlook = judge.make_outlook(item, cause, is_alone=True)
    row = why.make_why_row(
        item.removeprefix(RUNS),
        last.grid if last else None,
        state,
        cause,
        outlook,
        _read_last_loss(workspace, item, state),
    )
    return _name_file(workspace, grid, row)


def _read_last_loss(
    workspace: Workspace, item: str, state: JobState
) -> LastLoss | None:
    """The last loss of a run that has begun and is not done."""
    has_begun = item.startswith(RUNS) and state.attempt is not None
    if not has_begun or state.state == State.DONE:
        return None
    return read_last_loss(workspace.root / item)


def _name_file(workspace: Workspace, grid: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row whose advice names the grid's file, as it was submitted."""
    advice = row["next"] or ""
    if GRID_FILE not in advice:
        return row
    words = recorded_grids.name_file(workspace, grid)
    return {**row, "next": advice.replace(GRID_FILE, words)}


def _look(
    workspace: Workspace, items: Iterable[str], ledger: Ledger
) -> dict[str, JobState]:
    """The states of jobs, also where Slurm cannot be asked; flagged where their
    journals have lost rows."""
    cache = TerminalCache(workspace)
    states = collect_states(workspace, items, ledger, settled=cache, only_looks=True)
    return flag_journals(workspace, states)


class _Judge:
    """Says of the jobs of one grid what zsg retry would do with them, by its own rules."""

    def __init__(
        self,
        workspace: Workspace,
        grid: str,
        ledger: Ledger,
        states: dict[str, JobState],
    ) -> None:
        """`states`: what is known; of what else is needed it is looked for."""
        self._workspace = workspace
        self._grid = grid
        self._ledger = ledger
        self._states = states
        self._outline = _read_outline(workspace, grid)
        rows = self._outline.runs if self._outline else []
        # in the grid's order
        self._listed = dict.fromkeys(f"{RUNS}{row.run}" for row in rows)
        # of each job, the listed runs that wait for it; read when it is asked for
        self._waiting: dict[str, list[str]] | None = None

    def make_outlook(self, item: str, cause: ProvenCause, *, is_alone: bool) -> Outlook:
        """What decides what is done next about a job that is not done."""
        if self._outline is None or item in self._listed:
            return Outlook(
                refusal=self._find_refusal(item),
                is_alone=is_alone,
                settings=self._read_settings(item, cause),
            )
        return Outlook(
            is_alone=is_alone,
            settings=self._read_settings(item, cause),
            with_others=self._resume_waiting(item),
            is_former=self._is_former(item),
        )

    def _is_former(self, item: str) -> bool:
        """Whether the grid had a run once, and has it no longer."""
        former = self._outline.former if self._outline else []
        return any(f"{RUNS}{row.run}" == item for row in former)

    def _find_refusal(self, item: str) -> str | None:
        """Why zsg retry would leave a run."""
        failure = retry.read_failure(self._workspace, item, self._states[item])
        return retry.refuse_retry(failure, self._ledger.retries(item))

    def _read_settings(self, item: str, cause: ProvenCause) -> RunSettings:
        """How a job is set, where that decides what helps."""
        if cause.cause not in BY_SETTINGS:
            return RunSettings()
        job = job_file.read_job_if_sound(self._workspace.root / item)
        return next_steps.read_settings(job)

    def _resume_waiting(self, item: str) -> str | None:
        """The command that takes up the first run that waits for a job, and with it the
        job; None where none does."""
        for run in self._list_waiting(item):
            state = self._find_state(run)
            cause = why.of_job(self._workspace, run, state)
            if cause is None:
                continue
            trouble = next_steps.make_trouble(
                run.removeprefix(RUNS),
                self._grid,
                state,
                cause.cause,
                cause.evidence,
                Outlook(refusal=self._find_refusal(run), is_alone=False),
            )
            return next_steps.resume(trouble)
        return None

    def _list_waiting(self, item: str) -> list[str]:
        """The runs that need what a job makes, or start from its weights. The jobs of a
        grid are read once."""
        if self._waiting is None:
            self._waiting = {}
            for run in self._listed:
                for needed in self._list_needed(run):
                    self._waiting.setdefault(needed, []).append(run)
        return self._waiting.get(item, [])

    def _list_needed(self, run: str) -> list[str]:
        """The jobs that a run waits for, and the runs of its stages before."""
        job = job_file.read_job_if_sound(self._workspace.root / run)
        if not isinstance(job, TrainJob):
            return []
        stages = [f"{RUNS}{stage}" for stage in job.before]
        return [*jobs_before(job), *stages]

    def _find_state(self, item: str) -> JobState:
        """The state of a run, looked for where it is not known."""
        if item not in self._states:
            self._states |= _look(self._workspace, [item], self._ledger)
        return self._states[item]


def _read_outline(workspace: Workspace, grid: str) -> GridOutline | None:
    """The record of a grid; None where there is none, or it cannot be read."""
    try:
        return recorded_grids.read_outline(workspace, grid)
    except (UserError, Damaged):
        return None


def why_grid(workspace: Workspace, grid: str) -> list[dict[str, Any]]:
    """The failures of a grid by cause."""
    outline = recorded_grids.read_outline(workspace, grid)
    runs = {f"{RUNS}{row.run}": row.run for row in outline.all_runs}
    submit = find_submit_under_way(workspace)
    ledger = Ledger(workspace)
    states = _look(workspace, runs, ledger)
    states = add_submit_under_way(states, grid, [], submit)
    look = why.Look(workspace)
    judge = _Judge(workspace, grid, ledger, dict(states))
    rows: list[dict[str, Any]] = []
    for item, run in runs.items():
        cause = why.of_job(workspace, item, states[item], look)
        if cause is None:
            continue
        outlook = judge.make_outlook(item, cause, is_alone=False)
        rows.append(why.make_why_row(run, grid, states[item], cause, outlook))
    groups = why.by_cause(rows)
    return [_complete_group(workspace, grid, states, group) for group in groups]


def _complete_group(
    workspace: Workspace,
    grid: str,
    states: Mapping[str, JobState],
    group: dict[str, Any],
) -> dict[str, Any]:
    """A group of failures with the last loss of its first run, and the grid's file."""
    item = f"{RUNS}{group['runs'][0]}"
    last = _read_last_loss(workspace, item, states[item])
    return _name_file(workspace, grid, {**group, **why.tell_last_loss(last)})
