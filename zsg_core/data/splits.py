"""Chooses which examples are used: tasks held out, per-task caps, exact fractions, one
reference each.

Every choice is seeded by (seed, task), so adding a task to a data set never changes
another task's sample. Python's `random.Random(str)` seeds by SHA-512 and is the same on
every machine.
"""

import difflib
import hashlib
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any, TypeVar

from zsg_core.data.examples import Example
from zsg_core.errors import UserError
from zsg_core.shown_text import name_few

Item = TypeVar("Item")
# the first so many tasks, or those of some names or patterns; None: all
TaskLimit = int | Sequence[str] | None
_NUMBER = re.compile(r"task\d+_")
_WORD = re.compile(r"[A-Za-z0-9]+")


def hold_out(
    tasks: Sequence[str],
    method: str,
    count: int | None,
    seed: int,
    share: str | None = None,
) -> tuple[list[str], list[str]]:
    """The training and the held-out tasks, both in the order given.

    `seed`: `count` tasks drawn from all, or that exact `share` of them. `family`: one
    task drawn from every family of two or more, so that each held-out task has a
    sibling in training. UserError where nothing would be left, or nothing held out.
    """
    if share is not None:
        count = count_share(len(tasks), share)
        if not count:
            raise UserError(
                f"data.held_out: there is one task, {', '.join(tasks)}, and a share of the tasks"
                " leaves none to train on; hold out rows of it: {by: rows, share: …}"
            )
    rng = random.Random(f"held out by {method}:{seed}")
    if method == "seed":
        held_out = _draw_tasks(tasks, count, rng)
    else:
        held_out = _draw_siblings(tasks, rng)
    training = [task for task in tasks if task not in held_out]
    return training, [task for task in tasks if task in held_out]


def divide_tasks(
    tasks: Sequence[str],
    rule: Mapping[str, Any] | None,
    lists: Mapping[str, Sequence[str]] | None,
) -> tuple[list[str], list[str]]:
    """The tasks that may be trained on and those that are tested, by what a recipe says
    is held out; no test tasks without a rule, or where another file is tested.

    `lists`: those that lie beside the data. Of `by: rows` both are all tasks, as some
    rows of each are tested. UserError where nothing would be left, or nothing held out.
    """
    pool = list(lists["train"]) if lists else list(tasks)
    if rule is None:
        return pool, []
    method = rule["by"]
    if method == "path":
        return pool, []
    if method == "list":
        return pool, _take_test_list(lists)
    if method == "rows":
        return pool, pool
    if method == "names":
        both = [*pool, *_take_test_list(lists)] if lists else pool
        # a task that stands in both lists is one
        candidates = list(dict.fromkeys(both))
        return _hold_out_named(pool, candidates, rule["tasks"])
    return hold_out(pool, method, rule.get("tasks"), rule["seed"], rule.get("share"))


def _take_test_list(lists: Mapping[str, Sequence[str]] | None) -> list[str]:
    """The test tasks of the list beside the data. UserError where there is no list."""
    if not lists:
        raise UserError("there is no list of held-out tasks beside the data")
    return list(lists["test"])


