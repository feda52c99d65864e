"""Reads what the runs of a grid have recorded in their folders: values, item losses,
ends, what they stand on.

From journals and records only, so it works offline, and while runs go on.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jobs.contract import job_file, journal
from jobs.contract.causes import Cause
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import META, Damaged, Workspace, read_json
from jobs.contract.grid_record import GridRecord, ListedRun, Summaries
from jobs.contract.item_losses import ItemLosses, read_test_losses
from jobs.contract.job_file import stage_folders
from jobs.contract.journal import Point
from jobs.contract.journal_rows import Row as JournalRow
from jobs.contract.journal_rows import Start, as_mapping, find_first_start, find_starts
from jobs.contract.length_notes import describe_chat, describe_lengths
from jobs.contract.prepared import describe_arrangement
from jobs.contract.stages import read_newest_stage
from jobs.contract.states import Outcome, RecordedState
from jobs.deciding import summary_values
from zsg_core import recipe as recipes
from zsg_core.metrics import summaries as summary_keys
from zsg_core.orders import curriculum
from zsg_core.orders.from_file import FILE
from zsg_core.shown_text import make_showable

UNCOMMITTED = " + uncommitted changes"

NO_COMMIT = "not known (installed, or no repository)"
UNREADABLE = "cannot be read"

Row = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordedStage:
    """What one stage of a run has journalled: the points that count, its rows, where a
    restart disagreed."""

    folder: Path
    rows: list[JournalRow]
    points: list[Point]
    flags: list[str]


class RecordedRun:
    """One run of a grid, as its folder tells; of several stages all, as one curve, or
    one of them by itself.

    A stage by itself is counted from 0, with what its predecessor ended at as its first
    point. Its journals are read at once; Damaged for one that cannot be. `summaries`:
    those that its grid names.
    """

    def __init__(
        self,
        workspace: Workspace,
        listed: ListedRun,
        stage: int | None = None,
        summaries: Summaries | None = None,
    ) -> None:
        self._summaries = summaries or Summaries()
        self.run = listed.run
        self.axes = listed.axes
        self.recipe = listed.recipe
        self._workspace, self._folder = workspace, workspace.run(self.run)
        self._attempt, self.end = read_newest_stage(stage_folders(workspace, self.run))
        self._stage = stage
        # the stages that have begun, the run's own last
        self.stages = self._read_stages()

    @property
    def state(self) -> RecordedState:
        """How far the run has come by its folder."""
        if not self._attempt:
            return RecordedState.NOT_BEGUN
        if self.end is None or self.end.outcome == Outcome.CONTINUE:
            return RecordedState.NOT_FINISHED
        return RecordedState(self.end.outcome)

    @property
    def is_spared(self) -> bool:
        """Whether a look has ended the study before the run began."""
        return self.end is not None and self.end.cause == Cause.SPARED

    def _read_stages(self) -> list[RecordedStage]:
        stages = []
        for folder in stage_folders(self._workspace, self.run):
            rows = list(journal.read_journal(folder))
            if rows:
                points, flags = journal.first_points(rows)
                stages.append(RecordedStage(folder, rows, points, flags))
        return stages

    @property
    def notes(self) -> list[str]:
        """What max_length, a chat template and a list of the user's have made of the
        examples of its stages, and at which target sets their orders look, in words."""
        train = recipes.last_stage(self.recipe)["train"]
        notes: list[str] = []
        for stage in self.stages:
            start = find_first_start(stage.rows)
            if start is not None:
                notes += describe_lengths(start, train)
                notes += describe_chat(start)
        for prefix in recipes.list_prefixes(self.recipe):
            order = recipes.last_stage(prefix)["arrangement"]
            is_special = order["order"] == FILE or "target" in order
            if is_special or curriculum.changes_count(order):
                arrangement = recipes.arrangement_id(prefix)
                notes += describe_arrangement(self._workspace.arrangement(arrangement))
        return notes

    @property
    def begins(self) -> list[int]:
        """After which step each stage that is shown, but the first, has begun."""
        return [] if self._stage else self._begins

    @cached_property
    def _begins(self) -> list[int]:
        begins: list[int] = []
        for stage in self.stages[1:]:
            starts = islice(find_starts(stage.rows), 1)
            begins += [row.step for row, _ in starts]
        return begins

    @cached_property
    def _shown(self) -> range:
        """The steps of the stage that is shown, or all; none of a stage that has not begun."""
        bounds = [0, *self._begins]
        if not self._stage:
            return range(sys.maxsize)
        if self._stage > len(bounds):
            return range(0)
        return range(
            bounds[self._stage - 1], [*bounds, sys.maxsize - 1][self._stage] + 1
        )

    @property
    def flags(self) -> list[str]:
        """Where a value that was recomputed after a restart is another than the first."""
        return [flag for stage in self.stages for flag in stage.flags]

    def points(self, key: str) -> dict[int, Point]:
        """The values of one metric, or of a summary, by step, in order. UserError for
        the key of a summary that there is not."""
        if summary_keys.is_summary(key):
            return summary_values.find_points(self, key, self._summaries)
        by_step: dict[int, Point] = {}
        for point in self._points_by_key.get(key, ()):
            if point.step in self._shown:
                by_step.setdefault(point.step, point)
        begin = self._shown.start
        before = by_step[begin].examples if begin in by_step else 0
        return {
            step - begin: replace(
                by_step[step],
                step=step - begin,
                examples=by_step[step].examples - before,
            )
            for step in sorted(by_step)
        }

    @cached_property
    def _points_by_key(self) -> dict[str, list[Point]]:
        """The points of all stages, in their order, by metric."""
        by_key: dict[str, list[Point]] = {}
        for stage in self.stages:
            for point in stage.points:
                by_key.setdefault(point.key, []).append(point)
        return by_key

    def tokens(self) -> dict[int, float]:
        """How many tokens were trained on up to each step; empty where an older zsg did
        not record them."""
        total, totals = 0.0, {0: 0.0}
        for step, point in self.points("train/tokens").items():
            # what the stage before has ended with is not of this one
            total += point.value if step else 0
            totals[step] = total
        return totals if len(totals) > 1 else {}

    def keys(self) -> list[str]:
        """The metrics that there are."""
        return list(self._points_by_key)

    def summary_keys(self) -> list[str]:
        """The summaries that there are of its metrics, but for those of single tasks."""
        return summary_values.list_keys(self, self.keys(), self._summaries)

    def items(self, key: str) -> ItemLosses | None:
        """The losses of the items that `key` is the mean of, by step; None where there
        are none, or the sets differ. UserError as for `points`."""
        if summary_keys.is_summary(key):
            return summary_values.find_items(self, key, self._summaries)
        by_stage = [
            read_test_losses(stage.folder, key, stage.rows) for stage in self.stages
        ]
        measured = [items for items in by_stage if items.steps]
        if not measured or any(items.ids != measured[0].ids for items in measured):
            return None
        by_step = self._losses_by_step(measured)
        if not by_step:
            return None
        first, steps = measured[0], sorted(by_step)
        losses = np.array([by_step[step] for step in steps])
        return ItemLosses(steps, first.ids, first.tasks, first.tokens, losses)

    def _losses_by_step(self, measured: Sequence[ItemLosses]) -> dict[int, Any]:
        """The losses at the steps that are shown, counted from the first of them; of a
        step in two stages the earlier stage's count."""
        by_step: dict[int, Any] = {}
        for items in measured:
            for step, losses in zip(items.steps, items.losses, strict=True):
                if step in self._shown:
                    by_step.setdefault(step - self._shown.start, losses)
        return by_step

    def facts(self) -> dict[str, str]:
        """What the run stands on: digests of data, order and weights, the code, how it
        was computed."""
        facts = {"run": self.run, "state": self.state}
        for number, stage in enumerate(self.recipe["stages"], start=1):
            for name, source in recipes.list_sources(stage["data"]).items():
                facts[_of("data", name, number, self.recipe)] = source["digest"]
        for number, folder in enumerate(
            stage_folders(self._workspace, self.run), start=1
        ):
            job = job_file.read_train_job(folder)
            meta = _arrangement(self._workspace, job.made.arrangement) if job else {}
            facts |= {
                _of(name, "", number, self.recipe): str(value)
                for name, value in meta.items()
            }
        base = self.recipe["base"]
        facts["model"] = base.get("digest") or base["kind"]
        weights = replace_unset(self.end.weights) if self.end else None
        return facts | self._code() | ({"weights": weights} if weights else {})

    def _code(self) -> dict[str, str]:
        # The values that count are the first attempt's, and so is the code that computed them.
        start = as_mapping(self._start())
        job = job_file.read_job(self._folder)
        submitted = job.code.facts if job else {}
        code = dict(start.get("code") or submitted)
        # a place on one machine; the digest says which code it was
        code.pop("folder", None)
        commit = code.pop("commit", None) or NO_COMMIT
        is_dirty = code.pop("dirty", None)
        facts = {"commit": f"{commit}{UNCOMMITTED if is_dirty else ''}"}
        facts |= {name: str(value) for name, value in code.items()}
        return facts | {
            key: str(start[key])
            for key in ("device", "world", "precision")
            if key in start
        }

    def _start(self) -> Start:
        rows = self.stages[-1].rows if self.stages else []
        return find_first_start(rows) or Start()


