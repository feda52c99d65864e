"""Does gc free what no run needs, and never what one may still read?"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from jobs.contract import attempt as attempts
from jobs.contract import stages
from jobs.contract.folder import Damaged, Workspace, publish_folder, write_json
from jobs.contract.grid_record import (
    GridRecord,
    Keeping,
    ListedRun,
    write_grid_record,
)
from jobs.contract.states import Outcome
from jobs.training.tokens import tokens_id
from launcher.clusters import slurm
from launcher.lifecycle import garbage
from launcher.workspace import recorded_grids
from launcher.workspace.ledger import Ledger, Submission
from tests.lib.command_line import Zsg
from tests.lib.job_records import write_job_file
from tests.lib.small_runs import small_grid, submit_forked
from zsg_core import recipe as recipes
from zsg_core.errors import UserError


def a_recipe(order: str, count: int = 1) -> dict:
    """As much of a recipe as ids are made of."""
    stage = {
        "data": {"template": {"name": "zsg"}},
        "arrangement": {"order": order},
        "train": {"max_length": 64},
    }
    return {"base": {"kind": "tiny", "hidden": 64}, "stages": [stage] * count}


def made(folder: Path, name: str = "meta.json") -> Path:
    """A committed folder of 1000 bytes."""
    with publish_folder(folder) as draft:
        (draft / name).write_bytes(b"x" * 1000)
    return folder


def code_of(run: str) -> str:
    """The digest of the code that a run was submitted with."""
    return {"done": "1", "failed": "2", "gone": "3"}[run] * 16


FIRST = "f" * 12


class Place:
    """A workspace whose grid g lists a done and a failed run, each with things of its
    own; run `gone` is in no grid."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "work")
        (folder / "g.yaml").write_text("name: g\n")
        self.recipes = {
            "done": a_recipe("nft"),
            "failed": a_recipe("rt"),
            "gone": a_recipe("fft"),
        }
        rows = [
            ListedRun(run=run, axes={}, recipe=self.recipes[run])
            for run in ("done", "failed")
        ]
        record = GridRecord(name="g", runs=rows)
        recorded_grids.write_grid(self.workspace, folder / "g.yaml", record)
        self.first, self.second = self.submit(), self.submit()
        for run, recipe in self.recipes.items():
            folder = self.workspace.run(run)
            write_job_file(
                folder,
                recipe=recipe,
                checkpoints={"keep_state": False},
                code={"digest": code_of(run)},
                makes=[],
                submission=self.second.id,
            )
            facts = {
                "cause": None if run == "done" else "died",
                "snapshots": self.snapshots(run),
            }
            attempts.end_attempt(
                folder,
                attempts.begin_attempt(folder, self.second.id),
                "done" if run == "done" else "failed",
                **facts,
            )
            for step in (2, 4):
                made(folder / "snapshots" / str(step))
            with publish_folder(folder / "state/4") as draft:
                (draft / "state.json").write_bytes(b"x" * 1000)
            (folder / "state/4/COMMIT").unlink()
            made(self.workspace.code(code_of(run)), "abc.patch")
            arrangement = recipes.arrangement_id(recipe)
            made(self.workspace.arrangement(arrangement))
            made(self.workspace.tokens(tokens_id(recipe, arrangement)))
        made(self.workspace.base(recipes.base_id(a_recipe("nft")) or ""))
        made(self.workspace.first_losses(FIRST))

    def submit(self) -> Submission:
        """All runs, submitted on this machine."""
        ledger = Ledger(self.workspace)
        submission = ledger.intend(
            scheduler="local",
            kind="train",
            grid="g",
            items=[f"runs/{run}" for run in self.recipes],
        )
        ledger.submitted(submission, ["local"] * 3)
        folder = self.workspace.submission(submission.id)
        folder.mkdir(parents=True)
        (folder / "1_0_log.out").write_text("log")
        return submission

    @staticmethod
    def snapshots(run: str) -> list[dict]:
        """Of the done run's snapshots the first was not to be kept."""
        rows = [
            {"step": step, "probe_loss": "1.0", "kept": step == 4} for step in (2, 4)
        ]
        return rows if run == "done" else []

    def found(self, grid: str | None = None) -> dict[str, set[str]]:
        """What may be freed, by kind."""
        kinds: dict[str, set[str]] = {}
        for piece in garbage.find_garbage(self.workspace, grid):
            kinds.setdefault(piece.kind, set()).add(
                str(piece.path.relative_to(self.workspace.root))
            )
        return kinds


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The workspace."""
    return Place(tmp_path)


def of(place: Place, kind: str, run: str) -> str:
    """The folder of what a run needs."""
    arrangement = recipes.arrangement_id(place.recipes[run])
    return (
        f"tokens/{tokens_id(place.recipes[run], arrangement)}"
        if kind == "tokens"
        else f"{kind}/{arrangement}"
    )


def test_what_is_found(place):
    """States, extra snapshots and tokens of done runs; what only a run of no grid
    needs; a superseded submission."""
    assert place.found() == {
        "states": {"runs/done/state"},
        "snapshots": {"runs/done/snapshots/2"},
        "submissions": {f"submissions/{place.first.id}"},
        "tokens": {of(place, "tokens", "done"), of(place, "tokens", "gone")},
        "arrangements": {of(place, "arrangements", "gone")},
        "code": {f"code/{code_of('gone')}"},
    }


def test_of_a_grid_only_its_runs_are_asked_about(place):
    """What grids share is left alone when one is named; one that is not there is an error."""
    assert place.found("g").keys() == {"states", "snapshots", "submissions"}
    with pytest.raises(UserError, match="no grid 'h'"):
        place.found("h")


def test_what_is_freed_is_gone_and_the_rest_is_there(place):
    """Freed is what was shown, with its size; a second time there is nothing."""
    before = {path for path in place.workspace.root.rglob("*") if path.is_file()}
    shown = garbage.find_garbage(place.workspace)
    freed = garbage.free_garbage(place.workspace)

    assert freed == shown
    assert {piece.size for piece in freed if piece.kind != "submissions"} == {1000}
    lost = {path for path in before if not path.exists()}
    assert lost == {
        path
        for path in before
        if any(path.is_relative_to(piece.path) for piece in freed)
    }
    assert garbage.free_garbage(place.workspace) == []


BROKEN = [("job.json", "{"), ("attempt.json", ""), ("exit.json", '{"schema": 99}')]


@pytest.mark.parametrize(("name", "text"), BROKEN)
def test_a_run_that_cannot_be_read_loses_nothing(place, name, text, logged: list[str]):
    """Nor does what runs share go, which it may need; its file is named, and what only
    the others had goes all the same."""
    path = place.workspace.run("failed") / name
    path.write_text(text)
    freed = garbage.free_garbage(place.workspace)

    assert {
        piece.path.relative_to(place.workspace.root).parts[:2] for piece in freed
    } == {("runs", "done")}
    assert sum(str(path) in line for line in logged) == 1


def test_a_grid_is_told_only_of_its_own_runs_that_cannot_be_read(
    place, logged: list[str]
):
    """Those of other grids are no matter of its; nor is what runs share, which stays."""
    strange, own = place.workspace.run("gone"), place.workspace.run("failed")
    (strange / "attempt.json").write_text("")
    (own / "attempt.json").write_text("")
    garbage.find_garbage(place.workspace, "g")
    of_grid = list(logged)
    garbage.find_garbage(place.workspace)
    of_all = logged[len(of_grid) :]

    assert len(of_grid) == 1 and len(of_all) == 2
    assert of_grid[0].startswith(f"left: runs/failed, since {own}")
    assert of_all[0].startswith("left: runs/") and "what runs share" in of_all[0]


def test_a_grid_of_no_such_name_is_refused_before_slurm_is_asked(
    place, monkeypatch
) -> None:
    """Also while the controller is away."""
    monkeypatch.setattr(garbage, "collect_states", lambda *_: pytest.fail("asked"))
    with pytest.raises(UserError, match="no grid 'typo'"):
        garbage.find_garbage(place.workspace, "typo")


def test_snapshots_of_which_evaluators_say_nothing_readable_are_kept(
    place, monkeypatch, logged: list[str]
):
    """Whether they are still to be scored is not known; all else of the run goes."""

    def is_needed(folder, scored, step):
        raise Damaged(f"{folder}/journal/1-evaluate-0.jsonl: holds a row")

    monkeypatch.setattr(garbage.evaluations, "is_needed", is_needed)
    found = {piece.kind for piece in garbage.find_garbage(place.workspace)}

    assert "snapshots" not in found and "states" in found
    assert any("1-evaluate-0.jsonl" in line for line in logged)


def test_an_active_run_keeps_everything(place, monkeypatch):
    """A run that Slurm has in its queue, though no grid lists it, needs its code, its
    order and its tokens."""
    ledger = Ledger(place.workspace)
    again = ledger.intend(
        scheduler="slurm", kind="train", grid="g", items=["runs/gone"]
    )
    ledger.submitted(again, ["7"])
    queued = slurm.SlurmState("queued", "Priority")
    monkeypatch.setattr(
        slurm, "query_states", lambda jobs, *run, **how: dict.fromkeys(jobs, queued)
    )

    found = place.found()
    assert (found.keys(), found["tokens"]) == (
        {"states", "snapshots", "submissions", "tokens"},
        {of(place, "tokens", "done")},
    )


def test_a_superseded_job_that_still_runs_keeps_its_folder(place, monkeypatch):
    """A job that was submitted again while accounting knew nothing of it may live: its
    submission stays."""
    ledger = Ledger(place.workspace)
    old = ledger.intend(
        scheduler="slurm", kind="train", grid="g", items=["runs/failed"]
    )
    ledger.submitted(old, ["7"])
    place.workspace.submission(old.id).mkdir()
    place.submit()
    [job] = old.jobs
    alive = {job: slurm.SlurmState("running")}
    monkeypatch.setattr(slurm, "query_states", lambda jobs, *run, **how: {})
    monkeypatch.setattr(
        slurm,
        "query_queue",
        lambda jobs, *run, **how: slurm.JobQueue(active=dict(alive)),
    )

    assert f"submissions/{old.id}" not in place.found()["submissions"]
    alive.clear()
    assert f"submissions/{old.id}" in place.found()["submissions"]


@pytest.mark.parametrize(
    ("user", "freed"),
    [(None, True), ("gone", True), ("failed", False), ("done", True)],
    ids=["nobody", "one of no grid", "one that is wanted", "one that is done"],
)
def test_weights_of_a_stage(place, user, freed):
    """They stay for a run that is wanted and has yet to start from them; marks of
    others do not keep them."""
    made(place.workspace.run("done") / "weights")
    for run in place.recipes:
        job = json.loads((place.workspace.run(run) / "job.json").read_text())
        job["recipe"]["stages"][-1]["train"]["tuning"] = {"method": "full"}
        write_json(place.workspace.run(run) / "job.json", job)
    if user:
        stages.note_weights_user(place.workspace, "done", user)

    assert ("weights" in place.found()) == freed
    garbage.free_garbage(place.workspace)
    assert (place.workspace.run("done") / "weights").exists() != freed
    assert bool(stages.list_weights_users(place.workspace, "done")) != freed


def test_a_leased_snapshot_stays(place):
    """Somebody evaluates it."""
    lease = place.workspace.run("done") / "queue/2.rougeL.lease"
    lease.parent.mkdir()
    lease.touch()

    assert "snapshots" not in place.found()


def test_first_losses_go_when_every_run_is_done(place):
    """Their names do not tell whose they are, so they stay while any run is to be trained."""
    assert "first losses" not in place.found()
    folder = place.workspace.run("failed")
    attempts.end_attempt(
        folder, attempts.begin_attempt(folder, place.second.id), "done"
    )

    assert place.found()["first losses"] == {f"first_losses/{FIRST}"}


def test_proofs_of_models_of_no_grid_go_when_they_are_a_day_old(place: Place) -> None:
    """A model may be proven before it is in a grid; a proof that is being made and what
    has another name stay, and so do all while a grid does not tell its models."""
    workspace, old = place.workspace, time.time() - garbage.DRAFT_AGE_S - 60
    digests = {"needed": "a" * 12, "old": "b" * 12, "new": "c" * 12}
    workspace.model_proofs.mkdir()
    for name, digest in digests.items():
        path = workspace.model_proofs / f"{digest}.torch-2.13.0.json"
        path.write_text("{}")
        if name != "new":
            os.utime(path, (old, old))
    mine = workspace.model_proofs / "notes.json"
    mine.write_text("{}")
    os.utime(mine, (old, old))
    assert "model proofs" not in place.found()
    record = recorded_grids.read_grid(workspace, "g")
    told = structs.replace(record, proofs=[digests["needed"]])
    write_grid_record(workspace, told)

    old_proof = f"model-proofs/{digests['old']}.torch-2.13.0.json"
    assert place.found()["model proofs"] == {old_proof}
    garbage.free_garbage(workspace)
    assert not (workspace.root / old_proof).exists()
    assert len(list(workspace.model_proofs.iterdir())) == 3


def test_trials_of_chat_templates_go_that_no_grid_needs(place: Place) -> None:
    """As arrangements do."""
    for run in ("done", "gone"):
        stage = recipes.last_stage(place.recipes[run])
        stage["data"]["template"] = {"name": "chat", "digest": run}
        made(
            place.workspace.chat_trial(recipes.chat_trial_id(place.recipes[run]) or "")
        )
    rows = [ListedRun(run="done", axes={}, recipe=place.recipes["done"])]
    write_grid_record(place.workspace, GridRecord(name="g", runs=rows))

    trial = recipes.chat_trial_id(place.recipes["gone"])
    assert place.found()["chat trials"] == {f"chat-trials/{trial}"}


@pytest.mark.parametrize("name", [".0123456789ab.0123abcd", ".0123456789ab.gone"])
def test_drafts_of_dead_processes(place, name):
    """What has a temporary name and was not touched for a day; never a lock, nor what
    was written today."""
    draft = place.workspace.root / "tokens" / name
    draft.mkdir()
    (draft / "ids").touch()
    lock = place.workspace.root / "tokens/.0123456789ab.lock"
    lock.touch()
    assert "drafts" not in place.found()
    for path in (draft / "ids", draft, lock):
        os.utime(path, (time.time() - 2 * 86400,) * 2)

    assert place.found()["drafts"] == {f"tokens/{name}"}


def test_vectors_of_killed_jobs_go_when_nobody_may_carry_them_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while an open run needs vectors, while a job may make something, or today."""
    draft = place.workspace.root / "embeddings/.0123456789ab.draft"
    draft.mkdir(parents=True)
    for name in ("vectors.npy", "left.npy", "done"):
        (draft / name).touch()
    assert garbage.VECTORS not in place.found()
    for path in (*draft.iterdir(), draft):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    done = ListedRun(run="done", axes={}, recipe=place.recipes["done"])
    failed = ListedRun(run="failed", axes={}, recipe=place.recipes["failed"])
    order = recipes.last_stage(failed.recipe)["arrangement"]
    order["embedding"] = "the digest of a model"
    write_grid_record(place.workspace, GridRecord(name="g", runs=[done, failed]))
    assert garbage.VECTORS not in place.found()
    order.pop("embedding")
    write_grid_record(place.workspace, GridRecord(name="g", runs=[done, failed]))
    assert place.found()[garbage.VECTORS] == {"embeddings/.0123456789ab.draft"}
    note = garbage._note_active_jobs

    def note_one_at_work(scene: garbage.Scene) -> None:
        note(scene)
        scene.may_make.add("arrangements/0123456789ab")

    monkeypatch.setattr(garbage, "_note_active_jobs", note_one_at_work)
    assert garbage.VECTORS not in place.found()


