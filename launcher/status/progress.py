"""Adds to a job's state how far it has come, from its heartbeat or from the end of its
journal; flags what hangs."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract import gpu_hours, journal
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Damaged
from jobs.contract.heartbeat import TRAINING
from jobs.contract.job_file import HANG_MIN, AnyJob
from jobs.contract.journal_rows import (
    Row,
    Start,
    find_metrics,
    find_starts,
    name_event,
)
from jobs.contract.states import State
from jobs.training.state import newest_whole_step
from launcher.status.liveness import Signs
from launcher.workspace.job_state import JOURNAL_UNREADABLE, JobState

FIRST_ROWS = 12  # of a journal, among which its start stands


def add_liveness(
    folder: Path, state: JobState, signs: Signs, job: AnyJob | None
) -> JobState:
    """Adds what a job under way shows of itself."""
    beat = signs.beat
    if beat is None:
        return add_progress(folder, state)
    hang_min = job.resources.hang_min if job else HANG_MIN
    for_s = signs.stands_still_for(hang_min)
    return replace(
        state,
        attempt=signs.attempt.attempt,
        step=beat.step,
        steps=beat.steps,
        loss=_number(beat.loss),
        train_loss=_number(beat.train_loss),
        doing=beat.doing,
        evidence=beat.note,
        notes=tuple(beat.notes),
        other_versions=beat.other_versions,
        tokens_per_s=replace_unset(beat.tokens_per_s),
        eta_s=signs.eta_s,
        heartbeat_s=signs.beat_s,
        flag=_hang(beat.doing, for_s, state.gpus) if for_s else None,
        hang_s=for_s,
        spent=gpu_hours.sum_running(folder, signs.attempt, beat, signs.beat_s or 0.0),
    )


def add_progress(folder: Path, state: JobState) -> JobState:
    """Adds attempt, step and last loss from the end of the newest journal; of a prepare
    job, what it is doing. Lines that are no rows are passed over and flagged."""
    attempt = attempts.read_attempt(folder)
    files = journal.list_owned_files(folder)
    if not attempt or not files:
        return state
    tail = journal.read_tail(files[-1])
    start, start_trouble = _find_last_start(files[-1], tail.rows)
    saved = newest_whole_step(folder)
    is_under_way = state.state == State.RUNNING
    spent = state.spent if is_under_way else gpu_hours.sum_ended(folder, saved)
    return replace(
        state,
        attempt=attempt.attempt,
        # a snapshot is told of when training is past it
        step=max((row.step for row in tail.rows), default=None),
        steps=replace_unset(start.steps) if start else None,
        loss=_find_last_loss(tail.rows),
        evidence=state.evidence or _note(tail.rows, start),
        saved=saved,
        spent=spent,
        flag=state.flag or _flag_unreadable(tail.trouble or start_trouble),
    )


def _find_last_loss(rows: list[Row]) -> float | None:
    """The last test loss among rows, also one that is not finite."""
    losses = [loss for _, loss in find_metrics(rows, "loss")]
    return _number(losses[-1]) if losses else None


def _find_last_start(path: Path, rows: list[Row]) -> tuple[Start | None, str | None]:
    """The last start among the rows at a journal's end, else the one at its beginning;
    and why that cannot be read."""
    starts = [start for _, start in find_starts(rows)]
    if starts:
        return starts[-1], None
    try:
        return _find_first_start(path), None
    except Damaged as error:
        return None, str(error)


def _flag_unreadable(trouble: str | None) -> str | None:
    return f"{JOURNAL_UNREADABLE}: {trouble}" if trouble else None


def _hang(doing: str, for_s: float, gpus: int | None) -> str:
    """What a job has been doing for how long without progress, and how many GPUs wait
    with it. `for_s` are seconds; minutes are shown."""
    activity = "no step" if doing == TRAINING else doing
    minutes = f"{for_s / 60:.0f} min"
    return f"{activity} for {minutes}" + (f", {gpus} GPUs held" if gpus else "")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)  # one that is not finite is a text


def _note(rows: list[Row], start: Start | None) -> str | None:
    """What a prepare job is doing, or why a run has not resumed from the state that it has."""
    if start:
        return replace_unset(start.passed_over)
    return name_event(rows[-1]) if rows else None


def _find_first_start(path: Path) -> Start | None:
    # all of them: one that cannot be read is told, wherever the start is
    first_rows = list(islice(journal.read_file(path), FIRST_ROWS))
    return next((start for _, start in find_starts(first_rows)), None)
