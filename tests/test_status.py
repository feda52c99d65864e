"""Whose word counts when the run's own record, Slurm and the ledger say different things?"""

import fcntl
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import attempt as attempts
from jobs.contract import exit_record
from jobs.contract.folder import Workspace
from jobs.contract.journal import Journal
from jobs.contract.saved_state import SavedState, write_saved_state
from launcher.status import why
from launcher.status.status import JobState, collect_states
from launcher.status.terminal_cache import TerminalCache
from launcher.workspace.job_state import NEVER_STARTED
from launcher.workspace.ledger import Ledger, Submission
from tests.lib.job_records import write_job_file
from tests.lib.recorded_run import (
    ITEM,
    FakeSlurm,
    begins,
    ended,
    started,
    state,
    submitted,
    workspace,
)
from zsg_core.errors import ClusterError

__all__ = ["workspace"]


def test_a_finished_run_asks_nobody(workspace: Workspace) -> None:
    """A run that recorded its end as done is done, without a word from the scheduler."""
    slurm = FakeSlurm(squeue="7|RUNNING|None")
    ended(workspace, submitted(workspace), "done")

    assert state(workspace, slurm).state == "done"
    assert slurm.asked == []


def test_the_record_outweighs_accounting(workspace: Workspace) -> None:
    """What a run says of its own failure counts, not what sacct says; sacct is not even asked."""
    slurm = FakeSlurm(sacct="7|COMPLETED|0:0")
    ended(workspace, submitted(workspace), "failed")

    assert (state(workspace, slurm).state, state(workspace, slurm).cause) == (
        "failed",
        "why",
    )
    assert "sacct" not in slurm.asked


@pytest.mark.parametrize(
    ("squeue", "expected"),
    [
        ("7|PENDING|BeginTime", "queued"),
        ("7|PENDING|Dependency", "waiting"),
        ("7|RUNNING|None", "running"),
    ],
    ids=["waits", "waits anew for its prepare job", "runs"],
)
@pytest.mark.parametrize("outcome", ["cancelled", "continue", "failed"])
def test_a_requeued_job_has_not_ended(
    workspace: Workspace, squeue: str, expected: str, outcome: str
) -> None:
    """A job that Slurm holds again is active, though its last attempt recorded an end."""
    ended(workspace, submitted(workspace), outcome)

    assert state(workspace, FakeSlurm(squeue)).state == expected


@pytest.mark.parametrize("scheduler", ["slurm", "local"])
def test_a_stopped_run_waits_for_the_next_submit(
    workspace: Workspace, scheduler: str
) -> None:
    """A run that its time limit or a preemption stopped is neither failed nor done: it
    waits, and says what to do."""
    attempt = started(workspace, submitted(workspace, scheduler))
    attempts.end_attempt(
        workspace.root / ITEM,
        attempt,
        "continue",
        cause="signal",
        step=5,
        steps=9,
        saved=5,
    )

    found = state(workspace)
    assert (found.state, found.stopped, found.saved, found.step, found.steps) == (
        "waiting",
        True,
        5,
        5,
        9,
    )
    assert (found.cause, found.evidence) == (
        "stopped at step 5 (time limit or preemption)",
        "zsg submit resumes it",
    )


def stopped(
    workspace: Workspace, submission: Submission, goes_on: str | None, why: str
) -> None:
    """An attempt of the run that its time limit has stopped at step 5."""
    attempt = started(workspace, submission)
    facts = {
        "cause": "time limit",
        "evidence": why,
        "goes_on": goes_on,
        "continued": 1,
        "stalled": 0,
    }
    attempts.end_attempt(
        workspace.root / ITEM, attempt, "continue", step=5, steps=9, saved=5, **facts
    )


