"""Reads Parquet files and Arrow streams row by row, with a bound on the bytes that are
held at once.

Both formats say much with few bytes: a dictionary holds a text once and names it in
every row, pages and buffers are compressed. A kilobyte may stand for gigabytes. So
sizes are looked at before anything is unpacked: of Parquet those in the headers of the
pages, of Arrow those before each compressed buffer. Rows are turned into Python's lists
in pieces of at most PIECE bytes, and a row of more than LONGEST is refused, as it is in
JSON.

Sources: parquet.thrift and Encodings.md of apache/parquet-format.
"""

import contextlib
import functools
import os
import struct
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsg_core.data.readers import flatbuffer, thrift
from zsg_core.data.readers.intake import broken_file
from zsg_core.data.readers.json_array import LONGEST
from zsg_core.errors import UserError

# at once: the first that keeps a batch within AT_ONCE
ROWS = (1000, 500, 300, 100, 50, 20, 10, 5, 2, 1)
ENOUGH = 300  # rows at once are hardly slower than a thousand
# bytes of a batch as Arrow holds it, or of what cannot be cut: one row, a compressed batch
AT_ONCE = 1 << 30
PIECE = 64 << 20  # bytes of rows that become Python's lists at once
# bytes of an unpacked page; writers begin the next after 1 MiB, or 100, or 1,024 texts
PAGE = 512 << 20
FOOTER = 64 << 20  # bytes
COLUMNS = 10_000
ELEMENTS = 4 * COLUMNS  # columns of columns included: a list has two
DEEPEST = 64  # columns within one another; a dialogue's have five
MOST_ROWS = 1_000_000_000
OBJECT = 64  # bytes or so of a value as an object of Python's
# bytes or so of a value in Arrow beside its own: levels, offsets, what stands for one
# that is not there
NULL = 16
SCANNED = 8 << 20  # bytes of a dictionary that may be gone through for its longest text
# bytes read for the header of a page, until it is whole
HEADERS = (1 << 9, 1 << 16, 1 << 24)

CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}

# Fields of FileMetaData, of ColumnChunk, and of ColumnMetaData.
_GROUPS, _META = 4, 3
_CODEC, _PACKED, _FIRST_PAGE, _DICTIONARY_PAGE = 4, 7, 9, 11
_NEEDED = (_CODEC, _PACKED, _FIRST_PAGE)
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
# encodings: by a dictionary; DELTA_BYTE_ARRAY, by what a text has of the one before it
_NAMED, _SHARED = (2, 8), 7


def read_schema(file: Path) -> Any:
    """The Arrow schema of a file. BadData for one that cannot be read; UserError
    without pyarrow."""
    pa, parquet = _engines()
    with _explained(file):
        if file.suffix == ".parquet":
            _footer(file)
            arrow_schema = parquet.read_schema(file)
        else:
            arrow_schema = pa.ipc.open_stream(pa.memory_map(str(file))).schema
        if len(arrow_schema) > COLUMNS:
            raise broken_file(
                file,
                f"has {len(arrow_schema):,} columns; zsg reads files of up to {COLUMNS:,}",
            )
        for column in arrow_schema:
            _refuse_nameless(column)
        return arrow_schema


def _refuse_nameless(column: Any) -> None:
    """UnicodeDecodeError for a name that is no text, of a column or within it."""
    _ = column.name
    kind = column.type
    if isinstance(kind.num_fields, int) and hasattr(kind, "field"):
        for number in range(kind.num_fields):
            _refuse_nameless(kind.field(number))


def read_rows(
    file: Path, column_names: Iterable[str]
) -> Generator[list[dict[str, Any]], None, None]:
    """The rows of a file in its order, some at a time, with those of its columns that are wanted.

    BadData for a file that cannot be read, and for a row beyond LONGEST; UserError without pyarrow.
    """
    read = _of_parquet if file.suffix == ".parquet" else _of_arrow
    number = 0
    with _explained(file):
        for batch in read(file, frozenset(column_names)):
            for piece in _pieces(file, batch, number):
                yield piece.to_pylist()
            number += len(batch)


def _engines() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise UserError(
            "reading Hugging Face data needs pyarrow: pip install 'zsg[train]'"
        ) from error
    return pa, parquet


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise broken_file(
            file,
            "cannot be read: some of its rows together unpack to more than the memory holds",
        ) from None
    # pyarrow meets odd bytes with errors of many types, its own and Python's
    except Exception as error:
        raise broken_file(file, f"cannot be read: {str(error)[:500]}") from error


