"""Is a workspace that an older zsg (e79a027) made used where it is right, and never
where it was wrong?"""

import json

import pytest

from tests.lib import older_workspace
from tests.lib.command_line import Zsg

# the ids at e79a027
UNCHANGED, WARM_UP, SHARDS = "143339638565", "e39fb13a7f26", "de967d090829"
METRIC = "exact_match"


@pytest.fixture
def older(zsg: Zsg) -> Zsg:
    """The command line in a folder with such a workspace, in which all runs are done."""
    older_workspace.lay_out(zsg.folder)
    return zsg


def planned(zsg: Zsg, grid: str) -> dict[str, str]:
    """What is done of each run that the grid lists."""
    rows = json.loads(zsg("plan", grid, "--json"))
    return {row["run"]: row["action"] for row in rows if row["action"] != "unwanted"}


def test_what_was_right_is_done_and_what_was_wrong_is_new(older: Zsg) -> None:
    """Of three runs that are done one stays so; another warm-up and shards that are no
    tasks have new ids, told."""
    first, second, third = planned(older, "before.yaml").items()

    assert first == (UNCHANGED, "skip")
    assert {second[1], third[1]} == {"submit"}
    assert {second[0], third[0]}.isdisjoint({UNCHANGED, WARM_UP, SHARDS})
    assert (
        f"run {second[0]} is new: an older zsg made it as {WARM_UP}, and the rates of its warm-up"
        in older.said
    )
    assert (
        f"run {third[0]} is new: an older zsg made it as {SHARDS}, and how its data are read"
        in older.said
    )


def test_answers_of_another_way_are_taken_anew_beside_the_old(older: Zsg) -> None:
    """A run that was scored in the way of then is scored again under a name of its own;
    nothing is trained."""
    assert planned(older, "scored.yaml") == {UNCHANGED: "evaluate"}
    assert f"{METRIC}/v2" in older.said


@pytest.mark.soak(part="users")
def test_submitted_again_only_what_was_wrong_is_trained(older: Zsg) -> None:
    """Of the old runs nothing changes; the new ones are trained from data made anew,
    and then all is done."""
    kept = {path: path.read_bytes() for path in older.work.glob("runs/*/journal/*")}
    older("submit", "before.yaml", "--yes")

    assert {path: path.read_bytes() for path in kept} == kept
    assert set(planned(older, "before.yaml").values()) == {"skip"}
    ids = {
        line
        for path in older.work.glob("arrangements/*/ids")
        for line in path.read_text().split()
    }
    assert (
        len({one for one in ids if one.startswith("sst_say:")}) == 2
    )  # the two that a task gives, not two of each shard
    assert not any("-of-00002" in one for one in ids)
