"""Does a model whose examples would meet in one row give each what it gives alone?"""

import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.runtime.ranks import Ranks
from jobs.training.batches import TokenizedSet
from zsg_core.data.prompts import EncodedExample
from zsg_core.errors import ClusterError
from zsg_core.training import schedule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist
    from transformers import AutoConfig, AutoModelForCausalLM

    from jobs.model import packed_attention
    from jobs.model.answer_loss import (
        PACKED,
        PADDED,
        AnswerLoss,
        choose_batching,
        is_padded,
        refuse_leaks,
    )
    from jobs.training.held_out import HeldOutLoss

WORDS, ITEMS = 80, 11
SHAPE = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
# of each kind of what keeps examples from one row: no attention that can be exchanged,
# biases by distance, a state alone, and one beside attention
FAMILIES: dict[str, dict[str, Any]] = {
    "falcon": {},
    "bloom": {"n_layer": 2, "n_head": 2},
    "mamba": {"state_size": 4},
    "lfm2": {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
}


def make_model(family: str, attention: str = "eager") -> Any:
    """A tiny random model of a family."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE, **FAMILIES[family])
    made = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> AnswerLoss:
    """One of each family, padded."""
    return AnswerLoss(make_model(request.param), PADDED).eval()


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def examples() -> TokenizedSet:
    """Texts of 3 to 30 tokens, of which the second half is learnt; two begin alike."""
    rng = random.Random(5)
    texts = [rng.choices(range(1, WORDS), k=rng.randint(3, 30)) for _ in range(ITEMS)]
    texts[1] = texts[0] + texts[1]
    encoded = [EncodedExample(ids, ((len(ids) // 2, len(ids)),)) for ids in texts]
    return TokenizedSet([str(number) for number in range(ITEMS)], encoded)


def measure_alone(model: AnswerLoss, examples: TokenizedSet) -> torch.Tensor:
    """−Σ log p of each example's learnt tokens, by the class's own logits."""
    sums = []
    for encoded in examples.encoded:
        ids = torch.tensor(encoded.ids)
        logits = model.model(input_ids=ids[None], use_cache=False).logits[0]
        start, stop = encoded.spans[0]
        sums.append(
            torch.nn.functional.cross_entropy(
                logits[start - 1 : stop - 1], ids[start:stop], reduction="sum"
            )
        )
    return torch.stack(sums).detach()


@pytest.mark.parametrize(("world", "budget"), [(1, 1), (1, 10_000), (2, 60)])
def test_a_padded_example_is_what_it_is_alone(
    model: AnswerLoss, examples: TokenizedSet, world: int, budget: int
) -> None:
    """Whatever it is padded with, and on whatever rank."""
    sums = torch.zeros(ITEMS)
    for rank in range(world):
        for micro in examples.micro_batches(range(ITEMS), rank, world, budget, True):
            if micro.items:
                sums[micro.items] = model(*micro.on("cpu")).detach()

    assert torch.allclose(sums, measure_alone(model, examples), atol=1e-4)


def test_an_idle_rank_of_a_padded_model_adds_nothing(
    model: AnswerLoss, examples: TokenizedSet
) -> None:
    """It runs a forward whose loss and gradient are zero."""
    [idle] = examples.micro_batches([3], 1, 2, 1000, True)
    model.zero_grad()
    total = model(*idle.on("cpu")).sum()
    total.backward()

    assert total.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_padded_test_set_is_what_it_is_alone(
    model: AnswerLoss, examples: TokenizedSet, alone: None
) -> None:
    """No prefix is shared: the rows are whole examples."""
    held_out = HeldOutLoss(model, examples, Ranks(0, 1, 0), "cpu", 64)
    expected = measure_alone(model, examples) / torch.tensor(examples.learnt)

    assert held_out.token_counts["sum"] == sum(examples.lengths)
    assert torch.allclose(held_out.measure().float(), expected, atol=1e-5)


def test_padding_counts_as_tokens(examples: TokenizedSet) -> None:
    """No micro-batch is larger than the budget with what fills its rows up."""
    lengths = examples.lengths
    padded, packed = (
        schedule.make_micro_batches(range(ITEMS), lengths, 64, is_padded)
        for is_padded in (True, False)
    )

    assert sorted(item for group in padded for item in group) == list(range(ITEMS))
    assert all(
        len(group) * max(lengths[item] for item in group) <= 64 or len(group) == 1
        for group in padded
    )
    assert len(packed) < len(padded) < ITEMS


def test_a_padded_model_passes_the_check_for_leaks(model: AnswerLoss) -> None:
    """Rows of their own see nothing of each other."""
    refuse_leaks(model, WORDS, "cpu")


def test_a_state_that_runs_on_is_refused_packed() -> None:
    """A convolution over two tokens is enough."""
    packed = make_model("lfm2", packed_attention.NAME)

    with pytest.raises(ClusterError, match="can see each other"):
        refuse_leaks(AnswerLoss(packed).eval(), WORDS, "cpu")


def test_the_attention_that_a_model_has_says_how_examples_meet() -> None:
    """Only zsg's own keeps those of one row apart."""
    eager, own = make_model("lfm2"), make_model("lfm2", packed_attention.NAME)

    assert [choose_batching(one) for one in (eager, own)] == [PADDED, PACKED]
    assert [is_padded(AnswerLoss(eager, how)) for how in (PADDED, PACKED)] == [
        True,
        False,
    ]
