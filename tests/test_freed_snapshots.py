"""Does a plan tell what gc frees once the grid is submitted, and what has been freed?"""

from pathlib import Path

import pytest

from jobs.contract.folder import Workspace, publish_folder
from jobs.contract.grid_record import (
    GridRecord,
    Keeping,
    ListedRun,
    write_grid_record,
)
from jobs.contract.states import State
from launcher.planning import freed_snapshots
from launcher.planning.freed_snapshots import FreedSnapshots
from launcher.workspace.job_state import JobState
from tests.lib.job_records import write_job_file
from tests.lib.planned_runs import a_run

STEPS = (10, 20, 40)


class Trained:
    """A workspace with a run that is done, whose three snapshots of 1000 bytes are
    there."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder)
        self.run = a_run()
        run = self.workspace.run(self.run.id)
        write_job_file(run, recipe=self.run.recipe)
        for step in STEPS:
            with publish_folder(run / "snapshots" / str(step)) as draft:
                (draft / "model.safetensors").write_bytes(b"x" * 1000)
        rows = [{"step": step, "probe_loss": None, "kept": True} for step in STEPS]
        state = JobState(state=State.DONE, steps=40, snapshots=tuple(rows))
        self.states = {f"runs/{self.run.id}": state}

    def find(self, **checkpoints: object) -> FreedSnapshots | None:
        """What is freed after a submit of grid g with these settings."""
        run = a_run(checkpoints=checkpoints)
        return freed_snapshots.find_freed_snapshots(
            self.workspace, "g", [run], self.states
        )

    def record_grid(self, name: str, *keeping: Keeping) -> None:
        """A grid that lists the run."""
        row = ListedRun(run=self.run.id, axes={}, keeping=list(keeping))
        self.workspace.grid(name).mkdir(parents=True)
        write_grid_record(self.workspace, GridRecord(name=name, runs=[row]))


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """The workspace."""
    return Trained(tmp_path)


def test_what_the_grid_keeps_no_longer_is_told_with_its_bytes(trained: Trained) -> None:
    """Nothing is, where the grid keeps all; what its record said before does not count."""
    trained.record_grid("g", Keeping(snapshots=10))
    freed = trained.find(snapshots=10, keep="last")

    assert trained.find(snapshots=10) is None
    assert freed == FreedSnapshots(count=2, runs=1, size=2000)
    assert "2 snapshots of 1 run, 0.0 MB, which zsg gc frees" in freed.words


def test_what_another_grid_keeps_is_not_told(trained: Trained) -> None:
    """Nor would gc free it."""
    trained.record_grid("h", Keeping(snapshots=10, keep={"first": 1}))
    freed = trained.find(snapshots=10, keep="last")

    assert freed == FreedSnapshots(count=1, runs=1, size=1000)


def test_many_are_told_by_some(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No plan walks through ten thousand folders for a sentence."""
    monkeypatch.setattr(freed_snapshots, "MOST_MEASURED", 1)
    freed = trained.find(snapshots=10, keep="last")

    assert freed == FreedSnapshots(count=2, runs=1, size=2000, is_estimated=True)
    assert "some 0.0 MB" in freed.words


def test_what_gc_has_freed_counts_as_not_kept(trained: Trained) -> None:
    """So that a grid which wants it after all is told that it is missing."""
    folder = trained.workspace.run(trained.run.id) / "snapshots"
    (folder / "10").rename(folder / ".10.gone")
    run = a_run(checkpoints={"snapshots": 10})
    marked = freed_snapshots.mark_removed(trained.workspace, [run], trained.states)
    [state] = marked.values()

    assert [row["step"] for row in state.snapshots if row["kept"]] == [20, 40]


def test_a_run_and_its_stages_are_kept_as_every_point_says() -> None:
    """Each thing once."""
    runs = [a_run(checkpoints={"snapshots": 10, "keep": "last"}) for _ in range(2)]
    [wanted] = freed_snapshots.collect_wanted([*runs, a_run()]).values()

    assert [keeping.keep and keeping.keep["last"] for keeping in wanted] == [1, None]
