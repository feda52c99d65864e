"""Says what is wrong with a setting in one line: what was found, what is allowed, the
nearest valid name."""

import difflib
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zsg_core.secrets import hide_in_addresses

Place = tuple[str | int, ...]

UNKNOWN_KEY, MISSING = "extra_forbidden", "missing"  # as pydantic calls them

PLAIN = {  # where the words of pydantic are those of a programmer
    "model_type": "must be a mapping of settings",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a value, or with what a mapping holds together.

    `place` is where it is to be corrected. `of_whole`: it is said of a whole mapping,
    as of a missing key, and a key that is misspelt may explain it.
    """

    place: Place
    message: str
    of_whole: bool = False


def find_first_problem(
    error: ValidationError, schema: type[BaseModel]
) -> tuple[Place, str]:
    """The place of the first error within the settings, and its message; of unknown
    keys before missing ones.

    A key that is misspelt is both, and its own name is what is to be corrected.
    """
    first = find_problems(error, schema)[0]
    return first.place, first.message


def find_problems(error: ValidationError, schema: type[BaseModel]) -> list[Problem]:
    """Each error; of unknown keys before the others.

    What is missing is left out where a key beside it is unknown: it may be that key,
    misspelt. Of a value that may be of several kinds, the first kind's.
    """
    details = error.errors(include_url=False)
    unknown = [each for each in details if each["type"] == UNKNOWN_KEY]
    mappings = {each["loc"][:-1] for each in unknown}
    problems = [describe_problem(each, schema) for each in unknown]
    for each in details:
        is_explained = each["type"] == MISSING and each["loc"][:-1] in mappings
        if each["type"] != UNKNOWN_KEY and not is_explained:
            problems.append(describe_problem(each, schema))
    return problems


def describe_problem(detail: ErrorDetails, schema: type[BaseModel]) -> Problem:
    """An error of pydantic as whoever writes the settings would put it."""
    path = detail["loc"]
    name = ".".join(map(str, path))
    if detail["type"] == UNKNOWN_KEY:
        return Problem(path, _describe_unknown_path(schema, path))
    if detail["type"] == MISSING:
        message = f"{name} is missing and has no default"
        return Problem(path[:-1], message, of_whole=True)
    message = f"{name}: {_describe_value_problem(detail)}".rstrip(".").removeprefix(
        ": "
    )
    of_whole = isinstance(detail["input"], dict | BaseModel)
    return Problem(path, message, of_whole)


@lru_cache(maxsize=1000)
def _describe_unknown_path(schema: type[BaseModel], path: Place) -> str:
    """The message for a key that does not exist, which many points may have."""
    section = ".".join(map(str, path[:-1]))
    key = str(path[-1])
    allowed = list_known_keys(schema, path[:-1])
    if not section:
        allowed = list_leaf_keys(schema, key)
    return describe_unknown_key(key, allowed, section)


# the words that pydantic has for programmers, and those of a user; in this order
WORDS = {
    "Value error, ": "",
    "Input should be ": "must be ",
    "Extra inputs are not permitted": "is not known here",
    "Field required": "is missing",
    "String should match pattern": "must match",
    "String should have": "must have",
    "List should have": "must have",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
    "a valid dictionary": "a mapping",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    " after validation": "",
    "greater than": "more than",
}


def write_plainly(message: str) -> str:
    """A message of pydantic in the words of whoever writes a grid."""
    for programmers, users in WORDS.items():
        message = message.replace(programmers, users)
    return message


def _describe_value_problem(problem: ErrorDetails) -> str:
    """What is wrong with a value, the value, and what may have been meant."""
    message = PLAIN.get(problem["type"], write_plainly(problem["msg"]))
    value = problem["input"]
    sentence = message
    is_in_message = repr(value) in message
    if not is_in_message and not isinstance(value, dict):
        sentence = f"{message}, found {format_brief(value)}"
    allowed: list[str] = []
    if problem["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", message)
    suggestion = suggest_nearest(str(value), allowed)
    return f"{sentence}.{suggestion}"


def describe_unknown_key(key: str, allowed: Sequence[str], section: str = "") -> str:
    """The message for a key that does not exist."""
    in_section = f" in {section}" if section else ""
    word = key.rpartition(".")[2]
    hint = suggest_nearest(key, allowed)
    if word in MEANT_BY_OTHERS:
        hint = f" {MEANT_BY_OTHERS[word]}."
    listed = ", ".join(_list_keys_beside(key, allowed))
    return f"unknown key {format_brief(key)}{in_section}.{hint} Known: {listed}"


def _list_keys_beside(key: str, keys: Sequence[str]) -> list[str]:
    """Of many dotted keys those of the section that a key means, or the sections."""
    above = key
    while above := above.rpartition(".")[0]:
        if inside := [
            candidate for candidate in keys if candidate.rpartition(".")[0] == above
        ]:
            return inside
    return [candidate for candidate in keys if "." not in candidate]


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


_WHOLE_BATCH = (
    "In a grid that is train.batch: the examples of a step over all GPUs together, which"
    " zsg divides by itself"
)
# Settings of other trainers, by the last word of a key, and how a grid says the same.
MEANT_BY_OTHERS = {
    "learning_rate": "In a grid that is train.lr",
    "num_train_epochs": "In a grid that is train.epochs",
    "num_epochs": "In a grid that is train.epochs",
    "max_steps": "In a grid that is train.steps",
    "max_seq_length": "In a grid that is train.max_length",
    "max_seq_len": "In a grid that is train.max_length",
    "sequence_len": "In a grid that is train.max_length",
    "cutoff_len": "In a grid that is train.max_length",
    "bf16": "In a grid that is train.precision: bf16",
    "fp16": "In a grid that is train.precision: fp16",
    "batch_size": _WHOLE_BATCH,
    "micro_batch_size": _WHOLE_BATCH,
    "per_device_train_batch_size": _WHOLE_BATCH,
    "gradient_accumulation": _WHOLE_BATCH,
    "gradient_accumulation_steps": _WHOLE_BATCH,
    "lora_r": "In a grid that is train.tuning.r, with train.tuning.method: lora",
    "lora_rank": "In a grid that is train.tuning.r, with train.tuning.method: lora",
    "lora_alpha": "In a grid that is train.tuning.alpha, with train.tuning.method: lora",
}


def suggest_nearest(word: str, allowed: Sequence[str]) -> str:
    """A question that names the most similar of the known words; empty if none is similar."""
    if (meant := ELSEWHERE.get(word)) in allowed:
        return f" Did you mean {meant!r}?"
    similar = difflib.get_close_matches(word[:100], allowed, n=1, cutoff=0.5)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def format_brief(value: Any) -> str:
    """A value as a message shows it: on one line, escaped, not longer than a line, no
    password of an address in it."""
    text = hide_in_addresses(repr(value))
    return text if len(text) <= 120 else f"{text[:80]}… ({len(text):,} characters)"


def list_known_keys(schema: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys allowed at a place of the settings."""
    model: Any = schema
    remaining = list(path)
    while remaining:
        field = model.model_fields[str(remaining.pop(0))].annotation
        if maps_free_names(field):
            remaining = remaining[1:]  # the name is the user's own
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
    first, _, remainder = key.partition(".")
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        inner, below = find_model(field.annotation), f"{prefix}{name}."
        inner_key = remainder if first == name else ""
        if inner is not None and maps_free_names(field.annotation):
            named, _, inner_key = inner_key.partition(".")
            below += f"{named or 'NAME'}."
            keys += [below[:-1]]
        if inner is not None:
            keys += list_leaf_keys(inner, inner_key, below)
    return keys


def find_model(annotation: Any) -> type[BaseModel] | None:
    """The model within a field's type, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if _is_union(annotation) or typing.get_origin(annotation) in (dict, Annotated):
        return next(
            (
                m
                for argument in typing.get_args(annotation)
                if (m := find_model(argument))
            ),
            None,
        )
    return None


def maps_free_names(annotation: Any) -> bool:
    """Whether a field is a mapping from names of the user's own to models."""
    if _is_union(annotation) or typing.get_origin(annotation) is Annotated:
        return any(
            maps_free_names(argument) for argument in typing.get_args(annotation)
        )
    return typing.get_origin(annotation) is dict and find_model(annotation) is not None


def _is_union(annotation: Any) -> bool:
    return (
        isinstance(annotation, types.UnionType)
        or typing.get_origin(annotation) is typing.Union
    )
