"""A run that an evaluate job evaluates: its suites, what is measured already, and its
model's prompts and test sets."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jobs.contract import evaluations, job_file, snapshots
from jobs.contract import journal as journals
from jobs.contract.job_file import TrainJob
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import MetricRow
from jobs.evaluating import items
from jobs.evaluating.choices import Choices
from jobs.evaluating.items import Asker, Items
from jobs.model.base_model import Vocabulary, load_vocabulary
from jobs.training.tokens import how_encoded
from jobs.training.train_sets import encoder_of, test_set
from zsg_core.data.prompts import Template
from zsg_core.suites import Suite


@dataclass(eq=False)
class EvalTarget:
    """A run to evaluate, and its suites."""

    folder: Path
    suites: tuple[Suite, ...]
    journal: Journal | None = None
    # of a step and a suite, what could not be had
    troubles: dict[tuple[int, str], str] = field(default_factory=dict)
    _read: tuple[list[tuple[Path, int]], Any] = field(default=([], None))
    _items: dict[str, Items] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """All that is wanted of a step."""
        return [key for suite in self.suites for key in suite.keys]

    @cached_property
    def job(self) -> TrainJob:
        """The run's own job.json."""
        found = job_file.read_train_job(self.folder)
        assert found is not None, "a run that is served was submitted"
        return found

    @cached_property
    def vocabulary(self) -> Vocabulary:
        steps = evaluations.list_evaluable_steps(self.folder, is_first_stage=False)
        folder = (
            snapshots.folder_of(self.folder, steps[-1])
            if steps
            else self.job.base_folder
        )
        return load_vocabulary(folder, self.job.recipe["base"])

    @cached_property
    def test(self) -> Any:
        """(tokens, examples) of the run's test set."""
        return test_set(self.job, self.vocabulary)

    @cached_property
    def choices(self) -> Choices:
        """The items of the run's test set that have options, as its loss reads them."""
        within = partial(encoder_of, stage := self.job.stage, self.vocabulary)
        return Choices(self.test[1], within, how_encoded(stage)["max_length"])

    def items(self, suite: Suite) -> Items:
        """The items of a suite, as this run's model is asked them; read once."""
        if suite.name not in self._items:
            how = how_encoded(self.job.stage)
            asker = Asker(
                Template.from_recipe(how["template"]),
                self.vocabulary,
                how["max_length"],
                how["truncate"],
            )
            self._items[suite.name] = items.read_items(suite, lambda: self.test, asker)
        return self._items[suite.name]

    def open_work(self) -> Iterator[tuple[int, Suite]]:
        """The steps and suites that lack a key and can be had, those included that others are at.

        All suites of a step come together, so that its weights are put in once.
        """
        if not job_file.has_job(self.folder):
            return
        taken, answered = self._journalled
        there = evaluations.list_evaluable_steps(
            self.folder, is_first_stage=not self.job.before
        )
        for step in sorted({*there, *(step for step, _ in answered)}):
            if step == 0 and not self._has_begun:
                continue
            for suite in self.suites:
                is_open = (
                    step,
                    suite.name,
                ) not in self.troubles and evaluations.list_lacking_keys(
                    suite.keys, step, taken
                )
                if is_open and (
                    step in there or suite.how in answered.get((step, suite.name), ())
                ):
                    yield step, suite

    def taken(self) -> evaluations.Taken:
        """The keys that evaluators have journalled of each step."""
        return self._journalled[0]

    @property
    def _journalled(self) -> tuple[evaluations.Taken, evaluations.Answered]:
        """What evaluators have journalled, read again where a file of theirs has grown."""
        now = [
            (path, path.stat().st_size) for path in journals.guest_files(self.folder)
        ]
        if now != self._read[0] or self._read[1] is None:
            self._read = (
                now,
                (
                    evaluations.collect_taken_keys(self.folder),
                    evaluations.find_kept_answers(self.folder),
                ),
            )
        return self._read[1]

    @property
    def _has_begun(self) -> bool:
        """Whether the loss of the base has been journalled: before, nothing proves what is held."""
        told = self.told(0)
        return told is not None and told[0] is not None

    def told(self, step: int) -> tuple[float | None, int] | None:
        """The trainer's loss at a step, and the examples up to there; None where it has
        journalled nothing of it."""
        found: tuple[float | None, int] | None = None
        for row in journals.read_own(self.folder):
            if isinstance(row, MetricRow) and row.step == step:
                loss = row.data.get("loss", found and found[0])
                found = (None if loss is None else float(loss), row.examples)
        return found
