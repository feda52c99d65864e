"""Is a folder a Llama, or a reward model, that a node can load? Told from its files
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
from typing import Any

from jobs.files import ordinary_files
from jobs.model import content
from jobs.preparing import embedding_code
from launcher.grids import model_config, model_tokenizer
from launcher.grids.model_files import Tensor, is_pointer, read_json, read_tensors
from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief

ARCHITECTURE = "LlamaForCausalLM"
HEAD = "regression_head.weight"
SINGLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
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
# Names that only quantised weights have: GPTQ's and AWQ's, bitsandbytes', FP8's, HQQ's,
# compressed-tensors'.
PACKED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|SCB|absmax|quant_map|nested_absmax|quant_state\..+|weight_scale(_inv|_2)?"
    r"|input_scale|weight_packed|weight_shape|weight_zero_point|W_q)$|\.weight\.(absmax|quant_map|quant_state\..+)$"
)
# what older files kept of rotary positions; transformers computes it
NOT_LOADED = re.compile(r"\.rotary_emb\.")
# of two tensors that should be one: so many pieces of so many bytes
SAMPLES, SAMPLE = 64, 4096
MOST_TOLD = 8  # faults of one folder
MOST_SAID = 1200  # characters of them


def check_llama(folder: Path) -> None:
    """Raises UserError unless the folder is a Llama as its config says, whole, with a
    tokenizer that fits."""
    _check("model.path", folder, _faults_of_llama)


def check_reward(key: str, folder: Path) -> None:
    """Raises UserError unless the folder has a model with a head that gives one number,
    and a tokenizer."""
    _check(key, folder, _faults_of_reward)


def check_embedding(key: str, folder: Path) -> None:
    """Raises UserError for a sentence-transformers folder with pointers for files, or
    with code of its own.

    And, as for all folders, for links that lead out of it.
    """
    _check(key, folder, _faults_of_embedding)


def check_length(key: str, length: int, folder: Path) -> None:
    """Raises UserError for examples longer than the model of the folder was made for."""
    most, said = model_config.find_length_limit(_read_config(folder))
    if length > most:
        raise UserError(
            f"{key} {length} is beyond the model's {most} positions ({folder}: {said}); lower it"
        )


def is_tied(folder: Path) -> bool:
    """Whether embedding and output layer are one table."""
    return bool(_read_config(folder).get("tie_word_embeddings", False))


def find_notes(folder: Path, named: Collection[str] = ()) -> list[str]:
    """What of a Llama's folder works and is not as it seems, each as a line; `named`
    are the grid's own tokens.

    The folder has been checked.
    """
    config = _read_config(folder)
    held = _tensors(folder)
    found = [*model_tokenizer.find_notes(folder, config, named)]
    width = model_config.attention_window(config)
    if width is not None and width < config.get("max_position_embeddings", width):
        found.append(
            f"config.json has a sliding_window of {width}; zsg trains no longer examples, and never"
            " slides"
        )
    if held:
        _, beside = _beyond_the_llama(config, held)
        if beside:
            found.append(
                f"{len(beside)} tensors are no part of a Llama, the first"
                f" {format_brief(beside[0])}; they are left out"
            )
        dtypes = sorted(
            {one.dtype for name, one in held.items() if not NOT_LOADED.search(name)}
            & set(FLOATS)
        )
        if len(dtypes) > 1:
            found.append(
                f"the weights are of several dtypes, {', '.join(dtypes)}; all are trained in"
                " train.precision"
            )
    single, index = SINGLE[0], INDEXES[0]
    if (folder / single).is_file() and (folder / index).is_file():
        found.append(
            f"{single} is loaded; {index} and its shards, which lie beside it, are not"
        )
    return [f"model.path {folder}: {note}" for note in found]


def _check(key: str, folder: Path, look: Callable[[Path], Iterator[str]]) -> None:
    try:
        found = [*look(folder)]
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    except OSError as error:
        raise UserError(f"{key}: {folder}: a file cannot be read: {error}") from None
    if len(found) == 1:
        raise UserError(f"{key}: {folder}: {found[0]}")
    if found:
        raise UserError(f"{key}: {folder}: {len(found)} faults: {_listed(found)}")


def _listed(found: list[str]) -> str:
    """As many of the faults as an error has room for."""
    shown: list[str] = []
    for number, fault in enumerate(found[:MOST_TOLD], 1):
        if sum(map(len, shown)) + len(fault) > MOST_SAID and shown:
            break
        shown.append(f"({number}) {fault}")
    more = len(found) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _faults_of_llama(folder: Path) -> Iterator[str]:
    content.refuse_strange_model(folder)
    yield from _adapters(folder)
    config = _config(folder)
    yield from model_config.find_faults(config)
    held = _tensors(folder)
    method = _quantised(folder, config, held or {})
    if method:
        yield method
    elif held is not None and model_config.has_sizes(config):
        yield from _misfits(folder, config, held)
    if not any((folder / name).is_file() for name in model_tokenizer.FILES):
        yield f"there is no tokenizer ({' or '.join(model_tokenizer.FILES)})"
    elif model_config.has_sizes(config):
        yield from model_tokenizer.find_faults(folder, config)


def _faults_of_reward(folder: Path) -> Iterator[str]:
    content.refuse_strange_model(folder)
    yield from _adapters(folder)
    config, held = _read_config(folder), _tensors(folder)
    yield from model_config.find_other_files(config)
    names = config.get("architectures") or []
    if not isinstance(names, list):
        raise UserError(
            f"{folder}/config.json: architectures is {format_brief(names)}, not a list of names"
        )
    if any(str(name).endswith("ForSequenceClassification") for name in names):
        labels = config.get("id2label")
        outputs = config.get(
            "num_labels", len(labels) if isinstance(labels, dict) and labels else 2
        )
        if outputs != 1:
            raise UserError(
                f"{folder}: classifies into {format_brief(outputs)}; a reward model has one output"
            )
    elif config.get("model_type") != "llama" or (held is not None and HEAD not in held):
        raise UserError(
            f"{folder} is no reward model: it must be one for sequence classification into one"
            f" output, or a Llama with a {HEAD} as UltraRM's"
        )
    if method := _quantised(folder, config, held or {}):
        yield method
    yield from model_config.find_code(
        config, ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    )
    yield from model_config.find_other_files(config)
    if not any((folder / name).is_file() for name in model_tokenizer.FILES):
        yield f"there is no tokenizer ({' or '.join(model_tokenizer.FILES)})"
    if (folder / "tokenizer_config.json").is_file():
        told = read_json(folder / "tokenizer_config.json")
        yield from model_config.find_code(told, ("AutoTokenizer",))
        yield from model_tokenizer.find_other_files(told)
    yield from _pointers(folder, [folder / name for name in model_tokenizer.FILES])


def _faults_of_embedding(folder: Path) -> Iterator[str]:
    ordinary_files.refuse_strange_tree(folder)
    yield from _adapters(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    pointers = [*_pointers(folder, paths)]
    yield from pointers
    if pointers:
        return
    for path in paths:
        if path.suffix == ".safetensors":
            read_tensors(path)
    yield from embedding_code.faults(folder)
    for path in paths:
        if path.name == "config.json":
            told = read_json(path)
            yield from model_config.find_other_files(told)
            if method := _quantised(path.parent, told, {}):
                yield method
        if path.name == "tokenizer_config.json":
            yield from model_tokenizer.find_other_files(read_json(path))
        if path.name in ADAPTERS and path.parent != folder:
            yield (
                f"{path.relative_to(folder)}: an adapter, which transformers would put on top of"
                " the weights"
            )


def _pointers(folder: Path, paths: list[Path]) -> Iterator[str]:
    found = [path for path in paths if path.is_file() and is_pointer(path)]
    if found:
        name = found[0].relative_to(folder)
        more = (
            f" and {len(found) - 1} more are git-lfs pointers"
            if len(found) > 1
            else " is a git-lfs pointer"
        )
        yield f"{name}{more} in place of files; run git lfs pull"


def _adapters(folder: Path) -> Iterator[str]:
    found = [name for name in ADAPTERS if (folder / name).exists()]
    if not found:
        return
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds an adapter ({found[0]}), no model; merge it into its base (peft:"
            " merge_and_unload, then save_pretrained) and give that folder"
        )
    yield (
        f"an adapter lies beside the weights ({', '.join(found)}), which transformers would put on"
        " top of them; move it out of the folder, or merge it (peft: merge_and_unload, then"
        " save_pretrained)"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a Hugging Face model folder (no config.json)")
    return read_json(folder / "config.json")


def _config(folder: Path) -> dict[str, Any]:
    config = _read_config(folder)
    kind, names = (
        config.get("model_type"),
        config.get("architectures") or [ARCHITECTURE],
    )
    if not isinstance(names, list):
        raise UserError(
            f"{folder}/config.json: architectures is {format_brief(names)}, not a list of names"
        )
    if kind != "llama" or ARCHITECTURE not in names:
        found = kind if kind != "llama" else ", ".join(map(str, names))
        raise UserError(
            f"{folder} is a {str(found)[:80]!r} model; zsg trains {ARCHITECTURE}"
        )
    return config


def _quantised(
    folder: Path, config: Mapping[str, Any], held: Mapping[str, Tensor]
) -> str | None:
    """The fault of quantised weights, by config.json, by a quantiser's own file, by
    names or by dtypes."""
    advice = "zsg trains F32, F16 and BF16; give the unquantised weights"
    method = model_config.find_quantisation(config)
    if method:
        return f"the weights are quantised ({method}, by config.json); {advice}"
    beside = [name for name in QUANTISERS if (folder / name).is_file()]
    if beside:
        return f"the weights are quantised ({beside[0]} lies beside them); {advice}"
    packed = [name for name in held if PACKED.search(name)]
    if packed:
        return (
            f"the weights are quantised (they hold {format_brief(packed[0])}); {advice}"
        )
    other = [
        name
        for name, one in held.items()
        if one.dtype not in FLOATS and not NOT_LOADED.search(name)
    ]
    if other:
        dtype = held[other[0]].dtype[:40]
        count = f"{len(other)} of {len(held)} tensors"
        return f"{count} are no floats of 16 or 32 bits ({other[0][:80]} is {dtype}); {advice}"
    return None


def _misfits(
    folder: Path, config: Mapping[str, Any], held: Mapping[str, Tensor]
) -> Iterator[str]:
    """What of the tensors is not as config.json says: some that lack, some too many, shapes."""
    wanted = _wanted(config)
    lacking = [name for name in wanted if name not in held]
    if lacking:
        yield (
            f"the weights lack {len(lacking)} tensors, the first"
            f" {lacking[0]}{_why_lacking(lacking[0])}"
        )
    within, _ = _beyond_the_llama(config, held)
    if within:
        yield (
            f"{len(within)} tensors have no place in the Llama of config.json, the first"
            f" {format_brief(within[0])}{_why_too_many(within[0], config)}"
        )
    bad = [
        (name, want)
        for name, want in wanted.items()
        if name in held and held[name].shape != want[0]
    ]
    if bad:
        name, (shape, by) = bad[0]
        yield (
            f"{len(bad)} tensors have another shape than config.json says, the first {name}: "
            f"{_shown(held[name].shape)}, by {by} {_shown(shape)}"
        )
    if config.get("tie_word_embeddings") and not bad and "lm_head.weight" in held:
        if not _are_alike(held["lm_head.weight"], held["model.embed_tokens.weight"]):
            yield (
                "config.json has tie_word_embeddings, but lm_head.weight is not the embedding;"
                " transformers would leave them untied: set tie_word_embeddings to false in a copy,"
                " or take lm_head.weight out"
            )


def _wanted(config: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Every tensor of the architecture by its name: its shape, and which keys of
    config.json give it."""
    hidden, inner = (
        model_config.size_of(config, "hidden_size"),
        model_config.size_of(config, "intermediate_size"),
    )
    rows, head = (
        model_config.size_of(config, "vocab_size"),
        model_config.head_size(config),
    )
    queries = model_config.size_of(config, "num_attention_heads") * head
    keys = model_config.key_heads(config) * head
    table = "vocab_size × hidden_size"
    made: dict[str, tuple[tuple[int, ...], str]] = {
        "model.embed_tokens.weight": ((rows, hidden), table),
        "model.norm.weight": ((hidden,), "hidden_size"),
    }
    if not config.get("tie_word_embeddings", False):
        made["lm_head.weight"] = ((rows, hidden), table)
    of_keys = "num_key_value_heads·head_dim × hidden_size"
    parts: dict[str, tuple[tuple[int, ...], str]] = {
        "input_layernorm": ((hidden,), "hidden_size"),
        "mlp.down_proj": ((hidden, inner), "hidden_size × intermediate_size"),
        "mlp.gate_proj": ((inner, hidden), "intermediate_size × hidden_size"),
        "mlp.up_proj": ((inner, hidden), "intermediate_size × hidden_size"),
        "post_attention_layernorm": ((hidden,), "hidden_size"),
        "self_attn.k_proj": ((keys, hidden), of_keys),
        "self_attn.o_proj": (
            (hidden, queries),
            "hidden_size × num_attention_heads·head_dim",
        ),
        "self_attn.q_proj": (
            (queries, hidden),
            "num_attention_heads·head_dim × hidden_size",
        ),
        "self_attn.v_proj": ((keys, hidden), of_keys),
    }
    for layer in range(model_config.size_of(config, "num_hidden_layers")):
        for part, (shape, by) in parts.items():
            made[f"model.layers.{layer}.{part}.weight"] = (shape, by)
            flag = "mlp_bias" if part.startswith("mlp.") else "attention_bias"
            if part.endswith("_proj") and config.get(flag):
                made[f"model.layers.{layer}.{part}.bias"] = (shape[:1], by)
    return made


