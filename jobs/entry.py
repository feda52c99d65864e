"""The one door to the nodes: reads a folder's job.json, runs the job, and always says how it ended.

`python -m jobs.entry <folder>` replays any job by hand. Under Slurm every rank comes
through here; outside it there is one. Engines are imported only inside the job, so that
the record of an attempt exists at once.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from jobs.contract import attempt as attempts
from jobs.contract import (
    cancellation,
    causes,
    continuation,
    exit_record,
    job_file,
    past_attempts,
    stages,
)
from jobs.contract.attempt import Attempt, Superseded
from jobs.contract.causes import Cause
from jobs.contract.exit_record import ExitRecord, replace_unset
from jobs.contract.folder import SCHEMA
from jobs.contract.heartbeat import Heartbeat, Pulse, read_heartbeat
from jobs.contract.job_file import (
    AnyJob,
    CanaryJob,
    EvaluateJob,
    LookJob,
    NodeCheckJob,
    PrepareJob,
    SampleJob,
    ScoreJob,
    TrainJob,
    continue_policy,
)
from jobs.contract.journal import (
    Journal,
    list_metric_cells,
    read_own,
    spell_nonfinite,
)
from jobs.contract.states import Outcome
from jobs.files import ownership
from jobs.files.locks import NoLocks
from jobs.notices import at_end
from jobs.runtime import (
    caches,
    code_guard,
    installed_versions,
    job_log,
    log_marks,
    prerequisites,
    requeue,
    setup,
    tracebacks,
)
from jobs.runtime import ranks as ranks_of
from jobs.runtime.signals import Signals
from jobs.runtime.signals import choose_outcome as outcome_of
from jobs.tracking import live
from jobs.training import state
from zsg_core.errors import Diverged, ZsgError
from zsg_core.plugins.entries import enter_copies
from zsg_core.secrets import hide_known
from zsg_core.training import schedule

# by its name, as it is run as a program, which Python calls __main__
logger = logging.getLogger("jobs.entry")

MEET_S = 600.0
# an evaluate job in its own folder's journal; in a run's folder it is a guest
EVALUATOR = "evaluator"


def run(folder: str) -> None:
    """Runs the job of a folder; what submitit pickles is this function and the path.
    Exits non-zero on failure."""
    job_log.install_job_log()
    path = Path(folder)
    refuse_strange(path)
    ownership.make_files_private(path.absolute().parent.parent)
    caches.make_caches_private()
    # No job speaks to MLflow, but DeepSpeed imports it where it is installed: more than
    # a second for each rank.
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    signals = Signals()
    ranks = ranks_of.read_ranks()
    job = _read_job(path)
    _leave_if_needless(path, job, ranks)
    past = Past(exit_record.read_if_sound(path), state.newest_whole_step(path))
    attempt = _begin_attempt(path, job, ranks, past)
    start = Start(path, attempt, ranks, signals, Pulse(), past)
    heartbeat = Heartbeat(path, attempt, start.pulse) if ranks.is_main else None
    if ranks.is_main:
        live.start_delivery(path, job)
    with contextlib.suppress(OSError):  # a log that cannot grow is no reason to fail
        job_log.write_line(
            log_marks.format_attempt_mark(
                attempt, ranks.rank, ranks.world, attempts.get_node_name()
            )
        )
    start.pulse.other_versions = _tell_other_versions()
    outcome, facts = _perform_to_the_end(start, job)
    facts = add_what_was_noted(start, facts)
    if heartbeat:
        heartbeat.stop()
    if outcome != Outcome.DONE:
        outcome, facts = _settle_end(start, job, outcome, facts)
    # Rank 0 says what comes next; until it has, another rank's exit code would have it killed.
    code = int(outcome == Outcome.FAILED)
    if ranks.is_main:
        outcome, code = _tell_end(start, job, outcome, facts)
    elif outcome == Outcome.FAILED:
        _end(path, attempt, outcome, facts)
    if ranks.is_main or outcome == Outcome.FAILED:
        at_end.tell_end(path, job)
    # submitit's own record of the end nobody reads
    if outcome != Outcome.DONE or continuation.is_ours(job.submission):
        _leave(f"{path}: {outcome}", code)


def refuse_strange(path: Path) -> None:
    """Ends this process before it reads a job that others may have written, or loads
    what they have saved for it."""
    path = path.absolute()
    if fault := ownership.find_fault_on_path(path.parent.parent, path, is_run=False):
        sys.exit(f"{fault}: what others may write is not run as yours; see zsg doctor")


@dataclass(frozen=True)
class Past:
    """What an attempt found when it began: the last exit record, and the newest saved step."""

    record: ExitRecord | None
    before: int | None


@dataclass(frozen=True)
class Start:
    """One attempt at a job, on this rank."""

    path: Path  # of the job's folder
    attempt: Attempt
    ranks: ranks_of.Ranks
    signals: Signals
    pulse: Pulse
    past: Past


def _leave_if_needless(path: Path, job: AnyJob, ranks: ranks_of.Ranks) -> None:
    """Ends this process where a later submission has replaced the job, or it is done."""
    if continuation.is_replaced(job.submission):
        _leave(
            f"{path}: a later submission has taken this job's place, so this one does nothing",
            1,
        )
    if attempts.done_before(path, job.submission):
        logger.info(
            f"{path}: this job was started again after it had finished; nothing is left to do"
        )
        if ranks.is_main and isinstance(job, TrainJob):
            _clean_up(path, job)  # the end may have come just before
        _leave(f"{path}: done", 0)


def _begin_attempt(
    path: Path, job: AnyJob, ranks: ranks_of.Ranks, past: Past
) -> Attempt:
    """The attempt that rank 0 begins and the other ranks wait for."""
    if ranks.is_main:
        past_attempts.keep_last(path, past.before)
        return attempts.begin_attempt(path, job.submission, job.resources.gpus or 0)
    attempt = attempts.await_begin(path, MEET_S)
    if attempt is None:
        sys.exit(
            f"rank {ranks.rank}: rank 0 wrote no {attempts.locate_attempt(path)}"
            f" within {MEET_S:.0f} s"
        )
    return attempt


def _tell_other_versions() -> str | None:
    """Says where this node has other versions than the submit; every rank does, as each
    may be on a node of its own."""
    difference = installed_versions.find_difference()
    if difference:
        logger.warning(difference)
    return difference


def _perform_to_the_end(start: Start, job: AnyJob) -> tuple[Outcome, dict[str, Any]]:
    """Does the job; whatever happens, how it ended and what there is to tell of it."""
    try:
        return _perform(start, job)
    except Superseded as newer:
        _leave(f"stopping without writing: {newer}", 1)
    except KeyboardInterrupt:
        return _describe_stop(start.signals)
    except BaseException as error:
        logger.exception("this attempt ends with an error")
        return Outcome.FAILED, _cause(error)


def _describe_stop(signals: Signals) -> tuple[Outcome, dict[str, Any]]:
    """What a signal makes of the run, and which it was."""
    return outcome_of(signals.asks), {"cause": Cause.SIGNAL, "evidence": signals.name}


def add_what_was_noted(start: Start, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of an end with what this attempt has noted, however it ended: which
    steps it took, other versions than the submit's, and what there is to know of the
    run's examples. Rank 0 finds the latter; the other ranks have it from its heartbeat."""
    notes = start.pulse.notes
    if not start.ranks.is_main:
        beat = read_heartbeat(start.path, start.attempt.nonce)
        notes = beat[0].notes if beat else []
    noted = {"other_versions": start.pulse.other_versions, "notes": notes}
    noted = {key: value for key, value in noted.items() if value}
    if start.pulse.from_step is not None:
        steps = {"from_step": start.pulse.from_step, "last_step": start.pulse.step}
        noted |= steps
    return {**facts, **noted}


