"""Is a model of any family loaded as transformers loads it, and written so that others
read it: the same weights, buffers, names and results?"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET

from jobs.contract.attempt import begin_attempt
from jobs.contract.folder import Workspace, is_whole
from jobs.contract.snapshots import SnapshotMeta
from jobs.runtime.ranks import Ranks
from tests.lib.tiny_families import FAMILIES, make_model
from zsg_core.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from jobs.evaluating.weight_swapper import WeightSwapper, become_sole_rank
    from jobs.model import published_names, weights
    from jobs.model.base_model import load_model
    from jobs.training import safetensors_digests
    from jobs.training.weight_folders import Base, WeightFolders

# fused experts under other names, buffers that are weights, names of old, no interface
QUICK = ("mixtral", "deepseek_v3", "gpt_neox", "bloom")
ALL = [
    pytest.param(
        family, marks=[] if family in QUICK else pytest.mark.soak(part="families")
    )
    for family in FAMILIES
]
TOKENS = torch.arange(3, 45).remainder(300)[None]
TRAIN = {"precision": "fp32", "tuning": {"method": "full"}}


def write(family: str, folder: Path, seed: int = 4) -> Any:
    """A tiny model's folder as transformers writes it, with random buffers, too; the
    model."""
    model = make_model(family)
    draws = torch.Generator().manual_seed(seed)
    saved = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in saved:
            buffer += torch.rand(buffer.shape, generator=draws)
    for parameter in model.parameters():
        parameter.data += torch.randn(parameter.shape, generator=draws) * 0.01
    model.save_pretrained(folder)
    return model


def contents(model: Any) -> dict[str, torch.Tensor]:
    """All tensors of a model, those that no file has, too."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(model.named_buffers())}


def load_theirs(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", local_files_only=True
    )


@torch.no_grad()
def compute_logits(model: Any) -> torch.Tensor:
    """What a model makes of a text."""
    return model.eval()(input_ids=TOKENS, use_cache=False).logits


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's files."""
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


@pytest.fixture
def write_snapshot(tmp_path: Path) -> Iterator[Any]:
    """Writes a snapshot of a model as a run does, on one rank."""
    become_sole_rank()
    run = tmp_path / "run"
    run.mkdir()
    attempt = begin_attempt(run, "s")

    def write_one(model: Any, base: Path, step: int = 1) -> Path:
        engine = SimpleNamespace(
            module=SimpleNamespace(model=model),
            device="cpu",
            zero_optimization_stage=lambda: 0,
        )
        digest = weights.digest_of(engine)
        folders = WeightFolders(engine, run, attempt, Ranks(0, 1, 0), Base(base, "d"))
        folder = run / "snapshots" / str(step)
        folders.copy()
        folders.write(folder, SnapshotMeta(step=step, attempt=1, probe_loss=None))
        folders.finish()
        assert is_whole(folder)
        assert json.loads((folder / "meta.json").read_text())["weights"] == digest
        return folder

    yield write_one
    dist.destroy_process_group()


@pytest.mark.parametrize("family", ALL)
def test_a_family_is_loaded_and_written_as_transformers_does(
    tmp_path: Path, write_snapshot: Any, family: str
) -> None:
    """To the bit in both types: all tensors, and logits. A snapshot has the names, the
    class and the tensors that the folder of the base has; its digest is that of its
    files, and another snapshot's weights go into the same model."""
    made = write(family, tmp_path / "base")
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        ours = load_model(tmp_path / "base", precision, attention="eager")
        theirs = load_theirs(tmp_path / "base", dtype)
        expected = contents(theirs)
        assert type(ours) is type(theirs)
        assert contents(ours).keys() == expected.keys()
        for name, tensor in contents(ours).items():
            assert tensor.dtype == expected[name].dtype, name
            assert torch.equal(tensor, expected[name]), name
        assert torch.equal(compute_logits(ours), compute_logits(theirs))

    ours = load_model(tmp_path / "base", "fp32", attention="eager")
    snapshot = write_snapshot(ours, tmp_path / "base")
    written, there = tensors_of(snapshot), tensors_of(tmp_path / "base")
    assert written.keys() == there.keys()
    assert all(torch.equal(written[name], there[name]) for name in there)
    config = json.loads((snapshot / "config.json").read_text())
    assert config["architectures"] == [type(made).__name__]
    reloaded = load_theirs(snapshot)
    assert torch.equal(compute_logits(reloaded), compute_logits(made))
    meta = json.loads((snapshot / "meta.json").read_text())
    digests = safetensors_digests.compute_digests(snapshot)
    assert weights.combine_digests(digests) == meta["weights"]


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_snapshots_take_turns_in_one_model(
    tmp_path: Path, write_snapshot: Any, family: str
) -> None:
    """With fused experts and buffers: an evaluator loads one model and gives it the
    weights of each snapshot."""
    models = [write(family, tmp_path / f"base{seed}", seed) for seed in (1, 2)]
    snapshots = [
        write_snapshot(model, tmp_path / f"base{step}", step)
        for step, model in enumerate(models, 1)
    ]
    job: Any = SimpleNamespace(
        train=TRAIN, workspace=Workspace(tmp_path / "work"), proof=UNSET
    )
    swapper = WeightSwapper(["cpu"])
    for model, snapshot in zip(models, snapshots, strict=True):
        swapper.load_snapshot(snapshot, job)
        held = swapper.decoder.state_dict()
        assert all(torch.equal(held[n], t) for n, t in model.state_dict().items())

    assert (swapper.loads, swapper.swaps) == (1, 2)


