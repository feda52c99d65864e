"""Draws maps of hidden states: t-SNE and PCA side by side as one SVG, all maps as PNG and PDF."""

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.reporting.data.state_maps import Points, StateMap
from launcher.reporting.figures import line_charts
from launcher.reporting.figures.line_charts import (
    FIRST,
    GRID,
    INK,
    MARKS,
    OF_THE_PAGE,
    ON_PAPER,
    PALETTE,
)
from zsg_core.shown_text import make_showable

SIZE = (7.6, 3.7)  # inches, of a map's two panels
DOT = 16  # square points


def choose_mark(number: int) -> tuple[int, str]:
    """The colour and the mark of a group; where there are more groups than colours,
    both together tell them apart."""
    return number % len(PALETTE), MARKS[(number + number // len(PALETTE)) % len(MARKS)]


def draw_svg(
    state_map: StateMap, groups: Mapping[str, int], number: int, hover: bool
) -> str:
    """A map as an SVG element. `groups` are numbered; `number`: which of the page's maps it is."""
    with line_charts.open_pyplot(
        {"svg.fonttype": "none", "svg.hashsalt": f"map {number}"}
    ) as pyplot:
        figure, axes_pair = pyplot.subplots(1, 2, figsize=SIZE, layout="constrained")
        _draw(axes_pair, state_map, groups, OF_THE_PAGE)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        points = list(_points(figure, axes_pair, state_map)) if hover else []
        pyplot.close(figure)
    return line_charts.make_svg_element(
        buffer.getvalue(), f"t-SNE and PCA of hidden states: {state_map.label}", points
    )


def draw_picture(
    maps: Sequence[tuple[str, StateMap]],
    groups: Mapping[str, int],
    paths: Sequence[Path],
) -> None:
    """All maps with their titles, one below the other, light, for papers; the format is
    that of each path's ending."""
    with line_charts.open_pyplot({"pdf.fonttype": 42}) as pyplot:
        whole = pyplot.figure(
            figsize=(SIZE[0], (SIZE[1] + 0.2) * len(maps) + 0.4), layout="constrained"
        )
        handles: dict[str, Any] = {}
        for subfigure, (title, state_map) in zip(
            whole.subfigures(len(maps), 1, squeeze=False).flat, maps, strict=True
        ):
            handles |= _draw(subfigure.subplots(1, 2), state_map, groups, ON_PAPER)
            subfigure.suptitle(make_showable(title, keep=""), fontsize=10)
        drawn = {group: handles[group] for group in groups if group in handles}
        names = list(map(line_charts.legend_name, drawn))
        whole.legend(
            drawn.values(),
            names,
            loc="outside lower center",
            ncols=min(6, len(drawn)),
            frameon=False,
        )
        for path in paths:
            whole.savefig(
                path,
                dpi=160,
                metadata={"CreationDate": None} if path.suffix == ".pdf" else None,
            )
        pyplot.close(whole)


def _draw(
    axes_pair: Any,
    state_map: StateMap,
    groups: Mapping[str, int],
    colours: Sequence[str],
) -> dict[str, Any]:
    """Both panels; returns what a legend shows of each group."""
    handles: dict[str, Any] = {}
    for axes, name, points in _panels(axes_pair, state_map):
        for group, number in groups.items():
            group_points = points[[item == group for item in state_map.kept.groups]]
            colour, mark = choose_mark(number)
            if len(group_points):
                paint = colours[FIRST + colour]
                handles[group] = axes.scatter(
                    *group_points.T,
                    s=DOT,
                    color=paint,
                    marker=mark,
                    alpha=0.75,
                    linewidths=0,
                )
        axes.set_title(name, fontsize=10, color=colours[INK])
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_color(colours[GRID])
        axes.margins(0.06)
    _, pca = axes_pair
    for put, number, share in zip(
        (pca.set_xlabel, pca.set_ylabel), (1, 2), state_map.explained, strict=True
    ):
        put(
            f"component {number} ({100 * share:.0f} % of variance)",
            color=colours[INK],
            fontsize=9,
        )
    return handles


def _panels(axes_pair: Any, state_map: StateMap) -> list[tuple[Any, str, Points]]:
    """The two halves of a map: its axes, its title, and the points that it shows."""
    return [
        (axes_pair[0], "t-SNE", state_map.tsne),
        (axes_pair[1], "PCA", state_map.pca),
    ]


def _points(figure: Any, axes_pair: Any, state_map: StateMap) -> Iterator[str]:
    """A circle with a title at each item: which it is, and its silhouette."""
    height, scale = figure.get_figheight() * 72, 72 / figure.dpi
    for axes, _, points in _panels(axes_pair, state_map):
        at = axes.transData.transform(points) * scale
        for (across, up), item, group, apart in zip(
            at,
            state_map.kept.ids,
            state_map.kept.groups,
            state_map.kept.silhouettes,
            strict=True,
        ):
            label = html.escape(
                make_showable(f"{group}: {item}, silhouette {apart:.2f}", keep="")
            )
            yield (
                f'<circle cx="{across:.1f}" cy="{height - up:.1f}"'
                f' r="4"><title>{label}</title></circle>'
            )
