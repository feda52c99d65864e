"""Reads YAML 1.2 into plain values, remembering the line of every key and item."""

import re
import stat
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning

from zsg_core.errors import UserError
from zsg_core.shown_text import make_showable

# the parser takes seconds for so much; 10,000 points written out fit in half
MAX_BYTES = 200_000
MAX_VALUES = 100_000  # a few lines of nested aliases can stand for billions of values
MAX_DEPTH = 50
MAX_BRACKETS = 20  # open at once; the parser's time grows with the square of it

Place = tuple[str | int, ...]
# makes the error of a line and a message
Refusal = Callable[[int | None, str], UserError]


class LineError(UserError):
    """What is wrong on a line of a file."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}")
        self.file, self.line = file, line


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
        return LineError(format_path(self.path), self.line(place), message)


def load_document(path: Path) -> Document:
    """Reads a file. UserError for a missing or oversized file, bad YAML, doubled keys,
    tags and other oddities."""
    text = _text(path)
    refusal: Refusal = lambda line, message: UserError(  # noqa: E731
        f"{format_path(path)}:{line}: {message}"
        if line
        else f"{format_path(path)}: {message}"
    )
    return Document(path, *parse_yaml(text, refusal))


def parse_yaml(text: str, refusal: Refusal) -> tuple[Any, Mapping[Place, int]]:
    """The plain value of a YAML text and the line of every place in it."""
    _refuse_nests(text, refusal)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML allows it
            tree = cast("Any", YAML(typ="rt")).load(text)
    except MarkedYAMLError as error:
        told = cast("Any", error)  # ruamel leaves what it tells untyped
        line = told.problem_mark.line + 1 if told.problem_mark else 1
        # of a key that stands twice ruamel quotes the value, which may be a secret
        problem = _first_line(told.problem).partition(" with value ")[0]
        raise refusal(line, f"not valid YAML: {problem}") from error
    except RecursionError as error:
        raise refusal(None, "not valid YAML: nested too deeply") from error
    except (
        Exception
    ) as error:  # ruamel meets odd text with KeyError, TypeError, ValueError and others
        raise refusal(None, f"not valid YAML: {_first_line(error)}") from error
    reader = _Reader(refusal)
    return reader.plain(tree, (), 1), reader.lines


def _refuse_nests(text: str, refusal: Refusal) -> None:
    depth, line = 0, 1
    # those in quotes too: nobody quotes twenty that are never closed
    for sign in re.findall(r"[\[\]{}\n]", text):
        line += sign == "\n"
        depth = max(0, depth + (sign in "[{") - (sign in "]}"))
        if depth > MAX_BRACKETS:
            raise refusal(
                line, f"not valid YAML: more than {MAX_BRACKETS} brackets open at once"
            )


def format_path(path: Path) -> str:
    """A path as a message may show it: on one line, without marks that deceive the eye."""
    return make_showable(str(path), keep="")


def _text(path: Path) -> str:
    try:
        # Only a plain file: a pipe would be empty when it is read again, a device would never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{format_path(path)}: cannot be read: not a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(
                f"{format_path(path)}: more than {MAX_BYTES:,} bytes; is this a grid or profile?"
            )
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{format_path(path)}: cannot be read: {error.strerror}"
        ) from error
    except ValueError as error:  # not UTF-8, or a path that cannot be one
        raise UserError(f"{format_path(path)}: cannot be read: {error}") from error


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["?"])[0][:200]


class _Reader:
    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._count = 0
        self.lines: dict[Place, int] = {}

    def plain(self, node: Any, place: Place, line: int) -> Any:
        self._count += 1
        if self._count > MAX_VALUES or len(place) > MAX_DEPTH:
            raise self._refusal(
                line, "too many or too deeply nested values (aliases multiply them)"
            )
        self.lines[place] = line
        # also where its class is known, of which ruamel tells no types
        untyped: Any = node
        if (
            isinstance(node, CommentedMap | CommentedSeq | TaggedScalar)
            and untyped.tag.value is not None
        ):
            raise self._refusal(
                line,
                f"the tag {_first_line(untyped.tag.value)} is not understood; leave it out",
            )
        if type(node) is CommentedMap:
            if untyped.merge:
                raise self._refusal(
                    line, "`<<` merges nothing in YAML 1.2; write the keys out"
                )
            return {
                self._key(k, line): self.plain(
                    untyped[k], (*place, k), untyped.lc.key(k)[0] + 1
                )
                for k in untyped
            }
        if type(node) is CommentedSeq:
            return [
                self.plain(item, (*place, i), untyped.lc.item(i)[0] + 1)
                for i, item in enumerate(untyped)
            ]
        return self._scalar(node, line)

    def _key(self, key: Any, line: int) -> str:
        if not isinstance(key, str):
            raise self._refusal(
                line, f"the key {_first_line(repr(key))} is not a text; quote it"
            )
        return self._whole(str(key), line)

    def _scalar(self, node: Any, line: int) -> Any:
        if node is None or isinstance(node, bool):
            return node
        if isinstance(node, int) and abs(node) >= 2**63:
            raise self._refusal(
                line, "a number of more than 18 digits; quote it to make it a text"
            )
        # ruamel's scalars are subclasses that remember their spelling; the values are what we keep.
        for kind in (int, float):
            if isinstance(node, kind):
                return kind(node)
        if isinstance(node, str):
            return self._whole(str(node), line)
        if type(node).__name__ == "ScalarBoolean":
            return bool(node)
        found = f"{_first_line(node)!r} is read as {type(node).__name__}"
        raise self._refusal(line, f"{found}; quote it to make it a text")

    def _whole(self, text: str, line: int) -> str:
        """A text of whole characters: JSON writes some as two halves, of which one
        alone can be written nowhere."""
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._refusal(
                line,
                f"{_first_line(repr(text))} holds half a character (\\ud800 to \\udfff)",
            ) from None