def _settle_end(
    start: Start, job: AnyJob, outcome: Outcome, facts: dict[str, Any]
) -> tuple[Outcome, dict[str, Any]]:
    """The end of a job that is not done: with what is saved, and cancelled if that was
    asked for."""
    saved = state.newest_whole_step(start.path)
    facts = facts | {"saved": saved}
    request = cancellation.read_cancellation(start.path, job.submission)
    if request is None:
        return outcome, facts
    facts = {"step": saved, **facts}
    decision = _decide(job, outcome, facts, start.past, is_cancel_asked=True)
    facts |= decision.facts
    if decision.outcome == Outcome.CANCELLED:
        facts |= request.facts
    return decision.outcome, facts


def _tell_end(
    start: Start, job: AnyJob, outcome: Outcome, facts: dict[str, Any]
) -> tuple[Outcome, int]:
    """Writes how the attempt ended and does what follows from it; returns the outcome
    and the exit code."""
    path = start.path
    if outcome == Outcome.CONTINUE:
        decision = _decide(job, outcome, facts, start.past)
        outcome, facts = decision.outcome, facts | decision.facts
    _end(path, start.attempt, outcome, facts)
    if outcome == Outcome.DONE:
        if isinstance(job, TrainJob):
            _clean_up(path, job)
        return Outcome.DONE, 0
    # by this rank, unless another has failed
    record = exit_record.read_exit_record(path)
    goes_on = replace_unset(record.goes_on) if record else None
    if goes_on == continuation.REQUEUE:
        goes_on = _requeue(path, start.attempt)
    has_dependents = bool(job.makes or continuation.count_links_left())
    return outcome, continuation.exit_code(outcome, goes_on, has_dependents)


