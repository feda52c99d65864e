"""Measures zsg's trainer on one GPU: tokens a second, share of the peak (MFU), memory;
beside TRL where that fits.

MFU = (6·(N_body + N_head)·Σn + 6·L·d·Σn²) / seconds / peak: causal attention, real
tokens, nothing for padding or recomputation
(zsg_core.training.estimate.training_flops). The peak is the vendor's for dense bf16;
beside it stands what this GPU reaches in a large matrix product. A GPU whose peak is
not in the list is refused, never guessed.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.rows import Row
from benchmarks.trainer_process import TrainerProcess
from benchmarks.trainers import ZSG
from benchmarks.workload import SHAPES, items
from zsg_core.errors import UserError
from zsg_core.training import estimate
from zsg_core.training.decoder import DecoderShape

# TFLOPS, dense bf16. An H100 or H200 in a PCIe card or NVL pair is slower, and its name says so.
PEAKS = {"A100": 312.0, "A800": 312.0, "H100": 989.0, "H200": 989.0}
SLOWER = ("PCIE", "NVL")
SHAPES_OF_A_GPU = ("1B", "3B", "7B")
MFU_GOALS = {"1B": 0.40, "3B": 0.43, "7B": 0.45}
STALL_GOAL = 0.3  # seconds
PEER = "TRL, rows of 8"
TOKENS, STEPS, PEER_STEPS = 16_384, 6, 3
SPARE = 0.08  # of the memory, for buffers and fragments


def is_there() -> bool:
    """Whether torch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def peak_of(name: str) -> float:
    """The peak of a GPU in TFLOPS, by the name that its driver gives it; UserError for
    one that is not listed."""
    upper = name.upper()
    for model, tflops in PEAKS.items():
        if model in upper.replace("-", " ").split() and not (
            model[0] == "H" and any(s in upper for s in SLOWER)
        ):
            return tflops
    raise UserError(
        f"the bf16 peak of {name!r} is not known; known are {', '.join(PEAKS)} (SXM): add it to"
        " PEAKS"
    )


def batch_of(shape: DecoderShape, least: int) -> int:
    """How many examples a step has so that every step has at least so many tokens; a
    multiple of 8."""
    lengths = [len(one.ids) for one in items(shape, 400)]
    return next(
        batch
        for batch in range(8, 400, 8)
        if min(
            sum(lengths[start : start + batch])
            for start in range(0, 400 - batch + 1, batch)
        )
        >= least
    )


def micro_tokens(shape: DecoderShape, memory: float, most: int = TOKENS) -> int:
    """Tokens of a micro-batch that fit beside weights and optimiser; 0 where not even
    the longest example does."""
    held = estimate.estimate_tensors(shape.parameters, stage_of(shape), 1, "bf16")
    free = memory * (1 - SPARE) - held.at_step
    fits = int(free / estimate.activation_bytes(shape, 1, "bf16"))
    return min(most, fits) if fits >= 1024 else 0


def stage_of(shape: DecoderShape) -> int:
    """The ZeRO stage: 3 for large models, whose step then copies part by part."""
    return 3 if shape.parameters > 5e9 else 1


def rows(names: Sequence[str], repeats: int) -> list[Row]:
    """The rows of each shape, and this GPU's matrix product. Where there is no GPU the
    toy shape may walk through.

    UserError for a GPU whose peak is not known, or none.
    """
    import torch

    device = "cuda" if is_there() else "cpu"
    if device == "cpu" and list(names) != ["toy"]:
        raise UserError(
            "torch sees no GPU; --shapes toy walks through the same code on a CPU"
        )
    gpu = torch.cuda.get_device_properties(0) if device == "cuda" else None
    peak = peak_of(gpu.name) if gpu else None
    memory = gpu.total_memory if gpu else 4e9
    found = [Row("matrix product", matmul_tflops(device), "TFLOPS", peak, None, None)]
    for name in names:
        found += _of(name, device, peak, memory, repeats)
    return found


def _of(
    name: str, device: str, peak: float | None, memory: float, repeats: int
) -> list[Row]:
    shape = SHAPES[name]
    tokens = micro_tokens(shape, memory)
    if not tokens:
        return [Row(f"{name}, does not fit", memory / 1e9, "GB", None, None, None)]
    batch = batch_of(shape, TOKENS) if device == "cuda" else 8
    rounds = _rounds(ZSG, name, device, batch, tokens, STEPS, repeats)
    assert rounds
    speed = statistics.median(one["tokens"] / one["seconds"] for one in rounds)
    peers = _rounds(PEER, name, device, batch, tokens, PEER_STEPS, 1)
    peer = peers[0]["tokens"] / peers[0]["seconds"] if peers else None
    found = [
        Row(
            f"{name}, {rounds[0]['tokens'] / (STEPS - 1):,.0f} tokens a step",
            speed,
            "tok/s",
            peer,
            None,
            None,
        )
    ]
    flops = statistics.median(
        estimate.training_flops(shape, one["tokens"], one["squares"]) / one["seconds"]
        for one in rounds
    )
    stood, saved = rounds[-1]["stall"], rounds[-1]["saved"]
    is_short = stood <= STALL_GOAL if peak else None
    found.append(
        Row(
            f"{name}, stall for a snapshot",
            stood,
            "s",
            saved,
            STALL_GOAL if peak else None,
            is_short,
        )
    )
    if peak:
        share, goal = flops / (peak * 1e12), MFU_GOALS.get(name)
        found.append(
            Row(
                f"{name}, MFU",
                share,
                "",
                None,
                goal,
                None if goal is None else share >= goal,
            )
        )
        held = rounds[0]["peak"] / 1e9
        found.append(
            Row(
                f"{name}, peak memory",
                held,
                "GB",
                peers[0]["peak"] / 1e9 if peers else None,
                None,
                None,
            )
        )
    else:
        found.append(
            Row(f"{name}, operations", flops / 1e12, "TFLOPS", None, None, None)
        )
    return found


def _rounds(
    name: str,
    shape: str,
    device: str,
    batch: int,
    tokens: int,
    steps: int,
    repeats: int,
) -> list[dict[str, Any]]:
    """Rounds of a trainer that has the GPU for itself; none where a peer's memory does
    not suffice."""
    try:
        turns = TrainerProcess(name, shape, device, batch, tokens)
        found = [turns.train(steps) for _ in range(repeats)]
        if name == ZSG:
            found[-1] |= {
                key: seconds
                for key, seconds in turns.train(2, 1).items()
                if key in ("stall", "saved")
            }
        turns.stop()
    except RuntimeError as ended:
        if name == ZSG or "out of memory" not in str(ended):
            raise
        return []
    return found


def matmul_tflops(device: str) -> float:
    """What a large bf16 matrix product reaches here, the best of several sizes; small
    ones in fp32 on a CPU."""
    import torch

    sizes = (4096, 8192, 16_384) if device == "cuda" else (512,)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    best = 0.0
    for size in sizes:
        one, other = torch.randn(2, size, size, dtype=dtype, device=device)
        for _ in range(3):
            one @ other
        _wait(device)
        began = time.perf_counter()
        for _ in range(10):
            one @ other
        _wait(device)
        best = max(best, 10 * 2.0 * size**3 / (time.perf_counter() - began))
    return best / 1e12


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
