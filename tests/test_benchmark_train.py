"""Does the benchmark of training measure what it says, and does its GPU part run?"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zsg_core.errors import UserError
from zsg_core.training.estimate import GB

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [
    sys.executable,
    "-m",
    "benchmarks.train",
    "--json",
    "--repeats",
    "1",
    "--shapes",
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that measures on a GPU."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.train_gpu")


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA A800-SXM4-80GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H200", 989.0),
    ],
)
def test_a_known_gpu_has_its_vendors_peak(gpu: Any, name: str, tflops: float) -> None:
    """The share of the peak is that of dense bf16."""
    assert gpu.peak_of(name) == tflops


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 PCIe",
        "NVIDIA H200 NVL",
        "NVIDIA B200",
        "NVIDIA RTX A1000",
        "Tesla T4",
    ],
)
def test_the_peak_of_another_gpu_is_not_guessed(gpu: Any, name: str) -> None:
    """A GPU that is not listed, or whose card is slower, is an error that names it."""
    with pytest.raises(UserError, match=name):
        gpu.peak_of(name)


def test_a_step_on_a_gpu_has_tokens_enough(gpu: Any) -> None:
    """The batch is the least of which every step has 16,384 real tokens, and it fits
    where the model does."""
    shape = gpu.SHAPES["7B"]
    batch = gpu.batch_of(shape, gpu.TOKENS)
    lengths = [len(one.ids) for one in gpu.items(shape, 400)]
    steps = [
        sum(lengths[start : start + batch])
        for start in range(0, 400 - batch + 1, batch)
    ]

    assert min(steps) >= 16_384
    assert sum(lengths) / 400 * batch < 2 * 16_384
    assert gpu.micro_tokens(shape, 80 * GB) == 0
    assert 1024 < gpu.micro_tokens(shape, 150 * GB) <= 16_384


@pytest.mark.soak(part="models")
def test_the_gpu_part_runs_on_a_toy() -> None:
    """`--gpu --shapes toy` walks through rounds, operations and matrix product without
    a GPU, and claims no MFU."""
    done = subprocess.run(
        [*COMMAND, "toy", "--gpu"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    product, speed, stall, operations = json.loads(done.stdout)
    assert (product["measure"], operations["measure"]) == (
        "matrix product",
        "toy, operations",
    )
    assert speed["value"] > 0 < speed["peer"]
    # which is larger hangs on what else the machine does
    assert operations["value"] > 0 < product["value"]
    assert 0 <= stall["value"] and stall["peer"] > 0


@pytest.mark.soak(part="models")
def test_the_benchmark_of_training_prints_its_rows() -> None:
    """Rows against the best peer, padding, a plain loss loop, save_pretrained, each
    other peer; first losses agreed."""
    done = subprocess.run(
        [*COMMAND, "toy"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    rows = json.loads(done.stdout)
    assert [row["goal"] / row["peer"] for row in rows[:3]] == pytest.approx(
        [1.15, 2.8, 2.0]
    )
    assert all(row["met"] == (row["value"] >= row["goal"]) for row in rows[:3])
    assert rows[3]["goal"] / rows[3]["peer"] == pytest.approx(0.1)
    assert rows[0]["peer"] == max([rows[0]["peer"], *(row["peer"] for row in rows[4:])])
    assert len(rows) == 9


@pytest.mark.soak(part="models")
def test_without_a_gpu_nothing_else_is_measured_as_one() -> None:
    """`--gpu` for a real model where torch sees no GPU is an error, not a slow measurement."""
    done = subprocess.run(
        [*COMMAND, "1B", "--gpu"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "torch sees no GPU" in done.stderr


@pytest.mark.soak(part="models")
def test_the_loss_in_pieces_is_measured_against_all_logits_at_once() -> None:
    """Two rows, of memory and of time, of ways whose losses agree."""
    small = ["--tokens", "40", "--words", "1000", "--hidden", "16", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.head_pass", "--json", *small],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["unit"] for row in rows] == ["GB", "s"]
    assert all(row["peer"] is not None for row in rows)
