"""Asks a model at an OpenAI-compatible address: one dialogue, one reply.

The key comes from the environment, from the variable that the grid names, and is
written nowhere: what a server sends back of it is hidden before it is kept or told.
"""

import http.client
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from jobs.runtime import exchange, refused_settings
from jobs.runtime.exchange import Reply
from jobs.runtime.refused_settings import Adaptation
from zsg_core import addresses, secrets
from zsg_core.errors import ClusterError, UserError
from zsg_core.retry import ExponentialBackoff
from zsg_core.shown_text import make_showable

logger = logging.getLogger(__name__)

MOST_BYTES = 4 << 20  # of a reply, its headers included
# where servers keep apart what a model thought: DeepSeek and vLLM; OpenRouter; others
REASONING_KEYS = ("reasoning_content", "reasoning", "reasoning_details")
MOST_SAID = 300  # characters of an error that are told
WAIT_S = 60.0  # the longest that a server may ask us to wait at a time
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
_WRONG = (401, 403, 404)  # key, address or model: the same for every question


class Malformed(Exception):
    """A reply that is no reply, or one without what was asked for."""


class Refused(Exception):
    """The server will not answer this one question. `status`: of HTTP; `settings`: those
    of the request that it says it does not take; `completion`: the reply, with what it
    took, of a model that declines; None where no model was asked."""

    def __init__(
        self,
        said: str,
        status: int = 0,
        settings: frozenset[str] = frozenset(),
        completion: "Completion | None" = None,
    ) -> None:
        super().__init__(said)
        self.status = status
        self.settings = settings
        self.completion = completion


class Busy(Exception):
    """The server may answer in a while. `wait_s`: how long it asks to wait."""

    def __init__(self, said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Completion:
    """What a server replied. `is_cut`: it ended at the most tokens that it might have.

    `read` and `written`: tokens that the server says it has counted, those of thinking
    too; None where it says nothing. What a server keeps apart as its model's thinking is
    not in `text`; `has_reasoning` says that there is some. `settings`: of the request, as
    the server took it. `refusal`: what it says in place of a text where its model or a
    filter declines to answer.
    """

    text: str
    is_cut: bool = False
    read: int | None = None
    written: int | None = None
    has_reasoning: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    refusal: str | None = None


@dataclass(frozen=True)
class ChatServer:
    """A model at an address. Its id is its model's name.

    `timeout_s`: of one whole reply, from looking up the name to its last byte;
    `retry_policy`: how a question is retried while the server is busy or out of reach.
    `adaptation`: what it has refused of requests' settings, and how it is asked since.
    `called` is what messages call it, `told` what they say where it stays out of reach,
    `advice` what to look at where it refuses all; `does_without`: the settings without
    which it may be asked where it refuses them.
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
    adaptation: Adaptation = field(
        default_factory=Adaptation, compare=False, repr=False
    )

    does_without: ClassVar[frozenset[str]] = frozenset()
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
        `settings`: of the request, as temperature and max_tokens. One that the server
        does not take has another name, or is left out, where that may be: see
        `refused_settings`.

        ClusterError once the policy gives up, UserError for a wrong key, address or
        model; Malformed and Refused as they say.
        """
        while True:
            adapted = self.adaptation.apply(settings)
            try:
                return self._complete_patiently(messages, adapted)
            except Refused as error:
                told = self.adaptation.learn(error.settings, self.does_without)
                if self.adaptation.apply(settings) == adapted:
                    raise
            if told:
                logger.warning(f"the {self.called} at {self.uri} {told}")

    def _complete_patiently(
        self, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]
    ) -> Completion:
        """The reply to a request, which is sent again while the server is busy."""
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
            raise self._meaning(reply, settings)
        completion = read_completion(reply.body)
        if completion.refusal is not None:
            # it would decline again
            message = f"HTTP {reply.status}, declined: {self._told(completion.refusal)}"
            raise Refused(message, reply.status, completion=completion)
        return replace(completion, settings=settings)

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

    def _meaning(self, reply: Reply, settings: Mapping[str, Any]) -> Exception:
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
        refused = refused_settings.find_refused(reply.status, reply.body, settings)
        return Refused(f"HTTP {reply.status} {said}", reply.status, refused)

    def _told(self, text: str) -> str:
        """The beginning of an error as people may see it."""
        return make_showable(self.hide(text[: 10 * MOST_SAID]), keep="")[:MOST_SAID]


def read_completion(body: bytes) -> Completion:
    """What the body of a reply says. Malformed where it holds no text, but for one whose
    model has only thought so far, or declines: its text is empty."""
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        message = choice["message"]
        content = message["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise Malformed("no message in the reply") from None
    is_cut = choice.get("finish_reason") == "length"
    has_reasoning = any(message.get(key) for key in REASONING_KEYS)
    if isinstance(content, list):
        has_reasoning |= any(_is_thinking(part) for part in content)
        content = "".join(map(_take_text, content))
    refusal = _find_refusal(choice, message)
    if content is None and (is_cut or has_reasoning or refusal is not None):
        content = ""
    if not isinstance(content, str):
        raise Malformed("no text in the reply")
    usage = reply.get("usage")
    return Completion(
        text=content,
        is_cut=is_cut,
        read=_take_count(usage, "prompt_tokens"),
        written=_take_count(usage, "completion_tokens"),
        has_reasoning=has_reasoning,
        refusal=None if content else refusal,
    )


def _find_refusal(choice: Mapping[str, Any], message: Mapping[str, Any]) -> str | None:
    """What a model says that declines in place of an answer, or that a filter took it
    out; None where nobody does."""
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return refusal
    return "content_filter" if choice.get("finish_reason") == "content_filter" else None


def _is_thinking(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")


def _take_text(part: Any) -> str:
    """The text of one part of a message's content; none of a thought or a picture."""
    text: Any = part.get("text") if isinstance(part, dict) else None
    is_text = isinstance(part, dict) and part.get("type") == "text"
    return text if is_text and isinstance(text, str) else ""


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