def test_an_order_goes_with_the_list_of_its_target_set(place: Place) -> None:
    """What lies in its folder is zsg's own."""
    order = recipes.arrangement_id(place.recipes["gone"])
    (place.workspace.arrangement(order) / "target").write_text("near:1\n")

    freed = {piece.path.name for piece in garbage.free_garbage(place.workspace)}

    assert order in freed


def test_gc_killed_half_way_is_run_again(place, monkeypatch):
    """What was renamed and not removed has no name any more; the next call frees the rest."""
    real, calls = shutil.rmtree, []

    def dies(*what: Any, **how: Any) -> None:
        calls.append(what)
        # each is asked for its old remains first, so this is the third that goes
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(*what, **how)

    monkeypatch.setattr(shutil, "rmtree", dies)
    with pytest.raises(KeyboardInterrupt):
        garbage.free_garbage(place.workspace)
    monkeypatch.setattr(shutil, "rmtree", real)
    garbage.free_garbage(place.workspace)
    assert place.found() == {}


def test_a_grid_goes_on_after_gc(zsg: Zsg, tasks: Path, forked: Path) -> None:
    """Shown by default, freed with --yes; afterwards what is done is done, and what
    failed can be tried again."""
    grid = small_grid(zsg, tasks, "[random]")
    submit_forked(zsg, forked, grid)
    shown = zsg("gc")
    assert "could be freed; zsg gc --yes frees it" in shown
    assert all(row["path"] in shown for row in json.loads(zsg("gc", "--json")))
    kinds = {row["kind"] for row in json.loads(zsg("gc", "--json"))}
    assert kinds == {"tokens", "first losses"}
    assert zsg("gc", "--yes").splitlines()[-1].startswith("freed ")
    assert json.loads(zsg("gc", "--json")) == []
    assert "nothing to submit" in zsg("submit", grid)
    [run] = (zsg.work / "runs").iterdir()
    done = subprocess.run(
        ["find", zsg.work / "arrangements", "-name", "ids"],
        capture_output=True,
        text=True,
    )
    assert done.stdout and (run / "exit.json").exists()


