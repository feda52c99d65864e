"""Trains one job by zsg's trainer in many ways, and by a plain loop in torch, and
prints what each came to; run by tests/test_parity.py in a process of its own, which
forks the ranks: all of them share the dear imports.

    python trained_ranks.py FOLDER '{"steps": 20, "ways": [[WORLD, ZERO_STAGE,
    MICRO_BATCHES, HOW], …], "family": {"model_type": …}, "attention": null, "tuning": null}'

One line of JSON for each way, with `null` for the plain loop: losses of all steps, the
digest of the ids consumed, the micro-batches of a rank in each step, where the
gradients of the first step are, the digest of the last weights, and the share of the
weights that the ranks divided among them.

`family`: keys of the config of a random model that is trained in place of zsg's tiny
one; `attention`: by which it is loaded, null for zsg's own. `tuning`: a recipe's, null
for that of all weights.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jobs import entry
from jobs.contract import attempt as attempts
from jobs.contract.deepspeed_config import build_deepspeed_config
from jobs.contract.folder import write_json
from jobs.contract.job_file import read_train_job
from jobs.contract.journal import Journal
from jobs.runtime.ranks import Ranks
from jobs.training.train_sets import train_and_test
from launcher.planning.plan import Prepare, run_item
from launcher.submission import job_files
from launcher.submission.workflow import open_grid
from tests.lib.journal_rows import plain_rows
from zsg_core import skills
from zsg_core.training import schedule

# Ranks, ZeRO stage, micro-batches that a rank has in a step at most, and "",
# "recompute", "compile", "pieces" (of the logits) or "resumed".
Way = tuple[int, int, int, str]
# of a piece of logits, where there are to be several
PIECE_TOKENS = 7
LR, FLOOR, CLIP, BATCH = 1e-4, 0.1, 1.0, 16
WHOLE_LOGITS = schedule.PIECE_LOGITS["cpu"]


def make(folder: Path, steps: int) -> Path:
    """The folder of a run that is ready to train; a child makes its base and arrangement."""
    skills.write_tasks(folder / "tasks", per_task=6)
    train = {
        "batch": BATCH,
        "lr": LR,
        "lr_floor": FLOOR,
        "warmup_steps": 3,
        "clip": CLIP,
        "max_length": 96,
    }
    defaults = {
        "model": {"name": "tiny", "hidden": 64, "layers": 2, "vocab": 600},
        "data": {
            "path": str(folder / "tasks"),
            "train_per_task": 6,
            "test_per_task": 1,
            "positive_examples": 0,
        },
        "train": {
            **train,
            "precision": "fp32",
            "epochs": math.ceil(steps * BATCH / 144),
            "steps": steps,
        },
        "checkpoints": {"every": steps, "state_every": None},
    }
    write_json(
        folder / "grid.yaml",
        {"name": "g", "defaults": defaults, "grid": {"arrangement.order": ["random"]}},
    )
    write_json(folder / "p.yaml", {"name": "p", "kind": "slurm"})
    opened = open_grid(folder / "grid.yaml", str(folder / "p.yaml"), folder / "work")
    [run], workspace = opened.runs, opened.site.workspace
    job_files.write_prepare(
        workspace, Prepare("prepare/p", [run], set(run.needs)), opened.site.profile, "s"
    )
    job_files.write_train(workspace, run, opened.site.profile, "s", (), is_start=False)
    children([lambda: entry.run(str(workspace.root / "prepare/p"))])
    return workspace.root / run_item(run)


def make_family(folder: Path, family: dict[str, Any]) -> None:
    """The folder of a random model whose weights are large enough to tell."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**family)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)


def budget_of(
    train: Any, steps: int, epochs: int, world: int, most: int, is_padded: bool
) -> int:
    """The least budget of tokens by which no rank has more than `most` micro-batches in a step."""
    return next(
        b
        for b in range(16, 100_000, 8)
        if max(micro_batches(train, steps, epochs, world, b, is_padded)) <= most
    )


def micro_batches(
    train: Any, steps: int, epochs: int, world: int, budget: int, is_padded: bool
) -> list[int]:
    """How many micro-batches a rank has in each step."""
    batches = [
        schedule.list_batch_positions(step, BATCH, len(train), epochs)
        for step in range(1, steps + 1)
    ]
    return [
        len(train.micro_batches(places, 0, world, budget, is_padded))
        for places in batches
    ]


