"""What is known of a step at which tasks of lm-evaluation-harness are taken."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.evaluating.weight_swapper import WeightSwapper


@dataclass(frozen=True)
class Taking:
    """Whose weights are held: of a step, after so many examples, with which digest and
    test loss; on which device and where. `placement`: see describe_placement of
    jobs.contract.attempt. `swapper` holds the model; `budget`: the most tokens of a
    training micro-batch."""

    step: int
    examples: int
    weights: str | None
    probe_loss: float
    device: str
    placement: Mapping[str, Any]
    swapper: WeightSwapper
    budget: int
