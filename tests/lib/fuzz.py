"""Changes good files at random and gives them to readers: thousands in a row, each
under a real limit.

A file is changed by its number alone, so that a fault is found again: bytes are
flipped, cut, doubled and put from one file into another, numbers become others that are
known to hurt, keys and brackets are doubled and nested.
"""

import mmap
import os
import random
import re
import signal
import struct
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lib.resource_limits import limit_memory

MEMORY = 3 << 30  # bytes more than the process has before
SECONDS = 20  # of a file; the clock of a loaded machine
MOST_FAULTS = 5  # of one reader; then it is given up

NUMBERS = [
    b"0",
    b"-1",
    b"1e999",
    b"-1e-999",
    b"9" * 19,
    b"9" * 400,
    b"1" * 5000,
    b"2147483648",
    b"NaN",
    b"1.5",
    b"1/0",
]
WORDS = [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\r",
    b"\n",
    b"\n\n\n",
    b"\t",
    b'"',
    b"'",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b'""',
    b"[" * 3000,
    b'{"a":' * 3000,
    b"{" * 30,
    b"- " * 200,
    b"*a",
    b"&a ",
    b"!!python/name:os.system ",
    b"<<: ",
    b"# ",
    b": ",
    b", ",
    b"~",
    b"2026-01-01",
    b"a" * 70_000,
    "\u202e".encode(),
    b"\x1b[2J",
    b"PAR1",
    b"..",
    b"/",
    b"$(x)",
    b"{0.__class__}",
]
WHOLE = [
    0,
    1,
    -1,
    127,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**40,
    2**63 - 1,
    -(2**63),
]
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_PAIR = re.compile(rb'"[^"\n]{1,40}"\s*:\s*(?:"[^"\n]*"|[\w.\[\]{}-]+)')


@dataclass(frozen=True)
class Fault:
    """A file that was met by no declared error, and what came instead."""

    number: int
    what: str
    kept: Path


def changed(corpus: Sequence[bytes], number: int) -> bytes:
    """The file of a number."""
    rng = random.Random(number)
    text = rng.choice(corpus)
    for _ in range(rng.choice((1, 1, 2, 4))):
        text = rng.choice(_CHANGES)(text, rng, corpus)[: 1 << 20]
    return text


def _spot(text: bytes, rng: random.Random, width: int = 40) -> tuple[int, int]:
    begin = rng.randrange(len(text) + 1)
    return begin, min(len(text), begin + rng.randint(1, width))


def _flip(text: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    if not text:
        return text
    made = bytearray(text)
    for _ in range(rng.choice((1, 1, 3))):
        place = rng.randrange(len(made))
        made[place] = rng.choice(
            (made[place] ^ (1 << rng.randrange(8)), rng.randrange(256))
        )
    return bytes(made)


def _cut(text: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    begin, end = _spot(text, rng)
    return rng.choice((text[:begin], text[begin:], text[:begin] + text[end:]))


def _double(text: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    begin, end = _spot(text, rng, 200)
    return text[:end] + text[begin:end] * rng.choice((1, 2, 300)) + text[end:]


def _splice(text: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    other = rng.choice(corpus)
    begin, end = _spot(other, rng, 400)
    place = rng.randrange(len(text) + 1)
    return (
        text[:place] + other[begin:end] + text[place + rng.choice((0, end - begin)) :]
    )


def _word(text: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    begin, end = _spot(text, rng, 8)
    return text[:begin] + rng.choice(WORDS) + text[rng.choice((begin, end)) :]


def _number(text: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    found = list(_NUMBER.finditer(text))
    if not found:
        return _word(text, rng, corpus)
    spot = rng.choice(found)
    return text[: spot.start()] + rng.choice(NUMBERS) + text[spot.end() :]


def _whole(text: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    size, order = rng.choice((2, 4, 8)), rng.choice("<>")
    kind = {2: "H", 4: "I", 8: "Q"}[size]
    place = rng.randrange(len(text) + 1)
    number = rng.choice(WHOLE) & ((1 << 8 * size) - 1)
    return text[:place] + struct.pack(order + kind, number) + text[place + size :]


def _pair(text: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """A key with its value once more, or within itself."""
    found = list(_PAIR.finditer(text))
    if not found:
        return _double(text, rng, corpus)
    spot = rng.choice(found)
    key, _, value = spot[0].partition(b":")
    other = rng.choice(found)[0].partition(b":")[2]
    made = rng.choice(
        (
            spot[0] + b"," + spot[0],
            spot[0] + b"," + key + b":" + other,
            key + b":" + other,
            key + b":[" + value + b"]",
            key + b":{" + spot[0] + b"}",
            key + b":" + b"[" * 60 + value + b"]" * 60,
            key + b":null",
        )
    )
    return text[: spot.start()] + made + text[spot.end() :]


_CHANGES: list[Callable[[bytes, random.Random, Sequence[bytes]], bytes]] = [
    _flip,
    _flip,
    _cut,
    _double,
    _splice,
    _word,
    _number,
    _whole,
    _pair,
]


@dataclass(frozen=True)
class Limits:
    """`change`: what makes the file of a number; `memory`: so many bytes more than the
    process has before."""

    change: Callable[[Sequence[bytes], int], bytes] = changed
    memory: int = MEMORY


@dataclass(frozen=True)
class _Task:
    """What a child reads, and how."""

    path: Path
    corpus: Sequence[bytes]
    read: Callable[[Path], Any]
    declared: tuple[type[BaseException], ...]
    limits: Limits


def faults(
    folder: Path,
    file: str,
    corpus: Sequence[bytes],
    read: Callable[[Path], Any],
    declared: tuple[type[BaseException], ...],
    numbers: range,
    limits: Limits | None = None,
) -> list[Fault]:
    """What is wrong with reading the files of these numbers, each as `file` in the
    folder; see `_read_all`.

    `read` may return a sentence that says what is wrong with the rows that it made.
    """
    limits = limits or Limits()
    found: list[Fault] = []
    at = numbers.start
    while at < numbers.stop and len(found) < MOST_FAULTS:
        with mmap.mmap(-1, 8) as place:
            task = _Task(folder / file, corpus, read, declared, limits)
            told, status = _in_child(task, range(at, numbers.stop), place)
            met = struct.unpack("<q", place[:])[0]
        what = told or (
            f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else ""
        )
        if not what:
            assert status == 0, f"the child ended with {status} at file {met}"
            break
        kept = folder / f"fault-{met}"
        kept.write_bytes(limits.change(corpus, met))
        found.append(Fault(met, what, kept))
        at = met + 1
    return found


def _in_child(task: _Task, numbers: range, place: mmap.mmap) -> tuple[str, int]:
    """What the first file that is wrong made the reader say, and the status of the
    child that read them."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(out)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            limit_memory(task.limits.memory)
            told = _read_all(task, numbers, place)
            os.write(into, told[:60_000].encode(errors="replace"))
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        told = pipe.read().decode()
    return told, os.waitpid(child, 0)[1]


def _read_all(task: _Task, numbers: range, place: mmap.mmap) -> str:
    for number in numbers:
        place[:] = struct.pack("<q", number)
        task.path.write_bytes(task.limits.change(task.corpus, number))
        signal.alarm(SECONDS)
        try:
            wrong = task.read(task.path)
        except task.declared:
            continue
        except BaseException:
            return traceback.format_exc(limit=-8)
        if isinstance(wrong, str):
            return wrong
    signal.alarm(0)
    return ""