class FirstGradients:
    """The whole gradients of the first step, clipped: Adam's first moment before the
    second step, over 1 − β₁.

    Called before each step of the optimiser, by all ranks.
    """

    def __init__(self, beta: float) -> None:
        self._beta, self._calls = beta, 0
        self.model: Any = None
        self.found: list[Any] = []

    @staticmethod
    def skip(*_arguments: Any) -> None:
        """Asks for nothing."""

    def __call__(self, optimizer: Any, *arguments: Any) -> None:
        from deepspeed.utils import safe_get_full_optimizer_state

        self._calls += 1
        if self._calls == 2:
            moments: list[Any] = [
                (
                    optimizer.state[one]["exp_avg"]
                    if one in optimizer.state
                    else safe_get_full_optimizer_state(one, "exp_avg")
                )
                for one in self.model.parameters()
                if one.requires_grad
            ]
            self.found = [moment.flatten() / (1 - self._beta) for moment in moments]


def read_tuned_job(folder: Path, tuning: dict[str, Any] | None) -> Any:
    """The job of a folder, as it is tuned."""
    job = read_train_job(folder)
    assert job
    if tuning is None:
        return job
    job.train["tuning"] = tuning
    return job


def train_by_zsg(
    folder: Path,
    ranks: Ranks,
    ways: list[Way],
    base: Path,
    attention: str | None,
    tuning: dict[str, Any] | None,
) -> None:
    """One rank: meets the others once, then trains the job in each way."""
    from jobs.runtime.ranks import connect_ranks

    job = read_tuned_job(folder, tuning)
    meeting = folder / f"{ranks.world} ranks"
    device = connect_ranks(meeting, ranks, 0)
    for number, way in enumerate(ways):
        own = meeting / f"way{number}"
        own.mkdir(exist_ok=True)
        train_one_way(job, own, ranks, device, way, base, attention)


def set_way(job: Any, way: Way, budget: int) -> Any:
    """The job as it is trained in one way, its tuning being set."""
    _world, zero_stage, _most, how = way
    config = build_deepspeed_config(zero_stage=zero_stage, precision="fp32", clip=CLIP)
    if zero_stage == 3:
        # else whole tensors of a tiny model stay on each rank
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return msgspec.structs.replace(
        job,
        deepspeed=config,
        micro_tokens=budget,
        recompute=how == "recompute",
        compile=how == "compile",
    )


