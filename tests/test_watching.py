"""Does `zsg status --watch` stay within its terminal, whatever becomes of that?"""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.cells import cell_len

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace
from jobs.contract.journal import Journal
from launcher import cli
from launcher.commands import watching
from launcher.status import loss_curves, queries
from launcher.status.loss_curves import read_curve, thin_out
from launcher.views import show
from launcher.views.live_screen import fit_frame, limit_notes
from launcher.views.sparkline import draw_sparkline
from launcher.workspace import workspaces
from tests.lib import status_rows
from tests.lib.status_rows import many_rows, whole_row
from tests.lib.terminals import Terminal, run_in_terminal
from zsg_core.errors import ClusterError

Rows = list[dict[str, Any]]
Start = Callable[..., Terminal]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """What each look sees; a test changes it before it starts the command. Beside it,
    something is logged and the data have a note."""
    rows = many_rows(200)

    def look(*_: object) -> Rows:
        logging.getLogger("launcher.status.queries").warning("a grid is not shown")
        return rows

    def find_notes(*_: object) -> list[str]:
        return ["3 rows are passed over " * 20]

    def find_workspace(_: object) -> Workspace:
        return Workspace(tmp_path)

    monkeypatch.setattr(queries, "status_rows", look)
    monkeypatch.setattr(queries, "data_notes", find_notes)
    monkeypatch.setattr(queries, "look_notes", lambda *_: [])
    monkeypatch.setattr(workspaces, "find_to_look", find_workspace)
    return rows


