"""Keeps what is retried off the nodes that failed under it, for a day: longer would
eat a cluster up."""

import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from jobs.contract import attempt as attempts
from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace
from jobs.contract.ledger_rows import Retried
from launcher.clusters import slurm
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from launcher.workspace.scheduler_job import Job

KEPT_OFF_S = 24 * 3600.0


def find_failed_nodes(
    workspace: Workspace, ledger: Ledger, failed: Mapping[str, JobState]
) -> dict[str, list[str]]:
    """The nodes of every job folder whose job ended by a node failure within the last day.

    By accounting; where that knows nothing, the node of the attempt's rank 0.
    """
    since = time.time() - KEPT_OFF_S
    jobs = _find_failed_jobs(ledger, failed)
    nodes_by_job = slurm.find_nodes(list(chain(*jobs.values())), since)
    nodes_by_item: dict[str, list[str]] = {}
    for item, item_jobs in jobs.items():
        known_nodes = (nodes_by_job[job] for job in item_jobs if job in nodes_by_job)
        nodes = next(known_nodes, list[str]())
        nodes_by_item[item] = nodes or _find_host(workspace.root / item, since)
    return nodes_by_item


def _find_failed_jobs(
    ledger: Ledger, failed: Mapping[str, JobState]
) -> dict[str, list[Job]]:
    """The job of each folder that a node failure ended."""
    ids = {
        item: state.slurm
        for item, state in failed.items()
        if state.cause == Cause.NODE_FAILURE and state.slurm
    }
    return {
        item: [job for job in ledger.jobs_of(item) if job.id == job_id]
        for item, job_id in ids.items()
    }


def _find_host(folder: Path, since: float) -> list[str]:
    """The node of the newest attempt's rank 0, if that began since a time in s."""
    attempt = attempts.read_attempt(folder)
    return [attempt.host] if attempt and attempt.started / 1000 >= since else []


def to_avoid(ledger: Ledger, failures: Mapping[str, Retried]) -> dict[str, str]:
    """The nodes that the next jobs are kept off, each with the job under which it failed."""
    before = ledger.failed_nodes(int(1000 * (time.time() - KEPT_OFF_S)))
    now = {node: item for item, failure in failures.items() for node in failure.nodes}
    return {
        node: f"node failure under {item}, kept off for a day"
        for node, item in sorted((before | now).items())
    }
