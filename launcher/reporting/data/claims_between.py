"""Decides claims that compare runs of several grids, by a file of their own: `points`, which
runs of which grid have a name, and `claims` along it.

    points:
      single: {grid: dmt-single, data.source: gsm8k}
      mixed: {grid: dmt-mixed}
    claims:
      - {claim: rises, along: point, values: [single, mixed]}

They are decided as those of one grid are, by the same rules: runs that are tested on other
items are of no held-out split in common, and nothing is decided of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import msgspec

from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.deciding import judged_claims, run_axes
from jobs.deciding.judged_claims import JudgedClaim
from launcher.grids import grid_claims
from launcher.reporting.data import joined_grids, verdicts
from launcher.reporting.data.joined_grids import JoinedGrids
from launcher.reporting.data.run_groups import GRID
from launcher.workspace import yaml_file
from launcher.workspace.faults import Faults
from launcher.workspace.yaml_file import Document
from zsg_core.digest import content_id
from zsg_core.schema_errors import describe_unknown_key, format_brief
from zsg_core.settings.claims import Claim
from zsg_core.stats.verdict import TOO_FEW

POINTS, CLAIMS = "points", "claims"
# the axis of the runs that a file of claims names
POINT = "point"


@dataclass(frozen=True)
class ClaimFile:
    """The claims of a file, the grids, and these with the file's points as an axis."""

    path: Path
    joined: JoinedGrids
    pointed: JoinedGrids
    claims: Sequence[Claim]

    def choose_record(self, claim: Claim) -> GridRecord:
        """The runs of a claim: they have points only where it names one, or runs of
        several points would be groups of their own."""
        names = [name for name, _ in claim.places]
        chosen = self.pointed if POINT in names else self.joined
        return chosen.record


def read_claim_file(path: Path, joined: JoinedGrids) -> ClaimFile:
    """A file of claims between grids. UserError with the line of whatever is wrong in it:
    another key, a point that no run has or two points that share one, an axis or a value
    that there is not."""
    document = yaml_file.load_document(path)
    content = _read_content(document)
    pointed = _name_points(document, content.get(POINTS) or {}, joined)
    rows = pointed.record.runs
    stages = max((len(row.recipe.get("stages", [])) for row in rows), default=1)
    axes = [row.axes for row in rows]
    claims = grid_claims.read_claims(document, axes, lambda: stages)
    return ClaimFile(path, joined, pointed, claims)


def _read_content(document: Document) -> dict[str, Any]:
    """The file as a mapping of the keys that it may have."""
    if not isinstance(document.value, dict):
        raise document.error(
            (), "must be a mapping with `claims`, and `points` beside it"
        )
    content = cast("dict[Any, Any]", document.value)
    for key in content:
        if key not in (POINTS, CLAIMS):
            raise document.error(
                (key,),
                describe_unknown_key(str(key), [POINTS, CLAIMS], "a file of claims"),
            )
    if not isinstance(content.get(CLAIMS), list) or not content[CLAIMS]:
        raise document.error(
            (CLAIMS,),
            "`claims` must be a list of mappings such as {claim: rises, along: point, values:"
            " [single, mixed]}; looks are of one grid, and stand in its file",
        )
    if not isinstance(content.get(POINTS) or {}, dict):
        raise document.error(
            (POINTS,),
            "`points` must be a mapping of names such as mixed: {grid: A, strategy: mixed}",
        )
    return content


def _name_points(
    document: Document, points: Mapping[Any, Any], joined: JoinedGrids
) -> JoinedGrids:
    """The grids, with the points as an axis of the runs that they are of."""
    listed = {row.run for row in joined.record.runs}
    point_of: dict[str, str] = {}
    faults = Faults()
    for name, axes in points.items():
        with faults.collecting():
            _check_point(document, name, axes, joined)
            runs = joined_grids.list_of_point(joined, axes, listed)
            if not runs:
                raise document.error(
                    (POINTS, name), f"point {name}: no run has all of this"
                )
            taken = [run for run in runs if run in point_of]
            if taken:
                raise document.error(
                    (POINTS, name),
                    f"point {name}: run {taken[0]} is of point {point_of[taken[0]]}, too",
                )
            point_of |= dict.fromkeys(runs, str(name))
    faults.raise_any()
    rows = [_put_point(row, point_of.get(row.run)) for row in joined.record.runs]
    record = msgspec.structs.replace(joined.record, runs=rows)
    return replace(joined, record=record)


