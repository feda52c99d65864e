"""Reads file names: which split a file is of, and which template, whatever the shards
it was cut into.

The hub's and `datasets`' ways of naming: `train-00000-of-00002.parquet`,
`train/0000.parquet`, `train.jsonl`, `gsm8k_test.jsonl`. Nothing is opened here.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from zsg_core.errors import UserError

# What `datasets` takes for one of the three splits.
KINDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "heldout": "test",
    "holdout": "test",
}
# Names that say nothing of what a file holds.
_PLAIN = {
    "",
    "data",
    "part",
    "parts",
    "shard",
    "shards",
    "chunk",
    "file",
    "files",
    "parquet",
    "jsonl",
    "json",
    "arrow",
    "default",
    "main",
    "plain_text",
    "all",
    "raw",
    "rows",
    "dataset",
}
_OF = re.compile(r"(?P<base>.*?)[-_.]?\d{4,6}[-_]of[-_]\d{4,6}(?:[-_.][0-9a-f]{6,})?")
_PART = re.compile(
    r"(?P<base>.*?)[-_.]?(?:part|shard|chunk)[-_.]?\d+(?:-[0-9a-f-]{36}.*)?", re.I
)
_NUMBER = re.compile(r"(?P<base>.*?)[-_.]?\d+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WORD = re.compile(r"[A-Za-z]+")


def bare_name(file: Path) -> str:
    """A file's name without its suffixes."""
    return Path(file.name.removesuffix(".gz")).stem


def strip_shard(name: str) -> tuple[str, bool]:
    """A name without the number of a shard, and whether it had one."""
    if shard := _OF.fullmatch(name) or _PART.fullmatch(name):
        return shard["base"], True
    if (shard := _NUMBER.fullmatch(name)) and _is_plain(shard["base"]):
        return shard["base"], True
    return name, False


def split_kind(name: str) -> str | None:
    """Which of the three splits a name is, if it is one: `dev` is validation."""
    return KINDS.get(name.strip().lower().removeprefix("partial-"))


def group_by_split(
    files: Sequence[Path], folder: Path, names_are_tasks: bool
) -> dict[str, list[Path]]:
    """The files by the split that they are of, in the order given; one entry where
    nothing tells several apart.

    `names_are_tasks`: a name may end in a word such as `test` and be a task's; then
    that tells a split only where another file has the same name but for that word.
    """
    split_of = {file: _split(file, folder, names_are_tasks) for file in files}
    untold = [file for file in files if split_of[file] is None]
    if names_are_tasks:
        split_of |= _paired(untold)
    elif any(split_kind(_base(file)) for file in files):
        # `extra.parquet` beside `train.parquet` is no shard of it.
        split_of |= {file: _base(file) for file in untold}
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(split_of[file] or "", []).append(file)
    return groups


def _base(file: Path) -> str:
    """A file's name without its suffixes and the number of a shard."""
    return strip_shard(bare_name(file))[0]


def refuse_several_splits(
    path: Path, folder: Path, files: Sequence[Path], names_are_tasks: bool = False
) -> None:
    """UserError where files of one source are of several splits: they are never merged."""
    by_split = group_by_split(files, folder, names_are_tasks)
    named = {split: split_files for split, split_files in by_split.items() if split}
    if len(named) > 1:
        choices = ", ".join(
            str(make_pattern(split_files)) for split_files in named.values()
        )
        raise UserError(
            f"{path}: holds several splits: {', '.join(named)}; one source is of one split, so give"
            f" one of them: {choices}"
        )


def make_pattern(files: Sequence[Path]) -> Path:
    """A path or pattern that means these files."""
    if len(files) == 1:
        return files[0]
    rows = [file.parts for file in files]
    if len(set(map(len, rows))) > 1:
        return Path(os.path.commonpath(files)) / "**" / f"*{files[0].suffix}"
    pattern_parts = [
        column[0] if len(set(column)) == 1 else "*"
        for column in zip(*rows, strict=True)
    ]
    if pattern_parts[-1] == "*":
        pattern_parts[-1] = (
            f"{_beginning([file.name for file in files])}*{files[0].suffix}"
        )
    return Path(*pattern_parts)


def _beginning(texts: Sequence[str]) -> str:
    """What all texts begin with, without the digits at its end."""
    first, last = min(texts), max(texts)
    same = next(
        (
            i
            for i, (left_char, right_char) in enumerate(zip(first, last, strict=False))
            if left_char != right_char
        ),
        len(first),
    )
    return first[:same].rstrip("0123456789")


