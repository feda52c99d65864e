"""Scores a choice among options by the loss that a model gives each, as T0 is evaluated."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from zsg_core.data.examples import Example
from zsg_core.metrics.registry import Definition, add_metric
from zsg_core.metrics.scoring import ByItem, OptionLosses

# of no answer, but of the losses of answers that are offered
RANK_ACCURACY = "rank_accuracy"

add_metric(RANK_ACCURACY)

# By what an option is chosen, as the definition of a key has it. The sum is T0's rule;
# the other two keep a long option from losing by its length, as `acc_bytes` of
# lm-evaluation-harness does, and `acc_norm` for letters of one byte.
SUM, PER_TOKEN, PER_BYTE = "sum", "token", "byte"
CHOSEN_BY = {
    SUM: "least loss, summed over tokens",
    PER_TOKEN: "least loss per token",
    PER_BYTE: "least loss per byte",
}


# of a key of what is made of options, in its definition: which options these are
OF_OPTIONS = {"options": "published"}


def name_key(rule: str, name: str | None) -> str:
    """The key of rank accuracy by a rule: `rank_accuracy`, `rank_accuracy/token`, then
    the user's own name."""
    parts = [RANK_ACCURACY]
    if rule != SUM:
        parts.append(rule)
    if name is not None:
        parts.append(name)
    return "/".join(parts)


def define_key(rule: str) -> dict[str, Any]:
    """All that decides the values of a key of that rule."""
    return {**OF_OPTIONS, "chosen_by": CHOSEN_BY[rule]}


def find_rule(definition: Definition) -> str:
    """The rule of a key's definition."""
    rules = {words: rule for rule, words in CHOSEN_BY.items()}
    return rules[definition["chosen_by"]]


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


def list_option_losses(
    choices: Sequence[OptionChoice],
    losses: Mapping[str, float],
    tokens: Mapping[str, int],
) -> list[OptionLosses]:
    """What a model makes of the options of items; one of which an option has no loss is
    left out. `losses` and `tokens` are by the ids of the options' examples."""
    listed: list[OptionLosses] = []
    for choice in choices:
        ids = [example.id for example in choice.examples]
        option_losses = [losses.get(id_, math.nan) for id_ in ids]
        if any(map(math.isnan, option_losses)):
            continue
        first = choice.examples[0]
        listed.append(
            OptionLosses(
                id=choice.id,
                task=first.task,
                prompt=first.input,
                options=tuple(example.answer for example in choice.examples),
                losses=tuple(option_losses),
                tokens=tuple(tokens[id_] for id_ in ids),
                right=choice.right,
            )
        )
    return listed


def choose_option(
    choice: OptionChoice,
    losses: Mapping[str, float],
    rule: str = SUM,
    tokens: Mapping[str, int] | None = None,
) -> int | None:
    """Which option has the least loss, of equal losses the first; None where a loss is
    missing or no number.

    `losses` and `tokens` are by the ids of the options' examples. A loss is
    −log p(option | prompt), summed over the option's tokens, and by rule `sum` it is
    taken as it is (Sanh et al. 2022, section 4: `rank classification` without
    normalisation by length). By `token` it is divided by how many these are, by `byte`
    by the option's length in UTF-8; an option without a byte counts as one.
    """
    option_losses = np.array(
        [losses.get(example.id, np.nan) for example in choice.examples], np.float64
    )
    if rule == PER_TOKEN:
        counts = tokens or {}
        option_losses /= [counts.get(example.id, 1) for example in choice.examples]
    elif rule == PER_BYTE:
        option_losses /= [count_bytes(example.answer) for example in choice.examples]
    return None if np.isnan(option_losses).any() else int(option_losses.argmin())


def count_bytes(option: str) -> int:
    """The length of an option in UTF-8; 1 for an empty one."""
    return max(1, len(option.encode("utf-8", "surrogatepass")))


def score_choices(
    choices: Sequence[OptionChoice],
    losses: Mapping[str, float],
    rule: str = SUM,
    tokens: Mapping[str, int] | None = None,
) -> ByItem:
    """100 where the right option is chosen, else 0; an item of which none could be
    chosen is left out. See `choose_option`."""
    scores: ByItem = {}
    for choice in choices:
        option = choose_option(choice, losses, rule, tokens)
        if option is not None:
            scores[choice.id] = 100.0 * (option == choice.right)
    return scores
