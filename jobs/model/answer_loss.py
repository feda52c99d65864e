"""Computes the loss: negative log-likelihood summed over each example's target tokens."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from jobs.model import packed_attention
from jobs.model.architecture import find_body
from jobs.model.head_pass import HeadPass
from jobs.model.packed_attention import Row, make_inputs
from jobs.model.padding import pad
from zsg_core.errors import ClusterError, UserError

Forward = Callable[..., torch.Tensor]

# how the examples of a micro-batch meet: one after the other in a row, or each in a row
# of its own, filled up to the longest
PACKED, PADDED = "packed", "padded"
# of a row of three, that each of the others goes on from the first
SHARED_PREFIX = [-1, 0, 0]
# of a config, how far a token sees; and how far each should in the rows of refuse_leaks
_REACHES = ("sliding_window", "attention_chunk_size")
_SEEN_TOKENS = 124


class AnswerLoss(nn.Module):
    """Wraps a causal language model so that one forward gives float32 sums of −log p
    over the learnt tokens of each example.

    Logits are made only where something is learnt: prompts are most of the tokens and
    the vocabulary most of a small model's work. Training and evaluation both go through
    here, so they cannot differ. A router's own loss is not part of it: that is a mean
    over all tokens of a micro-batch, so it would depend on how examples meet.
    """

    def __init__(
        self, model: Any, batching: str = PACKED, head_pass: HeadPass | None = None
    ) -> None:
        """`batching`: PACKED where the model's attention is packed_attention's, or
        PADDED: see jobs.model.padding. `head_pass`: what else is to be taken of each
        token than −log p. UserError for a class whose head cannot be told from its
        body."""
        super().__init__()
        self.model = model
        self.batching = batching
        self._head_pass = head_pass or HeadPass(model)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: Sequence[int],
        predicting: torch.Tensor,
        targets: torch.Tensor,
        owners: torch.Tensor,
        after: Sequence[int] | None = None,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The examples' sums, (N,) for N = len(lengths).

        `tokens`, `positions`: (T,), the examples one after the other. `predicting`,
        `targets`, `owners`: (K,), the place of the state that predicts a target token,
        the token, and its example. With K = 0 the sums are zeros that still hang on the
        graph, so that a rank with nothing to do stays in step with the others. With
        `after` the sums are those of parts of examples: see
        jobs.model.packed_attention. Padded examples have no such parts.
        `weights`, (N,) float32: what the gradient of the sums will be, where that is
        known; it saves work: see jobs.model.head_pass.
        """
        body = find_body(self.model)
        if self.batching == PADDED:
            assert after is None, "what is padded shares no prefix"
            padded = pad(tokens, positions, lengths)
            hidden = padded.encode(body)
            predicting = padded.places[predicting]
        else:
            inputs = make_inputs(tokens, positions, Row(lengths, after))
            hidden = body(**inputs).last_hidden_state[0]
        sums = torch.zeros(len(lengths), dtype=torch.float32, device=tokens.device)
        if not len(predicting):
            return sums + self._head_pass.hang_on_graph(hidden[:1])
        of_tokens = None if weights is None else weights[owners]
        nll = self._head_pass.take_losses(hidden[predicting], targets, of_tokens)
        return sums.index_add(0, owners, nll)


def choose_batching(model: Any) -> str:
    """How examples meet in a model: packed where it was loaded with zsg's attention."""
    is_packed = model.config._attn_implementation == packed_attention.NAME
    return PACKED if is_packed else PADDED


def is_padded(forward: Forward) -> bool:
    """Whether an AnswerLoss, or the engine that runs one, pads examples."""
    model = getattr(forward, "module", forward)
    return getattr(model, "batching", PACKED) == PADDED


@torch.no_grad()
def refuse_leaks(forward: Forward, vocabulary: int, device: str) -> None:
    """Raises UserError for a model that gives no numbers.

    Raises ClusterError unless a change in one part of a packed row changes just what
    may see it: to the bit, but where experts' products round by how many tokens each
    has.

    Of examples one after the other that is nothing else, of a prefix what goes on from
    it, which must also give what it gives in an example of its own. What does not see
    as far need not change. All ranks call it together before they train. Models have
    let packed examples see each other in silence: transformers 5.23 does, where a cache
    is made or a mask is given.
    """
    row = [
        [number * step % vocabulary for number in range(3, end)]
        for step, end in ((5, 90), (7, 40), (11, 40))
    ]
    if is_padded(forward):
        _refuse_other_sight(forward, row, None, vocabulary, device)
        return
    for after in (None, SHARED_PREFIX):
        _refuse_other_sight(forward, row, after, vocabulary, device)
    alone = _losses(forward, [row[0] + row[1], row[0] + row[2]], None, device)
    _prefix, *sharing = _losses(forward, row, SHARED_PREFIX, device)
    share = max(2e-2, _expect_sight(forward).rounding)
    if any(
        abs(loss - expected) > share * abs(expected)
        for loss, expected in zip(sharing, alone, strict=True)
    ):
        raise ClusterError(
            _LEAK.format("that share a prefix do not give what they give alone")
        )


