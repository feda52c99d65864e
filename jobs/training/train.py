"""The train job: one stage over one arrangement, in order, with the loss on the test
set at every checkpoint.

Steps are counted from the start of the run's first stage, so that a run's stages are one curve.

The loop is DeepSpeed's engine and nothing else. A step is `batch` whole examples; the
loss is one mean over the target tokens of the whole batch, whatever the number of
ranks. See, in this package, answer_loss for the loss of an example, batch_loss for that
of a batch, batches for what each rank is given, overflow for steps that are lost,
checkpoint_losses for the test set, state for what an interrupted run resumes from.
"""

import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist

from jobs.contract import attempt as attempts
from jobs.contract import snapshots as snapshot_records
from jobs.contract import stages
from jobs.contract.attempt import Attempt
from jobs.contract.deepspeed_config import check_deepspeed_config
from jobs.contract.exit_record import replace_unset
from jobs.contract.heartbeat import MEASURING, SAVING, TRAINING, Pulse
from jobs.contract.job_file import TrainJob
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import Event, Start
from jobs.contract.length_notes import describe_chat, describe_lengths
from jobs.contract.prepared import describe_arrangement
from jobs.contract.saved_state import SavedState
from jobs.contract.snapshots import StageEndMeta
from jobs.contract.states import Outcome
from jobs.model import adapter_masks, layers, lora, weights
from jobs.model.answer_loss import AnswerLoss, choose_batching, is_padded, refuse_leaks
from jobs.model.architecture import list_silenced
from jobs.model.base_model import load_model
from jobs.model.batching import agree_on_attention
from jobs.model.tuning import apply_tuning
from jobs.runtime import signals as asking
from jobs.runtime.ranks import Ranks, connect_ranks, set_group_timeouts
from jobs.runtime.signals import Signals
from jobs.runtime.together import share_errors, share_first
from jobs.training.base_loss_cache import describe_machine
from jobs.training.batch_loss import loss_of_step, refuse_empty
from jobs.training.batches import MicroBatch, TokenizedSet
from jobs.training.changed_base import refuse_changed_base
from jobs.training.checkpoint_losses import CheckpointLosses
from jobs.training.older_states import accept_older_names
from jobs.training.optimizer import build_optimizer
from jobs.training.overflow import Updates, refuse_fp16
from jobs.training.snapshots import Snapshots
from jobs.training.speed import Speed
from jobs.training.state import Choice, States, read_versions
from jobs.training.state import Job as StateJob
from jobs.training.train_sets import train_and_test
from jobs.training.weight_folders import Base
from zsg_core.digest import IdDigest, content_id
from zsg_core.errors import ClusterError
from zsg_core.training import schedule

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """All ranks agreed to stop early; `progress` is how far they came, `outcome` what
    it means for the run."""

    def __init__(self, progress: "Progress", outcome: Outcome) -> None:
        super().__init__(f"stopped after step {progress.step}")
        self.progress, self.outcome = progress, outcome


@dataclass
class Progress:
    """What the exit record tells of a finished or stopped stage: `steps` with the
    `first` of the stages before.

    `loss` is the last that was measured; `skipped` steps of this stage were lost.
    """

    step: int = 0
    steps: int = 0
    first: int = 0
    examples: int = 0
    loss: float | None = None
    digest: str | None = None
    weights: str | None = None
    skipped: int = 0
    # see jobs.training.snapshots
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    # what there is to know of its examples, in words
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AttemptContext:
    """Who trains where: the run's folder, this attempt and rank, rank 0's journal,
    signals, its pulse."""

    folder: Path
    attempt: Attempt
    ranks: Ranks
    journal: Journal | None
    signals: Signals
    pulse: Pulse = field(default_factory=Pulse)


def run(job: TrainJob, context: AttemptContext) -> Progress:
    """Trains the job's stage to its end, resuming from the newest saved state that is this job's.

    Raises Stopped when any rank was told to stop, UserError for a base that cannot be
    trained, Diverged when a number is not finite, ClusterError when what prepare made
    is missing, or a state cannot be saved or resumed from.
    """
    device = connect_ranks(context.folder, context.ranks, job.resources.gpus_per_node)
    train, test = share_errors(partial(train_and_test, job))
    share_first(partial(refuse_changed_base, job))
    decoder = _load_base(job, device)
    return fine_tune(job, context, device, decoder, train, test)


