"""Turns states into what `zsg status` shows: a row for each run, and for large grids a
line for each group of them.

Pure: texts and numbers only; launcher.views.show draws them.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.contract.gpu_hours import Spent
from jobs.contract.grid_record import RunName
from jobs.contract.journal import spell_nonfinite
from jobs.contract.states import ACTIVE, State
from launcher.workspace.job_state import NOT_SUBMITTED, JobState

# of a row: the newest training losses, which are read while somebody watches
CURVE = "curve"
STATES = (
    State.DONE,
    State.RUNNING,
    State.QUEUED,
    State.WAITING,
    State.FAILED,
    State.CANCELLED,
    State.UNKNOWN,
)
SHOWN = (
    "doing",
    "train_loss",
    "tokens_per_s",
    "eta_s",
    "heartbeat_s",
    "reason",
    "unreleased",
    "starts",
    "gpus",
    "node",
    "flag",
    "hang_s",
)


Row = Mapping[str, Any]


@dataclass(frozen=True)
class ShownJob:
    """A job that a table shows. `name`: as people know it; `item`: its folder; `axes`:
    what varies in a grid's runs."""

    name: str
    item: str
    axes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of_run(cls, row: RunName) -> "ShownJob":
        """A run that a grid lists."""
        return cls(row.run, f"runs/{row.run}", row.axes)

    @classmethod
    def of_item(cls, item: str) -> "ShownJob":
        """A job beside the runs, known by its folder."""
        return cls(item, item)


def rows_of(
    grid: str,
    jobs: Iterable[ShownJob],
    states: Mapping[str, JobState],
    is_listed: bool = True,
) -> list[dict[str, Any]]:
    """The states of a grid's jobs, as `zsg status --json` prints them; `is_listed`:
    whether the grid still lists them."""
    return [_make_row(grid, job, states[job.item], is_listed) for job in jobs]


def _make_row(
    grid: str, job: ShownJob, state: JobState, is_listed: bool
) -> dict[str, Any]:
    if state.state == State.ABSENT:
        state = JobState(
            state=State.UNKNOWN,
            cause=(
                f"{NOT_SUBMITTED}not selected, cut short or refused; zsg submit does it"
            ),
        )
    row = {
        "run": job.name,
        "grid": grid,
        "state": state.state,
        "attempt": state.attempt,
        "step": state.step,
        "steps": state.steps,
        "loss": state.loss,
        "slurm": state.slurm,
        "axes": job.axes,
        "cause": state.cause,
        "evidence": state.evidence,
        "wanted": is_listed,
        "replaced": list(state.replaced),
        "notes": list(state.notes),
        "other_versions": state.other_versions,
        "expected_start": state.starts,
        "expected_end": _expect_end(state),
        "gpu_hours": _describe_spent(state),
        **{name: getattr(state, name) for name in SHOWN},
    }
    return spell_nonfinite(row)


def _expect_end(state: JobState) -> float | None:
    """When a job under way will come to its last step, at its speed of the last half
    hour; s since the epoch."""
    return None if state.eta_s is None else time.time() + state.eta_s


def _describe_spent(state: JobState) -> dict[str, Any] | None:
    """What a job has cost and will, in GPU-hours, or hours of one without GPUs; None
    where nothing of it is known.

    `left`: the steps that are left, at the cost of a step as measured; None of a job
    that has ended, and where it is not known.
    """
    spent = state.spent
    if spent is None:
        return None
    return {
        "useful": spent.useful,
        "repeated": spent.repeated,
        "lost": spent.lost,
        "left": _count_left(state, spent),
        "has_gpus": spent.has_gpus,
        "unknown_before_attempt": spent.unknown_before or None,
    }


def _count_left(state: JobState, spent: Spent) -> float | None:
    if state.state not in ACTIVE or state.steps is None or not spent.per_step:
        return None
    # of what does not run only what is saved need not be trained again
    reached = state.step if state.state == State.RUNNING else state.saved
    return max(state.steps - (reached or 0), 0) * spent.per_step


