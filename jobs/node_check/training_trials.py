"""Trains a model as large as a study's for a few steps: does it take the memory that
plan reckons with, how fast does it train, and how long does a snapshot hold it up?"""

import math
import shutil
import statistics
import time
from dataclasses import replace

from jobs.contract.exit_record import replace_unset
from jobs.contract.node_check import MFU, Finding
from jobs.contract.node_check import Trial as AssumedTrial
from jobs.node_check.arithmetic import make_bench
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import (
    add_comparison,
    count_ranks,
    report_ok,
    report_problem,
    report_skipped,
    report_warning,
)
from jobs.node_check.held_memory import MemoryPeak
from jobs.node_check.small_models import (
    draw_lengths,
    make_config,
    make_examples,
    make_llama,
)
from jobs.node_check.small_training import (
    Bench,
    Trained,
    TrialRun,
    load_base,
    publish_base,
    release_memory,
    train_trial,
)
from jobs.node_check.speeds import Speeds
from jobs.runtime.devices import CPU
from jobs.runtime.together import share_first
from jobs.training.batches import TokenizedSet
from zsg_core.training import estimate
from zsg_core.training.decoder import DecoderShape

GB = 1e9
MEMORY_STEPS = 2
SPEED_STEPS, WARM_UP, SNAPSHOT = 6, 2, 4
TEST_LENGTHS = (32, 48)
MANY = 1000  # lengths, whose mean is that of all
ALL = 1.0  # of an example's tokens are learnt
# A peak of 1e12 operations a second: shares of it are those operations themselves.
UNIT_TFLOPS = 1.0
# Of what is predicted. Beyond it plan admits what does not fit; far below, it refuses
# what does.
MOST_NEED, LEAST_NEED = 1.03, 0.75
# of the speed that plan reckons with
LEAST_MFU, MOST_MFU = 0.9, 1.25

# What is trained where no GPU is; its need is reckoned here, as nobody plans for it.
CPU_SHAPE = DecoderShape(
    hidden=192,
    intermediate=512,
    layers=3,
    heads=6,
    kv_heads=6,
    head_dim=32,
    vocab=2048,
    tied=True,
)
CPU_BATCH, CPU_LENGTH, CPU_MICRO_TOKENS = 4, 256, 512


def choose_trial(context: CheckContext) -> AssumedTrial | None:
    """What the request tries; on CPU nodes, where it names nothing, a small model; None
    on GPUs without one."""
    if context.request.trial or context.has_gpu:
        return context.request.trial
    batch = CPU_BATCH * context.ranks.world
    tensors = estimate.estimate_tensors(
        CPU_SHAPE.parameters, 1, context.ranks.world, "fp32"
    )
    activations = estimate.activation_bytes(CPU_SHAPE, CPU_MICRO_TOKENS, "fp32")
    return AssumedTrial(
        name="a small Llama",
        shape=CPU_SHAPE,
        precision="fp32",
        zero_stage=1,
        batch=batch,
        max_length=CPU_LENGTH,
        micro_tokens=CPU_MICRO_TOKENS,
        held_bytes=tensors.held,
        need_bytes=tensors.need(activations),
    )


def make_run(assumed: AssumedTrial, name: str, steps: int) -> TrialRun:
    """The run that tries a model."""
    return TrialRun(
        name=name,
        base="of-trials",
        precision=assumed.precision,
        zero_stage=assumed.zero_stage,
        hpz_ranks=assumed.hpz_ranks,
        batch=assumed.batch,
        steps=steps,
        recompute=assumed.recompute,
        micro_tokens=assumed.micro_tokens,
        peak_tflops=UNIT_TFLOPS,
    )