# Parquet


def _footer(file: Path) -> bytes:
    """The footer, unless it would fill the memory, or the stack: columns beyond number,
    or within one another.

    Each of its bytes may become a struct of hundreds. Nothing for a file of another
    kind, which pyarrow names.
    """
    text = _read_footer(file)
    if not text:
        return b""
    try:
        elements = list(thrift.read_structs(text, 2, ELEMENTS))
    except (thrift.Cut, thrift.Broken) as error:
        raise broken_file(
            file, f"cannot be read: the schema in its footer: {error or 'is cut'}"
        ) from None
    _refuse_deep_columns(file, elements)
    return text


def _read_footer(file: Path) -> bytes:
    """The bytes of the footer; none for a file of another kind."""
    with file.open("rb") as raw:
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(0, size - 8))
        end = raw.read(8)
        length = int.from_bytes(end[:4], "little")
        is_parquet = len(end) == 8 and end[4:] == b"PAR1"
        if not is_parquet or length > size - 8:
            return b""
        if length > FOOTER:
            raise broken_file(
                file,
                f"has a footer of {length:,} bytes; zsg reads those of up to {FOOTER:,}",
            )
        raw.seek(size - 8 - length)
        return raw.read(length)


def _refuse_deep_columns(file: Path, elements: Iterable[thrift.Struct]) -> None:
    """BadData for a schema with columns within columns beyond DEEPEST."""
    # of the columns that others stand within, how many of these are still to come
    open_children: list[int] = []
    for element in elements:
        open_children.append(max(0, element.get(5, 0)))
        if len(open_children) > DEEPEST:
            raise broken_file(
                file, f"has columns within columns, more than {DEEPEST} deep"
            )
        while open_children and not open_children[-1]:
            open_children.pop()
            if open_children:
                open_children[-1] -= 1


def _columns_of_groups(
    file: Path, footer: bytes, count: int
) -> Iterator[list[thrift.Struct]]:
    """What the footer tells of the columns of each group of rows: ColumnMetaData of parquet.thrift.

    Not asked of pyarrow, which ends the process over a column whose statistics do not
    fit its schema.
    """
    try:
        for group in thrift.read_structs(footer, _GROUPS, MOST_ROWS, is_whole=True):
            entries = [column.get(_META) for column in group.get(1) or ()]
            metadata = [entry for entry in entries if isinstance(entry, dict)]
            if len(metadata) != count or not all(map(_has_places, metadata)):
                raise broken_file(
                    file,
                    "cannot be read: its footer does not tell of every column in each group of"
                    " rows",
                )
            yield metadata
    except (thrift.Cut, thrift.Broken) as error:
        raise broken_file(
            file,
            f"cannot be read: the groups of rows in its footer: {error or 'are cut'}",
        ) from None


def _has_places(metadata: thrift.Struct) -> bool:
    """Whether it tells where the pages of a column are."""
    return all(isinstance(metadata.get(key), int) for key in _NEEDED)


def _of_parquet(file: Path, column_names: frozenset[str]) -> Iterator[Any]:
    """The batches of rows of a Parquet file, with the named columns only. As many rows
    at once as are sure to fit the memory by the sizes that its pages tell."""
    _, parquet = _engines()
    footer = _footer(file)
    with parquet.ParquetFile(file, pre_buffer=False) as opened, file.open("rb") as raw:
        metadata = opened.metadata
        _refuse_too_many(file, metadata)
        selected = _select_leaves(opened, column_names)
        sizes = _list_group_sizes(file, metadata)
        columns = _columns_of_groups(file, footer, metadata.num_columns)
        for group, (size, of_group) in enumerate(zip(sizes, columns, strict=True)):
            chunks = [
                _chunk(file, raw.fileno(), leaf, of_group[number])
                for number, leaf in selected.leaves.items()
            ]
            count, is_sure = _rows_at_once(file, chunks)
            batches = opened.iter_batches(
                count, row_groups=[group], columns=selected.names
            )
            for batch in batches if is_sure else _guarded(batches):
                size -= len(batch)
                yield batch
            if size:
                raise broken_file(
                    file,
                    f"cannot be read: a group has {size:,} rows fewer than it says",
                )


