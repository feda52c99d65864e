"""Are the weights in the model those of the snapshot, read and hashed side by side?"""

import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET

from jobs.contract import snapshots
from jobs.contract.folder import commit_draft
from jobs.contract.snapshots import SnapshotMeta
from zsg_core.digest import combine_digests
from zsg_core.errors import ClusterError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.evaluating import weight_swapper
    from jobs.evaluating.weight_swapper import WeightSwapper
    from jobs.model import weights

CONFIG = LlamaConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    vocab_size=97,
)
JOB: Any = SimpleNamespace(
    train={"precision": "fp32", "tuning": {"method": "full"}},
    workspace=None,
    proof=UNSET,
)


def snapshot(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """A committed snapshot with random weights in several files; they themselves."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(CONFIG)
    draft = folder.with_name(f"{folder.name}.draft")
    model.save_pretrained(draft, max_shard_size="20KB")
    tensors = model.state_dict()
    digests = {name: weights.tensor_digest(t) for name, t in tensors.items()}
    digest = combine_digests(digests)
    meta = SnapshotMeta(step=seed, attempt=1, probe_loss=None, weights=digest)
    snapshots.write_meta(draft, meta)
    commit_draft(draft, folder)
    return tensors


def test_a_snapshots_tensors_are_hashed_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once where there are two CPUs; the model then has them, and their digest is proven."""
    first, second = (snapshot(tmp_path / name, seed) for seed, name in enumerate("ab"))
    swapper = WeightSwapper(["cpu"])
    swapper.load_snapshot(tmp_path / "a", JOB)
    assert all(
        torch.equal(swapper.decoder.state_dict()[n], t) for n, t in first.items()
    )

    together, hash_alone = threading.Barrier(2, timeout=20), weights.tensor_digest
    waits = iter([True, True])

    def hash_together(tensor: torch.Tensor) -> str:
        if next(waits, False):
            together.wait()
        return hash_alone(tensor)

    monkeypatch.setattr(weight_swapper, "_count_threads", lambda: 2)
    monkeypatch.setattr(weights, "tensor_digest", hash_together)
    swapper.load_snapshot(tmp_path / "b", JOB)
    assert all(
        torch.equal(swapper.decoder.state_dict()[n], t) for n, t in second.items()
    )
    assert (swapper.loads, swapper.swaps) == (1, 2)


def test_a_tensor_that_is_not_the_snapshots_is_refused(tmp_path: Path) -> None:
    """In whatever order they are read; the next snapshot begins with a new model."""
    snapshot(tmp_path / "a", 1)
    snapshot(tmp_path / "b", 2)
    meta = snapshots.read_meta(tmp_path / "a")
    snapshots.write_meta(tmp_path / "b", meta)
    swapper = WeightSwapper(["cpu"])
    swapper.load_snapshot(tmp_path / "a", JOB)

    with pytest.raises(ClusterError, match="its weights have the digest"):
        swapper.load_snapshot(tmp_path / "b", JOB)
    assert swapper.must_load(tmp_path / "a", JOB)


INTERRUPTED = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from jobs.evaluating import weight_swapper
from tests.lib.interrupts import interrupt_again_and_again

folder = Path(sys.argv[1])
tensors = {f"layer{number}": torch.full((64, 64), float(number)) for number in range(8)}
save_file(tensors, folder / "model.safetensors")
weight_swapper._count_threads = lambda: 4
swapper = weight_swapper.WeightSwapper(["cpu"])
swapper._places = {name: torch.zeros(64, 64) for name in tensors}
interrupt_again_and_again(lambda: swapper._copy_files(folder), 150)

assert swapper._copy_files(folder).keys() == tensors.keys()
assert all(torch.equal(swapper._places[n], tensors[n]) for n in tensors)
"""


def test_an_interrupt_at_any_moment_of_a_swap_leaves_nothing_hanging(
    tmp_path: Path,
) -> None:
    """An evaluator that is told to stop while it reads weights comes to its end."""
    script = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    subprocess.run(script, check=True, timeout=120)
