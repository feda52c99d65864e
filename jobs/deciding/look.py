"""Looks at the claims of a grid between two waves of held-out splits, and ends the waves
behind where nothing is left to be decided.

The decision follows from the journals of the waves before it alone, and what it is of
stands in the job's file, so it is the same however often it is made: a look that was
killed, or started again, finds what it has written and goes on. The runs of later waves are
told by cancel.json, which they read at their start: a run that has begun is left alone.
"""

import json
import logging
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from jobs.contract import attempt as attempts
from jobs.contract import (
    cancellation,
    exit_record,
    grid_record,
    job_file,
    look_decision,
    past_attempts,
)
from jobs.contract.attempt import now_ms
from jobs.contract.causes import Cause, Known
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import GridRecord, ListedRun, Summaries
from jobs.contract.job_file import LookJob
from jobs.contract.look_decision import LookDecision
from jobs.contract.states import Outcome
from jobs.deciding import judged_claims
from jobs.deciding.judged_claims import JudgedClaim
from zsg_core.settings.claims import OF_A_GRID
from zsg_core.settings.looks import Looks

logger = logging.getLogger(__name__)

MS_PER_H = 3_600_000


def take_look(job: LookJob) -> LookDecision:
    """Decides, and ends what is not needed; the decision that was made before stands."""
    folder = job.workspace.root / look_decision.FOLDER / job.stage_id
    decision = look_decision.read_decision(folder)
    if decision is None:
        decision = decide(job)
        look_decision.write_decision(folder, decision)
    logger.info(f"look {decision.number}: {decision.why}")
    if decision.is_over:
        spare_runs(job, decision.why)
    return decision


def decide(job: LookJob) -> LookDecision:
    """What the runs of the waves up to this look say, and what they have cost."""
    looks = Looks.model_validate(job.looks)
    claims = OF_A_GRID.validate_python([json.loads(text) for text in job.claims])
    runs = [ListedRun(run=run.run, axes=run.axes) for run in job.runs]
    _refuse_without_runs(job)
    record = GridRecord(name=job.grid, runs=runs, summaries=_read_summaries(job))
    judged = judged_claims.judge_claims(job.workspace, record, claims, looks)
    is_over, why = _conclude(judged, job, looks)
    return LookDecision(
        grid=job.grid,
        number=job.number,
        splits=looks.at[job.number - 1],
        is_over=is_over,
        why=why,
        claims=[f"{claim.claim.claim}: {claim.verdict.word}" for claim in judged],
        at=now_ms(),
    )


def _read_summaries(job: LookJob) -> Summaries | UnsetType:
    """What the grid names of summaries; one that was submitted is never defined anew."""
    try:
        record = grid_record.read_grid_record(job.workspace, job.grid)
    except Damaged as error:
        logger.warning(f"{error}: claims of its summaries cannot be decided")
        return UNSET
    return UNSET if record is None else record.summaries


def _refuse_without_runs(job: LookJob) -> None:
    """Raises Known where no run before the look is done: what has ended them all would
    end those behind it, too."""
    if any(_is_done(job.workspace, run.run) for run in job.runs):
        return
    count = len(job.runs)
    raise Known(
        Cause.LOOK_FAILED,
        f"none of the {count} runs before look {job.number} is done, so there is nothing"
        " to decide by",
    )


def _conclude(
    judged: Sequence[JudgedClaim], job: LookJob, looks: Looks
) -> tuple[bool, str]:
    """Whether the study is over, and why."""
    at = f"look {job.number} of {len(looks.at)}"
    if judged and all(map(_is_over, judged)):
        words = ", ".join(dict.fromkeys(claim.verdict.word for claim in judged))
        return True, f"all claims are decided at {at}: {words}"
    hours = sum_gpu_hours(job.workspace, [run.run for run in job.runs])
    if looks.gpu_hours is not None and hours >= looks.gpu_hours:
        return True, (
            f"the budget is spent at {at}: {hours:.1f} of {looks.gpu_hours:g} GPU-hours"
        )
    if not judged or not all(_is_taken(claim, job.number) for claim in judged):
        return False, f"{at} lacks runs, so it goes on as it was planned"
    count = sum(map(_is_over, judged))
    return False, f"{count} of {len(judged)} claims are decided at {at}: it goes on"


def _is_over(judged: JudgedClaim) -> bool:
    """Whether a claim needs no more splits."""
    looked = judged.verdict.looked
    return looked is not None and looked.is_over


def _is_taken(judged: JudgedClaim, number: int) -> bool:
    """Whether a claim was decided, or looked at by this look."""
    looked = judged.verdict.looked
    return looked is not None and (looked.is_over or looked.number >= number)


def sum_gpu_hours(workspace: Workspace, runs: Sequence[str]) -> float:
    """The GPU-hours that runs have taken, in all their attempts as far as known."""
    total = 0.0
    for run in runs:
        folder = workspace.run(run)
        newest = attempts.read_attempt(folder)
        if newest is None:
            continue
        end = exit_record.read_if_sound(folder)
        rows = past_attempts.read_rows(folder)
        described = past_attempts.describe_newest(newest, end, None, None)
        for row in [*rows, described]:
            if row.ended is not None:
                total += (row.ended - row.started) / MS_PER_H * (row.gpus or 0)
    return total


def spare_runs(job: LookJob, why: str) -> list[str]:
    """Tells the runs of later waves to end when they start; those that have begun, that
    are done, or that another grid lists are left alone. Returns which were told."""
    if not _is_as_submitted(job):
        logger.info("the grid was changed since, so no run is spared by this look")
        return []
    listed = _list_others(job)
    spared: list[str] = []
    for run in job.spares:
        folder = job.workspace.run(run)
        if run in listed or not _waits(job, run):
            continue
        train = job_file.read_train_job(folder)
        if train is not None:
            cancellation.request_cancellation(
                folder, train.submission, save=False, why=why
            )
            spared.append(run)
    logger.info(f"{len(spared)} runs are spared")
    return spared


def _waits(job: LookJob, run: str) -> bool:
    """Whether a run is submitted and has not begun."""
    folder = job.workspace.run(run)
    train = job_file.read_job_if_sound(folder)
    if train is None:
        return False
    if _is_done(job.workspace, run):
        return False
    attempt = attempts.read_attempt(folder)
    return attempt is None or attempt.submission != train.submission


def _is_done(workspace: Workspace, run: str) -> bool:
    end = exit_record.read_if_sound(workspace.run(run))
    return end is not None and end.outcome == Outcome.DONE


def _is_as_submitted(job: LookJob) -> bool:
    """Whether the grid still wants the claims and looks that this look was submitted
    for; else its runs are for looks of their own."""
    try:
        record = grid_record.read_grid_record(job.workspace, job.grid)
    except Damaged as error:
        logger.warning(f"{error}: it is taken as it was submitted")
        return True
    if record is None:
        return True
    claims = [row.claim for row in record.claims or []]
    looks = None if isinstance(record.looks, UnsetType) else record.looks.settings
    return (claims, looks) == (job.claims, job.looks)


def _list_others(job: LookJob) -> set[str]:
    """The runs that other grids of the workspace want."""
    listed: set[str] = set()
    for name in grid_record.list_grids(job.workspace):
        if name == job.grid:
            continue
        try:
            outline = grid_record.read_grid_outline(job.workspace, name)
        except Damaged as error:
            logger.warning(f"grid {name} cannot be read: {error}")
            continue
        if outline is not None:
            listed |= {row.run for row in [*outline.runs, *outline.before]}
    return listed
