"""Expands a grid file into points: product, union of blocks, zip, exclude. Pure but for
reading the file.

Inside `grid:` a list is always an axis and a list as a value is bracketed twice; a
block is the product of its axes; `zip:` walks lists together; a mapping as a value is
laid over what stands there. `--set` of the command line is laid over `defaults`; what
the grid sets itself it cannot change. `claims:` is part of no run.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from launcher.grids import grid_claims, overrides
from launcher.workspace import yaml_file
from launcher.workspace.yaml_file import Document, Place
from zsg_core.errors import UserError
from zsg_core.schema_errors import (
    describe_unknown_key,
    find_first_problem,
    format_brief,
    list_leaf_keys,
)
from zsg_core.settings.claims import Claim
from zsg_core.settings.run import Settings

KEYS = ("name", "profile", "defaults", "grid", "exclude", "claims")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_POINTS = 10_000
MAX_EXCLUSIONS = 1_000_000  # rules times points: half a minute

Branch = tuple[str, ...]  # a dotted key, divided


class SettingSource(Protocol):
    """What a setting was read from: the grid file, or a `--set`."""

    def error(self, place: Place, message: str) -> UserError: ...


@dataclass(frozen=True)
class Setting:
    """One key with a value, and where it was read."""

    key: str
    value: Any
    source: SettingSource
    place: Place

    def leaves(self) -> Iterator[tuple[Branch, Any, Place]]:
        """The values within the value, each with its own key and place."""
        return _leaves(tuple(self.key.split(".")), self.value, self.place)

    def error(self, message: str) -> UserError:
        """An error that names where this was read."""
        return self.source.error(self.place, message)


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
    document = yaml_file.load(path)
    _check_top(document)
    top = document.value
    given = [
        Setting(key, value, document, ("defaults", key))
        for key, value in (top.get("defaults") or {}).items()
    ]
    _refuse_doubled(document, given)
    chosen = [point for block in _blocks(document) for point in block]
    base = [*given, *_overrides(document, sets, chosen)]
    points = [_resolve(document, base, settings) for settings in chosen]
    kept, notes = _exclude(document, base, chosen, points)
    if not kept:
        raise document.error(
            ("exclude",), "every point is excluded; nothing is left to run"
        )
    axes = [point.axes for point in kept]
    claims = grid_claims.read_claims(
        document, axes, lambda: max(len(point.settings.by_stage()) for point in kept)
    )
    notes += grid_claims.find_notes(document, claims)
    return Grid(path, top["name"], top.get("profile"), kept, notes, tuple(sets), claims)


def _check_top(document: Document) -> None:
    top = document.value
    if not isinstance(top, dict):
        raise document.error(
            (), f"a grid file is a mapping with the keys {', '.join(KEYS)}"
        )
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
    for key, kind in (("defaults", dict), ("exclude", list)):
        if not isinstance(top.get(key), kind | None):
            raise document.error(
                (key,),
                f"`{key}` must be a {'mapping' if kind is dict else 'list of mappings'}",
            )


def _refuse_doubled(document: Document, defaults: list[Setting]) -> None:
    """`train.lr: 1` beside `train: {lr: 2}` is no duplicate key to YAML, but one of
    them would not count."""
    lines: dict[Branch, int] = {}
    for branch, _, place in (leaf for setting in defaults for leaf in setting.leaves()):
        if branch in lines:
            raise document.error(
                place,
                f"{'.'.join(branch)!r} is set twice, also on line {lines[branch]}",
            )
        lines[branch] = document.line(place)


def _overrides(
    document: Document, sets: Sequence[str], chosen: list[list[Setting]]
) -> list[Setting]:
    """The `--set` options as settings; an error for one that would be overruled, or
    overrule, in silence."""
    made = [
        Setting(option.key, option.value, option, ())
        for option in overrides.parse_overrides(sets)
    ]
    own = {setting.place: setting for settings in chosen for setting in settings}
    for i, option in enumerate(made):
        for other in made[:i]:
            if _touch(option, other):
                raise option.error(
                    f"another --set also sets {_common(option, other)!r}"
                )
        for setting in own.values():
            if _touch(option, setting):
                where = (
                    f"{yaml_file.shown(document.path)}:{document.line(setting.place)}"
                )
                common = _common(option, setting)
                raise option.error(
                    f"the grid sets {common!r} itself, {where}; --set changes defaults, not axes"
                )
    return made


def _touch(one: Setting, other: Setting) -> bool:
    return bool(_common(one, other))


def _common(one: Setting, other: Setting) -> str:
    """A key that both set; empty if there is none. An empty mapping sets nothing."""
    for mine, value, _ in one.leaves():
        for theirs, their_value, _ in other.leaves():
            depth = min(len(mine), len(theirs))
            if mine[:depth] == theirs[:depth] and value != {} and their_value != {}:
                return ".".join(max(mine, theirs, key=len))
    return ""


def _blocks(document: Document) -> Iterator[list[list[Setting]]]:
    grid = document.value.get("grid")
    if grid is None:
        yield [[]]  # no grid: the defaults are the one run
        return
    blocks = [(("grid",), grid)] if isinstance(grid, dict) else None
    if isinstance(grid, list):
        blocks = [(("grid", i), block) for i, block in enumerate(grid)]
    if not blocks:
        raise document.error(
            ("grid",), "`grid` must be a mapping of axes, or a list of such mappings"
        )
    total = 0
    for place, block in blocks:
        points = _block(document, place, block)
        total += len(points)
        if total > MAX_POINTS:
            raise document.error(
                place, f"more than {MAX_POINTS:,} points; split the grid"
            )
        yield points


def _block(document: Document, place: Place, block: Any) -> list[list[Setting]]:
    """The product of a block's axes; the last axis varies fastest."""
    if not isinstance(block, dict) or not block:
        raise document.error(
            place,
            "a block of the grid is a mapping of axes, such as {arrangement.order: [nft, fft]}",
        )
    axes: list[list[list[Setting]]] = []
    for key, value in block.items():
        if key == "zip":
            axes.append(_zip(document, (*place, key), value))
        else:
            axes.append(
                [[setting] for setting in _axis(document, (*place, key), key, value)]
            )
    _refuse_overlap([setting for axis in axes for setting in axis[0]])
    size = 1
    for axis in axes:
        size *= len(axis)
    if size > MAX_POINTS:
        raise document.error(
            place,
            f"this block has {size:,} points, more than {MAX_POINTS:,}; split the grid",
        )
    return [
        list(itertools.chain.from_iterable(choice))
        for choice in itertools.product(*axes)
    ]


