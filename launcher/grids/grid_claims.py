"""Reads the claims of a grid file, and checks that each is of axes and values that the grid has."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from jobs.contract.grid_record import DatedClaim
from jobs.deciding.run_axes import name_split
from launcher.grids import claim_metrics, grid_summaries, published
from launcher.workspace import yaml_file
from launcher.workspace.faults import Faults
from launcher.workspace.yaml_file import Document, Place
from zsg_core.errors import UserError
from zsg_core.schema_errors import (
    describe_unknown_key,
    format_brief,
    suggest_nearest,
    write_plainly,
)
from zsg_core.settings.claims import (
    FEWEST_PLACES,
    KINDS,
    OF_A_GRID,
    Claim,
    Correlates,
    FallsAt,
    Rises,
    RisesAt,
    Trends,
    explain_too_few_places,
)
from zsg_core.settings.looks import Expectation, Looks
from zsg_core.settings.run import Settings


def read_claims(
    document: Document,
    axes: Sequence[Mapping[str, Any]] | None,
    max_stages: Callable[[], int],
    points: Sequence[Settings] = (),
) -> tuple[Claim, ...]:
    """The claims of a grid whose points have these axes and at most so many stages.

    UserError with the line of each that cannot be decided. `axes` is None where they
    were held against the points when the grid was submitted: of points that are one run
    only the first one's values are kept. `points`: the settings of the grid's, one of
    which must take a claim's metrics; none of a grid that is submitted, whose runs may
    have further ones.
    """
    within, items = _find_claims(document)
    faults = Faults()
    claims: list[Claim] = []
    for number, item in enumerate(items):
        location: Place = (*within, number)
        with faults.collecting():
            claim = _read_claim(document, location, item)
            claims.append(claim)
            _check_claim(document, location, claim, axes, max_stages, faults)
            _check_taken(document, location, claim, points, faults)
    faults.raise_any()
    return tuple(claims)


def _find_claims(document: Document) -> tuple[Place, list[Any]]:
    """Where the claims stand, and what stands there: `claims`, or `claims.list` where it
    is also said when they are looked at."""
    value = document.value.get("claims")
    within: Place = ("claims",)
    items: Any = cast("Any", value or [])
    if isinstance(value, dict) and "list" in value:
        within = ("claims", "list")
        items = cast("dict[str, Any]", value)["list"] or []
    if not isinstance(items, list):
        raise document.error(
            within,
            f"`{'.'.join(map(str, within))}` must be a list of mappings such as"
            " {claim: falls_early}; `claims` with `looks` and `list` beside one another"
            " says when they are looked at",
        )
    return within, cast("list[Any]", items)


def read_looks(
    document: Document, axes: Sequence[Mapping[str, Any]] | None
) -> Looks | None:
    """When the claims of a grid are looked at; None where once, at the end.

    UserError with the line of what cannot be. `axes`: of the grid's points, whose
    held-out splits must be as many as the last look is of; None where these were held
    against it when the grid was submitted.
    """
    value = document.value.get("claims")
    if not isinstance(value, dict) or "list" not in value:
        return None
    claims = cast("dict[str, Any]", value)
    for key in claims:
        if key not in ("looks", "list"):
            raise document.error(
                ("claims", key),
                describe_unknown_key(key, ["looks", "list"], "`claims`"),
            )
    if claims.get("looks") is None:
        return None
    try:
        looks = Looks.model_validate(claims["looks"])
    except ValidationError as error:
        location, problem = _explain_looks(error)
        raise document.error(("claims", "looks", *location), problem) from None
    if not claims["list"]:
        raise document.error(("claims", "list"), "there is no claim to be looked at")
    if axes is not None:
        _check_splits(document, looks, axes)
    return looks


def _explain_looks(error: ValidationError) -> tuple[Place, str]:
    """Where the first problem of `looks` stands, and what it is."""
    problems = error.errors()
    problem = problems[0]
    for each in problems:
        if each["type"] == "extra_forbidden":  # which explains what is missing
            problem = each
            break
    location = tuple(problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = list(Looks.model_fields)
        if location[:-1] == ("expect",):
            fields = list(Expectation.model_fields)
        where = ".".join(("claims", "looks", *map(str, location[:-1])))
        return location, describe_unknown_key(str(location[-1]), fields, f"`{where}`")
    name = ".".join(map(str, location)) or "looks"
    reason = write_plainly(problem["msg"])
    if problem["type"] == "missing":
        return location[:-1], f"{name} is missing"
    return location, f"{name}: {reason}, found {format_brief(problem['input'])}"


def _check_splits(
    document: Document, looks: Looks, axes: Sequence[Mapping[str, Any]]
) -> None:
    """UserError where the last look is not of all held-out splits."""
    splits = len(set(map(name_split, axes)))
    if splits != looks.at[-1]:
        raise document.error(
            ("claims", "looks", "at"),
            f"the last look is after {looks.at[-1]} held-out splits, and the grid has"
            f" {splits}: values of data.held_out, or of a key below it, are splits",
        )


def _read_claim(document: Document, location: Place, item: Any) -> Claim:
    """A claim by itself. UserError with its line."""
    try:
        [claim] = OF_A_GRID.validate_python([item])
    except ValidationError as error:
        (_, _, *keys), problem = _locate_problem(error)
        raise document.error((*location, *keys), problem) from None
    return claim


def _check_claim(
    document: Document,
    location: Place,
    claim: Claim,
    axes: Sequence[Mapping[str, Any]] | None,
    max_stages: Callable[[], int],
    faults: Faults,
) -> None:
    """Adds an error for each axis, value, name and stage of a claim that there is not."""
    if axes is not None:
        for key, value in claim.places:
            with faults.collecting():
                _check_axis(document, location, key, value, axes)
        with faults.collecting():
            _check_decidable(document, location, claim)
    with faults.collecting():
        _check_metrics(document, location, claim)
    with faults.collecting():
        _check_published(document, location, claim)
    _check_stage(document, location, claim, max_stages)


def _check_decidable(document: Document, location: Place, claim: Claim) -> None:
    """UserError for a place that a claim names twice, and for a turn at the end of the
    run: neither can be decided, whatever the runs bring. Only of what is planned: a
    study that has such a claim is still reported."""
    if isinstance(claim, Rises | Trends | Correlates):
        _, values = claim.axis
        for number, value in enumerate(values):
            if any(_is_same(value, earlier) for earlier in values[:number]):
                raise document.error(
                    (*location, "values", number),
                    f"{format_brief(value)} stands in `values` already; name each once",
                )
    if isinstance(claim, FallsAt | RisesAt) and claim.at >= 1:
        raise document.error(
            (*location, "at"),
            "at: is a share of the steps below 1: nothing comes after the run's end",
        )


def read_question(
    question: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]
) -> Claim:
    """A comparison with the keys of a claim, of runs that have these axes. UserError for
    one that cannot be decided."""
    try:
        [claim] = OF_A_GRID.validate_python([question])
    except ValidationError as error:
        (_, _, *keys), problem = _locate_problem(error)
        section = f"{keys[-1]}: " if keys and str(keys[-1]) not in problem else ""
        raise UserError(f"compare: {section}{problem}") from None
    for key, value in claim.places:
        if problem := explain_no_axis(key, value, axes):
            raise UserError(f"compare: {problem}")
    return claim


def _check_metrics(document: Document, location: Place, claim: Claim) -> None:
    """UserError for a summary that there cannot be."""
    try:
        grid_summaries.check_claim(claim, grid_summaries.list_averages(document))
    except UserError as error:
        raise document.error((*location, "metric"), str(error)) from None


def _check_taken(
    document: Document,
    location: Place,
    claim: Claim,
    points: Sequence[Settings],
    faults: Faults,
) -> None:
    """Adds an error for each metric of a claim that no point of the grid takes, and that
    cannot be a score taken in later."""
    if not points:
        return
    for location_in_claim, metric in _list_metric_places(claim):
        with faults.collecting():
            if _is_taken(metric, points):
                continue
            if problem := claim_metrics.explain_untaken(metric, points):
                raise document.error((*location, *location_in_claim), problem)


def _list_metric_places(claim: Claim) -> list[tuple[Place, str]]:
    """Each metric of a claim, with where in the claim it stands."""
    metric, *compared = claim.metrics
    locations: list[tuple[Place, str]] = [(("metric",), metric)]
    for number, name in enumerate(compared):
        locations.append((("than", number), name))
    return locations


def _is_taken(metric: str, points: Sequence[Settings]) -> bool:
    """Whether a run takes a metric; True, too, for the summary that there cannot be,
    which is told for itself."""
    try:
        return claim_metrics.is_taken(metric, points)
    except UserError:
        return True


def _check_published(document: Document, location: Place, claim: Claim) -> None:
    if claim.published is None:
        return
    names = [*published.list_published(), *published.list_tables()]
    if claim.published in names:
        return
    hint = suggest_nearest(claim.published, names)
    raise document.error(
        (*location, "published"),
        f"no published curves or table {format_brief(claim.published)}.{hint} There are:"
        f" {', '.join(names)}",
    )


def _check_stage(
    document: Document, location: Place, claim: Claim, max_stages: Callable[[], int]
) -> None:
    if claim.stage is not None and claim.stage > max_stages():
        message = f"stage {claim.stage}: the runs have {max_stages()} stages at most"
        raise document.error((*location, "stage"), message)


def find_notes(
    document: Document, claims: Sequence[Claim], points: Sequence[Settings] = ()
) -> list[str]:
    """What is to be told of claims that no run can decide, or that need scores from
    elsewhere, each with its line. `points`: the settings of the grid's."""
    within, _ = _find_claims(document) if claims else (("claims",), [])
    notes = _find_undecidable(document, within, claims)
    for number, claim in enumerate(claims):
        for location_in_claim, metric in _list_metric_places(claim):
            if points and not _is_taken(metric, points):
                line = document.line((*within, number, *location_in_claim))
                notes.append(
                    f"{yaml_file.format_path(document.path)}:{line}: no run of this grid takes"
                    f" the metric {format_brief(metric)}: the claim can be decided when zsg"
                    " score has taken its scores in"
                )
    return notes


