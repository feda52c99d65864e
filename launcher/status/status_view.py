"""Turns states into what `zsg status` shows: a row for each run, and for large grids a
line for each group of them.

Pure: texts and numbers only; launcher.views.show draws them.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.contract.grid_record import RunName
from jobs.contract.journal import spell_nonfinite
from jobs.contract.states import State
from launcher.workspace.job_state import (
    HELD_BY_ADMIN,
    HELD_BY_USER,
    UNREADABLE,
    JobState,
    describe_release,
)

MOST_ROWS = 30  # larger tables are grouped
MOST_TROUBLED = 20
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
            cause="not submitted: not selected, cut short or refused; zsg submit does it",
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
        **{name: getattr(state, name) for name in SHOWN},
    }
    return spell_nonfinite(row)


def describe_run(row: Row) -> str:
    """What there is to say of a run beside its numbers."""
    absence = None if row["wanted"] else "no longer in the grid"
    notes = [
        absence,
        _flag(row),
        _replaced(row),
        row["cause"],
        _waits(row),
        _does(row),
        row["evidence"],
    ]
    return ": ".join(str(note) for note in notes if note)


def _flag(row: Row) -> str | None:
    """What is wrong with a run. Of one that runs, a file may be unreadable; all else
    are signs that it hangs."""
    flag: str | None = row.get("flag")
    if not flag or row["state"] != State.RUNNING or flag.startswith(UNREADABLE):
        return flag
    return f"HANGS? {flag}"


def _replaced(row: Row) -> str | None:
    """What an earlier submission of a run still has in the queue."""
    if not row.get("replaced"):
        return None
    return (
        f"Slurm still has {', '.join(row['replaced'])} of an earlier submission of it (zsg cancel"
        " ends that)"
    )


def _waits(row: Row) -> str | None:
    starts, reason = row.get("starts"), row.get("reason")
    when = time.strftime("about %a %H:%M", time.localtime(starts)) if starts else None
    if reason == HELD_BY_ADMIN:
        reason = f"{reason}: held by an administrator, who alone can release it"
    if reason == HELD_BY_USER:
        reason = f"{reason}: {describe_release(bool(row.get('unreleased')))}"
    return ", ".join(filter(None, (reason, when))) or None


def _does(row: Row) -> str | None:
    return (
        row.get("doing")
        if row["state"] == State.RUNNING and row.get("doing") != "training"
        else None
    )


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


def is_troubled(row: Row) -> bool:
    """Whether somebody should look at a run."""
    return row["state"] in (State.FAILED, State.UNKNOWN) or bool(
        row.get("flag") or row.get("replaced")
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
