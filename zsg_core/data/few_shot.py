"""Chooses the solved examples of its own task that stand before a training example
(few-shot tuning), and writes them there.

Which they are depends on the example alone: an order of the task's pool is drawn by the
seed, a digest of the pool's ids and the example's id, and the first k of it that may be
shown are taken, in that order. So neither other examples nor caps, ranks or the order
of training change them, and the shots of a smaller k are the first of a larger one.
Never shown are the example itself, one with a question of its own, two with the same
question, and one whose question is asked in the test set.

Where the whole is longer than a model may read, whole shots are left out, from the
first one on; what is cut of an example that has none left is decided as ever (prompts).
"""

import hashlib
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from typing import Any

from msgspec import structs

from zsg_core.data import prompts
from zsg_core.data.examples import Example, FewShot, Turn
from zsg_core.data.prompts import EncodedExample
from zsg_core.data.splits import draw_share

# how shots are written: in the text of the question, or as turns of a dialogue
IN_ONE, IN_MANY = TURN_FORMS = ("one", "many")
# which answers are learnt: that of the example alone, or those of its shots, too
LAST, ANSWERS = LEARNT_ANSWERS = ("last", "answers")
FIRST = "first"  # the rule by which all examples of a task have the same shots

Encode = Callable[[Example], EncodedExample]


@dataclass(frozen=True)
class FewShotRule:
    """What decides the shots of the examples of a source; `seed` is None where nothing
    is drawn."""

    k: int
    turns: str
    loss_on: str
    fixed: str | None = None
    share: Fraction = Fraction(1)
    seed: int | None = None

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> "FewShotRule":
        """The rule of a source's recipe."""
        return cls(
            k=recipe["k"],
            turns=recipe["turns"],
            loss_on=recipe["loss_on"],
            fixed=recipe.get("fixed"),
            share=Fraction(recipe.get("share", 1)),
            seed=recipe.get("seed"),
        )

    def is_shown_any(self, example_id: str) -> bool:
        """Whether an example has shots at all: drawn by its id alone."""
        if self.share == 1:
            return True
        return draw_share(self.share, f"few-shot share:{self.seed}:{example_id}")

    def order_pool(self, digest: str, example_id: str, count: int) -> Iterator[int]:
        """The numbers of a pool's `count` examples in the order in which they are
        looked at for an example; `digest` is the pool's."""
        if self.fixed == FIRST:
            return iter(range(count))
        drawn = random.Random(f"few-shot:{self.seed}:{digest}:{example_id}")
        return _shuffle_lazily(drawn, count)


