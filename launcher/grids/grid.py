"""Expands a grid file into points: product, union of blocks, zip, exclude. Pure but for
reading the file.

Inside `grid:` a list is always an axis and a list as a value is bracketed twice; a
block is the product of its axes; `zip:` walks lists together; a mapping as a value is
laid over what stands there. `--set` of the command line is laid over `defaults`; what
the grid sets itself it cannot change. `claims:` and `summaries:` are part of no run.

What is wrong is collected, so that all of it is told at once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from jobs.contract.folder import get_object
from launcher.grids import grid_claims, grid_summaries, overrides, plugin_files
from launcher.grids.grid_blocks import Blocks, read_axis, read_blocks
from launcher.grids.grid_settings import Branch, Setting, find_common_key
from launcher.grids.input_checks import Judged
from launcher.grids.input_faults import InputFault
from launcher.grids.overrides import Override
from launcher.grids.point_resolver import BadPoint, Point, Resolver
from launcher.workspace import yaml_file
from launcher.workspace.faults import Faults
from launcher.workspace.yaml_file import Document, Place
from zsg_core.data.harness_tasks import TaskCode
from zsg_core.plugins import entries
from zsg_core.plugins.declarations import PluginFile
from zsg_core.registry import offering
from zsg_core.schema_errors import (
    describe_unknown_key,
    format_brief,
    list_leaf_keys,
)
from zsg_core.settings.claims import Claim
from zsg_core.settings.fields import Strict
from zsg_core.settings.looks import Looks
from zsg_core.settings.run import MOST_STAGES, Settings
from zsg_core.settings.summaries import SummarySettings

__all__ = ["Draft", "Grid", "Point", "draft_grid", "load_grid"]

KEYS = (
    "name",
    "profile",
    "defaults",
    "grid",
    "exclude",
    "claims",
    "summaries",
    "plugins",
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_EXCLUSIONS = 1_000_000  # rules times points: half a minute


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
    looks: Looks | None = None
    summaries: SummarySettings = field(default_factory=SummarySettings)
    plugins: tuple[PluginFile, ...] = ()

    @property
    def task_code(self) -> tuple[TaskCode, ...]:
        """The Python of which tasks of lm-evaluation-harness may name functions."""
        return plugin_files.list_task_code(self.path, self.plugins)


@dataclass(frozen=True)
class Draft:
    """A grid file as far as it can be read.

    `grid` has the points without a fault; `sections` are those of the others that have
    none. `is_whole`: no key is left out for a fault, so that what is missing is missing.
    """

    document: Document
    overrides: Sequence[Override]
    grid: Grid
    sections: list[dict[str, Strict]]
    faults: Faults
    is_whole: bool

    def add_input_fault(self, fault: InputFault) -> None:
        """Adds what is wrong with an input, where the setting stands that names it."""
        message = str(fault.error)
        for override in self.overrides:
            if override.key == fault.key and override.value == fault.value:
                self.faults.add(override.error((), message))
                return
        place = _find_place(self.document, fault.key, fault.value)
        self.faults.add(self.document.error(place, message))

    def list_judged(self) -> list[Judged]:
        """The settings whose inputs can be judged: of each stage of a point, and the
        sections without a fault of what is none."""
        judged = [
            Judged(stage)
            for point in self.grid.points
            for stage in point.settings.by_stage()
        ]
        for sections in self.sections:
            values: dict[str, Any] = dict(sections)
            settings = Settings.model_construct(**values)
            judged.append(Judged(settings, frozenset(sections)))
        return judged


def load_grid(path: Path, sets: Sequence[str] = ()) -> Grid:
    """Reads and expands a grid file; `sets` are `key=value` texts laid over its defaults.

    UserError with file and line, or with the `--set`, for anything that is not as it
    should be: all of it, as far as one fault does not hide another.
    """
    draft = draft_grid(path, sets)
    draft.faults.raise_any()
    return draft.grid


def draft_grid(path: Path, sets: Sequence[str] = ()) -> Draft:
    """Reads and expands a grid file as far as it can be read. UserError for a file that
    is no mapping in YAML, and for plugins with faults: without these nothing can be said
    of what the grid asks for."""
    document = yaml_file.load_document(path)
    faults = Faults()
    top = _read_top(document, faults)
    _tell_doubled(document, top.defaults, faults)
    of_plugins = Faults()
    plugins = plugin_files.read_plugins(document, of_plugins)
    if of_plugins:
        # Names that nobody declares, and what else would be said of the grid without its
        # plugins, follow from these.
        for fault in of_plugins.list_all():
            faults.add(fault)
        faults.raise_any()
    with offering(entries.list_offered(plugins)):
        return _expand(document, sets, top, plugins, faults)


def _expand(
    document: Document,
    sets: Sequence[str],
    top: "_Top",
    plugins: tuple[PluginFile, ...],
    faults: Faults,
) -> Draft:
    """A grid file, expanded, in whose settings names of its plugins stand for these."""
    blocks = read_blocks(document, document.value.get("grid"), faults)
    options = _read_options(document, sets, blocks, faults)
    has_all_options = len(options) == len(sets)
    is_whole = top.is_whole and blocks.is_whole and has_all_options
    base = [*top.defaults, *map(_make_setting, options)]
    expansion = _Expansion(Resolver(document, base, is_whole), blocks, faults)
    expansion.resolve_points()
    points, notes = expansion.exclude(document)
    claims, looks = _read_claims(document, points, expansion, is_whole)
    summaries = SummarySettings()
    with faults.collecting():
        summaries = grid_summaries.read_summaries(document)
    settings = [point.settings for point in points] if is_whole else []
    notes += grid_claims.find_notes(document, claims, settings)
    grid = Grid(
        document.path,
        top.name,
        top.profile,
        points,
        notes,
        tuple(sets),
        claims,
        looks,
        summaries,
        plugins,
    )
    return Draft(document, options, grid, expansion.sections, faults, is_whole)


@dataclass(frozen=True)
class _Top:
    """The top of a grid file. `is_whole`: no key of it is unknown."""

    name: str
    profile: str | None
    defaults: list[Setting]
    is_whole: bool


def _read_top(document: Document, faults: Faults) -> _Top:
    """What stands at the top. UserError for what is no mapping."""
    value = document.value
    if not isinstance(value, dict):
        raise document.error(
            (), f"a grid file is a mapping with the keys {', '.join(KEYS)}"
        )
    top = cast("dict[str, Any]", value)
    unknown = [key for key in top if key not in KEYS]
    for key in unknown:
        faults.add(document.error((key,), _explain_unknown_top(key)))
    _add_faults_of_values(document, top, unknown, faults)
    profile = top.get("profile")
    return _Top(
        name=str(top.get("name")),
        profile=profile if isinstance(profile, str) else None,
        defaults=[
            Setting(key, value, document, ("defaults", key))
            for key, value in get_object(top.get("defaults")).items()
        ],
        is_whole=not unknown and isinstance(top.get("defaults"), dict | None),
    )


def _add_faults_of_values(
    document: Document, top: Mapping[str, Any], unknown: Sequence[str], faults: Faults
) -> None:
    """What is wrong with values at the top; `unknown`: keys there that are none."""
    misspelt = [key for key in unknown if not _is_setting(key)]
    for key, message in _explain_top_values(top):
        # what is missing may be a key that is misspelt
        if key in top or not misspelt:
            faults.add(document.error((key,), message))


def _explain_top_values(top: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with values at the top, each with its key."""
    name = top.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        allowed = (
            "`name` must be 1–64 letters, digits, '.', '_' or '-', e.g. name: wsd-order"
        )
        yield "name", f"{allowed}; found {format_brief(name)}"
    if not isinstance(top.get("profile"), str | None):
        yield "profile", "`profile` must be a name or the path of a profile file"
    if not isinstance(top.get("defaults"), dict | None):
        yield "defaults", "`defaults` must be a mapping"
    if not isinstance(top.get("exclude"), list | None):
        yield "exclude", "`exclude` must be a list of mappings"


