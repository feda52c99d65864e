"""Does the newest start own the folder, and does the first cause of its end stand?"""

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.attempt import (
    Superseded,
    await_begin,
    begin_attempt,
    check_attempt,
    end_attempt,
)
from jobs.contract.folder import read_json
from jobs.contract.states import Outcome

VARIABLES = [
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURMD_NODENAME",
]


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    """No variable of a job that may be running these tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_attempts_are_numbered(tmp_path):
    """Each start takes the next number and a nonce of its own."""
    one, two = begin_attempt(tmp_path, "s1"), begin_attempt(tmp_path, "s2")

    assert ((1, "s1"), (2, "s2")) == (
        (one.attempt, one.submission),
        (two.attempt, two.submission),
    )
    assert one.nonce != two.nonce


@pytest.mark.parametrize(
    ("environment", "job_id", "restarts"),
    [
        pytest.param({}, None, 0, id="outside Slurm"),
        pytest.param({"SLURM_JOB_ID": "7"}, "7", 0, id="a plain job"),
        pytest.param(
            {
                "SLURM_JOB_ID": "9",
                "SLURM_ARRAY_JOB_ID": "7",
                "SLURM_ARRAY_TASK_ID": "2",
            },
            "7_2",
            0,
            id="a task",
        ),
        pytest.param(
            {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "3"},
            "7",
            3,
            id="a requeued job",
        ),
    ],
)
def test_an_attempt_knows_its_job(tmp_path, monkeypatch, environment, job_id, restarts):
    """The id is the one that squeue shows."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = begin_attempt(tmp_path, "s")

    assert (job_id, restarts) == (made.slurm_job_id, made.restart_count)


def test_what_is_on_disk_is_the_attempt(tmp_path, monkeypatch):
    """Another rank of the same start reads exactly what rank 0 wrote."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    made = begin_attempt(tmp_path, "s")

    assert await_begin(tmp_path, timeout_s=0) == made


@pytest.mark.parametrize(
    "later",
    [
        pytest.param({"SLURM_JOB_ID": "8"}, id="another job"),
        pytest.param(
            {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, id="a requeue of the job"
        ),
    ],
)
def test_a_rank_never_takes_an_older_start_for_its_own(tmp_path, monkeypatch, later):
    """What an earlier start left behind is not what rank 0 of this one writes."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    begin_attempt(tmp_path, "s")
    for name, value in later.items():
        monkeypatch.setenv(name, value)

    assert await_begin(tmp_path, timeout_s=0) is None


def test_waiting_for_rank_0_ends(tmp_path):
    """If rank 0 never begins, the others learn it after the time-out."""
    assert await_begin(tmp_path, timeout_s=0) is None


def test_the_newest_attempt_may_write(tmp_path):
    """The owner of the folder passes the check."""
    made = begin_attempt(tmp_path, "s")

    assert check_attempt(tmp_path, made) is None


def test_an_older_attempt_may_not(tmp_path):
    """A superseded attempt is told by whom, and writes no exit record either."""
    old = begin_attempt(tmp_path, "s")
    begin_attempt(tmp_path, "s")

    with pytest.raises(Superseded, match=r"belongs to attempt 2, this is 1"):
        check_attempt(tmp_path, old)
    with pytest.raises(Superseded):
        end_attempt(tmp_path, old, Outcome.DONE)
    assert read_json(tmp_path / "exit.json") is None


def test_a_folder_without_a_record_belongs_to_nobody(tmp_path):
    """If attempt.json is gone, nobody may write."""
    made = begin_attempt(tmp_path, "s")
    (tmp_path / "attempt.json").unlink()

    with pytest.raises(Superseded):
        check_attempt(tmp_path, made)


def test_an_exit_record_says_how_it_ended(tmp_path):
    """Outcome, cause, evidence and step stand beside the attempt they belong to."""
    made = begin_attempt(tmp_path, "s")
    end_attempt(
        tmp_path,
        made,
        Outcome.FAILED,
        cause="out of memory",
        evidence="CUDA out of memory",
        step=5,
    )
    record = read_json(tmp_path / "exit.json")
    ended = record.pop("ended")

    assert ended >= made.started
    assert record == {
        "schema": 1,
        "attempt": 1,
        "submission": "s",
        "nonce": made.nonce,
        "slurm_job_id": None,
        "outcome": "failed",
        "cause": "out of memory",
        "evidence": "CUDA out of memory",
        "step": 5,
    }


def test_the_first_cause_stands(tmp_path):
    """When one rank has said why the attempt ended, what follows from it does not cover it."""
    made = begin_attempt(tmp_path, "s")
    end_attempt(tmp_path, made, Outcome.FAILED, cause="out of memory")
    end_attempt(tmp_path, made, Outcome.FAILED, cause="lost a peer")

    assert read_json(tmp_path / "exit.json")["cause"] == "out of memory"


@pytest.mark.parametrize(
    ("first_cause", "second_cause"),
    [("peer lost", "out of memory"), ("out of memory", "peer lost")],
)
@pytest.mark.parametrize("has_first_notes", [True, False])
def test_notes_on_examples_stay_whichever_rank_tells_the_end(
    tmp_path, first_cause, second_cause, has_first_notes
):
    """One rank has them, another the cause that counts: the record has both."""
    notes = {"notes": ["7 questions were cut"]}
    made = begin_attempt(tmp_path, "s")
    first, second = (notes, {}) if has_first_notes else ({}, notes)
    end_attempt(tmp_path, made, Outcome.FAILED, cause=first_cause, **first)
    end_attempt(tmp_path, made, Outcome.FAILED, cause=second_cause, **second)
    record = read_json(tmp_path / "exit.json")

    assert (record["cause"], record["notes"]) == ("out of memory", notes["notes"])


def test_a_stale_exit_record_is_replaced(tmp_path):
    """What an earlier attempt left does not stand for this one."""
    end_attempt(
        tmp_path, begin_attempt(tmp_path, "s"), Outcome.FAILED, cause="node failure"
    )
    end_attempt(tmp_path, begin_attempt(tmp_path, "s"), Outcome.DONE)
    record = read_json(tmp_path / "exit.json")

    assert (2, "done", None) == (record["attempt"], record["outcome"], record["cause"])


@pytest.mark.parametrize(
    ("told", "now", "expected"),
    [
        pytest.param(
            {"SLURM_JOB_ID": "7"},
            {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"},
            True,
            id="requeued",
        ),
        pytest.param(
            {"SLURM_JOB_ID": "7"},
            {"SLURM_JOB_ID": "8"},
            True,
            id="the next link of its chain",
        ),
        pytest.param({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7"}, False, id="itself"),
        pytest.param({"SLURM_JOB_ID": "7"}, {}, False, id="replayed by hand"),
        pytest.param({}, {}, False, id="outside Slurm"),
    ],
)
@pytest.mark.parametrize("submission", ["s", "later"])
def test_a_job_that_was_done_is_known_when_it_is_started_again(
    tmp_path, monkeypatch, told, now, expected, submission
):
    """A job requeued after its end, or the next link, has nothing left to do; another
    submission has."""
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    end_attempt(tmp_path, begin_attempt(tmp_path, "s"), Outcome.DONE)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in now.items():
        monkeypatch.setenv(name, value)

    assert attempts.done_before(tmp_path, submission) is (
        expected and submission == "s"
    )
