"""Makes texts of others safe to show: in a terminal, on a page, in a log.

Texts of profiles, grids, data, model folders, judges and Slurm may hold escapes that
hide, colour or rewrite what a terminal shows, marks that turn the order of what is
read, and signs that are not seen at all. `make_showable` is the one function that all
of them pass before somebody sees them. What it gives back is for eyes only: what it
writes `\\x1b` may have been an escape or these four letters. Who needs the text itself
takes JSON or Parquet.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

LINE_ENDS_AND_TABS = "\n\t"
# combining marks on one letter; scripts that are written need fewer, floods of them
# cover other lines
MOST_MARKS = 8

_PLAIN = re.compile(r"[\x20-\x7e\n\t]*")
# Letters and signs of Europe and East Asia: no mark, no joiner and nothing invisible is
# among those that print.
_COMMON = re.compile(
    "[\x20-\x7e\u00a1-\u02ff\u0370-\u0482\u048a-\u058f\u2010-\u205e\u2070-\u20cf\u2100-\u27ff\u2900-\u2bff"
    "\u3001-\u3029\u3030-\u3098\u309b-\u3163\u3165-\ua4cf\uac00-\ud7a3\uff01-\uff9f\U0001f300-\U0001faff]*"
)
_RUN = re.compile(r"[^\x20-\x7e]+")  # what is looked at letter by letter
# what progress bars and coloured logs write between letters
_COLOURS = re.compile(r"\x1b\[[0-9;:]{0,32}[mKAG]")
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-9;:]{0,32})?|\r)\Z")

# Blanks that Chinese and French texts are full of; they look like what they are.
_BLANKS = frozenset("\u00a0\u202f\u3000")
# Python takes these for letters or signs that print, but nothing is seen: fillers,
# joiners, an empty braille cell.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159")
# say which form the sign before them has
_SELECTORS = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_JOINERS = "\u200c\u200d"
# Between two of these a joiner says how they are written: scripts from Arabic to
# Mongolian, and pictures.
_JOINED = (
    (0x0600, 0x109F),
    (0x1780, 0x18AF),
    (0x2190, 0x2BFF),
    (0xA840, 0xAAFF),
    (0xFE0E, 0xFE0F),
    (0x1F000, 0x1FAFF),
)


def make_showable(text: str, *, keep: str = LINE_ENDS_AND_TABS) -> str:
    r"""The text with every sign that does not print, or is not seen, written as its
    escape, as `\x1b` or `\u202e`.

    Letters of all scripts stay, with the joiners and the forms of pictures that belong
    to them; of a flood of combining marks the first eight stay. Of blanks stay those
    that texts have: ASCII's, no-break, ideographic.

    `keep`: characters that stay although they do not print; "" for one line or one cell.
    """
    if text.isascii() and (
        text.isprintable() or (keep == LINE_ENDS_AND_TABS and _PLAIN.fullmatch(text))
    ):
        return text
    if text.isprintable() and _COMMON.fullmatch(text):
        return text
    return _RUN.sub(lambda match: _show_run(match, keep), text)


def name_few(names: Sequence[str], most: int = 8) -> str:
    """The names; of many the first `most`, and how many more there are: a line of ten
    thousand is read by nobody."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"


def format_value(value: Any) -> str:
    """A setting's value as one text: a text as it is, all else as JSON.

    Parameters in MLflow hold these texts for ever, so they may never change. It is not
    made showable: who shows it passes it on to `make_showable`.
    """
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


class ShownLog:
    """Makes the pieces of a log showable as they come, which may end within a sequence
    that a terminal would obey.

    Colours and what moves a terminal's mark for progress bars are left out; where a bar
    goes back to the beginning of its line to write over it, the next line begins, so
    that nothing is covered.
    """

    def __init__(self) -> None:
        self._held = ""

    def show(self, piece: str) -> str:
        """What can be shown of the log up to the end of this piece."""
        text = self._held + piece
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return _show_log_text(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """What was held back, once no more comes."""
        unfinished, self._held = self._held, ""
        return _show_log_text(unfinished)


def _show_log_text(text: str) -> str:
    if "\x1b" in text:
        text = _COLOURS.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return make_showable(text)


def _show_run(match: "re.Match[str]", keep: str) -> str:
    """The signs of a run that is not ASCII's printing ones; the signs around it say
    what its joiners join."""
    text, pieces, marks = match.string, [], 0
    for index in range(match.start(), match.end()):
        sign = text[index]
        marks = marks + 1 if _is_mark(sign) else 0
        is_shown = sign in keep or _is_seen(text, index)
        pieces.append(sign if is_shown and marks <= MOST_MARKS else _escape(sign))
    return "".join(pieces)


def _is_mark(sign: str) -> bool:
    """Whether a sign stands on the one before it."""
    return bool(unicodedata.combining(sign)) or unicodedata.category(sign) in (
        "Mn",
        "Me",
    )


def _is_seen(text: str, index: int) -> bool:
    """Whether a sign shows what it is, or how the sign before it is written."""
    sign = text[index]
    before = text[index - 1] if index else " "
    if sign in _JOINERS:
        after = text[index + 1 : index + 2]
        return _is_among(before, _JOINED) and _is_among(after, _JOINED)
    if _is_among(sign, _SELECTORS):
        return _takes_selector(before)
    return (sign.isprintable() or sign in _BLANKS) and sign not in _INVISIBLE


def _takes_selector(sign: str) -> bool:
    """Whether a selector behind a sign says which form of it is meant; more of them, or
    one behind a letter, hide something."""
    is_letter = sign.isascii() and sign.isalpha()
    return sign.isprintable() and not (
        sign.isspace() or is_letter or _is_among(sign, _SELECTORS)
    )


def _is_among(sign: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    """Whether a sign lies in one of the ranges of code points, both ends included; no
    sign ("") lies in none."""
    return bool(sign) and any(first <= ord(sign) <= last for first, last in ranges)


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode()
