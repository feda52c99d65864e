"""Says, before anything runs, which items the target sets of orders have, and what they
have in common with the test sets and with what is trained on.

Only data that are small enough to be read here are compared; of others the prepare job
tells the same, but for the test sets of a run's other stages: an order is made once for
all runs that share its data, whatever their other stages are, so only plan knows them.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from jobs.contract.folder import Workspace, is_committed
from jobs.contract.prepared import read_arrangement_meta
from jobs.preparing.source_files import SourceFiles
from launcher.grids.runs import Run
from launcher.planning.data_checks import Pool, open_pool
from zsg_core.data import data_look, readers, splits, target_sets
from zsg_core.data.data_look import TEST_TASKS, Places
from zsg_core.data.target_sets import (
    BY_FILE,
    KEEP,
    REFUSE,
    SharedItems,
    TargetSummary,
)
from zsg_core.errors import UserError
from zsg_core.recipe import Recipe, is_made, list_sources, list_tested

# of a split, in a recipe: what changes what items ask
CHANGING = frozenset({"instruction_form", "instructions", "options"})


def describe_targets(workspace: Workspace, runs: Iterable[Run]) -> list[str]:
    """A line for each target set of the runs' orders, those of the stages before them
    too.

    Where an order is made, its own record is told; else what it will be is counted, if
    the data are small enough. Runs that differ in nothing that a target depends on give
    one line. UserError for a target that has no item, that names a task which is not
    there, or that has items of a test set, or of what is trained on, which it may not
    have.
    """
    lines: dict[str, None] = {}
    for looking in _list_looking(runs):
        rule = looking.rule
        description = _describe_own(workspace, looking.stage, rule)
        elsewhere = _describe_elsewhere(looking)
        line = f"arrangement.target {name_rule(rule)}: {description}{elsewhere}"
        lines[line] = None
    return list(lines)


def _describe_own(workspace: Workspace, stage: Run, rule: Recipe) -> str:
    """A target in words, beside the data of its own stage."""
    summary = _read_summary(workspace, stage)
    if summary is not None:
        return summary.describe()
    summary = _summarize(stage, rule)
    if summary is None:
        return "is compared with the test set when the data are prepared"
    if summary.trained is None:
        return (
            f"{summary.describe()}; how many are trained on is counted when the data are"
            " prepared"
        )
    return summary.describe()


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


@dataclass(frozen=True)
class _Looking:
    """A stage whose order looks at a target set, and the other stages of its run."""

    stage: Run
    others: Sequence[Run]

    @property
    def rule(self) -> Recipe:
        """The target's recipe."""
        rule: Recipe = self.stage.stage["arrangement"]["target"]
        return rule

    @property
    def key(self) -> str:
        """What tells it from others: orders that differ in all else, as nft and fft do,
        have one target where data and rule are the same."""
        corpora = [stage.corpus_id for stage in self.others]
        return json.dumps([self.stage.corpus_id, self.rule, corpora], sort_keys=True)


def _list_looking(runs: Iterable[Run]) -> Iterator[_Looking]:
    """The stages whose orders look at a target set, each such set of data once, beside
    other stages of other data."""
    seen: set[str] = set()
    for run in runs:
        stages = [*run.all_before, run]
        for stage in stages:
            if "target" not in stage.stage["arrangement"]:
                continue
            further = {
                candidate.corpus_id: candidate
                for candidate in stages
                if candidate.corpus_id != stage.corpus_id
            }
            looking = _Looking(stage, list(further.values()))
            if looking.key not in seen:
                seen.add(looking.key)
                yield looking


def _describe_elsewhere(looking: _Looking) -> str:
    """What a target has in common with the test sets of the run's other stages, in
    words; nothing where there are none. UserError where its rule refuses that.

    An order is known by the data of its own stage, so it cannot leave such items out.
    """
    if not looking.others:
        return ""
    leaks = _find_leaks_elsewhere(looking)
    if leaks is None:
        return (
            "; whether the run's other stages test some of its items is not known, as"
            " their data are too large to be read here, or are asked in another form"
        )
    if not leaks:
        return "; none asks what a test item of the run's other stages asks"
    finding = (
        f"{len(leaks):,} of its items ask what test items of the run's other stages ask"
    )
    if looking.rule["overlap"] == REFUSE:
        raise UserError(
            f"arrangement.target: {finding}; the first: {leaks[0]}. Give it other items, or let"
            " them be told only (overlap: drop or keep)"
        )
    return (
        f"; {finding}, which is a leak: an order is made of its own stage's data, and looks at"
        " them all the same"
    )


