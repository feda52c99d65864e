"""Is what a run has cost counted from what lies on disk, attempt by attempt?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract import attempt as attempts
from jobs.contract import exit_record, gpu_hours, past_attempts
from jobs.contract.attempt import Attempt
from jobs.contract.folder import write_json
from jobs.contract.gpu_hours import MS_OF_HOUR, Spent, split_hours
from jobs.contract.heartbeat import Pulse, read_heartbeat
from jobs.contract.past_attempts import PastAttempt
from jobs.contract.states import Outcome, State
from launcher.status import status_view
from launcher.status.exit_states import read_end
from launcher.workspace.job_state import JobState


def span(number: int, hours: float | None = 1.0, **facts: Any) -> PastAttempt:
    """An attempt of so many hours on one GPU; None: nobody knows when it ended."""
    ended = None if hours is None else round(hours * MS_OF_HOUR)
    known: dict[str, Any] = {"gpus": 1, "started": 0, "ended": ended}
    return PastAttempt(attempt=number, nonce=f"n{number}", **(known | facts))


def trained(begin: int, end: int, **facts: Any) -> dict[str, Any]:
    return {"from_step": begin, "last_step": end, **facts}


def split(*spans: PastAttempt, live: bool = False) -> tuple[float, float, float]:
    """Useful, repeated, lost."""
    spent = split_hours(spans, live)
    assert spent is not None
    return tuple(  # type: ignore[return-value]
        round(hours, 6) for hours in (spent.useful, spent.repeated, spent.lost)
    )


DONE: dict[str, Any] = {"outcome": "done"}


@pytest.mark.parametrize(
    ("spans", "live", "expected"),
    [
        pytest.param([span(1, **trained(0, 30), **DONE)], False, (1, 0, 0), id="done"),
        pytest.param([span(1, **trained(0, 7))], True, (1, 0, 0), id="under way"),
        pytest.param(
            [
                span(1, **trained(0, 20, saved=15, outcome="continue")),
                span(2, **trained(15, 30), **DONE),
            ],
            False,
            (1.75, 0.25, 0),
            id="five steps are trained again after a stop",
        ),
        pytest.param(
            [span(1, **trained(0, 20)), span(2, **trained(0, 30), **DONE)],
            False,
            (1, 0, 1),
            id="killed before anything was saved",
        ),
        pytest.param(
            [span(1), span(2, **trained(0, 30), **DONE)],
            False,
            (1, 0, 1),
            id="died before it trained",
        ),
        pytest.param(
            [span(1, **trained(0, 20, saved=5, outcome="failed"))],
            False,
            (0.25, 0, 0.75),
            id="failed, and nobody went on",
        ),
        pytest.param(
            [span(1, **trained(0, 20, saved=10)), span(2, **trained(5, 30), **DONE)],
            False,
            (1.25, 0.75, 0),
            id="the newest state was passed over",
        ),
        pytest.param(
            [span(1, **trained(0, 20, saved=20)), span(2)],
            True,
            (2, 0, 0),
            id="the next has not come to training yet",
        ),
        pytest.param(
            [span(1, gpus=16, **trained(0, 30), **DONE)], False, (16, 0, 0), id="GPUs"
        ),
        pytest.param(
            [span(1, gpus=0, **trained(0, 30), **DONE)], False, (1, 0, 0), id="CPUs"
        ),
        pytest.param(
            [span(1, outcome="continue"), span(2, **DONE)],
            False,
            (2, 0, 0),
            id="an evaluator that was stopped",
        ),
        pytest.param(
            [span(1, hours=-3, **trained(0, 30), **DONE)],
            False,
            (0, 0, 0),
            id="a clock that was set back",
        ),
    ],
)
def test_each_attempt_is_shared_out(
    spans: list[PastAttempt], live: bool, expected: tuple[float, float, float]
) -> None:
    """Up to where the next went on it is useful; the rest was repeated, or is lost."""
    assert split(*spans, live=live) == expected


def test_what_an_older_zsg_did_not_tell_is_said_to_be_unknown() -> None:
    """From which attempt on all is known; nothing at all where none is."""
    old, new = span(1, gpus=None), span(3, **trained(5, 30), **DONE)
    spent = split_hours([old, span(2, **trained(0, 9, saved=5)), new], False)

    assert spent is not None
    assert spent.unknown_before == 2
    assert split_hours([new], False).unknown_before == 3  # type: ignore[union-attr]
    assert split_hours([old, span(2, hours=None)], False) is None


def test_the_attempt_before_is_kept_when_the_next_begins(tmp_path: Path) -> None:
    """With how long it ran, from where to where; once, also where a start was killed
    between keeping it and taking the folder over."""
    past_attempts.keep_last(tmp_path, None)
    assert past_attempts.read_rows(tmp_path) == []

    first = attempts.begin_attempt(tmp_path, "s", gpus=8)
    facts = {"from_step": 0, "last_step": 20, "saved": 15, "cause": "signal"}
    attempts.end_attempt(tmp_path, first, Outcome.CONTINUE, **facts)
    past_attempts.keep_last(tmp_path, 15)
    past_attempts.keep_last(tmp_path, 15)
    attempts.begin_attempt(tmp_path, "s", gpus=8)

    [row] = past_attempts.read_rows(tmp_path)
    assert (row.attempt, row.gpus, row.from_step, row.last_step) == (1, 8, 0, 20)
    assert (row.saved, row.outcome) == (15, "continue")
    assert row.ended is not None and row.ended >= row.started


def test_an_attempt_that_died_is_kept_by_its_last_heartbeat(tmp_path: Path) -> None:
    """It has left no end: what the heartbeat told is what is known."""
    first = attempts.begin_attempt(tmp_path, "s", gpus=2)
    pulse = Pulse()
    pulse.begins(5, 30, None)
    pulse.reached(9, 100, 1.0)
    ts = first.started + 1000
    beat = {"nonce": first.nonce, "ts": ts, **pulse.facts()}
    write_json(tmp_path / "heartbeat.json", beat)
    past_attempts.keep_last(tmp_path, None)

    [row] = past_attempts.read_rows(tmp_path)
    assert (row.from_step, row.last_step, row.ended, row.outcome) == (5, 9, ts, None)


@pytest.mark.parametrize("text", [b"", b"\0\0\0", b"[]\n{}", b'{"attempt": "x"}', b"{"])
def test_a_damaged_record_hides_no_other(tmp_path: Path, text: bytes) -> None:
    """Lines that are no rows are passed over, and a row goes on a line of its own."""
    (tmp_path / past_attempts.NAME).write_bytes(text)
    attempts.begin_attempt(tmp_path, "s", gpus=1)
    past_attempts.keep_last(tmp_path, None)

    assert [row.attempt for row in past_attempts.read_rows(tmp_path)] == [1]


def test_a_record_that_cannot_be_written_ends_no_job(tmp_path: Path) -> None:
    """Nothing but this count depends on it."""
    attempts.begin_attempt(tmp_path, "s")
    (tmp_path / past_attempts.NAME).mkdir()
    past_attempts.keep_last(tmp_path, None)


def test_an_end_tells_what_all_attempts_have_cost(tmp_path: Path) -> None:
    """Of a run that was stopped once: as `zsg status` reads it."""
    first = _attempt(1, started=0)
    attempts.write_attempt(tmp_path, first)
    _write_end(tmp_path, first, ended=MS_OF_HOUR, outcome="continue", last_step=20)
    past_attempts.keep_last(tmp_path, 10)
    second = _attempt(2, started=2 * MS_OF_HOUR)
    attempts.write_attempt(tmp_path, second)
    _write_end(
        tmp_path,
        second,
        ended=3 * MS_OF_HOUR,
        outcome="done",
        from_step=10,
        last_step=30,
    )

    end = read_end(tmp_path, None)
    assert end is not None and end.spent is not None
    assert (end.spent.useful, end.spent.repeated, end.spent.lost) == (3.0, 1.0, 0.0)
    assert end.spent == gpu_hours.sum_ended(tmp_path, None)


def _attempt(number: int, started: int) -> Attempt:
    return Attempt(number, "s", None, 0, f"n{number}", "h", started, gpus=2)


def _write_end(folder: Path, attempt: Attempt, **facts: Any) -> None:
    known = {"attempt": attempt.attempt, "submission": "s", "nonce": attempt.nonce}
    known |= {"from_step": 0, "step": 20}
    record = msgspec.convert(known | facts, exit_record.ExitRecord)
    exit_record.write_exit_record(folder, record)


def test_a_job_under_way_costs_until_now(tmp_path: Path) -> None:
    """The time since its last heartbeat counts."""
    attempt = _attempt(1, started=0)
    beat = {"nonce": "n1", "ts": MS_OF_HOUR, "step": 6, "from_step": 0}
    write_json(tmp_path / "heartbeat.json", beat)
    beaten = read_heartbeat(tmp_path, "n1")
    assert beaten is not None

    spent = gpu_hours.sum_running(tmp_path, attempt, beaten[0], 1800.0)
    assert spent is not None
    assert (spent.useful, spent.per_step) == (3.0, 0.5)


SPENT = Spent(useful=4.0, per_step=0.5, has_gpus=True)


@pytest.mark.parametrize(
    ("state", "left"),
    [
        (JobState(state=State.RUNNING, step=8, steps=30), 11.0),
        (JobState(state=State.WAITING, step=8, steps=30, saved=6), 12.0),
        (JobState(state=State.FAILED, step=8, steps=30), None),
        (JobState(state=State.DONE, step=30, steps=30), None),
    ],
)
def test_what_is_left_is_the_steps_at_their_measured_cost(
    state: JobState, left: float | None
) -> None:
    """From the step that it has reached, or if it does not run, that is saved."""
    rows = status_view.rows_of(
        "g", [status_view.ShownJob("a", "a")], {"a": _with_spent(state)}
    )

    assert rows[0]["gpu_hours"]["left"] == left


def _with_spent(state: JobState) -> JobState:
    return replace(state, spent=SPENT)


def test_a_grid_costs_what_its_runs_cost() -> None:
    """Runs that have not begun count as the mean of the others; those of an older zsg
    are said to be unknown."""
    states = {
        "a": _with_spent(JobState(state=State.RUNNING, attempt=1, step=8, steps=30)),
        "b": _with_spent(JobState(state=State.DONE, attempt=1)),
        "c": JobState(state=State.QUEUED),
        "d": JobState(state=State.DONE, attempt=1),
    }
    jobs = [status_view.ShownJob(name, name) for name in states]
    cost = status_view.sum_cost(status_view.rows_of("g", jobs, states))

    assert cost is not None
    assert (cost.useful, cost.unknown, cost.has_gpus) == (8.0, 1, True)
    assert cost.left == 11.0 + (15.0 + 4.0) / 2
