"""Proves of a family, by its own config, how its examples may meet in a batch: packed
one after the other, padded side by side, or not at all.

A class's flags say little: of those that call their attention exchangeable some attend
otherwise, some keep a state that runs on from one example into the next. So a small
model of the folder's own config is made, with large random weights, and texts that go
beyond its windows are run through it packed, padded, and each alone in transformers'
own eager attention and the class's own forward. It reads no weights and takes seconds on a CPU.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.contract.model_proof import (
    PACKED,
    PADDED,
    REFUSED,
    AttentionProof,
    read_proof_versions,
)
from jobs.model import architecture, packed_attention
from jobs.model.head_pass import HeadPass
from jobs.model.packed_attention import Row, make_inputs
from jobs.model.padding import pad
from jobs.model.small_config import (
    VOCABULARY,
    find_longest,
    shrink_config,
)
from zsg_core.errors import UserError

# of the largest logit, by how much packed or padded texts may differ from each alone
TOLERANCE = 1e-4
# weights as large as this let a wrong attention be seen: those of a fresh model do not
WEIGHT_STD, NORM_STD = 0.3, 0.1
# all longer than the small model's windows, none a multiple of them
LENGTHS = (20, 33, 27)
# of texts that begin alike: what they have in common, and how each goes on
SHARED_LENGTHS, SHARED_AFTER = (20, 13, 9), (-1, 0, 0)
FIRST_TOKEN = 5  # those before it mean something to some tokenizer
MOST_PARAMETERS = 20_000_000
SEED = 1


@dataclass(frozen=True)
class Compared:
    """How far texts together are from each alone: `difference` of a logit at most, None
    where it could not be tried, and then `fault` says why."""

    difference: float | None = None
    fault: str | None = None

    def is_within(self, largest: float) -> bool:
        """Whether it is rounding."""
        return self.difference is not None and self.difference <= TOLERANCE * largest


def try_to_prove(config: Any) -> AttentionProof:
    """The same as prove_attention; what zsg cannot train by its kind is refused by the
    proof, which says why."""
    started = time.monotonic()
    try:
        return prove_attention(config)
    except UserError as error:
        return AttentionProof(
            model_type=str(config.model_type),
            batching=REFUSED,
            largest_logit=0.0,
            fault=str(error),
            seconds=round(time.monotonic() - started, 2),
            versions=read_proof_versions() or {},
        )


def prove_attention(config: Any) -> AttentionProof:
    """How examples of a model of this config may meet, and by which numbers.

    `config`: of transformers. UserError for one that zsg cannot train by its kind: see
    refuse_unfit.
    """
    started = time.monotonic()
    refuse_unfit(config)
    with _quiet(), torch.random.fork_rng(devices=[]):
        alone, compared = _compare(config)
    largest = max((text.abs().max().item() for text in alone), default=0.0)
    packed, padded = compared
    batching = REFUSED
    if packed.is_within(largest):
        batching = PACKED
    elif padded.is_within(largest):
        batching = PADDED
    return AttentionProof(
        model_type=config.model_type,
        batching=batching,
        packed=packed.difference,
        packed_fault=packed.fault,
        padded=padded.difference,
        padded_fault=padded.fault,
        largest_logit=largest,
        longest=find_longest(config),
        seconds=round(time.monotonic() - started, 2),
        versions=read_proof_versions() or {},
    )


def refuse_unfit(config: Any) -> None:
    """UserError for what zsg does not train whatever its attention: quantised weights,
    code of the folder's own, what draws at random while it trains, and what find_class
    refuses."""
    architecture.find_class(config)
    architecture.refuse_drawn_experts(config)
    family = config.model_type
    if getattr(config, "quantization_config", None):
        raise UserError(
            f"the weights of this {family!r} model are quantised, which zsg does not train; take"
            " its full weights"
        )
    if getattr(config, "auto_map", None):
        raise UserError(
            f"this {family!r} model comes with code of its own, which zsg does not run; take one"
            " that transformers knows"
        )


def _compare(config: Any) -> tuple[list[torch.Tensor], tuple[Compared, Compared]]:
    """The logits of each text alone, and what packing and padding make of them."""
    small = shrink_config(config)
    model_class = architecture.find_class(small)
    texts = _draw_texts(LENGTHS)
    try:
        _refuse_large(small)
        eager = _build(model_class, small)
        alone = [_run_alone(eager, text) for text in texts]
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a family may raise anything where it does not fit
        raise UserError(
            f"no small {config.model_type!r} model can be run to prove this one by:"
            f" {_describe_error(error)}"
        ) from error
    if not all(torch.isfinite(text).all() for text in alone):
        raise UserError(
            f"a small {config.model_type!r} model gives logits that are no numbers, so nothing can"
            " be proven by it"
        )

    _refuse_lookahead(eager, texts[0], alone[0])

    def pack() -> float:
        """How far packed attention differs at most from each text alone, in the largest
        element of its output: once with texts behind one another, once with texts that
        go on from a common begin, which are compared behind it."""
        packed = _build_alike(model_class, small, packed_attention.NAME, eager)
        together = _run_packed(packed, texts)
        segments = _draw_texts(SHARED_LENGTHS)
        shared = _run_packed(packed, segments, SHARED_AFTER)
        whole = [
            _run_alone(eager, torch.cat([segments[0], end])) for end in segments[1:]
        ]
        ends = [text[SHARED_LENGTHS[0] :] for text in whole]
        return max(_measure(together, alone), _measure(shared[1:], ends))

    def pad() -> float:
        attention = architecture.choose_attention(model_class)
        padded = _build_alike(model_class, small, attention, eager)
        return _measure(_run_padded(padded, texts), alone)

    return alone, (_try(pack), _try(pad))


def _refuse_lookahead(model: Any, text: torch.Tensor, logits: torch.Tensor) -> None:
    """UserError where a token's logits depend on those after it: no language model to
    train, whatever its class is called."""
    half = len(text) // 2
    difference = _measure([_run_alone(model, text[:half])], [logits[:half]])
    if difference > TOLERANCE * logits.abs().max().item():
        raise UserError(
            f"a {model.config.model_type!r} model of this config sees the tokens that it is to"
            f" predict: what follows changes logits by {difference:.2g}"
        )


def _try(compare: Callable[[], float]) -> Compared:
    """What a comparison gives; of one that cannot be run, why."""
    try:
        difference = compare()
        if difference == torch.inf:
            return Compared(fault="it gives logits that are no numbers")
        return Compared(difference=difference)
    except MemoryError:  # of this machine, not of the model
        raise
    except UserError as error:
        return Compared(fault=_describe_error(error))
    except Exception as error:  # a family may raise anything where it does not fit
        return Compared(fault=f"its class cannot be run so ({_describe_error(error)})")


def _describe_error(error: Exception) -> str:
    """The first line of an error, at most 200 characters. An error that was written for
    users needs no name of its class before it."""
    lines = str(error).strip().splitlines() or [""]
    name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{name}{lines[0][:200]}"


def _refuse_large(small: Any) -> None:
    """UserError where a config did not become small: a size of it is not known."""
    skeleton = architecture.make_skeleton(small, torch.float32, "eager")
    parameters = sum(one.numel() for one in skeleton.parameters())
    if parameters > MOST_PARAMETERS:
        raise UserError(
            f"no small {small.model_type!r} model can be made to prove this one by: it still has"
            f" {parameters:,} parameters"
        )


def _build(model_class: Any, small: Any) -> Any:
    """A small model with large random weights, the same each time, as transformers
    attends where it is written out."""
    torch.manual_seed(SEED)
    model = _make(model_class, small, "eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, WEIGHT_STD)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=NORM_STD)
    return model


def _build_alike(model_class: Any, small: Any, attention: str, other: Any) -> Any:
    """A model with another's weights, that trains as zsg trains it."""
    model = _make(model_class, small, attention)
    model.load_state_dict(other.state_dict())
    return model.train()


