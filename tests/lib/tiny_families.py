"""Tiny random models of many families: what their configs need to be small, with four
layers of every kind that the family has and a window of 8."""

from collections.abc import Mapping
from typing import Any

VOCABULARY = 300

# of the families whose configs have the usual keys
_USUAL: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_HALF_HEADS = {"head_dim": 16}
_WINDOW = {"sliding_window": 8}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 48,
}
_MIXED = {
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    **_WINDOW,
}

# by model_type, what differs from the usual keys
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {**_HALF_HEADS, **_WINDOW},
    "mixtral": {"num_local_experts": 4, **_WINDOW},
    "qwen2": {},
    "qwen3": _HALF_HEADS,
    "qwen2_moe": _EXPERTS,
    "qwen3_moe": {**_EXPERTS, **_HALF_HEADS},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "gemma": _HALF_HEADS,
    "gemma2": {**_HALF_HEADS, **_MIXED, "query_pre_attn_scalar": 16},
    "gemma3_text": {**_HALF_HEADS, **_MIXED, "query_pre_attn_scalar": 16},
    "olmo": {},
    "olmo2": {},
    "olmo3": _MIXED,
    "phi": {},
    "phi3": _WINDOW,
    "gpt_neox": {},
    "gpt2": {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 112, "word_embed_proj_dim": 64},
    "bloom": {"n_layer": 4, "n_head": 4},
    "falcon": {},
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
    "starcoder2": _WINDOW,
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {**_MIXED, "logit_scale": 0.25},
    "gpt_oss": {
        **_HALF_HEADS,
        **_MIXED,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 48,
        "first_k_dense_replace": 1,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
    },
    "apertus": {},
    "seed_oss": _HALF_HEADS,
}


def make_config(family: str, **changes: Any) -> Any:
    """The config of a tiny model of a family."""
    from transformers import AutoConfig

    settings = {**_USUAL, **FAMILIES[family], **changes}
    return AutoConfig.for_model(family, **settings)


def make_model(family: str, **changes: Any) -> Any:
    """A tiny model of a family, in float32 with eager attention: weights of a standard
    deviation of 0.3, which nothing hides behind, and norms near 1."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_config(
        make_config(family, **changes), attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()
