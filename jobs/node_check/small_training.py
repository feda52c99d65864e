"""Trains a made-up model for a few steps as a run is trained: by the train job's own
loop, engine, loss, journal and snapshots. Only weights and tokens are made up.

What is learnt of it stands in the trial's journal, as a run's does.
"""

import contextlib
import gc
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jobs.contract import attempt as attempts
from jobs.contract.attempt import Attempt
from jobs.contract.deepspeed_config import DeepSpeedJson, build_deepspeed_config
from jobs.contract.folder import META, SCHEMA, write_json
from jobs.contract.job_file import (
    CheckpointPlan,
    MadeThings,
    Resources,
    TrainJob,
    TrainPaths,
)
from jobs.contract.journal import SPEED, Journal, read_journal
from jobs.contract.journal_rows import MetricRow, SnapshotWritten, find_events
from jobs.files import ownership
from jobs.model.base_model import load_model
from jobs.runtime import devices
from jobs.runtime.ranks import Ranks
from jobs.runtime.signals import Signals
from jobs.runtime.together import share_first
from jobs.training import train as trainer
from jobs.training.batches import TokenizedSet
from zsg_core.settings.train import TrainSettings

MEET_S = 60.0
LR = 1e-3
SUBMISSION = "node-check"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
STALL, MFU = f"{SPEED}snapshot_stall_s", f"{SPEED}mfu"
NOT_OF_A_RECIPE = {"init_seed", "tuning"}


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """What is trained, and how: so many steps of `batch` examples each. `base`: the name
    of what `publish_base` made; `settings`: what else differs of a stage's settings;
    `snapshot`: after which step the weights are kept, None for never; `micro_tokens`: of
    a micro-batch, None = the device's usual."""

    name: str
    base: str
    precision: str
    zero_stage: int
    hpz_ranks: int | None = None
    batch: int
    steps: int
    recompute: bool = False
    micro_tokens: int | None = None
    snapshot: int | None = None
    peak_tflops: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """Of the forward pass."""
        return {
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
            "fp32": torch.float32,
        }[self.precision]

    @property
    def training(self) -> dict[str, Any]:
        """The settings of its one stage, as a recipe has them."""
        chosen = TrainSettings(
            batch=self.batch,
            lr=LR,
            lr_floor=1.0,
            steps=self.steps,
            **{"precision": self.precision, **self.settings},
        )
        recipe = chosen.model_dump(mode="json", exclude=NOT_OF_A_RECIPE)
        return recipe | {"tuning": {"method": "full"}}

    @property
    def deepspeed(self) -> DeepSpeedJson:
        """What DeepSpeed is told."""
        training = self.training
        return build_deepspeed_config(
            zero_stage=self.zero_stage,
            precision=self.precision,
            clip=training["clip"],
            loss_scale=training["loss_scale"],
            hpz_ranks=self.hpz_ranks,
        )


@dataclass(frozen=True)
class Bench:
    """Where trials are made: the ranks, this rank's device, and a folder that all ranks
    see."""

    ranks: Ranks
    device: str
    folder: Path

    @property
    def on_gpu(self) -> bool:
        """Whether this rank computes on a GPU."""
        return self.device != devices.CPU

    def locate_base(self, name: str) -> Path:
        """The folder of a base."""
        return self.folder / "bases" / name


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the journal tells of a trial's steps, in their order; empty on ranks other
    than 0. `norms`: NaN for a step that was skipped."""

    losses: Sequence[float]
    norms: Sequence[float]
    tokens_per_s: Sequence[float]
    mfu: Sequence[float]
    skipped: int
    stall_s: float | None
    written: SnapshotWritten | None
    run: Path


def locate_run(bench: Bench, trial: TrialRun) -> Path:
    """The folder of a trial's run."""
    return bench.folder / "runs" / trial.name


def publish_base(bench: Bench, name: str, make: Callable[[], Any]) -> None:
    """Has rank 0 write a base, unless it is there: a model, or the config of one that is
    made where it is trained. All ranks call it together."""
    folder = bench.locate_base(name)

    def publish() -> None:
        if not (folder / META).exists():
            ownership.make_folder(folder)
            make().save_pretrained(folder)
            write_json(folder / META, {"digest": name})

    share_first(publish)


