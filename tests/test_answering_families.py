"""Does a model of any family answer, and show its hidden states, as it does alone?"""

import warnings
from typing import Any

import numpy as np
import pytest

from tests.lib.tiny_families import FAMILIES, make_model
from zsg_core.training.decoder import BOUND
from zsg_core.training.evaluation_memory import cache_bytes, pass_bytes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

    from jobs.evaluating.hidden_states import average_spans
    from jobs.model import packed_attention
    from jobs.model.generate import Generator
    from jobs.model.measured_shape import measure_shape

# among them texts beyond the windows of 8
PROMPTS = [[1, *range(5, 5 + length)] for length in (3, 17, 4, 40, 9, 28)]
NAMES = [str(number) for number in range(len(PROMPTS))]
GREEDY = {"decoding": "greedy", "max_new_tokens": 12}
END = 2
PADDED = ("bloom", "falcon")
# capped scores without a fused attention, sinks, a table of positions, biases by distance
QUICK = ("gemma2", "gpt_oss", "gpt2", "bloom")


def list_families() -> list[Any]:
    """A few in every run of the suite, all in the long proofs."""
    soak = pytest.mark.soak(part="families")
    return [
        pytest.param(family, marks=[] if family in QUICK else [soak])
        for family in FAMILIES
    ]


def load(family: str) -> Any:
    """A tiny model, with the attention that a job loads it with."""
    model = make_model(family)
    if family not in PADDED:
        model.set_attn_implementation(packed_attention.NAME)
    return model


@torch.no_grad()
def answer_plainly(model: Any, prompt: list[int]) -> list[int]:
    """The likeliest token each time, one prompt at a time, without padding or cache."""
    ids = list(prompt)
    while len(ids) < len(prompt) + GREEDY["max_new_tokens"]:
        logits = model(torch.tensor([ids]), use_cache=False).logits
        token = int(logits[0, -1].argmax())
        if token == END:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", list_families())
def test_answers_in_batches_are_those_that_each_prompt_has_alone(family: str) -> None:
    """In padded batches, with a cache; and the model is left as it was."""
    alone, model = make_model(family), load(family)
    attention = model.config._attn_implementation
    generator = Generator(model, GREEDY, 1, END, "cpu")

    expected = [answer_plainly(alone, prompt) for prompt in PROMPTS]
    assert generator.answers(PROMPTS, NAMES) == expected
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("family", list_families())
@torch.no_grad()
def test_hidden_states_are_those_that_each_text_has_alone(family: str) -> None:
    """Of every layer, from the embedding to the last after its norm."""
    alone, model = make_model(family), load(family)
    of_each = [
        alone.base_model(
            torch.tensor([prompt]), use_cache=False, output_hidden_states=True
        ).hidden_states
        for prompt in PROMPTS
    ]
    spans = [(1, len(prompt)) for prompt in PROMPTS]

    found = average_spans(model, PROMPTS, spans, range(5), "cpu")
    expected = np.stack(
        [
            [states[layer][0, 1:].mean(0).numpy() for states in of_each]
            for layer in range(5)
        ]
    )
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max() + 1e-5


def test_a_family_that_is_not_known_has_a_bound_by_its_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All its parameters, and what a layer takes of a token no less than is known."""
    model = make_model("qwen3")
    known = measure_shape(model)
    monkeypatch.setattr("zsg_core.families.shape.describe_known", lambda config: None)
    bound = measure_shape(model)

    assert (bound.known, bound.layers, bound.vocab) == (BOUND, known.layers, 300)
    assert bound.parameters == known.parameters
    assert cache_bytes(bound, "bf16") >= cache_bytes(known, "bf16")
    assert pass_bytes(bound, "bf16") >= pass_bytes(known, "bf16")
