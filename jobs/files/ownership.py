"""Says whose a file or folder is and who else may write it; makes folders and locks
that are their owner's alone.

What others may write must not become code of the user's: a workspace holds the packages
that jobs import, pickles of submitit and saved states. Trusted are the user and root,
who may do everything anyway. A group counts as the user's own if nobody else is in it,
as on systems that give every user one (and umask 002). A folder of /tmp's kind (sticky)
lets nobody replace what is another's.

A group's workspace is made on request (a profile's `share: group`). Its folders have
mode 2770, by which `make_folder` knows that what it makes below is for the group, too.
The first ones are sticky: nobody but who made the workspace can replace in them what is
another's. What is run is never taken from another member.
"""

import grp
import os
import pwd
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jobs.files import paths

PRIVATE, SHARED = 0o700, 0o2770
STICKY_SHARED = 0o3770  # of a group's workspace, and of the folders right in it
NO_WRITE_BY_OTHERS = 0o022  # of a umask
_TRIES = 100  # at a file that others make and remove
_GROUP_MAY = 0o060  # read and write
TOP_FOLDERS = (
    "runs",
    "prepare",
    "evaluate",
    "canary",
    "looks",
    "checks",
    "records",
    "replies",
    "corpora",
    "embeddings",
    "scores",
    "arrangements",
    "first_losses",
    "tokens",
    "bases",
    "model-proofs",
    "chat-trials",
    "code",
    "submissions",
    "downloads",
    "grids",
)
_OTHER_ACL = "system.posix_acl_access"


@dataclass(frozen=True)
class Fault:
    """Why others may have written, or may write, a file or folder. `mend`: the command
    by which its owner ends that, None where it is not the user's.
    """

    path: Path
    what: str
    mend: str | None = None

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it that are missing, each for its owner alone,
    whatever the umask.

    Below a folder of a group's workspace each is the group's, too. One that is there
    stays as it is. Raises FileExistsError where a file has its place.
    """
    missing = _list_missing(path)
    if missing and is_shared(missing[-1].parent):
        for folder in reversed(missing):
            folder.mkdir(mode=PRIVATE, exist_ok=True)
            # another member was quicker, and it is that one's
            with suppress(PermissionError):
                folder.chmod(SHARED)
        return
    _make_folders(missing, path)


def make_private_folder(path: Path) -> None:
    """The same, for the owner alone whatever it lies in."""
    _make_folders(_list_missing(path), path)


def _list_missing(path: Path) -> list[Path]:
    """The folders of a path that are not there, the last first."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    return missing


def _make_folders(missing: list[Path], path: Path) -> None:
    for folder in reversed(missing):
        folder.mkdir(mode=PRIVATE, exist_ok=True)  # another process may be quicker
    if not missing and not path.is_dir():
        path.mkdir(mode=PRIVATE)  # raises, and says why


def is_shared(folder: Path) -> bool:
    """Whether a folder is one of a group's workspace: its mode says so."""
    return stat.S_IMODE(folder.stat().st_mode) in (SHARED, STICKY_SHARED)


def is_group_workspace(root: Path) -> bool:
    """Whether a workspace was made for a group: `mkdir` gives no folder such a mode,
    whatever the umask."""
    return root.is_dir() and stat.S_IMODE(root.stat().st_mode) == STICKY_SHARED


def find_group_name(root: Path) -> str:
    """The name of the group whose workspace this is."""
    return _name_group(root.stat().st_gid)


def is_member(root: Path) -> bool:
    """Whether the user is in the group whose workspace this is."""
    gid = root.stat().st_gid
    return os.geteuid() == 0 or gid in (os.getegid(), *os.getgroups())


def open_to_group(root: Path) -> None:
    """Opens a workspace that was just made to its group, with the folders that
    everybody in it makes things in."""
    root.chmod(STICKY_SHARED)
    for name in TOP_FOLDERS:
        (root / name).mkdir(mode=PRIVATE, exist_ok=True)  # by another submit
        (root / name).chmod(STICKY_SHARED)


def share_file(path: Path) -> None:
    """Opens a file of a group's workspace to the group, as the umask would: safetensors
    and sqlite make theirs for the owner alone, or for reading only."""
    if is_shared(path.parent) and path.is_file() and not path.is_symlink():
        path.chmod(stat.S_IMODE(path.stat().st_mode) | _GROUP_MAY)


