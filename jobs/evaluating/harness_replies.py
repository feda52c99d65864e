"""Keeps what a model's weights of one step said to requests of lm-evaluation-harness, so
that keys that share a task share its answers, too.

A group and one of its tasks, or two groups with a task in common, ask the same; what is
the same is known by the request alone: its texts, and how it is answered. Weights are no
part of that, so these answers are of one step of one run, and of one way of asking, and
never of another.

What an earlier job said at the step is read from what it kept, so that a key which is
taken after a kill has the answers that it would have had without.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import MsgspecError, convert

from jobs.contract import harness_outputs
from jobs.contract import journal as journals
from jobs.contract.exit_record import replace_unset
from jobs.contract.harness_outputs import OutputPlace
from jobs.contract.journal_rows import InsideTaken, find_events
from zsg_core.digest import content_id
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

LENGTH = 32  # hex digits by which a request is known
REQUESTS = "requests"  # the key of an item that is kept

# a log-likelihood and whether it is greedy, a log-likelihood alone, or a text
Reply = tuple[float, bool] | float | str
# what answers the requests of these places of a list
AnswerSome = Callable[[Sequence[int]], Sequence[Reply]]


def digest_request(arguments: Sequence[Any]) -> str:
    """By what a request is known: what it asks, with how an answer is to be generated.

    The kinds of requests differ in their arguments: a text and what follows it, a text
    alone, a text and settings.
    """
    return content_id(list(arguments), LENGTH)


@dataclass
class HeldReplies:
    """What the weights that are held have said, by requests. One that was asked several
    times, as of samples, has several replies, in their order."""

    _by_request: dict[str, list[Reply]] = field(default_factory=dict[str, list[Reply]])
    reused: int = 0  # of the requests of the last list

    def answer(self, digests: Sequence[str], ask: AnswerSome) -> list[Reply]:
        """The replies to requests, in their order. Those that were never answered are
        asked for together, and kept."""
        numbered = _number_repeats(digests)
        missing = [
            index
            for index, (digest, repeat) in enumerate(numbered)
            if repeat >= len(self._by_request.get(digest, ()))
        ]
        self.reused = len(digests) - len(missing)
        if missing:
            replies = ask(missing)
            for index, reply in zip(missing, replies, strict=True):
                self.keep(digests[index], reply)
        return [self._by_request[digest][repeat] for digest, repeat in numbered]

    def keep(self, digest: str, reply: Reply) -> None:
        """Adds one more reply to a request."""
        self._by_request.setdefault(digest, []).append(reply)

    def keep_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Adds what was kept of items by a job before; an item that is listed once for
        each filter counts once. Of an older zsg, which did not say what was asked, nothing
        is added."""
        seen: set[tuple[str, int]] = set()
        counts = Counter[str]()
        for item in items:
            name = str(item.get("task")), int(item.get("doc_id", -1))
            if name in seen:
                continue
            seen.add(name)
            replied = zip(item.get(REQUESTS, ()), item.get("resps", ()), strict=False)
            for digest, replies in replied:
                self._keep_repeats(str(digest), replies, counts)

    def _keep_repeats(
        self, digest: str, replies: Sequence[Any], counts: Counter[str]
    ) -> None:
        """Adds those replies to one request that are not held already. `counts`: how often
        the requests were asked in the list that is read."""
        for value in replies:
            is_new = counts[digest] >= len(self._by_request.get(digest, ()))
            counts[digest] += 1
            reply = _read_reply(value)
            if is_new and reply is not None:
                self.keep(digest, reply)


def _number_repeats(digests: Sequence[str]) -> list[tuple[str, int]]:
    """Each request with how often it stands before in the list."""
    counts = Counter[str]()
    numbered: list[tuple[str, int]] = []
    for digest in digests:
        numbered.append((digest, counts[digest]))
        counts[digest] += 1
    return numbered


def _read_reply(value: Any) -> Reply | None:
    """A reply as it was kept; None where it is none, as a likelihood that is not finite
    is written."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        [*numbers] = value
        if len(numbers) == 2 and isinstance(numbers[0], int | float):
            return float(numbers[0]), bool(numbers[1])
        return None
    return float(value) if isinstance(value, int | float) else None


def read_replies(
    run: Path, step: int, weights: str | None, how: Mapping[str, Any]
) -> HeldReplies:
    """What earlier jobs have kept of a run's step, of the same weights, asked in the same
    way. What cannot be read is passed over: it is asked again."""
    replies = HeldReplies()
    for row, event in find_events(journals.read_guests(run), InsideTaken):
        if row.step != step or event.weights != weights:
            continue
        is_same_way = any(
            how.items() <= settings.items() for settings in event.ways.values()
        )
        if is_same_way:
            for location in _list_places(event):
                _keep_line(replies, run, location)
    return replies


def _list_places(event: InsideTaken) -> list[OutputPlace]:
    """Where an event's answers to tasks of the harness are kept."""
    locations: list[OutputPlace] = []
    for file in replace_unset(event.files, []):
        name = str(file.get("file"))
        if not name.startswith(f"{harness_outputs.HARNESS}/"):
            continue
        try:
            locations.append(convert(file, OutputPlace))
        except MsgspecError:
            continue
    return locations


def _keep_line(replies: HeldReplies, run: Path, location: OutputPlace) -> None:
    """Adds what was kept at a location, where that can be read."""
    try:
        line = harness_outputs.read_outputs(run, location)
        replies.keep_items(line.items)
    except (ClusterError, TypeError, ValueError) as error:
        logger.warning(f"{run.name}: {error}; it is asked again")
