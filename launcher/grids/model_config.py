"""Says what in a config.json is no decoder that zsg trains: what transformers would
refuse, or pass over in silence. What is the same for all families, and Llama's own.

transformers' Llama computes what LlamaConfig knows of and nothing else: a window, a
softcap or a factor that another class reads stands in the file and is not done. So each
such key is looked for, and refused where it would do something.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from jobs.contract.folder import get_object
from launcher.grids import decoder_config
from zsg_core.families.registry import (
    find_family,
    find_position_key,
    position_count,
)
from zsg_core.families.rotations import ORIGIN, find_rotation_limit
from zsg_core.families.shape import LLAMA
from zsg_core.families.sizes import MOST_LAYERS, explain_no_size, is_size
from zsg_core.schema_errors import format_brief
from zsg_core.shown_text import make_showable

# transformers.activations.ACT2CLS of 5.23
ACTIVATIONS = (
    "gelu",
    "gelu_10",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "hardswish",
    "laplace",
    "leaky_relu",
    "linear",
    "mish",
    "prelu",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "sigmoid",
    "silu",
    "sqrtsoftplus",
    "swish",
    "tanh",
    "xielu",
)
# The fields that each kind of rotary scaling cannot do without
# (transformers.modeling_rope_utils of 5.23).
ROPE = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings"),
    "proportional": (),
}
# What other classes compute and transformers' Llama does not, with the values under
# which that makes no difference.
NOT_COMPUTED: dict[str, tuple[Any, ...]] = {
    "alibi": (None, False),
    "attention_chunk_size": (None,),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "clip_qkv": (None,),
    "embedding_multiplier": (None, 1),
    "final_logit_softcapping": (None,),
    "logit_scale": (None, 1),
    "logits_scaling": (None, 1),
    "no_rope_layers": (None, []),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "partial_rotary_factor": (None, 1),
    "qk_layernorm": (None, False),
    "qk_norm": (None, False),
    "residual_multiplier": (None, 1),
    "scale_emb": (None, 1),
    "use_qk_norm": (None, False),
}
DTYPES = ("auto", "float64", "float32", "float16", "bfloat16")
IMPLEMENTATIONS = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
)
ATTENTIONS = (
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
    "grouped_mm",
    "batched_mm",
)
# keys whose values are objects; older files have a list of names
OBJECTS: dict[str, tuple[type, ...]] = {
    "rope_scaling": (dict,),
    "rope_parameters": (dict,),
    "auto_map": (dict, list),
}
CODE = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")


def find_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Each as a sentence without the folder's name; numbers of the wrong type are told
    alone, as all rests on them."""
    if not is_llama(config):
        yield from _find_faults_of_others(config)
        return
    wrong_types = [*_find_wrong_types(config)]
    if wrong_types:
        yield from wrong_types
        return
    yield from _find_head_faults(config)
    activation = config.get("hidden_act", "silu")
    if activation not in ACTIVATIONS:
        yield (
            f"config.json: hidden_act {format_brief(activation)} is none that transformers has;"
            " for a Llama it is 'silu'"
        )
    yield from _find_rope_faults(config)
    yield from _find_not_computed(config)
    yield from _find_id_faults(config)
    yield from find_code(config, CODE)
    yield from find_other_files(config)


def _find_faults_of_others(config: Mapping[str, Any]) -> Iterator[str]:
    """The faults of a config.json of any family but Llama."""
    wrong = [*_find_wrong_values_of_others(config)]
    if wrong:
        yield from wrong
        return
    yield from decoder_config.find_shape_faults(config)
    for key in ("hidden_act", "hidden_activation", "activation_function", "activation"):
        activation = config.get(key)
        if activation is not None and activation not in ACTIVATIONS:
            yield f"config.json: {key} {format_brief(activation)} is none that transformers has"
    if has_sizes(config):
        yield from _find_id_faults(config)
    yield from find_code(config, CODE)
    yield from find_other_files(config)


def _find_wrong_values_of_others(config: Mapping[str, Any]) -> Iterator[str]:
    yield from decoder_config.find_wrong_values(config)
    yield from decoder_config.find_wrong_dropouts(config)
    yield from _find_wrong_objects(config)
    yield from _find_too_many_layers(config)


