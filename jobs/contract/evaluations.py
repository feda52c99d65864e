"""Says which metrics of a run's checkpoints evaluators are to take, and which they have taken.

Trainers ask before they remove a snapshot, evaluators before they work at one, plans
before they submit. A metric of a step is taken once its row is in an evaluator's
journal in the run's folder; that answers are kept, once their event is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract import job_file, journal, removal, snapshots
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import is_committed
from jobs.contract.journal_rows import (
    AnswersKept,
    EventRow,
    InsideTaken,
    MetricRow,
    find_events,
)
from jobs.contract.leases import is_leased
from jobs.contract.states import Outcome
from zsg_core.metrics.keys import is_answers

Taken = dict[int, set[str]]  # step → keys
Answered = dict[tuple[int, str], list[dict[str, Any]]]  # (step, suite) → in which ways


def collect_taken_keys(run: Path) -> Taken:
    """The keys that evaluators have journalled of each step."""
    keys: Taken = {}
    for row in journal.read_guests(run):
        if isinstance(row, MetricRow):
            keys.setdefault(row.step, set()).update(row.data)
        elif isinstance(row, EventRow) and isinstance(row.data, AnswersKept):
            keys.setdefault(row.step, set()).update(filter(is_answers, row.data.keys))
    return keys


def find_kept_answers(run: Path) -> Answered:
    """Of which steps and suites answers are kept, and how they were made."""
    ways_of: Answered = {}
    for row, event in find_events(journal.read_guests(run), AnswersKept):
        ways_of.setdefault((row.step, event.suite), []).append(event.how)
    return ways_of


def collect_key_ways(run: Path) -> dict[str, dict[str, Any]]:
    """How each key was taken: how answers were made and scored, or what was looked at.
    The first counts."""
    settings_by_key: dict[str, dict[str, Any]] = {}
    for row in journal.read_guests(run):
        if not isinstance(row, EventRow):
            continue
        for key, settings in _ways_of_event(row).items():
            settings_by_key.setdefault(key, settings)
    return settings_by_key


@dataclass(frozen=True)
class SoundKeyWays:
    """What the readable rows of a damaged journal tell: how keys were taken, and which
    keys have values of which no readable row tells how."""

    ways: dict[str, dict[str, Any]]
    untold: set[str]


def collect_sound_key_ways(run: Path) -> SoundKeyWays:
    """How each key was taken, by those rows of a run's evaluators that can be read."""
    settings_by_key: dict[str, dict[str, Any]] = {}
    valued: set[str] = set()
    for path in journal.guest_files(run):
        for row in journal.read_sound_rows(path):
            if isinstance(row, MetricRow):
                valued.update(row.data)
            elif isinstance(row, EventRow):
                for key, settings in _ways_of_event(row).items():
                    settings_by_key.setdefault(key, settings)
    return SoundKeyWays(settings_by_key, valued - settings_by_key.keys())


def _ways_of_event(row: EventRow) -> dict[str, dict[str, Any]]:
    """How the keys that an event tells of were taken."""
    event = row.data
    if isinstance(event, InsideTaken):
        return event.ways
    if isinstance(event, AnswersKept):
        scored_by = replace_unset(event.scored_by, {})
        return {key: event.how | scored_by.get(key, {}) for key in event.keys}
    return {}


def list_evaluable_steps(run: Path, is_first_stage: bool) -> list[int]:
    """The steps of which there are weights: the base's, step 0, and those of the snapshots."""
    steps = set(snapshots.find_steps(run))
    return sorted(steps | ({0} if is_first_stage else set()))


def list_lacking_keys(
    keys: Sequence[str], step: int, taken: Mapping[int, Collection[str]]
) -> list[str]:
    """The keys that are yet to be taken of a step."""
    return [key for key in keys if key not in taken.get(step, ())]


def _done_with(run: Path) -> Taken:
    """The keys of each step for which nobody needs its weights: taken, or not to be had
    though answers are kept."""
    keys = collect_taken_keys(run)
    for row, event in find_events(journal.read_guests(run), AnswersKept):
        failed: dict[str, str] = replace_unset(event.failed, {})
        keys.setdefault(row.step, set()).update(failed)
    return keys


def find_needed_steps(run: Path, keys: Sequence[str], steps: Iterable[int]) -> set[int]:
    """The steps whose snapshots are being evaluated, or still are to be."""
    taken = _done_with(run) if keys else {}
    return {
        step
        for step in steps
        if list_lacking_keys(keys, step, taken) or is_leased(run, step)
    }


def is_needed(run: Path, keys: Sequence[str], step: int) -> bool:
    """Whether a snapshot is being evaluated, or still is to be."""
    return bool(find_needed_steps(run, keys, [step]))


def is_left(run: Path, keys: Sequence[str]) -> bool:
    """Whether there are weights of a step that lacks a key."""
    taken, job = collect_taken_keys(run), job_file.read_train_job(run)
    is_first_stage = job is None or not job.before
    return any(
        list_lacking_keys(keys, step, taken)
        for step in list_evaluable_steps(run, is_first_stage)
    )


def is_over(run: Path) -> bool:
    """Whether the run's last attempt has told its end: no snapshot will come of it."""
    end = attempts.end_of_newest(run)
    return end is not None and end.outcome != Outcome.CONTINUE


def remove_needless_snapshots(run: Path, keys: Sequence[str]) -> list[int]:
    """Removes of a run that is done the snapshots that were only there to be evaluated;
    returns their steps."""
    end = attempts.end_of_newest(run)
    removed: list[int] = []
    if end is None or end.outcome != Outcome.DONE:
        return []
    for row in replace_unset(end.snapshots, []):
        step: int = row["step"]
        folder = snapshots.folder_of(run, step)
        if not row["kept"] and is_committed(folder) and not is_needed(run, keys, step):
            root = run.parent.parent
            if not removal.discard_folder(
                root,
                folder,
                removal.IN_WEIGHTS,
                lambda step=step: is_needed(run, keys, step),
            ):
                removed.append(step)
    return removed
