"""Writes what a look at data has found as one HTML page."""

from collections.abc import Sequence
from pathlib import Path

from jobs.contract.folder import write_text
from launcher.reporting.html import page
from launcher.views import data_view
from launcher.views.looked_data import DataLook, GridLook, SourceLook
from launcher.workspace import extras

TITLE = "A look at data"


def write_page(look: GridLook, path: Path) -> None:
    """Writes the page to a file; one that is there is replaced."""
    write_text(path, render_data_page(look))


def render_data_page(look: GridLook) -> str:
    """The page. UserError where jinja2 is not installed."""
    extras.require_extra("a page", "report", only=("jinja2",))
    sections = [page.render_title(TITLE)]
    for each in look.looks:
        sections += _render_look(each)
    if look.more:
        sections.append(page.render_paragraph(f"{look.more} more of other data"))
    return page.render_page(TITLE, sections)


def _render_look(look: DataLook) -> list[str]:
    """The sections of some runs' data, or of a path's."""
    sections = [page.render_heading(look.title)]
    for source in look.sources:
        sections += _render_source(source, look)
    if look.overlap is not None:
        line = data_view.describe_overlap(look.overlap, look)
        sections.append(page.render_paragraph(line))
    for line in look.targets:
        sections.append(page.render_paragraph(line))
    return sections


def _render_source(source: SourceLook, look: DataLook) -> list[str]:
    """The sections of a source."""
    sections = [page.render_paragraph(data_view.describe_reading(source))]
    warnings = data_view.describe_bad_rows(source) + data_view.describe_blanks(source)
    if warnings:
        sections.append(page.render_warning("", warnings))
    for note in source.notes:
        sections.append(page.render_paragraph(note, "faint"))
    sections.append(_render_rows(data_view.list_tasks(source)))
    sections.append(page.render_paragraph(data_view.describe_repeats(source.repeats)))
    sections.append(page.render_paragraph(data_view.describe_unit(source, look)))
    sections.append(_render_rows(data_view.list_lengths(source)))
    for line in data_view.describe_cuts(source):
        sections.append(page.render_paragraph(line))
    for displayed in source.shown:
        for line in data_view.describe_example(displayed):
            sections.append(page.render_paragraph(line))
    return sections


def _render_rows(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its heading."""
    headings, *body = rows
    width = len(headings)
    filled = [[*row, *[""] * (width - len(row))] for row in body]
    return page.render_table(headings, filled)
