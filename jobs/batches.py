"""Gives each rank its micro-batches of a step: token ids, padded, and which positions are learnt."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.base_model import Vocabulary
from jobs.folder import read_json
from zsg_core import prompts, schedule
from zsg_core.digest import ids_digest
from zsg_core.errors import ClusterError
from zsg_core.examples import Example
from zsg_core.prompts import Encoded

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class MicroBatch:
    """`items` are places in the batch; `tokens`, `mask` and `labels` are (len(items), longest) int64.

    `labels` is −100 wherever nothing is learnt; a position's label is the token that stands there (unshifted).
    An idle micro-batch keeps a rank in step with the others: one token, nothing learnt, no items.
    """

    items: list[int]
    tokens: Ids
    mask: Ids
    labels: Ids


class TokenizedSet:
    """A list of examples as token ids."""

    def __init__(self, items: Sequence[Example], vocabulary: Vocabulary, shots: int, max_length: int) -> None:
        self.ids = [item.id for item in items]
        how = {"shots": shots, "bos": vocabulary.bos, "eos": vocabulary.eos, "max_length": max_length}
        self.encoded: list[Encoded] = [prompts.encode(e, tokenize=vocabulary.tokenize, **how) for e in items]
        self.lengths = [len(e.ids) for e in self.encoded]
        self.answer_tokens = [e.answer_tokens for e in self.encoded]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def shortened(self) -> int:
        """How many examples lost tokens to max_length."""
        return sum(e.cut > 0 for e in self.encoded)

    @cached_property
    def token_counts(self) -> dict[str, int]:
        """Σn and Σn² over the examples' lengths: what `zsg plan` estimates from."""
        return {"sum": sum(self.lengths), "squares": sum(n * n for n in self.lengths)}

    def micro_batches(self, places: Sequence[int], rank: int, world: int, budget: int) -> list[MicroBatch]:
        """This rank's part of the examples at `places`: a pure function of its arguments.

        Every rank gets equally many micro-batches, since ZeRO-3 gathers weights in each of them together.
        """
        lengths = [self.lengths[place] for place in places]
        grouped = [schedule.micro_batches(own, lengths, budget) for own in schedule.share(lengths, world)]
        mine = [self._pad(group, [places[item] for item in group]) for group in grouped[rank]]
        idle = max(len(groups) for groups in grouped) - len(mine)
        return mine + [_IDLE] * idle

    def _pad(self, items: list[int], places: list[int]) -> MicroBatch:
        longest = max(self.lengths[place] for place in places)
        tokens = np.zeros((len(places), longest), dtype=np.int64)
        mask = np.zeros_like(tokens)
        labels = np.full_like(tokens, -100)
        for row, place in enumerate(places):
            example = self.encoded[place]
            n, start = len(example.ids), example.answer_start
            tokens[row, :n] = example.ids
            mask[row, :n] = 1
            labels[row, start:n] = example.ids[start:]
        return MicroBatch(items, tokens, mask, labels)


_IDLE = MicroBatch([], *(np.array([[value]], dtype=np.int64) for value in (0, 1, -100)))


def in_order(folder: Path, examples: Sequence[Example]) -> list[Example]:
    """The examples as an arrangement's `ids` file lists them: the one place where order enters training."""
    by_id = {example.id: example for example in examples}
    ids = (folder / "ids").read_text(encoding="utf-8").splitlines()
    meta = read_json(folder / "meta.json")
    if not meta or ids_digest(ids) != meta["ids_digest"]:
        raise ClusterError(f"{folder}: `ids` is not the list that its meta.json describes; remove the folder")
    return [by_id[line] for line in ids]
