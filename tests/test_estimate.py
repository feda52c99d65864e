"""Are the numbers what the published tables, the real models and the real engine say?"""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lib.published_llamas import CONFIGS
from zsg_core.families.registry import shape_of_config
from zsg_core.settings.run import ModelSettings
from zsg_core.training import decoder, estimate
from zsg_core.training.decoder import DecoderShape, tiny_shape
from zsg_core.training.estimate import GB, STAGES

WORLDS = (1, 2, 4, 8, 16)


def shape(name: str) -> DecoderShape:
    """The shape of a published Llama."""
    return shape_of_config({**CONFIGS[name], "vocab_size": 32000})


@pytest.mark.parametrize(
    ("name", "count"),
    [("7B", 6_738_415_616), ("13B", 13_015_864_320), ("33B", 32_528_943_616)],
)
def test_parameters_of_published_models(name, count):
    """The counts that the released weights have."""
    assert shape(name).parameters == count


# The table "ZeRO stage and memory": GB per GPU before activations in bf16, on 1, 2, 4,
# 8 and 16 GPUs.
TABLE = [
    ("7B", 1, (134.8, 80.9, 53.9, 40.4, 33.7)),
    ("7B", 2, (134.8, 74.1, 43.8, 28.6, 21.1)),
    ("7B", 3, (111.8, 57.9, 31.0, 17.5, 10.7)),
    ("13B", 2, (260, 143, 84.6, 55.3, 40.7)),
    ("13B", 3, (212, 108, 56.1, 30.0, 17.0)),
    ("33B", 3, (524, 264, 134, 69.0, 36.5)),
]


@pytest.mark.parametrize(
    ("name", "stage", "world", "gigabytes"),
    [
        (name, stage, world, gb)
        for name, stage, row in TABLE
        for world, gb in zip(WORLDS, row, strict=True)
    ],
)
def test_memory_equals_the_table(name, stage, world, gigabytes):
    """Tensors per GPU are those of the table, to 2 %."""
    made = (
        estimate.estimate_tensors(shape(name).parameters, stage, world, "bf16").at_step
        / GB
    )

    assert made == pytest.approx(gigabytes, rel=0.02)


@pytest.mark.parametrize(("precision", "each"), [("bf16", 20), ("fp32", 16)])
@pytest.mark.parametrize("world", WORLDS)
def test_stage_0_divides_nothing(precision, each, world):
    """Stage 0 holds everything on every GPU: in bf16 as stage 1 on one, in fp32 as plain AdamW."""
    assert estimate.estimate_tensors(1000, 0, world, precision).at_step == each * 1000


@pytest.mark.parametrize("stage", STAGES)
def test_fp16_takes_what_bf16_does(stage):
    """Two bytes an element and an fp32 master, whichever the 16 bits are."""
    one, other = (
        estimate.estimate_tensors(1000, stage, 2, precision)
        for precision in ("fp16", "bf16")
    )

    assert one == other
    assert estimate.layer_bytes(shape("7B"), "fp16") == estimate.layer_bytes(
        shape("7B"), "bf16"
    )


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@given(parameters=st.integers(10**6, 10**11), world=st.integers(1, 128))
def test_a_higher_stage_or_more_gpus_never_hold_more(precision, parameters, world):
    """What stays on a GPU from step to step falls with the stage and with the number of GPUs."""
    held = [
        estimate.estimate_tensors(parameters, stage, world, precision).held
        for stage in STAGES[1:]
    ]
    wider = [
        estimate.estimate_tensors(parameters, stage, world + 1, precision).held
        for stage in STAGES[1:]
    ]

    assert held == sorted(held, reverse=True)
    assert all(more <= less for more, less in zip(wider, held, strict=True))


def test_activations_and_the_copy_of_the_step_do_not_meet():
    """Only the larger of the two counts."""
    tensors = estimate.estimate_tensors(10**9, 1, 1, "bf16")

    assert tensors.need(1 * GB) == tensors.at_step == 20 * GB
    assert tensors.need(5 * GB) == 21 * GB


@pytest.mark.soak(part="models")
def test_deepspeed_holds_what_is_estimated(tmp_path: Path):
    """Between two steps DeepSpeed has weights and optimiser, at stage 3 gradients too,
    to the byte (1 %)."""
    script = Path(__file__).with_name("lib") / "measured_memory.py"
    command = [sys.executable, str(script), str(tmp_path / "meeting")]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]

    for case, measured in json.loads(line.removeprefix("MEASURED ")).items():
        precision, stage = case.split()
        tensors = estimate.estimate_tensors(1_000_000, int(stage), 1, precision)
        held = (
            tensors.weights
            + tensors.optimizer
            + (tensors.gradients if stage == "3" else 0)
        )
        assert measured == pytest.approx(held / 1_000_000, rel=0.01), case


