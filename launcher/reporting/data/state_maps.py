"""Lays the hidden states that runs keep out in the plane, by t-SNE and by PCA: before
training and at its end.

t-SNE is scikit-learn's with a fixed seed, begun from the PCA, at perplexity 30 or what
few items allow. Of replicates the first that keeps states stands for all; a base that
several runs have in common is laid out once.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import Workspace
from jobs.contract.job_file import stage_folders
from jobs.evaluating import hidden_state_store
from jobs.evaluating.hidden_state_store import HiddenStates
from launcher.reporting.data.run_groups import Group
from launcher.workspace import extras

PERPLEXITY, SEED = 30.0, 0
LEAST = 5  # items of which a map says anything
MOST = 24  # maps of a page
# how large the largest of all states may be, and how small: t-SNE squares them in 32 bits
SQUARED_WELL = (1e-15, 1e15)

Points = NDArray[np.float64]  # (N, 2)


@dataclass(frozen=True)
class StateMap:
    """The items of a layer in the plane; `explained` is what share of all variance each
    axis of the PCA has."""

    label: str  # whose they are
    run: str
    kept: HiddenStates
    tsne: Points
    pca: Points
    explained: tuple[float, float]


@dataclass(frozen=True)
class StateMaps:
    """The maps of a grid, and how many more there would be. `undrawn`: which states have
    no map, and why."""

    drawn: Sequence[StateMap]
    left_out: int = 0
    undrawn: Sequence[str] = ()

    @property
    def groups(self) -> list[str]:
        """The names of all sources or tasks, in order."""
        return sorted(
            {group for state_map in self.drawn for group in state_map.kept.groups}
        )


def map_groups(workspace: Workspace, groups: Sequence[tuple[str, Group]]) -> StateMaps:
    """The maps of a grid's groups, each with what it is called. UserError without scikit-learn."""
    undrawn: list[str] = []
    kept_states = [
        row
        for label, group in groups
        for row in _read_group(workspace, label, group, undrawn)
    ]
    rows = list(_list_maps(kept_states))
    maps = [_map(*row) for row in rows[:MOST]]
    return StateMaps(maps, max(0, len(rows) - MOST), undrawn)


@dataclass(frozen=True)
class _KeptStates:
    """The hidden states that a run keeps of one layer at one step."""

    label: str  # of the run's group
    run: str
    step: int
    states: HiddenStates


def _list_maps(
    rows: Sequence[_KeptStates],
) -> Iterator[tuple[str, str, HiddenStates]]:
    """(whose, run, states) of each base and of each group's last step that has any,
    layer by layer."""
    yield from _list_bases([row for row in rows if row.step == 0])
    for row in rows:
        if row.step:
            yield _named([row.label], f"after step {row.step}"), row.run, row.states


def _list_bases(rows: Sequence[_KeptStates]) -> Iterator[tuple[str, str, HiddenStates]]:
    """The states before training, each once for all groups that have it in common."""
    same_base: dict[str, list[_KeptStates]] = {}
    for row in rows:
        same_base.setdefault(_digest(row.states), []).append(row)
    keys = {sharing[0].states.key for sharing in same_base.values()}
    is_shared = len(same_base) == len(keys)
    for sharing in same_base.values():
        names = [] if is_shared else [row.label for row in sharing]
        yield _named(names, "before training"), sharing[0].run, sharing[0].states


def _read_group(
    workspace: Workspace, label: str, group: Group, undrawn: list[str]
) -> Iterator[_KeptStates]:
    """The first and the last states of each layer, of the first replicate that keeps
    any; those that no map can be made of are told in `undrawn`."""
    for member in group.members:
        if files := _files(workspace, member.run):
            break
    else:
        return
    extras.require_extra(
        "a report with hidden states", "report", only=("safetensors", "sklearn")
    )
    for _, steps in sorted(files.items()):
        for step in sorted({min(steps), max(steps)}):
            states = hidden_state_store.read_states(steps[step])
            if why := _explain_undrawn(states):
                undrawn.append(f"{member.run}, {states.key} at step {step}: {why}")
            else:
                yield _KeptStates(label, member.run, step, states)


def _explain_undrawn(states: HiddenStates) -> str | None:
    """Why no map can be made of hidden states; None where one can."""
    if len(states.ids) < LEAST:
        return f"{len(states.ids)} items; a map says something of {LEAST} or more"
    if not np.isfinite(states.states).all():
        return "some of the states are no numbers (nan or inf)"
    if not np.ptp(states.states, axis=0).any():
        return "the states of all items are the same"
    return None


def _scale_to_square(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """States that are too large or too small for t-SNE in the unit of their largest: who
    is near whom stays."""
    largest = float(np.abs(states).max())
    smallest_good, largest_good = SQUARED_WELL
    return states if smallest_good < largest < largest_good else states / largest


def _named(names: Sequence[str], when: str) -> str:
    """What a map is called: some names, and when its states were taken."""
    return ", ".join(filter(None, [*names, when]))


def _files(workspace: Workspace, run: str) -> dict[str, dict[int, Path]]:
    """What a run keeps, of several stages all: by layer and name, then by step."""
    files: dict[str, dict[int, Path]] = {}
    for folder in stage_folders(workspace, run):
        for path in hidden_state_store.find_state_files(folder):
            step, _, layer = path.name.partition(".")
            files.setdefault(layer, {})[int(step)] = path
    return files


def _digest(states: HiddenStates) -> str:
    """A digest of some states, by what they are of and by their values."""
    about = repr((states.key, states.ids)).encode()
    return hashlib.sha256(about + states.states.tobytes()).hexdigest()


def _map(label: str, run: str, run_states: HiddenStates) -> StateMap:
    """The states of a run in the plane, by t-SNE and by their two main components, with
    how much of them these hold."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    states = _scale_to_square(run_states.states.astype(np.float64))
    pca = PCA(n_components=2, svd_solver="full")
    flat = pca.fit_transform(states)
    perplexity = min(PERPLEXITY, (len(states) - 1) / 3)
    tsne = TSNE(
        perplexity=perplexity, init="pca", learning_rate="auto", random_state=SEED
    ).fit_transform(states)
    first, second = map(float, pca.explained_variance_ratio_)
    return StateMap(
        label,
        run,
        run_states,
        np.asarray(tsne, np.float64),
        flat,
        (first, second),
    )
