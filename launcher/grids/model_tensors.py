"""Says what of a folder's tensors is not as its config.json says: missing, too many, of
other shapes. By names and shapes alone, in time that grows with their number."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from launcher.grids.model_files import Tensor
from zsg_core.families.headers import NOT_LOADED, find_further_layers
from zsg_core.families.shape import describe_shape
from zsg_core.schema_errors import format_brief
from zsg_core.training.decoder import EXACT, DecoderShape
from zsg_core.training.decoder_layers import EXPERT, LayerKind, Weight

# a config that asks for more than so many times the tensors that there are is not
# compared with them by name
MOST_TIMES, FEW = 4, 10_000
# of two tensors that should be one: so many pieces of so many bytes
SAMPLES, SAMPLE = 64, 4096
# how transformers (5.23) calls in memory what files have otherwise, where all experts of
# a layer are one tensor; it loads files that have those names, too
JOINED_ENDS = ("experts.gate_up_proj", "experts.down_proj")
JOINED_FOLDER = "mlp.experts"
IN_MEMORY = {
    "block_sparse_moe.gate.weight": "mlp.gate.weight",
    "block_sparse_moe.input_linear.weight": "block_sparse_moe.experts.gate_up_proj",
    "block_sparse_moe.output_linear.weight": "block_sparse_moe.experts.down_proj",
    "block_sparse_moe.router.layer.weight": "block_sparse_moe.router.weight",
}
GATES, UPS, DOWNS = ("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")

ShapeByKeys = tuple[tuple[int, ...], str]  # a shape, and the keys that give it


@dataclass(frozen=True)
class Stored:
    """The tensors of a folder beside the shape that its config.json describes.

    `by_name`: as a whole model calls them.
    """

    shape: DecoderShape
    by_name: Mapping[str, Tensor]
    further: Collection[str]

    @property
    def is_exact(self) -> bool:
        """Whether the config alone says which tensors there must be."""
        return self.shape.known == EXACT

    @cached_property
    def expected(self) -> dict[str, ShapeByKeys]:
        """Every tensor of the architecture by its name: its shape, and which keys of
        config.json give it."""
        return _list_expected(self.shape)

    @cached_property
    def surplus(self) -> list[str]:
        """The tensors that the model has no place for."""
        known = {*self.expected, self.shape.names.head}
        return sorted(
            name
            for name in self.by_name
            if name not in known
            and name not in self.further
            and not NOT_LOADED.search(name)
        )

    def is_within(self, name: str) -> bool:
        """Whether a name is one of the model's own, and no other thing's."""
        names = self.shape.names
        return name.startswith((names.prefix, names.head.partition(".")[0] + "."))


def compare_with_config(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Stored:
    """The tensors beside the shape that the config describes, else they themselves.
    ValueError where neither tells it."""
    shape = describe_shape(
        config, lambda: {name: tensor.shape for name, tensor in tensors.items()}
    )
    by_name = _add_prefix(shape, tensors)
    further = frozenset(find_further_layers(config, by_name))
    is_joined = shape.has_experts and any(
        name.endswith(JOINED_ENDS) for name in by_name
    )
    if is_joined and shape.known == EXACT:
        shape = _join_experts(shape)
    return Stored(shape, by_name, further)


def find_misfits(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Each as a sentence without the folder's name."""
    try:
        stored = compare_with_config(config, tensors)
    except ValueError as error:
        yield f"config.json: {error}"
        return
    if not stored.is_exact:
        return
    shape = stored.shape
    if shape.tensor_count > MOST_TIMES * len(stored.by_name) + FEW:
        # their names are not made: a hostile config would fill the memory with them
        yield (
            f"by the layers and experts of config.json there are {shape.tensor_count:,} tensors;"
            f" the weights have {len(stored.by_name):,}"
        )
        return
    yield from _find_missing(stored)
    yield from _find_surplus(stored)
    misshapen = [*_find_misshapen(stored)]
    yield from misshapen
    if shape.tied and not misshapen:
        yield from _find_untied(stored)


def _find_missing(stored: Stored) -> Iterator[str]:
    """Tensors that config.json asks for and the weights lack."""
    missing = [name for name in stored.expected if name not in stored.by_name]
    if missing:
        first = missing[0]
        reason = _why_missing(first, stored.shape)
        yield f"the weights lack {len(missing)} tensors, the first {first}{reason}"


def _find_surplus(stored: Stored) -> Iterator[str]:
    """Tensors that config.json has no place for."""
    surplus = [name for name in stored.surplus if stored.is_within(name)]
    if surplus:
        first = surplus[0]
        reason = _why_surplus(first, stored.shape)
        model = _title(stored.shape)
        yield (
            f"{len(surplus)} tensors have no place in the {model} of config.json, the first"
            f" {format_brief(first)}{reason}"
        )


def find_notes(stored: Stored) -> Iterator[str]:
    """What of the tensors works and is not as it seems, each as a sentence."""
    if stored.further:
        first = min(stored.further)
        yield (
            f"{len(stored.further)} tensors, the first {format_brief(first)}, predict tokens beyond"
            " the next one; transformers leaves them out: they are not trained, and snapshots have"
            " none"
        )
    if not stored.is_exact:
        yield (
            f"zsg does not know the layers of a {stored.shape.family!r} by heart: its parameters"
            " are counted from the tensors, what it takes in training is bounded"
        )
        return
    outside = [name for name in stored.surplus if not stored.is_within(name)]
    if outside:
        yield (
            f"{len(outside)} tensors are no part of a {_title(stored.shape)}, the first"
            f" {format_brief(outside[0])}; they are left out"
        )