RANDOM_CONFIGS = [
    pytest.param({}, id="as many key heads as heads"),
    pytest.param({"num_key_value_heads": 2}, id="grouped heads"),
    pytest.param({"head_dim": 24}, id="a head size of its own"),
    pytest.param({"tie_word_embeddings": True}, id="tied"),
    pytest.param(
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
        id="biases",
    ),
    pytest.param({"vocab_size": 1, "num_hidden_layers": 1}, id="the smallest"),
]


@pytest.mark.parametrize("changes", RANDOM_CONFIGS)
def test_parameters_are_those_of_the_real_model(changes):
    """The count from the config equals that of the model transformers builds from it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 64,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    config = LlamaConfig(**({**sizes, "vocab_size": 333} | changes))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)

    assert shape_of_config(config.to_dict()).parameters == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize("hidden", [8, 128, 250])
def test_parameters_of_tiny_are_those_of_the_made_model(hidden, tmp_path: Path):
    """The count from the recipe equals what make_tiny writes down, and what its
    config.json says."""
    from jobs.model.base_model import make_tiny

    made = ModelSettings(hidden=hidden, layers=2, heads=1, vocab=300).shape | {
        "context": 64,
        "seed": 0,
    }
    make_tiny(tmp_path / "tiny", made, ["some text to learn from"])
    counted = json.loads((tmp_path / "tiny/meta.json").read_text())["parameters"]
    config = json.loads((tmp_path / "tiny/config.json").read_text())

    assert tiny_shape(made).parameters == counted
    assert shape_of_config(config) == tiny_shape(made)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "hidden_size is missing"),
        ({**CONFIGS["7B"]}, "vocab_size is missing"),
        ({**CONFIGS["7B"], "vocab_size": "many"}, "vocab_size is 'many', not a count"),
        ({**CONFIGS["7B"], "vocab_size": 0}, "vocab_size is 0, not a count"),
        (
            {**CONFIGS["7B"], "vocab_size": 9, "num_key_value_heads": True},
            "num_key_value_heads is True, not a count",
        ),
    ],
)
def test_a_config_that_is_no_llama_is_refused(config, said):
    """The message names the size that is missing or is no count."""
    with pytest.raises(ValueError, match=said):
        shape_of_config(config)


def saved_bytes(
    layers: int, precision: str, kv_heads: int, *, recompute: bool = False
) -> int:
    """Bytes that autograd really saves in a forward pass of a small model over 4 × 128
    tokens, nearly all learnt."""
    told = {"model_type": "llama", **config(layers, kv_heads)}
    return saved_bytes_of(told, layers, precision, recompute=recompute)


def saved_bytes_of(
    told: dict[str, Any],
    layers: int,
    precision: str,
    *,
    recompute: bool = False,
    lora: dict[str, Any] | None = None,
) -> int:
    """The same of a model of any family, with so many layers; with `lora`'s adapters,
    whose dropout drops."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from jobs.model.adapter_masks import find_keys
    from jobs.model.answer_loss import AnswerLoss
    from jobs.model.architecture import silence_dropouts
    from jobs.model.layers import set_up
    from jobs.model.lora import add_adapters
    from jobs.model.packed_attention import NAME

    sizes = {**told, "num_hidden_layers": layers}
    if "layer_types" in sizes:
        sizes["layer_types"] = sizes["layer_types"][:layers]
    made = AutoConfig.for_model(sizes.pop("model_type"), **sizes)
    llama = AutoModelForCausalLM.from_config(made, attn_implementation=NAME)
    silence_dropouts(llama)
    llama = llama.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    if lora:
        add_adapters(llama, lora)
    set_up(llama, recompute=recompute, compiled=False)
    model, keys = AnswerLoss(llama), find_keys(llama)
    of_the_model = {
        p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]
    }
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in of_the_model:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens, positions = torch.arange(512) % 100, torch.arange(512) % 128
    where = torch.arange(512)[positions < 127]

    def keep_given(layer: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        keep(given[0])

    # its input is kept, but no hook is told
    for layer in llama.model.layers if recompute else ():
        layer.register_forward_pre_hook(keep_given)
    texts = [np.arange(128)] * 4
    dropping = keys.within(1, range(4), texts, "cpu") if keys else nullcontext()
    saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with dropping, saving:
        model(tokens, positions, [128] * 4, where, tokens[where + 1], where // 128)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def config(layers: int, kv_heads: int) -> dict[str, int]:
    """A small Llama."""
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 172,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    return {**sizes, "num_hidden_layers": layers, "num_key_value_heads": kv_heads}


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_layer_holds_what_autograd_saves(precision, kv_heads):
    """What a further layer saves is the estimate to the byte."""
    two, three = (saved_bytes(layers, precision, kv_heads) for layers in (2, 3))
    small = shape_of_config(config(3, kv_heads))
    # Without flash attention the examples' outputs, of the queries' width, are put
    # together once more.
    together = estimate.ELEMENT[precision] * small.queries

    assert three - two == 512 * (estimate.layer_bytes(small, precision) + together)
    assert (
        0.9
        < three
        / (estimate.activation_bytes(small, 512, precision) + 512 * 3 * together)
        <= 1
    )


OF_DROPOUT = {
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 3, "n_inner": 176},
    "deepseek_v3": {
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "first_k_dense_replace": 9,
    },
}
FAMILIES_MEASURED = {
    "qwen3": {},
    "gemma": {},
    "gemma2": {"layer_types": ["full_attention"] * 3},
    "gemma3_text": {"layer_types": ["full_attention"] * 3},
    "olmo2": {},
    "phi3": {"pad_token_id": 0},
    "cohere2": {"layer_types": ["full_attention"] * 3},
    "starcoder2": {},
    "gpt_neox": {"num_key_value_heads": 4},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("family", FAMILIES_MEASURED)
def test_a_layer_of_each_family_holds_what_autograd_saves(family, precision):
    """What a further layer saves is the estimate within 1 %; of scores that stand in
    memory, within 4 %."""
    told = {"model_type": family, **config(3, 2), "head_dim": 16}
    told |= {"intermediate_size": 176, **FAMILIES_MEASURED[family]}
    two, three = (saved_bytes_of(told, layers, precision) for layers in (2, 3))
    shape = shape_of_config(told)
    [kind] = shape.layer_kinds
    estimated = estimate.kind_bytes(shape, kind, precision)
    estimated += estimate.ELEMENT[precision] * shape.queries  # put together, as above
    if kind.has_plain_attention:
        estimated += estimate.score_bytes(shape, precision, 128)

    assert (three - two) / 512 == pytest.approx(
        estimated, rel=0.04 if kind.has_plain_attention else 0.01
    )


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("llama", ["all"]),
        ("llama", ["q_proj", "v_proj"]),
        ("gpt2", ["mlp"]),  # of matrices the other way round
        ("deepseek_v3", ["attention"]),  # of inputs of four widths
    ],
)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_the_dropout_of_lora_keeps_is_counted(family, targets, precision):
    """A further layer saves no more than is estimated. All that goes into an adapter is
    kept once more, and what was dropped of it; at most its own input is kept no more."""
    told = {"model_type": family, **config(3, 4), **OF_DROPOUT.get(family, {})}
    lora = {"method": "lora", "r": 4, "alpha": 16.0, "targets": targets, "seed": 0}
    plain, dropping = (
        saved_bytes_of(told, 3, precision, lora=lora | more)
        - saved_bytes_of(told, 2, precision, lora=lora | more)
        for more in ({}, {"dropout": 0.1})
    )
    shape = shape_of_config(told)
    kind = shape.layer_kinds[-1]
    each = estimate.ELEMENT[precision]
    estimated = estimate.dropout_bytes(kind, precision, targets)
    without_masks = estimated * each / (each + 1)

    assert estimated - without_masks <= (dropping - plain) / 512 <= estimated
    if family == "deepseek_v3":
        return  # without flash attention a CPU holds more of it than a GPU
    whole = estimated + estimate.kind_bytes(shape, kind, precision)
    assert dropping / 512 <= whole + each * shape.queries


