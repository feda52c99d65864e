"""Says what in a config.json is not a Llama that zsg trains: what transformers would
refuse, or pass over in silence.

transformers' Llama computes what LlamaConfig knows of and nothing else: a window, a
softcap or a factor that another class reads stands in the file and is not done. So each
such key is looked for, and refused where it would do something.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from zsg_core.schema_errors import format_brief
from zsg_core.training.llama import DEFAULTS, position_count

MOST_LAYERS = 10_000
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
CODE = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")


def find_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Each as a sentence without the folder's name; numbers of the wrong type are told
    alone, as all rests on them."""
    wrong = [*_types(config)]
    if wrong:
        yield from wrong
        return
    hidden, heads = (
        size_of(config, "hidden_size"),
        size_of(config, "num_attention_heads"),
    )
    keys, width = key_heads(config), head_size(config)
    if hidden % heads:
        yield f"config.json: hidden_size {hidden} is no multiple of num_attention_heads {heads}"
    if heads % keys:
        yield (
            f"config.json: num_attention_heads {heads} is no multiple of num_key_value_heads {keys}"
        )
    if width % 2:
        yield f"config.json: head_dim is {width}; rotary positions turn pairs, so it must be even"
    if (kind := config.get("hidden_act", "silu")) not in ACTIVATIONS:
        yield (
            f"config.json: hidden_act {format_brief(kind)} is none that transformers has; for a"
            " Llama it is 'silu'"
        )
    if config.get("attention_dropout"):
        yield "attention_dropout is not 0; its draws would differ by rank"
    yield from _rope(config, width)
    for key, neutral in NOT_COMPUTED.items():
        if key in config and config[key] not in neutral:
            yield (
                f"config.json: {key} is {format_brief(config[key])}, which transformers' Llama does"
                " not compute"
            )
    kinds = config.get("layer_types")
    if kinds is not None and not (
        isinstance(kinds, list) and set(map(str, kinds)) <= {"full_attention"}
    ):
        yield (
            f"config.json: layer_types {format_brief(kinds)} has others than full_attention, which"
            " Llama's all are"
        )
    yield from _ids(config)
    yield from find_code(config, CODE)
    yield from find_other_files(config)


def find_quantisation(config: Mapping[str, Any]) -> str | None:
    """By which method config.json says that the weights are quantised; None where it
    says nothing of it."""
    for key in ("quantization_config", "compression_config"):
        told = config.get(key)
        if told:
            return (
                str(told.get("quant_method") or "compressed")[:80]
                if isinstance(told, dict)
                else format_brief(told)
            )
    for key in ("dtype", "torch_dtype"):
        name = config.get(key)
        if isinstance(name, str) and name.removeprefix("torch.") not in DTYPES:
            return name[:80]
    return None


def find_code(told: Mapping[str, Any], classes: tuple[str, ...]) -> Iterator[str]:
    """The fault of a config or a tokenizer that is computed by Python code of its own,
    which zsg does not run."""
    named = told.get("auto_map")
    if isinstance(named, list) and "AutoTokenizer" in classes:  # as older files have it
        named = {"AutoTokenizer": named}
    if not isinstance(named, dict):
        return
    own = [named[key] for key in classes if named.get(key)]
    if own:
        yield (
            f"auto_map names code of its own ({format_brief(own[0])}), which zsg does not run: it"
            " would"
            " train transformers' own class instead; where that computes the same, take auto_map"
            " out of a copy of the folder"
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
                " files"
                " than zsg has judged; take it out of a copy of the folder, and give the files"
                " their usual names"
            )
    for key in IMPLEMENTATIONS:
        told = config.get(key)
        if told is not None and not (isinstance(told, str) and told in ATTENTIONS):
            yield (
                f"config.json: {key} is {format_brief(told)}, which transformers does not have; it"
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
    most = position_count(config)
    said = f"max_position_embeddings {most}"
    if config.get("max_position_embeddings") is None:
        said = (
            f"{most} positions, which transformers takes where config.json has no"
            " max_position_embeddings"
        )
    width = attention_window(config)
    if width is not None and width < most:
        most, said = (
            width,
            f"sliding_window {width}, which transformers' Llama does not compute",
        )
    if _rope_kind(used := _rope_used(config)) == "longrope":
        origin = used.get(
            "original_max_position_embeddings",
            config.get("original_max_position_embeddings"),
        )
        if type(origin) is int and origin < most:
            most = origin
            said = (
                f"original_max_position_embeddings {origin}, beyond which longrope turns all"
                " examples of a batch by other angles"
            )
    return most, said


def has_sizes(config: Mapping[str, Any]) -> bool:
    """Whether all sizes are counts, by which tensors and ids can be judged."""
    optional = [
        config[key]
        for key in ("num_key_value_heads", "head_dim")
        if config.get(key) is not None
    ]
    sizes = [size_of(config, key) for key in DEFAULTS]
    return (
        all(map(_is_count, [*sizes, *optional]))
        and size_of(config, "num_hidden_layers") < MOST_LAYERS
    )


def size_of(config: Mapping[str, Any], key: str) -> int:
    """A size, or what transformers takes where it is missing."""
    return config.get(key, DEFAULTS[key])


def key_heads(config: Mapping[str, Any]) -> int:
    """The number of heads of keys and values."""
    return config.get("num_key_value_heads") or size_of(config, "num_attention_heads")


def head_size(config: Mapping[str, Any]) -> int:
    """The width of a head."""
    return config.get("head_dim") or size_of(config, "hidden_size") // size_of(
        config, "num_attention_heads"
    )


