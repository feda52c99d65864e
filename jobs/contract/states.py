"""Names where a job stands: the closed sets of words that records, tables, options and
scripts use.

`State` is what status, plan and retry decide, with the scheduler's word; `Outcome` what
a job's own exit.json says; `RecordedState` what a report reads in a run's folder alone.
A word that stands in several sets means the same in each.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a job stands, by its folder, the ledger and the scheduler together."""

    WAITING = "waiting"  # for another job, or for the next submit
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"  # nobody knows: never taken for ended
    ABSENT = "absent"  # never submitted


# in which something may still write into a job's folder
ACTIVE = (State.WAITING, State.QUEUED, State.RUNNING)


class ShownState(StrEnum):
    """The states that status shows and can be asked for: of what was never submitted it
    says `unknown`, and why."""

    WAITING = State.WAITING
    QUEUED = State.QUEUED
    RUNNING = State.RUNNING
    DONE = State.DONE
    FAILED = State.FAILED
    CANCELLED = State.CANCELLED
    UNKNOWN = State.UNKNOWN


class Outcome(StrEnum):
    """How an attempt ended, by its own word."""

    DONE = "done"
    CONTINUE = "continue"  # stopped before its end, which a later attempt may reach
    FAILED = "failed"
    CANCELLED = "cancelled"


class RecordedState(StrEnum):
    """How far a run has come by its folder; whether an unfinished one lives only the
    scheduler knows."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_FINISHED = "not finished"
    NOT_BEGUN = "not begun"
