"""Writes answers down for being scored elsewhere, and reads the scores that come back.

Both are JSON lines. An answer: {schema, run, step, suite, id, task, prompt, references,
answer}, and `whole` where what was thought was cut out of the answer. A score: {run,
step, id, metric, score}, and `suite` where the item's id does not tell it; other keys
are passed over, so a score may be an answer's line with two keys more.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.rows import json_rows
from zsg_core.errors import BadData
from zsg_core.metrics.keys import is_standard_error
from zsg_core.metrics.reasoning import Marks, cut_answers
from zsg_core.metrics.scoring import Answered, ByItem
from zsg_core.schema_errors import suggest_nearest

SCHEMA = 1
# the trainer's own, and what begins so; that answers are kept
RESERVED = ("loss", "answers")
# What MLflow takes for a metric, without blanks; what zsg adds to a metric ends as _stderr does.
_METRIC = re.compile(r"[a-z][a-z0-9_.:-]*(?:/[a-z0-9_.:-]+)*")

# (run id, step, suite) → metric → item id → score
Scored = dict[tuple[str, int, str | None], dict[str, ByItem]]


class ExternalScore(msgspec.Struct, frozen=True, kw_only=True):
    """The score of one item's answers at one checkpoint, by one metric."""

    run: str
    step: int
    id: str
    metric: str
    score: float
    suite: str | None = None


def format_answers(
    run: str,
    step: int,
    suite: str,
    answers: Iterable[Answered],
    marks: Marks | None = None,
) -> Iterator[str]:
    """The answers of a checkpoint, each a line of ASCII with its newline, in their
    order; JSON keeps all letters. `marks`: between which texts its model thinks; an
    answer is without that, and `whole` with it."""
    whole = list(answers)
    for one, answered in zip(whole, cut_answers(whole, marks).answers, strict=True):
        row = {
            "schema": SCHEMA,
            "run": run,
            "step": step,
            "suite": suite,
            **msgspec.to_builtins(answered),
        }
        if answered is not one:
            row["whole"] = one.answer
        yield json.dumps(row) + "\n"


def read_scores(path: Path) -> Scored:
    """The scores of a file. BadData, with the line, for one that is no score or that
    another line contradicts."""
    scored: Scored = {}
    with closing(json_rows(path, ExternalScore, Intake())) as chunks:
        for chunk in chunks:
            for number, row in enumerate(chunk.rows, chunk.first):
                _add_score(scored, f"{path}{chunk.where.format(number)}", row)
    return scored


def _add_score(scored: Scored, location: str, row: ExternalScore) -> None:
    """Puts a row among the scores. BadData for one that is none, or that contradicts
    an earlier one."""
    _refuse_strange(location, row)
    by_metric = scored.setdefault((row.run, row.step, row.suite), {})
    by_item = by_metric.setdefault(row.metric, {})
    if by_item.setdefault(row.id, row.score) != row.score:
        raise BadData(
            f"{location}: {row.metric} of {row.id} was {by_item[row.id]:g} before, and is"
            f" {row.score:g} here; give one score per item, the mean of its samples"
        )


def refuse_unanswered(
    location: str, by_metric: dict[str, ByItem], answered_ids: Iterable[str]
) -> None:
    """BadData for a score of an item that was not answered at this checkpoint."""
    answered = dict.fromkeys(answered_ids)
    for metric, by_item in by_metric.items():
        if strange := next((item for item in by_item if item not in answered), None):
            raise BadData(
                f"{location}: {metric} of {strange!r}, of which there is no"
                f" answer.{suggest_nearest(strange, list(answered))}"
            )


def is_name(metric: str) -> bool:
    """Whether a metric that is taken elsewhere may have this name."""
    is_ours = metric.partition("/")[0] in RESERVED or is_standard_error(metric)
    return _METRIC.fullmatch(metric) is not None and not is_ours


def _refuse_strange(location: str, row: ExternalScore) -> None:
    if not math.isfinite(row.score):
        raise BadData(
            f"{location}: {row.score} is no score; leave out an item that has none"
        )
    if not is_name(row.metric):
        raise BadData(
            f"{location}: {row.metric!r} is no name of a metric that is taken elsewhere: lower-case"
            " letters, digits and _ . : - in parts between /, not `loss` or `answers`, and not"
            " ending in _stderr"
        )
