"""Fetches data sets of the Hugging Face hub into the workspace, once and at an exact
commit; nothing else speaks to it.

A name is `org/name`, with a revision and a split where they are needed:
`org/name@revision:folder/split`. A split is the beginning that the names of its Parquet
files share: `main/train` stands for `main/train-00000-of-00002.parquet` and the next,
for `main/train/0000.parquet`, or for `main/train.parquet`. What was fetched is an
ordinary folder from then on: nodes need no internet. A branch or tag stays at the
commit that it was first fetched at.
"""

import contextlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.contract.folder import (
    META,
    Workspace,
    is_whole,
    lock_folder,
    publish_folder,
    read_json,
    write_json,
)
from jobs.files import ownership
from jobs.model import content
from launcher.workspace import workspaces
from zsg_core import addresses
from zsg_core.errors import ClusterError, UserError

logger = logging.getLogger(__name__)


SCHEMA = 1
BRANCH = "main"  # what the hub calls the branch that every data set has
TIMEOUT_S = 20.0

_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_NAME = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}(?:/{_PART})*))?(?::(?P<split>[\w./=-]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILE = re.compile(
    r"(?P<split>.+?)(?:-\d{5}-of-\d{5}(?:-[0-9a-f]+)?|/\d{4,5})?\.parquet"
)


@dataclass(frozen=True)
class DatasetName:
    """A data set of the hub, as a grid names it."""

    repo: str
    revision: str
    split: str | None

    @property
    def is_exact(self) -> bool:
        """Whether the revision is a commit, which never moves."""
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True)
class DatasetFile:
    """A file of a data set. `sha256` is what the hub says of large files; None of small ones."""

    path: str
    size: int | None
    sha256: str | None


def parse_name(text: str) -> DatasetName | None:
    """The data set that a text names; None for a text that can be no name of the hub."""
    match = _NAME.fullmatch(text)
    if match is None or ".." in text or "--" in match["repo"]:
        return None
    if not _is_plain(match["split"] or "split"):
        return None
    return DatasetName(match["repo"], match["revision"] or BRANCH, match["split"])


def choose_files(
    key: str, name: DatasetName, files: Sequence[DatasetFile]
) -> list[DatasetFile]:
    """The files of the split asked for, or of the only one there is. UserError names
    those there are."""
    splits = _group_by_split(files)
    if not splits:
        raise UserError(
            f"{key}: {name.repo} holds no Parquet files at {name.revision};"
            f" {name.repo}@refs/convert/parquet has those that the hub makes of most data sets"
        )
    if name.split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if name.split not in splits:
        fault = f"has no split {name.split}" if name.split else "has several splits"
        names = ", ".join(f"{name.repo}:{split}" for split in sorted(splits)[:20])
        ellipsis = ", …" if len(splits) > 20 else ""
        raise UserError(f"{key}: {name.repo} {fault}; give one of {names}{ellipsis}")
    return splits[name.split]


def _group_by_split(files: Sequence[DatasetFile]) -> dict[str, list[DatasetFile]]:
    """The files of a data set by the split that their names tell, in the order of
    `files`. What is named otherwise is left out, as is any path that could lead out of
    the folder into which it is written."""
    splits: dict[str, list[DatasetFile]] = {}
    for file in files:
        match = _FILE.fullmatch(file.path)
        if match and _is_plain(file.path):
            splits.setdefault(match["split"], []).append(file)
    return splits


class Downloads:
    """Data sets of the hub as folders of a workspace: downloads/<org>+<name>/<commit>/<split>."""

    def __init__(self, workspace: Workspace, internet: bool) -> None:
        self._workspace, self._internet = workspace, internet
        self._folders: dict[DatasetName, Path] = {}

    def folder(self, key: str, name: DatasetName) -> Path:
        """Where the data set lies, fetched if it does not yet; `key` is the setting that names it.

        UserError for what the hub does not have, or where the profile says nothing of
        an internet; ClusterError where the hub does not answer.
        """
        if name not in self._folders:
            self._folders[name] = self._find_fetched(name) or self._fetch(key, name)
        return self._folders[name]

    def _find_fetched(self, name: DatasetName) -> Path | None:
        """The folder of a split that is here and whole; None where it has to be
        fetched.

        A name that is no commit, such as `main`, means the commit to which it led when
        it was last fetched, so that a grid's data stay the same; with internet the user
        is told where it has moved since.
        """
        home = self._home(name)
        commit = name.revision if name.is_exact else _revisions(home).get(name.revision)
        folder = home / str(commit) / _split_folder(name)
        if commit is None or not is_whole(folder):
            return None
        if self._internet and not name.is_exact:
            self._tell_if_moved(name, commit)
        return folder

    def _tell_if_moved(self, name: DatasetName, commit: str) -> None:
        try:
            with _explained("", name):
                now = _ask(name.repo, name.revision)[0]
        except (UserError, ClusterError):
            logger.warning(
                f"note: {name.repo}@{name.revision} stays at {commit}; the hub does not say whether"
                " it has moved"
            )
            return
        if now != commit:
            logger.warning(
                f"note: {name.repo}@{name.revision} has moved to {now} since it was fetched; this"
                f" workspace stays at {commit}. For the newer data name {name.repo}@{now}"
            )

    def _fetch(self, key: str, name: DatasetName) -> Path:
        if not self._internet:
            raise UserError(
                f"{key}: {name.repo} is no file or folder here. If it is a data set of the Hugging"
                " Face hub, only a profile with `internet: true` may fetch it, where zsg runs;"
                " jobs then need no internet"
            )
        workspaces.create_workspace(self._workspace)
        home = self._home(name)
        ownership.make_folder(home)
        if why := _in_the_clear():
            logger.warning(f"note: HF_ENDPOINT {why}. It is asked without your token")
        with lock_folder(home), _explained(key, name):
            # Another zsg may have fetched it meanwhile, at the commit that counts from then on.
            revision = _revisions(home).get(name.revision, name.revision)
            commit, files = _ask(name.repo, revision)
            folder = home / commit / _split_folder(name)
            if not is_whole(folder):
                self._fetch_files(name, commit, choose_files(key, name, files), folder)
            if not name.is_exact:
                write_json(
                    home / "revisions.json", {**_revisions(home), name.revision: commit}
                )
        return folder

    def _fetch_files(
        self,
        name: DatasetName,
        commit: str,
        files: Sequence[DatasetFile],
        folder: Path,
    ) -> None:
        size = sum(file.size or 0 for file in files) / 1e6
        logger.info(
            f"fetching {name.repo} at {commit}: {len(files)} files, {size:.1f} MB"
        )
        # what a killed zsg had fetched is not fetched again
        partial = folder.parent / ".partial"
        if partial.is_symlink():
            raise UserError(f"{partial} is a link; zsg writes through none: remove it")
        paths = list[Path]()
        for number, file in enumerate(files, start=1):
            paths.append(_download(name.repo, commit, file, partial))
            logger.info(f"fetched {file.path} ({number} of {len(files)})")
        _refuse_damaged(name, files, paths)
        with publish_folder(folder) as draft:
            for path in paths:
                path.rename(draft / path.name)
            meta = {
                "schema": SCHEMA,
                "repo": name.repo,
                "revision": name.revision,
                "commit": commit,
                "files": [file.path for file in files],
            }
            write_json(draft / META, meta)
        shutil.rmtree(partial, ignore_errors=True)

    def _home(self, name: DatasetName) -> Path:
        return self._workspace.downloads / name.repo.replace("/", "+")


def _is_plain(path: str) -> bool:
    """Whether a relative path stays below where it begins, in any shell and on any disk."""
    return all(re.fullmatch(r"[\w=][\w.=-]*", segment) for segment in path.split("/"))


def _split_folder(name: DatasetName) -> str:
    return name.split.replace("/", "+") if name.split else "+"


def _revisions(home: Path) -> dict[str, str]:
    """The commit of every branch and tag that was fetched."""
    recorded: dict[str, Any] = read_json(home / "revisions.json") or {}
    return {
        revision: commit
        for revision, commit in recorded.items()
        if _COMMIT.fullmatch(str(commit))
    }


def _refuse_damaged(
    name: DatasetName, files: Sequence[DatasetFile], paths: Sequence[Path]
) -> None:
    """Compares what was downloaded with what the hub said of it: size and SHA-256, as
    far as it said either.

    Deletes a file that differs before it raises ClusterError, so that the next try
    loads it anew instead of finding it there.
    """
    digests = content.sha256_of(paths)
    for file, path, digest in zip(files, paths, digests, strict=True):
        is_whole = file.size in (None, path.stat().st_size)
        if not is_whole or file.sha256 not in (None, digest):
            path.unlink()
            raise ClusterError(f"{name.repo}: {file.path} came damaged; try again")


def _ask(repo: str, revision: str) -> tuple[str, list[DatasetFile]]:
    """The commit that a revision is now, and the files there."""
    info = _api().dataset_info(
        repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S
    )
    if not _COMMIT.fullmatch(str(info.sha)):
        raise ClusterError(
            f"{repo}: the hub names no commit of {revision}; is HF_ENDPOINT a hub?"
        )
    files = [
        DatasetFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or list[Any]()
    ]
    return str(info.sha), files


def _download(repo: str, commit: str, file: DatasetFile, into: Path) -> Path:
    api = _api()
    api.hf_hub_download(
        repo, file.path, repo_type="dataset", revision=commit, local_dir=into
    )
    return into / PurePosixPath(file.path)


def _api() -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi(library_name="zsg", token=False if _in_the_clear() else None)


def _in_the_clear() -> str | None:
    """Why no token is sent to the hub that the environment names; None where it may be."""
    return addresses.explain_key_refusal(os.environ.get("HF_ENDPOINT", ""))


@contextlib.contextmanager
def _explained(key: str, name: DatasetName) -> Generator[None]:
    """Turns the client's errors into ours. None of their texts is shown: what they
    quote of a request may be secret."""
    try:
        from huggingface_hub import errors
    except ModuleNotFoundError:
        raise UserError(
            f"{key}: {name.repo} is no file or folder here, and fetching it from the Hugging Face"
            " hub needs its client: pip install huggingface_hub"
        ) from None
    unanswered: type[BaseException] = errors.HfHubHTTPError.__bases__[
        0
    ]  # what the client's HTTP library raises without an answer
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise UserError(
            f"{key}: {name.repo} must be fetched, but HF_HUB_OFFLINE is set; unset it"
        ) from None
    except errors.GatedRepoError:
        raise UserError(
            f"{key}: {name.repo} is gated: agree to its terms on its page, then `hf auth login`, or"
            " set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{key}: no folder {name.repo} here, and the hub shows you no data set of this name; if"
            " it is private, `hf auth login`, or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{key}: {name.repo} has no revision {name.revision}") from None
    except errors.HFValidationError:
        raise UserError(f"{key}: {name.repo} can be no name of a data set") from None
    except errors.HfHubHTTPError as error:
        answered = getattr(error.response, "status_code", None)
        if answered in (401, 403):
            raise UserError(
                f"{key}: the hub refuses {name.repo} to you ({answered}); is HF_TOKEN still good?"
            ) from None
        raise ClusterError(
            f"{key}: {name.repo}: the hub answered {answered}; try again"
        ) from None
    except (
        unanswered,
        ConnectionError,
        errors.EntryNotFoundError,
        errors.FileMetadataError,
    ) as error:
        host = os.environ.get("HF_ENDPOINT", "the hub").rpartition("@")[2]
        raise ClusterError(
            f"{key}: {name.repo}: {host} does not answer ({type(error).__name__}); try again"
        ) from None
