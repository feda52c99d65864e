"""Packs what it takes to redo a grid's figures into one archive, the same bytes for the
same files: grid, jobs, journals, item records, orders, code, and what they stand on.

Records go in as they are, so that their digests hold: they name folders and hosts of
this machine. Weights, examples and logs stay here.
"""

import gzip
import hashlib
import importlib.metadata
import io
import logging
import os
import platform
import tarfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from jobs.contract import job_file
from jobs.contract.folder import SCORES, Damaged, Workspace, list_paths
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.job_file import PrepareJob, TrainJob, stage_folders
from jobs.contract.journal_rows import as_mapping, find_first_start
from jobs.deciding.recorded_runs import RecordedRun
from launcher.reporting import bundle_record, licences
from launcher.reporting.bundle_record import (
    BundledFile,
    BundledLicence,
    BundledRun,
    BundleRecord,
)
from launcher.workspace import code_snapshot, recorded_grids
from zsg_core import recipe as recipes
from zsg_core import secrets
from zsg_core.errors import ClusterError, UserError

logger = logging.getLogger(__name__)

# of a run's folder: what says where a process is, and nothing of what came of it
NOT_OF_RESULTS = ("heartbeat.json", "rendezvous.json")
# what of the start of an attempt says by what it was computed
MACHINE = ("device", "world", "nodes", "machine", "gpu", "precision", "threads")
SHORTEST_SECRET = 8
# files that may hold an address that somebody wrote
WITH_ADDRESSES = ("grid.yaml", "grid.json", "job.json")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file to be packed, and its path in the bundle."""

    file: Path
    path: str


def write_bundle(workspace: Workspace, name: str, out: Path) -> BundleRecord:
    """Packs a submitted grid into the file `out`; what it holds.

    UserError for an unknown grid, and for a record that holds a secret of this process.
    ClusterError for a file that changes while it is packed.
    """
    record = recorded_grids.read_grid(workspace, name)
    sources = sorted(_list_sources(workspace, record), key=lambda source: source.path)
    listed = [_describe_file(source) for source in sources]
    bundle = BundleRecord(
        grid=name,
        zsg=importlib.metadata.version("zsg"),
        python=platform.python_version(),
        packages=_list_packages(),
        runs=[_describe_run(workspace, listed_run) for listed_run in record.runs],
        licences=list(_list_licences(workspace, _list_jobs(workspace, record)[1])),
        files=listed,
    )
    draft = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("xb") as file:
            _write_archive(file, bundle, sources)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return bundle


def _list_sources(workspace: Workspace, record: GridRecord) -> Iterator[Source]:
    """Every file of a bundle, once."""
    stages, jobs = _list_jobs(workspace, record)
    folders = [
        workspace.grid(record.name),
        *stages,
        *_list_made(workspace, jobs),
    ]
    for folder in dict.fromkeys(folders):
        for file in _list_record_files(folder):
            within = file.relative_to(workspace.root).as_posix()
            yield Source(file, f"{bundle_record.WORKSPACE}/{within}")
    yield from _list_code(workspace, jobs)


def _list_jobs(
    workspace: Workspace, record: GridRecord
) -> tuple[list[Path], list[TrainJob]]:
    """The folders of all stages of a grid's runs, each once, and their jobs."""
    folders: list[Path] = []
    for listed_run in record.runs:
        folders += _list_stages(workspace, listed_run.run)
    stages = list(dict.fromkeys(folders))
    jobs = [job for folder in stages for job in _read_job(folder)]
    return stages, jobs


def _list_licences(
    workspace: Workspace, jobs: Sequence[TrainJob]
) -> Iterator[BundledLicence]:
    """The licences of the models and the data that the user supplied for runs."""
    models = [
        job.base_folder
        for job in jobs
        if job.recipe.get("base", {}).get("kind") == "folder"
        and not job.base_folder.is_relative_to(workspace.root)
    ]
    yield from licences.describe_licences("model", models)
    data: list[Path] = []
    for folder in _list_prepares(workspace, {job.made.corpus for job in jobs}):
        prepare = job_file.read_job_if_sound(folder)
        if isinstance(prepare, PrepareJob):
            for paths in prepare.paths.sources.values():
                named = (paths.get("data"), paths.get("test"))
                data += [Path(path) for path in named if path]
    yield from licences.describe_licences("data", data)


def _list_made(workspace: Workspace, jobs: Sequence[TrainJob]) -> Iterator[Path]:
    """The folders of what was made for runs, and of the jobs that made it."""
    for job in jobs:
        yield workspace.corpus(job.made.corpus)
        yield workspace.arrangement(job.made.arrangement)
        scores = recipes.scores_id(job.recipe) if job.recipe.get("stages") else None
        if scores is not None:
            yield workspace.scores(scores)
    corpora = {job.made.corpus for job in jobs}
    yield from _list_prepares(workspace, corpora)


def _list_code(workspace: Workspace, jobs: Sequence[TrainJob]) -> Iterator[Source]:
    """The files of the code that runs were submitted with."""
    names = {code_snapshot.name_folder(job.code.facts) for job in jobs}
    for name in sorted(names):
        folder = workspace.root / "code" / name
        for file in sorted(folder.rglob("*")):
            if _is_plain(file) and "__pycache__" not in file.parts:
                within = file.relative_to(workspace.root).as_posix()
                yield Source(file, within)


def _list_stages(workspace: Workspace, run: str) -> list[Path]:
    """The folders of a run's stages; its own where its job cannot be read."""
    try:
        return stage_folders(workspace, run)
    except Damaged:
        return [workspace.run(run)]


