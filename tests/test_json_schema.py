"""Does an editor that holds the schema of `zsg schema` take every good file, and mark
the mistakes?"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from launcher.clusters.profiles import Profile
from launcher.grids import json_schema
from launcher.workspace import yaml_file
from tests.lib.command_line import Zsg
from zsg_core.schema_errors import list_leaf_keys
from zsg_core.settings.run import Settings

ROOT = Path(__file__).resolve().parent.parent
GRIDS = sorted(ROOT.glob("templates/**/*grid*/*.yaml")) + sorted(
    ROOT.glob("templates/**/grid.yaml")
)
PROFILES = sorted(ROOT.glob("cluster_profiles/*.yaml")) + sorted(
    ROOT.glob("templates/**/cluster_profiles/*.yaml")
)
GRID = Draft7Validator(json_schema.make_grid_schema())
PROFILE = Draft7Validator(json_schema.make_profile_schema())


def problems(validator: Draft7Validator, text: str) -> list[str]:
    """What the schema finds wrong with a YAML text."""
    return [
        error.message for error in validator.iter_errors(YAML(typ="safe").load(text))
    ]


@pytest.mark.parametrize("kind", ["grid", "profile"])
def test_the_command_prints_a_schema_of_draft_7(zsg: Zsg, kind: str) -> None:
    """`zsg schema` prints what is made from the models, valid by the draft's own schema."""
    printed = json.loads(zsg("schema", kind))

    assert printed == (
        json_schema.make_grid_schema()
        if kind == "grid"
        else json_schema.make_profile_schema()
    )
    Draft7Validator.check_schema(printed)


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.name)
def test_shipped_grids_hold_to_the_schema(path: Path) -> None:
    """No editor marks anything in a template."""
    assert list(GRID.iter_errors(yaml_file.load_document(path).value)) == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_shipped_profiles_hold_to_the_schema(path: Path) -> None:
    """No editor marks anything in a profile, whether it inherits or not."""
    assert list(PROFILE.iter_errors(yaml_file.load_document(path).value)) == []


def test_the_grid_of_the_readme_holds_to_the_schema() -> None:
    """What the README shows is not marked."""
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)

    assert text and problems(GRID, text[1]) == []


GOOD = [
    "{}",
    "defaults: {train.lr: 1e-3, train: {batch: 8}, data: {set: niv2}, data.path: /d}",
    "defaults: {data.fraction: 1/256}",
    "defaults: {data.fraction: 0.25, data.train_per_task: null}",
    "defaults: {train: {betas: [0.9, 0.95]}, checkpoints.metrics: [loss]}",
    "grid: {seed: [0, 1], train.lr: 1e-3}",
    "grid: {train.betas: [[0.9, 0.95]], checkpoints.metrics: [[loss]]}",
    "grid: {train: [{lr: 1e-4}, {}], model: {name: a, path: /m}}",
    "grid: [{seed: 0}, {zip: {seed: [0, 1], train.lr: [1e-3, 2e-3]}, data.test_seed: [0]}]",
    "grid: {seed: [0, 1], label: two seeds}",
    "exclude: [{seed: 1, train: {lr: 1}}]",
    "{profile: null, defaults: null, grid: null, exclude: null}",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_the_language_allows_is_not_marked(text: str) -> None:
    """Every form of the grid language passes."""
    whole = {"name": "x", **YAML(typ="safe").load(text)}

    assert [error.message for error in GRID.iter_errors(whole)] == []


BAD = {
    "no name": "defaults: {}",
    "a name that is a path": "name: ../x",
    "an unknown key at the top": "name: x\ngird: {}",
    "an unknown default": "name: x\ndefaults: {sead: 1}",
    "an unknown key in a section": "name: x\ndefaults: {train: {lrr: 1}}",
    "an unknown axis": "name: x\ngrid: {train.lrr: [1]}",
    "an unknown key in zip": "name: x\ngrid: {zip: {sed: [1]}}",
    "an unknown key in exclude": "name: x\nexclude: [{sed: 1}]",
    "a wrong type": "name: x\ndefaults: {train.batch: four}",
    "an unknown word": "name: x\ngrid: {arrangement.order: [nearest]}",
    "a list as a default": "name: x\ndefaults: {seed: [0, 1]}",
    "a list as a value bracketed once": "name: x\ngrid: {train.betas: [0.9, 0.95]}",
    "a list of words bracketed once": "name: x\ngrid: {checkpoints.metrics: [loss]}",
    "an empty axis": "name: x\ngrid: {seed: []}",
    "an empty block": "name: x\ngrid: [{}]",
    "a label that is none": "name: x\ngrid: {seed: 1, label: ' a'}",
    "zip of scalars": "name: x\ngrid: {zip: {seed: 1}}",
    "an exclude that is no list": "name: x\nexclude: {seed: 1}",
    "a fraction above one": "name: x\ndefaults: {data.fraction: 2}",
    "a fraction that is a word": "name: x\ndefaults: {data.fraction: half}",
    "a number out of range": "name: x\ndefaults: {train.lr: -1}",
    "betas of one": "name: x\ndefaults: {train.betas: [0.9]}",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_mistake_is_marked(text: str) -> None:
    """What `zsg plan` refuses for its form, the schema marks while it is typed."""
    assert problems(GRID, text) != []


BAD_PROFILES = {
    "no kind": "name: x",
    "no name": "kind: slurm",
    "an unknown key": "{name: x, kind: slurm, partition: gpu}",
    "an unknown key within": "{name: x, inherits: y, slurm: {partiton: gpu}}",
    "an unknown kind": "{name: x, kind: pbs}",
    "an option as partition": "{name: x, kind: slurm, slurm: {partition: a --wrap=x}}",
}


@pytest.mark.parametrize("text", BAD_PROFILES.values(), ids=BAD_PROFILES.keys())
def test_a_mistake_in_a_profile_is_marked(text: str) -> None:
    """A profile without a parent needs its kind; every key is known."""
    assert problems(PROFILE, text) != []


def test_every_setting_is_explained() -> None:
    """Hovering over any key of a grid, or of a profile, says what it means."""
    of_grid: dict[str, Any] = json_schema.make_grid_schema()["definitions"]["settings"][
        "properties"
    ]
    sections = {key.rpartition(".")[0] for key in of_grid}

    assert list(of_grid) == list_leaf_keys(Settings)
    assert [
        key
        for key, value in of_grid.items()
        if key not in sections and not value.get("description")
    ] == []
    assert set(json_schema.make_profile_schema()["properties"]) == set(
        Profile.model_fields
    )
