"""Says what a format is: which files it has, how they become examples, which tasks it
holds out officially."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers import keys, names
from zsg_core.data.readers.intake import Intake, Malformed, broken_file
from zsg_core.data.readers.rows import Chunk, json_rows
from zsg_core.errors import BadData, UserError
from zsg_core.registry import Registry

Row = TypeVar("Row")
Made = TypeVar("Made")
Lists = dict[str, list[str]]  # "train" and "test" → task names in their published order
Parse = Callable[[Row, str, Intake], list[Example]]
SHOWN = 5  # files that are named; all are counted
GZIP = ".gz"
# by what files are packed that zsg does not unpack
OTHER_PACKINGS = (".zst", ".bz2", ".xz", ".lz4", ".br", ".zip", ".7z", ".Z")


@dataclass(frozen=True)
class Inspection:
    """What the files of a source tell before their rows are read.

    `marks` say what is read of them otherwise than by earlier versions of zsg: they
    enter the recipe, so that nothing that was read otherwise has the same id. Where
    nothing is, there are none, and every id stays. `notes` are told.
    """

    marks: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Facts = Callable[[Path], Any]  # what a file's head tells, kept beside its digest


@dataclass(frozen=True, kw_only=True)
class Format:
    """A published format. Every function takes `data.path`: a file, a folder, or a
    pattern of files.

    `files`: all that decides what is read, in the order in which it is read. `lists`:
    the published held-out list that lies beside the data, None without one.
    `many_tasks`: whether examples are of many tasks, so that caps per task have a
    meaning. `published_ids`: for every example that `read` makes, in its order, the `id` that
    its row was published with, None for a row without one; itself None where rows of
    the format have none. `trains`: False for a set made for evaluation only.
    `answered`: False where some questions have no answer, so that no loss can be taken
    of the set. `options`: whether answers may be published with the choices that they
    are among. `facts`: what plan reads of one file, JSON that is kept as long as the
    file does not change; `inspect`: what these tell of the whole. `defined`: whether the data say
    what is asked in a place of its own, so that the template may word it.
    `draws_answers`: whether one of several right answers is drawn for an example, so
    that the seed counts even where all examples are taken. `is_on_hub`: whether the path
    may be the name of a data set of the hub. `reads_row`: whether a row of JSON is an
    example, of a format of such rows. `with_fields`: of a format whose columns
    the user names, the format of rows that have these, as a recipe has them.
    """

    about: str
    files: Callable[[Path], list[Path]]
    read: Callable[[Path, Intake], Iterator[Example]]
    lists: Callable[[Path], Lists | None] = lambda path: None
    published_ids: Callable[[Path, Intake], Iterator[Any]] | None = None
    many_tasks: bool = False
    trains: bool = True
    answered: bool = True
    options: bool = False
    facts: Facts | None = None
    inspect: Callable[[Path, Facts], Inspection] = lambda path, facts: Inspection()
    defined: bool = False
    draws_answers: bool = False
    is_on_hub: bool = False
    reads_row: Callable[[Any], bool] | None = None
    with_fields: "Callable[[Mapping[str, Any] | None], Format] | None" = None


FORMATS: Registry[Format] = Registry("format of data", "zsg_core.data.readers")
Read = Callable[[Path, Intake], Iterator[Example]]


def reader(name: str, **facts: Any) -> Callable[[Read], Read]:
    """Registers a function that reads a data set of the format `name`; `facts` are the
    other fields of its Format."""

    def register(read: Read) -> Read:
        FORMATS.add(name, Format(read=read, **facts))
        return read

    return register


def row_reader(
    name: str,
    about: str,
    row: type[Row],
    suffixes: tuple[str, ...] = (".jsonl", ".json"),
) -> Callable[[Parse[Row]], Parse[Row]]:
    """Registers a function that makes the examples of a JSON row, of a format whose
    files hold such rows; `row` states their keys."""

    def register(parse: Parse[Row]) -> Parse[Row]:
        FORMATS.add(name, format_of_rows(about, row, parse, suffixes))
        return parse

    return register


def format_of_rows(
    about: str,
    row: type[Row],
    parse: Parse[Row],
    suffixes: tuple[str, ...] = (".jsonl", ".json"),
) -> Format:
    """A format whose files hold one example in a JSON row, or a few."""

    def read(path: Path, intake: Intake) -> Iterator[Example]:
        for file in find_files(path, suffixes):
            yield from parse_rows(file, json_rows(file, row, intake), parse, intake)

    # Read apart from the rest, for an `id` may be anything: it is nobody's concern but
    # that of whoever joins by it.
    named: Any = msgspec.defstruct(
        f"Named{row.__name__}", [("id", Any, None)], bases=(row,), gc=False
    )

    def published_ids(path: Path, intake: Intake) -> Iterator[Any]:
        def id_of_each(named_row: Any, name: str, intake: Intake) -> list[Any]:
            return [named_row.id] * len(parse(named_row, name, intake))

        for file in find_files(path, suffixes):
            yield from parse_rows(
                file, json_rows(file, named, intake), id_of_each, intake
            )

    def inspect(path: Path, facts: Facts) -> Inspection:
        return Inspection(notes=_beside_train(path, suffixes))

    def reads_row(raw: Any) -> bool:
        hook = keys.make_decode_hook(Intake())
        try:
            return bool(parse(msgspec.convert(raw, row, dec_hook=hook), "", Intake()))
        except (Malformed, msgspec.ValidationError, keys.UnsupportedRow):
            return False

    return Format(
        about=about,
        files=lambda path: find_files(path, suffixes),
        read=read,
        published_ids=published_ids,
        inspect=inspect,
        reads_row=reads_row,
    )


def parse_rows(
    file: Path,
    chunks: Generator[Chunk[Row], None, None],
    parse: Callable[[Row, str, Intake], list[Made]],
    intake: Intake,
    name: str | None = None,
) -> Iterator[Made]:
    """The examples, or what else `parse` makes, of a file's rows; a row that it refuses
    is told or counted.

    BadData for a row that means what zsg does not do, see `keys`. The file is closed at
    once, whatever a row says.
    """
    name = bare_name(file) if name is None else name
    with closing(chunks):
        for chunk in chunks:
            yield from _parse_chunk(file, chunk, parse, intake, name)


def _parse_chunk(
    file: Path,
    chunk: Chunk[Row],
    parse: Callable[[Row, str, Intake], list[Made]],
    intake: Intake,
    name: str,
) -> Iterator[Made]:
    for number, row in enumerate(chunk.rows, start=chunk.first):
        try:
            if chunk.has_keys:
                keys.check_keys(row, intake)
            yield from parse(row, name, intake)
        except keys.UnsupportedRow as reason:
            raise unsupported_row(
                f"{file}{chunk.where.format(number)}", reason
            ) from None
        except Malformed as reason:
            intake.refuse_row(f"{file}{chunk.where.format(number)}", reason)


def _beside_train(path: Path, suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """A note where a folder has its train file in several forms, of which the first is read."""
    if "*" in str(path) or not path.is_dir():
        return ()
    read = find_files(path, suffixes)  # a folder's one file
    unread = [
        file.name
        for file in sorted(path.iterdir())
        if _is_train(file, suffixes) and file not in read
    ]
    return (
        (f"{path}: {read[0].name} is read; left out: {', '.join(unread)}",)
        if unread
        else ()
    )


def _is_train(file: Path, suffixes: tuple[str, ...]) -> bool:
    return (
        looks_like(file, suffixes)
        and names.split_kind(names.strip_shard(bare_name(_as_unpacked(file)))[0])
        == "train"
    )


def unsupported_row(location: str, reason: object) -> BadData:
    """The error of a row that means what zsg does not do."""
    return BadData(
        f"{location}: {reason}. Take the row out of the file, or the key where it means nothing"
        " (data.on_bad_row: skip is for rows that cannot be read)"
    )


def find_files(
    path: Path, suffixes: tuple[str, ...], names_are_tasks: bool = False
) -> list[Path]:
    """The files of a path in a fixed order. UserError where there is none, a folder
    says not which, or several splits.

    A folder stands for its `train` file, in whatever of the suffixes; other names are
    given by a pattern. `names_are_tasks`: see `names.group_by_split`.
    """
    if "*" in str(path):
        files = _match_pattern(path)
    elif path.is_dir():
        files = _train_file(path, suffixes)
    else:
        files = _single_file(path, suffixes)
    if not files:
        raise UserError(
            f"{path}: no such file. data.path is a file, a folder with train{suffixes[0]}, or a"
            f" pattern such as *.json{_hint_at_packed(path, suffixes)}"
        )
    for file in files:
        _refuse_other_packing(file)
    names.refuse_several_splits(path, root_folder(path), files, names_are_tasks)
    return files


def _match_pattern(path: Path) -> list[Path]:
    folder = root_folder(path)
    matches = folder.glob(str(path.relative_to(folder)))
    return sorted(match for match in matches if match.is_file())


def _train_file(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The first of the forms in which a folder may have its train file."""
    for suffix in suffixes:
        file = choose_form(folder, f"train{suffix}")
        if file.is_file():
            return [file]
    return []


