"""Says what is wrong with a setting in one line: what was found, what is allowed, the
nearest valid name."""

import difflib
import re
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from zsg_core.secrets import hide_in_addresses

Place = tuple[str | int, ...]

PLAIN = {  # where the words of pydantic are those of a programmer
    "model_type": "must be a mapping of settings",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}


def find_first_problem(
    error: ValidationError, schema: type[BaseModel]
) -> tuple[Place, str]:
    """The place of the first error within the settings, and its message; of unknown
    keys before missing ones.

    A key that is misspelt is both, and its own name is what is to be corrected.
    """
    problems = error.errors()
    problem = next(
        (one for one in problems if one["type"] == "extra_forbidden"), problems[0]
    )
    place = problem["loc"]
    name = ".".join(str(part) for part in place)
    if problem["type"] == "extra_forbidden":
        return place, describe_unknown_key(
            str(place[-1]),
            list_known_keys(schema, place[:-1]),
            ".".join(map(str, place[:-1])),
        )
    if problem["type"] == "missing":
        return place[:-1], f"{name} is missing and has no default"
    message = PLAIN.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    found = problem["input"]
    shown = "" if isinstance(found, dict) else f", found {format_brief(found)}"
    known = (
        re.findall(r"'([^']*)'", message) if problem["type"] == "literal_error" else []
    )
    return (
        place,
        f"{name}: {message}{'' if repr(found) in message else shown}."
        f"{suggest_nearest(str(found), known)}".rstrip("."),
    )


def describe_unknown_key(key: str, known: Sequence[str], where: str = "") -> str:
    """The message for a key that does not exist."""
    section = f" in {where}" if where else ""
    hint = suggest_nearest(key, known)
    listed = ", ".join(_beside(key, known))
    return f"unknown key {format_brief(key)}{section}.{hint} Known: {listed}"


def _beside(key: str, known: Sequence[str]) -> list[str]:
    """Of many dotted keys those of the section that a key means, or the sections."""
    above = key
    while above := above.rpartition(".")[0]:
        if inside := [one for one in known if one.rpartition(".")[0] == above]:
            return inside
    return [one for one in known if "." not in one]


# What other tools call it, where no spelling is near.
ELSEWHERE = {
    "modules": "setup",
    "module": "setup",
    "module_load": "setup",
    "lora": "tuning",
    "rank": "train.tuning.r",
    "train.tuning.rank": "train.tuning.r",
    "train.lora": "train.tuning",
    "train.lora.r": "train.tuning.r",
}


def suggest_nearest(word: str, known: Sequence[str]) -> str:
    """A question that names the most similar of the known words; empty if none is similar."""
    if (meant := ELSEWHERE.get(word)) in known:
        return f" Did you mean {meant!r}?"
    near = difflib.get_close_matches(word[:100], known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def format_brief(value: Any) -> str:
    """A value as a message shows it: on one line, escaped, not longer than a line, no
    password of an address in it."""
    shown = hide_in_addresses(repr(value))
    return shown if len(shown) <= 120 else f"{shown[:80]}… ({len(shown):,} characters)"


def list_known_keys(schema: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The keys allowed at a place of the settings."""
    model: Any = schema
    parts = list(place)
    while parts:
        field = model.model_fields[str(parts.pop(0))].annotation
        if maps_free_names(field):
            parts = parts[1:]  # the name is the user's own
        model = find_model(field)
    return list(model.model_fields)


def list_leaf_keys(
    schema: type[BaseModel], key: str = "", prefix: str = ""
) -> list[str]:
    """Every dotted key that names a mapping or a value of the settings.

    Where names are the user's own, as those of data.sources, the ones that `key` says
    stand for all.
    """
    keys: list[str] = []
    first, _, rest = key.partition(".")
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        inner, below = find_model(field.annotation), f"{prefix}{name}."
        own = rest if first == name else ""
        if inner is not None and maps_free_names(field.annotation):
            named, _, own = own.partition(".")
            below += f"{named or 'NAME'}."
            keys += [below[:-1]]
        if inner is not None:
            keys += list_leaf_keys(inner, own, below)
    return keys


def find_model(annotation: Any) -> type[BaseModel] | None:
    """The model within a field's type, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if _is_union(annotation) or typing.get_origin(annotation) in (dict, Annotated):
        return next(
            (m for part in typing.get_args(annotation) if (m := find_model(part))), None
        )
    return None


def maps_free_names(annotation: Any) -> bool:
    """Whether a field is a mapping from names of the user's own to models."""
    if _is_union(annotation) or typing.get_origin(annotation) is Annotated:
        return any(maps_free_names(part) for part in typing.get_args(annotation))
    return typing.get_origin(annotation) is dict and find_model(annotation) is not None


def _is_union(annotation: Any) -> bool:
    return (
        isinstance(annotation, types.UnionType)
        or typing.get_origin(annotation) is typing.Union
    )
