"""Writes a report's section of hidden states: a map of each base and of each end, with
silhouettes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from launcher.reporting.data.state_maps import PERPLEXITY, SEED, StateMap, StateMaps
from launcher.reporting.figures import map_charts
from launcher.reporting.figures.line_charts import MOST_HOVERED
from launcher.reporting.html import page as report_page

MOST_NAMED = 6  # groups whose silhouettes stand in a title

NOTE = (
    "Each point is the prompt of a test item: its hidden state in the layer, in the plane by t-SNE"
    f" (perplexity {PERPLEXITY:g}, less of few items; seed {SEED}; begun from the PCA) and by PCA."
    " In a t-SNE only who is near whom counts. Silhouettes are of the hidden states themselves, by"
    " Euclidean distances: 1 far from all other groups, 0 between two, below 0 nearer to another;"
    " a title has the mean of all items and of each group. Of replicates the first is shown."
    " Beside this page: maps.png, maps.pdf, maps.csv. "
)


def make_map_section(maps: StateMaps) -> list[str]:
    """The section as HTML; nothing where no run keeps hidden states."""
    if not maps.drawn:
        return []
    numbers = number_groups(maps)
    hover = sum(2 * len(one.kept.ids) for one in maps.drawn) <= MOST_HOVERED
    drawn = [
        (map_title(one), map_charts.draw_svg(one, numbers, place, hover))
        for place, one in enumerate(maps.drawn)
    ]
    more = (
        f"{maps.left_out} more are left out, as a page has {len(maps.drawn)} at most. "
        if maps.left_out
        else ""
    )
    by = maps.drawn[0].kept.by
    return [
        report_page.render_heading("Hidden states of test items"),
        report_page.render_mark_legend(
            by,
            {
                group: map_charts.choose_mark(number)
                for group, number in numbers.items()
            },
        ),
        report_page.render_panels(drawn),
        report_page.render_paragraph(NOTE + more, "faint"),
    ]


def number_groups(maps: StateMaps) -> dict[str, int]:
    """The number of each group, from which it has its colour and its mark in every map."""
    return {group: number for number, group in enumerate(maps.groups)}


def map_title(one: StateMap) -> str:
    """Whose map it is, of which layer, and how well its groups lie apart."""
    apart = one.kept.silhouettes
    of = {
        group: float(np.mean(apart[_where(one, group)]))
        for group in dict.fromkeys(one.kept.groups)
    }
    shown = (
        f" ({', '.join(f'{group} {value:.2f}' for group, value in of.items())})"
        if len(of) <= MOST_NAMED
        else ""
    )
    pooling = " of all tokens" if one.kept.way["pooling"] == "mean" else ""
    layer = f"layer {one.kept.way['layer']}{pooling}"
    return f"{one.label}, {layer}: silhouette {np.mean(apart):.2f}{shown}"


def map_rows(maps: StateMaps) -> Sequence[dict[str, Any]]:
    """The table beside the page: every item of every map."""
    return [
        {
            "run": one.run,
            "of": one.label,
            "step": one.kept.step,
            "key": one.kept.key,
            "layer": one.kept.way["layer"],
            "by": one.kept.by,
            "group": group,
            "item": item,
            "silhouette": float(apart),
            "tsne_1": tsne[0],
            "tsne_2": tsne[1],
            "pca_1": pca[0],
            "pca_2": pca[1],
        }
        for one in maps.drawn
        for item, group, apart, tsne, pca in zip(
            one.kept.ids,
            one.kept.groups,
            one.kept.silhouettes,
            one.tsne.tolist(),
            one.pca.tolist(),
            strict=True,
        )
    ]


def _where(one: StateMap, group: str) -> list[bool]:
    return [own == group for own in one.kept.groups]