def find_tasks(
    files: Sequence[Path], folder: Path
) -> tuple[dict[Path, str], str | None]:
    """The template that each file is of, where a file is one or a shard of one.

    A template is what the file is called, but for the number of a shard; where that is
    a split's name or says nothing, it is the folder's: <template>/train/0000.parquet.
    Also the name of a folder above `folder` where one had to serve: the names within
    `folder`, and so its digest, do not tell it. UserError where nothing tells the
    template.
    """
    counts = Counter(bare_name(file) for file in files)
    above = [folder.name, *(parent.name for parent in folder.parents)]
    tasks: dict[Path, str] = {}
    outside: str | None = None
    for file in files:
        name = bare_name(file)
        task = _own_task(name, is_alone=counts[name] == 1)
        if task is None:
            task = _first_telling(reversed(_folders_between(file, folder)))
        if task is None:
            task = outside = _first_telling(above)
        if task is None:
            raise UserError(
                f"{file}: nothing tells which template this is a shard of; put it into a folder"
                " named so"
            )
        tasks[file] = task
    return tasks, outside


def _own_task(name: str, is_alone: bool) -> str | None:
    """The template that a file's own name tells; None where it is a split's name, or
    says nothing."""
    base, is_shard = strip_shard(name)
    if (is_shard or not is_alone) and _is_plain(base):
        return None
    return base if is_shard else name


def _folders_between(file: Path, folder: Path) -> tuple[str, ...]:
    """The names of the folders that lie between a folder and a file in it."""
    if not file.is_relative_to(folder):
        return ()
    return file.relative_to(folder).parts[:-1]


def _first_telling(folder_names: Iterable[str]) -> str | None:
    return next(filter(None, map(_telling, folder_names)), None)


def _split(file: Path, folder: Path, names_are_tasks: bool) -> str | None:
    """The split of a file by its name, or by the nearest folder whose name is one; None
    where neither says any.

    A name of several words counts by its first, then, unless files are named after
    tasks, by its last: a task may end in "test". Shards of a split, such as
    `train-00000-of-00004`, are one split with the name before the number.
    """
    name = bare_name(file)
    base, is_shard = strip_shard(name)
    if kind := split_kind(base):
        return base if is_shard else kind
    kinds_of_folders = map(split_kind, reversed(_folders_between(file, folder)))
    if kind := next(filter(None, kinds_of_folders), None):
        return kind
    if _is_plain(base):
        return None
    kind = _kind_at_start(base)
    if kind is None and not names_are_tasks:
        kind = _kind_at_end(base)
    if kind is not None:
        return base if is_shard else kind
    is_numbered = not names_are_tasks and _OF.fullmatch(name) is not None
    return base if is_numbered else None


def _kind_at_start(base: str) -> str | None:
    words = _WORD.findall(base)
    if words and base.startswith(words[0]):
        return split_kind(words[0])
    return None


def _kind_at_end(base: str) -> str | None:
    words = _WORD.findall(base)
    if words and base.endswith(words[-1]):
        return split_kind(words[-1])
    return None


def _paired(files: Sequence[Path]) -> dict[Path, str | None]:
    """The splits of files that have the same name but for a split's name at its end:
    a_train and a_test."""
    kinds: dict[tuple[Path, str], dict[Path, str]] = {}
    for file in files:
        base = strip_shard(bare_name(file))[0]
        words = _WORD.findall(base)
        if words and base.endswith(words[-1]) and (kind := split_kind(words[-1])):
            kinds.setdefault((file.parent, base.removesuffix(words[-1])), {})[file] = (
                kind
            )
    several = [
        split_of for split_of in kinds.values() if len(set(split_of.values())) > 1
    ]
    return {file: kind for split_of in several for file, kind in split_of.items()}


def _is_plain(name: str) -> bool:
    return name.lower() in _PLAIN or split_kind(name) is not None or name.isdigit()


def _telling(folder: str) -> str | None:
    """What a folder's name says of what lies in it; a folder of zsg's downloads is
    called org+name or config+split."""
    telling_words = [word for word in folder.split("+") if not _is_plain(word)]
    if not telling_words or _COMMIT.fullmatch(folder):
        return None
    return telling_words[-1]
