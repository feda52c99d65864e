"""Has answers rated by a judge at an OpenAI-compatible address; what it said is kept
and never asked for twice.

What a judge thinks before it rates is no rating. A judge that takes no temperature is
asked without one, which is told with the ratings. An answer without a rating is missing,
never 0: it is counted, with the reason. What all cost is counted in tokens as the server
says them.

The key comes from the environment, from the variable that the grid names, and is
written nowhere: what a server sends back of it is hidden before it is kept or told.
"""

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jobs.contract.folder import make_unreadable
from jobs.contract.journal_rows import JudgeSpent
from jobs.files import ownership
from jobs.runtime.chat_server import ChatServer, Completion, Malformed, Refused
from zsg_core.metrics import mt_bench, pairs
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.metrics.reasoning import Parted, is_of_channels, part_reasoning
from zsg_core.settings.suites import MOST_ATTEMPTS, MOST_JUDGED
from zsg_core.side_by_side import map_side_by_side

TEMPERATURE = "temperature"
WIDER = 2  # times the longest reply, where one was cut
MOST_SHOWN = 80  # characters of a reply that is told

# why an answer has no rating
CUT = "the reply was cut before its rating"
CUT_WITHIN = "the reply was cut, and its rating may only have been thought of"
ONLY_THOUGHT = "the judge thought and said nothing"
EMPTY = "the reply was empty"
OFF_SCALE = "the rating is not from 1 to 10"
NO_RATING = "the reply had none"
NO_REPLY = "the reply was none"
REFUSED = "the judge refused"


@dataclass(frozen=True)
class Said:
    """What a judge replied: `completion` as it came, `parted` without what it thought
    before."""

    completion: Completion
    parted: Parted

    @property
    def text(self) -> str:
        """What it said, without what it thought."""
        return self.parted.answer

    @property
    def has_reasoning(self) -> bool:
        """Whether the judge thought first."""
        return self.parted.had_reasoning or self.completion.has_reasoning

    @property
    def may_be_thought(self) -> bool:
        """Whether all that it said may be a thought whose closing mark was yet to come: the
        first mark may stand in the prompt, where nobody sees it."""
        return self.completion.is_cut and not self.has_reasoning

    @property
    def is_drawn(self) -> bool:
        """Whether the reply was drawn at the judge's own temperature."""
        return TEMPERATURE not in self.completion.settings

    @property
    def is_nothing(self) -> bool:
        """Whether it is over and nothing was said or thought."""
        is_empty = not self.text.strip() and not self.has_reasoning
        return is_empty and not self.completion.is_cut

    @property
    def would_come_again(self) -> bool:
        """Whether the judge, asked the same, would say this again, or be cut again. What
        is empty may be a stumble of the server's."""
        if self.completion.is_cut:
            return True
        return not self.is_drawn and not self.is_nothing


@dataclass(frozen=True)
class Judge(ChatServer):
    """A model at an address, which replies at temperature 0 where it takes one.
    `most_tokens`: of a reply, thinking included."""

    most_tokens: int = MOST_JUDGED

    does_without: ClassVar[frozenset[str]] = frozenset({TEMPERATURE})
    called = "judge"
    told = "Ratings so far are kept; try again later"
    advice = "Look at the judge's base_url, model and key"

    @classmethod
    def of(
        cls, how: Mapping[str, Any], environment: Mapping[str, str] = os.environ
    ) -> "Judge":
        """The judge of a suite: model, base_url, and key_env, which names the variable
        of the key, or None; max_tokens where it is another than FastChat's.

        UserError where that variable is not set or holds what can be no key, and for
        what is no address. Whether a variable of this name may be sent at all, the
        settings say.
        """
        key = "checkpoints.suites.mt_bench.judge"
        judge = cls.open(
            how["model"], how["base_url"], how["key_env"], key, environment
        )
        return replace(judge, most_tokens=how.get("max_tokens", MOST_JUDGED))

    def reply(self, system: str, user: str, room: int = 1) -> Said:
        """What the judge says, without what it thinks before; retried while it is busy or
        out of reach. `room`: how many times its longest reply it may have.

        Errors as of `ChatServer.complete`.
        """
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": user},
        ]
        settings = {TEMPERATURE: 0, "max_tokens": self.most_tokens * room}
        if room == 1:
            completion = self.complete(messages, settings)
        else:
            # it has replied before: what it refuses now is the number, not the name
            adapted = self.adaptation.apply(settings)
            completion = self._complete_patiently(messages, adapted)
        has_channels = is_of_channels(self.id)
        parted = part_reasoning(completion.text, has_channels=has_channels)
        return Said(completion, parted)


