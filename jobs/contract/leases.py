"""Lets one evaluator at a time work at a snapshot: a lease is a file in the run's
`queue/`, kept fresh while it works.

<run>/queue/<step>.<suite>.lease   one LeaseRecord

Created by a link, which one of several can make. Its holder touches it every ten
seconds; one that has not been touched for a minute, by the clock of the file system
that both see, is taken away by who wants the place. A holder that was only asleep finds
another's nonce before it writes, and writes nothing.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jobs.contract import attempt as attempts
from jobs.contract import removal
from jobs.contract.records import read_record, write_record
from jobs.files import ownership

EVERY_S = 10.0
LOST_S = 60.0
FOLDER = "queue"


class Lost(Exception):
    """Another evaluator has taken the lease over; whoever sees this must not write."""


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who evaluates a snapshot: the job `holder`, on `host`, which writes the file
    `journal` of the run's journals and takes the metrics `keys`. `nonce`: of this
    claim. `since`: ms since the epoch."""

    nonce: str
    holder: str
    host: str
    journal: str
    keys: list[str]
    since: int


@dataclass(frozen=True)
class Lease:
    """One that is held. `before`: the leases that were taken away for it, whose writers
    are to be cut."""

    path: Path
    nonce: str
    before: tuple[LeaseRecord, ...] = ()

    def check(self) -> None:
        """Raises Lost if it is another's by now."""
        record = _read(self.path)
        if record is None or record.nonce != self.nonce:
            raise Lost(f"{self.path} is another evaluator's")

    def touch(self) -> None:
        """Shows that its holder lives."""
        with contextlib.suppress(Lost, OSError):
            self.check()
            os.utime(self.path)

    def forget(self) -> None:
        """The writers of `before` have been cut: nobody need be told of them again."""
        for grave in _graves(self.path):
            grave.unlink(missing_ok=True)

    def release(self) -> None:
        """Lets it go, unless it is another's."""
        with contextlib.suppress(Lost, FileNotFoundError):
            self.check()
            self.path.unlink()


def path_of(run: Path, step: int, suite: str) -> Path:
    """Where the lease of a step's snapshot lies while somebody works at it."""
    return run / FOLDER / f"{step}.{suite}.lease"


def is_leased(run: Path, step: int) -> bool:
    """Whether somebody who gives signs of life evaluates the snapshot of a step."""
    return any(
        _age_s(path) <= LOST_S for path in (run / FOLDER).glob(f"{step}.*.lease")
    )


def claim_lease(
    path: Path, holder: str, journal: str, keys: Sequence[str], lost_s: float = LOST_S
) -> Lease | None:
    """The lease, if nobody holds it or its holder has been silent for `lost_s` seconds.

    `holder`, `journal` and `keys` are for others to read: the job, the file of the
    run's journal that it writes, and the metrics that it takes.
    """
    ownership.make_folder(path.parent)
    if path.exists() and not _bury(path, lost_s):
        return None
    nonce = uuid.uuid4().hex
    record = LeaseRecord(
        nonce=nonce,
        holder=holder,
        host=attempts.get_node_name(),
        journal=journal,
        keys=list(keys),
        since=attempts.now_ms(),
    )
    draft = path.with_name(f".{path.name}.{nonce[:8]}")
    write_record(draft, record)
    try:
        os.link(draft, path)
    except FileExistsError:
        return None
    finally:
        draft.unlink(missing_ok=True)
    buried = [_read(grave) for grave in _graves(path)]
    before = [record for record in buried if record and record.nonce != nonce]
    return Lease(path, nonce, tuple(before))


def sweep_leases(run: Path, is_taken: Callable[[int, Sequence[str]], bool]) -> None:
    """Removes the leases of work that was done, whose holders were killed before they
    let them go."""
    for path in (run / FOLDER).glob("[0-9]*.*.lease"):
        step = path.name.partition(".")[0]
        record = _read(path) if removal.STEP.fullmatch(step) else None
        if record and is_taken(int(step), record.keys):
            removal.remove_file(run.parent.parent, path)


def _bury(path: Path, lost_s: float) -> bool:
    """Takes a lease away that nobody keeps fresh; whether the place is free now.

    It lies in a grave until who gets the place has cut its writer, or is dead too and
    the next one does.
    """
    record = _read(path)
    if record is None or _age_s(path) <= lost_s:
        return False
    grave = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.gone")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return True  # another was quicker
    moved = _read(grave)
    if moved and moved.nonce == record.nonce:
        return True
    # a living one, which has come between two lines: it is put back
    with contextlib.suppress(FileExistsError):
        os.link(grave, path)
    grave.unlink()
    return False


def _graves(path: Path) -> list[Path]:
    return list(path.parent.glob(f".{path.name}.*.gone"))


def _read(path: Path) -> LeaseRecord | None:
    return read_record(path, LeaseRecord)


def _age_s(path: Path) -> float:
    """For how long nobody has touched it, by the clock of its own file system."""
    clock = path.with_name(".clock")
    clock.touch()
    try:
        return clock.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


class Keeper:
    """Touches the lease that is held, from a thread of its own."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self.held: Lease | None = None
        self._every_s, self._stopped = every_s, threading.Event()
        threading.Thread(target=self._run, name="lease", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            lease = self.held
            if lease:
                lease.touch()
