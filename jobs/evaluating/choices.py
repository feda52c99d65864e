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
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from jobs.training.batches import TokenizedSet
from jobs.training.held_out import HeldOutLoss
from jobs.training.tokens import Encode
from zsg_core.data.examples import Example
from zsg_core.data.prompts import EncodedExample
from zsg_core.errors import UserError
from zsg_core.metrics import rank_classification
from zsg_core.metrics.rank_classification import OptionChoice
from zsg_core.metrics.scoring import Answered, Scores, aggregate_scores

UNCUT = 1 << 30  # tokens

LossOf = Callable[[TokenizedSet], HeldOutLoss]  # as a model has it on examples


class Choices:
    """The items of a test set that have options; `places` are theirs in it.

    `within(most)` is how the run turns an example into at most so many tokens;
    `max_length` is its own limit.
    """

    def __init__(
        self, test: Sequence[Example], within: Callable[[int], Encode], max_length: int
    ) -> None:
        self._within, self._max_length = within, max_length
        self.places = [place for place, example in enumerate(test) if example.options]
        self._items = [test[place] for place in self.places]
        self._choices = [
            rank_classification.build_choice(example) for example in self._items
        ]

    def scores(self, loss_of: LossOf) -> Scores:
        """The rank accuracy of a model, in percent. UserError where no item has options."""
        if not self._items:
            raise UserError(
                "rank_accuracy: no test item was published with options that its answer is one of;"
                " it needs test data whose rows have `answer_choices`, as P3's on the hub. Test on"
                " such, or take the metric out. What an older zsg has read has none: read it again"
                " in another workspace"
            )
        held_out = loss_of(self._options)
        sums = (held_out.measure() * held_out.tokens).tolist()
        losses = dict(zip(self._options.ids, sums, strict=True))
        return aggregate_scores(
            rank_classification.score_choices(self._choices, losses),
            self._answered(losses),
        )

    def by_place(self, scores: Scores, key: str) -> list[float]:
        """The score of each item in the order of `places`; NaN for one without."""
        by_item = scores.by_item.get(key, {})
        return [by_item.get(item.id, math.nan) for item in self._items]

    @cached_property
    def _options(self) -> TokenizedSet:
        """The options of all items, but of those that have no score."""
        of_item = [(one.examples, self._encoded(one)) for one in self._choices]
        pairs = [
            pair
            for examples, made in of_item
            if made
            for pair in zip(examples, made, strict=True)
        ]
        examples, encoded = (
            [example for example, _ in pairs],
            [made for _, made in pairs],
        )
        return TokenizedSet(
            [e.id for e in examples], encoded, [e.task for e in examples]
        )

    def _encoded(self, one: OptionChoice) -> list[EncodedExample]:
        """An item's options after the same prompt; none where the longest does not fit whole."""
        encode, encode_whole = self._within(self._max_length), self._within(UNCUT)
        made = [encode(example) for example in one.examples]
        if not any(encoded.cut for encoded in made) and (after := _after_same(made)):
            return after
        own = [encode_whole(example) for example in one.examples]
        if not (whole := _after_same(own)):
            return []
        options = [
            list(map(int, encoded.ids[encoded.spans[-1][0] :])) for encoded in whole
        ]
        # All stand after what stands before one whose first token is its own, if it
        # were as long as the longest.
        first = min(range(len(own)), key=lambda number: own[number].spans[-1][0])
        spare = max(map(len, options)) - len(options[first])
        shown = self._within(self._max_length - spare)(one.examples[first])
        start = len(shown.ids) - len(options[first])
        is_whole = (
            len(shown.spans) == len(own[first].spans)
            and list(map(int, shown.ids[start:])) == options[first]
        )
        if start < 1 or not is_whole:
            return []
        prompt, before = list(map(int, shown.ids[:start])), shown.spans[:-1]
        return [
            EncodedExample(
                [*prompt, *option], (*before, (start, start + len(option))), shown.cut
            )
            for option in options
        ]

    def _answered(self, losses: dict[str, float]) -> list[Answered]:
        """What the model chose, as if it had said it, so that one which always says the
        same is flagged."""
        found = [
            rank_classification.choose_option(one, losses) for one in self._choices
        ]
        return [
            Answered(
                id=item.id,
                task=item.task,
                prompt=item.input,
                references=item.right_answers,
                answer="" if number is None else item.options[number],
            )
            for item, number in zip(self._items, found, strict=True)
        ]


def _after_same(made: Sequence[EncodedExample]) -> list[EncodedExample]:
    """The options of an item, each learnt from where the first of them begins; none
    where their prompts differ."""
    start = min(encoded.spans[-1][0] if encoded.spans else 0 for encoded in made)
    prompts = {tuple(map(int, encoded.ids[:start])) for encoded in made}
    if not start or len(prompts) > 1:
        return []
    return [
        replace(encoded, spans=(*encoded.spans[:-1], (start, encoded.spans[-1][1])))
        for encoded in made
    ]
