"""Says why runs are not done, and whether zsg retry would try them again."""

from collections.abc import Iterable
from typing import Any

from jobs.contract.folder import Workspace
from launcher.lifecycle import retry
from launcher.status import why
from launcher.status.journal_checks import flag_journals
from launcher.status.queries import find_item
from launcher.status.status import collect_states
from launcher.status.submitting import add_submit_under_way
from launcher.status.terminal_cache import TerminalCache
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import GRID_FILE, JobState
from launcher.workspace.ledger import Ledger
from launcher.workspace.submit_lock import find_submit_under_way


def why_run(workspace: Workspace, text: str) -> dict[str, Any]:
    """Why a run stands where it stands."""
    item = find_item(workspace, text)
    submit = find_submit_under_way(workspace)
    ledger = Ledger(workspace)
    last = ledger.last(item)
    states = _look(workspace, [item], ledger)
    grid = last.grid if last else ""
    state = add_submit_under_way(states, grid, [item], submit)[item]
    cause = why.of_job(workspace, item, state)
    refusal = _refusal(workspace, item, state, ledger) if cause and last else None
    row = why.make_why_row(
        item.removeprefix("runs/"), last.grid if last else None, state, cause, refusal
    )
    return _name_file(workspace, grid, row)


def _name_file(workspace: Workspace, grid: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row whose advice names the grid's file, as it was submitted."""
    advice = row["next"] or ""
    if GRID_FILE not in advice:
        return row
    words = recorded_grids.name_file(workspace, grid)
    return {**row, "next": advice.replace(GRID_FILE, words)}


def _look(
    workspace: Workspace, items: Iterable[str], ledger: Ledger
) -> dict[str, JobState]:
    """The states of jobs, also where Slurm cannot be asked; flagged where their
    journals have lost rows."""
    cache = TerminalCache(workspace)
    states = collect_states(workspace, items, ledger, settled=cache, only_looks=True)
    return flag_journals(workspace, states)


def _refusal(
    workspace: Workspace, item: str, state: JobState, ledger: Ledger
) -> str | None:
    """Why zsg retry would leave a job, by its own rules."""
    return retry.refuse_retry(
        retry.read_failure(workspace, item, state), ledger.retries(item)
    )


def why_grid(workspace: Workspace, grid: str) -> list[dict[str, Any]]:
    """The failures of a grid by cause."""
    outline = recorded_grids.read_outline(workspace, grid)
    runs = {f"runs/{row.run}": row.run for row in outline.all_runs}
    submit = find_submit_under_way(workspace)
    ledger = Ledger(workspace)
    states = _look(workspace, runs, ledger)
    states = add_submit_under_way(states, grid, [], submit)
    look = why.Look(workspace)
    causes = {item: why.of_job(workspace, item, states[item], look) for item in runs}
    failed = {item: run for item, run in runs.items() if causes[item]}
    refusals = {
        item: _refusal(workspace, item, states[item], ledger) for item in failed
    }
    groups = why.by_cause(
        why.make_why_row(
            run, grid, states[item], causes[item], refusals[item], alone=False
        )
        for item, run in failed.items()
    )
    return [_name_file(workspace, grid, group) for group in groups]
