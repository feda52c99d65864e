"""Does a forget remove what only a grid or a run needs, and nothing that others do?"""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from jobs.contract import grid_record
from jobs.contract.folder import Workspace, write_json
from jobs.files import locks, ownership
from launcher.clusters import slurm
from launcher.lifecycle import forget as forgets
from launcher.status import queries
from launcher.workspace import forgetting, recorded_grids
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import write_job_file
from tests.lib.shared_grids import Shared, make_folder
from zsg_core import recipe as recipes
from zsg_core.errors import ClusterError, UserError, ZsgError

KILLS = 20
CALLS = 40  # that change the disk; a forget of the workspace below makes more


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    """The workspace."""
    made = Shared(tmp_path)
    make_folder(made.workspace.records("0" * 12), "data.arrow")
    return made


def test_a_grid_goes_with_what_only_it_needs(shared):
    """The other's runs, those that both list and the stage that all begin with stay,
    with all that was made for them; of the grid nothing is known any more."""
    before = shared.list_folders()
    rows = queries.status_rows(shared.workspace, "two")
    chosen, troubles = forgets.forget(shared.workspace, ["one"])

    gone = {"grids/one", shared.item("own"), *shared.list_made("own")}
    assert before - shared.list_folders() == gone
    assert troubles == [] and chosen.left.keys() == {
        shared.ids["both"],
        shared.ids["stage"],
    }
    assert queries.status_rows(shared.workspace, "two") == rows
    assert shared.item("own") not in Ledger(shared.workspace).by_item()
    with pytest.raises(UserError, match="no grid 'one'"):
        queries.status_rows(shared.workspace, "one")


def test_the_last_grid_takes_everything_with_it(shared):
    """Also what the two shared, and the logs of all submissions."""
    forgets.forget(shared.workspace, ["one"])
    forgets.forget(shared.workspace, ["two"])

    assert shared.list_folders() == set()


def test_what_is_shown_is_what_goes(shared):
    """With its bytes: a thousand of each file, and what stands beside it."""
    shown = forgets.plan_forgetting(shared.workspace, ["one"])
    before = measure(shared.workspace.root)
    done, _ = forgets.forget(shared.workspace, ["one"], agreed=shown)

    assert done.record.items == shown.record.items
    ledger = Ledger(shared.workspace)
    grown = sum(len(submission.forgotten) for submission in ledger.submissions.values())
    assert grown == 1
    assert 6000 < shown.size < before


def measure(root: Path) -> int:
    """The bytes of all files of a folder."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def kill_forget_at(workspace: Workspace, names: list[str], call: int) -> bool:
    """Forgets in a process that dies at one of its calls that change the disk; whether
    it died."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    try:
        die_at_call(call)
        forgets.forget(workspace, names)
        os._exit(0)
    finally:
        os._exit(1)


def die_at_call(call: int) -> None:
    """Has this process die at that of the calls that change the disk, counted from 1."""
    calls = iter(range(1, 1 << 30))

    def count(do):
        def counted(*given, **named):
            if next(calls) == call:
                os._exit(1)
            return do(*given, **named)

        return counted

    for name in ("rename", "replace", "unlink", "rmdir", "fsync", "mkdir"):
        setattr(os, name, count(getattr(os, name)))


@pytest.fixture
def copies(shared, tmp_path: Path) -> Iterator[Workspace]:
    """Copies of the workspace, one after another in the same place."""

    def copy_again() -> Iterator[Workspace]:
        root, kept = shared.workspace.root, tmp_path / "kept"
        root.rename(kept)
        while True:
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(kept, root)
            yield shared.workspace

    return copy_again()


def test_killed_at_any_moment_it_is_run_again(shared, copies):
    """It then removes what was left, and comes to the same end as one that nothing
    disturbed."""
    forgets.forget(next(copies), ["one"])
    whole = shared.list_folders()
    draw = random.Random(7)
    for call in [1, *draw.sample(range(2, CALLS), KILLS - 1)]:
        workspace = next(copies)
        assert kill_forget_at(workspace, ["one"], call), call
        assert_others_are_whole(shared)
        if forgets.find_unfinished(workspace):
            forgets.forget(workspace, [])
        elif "one" in grid_record.list_grids(workspace):
            forgets.forget(workspace, ["one"])

        assert shared.list_folders() == whole, call
        assert forgetting.read_forget_record(workspace) is None


def assert_others_are_whole(shared: Shared) -> None:
    """What the other grid needs is there."""
    names = shared.list_folders()
    for name in ("stage", "both", "other"):
        assert {shared.item(name), *shared.list_made(name)} <= names


