"""Keeps the weights of a train job after chosen steps: as folders that load, while
training goes on.

<run>/snapshots/<step>/   see jobs.contract.snapshots
<run>/queue/<step>.<suite>.lease   somebody evaluates that snapshot: see jobs.contract.leases

A snapshot that evaluators still need stays, whatever the rule says, and goes once they
have what they want of it.

What is committed stays as it is: a resumed run that comes by again compares digests,
and journals it if they differ. The journal says which snapshots there are, by events,
and by `speed/snapshot_stall_s` for how many seconds training stood still.
"""

import logging
import queue
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract import journal as journals
from jobs.contract import removal
from jobs.contract import snapshots as records
from jobs.contract.attempt import Attempt
from jobs.contract.evaluations import find_needed_steps, is_needed
from jobs.contract.folder import Damaged, is_whole
from jobs.contract.journal import SPEED
from jobs.contract.journal_rows import (
    Event,
    Number,
    SnapshotDiffers,
    SnapshotRemoved,
    SnapshotWritten,
    find_events,
)
from jobs.contract.snapshots import SnapshotMeta, StageEndMeta
from jobs.runtime.ranks import Ranks
from jobs.runtime.together import share_first
from jobs.training.weight_folders import Base, WeightFolders, Written
from zsg_core.errors import ClusterError
from zsg_core.training.snapshots import Rule, select_kept_steps

logger = logging.getLogger(__name__)

# of an attempt, by its nonce
_DRAFT = re.compile(r"\.[0-9]+\.([0-9a-f]{32}|[0-9a-f]{8}|gone)")
_DRAFT_OF_WEIGHTS = re.compile(r"\.weights\.([0-9a-f]{32}|[0-9a-f]{8}|gone)")

# journals values of metrics, or an event, of a step
Note = Callable[[int, Event | dict[str, float]], None]


@dataclass(frozen=True)
class Told:
    """What has been journalled of a snapshot."""

    digest: str
    probe_loss: Number | None