def check_memory(context: CheckContext) -> list[Finding]:
    """The most memory that training takes, against what plan predicts for this very
    model and batch, all of whose tokens are learnt; all ranks call it together."""
    assumed = choose_trial(context)
    if assumed is None:
        return [report_skipped("no model was named that fits")]
    bench = make_bench(context)
    run = make_run(assumed, "memory", MEMORY_STEPS)
    lengths = [assumed.max_length] * (run.batch * run.steps)
    examples = make_examples(lengths, assumed.shape.vocab, ALL)
    peak = MemoryPeak(context.device)
    peak.start()
    _train_shape(run, bench, assumed.shape, examples)
    tensors, reserved = peak.tensors, peak.reserved
    release_memory(context.device)
    return [judge_need(assumed, tensors, reserved, on_gpu=context.has_gpu)]


def judge_need(
    assumed: AssumedTrial, tensors: float, reserved: float, *, on_gpu: bool
) -> Finding:
    """What was held against what was predicted."""
    share = tensors / assumed.need_bytes
    text = (
        f"{assumed.name} (ZeRO {assumed.zero_stage}, {assumed.precision}) took"
        f" {tensors / GB:.2f} GB at the most, of {assumed.need_bytes / GB:.2f} predicted:"
        f" {share:.2f} of it"
    )
    figures = {"share": share, "reserved_gb": reserved / GB}
    if not on_gpu:
        finding = report_ok(f"{text} (of a process on a CPU a weak sign)", **figures)
    elif share > MOST_NEED:
        advice = "leave more room: set gpu.memory_gb lower by as much, and send us this report"
        finding = report_problem(text, advice, **figures)
    elif share < LEAST_NEED:
        advice = "plan may refuse what fits; send us this report"
        finding = report_warning(text, advice, **figures)
    else:
        finding = report_ok(text, **figures)
    return add_comparison(
        finding, assumed=assumed.need_bytes / GB, measured=tensors / GB, unit="GB"
    )


def _train_shape(
    run: TrialRun, bench: Bench, shape: DecoderShape, examples: TokenizedSet
) -> Trained:
    """Trains a model of random weights, which is made where it is trained; under ZeRO 3
    it is read from the disk, as only so no GPU holds the whole of it."""
    if run.zero_stage == 3:
        publish_base(bench, run.base, lambda: make_llama(shape, run.dtype, CPU))
        llama = load_base(run, bench)
    else:
        publish_base(bench, run.base, lambda: make_config(shape))
        llama = make_llama(shape, run.dtype, bench.device)
    test = make_examples(TEST_LENGTHS, shape.vocab)
    return train_trial(run, bench, llama, examples, test)


def check_speed(context: CheckContext) -> list[Finding]:
    """How fast a model trains on examples as long as real ones; all ranks call it
    together. What else it measures is for the checks after it."""
    assumed = choose_trial(context)
    if assumed is None:
        return [report_skipped("no model was named that fits")]
    bench = make_bench(context)
    run = replace(
        make_run(assumed, "speed", SPEED_STEPS),
        batch=choose_speed_batch(assumed, context.ranks.world),
        snapshot=SNAPSHOT,
    )
    lengths = draw_lengths(run.batch * run.steps, assumed.max_length)
    examples = make_examples(lengths, assumed.shape.vocab)
    saved_s = _save_plainly(bench, assumed.shape, run)
    trained = _train_shape(run, bench, assumed.shape, examples)
    release_memory(context.device)
    if not context.ranks.is_main:
        return []
    done = len(trained.tokens_per_s)
    if done <= WARM_UP:
        text = f"{assumed.name} was trained for {done} of {run.steps} steps: no speed"
        return [report_problem(text, "look into the log of the check's job")]
    speeds = summarize_speeds(trained, saved_s)
    context.speeds = speeds
    return judge_speed(context, assumed, speeds)


def choose_speed_batch(assumed: AssumedTrial, world: int) -> int:
    """Examples of a step, as long as real ones, that fill a micro-batch on each rank:
    with less to do a GPU waits more than it computes."""
    mean = statistics.mean(draw_lengths(MANY, assumed.max_length))
    filling = math.ceil(world * assumed.micro_tokens / mean)
    return max(assumed.batch, filling)


