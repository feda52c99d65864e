"""Expands a grid file into points: product, union of blocks, zip, exclude. Pure but for reading the file.

Inside `grid:` a list is always an axis and a list as a value is bracketed twice; a block is the product of its
axes; `zip:` walks lists together; a mapping as a value is laid over what stands there. `--set` of the command
line is laid over `defaults`; what the grid itself sets it cannot change.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from launcher import overrides, yaml_file
from launcher.schema_errors import brief, first_problem, leaf_keys, unknown_key
from launcher.yaml_file import Document, Place
from zsg_core.errors import UserError
from zsg_core.settings import Settings

KEYS = ("name", "profile", "defaults", "grid", "exclude")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_POINTS = 10_000
MAX_EXCLUSIONS = 1_000_000  # rules times points: half a minute
ZIP_IS = "`zip` is a mapping of lists that are walked together"

Path_ = tuple[str, ...]


class Source(Protocol):
    """What a setting was read from: the grid file, or a `--set`."""

    def error(self, place: Place, message: str) -> UserError: ...


@dataclass(frozen=True)
class Setting:
    """One key with a value, and where it was read."""

    key: str
    value: Any
    source: Source
    place: Place = ()

    def leaves(self) -> Iterator[tuple[Path_, Any, Place]]:
        """The values within the value, each with its dotted path and its place in the file."""
        return _leaves(tuple(self.key.split(".")), self.value, self.place)

    def error(self, message: str) -> UserError:
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


def load(path: Path) -> Grid:
    """Reads and expands a grid file. UserError with file and line for anything that is not as it should be."""
    document = yaml_file.load(path)
    _check_top(document)
    top = document.value
    defaults = [Setting(key, value, ("defaults", key)) for key, value in (top.get("defaults") or {}).items()]
    chosen = [point for block in _blocks(document) for point in block]
    points = [_resolve(document, defaults, settings) for settings in chosen]
    kept, notes = _exclude(document, defaults, chosen, points)
    if not kept:
        raise document.error(("exclude",), "every point is excluded; nothing is left to run")
    return Grid(path, top["name"], top.get("profile"), kept, notes)


def _check_top(document: Document) -> None:
    top = document.value
    if not isinstance(top, dict):
        raise document.error((), f"a grid file is a mapping with the keys {', '.join(KEYS)}")
    for key in top:
        if key not in KEYS:
            raise document.error((key,), unknown_key(key, KEYS))
    if not isinstance(top.get("name"), str) or not NAME.fullmatch(top["name"]):
        raise document.error(("name",), "`name` must be 1–64 letters, digits, '.', '_' or '-', e.g. name: wsd-order")
    if not isinstance(top.get("profile"), str | None):
        raise document.error(("profile",), "`profile` must be a name or the path of a profile file")
    for key, kind in (("defaults", dict), ("exclude", list)):
        if not isinstance(top.get(key), kind | None):
            raise document.error((key,), f"`{key}` must be a {'mapping' if kind is dict else 'list of mappings'}")


def _blocks(document: Document) -> Iterator[list[list[Setting]]]:
    grid = document.value.get("grid")
    if grid is None:
        yield [[]]  # no grid: the defaults are the one run
        return
    blocks = [(("grid",), grid)] if isinstance(grid, dict) else None
    if isinstance(grid, list):
        blocks = [(("grid", i), block) for i, block in enumerate(grid)]
    if not blocks:
        raise document.error(("grid",), "`grid` must be a mapping of axes, or a list of such mappings")
    total = 0
    for place, block in blocks:
        points = _block(document, place, block)
        total += len(points)
        if total > MAX_POINTS:
            raise document.error(place, f"more than {MAX_POINTS:,} points; split the grid")
        yield points


def _block(document: Document, place: Place, block: Any) -> list[list[Setting]]:
    """The product of a block's axes; the last axis varies fastest."""
    if not isinstance(block, dict) or not block:
        raise document.error(place, "a block of the grid is a mapping of axes, such as {arrangement.order: [nft, fft]}")
    axes: list[list[list[Setting]]] = []
    for key, value in block.items():
        if key == "zip":
            axes.append(_zip(document, (*place, key), value))
        else:
            axes.append([[setting] for setting in _axis(document, (*place, key), key, value)])
    _refuse_overlap(document, place, [setting for axis in axes for setting in axis[0]])
    size = 1
    for axis in axes:
        size *= len(axis)
    if size > MAX_POINTS:
        raise document.error(place, f"this block has {size:,} points, more than {MAX_POINTS:,}; split the grid")
    return [list(itertools.chain.from_iterable(choice)) for choice in itertools.product(*axes)]


