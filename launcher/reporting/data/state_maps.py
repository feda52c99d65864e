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
from jobs.evaluating import kept_states
from jobs.evaluating.kept_states import States
from launcher.reporting.data.run_groups import Group
from launcher.workspace import extras

PERPLEXITY, SEED = 30.0, 0
LEAST = 5  # items of which a map says anything
MOST = 24  # maps of a page

Points = NDArray[np.float64]  # (N, 2)


@dataclass(frozen=True)
class StateMap:
    """The items of a layer in the plane; `explained` is what share of all variance each
    axis of the PCA has."""

    label: str  # whose they are
    run: str
    kept: States
    tsne: Points
    pca: Points
    explained: tuple[float, float]


@dataclass(frozen=True)
class StateMaps:
    """The maps of a grid, and how many more there would be."""

    drawn: Sequence[StateMap]
    left_out: int = 0

    @property
    def groups(self) -> list[str]:
        """The names of all sources or tasks, in order."""
        return sorted({group for one in self.drawn for group in one.kept.groups})


def map_groups(place: Workspace, groups: Sequence[tuple[str, Group]]) -> StateMaps:
    """The maps of a grid's groups, each with what it is called. UserError without scikit-learn."""
    found = list(_found(place, groups))
    return StateMaps([_map(*one) for one in found[:MOST]], max(0, len(found) - MOST))


def _found(
    place: Workspace, groups: Sequence[tuple[str, Group]]
) -> Iterator[tuple[str, str, States]]:
    """(whose, run, states) of each base and of each group's last step that has any,
    layer by layer."""
    bases: dict[str, tuple[list[str], str, States]] = {}
    ends = []
    for label, group in groups:
        run, files = next(
            (
                (one.run, files)
                for one in group.members
                if (files := _files(place, one.run))
            ),
            ("", {}),
        )
        for _, steps in sorted(files.items()):
            for step in sorted({min(steps), max(steps)}):
                extras.need(
                    "a report with hidden states",
                    "report",
                    only=("safetensors", "sklearn"),
                )
                kept = kept_states.read(steps[step])
                if len(kept.ids) < LEAST or not np.isfinite(kept.states).all():
                    continue
                if step:
                    ends.append((_named([label], f"after step {step}"), run, kept))
                else:
                    bases.setdefault(_digest(kept), ([], run, kept))[0].append(label)
    is_shared = len(bases) == len({kept.key for _, _, kept in bases.values()})
    for names, run, kept in bases.values():
        yield _named([] if is_shared else names, "before training"), run, kept
    yield from ends


def _named(names: Sequence[str], when: str) -> str:
    return ", ".join(filter(None, [*names, when]))


def _files(place: Workspace, run: str) -> dict[str, dict[int, Path]]:
    """What a run keeps, of several stages all: by layer and name, then by step."""
    found: dict[str, dict[int, Path]] = {}
    for folder in stage_folders(place, run):
        for path in kept_states.found(folder):
            step, _, of = path.name.partition(".")
            found.setdefault(of, {})[int(step)] = path
    return found


def _digest(kept: States) -> str:
    about = repr((kept.key, kept.ids)).encode()
    return hashlib.sha256(about + kept.states.tobytes()).hexdigest()


def _map(label: str, run: str, kept: States) -> StateMap:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    states = kept.states.astype(np.float64)
    pca = PCA(n_components=2, svd_solver="full")
    flat = pca.fit_transform(states)
    perplexity = min(PERPLEXITY, (len(states) - 1) / 3)
    tsne = TSNE(
        perplexity=perplexity, init="pca", learning_rate="auto", random_state=SEED
    ).fit_transform(states)
    first, second = map(float, pca.explained_variance_ratio_)
    return StateMap(
        label, run, kept, np.asarray(tsne, np.float64), flat, (first, second)
    )
