"""A small config of each family of decoders, with every kind of layer that it has."""

from typing import Any

COMMON = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_GPT = {
    "vocab_size": 300,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
}
_LATENT = {
    "kv_lora_rank": 24,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 20,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 2,
}
_WINDOW = {"sliding_window": 8}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

# by model_type: what differs from COMMON; a family may have several
DIFFERENCES: dict[str, list[dict[str, Any]]] = {
    "llama": [{}, {"attention_bias": True, "mlp_bias": True, "head_dim": 24}],
    "helium": [{"head_dim": 16, "pad_token_id": 0}],
    "granite": [{}, {"attention_bias": True, "mlp_bias": True}],
    "smollm3": [
        {"pad_token_id": 0},
        {"pad_token_id": 0, "use_sliding_window": True, **_WINDOW},
    ],
    "seed_oss": [{"head_dim": 32}],
    "ernie4_5": [{"head_dim": 16}, {"use_bias": True}],
    "arcee": [{}, {"mlp_bias": True}],
    "hunyuan_v1_dense": [{"head_dim": 16}],
    "exaone4": [{**_WINDOW}],
    "cwm": [{**_WINDOW, "head_dim": 16}],
    "mistral": [{}, {"sliding_window": None}],
    "ministral": [{**_WINDOW, "head_dim": 16}],
    "ministral3": [{}],
    "mixtral": [{**_EXPERTS}],
    "qwen2": [{}, {"use_sliding_window": True, "max_window_layers": 2, **_WINDOW}],
    "qwen3": [{}, {"head_dim": 32, "attention_bias": True}],
    "qwen2_moe": [
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 56,
            "mlp_only_layers": [1],
            "decoder_sparse_step": 2,
        }
    ],
    "qwen3_moe": [
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
    ],
    "gemma": [{"head_dim": 32}],
    "gemma2": [{"head_dim": 32, **_WINDOW}],
    "gemma3_text": [{"head_dim": 32, **_WINDOW}],
    "olmo": [{}],
    "olmo2": [{}],
    "olmo3": [{**_WINDOW}],
    "olmoe": [{"num_experts": 4, "num_experts_per_tok": 2}],
    "phi": [{}, {"qk_layernorm": True}],
    "phi3": [{"pad_token_id": 0}, {"pad_token_id": 0, **_WINDOW}],
    "cohere": [{}, {"use_qk_norm": True}],
    "cohere2": [{**_WINDOW}],
    "starcoder2": [{}, {"use_bias": False, **_WINDOW}],
    "stablelm": [{}, {"use_qkv_bias": True, "use_parallel_residual": True}],
    "nemotron": [{}],
    "gpt_oss": [{**_EXPERTS, **_WINDOW, "head_dim": 16}],
    "granitemoe": [{**_EXPERTS}],
    "deepseek_v2": [
        {**_LATENT},
        {**_LATENT, "q_lora_rank": None, "topk_method": "greedy"},
    ],
    "deepseek_v3": [{**_LATENT, "num_key_value_heads": 4, "n_shared_experts": 2}],
    "glm": [{"head_dim": 16, "pad_token_id": 0}],
    "glm4": [{"head_dim": 16, "pad_token_id": 0}],
    "glm4_moe": [{**_LATENT, "n_group": 1, "head_dim": 16, "use_qk_norm": True}],
    "apertus": [{}],
    "gpt_neox": [{}, {"attention_bias": False, "tie_word_embeddings": True}],
    "opt": [{"ffn_dim": 96, "word_embed_proj_dim": 64}],
}
# families whose sizes have other names
OTHERS: dict[str, list[dict[str, Any]]] = {
    "gpt2": [_GPT, {**_GPT, "n_inner": 96}],
    "gpt_bigcode": [_GPT],
    "gptj": [{**_GPT, "rotary_dim": 8}],
    "gpt_neo": [
        {
            "vocab_size": 300,
            "hidden_size": 64,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "max_position_embeddings": 128,
        }
    ],
    "bloom": [{"vocab_size": 300, "hidden_size": 64, "n_layer": 3, "n_head": 4}],
    "falcon": [
        {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2}
        | {"num_attention_heads": 4}
        | more
        for more in (
            {},
            {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
            {"parallel_attn": False, "multi_query": False, "alibi": True},
        )
    ],
}


def list_configs() -> list[tuple[str, dict[str, Any]]]:
    """Each family's small configs, as they would stand in a config.json."""
    common = [
        (name, {"model_type": name, **COMMON, **difference})
        for name, differences in DIFFERENCES.items()
        for difference in differences
    ]
    others = [
        (name, {"model_type": name, **sizes})
        for name, configs in OTHERS.items()
        for sizes in configs
    ]
    return common + others
