"""Counts what a job has cost: the GPU-hours of its attempts, and what became of them.

Pure, but for the two functions that read. The steps of one attempt are taken as equally
long, its start-up and its evaluations spread over them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jobs.contract import attempt as attempts
from jobs.contract import exit_record, past_attempts
from jobs.contract.attempt import Attempt
from jobs.contract.exit_record import ExitRecord, replace_unset
from jobs.contract.heartbeat import Beat, read_heartbeat
from jobs.contract.past_attempts import PastAttempt
from jobs.contract.states import Outcome

MS_OF_HOUR = 3_600_000


class Spent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the attempts of a job have cost so far, in GPU-hours; of jobs without GPUs
    in hours.

    `useful`: up to the step from which the next attempt went on, which is saved, or
    which the run has come to. `repeated`: steps that a later attempt had to train
    again. `lost`: attempts that left nothing to go on from, and of one that has ended
    what came after its last saved state. `per_step`: of one step, as measured; 0 where
    no step was taken. `unknown_before`: of earlier attempts than this one nothing is
    kept, since an older zsg ran them; 0 where all are known.
    """

    useful: float = 0.0
    repeated: float = 0.0
    lost: float = 0.0
    per_step: float = 0.0
    has_gpus: bool = False
    unknown_before: int = 0


@dataclass(frozen=True)
class Share:
    """What became of one attempt: GPU-hours that are of use, and others."""

    useful: float
    wasted: float
    leaves_something: bool


def split_hours(spans: Sequence[PastAttempt], is_under_way: bool) -> Spent | None:
    """What the attempts of a job have cost, the first one first; None where that is not
    known of any. `is_under_way`: whether the last of them still runs."""
    known = [span for span in spans if _is_measured(span)]
    if not known:
        return None
    useful = 0.0
    repeated = 0.0
    lost = 0.0
    followers: list[PastAttempt | None] = [*spans[1:], None]
    for span, after in zip(spans, followers, strict=True):
        if not _is_measured(span):
            continue
        is_last = after is None
        share = _share_attempt(span, after, is_last and is_under_way)
        useful += share.useful
        if share.leaves_something and not is_last:
            repeated += share.wasted
        else:
            lost += share.wasted
    return Spent(
        useful=useful,
        repeated=repeated,
        lost=lost,
        per_step=_measure_step(known),
        has_gpus=any(span.gpus for span in known),
        unknown_before=_find_unknown_before(spans),
    )


def _is_measured(span: PastAttempt) -> bool:
    return span.ended is not None and span.gpus is not None


def _count_hours(span: PastAttempt) -> float:
    """GPU-hours of an attempt; its hours, if it had no GPUs."""
    assert span.ended is not None
    hours = max(span.ended - span.started, 0) / MS_OF_HOUR
    return hours * (span.gpus or 1)


def _share_attempt(
    span: PastAttempt, after: PastAttempt | None, is_under_way: bool
) -> Share:
    """What became of an attempt; `after`: the one that followed it, None for the last."""
    hours = _count_hours(span)
    trained = _count_steps(span)
    is_of_use = is_under_way or span.outcome == Outcome.DONE
    if not is_of_use and not trained:
        # an evaluator that was stopped has scored what it has scored
        is_of_use = span.outcome == Outcome.CONTINUE and span.from_step is None
    if is_of_use:
        return Share(hours, 0.0, leaves_something=True)
    kept_steps = min(_find_kept(span, after), trained)
    if kept_steps <= 0:
        return Share(0.0, hours, leaves_something=False)
    useful = hours * kept_steps / trained
    return Share(useful, hours - useful, leaves_something=True)


def _count_steps(span: PastAttempt) -> int:
    if span.from_step is None or span.last_step is None:
        return 0
    return max(span.last_step - span.from_step, 0)


def _find_kept(span: PastAttempt, after: PastAttempt | None) -> int:
    """How many of the steps of an attempt need not be trained again."""
    kept = span.saved
    if after is not None and after.from_step is not None:
        kept = after.from_step
    return (kept or 0) - (span.from_step or 0)


def _measure_step(spans: Sequence[PastAttempt]) -> float:
    """The cost of one step, over all attempts that took some."""
    training = [span for span in spans if _count_steps(span)]
    steps = sum(_count_steps(span) for span in training)
    return sum(_count_hours(span) for span in training) / steps if steps else 0.0


def _find_unknown_before(spans: Sequence[PastAttempt]) -> int:
    """The first attempt from which on all are known; 0 where the first is."""
    expected = spans[-1].attempt
    for span in reversed(spans):
        if span.attempt != expected or not _is_measured(span):
            break
        expected -= 1
    return expected + 1 if expected else 0


def sum_end(folder: Path, attempt: Attempt | None, record: ExitRecord) -> Spent | None:
    """What a job has cost whose newest attempt has told its end. `attempt`: the newest."""
    if attempt is None:
        return None
    saved = replace_unset(record.saved)
    newest = past_attempts.describe_newest(attempt, record, None, saved)
    return split_hours([*_read_earlier(folder, attempt), newest], is_under_way=False)


def sum_running(
    folder: Path, attempt: Attempt, beat: Beat, beat_s: float
) -> Spent | None:
    """What a job under way has cost. `beat_s`: how old its heartbeat is."""
    now = msgspec.structs.replace(beat, ts=beat.ts + round(1000 * beat_s))
    newest = past_attempts.describe_newest(attempt, None, now, None)
    return split_hours([*_read_earlier(folder, attempt), newest], is_under_way=True)


def sum_ended(folder: Path, saved: int | None) -> Spent | None:
    """What a job has cost whose newest attempt does not run, whether it has told its
    end or not. `saved`: the newest whole state."""
    attempt = attempts.read_attempt(folder)
    if attempt is None:
        return None
    record = exit_record.read_if_sound(folder)
    if record is not None and attempts.is_current(record, attempt):
        return sum_end(folder, attempt, record)
    beaten = read_heartbeat(folder, attempt.nonce)
    beat = beaten[0] if beaten else None
    newest = past_attempts.describe_newest(attempt, None, beat, saved)
    return split_hours([*_read_earlier(folder, attempt), newest], is_under_way=False)


def _read_earlier(folder: Path, newest: Attempt) -> list[PastAttempt]:
    """The attempts before the newest one. The first has none, and no file is read."""
    if newest.attempt <= 1:
        return []
    rows = past_attempts.read_rows(folder)
    return [row for row in rows if row.attempt < newest.attempt]
