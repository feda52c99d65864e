"""Decides how many tokens a batch of a model's may have: on a GPU by the memory that is
free, and fewer once it has run out.

Nothing that a model says depends on it but rounding: see tests/test_generate.py.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch

from jobs.contract import causes
from jobs.contract.causes import Cause
from jobs.model import measured_shape
from jobs.model.architecture import find_layers
from jobs.runtime import devices
from zsg_core.errors import ClusterError
from zsg_core.training import evaluation_memory, schedule
from zsg_core.training.decoder import DecoderShape

logger = logging.getLogger(__name__)

CPU_TOKENS = 8192  # of a batch on a CPU, prompts and answers, padding not counted
_PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}

T = TypeVar("T")


class BatchBudget:
    """How many tokens the batches of a model may have. `beside`: says how many bytes of
    the last of its GPUs another model is yet to take.

    `halved`: how often a batch was too much for a GPU's memory.
    """

    def __init__(
        self, model: Any, device: str, beside: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._model, self._device, self._beside = model, device, beside
        self._limit: int | None = None
        self.halved = 0

    @property
    def is_padded(self) -> bool:
        """Whether padding counts, too: it fills a GPU's memory."""
        return self._device != devices.CPU

    @property
    def gpus(self) -> int:
        """How many GPUs hold the model."""
        return len(self._count_layers())

    def choose_tokens(self, rows: Sequence[int]) -> int:
        """The most tokens of a batch of rows of such lengths, with their answers."""
        tokens = CPU_TOKENS
        if self.is_padded and rows:
            parts = [
                (layers, self._free_bytes(device))
                for device, layers in self._count_layers().items()
            ]
            tokens = evaluation_memory.fit_tokens(
                self._shape, self._precision, rows, parts
            )
        return tokens if self._limit is None else min(tokens, self._limit)

    def choose_loss_tokens(self, most: int) -> int:
        """The same of a micro-batch of training whose loss is taken; at most `most`."""
        per_token = evaluation_memory.loss_bytes(self._shape, self._precision)
        return self._choose_passed(most, per_token)

    def choose_state_tokens(self, most: int) -> int:
        """The same of a row whose hidden states of all layers are taken; at most `most`."""
        per_token = evaluation_memory.state_bytes(self._shape, self._precision)
        return self._choose_passed(most, per_token)

    def keep_within(self, tokens: int) -> None:
        """Has no batch have more tokens than these."""
        if self._limit is None or tokens < self._limit:
            self._limit = tokens

    def halve(self, rows: int, tokens: int) -> None:
        """Has batches be smaller from now on, as one of so many rows was too much."""
        self.halved += 1
        self.keep_within(tokens // 2)
        logger.warning(
            f"the GPU's memory has no room for {rows} answers at once ({tokens} tokens with their"
            f" prompts and padding): at most {tokens // 2} tokens from now on"
        )

    def _choose_passed(self, most: int, per_token: float) -> int:
        """So many tokens of a pass as fit, at most `most`."""
        if not self.is_padded:
            return most
        free = min(map(self._free_bytes, self._count_layers()))
        fitting = int(evaluation_memory.FILLED * free // per_token)
        return max(1, min(most, fitting))

    @cached_property
    def _shape(self) -> DecoderShape:
        """The sizes of the model."""
        return measured_shape.measure_shape(self._model)

    @property
    def _precision(self) -> str:
        """The type of its weights, as settings name it."""
        return _PRECISIONS[self._model.dtype]

    def _count_layers(self) -> dict[str, int]:
        """How many layers each device holds; the device of the embedding first."""
        counts = Counter([self._device])
        counts.update(
            str(next(layer.parameters()).device) for layer in find_layers(self._model)
        )
        counts[self._device] -= 1
        return dict(counts)

    def _free_bytes(self, device: str) -> float:
        """What a GPU has free, what torch holds and does not use included."""
        free, _ = torch.cuda.mem_get_info(device)
        is_last = device == list(self._count_layers())[-1]
        beside = self._beside() if is_last else 0.0
        reserved = torch.cuda.memory_reserved(device)
        unused = reserved - torch.cuda.memory_allocated(device)
        return free + unused - beside


def make_padded_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of rows, longest first, in batches whose longest row times their number is
    at most `budget` tokens; a row that is longer stands alone."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def plan_batches(
    lengths: Sequence[int], budget: int, is_padded: bool
) -> list[list[int]]:
    """Places of rows, longest first, in batches of at most `budget` tokens."""
    if is_padded:
        return list(make_padded_batches(lengths, budget))
    return schedule.make_micro_batches(range(len(lengths)), lengths, budget)


def compute_unless_too_much(compute: Callable[[], T], advice: str | None) -> T | None:
    """What is computed; None where that is too much for a GPU's memory, which is then
    free again.

    With `advice` it cannot be made less: ClusterError with what to do, and what torch
    has said.
    """
    try:
        return compute()
    except RuntimeError as error:
        if causes.of_error(error) != Cause.OUT_OF_MEMORY:
            raise
        if advice is not None:
            text = next(iter(str(error).splitlines()), "")
            raise ClusterError(f"{advice} ({text})") from error
    # only here: until the error is gone it holds what filled the memory
    torch.cuda.empty_cache()
    return None
