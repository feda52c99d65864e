"""Estimates what evaluating a decoder takes of its GPUs: weights, keys and values, and
what one pass needs beside them.

Arithmetic on sizes alone, in bytes; a GB is 1e9 bytes. A batch is R rows of n tokens
each, prompt, padding and answer; T = R·n. What a pass holds is that of transformers
5.23's generate under torch's SDPA, with a cache that grows by copying. With several
GPUs each holds some of the layers; the embedding, the last norm and the output layer
are on the first. A reward model is on the last, whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from zsg_core.training import estimate, schedule
from zsg_core.training.decoder import DecoderShape

# tokens of a batch, prompts, padding and answers together, where the memory has room
BATCH_TOKENS = 65_536
# tokens of a training micro-batch's budget over which the logits of one piece are spread
LEAST_BUDGET = 1024
# of the memory that is free: an allocator leaves gaps, the more as caches grow by copying
FILLED = 0.9
# of a logit while a token is drawn: as it comes, in float32, and what sorting float64
# probabilities takes (their order, sums before and behind)
LOGIT_BYTES = 80


@dataclass(frozen=True, kw_only=True)
class GpuPart:
    """What one GPU holds: so many of the model's layers; `weights`, theirs and what
    else it has of the model; `beside`: another model."""

    layers: int
    weights: float
    beside: float = 0.0

    @property
    def held(self) -> float:
        """What stays from batch to batch."""
        return self.weights + self.beside


def cache_bytes(
    shape: DecoderShape, precision: str, layers: int | None = None
) -> float:
    """Keys and values of one token: 2 · L · H_kv · D · s, for L layers, H_kv heads of
    keys of D elements of s bytes; of `layers`, or of all. A window does not shorten it:
    a bound."""
    size = estimate.ELEMENT[precision]
    width = sum(kind.count * kind.cache_width for kind in shape.layer_kinds)
    if layers is None:
        return float(width * size)
    return width * size * layers / shape.layers


def pass_bytes(shape: DecoderShape, precision: str) -> float:
    """What one token takes while a layer is at work: that of `estimate.layer_bytes`, a
    bound where no backward pass follows; the states before and after it, 2 · d · s; the
    layer's keys and values as they are copied, 2 · H · D · s once repeated for each of
    the H heads."""
    size = estimate.ELEMENT[precision]
    states, copied = 2.0 * size * shape.hidden, 2.0 * size * shape.queries
    return estimate.layer_bytes(shape, precision) + states + copied


def token_bytes(
    shape: DecoderShape, precision: str, row: int, layers: int | None = None
) -> float:
    """What one token of a batch of rows of `row` tokens takes on a GPU that holds so
    many layers: cache, pass, and its part of mask and logits.

    Of the mask each row has n² elements, as truth values and as numbers: (1 + s) · n a
    token. Where no kernel does what scores need, they stand in memory, too. Logits are
    of a row's last token: LOGIT_BYTES · V / n.
    """
    mask = (1.0 + estimate.ELEMENT[precision]) * row
    logits = LOGIT_BYTES * shape.vocab / row
    cache = cache_bytes(shape, precision, layers)
    scores = 0.0
    if any(kind.has_plain_attention for kind in shape.layer_kinds):
        scores = estimate.score_bytes(shape, precision, row)
    return cache + pass_bytes(shape, precision) + mask + logits + scores


def loss_bytes(shape: DecoderShape, precision: str) -> float:
    """What one token of a training micro-batch's budget takes where the loss of test
    items is measured: an evaluation has EVALUATION_FACTOR times the tokens in its pass,
    of which as many as the budget have logits, 12 · V bytes as in training, made in
    pieces: of a vocabulary so large that few tokens are a piece it is a share of that."""
    factor = schedule.EVALUATION_FACTOR["cuda"]
    largest = 12.0 * schedule.PIECE_LOGITS["cuda"] / LEAST_BUDGET
    logits = min(12.0 * shape.vocab, largest)
    return factor * pass_bytes(shape, precision) + logits


def state_bytes(shape: DecoderShape, precision: str) -> float:
    """What one token takes where the hidden states of all layers are kept: a pass, and
    (L + 1) · d · s."""
    size = estimate.ELEMENT[precision]
    return pass_bytes(shape, precision) + (shape.layers + 1.0) * shape.hidden * size


def spread_layers(
    layers: int, layer: float, first: float, beside: Sequence[float]
) -> list[int]:
    """How many layers of `layer` bytes each GPU holds, so that none is much fuller than
    another: each goes where the least is.

    `first`: what the first GPU has beside its layers; `beside`: what other models take
    of each.
    """
    loads = [held + (first if index == 0 else 0.0) for index, held in enumerate(beside)]
    counts = [0] * len(loads)
    for _ in range(layers):
        emptiest = loads.index(min(loads))
        counts[emptiest] += 1
        loads[emptiest] += layer
    return counts


def fit_tokens(
    shape: DecoderShape,
    precision: str,
    rows: Sequence[int],
    parts: Sequence[tuple[int, float]],
) -> int:
    """How many tokens a batch may have: BATCH_TOKENS, or that halved until it fits.

    `rows`: the lengths of the rows; `parts`: of each GPU the layers that it holds, and
    its free bytes once they are there. A row is never divided, so a batch may have as
    many tokens as the longest. Halves, so that some free memory more or less gives the
    same batches.
    """
    shortest, longest = min(rows), max(rows)
    fitting = min(
        FILLED
        * free
        / max(token_bytes(shape, precision, row, layers) for row in (shortest, longest))
        for layers, free in parts
    )
    tokens = BATCH_TOKENS
    while tokens > fitting and tokens > longest:
        tokens //= 2
    return max(tokens, longest)


@dataclass(frozen=True, kw_only=True)
class EvaluationLoad:
    """What must fit: a model in a precision, one row of `row` tokens, and another model
    of `beside` bytes, such as one of rewards."""

    shape: DecoderShape
    precision: str
    row: int
    beside: float = 0.0

    def spread(self, gpus: int) -> list[GpuPart]:
        """What each of so many GPUs holds."""
        size = estimate.ELEMENT[self.precision]
        layer = size * self.shape.layer_parameters
        whole = size * self.shape.parameters
        first = whole - layer * self.shape.layers
        beside = [0.0] * (gpus - 1) + [self.beside]
        counts = spread_layers(self.shape.layers, layer, first, beside)
        return [
            GpuPart(
                layers=count,
                weights=layer * count + (first if index == 0 else 0.0),
                beside=beside[index],
            )
            for index, count in enumerate(counts)
        ]

    def row_need(self, part: GpuPart) -> float:
        """What one row takes on a GPU."""
        per_token = token_bytes(self.shape, self.precision, self.row, part.layers)
        return self.row * per_token

    def need(self, gpus: int) -> float:
        """The most bytes on any of so many GPUs, with one row at a time."""
        needs = [part.held + self.row_need(part) for part in self.spread(gpus)]
        return max(needs)

    def fits(self, gpus: int, memory: float) -> bool:
        """Whether GPUs of `memory` bytes have room for one row."""
        for part in self.spread(gpus):
            free = FILLED * (memory - part.held)
            if self.row_need(part) > free:
                return False
        return True

    def rows_at_once(self, gpus: int, memory: float) -> int:
        """How many rows are answered at once on GPUs of `memory` bytes."""
        free_by_gpu = [(part.layers, memory - part.held) for part in self.spread(gpus)]
        tokens = fit_tokens(
            self.shape,
            self.precision,
            [self.row],
            free_by_gpu,
        )
        return tokens // self.row
