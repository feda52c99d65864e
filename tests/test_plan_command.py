"""Does `zsg plan` say what the grid language makes of a file: which points are runs, and which are one run?"""

import json
from typing import Any

import pytest
from builders import write_niv2
from conftest import Zsg

HEAD = "name: g\ndefaults:\n  data: {path: data, sampling: first}\n  train: {batch: 4, init_seed: 0}\n"


@pytest.fixture
def planned(zsg: Zsg):
    """Plans a grid that follows name, data and a fixed seed of the weights: the rows, and what was said."""
    write_niv2(zsg.folder / "data")

    def plan(text: str, *options: str) -> tuple[list[dict[str, Any]], str]:
        rows = json.loads(zsg("plan", zsg.write("grid.yaml", HEAD + text), "--json", *options))
        return rows, zsg.said

    return plan


def test_only_seeds_that_take_effect_make_runs(planned) -> None:
    """Of three seeds the order by task, of the first examples and fixed weights, sees none; a random order sees all."""
    rows, said = planned("grid: {arrangement.order: [cluster, random], seed: [0, 1, 2]}\n")

    assert [(row["axes"]["arrangement.order"], row["axes"]["seed"]) for row in rows] == [
        ("cluster", 0), ("random", 0), ("random", 1), ("random", 2),
    ]  # fmt: skip
    assert f"note: 3 points are one run, {rows[0]['run']}: they differ only in settings that change nothing" in said
    assert "(seed); the first of them stands for all" in said


def test_points_of_several_blocks_that_are_equal_are_one_run(planned) -> None:
    """A run that two blocks ask for, in other words too, is planned once, and the plan says so."""
    rows, said = planned("grid:\n- {data.fraction: [1/4, 1/2]}\n- {data: {fraction: 0.25}}\n")

    assert [row["axes"] for row in rows] == [{"data.fraction": "1/4"}, {"data.fraction": "1/2"}]
    assert "note: 2 points are one run" in said


def test_set_makes_the_run_that_the_file_would_make(planned) -> None:
    """A setting has the same run id from `--set` as from the file."""
    [given], _ = planned("", "--set", "train.lr=1e-3", "--set", "data.fraction=1/4")
    [written], _ = planned("  train.lr: 1e-3\n  data.fraction: 0.25\n")
    [other], _ = planned("")

    assert given["run"] == written["run"] != other["run"]


def test_an_exclude_without_effect_is_said(planned) -> None:
    """A rule that leaves nothing out is probably a mistake: plan goes on and names its line."""
    rows, said = planned("grid: {seed: [0, 1], arrangement.order: [random]}\nexclude:\n- {seed: 7}\n")

    assert len(rows) == 2
    assert "grid.yaml:7: this `exclude` matches no point of the grid" in said


def test_only_and_except_say_which_runs_are_meant(planned) -> None:
    """Options add up; runs that they do not name are skipped as such, and the same axes are shown."""
    grid = "grid: {arrangement.order: [cluster, random], data.fraction: [1/4, 1/2]}\n"
    rows, _ = planned(grid, "--only", "order=random", "--only", "data.fraction=0.25", "--except", "state=done")

    assert [(row["action"], row["reason"]) for row in rows] == [
        ("submit", "new"), ("skip", "not selected"), ("submit", "new"), ("submit", "new"),
    ]  # fmt: skip


def test_a_long_plan_is_whole(zsg: Zsg) -> None:
    """A table of hundreds of runs has a line for each, its columns in line, and nothing is cut."""
    write_niv2(zsg.folder / "data")
    seeds = ", ".join(map(str, range(300)))
    printed = zsg("plan", zsg.write("grid.yaml", HEAD + "grid:\n  train.lr: [1e-3]\n  train.init_seed: ["
                  + seeds + "]\n")).splitlines()  # fmt: skip
    rows = [line.split() for line in printed if line.endswith(" submit new") or " submit " in line][:300]

    assert printed[0].split() == ["run", "init_seed", "action", "why"]
    assert [row[1] for row in rows] == [str(seed) for seed in range(300)]
    assert len({line.index("submit") for line in printed[1:301]}) == 1
