"""Changes one number in a YAML file of the user's, and leaves every other byte as it is:
comments, order, quotes, line ends.

The text around the number is cut at the places that the parser tells, never written
anew; what comes of it is read again before it takes the file's place.
"""

import os
import re
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from launcher.workspace import yaml_file
from launcher.workspace.yaml_file import Document
from zsg_core.errors import UserError

INDENT = "  "
# by which the parser counts lines
_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_SCALAR = re.compile(r"[^ \t\r\n,}#]*")


@dataclass(frozen=True)
class NumberChange:
    """A number that stands, or is to stand, in a file: below a key of its own mapping.

    `old`: its spelling now, None where it is not written; `text`: the whole file with
    the new one.
    """

    path: Path
    key: str
    old: str | None
    new: str
    text: str

    def write(self) -> None:
        """Puts the text in the file's place, with the rights that the file has; the
        target of a link, not the link. UserError where it may not be written."""
        target = self.path.resolve()
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            mode = stat.S_IMODE(target.stat().st_mode)
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(self.text.encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise UserError(
                f"{yaml_file.format_path(self.path)}: cannot be written: {error.strerror}; write"
                f" {self.key}: {self.new} into it yourself"
            ) from error


def plan_number(path: Path, mapping: str, key: str, new: str) -> NumberChange:
    """The change by which `key` of a mapping at the top of a file is this number; the
    mapping is made where there is none.

    UserError for a file that is written in such a way that only its owner can tell where
    the number belongs.
    """
    before = yaml_file.load_document(path)
    text = _Text(path.read_bytes().decode())
    tree = cast("Any", YAML(typ="rt")).load(text.whole)
    values: Any = tree.get(mapping) if hasattr(tree, "get") else None
    if not isinstance(values, CommentedMap):
        old = text.append_mapping(mapping, key, new)
    elif key in values:
        old = text.replace_value(values, key, new)
    elif values:
        old = text.add_key(values, key, new)
    else:  # `{}`: nothing is changed, and so it is refused
        old = None
    change = NumberChange(path, f"{mapping}.{key}", old, new, text.whole)
    _check(change, before, mapping, key)
    return change


class _Text:
    """A text of which one place is changed. The changes return the old spelling of the
    number, None where there was none."""

    def __init__(self, whole: str) -> None:
        self.whole = whole
        match = _LINE_END.search(whole)
        self._line_end = match[0] if match else "\n"

    def append_mapping(self, mapping: str, key: str, new: str) -> None:
        """Adds the mapping, with the number alone, below all there is."""
        if self.whole and not self.whole.endswith(self._line_end):
            self.whole += self._line_end
        self.whole += f"{mapping}:{self._line_end}"
        self.whole += f"{INDENT}{key}: {new}{self._line_end}"

    def replace_value(self, values: CommentedMap, key: str, new: str) -> str:
        """Puts the number in the place of the one that stands there."""
        line, column = cast("Any", values).lc.value(key)
        start = self._find_offset(line, column)
        old = _read_word(self.whole, start)
        self.whole = self.whole[:start] + new + self.whole[start + len(old) :]
        return old

    def add_key(self, values: CommentedMap, key: str, new: str) -> None:
        """Adds the number before the first key of a mapping, in its way of writing."""
        places = cast("Any", values)
        line, column = places.lc.key(next(iter(values)))
        first = self._find_offset(line, column)
        if places.fa.flow_style():
            added = f"{key}: {new}, "
        else:
            indent = self.whole[first - column : first]
            added = f"{key}: {new}{self._line_end}{indent}"
        self.whole = self.whole[:first] + added + self.whole[first:]

    def _find_offset(self, line: int, column: int) -> int:
        """Where a place is in the text, which the parser tells by line and column."""
        if line == 0:
            return column
        ends = [match.end() for match in _LINE_END.finditer(self.whole)]
        return ends[line - 1] + column


def _read_word(text: str, start: int) -> str:
    """The scalar that begins at an offset."""
    match = _SCALAR.match(text, start)
    return match[0] if match else ""


def _check(change: NumberChange, before: Document, mapping: str, key: str) -> None:
    """UserError unless the new text says what the old one did, but for the number."""
    refusal = before.error(
        (mapping, key),
        f"zsg cannot tell how to write {change.key}: {change.new} there; write it yourself",
    )
    if not hasattr(before.value, "items"):  # no mapping
        raise refusal
    after, _ = yaml_file.parse_yaml(change.text, lambda _line, _message: refusal)
    expected: dict[str, Any] = {**before.value}
    values: dict[str, Any] = expected.get(mapping) or {}
    expected[mapping] = {**values, key: float(change.new)}
    if after != expected:
        raise refusal
