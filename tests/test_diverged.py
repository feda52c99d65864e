"""Is a run whose numbers are no numbers ended, with a cause of its own that says where
and what would help?"""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.lifecycle.retry import Failure, refuse_retry
from tests.lib.train_bench import Bench
from zsg_core.errors import Diverged, UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

    from jobs.training.checkpoint_losses import CheckpointLosses


@pytest.mark.parametrize(
    ("every", "rate", "step", "said"),
    [
        (6, "1e+20", 2, "step 2: "),
        pytest.param(
            1,
            "1e+38",
            1,
            "step 1: the test loss (loss) is not a number",
            marks=pytest.mark.soak(part="models"),
        ),
    ],
)
def test_a_rate_that_is_too_high_is_told_by_where_it_shows_first(
    bench: Bench, every: int, rate: str, step: int, said: str
) -> None:
    """In a step after, or at a checkpoint before: never as the cluster's fault, and not
    tried again."""
    record = bench.jobs.run(bench.make(train={"lr": float(rate)}, every=every))

    assert (record["outcome"], record["cause"], record["step"]) == (
        "failed",
        "diverged",
        step,
    )
    assert record["evidence"].startswith(said)
    # in fp32, which is not advised
    assert record["evidence"].endswith(f"lower train.lr (it is {rate})")
    refusal = refuse_retry(
        Failure("failed", record["cause"], record["evidence"], record["signature"]), []
    )
    assert refusal is not None
    assert refusal.startswith("it would fail again: diverged: step ")


def losses(tokens: list[float], **settings: Any) -> Any:
    """The losses of a test set whose items have so many answer tokens."""
    made = object.__new__(CheckpointLosses)
    made.sets = {"loss": SimpleNamespace(tokens=torch.tensor(tokens))}  # type: ignore[dict-item]
    made._settings = {"lr": 0.01, "precision": "fp16", **settings}
    return made


@pytest.mark.parametrize(
    ("tokens", "why"),
    [([], "it is empty"), ([0.0, 0.0], "none of its answers is left")],
)
def test_a_test_set_without_a_token_is_refused(tokens: list[float], why: str) -> None:
    """Its mean would be no number at every checkpoint, and the run done."""
    with pytest.raises(UserError, match=why):
        losses(tokens)._refuse_empty({"truncated_answers": "exclude"})

    losses([0.0, 3.0])._refuse_empty({"truncated_answers": "exclude"})


def test_answers_that_were_cut_may_count_as_zero() -> None:
    """As in the published curves: then a test set of nothing else has a mean."""
    losses([0.0])._refuse_empty({"truncated_answers": "zero"})


def test_items_without_an_answer_are_no_divergence() -> None:
    """They are excluded and counted; an item that has one and no finite loss ends the
    run, or refuses its base."""
    nan = float("nan")
    losses([0.0, 2.0])._refuse_broken("loss", 3, torch.tensor([nan, 1.0]))

    with pytest.raises(
        Diverged,
        match=r"step 3: the test loss \(loss\) is not a number on 1 of 2 items; lower train.lr",
    ):
        losses([1.0, 2.0])._refuse_broken("loss", 3, torch.tensor([nan, 1.0]))
    with pytest.raises(
        UserError, match=r"before any step, .*use train\.precision: bf16 or fp32"
    ):
        losses([1.0, 2.0])._refuse_broken("loss", 0, torch.tensor([1.0, float("inf")]))
