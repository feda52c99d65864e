"""Names why a run is not done: the cause, and the line that proves it; failures of a
grid by their causes.

Asked in turn: the job's own record, Slurm, the logs of all ranks. Where several ranks
complain, the cause that the others follow from counts: a rank that lost its peer is not
the one that failed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs.contract import causes, exit_record, job_file
from jobs.contract.causes import Cause
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Workspace
from jobs.contract.job_file import jobs_before
from jobs.contract.states import State
from jobs.runtime import log_marks, tracebacks
from launcher.status import logs
from launcher.status.logs import Part
from launcher.workspace.job_state import NEVER_STARTED, JobState
from zsg_core.errors import UserError

WAITED = (Cause.NCCL_TIMEOUT, Cause.PEER_LOST)
TAIL = 1 << 20  # bytes of each rank's log
# What helps, by cause; how the run is then taken up again follows from its state: see `_again`.
NEXT = {
    Cause.OUT_OF_MEMORY: (
        "a larger deepspeed.zero_stage or more nodes need less memory per GPU; zsg plan"
        " estimates it"
    ),
    Cause.DISK_FULL: "make room, or move the workspace",
    Cause.NCCL_TIMEOUT: "a rank stood still: look at the log of the one that is silent",
    Cause.PEER_LOST: "another rank ended first: zsg logs RUN --rank N",
    Cause.NODE_FAILURE: "no other run is at fault; the node is left out for a day",
    Cause.TIME_LIMIT: "save more often, or raise train.time_min",
    Cause.PREEMPTED: "another job came first; it may pass",
    Cause.CANCELLED: "somebody wanted it to end",
    Cause.SIGNAL: "it was told to stop",
    Cause.PREPARE_FAILED: "mend what the prepare job names",
    Cause.CANARY_FAILED: "see zsg why of the run that went first, and mend that",
    Cause.STAGE_FAILED: "mend the run that it starts from",
    Cause.BAD_DATA: "repair the row, or set data.on_bad_row: skip",
    Cause.BAD_INPUT: "change what the message names",
    Cause.SETUP: "mend the line in the profile's setup, or end it in `|| true` where it may fail",
    Cause.DIVERGED: (
        "change what the message names, which is another run, or take this point out by exclude"
    ),
    Cause.CLUSTER: "the message says what",
    Cause.TRACEBACK: "zsg logs RUN shows the whole traceback",
    Cause.DIED: "killed from outside, often for memory: zsg logs RUN",
}


@dataclass(frozen=True)
class Found:
    """A cause and its proof; `line` is the number in `file`, relative to the workspace."""

    cause: str
    evidence: str | None = None
    file: str | None = None
    line: int | None = None
    rank: int | None = None
    signature: str | None = None
    # ranks whose logs say nothing, where others lost or awaited somebody
    silent: list[int] | None = None


@dataclass(frozen=True)
class Proof:
    """What the text of one rank's log proves: the cause, the line of it, its offset in
    the text, a traceback's hash."""

    cause: Cause
    text: str
    offset: int
    signature: str | None = None


def in_log(text: bytes) -> Proof | None:
    """What a log proves: the cause that others follow from; among equals the first. Pure."""
    lines, offsets, place = [], [], 0
    for line in text.split(b"\n"):
        lines.append(line.decode("utf-8", "replace").rstrip("\r"))
        offsets.append(place)
        place += len(line) + 1
    begun = max((mark.start() for mark in log_marks.PATTERN.finditer(text)), default=0)
    found = [
        Proof(cause, line, offsets[n])
        for n, line in enumerate(lines)
        if (cause := causes.of_line(line))
    ]
    ended = min(
        (proof.offset for proof in found if proof.cause == Cause.CANCELLED),
        default=place,
    )
    # Who is killed once Slurm has begun to end the step was not the first to die.
    found = [
        proof for proof in found if proof.cause != Cause.DIED or proof.offset < ended
    ]
    signature = tracebacks.hash_last_traceback(lines)
    for number, line in tracebacks.find_error_lines(lines):
        found.append(
            Proof(
                causes.of_line(line) or Cause.TRACEBACK,
                line,
                offsets[number],
                signature,
            )
        )
    # What setup lines print before an attempt is no reason of its end.
    found = [
        proof for proof in found if proof.offset >= begun or proof.cause == Cause.SETUP
    ]
    return min(
        found,
        key=lambda proof: (causes.rank_cause(proof.cause), proof.offset),
        default=None,
    )


