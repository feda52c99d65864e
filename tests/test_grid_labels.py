"""Does a label name the points of a block wherever they are shown, and change nothing?"""

from pathlib import Path

import pytest

from jobs.contract.grid_record import LABEL, ListedRun
from jobs.tracking import mlflow_metadata
from launcher.clusters import profiles
from launcher.grids import grid as grids
from launcher.grids import inputs
from launcher.grids import runs as runs_of
from launcher.grids.grid import Grid
from launcher.grids.hub import Downloads
from launcher.grids.runs import Run
from launcher.reporting.data import run_groups
from launcher.workspace.workspaces import Workspace
from zsg_core.errors import UserError

DEFAULTS = "name: demo\ndefaults:\n  data: {path: /d}\n"
LABELLED = (
    "grid:\n"
    "- {arrangement.order: [random, cluster], seed: [0, 1]}\n"
    "- {arrangement.order: nft, train.lr: 1e-3, seed: [0, 1], label: near}\n"
)


def load_text(folder: Path, text: str) -> Grid:
    """A grid file with these blocks."""
    path = folder / "grid.yaml"
    path.write_text(DEFAULTS + text)
    return grids.load_grid(path)


def test_a_label_stands_in_place_of_what_all_points_of_its_block_share(
    tmp_path: Path,
) -> None:
    """What varies in the block stays beside it; other blocks are as they were."""
    points = load_text(tmp_path, LABELLED).points

    assert [point.axes for point in points[:2]] == [
        {"arrangement.order": "random", "seed": 0},
        {"arrangement.order": "random", "seed": 1},
    ]
    assert [point.axes for point in points[4:]] == [
        {"label": "near", "seed": 0},
        {"label": "near", "seed": 1},
    ]


def test_settings_do_not_change_by_a_label(tmp_path: Path) -> None:
    """So neither do run ids."""
    labelled = load_text(tmp_path, LABELLED).points
    plain = load_text(tmp_path, LABELLED.replace(", label: near", "")).points

    assert [point.settings for point in labelled] == [point.settings for point in plain]


def test_lists_that_are_walked_together_vary(tmp_path: Path) -> None:
    """A label names the block, not each step of a zip."""
    zipped = "grid: {zip: {seed: [0, 1], train.lr: [1e-3, 2e-3]}, label: both}"
    points = load_text(tmp_path, zipped).points

    assert [point.axes for point in points] == [
        {"label": "both", "seed": 0, "train.lr": 1e-3},
        {"label": "both", "seed": 1, "train.lr": 2e-3},
    ]


@pytest.mark.parametrize("label", ["[a, b]", "3", "''", "' a'", '"a\\tb"', "x" * 41])
def test_what_can_be_no_label_is_refused_with_its_line(
    tmp_path: Path, label: str
) -> None:
    """Terminals, tables and MLflow show it as it is."""
    with pytest.raises(UserError, match=r"grid\.yaml:4: .*1 to 40 printable") as error:
        load_text(tmp_path, f"grid: {{seed: [0, 1], label: {label}}}")
    assert "\t" not in str(error.value)


def test_one_label_for_two_points_is_refused_with_both_lines(tmp_path: Path) -> None:
    """They would be taken for replicates of one point."""
    twice = (
        "grid:\n- {train.lr: 1e-3, seed: [0, 1], label: slow}\n"
        "- {train.lr: 2e-3, seed: [1, 2], label: slow}\n"
    )
    with pytest.raises(UserError, match=r"grid\.yaml:6: .*'slow'.*grid\.yaml:5"):
        load_text(tmp_path, twice)
    load_text(tmp_path, twice.replace("[1, 2]", "[2, 3]"))


def resolve(folder: Path, tasks: Path, text: str) -> list[Run]:
    """The runs of a grid of tiny models on these tasks."""
    path = folder / "grid.yaml"
    path.write_text(
        "name: demo\ndefaults:\n  model: {name: tiny}\n"
        f"  data: {{path: {tasks}, positive_examples: 0}}\n" + text
    )
    workspace = Workspace(folder / "work")
    digests = inputs.Inputs(workspace.digest_cache, Downloads(workspace, False))
    profile = profiles.load_profile("local", folder)
    return runs_of.resolve_runs(grids.load_grid(path), profile, digests)[0]


def test_two_labels_for_one_run_are_refused_with_both_lines(
    tmp_path: Path, tasks: Path
) -> None:
    """It could stand under one of them only."""
    twice = "grid:\n- {seed: 0, label: first}\n- {seed: 0, label: second}\n"
    with pytest.raises(UserError, match=r"grid\.yaml:7: run .*'second' and 'first'"):
        resolve(tmp_path, tasks, twice)
    assert len(resolve(tmp_path, tasks, twice.replace("second", "first"))) == 1


def test_mlflow_names_a_run_by_its_label() -> None:
    """And by what varies beside it."""
    row = ListedRun(run="r", axes={LABEL: "near", "seed": 1})

    assert mlflow_metadata.name_of(row) == "near seed=1"


def test_a_report_calls_a_curve_by_its_label() -> None:
    """Beside others, which it calls by their axes, all in one panel."""
    keys = ["arrangement.order", LABEL]

    assert run_groups.axes_label({LABEL: "near"}, keys) == "near"
    assert run_groups.axes_label({"arrangement.order": "rt"}, keys) == "order rt"
    assert run_groups.choose_panel_axis(keys, [], None) is None
