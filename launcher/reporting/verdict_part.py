"""Writes a report's section of verdicts: each claim of the grid, what came of it, and what that rests on."""

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.grids import published
from launcher.reporting import comparison
from launcher.reporting import figure as report_figure
from launcher.reporting import page as report_page
from launcher.reporting.figure import Line, Panel
from launcher.reporting.page import interval, number
from launcher.reporting.verdicts import Decided
from zsg_core.settings.claims import Claim, Correlates, FallsAt, FallsEarly, FallsSuddenly, Rises

HEADINGS = ["claim", "of the runs with", "verdict", "effect", "size", "95 %", "tasks", "splits", "runs"]
NOTE = (
    "Claims stand in the grid's file. Intervals are of 95 %, by a bootstrap that draws whole held-out tasks, and whole "
    "held-out splits or seeds where there are enough of them; a claim is supported if each of its effects lies above "
    "what it is compared with."
)
DRAWN = (
    "The curves that the verdicts are of: means over runs, every held-out split weighing alike. Published curves were "
    "read off figures of other models, data and test items: shapes compare, values do not."
)
_OF = {"end": "end", "area": "area under the curve"}


def section(decided: Sequence[Decided], first: int = 0) -> list[str]:
    """The section as HTML, its panels numbered from `first`; nothing where the grid claims nothing."""
    if not decided:
        return []
    drawn = [(panel.title, report_figure.svg(panel, first + n, hover=True)) for n, panel in enumerate(panels(decided))]
    rows = [row for one in decided for row in _rows(one)]
    notes = dict.fromkeys(f"{said(one.claim)}: {note}" for one in decided for note in one.verdict.notes)
    return [
        report_page.heading("Verdicts"), report_page.table(HEADINGS, rows), report_page.paragraph(NOTE, "faint"),
        *([report_page.panels(drawn), report_page.paragraph(f"{DRAWN} {_sources(decided)}", "faint")] if drawn else []),
        *([report_page.warning("What to bear in mind of the verdicts", list(notes))] if notes else []),
    ]  # fmt: skip


def panels(decided: Sequence[Decided]) -> list[Panel]:
    """The curves that verdicts are of, and after each the published ones beside it on axes of their own."""
    made: dict[Any, list[Panel]] = {}
    for one in decided:
        claim, where = one.claim, _group(one)
        of = (claim.metric, claim.stage, tuple(one.curves), where, claim.published)
        if not one.curves or of in made:
            continue
        colours = {name: place for place, name in enumerate(one.curves)}
        x_label = "step" if claim.stage is None else f"step of stage {claim.stage}"
        title = ", ".join(filter(None, (f"{claim.metric} here", where)))
        made[of] = [Panel(title, _lines(one.curves, colours), x_label, claim.metric)]
        if claim.published is not None:
            beside = published.read(claim.published).curves
            named = {name: place for place, name in enumerate(beside)} | colours
            made[of].append(Panel(f"published: {claim.published}", _lines(beside, named), "step", claim.metric))
    pairs_first = sorted(made.values(), key=len, reverse=True)  # so that pairs stand side by side
    return [panel for drawn in pairs_first for panel in drawn]


def _sources(decided: Sequence[Decided]) -> str:
    names = dict.fromkeys(one.claim.published for one in decided if one.claim.published and one.curves)
    return " ".join(f"{name}: {published.read(name).source}" for name in names)


def _lines(curves: Mapping[str, tuple[Sequence[float], Any]], colours: Mapping[str, int]) -> list[Line]:
    return [
        Line(
            "mean" if name in ("", comparison.text(None)) else name,
            colours[name],
            [*map(float, steps)],
            [*map(float, values)],
        )
        for name, (steps, values) in curves.items()
    ]


def columns(decided: Sequence[Decided]) -> list[dict[str, Any]]:
    """The verdicts as rows of a table, one for each effect."""
    return [
        {
            "claim": said(one.claim), "of": _group(one), "verdict": one.verdict.word, "effect": effect.name,
            "size": effect.found.value, "low": effect.found.interval[0], "high": effect.found.interval[1],
            "error_of_tasks": effect.found.over_tasks, "error_of_replicates": effect.found.over_replicates,
            "tasks": one.verdict.tasks, "splits": one.verdict.splits, "runs": one.verdict.runs,
            "notes": "; ".join(one.verdict.notes),
        }
        for one in decided for effect in one.verdict.effects
    ]  # fmt: skip


def _group(one: Decided) -> str:
    return ", ".join(f"{comparison.last_word(key)} {comparison.text(value)}" for key, value in one.group.items())


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
    made, group = one.verdict, _group(one)
    rests = [number(float(count), 6) for count in (made.tasks, made.splits, made.runs)]
    sizes = [[effect.name, number(effect.found.value), interval(effect.found.interval)] for effect in made.effects]
    return [[said(one.claim), group, made.word, *size, *rests] for size in sizes or [["", number(None), ""]]]
