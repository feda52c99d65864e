"""Makes the arrangements of a grid on this machine, without training anything, through
ordinary prepare jobs."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from jobs.contract.folder import is_committed
from jobs.contract.states import State
from jobs.files import ownership
from launcher.planning import admission
from launcher.planning import plan as plans
from launcher.status import data_notes, logs
from launcher.status.status import collect_states
from launcher.submission import local, workflow
from launcher.submission import submit as submits
from launcher.views import show
from launcher.workspace.ledger import Ledger, submit_lock
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadeArrangement:
    """One arrangement of a grid: which points use it, and whether it was there before."""

    id: str
    axes: list[dict]
    new: bool


def make_arrangements(grid: Path, workspace: Path | None) -> list[MadeArrangement]:
    """Makes what is missing and tells all. ClusterError with the reason where a prepare
    job failed."""
    opened = workflow.open_grid(grid, None, workspace)
    if opened.site.profile.kind != "local":
        opened = workflow.open_grid(grid, "local", opened.site.workspace.root)
    site, runs = opened.site, opened.runs
    ownership.make_files_private(site.workspace.root)
    axes: dict[str, list[dict]] = {}
    for run in runs:
        axes.setdefault(run.arrangement_id, []).append(run.axes)
    before = {made for made in axes if is_committed(site.workspace.arrangement(made))}
    if set(axes) - before:
        _run(opened)
    show.data_notes(
        data_notes.of_corpora(site.workspace, [run.corpus_id for run in runs])
    )
    return [
        MadeArrangement(made, points, made not in before)
        for made, points in axes.items()
    ]


def _run(opened: workflow.ResolvedGrid) -> None:
    site = opened.site
    if admission.is_python_of_jobs(site.profile) and (
        why := admission.lacking_to_order(opened.runs)
    ):
        raise ClusterError(why)
    for one in opened.effects:
        logger.info(one.line)
    with submit_lock(site.workspace):
        ledger = Ledger(site.workspace)
        submits.settle_submissions(site, ledger)
        actions = [
            plans.Action(run, plans.SUBMIT, "to be arranged") for run in opened.runs
        ]
        wanted = plans.make_plan(actions, lambda need: _is_there(opened, need), {})
        only = plans.Plan([], wanted.prepares, [])
        jobs, locks = submits.submit_local(site, opened.grid, only, ledger)
    items = [prepare.item for prepare in wanted.prepares]
    try:
        local.run_all(site.workspace, site.profile, jobs, lambda: None)
    finally:
        for lock in locks:
            os.close(lock)
    for item, state in collect_states(
        site.workspace, items, Ledger(site.workspace)
    ).items():
        if state.state != State.DONE:
            why = ": ".join(
                part for part in (state.state, state.cause, state.evidence) if part
            )
            raise ClusterError(
                f"{item} {why}; its log: {logs.local_log(site.workspace.root / item)}"
            )


def _is_there(opened: workflow.ResolvedGrid, need: str) -> bool:
    # A base is for training; an order needs none.
    return need.startswith("bases/") or is_committed(opened.site.workspace.root / need)
