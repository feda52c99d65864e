"""Do batches have what a GPU's memory has room for, and layers the GPU they are meant for?"""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.modeling_layers import GradientCheckpointingLayer

    from jobs.model import base_model, placement
    from jobs.model.answer_loss import AnswerLoss, refuse_leaks
    from jobs.model.architecture import make_skeleton
    from jobs.model.batch_budget import CPU_TOKENS, BatchBudget
    from jobs.model.generate import Generator
    from jobs.model.tuning import apply_tuning

from jobs.evaluating import asking
from jobs.runtime import devices
from tests.lib.published_llamas import CONFIGS
from tests.lib.tiny_families import make_config
from zsg_core.families.registry import shape_of_config
from zsg_core.training.estimate import GB
from zsg_core.training.evaluation_memory import BATCH_TOKENS, cache_bytes, fit_tokens

SHAPE_33B = {**CONFIGS["33B"], "vocab_size": 32000}


class FakeMemory:
    """Stands for torch.cuda's account of its memory: (free, reserved, allocated) bytes
    by device."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, **gpus: tuple[float, float, float]
    ) -> None:
        self.gpus = {name.replace("_", ":"): facts for name, facts in gpus.items()}
        self.asked: list[str] = []
        monkeypatch.setattr(torch.cuda, "mem_get_info", self._free)
        for index, name in ((1, "memory_reserved"), (2, "memory_allocated")):
            monkeypatch.setattr(
                torch.cuda, name, lambda device, index=index: self.gpus[device][index]
            )

    def _free(self, device: str) -> tuple[float, float]:
        self.asked.append(device)
        return self.gpus[device][0], 80 * GB


class PlacedLayer(GradientCheckpointingLayer):
    """A layer, as far as a budget looks at it: where its first weight is."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    def parameters(self, recurse: bool = True) -> Any:
        """What tells the device."""
        return iter([SimpleNamespace(device=self._device)])


def model(*layer_devices: str) -> Any:
    """A 33B in bfloat16, as far as a budget looks at it: where each layer is."""
    named = [
        (f"model.layers.{number}", PlacedLayer(device))
        for number, device in enumerate(layer_devices)
    ]
    config = SimpleNamespace(to_dict=lambda: SHAPE_33B)
    return SimpleNamespace(
        config=config, dtype=torch.bfloat16, named_modules=lambda: iter(named)
    )


def test_a_budget_is_of_what_is_free_and_what_torch_holds_unused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the weights; what another model is yet to take is none of it."""
    FakeMemory(monkeypatch, cuda_0=(10 * GB, 70 * GB, 65 * GB))
    shape, rows = shape_of_config(SHAPE_33B), [600, 900]
    on_one = model(*["cuda:0"] * 60)
    budget = BatchBudget(on_one, "cuda:0")
    reserved = BatchBudget(on_one, "cuda:0", beside=lambda: 8 * GB)

    assert budget.choose_tokens(rows) == fit_tokens(
        shape, "bf16", rows, [(60, 15 * GB)]
    )
    assert budget.choose_tokens(rows) == 4096
    assert reserved.choose_tokens(rows) == 2048
    assert (budget.gpus, budget.is_padded) == (1, True)


def test_of_several_gpus_the_fullest_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds the keys and values of its own layers; the other model is on the last."""
    FakeMemory(
        monkeypatch, cuda_0=(40 * GB, 0, 0), cuda_1=(40 * GB, 0, 0), cuda_2=(1, 0, 0)
    )
    spread = model(*["cuda:0"] * 30, *["cuda:1"] * 30)
    budget = BatchBudget(spread, "cuda:0")
    reserved = BatchBudget(spread, "cuda:0", beside=lambda: 28 * GB)

    assert (budget.gpus, budget.choose_tokens([900])) == (2, 16_384)
    assert reserved.choose_tokens([900]) == 8_192


def test_a_cpu_has_the_budget_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of GPUs there."""
    memory = FakeMemory(monkeypatch)
    budget = BatchBudget(model("cpu"), "cpu")

    chosen = [
        budget.choose_tokens([900]),
        budget.choose_loss_tokens(4096),
        budget.choose_state_tokens(4096),
    ]
    assert chosen == [CPU_TOKENS, 4096, 4096]
    assert (memory.asked, budget.is_padded) == ([], False)


def test_a_budget_is_never_more_than_what_was_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of it, for all later batches."""
    FakeMemory(monkeypatch, cuda_0=(60 * GB, 0, 0))
    budget = BatchBudget(model(*["cuda:0"] * 60), "cuda:0")
    assert budget.choose_tokens([900]) == 16_384

    budget.halve(18, 16_200)
    assert (budget.choose_tokens([900]), budget.halved) == (8_100, 1)
    budget.keep_within(50_000)
    assert budget.choose_tokens([900]) == 8_100


