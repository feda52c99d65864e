"""Refuses what data cannot give, before anybody waits for a prepare job: tasks by names
that none has, tasks with too few examples to stand before another.

Only data that are small enough to be counted here are read; of others the prepare job
tells the same.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jobs.preparing.source_files import SourceFiles
from launcher.grids.runs import Run
from launcher.planning import row_counts
from zsg_core.data import data_look, few_shot, readers, splits
from zsg_core.data.data_look import Places, ReadExamples
from zsg_core.data.examples import Example
from zsg_core.data.few_shot import FewShotRule
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError
from zsg_core.recipe import MAKE, Recipe, list_sources

# of a source's recipe: what leaves out shots in a way that only its records tell
BY_RECORDS = ("keep_tags", "drop_tags")


def refuse_unknown_tasks(runs: Iterable[Run]) -> None:
    """UserError for tasks by names that the data have not, and for more tasks held out
    than there are."""
    seen: set[str] = set()
    for run in _list_stages(runs):
        for name, rule in list_sources(run.stage["data"]).items():
            key = json.dumps([run.corpus_id, name])
            if key in seen:
                continue
            seen.add(key)
            files = run.sources[name]
            try:
                _check_names(files, rule)
            except UserError as error:
                source = f"source {name}: " if name else ""
                raise UserError(f"{source}{files.data}: {error}") from None


def _list_stages(runs: Iterable[Run]) -> Iterator[Run]:
    """The runs, and those that they start from."""
    for run in runs:
        yield from run.all_before
        yield run


def _check_names(files: SourceFiles, rule: Recipe) -> None:
    """UserError for a name that no task of a source has. Data that are too large to be
    counted here, and have no list beside them, pass."""
    if not _names_tasks(rule):
        return
    held_out = rule.get("held_out")
    lists = readers.read_lists(rule["reader"], files.data)
    counts = None if lists else row_counts.count_tasks(files, rule)
    if lists is None and counts is None:
        return
    train, test = splits.divide_tasks(list(counts or ()), held_out, lists)
    if rule["train"].get("k") != "0":
        limit = rule["train"].get("tasks")
        splits.limit_tasks(train, limit, data_look.TRAIN_TASKS)
    if "test" not in rule:
        return
    if files.test is not None:
        tested = row_counts.count_tested_tasks(files, rule)
        if tested is None:
            return
        test = list(tested)
    splits.limit_tasks(test, rule["test"].get("tasks"), data_look.TEST_TASKS)


def _names_tasks(rule: Recipe) -> bool:
    """Whether it depends on a source's tasks what is held out, or taken of them."""
    held_out = rule.get("held_out")
    if held_out is not None and held_out["by"] in ("seed", "family", "names"):
        return True
    limits = [rule[split].get("tasks") for split in ("train", "test") if split in rule]
    return any(isinstance(limit, list) for limit in limits)


@dataclass(frozen=True)
class _Questions:
    """What an example asks, by digests: `own` is all, `shown` what it would ask as a
    shot, None where it is none."""

    id: str
    own: frozenset[bytes]
    shown: bytes | None


@dataclass(frozen=True)
class Pool:
    """The examples of a file: their tasks, and what each asks."""

    read: ReadExamples
    questions: Sequence[_Questions]


def refuse_idle_tags(runs: Iterable[Run]) -> None:
    """UserError for `keep_tags` or `drop_tags` of a source none of whose examples has a
    tag: it would choose nothing, and nobody would be told."""
    seen: set[str] = set()
    for run in _list_stages(runs):
        for name, rule in list_sources(run.stage["data"]).items():
            key = json.dumps([name, rule["digest"], rule.get("fields")])
            tag_key = _find_tag_key(rule, run.sources[name])
            if tag_key is None or key in seen:
                continue
            seen.add(key)
            if _lacks_tags(run.sources[name], rule):
                source = f"source {name}: " if name else ""
                raise UserError(
                    f"{source}{run.sources[name].data}: {tag_key} looks for tags, and no example"
                    " has any; name their column (fields.tags), give a file of them (tags), or"
                    " have a model make them (make.instag)"
                )


def _find_tag_key(rule: Recipe, files: SourceFiles) -> str | None:
    """The setting by which a source's own rows are chosen by their tags; None where
    there is none, or where tags come from elsewhere: a maker may make them, and a file
    of them is read for what it says."""
    if MAKE in rule or files.tags:
        return None
    given = [key for key in BY_RECORDS if key in rule["train"]]
    return given[0] if given else None


def _lacks_tags(files: SourceFiles, rule: Recipe) -> bool:
    """Whether no example of a source has a tag; of data that are too large to be read
    here it is not known, and they pass."""
    examples = row_counts.read_few(files, rule)
    return examples is not None and not any(example.tags for example in examples)


def refuse_few_examples(runs: Iterable[Run]) -> None:
    """UserError for a task with fewer examples than data.few_shot.k puts before one of
    its others."""
    seen: set[str] = set()
    for run in _list_stages(runs):
        if run.corpus_id in seen:
            continue
        seen.add(run.corpus_id)
        sources = list_sources(run.stage["data"])
        if any("few_shot" in rule["train"] for rule in sources.values()):
            is_mixed = "mix" in run.stage["data"]
            _check_shots(sources, run.sources, is_mixed=is_mixed)


