"""Reads the claims of a grid file, and checks that each is of axes and values that the grid has."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from launcher.grids import published
from launcher.workspace import yaml_file
from launcher.workspace.yaml_file import Document, Place
from zsg_core.schema_errors import describe_unknown_key, format_brief, suggest_nearest
from zsg_core.settings.claims import (
    FEWEST_PLACES,
    KINDS,
    OF_A_GRID,
    Claim,
    Correlates,
    explain_too_few_places,
)

Row = dict[str, Any]


def read_claims(
    document: Document,
    axes: Sequence[Mapping[str, Any]] | None,
    most_stages: Callable[[], int],
) -> tuple[Claim, ...]:
    """The claims of a grid whose points have these axes and at most so many stages.

    UserError with the line for one that cannot be decided. `axes` is None where they
    were held against the points when the grid was submitted: of points that are one run
    only the first one's values are kept.
    """
    given = document.value.get("claims") or []
    if not isinstance(given, list):
        raise document.error(
            ("claims",),
            "`claims` must be a list of mappings such as {claim: falls_early}",
        )
    try:
        claims = OF_A_GRID.validate_python(given)
    except ValidationError as error:
        raise document.error(*_told(error)) from None
    for number, claim in enumerate(claims):
        if axes is not None:
            for key, value in claim.places:
                _check(document, ("claims", number), key, value, axes)
        if (
            claim.published is not None
            and claim.published not in published.list_published()
        ):
            known = published.list_published()
            hint = suggest_nearest(claim.published, known)
            message = f"no published curves {format_brief(claim.published)}.{hint}"
            raise document.error(
                ("claims", number, "published"),
                f"{message} There are: {', '.join(known)}",
            )
        if claim.stage is not None and claim.stage > most_stages():
            message = (
                f"stage {claim.stage}: the runs have {most_stages()} stages at most"
            )
            raise document.error(("claims", number, "stage"), message)
    return tuple(claims)


def find_notes(document: Document, claims: Sequence[Claim]) -> list[str]:
    """What is to be told of claims that no run can decide, each with its line."""
    return [
        f"{yaml_file.shown(document.path)}:{document.line(('claims', number, 'values'))}: this"
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
    claims: Sequence[Claim], known: Sequence[Row], now: int, done: Callable[[], int]
) -> list[Row]:
    """Each claim with when it was first submitted, in ms, and how many of the grid's
    runs were done by then.

    `known` is what this returned before. So a report can tell a claim from one that was
    made to fit the results.
    """
    of = {row["claim"]: row for row in known}
    return [
        of.get(make_claim_key(claim))
        or {"claim": make_claim_key(claim), "since": now, "done": done()}
        for claim in claims
    ]


def find_doubt(claim: Claim, known: Sequence[Row] | None) -> str | None:
    """Why a claim may not have been fixed before its results were looked at; None where it was."""
    if known is None:  # submitted by an older zsg
        return None
    found = next((row for row in known if row["claim"] == make_claim_key(claim)), None)
    if found is None:
        return "not among the claims that were submitted"
    return (
        f"first submitted when {found['done']} runs were done"
        if found["done"]
        else None
    )


def _told(error: ValidationError) -> tuple[Place, str]:
    problems = error.errors()
    first = next(
        (one for one in problems if one["type"] == "extra_forbidden"), problems[0]
    )
    number, *rest = first["loc"]
    kind = rest[0] if rest and rest[0] in KINDS else None
    place = rest[1:] if kind else rest
    at: Place = ("claims", number, *place)
    if first["type"] == "extra_forbidden":
        return at, describe_unknown_key(
            str(place[-1]), list(KINDS[str(kind)].model_fields), f"a claim that {kind}"
        )
    if first["type"] == "missing":
        meaning = str(KINDS[str(kind)].model_fields[str(place[-1])].description)
        return ("claims", number), f"{place[-1]} is missing: {meaning.rstrip('.')}"
    if first["type"].startswith("union_tag"):
        return (
            "claims",
            number,
        ), f"`claim` must say what is claimed, one of: {', '.join(KINDS)}"
    name = ".".join(map(str, place)) or "a claim"
    return (
        at,
        f"{name}: {first['msg'].removeprefix('Value error, ')}, found"
        f" {format_brief(first['input'])}",
    )


def _check(
    document: Document,
    place: Place,
    key: str,
    value: Any,
    axes: Sequence[Mapping[str, Any]],
) -> None:
    known = list(dict.fromkeys(name for one in axes for name in one))
    if key not in known:
        raise document.error(
            place,
            f"{key!r} is no axis of this grid.{suggest_nearest(key, known)} Axes:"
            f" {', '.join(known)}",
        )
    if not any(key in one and _same(one[key], value) for one in axes):
        there = [format_brief(one[key]) for one in axes if key in one]
        raise document.error(
            place,
            f"no run has {key} {format_brief(value)}; there are: {', '.join(dict.fromkeys(there))}",
        )


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other
