"""Is a journal that a file system has damaged told with file and line, does it keep no
other run from anything, and is it made whole again without a wrong value?"""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import attempt as attempts
from jobs.contract import evaluations
from jobs.contract import journal as journals
from jobs.contract.folder import Workspace
from jobs.contract.journal import HoleError, Journal, first_points, read_journal
from jobs.contract.journal_rows import HoleClosed, find_events
from jobs.contract.states import State
from launcher.planning.plan import Allow, choose_actions
from launcher.status import journal_checks, why
from launcher.status.status import collect_states
from launcher.verification.finding import DIFFERS, HOLDS
from launcher.verification.verify import verify_run
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from tests.lib.evaluate_jobs import KEY, scores, serve
from tests.lib.forked_jobs import wait_until
from tests.lib.journal_rows import break_journal
from tests.lib.planned_runs import a_run
from tests.lib.recorded_run import (
    ITEM,
    FakeSlurm,
    ended,
    started,
    submitted,
    workspace,
)
from tests.lib.train_bench import Bench, reached, starts, told

__all__ = ["workspace"]

ZEROS = b"\0" * 64 + b"\n"


def write_steps(folder: Path, steps: range) -> Path:
    """The journal of a new attempt, with a loss of each step; its path."""
    attempt = attempts.begin_attempt(folder, "s")
    journal = Journal(folder, attempt, "train", "1")
    journal.rewind(step=steps.start, examples=0)
    for step in steps:
        journal.add_metrics({"loss": float(step)}, step=step, examples=step)
    journal.close()
    return journals.folder_of(folder) / journal.name


def replace_line(path: Path, number: int, line: bytes) -> None:
    """Puts other bytes in the place of a line, counted from 1."""
    lines = lines_of(path)
    lines[number - 1] = line
    path.write_bytes(b"".join(lines))


def losses(folder: Path) -> dict[int, float]:
    """The losses that count."""
    points, disagree = first_points(read_journal(folder))
    assert not disagree
    return {point.step: point.value for point in points}


def metric_line(seq: int) -> bytes:
    """A whole row with that number."""
    row = {"seq": seq, "ts": 1, "attempt": 1, "stage": "1", "step": 9, "examples": 9}
    return json.dumps(row | {"kind": "metric", "data": {"loss": 9.0}}).encode() + b"\n"


def test_a_file_that_has_lost_its_beginning_is_a_hole(tmp_path: Path) -> None:
    """Whole rows, also that which says what counts of the attempts before."""
    write_steps(tmp_path, range(4))
    second = write_steps(tmp_path, range(2, 6))
    second.write_bytes(b"".join(lines_of(second)[1:]))
    [hole] = journals.find_holes(tmp_path)

    assert (hole.path, hole.line, hole.offset) == (second, 1, 0)
    assert "it is row 1, row 0 is due" in str(hole)


LINES = {
    "zeros, as a crashed client leaves them": (ZEROS, 4),
    "a cut line": (b'{"seq": 3, "ts": 17, "atte\n', 4),
    "bytes that are no UTF-8": (b'{"seq": 3, "ts": "\xff\xfe"}\n', 4),
    "another schema": (b'{"version": 3, "loss": [1.5]}\n', 4),
    "no line at all": (b"", 3),  # the row before may be joined of two
    "rows that are lost within the line": (metric_line(5), 3),
}


@pytest.mark.parametrize(("line", "lost"), LINES.values(), ids=LINES)
def test_a_hole_is_told_with_its_line_and_what_stands_before_it_counts(
    tmp_path: Path, line: bytes, lost: int
) -> None:
    """Every kind of damage that is not the last line; each is one hole."""
    path = write_steps(tmp_path, range(8))
    replace_line(path, 4, line)
    [hole] = journals.find_holes(tmp_path)

    assert (hole.path, hole.line) == (path, lost)
    assert str(hole).startswith(f"{path}: ") and "line 4" in str(hole)
    before = [row.step for row in journals.read_to_hole(tmp_path)]
    assert before == list(range(lost - 1))
    with pytest.raises(journals.HoleError):
        losses(tmp_path)


