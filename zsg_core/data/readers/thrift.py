"""Reads the few structs of Apache Thrift's compact protocol that tell how large what
follows them is.

Parquet writes one before each page of a column. Only numbers of 32 bits and structs
within structs are kept, by the numbers of their fields; everything else is passed over,
and so is a field of another type, as Thrift's own readers do. Of a footer numbers of 64
bits and lists of structs are kept, too.

Source: thrift-compact-protocol.md of apache/thrift.
"""

from collections.abc import Iterator
from typing import Any

DEEPEST = 16  # structs within one another; a page's header has three

Struct = dict[int, Any]

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (
    1,
    2,
    3,
    7,
    8,
    9,
    10,
    11,
    12,
)
_I16, _I32, _I64 = 4, 5, 6


class Cut(ValueError):
    """The bytes end within the struct."""


class Broken(ValueError):
    """The bytes are no struct."""


def read_struct(text: bytes) -> tuple[Struct, int]:
    """The struct that the bytes begin with, and how long it is. Cut, or Broken, where
    they begin with none."""
    reader = _Reader(text)
    return reader.struct(0), reader.at


def read_structs(
    text: bytes, field: int, limit: int, is_whole: bool = False
) -> Iterator[Struct]:
    """The structs of the list that is the field of the struct that the bytes begin
    with; what follows is not read.

    `is_whole`: with their numbers of 64 bits, and the lists of structs in them. Broken
    for more than `limit`, Cut where they end too soon. Nothing where there is no such
    list.
    """
    reader = _Reader(text, is_whole)
    number = 0
    while head := reader.byte():
        step, kind = head >> 4, head & 15
        number = number + step if step else reader.signed()
        if number != field or kind != _LIST:
            reader.skip(kind, 0)
            continue
        count, kind = reader.head_of_list()
        if count > limit or kind != _STRUCT:
            raise Broken(
                f"a list has {count:,} items, of kind {kind}; {limit:,} structs are read"
            )
        for _ in range(count):
            yield reader.struct(0)
        return


class _Reader:
    def __init__(self, text: bytes, is_whole: bool = False) -> None:
        self._text, self._is_whole, self.at = text, is_whole, 0

    def struct(self, depth: int) -> Struct:
        """A structure's fields by their numbers, as far as they are wanted, and the
        place moves behind it. Raises Broken where more than `DEEPEST` lie within one
        another.

        Source: Thrift's compact protocol. A field's head has the step from the number
        before in its upper four bits and the type in the lower; step 0 means that the
        number follows by itself, and a head of 0 ends the structure. A reader that is
        not `is_whole` takes only 32-bit numbers and structures, and passes over all
        else.
        """
        if depth > DEEPEST:
            raise Broken("structs are nested too deeply")
        fields: Struct = {}
        number = 0
        while head := self.byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self.signed()
            if kind == _I32 or (kind == _I64 and self._is_whole):
                fields[number] = self.signed()
            elif kind == _STRUCT:
                fields[number] = self.struct(depth + 1)
            elif kind == _LIST and self._is_whole:
                fields[number] = self._list(depth)
            else:
                self.skip(kind, depth)
        return fields

    def head_of_list(self) -> tuple[int, int]:
        """How many items a list has, and of which kind."""
        head = self.byte()
        count = head >> 4
        return (self.number() if count == 15 else count), head & 15

    def _list(self, depth: int) -> list[Struct]:
        """The structs of a list; none for a list of another kind."""
        count, kind = self.head_of_list()
        if kind != _STRUCT:
            self._skip_many(count, (kind,), depth)
            return []
        return [self.struct(depth + 1) for _ in range(count)]

    def skip(self, kind: int, depth: int) -> None:
        if kind in (_TRUE, _FALSE):
            return  # the type says it
        self._skip_value(kind, depth)

    def _skip_value(self, kind: int, depth: int) -> None:
        """Moves behind a value without keeping it. Raises Broken for a type that is
        none.

        `depth` counts on for values within values, so that a file cannot exhaust the
        stack. The key and value types of a map share one byte, which an empty map has
        not.
        """
        if kind in (_TRUE, _FALSE, _BYTE):
            self._jump(1)
        elif kind in (_I16, _I32, _I64):
            self.number()
        elif kind == _DOUBLE:
            self._jump(8)
        elif kind == _BINARY:
            self._jump(self.number())
        elif kind in (_LIST, _SET):
            count, item = self.head_of_list()
            self._skip_many(count, (item,), depth)
        elif kind == _MAP:
            count = self.number()
            kinds = self.byte() if count else 0
            self._skip_many(count, (kinds >> 4, kinds & 15), depth)
        elif kind == _STRUCT:
            self.struct(depth + 1)
        else:
            raise Broken(f"there is no type {kind}")

    def _skip_many(self, count: int, kinds: tuple[int, ...], depth: int) -> None:
        if depth > DEEPEST:
            raise Broken("lists are nested too deeply")
        if count > len(self._text):
            raise Cut  # each has a byte at least
        for _ in range(count):
            for kind in kinds:
                self._skip_value(kind, depth + 1)

    def byte(self) -> int:
        self._jump(1)
        return self._text[self.at - 1]

    def _jump(self, count: int) -> None:
        self.at += count
        if self.at > len(self._text):
            raise Cut

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise Broken("a number has more than 64 bits")

    def signed(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)
