"""Finds the folder that a workspace's name means, and refuses one that cannot hold runs before anything is made.

A link to a folder is followed, since clusters often link a home's folder to a larger disk; the folder itself is
what jobs and records name. A link to nothing is refused: making its target would put runs where nobody looks.
"""

import os
from pathlib import Path

from jobs.folder import Workspace
from zsg_core.errors import ClusterError, UserError

OTHER = "name another with --workspace or ZSG_WORKSPACE"


def find(path: Path) -> Workspace:
    """The workspace of a path, absolute and without links. UserError for a path that can be no folder."""
    try:
        path = path.expanduser()
        root = path.resolve()
        dangling = [part for part in (path, *path.parents) if part.is_symlink() and not part.exists()]
        is_other = root.exists() and not root.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, no such user, forbidden
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"workspace {_brief(path)}: {reason}; {OTHER}") from error
    if "%" in str(root) or not str(root).isprintable():
        raise UserError(
            f"workspace {_brief(root)}: '%' and control characters have a meaning to Slurm; use another folder"
        )
    if dangling:
        raise UserError(f"workspace {path}: {dangling[0]} is a link to nothing; make its target, or {OTHER}")
    if is_other:
        raise UserError(f"workspace {root}: is a file, not a folder; {OTHER}")
    return Workspace(root)


def create(workspace: Workspace) -> None:
    """Makes the folder unless it is there. UserError for one that may not be read and written."""
    place = workspace.root
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"workspace {workspace.root}: {place} is a file, not a folder; {OTHER}")
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        what = "cannot be read and written" if place == workspace.root else f"cannot be made: {place} is not writable"
        raise UserError(f"workspace {workspace.root}: {what} by you; {OTHER}")
    try:
        workspace.create()
    except OSError as error:
        raise ClusterError(f"workspace {workspace.root}: cannot be made: {error.strerror}; {OTHER}") from error


def _brief(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= 100 else f"{text[:60]}… ({len(text)} characters)")
