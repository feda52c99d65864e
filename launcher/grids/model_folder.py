"""Is a folder a decoder, or a reward model, that a node can load? Told from its files
alone, without torch.

The nodes load with transformers' `from_pretrained`, which fills tensors that the files
lack with random numbers, leaves out those that it has no place for, puts an adapter
that lies beside them on top, and takes quantised weights for others, each with a
warning at most. So the folder is judged whole here: config.json, the name, shape and
dtype of each tensor from the headers of the files, and the tokenizer's ids.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from jobs.contract.folder import get_object
from jobs.files import ordinary_files
from jobs.files.model_file_names import SINGLE_WEIGHTS as SINGLE
from jobs.files.model_file_names import WEIGHT_INDEXES as INDEXES
from jobs.model import content
from jobs.preparing import embedding_code
from launcher.grids import (
    decoder_config,
    model_config,
    model_tensors,
    model_tokenizer,
)
from launcher.grids.model_files import Tensor, is_pointer, read_json, read_tensors
from zsg_core.errors import UserError
from zsg_core.families import shape as shapes
from zsg_core.families.headers import NOT_LOADED
from zsg_core.families.registry import find_family
from zsg_core.schema_errors import format_brief
from zsg_core.shown_text import make_showable
from zsg_core.training.decoder import DecoderShape

HEAD = "regression_head.weight"
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# ModelOpt's, AutoGPTQ's, AutoAWQ's
QUANTISERS = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
# What is found in place of weights that transformers loads, and what to do with it.
OTHER_WEIGHTS = {
    "*.gguf": (
        "transformers reads it with from_pretrained(folder, gguf_file=…,"
        " quantization_config=GgufConfig(dequantize=True)); save model and tokenizer with"
        " save_pretrained"
    ),
    "consolidated*.pth": (
        "these are Meta's own files; transformers' convert_llama_weights_to_hf.py makes a folder"
    ),
    "*.safetensors": "transformers looks for model.safetensors, or an index beside shards",
    "*.bin": "transformers looks for pytorch_model.bin, or an index beside shards",
    "*.pt": "save the model with transformers' save_pretrained",
    "*.pth": "save the model with transformers' save_pretrained",
    "*.h5": "these are TensorFlow's; save the model with transformers' save_pretrained",
    "*.msgpack": "these are Flax's; save the model with transformers' save_pretrained",
}
FLOATS = ("F32", "F16", "BF16")
# of tables that some classes look tokens up in; no quantiser packs weights into them
NUMBERS = ("I64", "BOOL")
# Names that only quantised weights have: GPTQ's and AWQ's, bitsandbytes', FP8's, HQQ's,
# compressed-tensors'.
PACKED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|SCB|absmax|quant_map|nested_absmax|quant_state\..+|weight_scale(_inv|_2)?"
    r"|input_scale|weight_packed|weight_shape|weight_zero_point|W_q)$|\.weight\.(absmax|quant_map|quant_state\..+)$"
)
UNQUANTISED = "zsg trains F32, F16 and BF16; give the unquantised weights"
NO_TOKENIZER = f"there is no tokenizer ({' or '.join(model_tokenizer.FILES)})"
MOST_TOLD = 8  # faults of one folder
MOST_SAID = 1200  # characters of them


def check_decoder(folder: Path) -> None:
    """Raises UserError unless the folder is a decoder as its config says, whole, with a
    tokenizer that fits."""
    _check("model.path", folder, _find_decoder_faults)


def check_config(folder: Path) -> None:
    """The same where there are no weights yet: by its config.json alone, of a family that
    is known by heart. What there is of a tokenizer is checked, too."""
    _check("model.path", folder, _find_config_faults)


def has_weights(folder: Path) -> bool:
    """Whether there are weights of any form in a folder."""
    patterns = ("*.safetensors", "*.bin", *OTHER_WEIGHTS, *INDEXES)
    return any(any(folder.glob(pattern)) for pattern in patterns)


def read_shape(folder: Path) -> DecoderShape:
    """The shape of a folder's decoder, by its family's module, else by its tensors.
    UserError where neither tells it."""
    config = _read_config(folder)

    def read_shapes() -> shapes.Shapes:
        tensors = _read_tensors(folder) or {}
        return {name: tensor.shape for name, tensor in tensors.items()}

    try:
        return shapes.describe_shape(config, read_shapes)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None


def check_reward(key: str, folder: Path) -> None:
    """Raises UserError unless the folder has a model with a head that gives one number,
    and a tokenizer."""
    _check(key, folder, _find_reward_faults)


def check_embedding(key: str, folder: Path) -> None:
    """Raises UserError for a sentence-transformers folder with pointers for files, or
    with code of its own.

    And, as for all folders, for links that lead out of it.
    """
    _check(key, folder, _find_embedding_faults)


def check_length(key: str, length: int, folder: Path) -> None:
    """Raises UserError for examples longer than the model of the folder was made for."""
    limit, reason = model_config.find_length_limit(_read_config(folder))
    if length > limit:
        raise UserError(
            f"{key} {length} is beyond the model's {limit} positions ({folder}: {reason}); lower"
            " it"
        )


def is_tied(folder: Path) -> bool:
    """Whether embedding and output layer are one table."""
    config = _read_config(folder)
    entry = find_family(config)
    if entry is not None:
        return entry.read(config).is_tied
    return bool(config.get("tie_word_embeddings", True))


def find_notes(folder: Path, added: Collection[str] = ()) -> list[str]:
    """What of a model's folder works and is not as it seems, each as a line; `added`
    are the grid's own tokens.

    The folder has been checked.
    """
    config = _read_config(folder)
    if not has_weights(folder):
        return [
            f"model.path {folder}: there are no weights: planned from config.json alone. zsg submit"
            " wants weights and a tokenizer, and with them the runs get other ids"
        ]
    tensors = _read_tensors(folder)
    notes = [
        *model_tokenizer.find_notes(folder, config, added),
        *_find_window_notes(config),
        *_find_dropout_notes(config),
    ]
    if tensors:
        notes += _find_tensor_notes(config, tensors)
    single, index = SINGLE[0], INDEXES[0]
    if (folder / single).is_file() and (folder / index).is_file():
        notes.append(
            f"{single} is loaded; {index} and its shards, which lie beside it, are not"
        )
    return [f"model.path {folder}: {note}" for note in notes]


def _find_dropout_notes(config: Mapping[str, Any]) -> Iterator[str]:
    dropouts = decoder_config.list_dropouts(config)
    if dropouts:
        yield (
            f"{', '.join(dropouts)} of its class or config.json is set to 0: draws would"
            " differ by rank"
        )


def _find_window_notes(config: Mapping[str, Any]) -> Iterator[str]:
    if not model_config.is_llama(config):
        return
    width = model_config.attention_window(config)
    if width is not None and width < config.get("max_position_embeddings", width):
        yield (
            f"config.json has a sliding_window of {width}; zsg trains no longer examples, and never"
            " slides"
        )


def _find_tensor_notes(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    stored = model_tensors.compare_with_config(config, tensors)
    yield from model_tensors.find_notes(stored)
    if not stored.is_exact:
        return
    loaded = {
        tensor.dtype for name, tensor in tensors.items() if not NOT_LOADED.search(name)
    }
    dtypes = sorted(loaded & set(FLOATS))
    if len(dtypes) > 1:
        yield (
            f"the weights are of several dtypes, {', '.join(dtypes)}; all are trained in"
            " train.precision"
        )


def _check(
    key: str, folder: Path, find_faults: Callable[[Path], Iterator[str]]
) -> None:
    try:
        faults = [*find_faults(folder)]
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    except OSError as error:
        raise UserError(f"{key}: {folder}: a file cannot be read: {error}") from None
    if len(faults) == 1:
        raise UserError(f"{key}: {folder}: {faults[0]}")
    if faults:
        raise UserError(
            f"{key}: {folder}: {len(faults)} faults: {_list_faults(faults)}"
        )


def _list_faults(faults: list[str]) -> str:
    """As many of the faults as an error has room for."""
    entries: list[str] = []
    for number, fault in enumerate(faults[:MOST_TOLD], 1):
        if sum(map(len, entries)) + len(fault) > MOST_SAID and entries:
            break
        entries.append(f"({number}) {fault}")
    missing = len(faults) - len(entries)
    return "; ".join(entries) + (f"; and {missing} more" if missing else "")


def _find_decoder_faults(folder: Path) -> Iterator[str]:
    content.refuse_strange_model(folder)
    yield from _find_adapters(folder)
    config = _read_decoder_config(folder)
    of_config = [*model_config.find_faults(config)]
    yield from of_config
    tensors = _read_tensors(folder)
    quantisation = _find_quantisation(folder, config, tensors or {})
    if quantisation:
        yield quantisation
    elif tensors is not None and model_config.has_sizes(config):
        misfits = model_tensors.find_misfits(config, tensors)
        yield from (fault for fault in misfits if fault not in of_config)
    elif tensors is None and find_family(config) is None:
        yield (
            "zsg does not know the layers of this family by heart, and only safetensors tell them:"
            " save the model with save_pretrained"
        )
    if not _has_tokenizer(folder):
        yield NO_TOKENIZER
    elif model_config.has_sizes(config):
        yield from model_tokenizer.find_faults(folder, config)


def _find_config_faults(folder: Path) -> Iterator[str]:
    content.refuse_strange_model(folder)
    config = _read_decoder_config(folder)
    faults = [*model_config.find_faults(config)]
    yield from faults
    if not faults and shapes.describe_known(config) is None:
        yield (
            "there are no weights, and zsg does not know the layers of this family by heart: only"
            " its tensors tell what it takes"
        )
    quantisation = _find_quantisation(folder, config, {})
    if quantisation:
        yield quantisation
    if _has_tokenizer(folder) and model_config.has_sizes(config):
        yield from model_tokenizer.find_faults(folder, config)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in model_tokenizer.FILES)


def _find_reward_faults(folder: Path) -> Iterator[str]:
    """A message for everything that keeps a folder from being loaded as a reward model.

    Raises UserError at once where the folder is no model at all or one of another task.
    The checks read files and never run code that lies among them; code that a config
    asks for is a fault.
    """
    content.refuse_strange_model(folder)
    yield from _find_adapters(folder)
    config, tensors = _read_config(folder), _read_tensors(folder)
    yield from model_config.find_other_files(config)
    _refuse_other_than_reward(folder, config, tensors)
    if quantisation := _find_quantisation(folder, config, tensors or {}):
        yield quantisation
    yield from model_config.find_code(
        config, ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    )
    yield from model_config.find_other_files(config)
    if not _has_tokenizer(folder):
        yield NO_TOKENIZER
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = read_json(folder / "tokenizer_config.json")
        yield from model_config.find_code(tokenizer, ("AutoTokenizer",))
        yield from model_tokenizer.find_other_files(tokenizer)
    yield from _find_pointers(folder, [folder / name for name in model_tokenizer.FILES])


def _refuse_other_than_reward(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor] | None
) -> None:
    """Raises UserError for a model that does not give one number for a text."""
    names = _list_architectures(folder, config, default=[])
    if any(str(name).endswith("ForSequenceClassification") for name in names):
        outputs = _count_outputs(config)
        if outputs != 1:
            raise UserError(
                f"{folder}: classifies into {format_brief(outputs)}; a reward model has one output"
            )
        return
    has_head = tensors is None or HEAD in tensors
    if config.get("model_type") != "llama" or not has_head:
        raise UserError(
            f"{folder} is no reward model: it must be one for sequence classification into one"
            f" output, or a Llama with a {HEAD} as UltraRM's"
        )


def _count_outputs(config: Mapping[str, Any]) -> Any:
    """How many classes a model tells apart; two where config.json does not say, as
    transformers takes it."""
    labels = get_object(config.get("id2label"))
    default = len(labels) if labels else 2
    return config.get("num_labels", default)


def _find_embedding_faults(folder: Path) -> Iterator[str]:
    ordinary_files.refuse_strange_tree(folder)
    yield from _find_adapters(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    pointers = [*_find_pointers(folder, paths)]
    yield from pointers
    if pointers:
        return
    for path in paths:
        if path.suffix == ".safetensors":
            read_tensors(path)
    yield from embedding_code.find_faults(folder)
    for path in paths:
        yield from _find_embedding_file_faults(folder, path)


def _find_embedding_file_faults(folder: Path, path: Path) -> Iterator[str]:
    if path.name == "config.json":
        config = read_json(path)
        yield from model_config.find_other_files(config)
        if quantisation := _find_quantisation(path.parent, config, {}):
            yield quantisation
    if path.name == "tokenizer_config.json":
        yield from model_tokenizer.find_other_files(read_json(path))
    if path.name in ADAPTERS and path.parent != folder:
        yield (
            f"{path.relative_to(folder)}: an adapter, which transformers would put on top of"
            " the weights"
        )


def _find_pointers(folder: Path, paths: list[Path]) -> Iterator[str]:
    pointers = [path for path in paths if path.is_file() and is_pointer(path)]
    if not pointers:
        return
    verb = " is a git-lfs pointer"
    if len(pointers) > 1:
        verb = f" and {len(pointers) - 1} more are git-lfs pointers"
    name = pointers[0].relative_to(folder)
    yield f"{name}{verb} in place of files; run git lfs pull"


def _find_adapters(folder: Path) -> Iterator[str]:
    names = [name for name in ADAPTERS if (folder / name).exists()]
    if not names:
        return
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds an adapter ({names[0]}), no model; merge it into its base (peft:"
            " merge_and_unload, then save_pretrained) and give that folder"
        )
    yield (
        f"an adapter lies beside the weights ({', '.join(names)}), which transformers would put on"
        " top of them; move it out of the folder, or merge it (peft: merge_and_unload, then"
        " save_pretrained)"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a Hugging Face model folder (no config.json)")
    return read_json(folder / "config.json")


def _read_decoder_config(folder: Path) -> dict[str, Any]:
    config = _read_config(folder)
    names = _list_architectures(folder, config, default=[])
    reason = decoder_config.explain_other_kind(config)
    if reason is None:
        reason = decoder_config.explain_other_class(config, names)
    if reason is not None:
        verb = "" if reason.startswith("is ") else ":"
        raise UserError(f"{folder}{verb} {reason}")
    return config


def _list_architectures(
    folder: Path, config: Mapping[str, Any], default: list[str]
) -> list[Any]:
    names = config.get("architectures") or default
    if not isinstance(names, list):
        raise UserError(
            f"{folder}/config.json: architectures is {format_brief(names)}, not a list of names"
        )
    return cast("list[Any]", names)


def _find_quantisation(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> str | None:
    """The fault of quantised weights, by config.json, by a quantiser's own file, by
    names or by dtypes."""
    evidence = _find_quantiser(folder, config, tensors)
    if evidence:
        return f"the weights are quantised ({evidence}); {UNQUANTISED}"
    loaded = FLOATS
    if find_family(config) is None:
        loaded += NUMBERS
    not_floats = [
        name
        for name, tensor in tensors.items()
        if tensor.dtype not in loaded and not NOT_LOADED.search(name)
    ]
    if not not_floats:
        return None
    dtype = make_showable(tensors[not_floats[0]].dtype[:40], keep="")
    count = f"{len(not_floats)} of {len(tensors)} tensors"
    example = f"{make_showable(not_floats[0][:80], keep='')} is {dtype}"
    return f"{count} are no floats of 16 or 32 bits ({example}); {UNQUANTISED}"


def _find_quantiser(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> str | None:
    """What tells that a quantiser has written the weights."""
    method = model_config.find_quantisation(config)
    if method:
        return f"{method}, by config.json"
    for name in QUANTISERS:
        if (folder / name).is_file():
            return f"{name} lies beside them"
    for name in tensors:
        if PACKED.search(name):
            return f"they hold {format_brief(name)}"
    return None


def _read_tensors(folder: Path) -> dict[str, Tensor] | None:
    """All tensors, from the first form of weights that transformers would take; None if
    only torch can tell."""
    for single, index in zip(SINGLE, INDEXES, strict=True):
        if (folder / single).is_file():
            return read_tensors(folder / single)
        if (folder / index).is_file():
            return _read_shards(folder, index)
    for pattern, advice in OTHER_WEIGHTS.items():
        names = sorted(
            path.name for path in folder.glob(pattern) if path.name not in ADAPTERS
        )
        if names:
            raise UserError(
                f"{folder} has no weights that transformers loads, but"
                f" {make_showable(names[0][:80], keep='')}: {advice}"
            )
    raise UserError(f"{folder} has no weights ({', '.join((*SINGLE, *INDEXES))})")


def _read_shards(folder: Path, index: str) -> dict[str, Tensor] | None:
    """The tensors of all shards that an index names; None if only torch can tell."""
    shards = _list_shards(folder, read_json(folder / index))
    _refuse_missing_shards(folder, shards)
    _refuse_misnamed_shards(folder, index, shards)
    tensors: dict[str, Tensor] = {}
    is_readable = True
    for shard in shards:
        of_shard = read_tensors(folder / shard)
        is_readable = is_readable and of_shard is not None
        for name, tensor in (of_shard or {}).items():
            if name in tensors:
                raise UserError(
                    f"{folder}: {format_brief(name)} lies in two weight files,"
                    f" {format_brief(tensors[name].file.name)} and {format_brief(shard)};"
                    " transformers would take either"
                )
            tensors[name] = tensor
    return tensors if is_readable else None


def _list_shards(folder: Path, index: dict[str, Any]) -> list[str]:
    shards = get_object(index.get("weight_map")).values()
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise UserError(
            f"{folder}: the index of the weights has no weight_map of names to files"
        )
    return sorted(set(shards))


def _refuse_missing_shards(folder: Path, shards: list[str]) -> None:
    missing = [
        shard
        for shard in shards
        if "/" in shard or "\0" in shard or not (folder / shard).is_file()
    ]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of {len(shards)} weight files, the first"
            f" {missing[0][:80]!r}"
        )


def _refuse_misnamed_shards(folder: Path, index: str, shards: list[str]) -> None:
    """Raises UserError where an index names a shard that another loader would pass
    over.

    transformers opens what the index names, but the digest that tells two models apart
    reads files by their usual names: a shard named otherwise could change unseen.
    """
    kind = ".safetensors" if index == INDEXES[0] else ".bin"
    misnamed = [shard for shard in shards if not shard.endswith(kind)]
    if not misnamed and kind == ".bin":  # what has another name is in no digest
        misnamed = [shard for shard in shards if not shard.startswith("pytorch_model")]
        kind = "pytorch_model….bin"
    if misnamed:
        raise UserError(
            f"{folder}/{index} names {misnamed[0][:80]!r}, which is no {kind} file"
        )
