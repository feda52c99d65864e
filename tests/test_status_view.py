"""Does the view of a workspace say what matters, a line a run, on one screen?"""

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from jobs.contract.states import State
from launcher.status import reasons
from launcher.status import status_view as view
from launcher.views import show, status_tables
from launcher.views.status_tables import Screen, draw_status
from launcher.workspace.job_state import JobState
from tests.lib import status_rows
from tests.lib.status_rows import NOW, many_rows, row, whole_row

GOLDEN = Path(__file__).parent / "golden" / "status"


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moments are shown in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def drawn(
    rows: Sequence[dict[str, Any]], width: int = 80, height: int | None = None
) -> list[str]:
    """The lines of a screen."""
    lines = draw_status(rows, Screen(width, height, NOW))
    return ["".join(text for text, _ in line) for line in lines]


@pytest.mark.parametrize(
    ("name", "rows", "height"),
    [
        ("one_grid", status_rows.one_grid(), 24),
        ("three_grids", status_rows.three_grids(), 40),
        ("many_runs", many_rows(10_000), 24),
    ],
)
def test_a_workspace_is_shown_as_kept(
    name: str, rows: list[dict[str, Any]], height: int, in_utc: None
) -> None:
    """At 80 columns, on a screen each: one failure, three grids, ten thousand runs."""
    lines = drawn(rows, 80, height)

    assert lines == (GOLDEN / f"{name}.txt").read_text().splitlines()
    assert len(lines) <= height


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("height", [10, 24, 50])
def test_nothing_is_wider_or_higher_than_the_screen(width: int, height: int) -> None:
    """Whatever its size, with long values of many axes, wide letters and long reasons."""
    axes = {f"data.sources.key{number}": "数据" * number for number in range(6)}
    odd = whole_row("a" * 12, "unknown", axes=axes, cause="what nobody knows " * 40)
    rows = [odd, whole_row("b" * 12, "done", axes={}), *many_rows(400)]

    lines = drawn(rows, width, height)
    assert max(map(cell_len, lines)) <= max(width, 46)
    assert len(lines) <= max(height, 16)


def test_a_grid_among_many_has_a_line() -> None:
    """A hundred grids on one screen: those with something wrong first, and how many
    more there are."""
    rows = [
        whole_row(f"{n:012x}", "done", grid=f"g{n}", step=30, loss=1.0)
        for n in range(100)
    ]
    rows[60] |= {"state": "failed", "cause": "disk full", "evidence": "no room"}

    lines = drawn(rows, 80, 24)
    assert lines[0] == "g60: 1 failed"
    assert lines[-2:] == ["… and 78 more grids (--all)", "next: zsg why g60"]
    assert len(lines) == 24


def test_a_busy_grid_has_the_room_that_finished_ones_do_not_need() -> None:
    """Of a grid whose runs are all done only the counts are shown, where not all fits."""
    done = [whole_row(f"{n:012x}", "done", grid="old", step=30) for n in range(40)]
    lines = drawn([*done, *status_rows.one_grid()], 80, 24)

    assert lines[0] == "old: 40 done"
    assert lines[2] == "fail: 2 done, 2 failed"
    assert sum(line.endswith("diverged") for line in lines) == 2


@pytest.mark.parametrize("most", [1, 5, 299])
def test_what_does_not_fit_shows_what_runs_and_what_failed_first(most: int) -> None:
    """None of them is below a finished one; of failures some are shown however many
    runs are under way."""
    rows = [row(f"d{n}", "done") for n in range(290)] + [
        row("f", "failed"),
        row("r", "running"),
    ]
    rows += [row(f"w{n}", "waiting") for n in range(8)]

    shown = [r["run"] for r in status_tables.choose_foremost(rows, most)]
    assert len(shown) == most
    assert shown[:2] == ["r", "f"][:most]

    busy = [row(f"r{n}", "running") for n in range(50)] + rows
    assert "f" in [r["run"] for r in status_tables.choose_foremost(busy, 9)]


