"""Says what is wrong with a setting in one line: what was found, what is allowed, the
nearest valid name."""

import difflib
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zsg_core.secrets import hide_in_addresses
from zsg_core.shown_text import make_showable

Place = tuple[str | int, ...]

FEWEST_LETTERS = 3  # of a beginning that stands for a whole word
LONGEST_NAME = 100  # characters of a key, as messages show it
NEAR = 0.65  # from which two words are similar enough to be one misspelt
OF_KEY = "[key]"  # ends a path of pydantic that means a key, not its value
# how pydantic names, within a path, the kinds of a value that may be of several
KIND = re.compile(r"(\[key\]$|(literal|dict|list|tuple|function-[\w-]+)\[)")
PLAIN_KINDS = ("bool", "int", "float", "str", "constrained-str", "constrained-int")
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
    as of a missing key, and a key that is misspelt may explain it. `is_unknown_key`: the
    key itself is none.
    """

    place: Place
    message: str
    of_whole: bool = False
    is_unknown_key: bool = False


def find_first_problem(
    error: ValidationError, schema: type[BaseModel]
) -> tuple[Place, str]:
    """The place of the first error within the settings, and its message; of unknown
    keys before missing ones.

    A key that is misspelt is both, and its own name is what is to be corrected.
    """
    first = find_problems(error, schema)[0]
    return first.place, first.message


def describe_within(
    section: str, error: ValidationError, schema: type[BaseModel]
) -> str:
    """The first error of settings that stand in a section, with the section's name; of
    no section where that is empty."""
    place, message = find_first_problem(error, schema)
    if not section:
        return message
    name = _name_place(place)
    is_named = bool(name) and message.startswith(f"{name}: ")
    return f"{section}.{message}" if is_named else f"{section}: {message}"


def find_problems(error: ValidationError, schema: type[BaseModel]) -> list[Problem]:
    """Each error; of unknown keys before the others.

    What is missing is left out where a key beside it is unknown: it may be that key,
    misspelt. Of a value that may be of several kinds, one error says all kinds.
    """
    details = error.errors(include_url=False)
    unknown = [each for each in details if each["type"] == UNKNOWN_KEY]
    mappings = {each["loc"][:-1] for each in unknown}
    by_place: dict[tuple[Place, bool], Problem] = {}
    for each in details:
        is_explained = each["type"] == MISSING and each["loc"][:-1] in mappings
        if is_explained:
            continue
        problem = _describe_problem(each, schema)
        key = problem.place, problem.of_whole
        before = by_place.get(key)
        by_place[key] = _join_kinds(before, problem) if before else problem
    problems = _leave_deepest(list(by_place.values()))
    return sorted(problems, key=lambda problem: not problem.is_unknown_key)


def _join_kinds(problem: Problem, second: Problem) -> Problem:
    """Two problems of one value as one: what it must be, or what else."""
    allowed, found, value = problem.message.rpartition(", found ")
    _, is_kind, kind = second.message.rpartition(": must be ")
    is_plain = bool(is_kind) and ": must be " in problem.message
    if not is_plain or not found:
        return problem
    other = kind.rpartition(", found ")[0] or kind
    return replace(problem, message=f"{allowed}, or {other}, found {value}")


def _leave_deepest(problems: Sequence[Problem]) -> list[Problem]:
    """The problems without those of a value within which there is another: it was held
    to be of another kind as well."""
    within = {
        problem.place[:depth]
        for problem in problems
        for depth in range(1, len(problem.place))
        if not problem.of_whole
    }
    return [
        problem
        for problem in problems
        if problem.of_whole or problem.place not in within
    ]


def _describe_problem(detail: ErrorDetails, schema: type[BaseModel]) -> Problem:
    """An error of pydantic as whoever writes the settings would put it."""
    *above, last = detail["loc"] or ("",)
    if detail["type"] == UNKNOWN_KEY:
        # it may look like one of these kinds
        path = (*_leave_out_kinds(tuple(above), schema), last)
        message = _describe_unknown_path(schema, path)
        return Problem(path, message, is_unknown_key=True)
    path = _leave_out_kinds(detail["loc"], schema)
    name = _name_place(path)
    if detail["type"] == MISSING:
        message = f"{name} is missing and has no default"
        return Problem(path[:-1], message, of_whole=True)
    fault = _describe_value_problem(detail)
    if detail["type"] == "model_type":
        fault += _suggest_mapping(schema, path, detail["input"])
    if last == OF_KEY:
        section = _name_place(path[:-1])
        return Problem(path, f"{section}: a key {fault}".rstrip("."))
    message = f"{name}: {fault}".rstrip(".").removeprefix(": ")
    of_whole = isinstance(detail["input"], dict | BaseModel) and (
        detail["type"] == "value_error"
    )
    return Problem(path, message, of_whole)


def _name_place(place: Place) -> str:
    """A place as a message names it, on one line: a name of the user's own, as that of a
    source, may hold anything."""
    names: list[str] = []
    for part in place:
        name = make_showable(str(part), keep="")
        if len(name) > LONGEST_NAME:
            name = f"{name[:LONGEST_NAME]}…"
        names.append(name)
    return ".".join(names)


def _suggest_mapping(schema: type[BaseModel], path: Place, value: Any) -> str:
    """The mapping that a word may stand for: that of the first key of the section which
    has the word among its choices."""
    section = schema
    for name in path:
        field = section.model_fields.get(str(name))
        inner = find_model(field.annotation) if field else None
        if inner is None:
            return ""
        section = inner
    for key, field in section.model_fields.items():
        if value in typing.get_args(field.annotation):
            return f" Did you mean {{{key}: {value}}}?"
    # where there is a name beside the path, both are needed
    has_path_alone = (
        "path" in section.model_fields and "name" not in section.model_fields
    )
    if isinstance(value, str) and has_path_alone:
        return f" Did you mean {{path: {format_brief(value)}}}?"
    return ""


def _leave_out_kinds(path: Place, schema: type[BaseModel]) -> Place:
    """A path of pydantic without the kinds that it names of a value that may be of
    several, and without its mark of a key."""
    models = _list_model_names(schema)
    last = len(path) - 1
    keys: list[str | int] = []
    for number, part in enumerate(path):
        is_kind = isinstance(part, str) and (
            part in models
            or KIND.match(part) is not None
            or (number == last and part in PLAIN_KINDS)
        )
        if not is_kind:
            keys.append(part)
    return tuple(keys)


@lru_cache(maxsize=100)
def _list_model_names(schema: type[BaseModel]) -> frozenset[str]:
    """The names of the classes of all mappings within settings."""
    names: set[str] = set()
    for field in schema.model_fields.values():
        inner = find_model(field.annotation)
        if inner is not None:
            names |= {inner.__name__, *_list_model_names(inner)}
    return frozenset(names)


@lru_cache(maxsize=1000)
def _describe_unknown_path(schema: type[BaseModel], path: Place) -> str:
    """The message for a key that does not exist, which many points may have."""
    section = _name_place(path[:-1])
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
    "Dictionary should have": "must have",
    "Tuple should have": "must have",
    "must be True": "must be true",
    "must be False": "must be false",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid list": "a list",
    "a valid dictionary or object to extract fields from": "a mapping",
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
    return re.sub(r" or instance of \w+$", "", message)


def _describe_value_problem(problem: ErrorDetails) -> str:
    """What is wrong with a value, the value, and what may have been meant."""
    message = PLAIN.get(problem["type"], write_plainly(problem["msg"]))
    value = problem["input"]
    sentence = message
    is_in_message = repr(value) in message
    if not is_in_message and not isinstance(value, dict):
        sentence = f"{message}, found {_write_found(value)}"
    allowed: list[str] = []
    if problem["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", message)
    suggestion = suggest_nearest(str(value), allowed)
    return f"{sentence}.{suggestion}"


def describe_unknown_key(key: str, allowed: Sequence[str], section: str = "") -> str:
    """The message for a key that does not exist."""
    in_section = f" in {section}" if section else ""
    unknown = f"unknown key {format_brief(key)}{in_section}."
    whole_key = f"{section}.{key}" if section else key
    meant = _find_meant_by_others(whole_key)
    if meant:
        return f"{unknown} {meant}"
    return f"{unknown}{suggest_nearest(key, allowed)} {_list_keys_beside(key, allowed)}"


def _write_found(value: Any) -> str:
    """A value as a message shows it; what YAML has words for in these."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else format_brief(value)


