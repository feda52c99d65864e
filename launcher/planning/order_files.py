"""Judges the user's lists and scores before a job is made: whether the data have the
examples that they name, and as many as they are for.

Where the examples of a run are prepared, the order is made as the job makes it. Else its
places are held against how many examples there can be, and its ids against those of
small data. What is judged by the prepare job alone is told.
"""

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jobs.contract.folder import Workspace, is_committed
from jobs.preparing.source_files import SourceFiles
from launcher.grids.runs import Run
from launcher.planning import row_counts
from zsg_core.data import readers
from zsg_core.errors import BadData, ClusterError, UserError
from zsg_core.orders.by_scores import SCORES
from zsg_core.orders.from_file import DROP, FILE, hint_at_counting
from zsg_core.orders.known_names import explain_unknown
from zsg_core.orders.order_list import IDS, ListFile, OrderList
from zsg_core.orders.registry import ORDERS, OrderInputs
from zsg_core.orders.score_list import ScoreList
from zsg_core.recipe import Recipe, is_made, list_sources

MOST_BYTES = 50_000_000  # of a list, which is read for it
MOST_EXAMPLES = 500_000  # of prepared data, whose ids are read

# how many training examples a run's data have, and whether they are counted
Pool = Callable[[Run], tuple[int | None, bool]]
Listed = OrderList | ScoreList


IDS_LATER = "its ids are judged by the prepare job"
ALL_LATER = "whether it names every training example is judged by the prepare job"


class _NotKnownYet(Exception):
    """Only the prepare job can tell; says what."""

    def __init__(self, text: str = IDS_LATER) -> None:
        super().__init__(text)


def judge_order_files(
    workspace: Workspace, runs: Iterable[Run], count_pool: Pool
) -> list[str]:
    """Notes of lists whose ids only the prepare job can judge. UserError, with file and
    line, for a list or scores of examples that there are not."""
    notes: dict[str, None] = {}
    read_once = lru_cache(maxsize=None)(_read)
    for run in _list_runs(workspace, runs):
        file = run.order_file
        assert file is not None, "its order reads a file"
        try:
            listed = read_once(run.stage["arrangement"]["order"], file)
            _judge(workspace, run, listed, count_pool)
        except _NotKnownYet as later:
            notes[f"{file.path}: {later}"] = None
        except UserError as error:
            raise UserError(f"arrangement.path: {error}") from None
    return list(notes)


def _list_runs(workspace: Workspace, runs: Iterable[Run]) -> Iterator[Run]:
    """The runs and stages before them whose order is of a file and not made yet, one of
    each order."""
    seen: set[str] = set()
    for run in runs:
        for stage in (*run.all_before, run):
            order = stage.stage["arrangement"]["order"]
            if stage.order_file is None or order not in (FILE, SCORES):
                continue
            if stage.arrangement_id in seen:
                continue
            seen.add(stage.arrangement_id)
            if not is_committed(workspace.arrangement(stage.arrangement_id)):
                yield stage


def _read(order: str, file: ListFile) -> Listed:
    """What a file lists, or scores. _NotKnownYet for a large one."""
    if file.path.stat().st_size > MOST_BYTES:
        raise _NotKnownYet
    read: Any = ORDERS[order].reads
    return read(file)


def _judge(workspace: Workspace, run: Run, listed: Listed, count_pool: Pool) -> None:
    """UserError for a list of examples that there are not."""
    pool, _ = count_pool(run)
    is_prepared = is_committed(workspace.corpus(run.corpus_id))
    if is_prepared and pool is not None and pool <= MOST_EXAMPLES:
        _arrange(workspace, run, listed)
        return
    ids = _list_listed_ids(listed)
    if ids is not None:
        _judge_ids(run, listed, ids)
    elif pool is not None:
        _judge_places(listed, pool)


def _list_listed_ids(listed: Listed) -> list[str] | None:
    """The ids that a file names; None where it is by places."""
    if isinstance(listed, ScoreList):
        return None if listed.ids is None else list(listed.ids)
    return [str(entry) for entry in listed.entries] if listed.kind == IDS else None


def _judge_places(listed: Listed, pool: int) -> None:
    """UserError for more places than there can be examples. `pool`: at most so many."""
    if isinstance(listed, ScoreList):
        if len(listed.scores) > pool:
            raise BadData(
                f"{listed.path}: has {len(listed.scores):,} scores by place, and there are at most"
                f" {pool:,} training examples"
            )
        return
    positions = [int(entry) for entry in listed.entries]
    for number, position in enumerate(positions):
        if position >= pool:
            raise BadData(
                f"{listed.locate(number)}: there is no training example at place {position}:"
                f" there are at most {pool:,}, from 0 on{hint_at_counting(positions, pool)}"
            )


