"""Brings notices to their receivers: notes what there is to tell, groups it, sends it.

Whoever sees something first notes it, and who holds the lock of the workspace sends.
What it means to send is on the disk before, and what was taken behind it; so each
notice is in one message, and a message that was not known to be taken is sent again as
it was.

What fails alike is told together. The first is told at once. Who comes while others of
its kind were just told waits until as many have come as were told, or HOLD_S are over:
fifty jobs that fail for one reason within minutes are a handful of messages.
"""

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass, field

from jobs.contract import notices as records
from jobs.contract.attempt import now_ms
from jobs.contract.folder import Workspace
from jobs.contract.notices import (
    Meant,
    Message,
    Missed,
    Notice,
    NoticeRow,
    Outbox,
    Receiver,
    Seen,
    Told,
    Way,
)
from jobs.files import locks, ownership
from jobs.notices import approved_commands, messages, ways
from jobs.notices import receivers as receivers_of
from jobs.notices.ways import NotTaken
from zsg_core.digest import content_id

logger = logging.getLogger(__name__)

HOLD_S = 600.0  # the longest that a notice waits for others like it
MOST_REASONS = 3  # of one kind, that have messages of their own
LIMIT_S = 15.0  # for one message
# between two tries of a message that was not taken: the first, and the longest
AGAIN_S, LONGEST_S = 20.0, 3600.0
MOST_DOUBLINGS = 16  # of that time
POLL_S = 0.05


@dataclass(frozen=True)
class Patience:
    """How long a sender takes. `all_s`: for everything, waiting for the lock included;
    `is_asked`: the user waits for it, so nothing is held back and everything that was
    not taken is tried."""

    all_s: float
    is_asked: bool = False


@dataclass
class Report:
    """What a sender did: messages that were taken, by receiver, and why others were
    not."""

    told: int = 0
    troubles: dict[str, str] = field(default_factory=dict[str, str])

    def add_trouble(self, name: str, why: str) -> None:
        """Notes why a receiver was not told.

        Args:
            name: by what people know the receiver.
            why: in words that name no address.
        """
        self.troubles[name] = why

    def add_report(self, report: "Report") -> None:
        """Adds what another sender did, such as for another grid."""
        self.told += report.told
        self.troubles.update(report.troubles)


def tell(
    workspace: Workspace,
    receivers: Sequence[Receiver],
    notices: Iterable[Notice],
    patience: Patience,
    skipped: Collection[str] = (),
) -> Report:
    """Notes the notices for the receivers that want them, and sends what is due.

    Another process may be sending: what it has not sent by then is sent here. NoLocks
    and OSError where the workspace's files cannot be written.

    Args:
        workspace: the folder of all runs.
        receivers: who is told; others than this user's own are passed by.
        notices: what there is to tell.
        patience: how long it may take.
        skipped: the names of receivers that have just failed: for them it is only
            noted.
    """
    usable = [each for each in receivers if _is_mine(workspace, each)]
    until = time.monotonic() + patience.all_s
    _note_seen(workspace, usable, list(notices))
    report = Report()
    usable = [each for each in usable if each.name not in skipped]
    if not _has_work(workspace, usable):
        return report
    with _hold_lock(workspace, until) as is_held:
        if not is_held:
            return report
        for number, receiver in enumerate(usable):
            # one that hangs must leave time for those behind it
            behind = len(usable) - number
            share_s = (until - time.monotonic()) / behind
            until_own = time.monotonic() + share_s
            _Sending(workspace, receiver, patience, until_own, report).send_due()
    return report


def _has_work(workspace: Workspace, receivers: Sequence[Receiver]) -> bool:
    """Whether there is anything that one of the receivers was not told yet."""
    outboxes = records.read_outboxes(workspace)
    for receiver in receivers:
        outbox = outboxes.get(receiver.key)
        if outbox is not None and (outbox.waiting or outbox.untold):
            return True
    return False


