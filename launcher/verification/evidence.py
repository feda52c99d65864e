"""Opens a run's folder, and finds what the run was made of, wherever its workspace lies by now."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from jobs.contract import attempt as attempts
from jobs.contract import job_file, journal, journal_rows
from jobs.contract.exit_record import ExitRecord
from jobs.contract.folder import SCHEMA, Damaged, Workspace, get_object, is_committed
from jobs.contract.job_file import TrainJob
from jobs.contract.journal_rows import as_mapping, find_metrics, find_starts
from launcher.verification.finding import NotChecked
from zsg_core.errors import UserError
from zsg_core.training import schedule

Row = dict[str, Any]


def find_recipe_fault(recipe: Any) -> str | None:
    """What a recorded recipe lacks of what every look at a run reads; None of nothing.

    A job.json may have been written by anybody.
    """
    stages: Any = recipe.get("stages")
    if not isinstance(stages, list) or not stages:
        return "has no stage"
    if not isinstance(recipe.get("base"), dict):
        return "has no `base`"
    last = get_object(cast("list[Any]", stages)[-1])
    for key in ("data", "arrangement", "train"):
        if not isinstance(last.get(key), dict):
            return f"has no `{key}` in its last stage"
    if not isinstance(get_object(last["arrangement"]).get("order"), str):
        return "has no `arrangement.order` in its last stage"
    return None


@dataclass(frozen=True)
class Evidence:
    """What a run has left. `roots`: the workspaces in which what it was made of may
    lie, the nearest first."""

    folder: Path
    job: TrainJob
    roots: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> "Evidence":
        """The evidence of a run's folder, copied or not. UserError for one that holds
        no train job."""
        path = job_file.job_path(folder)
        try:
            job = job_file.read_job(folder)
        except Damaged as error:
            raise UserError(str(error)) from error
        if job is None:
            raise UserError(f"{path}: not found; give a run's id or its folder")
        if job.schema != SCHEMA or not isinstance(job, TrainJob):
            described = f"a {job.kind} job of schema {job.schema}"
            raise UserError(
                f"{path}: {described}; zsg verify looks at train jobs of schema {SCHEMA}"
            )
        fault = find_recipe_fault(job.recipe)
        if fault is not None:
            raise UserError(f"{path}: its recipe {fault}; zsg did not write it")
        roots = (folder.resolve().parent.parent, job.workspace.root)
        return cls(folder, job, tuple(dict.fromkeys(roots)))

    def find(self, need: str) -> Path | None:
        """The folder `kind/id` of something made, if it is anywhere."""
        return next(
            (root / need for root in self.roots if is_committed(root / need)), None
        )

    def made(self, need: str) -> Path:
        """The folder `kind/id` of something made. NotChecked if it is nowhere."""
        if folder := self.find(need):
            return folder
        raise NotChecked(f"{need} is not in {' or '.join(map(str, self.roots))}")

    def workspace_of(self, need: str) -> Workspace:
        """The workspace that has something made. NotChecked if none has."""
        return Workspace(self.made(need).parent.parent)

    @property
    def recipe(self) -> Row:
        return self.job.recipe

    @property
    def stage(self) -> Row:
        """The recipe of the stage that this run trains."""
        return self.job.stage

    @cached_property
    def end(self) -> ExitRecord | None:
        """How the newest attempt ended; None while it is under way."""
        return attempts.end_of_newest(self.folder)

    @cached_property
    def rows(self) -> list[journal_rows.Row]:
        """The rows of the run's own attempts that count. NotChecked where the journal
        is missing or broken."""
        try:
            rows = list(journal.read_own(self.folder))
        except (ValueError, KeyError, TypeError) as error:
            raise NotChecked(f"the journal cannot be read: {error}") from error
        if not rows:
            raise NotChecked(f"{self.folder / 'journal'} has no rows")
        return rows

    @property
    def starts(self) -> list[Row]:
        """What each attempt told when it began; with its number."""
        starts = find_starts(self.rows)
        return [as_mapping(start) | {"attempt": row.attempt} for row, start in starts]

    @cached_property
    def first(self) -> int:
        """The steps of the stages before. NotChecked if no attempt has begun to train."""
        if not self.starts:
            raise NotChecked("no attempt has begun to train")
        return min(start["from"] for start in self.starts)

    @cached_property
    def last(self) -> int:
        """The last step that is journalled."""
        return max(
            (row.step for row, _ in find_metrics(self.rows, "train/loss")),
            default=self.first,
        )

    @property
    def arrangement(self) -> Path:
        return self.made(f"arrangements/{self.job.made.arrangement}")

    @cached_property
    def ids(self) -> list[str]:
        """The training list in its order."""
        return (self.arrangement / "ids").read_text(encoding="utf-8").splitlines()

    @cached_property
    def digests(self) -> dict[int, str]:
        """The running digest of the ids after each step, recomputed from the
        arrangement and the batch size."""
        s = self.stage["train"]
        steps = schedule.count_steps(len(self.ids), s["batch"], s["epochs"], s["steps"])
        digests = schedule.compute_digests(self.ids, s["batch"], s["epochs"], steps)
        return {self.first + step: digest for step, digest in enumerate(digests)}