@dataclass(frozen=True)
class UnreadableRun:
    """A run that a grid lists and of which a record cannot be read, and why."""

    run: str
    axes: Row
    why: str


def read_runs(
    workspace: Workspace, record: GridRecord, stage: int | None = None
) -> Iterator[RecordedRun | UnreadableRun]:
    """The runs that a grid lists, each read when it is asked for; of several stages one
    by itself, or all."""
    summaries = replace_unset(record.summaries)
    for listed in record.runs:
        try:
            yield RecordedRun(workspace, listed, stage, summaries)
        except Damaged as error:
            yield UnreadableRun(listed.run, listed.axes, str(error))


def warn_of_left_out(run: str, error: Damaged | str) -> str:
    """Logs that a run is not among the others, and which file is to blame; returns the
    words, for people."""
    trouble = f"{run} is left out: {error}"
    logger.warning("%s", make_showable(trouble, keep=""))
    return trouble


def take_from_sound_runs(
    workspace: Workspace, record: GridRecord, take: Callable[[RecordedRun], Any]
) -> Iterator[Any]:
    """What `take` has of each run; a run that cannot be read is left out, with a warning."""
    for run in read_runs(workspace, record):
        try:
            if isinstance(run, UnreadableRun):
                raise Damaged(run.why)
            taken = take(run)
        except Damaged as error:
            warn_of_left_out(run.run, error)
        else:
            yield taken


def _of(kind: str, name: str, stage: int, recipe: Row) -> str:
    words = [kind, name, f"stage {stage}" if len(recipe["stages"]) > 1 else ""]
    return " ".join(word for word in words if word)


@lru_cache(maxsize=64)
def _arrangement(workspace: Workspace, arrangement_id: str) -> dict[str, str]:
    meta = read_json(workspace.arrangement(arrangement_id) / META) or {}
    test = meta.get("sources", {}).get("corpus_meta", {}).get("test_digest")
    return {
        "arrangement": arrangement_id,
        "ids digest": str(meta.get("ids_digest")),
        "test digest": str(test),
    }