def _is_setting(key: str) -> bool:
    return key in list_leaf_keys(Settings, key)


def _explain_unknown_top(key: str) -> str:
    """What to say of a key at the top that is none; a setting belongs elsewhere."""
    if _is_setting(key):
        return f"{key!r} is a setting: it stands under `defaults:`, or in `grid:`"
    return describe_unknown_key(key, KEYS)


def _tell_doubled(
    document: Document, defaults: Sequence[Setting], faults: Faults
) -> None:
    """`train.lr: 1` beside `train: {lr: 2}` is no duplicate key to YAML, but one of
    them would not count."""
    lines: dict[Branch, int] = {}
    leaves = (leaf for setting in defaults for leaf in setting.leaves)
    for branch, _, location in leaves:
        if branch in lines:
            message = f"{'.'.join(branch)!r} is set twice, also on line {lines[branch]}"
            faults.add(document.error(location, message))
        lines[branch] = document.line(location)


def _read_options(
    document: Document, sets: Sequence[str], blocks: Blocks, faults: Faults
) -> list[Override]:
    """The `--set` options that can be read, and that neither are overruled nor overrule
    in silence."""
    of_grid = {
        setting.location: setting for point in blocks.by_point for setting in point
    }
    options: list[Override] = []
    for text in sets:
        with faults.collecting():
            option = overrides.parse_override(text)
            _refuse_overruled(document, option, options, of_grid.values())
            options.append(option)
    return options


