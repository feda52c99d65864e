"""Reads what a workspace holds: its grids, the states of their runs, logs and the MLflow page.

Its imports are light: people ask for states all day.
"""

import codecs
import subprocess
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jobs.contract import evaluations, job_file
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.job_file import runs_served
from jobs.contract.states import State
from launcher.clusters.slurm import Runner
from launcher.status import data_notes as data_notes_of
from launcher.status import logs, status_view
from launcher.status.status import BEFORE, collect_states
from launcher.status.terminal_cache import TerminalCache
from launcher.workspace import grid_record
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from zsg_core.errors import UserError

WATCH_S = 20  # the scheduler is asked no more often
KINDS = ("runs", "prepare", "evaluate", "canary")


def status_rows(
    place: Workspace,
    grid: str | None,
    states: Collection[str] = (),
    run: Runner = subprocess.run,
) -> list[dict[str, Any]]:
    """The rows of `zsg status`, every grid's in turn; of what a grid no longer wants,
    what is still active.

    `states`: only the runs in one of these.
    """
    records = {
        name: grid_record.read_brief(place, name)
        for name in grid_record.select_grids(place, grid)
    }
    items = dict.fromkeys(
        f"runs/{run['run']}"
        for record in records.values()
        for run in grid_record.all_rows(record)
    )
    ledger = Ledger(place)
    evaluators = {
        item: last.grid
        for item, last in ledger.by_item().items()
        if last.kind == "evaluate"
    }
    before = {
        item: last.grid
        for item, last in ledger.by_item().items()
        if last.kind in BEFORE
    }
    found = collect_states(
        place, [*items, *evaluators, *before], ledger, run, settled=TerminalCache(place)
    )
    rows = [
        row
        for name, record in records.items()
        for row in [
            *_rows(record, found),
            *_evaluators(place, name, evaluators, found),
            *_held(name, {**before, **evaluators}, found),
        ]
    ]
    return [row for row in rows if row["state"] in states] if states else rows


def data_notes(place: Workspace, grid: str | None) -> list[str]:
    """What there is to know of the data of a grid, or of all grids."""
    records = [
        grid_record.read_brief(place, name)
        for name in grid_record.select_grids(place, grid)
    ]
    return data_notes_of.of_corpora(
        place, (one for record in records for one in record.get("corpora", ()))
    )


def _rows(
    record: Mapping[str, Any], states: dict[str, JobState]
) -> list[dict[str, Any]]:
    rows = status_view.rows_of(record["name"], record["runs"], states)
    former = [
        run
        for run in record.get("former", [])
        if states[f"runs/{run['run']}"].is_active
    ]
    begun = [
        run
        for run in record.get("before", [])
        if states[f"runs/{run['run']}"].state not in (State.ABSENT, State.DONE)
    ]
    before = status_view.rows_of(record["name"], begun, states)
    return (
        rows
        + before
        + status_view.rows_of(record["name"], former, states, wanted=False)
    )


def _evaluators(
    place: Workspace,
    grid: str,
    evaluators: Mapping[str, str],
    states: dict[str, JobState],
) -> list[dict[str, Any]]:
    """The evaluate jobs of a grid that are under way, and those that failed and whose
    work nobody has done since."""
    rows = []
    for item, of in evaluators.items():
        if of == grid and states[item].state != State.DONE:
            is_at_work = states[item].is_active and not states[item].stopped
            if is_at_work or _has_work_left(place, item):
                rows.append({"run": item, "item": item, "axes": {}})
    return status_view.rows_of(grid, rows, states)


def _has_work_left(place: Workspace, item: str) -> bool:
    """Whether what an evaluate job was to score is not scored; also where a broken file
    keeps that from being told."""
    try:
        return any(
            evaluations.is_left(place.run(served.run), served.keys)
            for served in runs_served(job_file.read_job(place.root / item))
        )
    except Damaged:
        return True


def _held(
    grid: str, jobs: Mapping[str, str], states: dict[str, JobState]
) -> list[dict[str, Any]]:
    """The jobs of a grid beside its runs that are done and whose allocations outlive them."""
    flagged = [
        item
        for item, of in jobs.items()
        if of == grid and states[item].state == State.DONE and states[item].flag
    ]
    return status_view.rows_of(
        grid, [{"run": item, "item": item, "axes": {}} for item in flagged], states
    )


def read_log(
    place: Workspace,
    text: str,
    rank: int,
    attempt: int | None,
    lines: int | None,
    follow: bool,
) -> Iterator[str]:
    """The end of a job's log, or all if `lines` is None; with `follow`, goes on as it grows."""
    item = find_item(place, text)
    if follow:
        pieces = logs.follow_log(place, item, rank, lines)
    else:
        part = logs.of_rank(place, item, rank, attempt)
        pieces = part.read(part.tail(lines))
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    return map(decode, pieces)


def find_item(place: Workspace, text: str) -> str:
    """The folder of the one run whose id begins so, or of another job, named
    `prepare/…` or `evaluate/…`."""
    kind, _, beginning = text.rpartition("/")
    kind = kind or "runs"
    known = (
        sorted(path.name for path in (place.root / kind).glob("*") if path.is_dir())
        if kind in KINDS
        else []
    )
    found = [name for name in known if name.startswith(beginning)]
    if len(found) == 1 or beginning in found:
        return f"{kind}/{beginning if beginning in found else found[0]}"
    if found:
        raise UserError(
            f"{text!r} begins {len(found)} run ids: {', '.join(found[:5])}; give more of it"
        )
    raise UserError(f"no run {text!r} in {place.root}; zsg status shows the ids")
