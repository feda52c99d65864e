"""Takes the answers that runs keep out of a workspace, and scores of them in."""

import logging
from collections.abc import Collection
from pathlib import Path

from jobs.contract import answers
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import list_grids
from jobs.evaluating import external_score_record
from launcher.status import queries
from launcher.views import show
from launcher.workspace import recorded_grids
from zsg_core.errors import UserError
from zsg_core.metrics import external_scores

logger = logging.getLogger(__name__)


def export_answers(
    workspace: Workspace, which: str, steps: Collection[int] | None
) -> None:
    """Prints the answers of a grid's runs, or of one run, by runs and steps. UserError
    if there are none."""
    count = checkpoints = 0
    for run in _runs(workspace, which):
        rows = answers.select_current(answers.find_kept(run))
        for row in sorted(rows, key=lambda row: row.step):
            if steps and row.step not in steps:
                continue
            answered = answers.read_answers(run, row.place)
            for line in external_scores.format_answers(
                run.name, row.step, row.suite, answered
            ):
                show.print_line(line.removesuffix("\n"))
            count, checkpoints = count + len(answered), checkpoints + 1
    if not checkpoints:
        which_steps = f" of step {', '.join(map(str, steps))}" if steps else ""
        raise UserError(
            f"{which}: no run has answers{which_steps} yet; a grid asks for them by"
            " checkpoints.metrics, such as rouge1"
        )
    logger.info(f"{count} answers of {checkpoints} checkpoint{'s' * (checkpoints > 1)}")


def record_scores(workspace: Workspace, file: Path) -> None:
    """Journals the scores of a file in their runs; tells of each checkpoint what it has now."""
    by_checkpoint = external_scores.read_scores(file)
    if not by_checkpoint:
        raise UserError(f"{file}: holds no scores")
    runs = {
        name: workspace.root / queries.find_item(workspace, f"runs/{name}")
        for name, _, _ in by_checkpoint
    }
    for (name, step, suite), by_metric in sorted(
        by_checkpoint.items(), key=lambda item: (*item[0][:2], item[0][2] or "")
    ):
        scores, before = external_score_record.record_scores(
            runs[name], step, by_metric, file.name, suite
        )
        new = [f"{key} {value:.4g}" for key, value in scores.values.items()]
        results = [*new, *scores.flags, *(f"{key} was there already" for key in before)]
        show.print_result(f"{name} step {step}: {'; '.join(results)}")


def _runs(workspace: Workspace, which: str) -> list[Path]:
    if which in list_grids(workspace):
        rows = recorded_grids.read_grid(workspace, which).all_runs
        folders = dict.fromkeys(workspace.run(row.run) for row in rows)
        return [run for run in folders if run.is_dir()]
    return [workspace.root / queries.find_item(workspace, which)]
