"""Says every setting of how far the gradients of training examples cancel one another,
which evaluators measure at kept snapshots."""

from typing import Annotated

from pydantic import Field

from zsg_core.settings.fields import Strict
from zsg_core.settings.representations import Name, Ways

GRADIENT_RATIO = "gradient_ratio"


class GradientSettings(Strict):
    """How far gradients of training examples cancel: the norm of their mean by the mean
    of their norms, for each source of the data alone, and for all together.

    1 where all point one way, near 0 where they cancel. DELIA holds that those of diverse
    examples do, and that this keeps the task's in check (arXiv 2408.10841). Beside it
    stand the norms, the cosine between two sources, and how far the weights have moved.
    """

    items: Annotated[int, Field(ge=2, le=100_000)] = Field(
        default=32,
        description=(
            "How many training examples of each source are taken, the same at every "
            "checkpoint. Each takes a forward and a backward pass of its own, and the "
            "evaluator room for a gradient beside the weights."
        ),
    )
    name: Name | None = Field(
        default=None,
        description="A name of yours that the metrics' keys carry, `gradient_ratio/NAME`.",
    )

    @property
    def ways(self) -> Ways:
        """`gradient_ratio`; each source has its own as well, `gradient_ratio/SOURCE`,
        and what stands beside it: `gradient_norm`, `gradient_mean_norm`,
        `gradient_cosine`, `weights_moved`."""
        key = GRADIENT_RATIO if self.name is None else f"{GRADIENT_RATIO}/{self.name}"
        return {key: {"items": self.items, "gradients": "mean answer loss"}}
