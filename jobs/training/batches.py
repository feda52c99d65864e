"""Gives each rank its micro-batches of a step: packed rows of token ids, and which
tokens are learnt."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zsg_core.data.prompts import ANSWER, EncodedExample
from zsg_core.training import schedule

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class MicroBatch:
    """`items` are places in the batch; their examples stand one after the other in
    `tokens`, (T,) int64.

    `positions` (T,) count from 0 in each example. `where`, `targets`, `owners` (K,),
    `after`: see `AnswerLoss.forward`. An idle micro-batch keeps a rank in step with the
    others: one token, nothing learnt, no items.
    """

    items: list[int]
    tokens: Ids
    positions: Ids
    lengths: list[int]
    where: Ids
    targets: Ids
    owners: Ids
    after: list[int] | None = None

    def on(self, device: str) -> tuple[Any, ...]:
        """What `AnswerLoss.forward` takes, on a device."""
        tokens, positions, *learnt = (
            torch.from_numpy(ids).to(device, non_blocking=True)
            for ids in (
                self.tokens,
                self.positions,
                self.where,
                self.targets,
                self.owners,
            )
        )
        return tokens, positions, self.lengths, *learnt, self.after


@dataclass(frozen=True)
class Part:
    """A stretch of an example that stands whole in a row: its tokens from place `begin` on.

    `spans` of the example's tokens are learnt, `after` is the part of the row that this
    one goes on from, or −1.
    """

    item: int
    ids: Sequence[int]
    begin: int = 0
    spans: Sequence[tuple[int, int]] = ()
    after: int = -1


def _ids(*values: int) -> Ids:
    return np.array(values, dtype=np.int64)


def pack_parts(parts: Sequence[Part]) -> MicroBatch:
    """A row of parts, one after the other; of a part's first token there is nothing in
    it to learn from."""
    lengths = [len(part.ids) for part in parts]
    starts = np.cumsum([0, *lengths[:-1]])
    tokens = np.concatenate([part.ids for part in parts]).astype(np.int64)
    learnt = [
        np.concatenate(
            [_ids(), *(np.arange(first, stop) for first, stop in part.spans)]
        )
        - part.begin
        + start
        for part, start in zip(parts, starts, strict=True)
    ]
    where = np.concatenate(learnt) - 1
    owners = np.repeat(np.arange(len(parts)), [len(places) for places in learnt])
    positions = np.concatenate(
        [np.arange(part.begin, part.begin + len(part.ids)) for part in parts]
    )
    after = (
        [part.after for part in parts]
        if any(part.after >= 0 for part in parts)
        else None
    )
    return MicroBatch(
        [part.item for part in parts],
        tokens,
        positions,
        lengths,
        where,
        tokens[where + 1],
        owners,
        after,
    )


class TokenizedSet:
    """A list of examples as token ids."""

    def __init__(
        self,
        ids: Sequence[str],
        encoded: Sequence[EncodedExample],
        tasks: Sequence[str] = (),
        learnt: str = ANSWER,
    ) -> None:
        self.ids, self.tasks, self.encoded, self._learnt = (
            list(ids),
            list(tasks),
            encoded,
            learnt,
        )
        self.lengths = [len(e.ids) for e in encoded]
        self.learnt = [
            sum(stop - first for first, stop in self.spans(e)) for e in encoded
        ]
        self.scales: list[float] = []  # see jobs.training.task_scales

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def shortened(self) -> int:
        """How many examples lost tokens to max_length."""
        return sum(e.cut > 0 for e in self.encoded)

    @cached_property
    def unanswered(self) -> int:
        """How many examples lost their whole answer to max_length, so that nothing of
        them is learnt."""
        return self.learnt.count(0)

    @cached_property
    def token_counts(self) -> dict[str, int]:
        """Σn and Σn² over the examples' lengths: what `zsg plan` estimates from."""
        return {"sum": sum(self.lengths), "squares": sum(n * n for n in self.lengths)}

    def micro_batches(
        self, places: Sequence[int], rank: int, world: int, budget: int
    ) -> list[MicroBatch]:
        """This rank's part of the examples at `places`: a pure function of its arguments.

        Every rank gets equally many micro-batches, since ZeRO-3 gathers weights in each
        of them together.
        """
        lengths = [self.lengths[place] for place in places]
        grouped = [
            schedule.make_micro_batches(own, lengths, budget)
            for own in schedule.divide_batch(lengths, world)
        ]
        mine = [
            self._pack(group, [places[item] for item in group])
            for group in grouped[rank]
        ]
        idle = max(len(groups) for groups in grouped) - len(mine)
        return mine + [IDLE] * idle

    def _pack(self, items: list[int], places: list[int]) -> MicroBatch:
        examples = [self.encoded[place] for place in places]
        return pack_parts(
            [
                Part(i, e.ids, spans=self.spans(e))
                for i, e in zip(items, examples, strict=True)
            ]
        )

    def spans(self, example: EncodedExample) -> list[tuple[int, int]]:
        """Which of its tokens are learnt."""
        return example.target_spans(self._learnt)


IDLE = MicroBatch([], _ids(0), _ids(0), [1], _ids(), _ids(), _ids())
