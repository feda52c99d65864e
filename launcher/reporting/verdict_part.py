"""Writes a report's section of verdicts: each claim of the grid, what came of it, and what that rests on."""

from collections.abc import Sequence
from typing import Any

from launcher.reporting import comparison
from launcher.reporting import page as report_page
from launcher.reporting.page import interval, number
from launcher.reporting.verdicts import Decided
from zsg_core.settings.claims import Claim, Correlates, FallsAt, FallsEarly, FallsSuddenly, Rises

HEADINGS = ["claim", "of the runs with", "verdict", "effect", "size", "95 %", "tasks", "splits", "runs"]
NOTE = (
    "Claims stand in the grid's file. Intervals are of 95 %, by a bootstrap that draws whole held-out tasks, and whole "
    "held-out splits or seeds where there are enough of them; a claim is supported if each of its effects lies above "
    "what it is compared with."
)
_OF = {"end": "end", "area": "area under the curve"}


def section(decided: Sequence[Decided]) -> list[str]:
    """The section as HTML; nothing where the grid claims nothing."""
    if not decided:
        return []
    rows = [row for one in decided for row in _rows(one)]
    notes = dict.fromkeys(f"{said(one.claim)}: {note}" for one in decided for note in one.verdict.notes)
    return [
        report_page.heading("Verdicts"), report_page.table(HEADINGS, rows), report_page.paragraph(NOTE, "faint"),
        *([report_page.warning("What to bear in mind of the verdicts", list(notes))] if notes else []),
    ]  # fmt: skip


def said(claim: Claim) -> str:
    """A claim in one line."""
    match claim:
        case Rises():
            by = f", each time by {claim.by:g}" if claim.by else ""
            return f"{_OF[claim.of]} of {claim.metric}: {' < '.join(map(comparison.text, claim.values))}{by}"
        case Correlates():
            rank = f"Spearman of {comparison.last_word(claim.along)} and {_OF[claim.of]} of {claim.metric}"
            return f"{rank} ≥ {claim.at_least:g}"
        case FallsEarly():
            return f"{claim.metric}: {claim.share} of its fall within the first {claim.within} of the steps"
        case FallsAt():
            return f"{claim.metric} falls faster after {claim.at} of the steps than before"
        case FallsSuddenly():
            names = f"{comparison.text(claim.value)} than under {comparison.text(claim.against)}"
            return f"more tasks fall by over {claim.times:g} times the usual under {names}"


def _rows(one: Decided) -> list[list[Any]]:
    """A row for each effect; one without sizes where there is none."""
    made, group = (
        one.verdict,
        ", ".join(f"{comparison.last_word(k)} {comparison.text(v)}" for k, v in one.group.items()),
    )
    rests = [number(float(count), 6) for count in (made.tasks, made.splits, made.runs)]
    sizes = [[effect.name, number(effect.found.value), interval(effect.found.interval)] for effect in made.effects]
    return [[said(one.claim), group, made.word, *size, *rests] for size in sizes or [["", number(None), ""]]]
