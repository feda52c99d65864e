"""Draws curves with matplotlib: a panel as SVG that takes its colours from the page,
all panels as PNG and PDF.

The page says what `--z0`, `--z1`, … are, in light and in dark, so that one drawing
serves both. Values show when the mouse rests on a point: each is an invisible circle
with a title, which needs no script and no library.
"""

import contextlib
import html
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zsg_core.shown_text import make_showable

# Each pair, on white and on near black, is told from its neighbours by lightness too;
# marks tell them apart in grey.
PALETTE = (
    ("#0b6fb8", "#62b4f2"),
    ("#c4500c", "#ff9f5f"),
    ("#1f7f4c", "#6ed39a"),
    ("#8a4fa3", "#cfa3e8"),
    ("#8a6a00", "#dfc04e"),
    ("#0f7c85", "#5ccfd8"),
    ("#b8326f", "#ff92c2"),
    ("#5f5f5f", "#b8b8b8"),
)
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
# numbers of the page's colours; those of curves begin at FIRST
INK, GRID, FIRST = 0, 1, 2
# stand for the page's, see `element`
OF_THE_PAGE = [f"#0f0f{place:02x}" for place in range(FIRST + len(PALETTE))]
ON_PAPER = ["#1a1a1a", "#d0d0d0", *(light for light, _ in PALETTE)]
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
# points of a line, and lines of a panel; more would be strings of beads
MOST_MARKED, MOST_LINES = 45, 24
# curves, and characters of a name, that are written beside their ends
MOST_DIRECT, LONGEST_DIRECT = 6, 14
MOST_HOVERED = 4000  # points of a page
SIZE, SMALL = (5.4, 3.5), (4.2, 2.8)  # inches


@dataclass(frozen=True)
class Line:
    """A curve; `low` and `high` bound its band. One that is `apart` is drawn thin,
    beside the others.

    Its label is made showable, as what the titles of a panel are.
    """

    label: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    runs: int = 1
    apart: bool = False
    style: int = 0  # of the line, beside its colour
    # where on the horizontal axis each stage but the first begins
    begins: Sequence[float] = ()

    @property
    def mark(self) -> str:
        """The shape of its points, by the number of its colour."""
        return MARKS[self.colour % len(MARKS)]

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", make_showable(self.label, keep=""))


@dataclass(frozen=True)
class Panel:
    """Curves on common axes; `limits` of the vertical axis where panels share it."""

    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str
    limits: tuple[float, float] | None = None
    marked: tuple[float, float] | None = None  # a part of the horizontal axis

    def __post_init__(self) -> None:
        for name in ("title", "x_label", "y_label"):
            object.__setattr__(self, name, make_showable(getattr(self, name), keep=""))


def cut_panel(panel: Panel, start: float) -> Panel:
    """The part of a panel from `start` on, on its own scale."""
    return Panel(
        f"{panel.title}, from {start:g} on".lstrip(", "),
        [_part(line, start) for line in panel.lines if line.x and line.x[-1] > start],
        panel.x_label,
        panel.y_label,
    )


def _part(line: Line, start: float) -> Line:
    """The line from `start` on, with its bounds where it has any. At least one of its
    points has to lie there."""
    first = next(number for number, x in enumerate(line.x) if x >= start)
    low, high = (
        bound[first:] if bound is not None else None for bound in (line.low, line.high)
    )
    begins = [x for x in line.begins if x >= start]
    return replace(
        line, x=line.x[first:], y=line.y[first:], low=low, high=high, begins=begins
    )


def draw_svg(panel: Panel, number: int, hover: bool, small: bool = False) -> str:
    """A panel as an SVG element. `number`: which of the page's it is, as their ids must differ."""
    with open_pyplot(
        {"svg.fonttype": "none", "svg.hashsalt": f"panel {number}"}
    ) as pyplot:
        figure, axes = pyplot.subplots(
            figsize=SMALL if small else SIZE, layout="constrained"
        )
        _draw(axes, panel, OF_THE_PAGE, direct=True)
        axes.set_title("")  # the page has it as text that wraps
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        points = list(_points(figure, axes, panel)) if hover else []
        pyplot.close(figure)
    return make_svg_element(
        buffer.getvalue(), f"{panel.y_label} by {panel.x_label}: {panel.title}", points
    )


