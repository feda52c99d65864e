"""Takes a checkpoint's losses: of the whole test set, of the quick one, or of both, as
the grid asks.

Each set is always computed in the same way, whatever else a step measures: a value
computed again after a restart, or under another schedule, must be the same to the bit.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from jobs.contract import attempt as attempts
from jobs.contract import item_losses
from jobs.contract.attempt import Attempt
from jobs.contract.job_file import TrainJob
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import LossTaken
from jobs.runtime.ranks import Ranks
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
        own = schedule.list_measured_steps(steps, *job.checkpoints.strides)
        # Where a later stage begins, the stage before has measured.
        wanted = {
            key: {first + step for step in steps if step or not first}
            for key, steps in own.items()
        }
        self.cells = frozenset(
            (step, key) for key, steps in wanted.items() for step in steps
        )
        self.steps = frozenset(step for step, _ in self.cells)
        stage = job.stage
        tested = recipes.list_tested(stage["data"])
        self.sources = list(tested)
        # one in common, where they draw at all
        seed = max(rule.get("seed", 0) for rule in tested.values())
        self.parts = {
            key: splits.sample_stratified(test.tasks, schedule.quick_items(key), seed)
            for key in wanted
            if key != "loss"
        }
        rule = stage["train"].get("truncated_answers", "exclude")
        self.sets = {
            key: HeldOutLoss(
                engine, test, ranks, device, budget, self.parts.get(key), rule
            )
            for key in wanted
        }
        self._refuse_empty(stage["train"])
        self._settings = stage["train"]
        self._kept = {
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
        said = (
            f"the test loss ({key}) is not a number on {broken} of {len(means)} items"
        )
        if step == 0:
            raise UserError(
                f"before any step, {said}; {advise_settings(self._settings)}, or look at the base"
                " model"
            )
        raise Diverged(step, f"{said}; {advise_settings(self._settings)}")

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each set's tokens, by its metric."""
        return {key: held_out.digest for key, held_out in self.sets.items()}

    def describe(self, run: Path, attempt: Attempt) -> None:
        """Writes which items there are; by rank 0, before anything is measured."""
        attempts.check_attempt(run, attempt)
        item_losses.describe_items(
            run, self._test.ids, self._test.tasks, self._test.learnt, self.parts
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
                ids = [
                    self._test.ids[place]
                    for place in self.parts.get(key, range(len(self._test)))
                ]
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
        kept = self._kept[key] if step == 0 else None
        if kept is None:
            return self.sets[key].measure(), None
        box = [base_loss_cache.read_losses(kept) if self._ranks.is_main else None]
        dist.broadcast_object_list(box, src=0)
        if box[0] is not None:
            return torch.from_numpy(box[0]), kept
        means = self.sets[key].measure()
        if self._ranks.is_main:
            base_loss_cache.publish_losses(kept, means.numpy())
        return means, None