def test_what_could_not_be_removed_is_not_called_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is still there says so and frees nothing; a file that another name
    keeps frees nothing either."""
    place = Place(tmp_path)
    os.link(place.workspace.run("done") / "state/4/state.json", tmp_path / "kept")
    found = {piece.path: piece.size for piece in garbage.find_garbage(place.workspace)}
    assert found[place.workspace.run("done") / "state"] < 1000
    stuck = place.workspace.run("done") / "snapshots/2"
    assert found[stuck] >= 1000
    remove = garbage.removal.discard_folder
    monkeypatch.setattr(
        garbage.removal,
        "discard_folder",
        lambda root, path, *more: "" if path == stuck else remove(root, path, *more),
    )
    freed = {piece.path: piece for piece in garbage.free_garbage(place.workspace)}

    assert freed[stuck].size == 0
    assert "could not be removed" in freed[stuck].reason
    assert all(
        size == freed[path].size for path, size in found.items() if path != stuck
    )


OLD = (time.time() - 3 * 86400, time.time() - 3 * 86400)


def old(path: Path) -> Path:
    """A file that nobody has touched for days."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    os.utime(path, OLD)
    os.utime(path.parent, OLD)
    return path


OTHERS = [
    ".env.20240131",
    ".digests.json.20240131",
    ".ssh.deadbeef/id_rsa",
    "data/.labels.deadbeef",
    "grids/.wandb.deadbeef",
    "grids/g/.notes.deadbeef",
    "runs/.history.gone",
    "runs/done/.env.deadbeef",
    "runs/0123456789ab/.env.deadbeef",
    "runs/mine/.job.json.deadbeef",
    "tokens/.mine.deadbeef",
    "tokens/mine/COMMIT",
    "code/0123456789ab/COMMIT",
    "runs/done/state/.git.deadbeef",
    "runs/done/snapshots/.git.deadbeef",
    "runs/done/snapshots/2.old/COMMIT",
    "submissions/.notes.deadbeef",
]


