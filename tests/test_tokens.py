"""Are a training list's tokens made once, and read as they were made?"""

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.training.tokens import Tokens, prepare_tokens
from zsg_core.data.examples import Example
from zsg_core.data.prompts import EncodedExample

SPAN = st.tuples(st.integers(0, 99), st.integers(0, 99))
ENCODED = st.builds(
    EncodedExample,
    st.lists(st.integers(0, 2**31 - 1), max_size=9),
    st.lists(SPAN, max_size=3).map(tuple),
    st.integers(0, 9),
)


def examples(count: int) -> list[Example]:
    """Examples that say nothing but who they are."""
    return [Example(id=f"t:{i}", task="t", turns=((str(i), ""),)) for i in range(count)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENCODED, max_size=6))
def test_what_is_kept_is_what_was_encoded(
    tmp_path_factory: pytest.TempPathFactory, made: list[EncodedExample]
) -> None:
    """Ids, spans and lost tokens of every example come back, in any order of asking."""
    folder = tmp_path_factory.mktemp("tokens") / "id"
    kept = prepare_tokens(
        folder, lambda: examples(len(made)), lambda example: made[int(example.input)]
    )

    found = [kept[place] for place in reversed(range(len(kept)))][::-1]
    assert [
        EncodedExample(list(map(int, e.ids)), e.spans, e.cut) for e in found
    ] == made


def make(folder: Path, log: Path) -> None:
    """Makes the tokens of three examples, slowly enough to be met at it."""

    def encode(example: Example) -> EncodedExample:
        with log.open("a") as file:
            file.write(example.id + "\n")
        return EncodedExample([int(example.input)] * 1000, ((1, 2),))

    assert len(prepare_tokens(folder, lambda: examples(3), encode)) == 3


def test_of_many_jobs_one_makes_them(tmp_path: Path) -> None:
    """Four processes ask at once: every example is encoded once, and all of them read the same."""
    several = [
        multiprocessing.get_context("fork").Process(
            target=make, args=(tmp_path / "id", tmp_path / "log")
        )
        for _ in range(4)
    ]
    for process in several:
        process.start()
    for process in several:
        process.join()

    assert [process.exitcode for process in several] == [0] * 4
    assert (tmp_path / "log").read_text().split() == ["t:0", "t:1", "t:2"]
    assert Tokens(tmp_path / "id")[2].ids[0] == 2
