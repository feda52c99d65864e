"""Reads which training examples a file lists, and in which order: by ids, or by places.

A list is a text file with an entry a line, JSON lines, an array of JSON, a column of
Parquet, or NumPy's `.npy`. Entries are ids of zsg or of the data, or places in the
training list, from 0. The list counts, not how it is written: its digest is the same
from every format.
"""

import gzip
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import msgspec
import numpy as np

from zsg_core.data.readers import columns
from zsg_core.data.readers.intake import broken_file
from zsg_core.errors import BadData, UserError

IDS, PLACES = ("ids", "places")
ID_COLUMN = "id"
MOST_ENTRIES = 100_000_000
MOST_DIGITS = (
    30  # of a place; no list is longer, and Python reads no number of thousands
)
LONGEST = 10_000  # bytes of a line
# what NumPy raises for headers that are none, or that claim what cannot be
UNREADABLE_ARRAY = (
    ValueError,
    EOFError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TokenError,
    zipfile.BadZipFile,
)
NUMPY, PARQUET, LINES = ".npy", ".parquet", (".jsonl", ".ndjson")
ARRAY, CELLS = ".json", ".csv"
# of files that would run code when read, and of several arrays
_OTHER_ARRAYS = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".npz", ".safetensors")
MOST_BYTES = 1 << 30  # of an array of JSON, which is read as a whole
LINE, ROW = "line", "row"  # what an entry stands in


def locate_row(path: Path, unit: str, number: int) -> str:
    """Where the entry of this number, from 0 on, stands, as errors say it."""
    if unit == LINE:
        return f"{path}:{number + 1}"
    return f"{path}[{number}]"


@dataclass(frozen=True)
class ListFile:
    """Where a list lies. `column`: of JSON lines or Parquet the key of an entry; None
    means `id`, and of JSON lines also a bare text or number. `kind`: `ids` or `places`;
    None means places for whole numbers of a `.npy` file, else ids. `may_repeat`: whether
    an entry may stand several times."""

    path: Path
    column: str | None = None
    kind: str | None = None
    may_repeat: bool = False

    @classmethod
    def parse(cls, text: str, kind: str | None = None) -> "ListFile":
        """`FILE` or `FILE#COLUMN`; a file whose own name has a # is taken as it is."""
        path, mark, column = text.rpartition("#")
        if not mark or _is_file(text):
            return cls(Path(text), None, kind)
        return cls(Path(path), column, kind)


def _is_file(text: str) -> bool:
    """Whether a path, which may begin with ~, is that of a file; False for what can be
    no path."""
    try:
        return Path(text).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False


@dataclass(frozen=True)
class OrderList:
    """Entries in their order: ids as texts, or places as whole numbers.

    `unit` is what an entry stands in, for errors: a line from 1 on, or a row from 0.
    """

    path: Path
    kind: str
    entries: Sequence[str] | Sequence[int]
    unit: str = LINE

    @property
    def digest(self) -> str:
        """The SHA-256 of what kind the entries are, and of each in its order."""
        running = hashlib.sha256(f"{self.kind}\n".encode())
        for entry in self.entries:
            running.update(f"{entry}\n".encode("utf-8", "surrogatepass"))
        return running.hexdigest()

    def locate(self, number: int) -> str:
        """Where the entry of this number, from 0 on, stands."""
        return locate_row(self.path, self.unit, number)


def read_order_list(file: ListFile) -> OrderList:
    """The list of a file. BadData, with line or row, for an entry that is none or that
    stands twice where it may not, for a file that cannot be read, and for one that lists
    nothing."""
    path = file.path
    try:
        values, unit = _read_values(file)
        order_list = _make_list(file, values, unit)
    except (OSError, EOFError, zlib.error) as error:
        raise broken_file(path, f"cannot be read: {error}") from error
    if not order_list.entries:
        raise broken_file(path, "lists no example")
    if not file.may_repeat:
        _refuse_repeats(order_list)
    return order_list


def is_by_place(file: ListFile) -> bool:
    """Whether entries, or scores, are by places and not by ids. BadData for a file that
    cannot be read."""
    if find_suffix(file.path) != NUMPY:
        return file.kind == PLACES
    return file.kind == PLACES or load_array(file.path).dtype.kind != "U"


def _read_values(file: ListFile) -> tuple[Iterable[Any], str]:
    """What stands in a file, and in what each of it stands."""
    suffix = find_suffix(file.path)
    if suffix == NUMPY:
        return _read_numpy(file.path), ROW
    if suffix == PARQUET:
        return _read_parquet(file.path, file.column or ID_COLUMN), ROW
    if suffix in LINES:
        return _read_json_lines(file.path, file.column), LINE
    if suffix == ARRAY:
        return _read_json_array(file.path, file.column), ROW
    if file.column is not None:
        raise UserError(
            f"{file.path}: a text file has no columns, and #{file.column} names one; take it out,"
            " or give a .jsonl or .parquet file"
        )
    return read_lines(file.path), LINE