def _load_base(job: TrainJob, device: str) -> Any:
    """The stage's base where it is trained: whole on this rank's device, or under ZeRO 3
    the rank's part of it; with the attention that its family is proven with."""
    precision = job.train["precision"]
    if precision == "fp16":
        refuse_fp16()
    config = check_deepspeed_config(job.deepspeed)
    is_divided = config["zero_optimization"]["stage"] == 3
    attention = agree_on_attention(
        job.base_folder,
        job.workspace,
        job.train["max_length"],
        replace_unset(job.proof),
    )
    folder = share_errors(partial(_find_base, job))
    divided = config if is_divided else None
    load = partial(load_model, folder, precision, device, divided, attention=attention)
    # the ranks that divide a model read it together, and share errors as they do
    return load() if is_divided else share_errors(load)


def _find_base(job: TrainJob) -> Path:
    """The folder of the weights that a stage starts from: where it goes on with
    adapters, of those that they were put on."""
    continued = stages.find_continued(job)
    adapted = lora.find_adapted_base(continued) if continued else None
    return adapted or job.base_folder


def fine_tune(
    job: TrainJob,
    context: AttemptContext,
    device: str,
    decoder: Any,
    train: TokenizedSet,
    test: TokenizedSet,
) -> Progress:
    """Trains a decoder, loaded with the attention agreed on, on sets of one's own; all
    ranks have met before."""
    engine = _engine(job, decoder)
    refuse_leaks(engine, decoder.config.vocab_size, device)
    trainer = Trainer(job, context, engine, device, train, test)
    with without_pauses():
        progress = trainer.run()
    for folder in job.makes:
        trainer.snapshots.save(
            job.workspace.root / folder, msgspec.convert(asdict(progress), StageEndMeta)
        )
    return progress