def _find_undecidable(
    document: Document, within: Place, claims: Sequence[Claim]
) -> list[str]:
    """What is to be told of claims that no run can decide, each with its line."""
    return [
        f"{yaml_file.format_path(document.path)}:"
        f"{document.line((*within, number, 'values'))}: this"
        f" claim will stay undecided: {explain_too_few_places(len(claim.values))}"
        for number, claim in enumerate(claims)
        if isinstance(claim, Correlates) and len(claim.values) < FEWEST_PLACES
    ]


def make_claim_key(claim: Claim) -> str:
    """A claim as text, the same for the same claim however it is written; what is drawn
    beside it does not matter."""
    return json.dumps(
        claim.model_dump(mode="json", exclude={"published"}), sort_keys=True
    )


def date_claims(
    claims: Sequence[Claim],
    recorded: Sequence[DatedClaim],
    now: int,
    count_done: Callable[[], int],
) -> list[DatedClaim]:
    """Each claim with when it was first submitted, in ms, and how many of the grid's
    runs were done by then.

    `recorded` is what this returned before. So a report can tell a claim from one that
    was made to fit the results.
    """
    rows = {row.claim: row for row in recorded}
    keys = map(make_claim_key, claims)
    return [
        rows.get(key) or DatedClaim(claim=key, since=now, done=count_done())
        for key in keys
    ]


