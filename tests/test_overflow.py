"""Is a step whose gradient is not finite lost, told, or the end of the run, as the grid asks?"""

from types import SimpleNamespace
from typing import Any

import pytest

from jobs.contract import causes
from jobs.training.overflow import Updates, refuse_fp16
from zsg_core.errors import Diverged, UserError


def engine(skipped: int = 0, norm: float | None = 1.5, scale: float = 64.0) -> Any:
    """What is asked of an engine after a step."""
    optimizer = SimpleNamespace(loss_scale=scale, dynamic_loss_scale=True)
    return SimpleNamespace(
        skipped_steps=skipped, optimizer=optimizer, get_global_grad_norm=lambda: norm
    )


def updates(overflow: str, precision: str = "bf16", **found: Any) -> Updates:
    """Updates of a run at lr 0.02."""
    settings = {
        "precision": precision,
        "overflow": overflow,
        "lr": 0.02,
        "loss_scale": 64.0,
    }
    return Updates(engine(**found), settings, 1)


@pytest.mark.parametrize(
    ("precision", "found", "loss", "message"),
    [
        (
            "fp16",
            {"skipped": 1},
            2.0,
            (
                "step 7: DeepSpeed skipped the update because a gradient was not finite, at a"
                " training loss of 2 (of the step before it was 8.392); lower train.lr (it is"
                " 0.02), or use train.precision: bf16 or fp32, or train.overflow: skip, which loses"
                " such steps"
            ),
        ),
        (
            "fp32",
            {"skipped": 1},
            2.0,
            (
                "step 7: DeepSpeed skipped the update because a gradient was not finite, at a"
                " training loss of 2 (of the step before it was 8.392); lower train.lr (it is 0.02)"
            ),
        ),
        (
            "bf16",
            {"skipped": 0},
            float("nan"),
            (
                "step 7: the training loss is nan (of the step before it was 8.392); lower train.lr"
                " (it is 0.02), or use train.precision: fp32"
            ),
        ),
        (
            "fp32",
            {"skipped": 1},
            float("inf"),
            (
                "step 7: the training loss is inf (of the step before it was 8.392); lower train.lr"
                " (it is 0.02)"
            ),
        ),
    ],
)
def test_a_broken_step_stops_the_run(
    precision: str, found: dict[str, Any], loss: float, message: str
) -> None:
    """The run has diverged: the error says where, from what, and what would do
    something in the run's own settings."""
    with pytest.raises(Diverged) as told:
        updates("stop", precision, **found).refuse_broken(7, loss, 0, before=8.392)

    assert (str(told.value), told.value.step) == (message, 7)
    assert causes.of_error(told.value) == "diverged"


def test_a_lost_step_may_have_any_loss() -> None:
    """Under skip a run goes on from a step that was skipped, its loss finite or not;
    earlier ones do not count."""
    updates("skip", skipped=4).refuse_broken(7, float("nan"), skipped=3)

    with pytest.raises(Diverged, match="the training loss is nan"):
        updates("skip", skipped=4).refuse_broken(7, float("nan"), skipped=4)


def test_a_loss_scale_that_cannot_fall_ends_the_run() -> None:
    """At a scale of 1 every later step would be lost too."""
    with pytest.raises(Diverged, match="the loss scale has fallen to 1"):
        updates("skip", skipped=1, scale=1.0).refuse_broken(7, 2.0, skipped=0)


@pytest.mark.parametrize(
    ("overflow", "norm", "expected"),
    [
        ("stop", 1.5, {"train/grad_norm": 1.5}),
        ("stop", None, {}),
        ("skip", 1.5, {"train/grad_norm": 1.5, "train/skipped": 3.0}),
        ("skip", float("inf"), {"train/skipped": 3.0}),
    ],
)
def test_the_journal_counts_what_was_lost(
    overflow: str, norm: float | None, expected: dict[str, float]
) -> None:
    """The norm is told of steps that were applied, the count where steps may be lost."""
    assert expected == updates(overflow, skipped=3, norm=norm).metrics()


def test_the_first_loss_scale_is_the_recipes() -> None:
    """6400 is no power of two, which DeepSpeed's JSON wants; ranks share it, since
    their parts are larger."""
    made = engine()
    Updates(made, {"precision": "fp16", "loss_scale": 6400.0}, 2)

    assert made.optimizer.loss_scale == 3200


@pytest.mark.engine  # needs torch
def test_a_processor_without_fp16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error says what else the run could be trained in."""
    import deepspeed.accelerator

    monkeypatch.setattr(
        deepspeed.accelerator,
        "get_accelerator",
        lambda: SimpleNamespace(is_fp16_supported=lambda: False),
    )
    with pytest.raises(
        UserError, match=r"no fp16 arithmetic.*train\.precision: bf16 or fp32"
    ):
        refuse_fp16()
