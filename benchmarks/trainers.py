"""Trains one workload by zsg's trainer, Hugging Face's or TRL's, each in a process of
its own that takes turns.

    python -m benchmarks.trainers NAME SHAPE DEVICE BATCH MICRO_TOKENS

For each line on stdin, a number of steps, the process trains that many, the first of
which warms up, and prints one line of JSON: `seconds` of the others together, their
real `tokens` and Σn² (`squares`), the `losses` of all, and on a GPU the `peak` of its
memory in bytes. zsg takes a second number, a step with a snapshot, and tells in `stall`
for how many seconds training stood still for it, and in `saved` how many
`save_pretrained` takes for the same weights.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.workload import BOS, EOS, LONGEST, SHAPES, Item, items, make_model
from zsg_core.training.decoder import DecoderShape

LR = 1e-4  # constant, so that a step's loss does not depend on how many follow


@dataclass
class Round:
    """What a round came to: when each step ended, and each step's loss."""

    ends: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    stall: float | None = None
    saved: float | None = None


@dataclass(frozen=True)
class Asked:
    """What to train, and how much at once: `micro_tokens` is zsg's budget of a micro-batch."""

    shape: DecoderShape
    device: str
    batch: int
    micro_tokens: int

    @property
    def precision(self) -> str:
        """bf16 with fp32 master weights on a GPU, fp32 on a CPU."""
        return "bf16" if self.device == "cuda" else "fp32"


@dataclass(frozen=True)
class Peer:
    """How a trainer of Hugging Face's is set: rows of a micro-batch, and what differs
    from its own defaults."""

    rows: int
    trl: bool = False
    pad_to: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


PEERS = {
    "HF Trainer, defaults": Peer(8),
    "HF Trainer, one example at a time": Peer(1),
    "padded to 1,024": Peer(4, pad_to=LONGEST),
    "TRL, defaults": Peer(8, trl=True),
    "TRL, one example at a time": Peer(
        1, trl=True, settings={"gradient_checkpointing": False}
    ),
    "TRL, padded pairs": Peer(2, trl=True, settings={"gradient_checkpointing": False}),
    "TRL, rows of 8": Peer(8, trl=True, settings={"gradient_checkpointing": False}),
    "TRL, padding-free": Peer(
        4,
        trl=True,
        settings={
            "gradient_checkpointing": False,
            "padding_free": True,
            "max_length": None,
        },
    ),
}
ZSG = "zsg"


def zsg(asked: Asked, examples: list[Item], folder: Path) -> Callable[..., Round]:
    """zsg's own train job, from the engine's start to the last step; only ids and
    weights are made up."""
    import torch

    from jobs.contract import attempt as attempts
    from jobs.contract.folder import write_json
    from jobs.contract.journal import SPEED, Journal, read_journal
    from jobs.contract.journal_rows import MetricRow
    from jobs.model.packed_attention import NAME
    from jobs.runtime.ranks import Ranks, connect_ranks
    from jobs.runtime.signals import Signals
    from jobs.training import train as trainer

    device = connect_ranks(folder, Ranks(0, 1, 0), int(asked.device == "cuda"))
    train, test = (tokenized(some) for some in (examples, examples[:1]))
    number = 0

    def train_round(steps: int, snapshot: int | None = None) -> Round:
        nonlocal number
        number += 1
        job = _job(folder / f"round{number}", asked, steps, snapshot)
        run = folder / f"round{number}" / "run"
        run.mkdir()
        attempt = attempts.begin_attempt(run, "s")
        journal = Journal(run, attempt, "train", "1")
        dtype = torch.bfloat16 if asked.precision == "bf16" else torch.float32
        model = make_model(asked.shape, NAME, dtype, device)
        # A base that is not made on disk but for what snapshots copy of it.
        base = job.base_folder
        model.config.save_pretrained(base)
        write_json(base / "meta.json", {"digest": "made up"})
        told = Round()
        if snapshot:
            began = time.perf_counter()
            model.save_pretrained(folder / "saved")
            told.saved = time.perf_counter() - began
        place = trainer.AttemptContext(run, attempt, Ranks(0, 1, 0), journal, Signals())
        trainer.fine_tune(job, place, device, model, train, test)
        journal.close()
        for row in read_journal(run):
            if not isinstance(row, MetricRow):
                continue
            if "train/loss" in row.data:
                told.ends.append(row.ts / 1000)
                told.losses.append(float(row.data["train/loss"]))
            if f"{SPEED}snapshot_stall_s" in row.data:
                told.stall = float(row.data[f"{SPEED}snapshot_stall_s"])
        return told

    return train_round


