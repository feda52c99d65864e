"""`zsg status --watch`: looks again and again until the user, or the terminal, has gone."""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import typer

from jobs.contract.folder import Workspace

INTERRUPTED = 130
LOST = 129  # as of who is ended by SIGHUP


@dataclass(frozen=True)
class Watched:
    """What is looked at: a grid, or all; only runs in these states; `whole`: a line for
    every run, as far as the terminal has lines; `is_json`: for a script."""

    workspace: Workspace
    grid: str | None
    states: Collection[str]
    whole: bool
    is_json: bool = False


@dataclass(frozen=True)
class Sight:
    """What was seen at a moment (s since the epoch), and what there is to note."""

    moment: float
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = field(default_factory=list[str])


def watch(watched: Watched) -> None:
    """Shows the states until Ctrl-C. A terminal is drawn anew, and as it is resized; it
    may be lost. What is no terminal gets page after page."""
    from launcher.views import live_screen, show

    is_terminal = show.is_terminal() and not watched.is_json
    try:
        if is_terminal:
            _watch_terminal(watched)
        else:
            _print_pages(watched)
    except KeyboardInterrupt:
        if is_terminal:
            show.print_result("")
        raise typer.Exit(INTERRUPTED) from None
    except live_screen.LostTerminal:
        live_screen.silence_output()
        raise typer.Exit(LOST) from None


def _watch_terminal(watched: Watched) -> None:
    from launcher.status import queries
    from launcher.views import live_screen

    with live_screen.Resizing() as resizing:
        before: Sight | None = None
        troubles: list[str] = []
        while True:
            sight = _look(watched, before)
            sight = replace(sight, notes=[*sight.notes, *troubles])
            size = _draw(watched, sight)
            until = time.monotonic() + queries.WATCH_S
            troubles = _tell(watched, sight)
            while resizing.wait(until, size):
                size = _draw(watched, sight)
            before = sight


def _look(watched: Watched, before: Sight | None) -> Sight:
    """What is seen now. Where that fails, what was seen before, and why it fails; there
    is none before the first look."""
    from launcher.status import loss_curves, queries, version_notes
    from launcher.views.console_log import collect_messages
    from zsg_core.errors import ClusterError

    moment = time.time()
    with collect_messages() as messages:
        try:
            rows = queries.status_rows(watched.workspace, watched.grid, watched.states)
            on_data = queries.data_notes(watched.workspace, watched.grid, rows)
            on_looks = queries.look_notes(watched.workspace, watched.grid)
        except ClusterError as error:
            if before is None:
                raise
            trouble = f"this look failed, the one before is shown: {error}"
            return Sight(before.moment, before.rows, [trouble])
    notes = list(messages)
    notes += [f"note on the data: {note}" for note in on_data]
    notes += [f"note on looks: {note}" for note in on_looks]
    notes += [f"note on versions: {note}" for note in version_notes.of_rows(rows)]
    with_curves = loss_curves.add_curves(watched.workspace, rows)
    return Sight(moment, with_curves, notes)


def _tell(watched: Watched, sight: Sight) -> list[str]:
    """Tells whom the grids' submits have named of what was seen, and returns why that
    could not be."""
    from launcher.lifecycle import notices
    from launcher.views.console_log import collect_messages

    with collect_messages() as messages:
        notices.tell_rows(watched.workspace, watched.grid, sight.rows)
    return list(messages)


def _draw(watched: Watched, sight: Sight) -> os.terminal_size:
    """Draws what was seen in the terminal as large as it is now; returns its size."""
    from launcher.views import show

    title = _make_title(sight.moment)
    is_whole = watched.whole or bool(watched.states)
    return show.draw_page(title, sight.rows, sight.notes, is_whole)


def _make_title(moment: float) -> str:
    from launcher.status import queries

    clock = time.strftime("%H:%M:%S", time.localtime(moment))
    return f"{clock}, again every {queries.WATCH_S} s; Ctrl-C ends this"


def _print_pages(watched: Watched) -> None:
    """For a log page under page, for a script list after list."""
    from launcher.lifecycle import notices
    from launcher.status import queries, version_notes
    from launcher.views import show

    while True:
        rows = queries.status_rows(watched.workspace, watched.grid, watched.states)
        if watched.is_json:
            show.as_json(rows)
        else:
            show.print_result(_make_title(time.time()))
            show.print_status(rows, watched.whole or bool(watched.states))
            show.data_notes(queries.data_notes(watched.workspace, watched.grid, rows))
            show.look_notes(queries.look_notes(watched.workspace, watched.grid))
            show.version_notes(version_notes.of_rows(rows))
        notices.tell_rows(watched.workspace, watched.grid, rows)
        time.sleep(queries.WATCH_S)
