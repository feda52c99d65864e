"""Chooses how a model's layers compute: activations a second time, which saves memory,
or compiled, which saves time.

Neither changes what is computed. Recomputing gives the same bits; a compiled layer
rounds in other places.
"""

from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from jobs.model import architecture, packed_attention


def set_up(model: Any, *, recompute: bool, compiled: bool) -> None:
    """Changes the layers in place, before an engine takes them over. Where no gradient
    is asked for nothing is kept."""
    if compiled:
        packed_attention.stay_out_of_graphs()
    for layer in architecture.find_layers(model):
        if recompute:
            # Nothing is drawn, so no generator's state need be put back.
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
        if compiled:
            layer.compile(dynamic=True)
