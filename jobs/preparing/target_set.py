"""Makes the target set of an order: the items to which it measures similarity in place
of the test set.

Test items are read in one function here, `_compare`, which finds what both sets have in
common before anything is ordered. Training examples are gone through in the same way. All
that an order is given are the items of the target.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jobs.contract.folder import Workspace
from jobs.preparing.corpus import Corpus, Part, Selection, part_of
from jobs.preparing.records import Records
from jobs.preparing.source_dataset import read_records
from zsg_core.data import splits, target_sets
from zsg_core.data.data_look import TEST_TASKS
from zsg_core.data.target_sets import BY_FILE, SharedItems, TargetSummary
from zsg_core.digest import digest_ids
from zsg_core.errors import UserError
from zsg_core.recipe import Recipe, list_tested

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetSet:
    """The items that an order looks at, and what there is to know of them.

    `items` are in the order in which they were chosen: source after source, task after
    task.
    """

    items: Selection
    summary: TargetSummary


def make_target(
    workspace: Workspace, corpus: Corpus, rule: Recipe, files: Mapping[str, str]
) -> TargetSet:
    """The target set of a recipe. `files`: where those of targets lie, by digest.

    UserError for data that cannot be read or leave nothing, and where the set has in
    common with the test set or the training examples what it may not.
    """
    chosen = _choose_items(workspace, corpus, rule, files)
    target_sets.refuse_empty(rule, len(chosen))
    shared = _compare(chosen, corpus.test, _list_own_ids(corpus, "test", rule))
    own_ids = _list_own_ids(corpus, "train", rule)
    trained = target_sets.find_shared(chosen, corpus.train, own_ids)
    summary = target_sets.summarize_target(rule, chosen.tasks, shared, trained)
    summary.refuse_shared(_name_first(chosen, shared))
    summary.refuse_trained(_name_first(chosen, trained))
    is_left_out = target_sets.mark_left_out(rule, shared, trained)
    if any(is_left_out):
        chosen = _leave_out(chosen, is_left_out)
    summary = replace(summary, ids_digest=digest_ids(chosen.ids))
    logger.info(f"target set: {summary.describe()}")
    return TargetSet(chosen, summary)


def _choose_items(
    workspace: Workspace, corpus: Corpus, rule: Recipe, files: Mapping[str, str]
) -> Selection:
    """The items that the rule takes, by places alone: no text is read.

    UserError for files that have changed or cannot be read, and for a task that the rule
    names and that is not there.
    """
    if rule["by"] == BY_FILE:
        parts = [_open_files(workspace, rule, files)]
    else:
        parts = [
            _choose_of_source(corpus, name, rule) for name in list_tested(corpus.recipe)
        ]
    return Selection(
        [part for part in parts if len(part.places)], corpus.recipe.get("max_turns")
    )


def _open_files(workspace: Workspace, rule: Recipe, files: Mapping[str, str]) -> Part:
    """The items of a target in files of its own.

    They are read once into records, as data are, and known by the digest of their
    content. Of several right answers one is drawn by the target's seed.
    """
    path = files.get(rule["digest"])
    if path is None:
        raise UserError(
            "this job does not say where the files of its target lie; zsg submit again"
        )
    made_id = read_records(workspace, rule, Path(path), skip=False)
    records = Records(workspace.records(made_id))
    of_task = {task: positions.tolist() for task, positions in records.places().items()}
    positions = target_sets.choose_places(rule, of_task, (), ())
    labels_drawn_by: Recipe = {"sampling": "random", "seed": rule.get("seed", 0)}
    return part_of("", records, np.array(positions, np.int64), labels_drawn_by, ())


def _choose_of_source(corpus: Corpus, name: str, rule: Recipe) -> Part:
    """The items of a source's held-out examples, presented as its test items are.

    Which of them are tested is read off the corpus, as places; a source of which nothing
    is left gives a part of no items.
    """
    test_rule = list_tested(corpus.recipe)[name]
    held_out = corpus.list_held_out(name)
    tested_tasks = splits.limit_tasks(
        list(held_out), test_rule.get("tasks"), TEST_TASKS
    )
    tested = [part for part in corpus.test.parts if part.source == name]
    positions = target_sets.choose_places(
        rule,
        held_out,
        tested_tasks,
        [place for part in tested for place in part.places.tolist()],
        name,
    )
    return corpus.open_test_part(name, np.array(positions, np.int64))


def _list_own_ids(corpus: Corpus, split: str, rule: Recipe) -> set[str]:
    """The ids of a split's examples, `train` or `test`, where these and the target have
    ids of the data's own: then two items with one id are one."""
    if "id" not in rule.get("fields", {}):
        return set()
    ids: set[str] = set()
    selection = corpus.train if split == "train" else corpus.test
    for part in selection.parts:
        if "id" in corpus.find_columns(part.source, split):
            ids.update(part.records.texts("id", part.places))
    return ids


def _compare(target: Selection, test: Selection, own_ids: set[str]) -> SharedItems:
    """What the two have in common: the one place where test items are read."""
    return target_sets.find_shared(target, test, own_ids)


def _name_first(chosen: Selection, shared: SharedItems) -> str:
    """The first item that the others have, too, and which of these it is, by their ids;
    an empty text where they have none of them."""
    for example_id, twin in zip(chosen.ids, shared.same_as, strict=True):
        if twin is not None:
            return f"; the first: {example_id} is {twin}"
    return ""


def _leave_out(chosen: Selection, is_left_out: Sequence[bool]) -> Selection:
    """The items but those that are left out. `is_left_out` (N) is of each item, in their
    order; a source that loses all of them is gone."""
    is_kept = ~np.array(is_left_out, bool)
    smaller: list[Part] = []
    start = 0
    for part in chosen.parts:
        end = start + len(part.places)
        positions = part.places[is_kept[start:end]]
        start = end
        if len(positions):
            smaller.append(replace(part, places=positions))
    return Selection(smaller, chosen.max_turns)
