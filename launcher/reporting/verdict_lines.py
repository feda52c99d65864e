"""Tells verdicts where there is no page: a line each for people, rows for scripts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.deciding.judged_claims import JudgedClaim
from launcher.reporting.html import verdict_section
from zsg_core.shown_text import make_showable


def describe_verdicts(decided: Sequence[JudgedClaim]) -> list[str]:
    """Each claim with its verdict and the runs that it is of, in a line."""
    lines: list[str] = []
    for judged in decided:
        claim = verdict_section.describe_claim(judged.claim)
        group = verdict_section.describe_group(judged)
        line = f"{judged.verdict.word}: {claim}"
        if group:
            line = f"{line} ({group})"
        # an axis may have any value: what does not print begins no line of its own
        lines.append(make_showable(line, keep=""))
    return lines


def make_report_row(
    grids: Sequence[str],
    values: Sequence[Mapping[str, Any]],
    decided: Sequence[JudgedClaim],
) -> dict[str, Any]:
    """The report of several grids as `zsg report --json` has it: the values that it has
    of one, and the verdicts, of each effect a row as in verdicts.csv; null for what is no
    number."""
    rows = verdict_section.verdict_rows(decided)
    return {
        "grids": list(grids),
        "values": list(values),
        "verdicts": [_keep_numbers(row) for row in rows],
    }


def _keep_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without numbers that JSON does not have."""
    kept: dict[str, Any] = {}
    for name, value in row.items():
        is_none = isinstance(value, float) and not math.isfinite(value)
        kept[name] = None if is_none else value
    return kept
