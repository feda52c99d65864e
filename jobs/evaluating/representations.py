"""Looks inside a model: takes what no answer need be generated for, hidden states and
the losses of offered answers.

Hidden states are kept, and the metrics of them taken. Their items are drawn from each
source or task by a seed that never changes, so they are the same at every checkpoint,
in every run of the data and in every layer. Of each stands its prompt, as the run's
loss reads it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.evaluating import hidden_state_store, hidden_states, token_distance
from jobs.evaluating.choices import Choices, LossOf
from jobs.evaluating.hidden_state_store import HiddenStates
from jobs.model.base_model import Vocabulary
from jobs.training.batches import TokenizedSet
from zsg_core.data import splits
from zsg_core.errors import UserError
from zsg_core.metrics.metrics import RANK_ACCURACY
from zsg_core.metrics.silhouette import compute_silhouettes
from zsg_core.settings.representations import Ways

SEED = 0  # of which items are taken where not all are


@dataclass(frozen=True)
class Looked:
    """What was found in a model: metrics by key, which of the test set's items have
    which values, files.

    `flags`: see `zsg_core.metrics.scoring.Scores`. `failed`: why a key cannot be had,
    while others can.
    """

    values: dict[str, float]
    # key → places, values
    by_item: dict[str, tuple[list[int], NDArray[np.float64]]] = field(
        default_factory=dict
    )
    files: list[str] = field(default_factory=list)  # in the run's folder
    flags: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inside:
    """A run's model as it is at a step, and what it is asked with."""

    llama: Any
    device: str
    run: Path
    step: int
    weights: str | None
    vocabulary: Vocabulary
    test: TokenizedSet
    sources: Sequence[str]  # those that are tested, where the data has several
    choices: Choices
    loss_of: LossOf
    fence: Callable[[], None]  # raises where this process may not write any more

    def look(self, ways: Ways) -> Looked:
        """Takes the metrics whose keys and ways are given: see zsg_core.settings.representations.

        UserError for a token or a layer that the model does not have.
        """
        distances = {key: way for key, way in ways.items() if "token" in way}
        made = Looked(
            token_distance.measure_distances(
                self.llama, self.vocabulary, distances, self.device
            )
        )
        for shared in _alike(
            {
                key: way
                for key, way in ways.items()
                if "layer" in way and "token" not in way
            }
        ):
            self._represent(shared, made)
        for key in ways:
            if key.partition("/")[0] == RANK_ACCURACY:
                self._rank(key, made)
        return made

    def _rank(self, key: str, made: Looked) -> None:
        try:
            scores = self.choices.scores(self.loss_of)
        except UserError as error:
            made.failed[key] = str(error)
            return
        made.values[key] = scores.values.get(RANK_ACCURACY, math.nan)
        if RANK_ACCURACY in scores.error:
            made.values[f"{key}_stderr"] = scores.error[RANK_ACCURACY]
        made.by_item[key] = (
            self.choices.places,
            np.array(self.choices.by_place(scores, RANK_ACCURACY)),
        )
        made.flags.extend(scores.flags)

    def _represent(self, ways: Ways, made: Looked) -> None:
        """Of ways that differ in layers only: one pass through the model for all."""
        how = next(iter(ways.values()))
        by = how["by"] or ("source" if len(self.sources) > 1 else "task")
        groups = (
            [name.partition("/")[0] for name in self.test.ids]
            if by == "source"
            else self.test.tasks
        )
        places = draw_items(groups, how["items"])
        prompts = [self.test.encoded[place].prompt for place in places]
        spans = [
            (0 if how["pooling"] == "mean" else len(prompt) - 1, len(prompt))
            for prompt in prompts
        ]
        layers = [way["layer"] for way in ways.values()]
        found = hidden_states.average_spans(
            self.llama, prompts, spans, layers, self.device
        )
        ids, own = (
            [self.test.ids[place] for place in places],
            [groups[place] for place in places],
        )
        for (key, way), states in zip(ways.items(), found, strict=True):
            apart = compute_silhouettes(states, own)
            self.fence()
            kept = HiddenStates(
                self.step, key, way, ids, own, by, states, apart, self.weights
            )
            made.files.append(hidden_state_store.keep_states(self.run, kept))
            made.by_item[key] = places, apart
            made.values[key] = float(apart.mean())
            if by == "source":
                made.values.update(_by_group(key, own, apart))


def draw_items(groups: Sequence[str], most: int | None) -> list[int]:
    """Places of at most so many items of each group, in the order of the places."""
    of: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        of.setdefault(group, []).append(place)
    return sorted(
        place
        for group, own in of.items()
        for place in splits.cap_items(own, most, "random", SEED, group)
    )


def _by_group(
    key: str, groups: Sequence[str], values: NDArray[np.float64]
) -> dict[str, float]:
    return {
        f"{key}/{name}": float(
            values[np.array([group == name for group in groups])].mean()
        )
        for name in dict.fromkeys(groups)
    }


def _alike(ways: Mapping[str, Mapping[str, Any]]) -> list[Ways]:
    """The ways, those together that differ in their layers only."""
    together: dict[str, Ways] = {}
    for key, way in ways.items():
        together.setdefault(
            repr(sorted((k, v) for k, v in way.items() if k != "layer")), {}
        )[key] = dict(way)
    return list(together.values())
