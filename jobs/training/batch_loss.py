"""Makes one loss of a batch's examples: a token mean over all of them, the mean of
several virtual ranks' own, or a mean over examples whose losses are scaled by their
tasks."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from jobs.model.transfer import send_tensor
from jobs.training.batches import TokenizedSet
from zsg_core.errors import UserError
from zsg_core.training import schedule


class BatchLoss:
    """The loss of one step, added up from micro-batches on one rank.

    Virtual rank r of n holds the items r, r+n, … of the batch. The loss is the mean,
    over those that have target tokens, of the token mean of each one's items; with one
    of them the token mean of the batch. Who computes an item changes nothing: the
    weights come from the whole batch, `learnt` tokens an item.
    """

    def __init__(
        self, learnt: Sequence[int], virtual_ranks: int, world: int, device: str
    ) -> None:
        """`learnt` has the target tokens of every item of the whole batch, in its
        order, those of other processes among them; `world` is how many processes share
        the batch.

        The weights are computed here once and sent to the device in float32, so that no
        micro-batch waits for them. A virtual rank without a target token has weight 0
        and is left out of the mean.
        """
        self._device, self._count = device, virtual_ranks
        tokens = [sum(learnt[rank::virtual_ranks]) for rank in range(virtual_ranks)]
        self._tokens = [(rank, count) for rank, count in enumerate(tokens) if count]
        self._sums = torch.zeros(virtual_ranks, device=device)
        # The engine averages over ranks.
        weights = [
            world / (count * len(self._tokens)) if count else 0.0 for count in tokens
        ]
        self._weights = send_tensor(torch.tensor(weights), device)

    def add(self, sums: torch.Tensor, items: Sequence[int]) -> torch.Tensor:
        """This micro-batch's part of the loss, to be differentiated; `sums` are −Σ log
        p of its `items`, or (1,)."""
        if self._count == 1:
            own_sums = sums.sum()[None]  # as ever, to the last bit
        else:
            owners = torch.tensor([item % self._count for item in items] or [0])
            owners = send_tensor(owners, self._device)
            own_sums = torch.zeros_like(self._sums).index_add(0, owners, sums)
        self._sums += own_sums.detach()
        return (own_sums * self._weights).sum()

    def weigh(self, items: Sequence[int]) -> torch.Tensor:
        """What the gradients of a micro-batch's sums will be, (N,); (1,) of an idle one."""
        owners = torch.tensor([item % self._count for item in items] or [0])
        return self._weights[send_tensor(owners, self._device)]

    def value(self) -> float:
        """The loss of the whole batch; all ranks call it together."""
        dist.all_reduce(self._sums)
        sums = self._sums.tolist()
        return sum(sums[rank] / count for rank, count in self._tokens) / len(
            self._tokens
        )


class ScaledLoss:
    """The loss of one step that is the mean over its examples of −Σ log p, each over its own scale.

    Examples of which nothing is learnt do not count. Who computes an item changes
    nothing, as in BatchLoss.
    """

    def __init__(
        self, learnt: Sequence[int], scales: Sequence[float], world: int, device: str
    ) -> None:
        """`learnt` and `scales` have an entry for each example of the whole batch, in
        its order, those of other processes among them; a scale is what the example's −Σ
        log p is divided by. `world` is how many processes share the batch."""
        self._device, self._world = device, world
        counted = sum(tokens > 0 for tokens in learnt)
        self._weights = [1 / (scale * counted) for scale in scales]
        self._sum = torch.zeros((), device=device)

    def add(self, sums: torch.Tensor, items: Sequence[int]) -> torch.Tensor:
        """As BatchLoss.add."""
        contribution = (sums * self._send_weights(items)).sum()
        self._sum += contribution.detach()
        return contribution * self._world  # the engine averages over ranks

    def weigh(self, items: Sequence[int]) -> torch.Tensor:
        """As BatchLoss.weigh."""
        return self._send_weights(items) * self._world

    def value(self) -> float:
        """As BatchLoss.value."""
        dist.all_reduce(self._sum)
        return self._sum.item()

    def _send_weights(self, items: Sequence[int]) -> torch.Tensor:
        weights = torch.tensor([self._weights[item] for item in items] or [0.0])
        return send_tensor(weights, self._device)


def loss_of_step(
    train: TokenizedSet,
    indices: Sequence[int],
    virtual_ranks: int,
    world: int,
    device: str,
) -> BatchLoss | ScaledLoss:
    """The loss of a step that trains on the examples at `indices`."""
    learnt = [train.learnt[index] for index in indices]
    if train.scales:
        return ScaledLoss(
            learnt, [train.scales[index] for index in indices], world, device
        )
    return BatchLoss(learnt, virtual_ranks, world, device)


def refuse_empty(learnt: Sequence[int], batch: int, epochs: int, steps: int) -> None:
    """Raises UserError for a step of which nothing is learnt, since max_length cut all
    its answers away."""
    for step in range(1, steps + 1):
        if not any(
            learnt[index]
            for index in schedule.list_batch_positions(step, batch, len(learnt), epochs)
        ):
            raise UserError(
                f"step {step} would learn nothing: train.truncate: head leaves none of its {batch}"
                " examples an answer token. Raise train.max_length or train.batch, or use"
                " train.truncate: prompt"
            )


def item_means(
    sums: torch.Tensor, learnt: torch.Tensor, truncated_answers: str
) -> torch.Tensor:
    """(M,) mean loss of each test item over its answer tokens; of an item that has none
    left NaN, or 0 for `zero`."""
    means = sums / learnt
    return means.masked_fill(learnt == 0, 0.0) if truncated_answers == "zero" else means
