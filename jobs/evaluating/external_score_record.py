"""Records external scores of a run's answers in its journal, as an evaluator records
its own.

Killed at any moment it may be repeated: the row of metrics comes last, and a key that a
step has already is passed over.
"""

import os
import uuid
from collections.abc import Collection, Mapping, Sequence
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
from zsg_core.metrics.keys import STANDARD_ERROR
from zsg_core.metrics.scoring import Answered, ByItem, Scores, aggregate_scores

HOLDER, SUITE = "zsg score", "scores"


@dataclass(frozen=True)
class ScoredAnswers:
    """The answers of a checkpoint: what was journalled of them, and themselves."""

    journalled: KeptAnswers
    answered: list[Answered]

    @property
    def ids(self) -> set[str]:
        """The items that were answered."""
        return {answer.id for answer in self.answered}


def find_scored_answers(
    run: Path, step: int, items: Collection[str], suite: str | None = None
) -> ScoredAnswers:
    """The answers of a step, of a suite where it is said, else those that hold the items.

    UserError where there are none, or several, made in different ways.
    """
    all_kept = answers.select_current(answers.find_kept(run))
    of_suite = [kept for kept in all_kept if suite in (None, kept.suite)]
    of_step = [kept for kept in of_suite if kept.step == step]
    if not of_step:
        steps = sorted({kept.step for kept in of_suite})
        raise UserError(_describe_missing(run, step, suite, steps))
    made = [
        ScoredAnswers(kept, answers.read_answers(run, kept.place)) for kept in of_step
    ]
    candidates = _select_complete(made, items)
    if len(candidates) > 1:
        raise UserError(
            f"run {run.name}, step {step}: there are answers made in {len(candidates)} ways, and a"
            " score does not say of which it is; give `suite` with it, or ask for them in runs of"
            " their own"
        )
    return candidates[0]


def _select_complete(
    made: list[ScoredAnswers], items: Collection[str]
) -> list[ScoredAnswers]:
    """Of answers made in several ways those that hold all items; all where none does."""
    if len(made) == 1:
        return made
    complete = [answered for answered in made if answered.ids.issuperset(items)]
    return complete or made


def _describe_missing(
    run: Path, step: int, suite: str | None, steps: Sequence[int]
) -> str:
    """That a step has no answers, and which `steps` have some."""
    answered_steps = (
        f"there are of steps {', '.join(map(str, steps[:20]))}"
        if steps
        else "no step has any yet"
    )
    of_suite = f", {suite}" if suite else ""
    return f"run {run.name} has no answers of step {step}{of_suite}; {answered_steps}"


def record_scores(
    run: Path,
    step: int,
    by_metric: Mapping[str, ByItem],
    source: str,
    suite: str | None = None,
) -> tuple[Scores, list[str]]:
    """Journals the scores of a step; returns them, and the metrics that were taken
    before and stay as they are.

    `source` is told with them. UserError as `find_scored_answers`, BadData for an item
    that was not answered, ClusterError while another process writes scores of this
    step.
    """
    items = {item for by_item in by_metric.values() for item in by_item}
    scored = find_scored_answers(run, step, items, suite)
    label = f"run {run.name}, step {step}"
    external_scores.refuse_unanswered(
        label, dict(by_metric), (answer.id for answer in scored.answered)
    )
    held: list[leases.Lease] = []
    journal = _journal(run, lambda: [lease.check() for lease in held])
    try:
        lease = _claim_lease(run, step, journal, list(by_metric))
        if lease is None:
            raise ClusterError(
                f"{label}: another `zsg score` is at it; try again in a minute"
            )
        held.append(lease)
        _take_over(run, step, journal, lease)
        taken = evaluations.collect_taken_keys(run).get(step, set())
        scores = aggregate_scores(
            {key: by_metric[key] for key in by_metric if key not in taken},
            scored.answered,
        )
        if scores.values:
            _write(run, journal, scored, scores, source)
    finally:
        journal.close()
        for lease in held:
            lease.release()
    return scores, sorted(by_metric.keys() & taken)


def _claim_lease(
    run: Path, step: int, journal: Journal, keys: list[str]
) -> leases.Lease | None:
    """The lease of a step's external scores; None while another has it."""
    path = leases.path_of(run, step, SUITE)
    return leases.claim_lease(path, HOLDER, journal.name, keys)


def _take_over(run: Path, step: int, journal: Journal, lease: leases.Lease) -> None:
    """Has the rows of former holders, killed or asleep, count as far as they are written."""
    for former in lease.before:
        path = journals.folder_of(run) / former.journal
        sizes = {path.name: path.stat().st_size if path.exists() else 0}
        journal.add_rewind(sizes, step=step, examples=0)
    journal.commit()
    lease.forget()


def _write(
    run: Path, journal: Journal, scored: ScoredAnswers, scores: Scores, source: str
) -> None:
    """Journals scores that another program gave to kept answers, with the values of the
    items behind them; on disk when this returns."""
    answers_row, stored = scored.journalled, scored.journalled.place
    step = answers_row.step
    examples = next(
        (row.examples for row in journals.read_journal(run) if row.step == step), 0
    )
    event = AnswersKept(
        suite=answers_row.suite,
        how=answers_row.how,
        keys=list(scores.values),
        file=stored.file,
        at=stored.at,
        bytes=stored.size,
        flags=scores.flags,
        by=HOLDER,
        source=source,
    )
    journal.add_event(event, step=step, examples=examples)
    list_name = item_losses.name_of(answers_row.suite, answers_row.how)
    item_ids = item_losses.read_items(run, list_name).ids
    answered_ids = scored.ids
    positions = [n for n, item in enumerate(item_ids) if item in answered_ids]
    for key, by_item in scores.by_item.items():
        values = np.array([by_item.get(item_ids[n], np.nan) for n in positions])
        item_losses.journal_item_losses(
            journal,
            key,
            values,
            step=step,
            examples=examples,
            places=positions,
            of=list_name,
        )
    errors = {f"{key}{STANDARD_ERROR}": value for key, value in scores.error.items()}
    journal.add_metrics(scores.values | errors, step=step, examples=examples)
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
