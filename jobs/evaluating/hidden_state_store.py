"""Files of the hidden states of a run's test items at each checkpoint: pictures need no
model.

<run>/representations/<step>.layer_15[.NAME].safetensors   `states` (N, H) float32,
    `silhouettes` (N,) float64; its
    metadata has the text `about`, a JSON of {schema, step, key, way, ids, groups, by, weights}
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import SCHEMA, write_bytes

FOLDER = "representations"


@dataclass(frozen=True)
class HiddenStates:
    """The hidden states (N, H) of N test items in one layer after a step; each item is
    of a group."""

    step: int
    key: str  # of the metric that they are kept with
    way: dict[str, Any]  # how they were taken: layer, items, by, pooling
    ids: list[str]
    groups: list[str]
    by: str  # what a group is: source or task
    states: NDArray[np.float32]
    silhouettes: NDArray[np.float64]
    weights: str | None = None  # the snapshot's digest; None of the base


def name_of(step: int, key: str) -> str:
    """The file of a step and key, in the run's folder; `silhouette/NAME/layer_15` has
    12.layer_15.NAME.safetensors."""
    return (
        f"{FOLDER}/{'.'.join([str(step), *reversed(key.split('/')[1:])])}.safetensors"
    )


def keep_states(run: Path, one: HiddenStates) -> str:
    """Writes the states, whole or not at all; returns the file's name in the run's folder."""
    from safetensors.numpy import save

    about = {
        "schema": SCHEMA,
        "step": one.step,
        "key": one.key,
        "way": one.way,
        "ids": one.ids,
        "groups": one.groups,
    }
    about |= {"by": one.by, "weights": one.weights}
    tensors = {
        "states": np.ascontiguousarray(one.states),
        "silhouettes": one.silhouettes,
    }
    name = name_of(one.step, one.key)
    write_bytes(
        run / name, save(tensors, {"about": json.dumps(about, ensure_ascii=False)})
    )
    return name


def read_states(path: Path) -> HiddenStates:
    """What a file keeps. OSError or ValueError where it is none."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name) for name in ("states", "silhouettes")}
    about.pop("schema")
    return HiddenStates(**about, **tensors)


def find_state_files(run: Path) -> Sequence[Path]:
    """The files that a run keeps, by step."""
    files = (run / FOLDER).glob("[0-9]*.safetensors")
    return sorted(files, key=lambda path: (int(path.name.partition(".")[0]), path.name))