@contextlib.contextmanager
def without_pauses() -> Iterator[None]:
    """Python's collector off, for when one rank collects all others wait; what exists
    already is never looked at."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class Trainer:
    """One stage on its engine: the only mutable thing of a train job."""

    def __init__(
        self,
        job: TrainJob,
        context: AttemptContext,
        engine: Any,
        device: str,
        train: TokenizedSet,
        test: TokenizedSet,
    ) -> None:
        self.job, self.engine, self.device, self.train, self.test = (
            job,
            engine,
            device,
            train,
            test,
        )
        self.context, self.ranks, self.journal, self.signals = (
            context,
            context.ranks,
            context.journal,
            context.signals,
        )
        s = self.settings = job.train
        self.first, self.examples_before = _before(job)
        self.steps = schedule.count_steps(
            len(train), s["batch"], s["epochs"], s["steps"]
        )
        refuse_empty(train.learnt, s["batch"], s["epochs"], self.steps)
        self.warmup = schedule.count_warmup_steps(
            self.steps, s["warmup_steps"], s.get("warmup_share"), s.get("warmup")
        )
        self.updates = Updates(engine, s, context.ranks.world)
        self.budget = (
            job.micro_tokens or schedule.MICRO_TOKENS[device.partition(":")[0]]
        )
        self.is_padded = is_padded(engine)
        self.losses = CheckpointLosses(
            job,
            engine,
            test,
            self.ranks,
            device,
            self.budget,
            first=self.first,
            steps=self.steps,
        )
        self.masks = adapter_masks.find_keys(engine.module)
        self.ahead: list[MicroBatch] | None = None  # of the next step
        self.speed = Speed(job, context.ranks.world, device)
        self.ids = IdDigest()
        # (step, place in the batch, place in the arrangement)
        self.consumed: list[tuple[int, int, int]] = []
        self.progress = Progress(
            step=self.first, steps=self.first + self.steps, first=self.first
        )
        when = job.checkpoints
        self.snapshots = Snapshots(
            engine,
            context.folder,
            context.attempt,
            context.ranks,
            replace(Base.of(job), eos=train.eos),
            [
                self.first + step
                for step in schedule.list_snapshot_steps(self.steps, when.snapshots)
            ],
            when.keep,
            self._note,
            job.scored,
        )
        self.states = States(
            context.folder,
            context.attempt,
            context.ranks,
            self._identity(),
            context.journal,
        )
        self.saved_at = time.monotonic()

    def run(self) -> Progress:
        """Trains the stage to its end, from the begin or from the newest state that
        fits; returns how far it came, with every snapshot.

        Before the first step the loss is measured where the schedule asks for it. A
        snapshot of a step is begun before the step's loss is measured, and handed on
        after. Behind the last step no state is saved: the stage's end takes its place.
        Leaves by an exception where the job is told to stop.
        """
        self.signals.watch()
        choice = self.states.choose()
        self._start(choice)
        if choice.saved:
            self._go_on(choice.saved)
        elif self.first in self.losses.steps:
            self._checkpoint(self.first)
        last = self.first + self.steps
        for step in range(self.progress.step + 1, last + 1):
            self._step(step)
            self.snapshots.begin(step)  # the weights are copied while they are measured
            if step in self.losses.steps:
                self._checkpoint(step)
            self.snapshots.write(self.progress.loss)
            if step < last:
                self._save_or_stop(step)
        self.snapshots.finish()
        self.progress.snapshots = self.snapshots.listed()
        return self.progress

    def _identity(self) -> StateJob:
        s = self.settings
        digests = schedule.compute_digests(
            self.train.ids, s["batch"], s["epochs"], self.steps
        )
        identity = {"run_id": self.job.run_id, "stage_id": self.job.stage_id}
        identity |= {"recipe": content_id(self.job.recipe, 64), "schedule": digests[-1]}
        of_step = {self.first + step: digest for step, digest in enumerate(digests)}
        cells, lacking = self.losses.cells, self.snapshots.lacking
        return StateJob(
            what=identity,
            way=self._way(),
            digests=of_step,
            cells=cells,
            lacking=lacking,
        )

    def _way(self) -> dict[str, Any]:
        kind, stage = (
            self.device.partition(":")[0],
            self.engine.zero_optimization_stage(),
        )
        return {"device": kind, "world": self.ranks.world, "zero_stage": int(stage)}

    def _go_on(self, saved: SavedState) -> None:
        self.states.load(self.engine, saved)
        self.ids = IdDigest(saved.ids)
        self.progress.step = saved.step
        self.progress.loss = saved.last_loss
        self.progress.digest = saved.ids
        self.progress.skipped = self.updates.skipped

    def _save_or_stop(self, step: int) -> None:
        """Does after a step what rank 0's clock and the signals of all ranks ask for,
        on all ranks alike."""
        when, kill_wait_s = self.job.checkpoints, self.job.resources.kill_wait_s
        since_s = time.monotonic() - self.saved_at
        due = asking.is_due(step, when.state_every, since_s, when.state_every_min)
        fits = asking.save_fits(self.states.save_s, self.signals.waited_s, kill_wait_s)
        own_flags = [
            self.signals.asks,
            int(due and self.ranks.is_main),
            int(fits and self.ranks.is_main),
        ]
        flags = torch.tensor(own_flags, device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        signal, due, fits = flags.tolist()
        verdict, is_whole = (
            asking.choose_step_action(signal, bool(due), bool(fits)),
            True,
        )
        if verdict.save or verdict.stop:
            save_s = self.states.save_s if verdict.save else None
            within_s = asking.compute_seconds_left(
                signal, save_s or 0.0, self.signals.waited_s, kill_wait_s
            )
            is_whole = self.snapshots.finish(within_s)
        # No state may be past a snapshot that may yet be lost.
        if verdict.save and is_whole:
            self._digest_consumed()
            self.progress.digest = self.ids.hex()
            self.context.pulse.does(SAVING)
            self.states.save(
                self.engine, step, self.progress.digest, self.progress.loss
            )
            self.saved_at = time.monotonic()
        if verdict.stop:
            self.progress.step, self.progress.snapshots = step, self.snapshots.listed()
            raise Stopped(self.progress, asking.choose_outcome(signal))

    def _start(self, choice: Choice) -> None:
        step = choice.saved.step if choice.saved else self.first
        self.context.pulse.begins(
            step,
            self.progress.steps,
            choice.saved.last_loss if choice.saved else None,
        )
        self.context.pulse.says(choice.passed_over)
        share_first(partial(self._journal_start, step, choice.passed_over))

    def _journal_start(self, step: int, passed_over: str | None) -> None:
        """Rank 0's: what the journal tells of this attempt before its first step."""
        if self.journal is None:
            return
        examples = self._examples(step)
        self.losses.describe(self.context.folder, self.context.attempt)
        self.journal.rewind(step=step, examples=examples)
        start = self._describe_start(step, passed_over)
        self._tell_lengths(start)
        self.journal.add_event(start, step=step, examples=examples)

    def _tell_lengths(self, start: Start) -> None:
        """Says what max_length has taken of the examples, where people look."""
        arrangement = self.job.workspace.arrangement(self.job.made.arrangement)
        notes = [
            *describe_lengths(start, self.settings),
            *describe_chat(start),
            *describe_arrangement(arrangement),
        ]
        self.progress.notes = self.context.pulse.notes = notes
        for note in notes:
            logger.warning(note)

    def _describe_start(self, step: int, passed_over: str | None) -> Start:
        """What the journal tells of this attempt when it begins."""
        sizes = [
            (getattr(p, "ds_numel", p.numel()), p.requires_grad)
            for p in self.engine.module.parameters()
        ]
        return Start(
            **self._way(),
            from_step=step,
            passed_over=passed_over,
            **attempts.describe_placement(self.context.attempt),
            steps=self.progress.steps,
            train=len(self.train),
            test=len(self.test),
            shortened={"train": self.train.shortened, "test": self.test.shortened},
            unanswered={"train": self.train.unanswered, "test": self.test.unanswered},
            questionless={
                "train": self.train.questionless,
                "test": self.test.questionless,
            },
            apart=_count_any(self.train.apart, self.test.apart),
            control=_count_any(self.train.control, self.test.control),
            tokens={
                "train": self.train.token_counts,
                "test": self.losses.sets["loss"].token_counts,
            },
            precision=self.settings["precision"],
            threads=torch.get_num_threads(),
            recomputed=self.job.recompute,
            compiled=True if self.job.compile else msgspec.UNSET,
            versions=read_versions(),
            code=self.job.code.facts,
            test_sets=self.losses.digests,
            machine=describe_machine(self.device),
            parameters=sum(size for size, _ in sizes),
            trained=sum(size for size, tuned in sizes if tuned),
            adapted=lora.count_adapted(self.engine.module) or msgspec.UNSET,
            silenced=list_silenced(self.engine.module.model) or msgspec.UNSET,
            other_versions=self.context.pulse.other_versions or msgspec.UNSET,
        )

    def _step(self, step: int) -> None:
        """One optimizer step: the batch's loss over all ranks, the rate of this step,
        the update, and what the journal tells of it."""
        started = time.perf_counter()
        self.context.pulse.does(TRAINING)
        s = self.settings
        indices = self._places(step)
        skipped = self.updates.skipped  # the rate follows the steps that were taken
        taken = step - self.first - skipped
        rate = schedule.compute_learning_rate(
            taken, self.steps, s["lr"], s["lr_floor"], self.warmup, s.get("warmup")
        )
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        loss_of = loss_of_step(
            self.train,
            indices,
            s.get("virtual_ranks", 1),
            self.ranks.world,
            self.device,
        )
        for micro in self.ahead or self._micro_batches(step):
            with self._dropping(step, micro):
                sums = self.engine(*micro.on(self.device), loss_of.weigh(micro.items))
                self.engine.backward(loss_of.add(sums, micro.items))
            self.consumed += [(step, item, indices[item]) for item in micro.counted]
        self.engine.step()
        self.ahead = self._micro_batches(step + 1)  # while the device is still at work
        loss = loss_of.value()
        self.updates.refuse_broken(step, loss, skipped, self.context.pulse.train_loss)
        self.progress.skipped = self.updates.skipped
        lengths = [
            length for index in indices for length in self.train.text_lengths[index]
        ]
        self.context.pulse.reached(step, sum(lengths), loss)
        if self.journal:
            data = {
                "train/loss": loss,
                "train/lr": rate,
                "train/tokens": sum(lengths),
                **self.updates.metrics(),
            }
            self._note(step, data | self.speed.of_step(lengths, started))

    def _note(self, step: int, data: Event | dict[str, float]) -> None:
        """Journals an event, or values of metrics."""
        if self.journal is None:
            return
        examples = self._examples(step)
        if isinstance(data, Event):
            self.journal.add_event(data, step=step, examples=examples)
        else:
            self.journal.add_metrics(data, step=step, examples=examples)

    def _places(self, step: int) -> list[int]:
        s = self.settings
        return schedule.list_batch_positions(
            step - self.first, s["batch"], len(self.train), s["epochs"]
        )

    def _micro_batches(self, step: int) -> list[MicroBatch]:
        return self.train.micro_batches(
            self._places(step),
            self.ranks.rank,
            self.ranks.world,
            self.budget,
            self.is_padded,
        )

    def _checkpoint(self, step: int) -> None:
        """Measures the losses of a checkpoint and commits them to the journal with the
        digest of the ids so far; at the last step that of the weights, too."""
        self.context.pulse.does(MEASURING)
        gc.collect()  # else it is off: see without_pauses
        data = self.losses.measure(step, self._examples(step), self.journal)
        self._digest_consumed()
        self.progress.step, self.progress.examples = step, self._examples(step)
        self.progress.loss, self.progress.digest = (
            data.get("loss", self.progress.loss),
            self.ids.hex(),
        )
        self.context.pulse.loss = self.progress.loss
        digests = {"ids": self.ids.hex()}
        if step == self.first + self.steps:
            digests["weights"] = self.progress.weights = weights.digest_of(self.engine)
        if self.journal:
            data = {**data, **self.speed.memory()}
            examples = self._examples(step)
            self.journal.add_metrics(data, step=step, examples=examples)
            self.journal.add_digests(digests, step=step, examples=examples)
            self.journal.commit()

    def _dropping(
        self, step: int, micro: MicroBatch
    ) -> contextlib.AbstractContextManager[None]:
        """While a micro-batch is trained: LoRA's dropout, where there is any."""
        if self.masks is None:
            return contextlib.nullcontext()
        texts = np.split(micro.tokens, np.cumsum(micro.lengths)[:-1])
        return self.masks.within(step, micro.items, texts, self.device)

    def _digest_consumed(self) -> None:
        """Adds to the digest what the ranks really trained on since the last
        checkpoint, put back in order."""
        gathered: list[Any] = [None] * self.ranks.world
        dist.all_gather_object(gathered, self.consumed)
        for step, ids in _steps(
            sorted(row for rows in gathered for row in rows), self.train.ids
        ):
            if len(ids) != self._examples(step) - self._examples(step - 1):
                raise ClusterError(
                    f"step {step}: {len(ids)} examples were trained, not the whole batch"
                )
            self.ids.add(step - self.first, ids)
        self.consumed = []

    def _examples(self, step: int) -> int:
        stage_examples = min(
            (step - self.first) * self.settings["batch"],
            len(self.train) * self.settings["epochs"],
        )
        return self.examples_before + stage_examples


