"""Asks the question of a row by a wording: what its columns say, put into its words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zsg_core.data.readers.fields import read_list, read_text
from zsg_core.data.readers.intake import Malformed
from zsg_core.data.readers.wordings import parse_wording


def make_asker(
    wording: str, getters: Mapping[str, Callable[[Any], Any]]
) -> Callable[[Any], str]:
    """A function that words the question of a row; `getters` find what stands at each
    of the wording's paths.

    Malformed for a row that lacks one of them.
    """
    pieces = parse_wording(wording)

    def ask(row: Any) -> str:
        texts: list[str] = []
        is_told = False
        for piece in pieces:
            text = piece.text
            if piece.is_path:
                value = getters[piece.text](row)
                text = write_value(value, piece.text)
                is_told = is_told or bool(text.strip())
            texts.append(text)
        if not is_told:
            paths = ", ".join(getters)
            raise Malformed(f"`{paths}` is blank")
        return "".join(texts)

    return ask


def write_value(value: Any, path: str) -> str:
    """A value as it stands in a question: a text, or of a list each text on a line."""
    if isinstance(value, list):
        lines: Sequence[str] = read_list(value, path)
        return "\n".join(lines)
    return read_text(value, path)
