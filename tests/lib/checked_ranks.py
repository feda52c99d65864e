"""Runs every check of the nodes on so many ranks of this machine, and prints what each
rank has found; run by tests/test_node_checks.py in a process of its own, which forks the
ranks: all of them share the dear imports.

    python checked_ranks.py FOLDER WORLD

One line of JSON from each rank: its record, as jobs.contract.node_check has it.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import msgspec

from jobs.contract.node_check import NodeCheckRequest
from jobs.runtime.ranks import Ranks
from tests.lib.trained_ranks import children


def check(folder: Path, ranks: Ranks) -> None:
    """One rank: all checks."""
    import torch

    from jobs.node_check import run, shared_folder, training_trials

    torch.set_num_threads(1)
    shared_folder.REPLACING_S, shared_folder.CHUNKS = 0.3, 1
    training_trials.CPU_BATCH, training_trials.CPU_LENGTH = 2, 128
    request = NodeCheckRequest(
        nodes=1,
        ranks_per_node=ranks.world,
        cpus_per_rank=1,
        precisions=["bf16", "fp16"],
        head_sizes=[20],
        patience_s=300,
        budget_s=600,
    )
    record = run.run_checks(folder, request, ranks, 1)
    line = msgspec.json.encode(record).decode()
    sys.stdout.write(f"RECORD {line}\n")
    sys.stdout.flush()


def main(folder: Path, world: int) -> None:
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401  # its import costs most
    import transformers.models.llama.modeling_llama  # noqa: F401

    from jobs.evaluating import weight_swapper  # noqa: F401
    from jobs.training import train  # noqa: F401

    children(
        [partial(check, folder, Ranks(rank, world, rank)) for rank in range(world)]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
