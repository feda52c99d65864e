"""Adds a snapshot's adapters to the weights that they were trained on, and writes a plain
model's folder: `python -m jobs.training.merge_snapshot SNAPSHOT FOLDER PRECISION`.

The last line on stdout is JSON: what was done, or `trouble`, a sentence. Nothing is left
of a folder that could not be finished. What the model is asked before and after tells by
how much the sum is another model: in fp32 by nothing that matters, in bf16 by as much as
rounding the sum does.
"""

import json
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

import msgspec
import torch

from jobs.contract import job_file
from jobs.contract.folder import read_json, write_json
from jobs.contract.job_file import TrainJob
from jobs.files import ordinary_files
from jobs.files.model_file_names import GENERATION
from jobs.model import content, lora
from jobs.model.answer_loss import AnswerLoss, choose_batching
from jobs.model.architecture import find_embedding, find_head
from jobs.model.base_model import load_model
from jobs.model.vocabulary import load_vocabulary
from jobs.training import reader_notes
from jobs.training.changed_base import refuse_changed_base
from jobs.training.train_sets import find_trained_end
from zsg_core.errors import ClusterError, UserError

# tokens that the model is asked before and after
_ASKED = 64
_CONFIG = "config.json"


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. `dtype`: of the weights; `untied`: whether the head got a weight
    of its own; `parameters`: of the folder; `difference`: the largest of a token's loss,
    in nats, between the adapters and the sum, over tokens that mean nothing."""

    dtype: str
    untied: bool
    parameters: int
    difference: float


@torch.no_grad()
def merge_snapshot(snapshot: Path, folder: Path, precision: str) -> Merged:
    """Writes a snapshot of adapters as a plain model's folder, which must not be there.

    UserError for a snapshot without adapters; ClusterError where the weights that they
    were put on are gone.
    """
    base = lora.find_adapted_base(snapshot)
    if base is None:
        raise UserError(f"{snapshot}: holds no adapters, its weights are whole already")
    job = _read_job(snapshot)
    if job is not None:
        refuse_changed_base(job)
    # alone, and by transformers' own attention: what every family computes right
    model = load_model(base, precision, attention="eager")
    was_tied = find_head(model).weight is find_embedding(model).weight
    lora.add_folder(model, snapshot)
    before = _ask(model)
    lora.merge_added(model, unties=True)
    after = _ask(model)
    is_tied = find_head(model).weight is find_embedding(model).weight
    dtype = str(find_head(model).weight.dtype).removeprefix("torch.")
    changes: dict[str, Any] = {"dtype": dtype}
    if was_tied and not is_tied:
        changes["tie_word_embeddings"] = False
    # one that a killed merge has left stands in nobody's way
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    draft.mkdir()
    try:
        _write(model, draft, snapshot, base, changes)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Merged(
        dtype=dtype,
        untied=was_tied and not is_tied,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        difference=float((before - after).abs().max()),
    )


def _write(
    model: Any, draft: Path, snapshot: Path, base: Path, changes: dict[str, Any]
) -> None:
    """Writes weights under their published names, and beside them what the base has and
    the snapshot's own tokenizer."""
    from transformers import GenerationConfig

    eos = _find_trained_end(snapshot)
    model.generation_config = GenerationConfig()
    model.save_pretrained(draft)
    (draft / GENERATION).unlink(missing_ok=True)  # the base's own is copied
    config = reader_notes.name_end(read_json(base / _CONFIG) or {}, eos)
    config.pop("torch_dtype", None)
    write_json(draft / _CONFIG, config | changes)
    if (base / GENERATION).is_file():
        ordinary_files.copy_file(base, base / GENERATION, draft / GENERATION)
        reader_notes.name_end_in_file(draft / GENERATION, eos)
    for path in content.copied_files(snapshot):
        copied = draft / path.relative_to(snapshot)
        copied.parent.mkdir(exist_ok=True)
        ordinary_files.copy_file(snapshot, path, copied)


def _find_trained_end(snapshot: Path) -> int:
    """The token that the snapshot's run trains answers to end with."""
    vocabulary = load_vocabulary(snapshot)
    job = _read_job(snapshot)
    return find_trained_end(job.stage, vocabulary) if job else vocabulary.eos


def _read_job(snapshot: Path) -> TrainJob | None:
    """The job of the run that a snapshot is of, runs/<id>/snapshots/<step>; None of a
    folder that lies elsewhere."""
    job = job_file.read_job(snapshot.parent.parent)
    return job if isinstance(job, TrainJob) else None


def _ask(model: Any) -> torch.Tensor:
    """The loss of each of some tokens, float32, as the trainer computes it."""
    rows = find_embedding(model).weight.shape[0]
    tokens = torch.arange(1, _ASKED + 1) * 7919 % rows
    predicting = torch.arange(_ASKED - 1)
    loss = AnswerLoss(model.eval(), choose_batching(model))
    one_by_one = [
        loss(
            tokens,
            torch.arange(_ASKED),
            [_ASKED],
            predicting[place : place + 1],
            tokens[place + 1 : place + 2],
            torch.zeros(1, dtype=torch.int64),
        )
        for place in range(0, _ASKED - 1, 8)
    ]
    return torch.cat(one_by_one)


def main() -> None:
    """Does what the arguments say, and says what came of it."""
    snapshot, folder, precision = sys.argv[1:]
    told: dict[str, Any]
    try:
        told = msgspec.to_builtins(
            merge_snapshot(Path(snapshot), Path(folder), precision)
        )
    except (UserError, ClusterError, OSError) as error:
        told = {"trouble": str(error)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