def make_svg_element(drawn: str, description: str, points: Iterable[str] = ()) -> str:
    """An SVG of matplotlib's, drawn in colours OF_THE_PAGE, as an element of the page;
    `description`: for who cannot see it."""
    label = html.escape(make_showable(description, keep=""), quote=True)
    opening = f'role="img" aria-label="{label}">'
    drawn = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>",
        "",
        drawn.partition("<svg")[2],
        flags=re.S,
    )
    drawn = re.sub(
        r"(fill|stroke): #0f0f([0-9a-f]{2})",
        lambda m: f"{m[1]}: var(--z{int(m[2], 16)})",
        drawn,
    )
    drawn = re.sub(
        r'^[^>]*?(viewBox="[^"]*")[^>]*>',
        lambda match: (
            f'xmlns:xlink="http://www.w3.org/1999/xlink" {match[1]} {opening}'
        ),
        drawn,
        count=1,
        flags=re.S,
    )
    return f"<svg {drawn.rpartition('</svg>')[0]}{''.join(points)}</svg>"


def draw_picture(
    panels: Sequence[Panel], paths: Sequence[Path], title: str, *, apart: bool = False
) -> None:
    """All panels in one figure, light, for papers; the format is that of each path's ending.

    `apart`: names mean something else in each panel, so each has a legend of its own.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with open_pyplot({"pdf.fonttype": 42}) as pyplot:
        figure, grid = pyplot.subplots(
            rows,
            columns,
            figsize=(SIZE[0] * columns, SIZE[1] * rows + 0.6),
            layout="constrained",
            squeeze=False,
        )
        all_axes = list(grid.flat)
        for axes, panel in zip(all_axes, panels, strict=False):
            _draw(axes, panel, ON_PAPER, direct=False)
            if apart:
                _draw_own_legend(axes, panel)
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        if not apart:
            _draw_common_legend(figure, all_axes, panels, columns)
        figure.suptitle(make_showable(title, keep=""), fontsize=10)
        for path in paths:
            figure.savefig(
                path,
                dpi=160,
                metadata={"CreationDate": None} if path.suffix == ".pdf" else None,
            )
        pyplot.close(figure)


def _draw_own_legend(axes: Any, panel: Panel) -> None:
    """The names of a panel's curves, where there are several."""
    handles = [
        (drawn, legend_name(line.label)) for line, drawn in _handles([axes], [panel])
    ]
    if len(handles) > 1:
        axes.legend(*zip(*handles, strict=True), frameon=False, fontsize=9)


def _draw_common_legend(
    figure: Any, all_axes: Sequence[Any], panels: Sequence[Panel], columns: int
) -> None:
    """The names of all curves below the figure, in as many columns as there is room for."""
    named = {
        legend_name(line.label): drawn for line, drawn in _handles(all_axes, panels)
    }
    if len(named) < 2:
        return
    longest = max(map(len, named))
    with_room = int(14 * SIZE[0] * columns / (longest + 6))
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        frameon=False,
        ncols=max(1, min(len(named), 6, with_room)),
    )


def legend_name(text: str) -> str:
    """A text as a legend shows it; matplotlib leaves out names that begin with an underscore."""
    return re.sub("^_", " _", make_showable(text, keep=""))


def _handles(
    all_axes: Sequence[Any], panels: Sequence[Panel]
) -> Iterator[tuple[Line, Any]]:
    """The lines of panels with what matplotlib has drawn of each, for a legend; those
    that are apart have no name there."""
    for axes, panel in zip(all_axes, panels, strict=False):
        drawn = [
            line for line in axes.get_lines() if not line.get_label().startswith("_")
        ]
        yield from zip(
            [line for line in panel.lines if not line.apart], drawn, strict=True
        )


@contextlib.contextmanager
def open_pyplot(settings: dict[str, Any]) -> Iterator[Any]:
    """pyplot without a screen, under settings that end with the drawing; a `$` in a
    name is a dollar."""
    import matplotlib
    from matplotlib.backends.backend_agg import (
        FigureCanvasAgg,  # noqa: F401
    )

    matplotlib.use("Agg")
    from matplotlib import pyplot

    used: Any = {"text.parse_math": False, "font.size": 10, "axes.unicode_minus": False}
    with matplotlib.rc_context(used | settings), warnings.catch_warnings():
        # names of grids may be in any script
        warnings.filterwarnings("ignore", message="Glyph")
        yield pyplot