def _beyond_the_llama(
    config: Mapping[str, Any], held: Mapping[str, Tensor]
) -> tuple[list[str], list[str]]:
    """The tensors that the Llama of config.json has no place for: those within it, and
    those beside it."""
    wanted = _wanted(config)
    known = {*wanted, "lm_head.weight"}
    found = sorted(
        name for name in held if name not in known and not NOT_LOADED.search(name)
    )
    within = [name for name in found if name.startswith(("model.", "lm_head."))]
    return within, [name for name in found if name not in set(within)]


def _why_lacking(name: str) -> str:
    if not name.endswith(".bias"):
        return ""
    return " (config.json has " + (
        "mlp_bias)" if ".mlp." in name else "attention_bias)"
    )


def _why_too_many(name: str, config: Mapping[str, Any]) -> str:
    if name.endswith("_proj.bias"):
        return f"; config.json has no {'mlp_bias' if '.mlp.' in name else 'attention_bias'}"
    layers = model_config.size_of(config, "num_hidden_layers")
    number = re.match(r"model\.layers\.(\d{1,9})\.", name)
    if number and int(number[1]) >= layers:
        return f"; its num_hidden_layers is {layers}"
    return ""


def _shown(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape[:8])) or "a single number"


def _are_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bytes, as far as some pieces tell: whole, they
    would take a minute."""
    if (one.dtype, one.size) != (other.dtype, other.size):
        return False
    last = max(0, one.size - SAMPLE)
    places = sorted({last * number // SAMPLES for number in range(SAMPLES + 1)})
    with one.file.open("rb") as first, other.file.open("rb") as second:
        for place in places:
            first.seek(one.start + place)
            second.seek(other.start + place)
            length = min(SAMPLE, one.size - place)
            if first.read(length) != second.read(length):
                return False
    return True


def _tensors(folder: Path) -> dict[str, Tensor] | None:
    """All tensors, from the first form of weights that transformers would take; None if
    only torch can tell."""
    for single, index in zip(SINGLE, INDEXES, strict=True):
        if (folder / single).is_file():
            return read_tensors(folder / single)
        if (folder / index).is_file():
            return _sharded(folder, read_json(folder / index), index)
    for pattern, advice in OTHER_WEIGHTS.items():
        found = sorted(
            path.name for path in folder.glob(pattern) if path.name not in ADAPTERS
        )
        if found:
            raise UserError(
                f"{folder} has no weights that transformers loads, but {found[0][:80]}: {advice}"
            )
    raise UserError(f"{folder} has no weights ({', '.join((*SINGLE, *INDEXES))})")


def _sharded(
    folder: Path, index: dict[str, Any], name: str
) -> dict[str, Tensor] | None:
    where = index.get("weight_map")
    if (
        not isinstance(where, dict)
        or not where
        or not all(isinstance(shard, str) for shard in where.values())
    ):
        raise UserError(
            f"{folder}: the index of the weights has no weight_map of names to files"
        )
    shards = sorted(set(where.values()))
    missing = [
        one
        for one in shards
        if "/" in one or "\0" in one or not (folder / one).is_file()
    ]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of {len(shards)} weight files, the first"
            f" {missing[0][:80]!r}"
        )
    kind = ".safetensors" if name == INDEXES[0] else ".bin"
    other = [one for one in shards if not one.endswith(kind)]
    if not other and kind == ".bin":  # what has another name is in no digest
        other = [one for one in shards if not one.startswith("pytorch_model")]
        kind = "pytorch_model….bin"
    if other:
        raise UserError(
            f"{folder}/{name} names {other[0][:80]!r}, which is no {kind} file"
        )
    made: dict[str, Tensor] = {}
    unknown = False
    for shard in shards:
        held = read_tensors(folder / shard)
        unknown = unknown or held is None
        for tensor, one in (held or {}).items():
            if tensor in made:
                raise UserError(
                    f"{folder}: {format_brief(tensor)} lies in two weight files,"
                    f" {made[tensor].file.name[:80]} and {shard[:80]}; transformers would take"
                    " either"
                )
            made[tensor] = one
    return None if unknown else made