def _axis(document: Document, place: Place, key: str, value: Any) -> list[Setting]:
    known = leaf_keys(Settings)
    if key not in known:
        raise document.error(place, unknown_key(key, known))
    if not isinstance(value, list):
        return [Setting(key, value, place)]
    if not value:
        raise document.error(place, f"the axis {key!r} is an empty list; give it values or leave it out")
    return [Setting(key, item, (*place, i)) for i, item in enumerate(value)]


def _zip(document: Document, place: Place, block: Any) -> list[list[Setting]]:
    if not isinstance(block, dict) or not block or not all(isinstance(v, list) for v in block.values()):
        raise document.error(place, "`zip` is a mapping of lists that are walked together")
    columns = [_axis(document, (*place, key), key, value) for key, value in block.items()]
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(f"{column[0].key} has {len(column)}" for column in columns)
        raise document.error(place, f"lists in `zip` must be equally long: {sizes}")
    return [list(row) for row in zip(*columns, strict=True)]


def _refuse_overlap(document: Document, place: Place, settings: list[Setting]) -> None:
    for one, other in itertools.permutations(settings, 2):
        if one.key == other.key or other.key.startswith(one.key + "."):
            raise document.error(other.place, f"{other.key!r} is set twice in this block, also by {one.key!r}")


def _resolve(document: Document, defaults: list[Setting], chosen: list[Setting]) -> Point:
    tree: dict[str, Any] = {}
    places: dict[tuple[str, ...], Place] = {}
    for setting in [*defaults, *chosen]:
        for path, value, place in _leaves(tuple(setting.key.split(".")), setting.value, setting.place):
            _lay(document, tree, path, value, place)
            places |= {path[:depth]: place for depth in range(1, len(path) + 1)}
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        loc, message = first_problem(error, Settings)
        path = tuple(str(part) for part in loc)
        while path and path not in places:
            path = path[:-1]
        raise document.error(places.get(path, ("defaults",)), message) from None
    return Point(settings, {setting.key: setting.value for setting in chosen})


def _leaves(path: tuple[str, ...], value: Any, place: Place) -> Iterator[tuple[tuple[str, ...], Any, Place]]:
    """The values within a value, each with its dotted path and its place in the file."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves((*path, key), item, (*place, key))
    elif path[-1] == "betas" and isinstance(value, list):  # the one setting that is a tuple
        yield path, tuple(value), place
    else:
        yield path, value, place


def _lay(document: Document, tree: dict[str, Any], path: tuple[str, ...], value: Any, place: Place) -> None:
    for depth, part in enumerate(path[:-1], start=1):
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise document.error(place, f"{'.'.join(path)}: {'.'.join(path[:depth])} is {tree!r}, not a mapping")
    if value == {} and isinstance(tree.get(path[-1]), dict):
        return  # an empty mapping laid over a mapping changes nothing
    tree[path[-1]] = value


def _exclude(
    document: Document, defaults: list[Setting], chosen: list[list[Setting]], points: list[Point]
) -> tuple[list[Point], list[str]]:
    """Drops every point that an `exclude` item describes: laying the item over the point changes nothing."""
    dropped: set[int] = set()
    notes = []
    for i, rule in enumerate(document.value.get("exclude") or []):
        place: Place = ("exclude", i)
        if not isinstance(rule, dict) or not rule:
            raise document.error(place, "an item of `exclude` is a mapping such as {arrangement.order: fft}")
        wanted = [s for key, value in rule.items() for s in _axis(document, (*place, key), key, [value])]
        hit = [
            n
            for n, point in enumerate(points)
            if _resolve(document, defaults, [*chosen[n], *wanted]).settings == point.settings
        ]
        if not hit:
            notes.append(f"{document.path}:{document.line(place)}: this `exclude` matches no point of the grid")
        dropped |= set(hit)
    return [point for n, point in enumerate(points) if n not in dropped], notes
