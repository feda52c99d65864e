"""Unpacks a bundle, whoever made it, into a new workspace: only the files that it lists,
each with the size and the digest that it lists, none outside the folder, no link.

The code that a bundle brings is put where jobs are run from only if the user says so: it
is somebody's, and a replay would run it.
"""

import contextlib
import gzip
import hashlib
import logging
import shutil
import tarfile
import uuid
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import msgspec

from jobs.contract.folder import Workspace
from jobs.files import ownership
from launcher.reporting import bundle_record
from launcher.reporting.bundle_record import BundledFile, BundleRecord
from launcher.workspace import workspaces
from zsg_core.errors import ClusterError, UserError

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
# of a disk that an unpacked bundle may fill
MOST_OF_FREE = 0.9
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


class _Refused(Exception):
    """What is wrong in a bundle, in words."""


class PlainMember(tarfile.TarInfo):
    """A member that is an ordinary file. Any other kind, and the headers by which a name
    or a size of any length could be brought in, is refused before it is read."""

    def _proc_member(self, tarfile: Any) -> Any:
        if self.type not in PLAIN:
            raise _Refused(f"{self.name[:80]!r} is no ordinary file")
        return super()._proc_member(tarfile)  # type: ignore[misc]


def unpack_bundle(file: Path, folder: Path, with_code: bool = False) -> BundleRecord:
    """Unpacks a bundle into a folder that is not there yet, or empty: a workspace, to be
    read and reported. `with_code`: also the code of its jobs.

    UserError for a file that is no bundle, is damaged, or lists what it may not.
    """
    if folder.is_symlink() or (
        folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise UserError(f"{folder}: is there already; name a folder that is not")
    target = workspaces.find_workspace(folder).root
    if objection := workspaces.find_refusal(Workspace(target)):
        raise objection
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    ownership.make_folder(draft)
    try:
        with _told_of(file), file.open("rb") as packed:
            record = _unpack(packed, draft, with_code)
        if target.is_dir():
            target.rmdir()
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return record


@contextlib.contextmanager
def _told_of(file: Path) -> Generator[None]:
    """UserError, with the file, for what makes it no bundle."""
    try:
        yield
    except _Refused as refused:
        raise UserError(f"{file}: {refused}; nothing was unpacked") from None
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{file}: is no bundle of zsg, or is damaged ({error}); nothing was unpacked"
        ) from None
    except FileNotFoundError as error:
        if error.filename == str(file):
            raise UserError(f"{file}: is not there") from None
        raise


def _unpack(packed: IO[bytes], folder: Path, with_code: bool) -> BundleRecord:
    with (
        gzip.GzipFile(fileobj=packed, mode="rb") as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|", tarinfo=PlainMember) as archive,
    ):
        record = _read_manifest(archive)
        _refuse_without_room(record, folder)
        awaited = {listed.path: listed for listed in record.files}
        while member := archive.next():
            listed = awaited.pop(member.name, None)
            if listed is None or member.size != listed.size:
                raise _Refused(
                    f"{member.name[:80]!r} is not as {bundle_record.NAME} lists it"
                )
            content = archive.extractfile(member)
            assert content is not None, "it is an ordinary file"
            _write_file(content, listed, _place(folder, listed.path, with_code))
    if awaited:
        raise _Refused(
            f"{len(awaited)} of its files are missing, such as {min(awaited)}"
        )
    return record


def _read_manifest(archive: tarfile.TarFile) -> BundleRecord:
    """What the bundle holds, which is its first file."""
    first = archive.next()
    if first is None or first.name != bundle_record.NAME:
        raise _Refused(
            f"is no bundle of zsg: it does not begin with {bundle_record.NAME}"
        )
    if not 0 <= first.size <= bundle_record.MOST_MANIFEST:
        raise _Refused(f"{bundle_record.NAME} is larger than a bundle's can be")
    content = archive.extractfile(first)
    assert content is not None, "it is an ordinary file"
    text = content.read()
    try:
        version = msgspec.json.decode(text, type=_Versioned)
        if version.schema != bundle_record.SCHEMA:
            raise _Refused(
                f"has schema {version.schema}, and this zsg reads {bundle_record.SCHEMA}"
            )
        record = msgspec.json.decode(text, type=BundleRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Refused(f"{bundle_record.NAME} cannot be read: {error}") from None
    _check_listed(record.files)
    return record


class _Versioned(msgspec.Struct, frozen=True):
    schema: int


def _check_listed(files: list[BundledFile]) -> None:
    """Refuses paths that lead elsewhere, that are listed twice, or that are too many."""
    if len(files) > bundle_record.MOST_FILES:
        raise _Refused(f"lists more than {bundle_record.MOST_FILES:,} files")
    seen: set[str] = set()
    for listed in files:
        path = listed.path
        if not bundle_record.is_sound_path(path) or listed.size < 0:
            raise _Refused(f"lists {path[:80]!r}, which is no file of a bundle")
        folded = path.lower()  # which some file systems take for the same
        if folded in seen:
            raise _Refused(f"lists {path!r} twice")
        seen.add(folded)


def _refuse_without_room(record: BundleRecord, folder: Path) -> None:
    """ClusterError where the files would fill the disk."""
    needed = sum(listed.size for listed in record.files)
    free = shutil.disk_usage(folder).free
    if needed > MOST_OF_FREE * free:
        raise ClusterError(
            f"{folder.parent}: {free / 1e9:.1f} GB are free, and the bundle unpacks to"
            f" {needed / 1e9:.1f} GB; name a folder on another disk"
        )


def _place(folder: Path, path: str, with_code: bool) -> Path | None:
    """Where a file goes; None for one that is only checked."""
    if path.startswith(f"{bundle_record.CODE}/"):
        return folder / path if with_code else None
    return folder / path.removeprefix(f"{bundle_record.WORKSPACE}/")


def _write_file(content: IO[bytes], listed: BundledFile, place: Path | None) -> None:
    """Writes one file, as far as it is listed, and checks its digest."""
    digest = hashlib.sha256()
    if place is not None:
        ownership.make_folder(place.parent)
    with open(place, "xb") if place else contextlib.nullcontext() as file:  # noqa: PTH123
        while piece := content.read(CHUNK):
            digest.update(piece)
            if file is not None:
                file.write(piece)
    if digest.hexdigest() != listed.sha256:
        raise _Refused(f"{listed.path} is not what {bundle_record.NAME} says")
