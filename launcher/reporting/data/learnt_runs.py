"""Finds in a workspace what a run learns at a step: the stage that takes it, and where
a tokenizer for it lies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.contract import job_file
from jobs.contract.folder import Workspace, find_damage
from jobs.contract.job_file import MadeThings, Recipe
from jobs.files.model_file_names import TOKENIZER_NAMES
from launcher.grids.runs import Run
from launcher.reporting.data.arrangements import find_arrangement
from launcher.status import queries
from launcher.views.learnt_view import example_row
from launcher.workspace import extras
from zsg_core.errors import UserError
from zsg_core.shown_text import name_few
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


class ShownStage(NamedTuple):
    """A stage of a run: the recipe up to it, what it reads, its weights' folder."""

    recipe: Recipe
    made: MadeThings
    base: Path


@dataclass(frozen=True)
class ShownRun:
    """A run, submitted or planned, and its stages in their order."""

    id: str
    stages: Sequence[ShownStage]


class _Counted(NamedTuple):
    """A stage, and the steps that it has: those after `first`, up to `last`."""

    stage: ShownStage
    first: int
    last: int


def find_submitted(workspace: Workspace, prefix: str) -> ShownRun:
    """The run of a workspace whose id begins so. UserError for none, or several."""
    item = queries.find_item(workspace, f"runs/{prefix}")
    run_id = item.removeprefix("runs/")
    stages: list[ShownStage] = []
    for folder in job_file.stage_folders(workspace, run_id):
        job = job_file.read_train_job(folder)
        if job is None:
            raise UserError(
                f"{folder}: has no {job_file.NAME}, so it is not known what it learns; zsg submit"
                " writes it"
            )
        stages.append(ShownStage(job.recipe, job.made, job.base_folder))
    return ShownRun(run_id, stages)


def find_planned(workspace: Workspace, runs: Sequence[Run], prefix: str) -> ShownRun:
    """The run of a grid whose id begins so, whether it is submitted or not. UserError
    for none, or several."""
    matching = [run for run in runs if run.id.startswith(prefix)]
    if len(matching) != 1:
        ids = name_few([run.id for run in matching or runs])
        raise UserError(
            f"{prefix!r} begins the id of {len(matching)} runs of the grid: {ids}"
        )
    (run,) = matching
    stages = [_plan_stage(workspace, stage) for stage in [*run.all_before, run]]
    return ShownRun(run.id, stages)


def _plan_stage(workspace: Workspace, run: Run) -> ShownStage:
    """What a run reads, as its job will say it."""
    made = MadeThings(
        corpus=run.corpus_id, arrangement=run.arrangement_id, base=run.base_id
    )
    base = workspace.base(run.base_id) if run.base_id else run.base
    assert base is not None, "a model that zsg does not make has a folder"
    return ShownStage(run.recipe, made, base)


def read_learnt(workspace: Workspace, run: ShownRun, asked: Asked) -> Learnt:
    """What a run learns in the stage that takes a step.

    UserError for a step that no stage takes, and where something is missing that the
    texts are made of.
    """
    extras.require_extra("to show what is learnt", "train", MODULES)
    stages = list(_count_steps(workspace, run.stages))
    stage = stages[-1] if asked.step is None else _choose_stage(stages, asked.step)
    folder = asked.tokenizer
    if folder is None:
        folder = _find_tokenizer(workspace, run.stages)
    texts = _open_texts(workspace, stage, _check_tokenizer(folder))
    step = texts.first_step if asked.step is None else asked.step
    problems = None
    if asked.problems:
        problems = {split: list(texts.list_problems(split)) for split in texts.sizes}
    return Learnt(
        run=run.id,
        step=step,
        batch=texts.read_batch(step) if asked.text else None,
        problems=problems,
        sizes=texts.sizes,
    )


def _open_texts(
    workspace: Workspace, counted: _Counted, tokenizer: Path
) -> "LearntTexts":
    """The texts of a stage."""
    from jobs.training.learnt_texts import LearntStage, LearntTexts

    stage = counted.stage
    _refuse_lacking_corpus(workspace, stage.made)
    learnt_stage = LearntStage(
        workspace=workspace,
        recipe=stage.recipe,
        made=stage.made,
        tokenizer=tokenizer,
        first=counted.first,
    )
    return LearntTexts(learnt_stage)


def _count_steps(
    workspace: Workspace, stages: Sequence[ShownStage]
) -> Iterator[_Counted]:
    """The steps of each stage. UserError for one whose order is not made."""
    first = 0
    for stage in stages:
        examples = len(find_arrangement(workspace, stage.made.arrangement).ids)
        train = stage.recipe["stages"][-1]["train"]
        steps = schedule.count_steps(
            examples, train["batch"], train["epochs"], train["steps"]
        )
        yield _Counted(stage, first, first + steps)
        first += steps


def _choose_stage(stages: Sequence[_Counted], step: int) -> _Counted:
    """The stage that takes a step."""
    for stage in stages:
        if stage.first < step <= stage.last:
            return stage
    last = stages[-1].last
    raise UserError(
        f"--step {step}: the run has steps 1 to {last}; step 0 is the model before it learns"
    )


def _find_tokenizer(workspace: Workspace, stages: Sequence[ShownStage]) -> Path:
    """A folder with the tokenizer of a run's base. Every stage has the same; that of a
    later one lies with the weights of the stage before, which may be gone or not yet
    made."""
    folders = [stage.base for stage in reversed(stages)]
    made_bases = [stage.made.base for stage in stages if stage.made.base]
    folders += [workspace.base(base_id) for base_id in made_bases]
    for folder in folders:
        if _has_tokenizer(folder):
            return folder
    return folders[0]


def _has_tokenizer(folder: Path) -> bool:
    """Whether a model folder has a file that a tokenizer is read from."""
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


def _refuse_lacking_corpus(workspace: Workspace, made: MadeThings) -> None:
    """UserError where the examples are not in the workspace."""
    corpus = workspace.corpus(made.corpus)
    if damage := find_damage(corpus):
        raise UserError(
            f"the examples of the run are not in the workspace: {corpus}: {damage}; zsg arrange"
            " make makes them anew from the grid's data"
        )
