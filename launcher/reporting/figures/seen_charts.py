"""Draws the loss on test tasks beside the similarity of what was seen so far to them."""

from collections.abc import Sequence
from pathlib import Path

from launcher.reporting.data.seen_similarity import SeenSimilarity
from launcher.reporting.figures import line_charts
from launcher.reporting.figures.line_charts import Line, Panel
from launcher.workspace import extras


def draw_seen(measured: SeenSimilarity, tasks: Sequence[str], path: Path) -> None:
    """A panel of the loss and one of each measure, with a curve for each of the tasks,
    on axes of their own."""
    extras.require_extra("a picture", "report", only=("matplotlib",))
    tables = {"loss": measured.losses, **measured.measures}
    panels = []
    for name, table in tables.items():
        lines = []
        for number, task in enumerate(tasks):
            column = table[:, measured.tasks.index(task)]
            lines.append(
                Line(task, number, [*map(float, measured.steps)], column.tolist())
            )
        panels.append(Panel(name.replace("_", " "), lines, "step", name))
    title = (
        f"run {measured.run}: what was seen so far, and test tasks; smaller is nearer"
    )
    line_charts.draw_picture(panels, [path], title)