@pytest.fixture
def start(
    seen: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Starts the command in a terminal of some size."""
    monkeypatch.setattr("sys.argv", ["zsg", "status", "--watch"])
    started: list[Terminal] = []

    def start_in(
        width: int = 80, height: int = 24, act: Callable[[], None] = cli.main
    ) -> Terminal:
        terminal = run_in_terminal(act, tmp_path / "errors.txt", width, height)
        started.append(terminal)
        return terminal

    yield start_in
    for terminal in started:
        terminal.close()


def check_size(frame: list[str], width: int, height: int) -> None:
    """Fails where a frame would scroll or wrap: the last line is the cursor's."""
    assert len(frame) <= max(height - 1, 1)
    assert max(map(cell_len, frame)) <= width


def fits(frame: list[str], width: int, height: int) -> bool:
    """Whether a frame neither scrolls nor wraps."""
    return len(frame) <= max(height - 1, 1) and max(map(cell_len, frame)) <= width


def test_a_page_follows_the_size_of_its_terminal(start: Start) -> None:
    """From five lines to fifty, with notes, without a new look: nothing scrolls, nothing
    wraps, and a note that is logged is a line of the page."""
    terminal = start(80, 24)
    check_size(first := terminal.read_frame(), 80, 24)
    assert first[0].endswith("again every 20 s; Ctrl-C ends this")
    assert any(line.startswith("a grid is not shown") for line in first)
    for width, height in ((40, 12), (20, 5), (80, 2), (9, 1), (200, 50)):
        terminal.resize(width, height)
        frame = terminal.read_frame()
        # one more of the size before, drawn for a note, may have been on its way
        if not fits(frame, width, height):
            frame = terminal.read_frame()
        check_size(frame, width, height)
    os.kill(terminal.pid, signal.SIGCONT)  # as by `fg`
    check_size(terminal.read_frame(), 200, 50)
    terminal.type(b"\x03")

    assert terminal.wait() == 130
    assert terminal.errors.read_text() == ""


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_terminal_that_is_lost_ends_it_without_a_word(
    is_deaf: bool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel's signal; and where that is ignored, as under nohup, by what the
    next page meets."""
    monkeypatch.setattr(queries, "WATCH_S", 0.05)

    def act() -> None:
        # a suite that runs under nohup ignores the signal, and so would this process
        signal.signal(signal.SIGHUP, signal.SIG_IGN if is_deaf else signal.SIG_DFL)
        cli.main()

    terminal = start(act=act)
    terminal.read_frame()
    terminal.vanish()

    # a page that is written while the terminal goes meets that first
    ends = {watching.LOST} if is_deaf else {watching.LOST, -signal.SIGHUP}
    assert terminal.wait() in ends
    assert terminal.errors.read_text() == ""


def test_a_look_that_fails_leaves_what_was_seen(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night is long, and a file server comes back."""
    monkeypatch.setattr(queries, "WATCH_S", 0.05)
    looks: list[int] = []

    def look(*_: object) -> Rows:
        looks.append(1)
        if len(looks) == 2:
            raise ClusterError("the file server does not answer")
        return status_rows.one_grid()

    monkeypatch.setattr(queries, "status_rows", look)
    terminal = start()
    frames = [terminal.read_frame() for _ in range(3)]

    assert not any("this look failed" in line for line in frames[0] + frames[2])
    assert any("the file server does not answer" in line for line in frames[1])
    assert frames[0][1] == frames[1][1] == "fail: 2 done, 2 failed"


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize(
    ("is_json", "beginning"), [(False, "again every 20 s"), (True, "[\n")]
)
def test_what_is_no_terminal_gets_page_under_page(
    is_json: bool,
    beginning: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a control character, until Ctrl-C; a script gets list after list."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", pause)
    watched = watching.Watched(Workspace(Path()), None, (), False, is_json)
    with pytest.raises(typer.Exit) as ended:
        watching.watch(watched)
    text = capsys.readouterr().out

    assert ended.value.exit_code == 130
    assert text.count(beginning) == 2
    assert "\x1b" not in text


def test_a_page_has_no_more_lines_than_its_terminal() -> None:
    """What does not fit is counted; notes take a quarter at most; one line is the
    title's."""
    body = [[(f"line {number}", "")] for number in range(30)]
    notes = limit_notes(["a", "b", "c", "d", "e"], 8)
    frame = fit_frame("title", body, notes, 8)
    texts = ["".join(text for text, _ in line) for line in frame]

    assert texts == [
        "title",
        "line 0",
        "line 1",
        "line 2",
        "line 3",
        "… and 26 more lines (zsg status --all)",
        "a",
        "… and 4 more notes (zsg status)",
    ]
    assert limit_notes(["a"], 3) == []
    assert len(fit_frame("title", body, [], 1)) == 1


def test_curves_show_how_losses_fall() -> None:
    """A sign for each value; huge, equal and odd ones as well."""
    assert draw_sparkline([8.0, 6.0, 4.0, 1.0]) == "█▆▄▁"
    assert draw_sparkline([2.0, 2.0]) == "▄▄"
    assert draw_sparkline([1.7e308, float("nan"), -1.7e308]) == "█·▁"
    assert draw_sparkline([]) == ""
    assert thin_out([9.0, 1.0, 3.0, 5.0, 10.0], 2) == [5.0, 6.0]
    assert thin_out([9.0], 2) == [9.0]


def test_a_curve_is_of_the_newest_losses_of_what_runs(tmp_path: Path) -> None:
    """Numbers only; a torn journal has none; of what does not run none is read."""
    place = Workspace(tmp_path)
    folder = place.run("a" * 12)
    journal = Journal(folder, attempts.begin_attempt(folder, "s"), "train", "1")
    for step, loss in enumerate((4.0, float("inf"), 2.0)):
        journal.add_metrics({"train/loss": loss}, step=step, examples=step)
    journal.close()
    torn = place.run("b" * 12) / "journal"
    torn.mkdir(parents=True)
    (torn / "1-train-0.jsonl").write_bytes(b"\0" * 99 + b'\n{"kind"')
    rows = [whole_row("a" * 12, "running"), whole_row("a" * 12, "done")]

    assert read_curve(folder) == [4.0, 2.0]
    assert read_curve(torn.parent) == []
    with_curves = loss_curves.add_curves(place, rows)
    assert [row.get("curve") for row in with_curves] == [[4.0, 2.0], None]


def test_a_dumb_terminal_is_not_drawn_over(
    start: Start,
) -> None:
    """It would show what others obey: it gets page under page."""

    def act() -> None:
        os.environ["TERM"] = "dumb"
        assert not show.is_terminal()
        cli.main()

    terminal = start(act=act)
    text = terminal.read_until(b"again every")
    terminal.type(b"\x03")

    assert b"\x1b" not in text
    assert terminal.wait() == 130
