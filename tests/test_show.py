"""Do the tables and lines say what matters, in any terminal?"""

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
