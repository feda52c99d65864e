"""Makes the metrics that plugins declare, of answers or of options: each item's score,
checked."""

import math
from collections.abc import Collection, Iterable, Sequence

from zsg_core.metrics.rank_classification import OF_OPTIONS
from zsg_core.metrics.registry import (
    METRICS,
    PLUGIN,
    TEST_SET,
    Definition,
    Metric,
    Scorer,
)
from zsg_core.metrics.scoring import Answered, ByItem, OptionLosses
from zsg_core.plugins import loading
from zsg_core.plugins.declarations import Declared
from zsg_core.plugins.loading import refuse
from zsg_core.registry import AT


def make_metric(declared: Declared) -> Metric:
    if declared.is_of_choices:
        return _make_choice_metric(declared)

    def score(answers: Iterable[Answered]) -> dict[str, ByItem]:
        return {declared.name: _score(declared, list(answers))}

    return Metric(
        name=declared.name,
        scorer=f"plugin {declared.name}",
        suite=TEST_SET,
        score=score,
        definition={PLUGIN: declared.digest},
    )


def _make_choice_metric(declared: Declared) -> Metric:
    """One that is taken inside the model, beside rank accuracy."""

    def score_choices(choices: Sequence[OptionLosses]) -> ByItem:
        return _score(declared, choices)

    return Metric(
        name=declared.name,
        scorer=f"plugin {declared.name}",
        score_choices=score_choices,
        definition={PLUGIN: declared.digest, **OF_OPTIONS},
    )


def enter_key(declared: Declared) -> None:
    """Enters a metric's own name, which is its key: the definition of a key says of which
    digest it is. A name that zsg itself has stays what it is, whatever a copy declares:
    the run may have been sent by somebody, or be older than the name."""
    name = declared.name
    if METRICS.is_built_in(name):
        return
    if declared.is_of_choices:
        METRICS.add_plugin(name, make_metric(declared))
        return

    def make_score(definition: Definition) -> Scorer:
        entry = METRICS[f"{name}{AT}{definition[PLUGIN]}"]
        assert entry.score is not None, "metrics of plugins are of answers alone"
        return entry.score

    entry = Metric(
        name=name, scorer=f"plugin {name}", suite=TEST_SET, make_score=make_score
    )
    METRICS.add_plugin(name, entry)


def _score(
    declared: Declared, scored: Sequence[Answered] | Sequence[OptionLosses]
) -> ByItem:
    """The scores of items by a plugin, each checked."""
    function = loading.find_function(declared)
    ids = {each.id for each in scored}
    by_item: ByItem = {}
    with loading.calling(declared):
        for pair in function(scored):
            item, score = _check_pair(declared, pair, ids)
            if item in by_item:
                raise refuse(declared, f"scores {item!r} twice")
            by_item[item] = score
    return by_item


def _check_pair(
    declared: Declared, pair: object, ids: Collection[str]
) -> tuple[str, float]:
    """An item's id and its score. PluginError for what is none."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise refuse(declared, "is to yield pairs of an answer's id and a number")
    item, score = pair
    if not isinstance(item, str) or item not in ids:
        missing = "item with options" if declared.is_of_choices else "answer"
        raise refuse(declared, f"scores {item!r}, of which there is no {missing}")
    try:
        value = float(score)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if isinstance(score, str) or not math.isfinite(value):
        raise refuse(
            declared,
            f"gives {item!r} no finite number; an answer without a score is left out",
        )
    return item, value
