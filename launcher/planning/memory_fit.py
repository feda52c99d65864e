"""Decides whether a run fits its GPUs, and finds the smallest change that makes it fit. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from zsg_core.training import estimate
from zsg_core.training.decoder import DecoderShape
from zsg_core.training.estimate import GB, Activations, Tensors

MOST_NODES = 16
# of the memory; more tokens at once are no faster, and an allocator leaves gaps
FILLED = 0.95


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model is spread: ZeRO stage, nodes, GPUs used on each.

    `hpz_ranks`: among how many of them a second copy of the weights is divided.
    """

    zero_stage: int
    nodes: int
    ranks_per_node: int
    hpz_ranks: int | None = None

    @property
    def world(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True, kw_only=True)
class Load:
    """What must fit: a model trained in a precision, `batch` examples a step of at most
    `max_length` tokens.

    `trained` of its parameters are tuned. `budget` is the most tokens of a micro-batch
    of several examples on a `device`, cuda or cpu. `recompute`: whether the layers'
    activations are computed again for the backward pass; None: where they must.
    `dropping`: LoRA's targets, where it has dropout.
    """

    shape: DecoderShape
    trained: int
    precision: str
    batch: int
    max_length: int
    budget: int
    recompute: bool | None = None
    device: str = "cuda"
    dropping: tuple[str, ...] = ()

    def tensors(self, layout: Layout) -> Tensors:
        """Bytes per GPU of what does not depend on the batch."""
        tensors = estimate.estimate_tensors(
            self.shape.parameters,
            layout.zero_stage,
            layout.world,
            self.precision,
            self.trained,
        )
        if layout.hpz_ranks is None:
            return tensors
        whole = estimate.ELEMENT[self.precision] * self.shape.parameters
        return replace(tensors, weights=tensors.weights + whole / layout.hpz_ranks)

    def recomputes(self, layout: Layout, memory_gb: float | None) -> bool:
        """Whether activations are recomputed: where one example of full length would
        not fit else, unless it is said.

        It costs a third of the training's time (Chen et al. 2016, arXiv 1604.06174: one
        more forward pass).
        """
        if self.recompute is not None:
            return self.recompute
        return (
            memory_gb is not None
            and self._fitting(layout, memory_gb, recompute=False) < self.max_length
        )

    def micro_tokens(self, layout: Layout, memory_gb: float | None) -> int:
        """The most tokens of a micro-batch: as many as fit into the memory, and one
        example at the least."""
        of_budget = estimate.micro_tokens(
            self.batch, layout.world, self.max_length, self.budget
        )
        if memory_gb is None:
            return of_budget
        fitting = self._fitting(layout, memory_gb, self.recomputes(layout, memory_gb))
        return min(of_budget, max(fitting, self.max_length))

    def _fitting(self, layout: Layout, memory_gb: float, recompute: bool) -> int:
        tensors = self.tensors(layout)
        room = FILLED * memory_gb * GB - tensors.held - tensors.gathered
        return self._held(recompute).count_fitting(room)

    def _held(self, recompute: bool) -> Activations:
        """What autograd holds of micro-batches."""
        return Activations(
            shape=self.shape,
            precision=self.precision,
            recompute=recompute,
            device=self.device,
            length=self.max_length,
            dropping=self.dropping,
        )

    def activations(self, layout: Layout, memory_gb: float | None) -> float:
        """Bytes per GPU of the largest micro-batch."""
        tokens, recompute = (
            self.micro_tokens(layout, memory_gb),
            self.recomputes(layout, memory_gb),
        )
        return self._held(recompute).count_bytes(tokens)

    def need(self, layout: Layout, memory_gb: float | None) -> float:
        """The most bytes on a GPU at any moment."""
        return self.tensors(layout).need(self.activations(layout, memory_gb))


