"""Does training on a GPU wait for it no more often than once a step?"""

import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.model import packed_attention, transfer
    from jobs.model.answer_loss import AnswerLoss
    from jobs.training import batch_loss
    from jobs.training.batches import Segment, pack_parts

# heads of 20, which the kernel takes only filled up
SHAPE: dict[str, Any] = {
    "hidden_size": 80,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
}
# by which a program learns a value, and waits for the GPU
WAITS = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "numpy")
# as aten's operators have it; masks as an index become `nonzero`
WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")


class Waited(Exception):
    """A value of a tensor was looked at."""


class NeverWaits(TorchDispatchMode):
    """Raises for operators whose result the host waits for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_") else ()
        is_masked = any(m is not None and m.dtype == torch.bool for m in masks)
        if name in WAITING or is_masked:
            raise Waited(str(func))
        return func(*args, **(kwargs or {}))


def refuse(name: str) -> Any:
    """A method that raises."""

    def method(*args: Any) -> Any:
        raise Waited(name)

    return method


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """What is copied to a device that behaves as a GPU: its kernel is called, and who
    looks at a value is refused."""
    copies: list[torch.Tensor] = []
    send = transfer.send_tensor

    def note(tensor: torch.Tensor, device: Any) -> torch.Tensor:
        copies.append(tensor)
        return send(tensor, device)

    def kernel(query: Any, *others: Any, **options: Any) -> Any:
        assert query.shape[-1] == 24
        return query + others[0].sum() + others[1].sum()

    monkeypatch.setattr(transfer, "send_tensor", note)
    monkeypatch.setattr(batch_loss, "send_tensor", note)
    monkeypatch.setattr(packed_attention, "uses_kernel", packed_attention.fits_kernel)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    yield copies


@pytest.mark.parametrize("scales", [[], [1.0, 2.0, 3.0]], ids=["tokens", "scaled"])
def test_a_micro_batch_is_copied_once_and_nobody_waits_for_it(
    sent: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, scales: list[float]
) -> None:
    """Forward and backward: its tokens, where its row is cut, and how its examples count,
    however many layers."""
    segments = [
        Segment(item, list(range(3, 3 + length)), spans=[(2, length)])
        for item, length in enumerate((9, 4, 17))
    ]
    llama = LlamaForCausalLM._from_config(
        LlamaConfig(**SHAPE),
        dtype=torch.bfloat16,
        attn_implementation=packed_attention.NAME,
    )
    model = AnswerLoss(llama)
    micro = pack_parts(segments)
    train: Any = SimpleNamespace(learnt=[7, 2, 15], scales=scales)
    loss_of = batch_loss.loss_of_step(train, [0, 1, 2], 2, 1, "cpu")
    sent.clear()
    for name in WAITS:
        monkeypatch.setattr(torch.Tensor, name, refuse(name))
    with NeverWaits():
        for _ in range(2):
            loss = loss_of.add(model(*micro.on("cpu")), micro.items)
            loss.backward()
    monkeypatch.undo()

    assert len(sent) == 2 * 3
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_who_looks_at_a_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would say nothing."""
    values = torch.arange(3.0)
    with NeverWaits():
        for look in (lambda: values[values > 1], lambda: values[0].item()):
            with pytest.raises(Waited):
                look()
    monkeypatch.setattr(torch.Tensor, "tolist", refuse("tolist"))
    with pytest.raises(Waited):
        values.tolist()


def test_integers_of_many_arrays_go_together() -> None:
    """Each comes out as it went in, the empty ones too."""
    arrays = [[1, 2, 3], [], [4], list(range(5))]
    found = transfer.send_integers("cpu", *arrays)

    assert [tensor.tolist() for tensor in found] == arrays
    assert {tensor.dtype for tensor in found} == {torch.int64}
