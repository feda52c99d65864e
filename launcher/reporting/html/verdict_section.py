"""Writes a report's section of verdicts: each claim of the grid, what came of it, and
what that rests on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgspec import UNSET

from jobs.contract.grid_record import GridRecord
from jobs.deciding import run_axes
from jobs.deciding.judged_claims import JudgedClaim
from launcher.grids import claim_deviations, published
from launcher.reporting.figures import line_charts
from launcher.reporting.figures.line_charts import Line, Panel
from launcher.reporting.html import page as report_page
from launcher.reporting.html import published_section
from launcher.reporting.html.page import NumberCell, interval_cell, number_cell
from zsg_core.settings.claims import (
    Claim,
    Correlates,
    FallsAt,
    FallsEarly,
    FallsSuddenly,
    IsEarlier,
    IsHigher,
    IsSteadier,
    Rises,
    RisesAt,
    RisesEarly,
    RisesSuddenly,
    Trends,
)
from zsg_core.stats.effects import TAIL, EffectEstimate
from zsg_core.stats.verdict import ClaimEffect, ClaimVerdict

HEADINGS = [
    "claim",
    "of the runs with",
    "verdict",
    "effect",
    "size",
    "{interval}",
    "over",
    "{interval} on these tasks",
    "by chance",
    "tasks",
    "that count",
    "splits",
    "runs",
]
OF_SEVERAL = "interval"
NOTE = (
    "Claims stand in the grid's file. What is compared are the values of the tables and curves on"
    " this page: of a loss the mean over test items, of any score of answers the mean over test"
    " tasks. Intervals are {intervals}, by a bootstrap that draws whole held-out tasks and whole"
    " held-out splits. A claim is supported if each of its effects lies above what it is compared"
    " with, and opposite if each lies below. Of one held-out split the interval is over its tasks"
    " and seeds alone; of two or three, where that over splits decides nothing, one on these tasks"
    " is looked at, which takes splits for alike. Then the verdict says so, as another split may"
    " turn it. Tasks of unequal weight count for fewer. By chance: how many of all orders of an"
    " axis's places rise as much; a correlation is supported at no more than an interval leaves out"
    " on one side. Metrics of the same"
    " runs are compared on the test items that have all of them, each by its way from step 0 as a"
    " share of that to the mean of its later values; the swing of a metric is how far a checkpoint"
    " lies from the line between its neighbours. Of a metric that is one number a run the interval"
    " is over seeds, or over splits."
)
DRAWN = (
    "The curves that the verdicts are of: means over runs, every held-out split weighing alike."
    " Published curves were read off figures of other models, data and test items: shapes compare,"
    " values do not."
)
LOOK_HEADINGS = [
    "claim",
    "of the runs with",
    "look",
    "after splits",
    "stands",
    "effect",
    "unbiased",
    "95 % unbiased",
]
LOOK_NOTE = (
    "These claims are looked at while held-out splits come in. The error rate is spent over all"
    " looks together; the intervals of the table above are those of the look at which each claim"
    " stands, which hold at all looks at once. A claim is decided at the first look at which all"
    " its effects are beyond the bound, and given up where it would hardly be decided any more;"
    " what comes in later for other claims changes neither. Sizes that were seen at a stop lean"
    " away from nothing; the unbiased estimates are median-unbiased, by the order of the looks."
)
SIZES = (  # the columns of an effect, in the table beside the page
    "size",
    "low",
    "high",
    "confidence",
    "over",
    "low_on_these_tasks",
    "high_on_these_tasks",
    "by_chance",
    "error_of_tasks",
    "error_of_replicates",
)
_OF = {"end": "end", "area": "area under the curve"}


def make_verdict_section(decided: Sequence[JudgedClaim], first: int = 0) -> list[str]:
    """The section as HTML, its panels numbered from `first`; nothing where the grid
    claims nothing."""
    if not decided:
        return []
    drawn = [
        (panel.title, line_charts.draw_svg(panel, first + n, hover=True))
        for n, panel in enumerate(make_verdict_panels(decided))
    ]
    is_of_one = len(_list_levels(decided)) < 2
    rows = [row for judged in decided for row in _rows(judged, is_of_one)]
    notes = dict.fromkeys(
        f"{describe_claim(judged.claim)}: {note}"
        for judged in decided
        for note in judged.verdict.notes
    )
    return [
        report_page.render_heading("Verdicts"),
        report_page.render_table(_name_columns(decided), rows),
        report_page.render_paragraph(_explain_table(decided), "faint"),
        *_render_looks(decided),
        *(
            [
                report_page.render_panels(drawn),
                report_page.render_paragraph(f"{DRAWN} {_sources(decided)}", "faint"),
            ]
            if drawn
            else []
        ),
        *published_section.make_published_section(
            decided, [_name_verdict(judged) for judged in decided]
        ),
        *(
            [
                report_page.render_warning(
                    "What to bear in mind of the verdicts", list(notes)
                )
            ]
            if notes
            else []
        ),
    ]


def _list_levels(decided: Sequence[JudgedClaim]) -> list[str]:
    """Of how many per cent the intervals are, as text: 95 %, but for claims that are
    looked at, whose intervals are as wide as the last look asks for."""
    levels = [
        _name_level(effect.confidence)
        for judged in decided
        for effect in judged.verdict.effects
    ]
    return list(dict.fromkeys(levels))


def _name_level(confidence: float) -> str:
    """A level of confidence in per cent."""
    return f"{100 * confidence:.4g} %"


def _name_columns(decided: Sequence[JudgedClaim]) -> list[str]:
    """The headings of the table; where intervals are not all of one level, their cells
    say it."""
    levels = _list_levels(decided) or [_name_level(1 - 2 * TAIL)]
    interval = levels[0] if len(levels) == 1 else OF_SEVERAL
    return [heading.format(interval=interval) for heading in HEADINGS]


def _explain_table(decided: Sequence[JudgedClaim]) -> str:
    """What is to be known of the table of verdicts."""
    levels = _list_levels(decided) or [_name_level(1 - 2 * TAIL)]
    is_of_one = len(levels) == 1
    intervals = f"of {levels[0]}" if is_of_one else "of as many per cent as they say"
    return NOTE.format(intervals=intervals)


def make_deviation_section(record: GridRecord) -> list[str]:
    """What of the claims changed since the first submit, with date and reason, as HTML;
    nothing where nothing did."""
    deviations = [] if record.deviations is UNSET else list(record.deviations or [])
    if not deviations:
        return []
    days = [_name_time(deviation.at) for deviation in deviations]
    sentences = claim_deviations.describe_deviations(deviations)
    lines = [
        f"{day}, {sentence}" for day, sentence in zip(days, sentences, strict=True)
    ]
    heading = "Deviations: what of the claims changed since the first submit"
    return [report_page.render_warning(heading, lines)]


def _name_time(at: int) -> str:
    """A time in ms since the epoch, in words; of a file that says what is no time, so."""
    try:
        return f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(at / 1000))} UTC"
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"


def _render_looks(decided: Sequence[JudgedClaim]) -> list[str]:
    """The table of looks as HTML; nothing where claims are looked at once."""
    rows = list_look_rows(decided)
    if not rows:
        return []
    return [
        report_page.render_table(LOOK_HEADINGS, rows),
        report_page.render_paragraph(LOOK_NOTE, "faint"),
    ]


def make_verdict_panels(decided: Sequence[JudgedClaim]) -> list[Panel]:
    """The curves that verdicts are of, and after each the published ones beside it on
    axes of their own."""
    pairs: dict[Any, list[Panel]] = {}
    for judged in decided:
        claim, group_name = judged.claim, describe_group(judged)
        y_label = _name_axis(claim)
        subject = (
            y_label,
            claim.stage,
            tuple(judged.curves),
            group_name,
            claim.published,
        )
        if not judged.curves or subject in pairs:
            continue
        colours = {name: number for number, name in enumerate(judged.curves)}
        x_label = "step" if claim.stage is None else f"step of stage {claim.stage}"
        title = ", ".join(filter(None, (f"{y_label} here", group_name)))
        pairs[subject] = [
            Panel(title, _lines(judged.curves, colours), x_label, y_label)
        ]
        pairs[subject] += _make_published_panels(claim, colours)
    # so that pairs stand side by side
    pairs_first = sorted(pairs.values(), key=len, reverse=True)
    return [panel for drawn in pairs_first for panel in drawn]


def _make_published_panels(claim: Claim, colours: Mapping[str, int]) -> list[Panel]:
    """The published curves that a claim names, in the colours of the places that it
    compares; nothing where it names none."""
    if claim.published not in published.list_published():
        return []
    beside = published.read_published(claim.published).curves
    named = {name: number for number, name in enumerate(beside)} | {**colours}
    y_label = claim.metric if len(claim.metrics) == 1 else "as published"
    title = f"published: {claim.published}"
    return [Panel(title, _lines(beside, named), "step", y_label)]


def _name_axis(claim: Claim) -> str:
    """What the curves of a verdict are of."""
    if isinstance(claim, IsEarlier | IsSteadier):
        return "share of the way"
    if isinstance(claim, IsHigher):
        return claim.metric.partition("/")[0]
    return claim.metric


def _sources(decided: Sequence[JudgedClaim]) -> str:
    """Where the published curves are from that claims are laid beside."""
    curves = published.list_published()
    names = dict.fromkeys(
        judged.claim.published
        for judged in decided
        if judged.claim.published in curves and judged.curves
    )
    return " ".join(
        f"{name}: {published.read_published(name).source}" for name in names
    )


def _name_verdict(judged: JudgedClaim) -> str:
    """A claim and the runs that it was decided of, in one line."""
    group = describe_group(judged)
    claim = describe_claim(judged.claim)
    return f"{claim} ({group})" if group else claim


def _lines(
    curves: Mapping[str, tuple[Sequence[float], Any]], colours: Mapping[str, int]
) -> list[Line]:
    """The mean curves behind a verdict, a line for each place that is compared."""
    return [
        Line(
            "mean" if name in ("", run_axes.axis_text(None)) else name,
            colours[name],
            [*map(float, steps)],
            [*map(float, values)],
        )
        for name, (steps, values) in curves.items()
    ]


def verdict_rows(decided: Sequence[JudgedClaim]) -> list[dict[str, Any]]:
    """The verdicts as rows of a table, one for each effect; one without sizes where
    there is none."""
    return [
        _column(judged, effect)
        for judged in decided
        for effect in judged.verdict.effects or [None]
    ]


def _column(judged: JudgedClaim, effect: ClaimEffect | None) -> dict[str, Any]:
    decided = judged.verdict
    return {
        "claim": describe_claim(judged.claim),
        "of": describe_group(judged),
        "verdict": decided.word,
        **_effect_columns(judged, effect),
        "tasks": decided.tasks,
        "tasks_that_count": decided.counted,
        "splits": decided.splits,
        "runs": decided.runs,
        "look": decided.looked.number if decided.looked else None,
        "looks": decided.looked.of if decided.looked else None,
        **_unbiased_columns(decided, effect),
        "notes": "; ".join(decided.notes),
    }


def _unbiased_columns(
    decided: ClaimVerdict, effect: ClaimEffect | None
) -> dict[str, Any]:
    """The estimate of an effect after a stop; empty cells without one."""
    names = ("unbiased", "unbiased_low", "unbiased_high")
    looked = decided.looked
    if effect is None or looked is None or not looked.unbiased:
        return dict.fromkeys(names)
    number = list(decided.effects).index(effect)
    value, (low, high) = looked.unbiased[number]
    return dict(zip(names, (value, low, high), strict=True))


def _effect_columns(judged: JudgedClaim, effect: ClaimEffect | None) -> dict[str, Any]:
    """An effect's size, its intervals and its errors; empty cells where there is none."""
    if effect is None:
        return {"effect": "", **dict.fromkeys(SIZES), "over": ""}
    estimate = effect.found
    low, high = estimate.interval or (None, None)
    low_here, high_here = estimate.on_these or (None, None)
    return {
        "effect": effect.name,
        "size": estimate.value,
        "low": low,
        "high": high,
        "confidence": effect.confidence,
        "over": _over(judged.verdict, estimate),
        "low_on_these_tasks": low_here,
        "high_on_these_tasks": high_here,
        "by_chance": effect.chance[0] if effect.chance else None,
        "error_of_tasks": estimate.over_tasks,
        "error_of_replicates": estimate.over_replicates,
    }


