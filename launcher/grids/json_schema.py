"""Says in JSON Schema what a grid file and a profile may hold, so that editors complete
and check them.

Draft 7, which every YAML language server knows. Made from the models of the settings;
what a schema cannot say, such as that hidden must divide by heads, `zsg plan` says.
"""

import re
from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel

from jobs.contract.grid_record import LABEL
from launcher.clusters.profiles import Profile
from launcher.grids import plugin_files
from launcher.grids.grid import NAME
from launcher.grids.grid_blocks import MOST_LETTERS
from zsg_core.settings.claims import OF_A_GRID
from zsg_core.settings.looks import Looks
from zsg_core.settings.run import Settings
from zsg_core.settings.summaries import SummarySettings

# a name of the user's own within a dotted key
NAMED, NAME_PATTERN = "NAME", r"[A-Za-z0-9][\w-]{0,31}"
PLUGIN_PATTERN = r"^[\w./-]+\.py$"
DRAFT = "http://json-schema.org/draft-07/schema#"

Schema = dict[str, Any]


def make_grid_schema() -> Schema:
    """The schema of a grid file."""
    settings, models = _of(Settings)
    claims = _plain(OF_A_GRID.json_schema(ref_template="#/definitions/{model}"))
    kinds = claims.pop("$defs")
    looks, kinds_of_looks = _of(Looks)
    summaries = _plain(SummarySettings.model_json_schema())
    values = dict(dotted_keys(settings, models))
    axes = {key: _axis(key, value) for key, value in values.items()}
    columns = {key: _listed(key, value) for key, value in values.items()}
    zipped = _mapping(
        columns,
        description="Lists of equal length that are walked together, not multiplied.",
        minProperties=1,
    )
    label = _or_null(
        {"type": "string", "pattern": r"^\S(.*\S)?$", "maxLength": MOST_LETTERS},
        "A name for the points of the block, shown in place of the values that they "
        "share. Run ids do not change by it. Null means none.",
    )
    sections = {
        "settings": _mapping(values),
        "block": _mapping(
            axes | {"zip": zipped, LABEL: label},
            description="A block of the grid: the product of its axes.",
            minProperties=1,
        ),
    }
    block, rule = _ref("block"), {"allOf": [_ref("settings")], "minProperties": 1}
    properties = {
        "name": {
            "type": "string",
            "pattern": f"^{NAME.pattern}$",
            "description": "Name of the grid and of its MLflow experiment, such as wsd-order.",
        },
        "profile": _or_null(
            {"type": "string"},
            "Cluster profile, by name or by file; --profile overrides it. Null means local.",
        ),
        "defaults": _or_null(
            _ref("settings"),
            "Settings of every run, nested (train: {lr: 1e-5}) or dotted (train.lr: 1e-5).",
        ),
        "grid": {
            "description": (
                "The axes: one block, or a list of blocks whose runs are united. A list is an axis;"
                " a value that is a list is bracketed twice. Null means one run, of the defaults."
            ),
            "anyOf": [
                block,
                {"type": "array", "items": block, "minItems": 1},
                {"type": "null"},
            ],
        },
        "exclude": _or_null(
            {"type": "array", "items": rule},
            "Points that have all the values of a rule are left out, such as"
            " [{arrangement.order: fft, seed: 1}].",
        ),
        "claims": {
            "description": (
                "What the study claims, fixed before any result is seen; `zsg report` decides it."
                " A list, or a mapping of `list` and `looks`, which says when it is looked at"
                " before the end. No part of a run's identity."
            ),
            "anyOf": [
                claims,
                _mapping(
                    {
                        "list": claims
                        | {"description": "The claims that are looked at."},
                        "looks": _or_null(
                            _ref("Looks"),
                            "When the claims are looked at. Null means once, at the end.",
                        ),
                    },
                    required=["list"],
                ),
                {"type": "null"},
            ],
        },
        "summaries": _or_null(
            _ref("Summaries"),
            "Summaries of several values: what zsg report, claims and MLflow know of beside"
            " what is measured. No part of a run's identity. Null means none.",
        ),
        "plugins": _or_null(
            {
                "type": "array",
                "items": {"type": "string", "pattern": PLUGIN_PATTERN},
                "minItems": 1,
                "maxItems": plugin_files.MOST,
            },
            "Python files of your own beside the grid, whose metrics, orders, scores and"
            " readers its settings may name, such as [my_metrics.py]. Null means none.",
        ),
    }
    shared = {"Looks": looks, "Summaries": summaries}
    return _document(
        "zsg grid",
        properties,
        models | kinds | kinds_of_looks | shared | sections,
        required=["name"],
    )


