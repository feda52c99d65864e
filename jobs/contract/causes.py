"""Names why a job ended before it was done: one closed set of words, and how an error
or a log line becomes one.

exit.json, `zsg status`, `zsg why` and the rules of retrying all speak of these and of no others.
"""

import errno
import re
from collections.abc import Iterator
from enum import StrEnum

from jobs.files.file_errors import is_of_file_system
from jobs.files.locks import NoLocks
from zsg_core.errors import (
    BadData,
    ClusterError,
    Diverged,
    PluginError,
    UserError,
    ZsgError,
)


class Cause(StrEnum):
    """Why a job ended. Each is its own word in files and tables."""

    OUT_OF_MEMORY = "out of memory"  # the GPU's, or the node's
    DISK_FULL = "disk full"  # or a quota
    FILE_SYSTEM = "file system"  # it, or the server that has it, failed under the job
    NCCL_TIMEOUT = "nccl timeout"  # a collective waited too long for a rank; gloo's too
    PEER_LOST = "peer lost"  # another rank went first: the reason is there
    NODE_FAILURE = "node failure"
    TIME_LIMIT = "time limit"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"  # by somebody
    SIGNAL = "signal"  # told to stop, by whom only the scheduler knows
    PREPARE_FAILED = "prepare failed"  # the job that was to make what this one needs
    STAGE_FAILED = "a stage before failed"  # the run from whose weights this one starts
    # the run that went first, before the others of its grid
    CANARY_FAILED = "canary failed"
    # the job that was to look at the claims between two waves of a grid
    LOOK_FAILED = "look failed"
    SPARED = "spared"  # the claims were decided before its wave began
    BAD_DATA = "bad data"  # a row or file of the data cannot be read
    PLUGIN = "plugin"  # a plugin of the user's fails
    BAD_INPUT = "bad input"  # something else that was asked for cannot be done
    # before zsg itself began: its node lacks Python or the workspace, srun refuses
    LAUNCH_FAILED = "launch failed"
    SETUP = "setup"  # a line of the profile's setup, before the job began
    DIVERGED = "diverged"  # the loss or a gradient is not finite
    # something that zsg found wrong outside itself; the evidence says what
    CLUSTER = "cluster"
    TRACEBACK = "traceback"  # an error that nobody foresaw
    DIED = "died"  # ended without a word


# What a line of a log, or an error's text, proves. The texts are those of torch 2.13,
# NCCL and Slurm 22.05.
_PROOFS = {
    Cause.OUT_OF_MEMORY: (
        r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate"
        r" memory"
        r"|Cannot allocate memory|oom_kill event|oom-kill|task \d+: Out Of"
        r" Memory|^(?:\w+\.)*OutOfMemoryError\b"
        r"|^MemoryError\b"
    ),
    Cause.DISK_FULL: r"No space left on device|Disk quota exceeded|File too large",
    Cause.FILE_SYSTEM: (
        r"Stale file handle|Input/output error|Remote I/O error|Read-only file system|Structure"
        r" needs cleaning|Cannot send after transport endpoint shutdown|\[Errno 110\] [^:]+: '"
        r"|^jobs\.files\.locks\.NoLocks: "
        # as of a file; a right that lacks is none of the file system's
        r"|^jobs\.contract\.folder\.Unreadable: .*: (?:Connection timed out|Transport endpoint is"
        r" not connected|Host is down|No route to host|Communication error on send|No such"
        r" device|Required key not available|Key has (?:expired|been revoked)|No locks available)"
    ),
    Cause.NODE_FAILURE: r"DUE TO NODE FAILURE|srun: error: Node failure on",
    Cause.TIME_LIMIT: r"DUE TO TIME LIMIT",
    Cause.PREEMPTED: r"DUE TO PREEMPTION",
    Cause.NCCL_TIMEOUT: (
        r"Watchdog caught collective operation timeout|Timed out waiting \d+ ?ms for (?:recv|send)"
        r" operation"
        r"|ran for \d+ milliseconds before timing out"
    ),
    Cause.PEER_LOST: (
        r"Connection closed by peer|Connection reset by peer|Broken pipe|Connection was likely"
        r" closed"
        r"|ncclRemoteError|remote process exited|NCCL communicator was aborted|recvBytes failed"
    ),
    Cause.CANCELLED: (
        r"slurmstepd\S*: error: \*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT [^ ]+ \*\*\*"
    ),
    Cause.DIED: r"srun: error: .*task.*: (?:Killed|Aborted|Segmentation fault|Bus error)",
    Cause.LAUNCH_FAILED: (
        r"^srun: fatal: |^slurmstepd\S*: error: (?:execve\(\): |Could not open std)"
    ),
    Cause.SETUP: r"^=== zsg setup line \d+ of \d+ ended with ",
    Cause.DIVERGED: r"^zsg_core\.errors\.Diverged: ",
    Cause.BAD_DATA: r"^zsg_core\.errors\.BadData: ",
    Cause.PLUGIN: r"^zsg_core\.errors\.PluginError: ",
    Cause.BAD_INPUT: r"^zsg_core\.errors\.UserError: ",
    Cause.CLUSTER: r"^zsg_core\.errors\.ClusterError: ",
}
_COMPILED = {cause: re.compile(pattern) for cause, pattern in _PROOFS.items()}
# Where several causes are found, in the logs of several ranks, the one that others
# follow from counts: these last.
CONSEQUENCES = (
    Cause.DIED,
    Cause.NCCL_TIMEOUT,
    Cause.PEER_LOST,
    Cause.SIGNAL,
    Cause.CANCELLED,
)
_OF_SYSTEM_ERROR = {
    errno.ENOMEM: Cause.OUT_OF_MEMORY,
    errno.ENOSPC: Cause.DISK_FULL,
    errno.EDQUOT: Cause.DISK_FULL,
    errno.EFBIG: Cause.DISK_FULL,
}


