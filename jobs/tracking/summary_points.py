"""Lists the summaries of a grid that MLflow is told of, and makes points of them.

They stand in no journal: each follows from values that do, at the time of these. So they
are made anew whenever a run is sent, and are the same.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import GridRecord, ListedRun, Summaries
from jobs.contract.journal import Point
from jobs.deciding.recorded_runs import RecordedRun
from zsg_core.errors import UserError
from zsg_core.metrics import summaries as summary_keys
from zsg_core.metrics.summaries import AVERAGE, MEDIAN, PROMPTS, Q1, Q3

logger = logging.getLogger(__name__)

WRITER = "summaries"  # what stands in place of the name of a journal's writer


def list_tracked(record: GridRecord) -> tuple[str, ...]:
    """The keys of summaries that MLflow is told of: the averages that the grid names,
    what it says to track, and what its claims are of. A median has its quartiles beside
    it."""
    settings = replace_unset(record.summaries, Summaries())
    keys = [f"{AVERAGE}/{name}" for name in settings.averages]
    keys += settings.tracked
    for claim in record.claims or []:
        keys += filter(summary_keys.is_summary, _list_metrics(claim.claim))
    return tuple(dict.fromkeys(_add_quartiles(keys)))


def _list_metrics(claim: str) -> list[str]:
    """The metrics of a claim as a record keeps it; none of what is no claim."""
    try:
        document: Any = json.loads(claim)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    named = [document.get("metric"), *(document.get("than") or [])]
    return [metric for metric in named if isinstance(metric, str)]


def _add_quartiles(keys: Iterable[str]) -> Iterable[str]:
    """The keys in their order, the first and the third quartile behind each median over
    prompts."""
    median = f"{PROMPTS}/{MEDIAN}/"
    for key in keys:
        yield key
        if key.startswith(median):
            inner = key.removeprefix(median)
            yield f"{PROMPTS}/{Q1}/{inner}"
            yield f"{PROMPTS}/{Q3}/{inner}"


def collect_points(
    workspace: Workspace, row: ListedRun, record: GridRecord, keys: Sequence[str]
) -> list[Point]:
    """The points of these summaries of a run, the earliest first; those that cannot be
    computed are told and left out."""
    points: list[Point] = []
    if not keys:
        return points
    run = RecordedRun(workspace, row, summaries=replace_unset(record.summaries))
    for key in keys:
        try:
            points += run.points(key).values()
        except (Damaged, UserError) as error:
            logger.warning(f"{row.run}: {key} is not sent: {error}")
    return sorted(points, key=lambda point: (point.ts, point.step, point.key))
