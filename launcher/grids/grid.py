"""Expands a grid file into points: product, union of blocks, zip, exclude. Pure but for
reading the file.

Inside `grid:` a list is always an axis and a list as a value is bracketed twice; a
block is the product of its axes; `zip:` walks lists together; a mapping as a value is
laid over what stands there. `--set` of the command line is laid over `defaults`; what
the grid sets itself it cannot change. `claims:` is part of no run.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import ValidationError

from jobs.contract.folder import get_object
from launcher.grids import grid_claims, overrides
from launcher.workspace import yaml_file
from launcher.workspace.yaml_file import Document, Place
from zsg_core.errors import UserError
from zsg_core.schema_errors import (
    describe_unknown_key,
    find_problems,
    format_brief,
    list_leaf_keys,
)
from zsg_core.settings.claims import Claim
from zsg_core.settings.fields import Strict
from zsg_core.settings.run import Settings

KEYS = ("name", "profile", "defaults", "grid", "exclude", "claims")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_POINTS = 10_000
MOST_FAULTS = 20  # that are listed
MAX_EXCLUSIONS = 1_000_000  # rules times points: half a minute
MOST_SECTIONS = 2 * MAX_POINTS  # that are kept at once; rules times points may be many
# the sections of a run's settings
SECTIONS: dict[str, type[Strict]] = {
    name: kind
    for name, field in Settings.model_fields.items()
    if isinstance(kind := field.annotation, type) and issubclass(kind, Strict)
}

Branch = tuple[str, ...]  # a dotted key, divided


class SettingSource(Protocol):
    """What a setting was read from: the grid file, or a `--set`."""

    def error(self, location: Place, message: str, /) -> UserError: ...


@dataclass(frozen=True)
class Setting:
    """One key with a value, and where it was read."""

    key: str
    value: Any
    source: SettingSource
    location: Place

    @cached_property
    def leaves(self) -> list[tuple[Branch, Any, Place]]:
        """The values within the value, each with its own key and location."""
        return list(_leaves(tuple(self.key.split(".")), self.value, self.location))

    def error(self, message: str) -> UserError:
        """An error that names where this was read."""
        return self.source.error(self.location, message)


@dataclass(frozen=True)
class Point:
    """One point of a grid: its resolved settings, and the axes' values as the file gives them."""

    settings: Settings
    axes: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A grid file, expanded."""

    path: Path
    name: str
    profile: str | None
    points: list[Point]
    notes: list[str]
    overrides: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


def load_grid(path: Path, sets: Sequence[str] = ()) -> Grid:
    """Reads and expands a grid file; `sets` are `key=value` texts laid over its defaults.

    UserError with file and line, or with the `--set`, for anything that is not as it should be.
    """
    document = yaml_file.load_document(path)
    _check_top(document)
    top: dict[str, Any] = document.value
    defaults_of_all: dict[str, Any] = top.get("defaults") or {}
    defaults = [
        Setting(key, value, document, ("defaults", key))
        for key, value in defaults_of_all.items()
    ]
    _refuse_doubled(document, defaults)
    by_point = [settings for block in _blocks(document) for settings in block]
    base = [*defaults, *_overrides(document, sets, by_point)]
    resolver = _Resolver(document, base)
    resolved = _resolve_points(resolver, by_point)
    points, notes = _exclude(resolver, by_point, resolved)
    if not points:
        raise document.error(
            ("exclude",), "every point is excluded; nothing is left to run"
        )
    axes = [point.axes for point in points]
    claims = grid_claims.read_claims(
        document, axes, lambda: max(len(point.settings.by_stage()) for point in points)
    )
    notes += grid_claims.find_notes(document, claims)
    return Grid(
        path, top["name"], top.get("profile"), points, notes, tuple(sets), claims
    )


def _check_top(document: Document) -> None:
    value = document.value
    if not isinstance(value, dict):
        raise document.error(
            (), f"a grid file is a mapping with the keys {', '.join(KEYS)}"
        )
    top = cast("dict[str, Any]", value)
    for key in top:
        if key not in KEYS:
            raise document.error((key,), describe_unknown_key(key, KEYS))
    if not isinstance(top.get("name"), str) or not NAME.fullmatch(top["name"]):
        allowed = (
            "`name` must be 1–64 letters, digits, '.', '_' or '-', e.g. name: wsd-order"
        )
        raise document.error(
            ("name",), f"{allowed}; found {format_brief(top.get('name'))}"
        )
    if not isinstance(top.get("profile"), str | None):
        raise document.error(
            ("profile",), "`profile` must be a name or the path of a profile file"
        )
    if not isinstance(top.get("defaults"), dict | None):
        raise document.error(("defaults",), "`defaults` must be a mapping")
    if not isinstance(top.get("exclude"), list | None):
        raise document.error(("exclude",), "`exclude` must be a list of mappings")


def _refuse_doubled(document: Document, defaults: list[Setting]) -> None:
    """`train.lr: 1` beside `train: {lr: 2}` is no duplicate key to YAML, but one of
    them would not count."""
    lines: dict[Branch, int] = {}
    leaves = (leaf for setting in defaults for leaf in setting.leaves)
    for branch, _, location in leaves:
        if branch in lines:
            raise document.error(
                location,
                f"{'.'.join(branch)!r} is set twice, also on line {lines[branch]}",
            )
        lines[branch] = document.line(location)


def _overrides(
    document: Document, sets: Sequence[str], by_point: list[list[Setting]]
) -> list[Setting]:
    """The `--set` options as settings; an error for one that would be overruled, or
    overrule, in silence."""
    options = [
        Setting(override.key, override.value, override, ())
        for override in overrides.parse_overrides(sets)
    ]
    of_grid = {
        setting.location: setting for settings in by_point for setting in settings
    }
    for i, option in enumerate(options):
        for earlier in options[:i]:
            if common := _common_key(option, earlier):
                raise option.error(f"another --set also sets {common!r}")
        for setting in of_grid.values():
            if common := _common_key(option, setting):
                line = document.line(setting.location)
                origin = f"{yaml_file.format_path(document.path)}:{line}"
                raise option.error(
                    f"the grid sets {common!r} itself, {origin}; --set changes defaults, not axes"
                )
    return options


def _common_key(setting: Setting, second: Setting) -> str:
    """A key that both set; empty if there is none. An empty mapping sets nothing."""
    for branch, value, _ in setting.leaves:
        for second_branch, second_value, _ in second.leaves:
            depth = min(len(branch), len(second_branch))
            overlap = branch[:depth] == second_branch[:depth]
            if overlap and value != {} and second_value != {}:
                return ".".join(max(branch, second_branch, key=len))
    return ""


def _blocks(document: Document) -> Iterator[list[list[Setting]]]:
    grid = document.value.get("grid")
    if grid is None:
        yield [[]]  # no grid: the defaults are the one run
        return
    blocks: list[tuple[Place, Any]] | None = None
    if isinstance(grid, dict):
        blocks = [(("grid",), grid)]
    if isinstance(grid, list):
        blocks = [
            (("grid", i), block) for i, block in enumerate(cast("list[Any]", grid))
        ]
    if not blocks:
        raise document.error(
            ("grid",), "`grid` must be a mapping of axes, or a list of such mappings"
        )
    total = 0
    for location, block in blocks:
        points = _block(document, location, block)
        total += len(points)
        if total > MAX_POINTS:
            raise document.error(
                location, f"more than {MAX_POINTS:,} points; split the grid"
            )
        yield points


def _block(document: Document, location: Place, block: Any) -> list[list[Setting]]:
    """The product of a block's axes; the last axis varies fastest."""
    if not isinstance(block, dict) or not block:
        raise document.error(
            location,
            "a block of the grid is a mapping of axes, such as {arrangement.order: [nft, fft]}",
        )
    axes = [
        _read_axis(document, location, key, value)
        for key, value in cast("dict[str, Any]", block).items()
    ]
    _refuse_overlap([setting for axis in axes for setting in axis[0]])
    size = math.prod(map(len, axes))
    if size > MAX_POINTS:
        raise document.error(
            location,
            f"this block has {size:,} points, more than {MAX_POINTS:,}; split the grid",
        )
    return [
        list(itertools.chain.from_iterable(choice))
        for choice in itertools.product(*axes)
    ]


