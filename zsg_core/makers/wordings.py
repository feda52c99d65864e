"""Asks a model to word a text anew, and decides which of its wordings count: the
diversified instructions of DELIA (arXiv 2408.10841).

The paper publishes neither code nor prompt, only that 60 wordings were made for 100
items. Here the model is asked for a numbered list, and a wording counts where it has
every mark of the text (a new token, names of fields) and is not nearer than a limit to
the text and to the wordings that count already, by ROUGE-L. So which of them count
depends on their order alone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from zsg_core.metrics.rouge import compute_rouge_l
from zsg_core.settings.makers import MARKS, TEXT, WORDINGS

LONGEST_REPLY = 100_000  # characters
# A wording that is so much longer than its text, in characters, is something else.
MOST_TIMES = 4
LONGEST_OF_SHORT = 400  # characters of a wording of the shortest text

LONG_REPLY = "longer than a reply may be"
NO_LIST = "no numbered list"
CUT = "cut off at the limit of tokens"
EMPTY = "empty"
LONG = "much longer than the text"
NOT_SHOWN = "with characters that do not show"
NO_MARK = "without a mark of the text"
NEAR = "too near to another wording"
ENOUGH = "after the last that was wanted"
REFUSALS = (LONG_REPLY, NO_LIST, CUT, EMPTY, LONG, NOT_SHOWN, NO_MARK, NEAR, ENOUGH)

_PLACE = re.compile("|".join(re.escape(place) for place in (TEXT, WORDINGS, MARKS)))
_NUMBERED = re.compile(r"\s{0,8}[0-9]{1,3}\s?[.):]\s+(.*)")
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("«", "»"))


def write_prompt(template: str, text: str, count: int, marks: Sequence[str]) -> str:
    """The prompt with the text, the number of wordings and the marks in their places;
    what stands in the text is never taken for a place."""
    values = {
        TEXT: text,
        WORDINGS: str(count),
        MARKS: _describe_marks(marks),
    }

    def fill(place: re.Match[str]) -> str:
        return values[place[0]]

    return _PLACE.sub(fill, template)


def _describe_marks(marks: Sequence[str]) -> str:
    """The sentence that names the marks, after a blank; empty without any."""
    if not marks:
        return ""
    return f" Keep these exactly as they are: {', '.join(marks)}."


def find_marks(text: str, marks: Sequence[str]) -> list[str]:
    """The marks that stand in a text: those that its wordings must have, too."""
    return [mark for mark in marks if mark in text]


@dataclass(frozen=True)
class WordingList:
    """The entries of a reply, in its order. `refusal`: why there is none, of REFUSALS;
    `lost`: whether a last entry was left out, as the reply was cut off within it."""

    entries: tuple[str, ...] = ()
    refusal: str | None = None
    lost: bool = False


def read_numbered_list(reply: str, is_cut: bool = False) -> WordingList:
    """The entries of a numbered list, whatever stands around it.

    An entry may have several lines; a blank line ends it. `is_cut`: whether the reply
    was ended by the limit of tokens, which loses its last entry.
    """
    if len(reply) > LONGEST_REPLY:
        return WordingList(refusal=LONG_REPLY)
    entries = [_strip_quotes(entry) for entry in _split_entries(reply)]
    if not entries:
        return WordingList(refusal=CUT if is_cut else NO_LIST)
    if not is_cut:
        return WordingList(tuple(entries))
    return WordingList(tuple(entries[:-1]), lost=True)


def _split_entries(reply: str) -> Iterator[str]:
    """The texts of the entries as they stand."""
    lines: list[str] = []
    for line in reply.split("\n"):
        numbered = _NUMBERED.fullmatch(line)
        if numbered is None and line.strip():
            # text before the first number is of no entry
            if lines:
                lines.append(line.strip())
            continue
        if lines:
            yield "\n".join(lines)
        lines = []
        if numbered is not None:
            lines.append(numbered[1].strip())
    if lines:
        yield "\n".join(lines)


def _strip_quotes(entry: str) -> str:
    """The entry without the quotation marks around the whole of it."""
    text = entry.strip()
    inner = text[1:-1]
    for begin, end in _QUOTES:
        if begin in inner or end in inner:
            continue
        if text == begin + inner + end:
            return inner.strip()
    return text


@dataclass
class WordingPool:
    """The wordings of a text that count, in the order in which they came.

    `marks`: what each must hold; `most_similar`: the greatest ROUGE-L, from 0 to 1, to
    the text and to the wordings before it; `similarity` measures it.
    """

    text: str
    marks: Sequence[str]
    most_similar: float
    wordings: list[str] = field(default_factory=list[str])
    similarity: Callable[[str, str], float] = compute_rouge_l

    def add(self, wording: str) -> str | None:
        """Takes a wording in; the reason, of REFUSALS, where it does not count."""
        refusal = self._explain_refusal(wording)
        if refusal is None:
            self.wordings.append(wording)
        return refusal

    def _explain_refusal(self, wording: str) -> str | None:
        if not wording:
            return EMPTY
        if len(wording) > max(LONGEST_OF_SHORT, MOST_TIMES * len(self.text)):
            return LONG
        if not wording.replace("\n", " ").isprintable():
            return NOT_SHOWN
        if any(mark not in wording for mark in self.marks):
            return NO_MARK
        if self._is_near(wording):
            return NEAR
        return None

    def _is_near(self, wording: str) -> bool:
        """Whether the text or a wording that counts is the same or too similar."""
        plain = _plain(wording)
        for earlier in (self.text, *self.wordings):
            # words are letters and digits: texts of other signs have none in common
            if plain == _plain(earlier):
                return True
            if self.similarity(earlier, wording) > self.most_similar:
                return True
        return False


def _plain(text: str) -> str:
    """The text with neither case nor kinds of blanks."""
    return " ".join(text.casefold().split())
