"""Does a plan say what a run takes of a node's memory, and refuse what cannot be enough?"""

from typing import Any

import pytest

from launcher.planning.host_memory import (
    SHARE_FOR_RUNS,
    HostNeed,
    describe_need,
    estimate_host_need,
    explain_short,
    find_crowded_note,
    find_note,
)
from launcher.planning.memory_fit import Layout, Load
from tests.lib.published_llamas import CONFIGS
from zsg_core.families.registry import shape_of_config
from zsg_core.training.estimate import GB, estimate_host_tensors


def need(
    name: str,
    layout: tuple[int, int, int],
    gpu: float | None = 80,
    *,
    on_gpu: bool = True,
    snapshots: bool = False,
    precision: str = "bf16",
) -> HostNeed:
    """Of a published Llama at a ZeRO stage on nodes of so many ranks."""
    shape = shape_of_config({**CONFIGS[name], "vocab_size": 32000})
    load = Load(
        shape=shape,
        trained=shape.parameters,
        precision=precision,
        batch=16,
        max_length=1024,
        budget=16_384,
    )
    stage, nodes, ranks = layout
    spread = Layout(zero_stage=stage, nodes=nodes, ranks_per_node=ranks)
    copied = shape.parameters if snapshots else 0
    return estimate_host_need(load, spread, copied, on_gpu=on_gpu, gpu_memory_gb=gpu)


# ZeRO stage, ranks, GPU's GB → GB of a rank while DeepSpeed takes over 10 billion
# parameters in bf16, and while it reads their state
HOSTS = [
    pytest.param((1, 8, 80), (0, 20), id="laid out on the GPU, beside the weights"),
    pytest.param((2, 8, 39), (40, 20), id="and on the host where that is too much"),
    pytest.param((1, 2, 80), (0, 60), id="half of the optimizer's state"),
    pytest.param((3, 8, 80), (2.5, 17.5), id="at stage 3 a rank's part alone"),
]


@pytest.mark.parametrize(("spread", "expected"), HOSTS)
def test_what_deepspeed_holds_on_the_host(
    spread: tuple[int, int, float], expected: tuple[float, float]
) -> None:
    """Of a rank, in GB; the weights as they lie on the disk do not count."""
    stage, world, gpu_gb = spread
    count = 10_000_000_000
    held = estimate_host_tensors(
        count, stage, world, "bf16", count, gpu_bytes=gpu_gb * GB
    )

    assert (held.start / GB, held.resume / GB) == pytest.approx(expected)


def test_copies_for_snapshots_are_two_of_a_ranks_part() -> None:
    """All ranks of a node together keep two models' worth, on one node."""
    without, kept = need("7B", (1, 1, 4)), need("7B", (1, 1, 4), snapshots=True)

    assert kept.copies_gb == pytest.approx(2 * 2 * 6.738, abs=0.01)
    assert kept.most_gb - without.most_gb == pytest.approx(kept.copies_gb)
    assert "copies for snapshots 27.0" in describe_need(kept)


def test_a_memory_that_cannot_be_enough_is_refused_with_one_that_is() -> None:
    """13B on GPUs of 40 GB: DeepSpeed lays the weights out on the host, twice a rank."""
    short = need("13B", (2, 1, 8), 40)
    why = explain_short(short, 256) or ""

    assert short.surely_gb == pytest.approx(8 * 4 * 13.016, rel=0.01)
    assert "needs 416.5 GB of memory on each node at the least" in why
    assert f"Set slurm.mem_gb: {short.to_set}" in why
    assert explain_short(short, short.to_set) is None
    assert find_note(short, short.to_set) is None
    assert explain_short(short, None) is None


def test_a_memory_that_may_be_too_little_is_told() -> None:
    """A site's default for a large model, and less than a resume takes; nothing of a small one."""
    large = need("33B", (3, 2, 8))
    by_default, little = find_note(large, None) or "", find_note(large, 128) or ""

    assert "slurm.mem_gb is null" in by_default
    by_option = find_note(large, None, "mem-per-gpu") or ""
    assert "asked for by slurm.sbatch.mem-per-gpu" in by_option
    assert f"set slurm.mem_gb: {large.to_set}" in by_default
    assert "slurm.mem_gb is 128; a train job may need" in little
    assert explain_short(large, 128) is None
    assert find_note(need("7B", (3, 1, 1), None, on_gpu=True), None) is not None


@pytest.mark.parametrize("mem_gb", [None, 400])
def test_without_gpus_a_node_holds_what_a_gpu_would(mem_gb: Any) -> None:
    """Weights, gradients and the optimizer's state are there, too."""
    on_cpus = need("7B", (1, 1, 2), None, on_gpu=False)

    assert on_cpus.surely_gb > 2 * 6.738 * (2 + 2 + 6)
    assert explain_short(on_cpus, mem_gb) is None
    assert explain_short(on_cpus, 100) is not None


def test_runs_side_by_side_that_fill_the_machine_are_told() -> None:
    """With how many fit, the largest counted; and where not even one does."""
    small = need("7B", (3, 1, 8))
    large = need("7B", (3, 1, 1), None, on_gpu=False, precision="fp32")
    room = (2 * large.most_gb + 1) / SHARE_FOR_RUNS

    assert find_crowded_note([large, large, small], 2, room) is None
    assert find_crowded_note([large, large], 4, room) is None

    too_many = find_crowded_note([large, large, large, small], 3, room)
    assert too_many is not None
    assert too_many.endswith("set max_parallel: 2 in the profile")
    assert f"3 runs side by side may need {3 * large.most_gb:.1f} GB" in too_many
    alone = find_crowded_note([large], 2, large.most_gb - 1)
    assert alone is not None and "a run may need" in alone
    assert "max_parallel" not in alone