def choose_form(folder: Path, name: str) -> Path:
    """The file of this name in a folder, or where there is none, the same gzipped; it
    need not be there."""
    plain, packed = folder / name, folder / f"{name}{GZIP}"
    return packed if packed.is_file() and not plain.is_file() else plain


def _single_file(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not path.is_file():
        return []
    _refuse_other_packing(path)
    if not _ends(path, suffixes):
        raise UserError(
            f"{path}: no file of this format, which ends in {' or '.join(suffixes)}"
        )
    return [path]


def list_folder(
    folder: Path, suffixes: tuple[str, ...], names_are_tasks: bool = False
) -> list[Path]:
    """The files of a folder that have one of the suffixes, gzipped or not, by their names.

    UserError where there is none, where one stands there in two forms, and for several splits.
    """
    files = sorted(
        file for file in folder.iterdir() if _ends(file, suffixes) and file.is_file()
    )
    if not files:
        raise UserError(
            f"{folder}: no such file. It holds no file that ends in {' or '.join(suffixes)}, or"
            f" that and {GZIP}{_hint_at_packed(folder, suffixes)}"
        )
    seen: dict[str, Path] = {}
    for file in files:
        first = seen.setdefault(bare_name(file), file)
        if first != file:
            raise UserError(
                f"{first} and {file.name} may be the same; move one away, or choose by a pattern"
                " such as"
                f" *{''.join(first.suffixes[-2:] if first.suffix == GZIP else first.suffix)}"
            )
    names.refuse_several_splits(folder, folder, files, names_are_tasks)
    return files


def note_unread_files(
    folder: Path, files: Sequence[Path], suffixes: tuple[str, ...]
) -> tuple[str, ...]:
    """A note on the files of a folder that look as if they could be read, and are not;
    none where there are none."""
    read = set(files)
    unread = sorted(
        file
        for file in folder.iterdir()
        if looks_like(file, suffixes) and file not in read
    )
    if not unread:
        return ()
    way = "a pattern of files reads them"
    if any(file.suffix in OTHER_PACKINGS for file in unread):
        way = f"unpack them, or pack them by gzip: zsg unpacks {GZIP} alone"
    return (
        f"{folder}: {len(files)} files are read; left out: {name_some(unread)} ({way})",
    )


def note_other_forms(path: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """A note where a folder has its one file in several forms, of which one is read."""
    if "*" in str(path) or not path.is_dir():
        return ()
    file = files[0]
    plain = file.name.removesuffix(GZIP)
    forms = [plain, *(f"{plain}{suffix}" for suffix in (GZIP, *OTHER_PACKINGS))]
    unread = [
        path / name for name in forms if name != file.name and (path / name).is_file()
    ]
    if not unread:
        return ()
    return (f"{path}: {file.name} is read; left out: {name_some(unread)}",)


def name_some(files: Sequence[Path]) -> str:
    """The names of the first of some files."""
    names_shown = ", ".join(file.name for file in files[:SHOWN])
    return names_shown + (", …" if len(files) > SHOWN else "")


def _ends(file: Path, suffixes: tuple[str, ...]) -> bool:
    return file.name.removesuffix(GZIP).endswith(suffixes)


def looks_like(file: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name is that of a file of the format, however it is packed."""
    return _ends(_as_unpacked(file), suffixes)


def _as_unpacked(file: Path) -> Path:
    """What a file would be called that is packed, and not by gzip."""
    return file.with_suffix("") if file.suffix in OTHER_PACKINGS else file


def _refuse_other_packing(file: Path) -> None:
    """BadData for a file that is packed, and not by gzip."""
    if file.suffix in OTHER_PACKINGS:
        raise broken_file(
            file,
            f"is packed as {file.suffix}, and zsg unpacks {GZIP} alone; unpack it, or pack it by"
            " gzip",
        )


def _hint_at_packed(path: Path, suffixes: tuple[str, ...]) -> str:
    """Which files would do for a path, were they packed by gzip or not at all."""
    if "*" in str(path):
        return ""
    forms = (path.with_name(f"{path.name}{suffix}") for suffix in OTHER_PACKINGS)
    packed = sorted(
        file
        for file in (path.iterdir() if path.is_dir() else forms)
        if file.suffix in OTHER_PACKINGS
        and looks_like(file, suffixes)
        and file.is_file()
    )
    if not packed:
        return ""
    return (
        f". Unpack {name_some(packed)}, or pack them by gzip: zsg unpacks {GZIP} alone"
    )


def root_folder(path: Path) -> Path:
    """The folder that a path's files are named in: the path itself, or the folder above
    a file or a pattern."""
    while "*" in str(path):
        path = path.parent
    return path.parent if path.is_file() else path


def bare_name(file: Path) -> str:
    """A file's name without its suffixes."""
    return names.bare_name(file)
