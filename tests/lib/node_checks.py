"""A request of a node check and a finding, as several tests write them."""

from jobs.contract.node_check import (
    AssumedGpu,
    Finding,
    FindingState,
    NodeCheckRequest,
    Trial,
)
from zsg_core.training.decoder import DecoderShape

SHAPE = DecoderShape(
    hidden=64,
    intermediate=128,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocab=600,
    tied=True,
)
REQUEST = NodeCheckRequest(
    nodes=2,
    ranks_per_node=4,
    cpus_per_rank=8,
    gpus_per_node=4,
    gpu=AssumedGpu(name="A800-80G", memory_gb=80, peak_tflops=312, mfu=0.4),
    precisions=["bf16", "fp16"],
    head_sizes=[64, 80],
    trial=Trial(
        name="7B",
        shape=SHAPE,
        precision="bf16",
        zero_stage=1,
        batch=16,
        max_length=1024,
        micro_tokens=4096,
        held_bytes=3e10,
        need_bytes=6e10,
    ),
)


def make_finding(state: FindingState = FindingState.OK, rank: int = 0) -> Finding:
    return Finding(
        state=state,
        text="5.1 GB/s between two nodes",
        check="all-reduce",
        node="n1",
        rank=rank,
        assumed=4.0,
        measured=5.1,
        unit="GB/s",
        figures={"all_reduce_gb_per_s": 5.1},
    )