def _refuse_too_many(file: Path, metadata: Any) -> None:
    """BadData for a file of more rows or columns than zsg reads."""
    if metadata.num_columns <= COLUMNS and metadata.num_rows <= MOST_ROWS:
        return
    raise broken_file(
        file,
        f"has {metadata.num_rows:,} rows of {metadata.num_columns:,} values; zsg"
        f" reads files of up to {MOST_ROWS:,} rows of {COLUMNS:,}",
    )


@dataclass(frozen=True)
class _Selected:
    """What is read of a file: the leaves of its schema by their numbers, and the names
    of the columns that they are of."""

    leaves: dict[int, Any]
    names: list[str]


def _select_leaves(opened: Any, column_names: Collection[str]) -> _Selected:
    """The leaves of the named columns of an opened Parquet file."""
    whole_names = set(opened.schema_arrow.names)
    leaves: dict[int, Any] = {}
    names: dict[str, None] = {}
    for number in range(opened.metadata.num_columns):
        leaf = opened.schema.column(number)
        head = _find_head(leaf.path, whole_names)
        if head in column_names:
            leaves[number] = leaf
            names[head] = None
    return _Selected(leaves, list(names))


def _list_group_sizes(file: Path, metadata: Any) -> list[int]:
    """The rows of each group. BadData where they are not those of the file."""
    sizes = [
        metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)
    ]
    if sum(sizes) != metadata.num_rows or min(sizes, default=0) < 0:
        raise broken_file(
            file,
            f"cannot be read: its groups have {sum(sizes):,} rows, and it"
            f" {metadata.num_rows:,}",
        )
    return sizes


def _find_head(path: str, whole_names: Collection[str]) -> str:
    """The column that a path of a Parquet schema begins with: dots part what is nested,
    and a column's own name may have some."""
    return path if path in whole_names else path.partition(".")[0]


@dataclass(frozen=True)
class _Page:
    """A page of values: how many, in which encoding, and its bytes when unpacked."""

    values: int
    encoding: int
    size: int


@dataclass
class _Chunk:
    """The pages of a column in a group of rows.

    `is_flat`: every row has one value. `fixed`: bytes that each value takes in Arrow,
    there or not. `named`: the most bytes of a value that stands in the column's
    dictionary; `find_longest` finds them where it is worth it.
    """

    is_flat: bool
    fixed: int
    named: int = 0
    find_longest: Callable[[], int] | None = None
    pages: list[_Page] = field(default_factory=list)

    def whole(self) -> int:
        """The most bytes of all values."""
        return sum(self._most_of(page, page.values) for page in self.pages)

    def most(self, count: int) -> int:
        """The most bytes that so many rows, one after the other, may be in a flat column."""
        best = size = values = first = 0
        for page in self.pages:
            size += self._most_of(page, count)
            values += page.values
            # So many rows hold whole what lies between the first and the last page that they touch.
            while values - page.values - self.pages[first].values > count - 2:
                size -= self._most_of(self.pages[first], count)
                values -= self.pages[first].values
                first += 1
            best = max(best, size)
        return best

    def _most_of(self, page: _Page, count: int) -> int:
        count = min(count, page.values)
        if page.encoding in _NAMED:
            return count * (self.named + self.fixed)
        if page.encoding == _SHARED:
            return count * (page.size + self.fixed)
        return page.size + count * self.fixed


def _rows_at_once(file: Path, chunks: Sequence[_Chunk]) -> tuple[int, bool]:
    """How many rows may be read at once, and whether they are bounded for sure: lists
    may all be in one row."""
    fitting = _fitting(chunks)
    if fitting[0] < ENOUGH:
        for chunk in chunks:
            chunk.named = chunk.find_longest() if chunk.find_longest else chunk.named
        fitting = _fitting(chunks)
    if not fitting[0]:
        raise broken_file(
            file,
            f"has rows that may unpack to more than {AT_ONCE:,} bytes; zsg reads those of"
            f" {LONGEST:,}",
        )
    return fitting


def _fitting(chunks: Sequence[_Chunk]) -> tuple[int, bool]:
    flat = [chunk for chunk in chunks if chunk.is_flat]
    nested = sum(chunk.whole() for chunk in chunks if not chunk.is_flat)
    fitting = (
        count for count in ROWS if sum(chunk.most(count) for chunk in flat) <= AT_ONCE
    )
    return next(fitting, 0), nested <= AT_ONCE