@dataclass(frozen=True)
class Cost:
    """What the runs of a grid have cost and will, in GPU-hours, or hours where they
    have no GPUs.

    `left`: of the runs under way and of those that wait, the latter at the mean of
    those that are known; None where nothing is measured. `unknown`: runs that began and
    of which not all is known, since an older zsg ran them.
    """

    useful: float
    repeated: float
    lost: float
    left: float | None
    has_gpus: bool
    unknown: int


def sum_cost(rows: Sequence[Row]) -> Cost | None:
    """What a grid has cost and will; None where nothing of it is known."""
    costs = [row["gpu_hours"] for row in rows if row.get("gpu_hours")]
    if not costs:
        return None
    unknown = sum(_is_partly_unknown(row) for row in rows)
    return Cost(
        useful=sum(cost["useful"] for cost in costs),
        repeated=sum(cost["repeated"] for cost in costs),
        lost=sum(cost["lost"] for cost in costs),
        left=_sum_left(rows),
        has_gpus=any(cost["has_gpus"] for cost in costs),
        unknown=unknown,
    )


def _is_partly_unknown(row: Row) -> bool:
    cost = row.get("gpu_hours")
    if cost is None:
        return row["attempt"] is not None
    return cost["unknown_before_attempt"] is not None


def _sum_left(rows: Sequence[Row]) -> float | None:
    """What is left of the runs that are under way or wait. Of those that have not begun
    each is taken to cost as much as the mean of the others, once nothing is wasted."""
    wholes: list[float] = []
    left = 0.0
    unbegun = 0
    for row in rows:
        cost = row.get("gpu_hours")
        if cost is not None and cost["left"] is not None:
            left += cost["left"]
            wholes.append(cost["useful"] + cost["left"])
        elif cost is not None and row["state"] == State.DONE:
            wholes.append(cost["useful"])
        elif row["state"] in ACTIVE:
            unbegun += 1
    if unbegun and not wholes:
        return None
    mean = sum(wholes) / len(wholes) if wholes else 0.0
    return left + unbegun * mean


def format_duration(seconds: float | None) -> str:
    """A duration in two parts at most: 45s, 12m, 3h07, 2d04."""
    if seconds is None:
        return ""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 2:
        return f"{seconds:.0f}s"
    if hours < 1:
        return f"{minutes}m"
    return (
        f"{hours}h{minutes % 60:02}" if hours < 48 else f"{hours // 24}d{hours % 24:02}"
    )


@dataclass(frozen=True)
class Group:
    """The runs of a grid that have one value on its first axis."""

    grid: str
    value: Any
    states: Counter[str]
    # the least and the greatest of the last test losses
    losses: tuple[float, float] | None
    eta_s: float | None  # of the run that will take longest among those under way
    gpus: int
    flags: int


def group_rows(rows: Sequence[Row], axis_of: Mapping[str, str | None]) -> list[Group]:
    """One group for each value of each grid's axis, in the order of the rows."""
    members: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        axis = axis_of[row["grid"]]
        value = repr(row["axes"].get(axis)) if axis else ""
        members.setdefault((row["grid"], value), []).append(row)
    return [_group(grid, axis_of[grid], group) for (grid, _), group in members.items()]


def _group(grid: str, axis: str | None, rows: Sequence[Row]) -> Group:
    """What is said of some runs together. `axis` is the dotted key by whose value they
    were gathered, None for a grid as a whole. Loss and time left are missing where no
    run has any."""
    # one that is not finite is a text
    losses = [row["loss"] for row in rows if isinstance(row["loss"], float)]
    durations = [row["eta_s"] for row in rows if row["eta_s"] is not None]
    return Group(
        grid=grid,
        value=rows[0]["axes"].get(axis) if axis else None,
        states=Counter(row["state"] for row in rows),
        losses=(min(losses), max(losses)) if losses else None,
        eta_s=max(durations, default=None),
        gpus=sum(row["gpus"] or 0 for row in rows),
        flags=_count_flags(rows),
    )


def _count_flags(rows: Sequence[Row]) -> int:
    return sum(bool(row["flag"]) for row in rows)
