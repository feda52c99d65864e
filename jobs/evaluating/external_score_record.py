"""Records external scores of a run's answers in its journal, as an evaluator records
its own.

Killed at any moment it may be repeated: the row of metrics comes last, and a key that a
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
from jobs.contract.answers import KeptAnswers
from jobs.contract.attempt import Attempt
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import AnswersKept
from zsg_core.errors import ClusterError, UserError
from zsg_core.metrics import external_scores
from zsg_core.metrics.scoring import Answered, ByItem, Scores, aggregate_scores

HOLDER, SUITE = "zsg score", "scores"


@dataclass(frozen=True)
class Kept:
    """The answers of a checkpoint: what was journalled of them, and themselves."""

    told: KeptAnswers
    answered: list[Answered]


def find_scored_answers(
    run: Path, step: int, items: Collection[str], suite: str | None = None
) -> Kept:
    """The answers of a step, of a suite where it is said, else those that hold the items.

    UserError where there are none, or several, made in different ways.
    """
    all_kept = answers.select_current(answers.find_kept(run))
    of_suite = [told for told in all_kept if suite in (None, told.suite)]
    of_step = [told for told in of_suite if told.step == step]
    if not of_step:
        steps = sorted({told.step for told in of_suite})
        shown = (
            f"there are of steps {', '.join(map(str, steps[:20]))}"
            if steps
            else "no step has any yet"
        )
        raise UserError(
            f"run {run.name} has no answers of step {step}{f', {suite}' if suite else ''}; {shown}"
        )
    found = [Kept(told, answers.read_answers(run, told.place)) for told in of_step]
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


def record_scores(
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
    found = find_scored_answers(
        run, step, {item for by_item in given.values() for item in by_item}, suite
    )
    where = f"run {run.name}, step {step}"
    external_scores.refuse_unanswered(
        where, dict(given), (one.id for one in found.answered)
    )
    held: list[leases.Lease] = []
    journal = _journal(run, lambda: [lease.check() for lease in held])
    try:
        lease = leases.claim_lease(
            leases.path_of(run, step, SUITE), HOLDER, journal.name, list(given)
        )
        if lease is None:
            raise ClusterError(
                f"{where}: another `zsg score` is at it; try again in a minute"
            )
        held.append(lease)
        # what was killed, or sleeps, counts as far as it has written
        for before in lease.before:
            path = journals.folder_of(run) / before.journal
            sizes = {path.name: path.stat().st_size if path.exists() else 0}
            journal.add_rewind(sizes, step=step, examples=0)
        journal.commit()
        lease.forget()
        taken = evaluations.collect_taken_keys(run).get(step, set())
        scores = aggregate_scores(
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
        (row.examples for row in journals.read_journal(run) if row.step == step), 0
    )
    told, place = found.told, found.told.place
    event = AnswersKept(
        suite=told.suite,
        how=told.how,
        keys=list(scores.values),
        file=place.file,
        at=place.at,
        bytes=place.size,
        flags=scores.flags,
        by=HOLDER,
        source=source,
    )
    journal.add_event(event, step=step, examples=examples)
    items = {one.id for one in found.answered}
    of = item_losses.name_of(told.suite, told.how)
    listed = item_losses.read_items(run, of).ids
    tested = [(place, item) for place, item in enumerate(listed) if item in items]
    for key, by_item in scores.by_item.items():
        values = np.array([by_item.get(item, np.nan) for _, item in tested])
        item_losses.journal_item_losses(
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
    journal.add_metrics(data, step=step, examples=examples)
    journal.commit()


def _journal(run: Path, fence: Any) -> Journal:
    """A new file of the run's journal, of a guest."""
    job = job_file.read_job(run)
    if job is None:
        raise UserError(f"{run}: no run was submitted there")
    writer = Attempt(
        1,
        HOLDER,
        None,
        0,
        uuid.uuid4().hex,
        attempts.get_node_name(),
        attempts.now_ms(),
        os.getpid(),
    )
    number = 0
    while True:
        try:
            return Journal(
                run, writer, journals.GUEST, job.stage_id, number, fence=fence
            )
        except FileExistsError:
            number += 1
