"""Makes a small config of any family's config: a model of the same kind, of few layers
and narrow, for what can be proven of a kind in seconds and without weights.

Whatever decides who sees whom stays, at a scale at which short texts meet it: windows
and chunks are of 8 tokens, and each kind of layer that the config has is there. Sizes
are known by their keys; nothing here is known of single families.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zsg_core.errors import UserError
from zsg_core.families.rotations import BY_LENGTH, find_rotation_limit

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
    small = {
        key: _shrink(key, value, fields)
        for key, value in fields.items()
        if key not in (*LAYER_COUNTS, BY_LAYER)
    }
    small |= {key: value for key, value in TOKENS.items() if key in fields}
    layers = _read_layers(fields, small, config.num_hidden_layers)
    return small | layers.choose(fields)


def find_longest(config: Any) -> int | None:
    """The longest text whose rotations do not depend on the texts around it; None where
    none do."""
    limit = find_rotation_limit(config.to_dict())
    return None if limit is None else limit[0]


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
    return _shrink_size(key, value, fields)


def _shrink_size(key: str, size: int, fields: Mapping[str, Any]) -> int:
    """A number of a config as a small one has it."""
    if key == "head_dim" and "qk_rope_head_dim" in fields:
        key = "qk_rope_head_dim"  # there it is the part that is rotated
    if key in KEY_HEADS:
        return _count_key_heads(size, fields)
    if key in SIZES:
        return SIZES[key] if size > 0 else size
    if key in BOUNDS:
        return min(size, BOUNDS[key])
    is_width = size > VOCABULARY and size == fields.get("hidden_size")
    return SIZES["hidden_size"] if is_width else size


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


@dataclass(frozen=True)
class LayerKeys:
    """What a config tells of its layers one by one. `count`: of them, under `count_key`.

    `entries`: lists with an entry for each layer. `numbered`: lists of layers' numbers.
    `overrides`: what single layers have otherwise, by their numbers.
    """

    count: int
    count_key: str
    entries: Mapping[str, Sequence[Any]]
    numbered: Mapping[str, set[int]]
    overrides: Mapping[int, Mapping[str, Any]]

    def choose(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The number of layers of a small config, and what it tells of each."""
        chosen = _choose_numbers([self._describe(n) for n in range(self.count)])
        small: dict[str, Any] = {self.count_key: len(chosen)}
        for key, entries in self.entries.items():
            picked = [_shrink_entry(key, entries[number]) for number in chosen]
            small[key] = "".join(picked) if isinstance(entries, str) else picked
        for key, numbers in self.numbered.items():
            small[key] = [new for new, old in enumerate(chosen) if old in numbers]
        if self.overrides:
            small[BY_LAYER] = self._pick_overrides(chosen, fields)
        return small

    def _pick_overrides(
        self, chosen: Sequence[int], fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the chosen layers have otherwise, by their new numbers."""
        return {
            str(new): _shrink_override(self.overrides[old], fields)
            for new, old in enumerate(chosen)
            if old in self.overrides
        }

    def _describe(self, number: int) -> tuple[Any, ...]:
        """All that is told of a layer: two of the same are of one kind."""
        entries = [repr(values[number]) for values in self.entries.values()]
        numbered = [number in numbers for numbers in self.numbered.values()]
        return (*entries, *numbered, repr(self.overrides.get(number)))


def _read_layers(
    fields: Mapping[str, Any], small: Mapping[str, Any], count: int
) -> LayerKeys:
    """What a config tells of its layers, its sizes being small already."""
    lists = _find_lists(small)
    entries = {key: value for key, value in lists.items() if _is_by_layer(value, count)}
    shared = {key: value for key, value in lists.items() if key not in entries}
    overrides = fields.get(BY_LAYER) or {}
    return LayerKeys(
        count=count,
        count_key=next((key for key in LAYER_COUNTS if key in fields), LAYER_COUNTS[0]),
        entries=entries,
        numbered=_find_numbers(shared, count),
        overrides={int(number): value for number, value in overrides.items()},
    )


def _find_lists(small: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    return {
        key: value
        for key, value in small.items()
        if isinstance(value, (list, tuple, str)) and value
    }


def _find_numbers(
    lists: Mapping[str, Sequence[Any]], count: int
) -> dict[str, set[int]]:
    """Those of lists that name layers by their numbers."""
    return {
        key: set(value) for key, value in lists.items() if _are_places(value, count)
    }


def _choose_numbers(kinds: Sequence[Any]) -> list[int]:
    """The first layer of every kind, and more until there are a few."""
    firsts = {kind: number for number, kind in reversed(list(enumerate(kinds)))}
    chosen = sorted(firsts.values())[:MOST_LAYERS]
    spare = [number for number in range(len(kinds)) if number not in chosen]
    return sorted(chosen + spare[: max(0, FEWEST_LAYERS - len(chosen))])


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