def _over(decided: ClaimVerdict, estimate: EffectEstimate) -> str:
    """What an interval is over."""
    if not decided.tasks:  # one number a run
        return "splits" if estimate.is_over_splits else "seeds"
    return "tasks and splits" if estimate.is_over_splits else "these tasks"


def list_look_rows(decided: Sequence[JudgedClaim]) -> list[list[Any]]:
    """Of claims that are looked at while splits come in, a row for each effect: at which
    look it stands, and the estimate that does not lean to either side."""
    rows: list[list[Any]] = []
    for judged in decided:
        looked = judged.verdict.looked
        if looked is None:
            continue
        name = describe_claim(judged.claim)
        stands = f"{looked.number} of {looked.of}"
        splits = judged.verdict.splits if looked.number else None
        state = _name_stand(judged)
        beside = [name, describe_group(judged), stands, number_cell(splits), state]
        unbiased = looked.unbiased or [(None, None)]
        effects = [effect.name for effect in judged.verdict.effects]
        effects = effects if looked.unbiased else [""]
        for effect, (value, interval) in zip(effects, unbiased, strict=True):
            rows.append([*beside, effect, number_cell(value), interval_cell(interval)])
    return rows


def _name_stand(judged: JudgedClaim) -> str:
    """How a claim that is looked at stands, in words."""
    looked = judged.verdict.looked
    if looked is None or not looked.is_over:
        return "goes on"
    if looked.unbiased:
        return "decided"
    return "at its end" if looked.number == looked.of else "given up"