def _draw(axes: Any, panel: Panel, colours: Sequence[str], direct: bool) -> None:
    """Draws a panel's lines, the steps that are marked and its labels; with `direct`
    the names of lines stand at their ends."""
    is_crowded = len(panel.lines) > MOST_LINES
    for line in panel.lines:
        _draw_line(axes, line, colours[FIRST + line.colour % len(PALETTE)], is_crowded)
    _draw_begins(axes, panel, colours)
    if panel.marked:
        axes.axvspan(*panel.marked, color=colours[GRID], alpha=0.6, linewidth=0)
    if panel.limits:
        axes.set_ylim(*panel.limits)
    axes.set_title(panel.title, fontsize=10, color=colours[INK])
    axes.set_xlabel(panel.x_label, color=colours[INK])
    axes.set_ylabel(panel.y_label, color=colours[INK])
    axes.tick_params(colors=colours[INK], labelsize=9)
    axes.grid(color=colours[GRID], linewidth=0.7, alpha=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(colours[INK])
    axes.margins(x=0.02)
    if direct:
        _name_ends(axes, panel, colours)


def _draw_line(axes: Any, line: Line, colour: str, is_crowded: bool) -> None:
    """A curve with its band; one that is `apart` is thin and dashed."""
    if line.low is not None and line.high is not None:
        axes.fill_between(
            line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0
        )
    look: dict[str, Any] = {
        "label": "curve",
        "linewidth": 1.7,
        "linestyle": DASHES[line_style(line.colour, line.style)],
        "alpha": 1,
    }
    if line.apart:
        look = {"label": "_", "linewidth": 0.9, "linestyle": (0, (4, 2)), "alpha": 0.8}
    mark = _point_mark(line, is_crowded)
    axes.plot(line.x, line.y, color=colour, marker=mark, markersize=3.4, **look)


def _point_mark(line: Line, is_crowded: bool) -> str:
    """The mark at each point of a curve; none where there are too many, a dot for a
    single point."""
    if not (line.apart or is_crowded or len(line.x) > MOST_MARKED):
        return line.mark
    return "" if len(line.x) > 1 else "."


def _draw_begins(axes: Any, panel: Panel, colours: Sequence[str]) -> None:
    """Where stages begin: a dotted line where all curves agree, else a bar across each curve."""
    lines = [line for line in panel.lines if not line.apart]
    if len({tuple(line.begins) for line in lines}) == 1:
        for x in lines[0].begins:
            axes.axvline(x, color=colours[INK], linewidth=0.9, linestyle=":")
        return
    for line in lines:
        points = [
            (x, y) for x, y in zip(line.x, line.y, strict=True) if x in line.begins
        ]
        colour = colours[FIRST + line.colour % len(PALETTE)]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                "|",
                color=colour,
                markersize=14,
                markeredgewidth=2,
            )


def line_style(colour: int, style: int = 0) -> int:
    """Which of the dashes a line has; where there are more curves than colours, these
    tell them apart too."""
    return (colour // len(PALETTE) + style) % len(DASHES)


def _name_ends(axes: Any, panel: Panel, colours: Sequence[str]) -> None:
    """Writes the names of few curves beside their last points, moved apart where they
    would overlap."""
    ends = [
        line
        for line in panel.lines
        if not line.apart and line.x and line.y[-1] == line.y[-1]
    ]
    if (
        not 1 < len(ends) <= MOST_DIRECT
        or max(len(line.label) for line in ends) > LONGEST_DIRECT
    ):
        return
    bottom, top = axes.get_ylim()
    gap, right = (top - bottom) / 15, axes.get_xlim()[1]
    at = -float("inf")
    for line in sorted(ends, key=lambda end: end.y[-1]):
        at = max(at + gap, line.y[-1])
        axes.text(
            right,
            at,
            f" {line.label}",
            color=colours[FIRST + line.colour % len(PALETTE)],
            va="center",
            fontsize=9.5,
            clip_on=False,
        )


def _points(figure: Any, axes: Any, panel: Panel) -> Iterator[str]:
    """A circle with a title at each point, in the coordinates of the SVG: 72 to the
    inch, from the top."""
    height = figure.get_figheight() * 72
    scale = 72 / figure.dpi
    bottom, top = axes.get_ylim()
    for line in panel.lines:
        for number, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
            if not bottom <= y <= top:  # nor what is not a number
                continue
            across, up = axes.transData.transform((x, y)) * scale
            x_name = panel.x_label.partition(" ")[0]
            label = f"{line.label}: {y:.4g} at {x_name} {x:g}"
            label += _describe_bounds(line, number)
            yield (
                f'<circle cx="{across:.1f}" cy="{height - up:.1f}"'
                f' r="5"><title>{html.escape(label)}</title></circle>'
            )


def _describe_bounds(line: Line, number: int) -> str:
    """Between which bounds the runs behind a point lie, and how many they are; "" for a
    line that has no band."""
    if line.low is None or line.high is None:
        return ""
    low = line.low[number]
    high = line.high[number]
    return f" ({low:.4g} to {high:.4g}, {line.runs} runs)"