def _read_axis(
    document: Document, block: Place, key: str, value: Any
) -> list[list[Setting]]:
    """Along the axis, the settings of each step: one, or as many as `zip` walks together."""
    location = (*block, key)
    if key == "zip":
        return _zip(document, location, value)
    return [[setting] for setting in _axis(document, location, key, value)]


def _axis(document: Document, location: Place, key: str, value: Any) -> list[Setting]:
    valid_keys = list_leaf_keys(Settings, key)
    if key not in valid_keys:
        raise document.error(location, describe_unknown_key(key, valid_keys))
    if not isinstance(value, list):
        return [Setting(key, value, document, location)]
    if not value:
        raise document.error(
            location,
            f"the axis {key!r} is an empty list; give it values or leave it out",
        )
    return [
        Setting(key, item, document, (*location, i))
        for i, item in enumerate(cast("list[Any]", value))
    ]


def _zip(document: Document, location: Place, block: Any) -> list[list[Setting]]:
    lists = get_object(block)
    if not lists or not all(isinstance(v, list) for v in lists.values()):
        raise document.error(
            location, "`zip` is a mapping of lists that are walked together"
        )
    columns = [
        _axis(document, (*location, key), key, value) for key, value in lists.items()
    ]
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(f"{column[0].key} has {len(column)}" for column in columns)
        raise document.error(location, f"lists in `zip` must be equally long: {sizes}")
    return [list(row) for row in zip(*columns, strict=True)]


