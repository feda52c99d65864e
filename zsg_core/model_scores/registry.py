"""Which scores by a model are there, and what is each: the one entry that settings,
recipes and score jobs read.

A score is a function under `@score("name", …)` in a module of this folder. It is given
encoded examples, and models that measure texts; it gives a number for each example. So
a new score is one module, and imports no engine.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from zsg_core.data.prompts import ANSWER, EncodedExample
from zsg_core.registry import Registry

# the example has no such score: none of its answer is left, or it was cut
Score = float | None


@dataclass(frozen=True)
class Text:
    """Token ids of a text that stands alone, and the half-open `spans` of those that are
    measured. A text's first token is measured nowhere: nothing comes before it."""

    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]

    @property
    def count(self) -> int:
        """How many tokens are measured."""
        return sum(stop - max(1, start) for start, stop in self.spans if stop > 1)


class ScoringModel(Protocol):
    """A model as scores see it. What it measures is the same in whatever company a text
    comes, but for the last bits."""

    def sum_losses(self, texts: Sequence[Text]) -> list[float]:
        """Of each text the sum of −ln p over its measured tokens."""
        ...

    def sum_errors(self, texts: Sequence[Text]) -> list[float]:
        """Of each text the sum of ‖p − onehot(token)‖₂ over its measured tokens."""
        ...

    def take_gradient_norms(self, examples: Sequence[Sequence[Text]]) -> list[float]:
        """Of each example, which is some texts, the norm of the gradient of the mean of
        −ln p over its measured tokens, by all parameters of the model. Each example has
        a measured token."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScoreInputs:
    """What a score is made of: some examples as the run trains on them, and the model,
    which is loaded when it is first asked for.

    `tokenize` and `beginning` (what stands before a text) are of the tokenizer, `ends`
    the tokens that end an answer.
    """

    examples: Sequence[EncodedExample]
    model: Callable[[], ScoringModel]
    tokenize: Callable[[str], list[int]]
    beginning: Sequence[int] = ()
    ends: Collection[int] = field(default_factory=frozenset)


ScoreFunction = Callable[[ScoreInputs], list[Score]]


@dataclass(frozen=True, kw_only=True)
class ScoreRule:
    """One score.

    `about`: what it is, for the description of the setting. `passes`: how many forward
    passes over an example it takes, at most; 0 for one that needs a tokenizer alone.
    `takes_gradients`: whether a backward pass follows each.
    `compares`: whether it is how far what is computed falls from an earlier model to
    the scorer. `rule`: counted up when it is computed otherwise; it enters recipes.
    """

    name: str
    about: str
    compute: ScoreFunction
    passes: int
    compares: bool = False
    takes_gradients: bool = False
    rule: int = 1


SCORE_RULES: Registry[ScoreRule] = Registry("score", "zsg_core.model_scores")


def score(
    name: str,
    *,
    about: str,
    passes: int,
    compares: bool = False,
    takes_gradients: bool = False,
    rule: int = 1,
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Registers a function that scores examples as `name`; see ScoreRule."""

    def register(compute: ScoreFunction) -> ScoreFunction:
        entry = ScoreRule(
            name=name,
            about=about,
            compute=compute,
            passes=passes,
            compares=compares,
            takes_gradients=takes_gradients,
            rule=rule,
        )
        SCORE_RULES.add(name, entry)
        return compute

    return register


def list_answer_texts(example: EncodedExample) -> list[Text]:
    """The texts of an example, mostly one, with its answers' tokens measured, as they
    are trained."""
    return [Text(text.ids, text.target_spans(ANSWER)) for text in example.texts]


def average_over_examples(
    examples: Sequence[Sequence[Text]],
    measure: Callable[[Sequence[Text]], list[float]],
) -> list[Score]:
    """Of each example, which is some texts, the mean over its measured tokens; None of
    one without any."""
    measured = [
        (number, text)
        for number, texts in enumerate(examples)
        for text in texts
        if text.count
    ]
    sums = measure([text for _, text in measured])
    totals = [0.0] * len(examples)
    counts = [0] * len(examples)
    for (number, text), total in zip(measured, sums, strict=True):
        totals[number] += total
        counts[number] += text.count
    return [
        total / count if count else None
        for total, count in zip(totals, counts, strict=True)
    ]
