"""Reads files of rows as a stream: JSON lines, one JSON array, CSV, tab-separated
lines; packed or not.

A row is decoded straight into a msgspec type that states the format's keys. Files are
read in blocks and decoded a block at a time; only where that fails is the block looked
at row by row, to tell which row it was.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import msgspec

from zsg_core.data.readers import json_array, keys
from zsg_core.data.readers.intake import Intake, broken_file
from zsg_core.data.readers.json_array import BAD

Row = TypeVar("Row")
Fields = TypeVar("Fields", bound=msgspec.Struct)

BLOCK = 256 << 10  # what stays in a core's cache is read a third faster than megabytes
BOM = b"\xef\xbb\xbf"
# how files begin that are packed
PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}
LONGEST_MARK = max(map(len, PACKED))
# what reading a file of CSV raises
UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    csv.Error,
    UnicodeDecodeError,
    json_array.TooLong,
)
LINE, ITEM = ":{}", "[{}]"
ZSTD = ".zst"


@dataclass(frozen=True)
class Chunk(Generic[Row]):
    """Rows that stand together: `where.format(first + i)` says where in the file the i-th is."""

    where: str
    first: int
    rows: list[Row]
    has_keys: bool = True  # whether any of them may have a key of `keys`


class _Decoding(Generic[Row]):
    """Decodes many rows at once, as `bare`, which has no key of `keys` and knows no
    others, as long as that will do.

    Most files have the keys of their format and no more, and a type of few fields is
    read in two thirds of the time.
    """

    def __init__(
        self, kind: type[Row], bare: type[Row] | None, as_lines: bool, intake: Intake
    ) -> None:
        """`kind` is the type of one row and `bare` its smaller one, None where there is
        none; `as_lines` says whether many rows come as lines of JSON or as one array.
        Keys that the type does not have go to `intake`."""
        hook = keys.make_decode_hook(intake)
        self.one = msgspec.json.Decoder(kind, dec_hook=hook)
        self._all = self._many(kind, as_lines, hook)
        self._bare = None if bare is None else self._many(bare, as_lines, hook)

    @staticmethod
    def _many(
        kind: type[Row], as_lines: bool, hook: Callable[..., Any]
    ) -> Callable[[bytes], list[Row]]:
        """The function that decodes a block of many rows; it raises for the whole block
        where one of them is broken."""
        if as_lines:
            return msgspec.json.Decoder(kind, dec_hook=hook).decode_lines
        return msgspec.json.Decoder(list[kind], dec_hook=hook).decode

    def __call__(self, text: bytes) -> list[Row]:
        """The rows. DecodeError or its like for what are none."""
        if self._bare is not None:
            try:
                return self._bare(text)
            except msgspec.ValidationError as error:
                if "unknown field" in str(error):
                    self._bare = None  # the rows after it will have it, too
        return self._all(text)


def json_rows(
    path: Path, kind: type[Row], intake: Intake, bare: type | None = None
) -> Generator[Chunk[Row], None, None]:
    """The rows of a .json or .jsonl file, told apart by its first character. UserError
    if it cannot be read.

    `bare`: a type like `kind` that forbids unknown fields and has no keys of `keys`, for speed.
    """
    try:
        with _open(path) as file:
            head = file.read(BLOCK).removeprefix(BOM)
            inner = head.lstrip()
            if inner[:1] == b"[":
                yield from _array(
                    path, inner[1:], file, _Decoding(kind, bare, False, intake), intake
                )
            else:
                yield from _lines(
                    path, head, file, _Decoding(kind, bare, True, intake), intake
                )
    except (OSError, EOFError, zlib.error, json_array.TooLong) as error:
        raise broken_file(path, f"cannot be read: {error}") from error


def csv_rows(
    path: Path,
    kind: type[Fields],
    intake: Intake,
    needed: Sequence[str] | None = None,
    delimiter: str = ",",
) -> Generator[Chunk[Fields], None, None]:
    """The rows of a CSV file with a header. UserError if it cannot be read or lacks a column.

    `needed`: the columns that must be there, or of a path with dots its head; None for
    all of `kind`.
    """
    csv.field_size_limit(json_array.LONGEST)
    number = 1
    try:
        with (
            _open(path) as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file,
        ):
            lines = _Lines(file)
            reader = csv.reader(lines, strict=True, delimiter=delimiter)
            header = next(reader, None)
            columns = [field.encode_name for field in msgspec.structs.fields(kind)]
            _check_header(path, header, columns if needed is None else needed)
            assert header is not None, "a file without a header is refused"
            hook = keys.make_decode_hook(intake)
            lines.taken = 0
            for fields in reader:
                number = reader.line_num
                lines.taken = 0
                if len(fields) == len(header):
                    values = dict(zip(header, fields, strict=True))
                    row = msgspec.convert(values, kind, dec_hook=hook)
                    yield Chunk(LINE, number, [row], intake.take_met_key())
                elif fields:  # a blank line is no row
                    intake.refuse_row(
                        f"{path}:{number}",
                        f"has {len(fields)} fields, the header {len(header)}",
                    )
    except UNREADABLE as error:
        raise broken_file(
            path, f"cannot be read as CSV after line {number}: {error}"
        ) from error


def csv_cells(path: Path, delimiter: str) -> Generator[dict[str, str], None, None]:
    """The rows of a CSV file by the names of its header, whatever these are. BadData for
    one that cannot be read."""
    csv.field_size_limit(json_array.LONGEST)
    try:
        with (
            _open(path) as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file,
        ):
            yield from csv.DictReader(_Lines(file), strict=True, delimiter=delimiter)
    except UNREADABLE as error:
        raise broken_file(path, f"cannot be read as CSV: {error}") from error


def find_missing(columns: Sequence[str], needed: Sequence[str]) -> list[str]:
    """The columns that are needed and not there; of a path with dots its head will do."""
    missing: list[str] = []
    for path in needed:
        head = path.partition(".")[0]
        if path not in columns and head not in columns:
            missing.append(path)
    return missing


def _check_header(path: Path, header: list[str] | None, needed: Sequence[str]) -> None:
    """BadData for a header that lacks a column, or names one that is needed twice."""
    columns = header or []
    if find_missing(columns, needed):
        joined = ", ".join(needed)
        first_line = str(header)[:500]
        hint = ""
        if len(columns) == 1 and ";" in columns[0]:
            hint = "; its fields stand between semicolons: save it with commas"
        raise broken_file(
            path,
            f"the first line must name the columns {joined}; found {first_line}{hint}",
        )
    for column in needed:
        if columns.count(column) > 1:
            raise broken_file(path, f"the first line names {column!r} twice")


class _Lines:
    """The lines of a file, as long as those of one record have no more than LONGEST
    characters together.

    Whoever takes a record sets `taken` back: neither a line that never ends nor a
    record of endless quotes is read.
    """

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._read = file.readline
        self.taken = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._read(json_array.LONGEST + 1)
        if not line:
            raise StopIteration
        self.taken += len(line)
        if self.taken > json_array.LONGEST:
            raise json_array.TooLong
        return line


def tab_rows(
    path: Path, columns: int, intake: Intake
) -> Generator[Chunk[list[str]], None, None]:
    """The fields of each line of a tab-separated file without header or quotes; blank
    lines are none."""
    try:
        with _open(path) as file:
            for number, line in enumerate(_each_line(file), start=1):
                try:
                    fields = line.decode().rstrip("\r\n").split("\t")
                except UnicodeDecodeError as error:
                    intake.refuse_row(f"{path}:{number}", error)
                    continue
                if len(fields) == columns:
                    yield Chunk(LINE, number, [fields])
                elif fields != [""]:
                    intake.refuse_row(
                        f"{path}:{number}",
                        f"has {len(fields)} tab-separated fields, not {columns}",
                    )
    except (OSError, EOFError, zlib.error, json_array.TooLong) as error:
        raise broken_file(path, f"cannot be read: {error}") from error


def _open(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where its name says how it is packed. BadData for
    one that is packed otherwise than its name says."""
    file = _unpack(path)
    try:
        head = file.peek(LONGEST_MARK)
    except OSError:
        file.close()
        raise
    for mark, packing in PACKED.items():
        if head.startswith(mark):
            file.close()
            raise broken_file(
                path,
                f"is packed by {packing}, which its name does not say; unpack it, or pack it by"
                " gzip under a name that ends in .gz",
            )
    return file


