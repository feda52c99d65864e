"""Lays published tables beside the values that verdicts are of."""

from collections.abc import Sequence

from jobs.deciding.judged_claims import JudgedClaim
from launcher.grids import published
from launcher.grids.published import PublishedTable
from launcher.reporting.html import page as report_page
from launcher.reporting.html.page import NumberCell, number_cell

BESIDE = (
    "As printed, of other models, data and test items: shapes compare, values do not. What the"
    " runs of this grid have stands below each table."
)


def make_published_section(
    decided: Sequence[JudgedClaim], described: Sequence[str]
) -> list[str]:
    """The tables that claims name, as HTML, each with what the grid's runs have;
    `described`: each claim in a line. Nothing where no claim names one."""
    tables = published.list_tables()
    pieces: list[str] = []
    for name in dict.fromkeys(judged.claim.published for judged in decided):
        if name is None or name not in tables:
            continue
        values = [
            _describe_values(judged, text)
            for judged, text in zip(decided, described, strict=True)
            if judged.claim.published == name and judged.verdict.levels
        ]
        pieces += _render_table(name, published.read_table(name), values)
    if not pieces:
        return []
    return [
        report_page.render_heading("Published tables"),
        report_page.render_paragraph(BESIDE, "faint"),
        *pieces,
    ]


def _render_table(name: str, table: PublishedTable, values: Sequence[str]) -> list[str]:
    """A table with its source, what the runs have, and what was not found of its paper."""
    rows = [[_make_cell(text) for text in row] for row in table.rows]
    pieces = [
        report_page.render_paragraph(f"{name}: {table.source}"),
        report_page.render_table(table.headings, rows),
    ]
    for line in dict.fromkeys(values):
        pieces.append(report_page.render_paragraph(f"Here: {line}"))
    for line in published.list_not_found(table.source):
        pieces.append(report_page.render_paragraph(f"Not found of {line}.", "faint"))
    return pieces


def _make_cell(text: str) -> NumberCell | str:
    """A cell that sorts by its number, where it is one."""
    try:
        return NumberCell(float(text), text)
    except ValueError:
        return text or NumberCell(None, "–")


def _describe_values(judged: JudgedClaim, claim: str) -> str:
    """The value at each place that a claim compares, in one line."""
    levels = judged.verdict.levels.items()
    values = "; ".join(f"{level} {number_cell(value).text}" for level, value in levels)
    return f"{claim}: {values}"
