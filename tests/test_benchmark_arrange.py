"""Does the benchmark of orders measure the same orders as its peers make?"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.process
def test_the_benchmark_of_orders_prints_its_rows() -> None:
    """Nine rows in one run; the authors' shape of code gives the very same list, or
    the benchmark itself fails."""
    command = [sys.executable, "-m", "benchmarks.arrange", "--json"]
    command += ["--train", "2000", "--large", "3000", "--slice", "1500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    rows = json.loads(done.stdout)
    assert [list(row) for row in rows] == [
        ["measure", "value", "unit", "peer", "goal", "met"]
    ] * 9
    assert [round(row["goal"] / row["peer"], 2) for row in rows if row["peer"]] == [
        1.2,
        1.2,
        1.2,
        0.05,
        2.5,
    ]
    assert all(row["met"] == (row["value"] <= row["goal"]) for row in rows)


def test_memory_is_that_of_the_order_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that is measured holds no more because its parent does."""
    monkeypatch.syspath_prepend(ROOT)
    benchmark = importlib.import_module("benchmarks.arrange")

    np.save(tmp_path / "train.npy", benchmark.vectors(np.empty((500, 384), np.float32)))
    held = bytearray(600_000_000)
    held[::4096] = b"x" * len(held[::4096])
    row = benchmark.memory("small", tmp_path / "train.npy", "wsd", 1.2)

    assert row.met
    assert 0.02 < row.value < 0.4