def test_what_has_no_name_that_zsg_gives_is_nobodys_garbage(place: Place) -> None:
    """A workspace may be a home: a hidden name that ends in eight digits says nothing
    of who made it."""
    paths = [old(place.workspace.root / name) for name in OTHERS]
    garbage.free_garbage(place.workspace)

    assert [path for path in paths if not path.exists()] == []


DRAFTS = [
    ".digests.json.0123abcd",
    "grids/g/.grid.json.0123abcd",
    "runs/0123456789ab/.exit.json.0123abcd",
    "runs/0123456789ab/.heartbeat.json." + "0a" * 16,
    "runs/0123456789ab/state/.4." + "0a" * 16 + "/ranks",
    "runs/0123456789ab/queue/.4.rougeL.lease.0123abcd",
    "code/.0123456789abcdef.0123abcd/COMMIT",
    "records/.0123456789ab.gone/meta.json",
    "looks/0123456789ab/.decision.json.0123abcd",
    "canary/0123456789ab/.exit.json.0123abcd",
]


def test_a_draft_of_what_zsg_writes_goes(place: Place) -> None:
    """Beside the name that it was to get, in a folder that zsg makes, also where an
    older zsg has left it."""
    paths = [old(place.workspace.root / name) for name in DRAFTS]
    for path in paths:
        for folder in path.relative_to(place.workspace.root).parents:
            os.utime(place.workspace.root / folder, OLD)
    freed = [
        piece.path
        for piece in garbage.free_garbage(place.workspace)
        if piece.kind == "drafts"
    ]

    assert [path for path in paths if path.exists()] == []
    assert len(freed) == len(DRAFTS)


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        ("runs/done/state", "4/state.json"),
        ("runs/done/snapshots", "2/COMMIT"),
        ("runs/done/snapshots/2", "COMMIT"),
        ("runs/done/weights", "COMMIT"),
        ("runs/done", "state/4/state.json"),
        ("runs", "done/state/4/state.json"),
        ("tokens", "0123456789ab/COMMIT"),
        ("tokens/0123456789ab", "COMMIT"),
        ("submissions", "{first}/1_0_log.out"),
        ("grids/g/.grid.json.0123abcd", "x"),
        ("tokens/.0123456789ab.0123abcd", "x"),
        ("mine", ".0123456789ab.0123abcd"),
    ],
)
def test_nothing_behind_a_link_is_removed(
    place: Place, tmp_path: Path, name: str, behind: str, logged: list[str]
) -> None:
    """Where a folder of the workspace is a link, gc leaves it and what is behind it,
    and says so of what it would free.

    All there is at that place lies outside now, so that a gc that follows would find it.
    """
    at, outside = place.workspace.root / name, tmp_path / "outside"
    if at.exists():
        shutil.copytree(at, outside)
        shutil.rmtree(at)
    kept = outside / behind.format(first=place.first.id)
    old(kept) if not kept.exists() else None
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(outside)
    garbage.free_garbage(place.workspace)

    assert kept.exists() and at.is_symlink()
    hidden = at.name.startswith(".") or name == "mine"
    assert hidden or any(str(at) in line and "is a link" in line for line in logged), (
        logged
    )


