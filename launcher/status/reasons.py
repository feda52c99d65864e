"""Says in one word why a run stands where it stands, and in a sentence what the word
means; groups runs for which both are the same.

Pure: takes the rows of `zsg status`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.contract import cancellation
from jobs.contract.causes import Cause, parse_cause
from jobs.contract.states import State
from jobs.runtime import tracebacks
from launcher.status.slurm_states import NO_ANSWER
from launcher.workspace.job_state import (
    CUT_SHORT,
    HELD_BACK,
    HELD_BY_ADMIN,
    HELD_BY_USER,
    NEVER_STARTED,
    NOT_SUBMITTED,
    UNREADABLE,
    describe_release,
)

Row = Mapping[str, Any]

# of causes that are more than a word
WORDS = {
    Cause.OUT_OF_MEMORY: "memory",
    Cause.DISK_FULL: "disk",
    Cause.FILE_SYSTEM: "files",
    Cause.NCCL_TIMEOUT: "nccl",
    Cause.PEER_LOST: "peer",
    Cause.NODE_FAILURE: "node",
    Cause.TIME_LIMIT: "time",
    Cause.PREPARE_FAILED: "prepare",
    Cause.STAGE_FAILED: "stage",
    Cause.CANARY_FAILED: "canary",
    Cause.LOOK_FAILED: "look",
    Cause.SPARED: "spared",
    Cause.BAD_DATA: "data",
    Cause.PLUGIN: "plugin",
    Cause.BAD_INPUT: "input",
    Cause.LAUNCH_FAILED: "launch",
}
# of what is no cause of the closed set, by how its sentence begins
WORDS_OF_SENTENCES = {
    NOT_SUBMITTED: "unsubmitted",
    CUT_SHORT: "cut-short",
    NEVER_STARTED: "unstarted",
    NO_ANSWER: "no-answer",
    "stopped ": "stopped",
    "a stage before": "stage",
    "is being cancelled": "cancelling",
    "no sign of life": "silent",
    "not begun": "not-begun",
    "it was submitted from": "copied",
    "Slurm says": "doubtful",
    "it left no record": "no-record",
}
UNCLEAR = "unclear"
LONGEST_WORD = 16  # letters


@dataclass(frozen=True)
class Reason:
    """Why a run stands where it stands. `word`: for its line in a table; `title` and
    `text`: for a line below; both empty where the word says it all."""

    word: str
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class ReasonGroup:
    """Runs of a grid that stand where they stand for one reason. `text`: that of the
    first; in those of the others numbers and names may differ."""

    reason: Reason
    runs: list[str] = field(default_factory=list[str])
    is_trouble: bool = False


def list_reasons(row: Row) -> list[Reason]:
    """What there is to say of a run beside its numbers, the most important first."""
    found = [
        _read_flag(row),
        _read_cause(row),
        _read_replaced(row),
        _read_waiting(row),
        _read_doing(row),
        None if row["wanted"] else Reason("unlisted", "unlisted", UNLISTED),
    ]
    return [reason for reason in found if reason is not None]


UNLISTED = "no longer in the grid; zsg cancel ends it"


def describe_run(row: Row) -> str:
    """All that there is to say of a run, in one text."""
    texts = [reason.text or reason.word for reason in list_reasons(row)]
    return "; ".join(texts)


def group_reasons(rows: Sequence[Row]) -> list[ReasonGroup]:
    """The sentences of many runs, each once, those of the most runs first."""
    groups: dict[tuple[str, str], ReasonGroup] = {}
    hashes: dict[str, str] = {}
    for row in rows:
        for reason in list_reasons(row):
            if not reason.title:
                continue
            text = reason.text
            if text not in hashes:
                hashes[text] = tracebacks.hash_message(text)
            key = (reason.title, hashes[text])
            group = groups.get(key)
            if group is None:
                group = ReasonGroup(reason, is_trouble=is_troubled(row))
                groups[key] = group
            group.runs.append(row["run"])
    return sorted(groups.values(), key=_rank_group)


def _rank_group(group: ReasonGroup) -> int:
    """The groups of the most runs come first."""
    return -len(group.runs)


def is_troubled(row: Row) -> bool:
    """Whether somebody should look at a run."""
    return row["state"] in (State.FAILED, State.UNKNOWN) or bool(
        row.get("flag") or row.get("replaced")
    )


def _read_flag(row: Row) -> Reason | None:
    """What is wrong with a run. Of one that runs, a file may be unreadable; all else
    are signs that it hangs."""
    flag: str | None = row.get("flag")
    if not flag:
        return None
    if flag.startswith(UNREADABLE):
        return Reason("unreadable", "unreadable", flag)
    if row["state"] == State.RUNNING:
        return Reason("HANGS?", "HANGS?", flag)
    word = "held" if "still holds" in flag else "look"
    return Reason(word, word, flag)


def _read_cause(row: Row) -> Reason | None:
    """Why a run has ended, or was stopped."""
    cause = row["cause"]
    evidence = row["evidence"] or ""
    if not cause:
        return _read_note(row)
    if row["state"] == State.CANCELLED and cause == Cause.CANCELLED:
        if evidence == cancellation.TOLD["evidence"]:
            # by zsg cancel: the state says it
            return None
        return Reason("", "cancelled", str(evidence))
    known = parse_cause(cause)
    if known is None:
        text = cause
        if evidence:
            text = f"{cause}: {evidence}"
        word = _find_word(cause)
        return Reason(word, word, text)
    title = str(known)
    word = WORDS.get(known, title)
    return Reason(word, title, evidence)


def _read_note(row: Row) -> Reason | None:
    """What a run without a cause tells, as of a job that prepares."""
    evidence = row["evidence"]
    if not evidence:
        return None
    if row["state"] == State.RUNNING:
        return Reason(str(evidence)) if _is_word(evidence) else _cut_word(evidence)
    return Reason("note", "note", evidence)


def _find_word(sentence: str) -> str:
    for beginning, word in WORDS_OF_SENTENCES.items():
        if sentence.startswith(beginning):
            return word
    return UNCLEAR


def _read_replaced(row: Row) -> Reason | None:
    """What an earlier submission of a run still has in the queue."""
    if not row.get("replaced"):
        return None
    text = (
        f"Slurm still has {', '.join(row['replaced'])} of an earlier submission of it (zsg cancel"
        " ends that)"
    )
    return Reason("replaced", "replaced", text)


def _read_waiting(row: Row) -> Reason | None:
    """Why a run waits, in Slurm's word."""
    reason = row.get("reason")
    if not reason:
        return None
    if reason == HELD_BY_ADMIN:
        text = f"{reason}: held by an administrator, who alone can release it"
        return Reason("held", "held", text)
    if reason == HELD_BY_USER:
        text = f"{reason}: {describe_release(bool(row.get('unreleased')))}"
        return Reason("held", "held", text)
    if reason in HELD_BACK:
        return Reason("held", "held", reason)
    return Reason(reason) if _is_word(reason) else _cut_word(reason)


def _is_word(text: str) -> bool:
    return " " not in text and len(text) <= LONGEST_WORD


def _cut_word(text: str) -> Reason:
    """A sentence of others, by its first word in a table."""
    first = text.split(maxsplit=1)[0].strip(",:;")
    return Reason(first[:LONGEST_WORD], first, text)


def _read_doing(row: Row) -> Reason | None:
    doing = row.get("doing")
    if row["state"] != State.RUNNING or not doing or doing == "training":
        return None
    return Reason(doing) if _is_word(doing) else _cut_word(doing)


def format_moment(moment: float, now: float) -> str:
    """A moment (s since the epoch) as people name it: 14:05 of today, Tue 14:05 within
    six days, else 24 Dec."""
    there = time.localtime(moment)
    if there[:3] == time.localtime(now)[:3]:
        return time.strftime("%H:%M", there)
    if abs(moment - now) < 6 * 86400:
        return time.strftime("%a %H:%M", there)
    return time.strftime("%d %b", there)
