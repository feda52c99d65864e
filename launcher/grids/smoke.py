"""Shrinks a grid to a trial of everything but its size: the same jobs and axes, a tiny
model, few tasks, few steps.

What the grid compares stays different: amounts that would be the same few examples,
shares, ratios, numbers of tasks, take as many small steps as there are values, in their
order. There are as many steps as a claim needs to be decided.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from launcher.clusters.profiles import JobSize, SmokeSettings
from launcher.grids.grid import Grid, Point
from zsg_core.errors import UserError
from zsg_core.metrics.metrics import LOSS, MT_BENCH, REWARD
from zsg_core.orders.tma_lists import parse_span
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.claims import FallsEarly
from zsg_core.settings.data import Source, SourceSettings
from zsg_core.settings.run import TINY, ModelSettings, Settings
from zsg_core.settings.strategy import StrategySettings

SUFFIX = "-smoke"
SMOKE_ITEMS, SMOKE_TOKENS = 2, 16  # of what is answered
MOST_BATCH = 16  # examples of a step, or one for each rank
# test items of a task where hidden states are kept: groups of one have no silhouette
IN_GROUPS = 4
LISTED = ("niv2", "flan_mini")  # sets that are of many tasks
SMALL = (
    "model",
    "data.train_tasks",
    "data.test_tasks",
    "data.train_per_task",
    "data.test_per_task",
    "data.count",
    "train.steps",
    "train.epochs",
    "train.warmup_steps",
    "train.warmup_share",
    "checkpoints.every",
    "checkpoints.snapshots",
    "resources.time_min",
)


@dataclass(frozen=True)
class _Sizes:
    """How small everything is, and what stands for each amount that the grid names."""

    smoke: SmokeSettings
    one_rank: bool
    on_cpus: bool
    steps: int
    nodes: int  # of a run that does not say them itself, as the next
    ranks_per_node: int
    fractions: Mapping[Fraction, Fraction]
    parts: Mapping[Fraction, Fraction]  # of k
    ratios: Mapping[Fraction, Fraction]
    counts: Mapping[int | None, int | None]
    tasks: Mapping[int | None, int]
    per_task: Mapping[int | None, int]


def shrink_grid(
    grid: Grid,
    smoke: SmokeSettings,
    one_rank: bool = False,
    on_cpus: bool = False,
    size: JobSize | None = None,
) -> Grid:
    """The grid under the name `<name>-smoke`, every point made small. Points that
    become equal are one run.

    `one_rank`: where there are no more, a grid made for a cluster's nodes runs all the
    same. `on_cpus`: in fp32 where the grid says fp16, in which DeepSpeed trains on few
    CPUs. `size`: of a train job that does not say its own.
    """
    try:
        sizes = _sizes(grid, smoke, one_rank, on_cpus, size or JobSize())
        points = [
            Point(_small(point.settings, sizes), point.axes) for point in grid.points
        ]
    except ValueError as error:
        raise UserError(
            f"{grid.path}: this grid cannot be made small for a smoke run: {error}"
        ) from None
    lost = [text for text in grid.overrides if text.startswith(SMALL)]
    notes = [
        f"--set {text} counts for nothing in a smoke run, whose size is the profile's `smoke`"
        for text in lost
    ]
    if one_rank and any(
        one.settings.resources.nodes or one.settings.resources.ranks_per_node
        for one in grid.points
    ):
        notes.append(
            "resources.nodes and ranks_per_node count for nothing in a smoke run on this machine:"
            " one rank"
        )
    asked = [one.settings.checkpoints for one in grid.points]
    if any(
        REWARD in one.metrics or (one.suites.mt_bench and one.suites.mt_bench.judge)
        for one in asked
    ):
        notes.append("a smoke run asks no judge and no reward model")
    if any(
        stage.train.batch > MOST_BATCH
        for point in grid.points
        for stage in point.settings.by_stage()
    ):
        notes.append(
            f"a smoke run takes batches of {MOST_BATCH}, or one example for each rank"
        )
    notes.append(_precision(grid.points, points))
    name = grid.name[: 64 - len(SUFFIX)] + SUFFIX
    return replace(grid, name=name, points=points, notes=[*grid.notes, *notes])


def _sizes(
    grid: Grid, smoke: SmokeSettings, one_rank: bool, on_cpus: bool, size: JobSize
) -> _Sizes:
    """The sizes for all points together, so that what differs in the grid differs in the trial."""
    stages = [stage for point in grid.points for stage in point.settings.by_stage()]
    sources = [source for stage in stages for source in stage.data.by_source().values()]
    early = [
        math.ceil(1 / claim.within)
        for claim in grid.claims
        if isinstance(claim, FallsEarly)
    ]
    counts: dict[int | None, int | None] = {None: None}
    if len(named := {source.count for source in sources} - {None}) > 1:
        counts |= _counts(named, smoke.per_task)
    return _Sizes(
        smoke=smoke,
        one_rank=one_rank,
        on_cpus=on_cpus,
        steps=max([smoke.steps, *early]),
        nodes=1 if one_rank else size.nodes,
        ranks_per_node=1 if one_rank else size.ranks_per_node,
        fractions=_shares({source.fraction for source in sources}, smoke.per_task),
        parts=_shares(
            {source.k for source in sources if source.k is not None}, smoke.per_task
        ),
        ratios=_ratios(
            {source.ratio for source in sources if source.ratio is not None},
            smoke.tasks,
        ),
        counts=counts,
        tasks=_counts({source.train_tasks for source in sources}, smoke.tasks),
        per_task=_counts({source.train_per_task for source in sources}, smoke.per_task),
    )


def _shares(values: Collection[Fraction], most: int) -> dict[Fraction, Fraction]:
    """What stands for each share of `most` examples: no less than one of them, and
    different shares for different ones.

    Shares that are large enough stand as they are, unless a smaller one would be the same as they.
    """
    small = {
        value: max(value, Fraction(1, most)) if value else value for value in values
    }
    named = sorted(value for value in values if value)
    if len({small[value] for value in named}) < len(named):
        small |= {
            value: Fraction(max(1, place * most // len(named)), most)
            for place, value in enumerate(named, 1)
        }
    return small


def _ratios(values: Collection[Fraction], most: int) -> dict[Fraction, Fraction]:
    """What stands for each ratio: itself, or, where one is beyond the examples of
    `most` tasks, its rank among them."""
    named = sorted(value for value in values if value)
    if not named or named[-1] <= most:
        return {value: value for value in values}
    ranks = {
        value: place if len(named) <= most else place * most / len(named)
        for place, value in enumerate(named, 1)
    }
    return {
        value: Fraction(ranks.get(value, 0)).limit_denominator(most) for value in values
    }


def _counts(values: Collection[int | None], most: int) -> dict[int | None, int]:
    """What stands for each number, None being all there are: `most`, or where there are
    several, steps up to it."""
    named = sorted(values, key=lambda value: math.inf if value is None else value)
    return {
        value: max(1, place * most // len(named))
        for place, value in enumerate(named, 1)
    }


def _precision(asked: Iterable[Point], made: Iterable[Point]) -> str:
    """Which precision the trial trains in, and where that is not the grid's."""
    pairs = {
        (before.train.precision, after.train.precision)
        for one, other in zip(asked, made, strict=True)
        for before, after in zip(
            one.settings.by_stage(), other.settings.by_stage(), strict=True
        )
    }
    told = ", ".join(sorted({after for _, after in pairs}))
    changed = sorted(
        {f"{after} in place of {before}" for before, after in pairs if before != after}
    )
    if not changed:
        return f"the smoke run trains in {told}, as the grid says"
    return f"the smoke run trains in {told}: {', '.join(changed)}, in which most CPUs cannot train"


