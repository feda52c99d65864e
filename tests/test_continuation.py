"""Does a job that its time limit has stopped go on by itself, as often as it may, and
never for nothing?"""

import os
import signal
import subprocess
from typing import Any

import pytest

from jobs.contract import continuation
from jobs.contract.continuation import (
    JobEnd,
    Policy,
    SlurmAnswer,
    chain_dependency,
    choose_policy,
    decide_end,
    exit_code,
)
from jobs.contract.exit_record import ExitRecord
from jobs.runtime.requeue import ask_slurm, requeue_job


class Scontrol:
    """scontrol that answers with a fixed text, or fails with one, and remembers what it
    was asked."""

    def __init__(
        self, said: str = "", trouble: str = "", missing: bool = False
    ) -> None:
        self.said, self.trouble, self.missing = said, trouble, missing
        self.asked: list[list[str]] = []

    def __call__(
        self, argv: list[str], **options: object
    ) -> subprocess.CompletedProcess[str]:
        self.asked.append(argv)
        if self.missing:
            raise FileNotFoundError("scontrol")
        return subprocess.CompletedProcess(
            argv, int(bool(self.trouble)), self.said, self.trouble
        )


REQUEUE, CHAIN = Policy(by="requeue", most=3), Policy(by="chain", most=3)
NOW, PREEMPTED = SlurmAnswer(), SlurmAnswer(is_preempted=True)


def previous(**facts: Any) -> ExitRecord | None:
    """The end of the start before; none without facts."""
    return (
        ExitRecord(attempt=1, submission="s", nonce="n", outcome="continue", **facts)
        if facts
        else None
    )


def interrupted(policy: Policy | None, **facts: Any) -> JobEnd:
    """A train job that was interrupted after it had saved a new state, where `facts` do
    not say otherwise."""
    plain: dict[str, Any] = {
        "kind": "train",
        "submission": "s",
        "outcome": "continue",
        "policy": policy,
        "saved_before": 4,
        "saved": 8,
    }
    return JobEnd(**plain | facts)


NOTHING_NEW = {"saved_before": 8, "saved": 8}
NEVER_SAVED = {"saved_before": None, "saved": None}
MOST = {"continued": 3}
ROWS = {
    "requeue": (REQUEUE, {}, {}, NOW, "continue", "requeue", "requeued"),
    "the last time": (REQUEUE, {"continued": 2}, {}, NOW, "continue", "requeue", ""),
    "limit": (REQUEUE, MOST, {}, NOW, "continue", None, "3 times, the most"),
    "preempted": (REQUEUE, MOST, {}, PREEMPTED, "continue", "requeue", ""),
    "forbidden": (
        REQUEUE,
        {},
        {},
        SlurmAnswer(may_requeue=False),
        "continue",
        None,
        "Requeue=0",
    ),
    "container": (
        REQUEUE,
        {},
        {},
        SlurmAnswer(trouble="no scontrol"),
        "continue",
        None,
        "no scontrol",
    ),
    "chain": (
        CHAIN,
        {},
        {"links_left": 2},
        SlurmAnswer(trouble="no scontrol"),
        "continue",
        "chain",
        "2 links",
    ),
    "end of a chain": (CHAIN, {}, {}, NOW, "continue", None, "last link"),
    "a chain at its limit": (
        CHAIN,
        MOST,
        {"links_left": 1},
        NOW,
        "continue",
        None,
        "3 times, the most",
    ),
    "a preempted link": (
        CHAIN,
        MOST,
        {"links_left": 1},
        PREEMPTED,
        "continue",
        "chain",
        "1 links",
    ),
    "a link without a step in three": (
        CHAIN,
        {"stalled": 2},
        NOTHING_NEW | {"links_left": 1},
        NOW,
        "failed",
        None,
        "3 times in a row",
    ),
    "a step at last": (REQUEUE, {"stalled": 2}, {}, NOW, "continue", "requeue", ""),
    "no step in three": (
        REQUEUE,
        {"stalled": 2},
        NOTHING_NEW,
        NOW,
        "failed",
        None,
        "3 times in a row",
    ),
    "never a state": (
        REQUEUE,
        {"stalled": 2},
        NEVER_SAVED,
        NOW,
        "failed",
        None,
        "3 times",
    ),
    "preempted again": (
        REQUEUE,
        {"stalled": 2},
        NOTHING_NEW,
        PREEMPTED,
        "continue",
        "requeue",
        "",
    ),
    "an evaluator": (
        REQUEUE,
        {},
        {"kind": "evaluate"},
        NOW,
        "continue",
        "requeue",
        "requeued",
    ),
}