def train_one_way(
    job: Any,
    own: Path,
    ranks: Ranks,
    device: str,
    way: Way,
    base: Path,
    attention: str | None,
) -> None:
    """Trains a job in one way, in a folder of its own."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    from jobs.model.base_model import load_model

    settings = job.train
    train, test = train_and_test(job)
    world, _zero_stage, most, how = way
    counted = settings["steps"], settings["epochs"], world
    is_padded = attention is not None
    budget = budget_of(train, *counted, most, is_padded)
    job = set_way(job, way, budget)
    divided, progress = 0.0, None
    gradients = FirstGradients(settings["betas"][0])
    hook = register_optimizer_step_pre_hook(
        # what a resumed optimiser holds of its moments cannot be asked for
        gradients if how != "resumed" else FirstGradients.skip
    )
    for is_last in (False, True) if how == "resumed" else (True,):
        model = load_model(base, "fp32", attention=attention)
        gradients.model = model
        vocabulary = model.config.vocab_size
        pieces = PIECE_TOKENS * vocabulary if how == "pieces" else WHOLE_LOGITS
        schedule.PIECE_LOGITS["cpu"] = pieces
        progress = train_once(job, own, ranks, device, model, (train, test), is_last)
        divided = measure_divided(list(model.parameters()))
    hook.remove()
    torch.distributed.barrier()
    if ranks.is_main and progress:
        losses = [
            row["data"]["train/loss"]
            for row in plain_rows(own)
            if "train/loss" in row["data"]
        ]
        counts = micro_batches(train, *counted, budget, is_padded)
        tell(
            own,
            way,
            losses,
            gradients.found or [torch.zeros(1)],
            digest=progress.digest,
            weights=progress.weights,
            micro_batches=counts,
            divided=divided,
        )


def train_once(
    job: Any,
    own: Path,
    ranks: Ranks,
    device: str,
    model: Any,
    sets: tuple[Any, Any],
    is_last: bool,
) -> Any:
    """One attempt; one that is not the last is told to stop, and saves its first step."""
    from jobs.runtime.signals import Signals
    from jobs.training import train as trainer

    attempt = (
        attempts.begin_attempt(own, "s")
        if ranks.is_main
        else attempts.await_begin(own, 60)
    )
    assert attempt
    journal = Journal(own, attempt, "train", "1") if ranks.is_main else None
    signals = Signals()
    if not is_last:
        signals.received = signal.SIGUSR2
    context = trainer.AttemptContext(own, attempt, ranks, journal, signals)
    try:
        progress = trainer.fine_tune(job, context, device, model, *sets)
    except trainer.Stopped as stopped:
        progress = stopped.progress
        assert not is_last and progress.step == 1
    if journal:
        journal.close()
    return progress


def measure_divided(parameters: list[Any]) -> float:
    """The share of the weights of which a rank holds no more than a part."""
    sizes = [(getattr(one, "ds_numel", one.numel()), one) for one in parameters]
    parts = [
        size
        for size, one in sizes
        if hasattr(one, "ds_tensor") and one.ds_tensor.numel() < size
    ]
    return sum(parts) / sum(size for size, _ in sizes)


def train_plainly(folder: Path, base: Path, tuning: dict[str, Any] | None) -> None:
    """The loop that anybody would write: one example at a time, padding nowhere,
    nothing shared with zsg's trainer but how adapters begin."""
    import torch
    from transformers import AutoModelForCausalLM

    from jobs.model.tuning import apply_tuning

    torch.set_num_threads(1)
    job = read_tuned_job(folder, tuning)
    s = job.train
    train, _ = train_and_test(job)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager"
    )
    apply_tuning(model, s["tuning"])
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=LR,
        betas=tuple(s["betas"]),
        eps=s["eps"],
        weight_decay=s["weight_decay"],
    )
    losses, first, examples = (
        [],
        [],
        [one for _ in range(s["epochs"]) for one in train.encoded],
    )
    for step in range(s["steps"]):
        batch = examples[step * BATCH : (step + 1) * BATCH]
        learnt = sum(one.answer_tokens for one in batch)
        x = (step - s["warmup_steps"]) / (s["steps"] - s["warmup_steps"])
        cosine = FLOOR + (1 - FLOOR) / 2 * (1 + math.cos(math.pi * x))
        optimizer.param_groups[0]["lr"] = LR * (
            cosine if x >= 0 else (step + 1) / s["warmup_steps"]
        )
        optimizer.zero_grad()
        loss = 0.0
        for one in batch:
            labels = torch.full((1, len(one.ids)), -100)
            for start, stop in one.spans:
                labels[0, start:stop] = torch.tensor(one.ids[start:stop])
            logits = model(input_ids=torch.tensor([one.ids]), use_cache=False).logits
            part = (
                torch.nn.functional.cross_entropy(
                    logits[0, :-1], labels[0, 1:], reduction="sum"
                )
                / learnt
            )
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        first = first or [
            one.grad.flatten().clone() for one in trained if one.grad is not None
        ]
        optimizer.step()
        losses.append(loss)
    digests = schedule.compute_digests(train.ids, BATCH, s["epochs"], s["steps"])
    tell(folder, None, losses, first, digest=digests[-1], micro_batches=[])


def tell(
    folder: Path,
    way: Way | None,
    losses: list[float],
    gradients: list[Any],
    **facts: Any,
) -> None:
    """Prints a line for the test."""
    path = folder / "gradients.npy"
    np.save(path, np.concatenate([one.numpy() for one in gradients]))
    print(
        json.dumps({"way": way, "losses": losses, "gradients": str(path), **facts}),
        flush=True,
    )


def children(works: list[Any]) -> None:
    """Does each work in a forked child, side by side; fails if one of them does."""
    pids = []
    for work in works:
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        pids.append(pid)
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    if failed:
        sys.exit(f"{len(failed)} of {len(pids)} children failed")


def main(
    folder: Path,
    steps: int,
    ways: list[Way],
    family: dict[str, Any] | None = None,
    attention: str | None = None,
    tuning: dict[str, Any] | None = None,
) -> None:
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401  # its import costs more than all the others
    import transformers.models.llama.modeling_llama  # noqa: F401

    from jobs.preparing import prepare  # noqa: F401
    from jobs.training import train  # noqa: F401

    run = make(folder, steps)
    job = read_train_job(run)
    assert job
    base = job.base_folder
    if family:
        base = folder / "family"
        children([partial(make_family, base, family)])
    children([partial(train_plainly, run, base, tuning)])
    for world in sorted({way[0] for way in ways}):
        (run / f"{world} ranks").mkdir()
        os.environ["SLURM_JOB_ID"] = str(world)
        mine = [way for way in ways if way[0] == world]
        children(
            [
                partial(
                    train_by_zsg,
                    run,
                    Ranks(rank, world, rank),
                    mine,
                    base,
                    attention,
                    tuning,
                )
                for rank in range(world)
            ]
        )


if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    main(
        Path(sys.argv[1]),
        asked["steps"],
        [tuple(way) for way in asked["ways"]],
        asked.get("family"),
        asked.get("attention"),
        asked.get("tuning"),
    )
