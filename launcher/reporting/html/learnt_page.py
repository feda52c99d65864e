"""Writes what a run learns as one HTML page: the batch of a step with its targets
marked, and the examples that have problems."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.contract.folder import write_text
from launcher.reporting.data.learnt_runs import Learnt
from launcher.reporting.html import page
from launcher.reporting.html.page import NumberCell
from launcher.views import learnt_view
from launcher.workspace import extras

if TYPE_CHECKING:  # brings torch
    from jobs.training.learnt_texts import LearntExample

MARKED = "Marked words are targets: what the loss is taken of. All else is read only."


def write_page(learnt: Learnt, path: Path) -> None:
    """Writes the page to a file; one that is there is replaced."""
    write_text(path, render_learnt_page(learnt))


def render_learnt_page(learnt: Learnt) -> str:
    """The page. UserError where jinja2 is not installed."""
    extras.require_extra("a page", "report", only=("jinja2",))
    title = f"What run {learnt.run} learns"
    sections = [page.render_title(title)]
    if learnt.batch is not None:
        sections += _render_batch(learnt.step, learnt.batch)
    if learnt.problems is not None:
        sections += _render_problems(learnt.problems, learnt.sizes)
    return page.render_page(title, sections)


def _render_batch(step: int, batch: "Sequence[LearntExample]") -> list[str]:
    """The sections of a step's batch."""
    sections = [
        page.render_heading(f"Step {step}"),
        page.render_paragraph(learnt_view.describe_batch(step, batch)),
        page.render_paragraph(MARKED, "faint"),
    ]
    for example in batch:
        head, *problems = learnt_view.describe_example(example)
        sections.append(page.render_paragraph(head))
        if problems:
            sections.append(page.render_warning("", problems))
        sections.append(page.render_learnt(example.pieces))
    return sections


def _render_problems(
    problems: "Mapping[str, Sequence[LearntExample]]", sizes: Mapping[str, int]
) -> list[str]:
    """The sections of each split's problems."""
    sections: list[str] = []
    for split, examples in problems.items():
        (summary, *_) = learnt_view.list_problems(
            {split: examples}, {split: sizes[split]}, head=0
        )
        name = learnt_view.SPLITS[split].capitalize()
        sections += [page.render_heading(name), page.render_paragraph(summary)]
        if examples:
            headings = ("example", "step", "place", "tokens", "targets", "problems")
            rows = list(map(_make_row, examples))
            sections.append(page.render_table(headings, rows))
    return sections


def _make_row(example: "LearntExample") -> list[NumberCell | str]:
    """An example's line of the table."""
    counts = (example.step, example.place, example.tokens, example.targets)
    cells = [
        NumberCell(count, "–" if count is None else f"{count:,}") for count in counts
    ]
    problems = "; ".join(f"{kind}: {text}" for kind, text in example.problems)
    return [example.id, *cells, problems]