def describe_group(judged: JudgedClaim) -> str:
    """Which runs a verdict is of, in one line; empty for all of a grid."""
    return ", ".join(
        f"{run_axes.last_word(key)} {run_axes.axis_text(value)}"
        for key, value in judged.group.items()
    )


def describe_claim(claim: Claim) -> str:
    """A claim in one line."""
    match claim:
        case Rises() | Correlates() | Trends():
            return _describe_places(claim)
        case IsEarlier() | IsSteadier() | IsHigher():
            return _describe_metrics(claim)
        case _:
            return _describe_change(claim)


def _describe_places(claim: Rises | Correlates | Trends) -> str:
    """A claim on the places of an axis, in one line."""
    compared = f"{_OF[claim.of]} of {claim.metric}"
    names = list(map(run_axes.axis_text, claim.values))
    match claim:
        case Rises():
            least_rise = f", each time by {claim.by:g}" if claim.by else ""
            return f"{compared}: {' < '.join(names)}{least_rise}"
        case Correlates():
            axis = run_axes.last_word(claim.along)
            return f"Spearman of {axis} and {compared} ≥ {claim.at_least:g}"
        case Trends():
            least_slope = f" by {claim.by:g}" if claim.by else ""
            return f"{compared} trends up{least_slope} over {', '.join(names)}"


