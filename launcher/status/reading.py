"""Reads what a workspace holds: its grids, the states of their runs, logs and the MLflow page.

Its imports are light: people ask for states all day.
"""

import codecs
import os
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jobs.contract import evaluations
from jobs.contract.folder import Workspace, read_json
from jobs.files import ownership
from launcher.clusters.slurm import DONE, Run
from launcher.status import data_notes as data_notes_of
from launcher.status import logs, status_view, why
from launcher.status.settled import Settled
from launcher.status.status import BEFORE, collect
from launcher.views import show
from launcher.workspace import grid_record, workspaces
from launcher.workspace.job_state import ABSENT, JobState
from launcher.workspace.ledger import Ledger
from zsg_core.errors import UserError

WATCH_S = 20  # the scheduler is asked no more often
VARIABLE = "ZSG_WORKSPACE"
KINDS = ("runs", "prepare", "evaluate", "canary")


def where(path: Path | None, otherwise: str = "zsg-work") -> Path:
    """The workspace's folder that is asked for, or that of ZSG_WORKSPACE, or `otherwise`."""
    return path or Path(os.environ.get(VARIABLE) or otherwise)


def workspace(path: Path | None, otherwise: str = "zsg-work") -> Workspace:
    """The workspace asked for, that of ZSG_WORKSPACE, or `otherwise`, relative to the current folder: to be read.

    That of somebody else may be read, and that is told.
    """
    place = workspaces.find(where(path, otherwise))
    if note := workspaces.note_of(place):
        show.say(f"note: {note}")
    return place


def own_workspace(path: Path | None) -> Workspace:
    """The same, for commands that write to it or run what lies there. UserError for one that others may write."""
    place = workspaces.find(where(path))
    if objection := workspaces.foreign(place):
        raise objection
    ownership.keep_private(place.root)
    return place


def status_rows(
    place: Workspace, grid: str | None, states: Collection[str] = (), run: Run = subprocess.run
) -> list[dict[str, Any]]:
    """The rows of `zsg status`, every grid's in turn; of what a grid no longer wants, what is still active.

    `states`: only the runs in one of these.
    """
    records = {name: grid_record.read_brief(place, name) for name in grid_record.names(place, grid)}
    items = dict.fromkeys(f"runs/{run['run']}" for record in records.values() for run in grid_record.all_rows(record))
    ledger = Ledger(place)
    evaluators = {item: last.grid for item, last in ledger.by_item().items() if last.kind == "evaluate"}
    before = {item: last.grid for item, last in ledger.by_item().items() if last.kind in BEFORE}
    found = collect(place, [*items, *evaluators, *before], ledger, run, settled=Settled(place))
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
    records = [grid_record.read_brief(place, name) for name in grid_record.names(place, grid)]
    return data_notes_of.of_corpora(place, (one for record in records for one in record.get("corpora", ())))


def _rows(record: Mapping[str, Any], states: dict[str, JobState]) -> list[dict[str, Any]]:
    rows = status_view.rows_of(record["name"], record["runs"], states)
    former = [run for run in record.get("former", []) if states[f"runs/{run['run']}"].is_active]
    begun = [run for run in record.get("before", []) if states[f"runs/{run['run']}"].state not in (ABSENT, DONE)]
    before = status_view.rows_of(record["name"], begun, states)
    return rows + before + status_view.rows_of(record["name"], former, states, wanted=False)


def _evaluators(
    place: Workspace, grid: str, evaluators: Mapping[str, str], states: dict[str, JobState]
) -> list[dict[str, Any]]:
    """The evaluate jobs of a grid that are under way, and those that failed and whose work nobody has done since."""
    rows = []
    for item, of in evaluators.items():
        if of == grid and states[item].state != DONE:
            job = read_json(place.root / item / "job.json") or {"serves": []}
            left = (states[item].is_active and not states[item].stopped) or any(
                evaluations.is_left(place.run(one["run"]), one["keys"]) for one in job["serves"]
            )
            rows += [{"run": item, "item": item, "axes": {}}] if left else []
    return status_view.rows_of(grid, rows, states)


def _held(grid: str, jobs: Mapping[str, str], states: dict[str, JobState]) -> list[dict[str, Any]]:
    """The jobs of a grid beside its runs that are done and whose allocations outlive them."""
    flagged = [item for item, of in jobs.items() if of == grid and states[item].state == DONE and states[item].flag]
    return status_view.rows_of(grid, [{"run": item, "item": item, "axes": {}} for item in flagged], states)


def print_log(place: Workspace, text: str, rank: int, attempt: int | None, lines: int | None, follow: bool) -> None:
    """Prints the end of a job's log, or all if `lines` is None; with `follow`, goes on as it grows.

    What a job wrote is shown, not obeyed: the file itself has every byte of it.
    """
    item = find_item(place, text)
    if follow:
        pieces = logs.follow(place, item, rank, lines)
    else:
        part = logs.of_rank(place, item, rank, attempt)
        pieces = part.read(part.tail(lines))
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    show.log(map(decode, pieces))


def why_run(place: Workspace, text: str) -> dict[str, Any]:
    """Why a run stands where it stands."""
    item = find_item(place, text)
    ledger = Ledger(place)
    last = ledger.last(item)
    state = collect(place, [item], ledger, settled=Settled(place))[item]
    found = why.of_job(place, item, state)
    refusal = _refusal(place, item, state, ledger) if found and last else None
    return why.row(item.removeprefix("runs/"), last.grid if last else None, state, found, refusal)


def _refusal(place: Workspace, item: str, state: JobState, ledger: Ledger) -> str | None:
    """Why zsg retry would leave a job, by its own rules."""
    from launcher.lifecycle import retry  # which `zsg status` can do without

    return retry.verdict(retry.of(place, item, state), ledger.retries(item))


def why_grid(place: Workspace, grid: str) -> list[dict[str, Any]]:
    """The failures of a grid by cause."""
    record = grid_record.read_brief(place, grid)
    runs = {f"runs/{run['run']}": run["run"] for run in grid_record.all_rows(record)}
    ledger = Ledger(place)
    states = collect(place, runs, ledger, settled=Settled(place))
    found = {item: why.of_job(place, item, states[item]) for item in runs}
    failed = {item: run for item, run in runs.items() if found[item]}
    refusals = {item: _refusal(place, item, states[item], ledger) for item in failed}
    return why.by_cause(
        why.row(run, grid, states[item], found[item], refusals[item], alone=False) for item, run in failed.items()
    )


def find_item(place: Workspace, text: str) -> str:
    """The folder of the one run whose id begins so, or of another job, named `prepare/…` or `evaluate/…`."""
    kind, _, beginning = text.rpartition("/")
    kind = kind or "runs"
    known = sorted(path.name for path in (place.root / kind).glob("*") if path.is_dir()) if kind in KINDS else []
    found = [name for name in known if name.startswith(beginning)]
    if len(found) == 1 or beginning in found:
        return f"{kind}/{beginning if beginning in found else found[0]}"
    if found:
        raise UserError(f"{text!r} begins {len(found)} run ids: {', '.join(found[:5])}; give more of it")
    raise UserError(f"no run {text!r} in {place.root}; zsg status shows the ids")
