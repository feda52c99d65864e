"""Collects a run's metadata for MLflow, all that is no metric: its params, tags and
datasets. Knows files, not MLflow.

What decides a run's numbers is a parameter; facts of its attempts are tags, for a
parameter can never change.
"""

import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from jobs.contract import (
    exit_record,
    job_file,
    journal,
    journal_rows,
    metric_ways,
    stages,
)
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import LABEL, ListedRun
from jobs.contract.job_file import MadeThings, TrainJob
from jobs.contract.journal import Point
from jobs.contract.journal_rows import AnswersKept, EventRow, InsideTaken, Start
from jobs.contract.length_notes import describe_lengths
from jobs.contract.prepared import (
    ArrangementMeta,
    read_arrangement_meta,
    read_base_meta,
    read_corpus_notes,
)
from jobs.contract.states import Outcome, State
from zsg_core import recipe as recipes
from zsg_core.shown_text import format_value

Row = Mapping[str, Any]
MOST_VERSIONS = 10
MOST_SOURCES = 20
MOST_KEYS, MOST_OF_SOURCES = 100, 60
NAMED_KEYS = 20
MOST_FLAGS = 5
BEYOND = 1 << 63  # what MLflow's steps and times stay below
# what MLflow makes of a value, by how Python writes it
CHANGED = {
    "inf": "inf, kept as the largest number there is (1.8e308)",
    "-inf": "-inf, kept as the smallest number there is (-1.8e308)",
    "nan": "nan, which its charts leave out",
}
NOT_SENT = "not sent, as step or time is beyond 64 bits"
NO_NAME = "not sent, as MLflow takes no metric of that name"
# A name of MLflow 3: it may be used as a path, so it is one that stands for itself.
_NAME = re.compile(r"[/\w.\- :]+")
NAME_LENGTH, SHOWN_LENGTH = 250, 100
MOST_OF_NOTES = 4000  # characters, of which a tag of MLflow has 5000
_COUNTS = re.compile(r"[0-9]+|'.*'")  # by which flags of one kind differ


class DataSet(NamedTuple):
    """A data set by name and digest; `context` says what the run used it for, `source`
    where in a workspace it is.

    MLflow keeps one row of it for all runs, and its first source for ever, wherever the
    workspace is moved.
    """

    name: str
    digest: str
    context: str
    source: str


def name_of(row: ListedRun) -> str:
    """How MLflow's tables name a run: by its label, if it has one, and what varies."""
    words: list[str] = []
    for key, value in row.axes.items():
        text = format_value(value)
        if key != LABEL:
            text = f"{key.split('.')[-1]}={text}"
        words.append(text)
    return " ".join(words) or row.run


def flatten_params(row: ListedRun) -> dict[str, str]:
    """What varies first, under the names of the grid file; then the recipe, flattened."""
    named = {key: format_value(value) for key, value in row.axes.items()} | {
        "model.name": str(row.model)
    }
    first, *later_stages = row.recipe["stages"]
    later = {
        f"stage{number}": stage for number, stage in enumerate(later_stages, start=2)
    }
    for key, value in _flat({**first, **later, "base": row.recipe["base"]}):
        named.setdefault(key, format_value(value))
    return named


def read_run_state(
    folders: Sequence[Path], disagreements: Sequence[str]
) -> dict[str, str]:
    """How far a run is whose stages are in `folders`: state, attempt, the scheduler's
    ids, its end, a flag."""
    attempt, record = stages.read_newest_stage(folders)
    tags = {"state": str(State.RUNNING)}
    tags |= {
        key: str(getattr(attempt, key, None))
        for key in ("attempt", "host", "slurm_job_id", "restart_count")
    }
    if record:
        if record.outcome != Outcome.CONTINUE:
            tags["state"] = str(record.outcome)
        tags["ended"] = str(record.ended)
        why = {
            key: replace_unset(getattr(record, key))
            for key in ("cause", "evidence", "digest", "skipped")
        }
        tags |= {key: str(value) for key, value in why.items() if value}
    if disagreements:
        tags["flag"] = (
            f"a restart computed other values ({len(disagreements)}): {disagreements[0]}"
        )
    return tags


def can_be_sent(point: Point) -> bool:
    """Whether MLflow takes a point. It refuses a whole request for one that it does not
    take, and all that stands beside it."""
    return _has_room(point) and can_be_named(point.key)


def can_be_named(key: str) -> bool:
    """Whether MLflow takes a metric of that name."""
    is_path = posixpath.normpath(key) == key and not key.startswith(("..", "/"))
    is_short = len(key) <= NAME_LENGTH and key != "."
    return is_path and is_short and _NAME.fullmatch(key) is not None


def _has_room(point: Point) -> bool:
    """Whether MLflow has room for a point's step and time: 64 bits, and no time before
    1970."""
    return -BEYOND <= point.step < BEYOND and 0 <= point.ts < BEYOND