@pytest.mark.parametrize(
    ("policy", "past", "facts", "slurm", "outcome", "goes_on", "told"),
    ROWS.values(),
    ids=ROWS,
)
def test_what_follows_an_interruption(
    policy, past, facts, slurm, outcome, goes_on, told
):
    """It continues until the limit, has failed where nothing is gained, and else waits
    and says why."""
    decision = decide_end(
        interrupted(policy, previous=previous(**past), slurm=slurm, **facts)
    )

    assert (decision.outcome, decision.goes_on) == (outcome, goes_on)
    assert told in decision.facts["evidence"]
    cause = "preempted" if slurm.is_preempted else "time limit"
    assert decision.facts["cause"] == cause
    assert (
        goes_on
        or outcome == "failed"
        or decision.facts["evidence"].endswith("zsg submit resumes it")
    )


POLICIES = {"none": None, "requeue": REQUEUE, "chain": CHAIN}


@pytest.mark.parametrize("links_left", [0, 2])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("outcome", ["continue", "failed", "cancelled"])
def test_a_wish_to_cancel_outweighs_all(outcome, policy, links_left):
    """Whatever the profile says and however it ended: no requeue, no next link."""
    decision = decide_end(
        interrupted(
            policy, outcome=outcome, links_left=links_left, is_cancel_asked=True
        )
    )

    assert (decision.outcome, decision.goes_on) == ("cancelled", None)
    assert decision.facts == {"cause": "cancelled", "evidence": "by zsg cancel"}
    code = exit_code(decision.outcome, decision.goes_on, bool(links_left))
    assert code == bool(links_left)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        pytest.param({"outcome": "done"}, "done", id="done"),
        pytest.param({"outcome": "done", "is_cancel_asked": True}, "done", id="late"),
        pytest.param({"outcome": "failed"}, "failed", id="error"),
        pytest.param({"outcome": "cancelled"}, "cancelled", id="scancel"),
        pytest.param({"kind": "prepare"}, "failed", id="nothing to resume from"),
        pytest.param({"kind": "sample"}, "failed", id="answers are kept"),
    ],
)
def test_what_no_policy_changes(policy, facts, outcome):
    """What has ended has ended, and a job without a state is not repeated by itself."""
    decision = decide_end(interrupted(policy, links_left=2, **facts))

    assert (decision.outcome, decision.goes_on) == (outcome, None)


def test_without_a_policy_an_interrupted_job_waits():
    """Nothing is counted, as older versions did not."""
    decision = decide_end(interrupted(None))
    assert (decision.outcome, decision.facts) == ("continue", {})


def test_stops_are_counted():
    """Each stop is one more; a new state ends the count of those in vain; those of
    another submission do not count."""
    first = decide_end(interrupted(REQUEUE, **NEVER_SAVED)).facts
    before = previous(continued=first["continued"], stalled=first["stalled"])
    second = decide_end(interrupted(REQUEUE, previous=before)).facts
    other = decide_end(interrupted(REQUEUE, previous=before, submission="t")).facts

    assert [(facts["continued"], facts["stalled"]) for facts in (first, second)] == [
        (1, 1),
        (2, 0),
    ]
    assert other["continued"] == 1