def _find_leaks_elsewhere(looking: _Looking) -> list[str] | None:
    """The items that an order looks at though other stages of its run test them, by
    their ids; None where some of these data are not known here."""
    tested: list[_Items] = []
    for stage in looking.others:
        of_stage = _list_tested(stage)
        if of_stage is None:
            return None
        tested += of_stage
    own_tests = _list_tested(looking.stage)
    chosen = _choose(looking.stage, looking.rule)
    if own_tests is None or chosen is None:
        return None
    shared = _find_shared(looking.rule, chosen, tested)
    shared_here = _find_shared(looking.rule, chosen, own_tests)
    is_left_out = target_sets.mark_left_out(looking.rule, shared_here, None)
    pairs = zip(shared.same_as, is_left_out, strict=True)
    return [twin for twin, is_out in pairs if twin is not None and not is_out]


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
    in it the examples stand, from 0. `has_ids`: whether their ids are the data's own.
    """

    source: str
    pool: Pool
    positions: Places
    has_ids: bool

    @property
    def tasks(self) -> list[str]:
        """The task of each (N), as a corpus calls it."""
        read = self.pool.read
        numbers: list[int] = read.task_of[self.positions].tolist()
        return [self._name_task(read.tasks[number]) for number in numbers]

    def list_tasks(self) -> set[str]:
        """The different tasks that they are of."""
        counts = self.pool.read.count_tasks(self.positions)
        return {self._name_task(task) for task in counts}

    def _name_task(self, task: str) -> str:
        """A task as a corpus calls it: with its source's name before it, where data are
        of several."""
        return f"{self.source}/{task}" if self.source else task

    def list_own_ids(self) -> set[str]:
        """Their ids, where these are the data's own; none else."""
        if not self.has_ids:
            return set()
        numbers: list[int] = self.positions.tolist()
        return {self.pool.questions[number].id for number in numbers}

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


def _summarize(stage: Run, rule: Recipe) -> TargetSummary | None:
    """What a target will be, as a prepare job makes it; None where that is not known
    here. UserError where it has no item, and where it has items that it may not have.

    It is not known where data are too large to be read by plan, and where test items are
    asked in another form than they are published in: then what they have in common with
    others is only known once they are made. The same holds of what is trained on.
    """
    tested = _list_tested(stage)
    chosen = None if tested is None else _choose(stage, rule)
    if tested is None or chosen is None:
        return None
    tasks = [task for items in chosen for task in items.tasks]
    target_sets.refuse_empty(rule, len(tasks))
    shared = _find_shared(rule, chosen, tested)
    of_training = _list_trained(stage)
    trained = None
    if of_training is not None:
        trained = _find_shared(rule, chosen, of_training)
    summary = target_sets.summarize_target(rule, tasks, shared, trained)
    summary.refuse_shared(_name_first(shared))
    if trained is None:
        return summary if summary.train_overlap == KEEP else None
    summary.refuse_trained(_name_first(trained))
    return summary


def _list_tested(stage: Run) -> list[_Items] | None:
    """The test items of a stage, by source; None where they are not known here."""
    data = stage.stage["data"]
    tested_rules = list_tested(data)
    if "max_turns" in data:
        return None
    if any(CHANGING & tested.keys() for tested in tested_rules.values()):
        return None
    tested: list[_Items] = []
    for name in tested_rules:
        source = _HeldOut.read(name, list_sources(data)[name], stage.sources[name])
        if source is None:
            return None
        tested.append(source.list_tested())
    return tested


def _choose(stage: Run, rule: Recipe) -> list[_Items] | None:
    """The items that a target takes, by source; None where they are not known here.
    UserError for a task that it names and that is not there."""
    data = stage.stage["data"]
    if rule["by"] == BY_FILE:
        items = _choose_of_files(stage.target, rule)
        return None if items is None else [items]
    chosen: list[_Items] = []
    for name in list_tested(data):
        source = _HeldOut.read(name, list_sources(data)[name], stage.sources[name])
        if source is None:
            return None
        chosen.append(source.choose(rule))
    return chosen


