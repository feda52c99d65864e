"""Words a question by columns of a row: a text in which `{question}` stands for what
that column says.

The text is cut once into words and paths. Nothing of it is evaluated, and what a row
says is put in as it is, braces and all. `{{` and `}}` are braces of the text itself.
"""

import re
from dataclasses import dataclass

PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
BRACES = {"{{": "{", "}}": "}"}


@dataclass(frozen=True)
class Part:
    """A piece of a wording: words, or the path of a column that stands there."""

    text: str
    is_path: bool = False


def parse_wording(wording: str) -> list[Part]:
    """The pieces of a wording, in their order.

    ValueError for a brace that stands alone, a column without a name, or a wording
    without any column.
    """
    pieces: list[Part] = []
    position = 0
    for match in PIECE.finditer(wording):
        before = wording[position : match.start()]
        if before:
            pieces.append(Part(before))
        position = match.end()
        piece = _read_piece(match.group())
        pieces.append(piece)
    after = wording[position:]
    if after:
        pieces.append(Part(after))
    if not any(piece.is_path for piece in pieces):
        raise ValueError(
            "names no column; write one in braces, such as 'Sum this up: {text}'"
        )
    return pieces


def _read_piece(piece: str) -> Part:
    """What a piece in braces stands for. ValueError for a brace alone."""
    if piece in BRACES:
        return Part(BRACES[piece])
    if len(piece) == 1:
        raise ValueError(
            f"has a {piece} that stands alone; columns stand in braces, such as {{text}},"
            f" and a brace of the text is written twice: {piece}{piece}"
        )
    path = piece[1:-1].strip()
    if not all(path.split(".")):
        raise ValueError(f"has {piece}, which names no column")
    return Part(path, is_path=True)


def list_paths(wording: str) -> list[str]:
    """The paths of a wording that can be parsed, each once."""
    paths: dict[str, None] = {}
    for piece in parse_wording(wording):
        if piece.is_path:
            paths[piece.text] = None
    return list(paths)
