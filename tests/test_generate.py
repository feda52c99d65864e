"""Are answers what the model says, whatever shares a batch with them?"""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.contract import causes
    from jobs.contract.causes import Cause
    from jobs.model import generate, packed_attention
    from jobs.model.batch_budget import plan_batches
    from jobs.model.generate import (
        FastNucleus,
        Generator,
        NumberedNucleus,
        cut_at_stops,
        rank_tokens,
    )

from zsg_core.errors import ClusterError, UserError

BOS, EOS = 1, 2
GREEDY = {"decoding": "greedy", "max_new_tokens": 12, "items": None}
PAPER = {
    "decoding": "nucleus",
    "top_p": 0.9,
    "temperature": 0.9,
    "repetition_penalty": 1.2,
    "not_empty": True,
    "max_new_tokens": 12,
    "items": None,
    "seed": 0,
}
NUMBERED = PAPER | {"drawn": "one number for each token"}
FAST = {
    "decoding": "fast_nucleus",
    "top_p": 0.7,
    "temperature": 0.5,
    "max_new_tokens": 12,
    "seed": 0,
}
PROMPTS = [[1, *range(5, 5 + length)] for length in (3, 17, 4, 40, 9, 28)]
NAMES = [f"item{number}" for number in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def llama() -> Any:
    """A tiny model with random weights, as a train job loads it."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=44,
        bos_token_id=BOS,
        eos_token_id=EOS,
        initializer_range=0.3,
    )
    made = LlamaForCausalLM._from_config(
        config, attn_implementation=packed_attention.NAME
    )
    return made.eval()


def plainly(llama: Any, prompt: list[int], most: int) -> list[int]:
    """The likeliest token each time, one prompt at a time, without padding or cache."""
    llama.set_attn_implementation("eager")
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + most:
            token = int(
                llama(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()
            )
            if token == EOS:
                break
            ids.append(token)
    llama.set_attn_implementation(packed_attention.NAME)
    return ids[len(prompt) :]


def made(llama: Any, how: dict[str, Any], chosen: list[int]) -> list[list[int]]:
    """The answers to some of the prompts."""
    generator = Generator(llama, how, BOS, EOS, "cpu")
    return generator.answers([PROMPTS[n] for n in chosen], [NAMES[n] for n in chosen])


EVERY = list(range(len(PROMPTS)))


def test_an_answer_is_over_at_any_of_the_ends_that_are_asked_for(llama: Any) -> None:
    """And at no other, also where the model's folder names one: what zsg leaves unset is
    not filled with it."""
    [whole] = made(llama, GREEDY, [0])
    end = whole[3]
    llama.generation_config.eos_token_id = [whole[1]]
    try:
        assert made(llama, GREEDY, [0]) == [whole]
        found = made(llama, GREEDY | {"ends": [96, end]}, EVERY)
    finally:
        llama.generation_config.eos_token_id = EOS

    assert found[0] == whole[: whole.index(end)]
    assert not any(end in answer for answer in found)


def test_a_prompt_of_no_token_cannot_be_answered(llama: Any) -> None:
    """As of an empty question without a template, by a tokenizer that begins with nothing."""
    generator = Generator(llama, GREEDY, None, EOS, "cpu")

    assert not generator.fits([])
    assert generator.answers([[], [5, 6]], ["none", "some"])[0] == []


def test_greedy_answers_are_those_of_a_plain_loop(llama: Any) -> None:
    """In padded batches, with a cache; what would stand beyond the model's positions is
    left out."""
    answers = made(llama, GREEDY, EVERY)

    assert answers == [
        plainly(llama, prompt, min(12, 44 - len(prompt))) for prompt in PROMPTS
    ]
    assert len(answers[3]) <= 3
    assert llama.config._attn_implementation == packed_attention.NAME


@pytest.mark.parametrize(
    "how",
    [GREEDY, PAPER, NUMBERED, FAST],
    ids=["greedy", "paper", "numbered", "fast"],
)
def test_an_answer_does_not_depend_on_its_company(
    llama: Any, how: dict[str, Any]
) -> None:
    """Alone, or among others in any order."""
    together = made(llama, how, EVERY)

    assert made(llama, how, EVERY[::-1]) == together[::-1]
    assert [made(llama, how, [number])[0] for number in EVERY] == together


def letters(ids: Any) -> str:
    """Tokens as a text of a letter each; those of the end of sequence are none."""
    return "".join(chr(0x100 + int(token)) for token in ids if token != EOS)


def spelt(ids: Any) -> str:
    """Tokens as texts of three letters each, so that a stop lies over several tokens,
    and within one."""
    return "".join(f"{int(token):03d}" for token in ids if token != EOS)


@pytest.mark.parametrize(
    ("how", "text"),
    [(GREEDY, spelt), (PAPER, spelt), (NUMBERED, spelt), (FAST, letters)],
    ids=["greedy", "paper", "numbered", "fast"],
)
def test_an_answer_ends_at_its_first_stop_and_others_stay_as_they_are(
    llama: Any, how: dict[str, Any], text: Any
) -> None:
    """With the token that completes it, in whatever company; the text before it is that
    of the answer without stops."""
    how = how | {"max_new_tokens": 24}
    free = made(llama, how, EVERY)
    stop = text(free[0])[7:10]  # of the first answer's own text
    stopping = how | {"stops": ["\nnever", stop]}
    generator = Generator(llama, stopping, BOS, EOS, "cpu", text)

    found = generator.answers(PROMPTS, NAMES)

    assert [cut_at_stops(text(answer), stopping["stops"]) for answer in found] == [
        cut_at_stops(text(a), [stop]) for a in free
    ]
    for answer, whole in zip(found, free, strict=True):
        assert answer == whole[: len(answer)]
        assert len(answer) == len(whole) or (
            stop in text(answer) and stop not in text(answer[:-1])
        )
    assert len(found[0]) < len(free[0])
    assert [generator.answers([PROMPTS[n]], [NAMES[n]])[0] for n in (0, 2)] == [
        found[0],
        found[2],
    ]


def test_generation_ends_once_all_answers_are_over(llama: Any) -> None:
    """A stop is looked for every few tokens, so a base that goes on and on costs no 500 of them."""
    calls = []
    stopping = {
        "decoding": "greedy",
        "max_new_tokens": 39,
        "stops": [letters(made(llama, GREEDY, [0])[0][:1])],
    }
    generator = Generator(llama, stopping, BOS, EOS, "cpu", letters)
    before = llama.forward
    llama.forward = lambda *args, **named: (calls.append(1), before(*args, **named))[1]
    try:
        answers = generator.answers(PROMPTS[:1], NAMES[:1])
    finally:
        del llama.forward

    assert (len(answers[0]), len(calls)) == (1, 8)


def test_a_stop_within_a_thought_ends_no_answer(llama: Any) -> None:
    """Nor where the prompt began the thought, which only the prompt shows; the same
    answer ends at the stop where it is no thought."""
    first = letters(made(llama, GREEDY, [0])[0][:1])
    how = GREEDY | {"max_new_tokens": 16, "stops": [first], "reasoning": ["<<", ">>"]}

    def text(ids: Sequence[int]) -> str:
        is_prompt = list(ids) == list(PROMPTS[0])
        return "<<" if is_prompt else letters(ids)

    thinking = Generator(llama, how, BOS, EOS, "cpu", text)
    plain = Generator(llama, how, BOS, EOS, "cpu", letters)
    [within] = thinking.answers(PROMPTS[:1], NAMES[:1])
    [ended] = plain.answers(PROMPTS[:1], NAMES[:1])

    assert len(ended) == 1 < len(within)
    assert thinking.is_cut(PROMPTS[0], 16 * within[:1])
    assert not plain.is_cut(PROMPTS[0], 16 * within[:1])


def test_answers_that_were_not_over_are_known(llama: Any) -> None:
    """At max_new_tokens, or at the last position; not where the end of sequence or a stop came."""
    generator = Generator(
        llama, GREEDY | {"stops": ["."]}, BOS, EOS, "cpu", lambda ids: "." * (7 in ids)
    )
    short, long = [1] * 3, [1] * 40

    assert [generator.is_cut(short, [5] * count) for count in (11, 12)] == [False, True]
    assert [generator.is_cut(long, [5] * count) for count in (3, 4)] == [False, True]
    assert not generator.is_cut(short, [5] * 11 + [7])
    assert [generator.fits([1] * count) for count in (43, 44, 56)] == [
        True,
        False,
        False,
    ]


def test_stops_need_the_text_of_tokens(llama: Any) -> None:
    """Else none would ever be found."""
    with pytest.raises(ValueError, match="what their tokens are as a text"):
        Generator(llama, GREEDY | {"stops": ["USER:"]}, BOS, EOS, "cpu")


@pytest.mark.parametrize("how", [PAPER, NUMBERED], ids=["paper", "numbered"])
def test_draws_are_seeded_by_item(llama: Any, how: dict[str, Any]) -> None:
    """The same again, others under another seed or another name; no answer is empty."""
    first = made(llama, how, EVERY)
    other = Generator(llama, how, BOS, EOS, "cpu").answers(
        PROMPTS, [f"x{name}" for name in NAMES]
    )

    assert first == made(llama, how, EVERY) != made(llama, how | {"seed": 1}, EVERY)
    assert first != other and all(first)


def drawn(how: dict[str, Any], logits: Any, generated: Any = None) -> list[int]:
    """The tokens that are drawn after those that were generated, one for each row."""
    generated = torch.empty(len(logits), 0).long() if generated is None else generated
    names = [str(number) for number in range(len(logits))]
    return NumberedNucleus(how, 0, names)(generated, logits).argmax(-1).tolist()


def test_numbered_draws_are_of_the_nucleus_by_its_probabilities() -> None:
    """After penalty, temperature and top-k; the nucleus is that of all tokens' probabilities."""
    probabilities = torch.tensor([0.08, 0.3, 0.0, 0.34, 0.24, 0.04])
    logits = (0.5 * probabilities.log()).expand(4000, -1)
    how = NUMBERED | {"temperature": 0.5, "top_p": 0.9, "repetition_penalty": 1.0}
    shares = torch.bincount(torch.tensor(drawn(how, logits)), minlength=6) / 4000
    of_two = drawn(how | {"top_k": 2}, logits)
    # its logit is below 0, so a penalty of 4 makes its weight 0.3^4
    penalised = drawn(
        how | {"repetition_penalty": 4.0}, logits, torch.ones(4000, 1).long()
    )

    # 0.34 + 0.30 + 0.24 = 0.88 is less than 0.9, so 0.08 is the last of the nucleus.
    expected = [0.08 / 0.96, 0.3 / 0.96, 0.0, 0.34 / 0.96, 0.24 / 0.96, 0.0]
    assert shares.tolist() == pytest.approx(expected, abs=0.03)
    assert set(of_two) == {1, 3}
    assert 1 not in penalised and set(penalised) == {0, 3, 4}


def test_equal_logits_give_equal_tokens_however_a_device_rounds_and_adds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ties, too: of ten equal tokens nine have 0.9 together, the first nine."""
    torch.manual_seed(0)
    logits = (torch.randn(200, 5000) * 3).bfloat16().float()
    once = drawn(NUMBERED, logits)
    exp = torch.Tensor.exp

    def round_otherwise(tensor: Any) -> Any:
        exact = exp(tensor)
        return torch.where(
            exact < 1, torch.nextafter(exact, torch.ones_like(exact)), exact
        )

    monkeypatch.setattr(torch.Tensor, "exp", round_otherwise)
    assert drawn(NUMBERED, logits) == once
    monkeypatch.setattr(generate, "MOST_WEIGHTS", 15_000)  # three rows at a time
    assert drawn(NUMBERED, logits) == once
    assert set(drawn(NUMBERED, torch.zeros(2000, 10))) == set(range(9))


def test_a_model_without_numbers_draws_nothing(llama: Any) -> None:
    """She is told that, not of an index beyond a table."""
    held = llama.lm_head.weight.data.clone()
    llama.lm_head.weight.data[7] = float("nan")
    try:
        with pytest.raises(UserError, match="the model gives no numbers"):
            made(llama, NUMBERED, [0])
    finally:
        llama.lm_head.weight.data.copy_(held)


@pytest.mark.parametrize("kind", ["apart", "equal", "impossible", "chances"])
def test_tokens_are_found_by_rank_as_a_stable_sort_has_them(kind: str) -> None:
    """At every rank, also where values are equal or minus infinity: answers that were
    drawn before stay what they were."""
    torch.manual_seed(0)
    values = torch.randn(3, 60, dtype=torch.float64)
    if kind == "equal":
        values = values.round()
    if kind == "impossible":
        values[:, ::2] = -torch.inf
    if kind == "chances":
        values = (values * 500).softmax(-1)
    expected, token_ids = values.sort(dim=-1, descending=True, stable=True)
    ordered, find_tokens = rank_tokens(values)
    found = [find_tokens(torch.full((3, 1), rank)) for rank in range(60)]

    assert torch.equal(ordered, expected)
    assert torch.equal(torch.cat(found, dim=1), token_ids)


def test_fast_draws_are_of_the_nucleus_by_its_probabilities() -> None:
    """Of 4000 items: within 0.7 of the mass at temperature 0.5, as often as that says;
    a sure token always."""
    probabilities = torch.tensor([0.1, 0.3, 0.0, 0.36, 0.24])
    logits = (0.5 * probabilities.log()).expand(4000, -1)
    draw = FastNucleus(FAST, 0, [str(number) for number in range(4000)])
    drawn = torch.bincount(draw(torch.empty(0), logits).argmax(-1), minlength=5) / 4000
    sure = draw(
        torch.empty(0), torch.tensor([[0.0, 50.0, 0.0, 0.0, 0.0]]).expand(4000, -1)
    ).argmax(-1)

    # 0.36 and 0.30 have 0.66 together, so 0.24 is the last of the nucleus.
    assert drawn.tolist() == pytest.approx(
        [0.0, 0.3 / 0.9, 0.0, 0.36 / 0.9, 0.24 / 0.9], abs=0.03
    )
    assert set(sure.tolist()) == {1}


def test_batches_are_of_like_lengths_and_within_the_budget() -> None:
    """Longest first; a prompt that is too long for any stands alone."""
    lengths = [15, 100, 17, 16, 18]

    assert plan_batches(lengths, 40, is_padded=False) == [[1], [4, 2], [3, 0]]
    assert plan_batches(lengths, 40, is_padded=True) == [[1], [4, 2], [3, 0]]
    assert plan_batches(lengths, 150, is_padded=False) == [[1, 4, 2], [3, 0]]
    assert plan_batches(lengths, 150, is_padded=True) == [[1], [4, 2, 3, 0]]


class SmallGpu:
    """Stands for the memory of a GPU: a model on it answers at most so many prompts at once."""

    def __init__(self, llama: Any, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.batches: list[int] = []
        self.emptied = 0
        generate = type(llama).generate

        def fill(model: Any, *args: Any, **named: Any) -> Any:
            rows = len(named["input_ids"])
            self.batches.append(rows)
            if rows > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return generate(model, *args, **named)

        monkeypatch.setattr(type(llama), "generate", fill)
        monkeypatch.setattr(torch.cuda, "empty_cache", self._empty)

    def _empty(self) -> None:
        self.emptied += 1


@pytest.mark.parametrize("how", [GREEDY, PAPER, FAST], ids=["greedy", "paper", "fast"])
def test_a_batch_that_is_too_much_is_halved_and_told(
    llama: Any,
    how: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The answers are the same; memory is given back first, and later batches are smaller, too."""
    expected = made(llama, how, EVERY)
    gpu = SmallGpu(llama, monkeypatch, room=2)
    generator = Generator(llama, how, BOS, EOS, "cpu")

    assert generator.answers(PROMPTS, NAMES) == expected
    assert (gpu.batches[0], gpu.emptied) == (6, generator.budget.halved)
    assert "no room for 6 answers at once" in caplog.messages[0]
    gpu.batches.clear()
    assert generator.answers(PROMPTS, NAMES) == expected
    assert max(gpu.batches) <= 2


def test_a_prompt_that_is_too_much_alone_is_told_with_what_to_do(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And known as memory that has run out; another error stays what it is."""
    SmallGpu(llama, monkeypatch, room=0)

    with pytest.raises(
        ClusterError, match=r"one prompt of 41 tokens .*evaluate\.gpus"
    ) as error:
        made(llama, GREEDY, EVERY)
    assert causes.of_error(error.value) == Cause.OUT_OF_MEMORY
    assert llama.config._attn_implementation == packed_attention.NAME


def test_another_error_stays_what_it_is(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only memory that has run out is met by smaller batches."""

    def fail(*args: Any, **named: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(type(llama), "generate", fail)

    with pytest.raises(RuntimeError, match="device-side assert"):
        made(llama, GREEDY, EVERY)
