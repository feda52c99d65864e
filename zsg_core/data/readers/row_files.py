"""Finds and reads files of rows in whatever form they are: JSON lines, a JSON array,
CSV, tab-separated values, Parquet, Arrow, or a folder that `datasets` has saved.

Text files may be packed by gzip or zstandard. A row becomes a record of a msgspec type,
so that whoever reads rows need not know which form their file has.

`datasets` is not what reads: it takes a column's type from its first rows, so that a
later one of another type is an error of the whole file, copies all rows into a cache
unless they are streamed, and unpacks files without a bound. What it writes is read here,
with its names of classes.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from zsg_core.data.readers import columns, hugging_face, keys, names
from zsg_core.data.readers.format import name_some, root_folder
from zsg_core.data.readers.intake import Intake, Malformed, broken_file
from zsg_core.data.readers.rows import (
    ITEM,
    ZSTD,
    Chunk,
    csv_cells,
    csv_rows,
    find_missing,
    json_rows,
)
from zsg_core.errors import UserError

Row = TypeVar("Row", bound=msgspec.Struct)

# the first rows of a file, by which it is told what they are
Rows = Sequence[Mapping[str, Any]]
LOOKED_AT = 20  # rows

PACKINGS = (".gz", ZSTD)
JSON_LINES, JSON, CSV, TABS = ".jsonl", ".json", ".csv", ".tsv"
PARQUET, ARROW = ".parquet", ".arrow"
FORMS = (JSON_LINES, ".ndjson", JSON, CSV, TABS, PARQUET, ARROW)
DELIMITERS = {CSV: ",", TABS: "\t"}
OF_COLUMNS = (PARQUET, ARROW)  # forms that pack their columns themselves
# what `datasets` writes beside the splits of a data set, and beside the files of one
SAVED_BY_DATASETS = ("dataset_dict.json", "state.json")
# files of `datasets`, of the hub and of zsg's downloads that lie beside rows and hold none
NO_ROWS = frozenset(
    {
        "dataset_dict.json",
        "dataset_info.json",
        "dataset_infos.json",
        "meta.json",
        "state.json",
        "train_eval_key_list.json",
    }
)


def find_row_files(path: Path) -> list[Path]:
    """The files of a path in a fixed order: of a file, a folder or a pattern.

    A folder is one that `datasets` has saved, or stands for its `train` file, or for all
    its files of rows, which then have one form. UserError where there is none, where
    several forms or splits lie side by side, or a file has no form that is known.
    """
    files = _list_files(path)
    if not files:
        raise UserError(
            f"{path}: no such file. data.path is a file of rows ({', '.join(FORMS)}), a"
            " folder of such files, or a pattern such as rows/*.jsonl"
        )
    for file in files:
        _refuse_unknown_form(file)
    names.refuse_several_splits(path, root_folder(path), files)
    return files


def _list_files(path: Path) -> list[Path]:
    if "*" in str(path):
        return _match_pattern(path)
    if path.is_dir():
        return _list_folder(path)
    if path.is_file():
        return [path]
    return []


def _match_pattern(path: Path) -> list[Path]:
    folder = root_folder(path)
    pattern = str(path.relative_to(folder))
    matches = folder.glob(pattern)
    return sorted(match for match in matches if match.is_file())


def _list_folder(folder: Path) -> list[Path]:
    """The files of rows in a folder: those that `datasets` names, or the train file, or
    all of them."""
    for name in SAVED_BY_DATASETS:
        if (folder / name).is_file():
            return hugging_face.list_files(folder)
    files = _list_row_files(folder)
    train_files = [file for file in files if _is_train(file)]
    if train_files:
        files = train_files
    if not files and any(folder.glob("**/*.parquet")):
        # the hub's layout, with a folder for each split
        return hugging_face.list_files(folder)
    _refuse_several_forms(folder, files)
    return files


def _refuse_several_forms(folder: Path, files: Sequence[Path]) -> None:
    """UserError where the files of a folder may be the same rows in several forms."""
    forms = sorted({str(find_form(file)) for file in files})
    if len(forms) < 2:
        return
    joined = ", ".join(forms)
    names_shown = name_some(files)
    raise UserError(
        f"{folder}: holds files of several forms ({joined}): {names_shown}; choose by a"
        f" pattern, such as {folder}/*{forms[0]}"
    )


def _list_row_files(folder: Path) -> list[Path]:
    """The files of a folder that hold rows by their names, in the order of these."""
    files: list[Path] = []
    for file in sorted(folder.iterdir()):
        if find_form(file) is None or file.name in NO_ROWS:
            continue
        if file.is_file():
            files.append(file)
    return files


def _is_train(file: Path) -> bool:
    """Whether a file is the train split, or a shard of it, by its name."""
    name = bare_name(file)
    base, _ = names.strip_shard(name)
    return names.split_kind(base) == "train"


def find_form(file: Path) -> str | None:
    """The form of a file by its name, one of FORMS; None for another."""
    name = _remove_packing(file.name)
    for form in FORMS:
        if name.endswith(form):
            return form
    return None


def bare_name(file: Path) -> str:
    """A file's name without its suffixes."""
    return Path(_remove_packing(file.name)).stem