def _describe_change(
    claim: FallsEarly | RisesEarly | FallsAt | RisesAt | FallsSuddenly | RisesSuddenly,
) -> str:
    """A claim on where a curve changes, in one line."""
    is_rise = isinstance(claim, RisesEarly | RisesAt | RisesSuddenly)
    change = "rise" if is_rise else "fall"
    match claim:
        case FallsEarly() | RisesEarly():
            return (
                f"{claim.metric}: {claim.share} of its {change} within the first {claim.within} of"
                " the steps"
            )
        case FallsAt() | RisesAt():
            return f"{claim.metric} {change}s faster after {claim.at} of the steps than before"
        case FallsSuddenly() | RisesSuddenly():
            value, against = map(run_axes.axis_text, (claim.value, claim.against))
            return (
                f"more tasks {change} by over {claim.times:g} times the usual under {value} than"
                f" under {against}"
            )


def _describe_metrics(claim: IsEarlier | IsSteadier | IsHigher) -> str:
    """A claim that compares metrics, in one line."""
    compared = ", ".join(claim.than)
    match claim:
        case IsEarlier():
            margin = f" by {claim.by:g}" if claim.by else ""
            return (
                f"{claim.metric} is earlier than {compared}{margin}, in the first {claim.within} of"
                " the steps"
            )
        case IsSteadier():
            margin = f", {claim.times:g} times" if claim.times > 1 else ""
            return f"{claim.metric} is steadier than {compared}{margin}"
        case IsHigher():
            margin = f" by {claim.by:g}" if claim.by else ""
            return f"{_OF[claim.of]} of {claim.metric} is higher than of {compared}{margin}"


def _rows(judged: JudgedClaim, is_of_one: bool) -> list[list[Any]]:
    """A row for each effect; one without sizes where there is none. `is_of_one`: the
    intervals of all rows are of one level, which the heading says."""
    verdict, group = judged.verdict, describe_group(judged)
    rests = [
        number_cell(verdict.tasks, 6),
        number_cell(verdict.counted, 3),
        number_cell(verdict.splits, 6),
        number_cell(verdict.runs, 6),
    ]
    sizes = [
        [
            effect.name,
            number_cell(effect.found.value),
            _add_level(interval_cell(effect.found.interval), effect, is_of_one),
            _over(verdict, effect.found),
            interval_cell(effect.found.on_these),
            _percent(effect.chance[0] if effect.chance else None),
        ]
        for effect in verdict.effects
    ]
    nothing = [
        "",
        number_cell(None),
        interval_cell(None),
        "",
        interval_cell(None),
        _percent(None),
    ]
    return [
        [describe_claim(judged.claim), group, verdict.word, *size, *rests]
        for size in sizes or [nothing]
    ]


def _add_level(cell: NumberCell, effect: ClaimEffect, is_of_one: bool) -> NumberCell:
    """The cell of an interval, with its level where the heading does not have it."""
    if is_of_one:
        return cell
    return replace(cell, text=f"{cell.text} ({_name_level(effect.confidence)})")


def _percent(share: float | None) -> NumberCell:
    """A share as a cell, in per cent; a dash where it is not known."""
    return NumberCell(share, "–" if share is None else f"{share:.1%}")
