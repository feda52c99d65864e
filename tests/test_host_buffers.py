"""Is room for copies of weights as large as they are, and pinned where it is asked for?"""

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.lib.logged_messages import collect_messages

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from safetensors.torch import load_file, save_file

    from jobs.model.weights import NamedTensor
    from jobs.training import host_buffers

SHAPES = {"a": (3, 5), "b": (7,), "c": (1000, 33)}


class Runtime:
    """CUDA's runtime, as far as it is called; `status`: what it answers."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.calls = status, list[tuple[int, int, int]]()

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        """Pins what is there already."""
        self.calls.append((address, size, flags))
        return self.status


def named(**dtypes: Any) -> list[NamedTensor]:
    """The tensors of a model, all of bf16 but for those of another type."""
    return [
        NamedTensor(
            name,
            torch.nn.Parameter(
                torch.zeros(shape, dtype=dtypes.get(name, torch.bfloat16))
            ),
            shape,
        )
        for name, shape in SHAPES.items()
    ]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """What pins, in CUDA's place."""
    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    return runtime


def test_room_is_pinned_in_one_block_as_large_as_the_tensors(runtime: Runtime) -> None:
    """Not each tensor rounded up to a power of two, as torch's own pinned memory is."""
    tensors = named(b=torch.float32)
    buffers = host_buffers.make_buffers(tensors, is_pinned=True)

    [(address, size, flags)] = runtime.calls
    whole = sum(tensor.bytes for tensor in tensors)
    assert whole <= size < whole + 64 * len(tensors)
    assert (address, flags) == (buffers["a"].data_ptr(), 0)
    for tensor in tensors:
        buffer = buffers[tensor.name]
        assert (buffer.shape, buffer.dtype) == (tensor.shape, tensor.parameter.dtype)
        assert address <= buffer.data_ptr() < address + size
        assert not buffer.any()


def test_copies_do_not_touch_each_other_and_are_written_as_they_are(
    tmp_path: Path, runtime: Runtime
) -> None:
    """Though they share a block, which safetensors takes for shared tensors if they overlap."""
    buffers = host_buffers.make_buffers(named(), is_pinned=False)
    for number, buffer in enumerate(buffers.values()):
        buffer.fill_(number + 1)
    save_file(buffers, tmp_path / "f.safetensors")

    assert runtime.calls == []
    found = load_file(tmp_path / "f.safetensors")
    assert [set(found[name].flatten().tolist()) for name in SHAPES] == [{1}, {2}, {3}]


def test_memory_that_cannot_be_pinned_is_used_as_it_is_and_told(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies then make training wait; the error is not left to the next call of CUDA."""
    runtime.status, forgotten = 2, list[int]()
    monkeypatch.setattr(host_buffers, "_forget_error", lambda: forgotten.append(1))
    with collect_messages() as messages:
        buffers = host_buffers.make_buffers(named(), is_pinned=True)

    assert buffers.keys() == SHAPES.keys() and forgotten == [1]
    assert "cannot be pinned (CUDA error 2)" in messages[0]
    assert host_buffers.make_buffers([], is_pinned=True) == {}
