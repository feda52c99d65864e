"""Does what fails on one rank fail on all of them at once, with its cause?"""

import multiprocessing
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from zsg_core.errors import ClusterError, UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch.distributed as dist

    from jobs.runtime.together import share_errors, share_first

pytestmark = pytest.mark.engine

# longer than any of these takes, and shorter than a collective's own limit
WAIT = timedelta(seconds=60)
Work = Callable[[int], Any]


class Strange(Exception):
    """An error that no other process can make again."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} is not {other}")


def run_ranks(folder: Path, work: Work) -> list[str]:
    """What the work of two ranks gives, or what it raises with what that came of."""
    forking = multiprocessing.get_context("fork")
    ends = [forking.Pipe(duplex=False) for _ in range(2)]
    ranks = [
        forking.Process(target=run_rank, args=(folder, rank, work, ends[rank][1]))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    try:
        told = [ends[rank][0] for rank in range(2)]
        assert all(end.poll(WAIT.total_seconds()) for end in told), "a rank waits"
        return [end.recv() for end in told]
    finally:
        for process in ranks:
            process.kill()
            process.join()


def run_rank(folder: Path, rank: int, work: Work, end: Any) -> None:
    """Meets the other rank, works, and stays: who leaves ends what others wait for."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    try:
        end.send(repr(work(rank)))
    except Exception as error:
        end.send(f"{error!r} from {error.__cause__!r}")
    dist.barrier()


def fail_on(rank: int, failing: int) -> str:
    """An error with a cause on one rank."""
    if rank == failing:
        raise UserError("no weights") from OSError(5, "no such sector")
    return f"done on {rank}"


TOLD = "UserError('no weights') from OSError(5, 'no such sector')"


@pytest.mark.parametrize("failing", [0, 1])
def test_what_one_rank_cannot_do_all_raise(tmp_path: Path, failing: int) -> None:
    """Its error, and what that came of."""
    found = run_ranks(
        tmp_path, lambda rank: share_errors(lambda: fail_on(rank, failing))
    )

    assert found == [TOLD, TOLD]


def test_ranks_that_all_can_go_on(tmp_path: Path) -> None:
    """Each with what its own work gave."""
    found = run_ranks(tmp_path, lambda rank: share_errors(lambda: fail_on(rank, 2)))

    assert found == ["'done on 0'", "'done on 1'"]


def test_what_rank_0_does_alone_all_have(tmp_path: Path) -> None:
    """Its result, or its error; the others do nothing."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    given = run_ranks(
        tmp_path / "one", lambda rank: share_first(lambda: fail_on(rank, 1))
    )
    raised = run_ranks(
        tmp_path / "other", lambda rank: share_first(lambda: fail_on(rank, 0))
    )

    assert given == ["'done on 0'", "'done on 0'"]
    assert raised == [TOLD, TOLD]


def test_an_error_that_cannot_be_sent_is_told_in_words(tmp_path: Path) -> None:
    """Its own rank raises it as it is."""

    def work(rank: int) -> None:
        if rank == 0:
            raise Strange(1, 2)

    own, other = run_ranks(tmp_path, lambda rank: share_errors(lambda: work(rank)))

    assert own.startswith("Strange('1 is not 2')")
    assert other.startswith(repr(ClusterError("Strange: 1 is not 2")))


def test_a_process_alone_needs_no_group() -> None:
    """As most jobs are."""
    assert share_first(lambda: 3) == share_errors(lambda: 3) == 3
    with pytest.raises(UserError, match="no weights"):
        share_first(lambda: fail_on(0, 0))
