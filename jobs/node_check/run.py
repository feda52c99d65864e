"""Runs the checks of the registry on one rank, and keeps what each has found as it goes."""

import contextlib
import faulthandler
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from jobs.contract import attempt as attempts
from jobs.contract import node_check
from jobs.contract.node_check import (
    LONGEST_CHECK_S,
    Finding,
    FindingState,
    NodeCheckRequest,
    RankRecord,
)
from jobs.node_check import registry
from jobs.node_check.agreement import are_in_step
from jobs.node_check.context import CheckContext
from jobs.node_check.registry import NodeCheck
from jobs.runtime import installed_versions
from jobs.runtime.ranks import Ranks
from zsg_core.secrets import hide_known

logger = logging.getLogger(__name__)


def run_checks(
    folder: Path,
    request: NodeCheckRequest,
    ranks: Ranks,
    attempt: int,
    checks: Sequence[NodeCheck] = registry.CHECKS,
) -> RankRecord:
    """Runs every check on this rank; what it has found is in the folder after each.

    `attempt`: the number of this start of the job.
    """
    context = CheckContext(
        request=request,
        folder=folder,
        ranks=ranks,
        node=attempts.get_node_name(),
        deadline=time.monotonic() + request.budget_s,
        attempt=attempt,
    )
    record = RankRecord(
        attempt=attempt,
        rank=ranks.rank,
        node=context.node,
        versions=dict(installed_versions.read_versions()),
    )
    for check in checks:
        record = msgspec.structs.replace(record, at_work=check.name)
        node_check.write_rank_record(folder, record)
        logger.info(f"checking {check.name}")
        findings = [
            _stamp(check, context, finding) for finding in run_check(check, context)
        ]
        record = msgspec.structs.replace(
            record,
            device=context.device,
            gpu=context.gpu,
            findings=[*record.findings, *findings],
        )
    _remove_bench(context)
    record = msgspec.structs.replace(record, at_work="", ended=True)
    node_check.write_rank_record(folder, record)
    return record


def run_check(check: NodeCheck, context: CheckContext) -> Sequence[Finding]:
    """What one check finds; that it is skipped and why, or the error with which it
    ended."""
    reason = find_reason_to_skip(check, context)
    is_shared = check.is_collective and context.is_connected
    obstacle = _agree(check, context, reason) if is_shared else _skip(reason)
    if obstacle:
        return [obstacle]
    error = ""
    try:
        with end_if_hanging(context):
            findings = check.function(context)
    except Exception as raised:
        logger.exception(f"the check {check.name} ends with an error")
        error = describe_error(raised)
        findings = [Finding(state=FindingState.PROBLEM, text=error)]
    if is_shared:
        _end_together(check, context, error)
    return findings


def describe_error(error: Exception) -> str:
    """Its kind and the first line of what it says: torch's say there what is wrong, and
    go on with advice."""
    line = str(error).strip().partition("\n")[0]
    return hide_known(f"{type(error).__name__}: {line}")


def _skip(reason: str) -> Finding | None:
    return Finding(state=FindingState.SKIPPED, text=reason) if reason else None


def _agree(check: NodeCheck, context: CheckContext, reason: str) -> Finding | None:
    """Why no rank begins a check that all have a part in; None where all are ready."""
    assert context.meeting
    answers = context.meeting.exchange(check.name, reason)
    if None in answers:
        context.part(context.meeting.describe_absent(answers, check.name))
        return Finding(state=FindingState.PROBLEM, text=context.parted)
    return _skip(context.meeting.describe_answers(answers))


def _end_together(check: NodeCheck, context: CheckContext, error: str) -> None:
    """Has the ranks do nothing more together where a check ended with an error on some
    and not on others, which may wait for them still."""
    assert context.meeting
    answers = context.meeting.exchange(f"{check.name}, ended", error)
    if None in answers:
        context.part(
            context.meeting.describe_absent(answers, f"the end of {check.name}")
        )
    elif not are_in_step(answers):
        trouble = context.meeting.describe_answers(answers)
        context.part(f"{check.name} ended with an error on some ranks: {trouble}")


@contextlib.contextmanager
def end_if_hanging(context: CheckContext) -> Iterator[None]:
    """Ends this process, with what its threads are at in the log, where a check lasts
    far longer than the whole may: its record says which check that is."""
    seconds = max(0.0, context.deadline - time.monotonic())
    seconds += LONGEST_CHECK_S
    log = sys.__stderr__ or sys.stderr
    faulthandler.dump_traceback_later(seconds, exit=True, file=log)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def find_reason_to_skip(check: NodeCheck, context: CheckContext) -> str:
    """Why a check has no turn on this rank; empty where it has."""
    if check.needs_gpu and not context.request.has_gpus:
        return "the profile asks for no GPUs"
    if check.needs_gpu and not context.has_gpu:
        return "this rank has no GPU"
    if check.is_collective and not context.is_connected:
        return context.parted
    if not context.has_time:
        return f"no time was left of {context.request.budget_s:g} s"
    return ""


def _remove_bench(context: CheckContext) -> None:
    """Removes what was trained here, also by earlier starts, once no rank needs it."""
    if context.meeting and context.is_connected:
        context.meeting.exchange("the end", "")
    if context.ranks.is_main:
        shutil.rmtree(context.folder / node_check.TRIALS, ignore_errors=True)


def _stamp(check: NodeCheck, context: CheckContext, finding: Finding) -> Finding:
    """The finding with the check, the node and the rank that it is of, and without
    figures that JSON has no number for."""
    figures = {
        name: value for name, value in finding.figures.items() if math.isfinite(value)
    }
    return msgspec.structs.replace(
        finding,
        check=check.name,
        node=context.node,
        rank=context.ranks.rank,
        figures=figures,
    )
