"""Gives programs what the runs of a grid came to: tables, comparisons, the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.deciding.judged_claims import JudgedClaim
from launcher.api.calls import as_library
from launcher.api.grids import find_grid, find_grids, open_workspace
from launcher.api.records import Effect, Grid, Verdict
from launcher.reporting import frames
from launcher.reporting import report as reports
from launcher.reporting.data import metric_overview, verdicts
from launcher.reporting.data.grid_comparison import ReportOptions
from launcher.reporting.report import WrittenReport
from launcher.workspace import workspaces
from zsg_core.errors import UserError
from zsg_core.metrics.means import LOSS

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]


@as_library()
def metrics(grid: Grid | str, *, workspace: str | Path | None = None) -> "pd.DataFrame":
    """Every value of every run of a grid as a DataFrame, one a row, also while runs go on.

    Columns: run, the grid's axes, stage, step, examples (trained on up to the step),
    key (the metric, such as loss), value, ts (when it was taken, UTC).

    Args:
        grid: a loaded grid, or the name of one that was submitted.
        workspace: the folder of all runs, for a name; else ZSG_WORKSPACE, or zsg-work here.

    Raises:
        UserError: if no such grid was submitted, or pandas is not installed.
    """
    name, folder = find_grid(grid, workspace)
    return frames.metrics(name, folder)


@as_library()
def item_losses(
    grid: Grid | str, *, workspace: str | Path | None = None, metric: str = "loss"
) -> "pd.DataFrame":
    """The loss of every test item at every checkpoint as a DataFrame, one a row.

    Columns: run, the grid's axes, step, item, task, loss. Another metric, such as
    exact_match, has its values in the column `value`. Arguments and errors are
    else those of `metrics`.
    """
    name, folder = find_grid(grid, workspace)
    return frames.item_losses(name, folder, metric)


@as_library()
def compare(
    grid: Grid | str,
    *,
    along: str | None = None,
    values: Sequence[Any] = (),
    metric: str = "loss",
    of: Literal["end", "area"] = "end",
    workspace: str | Path | None = None,
) -> list[Verdict]:
    """What the runs of a grid say: of its claims, or of the points that are named.

    Without `along` it is the verdicts of the grid's own `claims`. With it, whether the
    metric rises from each of the values to the next, in each group of runs that differ
    in nothing but this axis, seeds and held-out splits: the effect is the difference.
    Only runs that are done count. What is asked after the results were seen is no
    test of them: a note says so.

    Args:
        grid: a loaded grid, or the name of one that was submitted.
        along: an axis, such as "arrangement.order".
        values: two or more of its values, that with the lowest metric first.
        metric: the metric whose values are compared.
        of: of a curve its last value (end), or the area under it (area).
        workspace: the folder of all runs, for a name; else ZSG_WORKSPACE, or zsg-work here.

    Raises:
        UserError: if no such grid was submitted, or no run has the axis or a value.
    """
    name, folder = find_grid(grid, workspace)
    opened = open_workspace(folder)
    if along is None and values:
        raise UserError("values: of which axis? give along, such as arrangement.order")
    if along is not None and len(values) < 2:
        raise UserError(f"along {along}: give two or more of its values")
    if along is None:
        judged = verdicts.judge_grid(opened, name)
    else:
        question = {
            "claim": "rises",
            "along": along,
            "values": list(values),
            "metric": metric,
            "of": of,
        }
        judged = verdicts.judge_question(opened, name, question)
    return [_make_verdict(each) for each in judged]


@as_library()
def report(
    grid: Grid | str | Sequence[Grid | str],
    out: str | Path | None = None,
    *,
    metric: str | Sequence[str] = "loss",
    x: Literal["step", "examples", "tokens"] = "step",
    panel: str | None = None,
    workspace: str | Path | None = None,
) -> Path:
    """Writes the page that compares the runs of a grid, or of several, with its figures
    and tables beside it; returns the page's path. The page is one file and needs no
    network.

    Runs of several grids stand side by side, and each counts once, as the first one's
    that lists it.

    Args:
        grid: a loaded grid, or the name of one that was submitted; or several of them,
            of one workspace.
        out: the folder to write to, or a file that ends in .html for the page alone; else
            grids/GRID/report in the workspace, of several grids
            grids/GRID/report-with-OTHER. A file there that zsg did not write is never
            replaced.
        metric: which metric, or several, the first of them in large; "all" has every
            metric and the summaries of each.
        x: what the curves run over.
        panel: the axis that gets a panel for each value, or none.
        workspace: the folder of all runs, for a name; else ZSG_WORKSPACE, or zsg-work here.

    Raises:
        UserError: if no such grid was submitted, one is named twice or lies in another
            workspace than the others, no run has the metric, or what draws is not
            installed (zsg[report]).
    """
    names, folder = find_grids(grid, workspace)
    first, metrics = choose_metrics(metric)
    options = ReportOptions(first, x, panel, metrics=metrics)
    target = Path(out) if out is not None else None
    return write_reports(names, options, target, folder).page


def choose_metrics(metric: str | Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The metric that a report has in large, and all that it has; none beside it where
    it is one. A text is parted at its commas. UserError for no metric."""
    keys = metric_overview.split_metrics(
        metric if isinstance(metric, str) else list(metric)
    )
    first = LOSS if keys[0] == metric_overview.ALL else keys[0]
    if keys == (first,):
        return first, ()
    return first, keys


def write_reports(
    names: Sequence[str],
    options: ReportOptions,
    out: Path | None,
    folder: Path | None,
    claims: Path | None = None,
) -> WrittenReport:
    """Writes a page of a grid, or of several, with what a file of `claims` says of them,
    to `out`, or into the workspace."""
    if out is not None:
        opened = open_workspace(folder)
    else:
        opened = workspaces.find_own(folder, elsewhere="--out FOLDER")
    subject = reports.find_subject(opened, names, claims)
    return reports.write_subject(opened, subject, options, out)


def _make_verdict(judged: JudgedClaim) -> Verdict:
    decided = judged.verdict
    effects = [
        Effect(
            name=effect.name,
            value=effect.found.value,
            low=effect.found.interval[0],
            high=effect.found.interval[1],
            confidence=effect.confidence,
        )
        for effect in decided.effects
    ]
    claim: Mapping[str, Any] = judged.claim.model_dump(mode="json", exclude_none=True)
    return Verdict(
        word=decided.word,
        claim=claim,
        group=dict(judged.group),
        values=dict(decided.levels),
        effects=tuple(effects),
        tasks=decided.tasks,
        splits=decided.splits,
        runs=decided.runs,
        notes=tuple(decided.notes),
    )
