"""Takes hidden states out of a Llama as it stands: of chosen layers, each sequence's
mean over chosen tokens.

Sequences stand one after the other in rows without padding, and attend only to
themselves, as in training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.model.batch_budget import BatchBudget
from jobs.model.packed_attention import Row, make_inputs
from jobs.training.batches import Segment, pack_parts
from zsg_core.errors import UserError
from zsg_core.training import schedule

Span = tuple[int, int]  # half-open, of a sequence's tokens


@torch.no_grad()
def average_spans(
    llama: Any,
    sequences: Sequence[Sequence[int]],
    spans: Sequence[Span],
    layers: Sequence[int],
    device: str,
) -> NDArray[np.float32]:
    """(L, N, H): of each layer and sequence the mean over the tokens of its span, in float32.

    Layer 0 is the input embedding, layer N the output of the Nth decoder layer, the
    last after the final norm. UserError for a layer that the model does not have.
    """
    most = llama.config.num_hidden_layers
    if beyond := [layer for layer in layers if layer > most]:
        raise UserError(
            f"the model has no layer {beyond[0]}: its layers are 0, the input embedding, to {most}"
        )
    found = np.empty(
        (len(layers), len(sequences), llama.config.hidden_size), np.float32
    )
    micro_tokens = schedule.MICRO_TOKENS[device.partition(":")[0]]
    budget = BatchBudget(llama, device).choose_state_tokens(micro_tokens)
    for places in schedule.make_micro_batches(
        range(len(sequences)), [len(one) for one in sequences], budget
    ):
        row = pack_parts([Segment(place, sequences[place]) for place in places])
        tokens, positions, lengths, *_ = row.on(device)
        inputs = make_inputs(tokens, positions, Row(lengths))
        states = llama.model(**inputs, output_hidden_states=True).hidden_states
        starts = np.cumsum([0, *row.lengths[:-1]])
        for number, layer in enumerate(layers):
            of_row = states[layer][0]
            for place, start in zip(places, starts, strict=True):
                first, stop = spans[place]
                found[number, place] = (
                    of_row[start + first : start + stop].float().mean(0).cpu().numpy()
                )
    return found