@pytest.mark.parametrize(
    ("squeue", "expected", "evidence"),
    [
        ("7|PENDING|BeginTime", "queued", "continues by itself"),
        ("7|COMPLETING|None", "running", None),
        ("", "waiting", "zsg submit resumes it"),
    ],
    ids=["requeued", "on its way out", "requeue was lost"],
)
def test_a_run_that_waits_for_its_requeue(
    workspace: Workspace, squeue: str, expected: str, evidence: str
) -> None:
    """Neither failed nor done: queued, with its attempt and its step; if Slurm has lost
    it, a submit goes on."""
    stopped(workspace, submitted(workspace), "requeue", "requeued")

    found = state(workspace, FakeSlurm(squeue))
    assert (found.state, found.attempt, found.evidence) == (expected, 1, evidence)
    assert found.state == "running" or (found.step, found.cause) == (
        5,
        "stopped at step 5 (time limit)",
    )
    assert found.stopped == (expected == "waiting")


def test_a_run_that_may_not_go_on_by_itself_says_why(workspace: Workspace) -> None:
    """At its limit a run waits for a submit, with the reason."""
    stopped(
        workspace,
        submitted(workspace),
        None,
        "the most that slurm.max_continues allows; zsg submit resumes it",
    )

    found = state(workspace)
    assert (found.state, found.stopped) == ("waiting", True)
    assert (
        found.evidence
        == "the most that slurm.max_continues allows; zsg submit resumes it"
    )


@pytest.mark.parametrize(
    ("squeue", "expected", "job"),
    [
        ("7|RUNNING|None\n8|PENDING|Dependency\n9|PENDING|Dependency", "running", "7"),
        ("8|PENDING|Priority\n9|PENDING|Dependency", "queued", "8"),
        ("8|PENDING|Dependency\n9|PENDING|Dependency", "waiting", "8"),
        ("8|RUNNING|None\n9|PENDING|Dependency", "running", "8"),
    ],
    ids=[
        "the first",
        "the next is queued",
        "the next is not yet freed",
        "the next runs",
    ],
)
def test_of_a_chain_the_acting_link_is_shown(
    workspace: Workspace, squeue: str, expected: str, job: str
) -> None:
    """All links are asked of at once; a stopped run whose next link waits goes on by itself."""
    submission = submitted(workspace)
    Ledger(workspace).linked(submission, ["8"])
    Ledger(workspace).linked(submission, ["9"])
    if job == "8":
        stopped(workspace, submission, "chain", "2 links are left")
    slurm = FakeSlurm(squeue, "7|COMPLETED|0:0")

    found = state(workspace, slurm)
    assert (found.state, found.slurm, found.stopped) == (expected, job, False)
    assert slurm.asked.count("squeue") == 1


@pytest.mark.parametrize("reason", ["Dependency", "DependencyNeverSatisfied"])
def test_links_behind_a_failed_run_do_not_hide_it(
    workspace: Workspace, reason: str
) -> None:
    """Until Slurm drops the links that will never start, the run has failed all the same."""
    submission = submitted(workspace)
    Ledger(workspace).linked(submission, ["8"])
    ended(workspace, submission, "failed")

    assert state(workspace, FakeSlurm(f"8|PENDING|{reason}")).state == "failed"


def test_a_chain_that_died_is_what_its_first_bad_link_was(workspace: Workspace) -> None:
    """Accounting's word of the link that died counts, not that of those that were
    dropped behind it."""
    submission = submitted(workspace)
    for job in ("8", "9"):
        Ledger(workspace).linked(submission, [job])
    sacct = "7|COMPLETED|0:0\n8|NODE_FAIL|1:0\n9|CANCELLED by 0|0:0"

    found = state(workspace, FakeSlurm(sacct=sacct))
    assert (found.state, found.cause, found.slurm) == ("failed", "node failure", "8")


def test_a_run_stopped_while_it_started_is_where_it_was(workspace: Workspace) -> None:
    """An attempt that came to no step of its own leaves the run at the step that is saved."""
    attempt = started(workspace, submitted(workspace))
    attempts.end_attempt(
        workspace.root / ITEM, attempt, "continue", cause="signal", saved=5
    )

    assert (state(workspace).step, state(workspace).cause) == (
        5,
        "stopped at step 5 (time limit or preemption)",
    )