def smallest_change(
    load: Load, layout: Layout, memory_gb: float, gpus_per_node: int
) -> Layout | None:
    """The layout with the fewest GPUs, then the lowest stage, that fits; None if none
    up to 16 nodes does.

    Never fewer GPUs, nodes or a lower stage than now, no GPU beyond the batch's
    examples, no second copy of the weights, and a further node only where the ones
    before it are used whole.
    """
    candidates = sorted(
        _larger(load, layout, gpus_per_node),
        key=lambda c: (c.world, c.zero_stage, c.nodes),
    )
    return next(
        (c for c in candidates if load.need(c, memory_gb) <= memory_gb * GB), None
    )


def _larger(load: Load, layout: Layout, gpus_per_node: int) -> Iterator[Layout]:
    """Every layout that is no smaller than `layout`, in no order that matters.

    A node is filled before another is taken, at most `MOST_NODES`; none has more ranks
    than the batch has examples, since a rank without examples would be idle.
    """
    same_nodes = [
        (layout.nodes, ranks)
        for ranks in range(layout.ranks_per_node, gpus_per_node + 1)
    ]
    more_nodes = [
        (nodes, gpus_per_node) for nodes in range(layout.nodes + 1, MOST_NODES + 1)
    ]
    for nodes, ranks in same_nodes + more_nodes:
        for stage in range(layout.zero_stage, estimate.STAGES[-1] + 1):
            if nodes * ranks <= load.batch:
                yield Layout(zero_stage=stage, nodes=nodes, ranks_per_node=ranks)


def explain_misfit(
    load: Load, layout: Layout, memory_gb: float, gpu: str, gpus_per_node: int
) -> str | None:
    """Why a run does not fit and what would make it fit; None if it fits."""
    if load.need(layout, memory_gb) <= memory_gb * GB:
        return None
    change = smallest_change(load, layout, memory_gb, gpus_per_node)
    return (
        f"needs {load.need(layout, memory_gb) / GB:.1f} GB on each GPU, but {gpu} has {memory_gb:g}"
        f" GB: {_parts(load, layout, memory_gb)}."
        f" {_advice(load, layout, change, memory_gb, gpus_per_node)}"
    )


def _parts(load: Load, layout: Layout, memory_gb: float) -> str:
    """What of a layout's need takes the memory, as words for a plan: whichever of two
    peaks is the larger, the optimiser's step or the backward pass, with the terms of
    the latter in GB."""
    tensors, activations = load.tensors(layout), load.activations(layout, memory_gb)
    size = f"{load.shape.parameters / 1e9:.2f} billion parameters in {load.precision}"
    recomputed = ", recomputed" if load.recomputes(layout, memory_gb) else ""
    spread = f"ZeRO {layout.zero_stage} on {layout.world} GPU{'s' * (layout.world > 1)}"
    if tensors.gathered + activations < tensors.step_copy:
        return f"weights, gradients and optimiser in its step ({size}, {spread})"
    return (
        f"{(tensors.held + tensors.gathered) / GB:.1f} GB weights, gradients and optimiser ({size},"
        f" {spread}) and {activations / GB:.1f} GB activations (one example of {load.max_length}"
        f" tokens{recomputed})"
    )


def _advice(
    load: Load, now: Layout, change: Layout | None, memory_gb: float, gpus_per_node: int
) -> str:
    if change is None:
        gpus = min(load.batch, MOST_NODES * gpus_per_node)
        return (
            f"Nothing up to {gpus} GPUs fits ({MOST_NODES} nodes, a batch of {load.batch}); it"
            " takes a smaller model, a lower train.max_length or GPUs with more memory"
        )
    steps = {
        "deepspeed.zero_stage": (now.zero_stage, change.zero_stage, " in the profile"),
        "deepspeed.hpz_ranks": (now.hpz_ranks, "null", " in the profile"),
        "resources.ranks_per_node": (now.ranks_per_node, change.ranks_per_node, ""),
        "resources.nodes": (now.nodes, change.nodes, ""),
    }
    settings = [
        f"{key}: {new}{file}"
        for key, (old, new, file) in steps.items()
        if old not in (new, None)
    ]
    return (
        f"The smallest change that fits: {' and '.join(settings)}"
        f" ({load.need(change, memory_gb) / GB:.1f} GB)"
    )