def _decide(
    job: AnyJob,
    outcome: Outcome,
    facts: dict[str, Any],
    past: Past,
    *,
    is_cancel_asked: bool = False,
) -> continuation.Decision:
    """What follows from the end of this start. Slurm is asked only of a job that was
    interrupted and may continue by itself."""
    is_ours = continuation.is_ours(job.submission)
    policy = continue_policy(job) if is_ours else None
    slurm = continuation.SlurmAnswer()
    if policy and not is_cancel_asked:
        slurm = requeue.ask_slurm(attempts.slurm_job_id() or "", job.submission)
    # An evaluator has saved what it has scored: it continues as long as it scores.
    is_train = isinstance(job, TrainJob)
    return continuation.decide_end(
        continuation.JobEnd(
            kind=job.kind,
            submission=job.submission,
            outcome=outcome,
            is_cancel_asked=is_cancel_asked,
            policy=policy,
            previous=past.record,
            saved_before=past.before,
            saved=facts["saved"] if is_train else facts.get("scored") or None,
            links_left=continuation.count_links_left(),
            slurm=slurm,
        )
    )


def _requeue(path: Path, attempt: Attempt) -> str | None:
    """Puts the job back into the queue, its record being on disk; what goes on, or None
    where Slurm refuses."""
    trouble = requeue.requeue_job(attempt.slurm_job_id or "")
    if trouble is None:
        return continuation.REQUEUE
    evidence = f"it could not be requeued: {trouble}; {continuation.NEXT}"
    with contextlib.suppress(Superseded):
        attempts.amend_end(path, attempt, goes_on=None, evidence=evidence)
    return None


def _clean_up(path: Path, job: TrainJob) -> None:
    """Removes what nobody needs any more; only now: until the end is told, a killed run
    goes on from it."""
    if not job.checkpoints.keep_state:
        for reason in state.remove_states(path):
            logger.warning(f"a state is not removed: {reason}")
    if job.before and not stages.is_still_needed(path, job):
        try:
            stages.release_weights(job.workspace, job.before[-1], job.run_id)
        except (OSError, NoLocks) as error:  # the run is done all the same
            logger.warning(f"the weights that it started from are not removed: {error}")


def _read_job(path: Path) -> AnyJob:
    job, job_path = job_file.read_job(path), job_file.job_path(path)
    if job is None:
        sys.exit(f"{job_path}: not found; give the folder of a run or of a prepare job")
    if job.schema != SCHEMA:
        sys.exit(
            f"{job_path}: schema {job.schema}, this zsg reads {SCHEMA}; submit again"
        )
    return job


def _perform(start: Start, job: AnyJob) -> tuple[Outcome, dict[str, Any]]:
    # only now: whoever cancels has looked for this attempt
    if cancellation.read_cancellation(start.path, job.submission):
        return Outcome.CANCELLED, {}
    setup.check_setup()
    code_guard.check_submitted_code(job.code)
    # those of the submit lie beside this very code
    enter_copies(Path(__file__).resolve().parents[1])
    role = EVALUATOR if isinstance(job, EvaluateJob) else job.kind
    journal = None
    if start.ranks.is_main:
        journal = Journal(start.path, start.attempt, role, job.stage_id)
    try:
        if isinstance(job, PrepareJob | SampleJob):
            return _make_inputs(job, journal, start.pulse)
        if isinstance(job, ScoreJob):
            return _score(job, journal, start.pulse)
        if isinstance(job, CanaryJob | LookJob):
            return _stand_between(job, journal, start.pulse)
        if isinstance(job, EvaluateJob):
            return _evaluate(start, job, journal)
        if isinstance(job, NodeCheckJob):
            return _check_nodes(start, job, journal)
        return _train(start, job, journal)
    finally:
        if journal:
            journal.close()


def _make_inputs(
    job: PrepareJob | SampleJob, journal: Journal | None, pulse: Pulse
) -> tuple[Outcome, dict[str, Any]]:
    """Makes what runs read."""
    if isinstance(job, PrepareJob):
        return _prepare(job, journal, pulse)
    return _sample(job, journal, pulse)


def _prepare(
    job: PrepareJob, journal: Journal | None, pulse: Pulse
) -> tuple[Outcome, dict[str, Any]]:
    from jobs.preparing import prepare

    with job_log.record_progress("preparing", journal, pulse):
        prepare.run(job)
    return Outcome.DONE, {}


def _sample(
    job: SampleJob, journal: Journal | None, pulse: Pulse
) -> tuple[Outcome, dict[str, Any]]:
    from jobs.preparing import prepare

    with job_log.record_progress("sampling", journal, pulse):
        prepare.sample_answers(job)
    return Outcome.DONE, {}


