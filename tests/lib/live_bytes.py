"""Measures how many bytes of torch's tensors are there at once, on any device."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts what operations make while it is entered, as long as the tensor is there that
    came first with its memory. `most`: the bytes at the worst moment."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self._add(tensor)
        return made

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        where, size = storage.data_ptr(), storage.nbytes()
        if not size or where in self._known:
            return
        self._known.add(where)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(tensor, self._drop, where, size)

    def _drop(self, where: int, size: int) -> None:
        self._known.discard(where)
        self._now -= size