def _axis(document: Document, place: Place, key: str, value: Any) -> list[Setting]:
    known = list_leaf_keys(Settings, key)
    if key not in known:
        raise document.error(place, describe_unknown_key(key, known))
    if not isinstance(value, list):
        return [Setting(key, value, document, place)]
    if not value:
        raise document.error(
            place, f"the axis {key!r} is an empty list; give it values or leave it out"
        )
    return [Setting(key, item, document, (*place, i)) for i, item in enumerate(value)]


def _zip(document: Document, place: Place, block: Any) -> list[list[Setting]]:
    if (
        not isinstance(block, dict)
        or not block
        or not all(isinstance(v, list) for v in block.values())
    ):
        raise document.error(
            place, "`zip` is a mapping of lists that are walked together"
        )
    columns = [
        _axis(document, (*place, key), key, value) for key, value in block.items()
    ]
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(f"{column[0].key} has {len(column)}" for column in columns)
        raise document.error(place, f"lists in `zip` must be equally long: {sizes}")
    return [list(row) for row in zip(*columns, strict=True)]


def _refuse_overlap(settings: list[Setting]) -> None:
    for one, other in itertools.permutations(settings, 2):
        if one.key == other.key or other.key.startswith(one.key + "."):
            raise other.error(
                f"{other.key!r} is set twice in this block, also by {one.key!r}"
            )


