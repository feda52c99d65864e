"""Decides which failed runs are worth another try: what a cluster did may pass, what a
run did itself would come again.

Every retry is in the ledger with the cause of the failure before it, so that the next
one can count.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.contract import exit_record
from jobs.contract.causes import Cause
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Workspace
from jobs.contract.ledger_rows import Retried
from jobs.contract.states import ACTIVE, State
from launcher.grids.selection import STATE, Selection
from launcher.status.journal_checks import flag_journals
from launcher.status.slurm_states import LEAVING
from launcher.status.status import collect_states
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import (
    CUT_SHORT,
    GRID_FILE,
    NEVER_STARTED,
    JobState,
)
from launcher.workspace.ledger import Ledger
from zsg_core.errors import UserError
from zsg_core.schema_errors import suggest_nearest

# How often a run may be tried again after such a failure unless --force is given; None:
# as often as is asked.
MOST: Mapping[str, int | None] = {
    Cause.NODE_FAILURE: 5,
    Cause.PREEMPTED: 10,
    Cause.TIME_LIMIT: 5,
    Cause.NCCL_TIMEOUT: 3,
    Cause.PEER_LOST: 3,
    Cause.DISK_FULL: 3,
    Cause.FILE_SYSTEM: 5,
    Cause.CLUSTER: 3,
    Cause.LAUNCH_FAILED: 3,  # its node is mended in between
    Cause.SETUP: 3,  # of one line: the profile is mended in between
    Cause.DIVERGED: 0,
    Cause.SIGNAL: 10,
    Cause.DIED: 2,
    Cause.TRACEBACK: 1,
    Cause.OUT_OF_MEMORY: 0,
    Cause.BAD_DATA: 0,
    Cause.PLUGIN: 0,
    Cause.BAD_INPUT: 0,
    Cause.CANCELLED: None,
    Cause.CANARY_FAILED: None,  # they have not run, and one of them goes first again
    Cause.LOOK_FAILED: None,  # they have not run, and the look is taken again
    Cause.SPARED: 0,  # nothing failed
}
# of runs that are left
STOPPED, HELD, DAMAGED = "stopped", "ended", "done with a journal that has lost rows"
UNSTARTED = "never started"
LEFT_BEHIND = "ended, and Slurm still clears up after them"
MOST_NAMED = 8
OTHER_MOST = 3  # of what has no cause, since nobody knows what became of it


@dataclass(frozen=True)
class Failure:
    """How a run ended. `signature`: the hash by which equal tracebacks are known."""

    state: str
    cause: str | None
    evidence: str | None
    signature: str | None = None

    @property
    def root(self) -> str | None:
        """The cause, or that of the job before it, which its evidence begins with."""
        if self.cause in (Cause.PREPARE_FAILED, Cause.STAGE_FAILED):
            word = (self.evidence or "").partition(":")[0]
            return word if word in MOST else self.cause
        return self.cause


def known_causes(words: Iterable[str]) -> list[str]:
    """The causes of the options' words. UserError for a word that is none."""
    causes = [str(cause) for cause in Cause]
    for word in words:
        if word not in causes:
            raise UserError(
                f"--cause {word}: there is no such cause.{suggest_nearest(word, causes)} Known:"
                f" {', '.join(causes)}"
            )
    return list(words)


