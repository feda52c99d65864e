"""Do the tables and lines say what matters, in any terminal?"""

import io
from typing import Any

import pytest
from rich.console import Console

from launcher.views import show, status_tables
from tests.lib.status_rows import row


def drawn(table: Any, width: int) -> str:
    """A table as a terminal of some width shows it."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


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


@pytest.mark.parametrize("most", [1, 5, 299])
def test_what_does_not_fit_shows_what_runs_and_what_failed_first(most: int) -> None:
    """A terminal that is too low shows running runs, then failed ones; none of them is
    below a finished one."""
    rows = [row(f"d{n}", "done") for n in range(290)] + [
        row("f", "failed"),
        row("r", "running"),
    ]
    rows += [row(f"w{n}", "waiting") for n in range(8)]

    shown = [r["run"] for r in show._foremost(rows, most)]
    assert len(shown) == most
    assert shown[:2] == ["r", "f"][:most]


@pytest.mark.parametrize("width", [80, 200])
def test_a_run_is_read_in_a_narrow_and_in_a_wide_terminal(width: int) -> None:
    """Id, state, step and loss stand in one line each, whatever else must be folded."""
    long = (
        "step 7: the training loss is nan; lower train.lr, or use train.precision: fp32"
    )
    rows = [
        row(
            "0123456789ab",
            "failed",
            step=7,
            loss=3.25,
            cause="ClusterError",
            evidence=long,
        )
    ]

    text = drawn(status_tables.status_table(rows), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert (
        "0123456789ab" in text
        and "failed" in text
        and "7/30" in text
        and "3.2500" in text
    )


def test_a_value_of_the_grid_is_never_taken_for_markup() -> None:
    """Square brackets in a grid's values or in an error are shown as they are."""
    text = drawn(
        status_tables.status_table(
            [row("a", "failed", axes={"x": "[red]"}, evidence="[/] bad [bold]")]
        ),
        120,
    )
    assert "[red]" in text and "[/] bad [bold]" in text


def test_a_run_that_the_grid_no_longer_lists_says_so() -> None:
    """Status shows it with the reason."""
    assert "no longer in the grid" in drawn(
        status_tables.status_table([row("a", "running", wanted=False)]), 120
    )


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
