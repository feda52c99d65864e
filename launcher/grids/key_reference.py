"""Says of every key of a grid and of a profile what it may hold, its default, whether it
enters a run's id, and what it means.

Made from the JSON Schema of `json_schema`, and so from the models of the settings: the
pages below docs/reference, `zsg schema grid KEY` and editors say the same. What alone is
written here is which keys do not enter a run's id (`zsg_core.recipe` decides that; a
test changes each key and looks), and the words for patterns.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from jobs.contract.grid_record import LABEL
from launcher.grids import json_schema
from launcher.grids.json_schema import NAME_PATTERN, NAMED, PLUGIN_PATTERN, Schema
from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief, suggest_nearest

File = Literal["grid", "profile"]

ENTERS, ENTERS_NOT, BY_CONTENT = "yes", "no", "its content"
# Sections and keys that are not plainly part of a run's id; the longest that a key
# begins with counts.
RUN_ID = {
    "name": ENTERS_NOT,
    "profile": ENTERS_NOT,
    "defaults": "by its keys",
    "grid": "by its keys",
    "exclude": ENTERS_NOT,
    "claims": ENTERS_NOT,
    "summaries": ENTERS_NOT,
    "plugins": "what is used of them, by its content",
    "checkpoints": ENTERS_NOT,
    "resources": ENTERS_NOT,
    "model.name": "only whether it is tiny",
    "model.path": BY_CONTENT,
    "data.path": BY_CONTENT,
    "data.test_path": BY_CONTENT,
    "data.tags": BY_CONTENT,
    "data.instructions.path": BY_CONTENT,
    "data.make.by.path": BY_CONTENT,
    "data.make.instag.meaning.embedding": BY_CONTENT,
    "data.make.by.base_url": ENTERS_NOT,
    "data.make.by.key_env": ENTERS_NOT,
    "data.make.by.at_once": ENTERS_NOT,
    "data.make.by.seeds": ENTERS_NOT,
    "data.make.by.price_read": ENTERS_NOT,
    "data.make.by.price_written": ENTERS_NOT,
    "data.make.by.budget": ENTERS_NOT,
    "data.role": "by the stages it makes",
    "strategy": "by the stages it makes",
    "arrangement.embedding": BY_CONTENT,
    "arrangement.path": BY_CONTENT,
    "arrangement.target.path": BY_CONTENT,
    "arrangement.scorer": BY_CONTENT,
    "arrangement.since": BY_CONTENT,
    # what the file lists counts, whatever it is read as
    "arrangement.entries": BY_CONTENT,
    "train.preset": "by the values it sets",
}
OF_A_SOURCE = f"data.sources.{NAMED}."
# keys of the file that hold settings, and are none
LANGUAGE = (
    "defaults",
    "grid",
    "grid.label",
    "grid.zip",
    "exclude",
    "claims",
    "claims.list",
    "summaries",
)

MAPPING = "mapping"

_FRACTION = "a fraction such as 1/4"
PATTERNS = {
    PLUGIN_PATTERN: "name of a Python file",
    r"^\S(.*\S)?$": "name",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "name of letters, digits, . _ -",
    r"^[A-Za-z0-9][\w-]{0,31}$": "name of letters, digits, _ -",
    r"^[A-Za-z_][A-Za-z0-9_]{0,63}$": "name of letters, digits, _",
    r"^[a-z0-9][a-z0-9_-]{0,31}$": "name of small letters, digits, _ -",
    r"^[A-Za-z0-9][\w.-]*$": "name of letters, digits, _ . -",
    r"^[A-Za-z0-9][\w.:-]*$": "name of a device",
    r"^[\w.-]{1,64}$": "name of letters, digits, _ . -",
    r"^[\w.+-]+$": "name of letters, digits, _ . + -",
    r"^[A-Za-z_]\w*$": "name of a variable",
    r"^[a-z][a-z0-9-]*$": "long name of an option",
    r"^lm_eval/[A-Za-z0-9][A-Za-z0-9_.-]{0,150}$": "lm_eval/ and the name of a task",
    r"^[\w.,:@=+/-]+$": "word without blanks or quotes",
    r"^[\w.,:@=+/^-]*$": "word without blanks or quotes, or an empty one",
    r"^[\w.,:@=+/&|*!()\[\]-]+$": "word without blanks or quotes, with brackets, & and |",
    r"^[\w .,:;@=+/&|*!?()\[\]{}<>#%^~'\"-]+$": "text on one line, without \\ ` $",
    r"^(/[\w.-]+|/?\$[A-Za-z_]\w*)(/([\w.-]+|\$[A-Za-z_]\w*))*$": "absolute path, or $VARIABLE/…",
    r"^\s*\d+-\d*:\d+\s*(,\s*\d+-\d*:\d+\s*)*$": "spans such as 1-50:1, 50-:10",
    r"^[A-Za-z]{2,8}(_[A-Za-z0-9]{2,8})*-[A-Za-z]{2,8}(_[A-Za-z0-9]{2,8})*$": (
        "two codes of languages, such as en-is"
    ),
    r"^https?://\S+$": "http:// or https:// address",
}
TYPES = {
    "boolean": "true or false",
    "string": "text",
    "null": "null",
    "integer": "whole number",
    "number": "number",
}


@dataclass(frozen=True)
class KeyEntry:
    """What is known of one key, in words.

    `path` is the key with dots, NAME standing for a name of the user's own, and the kind
    of a claim behind `claims`. `default` is empty for a mapping that is always there, and
    for a key that must be set. `run_id` is empty in a profile, of which nothing enters an
    id.
    """

    path: str
    allowed: str
    default: str
    run_id: str
    description: str
    is_section: bool
    schema: Schema

    @property
    def must_be_set(self) -> bool:
        """Whether zsg refuses a file, or the section, without this key."""
        return not self.default and self.allowed != MAPPING


def list_keys(file: File) -> list[KeyEntry]:
    """Every key of a grid or of a profile, sections before what is in them."""
    return _list_grid_keys() if file == "grid" else _list_profile_keys()


def find_keys(file: File, key: str) -> list[KeyEntry]:
    """The entry of a key, and those of the keys within it.

    `key` is a dotted key, with a name of the user's own or NAME, or the end of one that
    no other key has. UserError for an ambiguous or unknown key, with what was meant.
    """
    entries = list_keys(file)
    path = _resolve_key(key, [entry.path for entry in entries], file)
    return [
        entry
        for entry in entries
        if entry.path == path or entry.path.startswith(f"{path}.")
    ]


def schema_of_key(file: File, key: str) -> Schema:
    """The JSON Schema of one key, with the definitions that it needs. UserError as
    `find_keys`."""
    entry = find_keys(file, key)[0]
    document = (
        json_schema.make_grid_schema()
        if file == "grid"
        else json_schema.make_profile_schema()
    )
    # draft 7 reads nothing beside a `$ref`
    schema = {"allOf": [entry.schema]} if "$ref" in entry.schema else entry.schema
    needed = _collect_definitions(schema, document["definitions"])
    return {
        "$schema": json_schema.DRAFT,
        "title": entry.path,
        **schema,
        **({"definitions": needed} if needed else {}),
    }


def _list_grid_keys() -> list[KeyEntry]:
    document = json_schema.make_grid_schema()
    definitions = document["definitions"]
    entries = list[KeyEntry]()
    for name, schema in document["properties"].items():
        entries.append(_make_entry(name, schema, definitions, "grid"))
        if name == "grid":
            in_block = definitions["block"]["properties"]
            for key in (LABEL, "zip"):
                entry = _make_entry(f"grid.{key}", in_block[key], definitions, "grid")
                entries.append(entry)
        if name == "claims":
            entries += _list_claim_keys(schema, definitions)
        if name == "summaries":
            keys = _definition("#/definitions/Summaries", definitions)["properties"]
            for key, within in keys.items():
                entries.append(
                    _make_entry(f"{name}.{key}", within, definitions, "grid")
                )
    settings = definitions["settings"]["properties"]
    entries += [
        _make_entry(path, schema, definitions, "grid")
        for path, schema in settings.items()
    ]
    return entries


def _list_claim_keys(claims: Schema, definitions: Schema) -> Iterator[KeyEntry]:
    listed, beside = claims["anyOf"][:2]
    for name, schema in beside["properties"].items():
        yield _make_entry(f"claims.{name}", schema, definitions, "grid")
    yield from _list_look_keys("claims.looks", "Looks", definitions)
    kinds = listed["items"]["discriminator"]["mapping"]
    for kind, reference in sorted(kinds.items()):
        path = f"claims.{kind}"
        yield _make_entry(path, {"$ref": reference}, definitions, "grid")
        for name, schema in _definition(reference, definitions)["properties"].items():
            yield _make_entry(f"{path}.{name}", schema, definitions, "grid")


def _list_look_keys(path: str, model: str, definitions: Schema) -> Iterator[KeyEntry]:
    """The keys of when claims are looked at, with those of what is expected."""
    for name, schema in definitions[model]["properties"].items():
        yield _make_entry(f"{path}.{name}", schema, definitions, "grid")
        if name == "expect":
            yield from _list_look_keys(f"{path}.{name}", "Expectation", definitions)


def _list_profile_keys() -> list[KeyEntry]:
    document = json_schema.make_profile_schema()
    definitions = document["definitions"]
    entries: list[KeyEntry] = []
    for path, schema in json_schema.dotted_keys(document, definitions):
        entries.append(_make_entry(path, schema, definitions, "profile"))
        entries += _list_item_keys(path, schema, definitions)
    return entries


def _list_item_keys(
    path: str, schema: Schema, definitions: Schema
) -> Iterator[KeyEntry]:
    """The keys of each entry of a list of mappings."""
    reference = schema.get("items", {}).get("$ref")
    if reference is None:
        return
    for name, item in _definition(reference, definitions)["properties"].items():
        yield _make_entry(f"{path}.{name}", item, definitions, "profile")


def _make_entry(path: str, schema: Schema, definitions: Schema, file: File) -> KeyEntry:
    references = [
        alternative["$ref"]
        for alternative in (schema, *schema.get("anyOf", []))
        if "$ref" in alternative
    ]
    about = schema.get("description")
    if about is None:
        about = _describe_by_model(path, schema, references, definitions)
    return KeyEntry(
        path=path,
        allowed=describe_values(schema),
        default=_describe_default(schema),
        run_id=_describe_run_id(path) if file == "grid" else "",
        description=about,
        is_section=bool(references) and path not in LANGUAGE,
        schema=schema,
    )


def _describe_by_model(
    path: str, schema: Schema, references: list[str], definitions: Schema
) -> str:
    """The docstring of the section's model; of the key that says a claim's kind, its words."""
    if references:
        text = _definition(references[0], definitions)["description"]
        return " ".join(text.split())
    if "const" in schema:
        return f"Says that this is a claim of the kind {schema['const']}."
    raise KeyError(f"{path} has no description")


def _describe_default(schema: Schema) -> str:
    if "default" not in schema:
        alternatives = schema.get("anyOf", [])
        return "null" if {"type": "null"} in alternatives else ""
    default = schema["default"]
    return default if isinstance(default, str) else json.dumps(default)


def _describe_run_id(path: str) -> str:
    """Whether a key enters the id; a source's keys are those of `data`."""
    path = path.replace(OF_A_SOURCE, "data.")
    while path:
        if path in RUN_ID:
            return RUN_ID[path]
        path = path.rpartition(".")[0]
    return ENTERS


