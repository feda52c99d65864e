"""Says, before anything runs, which items the target sets of orders have, and what they
have in common with the test sets.

Only data that are small enough to be read here are compared; of others the prepare job
tells the same.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.contract.folder import Workspace, is_committed
from jobs.contract.prepared import read_arrangement_meta
from jobs.preparing.source_files import SourceFiles
from launcher.grids.runs import Run
from launcher.planning.data_checks import Pool, open_pool
from zsg_core.data import data_look, readers, splits, target_sets
from zsg_core.data.data_look import TEST_TASKS, Places
from zsg_core.data.target_sets import BY_FILE, SharedItems, TargetSummary
from zsg_core.recipe import Recipe, list_sources, list_tested

# of what is tested, in a recipe: what changes what items ask
CHANGING = frozenset({"instruction_form", "instructions", "options"})


def describe_targets(workspace: Workspace, runs: Iterable[Run]) -> list[str]:
    """A line for each target set of the runs' orders, those of the stages before them
    too.

    Where an order is made, its own record is told; else what it will be is counted, if
    the data are small enough. Runs that differ in nothing that a target depends on give
    one line. UserError for a target that has no item, that names a task which is not
    there, or that has items of the test set which it may not have.
    """
    lines: dict[str, None] = {}
    for run in _list_looking(runs):
        rule: Recipe = run.stage["arrangement"]["target"]
        summary = _read_summary(workspace, run) or _summarize(run, rule)
        description = "is compared with the test set when the data are prepared"
        if summary is not None:
            description = summary.describe()
        lines[f"arrangement.target {name_rule(rule)}: {description}"] = None
    return list(lines)


def name_rule(rule: Recipe) -> str:
    """A target set's recipe, as people read it: what tells it from others.

    Of its files the beginning of their digest, as a path is no part of a recipe; a cap
    of null reads `all`.
    """
    shown = {
        key: value for key, value in rule.items() if key in ("by", "per_task", "tasks")
    }
    shown |= {key: rule[key] for key in ("seed", "digest") if rule.get(key)}
    if "digest" in shown:
        shown["digest"] = str(shown["digest"])[:12]
    written = json.dumps(shown, ensure_ascii=False)
    return written.replace('"', "").replace("null", "all")


def _list_looking(runs: Iterable[Run]) -> Iterator[Run]:
    """The stages whose orders look at a target set, each such set of data once.

    Orders that differ in all else, as nft and fft do, have one target where data and
    rule are the same.
    """
    seen: set[str] = set()
    for run in runs:
        for stage in [*run.all_before, run]:
            rule = stage.stage["arrangement"].get("target")
            key = json.dumps([stage.corpus_id, rule], sort_keys=True)
            if rule is not None and key not in seen:
                seen.add(key)
                yield stage


def _read_summary(workspace: Workspace, run: Run) -> TargetSummary | None:
    """What the made order tells of its target; None where none is made.

    Damaged for an order whose meta.json is none.
    """
    folder = workspace.arrangement(run.arrangement_id)
    if not is_committed(folder):
        return None
    meta = read_arrangement_meta(folder)
    return None if meta is None else meta.target


@dataclass(frozen=True)
class _Items:
    """Some of the examples of a file.

    `source`: the name of the source that they are of; empty where data are of one, and
    of a target in files of its own. `pool`: what the file holds; `positions` (N,): where
    in it the examples stand, from 0.
    """

    source: str
    pool: Pool
    positions: Places

    @property
    def tasks(self) -> list[str]:
        """The task of each (N), as a corpus calls it: with its source's name before it,
        where data are of several."""
        read = self.pool.read
        numbers: list[int] = read.task_of[self.positions].tolist()
        names = [read.tasks[number] for number in numbers]
        return [f"{self.source}/{name}" if self.source else name for name in names]

    def list_questions(self) -> Iterator[tuple[str, int, int]]:
        """The id of each in its file, and digests of what it asks and answers.

        The digests disregard case and blanks, and are those of zsg_core.data.data_look:
        two that are equal stand for equal texts.
        """
        read = self.pool.read
        numbers: list[int] = self.positions.tolist()
        for number in numbers:
            question, answer = int(read.asked[number]), int(read.answered[number])
            yield self.pool.questions[number].id, question, answer


def _summarize(run: Run, rule: Recipe) -> TargetSummary | None:
    """What a target will be, as a prepare job makes it; None where that is not known here.

    It is not where data are too large to be read by plan, and where test items are asked
    in another form than they are published in: then what they have in common with others
    is only known once they are made.
    """
    data = run.stage["data"]
    tested_rules = list_tested(data)
    if "max_turns" in data or any(
        CHANGING & tested.keys() for tested in tested_rules.values()
    ):
        return None
    tested: list[_Items] = []
    chosen: list[_Items] = []
    for name in tested_rules:
        source = _HeldOut.read(name, list_sources(data)[name], run.sources[name])
        if source is None:
            return None
        tested.append(source.list_tested())
        if rule["by"] != BY_FILE:
            chosen.append(source.choose(rule))
    if rule["by"] == BY_FILE:
        items = _choose_of_files(run.target, rule)
        if items is None:
            return None
        chosen.append(items)
    return _compare(rule, chosen, tested)


@dataclass(frozen=True)
class _HeldOut:
    """What a source holds out.

    `rule`: its part of the recipe of the data. `of_task`: of each held-out task, in their
    order, the places of its items in `pool`, which is the source's file of tests, or its
    data where part of these is held out. A listed task without items has none.
    """

    name: str
    rule: Recipe
    pool: Pool
    of_task: Mapping[str, Places]

    @classmethod
    def read(cls, name: str, rule: Recipe, files: SourceFiles) -> "_HeldOut | None":
        """What a source holds out, from its files; None where these are too large to be
        read here, or cannot be read."""
        is_apart = files.test is not None
        path = files.test or files.data
        pool = open_pool(path, rule["held_out"] if is_apart else rule, rule)
        if pool is None:
            return None
        if is_apart:
            return cls(name, rule, pool, pool.read.find_places())
        lists = readers.read_lists(rule["reader"], files.data)
        of_task = data_look.list_held_out_tasks(pool.read, rule, lists)
        return cls(name, rule, pool, of_task)

    @property
    def tested_tasks(self) -> list[str]:
        """The tasks that are tested: of those held out the first so many, or those that
        data.test_tasks names. UserError for a name that none has."""
        limit = self.rule["test"].get("tasks")
        return splits.limit_tasks(list(self.of_task), limit, TEST_TASKS)

    def list_tested(self) -> _Items:
        """The items that are tested, by the caps of the source's recipe, drawn as the
        prepare job draws them."""
        positions = data_look.take_held_out(self.of_task, self.rule)
        return _Items(self.name, self.pool, positions)

    def choose(self, rule: Recipe) -> _Items:
        """The items of a target that is taken of what is held out, none of them tested.

        `rule`: the target's recipe. UserError for a task that it names and that is not
        there.
        """
        held_out = {
            task: positions.tolist() for task, positions in self.of_task.items()
        }
        tested = self.list_tested().positions.tolist()
        positions = target_sets.choose_places(
            rule, held_out, self.tested_tasks, tested, self.name
        )
        return _Items(self.name, self.pool, np.array(positions, np.int64))


def _choose_of_files(path: Path | None, rule: Recipe) -> _Items | None:
    """The items of a target in files of its own; None where these are too large to be
    read here.

    `path`: where they lie; `rule`: the target's recipe, which says how they are read,
    too. UserError for a task that it names and that is not there.
    """
    assert path is not None, "a target in files has a path"
    pool = open_pool(path, rule, rule)
    if pool is None:
        return None
    of_task = pool.read.find_places()
    held_out = {task: positions.tolist() for task, positions in of_task.items()}
    positions = target_sets.choose_places(rule, held_out, (), ())
    return _Items("", pool, np.array(positions, np.int64))


def _compare(
    rule: Recipe, chosen: Sequence[_Items], tested: Sequence[_Items]
) -> TargetSummary:
    """The summary of a target: what it has in common with the test set.

    `chosen` are its items and `tested` those of the test set, both by source. UserError
    where it has no item, and where it has items of the test set that it may not have.
    """
    answers_by_question = _list_answers(tested)
    same_as: list[str | None] = []
    answered = 0
    for items in chosen:
        for example_id, question, answer in items.list_questions():
            answers = answers_by_question.get(question)
            same_as.append(None if answers is None else example_id)
            answered += answers is not None and answer in answers
    tasks = [task for items in chosen for task in items.tasks]
    tested_tasks = {task for items in tested for task in items.tasks}
    target_sets.refuse_empty(rule, len(tasks))
    shared = SharedItems(
        same_as=same_as, answered=answered, tasks=len(tested_tasks & set(tasks))
    )
    summary = target_sets.summarize_target(rule, tasks, shared)
    first = next(filter(None, same_as), "")
    summary.refuse_shared(f"; the first: {first}")
    return summary


def _list_answers(tested: Sequence[_Items]) -> dict[int, set[int]]:
    """What test items answer, by what they ask; both as digests. Items that ask the same
    and answer differently have several answers."""
    answers: dict[int, set[int]] = {}
    for items in tested:
        for _, question, answer in items.list_questions():
            answers.setdefault(question, set()).add(answer)
    return answers
