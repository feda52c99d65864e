"""Removes what zsg has made, by the names that zsg gives, and follows no link, whoever
plants it and when.

A folder of a workspace may hold what others put there: files of the user's, or links to
folders outside. So everything that is removed is named by a handle of the folder that
it lies in, and each folder is opened by a handle of the one above it, never as a link.
A link that takes a folder's place between the look and the removal is met as what it
is. A folder with a name in it that zsg does not give stays as it is, and whoever asked
is told why.
"""

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Generator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from jobs.contract.folder import COMMIT, META, NOTES
from jobs.contract.node_check import RANKS, REPORT, TEXT, TRIALS
from jobs.contract.prepared import TARGET_IDS
from jobs.files import file_errors
from jobs.files.model_file_names import MADE_BESIDE_WEIGHTS

# The names that zsg, or an engine that it calls, gives within a folder that is removed as a whole.
IN_ARRANGEMENT = ("ids", "places.npy", TARGET_IDS, META, COMMIT)
IN_SCORES = ("scores.jsonl", META, COMMIT)
IN_TOKENS = ("ids.npy", "spans.npy", "ends.npy", "texts.npy", META, COMMIT)
IN_FIRST_LOSSES = ("losses.npy", META, COMMIT)
IN_RECORDS = (
    *("*.arrow", "tasks.json", "dataset_info.json", "state.json", "made-*"),
    *(META, COMMIT),
)
IN_REPLIES = ("replies.jsonl", "batches.json")
# of a model's own answers, and of scores, while they are made
IN_UNFINISHED = (
    *("answers.jsonl", "cut.jsonl", "batches.json"),
    *("blocks.jsonl", "since.jsonl", "how.json"),
)
IN_CORPUS = ("train.npy", "test.npy", "shots.npy", NOTES, META, COMMIT)
IN_EMBEDDING = ("vectors.npy", "texts.npy", META, COMMIT)
# while it is made
IN_UNFINISHED_EMBEDDING = ("vectors.npy", "left.npy", "unfinished.npy", "done")
IN_CHAT_TRIAL = (META, COMMIT)
IN_CODE = ("jobs", "zsg_core", "*.patch", COMMIT)
IN_STATE = ("state.json", "ranks", "latest", "zero_to_fp32.py", "ds_to_universal.py")
IN_WEIGHTS = (*MADE_BESIDE_WEIGHTS, "report-*.json", META, COMMIT)
IN_CHECK = (
    *("job.json", "attempt.json", "exit.json", "heartbeat.json", "rendezvous.json"),
    "past_attempts.jsonl",
    *("cancel.json", "journal", "lock", "log.txt", RANKS, REPORT, TEXT, TRIALS),
)
# of a run, and of a job beside the runs
IN_JOB = (
    *("job.json", "attempt.json", "exit.json", "cancel.json", "heartbeat.json"),
    *("rendezvous.json", "past_attempts.jsonl", "journal", "lock", "log.txt"),
)
IN_LOOK = (*IN_JOB, "decision.json")
# with the lists of the items of its test set and of suites
IN_RUN = (
    *IN_JOB,
    *("test_set.json", "*-*.json", "delivery", "state", "snapshots", "weights"),
    *("users", "queue", "answers", "representations"),
)
IN_GRID = (
    *("grid.yaml", "grid.json", "delivery.lock", "delivery.log", "submit.log"),
    "report",
    "report-with-*",
)
IN_SUBMISSION = (
    "lock",
    "*_log.out",
    "*_log.err",
    "log.out",
    "*.pkl",
    "*submission.sh",
    ".submission_file_*.sh",
    ".*.pkl",
)
# What a write that died leaves beside a file of ours, and what a network file system
# makes of an open file.
_PASSING = re.compile(r"\..+\.[0-9a-f]{8}|\.nfs[0-9a-f]+")
STEP = re.compile(r"0|[1-9][0-9]{0,17}")
NEEDED = "it is needed"
MOST_NAMED = 3


class Linked(OSError):
    """A folder on the way is a link, or none at all."""


@contextlib.contextmanager
def open_folder(root: Path, folder: Path) -> Generator[int]:
    """A handle of a folder in `root`, which may be a link itself; nothing below it may be.

    Raises Linked, with the path in question, and FileNotFoundError.
    """
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        at = root
        for name in folder.relative_to(root).parts:
            at = at / name
            inner = _open_in(handle, name, at)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _open_in(handle: int, name: str, at: Path) -> int:
    if name in ("..", "."):
        raise Linked(f"{at} leads out of its folder")
    try:
        return os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle
        )
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Linked(
                f"{at} is a link or no folder; zsg removes nothing behind it"
            ) from None
        error.filename = str(at)
        raise


def names_in(handle: int) -> list[str]:
    """The names in an opened folder, sorted."""
    with os.scandir(handle) as entries:
        return sorted(entry.name for entry in entries)


def list_names(root: Path, folder: Path) -> list[str]:
    """The names in a folder of the workspace, sorted, but for those that are hidden;
    none where it is a link, or none is there."""
    try:
        with open_folder(root, folder) as handle:
            return [name for name in names_in(handle) if not name.startswith(".")]
    except (FileNotFoundError, Linked):
        return []