def is_llama(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is a Llama's, by its model_type."""
    return config.get("model_type", "llama") == "llama"


def _find_head_faults(config: Mapping[str, Any]) -> Iterator[str]:
    hidden = size_of(config, "hidden_size")
    heads = size_of(config, "num_attention_heads")
    keys, width = key_heads(config), head_size(config)
    if hidden % heads:
        yield f"config.json: hidden_size {hidden} is no multiple of num_attention_heads {heads}"
    if heads % keys:
        yield (
            f"config.json: num_attention_heads {heads} is no multiple of num_key_value_heads {keys}"
        )
    if width % 2:
        yield f"config.json: head_dim is {width}; rotary positions turn pairs, so it must be even"


def _find_not_computed(config: Mapping[str, Any]) -> Iterator[str]:
    for key, neutral in NOT_COMPUTED.items():
        if key in config and config[key] not in neutral:
            yield (
                f"config.json: {key} is {format_brief(config[key])}, which transformers' Llama does"
                " not compute"
            )
    kinds = config.get("layer_types")
    if kinds is None:
        return
    if not isinstance(kinds, list) or not set(map(str, cast("list[Any]", kinds))) <= {
        "full_attention"
    }:
        yield (
            f"config.json: layer_types {format_brief(kinds)} has others than full_attention, which"
            " Llama's all are"
        )


def find_quantisation(config: Mapping[str, Any]) -> str | None:
    """By which method config.json says that the weights are quantised; None where it
    says nothing of it."""
    for key in ("quantization_config", "compression_config"):
        method = config.get(key)
        if isinstance(method, dict) and method:
            fields = cast("dict[str, Any]", method)
            name = str(fields.get("quant_method") or "compressed")
            return make_showable(name[:80], keep="")
        if method:
            return format_brief(method)
    for key in ("dtype", "torch_dtype"):
        name = config.get(key)
        if isinstance(name, str) and name.removeprefix("torch.") not in DTYPES:
            return make_showable(name[:80], keep="")
    return None


def find_code(config: Mapping[str, Any], classes: tuple[str, ...]) -> Iterator[str]:
    """The fault of a config or a tokenizer that is computed by Python code of its own,
    which zsg does not run."""
    auto_map = config.get("auto_map")
    if isinstance(auto_map, list) and "AutoTokenizer" in classes:
        # as older files have it
        auto_map = {"AutoTokenizer": cast("list[Any]", auto_map)}
    if not isinstance(auto_map, dict):
        return
    classes_of_code = cast("dict[str, Any]", auto_map)
    code = [classes_of_code[key] for key in classes if classes_of_code.get(key)]
    if code:
        yield (
            f"auto_map names code of its own ({format_brief(code[0])}), which zsg does not run: it"
            " would train transformers' own class instead; where that computes the same, take"
            " auto_map out of a copy of the folder"
        )


def find_other_files(config: Mapping[str, Any]) -> Iterator[str]:
    """The faults of a config.json that names files, or kernels, which transformers
    (5.23) takes in place of others.

    `configuration_files`: a config for its own version; `transformers_weights`: other
    weights than it looks for. A name of an attention that it does not know it fetches
    from the hub, as code.
    """
    for key in ("configuration_files", "transformers_weights"):
        if config.get(key):
            yield (
                f"config.json: {key} is {format_brief(config[key])}: transformers would load other"
                " files than zsg has judged; take it out of a copy of the folder, and give the"
                " files their usual names"
            )
    for key in IMPLEMENTATIONS:
        name = config.get(key)
        if name is not None and not (isinstance(name, str) and name in ATTENTIONS):
            yield (
                f"config.json: {key} is {format_brief(name)}, which transformers does not have; it"
                " would look for code of that name. Take it out of a copy of the folder"
            )


def attention_window(config: Mapping[str, Any]) -> int | None:
    """How many tokens each token sees by config.json, though transformers' Llama sees
    all; None where all."""
    width = config.get("sliding_window")
    if type(width) is not int or width < 1 or config.get("use_sliding_window") is False:
        return None
    return width


def find_length_limit(config: Mapping[str, Any]) -> tuple[int, str]:
    """The most tokens of an example that config.json lets the model be trained on, and
    what in it says so."""
    limit = position_count(config)
    key = find_position_key(config)
    reason = f"{key} {limit}"
    if key is None:
        reason = (
            f"{limit} positions, which transformers takes where config.json has no"
            " max_position_embeddings"
        )
    width = attention_window(config)
    if is_llama(config) and width is not None and width < limit:
        limit = width
        reason = f"sliding_window {width}, which transformers' Llama does not compute"
    rotated = find_rotation_limit(config)
    if rotated is not None and rotated[0] < limit:
        limit, kind = rotated
        reason = (
            f"{ORIGIN} {limit}, beyond which {kind} turns all examples of a batch by"
            " other angles"
        )
    return limit, reason


def has_sizes(config: Mapping[str, Any]) -> bool:
    """Whether all sizes are counts, by which tensors and ids can be judged."""
    if not is_llama(config):
        if any(_find_wrong_values_of_others(config)):
            return False
        return is_size(size_of(config, "vocab_size"))
    optional = [
        config[key]
        for key in ("num_key_value_heads", "head_dim")
        if config.get(key) is not None
    ]
    sizes = [size_of(config, key) for key in LLAMA]
    return (
        all(map(is_size, [*sizes, *optional]))
        and size_of(config, "num_hidden_layers") < MOST_LAYERS
    )


def size_of(config: Mapping[str, Any], key: str) -> int:
    """A size, or what transformers takes where it is missing; 0 where that is not known."""
    if is_llama(config):
        return config.get(key, LLAMA[key])
    entry = find_family(config)
    value = config.get(key) if entry is None else entry.read(config).get(key)
    return 0 if value is None else value


def key_heads(config: Mapping[str, Any]) -> int:
    """The number of heads of keys and values."""
    return config.get("num_key_value_heads") or size_of(config, "num_attention_heads")


def head_size(config: Mapping[str, Any]) -> int:
    """The width of a head."""
    return config.get("head_dim") or size_of(config, "hidden_size") // size_of(
        config, "num_attention_heads"
    )


