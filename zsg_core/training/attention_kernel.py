"""Says by which kernel training attends on a GPU, and why: what decides it is known of a
model's sizes before anything is loaded.

jobs.model.packed_attention does what is told here.
"""

from dataclasses import dataclass

from zsg_core.training.decoder import BOUND, DecoderShape

# size of a head that torch's flash kernel takes at most
# (aten/native/transformers/cuda/flash_attn/flash_api.cpp)
LARGEST_HEAD = 256

FLASH = "flash"
SDPA = "sdpa"
PRODUCTS = "products"
CLASS = "class"
UNKNOWN = "unknown"

_MEANS = {
    FLASH: "torch's flash kernel, all examples of a row in one call",
    SDPA: "torch's fused attention, one example after another",
    PRODUCTS: "products written out, which take memory of heads · n² for each example",
    CLASS: "what its class in transformers has, side by side: fused (sdpa) or written out",
    UNKNOWN: "not known before it is loaded",
}


@dataclass(frozen=True)
class AttentionKernel:
    """How layers attend on a GPU: one of the words above. `why`: of that choice."""

    kernel: str
    why: str

    def describe(self) -> str:
        """In words."""
        return f"{_MEANS[self.kernel]} ({self.why})"


def choose_kernel(
    shape: DecoderShape, precision: str, is_padded: bool = False
) -> AttentionKernel:
    """By which kernel the layers of a model attend on a GPU; of layers that differ, the
    one that takes most. `is_padded`: whether its examples cannot stand in one row."""
    if is_padded:
        return AttentionKernel(CLASS, "its examples are padded")
    if shape.known == BOUND:
        why = f"layers of a {shape.family!r} are not known by heart"
        return AttentionKernel(UNKNOWN, why)
    plain = sum(kind.count for kind in shape.layer_kinds if kind.has_plain_attention)
    if plain:
        why = f"{plain} of {shape.layers} layers cap scores or have sinks"
        return AttentionKernel(PRODUCTS, why)
    if precision == "fp32":
        return AttentionKernel(
            SDPA, "train.precision is fp32, flash takes bf16 and fp16"
        )
    size = find_largest_head(shape)
    if size > LARGEST_HEAD:
        why = f"heads of {size}, flash takes up to {LARGEST_HEAD}"
        return AttentionKernel(SDPA, why)
    return AttentionKernel(FLASH, f"heads of {size} in {precision}")


def find_largest_head(shape: DecoderShape) -> int:
    """The size of a head, of layers that differ the largest; of one whose values have
    another size than its queries, the mean."""
    widths = [kind.pair_width for kind in shape.layer_kinds]
    return max(widths, default=0) // (2 * shape.heads)
