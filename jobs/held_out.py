"""Measures the loss on the held-out examples: shared out over the ranks, without padding, one value per item."""

from typing import Any

import torch
import torch.distributed as dist

from jobs.batch_loss import item_means
from jobs.batches import TokenizedSet
from jobs.ranks import Ranks


class HeldOutLoss:
    """The loss of a model on a test set, as often as it is asked for. All ranks call it together."""

    def __init__(
        self, engine: Any, test: TokenizedSet, ranks: Ranks, device: str, budget: int, truncated_answers: str
    ) -> None:
        self._engine, self._test, self._device, self._truncated_answers = engine, test, device, truncated_answers
        self._micros = test.micro_batches(range(len(test)), ranks.rank, ranks.world, budget)

    @torch.no_grad()
    def measure(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(M,) float64 mean loss of each test item over its answer tokens, and its answer tokens."""
        self._engine.eval()
        sums = torch.zeros(len(self._test), dtype=torch.float64, device=self._device)
        for micro in self._micros:
            nll = self._engine(*micro.on(self._device)).double()
            if micro.items:
                sums[torch.tensor(micro.items, device=self._device)] = nll
        self._engine.train()
        dist.all_reduce(sums)  # exact: every item has one rank's sum and zeros
        tokens = torch.tensor(self._test.learnt, dtype=torch.float64)
        return item_means(sums.cpu(), tokens, self._truncated_answers), tokens


def summary(means: torch.Tensor, tokens: torch.Tensor) -> dict[str, float]:
    """What a checkpoint says of a test set: the mean over its items, the mean over its tokens.

    Items whose loss is not finite are excluded and counted.
    """
    finite = torch.isfinite(means)
    data = {
        "loss": means[finite].mean().item() if finite.any() else float("nan"),
        "loss_token_mean": ((means * tokens)[finite].sum() / tokens[finite].sum()).item(),
    }
    return data if finite.all() else data | {"loss_excluded": float((~finite).sum().item())}
