"""Holds training steps on this node's devices, in each precision, against the same steps
on the CPU in float32; and sees whether fp16 outlives gradients that overflow.

Bounds. In 16 bits a value has a relative error of 2^-9 (bf16) or 2^-11 (fp16) each time
it is rounded; these average out over tokens and parameters, and what is left is well
under the 1 % within which a run's own losses must agree when they are computed again
(jobs.contract.journal). A norm is not a mean: 5 %. In float32 only sums are in another
order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.node_check.plain_training import PlainSteps, train_plainly
from jobs.node_check.small_models import SMALL, draw_lengths, make_examples, make_llama
from jobs.node_check.small_training import (
    Bench,
    Trained,
    TrialRun,
    load_base,
    publish_base,
    train_trial,
)
from jobs.runtime import devices
from jobs.training.batches import TokenizedSet

BASE = "small"
BATCH, STEPS = 8, 4
LONGEST = 96
TEST_LENGTHS = (24, 32)
# relative: of a loss, and of a gradient's norm
BOUNDS = {"fp32": (1e-4, 1e-3), "bf16": (1e-2, 5e-2), "fp16": (1e-2, 5e-2)}
# A first loss scale at which gradients must overflow in fp16, and steps enough to halve
# it until they do not.
HIGH_SCALE = 2.0**26
OVERFLOW_STEPS = 16


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far steps in a precision are from the plain ones, at the most: relative."""

    precision: str
    loss: float
    norm: float

    @property
    def is_sound(self) -> bool:
        """Whether both are within their bounds."""
        loss_bound, norm_bound = BOUNDS[self.precision]
        return self.loss <= loss_bound and self.norm <= norm_bound


@dataclass(frozen=True, kw_only=True)
class Overflow:
    """What became of steps whose first gradients overflow: how many were `skipped`, and
    whether the last step was taken."""

    skipped: int
    last_was_taken: bool

    @property
    def is_sound(self) -> bool:
        """Whether some were skipped, and training went on."""
        return self.skipped > 0 and self.last_was_taken


def publish_small_base(bench: Bench) -> None:
    """Makes the small model that all steps here start from; all ranks call it together."""
    publish_base(bench, BASE, make_small_llama)


def make_small_llama() -> Any:
    """The small model in float32, on the CPU."""
    return make_llama(SMALL, torch.float32, devices.CPU)


def train_small(bench: Bench, trial: TrialRun) -> Trained:
    """Trains the small model; all ranks call it together."""
    llama = load_base(trial, bench)
    return train_trial(trial, bench, llama, make_train_set(trial), make_test_set())


def make_train_set(trial: TrialRun) -> TokenizedSet:
    """Examples for all steps of a trial."""
    lengths = draw_lengths(trial.batch * trial.steps, LONGEST)
    return make_examples(lengths, SMALL.vocab)


def make_test_set() -> TokenizedSet:
    """What the loss of a checkpoint is taken of."""
    return make_examples(TEST_LENGTHS, SMALL.vocab)


def make_trial(precision: str, zero_stage: int) -> TrialRun:
    """A few steps in a precision."""
    return TrialRun(
        name=f"steps-{precision}",
        base=BASE,
        precision=precision,
        zero_stage=choose_stage(precision, zero_stage),
        batch=BATCH,
        steps=STEPS,
        snapshot=STEPS,
    )


def make_overflow_trial(zero_stage: int) -> TrialRun:
    """Steps in fp16 whose first gradients overflow."""
    return TrialRun(
        name="overflow",
        base=BASE,
        precision="fp16",
        zero_stage=choose_stage("fp16", zero_stage),
        batch=BATCH,
        steps=OVERFLOW_STEPS,
        settings={"overflow": "skip", "loss_scale": HIGH_SCALE},
    )


def choose_stage(precision: str, zero_stage: int) -> int:
    """The profile's ZeRO stage; 1 where it is 0, which trains in fp32 alone."""
    return zero_stage if precision == "fp32" else max(1, zero_stage)


def train_reference(trial: TrialRun) -> PlainSteps:
    """The same steps on the CPU in float32."""
    return train_plainly(make_small_llama(), make_train_set(trial), trial.training)


def compare_steps(precision: str, trained: Trained, plain: PlainSteps) -> Deviation:
    """How far steps are from the plain ones."""
    return Deviation(
        precision=precision,
        loss=find_deviation(trained.losses, plain.losses),
        norm=find_norm_deviation(trained.norms, plain.norms),
    )


def find_deviation(measured: Sequence[float], expected: Sequence[float]) -> float:
    """The largest relative difference; infinite where steps are missing or are no
    numbers."""
    if len(measured) != len(expected):
        return math.inf
    pairs = zip(measured, expected, strict=True)
    deviations = [abs(value - plain) / abs(plain) for value, plain in pairs]
    if not all(map(math.isfinite, deviations)):
        return math.inf
    return max(deviations)


def find_norm_deviation(measured: Sequence[float], expected: Sequence[float]) -> float:
    """The same of norms; 0 where none is told, as by DeepSpeed at ZeRO stage 0."""
    if all(map(math.isnan, measured)):
        return 0.0
    return find_deviation(measured, expected)


def judge_overflow(trained: Trained) -> Overflow:
    """What became of steps that overflow."""
    return Overflow(
        skipped=trained.skipped,
        last_was_taken=bool(trained.norms) and math.isfinite(trained.norms[-1]),
    )
