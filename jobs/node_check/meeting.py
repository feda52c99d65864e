"""Has the ranks of a check meet, as those of a train job do, and says who is missing."""

import time
from datetime import timedelta

from jobs.contract.node_check import Finding, FindingState, read_rank_records
from jobs.node_check.agreement import Meeting
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import count_ranks
from jobs.runtime.devices import CPU
from jobs.runtime.ranks import connect_ranks, set_group_timeouts
from zsg_core.errors import ClusterError

NAME = "ranks_meet"
ADVICE = (
    "see the log of that rank; where nodes cannot reach each other, name their network"
    " in the profile (network.interfaces, network.hcas)"
)


def meet_ranks(context: CheckContext) -> list[Finding]:
    """Connects all ranks; from then on the context has its device and its meeting."""
    patience = timedelta(seconds=context.request.patience_s)
    started = time.perf_counter()
    try:
        device = connect_ranks(
            context.folder, context.ranks, context.request.gpus_per_node, patience
        )
    except (ClusterError, RuntimeError) as error:
        return [_describe_failure(context, error)]
    set_group_timeouts(patience)
    seconds = time.perf_counter() - started
    context.device = device
    context.gpu = _name_gpu(device)
    context.meeting = Meeting(
        context.ranks, find_store(), patience_s=context.request.patience_s
    )
    context.meeting.tell_node(context.node)
    context.is_connected = True
    if not context.ranks.is_main:
        return []
    backend = "NCCL" if context.has_gpu else "gloo"
    ranks = count_ranks(context.ranks.world)
    return [
        Finding(
            state=FindingState.OK,
            text=f"{ranks} met over {backend} in {seconds:.1f} s",
            figures={"meeting_s": seconds},
        )
    ]


def find_store() -> object:
    """The store in which the ranks met."""
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def _name_gpu(device: str) -> str:
    import torch

    return "" if device == CPU else torch.cuda.get_device_name(device)


def _describe_failure(context: CheckContext, error: Exception) -> Finding:
    """Who is not there, as far as their records say; and the error."""
    absent = list_absent(context)
    line = str(error).strip().partition("\n")[0]
    text = f"the ranks did not meet: {line}"
    if absent:
        text += f"; not there yet: {', '.join(absent)}"
    return Finding(state=FindingState.PROBLEM, text=text, advice=ADVICE)


def list_absent(context: CheckContext) -> list[str]:
    """The ranks that are not at their meeting, by their records."""
    records, _ = read_rank_records(context.folder)
    by_rank = {record.rank: record for record in records}
    absent: list[str] = []
    for rank in range(context.ranks.world):
        record = by_rank.get(rank)
        if record is None:
            absent.append(f"rank {rank}, which has told nothing")
        elif record.at_work != NAME:
            work = record.at_work or "its end"
            absent.append(f"rank {rank} ({record.node}), which is at {work}")
    return absent
