"""Finds in a workspace what a run learns at a step: the stage that takes it, and where
a tokenizer for it lies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.contract import job_file
from jobs.contract.folder import Workspace, find_damage
from jobs.contract.job_file import TrainJob
from jobs.files.model_file_names import TOKENIZER_NAMES
from launcher.reporting.data.arrangements import find_arrangement
from launcher.status import queries
from launcher.views.learnt_view import example_row
from launcher.workspace import extras
from zsg_core.errors import UserError
from zsg_core.training import schedule

if TYPE_CHECKING:  # brings torch
    from jobs.training.learnt_texts import LearntExample, LearntTexts

MODULES = ("torch", "transformers")


@dataclass(frozen=True)
class Learnt:
    """What was asked of a run: the `batch` of a step, None where no text was asked
    for; by split the examples with `problems`, None where they were not.

    `sizes`: by split, of how many examples.
    """

    run: str
    step: int
    batch: "list[LearntExample] | None"
    problems: "dict[str, list[LearntExample]] | None"
    sizes: dict[str, int]

    @property
    def row(self) -> dict[str, Any]:
        """The same for scripts."""
        row: dict[str, Any] = {"run": self.run, "step": self.step, "sizes": self.sizes}
        if self.batch is not None:
            row["batch"] = list(map(example_row, self.batch))
        if self.problems is not None:
            row["problems"] = {
                split: list(map(example_row, examples))
                for split, examples in self.problems.items()
            }
        return row


@dataclass(frozen=True)
class Asked:
    """What a user wants to see of a run. `step`: None = the first of its last stage;
    `tokenizer`: a folder to read it from, in place of the base's."""

    step: int | None = None
    text: bool = False
    problems: bool = False
    tokenizer: Path | None = None


class _Stage(NamedTuple):
    """A stage of a run, and the steps that it has: those after `first`, up to `last`."""

    job: TrainJob
    first: int
    last: int


def read_learnt(workspace: Workspace, run: str, asked: Asked) -> Learnt:
    """What a run learns in the stage that takes a step.

    UserError for a step that no stage takes, and where something is missing that the
    texts are made of.
    """
    extras.require_extra("to show what is learnt", "train", MODULES)
    item = queries.find_item(workspace, f"runs/{run}")
    run_id = item.removeprefix("runs/")
    stages = list(_list_stages(workspace, run_id))
    stage = stages[-1] if asked.step is None else _choose_stage(stages, asked.step)
    folder = asked.tokenizer
    if folder is None:
        folder = _find_tokenizer(workspace, [stage.job for stage in stages])
    texts = _open_texts(workspace, stage, _check_tokenizer(folder))
    step = texts.first_step if asked.step is None else asked.step
    problems = None
    if asked.problems:
        problems = {split: list(texts.list_problems(split)) for split in texts.sizes}
    return Learnt(
        run=run_id,
        step=step,
        batch=texts.read_batch(step) if asked.text else None,
        problems=problems,
        sizes=texts.sizes,
    )


def _open_texts(workspace: Workspace, stage: _Stage, tokenizer: Path) -> "LearntTexts":
    """The texts of a stage."""
    from jobs.training.learnt_texts import LearntStage, LearntTexts

    _refuse_lacking_corpus(workspace, stage.job)
    learnt_stage = LearntStage(
        workspace=workspace,
        recipe=stage.job.recipe,
        made=stage.job.made,
        tokenizer=tokenizer,
        first=stage.first,
    )
    return LearntTexts(learnt_stage)


def _list_stages(workspace: Workspace, run_id: str) -> Iterator[_Stage]:
    """The stages of a run. UserError for one whose order is not made."""
    first = 0
    for folder in job_file.stage_folders(workspace, run_id):
        job = job_file.read_train_job(folder)
        if job is None:
            raise UserError(
                f"{folder}: has no {job_file.NAME}, so it is not known what it learns; zsg submit"
                " writes it"
            )
        examples = len(find_arrangement(workspace, job.made.arrangement).ids)
        train = job.train
        steps = schedule.count_steps(
            examples, train["batch"], train["epochs"], train["steps"]
        )
        yield _Stage(job, first, first + steps)
        first += steps


def _choose_stage(stages: Sequence[_Stage], step: int) -> _Stage:
    """The stage that takes a step."""
    for stage in stages:
        if stage.first < step <= stage.last:
            return stage
    last = stages[-1].last
    raise UserError(
        f"--step {step}: the run has steps 1 to {last}; step 0 is the model before it learns"
    )


def _find_tokenizer(workspace: Workspace, jobs: Sequence[TrainJob]) -> Path:
    """A folder with the tokenizer of a run's base. Every stage has the same; that of a
    later one lies with the weights of the stage before, which may be gone or not yet
    made."""
    folders = [job.base_folder for job in reversed(jobs)]
    folders += [workspace.base(job.made.base) for job in jobs if job.made.base]
    for folder in folders:
        if _has_tokenizer(folder):
            return folder
    return folders[0]


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_NAMES)


def _check_tokenizer(folder: Path) -> Path:
    """The folder; UserError where it has no tokenizer."""
    if _has_tokenizer(folder):
        return folder
    raise UserError(
        f"the text is read with the tokenizer of the base, and {folder} has none here: it takes"
        " the base's tokenizer.json, tokenizer_config.json and the like, and config.json, no"
        " weights; a prepare job makes a tiny base (zsg submit); of another machine's base name a"
        " copy of these files: --tokenizer FOLDER"
    )


def _refuse_lacking_corpus(workspace: Workspace, job: TrainJob) -> None:
    """UserError where the examples are not in the workspace."""
    corpus = workspace.corpus(job.made.corpus)
    if damage := find_damage(corpus):
        raise UserError(
            f"the examples of the run are not in the workspace: {corpus}: {damage}; zsg arrange"
            " make makes them anew from the grid's data"
        )
