"""Finds the folder that a workspace's name means, and refuses one that cannot hold runs
before anything is made.

A link to a folder is followed, since clusters often link a home's folder to a larger
disk. Jobs and records name the folder as it was typed: the link may lead elsewhere on a
node. A link to nothing is refused: making its target would put runs where nobody looks.
"""

import contextlib
import logging
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from jobs.contract.folder import Workspace
from jobs.files import file_errors, locks, ownership, paths
from jobs.files.ownership import Fault
from zsg_core.errors import ClusterError, UserError, ZsgError

logger = logging.getLogger(__name__)

OTHER = "name another with --workspace or ZSG_WORKSPACE"
VARIABLE = "ZSG_WORKSPACE"
AS_YOURS = "what they put there would run as yours"
# folders of a workspace in which lies what is run
CODE = ("code", "grids", "submissions")


def find_workspace(path: Path) -> Workspace:
    """The workspace of a path, absolute, its links as they were typed. UserError for a
    path that can be no folder."""
    try:
        path = path.expanduser()
        root = paths.make_absolute(path)
        root.resolve()  # raises for links in a circle
        dangling = _find_dangling_link(path)
        is_file = root.exists() and not root.is_dir()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # too long, links in a circle, no such user, forbidden
        reason = _describe(error)
        raise UserError(f"workspace {_brief(path)}: {reason}; {OTHER}") from error
    if "%" in str(root) or not str(root).isprintable():
        raise UserError(
            f"workspace {_brief(root)}: '%' and control characters have a meaning to Slurm; use"
            " another folder"
        )
    if dangling:
        raise UserError(
            f"workspace {path}: {dangling} is a link to nothing; make its target, or {OTHER}"
        )
    if is_file:
        raise UserError(f"workspace {root}: is a file, not a folder; {OTHER}")
    return Workspace(root)


def follow_links(workspace: Workspace) -> Workspace:
    """The workspace by the folder that its links lead to here: for what keeps whole
    addresses of its own, as MLflow's store does."""
    return Workspace(workspace.root.resolve())


def _describe(error: Exception) -> str:
    """Why a path can be no folder. Whose it is where a right lacks; else the path stands
    before it."""
    if isinstance(error, PermissionError):
        return file_errors.describe_error(error)
    return str(error.strerror if isinstance(error, OSError) else error)


def _find_dangling_link(path: Path) -> Path | None:
    """The first link to nothing on a path, from its end."""
    for ancestor in (path, *path.parents):
        if ancestor.is_symlink() and not ancestor.exists():
            return ancestor
    return None


def choose_folder(path: Path | None, otherwise: str = "zsg-work") -> Path:
    """The workspace's folder that is asked for, or that of ZSG_WORKSPACE, or `otherwise`."""
    return path or Path(os.environ.get(VARIABLE) or otherwise)


def find_to_read(path: Path | None, otherwise: str = "zsg-work") -> Workspace:
    """The workspace asked for, that of ZSG_WORKSPACE, or `otherwise`, relative to the
    current folder: to be read.

    That of somebody else may be read, and that is told.
    """
    workspace = find_workspace(choose_folder(path, otherwise))
    logger.debug(f"workspace {workspace.root}")
    if note := note_of(workspace):
        logger.warning(f"note: {note}")
    return workspace


def find_to_look(path: Path | None) -> Workspace:
    """The same, for commands that only look. One that may not be written is told: what
    they find out is not kept for the next time."""
    workspace = find_to_read(path)
    if is_read_only(workspace):
        logger.warning(
            f"note: workspace {workspace.root} may only be read here: it is read anew each time"
        )
    return workspace


def is_read_only(workspace: Workspace) -> bool:
    """Whether a workspace is there and may not be written: by its mode, or its disk."""
    root = workspace.root
    return root.is_dir() and not os.access(root, os.W_OK | os.X_OK)


def find_own(path: Path | None, elsewhere: str | None = None) -> Workspace:
    """The same, for commands that write to it or run what lies there. UserError for one
    that others may write.

    `elsewhere`: the option by which a command writes to another place, which is told
    where this one may only be read.
    """
    workspace = find_workspace(choose_folder(path))
    if elsewhere and is_read_only(workspace):
        raise UserError(
            f"workspace {workspace.root} may only be read here; {elsewhere} writes elsewhere"
        )
    if objection := find_foreign_access(workspace):
        raise objection
    ownership.make_files_private(workspace.root)
    return workspace