def _remove_packing(name: str) -> str:
    for packing in PACKINGS:
        name = name.removesuffix(packing)
    return name


def list_unread(path: Path, files: Sequence[Path]) -> list[Path]:
    """The files of rows in a folder that are not read."""
    if "*" in str(path) or not path.is_dir():
        return []
    row_files = _list_row_files(path)
    return [file for file in row_files if file not in files]


def _refuse_unknown_form(file: Path) -> None:
    form = find_form(file)
    if form is None:
        forms = ", ".join(FORMS)
        packings = " or ".join(PACKINGS)
        raise broken_file(
            file,
            f"its name does not say that it holds rows: it must end in {forms}, which"
            f" {packings} may follow",
        )
    if form in OF_COLUMNS and file.suffix in PACKINGS:
        raise broken_file(
            file,
            "is packed, and zsg reads Parquet and Arrow files as they are; unpack it",
        )


def read_row_file(
    file: Path, kind: type[Row], intake: Intake, needed: Sequence[str]
) -> Generator[Chunk[Row], None, None]:
    """The rows of a file as records of `kind`; what is no row is told or counted.

    `needed`: columns without which no row of the file can be read, so that a file that
    has columns is refused at once where it lacks one. UserError for a file that cannot
    be read.
    """
    form = find_form(file)
    if form in OF_COLUMNS:
        return _read_columns(file, kind, intake, needed)
    if form in DELIMITERS:
        return csv_rows(file, kind, intake, needed, DELIMITERS[form])
    return json_rows(file, kind, intake)


def _read_columns(
    file: Path, kind: type[Row], intake: Intake, needed: Sequence[str]
) -> Generator[Chunk[Row], None, None]:
    """The rows of a Parquet or Arrow file."""
    schema = columns.read_schema(file)
    refuse_missing_columns(file, schema.names, needed)
    hook = keys.make_decode_hook(intake)
    encoded = hugging_face.find_encoded(schema)
    decode = hugging_face.Decode(kind, encoded, hook)
    column_names = list_columns(kind)
    number = 0
    with closing(columns.read_rows(file, column_names)) as batches:
        for batch in batches:
            yield from _convert_batch(file, number, batch, decode, intake)
            number += len(batch)


def list_columns(kind: type[msgspec.Struct]) -> list[str]:
    """The columns that a type of rows takes."""
    fields = msgspec.structs.fields(kind)
    return [field.encode_name for field in fields]


def _convert_batch(
    file: Path,
    first: int,
    batch: list[dict[str, Any]],
    decode: hugging_face.Decode,
    intake: Intake,
) -> Iterator[Chunk[Any]]:
    records = decode.convert_batch(batch)
    if records is not None:
        yield Chunk(ITEM, first, records, intake.take_met_key())
        return
    for number, row in enumerate(batch, start=first):
        try:
            record = decode.convert_row(row)
        except (Malformed, msgspec.ValidationError) as reason:
            intake.refuse_row(f"{file}{ITEM.format(number)}", reason)
        else:
            yield Chunk(ITEM, number, [record], intake.take_met_key())


def refuse_missing_columns(
    file: Path, found: Sequence[str], needed: Sequence[str]
) -> None:
    """BadData where a file lacks a column that its rows are made of, or its head."""
    missing = find_missing(found, needed)
    if missing:
        columns_found = ", ".join(found)[:500]
        raise broken_file(
            file, f"has no column {', '.join(missing)}; found: {columns_found}"
        )


def read_first_rows(file: Path, count: int = LOOKED_AT) -> list[dict[str, Any]]:
    """The first rows of a file of rows as they are. UserError for one that cannot be
    read; a row that is no mapping is left out."""
    rows = _stream_rows(file)
    with closing(rows):
        return list(islice(rows, count))


def _stream_rows(file: Path) -> Generator[dict[str, Any], None, None]:
    """The rows of a file one after the other, with all that they have."""
    form = find_form(file)
    if form in OF_COLUMNS:
        schema = columns.read_schema(file)
        for batch in columns.read_rows(file, schema.names):
            yield from batch
    elif form in DELIMITERS:
        yield from csv_cells(file, DELIMITERS[form])
    else:
        for chunk in json_rows(file, dict[str, Any], Intake(skip=True)):
            yield from chunk.rows


def list_keys(rows: Rows) -> list[str]:
    """The keys of rows, each once, in the order in which they first come."""
    keys_met: dict[str, None] = {}
    for row in rows:
        for key in row:
            if key is None:  # under which csv keeps what a row has beyond the header
                continue
            keys_met[str(key)] = None
    return list(keys_met)
