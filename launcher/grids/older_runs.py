"""Tells which runs of a grid an older zsg has trained otherwise, under other ids."""

from collections.abc import Iterable

from jobs.contract import job_file
from jobs.contract.folder import Workspace
from launcher.grids.runs import Run
from launcher.workspace.run_folders import list_names
from zsg_core import recipe as recipes


def find_notes(workspace: Workspace, runs: Iterable[Run]) -> list[str]:
    """A sentence for the runs that stand in the workspace as an older zsg made them,
    for each thing that it did otherwise. They are new runs: what was made then is not
    counted as theirs.
    """
    by_change: dict[str, list[tuple[str, str]]] = {}
    names = list_names(workspace.root / "runs")
    if names is not None and not names:
        return []
    for run in runs:
        before, marks = recipes.remove_marks(run.recipe)
        older = recipes.run_id(before)
        if not marks or (names is not None and older not in names):
            continue
        if job_file.has_job(workspace.run(older)):
            change = " and ".join(recipes.MARKS[key] for key in sorted(marks))
            by_change.setdefault(change, []).append((run.id, older))
    return [_sentence(change, pairs) for change, pairs in by_change.items()]


def _sentence(change: str, pairs: list[tuple[str, str]]) -> str:
    new, older = pairs[0]
    if len(pairs) == 1:
        news = f"run {new} is new: an older zsg made it as {older}, and {change} changed since then"
    else:
        news = (
            f"{len(pairs)} runs are new: an older zsg made them ({new} as {older}, …), and {change}"
            " changed since then"
        )
    return (
        f"{news} (CHANGELOG says what was wrong); what was made stays under the old id"
    )
