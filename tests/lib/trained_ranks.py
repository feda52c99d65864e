"""Trains one job by zsg's trainer in many ways, and by a plain loop in torch, and
prints what each came to; run by tests/test_parity.py in a process of its own, which
forks the ranks: all of them share the dear imports.

    python trained_ranks.py FOLDER '{"steps": 20, "ways": [[WORLD, ZERO_STAGE,
    MICRO_BATCHES, HOW], …]}'

One line of JSON for each way, with `null` for the plain loop: losses of all steps, the
digest of the ids consumed, the micro-batches of a rank in each step, and where the
gradients of the first step are.
"""

from __future__ import annotations

import json
import math
import os
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
# "recompute" or "compile".
Way = tuple[int, int, int, str]
LR, FLOOR, CLIP, BATCH = 1e-4, 0.1, 1.0, 16


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


def budget_of(train: Any, steps: int, epochs: int, world: int, most: int) -> int:
    """The least budget of tokens by which no rank has more than `most` micro-batches in a step."""
    return next(
        b
        for b in range(16, 100_000, 8)
        if max(micro_batches(train, steps, epochs, world, b)) <= most
    )


def micro_batches(
    train: Any, steps: int, epochs: int, world: int, budget: int
) -> list[int]:
    """How many micro-batches a rank has in each step."""
    batches = [
        schedule.list_batch_positions(step, BATCH, len(train), epochs)
        for step in range(1, steps + 1)
    ]
    return [len(train.micro_batches(places, 0, world, budget)) for places in batches]


class FirstGradients:
    """The whole gradients of the first step, clipped: Adam's first moment before the
    second step, over 1 − β₁.

    Called before each step of the optimiser, by all ranks.
    """

    def __init__(self, parameters: list[Any], beta: float) -> None:
        self._parameters, self._beta, self._calls = parameters, beta, 0
        self.found: list[Any] = []

    def __call__(self, optimizer: Any, *arguments: Any) -> None:
        from deepspeed.utils import safe_get_full_optimizer_state

        self._calls += 1
        if self._calls == 2:
            moments = [
                (
                    optimizer.state[one]["exp_avg"]
                    if one in optimizer.state
                    else safe_get_full_optimizer_state(one, "exp_avg")
                )
                for one in self._parameters
            ]
            self.found = [moment.flatten() / (1 - self._beta) for moment in moments]


def train_by_zsg(folder: Path, ranks: Ranks, ways: list[Way]) -> None:
    """One rank: meets the others once, then trains the job in each way."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    from jobs.model.base_model import load_model
    from jobs.runtime.ranks import connect_ranks
    from jobs.runtime.signals import Signals
    from jobs.training import train as trainer

    job = read_train_job(folder)
    assert job
    settings = job.train
    train, test = train_and_test(job)
    meeting = folder / f"{ranks.world} ranks"
    device = connect_ranks(meeting, ranks, 0)
    for number, (world, zero_stage, most, how) in enumerate(ways):
        own = meeting / f"way{number}"
        own.mkdir(exist_ok=True)
        budget = budget_of(train, settings["steps"], settings["epochs"], world, most)
        job = msgspec.structs.replace(
            job,
            deepspeed=build_deepspeed_config(
                zero_stage=zero_stage, precision="fp32", clip=CLIP
            ),
            micro_tokens=budget,
            recompute=how == "recompute",
            compile=how == "compile",
        )
        attempt = (
            attempts.begin_attempt(own, "s")
            if ranks.is_main
            else attempts.await_begin(own, 60)
        )
        assert attempt
        journal = Journal(own, attempt, "train", "1") if ranks.is_main else None
        llama = load_model(job.base_folder, "fp32")
        gradients = FirstGradients(list(llama.parameters()), settings["betas"][0])
        hook = register_optimizer_step_pre_hook(gradients)
        progress = trainer.fine_tune(
            job,
            trainer.AttemptContext(own, attempt, ranks, journal, Signals()),
            device,
            llama,
            train,
            test,
        )
        hook.remove()
        torch.distributed.barrier()
        if journal:
            journal.close()
            losses = [
                row["data"]["train/loss"]
                for row in plain_rows(own)
                if "train/loss" in row["data"]
            ]
            counts = micro_batches(
                train, settings["steps"], settings["epochs"], world, budget
            )
            tell(
                own,
                (world, zero_stage, most, how),
                losses,
                gradients.found,
                digest=progress.digest,
                micro_batches=counts,
            )


def train_plainly(folder: Path) -> None:
    """The loop that anybody would write: one example at a time, padding nowhere,
    nothing shared with zsg's trainer."""
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(1)
    job = read_train_job(folder)
    assert job
    s = job.train
    train, _ = train_and_test(job)
    model = LlamaForCausalLM.from_pretrained(
        job.paths.base, dtype=torch.float32, attn_implementation="eager"
    )
    optimizer = torch.optim.AdamW(
        model.parameters(),
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
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        first = first or [
            one.grad.flatten().clone()
            for one in model.parameters()
            if one.grad is not None
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


def main(folder: Path, steps: int, ways: list[Way]) -> None:
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401  # its import costs more than all the others
    import transformers.models.llama.modeling_llama  # noqa: F401

    from jobs.preparing import prepare  # noqa: F401
    from jobs.training import train  # noqa: F401

    run = make(folder, steps)
    children([lambda: train_plainly(run)])
    for world in sorted({way[0] for way in ways}):
        (run / f"{world} ranks").mkdir()
        os.environ["SLURM_JOB_ID"] = str(world)
        mine = [way for way in ways if way[0] == world]
        children(
            [
                partial(train_by_zsg, run, Ranks(rank, world, rank), mine)
                for rank in range(world)
            ]
        )


if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    main(Path(sys.argv[1]), asked["steps"], [tuple(way) for way in asked["ways"]])