def _hold_out_named(
    pool: Sequence[str], candidates: Sequence[str], patterns: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The tasks of the pool that are not named, and the candidates that are.

    UserError for a name that no candidate has, or where all of the pool are named.
    """
    held_out = find_named_tasks(candidates, patterns, "data.held_out.tasks")
    named = set(held_out)
    training = [task for task in pool if task not in named]
    if not training:
        raise UserError(
            f"data.held_out.tasks: names all of the {len(pool)} tasks, which leaves none to train"
            " on; hold out fewer, or rows of each: {share: 1/5}"
        )
    return training, held_out


def limit_tasks(tasks: Sequence[str], limit: TaskLimit, key: str) -> list[str]:
    """The tasks that a limit leaves, in their order: the first so many, or those that it
    names; None: all. UserError, by the setting's key, for a name that no task has."""
    if limit is None or isinstance(limit, int):
        return list(tasks[:limit])
    return find_named_tasks(tasks, limit, key)


def find_named_tasks(
    tasks: Sequence[str], patterns: Sequence[str], key: str
) -> list[str]:
    """The tasks that have one of these names, or match one as a pattern, in their order.

    UserError, by the setting's key, for a name that no task has.
    """
    named: set[str] = set()
    for pattern in patterns:
        matching = [task for task in tasks if is_named(task, pattern)]
        if not matching:
            raise UserError(_explain_unknown(tasks, pattern, key))
        named.update(matching)
    return [task for task in tasks if task in named]


def is_named(task: str, pattern: str) -> bool:
    """Whether a task has a name, or matches it as a pattern."""
    return task == pattern or fnmatchcase(task, pattern)


def _explain_unknown(tasks: Sequence[str], pattern: str, key: str) -> str:
    """Which tasks there are, where none has a name."""
    near = difflib.get_close_matches(pattern, tasks, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"{key}: no task is called {pattern!r}.{hint} There are {len(tasks)}:"
        f" {name_few(tasks)}"
    )


def hold_out_rows(
    places: Mapping[str, Sequence[int]], share: str, seed: int
) -> dict[str, list[int]]:
    """Of every task the places of the examples that are held out, in the order given.

    The exact `share` of a task's examples, rounded down, but at least one of two or
    more, drawn by (seed, task). UserError where no task has two examples.
    """
    held_out: dict[str, list[int]] = {}
    for task, of_task in places.items():
        rng = random.Random(f"held out by rows:{seed}:{task}")
        size = len(of_task)
        count = count_share(size, share)
        drawn = rng.sample(range(size), count)
        held_out[task] = [of_task[number] for number in sorted(drawn)]
    if not any(held_out.values()):
        raise UserError(
            "data.held_out: no task has two examples, of which one could be held out; set"
            " data.test_path"
        )
    return held_out


def count_share(count: int, share: str) -> int:
    """How many of so many are an exact share: rounded down, one at least, and never all."""
    if count < 2:
        return 0
    return min(count - 1, max(1, math.floor(Fraction(share) * count)))


def _draw_tasks(
    tasks: Sequence[str], count: int | None, rng: random.Random
) -> set[str]:
    if count is None or count >= len(tasks):
        raise UserError(
            f"data.held_out.tasks is {count}, but there are {len(tasks)} tasks; hold out fewer"
        )
    return set(rng.sample(list(tasks), count))


def _draw_siblings(tasks: Sequence[str], rng: random.Random) -> set[str]:
    families: dict[str, list[str]] = {}
    for task in tasks:
        families.setdefault(task_family(task), []).append(task)
    drawn = {
        rng.choice(siblings) for siblings in families.values() if len(siblings) > 1
    }
    if not drawn:
        raise UserError(
            "data.held_out: no two tasks are of one family; hold out by seed, or set"
            " data.test_path"
        )
    return drawn


def task_family(task: str) -> str:
    """What a task's name begins with, its number left out: `task002_quoref_…` and
    `quoref_What…` are of quoref."""
    first_word = _WORD.search(_NUMBER.sub("", task, count=1))
    return first_word[0].lower() if first_word else task


def choose_templates(
    tasks: Sequence[str], count: int | None, set_of: Callable[[str], str], seed: int
) -> list[str]:
    """The tasks, in their order, with at most `count` templates of every data set; None: all."""
    if count is None:
        return list(tasks)
    of_set: dict[str, list[str]] = {}
    for task in tasks:
        of_set.setdefault(set_of(task), []).append(task)
    chosen = {
        task
        for name, templates in of_set.items()
        for task in sample_nested(templates, count, seed, f"templates of {name}")
    }
    return [task for task in tasks if task in chosen]


def cap_items(
    items: Sequence[Item], limit: int | None, sampling: str, seed: int, task: str
) -> list[Item]:
    """At most `limit` items of one task: the first in file order, or a seeded sample in
    drawn order."""
    if limit is None or sampling != "random" or not len(items):
        return list(items[:limit])
    rng = random.Random(f"sample:{seed}:{task}")
    return rng.sample(list(items), min(limit, len(items)))


def sample_stratified(tasks: Sequence[str], count: int, seed: int) -> list[int]:
    """Places of `count` items, or of all if there are no more, every task having its share of them.

    The items stand task after task, a task's in drawn order, and every N/count-th is
    taken: so a task of n items has ⌊n·count/N⌋ or one more.
    """
    of_task: dict[str, list[int]] = {}
    for position, task in enumerate(tasks):
        of_task.setdefault(task, []).append(position)
    stand = [
        p
        for task, positions in of_task.items()
        for p in cap_items(positions, len(positions), "random", seed, task)
    ]
    count = min(count, len(stand))
    return sorted(stand[number * len(stand) // count] for number in range(count))


def choose_answer(example: Example, seed: int) -> Example:
    """The example with one reference drawn as its answer (science: the label is a
    random reference)."""
    if len(example.references) < 2:
        return example
    rng = random.Random(f"answer:{seed}:{example.id}")
    return example.answering(rng.choice(example.references))


def sample_nested(
    items: Sequence[Item], count: int, seed: int, name: str = ""
) -> list[Item]:
    """`count` of the items, a seeded sample in their own order; a smaller one is part
    of every larger one.

    So the points of a sweep over shares differ by what is added and by nothing else.
    """
    if count >= len(items):
        return list(items)
    order = list(range(len(items)))
    random.Random(f"nested:{seed}:{name}").shuffle(order)
    return [items[i] for i in sorted(order[:count])]


def draw_share(share: Fraction, text: str) -> bool:
    """Whether what a text names is among a share, drawn by the text alone: a smaller
    share is part of every larger one."""
    number = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    return number < share * (1 << 256)


def find_overlap(
    train: Iterable[Example], test: Iterable[Example]
) -> list[tuple[str, str, bool]]:
    """(test id, training id, whether the answer is the same too) wherever a test prompt
    is a training prompt.

    Prompts are the definition and what the user says, or a raw text, without regard to
    case and to blanks. Of several training examples the first counts, one with the same answer
    before others.
    """
    tested_by_prompt: dict[str, list[Example]] = {}
    for example in test:
        tested_by_prompt.setdefault(write_asked(example), []).append(example)
    overlaps: dict[str, tuple[str, str, bool]] = {}
    for example in train:
        for tested in tested_by_prompt.get(write_asked(example), ()):
            same = simplify_text(tested.answer) == simplify_text(example.answer)
            if tested.id not in overlaps or (same and not overlaps[tested.id][2]):
                overlaps[tested.id] = tested.id, example.id, same
    return list(overlaps.values())


def write_asked(example: Example) -> str:
    """What two examples have in common that ask the same; of a raw text the text."""
    if example.is_text:
        return simplify_text(example.answer)
    return "\n".join(
        [
            simplify_text(example.definition),
            *(simplify_text(question) for question, _ in example.turns),
        ]
    )


def simplify_text(text: str) -> str:
    """A text without regard to case and to blanks."""
    return " ".join(text.lower().split())