@dataclass
class Bill:
    """What a judge's replies took, as its server counts; for several threads. `widened`:
    how many answers it was asked about again with more room."""

    spent: JudgeSpent = field(default_factory=JudgeSpent)
    widened: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, completion: Completion) -> None:
        """Counts one reply."""
        is_counted = completion.read is not None and completion.written is not None
        one = JudgeSpent(
            requests=1,
            read=completion.read or 0,
            written=completion.written or 0,
            uncounted=0 if is_counted else 1,
        )
        with self._lock:
            self.spent = self.spent.plus(one)

    def count_widened(self) -> None:
        """Counts one answer."""
        with self._lock:
            self.widened += 1


@dataclass(frozen=True)
class Rating:
    """A rating that is kept. `is_drawn`: at the judge's own temperature."""

    value: float
    is_drawn: bool = False


class Kept:
    """The judge's replies so far, by digest of the answer, judge and digest of the
    prompt: a file of JSON lines.

    Several jobs may append to it at once; of two replies to one question the first
    counts. A line that was cut is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str, str], Rating] = {}
        for line in self._read_lines():
            self._read(line)

    def _read_lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise make_unreadable(self.path, error) from error

    def get(self, judge: str, request: JudgeRequest) -> Rating | None:
        """The rating that this judge gave, or None."""
        return self._held.get((request.answer, judge, request.prompt))

    def add(self, judge: str, request: JudgeRequest, value: float, said: Said) -> None:
        """Keeps a rating, and the reply that it was read from, `said` without secrets; on
        disk when this returns."""
        completion = said.completion
        row = {
            "answer": request.answer,
            "judge": judge,
            "prompt": request.prompt,
            "id": request.id,
            "rating": value,
            "reply": completion.text,
            "settings": dict(completion.settings),
            "read": completion.read,
            "written": completion.written,
        }
        # A newline before it too: a line that was cut before must not take this one along.
        line = (
            b"\n" + json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"
        )
        with self._lock:
            rating = Rating(value, said.is_drawn)
            self._held.setdefault((request.answer, judge, request.prompt), rating)
            file = self._open()
            try:
                os.write(file, line)
                os.fsync(file)
            finally:
                os.close(file)

    def _open(self) -> int:
        """The file to add to; in a group's workspace for all in the group."""
        try:
            file = ownership.open_or_make(self.path, os.O_APPEND | os.O_WRONLY, 0o600)
        except OSError as error:
            raise make_unreadable(self.path, error) from error
        # where it is another member's they have done it
        with contextlib.suppress(PermissionError):
            ownership.share_file(self.path)
        return file

    def _read(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            value = float(row["rating"])
            # of an older zsg: it asked at temperature 0, or got no reply
            settings = row.get("settings", {TEMPERATURE: 0})
            if 1 <= value <= 10:
                self._held.setdefault(
                    (row["answer"], row["judge"], row["prompt"]),
                    Rating(value, TEMPERATURE not in settings),
                )
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ):
            pass


@dataclass(frozen=True)
class Judged:
    """Ratings by item, and why the others have none.

    `reasons` counts these by kind, and `drawn` the ratings that were drawn at the judge's
    own temperature. `spent`: what was asked for now, and what it took; `widened`: about
    how many answers the judge was asked again with more room, as its reply was cut.
    """

    ratings: dict[str, float]
    missing: dict[str, str]
    asked: int  # questions that were not kept from before
    reasons: Counter[str] = field(default_factory=Counter[str])
    drawn: int = 0
    spent: JudgeSpent = field(default_factory=JudgeSpent)
    widened: int = 0


class ReadReply(Protocol):
    """Reads what is asked for out of a reply; None where it is not there."""

    def __call__(self, reply: str, *, is_cut: bool = False) -> float | None: ...


@dataclass(frozen=True)
class Reading:
    """How replies are read: `read`, a number from 1 to 10; `is_there`: whether a reply has
    one, on the scale or off it; `wanted`: what it is called."""

    read: ReadReply
    is_there: Callable[[str], bool]
    wanted: str


RATING = Reading(mt_bench.read_rating, mt_bench.has_rating, "rating from 1 to 10")
VERDICT = Reading(pairs.read_verdict, lambda reply: False, "verdict")


@dataclass(frozen=True)
class Missing:
    """Why a request has no rating: one of the kinds above, and in words."""

    kind: str
    why: str


