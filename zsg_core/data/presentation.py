"""Says in which form an example is asked: with its task's instruction, with the task's
name in its place, or without either (FLAN's ablation, arXiv 2109.01652, appendix B.2);
with the options for its answer; or turned round, so that its question is the answer.

All of it hangs on the example alone.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from msgspec import structs

from zsg_core.data.examples import Example, Turn
from zsg_core.data.splits import draw_share

# what stands before an input: the instruction of its task, the task's name, or nothing
NATURAL, NAME, NONE = INSTRUCTIONS = ("natural", "name", "none")
ANSWER_FIELD = "{answer}"  # where in a wording the answer stands


@dataclass(frozen=True)
class Inversion:
    """Which examples are turned round: a `share` of them, each drawn by itself, asked in
    one of the `wordings`."""

    share: Fraction
    wordings: tuple[str, ...]
    seed: int

    def is_drawn(self, example: Example) -> bool:
        """Whether an example is turned round. A dialogue, a raw text, and an example with
        nothing to ask or to answer never are."""
        if len(example.turns) > 1 or example.is_text:
            return False
        if not example.input.strip() or not example.answer.strip():
            return False
        return draw_share(self.share, f"inverted:{self.seed}:{example.id}")

    def turn_round(self, example: Example) -> Example:
        """The example in which the question is the answer; what belongs to the answer
        that it had is gone."""
        drawn = random.Random(f"inverted wording:{self.seed}:{example.id}")
        wording = drawn.choice(self.wordings)
        answer = example.answer.strip()
        if ANSWER_FIELD in wording:
            question = wording.replace(ANSWER_FIELD, answer)
        else:
            question = f"{wording}\n\n{answer}"
        return structs.replace(
            example,
            turns=((question, example.input.strip()),),
            definition="",
            shots=(),
            references=(),
            options=(),
        )


@dataclass(frozen=True)
class Presentation:
    """In which form the examples of a source are asked, of one split."""

    instructions: str = NATURAL
    shows_options: bool = False
    inversion: Inversion | None = None

    @classmethod
    def from_recipe(cls, rule: Mapping[str, Any]) -> "Presentation":
        """The form that the rule of a split says: as published, where it says nothing."""
        inverted = rule.get("inverted")
        inversion = None
        if inverted is not None:
            inversion = Inversion(
                share=Fraction(inverted["share"]),
                wordings=tuple(inverted["wordings"]),
                seed=inverted["seed"],
            )
        return cls(
            instructions=rule.get("instruction_form", NATURAL),
            shows_options=rule.get("options") == "shown",
            inversion=inversion,
        )

    def is_inverted(self, example: Example) -> bool:
        """Whether an example is turned round, and its shots with it."""
        return self.inversion is not None and self.inversion.is_drawn(example)

    def invert(self, example: Example) -> Example:
        """The example turned round."""
        assert self.inversion is not None, "only drawn examples are turned round"
        return self.inversion.turn_round(example)

    def present(self, example: Example) -> Example:
        """The example as it is asked, the right way round."""
        if self.shows_options and example.options:
            example = _show_options(example)
        if self.instructions == NATURAL or not example.definition:
            return example
        question, answer = example.turns[0]
        if self.instructions == NAME:
            question = f"[{example.task}] {question.strip()}"
        return _ask_first(example, (question, answer))


def _ask_first(example: Example, turn: Turn) -> Example:
    """The example with another first turn, and without definition and positive examples."""
    return structs.replace(
        example,
        turns=(turn, *example.turns[1:]),
        definition="",
        shots=(),
    )


def _show_options(example: Example) -> Example:
    """The example with its options below its last question, as FLAN lists them."""
    question, answer = example.turns[-1]
    listed = "".join(f"\n- {option.strip()}" for option in example.options)
    shown = f"{question.rstrip()}\n\nOPTIONS:{listed}"
    return structs.replace(
        example,
        turns=(*example.turns[:-1], (shown, answer)),
    )