def _unpack(path: Path) -> Any:
    """The bytes of a file as a stream that can be looked into."""
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ZSTD:
        return io.BufferedReader(_Zstandard(path), BLOCK)
    return path.open("rb")


class _Zstandard(io.RawIOBase):
    """The bytes of a file that is packed by zstandard, unpacked as they are asked for."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        super().__init__()
        self._file = pa.input_stream(str(path), compression="zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, or as much of it as is left. OSError for broken bytes.

        By no block of pyarrow's own: one of broken bytes is never freed.
        """
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _each_line(file: BinaryIO) -> Iterator[bytes]:
    first = file.readline(json_array.LONGEST + 1).removeprefix(BOM)
    line = first
    while line:
        _refuse_long(line)
        yield line
        line = file.readline(json_array.LONGEST + 1)


def _lines(
    path: Path, head: bytes, file: BinaryIO, decode: _Decoding[Row], intake: Intake
) -> Iterator[Chunk[Row]]:
    number = 1
    for block in _whole_lines(head, file):
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        try:
            rows = decode(block)
        except BAD:
            rows = []
        if len(rows) == lines:
            yield Chunk(LINE, number, rows, intake.take_met_key())
        else:  # a bad row, or a blank line that would shift the numbers
            for i, line in enumerate(block.split(b"\n")):
                if line.strip():
                    yield from _one(path, LINE, number + i, line, decode.one, intake)
        number += lines