def _save_plainly(bench: Bench, shape: DecoderShape, run: TrialRun) -> float:
    """Seconds that rank 0 takes to save a model of the shape as transformers does."""
    folder = bench.folder / "saved-plainly"

    def save() -> float:
        llama = make_llama(shape, run.dtype, bench.device)
        started = time.perf_counter()
        llama.save_pretrained(folder)
        seconds = time.perf_counter() - started
        shutil.rmtree(folder)
        return seconds

    seconds = share_first(save)
    release_memory(bench.device)
    return seconds


def summarize_speeds(trained: Trained, plain_save_s: float) -> Speeds:
    """What the steps after those that warm up come to."""
    written = trained.written
    size = replace_unset(written.bytes, 0) if written else 0
    seconds = replace_unset(written.seconds, 0.0) if written else 0.0
    return Speeds(
        tokens_per_s=statistics.median(trained.tokens_per_s[WARM_UP:]),
        tflops=UNIT_TFLOPS * statistics.median(trained.mfu[WARM_UP:]),
        stall_s=trained.stall_s,
        plain_save_s=plain_save_s,
        written_bytes=float(size or 0),
        written_s=float(seconds or 0),
    )


def judge_speed(
    context: CheckContext, assumed: AssumedTrial, speeds: Speeds
) -> list[Finding]:
    """The speed of training, and the share of a GPU's peak that it is."""
    text = (
        f"{assumed.name} trains {speeds.tokens_per_s:,.0f} tokens a second on"
        f" {count_ranks(context.ranks.world)}, {speeds.tflops:.4g} TFLOP/s on each"
    )
    findings = [report_ok(text, tokens_per_s=speeds.tokens_per_s, tflops=speeds.tflops)]
    gpu = context.request.gpu
    if gpu is None or not context.has_gpu:
        return findings
    mfu = speeds.tflops / gpu.peak_tflops
    return [*findings, judge_mfu(mfu, gpu.mfu)]


def judge_mfu(mfu: float, assumed: float) -> Finding:
    """The measured share of the peak against that by which plan reckons GPU-hours."""
    text = (
        f"training reaches {mfu:.3f} of the GPU's peak; plan reckons with {assumed:g}"
    )
    advice = f"set gpu.mfu: {mfu:.2f} in the profile"
    if mfu < LEAST_MFU * assumed:
        finding = report_warning(f"{text}: runs take longer than it tells", advice, MFU)
    elif mfu > MOST_MFU * assumed:
        text = f"{text}: runs take less time than it tells"
        finding = report_warning(text, advice, MFU)
    else:
        finding = report_ok(text, MFU)
    return add_comparison(
        finding, assumed=assumed, measured=mfu, unit="share of the peak"
    )


def check_stall(context: CheckContext) -> list[Finding]:
    """How long the snapshot of the speed's trial held training up."""
    if not context.ranks.is_main:
        return []
    speeds = context.speeds
    if speeds is None or speeds.stall_s is None:
        return [report_skipped("no speed was measured, and so no snapshot was made")]
    return [judge_stall(speeds, speeds.stall_s, context.request.stall_goal_s)]


def judge_stall(speeds: Speeds, stall_s: float, goal_s: float) -> Finding:
    """The stall against its goal."""
    rate = speeds.written_bytes / GB / max(speeds.written_s, 1e-9)
    text = (
        f"a snapshot of {speeds.written_bytes / GB:.2f} GB held training up for"
        f" {stall_s:.3f} s, where saving it plainly takes {speeds.plain_save_s:.2f} s;"
        f" {rate:.2f} GB/s were hashed and written beside training"
    )
    figures = {"plain_save_s": speeds.plain_save_s, "written_gb_per_s": rate}
    if stall_s <= goal_s:
        finding = report_ok(text, **figures)
    else:
        advice = "keep snapshots at fewer steps (checkpoints.snapshots)"
        finding = report_warning(text, advice, **figures)
    return add_comparison(finding, assumed=goal_s, measured=stall_s, unit="s")