def _read_job(folder: Path) -> list[TrainJob]:
    """The job of a run; none where it cannot be read, which the report tells."""
    try:
        job = job_file.read_train_job(folder)
    except Damaged:
        return []
    return [job] if job else []


def _list_prepares(workspace: Workspace, corpora: Collection[str]) -> Iterator[Path]:
    """The folders of the jobs that prepared these corpora."""
    for folder in list_paths(workspace.root / "prepare", "*"):
        job = job_file.read_job_if_sound(folder)
        if isinstance(job, PrepareJob) and job.corpus.id in corpora:
            yield folder


def _list_record_files(folder: Path) -> Iterator[Path]:
    """The records of one folder of the workspace."""
    if folder.parent.name in ("corpora", "arrangements", SCORES):
        yield from filter(_is_plain, list_paths(folder, "*"))
        return
    for file in list_paths(folder, "*.json"):
        if _is_plain(file) and file.name not in NOT_OF_RESULTS:
            yield file
    for file in (*list_paths(folder, "*.yaml"), *list_paths(folder / "journal", "*")):
        if _is_plain(file):
            yield file
    representations = folder / "representations"
    if representations.is_dir():
        yield from filter(_is_plain, sorted(representations.rglob("*")))


def _is_plain(path: Path) -> bool:
    """Whether a file is one that counts: no link, no folder, no draft."""
    is_file = path.is_file() and not path.is_symlink()
    return is_file and not path.name.startswith(".")


def _describe_file(source: Source) -> BundledFile:
    """The size and the digest of a file as it is now. UserError for one with a secret,
    or whose path an archive has no room for."""
    if not bundle_record.is_sound_path(source.path):
        raise UserError(f"{source.file}: its name cannot stand in a bundle; rename it")
    _refuse_secrets(source)
    with source.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return BundledFile(path=source.path, size=size, sha256=digest)


def _refuse_secrets(source: Source) -> None:
    """UserError for a file that holds what nobody else may see: the value of a variable
    whose name says so, or an address with a user, a password or a key."""
    secret_values = [
        value.strip().encode()
        for name, value in os.environ.items()
        if secrets.is_secret(name) and len(value.strip()) >= SHORTEST_SECRET
    ]
    has_addresses = source.file.name in WITH_ADDRESSES
    if not secret_values and not has_addresses:
        return
    text = ""
    if has_addresses:
        text = source.file.read_text(encoding="utf-8", errors="replace")
    if (
        _holds_any(source.file, secret_values)
        or secrets.hide_in_addresses(text) != text
    ):
        raise UserError(
            f"{source.file}: holds a secret, or an address with a user, a password or a key, so"
            " nothing was packed; take it out of the grid and submit again, or leave out the run"
        )


def _holds_any(path: Path, values: Sequence[bytes]) -> bool:
    """Whether a file holds one of these texts."""
    overlap = max(map(len, values), default=0)
    before = b""
    with path.open("rb") as file:
        while values and (piece := file.read(CHUNK)):
            window = before + piece
            if any(value in window for value in values):
                return True
            before = window[-overlap:]
    return False


def _describe_run(workspace: Workspace, listed_run: ListedRun) -> BundledRun:
    """What a run stands on."""
    try:
        run = RecordedRun(workspace, listed_run)
        rows = run.stages[-1].rows if run.stages else []
        start = find_first_start(rows)
        start_facts = as_mapping(start) if start else {}
        facts = {name: str(value) for name, value in run.facts().items()}
    except Damaged as error:
        return BundledRun(run=listed_run.run, axes=listed_run.axes, trouble=str(error))
    versions = start_facts.get("versions")
    return BundledRun(
        run=listed_run.run,
        axes=listed_run.axes,
        facts=facts,
        versions=dict(versions) if isinstance(versions, dict) else {},
        machine={name: start_facts[name] for name in MACHINE if name in start_facts},
    )


def _list_packages() -> list[str]:
    """What is installed here, as `pip freeze` lists it."""
    installed = {
        f"{package.metadata['Name']}=={package.version}"
        for package in importlib.metadata.distributions()
        if package.metadata["Name"]
    }
    return sorted(installed, key=str.lower)


def _write_archive(
    file: IO[bytes], bundle: BundleRecord, sources: Sequence[Source]
) -> None:
    """Writes bundle.json and the files. No time, owner or name of this machine is in it."""
    manifest = msgspec.json.format(msgspec.json.encode(bundle), indent=1) + b"\n"
    with (
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        _add_file(archive, bundle_record.NAME, io.BytesIO(manifest), len(manifest))
        for source, listed in zip(sources, bundle.files, strict=True):
            with source.file.open("rb") as content:
                checked = _CheckedReader(content)
                _add_file(archive, listed.path, checked, listed.size)
            if checked.digest != listed.sha256:
                raise ClusterError(
                    f"{source.file}: changed while it was packed; zsg export again, once its run"
                    " has ended"
                )


class _CheckedReader(io.RawIOBase):
    """A file that is digested as it is read."""

    def __init__(self, content: IO[bytes]) -> None:
        super().__init__()
        self._content = content
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes; they count for the digest."""
        piece = self._content.read(size)
        self._hash.update(piece)
        return piece

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return self._hash.hexdigest()


def _add_file(
    archive: tarfile.TarFile, path: str, content: IO[bytes] | io.RawIOBase, size: int
) -> None:
    member = tarfile.TarInfo(path)
    member.size = size
    member.mode = 0o600
    try:
        archive.addfile(member, content)  # pyright: ignore[reportArgumentType]
    except (ValueError, OSError) as error:
        raise ClusterError(
            f"{path}: cannot be packed: {error}; zsg export again, once its run has ended"
        ) from error