def among_ranks(proofs: Sequence[Proof | None]) -> int | None:
    """The rank whose failure the others follow from; of several the lowest. None if no
    log proves anything."""
    told = [
        (causes.rank_cause(proof.cause), rank)
        for rank, proof in enumerate(proofs)
        if proof
    ]
    return min(told)[1] if told else None


def of_job(place: Workspace, item: str, state: JobState) -> Found | None:
    """Why a job is not done; None for one that is done or under way."""
    if (
        state.state not in (State.FAILED, State.CANCELLED, State.UNKNOWN)
        and not state.stopped
    ):
        return None
    if state.cause in (Cause.PREPARE_FAILED, Cause.STAGE_FAILED, Cause.CANARY_FAILED):
        return _from_before(place, item, state)
    told = Found(
        str(state.cause or State.UNKNOWN), state.evidence, signature=state.signature
    )
    record = exit_record.locate_exit_record(place.root / item)
    if state.attempt is not None and record.exists() and told.evidence:
        told = replace(
            told, file=_relative(place, record), line=_line_of(record, '"evidence"')
        )
    cause = causes.parse_cause(state.cause)
    if cause and cause not in causes.CONSEQUENCES:
        return _with_log(place, item, told) if cause == Cause.TRACEBACK else told
    seen = _in_logs(place, item)
    without_proof = cause is None or cause == Cause.DIED
    if seen and causes.rank_cause(seen.cause) < causes.rank_cause(
        None if without_proof else cause
    ):
        return seen
    return _with_last_line(place, item, told) if without_proof else told


def _from_before(place: Workspace, item: str, state: JobState) -> Found:
    """A job that waits for one that failed: the record of that one is the proof."""
    for needed in jobs_before(job_file.read_job_if_sound(place.root / item)):
        path, record = (
            exit_record.locate_exit_record(place.root / needed),
            exit_record.read_if_sound(place.root / needed),
        )
        if (
            record
            and record.outcome == State.FAILED
            and str(record.evidence) in (state.evidence or "")
        ):
            where = {
                "file": _relative(place, path),
                "line": _line_of(path, '"evidence"'),
            }
            return Found(
                str(state.cause),
                state.evidence,
                signature=replace_unset(record.signature),
                **where,
            )
        # A job that was killed has no record; its log may say by whom.
        if needed in (state.evidence or "") and (seen := _in_logs(place, needed)):
            said = f"{state.evidence}: {seen.evidence}"
            return Found(
                str(state.cause), said, seen.file, seen.line, seen.rank, seen.signature
            )
    return Found(str(state.cause), state.evidence)


def _with_log(place: Workspace, item: str, told: Found) -> Found:
    """The record's cause with the line of the log that has the same traceback."""
    seen = _in_logs(place, item)
    if seen and seen.cause == told.cause and seen.signature == told.signature:
        return replace(seen, evidence=told.evidence)
    return told


def _with_last_line(place: Workspace, item: str, told: Found) -> Found:
    """Of what ended without a word, the last line of rank 0's log."""
    part = next(iter(_parts(place, item)), None)
    if part is None or part.begin == part.end:
        return told
    line = part.line_number(part.tail(1))
    return replace(told, file=_relative(place, part.path), line=line, rank=0)


def _parts(place: Workspace, item: str) -> list[Part]:
    try:
        return logs.find_parts(place, item)
    except (UserError, OSError):
        return []


def _in_logs(place: Workspace, item: str) -> Found | None:
    tails = [
        replace(part, begin=max(part.begin, part.end - TAIL))
        for part in _parts(place, item)
    ]
    proofs = [in_log(b"".join(part.read())) for part in tails]
    rank = among_ranks(proofs)
    if rank is None:
        return None
    found = _found(place, tails[rank], proofs[rank], rank)
    silent = [number for number, proof in enumerate(proofs) if proof is None]
    return replace(found, silent=silent) if silent and found.cause in WAITED else found