@pytest.mark.parametrize(("tokens", "least"), [(16, 0.4), (32, 0.9), (512, 0.0)])
def test_dropout_chooses_within_the_memory_that_is_counted(tokens, least):
    """The most that is there at any moment: what it keeps of a layer's values, and what
    is mixed of some of them at once, however many there are."""
    import torch

    from jobs.model.adapter_masks import KeyedMask, MaskKeys
    from tests.lib.live_bytes import LiveBytes

    keys, values = MaskKeys(1), torch.ones(1, tokens, 4096)
    mask = KeyedMask(keys, "q_proj", 0.1)
    with keys.within(1, [0], [np.arange(tokens)], "cpu"), LiveBytes() as live:
        mask.drop(values)

    kept = tokens * 4096 * (4 + 1)
    counted = estimate.masking_bytes("cpu")
    assert least * counted < live.most < kept + counted


def test_plan_counts_the_dropout_of_lora():
    """7B with dropout before all linear layers holds a fifth more at least."""
    held = estimate.Activations(shape=shape("7B"), precision="bf16")
    dropping = replace(held, dropping=("all",))

    assert 1.2 < dropping.token_bytes / held.token_bytes < 1.6


def test_a_head_that_is_filled_up_is_held_filled_up():
    """OpenLLaMA-3B's of 100 are 104 for the kernel in 16 bits, and the output is held in both sizes."""
    filled = DecoderShape(
        hidden=3200,
        intermediate=8640,
        layers=26,
        heads=32,
        kv_heads=32,
        head_dim=100,
        vocab=32000,
        tied=False,
    )
    wider = replace(filled, head_dim=104)
    assert estimate.layer_bytes(filled, "bf16") == (
        estimate.layer_bytes(wider, "bf16") + 2 * 3200
    )
    assert estimate.layer_bytes(filled, "fp32") < estimate.layer_bytes(wider, "fp32")


