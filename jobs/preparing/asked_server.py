"""Asks a model at an address for a maker of data, within a budget."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.contract.job_file import ServerToAsk
from jobs.preparing.reply_log import LoggedReply, ReplyLog, clean_text, digest_request
from jobs.runtime.chat_server import ChatServer, Completion, Malformed, Refused
from zsg_core.data.examples import Turn
from zsg_core.digest import content_id
from zsg_core.errors import UserError
from zsg_core.makers.registry import Request
from zsg_core.settings.fields import MILLION
from zsg_core.side_by_side import map_side_by_side

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # at a reply that is none
MOST_REFUSED = 5  # different questions, before any reply has a text
AROUND = 16  # tokens that a server's template may write around a text, at most
NO_TEXT = "the server's reply has no text"
TOLD_EVERY = 50  # replies


@dataclass
class Budget:
    """What may still be spent. A request is begun only where its dearest outcome fits:
    a token of each byte that is read, and as many as it may write."""

    price_read: float
    price_written: float
    limit: float
    spent: float = 0.0
    reserved: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def cost(self, read: int, written: int) -> float:
        """What so many tokens cost."""
        return (read * self.price_read + written * self.price_written) / MILLION

    def reserve(self, read: int, written: int) -> bool:
        """Sets aside what a request may cost; False where it is beyond the limit."""
        dearest = self.cost(read, written)
        with self._lock:
            if self.spent + self.reserved + dearest > self.limit:
                return False
            self.reserved += dearest
            return True

    def settle(self, reserved: Sequence[int], used: Sequence[int]) -> None:
        """Books what a request has cost in place of what was set aside. Both are tokens
        read and tokens written."""
        with self._lock:
            self.reserved -= self.cost(*reserved)
            self.spent += self.cost(*used)


class AskedServer:
    """A server's model, which a maker asks. `name`: for people."""

    def __init__(
        self, server: ChatServer, settings: ServerToAsk, seed: int = 0
    ) -> None:
        """`seed`: of the requests' own seeds, where they have any."""
        self._server = server
        self._settings = settings
        self._seed = seed
        self.name = f"{settings.model} at {settings.base_url}"

    def answer(self, requests: Sequence[Request], log: ReplyLog) -> None:
        """Has every request of a round in the log. UserError where the budget is spent;
        other errors as of ChatServer.complete. What was replied until then is kept."""
        waiting = [request for request in requests if log.get(request) is None]
        if not waiting:
            return
        have = len(requests) - len(waiting)
        logger.info(f"asking {self.name} {len(waiting)} times; {have} replies are here")
        budget = self._open_budget(log)
        counter = _Counter(len(waiting))
        refusals = Refusals(log)

        def work(request: Request) -> None:
            bound = (bound_read(request), request.sampling.max_new_tokens)
            if budget is not None and not budget.reserve(*bound):
                raise self._explain_spent(budget, counter)
            reply = self._ask(request, bound)
            if not refusals.keep(request, reply):
                raise self._explain_refusals(reply)
            if budget is not None:
                budget.settle(bound, (reply.read, reply.written))
            counter.count()

        # a server may take minutes, which a job that is told to stop has not
        map_side_by_side(work, waiting, self._settings.at_once, waits=False)
        refusals.close()

    def cost(self, read: int, written: int) -> float | None:
        """What so many tokens cost; None where no prices are said."""
        settings = self._settings
        if settings.price_read is None or settings.price_written is None:
            return None
        return (read * settings.price_read + written * settings.price_written) / MILLION

    def _open_budget(self, log: ReplyLog) -> Budget | None:
        settings = self._settings
        if settings.budget is None:
            return None
        assert settings.price_read is not None and settings.price_written is not None
        budget = Budget(settings.price_read, settings.price_written, settings.budget)
        budget.spent = budget.cost(log.spent.read, log.spent.written)
        return budget

    def _explain_spent(self, budget: Budget, counter: "_Counter") -> UserError:
        return UserError(
            f"make.by.budget is {budget.limit:g}, and {budget.spent:.4g} is spent with"
            f" {counter.left} requests left; replies so far are kept. Raise the budget, or lower"
            " `items`, and submit again"
        )

    def _explain_refusals(self, reply: LoggedReply) -> UserError:
        return UserError(
            f"{self.name} has replied to none of the first {MOST_REFUSED} questions:"
            f" {reply.refused}: {reply.said}. Nothing of it is kept; look at the model's name and"
            " at how it is asked (max_new_tokens, seeds)"
        )

    def _ask(self, request: Request, bound: tuple[int, int]) -> LoggedReply:
        """The reply to a request, or why there is none: then nobody asks again."""
        why = ""
        for _ in range(ATTEMPTS):
            try:
                completion = self._server.complete(
                    write_messages(request), self._write_settings(request)
                )
            except Refused as error:
                reason = f"refused by the server (HTTP {error.status})"
                return _refuse(request, reason, str(error), error.completion)
            except Malformed as error:
                why = str(error)
                continue
            return self._keep(request, completion, bound)
        return _refuse(request, NO_TEXT, why)

    def _write_settings(self, request: Request) -> dict[str, Any]:
        """How the reply is drawn."""
        settings = write_settings(request)
        if self._settings.seeds:
            named = {"draws": self._seed, "item": request.id}
            settings["seed"] = int(content_id(named), 16) % (1 << 31)
        return settings

    def _keep(
        self, request: Request, completion: Completion, bound: tuple[int, int]
    ) -> LoggedReply:
        read = completion.read
        written = completion.written
        return LoggedReply(
            request=digest_request(request),
            id=request.id,
            text=clean_text(self._server.hide(completion.text)),
            cut=completion.is_cut,
            # where the server counts nothing, what it can be at most
            read=bound[0] if read is None else read,
            written=bound[1] if written is None else written,
        )