@pytest.mark.parametrize(
    ("hours", "has_gpus", "heading", "cells", "line"),
    [
        (0.5, True, "GPU-h", ["0.50", "0.25"], "GPU-hours: 0.75 useful"),
        (0.05, False, "minutes", ["3.0", "1.5"], "minutes: 4.5 useful"),
        (0.01, True, "GPU-s", ["36", "18"], "GPU-seconds: 54 useful"),
        (0.0, False, "hours", ["0", "0"], "hours: 0 useful"),
    ],
)
def test_what_short_runs_have_cost_is_told_in_minutes_or_seconds(
    hours: float, has_gpus: bool, heading: str, cells: list[str], line: str
) -> None:
    """In hours it would be 0.00."""
    rows = [
        whole_row(run, "done", **status_rows.cost(spent, has_gpus=has_gpus))
        for run, spent in (("a" * 12, hours), ("b" * 12, hours / 2))
    ]
    lines = drawn(rows)

    assert lines[1].split()[-1] == heading
    assert [line.split()[-1] for line in lines[2:4]] == cells
    assert line in lines


def test_all_runs_are_shown_where_asked_for() -> None:
    """`--all` has a line for each."""
    lines = drawn(many_rows(300), 80, None)

    assert sum(line.startswith("0000") for line in lines) == 300
    assert not any("--all" in line for line in lines)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_what_runs_shows_more_in_a_wider_terminal(width: int, in_utc: None) -> None:
    """Time left, then the end that is expected, then speed; each run in one line."""
    running = [r for r in status_rows.three_grids() if r["state"] == "running"]
    running.append(running[0] | {"run": "b" * 12, "axes": {"arrangement.order": "rt"}})
    lines = drawn(running, width)

    assert "3h07" in lines[2]
    assert ("ends 15:07" in lines[2]) == (width >= 100)
    assert ("12.3k" in lines[2]) == (width >= 100)
    assert lines[-1] == "expected: what runs ends by 15:07"


def test_the_column_of_slurm_stands_only_where_slurm_is() -> None:
    """A grid on this machine has no ids to show."""
    local, slurm = drawn(status_rows.one_grid()), drawn(status_rows.three_grids())

    assert not any("slurm" in line for line in local)
    assert sum("slurm" in line for line in slurm) == 2


def test_waiting_is_explained_where_it_is_shown() -> None:
    """And only there."""
    assert any("waiting: for a job" in line for line in drawn([row("a", "waiting")]))
    assert not any("waiting" in line for line in drawn([row("a", "queued")]))


def test_a_cancelled_run_is_said_to_be_so_once() -> None:
    """Its state says it; what else ended it is told."""
    ours = {"cause": "cancelled", "evidence": "by zsg cancel"}
    theirs = {"cause": "cancelled", "evidence": "by uid 1000"}
    lines = drawn([row("a", "cancelled", **ours), row("b", "cancelled", **theirs)])

    assert [line.count("cancelled") for line in lines] == [1, 0, 1, 1, 1]
    assert lines[-1] == "1 × cancelled: by uid 1000"


def test_axes_that_have_no_room_are_named() -> None:
    """Id, state and loss are whole in the narrowest terminal."""
    axes = {f"data.key{number}": f"value {number}" for number in range(9)}
    lines = drawn([row("0123456789ab", "done", axes=axes, loss=3.25, step=30)], 60)

    assert lines[2].startswith("0123456789ab  ")
    assert "done" in lines[2] and "30/30  3.2500" in lines[2]
    assert "data.key8" in lines[3] + lines[4]


def test_equal_reasons_are_told_once() -> None:
    """Messages that differ in numbers only are one reason; others are not."""
    oom = {"cause": "out of memory", "evidence": "oom_kill event"}
    rows = [*many_rows(200), row("f" * 12, "failed", **oom)]
    groups = reasons.group_reasons(rows)

    assert [(len(g.runs), g.reason.title) for g in groups] == [
        (1, "HANGS?"),
        (1, "out of memory"),
        (1, "out of memory"),
    ]
    assert len(reasons.group_reasons(rows[:-1] * 3)[0].runs) == 3