def test_a_line_without_end_is_a_hole_that_fills_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line longer than any row is read in no more than a piece."""
    path = write_steps(tmp_path, range(8))
    monkeypatch.setattr(journals, "MOST_OF_A_ROW", 1000)
    replace_line(path, 4, b"x" * 10_000 + b"\n")
    [hole] = journals.find_holes(tmp_path)

    assert hole.line == 4 and "no row ends within 1,000 bytes, line 4" in str(hole)


@pytest.mark.parametrize("end", [b"", b'{"seq": 8, "ts"', b"\0" * 64, b"\xff"])
def test_a_last_line_that_was_cut_is_ordinary(tmp_path: Path, end: bytes) -> None:
    """A kill cuts it, and a crashed client leaves zeros where it was; all before counts."""
    path = write_steps(tmp_path, range(8))
    path.write_bytes(path.read_bytes() + end)

    assert journals.find_holes(tmp_path) == []
    assert losses(tmp_path) == {step: step for step in range(8)}


@pytest.mark.parametrize("size", [None, 200])
def test_a_file_that_has_lost_its_end_or_all_is_a_hole(
    tmp_path: Path, size: int | None
) -> None:
    """Once a later attempt has told how long it was; the next one closes the hole."""
    first = write_steps(tmp_path, range(6))
    write_steps(tmp_path, range(4, 8))
    if size is None:
        first.unlink()
    else:
        first.write_bytes(first.read_bytes()[:size])
    [hole] = journals.find_holes(tmp_path)
    assert hole.path == first and "when a later attempt began" in str(hole)
    assert hole.line == (1 if size is None else 2)
    with pytest.raises(journals.HoleError):
        losses(tmp_path)

    write_steps(tmp_path, range(8))
    assert journals.find_holes(tmp_path) == []
    assert losses(tmp_path) == {step: step for step in range(8)}


def test_the_next_attempt_closes_a_hole(tmp_path: Path) -> None:
    """It journals how far the file counts; behind that nothing does, of the attempts
    after it neither, and what it computes again is what counts."""
    first = write_steps(tmp_path, range(6))
    write_steps(tmp_path, range(4, 8))
    replace_line(first, 4, ZEROS)
    sizes, hole = journals.measure_sound_files(tmp_path, before=3)
    assert hole and hole.line == 4
    third = write_steps(tmp_path, range(2, 8))
    fourth = write_steps(tmp_path, range(7, 9))

    assert sizes["2-train-0.jsonl"] == 0 < sizes["1-train-0.jsonl"]
    later, _ = journals.measure_sound_files(tmp_path, before=5)
    assert (
        sizes.items() <= later.items()
    )  # also for the states that attempts after it see
    assert journals.find_holes(tmp_path) == []
    assert losses(tmp_path) == {step: step for step in range(9)}
    assert {row.attempt for row in read_journal(tmp_path)} == {1, 3, 4}
    closed = [event for _, event in find_events(read_journal(tmp_path), HoleClosed)]
    assert [(event.file, event.line) for event in closed] == [(first.name, 4)]
    assert third.name != fourth.name


def test_status_plan_and_why_tell_of_a_hole(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With file and line, of a run that is done; it is trained again where that is
    allowed. What was found is remembered until the file changes."""
    monkeypatch.setattr(journal_checks, "RESTED_S", -1)
    ended(workspace, submitted(workspace), "done")
    [path] = journals.list_journal_files(workspace.root / ITEM)
    sound = find_state(workspace)
    break_journal(workspace.root / ITEM, ZEROS)
    state = find_state(workspace)
    monkeypatch.setattr(journals, "find_holes", lambda folder: 1 / 0)
    assert find_state(workspace) == state

    flag = f"its journal cannot be read: {path}: holds a row that is no JSON any more"
    assert sound.flag is None and sound.damage is None
    assert state.state == State.DONE
    assert state.flag and state.flag.startswith(f"{flag}, line 2: 64 zero bytes")
    assert state.damage and (state.damage.file, state.damage.line) == (
        f"{ITEM}/journal/1-train-0.jsonl",
        2,
    )
    cause = why.of_job(workspace, ITEM, state)
    assert cause and (cause.file, cause.line) == (state.damage.file, 2)
    row = why.make_why_row("r", "g", state, cause)
    assert row["reason"] == state.flag
    assert row["next"] == "zsg submit GRID.YAML --retrain trains it again"
    run = replace(a_run(), id="r")
    [action] = choose_actions([run], {ITEM: state}, Allow())
    assert (action.kind, "line 2" in action.reason) == ("skip", True)
    assert action.reason.endswith("(--retrain)")
    [action] = choose_actions([run], {ITEM: state}, Allow(retrain=True))
    assert action.kind == "retrain"