def _job(folder: Path, asked: Asked, steps: int, snapshot: int | None) -> Any:
    """A train job as `zsg submit` writes it."""
    import msgspec

    from jobs.contract.folder import write_json
    from jobs.contract.job_file import read_train_job
    from launcher.planning.plan import run_item
    from launcher.submission import job_files
    from launcher.submission.workflow import open_grid
    from zsg_core import skills

    folder.mkdir()
    skills.write_tasks(folder / "tasks", per_task=2)
    train = {
        "batch": asked.batch,
        "lr": LR,
        "lr_floor": 0.999,
        "steps": steps,
        "precision": asked.precision,
    }
    data = {"path": str(folder / "tasks")}
    checkpoints = {"every": steps, "state_every": None} | (
        {"snapshots": [snapshot]} if snapshot else {}
    )
    defaults = {"data": data, "train": train, "checkpoints": checkpoints}
    # at 3 the step's copies are made part by part
    stage = 3 if asked.shape.parameters > 5e9 else 1
    write_json(
        folder / "grid.yaml",
        {"name": "g", "defaults": defaults, "grid": {"arrangement.order": ["random"]}},
    )
    write_json(
        folder / "p.yaml",
        {"name": "p", "kind": "slurm", "deepspeed": {"zero_stage": stage}},
    )
    with contextlib.redirect_stdout(sys.stderr):
        opened = open_grid(
            folder / "grid.yaml", str(folder / "p.yaml"), folder / "work"
        )
    [run], workspace = opened.runs, opened.site.workspace
    job_files.write_train(workspace, run, opened.site.profile, "s", (), is_start=False)
    job = read_train_job(workspace.root / run_item(run))
    assert job
    return msgspec.structs.replace(job, micro_tokens=asked.micro_tokens)


def tokenized(examples: list[Item]) -> Any:
    """The examples as zsg holds them."""
    from jobs.training.batches import TokenizedSet
    from zsg_core.data.prompts import EncodedExample

    encoded = [
        EncodedExample(one.ids, ((len(one.ids) - one.answer, len(one.ids)),))
        for one in examples
    ]
    return TokenizedSet(
        [f"t:{number}" for number in range(len(examples))],
        encoded,
        ["t"] * len(examples),
    )


def peer(
    name: str, asked: Asked, examples: list[Item], folder: Path
) -> Callable[..., Round]:
    """A trainer of Hugging Face's on the same ids in the same order, with the same optimiser."""
    import datasets
    import torch
    import transformers

    how = PEERS[name]
    datasets.disable_progress_bars()
    rows = [
        {
            "input_ids": one.ids,
            "labels": [-100] * (len(one.ids) - one.answer) + one.ids[-one.answer :],
        }
        for one in examples
    ]
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_words(), bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    # fp32 weights under bf16 autocast are what these trainers have for fp32 master weights.
    model = make_model(asked.shape, "sdpa", torch.float32, asked.device)

    def train_round(steps: int) -> Round:
        told = Round()
        shared = {
            "output_dir": str(folder / "peer"),
            "max_steps": steps,
            "per_device_train_batch_size": how.rows,
            "gradient_accumulation_steps": asked.batch // how.rows,
            "learning_rate": LR,
            "adam_beta2": 0.95,
            "lr_scheduler_type": "constant",
            "bf16": asked.precision == "bf16",
            "use_cpu": asked.device == "cpu",
            "logging_steps": 1,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "train_sampling_strategy": "sequential",
            **how.settings,
        }
        data = datasets.Dataset.from_list(rows)
        watch = [_watch(told, asked.device)]
        if how.trl:
            from trl import SFTConfig, SFTTrainer

            settings = SFTConfig(
                dataset_kwargs={"skip_prepare_dataset": True}, **shared
            )
            made: Any = SFTTrainer(
                model,
                settings,
                train_dataset=data,
                processing_class=words,
                callbacks=watch,
            )
        else:
            pad = transformers.DataCollatorForSeq2Seq(
                words,
                padding="max_length" if how.pad_to else True,
                max_length=how.pad_to,
            )
            settings = transformers.TrainingArguments(**shared)
            made = transformers.Trainer(
                model, settings, pad, train_dataset=data, callbacks=watch
            )
        made.remove_callback(transformers.PrinterCallback)
        made.train()
        return told

    return train_round


def _watch(told: Round, device: str) -> Any:
    import torch
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(
            self, args: Any, state: Any, control: Any, **others: Any
        ) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            told.ends.append(time.time())

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any
        ) -> None:
            if logs and "loss" in logs:
                told.losses.append(float(logs["loss"]))

    return Watch()


def _words() -> Any:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"<s>": BOS, "</s>": EOS}, unk_token="</s>"))


def main(name: str, shape: str, device: str, batch: int, micro_tokens: int) -> None:
    """Builds a trainer once and trains a round for each line that comes."""
    import torch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the trainers print
    asked = Asked(SHAPES[shape], device, batch, micro_tokens)
    examples = items(asked.shape, 400)
    with tempfile.TemporaryDirectory() as folder:
        build = zsg if name == ZSG else lambda *built: peer(name, *built)
        train_round = build(asked, examples, Path(folder))
        print(json.dumps("ready"), file=answers, flush=True)
        for line in sys.stdin:
            steps, *snapshot = map(int, line.split())
            told = train_round(steps, *snapshot)
            lengths = [len(one.ids) for one in examples[batch : steps * batch]]
            told_too = {"seconds": told.ends[-1] - told.ends[0], "losses": told.losses}
            told_too |= {"stall": told.stall, "saved": told.saved}
            told_too |= {"tokens": sum(lengths), "squares": sum(n * n for n in lengths)}
            told_too |= {
                "peak": torch.cuda.max_memory_allocated() if device == "cuda" else None
            }
            print(json.dumps(told_too), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
