"""Is the loss the one that the papers mean, however examples are batched?"""

import random
import warnings

import pytest

from jobs.base_model import Vocabulary
from jobs.batches import TokenizedSet
from zsg_core.examples import Example
from zsg_core.prompts import Template

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.answer_loss import AnswerLoss

WORDS = "the quick brown fox jumps over a lazy dog while it rains on every second tuesday of march".split()


def example(number: int) -> Example:
    """An example of random length, the same for the same number."""
    rng = random.Random(number)
    text, answer = (" ".join(rng.choices(WORDS, k=rng.randint(low, high))) for low, high in ((1, 30), (1, 6)))
    return Example(id=f"t:{number}", task="t", definition="Do it.", turns=((text, answer),), references=(answer,))


@pytest.fixture(scope="module")
def model() -> AnswerLoss:
    """A small random Llama in fp32."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return AnswerLoss(LlamaForCausalLM(LlamaConfig(vocab_size=300, **shape))).eval()


@pytest.fixture(scope="module")
def examples() -> TokenizedSet:
    """Sixteen examples, a token per byte."""
    vocabulary = Vocabulary(tokenize=lambda text: [byte + 2 for byte in text.encode()], bos=0, eos=1)
    return TokenizedSet([example(n) for n in range(16)], vocabulary, Template("zsg"), max_length=200)


def by_micro_batches(model: AnswerLoss, examples: TokenizedSet, world: int, budget: int) -> torch.Tensor:
    """The loss of every example as the ranks of a job compute it."""
    sums = torch.zeros(len(examples))
    for rank in range(world):
        for micro in examples.micro_batches(range(len(examples)), rank, world, budget):
            values = model(*(torch.from_numpy(array) for array in (micro.tokens, micro.mask, micro.labels)))
            if micro.items:
                sums[torch.tensor(micro.items)] = values
    return sums


def test_loss_is_the_negative_log_likelihood_of_the_answer(model: AnswerLoss, examples: TokenizedSet) -> None:
    """Each example's value is −Σ log p of its answer tokens and `</s>`, computed here one example at a time."""
    expected = []
    for encoded in examples.encoded:
        logits = model.llama(input_ids=torch.tensor([encoded.ids]), use_cache=False).logits[0].log_softmax(-1)
        places = range(encoded.spans[0][0], len(encoded.ids))
        expected.append(-sum(logits[place - 1, encoded.ids[place]].item() for place in places))

    actual = by_micro_batches(model, examples, world=1, budget=10_000)
    assert torch.allclose(actual, torch.tensor(expected), atol=1e-4)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 300, 1000])
def test_loss_does_not_depend_on_batching(model: AnswerLoss, examples: TokenizedSet, world: int, budget: int) -> None:
    """Padding, micro-batches and ranks change no example's loss beyond rounding: none sees another or the padding."""
    alone = by_micro_batches(model, examples, world=1, budget=1)

    assert torch.allclose(by_micro_batches(model, examples, world, budget), alone, atol=2e-5)


def test_an_idle_micro_batch_adds_nothing(model: AnswerLoss, examples: TokenizedSet) -> None:
    """A rank without examples runs a forward whose loss and gradient are zero."""
    [idle] = examples.micro_batches([3], rank=1, world=2, budget=1000)
    model.zero_grad()
    total = model(*(torch.from_numpy(array) for array in (idle.tokens, idle.mask, idle.labels))).sum()
    total.backward()

    assert idle.items == []
    assert total.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_every_rank_gets_as_many_micro_batches(examples: TokenizedSet) -> None:
    """Ranks run equally many micro-batches and share the examples without overlap."""
    shares = [examples.micro_batches(range(16), rank, 4, 200) for rank in range(4)]

    assert len({len(micros) for micros in shares}) == 1
    assert sorted(item for micros in shares for micro in micros for item in micro.items) == list(range(16))
