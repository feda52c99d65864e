"""Judges the files of a model's folder before they are read, digested or copied: the
folder may come from anywhere.

A link in it may lead to any file of the user's, which a digest would read and a
snapshot carry to others; a pipe in place of a file would never end. So a link may only
lead to a file within the folder, or, where the folder is a snapshot in a hub's cache,
to one of the blobs of that very repository:

    <cache>/models--ORG--NAME/snapshots/REVISION/config.json -> ../../blobs/HASH

(huggingface_hub, guide "Understand caching"; with HF_HOME the cache lies elsewhere, and
looks the same.) The folder itself may be a link: that the user has typed.
"""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from zsg_core.errors import UserError
from zsg_core.shown_text import make_showable

MOST_FILES = 20_000  # of an embedding model's folder
# of a file that holds no weights; the largest published tokenizer.json has 35 million
MOST_BYTES = 200_000_000
_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")
_COPY = "if it is what you mean, copy the folder with its links followed (cp -rL) and give the copy"


def refuse_strange_files(
    folder: Path, paths: Iterable[Path], *, are_weights: bool = False
) -> None:
    """UserError for one that is a link out of the folder, no ordinary file, has no
    plain name or no sensible size."""
    real = folder.resolve()
    blobs = _find_blobs(real)
    for path in paths:
        shown_path = make_showable(str(path), keep="")
        if not path.name.isprintable():
            raise UserError(
                f"{shown_path}: its name does not print; rename it, or take it out of the folder"
            )
        try:
            target = path.resolve(strict=True)
            status = target.lstat()
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            why = (
                error.strerror
                if isinstance(error, OSError) and error.strerror
                else "it leads nowhere"
            )
            raise UserError(f"{shown_path}: cannot be read: {why}") from None
        if not (
            target.is_relative_to(real)
            or (blobs is not None and target.parent == blobs)
        ):
            shown_target = make_showable(str(target), keep="")
            raise UserError(
                f"{shown_path} is a link to {shown_target}, which lies outside of the folder; zsg"
                f" follows none: {_COPY}"
            )
        if not stat.S_ISREG(status.st_mode):
            raise UserError(
                f"{shown_path} is no ordinary file; take it out of the folder"
            )
        _check_size(shown_path, status, are_weights)


def refuse_strange_tree(folder: Path) -> None:
    """The same of every file of a folder and of those in it; and for a link to a
    folder, which no digest goes into."""
    count = 0
    for at, folders, files in os.walk(folder):
        for name in folders:
            if Path(at, name).is_symlink():
                shown_path = make_showable(str(Path(at, name)), keep="")
                raise UserError(
                    f"{shown_path} is a link to a folder, which zsg does not follow: {_COPY}"
                )
        count += len(files)
        if count > MOST_FILES:
            raise UserError(
                f"{folder}: holds more than {MOST_FILES:,} files; is it the folder of one model?"
            )
        # in any form
        refuse_strange_files(
            folder, [Path(at, name) for name in sorted(files)], are_weights=True
        )


def find_links_out(folder: Path, paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Those that are links out of the folder, but for a hub's cache, and what they lead to."""
    real = folder.resolve()
    blobs = _find_blobs(real)
    targets = [(path, path.resolve()) for path in paths]
    return [
        (path, target)
        for path, target in targets
        if not (target.is_relative_to(real) or target.parent == blobs)
    ]


def copy_file(folder: Path, path: Path, copied_path: Path) -> None:
    """Copies a file of the folder, with no more rights than it has itself. UserError
    where `refuse_strange_files` raises it.

    What is opened is what was judged: no link in its place since is followed, and a
    pipe does not block.
    """
    refuse_strange_files(folder, [path])
    source = os.open(path.resolve(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(source, "rb") as file:
        status = os.fstat(source)
        _check_size(str(path), status, are_weights=False)
        rights = stat.S_IMODE(status.st_mode) & 0o666 | 0o600
        destination = os.open(
            copied_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, rights
        )
        with os.fdopen(destination, "wb") as copied:
            copied.write(file.read(MOST_BYTES))


def _check_size(shown_path: str, status: os.stat_result, are_weights: bool) -> None:
    if not are_weights and status.st_size > MOST_BYTES:
        raise UserError(
            f"{shown_path} has {status.st_size:,} bytes; a model's has at most {MOST_BYTES:,}"
        )


def _find_blobs(real: Path) -> Path | None:
    """Where the files of a hub's cache lie that a folder is a snapshot of, or lies in
    one; None elsewhere."""
    for at in (real, *real.parents):
        if at.parent.name == "snapshots" and _REPOSITORY.fullmatch(
            at.parent.parent.name
        ):
            return at.parent.parent / "blobs"
    return None
