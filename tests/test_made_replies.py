"""Do the replies of makers' models, and what killed jobs left of answers, go when nobody
needs them, and never before?"""

from pathlib import Path
from typing import Any

import pytest

from jobs.contract.asking import name_asking
from launcher.clusters import slurm
from launcher.lifecycle import forget as forgets
from launcher.lifecycle import garbage
from launcher.workspace.ledger import Ledger
from tests.lib import shared_grids
from tests.lib.job_records import write_job_file
from tests.lib.shared_grids import Shared
from zsg_core import recipe as recipes
from zsg_core.makers.registry import MAKERS

STRAY = "f" * 12
NAMES = ("stage", "own", "both", "other")


def make_source(name: str, maker: str = "rft") -> dict[str, Any]:
    """A source of somebody's problems, whose examples a model made."""
    settings = {"samples": 4, "gold": True, "read": "last"}
    make = {"maker": maker, "model": "b", "settings": settings}
    return {"reader": "gsm8k", "digest": name, "make": make}


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    """Two grids that share runs; the data of each are made by a model. Their replies are
    there, and replies of no grid."""
    write = shared_grids.make_recipe

    def write_made(*orders: str) -> dict[str, Any]:
        recipe = write(*orders)
        for stage, order in zip(recipe["stages"], orders, strict=True):
            stage["data"]["sources"] = {"math": make_source(order)}
        return recipe

    monkeypatch.setattr(shared_grids, "make_recipe", write_made)
    place = Shared(tmp_path)
    for asking in [*(name_replies(place, name) for name in NAMES), STRAY]:
        add_replies(place, asking)
    return place


def name_replies(place: Shared, run: str) -> str:
    """The id of the replies that a run's last stage is made of."""
    data = place.recipes[run]["stages"][-1]["data"]
    source = data["sources"]["math"]
    return name_asking(source, MAKERS[source["make"]["maker"]])


def add_replies(place: Shared, asking: str) -> None:
    """What a model said, and in which batches."""
    folder = place.workspace.replies(asking)
    folder.mkdir(parents=True)
    (folder / "replies.jsonl").write_bytes(b"x" * 1000)
    (folder / "batches.json").write_text("{}")


def find_replies(place: Shared) -> set[str]:
    """The replies that gc would free, by their ids."""
    pieces = garbage.find_garbage(place.workspace)
    return {piece.path.name for piece in pieces if piece.kind == garbage.REPLIES}


def list_replies(place: Shared) -> set[str]:
    """The replies that are there."""
    return {path.name for path in (place.workspace.root / "replies").iterdir()}


def test_replies_go_that_no_recorded_grid_has_a_set_made_of(shared: Shared) -> None:
    """Of every stage; looking removes nothing."""
    needed = {name_replies(shared, name) for name in NAMES}

    assert find_replies(shared) == {STRAY}
    assert list_replies(shared) == {*needed, STRAY}
    garbage.free_garbage(shared.workspace)
    assert list_replies(shared) == needed


def test_sets_that_differ_in_what_is_kept_need_the_same_replies(shared: Shared) -> None:
    """The grid reads the last number; the replies were asked for with another reading."""
    source = make_source("nft")
    source["make"]["settings"]["read"] = "marked"

    assert name_asking(source, MAKERS["rft"]) == name_replies(shared, "own")


@pytest.mark.parametrize("state", ["queued", "running", "unknown"])
def test_replies_of_a_job_that_may_run_stay(
    state: Any, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its grid lists no such set any more."""
    corpus = {"recipe": {"sources": {"math": make_source("of a job")}}}
    asking = name_asking(make_source("of a job"), MAKERS["rft"])
    add_replies(shared, asking)
    write_job_file(shared.workspace.root / "prepare/abc", "sample", corpus=corpus)
    ledger = Ledger(shared.workspace)
    submission = ledger.intend(
        scheduler="slurm", kind="prepare", grid="one", items=["prepare/abc"]
    )
    ledger.submitted(submission, ["7"])
    told = slurm.SlurmState(state)
    monkeypatch.setattr(
        slurm, "query_states", lambda jobs, *run, **how: dict.fromkeys(jobs, told)
    )

    assert find_replies(shared) == {STRAY}


def test_all_replies_stay_where_a_maker_is_not_known(
    shared: Shared, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell what its set was made of."""
    known = {name: maker for name, maker in MAKERS.items() if name != "rft"}
    monkeypatch.setattr("jobs.contract.asking.MAKERS", known)

    assert find_replies(shared) == set()
    assert any("a maker that this zsg does not have" in line for line in logged)
    chosen, _ = forgets.forget(shared.workspace, ["one", "two"])
    assert not [path for path in chosen.record.things if "replies" in path]


def test_a_users_file_among_replies_keeps_them(
    shared: Shared, logged: list[str]
) -> None:
    """And is told."""
    (shared.workspace.replies(STRAY) / "notes.txt").write_text("mine")

    assert find_replies(shared) == set()
    assert any("notes.txt" in line for line in logged)


def test_a_forget_takes_the_replies_that_only_it_needs(shared: Shared) -> None:
    """Those of the other grid stay; the last grid takes all that grids needed."""
    own = name_replies(shared, "own")
    shown = forgets.plan_forgetting(shared.workspace, ["one"])
    before = list_replies(shared)
    forgets.forget(shared.workspace, ["one"], agreed=shown)

    assert f"replies/{own}" in shown.record.things
    assert before - list_replies(shared) == {own}
    forgets.forget(shared.workspace, ["two"])
    assert list_replies(shared) == {STRAY}


def test_replies_that_are_needed_again_survive_a_forget_that_was_killed(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had written down that they go; a grid with that set was submitted since."""

    def die(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forgets, "_remove_grid", die)
        with pytest.raises(KeyboardInterrupt):
            forgets.forget(shared.workspace, ["one"])
    shared.record_grid(tmp_path, "three", "own")
    forgets.forget(shared.workspace, [])

    assert name_replies(shared, "own") in list_replies(shared)


def add_draft(place: Shared, records: str) -> Path:
    """What a killed job left of a model's own answers."""
    draft = place.workspace.root / f"records/.{records}.draft"
    draft.mkdir(parents=True)
    (draft / "answers.jsonl").write_bytes(b"x" * 1000)
    return draft


def name_records(place: Shared, run: str) -> str:
    """The id of the set that a run's last stage has made."""
    data = place.recipes[run]["stages"][-1]["data"]
    return recipes.find_self_sampled(data)["math"]


def test_answers_under_way_go_that_no_grid_needs(shared: Shared) -> None:
    """Those of a set that a grid lists are carried on, and stay."""
    stray = add_draft(shared, STRAY)
    wanted = add_draft(shared, name_records(shared, "own"))
    garbage.free_garbage(shared.workspace)

    assert (stray.exists(), wanted.exists()) == (False, True)


def test_a_forget_takes_answers_under_way(shared: Shared) -> None:
    """Also of a set of which there is nothing else."""
    own = add_draft(shared, name_records(shared, "own"))
    other = add_draft(shared, name_records(shared, "other"))
    forgets.forget(shared.workspace, ["one"])

    assert (own.exists(), other.exists()) == (False, True)