class Known(ClusterError):
    """What names its cause itself."""

    def __init__(self, cause: Cause, evidence: str) -> None:
        super().__init__(evidence)
        self.cause = cause


def parse_cause(word: str | None) -> Cause | None:
    """The cause that a word names, if it names one."""
    return Cause(word) if word in tuple(Cause) else None


def of_line(line: str) -> Cause | None:
    """What a line of a log proves; None for most."""
    return next(
        (cause for cause, pattern in _COMPILED.items() if pattern.search(line)), None
    )


def of_error(error: BaseException) -> Cause:
    """Why a job ended with this error, or with one that this error came of.

    What the system says comes first: that a disk failed is never the fault of the data
    that lie on it.
    """
    links = list(_chain(error))
    for link in links:
        if cause := _of_system(link, is_outermost=link is error):
            return cause
    for link in links:
        cause = _of_class(link) or _of_text(str(link))
        if cause:
            return cause
    return Cause.CLUSTER if isinstance(error, ZsgError) else Cause.TRACEBACK


def _of_system(error: BaseException, *, is_outermost: bool) -> Cause | None:
    """What the system's number for an error proves."""
    if isinstance(error, NoLocks) or is_of_file_system(error):
        return Cause.FILE_SYSTEM
    if not isinstance(error, OSError):
        return None
    # Of a read, which names no file; a server that does not answer has one of ours around it.
    if is_outermost and error.errno == errno.ETIMEDOUT:
        return Cause.FILE_SYSTEM
    return _OF_SYSTEM_ERROR.get(error.errno or 0)


def _of_class(error: BaseException) -> Cause | None:
    """What the class of an error proves."""
    match error:
        case MemoryError():
            return Cause.OUT_OF_MEMORY
        case Diverged():
            return Cause.DIVERGED
        case BadData():
            return Cause.BAD_DATA
        case PluginError():
            return Cause.PLUGIN
        case UserError():
            return Cause.BAD_INPUT
        case _:
            return None


def _of_text(text: str) -> Cause | None:
    """What the lines of an error's text prove; of several, what the others follow from."""
    causes = [cause for line in text.splitlines() if (cause := of_line(line))]
    return min(causes, key=rank_cause, default=None)


def rank_cause(cause: str | None) -> int:
    """How near the beginning of a failure a cause is: the least counts, the others
    follow from it."""
    if cause is None:
        return 2 + len(CONSEQUENCES)
    if cause in CONSEQUENCES:
        return 2 + CONSEQUENCES.index(Cause(cause))
    return 1 if cause in (Cause.TRACEBACK, Cause.CLUSTER) else 0


def precedes(cause: str | None, later: str | None) -> bool:
    """Whether `later` may have followed from `cause`, so that this is the reason to be told."""
    return (
        later in CONSEQUENCES
        and cause is not None
        and rank_cause(cause) < rank_cause(later)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from, the last first."""
    while error is not None:
        yield error
        error = error.__cause__ or (
            None if error.__suppress_context__ else error.__context__
        )