def _small(settings: Settings, sizes: _Sizes) -> Settings:
    smoke = sizes.smoke
    resolved = settings.by_stage()
    data = _small_source(settings.data, sizes)
    if settings.checkpoints.representations is not None:
        data["test_per_task"] = IN_GROUPS
    if settings.data.sources is not None:
        whole = settings.data.by_source()
        data["sources"] = {
            name: own.model_copy(
                update=_small_source(whole[name], sizes)
                | {"test_per_task": data["test_per_task"]}
            )
            for name, own in settings.data.sources.items()
        }
    if settings.data.mix is not None:
        data["mix"] = settings.data.mix.model_copy(update={"total": None})
    # So often that even one example would fill the steps, which end the run.
    batch = _small_batch(settings, sizes)
    again = sizes.steps * max(_small_batch(stage, sizes) for stage in resolved)
    epochs = 1 if all(_fills(stage, sizes) for stage in resolved) else again
    train = {
        "steps": sizes.steps,
        "epochs": epochs,
        "warmup_steps": 0,
        "warmup_share": None,
        "batch": batch,
    }
    order = {"choose": None}  # a choice among a task's examples needs more of them
    stages = None
    if settings.stages is not None:
        small = data | train | order
        stages = [
            _small_stage(overlay, small, stage, sizes)
            for overlay, stage in zip(settings.stages, resolved, strict=True)
        ]
    checkpoints: dict[str, Any] = {"every": 1, **_small_suites(settings.checkpoints)}
    checkpoints |= _small_insides(settings.checkpoints, smoke.layers)
    if settings.checkpoints.snapshots is not None:
        # one half-way and one at the end
        checkpoints["snapshots"] = -(-sizes.steps // 2)
    resources: dict[str, Any] = {"time_min": smoke.time_min}
    resources |= {"nodes": None, "ranks_per_node": None} if sizes.one_rank else {}
    train |= _small_precision(settings.train.precision, sizes)
    made = settings.model_copy(
        update={
            "stages": stages,
            "model": _small_model(settings.model, smoke),
            "data": settings.data.model_copy(update=data),
            "arrangement": settings.arrangement.model_copy(
                update=order | _small_rounds(settings.arrangement.rounds)
            ),
            "train": settings.train.model_copy(update=train),
            "checkpoints": settings.checkpoints.model_copy(update=checkpoints),
            "strategy": settings.strategy and _small_strategy(settings.strategy, sizes),
            "resources": settings.resources.model_copy(update=resources),
        }
    )
    made.by_stage()
    return made


def _small_suites(own: CheckpointSettings) -> dict[str, Any]:
    """Few questions with short answers, which no judge and no reward model is asked
    about: both cost too much."""
    short: dict[str, Any] = {"items": SMOKE_ITEMS, "max_new_tokens": SMOKE_TOKENS}
    suites = {
        name: (
            suite
            and suite.model_copy(
                update=short
                | ({"judge": None, "samples": 1} if name == MT_BENCH else {})
            )
        )
        for name, suite in own.suites
    }
    metrics = [metric for metric in own.metrics if metric != REWARD] or [LOSS]
    generation = own.generation.model_copy(update=short)
    made = {
        "suites": own.suites.model_copy(update=suites),
        "metrics": metrics,
        "reward_model": None,
    }
    return made | {"generation": generation}


def _small_model(model: ModelSettings, smoke: SmokeSettings) -> ModelSettings:
    added = {"add_tokens": model.add_tokens, "token_init": model.token_init}
    return ModelSettings(name=TINY, hidden=smoke.hidden, layers=smoke.layers, **added)


def _small_insides(checkpoints: CheckpointSettings, layers: int) -> dict[str, Any]:
    """What is looked at inside the model, of layers that the small one has."""
    asked = {
        "representations": checkpoints.representations,
        "token_distance": checkpoints.token_distance,
    }
    return {
        key: own.model_copy(
            update={"layers": sorted({min(layer, layers) for layer in own.layers})}
        )
        for key, own in asked.items()
        if own is not None
    }


def _small_precision(precision: str, sizes: _Sizes) -> dict[str, Any]:
    """fp32 in place of fp16 on CPUs: DeepSpeed refuses those without fp16 arithmetic,
    and the trial is not of that."""
    return (
        {"precision": "fp32", "loss_scale": None}
        if sizes.on_cpus and precision == "fp16"
        else {}
    )


def _small_batch(settings: Settings, sizes: _Sizes) -> int:
    """As many examples as are asked for, if these are few; else few, and no fewer than
    there are ranks."""
    own = settings.resources
    ranks = (
        1
        if sizes.one_rank
        else (own.nodes or sizes.nodes) * (own.ranks_per_node or sizes.ranks_per_node)
    )
    return min(
        settings.train.batch, max(MOST_BATCH, ranks, settings.train.virtual_ranks)
    )


def _fills(stage: Settings, sizes: _Sizes) -> bool:
    """Whether one pass over what is left is as many steps as are wanted, for sure; else
    the examples come again."""
    data = stage.data
    whole = (
        data.sources is None
        and data.mix is None
        and data.fraction == 1
        and data.count is None
    )
    if not whole or data.set not in LISTED or stage.arrangement.order == "tma":
        return False
    examples = sizes.tasks[data.train_tasks] * sizes.per_task[data.train_per_task]
    return examples >= _small_batch(stage, sizes) * sizes.steps


def _small_source(source: SourceSettings | Source, sizes: _Sizes) -> dict[str, Any]:
    """Few tasks of few examples; a share that would leave nothing of them is raised to
    one example."""
    smoke = sizes.smoke
    small: dict[str, Any] = {
        "train_tasks": sizes.tasks.get(source.train_tasks, smoke.tasks),
        "test_tasks": smoke.tasks,
        "train_per_task": sizes.per_task.get(source.train_per_task, smoke.per_task),
        "test_per_task": 1,
    }
    if source.ratio is not None:
        small["ratio"] = sizes.ratios[source.ratio]
        # else any ratio would be all there is
        small["train_per_task"] = smoke.tasks * smoke.per_task
    if source.self_sample is not None:
        few = {
            "items": smoke.tasks * smoke.per_task,
            "max_new_tokens": SMOKE_TOKENS,
            "cut": 0,
        }
        small["self_sample"] = source.self_sample.model_copy(update=few)
    fraction = sizes.fractions.get(source.fraction, source.fraction)
    k = None if source.k is None else sizes.parts.get(source.k, source.k)
    return {
        **small,
        "fraction": fraction,
        "count": sizes.counts.get(source.count),
        "k": k,
    }


def _small_strategy(strategy: StrategySettings, sizes: _Sizes) -> StrategySettings:
    return strategy.model_copy(
        update={"k": None if strategy.k is None else sizes.parts[strategy.k]}
    )


def _small_rounds(rounds: str | None) -> dict[str, str]:
    """As many rounds as a few examples have: of "10:15", the third five, the third."""
    if rounds is None:
        return {}
    first, end = parse_span(rounds)
    return {"rounds": f"{first // (end - first)}:{first // (end - first) + 1}"}


def _small_stage(
    overlay: dict[str, dict[str, Any]],
    small: dict[str, Any],
    stage: Settings,
    sizes: _Sizes,
) -> dict[str, dict[str, Any]]:
    """What a stage says, without what would make it long again; its own amounts of data
    as small as the run's."""
    made = {
        part: {key: value for key, value in values.items() if key not in small}
        for part, values in overlay.items()
    }
    said = overlay.get("data", {})
    if said.keys() & small.keys():
        made["data"] |= _amounts(said, _small_source(stage.data, sizes))
    if "sources" in said:
        whole = stage.data.by_source()
        made["data"]["sources"] = {
            name: (
                {key: value for key, value in own.items() if key not in small}
                | _amounts(own, _small_source(whole[name], sizes))
            )
            for name, own in said["sources"].items()
        }
    changed = _small_precision(stage.train.precision, sizes)
    if "batch" in overlay.get("train", {}):
        changed["batch"] = _small_batch(stage, sizes)
    if changed:
        made["train"] = made.get("train", {}) | changed
    return made


def _amounts(said: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a stage says itself, the small values that stand for it."""
    return {
        key: small[key]
        for key in ("fraction", "k", "ratio")
        if key in said and key in small
    }
