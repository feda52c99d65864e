"""Decides what becomes of a job when it ends (its time limit or timeout, a preemption,
a cancel, an error): whether and how it resumes. Nothing else decides that.

                    queued <────────────────────────────────────────┐
                      │                                             │
                      v      finished                               │
                   running ───────────> done                        │
                      │ │ │  an error                               │
                      │ │ └───────────> failed <─── no new state ─┐ │
                      │ │    zsg cancel, or SIGTERM of scancel    │ │
                      │ └─────────────> cancelled                 │ │
                      │                                           │ │
                      │  its time limit or a preemption           │ │
                      v  (USR1 or USR2): it saves its state       │ │
                 interrupted ─────────────────────────────────────┘ │
                      │  on_time_limit: requeue   the same job      │
                      ├─────────────────────────────────────────────┤
                      │  on_time_limit: chain     the next link     │
                      ├─────────────────────────────────────────────┤
                      │  none, or no more of them zsg submit        │
                      └──────── waiting ────────────────────────────┘

An interrupted job has the outcome `continue` in its exit record, and status shows it as
waiting. What happens next is the record's `goes_on`: `requeue`, `chain`, or null, with
the reason as its evidence. It counts, over the starts of one submission, how often the
time limit interrupted it (`continued`, at most slurm.max_continues) and how often in a
row without a new state to resume from (`stalled`): three such starts have failed, for a
fourth would gain nothing. A preemption counts for neither. A wish to cancel outweighs
all: see jobs.contract.cancellation.

Who does what is decided here:

- jobs.runtime.signals says what a signal means, and has all ranks stop after one step.
- jobs.entry asks `decide_end` when a job ends, and writes the exit record.
- jobs.runtime.requeue asks Slurm of the job, and puts it back into the queue.
- A chain is queued when it is submitted (launcher.submission): each link depends on the
  one before (`chain_dependency`), and starts only if that one exits with 0: see
  `exit_code`. A link whose job is done finds so and ends at once.
- The job's script exports what a job must know of that (`script_exports`).
- launcher.status shows the link that is at work or comes next.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.contract import cancellation
from jobs.contract.causes import Cause
from jobs.contract.exit_record import ExitRecord, replace_unset
from jobs.contract.job_file import Policy
from jobs.contract.states import Outcome

NONE, REQUEUE, CHAIN = "none", "requeue", "chain"
# how often a job continues where the profile does not say it
DEFAULT_CONTINUES = {REQUEUE: 20, CHAIN: 3}
# set by the script of a submission: a job replayed by hand is nobody's to requeue
SUBMISSION = "ZSG_SUBMISSION"
LINKS_LEFT = "ZSG_LINKS_LEFT"  # of a chain, how many jobs wait behind this one
STALLED_MOST = 3  # starts in a row that may end without a new state
NEXT = "zsg submit resumes it"
RESUMABLE_KINDS = ("train", "evaluate")
# those that go on where they were, once somebody submits them again: from what
CONTINUED_BY_SUBMIT = {"sample": "answers", "score": "scores"}


@dataclass(frozen=True, kw_only=True)
class SlurmAnswer:
    """What Slurm says of the job it is about to end. `trouble`: why it cannot be asked."""

    may_requeue: bool = True
    is_preempted: bool = False
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """All that decides what follows from the end of one start of a job.

    `outcome`: done, continue (interrupted), failed or cancelled, as the job itself
    ended. `policy`: None where nothing continues by itself. `previous`: the exit record
    of the start before. `saved_before` and `saved`: the newest states at its start and
    now; a job of another kind gives anything that grows.
    """

    kind: str
    submission: str
    outcome: Outcome
    is_cancel_asked: bool = False
    policy: Policy | None = None
    previous: ExitRecord | None = None
    saved_before: int | None = None
    saved: int | None = None
    links_left: int = 0
    slurm: SlurmAnswer = field(default_factory=SlurmAnswer)


@dataclass(frozen=True)
class Decision:
    """The outcome, and what the exit record says of it."""

    outcome: Outcome
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def goes_on(self) -> str | None:
        """REQUEUE, CHAIN, or None: by nothing but `zsg submit`, if at all."""
        return self.facts.get("goes_on")


def choose_policy(on_time_limit: str, max_continues: int | None) -> Policy | None:
    """The policy that a profile's slurm.on_time_limit and slurm.max_continues stand for."""
    if on_time_limit == NONE:
        return None
    max_links = max_continues or DEFAULT_CONTINUES[on_time_limit]
    return Policy(by=on_time_limit, most=max_links)


