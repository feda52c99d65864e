"""Keeps what a model replied to a maker of data: on the disk before the next request,
and never asked for again.

replies/<id>/replies.jsonl   a line for each reply: the digest of its request, the
                             request's id, the text, whether it is cut, why there is none,
                             tokens read and written
replies/<id>/batches.json    of a model in a folder: the most tokens of its batches, as
                             they were planned first

The id is of all that decides what is asked and who: sets that differ in what is kept of
the replies share them. One job at a time writes, under the lock of the folder.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jobs.contract.folder import make_unreadable
from jobs.files import ownership
from zsg_core.digest import content_id
from zsg_core.makers.registry import Reply, Request

LOG = "replies.jsonl"
DIGEST_LENGTH = 24  # hex digits: of millions of requests no two have one


class LoggedReply(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the log. `request`: the digest of all that was asked; `refused`: why
    there is no text; `said`: what a server said of it."""

    request: str
    id: str
    text: str = ""
    cut: bool = False
    refused: str = ""
    said: str = ""
    read: int = 0
    written: int = 0

    @property
    def reply(self) -> Reply:
        """As a maker is told."""
        return Reply(text=self.text, is_cut=self.cut, refused=self.refused)


@dataclass(frozen=True)
class Spent:
    """Tokens of requests and of replies."""

    read: int = 0
    written: int = 0


def digest_request(request: Request) -> str:
    """What tells a request from others: its id and all that is asked."""
    sampling = request.sampling
    content = {
        "id": request.id,
        "system": request.system,
        "turns": [list(turn) for turn in request.turns],
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stops": list(sampling.stops),
    }
    return content_id(content, DIGEST_LENGTH)


class ReplyLog:
    """The replies of a folder; threads may add to it at once."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there. What a kill has cut off of the last line is taken away,
        and a line that is none is passed over: its request is asked again."""
        self.folder = folder
        self._path = folder / LOG
        self._lock = threading.Lock()
        self._replies: dict[str, LoggedReply] = {}
        self._read_tokens = 0
        self._written_tokens = 0
        ownership.make_folder(folder)
        for line in self._read_lines():
            try:
                self._enter(msgspec.json.decode(line, type=LoggedReply))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue

    def __len__(self) -> int:
        return len(self._replies)

    def __iter__(self) -> Iterator[LoggedReply]:
        return iter(list(self._replies.values()))

    def __contains__(self, digest: str) -> bool:
        """Whether the request of that digest has a reply."""
        return digest in self._replies

    def get(self, request: Request) -> LoggedReply | None:
        """What was replied to this request; None where nobody was asked."""
        return self._replies.get(digest_request(request))

    @property
    def spent(self) -> Spent:
        """The tokens of all that stands here."""
        return Spent(self._read_tokens, self._written_tokens)

    def add(self, replies: Iterable[LoggedReply]) -> None:
        """Keeps replies; they are on the disk when this returns. Of two to one request
        the first counts."""
        with self._lock:
            new = [reply for reply in replies if reply.request not in self._replies]
            lines = b"".join(msgspec.json.encode(reply) + b"\n" for reply in new)
            if not lines:
                return
            self._append(lines)
            for reply in new:
                self._enter(reply)

    def _enter(self, reply: LoggedReply) -> None:
        if reply.request not in self._replies:
            self._replies[reply.request] = reply
            self._read_tokens += reply.read
            self._written_tokens += reply.written

    def _read_lines(self) -> list[bytes]:
        try:
            whole, newline, torn = self._path.read_bytes().rpartition(b"\n")
            if torn:
                os.truncate(self._path, len(whole + newline))
            return whole.splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise make_unreadable(self._path, error) from error

    def _append(self, lines: bytes) -> None:
        try:
            file = ownership.open_or_make(self._path, os.O_APPEND | os.O_WRONLY, 0o600)
        except OSError as error:
            raise make_unreadable(self._path, error) from error
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)


def clean_text(text: str) -> str:
    """A text that can be written as UTF-8: halves of characters become question marks."""
    return text.encode(errors="replace").decode()
