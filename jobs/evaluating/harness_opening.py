"""Opens what takes tasks of lm-evaluation-harness, which is installed where it is wanted."""

from typing import TYPE_CHECKING

from zsg_core.errors import ClusterError

if TYPE_CHECKING:
    from jobs.evaluating.harness_step import HarnessStep


def open_harness(item: str) -> "HarnessStep":
    """What takes tasks in the evaluate job `item`. ClusterError where
    lm-evaluation-harness, or what it needs, is not installed on this machine."""
    try:
        from jobs.evaluating.harness_step import HarnessStep
    except ModuleNotFoundError as error:
        raise ClusterError(
            "metrics of lm-evaluation-harness need the package lm-eval where jobs run, and"
            f" {error.name} is not there: pip install 'zsg[harness]' in that environment"
        ) from error
    return HarnessStep(item)
