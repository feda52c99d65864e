"""Reads a Hugging Face data set from a folder: what `save_to_disk` writes, or Parquet files as the hub has them.

What a row is, its columns say: the first of SHAPES whose columns are all there is how it is read. A folder of
several splits is refused with their names, since zsg never guesses which is meant.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from zsg_core.errors import UserError
from zsg_core.examples import Example
from zsg_core.readers import alpaca, flan_mini, messages, p3, pairs, sharegpt
from zsg_core.readers.format import Format, Parse, matching
from zsg_core.readers.intake import Intake, Malformed, broken

NAME = "huggingface"
BATCH = 1000
SHAPES: list[tuple[set[str], type, Parse]] = [
    ({"source", "conversations"}, flan_mini.Row, flan_mini.parse),
    ({"conversations"}, sharegpt.Row, sharegpt.parse),
    ({"items"}, sharegpt.Row, sharegpt.parse),
    ({"messages"}, messages.Row, messages.of_task(NAME)),
    ({"instruction", "output"}, alpaca.Row, alpaca.parse),
    ({"inputs_pretokenized", "targets_pretokenized"}, p3.Row, p3.parse),
    ({"prompt", "completion"}, p3.Row, p3.parse),
    ({"question", "answer"}, pairs.Row, pairs.of_task(NAME, ("question", "answer"))),
    ({"query", "response"}, pairs.Row, pairs.of_task(NAME, ("query", "response"))),
    ({"prompt", "response"}, pairs.Row, pairs.of_task(NAME, ("prompt", "response"))),
]


def files(path: Path) -> list[Path]:
    """The Arrow or Parquet files of one split, in the order of their names."""
    if path.is_dir() and (path / "dataset_dict.json").is_file():
        named = sorted(folder.name for folder in path.iterdir() if (folder / "state.json").is_file())
        raise UserError(f"{path}: a folder of splits; give one of them: {', '.join(named)}")
    if not path.is_dir():
        return matching(path, (".parquet", ".arrow"))
    if (path / "state.json").is_file():
        return [path / name for name in _saved(path / "state.json")]
    return matching(path / "*.parquet", (".parquet",))


def read(path: Path, intake: Intake) -> Iterator[Example]:
    """The rows of every file. UserError for columns that are none of SHAPES, or without pyarrow."""
    for file in files(path):
        number = 0
        for batch in _batches(file):
            kind, parse = _shape(file, set(batch[0]))
            for row in batch:
                try:
                    yield from parse(msgspec.convert(row, kind), file.stem, intake)
                except (Malformed, msgspec.ValidationError) as reason:
                    intake.bad(f"{file}[{number}]", reason)
                number += 1


def _shape(file: Path, columns: set[str]) -> tuple[type, Parse]:
    for wanted, kind, parse in SHAPES:
        if wanted <= columns:
            return kind, parse
    known = "; ".join(", ".join(sorted(wanted)) for wanted, *_ in SHAPES)
    raise broken(file, f"the columns {', '.join(sorted(columns))} are none that zsg knows. Known: {known}")


def _saved(state: Path) -> list[str]:
    try:
        named = [row["filename"] for row in msgspec.json.decode(state.read_bytes())["_data_files"]]
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise broken(state, f"is not what `save_to_disk` writes: {error!r}") from error
    if any(not isinstance(name, str) or "/" in name or not (state.parent / name).is_file() for name in named):
        raise broken(state, f"names files that are not there: {named}")
    return named


def _batches(file: Path) -> Iterator[list[dict[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise UserError("reading Hugging Face data needs pyarrow: pip install 'zsg[train]'") from error
    try:
        if file.suffix == ".parquet":
            made = parquet.ParquetFile(file).iter_batches(BATCH)
        else:
            made = (piece for batch in pa.ipc.open_stream(pa.memory_map(str(file))) for piece in _cut(batch))
        yield from (rows for batch in made if (rows := batch.to_pylist()))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise broken(file, f"cannot be read: {error}") from error


def _cut(batch: Any) -> Iterator[Any]:
    return (batch.slice(at, BATCH) for at in range(0, len(batch), BATCH))


FORMAT = Format(
    about="a Hugging Face data set in a folder: of save_to_disk, or of Parquet files",
    files=files,
    read=read,
    options=True,
)