def test_what_was_submitted_again_after_a_kill_stays(shared):
    """The grid counts as new: only what it no longer needs is removed."""
    chosen = forgets.plan_forgetting(shared.workspace, ["one"])
    forgetting.write_forget_record(shared.workspace, chosen.record)
    fields = json.loads((shared.workspace.grid("one") / "grid.json").read_text())
    fields["submitted"] = chosen.record.created + 1
    write_json(shared.workspace.grid("one") / "grid.json", fields)
    forgets.forget(shared.workspace, [])

    assert "one" in grid_record.list_grids(shared.workspace)
    assert shared.run("own").is_dir()


def test_nothing_goes_while_some_of_it_runs(shared):
    """The run is named, with what ends it."""
    shared.submit("one", "own")
    lock = ownership.open_lock(shared.run("own") / "lock")
    locks.wait_for_lock(lock, shared.run("own") / "lock")
    before = shared.list_folders()
    with pytest.raises(UserError, match=f"{shared.ids['own']}.*zsg cancel one"):
        forgets.forget(shared.workspace, ["one"])
    os.close(lock)

    assert shared.list_folders() == before


def test_what_goes_on_running_for_another_grid_is_no_hindrance(shared):
    """It stays."""
    shared.submit("two", "both")
    lock = ownership.open_lock(shared.run("both") / "lock")
    locks.wait_for_lock(lock, shared.run("both") / "lock")
    forgets.forget(shared.workspace, ["one"])
    os.close(lock)

    assert shared.run("both").is_dir()


def test_a_run_goes_by_its_id_and_its_grid_goes_on_listing_it(shared):
    """So that a report says that it is missing; the next submit trains it anew."""
    own = shared.ids["own"]
    chosen, _ = forgets.forget(shared.workspace, [own[:8]])
    rows = {row["run"]: row for row in queries.status_rows(shared.workspace, "one")}

    assert not shared.run("own").exists() and chosen.listed == {own: "one"}
    assert rows[own]["state"] == "unknown" and rows[own]["attempt"] is None
    assert shared.list_made("own").isdisjoint(shared.list_folders())


@pytest.mark.parametrize(
    ("name", "why"), [("both", "it is in one, two"), ("stage", "begin with it")]
)
def test_a_run_that_others_need_stays(shared, name, why):
    """And says for whom."""
    chosen, _ = forgets.forget(shared.workspace, [shared.ids[name]])

    assert shared.run(name).is_dir()
    assert why in chosen.left[shared.ids[name]] and chosen.is_empty


def test_a_run_from_which_another_was_started_stays(shared):
    """By its path as a model, of which no grid tells."""
    fields = json.loads((shared.run("other") / "job.json").read_text())
    fields["paths"]["base"] = str(shared.run("own") / "snapshots/4")
    write_json(shared.run("other") / "job.json", fields)
    chosen, _ = forgets.forget(shared.workspace, ["one"])

    assert shared.run("own").is_dir()
    assert "starts from it" in chosen.left[shared.ids["own"]]


def test_a_file_of_the_users_keeps_its_folder(shared):
    """All else goes."""
    (shared.run("own") / "notes.txt").write_text("mine")
    chosen, _ = forgets.forget(shared.workspace, ["one"])

    assert (shared.run("own") / "job.json").is_file()
    assert "notes.txt" in chosen.left[shared.ids["own"]]
    assert "one" not in grid_record.list_grids(shared.workspace)


def test_no_link_is_followed(shared, tmp_path: Path):
    """What a link in a run's place leads to stays."""
    away = tmp_path / "away"
    shared.run("own").rename(away)
    shared.run("own").symlink_to(away)
    forgets.forget(shared.workspace, ["one"])

    assert (away / "job.json").is_file()


def test_what_is_proven_and_tried_of_a_model_goes_with_its_last_grid(shared) -> None:
    """Proofs, of whatever versions, of models that no grid that stays needs nor any job
    makes; and trials of chat templates of runs that go."""
    kept, lost, young = ("a" * 12, "b" * 12, "c" * 12)
    workspace = shared.workspace
    for grid, proofs in {"one": [kept, lost, young], "two": [kept]}.items():
        record = recorded_grids.read_grid(workspace, grid)
        changed = structs.replace(record, proofs=proofs)
        grid_record.write_grid_record(workspace, changed)
    workspace.model_proofs.mkdir()
    for digest in (kept, lost, young):
        for torch in ("2.12.0", "2.13.0"):
            (workspace.model_proofs / f"{digest}.torch-{torch}.json").write_text("{}")
    (workspace.model_proofs / "mine.json").write_text("{}")
    ledger = Ledger(workspace)
    prepare = ledger.intend(
        scheduler="local", kind="prepare", grid="two", items=["prepare/p"]
    )
    ledger.submitted(prepare, ["local"])
    makes = [f"model-proofs/{young}"]
    write_job_file(workspace.root / "prepare/p", "prepare", makes=makes)
    forgets.forget(workspace, ["one"])

    left = {path.name.partition(".")[0] for path in workspace.model_proofs.iterdir()}
    assert left == {kept, young, "mine"}


