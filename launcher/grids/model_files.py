"""Reads the files of a model folder as far as a plan needs: JSON, and the headers of
weights. Every file is hostile.

A header tells name, dtype and shape of each tensor, so that a folder of any size is
judged in a moment.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from zsg_core.errors import UserError

LFS_POINTER = b"version https://git-lfs"
MAX_HEADER = 100_000_000  # safetensors' own limit
MAX_JSON = 200_000_000  # bytes; the largest published tokenizer.json has 35 million
# Of a file. The largest published have 5 million values (a tokenizer.json), and 100,000
# tensors; what has more would fill the memory.
MOST_VALUES = 10_000_000
MOST_TENSORS = 500_000
MOST_OF_NAME = 1000  # characters of a tensor's name
# of a tensor; more is no model's, and their product may be made to take for ever
MOST_DIMENSIONS = 8
# Bytes of a value of a safetensors dtype; others have none that is whole, or are not known.
BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor as a header tells of it: where its bytes lie, too."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int  # in the file
    size: int  # in bytes


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. UserError for what is none, too large, or a
    git-lfs pointer."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON:
            raise UserError(
                f"{path} has {size:,} bytes; zsg reads JSON of up to {MAX_JSON:,}"
            )
        text = path.read_bytes()
        if text.startswith(LFS_POINTER):
            raise UserError(
                f"{path} is a git-lfs pointer, not the file; run git lfs pull"
            )
        _refuse_many_values(path, text, MOST_VALUES)
        value = json.loads(text.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON: {str(error)[:200]}"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a JSON object, found {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _refuse_many_values(path: Path, text: bytes, most: int) -> None:
    """Raises UserError for JSON of more than so many values, before any is made. Signs
    within strings are counted, too."""
    values = sum(text.count(sign) for sign in (b",", b"[", b"{"))
    if values > most:
        raise UserError(
            f"{path} has about {values:,} values; zsg reads JSON of up to {most:,}"
        )


def is_pointer(path: Path) -> bool:
    """Whether a file is a git-lfs pointer in place of what it should hold."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors that a file of weights holds, None if only torch can tell.

    UserError for a file that is cut, a git-lfs pointer, or no weights.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise UserError(
                f"{path} is a git-lfs pointer, not the weights; run git lfs pull"
            )
        if size == 0:
            raise _cut(path, "empty")
        if path.suffix != ".safetensors":
            return None
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or length > min(size - 8, MAX_HEADER):
            raise _cut(path, "cut short or no safetensors file")
        file.seek(8)
        return _header(path, file.read(length), size - 8 - length)


def _header(path: Path, text: bytes, size: int) -> dict[str, Tensor]:
    """The tensors that a header of so many bytes of tensors tells of."""
    _refuse_many_values(path, text, 8 * MOST_TENSORS)
    doubled: list[str] = []

    def note_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Called by the parser for every object of the header. Where one has a name
        twice, JSON would keep the last silently; all its names are noted, and the
        caller refuses the file."""
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            doubled.extend(name for name, _ in pairs)
        return mapping

    try:
        header = json.loads(text, object_pairs_hook=note_doubled)
        header.pop("__metadata__", None)
        first = 8 + len(text)
        tensors = {
            name: _tensor(path, first, fields) for name, fields in header.items()
        }
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        RecursionError,
    ):
        raise _cut(path, "no safetensors file") from None
    end = max((each.start + each.size - first for each in tensors.values()), default=0)
    if end != size:
        raise _cut(
            path,
            f"not whole: {size:,} bytes of tensors where its header tells of {end:,}"[
                :120
            ],
        )
    if any(len(name) > MOST_OF_NAME for name in tensors):
        raise _cut(
            path,
            f"no safetensors file: a tensor's name has more than {MOST_OF_NAME} characters",
        )
    if doubled:
        raise _cut(path, "no safetensors file: its header names a tensor twice")
    _refuse_gaps(path, tensors, first)
    return tensors


def _refuse_gaps(path: Path, tensors: dict[str, Tensor], first: int) -> None:
    """Refuses tensors that do not lie one behind the other, from the byte `first` on."""
    offset = first
    by_start = sorted(tensors.items(), key=lambda row: (row[1].start, row[1].size))
    for name, tensor in by_start:
        if tensor.start != offset:
            raise _cut(
                path,
                f"no safetensors file: {name[:80]!r} does not begin where the tensor before it"
                " ends",
            )
        offset += tensor.size


def _tensor(path: Path, first: int, fields: dict[str, Any]) -> Tensor:
    """A tensor of a safetensors header, whose data begin at byte `first` of the file.
    ValueError, KeyError or TypeError for what describes none."""
    dtype, shape = fields["dtype"], fields["shape"]
    begin, end = fields["data_offsets"]
    numbers = [*shape, begin, end]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError
    if type(dtype) is not str or end < begin or len(shape) > MOST_DIMENSIONS:
        raise ValueError
    values = math.prod(shape)
    if dtype in BYTES and values * BYTES[dtype] != end - begin:
        raise ValueError
    return Tensor(dtype, tuple(shape), path, first + begin, end - begin)


def _cut(path: Path, fault: str) -> UserError:
    return UserError(f"{path} is {fault}; fetch it again")
