"""Reads scores of training examples from a file: one of each id, or of each place.

JSON lines, an array of JSON, Parquet, and CSV with a header have an id and a score in a
row; a text file has an id, a tab and a score in a line; a `.npy` file has the scores by
place. The scores count, not how they are written: their digest is the same from every
format that names the same examples.
"""

import csv
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from zsg_core.data.readers import columns
from zsg_core.data.readers.intake import broken_file
from zsg_core.errors import BadData, UserError
from zsg_core.orders.order_list import (
    ARRAY,
    CELLS,
    ID_COLUMN,
    LINE,
    LINES,
    MOST_ENTRIES,
    NUMPY,
    PARQUET,
    ROW,
    ListFile,
    find_suffix,
    load_array,
    load_json_array,
    locate_row,
    read_lines,
    show_value,
)

SCORE_COLUMN = "score"
# a number as JSON and Python write one; float() takes 3_0 and digits of any alphabet, too
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class ScoreList:
    """Scores in the order of their rows. `ids`: whose each is; None where they are by
    place, from 0 on. `unit`: what a row is, for errors: a line from 1 on, or a row from
    0."""

    path: Path
    scores: Sequence[float]
    ids: Sequence[str] | None = None
    unit: str = LINE

    def locate(self, number: int) -> str:
        """Where the score of this number, from 0 on, stands."""
        return locate_row(self.path, self.unit, number)

    @property
    def digest(self) -> str:
        """The SHA-256 of each score with whose it is; rows with ids in any order."""
        if self.ids is None:
            lines = (float(score).hex() for score in self.scores)
            return _digest_lines("places", lines)
        named = sorted(zip(self.ids, self.scores, strict=True))
        lines = (f"{float(score).hex()}\t{name}" for name, score in named)
        return _digest_lines("ids", lines)


def _digest_lines(kind: str, lines: Iterator[str]) -> str:
    running = hashlib.sha256(f"scores by {kind}\n".encode())
    for line in lines:
        running.update(f"{line}\n".encode("utf-8", "surrogatepass"))
    return running.hexdigest()


def read_scores(file: ListFile) -> ScoreList:
    """The scores of a file. BadData, with line or row, for a score that is no finite
    number, for an id that stands twice, and for a file that cannot be read."""
    path = file.path
    try:
        if find_suffix(path) == NUMPY:
            return _read_numpy(file)
        return _collect(path, _read_rows(file))
    except (OSError, EOFError, zlib.error) as error:
        raise broken_file(path, f"cannot be read: {error}") from error


def _read_rows(file: ListFile) -> Iterator[tuple[str, Any, Any]]:
    """Where each row stands, its id and its score."""
    suffix = find_suffix(file.path)
    if suffix == PARQUET:
        return _read_parquet(file.path, file.column or SCORE_COLUMN)
    if suffix in LINES:
        return _read_json_lines(file.path, file.column or SCORE_COLUMN)
    if suffix == ARRAY:
        return _read_json_array(file.path, file.column or SCORE_COLUMN)
    if suffix == CELLS:
        return _read_csv(file.path, file.column or SCORE_COLUMN)
    if file.column is not None:
        raise UserError(
            f"{file.path}: a text file has no columns, and #{file.column} names one; take it out,"
            " or give a .jsonl or .parquet file"
        )
    return _read_text(file.path)


def _collect(path: Path, rows: Iterator[tuple[str, Any, Any]]) -> ScoreList:
    """The rows as ids and scores, each checked."""
    ids: list[str] = []
    scores: list[float] = []
    seen: set[str] = set()
    for location, example_id, score in rows:
        if isinstance(example_id, bool) or not isinstance(example_id, (str, int)):
            raise BadData(f"{location}: {show_value(example_id)} is no id")
        name = str(example_id)
        if name in seen:
            raise BadData(
                f"{location}: {name!r} has a score already; give each example one"
            )
        seen.add(name)
        ids.append(name)
        scores.append(_take_score(location, score))
    if not ids:
        raise broken_file(path, "has no score")
    unit = ROW if find_suffix(path) in (PARQUET, ARRAY) else LINE
    return ScoreList(path, scores, ids, unit)


