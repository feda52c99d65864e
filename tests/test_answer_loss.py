"""Is the loss the one that the papers mean, however examples are batched?"""

import copy
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from jobs.model.vocabulary import Vocabulary
from jobs.training.batches import MicroBatch, TokenizedSet
from tests.lib.tokenized_sets import tokenized
from zsg_core.data.examples import Example
from zsg_core.data.prompts import ALL, ANSWER, PROMPT, Template
from zsg_core.errors import ClusterError, UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        MixtralConfig,
    )

    from jobs.model import answer_loss, packed_attention
    from jobs.model.answer_loss import AnswerLoss, refuse_leaks
    from jobs.model.packed_attention import NAME
    from jobs.model.weight_loading import _make_model
    from jobs.training.batch_loss import loss_of_step

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
WORDS = "the quick brown fox jumps over a lazy dog while it rains on every second tuesday of march".split()


def example(number: int) -> Example:
    """An example of random length, the same for the same number."""
    rng = random.Random(number)
    text, answer = (
        " ".join(rng.choices(WORDS, k=rng.randint(low, high)))
        for low, high in ((1, 30), (1, 6))
    )
    return Example(
        id=f"t:{number}",
        task="t",
        definition="Do it.",
        turns=((text, answer),),
        references=(answer,),
    )


@pytest.fixture(scope="module")
def model() -> AnswerLoss:
    """A small random Llama in fp32."""
    torch.manual_seed(0)
    return AnswerLoss(
        LlamaForCausalLM(LlamaConfig(attn_implementation=NAME, **SHAPE))
    ).eval()


@pytest.fixture(scope="module")
def examples() -> TokenizedSet:
    """Sixteen examples, a token per byte."""
    vocabulary = Vocabulary(
        tokenize=lambda text: [byte + 2 for byte in text.encode()], bos=0, eos=1
    )
    return tokenized(
        [example(n) for n in range(16)], vocabulary, Template("zsg"), max_length=200
    )


def losses(model: AnswerLoss, micro: MicroBatch) -> torch.Tensor:
    """The model's value for each example of a micro-batch."""
    tokens, positions = (
        torch.from_numpy(micro.tokens),
        torch.from_numpy(micro.positions),
    )
    learnt = (
        torch.from_numpy(ids) for ids in (micro.predicting, micro.targets, micro.owners)
    )
    return model(tokens, positions, micro.lengths, *learnt)


def by_micro_batches(
    model: AnswerLoss, examples: TokenizedSet, world: int, budget: int
) -> torch.Tensor:
    """The loss of every example as the ranks of a job compute it."""
    sums = torch.zeros(len(examples))
    for rank in range(world):
        for micro in examples.micro_batches(range(len(examples)), rank, world, budget):
            values = losses(model, micro)
            if micro.items:
                sums[torch.tensor(micro.items)] = values
    return sums


def test_loss_is_the_negative_log_likelihood_of_the_answer(
    model: AnswerLoss, examples: TokenizedSet
) -> None:
    """Each example's value is −Σ log p of its answer tokens and `</s>`, computed here
    one example at a time."""
    expected = []
    # With the config itself the model under test would become eager too.
    plain = LlamaForCausalLM(copy.deepcopy(model.model.config))
    plain.set_attn_implementation("eager")
    plain.load_state_dict(model.model.state_dict())
    for encoded in examples.encoded:
        logits = (
            plain(input_ids=torch.tensor([encoded.ids]), use_cache=False)
            .logits[0]
            .log_softmax(-1)
        )
        places = range(encoded.spans[0][0], len(encoded.ids))
        expected.append(
            -sum(logits[place - 1, encoded.ids[place]].item() for place in places)
        )

    actual = by_micro_batches(model, examples, world=1, budget=10_000)
    assert torch.allclose(actual, torch.tensor(expected), atol=1e-4)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 300, 1000])
def test_loss_does_not_depend_on_batching(
    model: AnswerLoss, examples: TokenizedSet, world: int, budget: int
) -> None:
    """Padding, micro-batches and ranks change no example's loss beyond rounding: none
    sees another or the padding."""
    alone = by_micro_batches(model, examples, world=1, budget=1)

    assert torch.allclose(
        by_micro_batches(model, examples, world, budget), alone, atol=2e-5
    )


