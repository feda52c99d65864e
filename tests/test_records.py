"""Is a file of a run folder that cannot be read told by its path, and does it hide no other run?"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract import cancellation, exit_record, heartbeat, job_file
from jobs.contract.causes import Cause
from jobs.contract.exit_record import ExitRecord, replace_unset
from jobs.contract.folder import Damaged, Workspace, write_json
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import Start
from jobs.contract.states import Outcome
from launcher.lifecycle import cancel, retry
from launcher.status import queries, why
from launcher.status.status import collect_states
from launcher.status.terminal_cache import TerminalCache
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import write_job_file
from tests.lib.journal_rows import NO_ROWS, break_journal
from tests.lib.recorded_run import FakeSlurm

BROKEN, SOUND = "runs/broken", "runs/sound"


@pytest.fixture(params=["local", "slurm"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """A workspace of two runs that have ended."""
    return two_runs(tmp_path, request.param, monkeypatch)


def two_runs(
    folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """The same, of one scheduler."""
    place = Workspace(folder)
    monkeypatch.setattr(FakeSlurm, "workspace", place)
    ledger = Ledger(place)
    submission = ledger.intend(
        scheduler=scheduler, kind="train", grid="g", items=[BROKEN, SOUND]
    )
    ledger.submitted(submission, ["7_0", "7_1"])
    for item in (BROKEN, SOUND):
        folder = place.root / item
        attempt = attempts.begin_attempt(folder, submission.id)
        attempts.end_attempt(folder, attempt, "done", step=9, steps=9, loss=1.5)
        write_job_file(folder, after=[])
    return place


def newer(path: Path) -> None:
    """The same record, as a zsg of next year may write it."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))


def lacking(path: Path) -> None:
    """A record without one of its keys."""
    path.write_text(
        json.dumps(
            {
                key: value
                for key, value in json.loads(path.read_text()).items()
                if key != "nonce"
            }
        )
    )


