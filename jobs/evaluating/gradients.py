"""Measures how far gradients of training examples cancel: DELIA's buffering effect.

Of each example the gradient of the mean loss of its answer, by the parameters that the
run trains, without dropout. For a source of the data, and for all of them together, the
norm of the mean gradient is compared with the mean of the norms: 1 where all point one
way, near 0 where they cancel one another. Each example is a pass of its own; sums are
kept in float32 in the host's memory, norms taken in float64.

<run>/representations/<step>.gradients[.NAME].json   of which examples, each one's norm
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jobs.contract.folder import SCHEMA, write_json
from jobs.evaluating.hidden_state_store import FOLDER
from jobs.model import example_gradients
from jobs.model.answer_loss import AnswerLoss
from jobs.training.batches import MicroBatch, Segment, pack_parts
from zsg_core.data import splits
from zsg_core.data.prompts import ANSWER, EncodedExample
from zsg_core.digest import digest_ids
from zsg_core.settings.gradients import GRADIENT_RATIO

SEED = 0  # of which examples are taken


@dataclass(frozen=True)
class DrawnExamples:
    """Training examples of one source, as the run trains on them."""

    source: str
    ids: Sequence[str]
    encoded: Sequence[EncodedExample]


@dataclass
class GradientSums:
    """What is kept of the gradients of some examples: their sum, tensor by tensor, and
    the norm of each."""

    tensors: list[torch.Tensor]
    norms: list[float] = field(default_factory=list)

    @property
    def mean_norm(self) -> float:
        """The mean of the examples' norms."""
        return sum(self.norms) / len(self.norms)

    @property
    def norm_of_mean(self) -> float:
        """The norm of the examples' mean gradient."""
        squares = sum(_square_norm(tensor) for tensor in self.tensors)
        return math.sqrt(squares) / len(self.norms)

    @property
    def ratio(self) -> float:
        """The norm of the mean by the mean of the norms; NaN where all are zero."""
        return self.norm_of_mean / self.mean_norm if self.mean_norm else math.nan

    def add(self, sums: "GradientSums") -> None:
        """Takes others in."""
        for tensor, summand in zip(self.tensors, sums.tensors, strict=True):
            tensor.add_(summand)
        self.norms += sums.norms


def _square_norm(tensor: torch.Tensor) -> float:
    norm = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return float(norm) ** 2


def draw_examples(
    ids: Sequence[str], sources: Sequence[str], limit: int
) -> dict[str, list[int]]:
    """Places of at most so many examples of each source, in their order."""
    by_source: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        by_source.setdefault(source, []).append(number)
    assert len(ids) == len(sources), "each example is of a source"
    return {
        source: sorted(splits.cap_items(numbers, limit, "random", SEED, source))
        for source, numbers in by_source.items()
    }


def sum_gradients(
    loss: AnswerLoss,
    trained: Sequence[str],
    drawn: Sequence[DrawnExamples],
    device: str,
) -> list[GradientSums]:
    """The gradients of each source's examples. `trained`: the names of the parameters
    that they are taken by."""
    by_name = dict(loss.model.named_parameters())
    parameters = [by_name[name] for name in trained]
    loss.eval()  # which whoever takes a loss leaves in training
    with example_gradients.with_gradients(parameters):
        return [
            _sum_of_source(loss, parameters, source.encoded, device) for source in drawn
        ]


def _sum_of_source(
    loss: AnswerLoss,
    parameters: Sequence[torch.nn.Parameter],
    examples: Sequence[EncodedExample],
    device: str,
) -> GradientSums:
    tensors = [
        torch.zeros(parameter.shape, dtype=torch.float32) for parameter in parameters
    ]
    sums = GradientSums(tensors)
    scale = example_gradients.choose_scale(parameters)
    for example in examples:
        (scale * _mean_loss(loss, example, device)).backward()
        sums.norms.append(_take_gradients(parameters, tensors, scale))
    return sums