def describe_values(schema: Schema) -> str:
    """The values that a schema allows, in words: "whole number, at least 1; or null"."""
    if "$ref" in schema or "allOf" in schema:
        return MAPPING
    if "const" in schema:
        return _quoted([schema["const"]])
    if "enum" in schema:
        return _quoted(schema["enum"])
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return _describe_alternatives(alternatives)
    return _describe_by_type(schema)


def _describe_by_type(schema: Schema) -> str:
    match schema.get("type"):
        case "array":
            return _describe_list(schema)
        case "object":
            return _describe_mapping(schema)
        case "string":
            return _describe_text(schema)
        case None:
            return "any value"
        case kind:
            return TYPES[kind] + _describe_bounds(schema)


def _describe_alternatives(alternatives: Sequence[Schema]) -> str:
    """Each once, null last."""
    words = list(dict.fromkeys(map(describe_values, alternatives)))
    if "null" in words:
        words = [word for word in words if word != "null"] + ["null"]
    return "; or ".join(words)


def _describe_list(schema: Schema) -> str:
    items = schema.get("items", {})
    if isinstance(items, list):
        each = cast("list[Schema]", items)
        return f"list of {len(each)}, each: {describe_values(each[0])}"
    return f"list of: {describe_values(items)}"


def _describe_mapping(schema: Schema) -> str:
    if "properties" in schema:
        return MAPPING
    for pattern, values in schema.get("patternProperties", {}).items():
        return f"mapping from {PATTERNS[pattern]} to: {describe_values(values)}"
    return MAPPING


