"""Has answers rated by a judge at an OpenAI-compatible address; what it said is kept
and never asked for twice.

The key comes from the environment, from the variable that the grid names, and is
written nowhere: what a server sends back of it is hidden before it is kept or told.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.contract.folder import make_unreadable
from jobs.files import ownership
from jobs.runtime.chat_server import ChatServer, Malformed, Refused
from zsg_core.metrics import mt_bench
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.side_by_side import map_side_by_side

MOST_TOKENS = 2048  # of a reply, as in FastChat


@dataclass(frozen=True)
class Judge(ChatServer):
    """A model at an address, which replies at temperature 0."""

    called = "judge"
    told = "Ratings so far are kept; try again later"
    advice = "Look at the judge's base_url, model and key"

    @classmethod
    def of(
        cls, how: Mapping[str, Any], environment: Mapping[str, str] = os.environ
    ) -> "Judge":
        """The judge of a suite: model, base_url, and key_env, which names the variable
        of the key, or None.

        UserError where that variable is not set or holds what can be no key, and for
        what is no address. Whether a variable of this name may be sent at all, the
        settings say.
        """
        key = "checkpoints.suites.mt_bench.judge"
        return cls.open(how["model"], how["base_url"], how["key_env"], key, environment)

    def reply(self, system: str, user: str) -> str:
        """What the judge says, as it stands; retried while it is busy or out of reach.

        Errors as of `ChatServer.complete`.
        """
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": user},
        ]
        settings = {"temperature": 0, "max_tokens": MOST_TOKENS}
        return self.complete(messages, settings).text


class Kept:
    """The judge's replies so far, by digest of the answer, judge and digest of the
    prompt: a file of JSON lines.

    Several jobs may append to it at once; of two replies to one question the first
    counts. A line that was cut is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str, str], float] = {}
        for line in self._read_lines():
            self._read(line)

    def _read_lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise make_unreadable(self.path, error) from error

    def get(self, judge: str, request: JudgeRequest) -> float | None:
        """The rating that this judge gave, or None."""
        return self._held.get((request.answer, judge, request.prompt))

    def add(self, judge: str, request: JudgeRequest, value: float, reply: str) -> None:
        """Keeps a rating, and the reply that it was read from; on disk when this returns."""
        row = {
            "answer": request.answer,
            "judge": judge,
            "prompt": request.prompt,
            "id": request.id,
            "rating": value,
            "reply": reply,
        }
        # A newline before it too: a line that was cut before must not take this one along.
        line = (
            b"\n" + json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"
        )
        with self._lock:
            self._held.setdefault((request.answer, judge, request.prompt), value)
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
            if 1 <= value <= 10:
                self._held.setdefault(
                    (row["answer"], row["judge"], row["prompt"]), value
                )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            pass


@dataclass(frozen=True)
class Judged:
    """Ratings by item, and why the others have none."""

    ratings: dict[str, float]
    missing: dict[str, str]
    asked: int  # questions that were not kept from before


def rate_requests(
    requests: Iterable[JudgeRequest],
    by: Judge,
    kept: Kept,
    workers: int = 8,
    attempts: int = 3,
) -> Judged:
    """The judge's ratings, each asked for at most once in the life of `kept`.

    A reply without a rating is asked for again, `attempts` times in all; then its item
    is missing, not 0. ClusterError and UserError as `Judge.reply` raises them: what was
    rated until then is kept.
    """
    listed = list(requests)
    new = [one for one in listed if kept.get(by.id, one) is None]
    reasons = map_side_by_side(
        lambda request: _ask(request, by, kept, attempts),
        new,
        workers,
        # a judge may take minutes to answer, which a job that is told to stop has not
        waits=False,
    )
    missing = {
        request.id: reason
        for request, reason in zip(new, reasons, strict=True)
        if reason
    }
    ratings = {
        one.id: value for one in listed if (value := kept.get(by.id, one)) is not None
    }
    return Judged(ratings, missing, len(new))


def _ask(request: JudgeRequest, by: Judge, kept: Kept, attempts: int) -> str:
    """Why a request has no rating; empty where it has one now."""
    why = ""
    for _ in range(attempts):
        try:
            said = by.reply(request.system, request.user)
        except Refused as error:
            return str(error)
        except Malformed as error:
            why = str(error)
            continue
        value = mt_bench.read_rating(said)
        if value is not None:
            kept.add(by.id, request, value, by.hide(said))
            return ""
        why = f"no rating from 1 to 10 in {by.hide(said)[-80:]!r}"
    return f"{why}, {attempts} times"
