"""Is just that trained which a way of tuning names, and counted as published?"""

import contextlib
import hashlib
import warnings
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.grids import inputs
from tests.lib.command_line import Zsg
from tests.lib.journal_rows import plain_rows
from tests.lib.mlflow_contents import loss_by_step
from tests.lib.model_folders import write_decoder
from tests.lib.small_runs import submit_forked
from zsg_core.errors import ClusterError, UserError
from zsg_core.families.headers import shape_of_tensors
from zsg_core.families.registry import shape_of_config
from zsg_core.settings.run import Settings
from zsg_core.settings.train import TuningSettings
from zsg_core.training.decoder import DecoderShape
from zsg_core.training.tuning import count_trained_parameters

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import (
        CONFIG_MAPPING,
        AutoModelForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    from jobs.model import lora as lora_module
    from jobs.model.adapter_masks import KeyedMask, MaskKeys, find_keys
    from jobs.model.base_model import load_model
    from jobs.model.lora import add_adapters, count_adapted
    from jobs.model.small_config import shrink_config
    from jobs.model.tuning import apply_tuning
    from tests.lib.tiny_families import make_config, make_model

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
}
SEVEN_B = DecoderShape(
    hidden=4096,
    intermediate=11008,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    vocab=32000,
    tied=False,
)


def lora(*targets: str, r: int = 16) -> dict[str, Any]:
    """LoRA as a recipe has it."""
    return TuningSettings(method="lora", r=r, targets=list(targets) or None).resolved(
        seed=0
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tuning", "millions"),
    [
        pytest.param(lora(), 8.39, id="LoRA on q and v"),
        pytest.param(
            lora("q_proj", "k_proj", "v_proj", "o_proj"), 16.78, id="LoRA on q, k, v, o"
        ),
        pytest.param(lora("embed_tokens"), 0.58, id="LoRA on the embedding"),
        pytest.param({"method": "bitfit"}, 0.0, id="biases"),
        pytest.param({"method": "ln"}, 0.266, id="norms"),
        pytest.param({"method": "full"}, 6738.4, id="all"),
    ],
)
def test_counts_of_a_7b_model_are_the_published(
    tuning: dict[str, Any], millions: float
) -> None:
    """The numbers of the papers' formulas for LLaMA-2-7B."""
    assert count_trained_parameters(SEVEN_B, tuning) / 1e6 == pytest.approx(
        millions, rel=0.005
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_key_value_heads": 2}, {"attention_bias": True, "mlp_bias": True}],
)
@pytest.mark.parametrize(
    "tuning",
    [
        lora("all", "embed_tokens", r=3),
        lora("attention", "q_proj"),
        lora("mlp"),
        lora("v_proj"),
        {"method": "ln"},
        {"method": "full"},
    ],
)
def test_what_is_trained_is_what_is_counted(
    tuning: dict[str, Any], changes: dict[str, Any]
) -> None:
    """The parameters with a gradient are as many as the count says, on a real model."""
    config = LlamaConfig(**(SMALL | changes))
    model = LlamaForCausalLM(config)
    apply_tuning(model, tuning)

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == count_trained_parameters(
        shape_of_config(config.to_dict()), tuning
    )