def _chunk(file: Path, raw: int, leaf: Any, metadata: thrift.Struct) -> _Chunk:
    """The pages of a column in a group of rows, by their headers. BadData for one that
    is too large."""
    chunk = _Chunk(
        is_flat=leaf.max_repetition_level == 0, fixed=NULL + max(0, leaf.length or 0)
    )
    has_texts = leaf.physical_type == "BYTE_ARRAY"
    codec = CODECS.get(metadata[_CODEC]) if has_texts else None
    position = _find_first_page(metadata)
    end = position + metadata[_PACKED]
    while position < end:
        head = _read_page_head(file, raw, position)
        if head.kind == _DICTIONARY:
            chunk.named = max(chunk.named, head.unpacked)
            chunk.find_longest = functools.partial(
                _longest, raw, codec, head.body, head.packed, head.unpacked
            )
        elif head.kind in (_DATA, _DATA_V2):
            chunk.pages.append(_describe_page(file, head))
        position = head.body + head.packed
    return chunk


def _find_first_page(metadata: thrift.Struct) -> int:
    """Where the first page of a column begins, be it its dictionary."""
    starts = [metadata.get(key) for key in (_FIRST_PAGE, _DICTIONARY_PAGE)]
    return min(start for start in starts if isinstance(start, int))


@dataclass(frozen=True)
class _PageHead:
    """The header of a page: its kind, its bytes unpacked and packed, where these begin,
    and the header itself."""

    kind: int
    unpacked: int
    packed: int
    body: int
    fields: thrift.Struct


def _read_page_head(file: Path, raw: int, position: int) -> _PageHead:
    """The header of the page at a place. BadData for a page that is too large."""
    fields, length = _header(file, raw, position)
    kind, unpacked, packed = (fields.get(number, 0) for number in (1, 2, 3))
    if unpacked < 0 or packed < 0:
        raise broken_file(file, "cannot be read: a page of less than no bytes")
    if unpacked > PAGE:
        raise broken_file(
            file,
            f"has a page that unpacks to {unpacked:,} bytes; zsg reads those of up to {PAGE:,}",
        )
    return _PageHead(kind, unpacked, packed, position + length, fields)


def _describe_page(file: Path, head: _PageHead) -> _Page:
    """A page of values, of either version."""
    if head.kind == _DATA:
        fields = head.fields.get(5, {})
        page = _Page(fields.get(1, 0), fields.get(2, 0), head.unpacked)
    else:
        fields = head.fields.get(8, {})
        page = _Page(fields.get(1, 0), fields.get(4, 0), head.unpacked)
    if page.values < 0:
        raise broken_file(file, "cannot be read: a page of less than no values")
    return page


def _header(file: Path, raw: int, at: int) -> tuple[thrift.Struct, int]:
    for size in HEADERS:
        try:
            return thrift.read_struct(os.pread(raw, size, at))
        except thrift.Cut:
            continue
        except thrift.Broken as error:
            raise broken_file(
                file, f"cannot be read: the header of a page at byte {at}: {error}"
            ) from None
    raise broken_file(file, f"cannot be read: the header of a page at byte {at} is cut")


def _longest(raw: int, codec: str | None, at: int, packed: int, unpacked: int) -> int:
    """The most bytes of a value of a dictionary: of its texts the longest, where that
    is soon found.

    `codec`: pyarrow's name of how its page is packed, "" for not at all; None where it
    has no texts, or no such name.
    """
    if codec is None or unpacked > SCANNED:
        return unpacked
    text = os.pread(raw, packed, at)
    if codec:
        pa, _ = _engines()
        try:
            text = pa.decompress(text, unpacked, codec=codec, asbytes=True)
        except (ValueError, OSError):  # a codec that has another name there, or none
            return unpacked
    longest = position = 0
    last, length_at = len(text) - 4, struct.Struct("<I").unpack_from
    while position <= last:
        (length,) = length_at(text, position)
        if length > longest:
            longest = length
        position += 4 + length
    return min(longest, unpacked)


