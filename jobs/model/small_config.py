"""Makes a small config of any family's config: a model of the same kind, of few layers
and narrow, for what can be proven of a kind in seconds and without weights.

Whatever decides who sees whom stays, at a scale at which short texts meet it: windows
and chunks are of 8 tokens, and each kind of layer that the config has is there. Sizes
are known by their keys; nothing here is known of single families.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from zsg_core.errors import UserError

HEADS, HEAD_SIZE = 4, 16
WINDOW = 8
VOCABULARY = 300
FEWEST_LAYERS, MOST_LAYERS = 4, 12
MOST_POSITIONS = 512
EXPERTS, MOST_CHOSEN = 4, 2
# Of a text's positions, where what depends on long texts begins. Longest first.
ORIGINAL_POSITIONS = 16

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

# Keys whose number is replaced by another one.
SIZES: dict[str, int] = {
    # widths
    "hidden_size": HEADS * HEAD_SIZE,
    "n_embd": HEADS * HEAD_SIZE,
    "d_model": HEADS * HEAD_SIZE,
    "word_embed_proj_dim": HEADS * HEAD_SIZE,
    "lru_width": HEADS * HEAD_SIZE,
    "intermediate_size": 128,
    "n_inner": 128,
    "ffn_dim": 128,
    "ffn_hidden_size": 128,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 64,
    "dense_intermediate_size": 128,
    "expert_ffn_hidden_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "intermediate_size_mlp": 128,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCABULARY,
    "laurel_rank": 8,
    "dim_model_base": 32,
    # heads
    "num_attention_heads": HEADS,
    "attention_heads": HEADS,
    "num_heads": HEADS,
    "n_head": HEADS,
    "n_heads": HEADS,
    "head_dim": HEAD_SIZE,
    "global_head_dim": HEAD_SIZE,
    "attention_head_dim": HEAD_SIZE,
    "rotary_dim": 8,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": HEAD_SIZE,
    "qk_rope_head_dim": 8,
    "qk_head_dim": HEAD_SIZE + 8,
    "v_head_dim": HEAD_SIZE,
    # what texts of a few dozen tokens are to go beyond
    "sliding_window": WINDOW,
    "attention_chunk_size": WINDOW,
    "attention_window_size": WINDOW,
    "window_size": WINDOW,
    "sliding_window_size": WINDOW,
    "keep_window_size": WINDOW,
    "index_topk": WINDOW,
    "index_topk_blocks": 2,
    "index_block_size": WINDOW // 2,
    "floor_scale": WINDOW,
    "log_scaling_n_floor": WINDOW,
    "index_n_heads": HEADS,
    "index_head_dim": HEAD_SIZE,
    # experts
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "n_routed_experts": EXPERTS,
    "moe_num_experts": EXPERTS,
    # recurrent layers
    "state_size": 8,
    "mamba_d_state": 8,
    "ssm_state_size": 8,
    "time_step_rank": 4,
    "mamba_dt_rank": 4,
    "mamba_d_ssm": 2 * HEADS * HEAD_SIZE,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_d_head": HEAD_SIZE,
    "mamba_head_dim": HEAD_SIZE,
    "mamba_n_groups": 1,
    "linear_key_head_dim": HEAD_SIZE,
    "linear_value_head_dim": HEAD_SIZE,
    "linear_head_dim": HEAD_SIZE,
    "linear_num_heads": HEADS,
    "mamba_chunk_size": WINDOW,
    "chunk_size": WINDOW,
    "block_size": WINDOW,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": HEADS,
    # how often a kind of layer comes, where no list says it
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "full_attention_interval": 2,
    "vocab_size": VOCABULARY,
}

# Keys whose number is no larger than another one.
BOUNDS: dict[str, int] = {
    "max_position_embeddings": MOST_POSITIONS,
    "n_positions": MOST_POSITIONS,
    "num_experts_per_tok": MOST_CHOSEN,
    "num_experts_per_token": MOST_CHOSEN,
    "moe_top_k": MOST_CHOSEN,
    "moe_k": MOST_CHOSEN,
    "moe_topk": MOST_CHOSEN,
    "top_k_experts": MOST_CHOSEN,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "num_kv_shared_layers": 1,
    "num_nextn_predict_layers": 0,
}

KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads")
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BY_LAYER = "per_layer_config"
# of rotations that change with the longest text around: what zsg then refuses is
# decided by find_longest, and a proof is of texts below it
BY_LENGTH = ("dynamic", "longrope")


def shrink_config(config: Any) -> Any:
    """A config of the same class and small.

    UserError where the class cannot make one: its sizes depend on each other in a way
    that is not known here.
    """
    try:
        return type(config).from_dict(_shrink_fields(config))
    except Exception as error:  # a class's own checks raise whatever they like
        raise UserError(
            f"no small {config.model_type!r} model can be made to prove this one by:"
            f" {_first_line(error)}"
        ) from error


def _shrink_fields(config: Any) -> dict[str, Any]:
    """All of a config's keys as a small one has them."""
    fields = config.to_dict()
    kept = {
        key: _shrink(key, value, fields)
        for key, value in fields.items()
        if key not in (*LAYER_COUNTS, BY_LAYER)
    }
    kept |= {key: value for key, value in TOKENS.items() if key in fields}
    return kept | _choose_layers(fields, kept, config.num_hidden_layers)


def find_longest(config: Any) -> int | None:
    """The longest text whose rotations do not depend on the texts around it; None where
    none do.

    Some are chosen anew for the longest text of a batch (dynamic, longrope), also for
    the short ones in it.
    """
    found: list[int] = []

    def look(node: object) -> None:
        if not isinstance(node, Mapping):
            return
        if node.get("rope_type", node.get("type")) in BY_LENGTH:
            original = node.get("original_max_position_embeddings")
            original = original or getattr(
                config, "original_max_position_embeddings", None
            )
            original = original or config.max_position_embeddings
            found.append(int(original))
        for value in node.values():
            look(value)

    look(getattr(config, "rope_parameters", None))
    return min(found, default=None)