def _refuse_other_sight(
    forward: Forward,
    row: Sequence[list[int]],
    after: Sequence[int] | None,
    vocabulary: int,
    device: str,
) -> None:
    """Raises ClusterError unless a change of a segment shows just where it may be seen."""
    sight = _expect_sight(forward)
    losses = _losses(forward, row, after, device)
    if not all(map(math.isfinite, losses)):
        raise UserError(_explain_not_finite(forward, losses))
    for index, segment in enumerate(row):
        changed = _change_second_half(segment, vocabulary)
        changed_row = [*row[:index], changed, *row[index + 1 :]]
        changed_losses = _losses(forward, changed_row, after, device)
        # any change shows that a segment sees; only a large one that it should not
        seeing = _differ_at(losses, changed_losses, 0.0)
        leaking = _differ_at(losses, changed_losses, sight.rounding)
        may_see = _who_sees(index, after)
        must_see = may_see if sight.is_far else {index}
        if not (must_see <= seeing and leaking <= may_see):
            raise ClusterError(
                _LEAK.format("can see each other, or not what they go on from,")
            )


def _change_second_half(segment: list[int], vocabulary: int) -> list[int]:
    """The later one: a segment that sees only the beginning of its prefix is found too."""
    half = len(segment) // 2
    changed = [(token + 1) % vocabulary for token in segment[half:]]
    return [*segment[:half], *changed]


def _differ_at(
    losses: Sequence[float], changed: Sequence[float], rounding: float
) -> set[int]:
    """Where two lists differ by more than this share."""
    pairs = enumerate(zip(losses, changed, strict=True))
    return {
        index
        for index, (before, now) in pairs
        if abs(now - before) > rounding * abs(before)
    }


@dataclass(frozen=True)
class _Sight:
    """What a change in a row shows in a model: `rounding`, by what share of a loss even
    where nothing of it is seen; `is_far`: whether all that may see it do."""

    rounding: float
    is_far: bool


def _expect_sight(forward: Any) -> _Sight:
    """What to expect of a model by its config: windows, and experts, whose products are
    made of all tokens that chose one. In 16 bits these may even choose another one."""
    model = getattr(getattr(forward, "module", forward), "model", None)
    config = getattr(model, "config", None)
    reaches = [getattr(config, name, None) for name in _REACHES]
    reach = min(filter(None, reaches), default=math.inf)
    rounding = 0.0
    if getattr(config, "num_experts_per_tok", None):
        rounding = 1e-4 if getattr(model, "dtype", None) == torch.float32 else 0.2
    return _Sight(rounding, is_far=not rounding and reach > _SEEN_TOKENS)


def _who_sees(index: int, after: Sequence[int] | None) -> set[int]:
    """The segments that may see one: itself, and those that go on from it."""
    return {index} | {
        follower for follower, start in enumerate(after or ()) if start == index
    }


def _explain_not_finite(forward: Any, losses: Sequence[float]) -> str:
    """Why a model's losses are no numbers: weights that are none, by their names, or
    too large a product."""
    model = getattr(forward, "module", forward)
    # ZeRO 3's part of this rank
    weights = {
        name.removeprefix("model."): getattr(parameter, "ds_tensor", parameter)
        for name, parameter in model.named_parameters()
    }
    listed = ", ".join(map(str, losses))
    trouble = f"the model's loss is not a number ({listed}); nothing was trained"
    names = _list_broken_weights(weights)
    if names:
        listed_names = ", ".join(names[:3])
        if len(names) > 3:
            listed_names += f" and {len(names) - 3} more"
        return (
            f"{trouble}: its weights have NaN or infinite values, in {listed_names}; get the model"
            " anew"
        )
    dtypes = (tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    if next(dtypes, None) == torch.float16:
        return (
            f"{trouble}: its weights are finite, but it overflows in fp16; use train.precision:"
            " bf16 or fp32"
        )
    return (
        f"{trouble}: its weights are finite, but what it computes from them is not; is it the model"
        " that its config says?"
    )


def _list_broken_weights(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of weights that are not finite on any rank."""
    device = next(iter(weights.values())).device
    broken = torch.tensor(
        [int(not torch.isfinite(w.detach()).all()) for w in weights.values()],
        device=device,
    )
    if dist.is_initialized():
        dist.all_reduce(broken, op=dist.ReduceOp.MAX)
    return [
        name
        for name, is_broken in zip(weights, broken.tolist(), strict=True)
        if is_broken
    ]


_LEAK = (
    "packed examples {} in this model's attention, so every result would be wrong; nothing was"
    " trained. Use the versions of torch and transformers in constraints.txt"
)


def _losses(
    forward: Forward,
    segments: Sequence[Sequence[int]],
    after: Sequence[int] | None,
    device: str,
) -> list[float]:
    """Of the last token of each segment: a sum of several could differ by the order in
    which a GPU adds."""
    lengths = [len(segment) for segment in segments]
    flat = torch.tensor(list(chain.from_iterable(segments)), device=device)
    begins = [
        0 if start < 0 else lengths[start] for start in after or [-1] * len(segments)
    ]
    positions = torch.cat(
        [
            torch.arange(b, b + n, device=device)
            for b, n in zip(begins, lengths, strict=True)
        ]
    )
    predicting = torch.tensor(lengths, device=device).cumsum(0) - 2
    owners = torch.arange(len(segments), device=device)
    return forward(
        flat, positions, lengths, predicting, flat[predicting + 1], owners, after
    ).tolist()
