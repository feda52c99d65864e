"""Loads one snapshot's weights after another into one model, and proves that they are
there.

The proof is twofold. The tensors that were read have the digest of the snapshot's
meta.json; and the model, computing as the trainer does, has the test loss that the
trainer measured with these weights, which stands there too.
"""

import gc
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from jobs.contract import snapshots
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import find_damage, read_json
from jobs.contract.job_file import TrainJob
from jobs.model import lora, placement, weights
from jobs.model.answer_loss import AnswerLoss, choose_batching
from jobs.model.batch_budget import BatchBudget
from jobs.model.batching import choose_attention
from jobs.model.lora import is_of_adapter
from jobs.model.tuning import apply_tuning
from jobs.runtime import devices
from zsg_core.errors import ClusterError
from zsg_core.side_by_side import map_side_by_side

# of a config: not of the model, or, as the ends of answers, not of what it computes
_OF_THE_FILE = (
    "dtype",
    "torch_dtype",
    "architectures",
    "transformers_version",
    "eos_token_id",
)
# relative, as for a value that is computed again on other ranks: see journal.first_points
EXACT, HALF = 1e-5, 1e-2
MOST_THREADS = 8


def become_sole_rank(gpus: int = 0) -> list[str]:
    """Makes this process a world of one rank, without DeepSpeed, and returns its
    devices. `gpus`: those that the job was given; ClusterError where it sees none."""
    from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

    used = devices.choose_devices(gpus)
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    return used


class Contents(Enum):
    """What the model's tensors are."""

    NOTHING = "no model is loaded, or loading it failed"
    BARE_BASE = "a base, without the adapters that the run trains"
    UNPROVEN = "tensors whose digest is not the snapshot's"
    REPLACEABLE = "weights that any snapshot of the same kind may replace"