def open_or_make(path: Path, flags: int, mode: int) -> int:
    """A descriptor of a file, which is made unless it is there.

    Not by O_CREAT alone: in a sticky folder that a group may write, Linux refuses that
    for another member's file, whatever its mode (fs.protected_regular).
    """
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            return os.open(path, flags | os.O_CLOEXEC)
        made = flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with suppress(FileExistsError):  # another process was quicker
            return os.open(path, made, mode)
    return os.open(path, flags | os.O_CLOEXEC)  # a link to nothing


def open_lock(path: Path) -> int:
    """A descriptor of a file to be locked, which is made unless it is there.

    Only who may open a file can lock it, and reading is enough: whoever else might
    could hold the user's work up for ever.
    """
    shared = is_shared(path.parent)
    handle = open_or_make(path, os.O_RDWR | os.O_NOFOLLOW, 0o660 if shared else 0o600)
    with suppress(PermissionError):  # another member's, in a group's workspace
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if (lock_mode := (mode | 0o660) & ~0o007 if shared else mode & ~0o077) != mode:
            os.fchmod(handle, lock_mode)
    return handle


def forbid_writes_by_others() -> None:
    """From now on this process and what it starts makes nothing that others may write."""
    os.umask(os.umask(0o077) | NO_WRITE_BY_OTHERS)


def make_files_private(folder: Path) -> None:
    """From now on what this process makes is for the owner alone; in a group's
    workspace for the group."""
    os.umask(0o007 if folder.is_dir() and is_shared(folder) else 0o077)


def is_trusted(uid: int) -> bool:
    """Whether what this user may do need not be guarded against: the user's own doing,
    or root's."""
    return uid in (os.geteuid(), 0)


def find_user_name(uid: int) -> str:
    """A user's name, or the number where nobody knows one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def find_login_name() -> str | None:
    """The name of this process's own user; None where nobody knows one, as in a
    container, or while a directory service is away."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def find_fault(path: Path) -> Fault | None:
    """Why others may write a file or folder, or a link's own target; None if nobody
    else may, or it is not there."""
    try:
        link_status, target_status = path.lstat(), path.stat()
    except FileNotFoundError:
        return None
    for status in (link_status, target_status):
        if not is_trusted(status.st_uid):
            return Fault(
                path, f"belongs to {find_user_name(status.st_uid)}, not to you"
            )
    writers = _find_writers(path, target_status)
    if writers is None:
        return None
    return Fault(
        path, f"may be written by {writers}", f"chmod go-w {shlex.quote(str(path))}"
    )


def find_fault_on_path(root: Path, path: Path, *, is_run: bool = True) -> Fault | None:
    """The first fault of a workspace, of a path in it and of the folders between; None
    if none has any.

    In a group's workspace the folders on the way are the group's, and so may the last
    be, unless it `is_run`: holds code or pickles.
    """
    folders = list_folders_to(root, path)
    group = is_group_workspace(root)
    for folder in folders:
        if fault := find_fault(folder):
            may_be_groups = group and (folder != path or not is_run)
            if not (may_be_groups and _is_for(folder, root)):
                return fault
    return None


def _is_for(folder: Path, root: Path) -> bool:
    """Whether a folder is for the group whose workspace the root is."""
    return is_shared(folder) and folder.stat().st_gid == root.stat().st_gid


def find_fault_within(folder: Path) -> Fault | None:
    """The first fault of a folder and all that is in it. A link in it is one: it leads
    to who knows whose."""
    if fault := find_fault(folder):
        return fault
    for path in _walk_folder(folder):
        if path.is_symlink():
            return Fault(path, "is a link")
        if fault := find_fault(path):
            return fault
    return None


def list_folders_to(root: Path, path: Path) -> list[Path]:
    """The folders from a root to a path below it, both included."""
    names = path.relative_to(root).parts
    return [root.joinpath(*names[:count]) for count in range(len(names) + 1)]


@dataclass(frozen=True)
class OpenParent:
    """Who could put another folder in the place of one. `by_all`: anybody could, not
    only a group or a colleague. `mend`: the command by which its owner ends that, None
    where nothing does."""

    path: Path
    what: str
    by_all: bool
    mend: str | None = None

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


def find_open_parent(folder: Path) -> OpenParent | None:
    """The folder above a folder in which others could rename it and put their own in
    its place, or the link on the way that others could lead elsewhere; None if none is.

    Of several that which is open to most.
    """
    passed = list(dict.fromkeys(paths.list_passed(folder)))
    target = passed[-1]
    open_parents = [
        open_parent
        for parent in reversed(passed)
        if parent != target and (open_parent := _judge_parent(parent))
    ]
    return next(
        (open_parent for open_parent in open_parents if open_parent.by_all),
        open_parents[0] if open_parents else None,
    )