def test_a_hole_of_a_run_that_was_put_back_without_a_record_is_told(
    workspace: Workspace,
) -> None:
    """It was killed, and waits in the queue for as long as Slurm lets it: its attempt is
    unknown to Slurm, and its journal is there."""
    started(workspace, submitted(workspace))
    break_journal(workspace.root / ITEM, ZEROS)
    slurm = FakeSlurm("7|PENDING|BeginTime")

    states = collect_states(workspace, [ITEM], Ledger(workspace), slurm)
    [flagged] = journal_checks.flag_journals(workspace, states).values()

    assert (states[ITEM].state, states[ITEM].attempt) == (State.QUEUED, None)
    assert (
        flagged.flag and "1-train-0.jsonl: holds a row that is no JSON" in flagged.flag
    )


def find_state(place: Workspace) -> Any:
    """The state of the run, with what its journal has lost."""
    states = collect_states(place, [ITEM], Ledger(place), FakeSlurm())
    return journal_checks.flag_journals(place, states)[ITEM]


def test_of_many_ended_runs_some_are_looked_at_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those at work always, and those with a hole; the others in turn, so that a hole of
    an old run is found without asking for thousands of files at each command."""
    place = Workspace(tmp_path)
    runs = [f"runs/{number:02}" for number in range(12)]
    states = {item: JobState(state=State.DONE, attempt=1) for item in runs}
    states[runs[5]] = JobState(state=State.RUNNING, attempt=1, in_queue=True)
    for item in runs:
        write_steps(tmp_path / item, range(4))
    monkeypatch.setattr(journal_checks, "RESTED_S", -1)
    assert set(journal_checks.flag_journals(place, states)) == set(runs)
    for limit in ("LOOK_S", "AGAIN_S"):
        monkeypatch.setattr(journal_checks, limit, 0.0)
    monkeypatch.setattr(journal_checks, "FEWEST", 3)
    looks: list[str] = []
    real_look = journal_checks._look_at
    monkeypatch.setattr(
        journal_checks,
        "_look_at",
        lambda folder: (looks.append(folder.parent.name), real_look(folder))[1],
    )

    def list_flagged() -> list[str]:
        looks.clear()
        flagged = journal_checks.flag_journals(place, states)
        assert list(flagged) == runs
        return [item for item in runs if flagged[item].damage]

    assert (list_flagged(), len(looks)) == ([], 4)
    break_journal(tmp_path / runs[5], ZEROS)
    assert list_flagged() == [runs[5]]
    break_journal(tmp_path / runs[9], ZEROS)
    wait_until(lambda: list_flagged() == [runs[5], runs[9]], 60)
    assert (list_flagged(), len(looks)) == ([runs[5], runs[9]], 5)
    write_steps(tmp_path / runs[5], range(4, 6))  # there is no time to read it again
    monkeypatch.setattr(journal_checks, "FEWEST", 0)
    assert list_flagged() == [runs[5], runs[9]]


def test_a_run_with_a_hole_is_made_whole_with_the_same_numbers(bench: Bench) -> None:
    """The attempt after it passes over the state that is past the hole, computes again
    what comes behind, and ends as a run that nothing has happened to; verify names the
    hole before, and what became of it after."""
    folder = bench.make(keep_state=True)
    assert bench.jobs.run(folder)["outcome"] == "done"
    path = journals.list_journal_files(folder)[0]
    line = next(
        number
        for number, text in enumerate(path.read_text().splitlines(), start=1)
        if '"step": 9,' in text
    )
    replace_line(path, line, ZEROS)
    assert_journal(folder, DIFFERS, f"{path}", f"line {line}", "--retrain")

    (folder / "exit.json").unlink()
    assert bench.jobs.run(folder)["outcome"] == "done"
    assert told(folder) == bench.undisturbed(1, 1, "fp32")
    passed_over = starts(folder)[-1]["passed_over"]
    assert f"line {line}" in passed_over
    assert "the state of step 16 has lost rows of its journal" in passed_over
    assert passed_over in (folder / "rank0.txt").read_text()
    assert_journal(folder, HOLDS, f"{path.name} had lost rows from line {line} on")


def test_what_an_evaluator_has_lost_is_taken_again(bench: Bench) -> None:
    """A hole in an evaluator's file: the next evaluate job closes it and takes what it
    lacks of the answers that are kept; the scores are the same."""
    run = bench.make(snapshots=9, metrics=["loss", KEY])
    assert bench.jobs.run(run)["outcome"] == "done"
    assert bench.jobs.run(serve([run]))["outcome"] == "done"
    first = scores(run)
    [path] = journals.guest_files(run)
    replace_line(path, 4, ZEROS)
    with pytest.raises(journals.HoleError, match="line 4"):
        evaluations.collect_taken_keys(run)
    assert [hole.line for hole in journals.find_holes(run)] == [4]
    assert list(journals.read_own(run))  # the trainer's rows are not in doubt

    assert bench.jobs.run(serve([run]))["outcome"] == "done"
    assert journals.find_holes(run) == []
    assert scores(run) == first and first.keys() == {0, 9, 18}


def test_a_run_with_a_hole_keeps_no_other_from_being_evaluated(bench: Bench) -> None:
    """One evaluate job of both: the sound run has its scores; the job ends with the
    line of the other."""
    broken = bench.make(snapshots=9, metrics=["loss", KEY])
    assert bench.jobs.run(broken)["outcome"] == "done"
    sound = broken.with_name("s" * 12)
    shutil.copytree(broken, sound)
    [path] = journals.list_owned_files(broken)
    replace_line(path, 4, ZEROS)
    record = bench.jobs.run(serve([broken, sound]))

    assert record["outcome"] == "failed"
    assert f"{path}: " in record["evidence"] and "line 4" in record["evidence"]
    assert scores(sound).keys() == {0, 9, 18}


def test_a_journal_that_is_damaged_under_a_run_is_told_when_it_ends(
    bench: Bench,
) -> None:
    """A run without some of its metrics is not done: it fails with file and line, and
    the next attempt ends as a run that nothing has happened to."""
    folder = bench.make(epochs=2)
    [rank] = bench.jobs.start(folder)
    wait_until(lambda: reached(folder, 6) or rank.ended())
    rank.send(signal.SIGSTOP)
    [path] = journals.list_journal_files(folder)
    start, end = (len(b"".join(lines_of(path)[:count])) for count in (3, 4))
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\0" * (end - start - 1))
    rank.send(signal.SIGCONT)
    assert rank.ended(within_s=60)
    record = json.loads((folder / "exit.json").read_text())
    assert (record["outcome"], record["cause"]) == ("failed", "cluster")
    assert f"{path}: " in record["evidence"] and "line 4" in record["evidence"]

    assert bench.jobs.run(folder)["outcome"] == "done"
    assert told(folder) == bench.undisturbed(1, 1, "fp32", 2)


def lines_of(path: Path) -> list[bytes]:
    """The lines of a file, with their ends."""
    return path.read_bytes().splitlines(keepends=True)


def assert_journal(folder: Path, verdict: str, *texts: str) -> None:
    """What verify finds of the journal."""
    findings = verify_run(str(folder), lambda: Workspace(folder), 0)
    [journal] = [finding for finding in findings if finding.name == "journal"]
    assert journal.verdict == verdict, journal
    assert all(text in journal.says for text in texts), journal.says


def test_a_guests_file_that_is_gone_is_limited_by_its_hole_alone(
    tmp_path: Path,
) -> None:
    """Between finding the hole and looking again somebody may remove the file."""
    path = tmp_path / "1-1.jsonl"

    assert journals.limit_to_hole(HoleError(path, 3, 40, "a hole")) == {path.name: 40}
