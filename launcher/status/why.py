"""Names why a run is not done: the cause, and the line that proves it; failures of a
grid by their causes.

Asked in turn: the job's own record, Slurm, the logs of all ranks. Where several ranks
complain, the cause that the others follow from counts: a rank that lost its peer is not
the one that failed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from jobs.contract import causes, exit_record, job_file
from jobs.contract.causes import Cause
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Workspace
from jobs.contract.job_file import jobs_needed
from jobs.contract.states import State
from jobs.runtime import log_marks, tracebacks
from launcher.status import logs, next_steps
from launcher.status.last_loss import LastLoss
from launcher.status.logs import Part
from launcher.status.next_steps import Outlook
from launcher.workspace.job_state import GRID_FILE, JOURNAL_UNREADABLE, JobState
from zsg_core.errors import UserError

WAITED = (Cause.NCCL_TIMEOUT, Cause.PEER_LOST)
TAIL = 1 << 20  # bytes of each rank's log
# what a group of failures shows of its first
OF_FIRST = ("evidence", "file", "line", "rank", "silent", "other_versions", "next")
# of the last loss that was a number; `last_loss_of`: train or test
OF_LAST_LOSS = ("last_loss", "last_loss_step", "last_loss_of", "lr")
UNKNOWN_OUTLOOK = Outlook()


@dataclass(frozen=True)
class ProvenCause:
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
    lines, offsets = _split_lines(text)
    begun = max((mark.start() for mark in log_marks.PATTERN.finditer(text)), default=0)
    proofs = _find_named_causes(lines, offsets)
    signature = tracebacks.hash_last_traceback(lines)
    for number, line in tracebacks.find_error_lines(lines):
        cause = causes.of_line(line) or Cause.TRACEBACK
        proofs.append(Proof(cause, line, offsets[number], signature))
    # What setup lines print before an attempt is no reason of its end.
    of_attempt = [
        proof for proof in proofs if proof.offset >= begun or proof.cause == Cause.SETUP
    ]
    return min(of_attempt, key=_order_of, default=None)


def _split_lines(text: bytes) -> tuple[list[str], list[int]]:
    """The lines of a log, and the byte at which each begins."""
    lines: list[str] = []
    offsets: list[int] = []
    offset = 0
    for line in text.split(b"\n"):
        lines.append(line.decode("utf-8", "replace").rstrip("\r"))
        offsets.append(offset)
        offset += len(line) + 1
    return lines, offsets


def _find_named_causes(lines: Sequence[str], offsets: Sequence[int]) -> list[Proof]:
    """The lines that name a cause by themselves."""
    proofs = [
        Proof(cause, line, offset)
        for line, offset in zip(lines, offsets, strict=True)
        if (cause := causes.of_line(line))
    ]
    ends = [proof.offset for proof in proofs if proof.cause == Cause.CANCELLED]
    if not ends:
        return proofs
    # Who is killed once Slurm has begun to end the step was not the first to die.
    return [
        proof
        for proof in proofs
        if proof.cause != Cause.DIED or proof.offset < min(ends)
    ]


def _order_of(proof: Proof) -> tuple[int, int]:
    """By which the first of several proofs counts."""
    return causes.rank_cause(proof.cause), proof.offset


def among_ranks(proofs: Sequence[Proof | None]) -> int | None:
    """The rank whose failure the others follow from; of several the lowest. None if no
    log proves anything."""
    ranked = [
        (causes.rank_cause(proof.cause), rank)
        for rank, proof in enumerate(proofs)
        if proof
    ]
    return min(ranked)[1] if ranked else None


class Look:
    """One look at a workspace, in which many jobs may be asked of: what several of them
    have to do with is read once."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.logs = logs.JobLogs(workspace)
        # by job: what the logs of one for which many have waited prove
        self.proven: dict[str, ProvenCause | None] = {}


