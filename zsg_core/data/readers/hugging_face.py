"""Reads a Hugging Face data set from a folder: what `save_to_disk` writes, or Parquet
files as the hub has them.

What a row is, its columns say: the first of SHAPES whose columns are all there is how
it is read. A folder of several splits is refused with their names, since zsg never
guesses which is meant.

`datasets` 5 gives a column of values of several types the type Json, Arrow's
`arrow.json`, and keeps the values as text: they are decoded, so that the rows are those
of the same file as JSON lines.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers import (
    alpaca,
    columns,
    flan_mini,
    keys,
    messages,
    names,
    p3,
    pairs,
    sharegpt,
)
from zsg_core.data.readers.format import (
    GZIP,
    SHOWN,
    Facts,
    Inspection,
    Parse,
    find_files,
    looks_like,
    reader,
    root_folder,
    unsupported_row,
)
from zsg_core.data.readers.intake import Intake, Malformed, broken_file, read_whole
from zsg_core.data.readers.json_array import BAD, LONGEST
from zsg_core.errors import UserError

NAME = "huggingface"
JSON = "arrow.json"  # the name of Arrow's type of JSON texts
BESIDE = (".parquet", ".arrow", ".jsonl")  # what looks like rows in a folder
OF_A_MESSAGE = {"role", "from", "content", "value", "text"}  # what is read of one


def parse_sourced(row: flan_mini.FlanRow, name: str, intake: Intake) -> list[Example]:
    """One example of the task `source`; of a dialogue whose source is null, the task of
    those without that column."""
    if row.source is None:
        intake.note_nulls(source=None)
        row = msgspec.structs.replace(row, source=sharegpt.TASK)
    return flan_mini.parse_row(row, name, intake)


SHAPES: list[tuple[set[str], type, Parse]] = [
    ({"source", "conversations"}, flan_mini.FlanRow, parse_sourced),
    ({"conversations"}, sharegpt.ShareGptRow, sharegpt.parse_row),
    ({"items"}, sharegpt.ShareGptRow, sharegpt.parse_row),
    ({"messages"}, messages.MessagesRow, messages.make_parser(NAME)),
    ({"instruction", "output"}, alpaca.AlpacaRow, alpaca.parse_row),
    ({"inputs_pretokenized", "targets_pretokenized"}, p3.P3Row, p3.parse_row),
    ({"prompt", "completion"}, p3.P3Row, p3.parse_row),
    (
        {"question", "answer"},
        pairs.PairRow,
        pairs.make_parser(NAME, ("question", "answer")),
    ),
    (
        {"query", "response"},
        pairs.PairRow,
        pairs.make_parser(NAME, ("query", "response")),
    ),
    (
        {"prompt", "response"},
        pairs.PairRow,
        pairs.make_parser(NAME, ("prompt", "response")),
    ),
]


def list_files(path: Path) -> list[Path]:
    """The Arrow or Parquet files of one split, in the order of their names."""
    if not path.is_dir():
        return _refuse_packed(find_files(path, (".parquet", ".arrow")))
    if (path / "dataset_dict.json").is_file():
        raise _folder_of_splits(path)
    if (path / "state.json").is_file():
        return [path / name for name in _saved(path / "state.json")]
    if not any(path.glob("*.parquet")):
        _refuse_files_below(path)
    return find_files(path / "*.parquet", (".parquet",))


def _refuse_packed(files: list[Path]) -> list[Path]:
    """The files. BadData for one that is packed: both formats pack their columns."""
    for file in files:
        if file.suffix == GZIP:
            raise broken_file(
                file,
                "is packed, and zsg reads Parquet and Arrow files as they are; unpack it",
            )
    return files


def _folder_of_splits(path: Path) -> UserError:
    splits = sorted(
        folder.name for folder in path.iterdir() if (folder / "state.json").is_file()
    )
    return UserError(
        f"{path}: a folder of splits; give one of them: {', '.join(splits)}"
    )


def _refuse_files_below(path: Path) -> None:
    below = sorted(path.glob("**/*.parquet"))
    if not below:
        return
    by_split = names.group_by_split(below, path, names_are_tasks=False)
    choices = ", ".join(str(names.make_pattern(files)) for files in by_split.values())
    raise UserError(
        f"{path}: its Parquet files lie in folders below it; give {choices}"
    )


def _converted(batch: list[dict[str, Any]], kind: type, hook: Any) -> list[Any] | None:
    """All rows at once, as most are good; None where one of them is none, for which
    they are looked at one by one."""
    try:
        return msgspec.convert(batch, list[kind], dec_hook=hook)
    except msgspec.ValidationError:
        return None


def read_facts(file: Path) -> dict[str, Any]:
    """The columns of a file, and the paths to what is JSON in them, from its schema."""
    schema = columns.read_schema(file)
    return {"columns": schema.names, "json": _paths(find_encoded(schema))}


def inspect_files(path: Path, facts: Facts) -> Inspection:
    """Whether values are decoded that were read as text, and whether templates are
    named otherwise than they were."""
    split_files, marks = list_files(path), {}
    is_p3 = False
    for file in split_files:
        file_facts = facts(file)
        kind, _ = _shape(file, set(file_facts["columns"]))
        if any(_is_read(kind, path) for path in file_facts["json"]):
            marks["json"] = "decoded"
        is_p3 = is_p3 or kind is p3.P3Row
    if is_p3:
        marks |= p3.task_marks(path, split_files)
    return Inspection(marks, _left_out(path, split_files))


def _left_out(path: Path, split_files: list[Path]) -> tuple[str, ...]:
    """A note on the files of rows in a folder that are not read, of other formats, too."""
    if not path.is_dir():
        return ()
    read = set(split_files)
    unread = [
        str(file.relative_to(path))
        for file in sorted(path.rglob("*"))
        if looks_like(file, BESIDE) and file not in read
    ]
    if not unread:
        return ()
    return (
        (
            f"{path}: {len(split_files)} files are read; left out:"
            f" {', '.join(unread[:SHOWN])}{', …' * (len(unread) > SHOWN)}"
        ),
    )


def _is_read(kind: type[msgspec.Struct], path: list[str]) -> bool:
    """Whether a value of a row is one that is read, not passed over."""
    read = {
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if field.type != keys.KeyValue | None
    }
    return path[0] in read and (len(path) == 1 or path[1] in OF_A_MESSAGE)


def _read_of(kind: type[msgspec.Struct]) -> set[str]:
    """The columns that a row is made of, those that may say what it means included."""
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def find_encoded(schema: Any) -> dict[str, Any]:
    """Where a file's values are JSON as text: by column True, or the same of its
    fields; of a list, of its items."""
    in_features = _features((schema.metadata or {}).get(b"huggingface", b"{}"))
    encoded = {
        field.name: _json_of(field) or in_features.get(field.name) for field in schema
    }
    return {name: nested for name, nested in encoded.items() if nested}


def _json_of(field: Any) -> Any:
    """Which values of a column of Arrow are JSON written as text: True for such a one, a
    mapping by field for a structure that holds some, None for all others.

    A list is looked at by its items.
    """
    kind = field.type
    if _is_json(field):
        return True
    if hasattr(kind, "storage_type"):
        return None  # another type of somebody's own
    if hasattr(kind, "value_field"):
        return _json_of(kind.value_field)
    if not _is_structure(kind):
        return None
    inner_fields = [kind.field(number) for number in range(kind.num_fields)]
    fields = {inner.name: _json_of(inner) for inner in inner_fields}
    return {name: nested for name, nested in fields.items() if nested} or None


def _is_json(field: Any) -> bool:
    """Whether a column has Arrow's type of JSON: known to this pyarrow, or named only in
    the field's metadata."""
    metadata = field.metadata or {}
    return (
        getattr(field.type, "extension_name", None) == JSON
        or metadata.get(b"ARROW:extension:name") == JSON.encode()
    )


