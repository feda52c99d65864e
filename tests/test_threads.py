"""Is work shared among threads so that nothing is done twice, and nothing after an error?"""

from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from zsg_core import threads


@pytest.fixture(params=[1, 3])
def count(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Arithmetic in so many threads."""
    monkeypatch.setattr(threads, "count_threads", lambda: request.param)
    yield request.param


def test_every_piece_is_done_once(count: int) -> None:
    """Each thread sets up what is its own once, and takes pieces until none is left."""
    started, done = [], []

    def work(pieces: Iterator[int]) -> None:
        started.append(1)
        done.extend(pieces)

    threads.run_in_threads(work, range(1000))

    assert len(started) == count
    assert sorted(done) == list(range(1000))


def test_an_error_ends_the_sharing(count: int) -> None:
    """It is raised where the work was shared out, and the pieces that are left are nobody's."""
    done = []

    def work(pieces: Iterator[int]) -> None:
        for piece in pieces:
            done.append(piece)
            if piece == 5:
                raise ValueError("piece 5")

    with pytest.raises(ValueError, match="piece 5"):
        threads.run_in_threads(work, iter(range(10)))
    before = list(done)
    threads.run_in_threads(lambda pieces: None, [1])

    assert done == before


def test_blas_has_one_thread_in_each_and_its_own_afterwards() -> None:
    """Threads of NumPy's BLAS that wait for the next product would take the cores from
    the other work."""
    seen: list[list[int]] = []
    _ = np.eye(2) @ np.eye(2)  # so that it is there to be asked

    def blas() -> list[int]:
        of_numpy = [
            one
            for one in threadpool_info()
            if one["user_api"] == "blas" and "numpy" in one["filepath"]
        ]
        return [one["num_threads"] for one in of_numpy]

    with threadpool_limits(2, user_api="blas"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threads, "count_threads", lambda: 2)
            threads.run_in_threads(
                lambda pieces: seen.extend(blas() for _ in pieces), [1, 2]
            )

        assert [set(few) for few in seen] == [{1}, {1}]
        assert set(blas()) == {2}