def decide_end(end: JobEnd) -> Decision:
    """What the end of a start of a job is, and what happens next."""
    if end.outcome not in (Outcome.CONTINUE, Outcome.FAILED, Outcome.CANCELLED):
        return Decision(end.outcome)
    if end.is_cancel_asked:
        return Decision(Outcome.CANCELLED, dict(cancellation.TOLD))
    if end.outcome != Outcome.CONTINUE:
        return Decision(end.outcome)
    if end.kind in CONTINUED_BY_SUBMIT:
        products = CONTINUED_BY_SUBMIT[end.kind]
        evidence = f"zsg submit continues from the {products} it has"
        return Decision(
            Outcome.FAILED, {"cause": Cause.TIME_LIMIT, "evidence": evidence}
        )
    if end.kind not in RESUMABLE_KINDS:
        return Decision(Outcome.FAILED)  # it has nothing to resume from
    if end.policy is None:
        return Decision(Outcome.CONTINUE)
    return _decide_by_policy(end, end.policy)


def _decide_by_policy(end: JobEnd, policy: Policy) -> Decision:
    continued, stalled = _count_stops(end)
    cause = Cause.PREEMPTED if end.slurm.is_preempted else Cause.TIME_LIMIT
    facts: dict[str, Any] = {
        "continued": continued,
        "stalled": stalled,
        "goes_on": None,
        "cause": cause,
    }
    if stalled >= STALLED_MOST:
        facts["evidence"] = (
            f"stopped {stalled} times in a row before a new step was saved; give it a longer"
            " train.time_min, then zsg retry"
        )
        return Decision(Outcome.FAILED, facts)
    obstacle = _find_obstacle(end, policy, continued)
    if obstacle:
        facts["evidence"] = f"{obstacle}; {NEXT}"
        return Decision(Outcome.CONTINUE, facts)
    facts["goes_on"] = policy.by
    facts["evidence"] = (
        "requeued" if policy.by == REQUEUE else f"{end.links_left} links are left"
    )
    return Decision(Outcome.CONTINUE, facts)


def _count_stops(end: JobEnd) -> tuple[int, int]:
    """How often this submission's job was interrupted, this time counted, and how often
    in a row without a new state."""
    previous = end.previous
    is_of_this = previous is not None and (
        (previous.submission, previous.outcome) == (end.submission, Outcome.CONTINUE)
    )
    continued = replace_unset(previous.continued, 0) if previous and is_of_this else 0
    stalled = replace_unset(previous.stalled, 0) if previous and is_of_this else 0
    counted = 0 if end.slurm.is_preempted else 1
    if end.saved is not None and end.saved != end.saved_before:
        return continued + counted, 0
    return continued + counted, stalled + counted


def _find_obstacle(end: JobEnd, policy: Policy, continued: int) -> str | None:
    """Why the job does not continue by itself; None where it does."""
    if continued > policy.most:
        return f"it has gone on {policy.most} times, the most that slurm.max_continues allows"
    if policy.by == CHAIN:
        is_last = not end.links_left
        return (
            "it was the last link of its chain (slurm.max_continues)"
            if is_last
            else None
        )
    if end.slurm.trouble:
        return f"it cannot be requeued: {end.slurm.trouble}"
    return None if end.slurm.may_requeue else "Slurm says Requeue=0 of it"


def exit_code(outcome: str, goes_on: str | None, has_dependents: bool) -> int:
    """The exit code of a job that ends so: 0 lets the jobs that depend on it
    (afterok, aftercorr) start.

    They must not start without what it was to make, unless it continues by itself; the
    next link of a chain is a dependent, too.
    """
    if outcome == Outcome.FAILED:
        return 1
    return int(has_dependents and not goes_on)


def chain_dependency(ids: Sequence[str]) -> str:
    """What the next link of a chain depends on: each task on its own in the array
    before, and on no other.

    A task whose own was not successful is never started.
    """
    job_id, is_array, _ = ids[0].partition("_")
    return f"{'aftercorr' if is_array else 'afterok'}:{job_id}"


def script_exports(submission: str, links_left: int) -> list[str]:
    """What a job's script exports last, so that the job knows whose it is and how many
    links wait behind it."""
    return [
        f"export {SUBMISSION}={submission}",
        f"export {LINKS_LEFT}={links_left}",
    ]


def is_ours(submission: str) -> bool:
    """Whether this process runs in a job that the submission's own script has started."""
    return os.environ.get(SUBMISSION) == submission


def is_replaced(submission: str) -> bool:
    """Whether the submission whose script runs here is not the one whose job the folder
    now describes."""
    return os.environ.get(SUBMISSION, submission) != submission


def count_links_left() -> int:
    """How many links of the chain wait behind this job."""
    return int(os.environ.get(LINKS_LEFT, "0"))