def _is_structure(kind: Any) -> bool:
    """Whether a type has fields of its own."""
    return hasattr(kind, "field") and bool(getattr(kind, "num_fields", 0))


def _features(written: bytes) -> dict[str, Any]:
    """The same from the features that `datasets` writes beside the schema: not every
    pyarrow knows the type."""
    try:
        features = msgspec.json.decode(written)["info"]["features"]
    except (*BAD, KeyError, TypeError):
        return {}
    return _json_in(features) or {} if isinstance(features, dict) else {}


def _json_in(feature: Any) -> Any:
    """Which values within a feature are JSON written as text: True for such a one, a
    mapping by field for a structure that holds some, None for all others.

    `feature` comes from a file and may be anything. A list is looked at by its only
    item, a Sequence or LargeList by its `feature`.
    """
    if isinstance(feature, list):
        return _json_in(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "Json":
        return True
    if isinstance(feature.get("_type"), str):
        return _json_in(feature.get("feature"))
    fields = {name: _json_in(inner) for name, inner in feature.items()}
    return {name: nested for name, nested in fields.items() if nested} or None


def _paths(encoded: Any) -> list[list[str]]:
    if not isinstance(encoded, Mapping):
        return [[]]
    return [
        [name, *inner_path]
        for name, inner in encoded.items()
        for inner_path in _paths(inner)
    ]


def _decoded(value: Any, encoded: Any) -> Any:
    """A value with what is JSON as text decoded. Malformed for a text that is none."""
    if not encoded or value is None:
        return value
    if encoded is True:
        if not isinstance(value, str):
            return value
        try:
            return msgspec.json.decode(value)
        except BAD as error:
            raise Malformed(f"a value of a column of JSON is none: {error}") from error
    if isinstance(value, list):
        return [_decoded(item, encoded) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _decoded(inner, encoded.get(name)) for name, inner in value.items()}


def _shape(file: Path, columns: set[str]) -> tuple[type, Parse]:
    for needed, kind, parse in SHAPES:
        if needed <= columns:
            return kind, parse
    shapes = "; ".join(", ".join(sorted(needed)) for needed, *_ in SHAPES)
    raise broken_file(
        file,
        f"the columns {', '.join(sorted(columns))} are none that zsg knows. Known: {shapes}",
    )


def _saved(state: Path) -> list[str]:
    try:
        named = [
            row["filename"]
            for row in msgspec.json.decode(read_whole(state, LONGEST))["_data_files"]
        ]
        is_there = all(
            isinstance(name, str)
            and "/" not in name
            and (state.parent / name).is_file()
            for name in named
        )
    except (OSError, *BAD, KeyError, TypeError) as error:
        raise broken_file(
            state, f"is not what `save_to_disk` writes: {error!r}"
        ) from error
    if not is_there:
        raise broken_file(state, f"names files that are not there: {str(named)[:500]}")
    return named


@reader(
    NAME,
    about="a Hugging Face data set in a folder: of save_to_disk, or of Parquet files",
    files=list_files,
    options=True,
    is_on_hub=True,
    facts=read_facts,
    inspect=inspect_files,
)
def read_examples(path: Path, intake: Intake) -> Iterator[Example]:
    """The rows of every file. UserError for columns that are none of SHAPES, or without pyarrow."""
    split_files = list_files(path)
    hook = keys.make_decode_hook(intake)
    tasks: dict[Path, str] = {}
    for file in split_files:
        schema = columns.read_schema(file)
        kind, parse = _shape(file, set(schema.names))
        if kind is p3.P3Row and not tasks:
            tasks, _ = names.find_tasks(split_files, root_folder(path))
        decode = Decode(kind, find_encoded(schema), hook)
        name = tasks.get(file, file.stem)
        with closing(columns.read_rows(file, _read_of(kind))) as batches:
            yield from _parse_batches(file, batches, decode, parse, intake, name)


@dataclass(frozen=True)
class Decode:
    """How the rows of a file become records: of which type, which of its columns hold
    JSON as text, and what takes a value that the type does not state."""

    kind: type
    encoded: Any
    hook: Callable[[type, Any], Any]

    def convert_batch(self, batch: list[dict[str, Any]]) -> list[Any] | None:
        """The records of a batch at once, which is quick; None where a row must be looked at."""
        if self.encoded:
            return None
        return _converted(batch, self.kind, self.hook)

    def convert_row(self, row: dict[str, Any]) -> Any:
        """The record of a row. Malformed or ValidationError for a row that is none."""
        decoded = _decoded(row, self.encoded)
        return msgspec.convert(decoded, self.kind, dec_hook=self.hook)


def _parse_batches(
    file: Path,
    batches: Iterator[list[dict[str, Any]]],
    decode: Decode,
    parse: Parse,
    intake: Intake,
    name: str,
) -> Iterator[Example]:
    number = 0
    for batch in batches:
        records = decode.convert_batch(batch)
        has_keys = intake.take_met_key()
        for record in batch if records is None else records:
            try:
                if records is None:
                    record = decode.convert_row(record)
                    has_keys = intake.take_met_key()
                if has_keys:
                    keys.check_keys(record, intake)
                yield from parse(record, name, intake)
            except keys.UnsupportedRow as reason:
                raise unsupported_row(f"{file}[{number}]", reason) from None
            except (Malformed, msgspec.ValidationError) as reason:
                intake.refuse_row(f"{file}[{number}]", reason)
            number += 1