def _mean_loss(loss: AnswerLoss, example: EncodedExample, device: str) -> torch.Tensor:
    """The mean loss of an example's answers, as its run learns them."""
    row = _pack(example)
    return loss(*row.on(device)).sum() / len(row.targets)


def _pack(example: EncodedExample) -> MicroBatch:
    """An example as a row: of several texts one after the other."""
    segments = [
        Segment(0, text.ids, spans=text.target_spans(ANSWER)) for text in example.texts
    ]
    return pack_parts(segments)


def _take_gradients(
    parameters: Sequence[torch.nn.Parameter],
    tensors: Sequence[torch.Tensor],
    scale: float,
) -> float:
    """Adds the gradients of an example to the sums, takes them away, and returns their
    norm."""
    squares = 0.0
    for parameter, total in zip(parameters, tensors, strict=True):
        if parameter.grad is None:
            continue
        gradient = parameter.grad.to("cpu", torch.float32) / scale
        squares += _square_norm(gradient)
        total.add_(gradient)
        parameter.grad = None
    return math.sqrt(squares)


def describe_sums(
    key: str, drawn: Sequence[DrawnExamples], sums: Sequence[GradientSums]
) -> dict[str, float]:
    """The metrics of a key, from the sums of each source; the sums are used up. Of two
    sources their means' cosine, too, which follows from the three norms."""
    values: dict[str, float] = {}
    if len(sums) > 1:
        for source, of_source in zip(drawn, sums, strict=True):
            values |= _list_values(key, source.source, of_source)
    lengths = [(each.norm_of_mean * len(each.norms)) ** 2 for each in sums]
    whole = sums[0]
    for summand in sums[1:]:
        whole.add(summand)
    values |= _list_values(key, "", whole)
    if len(sums) == 2 and all(lengths):
        product = (whole.norm_of_mean * len(whole.norms)) ** 2 - sum(lengths)
        cosine = product / (2 * math.sqrt(lengths[0] * lengths[1]))
        values[_name(key, "gradient_cosine", "")] = cosine
    return values


def _list_values(key: str, source: str, sums: GradientSums) -> dict[str, float]:
    """The ratio and the norms that it is of."""
    return {
        _name(key, GRADIENT_RATIO, source): sums.ratio,
        _name(key, "gradient_norm", source): sums.norm_of_mean,
        _name(key, "gradient_mean_norm", source): sums.mean_norm,
    }


def _name(key: str, metric: str, source: str) -> str:
    """The name of a metric beside a key, which may carry a name of the user's."""
    _, slash, name = key.partition("/")
    whole = f"{metric}{slash}{name}"
    return f"{whole}/{source}" if source else whole


def name_moved(key: str) -> str:
    """The metric of how far weights have moved, beside a key."""
    return _name(key, "weights_moved", "")


@dataclass(frozen=True)
class GradientsTaken:
    """Of which step and weights gradients were taken, under which key and how."""

    step: int
    key: str
    way: Mapping[str, Any]
    weights: str | None


def keep_norms(
    run: Path,
    taken: GradientsTaken,
    drawn: Sequence[DrawnExamples],
    sums: Sequence[GradientSums],
) -> str:
    """Writes of which examples gradients were, with each one's norm; returns the file's
    name in the run's folder."""
    ids = [name for source in drawn for name in source.ids]
    _, slash, name = taken.key.partition("/")
    file = f"{FOLDER}/{taken.step}.gradients{'.' if slash else ''}{name}.json"
    about = {
        "schema": SCHEMA,
        "step": taken.step,
        "key": taken.key,
        "way": dict(taken.way),
        "weights": taken.weights,
        "ids_digest": digest_ids(ids),
        "sources": {
            source.source: dict(zip(source.ids, of_source.norms, strict=True))
            for source, of_source in zip(drawn, sums, strict=True)
        },
    }
    write_json(run / file, about)
    return file
