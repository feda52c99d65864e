"""Is a trial of a grid small, valid, and of every axis?"""

from fractions import Fraction
from pathlib import Path

import pytest

from launcher.clusters.profiles import SmokeSettings
from launcher.grids import smoke
from launcher.grids.grid import Grid, Point
from zsg_core.settings.run import Settings


def shrunk(**changes) -> Settings:
    """The settings of one point of a grid, made small."""
    settings = Settings.model_validate({**changes, "data": {"path": "/d", **changes.get("data", {})}})
    grid = Grid(Path("grid.yaml"), "name", None, [Point(settings, {})], [], ("train.steps=9", "train.lr=1"))
    made = smoke.shrink(grid, SmokeSettings())
    assert made.name == "name-smoke"
    assert [note.split()[1] for note in made.notes] == ["train.steps=9"]
    return made.points[0].settings


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="the default"),
        pytest.param({"data": {"fraction": "1/256"}}, id="a fraction that would leave nothing"),
        pytest.param(
            {"arrangement": {"order": "nft", "choose": "uniform"}, "data": {"train_per_task": 100}},
            id="a choice among more examples than are left",
        ),
        pytest.param(
            {"stages": [{}, {"train": {"steps": 5000, "epochs": 3}, "data": {"fraction": "1/256"}}]},
            id="a stage that would be long again",
        ),
        pytest.param({"checkpoints": {"every": "1-50:1, 50-:10"}}, id="spans of checkpoints"),
        pytest.param({"checkpoints": {"snapshots": 500, "keep": "last"}}, id="snapshots"),
    ],
)
def test_every_stage_of_a_trial_is_small_and_valid(changes) -> None:
    """Few steps, tasks and examples, at least one of them; the settings are such as a grid could say."""
    for stage in shrunk(**changes).by_stage():
        assert (stage.train.steps, stage.train.epochs) == (4, 1)
        assert stage.data.fraction * 8 * 8 >= 1
        assert stage.model.name == "tiny"
        Settings.model_validate(stage.model_dump(exclude_unset=True))


def test_a_trial_has_snapshots_only_where_the_grid_has() -> None:
    """Then one half-way and one at the end, under the grid's rule; none otherwise."""
    trial = shrunk(checkpoints={"snapshots": [500, 1000], "keep": {"best": 1}}).checkpoints

    assert (trial.snapshots, trial.keep and trial.keep.best) == (2, 1)
    assert shrunk().checkpoints.snapshots is None


def test_a_trial_looks_into_layers_that_the_small_model_has() -> None:
    """What a grid asks of deeper ones is taken of its last."""
    asked = {"token": "<sep>", "words": ["thought"], "layers": [0, 15, 31]}
    trial = shrunk(checkpoints={"snapshots": 500, "token_distance": asked}).checkpoints

    assert [way["layer"] for way in trial.inside.values()] == [0, 2]


def test_what_is_studied_stays() -> None:
    """Orders, rates and shares that leave something are those of the grid."""
    made = shrunk(arrangement={"order": "fft"}, train={"lr": 1e-4}, data={"fraction": "1/4"})

    assert (made.arrangement.order, made.train.lr, made.data.fraction) == ("fft", 1e-4, Fraction(1, 4))
