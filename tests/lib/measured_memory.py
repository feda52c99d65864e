"""Prints the bytes per parameter that DeepSpeed really holds after steps on one CPU
process, as JSON by precision and stage; run by tests/test_estimate.py in a process of
its own, since an engine leaves much behind."""

import gc
import json
import os
import sys
import warnings

os.environ |= {
    "DS_ACCELERATOR": "cpu",
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "LOCAL_SIZE": "1",
}

import deepspeed
import torch
from torch import nn

from jobs.contract.deepspeed_config import build_deepspeed_config

WIDTH, LAYERS = 256, 4
CASES = [
    ("fp32", 0),
    ("bf16", 1),
    ("bf16", 2),
    ("bf16", 3),
    ("fp32", 1),
    ("fp32", 2),
    ("fp32", 3),
]


def tensors() -> dict[int, torch.Tensor]:
    """Every tensor alive, by where its memory begins."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    return {tensor.untyped_storage().data_ptr(): tensor for tensor in found}


def held(precision: str, stage: int) -> float:
    """Bytes per parameter of weights and optimiser (and at stage 3 the gradients'
    buffer) between two steps."""
    gc.collect()
    before = tensors()  # kept alive, so that no new tensor stands where one of them was
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    model = model.to(torch.bfloat16) if precision == "bf16" else model
    config = build_deepspeed_config(zero_stage=stage, precision=precision, clip=1.0)
    # the bucket would be larger than this model
    config["zero_optimization"]["reduce_bucket_size"] = 1000
    optimizer = torch.optim.AdamW(model.parameters())
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    for _ in range(2):
        engine.backward(
            engine(torch.ones(1, WIDTH, dtype=next(model.parameters()).dtype))
            .float()
            .sum()
        )
        engine.step()
    engine.optimizer.zero_grad()
    gc.collect()
    news = {
        place: tensor
        for place, tensor in tensors().items()
        if place and place not in before
    }
    return sum(tensor.untyped_storage().nbytes() for tensor in news.values()) / (
        LAYERS * WIDTH**2
    )


if __name__ == "__main__":
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1
    )
    # Not needed by one process, and compiled on its first use: a build that was killed
    # once leaves a lock for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    measured = {
        f"{precision} {stage}": held(precision, stage) for precision, stage in CASES
    }
    print(f"MEASURED {json.dumps(measured)}")
