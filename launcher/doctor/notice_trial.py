"""Sends a test message to everybody whom a profile's `notify` names, and says who has
taken it."""

import uuid
from collections.abc import Sequence

from jobs.contract.attempt import now_ms
from jobs.contract.notices import Kind, Notice, Receiver
from jobs.notices import messages, ways
from jobs.notices.ways import NotTaken
from launcher.doctor.diagnosis import OK, PROBLEM, Diagnosis

LIMIT_S = 15.0


def send_trials(receivers: Sequence[Receiver]) -> list[Diagnosis]:
    """A line for each receiver: whether it has taken a test message."""
    if not receivers:
        advice = "name somebody there: docs/notices.md"
        return [Diagnosis("notify", PROBLEM, "the profile has no `notify`", advice)]
    return [_send_trial(receiver) for receiver in receivers]


def _send_trial(receiver: Receiver) -> Diagnosis:
    """Sends one, under an id of its own. What keeps it back is told without the
    address."""
    number = uuid.uuid4().hex[:12]
    notice = Notice(
        id=f"{Kind.TEST}:{number}",
        kind=Kind.TEST,
        grid="zsg doctor --notify",
        alike="",
        evidence="this is a test: messages come through",
        at=now_ms(),
    )
    body = messages.write_message(receiver.way, number, [notice])
    try:
        ways.send_message(receiver, number, body, LIMIT_S)
    except NotTaken as error:
        found = f"{receiver.name} did not take a test message"
        return Diagnosis("notify", PROBLEM, found, str(error))
    return Diagnosis("notify", OK, f"{receiver.name} took a test message")