def of_job(
    workspace: Workspace, item: str, state: JobState, look: Look | None = None
) -> ProvenCause | None:
    """Why a job is not done, or why what it has done does not count whole; None for
    one that is done or under way. `look`: the one that other jobs are asked of in."""
    look = look or Look(workspace)
    if state.damage and state.state == State.DONE:
        damage = state.damage
        return ProvenCause(
            JOURNAL_UNREADABLE, damage.reason, file=damage.file, line=damage.line
        )
    if not _is_not_done(state):
        return None
    if state.cause in (Cause.PREPARE_FAILED, Cause.STAGE_FAILED, Cause.CANARY_FAILED):
        return _from_before(look, item, state)
    recorded = _by_record(workspace, item, state)
    cause = causes.parse_cause(state.cause)
    if cause and cause not in causes.CONSEQUENCES:
        return _with_proof(look, item, state, recorded)
    return _by_logs(look, item, cause, recorded)


def _with_proof(
    look: Look, item: str, state: JobState, recorded: ProvenCause
) -> ProvenCause:
    """A cause from which others follow, with the line of the log that proves it."""
    if state.cause == Cause.TRACEBACK:
        return _with_log(look, item, recorded)
    if state.cause == Cause.LAUNCH_FAILED:
        return _with_launch_line(look, item, state, recorded)
    return recorded


def _by_logs(
    look: Look, item: str, cause: Cause | None, recorded: ProvenCause
) -> ProvenCause:
    """The cause that the logs of all ranks prove, where that of the record may follow
    from it."""
    logged = _in_logs(look, item)
    rank = causes.rank_cause(None if cause == Cause.DIED else cause)
    if logged and causes.rank_cause(logged.cause) < rank:
        return logged
    is_unproven = cause in (None, Cause.DIED)
    return _with_last_line(look, item, recorded) if is_unproven else recorded


def _is_not_done(state: JobState) -> bool:
    """Whether a job has ended without being done, or was stopped before its end."""
    ended = (State.FAILED, State.CANCELLED, State.UNKNOWN)
    return state.state in ended or state.stopped


def _by_record(workspace: Workspace, item: str, state: JobState) -> ProvenCause:
    """The cause by the state, with the line of the exit record that names it."""
    cause = ProvenCause(
        str(state.cause or State.UNKNOWN), state.evidence, signature=state.signature
    )
    record = exit_record.locate_exit_record(workspace.root / item)
    if state.attempt is None or not cause.evidence or not record.exists():
        return cause
    return replace(
        cause, file=_relative(workspace, record), line=_line_of(record, '"evidence"')
    )


def _from_before(look: Look, item: str, state: JobState) -> ProvenCause:
    """A job that waits for one that failed: the record of that one is the proof."""
    for needed in jobs_needed(job_file.read_job_if_sound(look.workspace.root / item)):
        proven = _by_record_before(look.workspace, needed, state) or _by_log_before(
            look, needed, state
        )
        if proven:
            return proven
    return ProvenCause(str(state.cause), state.evidence)


def _by_record_before(
    workspace: Workspace, needed: str, state: JobState
) -> ProvenCause | None:
    """The cause with the record of the job before, if that tells the same."""
    path = exit_record.locate_exit_record(workspace.root / needed)
    record = exit_record.read_if_sound(workspace.root / needed)
    if record is None or record.outcome != State.FAILED:
        return None
    if str(record.evidence) not in (state.evidence or ""):
        return None
    return ProvenCause(
        str(state.cause),
        state.evidence,
        file=_relative(workspace, path),
        line=_line_of(path, '"evidence"'),
        signature=replace_unset(record.signature),
    )


def _by_log_before(look: Look, needed: str, state: JobState) -> ProvenCause | None:
    """A job that was killed has no record; its log may say by whom."""
    if needed not in (state.evidence or ""):
        return None
    unbegun = _by_launch_before(look, needed, state)
    if unbegun is not None:
        return unbegun
    if needed not in look.proven:
        look.proven[needed] = _in_logs(look, needed)
    logged = look.proven[needed]
    if logged is None:
        return None
    evidence = f"{state.evidence}: {logged.evidence}"
    return replace(logged, cause=str(state.cause), evidence=evidence, silent=None)