def _is_mine(workspace: Workspace, receiver: Receiver) -> bool:
    """Whether this user's own submit has named a receiver. What is recorded, others may
    have written: in a group's workspace, or in one that somebody sent. So no program is
    run for a group, nor one that no submit of the user's has named."""
    is_group = ownership.is_group_workspace(workspace.root)
    if receiver.way == Way.COMMAND:
        return not is_group and approved_commands.is_approved(receiver)
    is_own = receiver.user == os.geteuid()
    return is_own or (receiver.user is None and not is_group)


def _note_seen(
    workspace: Workspace, receivers: Sequence[Receiver], notices: Sequence[Notice]
) -> None:
    """Notes what nobody has noted yet. Two that see the same at once may both note it:
    it is one notice, by its id."""
    if not notices:
        return
    if records.is_full(workspace):
        logger.warning(
            f"note: {records.locate_notices(workspace)} is full, and nothing more is"
            " told: remove it; what still stands is then told once more"
        )
        return
    outboxes = records.read_outboxes(workspace)
    rows: list[NoticeRow] = []
    for receiver in receivers:
        outbox = outboxes.get(receiver.key, Outbox())
        for notice in notices:
            is_wanted = notice.kind in receiver.on
            if is_wanted and notice.id not in outbox.notices:
                bounded = messages.bound_notice(notice)
                rows.append(Seen(to=receiver.key, at=now_ms(), notice=bounded))
    records.append_rows(workspace, rows)


@contextlib.contextmanager
def _hold_lock(workspace: Workspace, until: float) -> Generator[bool]:
    """Holds the lock of whoever sends; False where others had it until then."""
    path = records.locate_lock(workspace)
    handle = ownership.open_lock(path)
    try:
        is_held = locks.try_lock(handle, path)
        while not is_held and time.monotonic() < until:
            time.sleep(POLL_S)
            is_held = locks.try_lock(handle, path)
        yield is_held
    finally:
        os.close(handle)


