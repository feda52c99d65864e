"""Calls a program of Slurm: within a time limit, and whatever bytes it prints.

A site's own programs may stand before Slurm's. They print notices in any encoding, ask for
a password that nobody types, or wait without end for a daemon that is away.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from zsg_core.errors import ClusterError

Runner = Callable[..., subprocess.CompletedProcess[str]]

# How long a call may take, by what it does. A controller that is away is given up by
# Slurm's own programs only after its MessageTimeout, which may be minutes.
ASK_S = 60.0  # squeue, scontrol show, sinfo
LOOK_S = 30.0  # the same for somebody who only looks, and can be answered without
ACCOUNTING_S = 20.0  # sacct of given ids: an index answers
SEARCH_S = 60.0  # sacct of a name: a table is read
CHANGE_S = 120.0  # scancel, scontrol release: of whole arrays
SUBMIT_S = 180.0  # sbatch: a site's plugins may look at the job for long
_KILLED_S = 5.0  # until a killed program is gone
# Colours and a byte order mark, which may stand before an answer on its own line.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\n]*\x07|[@-Z\\-_])|\ufeff"
)


class NoAnswer(ClusterError):
    """A program of Slurm has not ended in time: what it was to do may be done or not."""


def run_program(
    argv: Sequence[str], *, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """What a program prints. OSError where it cannot be started.

    TimeoutExpired where it has not ended after `timeout` seconds: then it is killed, with
    all that it has started.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        process_group=0,
    )
    try:
        output, complaint = process.communicate(timeout=timeout)
    except BaseException:
        _kill(process)
        raise
    return subprocess.CompletedProcess(
        argv, process.returncode, read_text(output), read_text(complaint)
    )


def look_with(run: Runner) -> Runner:
    """Runs programs for somebody who only looks: none for longer than LOOK_S."""

    def run_briefly(
        argv: Sequence[str], *, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        return run(argv, env=env, timeout=min(timeout, LOOK_S))

    return run_briefly


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it has started; one that a dead disk holds is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED_S)
    pipes: tuple[IO[bytes] | None, ...] = (process.stdout, process.stderr)
    for pipe in pipes:
        if pipe is not None:
            pipe.close()


def read_text(printed: bytes) -> str:
    """What a program has printed, as text: bytes that are no UTF-8 are replaced, colours
    are left out."""
    text = printed.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return _ESCAPES.sub("", text)


def call_program(
    argv: Sequence[str],
    limit_s: float,
    env: Mapping[str, str],
    run: Runner = run_program,
) -> subprocess.CompletedProcess[str]:
    """A program's answer, whether or not it has failed. ClusterError where it cannot be
    started, NoAnswer where it has not ended in time."""
    name = Path(argv[0]).name
    try:
        return run(argv, env=env, timeout=limit_s)
    except OSError as error:
        raise ClusterError(f"{name} cannot be started here: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{name} did not answer within {limit_s:g} s") from error


def read_fields(text: str, first: str) -> dict[str, str]:
    """The fields `Key=value` of the first line that begins with a key.

    A site may print other lines before it. Of a key that comes twice the first counts:
    free texts, such as a comment, stand last.
    """
    line = next((line for line in text.split("\n") if line.startswith(f"{first}=")), "")
    fields: dict[str, str] = {}
    for word in line.split():
        key, equals, value = word.partition("=")
        if equals:
            fields.setdefault(key, value)
    return fields
