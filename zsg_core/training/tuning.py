"""Counts the weights that a way of tuning trains (LoRA: Hu et al. 2021, arXiv 2106.09685)."""

from collections.abc import Iterable, Mapping
from typing import Any

from zsg_core.errors import UserError
from zsg_core.training.llama import LlamaShape

NO_BIASES = (
    "train.tuning: bitfit trains biases, and this Llama has none (as LLaMA and LLaMA-2): nothing"
    " would be trained; ln trains the norms, lora adapters"
)


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
EMBEDDING = "embed_tokens"


def count_trained_parameters(shape: LlamaShape, tuning: Mapping[str, Any]) -> int:
    """Trained parameters: all; LoRA's Σ r·(d_in + d_out) over its targets; the norms';
    the biases'. UserError for a target that the model does not have."""
    match tuning["method"]:
        case "lora":
            return sum(
                tuning["r"]
                * sum(_find_sizes(shape, target))
                * _count_modules(shape, target)
                for target in list_lora_modules(tuning["targets"])
            )
        case "ln":
            return shape.hidden * (2 * shape.layers + 1)
        case "bitfit":
            return shape.biases
        case _:
            return shape.parameters


def list_lora_modules(targets: Iterable[str]) -> list[str]:
    """The modules of a Llama that LoRA's targets name, each once, roles spelt out.

    UserError for what a Llama does not have: adapters that are nowhere train nothing.
    """
    roles = {"attention": ATTENTION, "mlp": MLP, "all": (*ATTENTION, *MLP)}
    known = (*ATTENTION, *MLP, EMBEDDING)
    modules: set[str] = set()
    for target in targets:
        named = roles.get(target, (target,))
        if not set(named) <= set(known):
            raise UserError(
                f"train.tuning.targets: {target!r} is nothing that this model has; name roles"
                f" ({', '.join(roles)}) or modules ({', '.join(known)})"
            )
        modules.update(named)
    return sorted(modules)


def _find_sizes(shape: LlamaShape, target: str) -> tuple[int, int]:
    """What goes into a target module and what comes out."""
    keys = shape.kv_heads * shape.head_dim
    return {
        "q_proj": (shape.hidden, shape.queries),
        "k_proj": (shape.hidden, keys),
        "v_proj": (shape.hidden, keys),
        "o_proj": (shape.queries, shape.hidden),
        "gate_proj": (shape.hidden, shape.intermediate),
        "up_proj": (shape.hidden, shape.intermediate),
        "down_proj": (shape.intermediate, shape.hidden),
        "embed_tokens": (shape.vocab, shape.hidden),
    }[target]


def _count_modules(shape: LlamaShape, target: str) -> int:
    return 1 if target == EMBEDDING else shape.layers
