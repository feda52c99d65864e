"""Scores a choice among options by the loss that a model gives each, as T0 is evaluated."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from zsg_core.data.examples import Example
from zsg_core.metrics.registry import add_metric
from zsg_core.metrics.scoring import ByItem

# of no answer, but of the losses of answers that are offered
RANK_ACCURACY = "rank_accuracy"

add_metric(RANK_ACCURACY)


class OptionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """An item with options: `examples` are the item once per option, so a loss job
    reads them as any others."""

    id: str
    examples: tuple[Example, ...]
    right: int  # which option is the answer


def build_choice(example: Example) -> OptionChoice:
    """The item with each of its options as its answer, under `<id>#<option's number>`.

    ValueError unless there are two options or more, all different, and one of them is
    the item's own answer.
    """
    options = example.options
    if len(set(options)) != len(options) or len(options) < 2:
        raise ValueError(
            f"{example.id}: options must be two or more, and differ: {list(options)}"
        )
    if example.answer not in options:
        raise ValueError(
            f"{example.id}: its answer {example.answer!r} is none of its options: {list(options)}"
        )
    examples = (
        msgspec.structs.replace(
            example.answering(option),
            id=f"{example.id}#{number}",
            references=(),
            options=(),
        )
        for number, option in enumerate(options)
    )
    return OptionChoice(
        id=example.id, examples=tuple(examples), right=options.index(example.answer)
    )


def choose_option(choice: OptionChoice, losses: Mapping[str, float]) -> int | None:
    """Which option has the least loss, of equal losses the first; None where a loss is
    missing or no number.

    `losses` are by the ids of the options' examples. A loss is −log p(option | prompt),
    summed over the option's tokens, not averaged: T0's rule (Sanh et al. 2022, section
    4; `rank classification` without normalisation by length).
    """
    option_losses = np.array(
        [losses.get(example.id, np.nan) for example in choice.examples], np.float64
    )
    return None if np.isnan(option_losses).any() else int(option_losses.argmin())


def score_choices(
    choices: Sequence[OptionChoice], losses: Mapping[str, float]
) -> dict[str, ByItem]:
    """100 where the right option is chosen, else 0; an item of which none could be
    chosen is left out."""
    chosen = {
        choice.id: (choose_option(choice, losses), choice.right) for choice in choices
    }
    return {
        RANK_ACCURACY: {
            item: 100.0 * (option == right)
            for item, (option, right) in chosen.items()
            if option is not None
        }
    }