class WeightSwapper:
    """A model on devices, whose weights change. `loads` counts how often a model was
    made, `swaps` weights put in. `beside`: says how many bytes of the last device
    another model is yet to take."""

    def __init__(
        self, used: Sequence[str], beside: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._devices, self._beside = used, beside
        self._contents, self._kind = Contents.NOTHING, ""
        # by the names that files have, what of the model's tensors they go into
        self._places: dict[str, torch.Tensor] = {}
        self.decoder: Any = None
        self.model: Any = None  # AnswerLoss, as the trainer computes the loss
        self.budget: BatchBudget | None = None  # of its batches
        # the parameters that its class, or LoRA, does not freeze
        self.trainable: frozenset[str] = frozenset()
        self.loads = self.swaps = 0

    def load_base(self, job: TrainJob) -> None:
        """Loads the weights that a run's first stage starts from."""
        base = job.base_folder
        if _is_lora(job):
            self._load(base, job, Contents.BARE_BASE)
        else:
            self._load(base, job, Contents.REPLACEABLE)
            self._kind = _kind(base, job)

    def must_load(self, folder: Path, job: TrainJob) -> bool:
        """Whether a snapshot's weights need another model than the one that is there."""
        if self._contents is not Contents.REPLACEABLE:
            return True
        return _kind(folder, job) != self._kind

    def load_snapshot(self, folder: Path, job: TrainJob) -> None:
        """Puts a snapshot's weights in. ClusterError where they are not those that its
        meta.json tells of."""
        if self.must_load(folder, job):
            start = _base(folder) if _is_lora(job) else folder
            self._load(start, job, Contents.REPLACEABLE)
            self._kind = _kind(folder, job)
        digest, expected = self._copy_tensors(folder), snapshots.read_meta(folder)
        if digest != expected.weights:
            self._contents = Contents.UNPROVEN
            raise ClusterError(
                f"{folder}: its weights have the digest {digest}, by its meta.json"
                f" {expected.weights}"
            )
        self.swaps += 1

    @property
    def has_adapters(self) -> bool:
        """Whether the model has LoRA's adapters in it."""
        return any(map(is_of_adapter, self.trainable))

    @torch.no_grad()
    def measure_moved(self, start: Path) -> float | None:
        """How far the weights are from those of the folder that training started from:
        the norm of the difference, of LoRA that of what it adds. None where the folder
        does not have the same tensors."""
        from safetensors import safe_open

        if self.has_adapters:
            return lora.measure_added(self.decoder)
        squares, unseen = 0.0, set(self._places)
        for path in sorted(start.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in unseen & set(file.keys()):
                    place, tensor = self._places[name], file.get_tensor(name)
                    if tensor.shape != place.shape:
                        return None
                    before = tensor.to(place.device, place.dtype).double()
                    squares += float((place.double() - before).square().sum())
                    unseen.discard(name)
        return None if unseen else math.sqrt(squares)

    def _load(self, folder: Path, job: TrainJob, contents: Contents) -> None:
        self._unload()
        decoder = placement.load_on(
            self._devices,
            folder,
            job.train["precision"],
            self._beside(),
            choose_attention(folder, job.workspace, digest=replace_unset(job.proof)),
        )
        with_adapters = contents is Contents.REPLACEABLE and _is_lora(job)
        if with_adapters:
            apply_tuning(decoder, _tuning(job))
        self.trainable = frozenset(
            name
            for name, parameter in decoder.named_parameters()
            if parameter.requires_grad
        )
        self.decoder = decoder.eval().requires_grad_(False)
        self.model = AnswerLoss(self.decoder, choose_batching(self.decoder))
        self.budget = BatchBudget(self.decoder, self._devices[0], self._beside)
        engine = SimpleNamespace(module=self.model)
        tensors = weights.list_tensors(engine)
        if with_adapters:
            adapters = [tensor for tensor in tensors if is_of_adapter(tensor.name)]
            tensors = weights.named_adapters(adapters)
        for tensor in tensors:
            values = tensor.parameter.data
            self._places |= weights.publish_tensor(engine, tensor.name, values)
        self._contents = contents
        self.loads += 1

    def _unload(self) -> None:
        """Lets go of the model: two may be more than fit."""
        self._contents, self._kind = Contents.NOTHING, ""
        self.decoder = self.model = self.budget = None
        self._places = {}
        if len(self._devices) > 1:
            gc.collect()  # what has layers follow one another holds them in a circle

    def _copy_tensors(self, folder: Path) -> str:
        """Copies the tensors of a folder into the model, several at a time; returns
        their digest. ClusterError where files are missing or cut."""
        from safetensors import SafetensorError

        if damage := find_damage(folder):
            raise ClusterError(f"{folder}: {damage}; its weights are lost")
        try:
            return weights.combine_digests(self._copy_files(folder))
        except SafetensorError as error:
            raise ClusterError(f"{folder}: cannot be read: {error}") from error

    def _copy_files(self, folder: Path) -> dict[str, str]:
        """Copies the tensors of all files; returns the digest of each tensor."""
        from safetensors import safe_open

        with ExitStack() as opened:
            tensors: list[tuple[Path, Any, str]] = []
            for path in sorted(folder.glob("*.safetensors")):
                file = opened.enter_context(safe_open(path, framework="pt"))
                tensors += [(path, file, name) for name in file.keys()]
            # interrupted, it waits for those under way: they read the open files
            digests = map_side_by_side(self._copy_tensor, tensors, _count_threads())
        return dict(digests)

    def _copy_tensor(self, of_file: tuple[Path, Any, str]) -> tuple[str, str]:
        """Copies one tensor of an open file; returns its name and its digest."""
        path, file, name = of_file
        tensor = file.get_tensor(name)
        self._find_place(path, name, tensor).copy_(tensor)
        return name, weights.tensor_digest(tensor)

    def _find_place(self, path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What of the model a tensor of a file goes into. ClusterError if there is
        nothing."""
        place = self._places.get(name)
        if place is None or place.shape != tensor.shape:
            raise ClusterError(
                f"{path}: the model has no tensor {name} of shape {tuple(tensor.shape)}"
            )
        return place


def refuse_other_loss(
    loss: float, measured: float | None, precision: str, label: str
) -> None:
    """Raises ClusterError if the loss of the loaded weights is not the one that the
    trainer measured. `label` says of what they are."""
    if measured is None:
        return
    tolerance = EXACT if precision == "fp32" else HALF
    same = math.isclose(loss, measured, rel_tol=tolerance) or (
        math.isnan(loss) and math.isnan(measured)
    )
    if not same:
        raise ClusterError(
            f"{label}: the weights that are held have the test loss {loss!r}, the trainer measured"
            f" {measured!r} there: these are not the same weights, or not computed in the same way"
        )


def _count_threads() -> int:
    """How many tensors are read and hashed at a time: one on each CPU of this process."""
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


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
