"""Gives the examples of an order the scores of a file, to be drawn along it."""

import numpy as np
from numpy.typing import NDArray

from launcher.reporting.data.arrangements import Arrangement
from zsg_core.errors import UserError
from zsg_core.orders.order_list import ListFile
from zsg_core.orders.score_list import SCORE_COLUMN, ScoreList, read_scores


def read_drawn_scores(text: str) -> ScoreList:
    """The scores of `FILE` or `FILE#COLUMN`. UserError where there is no such file,
    BadData for one that holds no scores."""
    named = ListFile.parse(text)
    path = named.path.expanduser()
    if not path.is_file():
        raise UserError(
            f"--score {text}: there is no such file; give FILE, or FILE#COLUMN for a column other"
            f" than `{SCORE_COLUMN}`"
        )
    return read_scores(ListFile(path, named.column))


def name_scores(text: str) -> str:
    """What a picture calls the scores: the column, or the file's name."""
    named = ListFile.parse(text)
    return named.column or named.path.name


def place_scores(arrangement: Arrangement, scores: ScoreList) -> NDArray[np.float64]:
    """The score of each example in the order (N,), NaN where it has none. UserError for
    scores of other examples."""
    if scores.ids is None:
        return _place_by_position(arrangement, scores)
    score_of = dict(zip(scores.ids, scores.scores, strict=True))
    placed = np.array(
        [score_of.get(example, np.nan) for example in arrangement.ids], np.float64
    )
    if np.isnan(placed).all():
        raise UserError(
            f"{scores.path}: none of its {len(score_of):,} ids, such as {scores.ids[0]!r}, is in"
            f" arrangement {arrangement.id}, whose ids look like"
            f" {next(iter(arrangement.ids), 'none')!r}"
        )
    return placed


def _place_by_position(
    arrangement: Arrangement, scores: ScoreList
) -> NDArray[np.float64]:
    """Scores by place in the training list of the order's corpus."""
    order = arrangement.places
    sources = arrangement.meta["sources"]["corpus_meta"]["sources"]
    examples = sum(facts["train"] for facts in sources.values())
    if len(scores.scores) != examples:
        raise UserError(
            f"{scores.path}: has {len(scores.scores):,} scores by place, and corpus"
            f" {arrangement.corpus} has {examples:,} training examples"
        )
    return np.asarray(scores.scores, np.float64)[order]


def count_unscored(placed: NDArray[np.float64]) -> int:
    """How many examples have no score."""
    return int(np.isnan(placed).sum())