def rate_requests(
    requests: Iterable[JudgeRequest],
    by: Judge,
    kept: Kept,
    workers: int = 8,
    attempts: int = MOST_ATTEMPTS,
    reading: Reading = RATING,
) -> Judged:
    """The judge's ratings, or its verdicts by `reading`, each asked for at most once in
    the life of `kept`.

    What came to nothing is asked for again, `attempts` times in all, and a reply that was
    cut once, with more room; then its item is missing, not 0. What a judge says at
    temperature 0 it would say again: that is not asked twice. ClusterError and UserError
    as `Judge.reply` raises them: what was rated until then is kept.
    """
    listed = list(requests)
    new = [one for one in listed if kept.get(by.id, one) is None]
    bill = Bill()
    reasons = map_side_by_side(
        lambda request: _ask(request, Terms(by, kept, attempts, bill, reading)),
        new,
        workers,
        # a judge may take minutes to answer, which a job that is told to stop has not
        waits=False,
    )
    missing = {
        request.id: reason
        for request, reason in zip(new, reasons, strict=True)
        if reason is not None
    }
    rated = {
        one.id: rating for one in listed if (rating := kept.get(by.id, one)) is not None
    }
    return Judged(
        ratings={item: rating.value for item, rating in rated.items()},
        missing={item: reason.why for item, reason in missing.items()},
        asked=len(new),
        reasons=Counter(reason.kind for reason in missing.values()),
        drawn=sum(rating.is_drawn for rating in rated.values()),
        spent=bill.spent,
        widened=bill.widened,
    )


@dataclass(frozen=True)
class Terms:
    """Who is asked how often, where replies are kept and counted, and how they are read."""

    by: Judge
    kept: Kept
    attempts: int
    bill: Bill
    reading: Reading


def _ask(request: JudgeRequest, terms: Terms) -> Missing | None:
    """Why a request has no rating; None where it has one now."""
    by = terms.by
    missing = Missing(NO_REPLY, "not asked")
    attempts_made = 0
    room = 1
    while attempts_made < terms.attempts:
        attempts_made += 1
        try:
            reply = by.reply(request.system, request.user, room)
        except Refused as error:
            if error.completion is not None:
                terms.bill.add(error.completion)
            return _explain_refusal(error, missing, room)
        except Malformed as error:
            missing = Missing(NO_REPLY, str(error))
            continue
        terms.bill.add(reply.completion)
        value = _read_number(reply, terms.reading)
        if value is not None:
            text = by.hide(reply.completion.text)
            clean = replace(reply, completion=replace(reply.completion, text=text))
            terms.kept.add(by.id, request, value, clean)
            return None
        missing = _explain_missing(reply, by, terms.reading, room)
        if reply.completion.is_cut and room == 1:
            room = WIDER
            terms.bill.count_widened()
        elif reply.would_come_again:
            break
    times = f", {attempts_made} times" if attempts_made > 1 else ""
    return replace(missing, why=f"{missing.why}{times}")


def _explain_refusal(error: Refused, missing: Missing, room: int) -> Missing:
    """Why there is no rating where the judge refuses a request. `missing`: why there was
    none before; a judge that has no more room to give has not refused the question."""
    if room == 1:
        return Missing(REFUSED, str(error))
    return replace(missing, why=f"{missing.why}; a longer reply it refuses: {error}")


def _read_number(said: Said, reading: Reading) -> float | None:
    """The rating or verdict in a reply; None where there is none, or it may only have been
    thought of."""
    if said.may_be_thought:
        return None
    return reading.read(said.text, is_cut=said.completion.is_cut)


def _explain_missing(said: Said, by: Judge, reading: Reading, room: int) -> Missing:
    """Why there is no rating in a reply, or no verdict. `room`: of how many times the
    longest reply it was."""
    most_tokens = by.most_tokens * room
    shown = repr(by.hide(said.text)[-MOST_SHOWN:])
    if said.completion.is_cut:
        raise_it = "raise checkpoints.suites.mt_bench.judge.max_tokens"
        if reading.read(said.text, is_cut=True) is not None:
            why = (
                f"cut at {most_tokens} tokens, so that its rating may be a thought that was"
                f" not over; {raise_it}"
            )
            return Missing(CUT_WITHIN, why)
        return Missing(CUT, f"cut at {most_tokens} tokens before a rating; {raise_it}")
    if not said.text.strip():
        if said.has_reasoning:
            return Missing(ONLY_THOUGHT, "thoughts without a reply")
        return Missing(EMPTY, "an empty reply")
    why = f"no {reading.wanted} in {shown}"
    return Missing(OFF_SCALE if reading.is_there(said.text) else NO_RATING, why)
