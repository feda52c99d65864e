"""Keeps what is tried again off the nodes that failed under it, for a day: longer would
eat a cluster up."""

import time
from collections.abc import Mapping

from jobs.contract import attempt as attempts
from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace
from jobs.contract.ledger_rows import Retried
from launcher.clusters import slurm
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger

KEPT_OFF_S = 24 * 3600.0


def find_failed_nodes(
    workspace: Workspace, ledger: Ledger, failed: Mapping[str, JobState]
) -> dict[str, list[str]]:
    """The nodes of every job folder whose job ended by a node failure within the last day.

    By accounting; where that knows nothing, the node of the attempt's rank 0.
    """
    ids = {
        item: state.slurm
        for item, state in failed.items()
        if state.cause == Cause.NODE_FAILURE and state.slurm
    }
    jobs = {
        item: [job for job in ledger.jobs_of(item) if job.id == job_id]
        for item, job_id in ids.items()
    }
    since = time.time() - KEPT_OFF_S
    nodes_by_job = slurm.find_nodes(
        [job for item_jobs in jobs.values() for job in item_jobs], since
    )
    nodes_by_item = {}
    for item, item_jobs in jobs.items():
        attempt = attempts.read_attempt(workspace.root / item)
        host = [attempt.host] if attempt and attempt.started / 1000 >= since else []
        nodes_by_item[item] = (
            next((nodes_by_job[job] for job in item_jobs if job in nodes_by_job), [])
            or host
        )
    return nodes_by_item


def to_avoid(ledger: Ledger, failures: Mapping[str, Retried]) -> dict[str, str]:
    """The nodes that the next jobs are kept off, each with the job under which it failed."""
    before = ledger.failed_nodes(int(1000 * (time.time() - KEPT_OFF_S)))
    now = {node: item for item, failure in failures.items() for node in failure.nodes}
    return {
        node: f"node failure under {item}, kept off for a day"
        for node, item in sorted((before | now).items())
    }