def _shuffle_lazily(drawn: random.Random, count: int) -> Iterator[int]:
    """The numbers below `count` in a drawn order, each made when it is asked for.

    It is Fisher and Yates' shuffle; `moved` has the numbers that stand elsewhere than
    where they began, so that a pool of millions costs what is taken of it.
    """
    moved: dict[int, int] = {}
    for step in range(count):
        other = drawn.randrange(step, count)
        yield moved.get(other, other)
        moved[other] = moved.pop(step, step)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An example of a pool by what decides whether it may be shown. `position`: in the
    records. `question`: a digest of its question; None for one that is no shot."""

    position: int
    question: bytes | None


def choose_shots(
    candidates: Iterator[Candidate],
    k: int,
    own_position: int,
    own_questions: Collection[bytes],
) -> list[int]:
    """The positions of the first `k` candidates that may be shown before an example;
    fewer where there are no more.

    `own_position` and `own_questions` are those of the example, which it never sees.
    """
    chosen: list[int] = []
    questions = set(own_questions)
    for candidate in candidates:
        if len(chosen) == k:
            break
        question = candidate.question
        if question is None or question in questions:
            continue
        if candidate.position == own_position:
            continue
        questions.add(question)
        chosen.append(candidate.position)
    return chosen


def digest_question(text: str) -> bytes:
    """By what two questions are the same: their words, without regard to case and
    blanks."""
    plain = " ".join(text.lower().split())
    return hashlib.blake2b(
        plain.encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()


def find_question(example: Example) -> bytes | None:
    """The digest of what is asked in an example that may be shown before others; None
    of one that is no shot: of several turns, a raw text, or with nothing asked or
    answered."""
    if len(example.turns) > 1 or example.is_text:
        return None
    if not example.answer.strip() or not example.input.strip():
        return None
    return digest_question(example.input)


def explain_short(task: str, size: int, usable: int, k: int) -> str:
    """Why a task of `size` training examples has too few to show, where `usable` of
    them may stand before one of its others."""
    return (
        f"task {task} has {size} training examples, and {usable} of them can stand before one of"
        f" its others: fewer than data.few_shot.k, {k}. Examples of several turns, without an"
        " answer, or with the example's own question or a test question are not shown. Lower k,"
        " or leave the task out"
    )


def list_questions(example: Example) -> set[bytes]:
    """The digests of all that is asked in an example."""
    return {digest_question(question) for question, _ in example.turns}


def show_last(example: Example, count: int) -> Example:
    """The example as it is written with the last `count` of its shots."""
    few_shot = example.few_shot
    if few_shot is None or not count:
        return structs.replace(example, few_shot=None)
    shots = few_shot.shots[-count:]
    if few_shot.turns == IN_ONE:
        shorter = structs.replace(few_shot, shots=shots)
        return structs.replace(example, few_shot=shorter)
    return structs.replace(
        example,
        turns=_list_turns(example, shots),
        few_shot=None,
    )


def _list_turns(example: Example, shots: Sequence[Turn]) -> tuple[Turn, ...]:
    """Shots as turns before the example's own.

    A definition stands before the first of all, where the template puts it, and what
    asks for an output is said in each turn.
    """
    turns = [*shots, *example.turns]
    if not example.definition:
        return tuple(turns)
    first, *later = turns
    count = len(shots)
    worded = [
        (prompts.ask_input(question), answer) for question, answer in later[:count]
    ]
    return (first, *worded, *later[count:])


def encode_with_shots(
    example: Example, *, encode: Encode, encode_whole: Encode, max_length: int
) -> EncodedExample:
    """The token ids of an example with as many of its shots, the last ones, as leave it
    whole within `max_length`.

    `encode` cuts an example that is too long, `encode_whole` never does. What the
    example loses is told by `cut`, in tokens of what all shots would make, and by
    `lost_shots`. An example without shots is encoded as ever.
    """
    if example.few_shot is None:
        return encode(example)
    shots = example.few_shot.shots
    size = 0
    for count in range(len(shots), 0, -1):
        encoded = _encode_shown(example, count, encode_whole)
        size = max(size, len(encoded.ids))
        if _fits(encoded, max_length):
            return replace(
                encoded,
                cut=size - len(encoded.ids),
                lost_shots=len(shots) - count,
            )
    encoded = encode(show_last(example, 0))
    lost = max(1, size - len(encoded.ids))
    return replace(encoded, cut=lost, lost_shots=len(shots))


def _encode_shown(example: Example, count: int, encode: Encode) -> EncodedExample:
    """The example with its last `count` shots.

    Of turns, the answers of the shots are learnt only where the rule says so.
    """
    few_shot = example.few_shot
    assert few_shot is not None, "only examples with shots are encoded so"
    encoded = encode(show_last(example, count))
    if few_shot.turns == IN_MANY and few_shot.loss_on == LAST:
        return _learn_own(encoded, count)
    return encoded


def _learn_own(encoded: EncodedExample, shots: int) -> EncodedExample:
    """The same without learning the answers of the first turns, which are `shots`.

    Of a dialogue that is one text for each answer, the texts of these answers are left
    out: each later text has them in its own history, as far as the template keeps it.
    """
    if not encoded.sequences:
        return replace(encoded, spans=encoded.spans[shots:])
    texts = encoded.texts[shots:]
    if len(texts) == 1:
        return texts[0]
    lengths = [len(text.ids) for text in texts]
    begins = [0, *accumulate(lengths[:-1])]
    spans = [
        (begin + start, begin + stop)
        for begin, text in zip(begins, texts, strict=True)
        for start, stop in text.spans
    ]
    ids = [token for text in texts for token in text.ids]
    return replace(encoded, ids=ids, spans=tuple(spans), sequences=tuple(lengths))


def _fits(encoded: EncodedExample, max_length: int) -> bool:
    """Whether each of an example's texts has at most so many tokens."""
    return all(stop - begin <= max_length for begin, stop in encoded.bounds)


def add_shots(example: Example, rule: FewShotRule, shots: Sequence[Example]) -> Example:
    """The example with its shots, each of one turn; itself where there are none."""
    if not shots:
        return example
    drawn = FewShot(
        shots=tuple(shot.turns[0] for shot in shots),
        turns=rule.turns,
        loss_on=rule.loss_on,
    )
    return structs.replace(example, few_shot=drawn)
