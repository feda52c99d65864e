"""Says which metrics of a run's checkpoints evaluators are to take, and which they have taken.

Trainers ask before they remove a snapshot, evaluators before they work at one, plans
before they submit. A metric of a step is taken once its row is in an evaluator's
journal in the run's folder; that answers are kept, once their event is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract import job_file, journal, removal
from jobs.contract.exit_record import given
from jobs.contract.folder import is_committed
from jobs.contract.leases import is_leased
from jobs.contract.states import Outcome
from zsg_core.metrics.keys import INSIDE, is_answers

ANSWERS = "answers"  # the event that tells where a step's answers are kept

Taken = dict[int, set[str]]  # step → keys
Answered = dict[tuple[int, str], list[dict[str, Any]]]  # (step, suite) → in which ways


def taken(run: Path) -> Taken:
    """The keys that evaluators have journalled of each step."""
    found: Taken = {}
    for rows in _guests(run):
        for row in rows:
            if row["kind"] == "metric":
                found.setdefault(row["step"], set()).update(row["data"])
            elif row["data"].get("event") == ANSWERS:
                found.setdefault(row["step"], set()).update(
                    filter(is_answers, row["data"]["keys"])
                )
    return found


def answered(run: Path) -> Answered:
    """Of which steps and suites answers are kept, and how they were made."""
    found: Answered = {}
    for rows in _guests(run):
        for row in rows:
            if row["data"].get("event") == ANSWERS:
                found.setdefault((row["step"], row["data"]["suite"]), []).append(
                    row["data"]["how"]
                )
    return found


def ways(run: Path) -> dict[str, dict[str, Any]]:
    """How each key was taken: how answers were made and scored, or what was looked at.
    The first counts."""
    found: dict[str, dict[str, Any]] = {}
    for rows in _guests(run):
        for row in rows:
            if row["data"].get("event") == INSIDE:
                found = row["data"]["ways"] | found
            elif row["data"].get("event") == ANSWERS:
                for key in row["data"]["keys"]:
                    scored_by = row["data"].get("scored_by", {}).get(key, {})
                    found.setdefault(key, row["data"]["how"] | scored_by)
    return found


def _guests(run: Path) -> list[Iterable[dict[str, Any]]]:
    return [rows for name, rows in journal.by_writer(run).items() if name]


def there(run: Path, is_first_stage: bool) -> list[int]:
    """The steps of which there are weights: the base's, step 0, and those of the snapshots."""
    steps = {
        int(path.name)
        for path in (run / "snapshots").glob("[0-9]*")
        if is_committed(path)
    }
    return sorted(steps | ({0} if is_first_stage else set()))


def lacking(
    keys: Sequence[str], step: int, found: Mapping[int, Collection[str]]
) -> list[str]:
    """The keys that are yet to be taken of a step."""
    return [key for key in keys if key not in found.get(step, ())]


def _done_with(run: Path) -> Taken:
    """The keys of each step for which nobody needs its weights: taken, or not to be had
    though answers are kept."""
    found = taken(run)
    for rows in _guests(run):
        for row in rows:
            if row["data"].get("event") == ANSWERS:
                found.setdefault(row["step"], set()).update(
                    row["data"].get("failed", ())
                )
    return found


def needed(run: Path, keys: Sequence[str], steps: Iterable[int]) -> set[int]:
    """The steps whose snapshots are being evaluated, or still are to be."""
    found = _done_with(run) if keys else {}
    return {
        step for step in steps if lacking(keys, step, found) or is_leased(run, step)
    }


def is_needed(run: Path, keys: Sequence[str], step: int) -> bool:
    """Whether a snapshot is being evaluated, or still is to be."""
    return bool(needed(run, keys, [step]))


def is_left(run: Path, keys: Sequence[str]) -> bool:
    """Whether there are weights of a step that lacks a key."""
    found, job = taken(run), job_file.read(run) or {}
    return any(lacking(keys, step, found) for step in there(run, not job.get("before")))


def is_over(run: Path) -> bool:
    """Whether the run's last attempt has told its end: no snapshot will come of it."""
    end = attempts.end_of_newest(run)
    return end is not None and end.outcome != Outcome.CONTINUE


def tidy(run: Path, keys: Sequence[str]) -> list[int]:
    """Removes of a run that is done the snapshots that were only there to be evaluated;
    returns their steps."""
    end, removed = attempts.end_of_newest(run), []
    if end is None or end.outcome != Outcome.DONE:
        return []
    for row in given(end.snapshots, []):
        folder, step = run / "snapshots" / str(row["step"]), row["step"]
        if not row["kept"] and is_committed(folder) and not is_needed(run, keys, step):
            root = run.parent.parent
            if not removal.discard(
                root,
                folder,
                removal.IN_WEIGHTS,
                lambda step=step: is_needed(run, keys, step),
            ):
                removed.append(step)
    return removed
