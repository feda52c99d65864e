"""Does every metric count exactly once, whatever died, and does nothing reach a journal
that must not?"""

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.attempt import Attempt, Superseded, begin_attempt
from jobs.contract.folder import Damaged
from jobs.contract.journal import (
    GUEST,
    Journal,
    Point,
    by_writer,
    first_points,
    list_journal_files,
    measure_journal_files,
    read_file,
    read_journal,
    read_tail,
)
from jobs.contract.journal_rows import MetricRow
from tests.lib.journal_rows import plain_rows, typed_rows


def metric(step: int, ts: int, **data) -> dict:
    """A metric row."""
    return {
        "kind": "metric",
        "stage": "1",
        "step": step,
        "examples": 16 * step,
        "ts": ts,
        "data": data,
    }


def start(device: str = "cpu", world: int = 1) -> dict:
    """The row with which an attempt begins."""
    return {
        "kind": "event",
        "step": 0,
        "ts": 0,
        "data": {"event": "start", "device": device, "world": world},
    }


@pytest.fixture
def attempt(tmp_path) -> Attempt:
    """The first attempt of a run in tmp_path."""
    return begin_attempt(tmp_path, "s1")


def opened(folder, attempt, role="train") -> Journal:
    """A journal of an attempt."""
    return Journal(folder, attempt, role, "stage")


def test_a_row_has_all_its_fields(tmp_path, attempt):
    """Rows are numbered, timed in milliseconds, and say attempt, stage, step and examples."""
    before = attempts.now_ms()
    journal = opened(tmp_path, attempt)
    journal.add_row("metric", step=10, examples=160, data={"loss": 0.5})
    journal.add_row("event", step=10, examples=160, data={"event": "x"})
    journal.close()

    first, second = plain_rows(tmp_path)
    ts = first.pop("ts")
    assert before <= ts <= attempts.now_ms()
    assert first == {
        "seq": 0,
        "attempt": 1,
        "stage": "stage",
        "step": 10,
        "examples": 160,
        "kind": "metric",
        "data": {"loss": 0.5},
    }
    assert second["seq"] == 1


def test_a_commit_is_on_disk(tmp_path, attempt):
    """After `commit` every row is in the file, while the journal is still open."""
    journal = opened(tmp_path, attempt)
    for step in range(100):
        journal.add_row("metric", step=step, examples=0, data={"loss": 1.0})
    journal.commit()
    steps = [row.step for row in read_journal(tmp_path)]
    journal.close()

    assert steps == list(range(100))