def _guarded(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches, each made within 2 AT_ONCE more of address space than there is now;
    MemoryError beyond.

    For lists, of which only unpacking tells how many values a row has. Where the system
    knows no such limit there is none.
    """
    while True:
        with _more_memory(2 * AT_ONCE):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextlib.contextmanager
def _more_memory(size: int) -> Iterator[None]:
    try:
        import resource

        taken = (
            int(Path("/proc/self/statm").read_text().split()[0])
            * resource.getpagesize()
        )
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError):
        yield
        return
    finite_limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([taken + size, *finite_limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# Arrow


def _of_arrow(file: Path, column_names: frozenset[str]) -> Iterator[Any]:
    pa, _ = _engines()
    text = pa.memory_map(str(file)).read_buffer()
    field_numbers = [
        number
        for number, name in enumerate(read_schema(file).names)
        if name in column_names
    ]
    stream = pa.ipc.open_stream(
        text, options=pa.ipc.IpcReadOptions(included_fields=field_numbers)
    )
    heads = flatbuffer.read_messages(memoryview(text))
    while True:
        for head in heads:
            if head.unpacked > AT_ONCE:
                raise broken_file(
                    file,
                    f"has a batch that unpacks to {head.unpacked:,} bytes; zsg reads up to"
                    f" {AT_ONCE:,}",
                )
            if head.kind == flatbuffer.BATCH:
                break
        try:
            batch = stream.read_next_batch()
        except StopIteration:
            return
        batch.validate(full=True)
        for at in range(0, min(len(batch), MOST_ROWS), ROWS[0]):
            yield batch.slice(at, ROWS[0])


# Rows


def _pieces(file: Path, batch: Any, number: int) -> Iterator[Any]:
    """A batch in pieces of at most PIECE bytes, or of one row."""
    size = sum(map(_size, batch.columns))
    if size <= PIECE and size <= LONGEST:
        yield batch
    elif len(batch) == 1:
        if size > LONGEST:
            raise broken_file(
                file,
                f"row [{number}] has {size:,} bytes; zsg reads rows of up to {LONGEST:,}",
            )
        yield batch
    else:
        half = len(batch) // 2
        yield from _pieces(file, batch.slice(0, half), number)
        yield from _pieces(file, batch.slice(half), number + half)


def _size(array: Any) -> int:
    """The bytes of an array's values as Python would hold them, or so, every value
    counted where it stands.

    UserError for a kind of array that no reader needs.
    """
    from pyarrow import types

    kind = array.type
    if hasattr(kind, "storage_type"):
        return _size(array.storage)
    if types.is_dictionary(kind):
        return _size_by_dictionary(array)
    if _is_text(kind):
        return OBJECT * len(array) + (_lengths(array).sum().as_py() or 0)
    if types.is_nested(kind) or types.is_run_end_encoded(kind):
        return _size_nested(array)
    width = kind.bit_width // 8 if types.is_fixed_size_binary(kind) else 0
    return len(array) * max(OBJECT, width)


def _size_by_dictionary(array: Any) -> int:
    """The same of an array that names its values."""
    count = len(array)
    if not _is_text(array.type.value_type):
        return count * max(OBJECT, _size(array.dictionary))
    lengths = _lengths(array.dictionary).take(array.indices)
    return OBJECT * count + (lengths.sum().as_py() or 0)


def _size_nested(array: Any) -> int:
    """The same of an array of structs, lists or maps."""
    from pyarrow import types

    kind, count = array.type, len(array)
    if types.is_struct(kind):
        columns = sum(map(_size, array.flatten()))
        return OBJECT * count * (1 + kind.num_fields) + columns
    if types.is_fixed_size_list(kind):
        items = OBJECT * count * kind.list_size
        # not taken apart where it is too much already
        return items if items > PIECE else OBJECT * count + _size(array.flatten())
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        return OBJECT * count + _size(array.flatten())
    raise UserError(
        f"a column has the type {kind}, which zsg does not read; save it as lists and texts"
    )


def _lengths(array: Any) -> Any:
    """The bytes of each text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if not (types.is_string_view(array.type) or types.is_binary_view(array.type)):
        return pc.call_function("binary_length", [array])
    # A view has 16 bytes, of which the first four are its text's length; many may be of
    # the same text.
    views = np.frombuffer(array.buffers()[1] or b"", "<i4")[
        4 * array.offset : 4 * (array.offset + len(array)) : 4
    ]
    return pa.array(np.maximum(views, 0), pa.int64())


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return any(
        is_kind(kind)
        for is_kind in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
        )
    )
