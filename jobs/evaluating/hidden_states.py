"""Takes hidden states out of a model as it stands: of chosen layers, each sequence's
mean over chosen tokens.

Sequences meet in a batch as examples do in training: one after the other in a row, or
each in a row of its own, and see only themselves.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.model import batch_budget
from jobs.model.answer_loss import PADDED, choose_batching
from jobs.model.architecture import find_body
from jobs.model.batch_budget import BatchBudget
from jobs.model.packed_attention import Row, make_inputs
from jobs.model.padding import pad
from jobs.training.batches import Segment, pack_parts
from zsg_core.errors import UserError
from zsg_core.training import schedule

Span = tuple[int, int]  # half-open, of a sequence's tokens


@torch.no_grad()
def average_spans(
    model: Any,
    sequences: Sequence[Sequence[int]],
    spans: Sequence[Span],
    layers: Sequence[int],
    device: str,
) -> NDArray[np.float32]:
    """(L, N, H): of each layer and sequence the mean over the tokens of its span, in float32.

    Layer 0 is the input embedding, layer N the output of the Nth decoder layer, the
    last after the final norm. UserError for a layer that the model does not have.
    """
    last = model.config.num_hidden_layers
    if beyond := [layer for layer in layers if layer > last]:
        raise UserError(
            f"the model has no layer {beyond[0]}: its layers are 0, the input embedding, to {last}"
        )
    shape = len(layers), len(sequences), model.config.hidden_size
    averages = np.empty(shape, np.float32)
    micro_tokens = schedule.MICRO_TOKENS[device.partition(":")[0]]
    budget = BatchBudget(model, device).choose_state_tokens(micro_tokens)
    sizes = [len(sequence) for sequence in sequences]
    for batch in _plan_batches(model, sizes, budget):
        row = pack_parts([Segment(index, sequences[index]) for index in batch])
        tokens, positions, lengths, *_ = row.on(device)
        states = _take_states(model, tokens, positions, lengths)
        starts = np.cumsum([0, *row.lengths[:-1]])
        for number, layer in enumerate(layers):
            of_layer = states(layer)
            for index, start in zip(batch, starts, strict=True):
                first, stop = spans[index]
                of_span = of_layer[start + first : start + stop]
                averages[number, index] = of_span.float().mean(0).cpu().numpy()
    return averages


def _plan_batches(model: Any, lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Which sequences stand in a batch, by their places."""
    is_padded = choose_batching(model) == PADDED
    return batch_budget.plan_batches(lengths, budget, is_padded)


def _take_states(
    model: Any, tokens: torch.Tensor, positions: torch.Tensor, lengths: Sequence[int]
) -> Callable[[int], torch.Tensor]:
    """The states (T, H) of each layer, of sequences whose `tokens` (T,) stand one after
    the other."""
    body = find_body(model)
    if choose_batching(model) == PADDED:
        padded = pad(tokens, positions, lengths)
        states = padded.call(body, output_hidden_states=True).hidden_states
        return lambda layer: states[layer].flatten(0, 1)[padded.places]
    inputs = make_inputs(tokens, positions, Row(lengths))
    states = body(**inputs, output_hidden_states=True).hidden_states
    return lambda layer: states[layer][0]
