"""Lays the settings of a point over those of all points, and checks what they make; what
is wrong is told where it was read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from launcher.grids.grid_blocks import Label
from launcher.grids.grid_settings import Branch, Setting
from launcher.workspace.yaml_file import Document, Place
from zsg_core.errors import UserError
from zsg_core.schema_errors import Problem, find_problems, format_brief
from zsg_core.settings.fields import Strict
from zsg_core.settings.run import Settings

MOST_SECTIONS = 20_000  # that are kept at once; rules times points may be many
# the sections of a run's settings
SECTIONS: dict[str, type[Strict]] = {
    name: kind
    for name, field in Settings.model_fields.items()
    if isinstance(kind := field.annotation, type) and issubclass(kind, Strict)
}
# with which what is said of a whole mapping begins: `sources.a: …`, `stages[0].train: …`
_LEADING_KEY = re.compile(r"[\w.-]+(?=: |\[\d+\])")


@dataclass(frozen=True)
class Point:
    """One point of a grid: its resolved settings, and the axes' values as the file gives
    them. With a label this stands in place of the values that all points of its block
    share."""

    settings: Settings
    axes: dict[str, Any]
    label: Label | None = None


LocatedFault = tuple[Place, UserError]


class BadPoint(Exception):
    """A point that cannot be.

    `faults`: why, each with its place in the grid file, () for one of a `--set`.
    `sections`: of its settings those that are as they should be, by name.
    """

    def __init__(
        self, faults: Sequence[LocatedFault], sections: dict[str, Strict]
    ) -> None:
        super().__init__()
        self.faults, self.sections = faults, sections


class Resolver:
    """Makes points of settings. A section that the same settings have made before is
    not checked again: the points of a grid share most of theirs.

    `is_whole`: no key is left out for a fault. Else nothing is said of what a mapping
    lacks or holds together, which a key that is left out may explain.
    """

    def __init__(
        self, document: Document, base: list[Setting], is_whole: bool = True
    ) -> None:
        self._document = document
        self._base = base
        self._is_whole = is_whole
        # by the name of the section and the settings that it was made of
        self._sections: dict[tuple[str, tuple[int, ...]], Strict | None] = {}
        # what keeps these numbers from being given to others
        self._settings: dict[int, Setting] = {}

    def resolve(self, axes: list[Setting]) -> Point:
        """The point of these settings, laid over those of all points. BadPoint where
        they make none."""
        settings = [*self._base, *axes]
        tree: dict[str, Any] = {}
        makers: dict[str, dict[int, None]] = {}
        misplaced: dict[Branch, LocatedFault] = {}
        for setting in settings:
            self._settings[id(setting)] = setting
            for branch, value, location in setting.leaves:
                upper = _lay(tree, branch, value)
                if upper:
                    misplaced.setdefault(
                        upper,
                        _explain_misplaced(tree, branch, upper, setting, location),
                    )
                makers.setdefault(branch[0], {})[id(setting)] = None
        for name, numbers in makers.items():
            section = self._make_section(name, tuple(numbers), tree[name])
            if section is not None:
                tree[name] = section
        problems: list[Problem] = []
        try:
            whole = Settings.model_validate(tree)
        except ValidationError as error:
            problems = find_problems(error, Settings)
        else:
            if not misplaced:
                return Point(whole, {setting.key: setting.value for setting in axes})
        origins = _find_origins(settings, misplaced)
        faults = self._explain(problems, origins, misplaced)
        raise BadPoint(faults, _collect_sections(tree, misplaced)) from None

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

    def _explain(
        self,
        problems: Sequence[Problem],
        origins: dict[Branch, tuple[Setting, Place]],
        misplaced: dict[Branch, LocatedFault],
    ) -> list[LocatedFault]:
        """The faults of a point, each in one line that names where the value was read;
        of several with one value, as the kinds that it may have give them, the first."""
        by_branch: dict[Branch, LocatedFault] = {}
        for problem in problems:
            if problem.of_whole and not self._is_whole:
                continue
            branch = _find_branch(problem, origins)
            if branch not in by_branch:
                by_branch[branch] = self._locate(branch, origins, problem.message)
        # what is no mapping and should be one is told once
        unexplained = [
            fault for upper, fault in misplaced.items() if upper not in by_branch
        ]
        return [*by_branch.values(), *unexplained]

    def _locate(
        self,
        branch: Branch,
        origins: dict[Branch, tuple[Setting, Place]],
        message: str,
    ) -> LocatedFault:
        if not branch:
            place: Place = ("defaults",)
            return place, self._document.error(place, message)
        setting, place = origins[branch]
        message += _remind_of_brackets(branch, setting, place, message)
        return place, setting.source.error(place, message)


def _find_origins(
    settings: list[Setting], misplaced: dict[Branch, LocatedFault]
) -> dict[Branch, tuple[Setting, Place]]:
    """Which setting gave each key and each mapping its value, the last that did; what is
    below a value that is no mapping gave it none."""
    return {
        branch[:depth]: (setting, location)
        for setting in settings
        for branch, _, location in setting.leaves
        for depth in range(1, len(branch) + 1)
        if depth == len(branch) or branch[:depth] not in misplaced
    }


def _find_branch(
    problem: Problem, origins: dict[Branch, tuple[Setting, Place]]
) -> Branch:
    """The dotted key, divided, whose value is to be corrected, as far as it was set; of
    what is said of a whole mapping the key that the message begins with."""
    branch = tuple(map(str, problem.place))
    text = problem.message.removeprefix(f"{'.'.join(branch)}: ")
    named = _LEADING_KEY.match(text)
    if problem.of_whole and named:
        candidate = (*branch, *named[0].split("."))
        while len(candidate) > len(branch):
            if candidate in origins:
                return candidate
            candidate = candidate[:-1]
    while branch and branch not in origins:
        branch = branch[:-1]
    return branch


def _collect_sections(
    tree: dict[str, Any], misplaced: dict[Branch, LocatedFault]
) -> dict[str, Strict]:
    """The sections of a point that are as they should be."""
    bad = {upper[0] for upper in misplaced}
    return {
        name: section
        for name, section in tree.items()
        if isinstance(section, Strict) and name not in bad
    }


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


def _lay(tree: dict[str, Any], branch: Branch, value: Any) -> Branch:
    """Puts a value into the tree. Where that is not possible, as a key above has a value
    that is no mapping: that key, divided; else ()."""
    for depth, key in enumerate(branch[:-1], start=1):
        below: Any = tree.setdefault(key, {})
        if not isinstance(below, dict):
            return branch[:depth]
        tree = cast("dict[str, Any]", below)
    is_mapping = isinstance(tree.get(branch[-1]), dict)
    if value != {} or not is_mapping:
        # an empty mapping laid over a mapping changes nothing
        tree[branch[-1]] = value
    return ()


def _explain_misplaced(
    tree: dict[str, Any],
    branch: Branch,
    upper: Branch,
    setting: Setting,
    location: Place,
) -> LocatedFault:
    value: Any = tree
    for key in upper:
        value = value[key]
    message = (
        f"{'.'.join(branch)}: {'.'.join(upper)} is {format_brief(value)}, not a mapping"
    )
    return location, setting.source.error(location, message)
