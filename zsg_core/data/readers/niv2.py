"""Reads Natural Instructions V2: the official folder, or task files of the two older
dialects by a pattern.

Source: allenai/natural-instructions. The official folder has tasks/<task>.json and
splits/default/*.txt; a task's position in its split file is its place in every order,
and an instance's place in its file is its id, since published ids are missing or
doubled in some copies. The 10-key and 7-key dialects have bare texts where the official
14 keys have lists.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from zsg_core.data.examples import Example, Turn
from zsg_core.data.readers.format import (
    GZIP,
    OTHER_PACKINGS,
    Facts,
    Inspection,
    Lists,
    bare_name,
    choose_form,
    find_files,
    reader,
)
from zsg_core.data.readers.intake import Intake, Malformed, broken_file, read_whole
from zsg_core.data.readers.json_array import BAD, LONGEST
from zsg_core.errors import UserError

SPLITS = {
    "train": "splits/default/train_tasks.txt",
    "test": "splits/default/test_tasks.txt",
}
# bytes of a task's file, which is read whole; the largest published has 60 million
MOST_OF_A_TASK = 8 * LONGEST
# a file so called stands in the folder of its task
SPLIT_FILES = ("train", "test", "dev", "valid")


class Shot(msgspec.Struct):
    """A positive example; its explanation is not shown to a model."""

    input: str
    output: str


class Instance(msgspec.Struct):
    """One instance: a bare output is the only reference."""

    input: str
    output: str | list[str]


class Task(msgspec.Struct):
    """A task file, its instances still text, so that one bad instance does not hide the others."""

    definition: str | list[str] = msgspec.field(name="Definition")
    shots: list[Shot] = msgspec.field(name="Positive Examples")
    instances: list[msgspec.Raw] = msgspec.field(name="Instances")
    categories: str | list[str] | None = msgspec.field(
        name="Categories", default_factory=list
    )


_TASK, _INSTANCE = msgspec.json.Decoder(Task), msgspec.json.Decoder(Instance)


def read_task_names(folder: Path, split: str) -> list[str]:
    """The tasks of a split in file order. UserError if the list is missing, empty,
    doubled or unsafe."""
    path = folder / SPLITS[split]
    if not path.is_file():
        raise UserError(
            f"{path}: not found. A Natural Instructions folder has tasks/<task>.json and"
            f" {SPLITS[split]}; set data.path to such a folder, or to a pattern of task files"
        )
    names = _read_lines(path)
    if not names:
        raise broken_file(path, "names no task; write one task name per line")
    for name in names:
        _refuse_unsafe(path, name)
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise broken_file(path, f"{min(doubled)} is listed more than once")
    return names


def _read_lines(path: Path) -> list[str]:
    """The lines that are not blank, without the blanks around them."""
    try:
        text = read_whole(path, LONGEST).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise broken_file(path, f"cannot be read as UTF-8 text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _refuse_unsafe(path: Path, name: str) -> None:
    if "/" in name or "\\" in name or name.startswith("."):
        raise broken_file(
            path,
            f"{name!r} is not a task name; a name has no slash and no leading dot",
        )


def read_lists(path: Path) -> Lists | None:
    """The official held-out list of a folder; task files by a pattern have none.
    UserError if a task is in both."""
    if not path.is_dir():
        return None
    names = {split: read_task_names(path, split) for split in SPLITS}
    both = sorted(set(names["train"]) & set(names["test"]))
    if both:
        raise UserError(
            f"{path}: {both[0]} is in both splits; a held-out task must not be trained on"
        )
    return names


def list_files(path: Path) -> list[Path]:
    """Every file whose content decides what is read, in a fixed order."""
    if not path.is_dir():
        return find_files(path, (".json",), names_are_tasks=True)
    named = [path / name for name in SPLITS.values()]
    return named + [
        _task_file(path, name)
        for names in (read_lists(path) or {}).values()
        for name in names
    ]


def read_task(path: Path, intake: Intake) -> Iterator[Example]:
    """All instances of a task file in file order, the first reference being the answer.

    UserError with the file, the instance and the reason when the file is not what it should be.
    """
    bare = bare_name(path)
    name = path.parent.name if bare in SPLIT_FILES else bare
    try:
        task = _TASK.decode(
            read_whole(path, MOST_OF_A_TASK).removeprefix(b"\xef\xbb\xbf")
        )
    except (OSError, *BAD) as error:
        raise broken_file(path, f"cannot be read as a task file: {error}") from error
    definition = (
        task.definition
        if isinstance(task.definition, str)
        else next(iter(task.definition), "")
    )
    if not definition.strip():
        raise broken_file(path, "'Definition' must be a text or a list of texts")
    shots = tuple((shot.input, shot.output) for shot in task.shots)
    tags = (
        (task.categories,)
        if isinstance(task.categories, str)
        else tuple(task.categories or ())
    )
    for index, raw in enumerate(task.instances):
        try:
            yield _example(
                f"{name}:{index}", name, _INSTANCE.decode(raw), definition, shots, tags
            )
        except (Malformed, *BAD) as error:
            intake.refuse_row(f"{path}: Instances[{index}]", error)


def has_instance(folder: Path, name: str) -> bool:
    """Whether a task of the official folder has any instance. UserError for a file that
    cannot be read."""
    return next(read_task(_task_file(folder, name), Intake()), None) is not None


def _example(
    made_id: str,
    task: str,
    row: Instance,
    definition: str,
    shots: tuple[Turn, ...],
    tags: tuple,
) -> Example:
    references = (row.output,) if isinstance(row.output, str) else tuple(row.output)
    if not references:
        raise Malformed("'output' must be a list of at least one text")
    return Example(
        id=made_id,
        task=task,
        turns=((row.input, references[0]),),
        definition=definition,
        shots=shots,
        references=references if len(references) > 1 else (),
        tags=tags,
    )


def _task_file(folder: Path, name: str) -> Path:
    path = choose_form(folder / "tasks", f"{name}.json")
    if not path.is_file():
        packed = [
            form.name
            for suffix in OTHER_PACKINGS
            if (form := path.with_name(f"{path.name}{suffix}")).is_file()
        ]
        advice = (
            f"; unpack {packed[0]}, or pack it by gzip: zsg unpacks {GZIP} alone"
            if packed
            else ""
        )
        raise UserError(
            f"{path}: not found, but the split files of {folder} name this task{advice}"
        )
    return path


def inspect_files(path: Path, facts: Facts) -> Inspection:
    """Whether a pattern names gzipped files beside plain ones, which an older zsg left out."""
    if path.is_dir():
        return Inspection()
    packings = {file.suffix == GZIP for file in list_files(path)}
    return Inspection(marks={"packed": "read"} if len(packings) > 1 else {})


@reader(
    "niv2",
    about=(
        "Natural Instructions V2: a folder with tasks/ and splits/default/, or a pattern of task"
        " files"
    ),
    files=list_files,
    lists=read_lists,
    many_tasks=True,
    defined=True,
    draws_answers=True,
    inspect=inspect_files,
)
def read_examples(path: Path, intake: Intake) -> Iterator[Example]:
    """All instances of all tasks, in the order of the lists, or of the files' names."""
    for file in list_files(path):
        if file.name.removesuffix(GZIP).endswith(".json"):
            yield from read_task(file, intake)