def test_a_link_planted_between_look_and_removal_is_not_followed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of snapshots becomes a link to another's after gc has found what to free."""
    snapshots = place.workspace.run("done") / "snapshots"
    real = garbage.find_garbage

    def plant(*given: Any, **named: Any) -> list[garbage.Piece]:
        found = real(*given, **named)
        snapshots.rename(tmp_path / "outside")
        snapshots.symlink_to(tmp_path / "outside")
        return found

    monkeypatch.setattr(garbage, "find_garbage", plant)
    freed = {piece.path: piece for piece in garbage.free_garbage(place.workspace)}

    assert (tmp_path / "outside/2/COMMIT").exists()
    assert (
        "is a link" in freed[snapshots / "2"].reason
        and freed[snapshots / "2"].size == 0
    )


def test_a_folder_with_a_file_of_the_users_stays(
    place: Place, logged: list[str]
) -> None:
    """What she laid into a snapshot is not removed with it: it is named, and the
    snapshot is still whole."""
    mine = place.workspace.run("done") / "snapshots/2/my_eval.json"
    mine.write_text("mine")
    freed = garbage.free_garbage(place.workspace)

    assert logged == [
        f"left: {mine.parent} holds my_eval.json, which zsg did not write; move it elsewhere"
    ]
    assert mine.exists() and (mine.parent / "COMMIT").exists()
    assert "snapshots" not in {piece.kind for piece in freed}


