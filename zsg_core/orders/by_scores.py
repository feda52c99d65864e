"""The order of scores: examples sorted by numbers that a file gives them, or a model, in
one of the published shapes.

The scores may be of any kind: a loss, IFD, a length, a rating. The digest of a file's
enters the recipe, of a model's the rule by which it scores; and the shape with all its
numbers written out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from zsg_core.errors import BadData
from zsg_core.model_scores.registry import SCORE_RULES
from zsg_core.orders.from_file import DROP
from zsg_core.orders.known_names import find_places
from zsg_core.orders.registry import Arranged, OrderInputs, order
from zsg_core.orders.score_list import ScoreList, read_scores
from zsg_core.orders.shapes import SEGMENT, sort_by_scores
from zsg_core.orders.shaping import (
    SHAPING,
    check_shape,
    is_shape_drawn,
    resolve_shape,
    shape_list,
)

SCORES = "scores"
DESCENDING = "descending"
SHOWN = 3


def check_scores(settings: Any) -> None:
    """ValueError for settings that do not go together."""
    if settings.path is None and settings.score is None:
        raise ValueError(
            "order scores needs `path`: a file with a score of each training example; or"
            " `score`: one that a model gives"
        )
    _check_score(settings)
    if settings.shape == SEGMENT and settings.direction == DESCENDING:
        raise ValueError(
            "shape segment takes its ends by front_of and back_of; take `direction` out"
        )
    check_shape(settings)


def _check_score(settings: Any) -> None:
    """ValueError for a score by a model that does not go with other keys, and for keys
    that go with none."""
    if settings.score is not None and settings.path is not None:
        raise ValueError(
            "`score` is by a model and `path` names a file of scores; take one of them out"
        )
    compares = settings.score is not None and SCORE_RULES[settings.score].compares
    if settings.scorer is not None and settings.score is None:
        raise ValueError("`scorer` goes with `score`, and there is none; take it out")
    if settings.since is not None and not compares:
        comparing = [name for name, rule in SCORE_RULES.items() if rule.compares]
        raise ValueError(
            f"`since` does nothing but for score {' and '.join(comparing)}; take it out"
        )


def resolve_scores(settings: Any) -> dict[str, Any]:
    """What enters the recipe: the shape with all its numbers, and what comes after it."""
    recipe = resolve_shape(settings)
    if settings.direction == DESCENDING:
        recipe["direction"] = DESCENDING
    if settings.rest == DROP:
        recipe["rest"] = DROP
    if settings.score is not None:
        rule = SCORE_RULES[settings.score]
        recipe["score"] = {"name": rule.name, "rule": rule.rule}
    return recipe


@order(
    SCORES,
    about="by scores that a file or a model gives, sorted or in a shape",
    settings=("path", "score", "scorer", "since", "rest", "direction", *SHAPING),
    check=check_scores,
    recipe=resolve_scores,
    is_seeded=is_shape_drawn,
    reads=read_scores,
    leaves_out=("rest",),
)
def arrange_by_scores(inputs: OrderInputs) -> Arranged:
    """Items in the shape. BadData where training examples have no score, unless the
    recipe lets them be left out, and for scores of what is no example of the data.
    Scores of examples that are not trained on are passed over, and counted."""
    score_list: ScoreList = inputs.read_input()
    positions, scores, passed_over = _match(inputs, score_list)
    if inputs.recipe.get("rest") != DROP:
        _refuse_unscored(score_list, positions, inputs.ids)
    shaped = shape_by_scores(scores, inputs.recipe, inputs.seed)
    ordered = [positions[number] for number in shaped]
    facts = {"count": len(ordered)}
    if passed_over:
        facts["passed_over"] = passed_over
    return Arranged(ordered, {"scored": facts})


def shape_by_scores(
    scores: Sequence[float], recipe: Mapping[str, Any], seed: int
) -> list[int]:
    """The places of the scores in the shape of a recipe."""
    is_descending = recipe.get("direction") == DESCENDING
    items = sort_by_scores(scores, is_descending)
    return shape_list(items, recipe, seed)


def _match(
    inputs: OrderInputs, score_list: ScoreList
) -> tuple[list[int], list[float], int]:
    """The training examples that have a score, by their places, and the scores; and how
    many scores are of examples that are not trained on."""
    ids = inputs.ids
    if score_list.ids is None:
        if len(score_list.scores) != len(ids):
            raise BadData(
                f"{score_list.path}: has {len(score_list.scores):,} scores by place, and there"
                f" are {len(ids):,} training examples"
            )
        return list(range(len(ids))), list(score_list.scores), 0
    score_of = dict(zip(score_list.ids, score_list.scores, strict=True))
    names: Sequence[str | None] = ids
    if score_of.keys().isdisjoint(ids):
        names = _take_published(inputs, score_of)
    position_of = {
        name: number for number, name in enumerate(names) if name is not None
    }
    # an id of the data may be that of several examples, and a mix has some again
    positions = [number for number, name in enumerate(names) if name in score_of]
    if len(positions) == len(ids):
        # A file over more than these data is normal: nothing can be amiss by its ids.
        scored = list(filter(position_of.__contains__, score_list.ids))
        passed_over = len(score_list.ids) - len(scored)
    else:
        trained = find_places(score_list, score_list.ids, position_of, inputs.other_ids)
        passed_over = len(score_list.ids) - len(trained)
    return (
        positions,
        [score_of[str(names[number])] for number in positions],
        passed_over,
    )


def _take_published(
    inputs: OrderInputs, score_of: Mapping[str, float]
) -> Sequence[str | None]:
    """The data's own ids, where a score is of one of them; else zsg's."""
    published = inputs.published_ids()
    if score_of.keys().isdisjoint(published):
        return inputs.ids
    return published


def _refuse_unscored(
    score_list: ScoreList, positions: Sequence[int], ids: Sequence[str]
) -> None:
    """BadData where training examples have no score."""
    if len(positions) == len(ids):
        return
    scored = set(positions)
    unscored = [name for number, name in enumerate(ids) if number not in scored]
    dots = ", …" if len(unscored) > SHOWN else ""
    raise BadData(
        f"{score_list.path}: has no score of {len(unscored):,} of {len(ids):,} training examples:"
        f" {', '.join(unscored[:SHOWN])}{dots}. Set arrangement.rest: drop to train on the scored"
        " ones alone"
    )
