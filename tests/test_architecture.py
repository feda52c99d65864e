"""Is what zsg needs of a model found in every family, without a list of them?"""

import warnings
from typing import Any

import pytest

from tests.lib.tiny_families import FAMILIES, VOCABULARY, make_config, make_model
from zsg_core.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import AutoConfig

    from jobs.model import architecture
    from jobs.model.answer_loss import PADDED, AnswerLoss
    from jobs.model.small_config import shrink_config
    from tests.lib.family_table import compute_losses


def skeleton(family: str, **changes: Any) -> Any:
    """A model of a family that takes no memory."""
    config = make_config(family, **changes)
    return architecture.make_skeleton(config, torch.float32, "eager")


def small_skeleton(family: str, **settings: Any) -> Any:
    """The same of a family by its class's own config, made small."""
    config = shrink_config(AutoConfig.for_model(family, **settings))
    return architecture.make_skeleton(config, torch.float32, "eager")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_model_are_found(family: str) -> None:
    """Its body, head, embedding, layers; norms, but for a family without any weights
    in them."""
    model = skeleton(family)

    assert architecture.find_body(model) in [*model.children()]
    assert architecture.find_head(model).weight.shape == (VOCABULARY, 64)
    assert architecture.find_embedding(model).weight.shape == (VOCABULARY, 64)
    assert len(architecture.find_layers(model)) == 4
    names = architecture.list_norm_parameters(model)
    assert names <= dict(model.named_parameters()).keys()
    # at least one a layer, and the last
    assert len(names) >= 5 or family == "olmo"


def test_the_norms_of_a_llama_are_those_that_were_tuned_ever_since() -> None:
    """By their names, as older versions found them."""
    model = skeleton("llama")

    expected = {n for n, _ in model.named_parameters() if n.endswith("norm.weight")}
    assert architecture.list_norm_parameters(model) == expected


def test_norms_of_other_names_and_their_biases_are_found() -> None:
    """`ln_1` of a GPT-2, whose norms add something, too."""
    names = architecture.list_norm_parameters(skeleton("gpt2"))

    assert {"transformer.h.0.ln_1.weight", "transformer.ln_f.bias"} <= names


def test_biases_of_fused_experts_are_biases() -> None:
    """They are called after the weights that they belong to."""
    names = {n for n, _ in skeleton("gpt_oss").named_parameters()}

    biases = {name for name in names if architecture.is_bias(name)}
    assert "model.layers.0.mlp.experts.down_proj_bias" in biases
    assert "model.layers.0.self_attn.q_proj.bias" in biases
    assert "model.layers.0.mlp.experts.down_proj" not in biases


def test_nothing_is_drawn_once_dropouts_are_silent() -> None:
    """In layers of their own, as a GPT-2's, and in figures that layers keep."""
    gpt2, seed = skeleton("gpt2"), skeleton("seed_oss", residual_dropout=0.1)

    told = architecture.silence_dropouts(gpt2)
    assert "attn_dropout 0.1" in told
    assert "resid_dropout 0.1" in told
    assert "residual_dropout 0.1" in architecture.silence_dropouts(seed)
    assert not architecture.silence_dropouts(gpt2)
    assert architecture.list_silenced(gpt2) == told
    assert not architecture.silence_dropouts(seed)
    assert not architecture.silence_dropouts(skeleton("llama"))


def test_what_layers_read_of_their_config_each_time_is_silent_too() -> None:
    """Falcon's layers do; what no layer of a model reads is not told of."""
    falcon = skeleton("falcon", hidden_dropout=0.1, attention_dropout=0.2)
    persimmon = small_skeleton("persimmon", attention_dropout=0.1)

    told = architecture.silence_dropouts(falcon)
    assert sorted(told) == ["attention_dropout 0.2", "hidden_dropout 0.1"]
    assert falcon.config.hidden_dropout == falcon.config.attention_dropout == 0
    assert "attention_dropout 0.1" in architecture.silence_dropouts(persimmon)
    assert persimmon.config.attention_dropout == 0
    assert not architecture.silence_dropouts(skeleton("gpt_neox"))


def test_what_routers_multiply_at_random_is_silent() -> None:
    """As a Mixtral's may."""
    mixtral = skeleton("mixtral", router_jitter_noise=0.1)

    assert architecture.silence_dropouts(mixtral) == ["jitter_noise 0.1"]
    held = [vars(module).get("jitter_noise") for module in mixtral.modules()]
    assert not any(held)
    assert mixtral.config.router_jitter_noise == 0


def test_routers_add_nothing_to_the_loss() -> None:
    """Whatever their config asks for, as transformers would with labels."""
    asked = {"output_router_logits": True, "router_aux_loss_coef": 0.5}
    texts = [torch.arange(5, 40), torch.arange(9, 60)]
    with_loss = AnswerLoss(make_model("mixtral", **asked), PADDED)
    without = AnswerLoss(make_model("mixtral"), PADDED)

    assert torch.equal(compute_losses(with_loss, texts), compute_losses(without, texts))


def test_parameters_that_a_class_freezes_are_known() -> None:
    """What AfMoE adds to its routers' scores: no gradient reaches it, and weight decay
    would shrink it. All else is trained again after adapters are merged."""
    afmoe = small_skeleton("afmoe")

    names = architecture.list_frozen(afmoe)
    assert names == [f"model.layers.{n}.mlp.expert_bias" for n in (1, 2, 3)]
    afmoe.requires_grad_(False)
    architecture.free_parameters(afmoe)
    frozen = [name for name, p in afmoe.named_parameters() if not p.requires_grad]
    assert frozen == names
    assert not architecture.list_frozen(skeleton("llama"))


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("t5", "an encoder and a decoder"),
        ("gemma3", "others within it"),
        ("vit", "no causal language model"),
    ],
)
def test_what_is_no_text_decoder_is_refused(family: str, expected: str) -> None:
    """In a sentence that says what it is."""
    with pytest.raises(UserError, match=expected):
        architecture.find_class(AutoConfig.for_model(family))


def test_a_config_within_another_may_be_of_its_layers() -> None:
    """As MPT's of its attention: it is one model of text all the same."""
    assert architecture.find_class(AutoConfig.for_model("mpt")).__name__ == (
        "MptForCausalLM"
    )


def test_a_family_that_draws_its_experts_is_refused() -> None:
    """No rate of its config says so, and one that looks like a rate is a threshold."""
    with pytest.raises(UserError, match="'phimoe' model draws its experts at random"):
        architecture.refuse_drawn_experts(AutoConfig.for_model("phimoe"))