def make_profile_schema() -> Schema:
    """The schema of a profile; one that inherits may leave out whatever its parent says."""
    model, models = _of(Profile)
    either = [{"required": ["kind"]}, {"required": ["inherits"]}]
    return _document(
        "zsg profile", model["properties"], models, required=["name"], anyOf=either
    )


def _document(
    title: str, properties: Schema, models: Schema, **keywords: Any
) -> Schema:
    return {
        "$schema": DRAFT,
        "title": title,
        **_mapping(properties, **keywords),
        "definitions": models,
    }


def _of(model: type[BaseModel]) -> tuple[Schema, Schema]:
    """A model's own schema and those of the models within it."""
    whole = _plain(model.model_json_schema(ref_template="#/definitions/{model}"))
    return whole, whole.pop("$defs")


def _plain(schema: Any) -> Any:
    """As draft 7 has it, and without what a partial file need not have: missing keys
    come from elsewhere."""
    if isinstance(schema, list):
        return [_plain(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    mapping = cast("Schema", schema)
    if "$ref" in mapping:
        return {"$ref": mapping["$ref"]}
    plain = {
        key: _plain(value)
        for key, value in mapping.items()
        if not _is_left_out(key, value)
    }
    if "prefixItems" in plain:
        plain["items"] = plain.pop("prefixItems")
    return plain


def _is_left_out(key: str, value: Any) -> bool:
    # By type too: a setting may be called so.
    return (key == "title" and isinstance(value, str)) or (
        key == "required" and isinstance(value, list)
    )


def dotted_keys(
    schema: Schema, models: Schema, prefix: str = ""
) -> Iterator[tuple[str, Schema]]:
    """The schema of every dotted key, of sections as of values; a name that is the
    user's own is NAME."""
    for name, value in schema["properties"].items():
        key = prefix + name
        yield key, value
        for alternative in (value, *value.get("anyOf", [])):
            if "$ref" in alternative:
                yield from dotted_keys(_model(alternative, models), models, f"{key}.")
            for named in alternative.get("patternProperties", {}).values():
                if "$ref" in named:
                    yield f"{key}.{NAMED}", named
                    model = _model(named, models)
                    yield from dotted_keys(model, models, f"{key}.{NAMED}.")


def _model(reference: Schema, models: Schema) -> Schema:
    return models[reference["$ref"].rpartition("/")[2]]


def _axis(key: str, value: Schema) -> Schema:
    """A value or a list of values; for a value that is a list itself only the latter,
    since a list is an axis. What may be a list or a single value is either."""
    alternatives = (value, *value.get("anyOf", []))
    if any(each.get("type") == "array" for each in alternatives):
        single_values = [each for each in alternatives if _is_single(each)]
        listed = _listed(key, value)
        if not single_values:
            return listed
        return _about(value) | {"anyOf": [*single_values, listed]}
    single = _ref(f"settings/properties/{key}")
    return _about(value) | {"anyOf": [single, _listed(key, value)]}


def _is_single(schema: Schema) -> bool:
    """Whether what a schema takes is a number or a text."""
    return schema.get("type") in ("integer", "number", "string")


def _listed(key: str, value: Schema) -> Schema:
    return _about(value) | {
        "type": "array",
        "items": _ref(f"settings/properties/{key}"),
        "minItems": 1,
    }


def _about(value: Schema) -> Schema:
    return {"description": value["description"]} if "description" in value else {}


def _ref(definition: str) -> Schema:
    return {"$ref": f"#/definitions/{definition}"}


def _mapping(properties: Schema, **keywords: Any) -> Schema:
    """A mapping of these keys and no others; a key with NAME in it stands for every name."""
    patterns = {
        f"^{re.escape(key).replace(NAMED, NAME_PATTERN)}$": value
        for key, value in properties.items()
        if f".{NAMED}" in key
    }
    if patterns:
        keywords["patternProperties"] = patterns
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **keywords,
    }


def _or_null(schema: Schema, about: str) -> Schema:
    return {"description": about, "anyOf": [schema, {"type": "null"}]}
