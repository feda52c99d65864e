"""Computes the loss: negative log-likelihood summed over each example's learnt tokens."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from jobs.model.packed_attention import Row
from zsg_core.errors import ClusterError, UserError

Forward = Callable[..., torch.Tensor]


class AnswerLoss(nn.Module):
    """Wraps a Llama so that one forward gives float32 sums of −log p over the learnt
    tokens of each example.

    Logits are made only where something is learnt: prompts are most of the tokens and
    the vocabulary most of a small model's work. Training and evaluation both go through
    here, so they cannot differ.
    """

    def __init__(self, llama: Any) -> None:
        super().__init__()
        self.llama = llama

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: Sequence[int],
        where: torch.Tensor,
        targets: torch.Tensor,
        owners: torch.Tensor,
        after: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """The examples' sums, (N,) for N = len(lengths).

        `tokens`, `positions`: (T,), the examples one after the other. `where`,
        `targets`, `owners`: (K,), the place of the state that predicts a learnt token,
        the token, and its example. With K = 0 the sums are zeros that still hang on the
        graph, so that a rank with nothing to do stays in step with the others. With
        `after` the sums are those of parts of examples: see
        jobs.model.packed_attention.
        """
        hidden = self.llama.model(
            input_ids=tokens[None],
            position_ids=positions[None],
            use_cache=False,
            row=Row(lengths, after),
        ).last_hidden_state[0]
        sums = torch.zeros(len(lengths), dtype=torch.float32, device=tokens.device)
        if not len(where):
            return sums + self.llama.lm_head(hidden[:1]).float().sum() * 0.0
        logits = self.llama.lm_head(hidden[where]).float()
        nll = nn.functional.cross_entropy(logits, targets, reduction="none")
        return sums.index_add(0, owners, nll)


@torch.no_grad()
def refuse_leaks(forward: Forward, vocabulary: int, device: str) -> None:
    """Raises UserError for a model that gives no numbers.

    Raises ClusterError unless a change in one part of a packed row changes, to the bit,
    just what may see it.

    Of examples one after the other that is nothing else, of a prefix what goes on from
    it, which must also give what it gives in an example of its own. All ranks call it
    together before they train. Models have let packed examples see each other in
    silence: transformers 5.23 does, where a cache is made or a mask is given.
    """
    row = [
        [number * step % vocabulary for number in range(3, end)]
        for step, end in ((5, 90), (7, 40), (11, 40))
    ]
    shared = [-1, 0, 0]
    for after in (None, shared):
        before = _losses(forward, row, after, device)
        if not all(map(math.isfinite, before)):
            raise UserError(_not_finite(forward, before))
        for place, part in enumerate(row):
            # the later one: a part that sees only the beginning of its prefix is found too
            half = len(part) // 2
            changed = [
                *part[:half],
                *((token + 1) % vocabulary for token in part[half:]),
            ]
            now = _losses(
                forward, [*row[:place], changed, *row[place + 1 :]], after, device
            )
            may_see = {place} | {
                i for i, start in enumerate(after or ()) if start == place
            }
            if {i for i in range(len(row)) if now[i] != before[i]} != may_see:
                raise ClusterError(
                    _LEAK.format("can see each other, or not what they go on from,")
                )
    alone = _losses(forward, [row[0] + row[1], row[0] + row[2]], None, device)
    before = _losses(forward, row, shared, device)[1:]
    if any(
        abs(one - other) > 2e-2 * abs(other)
        for one, other in zip(before, alone, strict=True)
    ):
        raise ClusterError(
            _LEAK.format("that share a prefix do not give what they give alone")
        )


def _not_finite(forward: Any, losses: Sequence[float]) -> str:
    """Why a model's losses are no numbers: weights that are none, by their names, or
    too large a product."""
    model = getattr(forward, "module", forward)
    # ZeRO 3's part of this rank
    named = [(name, getattr(p, "ds_tensor", p)) for name, p in model.named_parameters()]
    device = named[0][1].device
    broken = torch.tensor(
        [int(not torch.isfinite(p.detach()).all()) for _, p in named], device=device
    )
    if dist.is_initialized():
        dist.all_reduce(broken, op=dist.ReduceOp.MAX)
    names = [
        name.removeprefix("llama.")
        for (name, _), is_broken in zip(named, broken.tolist(), strict=True)
        if is_broken
    ]
    said = (
        f"the model's loss is not a number ({', '.join(str(loss) for loss in losses)}); nothing was"
        " trained"
    )
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return (
            f"{said}: its weights have NaN or infinite values, in {', '.join(names[:3])}{more}; get"
            " the model anew"
        )
    kind = next((p.dtype for _, p in named if p.is_floating_point()), None)
    if kind == torch.float16:
        return (
            f"{said}: its weights are finite, but it overflows in fp16; use train.precision: bf16"
            " or fp32"
        )
    return (
        f"{said}: its weights are finite, but what it computes from them is not; is it the model"
        " that its config says?"
    )


_LEAK = (
    "packed examples {} in this model's attention, so every result would be wrong; nothing was"
    " trained. Use the versions of torch and transformers in constraints.txt"
)


def _losses(
    forward: Forward,
    parts: Sequence[Sequence[int]],
    after: Sequence[int] | None,
    device: str,
) -> list[float]:
    """Of the last token of each part: a sum of several could differ by the order in
    which a GPU adds."""
    lengths = [len(part) for part in parts]
    flat = torch.tensor([token for part in parts for token in part], device=device)
    begins = [
        0 if start < 0 else lengths[start] for start in after or [-1] * len(parts)
    ]
    positions = torch.cat(
        [
            torch.arange(b, b + n, device=device)
            for b, n in zip(begins, lengths, strict=True)
        ]
    )
    where = torch.tensor(lengths, device=device).cumsum(0) - 2
    owners = torch.arange(len(parts), device=device)
    return forward(
        flat, positions, lengths, where, flat[where + 1], owners, after
    ).tolist()
