"""Takes the answers that runs keep out of a workspace, and scores of them in."""

import logging
from collections.abc import Collection
from pathlib import Path

from jobs.contract import answers
from jobs.contract.answers import KeptAnswers
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import list_grids
from jobs.evaluating import external_score_record
from launcher.status import queries
from launcher.views import show
from launcher.workspace import recorded_grids
from zsg_core.errors import ClusterError, UserError
from zsg_core.metrics import external_scores
from zsg_core.suites import find_marks

logger = logging.getLogger(__name__)


def export_answers(
    workspace: Workspace, which: str, steps: Collection[int] | None
) -> None:
    """Prints the answers of a grid's runs, or of one run, by runs and steps. UserError
    if there are none; ClusterError, after all others, for some that cannot be read."""
    count = checkpoints = 0
    troubles: list[ClusterError] = []
    for run in _runs(workspace, which):
        for row in _list_answers(run, steps, troubles):
            try:
                answered = answers.read_answers(run, row.place)
            except ClusterError as error:
                troubles.append(error)
                continue
            for line in external_scores.format_answers(
                run.name, row.step, row.suite, answered, find_marks(row.how)
            ):
                show.print_line(line.removesuffix("\n"))
            count, checkpoints = count + len(answered), checkpoints + 1
    if not checkpoints and not troubles:
        which_steps = f" of step {', '.join(map(str, steps))}" if steps else ""
        raise UserError(
            f"{which}: no run has answers{which_steps} yet; a grid asks for them by"
            " checkpoints.metrics, such as rouge1"
        )
    logger.info(f"{count} answers of {checkpoints} checkpoint{'s' * (checkpoints > 1)}")
    if troubles:  # they have not kept the others from being printed
        for trouble in troubles[1:]:
            logger.warning(f"not exported: {trouble}")
        raise troubles[0]


def _list_answers(
    run: Path, steps: Collection[int] | None, troubles: list[ClusterError]
) -> list[KeptAnswers]:
    """The answers that a run keeps, of these steps or of all; none where its journal
    cannot be read, which is noted."""
    try:
        rows = answers.select_current(answers.find_kept(run))
    except Damaged as error:
        troubles.append(error)
        return []
    chosen = [row for row in rows if not steps or row.step in steps]
    return sorted(chosen, key=lambda row: row.step)


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
    """The folders of a grid's runs, each once though several grids' rows may share it,
    of those that have begun; else of the one item that `which` names. Raises UserError
    where it names neither."""
    if which in list_grids(workspace):
        rows = recorded_grids.read_grid(workspace, which).all_runs
        folders = dict.fromkeys(workspace.run(row.run) for row in rows)
        return [run for run in folders if run.is_dir()]
    return [workspace.root / queries.find_item(workspace, which)]