def _steps(
    rows: list[tuple[int, int, int]], ids: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """The ids of each step's batch, in the order of the batch.

    `rows` are (step, place in the batch, index of the example) of all ranks together,
    sorted; `ids` are the training list's. Raises ClusterError where a place is missing
    or taken twice: then the ranks did not share the batch as they should have.
    """
    steps: dict[int, list[str]] = {}
    for step, item, index in rows:
        if item != len(steps.setdefault(step, [])):
            raise ClusterError(
                f"step {step}: item {item} of the batch was trained twice or not at all"
            )
        steps[step].append(ids[index])
    yield from steps.items()


def _count_any(train: int, test: int) -> dict[str, int] | msgspec.UnsetType:
    """Counts by split; unset where there is nothing to count."""
    return {"train": train, "test": test} if train or test else msgspec.UNSET


def _before(job: TrainJob) -> tuple[int, int]:
    """The steps and examples of the stages before."""
    if not job.before:
        return 0, 0
    end = snapshot_records.read_end_meta(job.base_folder)
    return end.steps, end.examples


def _engine(job: TrainJob, decoder: Any) -> Any:
    import deepspeed

    s = job.train
    if s["precision"] == "fp16":
        refuse_fp16()
    apply_tuning(decoder, s["tuning"])
    if continued := stages.find_continued(job):
        lora.load_adapters(decoder, continued)
    layers.set_up(decoder, recompute=job.recompute, compiled=job.compile)
    model = AnswerLoss(decoder, choose_batching(decoder))
    config = check_deepspeed_config(job.deepspeed)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=build_optimizer(model, s, config["zero_optimization"]["stage"]),
        config=config,
    )
    accept_older_names(engine)
    set_group_timeouts()
    return engine