def _refuse_overruled(
    document: Document,
    option: Override,
    earlier: Sequence[Override],
    of_grid: Iterable[Setting],
) -> None:
    """UserError where another `--set`, or the grid itself, sets the same."""
    setting = _make_setting(option)
    for each in earlier:
        if common := find_common_key(setting, _make_setting(each)):
            raise setting.error(f"another --set also sets {common!r}")
    for each in of_grid:
        if common := find_common_key(setting, each):
            line = document.line(each.location)
            origin = f"{yaml_file.format_path(document.path)}:{line}"
            raise setting.error(
                f"the grid sets {common!r} itself, {origin}; --set changes defaults, not"
                " axes"
            )


def _make_setting(option: Override) -> Setting:
    return Setting(option.key, option.value, option, ())


class _Expansion:
    """The points of a grid, each None where its settings make none.

    `sections`: of the settings that make no point, those that are as they should be.
    """

    def __init__(self, resolver: Resolver, blocks: Blocks, faults: Faults) -> None:
        self._resolver, self._by_point = resolver, blocks.by_point
        self._labels = blocks.labels
        self.faults = faults
        self._points: list[Point | None] = []
        self.sections: list[dict[str, Strict]] = []

    @property
    def is_whole(self) -> bool:
        """Whether all settings make points."""
        return None not in self._points

    def resolve_points(self) -> None:
        """Makes the points; what is wrong with them is added to the faults."""
        for settings, label in zip(self._by_point, self._labels, strict=True):
            point = None
            try:
                point = self._resolver.resolve(settings)
            except BadPoint as bad:
                self.sections.append(bad.sections)
                for _, fault in bad.faults:
                    self.faults.add(fault)
            if point is not None and label is not None:
                axes = label.name_axes(point.axes)
                point = replace(point, axes=axes, label=label)
            self._points.append(point)
        labelled = [point for point in self._points if point and point.label]
        with self.faults.collecting():
            _refuse_shared_labels(labelled)

    def list_axes(self, remaining: Sequence[Point]) -> list[dict[str, Any]]:
        """The axes of the points that remain, and of those that cannot be."""
        axes = [point.axes for point in remaining]
        for settings, point in zip(self._by_point, self._points, strict=True):
            if point is None:
                axes.append({setting.key: setting.value for setting in settings})
        return axes

    def exclude(self, document: Document) -> tuple[list[Point], list[str]]:
        """The points that no `exclude` item describes, as laying the item over them
        would change nothing; and what is to be told of the items."""
        rules = document.value.get("exclude")
        if not isinstance(rules, list):
            return [point for point in self._points if point], []
        items = cast("list[Any]", rules)
        with self.faults.collecting():
            self._refuse_too_many(document, len(items))
            return self._apply_rules(document, items)
        return [], []

    def _refuse_too_many(self, document: Document, rules: int) -> None:
        if rules * len(self._points) > MAX_EXCLUSIONS:
            raise document.error(
                ("exclude",),
                f"{rules:,} rules for {len(self._points):,} points are too many",
            )

    def _apply_rules(
        self, document: Document, items: Sequence[Any]
    ) -> tuple[list[Point], list[str]]:
        own = Faults()
        dropped: set[int] = set()
        notes: list[str] = []
        for i, item in enumerate(items):
            location: Place = ("exclude", i)
            matches: set[int] = set()
            with own.collecting():
                matches = self._match(location, _read_rule(document, location, item))
                if not matches:
                    line = document.line(location)
                    notes.append(
                        f"{yaml_file.format_path(document.path)}:{line}: this `exclude`"
                        " matches no point of the grid"
                    )
            dropped |= matches
        own.raise_any()
        points = [
            point
            for number, point in enumerate(self._points)
            if point is not None and number not in dropped
        ]
        if not points and self.is_whole:
            raise document.error(
                ("exclude",), "every point is excluded; nothing is left to run"
            )
        return points, notes

    def _match(self, location: Place, rule: list[Setting]) -> set[int]:
        """The numbers of the points that a rule describes. SeveralFaults, or the one, for
        values of the rule that cannot be."""
        good = [number for number, point in enumerate(self._points) if point]
        matches: set[int] = set()
        # where no point is, the first tells whether the rule itself can be
        for number in good or [0]:
            point = self._points[number]
            try:
                changed = self._resolver.resolve([*self._by_point[number], *rule])
            except BadPoint as bad:
                _raise_faults(bad, () if good else location)
                continue
            if point is not None and changed.settings == point.settings:
                matches.add(number)
        return matches


