"""Loads one snapshot's weights after another into one model, and proves that they are
there.

The proof is twofold. The tensors that were read have the digest of the snapshot's
meta.json; and the model, computing as the trainer does, has the test loss that the
trainer measured with these weights, which stands there too.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from jobs.contract import snapshots
from jobs.contract.folder import read_json
from jobs.contract.job_file import TrainJob
from jobs.model import weights
from jobs.model.answer_loss import AnswerLoss
from jobs.model.base_model import load_model
from jobs.model.tuning import apply_tuning
from zsg_core.errors import ClusterError

# of a config: not of the model
_OF_THE_FILE = ("dtype", "torch_dtype", "architectures", "transformers_version")
# relative, as for a value that is computed again on other ranks: see journal.first_points
EXACT, HALF = 1e-5, 1e-2


def become_sole_rank() -> str:
    """Makes this process a world of one rank, without DeepSpeed, and returns its device."""
    from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    return "cuda:0" if torch.cuda.is_available() else "cpu"


class WeightSwapper:
    """A Llama on a device, whose weights change. `loads` counts how often a model was
    made, `swaps` weights put in."""

    def __init__(self, device: str) -> None:
        self._device, self._kind = device, ""
        self._parts: dict[str, torch.nn.Parameter] = {}
        self.llama: Any = None
        self.model: Any = None  # AnswerLoss, as the trainer computes the loss
        self.loads = self.swaps = 0

    def hold_base(self, job: TrainJob) -> None:
        """Loads the weights that a run's first stage starts from."""
        base = job.base_folder
        self._load(base, job, "" if _is_lora(job) else _kind(base, job))

    def hold(self, folder: Path, job: TrainJob) -> None:
        """Puts a snapshot's weights in. ClusterError where they are not those that its
        meta.json tells of."""
        kind = _kind(folder, job)
        if kind != self._kind:
            self._load(_base(folder) if _is_lora(job) else folder, job, kind)
        digest, wanted = (
            self._put(folder),
            snapshots.read_meta(folder).weights,
        )
        if digest != wanted:
            self._kind = ""
            raise ClusterError(
                f"{folder}: its weights have the digest {digest}, by its meta.json {wanted}"
            )
        self.swaps += 1

    def _load(self, folder: Path, job: TrainJob, kind: str) -> None:
        self.llama = self.model = None  # two models may be more than fit
        llama = load_model(folder, job.train["precision"])
        with_adapters = bool(kind) and _is_lora(job)
        if with_adapters:
            apply_tuning(llama, _tuning(job))
        self.llama, self._kind = (
            llama.to(self._device).eval().requires_grad_(False),
            kind,
        )
        self.model = AnswerLoss(self.llama)
        engine = SimpleNamespace(module=self.model)
        parts = weights.list_tensors(engine)
        named = (
            weights.named_adapters([p for p in parts if ".lora_" in p.name])
            if with_adapters
            else parts
        )
        self._parts = {part.name: part.parameter for part in named}
        self.loads += 1

    def _put(self, folder: Path) -> str:
        """Copies the tensors of a folder into the model; returns their digest."""
        from safetensors import safe_open

        digests: dict[str, str] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():
                    tensor = file.get_tensor(name)
                    if (
                        name not in self._parts
                        or self._parts[name].shape != tensor.shape
                    ):
                        raise ClusterError(
                            f"{path}: the model has no tensor {name} of shape {tuple(tensor.shape)}"
                        )
                    digests[name] = weights.tensor_digest(tensor)
                    self._parts[name].data.copy_(tensor)
        return weights.combine_digests(digests)


def refuse_other(loss: float, told: float | None, precision: str, what: str) -> None:
    """Raises ClusterError if the loss of the weights that are held is not the one that
    the trainer told of them."""
    if told is None:
        return
    tolerance = EXACT if precision == "fp32" else HALF
    same = math.isclose(loss, told, rel_tol=tolerance) or (
        math.isnan(loss) and math.isnan(told)
    )
    if not same:
        raise ClusterError(
            f"{what}: the weights that are held have the test loss {loss!r}, the trainer measured"
            f" {told!r} there: these are not the same weights, or not computed in the same way"
        )


def _tuning(job: TrainJob) -> Mapping[str, Any]:
    return job.train["tuning"]


def _is_lora(job: TrainJob) -> bool:
    return _tuning(job)["method"] == "lora"


def _base(folder: Path) -> Path:
    """The folder of the weights that adapters are put on."""
    return Path(snapshots.read_meta(folder).base.path)


def _kind(folder: Path, job: TrainJob) -> str:
    """What two snapshots must have in common for one model to hold either."""
    precision = job.train["precision"]
    if _is_lora(job):
        return json.dumps([precision, str(_base(folder)), _tuning(job)], sort_keys=True)
    config = {
        k: v
        for k, v in (read_json(folder / "config.json") or {}).items()
        if k not in _OF_THE_FILE
    }
    return json.dumps([precision, config], sort_keys=True)