class Refusals:
    """Keeps replies in the log; refusals only once some request has a text, or all are
    done: a server that refuses everything is not set up, and is to be asked again."""

    def __init__(self, log: ReplyLog) -> None:
        self._log = log
        self._held: list[LoggedReply] = []
        self._refused: set[tuple[Turn, ...]] = set()
        self._is_answered = any(reply.text for reply in log)
        self._lock = threading.Lock()

    def keep(self, request: Request, reply: LoggedReply) -> bool:
        """Keeps one. False where the first questions were all refused, of which none is
        kept then."""
        with self._lock:
            if reply.refused and not self._is_answered:
                self._held.append(reply)
                self._refused.add(request.turns)
                return len(self._refused) < MOST_REFUSED
            self._is_answered = True
            earlier = self._held
            self._held = []
        self._log.add([*earlier, reply])
        return True

    def close(self) -> None:
        """Keeps what is held of few requests."""
        self._log.add(self._held)
        self._held = []


class _Counter:
    """Counts what is done, and says so now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        return self._total - self._done

    def count(self) -> None:
        with self._lock:
            self._done += 1
            replied = self._done
        if replied % TOLD_EVERY == 0 or replied == self._total:
            logger.info(f"{replied} of {self._total} requests have a reply")


def open_server(maker: str, seed: int, settings: ServerToAsk) -> AskedServer:
    """The server that a maker asks; `seed`: of its requests' own. UserError where the
    server's key is missing."""
    server = ChatServer.open(
        settings.model,
        settings.base_url,
        settings.key_env,
        f"make.by of maker {maker}",
    )
    return AskedServer(server, settings, seed)


def write_messages(request: Request) -> list[dict[str, str]]:
    """A request as the protocol has it."""
    messages: list[dict[str, str]] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    for question, answer in request.turns[:-1]:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    messages.append({"role": "user", "content": request.turns[-1][0]})
    return messages


def write_settings(request: Request) -> dict[str, Any]:
    """How the reply is drawn, as the protocol has it."""
    sampling = request.sampling
    settings: dict[str, Any] = {
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_new_tokens,
    }
    if sampling.top_p != 1.0:
        settings["top_p"] = sampling.top_p
    if sampling.stops:
        settings["stop"] = list(sampling.stops)
    return settings


def bound_read(request: Request) -> int:
    """The most tokens that a server reads of a request: one of each byte, and what its
    template writes around the texts."""
    messages = write_messages(request)
    return sum(
        len(each["content"].encode(errors="replace")) + AROUND for each in messages
    )


def _refuse(
    request: Request, reason: str, message: str, completion: Completion | None = None
) -> LoggedReply:
    """A reply without a text. `completion`: of a model that declines, which took tokens."""
    read = completion.read if completion is not None else 0
    written = completion.written if completion is not None else 0
    return LoggedReply(
        request=digest_request(request),
        id=request.id,
        refused=reason,
        said=clean_text(message),
        read=read or 0,
        written=written or 0,
    )
