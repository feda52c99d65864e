"""Makes the orders and the scores of training examples that plugins declare: places and
numbers, checked."""

import math
import operator
from collections.abc import Sequence

from zsg_core.model_scores.registry import Score, ScoreInputs, ScoreRule
from zsg_core.orders.registry import Arranged, Order, OrderInputs, always, never
from zsg_core.plugins import loading
from zsg_core.plugins.declarations import Declared
from zsg_core.plugins.loading import refuse


def make_order(declared: Declared) -> Order:
    """An order that is given the training examples and a seed. It may leave some out."""

    def arrange(inputs: OrderInputs) -> Arranged:
        function = loading.find_function(declared)
        examples = inputs.examples()
        with loading.calling(declared):
            returned = list(function(examples, inputs.seed))
            return Arranged(_check_places(declared, returned, len(inputs.tasks)))

    is_seeded = declared.options.get("seeded", True)
    return Order(
        name=declared.full_name,
        about=declared.about,
        arrange=arrange,
        is_seeded=always if is_seeded else never,
        leaves_out=("order",),
    )


def _check_places(
    declared: Declared, places: Sequence[object], count: int
) -> list[int]:
    """The places as whole numbers. PluginError for what is no place, or comes twice."""
    if not places:
        raise refuse(declared, "returns no place; nothing would be trained on")
    seen: set[int] = set()
    checked: list[int] = []
    for value in places:
        number = _read_place(value)
        if number is None or not 0 <= number < count:
            raise refuse(
                declared,
                f"returns {value!r}, which is no place among {count} examples",
            )
        if number in seen:
            raise refuse(declared, f"returns place {number} twice")
        seen.add(number)
        checked.append(number)
    return checked


def _read_place(place: object) -> int | None:
    """A place as a whole number, also one of numpy's; None for what is none."""
    if isinstance(place, bool):
        return None
    try:
        return operator.index(place)  # type: ignore[arg-type]
    except TypeError:
        return None


def make_score(declared: Declared) -> ScoreRule:
    """A score that is given what built-in ones are given."""

    def compute(inputs: ScoreInputs) -> list[Score]:
        function = loading.find_function(declared)
        with loading.calling(declared):
            scores = list(function(inputs))
            if len(scores) != len(inputs.examples):
                raise refuse(
                    declared,
                    f"returns {len(scores)} scores of {len(inputs.examples)} examples",
                )
            return [_check_score(declared, score) for score in scores]

    return ScoreRule(
        name=declared.full_name,
        about=declared.about,
        compute=compute,
        passes=declared.options.get("passes", 1),
    )


def _check_score(declared: Declared, score: object) -> Score:
    """A score as a number; None for none. PluginError for what is neither."""
    if score is None:
        return None
    try:
        value = math.nan if isinstance(score, str) else float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise refuse(
            declared, f"returns {score!r}; a score is a finite number, or None"
        )
    return value