def _shrink(key: str, value: Any, fields: Mapping[str, Any]) -> Any:
    """A key's value in a small config; as it is where it sets no size."""
    if key in ("rope_parameters", "rope_scaling"):
        return _shrink_rotation(value, fields)
    if key == "head_dim" and value is None:
        return HEAD_SIZE
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if key == "num_heads" and "expand" in fields:  # of a recurrent layer: by its width
        return fields["expand"] * SIZES["hidden_size"] // HEAD_SIZE
    if key in KEY_HEADS:
        return _count_key_heads(value, fields)
    if key == "head_dim" and "qk_rope_head_dim" in fields:
        key = "qk_rope_head_dim"  # there it is the part that is rotated
    if key in SIZES:
        return SIZES[key] if value > 0 else value
    if key in BOUNDS:
        return min(value, BOUNDS[key])
    is_width = value > VOCABULARY and value == fields.get("hidden_size")
    return SIZES["hidden_size"] if is_width else value


def _count_key_heads(value: int, fields: Mapping[str, Any]) -> int:
    """As many as heads, one, or in between, as the config has it."""
    heads = next(
        (fields[key] for key in ("num_attention_heads", "n_head") if key in fields),
        value,
    )
    if value == heads:
        return HEADS
    return 1 if value == 1 else 2


def _shrink_rotation(node: Any, fields: Mapping[str, Any]) -> Any:
    """Rotary settings for small heads: a factor of each pair of dimensions is one of
    fewer, and long texts begin early."""
    if not isinstance(node, Mapping):
        return node
    by_length = node.get("rope_type", node.get("type")) in BY_LENGTH
    changed: dict[str, Any] = {}
    for key, value in node.items():
        changed[key] = value
        if isinstance(value, Mapping):
            changed[key] = _shrink_rotation(value, fields)
        elif key in ("long_factor", "short_factor"):
            changed[key] = list(value)[: _count_pairs(node, fields)]
        elif key == "original_max_position_embeddings" and not by_length:
            changed[key] = ORIGINAL_POSITIONS
    return changed


def _count_pairs(node: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
    """The pairs of dimensions of a small head that are rotated."""
    share = node.get("partial_rotary_factor") or fields.get("partial_rotary_factor")
    size = SIZES["qk_rope_head_dim"] if "qk_rope_head_dim" in fields else HEAD_SIZE
    return int(size * (share or 1.0)) // 2


def _choose_layers(
    fields: Mapping[str, Any], kept: Mapping[str, Any], count: int
) -> dict[str, Any]:
    """The number of layers, and of all that is told by layers what the kept ones have:
    the first of every kind, and more until there are a few."""
    counted = next((key for key in LAYER_COUNTS if key in fields), LAYER_COUNTS[0])
    told = {
        key: value
        for key, value in kept.items()
        if isinstance(value, (list, tuple, str)) and value
    }
    lists = {key: value for key, value in told.items() if _is_by_layer(value, count)}
    places = {
        key: set(value)
        for key, value in told.items()
        if key not in lists and _are_places(value, count)
    }
    by_layer = {int(key): value for key, value in (fields.get(BY_LAYER) or {}).items()}
    kinds = [
        (
            *(repr(value[number]) for value in lists.values()),
            *(number in value for value in places.values()),
            repr(by_layer.get(number)),
        )
        for number in range(count)
    ]
    chosen = _choose_numbers(kinds)
    picked: dict[str, Any] = {counted: len(chosen)}
    for key, value in lists.items():
        entries = [_shrink_entry(key, value[number]) for number in chosen]
        picked[key] = "".join(entries) if isinstance(value, str) else entries
    for key, value in places.items():
        picked[key] = [new for new, old in enumerate(chosen) if old in value]
    if by_layer:
        picked[BY_LAYER] = {
            str(new): _shrink_override(by_layer[old], fields)
            for new, old in enumerate(chosen)
            if old in by_layer
        }
    return picked


def _choose_numbers(kinds: Sequence[Any]) -> list[int]:
    """The first layer of every kind, and more until there are a few."""
    firsts = {kind: number for number, kind in reversed(list(enumerate(kinds)))}
    chosen = sorted(firsts.values())[:MOST_LAYERS]
    others = [number for number in range(len(kinds)) if number not in chosen]
    return sorted(chosen + others[: max(0, FEWEST_LAYERS - len(chosen))])


def _is_by_layer(value: Sequence[Any], count: int) -> bool:
    """Whether a list has an entry for each layer, and is none of places."""
    return 1 < count == len(value) and list(value) != list(range(count))


def _are_places(value: Sequence[Any], count: int) -> bool:
    """Whether a list names some of the layers by their numbers."""
    are_numbers = all(type(entry) is int and 0 <= entry < count for entry in value)
    return are_numbers and list(value) == sorted(set(value))


def _shrink_entry(key: str, entry: Any) -> Any:
    is_size = isinstance(entry, int) and not isinstance(entry, bool)
    return SIZES[key] if is_size and key in SIZES else entry


def _shrink_override(
    override: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """What single layers have otherwise: what is larger there stays larger."""
    changed: dict[str, Any] = {}
    for key, value in override.items():
        changed[key] = _shrink_entry(key, value)
        usual = fields.get(key)
        if key in SIZES and isinstance(usual, int) and value > usual:
            changed[key] = 2 * SIZES[key]
    return changed


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
