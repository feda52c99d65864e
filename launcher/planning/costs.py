"""Says in a line each what a plan's runs take: memory of a GPU, GPU-hours, disk. Pure.

`zsg plan` shows these lines, `zsg submit` asks with their numbers. The numbers are those
of launcher.planning.estimates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from launcher.clusters.profiles import Gpu, Profile
from launcher.planning.estimates import Estimate
from launcher.planning.memory_fit import Layout
from launcher.planning.scoring_cost import Scoring
from launcher.planning.site import get_runs_at_once
from launcher.planning.workload import AT_MOST, UNKNOWN
from zsg_core.shown_text import name_few
from zsg_core.training.estimate import GB

# shorter times are told in minutes, and shorter still in seconds
MINUTES_BELOW_H = 1.0
SECONDS_BELOW_H = 1 / 60
LEAST_HOURS = 0.01  # below which an amount of hours says nothing to anybody
MOST_NAMED = 3


@dataclass(frozen=True)
class Hours:
    """GPU-hours of several runs; None: not known. `is_bound`: they take no more."""

    total: float | None
    is_bound: bool

    @property
    def words(self) -> str:
        """As a sentence has them: about 18 GPU-hours."""
        if self.total is None:
            return "GPU-hours not known"
        if self.total < LEAST_HOURS:
            return f"under {LEAST_HOURS} GPU-hours"
        sign = "≤" if self.is_bound else "≈"
        return f"{sign} {format_amount(self.total)} GPU-hours"


def sum_hours(estimates: Sequence[Estimate]) -> Hours:
    """What runs take together."""
    hours = [estimated.gpu_hours for estimated in estimates]
    estimated_hours = [each for each in hours if each is not None]
    is_bound = any(estimated.work.tokens_are == AT_MOST for estimated in estimates)
    if not hours or len(estimated_hours) < len(hours):
        return Hours(None, is_bound)
    return Hours(sum(estimated_hours), is_bound)


def format_amount(value: float) -> str:
    """A number of hours or GB as people say it: 1,698, 18, 1.1, 0.36, 0.04."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.3g}"
    if value >= 1:
        return f"{value:.2g}"
    return f"{value:.1g}" if value < 0.1 else f"{value:.2g}"


def format_time(hours: float) -> str:
    """A time in hours, minutes or seconds, whichever is read with ease."""
    if hours >= MINUTES_BELOW_H:
        return f"{format_amount(hours)} h"
    if hours >= SECONDS_BELOW_H:
        return f"{format_amount(60 * hours)} min"
    return f"{max(1, round(3600 * hours))} s"


def describe_memory(estimates: Sequence[Estimate]) -> str | None:
    """What fills a GPU at the run's worst moment, of how much, and whether the next
    smaller choice would fit; of several kinds of runs the one that takes most. None where
    the profile names no GPU."""
    with_gpu = [estimated for estimated in estimates if estimated.gpu is not None]
    if not with_gpu:
        return None
    largest = max(with_gpu, key=lambda estimated: estimated.need_gb)
    layout = largest.layout
    layout_name = (
        f"{largest.model}, ZeRO {layout.zero_stage}, {_count_gpus(layout.world)}"
    )
    sentence = f"{_describe_filling(largest)} ({layout_name})"
    if smaller := _describe_smaller(largest):
        sentence += f"; {smaller}"
    if len({(each.model, each.layout, each.load) for each in with_gpu}) > 1:
        sentence += "; the largest of several kinds of runs"
    return sentence


def _describe_filling(estimated: Estimate) -> str:
    """What a GPU holds at the worst moment, and of how much."""
    assert estimated.memory_gb is not None, "a GPU has memory"
    tensors = estimated.load.tensors(estimated.layout)
    filling = f"fills {estimated.need_gb:.1f} of {estimated.memory_gb:g} GB"
    activations = estimated.activations_gb * GB
    if tensors.gathered + activations < tensors.step_copy:
        return f"weights, gradients and optimiser in its step: {filling}"
    held_gb = (tensors.held + tensors.gathered) / GB
    recomputed = ", recomputed (a third more time)" if estimated.recomputes else ""
    return (
        f"{held_gb:.1f} GB of weights, gradients, optimiser"
        f" + {estimated.activations_gb:.1f} of activations{recomputed}: {filling}"
    )


def _describe_smaller(estimated: Estimate) -> str | None:
    """Whether the next smaller choice would fit: a lower ZeRO stage, or half the GPUs."""
    smaller = find_next_smaller(estimated)
    if smaller is None or estimated.memory_gb is None:
        return None
    need_gb = estimated.load.need(smaller, estimated.memory_gb) / GB
    if smaller.zero_stage < estimated.layout.zero_stage:
        name = f"ZeRO {smaller.zero_stage}"
    else:
        name = _count_gpus(smaller.world)
    fits = "would fit, too" if need_gb <= estimated.memory_gb else "would not fit"
    return f"{name} {fits} ({need_gb:.1f})"


def find_next_smaller(estimated: Estimate) -> Layout | None:
    """The layout that divides one step less; None where nothing divides less."""
    layout = estimated.layout
    lowest = min(estimated.tensors_gb)
    if layout.zero_stage > lowest:
        return replace(layout, zero_stage=layout.zero_stage - 1, hpz_ranks=None)
    if layout.nodes > 1:
        return replace(layout, nodes=layout.nodes // 2)
    if layout.ranks_per_node > 1:
        return replace(layout, ranks_per_node=layout.ranks_per_node // 2)
    return None


def _count_gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count > 1)}"


