"""Gives each rank its micro-batches of a step: packed rows of token ids, and which of
them are target tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.model.transfer import send_integers
from jobs.training.tokens import Tokens
from zsg_core.data.prompts import ANSWER, EncodedExample
from zsg_core.training import schedule

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class MicroBatch:
    """`items` are places in the batch; their examples stand one after the other in
    `tokens`, (T,) int64. An example of several texts has an item for each, and may be
    in several micro-batches; `counted` are those whose first text is in this one.

    `positions` (T,) count from 0 in each example. `predicting`, `targets`, `owners` (K,),
    `after`: see `AnswerLoss.forward`. An idle micro-batch keeps a rank in step with the
    others: one token, no targets, no items.
    """

    items: list[int]
    tokens: Ids
    positions: Ids
    lengths: list[int]
    predicting: Ids
    targets: Ids
    owners: Ids
    after: list[int] | None = None
    counted: Sequence[int] = ()

    def on(self, device: str) -> tuple[Any, ...]:
        """What `AnswerLoss.forward` takes, on a device."""
        tokens, positions, *learnt = send_integers(
            device,
            self.tokens,
            self.positions,
            self.predicting,
            self.targets,
            self.owners,
        )
        return tokens, positions, self.lengths, *learnt, self.after


@dataclass(frozen=True)
class Segment:
    """A stretch of an example that stands whole in a row: its tokens from place `begin` on.

    `spans` of the example's tokens are targets, `after` is the part of the row that this
    one goes on from, or −1. `is_first`: whether it is the first of its item.
    """

    item: int
    ids: Sequence[int]
    begin: int = 0
    spans: Sequence[tuple[int, int]] = ()
    after: int = -1
    is_first: bool = True

    @property
    def positions(self) -> Ids:
        """The places of its tokens in the example."""
        return np.arange(self.begin, self.begin + len(self.ids))


def _ids(*values: int) -> Ids:
    return np.array(values, dtype=np.int64)


def pack_parts(segments: Sequence[Segment]) -> MicroBatch:
    """A row of segments, one after the other; of a segment's first token there is
    nothing in it to learn from."""
    lengths = [len(segment.ids) for segment in segments]
    starts = np.cumsum([0, *lengths[:-1]])
    tokens = np.concatenate([segment.ids for segment in segments]).astype(np.int64)
    target_places = [
        _find_target_places(segment, start)
        for segment, start in zip(segments, starts, strict=True)
    ]
    predicting = np.concatenate(target_places) - 1
    owners = np.repeat(np.arange(len(segments)), list(map(len, target_places)))
    after = [segment.after for segment in segments]
    return MicroBatch(
        items=[segment.item for segment in segments],
        tokens=tokens,
        positions=np.concatenate([segment.positions for segment in segments]),
        lengths=lengths,
        predicting=predicting,
        targets=tokens[predicting + 1],
        owners=owners,
        after=after if max(after) >= 0 else None,
        counted=[segment.item for segment in segments if segment.is_first],
    )


def _find_target_places(segment: Segment, start: int) -> Ids:
    """Where in a row the target tokens of a segment are that begins at `start`."""
    ranges = [np.arange(first, stop) for first, stop in segment.spans]
    return np.concatenate([_ids(), *ranges]) - segment.begin + start


class TokenizedSet:
    """A list of examples as token ids. `learnt` says which tokens are targets: of all
    examples by one rule, or a rule for each."""

    def __init__(
        self,
        ids: Sequence[str],
        encoded: Sequence[EncodedExample],
        tasks: Sequence[str] = (),
        learnt: str | Sequence[str] = ANSWER,
    ) -> None:
        self.ids, self.tasks, self.encoded = list(ids), list(tasks), encoded
        self.targets = [learnt] * len(ids) if isinstance(learnt, str) else list(learnt)
        # of each example the lengths of its texts, mostly one
        self.text_lengths = [e.sequences or (len(e.ids),) for e in encoded]
        self.lengths = [sum(lengths) for lengths in self.text_lengths]
        self.learnt = [
            sum(stop - first for first, stop in self.spans(e, index))
            for index, e in enumerate(encoded)
        ]
        self.scales: list[float] = []  # see jobs.training.task_scales
        self.eos: int | None = None  # the token that its answers end with

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def shortened(self) -> int:
        """How many examples lost tokens to max_length."""
        return sum(e.cut > 0 for e in self.encoded)

    @cached_property
    def questionless(self) -> int | None:
        """How many examples lost their whole question to max_length; None where an older
        zsg made their tokens."""
        if isinstance(self.encoded, Tokens):
            return self.encoded.questionless
        return sum(e.lost_question for e in self.encoded)

    @cached_property
    def unanswered(self) -> int:
        """How many examples lost their whole answer to max_length, so that nothing of
        them is learnt."""
        return self.learnt.count(0)

    @cached_property
    def token_counts(self) -> dict[str, int]:
        """Σn and Σn² over the lengths of the examples' texts: what `zsg plan` estimates
        from."""
        squares = sum(n * n for lengths in self.text_lengths for n in lengths)
        return {"sum": sum(self.lengths), "squares": squares}

    @cached_property
    def apart(self) -> int:
        """Of how many examples the last prompt has other tokens where it stands alone."""
        if isinstance(self.encoded, Tokens):
            return self.encoded.apart
        return sum(e.apart for e in self.encoded)

    @cached_property
    def control(self) -> int:
        """How many words of control tokens stayed text under the chat template."""
        if isinstance(self.encoded, Tokens):
            return self.encoded.control
        return sum(e.control for e in self.encoded)

    def micro_batches(
        self,
        indices: Sequence[int],
        rank: int,
        world: int,
        budget: int,
        is_padded: bool = False,
    ) -> list[MicroBatch]:
        """This rank's part of the examples at `indices`: a pure function of its arguments.

        `budget`: the most tokens of one, of a longer example its own; `is_padded`: with
        those that fill examples up. Every rank gets equally many micro-batches, since
        ZeRO-3 gathers weights in each of them together.
        """
        texts = [
            (item, number)
            for item, index in enumerate(indices)
            for number in range(len(self.text_lengths[index]))
        ]
        lengths = [self.text_lengths[indices[item]][number] for item, number in texts]
        grouped = [
            schedule.make_micro_batches(share, lengths, budget, is_padded)
            for share in schedule.divide_batch(lengths, world)
        ]
        micro_batches = [
            self._pack([texts[number] for number in group], indices)
            for group in grouped[rank]
        ]
        idle = max(len(groups) for groups in grouped) - len(micro_batches)
        return micro_batches + [IDLE] * idle

    def _pack(
        self, texts: Sequence[tuple[int, int]], indices: Sequence[int]
    ) -> MicroBatch:
        """A row of texts, each by the item that it is of and its number there."""
        return pack_parts(
            [self._make_segment(item, indices[item], number) for item, number in texts]
        )

    def _make_segment(self, item: int, index: int, number: int) -> Segment:
        text = self.encoded[index].texts[number]
        return Segment(
            item, text.ids, spans=self.spans(text, index), is_first=number == 0
        )

    def spans(self, text: EncodedExample, index: int) -> list[tuple[int, int]]:
        """Which tokens are target tokens of the example at `index`, or of one of its
        texts."""
        return text.target_spans(self.targets[index])


IDLE = MicroBatch([], _ids(0), _ids(0), [1], _ids(), _ids(), _ids())
