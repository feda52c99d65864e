"""Refuses run folders that are links: jobs remove older states and snapshots there, and
never behind a link."""

import os
import stat
from collections.abc import Iterable, Iterator

from jobs.contract.folder import Workspace
from zsg_core.errors import UserError


def refuse_links(place: Workspace, runs: Iterable[str]) -> None:
    """UserError for a link in place of `runs`, of a run's folder, or of where its
    states and snapshots lie."""
    for path in _list_links(str(place.root / "runs"), runs):
        raise UserError(
            f"{path} is a link; zsg removes states and snapshots in folders of its own only."
            " Move what it leads to in its place; to have all on another disk, make the"
            " workspace itself the link (--workspace)"
        )


def _list_links(folder: str, runs: Iterable[str]) -> Iterator[str]:
    """The links among the folder of all runs, theirs, and those in which something is
    removed. Paths are texts, since there are thousands."""
    if _is_link(folder):
        yield folder
    for run in dict.fromkeys(runs):
        path = f"{folder}/{run}"
        if _is_link(path) is None:
            continue
        inside = (path, f"{path}/state", f"{path}/snapshots")
        yield from filter(_is_link, inside)


def _is_link(path: str) -> bool | None:
    """Whether a path is a link; None where there is nothing."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