def describe_cost(estimates: Sequence[Estimate], profile: Profile) -> str | None:
    """The GPU-hours of the runs and what they rest on; None where there are no GPUs."""
    on_gpus = profile.gpu is not None or bool(profile.slurm.gpus_per_node)
    if not estimates or not on_gpus:
        return None
    hours = sum_hours(estimates)
    if hours.total is None:
        return f"not known: {_explain_unknown(estimates)}"
    count = len(estimates)
    return (
        f"{hours.words}: {count:,} run{'s' * (count > 1)} × {_format_gpus(estimates)} ×"
        f" {_format_times(estimates)}; {_describe_basis(estimates)}"
    )


def _format_gpus(estimates: Sequence[Estimate]) -> str:
    worlds = sorted({estimated.layout.world for estimated in estimates})
    if len(worlds) == 1:
        return _count_gpus(worlds[0])
    return f"{worlds[0]}–{worlds[-1]} GPUs"


def _format_times(estimates: Sequence[Estimate]) -> str:
    """How long a run takes, or the shortest and the longest."""
    times = [(each.gpu_hours or 0.0) / each.layout.world for each in estimates]
    shortest = format_time(min(times))
    longest = format_time(max(times))
    if shortest == longest:
        return longest
    return f"{shortest} to {longest}"


def _describe_basis(estimates: Sequence[Estimate]) -> str:
    """Which speed the hours rest on: what runs have measured before, or an assumed one."""
    speeds = [estimated.speed for estimated in estimates if estimated.speed]
    unmeasured = [estimated for estimated in estimates if not estimated.speed]
    sentences = list[str]()
    if speeds:
        runs = list(dict.fromkeys(speed.run for speed in speeds))
        sentences.append(
            f"at the speed that {name_few(runs, MOST_NAMED)} measured here"
        )
    if unmeasured and unmeasured[0].gpu is not None:
        gpu = unmeasured[0].gpu
        share = f"of {len(unmeasured):,} runs " if speeds else ""
        sentences.append(
            f"{share}at an assumed speed, {gpu.mfu:.0%} of {gpu.name}'s"
            f" {gpu.tflops:g} TFLOPS"
        )
    return " and ".join(sentences)


def _explain_unknown(estimates: Sequence[Estimate]) -> str:
    """Why the hours are not known, and what would tell them."""
    unknown = next(each for each in estimates if each.gpu_hours is None)
    if unknown.gpu is None:
        return "the profile names no GPU; gpu: {name, memory_gb, tflops} in it"
    if unknown.work.examples_are == UNKNOWN or unknown.train_flops is None:
        return (
            "nothing bounds the data before they are prepared; zsg arrange make GRID.yaml"
            " prepares them, or train.steps bounds the run"
        )
    if unknown.test_flops is None:
        return (
            "the test set is not counted before the data are prepared; zsg arrange make"
            " GRID.yaml prepares them"
        )
    return "in fp32 no speed is assumed; the first run on these GPUs measures it"


def describe_disk(estimates: Sequence[Estimate], profile: Profile) -> str | None:
    """How much of the disk states and snapshots take at most; None without runs."""
    if not estimates:
        return None
    at_once = min(get_runs_at_once(profile), len(estimates))
    largest_gb = max(estimated.state_gb for estimated in estimates)
    states = format_gb(2 * at_once * largest_gb)
    sentence = f"at most {states} of saved states while runs are under way"
    return sentence + _describe_snapshots(estimates)


def _describe_snapshots(estimates: Sequence[Estimate]) -> str:
    """What snapshots take beside the states; nothing where none are kept."""
    keeping = [estimated for estimated in estimates if estimated.snapshots != 0]
    if not keeping:
        return ""
    sizes = [estimated.snapshots_gb for estimated in keeping]
    if None in sizes:
        size_gb = max(estimated.snapshot_gb for estimated in keeping)
        return f"; snapshots of {format_gb(size_gb)} each, nobody knows how many"
    return f", and {format_gb(sum(filter(None, sizes)))} of snapshots"


def format_gb(size_gb: float) -> str:
    """A size with its unit, as 0.1 GB or 1,698 GB."""
    if size_gb < 0.1:
        return "0.1 GB"
    if size_gb < 10:
        return f"{size_gb:.1f} GB"
    return f"{size_gb:,.0f} GB"


def describe_scoring(scoring: Scoring, gpu: Gpu | None) -> str:
    """Of how many examples these scores are, by which model, and what they take."""
    examples = "all training examples"
    if scoring.examples is not None:
        bound = "" if scoring.is_counted else "up to "
        examples = f"{bound}{scoring.examples:,} examples"
    line = f"{scoring.name} of {examples} by {scoring.model}"
    if not scoring.passes:
        return f"{line}, whose tokenizer is enough"
    line += f", {scoring.describe_passes()} over each"
    hours = scoring.count_gpu_hours(gpu)
    if hours is None:
        return line
    return f"{line}: {format_time(hours)} of a GPU"
