"""Looks at the examples of a data set before anything is made of them: how many each
task has, which ask the same, which of the tested stand among the trained.

Of each example a few numbers are kept and no text, so that a set of millions fits the
memory: 32 bytes for each.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsg_core.data import splits
from zsg_core.data.examples import Example

Places = NDArray[np.int64]
DIGEST_BYTES = 8
TRAIN_TASKS, TEST_TASKS = "data.train_tasks", "data.test_tasks"
# of a source's recipe: what leaves out more of its training examples than is seen here
THINNING = frozenset(
    {"count", "data_sets", "drop_tags", "k", "keep_tags", "ratio", "templates"}
)


@dataclass(frozen=True, kw_only=True)
class ReadExamples:
    """What is kept of N examples, in the order in which they were read.

    `tasks` are names; `task_of` (N,) are numbers of them. `asked` and `answered` (N,)
    are digests of what is asked and answered, without regard to case and blanks; of a
    raw text nothing is asked, and both are of the text. `blank` (N,): whether an answer
    is empty, or a question that should not be. `characters` (N,): of all texts.
    """

    tasks: list[str]
    task_of: NDArray[np.int32]
    asked: NDArray[np.uint64]
    answered: NDArray[np.uint64]
    blank: NDArray[np.bool_]
    characters: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.task_of)

    def find_places(self) -> dict[str, Places]:
        """Where the examples of each task stand."""
        order = np.argsort(self.task_of, kind="stable")
        bounds = np.searchsorted(self.task_of[order], range(len(self.tasks) + 1))
        of_task: dict[str, Places] = {}
        for number, task in enumerate(self.tasks):
            of_task[task] = order[bounds[number] : bounds[number + 1]]
        return of_task

    def count_tasks(self, places: Places) -> dict[str, int]:
        """How many of some examples are of each task; tasks without any are left out."""
        counts = np.bincount(self.task_of[places], minlength=len(self.tasks))
        by_name: dict[str, int] = {}
        for task, count in zip(self.tasks, counts.tolist(), strict=True):
            if count:
                by_name[task] = count
        return by_name


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which examples are trained on and which are tested, by their places. `is_bound`:
    whether fewer are trained on than stand here, by what only a prepare job applies."""

    train: Places
    test: Places
    is_bound: bool = False


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """How many examples ask what an earlier one asks; how many of these answer the same,
    too; and how many questions have more than one answer."""

    asked: int
    whole: int
    answered_otherwise: int


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How many tested examples ask what a trained one asks, and for how many of these
    one of the trained has the same answer."""

    asked: int
    whole: int


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How long texts are: the shortest, the middle one, their mean, the length that 19
    of 20 have at most, and the longest."""

    count: int
    shortest: int
    median: float
    mean: float
    most: float
    longest: int


def read_facts(examples: Iterable[Example]) -> ReadExamples:
    """What is kept of examples, which are gone through once."""
    numbers: dict[str, int] = {}
    task_of = array("i")
    question_digests = array("Q")
    answer_digests = array("Q")
    blank = array("b")
    characters = array("q")
    for example in examples:
        number = numbers.setdefault(example.task, len(numbers))
        task_of.append(number)
        question_digests.append(_digest(splits.write_asked(example)))
        answer_digests.append(_digest(splits.simplify_text(example.answer)))
        blank.append(is_blank(example))
        characters.append(count_characters(example))
    return ReadExamples(
        tasks=list(numbers),
        task_of=np.array(task_of, np.int32),
        asked=np.array(question_digests, np.uint64),
        answered=np.array(answer_digests, np.uint64),
        blank=np.array(blank, np.bool_),
        characters=np.array(characters, np.int64),
    )


def _digest(text: str) -> int:
    written = text.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(written, digest_size=DIGEST_BYTES).digest()
    return int.from_bytes(digest, "little")