def _judge_parent(parent: Path) -> OpenParent | None:
    try:
        status = parent.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        return _judge_link(parent, status.st_uid)
    is_sticky = bool(status.st_mode & stat.S_ISVTX)
    writers = None if is_sticky else _find_writers(parent, status)
    by_all = writers == "everybody"
    if _is_strangers(status.st_uid):
        writers_note = f" and may be written by {writers}" if writers else ""
        return OpenParent(
            parent, f"belongs to {find_user_name(status.st_uid)}{writers_note}", by_all
        )
    mend = f"chmod o-w {shlex.quote(str(parent))}"
    return (
        OpenParent(parent, f"may be written by {writers}", by_all, mend)
        if writers
        else None
    )


def _judge_link(link: Path, uid: int) -> OpenParent | None:
    """Whoever owns a link leads it where they like. A stranger's that lies where anybody
    may make one, as in /tmp, waits for those who pass."""
    if not _is_strangers(uid):
        return None
    by_all = bool(link.parent.stat().st_mode & stat.S_IWOTH)
    return OpenParent(link, f"is a link of {find_user_name(uid)}'s", by_all)


def _is_strangers(uid: int) -> bool:
    return not is_trusted(uid) and not _is_unmapped(uid)


def find_private_cache(path: Path) -> Path:
    """A folder for what is compiled, and later loaded as code: `path` if it is, or can
    be made, the user's alone.

    Another one, made anew for this process, where somebody else has made it, or might replace it.
    """
    if all(find_fault(folder) is None for folder in _list_own_folders(path)):
        with suppress(OSError):
            make_folder(path)
            if all(
                find_fault(folder) is None for folder in _list_own_folders(path)
            ) and not _is_replaceable(path):
                return path
    return Path(tempfile.mkdtemp(prefix="zsg-cache-"))


def _list_own_folders(path: Path) -> list[Path]:
    """A folder and those above it, up to the first that is not the user's own: a home,
    or what is in /tmp."""
    folders = [path]
    for parent in path.parents:
        if parent.exists() and (
            parent.stat().st_uid != os.geteuid() or parent.stat().st_mode & stat.S_ISVTX
        ):
            break
        folders.append(parent)
    return folders


def _is_replaceable(path: Path) -> bool:
    """Whether anybody could put another folder in the place of one, or has made one on
    the way to it.

    A folder that another user has made where everybody may make one, as in /tmp, waits
    for those who pass. (That of a colleague, who has it from the machine's
    administrator, is left to the user's judgement.)
    """
    whole = path.resolve()
    open_parent = find_open_parent(whole)
    return (open_parent is not None and open_parent.by_all) or any(
        _is_put_in_the_way(parent) for parent in whole.parents
    )


def _is_put_in_the_way(folder: Path) -> bool:
    return _is_strangers(folder.stat().st_uid) and bool(
        folder.parent.stat().st_mode & stat.S_IWOTH
    )


def _find_writers(path: Path, status: os.stat_result) -> str | None:
    """Who may write beside the owner, in words; None if nobody may."""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    if not status.st_mode & stat.S_IWGRP:
        return None
    # then the group's bits are the most that any user named in it may do
    if _has_acl(path):
        return "those whom its access list names"
    return (
        None if _is_own_group(status.st_gid) else f"group {_name_group(status.st_gid)}"
    )


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, _OTHER_ACL))
    except OSError:
        return False


@cache
def _is_own_group(gid: int) -> bool:
    """Whether nobody but the user is in a group, as far as the machine tells."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    if (group.gr_name, gid) != (user.pw_name, user.pw_gid) or set(group.gr_mem) - {
        user.pw_name
    }:
        return False
    return not any(
        account.pw_gid == gid and account.pw_uid not in (user.pw_uid, 0)
        for account in pwd.getpwall()
    )


def find_own_group() -> int | None:
    """The number of the user's own group, in which nobody else is; None if there is none."""
    with suppress(KeyError):
        gid = pwd.getpwuid(os.geteuid()).pw_gid
        return gid if _is_own_group(gid) else None
    return None


def _name_group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@cache
def _read_overflow_uid() -> int | None:
    """As whose the files of users without a name in a container are shown; None outside of one."""
    try:
        mapped = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
        if mapped == ["0", "0", "4294967295"]:
            return None
        return int(Path("/proc/sys/fs/overflowuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _is_unmapped(uid: int) -> bool:
    """Whether a folder of the machine's shows no owner, since a container does not know
    its users."""
    return _read_overflow_uid() is not None and uid == _read_overflow_uid()


def _walk_folder(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as listing:
        entries = list(listing)
    for entry in entries:
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_folder(Path(entry.path))
