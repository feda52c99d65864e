"""Is a batch's loss what so many GPUs would have made of it, whoever computes it?"""

import random
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from zsg_core.errors import UserError
from zsg_core.training import schedule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist

    from jobs.runtime import ranks
    from jobs.training.batch_loss import BatchLoss, ScaledLoss, item_means, refuse_empty

LEARNT = [5, 1, 9, 2, 7, 7, 3, 4, 30, 2, 1, 6, 2, 8, 5, 11]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process only."""
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def token_losses(learnt: list[int], weight: torch.Tensor) -> list[torch.Tensor]:
    """A loss for each learnt token of each item, that hangs on `weight`."""
    chance = random.Random(0)
    return [
        torch.tensor([chance.uniform(0, 9) for _ in range(n)]) * weight for n in learnt
    ]


def in_plain_torch(
    learnt: list[int], virtual_ranks: int, weight: torch.Tensor
) -> torch.Tensor:
    """Each virtual GPU's own cross-entropy with reduction `mean` over every n-th item,
    then the mean of the GPUs."""
    items = token_losses(learnt, weight)
    own = [
        torch.cat(items[rank::virtual_ranks]).mean()
        for rank in range(virtual_ranks)
        if items[rank::virtual_ranks]
    ]
    return torch.stack(own).mean()


@pytest.mark.parametrize("virtual_ranks", [1, 2, 3, 16])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("count", [16, 5, 2])
def test_the_loss_is_that_of_virtual_ranks_on_any_real_ones(
    virtual_ranks: int, world: int, count: int
) -> None:
    """Summed up over ranks and micro-batches, and averaged as the engine does, loss and
    gradient are plain torch's."""
    learnt, weight = LEARNT[:count], torch.tensor(1.5, requires_grad=True)
    expected = in_plain_torch(learnt, virtual_ranks, weight)
    (slope,) = torch.autograd.grad(expected, weight)
    parts = []
    for own in schedule.divide_batch(learnt, world):
        of_rank = BatchLoss(learnt, virtual_ranks, world, "cpu")
        items = token_losses(learnt, weight)
        for group in schedule.make_micro_batches(own, learnt, 12):
            parts.append(
                of_rank.add(torch.stack([items[item].sum() for item in group]), group)
            )
        parts.append(of_rank.add(torch.zeros(1), []))  # an idle micro-batch
    actual = torch.stack(parts).sum() / world

    assert actual.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.autograd.grad(actual, weight)[0].item() == pytest.approx(
        slope.item(), rel=1e-6
    )


def test_one_virtual_rank_is_the_token_mean_to_the_last_bit() -> None:
    """Without virtual ranks the arithmetic is the one of the runs made before there were any."""
    sums = torch.rand(16, generator=torch.Generator().manual_seed(0)) * 9

    made = BatchLoss(LEARNT, 1, 2, "cpu").add(sums, range(16))

    assert made.item() == (sums.sum() * (2 / sum(LEARNT))).item()


def test_the_journalled_loss_is_the_one_that_was_differentiated(alone: None) -> None:
    """`value` is the sum of what was added, also where an item has nothing learnt and a
    virtual rank has no item."""
    for learnt in ([3, 0, 2], [4], [0, 5]):
        loss = BatchLoss(learnt, 2, 1, "cpu")
        added = loss.add(torch.tensor([2.0 * n for n in learnt]), range(len(learnt)))

        assert loss.value() == pytest.approx(added.item()) == pytest.approx(2.0)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_scaled_losses_are_a_mean_over_examples_on_any_ranks(world: int) -> None:
    """Loss and gradient are those of the plain mean of sums over scales; what has no
    token left does not count."""
    learnt, weight = [*LEARNT, 0], torch.tensor(1.5, requires_grad=True)
    scales = [0.5 + n % 3 for n in range(len(learnt))]
    sums = [losses.sum() for losses in token_losses(learnt, weight)]
    expected = torch.stack(
        [one / scale for one, scale, n in zip(sums, scales, learnt, strict=True) if n]
    ).mean()
    (slope,) = torch.autograd.grad(expected, weight, retain_graph=True)
    parts = []
    for own in schedule.divide_batch(learnt, world):
        of_rank = ScaledLoss(learnt, scales, world, "cpu")
        for group in schedule.make_micro_batches(own, learnt, 12):
            parts.append(
                of_rank.add(torch.stack([sums[item] for item in group]), group)
            )
        parts.append(of_rank.add(torch.zeros(1), []))  # an idle micro-batch
    actual = torch.stack(parts).sum() / world

    assert actual.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.autograd.grad(actual, weight)[0].item() == pytest.approx(
        slope.item(), rel=1e-6
    )


def test_a_step_that_would_learn_nothing_is_refused() -> None:
    """A batch of which max_length leaves no answer is named; one with a single answer
    token is not."""
    refuse_empty([0, 1, 1, 0, 0, 0], batch=2, epochs=1, steps=2)

    with pytest.raises(UserError, match="step 3 would learn nothing"):
        refuse_empty([0, 1, 1, 0, 0, 0], batch=2, epochs=1, steps=3)


def test_an_answer_that_was_cut_away_is_excluded_or_zero() -> None:
    """A test item without an answer token has no loss; `zero` counts it as the authors'
    plot scripts do."""
    sums, learnt = torch.tensor([6.0, 0.0]), torch.tensor([3.0, 0.0])

    assert torch.isnan(item_means(sums, learnt, "exclude")).tolist() == [False, True]
    assert item_means(sums, learnt, "zero").tolist() == [2.0, 0.0]


def test_groups_made_later_wait_as_long_as_the_first(alone: None) -> None:
    """torch gives a new group its own default; a collective of DeepSpeed's must not end
    a job earlier than ours."""
    later = dist.new_group([0], timeout=timedelta(minutes=10))
    assert isinstance(later, dist.ProcessGroup)
    ranks.set_group_timeouts()

    assert later._get_backend(torch.device("cpu")).options._timeout == ranks.TIMEOUT


@pytest.mark.parametrize(
    "loss",
    [
        BatchLoss([5, 1, 9, 2], 1, 2, "cpu"),
        BatchLoss([5, 1, 9, 2], 3, 2, "cpu"),
        ScaledLoss([5, 1, 0, 2], [0.5, 2.0, 1.0, 3.0], 2, "cpu"),
    ],
)
@pytest.mark.parametrize("items", [[2, 0, 3], []])
def test_what_sums_weigh_is_known_before_they_are(
    loss: BatchLoss | ScaledLoss, items: list[int]
) -> None:
    """It is the gradient of the step's loss on them, so that their own can be made ahead."""
    sums = torch.rand(max(1, len(items)), requires_grad=True)
    loss.add(sums, items).backward()

    assert sums.grad is not None
    assert torch.equal(sums.grad, loss.weigh(items)) or not items