def test_every_path_is_told_before_it_goes(place: Place) -> None:
    """`before` sees each piece while it is still there."""
    seen: list[Path] = []

    def look(piece: garbage.Piece) -> None:
        assert piece.path.exists()
        seen.append(piece.path)

    freed = garbage.free_garbage(place.workspace, before=look)
    assert seen == [piece.path for piece in freed] and len(seen) == 7


def test_a_folder_stays_where_it_cannot_be_told_whether_it_is_wanted(
    tmp_path: Path,
) -> None:
    """Under its own name, whatever the error: under the hidden one the next removal
    would take it."""
    snapshot = tmp_path / "runs/r/snapshots/3"
    snapshot.mkdir(parents=True)
    (snapshot / "meta.json").write_text("{}")

    def refuse() -> bool:
        raise Damaged("a journal with a hole")

    with pytest.raises(Damaged, match="hole"):
        garbage.removal.discard_folder(tmp_path, snapshot, None, refuse)
    assert [snapshot] == list(snapshot.parent.iterdir())
    assert garbage.removal.discard_folder(tmp_path, snapshot, None) == ""


# What the grids that list a run want to keep of it now


def list_run(place: Place, grid: str, *keeping: Keeping, former: bool = False) -> None:
    """Records a grid that lists, or once listed, the run that is done."""
    (place.workspace.root / "g.yaml").write_text(f"name: {grid}\n")
    row = ListedRun(
        run="done", axes={}, recipe=place.recipes["done"], keeping=list(keeping)
    )
    other = ListedRun(run="failed", axes={}, recipe=place.recipes["failed"])
    runs = [other] if former else [row, other]
    record = GridRecord(name=grid, runs=runs, former=[row] if former else [])
    place.workspace.grid(grid).mkdir(parents=True, exist_ok=True)
    write_grid_record(place.workspace, record)


