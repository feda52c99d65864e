"""Reads file names: which split a file is of, and which template, whatever the shards
it was cut into.

The hub's and `datasets`' ways of naming: `train-00000-of-00002.parquet`,
`train/0000.parquet`, `train.jsonl`, `gsm8k_test.jsonl`. Nothing is opened here.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
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
    if found := _OF.fullmatch(name) or _PART.fullmatch(name):
        return found["base"], True
    if (found := _NUMBER.fullmatch(name)) and _is_plain(found["base"]):
        return found["base"], True
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
    found = {file: _split(file, folder, names_are_tasks) for file in files}
    if names_are_tasks:
        found |= _paired([file for file in files if found[file] is None])
    elif any(split_kind(strip_shard(bare_name(file))[0]) for file in files):
        # `extra.parquet` beside `train.parquet` is no shard of it.
        found |= {
            file: strip_shard(bare_name(file))[0]
            for file in files
            if found[file] is None
        }
    made: dict[str, list[Path]] = {}
    for file in files:
        made.setdefault(found[file] or "", []).append(file)
    return made


def refuse_several_splits(
    path: Path, folder: Path, files: Sequence[Path], names_are_tasks: bool = False
) -> None:
    """UserError where files of one source are of several splits: they are never merged."""
    made = group_by_split(files, folder, names_are_tasks)
    named = {split: own for split, own in made.items() if split}
    if len(named) > 1:
        choices = ", ".join(str(make_pattern(own)) for own in named.values())
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
    made = [
        column[0] if len(set(column)) == 1 else "*"
        for column in zip(*rows, strict=True)
    ]
    if made[-1] == "*":
        made[-1] = f"{_beginning([file.name for file in files])}*{files[0].suffix}"
    return Path(*made)


def _beginning(texts: Sequence[str]) -> str:
    """What all texts begin with, without the digits at its end."""
    first, last = min(texts), max(texts)
    same = next(
        (
            i
            for i, (one, other) in enumerate(zip(first, last, strict=False))
            if one != other
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
    names = [bare_name(file) for file in files]
    counts = Counter(names)
    made: dict[Path, str] = {}
    outside: str | None = None
    for file, name in zip(files, names, strict=True):
        base, is_shard = strip_shard(name)
        alike = is_shard or counts[name] > 1
        if not alike or not _is_plain(base):
            made[file] = base if is_shard else name
            continue
        parents = (
            file.relative_to(folder).parts[:-1] if file.is_relative_to(folder) else ()
        )
        within = next(
            (own for part in reversed(parents) if (own := _telling(part))), None
        )
        if within is None:
            above = [folder.name, *(parent.name for parent in folder.parents)]
            outside = next((own for part in above if (own := _telling(part))), None)
            within = outside
        if within is None:
            raise UserError(
                f"{file}: nothing tells which template this is a shard of; put it into a folder"
                " named so"
            )
        made[file] = within
    return made, outside


def _split(file: Path, folder: Path, names_are_tasks: bool) -> str | None:
    name = bare_name(file)
    base, is_shard = strip_shard(name)
    if kind := split_kind(base):
        return base if is_shard else kind
    parents = file.relative_to(folder).parts[:-1] if file.is_relative_to(folder) else ()
    if kind := next(
        (kind for part in reversed(parents) if (kind := split_kind(part))), None
    ):
        return kind
    if _is_plain(base):
        return None
    words = _WORD.findall(base)
    if words and base.startswith(words[0]) and (kind := split_kind(words[0])):
        return base if is_shard else kind
    if names_are_tasks:
        return None
    if words and base.endswith(words[-1]) and (kind := split_kind(words[-1])):
        return base if is_shard else kind
    return base if _OF.fullmatch(name) else None


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
    several = [own for own in kinds.values() if len(set(own.values())) > 1]
    return {file: kind for own in several for file, kind in own.items()}


def _is_plain(name: str) -> bool:
    return name.lower() in _PLAIN or split_kind(name) is not None or name.isdigit()


def _telling(folder: str) -> str | None:
    """What a folder's name says of what lies in it; a folder of zsg's downloads is
    called org+name or config+split."""
    parts = [part for part in folder.split("+") if not _is_plain(part)]
    if not parts or _COMMIT.fullmatch(folder):
        return None
    return parts[-1]
