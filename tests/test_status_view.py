"""Does the view of a large grid say what matters in a few lines?"""

import io
from typing import Any

import pytest
from rich.console import Console

from jobs.contract.states import State
from launcher.status import status_view as view
from launcher.views import show
from launcher.workspace.job_state import JobState
from tests.lib.status_rows import row

LIVE = {
    "heartbeat_s": 4.0,
    "tokens_per_s": 12345.6,
    "eta_s": 3 * 3600 + 420,
    "gpus": 16,
    "doing": "training",
}


def shown(
    rows: list[dict[str, Any]],
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    whole: bool = False,
) -> str:
    """What `zsg status` prints in a terminal of some width."""
    console = Console(width=width, file=io.StringIO(), highlight=False)
    monkeypatch.setattr(show, "_out", console)
    show.print_status(rows, whole)
    return console.file.getvalue()  # type: ignore[attr-defined]


def many() -> list[dict[str, Any]]:
    """A hundred runs of two orders: done, under way, pending, one that failed and one
    that hangs."""
    rows = []
    for number in range(100):
        axes = {"arrangement.order": ("nft", "rt")[number % 2], "seed": number // 2}
        facts: dict[str, Any] = {"state": "queued"}
        if number < 60:
            facts = {"state": "done", "step": 30, "loss": 1 + number / 100}
        elif number < 80:
            facts = {"state": "running", "step": 12, "loss": 2.5, **LIVE}
        one = (
            dict.fromkeys(view.SHOWN)
            | row(f"{number:012x}", "queued", axes=axes)
            | facts
        )
        rows.append(one)
    rows[61] |= {"flag": "no step for 25 min, 16 GPUs held"}
    rows[1] |= {
        "state": "failed",
        "cause": "out of memory",
        "evidence": "CUDA out of memory",
        "loss": None,
    }
    return rows


@pytest.mark.parametrize("width", [80, 120])
def test_many_runs_are_shown_in_groups(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for each value of the first axis, then the runs that need a look;
    nothing is wider than the terminal."""
    text = shown(many(), width, monkeypatch)
    lines = text.splitlines()

    assert all(len(line) <= width for line in lines)
    assert lines[0].split() == [
        "order",
        "done",
        "running",
        "queued",
        "failed",
        "loss",
        "left",
        "GPUs",
        "flags",
    ]
    assert lines[1].split() == ["nft", "30", "10", "10", "1.000–2.500", "3h07", "160"]
    assert lines[2].split() == [
        "rt",
        "29",
        "10",
        "10",
        "1",
        "1.030–2.500",
        "3h07",
        "160",
        "1",
    ]
    assert "2 of 100 runs need a look" in text
    assert "no step for 25" in text and "out of memory" in text.replace("\n", " ")
    assert len(lines) < 16


def test_all_runs_are_shown_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--all` has a line for each, a small grid always."""
    assert len(shown(many(), 200, monkeypatch, whole=True).splitlines()) == 101
    assert "need a look" not in shown(many()[:30], 200, monkeypatch)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_what_runs_shows_more_in_a_wider_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time left always, then speed, GPUs and the age of the heartbeat; each run in one line."""
    text = shown(many()[62:80], width, monkeypatch)
    lines = text.splitlines()

    assert len(lines) == 1 + 18
    assert "3h07" in lines[1]
    assert ("12.3k" in lines[1], "4s" in lines[1]) == (width >= 100, width >= 120)


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


def test_a_waiting_run_says_why_and_until_when() -> None:
    """The pending reason, and the start that is expected."""
    said = view.describe_run(
        row("a", "queued", reason="Resources", starts=1_800_000_000)
    )

    assert said.startswith("Resources, about ")


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("no step for 30 min", "HANGS? no step for 30 min"),
        (
            "its journal cannot be read: /w/runs/a/journal/1.jsonl: holds no row",
            "its journal cannot be read: /w/runs/a/journal/1.jsonl: holds no row",
        ),
        (
            "a record of it cannot be read: /w/runs/a/exit.json: is empty",
            "a record of it cannot be read: /w/runs/a/exit.json: is empty",
        ),
    ],
)
def test_only_what_stands_still_is_said_to_hang(flag: str, expected: str) -> None:
    """A run whose files cannot be read may well go on: its flag names the file."""
    assert view.describe_run(row("a", "running", flag=flag)).startswith(expected)


def test_rows_are_json_whatever_the_loss_is() -> None:
    """A loss that is not finite is a text, for JSON has no such number; what was never
    submitted is unknown."""
    states = {
        "runs/a": JobState(state="running", loss=float("nan")),
        "runs/b": JobState(state=State.ABSENT),
    }
    jobs = [view.ShownJob("a", "runs/a"), view.ShownJob("b", "runs/b")]
    rows = view.rows_of("g", jobs, states)

    assert (rows[0]["loss"], rows[1]["state"]) == ("nan", "unknown")
