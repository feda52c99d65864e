"""What tests of train jobs share: a workspace in which real jobs are made, started and
stopped; what they tell."""

import json
import time
from pathlib import Path
from typing import Any

from jobs.contract.folder import read_json, write_json
from jobs.contract.journal import (
    SPEED,
    first_points,
    list_journal_files,
    read_journal,
    read_tail,
)
from launcher.grids.runs import Run
from launcher.planning.plan import Prepare, run_item
from launcher.planning.site import Site
from launcher.submission import job_files
from launcher.submission.workflow import open_grid
from tests.lib.forked_jobs import ForkedJobs, Rank, wait_until
from tests.lib.journal_rows import plain_rows
from zsg_core import skills

STEPS = 18  # of one epoch
MANY = 4  # epochs that leave time to disturb
EXIT_S = 20.0  # within which every rank leaves that was told to
TINY = {"name": "tiny", "hidden": 64, "layers": 2, "vocab": 600}


class Bench:
    """A workspace with one data set, in which runs are made and started."""

    def __init__(self, folder: Path, jobs: ForkedJobs) -> None:
        self.folder, self.data, self.jobs = folder, folder / "tasks", jobs
        self._made = 0
        self._undisturbed: dict[Any, dict[Any, Any]] = {}
        skills.write_tasks(self.data, per_task=6)

    def make(
        self,
        zero: int = 1,
        precision: str = "fp32",
        epochs: int = 1,
        train: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
        is_start: bool = False,
        model: dict[str, Any] | None = None,
        **checkpoints: Any,
    ) -> Path:
        """The folder of a new run of 18 steps an epoch, ready to start; no two runs
        share a workspace.

        `train` are further settings of training, `more` others, dotted, laid over all;
        `is_start`: whether others are to start from its weights; `model`: the base, a
        tiny one unless it is given. Of several stages it is the last one's folder,
        beside those that its job names.
        """
        self._made += 1
        folder = self.folder / f"run{self._made}"
        folder.mkdir()
        grid = {
            "model": model or TINY,
            "data": {
                "path": str(self.data),
                "train_per_task": 6,
                "test_per_task": 1,
                "positive_examples": 0,
            },
            "train": (
                {
                    "batch": 8,
                    "lr": 2e-3,
                    "max_length": 96,
                    "precision": precision,
                    "epochs": epochs,
                }
                | (train or {})
            ),
            "checkpoints": {"every": 6, "state_every": 4, **checkpoints},
        }
        profile = {"name": "p", "kind": "slurm", "deepspeed": {"zero_stage": zero}}
        write_json(
            folder / "grid.yaml",
            {"name": "g", "defaults": grid, "grid": {"arrangement.order": ["random"]}},
        )
        write_json(folder / "p.yaml", profile)
        sets = [f"{key}={json.dumps(value)}" for key, value in (more or {}).items()]
        opened = open_grid(
            folder / "grid.yaml", str(folder / "p.yaml"), folder / "work", sets=sets
        )
        return self._prepare(opened.site, opened.runs[0], is_start)

    def _prepare(self, site: Site, run: Run, is_start: bool) -> Path:
        stages = [*run.all_before, run]
        needs = {need for stage in stages for need in stage.needs}
        made = {need for need in needs if not need.startswith("runs/")}
        prepare = Prepare("prepare/p", stages, made)
        job_files.write_prepare(site.workspace, prepare, site.profile, "s")
        for stage in stages:
            is_begun_from = is_start or stage is not run
            job_files.write_train(
                site.workspace, stage, site.profile, "s", (), is_start=is_begun_from
            )
        assert self.jobs.run(site.workspace.root / "prepare/p")["outcome"] == "done"
        return site.workspace.root / run_item(run)

    def undisturbed(
        self, world: int, zero: int, precision: str, epochs: int = 1
    ) -> dict[Any, Any]:
        """What the run tells that nobody disturbs and that saves nothing."""
        key = (world, zero, precision, epochs)
        if key not in self._undisturbed:
            folder = self.make(zero, precision, epochs, state_every=None)
            assert self.jobs.run(folder, world)["outcome"] == "done"
            self._undisturbed[key] = told(folder)
        return self._undisturbed[key]

    def stopped(
        self, number: int, world: int = 1, step: int = 9, **how: Any
    ) -> tuple[Path, dict[str, Any]]:
        """A long run that was sent a signal once it had reached a step, and its exit record."""
        folder = self.make(epochs=MANY, **how)
        stop(self.jobs.start(folder, world), folder, step, number)
        return folder, read_json(folder / "exit.json")


def told(folder: Path) -> dict[Any, Any]:
    """Every number that counts by (key, step), every digest of ids, the weights; all
    attempts must agree on them."""
    points, disagree = first_points(read_journal(folder))
    assert disagree == []
    facts: dict[Any, Any] = {
        (p.key, p.step): p.value for p in points if not p.key.startswith(SPEED)
    }
    for row in plain_rows(folder):
        if row["kind"] == "digest":
            assert (
                facts.setdefault(("ids", row["step"]), row["data"]["ids"])
                == row["data"]["ids"]
            )
    record = read_json(folder / "exit.json")
    return facts | {
        "weights": record["weights"],
        "digest": record["digest"],
        "checkpoints": record["checkpoints"],
        "quick": record["quick"],
    }


def starts(folder: Path) -> list[dict[str, Any]]:
    """How each attempt began."""
    return [
        row["data"] for row in plain_rows(folder) if row["data"].get("event") == "start"
    ]


def reached(folder: Path, step: int) -> bool:
    """Whether the newest attempt has journalled a step, or a later one."""
    listed = list_journal_files(folder)
    return bool(listed) and any(row.step >= step for row in read_tail(listed[-1]).rows)


def stop(ranks: list[Rank], folder: Path, step: int, number: int) -> None:
    """Sends a signal to all ranks once a step is reached; all must leave in time."""
    wait_until(lambda: reached(folder, step) or ranks[0].ended())
    for rank in ranks:
        rank.send(number)
    until = time.monotonic() + EXIT_S
    for rank in ranks:
        assert rank.ended(within_s=until - time.monotonic()), "a rank has not left"