def load_base(trial: TrialRun, bench: Bench) -> Any:
    """The model of a base, loaded as a train job loads it: under ZeRO 3 each rank has
    its part."""
    is_divided = trial.zero_stage == 3
    return load_model(
        bench.locate_base(trial.base),
        trial.precision,
        bench.device,
        trial.deepspeed if is_divided else None,
    )


def train_trial(
    trial: TrialRun, bench: Bench, llama: Any, train: TokenizedSet, test: TokenizedSet
) -> Trained:
    """Trains a Llama on its device; all ranks call it together.

    Raises what a run would end with; KeyboardInterrupt where a signal has told it to
    stop.
    """
    run = locate_run(bench, trial)
    job = make_job(trial, bench)
    attempt = _begin(run, job, bench.ranks)
    journal = None
    if bench.ranks.is_main:
        journal = Journal(run, attempt, job.kind, job.stage_id)
    try:
        with keep_handlers():
            context = trainer.AttemptContext(
                run, attempt, bench.ranks, journal, Signals()
            )
            trainer.fine_tune(job, context, bench.device, llama, train, test)
    except trainer.Stopped as stopped:
        raise KeyboardInterrupt from stopped
    finally:
        if journal:
            journal.close()
    return _read_trained(run) if bench.ranks.is_main else _describe_nothing(run)


@contextlib.contextmanager
def keep_handlers() -> Iterator[None]:
    """Puts back what signals do, which a train job changes."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def make_job(trial: TrialRun, bench: Bench) -> TrainJob:
    """A train job as submit writes it."""
    ranks = bench.ranks
    snapshots = None if trial.snapshot is None else [trial.snapshot]
    return TrainJob(
        schema=SCHEMA,
        run_id=trial.name,
        submission=SUBMISSION,
        resources=Resources(
            profile=SUBMISSION,
            nodes=1,
            ranks_per_node=ranks.world,
            cpus_per_rank=1,
            time_min=10,
            gpus_per_node=int(bench.on_gpu),
            peak_tflops=trial.peak_tflops,
        ),
        paths=TrainPaths(
            workspace=str(bench.folder), base=str(bench.locate_base(trial.base))
        ),
        stage_id="1",
        recipe={
            "base": {"digest": trial.base},
            "stages": [{"data": {"test": {}}, "train": trial.training}],
        },
        checkpoints=CheckpointPlan(every=trial.steps, snapshots=snapshots),
        made=MadeThings(corpus=trial.name, arrangement=trial.name),
        micro_tokens=trial.micro_tokens,
        recompute=trial.recompute,
        deepspeed=trial.deepspeed,
    )


def _begin(run: Path, job: TrainJob, ranks: Ranks) -> Attempt:
    """The attempt that rank 0 begins, as each rank sees it."""

    def begin() -> None:
        ownership.make_folder(run)
        attempts.begin_attempt(run, job.submission)

    share_first(begin)
    attempt = attempts.await_begin(run, MEET_S)
    if attempt is None:
        raise FileNotFoundError(
            f"rank {ranks.rank} does not see {attempts.locate_attempt(run)} within"
            f" {MEET_S:.0f} s, which rank 0 has written"
        )
    return attempt


def _read_trained(run: Path) -> Trained:
    """What rank 0 has journalled."""
    journalled = list(read_journal(run))
    rows = [row.data for row in journalled if isinstance(row, MetricRow)]
    steps = [data for data in rows if "train/loss" in data]
    stalls = _list_values(rows, STALL)
    events = [event for _, event in find_events(journalled, SnapshotWritten)]
    return Trained(
        losses=_list_values(steps, "train/loss"),
        norms=[float(data.get("train/grad_norm", math.nan)) for data in steps],
        tokens_per_s=_list_values(steps, f"{SPEED}tokens_per_s"),
        mfu=_list_values(steps, MFU),
        skipped=int(max(_list_values(steps, "train/skipped"), default=0)),
        stall_s=stalls[-1] if stalls else None,
        written=events[-1] if events else None,
        run=run,
    )


def _list_values(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """The values of a key in the rows that have it, in their order."""
    return [float(data[key]) for data in rows if key in data]


def _describe_nothing(run: Path) -> Trained:
    return Trained(
        losses=[],
        norms=[],
        tokens_per_s=[],
        mfu=[],
        skipped=0,
        stall_s=None,
        written=None,
        run=run,
    )


def release_memory(device: str) -> None:
    """Gives back what a trial has held."""
    gc.collect()
    if device != devices.CPU:
        torch.cuda.empty_cache()