def _put_point(row: ListedRun, point: str | None) -> ListedRun:
    if point is None:
        return row
    return msgspec.structs.replace(row, axes={**row.axes, POINT: point})


def _check_point(
    document: Document, name: Any, point: Any, joined: JoinedGrids
) -> None:
    """UserError where a point is none, or names an axis or a value that there is not."""
    if not isinstance(name, str):
        raise document.error(
            (POINTS, name), f"a point's name must be a word, found {format_brief(name)}"
        )
    if not isinstance(point, dict) or not point:
        raise document.error(
            (POINTS, name),
            f"point {name}: must say of which runs it is, such as {{grid: {joined.names[0]}}},"
            f" found {format_brief(point)}",
        )
    axes = [dict(row.axes) for row in joined.record.runs]
    axes += [{GRID: grid} for grid in joined.names]
    for key, value in cast("dict[Any, Any]", point).items():
        problem = grid_claims.explain_no_axis(str(key), value, axes)
        if problem is not None:
            raise document.error((POINTS, name, key), f"point {name}: {problem}")


def judge_between(workspace: Workspace, file: ClaimFile) -> list[JudgedClaim]:
    """The verdicts of a file's claims, claim by claim, with what makes one doubtful."""
    doubt = f"stands in {file.path.name}, beside the grids: when it was written is not known"
    decided: list[JudgedClaim] = []
    for claim in file.claims:
        record = file.choose_record(claim)
        points = [row.axes for row in record.runs]
        for judged in judged_claims.judge_claims(workspace, record, [claim]):
            notes = [*judged.verdict.notes, doubt]
            if judged.verdict.word == TOO_FEW:
                notes += explain_apart(claim, points)
            verdict = replace(judged.verdict, notes=notes)
            decided.append(replace(judged, verdict=verdict))
    return decided


def judge_own(workspace: Workspace, joined: JoinedGrids) -> list[JudgedClaim]:
    """The verdicts of each grid's own claims on its own runs, as its own page has them."""
    decided: list[JudgedClaim] = []
    for name in joined.names:
        for judged in verdicts.judge_grid(workspace, name):
            decided.append(replace(judged, group={GRID: name, **judged.group}))
    return decided


def explain_apart(claim: Claim, points: Sequence[run_axes.Axes]) -> list[str]:
    """Which axes keep a claim's places apart, as they have no value of them in common
    though one has several: then it is not said which of its runs are meant."""
    if claim.axis is None:
        return []
    key, values = claim.axis
    groups = [_list_at(points, key, value) for value in values]
    words = " and ".join(map(run_axes.axis_text, values))
    return [
        f"runs at {words} have no value of {name} in common, and several of it: `points` say"
        " which are compared"
        for name in _list_common_axes(points, key)
        if _is_apart([[axes.get(name) for axes in group] for group in groups])
    ]


def _list_at(
    points: Sequence[run_axes.Axes], key: str, value: Any
) -> list[run_axes.Axes]:
    return [axes for axes in points if axes.get(key) == value]


def _list_common_axes(points: Sequence[run_axes.Axes], key: str) -> list[str]:
    """The axes but for a claim's own, seeds and splits."""
    names = dict.fromkeys(name for axes in points for name in axes)
    return [
        name
        for name in names
        if name != key
        and not run_axes.is_of_split(name)
        and run_axes.last_word(name) not in run_axes.SEEDS
    ]


def _is_apart(groups: Sequence[Sequence[Any]]) -> bool:
    """Whether some group has several values, and groups have none in common."""
    seen = [set(map(content_id, values)) for values in groups if values]
    if len(seen) < 2 or max(map(len, seen)) < 2:
        return False
    return not set.intersection(*seen)
