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


def draw_svg(one: StateMap, groups: Mapping[str, int], number: int, hover: bool) -> str:
    """A map as an SVG element. `groups` are numbered; `number`: which of the page's maps it is."""
    with line_charts.open_pyplot(
        {"svg.fonttype": "none", "svg.hashsalt": f"map {number}"}
    ) as pyplot:
        figure, places = pyplot.subplots(1, 2, figsize=SIZE, layout="constrained")
        _draw(places, one, groups, OF_THE_PAGE)
        held = io.StringIO()
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None})
        points = list(_points(figure, places, one)) if hover else []
        pyplot.close(figure)
    return line_charts.make_svg_element(
        held.getvalue(), f"t-SNE and PCA of hidden states: {one.label}", points
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
        for part, (title, one) in zip(
            whole.subfigures(len(maps), 1, squeeze=False).flat, maps, strict=True
        ):
            handles |= _draw(part.subplots(1, 2), one, groups, ON_PAPER)
            part.suptitle(make_showable(title, keep=""), fontsize=10)
        shown = {group: handles[group] for group in groups if group in handles}
        names = list(map(line_charts.legend_name, shown))
        whole.legend(
            shown.values(),
            names,
            loc="outside lower center",
            ncols=min(6, len(shown)),
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
    places: Any, one: StateMap, groups: Mapping[str, int], colours: Sequence[str]
) -> dict[str, Any]:
    """Both panels; returns what a legend shows of each group."""
    handles: dict[str, Any] = {}
    for axes, name, points in _panels(places, one):
        for group, number in groups.items():
            own = points[[item == group for item in one.kept.groups]]
            colour, mark = choose_mark(number)
            if len(own):
                paint = colours[FIRST + colour]
                handles[group] = axes.scatter(
                    *own.T, s=DOT, color=paint, marker=mark, alpha=0.75, linewidths=0
                )
        axes.set_title(name, fontsize=10, color=colours[INK])
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_color(colours[GRID])
        axes.margins(0.06)
    _, pca = places
    for put, number, share in zip(
        (pca.set_xlabel, pca.set_ylabel), (1, 2), one.explained, strict=True
    ):
        put(
            f"component {number} ({100 * share:.0f} % of variance)",
            color=colours[INK],
            fontsize=9,
        )
    return handles


def _panels(places: Any, one: StateMap) -> list[tuple[Any, str, Points]]:
    return [(places[0], "t-SNE", one.tsne), (places[1], "PCA", one.pca)]


def _points(figure: Any, places: Any, one: StateMap) -> Iterator[str]:
    """A circle with a title at each item: which it is, and its silhouette."""
    height, scale = figure.get_figheight() * 72, 72 / figure.dpi
    for axes, _, points in _panels(places, one):
        at = axes.transData.transform(points) * scale
        for (left, up), item, group, apart in zip(
            at, one.kept.ids, one.kept.groups, one.kept.silhouettes, strict=True
        ):
            said = html.escape(
                make_showable(f"{group}: {item}, silhouette {apart:.2f}", keep="")
            )
            yield (
                f'<circle cx="{left:.1f}" cy="{height - up:.1f}"'
                f' r="4"><title>{said}</title></circle>'
            )