def _describe_text(schema: Schema) -> str:
    if "pattern" in schema:
        return PATTERNS.get(schema["pattern"], _FRACTION)
    return (
        f"text, at most {schema['maxLength']} characters"
        if "maxLength" in schema
        else "text"
    )


def _describe_bounds(schema: Schema) -> str:
    """ ", at least 1" and the like; an open end is not told."""
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {schema[key]:,}" for key, word in words.items() if key in schema]
    return "".join(f", {bound}" for bound in bounds)


def _quoted(values: Sequence[Any]) -> str:
    words = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return ", ".join(f"`{word}`" for word in words)


def _resolve_key(key: str, paths: Sequence[str], file: File) -> str:
    for path in paths:
        if _is_same_key(path, key):
            return path
    candidates = _ending_in(key, paths)
    if not candidates:
        raise UserError(_unknown(key, paths, file))
    if len(candidates) > 1:
        raise UserError(
            f"several keys of a {file} end in {format_brief(key)}; say which:"
            f" {', '.join(candidates)}"
        )
    return candidates[0]


def _ending_in(key: str, paths: Sequence[str]) -> list[str]:
    """The paths with this end; of `data` and of its sources, that have the same keys,
    those of `data`."""
    endings = [path for path in paths if path.endswith(f".{key}")]
    return [path for path in endings if not path.startswith(OF_A_SOURCE)] or endings


