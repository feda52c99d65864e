"""Has answers rated by a judge at an OpenAI-compatible address; what it said is kept
and never asked for twice.

The key comes from the environment, from the variable that the grid names, and is
written nowhere: what a server sends back of it is hidden before it is kept or told.
"""

import contextlib
import http.client
import json
import math
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.contract.folder import make_unreadable
from jobs.files import ownership
from jobs.runtime import exchange
from jobs.runtime.exchange import Reply
from zsg_core import addresses, secrets
from zsg_core.errors import ClusterError, UserError
from zsg_core.metrics import mt_bench
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.retry import ExponentialBackoff
from zsg_core.shown_text import make_showable
from zsg_core.side_by_side import map_side_by_side

MOST_TOKENS = 2048  # of a reply, as in FastChat
MOST_BYTES = 4 << 20  # of a reply, its headers included
MOST_SAID = 300  # characters of an error that are told
WAIT_S = 60.0  # the longest that a server may ask us to wait at a time
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
_WRONG = (401, 403, 404)  # key, address or model: the same for every question


class Malformed(Exception):
    """A reply that is no reply, or one without a rating."""


class Refused(Exception):
    """The judge will not answer this one question."""


class Busy(Exception):
    """The judge may answer in a while. `wait_s`: how long it asks to wait."""

    def __init__(self, said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Judge:
    """A model at an address, which replies at temperature 0. Its id is its model's name.

    `timeout_s`: of one whole reply, from looking up the name to its last byte;
    `retry_policy`: how a question is retried while the judge is busy or out of reach.
    """

    id: str
    uri: str
    key: str = field(default="", repr=False)
    timeout_s: float = 120.0
    retry_policy: ExponentialBackoff = field(
        default_factory=lambda: ExponentialBackoff(
            limit_s=300, first_s=1, longest_s=30
        ),
        repr=False,
    )

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
        name, address = how["key_env"], how["base_url"].rstrip("/")
        if why := addresses.explain_refusal(address):
            raise UserError(f"checkpoints.suites.mt_bench.judge.base_url {why}")
        if not name:
            return cls(how["model"], address)
        key = secrets.read_key(name, environment)
        if key is None:
            raise UserError(
                f"the judge's key is missing: {name}, which"
                " checkpoints.suites.mt_bench.judge.key_env names, is not set in this job's"
                " environment; set it where you call zsg submit"
            )
        return cls(how["model"], address, key)

    def reply(self, system: str, user: str) -> str:
        """What the judge says, as it stands; retried while it is busy or out of reach.

        ClusterError once the policy gives up, UserError for a wrong key, address or
        model; Malformed and Refused as they say.
        """
        try:
            return self.retry_policy.call(
                lambda: self._once(system, user),
                lambda error: isinstance(error, Busy),
                _asked_to_wait_s,
            )
        except Busy as error:
            raise ClusterError(
                f"the judge at {self.uri} did not answer for"
                f" {self.retry_policy.limit_s:g} s: {error}. Ratings so far are kept;"
                " try again later"
            ) from None

    def hide(self, text: str) -> str:
        """A text of the server's without the key, however it is written there, and
        without other keys of this job."""
        return secrets.hide_known(secrets.hide_secrets(text, [self.key]))

    def _once(self, system: str, user: str) -> str:
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": user},
        ]
        asked = {
            "model": self.id,
            "messages": messages,
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
        }
        reply = self._post(json.dumps(asked).encode())
        if not 200 <= reply.status < 300:
            raise self._meaning(reply)
        try:
            content = json.loads(reply.body)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise Malformed("no message in the reply") from None
        if not isinstance(content, str):
            raise Malformed("no text in the reply")
        return content

    def _post(self, body: bytes) -> Reply:
        """The server's reply. Busy, Malformed and UserError: no other error leaves, as
        its text may quote the key."""
        in_the_clear = addresses.is_unencrypted(self.uri)
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.key}"} if self.key else {}
        )
        try:
            if (
                self.key
                and in_the_clear
                and not addresses.is_this_machine(addresses.find_host(self.uri))
            ):
                raise exchange.NotHere
            return exchange.post_request(
                f"{self.uri}/chat/completions",
                body,
                headers,
                self.timeout_s,
                MOST_BYTES,
                only_here=bool(self.key) and in_the_clear,
            )
        except exchange.NotHere:
            raise UserError(
                f"the judge at {self.uri} is asked over plain http, which is not this machine: no"
                " key is sent there. Give https://…"
            ) from None
        except exchange.TooLong:
            raise Malformed(f"the reply has more than {MOST_BYTES:,} bytes") from None
        except (OSError, http.client.HTTPException) as error:
            raise Busy(self._told(f"{type(error).__name__}: {error}")) from None
        except Exception as error:
            raise Malformed(self._told(f"{type(error).__name__}: {error}")) from None

    def _meaning(self, reply: Reply) -> Exception:
        said = self._told(reply.body.decode(errors="replace"))
        if reply.status in _BUSY:
            return Busy(
                f"HTTP {reply.status} {said}", min(_seconds(reply.retry_after), WAIT_S)
            )
        if reply.status in _WRONG or 300 <= reply.status < 400:
            return UserError(
                f"the judge at {self.uri} answered HTTP {reply.status} for model {self.id}: {said}."
                " Look at the judge's base_url, model and key"
            )
        return Refused(f"HTTP {reply.status} {said}")

    def _told(self, text: str) -> str:
        """The beginning of an error as people may see it."""
        return make_showable(self.hide(text[: 10 * MOST_SAID]), keep="")[:MOST_SAID]


def _asked_to_wait_s(error: Exception) -> float:
    return error.wait_s if isinstance(error, Busy) else 0.0


def _seconds(retry_after: str | None) -> float:
    """How long a server asks to wait; 0 for a date or what is no time: the usual pauses will do."""
    try:
        asked = float(retry_after or 0)
    except ValueError:
        return 0.0
    return max(0.0, asked) if math.isfinite(asked) else 0.0


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
