"""Writes into folders and files that the user names, and replaces or removes nothing
there that zsg did not write.

A report's folder keeps a list of what zsg wrote there, with the digests: only a file
that stands in it and is as it was written is replaced, or removed where the report has
no such part any more. All is made in a folder beside first, so that what is refused or
killed leaves the older report as it is. No link is followed or written through.
"""

import contextlib
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.contract import removal
from jobs.contract.folder import SCHEMA, Workspace, read_json, write_json
from jobs.files import ownership
from zsg_core.errors import UserError

MANIFEST = ".zsg-report.json"
MOST_NAMED = 4
# what tells a page of zsg's, and within how many bytes it stands
GENERATOR = b'<meta name="generator" content="zsg">'
MOST_OF_HEAD = 4096

# of each file, those that it may have by now: a killed write leaves the older one
Digests = Mapping[str, list[str]]


@contextlib.contextmanager
def open_report_folder(
    folder: Path, names: Sequence[str], certain: Sequence[str], is_own: bool
) -> Iterator[Path]:
    """Yields a folder to write a report's files to, whose `names` then come to lie in `folder`.

    `certain`: those that every report has. `is_own`: in the workspace, where an older
    zsg kept no list of what it wrote. UserError, before anything is written, for a file
    there that is not ours, or is not as zsg wrote it.
    """
    is_new = not folder.exists()
    if is_own:
        ownership.make_folder(folder)
    else:  # the user's, for whom the umask lets read it
        folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".zsg-report.{uuid.uuid4().hex[:8]}"
    try:
        digests = _known(folder, names, is_own)
        _refuse_others(folder, certain, digests)
        ownership.make_folder(draft)
        yield draft
        written = [name for name in names if (draft / name).is_file()]
        _refuse_others(folder, [*written, *digests], digests)
        _publish(draft, folder, written, digests)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # what is not empty stays
                folder.rmdir()


def written_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the names that the report in a folder has."""
    listed = _listed(folder, names) or {}
    return [name for name in names if name in listed]


def refuse_linked(workspace: Workspace, folder: Path) -> None:
    """UserError where a folder of the workspace is a link, or is reached by one."""
    try:
        with removal.open_folder(workspace.root, folder):
            return
    except FileNotFoundError:
        return
    except removal.Linked as error:
        raise UserError(
            f"{error}; remove the link, or name a folder with --out"
        ) from None


def refuse_existing(path: Path, may_replace: bool, option: str = "--out") -> None:
    """UserError for a file that is there already, unless the user has said that it may
    go; always for what is none. `option`: by which the user named it."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise UserError(
            f"{option} {path}: is there and is no ordinary file; name another"
        )
    if not may_replace:
        raise UserError(
            f"{option} {path}: is there already; name another file, or replace it with --replace"
        )


def refuse_foreign_page(page: Path) -> None:
    """UserError for a file that is there and is no page of zsg's."""
    if not os.path.lexists(page):
        return
    is_file = page.is_file() and not page.is_symlink()
    with page.open("rb") if is_file else io.BytesIO() as file:
        if GENERATOR in file.read(MOST_OF_HEAD):
            return
    raise UserError(
        f"--out {page}: is there already and is no page that zsg wrote; name another file"
    )


def publish_page(draft: Path, page: Path) -> None:
    """Puts a page in its place, whole or not at all, as the umask has it."""
    page.parent.mkdir(parents=True, exist_ok=True)
    beside = page.with_name(f".{page.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.write_bytes(draft.read_bytes())
        beside.replace(page)
    finally:
        beside.unlink(missing_ok=True)


def _publish(draft: Path, folder: Path, names: Sequence[str], digests: Digests) -> None:
    """Moves the files of a draft into the folder, and removes those that are written no
    more. Until all are there, the record names the old and the new files: whatever
    dies, zsg knows its own."""
    new = {name: _digest(draft / name) for name in names}
    either = {name: list(known_digests) for name, known_digests in digests.items()}
    for name, digest in new.items():
        either.setdefault(name, []).append(digest)
    _keep(folder, either)
    with removal.open_folder(folder, folder) as handle:
        for name in names:
            os.replace(draft / name, name, dst_dir_fd=handle)
    for name in sorted(digests.keys() - new.keys()):
        removal.remove_file(folder, folder / name)
    _keep(folder, {name: [digest] for name, digest in new.items()})


def _keep(folder: Path, files: Digests) -> None:
    write_json(
        folder / MANIFEST, {"schema": SCHEMA, "files": dict(sorted(files.items()))}
    )


def _known(folder: Path, names: Sequence[str], is_own: bool) -> Digests:
    """What zsg wrote in a folder, with the digests."""
    listed = _listed(folder, names)
    if listed is not None:
        return {
            name: digests
            for name, digests in listed.items()
            if os.path.lexists(folder / name)
        }
    present = [
        name
        for name in names
        if (folder / name).is_file() and not (folder / name).is_symlink()
    ]
    return {name: [_digest(folder / name)] for name in present} if is_own else {}


def _listed(folder: Path, names: Sequence[str]) -> dict[str, list[str]] | None:
    """The list of a folder; None where there is none that can be read."""
    path = folder / MANIFEST
    try:
        manifest: Any = None if path.is_symlink() else read_json(path)
    except (OSError, ValueError, RecursionError):
        return None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        return None
    return {
        name: digests
        for name, digests in files.items()
        if name in names and isinstance(digests, list)
    }


def _refuse_others(folder: Path, names: Collection[str], digests: Digests) -> None:
    foreign = sorted(
        {
            name
            for name in names
            if os.path.lexists(folder / name) and not _is_ours(folder, name, digests)
        }
    )
    if not foreign:
        return
    unnamed = (
        f" and {len(foreign) - MOST_NAMED} more" if len(foreign) > MOST_NAMED else ""
    )
    raise UserError(
        f"{folder} holds {', '.join(foreign[:MOST_NAMED])}{unnamed}, which zsg did not write, or"
        f" which {_be(foreign)} changed since; nothing was written: move it elsewhere, or name"
        " another folder with --out"
    )


def _be(names: Sequence[str]) -> str:
    return "were" if len(names) > 1 else "was"


def _is_ours(folder: Path, name: str, digests: Digests) -> bool:
    path = folder / name
    return (
        name in digests
        and path.is_file()
        and not path.is_symlink()
        and _digest(path) in digests[name]
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
