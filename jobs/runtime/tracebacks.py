"""Gives a traceback a short hash that is the same for the same bug, wherever and
whenever it strikes.

What differs between two runs of one bug is left out: folders, line numbers, addresses,
ids, numbers, quoted values.
"""

import hashlib
import re
import traceback
from collections.abc import Iterable, Sequence

from zsg_core.secrets import hide_known

_FRAME = re.compile(r'\s+File "([^"]+)", line \d+, in (.+)')
_ERROR = re.compile(
    r"((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|Warning|Failure|Superseded)\w*)(?:: (.*))?$"
)
_VARIES = (
    (re.compile(r"0x[0-9a-fA-F]+"), "<address>"),
    (re.compile(r"'[^']*'|\"[^\"]*\""), "<value>"),
    (re.compile(r"(?:/[^\s/:,;()\[\]]+)+/?"), "<path>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"), "<id>"),
    (re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"), "<number>"),
)
_PLACES = re.compile(r".*(?:site-packages|dist-packages|lib/python3\.\d+)/")
DIGITS = 8


def hash_error(error: BaseException) -> str:
    """The hash of an error that was caught: the same as of what `traceback` prints of it."""
    printed = hide_known("".join(traceback.format_exception(error)))
    return hash_last_traceback(printed.splitlines()) or hash_message(
        type(error).__name__
    )


def hash_last_traceback(lines: Sequence[str]) -> str | None:
    """The hash of the last traceback in a log; None if there is none."""
    begins = [
        n
        for n, line in enumerate(lines)
        if line.endswith("Traceback (most recent call last):")
    ]
    return _hash_frames(lines[begins[-1] + 1 :]) if begins else None


def find_error_lines(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Of each traceback in a log the line that names the error, with its place among the lines."""
    error_lines, inside = [], False
    for number, line in enumerate(lines):
        if line.endswith("Traceback (most recent call last):"):
            inside = True
        elif inside and _ERROR.match(line):
            error_lines.append((number, line))
            inside = False
    return error_lines


def hash_message(text: str) -> str:
    """The hash of a message without what varies in it."""
    return hashlib.sha256(mask_varying_parts(text).encode()).hexdigest()[:DIGITS]


def mask_varying_parts(text: str) -> str:
    """A message with a word in place of each part that varies."""
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return text


def _hash_frames(lines: Iterable[str]) -> str | None:
    """A digest of the first traceback in a log, which is the same for the same fault
    wherever it happens: modules and functions without line numbers and folders, the
    error, and its message without what varies in it. None where the log has no whole
    traceback."""
    frames: list[str] = []
    for line in lines:
        if frame := _FRAME.match(line):
            frames.append(f"{_name_module(frame[1])}:{frame[2]}")
        elif error := _ERROR.match(line):
            return hash_message("\n".join([*frames, error[1], error[2] or ""]))
    return None


def _name_module(path: str) -> str:
    """A file by its place in its package, wherever that is installed."""
    inside = _PLACES.sub("", path)
    return ".".join(inside.removesuffix(".py").split("/")[-2:])