def _add_prefix(
    shape: DecoderShape, tensors: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """The tensors as a whole model calls them: some published files leave out what
    stands before the names of its body."""
    prefix = shape.names.prefix
    starts = (prefix, shape.names.head)
    if any(name.startswith(prefix) for name in tensors):
        return tensors
    return {
        name if name.startswith(starts) else prefix + name: tensor
        for name, tensor in tensors.items()
    }


def _join_experts(shape: DecoderShape) -> DecoderShape:
    """The same shape with the names that transformers has in memory."""
    kinds = [
        replace(kind, weights=tuple(_list_in_memory(kind)))
        for kind in shape.layer_kinds
    ]
    return replace(shape, kinds=tuple(kinds), outside=shape.weights_outside)


def _list_in_memory(kind: LayerKind) -> Iterator[Weight]:
    """A layer's weights as transformers calls them: of experts' gates and ups one."""
    for weight in kind.weights:
        leaf = weight.module.rpartition(".")[2]
        if EXPERT not in weight.name:
            yield replace(weight, name=IN_MEMORY.get(weight.name, weight.name))
        elif leaf in GATES:
            rows, columns = weight.shape
            shape = (weight.experts, 2 * rows, columns)
            yield replace(weight, name=f"{JOINED_FOLDER}.gate_up_proj", shape=shape)
        elif leaf in DOWNS:
            shape = (weight.experts, *weight.shape)
            yield replace(weight, name=f"{JOINED_FOLDER}.down_proj", shape=shape)
        else:
            assert leaf in UPS, leaf  # one with its gate


def _list_expected(shape: DecoderShape) -> dict[str, ShapeByKeys]:
    """Every tensor that a model of this shape saves, by name: its shape, and the keys
    of config.json from which the shape comes, for a message.

    In order: the embedding, what stands outside of layers, the head unless it is tied
    and so not saved, and the layers by number.
    """
    table = ((shape.vocab, shape.hidden), "vocab_size × hidden_size")
    tensors: dict[str, ShapeByKeys] = {shape.names.embedding: table}
    within: list[tuple[str, ShapeByKeys]] = []
    for name, weight in shape.list_tensors():
        of_name = (weight.shape, weight.keys)
        if weight in shape.weights_outside:
            tensors[name] = of_name
        else:
            within.append((name, of_name))
    if not shape.tied:
        tensors[shape.names.head] = table
    within.sort(key=lambda entry: _by_module(entry[0]))
    tensors.update(within)
    return tensors


def _by_module(name: str) -> tuple[int, str, bool]:
    """Layers in their order; in each, modules by name, and the weight before the bias."""
    number = re.search(r"\.(\d+)\.", name)
    module, _, kind = name.rpartition(".")
    return int(number[1]) if number else 0, module, kind == "bias"


def _find_misshapen(stored: Stored) -> Iterator[str]:
    tensors = stored.by_name
    misshapen = [
        name
        for name, (sizes, _) in stored.expected.items()
        if name in tensors and tensors[name].shape != sizes
    ]
    if misshapen:
        name = misshapen[0]
        sizes, keys = stored.expected[name]
        source = f"by {keys or 'config.json'}"
        yield (
            f"{len(misshapen)} tensors have another shape than config.json says, the first {name}: "
            f"{_format_shape(tensors[name].shape)}, {source} {_format_shape(sizes)}"
        )


def _find_untied(stored: Stored) -> Iterator[str]:
    names = stored.shape.names
    output = stored.by_name.get(names.head)
    embedding = stored.by_name.get(names.embedding)
    if output and embedding and not _are_alike(output, embedding):
        yield (
            f"config.json has tie_word_embeddings, but {names.head} is not the embedding;"
            " transformers would leave them untied: set tie_word_embeddings to false in a copy,"
            f" or take {names.head} out"
        )


def _title(shape: DecoderShape) -> str:
    return "Llama" if shape.family == "llama" else shape.family


def _why_missing(name: str, shape: DecoderShape) -> str:
    if not name.endswith(".bias") or shape.family != "llama":
        return ""
    flag = "mlp_bias" if ".mlp." in name else "attention_bias"
    return f" (config.json has {flag})"


def _why_surplus(name: str, shape: DecoderShape) -> str:
    if name.endswith("_proj.bias") and shape.family == "llama":
        flag = "mlp_bias" if ".mlp." in name else "attention_bias"
        return f"; config.json has no {flag}"
    number = re.match(r"[\w.]*?\.(\d{1,9})\.", name)
    if number and int(number[1]) >= shape.layers:
        return f"; its num_hidden_layers is {shape.layers}"
    return ""


def _format_shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape[:8])) or "a single number"


def _are_alike(tensor: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same bytes, as far as some pieces tell: whole, they
    would take a minute."""
    if (tensor.dtype, tensor.size) != (second.dtype, second.size):
        return False
    last = max(0, tensor.size - SAMPLE)
    offsets = sorted({last * number // SAMPLES for number in range(SAMPLES + 1)})
    with tensor.file.open("rb") as file, second.file.open("rb") as second_file:
        for offset in offsets:
            file.seek(tensor.start + offset)
            second_file.seek(second.start + offset)
            length = min(SAMPLE, tensor.size - offset)
            if file.read(length) != second_file.read(length):
                return False
    return True