def describe_changed_values(points: Iterable[Point]) -> dict[str, str]:
    """The tag that says which values MLflow has otherwise than the journals; none where
    all are the same. `points`: of all writers of a run's journals."""
    odd_points: dict[str, list[Point]] = {}
    for point in points:
        if not can_be_named(point.key):
            odd_points.setdefault(NO_NAME, []).append(point)
        elif not _has_room(point):
            odd_points.setdefault(NOT_SENT, []).append(point)
        elif not math.isfinite(point.value):
            odd_points.setdefault(CHANGED[str(point.value)], []).append(point)
    texts = [
        f"{len(changed)} × {what_happens}, first {_show_key(changed[0])} at step"
        f" {changed[0].step}"
        for what_happens, changed in odd_points.items()
    ]
    return {"values_changed": "; ".join(texts)} if texts else {}


def _show_key(point: Point) -> str:
    """A point's key, cut where it is too long to be read."""
    key = point.key
    return key if len(key) <= SHOWN_LENGTH else f"{key[:SHOWN_LENGTH]}…"


def collect_doubts(rows: Iterable[journal_rows.Row]) -> dict[str, str]:
    """What evaluators found strange in scores, as a tag; `rows` of all writers of a run's journals.

    Of several kinds, as answers that were cut and scores that are all 0, the first of each is told.
    """
    flags = [
        (row.step, flag)
        for row in rows
        if isinstance(row, EventRow) and isinstance(row.data, AnswersKept | InsideTaken)
        for flag in row.data.flags
    ]
    if not flags:
        return {}
    kinds: dict[str, tuple[int, str]] = {}
    for step, flag in flags:
        kinds.setdefault(_COUNTS.sub("", flag), (step, flag))
    steps = len({step for step, _ in flags})
    first, *later_flags = [
        f"step {step}: {flag}" for step, flag in list(kinds.values())[:MOST_FLAGS]
    ]
    return {
        "scores_flag": "; ".join(
            [
                f"at {steps} checkpoint{'s' * (steps > 1)}; the first, {first}",
                *later_flags,
            ]
        )
    }


def name_ways(rows: Iterable[journal_rows.Row]) -> dict[str, str]:
    """How metrics were taken, a tag for each of which there is something to say."""
    ways = metric_ways.describe_ways(rows)
    named = {f"how.{key}": text for key, text in ways.items() if _NAME.fullmatch(key)}
    return dict(islice(named.items(), MOST_KEYS))


def collect_facts(
    folder: Path, row: ListedRun, starts: Sequence[tuple[EventRow, Start]]
) -> dict[str, str]:
    """Strategy, order, the digests, the code and the machines behind a run; `starts`
    are those of its journal.

    What is not known, as of things that were removed since, is not there: MLflow keeps
    what it was told before.
    """
    job = _submitted(folder)
    workspace, made_ids = workspace_of(folder), job.made
    arrangement = _read_arrangement(workspace, made_ids)
    stages = row.recipe["stages"]
    facts = {
        **_describe_code(job, starts),
        "order": " → ".join(stage["arrangement"]["order"] for stage in stages),
        "arrangement": made_ids.arrangement,
        "corpus": made_ids.corpus,
        "stage": job.stage_id,
        **_list_source_digests(stages[-1]),
    }
    if_known = {
        "strategy": row.strategy,
        "attempts": _describe_attempts(starts),
        "base": made_ids.base,
        "base.digest": _find_base_digest(workspace, made_ids),
        "arrangement.ids_digest": arrangement.ids_digest,
        "train_digest": arrangement.corpus.train_digest,
        "test_digest": arrangement.corpus.test_digest,
        "target": arrangement.target and arrangement.target.describe(),
        "data.notes": _describe_data(workspace, job, starts),
    }
    return facts | {key: str(value) for key, value in if_known.items() if value}


def _describe_data(
    workspace: Workspace, job: TrainJob, starts: Sequence[tuple[EventRow, Start]]
) -> str:
    """What whoever reads the run's numbers must know of the data of its stages, and of
    what its last stage made of them.

    Cut where it is too long for a tag: the files have all of it.
    """
    corpora = [_submitted(workspace.run(run)).made.corpus for run in job.before]
    notes = [
        note
        for corpus in dict.fromkeys([*corpora, job.made.corpus])
        for note in read_corpus_notes(workspace.corpus(corpus))
    ]
    notes += describe_lengths(starts[0][1], job.train) if starts else []
    text = "; ".join(dict.fromkeys(notes))
    return text if len(text) <= MOST_OF_NOTES else f"{text[: MOST_OF_NOTES - 1]}…"


def _describe_code(
    job: TrainJob, starts: Sequence[tuple[EventRow, Start]]
) -> dict[str, str]:
    """The code and the versions of the first attempt: the values that count are its own."""
    first = starts[0][1] if starts else Start()
    code = replace_unset(first.code) or job.code.facts
    versions = replace_unset(first.versions, {})
    return {
        **{f"code.{key}": str(value) for key, value in code.items()},
        **{
            f"version.{name}": str(version)
            for name, version in islice(versions.items(), MOST_VERSIONS)
        },
    }


def _find_base_digest(workspace: Workspace, made_ids: MadeThings) -> str | None:
    if not made_ids.base:
        return None
    meta = read_base_meta(workspace.base(made_ids.base))
    return meta.digest if meta else None


