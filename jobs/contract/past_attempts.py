"""past_attempts.jsonl: the attempts of a job that later ones have followed, a row each.

attempt.json, exit.json and heartbeat.json tell of the newest attempt only. Before the
next one takes the folder over, it adds here what they tell of the last: how long it
ran, on how many GPUs, from which step, how far it came, and what of it was saved. A run
of one attempt has no such file. Nothing depends on the file but how GPU-hours are
counted, so that neither a full disk nor a damaged row ends a job.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import UNSET

from jobs.contract import attempt as attempts
from jobs.contract import exit_record
from jobs.contract.attempt import Attempt
from jobs.contract.exit_record import ExitRecord, replace_unset
from jobs.contract.folder import Damaged, to_json
from jobs.contract.heartbeat import Beat, read_heartbeat
from jobs.contract.json_values import DECODE_ERRORS
from jobs.files import ownership

logger = logging.getLogger(__name__)

NAME = "past_attempts.jsonl"
LONGEST = 1 << 20  # bytes that are read; a row has three hundred


class PastAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One start of a job and how far it came.

    `started`, `ended`: ms since the epoch; of one that died without a word `ended` is
    that of its last heartbeat, None where it had none. `gpus`: that it held, on all
    nodes; None where an older zsg did not tell. `from_step`, `last_step`: of training,
    None where it did not come to it. `saved`: the newest whole state once it had ended.
    `outcome`: None of one that died without a word.
    """

    attempt: int
    nonce: str
    started: int
    ended: int | None = None
    gpus: int | None = None
    from_step: int | None = None
    last_step: int | None = None
    saved: int | None = None
    outcome: str | None = None


def describe_newest(
    attempt: Attempt, record: ExitRecord | None, beat: Beat | None, saved: int | None
) -> PastAttempt:
    """What a folder tells of its newest attempt. `record`, `beat`: those of that
    attempt; where it has told its end, no beat is needed. `saved`: the newest whole
    state."""
    ended = beat.ts if beat else None
    steps = (beat.from_step, beat.step) if beat else (UNSET, None)
    outcome = None
    if record is not None:
        ended, outcome = record.ended, str(record.outcome)
        told = replace_unset(record.last_step, record.step)
        steps = (record.from_step, told)
    from_step = replace_unset(steps[0])
    return PastAttempt(
        attempt=attempt.attempt,
        nonce=attempt.nonce,
        started=attempt.started,
        ended=ended,
        gpus=replace_unset(attempt.gpus),
        from_step=from_step,
        last_step=None if from_step is None else steps[1],
        saved=saved,
        outcome=outcome,
    )


def keep_last(folder: Path, saved: int | None) -> None:
    """Adds what the folder tells of its last attempt, if there was one; for who is
    about to begin the next. What cannot be read or written is passed over, and logged."""
    try:
        last = attempts.read_attempt(folder)
        if last is None or any(row.nonce == last.nonce for row in read_rows(folder)):
            return
        record = exit_record.read_if_sound(folder)
        record = record if attempts.is_current(record, last) else None
        beaten = read_heartbeat(folder, last.nonce)
        row = describe_newest(last, record, beaten[0] if beaten else None, saved)
        _append_row(folder / NAME, row)
    except (Damaged, OSError) as error:
        logger.warning(f"the attempt before is not kept for its GPU-hours: {error}")


def _append_row(path: Path, row: PastAttempt) -> None:
    """Adds a row on a line of its own, also behind one that a kill has cut."""
    line = to_json(msgspec.to_builtins(row)).encode()
    flags = os.O_APPEND | os.O_RDWR
    with os.fdopen(ownership.open_or_make(path, flags, 0o666), "a+b") as file:
        is_empty = file.seek(0, os.SEEK_END) == 0
        file.write((b"" if is_empty else b"\n") + line)
        file.flush()
        os.fsync(file.fileno())


def read_rows(folder: Path) -> list[PastAttempt]:
    """The attempts before the newest one of which something is kept, in order; none
    where there is no such file. Lines that are no rows are passed over."""
    try:
        with (folder / NAME).open("rb") as file:
            text = file.read(LONGEST)
    except FileNotFoundError:
        return []
    rows = {row.attempt: row for row in _decode_rows(text)}
    return [rows[number] for number in sorted(rows)]


def _decode_rows(text: bytes) -> Iterator[PastAttempt]:
    for line in text.split(b"\n"):
        with contextlib.suppress(*DECODE_ERRORS):
            yield msgspec.json.decode(line, type=PastAttempt)
