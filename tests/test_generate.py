"""Are answers what the model says, whatever shares a batch with them?"""

import warnings
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.evaluating.generate import FastNucleus, Generator, batches
    from jobs.training import packed_attention

BOS, EOS = 1, 2
GREEDY = {"decoding": "greedy", "max_new_tokens": 12, "items": None}
PAPER = {
    "decoding": "nucleus", "top_p": 0.9, "temperature": 0.9, "repetition_penalty": 1.2, "not_empty": True,
    "max_new_tokens": 12, "items": None, "seed": 0,
}  # fmt: skip
FAST = {"decoding": "fast_nucleus", "top_p": 0.7, "temperature": 0.5, "max_new_tokens": 12, "seed": 0}
PROMPTS = [[1, *range(5, 5 + length)] for length in (3, 17, 4, 40, 9, 28)]
NAMES = [f"item{number}" for number in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def llama() -> Any:
    """A tiny model with random weights, as a train job loads it."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=44, bos_token_id=BOS, eos_token_id=EOS, initializer_range=0.3,
    )  # fmt: skip
    made = LlamaForCausalLM._from_config(config, attn_implementation=packed_attention.NAME)
    return made.eval()


def plainly(llama: Any, prompt: list[int], most: int) -> list[int]:
    """The likeliest token each time, one prompt at a time, without padding or cache."""
    llama.set_attn_implementation("eager")
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + most:
            token = int(llama(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
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


def test_greedy_answers_are_those_of_a_plain_loop(llama: Any) -> None:
    """In padded batches, with a cache; what would stand beyond the model's positions is left out."""
    answers = made(llama, GREEDY, EVERY)

    assert answers == [plainly(llama, prompt, min(12, 44 - len(prompt))) for prompt in PROMPTS]
    assert len(answers[3]) <= 3
    assert llama.config._attn_implementation == packed_attention.NAME


@pytest.mark.parametrize("how", [GREEDY, PAPER, FAST], ids=["greedy", "paper", "fast"])
def test_an_answer_does_not_depend_on_its_company(llama: Any, how: dict[str, Any]) -> None:
    """Alone, or among others in any order."""
    together = made(llama, how, EVERY)

    assert made(llama, how, EVERY[::-1]) == together[::-1]
    assert [made(llama, how, [number])[0] for number in EVERY] == together


def test_draws_are_seeded_by_item(llama: Any) -> None:
    """The same again, others under another seed or another name; no answer is empty."""
    first = made(llama, PAPER, EVERY)
    other = Generator(llama, PAPER, BOS, EOS, "cpu").answers(PROMPTS, [f"x{name}" for name in NAMES])

    assert first == made(llama, PAPER, EVERY) != made(llama, PAPER | {"seed": 1}, EVERY)
    assert first != other and all(first)


def test_fast_draws_are_of_the_nucleus_by_its_probabilities() -> None:
    """Of 4000 items: within 0.7 of the mass at temperature 0.5, as often as that says; a sure token always."""
    probabilities = torch.tensor([0.1, 0.3, 0.0, 0.36, 0.24])
    logits = (0.5 * probabilities.log()).expand(4000, -1)
    draw = FastNucleus(FAST, 0, [str(number) for number in range(4000)])
    drawn = torch.bincount(draw(torch.empty(0), logits).argmax(-1), minlength=5) / 4000
    sure = draw(torch.empty(0), torch.tensor([[0.0, 50.0, 0.0, 0.0, 0.0]]).expand(4000, -1)).argmax(-1)

    # 0.36 and 0.30 have 0.66 together, so 0.24 is the last of the nucleus.
    assert drawn.tolist() == pytest.approx([0.0, 0.3 / 0.9, 0.0, 0.36 / 0.9, 0.24 / 0.9], abs=0.03)
    assert set(sure.tolist()) == {1}


def test_batches_are_of_like_lengths_and_within_the_budget() -> None:
    """Longest first; a prompt that is too long for any stands alone."""
    made = batches([[0] * n for n in (5, 90, 7, 6, 8)], 10, 40)

    assert made == [[1], [4, 2], [3, 0]]
