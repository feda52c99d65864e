"""Draws similarity to the test set by position in an order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.reporting.figures import line_charts
from launcher.workspace import extras

WINDOW = 160  # examples averaged together: ten steps of 16, as in the paper's figures
COLOURS = ("#0b6fb8", "#d1600d", "#2f8f5b", "#8a4fa3", "#7a7a7a")

Curves = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw_similarity(curves: Mapping[str, Curves], path: Path) -> None:
    """A PNG with two panels: cosine to the nearest test item, and on average, as means
    of windows of the order."""
    extras.require_extra("a picture", "report", only=("matplotlib",))
    with line_charts.open_pyplot({}) as pyplot:
        _draw(pyplot, curves, path)


def _draw(pyplot: Any, curves: Mapping[str, Curves], path: Path) -> None:
    """Two panels, a curve for each arrangement: how near its examples are to the test
    set along the order, to the nearest item and to all."""
    figure, panels = pyplot.subplots(
        1, 2, figsize=(11, 4.2), sharex=True, layout="constrained"
    )
    for panel, kind, title in zip(
        panels,
        (0, 1),
        ("to the nearest test example", "to all test examples, mean"),
        strict=True,
    ):
        for number, (name, both) in enumerate(curves.items()):
            middles, means = average_windows(both[kind])
            panel.plot(
                middles,
                means,
                label=line_charts.legend_name(name),
                color=COLOURS[number % len(COLOURS)],
                linewidth=1.6,
            )
        panel.set_title(f"cosine {title}", fontsize=11)
        panel.set_xlabel("position in the order (examples)")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"mean of {_size(curves)} examples")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    figure.savefig(path, dpi=130, format="png")
    pyplot.close(figure)


def average_windows(values: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """The middle and the mean of each window; a short order has windows of a twentieth."""
    size = _window(len(values))
    starts = range(0, len(values), size)
    return [s + len(values[s : s + size]) / 2 for s in starts], [
        float(values[s : s + size].mean()) for s in starts
    ]


def _window(count: int) -> int:
    return max(1, min(WINDOW, count // 20))


def _size(curves: Mapping[str, Curves]) -> str:
    return "/".join(
        str(size)
        for size in sorted({_window(len(nearest)) for nearest, _ in curves.values()})
    )