def is_blank(example: Example) -> bool:
    """Whether an answer of an example is empty, or a question of one that asks any."""
    for question, answer in example.turns:
        if not answer.strip():
            return True
        if not question.strip() and not example.is_text and not example.definition:
            return True
    return False


def count_characters(example: Example) -> int:
    """The characters of all that an example says, without those of a template."""
    total = len(example.system) + len(example.definition)
    for question, answer in example.turns:
        total += len(question) + len(answer)
    return total


def split_examples(
    read: ReadExamples,
    source: Mapping[str, Any],
    lists: Mapping[str, Sequence[str]] | None = None,
) -> Split:
    """Which examples of a source are trained on and tested, by its part of a recipe.

    `lists`: the published list beside the data. Where another file is tested, no
    example here is. UserError where nothing would be left, or nothing held out.
    """
    rule = source.get("held_out")
    of_task = read.find_places()
    train_tasks, test_tasks = splits.divide_tasks(read.tasks, rule, lists)
    trained = tested = of_task
    if rule is not None and rule["by"] == "rows":
        trained, tested = _divide_rows(of_task, rule["share"], rule["seed"])
    train_rule = source["train"]
    train = np.empty(0, np.int64)
    if train_rule.get("k") != "0":
        train = _take(trained, train_tasks, train_rule, TRAIN_TASKS)
    test = np.empty(0, np.int64)
    if "test" in source:
        test = _take(tested, test_tasks, source["test"], TEST_TASKS)
    is_bound = bool(THINNING & train_rule.keys())
    if train_rule.get("fraction", "1") != "1":
        is_bound = True
    return Split(train=train, test=test, is_bound=is_bound and len(train) > 0)


def list_trainable(
    read: ReadExamples,
    source: Mapping[str, Any],
    lists: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Places]:
    """The places of all examples of each training task that are not held out, whatever
    caps take of them."""
    rule = source.get("held_out")
    of_task = read.find_places()
    train_tasks, _ = splits.divide_tasks(read.tasks, rule, lists)
    if rule is not None and rule["by"] == "rows":
        of_task, _ = _divide_rows(of_task, rule["share"], rule["seed"])
    return {task: of_task[task] for task in train_tasks if task in of_task}


def list_held_out(
    read: ReadExamples,
    source: Mapping[str, Any],
    lists: Mapping[str, Sequence[str]] | None = None,
) -> Places:
    """The places of all examples that are held out, whatever caps take of them."""
    of_task = list_held_out_tasks(read, source, lists)
    return np.concatenate([np.empty(0, np.int64), *of_task.values()])


def list_held_out_tasks(
    read: ReadExamples,
    source: Mapping[str, Any],
    lists: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Places]:
    """The same of each held-out task, also of one without any, in their order."""
    rule = source.get("held_out")
    of_task = read.find_places()
    _, test_tasks = splits.divide_tasks(read.tasks, rule, lists)
    if rule is not None and rule["by"] == "rows":
        _, of_task = _divide_rows(of_task, rule["share"], rule["seed"])
    none = np.empty(0, np.int64)
    return {task: of_task.get(task, none) for task in test_tasks}


def take_held_out(of_task: Mapping[str, Places], source: Mapping[str, Any]) -> Places:
    """The places that are tested of what is held out, by the caps of a source's
    recipe."""
    return _take(of_task, list(of_task), source["test"], TEST_TASKS)


def take_tested(read: ReadExamples, source: Mapping[str, Any]) -> Places:
    """The places that are tested of a file of tests, by the caps of its source's recipe."""
    return _take(read.find_places(), read.tasks, source["test"], TEST_TASKS)


def _divide_rows(
    of_task: Mapping[str, Places], share: str, seed: int
) -> tuple[dict[str, Places], dict[str, Places]]:
    """The places that are left of each task, and those that are held out."""
    as_lists = {task: numbers.tolist() for task, numbers in of_task.items()}
    drawn = splits.hold_out_rows(as_lists, share, seed)
    trained: dict[str, Places] = {}
    tested: dict[str, Places] = {}
    for task, numbers in of_task.items():
        is_tested = np.isin(numbers, np.array(drawn[task], np.int64))
        trained[task] = numbers[~is_tested]
        tested[task] = numbers[is_tested]
    return trained, tested