class Snapshots:
    """The snapshots of one run, as one attempt writes them; every method is called by
    all ranks together."""

    def __init__(
        self,
        engine: Any,
        run: Path,
        attempt: Attempt,
        ranks: Ranks,
        base: Base,
        steps: Collection[int],
        rule: Rule,
        note: Note,
        scored: Sequence[str] = (),
    ) -> None:
        """`steps` are counted from the first stage's start. `note` does nothing on
        ranks other than 0.

        `scored`: the metrics that evaluators are to take of every snapshot.
        """
        self._run, self._root, self._attempt, self._ranks = (
            run,
            run / records.FOLDER,
            attempt,
            ranks,
        )
        self._steps, self._rule, self._note, self._scored = (
            frozenset(steps),
            rule,
            note,
            scored,
        )
        self._folders = WeightFolders(
            engine, run, attempt, ranks, base, self._has_written
        )
        self._told: dict[int, Told] = {}
        # the loss of each that is on disk; rank 0's thread's alone
        self._there: dict[int, Number | None] = {}
        # written, or the step of one that was removed
        self._news: queue.Queue[Written | int] = queue.Queue()
        self._step: int | None = None
        # why snapshots were not removed; rank 0's thread's alone
        self._said: list[str] = []
        if self._root.is_symlink():
            raise ClusterError(
                f"{self._root} is a link; zsg writes and removes snapshots in a folder of its own:"
                " remove the link, and zsg retry"
            )
        # nobody writes a draft before those of dead attempts are gone
        share_first(partial(self._look_around, run, attempt))
        if self._steps:
            self._folders.reserve()

    def _look_around(self, run: Path, attempt: Attempt) -> None:
        """Rank 0's: removes what dead attempts left half written, and finds what is
        there."""
        # what a newer attempt is writing is no dead draft
        attempts.check_attempt(run, attempt)
        _remove_drafts(run)
        self._told, self._there = _told(run, attempt), _on_disk(self._root)

    @property
    def lacking(self) -> frozenset[int]:
        """Steps whose snapshots were never written. Rank 0's knowledge."""
        return self._steps - self._told.keys() - self._there.keys()

    def take(self, step: int, loss: float | None = None) -> float:
        """Takes a snapshot now; returns for how many seconds training stood still."""
        self._begin(step)
        return self._write(loss)

    def begin(self, step: int) -> None:
        """Begins to copy the weights if `step` has a snapshot; they must not change
        until `write`."""
        self._folders.raise_error()
        self._tell()
        if step in self._steps:
            self._begin(step)

    def write(self, loss: float | None) -> None:
        """Hands what `begin` has copied to the writer, with the loss that was measured
        meanwhile."""
        if self._step is not None:
            self._write(loss)

    def finish(self, within_s: float | None = None) -> bool:
        """Waits until what has begun is written, at most `within_s` seconds: False if
        that was too short."""
        if not self._folders.is_used:
            return True
        is_finished = self._folders.finish(within_s)
        self._tell()
        return is_finished

    def save(self, folder: Path, meta: StageEndMeta) -> None:
        """Writes the weights as they are to a folder of their own, and waits for it."""
        self._folders.copy()
        self._folders.write(folder, meta)
        self._folders.finish()

    def listed(self) -> list[dict[str, Any]]:
        """For the exit record: each snapshot that was ever written, and whether the
        rule keeps it."""
        stay = self._stay()
        return [
            {"step": step, "probe_loss": snapshot.probe_loss, "kept": step in stay}
            for step, snapshot in sorted(self._told.items())
        ]

    def _begin(self, step: int) -> None:
        self._step = step
        self._folders.copy()

    def _write(self, loss: float | None) -> float:
        """Hands the copy that `_begin` has ordered to the writer, which works beside
        training; returns for how many seconds training stood still, and journals them
        as the step's speed."""
        assert self._step is not None
        step, self._step = self._step, None
        meta = SnapshotMeta(step=step, attempt=self._attempt.attempt, probe_loss=loss)
        stood_s = self._folders.write(self._root / str(step), meta)
        self._note(step, {f"{SPEED}snapshot_stall_s": stood_s})
        return stood_s

    def _tell(self) -> None:
        """Journals what the thread has done since."""
        while not self._news.empty():
            news = self._news.get()
            if isinstance(news, Written):
                self._tell_of(news)
            else:
                self._note(news, SnapshotRemoved())

    def _tell_of(self, written: Written) -> None:
        """Journals a snapshot that is on disk: the first time its digest, later only
        where the same step came out otherwise, which after a resume it must not.

        A step that an earlier attempt has told of keeps its digest, with which all
        later ones are compared.
        """
        step, loss = int(written.folder.name), _loss_of(written)
        if step not in self._told:
            self._told[step] = Told(written.digest, loss)
            event = SnapshotWritten(
                digest=written.digest,
                bytes=written.bytes,
                seconds=written.seconds,
                probe_loss=loss,
            )
            self._note(step, event)
        first, now = self._told[step].digest, written.again or written.digest
        if now != first:
            self._note(step, SnapshotDiffers(first=first, again=now))

    # What follows runs on rank 0's thread.

    def _has_written(self, written: Written) -> None:
        if written.folder.parent != self._root:
            return
        self._there[int(written.folder.name)] = _loss_of(written)
        self._news.put(written)
        for step in self._list_removable():
            is_still_needed = partial(self._is_needed, step)
            reason = removal.discard_folder(
                self._run.parent.parent,
                self._root / str(step),
                removal.IN_WEIGHTS,
                is_still_needed,
            )
            if not reason:
                del self._there[step]
                self._news.put(step)
            elif reason != removal.NEEDED:
                self._say_once(reason)

    def _list_removable(self) -> list[int]:
        """The steps whose snapshots the rule keeps no longer and nobody needs; none
        where an evaluator's journal does not tell what it has."""
        go = self._there.keys() - self._stay()
        try:
            return sorted(go - find_needed_steps(self._run, self._scored, go))
        except Damaged as error:
            self._say_once(str(error))
            return []

    def _is_needed(self, step: int) -> bool:
        """Whether a snapshot is still to be evaluated; so it is where that cannot be told."""
        try:
            return is_needed(self._run, self._scored, step)
        except Damaged as error:
            self._say_once(str(error))
            return True

    def _say_once(self, reason: str) -> None:
        if reason not in self._said:
            self._said.append(reason)
            logger.warning(f"a snapshot is not removed: {reason}")

    def _stay(self) -> frozenset[int]:
        return select_kept_steps(
            self._there,
            {step: _number(loss) for step, loss in self._there.items()},
            self._rule,
        )


def _told(run: Path, attempt: Attempt) -> dict[int, Told]:
    """What the journal of the attempts before says of each step's first snapshot."""
    first_by_step: dict[int, Told] = {}
    sizes, _ = journals.measure_sound_files(run, attempt.attempt)
    rows = journals.read_measured(run, sizes)
    for row, event in find_events(rows, SnapshotWritten):
        first_by_step.setdefault(row.step, Told(event.digest, event.probe_loss))
    return first_by_step


def _loss_of(written: Written) -> Number | None:
    """The test loss measured at a snapshot."""
    assert isinstance(written.meta, SnapshotMeta), "a snapshot's, not a stage's"
    return written.meta.probe_loss


def _on_disk(root: Path) -> dict[int, Number | None]:
    """The loss of each snapshot that is there."""
    committed = [
        path
        for path in root.glob("*")
        if removal.STEP.fullmatch(path.name) and is_whole(path)
    ]
    return {int(path.name): records.read_meta(path).probe_loss for path in committed}


def _number(loss: Any) -> float | None:
    return None if loss is None else float(loss)  # JSON has no NaN: it is a text there


def _remove_drafts(run: Path) -> None:
    root = run.parent.parent
    removal.remove_drafts(root, run / records.FOLDER, _DRAFT)
    removal.remove_drafts(root, run, _DRAFT_OF_WEIGHTS)