def _by_launch_before(look: Look, needed: str, state: JobState) -> ProvenCause | None:
    """A job that waited for one that ended before it began: the line of that one's log."""
    last = look.logs.ledger.last(needed)
    begin, end = f"{Cause.LAUNCH_FAILED}: ", f" ({needed})"
    evidence = state.evidence or ""
    if last is None or not (evidence.startswith(begin) and evidence.endswith(end)):
        return None
    line = evidence.removeprefix(begin).removesuffix(end)
    cause = ProvenCause(str(state.cause), line)
    located = _locate_launch_line(look, needed, last.job_ids(needed), cause)
    return replace(located or cause, evidence=evidence)


def _with_log(look: Look, item: str, recorded: ProvenCause) -> ProvenCause:
    """The record's cause with the line of the log that has the same traceback."""
    logged = _in_logs(look, item)
    if (
        logged
        and logged.cause == recorded.cause
        and logged.signature == recorded.signature
    ):
        return replace(logged, evidence=recorded.evidence)
    return recorded


def _with_launch_line(
    look: Look, item: str, state: JobState, recorded: ProvenCause
) -> ProvenCause:
    """Of what ended before it began, the line of its script's log that says why."""
    jobs = [state.slurm] if state.slurm else []
    return _locate_launch_line(look, item, jobs, recorded) or recorded


def _locate_launch_line(
    look: Look, item: str, jobs: Sequence[str], cause: ProvenCause
) -> ProvenCause | None:
    """A cause with the line of a script's log that is its evidence; None where no log of
    these jobs has it."""
    last = look.logs.ledger.last(item)
    if last is None:
        return None
    for job in jobs:
        log = logs.locate_log(look.workspace, last, job)
        printed = logs.read_launch(log)
        lines, offsets = _split_lines(printed.text if printed else b"")
        texts = [line.strip() for line in lines]
        if printed and cause.evidence in texts:
            offset = printed.begin + offsets[texts.index(cause.evidence)]
            number = Part(log, 0, offset).line_number(offset)
            file = _relative(look.workspace, log)
            return replace(cause, file=file, line=number, rank=0)
    return None


def _with_last_line(look: Look, item: str, cause: ProvenCause) -> ProvenCause:
    """Of what ended without a word, the last line of rank 0's log."""
    part = next(iter(_parts(look, item)), None)
    if part is None or part.begin == part.end:
        return cause
    line = part.line_number(part.tail(1))
    return replace(cause, file=_relative(look.workspace, part.path), line=line, rank=0)


def _parts(look: Look, item: str) -> list[Part]:
    try:
        return look.logs.find_parts(item)
    except (UserError, OSError):
        return []


def _in_logs(look: Look, item: str) -> ProvenCause | None:
    """The cause that the newest logs prove, of the rank whose failure the others follow
    from; None where no log proves any.

    Only the last `TAIL` bytes of each log are read: a traceback stands at the end, and
    a log may have gigabytes. Ranks without any proof are named with causes for which
    the others only waited.
    """
    tails = [
        replace(part, begin=max(part.begin, part.end - TAIL))
        for part in _parts(look, item)
    ]
    proofs = [in_log(b"".join(part.read())) for part in tails]
    rank = among_ranks(proofs)
    if rank is None:
        return None
    cause = _locate_proof(look.workspace, tails[rank], proofs[rank], rank)
    silent = [number for number, proof in enumerate(proofs) if proof is None]
    return replace(cause, silent=silent) if silent and cause.cause in WAITED else cause


def _locate_proof(
    workspace: Workspace, part: Part, proof: Proof | None, rank: int
) -> ProvenCause:
    assert proof
    line = part.line_number(part.begin + proof.offset)
    return ProvenCause(
        proof.cause,
        proof.text.strip(),
        _relative(workspace, part.path),
        line,
        rank,
        proof.signature,
    )