def find_suffix(path: Path) -> str:
    """What form a file has, by its name: `.npy`, `.parquet`; packing does not count.
    BadData for a form that is not read."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _OTHER_ARRAYS:
        raise broken_file(
            path,
            f"{suffix} is not read: such a file may run code, or has several arrays; save"
            " the one as .npy by numpy.save",
        )
    return suffix


def _make_list(file: ListFile, values: Iterable[Any], unit: str) -> OrderList:
    of_numpy = find_suffix(file.path) == NUMPY
    kind = file.kind
    if kind is None:
        is_whole = isinstance(values, np.ndarray) and values.dtype.kind in "iu"
        kind = PLACES if of_numpy and is_whole else IDS
    order_list = OrderList(file.path, kind, (), unit)
    if kind == PLACES:
        positions = [
            _take_place(order_list.locate(number), value)
            for number, value in enumerate(values)
        ]
        return OrderList(file.path, kind, positions, unit)
    ids = [
        _take_id(order_list.locate(number), value)
        for number, value in enumerate(values)
    ]
    return OrderList(file.path, kind, ids, unit)


def _take_place(location: str, value: Any) -> int:
    text = str(value).strip()
    is_number = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    if isinstance(value, bool) or not is_number:
        raise BadData(
            f"{location}: {show_value(value)} is no place: a place is a whole number from 0 on, of"
            " the list of training examples; arrangement.entries: ids reads ids"
        )
    return int(text)


def _take_id(location: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)):
        raise BadData(f"{location}: {show_value(value)} is no id: an id is a text")
    text = str(value)
    if not text.strip():
        raise BadData(f"{location}: is empty; give the id of an example")
    return text


def show_value(value: Any) -> str:
    """A value of a file as an error shows it."""
    return repr(value)[:100]


def _refuse_repeats(order_list: OrderList) -> None:
    """BadData for an entry that stands twice."""
    if len(set(order_list.entries)) == len(order_list.entries):
        return
    first_numbers: dict[str | int, int] = {}
    for number, entry in enumerate(order_list.entries):
        first = first_numbers.setdefault(entry, number)
        if first != number:
            raise BadData(
                f"{order_list.locate(number)}: {show_value(entry)} stands in"
                f" {order_list.locate(first)} already; list each example once, or set"
                " arrangement.repeats: keep to train on it so often"
            )


def _open(path: Path) -> BinaryIO:
    file: Any = gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")
    return file


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file without their ends."""
    with _open(path) as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST or number > MOST_ENTRIES:
                raise broken_file(
                    path,
                    f"line {number} has more than {LONGEST:,} bytes, or there are more than"
                    f" {MOST_ENTRIES:,}; is this a list of examples?",
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                yield line.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise BadData(f"{path}:{number}: is no UTF-8 text: {error}") from None


def _read_json_lines(path: Path, column: str | None) -> Iterator[Any]:
    """The entries of JSON lines: the value of a key, or the bare value."""
    key = column or ID_COLUMN
    for number, line in enumerate(read_lines(path), start=1):
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadData(f"{path}:{number}: is no JSON: {error}") from None
        if not isinstance(value, dict):
            if column is not None:
                raise BadData(f"{path}:{number}: has no key {column!r}")
            yield value
            continue
        if key not in value:
            keys = ", ".join(sorted(map(str, value)))[:200]
            raise BadData(
                f"{path}:{number}: has no key {key!r}; it has {keys}. FILE#KEY names another"
            )
        yield value[key]


def load_json_array(path: Path) -> list[Any]:
    """The items of an array of JSON. BadData for what is none."""
    with _open(path) as file:
        content = file.read(MOST_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
    if len(content) > MOST_BYTES:
        raise broken_file(path, "is too large for an array; write JSON lines, .jsonl")
    try:
        return msgspec.json.decode(content, type=list[Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise broken_file(
            path, f"is no array of JSON: {error}; JSON lines are named .jsonl"
        ) from None


def _read_json_array(path: Path, column: str | None) -> Iterator[Any]:
    """The entries of an array of JSON: the value of a key of each, or the bare value."""
    key = column or ID_COLUMN
    for number, value in enumerate(load_json_array(path)):
        if isinstance(value, dict) and key in value:
            yield value[key]
        elif column is None and not isinstance(value, dict):
            yield value
        else:
            raise BadData(
                f"{locate_row(path, ROW, number)}: has no key {key!r}; FILE#KEY names another"
            )


def _read_parquet(path: Path, column: str) -> Iterator[Any]:
    """The values of a column, in the order of the rows."""
    names = columns.read_schema(path).names
    if column not in names:
        raise broken_file(
            path,
            f"has no column {json.dumps(column)}; it has {', '.join(names)[:200]}. FILE#COLUMN"
            " names another",
        )
    for rows in columns.read_rows(path, [column]):
        for row in rows:
            yield row[column]


def _read_numpy(path: Path) -> "np.ndarray[Any, Any]":
    """The array of a `.npy` file: one row of whole numbers or of texts."""
    array = load_array(path)
    if not isinstance(array, np.ndarray):
        raise broken_file(path, "holds several arrays; give a .npy file of one")
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise broken_file(
            path,
            f"holds {array.dtype} of shape {array.shape}; give one row of whole numbers, which are"
            " places, or of texts, which are ids",
        )
    if len(array) > MOST_ENTRIES:
        raise broken_file(path, f"has more than {MOST_ENTRIES:,} entries")
    if array.dtype.kind != "U":
        return array
    try:
        array.tolist()
    except (SystemError, ValueError) as error:  # bytes that are no letters
        raise broken_file(path, f"cannot be read as .npy: {error}") from None
    return array


def load_array(path: Path) -> Any:
    """What a `.npy` file holds, which may be several arrays; nothing of it is run.
    BadData for one that cannot be read, OSError for one that cannot be opened."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE_ARRAY as error:
        raise broken_file(path, f"cannot be read as .npy: {str(error)[:200]}") from None
