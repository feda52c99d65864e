"""Journals scores that were given elsewhere to answers which a run keeps, as an
evaluator would have.

Killed at any moment it is run again: the row of metrics comes last, and a key that a
step has already is passed over.
"""

import os
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.contract import answers, evaluations, item_losses, job_file, leases
from jobs.contract import attempt as attempts
from jobs.contract import journal as journals
from jobs.contract.answers import Place
from jobs.contract.attempt import Attempt
from jobs.contract.folder import read_json
from jobs.contract.journal import Journal
from zsg_core.errors import ClusterError, UserError
from zsg_core.metrics import elsewhere
from zsg_core.metrics.scoring import Answered, ByItem, Scores, aggregate

HOLDER, SUITE = "zsg score", "scores"


@dataclass(frozen=True)
class Kept:
    """The answers of a checkpoint: what was journalled of them, where they are, and themselves."""

    row: dict[str, Any]
    place: Place
    answered: list[Answered]


def kept(
    run: Path, step: int, items: Collection[str], suite: str | None = None
) -> Kept:
    """The answers of a step, of a suite where it is said, else those that hold the items.

    UserError where there are none, or several, made in different ways.
    """
    there = answers.current(answers.found(run))
    rows = [
        row for row in there if row["step"] == step and suite in (None, row["suite"])
    ]
    if not rows:
        steps = sorted({row["step"] for row in there if suite in (None, row["suite"])})
        shown = (
            f"there are of steps {', '.join(map(str, steps[:20]))}"
            if steps
            else "no step has any yet"
        )
        raise UserError(
            f"run {run.name} has no answers of step {step}{f', {suite}' if suite else ''}; {shown}"
        )
    found = [_kept(run, row) for row in rows]
    if len(found) > 1:
        found = [
            one
            for one in found
            if {answer.id for answer in one.answered}.issuperset(items)
        ] or found
    if len(found) > 1:
        raise UserError(
            f"run {run.name}, step {step}: there are answers made in {len(found)} ways, and a score"
            " does not say of which it is; give `suite` with it, or ask for them in runs of"
            " their own"
        )
    return found[0]


def _kept(run: Path, row: dict[str, Any]) -> Kept:
    place = Place(row["file"], row["at"], row["bytes"])
    return Kept(row, place, answers.read(run, place))


def record(
    run: Path,
    step: int,
    given: Mapping[str, ByItem],
    source: str,
    suite: str | None = None,
) -> tuple[Scores, list[str]]:
    """Journals the scores of a step; returns them, and the metrics that were taken
    before and stay as they are.

    `source` is told with them. UserError as `kept`, BadData for an item that was not
    answered, ClusterError while another process writes scores of this step.
    """
    found = kept(
        run, step, {item for by_item in given.values() for item in by_item}, suite
    )
    where = f"run {run.name}, step {step}"
    elsewhere.refuse_others(where, dict(given), (one.id for one in found.answered))
    held: list[leases.Lease] = []
    journal = _journal(run, lambda: [lease.check() for lease in held])
    try:
        lease = leases.claim(
            leases.path_of(run, step, SUITE), HOLDER, journal.name, list(given)
        )
        if lease is None:
            raise ClusterError(
                f"{where}: another `zsg score` is at it; try again in a minute"
            )
        held.append(lease)
        # what was killed, or sleeps, counts as far as it has written
        for before in lease.before:
            path = run / "journal" / str(before["journal"])
            sizes = {path.name: path.stat().st_size if path.exists() else 0}
            journal.row("rewind", step=step, examples=0, data={"sizes": sizes})
        journal.commit()
        lease.forget()
        taken = evaluations.taken(run).get(step, set())
        scores = aggregate(
            {key: of for key, of in given.items() if key not in taken}, found.answered
        )
        if scores.values:
            _write(run, journal, step, found, scores, source)
    finally:
        journal.close()
        for lease in held:
            lease.release()
    return scores, sorted(given.keys() & taken)


def _write(
    run: Path, journal: Journal, step: int, found: Kept, scores: Scores, source: str
) -> None:
    examples = next(
        (row["examples"] for row in journals.read(run) if row["step"] == step), 0
    )
    told = {
        "event": evaluations.ANSWERS,
        "suite": found.row["suite"],
        "how": found.row["how"],
    }
    told |= {
        "keys": list(scores.values),
        "file": found.place.file,
        "at": found.place.at,
        "bytes": found.place.size,
    }
    told |= {"flags": scores.flags, "by": HOLDER, "source": source}
    journal.row("event", step=step, examples=examples, data=told)
    items = {one.id for one in found.answered}
    of = item_losses.name_of(found.row["suite"], found.row["how"])
    listed = (read_json(run / f"{of}.json") or {"ids": []})["ids"]
    tested = [(place, item) for place, item in enumerate(listed) if item in items]
    for key, by_item in scores.by_item.items():
        values = np.array([by_item.get(item, np.nan) for _, item in tested])
        item_losses.keep(
            journal,
            key,
            values,
            step=step,
            examples=examples,
            places=[place for place, _ in tested],
            of=of,
        )
    data = scores.values | {
        f"{key}_stderr": value for key, value in scores.error.items()
    }
    journal.row("metric", step=step, examples=examples, data=data)
    journal.commit()


def _journal(run: Path, fence: Any) -> Journal:
    """A new file of the run's journal, of a guest."""
    job = job_file.read(run)
    if job is None:
        raise UserError(f"{run}: no run was submitted there")
    writer = Attempt(
        1,
        HOLDER,
        None,
        0,
        uuid.uuid4().hex,
        attempts.node(),
        attempts.now_ms(),
        os.getpid(),
    )
    number = 0
    while True:
        try:
            return Journal(
                run, writer, journals.GUEST, job["stage_id"], number, fence=fence
            )
        except FileExistsError:
            number += 1
