"""Tries what evaluators rest on: weights that are swapped and proven, answers that are
drawn alike on any device, and batches that shrink where a GPU's memory ends."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch

from jobs.contract import snapshots
from jobs.contract.node_check import Finding
from jobs.evaluating.weight_swapper import WeightSwapper
from jobs.model.generate import Generator, NumberedNucleus
from jobs.model.placement import load_on
from jobs.node_check.arithmetic import make_bench
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import report_ok, report_problem, report_skipped
from jobs.node_check.precisions import BASE, STEPS, make_trial
from jobs.node_check.small_models import BOS, EOS, make_llama
from jobs.node_check.small_training import locate_run, make_job
from jobs.runtime import devices
from zsg_core.suites import BY_NUMBER, NUCLEUS
from zsg_core.training.decoder import DecoderShape

ADVICE = "do not evaluate on these nodes: try others, and send us this report"
DRAWING: Mapping[str, Any] = MappingProxyType(
    {
        "decoding": NUCLEUS,
        "drawn": BY_NUMBER,
        "seed": 7,
        "temperature": 0.8,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "max_new_tokens": 16,
    }
)
ROWS, VOCAB, PROMPT = 64, 32_000, 8
# What one pass over all prompts takes is some 60 KB a token, six times as much as is
# left of the GPU.
LITTLE_BYTES = 512 << 20
PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 512, 96, 4
WIDE = DecoderShape(
    hidden=1024,
    intermediate=2816,
    layers=2,
    heads=16,
    kv_heads=16,
    head_dim=64,
    vocab=8000,
    tied=True,
)
MOST_SPREAD_DEVIATION = 1e-3


def check_weight_swap(context: CheckContext) -> list[Finding]:
    """Puts a snapshot of the small model's weights into a model, several tensors at a
    time, and again; each time their digest must be the snapshot's."""
    if not context.ranks.is_main:
        return []
    for precision in context.request.precisions:
        trial = make_trial(precision, 1)
        job = make_job(trial, make_bench(context))
        folder = snapshots.folder_of(locate_run(make_bench(context), trial), STEPS)
        if folder.is_dir():
            break
    else:
        return [report_skipped("no snapshot was made that could be read")]
    swapper = WeightSwapper([context.device])
    started = time.perf_counter()
    swapper.load_snapshot(folder, job)
    swapper.load_snapshot(folder, job)
    seconds = time.perf_counter() - started
    text = (
        f"a snapshot's weights were put into a model {swapper.swaps} times, read and"
        " hashed side by side, and were those that training had"
    )
    return [report_ok(text, seconds=seconds)]


def check_drawn_tokens(context: CheckContext) -> list[Finding]:
    """Draws a token of each row of logits on the device and on the CPU."""
    logits = torch.randn(ROWS, VOCAB, generator=torch.Generator().manual_seed(3)) * 4
    prompts = torch.arange(ROWS * PROMPT).reshape(ROWS, PROMPT) % VOCAB
    on_device = draw_tokens(logits.to(context.device), prompts.to(context.device))
    on_cpu = draw_tokens(logits, prompts)
    differing = int((on_device.cpu() != on_cpu).sum())
    if differing:
        text = (
            f"of {ROWS} tokens drawn of equal logits {differing} differ from the CPU's"
        )
        return [report_problem(text, ADVICE, differing=differing)]
    return [report_ok(f"{ROWS} tokens drawn of equal logits are those of the CPU")]


def draw_tokens(logits: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """(B,) the tokens that evaluators would draw after prompts (B, T) with these
    logits (B, V)."""
    names = [f"item {row}" for row in range(len(logits))]
    nucleus = NumberedNucleus(DRAWING, prompts.shape[1], names)
    return nucleus(prompts, logits).argmax(-1)


def check_batch_halving(context: CheckContext) -> list[Finding]:
    """Asks for more answers at once than there is memory: batches must be halved until
    they fit, and no answer be lost."""
    llama = make_llama(WIDE, torch.float32, context.device)
    how = {"decoding": "greedy", "max_new_tokens": ANSWER_TOKENS}
    generator = Generator(llama, how, BOS, EOS, context.device)
    prompts = [[BOS, *range(2, PROMPT_TOKENS + 1)]] * PROMPTS
    names = [f"item {number}" for number in range(PROMPTS)]
    with little_memory(context.device):
        answers = generator.answers(prompts, names)
    halved = generator.budget.halved
    if len(answers) != PROMPTS:
        text = f"of {PROMPTS} answers {len(answers)} were made"
        return [report_problem(text, ADVICE)]
    if not halved:
        text = "the GPU's memory did not end where it was limited; nothing was seen"
        return [report_skipped(text)]
    text = (
        f"a batch was halved {halved} times as the GPU's memory ended, and all"
        f" {PROMPTS} answers were made"
    )
    return [report_ok(text, halved=halved)]


@contextmanager
def little_memory(device: str) -> Iterator[None]:
    """Leaves this process little more of a GPU than it has: what goes beyond is a real
    error of torch's allocator."""
    torch.cuda.empty_cache()
    reserved = torch.cuda.memory_reserved(device)
    _, whole = torch.cuda.mem_get_info(device)
    share = min(1.0, (reserved + LITTLE_BYTES) / whole)
    torch.cuda.set_per_process_memory_fraction(share, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def check_spread_layers(context: CheckContext) -> list[Finding]:
    """Spreads a model's layers over two GPUs, and holds its logits against those of the
    model on one."""
    used = devices.list_devices(0)[:2]
    folder = make_bench(context).locate_base(BASE)
    if len(used) < 2:
        return [report_skipped("this rank sees one GPU")]
    if not folder.is_dir():
        return [report_skipped("the small model was not made")]
    if not context.ranks.is_main:
        return []
    spread = compute_logits(load_on(used, folder, "fp32"), used[0])
    whole = compute_logits(load_on(used[:1], folder, "fp32"), used[0])
    deviation = ((spread - whole).abs().max() / whole.abs().max()).item()
    text = f"a model spread over {', '.join(used)} gives logits that differ by"
    text += f" {deviation:.1e} of the largest from those of one GPU"
    if deviation <= MOST_SPREAD_DEVIATION:
        return [report_ok(text, deviation=deviation)]
    return [report_problem(text, ADVICE, deviation=deviation)]


@torch.no_grad()
def compute_logits(llama: Any, device: str) -> torch.Tensor:
    """The logits of a row of tokens, as evaluators ask for them."""
    llama.set_attn_implementation("sdpa")
    tokens = torch.arange(2, 34, device=device)[None]
    return llama(input_ids=tokens, use_cache=False).logits.float()