def _take(
    of_task: Mapping[str, Places],
    tasks: Sequence[str],
    rule: Mapping[str, Any],
    key: str,
) -> Places:
    """The places that are taken of some tasks by the caps of a split. UserError, by the
    setting's key, for a name that no task has."""
    taken: list[int] = []
    for task in splits.limit_tasks(tasks, rule.get("tasks"), key):
        if task not in of_task:
            continue
        taken += splits.cap_items(
            of_task[task].tolist(),
            rule["per_task"],
            rule["sampling"],
            rule.get("seed", 0),
            task,
        )
    return np.array(taken, np.int64)


def count_repeats(read: ReadExamples) -> Repeats:
    """How often examples ask the same."""
    questions = len(np.unique(read.asked))
    pairs = _pair(read.asked, read.answered)
    different = np.unique(pairs)
    _, answers = np.unique(different["asked"], return_counts=True)
    return Repeats(
        asked=len(read) - questions,
        whole=len(read) - len(different),
        answered_otherwise=int((answers > 1).sum()),
    )


def _pair(asked: NDArray[np.uint64], answered: NDArray[np.uint64]) -> NDArray[Any]:
    """(N,) of records: what is asked together with what is answered."""
    kinds = np.dtype([("asked", np.uint64), ("answered", np.uint64)])
    pairs = np.empty(len(asked), kinds)
    pairs["asked"] = asked
    pairs["answered"] = answered
    return pairs


def count_overlap(
    trained: Sequence[tuple[ReadExamples, Places]],
    tested: Sequence[tuple[ReadExamples, Places]],
) -> Overlap:
    """How many tested examples ask what trained ones ask; both may be of several
    sources."""
    train = _join_pairs(trained)
    test = _join_pairs(tested)
    is_asked = np.isin(test["asked"], train["asked"])
    # a question that is not among the trained is no pair of theirs either
    candidates = test[is_asked]
    is_whole = np.isin(_as_bytes(candidates), _as_bytes(train))
    return Overlap(asked=int(is_asked.sum()), whole=int(is_whole.sum()))


def _join_pairs(parts: Sequence[tuple[ReadExamples, Places]]) -> NDArray[Any]:
    nothing = np.empty(0, np.uint64)
    joined = [_pair(nothing, nothing)]
    for read, numbers in parts:
        joined.append(_pair(read.asked[numbers], read.answered[numbers]))
    return np.concatenate(joined)


def _as_bytes(pairs: NDArray[Any]) -> NDArray[Any]:
    """Pairs as values of sixteen bytes, which can be looked for."""
    return np.ascontiguousarray(pairs).view(f"V{pairs.dtype.itemsize}")


def choose_evenly(places: Places, most: int) -> Places:
    """At most so many of some places, from all over them; all of them where `most` is 0."""
    if not most or len(places) <= most:
        return places
    numbers = np.arange(most) * len(places) // most
    return places[numbers]


def measure_spread(lengths: Sequence[int]) -> Spread | None:
    """How long texts are; None where there are none."""
    if not lengths:
        return None
    sizes = np.array(lengths, np.int64)
    middle, high = np.percentile(sizes, [50, 95], method="higher")
    return Spread(
        count=len(sizes),
        shortest=int(sizes.min()),
        median=float(middle),
        mean=float(sizes.mean()),
        most=float(high),
        longest=int(sizes.max()),
    )


def pick_examples(
    examples: Iterable[Example], places: Iterable[int]
) -> Iterator[tuple[int, Example]]:
    """The examples of a reading at some places, with these, in the order of reading."""
    numbers = set(places)
    if not numbers:
        return
    last = max(numbers)
    for number, example in enumerate(examples):
        if number in numbers:
            yield number, example
        if number == last:
            return
