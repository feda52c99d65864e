"""Chooses the items of a target set, to which an order measures similarity in place of
the test set, and finds those among them that the test set or the training examples
have, too.

The choice reads no text: neither the target's nor the test set's. What is tested decides
it by places alone, for no item may be both.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from zsg_core.data import splits
from zsg_core.data.examples import Example
from zsg_core.errors import UserError

BY_ITEMS, BY_TASKS, BY_FILE = "items", "tasks", "path"
WAYS = (BY_ITEMS, BY_TASKS, BY_FILE)
DROP, REFUSE, KEEP = "drop", "refuse", "keep"
OVERLAPS = (DROP, REFUSE, KEEP)
HIDDEN = "hidden"  # of `answers`: they are no part of what is compared
TASKS = "arrangement.target.tasks"
# a target of items or tasks, in words
ABOUT = {
    BY_ITEMS: "other items of the tested tasks",
    BY_TASKS: "held-out tasks that are not tested",
    BY_FILE: "files of its own",
}


def choose_places(
    rule: Mapping[str, Any],
    held_out: Mapping[str, Sequence[int]],
    tested_tasks: Collection[str],
    tested: Collection[int],
    source: str = "",
) -> list[int]:
    """The places of the target's items among those that a source holds out, task after
    task.

    `rule` is the target's recipe; `held_out` has the places of each task that is held
    out, or of each in files of its own; `tested_tasks` and `tested` are the tasks and
    places that the test set has. A smaller target is part of a larger one. UserError for
    a name that no task has.
    """
    chosen: list[int] = []
    taken = set(tested)
    names = _list_candidates(rule["by"], held_out, tested_tasks)
    for name in splits.limit_tasks(names, rule.get("tasks"), TASKS):
        untested = [place for place in held_out[name] if place not in taken]
        count = rule["per_task"] or len(untested)
        text = f"target {source}/{name}" if source else f"target {name}"
        chosen += splits.sample_nested(untested, count, rule.get("seed", 0), text)
    return chosen


def _list_candidates(
    by: str, held_out: Iterable[str], tested_tasks: Collection[str]
) -> list[str]:
    """The tasks that a target may be of, of all that are held out or in its files."""
    if by == BY_ITEMS:
        return [name for name in held_out if name in tested_tasks]
    if by == BY_TASKS:
        return [name for name in held_out if name not in tested_tasks]
    return list(held_out)


@dataclass(frozen=True, kw_only=True)
class SharedItems:
    """What a target set has in common with others: the test set, or the training
    examples.

    `same_as` (N,): of each target item the id of another that asks the same, or has its
    id; None where none does. `answered`: how many of those have the same answer, too.
    `tasks`: how many tasks both have.
    """

    same_as: Sequence[str | None]
    answered: int
    tasks: int

    @property
    def count(self) -> int:
        """How many target items are among the others, too, by what they ask."""
        return sum(twin is not None for twin in self.same_as)


def find_shared(
    target: Sequence[Example],
    compared: Iterable[Example],
    own_ids: Collection[str] = (),
) -> SharedItems:
    """Compares a target set with other examples: what they ask, without regard to case
    and to blanks, and their tasks. `own_ids`: ids of the others that are the data's own,
    by which two items are one whatever they say.

    The others are gone through once, and of them no more is kept than what the target
    asks, too: training examples may be many.
    """
    questions = {splits.write_asked(example) for example in target}
    # what is asked → answer → the first of the others with both
    asked: dict[str, dict[str, str]] = {}
    tasks: set[str] = set()
    for example in compared:
        tasks.add(example.task)
        question = splits.write_asked(example)
        if question in questions:
            answers = asked.setdefault(question, {})
            answers.setdefault(splits.simplify_text(example.answer), example.id)
    same_as: list[str | None] = []
    answered = 0
    target_tasks: set[str] = set()
    for example in target:
        answers = asked.get(splits.write_asked(example), {})
        answer = splits.simplify_text(example.answer)
        first = next(iter(answers.values()), None)
        if first is None and example.id in own_ids:
            first = example.id
        same_as.append(answers.get(answer, first))
        answered += answer in answers
        target_tasks.add(example.task)
    return SharedItems(
        same_as=same_as, answered=answered, tasks=len(tasks & target_tasks)
    )


def hide_answers(example: Example) -> Example:
    """An example without its answers: what it asks, and nothing of what is right."""
    asked = tuple((question, "") for question, _ in example.turns)
    return structs.replace(example, turns=asked, references=(), options=())


@dataclass(frozen=True, kw_only=True)
class TrainedItems:
    """How many of a target set's items ask what training examples ask, how many of
    these have the same answer, too, and how many of its tasks are trained on."""

    asked: int
    answered: int
    tasks: int


@dataclass(frozen=True, kw_only=True)
class TargetSummary:
    """What there is to know of a target set: its rule in a few words, how many items of
    how many tasks it has, and what it shares with the test set and with what is trained
    on.

    `chosen`: how many items the rule takes; of these `shared` ask what test items ask,
    `answered` of them with the same answer, and `count` are looked at. `tasks_in_test`:
    how many of its tasks are tested, too. `trained`: None where nobody has counted it,
    as an older zsg did not. `ids_digest`: of the items' ids.
    """

    by: str
    overlap: str
    answers: str
    chosen: int
    count: int
    tasks: int
    shared: int
    answered: int
    tasks_in_test: int
    train_overlap: str = KEEP
    trained: TrainedItems | None = None
    ids_digest: str = ""

    def describe(self) -> str:
        """The set in words: how many items of how many tasks, where they come from, and
        whether some of them are tested or trained on, too."""
        text = f"{self.count:,} items of {self.tasks:,} tasks, {ABOUT[self.by]}"
        if self.answers == HIDDEN:
            text += ", without their answers"
        text = f"{text}; {self._describe_shared()}"
        if self.trained is None:
            return text
        return f"{text}; {self._describe_trained(self.trained)}"

    def _describe_shared(self) -> str:
        in_both = f"{self.tasks_in_test:,} of its tasks are tested"
        if not self.shared:
            return f"no item asks what a test item asks, and {in_both}"
        fate = "are left out"
        if self.overlap == KEEP:
            fate = "are looked at all the same, which is a leak"
        return (
            f"{self.shared:,} of {self.chosen:,} items ask what test items ask,"
            f" {self.answered:,} with the same answer, and {fate}; {in_both}"
        )

    def _describe_trained(self, trained: TrainedItems) -> str:
        in_both = f"{trained.tasks:,} of its tasks are trained on"
        if not trained.asked:
            return f"none asks what a training example asks, and {in_both}"
        fate = "are left out"
        if self.train_overlap == KEEP:
            fate = (
                "are looked at all the same, so that these training examples are the"
                " nearest by being the same (train_overlap: drop leaves such items out)"
            )
        return (
            f"{trained.asked:,} of {self.chosen:,} ask what training examples ask,"
            f" {trained.answered:,} with the same answer, and {fate}; {in_both}"
        )

    def refuse_trained(self, first: str) -> None:
        """UserError where what it has in common with the training examples is refused:
        by its rule, or as nothing of it would be left. `first`: an example of that, in
        words."""
        if self.train_overlap == KEEP or self.trained is None or not self.trained.asked:
            return
        if self.train_overlap == DROP and self.count:
            return
        remainder = (
            "" if self.train_overlap == REFUSE else ", and no item would be left"
        )
        raise UserError(
            f"arrangement.target: {self.trained.asked:,} of its {self.chosen:,} items ask"
            f" what training examples ask{first}{remainder}. Give it other items;"
            " train_overlap: drop leaves out those that are trained on, where others are"
            " left, and train_overlap: keep looks at them all the same"
        )

    def refuse_shared(self, first: str) -> None:
        """UserError where what it has in common with the test set is refused: by its
        rule, or as nothing of it would be left. `first`: an example of that, in words.
        """
        if self.overlap == KEEP or not self.shared:
            return
        if self.overlap == DROP and self.shared < self.chosen:
            return
        of_all = "all" if self.shared == self.chosen else f"{self.shared:,}"
        raise UserError(
            f"arrangement.target: {of_all} of its {self.chosen:,} items ask what test items"
            f" ask{first}. Give it other items; overlap: drop leaves out those that the test"
            " set has, where others are left, and overlap: keep looks at them all the same,"
            " which is a leak"
        )


def mark_left_out(
    rule: Mapping[str, Any], shared: SharedItems, trained: SharedItems | None
) -> list[bool]:
    """Whether each item (N,) that the rule takes is left out, as it is tested or trained
    on, too. `trained`: None where it is not known what is trained on."""
    is_left_out = [False] * len(shared.same_as)
    if rule["overlap"] == DROP:
        is_left_out = [twin is not None for twin in shared.same_as]
    if trained is None or rule.get("train_overlap", KEEP) != DROP:
        return is_left_out
    pairs = zip(is_left_out, trained.same_as, strict=True)
    return [is_tested or twin is not None for is_tested, twin in pairs]


def summarize_target(
    rule: Mapping[str, Any],
    tasks: Sequence[str],
    shared: SharedItems,
    trained: SharedItems | None,
) -> TargetSummary:
    """The summary of a target set by its recipe, the task of each item that the rule
    takes, and what it has in common with the test set and with the training examples.

    `trained`: None where it is not known what is trained on.
    """
    is_left_out = mark_left_out(rule, shared, trained)
    pairs = zip(tasks, is_left_out, strict=True)
    counted = [task for task, is_out in pairs if not is_out]
    in_training = None
    if trained is not None:
        in_training = TrainedItems(
            asked=trained.count,
            answered=trained.answered,
            tasks=trained.tasks,
        )
    return TargetSummary(
        by=rule["by"],
        overlap=rule["overlap"],
        answers=rule.get("answers", "shown"),
        chosen=len(tasks),
        count=len(counted),
        tasks=len(set(counted)),
        shared=shared.count,
        answered=shared.answered,
        tasks_in_test=shared.tasks,
        train_overlap=rule.get("train_overlap", KEEP),
        trained=in_training,
    )


def refuse_empty(rule: Mapping[str, Any], count: int) -> None:
    """UserError for a target set without an item."""
    if count:
        return
    ways = {
        BY_ITEMS: "every item of the tested tasks is tested; lower data.test_per_task",
        BY_TASKS: "every task that is held out is tested; give fewer data.test_tasks",
        BY_FILE: "its files hold none",
    }
    raise UserError(f"arrangement.target: has no item, as {ways[rule['by']]}")
