"""Computes the loss: negative log-likelihood summed over each example's learnt tokens."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from zsg_core.errors import ClusterError

Forward = Callable[..., torch.Tensor]


class AnswerLoss(nn.Module):
    """Wraps a Llama so that one forward gives float32 sums of −log p over the learnt tokens of each example.

    Logits are made only where something is learnt: prompts are most of the tokens and the vocabulary most of
    a small model's work. Training and evaluation both go through here, so they cannot differ.
    """

    def __init__(self, llama: Any) -> None:
        super().__init__()
        self.llama = llama

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, lengths: Sequence[int], where: torch.Tensor,
        targets: torch.Tensor, owners: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """The examples' sums, (N,) for N = len(lengths).

        `tokens`, `positions`: (T,), the examples one after the other. `where`, `targets`, `owners`: (K,), the place
        of the state that predicts a learnt token, the token, and its example. With K = 0 the sums are zeros that
        still hang on the graph, so that a rank with nothing to do stays in step with the others.
        """
        hidden = self.llama.model(
            input_ids=tokens[None], position_ids=positions[None], use_cache=False, lengths=lengths
        ).last_hidden_state[0]
        sums = torch.zeros(len(lengths), dtype=torch.float32, device=tokens.device)
        if not len(where):
            return sums + self.llama.lm_head(hidden[:1]).float().sum() * 0.0
        logits = self.llama.lm_head(hidden[where]).float()
        nll = nn.functional.cross_entropy(logits, targets, reduction="none")
        return sums.index_add(0, owners, nll)


@torch.no_grad()
def refuse_leaks(forward: Forward, vocabulary: int, device: str) -> None:
    """Raises ClusterError unless each of two packed examples gives, bit for bit, what it gives beside another one.

    All ranks call it together before they train. Models have let packed examples see each other in silence:
    transformers 5.23 does, where a cache is made or a mask is given.
    """
    one, other = [[number * step % vocabulary for number in range(3, 40)] for step in (7, 11)]
    changed = [[(token + 1) % vocabulary for token in example] for example in (one, other)]
    pair, first, second = (
        _losses(forward, row, device) for row in ((one, other), (changed[0], other), (one, changed[1]))
    )
    if first[1] != pair[1] or second[0] != pair[0]:
        raise ClusterError(
            "packed examples can see each other in this model's attention, so every result would be wrong; nothing "
            "was trained. Use the versions of torch and transformers in constraints.txt"
        )


def _losses(forward: Forward, row: Sequence[Sequence[int]], device: str) -> list[float]:
    lengths = [len(example) for example in row]
    flat = torch.tensor([token for example in row for token in example], device=device)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])
    starts = [0, lengths[0]]
    where = torch.cat([torch.arange(s, s + n - 1, device=device) for s, n in zip(starts, lengths, strict=True)])
    owners = torch.repeat_interleave(torch.arange(2, device=device), torch.tensor(lengths, device=device) - 1)
    return forward(flat, positions, lengths, where, flat[where + 1], owners).tolist()
