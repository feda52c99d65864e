"""Trains a model on the CPU in float32 by a plain loop, without DeepSpeed and without
ranks: what steps on a device are held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.model.answer_loss import AnswerLoss
from jobs.runtime import devices
from jobs.training.batches import TokenizedSet
from jobs.training.optimizer import build_optimizer
from zsg_core.training import schedule


@dataclass(frozen=True, kw_only=True)
class PlainSteps:
    """The loss of each step, and the norm of its gradient before it is clipped."""

    losses: Sequence[float]
    norms: Sequence[float]


def train_plainly(
    llama: Any, train: TokenizedSet, settings: Mapping[str, Any]
) -> PlainSteps:
    """The steps of a stage with these settings; the rate is the same in all of them.

    The loss of a step is the mean over the target tokens of its examples.
    """
    model = AnswerLoss(llama)
    optimizer = build_optimizer(model, settings, 0)
    parameters = list(model.parameters())
    losses: list[float] = []
    norms: list[float] = []
    for step in range(1, settings["steps"] + 1):
        indices = schedule.list_batch_positions(step, settings["batch"], len(train))
        optimizer.zero_grad()
        losses.append(_differentiate(model, train, indices))
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings["clip"])
        norms.append(norm.item())
        optimizer.step()
    return PlainSteps(losses=losses, norms=norms)


def _differentiate(
    model: AnswerLoss, train: TokenizedSet, indices: Sequence[int]
) -> float:
    """The loss of a batch, whose gradient it leaves with the model."""
    targets = sum(train.learnt[index] for index in indices)
    budget = schedule.MICRO_TOKENS[devices.CPU]
    total = 0.0
    for micro in train.micro_batches(indices, 0, 1, budget):
        loss = model(*micro.on(devices.CPU)).sum() / targets
        loss.backward()
        total += loss.item()
    return total
