"""Says what is known of a job: where it stands, what it shows of itself, why it ended or waits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.contract.exit_record import Loss
from jobs.contract.gpu_hours import Spent
from jobs.contract.states import ACTIVE, State

# with which the flag of a job under way begins of which a file cannot be read
JOURNAL_UNREADABLE = "its journal cannot be read"
RECORD_UNREADABLE = "a record of it cannot be read"
UNREADABLE = (JOURNAL_UNREADABLE, RECORD_UNREADABLE)
# reasons of Slurm's
HELD_BY_ADMIN = "JobHeldAdmin"
HELD_BY_USER = "JobHeldUser"  # or its controller forgot in a crash that it was released
HELD_AFTER_LAUNCH = "launch failed requeued held"  # a node could not launch it
HELD_BACK = (HELD_BY_ADMIN, HELD_BY_USER, HELD_AFTER_LAUNCH)
# of a submission that has an intent and no ids yet
CUT_SHORT = "its submission was cut short; zsg submit again settles it"
GRID_FILE = "GRID.YAML"  # in advice: the file of the grid, where it is not known
NOT_SUBMITTED = "not submitted: "  # with which the cause begins of what never was
NEVER_STARTED = "never started: the zsg submit that was to run it has ended"


@dataclass(frozen=True, kw_only=True)
class JournalDamage:
    """Rows that the journal of a run has lost: `line` of `file`, relative to the
    workspace, is the first that does not count. `is_own`: the trainer's, not an
    evaluator's."""

    file: str
    line: int
    reason: str
    is_own: bool


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What is known of one job folder. `checkpoints` are the steps where a finished run
    has the loss of all items."""

    state: State
    attempt: int | None = None
    step: int | None = None
    steps: int | None = None
    first: int = 0  # steps of the stages before this one
    loss: Loss = None
    slurm: str | None = None
    cause: str | None = None
    evidence: str | None = None
    checkpoints: tuple[int, ...] = ()
    # where quick sets were measured, by their key
    quick: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict[str, tuple[int, ...]]
    )
    # those a finished run has written: step, probe_loss, kept
    snapshots: tuple[dict[str, Any], ...] = ()
    # the step from which a run that has not finished can go on
    saved: int | None = None
    # the size and checkpoints of a run that can go on
    under: dict[str, Any] = field(default_factory=dict[str, Any])
    # by its time limit or a preemption: it waits for the next submit
    stopped: bool = False
    signature: str | None = None  # equal for failures of one kind
    # jobs of earlier submissions that the scheduler holds all the same
    replaced: tuple[str, ...] = ()
    in_queue: bool = False  # the scheduler still holds it, whatever its state
    reason: str | None = None  # why it waits, in Slurm's word
    # held, as its submit has not released it yet: the next one does
    unreleased: bool = False
    starts: float | None = None  # when Slurm expects it to start, s since the epoch
    doing: str | None = None
    train_loss: float | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None
    heartbeat_s: float | None = None  # since the last beat
    gpus: int | None = None  # held now
    node: str | None = None
    # for how long it has taken no step, where that is longer than it should be
    hang_s: float | None = None
    flag: str | None = None  # what is wrong with it, beside how it ended
    damage: JournalDamage | None = None  # which the flag tells
    notes: tuple[str, ...] = ()  # what there is to know of a run's examples
    other_versions: str | None = None  # than the submit's, in a sentence
    spent: Spent | None = None  # what it has cost; None where that is not known

    @property
    def is_active(self) -> bool:
        """Whether it may still write: nothing must be submitted in its place."""
        return self.in_queue or self.state in ACTIVE


def describe_release(is_unreleased: bool, options: str = "") -> str:
    """Why a job may be held that Slurm calls held by its user, and the command that
    releases it. `is_unreleased`: its own submit has not; `options`: what more the
    command is given else."""
    if is_unreleased:
        return (
            f"a submit is at work or was cut short: zsg submit {GRID_FILE} releases it"
        )
    return (
        "you hold it, or Slurm has forgotten its release: zsg submit"
        f" {GRID_FILE} --retry{options} releases it"
    )
