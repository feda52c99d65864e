"""Has whoever guesses uniformly among a task's answers loss 1 on it, whatever the task?"""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.contract.folder import read_json
from tests.lib.train_bench import Bench, told
from zsg_core.data.examples import Example
from zsg_core.data.output_space import count_classes, loss_divisor
from zsg_core.recipe import InputDigests, SourceDigests, make_recipe
from zsg_core.settings.run import Settings
from zsg_core.settings.train import TrainSettings


def examples(task: str, answers: list[str], turns: int = 1) -> list[Example]:
    """Examples of a task with these answers."""
    return [
        Example(
            id=f"{task}:{n}",
            task=task,
            turns=(("?", "!"),) * (turns - 1) + (("?", answer),),
        )
        for n, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("made", "n"),
    [
        pytest.param(
            examples("t", ["yes", "no", "no ", "yes", "no"]), 2, id="two classes"
        ),
        pytest.param(examples("t", list("abcabc")), 3, id="each class twice is enough"),
        pytest.param(
            examples("t", list("abcab")), None, id="answers that hardly repeat"
        ),
        pytest.param(examples("t", ["a", "b", "c", "d"]), None, id="free text"),
        pytest.param(
            examples("t", ["yes"] * 9), 2, id="of two classes one was sampled"
        ),
        pytest.param(examples("t", ["yes", "no"] * 4, turns=2), None, id="dialogues"),
        pytest.param(
            examples("t", ["a", "b", "c"]) * 5,
            None,
            id="free text that a mixture repeats",
        ),
    ],
)
def test_a_classification_is_known_by_its_answers(
    made: list[Example], n: int | None
) -> None:
    """Its different examples repeat few answers."""
    assert count_classes(made).get("t") == n


@given(
    st.lists(
        st.tuples(st.none() | st.integers(2, 1000), st.integers(1, 500)), min_size=1
    ),
    st.integers(300, 200_000),
)
def test_a_uniform_model_has_scaled_loss_one_on_every_task(
    tasks: list[tuple[int | None, int]], vocabulary: int
) -> None:
    """-log p is ln n for one of n classes, however many tokens name it, and ln V for
    each token of free text."""
    for n, tokens in tasks:
        nll = tokens * math.log(vocabulary) if n is None else math.log(n)

        assert nll / loss_divisor(n, tokens, vocabulary) == pytest.approx(1.0)


@pytest.mark.parametrize("changes", [{"virtual_ranks": 2}, {"loss_on": "all"}])
def test_other_means_are_refused(changes: dict) -> None:
    """A mean over examples is no mean over virtual ranks, and not of prompts."""
    with pytest.raises(ValidationError, match="task_scale"):
        TrainSettings.model_validate({"task_scale": "log_n", **changes})


def test_recipes_without_it_are_as_before() -> None:
    """It is absent where it does nothing, so that the ids of older runs stay."""
    given: list[dict[str, str]] = [{}, {"task_scale": "none"}, {"task_scale": "log_n"}]
    asked = [
        Settings.model_validate({"data": {"path": "/d"}, "train": train})
        for train in given
    ]
    digests = InputDigests(sources={"": SourceDigests(data="d")})

    assert [
        make_recipe(one, digests)["stages"][-1]["train"].get("task_scale")
        for one in asked
    ] == [
        None,
        None,
        "log_n",
    ]


def test_a_run_is_trained_on_scaled_losses_whatever_its_ranks(bench: Bench) -> None:
    """The order is that of the unscaled run, and the loss another: more than uniform
    guessing, less than its tokens."""
    ways = []
    for world in (1, 2):
        folder = bench.make(train={"task_scale": "log_n", "steps": 3})
        assert bench.jobs.run(folder, world)["outcome"] == "done"
        ways.append(told(folder))
    plain = bench.make(train={"steps": 3})
    bench.jobs.run(plain)
    one, two = ([way["train/loss", step] for step in (1, 2, 3)] for way in ways)
    unscaled = told(plain)["train/loss", 1]

    assert one == pytest.approx(two, rel=1e-5)
    assert ways[0]["digest"] == told(plain)["digest"]
    assert 1 < one[0] < unscaled
    assert (
        read_json(Path(plain) / "job.json")["run_id"]
        != read_json(folder / "job.json")["run_id"]
    )