def _find_wrong_types(config: Mapping[str, Any]) -> Iterator[str]:
    """A message for each key of config.json whose value has the wrong type, in one
    order. `config` may hold anything that JSON can."""
    yield from _find_wrong_counts(config)
    for key in ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_cache"):
        if key in config and not isinstance(config[key], bool):
            yield f"config.json: {key} is {format_brief(config[key])}, neither true nor false"
    yield from _find_wrong_numbers(config)
    yield from _find_wrong_objects(config)
    yield from decoder_config.find_wrong_dropouts(config)


def _find_wrong_objects(config: Mapping[str, Any]) -> Iterator[str]:
    """A message for each key that has to be an object, or null, and is neither."""
    for key, kinds in OBJECTS.items():
        if config.get(key) is not None and not isinstance(config[key], kinds):
            yield f"config.json: {key} is {format_brief(config[key])}, not an object"


def _find_too_many_layers(config: Mapping[str, Any]) -> Iterator[str]:
    for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
        layers = config.get(key)
        if isinstance(layers, int) and layers >= MOST_LAYERS:
            yield f"config.json: {key} must be a number of layers, less than {MOST_LAYERS}"


def _find_wrong_numbers(config: Mapping[str, Any]) -> Iterator[str]:
    """A message for each key that has to be a number above 0 and is none.

    rms_norm_eps must not be null either: a null that is written takes the place of a
    default.
    """
    for key in ("rms_norm_eps", "initializer_range", "rope_theta"):
        if config.get(key) is not None and not _is_positive(config[key]):
            yield f"config.json: {key} is {format_brief(config[key])}, not a number above 0"
    if "rms_norm_eps" in config and config["rms_norm_eps"] is None:
        yield "config.json: rms_norm_eps is None, not a number above 0"


def _find_wrong_counts(config: Mapping[str, Any]) -> Iterator[str]:
    for key in LLAMA:
        if key not in config:
            continue
        value = config[key]
        if not is_size(value):
            yield _describe_no_size(key, value)
    layers = size_of(config, "num_hidden_layers")
    if type(layers) is int and layers >= MOST_LAYERS:
        yield f"config.json: num_hidden_layers must be a number of layers, less than {MOST_LAYERS}"
    for key in ("num_key_value_heads", "head_dim"):
        value = config.get(key)
        if value is None:
            continue
        if not is_size(value):
            yield _describe_no_size(key, value)


def _describe_no_size(key: str, value: Any) -> str:
    return f"config.json: {key} is {format_brief(value)}, {explain_no_size(value)}"


