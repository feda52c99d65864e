"""Is a metric's value the mean that its intervals and claims are of?"""

import numpy as np
import pytest
import torch

from jobs.training.held_out import summarize_losses
from zsg_core.metrics import means
from zsg_core.metrics.scoring import Answered, aggregate_scores

TASKS = ["large"] * 4 + ["small", "lost"]
VALUES = np.array([1.0, 2.0, 3.0, np.nan, 10.0, np.nan])


def test_a_score_of_answers_is_the_mean_over_tasks() -> None:
    """As it is recorded; of 1, 2, 3 of one task and 10 of another it is 6."""
    answers = [
        Answered(id=str(n), task=task, prompt="", answer="")
        for n, task in enumerate(TASKS)
    ]
    recorded = aggregate_scores(
        {"rouge1": {str(n): value for n, value in enumerate(VALUES)}}, answers
    ).values["rouge1"]
    [found] = means.compute_means(
        VALUES[:, None], TASKS, over_items=means.is_over_items("rouge1")
    )

    assert found == pytest.approx(recorded) == pytest.approx(6)


def test_a_loss_is_the_mean_over_items() -> None:
    """As it is recorded; of 1, 2, 3 and 10 it is 4."""
    recorded = summarize_losses(
        torch.from_numpy(VALUES), torch.ones(6, dtype=torch.float64)
    )["loss"]
    [found] = means.compute_means(
        VALUES[:, None], TASKS, over_items=means.is_over_items("loss")
    )

    assert found == pytest.approx(recorded) == pytest.approx(4)


@pytest.mark.parametrize(
    ("key", "over_items"),
    [
        ("loss", True),
        ("loss/math", True),
        ("loss_quick_120", True),
        ("loss_quick_120/math", True),
        ("silhouette/layer_15", True),
        ("rouge1", False),
        ("rank_accuracy", False),
        ("gsm8k/strict/NAME", False),
        ("mt_bench", False),
        ("loss_of_my_own", False),
    ],
)
def test_a_key_says_what_its_value_is_the_mean_over(key: str, over_items: bool) -> None:
    """Losses and silhouettes over items, all that answers are scored by over tasks."""
    assert means.is_over_items(key) == over_items


def test_weights_are_those_of_the_mean() -> None:
    """Of a column each sums to 1; what has no value weighs 0, and a column of none is no number."""
    table = np.stack([VALUES, np.arange(6.0), np.full(6, np.nan)], axis=1)
    by_task = means.item_weights(table, TASKS, over_items=False)

    assert by_task[:, 0] == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0, 1 / 2, 0])
    assert by_task[:, 1] == pytest.approx([1 / 12] * 4 + [1 / 3, 1 / 3])
    assert not by_task[:, 2].any()
    assert np.isnan(means.compute_means(table, TASKS, over_items=False)[2])
