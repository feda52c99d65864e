"""A run that an evaluate job evaluates: its suites, what is measured already, and its
model's prompts and test sets."""

from collections.abc import Iterator, Sequence
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
from jobs.evaluating.gradients import DrawnExamples, draw_examples
from jobs.evaluating.items import Asker, Items
from jobs.model.vocabulary import Vocabulary, load_vocabulary
from jobs.preparing.corpus import Corpus
from jobs.training.tokens import how_encoded
from jobs.training.train_sets import encoder_of, test_set
from zsg_core.data.prompts import ANSWER, Template
from zsg_core.errors import UserError, ZsgError
from zsg_core.suites import Suite


@dataclass(frozen=True)
class TrainerPoint:
    """What the trainer has journalled of a step: its loss, if any, and the examples up to
    there."""

    loss: float | None
    examples: int


@dataclass(frozen=True)
class EvaluatorRows:
    """What evaluators have journalled: the keys taken of each step, and which answers are
    kept, made in which ways."""

    taken: evaluations.Taken = field(default_factory=dict)
    answered: evaluations.Answered = field(default_factory=dict)

    def is_answered(self, step: int, suite: Suite) -> bool:
        """Whether the suite's answers of a step are kept, made as it says."""
        return suite.how in self.answered.get((step, suite.name), ())

    def lacks_keys(self, step: int, suite: Suite) -> bool:
        """Whether a key of the suite has not been taken of a step."""
        return bool(evaluations.list_lacking_keys(suite.keys, step, self.taken))


@dataclass(eq=False)
class EvalTarget:
    """A run to evaluate, and its suites."""

    folder: Path
    suites: tuple[Suite, ...]
    journal: Journal | None = None
    # of a step and a suite, what could not be had
    troubles: dict[tuple[int, str], ZsgError] = field(default_factory=dict)
    _rows: EvaluatorRows = field(default_factory=EvaluatorRows)
    _rows_read_of: list[tuple[Path, int]] = field(default_factory=list)  # files, sizes
    _items: dict[str, Items] = field(default_factory=dict)
    # by the marks between which a suite's answers have thoughts
    _words: dict[tuple[str, ...], Vocabulary] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """All that is wanted of a step."""
        return [key for suite in self.suites for key in suite.keys]

    @cached_property
    def job(self) -> TrainJob:
        """The run's own job.json."""
        job = job_file.read_train_job(self.folder)
        assert job is not None, "a run that is served was submitted"
        return job

    @cached_property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer of the run's model lies."""
        steps = evaluations.list_evaluable_steps(self.folder, is_first_stage=False)
        if steps:
            return snapshots.folder_of(self.folder, steps[-1])
        return self.job.base_folder

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return load_vocabulary(self.tokenizer_folder, self.job.recipe["base"])

    def find_words(self, marks: Sequence[str] = ()) -> Vocabulary:
        """The vocabulary in whose texts `marks` are to be seen, though they are control
        tokens; the same object each time."""
        key = tuple(marks)
        if key not in self._words:
            self._words[key] = self.vocabulary.keeping(key)
        return self._words[key]

    @cached_property
    def test(self) -> Any:
        """(tokens, examples) of the run's test set."""
        return test_set(self.job, self.vocabulary)

    def draw_trained(self, limit: int) -> list[DrawnExamples]:
        """At most so many training examples of each source that have an answer to learn,
        as the run trains on them; the same at every step."""
        train = Corpus(self.job.workspace, self.job.made.corpus).train
        encode = encoder_of(self.job.stage, self.vocabulary)
        drawn: list[DrawnExamples] = []
        chosen = draw_examples(train.ids, train.sources, limit)
        for source, numbers in chosen.items():
            encoded = {train.ids[number]: encode(train[number]) for number in numbers}
            learnt = {
                name: example
                for name, example in encoded.items()
                if example.target_spans(ANSWER)
            }
            if learnt:
                names, examples = list(learnt), list(learnt.values())
                drawn.append(DrawnExamples(source, names, examples))
        if not drawn:
            raise UserError(
                "checkpoints.gradients: no training example has an answer within"
                " train.max_length; raise it"
            )
        return drawn

    @cached_property
    def choices(self) -> Choices:
        """The items of the run's test set that have options, as its loss reads them."""
        within = partial(encoder_of, stage := self.job.stage, self.vocabulary)
        return Choices(self.test[1], within, how_encoded(stage)["max_length"])

    def items(self, suite: Suite) -> Items:
        """The items of a suite, as this run's model is asked them; read once."""
        if suite.name not in self._items:
            asker = self.make_asker(suite.marks or ())
            self._items[suite.name] = items.read_items(suite, lambda: self.test, asker)
        return self._items[suite.name]

    def make_asker(self, marks: Sequence[str] = ()) -> Asker:
        """How this run's model is asked; `marks`: texts that are to be seen in what it
        says, though they are control tokens."""
        how = how_encoded(self.job.stage)
        return Asker(
            Template.from_recipe(how["template"]),
            self.find_words(marks),
            how["max_length"],
            how["truncate"],
        )

    def open_work(self) -> Iterator[tuple[int, Suite]]:
        """The steps and suites that lack a key and can be had, those included that others are at.

        All suites of a step come together, so that its weights are put in once.
        """
        if not job_file.has_job(self.folder):
            return
        journalled = self._read_rows()
        evaluable = evaluations.list_evaluable_steps(
            self.folder, is_first_stage=not self.job.before
        )
        for step in sorted({*evaluable, *(step for step, _ in journalled.answered)}):
            if step == 0 and not self._has_begun:
                continue
            for suite in self.suites:
                is_available = step in evaluable or journalled.is_answered(step, suite)
                has_failed = (step, suite.name) in self.troubles
                if (
                    is_available
                    and not has_failed
                    and journalled.lacks_keys(step, suite)
                ):
                    yield step, suite

    def taken(self) -> evaluations.Taken:
        """The keys that evaluators have journalled of each step."""
        return self._read_rows().taken

    def _read_rows(self) -> EvaluatorRows:
        """What evaluators have journalled, read again where a file of theirs has grown."""
        files = [
            (path, path.stat().st_size) for path in journals.guest_files(self.folder)
        ]
        if files != self._rows_read_of:
            self._rows = EvaluatorRows(
                evaluations.collect_taken_keys(self.folder),
                evaluations.find_kept_answers(self.folder),
            )
            self._rows_read_of = files
        return self._rows

    @property
    def _has_begun(self) -> bool:
        """Whether the loss of the base has been journalled: before, nothing proves what is held."""
        point = self.read_trainer_point(0)
        return point is not None and point.loss is not None

    def read_trainer_point(self, step: int) -> TrainerPoint | None:
        """What the trainer has journalled of a step; None if nothing."""
        point: TrainerPoint | None = None
        for row in journals.read_own(self.folder):
            if isinstance(row, MetricRow) and row.step == step:
                loss = row.data.get("loss", point and point.loss)
                point = TrainerPoint(
                    None if loss is None else float(loss), row.examples
                )
        return point
