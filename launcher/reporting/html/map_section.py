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

UNDRAWN = "Hidden states that no map can be made of"
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
    undrawn = [report_page.render_warning(UNDRAWN, maps.undrawn)] * bool(maps.undrawn)
    if not maps.drawn:
        return undrawn
    numbers = number_groups(maps)
    hover = sum(2 * len(state_map.kept.ids) for state_map in maps.drawn) <= MOST_HOVERED
    drawn = [
        (map_title(state_map), map_charts.draw_svg(state_map, numbers, number, hover))
        for number, state_map in enumerate(maps.drawn)
    ]
    left_out = (
        f"{maps.left_out} more are left out, as a page has {len(maps.drawn)} at most. "
        if maps.left_out
        else ""
    )
    grouping = maps.drawn[0].kept.by
    return [
        report_page.render_heading("Hidden states of test items"),
        report_page.render_mark_legend(
            grouping,
            {
                group: map_charts.choose_mark(number)
                for group, number in numbers.items()
            },
        ),
        report_page.render_panels(drawn),
        report_page.render_paragraph(NOTE + left_out, "faint"),
        *undrawn,
    ]


def number_groups(maps: StateMaps) -> dict[str, int]:
    """The number of each group, from which it has its colour and its mark in every map."""
    return {group: number for number, group in enumerate(maps.groups)}


def map_title(state_map: StateMap) -> str:
    """Whose map it is, of which layer, and how well its groups lie apart."""
    apart = state_map.kept.silhouettes
    means = {
        group: float(np.mean(apart[_where(state_map, group)]))
        for group in dict.fromkeys(state_map.kept.groups)
    }
    group_means = (
        f" ({', '.join(f'{group} {value:.2f}' for group, value in means.items())})"
        if len(means) <= MOST_NAMED
        else ""
    )
    pooling = " of all tokens" if state_map.kept.way["pooling"] == "mean" else ""
    layer = f"layer {state_map.kept.way['layer']}{pooling}"
    return f"{state_map.label}, {layer}: silhouette {np.mean(apart):.2f}{group_means}"


def map_rows(maps: StateMaps) -> Sequence[dict[str, Any]]:
    """The table beside the page: every item of every map."""
    return [
        {
            "run": state_map.run,
            "of": state_map.label,
            "step": state_map.kept.step,
            "key": state_map.kept.key,
            "layer": state_map.kept.way["layer"],
            "by": state_map.kept.by,
            "group": group,
            "item": item,
            "silhouette": float(apart),
            "tsne_1": tsne[0],
            "tsne_2": tsne[1],
            "pca_1": pca[0],
            "pca_2": pca[1],
        }
        for state_map in maps.drawn
        for item, group, apart, tsne, pca in zip(
            state_map.kept.ids,
            state_map.kept.groups,
            state_map.kept.silhouettes,
            state_map.tsne.tolist(),
            state_map.pca.tolist(),
            strict=True,
        )
    ]


def _where(state_map: StateMap, group: str) -> list[bool]:
    """Which items of a map are of a group."""
    return [item_group == group for item_group in state_map.kept.groups]
