"""Is work shared among threads, is what goes wrong told, and does no interrupt leave
anything hanging?"""

import subprocess
import sys
import threading

import pytest

from launcher.workspace.side_by_side import WRITERS, write_side_by_side
from zsg_core.side_by_side import map_side_by_side

RATED = """
from tests.lib.interrupts import interrupt_again_and_again
from types import SimpleNamespace
from jobs.evaluating.judge import Said, rate_requests
from jobs.runtime.chat_server import Completion
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.metrics.reasoning import Parted

question = {"task": "t", "system": "", "user": "", "answer": "a", "prompt": "p"}
requests = [JudgeRequest(id=str(number), **question) for number in range(8)]
said = Said(Completion("[[5]]"), Parted("[[5]]"))
judge = SimpleNamespace(id="j", reply=lambda *asked: said, hide=str)
kept = SimpleNamespace(get=lambda *key: None, add=lambda *row: None)

interrupt_again_and_again(lambda: rate_requests(requests, judge, kept, 4), 2000)
rate_requests(requests, judge, kept, 4)
"""

SHARED = """
from tests.lib.interrupts import interrupt_again_and_again
from zsg_core import threads
from zsg_core.side_by_side import map_side_by_side

threads.count_threads = lambda: 4
interrupt_again_and_again(lambda: threads.run_in_threads(lambda pieces: [*pieces], range(50)), 300)
interrupt_again_and_again(lambda: map_side_by_side(str, range(50), 4), 2000)

assert map_side_by_side(str, range(50), 4) == [str(number) for number in range(50)]
"""


def test_every_writer_waits_beside_the_others() -> None:
    """A slow disk is waited for by all writers at once, and every item is written."""
    all_at_once, written = threading.Barrier(WRITERS, timeout=10), set[int]()

    def write(number: int) -> None:
        all_at_once.wait()
        written.add(number)

    write_side_by_side(write, range(WRITERS))

    assert written == set(range(WRITERS))


def test_what_one_writer_raises_is_raised() -> None:
    """A full disk is told; what was not begun by then is not begun any more."""
    begun = set[int]()

    def write(number: int) -> None:
        begun.add(number)
        if number == 0:
            raise OSError("the disk is full")
        threading.Event().wait(0.02)

    with pytest.raises(OSError, match="the disk is full"):
        write_side_by_side(write, range(100 * WRITERS))
    assert len(begun) < 100 * WRITERS


def test_results_come_in_the_order_of_the_items() -> None:
    """Whichever thread is done first; with fewer items than threads, and with none."""
    first_may_end = threading.Event()

    def spell(number: int) -> str:
        if number == 0:
            first_may_end.wait(20)
        else:
            first_may_end.set()
        return str(number)

    assert map_side_by_side(spell, [0, 1], 8) == ["0", "1"]
    assert map_side_by_side(spell, [], 8) == []


def test_of_several_errors_the_first_items_is_raised() -> None:
    """Whichever came first: it is the same each time."""
    both = threading.Barrier(2, timeout=20)

    def fail(number: int) -> None:
        both.wait()
        raise OSError(f"item {number}")

    with pytest.raises(OSError, match="item 0"):
        map_side_by_side(fail, [0, 1], 2)


@pytest.mark.parametrize("script", [RATED, SHARED], ids=["judge", "arithmetic"])
def test_an_interrupt_at_any_moment_leaves_nothing_hanging(script: str) -> None:
    """A job that is told to stop comes to its end: no lock stays taken behind which a
    worker waits, and the same work can be done once more."""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
