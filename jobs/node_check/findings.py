"""Makes the findings of a check, one function for each way that it may stand."""

import msgspec

from jobs.contract.node_check import Finding, FindingState


def count_ranks(count: int) -> str:
    """`1 rank`, `2 ranks`."""
    return "1 rank" if count == 1 else f"{count} ranks"


def report_ok(text: str, key: str = "", /, **figures: float) -> Finding:
    """All is as it should be."""
    return Finding(state=FindingState.OK, text=text, what=key, figures=figures)


def report_warning(
    text: str, advice: str, key: str = "", /, **figures: float
) -> Finding:
    """It works, and otherwise than plan assumes, or slowly."""
    return Finding(
        state=FindingState.WARNING,
        text=text,
        advice=advice,
        what=key,
        figures=figures,
    )


def report_problem(
    text: str, advice: str, key: str = "", /, **figures: float
) -> Finding:
    """A run would fail, or its numbers be wrong."""
    return Finding(
        state=FindingState.PROBLEM,
        text=text,
        advice=advice,
        what=key,
        figures=figures,
    )


def report_skipped(text: str, key: str = "", /) -> Finding:
    """It was not looked at, and why."""
    return Finding(state=FindingState.SKIPPED, text=text, what=key)


def add_comparison(
    finding: Finding, *, assumed: float | None, measured: float, unit: str
) -> Finding:
    """The finding with what plan assumes and what was measured."""
    return msgspec.structs.replace(
        finding, assumed=assumed, measured=measured, unit=unit
    )
