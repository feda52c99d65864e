"""Cuts a JSON array of any size into pieces that each hold whole records, without
parsing them in Python.

A cut is guessed where one record seems to end and the next to begin, and checked: a
text that begins at a record and is a whole array once `]` is put after it ends at a
record too. What looks like an end inside a text or inside a nested list fails the
check, and the guess before it is tried.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator

import msgspec

# bytes of one record; what is longer is no text that a model could be trained on
LONGEST = 128 << 20
TRIES = 4
# What a decoder raises. ValueError: for a number of thousands of digits, which Python
# does not take for one.
BAD = (msgspec.DecodeError, ValueError, RecursionError)
_OBJECTS = re.compile(rb"\}\s*,\s*(?=\{)")
_FIRST_KEY = re.compile(rb'\s*\{\s*("(?:[^"\\]|\\.)*")\s*:')
_BLANK = re.compile(r"[ \t\n\r]*")
_BYTE = re.compile(r"\(byte (\d+)\)")
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])

Piece = tuple[bytes, list | None]


class TooLong(ValueError):
    """No row ends within LONGEST bytes."""

    def __init__(self) -> None:
        super().__init__(
            f"no row ends within {LONGEST >> 20} MiB; is this a file of rows?"
        )


def cut_array(
    head: bytes, read: Callable[[int], bytes], decode: Callable[[bytes], list]
) -> Iterator[Piece]:
    """The array as smaller arrays: each text `[…]` with what `decode` made of it, or
    None where that failed.

    `head` begins after the array's `[`; `read(n)` gives more. `decode` may refuse a
    whole array for what is in it (DecodeError). A broken or truncated array ends with a
    piece that is no JSON. TooLong for a record beyond LONGEST.
    """
    buffer, edges = head, _edges(head)
    while block := read(len(buffer)):
        buffer += block
        try:
            piece_and_end = _last_cut(buffer, edges, decode)
        except msgspec.DecodeError:
            break
        if piece_and_end:
            piece, begin = piece_and_end
            yield piece
            buffer = buffer[begin:]
        elif len(buffer) > LONGEST:
            raise TooLong
    last = b"[" + buffer
    yield last, _decoded(last, decode)


def first_broken(piece: bytes) -> int:
    """Which record of a piece that is no JSON is the first that cannot be read."""
    text, decoder, at, count = piece.decode(errors="replace"), json.JSONDecoder(), 1, 0
    while True:
        try:
            _, at = decoder.raw_decode(text, _skip(text, at))
        except (ValueError, RecursionError):
            return count
        at = _skip(text, at)
        count += 1
        if text[at : at + 1] != ",":
            return count
        at += 1


def _skip(text: str, at: int) -> int:
    blanks = _BLANK.match(text, at)
    return blanks.end() if blanks else at


def _edges(head: bytes) -> list[re.Pattern[bytes]]:
    # Records mostly begin with the same key, and what is nested in them with another:
    # then the first guess holds.
    key = _FIRST_KEY.match(head)
    same = (
        [re.compile(rb"\}\s*,\s*(?=\{\s*" + re.escape(key[1]) + rb"\s*:)")]
        if key
        else []
    )
    return [*same, _OBJECTS]


def _last_cut(
    buffer: bytes, edges: list[re.Pattern[bytes]], decode: Callable[[bytes], list]
) -> tuple[Piece, int] | None:
    """The longest begin of the buffer that is whole records, and where the next one
    begins.

    Each pattern of `edges` finds ends of records as one style of writing has them, the
    surest first; at most `TRIES` of its matches are tried, since a match may lie within
    a text. Where the piece is whole but does not decode, its records are None: the
    caller reads them one by one to find the faulty one. None: no end was found, and
    more of the file is needed.
    """
    for edge in edges:
        for cut in itertools.islice(_from_the_end(edge, buffer), TRIES):
            piece = b"[" + buffer[: cut.start() + 1] + b"]"
            records = _decoded(piece, decode)
            if records is not None or _is_whole(piece):
                return (piece, records), cut.end()
    return None


def _decoded(piece: bytes, decode: Callable[[bytes], list]) -> list | None:
    try:
        return decode(piece)
    except BAD:
        return None


def _is_whole(piece: bytes) -> bool:
    try:
        _RAWS.decode(piece)
    except msgspec.DecodeError as error:
        at = _BYTE.search(str(error))
        if at and int(at[1]) < len(piece) - 1:
            raise  # broken before the cut: no other cut will help
        return False
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error
    return True


def _from_the_end(edge: re.Pattern[bytes], buffer: bytes) -> Iterator[re.Match[bytes]]:
    """The matches of `edge`, the last first, as far as they are worth a look.

    Windows that grow from 16 KiB are searched from the end: the wanted match is nearly
    always among the last few, and a list of all matches of a large buffer would cost
    more than the file's parsing.
    """
    # Not to the begin: of a buffer full of one record nearly all is in vain, and more
    # of the file brings its end.
    end, width = len(buffer), 1 << 14
    first_start = end - max(1 << 20, end // 4)
    while end > max(0, first_start):
        start = max(0, end - width)
        yield from reversed(list(edge.finditer(buffer, start, end)))
        end, width = start, 2 * width