@pytest.mark.parametrize("height", [None, 20])
def test_what_is_printed_is_what_is_drawn(
    height: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal of some height and in a pipe, whose page is longer."""
    terminal = {"force_terminal": True, "height": height} if height else {}
    console = Console(
        width=80, file=io.StringIO(), no_color=True, _environ={}, **terminal
    )
    monkeypatch.setattr(show, "_out", console)
    show.print_status(many_rows(1000))

    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == (17 if height else 50)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (3599, "59m"),
        (11220, "3h07"),
        (200_000, "2d07"),
    ],
)
def test_a_duration_is_short(seconds: float | None, text: str) -> None:
    """Two parts at most."""
    assert view.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("later_s", "text"),
    [(3600, "13:00"), (86_400, "Sat 12:00"), (9 * 86_400, "20 Dec")],
)
def test_a_moment_is_named_as_people_do(later_s: int, text: str, in_utc: None) -> None:
    """The hour today, the day of this week, else the date."""
    assert reasons.format_moment(NOW + later_s, NOW) == text


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"cause": "out of memory", "evidence": "CUDA out of memory"}, "memory"),
        ({"cause": "diverged", "evidence": "step 2"}, "diverged"),
        ({"cause": "no sign of life for 90 s on n1"}, "silent"),
        ({"cause": "never seen before by this table"}, "unclear"),
        ({"flag": "its journal cannot be read: x"}, "unreadable"),
        ({"state": "running", "flag": "no step for 30 min"}, "HANGS?"),
        ({"state": "running", "doing": "training"}, ""),
        ({"state": "running", "doing": "saving"}, "saving"),
        ({"state": "queued", "reason": "Resources"}, "Resources"),
        ({"state": "queued", "reason": "Nodes required for job are DOWN"}, "Nodes"),
        ({"state": "queued", "reason": "JobHeldUser"}, "held"),
        ({"state": "queued", "wanted": False}, "unlisted"),
    ],
)
def test_a_reason_is_one_word(facts: dict[str, Any], word: str) -> None:
    """Of every kind of reason; a run that is well has none."""
    told = reasons.list_reasons(whole_row("a", "failed") | facts)

    assert [reason.word for reason in told] == ([word] if word else [])


@pytest.mark.parametrize(
    "flag",
    [
        "its journal cannot be read: /w/runs/a/journal/1.jsonl: holds no row",
        "a record of it cannot be read: /w/runs/a/exit.json: is empty",
    ],
)
def test_only_what_stands_still_is_said_to_hang(flag: str) -> None:
    """A run whose files cannot be read may well go on: its flag names the file."""
    assert reasons.describe_run(row("a", "running", flag=flag)) == flag


def test_rows_are_json_whatever_the_loss_is() -> None:
    """A loss that is not finite is a text, for JSON has no such number; what was never
    submitted is unknown."""
    states = {
        "runs/a": JobState(state=State.RUNNING, loss=float("nan")),
        "runs/b": JobState(state=State.ABSENT),
    }
    jobs = [view.ShownJob("a", "runs/a"), view.ShownJob("b", "runs/b")]
    rows = view.rows_of("g", jobs, states)

    assert (rows[0]["loss"], rows[1]["state"]) == ("nan", "unknown")


def test_rows_tell_when_runs_are_expected_to_start_and_to_end() -> None:
    """As Slurm expects of what waits, and by the speed of what runs."""
    states = {
        "runs/a": JobState(state=State.RUNNING, eta_s=60.0),
        "runs/b": JobState(state=State.QUEUED, starts=NOW),
    }
    jobs = [view.ShownJob("a", "runs/a"), view.ShownJob("b", "runs/b")]
    before = time.time()
    rows = view.rows_of("g", jobs, states)

    assert before + 60 <= rows[0]["expected_end"] <= time.time() + 60
    assert (rows[0]["expected_start"], rows[1]["expected_start"]) == (None, NOW)
