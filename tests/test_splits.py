"""Are the instances of a task chosen by the seed, and by nothing else?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsg_core.data import splits
from zsg_core.data.examples import Example
from zsg_core.data.splits import cap_items, choose_answer, sample_nested


def examples(
    count: int, task: str = "t", references: tuple[str, ...] = ("a",)
) -> list[Example]:
    """Instances 0…count−1 of a task."""
    parts = {"task": task, "definition": "d", "turns": (("i", references[0]),)}
    return [
        Example(id=f"{task}:{i}", references=references, **parts) for i in range(count)
    ]


SIZES = st.integers(0, 30)
SEEDS = st.integers(0, 2**32 - 1)


def test_first_takes_the_first_in_file_order():
    """Without sampling the cap is the head of the file, whatever the seed."""
    assert cap_items(examples(5), 2, "first", seed=7, task="t") == examples(5)[:2]


@pytest.mark.parametrize("sampling", ["first", "random"])
def test_no_limit_takes_all(sampling):
    """null means every instance, in file order."""
    assert cap_items(examples(5), None, sampling, seed=0, task="t") == examples(5)


@pytest.mark.parametrize("sampling", ["first", "random"])
def test_an_empty_task_stays_empty(sampling):
    """A task without instances is no error."""
    assert cap_items([], 5, sampling, seed=0, task="t") == []


@settings(deadline=None)
@given(SIZES, st.integers(1, 40), SEEDS)
def test_a_sample_has_the_size_of_the_cap_and_no_doubles(size, limit, seed):
    """At most `limit` different instances of the task are drawn."""
    drawn = [
        example.id for example in cap_items(examples(size), limit, "random", seed, "t")
    ]

    assert min(size, limit) == len(drawn) == len(set(drawn))


@settings(deadline=None)
@given(SIZES, st.integers(1, 40), SEEDS)
def test_the_same_seed_draws_the_same_sample(size, limit, seed):
    """A sample is a function of task, cap and seed."""
    assert cap_items(examples(size), limit, "random", seed, "t") == cap_items(
        examples(size), limit, "random", seed, "t"
    )


def test_the_sample_is_the_recorded_one():
    """Seeds mean the same on every machine and Python: this sample never changes."""
    assert [e.id for e in cap_items(examples(10), 4, "random", seed=0, task="t")] == [
        "t:3",
        "t:5",
        "t:4",
        "t:0",
    ]


def test_another_seed_or_task_draws_another_sample():
    """Tasks of equal size are sampled independently."""
    drawn = {
        tuple(
            example.id.partition(":")[2]
            for example in cap_items(examples(100, task), 20, "random", seed, task)
        )
        for task in ("t", "u")
        for seed in (0, 1)
    }

    assert len(drawn) == 4


def test_one_reference_is_the_answer():
    """With nothing to choose, the example is as it was."""
    (example,) = examples(1)

    assert choose_answer(example, seed=3) is example


def test_an_answer_is_one_of_the_references():
    """Over many instances every reference is drawn, the references stay."""
    drawn = [
        choose_answer(example, seed=0)
        for example in examples(50, references=("a", "b", "c"))
    ]

    assert {example.answer for example in drawn} == {"a", "b", "c"}
    assert {example.references for example in drawn} == {("a", "b", "c")}


@settings(deadline=None)
@given(SIZES, st.integers(0, 60), st.integers(0, 60), SEEDS)
def test_a_smaller_sample_is_part_of_a_larger_one(size, one, other, seed):
    """A sample keeps the order of its items, each once; what a smaller one takes, a
    larger one takes too."""
    small, large = (
        sample_nested(range(size), count, seed) for count in sorted((one, other))
    )

    assert len(large) == min(size, max(one, other))
    assert large == sorted(set(large)) and set(large) <= set(range(size))
    assert set(small) <= set(large)


@pytest.mark.parametrize("count", [1, 7, 24, 60, 119, 200])
def test_a_quick_set_has_its_share_of_every_task(count):
    """A task of n of N items has ⌊n·count/N⌋ of them or one more; the same seed draws
    the same, another others."""
    tasks = [f"t{place % 17 % 9}" for place in range(120)]
    chosen = splits.sample_stratified(tasks, count, seed=3)

    assert (
        chosen == sorted(set(chosen)) == splits.sample_stratified(tasks, count, seed=3)
    )
    assert len(chosen) == min(count, 120)
    for name in set(tasks):
        share = tasks.count(name) * len(chosen) // 120
        assert share <= sum(tasks[place] == name for place in chosen) <= share + 1
    assert (
        count >= 119
        or count == 1
        or chosen != splits.sample_stratified(tasks, count, seed=4)
    )
