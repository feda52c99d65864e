"""Is the loss what a class's own logits give, also where they are made in pieces?"""

import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from zsg_core.errors import UserError
from zsg_core.training import schedule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from jobs.model.architecture import find_head
    from jobs.model.head_pass import HeadPass

WORDS, STATES = 61, 23
SHAPE = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
# by what their classes do beside the head, or by how they hold it
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},  # nothing
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 3.0},  # a soft cap
    "granite": {"logits_scaling": 7.0},  # a scale
    "cohere2": {"logit_scale": 0.3},
    "mixtral": {"num_local_experts": 2, "output_router_logits": True},
    "phi": {},  # a bias
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},  # calls what is in its body
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "mamba": {"state_size": 4},  # asks its head for its weight's type
}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    """A tiny random model of a family, with logits that a cap changes."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **SHAPE, **FAMILIES[request.param])
    made = AutoModelForCausalLM.from_config(config).eval()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pieces of four tokens, so that the last of six is shorter."""
    monkeypatch.setitem(schedule.PIECE_LOGITS, "cpu", 4 * WORDS)
    assert schedule.count_logit_pieces(STATES, WORDS, "cpu") == 6
    yield


# no two losses weigh the same
WEIGHTS = torch.linspace(0.1, 2.0, STATES)


def gradients(model: Any, losses: torch.Tensor) -> torch.Tensor:
    """Of the losses as they weigh, on all of a model's weights."""
    model.zero_grad()
    (losses * WEIGHTS).sum().backward()
    return torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS, 8 * WEIGHTS])
def test_losses_in_pieces_are_those_of_the_class(
    model: Any, small_pieces: None, weights: torch.Tensor | None
) -> None:
    """Whatever the class does after its head is in each piece, in values and gradients,
    these made ahead or not."""
    ids = torch.randint(1, WORDS, (STATES + 1,), generator=torch.Generator())
    targets = ids[1:]

    whole = model(input_ids=ids[None, :-1], use_cache=False).logits[0]
    expected = torch.nn.functional.cross_entropy(whole, targets, reduction="none")
    states = model.base_model(input_ids=ids[None, :-1], use_cache=False)[0][0]
    head_pass = HeadPass(model)
    losses = head_pass.take_losses(states, targets, weights)

    assert (head_pass.make_logits(states) - whole).abs().max() <= 1e-5
    assert (losses - expected).abs().max() <= 1e-5
    own, wanted = gradients(model, losses), gradients(model, expected)
    assert (own - wanted).norm() <= 1e-6 * wanted.norm()


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_the_head_is_called_once_however_many_pieces(
    model: Any, small_pieces: None
) -> None:
    """Else ranks with other numbers of pieces would wait for each other under ZeRO 3;
    what the head was before it is afterwards."""
    calls: list[int] = []
    head = find_head(model)
    head.register_forward_hook(lambda *given: calls.append(1))
    states = torch.randn(STATES, 16, requires_grad=True)

    HeadPass(model).take_losses(states, torch.zeros(STATES, dtype=torch.long))

    assert calls == [1]
    assert "forward" not in vars(head)
    assert head(states).shape == (STATES, WORDS)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_no_tensor_of_all_logits_is_made(
    model: Any,
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
    weights: torch.Tensor | None,
) -> None:
    """Neither forward nor backward, and no piece stays for the backward pass; where the
    weights are known none is made twice."""
    rows: list[int] = []
    take = torch.nn.functional.cross_entropy

    def take_and_note(logits: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        rows.append(len(logits))
        return take(logits, *given, **named)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", take_and_note)
    saved: list[weakref.ref[torch.Tensor]] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(weakref.ref(tensor))
        return tensor

    states = torch.randn(STATES, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = HeadPass(model).take_losses(states, torch.arange(STATES), weights)
    kept = [tensor for ref in saved if (tensor := ref()) is not None]
    (losses * WEIGHTS).sum().backward()

    forward, backward = [4, 4, 4, 4, 4, 3], [3, 4, 4, 4, 4, 4]
    assert rows == [*forward, *(backward if weights is None else [])]
    assert all(WORDS not in tensor.shape[1:] for tensor in kept)


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_losses_that_weigh_otherwise_than_was_said_are_an_error(
    model: Any, small_pieces: None
) -> None:
    """Gradients that were made ahead would be wrong, and nobody would see it."""
    states = torch.randn(STATES, 16, requires_grad=True)
    losses = HeadPass(model).take_losses(states, torch.arange(STATES), WEIGHTS)

    with pytest.raises(RuntimeError, match="weighed otherwise than was said"):
        losses.sum().backward()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_a_head_that_is_not_trained_gets_no_gradient(
    model: Any, small_pieces: None, weights: torch.Tensor | None
) -> None:
    """As under LoRA; the states get theirs."""
    head = find_head(model).requires_grad_(False)
    states = torch.randn(STATES, 16, requires_grad=True)
    targets = torch.arange(STATES)
    losses = HeadPass(model).take_losses(states, targets, weights)
    (losses * WEIGHTS).sum().backward()
    assert states.grad is not None
    own = states.grad.clone()
    states.grad.zero_()
    expected = torch.nn.functional.cross_entropy(
        head(states), targets, reduction="none"
    )
    (expected * WEIGHTS).sum().backward()

    assert head.weight.grad is None
    assert torch.allclose(own, states.grad, atol=1e-6)


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_few_logits_are_one_piece_that_is_kept(model: Any) -> None:
    """What is small costs no second making."""
    head_pass = HeadPass(model)

    assert head_pass.count_pieces(STATES, torch.device("cpu")) == 1


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_a_class_that_holds_its_head_within_a_part_is_refused(model: Any) -> None:
    """Its own forward cannot be run with another body."""
    outer = torch.nn.Module()
    outer.head, model.lm_head = model.lm_head, torch.nn.Identity()
    model.part = outer
    model.get_output_embeddings = lambda: outer.head

    with pytest.raises(UserError, match="holds its Linear within another part"):
        HeadPass(model)
