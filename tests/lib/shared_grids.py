"""A workspace of two grids that share runs and a stage, and what a forget of one removes."""

from pathlib import Path

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace, publish_folder, write_json
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.states import Outcome
from jobs.training.tokens import tokens_id
from launcher.workspace import recorded_grids
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import write_job_file
from zsg_core import recipe as recipes


def make_recipe(*orders: str) -> dict:
    """As much of a recipe as ids are made of, a stage for each order."""
    stages = [
        {
            "data": {"template": {"name": "zsg"}, "reader": order, "digest": order},
            "arrangement": {"order": order},
            "train": {"max_length": 64},
        }
        for order in orders
    ]
    return {"base": {"kind": "tiny", "hidden": 64}, "stages": stages}


def make_folder(folder: Path, file: str, meta: dict | None = None) -> None:
    """A committed folder of a file of 1000 bytes, with a meta.json where there is one."""
    with publish_folder(folder) as draft:
        (draft / file).write_bytes(b"x" * 1000)
        if meta is not None:
            write_json(draft / "meta.json", meta)


class Shared:
    """A workspace of two grids whose runs all begin with one stage: `one` lists the runs
    `own` and `both`, `two` lists `both` and `other`. All are done."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "work")
        self.recipes = {
            "stage": make_recipe("first"),
            "own": make_recipe("first", "nft"),
            "both": make_recipe("first", "rt"),
            "other": make_recipe("first", "fft"),
        }
        self.ids = {name: recipes.run_id(it) for name, it in self.recipes.items()}
        self.record_grid(folder, "one", "own", "both")
        self.submit("one", "stage", "own", "both")
        self.record_grid(folder, "two", "both", "other")
        self.submit("two", "other")
        for name in self.recipes:
            self.make_run(name)

    def record_grid(self, folder: Path, grid: str, *names: str) -> None:
        """A grid of these runs, which begin with the stage."""
        file = folder / f"{grid}.yaml"
        file.write_text(f"name: {grid}\n")
        runs = [
            ListedRun(run=self.ids[name], axes={}, recipe=self.recipes[name])
            for name in names
        ]
        before = [ListedRun(run=self.ids["stage"], axes={})]
        record = GridRecord(name=grid, runs=runs, before=before, submitted=1000)
        recorded_grids.write_grid(self.workspace, file, record)

    def submit(self, grid: str, *names: str) -> str:
        """These runs, submitted on this machine; the submission."""
        ledger = Ledger(self.workspace)
        submission = ledger.intend(
            scheduler="local",
            kind="train",
            grid=grid,
            items=[self.item(name) for name in names],
        )
        ledger.submitted(submission, ["local"] * len(names))
        folder = self.workspace.submission(submission.id)
        folder.mkdir(parents=True)
        (folder / "1_0_log.out").write_text("log")
        return submission.id

    def item(self, name: str) -> str:
        """The folder of a run, relative to the workspace."""
        return f"runs/{self.ids[name]}"

    def run(self, name: str) -> Path:
        """The folder of a run."""
        return self.workspace.run(self.ids[name])

    def make_run(self, name: str) -> None:
        """A run that is done, and what was made for it."""
        folder, recipe = self.run(name), self.recipes[name]
        last = Ledger(self.workspace).last(self.item(name))
        assert last is not None
        write_job_file(
            folder,
            run_id=self.ids[name],
            recipe=recipe,
            before=[] if name == "stage" else [self.ids["stage"]],
            code={"digest": self.ids[name] + "0000"},
            submission=last.id,
            makes=[],
        )
        attempt = attempts.begin_attempt(folder, last.id)
        attempts.end_attempt(folder, attempt, Outcome.DONE)
        make_folder(folder / "snapshots/4", "model.safetensors")
        arrangement = recipes.arrangement_id(recipe)
        corpus = recipes.corpus_id(recipe)
        make_folder(self.workspace.code(self.ids[name] + "0000"), "a.patch")
        source = {"records": {"train": corpus, "test": "0" * 12}}
        make_folder(self.workspace.records(corpus), "data.arrow")
        make_folder(
            self.workspace.corpus(corpus), "train.npy", {"sources": {"": source}}
        )
        make_folder(self.workspace.arrangement(arrangement), "ids", {})
        tokens = self.workspace.tokens(tokens_id(recipe, arrangement))
        make_folder(tokens, "ids.npy", {})

    def list_made(self, name: str) -> set[str]:
        """What was made for the last stage of a run alone."""
        recipe = self.recipes[name]
        arrangement = recipes.arrangement_id(recipe)
        corpus = recipes.corpus_id(recipe)
        return {
            f"corpora/{corpus}",
            f"records/{corpus}",
            f"arrangements/{arrangement}",
            f"tokens/{tokens_id(recipe, arrangement)}",
            f"code/{self.ids[name]}0000",
        }

    def list_folders(self) -> set[str]:
        """All folders of runs and of what is made for them, and what is left of some."""
        return {
            f"{parent.name}/{path.name}"
            for parent in self.workspace.root.iterdir()
            if parent.is_dir()
            for path in parent.iterdir()
        }