def _submitted(folder: Path) -> TrainJob:
    """A run's job. Damaged where there is none."""
    job = job_file.read_train_job(folder)
    if job is None:
        raise Damaged(f"{job_file.job_path(folder)}: not found; zsg submit writes it")
    return job


def workspace_of(folder: Path) -> Workspace:
    """The workspace that a run's folder lies in by now; job.json names the one in which
    it was submitted."""
    return Workspace(folder.absolute().parent.parent)


def data_sets(folders: Sequence[Path]) -> list[DataSet]:
    """What a run is trained on in each stage and tested on, by zsg's own digests; none
    before prepare has made it."""
    datasets: list[DataSet] = []
    for folder in folders:
        workspace, made_ids = workspace_of(folder), _submitted(folder).made
        arrangement = _read_arrangement(workspace, made_ids)
        if digest := arrangement.ids_digest:
            path = workspace.arrangement(made_ids.arrangement).relative_to(
                workspace.root
            )
            datasets.append(
                DataSet(
                    f"arrangement {made_ids.arrangement}", digest, "training", str(path)
                )
            )
        # which all stages share
        if folder == folders[-1] and (digest := arrangement.corpus.test_digest):
            path = workspace.corpus(made_ids.corpus).relative_to(workspace.root)
            datasets.append(
                DataSet(f"test set of {made_ids.corpus}", digest, "testing", str(path))
            )
    return list(dict.fromkeys(datasets))


def kept_snapshots(folder: Path) -> list[int]:
    """The steps of the snapshots that a run that has ended has kept, if its grid asked for any."""
    record = exit_record.read_exit_record(folder)
    return (
        [
            snapshot["step"]
            for snapshot in replace_unset(record.snapshots, [])
            if snapshot["kept"]
        ]
        if record
        else []
    )


class Keys:
    """Which metric keys MLflow is told: at most so many of a run, since its pages stand
    still beyond.

    Keys of single sources (`loss/NAME`) are the many; each is decided on when it first
    comes, and for ever: `chosen` were sent before, and what was left out beside them
    finds no room later either.
    """

    def __init__(self, chosen: Iterable[str] = ()) -> None:
        self._kept = dict.fromkeys(chosen, True)
        self._count = len(self._kept)
        self._of_sources = sum(map(_of_source, self._kept))

    def keeps(self, key: str) -> bool:
        """Whether points of this key are sent."""
        is_kept = self._kept.get(key)
        if is_kept is None:
            is_kept = self._kept[key] = self._has_room(key)
        return is_kept

    def is_sent(self, key: str) -> bool:
        """Whether it was decided that points of this key are sent."""
        return self._kept.get(key, False)

    def is_undecided(self, key: str) -> bool:
        """Whether no point of this key has come yet."""
        return key not in self._kept

    def _has_room(self, key: str) -> bool:
        is_of_source = _of_source(key)
        if self._count >= MOST_KEYS:
            return False
        if is_of_source and self._of_sources >= MOST_OF_SOURCES:
            return False
        self._count += 1
        self._of_sources += is_of_source
        return True

    def chosen(self) -> list[str]:
        """The keys that are sent."""
        return [key for key, is_kept in self._kept.items() if is_kept]

    def left_out(self) -> dict[str, str]:
        """The tag that says which keys are not sent; none where all are."""
        keys = [key for key, is_kept in self._kept.items() if not is_kept]
        first = ", ".join(keys[:NAMED_KEYS]) + (", …" if len(keys) > NAMED_KEYS else "")
        return (
            {"keys_left_out": f"{len(keys)}, which zsg export has: {first}"}
            if keys
            else {}
        )


def _of_source(key: str) -> bool:
    return "/" in key and not key.startswith(("train/", journal.SPEED))


def _describe_attempts(starts: Sequence[tuple[EventRow, Start]]) -> str:
    """Each attempt's start, step, Slurm job and nodes, the newest last."""
    texts: list[str] = []
    for row, start in starts:
        names = (replace_unset(start.slurm_job_id), replace_unset(start.nodes))
        site = " ".join(name for name in names if name)
        from_step = replace_unset(start.from_step, 0)
        texts.append(f"{row.attempt}: from step {from_step}{site and ' in '}{site}")
    return "; ".join(texts)[-4000:]


def _list_source_digests(stage: Row) -> dict[str, str]:
    """The digests of the data sources of a stage, as tags."""
    sources = recipes.list_sources(stage["data"]) if "data" in stage else {}
    digests = {
        name: source["digest"] for name, source in sources.items() if "digest" in source
    }
    return {
        f"data.digest{name and '.'}{name}": digest
        for name, digest in islice(digests.items(), MOST_SOURCES)
    }


def _read_arrangement(workspace: Workspace, made_ids: MadeThings) -> ArrangementMeta:
    """What is known of the arrangement; nothing where it was removed since."""
    folder = workspace.arrangement(made_ids.arrangement)
    return read_arrangement_meta(folder) or ArrangementMeta()


def _flat(tree: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