def _refuse_overlap(settings: list[Setting]) -> None:
    for upper, setting in itertools.permutations(settings, 2):
        if upper.key == setting.key or setting.key.startswith(upper.key + "."):
            raise setting.error(
                f"{setting.key!r} is set twice in this block, also by {upper.key!r}"
            )


class _Resolver:
    """Makes points of settings. A section that the same settings have made before is
    not checked again: the points of a grid share most of theirs."""

    def __init__(self, document: Document, base: list[Setting]) -> None:
        self.document = document
        self._base = base
        # by the name of the section and the settings that it was made of
        self._sections: dict[tuple[str, tuple[int, ...]], Strict | None] = {}
        # what keeps these numbers from being given to others
        self._settings: dict[int, Setting] = {}

    def resolve(self, axes: list[Setting]) -> Point:
        """The point of these settings, laid over those of all points."""
        settings = [*self._base, *axes]
        tree: dict[str, Any] = {}
        makers: dict[str, dict[int, None]] = {}
        for setting in settings:
            self._settings[id(setting)] = setting
            for branch, value, location in setting.leaves:
                _lay(tree, branch, value, setting, location)
                makers.setdefault(branch[0], {})[id(setting)] = None
        for name, numbers in makers.items():
            section = self._make_section(name, tuple(numbers), tree[name])
            if section is not None:
                tree[name] = section
        try:
            whole = Settings.model_validate(tree)
        except ValidationError as error:
            raise _explain(self.document, error, _find_origins(settings)) from None
        return Point(whole, {setting.key: setting.value for setting in axes})

    def _make_section(
        self, name: str, numbers: tuple[int, ...], values: Any
    ) -> Strict | None:
        """A section of the settings; None where it is no mapping, or is wrong, which
        whoever checks the whole will say."""
        kind = SECTIONS.get(name)
        if kind is None:
            return None
        key = name, numbers
        if len(self._sections) >= MOST_SECTIONS:
            self._sections.clear()
        if key not in self._sections:
            try:
                self._sections[key] = kind.model_validate(values)
            except ValidationError:
                self._sections[key] = None
        return self._sections[key]