def _resolve(document: Document, base: list[Setting], chosen: list[Setting]) -> Point:
    tree: dict[str, Any] = {}
    origins: dict[Branch, tuple[Setting, Place]] = {}
    for setting in [*base, *chosen]:
        for branch, value, place in setting.leaves():
            _lay(tree, branch, value, setting, place)
            origins |= {
                branch[:depth]: (setting, place) for depth in range(1, len(branch) + 1)
            }
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise _told(document, error, origins) from None
    return Point(settings, {setting.key: setting.value for setting in chosen})


def _told(
    document: Document,
    error: ValidationError,
    origins: dict[Branch, tuple[Setting, Place]],
) -> UserError:
    """The first problem in one line that names where the value was read."""
    loc, message = find_first_problem(error, Settings)
    branch = tuple(str(part) for part in loc)
    while branch and branch not in origins:
        branch = branch[:-1]
    if not branch:
        return document.error(("defaults",), message)
    setting, place = origins[branch]
    is_axis = place[:1] == ("grid",) and ".".join(branch) == setting.key
    if is_axis and error.errors()[0]["type"] in ("tuple_type", "list_type"):
        message += f"; inside `grid:` a list as a value is bracketed twice, {setting.key}: [[…]]"
    return setting.source.error(place, message)


def _leaves(
    branch: Branch, value: Any, place: Place
) -> Iterator[tuple[Branch, Any, Place]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves((*branch, key), item, (*place, key))
    elif branch[-1] == "betas" and isinstance(
        value, list
    ):  # the one setting that is a tuple
        yield branch, tuple(value), place
    else:
        yield branch, value, place


def _lay(
    tree: dict[str, Any], branch: Branch, value: Any, setting: Setting, place: Place
) -> None:
    for depth, part in enumerate(branch[:-1], start=1):
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            held = f"{'.'.join(branch[:depth])} is {format_brief(tree)}, not a mapping"
            raise setting.source.error(place, f"{'.'.join(branch)}: {held}")
    if value == {} and isinstance(tree.get(branch[-1]), dict):
        return  # an empty mapping laid over a mapping changes nothing
    tree[branch[-1]] = value


def _exclude(
    document: Document,
    base: list[Setting],
    chosen: list[list[Setting]],
    points: list[Point],
) -> tuple[list[Point], list[str]]:
    """Drops every point that an `exclude` item describes: laying the item over the
    point changes nothing."""
    rules = document.value.get("exclude") or []
    if len(rules) * len(points) > MAX_EXCLUSIONS:
        raise document.error(
            ("exclude",),
            f"{len(rules):,} rules for {len(points):,} points are too many",
        )
    dropped: set[int] = set()
    notes = []
    for i, rule in enumerate(rules):
        place: Place = ("exclude", i)
        if not isinstance(rule, dict) or not rule:
            raise document.error(
                place,
                "an item of `exclude` is a mapping such as {arrangement.order: fft}",
            )
        wanted = [
            s
            for key, value in rule.items()
            for s in _axis(document, (*place, key), key, [value])
        ]
        hit = {
            n
            for n, own in enumerate(chosen)
            if _changes_nothing(document, [*base, *own], wanted, points[n])
        }
        if not hit:
            at = f"{yaml_file.shown(document.path)}:{document.line(place)}"
            notes.append(f"{at}: this `exclude` matches no point of the grid")
        dropped |= hit
    return [point for n, point in enumerate(points) if n not in dropped], notes


def _changes_nothing(
    document: Document, point: list[Setting], rule: list[Setting], resolved: Point
) -> bool:
    return _resolve(document, point, rule).settings == resolved.settings
