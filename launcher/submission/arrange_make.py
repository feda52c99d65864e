"""Makes the arrangements of a grid on this machine, without training anything, through
ordinary prepare jobs."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace, is_whole
from jobs.contract.states import State
from jobs.files import ownership
from launcher.clusters import profiles
from launcher.grids.runs import Run
from launcher.planning import admission
from launcher.planning import plan as plans
from launcher.status import data_notes, logs
from launcher.status.status import collect_states
from launcher.submission import local, plugin_consent, workflow
from launcher.submission import submit as submits
from launcher.views import show
from launcher.workspace import code_snapshot
from launcher.workspace.ledger import Ledger
from launcher.workspace.submit_lock import submit_lock
from zsg_core.errors import ClusterError, UserError

logger = logging.getLogger(__name__)

# what comes again until the user has changed something
_OF_THE_USER = (Cause.BAD_INPUT, Cause.BAD_DATA, Cause.PLUGIN)


@dataclass(frozen=True)
class MadeArrangement:
    """One arrangement of a grid: which points use it, and whether it was there before."""

    id: str
    axes: list[dict[str, Any]]
    new: bool


def make_arrangements(
    grid: Path,
    workspace: Path | None,
    *,
    allows_plugins: bool = False,
    ask: Callable[[str], bool] | None = None,
) -> list[MadeArrangement]:
    """Makes what is missing and tells all. `allows_plugins`, `ask`: see plugin_consent.

    ClusterError with the reason where a prepare job failed.
    """
    opened = workflow.open_grid(grid, None, workspace)
    if opened.site.profile.kind != "local":
        opened = workflow.open_grid(grid, "local", opened.site.workspace.root)
    site, runs = opened.site, opened.runs
    plugin_consent.settle_consent(opened.grid, allows=allows_plugins, ask=ask)
    ownership.make_files_private(site.workspace.root)
    axes: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        axes.setdefault(run.arrangement_id, []).append(run.axes)
    before = {
        arrangement
        for arrangement in axes
        if is_whole(site.workspace.arrangement(arrangement))
    }
    if set(axes) - before:
        with code_snapshot.carrying(opened.grid.plugins):
            _make_missing(opened)
    show.data_notes(
        data_notes.of_corpora(site.workspace, [run.corpus_id for run in runs])
    )
    return [
        MadeArrangement(arrangement, points, arrangement not in before)
        for arrangement, points in axes.items()
    ]


def _make_missing(opened: workflow.ResolvedGrid) -> None:
    site = opened.site
    if profiles.is_python_of_jobs(site.profile) and (
        why := admission.lacking_to_order(opened.runs)
    ):
        raise ClusterError(why)
    for effect in opened.effects:
        logger.info(effect.line)
    with submit_lock(site.workspace, opened.grid.name):
        ledger = Ledger(site.workspace)
        if refusal := ledger.find_refusal():
            raise refusal
        submits.settle_submissions(site, ledger)
        prepares = _plan_prepares(opened)
        only = plans.Plan([], prepares, [])
        jobs, locks = submits.submit_local(site, opened.grid, only, ledger)
    try:
        local.run_all(site.workspace, site.profile, jobs, lambda: None)
    finally:
        for lock in locks:
            os.close(lock)
    _raise_failure(site.workspace, [prepare.item for prepare in prepares])


def _plan_prepares(opened: workflow.ResolvedGrid) -> list[plans.Prepare]:
    """The prepare jobs that a submit of all runs would need. UserError for an order that
    only training can lead to."""
    for run in opened.runs:
        _refuse_untrained(opened, run)
    actions = [plans.Action(run, plans.SUBMIT, "to be arranged") for run in opened.runs]
    plan = plans.make_plan(actions, lambda need: _is_there(opened, need), {})
    return plan.prepares


def _refuse_untrained(opened: workflow.ResolvedGrid, run: Run) -> None:
    """UserError for an order by the scores of weights that are still to be trained."""
    workspace, before = opened.site.workspace, run.scoring_run
    if before is None or is_whole(workspace.arrangement(run.arrangement_id)):
        return
    needs = (str(run.scores_item), before.weights)
    if not any(is_whole(workspace.root / need) for need in needs):
        raise UserError(
            f"the order of run {run.id} is by scores of the weights that the stage before it,"
            f" {before.id}, leaves, and that is not trained yet: zsg submit trains it, then makes"
            " the order"
        )


def _raise_failure(workspace: Workspace, items: Sequence[str]) -> None:
    """Raises for the first job that has not ended well: UserError where it is the grid,
    the data or a plugin that is to be changed, else ClusterError."""
    states = collect_states(workspace, items, Ledger(workspace))
    for item, state in states.items():
        if state.state != State.DONE:
            words = (state.state, state.cause, state.evidence)
            why = ": ".join(word for word in words if word)
            kind = UserError if state.cause in _OF_THE_USER else ClusterError
            raise kind(
                f"{item} {why}; its log: {logs.local_log(workspace.root / item)}"
            )


def _is_there(opened: workflow.ResolvedGrid, need: str) -> bool:
    # A base, and what is proven and tried of it, is for training; an order needs none.
    is_for_training = need.partition("/")[0] in ("bases", *plans.TRIALS)
    return is_for_training or is_whole(opened.site.workspace.root / need)