def test_passes_without_a_cache_fit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss by which weights are proven, and hidden states of all layers."""
    FakeMemory(monkeypatch, cuda_0=(12 * GB, 0, 0))
    budget = BatchBudget(model(*["cuda:0"] * 60), "cuda:0")

    losses, states = (
        budget.choose_loss_tokens(16_384),
        budget.choose_state_tokens(16_384),
    )
    assert 1000 < losses < 16_384 and 1000 < states < 16_384
    assert budget.choose_loss_tokens(500) == 500


def test_what_was_halved_stands_with_the_scores() -> None:
    """As a sentence beside the answers, which the report shows."""
    counts = {"items": 6, "answers": 6, "halved": 2}

    [flag] = asking.list_flags(counts, {"max_new_tokens": 8})
    assert "ran out of memory 2 times" in flag


def test_an_evaluator_sees_its_own_gpus(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As many as it was given, though the node shows all; fewer are told."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    assert devices.choose_devices(2) == ["cuda:0", "cuda:1"]
    assert devices.choose_devices(0) == ["cuda:0"]
    assert caplog.messages == []
    assert len(devices.choose_devices(8)) == 4
    assert "8 GPUs were asked for, but this process sees 4" in caplog.messages[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama of four layers."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("llama") / "model"
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_layers_are_spread_by_what_the_gpus_hold(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last has room for a reward model; embedding, norm and output layer are on the
    first. Each is loaded where it goes."""
    FakeMemory(monkeypatch, cuda_0=(80 * GB, 0, 0), cuda_1=(80 * GB, 0, 0))
    maps: list[dict[str, str]] = []
    monkeypatch.setattr(
        placement, "load_model", lambda folder, precision, parts, attention: dict(parts)
    )
    monkeypatch.setattr(
        placement,
        "spread_model",
        lambda loaded, parts: maps.append(parts) if loaded == parts else None,
    )

    placement.load_on(["cuda:0", "cuda:1"], folder, "bf16")
    placement.load_on(["cuda:0", "cuda:1"], folder, "bf16", beside=1 * GB)

    even, beside = maps
    assert [even[f"model.layers.{n}"] for n in range(4)] == ["cuda:0"] * 2 + [
        "cuda:1"
    ] * 2
    assert {even[name] for name in FIRST} == {"cuda:0"}
    assert {beside[f"model.layers.{n}"] for n in range(4)} == {"cuda:0"}


FIRST = ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head")
PARTS = dict.fromkeys([*FIRST, *(f"model.layers.{n}" for n in range(4))], "cpu")


def test_a_map_names_every_part_of_a_llama(folder: Path) -> None:
    """Whatever it left out, transformers would leave on no device."""
    whole = placement.load_on(["cpu"], folder, "fp32")
    names = [name for name, _ in whole.named_parameters()]

    assert placement.make_device_map(whole, [1, 3], ["cpu", "cpu"]) == PARTS
    assert all(any(name.startswith(f"{part}.") for part in PARTS) for name in names)


@pytest.mark.parametrize("family", ["gpt2", "opt", "deepseek_v3", "gpt_neox"])
def test_a_map_names_every_part_of_a_family_once(family: str) -> None:
    """Its layers where they were put, embeddings of positions and the like on the
    first."""
    skeleton = make_skeleton(make_config(family), torch.float32, "eager")
    parts = placement.make_device_map(skeleton, [1, 3], ["cuda:0", "cuda:1"])

    assert [*parts.values()].count("cuda:1") == 3
    for name, _ in [*skeleton.named_parameters(), *skeleton.named_buffers()]:
        holding = [part for part in parts if f"{name}.".startswith(f"{part}.")]
        assert len(holding) == 1, name


def spread(llama: Any) -> Any:
    """The model as it is on several GPUs: hooks move what passes through from part to
    part, here from a CPU to the same."""
    return placement.spread_model(llama, PARTS, force_hooks=True)


def test_a_model_in_parts_computes_as_a_whole_one(folder: Path) -> None:
    """Its answers with a cache, the loss of packed rows, also with adapters in it."""
    how = {"decoding": "greedy", "max_new_tokens": 8}
    prompts = [[1, *range(5, 5 + length)] for length in (3, 17, 9)]
    lora = {"method": "lora", "r": 2, "alpha": 4, "targets": ["q_proj"], "seed": 1}
    answers, losses = [], []
    for place in (lambda llama: llama, spread):
        llama = place(base_model.load_model(folder, "fp32").eval())
        for change in (None, lora):
            if change:
                apply_tuning(llama, change)
            generator = Generator(llama, how, 1, 2, "cpu")
            answers.append(generator.answers(prompts, ["a", "b", "c"]))
            refuse_leaks(AnswerLoss(llama), 97, "cpu")
            tokens = torch.arange(5, 25)
            losses.append(
                AnswerLoss(llama)(
                    tokens,
                    torch.cat([torch.arange(12), torch.arange(8)]),
                    [12, 8],
                    torch.tensor([3, 14]),
                    torch.tensor([9, 20]),
                    torch.tensor([0, 1]),
                ).tolist()
            )

    assert hasattr(llama.model.layers[0], "_hf_hook")
    assert answers[:2] == answers[2:] and any(answers[0])
    assert losses[:2] == losses[2:]


def test_the_largest_batch_is_as_it_was() -> None:
    """65,536 tokens: what 34 GB of keys and values of 7B are."""
    seven = shape_of_config({**CONFIGS["7B"], "vocab_size": 32000})

    assert BATCH_TOKENS * cache_bytes(seven, "bf16") / GB == pytest.approx(
        34.4, abs=0.1
    )


def test_what_torch_holds_and_does_not_use_is_free_for_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the model before only the caches are left: they decide nothing."""
    FakeMemory(
        monkeypatch, cuda_0=(5 * GB, 75 * GB, 1 * GB), cuda_1=(20 * GB, 60 * GB, 1 * GB)
    )

    assert placement._held_bytes("cuda:0") == placement._held_bytes("cuda:1") == 1 * GB
