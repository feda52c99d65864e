"""The one list of what nodes must show before a study is trusted to them: zsg doctor
--on-node checks each entry in turn, and docs/gpu-checks.md is written from it.

A new thing that only a GPU can confirm is one entry here and one function beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs.contract.node_check import Finding, Section
from jobs.node_check.place import Place

# A function may raise: that is a problem of its check, with the error as its text, and
# the checks after it go on.
CheckFunction = Callable[[Place], Sequence[Finding]]


@dataclass(frozen=True)
class NodeCheck:
    """One thing to confirm. `name`: a stable key; `confirms`: one sentence, of which
    reports and pages are made; `needs_gpu`: on CPU nodes it is told as skipped, never
    called; `is_collective`: all ranks take part at the same time, so it is skipped on
    all where they could not meet, or one of them has no turn."""

    name: str
    section: Section
    confirms: str
    function: CheckFunction
    needs_gpu: bool = False
    is_collective: bool = False


# In this order they run.
CHECKS: tuple[NodeCheck, ...] = ()


def find_check(name: str) -> NodeCheck | None:
    """The entry of a name; None for one that this zsg does not know."""
    return next((check for check in CHECKS if check.name == name), None)
