"""The records that `import zsg` gives: frozen, of plain values, and only ever added to.

New fields have defaults; a field that is to go is deprecated first, see docs/python-api.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SKIP = "skip"


def _no_details() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One point of a grid: its id, and its values on the grid's axes."""

    id: str
    axes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid file as it was when it was loaded.

    `profile`: the name of a shipped profile, or the file of another. `workspace`: the
    folder of all runs, which need not be there yet. `notes`: what there is to know of
    the grid, such as points that are one run.
    """

    name: str
    file: Path
    profile: str
    workspace: Path
    runs: tuple[Run, ...]
    overrides: tuple[str, ...] = ()
    smoke: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What a submit would do about a run, and why.

    `action`: submit, retry, retrain, evaluate or skip. `estimate`: what the run takes,
    with the keys of `zsg plan --json`; a value is None where it is not known.
    """

    run: Run
    action: str
    reason: str
    estimate: Mapping[str, Any] = field(default_factory=_no_details)

    @property
    def gpu_hours(self) -> float | None:
        """The hours of all its GPUs together; None where they are not known."""
        return self.estimate.get("gpu_hours")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a submit would do now.

    `refusals`: why it would refuse to; empty where it would not. `only`, `leave_out`,
    `retry`, `retrain`: what was asked for.
    """

    grid: Grid
    runs: tuple[PlannedRun, ...]
    refusals: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    retry: bool = False
    retrain: bool = False

    @property
    def acting(self) -> tuple[PlannedRun, ...]:
        """The runs about which something would be done."""
        return tuple(planned for planned in self.runs if planned.action != SKIP)

    @property
    def gpu_hours(self) -> float | None:
        """Of the runs about which something would be done; None where that of one is
        not known."""
        hours = [planned.gpu_hours for planned in self.acting]
        known = [each for each in hours if each is not None]
        return sum(known) if len(known) == len(hours) else None


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Where a run stands. A job beside the runs has its folder as `run`, such as
    evaluate/3f2a….

    `state`: waiting, queued, running, done, failed, cancelled or unknown. `loss`: the
    last on the test items; a text (nan, inf) where it is not finite. `details`: all that
    `zsg status --json` says of the run, by its keys.
    """

    run: str
    grid: str
    state: str
    axes: Mapping[str, Any]
    attempt: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | str | None = None
    cause: str | None = None
    evidence: str | None = None
    flag: str | None = None
    slurm: str | None = None
    details: Mapping[str, Any] = field(default_factory=_no_details)

    @property
    def is_done(self) -> bool:
        """Whether it has ended well."""
        return self.state == "done"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The size of what is compared, with its interval over held-out tasks, seeds and
    splits.

    `confidence`: of how many studies such an interval has the effect: 0.95, but for
    claims that are looked at while splits come in.
    """

    name: str
    value: float
    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a comparison in one group of runs.

    `word`: supported, not supported, opposite, or too few replicates; with "on these
    tasks" where another held-out split could turn it; not decided yet, where claims are
    looked at while splits come in. `claim`: what was compared, with
    the keys of a grid's `claims`. `group`: what the runs have in common. `values`: the
    metric at each place of the axis. `notes`: what to bear in mind.
    """

    word: str
    claim: Mapping[str, Any]
    group: Mapping[str, Any]
    values: Mapping[str, float]
    effects: tuple[Effect, ...]
    tasks: int
    splits: int
    runs: int
    notes: tuple[str, ...] = ()