def test_a_commit_is_synced(tmp_path, attempt, monkeypatch):
    """A commit survives a power cut: it returns after fsync."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    journal = opened(tmp_path, attempt)
    journal.add_row("metric", step=0, examples=0, data={})
    journal.commit()
    count = len(synced)
    journal.close()

    assert count >= 1


def test_rows_are_visible_without_a_commit(tmp_path, attempt):
    """What is journalled can be followed at once, before any checkpoint."""
    journal = opened(tmp_path, attempt)
    journal.add_row("metric", step=1, examples=16, data={"loss": 1.0})
    until = time.monotonic() + 5
    while not list(read_journal(tmp_path)) and time.monotonic() < until:
        time.sleep(0.01)
    seen = list(read_journal(tmp_path))
    journal.close()

    assert len(seen) == 1


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), 1e-320, 0.1, -0.0, 1 / 3]
)
def test_every_number_comes_back_as_it_was(tmp_path, attempt, value):
    """Floats are exact, and what JSON has no word for is kept too."""
    journal = opened(tmp_path, attempt)
    journal.add_row("metric", step=0, examples=0, data={"loss": value})
    journal.close()
    (point,), disagree = first_points(read_journal(tmp_path))

    assert repr(value) == repr(point.value)
    assert disagree == []


def test_a_torn_last_line_is_no_row(tmp_path, attempt):
    """A line cut by a kill is left out, by every reader."""
    journal = opened(tmp_path, attempt)
    journal.add_row("metric", step=1, examples=16, data={"loss": 1.0})
    journal.close()
    (path,) = list_journal_files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])

    assert [row.step for row in read_journal(tmp_path)] == [1]
    assert [row.step for row in read_tail(path).rows] == [1]


def test_a_journal_is_never_opened_twice(tmp_path, attempt):
    """A file belongs to one writer of one attempt."""
    opened(tmp_path, attempt).close()

    with pytest.raises(FileExistsError):
        opened(tmp_path, attempt)


def test_a_superseded_attempt_writes_nothing_more(tmp_path, attempt):
    """Once a newer attempt owns the folder, a late row of the old one never reaches its
    file, and commit raises."""
    journal = opened(tmp_path, attempt)
    journal.add_row("metric", step=1, examples=16, data={"loss": 1.0})
    journal.commit()
    begin_attempt(tmp_path, "s1")
    journal.add_row("metric", step=2, examples=32, data={"loss": 2.0})
    with pytest.raises(Superseded):
        journal.commit()
    with pytest.raises(Superseded):
        journal.add_row("metric", step=3, examples=48, data={"loss": 3.0})
    with pytest.raises(Superseded):
        journal.close()

    assert [row.step for row in read_journal(tmp_path)] == [1]


def test_attempts_are_read_in_their_order(tmp_path):
    """The tenth attempt comes after the ninth; what is no journal is passed over."""
    folder = tmp_path / "journal"
    folder.mkdir()
    for name in (
        "10-train-0.jsonl",
        "9-train-0.jsonl",
        "1-train-0.jsonl",
        "notes.jsonl",
        ".1-train-0.jsonl",
    ):
        (folder / name).touch()

    assert [path.name for path in list_journal_files(tmp_path)] == [
        "1-train-0.jsonl",
        "9-train-0.jsonl",
        "10-train-0.jsonl",
    ]


def test_a_run_without_a_journal_has_no_rows(tmp_path):
    """A run that never started is no error."""
    assert list(read_journal(tmp_path)) == []


def test_the_read_tail_are_those_of_the_tail(tmp_path, attempt):
    """Of a long journal only whole rows of its end are read."""
    journal = opened(tmp_path, attempt)
    for step in range(200):
        journal.add_row("metric", step=step, examples=0, data={})
    journal.close()
    (path,) = list_journal_files(tmp_path)
    steps = [row.step for row in read_tail(path, tail=1000).rows]

    assert 2 < len(steps) < 20
    assert steps == list(range(200))[-len(steps) :]
    assert len(read_tail(path).rows) == len(list(read_file(path)))


def test_the_first_row_counts_with_its_timestamp():
    """A value that is recomputed after a restart does not replace the first one."""
    rows = [
        start(),
        metric(10, 1, loss=0.5),
        metric(20, 2, loss=0.4),
        start(),
        metric(20, 9, loss=0.4),
    ]

    assert first_points(typed_rows(rows)) == (
        [Point("loss", 10, 0.5, 1, "1", 160), Point("loss", 20, 0.4, 2, "1", 320)],
        [],
    )


def test_keys_and_steps_count_apart():
    """Each (key, step) has a first row of its own."""
    rows = [
        metric(1, 1, loss=1.0),
        metric(1, 2, **{"loss/task": 2.0}),
        metric(2, 3, loss=3.0),
    ]

    assert [(p.key, p.step) for p in first_points(typed_rows(rows))[0]] == [
        ("loss", 1),
        ("loss/task", 1),
        ("loss", 2),
    ]


@pytest.mark.parametrize("value", ["abc", 10**400], ids=["a word", "a huge number"])
def test_a_value_that_is_no_number_is_told_with_its_row(value):
    """As a journal that is not what zsg wrote, which leaves out the run and no other."""
    with pytest.raises(
        Damaged, match=r"attempt 1 has, in its row \d+, loss = .* at step 2"
    ):
        first_points(typed_rows([metric(1, 1, loss=1.0), metric(2, 2, loss=value)]))


NEXT = math.nextafter(0.5, 1)


@pytest.mark.parametrize(
    ("starts", "values", "disagrees"),
    [
        pytest.param([start(), start()], (0.5, 0.5), False, id="equal on CPU"),
        pytest.param([start(), start()], (0.5, NEXT), True, id="one bit apart on CPU"),
        pytest.param(
            [start(), start()], ("nan", "nan"), False, id="twice not a number"
        ),
        pytest.param([start(), start()], (0.5, "nan"), True, id="a number, then none"),
        pytest.param(
            [start("cuda"), start("cuda")],
            (0.5, 0.5049),
            False,
            id="within a hundredth on GPU",
        ),
        pytest.param(
            [start("cuda"), start("cuda")], (0.5, 0.53), True, id="farther apart on GPU"
        ),
        pytest.param(
            [start("cuda"), start("cuda")], (0.5, "nan"), True, id="not a number on GPU"
        ),
        pytest.param(
            [start("cuda"), start("cpu")], (0.5, 0.5049), False, id="from GPU to CPU"
        ),
        pytest.param(
            [start(world=1), start(world=2)],
            (0.5, NEXT),
            False,
            id="rounding of other ranks on CPU",
        ),
        pytest.param(
            [start(world=1), start(world=2)],
            (0.5, 0.501),
            True,
            id="more than rounding of other ranks",
        ),
    ],
)
def test_a_recomputed_value_must_agree(starts, values, disagrees):
    """Bit for bit on CPU, within 1e-5 between numbers of ranks, within 1e-2 on GPU."""
    rows = [
        starts[0],
        metric(10, 1, loss=values[0]),
        starts[1],
        metric(10, 2, loss=values[1]),
    ]
    points, disagree = first_points(typed_rows(rows))

    assert (1, disagrees) == (len(points), bool(disagree))


def test_a_disagreement_is_told_with_both_values():
    """The message has the key, the step and what was found."""
    rows = [metric(10, 1, loss=0.5), metric(10, 2, loss=0.75)]

    assert first_points(typed_rows(rows))[1] == ["loss at step 10: 0.5, then 0.75"]


def test_speed_need_not_agree():
    """What measures the machine never repeats."""
    rows = [
        metric(10, 1, **{"speed/tokens_per_s": 5.0}),
        metric(10, 2, **{"speed/tokens_per_s": 9.0}),
    ]

    assert first_points(typed_rows(rows))[1] == []


def test_a_row_that_lands_late_does_not_count(tmp_path, attempt):
    """What a superseded attempt's file gains after the next attempt has begun changes
    no first row."""
    first = opened(tmp_path, attempt)
    first.add_row("metric", step=0, examples=0, data={"loss": 3.0})
    first.close()
    second = opened(tmp_path, begin_attempt(tmp_path, "s1"))
    second.add_row(
        "rewind",
        step=0,
        examples=0,
        data={"sizes": measure_journal_files(tmp_path, before=2)},
    )
    second.add_row("metric", step=5, examples=5, data={"loss": 2.0})
    second.close()
    late = list_journal_files(tmp_path)[0]
    late.write_text(
        late.read_text() + late.read_text().replace('"step": 0', '"step": 5')
    )

    assert [
        (point.step, point.value) for point in first_points(read_journal(tmp_path))[0]
    ] == [
        (0, 3.0),
        (5, 2.0),
    ]


def guest(folder: Path, writer: int, fence: Any = lambda: None) -> Journal:
    """An evaluator's file in a run's folder."""
    return Journal(
        folder,
        Attempt(1, "s", None, 0, f"guest{writer}", "h", 0),
        GUEST,
        "1",
        writer,
        fence,
    )


def scored(folder: Path) -> list[tuple[int, str]]:
    """(step, key) of all metrics, as they are read."""
    return [
        (row.step, key)
        for row in read_journal(folder)
        if isinstance(row, MetricRow)
        for key in row.data
    ]


def test_a_guests_rows_stand_whatever_becomes_of_the_owner(tmp_path: Path) -> None:
    """A later attempt of the run neither fences nor rewinds what evaluators write, and
    comes before it."""
    owner = Journal(tmp_path, attempts.begin_attempt(tmp_path, "s"), "train", "1")
    owner.add_row("metric", step=5, examples=1, data={"loss": 1.0})
    owner.close()
    evaluator = guest(tmp_path, 0)
    evaluator.add_row("metric", step=5, examples=1, data={"rouge1": 1.0})
    evaluator.commit()
    again = Journal(tmp_path, attempts.begin_attempt(tmp_path, "s"), "train", "1")
    again.rewind(step=0, examples=0)
    evaluator.add_row("metric", step=10, examples=1, data={"rouge1": 2.0})
    evaluator.close()
    again.close()

    assert scored(tmp_path) == [(5, "loss"), (5, "rouge1"), (10, "rouge1")]
    assert measure_journal_files(tmp_path, before=2).keys() == {"1-train-0.jsonl"}
    assert [name for name in by_writer(tmp_path)] == ["", "1-evaluate-0.jsonl"]


def test_what_a_guest_wrote_after_another_took_over_does_not_count(
    tmp_path: Path,
) -> None:
    """The one that takes over journals how far the other's file counts; the other's
    late rows are no rows."""
    slow, taker = guest(tmp_path, 0), guest(tmp_path, 1)
    slow.add_row("metric", step=5, examples=1, data={"rouge1": 1.0})
    slow.commit()
    size = (tmp_path / "journal/1-evaluate-0.jsonl").stat().st_size
    taker.add_row(
        "rewind", step=10, examples=1, data={"sizes": {"1-evaluate-0.jsonl": size}}
    )
    taker.add_row("metric", step=10, examples=1, data={"rouge1": 3.0})
    taker.close()
    slow.add_row("metric", step=10, examples=1, data={"rouge1": 2.0})
    slow.close()

    points, disagree = first_points(read_journal(tmp_path))
    assert ([(p.step, p.value) for p in points], disagree) == (
        [(5, 1.0), (10, 3.0)],
        [],
    )


def test_a_guest_that_lost_its_lease_writes_nothing(tmp_path: Path) -> None:
    """Its fence is its lease, not the run's attempt."""

    def lost() -> None:
        raise RuntimeError("another's")

    evaluator = guest(tmp_path, 0, lost)
    evaluator.add_row("metric", step=5, examples=1, data={"rouge1": 1.0})
    for end in (evaluator.commit, evaluator.close):
        with pytest.raises(RuntimeError, match="another's"):
            end()
    assert scored(tmp_path) == []


INTERRUPTED = """
import signal, sys
from pathlib import Path
from jobs.contract.attempt import begin_attempt
from jobs.contract.journal import Journal

armed = False

def interrupt(number, frame):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

folder = Path(sys.argv[1])
journal = Journal(folder, begin_attempt(folder, "s1"), "train", "stage")
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
interrupts = step = 0
while interrupts < 4000:
    try:
        armed = True
        while True:
            step += 1
            journal.add_metrics({"loss": 1.0}, step=step, examples=step)
            if step % 50 == 0:
                journal.commit()
    except KeyboardInterrupt:
        interrupts += 1
signal.setitimer(signal.ITIMER_REAL, 0)
journal.close()
"""


def test_a_journal_can_be_closed_after_an_interrupt_at_any_moment(
    tmp_path: Path,
) -> None:
    """An evaluator is interrupted wherever it is, and must still write and end: no lock
    stays taken, no row is cut."""
    script = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    subprocess.run(script, check=True, timeout=60)

    [path] = list_journal_files(tmp_path)
    steps = [row.step for row in read_file(path)]
    assert path.read_bytes().endswith(b"\n")
    assert len(steps) > 4000 and steps == sorted(set(steps))
