"""Are MFU and memory what they say?"""

import time
from pathlib import Path

import pytest

from jobs.contract.folder import write_json
from jobs.contract.job_file import TrainJob
from jobs.training.speed import Speed
from tests.lib.job_records import job_record
from zsg_core.families.registry import shape_of_config
from zsg_core.training.estimate import training_flops

CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
}


def job(base: Path, peak: float | None, method: str = "full") -> TrainJob:
    """A job whose profile names a GPU of `peak` 1e12 operations a second."""
    write_json(base / "config.json", CONFIG)
    stage = {"train": {"tuning": {"method": method}}}
    return job_record(
        resources={"peak_tflops": peak},
        recipe={"stages": [stage]},
        paths={"base": str(base)},
    )


def test_mfu_is_the_share_of_all_gpus_peak(tmp_path: Path) -> None:
    """The operations of the step, by its examples' lengths, over seconds, GPUs and their peak."""
    data = Speed(job(tmp_path, peak=1e-3), world=2, device="cpu").of_step(
        [10, 20], time.perf_counter() - 1
    )

    flops = training_flops(shape_of_config(CONFIG), 30, 10**2 + 20**2)
    assert data["speed/tokens_per_s"] == pytest.approx(30, rel=0.05)
    assert data["speed/mfu"] == pytest.approx(flops / (2 * 1e9), rel=0.05)


@pytest.mark.parametrize(("peak", "method"), [(None, "full"), (312.0, "lora")])
def test_no_mfu_where_it_would_be_a_guess(
    tmp_path: Path, peak: float | None, method: str
) -> None:
    """Without a GPU's peak there is none; nor where weights are frozen, of which no
    gradient is made."""
    assert list(
        Speed(job(tmp_path, peak, method), 1, "cpu").of_step(
            [1], time.perf_counter() - 1
        )
    ) == ["speed/tokens_per_s"]


def test_memory_is_the_most_so_far(tmp_path: Path) -> None:
    """After 200 MB were held it says at least that, though they are gone."""
    speed = Speed(job(tmp_path, None), 1, "cpu")
    before = speed.memory()["speed/memory_gb"]
    block = bytearray(b"x") * 200_000_000
    del block

    assert before > 0.01
    assert speed.memory()["speed/memory_gb"] >= 0.2
