"""Is an evaluator given what its GPUs have room for, and is what cannot fit refused with
the smallest change?"""

from pathlib import Path

import pytest

from jobs.contract.folder import write_json
from jobs.model import content
from launcher.planning import evaluator_fit
from launcher.planning.evaluator_fit import EvaluatorGpus
from tests.lib.published_llamas import CONFIGS
from zsg_core.families.registry import shape_of_config
from zsg_core.suites import Suite
from zsg_core.training import evaluation_memory
from zsg_core.training.decoder import DecoderShape
from zsg_core.training.estimate import GB
from zsg_core.training.evaluation_memory import (
    FILLED,
    EvaluationLoad,
    cache_bytes,
    fit_tokens,
    spread_layers,
    token_bytes,
)

GROUPED = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
REWARD = 26e9  # UltraRM-13b in 16 bits


def shape(name: str) -> DecoderShape:
    """The shape of a published Llama."""
    if name == "8B":
        return shape_of_config(GROUPED)
    return shape_of_config({**CONFIGS[name], "vocab_size": 32000})


def load(name: str, row: int = 2560, beside: float = 0.0) -> EvaluationLoad:
    """What evaluating a published Llama in bf16 takes."""
    return EvaluationLoad(shape=shape(name), precision="bf16", row=row, beside=beside)


@pytest.mark.parametrize(
    ("name", "bytes_"),
    [("7B", 524_288), ("13B", 819_200), ("33B", 1_597_440), ("8B", 131_072)],
)
def test_keys_and_values_of_a_token(name: str, bytes_: int) -> None:
    """Of all layers, for as many heads as there are of keys; 65,536 tokens of 33B take 105 GB."""
    assert cache_bytes(shape(name), "bf16") == bytes_
    assert cache_bytes(shape(name), "fp32") == 2 * bytes_
    assert cache_bytes(shape(name), "bf16", layers=1) * shape(name).layers == bytes_


@pytest.mark.parametrize(
    ("name", "memory_gb", "tokens"),
    [
        ("7B", 80, 65_536),  # as before batches depended on the memory
        ("7B", 40, 16_384),
        ("13B", 80, 32_768),
        ("33B", 80, 4_096),
        ("8B", 80, 65_536),
        ("8B", 24, 16_384),
    ],
)
def test_a_batch_has_what_the_memory_has_room_for(
    name: str, memory_gb: int, tokens: int
) -> None:
    """65,536 tokens, or that halved until it fits beside the weights; some gigabytes
    more or less change nothing but at the edge."""
    model, rows = shape(name), [300, 900]
    free = memory_gb * GB - 2 * model.parameters
    parts = [(model.layers, free)]

    assert fit_tokens(model, "bf16", rows, parts) == tokens
    need = max(token_bytes(model, "bf16", row) for row in rows)
    assert tokens * need <= FILLED * free
    assert tokens == evaluation_memory.BATCH_TOKENS or 2 * tokens * need > FILLED * free
    same = [(model.layers, free - 0.01 * GB)]
    assert fit_tokens(model, "bf16", rows, same) == tokens


def test_a_row_is_never_divided() -> None:
    """A batch has as many tokens as the longest, whatever the memory."""
    model = shape("33B")

    assert fit_tokens(model, "bf16", [100, 3000], [(60, 1.0)]) == 3000


def test_the_fullest_gpu_decides() -> None:
    """Of several, each holds the keys and values of its own layers."""
    model = shape("33B")
    two = [(30, 40 * GB), (30, 40 * GB)]

    assert fit_tokens(model, "bf16", [900], two) == 16_384
    assert fit_tokens(model, "bf16", [900], [two[0], (30, 12 * GB)]) == 8_192


@pytest.mark.parametrize(
    ("beside", "counts"),
    [
        ((0.0, 0.0), [4, 6]),  # the embedding is on the first
        ((0.0, 2.0), [5, 5]),
        ((0.0, 100.0), [10, 0]),
        ((0.0,), [10]),
        ((0.0, 0.0, 0.0), [2, 4, 4]),
    ],
)
def test_layers_go_where_the_least_is(
    beside: tuple[float, ...], counts: list[int]
) -> None:
    """So that no GPU is much fuller than another; all layers go somewhere."""
    made = spread_layers(10, 1.0, 2.0, beside)

    assert sum(made) == 10
    assert made == counts


