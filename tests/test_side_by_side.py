"""Are many small files written beside one another, and is what goes wrong told?"""

import threading

import pytest

from launcher.workspace.side_by_side import WRITERS, write_side_by_side


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