def _whole_lines(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    pending, block = head, head
    while block:
        cut = pending.rfind(b"\n") + 1
        if cut:
            yield pending[:cut]
            pending = pending[cut:]
        _refuse_long(pending)
        block = file.read(max(BLOCK, len(pending)))
        pending += block
    if pending:
        yield pending


def _array(
    path: Path, head: bytes, file: BinaryIO, decode: _Decoding[Row], intake: Intake
) -> Iterator[Chunk[Row]]:
    """The rows of a file that is one JSON array, in chunks, without the file ever being
    in memory as a whole.

    `head` is what of `file` was read before. A piece that does not decode at once is
    read row by row: the faulty one is named by its index in the file, counted from 0,
    and what the intake allows to be left out is left out.
    """
    index = 0
    for piece, rows in json_array.cut_array(
        head, lambda size: file.read(max(BLOCK, size)), decode
    ):
        if rows is None:
            raws = _raws(path, piece, index)
            for i, raw in enumerate(raws):
                yield from _one(path, ITEM, index + i, raw, decode.one, intake)
            index += len(raws)
        else:
            yield Chunk(ITEM, index, rows, intake.take_met_key())
            index += len(rows)


def _raws(path: Path, piece: bytes, index: int) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(piece, type=list[msgspec.Raw])
    except BAD as error:
        record = index + json_array.first_broken(piece)
        raise broken_file(
            path, f"the array is broken at its record [{record}]: {error}"
        ) from error


def _one(
    path: Path,
    location: str,
    number: int,
    text: bytes | msgspec.Raw,
    decoder: msgspec.json.Decoder[Row],
    intake: Intake,
) -> Iterator[Chunk[Row]]:
    try:
        row = decoder.decode(text)
    except BAD as error:
        intake.refuse_row(f"{path}{location.format(number)}", error)
    else:
        yield Chunk(location, number, [row])


def _refuse_long(text: bytes) -> None:
    if len(text) > json_array.LONGEST:
        raise json_array.TooLong
