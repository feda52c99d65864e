"""Takes rank accuracy: which of the answers that a test item was published with a model
finds likeliest, as for T0.

Each option is encoded as the run's test loss reads the item with that option for its
answer, so nothing is generated, and what the options of an item have in common is
computed once (jobs.training.held_out). They are compared whole and after the same
tokens. Where a tokenizer joins the end of the prompt to one option and not to another,
as it does with the blank after `Output: `, the tokens from there on are each option's
own, as lm-evaluation-harness moves blanks at a prompt's end to what follows. A prompt
that max_length shortens is shortened as before the longest option; where that does not
fit whole the item has no score, and is counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from jobs.training.batches import TokenizedSet
from jobs.training.held_out import HeldOutLoss
from jobs.training.tokens import Encode
from zsg_core.data.examples import Example
from zsg_core.data.prompts import EncodedExample
from zsg_core.errors import UserError
from zsg_core.metrics import rank_classification
from zsg_core.metrics.rank_classification import OptionChoice
from zsg_core.metrics.registry import ChoiceScorer
from zsg_core.metrics.scoring import Answered, Scores, aggregate_scores

UNCUT = 1 << 30  # tokens

LossOf = Callable[[TokenizedSet], HeldOutLoss]  # as a model has it on examples


class MeasuredOptions(NamedTuple):
    """By the ids of options' examples, the loss summed over tokens, and how many these
    are."""

    losses: dict[str, float]
    tokens: dict[str, int]


class Choices:
    """The items of a test set that have options; `places` are theirs in it.

    `within(most)` is how the run turns an example into at most so many tokens;
    `max_length` is its own limit.
    """

    def __init__(
        self, test: Sequence[Example], within: Callable[[int], Encode], max_length: int
    ) -> None:
        self._within, self._max_length = within, max_length
        self.places = [n for n, example in enumerate(test) if example.options]
        self._items = [test[number] for number in self.places]
        self._choices = [
            rank_classification.build_choice(example) for example in self._items
        ]

    def measure(self, loss_of: LossOf, keys: Sequence[str]) -> MeasuredOptions:
        """What a model makes of each option, in one pass. `keys`: for which it is asked.
        UserError where no item has options."""
        if not self._items:
            raise UserError(
                f"{', '.join(keys)}: no test item was published with options that its answer is"
                " one of; it needs test data whose rows have `answer_choices`, as P3's on the hub."
                " Test on such, or take the metric out. What an older zsg has read has none: read"
                " it again in another workspace"
            )
        held_out = loss_of(self._options)
        sums = (held_out.measure() * held_out.tokens).tolist()
        ids = self._options.ids
        return MeasuredOptions(
            dict(zip(ids, sums, strict=True)),
            dict(zip(ids, held_out.tokens.tolist(), strict=True)),
        )

    def score_by_rule(self, measured: MeasuredOptions, key: str, rule: str) -> Scores:
        """The rank accuracy of a model by a rule, in percent."""
        losses, tokens = measured
        by_item = rank_classification.score_choices(self._choices, losses, rule, tokens)
        answered = self._list_chosen(losses, rule, tokens)
        return aggregate_scores({key: by_item}, answered)

    def score_by_metric(
        self, measured: MeasuredOptions, key: str, score_choices: ChoiceScorer
    ) -> Scores:
        """What a metric of a user's own makes of the options. PluginError where it
        fails."""
        losses, tokens = measured
        options = rank_classification.list_option_losses(self._choices, losses, tokens)
        by_item = score_choices(options)
        answered = self._list_chosen(losses, rank_classification.SUM, tokens)
        return aggregate_scores({key: by_item}, answered)

    def by_place(self, scores: Scores, key: str) -> list[float]:
        """The score of each item in the order of `places`; NaN for one without."""
        by_item = scores.by_item.get(key, {})
        return [by_item.get(item.id, math.nan) for item in self._items]

    @cached_property
    def _options(self) -> TokenizedSet:
        """The options of all items, but of those that have no score."""
        by_item = [(choice.examples, self._encoded(choice)) for choice in self._choices]
        pairs = [
            pair
            for examples, options in by_item
            if options
            for pair in zip(examples, options, strict=True)
        ]
        examples = [example for example, _ in pairs]
        encoded = [option for _, option in pairs]
        return TokenizedSet(
            [e.id for e in examples], encoded, [e.task for e in examples]
        )

    def _encoded(self, choice: OptionChoice) -> list[EncodedExample]:
        """An item's options after the same prompt; none where the longest does not fit whole."""
        encode, encode_whole = self._within(self._max_length), self._within(UNCUT)
        encoded = [_close(encode(example)) for example in choice.examples]
        is_uncut = not any(option.cut for option in encoded)
        if is_uncut and (comparable := _after_same(encoded)):
            return comparable
        uncut = [_close(encode_whole(example)) for example in choice.examples]
        return self._shorten_prompt(choice, uncut)

    def _shorten_prompt(
        self, choice: OptionChoice, uncut: Sequence[EncodedExample]
    ) -> list[EncodedExample]:
        """The options after the prompt as it is shortened before the longest of them; none
        where that does not fit whole. `uncut`: the options with all of their prompt."""
        options = [_answer_tokens(encoded) for encoded in _after_same(uncut)]
        if not options:
            return []
        spans = [encoded.spans for encoded in uncut]
        # All stand after what stands before one whose first token is its own, if it
        # were as long as the longest.
        first = min(range(len(spans)), key=lambda number: spans[number][-1][0])
        spare = max(map(len, options)) - len(options[first])
        shortened = _close(
            self._within(self._max_length - spare)(choice.examples[first])
        )
        start = len(shortened.ids) - len(options[first])
        is_whole = (
            len(shortened.spans) == len(spans[first])
            and list(map(int, shortened.ids[start:])) == options[first]
        )
        if start < 1 or not is_whole:
            return []
        prompt, before = list(map(int, shortened.ids[:start])), shortened.spans[:-1]
        return [
            EncodedExample(
                [*prompt, *option],
                (*before, (start, start + len(option))),
                shortened.cut,
            )
            for option in options
        ]

    def _list_chosen(
        self, losses: Mapping[str, float], rule: str, tokens: Mapping[str, int]
    ) -> list[Answered]:
        """What the model chose, as if it had said it, so that one which always says the
        same is flagged."""
        chosen: list[Answered] = []
        for item, choice in zip(self._items, self._choices, strict=True):
            option = rank_classification.choose_option(choice, losses, rule, tokens)
            chosen.append(
                Answered(
                    id=item.id,
                    task=item.task,
                    prompt=item.input,
                    references=item.right_answers,
                    answer="" if option is None else item.options[option],
                )
            )
        return chosen


def _close(encoded: EncodedExample) -> EncodedExample:
    """The last of an item's texts, up to the end of its answer: some chat templates
    write a line end behind it."""
    last = encoded.last
    if not last.spans:
        return last
    return replace(last, ids=last.ids[: last.spans[-1][1]])


def _answer_tokens(encoded: EncodedExample) -> list[int]:
    """The tokens of the last answer, where it ends the text."""
    return list(map(int, encoded.ids[encoded.spans[-1][0] :]))


def _after_same(options: Sequence[EncodedExample]) -> list[EncodedExample]:
    """The options of an item, each with the loss tokens from where the first of them
    begins; none where their prompts differ."""
    start = min(encoded.spans[-1][0] if encoded.spans else 0 for encoded in options)
    prompts = {tuple(map(int, encoded.ids[:start])) for encoded in options}
    if not start or len(prompts) > 1:
        return []
    return [
        replace(encoded, spans=(*encoded.spans[:-1], (start, encoded.spans[-1][1])))
        for encoded in options
    ]