def _is_same_key(path: str, key: str) -> bool:
    return re.fullmatch(re.escape(path).replace(NAMED, NAME_PATTERN), key) is not None


def _unknown(key: str, paths: Sequence[str], file: File) -> str:
    """The message for a key that there is not, with the nearest, by its end if not as a whole."""
    hint = suggest_nearest(key, paths)
    if not hint:
        by_end = {path.rpartition(".")[2]: path for path in reversed(paths)}
        ends = difflib.get_close_matches(
            key.rpartition(".")[2][:100], list(by_end), n=1
        )
        hint = f" Did you mean {by_end[ends[0]]!r}?" if ends else ""
    sections = [path for path in paths if "." not in path]
    return f"a {file} has no key {format_brief(key)}.{hint} Known at the top: {', '.join(sections)}"


def _definition(reference: str, definitions: Schema) -> Schema:
    return definitions[reference.removeprefix("#/definitions/")]


def _collect_definitions(schema: Any, definitions: Schema) -> Schema:
    """The definitions that a schema refers to, and those that they do, by their names."""
    needed: set[str] = set()
    waiting = set(re.findall(r'"#/definitions/(\w+)', json.dumps(schema)))
    while waiting:
        name = waiting.pop()
        needed.add(name)
        inner = re.findall(r'"#/definitions/(\w+)', json.dumps(definitions[name]))
        waiting |= set(inner) - needed
    return {name: definitions[name] for name in sorted(needed)}
