"""Runs a piece of work under real limits, memory by RLIMIT_AS and time by a clock, in a
child of this process."""

import contextlib
import os
import pickle
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def within(memory: int, seconds: int, work: Callable[[], Any]) -> Any:
    """What `work` returns, made with at most so many more bytes of address space than
    there are now, in that time.

    AssertionError for an error that it raises, a limit that it meets, or a signal that ends it.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _work(memory, seconds, work, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    status = os.waitpid(child, 0)[1]
    assert status == 0, (
        f"the child ended with {os.waitstatus_to_exitcode(status)}: {told[:2000]!r}"
    )
    return pickle.loads(told)


def limit_memory(more: int) -> None:
    """Lets this process take at most so many more bytes of address space than it has now."""
    taken = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    )
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, taken + more))


def seconds_of(work: Callable[[], Any]) -> float:
    """The CPU time of a piece of work, which other programs of the machine do not lengthen."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _work(memory: int, seconds: int, work: Callable[[], Any], write: int) -> None:
    code = 1
    with contextlib.suppress(BaseException):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        limit_memory(memory)
        try:
            told = pickle.dumps(work())
            code = 0
        except BaseException as error:
            told = f"{type(error).__name__}: {error}".encode()
        with os.fdopen(write, "wb") as pipe:
            pipe.write(told)
    os._exit(code)
