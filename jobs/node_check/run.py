"""Runs the checks of the registry on one rank, and keeps what each has found as it goes."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from jobs.contract import attempt as attempts
from jobs.contract import node_check
from jobs.contract.node_check import (
    Finding,
    FindingState,
    NodeCheckRequest,
    RankRecord,
)
from jobs.node_check import registry
from jobs.node_check.place import Place
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
    place = Place(
        request=request,
        folder=folder,
        ranks=ranks,
        node=attempts.get_node_name(),
        deadline=time.monotonic() + request.budget_s,
    )
    record = RankRecord(
        attempt=attempt,
        rank=ranks.rank,
        node=place.node,
        versions=dict(installed_versions.read_versions()),
    )
    for check in checks:
        record = msgspec.structs.replace(record, at_work=check.name)
        node_check.write_rank_record(folder, record)
        logger.info(f"checking {check.name}")
        findings = [_stamp(check, place, found) for found in run_check(check, place)]
        record = msgspec.structs.replace(
            record,
            device=place.device,
            findings=[*record.findings, *findings],
        )
    record = msgspec.structs.replace(record, at_work="", ended=True)
    node_check.write_rank_record(folder, record)
    return record


def run_check(check: NodeCheck, place: Place) -> Sequence[Finding]:
    """What one check finds; that it is skipped and why, or the error with which it
    ended."""
    reason = find_reason_to_skip(check, place)
    if reason:
        return [Finding(state=FindingState.SKIPPED, text=reason)]
    try:
        return check.function(place)
    except Exception as error:
        logger.exception(f"the check {check.name} ends with an error")
        text = hide_known(f"{type(error).__name__}: {error}")
        return [Finding(state=FindingState.PROBLEM, text=text)]


def find_reason_to_skip(check: NodeCheck, place: Place) -> str:
    """Why a check has no turn on this rank; empty where it has."""
    if check.needs_gpu and not place.request.has_gpus:
        return "the profile asks for no GPUs"
    if check.needs_gpu and not place.has_gpu:
        return "this rank has no GPU"
    if check.is_collective and not place.is_connected:
        return "the ranks have not met"
    if not place.has_time:
        return f"no time was left of {place.request.budget_s:g} s"
    return ""


def _stamp(check: NodeCheck, place: Place, finding: Finding) -> Finding:
    """The finding with the check, the node and the rank that it is of."""
    return msgspec.structs.replace(
        finding, check=check.name, node=place.node, rank=place.ranks.rank
    )