def _find_meant_by_others(key: str) -> str | None:
    """How zsg says what other tools call so; the longest end of a dotted key counts."""
    words = key.split(".")
    ends = (".".join(words[start:]) for start in range(len(words)))
    return next((MEANT_BY_OTHERS[end] for end in ends if end in MEANT_BY_OTHERS), None)


def _list_keys_beside(key: str, keys: Sequence[str]) -> str:
    """Of many dotted keys those of the section that a key means, or the sections, as a
    message lists them."""
    above = key
    while above := above.rpartition(".")[0]:
        start = f"{above}."
        inside = [
            candidate.removeprefix(start)
            for candidate in keys
            if candidate.rpartition(".")[0] == above
        ]
        if inside:
            return f"Known in {above}: {', '.join(inside)}"
    sections = [candidate for candidate in keys if "." not in candidate]
    return f"Known: {', '.join(sections)}"


# What other tools call it, where no spelling is near.
ELSEWHERE = {
    "lora": "train.tuning",
    "rank": "train.tuning.r",
    "lora_r": "train.tuning.r",
}


_WHOLE_BATCH = (
    "In a grid that is train.batch: the examples of a step over all GPUs together, which"
    " zsg divides by itself"
)
_LORA = "In a grid that is train.tuning.{key}, with train.tuning.method: lora"
_LORA_R, _LORA_ALPHA = _LORA.format(key="r"), _LORA.format(key="alpha")
_MODULES = "Module lines go into `setup` of the profile, such as setup: [module load cuda/12.4]"
_GPUS = "GPUs are said as resources.nodes and resources.ranks_per_node, one GPU for each rank"
# Settings of other tools, by the last words of a key, and how zsg says the same.
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
    "lora": "In a grid that is train.tuning: {method: lora}",
    "lora_r": _LORA_R,
    "lora_rank": _LORA_R,
    "lora.r": _LORA_R,
    "lora.rank": _LORA_R,
    "tuning.rank": _LORA_R,
    "lora_alpha": _LORA_ALPHA,
    "lora.alpha": _LORA_ALPHA,
    "gpus": _GPUS,
    "num_gpus": _GPUS,
    "n_gpus": _GPUS,
    "module": _MODULES,
    "modules": _MODULES,
    "module_load": _MODULES,
}


def suggest_nearest(word: str, allowed: Sequence[str]) -> str:
    """A question that names the most similar of the known words, or the only dotted one
    that ends in the word; empty if none is similar.

    Of dotted keys the last words must be similar, too: all keys of a section begin alike.
    """
    meant = ELSEWHERE.get(word)
    ending = [candidate for candidate in allowed if candidate.endswith(f".{word}")]
    if meant in allowed:
        return f" Did you mean {meant!r}?"
    if len(ending) == 1:
        return f" Did you mean {ending[0]!r}?"
    longer = [candidate for candidate in allowed if candidate.startswith(word)]
    if len(word) >= FEWEST_LETTERS and longer:
        return f" Did you mean {longer[0]!r}?"
    last = word[:100].rpartition(".")[2]
    for similar in difflib.get_close_matches(word[:100], allowed, n=5, cutoff=NEAR):
        matcher = difflib.SequenceMatcher(None, last, similar.rpartition(".")[2])
        if matcher.ratio() >= NEAR:
            return f" Did you mean {similar!r}?"
    return ""


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
        elif remaining and isinstance(remaining[0], int):
            remaining = remaining[1:]  # of a list, which entry
            (field,) = typing.get_args(field)
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
