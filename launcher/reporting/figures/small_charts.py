"""Draws small charts as SVG by hand: for pages that have hundreds of them, where each
may take a kilobyte and no time.

Colours are the page's, as those of line_charts; values that are no numbers are gaps.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.reporting.figures.line_charts import FIRST, PALETTE, line_style
from zsg_core.shown_text import make_showable

DASHES = ("", "5 2", "2 2", "6 2 2 2")  # as in the figures, in pixels
MOST_POINTS = 60  # of a line: a chart is not wider
WIDTH, HEIGHT = 260.0, 130.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 6.0, 8.0, 16.0  # around the curves of a chart
SPARK_WIDTH, SPARK_HEIGHT, SPARK_EDGE = 120.0, 30.0, 2.0


@dataclass(frozen=True)
class SmallLine:
    """A curve of a small chart; `low` and `high` bound its band, where it has one."""

    label: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    style: int = 0


@dataclass(frozen=True)
class _Frame:
    """Where values stand on a chart: the least and the largest of both axes, and the
    pixels between which they lie."""

    x: tuple[float, float]
    y: tuple[float, float]
    across: tuple[float, float]
    down: tuple[float, float]

    def to_pixels(self, x: float, y: float) -> str:
        """The pixels of a point."""
        return (
            f"{_scale(x, self.x, self.across):.1f} {_scale(y, self.y, self.down):.1f}"
        )


def _scale(
    value: float, values: tuple[float, float], pixels: tuple[float, float]
) -> float:
    """A value between two values as a pixel between two; the middle where these are one."""
    span = values[1] - values[0]
    share = (value - values[0]) / span if span > 0 else 0.5
    return pixels[0] + share * (pixels[1] - pixels[0])


def draw_chart(lines: Sequence[SmallLine], description: str) -> str:
    """A chart with the ends of its axes in figures; `description`: for who cannot see it."""
    frame = _make_frame(lines, (LEFT, WIDTH - RIGHT), (HEIGHT - BOTTOM, TOP))
    pieces: list[str] = []
    if frame is not None:
        pieces += _draw_axes(frame)
        pieces += _draw_lines(lines, frame)
    label = html.escape(make_showable(description, keep=""), quote=True)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img"'
        f' aria-label="{label}">{"".join(pieces)}</svg>'
    )


def draw_spark(lines: Sequence[SmallLine]) -> str:
    """Bare curves, small enough for a cell of a table, whose other cells say it in
    figures."""
    across = (SPARK_EDGE, SPARK_WIDTH - SPARK_EDGE)
    down = (SPARK_HEIGHT - SPARK_EDGE, SPARK_EDGE)
    frame = _make_frame(lines, across, down)
    paths: list[str] = []
    if frame is not None:
        for line in lines:
            paint = _choose_paint(line)
            paths.append(f'<path d="{_trace(line, frame)}" {paint}/>')
    inside = "".join(paths)
    size = f"{SPARK_WIDTH:g} {SPARK_HEIGHT:g}"
    return f'<svg class="spark" viewBox="0 0 {size}" aria-hidden="true">{inside}</svg>'


def _make_frame(
    lines: Sequence[SmallLine],
    across: tuple[float, float],
    down: tuple[float, float],
) -> _Frame | None:
    """Where the values of all lines stand; None where there is none."""
    x_values: list[float] = []
    y_values: list[float] = []
    for line in lines:
        for values in (line.y, line.low, line.high):
            y_values += filter(math.isfinite, values or ())
        x_values += filter(math.isfinite, line.x)
    if not x_values or not y_values:
        return None
    x_ends = min(x_values), max(x_values)
    y_ends = min(y_values), max(y_values)
    return _Frame(x_ends, y_ends, across, down)


def _draw_axes(frame: _Frame) -> Iterable[str]:
    """Two lines, and the values at their ends."""
    start, right = frame.across
    bottom, top = frame.down
    yield f'<path class="axes" d="M{start:g} {top:g}V{bottom:g}H{right:g}"/>'
    low, high = frame.y
    if high > low:
        yield _write(start - 4, top + 4, f"{high:.4g}", "end")
        yield _write(start - 4, bottom, f"{low:.4g}", "end")
    else:
        yield _write(start - 4, (top + bottom) / 2 + 3, f"{high:.4g}", "end")
    first, last = frame.x
    below = HEIGHT - 3
    yield _write(start, below, f"{first:g}", "start")
    if last > first:
        yield _write(right, below, f"{last:g}", "end")


def _write(x: float, y: float, text: str, anchor: str) -> str:
    """A figure beside an axis. `anchor`: which end of the text stands at the point, as SVG
    has it."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'


def _draw_lines(lines: Sequence[SmallLine], frame: _Frame) -> Iterable[str]:
    """The curves in their order, each above its band, with its name and its ends as what
    shows where the mouse rests."""
    for line in lines:
        if line.low is not None and line.high is not None:
            yield _draw_band(line, frame)
        title = html.escape(make_showable(_describe_line(line), keep=""))
        path = _trace(line, frame)
        yield f'<path d="{path}" {_choose_paint(line)}><title>{title}</title></path>'


def _choose_paint(line: SmallLine) -> str:
    """The attributes of a curve that tell it from others."""
    stroke = f'stroke="{_name_colour(line)}"'
    dashes = DASHES[line_style(line.colour, line.style)]
    return f'{stroke} stroke-dasharray="{dashes}"' if dashes else stroke


def _name_colour(line: SmallLine) -> str:
    """The colour of a curve, as the page names it in light and in dark."""
    return f"var(--z{FIRST + line.colour % len(PALETTE)})"


def _trace(line: SmallLine, frame: _Frame) -> str:
    """A curve as a path, with gaps where values are no numbers; a dot of one value."""
    path = ""
    is_begun = False
    for number in _choose_places(len(line.x)):
        x, y = line.x[number], line.y[number]
        if not math.isfinite(y):
            is_begun = False
            continue
        path += ("L" if is_begun else "M") + frame.to_pixels(x, y)
        is_begun = True
    if path and "L" not in path:
        path += "h.1"
    return path


def _describe_line(line: SmallLine) -> str:
    """What a curve is, with its first and its last value."""
    if not line.y:
        return line.label
    return f"{line.label}: {line.y[0]:.4g} to {line.y[-1]:.4g}"


def _draw_band(line: SmallLine, frame: _Frame) -> str:
    """The area between the bounds of a line, where both are numbers."""
    low, high = line.low or (), line.high or ()
    whole = [
        number
        for number in _choose_places(len(line.x))
        if math.isfinite(low[number]) and math.isfinite(high[number])
    ]
    if len(whole) < 2:
        return ""
    above = [frame.to_pixels(line.x[number], high[number]) for number in whole]
    below = [frame.to_pixels(line.x[number], low[number]) for number in reversed(whole)]
    outline = "L".join([*above, *below])
    return f'<path class="band" d="M{outline}Z" fill="{_name_colour(line)}"/>'


def _choose_places(count: int) -> list[int]:
    """Which points of a line are drawn: all of few, evenly spread of many, the last
    always."""
    if count <= MOST_POINTS:
        return list(range(count))
    stride = (count - 1) / (MOST_POINTS - 1)
    return sorted({round(number * stride) for number in range(MOST_POINTS)})