def test_files_may_have_the_names_of_memory(tmp_path: Path) -> None:
    """As some tools write them: fused experts are read as they are."""
    made = write("mixtral", tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "other")
    save_file(
        {name: tensor.clone() for name, tensor in made.state_dict().items()},
        tmp_path / "other/model.safetensors",
    )

    ours, expected = (load_model(tmp_path / name, "fp32") for name in ("other", "base"))
    others = contents(expected)
    assert all(torch.equal(held, others[n]) for n, held in contents(ours).items())


@pytest.mark.parametrize(
    ("name", "made", "said"),
    [
        ("w1", "gate_up_proj", "do not fit together"),
        ("w2", "down_proj", "of shape"),
    ],
)
def test_an_expert_that_is_missing_is_told(
    tmp_path: Path, name: str, made: str, said: str
) -> None:
    """What is made of the others would be that of three experts."""
    write("mixtral", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    del kept[f"model.layers.1.block_sparse_moe.experts.2.{name}.weight"]
    save_file(kept, tmp_path / "model.safetensors")

    with pytest.raises(UserError, match=said) as error:
        load_model(tmp_path, "fp32")
    assert f"model.layers.1.mlp.experts.{made}" in str(error.value)


def test_a_buffer_that_is_missing_is_named(tmp_path: Path) -> None:
    """transformers would begin with its first value, and say so in a log."""
    write("deepseek_v3", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {n: t.clone() for n, t in tensors.items() if "e_score" not in n}
    save_file(kept, tmp_path / "model.safetensors")

    with pytest.raises(UserError, match=r"lack 3 tensors .*e_score_corr"):
        load_model(tmp_path, "fp32")


def test_what_is_published_joined_is_refused() -> None:
    """A tensor of files that is made of several of the model cannot be written while
    each rank holds its share."""

    class Joined(torch.nn.Module):
        """Two layers that are published as one."""

        def __init__(self) -> None:
            super().__init__()
            from transformers.core_model_loading import Chunk, WeightConverter

            self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
            self.config = SimpleNamespace(model_type="joined")
            self._zsg_knows_names = True
            self._weight_conversions = [
                WeightConverter(
                    ["both.weight"], ["first.weight", "second.weight"], [Chunk(dim=0)]
                )
            ]
            self.get_parameter_or_buffer = self.get_parameter

    with pytest.raises(UserError, match="'joined' model is not published tensor by"):
        published_names.refuse_unpublished(Joined(), ["first.weight", "second.weight"])


@pytest.mark.soak(part="families")
def test_any_family_is_divided_under_zero_3(tmp_path: Path) -> None:
    """Fused experts, buffers that are weights, tied embeddings: two ranks that each read
    their share train, and digest, as those that were given whole models."""
    families = ("mixtral", "deepseek_v3", "gemma3_text")
    for family in families:
        write(family, tmp_path / family)
    cases = [[str(tmp_path / family), "fp32", "full", 0] for family in families]
    (tmp_path / "meeting").mkdir()
    script = Path(__file__).with_name("lib") / "divided_ranks.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "meeting", "2", json.dumps(cases)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = [
        json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")
    ]
    # beside what ranks tell of a file that cannot be read
    rows = [row for row in printed if "whole" in row]

    assert len(rows) == len(cases)
    for row in rows:
        assert row["divided"] == row["whole"]
        assert row["whole"][0] != row["whole"][-1]
        reading, other = row["ranks"]
        assert reading["reads"] > 0 and other["reads"] == 0
        assert all(whole == 0 for whole, _share, _count in other["shares"])