def test_a_chat_template_s_trial_goes_with_its_runs(shared) -> None:
    """That of a run that stays is kept."""
    trials: dict[str, str] = {}
    for name in ("own", "other"):
        stage = recipes.last_stage(shared.recipes[name])
        stage["data"]["template"] = {"name": "chat", "digest": "d"}
        trial = recipes.chat_trial_id(shared.recipes[name])
        assert trial is not None
        make_folder(shared.workspace.chat_trial(trial), "meta.json")
        trials[name] = trial
    (file,) = shared.workspace.root.parent.glob("one.yaml")
    shared.record_grid(file.parent, "one", "own", "both")
    shared.record_grid(file.parent, "two", "both", "other")
    forgets.forget(shared.workspace, ["one"])

    folder = shared.workspace.chat_trial(trials["other"]).parent
    assert [path.name for path in folder.iterdir()] == [trials["other"]]


def test_of_a_submission_that_is_half_forgotten_the_rest_counts(shared):
    """The ledger knows it for the jobs that stay."""
    forgets.forget(shared.workspace, ["one"])
    items = Ledger(shared.workspace).by_item()

    assert items.keys() == {shared.item(name) for name in ("stage", "both", "other")}


def test_what_each_job_leaves_goes_with_it(shared) -> None:
    """Every name that jobs give a file of theirs is known; a run that was started again
    has a list of its attempts before."""
    (shared.run("own") / "past_attempts.jsonl").write_text("{}\n")
    (shared.run("own") / "delivery").mkdir()
    (shared.run("own") / "users").mkdir()
    chosen, _ = forgets.forget(shared.workspace, ["one"])

    assert shared.ids["own"] not in chosen.left
    assert not shared.run("own").exists()


def test_a_run_whose_weights_another_uses_by_a_link_stays(shared, tmp_path) -> None:
    """As its model, or as what judges its answers."""
    (tmp_path / "model").symlink_to(shared.run("own") / "snapshots/4")
    fields = json.loads((shared.run("other") / "job.json").read_text())
    fields["checkpoints"]["reward_model"] = str(tmp_path / "model")
    write_json(shared.run("other") / "job.json", fields)
    chosen, _ = forgets.forget(shared.workspace, ["one"])

    assert shared.run("own").is_dir()
    assert shared.ids["other"] in chosen.left[shared.ids["own"]]


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_grid_with_jobs_in_slurms_queue_is_refused(
    shared, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Until they are cancelled; then it goes."""
    ledger = Ledger(shared.workspace)
    again = ledger.intend(
        scheduler="slurm", kind="train", grid="one", items=[shared.item("own")]
    )
    ledger.submitted(again, ["7"])
    known = {"state": slurm.SlurmState(state)}
    monkeypatch.setattr(
        slurm,
        "query_states",
        lambda jobs, *run, **how: dict.fromkeys(jobs, known["state"]),
    )
    before = shared.list_folders()
    with pytest.raises(UserError, match=r"queued or running.*zsg cancel one"):
        forgets.forget(shared.workspace, ["one"])
    assert shared.list_folders() == before
    known["state"] = slurm.SlurmState("cancelled")
    forgets.forget(shared.workspace, ["one"])

    assert not shared.run("own").exists()


def test_while_slurm_does_not_answer_nothing_is_forgotten(
    shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether a job of it still runs."""

    def is_away(*_: object, **__: object) -> None:
        raise ClusterError("slurmctld does not answer")

    ledger = Ledger(shared.workspace)
    again = ledger.intend(
        scheduler="slurm", kind="train", grid="one", items=[shared.item("own")]
    )
    ledger.submitted(again, ["7"])
    monkeypatch.setattr(slurm, "query_states", is_away)
    before = shared.list_folders()
    with pytest.raises(ZsgError):
        forgets.forget(shared.workspace, ["one"])

    assert shared.list_folders() == before
