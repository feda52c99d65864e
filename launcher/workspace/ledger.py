"""The launcher's record: which job folders were handed to which scheduler under which ids.

Append-only JSONL. An intent is on disk before sbatch is called and the ids after it, so
that a submission cut anywhere between can be found again by its job name. Only the
holder of the submit lock writes.
"""

import logging
import os
import socket
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jobs.contract.attempt import now_ms
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.ledger_rows import (
    Cancelled,
    Forgotten,
    Intent,
    LedgerRow,
    Linked,
    LostLine,
    NumberedRow,
    Released,
    Retried,
    Submitted,
    Void,
    append_row,
    read_lines,
)
from jobs.files import ownership
from launcher.workspace.scheduler_job import Job

logger = logging.getLogger(__name__)

ADVICE = (
    "Nothing is submitted before that is settled: look in squeue for jobs whose names"
    " begin with zsg- and that zsg status does not show, end them with scancel, then"
    " remove these lines from the file"
)


@dataclass
class Submission:
    """A group of jobs submitted together. `items` are job folders relative to the
    workspace, `ids` their ids.

    `grid`: empty for jobs of no grid.

    `links` are the ids of the jobs queued behind them, link by link, of `chain` that
    were meant to be. `cluster` and `named` are those of a `Job`. `root`: the workspace
    that submitted them; `copied_from`: the same, where that is another one, of which
    this is a copy: its jobs are not this one's to ask for or to touch. `user`: whose
    they are, in a group's workspace.
    """

    id: str
    scheduler: str
    kind: str
    grid: str
    items: list[str]
    created: int
    host: str
    sacct: bool = True  # whether accounting may be asked about it
    cluster: str | None = None
    named: bool = False
    root: str | None = None
    copied_from: str | None = None
    user: int | None = None
    ids: list[str] = field(default_factory=list[str])
    chain: int = 0
    links: list[list[str]] = field(default_factory=list[list[str]])
    retries: dict[str, Retried] = field(default_factory=dict[str, Retried])
    exclude: list[str] = field(default_factory=list[str])
    cancelled: set[str] = field(default_factory=set[str])
    forgotten: set[str] = field(default_factory=set[str])
    released: bool = False
    void: str | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether it is the user's and was cut short, or is at work: the next submit of
        its user finishes it or gives it up."""
        if self.void is not None or self.copied_from or self.released:
            return False
        return self.user in (None, os.getuid()) and not self.is_forgotten

    @property
    def is_forgotten(self) -> bool:
        """Whether it counts for none of its jobs any more."""
        return bool(self.items) and self.forgotten.issuperset(self.items)

    def counts_for(self, item: str) -> bool:
        """Whether a job folder of it is known by it: it was not given up, and the job
        is not forgotten."""
        is_its = self.void is None and item in self.indices
        return is_its and item not in self.forgotten

    @property
    def name(self) -> str:
        """The job name under which the scheduler knows it: unique, so that it can be looked up."""
        words = ("zsg", self.grid, self.kind, self.id)
        return "-".join(word for word in words if word)

    def link_name(self, number: int) -> str:
        """The job name of a link of its chain, counted from 1."""
        return f"{self.name}-{number}"

    @property
    def all_ids(self) -> list[str]:
        return [job_id for ids in (self.ids, *self.links) for job_id in ids]

    @cached_property
    def indices(self) -> dict[str, int]:
        """Where each of its folders stands among them."""
        return {item: index for index, item in enumerate(self.items)}

    @property
    def jobs(self) -> list[Job]:
        """All its jobs at the scheduler, those of its links last; none of a workspace
        that this one is a copy of."""
        if self.copied_from or self.scheduler != "slurm":
            return []
        return [
            self._job(number, job_id)
            for number, ids in enumerate((self.ids, *self.links))
            for job_id in ids
        ]

    def jobs_of(self, item: str) -> list[Job]:
        """The job of a folder and those of the links behind it, in the order in which they run."""
        if self.copied_from or self.scheduler != "slurm":
            return []
        index = self.indices[item]
        return [
            self._job(number, ids[index])
            for number, ids in enumerate((self.ids, *self.links))
            if ids
        ]

    def _job(self, link: int, job_id: str) -> Job:
        return Job(
            job_id,
            self.link_name(link) if link else self.name,
            self.cluster,
            self.named,
            self.user,
        )

    def job_ids(self, item: str) -> list[str]:
        """The ids of a job and of the links behind it, in the order in which they run."""
        index = self.indices[item]
        return [ids[index] for ids in (self.ids, *self.links) if ids]


class Ledger:
    """The ledger of a workspace, read once and kept up to date by its own writes."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.ledger
        self.submissions: dict[str, Submission] = {}
        self._here = str(workspace.root.resolve())
        self._is_groups = ownership.is_group_workspace(workspace.root)
        # lines that tell nothing any more, each with its number
        self.lost: list[str] = []
        for line in read_lines(self._path):
            if isinstance(line, LostLine):
                self._note_lost(line.number, line.reason)
            else:
                self._apply_read(line)
        self._tell_copies()

    def find_refusal(self) -> Damaged | None:
        """Why nothing may be submitted where lines are lost: jobs may be in the queue
        of which nothing is known, and what they do would be done twice."""
        return Damaged(f"{'; '.join(self.lost)}. {ADVICE}") if self.lost else None

    def _note_lost(self, number: int, reason: str) -> None:
        text = f"{self._path}, line {number}: {reason}; what it told of submissions is lost"
        self.lost.append(text)
        logger.warning(text)

    def _apply_read(self, line: NumberedRow) -> None:
        """Takes a row that was read. Damaged, with the line, for one that is of nothing."""
        row = line.row
        if isinstance(row, Intent) or row.submission in self.submissions:
            self._apply(row)
            return
        reason = (
            f"a row is of submission {row.submission}, and no row before it tells what"
            " that was"
        )
        if not self.lost:
            raise Damaged(f"{self._path}: {reason}, line {line.number}")
        self._note_lost(line.number, reason)

    def last(self, item: str) -> Submission | None:
        """The newest submission of a job folder that was not given up."""
        for submission in reversed(self.submissions.values()):
            if submission.counts_for(item):
                return submission
        return None

    def by_item(self) -> dict[str, Submission]:
        """The newest submission of every job folder."""
        return {
            item: s
            for s in self.submissions.values()
            if s.void is None
            for item in s.items
            if item not in s.forgotten
        }

    def find_resubmitted(self) -> set[str]:
        """The job folders that were submitted more than once."""
        seen: set[str] = set()
        again: set[str] = set()
        for submission in self.submissions.values():
            if submission.void is None:
                again |= seen.intersection(submission.items)
                seen.update(submission.items)
        return again

    def retries(self, item: str) -> list[Retried]:
        """What is kept of the failures before each retry of a job folder."""
        return [
            s.retries[item]
            for s in self.submissions.values()
            if s.counts_for(item) and item in s.retries
        ]

    def failed_nodes(self, since: int) -> dict[str, str]:
        """The nodes that failed under jobs which were tried again since a time in ms,
        and under which."""
        late = [s for s in self.submissions.values() if s.created >= since]
        return {
            node: item
            for s in late
            for item, row in s.retries.items()
            for node in row.nodes
        }

    def jobs_of(self, item: str) -> list[Job]:
        """Every job that a folder was given on Slurm, also those that a later
        submission has replaced."""
        given = [s for s in self.submissions.values() if s.counts_for(item)]
        return [job for submission in given for job in submission.jobs_of(item)]

    def replaced(self, items: Collection[str]) -> dict[str, list[Job]]:
        """The jobs of each folder that a later submission of it has replaced; they may
        be in the queue all the same."""
        newest, found = self.by_item(), dict[str, list[Job]]()
        for submission in self.submissions.values():
            if submission.void is None and submission.scheduler == "slurm":
                for item in submission.items:
                    if (
                        item in items
                        and item not in submission.forgotten
                        and newest[item] is not submission
                        and (jobs := submission.jobs_of(item))
                    ):
                        found.setdefault(item, []).extend(jobs)
        return found

    def unfinished(self) -> list[Submission]:
        """The user's submissions that were cut short: without ids, or not yet released."""
        return [each for each in self.submissions.values() if each.is_unfinished]

    def intend(
        self,
        *,
        scheduler: str,
        kind: str,
        grid: str,
        items: Sequence[str],
        sacct: bool = True,
        chain: int = 0,
        retries: Mapping[str, Retried] | None = None,
        exclude: Sequence[str] = (),
        cluster: str | None = None,
        named: bool = False,
    ) -> Submission:
        """Records what is about to be submitted, with so many links behind each job.

        `sacct`: whether accounting may be asked about it later; `retries`: the failure
        before it of every job that is tried again; `exclude`: nodes that no job is to
        run on; `cluster` and `named`: those of a `Job`.
        """
        intent = Intent(
            submission=uuid.uuid4().hex[:8],
            scheduler=scheduler,
            kind=kind,
            grid=grid,
            items=list(items),
            sacct=sacct,
            chain=chain,
            retries=dict(retries or {}),
            exclude=list(exclude),
            cluster=cluster,
            named=named,
            root=self._here,
            user=os.getuid() if self._is_groups else None,
            created=now_ms(),
            ts=now_ms(),
            host=socket.gethostname(),
        )
        self._append(intent)
        return self.submissions[intent.submission]

    def submitted(
        self, submission: Submission, ids: Sequence[str], cluster: str | None = None
    ) -> None:
        """The jobs are in the queue under these ids; `cluster`: where sbatch says that
        it has put them."""
        row = Submitted(
            submission=submission.id,
            ts=now_ms(),
            ids=list(ids),
            cluster=cluster,
            named=bool(cluster),
        )
        self._append(row)

    def linked(self, submission: Submission, ids: Sequence[str]) -> None:
        """The next link of a submission's chain is in the queue."""
        row = Linked(submission=submission.id, ts=now_ms(), ids=list(ids))
        self._append(row)

    def released(self, submission: Submission) -> None:
        self._append(Released(submission=submission.id, ts=now_ms()))

    def cancelled(self, submission: Submission, items: Sequence[str]) -> None:
        """Some jobs of a submission are about to be stopped, because the user wants it."""
        row = Cancelled(submission=submission.id, ts=now_ms(), items=list(items))
        self._append(row)

    def forgotten(self, submission: Submission, items: Sequence[str]) -> None:
        """A submission counts for these jobs of it no more."""
        row = Forgotten(submission=submission.id, ts=now_ms(), items=list(items))
        self._append(row)

    def void(self, submission: Submission, reason: str) -> None:
        """Gives a submission up: it never reached the scheduler."""
        self._append(Void(submission=submission.id, ts=now_ms(), reason=reason))

    def _append(self, row: LedgerRow) -> None:
        append_row(self._path, row)
        self._apply(row)

    def _apply(self, row: LedgerRow) -> None:
        if isinstance(row, Intent):
            self.submissions[row.submission] = _intended(row)
            return
        submission = self.submissions[row.submission]
        match row:
            case Submitted():
                submission.ids = row.ids
                if row.cluster is not None:
                    submission.cluster = row.cluster
                submission.named = row.named or submission.named
            case Linked():
                submission.links.append(row.ids)
            case Cancelled():
                submission.cancelled |= set(row.items)
            case Forgotten():
                submission.forgotten |= set(row.items)
            case Released():
                submission.released = True
            case Void():
                submission.void = row.reason

    def _tell_copies(self) -> None:
        """Tells submissions of another workspace, which still has them: this one was
        made by copying it.

        A workspace that was moved, or is reached by another path, has no such other.
        """
        others: dict[str, bytes] = {}
        for submission in self.submissions.values():
            root = submission.root
            if root is None or root == self._here:
                continue
            if root not in others:
                others[root] = _another(Path(root) / self._path.name, self._path)
            if f'"{submission.id}"'.encode() in others[root]:
                submission.copied_from = root


def _intended(row: Intent) -> Submission:
    """A submission of which no more is known yet than that it was to be."""
    return Submission(
        id=row.submission,
        scheduler=row.scheduler,
        kind=row.kind,
        grid=row.grid,
        items=row.items,
        created=row.created,
        host=row.host,
        sacct=row.sacct,
        cluster=row.cluster,
        named=row.named,
        root=row.root,
        user=row.user,
        chain=row.chain,
        retries=row.retries,
        exclude=row.exclude,
    )


def _another(ledger: Path, mine: Path) -> bytes:
    """What a ledger holds, if it is there and another file than mine."""
    try:
        return b"" if ledger.samefile(mine) else ledger.read_bytes()
    except OSError:
        return b""
