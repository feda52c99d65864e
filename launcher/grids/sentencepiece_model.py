"""Reads the pieces of a SentencePiece model, a tokenizer.model, without any engine. The
file is hostile.

The format is protobuf's, of sentencepiece_model.proto: ModelProto.pieces is field 1, of
SentencePiece the piece is field 1, its score 2 and its type 3.
"""

from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 100_000_000  # the largest published tokenizer.model has 5 million
NORMAL, USER_DEFINED = 1, 4
_VARINT, _EIGHT_BYTES, _TEXT, _FOUR_BYTES = 0, 1, 2, 5  # how protobuf writes a value


def read_pieces(path: Path) -> Iterator[tuple[str, int]]:
    """Each piece with its type. ValueError for a file that is no SentencePiece model."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    for number, value in _fields(path.read_bytes()):
        if number == 1 and isinstance(value, bytes):
            yield _read_piece(value)


def _read_piece(message: bytes) -> tuple[str, int]:
    """A piece and its type from one message of the model. Field 1 is the piece as
    UTF-8, field 3 its type, which protobuf leaves out where it is NORMAL. Raises
    ValueError where the fields have other types or the piece is no UTF-8."""
    fields = dict(_fields(message))
    piece, kind = fields.get(1, b""), fields.get(3, NORMAL)
    if not isinstance(piece, bytes) or not isinstance(kind, int):
        raise ValueError("a piece is none")
    return piece.decode("utf-8"), kind


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and value of each field of a message."""
    offset = 0
    while offset < len(message):
        key, offset = _varint(message, offset)
        kind = key & 7
        if kind == _VARINT:
            value, offset = _varint(message, offset)
            yield key >> 3, value
            continue
        if kind == _TEXT:
            length, offset = _varint(message, offset)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if offset + length > len(message):
            raise ValueError("it is cut short")
        yield key >> 3, message[offset : offset + length]
        offset += length


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    """A number and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        if offset >= len(message):
            raise ValueError("it is cut short")
        value |= (message[offset] & 0x7F) << shift
        offset += 1
        if message[offset - 1] < 0x80:
            return value, offset
    raise ValueError("a number of more than ten bytes")
