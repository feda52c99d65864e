"""Writes a report as one HTML page that needs nothing else: no network, no library, light and dark.

What the elements look like is in elements.html.j2, page.html.j2, report.css and
report.js beside this module. Every text that comes from a grid or a run is escaped and
made showable by the templates, and the page forbids every script but its own, by digest.
"""

import base64
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.reporting.figures.line_charts import FIRST, MARKS, PALETTE, line_style
from zsg_core.shown_text import make_showable
from zsg_core.stats.curves import Interval

if TYPE_CHECKING:
    import jinja2

    from jobs.training.learnt_texts import Piece

FOLDER = Path(__file__).resolve().parent
MOST_NAMED = 24  # curves in a legend that is not folded
MOST_DECIMALS = 6
LARGEST_PLAIN = 1e6  # larger numbers are written with an exponent
# rows of a table that is one card a row where there is no room for it as a table, and
# the columns from which on it is so below 1,100 pixels; else below 640
MOST_CARDS, WIDE = 200, 7
DASHES = ("", "8 3", "3 2", "9 3 3 3")  # as in the figures
SHAPES = {
    "o": '<circle cx="14" cy="6" r="3"/>',
    "s": '<rect x="11.2" y="3.2" width="5.6" height="5.6"/>',
    "^": '<path d="M14 2l4 7h-8z"/>',
    "D": '<path d="M14 2l4 4-4 4-4-4z"/>',
    "v": '<path d="M14 10l4-7h-8z"/>',
    "P": '<path d="M12.5 2h3v2.5H18v3h-2.5V10h-3V7.5H10v-3h2.5z"/>',
    "X": '<path d="M11 1.5l3 3 3-3 1.5 1.5-3 3 3 3-1.5 1.5-3-3-3 3-1.5-1.5 3-3-3-3z"/>',
    "*": '<path d="M14 1l1.3 3.5 3.7.1-2.9 2.3 1 3.6-3.1-2-3.1 2 1-3.6L9 4.6l3.7-.1z"/>',
}


@dataclass(frozen=True)
class NumberCell:
    """A cell that sorts by a number."""

    value: float | None
    text: str
    interval_cell: Interval | None = None

    @property
    def sort_key(self) -> str:
        """The number as the page's script reads it; empty where there is none."""
        if self.value is None or math.isnan(self.value):
            return ""
        return repr(float(self.value))


@dataclass(frozen=True)
class LegendKey:
    """What a legend shows before a label: a piece of a line, a mark, or one on the other.

    `paint`: a colour of CSS. `dashes`: those of the line; None where there is no line.
    `shape`: the mark as SVG.
    """

    label: str
    paint: str
    dashes: str | None = None
    shape: str = ""


def number_cell(value: float | None, digits: int = 4) -> NumberCell:
    """A number of so many digits; a dash where there is none."""
    is_number = value is not None and not math.isnan(value)
    return NumberCell(value, f"{value:.{digits}g}" if is_number else "–")


def estimate_cell(
    value: float | None, intervals: Iterable[Interval | None]
) -> NumberCell:
    """A number with no more decimals than the narrowest of its intervals bears out."""
    decimals = [count_decimals(bounds) for bounds in intervals if bounds]
    known = [count for count in decimals if count is not None]
    if value is None or not known:
        return number_cell(value)
    return NumberCell(value, _with_decimals(value, max(known)))


def interval_cell(bounds: Interval | None) -> NumberCell:
    """An interval, which sorts by its width; a dash where there is none."""
    if bounds is None:
        return NumberCell(None, "–")
    low, high = bounds
    decimals = count_decimals(bounds)
    if decimals is None:
        return NumberCell(high - low, f"{low:.4g} to {high:.4g}")
    ends = [_with_decimals(end, decimals) for end in bounds]
    return NumberCell(high - low, " to ".join(ends))


def count_decimals(bounds: Interval) -> int | None:
    """How many decimals tell two digits of half an interval's width; None where it has
    no width, or is none."""
    half = (bounds[1] - bounds[0]) / 2
    if not half > 0 or not math.isfinite(half):
        return None
    return min(max(1 - math.floor(math.log10(half)), 0), MOST_DECIMALS)


def _with_decimals(value: float, decimals: int) -> str:
    """A number with so many decimals; a large or a tiny one by its first digits."""
    if abs(value) >= LARGEST_PLAIN or 0 < abs(value) < 10.0**-decimals:
        return f"{value:.4g}"
    return f"{value:.{decimals}f}"


def render_page(title: str, sections: Iterable[str]) -> str:
    """The whole page; the sections are HTML that functions of this module have made."""
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    whole = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            script=script,
            script_digest=base64.b64encode(digest).decode(),
            style=(FOLDER / "report.css").read_text(encoding="utf-8"),
            palette=PALETTE,
            first=FIRST,
            sections=list(sections),
        )
    )
    # its texts are so by now; here none is forgotten
    return make_showable(whole)