def test_a_run_that_died_tells_what_it_saved(workspace: Workspace) -> None:
    """A killed run can say nothing; the state that it left is found, if it is whole."""
    started(workspace, submitted(workspace, "local"))
    folder = workspace.root / ITEM / "state/4"
    folder.mkdir(parents=True)
    assert (state(workspace).state, state(workspace).saved) == ("failed", None)
    record = SavedState(
        step=4,
        ids="",
        what={},
        way={},
        journal={},
        seconds=1.0,
        loss=None,
        attempt=1,
        saved=0,
        versions={},
        files={},
    )
    write_saved_state(folder, record)

    assert (state(workspace).state, state(workspace).saved) == ("failed", 4)


def test_a_run_that_could_not_go_on_says_why(workspace: Workspace) -> None:
    """Why a run has started over though it had a state stands beside it while it runs."""
    attempt = attempts.begin_attempt(workspace.root / ITEM, submitted(workspace).id)
    journal = Journal(workspace.root / ITEM, attempt, "train", "s")
    data = {
        "event": "start",
        "steps": 9,
        "passed_over": "the state of step 4 is of another world (2, now 1)",
    }
    journal.add_row("event", step=0, examples=0, data=data)
    journal.close()

    found = state(workspace, FakeSlurm("7|RUNNING|None"))
    assert (found.state, found.evidence) == (
        "running",
        "the state of step 4 is of another world (2, now 1)",
    )


def test_an_older_submissions_record_is_history(workspace: Workspace) -> None:
    """After a retry the record of the first try no longer counts."""
    ended(workspace, submitted(workspace), "failed")
    submitted(workspace, ids=("8",))

    assert state(workspace, FakeSlurm("8|PENDING|Priority")).state == "queued"


def test_an_older_attempts_record_is_history(workspace: Workspace) -> None:
    """Once a newer attempt has begun, the older one's record no longer counts."""
    submission = submitted(workspace)
    ended(workspace, submission, "failed")
    started(workspace, submission)

    found = state(workspace, FakeSlurm("7|RUNNING|None"))
    assert (found.state, found.attempt, found.step, found.steps, found.loss) == (
        "running",
        2,
        4,
        9,
        1.5,
    )


@pytest.mark.parametrize(
    ("sacct", "expected", "cause"),
    [
        (
            "7|COMPLETED|0:0",
            "unknown",
            "Slurm says COMPLETED, but the job left no record",
        ),
        ("7|TIMEOUT|0:0", "failed", "time limit"),
        ("7|NODE_FAIL|1:0", "failed", "node failure"),
        ("7|CANCELLED by 0|0:0", "cancelled", "cancelled"),
        ("", "unknown", "not known to squeue or sacct"),
    ],
    ids=["completed", "timeout", "node failure", "cancelled", "nothing known"],
)
def test_accounting_speaks_for_the_dead(
    workspace: Workspace, sacct: str, expected: str, cause: str
) -> None:
    """A job gone from the queue without a record is what sacct says, and unknown, not
    dead, if it says nothing."""
    submitted(workspace)

    found = state(workspace, FakeSlurm(sacct=sacct))
    assert (found.state, found.cause) == (expected, cause)


def test_a_cut_submission_is_unknown(workspace: Workspace) -> None:
    """An intent without ids may or may not have reached Slurm."""
    submitted(workspace, ids=())

    assert state(workspace).state == "unknown"


def test_a_run_waiting_for_a_failed_prepare_has_failed(workspace: Workspace) -> None:
    """A job cancelled because what it waited for failed says so, with the reason."""
    submitted(workspace)
    write_job_file(workspace.root / ITEM, after=["prepare/p"])
    attempt = attempts.begin_attempt(workspace.root / "prepare/p", "s")
    attempts.end_attempt(
        workspace.root / "prepare/p",
        attempt,
        "failed",
        cause="bad input",
        evidence="row 3",
    )

    found = state(workspace, FakeSlurm(sacct="7|CANCELLED by 0|0:0"))
    assert (found.state, found.cause, found.evidence) == (
        "failed",
        "prepare failed",
        "bad input: row 3 (prepare/p)",
    )


