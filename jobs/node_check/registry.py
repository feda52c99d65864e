"""The one list of what nodes must show before a study is trusted to them: zsg doctor
--on-node checks each entry in turn, and docs/reference/node-checks.md is written from it.

A new thing that only a GPU can confirm is one entry here and one function beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from jobs.contract.node_check import Finding, Section
from jobs.node_check.context import CheckContext

# A function may raise: that is a problem of its check, with the error as its text, and
# the checks after it go on.
CheckFunction = Callable[[CheckContext], Sequence[Finding]]


@dataclass(frozen=True)
class NodeCheck:
    """One thing to confirm. `name`: a stable key; `confirms`: one sentence, of which
    reports and pages are made; `needs_gpu`: on CPU nodes it is told as skipped, never
    called; `is_collective`: all ranks take part at the same time, so it is skipped on
    all where they could not meet, or one of them has no turn."""

    name: str
    section: Section
    confirms: str
    function: CheckFunction
    needs_gpu: bool = False
    is_collective: bool = False


def import_later(module: str, function: str) -> CheckFunction:
    """A function of a module of this package that is imported when it is called: an
    engine that cannot be imported is then a problem of one check, and not of all."""

    def call(context: CheckContext) -> Sequence[Finding]:
        imported = import_module(f"jobs.node_check.{module}")
        check = cast(CheckFunction, getattr(imported, function))
        return check(context)

    call.__name__ = function
    return call


# In this order they run.
CHECKS: tuple[NodeCheck, ...] = (
    NodeCheck(
        "system",
        Section.SETUP,
        "Python, system and text encoding of the nodes are usable.",
        import_later("environment", "check_system"),
    ),
    NodeCheck(
        "node_size",
        Section.SETUP,
        "A rank may use the CPUs and the memory that the profile asks for.",
        import_later("environment", "check_node_size"),
    ),
    NodeCheck(
        "engines",
        Section.SETUP,
        "torch, transformers and DeepSpeed can be imported on the nodes.",
        import_later("environment", "check_engines"),
    ),
    NodeCheck(
        "ranks_meet",
        Section.COMMUNICATION,
        "All ranks see their devices and connect to each other.",
        import_later("meeting", "meet_ranks"),
    ),
    NodeCheck(
        "gpu",
        Section.GPUS,
        "Each rank's GPU is free, and the one that the profile describes.",
        import_later("gpus", "check_gpu"),
        needs_gpu=True,
    ),
    NodeCheck(
        "gpu_of_its_own",
        Section.GPUS,
        "No two ranks compute on one GPU, however the site binds them.",
        import_later("gpus", "check_owners"),
        needs_gpu=True,
        is_collective=True,
    ),
    NodeCheck(
        "visibility",
        Section.WORKSPACE,
        "What one node writes into the workspace is seen by all within seconds.",
        import_later("shared_folder", "check_visibility"),
        is_collective=True,
    ),
    NodeCheck(
        "replacing",
        Section.WORKSPACE,
        "A file that is replaced is read whole on every node.",
        import_later("shared_folder", "check_replacing"),
        is_collective=True,
    ),
    NodeCheck(
        "locks",
        Section.WORKSPACE,
        "A file that one node has locked is locked on all.",
        import_later("shared_folder", "check_locks"),
        is_collective=True,
    ),
    NodeCheck(
        "writing",
        Section.WORKSPACE,
        "The workspace has room, and takes what all ranks write at once.",
        import_later("shared_folder", "check_writing"),
        is_collective=True,
    ),
    NodeCheck(
        "sums",
        Section.COMMUNICATION,
        "A sum over all ranks is right to the bit, and how fast it is.",
        import_later("communication", "check_sums"),
        is_collective=True,
    ),
    NodeCheck(
        "barriers",
        Section.COMMUNICATION,
        "How long ranks take to wait for one another.",
        import_later("communication", "check_barriers"),
        is_collective=True,
    ),
    NodeCheck(
        "kernels",
        Section.ATTENTION,
        "Attention over packed rows, by the varlen kernel on GPUs, gives results and"
        " gradients of examples alone, for each head size, filled up ones included.",
        import_later("attention_kernels", "check_kernels"),
    ),
    NodeCheck(
        "ceiling",
        Section.SPEED,
        "A large matrix product comes near the peak that the profile tells.",
        import_later("matrix_products", "check_ceiling"),
    ),
    NodeCheck(
        "steps",
        Section.ARITHMETIC,
        "Training steps in each precision are those in float32 on the CPU, to rounding;"
        " each begins with the proof that packed examples, and parts that share a prefix,"
        " do not see each other.",
        import_later("arithmetic", "check_steps"),
        is_collective=True,
    ),
    NodeCheck(
        "overflow",
        Section.ARITHMETIC,
        "Training in fp16 outlives gradients that overflow.",
        import_later("arithmetic", "check_overflow"),
        is_collective=True,
    ),
    NodeCheck(
        "weight_swap",
        Section.SNAPSHOTS,
        "A snapshot's weights are read and hashed side by side, and proven the same.",
        import_later("evaluating_checks", "check_weight_swap"),
    ),
    NodeCheck(
        "drawn_tokens",
        Section.ARITHMETIC,
        "Equal logits give equal tokens on the GPU and on the CPU.",
        import_later("evaluating_checks", "check_drawn_tokens"),
        needs_gpu=True,
    ),
    NodeCheck(
        "pinned_copies",
        Section.SNAPSHOTS,
        "Room for copies of weights is pinned, and as large as they are.",
        import_later("pinned_memory", "check_pinned_copies"),
        needs_gpu=True,
    ),
    NodeCheck(
        "batch_halving",
        Section.MEMORY,
        "An evaluator whose batch is too large for the GPU halves it and goes on.",
        import_later("evaluating_checks", "check_batch_halving"),
        needs_gpu=True,
    ),
    NodeCheck(
        "spread_layers",
        Section.MEMORY,
        "A model whose layers are spread over GPUs gives the logits of one GPU.",
        import_later("evaluating_checks", "check_spread_layers"),
        needs_gpu=True,
    ),
    NodeCheck(
        "memory",
        Section.MEMORY,
        "Training takes the memory that plan predicts for it.",
        import_later("training_trials", "check_memory"),
        is_collective=True,
    ),
    NodeCheck(
        "speed",
        Section.SPEED,
        "Training reaches the share of the peak (gpu.mfu) that plan reckons with.",
        import_later("training_trials", "check_speed"),
        is_collective=True,
    ),
    NodeCheck(
        "stall",
        Section.SNAPSHOTS,
        "A snapshot holds training up for no longer than its goal.",
        import_later("training_trials", "check_stall"),
    ),
)


def find_check(name: str) -> NodeCheck | None:
    """The entry of a name; None for one that this zsg does not know."""
    return next((check for check in CHECKS if check.name == name), None)