def make_why_row(
    run: str,
    grid: str | None,
    state: JobState,
    cause: ProvenCause | None,
    outlook: Outlook = UNKNOWN_OUTLOOK,
    last: LastLoss | None = None,
) -> dict[str, Any]:
    """What `zsg why RUN --json` prints. `outlook`: what decides what is next, beside
    the state; `last`: the last loss that was a number."""
    facts = {
        "run": run,
        "grid": grid,
        "state": state.state,
        "attempt": state.attempt,
        "step": state.step,
        "reason": state.reason or state.flag,
        "slurm": state.slurm,
        "other_versions": state.other_versions,
    }
    proof = asdict(cause) if cause else dict.fromkeys(ProvenCause.__dataclass_fields__)
    advice = _advise(run, grid, state, cause, outlook)
    return {**facts, **proof, **tell_last_loss(last), "next": advice}


def tell_last_loss(last: LastLoss | None) -> dict[str, Any]:
    """The last loss that was a number, in the keys of `zsg why --json`; each null where
    there is none."""
    if last is None:
        return dict.fromkeys(OF_LAST_LOSS)
    return {
        "last_loss": last.loss,
        "last_loss_step": last.step,
        "last_loss_of": "train" if last.is_of_training else "test",
        "lr": last.rate,
    }


def _advise(
    run: str,
    grid: str | None,
    state: JobState,
    cause: ProvenCause | None,
    outlook: Outlook,
) -> str | None:
    """What to do next about a run; None where there is nothing to do."""
    if cause is None:
        return next_steps.advise_without_cause(run, grid, state)
    whole = _make_whole(state)
    if whole is not None:
        return whole
    trouble = next_steps.make_trouble(
        run,
        grid or "GRID",
        state,
        cause.cause,
        cause.evidence,
        outlook,
    )
    return next_steps.advise(trouble)


def _make_whole(state: JobState) -> str | None:
    """The command for a run that is done and whose journal has lost rows; None for
    others."""
    if state.state != State.DONE or state.damage is None:
        return None
    verb = "trains" if state.damage.is_own else "evaluates"
    return f"zsg submit {GRID_FILE} --retrain {verb} it again"


class GroupKey(NamedTuple):
    """What failures of one group have in common; see `by_cause`."""

    cause: str
    kind: str | None
    state: str | None
    next_step: str | None


def by_cause(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Failures by cause, by their hash where that tells one from another, and by what
    is to be done next; the most frequent first."""
    groups: dict[GroupKey, list[Mapping[str, Any]]] = {}
    for row in rows:
        next_step = _next_of_any(row["next"], row["run"])
        key = GroupKey(row["cause"], _kind(row), row.get("state"), next_step)
        groups.setdefault(key, []).append(row)
    summaries = [_sum_group(key.kind, group) for key, group in groups.items()]
    return sorted(summaries, key=lambda group: -group["count"])


def _next_of_any(advice: str | None, run: str) -> str | None:
    """What is to be done next, without the run's id: one command for many must do for
    each of them."""
    if advice is None:
        return None
    return advice.replace(run, "RUN")


def _sum_group(kind: str | None, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Runs that failed of one cause, with the proof of the first."""
    first = rows[0]
    return {
        "cause": first["cause"],
        "signature": kind,
        "count": len(rows),
        "runs": [row["run"] for row in rows],
        **{key: first.get(key) for key in OF_FIRST},
    }


def _kind(row: Mapping[str, Any]) -> str | None:
    """What tells failures of one cause apart: bugs by their traceback, messages by what
    in them does not vary."""
    if row["cause"] in (
        Cause.OUT_OF_MEMORY,
        *causes.CONSEQUENCES,
        Cause.NODE_FAILURE,
        Cause.TIME_LIMIT,
    ):
        return None
    if row["signature"]:
        return row["signature"]
    return tracebacks.hash_message(row["evidence"]) if row["evidence"] else None


def _relative(workspace: Workspace, path: Path) -> str:
    return str(path.relative_to(workspace.root))


def _line_of(path: Path, text: str) -> int | None:
    lines = path.read_text(encoding="utf-8").split("\n")
    return next((number for number, line in enumerate(lines, 1) if text in line), None)