def _types(config: Mapping[str, Any]) -> Iterator[str]:
    for key in DEFAULTS:
        if key in config and not _is_count(config[key]):
            yield f"config.json: {key} is {format_brief(config[key])}, not a count"
    layers = size_of(config, "num_hidden_layers")
    if _is_count(layers) and layers >= MOST_LAYERS:
        yield f"config.json: num_hidden_layers must be a number of layers, less than {MOST_LAYERS}"
    for key in ("num_key_value_heads", "head_dim"):
        if config.get(key) is not None and not _is_count(config[key]):
            yield f"config.json: {key} is {format_brief(config[key])}, not a count"
    for key in ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_cache"):
        if key in config and not isinstance(config[key], bool):
            yield f"config.json: {key} is {format_brief(config[key])}, neither true nor false"
    for key in ("rms_norm_eps", "initializer_range", "rope_theta"):
        if config.get(key, 1) is not None and not _is_positive(config.get(key, 1)):
            yield f"config.json: {key} is {format_brief(config[key])}, not a number above 0"
    if "rms_norm_eps" in config and config["rms_norm_eps"] is None:
        yield "config.json: rms_norm_eps is None, not a number above 0"
    for key in ("rope_scaling", "rope_parameters", "auto_map"):
        allowed = (dict, list) if key == "auto_map" else (dict,)
        if config.get(key) is not None and not isinstance(config[key], allowed):
            yield f"config.json: {key} is {format_brief(config[key])}, not an object"


def _rope_used(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers reads of rotary positions: the older key counts where both are there."""
    used = config.get("rope_scaling") or config.get("rope_parameters")
    return used if isinstance(used, dict) else {}


def _rope_kind(used: Mapping[str, Any]) -> Any:
    return used.get("rope_type", used.get("type", "default"))


def _rope(config: Mapping[str, Any], head: int) -> Iterator[str]:
    used = _rope_used(config)
    where = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    kind = _rope_kind(used)
    other = config.get("rope_parameters") or used
    if any(isinstance(value, dict) for value in used.values()):
        yield f"config.json: {where} differs by kinds of layers, which Llama does not have"
        return
    if not isinstance(kind, str) or kind not in ROPE:
        yield (
            f"config.json: {where} has the type {format_brief(kind)}, which transformers' Llama"
            f" does not know; it knows {', '.join(ROPE)}"
        )
        return
    if _rope_kind(other) != kind:
        yield (
            f"config.json: rope_scaling is {kind!r} and rope_parameters"
            f" {format_brief(_rope_kind(other))}; leave one"
        )
    thetas = [
        told["rope_theta"]
        for told in (used, config)
        if told.get("rope_theta") is not None
    ]
    if any(not _is_positive(theta) for theta in thetas):
        yield f"config.json: rope_theta is {format_brief(thetas[0])}, not a number above 0"
    elif len(set(thetas)) > 1:
        yield (
            f"config.json: rope_theta is {thetas[1]:g}, and {where}.rope_theta {thetas[0]:g};"
            " leave one"
        )
    if used.get("partial_rotary_factor") not in (None, 1):
        yield (
            f"config.json: {where} turns a part of each head only, which transformers' Llama does"
            " not compute"
        )
    if used.get("mrope_section") is not None:
        yield (
            f"config.json: {where} has mrope_section, positions of several kinds, which Llama does"
            " not have"
        )
    yield from _rope_fields(config, used, kind, where, head)


def _rope_fields(
    config: Mapping[str, Any], used: Mapping[str, Any], kind: str, where: str, head: int
) -> Iterator[str]:
    origin = "original_max_position_embeddings"
    given: dict[str, Any] = {name: used.get(name) for name in ROPE[kind]}
    if origin in given and config.get(origin) is not None:
        given[origin] = config[origin]
    lacking = [name for name, value in given.items() if value is None]
    if lacking:
        yield f"config.json: {where} of type {kind!r} needs {', '.join(lacking)}"
        return
    for name, value in given.items():
        if name in ("short_factor", "long_factor"):
            if not (
                isinstance(value, list)
                and len(value) == head // 2
                and all(map(_is_positive, value))
            ):
                yield (
                    f"config.json: {where}.{name} must be {head // 2} numbers above 0, one for each"
                    " pair of a head"
                )
        elif name == origin and not _is_count(value):
            yield f"config.json: {where}.{name} is {format_brief(value)}, not a count"
        elif not _is_positive(value):
            yield f"config.json: {where}.{name} is {format_brief(value)}, not a number above 0"
    if kind == "llama3":
        low, high = given["low_freq_factor"], given["high_freq_factor"]
        if _is_positive(low) and _is_positive(high) and high <= low:
            yield (
                f"config.json: {where}.high_freq_factor {high:g} must be above low_freq_factor"
                f" {low:g}"
            )


def _ids(config: Mapping[str, Any]) -> Iterator[str]:
    rows = size_of(config, "vocab_size")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        told = config.get(key)
        for one in told if isinstance(told, list) and key == "eos_token_id" else [told]:
            if one is not None and (not isinstance(one, int) or isinstance(one, bool)):
                yield f"config.json: {key} is {format_brief(told)}, not the id of a token"
                break
            if one is not None and one >= rows:
                yield (
                    f"config.json: {key} is {one}, but vocab_size is {rows}, so the last id is"
                    f" {rows - 1}"
                )
                break


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e300