class _Sending:
    """One look of the sender at one receiver; it holds the lock."""

    def __init__(
        self,
        workspace: Workspace,
        receiver: Receiver,
        patience: Patience,
        until: float,
        report: Report,
    ) -> None:
        self._workspace, self._receiver = workspace, receiver
        self._patience, self._until, self._report = patience, until, report
        outboxes = records.read_outboxes(workspace)
        self._outbox = outboxes.get(receiver.key, Outbox())

    def send_due(self) -> None:
        """Sends what was meant and not told, then what waits and is due. Ends with the
        first that is not taken: the others would not be, either."""
        unusable = receivers_of.explain_unusable(self._receiver)
        if unusable is not None:
            # another sender may have what lacks here: nothing was tried
            self._report.add_trouble(self._receiver.name, unusable)
            return
        is_resting = False
        for message in self._outbox.untold:
            if self._is_resting(message):
                is_resting = True
            elif not self._send_again(message):
                return
        if is_resting:
            return
        for group in self._list_due_groups():
            if not self._send(self._mean(group)):
                return

    def _is_resting(self, message: Message) -> bool:
        """Whether a message was not taken just before. The longer it is not, the longer
        it rests; where the user waits, it does not."""
        if self._patience.is_asked or not message.misses:
            return False
        growth = 2.0 ** min(message.misses - 1, MOST_DOUBLINGS)
        wait_s = min(LONGEST_S, AGAIN_S * growth)
        rested_s = (now_ms() - message.last) / 1000
        return rested_s < wait_s

    def _list_due_groups(self) -> list[list[Notice]]:
        """What is told now, message by message: of many notices several."""
        messages_due: list[list[Notice]] = []
        for group in group_notices(self._outbox.waiting):
            if not self._is_due(group):
                continue
            for start in range(0, len(group), messages.MOST_IDS):
                end = start + messages.MOST_IDS
                messages_due.append(group[start:end])
        return messages_due

    def _is_due(self, group: Sequence[Notice]) -> bool:
        """Whether a group is told now: the user waits for it, its first has waited for
        long enough, or as many wait as were just told."""
        if self._patience.is_asked:
            return True
        oldest = min(self._outbox.seen[notice.id] for notice in group)
        waited_s = (now_ms() - oldest) / 1000
        if waited_s >= HOLD_S:
            return True
        return len(group) >= self._count_lately_told(group[0])

    def _count_lately_told(self, notice: Notice) -> int:
        """How many notices like this one were told just before: for its reason, or for
        any, where there were several reasons."""
        of_kind: list[Notice] = []
        for earlier in self._list_lately_told():
            if (earlier.kind, earlier.grid) == (notice.kind, notice.grid):
                of_kind.append(earlier)
        reasons = Counter(earlier.alike for earlier in of_kind)
        if len(reasons) >= MOST_REASONS:
            return len(of_kind)
        return reasons[notice.alike]

    def _list_lately_told(self) -> Iterator[Notice]:
        """The notices of the messages that were taken in the last HOLD_S."""
        since = now_ms() - 1000 * HOLD_S
        for message in self._outbox.messages.values():
            if message.is_told and message.last >= since:
                for name in message.ids:
                    yield self._outbox.notices[name]

    def _mean(self, group: Sequence[Notice]) -> Message:
        """Notes what is going to be sent, before it is. The id of a message follows
        from its receiver and from what is in it."""
        names = [notice.id for notice in group]
        key = self._receiver.key
        message = Message(content_id([key, names]), names)
        row = Meant(to=key, at=now_ms(), message=message.id, ids=names)
        records.append_rows(self._workspace, [row])
        self._outbox.take(row)
        return message

    def _send_again(self, message: Message) -> bool:
        """Sends a message of which it is not known that it was taken; whether it was.

        First it is noted. Where that fails, as on a full disk, it could not be noted
        either that it was taken, and each look would send it once more.
        """
        row = Meant(to=self._receiver.key, at=now_ms(), message=message.id, ids=[])
        records.append_rows(self._workspace, [row])
        return self._send(message)

    def _send(self, message: Message) -> bool:
        """Sends a message and notes what came of it; whether it was taken."""
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            return False
        why = self._try(message, min(LIMIT_S, left_s))
        key = self._receiver.key
        if why is None:
            answer = Told(to=key, at=now_ms(), message=message.id)
            self._report.told += 1
        else:
            answer = Missed(to=key, at=now_ms(), message=message.id, why=why)
            self._report.add_trouble(self._receiver.name, why)
        records.append_rows(self._workspace, [answer])
        self._outbox.take(answer)
        return why is None

    def _try(self, message: Message, limit_s: float) -> str | None:
        """Sends a message, within so many seconds; why it was not taken, None where it
        was."""
        notices = [self._outbox.notices[name] for name in message.ids]
        body = messages.write_message(self._receiver.way, message.id, notices)
        try:
            ways.send_message(self._receiver, message.id, body, limit_s)
        except NotTaken as error:
            return str(error)
        return None


def group_notices(waiting: Sequence[Notice]) -> list[list[Notice]]:
    """Notices as they are told together, each group in the order in which they came.

    Those of a kind and a grid for one reason are a group; a kind that has come for more
    than a few reasons at once is one.
    """
    groups: list[list[Notice]] = []
    for of_kind in _divide(waiting, _name_kind):
        by_reason = _divide(of_kind, _name_reason)
        if len(by_reason) > MOST_REASONS:
            groups.append(of_kind)
        else:
            groups += by_reason
    return groups


def _name_kind(notice: Notice) -> str:
    """What happened, and to which grid."""
    return f"{notice.kind} {notice.grid}"


def _name_reason(notice: Notice) -> str:
    """The same, and why."""
    return notice.alike


def _divide(
    notices: Sequence[Notice], name: Callable[[Notice], str]
) -> list[list[Notice]]:
    """The notices by their names, both in the order in which they came."""
    groups: dict[str, list[Notice]] = {}
    for notice in notices:
        group = groups.setdefault(name(notice), [])
        group.append(notice)
    return list(groups.values())
