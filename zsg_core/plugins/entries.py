"""Enters what plugins declare where the built-in metrics, orders, scores and formats are.

An entry knows all that settings, plan and recipes ask of one, and runs nothing: only
when it is called does `loading` run the file.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from zsg_core.errors import PluginError
from zsg_core.metrics.keys import ANSWERS, INSIDE
from zsg_core.metrics.registry import (
    METRICS,
    PLUGIN,
    TEST_SET,
    Definition,
    Metric,
    Scorer,
)
from zsg_core.metrics.scoring import Answered, ByItem
from zsg_core.plugins import loading
from zsg_core.plugins.declarations import METRIC, BadPlugin, Declared, PluginFile
from zsg_core.registry import AT, Registry

# by the kind that a plugin declares: where such things are
REGISTRIES: dict[str, Registry[Any]] = {METRIC: METRICS}
# what keys of journals that are no metric of answers begin with
_RESERVED = ("loss", "train", ANSWERS, INSIDE)
_ADDED = "_stderr"  # with what zsg adds to a metric's name


def refuse_taken(plugins: Iterable[PluginFile]) -> None:
    """BadPlugin for a name that zsg itself has."""
    for plugin in plugins:
        for declared in plugin.declared:
            if REGISTRIES[declared.kind].is_built_in(declared.name):
                raise _say_taken(declared, "is a built-in one")
            if declared.kind == METRIC and _is_reserved(declared.name):
                raise _say_taken(declared, "is the name of something else in journals")


def _is_reserved(name: str) -> bool:
    begins = any(name == word or name.startswith(f"{word}_") for word in _RESERVED)
    return begins or name.endswith(_ADDED)


def _say_taken(declared: Declared, why: str) -> BadPlugin:
    message = f"{declared.words} {why}; give it another name"
    return BadPlugin(declared.file, declared.line, message)


def enter_plugins(plugins: Iterable[PluginFile]) -> None:
    """Enters all that plugins declare, each under its name with its digest."""
    for plugin in plugins:
        for declared in plugin.declared:
            REGISTRIES[declared.kind].add_plugin(
                declared.full_name, _MAKE[declared.kind](declared)
            )
            if declared.kind == METRIC:
                _enter_key(declared.name)


def enter_copies(code: Path) -> tuple[PluginFile, ...]:
    """Enters what the plugins declare whose copies lie with a job's code. From now on
    this process runs them where they are asked for."""
    plugins = loading.find_copies(code)
    enter_plugins(plugins)
    return plugins


def list_offered(plugins: Iterable[PluginFile]) -> dict[str, dict[str, str]]:
    """By the kind of registry, what names of these plugins mean."""
    offered: dict[str, dict[str, str]] = {}
    for plugin in plugins:
        for declared in plugin.declared:
            kind = REGISTRIES[declared.kind].kind
            offered.setdefault(kind, {})[declared.name] = declared.full_name
    return offered


def _make_metric(declared: Declared) -> Metric:
    def score(answers: Iterable[Answered]) -> dict[str, ByItem]:
        return {declared.name: _score(declared, list(answers))}

    return Metric(
        name=declared.name,
        scorer=f"plugin {declared.name}",
        suite=TEST_SET,
        score=score,
        definition={PLUGIN: declared.digest},
    )


def _enter_key(name: str) -> None:
    """Enters a metric's own name, which is its key: the definition of a key says of which
    digest it is."""

    def make_score(definition: Definition) -> Scorer:
        entry = METRICS[f"{name}{AT}{definition[PLUGIN]}"]
        assert entry.score is not None, "metrics of plugins are of answers alone"
        return entry.score

    entry = Metric(
        name=name, scorer=f"plugin {name}", suite=TEST_SET, make_score=make_score
    )
    METRICS.add_plugin(name, entry)


def _score(declared: Declared, answers: Sequence[Answered]) -> ByItem:
    """The scores of answers by a plugin, each checked."""
    function = loading.find_function(declared)
    known = {answered.id for answered in answers}
    by_item: ByItem = {}
    with loading.told(declared.file, declared.words):
        for pair in function(answers):
            item, score = _check_pair(declared, pair, known)
            if item in by_item:
                raise _refuse(declared, f"scores {item!r} twice")
            by_item[item] = score
    return by_item


def _check_pair(
    declared: Declared, pair: object, known: Collection[str]
) -> tuple[str, float]:
    """An item's id and its score. PluginError for what is none."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise _refuse(declared, "is to yield pairs of an answer's id and a number")
    item, score = pair
    if not isinstance(item, str) or item not in known:
        raise _refuse(declared, f"scores {item!r}, of which there is no answer")
    try:
        value = float(score)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if isinstance(score, str) or not math.isfinite(value):
        raise _refuse(
            declared,
            f"gives {item!r} no finite number; an answer without a score is left out",
        )
    return item, value


def _refuse(declared: Declared, why: str) -> PluginError:
    """The error of what a plugin gives."""
    return PluginError(f"{declared.file}:{declared.line}: {declared.words} {why}")


_MAKE = {METRIC: _make_metric}
