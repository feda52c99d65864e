"""Is a job called running only while it shows that it lives, and flagged when it stands still?"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace
from jobs.contract.heartbeat import NAME, Pulse
from launcher.planning.plan import Allow, _decide
from launcher.status import why
from launcher.status.status import JobState
from launcher.submission import submit_plan
from tests.lib.job_records import write_job_file
from tests.lib.recorded_run import (
    ITEM,
    FakeSlurm,
    ended,
    started,
    state,
    submitted,
    workspace,
)

__all__ = ["workspace"]

RUNNING = "7|RUNNING|None|2026-11-25T10:00:00|2:00:00|n2"


def beats(workspace: Workspace, age_s: float = 3, **facts: Any) -> attempts.Attempt:
    """An attempt of the run under way, in a submitted job with 16 GPUs, that gave its
    last sign `age_s` ago."""
    folder = workspace.root / ITEM
    attempt = started(workspace, submitted(workspace))
    resources = {"nodes": 2, "gpus_per_node": 8, "hang_min": 20}
    write_job_file(folder, resources=resources)
    beat = {
        "nonce": attempt.nonce,
        **Pulse().facts(),
        "doing": "training",
        "doing_s": 1000,
        "step": 40,
        "steps": 100,
    }
    beat |= {
        "step_s": 5,
        "loss": 1.5,
        "train_loss": "nan",
        "steps_per_s": 0.1,
        "tokens_per_s": 1234.5,
    } | facts
    (folder / NAME).write_text(json.dumps(beat))
    rest(folder, age_s)
    return attempt


def rest(folder: Path, age_s: float) -> None:
    """Makes all files of a job so old."""
    for path in [*folder.glob("*.json"), *folder.glob("journal/*")]:
        os.utime(path, (time.time() - age_s,) * 2)


def test_a_live_run_tells_what_it_does(workspace: Workspace) -> None:
    """Step, losses, speed, time left, age of the heartbeat, GPUs held and node, without
    a look at the journal."""
    beats(workspace)
    found = state(workspace, FakeSlurm(RUNNING))

    assert (found.state, found.attempt, found.step, found.steps, found.loss) == (
        "running",
        1,
        40,
        100,
        1.5,
    )
    assert (found.tokens_per_s, found.gpus, found.node, found.flag) == (
        1234.5,
        16,
        "n2",
        None,
    )
    assert found.eta_s == pytest.approx(600 - 5 - 3, abs=1)
    assert found.heartbeat_s == pytest.approx(3, abs=1)


def test_without_a_sign_of_life_nobody_knows(workspace: Workspace) -> None:
    """After a minute of silence a job is `unknown` whatever squeue says, and is not
    submitted again meanwhile."""
    beats(workspace, age_s=61)
    found = state(workspace, FakeSlurm(RUNNING))

    assert (found.state, found.in_queue, found.gpus) == ("unknown", True, 16)
    assert found.cause and found.cause.startswith("no sign of life for 61 s on ")
    assert _decide(None, found, Allow(retry=True))[0] == "skip"  # type: ignore[arg-type]


def test_a_journal_that_grows_is_a_sign_of_life(workspace: Workspace) -> None:
    """Where the heartbeat cannot be written, what is journalled counts."""
    beats(workspace, age_s=300)
    os.utime(next((workspace.root / ITEM / "journal").glob("*")))

    assert state(workspace, FakeSlurm(RUNNING)).state == "running"


def test_a_suspended_job_may_be_silent(workspace: Workspace) -> None:
    """Slurm has stopped its processes."""
    beats(workspace, age_s=300)

    assert (
        state(workspace, FakeSlurm(RUNNING.replace("RUNNING", "SUSPENDED"))).state
        == "running"
    )


@pytest.mark.parametrize("outcome", [None, "continue", "failed"])
def test_a_requeued_job_starts_before_its_attempt_begins(
    workspace: Workspace, outcome: str | None
) -> None:
    """Signs and records older than the job's start are of the attempt before: it is
    starting, as no known attempt."""
    attempt = beats(workspace)
    if outcome:
        attempts.end_attempt(workspace.root / ITEM, attempt, outcome)
    rest(workspace.root / ITEM, 130)
    found = state(workspace, FakeSlurm(RUNNING.replace("2:00:00", "0:05")))

    assert (found.state, found.doing, found.attempt, found.step) == (
        "running",
        "starting",
        None,
        None,
    )


def test_a_job_that_never_begins_is_unknown(workspace: Workspace) -> None:
    """Minutes after its start without an attempt, something is wrong on its node."""
    submitted(workspace)

    assert (
        state(workspace, FakeSlurm(RUNNING.replace("2:00:00", "0:59"))).doing
        == "starting"
    )
    assert (
        state(workspace, FakeSlurm(RUNNING)).cause
        == "not begun 7200 s after its start on n2"
    )


def test_a_job_whose_processes_leave_has_failed(workspace: Workspace) -> None:
    """A record that this start has written counts while Slurm still clears up; the run
    is not submitted yet."""
    ended(workspace, submitted(workspace), "failed")

    found = state(workspace, FakeSlurm(RUNNING.replace("RUNNING", "COMPLETING")))
    assert (found.state, found.cause, found.in_queue) == ("failed", "why", True)


BEGAN = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 7200))


@pytest.mark.parametrize("start", [BEGAN, "N/A"], ids=["begun", "no start"])
@pytest.mark.parametrize(
    ("word", "elapsed", "ago_s"),
    [
        pytest.param("COMPLETING", "0:03", 30, id="an epilog, after seconds of work"),
        pytest.param("COMPLETING", "10:00", 290, id="a slow epilog"),
        pytest.param("STAGE_OUT", "10:00", 290, id="files are copied"),
    ],
)
def test_a_recorded_end_is_the_end_while_slurm_clears_up(
    workspace: Workspace, word: str, elapsed: str, ago_s: float, start: str
) -> None:
    """Elapsed time stands still then, and does not make a job that has failed begin anew."""
    ended(workspace, submitted(workspace), "failed")
    rest(workspace.root / ITEM, ago_s)
    found = state(workspace, FakeSlurm(f"7|{word}|None|{start}|{elapsed}|n1"))

    assert (found.state, found.cause, found.doing) == ("failed", "why", "leaving")
    told = why.make_why_row("r", "g", found, why.of_job(workspace, ITEM, found))["next"]
    assert told.endswith("once Slurm has cleared up after its job")


def test_a_job_that_slurm_clears_up_after_makes_nothing_more() -> None:
    """Nothing new waits for a prepare job that has failed, however long its epilog takes."""
    failed = JobState(state="failed", in_queue=True, doing="leaving")
    assert submit_plan._is_under_way(failed) is False
    assert submit_plan._is_under_way(JobState(state="unknown", in_queue=True)) is True


def test_an_epilog_that_hangs_does_not_hold_a_run_for_ever(
    workspace: Workspace,
) -> None:
    """After minutes a run that has failed may be retried; what holds its node is flagged."""
    ended(workspace, submitted(workspace), "failed")
    rest(workspace.root / ITEM, 2400)
    found = state(workspace, FakeSlurm(f"7|COMPLETING|None|{BEGAN}|10:00|n1"))

    assert (found.state, found.cause, found.in_queue) == ("failed", "why", False)
    assert found.flag == (
        "its Slurm job 7 still holds its allocation on n1 40 min after its end; Slurm is still"
        " clearing up"
    )


def test_a_suspended_job_that_has_ended_has_ended(workspace: Workspace) -> None:
    """Elapsed time stands still while a job is suspended, too."""
    ended(workspace, submitted(workspace), "failed")
    rest(workspace.root / ITEM, 3600)
    found = state(workspace, FakeSlurm(f"7|SUSPENDED|None|{BEGAN}|10:00|n1"))

    assert (found.state, found.cause) == ("failed", "why")


def test_what_ended_without_a_record_is_leaving_not_starting(
    workspace: Workspace,
) -> None:
    """How it ended accounting says later; after minutes nobody knows, and it may be
    retried."""
    submitted(workspace)
    just_now = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 60))
    found = state(workspace, FakeSlurm(f"7|COMPLETING|None|{just_now}|0:03|n1"))
    assert (found.state, found.doing, found.in_queue) == ("running", "leaving", True)

    found = state(workspace, FakeSlurm(f"7|COMPLETING|None|{BEGAN}|0:03|n1"))
    assert (found.state, found.in_queue) == ("unknown", False)
    assert "Slurm has been clearing up after it for 1" in (found.cause or "")


@pytest.mark.parametrize("silent_s", [3, 290])
def test_a_job_that_was_suspended_is_not_cleared_up_after_for_as_long(
    workspace: Workspace, silent_s: int
) -> None:
    """Slurm's count leaves out how long it was suspended: what it has written last tells
    when it was alive. No second job is sent while its processes leave."""
    beats(workspace, age_s=silent_s)
    found = state(workspace, FakeSlurm(f"7|COMPLETING|None|{BEGAN}|0:40:00|n1"))
    assert (found.state, found.doing, found.in_queue) == ("running", "leaving", True)

    rest(workspace.root / ITEM, 2000)
    found = state(workspace, FakeSlurm(f"7|COMPLETING|None|{BEGAN}|0:40:00|n1"))
    assert (found.state, found.in_queue) == ("unknown", False)


@pytest.mark.parametrize("outcome", [None, "continue", "failed"])
@pytest.mark.parametrize("word", ["CONFIGURING", "POWER_UP_NODE"])
def test_a_job_whose_nodes_boot_is_starting(
    workspace: Workspace, word: str, outcome: str | None
) -> None:
    """For as long as they take, whatever an attempt before has left: nothing of it runs."""
    attempt = beats(workspace)
    if outcome:
        attempts.end_attempt(workspace.root / ITEM, attempt, outcome)
    rest(workspace.root / ITEM, 600)
    found = state(workspace, FakeSlurm(f"7|{word}|None|{BEGAN}|20:00|n1"))

    assert (found.state, found.doing, found.attempt) == ("running", "starting", None)
    assert found.reason == f"Slurm makes its nodes ready for 20 min ({word})"


def test_a_long_prolog_or_setup_line_is_told_and_no_fault(
    workspace: Workspace,
) -> None:
    """Before its script has printed a word a job is in the site's prolog; then the
    setup line that is at work is named. Past these it has not begun."""
    submission = submitted(workspace)
    slurm = FakeSlurm(RUNNING.replace("2:00:00", "20:00"))
    found = state(workspace, slurm)
    assert (found.state, found.doing) == ("running", "starting")
    assert found.reason == (
        "its script has not begun 1200 s after its start on n2: a prolog of the site?"
    )

    log = workspace.submission(submission.id) / "7_0_log.out"
    log.parent.mkdir(parents=True)
    begins = (
        "=== zsg start 0, job 7, node n2, 2026-11-28T22:00:00Z ===\n=== zsg setup line 1 of 1:"
        " cp -r /data /local ===\n"
    )
    log.write_text(begins)
    found = state(workspace, slurm)
    assert (found.state, found.doing) == ("running", "starting")
    assert "setup line 1 of 1 is the last that began: cp -r" in (found.reason or "")

    log.write_text(f"{begins}\n=== zsg setup done ===\n")
    assert state(workspace, slurm).cause == "not begun 1200 s after its start on n2"


@pytest.mark.parametrize("sacct", ["7|NODE_FAIL|1:0", "7|CANCELLED by 0|0:0"])
def test_no_end_is_told_of_what_still_lives(workspace: Workspace, sacct: str) -> None:
    """Where slurmd is dead and the ranks are not, accounting has the end of a job that goes on."""
    beats(workspace, age_s=3)
    assert state(workspace, FakeSlurm(sacct=sacct)).state == "unknown"

    rest(workspace.root / ITEM, 100)
    assert state(workspace, FakeSlurm(sacct=sacct)).state in ("failed", "cancelled")


@pytest.mark.parametrize(
    ("facts", "flag"),
    [
        pytest.param(
            {"step_s": 1300, "doing_s": 9000},
            "no step for 22 min, 16 GPUs held",
            id="no step",
        ),
        pytest.param({"step_s": 1100, "doing_s": 9000}, None, id="a slow step"),
        pytest.param(
            {"step_s": 1300, "doing_s": 60}, None, id="an evaluation has ended just now"
        ),
        pytest.param(
            {"doing": "measuring", "step_s": 1300, "doing_s": 1300},
            "measuring for 22 min, 16 GPUs held",
            id="measuring",
        ),
        pytest.param(
            {
                "doing": "measuring",
                "step_s": 1300,
                "doing_s": 1300,
                "longest_s": {"measuring": 600},
            },
            None,
            id="evaluations that take long",
        ),
        pytest.param(
            {"doing": "starting", "step_s": None, "step": None, "doing_s": 1300},
            "starting for 22 min, 16 GPUs held",
            id="starting",
        ),
        pytest.param(
            {"doing": "preparing", "step_s": None, "step": None, "doing_s": 9000},
            None,
            id="a prepare job",
        ),
    ],
)
def test_a_run_that_stands_still_is_flagged(
    workspace: Workspace, facts: dict[str, Any], flag: str | None
) -> None:
    """Its heart beats and no step comes: status says for how long, and what it holds."""
    beats(workspace, age_s=0, **facts)

    assert state(workspace, FakeSlurm(RUNNING)).flag == flag


def test_a_waiting_job_tells_why_and_until_when(workspace: Workspace) -> None:
    """The pending reason and the start that Slurm expects, where it expects one."""
    submitted(workspace)
    found = state(workspace, FakeSlurm("7|PENDING|Resources|2026-11-25T10:00:00|0:00|"))

    assert (found.state, found.reason, found.in_queue) == ("queued", "Resources", True)
    assert (
        time.strftime("%Y-%m-%dT%H:%M", time.localtime(found.starts))
        == "2026-11-25T10:00"
    )
    assert state(workspace, FakeSlurm("7|PENDING|Priority|N/A|0:00|")).starts is None


def test_where_there_is_no_accounting_it_is_not_asked(workspace: Workspace) -> None:
    """A profile may say so; a job that left the queue without a record is unknown then."""
    from launcher.status.status import collect_states
    from launcher.workspace.ledger import Ledger

    submitted(workspace)
    slurm, ledger = FakeSlurm(), Ledger(workspace)
    ledger.submissions = {
        key: replace(one, sacct=False) for key, one in ledger.submissions.items()
    }

    found = collect_states(workspace, [ITEM], ledger, slurm)[ITEM]
    assert (slurm.asked, found.state) == (["squeue"], "unknown")


def test_a_job_of_this_machine_that_is_stopped_is_flagged(workspace: Workspace) -> None:
    """Its lock says that its process lives, so it runs; that it shows nothing is said."""
    import fcntl

    attempt = attempts.begin_attempt(
        workspace.root / ITEM, submitted(workspace, "local").id
    )
    (workspace.root / ITEM / NAME).write_text(
        json.dumps({"nonce": attempt.nonce, "note": None, **Pulse().facts()})
    )
    rest(workspace.root / ITEM, 100)
    with (workspace.root / ITEM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found: JobState = state(workspace)

    assert (found.state, found.flag) == ("running", "no sign of life for 100 s")