def _judge_ids(run: Run, listed: Listed, ids: list[str]) -> None:
    """UserError for an id that no example of the data has. A file of scores of all
    examples may have those of other data, too."""
    given, published = _list_names(run)
    names = given | published
    if isinstance(listed, ScoreList) and _has_all(ids, given, published):
        return
    unknown = [number for number, name in enumerate(ids) if name not in names]
    if unknown:
        raise BadData(explain_unknown(listed, ids, unknown, sorted(names)))
    is_whole = names.issubset(ids)
    if not is_whole and run.stage["arrangement"].get("rest") != DROP:
        raise _NotKnownYet(ALL_LATER)


def _has_all(ids: list[str], given: set[str], published: set[str]) -> bool:
    """Whether all examples are named, by the ids of zsg or by their own. Examples without
    one of their own are not looked for by these."""
    named = set(ids)
    return given <= named or (bool(published) and published <= named)


def _list_names(run: Run) -> tuple[set[str], set[str]]:
    """The ids of all examples of a run's sources: those that zsg gives, and their own.
    _NotKnownYet for data that are large, or that a model makes."""
    given: set[str] = set()
    published: set[str] = set()
    for name, source in list_sources(run.stage["data"]).items():
        if is_made(source):
            raise _NotKnownYet
        files = run.sources[name]
        prefix = f"{name}/" if name else ""
        skips = source.get("on_bad_row") == "skip"
        readings = [(files.data, source)]
        if files.test is not None:
            readings.append((files.test, source["held_out"]))
        for path, of_files in readings:
            zsg_ids, own_ids = _read_names(path, of_files, prefix, skips=skips)
            given |= zsg_ids
            published |= own_ids
    return given, published


def _read_names(
    path: Path, source: Recipe, prefix: str, *, skips: bool
) -> tuple[Set[str], Set[str]]:
    """The ids of the examples in the files of a path, of zsg and their own."""
    fields = json.dumps(source.get("fields"))
    data = _Data(path, source["reader"], str(source["digest"]), fields, skips)
    ids, published = _read_names_once(data)
    return {f"{prefix}{name}" for name in ids}, published


@dataclass(frozen=True)
class _Data:
    """Data and how they are read; `fields` as JSON. They are the same by their digest."""

    path: Path
    reader: str
    digest: str
    fields: str
    skips: bool


@lru_cache(maxsize=8)
def _read_names_once(data: _Data) -> tuple[Set[str], Set[str]]:
    """The ids of data's examples that zsg gives, and their own. _NotKnownYet for data
    that are large, or cannot be read."""
    fields = json.loads(data.fields)
    way: Recipe = {"reader": data.reader, "fields": fields}
    if data.skips:
        way["on_bad_row"] = "skip"
    examples = row_counts.read_few(SourceFiles(data.path), way)
    if examples is None:
        raise _NotKnownYet
    published = readers.read_published_ids(data.reader, data.path, data.skips, fields)
    public = {name for name in published if name is not None}
    return {example.id for example in examples}, public


def _arrange(workspace: Workspace, run: Run, listed: Listed) -> None:
    """Makes the order of prepared examples as the job will. UserError where that is not
    possible."""
    corpus, tasks, ids = _open_corpus(workspace, run)

    def read_small_data() -> None:
        for name, source in list_sources(run.stage["data"]).items():
            if not is_made(source):
                _refuse_large(run.sources[name], source)

    def read_published() -> list[str | None]:
        read_small_data()
        return corpus.read_published_ids(run.sources)

    def list_others() -> Set[str]:
        read_small_data()
        return corpus.list_other_ids(run.sources)

    recipe = run.stage["arrangement"]
    inputs = OrderInputs(
        recipe=recipe,
        tasks=tasks,
        distances=list,
        rounds=lambda farthest, cap: iter(()),
        ids=ids,
        published_ids=read_published,
        other_ids=list_others,
        read_input=lambda: listed,
    )
    ORDERS[recipe["order"]].arrange(inputs)


def _open_corpus(
    workspace: Workspace, run: Run
) -> tuple[Any, Sequence[str], Sequence[str]]:
    """The corpus of a run, and the tasks and ids of its training examples. _NotKnownYet
    for one that cannot be read here."""
    if importlib.util.find_spec("pyarrow") is None:  # which a login node may lack
        raise _NotKnownYet
    from jobs.preparing.corpus import Corpus

    try:
        corpus = Corpus(workspace, run.corpus_id)
        return corpus, corpus.train.tasks, corpus.train.ids
    except (UserError, ClusterError, OSError) as error:  # which the job tells
        raise _NotKnownYet from error


def _refuse_large(files: SourceFiles, source: Recipe) -> None:
    """_NotKnownYet for data that are too large to be read here."""
    if row_counts.count_tasks(files, source) is None:
        raise _NotKnownYet