def find_refusal(workspace: Workspace) -> ZsgError | None:
    """Why a folder can be no workspace of the user's: it cannot be read and written,
    others may write it, or its files cannot be locked."""
    folder = workspace.root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return UserError(
            f"workspace {workspace.root}: {folder} is a file, not a folder; {OTHER}"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        what = (
            "cannot be read and written"
            if folder == workspace.root
            else f"cannot be made: {folder} is not writable"
        )
        return UserError(f"workspace {workspace.root}: {what} by you; {OTHER}")
    return find_foreign_access(workspace) or locks.find_missing_locks(folder)


def create_workspace(workspace: Workspace, *, share: bool = False) -> None:
    """Makes the folder unless it is there, for its owner alone or, to `share`, for the
    owner's group.

    UserError for one that can be none of the user's. What the user has made in it and
    left open, as under umask 002, is closed, and that is told.
    """
    if objection := find_refusal(workspace):
        raise objection
    folder = workspace.root
    if folder.exists():
        if share and not ownership.is_group_workspace(folder):
            logger.warning(
                f"note: share: group counts where a workspace is made; {folder} was made before and"
                " stays yours alone"
            )
        _close(workspace)
        return
    try:
        workspace.create()
        if share:
            ownership.open_to_group(workspace.root)
    except OSError as error:
        raise ClusterError(
            f"workspace {workspace.root}: cannot be made: {error.strerror}; {OTHER}"
        ) from error
    if fault := ownership.find_fault(workspace.root):
        if not ownership.is_group_workspace(workspace.root):
            workspace.root.rmdir()
            raise UserError(
                f"workspace {workspace.root}: was made for you alone, and yet it {fault.what}: this"
                " file system keeps no owners or no modes (a disk of another system, a server that"
                f" maps users), so nobody can tell what others may change there; {OTHER}, on"
                " another disk"
            )


def find_foreign_access(workspace: Workspace) -> UserError | None:
    """Why nothing may be run from a workspace, nor be written to it: others own or may
    write what would be run.

    None for one that is not there yet, if nobody else could put another in its place.
    """
    root = workspace.root
    above = ownership.find_open_parent(root)
    if above and above.by_all:
        end = f"{above.mend}, or {OTHER}" if above.mend else OTHER
        return UserError(
            f"workspace {root}: {above}, so that others can put another folder in its place, and"
            f" {AS_YOURS}: {end}"
        )
    if not root.is_dir():
        return None
    if ownership.is_group_workspace(root):
        return _find_group_fault(root)
    fault = ownership.find_fault(root)
    if fault:
        end = f"{fault.mend}, or {OTHER}" if fault.mend else OTHER
        return UserError(f"workspace {root}: {fault.what}, and {AS_YOURS}: {end}")
    return _find_foreign_files(root)


def _find_group_fault(root: Path) -> UserError | None:
    """Why a group's workspace is none of this user's: what lies in it is the group's."""
    if not ownership.is_member(root):
        return UserError(
            f"workspace {root}: is that of a group which you are not in; {OTHER}"
        )
    try:
        list(list_faults(root))
    except PermissionError as error:
        return _explain_unreadable(root, error)
    return None


def _find_foreign_files(root: Path) -> UserError | None:
    """Why a workspace of one's own may not be used: somebody has put files there."""
    try:
        strange = [fault for fault in list_faults(root) if not fault.mend]
    except PermissionError as error:
        return _explain_unreadable(root, error)
    if not strange:
        return None
    count = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
    return UserError(
        f"workspace {root}: {strange[0]}{count}: somebody has put it there, and {AS_YOURS}. Look at"
        f" it, then rm -r {shlex.quote(str(strange[0].path))}, or {OTHER}"
    )


def _explain_unreadable(root: Path, error: PermissionError) -> UserError:
    return UserError(f"workspace {root}: {file_errors.describe_error(error)}; {OTHER}")


def note_of(workspace: Workspace) -> str | None:
    """What whoever only reads a workspace should know of it: that others may have
    written what is shown."""
    root = workspace.root
    if not root.is_dir() or ownership.is_group_workspace(root):
        return None
    fault = ownership.find_fault(root)
    return (
        f"workspace {root} {fault.what}: it is read, and nothing in it is run"
        if fault
        else None
    )


def list_faults(root: Path) -> Iterator[Fault]:
    """What others own or may write of what lies right in a workspace, and in the
    folders of code and grids."""
    folders = [root, *(root / kind for kind in CODE)]
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in folder.iterdir():
                if fault := ownership.find_fault(path):
                    yield fault


def _close(workspace: Workspace) -> None:
    """Takes from others the right to write what the user has made and left open to them."""
    if ownership.is_group_workspace(workspace.root):
        return
    closed = list[Fault]()
    for fault in list_faults(workspace.root):
        if fault.mend:
            fault.path.chmod(fault.path.stat().st_mode & ~ownership.NO_WRITE_BY_OTHERS)
            closed.append(fault)
    if closed:
        names = ", ".join(
            str(fault.path.relative_to(workspace.root)) for fault in closed[:8]
        )
        more = f" and {len(closed) - 8} more" if len(closed) > 8 else ""
        logger.warning(
            f"note: {names}{more} of workspace {workspace.root}"
            f" {closed[0].what.replace('may', 'could', 1)}; now you alone may write there (chmod"
            " go-w)"
        )


def _brief(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= 100 else f"{text[:60]}… ({len(text)} characters)")
