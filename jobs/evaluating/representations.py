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
from jobs.evaluating.choices import Choices, LossOf, MeasuredOptions
from jobs.evaluating.hidden_state_store import HiddenStates
from jobs.evaluating.troubles import keep_error
from jobs.model.vocabulary import Vocabulary
from jobs.training.batches import TokenizedSet
from zsg_core.data import splits
from zsg_core.errors import PluginError, UserError, ZsgError
from zsg_core.metrics import rank_classification
from zsg_core.metrics.keys import STANDARD_ERROR
from zsg_core.metrics.registry import METRICS, PLUGIN
from zsg_core.metrics.scoring import Scores
from zsg_core.metrics.silhouette import compute_silhouettes
from zsg_core.registry import AT
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
    failed: dict[str, ZsgError] = field(default_factory=dict)


# takes the metrics of gradients by a key, as its definition says, into what was found
GradientsOf = Callable[[str, Mapping[str, Any], Looked], None]


@dataclass(frozen=True)
class Inside:
    """A run's model as it is at a step, and what it is asked with."""

    model: Any
    device: str
    run: Path
    step: int
    weights: str | None
    vocabulary: Vocabulary
    test: TokenizedSet
    sources: Sequence[str]  # those that are tested, where the data has several
    choices: Choices
    loss_of: LossOf
    gradients_of: GradientsOf
    fence: Callable[[], None]  # raises where this process may not write any more

    def look(self, definitions: Ways) -> Looked:
        """Takes the metrics whose keys are given, as defined: see
        zsg_core.settings.representations.

        UserError for a token or a layer that the model does not have.
        """
        distances = {key: how for key, how in definitions.items() if "token" in how}
        looked = Looked(
            token_distance.measure_distances(
                self.model, self.vocabulary, distances, self.device
            )
        )
        for key, how in definitions.items():
            if "gradients" in how:
                self.gradients_of(key, how, looked)
        of_layers = {
            key: how
            for key, how in definitions.items()
            if "layer" in how and "token" not in how
        }
        for group in _group_by_layers(of_layers):
            self._represent(group, looked)
        of_options = {key: how for key, how in definitions.items() if "options" in how}
        if of_options:
            self._rank(of_options, looked)
        return looked

    def _rank(self, definitions: Ways, looked: Looked) -> None:
        """Takes what is made of options by all its keys, out of one pass."""
        try:
            measured = self.choices.measure(self.loss_of, list(definitions))
        except UserError as error:
            kept = keep_error(error, is_named=False)
            looked.failed.update(dict.fromkeys(definitions, kept))
            return
        for key, how in definitions.items():
            try:
                scores = self._score_options(measured, key, how)
            except PluginError as error:
                looked.failed[key] = keep_error(error)
                continue
            looked.values[key] = scores.values.get(key, math.nan)
            if key in scores.error:
                looked.values[f"{key}{STANDARD_ERROR}"] = scores.error[key]
            looked.by_item[key] = (
                self.choices.places,
                np.array(self.choices.by_place(scores, key)),
            )
            looked.flags.extend(scores.flags)

    def _score_options(
        self, measured: MeasuredOptions, key: str, how: Mapping[str, Any]
    ) -> Scores:
        """The scores by a key of what a model makes of options."""
        if PLUGIN not in how:
            rule = rank_classification.find_rule(how)
            return self.choices.score_by_rule(measured, key, rule)
        entry = METRICS[f"{key}{AT}{how[PLUGIN]}"]
        assert entry.score_choices is not None, (
            "its definition says that it is of options"
        )
        return self.choices.score_by_metric(measured, key, entry.score_choices)

    def _represent(self, definitions: Ways, looked: Looked) -> None:
        """Of definitions that differ in layers only: one pass through the model for all."""
        how = next(iter(definitions.values()))
        grouped_by = how["by"] or ("source" if len(self.sources) > 1 else "task")
        groups = self._group_items(grouped_by)
        numbers = self._draw_prompted(groups, how["items"], looked)
        prompts = [self.test.encoded[number].prompt for number in numbers]
        layers = [definition["layer"] for definition in definitions.values()]
        states_by_layer = hidden_states.average_spans(
            self.model, prompts, _pool_spans(prompts, how), layers, self.device
        )
        ids = [self.test.ids[number] for number in numbers]
        drawn_groups = [groups[number] for number in numbers]
        for (key, definition), states in zip(
            definitions.items(), states_by_layer, strict=True
        ):
            silhouettes = compute_silhouettes(states, drawn_groups)
            self.fence()
            record = HiddenStates(
                self.step,
                key,
                definition,
                ids,
                drawn_groups,
                grouped_by,
                states,
                silhouettes,
                self.weights,
            )
            looked.files.append(hidden_state_store.keep_states(self.run, record))
            looked.by_item[key] = numbers, silhouettes
            looked.values[key] = float(silhouettes.mean())
            if grouped_by == "source":
                looked.values.update(_by_group(key, drawn_groups, silhouettes))

    def _draw_prompted(
        self, groups: Sequence[str], limit: int | None, looked: Looked
    ) -> list[int]:
        """Places of items of each group with something before their answer, which a
        text without a template and without a beginning need not have."""
        drawn = draw_items(groups, limit)
        prompted = [number for number in drawn if self.test.encoded[number].prompt]
        if len(prompted) < len(drawn):
            looked.flags.append(
                f"{len(drawn) - len(prompted)} of {len(drawn)} items have no token before"
                " their answer, and so no hidden states"
            )
        return prompted

    def _group_items(self, grouped_by: str) -> Sequence[str]:
        """The source or the task of each test item."""
        if grouped_by == "source":
            return [name.partition("/")[0] for name in self.test.ids]
        return self.test.tasks


def _pool_spans(
    prompts: Sequence[Sequence[int]], how: Mapping[str, Any]
) -> list[tuple[int, int]]:
    """From which token to which the states of each prompt are averaged: all, or the last."""
    is_mean = how["pooling"] == "mean"
    return [(0 if is_mean else len(prompt) - 1, len(prompt)) for prompt in prompts]


def draw_items(groups: Sequence[str], limit: int | None) -> list[int]:
    """Places of at most so many items of each group, in the order of the places."""
    by_group: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        by_group.setdefault(group, []).append(number)
    return sorted(
        number
        for group, numbers in by_group.items()
        for number in splits.cap_items(numbers, limit, "random", SEED, group)
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


def _group_by_layers(definitions: Mapping[str, Mapping[str, Any]]) -> list[Ways]:
    """The definitions, those together that differ in their layers only."""
    groups: dict[str, Ways] = {}
    for key, how in definitions.items():
        but_layer = repr(sorted((k, v) for k, v in how.items() if k != "layer"))
        groups.setdefault(but_layer, {})[key] = dict(how)
    return list(groups.values())
