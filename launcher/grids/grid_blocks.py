"""Reads the blocks of a grid file into the settings of each of its points.

A list is always an axis; a block is the product of its axes; `zip:` walks lists
together. What is wrong in one axis or block is collected, and the others are read.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jobs.contract.folder import get_object
from jobs.contract.grid_record import LABEL
from launcher.grids.grid_settings import Setting
from launcher.workspace.faults import Faults
from launcher.workspace.yaml_file import Document, Place, format_path
from zsg_core.errors import UserError
from zsg_core.schema_errors import describe_unknown_key, format_brief, list_leaf_keys
from zsg_core.settings.run import Settings

MAX_POINTS = 10_000
MOST_LETTERS = 40


@dataclass(frozen=True)
class Label:
    """The name that a block gives its points, and where it stands. `varying`: the keys
    of the axes that tell points of the block apart."""

    text: str
    document: Document
    place: Place
    varying: frozenset[str]

    def name_axes(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        """What a point is called by: the label, and what differs between the points of
        its block."""
        named: dict[str, Any] = {LABEL: self.text}
        for key, value in axes.items():
            if key in self.varying:
                named[key] = value
        return named

    @property
    def origin(self) -> str:
        """The file and line of it."""
        line = self.document.line(self.place)
        return f"{format_path(self.document.path)}:{line}"

    def error(self, message: str) -> UserError:
        """An error that names where it stands."""
        return self.document.error(self.place, message)


@dataclass(frozen=True)
class Blocks:
    """The settings of each point, beside those of all, and its label, if its block has
    one. `is_whole`: no axis is left out for a fault."""

    by_point: list[list[Setting]]
    labels: list[Label | None]
    is_whole: bool


def read_blocks(document: Document, grid: Any, faults: Faults) -> Blocks:
    """The points of `grid:`; of a grid without axes the one of the defaults. What is
    wrong is added to `faults`."""
    if grid is None:
        return Blocks([[]], [None], is_whole=True)
    own = Faults()
    by_point: list[list[Setting]] = []
    labels: list[Label | None] = []
    with own.collecting():
        for location, block in _list_blocks(document, grid):
            with own.collecting():
                reader = _Block(document, location, own)
                points = reader.expand(block)
                by_point += points
                labels += [reader.label] * len(points)
            if len(by_point) > MAX_POINTS:
                del by_point[MAX_POINTS:]
                del labels[MAX_POINTS:]
                raise document.error(
                    location, f"more than {MAX_POINTS:,} points; split the grid"
                )
    for fault in own.list_all():
        faults.add(fault)
    return Blocks(by_point or [[]], labels or [None], is_whole=not own)


def read_axis(
    document: Document, location: Place, key: str, value: Any
) -> list[Setting]:
    """The settings along an axis, one for each value. UserError for a key that is none,
    and for no values."""
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


def _list_blocks(document: Document, grid: Any) -> list[tuple[Place, Any]]:
    """Each block with its place. UserError where there is none."""
    if isinstance(grid, dict) and grid:
        return [(("grid",), grid)]
    if isinstance(grid, list) and grid:
        blocks = cast("list[Any]", grid)
        return [(("grid", i), block) for i, block in enumerate(blocks)]
    raise document.error(
        ("grid",), "`grid` must be a mapping of axes, or a list of such mappings"
    )


class _Block:
    """One block of a grid; what is wrong in it is added to `faults`."""

    def __init__(self, document: Document, location: Place, faults: Faults) -> None:
        self._document, self._location, self._faults = document, location, faults
        # of the block that was expanded last
        self.label: Label | None = None

    def expand(self, block: Any) -> list[list[Setting]]:
        """The product of the block's axes; the last axis varies fastest. UserError for
        what is no block."""
        if not isinstance(block, dict) or not block:
            raise self._document.error(
                self._location,
                "a block of the grid is a mapping of axes, such as {arrangement.order: [nft, fft]}",
            )
        axes: list[list[list[Setting]]] = []
        for key, value in cast("dict[str, Any]", block).items():
            if key == LABEL:
                continue
            with self._faults.collecting():
                axes.append(self._read_steps(key, value))
        if block.get(LABEL) is not None:
            with self._faults.collecting():
                self.label = self._read_label(block[LABEL], axes)
        self._tell_overlaps([setting for axis in axes for setting in axis[0]])
        axes = self._cut_to_size(axes)
        return [
            list(itertools.chain.from_iterable(choice))
            for choice in itertools.product(*axes)
        ]

    def _read_label(self, text: Any, axes: Sequence[list[list[Setting]]]) -> Label:
        """The block's label. UserError for what cannot be one."""
        place = (*self._location, LABEL)
        is_text = isinstance(text, str) and text.isprintable() and text.strip() == text
        if not is_text or not 0 < len(text) <= MOST_LETTERS:
            raise self._document.error(
                place,
                f"`label` must be a text of 1 to {MOST_LETTERS} printable characters,"
                f" such as label: curriculum; found {format_brief(text)}",
            )
        varying = set[str]()
        for axis in axes:
            if len(axis) > 1:
                varying.update(setting.key for setting in axis[0])
        return Label(text, self._document, place, frozenset(varying))

    def _cut_to_size(
        self, axes: list[list[list[Setting]]]
    ) -> list[list[list[Setting]]]:
        """The axes; of each the first value only where they make too many points."""
        size = math.prod(map(len, axes))
        if size <= MAX_POINTS:
            return axes
        message = (
            f"this block has {size:,} points, more than {MAX_POINTS:,}; split the grid"
        )
        self._faults.add(self._document.error(self._location, message))
        return [axis[:1] for axis in axes]

    def _read_steps(self, key: str, value: Any) -> list[list[Setting]]:
        """Along the axis, the settings of each step: one, or as many as `zip` walks
        together."""
        location = (*self._location, key)
        if key == "zip":
            return self._zip(location, value)
        axis = read_axis(self._document, location, key, value)
        return [[setting] for setting in axis]

    def _zip(self, location: Place, block: Any) -> list[list[Setting]]:
        """The combinations of a `zip` block: the first has the first value of every
        list, and so on.

        All lists are read before any fault is raised, so that one run of the command
        names all that is wrong. Raises UserError where the block is no mapping of
        lists, a value does not suit its key, or the lists differ in length.
        """
        lists = get_object(block)
        if not lists or not all(isinstance(v, list) for v in lists.values()):
            raise self._document.error(
                location, "`zip` is a mapping of lists that are walked together"
            )
        columns: list[list[Setting]] = []
        own = Faults()
        for key, value in lists.items():
            with own.collecting():
                columns.append(read_axis(self._document, (*location, key), key, value))
        if len({len(column) for column in columns}) > 1:
            sizes = ", ".join(
                f"{column[0].key} has {len(column)}" for column in columns
            )
            message = f"lists in `zip` must be equally long: {sizes}"
            own.add(self._document.error(location, message))
        own.raise_any()
        return [list(row) for row in zip(*columns, strict=True)]

    def _tell_overlaps(self, settings: Sequence[Setting]) -> None:
        for upper, setting in itertools.permutations(settings, 2):
            if upper.key == setting.key or setting.key.startswith(upper.key + "."):
                message = (
                    f"{setting.key!r} is set twice in this block, also by {upper.key!r}"
                )
                self._faults.add(setting.error(message))