def _refuse_shared_labels(labelled: Sequence[Point]) -> None:
    """UserError where one label, with the same values beside it, names two points: they
    would be taken for one in every table."""
    first_by_name: dict[str, Point] = {}
    for point in labelled:
        name = repr(sorted(point.axes.items()))
        first = first_by_name.setdefault(name, point)
        assert first.label is not None and point.label is not None
        if first.settings == point.settings:
            continue
        raise point.label.error(
            f"the label {point.label.text!r} also names another point"
            f" ({first.label.origin}); give each its own"
        )


def _raise_faults(bad: BadPoint, within: Place) -> None:
    """Raises the faults of a point that stand within a place, if there are any."""
    faults = Faults()
    for place, fault in bad.faults:
        if place[: len(within)] == within:
            faults.add(fault)
    faults.raise_any()


def _read_rule(document: Document, location: Place, item: Any) -> list[Setting]:
    if not isinstance(item, dict) or not item:
        raise document.error(
            location,
            "an item of `exclude` is a mapping such as {arrangement.order: fft}",
        )
    faults = Faults()
    rule: list[Setting] = []
    for key, value in cast("dict[str, Any]", item).items():
        with faults.collecting():
            rule += read_axis(document, (*location, key), key, [value])
    faults.raise_any()
    return rule


def _read_claims(
    document: Document, points: Sequence[Point], expansion: _Expansion, is_whole: bool
) -> tuple[tuple[Claim, ...], Looks | None]:
    """The claims and when they are looked at, as far as they can be read; held against
    the axes where all of these can be."""
    axes = expansion.list_axes(points) if is_whole else None

    def count_stages() -> int:
        if not is_whole or not expansion.is_whole:
            return MOST_STAGES
        return max(len(point.settings.by_stage()) for point in points)

    with expansion.faults.collecting():
        settings = [point.settings for point in points] if is_whole else []
        claims = grid_claims.read_claims(document, axes, count_stages, settings)
        return claims, grid_claims.read_looks(document, axes)
    return (), None


def _find_place(document: Document, key: str, value: Any) -> Place:
    """Where a key is given a value, else where it stands: of several places the one whose
    own key is most of `key`. The defaults where it stands nowhere."""
    words = key.split(".")
    best: Place = ("defaults",)
    best_rank = (False, 0)
    for place in document.lines:
        if place[:1] not in (("defaults",), ("grid",)):
            continue
        length = _count_common_end(words, place)
        rank = _get_value(document.value, place) == value, length
        if length and rank > best_rank:
            best, best_rank = place, rank
    return best


def _count_common_end(words: Sequence[str], place: Place) -> int:
    """How many of the last words of a dotted key a place ends in, leaving out its numbers."""
    names = [
        word for name in place if isinstance(name, str) for word in name.split(".")
    ]
    length = 0
    for word, name in zip(reversed(words), reversed(names), strict=False):
        if word != name:
            return length
        length += 1
    return length


def _get_value(value: Any, place: Place) -> Any:
    """What stands at a place."""
    for name in place:
        value = value[name]
    return value
