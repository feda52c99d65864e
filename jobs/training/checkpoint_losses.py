"""Takes a checkpoint's losses: of the whole test set, of the quick one, or of both, as
the grid asks.

Each set is always computed in the same way, whatever else a step measures: a value
computed again after a restart, or under another schedule, must be the same to the bit.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from jobs.contract import attempt as attempts
from jobs.contract import item_losses
from jobs.contract.attempt import Attempt
from jobs.contract.job_file import TrainJob
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import LossTaken
from jobs.runtime.ranks import Ranks
from jobs.runtime.together import share_first
from jobs.training import base_loss_cache
from jobs.training.batches import TokenizedSet
from jobs.training.held_out import HeldOutLoss, by_source, summarize_losses
from jobs.training.overflow import advise_settings
from zsg_core import recipe as recipes
from zsg_core.data import splits
from zsg_core.errors import Diverged, UserError
from zsg_core.training import schedule


class CheckpointLosses:
    """The losses of one stage's checkpoints. All ranks make it and call it together.

    `first`: the steps of the stages before; `steps`: those of this one.
    """

    def __init__(
        self,
        job: TrainJob,
        engine: Any,
        test: TokenizedSet,
        ranks: Ranks,
        device: str,
        budget: int,
        *,
        first: int,
        steps: int,
    ) -> None:
        self._ranks, self._test = ranks, test
        steps_by_key = schedule.list_measured_steps(steps, *job.checkpoints.strides)
        self.cells = _list_cells(steps_by_key, first)
        self.steps = frozenset(step for step, _ in self.cells)
        self._settings = job.stage["train"]
        tested = recipes.list_tested(job.stage["data"])
        self.sources = list(tested)
        # one in common, where they draw at all
        seed = max(rule.get("seed", 0) for rule in tested.values())
        # by metric, the items that it is the mean of, where not all
        self.subsets = {
            key: splits.sample_stratified(test.tasks, schedule.quick_items(key), seed)
            for key in steps_by_key
            if key != "loss"
        }
        rule = self._settings.get("truncated_answers", "exclude")
        self.sets = {
            key: HeldOutLoss(
                engine, test, ranks, device, budget, self.subsets.get(key), rule
            )
            for key in steps_by_key
        }
        self._refuse_empty(self._settings)
        self._cache_folders = {
            key: base_loss_cache.locate_folder(job, held_out, ranks, device, budget)
            for key, held_out in self.sets.items()
        }

    def _refuse_empty(self, settings: dict[str, Any]) -> None:
        """Raises UserError where a loss is wanted of items none of which has a token to
        be tested on."""
        for key, held_out in self.sets.items():
            counts = settings.get("truncated_answers") == "zero" and len(
                held_out.tokens
            )
            if not counts and not held_out.tokens.any():
                why = (
                    "none of its answers is left within train.max_length"
                    if len(held_out.tokens)
                    else "it is empty"
                )
                raise UserError(
                    f"{key} is wanted at checkpoints, but the test set has no token to measure it"
                    f" on: {why}; set data.test_path, data.test_per_task or train.max_length"
                )

    def _refuse_broken(self, key: str, step: int, means: torch.Tensor) -> None:
        """Raises Diverged, or UserError for a base, where an item that has an answer
        has no finite loss."""
        broken = int((~torch.isfinite(means) & (self.sets[key].tokens > 0)).sum())
        if not broken:
            return
        trouble = (
            f"the test loss ({key}) is not a number on {broken} of {len(means)} items"
        )
        if step == 0:
            raise UserError(
                f"before any step, {trouble}; {advise_settings(self._settings)}, or look at the"
                " base model"
            )
        raise Diverged(step, f"{trouble}; {advise_settings(self._settings)}")

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each set's tokens, by its metric."""
        return {key: held_out.digest for key, held_out in self.sets.items()}

    def describe(self, run: Path, attempt: Attempt) -> None:
        """Writes which items there are; by rank 0, before anything is measured."""
        attempts.check_attempt(run, attempt)
        item_losses.describe_items(
            run, self._test.ids, self._test.tasks, self._test.learnt, self.subsets
        )

    def measure(
        self, step: int, examples: int, journal: Journal | None
    ) -> dict[str, float]:
        """The metrics of a checkpoint; every item's loss goes to the journal."""
        data: dict[str, float] = {}
        for key, held_out in self.sets.items():
            if (step, key) not in self.cells:
                continue
            means, source = self._means(key, step)
            self._refuse_broken(key, step, means)
            data |= summarize_losses(means, held_out.tokens, key)
            if len(self.sources) > 1:
                indices = self.subsets.get(key, range(len(self._test)))
                ids = [self._test.ids[index] for index in indices]
                data |= by_source(means, ids, self.sources, key)
            if journal:
                if source:
                    taken = LossTaken(
                        metric=key, from_folder=f"first_losses/{source.name}"
                    )
                    journal.add_event(taken, step=step, examples=examples)
                item_losses.journal_item_losses(
                    journal, key, means.numpy(), step=step, examples=examples
                )
        return data

    def _means(self, key: str, step: int) -> tuple[torch.Tensor, Path | None]:
        """The items' means, and where they are from if another run with this base has
        computed them."""
        cache = self._cache_folders[key] if step == 0 else None
        if cache is None:
            return self.sets[key].measure(), None
        kept = share_first(partial(base_loss_cache.read_losses, cache))
        if kept is not None:
            return torch.from_numpy(kept), cache
        means = self.sets[key].measure()
        if self._ranks.is_main:
            base_loss_cache.publish_losses(cache, means.numpy())
        return means, None


def _list_cells(
    steps_by_key: Mapping[str, Iterable[int]], first: int
) -> frozenset[tuple[int, str]]:
    """(step, key) of all that is measured, counted from the run's first step. Where a
    later stage begins, the stage before has measured."""
    return frozenset(
        (first + step, key)
        for key, steps in steps_by_key.items()
        for step in steps
        if step or not first
    )