LAST = Keeping(snapshots=2, keep={"last": 1})
FIRST_ONLY = Keeping(snapshots=2, keep={"first": 1})
ALL = Keeping(snapshots=2)
TWO, FOUR = "runs/done/snapshots/2", "runs/done/snapshots/4"


@pytest.fixture
def both_kept(place: Place) -> Place:
    """The workspace, of whose done run both snapshots were kept at training."""
    folder = place.workspace.run("done")
    rows = [{"step": step, "probe_loss": f"{step}", "kept": True} for step in (2, 4)]
    attempt = attempts.begin_attempt(folder, place.second.id)
    attempts.end_attempt(folder, attempt, Outcome.DONE, snapshots=rows, steps=4)
    return place


def test_what_a_grid_keeps_now_counts(both_kept: Place) -> None:
    """Not what it kept when the run was trained, where a later submit says otherwise."""
    list_run(both_kept, "g", ALL)
    assert "snapshots" not in both_kept.found()
    list_run(both_kept, "g", LAST)
    assert both_kept.found()["snapshots"] == {TWO}
    assert both_kept.found("g")["snapshots"] == {TWO}


def test_a_grid_that_keeps_more_now_loses_nothing(place: Place) -> None:
    """A snapshot that the run's own rule was to take, and that is still there, stays."""
    assert place.found()["snapshots"] == {TWO}
    list_run(place, "g", ALL)
    assert "snapshots" not in place.found()


