"""Asks a model at an OpenAI-compatible address: one dialogue, one reply.

The key comes from the environment, from the variable that the grid names, and is
written nowhere: what a server sends back of it is hidden before it is kept or told.
"""

import http.client
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from jobs.runtime import exchange
from jobs.runtime.exchange import Reply
from zsg_core import addresses, secrets
from zsg_core.errors import ClusterError, UserError
from zsg_core.retry import ExponentialBackoff
from zsg_core.shown_text import make_showable

MOST_BYTES = 4 << 20  # of a reply, its headers included
MOST_SAID = 300  # characters of an error that are told
WAIT_S = 60.0  # the longest that a server may ask us to wait at a time
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
_WRONG = (401, 403, 404)  # key, address or model: the same for every question


class Malformed(Exception):
    """A reply that is no reply, or one without what was asked for."""


class Refused(Exception):
    """The server will not answer this one question. `status`: of HTTP."""

    def __init__(self, said: str, status: int = 0) -> None:
        super().__init__(said)
        self.status = status


class Busy(Exception):
    """The server may answer in a while. `wait_s`: how long it asks to wait."""

    def __init__(self, said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Completion:
    """What a server replied. `is_cut`: it ended at the most tokens that it might have.

    `read` and `written`: tokens that the server says it has counted; None where it says
    nothing.
    """

    text: str
    is_cut: bool = False
    read: int | None = None
    written: int | None = None


@dataclass(frozen=True)
class ChatServer:
    """A model at an address. Its id is its model's name.

    `timeout_s`: of one whole reply, from looking up the name to its last byte;
    `retry_policy`: how a question is retried while the server is busy or out of reach.
    `called` is what messages call it, `told` what they say where it stays out of reach,
    `advice` what to look at where it refuses all.
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

    called: ClassVar[str] = "server"
    told: ClassVar[str] = "Replies so far are kept; submit again later"
    advice: ClassVar[str] = "Look at base_url, model and key_env"

    @classmethod
    def open(
        cls,
        model: str,
        address: str,
        key_env: str | None,
        setting: str,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """The server that `setting`, a dotted key, says; `key_env` names the variable
        of the key.

        UserError where that variable is not set or holds what can be no key, and for
        what is no address.
        """
        bare = address.rstrip("/")
        if why := addresses.explain_refusal(bare):
            raise UserError(f"{setting}.base_url {why}")
        if not key_env:
            return cls(model, bare)
        key = secrets.read_key(key_env, environment)
        if key is None:
            raise UserError(
                f"the {cls.called}'s key is missing: {key_env}, which {setting}.key_env names, is"
                " not set in this job's environment; set it where you call zsg submit"
            )
        return cls(model, bare, key)

    def complete(
        self, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]
    ) -> Completion:
        """The reply to a dialogue; retried while the server is busy or out of reach.
        `settings`: of the request, as temperature and max_tokens.

        ClusterError once the policy gives up, UserError for a wrong key, address or
        model; Malformed and Refused as they say.
        """
        try:
            return self.retry_policy.call(
                lambda: self._complete_once(messages, settings),
                lambda error: isinstance(error, Busy),
                _asked_to_wait_s,
            )
        except Busy as error:
            raise ClusterError(
                f"the {self.called} at {self.uri} did not answer for"
                f" {self.retry_policy.limit_s:g} s: {error}. {self.told}"
            ) from None

    def hide(self, text: str) -> str:
        """A text of the server's without the key, however it is written there, and
        without other keys of this job."""
        return secrets.hide_known(secrets.hide_secrets(text, [self.key]))

    def _complete_once(
        self, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]
    ) -> Completion:
        asked = {"model": self.id, "messages": list(messages), **settings}
        reply = self._post(json.dumps(asked).encode())
        if not 200 <= reply.status < 300:
            raise self._meaning(reply)
        return read_completion(reply.body)

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
                f"the {self.called} at {self.uri} is asked over plain http, which is not this"
                " machine: no key is sent there. Give https://…"
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
                f"the {self.called} at {self.uri} answered HTTP {reply.status} for model"
                f" {self.id}: {said}. {self.advice}"
            )
        return Refused(f"HTTP {reply.status} {said}", reply.status)

    def _told(self, text: str) -> str:
        """The beginning of an error as people may see it."""
        return make_showable(self.hide(text[: 10 * MOST_SAID]), keep="")[:MOST_SAID]


def read_completion(body: bytes) -> Completion:
    """What the body of a reply says. Malformed where it holds no text."""
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise Malformed("no message in the reply") from None
    if not isinstance(content, str):
        raise Malformed("no text in the reply")
    usage = reply.get("usage")
    return Completion(
        text=content,
        is_cut=choice.get("finish_reason") == "length",
        read=_take_count(usage, "prompt_tokens"),
        written=_take_count(usage, "completion_tokens"),
    )


def _take_count(usage: Any, key: str) -> int | None:
    """A number of tokens that a server says; None where it says none, or nonsense."""
    count: Any = usage.get(key) if isinstance(usage, dict) else None
    if not isinstance(count, int) or isinstance(count, bool):
        return None
    return count if 0 <= count < 1 << 40 else None


def _asked_to_wait_s(error: Exception) -> float:
    return error.wait_s if isinstance(error, Busy) else 0.0


def _seconds(retry_after: str | None) -> float:
    """How long a server asks to wait; 0 for a date or what is no time: the usual pauses will do."""
    try:
        asked = float(retry_after or 0)
    except ValueError:
        return 0.0
    return max(0.0, asked) if math.isfinite(asked) else 0.0