def name_gone(folder: Path) -> Path:
    """The name under which a folder is being removed."""
    return folder.with_name(f".{folder.name}.gone")


def name_unfinished(folder: Path) -> Path:
    """The folder in which a job keeps what it has of answers, scores or vectors under
    way, which the next attempt carries on."""
    return folder.with_name(f".{folder.name}.draft")


def discard_folder(
    root: Path,
    folder: Path,
    names: Sequence[str] | None,
    is_wanted: Callable[[], bool] = lambda: False,
) -> str:
    """Removes a folder that at no moment is there in part under its name; "" if it is
    gone, else why it stays.

    `root`: the workspace. `names`: patterns of all that may lie in the folder, None for
    whatever lies there. `is_wanted` is asked when the folder has lost its name: by one
    who began to read it before, it is put back.
    """
    try:
        with open_folder(root, folder.parent) as parent:
            return _discard(parent, folder, names, is_wanted)
    except FileNotFoundError:
        return ""
    except Linked as error:
        return str(error)
    except PermissionError as error:  # another member's, in a group's workspace
        error.filename = str(folder)
        return file_errors.describe_error(error)


def _discard(
    parent: int,
    folder: Path,
    names: Sequence[str] | None,
    is_wanted: Callable[[], bool],
) -> str:
    name, gone = folder.name, name_gone(folder).name
    shutil.rmtree(gone, ignore_errors=True, dir_fd=parent)
    if reason := _why_it_stays(parent, folder, names):
        return reason
    os.rename(name, gone, src_dir_fd=parent, dst_dir_fd=parent)
    is_to_stay = True  # also where that cannot be told
    try:
        is_to_stay = is_wanted()
    finally:
        if is_to_stay:
            os.rename(gone, name, src_dir_fd=parent, dst_dir_fd=parent)
    if is_to_stay:
        return NEEDED
    shutil.rmtree(gone, ignore_errors=True, dir_fd=parent)
    return ""


def why_it_stays(root: Path, folder: Path, names: Sequence[str] | None) -> str:
    """Why `discard_folder` would leave a folder where it is; "" if it would not, or if
    there is none."""
    try:
        with open_folder(root, folder.parent) as parent:
            return _why_it_stays(parent, folder, names)
    except FileNotFoundError:
        return ""
    except Linked as error:
        return str(error)
    except PermissionError as error:  # another member's, in a group's workspace
        error.filename = str(folder)
        return file_errors.describe_error(error)


def _why_it_stays(parent: int, folder: Path, names: Sequence[str] | None) -> str:
    handle = _open_in(parent, folder.name, folder)
    try:
        names_there = names_in(handle)
    finally:
        os.close(handle)
    if names is None:
        return ""
    strangers = sorted(name for name in names_there if not _is_ours(name, names))
    if not strangers:
        return ""
    ending = (
        f" and {len(strangers) - MOST_NAMED} more"
        if len(strangers) > MOST_NAMED
        else ""
    )
    return (
        f"{folder} holds {', '.join(strangers[:MOST_NAMED])}{ending}, which zsg did not write;"
        " move it elsewhere"
    )


def _is_ours(name: str, names: Sequence[str]) -> bool:
    return _PASSING.fullmatch(name) is not None or any(
        fnmatchcase(name, pattern) for pattern in names
    )


def remove_file(root: Path, path: Path) -> str:
    """Removes a file, or a link in its place and never what it leads to; "" if it is
    gone, else why it stays."""
    try:
        with open_folder(root, path.parent) as parent:
            os.unlink(path.name, dir_fd=parent)
    except FileNotFoundError:
        return ""
    except Linked as error:
        return str(error)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def remove_drafts(root: Path, folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Removes what in a folder has a name of that pattern, files and folders; why some stay."""
    try:
        with open_folder(root, folder) as handle:
            for name in names_in(handle):
                if pattern.fullmatch(name):
                    remove_in(handle, name)
    except FileNotFoundError:
        pass
    except Linked as error:
        return [str(error)]
    return []


def remove_in(handle: int, name: str) -> None:
    """Removes a file or a folder of an opened folder; a link is left. What cannot be
    removed stays without a word."""
    with contextlib.suppress(OSError):
        kind = os.lstat(name, dir_fd=handle).st_mode
        if stat.S_ISDIR(kind):
            shutil.rmtree(name, ignore_errors=True, dir_fd=handle)
        elif stat.S_ISREG(kind):
            os.unlink(name, dir_fd=handle)


def remove_empty(root: Path, folder: Path) -> None:
    """Removes a folder that is empty by now; any other stays."""
    with contextlib.suppress(OSError), open_folder(root, folder.parent) as parent:
        os.rmdir(folder.name, dir_fd=parent)


def list_step_folders(root: Path, folder: Path) -> list[Path]:
    """The folders of a folder whose names are steps, none of them a link nor behind
    one; by their numbers."""
    try:
        with open_folder(root, folder) as handle:
            named = [name for name in names_in(handle) if STEP.fullmatch(name)]
            real = [
                name
                for name in named
                if stat.S_ISDIR(os.lstat(name, dir_fd=handle).st_mode)
            ]
    except (FileNotFoundError, Linked):
        return []
    return [folder / name for name in sorted(real, key=int)]