def test_spreading_loses_nothing() -> None:
    """The parts have all weights of the model, and the reward model is on the last."""
    one, three = load("33B").spread(1), load("33B", beside=REWARD).spread(3)

    assert one[0].weights == pytest.approx(2 * shape("33B").parameters)
    assert sum(part.weights for part in three) == pytest.approx(one[0].weights)
    assert [part.beside for part in three] == [0.0, 0.0, REWARD]
    assert three[2].layers < three[1].layers


A800 = EvaluatorGpus(count=1, most=8, name="A800-80G", memory_gb=80)


def test_what_cannot_fit_is_refused_with_the_smallest_change() -> None:
    """33B with a reward model of 13B beside it: two GPUs hold them."""
    said = evaluator_fit.explain_misfit(load("33B", beside=REWARD), A800)

    assert said is not None
    assert "on a GPU, but A800-80G has 80 GB: 65.1 GB weights" in said
    assert "26.0 GB a reward model" in said
    assert "The smallest change that fits: evaluate.gpus: 2 in the profile" in said
    two = EvaluatorGpus(count=2, most=8, name="A800-80G", memory_gb=80)
    assert evaluator_fit.explain_misfit(load("33B", beside=REWARD), two) is None


def test_what_no_node_holds_is_said_so() -> None:
    """Nothing of a profile would help then."""
    small = EvaluatorGpus(count=1, most=2, name="T4", memory_gb=16)
    said = evaluator_fit.explain_misfit(load("33B"), small)

    assert said is not None and "Not even all 2 GPUs of a node fit" in said


@pytest.mark.parametrize("name", ["7B", "13B", "33B"])
def test_what_fits_is_not_refused(name: str) -> None:
    """On 80 GB each model of the papers, one answer at a time at the least."""
    assert evaluator_fit.explain_misfit(load(name), A800) is None


def test_what_fits_barely_says_what_would_be_faster() -> None:
    """How many answers are made at once, and how many with one GPU more."""
    tight = evaluator_fit.describe_fit(load("33B"), A800)
    wide = evaluator_fit.describe_fit(load("7B"), A800)

    assert (
        "one answer with its prompt, 2560 tokens; 1 at once, 12 with evaluate.gpus: 2"
        in tight
    )
    assert wide.endswith("2560 tokens; 25 at once")


@pytest.mark.parametrize(
    ("config", "files", "size"),
    [
        ({"torch_dtype": "bfloat16"}, {"model.safetensors": 600}, 600),
        ({"dtype": "float32"}, {"model.safetensors": 600}, 300),
        ({}, {"pytorch_model-1.bin": 400, "pytorch_model-2.bin": 200}, 300),
        (
            {"dtype": "float16"},
            {"model.safetensors": 600, "pytorch_model.bin": 600},
            600,
        ),
        (None, {}, 0),
    ],
)
def test_what_a_reward_model_takes(
    tmp_path: Path, config: dict[str, str] | None, files: dict[str, int], size: int
) -> None:
    """Its weights in 16 bits, as it is loaded on a GPU; one form of them counts."""
    if config is not None:
        write_json(tmp_path / "config.json", config)
    for name, length in files.items():
        (tmp_path / name).write_bytes(bytes(length))

    assert content.count_loaded_bytes(tmp_path) == size


def suite(name: str, **how: int) -> Suite:
    """A suite whose answers are made so."""
    return Suite(name=name, keys=("k",), how=dict(how))


@pytest.mark.parametrize(
    ("suites", "row"),
    [
        ([suite("test_set", max_new_tokens=128)], 512 + 128),
        ([suite("gsm8k", max_new_tokens=512)], 1024 + 512),
        ([suite("mt_bench", max_new_tokens=1024)], 1024 + 2 * 1024),
        ([suite("mt_bench", max_new_tokens=4096)], 4096),
        ([suite("inside")], 512),
        ([suite("inside"), suite("gsm8k", max_new_tokens=512)], 1536),
    ],
)
def test_the_longest_answer_with_its_prompt(suites: list[Suite], row: int) -> None:
    """Of the suites that are asked for, within the model's 4096 positions."""
    assert evaluator_fit.bound_row(suites, 512, 4096) == row


def test_a_makers_prompt_is_not_taken_for_the_whole_context_of_its_model() -> None:
    """Instructions, a text of the data and a reply of before it, then the reply; of a
    model with few positions these."""
    assert evaluator_fit.bound_made_row(512, 1024, 1 << 20) == 1024 + 1024 + 2 * 512
    assert evaluator_fit.bound_made_row(512, 1024, 2048) == 2048
