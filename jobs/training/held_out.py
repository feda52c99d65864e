"""Measures the loss on the held-out examples: shared out over the ranks, one value
per item.

What several items begin with is encoded once: see zsg_core.data.prefixes. Which items
share does not depend on the number of ranks. Where a model pads examples none share.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from jobs.model.answer_loss import is_padded
from jobs.model.transfer import send_tensor
from jobs.runtime.ranks import Ranks
from jobs.training.batch_loss import item_means
from jobs.training.batches import IDLE, MicroBatch, Segment, TokenizedSet, pack_parts
from zsg_core.data import prefixes
from zsg_core.data.prefixes import PrefixGroup
from zsg_core.data.prompts import EncodedExample
from zsg_core.training import schedule


class HeldOutLoss:
    """The loss of a model on a test set, or on those items of it at `indices`, as often
    as it is asked for.

    `budget` is the most tokens of a training micro-batch. All ranks make it and call it together.
    """

    def __init__(
        self,
        engine: Any,
        test: TokenizedSet,
        ranks: Ranks,
        device: str,
        budget: int,
        indices: Sequence[int] | None = None,
        truncated_answers: str = "exclude",
        sharing: bool = True,
    ) -> None:
        """Lays out everything that stays the same from one measurement to the next:
        texts, which rank takes which, and how they are packed.

        `indices` choose among the items of `test`, None means all. `truncated_answers`
        says how an item counts whose answer was cut, as `item_means` has it. With
        `sharing`, texts that begin alike (the choices of one question) are passed once
        through their common begin, where the attention allows it.
        """
        self._engine, self._device, self._truncated_answers = (
            engine,
            device,
            truncated_answers,
        )
        chosen = range(len(test.encoded)) if indices is None else indices
        # An item is mostly one text; see EncodedExample.sequences.
        self._texts: list[EncodedExample] = []
        self._owners: list[int] = []
        self._count = len(chosen)
        self._spans: list[list[tuple[int, int]]] = []
        for number, index in enumerate(chosen):
            texts = test.encoded[index].texts
            self._texts += texts
            self._owners += [number] * len(texts)
            self._spans += [test.spans(text, index) for text in texts]
        self._learnt = list(map(_count_learnt, self._spans))
        self.tokens = self._sum_by_item(torch.tensor(self._learnt, dtype=torch.float64))
        self._is_padded = is_padded(engine)
        self._groups = (
            self._grouped(budget)
            if sharing and not self._is_padded
            else [PrefixGroup((index,)) for index in range(len(self._texts))]
        )
        self._micros = self._micro_batches(ranks, budget)

    @torch.no_grad()
    def measure(self) -> torch.Tensor:
        """(M,) float64: the mean loss of each item over its answer tokens, of which
        there are `tokens`, (M,).

        Of an item without any see `item_means`.
        """
        self._engine.eval()
        # the last for prefixes
        sums = torch.zeros(
            len(self._texts) + 1, dtype=torch.float64, device=self._device
        )
        for micro in self._micros:
            nll = self._engine(*micro.on(self._device)).double()
            if micro.items:
                sums[send_tensor(torch.tensor(micro.items), self._device)] = nll
        self._engine.train()
        dist.all_reduce(sums)  # exact: every text has one rank's sum and zeros
        by_item = self._sum_by_item(sums[:-1].cpu())
        return item_means(by_item, self.tokens, self._truncated_answers)

    def _sum_by_item(self, of_texts: torch.Tensor) -> torch.Tensor:
        """(M,): what the texts of each item have together."""
        if len(self._texts) == self._count:
            return of_texts
        owners = torch.tensor(self._owners)
        return torch.zeros(self._count, dtype=of_texts.dtype).index_add(
            0, owners, of_texts
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokens that the items are, and of which are learnt."""
        sha = hashlib.sha256()
        for item, spans in zip(self._texts, self._spans, strict=True):
            sha.update(np.array([len(item.ids), *item.ids], np.int64).tobytes())
            sha.update(f"{spans}\n".encode())
        return sha.hexdigest()

    @cached_property
    def token_counts(self) -> dict[str, int]:
        """Σn of what is encoded, and the Σn² by which attention costs: what `zsg plan`
        estimates from."""
        lengths = [
            [len(self._texts[index].ids) for index in group.places]
            for group in self._groups
        ]
        shared = [
            (group.prefix, group_lengths)
            for group, group_lengths in zip(self._groups, lengths, strict=True)
        ]
        squares = sum(
            prefix**2 + sum(n**2 - prefix**2 for n in group_lengths)
            for prefix, group_lengths in shared
        )
        return {
            "sum": sum(
                _size(prefix, group_lengths) for prefix, group_lengths in shared
            ),
            "squares": squares,
        }

    def _grouped(self, budget: int) -> list[PrefixGroup]:
        limits = [
            _unlearnt(item, spans)
            for item, spans in zip(self._texts, self._spans, strict=True)
        ]
        return prefixes.group_by_prefix(
            [item.ids for item in self._texts], limits, budget
        )

    def _micro_batches(self, ranks: Ranks, budget: int) -> list[MicroBatch]:
        """This rank's part; as many for every rank, since ZeRO-3 gathers weights in
        each of them together."""
        factor = schedule.EVALUATION_FACTOR[self._device.partition(":")[0]]
        sizes = [
            _size(group.prefix, [len(self._texts[p].ids) for p in group.places])
            for group in self._groups
        ]
        learnt = [
            sum(self._learnt[index] for index in group.places) for group in self._groups
        ]
        costs = [
            size + (factor - 1) * count
            for size, count in zip(sizes, learnt, strict=True)
        ]
        shares = schedule.divide_batch(sizes, ranks.world)
        rows = [
            schedule.make_micro_batches(share, costs, factor * budget, self._is_padded)
            for share in shares
        ]
        own_micro_batches = [
            self._pack([self._groups[number] for number in row])
            for row in rows[ranks.rank]
        ]
        return own_micro_batches + [IDLE] * (
            max(map(len, rows)) - len(own_micro_batches)
        )

    def _pack(self, groups: list[PrefixGroup]) -> MicroBatch:
        """One row of all texts of some groups, without padding. A group's common begin
        is a segment of its own, which learns nothing and from which the segments of its
        texts go on; its number lies behind those of all texts."""
        segments: list[Segment] = []
        for group in groups:
            begin, after = group.prefix, -1
            if begin:
                after = len(segments)
                segments.append(
                    Segment(len(self._texts), self._texts[group.places[0]].ids[:begin])
                )
            segments += [
                Segment(p, self._texts[p].ids[begin:], begin, self._spans[p], after)
                for p in group.places
            ]
        return pack_parts(segments)