def render_title(value: str) -> str:
    """The page's heading."""
    return _render("title", value)


def render_paragraph(value: str, css: str = "") -> str:
    """A paragraph."""
    return _render("paragraph", value, css)


def render_heading(value: str) -> str:
    """A section's heading."""
    return _render("heading", value)


def render_subheading(value: str) -> str:
    """The heading of a part of a section."""
    return _render("subheading", value)


def render_charts(drawn: Iterable[tuple[str, str]]) -> str:
    """Small charts in as many columns as there is room for: title and SVG of each."""
    return _render("charts", list(drawn))


def drawing_cell(svg: str) -> object:
    """A cell of a table that shows a small chart, which this package has drawn."""
    import markupsafe  # comes with jinja2

    return markupsafe.Markup(svg)


def render_warning(title: str, lines: Sequence[str]) -> str:
    """What a reader must know first."""
    return _render("warning", title, lines)


def render_legend(title: str, labels: Mapping[str, int]) -> str:
    """Which curve is whose: a piece of its line with its mark. Above the panels, so
    that it covers nothing."""
    keys = [
        LegendKey(
            label,
            f"var(--z{FIRST + colour % len(PALETTE)})",
            DASHES[line_style(colour)],
            SHAPES[MARKS[colour % len(MARKS)]],
        )
        for label, colour in labels.items()
    ]
    return _legend(title, keys)


def render_style_legend(title: str, styles: Mapping[str, int]) -> str:
    """Which style of line is whose."""
    keys = [
        LegendKey(label, "var(--z0)", DASHES[line_style(0, style)])
        for label, style in styles.items()
    ]
    return _legend(title, keys)


def render_mark_legend(title: str, marks: Mapping[str, tuple[int, str]]) -> str:
    """Which mark is whose: the number of its colour, and its shape."""
    keys = [
        LegendKey(label, f"var(--z{FIRST + colour})", shape=SHAPES[mark])
        for label, (colour, mark) in marks.items()
    ]
    return _legend(title, keys)


def _legend(title: str, keys: Sequence[LegendKey]) -> str:
    """A legend, folded where it has many names."""
    drawn = _render("legend", title, keys)
    if len(keys) <= MOST_NAMED:
        return drawn
    return render_folded(f"The names of {len(keys)} curves", drawn)


def render_panels(drawn: Iterable[tuple[str, str]], small: bool = False) -> str:
    """Figures side by side, one below the other where it is narrow: title and SVG of each."""
    return _render("panels", list(drawn), small)


def render_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table that is sorted by a click on a heading."""
    all_rows = [list(row) for row in rows]
    named: list[tuple[str, bool]] = []
    for column, heading in enumerate(headings):
        cells_below = [row[column] for row in all_rows]
        is_numeric = bool(cells_below) and all(map(_is_number, cells_below))
        named.append((heading, is_numeric))
    css = ""
    if len(all_rows) <= MOST_CARDS:
        css = "cards"
        if len(headings) > WIDE:
            css = "cards wide"
    cells: list[list[tuple[object, str | None]]] = []
    for row in all_rows:
        cells.append(list(map(_text_and_key, row)))
    return _render("table", named, cells, css)


def _is_number(cell: object) -> bool:
    """Whether a cell sorts by a number."""
    return isinstance(cell, NumberCell)


def _text_and_key(cell: object) -> tuple[object, str | None]:
    """What a cell shows, and what it sorts by if that is a number."""
    if isinstance(cell, NumberCell):
        return cell.text, cell.sort_key
    return cell, None


def render_facts(pairs: Mapping[str, str]) -> str:
    """Names and values, one beside the other."""
    return _render("facts", list(pairs.items()))


def render_learnt(pieces: "Sequence[Piece]") -> str:
    """The text of an example, its targets marked."""
    return _render("learnt", pieces)


def render_folded(summary: str, inside: str) -> str:
    """What is shown when asked for; `inside` is HTML."""
    return _render("folded", summary, inside)


def _render(element: str, *values: object) -> str:
    """An element as HTML; jinja2 marks it so that another template takes it as it is."""
    elements = _environment().get_template("elements.html.j2").module
    return getattr(elements, element)(*values)


@functools.cache
def _environment() -> "jinja2.Environment":
    """Templates that escape every text and make it showable; nothing may be undefined."""
    import jinja2  # the extra `report` brings it

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        finalize=_make_text_showable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _make_text_showable(value: object) -> object:
    """A value of a template, before it is escaped; what is HTML already stays."""
    if hasattr(value, "__html__"):
        return value
    return make_showable(str(value).replace("\t", " "))