def test_an_idle_micro_batch_adds_nothing(
    model: AnswerLoss, examples: TokenizedSet
) -> None:
    """A rank without examples runs a forward whose loss and gradient are zero."""
    [idle] = examples.micro_batches([3], rank=1, world=2, budget=1000)
    model.zero_grad()
    total = losses(model, idle).sum()
    total.backward()

    assert idle.items == []
    assert total.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_every_rank_gets_as_many_micro_batches(examples: TokenizedSet) -> None:
    """Ranks run equally many micro-batches and share the examples without overlap."""
    shares = [examples.micro_batches(range(16), rank, 4, 200) for rank in range(4)]

    assert len({len(micros) for micros in shares}) == 1
    assert sorted(
        item for micros in shares for micro in micros for item in micro.items
    ) == list(range(16))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_packed_attention_is_attention_one_by_one(heads: int) -> None:
    """Several examples in a row attend as each does alone, also where query heads share keys."""
    torch.manual_seed(0)
    lengths = [5, 1, 17]
    query = torch.randn(1, 4, 23, 8)
    key, value = torch.randn(2, 1, heads, 23, 8)
    packed, _ = packed_attention.attend(
        torch.nn.Module(), query, key, value, None, row=packed_attention.Row(lengths)
    )

    start = 0
    for length in lengths:
        part = slice(start, start + length)
        mask = torch.full((length, length), float("-inf")).triu(1)
        wide = (
            tensor[:, :, part].repeat_interleave(4 // heads, 1)
            for tensor in (key, value)
        )
        k, v = wide
        scores = query[:, :, part] @ k.transpose(2, 3) / 8**0.5 + mask
        assert torch.allclose(
            packed[:, part], (scores.softmax(-1) @ v).transpose(1, 2), atol=1e-6
        )
        start += length


def test_gradients_of_packed_examples_are_the_sums_of_their_own(
    model: AnswerLoss, examples: TokenizedSet
) -> None:
    """The gradient of a packed batch is that of the same examples one by one, to 1e-6
    of its norm."""
    found = []
    for budget in (1, 10_000):
        model.zero_grad()
        for micro in examples.micro_batches(range(16), 0, 1, budget):
            losses(model, micro).sum().backward()
        found.append(
            torch.cat(
                [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            )
        )

    assert (found[0] - found[1]).norm() <= 1e-6 * found[0].norm()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_a_packed_row_is_a_stock_model_one_by_one(
    examples: TokenizedSet, attention: str, key_heads: int
) -> None:
    """Logits and gradients of a packed batch are those of transformers' own attention,
    one example at a time."""
    torch.manual_seed(1)
    config = LlamaConfig(
        **{**SHAPE, "num_key_value_heads": key_heads}, attn_implementation=NAME
    )
    packed = AnswerLoss(LlamaForCausalLM(config))
    # With the config itself the model under test would attend as the stock one, too.
    stock = LlamaForCausalLM(copy.deepcopy(config))
    stock.set_attn_implementation(attention)
    stock.load_state_dict(packed.model.state_dict())
    found: list[torch.Tensor] = []
    packed.model.lm_head.register_forward_hook(
        lambda head, given, logits: found.append(logits)
    )

    [micro] = examples.micro_batches(range(16), 0, 1, 10_000)
    losses(packed, micro).sum().backward()
    logits = []
    for item in micro.items:
        ids, answer = (
            torch.tensor(examples.encoded[item].ids),
            slice(*examples.encoded[item].spans[0]),
        )
        logits.append(
            stock(input_ids=ids[None], use_cache=False).logits[
                0, answer.start - 1 : answer.stop - 1
            ]
        )
        torch.nn.functional.cross_entropy(
            logits[-1], ids[answer], reduction="sum"
        ).backward()

    assert torch.allclose(found[0], torch.cat(logits), atol=1e-5)
    own, expected = (
        torch.cat([p.grad.flatten() for p in m.parameters()])
        for m in (packed.model, stock)
    )  # type: ignore[union-attr]
    assert (own - expected).norm() <= 1e-5 * expected.norm()


def test_a_sound_model_passes_the_check_for_leaks(model: AnswerLoss) -> None:
    """With attention within examples nothing is refused."""
    refuse_leaks(model, 300, "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "own"),
    [
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        ("mistral", {"sliding_window": 8, "head_dim": 8}),
        ("gemma2", {"sliding_window": 8, "head_dim": 8}),
    ],
)
def test_experts_and_windows_are_no_leaks(
    family: str, own: dict[str, Any], dtype: torch.dtype
) -> None:
    """Experts round by the tokens that others send them; through a window of eight
    tokens nobody sees a prefix of ninety."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE, num_key_value_heads=2, **own)
    made = AutoModelForCausalLM.from_config(config, attn_implementation=NAME)

    refuse_leaks(AnswerLoss(made.to(dtype)).eval(), 300, "cpu")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_leak_between_packed_examples_is_refused(
    model: AnswerLoss, attention: str
) -> None:
    """Attention over the whole row, as a stock model has it with a cache, is found
    before anything is trained."""
    leaky = LlamaForCausalLM(copy.deepcopy(model.model.config)).eval()
    leaky.set_attn_implementation(attention)

    with pytest.raises(ClusterError, match="can see each other"):
        refuse_leaks(_WithoutPositions(leaky), 300, "cpu")


class _WithoutPositions(AnswerLoss):
    """Positions that run on over the row: stock attention then takes it for one text."""

    def forward(self, tokens, positions, *others):  # type: ignore[no-untyped-def]
        return super().forward(tokens, torch.arange(len(tokens)), *others)


def test_all_tokens_but_the_first_can_be_learnt() -> None:
    """With loss on all tokens an example's prompt is learnt too; nothing precedes its
    first token."""
    vocabulary = Vocabulary(
        tokenize=lambda text: [byte + 2 for byte in text.encode()], bos=0, eos=1
    )
    every = tokenized(
        [example(0)], vocabulary, Template("zsg"), max_length=200, learnt=ALL
    )
    [micro] = every.micro_batches([0], 0, 1, 1000)

    assert every.learnt == [every.lengths[0] - 1] == [len(micro.predicting)]
    assert micro.targets.tolist() == micro.tokens[1:].tolist()


def test_prompts_alone_can_be_learnt() -> None:
    """With loss on the prompts no answer is learnt: what is learnt otherwise is the
    rest, but for the first token."""
    vocabulary = Vocabulary(
        tokenize=lambda text: [byte + 2 for byte in text.encode()], bos=0, eos=1
    )
    talk = Example(
        id="t:0",
        task="t",
        turns=(("Who?", "I."), ("Why?", "So it is.")),
        references=("So it is.",),
    )
    turns = tokenized(
        [talk], vocabulary, Template("zsg"), max_length=400, learnt=PROMPT
    )
    encoded = turns.encoded[0]
    learnt, answers = (
        {at for a, b in encoded.target_spans(which) for at in range(a, b)}
        for which in (PROMPT, ANSWER)
    )

    assert turns.learnt == [len(learnt)]
    assert learnt | answers == set(range(1, len(encoded.ids)))
    assert not learnt & answers


@pytest.mark.parametrize("world", [1, 2])
def test_the_loss_of_texts_and_instructions_in_one_batch_is_that_of_a_plain_model(
    model: AnswerLoss, world: int
) -> None:
    """All tokens of texts and the answers of instructions, computed one example at a
    time: the mean over all target tokens of the batch, however it is packed."""
    vocabulary = Vocabulary(
        tokenize=lambda text: [byte + 2 for byte in text.encode()], bos=0, eos=1
    )
    rules = [ALL, ANSWER, ANSWER, ALL, PROMPT, ANSWER]
    items = [example(number) for number in range(len(rules))]
    mixed = tokenized(items, vocabulary, Template("zsg"), max_length=200, learnt=rules)
    plain = LlamaForCausalLM(copy.deepcopy(model.model.config))
    plain.set_attn_implementation("eager")
    plain.load_state_dict(model.model.state_dict())
    log_likelihoods: list[float] = []
    for encoded, rule in zip(mixed.encoded, rules, strict=True):
        ids = torch.tensor([encoded.ids])
        logits = plain(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        ((start, stop),) = encoded.spans
        answer = set(range(start, stop))
        targets = {
            ANSWER: answer,
            PROMPT: set(range(1, len(encoded.ids))) - answer,
            ALL: set(range(1, len(encoded.ids))),
        }[rule]
        log_likelihoods += [
            logits[place - 1, encoded.ids[place]].item() for place in sorted(targets)
        ]
    expected = -sum(log_likelihoods) / len(log_likelihoods)

    sums = by_micro_batches(model, mixed, world, budget=150)
    step = loss_of_step(mixed, range(len(items)), 1, world, "cpu")

    assert sum(mixed.learnt) == len(log_likelihoods)
    added = step.add(sums, range(len(items))) / world
    assert added.item() == pytest.approx(expected, rel=1e-5)


def test_a_model_that_gives_no_numbers_is_not_called_a_leak(model: AnswerLoss) -> None:
    """NaN weights are named by their tensors; a model whose weights are sound and
    overflow is told so, by precision."""
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(
        UserError,
        match=r"not a number.*NaN or infinite values, in model\.layers\.1\.mlp\.up_proj\.weight;",
    ):
        refuse_leaks(broken, 300, "cpu")

    large = copy.deepcopy(model)
    with torch.no_grad():
        large.model.lm_head.weight.copy_(large.model.lm_head.weight.sign() * 1e38)
    with pytest.raises(UserError, match="its weights are finite, but what it computes"):
        refuse_leaks(large, 300, "cpu")


def test_an_overflow_of_fp16_is_told_with_what_helps(
    model: AnswerLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are finite; the advice is another precision, not another version of torch."""
    half = copy.deepcopy(model).half()
    monkeypatch.setattr(answer_loss, "_losses", lambda *given: [float("inf"), 1.0, 1.0])

    with pytest.raises(
        UserError, match=r"overflows in fp16; use train\.precision: bf16 or fp32"
    ):
        refuse_leaks(half, 300, "cpu")


def test_a_routers_own_loss_is_left_out_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a mean over all tokens of a micro-batch, so ranks would change it; the loss
    is the same whatever a config asks of it."""
    losses = []
    for asked in (False, True):
        torch.manual_seed(0)
        config = MixtralConfig(
            **SHAPE,
            num_key_value_heads=2,
            num_local_experts=4,
            output_router_logits=asked,
        )
        made = AutoModelForCausalLM.from_config(config, attn_implementation=NAME)
        tokens = torch.arange(3, 23)
        lossy = AnswerLoss(made.train())
        losses.append(
            lossy(
                tokens,
                torch.arange(20),
                [20],
                torch.arange(19),
                tokens[1:],
                torch.zeros(19, dtype=torch.long),
            ).item()
        )
    _make_model(Path("m"), config, torch.float32, NAME)

    assert losses[0] == losses[1]
    assert "m: trained without its routers' own loss (coefficient 0.001)" in caplog.text
