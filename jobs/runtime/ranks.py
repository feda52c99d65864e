"""Brings the ranks of one job together: one process per GPU, from Slurm's environment, without ssh.

Rank 0 opens the store on a free port and writes address and port to `rendezvous.json`,
named by this start of the job, so that neither a requeue nor a neighbour on the node
can meet the wrong port.
"""

import logging
import os
import shutil
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobs.contract import rendezvous
from jobs.runtime import devices, slurm_calls, slurm_environment
from jobs.runtime.slurm_calls import Runner, run_program
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

# of every collective; torch's 10 minutes end jobs that only wait for a disk
TIMEOUT = timedelta(minutes=30)
MEETING_S = 600.0


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is. `local`: which of those on its node."""

    rank: int
    world: int
    local: int

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def read_ranks(environ: Any = os.environ) -> Ranks:
    """The ranks as srun numbered them; a single process outside Slurm."""
    if "SLURM_PROCID" not in environ or "SLURM_NTASKS" not in environ:
        return Ranks(0, 1, 0)
    return Ranks(
        int(environ["SLURM_PROCID"]),
        int(environ["SLURM_NTASKS"]),
        int(environ.get("SLURM_LOCALID", 0)),
    )


def connect_ranks(
    folder: Path,
    ranks: Ranks,
    gpus_per_node: int,
    timeout: timedelta = TIMEOUT,
) -> str:
    """Starts torch.distributed for all ranks and returns the device, `cuda:<n>` or `cpu`.

    `timeout`: of their meeting and of every collective. Raises ClusterError if rank 0
    does not say where it is within that, or ten minutes, or if GPUs were asked for and
    torch sees none: training on in silence on the CPU would hold them for nothing.
    """
    import torch

    device = devices.choose_device(ranks.local, gpus_per_node)
    cuda, local = device != devices.CPU, ranks.local
    if cuda:
        torch.cuda.set_device(device)
        # DeepSpeed takes the GPU of this number, of those that this process sees.
        local = devices.read_index(device)
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed asks for mpi4py unless these five are set.
    os.environ |= {
        "RANK": str(ranks.rank),
        "WORLD_SIZE": str(ranks.world),
        "LOCAL_RANK": str(local),
    }
    store = _open_store(folder, ranks, timeout)
    os.environ |= {"MASTER_ADDR": store.host, "MASTER_PORT": str(store.port)}
    torch.distributed.init_process_group(
        "nccl" if cuda else "gloo",
        store=store,
        rank=ranks.rank,
        world_size=ranks.world,
        timeout=timeout,
    )
    _start_deepspeed("nccl" if cuda else "gloo")
    return device


def set_group_timeouts(timeout: timedelta = TIMEOUT) -> None:
    """Gives every group of ranks one time limit; called once DeepSpeed has made its own.

    Those take torch's default, whatever the limit of the group that they are made from:
    10 minutes on GPUs.
    """
    from torch.distributed import distributed_c10d

    for group in list(distributed_c10d._world.pg_map):
        distributed_c10d._set_pg_timeout(timeout, group)


def find_node_address(run: Runner = run_program) -> str:
    """The address by which Slurm itself reaches this node; loopback outside Slurm.

    Host names need not resolve on the nodes, and where they do it may be to 127.0.1.1.
    Where Slurm does not say, it is the node's name.
    """
    node = os.environ.get("SLURMD_NODENAME")
    if node is None:
        return "127.0.0.1"
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        return node
    argv = [scontrol, "show", "node", node, "--oneliner"]
    env = slurm_environment.make_call_environment()
    try:
        completed = slurm_calls.call_program(argv, slurm_calls.ASK_S, env, run)
    except ClusterError as error:
        logger.warning(f"{error}; this node is reached by its name, {node}")
        return node
    return slurm_calls.read_fields(completed.stdout, "NodeName").get("NodeAddr", node)


def _open_store(folder: Path, ranks: Ranks, timeout: timedelta) -> Any:
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    if ranks.is_main:
        address = find_node_address() if ranks.world > 1 else "127.0.0.1"
        store = TCPStore(
            address,
            0,
            ranks.world,
            is_master=True,
            wait_for_workers=False,
            timeout=timeout,
        )
        rendezvous.write_rendezvous(folder, address, store.port)
        return store
    meeting_s = min(MEETING_S, timeout.total_seconds())
    until = time.monotonic() + meeting_s
    while time.monotonic() < until:
        meeting = rendezvous.read_rendezvous(folder)
        if meeting and meeting.is_of_this_start:
            return TCPStore(
                meeting.address,
                meeting.port,
                ranks.world,
                is_master=False,
                timeout=timeout,
            )
        time.sleep(0.2)
    raise ClusterError(
        f"rank {ranks.rank}: rank 0 wrote no {rendezvous.locate_rendezvous(folder)} within"
        f" {meeting_s:.0f} s; see its log"
    )


def _start_deepspeed(backend: str) -> None:
    import deepspeed

    # On CPU DeepSpeed would compile this operator with g++ and ninja, which nodes need
    # not have; gloo serves.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
