"""One setting of a grid: its key, its value, and where it was read."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

from launcher.workspace.yaml_file import Place
from zsg_core.errors import UserError

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


def find_common_key(setting: Setting, second: Setting) -> str:
    """A key that both set; empty if there is none. An empty mapping sets nothing."""
    for branch, value, _ in setting.leaves:
        for second_branch, second_value, _ in second.leaves:
            depth = min(len(branch), len(second_branch))
            overlap = branch[:depth] == second_branch[:depth]
            if overlap and value != {} and second_value != {}:
                return ".".join(max(branch, second_branch, key=len))
    return ""


def _leaves(
    branch: Branch, value: Any, location: Place
) -> Iterator[tuple[Branch, Any, Place]]:
    """Every single setting of a block, with its key as words and where in the document
    it stands.

    An empty mapping is a leaf, too, so that it can be refused where it means nothing. A
    list stays one value.
    """
    if isinstance(value, dict) and value:
        for key, item in cast("dict[str, Any]", value).items():
            yield from _leaves((*branch, key), item, (*location, key))
    elif branch[-1] == "betas" and isinstance(
        value, list
    ):  # the one setting that is a tuple
        yield branch, tuple(cast("list[Any]", value)), location
    else:
        yield branch, value, location