def _make(model_class: Any, small: Any, attention: str) -> Any:
    """A model on the CPU that draws nothing. Each has a config of its own: how it
    attends is written into it."""
    model = model_class._from_config(
        copy.deepcopy(small), dtype=torch.float32, attn_implementation=attention
    ).eval()
    architecture.silence_dropouts(model)
    return model


def _draw_texts(lengths: Sequence[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    return [
        torch.randint(FIRST_TOKEN, VOCABULARY, (length,), generator=generator)
        for length in lengths
    ]


@torch.no_grad()
def _run_alone(model: Any, text: torch.Tensor) -> torch.Tensor:
    """The logits of a text, (T, V)."""
    return model(input_ids=text[None], use_cache=False).logits[0]


@torch.no_grad()
def _run_packed(
    model: Any, texts: Sequence[torch.Tensor], after: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """The logits of texts in one row, or of parts that go on from others, as the loss is
    taken: body first, then what the class does with its states."""
    lengths = [len(text) for text in texts]
    tokens, positions = _join(texts, after)
    inputs = make_inputs(tokens, positions, Row(lengths, after))
    states = architecture.find_body(model)(**inputs).last_hidden_state[0]
    return list(HeadPass(model).make_logits(states).split(lengths))


@torch.no_grad()
def _run_padded(model: Any, texts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The logits of texts side by side, filled up at their ends, in the same way."""
    lengths = [len(text) for text in texts]
    padded = pad(*_join(texts, None), lengths)
    states = padded.encode(architecture.find_body(model))[padded.places]
    return list(HeadPass(model).make_logits(states).split(lengths))


def _join(
    texts: Sequence[torch.Tensor], after: Sequence[int] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of texts one after the other, and their positions in each."""
    lengths = [len(text) for text in texts]
    begins = [
        0 if start < 0 else lengths[start] for start in after or [-1] * len(texts)
    ]
    positions = [
        torch.arange(begin, begin + length)
        for begin, length in zip(begins, lengths, strict=True)
    ]
    return torch.cat(list(texts)), torch.cat(positions)


def _measure(logits: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest difference of a logit; infinite where one is no number."""
    differences = [
        (text - alone).abs().nan_to_num(nan=torch.inf).max().item()
        for text, alone in zip(logits, expected, strict=True)
    ]
    return max(differences)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers says of kernels that are absent: eager is meant."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
