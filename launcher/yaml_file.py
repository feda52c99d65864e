"""Reads a YAML 1.2 file into plain values, remembering the line of every key and item."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning

from zsg_core.errors import UserError

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000  # a few lines of nested aliases can stand for billions of values

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A YAML file's values, and the line on which each stands."""

    path: Path
    value: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest place that holds it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def error(self, place: Place, message: str) -> UserError:
        """An error that names file and line."""
        return UserError(f"{self.path}:{self.line(place)}: {message}")


def load(path: Path) -> Document:
    """Reads a file. UserError for a missing or oversized file, bad YAML, doubled keys, tags and other oddities."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: more than {MAX_BYTES:,} bytes; is this a grid or profile?")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path that cannot be one
        raise UserError(f"{path}: cannot be read: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML allows it
            tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {str(error.problem).strip()}") from error
    except Exception as error:  # ruamel meets odd text with KeyError, TypeError, RecursionError and others
        raise UserError(f"{path}: not valid YAML: {error}") from error
    reader = _Reader(path)
    return Document(path, reader.plain(tree, (), 1), reader.lines)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self.lines: dict[Place, int] = {}

    def plain(self, node: Any, place: Place, line: int) -> Any:
        self._count += 1
        if self._count > MAX_VALUES or len(place) > 50:
            raise UserError(f"{self._path}:{line}: too many or too deeply nested values (aliases multiply them)")
        self.lines[place] = line
        if isinstance(node, CommentedMap | CommentedSeq) and node.tag.value is not None:
            raise UserError(f"{self._path}:{line}: the tag {node.tag.value} is not understood; leave it out")
        if type(node) is CommentedMap:
            if node.merge:
                raise UserError(f"{self._path}:{line}: `<<` merges nothing in YAML 1.2; write the keys out")
            return {self._key(k, line): self.plain(node[k], (*place, k), node.lc.key(k)[0] + 1) for k in node}
        if type(node) is CommentedSeq:
            return [self.plain(item, (*place, i), node.lc.item(i)[0] + 1) for i, item in enumerate(node)]
        return self._scalar(node, line)

    def _key(self, key: Any, line: int) -> str:
        if not isinstance(key, str):
            raise UserError(f"{self._path}:{line}: the key {key!r} is not a text; quote it")
        return str(key)

    def _scalar(self, node: Any, line: int) -> Any:
        if node is None or isinstance(node, bool):
            return node
        if isinstance(node, int) and abs(node) >= 2**63:
            raise UserError(f"{self._path}:{line}: a number of more than 18 digits; quote it to make it a text")
        # ruamel's scalars are subclasses that remember their spelling; the values are what we keep.
        for kind in (int, float, str):
            if isinstance(node, kind):
                return kind(node)
        if type(node).__name__ == "ScalarBoolean":
            return bool(node)
        raise UserError(
            f"{self._path}:{line}: {str(node)!r} is read as {type(node).__name__}; quote it to make it a text"
        )