@pytest.mark.parametrize(
    ("outcome", "goes_on", "has_dependents", "code"),
    [
        pytest.param("failed", None, False, 1, id="failed"),
        pytest.param("continue", "requeue", True, 0, id="requeued"),
        pytest.param("continue", "chain", True, 0, id="the next link starts"),
        pytest.param("continue", None, True, 1, id="dependents must not start"),
        pytest.param("cancelled", None, True, 1, id="nor after a cancel"),
        pytest.param("continue", None, False, 0, id="nobody waits"),
    ],
)
def test_the_exit_code_is_for_those_that_depend_on_it(
    outcome, goes_on, has_dependents, code
):
    """Slurm starts them after 0 alone."""
    assert exit_code(outcome, goes_on, has_dependents) == code


@pytest.mark.parametrize(
    ("on_time_limit", "max_continues", "policy"),
    [
        ("none", None, None),
        ("none", 5, None),
        ("requeue", None, Policy(by="requeue", most=20)),
        ("requeue", 5, Policy(by="requeue", most=5)),
        ("chain", None, Policy(by="chain", most=3)),
    ],
)
def test_the_policy_is_the_profiles(on_time_limit, max_continues, policy):
    """As many continues as it says, or a default."""
    assert choose_policy(on_time_limit, max_continues) == policy


def test_each_task_depends_on_its_own():
    """Of an array by aftercorr, of one job by afterok."""
    assert chain_dependency(["7_0", "7_1"]) == "aftercorr:7"
    assert chain_dependency(["7"]) == "afterok:7"


OURS = f"JobName=zsg-g-train-0123abcd-2 UserId=me({os.getuid()})"


@pytest.mark.parametrize(
    ("scontrol", "expected"),
    [
        (
            Scontrol(
                f"JobId=7 {OURS} Requeue=1 PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None"
            ),
            SlurmAnswer(),
        ),
        (
            Scontrol(f"JobId=7 {OURS} Requeue=0 PreemptTime=None"),
            SlurmAnswer(may_requeue=False),
        ),
        (
            Scontrol(f"JobId=7 {OURS} Requeue=1 PreemptTime=2026-01-01T00:00:00"),
            SlurmAnswer(is_preempted=True),
        ),
        (
            Scontrol(trouble="Socket timed out\n"),
            SlurmAnswer(trouble="Socket timed out"),
        ),
        (Scontrol(missing=True), SlurmAnswer(trouble="scontrol show: scontrol")),
        (
            Scontrol("JobId=7 JobName=thesis UserId=ada(4242) Requeue=1"),
            SlurmAnswer(trouble="job 7_1 is thesis of ada(4242), not this"),
        ),
    ],
    ids=["allowed", "forbidden", "preempted", "no answer", "no scontrol", "another's"],
)
def test_slurm_is_asked_of_the_job(scontrol, expected):
    """Whether the job may be requeued and is preempted, by its own id; what cannot be
    asked is told."""
    assert ask_slurm("7_1", "0123abcd", scontrol) == expected
    assert scontrol.asked == [["scontrol", "show", "job", "--oneliner", "7_1"]]


def test_a_preemption_that_was_quicker_is_no_trouble():
    """A job that Slurm has put back into the queue meanwhile is there once."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert (
            requeue_job("7", Scontrol(trouble="Job is pending execution for job 7"))
            is None
        )
        assert (
            requeue_job("7", Scontrol(trouble="Access/permission denied"))
            == "Access/permission denied"
        )
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_a_job_replayed_by_hand_is_nobodys_to_requeue(monkeypatch):
    """Only what the submission's own script has started may put its job back into the queue."""
    monkeypatch.delenv(continuation.SUBMISSION, raising=False)
    assert not continuation.is_ours("s")
    monkeypatch.setenv(continuation.SUBMISSION, "s")
    assert continuation.is_ours("s")
    assert not continuation.is_ours("t")
