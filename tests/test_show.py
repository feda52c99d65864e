"""Do the tables and lines say what matters, in any terminal?"""

import io

import pytest
from rich.console import Console

from launcher.views import show
from tests.lib.status_rows import row


def test_a_line_of_progress_counts_states_and_names_what_runs() -> None:
    """In a log, progress is one line: counts, what is prepared, and where the running
    runs stand."""
    rows = [
        row("a", "done", step=30),
        row("b", "running", step=12, loss=3.14159),
        row("c", "waiting"),
    ]

    assert (
        show.progress_line("", rows)
        == "1/3 done, 1 running, 1 waiting; b 12/30, loss 3.142"
    )
    assert (
        show.progress_line("prepare/x embedding", rows[2:])
        == "0/1 done, 1 waiting; prepare/x embedding"
    )


def test_a_line_of_progress_stays_short_for_many_runs() -> None:
    """Of hundreds of running runs only the first few are named."""
    rows = [row(f"run{n}", "running", step=1) for n in range(300)]

    line = show.progress_line("", rows)
    assert line.startswith("0/300 done, 300 running; run0 1/30")
    assert line.endswith("run7 1/30; …")


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_shows_one_page_in_a_terminal_and_page_after_page_in_a_log(
    monkeypatch, terminal: bool
) -> None:
    """The screen is cleared before the next look; what is no screen gets no control characters."""
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        highlight=False,
        _environ={"TERM": "xterm"},
    )
    monkeypatch.setattr(show, "_out", console)
    show.new_page("10:00:00")

    assert (
        console.file.getvalue() == ("\x1b[2J\x1b[H" if terminal else "") + "10:00:00\n"
    )