class _Faults(UserError):
    """What is wrong with the settings of a point, each fault as a message."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__(_list_faults(messages))
        self.messages = messages


def _list_faults(messages: Sequence[str]) -> str:
    """One fault as it is; several numbered, a line each."""
    if len(messages) == 1:
        return messages[0]
    lines = [f"{len(messages)} faults:"]
    for number, message in enumerate(messages[:MOST_FAULTS], start=1):
        lines.append(f"  {number}. {message}")
    if len(messages) > MOST_FAULTS:
        lines.append(f"  and {len(messages) - MOST_FAULTS:,} more")
    return "\n".join(lines)


def _resolve_points(resolver: _Resolver, by_point: list[list[Setting]]) -> list[Point]:
    """All points; UserError with the faults of all, each once."""
    points = list[Point]()
    faults: dict[str, None] = {}
    for settings in by_point:
        try:
            points.append(resolver.resolve(settings))
        except _Faults as error:
            faults.update(dict.fromkeys(error.messages))
    if faults:
        raise _Faults(list(faults))
    return points


def _find_origins(settings: list[Setting]) -> dict[Branch, tuple[Setting, Place]]:
    """Which setting gave each key and each mapping its value, the last that did."""
    return {
        branch[:depth]: (setting, location)
        for setting in settings
        for branch, _, location in setting.leaves
        for depth in range(1, len(branch) + 1)
    }


def _explain(
    document: Document,
    error: ValidationError,
    origins: dict[Branch, tuple[Setting, Place]],
) -> UserError:
    """The problems, each in one line that names where the value was read; of several
    with one value, as the kinds that it may have give them, the first."""
    by_branch: dict[Branch, str] = {}
    for keys, message in find_problems(error, Settings):
        branch = tuple(str(key) for key in keys)
        while branch and branch not in origins:
            branch = branch[:-1]
        if branch in by_branch:
            continue
        if branch:
            setting, location = origins[branch]
            message += _remind_of_brackets(branch, setting, location, message)
            fault = setting.source.error(location, message)
        else:
            fault = document.error(("defaults",), message)
        by_branch[branch] = str(fault)
    return _Faults(list(by_branch.values()))


def _remind_of_brackets(
    branch: Branch, setting: Setting, location: Place, message: str
) -> str:
    """How an axis writes a list as a value, where one is missing; else empty."""
    is_axis = location[:1] == ("grid",) and ".".join(branch) == setting.key
    is_list = message.startswith(f"{setting.key}: must be a list")
    if not is_axis or not is_list:
        return ""
    return (
        f"; inside `grid:` a list as a value is bracketed twice, {setting.key}: [[…]]"
    )


def _leaves(
    branch: Branch, value: Any, location: Place
) -> Iterator[tuple[Branch, Any, Place]]:
    if isinstance(value, dict) and value:
        for key, item in cast("dict[str, Any]", value).items():
            yield from _leaves((*branch, key), item, (*location, key))
    elif branch[-1] == "betas" and isinstance(
        value, list
    ):  # the one setting that is a tuple
        yield branch, tuple(cast("list[Any]", value)), location
    else:
        yield branch, value, location


def _lay(
    tree: dict[str, Any], branch: Branch, value: Any, setting: Setting, location: Place
) -> None:
    for depth, key in enumerate(branch[:-1], start=1):
        below: Any = tree.setdefault(key, {})
        if not isinstance(below, dict):
            upper = ".".join(branch[:depth])
            raise setting.source.error(
                location,
                f"{'.'.join(branch)}: {upper} is {format_brief(below)}, not a mapping",
            )
        tree = cast("dict[str, Any]", below)
    if value == {} and isinstance(tree.get(branch[-1]), dict):
        return  # an empty mapping laid over a mapping changes nothing
    tree[branch[-1]] = value


def _exclude(
    resolver: _Resolver,
    by_point: list[list[Setting]],
    points: list[Point],
) -> tuple[list[Point], list[str]]:
    """Drops every point that an `exclude` item describes: laying the item over the
    point changes nothing."""
    document = resolver.document
    rules: list[Any] = document.value.get("exclude") or []
    if len(rules) * len(points) > MAX_EXCLUSIONS:
        raise document.error(
            ("exclude",),
            f"{len(rules):,} rules for {len(points):,} points are too many",
        )
    dropped: set[int] = set()
    notes = list[str]()
    for i, item in enumerate(rules):
        location: Place = ("exclude", i)
        rule = _read_rule(document, location, item)
        matches = {
            number
            for number, settings in enumerate(by_point)
            if _changes_nothing(resolver, [*settings, *rule], points[number])
        }
        if not matches:
            line = document.line(location)
            notes.append(
                f"{yaml_file.format_path(document.path)}:{line}: this `exclude` matches no point"
                " of the grid"
            )
        dropped |= matches
    remaining = [point for number, point in enumerate(points) if number not in dropped]
    return remaining, notes


def _read_rule(document: Document, location: Place, item: Any) -> list[Setting]:
    if not isinstance(item, dict) or not item:
        raise document.error(
            location,
            "an item of `exclude` is a mapping such as {arrangement.order: fft}",
        )
    return [
        setting
        for key, value in cast("dict[str, Any]", item).items()
        for setting in _axis(document, (*location, key), key, [value])
    ]


def _changes_nothing(
    resolver: _Resolver, settings: list[Setting], resolved: Point
) -> bool:
    return resolver.resolve(settings).settings == resolved.settings
