"""Is the reason of a failure named by one word of a closed set, and the same bug by the
same hash?"""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch

from jobs.contract import attempt as attempts
from jobs.contract import causes
from jobs.contract.causes import Cause
from jobs.contract.folder import read_json
from jobs.contract.states import Outcome
from jobs.runtime import tracebacks
from tests.lib.log_lines import NCCL
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import BadData, ClusterError, UserError


def raised(act) -> BaseException:
    """The error that calling `act` ends with."""
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def chained() -> None:
    """What States.save makes of a full disk."""
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        raise ClusterError("the state of step 4 could not be saved") from error


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        pytest.param(
            lambda: torch.empty(1 << 50, dtype=torch.uint8),
            Cause.OUT_OF_MEMORY,
            id="torch's own allocator",
        ),
        pytest.param(
            lambda: bytes(1 << 60), Cause.OUT_OF_MEMORY, id="Python's own allocator"
        ),
        pytest.param(
            lambda: Path("/dev/full").open("w", buffering=1).write("x\n"),
            Cause.DISK_FULL,
            id="a full disk",
        ),
        pytest.param(
            chained, Cause.DISK_FULL, id="a full disk behind an error of ours"
        ),
        pytest.param(
            lambda: Intake().refuse_row("a.json: row 3", "no output"),
            Cause.BAD_DATA,
            id="a row",
        ),
        pytest.param(
            lambda: exec("raise UserError('x')", {"UserError": UserError}),
            Cause.BAD_INPUT,
            id="a setting",
        ),
        pytest.param(
            lambda: exec("raise E('x')", {"E": ClusterError}),
            Cause.CLUSTER,
            id="what we found wrong",
        ),
        pytest.param(lambda: {}["key"], Cause.TRACEBACK, id="a bug"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_has_one_cause(act, cause):
    """Whatever ends a job, one word of the set says why."""
    assert causes.of_error(raised(act)) is cause


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (NCCL, Cause.NCCL_TIMEOUT),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …",
            Cause.OUT_OF_MEMORY,
        ),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step …",
            Cause.OUT_OF_MEMORY,
        ),
        ("srun: error: n1: task 0: Out Of Memory", Cause.OUT_OF_MEMORY),
        ("srun: error: Node failure on n1", Cause.NODE_FAILURE),
        (
            (
                "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-25T10:00:00 DUE TO NODE"
                " FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***"
            ),
            Cause.NODE_FAILURE,
        ),
        (
            (
                "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-25T10:00:00 DUE TO TIME"
                " LIMIT ***"
            ),
            Cause.TIME_LIMIT,
        ),
        (
            (
                "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-25T10:00:00 DUE TO"
                " PREEMPTION ***"
            ),
            Cause.PREEMPTED,
        ),
        (
            "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-25T10:00:00 ***",
            Cause.CANCELLED,
        ),
        ("srun: error: n2: task 1: Killed", Cause.DIED),
        ("step 40 of 200, loss 2.1, and all is well", None),
    ],
)
def test_a_line_of_a_log_proves_a_cause(line, cause):
    """The texts of torch, NCCL and Slurm are known; what is none of them proves nothing."""
    assert causes.of_line(line) is cause


def test_every_word_is_said_once():
    """No two causes share a word, and each is a plain text in JSON."""
    assert len({str(cause) for cause in Cause}) == len(Cause)
    assert all(cause.lower() == cause for cause in Cause)


def test_a_rank_that_only_followed_gives_way(tmp_path):
    """The rank that lost its peer is first to tell its end; the reason of the other
    still takes its place."""
    made = attempts.begin_attempt(tmp_path, "s")
    for cause in (
        Cause.PEER_LOST,
        Cause.OUT_OF_MEMORY,
        Cause.TRACEBACK,
        Cause.PEER_LOST,
    ):
        attempts.end_attempt(tmp_path, made, Outcome.FAILED, cause=cause)

    assert (read_json(tmp_path / "exit.json") or {})["cause"] == "out of memory"


SCRIPT = """
def inner(value):
{padding}    raise ValueError(f"no {{value!r}} at {{hex(id(value))}} in step {{len(value)}} of /runs/{{value}}/x.json")

def outer(value):
    inner(value)

outer({value!r})
"""


def printed(
    folder: Path, value: str, padding: str = "", text: str = SCRIPT
) -> list[str]:
    """The traceback that a script of its own folder really prints."""
    (folder / "pack").mkdir(parents=True)
    path = folder / "pack/script.py"
    path.write_text(text.format(value=value, padding=padding))
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, env=os.environ
    )
    return ["before", *done.stderr.splitlines(), "after"]


def test_the_same_bug_has_the_same_hash(tmp_path):
    """Folders, line numbers, addresses, ids and values do not change the hash; another
    function or error does."""
    first = tracebacks.hash_last_traceback(printed(tmp_path / "a", "0123456789ab"))
    again = tracebacks.hash_last_traceback(
        printed(tmp_path / "elsewhere/b", "fedcba987654f00d", padding="    pass\n" * 3)
    )
    other = tracebacks.hash_last_traceback(
        printed(
            tmp_path / "c", "0123456789ab", text=SCRIPT.replace("inner", "innermost")
        )
    )

    assert first and len(first) == tracebacks.DIGITS
    assert first == again
    assert other not in (first, None)
    assert tracebacks.hash_last_traceback(["no error", "at all"]) is None


def test_an_error_caught_has_the_hash_of_its_traceback():
    """What jobs.entry writes into exit.json and what a log says of it are known as one."""
    error = raised(chained)

    assert tracebacks.hash_error(error) == tracebacks.hash_last_traceback(
        "".join(traceback.format_exception(error)).splitlines()
    )


def test_data_that_cannot_be_read_are_the_users():
    """A bad row still ends a command with the user's exit code."""
    assert issubclass(BadData, UserError)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("/w/x: Connection timed out", Cause.FILE_SYSTEM),
        ("/w/x: Stale file handle", Cause.FILE_SYSTEM),
        ("/w may not be read by you: it is ann's (permission denied: mode 0700)", None),
        ("/w/x: Permission denied (it is ann's)", None),
    ],
)
def test_a_right_that_lacks_is_no_failure_of_a_file_system(
    text: str, cause: Cause | None
) -> None:
    """In a log: to try again would change nothing."""
    line = f"jobs.contract.folder.Unreadable: {text}"
    is_file_system = causes.of_line(line) == Cause.FILE_SYSTEM
    assert is_file_system == (cause == Cause.FILE_SYSTEM)
