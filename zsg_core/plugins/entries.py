"""Enters what plugins declare where the built-in metrics, orders, scores and formats are.

An entry knows all that settings, plan and recipes ask of one, and runs nothing: only
when it is called does `loading` run the file.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zsg_core.data.readers.format import FORMATS
from zsg_core.metrics.keys import ANSWERS, HARNESS, INSIDE, is_standard_error
from zsg_core.metrics.registry import METRICS
from zsg_core.model_scores.registry import SCORE_RULES
from zsg_core.orders.registry import ORDERS
from zsg_core.plugins import loading, metric_entries, order_entries, reader_entries
from zsg_core.plugins.declarations import (
    METRIC,
    ORDER,
    READER,
    SCORE,
    BadPlugin,
    Declared,
    PluginFile,
)
from zsg_core.registry import Registry

# by the kind that a plugin declares: where such things are
REGISTRIES: dict[str, Registry[Any]] = {
    METRIC: METRICS,
    ORDER: ORDERS,
    SCORE: SCORE_RULES,
    READER: FORMATS,
}
# what is taken inside a model
_INSIDE = ("silhouette", "token_distance", "gradient_ratio")
# what other keys of journals begin with, alone or before a _
_RESERVED = ("loss", "train", ANSWERS, INSIDE)
# and before a /
_BEGINNINGS = (HARNESS, "prompts", "source", "task", "average", *_INSIDE)


def refuse_taken(plugins: Iterable[PluginFile]) -> None:
    """BadPlugin for a name that zsg itself has."""
    for plugin in plugins:
        for declared in plugin.declared:
            if REGISTRIES[declared.kind].is_built_in(declared.name):
                raise _say_taken(declared, "is a built-in one")
            if declared.kind == METRIC and _is_reserved(declared.name):
                raise _say_taken(declared, "is the name of something else in journals")


def _is_reserved(name: str) -> bool:
    """Whether keys of journals that are no metric of answers have a name, or begin with
    it, or end so: whoever reads a journal tells them apart by that alone."""
    begins = any(name == word or name.startswith(f"{word}_") for word in _RESERVED)
    return begins or name in _BEGINNINGS or is_standard_error(name)


def _say_taken(declared: Declared, why: str) -> BadPlugin:
    """The error of a name that a plugin may not have, at the line that declares it."""
    message = f"{declared.words} {why}; give it another name"
    return BadPlugin(declared.file, declared.line, message)


def enter_plugins(plugins: Iterable[PluginFile]) -> None:
    """Enters all that plugins declare, each under its name with its digest.

    A metric is entered by its name alone as well, which is its key in journals.
    """
    for plugin in plugins:
        for declared in plugin.declared:
            REGISTRIES[declared.kind].add_plugin(
                declared.full_name, _MAKE[declared.kind](declared)
            )
            if declared.kind == METRIC:
                metric_entries.enter_key(declared)


def enter_copies(code: Path) -> tuple[PluginFile, ...]:
    """Enters what the plugins declare whose copies lie with a job's code. From now on
    this process runs them where they are asked for."""
    plugins = loading.read_copies(code)
    loading.let_run(code, plugins)
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


_MAKE: dict[str, Callable[[Declared], Any]] = {
    METRIC: metric_entries.make_metric,
    ORDER: order_entries.make_order,
    SCORE: order_entries.make_score,
    READER: reader_entries.make_format,
}