def _take_score(location: str, value: Any) -> float:
    """The score. BadData for what is no number, and for NaN and infinity, which have no
    place in an order."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        score = float(value) if is_number else math.nan
    except OverflowError:
        score = math.inf
    if not math.isfinite(score):
        raise BadData(
            f"{location}: {show_value(value)} is no score: a score is a finite number. Leave the"
            " example out of the file, and set arrangement.rest: drop"
        )
    return score


def _read_text(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """Lines of an id, a tab and a score."""
    for number, line in enumerate(read_lines(path), start=1):
        name, tab, text = line.rpartition("\t")
        if not tab:
            raise BadData(
                f"{path}:{number}: has no tab; a line is an id, a tab and a score"
            )
        yield f"{path}:{number}", name, _parse_score(text)


def _parse_score(text: str) -> float | str:
    """The number that a text is; else the text itself."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else text


def _read_csv(path: Path, column: str) -> Iterator[tuple[str, Any, Any]]:
    """Rows below a header that names a column of ids and one of scores."""
    rows = csv.reader(read_lines(path))
    try:
        header = next(rows, [])
        for wanted_column in (ID_COLUMN, column):
            if wanted_column not in header:
                raise BadData(
                    f"{path}:1: the header has no column {wanted_column!r}; it has"
                    f" {', '.join(header)[:200]}. FILE#COLUMN names the column of the score"
                )
        id_place, score_place = header.index(ID_COLUMN), header.index(column)
        for row in rows:
            location = f"{path}:{rows.line_num}"
            if len(row) != len(header):
                raise BadData(
                    f"{location}: has {len(row)} cells, and the header has {len(header)}"
                )
            yield location, row[id_place], _parse_score(row[score_place])
    except csv.Error as error:
        raise BadData(f"{path}:{rows.line_num}: is no CSV: {error}") from None


def _read_json_array(path: Path, column: str) -> Iterator[tuple[str, Any, Any]]:
    """The objects of an array of JSON."""
    for number, row in enumerate(load_json_array(path)):
        location = locate_row(path, ROW, number)
        for key in (ID_COLUMN, column):
            if not isinstance(row, dict) or key not in row:
                raise BadData(
                    f"{location}: has no key {key!r}; a row is an `{ID_COLUMN}` and a"
                    f" `{SCORE_COLUMN}`, or FILE#KEY for another key of the score"
                )
        yield location, row[ID_COLUMN], row[column]


def _read_json_lines(path: Path, column: str) -> Iterator[tuple[str, Any, Any]]:
    """Each row of a file of JSON lines: where it stands (file and line), its id and its
    score, both still unchecked.

    Raises BadData for a line that is no JSON or no object with both keys. An object
    that is nested too deeply for the decoder is no JSON either.
    """
    for number, line in enumerate(read_lines(path), start=1):
        location = f"{path}:{number}"
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadData(f"{location}: is no JSON: {error}") from None
        for key in (ID_COLUMN, column):
            if not isinstance(row, dict) or key not in row:
                raise BadData(
                    f"{location}: has no key {key!r}; a row is an `{ID_COLUMN}` and a"
                    f" `{SCORE_COLUMN}`, or FILE#KEY for another key of the score"
                )
        yield location, row[ID_COLUMN], row[column]


def _read_parquet(path: Path, column: str) -> Iterator[tuple[str, Any, Any]]:
    names = columns.read_schema(path).names
    for wanted_column in (ID_COLUMN, column):
        if wanted_column not in names:
            raise broken_file(
                path,
                f"has no column {json.dumps(wanted_column)}; it has {', '.join(names)[:200]}."
                " FILE#COLUMN names the column of the score",
            )
    number = 0
    for rows in columns.read_rows(path, [ID_COLUMN, column]):
        for row in rows:
            yield f"{path}[{number}]", row[ID_COLUMN], row[column]
            number += 1


def _read_numpy(file: ListFile) -> ScoreList:
    """Scores by place."""
    path = file.path
    array = load_array(path)
    is_row = isinstance(array, np.ndarray) and array.ndim == 1
    if not is_row or array.dtype.kind not in "iuf" or len(array) > MOST_ENTRIES:
        raise broken_file(path, "is no row of numbers; give one score of each place")
    if not len(array):
        raise broken_file(path, "has no score")
    strange = np.flatnonzero(~np.isfinite(array))
    if len(strange):
        _take_score(f"{path}[{strange[0]}]", float(array[strange[0]]))
    return ScoreList(path, array.astype(np.float64).tolist(), unit=ROW)
