"""Does every process compute on a GPU that it sees, whatever the site has bound to it?"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.evaluating import weight_swapper
from jobs.runtime import devices, ranks
from jobs.runtime.ranks import Ranks, connect_ranks
from zsg_core.errors import ClusterError


class FakeGpus:
    """Stands for torch.cuda: so many visible GPUs, and which one was made the current."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.current: list[str] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", self.current.append)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was started: the backend of each group of ranks, then DeepSpeed's."""
    calls: list[tuple[Any, ...]] = []
    store = SimpleNamespace(host="127.0.0.1", port=1)
    monkeypatch.setattr(ranks, "_open_store", lambda folder, own, timeout: store)
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda backend, **options: calls.append((backend, options["rank"])),
    )
    monkeypatch.setattr(
        ranks, "_start_deepspeed", lambda backend: calls.append((backend,))
    )
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "unset")
    monkeypatch.setenv("DS_ACCELERATOR", "")
    return calls


@pytest.mark.parametrize(
    ("visible", "local", "index"),
    [
        pytest.param(8, 3, 3, id="all of the node's"),
        pytest.param(1, 3, 0, id="one each, by --gpus-per-task or --gpu-bind=single"),
        pytest.param(2, 3, 1, id="two of the node's four"),
    ],
)
def test_deepspeed_is_told_of_a_gpu_that_the_process_sees(
    monkeypatch: pytest.MonkeyPatch,
    started: list[tuple[Any, ...]],
    tmp_path: Path,
    visible: int,
    local: int,
    index: int,
) -> None:
    """LOCAL_RANK, from which DeepSpeed takes its device, is the device of this rank."""
    gpus = FakeGpus(monkeypatch, visible)

    device = connect_ranks(tmp_path, Ranks(rank=11, world=16, local=local), 8)

    assert device == f"cuda:{index}"
    assert gpus.current == [device]
    told = [ranks.os.environ[name] for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE")]
    assert told == [str(index), "11", "16"]
    assert started == [("nccl", 11), ("nccl",)]


def test_ranks_without_gpus_keep_their_numbers(
    monkeypatch: pytest.MonkeyPatch, started: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    """On CPU nodes nothing is bound, and DeepSpeed is told to compute there."""
    FakeGpus(monkeypatch, 0)

    assert connect_ranks(tmp_path, Ranks(rank=5, world=8, local=1), 0) == "cpu"
    told = [ranks.os.environ[name] for name in ("LOCAL_RANK", "DS_ACCELERATOR")]
    assert told == ["1", "cpu"]
    assert started == [("gloo", 5), ("gloo",)]


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(
            lambda: connect_ranks(Path(), Ranks(rank=0, world=1, local=0), 1),
            id="a train job",
        ),
        pytest.param(lambda: weight_swapper.become_sole_rank(1), id="an evaluate job"),
        pytest.param(lambda: devices.list_devices(1), id="a sample job"),
    ],
)
def test_a_job_that_asked_for_a_gpu_does_not_compute_on_the_cpu_in_silence(
    monkeypatch: pytest.MonkeyPatch, start: Any
) -> None:
    """Where torch sees none, the job says so and frees the GPU."""
    FakeGpus(monkeypatch, 0)

    with pytest.raises(ClusterError, match=r"1 GPU was asked for .* torch sees none"):
        start()
