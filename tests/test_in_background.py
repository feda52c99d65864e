"""Do calls of Slurm wait beside what zsg does, and keep nobody from ending?"""

import subprocess
import sys
import threading

import pytest

from launcher.clusters.in_background import EarlyAnswer, begin_call
from zsg_core.errors import ClusterError


def test_the_first_answer_is_the_early_one() -> None:
    """It is asked at once; who asks again gets a new one."""
    asked = threading.Semaphore(0)
    answers = iter((1, 2, 3))

    def ask() -> int:
        asked.release()
        return next(answers)

    early = EarlyAnswer(ask)

    assert asked.acquire(timeout=10)
    assert [early(), early()] == [1, 2]


def test_an_error_is_raised_where_the_answer_is_wanted() -> None:
    """Slurm was away: the next question may be answered."""
    answers = iter((ClusterError("away"), 5))

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    early = EarlyAnswer(ask)

    with pytest.raises(ClusterError, match="away"):
        early()
    assert early() == 5
    with pytest.raises(ZeroDivisionError):
        begin_call(lambda: 1 // 0).result()


def test_a_program_ends_while_a_call_waits() -> None:
    """A grid that is refused is told at once, though Slurm answers nobody."""
    program = (
        "import time; from launcher.clusters.in_background import begin_call;"
        " begin_call(lambda: time.sleep(60)); print('refused')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )

    assert (ended.returncode, ended.stdout) == (0, "refused\n")