def test_adapters_begin_as_nothing_and_are_drawn_by_the_seed() -> None:
    """Before the first step LoRA changes no output; its first weights depend on the seed alone."""
    torch.manual_seed(1)
    plain = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    tokens = torch.arange(20)[None]
    before = plain(tokens, use_cache=False).logits
    weights = dict(plain.state_dict())

    drawn = []
    for draw in (5, 6):
        torch.manual_seed(draw)
        model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
        model.load_state_dict(weights)
        apply_tuning(model, lora())
        assert torch.equal(model(tokens, use_cache=False).logits, before)
        drawn.append(
            torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])
        )
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("family", "target", "found"),
    [
        pytest.param(
            "gpt2",
            "attention",
            {"c_attn": 4, "c_proj": 4},
            id="weights written the other way round, a name that the MLP has, too",
        ),
        pytest.param(
            "gpt_neox",
            "all",
            {
                "dense": 4,
                "dense_4h_to_h": 4,
                "dense_h_to_4h": 4,
                "query_key_value": 4,
            },
            id="queries, keys and values in one",
        ),
        pytest.param(
            "qwen2_moe",
            "mlp",
            {"down_proj": 4, "gate_proj": 4, "up_proj": 4},
            id="the shared experts, not those that are chosen",
        ),
        pytest.param(
            "mixtral",
            "all",
            {"k_proj": 4, "o_proj": 4, "q_proj": 4, "v_proj": 4},
            id="neither routers nor experts",
        ),
        pytest.param(
            "mixtral", "experts", {"down_proj": 4, "gate_up_proj": 4}, id="experts"
        ),
        pytest.param(
            "qwen2_moe", "routers", {"gate": 4, "shared_expert_gate": 4}, id="routers"
        ),
    ],
)
def test_a_role_means_the_same_in_every_family(
    family: str, target: str, found: dict[str, int]
) -> None:
    """Adapters stand beside just what plays the role, whatever the family calls it, and
    what was found is told."""
    model = make_model(family)
    told = add_adapters(model, lora(target, r=2))

    assert told == found == count_adapted(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * sum(found.values())
    assert all(".lora_" in name for name in trained)


def test_what_a_class_freezes_is_not_tuned(tmp_path: Path) -> None:
    """AfMoE's experts are used alike by a bias that no gradient reaches: weight decay
    would shrink it. It is no bias to tune, either. Plan counts the same by names."""
    config = shrink_config(CONFIG_MAPPING["afmoe"]())
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_model(tmp_path, "fp32")
    apply_tuning(model, {"method": "full"})

    tensors = {name: tuple(p.shape) for name, p in model.named_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = tensors.keys() - trained
    assert len(frozen) == 3 and all(name.endswith("expert_bias") for name in frozen)
    shape = shape_of_tensors(config.to_dict(), tensors)
    counted = count_trained_parameters(shape, {"method": "full"})
    assert counted == sum(prod(tensors[name]) for name in trained)
    assert count_trained_parameters(shape, {"method": "bitfit"}) == 0
    with pytest.raises(UserError, match="bitfit trains biases"):
        apply_tuning(model, {"method": "bitfit"})


@pytest.mark.parametrize(
    ("family", "target", "said"),
    [
        pytest.param("gpt2", "q_proj", "attention: c_attn, c_proj", id="of Llama"),
        pytest.param("gpt_oss", "gate_up_proj", "name the role experts", id="a tensor"),
        pytest.param("llama", "experts", "nothing that this model has", id="a role"),
        pytest.param("llama", "self_attn", "is a LlamaAttention", id="a part of it"),
        pytest.param("gpt2", "wpe", "the embedding of tokens", id="of positions"),
        pytest.param(
            "qwen2_moe", "shared_expert_gate", "name the role routers", id="a router"
        ),
    ],
)
def test_a_target_that_names_nothing_is_refused_by_name(
    family: str, target: str, said: str
) -> None:
    """PEFT would train what the other targets name and say nothing."""
    targets = ["o_proj", target] if family == "gpt_oss" else [target]
    with pytest.raises(UserError, match=said) as error:
        add_adapters(make_model(family), lora(*targets))
    assert target in str(error.value)


TIES = [
    ("llama", {"tie_word_embeddings": True}, "embed_tokens", True),
    ("llama", {"tie_word_embeddings": False}, "embed_tokens", False),
    ("gemma", {}, "lm_head", True),
    ("gpt2", {}, "wte", True),
    ("gpt_neox", {"tie_word_embeddings": True}, "embed_in", True),
    ("gpt_neox", {"tie_word_embeddings": True}, "lm_head", True),
    ("bloom", {}, "word_embeddings", True),
    ("gpt2", {}, "attention", False),
]


def test_a_merge_of_a_tied_table_is_refused_by_plan(tmp_path: Path) -> None:
    """As the node refuses it, whatever the family calls its embedding and its output
    layer; to train the adapters on is no merge."""
    for number, (family, changes, target, is_refused) in enumerate(TIES):
        folder = tmp_path / f"{number}"
        write_decoder(folder, make_config(family, **changes).to_dict())
        for start in ("merge", "continue"):
            point = staged(folder, target, start)
            with expect_refusal(is_refused and start == "merge"):
                inputs.check_merges([point.by_stage()])


def test_a_table_that_adapters_share_is_told_by_its_name(tmp_path: Path) -> None:
    """The families call it otherwise."""
    folder = write_decoder(tmp_path / "gpt2", make_config("gpt2").to_dict())

    [note] = [
        note
        for note in inputs.find_model_notes([staged(folder, "wte", "continue")])
        if "tie_word_embeddings" in note
    ]
    assert "LoRA on wte adapts one of them alone" in note


def staged(folder: Path, target: str, start: str) -> Settings:
    """A run of two stages with LoRA on one target of a folder's model."""
    tuning = {"method": "lora", "targets": [target], "start": start}
    return Settings.model_validate(
        {
            "data": {"path": "/d"},
            "model": {"name": "m", "path": str(folder)},
            "train": {"tuning": tuning, "max_length": 64},
            "stages": [{}, {"train": {"lr": 1e-5}}],
        }
    )


def expect_refusal(is_refused: bool) -> Any:
    """A UserError on the tie, or none."""
    if is_refused:
        return pytest.raises(UserError, match="tie_word_embeddings")
    return contextlib.nullcontext()


def test_plan_refuses_a_target_that_a_llama_does_not_have() -> None:
    """What is counted is what could be adapted: a name that no module has is an error."""
    with pytest.raises(UserError, match="'c_attn' is nothing that this model has"):
        count_trained_parameters(SEVEN_B, lora("c_attn"))


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        pytest.param("llama", ["all"], id="linear layers"),
        pytest.param("gpt2", ["attention", "wte"], id="transposed, a tied embedding"),
        pytest.param("gemma3_text", ["mlp", "embed_tokens"], id="a scaled embedding"),
        pytest.param("mixtral", ["experts", "routers"], id="experts and routers"),
        pytest.param("gpt_neox", ["all", "lm_head"], id="the output layer"),
    ],
)
def test_merged_adapters_give_what_they_gave(family: str, targets: list[str]) -> None:
    """The sum is the model with adapters, to rounding, in every family; a head that was
    the embedding has a weight of its own where the embedding is adapted."""
    model, tokens = make_model(family), torch.arange(5, 25)[None]
    mask = torch.ones_like(tokens)
    bare = model(tokens, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    add_adapters(model, lora(*targets, r=2) | {"rslora": True})
    for name, parameter in model.named_parameters():
        if lora_module.is_of_adapter(name):
            torch.nn.init.normal_(parameter, std=0.1)
    adapted = model(tokens, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    lora_module.merge_added(model, unties=True)
    merged = model(tokens, attention_mask=mask, use_cache=False).logits.log_softmax(-1)

    assert (adapted - bare).abs().max() > 0.5
    assert (merged - adapted).abs().max() < 2e-4
    assert count_adapted(model) == {}
    assert not hasattr(model, "peft_config")


def test_a_tied_table_is_not_merged_unless_it_may_be_untied() -> None:
    """PEFT would change the output layer, too, and say nothing."""
    model = make_model("gpt2")
    add_adapters(model, lora("wte"))
    with pytest.raises(UserError, match="tie_word_embeddings"):
        lora_module.merge_added(model)


def test_the_scale_of_rslora_falls_with_the_root_of_the_rank() -> None:
    """α/√r in place of α/r, and no other weights."""
    plain, stable = make_model("llama"), make_model("llama")
    add_adapters(plain, lora("q_proj", r=4))
    add_adapters(stable, lora("q_proj", r=4) | {"rslora": True})

    scales = [
        module.scaling["default"]
        for model in (plain, stable)
        for _name, module in lora_module.list_adapted(model)[:1]
    ]
    assert scales == [4.0, 8.0]


def texts(*lengths: int) -> list[Any]:
    """Texts of some lengths, as token ids."""
    return [np.arange(length) for length in lengths]


def masked(keys: MaskKeys, step: int, items: list[int], lengths: list[int]) -> Any:
    """Which of 64 features of the tokens of some examples are dropped in a layer."""
    mask = KeyedMask(keys, "layers.0.q_proj", 0.25)
    with keys.within(step, items, texts(*lengths), "cpu"):
        return mask(torch.ones(1, sum(lengths), 64))[0] == 0


def test_dropout_of_an_example_hangs_on_nothing_beside_it() -> None:
    """Packed with others, alone, or padded, its masks are the same; of another step,
    example, layer or seed they are others, and as many as they should be."""
    keys = MaskKeys(seed=5)
    packed = masked(keys, 3, [7, 2, 4], [30, 50, 40])

    assert torch.equal(packed[30:80], masked(keys, 3, [2], [50]))
    padded = KeyedMask(keys, "layers.0.q_proj", 0.25)
    with keys.within(3, [2, 4], texts(50, 40), "cpu"):
        both = padded(torch.ones(2, 60, 64)) == 0
    assert torch.equal(both[0, :50], packed[30:80])
    assert torch.equal(both[1, :40], packed[80:])
    assert packed.float().mean() == pytest.approx(0.25, abs=0.02)
    others = [
        masked(keys, 4, [2], [50]),
        masked(keys, 3, [3], [50]),
        masked(MaskKeys(seed=6), 3, [2], [50]),
    ]
    for other in others:
        agree = (other == packed[30:80]).float().mean()
        assert agree == pytest.approx(0.25**2 + 0.75**2, abs=0.04)


def test_masks_stay_what_they_were() -> None:
    """A run that is resumed by a newer zsg drops what it would have dropped."""
    dropped = masked(MaskKeys(seed=5), 3, [7, 2, 4], [30, 50, 40])

    digest = hashlib.sha256(dropped.numpy().tobytes()).hexdigest()
    assert digest.startswith("41811e13d40dee8b")


def test_nothing_is_dropped_before_the_output_layer() -> None:
    """It is given the states of learnt tokens alone, whose places are not told."""
    model = make_model("llama")
    add_adapters(model, lora("all", "lm_head") | {"dropout": 0.5})

    masked_parts = {
        name.rpartition(".lora_dropout")[0].rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, KeyedMask)
    }
    assert "q_proj" in masked_parts
    assert "lm_head" not in masked_parts


def test_dropout_drops_in_training_alone() -> None:
    """Outside of a micro-batch, as where losses are measured, nothing is dropped; within
    one the mean stays."""
    model = make_model("llama")
    add_adapters(model, lora("all") | {"dropout": 0.5})
    keys = find_keys(model)
    assert keys is not None
    masks = [m for m in model.modules() if isinstance(m, KeyedMask)]
    values = torch.ones(1, 200, 64)

    assert len(masks) == 7 * 4
    assert torch.equal(masks[0](values), values)
    with keys.within(1, [0], texts(200), "cpu"):
        assert masks[0](values).mean() == pytest.approx(1.0, abs=0.05)
        with pytest.raises(ClusterError, match="199 vectors"):
            masks[0](torch.ones(1, 199, 64))
    assert find_keys(make_model("llama")) is None


def test_dropout_of_experts_is_refused() -> None:
    """Which tokens reach an expert is chosen on the way."""
    with pytest.raises(UserError, match="experts cannot be dropped"):
        add_adapters(make_model("mixtral"), lora("experts") | {"dropout": 0.1})


def test_biases_can_be_trained_only_where_there_are_some() -> None:
    """BitFit on a Llama without biases is refused with the reason; with biases it trains these."""
    with pytest.raises(UserError, match="has none"):
        apply_tuning(LlamaForCausalLM(LlamaConfig(**SMALL)), {"method": "bitfit"})
    model = LlamaForCausalLM(LlamaConfig(**SMALL, attention_bias=True))
    apply_tuning(model, {"method": "bitfit"})

    assert {
        name.rpartition(".")[2]
        for name, p in model.named_parameters()
        if p.requires_grad
    } == {"bias"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"train": {"tuning": {"method": "ln", "r": 4}}},
            "LoRA's",
            id="a rank without LoRA",
        ),
        pytest.param(
            {"train": {"tuning": {"method": "ln", "dropout": 0.1}}},
            "LoRA's",
            id="dropout without LoRA",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(
    changes: dict[str, Any], said: str
) -> None:
    """A setting that is not honoured is an error."""
    with pytest.raises(ValueError, match=said):
        Settings.model_validate({"data": {"path": "/d"}, **changes})


GRID = """
name: tuned
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 4, test_per_task: 2, positive_examples: 0}}
  train: {{batch: 8, lr: 1e-2, max_length: 96, precision: fp32}}
  checkpoints: {{every: 6}}
grid:
  train.tuning: [{{method: lora, r: 4}}, {{method: ln}}]
"""


def test_adapters_and_norms_learn_in_a_grid(
    zsg: Zsg, tasks: Path, forked: Path
) -> None:
    """Runs that tune LoRA's adapters or the norms finish, learn, and say how many
    parameters they trained."""
    grid = zsg.write("tuned.yaml", GRID.format(tasks=tasks))
    submit_forked(zsg, forked, grid)
    rows = zsg.status()

    assert [row["state"] for row in rows] == ["done", "done"]
    assert all(row["loss"] < loss_by_step(zsg.work, row["run"])[0] for row in rows)
    starts = [
        next(
            r["data"]
            for r in plain_rows(zsg.work / "runs" / row["run"])
            if "trained" in r["data"]
        )
        for row in rows
    ]
    assert [start["trained"] for start in starts] == [2 * 2 * 4 * (64 + 64), 64 * 5]
    assert starts[0]["adapted"] == {"q_proj": 2, "v_proj": 2}


@pytest.mark.parametrize("target", ["experts", "routers"])
def test_dropout_of_experts_is_refused_by_plan(target: str) -> None:
    """Not on a node, after the queue."""
    with pytest.raises(ValueError, match="cannot be dropped"):
        TuningSettings(method="lora", targets=[target], dropout=0.1)