def test_a_local_job_runs_while_its_lock_is_held(workspace: Workspace) -> None:
    """On this machine a job runs exactly as long as a process holds its lock."""
    started(workspace, submitted(workspace, "local"))
    with (workspace.root / ITEM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert state(workspace).state == "running"

    assert (state(workspace).state, state(workspace).cause) == ("failed", "died")


def test_a_local_job_waits_while_its_submit_lives(workspace: Workspace) -> None:
    """A job not yet started waits for as long as the submit that is to run it lives;
    one that was killed does not."""
    submission = submitted(workspace, "local")
    folder = workspace.submission(submission.id)
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert state(workspace).state == "waiting"
        started(workspace, submission)  # and was killed
        assert (state(workspace).state, state(workspace).cause) == ("failed", "died")
        (workspace.root / ITEM / "attempt.json").unlink()

    assert state(workspace).state == "cancelled"


def test_a_run_never_submitted_is_absent(workspace: Workspace) -> None:
    """Without a submission there is nothing to be known."""
    assert state(workspace).state == "absent"


def seen(workspace: Workspace, slurm: FakeSlurm) -> JobState:
    """What `zsg status` finds, which remembers ends."""
    return collect_states(
        workspace, [ITEM], Ledger(workspace), slurm, settled=TerminalCache(workspace)
    )[ITEM]


def rested(workspace: Workspace, seconds: float) -> None:
    """Makes the run's own end so many seconds old."""
    for path in (workspace.root / ITEM / "exit.json", workspace.root / ITEM):
        os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.parametrize(
    ("outcome", "squeue", "ago_s", "is_held"),
    [
        pytest.param(
            "failed", "7|RUNNING|None|N/A|3:00:00|n1", 3600, True, id="it has failed"
        ),
        pytest.param(
            "done", "7|RUNNING|None|N/A|3:00:00|n1", 3600, True, id="it runs on"
        ),
        pytest.param(
            "done", "7|SUSPENDED|None|N/A|3:00:00|n1", 3600, True, id="it is suspended"
        ),
        pytest.param(
            "done",
            "7|RUNNING|None|N/A|3:00:00|n1",
            20,
            False,
            id="it is on its way out",
        ),
        pytest.param(
            "done", "7|COMPLETING|None|N/A|3:00:00|n1", 200, False, id="an epilogue"
        ),
        pytest.param(
            "done",
            "7|COMPLETING|None|N/A|3:00:00|n1",
            3600,
            True,
            id="an epilogue that hangs",
        ),
        pytest.param(
            "done",
            "7|RUNNING|None|N/A|0:20|n1",
            3600,
            False,
            id="started again just now, it finds nothing to do",
        ),
        pytest.param(
            "done",
            "7|PENDING|Priority|N/A|0:00|",
            3600,
            False,
            id="put back by an administrator",
        ),
        pytest.param("done", "", 3600, False, id="it has left"),
    ],
)
def test_an_allocation_that_outlives_its_run_is_flagged(
    workspace: Workspace, outcome: str, squeue: str, ago_s: float, is_held: bool
) -> None:
    """With what it holds, since when, and what to do; within a minute of the end, but
    not while a job is leaving."""
    ended(workspace, submitted(workspace), outcome)
    resources = {"nodes": 2, "gpus_per_node": 4}
    write_job_file(workspace.root / ITEM, resources=resources)
    rested(workspace, ago_s)
    slurm = FakeSlurm(squeue)
    found = seen(workspace, slurm)

    assert (found.state, found.flag is not None) == (outcome, is_held)
    assert slurm.asked in (["squeue"], ["squeue", "sacct"])
    if is_held:
        is_leaving = "COMPLETING" in squeue
        mend = "Slurm is still clearing up" if is_leaving else "zsg cancel ends it"
        expected = "its Slurm job 7 still holds 8 GPUs, 8.0 GPU-hours so far, on n1 60 min after its end"
        assert found.flag == f"{expected}; {mend}"
        assert (found.in_queue, found.gpus) == (not is_leaving, 8)


def test_a_job_that_is_done_and_gone_is_asked_for_once(workspace: Workspace) -> None:
    """Until the queue was seen without it; then nobody asks for it again."""
    ended(workspace, submitted(workspace), "done")
    rested(workspace, 3600)
    slurm = FakeSlurm("7|RUNNING|None|N/A|3:00:00|n1")
    assert [seen(workspace, slurm).flag is None for _ in range(2)] == [False, False]
    slurm.answers["squeue"] = ""
    assert [seen(workspace, slurm).flag for _ in range(3)] == [None] * 3

    assert slurm.asked == ["squeue"] * 3


def test_what_is_done_can_be_read_without_slurm(workspace: Workspace) -> None:
    """On a machine without squeue, or while it does not answer, a workspace of done
    runs is shown as ever."""
    ended(workspace, submitted(workspace), "done")
    rested(workspace, 3600)

    def broken(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError(argv[0])

    for slurm, flagged in (
        (broken, False),
        (FakeSlurm("7|RUNNING|None|N/A|3:00:00|n1"), True),
    ):
        found = collect_states(
            workspace,
            [ITEM],
            Ledger(workspace),
            slurm,
            settled=TerminalCache(workspace),
        )[ITEM]
        assert (found.state, found.flag is not None) == ("done", flagged)


def away(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """A Slurm whose controller is away; accounting is there and knows nothing."""
    complaint = "slurm_load_jobs error: Unable to contact slurm controller\n"
    if argv[0] == "squeue":
        return subprocess.CompletedProcess(argv, 1, "", complaint)
    return subprocess.CompletedProcess(argv, 0, "", "")


def looked_at(workspace: Workspace, run: Any = away) -> JobState:
    """What somebody who only looks is told."""
    ledger = Ledger(workspace)
    return collect_states(workspace, [ITEM], ledger, run, only_looks=True)[ITEM]


def test_what_is_on_disk_is_shown_while_slurm_is_away(
    workspace: Workspace, logged: list[str]
) -> None:
    """An end is the end, a run that lives runs, of others nobody knows and nothing is
    submitted; it is told. Whoever submits by it is refused an answer."""
    submission = submitted(workspace)
    found = looked_at(workspace)
    reason = (
        "Slurm does not answer (squeue failed: slurm_load_jobs error: Unable to contact slurm"
        " controller)"
    )
    assert (found.state, found.cause, found.in_queue) == ("unknown", reason, True)
    assert logged[-1].startswith(f"note: {reason}")
    told = why.make_why_row("r", "g", found, why.of_job(workspace, ITEM, found))
    assert told["next"] == "look again once Slurm answers"

    started(workspace, submission)
    found = looked_at(workspace)
    assert (found.state, found.attempt, found.step) == ("running", 1, 4)
    for path in (workspace.root / ITEM).rglob("*"):
        os.utime(path, (time.time() - 500,) * 2)
    found = looked_at(workspace)
    assert (found.state, found.step, found.in_queue) == ("unknown", 4, True)
    assert "its last sign of life is 500 s old" in (found.cause or "")

    ended(workspace, submission, "continue")
    found = looked_at(workspace)
    assert (found.state, found.stopped) == ("waiting", True)
    assert "whether it continues by itself is not known" in (found.evidence or "")
    ended(workspace, submission, "failed")
    assert (looked_at(workspace).state, looked_at(workspace).cause) == ("failed", "why")
    with pytest.raises(ClusterError, match="Unable to contact"):
        collect_states(workspace, [ITEM], Ledger(workspace), away)


def test_accounting_answers_while_the_controller_is_away(workspace: Workspace) -> None:
    """What it knows to have ended has; what it calls running may be so or not."""
    submitted(workspace)
    slurm = FakeSlurm(sacct="7|TIMEOUT|0:0")

    def half(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return away(argv) if argv[0] == "squeue" else slurm(argv)

    assert looked_at(workspace, half).cause == "time limit"
    slurm.answers["sacct"] = "7|RUNNING|0:0"
    found = looked_at(workspace, half)
    assert (found.state, found.in_queue) == ("unknown", True)
    assert (found.cause or "").startswith("Slurm does not answer")


@pytest.mark.parametrize(
    ("sacct", "expected", "evidence"),
    [
        (
            "7|CANCELLED by 0|0:0\n6|NODE_FAIL|0:0",
            "failed",
            "node failure: Slurm says NODE_FAIL, exit 0:0 (prepare/p)",
        ),
        (
            "7|CANCELLED by 0|0:0\n6|FAILED|0:9",
            "failed",
            "died: Slurm says FAILED, exit 0:9 (prepare/p)",
        ),
        (
            "7|CANCELLED by 0|0:0\n6|OUT_OF_MEMORY|0:125",
            "failed",
            "out of memory: Slurm says OUT_OF_MEMORY",
        ),
        (
            "7|CANCELLED by 0|0:0\n6|CANCELLED by 0|0:0",
            "failed",
            "cancelled: it left no record (prepare/p)",
        ),
        (
            "",
            "unknown",
            "not known to squeue or sacct: it left no record (prepare/p)",
        ),
    ],
)
def test_a_run_whose_prepare_job_died_says_so(
    workspace: Workspace, sacct: str, expected: str, evidence: str
) -> None:
    """Killed without a record, the prepare job is named, with what Slurm says of it;
    squeue is asked once."""
    ledger = Ledger(workspace)
    prepare = ledger.intend(
        scheduler="slurm", kind="prepare", grid="g", items=["prepare/p"]
    )
    ledger.submitted(prepare, ["6"])
    submitted(workspace)
    write_job_file(workspace.root / ITEM, after=["prepare/p"])
    slurm = FakeSlurm(sacct=sacct)
    found = state(workspace, slurm)

    assert (found.state, found.cause) == (expected, "prepare failed")
    assert (found.evidence or "").startswith(evidence)
    assert slurm.asked == ["squeue", "sacct"]


@pytest.mark.parametrize(
    ("outcome", "cause", "expected"),
    [
        (
            "cancelled",
            "signal",
            ("cancelled", NEVER_STARTED, "signal: SIGINT (prepare/p)"),
        ),
        (
            "failed",
            "bad data",
            ("failed", "prepare failed", "bad data: SIGINT (prepare/p)"),
        ),
        (
            None,
            None,
            (
                "cancelled",
                NEVER_STARTED,
                "died: the process ended without a record (killed?) (prepare/p)",
            ),
        ),
    ],
)
def test_a_local_run_whose_submit_was_ended_only_never_started(
    workspace: Workspace,
    outcome: str | None,
    cause: str | None,
    expected: tuple[str, str, str],
) -> None:
    """The next submit starts it, as ever; only what its prepare job has told to be
    wrong is a failure."""
    ledger = Ledger(workspace)
    prepare = ledger.intend(
        scheduler="local", kind="prepare", grid="g", items=["prepare/p"]
    )
    ledger.submitted(prepare, ["local"])
    submitted(workspace, "local", ("local",))
    write_job_file(workspace.root / ITEM, after=["prepare/p"])
    attempt = attempts.begin_attempt(workspace.root / "prepare/p", prepare.id)
    if outcome:
        attempts.end_attempt(
            workspace.root / "prepare/p",
            attempt,
            outcome,
            cause=cause,
            evidence="SIGINT",
        )
    found = state(workspace)

    assert (found.state, found.cause, found.evidence) == expected


def test_a_run_cancelled_while_its_prepare_job_works_was_cancelled(
    workspace: Workspace,
) -> None:
    """What waits for a job that lives, or that has made its things, did not end for it."""
    ledger = Ledger(workspace)
    prepare = ledger.intend(
        scheduler="slurm", kind="prepare", grid="g", items=["prepare/p"]
    )
    ledger.submitted(prepare, ["6"])
    submitted(workspace)
    write_job_file(workspace.root / ITEM, after=["prepare/p"])
    slurm = FakeSlurm("6|RUNNING|None|N/A|1:00|n1", "7|CANCELLED by 0|0:0")

    assert (state(workspace, slurm).state, state(workspace, slurm).cause) == (
        "cancelled",
        "cancelled",
    )


def test_a_setup_line_that_kept_a_job_from_beginning_is_its_cause(
    workspace: Workspace,
) -> None:
    """Where not even Python could start, as in a container that a module was to bring,
    its log is the proof."""
    submission = submitted(workspace)
    log = workspace.submission(submission.id) / "7_0_log.out"
    log.parent.mkdir(parents=True)
    begins = (
        "=== zsg start 0, job 7, node n1, 2026-11-28T22:00:00Z ===\n=== zsg setup line 1 of 1:"
        " module load x ===\n"
    )
    log.write_text(
        f"{begins}module: command not found\n\n=== zsg setup line 1 of 1 ended with 127 ===\nsrun:"
        " no such\n"
    )
    told = "setup line 1 of 1 ended with 127: module load x (it printed: module: command not found)"
    for sacct in ("7|FAILED|127:0", ""):
        found = state(workspace, FakeSlurm(sacct=sacct))
        assert (found.state, found.cause, found.evidence) == ("failed", "setup", told)

    log.write_text(begins)
    found = state(workspace, FakeSlurm(sacct="7|TIMEOUT|0:0"))
    assert (found.state, found.cause) == ("failed", "time limit")
    assert "setup line 1 of 1 is the last that began: module load x" in (
        found.evidence or ""
    )
    log.write_text(f"{begins}\n=== zsg setup done ===\n")
    assert state(workspace, FakeSlurm(sacct="7|FAILED|1:0")).cause == "died"


def test_a_requeued_job_that_dies_before_it_begins_is_told_as_that(
    workspace: Workspace,
) -> None:
    """Its first start has begun an attempt, which proves nothing of its second."""
    submission = submitted(workspace)
    begins(workspace, "step 3\n")
    log = workspace.submission(submission.id) / "7_0_log.out"
    missing = "slurmstepd: error: execve(): /env/bin/python: No such file or directory"
    with log.open("a") as file:
        file.write(
            f"=== zsg start 1, job 7, node n3, 2126-11-28T22:00:00Z ===\n{missing}\n"
        )
    for path in (workspace.root / ITEM).rglob("*"):
        os.utime(path, (time.time() - 500,) * 2)
    found = state(workspace, FakeSlurm(sacct="7|FAILED|2:0"))

    assert (found.state, found.cause, found.evidence, found.node) == (
        "failed",
        "launch failed",
        missing,
        "n3",
    )
    with log.open("a") as file:
        file.write(
            "=== zsg attempt 2, rank 0 of 1, job 7, node n3, 2126-11-28T22:00:09Z ===\n"
        )
    assert state(workspace, FakeSlurm(sacct="7|FAILED|2:0")).cause == "died"
    assert state(workspace, FakeSlurm(sacct="7|FAILED|0:53")).cause == "launch failed"


def test_of_many_job_folders_those_that_are_absent_are_not_looked_into(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of all runs is listed once; only of what is there a record is read."""
    looked: list[Path] = []
    read = exit_record.read_exit_record

    def note(folder: Path) -> Any:
        looked.append(folder)
        return read(folder)

    monkeypatch.setattr(exit_record, "read_exit_record", note)
    there = [f"runs/{number:012x}" for number in range(3)]
    absent = [f"runs/{number:012x}" for number in range(100, 300)]
    for item in there:
        (workspace.root / item).mkdir(parents=True)
    states = collect_states(
        workspace, [*there, *absent], Ledger(workspace), FakeSlurm()
    )

    assert looked == [workspace.root / item for item in there]
    assert {state.state for state in states.values()} == {"absent"}
