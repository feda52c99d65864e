"""Says what a format is: which files it has, how they become examples, which tasks it holds out officially."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from zsg_core.errors import UserError
from zsg_core.examples import Example
from zsg_core.readers.intake import Intake, Malformed
from zsg_core.readers.rows import Chunk, json_rows

Row = TypeVar("Row")
Lists = dict[str, list[str]]  # "train" and "test" → task names in their published order
Parse = Callable[[Row, str, Intake], list[Example]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A published format. Every function takes `data.path`: a file, a folder, or a pattern of files.

    `files`: all that decides what is read, in the order in which it is read. `lists`: the published held-out list
    that lies beside the data, None without one. `many_tasks`: whether examples are of many tasks, so that caps
    per task have a meaning. `own_ids`: for every example that `read` makes, in its order, the `id` that its row was
    published with, None for a row without one; itself None where rows of the format have none. `trains`: False for a
    set made for evaluation only. `answered`: False where some questions have no answer, so that no loss can be taken of
    the set. `options`: whether answers may be published with the choices that they are among.
    """

    about: str
    files: Callable[[Path], list[Path]]
    read: Callable[[Path, Intake], Iterator[Example]]
    lists: Callable[[Path], Lists | None] = lambda path: None
    many_tasks: bool = False
    own_ids: Callable[[Path, Intake], Iterator[Any]] | None = None
    trains: bool = True
    answered: bool = True
    options: bool = False


def of_rows(about: str, row: type[Row], parse: Parse[Row], suffixes: tuple[str, ...] = (".jsonl", ".json")) -> Format:
    """A format whose files hold one example in a JSON row, or a few."""

    def read(path: Path, intake: Intake) -> Iterator[Example]:
        for file in matching(path, suffixes):
            yield from parsed(file, json_rows(file, row, intake), parse, intake)

    # Read apart from the rest, for an `id` may be anything: it is nobody's concern but that of whoever joins by it.
    named: Any = msgspec.defstruct(f"Named{row.__name__}", [("id", Any, None)], bases=(row,), gc=False)

    def own_ids(path: Path, intake: Intake) -> Iterator[Any]:
        for file in matching(path, suffixes):
            for one, _ in _with_rows(file, json_rows(file, named, intake), parse, intake):
                yield one.id

    return Format(about=about, files=lambda path: matching(path, suffixes), read=read, own_ids=own_ids)


def parsed(file: Path, chunks: Iterator[Chunk[Row]], parse: Parse[Row], intake: Intake) -> Iterator[Example]:
    """The examples of a file's rows; a row that `parse` refuses is told or counted."""
    return (example for _, example in _with_rows(file, chunks, parse, intake))


def _with_rows(
    file: Path, chunks: Iterator[Chunk[Row]], parse: Parse[Row], intake: Intake
) -> Iterator[tuple[Row, Example]]:
    name = stem(file)
    for chunk in chunks:
        for number, row in enumerate(chunk.rows, start=chunk.first):
            try:
                for example in parse(row, name, intake):
                    yield row, example
            except Malformed as reason:
                intake.bad(f"{file}{chunk.where.format(number)}", reason)


def matching(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a path in a fixed order. UserError where there is none, or a folder says not which.

    A folder stands for its `train` file, in whatever of the suffixes; other names are given by a pattern.
    """
    if "*" in str(path):
        found = sorted(p for p in root(path).glob(str(path.relative_to(root(path)))) if p.is_file())
    elif path.is_dir():
        found = [p for p in (path / f"train{suffix}{packed}" for suffix in suffixes for packed in ("", ".gz"))
                 if p.is_file()][:1]  # fmt: skip
    else:
        found = [path] if path.is_file() else []
        if found and not path.name.removesuffix(".gz").endswith(suffixes):
            raise UserError(f"{path}: no file of this format, which ends in {' or '.join(suffixes)}")
    if not found:
        named = f"train{suffixes[0]}"
        raise UserError(
            f"{path}: no such file. data.path is a file, a folder with {named}, or a pattern such as *.json"
        )
    return found


def root(path: Path) -> Path:
    """The folder that a path's files are named in: the path itself, or the folder above a file or a pattern."""
    while "*" in str(path):
        path = path.parent
    return path.parent if path.is_file() else path


def stem(file: Path) -> str:
    """A file's name without its suffixes."""
    return file.name.removesuffix(".gz").removesuffix(
        file.suffix if file.suffix != ".gz" else file.with_suffix("").suffix
    )