def find_doubt(claim: Claim, recorded: Sequence[DatedClaim] | None) -> str | None:
    """Why a claim may not have been fixed before its results were looked at; None where it was."""
    if recorded is None:  # submitted by an older zsg
        return None
    key = make_claim_key(claim)
    for row in recorded:
        if row.claim == key:
            finished = row.done
            if not finished:
                return None
            return f"first submitted when {finished} runs were done"
    return "not among the claims that were submitted"


def _locate_problem(error: ValidationError) -> tuple[Place, str]:
    """Where the first problem of the claims stands, and what it is; an unknown key
    first, which explains the others."""
    problems = error.errors()
    problem = problems[0]
    for each in problems:
        if each["type"] == "extra_forbidden":
            problem = each
            break
    number, *keys = problem["loc"]
    kind = ""
    if keys and keys[0] in KINDS:
        kind = str(keys[0])
        keys = keys[1:]
    claim: Place = ("claims", number)
    if problem["type"] == "extra_forbidden":
        fields = list(KINDS[kind].model_fields)
        key = str(keys[-1])
        return (*claim, *keys), describe_unknown_key(
            key, fields, f"a claim that {kind}"
        )
    if problem["type"] == "missing":
        key = str(keys[-1])
        meaning = str(KINDS[kind].model_fields[key].description)
        return claim, f"{key} is missing: {meaning.rstrip('.')}"
    if problem["type"].startswith("union_tag"):
        kinds = ", ".join(KINDS)
        return claim, f"`claim` must say what is claimed, one of: {kinds}"
    name = ".".join(map(str, keys)) or "a claim"
    reason = write_plainly(problem["msg"])
    found = format_brief(problem["input"])
    return (*claim, *keys), f"{name}: {reason}, found {found}"


def _check_axis(
    document: Document,
    location: Place,
    key: str,
    value: Any,
    axes: Sequence[Mapping[str, Any]],
) -> None:
    if problem := explain_no_axis(key, value, axes):
        raise document.error(location, problem)


def explain_no_axis(
    key: str, value: Any, axes: Sequence[Mapping[str, Any]]
) -> str | None:
    """Why no run can be of this value of an axis; None where one is."""
    axis_names = list(dict.fromkeys(name for point in axes for name in point))
    if key not in axis_names:
        return (
            f"{key!r} is no axis of this grid.{suggest_nearest(key, axis_names)} Axes:"
            f" {', '.join(axis_names)}"
        )
    values = [point[key] for point in axes if key in point]
    if any(_is_same(each, value) for each in values):
        return None
    choices = ", ".join(dict.fromkeys(map(format_brief, values)))
    return f"no run has {key} {format_brief(value)}; there are: {choices}"


def _is_same(value: Any, second: Any) -> bool:
    return type(value) is type(second) and value == second
