"""Waits until the run that goes first has shown that the others may follow: a finite
first checkpoint, and its speed.

The runs of a large grid wait for this job with afterok. It ends well once the run has a
finite loss after its first step and has told how fast it trains, or is done; and badly,
with the reason, once the run has ended without that.
"""

import logging
import math
import os
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.contract import exit_record, job_file, journal
from jobs.contract import heartbeat as heartbeats
from jobs.contract.causes import Cause, Known
from jobs.contract.exit_record import ExitRecord, replace_unset
from jobs.contract.folder import write_json
from jobs.contract.job_file import CanaryJob
from jobs.contract.journal import SPEED
from jobs.contract.journal_rows import EventRow, MetricRow, Number, Row, Start
from jobs.contract.states import Outcome
from jobs.files import ownership
from jobs.runtime import slurm_calls, slurm_environment
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

POLL_S = 2.0
# without a heartbeat for so long, Slurm is asked whether it still has the run
SILENT_S = 120.0
_ID = re.compile(r"([0-9]+)(?:_(?:[0-9]+|\[.*))? *")  # as squeue prints a job's
SPEED_KEY = f"{SPEED}tokens_per_s"


@dataclass(frozen=True)
class FirstRunResult:
    """What the first run has shown. `tokens_per_s` of all its ranks together; None for
    a run that was done before."""

    run: str
    step: int
    loss: float | None
    tokens_per_s: float | None


def wait_for_first_run(
    job: CanaryJob,
    sleep: Callable[[float], None] = time.sleep,
) -> FirstRunResult:
    """Returns what the run has shown once it suffices, and keeps its speed for estimates.

    Raises Known, the cause, if it never will. `job.canary`: the run, the submission
    and Slurm ids of its job; `job.makes`: the file where its speed is kept.
    """
    watched, since = job.canary, time.time()
    root = job.workspace.root
    run = root / "runs" / watched.run
    logger.info(f"waiting for the first checkpoint of run {watched.run}")
    while True:
        record = exit_record.read_exit_record(run)
        is_of_submission = record and record.submission == watched.submission
        ended = record if is_of_submission else None
        result = judge_first_run(watched.run, journal.read_to_hole(run), ended)
        if result:
            break
        if is_submitted_again(run, watched.submission):
            raise Known(
                Cause.CANARY_FAILED,
                f"run {watched.run} was submitted again, and another job waits for its first"
                " checkpoint",
            )
        if ended is None and _is_gone(run, watched.slurm, since):
            raise Known(
                Cause.CANARY_FAILED,
                f"run {watched.run} has left Slurm's queue without a word; zsg why"
                f" {watched.run}",
            )
        sleep(POLL_S)
    if result.tokens_per_s:
        path = root / job.makes[0]
        ownership.make_folder(path.parent)
        write_json(path, asdict(result))
    logger.info(
        f"run {result.run} has loss {result.loss} at step {result.step}: the others may start"
    )
    return result


def judge_first_run(
    run: str, rows: Iterable[Row], ended: ExitRecord | None
) -> FirstRunResult | None:
    """What a run has shown, from its journal and exit record; None while that does not
    suffice. Known if it failed.

    The first loss after a step of its own must be a number; speeds are those of the
    steps but the first two, which warm up, where there are more.
    """
    losses, speeds = _collect_measurements(rows)
    if losses and not math.isfinite(losses[0][1]):
        raise Known(
            Cause.CANARY_FAILED,
            f"run {run} has the loss {losses[0][1]} at its first checkpoint, step {losses[0][0]}",
        )
    speed = _choose_speed(speeds)
    if ended and ended.outcome == Outcome.DONE:
        return _describe_done_run(run, ended, speed)
    if losses and speed:
        return FirstRunResult(run, *losses[0], speed)
    if ended and ended.outcome != Outcome.CONTINUE:
        raise Known(
            Cause.CANARY_FAILED,
            f"run {run} went first and ended before its first checkpoint: {ended.why}",
        )
    return None


def _collect_measurements(
    rows: Iterable[Row],
) -> tuple[list[tuple[int, float]], list[float]]:
    """The losses after a step of the run's own, each with its step, and its speeds."""
    losses: list[tuple[int, float]] = []
    speeds: list[float] = []
    first_step = None
    for row in rows:
        if first_step is None and isinstance(row, EventRow):
            first_step = _read_first_step(row)
        if not isinstance(row, MetricRow):
            continue
        if SPEED_KEY in row.data:
            speeds.append(float(row.data[SPEED_KEY]))
        loss = _find_loss(row)
        if loss is not None and first_step is not None and row.step > first_step:
            losses.append((row.step, float(loss)))
    return losses, speeds


def _read_first_step(row: EventRow) -> int | None:
    """The step that a run starts from; None of a row that is no start."""
    return replace_unset(row.data.from_step, 0) if isinstance(row.data, Start) else None


def _find_loss(row: MetricRow) -> Number | None:
    """The loss among a row's metrics, of the whole test set or the quick one; None
    without."""
    for key, value in row.data.items():
        if key == "loss" or key.startswith("loss_quick_"):
            return value
    return None


def _choose_speed(speeds: list[float]) -> float | None:
    """The median of the speeds after warm-up; of all where there are no more than two."""
    return statistics.median(speeds[2:] or speeds) if speeds else None


def _describe_done_run(
    run: str, ended: ExitRecord, speed: float | None
) -> FirstRunResult:
    loss = replace_unset(ended.loss)
    return FirstRunResult(
        run, ended.step or 0, None if loss is None else float(loss), speed
    )


def is_submitted_again(run: Path, submission: str) -> bool:
    """Whether a run has been submitted anew since that submission, which comes with a
    watch of its own: two of them would wait for the same run."""
    job = job_file.read_job_if_sound(run)
    return job is not None and job.submission != submission


def _is_gone(run: Path, ids: list[str], since: float) -> bool:
    """Whether a run that gives no sign of life is not in Slurm's queue either; False
    where nobody can be asked."""
    heartbeat = heartbeats.locate_heartbeat(run)
    silent_s = time.time() - max(
        since, heartbeat.stat().st_mtime if heartbeat.exists() else 0
    )
    squeue = shutil.which("squeue")
    if silent_s < SILENT_S or squeue is None:
        return False
    # Once the run's job is forgotten, its number may be another's.
    argv = [squeue, "--noheader", "--all", "--user", str(os.getuid())]
    argv += ["--jobs", ",".join(ids), "--format", "%i"]
    env = slurm_environment.make_call_environment()
    try:
        answer = slurm_calls.call_program(argv, slurm_calls.ASK_S, env)
    except ClusterError:
        return False
    if answer.returncode:
        return "Invalid job id" in answer.stderr
    mains = {job_id.partition("_")[0] for job_id in ids}
    # a site's squeue may print lines of its own
    shown = filter(None, map(_ID.fullmatch, answer.stdout.split("\n")))
    return mains.isdisjoint(match[1] for match in shown)