HARM: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_text(""),
    "half written": lambda path: path.write_text(
        path.read_text()[: len(path.read_text()) // 2]
    ),
    "another's": lambda path: path.write_text('["of", "another", "program"]'),
    "null": lambda path: path.write_text("null"),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\0"),
    "of a newer zsg": newer,
    "lacking a key": lacking,
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
@pytest.mark.parametrize("name", ["exit.json", "attempt.json"])
def test_a_broken_record_hides_no_other_run(
    place: Workspace, name: str, harm: Callable[[Path], object]
) -> None:
    """Nobody knows how that run ended, and the file is named; the other is told of as
    ever, also once remembered."""
    path = place.root / BROKEN / name
    harm(path)
    for _ in range(2):
        found = collect_states(
            place,
            [BROKEN, SOUND],
            Ledger(place),
            FakeSlurm(),
            settled=TerminalCache(place),
        )

        assert (found[SOUND].state, found[SOUND].loss) == ("done", 1.5)
        assert found[BROKEN].state == "unknown"
        assert str(path) in str(found[BROKEN].cause)


def test_a_run_under_way_is_active_though_its_record_is_broken(
    tmp_path: Path, monkeypatch
) -> None:
    """Else the next submit would start it twice."""
    place = two_runs(tmp_path, "slurm", monkeypatch)
    (place.root / BROKEN / "exit.json").write_text("")
    found = collect_states(
        place, [BROKEN, SOUND], Ledger(place), FakeSlurm("7_0|PENDING|Priority")
    )

    assert found[BROKEN].is_active and str(place.root / BROKEN / "exit.json") in str(
        found[BROKEN].flag
    )


def test_a_memory_of_another_version_is_not_used(place: Workspace) -> None:
    """ended.json with a field too many, or one that is no memory: the records are read again."""
    expected = collect_states(place, [BROKEN, SOUND], Ledger(place), FakeSlurm())
    state = {"state": "failed", "speed": 3}
    for text in (
        json.dumps(
            {
                "schema": 1,
                "ends": {
                    SOUND: [TerminalCache(place).key(place.root / SOUND, "x"), state]
                },
            }
        ),
        json.dumps(
            {"schema": 1, "fields": ["state", "speed"], "ends": {SOUND: [[], state]}}
        ),
        "[]",
        '{"schema": 1, "ends": 7}',
        "",
    ):
        place.ends.write_text(text)
        found = collect_states(
            place,
            [BROKEN, SOUND],
            Ledger(place),
            FakeSlurm(),
            settled=TerminalCache(place),
        )

        assert {item: one.state for item, one in found.items()} == {
            item: one.state for item, one in expected.items()
        }


def test_a_job_of_a_newer_zsg_is_refused_with_its_path(tmp_path: Path) -> None:
    """And what is no job; none there is none."""
    assert job_file.read_job(tmp_path) is None
    write_json(tmp_path / "job.json", {"schema": 2})
    with pytest.raises(
        Damaged, match=rf"{tmp_path}/job.json: has schema 2, and this zsg reads up to 1"
    ):
        job_file.read_job(tmp_path)
    write_json(tmp_path / "job.json", [])
    with pytest.raises(
        Damaged,
        match=rf"{tmp_path}/job.json: is not what zsg writes there: .*zsg submit writes it",
    ):
        job_file.read_job(tmp_path)


def test_an_exit_record_tells_what_it_was_given_and_no_more(tmp_path: Path) -> None:
    """In a fixed order; what a later zsg adds to it is passed over."""
    attempt = attempts.begin_attempt(tmp_path, "s")
    attempts.end_attempt(
        tmp_path, attempt, "continue", cause="time limit", saved=4, goes_on=None
    )
    written = json.loads((tmp_path / "exit.json").read_text())

    assert list(written) == [
        "schema",
        "attempt",
        "submission",
        "nonce",
        "slurm_job_id",
        "outcome",
        "cause",
        "evidence",
        "step",
        "ended",
        "saved",
        "goes_on",
    ]
    write_json(tmp_path / "exit.json", written | {"mood": "good"})
    record = exit_record.read_exit_record(tmp_path)
    assert isinstance(record, ExitRecord)
    assert (
        record.reached,
        replace_unset(record.steps),
        replace_unset(record.goes_on, "unset"),
    ) == (
        4,
        None,
        None,
    )


def test_an_end_is_told_though_the_one_before_is_broken(tmp_path: Path) -> None:
    """The record of the attempt before has nothing to say of this one."""
    attempt = attempts.begin_attempt(tmp_path, "s")
    (tmp_path / "exit.json").write_text("{")
    attempts.end_attempt(tmp_path, attempt, "done")

    assert attempts.end_of_newest(tmp_path) == exit_record.read_exit_record(tmp_path)


def test_a_job_whose_last_end_is_broken_has_not_ended(tmp_path: Path) -> None:
    """It is begun again, as one that was killed."""
    attempts.begin_attempt(tmp_path, "s")
    (tmp_path / "exit.json").write_text("")

    assert not attempts.done_before(tmp_path, "s")
    assert attempts.begin_attempt(tmp_path, "s").attempt == 2


def test_a_broken_heartbeat_is_none(tmp_path: Path) -> None:
    """The next is written within seconds; another attempt's is none either."""
    assert heartbeat.read_heartbeat(tmp_path, "n") is None
    heartbeat.locate_heartbeat(tmp_path).write_text('{"nonce": "n", "doing": 7}')
    assert heartbeat.read_heartbeat(tmp_path, "n") is None
    heartbeat.locate_heartbeat(tmp_path).write_text(
        '{"nonce": "n", "doing": "training", "later": 1}'
    )
    beat = heartbeat.read_heartbeat(tmp_path, "n")
    assert beat is not None and beat[0].doing == "training"
    assert heartbeat.read_heartbeat(tmp_path, "m") is None


def test_a_wish_to_stop_counts_for_its_submission(tmp_path: Path) -> None:
    """Of a broken one its path is told."""
    cancellation.request_cancellation(tmp_path, "s", save=True)
    request = cancellation.read_cancellation(tmp_path, "s")
    assert (
        request is not None
        and request.save
        and cancellation.read_cancellation(tmp_path, "t") is None
    )
    (tmp_path / "cancel.json").write_text("{}")
    with pytest.raises(Damaged, match=r"cancel.json: is not what zsg writes there"):
        cancellation.read_cancellation(tmp_path, "s")


def test_a_broken_evaluate_job_hides_no_run(place: Workspace) -> None:
    """It is listed itself, since nobody can tell whether its work is done."""
    write_json(
        place.grid("g") / "grid.json",
        {"name": "g", "runs": [{"run": "sound", "axes": {}}]},
    )
    ledger = Ledger(place)
    ledger.submitted(
        ledger.intend(
            scheduler="local", kind="evaluate", grid="g", items=["evaluate/e"]
        ),
        (),
    )
    (place.root / "evaluate/e").mkdir(parents=True)
    (place.root / "evaluate/e/job.json").write_text("")
    rows = queries.status_rows(place, "g", run=FakeSlurm())

    assert [row["run"] for row in rows] == ["sound", "evaluate/e"]


def test_a_broken_record_keeps_no_other_job_from_being_stopped(
    tmp_path: Path, monkeypatch
) -> None:
    """Of the one whose process nobody knows it is said so, with the file."""
    place = two_runs(tmp_path, "local", monkeypatch)
    (place.root / BROKEN / "attempt.json").write_text("")
    told = cancel._signal(place.root / BROKEN, save=False)

    assert told is not None and str(place.root / BROKEN / "attempt.json") in told
    assert cancel._signal(place.root / SOUND, save=False) is None


def test_why_and_retry_tell_of_a_run_whose_record_is_broken(place: Workspace) -> None:
    """Its path is the cause, and no other run is kept from them."""
    path = place.root / BROKEN / "exit.json"
    path.write_text("")
    state = collect_states(place, [BROKEN], Ledger(place), FakeSlurm())[BROKEN]
    found = why.of_job(place, BROKEN, state)

    assert found is not None and str(path) in found.cause
    assert retry.read_failure(place, BROKEN, state).signature is None


def test_half_a_character_in_a_record_is_read(tmp_path: Path) -> None:
    """A file whose name is no UTF-8 may stand in the evidence."""
    attempt = attempts.begin_attempt(tmp_path, "s")
    attempts.end_attempt(
        tmp_path, attempt, "failed", evidence="a\udce4.json: no Instances"
    )
    record = exit_record.read_exit_record(tmp_path)

    assert record is not None and record.evidence == "a\udce4.json: no Instances"


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_a_broken_journal_hides_neither_a_run_nor_its_end(
    place: Workspace, line: bytes
) -> None:
    """Nobody needs the journal of a run that has told its end."""
    for item in (BROKEN, SOUND):
        write_journal(place.root / item)
    break_journal(place.root / BROKEN, line)
    found = collect_states(place, [BROKEN, SOUND], Ledger(place), FakeSlurm())

    assert {state.state for state in found.values()} == {"done"}


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_of_a_broken_journal_what_is_sound_is_told(
    tmp_path: Path, monkeypatch, line: bytes
) -> None:
    """Of a run that died: how far it came, why it ended, and which file is broken."""
    place = two_runs(tmp_path, "local", monkeypatch)
    for item in (BROKEN, SOUND):
        write_journal(place.root / item)
        exit_record.locate_exit_record(place.root / item).unlink()
    path = break_journal(place.root / BROKEN, line)
    found = collect_states(place, [BROKEN, SOUND], Ledger(place), FakeSlurm())

    for state in found.values():
        assert (state.state, state.step, state.steps, state.loss) == (
            "failed",
            4,
            9,
            1.5,
        )
        cause = why.of_job(place, BROKEN, state)
        assert cause is not None and cause.cause == Cause.DIED
    assert found[SOUND].flag is None
    assert str(found[BROKEN].flag).startswith(
        f"its journal cannot be read: {path}: holds a row that is no"
    )


def write_journal(folder: Path) -> None:
    """The journal of a run that came to step 4 of 9."""
    attempt = attempts.read_attempt(folder)
    assert attempt is not None
    rows = Journal(folder, attempt, "train", "s")
    rows.add_event(Start(device="cpu", world=1, steps=9), step=0, examples=0)
    for step in range(5):
        rows.add_metrics({"loss": 1.5}, step=step, examples=step)
    rows.close()


def test_an_end_is_current_until_another_attempt_begins(tmp_path: Path) -> None:
    """Of no end, or of no attempt, nothing is current."""
    first = attempts.begin_attempt(tmp_path, "s")
    attempts.end_attempt(tmp_path, first, Outcome.DONE)
    record = exit_record.read_exit_record(tmp_path)
    assert attempts.is_current(record, first)
    assert attempts.end_of_newest(tmp_path) == record
    second = attempts.begin_attempt(tmp_path, "s")

    assert not attempts.is_current(record, second)
    assert attempts.end_of_newest(tmp_path) is None
    assert not attempts.is_current(record, None)
    assert not attempts.is_current(None, second)