def summarize_losses(
    means: torch.Tensor, tokens: torch.Tensor, key: str = "loss"
) -> dict[str, float]:
    """What a checkpoint says of a test set: the mean over its items, the mean over its tokens.

    Items whose loss is not finite are excluded and counted.
    """
    finite = torch.isfinite(means)
    data = {
        key: means[finite].mean().item() if finite.any() else float("nan"),
        f"{key}_token_mean": (
            (means * tokens)[finite].sum() / tokens[finite].sum()
        ).item(),
    }
    return (
        data
        if finite.all()
        else data | {f"{key}_excluded": float((~finite).sum().item())}
    )


def by_source(
    means: torch.Tensor, ids: Sequence[str], sources: Sequence[str], key: str = "loss"
) -> dict[str, float]:
    """The mean over the items of each of several sources, by which their `ids` begin;
    as `summarize_losses` takes it."""
    whose = [made_id.partition("/")[0] for made_id in ids]
    means_by_source = {
        name: means[
            torch.tensor([source == name for source in whose], dtype=torch.bool)
        ]
        for name in sources
    }
    finite = {
        name: source_means[torch.isfinite(source_means)]
        for name, source_means in means_by_source.items()
    }
    return {
        f"{key}/{name}": source_means.mean().item()
        for name, source_means in finite.items()
        if len(source_means)
    }


def _count_learnt(spans: Sequence[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in spans)


def _size(prefix: int, lengths: Sequence[int]) -> int:
    """Tokens that are encoded for examples of these lengths which share a prefix."""
    return prefix + sum(length - prefix for length in lengths)


def _unlearnt(item: EncodedExample, spans: Sequence[tuple[int, int]]) -> int:
    """The tokens before the one from whose state the first target token is predicted."""
    return min((first for first, _ in spans), default=len(item.ids)) - 1
