"""Does a job that its time limit has stopped go on by itself, as often as it may, and
never for nothing?"""

import os
import signal
import subprocess
from typing import Any

import pytest

from jobs.contract.exit_record import ExitRecord
from jobs.runtime import going_on
from jobs.runtime.going_on import Slurm, Stop, decide

REQUEUE, CHAIN = {"by": "requeue", "most": 3}, {"by": "chain", "most": 3}
PROGRESS = Stop(before=4, saved=8)
LINKED = Stop(before=4, saved=8, links_left=2)


def ended(**facts: Any) -> ExitRecord | None:
    """The end of the start before; none without facts."""
    return (
        ExitRecord(attempt=1, submission="s", nonce="n", outcome="continue", **facts)
        if facts
        else None
    )


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


@pytest.mark.parametrize(
    ("rule", "past", "stop", "slurm", "outcome", "goes_on", "told"),
    [
        pytest.param(
            REQUEUE,
            {},
            PROGRESS,
            Slurm(),
            "continue",
            "requeue",
            "requeued",
            id="requeue",
        ),
        pytest.param(
            REQUEUE,
            {"continued": 2},
            PROGRESS,
            Slurm(),
            "continue",
            "requeue",
            "",
            id="the last time",
        ),
        pytest.param(
            REQUEUE,
            {"continued": 3},
            PROGRESS,
            Slurm(),
            "continue",
            None,
            "3 times, the most",
            id="limit",
        ),
        pytest.param(
            REQUEUE,
            {"continued": 3},
            PROGRESS,
            Slurm(preempted=True),
            "continue",
            "requeue",
            "",
            id="preempted",
        ),
        pytest.param(
            REQUEUE,
            {},
            PROGRESS,
            Slurm(may_requeue=False),
            "continue",
            None,
            "Requeue=0",
            id="forbidden",
        ),
        pytest.param(
            REQUEUE,
            {},
            PROGRESS,
            Slurm(trouble="no scontrol"),
            "continue",
            None,
            "no scontrol",
            id="container",
        ),
        pytest.param(
            CHAIN,
            {},
            LINKED,
            Slurm(trouble="no scontrol"),
            "continue",
            "chain",
            "2 links",
            id="chain",
        ),
        pytest.param(
            CHAIN,
            {},
            PROGRESS,
            Slurm(),
            "continue",
            None,
            "last link",
            id="end of a chain",
        ),
        pytest.param(
            REQUEUE,
            {"stalled": 2},
            PROGRESS,
            Slurm(),
            "continue",
            "requeue",
            "",
            id="a step at last",
        ),
        pytest.param(
            REQUEUE,
            {"stalled": 2},
            Stop(8, 8),
            Slurm(),
            "failed",
            None,
            "3 times in a row",
            id="no step in three",
        ),
        pytest.param(
            REQUEUE,
            {"stalled": 2},
            Stop(None, None),
            Slurm(),
            "failed",
            None,
            "3 times",
            id="never a state",
        ),
        pytest.param(
            REQUEUE,
            {"stalled": 2},
            Stop(8, 8),
            Slurm(preempted=True),
            "continue",
            "requeue",
            "",
            id="preempted again",
        ),
    ],
)
def test_what_follows_a_stop(rule, past, stop, slurm, outcome, goes_on, told):
    """It goes on until the limit, has failed where nothing is gained, and else waits
    and says why."""
    verdict = decide(rule, ended(**past), stop, slurm)

    assert (verdict.outcome, verdict.goes_on) == (outcome, goes_on)
    assert told in verdict.facts["evidence"]
    assert verdict.facts["cause"] == ("preempted" if slurm.preempted else "time limit")
    assert (
        goes_on
        or outcome == "failed"
        or verdict.facts["evidence"].endswith("zsg submit goes on")
    )


def test_stops_are_counted():
    """Each stop is one more; a new state ends the count of those in vain."""
    first = decide(REQUEUE, None, Stop(None, None), Slurm()).facts
    second = decide(REQUEUE, ended(**first), Stop(None, 4), Slurm()).facts

    assert [(one["continued"], one["stalled"]) for one in (first, second)] == [
        (1, 1),
        (2, 0),
    ]


OURS = f"JobName=zsg-g-train-0123abcd-2 UserId=me({os.getuid()})"


@pytest.mark.parametrize(
    ("scontrol", "expected"),
    [
        (
            Scontrol(
                f"JobId=7 {OURS} Requeue=1 PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None"
            ),
            Slurm(),
        ),
        (
            Scontrol(f"JobId=7 {OURS} Requeue=0 PreemptTime=None"),
            Slurm(may_requeue=False),
        ),
        (
            Scontrol(f"JobId=7 {OURS} Requeue=1 PreemptTime=2026-01-01T00:00:00"),
            Slurm(preempted=True),
        ),
        (Scontrol(trouble="Socket timed out\n"), Slurm(trouble="Socket timed out")),
        (Scontrol(missing=True), Slurm(trouble="scontrol show: scontrol")),
        (
            Scontrol("JobId=7 JobName=thesis UserId=ada(4242) Requeue=1"),
            Slurm(trouble="job 7_1 is thesis of ada(4242), not this"),
        ),
    ],
    ids=["allowed", "forbidden", "preempted", "no answer", "no scontrol", "another's"],
)
def test_slurm_is_asked_of_the_job(scontrol, expected):
    """Whether the job may be requeued and is preempted, by its own id; what cannot be
    asked is told."""
    assert going_on.look("7_1", "0123abcd", scontrol) == expected
    assert scontrol.asked == [["scontrol", "show", "job", "--oneliner", "7_1"]]


def test_a_preemption_that_was_quicker_is_no_trouble():
    """A job that Slurm has put back into the queue meanwhile is there once."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert (
            going_on.requeue(
                "7", Scontrol(trouble="Job is pending execution for job 7")
            )
            is None
        )
        assert (
            going_on.requeue("7", Scontrol(trouble="Access/permission denied"))
            == "Access/permission denied"
        )
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_a_job_replayed_by_hand_is_nobodys_to_requeue(monkeypatch):
    """Only what the submission's own script has started may put its job back into the queue."""
    monkeypatch.delenv(going_on.SUBMISSION, raising=False)
    assert not going_on.ours("s")
    monkeypatch.setenv(going_on.SUBMISSION, "s")
    assert going_on.ours("s")
    assert not going_on.ours("t")
