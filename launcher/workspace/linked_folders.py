"""Refuses run folders that are links: jobs remove older states and snapshots there, and
never behind a link."""

from collections.abc import Iterable

from jobs.contract.folder import Workspace
from zsg_core.errors import UserError


def refuse_links(place: Workspace, runs: Iterable[str]) -> None:
    """UserError for a link in place of `runs`, of a run's folder, or of where its
    states and snapshots lie."""
    inside = [
        place.run(run) / name
        for run in dict.fromkeys(runs)
        for name in ("", "state", "snapshots")
    ]
    for path in (place.root / "runs", *inside):
        if path.is_symlink():
            raise UserError(
                f"{path} is a link; zsg removes states and snapshots in folders of its own only."
                " Move what it leads to in its place; to have all on another disk, make the"
                " workspace itself the link (--workspace)"
            )