def _check_shots(
    sources: Mapping[str, Recipe], files: Mapping[str, SourceFiles], *, is_mixed: bool
) -> None:
    """UserError for a source one of whose tasks has too few examples to show."""
    tested: set[bytes] = set()
    pools: dict[str, Pool] = {}
    for name, rule in sources.items():
        pool = open_pool(files[name].data, rule, rule)
        questions = _list_tested(files[name], rule, pool)
        if pool is None or questions is None:
            return
        pools[name] = pool
        tested |= questions
    for name, rule in sources.items():
        if "few_shot" not in rule["train"] or "self_sample" in rule:
            continue
        if any(key in rule["train"] for key in BY_RECORDS):
            continue
        reason = _explain_short(name, rule, files[name], pools[name], tested, is_mixed)
        if reason is not None:
            raise UserError(f"{files[name].data}: {reason}")


def open_pool(path: Path, read: Recipe, source: Recipe) -> Pool | None:
    """What the examples of a file ask; None where it is too large to be read here, or
    cannot be. `read`: how it is read, by the keys reader, digest and fields."""
    skips = source.get("on_bad_row") == "skip"
    if row_counts.count_file(path, read, skips) is None:
        return None
    fields = json.dumps(read.get("fields"))
    return _read_pool(path, read["reader"], str(read["digest"]), fields, skips)


@lru_cache(maxsize=16)
def _read_pool(path: Path, reader: str, digest: str, fields: str, skips: bool) -> Pool:
    """The same, read once for all runs of these data. `digest`: by which they are the
    same."""
    del digest
    columns = json.loads(fields)
    questions: list[_Questions] = []

    def look_at_each() -> Iterator[Example]:
        """The examples, none of which is kept: of many, texts are most of the memory."""
        for example in readers.read_examples(reader, path, Intake(skips), columns):
            questions.append(_look_at(example))
            yield example

    read = data_look.read_facts(look_at_each())
    return Pool(read, questions)


def _look_at(example: Example) -> _Questions:
    """What an example asks."""
    digests = frozenset(few_shot.list_questions(example))
    if example.is_text:
        digests = frozenset[bytes]()
    return _Questions(example.id, digests, few_shot.find_question(example))


def _list_tested(
    files: SourceFiles, rule: Recipe, pool: Pool | None
) -> set[bytes] | None:
    """What all held-out examples of a source ask; None where they cannot be read here."""
    if pool is None:
        return None
    if files.test is not None:
        test_pool = open_pool(files.test, rule["held_out"], rule)
        if test_pool is None:
            return None
        return {digest for entry in test_pool.questions for digest in entry.own}
    lists = readers.read_lists(rule["reader"], files.data)
    held_out = data_look.list_held_out(pool.read, rule, lists)
    questions: set[bytes] = set()
    numbers: list[int] = held_out.tolist()
    for number in numbers:
        questions |= pool.questions[number].own
    return questions


def _explain_short(
    name: str,
    rule: Recipe,
    files: SourceFiles,
    pool: Pool,
    tested: set[bytes],
    is_mixed: bool,
) -> str | None:
    """Which task of a source has too few examples to show, and why; None where none has.

    Where only a part of the examples is trained on, nobody knows yet which: then a source
    is refused only if each of them lacks shots.
    """
    shots = FewShotRule.from_recipe(rule["train"]["few_shot"])
    lists = readers.read_lists(rule["reader"], files.data)
    split = data_look.split_examples(pool.read, rule, lists)
    of_task = data_look.list_trainable(pool.read, rule, lists)
    usable = {
        task: _list_usable(pool, places, tested) for task, places in of_task.items()
    }
    available = _count_available(pool, split.train, shots, usable)
    short = [(task, count) for task, count in available if count < shots.k]
    is_part = split.is_bound or is_mixed
    if not short or (is_part and len(short) < len(available)):
        return None
    task, count = short[0]
    full_name = f"{name}/{task}" if name else task
    return few_shot.explain_short(full_name, len(of_task[task]), count, shots.k)


def _count_available(
    pool: Pool,
    trained: Places,
    shots: FewShotRule,
    usable: Mapping[str, Collection[bytes]],
) -> list[tuple[str, int]]:
    """For each example trained on that is to be shown others: its task, and how many
    questions of the task it may be shown.

    `usable`: the different questions that may be shown, by task. Texts are shown none.
    """
    available: list[tuple[str, int]] = []
    numbers: list[int] = trained.tolist()
    for number in numbers:
        entry = pool.questions[number]
        is_text = not entry.own and entry.shown is None
        if is_text or not shots.is_shown_any(entry.id):
            continue
        task = pool.read.tasks[int(pool.read.task_of[number])]
        available.append((task, _count_others(usable[task], entry.own)))
    return available


def _count_others(usable: Collection[bytes], own: Iterable[bytes]) -> int:
    """How many of some different questions are none of an example's own.

    The few are looked for among the many: a set without them would be a copy of all for
    each example.
    """
    asked = sum(1 for question in own if question in usable)
    return len(usable) - asked


def _list_usable(pool: Pool, places: Places, tested: set[bytes]) -> set[bytes]:
    """The different questions of some examples that may be shown."""
    questions: set[bytes] = set()
    numbers: list[int] = places.tolist()
    for number in numbers:
        question = pool.questions[number].shown
        if question is not None and question not in tested:
            questions.add(question)
    return questions
