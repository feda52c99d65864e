"""Takes how likely continuations of contexts are, of all requests of a task at once.

What several requests begin with is encoded once: options of a token each follow one
state, longer ones share their context, and items with the same shots share these (see
zsg_core.data.prefixes). The layout depends on the requests alone, so it is made once
for all checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from jobs.model.answer_loss import AnswerLoss, is_padded
from jobs.model.target_scores import Integers, ScoredRow, score_targets
from zsg_core.data import prefixes
from zsg_core.data.prefixes import PrefixGroup
from zsg_core.training import schedule

Ids = Sequence[int]


class Continuation(NamedTuple):
    """The log-probability of a continuation, summed over its tokens, and whether it is
    what the likeliest tokens would be."""

    log_likelihood: float
    is_greedy: bool


@dataclass(frozen=True)
class _Wanted:
    """A request: which text it is of, from which of its places on it is predicted, and
    the tokens."""

    text: int
    start: int
    targets: tuple[int, ...]


class _LaidRow(NamedTuple):
    """A row, and of which request each of its targets is."""

    row: ScoredRow
    owners: Integers


class ScoredRequests:
    """Requests of one task: token ids of contexts and of what follows each of them."""

    def __init__(self, requests: Sequence[tuple[Ids, Ids]], positions: int) -> None:
        """`positions`: how many tokens the model reads at once.

        Of what is longer the beginning is left out, as lm-evaluation-harness does, and
        `cut` counts it. Requests whose contexts and continuations differ in their last
        token alone are of one text: nothing follows that token, so it needs no state.
        ValueError for a continuation that is longer itself, and for an empty one or one
        without a context.
        """
        self.cut = 0
        self._texts: list[tuple[int, ...]] = []
        self._wanted: list[_Wanted] = []
        numbers: dict[tuple[int, ...], int] = {}
        for context, continuation in requests:
            if not context or not continuation:
                raise ValueError("a context or what follows it has no token")
            if len(continuation) > positions:
                raise ValueError(
                    f"a continuation of {len(continuation)} tokens is longer than the"
                    f" model's {positions} positions"
                )
            whole = [*context, *continuation]
            self.cut += len(whole) > positions + 1
            # nothing follows the last token, so it needs no state
            text = tuple(map(int, whole[-(positions + 1) :][:-1]))
            number = numbers.setdefault(text, len(numbers))
            if number == len(self._texts):
                self._texts.append(text)
            start = len(text) - len(continuation)
            targets = tuple(map(int, continuation))
            self._wanted.append(_Wanted(number, start, targets))
        self._rows: dict[tuple[int, int, bool], list[_LaidRow]] = {}

    def measure(
        self, model: AnswerLoss, device: str, budget: int
    ) -> list[Continuation]:
        """The scores of all requests, in their order, by the weights that the model has.

        `budget`: the most tokens of a training micro-batch; without gradients a row may
        have more, by the device's factor. A sum is taken in float64. The model is left
        in the state for evaluation.
        """
        factor = schedule.EVALUATION_FACTOR[device.partition(":")[0]]
        key = budget, factor, is_padded(model)
        if key not in self._rows:
            self._rows[key] = self._lay_out(*key)
        sums = torch.zeros(len(self._wanted), dtype=torch.float64)
        misses = torch.zeros(len(self._wanted), dtype=torch.int64)
        model.eval()
        for laid in self._rows[key]:
            scores, is_likeliest = score_targets(model, laid.row, device)
            owners = torch.from_numpy(laid.owners)
            sums.index_add_(0, owners, scores)
            misses.index_add_(0, owners, (~is_likeliest).long())
        return [
            Continuation(total, missed == 0)
            for total, missed in zip(sums.tolist(), misses.tolist(), strict=True)
        ]

    def count_tokens(self, budget: int) -> int:
        """How many tokens are encoded, what is shared once."""
        rows = self._lay_out(budget, 1, False)
        return sum(len(laid.row.tokens) for laid in rows)

    def _lay_out(self, budget: int, factor: int, padded: bool) -> list[_LaidRow]:
        """The rows of all texts, each of at most `factor * budget` tokens.

        A scored state counts as `factor` tokens, since its logits are what takes memory.
        Where the model pads examples, `padded`, none share a beginning. The longest rows
        come first.
        """
        groups = [PrefixGroup((index,)) for index in range(len(self._texts))]
        if not padded:
            limits = [len(text) - 1 for text in self._texts]
            groups = prefixes.group_by_prefix(self._texts, limits, budget)
        of_text: list[list[int]] = [[] for _ in self._texts]
        for number, request in enumerate(self._wanted):
            of_text[request.text].append(number)
        costs = [self._count_cost(group, of_text, factor) for group in groups]
        rows = schedule.make_micro_batches(
            range(len(groups)), costs, factor * budget, padded
        )
        return [self._pack([groups[n] for n in row], of_text) for row in rows]

    def _count_cost(
        self, group: PrefixGroup, of_text: Sequence[Sequence[int]], factor: int
    ) -> int:
        """The tokens of a group's texts, what they share once; a scored one counts as
        `factor` tokens."""
        tokens, scored = group.prefix, 0
        for text in group.places:
            tokens += len(self._texts[text]) - group.prefix
            scored += self._count_asked(of_text[text])
        return tokens + (factor - 1) * scored

    def _count_asked(self, requests: Sequence[int]) -> int:
        """How many states of a text are asked at most."""
        return sum(len(self._wanted[number].targets) for number in requests)

    def _pack(
        self, groups: Sequence[PrefixGroup], of_text: Sequence[Sequence[int]]
    ) -> _LaidRow:
        """One row of the texts of some groups, with what is to be scored in it.

        What a group shares stands once before its texts, which go on from it; a token of
        a continuation is scored after the state before it, wherever that stands.
        """
        packer = _Packer()
        for group in groups:
            shared = packer.add_shared(self._texts[group.places[0]][: group.prefix])
            for text in group.places:
                begin = packer.add_text(self._texts[text], group.prefix, shared)
                for number in of_text[text]:
                    request = self._wanted[number]
                    for offset, target in enumerate(request.targets):
                        packer.ask(begin.find(request.start + offset), target, number)
        return packer.finish()


@dataclass(frozen=True)
class _Begin:
    """Where the tokens of a text are in a row: the first `prefix` of them from `shared`
    on, the others from `own` on."""

    shared: int
    prefix: int
    own: int

    def find(self, position: int) -> int:
        """Where in the row the token at a position of the text is."""
        if position < self.prefix:
            return self.shared + position
        return self.own + position - self.prefix


class _Packer:
    """Writes segments one after the other, and notes which states are asked for what."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._lengths: list[int] = []
        self._after: list[int] = []
        self._asked: list[tuple[int, int, int]] = []  # place, target, owner

    def add_shared(self, ids: Ids) -> tuple[int, int]:
        """A segment that others go on from: where it begins, and its number; −1 for
        none."""
        begin = len(self._tokens)
        if not ids:
            return begin, -1
        self._add(ids, 0, -1)
        return begin, len(self._lengths) - 1

    def add_text(self, ids: Ids, prefix: int, shared: tuple[int, int]) -> _Begin:
        """The rest of a text behind what it shares."""
        begin, number = shared
        rest_begin = len(self._tokens)
        self._add(ids[prefix:], prefix, number)
        return _Begin(begin, prefix, rest_begin)

    def _add(self, ids: Ids, first: int, after: int) -> None:
        self._tokens += ids
        self._positions += range(first, first + len(ids))
        self._lengths.append(len(ids))
        self._after.append(after)

    def ask(self, state: int, target: int, owner: int) -> None:
        """Has a token be scored after a state of the row, for a request."""
        self._asked.append((state, target, owner))

    def finish(self) -> _LaidRow:
        """The row, and of which request each of its targets is.

        A state that is asked several times, as of options of a token each, is asked
        once. Targets are sorted by their states.
        """
        triples = np.array(sorted(self._asked), np.int64).reshape(-1, 3)
        states, of_place = np.unique(triples[:, 0], return_inverse=True)
        after = self._after if max(self._after) >= 0 else None
        row = ScoredRow(
            tokens=np.array(self._tokens, np.int64),
            positions=np.array(self._positions, np.int64),
            lengths=self._lengths,
            after=after,
            places=states,
            targets=triples[:, 1].copy(),
            of_place=of_place.astype(np.int64),
        )
        return _LaidRow(row, triples[:, 2].copy())