def _rope_used(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers reads of rotary positions: the older key counts where both are there."""
    used = config.get("rope_scaling") or config.get("rope_parameters")
    return get_object(used)


def _rope_kind(used: Mapping[str, Any]) -> Any:
    return used.get("rope_type", used.get("type", "default"))


def _find_rope_faults(config: Mapping[str, Any]) -> Iterator[str]:
    rope = _rope_used(config)
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    if any(isinstance(value, dict) for value in rope.values()):
        yield f"config.json: {name} differs by kinds of layers, which Llama does not have"
        return
    kind = _rope_kind(rope)
    if not isinstance(kind, str) or kind not in ROPE:
        yield (
            f"config.json: {name} has the type {format_brief(kind)}, which transformers' Llama"
            f" does not know; it knows {', '.join(ROPE)}"
        )
        return
    second_kind = _rope_kind(config.get("rope_parameters") or rope)
    if second_kind != kind:
        yield (
            f"config.json: rope_scaling is {kind!r} and rope_parameters"
            f" {format_brief(second_kind)}; leave one"
        )
    yield from _find_theta_faults(config, rope, name)
    if rope.get("partial_rotary_factor") not in (None, 1):
        yield (
            f"config.json: {name} turns a part of each head only, which transformers' Llama does"
            " not compute"
        )
    if rope.get("mrope_section") is not None:
        yield (
            f"config.json: {name} has mrope_section, positions of several kinds, which Llama does"
            " not have"
        )
    yield from _find_scaling_faults(config, rope, kind, name)


def _find_theta_faults(
    config: Mapping[str, Any], rope: Mapping[str, Any], name: str
) -> Iterator[str]:
    thetas = [
        settings["rope_theta"]
        for settings in (rope, config)
        if settings.get("rope_theta") is not None
    ]
    if any(not _is_positive(theta) for theta in thetas):
        yield f"config.json: rope_theta is {format_brief(thetas[0])}, not a number above 0"
    elif len(set(thetas)) > 1:
        yield (
            f"config.json: rope_theta is {thetas[1]:g}, and {name}.rope_theta {thetas[0]:g};"
            " leave one"
        )


def _find_scaling_faults(
    config: Mapping[str, Any], rope: Mapping[str, Any], kind: str, name: str
) -> Iterator[str]:
    """The faults of the fields that this kind of scaling needs."""
    fields: dict[str, Any] = {field: rope.get(field) for field in ROPE[kind]}
    if ORIGIN in fields and config.get(ORIGIN) is not None:
        fields[ORIGIN] = config[ORIGIN]
    missing = [field for field, value in fields.items() if value is None]
    if missing:
        yield f"config.json: {name} of type {kind!r} needs {', '.join(missing)}"
        return
    pairs = head_size(config) // 2
    for field, value in fields.items():
        fault = _find_field_fault(field, value, pairs)
        if fault:
            yield f"config.json: {name}.{field} {fault}"
    if kind == "llama3":
        low, high = fields["low_freq_factor"], fields["high_freq_factor"]
        yield from _find_frequency_fault(name, low, high)


def _find_field_fault(field: str, value: Any, pairs: int) -> str | None:
    """What is wrong with a field's value; `pairs` is how many a head has."""
    if field in ("short_factor", "long_factor"):
        if _is_list_of_positives(value, pairs):
            return None
        return f"must be {pairs} numbers above 0, one for each pair of a head"
    if field == ORIGIN and not is_size(value):
        return f"is {format_brief(value)}, not a count"
    if not _is_positive(value):
        return f"is {format_brief(value)}, not a number above 0"
    return None


def _is_list_of_positives(value: Any, length: int) -> bool:
    if not isinstance(value, list):
        return False
    entries = cast("list[Any]", value)
    return len(entries) == length and all(map(_is_positive, entries))


def _find_frequency_fault(name: str, low: Any, high: Any) -> Iterator[str]:
    """A message where the band of frequencies between the two factors of the rotary
    settings `name` is empty. A factor that is no number above 0 is told of elsewhere."""
    if _is_positive(low) and _is_positive(high) and high <= low:
        yield (
            f"config.json: {name}.high_freq_factor {high:g} must be above low_freq_factor"
            f" {low:g}"
        )


def _find_id_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """A message for each special token's key whose id no row of the embedding has. Only
    eos_token_id may be a list; of a list the first faulty id is named and no other."""
    rows = size_of(config, "vocab_size")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = config.get(key)
        several = isinstance(value, list) and key == "eos_token_id"
        ids: list[Any] = cast("list[Any]", value) if several else [value]
        for token_id in ids:
            fault = _find_id_fault(token_id, rows, value)
            if fault:
                yield f"config.json: {key} is {fault}"
                break


def _find_id_fault(token_id: Any, rows: int, value: Any) -> str | None:
    """What is wrong with an id of a token; `value` is the key's, of which it may be one."""
    if token_id is None:
        return None
    if not isinstance(token_id, int) or isinstance(token_id, bool):
        return f"{format_brief(value)}, not the id of a token"
    if token_id >= rows:
        return f"{token_id}, but vocab_size is {rows}, so the last id is {rows - 1}"
    return None


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e300