def _found(place: Workspace, part: Part, proof: Proof | None, rank: int) -> Found:
    assert proof
    line = part.line_number(part.begin + proof.offset)
    return Found(
        proof.cause,
        proof.text.strip(),
        _relative(place, part.path),
        line,
        rank,
        proof.signature,
    )


def make_why_row(
    run: str,
    grid: str | None,
    state: JobState,
    found: Found | None,
    refusal: str | None = None,
    alone: bool = True,
) -> dict[str, Any]:
    """What `zsg why RUN --json` prints. `refusal`: why zsg retry leaves the run;
    `alone`: not one of a group."""
    facts = {
        "run": run,
        "grid": grid,
        "state": state.state,
        "attempt": state.attempt,
        "step": state.step,
    }
    facts |= {"reason": state.reason or state.flag, "slurm": state.slurm}
    why = asdict(found) if found else dict.fromkeys(Found.__dataclass_fields__)
    return facts | why | {"next": _next(found, run, grid, state, refusal, alone)}


def by_cause(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Failures by cause, and by their hash where that tells one from another; the most
    frequent first."""
    groups: dict[tuple[str, str | None, str | None], list[Mapping[str, Any]]] = {}
    for one in rows:
        groups.setdefault((one["cause"], _kind(one), one.get("state")), []).append(one)
    found = [
        {
            "cause": cause,
            "signature": kind,
            "count": len(of),
            "runs": [one["run"] for one in of],
        }
        | {
            key: of[0][key]
            for key in ("evidence", "file", "line", "rank", "silent", "next")
        }
        for (cause, kind, _), of in groups.items()
    ]
    return sorted(found, key=lambda group: -group["count"])


def _kind(one: Mapping[str, Any]) -> str | None:
    """What tells failures of one cause apart: bugs by their traceback, messages by what
    in them does not vary."""
    if one["cause"] in (
        Cause.OUT_OF_MEMORY,
        *causes.CONSEQUENCES,
        Cause.NODE_FAILURE,
        Cause.TIME_LIMIT,
    ):
        return None
    return one["signature"] or (
        tracebacks.hash_message(one["evidence"]) if one["evidence"] else None
    )


def _next(
    found: Found | None,
    run: str,
    grid: str | None,
    state: JobState,
    refusal: str | None,
    alone: bool,
) -> str | None:
    if found is None:
        return (
            f"zsg cancel {run} ends the Slurm job"
            if state.flag and state.in_queue
            else None
        )
    cause = causes.parse_cause(found.cause)
    helps = NEXT[cause].replace("RUN", run) if cause else None
    again = _again(
        run if run.startswith("evaluate/") else None,
        run,
        grid or "GRID",
        state,
        refusal,
        alone,
    )
    return "; then: ".join(filter(None, (helps, again)))


def _again(
    job: str | None,
    run: str,
    grid: str,
    state: JobState,
    refusal: str | None,
    alone: bool,
) -> str:
    """By which command a run is taken up again as it stands, and from where: a state is
    promised where there is one."""
    if job:
        return "zsg submit again evaluates what is left"
    if run.startswith(("prepare/", "canary/")):
        return f"zsg retry {grid}, which makes it again for the runs that failed for it"
    if state.stopped:
        return f"zsg submit goes on from step {state.saved or 0}"
    if state.in_queue:
        return f"zsg cancel {run}, since Slurm still holds its job"
    if state.cause == NEVER_STARTED:
        return "zsg submit starts it"
    if refusal and state.cause == Cause.DIVERGED:
        return f"zsg submit; zsg retry {grid} leaves this run, since it would come to that again"
    if refusal:
        return (
            f"zsg retry {grid} --force; without --force it is left, since"
            f" {refusal.partition(':')[0]}"
        )
    option = "" if state.state == State.FAILED else f" --only state={state.state}"
    where = f"goes on from step {state.saved}" if state.saved else "starts it again"
    return f"zsg retry {grid}{option}" + (f" {where}" if alone else "")


def _relative(place: Workspace, path: Path) -> str:
    return str(path.relative_to(place.root))


def _line_of(path: Path, text: str) -> int | None:
    lines = path.read_text(encoding="utf-8").split("\n")
    return next((number for number, line in enumerate(lines, 1) if text in line), None)
