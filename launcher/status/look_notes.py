"""Says what the newest look at a grid's claims has decided, while later held-out splits
still train or once they were spared."""

from collections.abc import Iterable

from msgspec import UNSET

from jobs.contract import grid_record, job_file, look_decision
from jobs.contract.folder import Damaged, Workspace, list_paths
from jobs.contract.job_file import LookJob
from jobs.contract.look_decision import LookDecision


def of_grids(workspace: Workspace, names: Iterable[str]) -> list[str]:
    """Of each of these grids whose claims were looked at what came of the newest look; of
    one whose claims, looks or splits were changed since, nothing is told of those before.

    What cannot be read is passed over: `zsg why` of the look names it.
    """
    newest = _find_newest(workspace)
    notes: list[str] = []
    for name in names:
        if name in newest:
            decision = newest[name]
            notes.append(
                f"{name}: after {decision.splits} held-out splits {decision.why}"
            )
    return notes


def _find_newest(workspace: Workspace) -> dict[str, LookDecision]:
    """The newest look of each grid's design of today that has decided."""
    newest: dict[str, LookDecision] = {}
    for folder in list_paths(workspace.root / look_decision.FOLDER, "*"):
        job = job_file.read_job_if_sound(folder)
        if not isinstance(job, LookJob):
            continue
        try:
            decision = look_decision.read_decision(folder)
            is_of_today = _is_of_today(workspace, job)
        except Damaged:
            continue
        if decision is None or not is_of_today:
            continue
        before = newest.get(job.grid)
        if before is None or before.number < decision.number:
            newest[job.grid] = decision
    return newest


def _is_of_today(workspace: Workspace, job: LookJob) -> bool:
    """Whether the grid still has the claims, looks and runs of a look."""
    record = grid_record.read_grid_record(workspace, job.grid)
    if record is None or record.looks is UNSET:
        return False
    claims = [row.claim for row in record.claims or []]
    runs = {row.run for row in record.runs}
    of_look = {*job.spares, *(row.run for row in job.runs)}
    return (claims, record.looks.settings, runs) == (job.claims, job.looks, of_look)
