"""An engine of one rank whose weights are a digest of the ids that it was trained on,
and whose losses follow from it.

So a step that was lost, done twice or done in another order changes every loss after it.
"""

import hashlib
import os
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.contract import item_losses
from zsg_core.training import schedule

# of the losses of items, where LIGHT_EFFECT is set: held-out tasks and items of each
TASKS, ITEMS = 4, 3


@dataclass
class Micro:
    """A micro-batch: the places in the batch and the ids."""

    items: list
    ids: list

    @property
    def counted(self):
        return self.items

    def on(self, device):
        return (self.ids,)


class Ids:
    """A training list of which only ids are known."""

    def __init__(self, ids):
        self.ids, self.learnt, self.lengths = ids, [1] * len(ids), [1] * len(ids)
        self.shortened = self.unanswered = self.questionless = 0
        self.apart = self.control = 0
        self.text_lengths = [[1]] * len(ids)
        self.eos = None
        self.token_counts = {"sum": len(ids), "squares": len(ids)}

    def __len__(self):
        return len(self.ids)

    def micro_batches(self, places, rank, world, budget, is_padded):
        return [Micro([item], [self.ids[place]]) for item, place in enumerate(places)]


class NoTensors:
    """A model without any."""

    def parameters(self):
        return []

    def state_dict(self, keep_vars):
        return {}

    named_parameters = named_buffers = parameters


class Engine:
    """What zsg asks of DeepSpeed's."""

    device, skipped_steps, optimizer = "cpu", 0, None

    def __init__(self, run):
        self.weights, self.seen = hashlib.sha256(run.encode()).hexdigest(), []
        self.optimizer = type("Optimizer", (), {"param_groups": [{}]})()
        self.module = type("Module", (), {"model": NoTensors()})()
        self.module.parameters = self.module.named_parameters = list
        self.module.named_modules = self.module.modules = list

    def zero_optimization_stage(self):
        return 1

    def get_global_grad_norm(self):
        return 1.0 + number(self.weights)

    def __call__(self, ids, weights=None):
        self.seen += ids
        return [number(self.weights + one) for one in ids]

    def backward(self, loss):
        pass

    def step(self):
        self.weights = hashlib.sha256(
            (self.weights + ",".join(self.seen)).encode()
        ).hexdigest()
        self.seen = []
        time.sleep(float(os.environ["LIGHT_STEP_S"]))

    def save_checkpoint(self, folder, tag, client_state, save_latest):
        (Path(folder) / tag).mkdir()
        # a file that takes a moment, and room on the disk
        weights = (self.weights + "\n") * 4096
        (Path(folder) / tag / "weights").write_text(weights)
        (Path(folder) / tag / "client").write_bytes(pickle.dumps(client_state))

    def load_checkpoint(self, folder, tag):
        place = Path(folder) / tag
        lines = (place / "weights").read_text().split()
        assert len(lines) == 4096 and len(set(lines)) == 1
        self.weights = lines[0]
        return str(place), pickle.loads((place / "client").read_bytes())


class BatchLoss:
    """The mean of the losses of a batch."""

    def __init__(self, train, places, virtual_ranks, world, device):
        self.losses = []

    def add(self, losses, items):
        self.losses += losses
        return losses

    def weigh(self, items):
        return None

    def value(self):
        return sum(self.losses) / len(self.losses)


class CheckpointLosses:
    """The loss at checkpoints: a number that the weights decide.

    With LIGHT_EFFECT there are losses of items, too, of tasks that are a held-out
    split's own: in random order they are higher by the effect, for a claim to find.
    """

    digests, sets = {}, {"loss": Ids([])}

    def __init__(self, job, engine, test, ranks, device, budget, *, first, steps):
        self.engine = engine
        self.effect = float(os.environ.get("LIGHT_EFFECT", "nan"))
        # a job of a test that has no data has no items either
        self.is_random = job.stage.get("arrangement", {}).get("order") == "random"
        split = job.stage.get("data", {}).get("held_out")
        self.names = [f"{split} {task}" for task in range(TASKS) for _ in range(ITEMS)]
        self.steps = frozenset(
            first + one
            for one in schedule.list_checkpoint_steps(steps, job.checkpoints.every)
        )
        self.cells = frozenset((step, "loss") for step in self.steps)

    @property
    def has_items(self):
        return self.effect == self.effect

    def describe(self, run, attempt):
        if self.has_items:
            ids = [f"{name} {place}" for place, name in enumerate(self.names)]
            tokens = [1] * len(ids)
            item_losses.describe_items(run, ids, self.names, tokens, {})

    def measure(self, step, examples, journal):
        if "LIGHT_DIVERGES" in os.environ and step:
            return {"loss": float("nan")}
        if self.has_items:
            losses = [self.lose_item(place) for place in range(len(self.names))]
            if journal:
                where = {"step": step, "examples": examples}
                item_losses.journal_item_losses(
                    journal, "loss", np.array(losses), **where
                )
            return {"loss": sum(losses) / len(losses)}
        return {
            "loss": number(self.engine.weights),
            "loss/token_mean": number(self.engine.weights + "token"),
        }

    def lose_item(self, place):
        """A height of the item's task, the effect, and some noise."""
        height = number(self.names[place])
        noise = number(f"{self.engine.weights}{place}") / 10
        return 1 + height + self.effect * self.is_random + noise


def number(text):
    """A number from 0 to 1 that a text decides."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def change(train):
    """Puts this engine into zsg's train job."""
    from jobs.model import weights
    from jobs.training.train_sets import ordered_ids

    def train_and_test(job):
        arrangement = job.workspace.arrangement(job.made.arrangement)
        return Ids(ordered_ids(arrangement)), Ids([])

    def load_base(job, device):
        return type("Llama", (), {"config": type("Config", (), {"vocab_size": 1})})

    train.train_and_test, train._load_base = train_and_test, load_base
    train.connect_ranks = lambda folder, ranks, gpus: "cpu"
    train._engine = lambda job, llama: Engine(job.run_id)
    train.refuse_leaks = lambda engine, vocabulary, device: None
    train.loss_of_step, train.CheckpointLosses = BatchLoss, CheckpointLosses
    weights.digest_of = lambda engine: engine.weights