def _list_trained(stage: Run) -> list[_Items] | None:
    """The training examples of a stage, by source; None where only a prepare job knows
    which these are, or what they ask."""
    data = stage.stage["data"]
    if "mix" in data or "max_turns" in data:
        return None
    trained: list[_Items] = []
    for name, rule in list_sources(data).items():
        if is_made(rule) or CHANGING & rule["train"].keys():
            return None
        files = stage.sources[name]
        pool = open_pool(files.data, rule, rule)
        if pool is None:
            return None
        lists = readers.read_lists(rule["reader"], files.data)
        split = data_look.split_examples(pool.read, rule, lists)
        if split.is_bound:
            return None
        trained.append(_Items(name, pool, split.train, _has_ids(rule)))
    return trained


def _has_ids(rule: Recipe) -> bool:
    """Whether data have ids of their own, by how they are read."""
    return "id" in rule.get("fields", {})


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
    has_ids: bool

    @classmethod
    def read(cls, name: str, rule: Recipe, files: SourceFiles) -> "_HeldOut | None":
        """What a source holds out, from its files; None where these are too large to be
        read here, or cannot be read."""
        is_apart = files.test is not None
        path = files.test or files.data
        reading = rule["held_out"] if is_apart else rule
        pool = open_pool(path, reading, rule)
        if pool is None:
            return None
        if is_apart:
            return cls(name, rule, pool, pool.read.find_places(), _has_ids(reading))
        lists = readers.read_lists(rule["reader"], files.data)
        of_task = data_look.list_held_out_tasks(pool.read, rule, lists)
        return cls(name, rule, pool, of_task, _has_ids(reading))

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
        return _Items(self.name, self.pool, positions, self.has_ids)

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
        places = np.array(positions, np.int64)
        return _Items(self.name, self.pool, places, self.has_ids)


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
    return _Items("", pool, np.array(positions, np.int64), _has_ids(rule))


def _find_shared(
    rule: Recipe, chosen: Sequence[_Items], compared: Sequence[_Items]
) -> SharedItems:
    """What the items of a target have in common with others, both by source: what they
    ask, and, of a target in files, ids of the data's own. In place of the id of another
    stands the item's own."""
    answers_by_question = _list_answers(compared, _list_asked(chosen))
    own_ids = _list_own_ids(compared) if _has_ids(rule) else frozenset[str]()
    same_as: list[str | None] = []
    answered = 0
    for example_id, question, answer in _list_all_questions(chosen):
        answers = answers_by_question.get(question, set())
        is_shared = bool(answers) or example_id in own_ids
        same_as.append(example_id if is_shared else None)
        answered += answer in answers
    tasks = _list_tasks(chosen) & _list_tasks(compared)
    return SharedItems(same_as=same_as, answered=answered, tasks=len(tasks))


def _list_tasks(parts: Iterable[_Items]) -> set[str]:
    """The different tasks of items of several sources."""
    return set(chain.from_iterable(items.list_tasks() for items in parts))


def _list_asked(parts: Iterable[_Items]) -> set[int]:
    """What items of several sources ask, as digests."""
    return {question for _, question, _ in _list_all_questions(parts)}


def _list_own_ids(parts: Iterable[_Items]) -> frozenset[str]:
    """The ids of items of several sources, where these are the data's own."""
    return frozenset(chain.from_iterable(items.list_own_ids() for items in parts))


def _list_all_questions(parts: Iterable[_Items]) -> Iterator[tuple[str, int, int]]:
    """Id, question and answer of each item of several sources, as `list_questions`."""
    return chain.from_iterable(items.list_questions() for items in parts)


def _name_first(shared: SharedItems) -> str:
    """The first item that the others have, too, in words."""
    return f"; the first: {next(filter(None, shared.same_as), '')}"


def _list_answers(
    compared: Sequence[_Items], questions: Collection[int]
) -> dict[int, set[int]]:
    """What some items answer, by what they ask, as far as that is wanted; both as
    digests. Items that ask the same and answer differently have several answers."""
    answers: dict[int, set[int]] = {}
    for _, question, answer in _list_all_questions(compared):
        if question in questions:
            answers.setdefault(question, set()).add(answer)
    return answers