@dataclass
class RetryChoice:
    """The runs to retry; those that are not, with the reason; and of others that
    are not done how many of a state are left, since they were not asked for."""

    runs: list[str] = field(default_factory=list[str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    left: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    file: str = GRID_FILE  # of the grid, as a command line takes it

    def note_damaged(self, run: str, state: JobState) -> None:
        """Notes a run that is done and whose journal has lost rows, if so it is."""
        if state.damage and state.damage.is_own and state.state == State.DONE:
            self.left.setdefault(DAMAGED, []).append(run)

    def describe_left(self, name: str) -> list[str]:
        """A line for each state of which runs are left, and what takes them."""
        next_steps = {
            State.CANCELLED: f"zsg retry {name} --only state={State.CANCELLED}",
            State.UNKNOWN: (
                f"nobody knows what became of them: zsg retry {name} --only"
                f" state={State.UNKNOWN}"
            ),
            State.ABSENT: f"zsg submit {self.file}",
            STOPPED: f"zsg submit {self.file} resumes them",
            UNSTARTED: f"zsg submit {self.file} starts them",
            HELD: "Slurm still holds their jobs: zsg cancel first",
            LEFT_BEHIND: f"zsg retry {name} again in some minutes",
            DAMAGED: (
                f"zsg submit {self.file} --retrain trains them again, zsg why RUN names the line"
            ),
        }
        return [
            f"left: {len(runs)} {state}"
            f" ({', '.join(runs[:MOST_NAMED])}{', …' if len(runs) > MOST_NAMED else ''});"
            f" {next_steps.get(state, 'not selected')}"
            for state, runs in self.left.items()
        ]


def refuse_retry(failure: Failure, earlier: Iterable[Retried]) -> str | None:
    """Why a run is not to be tried again; None if it is. `earlier`: the ledger's rows
    of its retries. Pure."""
    cause = failure.root
    limit = MOST.get(cause or "", OTHER_MOST)
    same = [
        row
        for row in earlier
        if row.cause == cause and row.signature == failure.signature
    ]
    if limit is None or len(same) < limit:
        return None
    reason = f"{cause or failure.state}: {failure.evidence}"
    if cause == Cause.SPARED:
        return f"nothing went wrong: {reason}"
    if limit == 0:
        return f"it would fail again: {reason}"
    times = "once" if len(same) == 1 else f"{len(same)} times"
    return f"retried {times} already, it would fail again: {reason}"


def choose_retries(
    workspace: Workspace,
    name: str,
    selection: Selection,
    causes: Collection[str],
    force: bool,
) -> RetryChoice:
    """Which runs of a recorded grid to retry.

    Those that failed; cancelled and unknown ones where a state or a cause asks for
    them. UserError for a selection that names nothing.
    """
    record = recorded_grids.read_grid(workspace, name)
    ledger = Ledger(workspace)
    rows = [*record.runs, *record.before]
    states = collect_states(workspace, [f"runs/{row.run}" for row in rows], ledger)
    states = flag_journals(workspace, states)
    selection.check(
        [(row.run, row.axes, states[f"runs/{row.run}"].state) for row in rows]
    )
    retried_states = _find_retried_states(selection, causes)
    choice = RetryChoice(file=recorded_grids.name_file(workspace, name))
    for row in record.runs:
        run, state = row.run, states[f"runs/{row.run}"]
        if _needs_no_retry(state):
            choice.note_damaged(run, state)
            continue
        failure = read_failure(workspace, f"runs/{run}", state)
        is_meant = _is_of(failure, retried_states, causes)
        is_selected = selection.matches(run, row.axes, state.state)
        if state.in_queue or not (is_meant and is_selected):
            choice.left.setdefault(_kind_of(state), []).append(run)
            continue
        refusal = refuse_retry(failure, ledger.retries(f"runs/{run}"))
        if refusal and not force:
            choice.refused[run] = refusal
        else:
            choice.runs.append(run)
    return choice


def _find_retried_states(selection: Selection, causes: Collection[str]) -> set[str]:
    """The states of which runs are retried: those that are asked for; else what failed,
    and what may have failed where runs or causes are named."""
    may_have_failed: set[str] = {State.FAILED, State.CANCELLED, State.UNKNOWN}
    states = {term.value for term in selection.only if term.key == STATE}
    if states:
        return may_have_failed & states
    # Whoever names a run by its id means it as it stands.
    is_by_id = any(not term.key for term in selection.only)
    return may_have_failed if causes or is_by_id else {State.FAILED}


def _needs_no_retry(state: JobState) -> bool:
    """Whether a run is done, or at work."""
    is_at_work = state.state in ACTIVE and not state.stopped
    return state.state == State.DONE or is_at_work


def _is_of(failure: Failure, states: Collection[str], causes: Collection[str]) -> bool:
    """Whether a run has failed in one of these states, of one of the causes if any."""
    if failure.state not in states:
        return False
    return not causes or failure.cause in causes or failure.root in causes


def _kind_of(state: JobState) -> str:
    """Why a run that is not done is left by a retry, in a word."""
    if state.in_queue and state.doing == LEAVING and not state.stopped:
        return LEFT_BEHIND
    if state.in_queue:
        return HELD
    if state.stopped:
        return STOPPED
    if state.cause in (NEVER_STARTED, CUT_SHORT):
        return UNSTARTED
    return state.state


def read_failure(workspace: Workspace, item: str, state: JobState) -> Failure:
    """How a job ended, with its traceback's hash if it told one."""
    # of a broken one the state says so
    record = exit_record.read_if_sound(workspace.root / item)
    is_of_this = record is not None and record.cause == state.cause
    return Failure(
        state.state,
        state.cause,
        state.evidence,
        replace_unset(record.signature) if record and is_of_this else None,
    )


def make_retry_rows(
    workspace: Workspace,
    states: Mapping[str, JobState],
    nodes: Mapping[str, Sequence[str]],
) -> dict[str, Retried]:
    """What the ledger keeps of the failures before a retry, by job folder; `nodes`:
    those that failed under it."""
    failures: dict[str, Retried] = {}
    for item, state in states.items():
        failure = read_failure(workspace, item, state)
        failures[item] = Retried(
            cause=failure.root,
            signature=failure.signature or None,
            nodes=list(nodes.get(item, ())),
        )
    return failures


def refuse_changed(file: str, chosen: Collection[str], now: Collection[str]) -> None:
    """Raises UserError where a run that is to be tried again is no longer in the grid file."""
    lost = sorted(set(chosen) - set(now))
    if lost:
        raise UserError(
            f"{file} has changed since it was submitted and no longer lists {', '.join(lost)}; put"
            " the file back, or select others with --only; zsg submit submits what it lists now"
        )