def _score(
    job: ScoreJob, journal: Journal | None, pulse: Pulse
) -> tuple[Outcome, dict[str, Any]]:
    from jobs.scoring import score_job

    with job_log.record_progress("scoring", journal, pulse):
        score_job.score_examples(job)
    return Outcome.DONE, {}


def _watch(
    job: CanaryJob, journal: Journal | None, pulse: Pulse
) -> tuple[Outcome, dict[str, Any]]:
    from jobs.runtime import canary

    with job_log.record_progress("waiting", journal, pulse):
        result = canary.wait_for_first_run(job)
    return Outcome.DONE, asdict(result)


def _stand_between(
    job: CanaryJob | LookJob, journal: Journal | None, pulse: Pulse
) -> tuple[Outcome, dict[str, Any]]:
    """Does what runs of a grid wait for."""
    if isinstance(job, CanaryJob):
        return _watch(job, journal, pulse)
    return _look(job, journal, pulse)


def _look(
    job: LookJob, journal: Journal | None, pulse: Pulse
) -> tuple[Outcome, dict[str, Any]]:
    """Looks at claims between two waves of runs."""
    from jobs.deciding import look

    with job_log.record_progress("looking", journal, pulse):
        look.take_look(job)
    return Outcome.DONE, {}


def _check_nodes(
    start: Start, job: NodeCheckJob, journal: Journal | None
) -> tuple[Outcome, dict[str, Any]]:
    """Finds out what this rank can show of its node."""
    from jobs.node_check import run as node_checks

    with job_log.record_progress("checking", journal, start.pulse):
        node_checks.run_checks(
            start.path, job.request, start.ranks, start.attempt.attempt
        )
    return Outcome.DONE, {}


def _evaluate(
    start: Start, job: EvaluateJob, journal: Journal | None
) -> tuple[Outcome, dict[str, Any]]:
    from jobs.evaluating import evaluate

    item = f"{start.path.parent.name}/{start.path.name}"
    try:
        with job_log.record_progress("evaluating", journal, start.pulse):
            evaluated = evaluate.evaluate_runs(
                job, item, start.attempt, lambda: start.signals.received is not None
            )
        return Outcome.DONE, asdict(evaluated)
    except evaluate.Stopped as stopped:
        outcome, facts = _describe_stop(start.signals)
        return outcome, facts | asdict(stopped.done)


def _train(
    start: Start, job: TrainJob, journal: Journal | None
) -> tuple[Outcome, dict[str, Any]]:
    """Trains a stage; returns how the attempt ended and what its end record tells."""
    prerequisites.check_prerequisites(job)
    from jobs.training import train

    context = train.AttemptContext(
        start.path, start.attempt, start.ranks, journal, start.signals, start.pulse
    )
    try:
        progress = train.run(job, context)
    except train.Stopped as stopped:
        _, facts = _describe_stop(start.signals)
        return stopped.outcome, facts | asdict(stopped.progress)
    cells = []
    if start.ranks.is_main:
        cells = sorted(list_metric_cells(read_own(start.path)))
    facts = {
        "world": start.ranks.world,
        "checkpoints": _list_steps(cells, "loss"),
        "quick": {
            key: _list_steps(cells, key)
            for key in sorted({key for _, key in cells})
            if schedule.quick_items(key)
        },
    }
    return Outcome.DONE, asdict(progress) | facts


def _list_steps(cells: Sequence[tuple[int, str]], key: str) -> list[int]:
    """The steps at which a metric was measured."""
    return [step for step, measured in cells if measured == key]


def _end(path: Path, attempt: Attempt, outcome: Outcome, facts: dict[str, Any]) -> None:
    try:
        attempts.end_attempt(path, attempt, outcome, **spell_nonfinite(facts))
    except Superseded as newer:
        _leave(f"stopping without writing: {newer}", 1)


def _leave(why: str, code: int) -> NoReturn:
    """Ends this process now: torch's and DeepSpeed's clean-up could wait for ranks that
    are gone."""
    logger.info(why)
    sys.stdout.flush()
    os._exit(code)


def _cause(error: BaseException) -> dict[str, Any]:
    """What failed in a word, the line that proves it, and the hash by which equal
    errors are known."""
    cause = error.cause if isinstance(error, causes.Known) else causes.of_error(error)
    text = hide_known(str(error).strip())
    if isinstance(error, ZsgError):
        at = {"step": error.step} if isinstance(error, Diverged) else {}
        return {
            "cause": cause,
            "evidence": text,
            "signature": tracebacks.hash_message(text),
            **at,
        }
    lines = text.splitlines() or [""]
    proof = next((line for line in lines if causes.of_line(line) == cause), lines[-1])
    return {
        "cause": cause,
        "evidence": f"{type(error).__name__}: {proof}",
        "signature": tracebacks.hash_error(error),
    }


if __name__ == "__main__":
    run(sys.argv[1])
