"""Caches the test losses of an untrained base model, which are the same for every run
that starts from it.

first_losses/<id>/losses.npy in the workspace, float64, one value per item. The id is
made of all that the values depend on to the last bit: the weights, the tokens, and how
they are computed.
"""

import importlib.metadata
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.contract.folder import (
    META,
    Damaged,
    is_whole,
    publish_folder,
    read_json,
    set_aside,
)
from jobs.contract.job_file import TrainJob
from jobs.contract.prepared import BaseLossesMeta, write_prepared_meta
from jobs.files.file_errors import describe_error
from jobs.runtime.ranks import Ranks
from jobs.training.held_out import HeldOutLoss
from jobs.training.state import read_versions
from zsg_core.digest import content_id

logger = logging.getLogger(__name__)

LOSSES = "losses.npy"
# raised when the same weights and tokens would give other values: 2, since logits of large
# vocabularies are made in pieces, which round otherwise
RULE = 2


def locate_folder(
    job: TrainJob, held_out: HeldOutLoss, ranks: Ranks, device: str, budget: int
) -> Path | None:
    """Where the losses of a job's base belong; None if it starts from the weights of
    another run."""
    if job.before:
        return None
    workspace, base, base_id = (
        job.workspace,
        job.recipe["base"],
        job.made.base,
    )
    train = job.train
    identity = {
        "rule": RULE,
        "base": (read_json(workspace.base(base_id) / META) or base)
        if base_id
        else base,
    }
    # What is tuned is the same forward as long as nothing was; LoRA adds to it.
    identity |= {
        "lora": train["tuning"] if train["tuning"]["method"] == "lora" else None
    }
    identity |= {
        "tokens": held_out.digest,
        "precision": train["precision"],
        "budget": budget,
        "world": ranks.world,
    }
    identity |= {"truncated_answers": train.get("truncated_answers")}
    identity |= {
        "machine": describe_machine(device),
        "versions": read_versions()
        | {"transformers": importlib.metadata.version("transformers")},
    }
    return workspace.first_losses(content_id(identity))


def read_losses(folder: Path) -> NDArray[np.float64] | None:
    """The losses that are there and can be read. What cannot be read here may be sound
    for others; what is broken is set aside."""
    path = folder / LOSSES
    try:
        return np.load(path) if is_whole(folder) else None
    except OSError as error:
        logger.warning(f"{describe_error(error)}; it is computed again")
    except (ValueError, EOFError) as error:
        logger.warning(f"{path}: {error}; it is computed again")
        _set_broken_aside(folder)
    return None


def _set_broken_aside(folder: Path) -> None:
    """Makes room for what is computed again. A group's folders are each member's own:
    those of another one stay, and hold it off."""
    try:
        set_aside(folder)
    except OSError as error:
        logger.warning(
            f"{describe_error(error)}: it cannot be replaced, so every run with this base"
            " computes it again; whose it is may remove it"
        )


def publish_losses(folder: Path, losses: NDArray[np.float64]) -> None:
    """Publishes losses unless another job was first. They only save work: no run ends
    because they cannot be kept."""
    try:
        with publish_folder(folder) as draft:
            np.save(draft / LOSSES, losses)
            write_prepared_meta(draft, BaseLossesMeta(items=len(losses)))
    except (OSError, Damaged) as error:
        text = describe_error(error) if isinstance(error, OSError) else error
        logger.warning(f"{text}; the losses of the base are not kept")


def describe_machine(device: str) -> list[Any]:
    """What of a machine decides the last bits: which GPU, or the kind of processor and
    the threads."""
    if device != "cpu":
        return [torch.cuda.get_device_name(device)]
    return [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