def test_recomputing_keeps_a_layers_input():
    """With recomputation 7B keeps 8 kB a layer and token, and one layer whole."""
    plain, recomputed = (
        estimate.activation_bytes(shape("7B"), 1, "bf16", recompute=flag)
        for flag in (False, True)
    )

    assert (
        plain - recomputed
        == 31 * estimate.layer_bytes(shape("7B"), "bf16") - 32 * 2 * 4096
    )
    assert 6e6 < plain < 7e6  # bytes per token


def test_a_recomputed_layer_holds_its_input_alone():
    """What a further layer saves is then its input, to the byte."""
    two, three = (saved_bytes(layers, "bf16", 4, recompute=True) for layers in (2, 3))

    assert three - two == 512 * 2 * 64


@pytest.mark.parametrize(
    ("batch", "world", "max_length", "tokens"),
    [
        pytest.param(16, 1, 1024, 16_384, id="a whole batch on one GPU"),
        pytest.param(64, 1, 1024, 16_384, id="the budget bounds it"),
        pytest.param(16, 4, 1024, 4096, id="a rank has its share"),
        pytest.param(16, 3, 1024, 6144, id="the largest share"),
        pytest.param(16, 16, 1024, 1024, id="one example"),
        pytest.param(
            16, 1, 32_768, 32_768, id="an example longer than the budget stands alone"
        ),
    ],
)
def test_tokens_of_a_micro_batch(batch, world, max_length, tokens):
    """The most padded tokens that a GPU has at once."""
    assert estimate.micro_tokens(batch, world, max_length, 16_384) == tokens


@pytest.mark.parametrize(
    ("name", "mfu", "tokens_per_s"),
    [("7B", 0.45, 3400), ("7B", 0.52, 3930), ("13B", 0.48, 1880), ("33B", 0.45, 706)],
)
def test_gpu_hours_are_those_of_published_throughput(name, mfu, tokens_per_s):
    """Examples of 2,048 tokens on an A100 pass at the tokens per second that the MFU
    stands for, to 2 %."""
    flops = estimate.training_flops(shape(name), 2048, 2048**2)

    assert 2048 / (3600 * estimate.gpu_hours(flops, 312, mfu)) == pytest.approx(
        tokens_per_s, rel=0.02
    )


@pytest.mark.parametrize(("tests", "share"), [(595, 0.61), (120, 0.24)])
def test_the_share_of_evaluation(tests, share):
    """Scoring the held-out examples every 10 steps of 16 takes the published share of
    all operations (one point)."""
    small = DecoderShape(
        hidden=1,
        intermediate=1,
        layers=1,
        heads=1,
        kv_heads=1,
        head_dim=1,
        vocab=10**9,
        tied=False,
    )  # attention is negligible
    train = estimate.training_flops(small, 160 * 350, 0)
    test = estimate.forward_flops(small, tests * 450, 0)

    assert test / (train + test) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    ("name", "gigabytes"), [("7B", 94), ("13B", 182), ("33B", 455)]
)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_disk_of_a_resumable_state(name, gigabytes, stage):
    """Weights, master and moments: 14 bytes per parameter."""
    assert estimate.state_bytes(
        shape(name).parameters, stage, "bf16"
    ) / GB == pytest.approx(gigabytes, rel=0.01)


def test_the_width_of_tinys_mlp_is_a_multiple_of_8():
    """8/3 of the hidden size, rounded up."""
    assert [decoder.tiny_intermediate(hidden) for hidden in (3, 128, 250)] == [
        8,
        344,
        672,
    ]
