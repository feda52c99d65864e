"""Draws what stands where in an order: similarity to the set that it looks at, or any
score."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.reporting.figures import line_charts
from launcher.workspace import extras

WINDOW = 160  # examples averaged together: ten steps of 16, as in the paper's figures
COLOURS = ("#0b6fb8", "#d1600d", "#2f8f5b", "#8a4fa3", "#7a7a7a")

Values = NDArray[np.float64]
# to the nearest test item, to all on average
Similarity = tuple[Values, Values]


def draw_similarity(
    curves: Mapping[str, Similarity], path: Path, looked_at: str = "test"
) -> None:
    """A PNG with two panels: cosine to the nearest test item, and on average, as means
    of windows of the order. `looked_at`: the set of those items, in a word."""
    nearest = {name: both[0] for name, both in curves.items()}
    average = {name: both[1] for name, both in curves.items()}
    _draw_panels(
        {
            f"cosine to the nearest {looked_at} example": nearest,
            f"cosine to all {looked_at} examples, mean": average,
        },
        path,
    )


def draw_scores(curves: Mapping[str, Values], title: str, path: Path) -> None:
    """A PNG with one panel: a score of each example, as means of windows of the order.
    Examples without a score, which are NaN, are left out of their window's mean."""
    _draw_panels({title: curves}, path)


def _draw_panels(panels: Mapping[str, Mapping[str, Values]], path: Path) -> None:
    """A panel for each title, with a curve for each order."""
    extras.require_extra("a picture", "report", only=("matplotlib",))
    with line_charts.open_pyplot({}) as pyplot:
        figure, axes = pyplot.subplots(
            1,
            len(panels),
            figsize=(0.5 + 5.25 * len(panels), 4.2),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
            _draw_panel(axis, title, curves)
        axes[0][0].set_ylabel(f"mean of {_describe_windows(panels.values())} examples")
        figure.legend(
            *axes[0][0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=len(panels),
            frameon=False,
        )
        figure.savefig(path, dpi=130, format="png")
        pyplot.close(figure)


def _draw_panel(axis: Any, title: str, curves: Mapping[str, Values]) -> None:
    """A curve for each order, its value against the position in the order."""
    for number, (name, values) in enumerate(curves.items()):
        middles, means = average_windows(values)
        axis.plot(
            middles,
            means,
            label=line_charts.legend_name(name),
            color=COLOURS[number % len(COLOURS)],
            linewidth=1.6,
        )
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("position in the order (examples)")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def average_windows(values: Values) -> tuple[list[float], list[float]]:
    """The middle and the mean of each window; a short order has windows of a twentieth.
    The mean is of the values that are not NaN; NaN where a window has none."""
    size = _choose_window(len(values))
    middles: list[float] = []
    means: list[float] = []
    for start in range(0, len(values), size):
        window = values[start : start + size]
        known = window[~np.isnan(window)]
        middles.append(start + len(window) / 2)
        means.append(float(known.mean()) if len(known) else float("nan"))
    return middles, means


def _choose_window(count: int) -> int:
    """Over how many examples a line is averaged: a twentieth of all, and at most WINDOW."""
    return max(1, min(WINDOW, count // 20))


def _describe_windows(panels: Iterable[Mapping[str, Values]]) -> str:
    """How many examples a point stands for, `160`, or `12/160` of orders of several
    lengths."""
    sizes = {
        _choose_window(len(values)) for curves in panels for values in curves.values()
    }
    return "/".join(str(size) for size in sorted(sizes))