@pytest.mark.parametrize(
    ("others", "freed"),
    [
        ([LAST], {TWO}),
        ([FIRST_ONLY], set()),
        ([ALL], set()),
        ([], set()),
    ],
    ids=["the same", "another rule", "all", "an older zsg"],
)
def test_what_any_grid_keeps_stays(
    both_kept: Place, others: list[Keeping], freed: set[str]
) -> None:
    """Of a run that several list; what an older zsg has recorded keeps what was kept at
    training."""
    list_run(both_kept, "g", LAST)
    list_run(both_kept, "h", *others)
    assert both_kept.found().get("snapshots", set()) == freed


def test_a_grid_that_lists_a_run_no_longer_says_nothing_of_it(both_kept: Place) -> None:
    """While another grid lists it; where none does, the last word counts."""
    list_run(both_kept, "h", ALL, former=True)
    list_run(both_kept, "g", LAST)
    assert both_kept.found()["snapshots"] == {TWO}
    list_run(both_kept, "g", LAST, former=True)
    assert "snapshots" not in both_kept.found()


def test_two_points_of_a_grid_that_are_one_run_keep_what_either_keeps(
    both_kept: Place,
) -> None:
    """Their stages, too: each thing that is wanted of a run stands in the record."""
    list_run(both_kept, "g", LAST, FIRST_ONLY)
    assert "snapshots" not in both_kept.found()


def test_a_damaged_snapshot_takes_the_place_of_none_that_is_whole(
    both_kept: Place,
) -> None:
    """The last that loads stays, and the last that there is."""
    damaged = both_kept.workspace.root / FOUR
    (damaged / "meta.json").unlink()
    list_run(both_kept, "g", LAST)
    assert "snapshots" not in both_kept.found()


@pytest.mark.parametrize("is_link", [False, True], ids=["by its path", "by a link"])
def test_a_snapshot_that_a_run_starts_from_stays_and_is_told(
    both_kept: Place, logged: list[str], is_link: bool
) -> None:
    """Whichever way the path of a model leads to it."""
    list_run(both_kept, "g", LAST)
    model = both_kept.workspace.root / TWO
    link = both_kept.workspace.root.parent / "model"
    link.symlink_to(model)
    job_file = both_kept.workspace.run("failed") / "job.json"
    job = json.loads(job_file.read_text())
    job["paths"]["base"] = str(link if is_link else model)
    write_json(job_file, job)

    assert "snapshots" not in both_kept.found()
    assert any(
        "runs/failed uses its weights" in line and TWO in line for line in logged
    )


def test_a_snapshot_of_which_a_grid_now_wants_a_metric_stays_and_is_told(
    both_kept: Place, logged: list[str]
) -> None:
    """Though the run was trained before anybody asked for it."""
    wanted = Keeping(snapshots=2, keep={"last": 1}, scored=["rougeL"])
    list_run(both_kept, "g", wanted)
    assert "snapshots" not in both_kept.found()
    assert any("evaluators are still to read it" in line for line in logged)


def test_a_state_that_a_grid_keeps_no_longer_goes(both_kept: Place) -> None:
    """And one that it now keeps stays."""
    list_run(both_kept, "g", Keeping(keep_state=True))
    assert "states" not in both_kept.found()
    list_run(both_kept, "g", Keeping())
    assert both_kept.found()["states"] == {"runs/done/state"}
