"""Reads of the messages of an Arrow stream how large their compressed buffers are,
before anything is unpacked.

A message is a FlatBuffer, a table of fields by number, and a body with the buffers of a
batch of columns. Of a compressed buffer the first eight bytes say how long it was
before; -1: it was not compressed after all.

Source: Message.fbs of apache/arrow, and the FlatBuffers internals of google/flatbuffers.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

CONTINUES = 0xFFFFFFFF  # before the length of a message, since Arrow 0.15
DICTIONARY, BATCH = 2, 3  # kinds of messages


@dataclass(frozen=True)
class ArrowMessage:
    """One message: its kind, and the bytes that its compressed buffers are when
    unpacked, together."""

    kind: int
    unpacked: int


def read_messages(text: memoryview) -> Iterator[ArrowMessage]:
    """The messages of a stream. struct.error or ValueError where they cannot be
    followed; whoever reads it says why."""
    at = 0
    while at + 4 <= len(text):
        (size,) = struct.unpack_from("<I", text, at)
        at += 4
        if size == CONTINUES:
            (size,) = struct.unpack_from("<I", text, at)
            at += 4
        if size == 0:
            return
        head = text[at : at + size]
        body_at = at + size
        message = _Table(head, _root(head))
        kind = message.number("<B", 1) or 0
        length = message.number("<q", 3) or 0
        if length < 0:
            raise ValueError("a body has less than no bytes")
        body = text[body_at : body_at + length]
        yield ArrowMessage(kind, _unpacked(message.table(2), kind, body))
        at = body_at + length


def _unpacked(header: "_Table | None", kind: int, body: memoryview) -> int:
    """How many bytes the buffers of a message take once they are unpacked, as the file
    itself says; 0 where they are not compressed.

    Each compressed buffer begins with its size as 8 bytes, −1 for one that is stored as
    it is. A reader refuses a file by this sum before it unpacks anything: a small file
    may say that it holds terabytes. A dictionary's batch lies in the field 1 of its
    header.
    """
    batch = header.table(1) if header and kind == DICTIONARY else header
    if batch is None or kind not in (DICTIONARY, BATCH) or batch.table(3) is None:
        return 0
    total = 0
    for offset, length in batch.pairs(2):
        if length >= 8:
            (size,) = struct.unpack_from("<q", body, _not_below(offset))
            total += max(size, 0)
    return total


class _Table:
    """A table of a FlatBuffer: where its fields lie, its vtable tells."""

    def __init__(self, text: memoryview, at: int) -> None:
        """The table at `at`: its first four bytes say how far before it its vtable
        lies, whose first two say how long that is. Raises ValueError where the place
        would be before the text, struct.error where it ends too early."""
        self._text, self._at = text, _not_below(at)
        (back,) = struct.unpack_from("<i", text, self._at)
        self._fields = _not_below(self._at - back)
        (self._size,) = struct.unpack_from("<H", text, self._fields)

    def number(self, kind: str, field: int) -> int | None:
        at = self._place(field)
        return None if at is None else struct.unpack_from(kind, self._text, at)[0]

    def table(self, field: int) -> "_Table | None":
        at = self._place(field)
        return (
            None
            if at is None
            else _Table(self._text, at + struct.unpack_from("<I", self._text, at)[0])
        )

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """The structs of two 64-bit numbers of a vector."""
        at = self._place(field)
        if at is None:
            return
        at += struct.unpack_from("<I", self._text, at)[0]
        (count,) = struct.unpack_from("<I", self._text, at)
        for number in range(count):
            yield struct.unpack_from("<qq", self._text, at + 4 + 16 * number)

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return None
        (offset,) = struct.unpack_from("<H", self._text, self._fields + entry)
        return self._at + offset if offset else None


def _root(text: memoryview) -> int:
    return struct.unpack_from("<I", text, 0)[0]


def _not_below(at: int) -> int:
    if at < 0:
        raise ValueError("a place lies before the beginning")
    return at
