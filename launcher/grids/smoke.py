"""Shrinks a grid to a trial of everything but its size: the same jobs and axes, a tiny
model, few tasks, few steps.

What the grid compares stays different: amounts that would be the same few examples,
shares, ratios, numbers of tasks, take as many small steps as there are values, in their
order. There are as many steps as a claim needs to be decided.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

from launcher.clusters.profiles import JobSize, SmokeSettings
from launcher.grids.grid import Grid, Point
from zsg_core.data.prompts import CHAT
from zsg_core.data.target_sets import BY_FILE
from zsg_core.errors import UserError
from zsg_core.metrics.keys import HARNESS
from zsg_core.metrics.metrics import LOSS, MT_BENCH, REWARD
from zsg_core.model_scores.registry import SCORE_RULES
from zsg_core.orders.tma_lists import parse_span
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.claims import OF_EARLY_STEPS, Claim
from zsg_core.settings.data import DataSettings, Source, SourceSettings
from zsg_core.settings.run import TINY, ModelSettings, Settings
from zsg_core.settings.strategy import StrategySettings
from zsg_core.settings.target import PER_TASK, TargetSettings

T = TypeVar("T")

SUFFIX = "-smoke"
SMOKE_ITEMS, SMOKE_TOKENS = 2, 16  # of what is answered
SMOKE_GRADIENTS = 2  # examples of each source whose gradients are taken
MOST_BUCKETS = 4  # of an ordered list
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
    k: Mapping[Fraction, Fraction]
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
        sizes = _choose_sizes(grid, smoke, one_rank, on_cpus, size or JobSize())
        points = [
            Point(_small(point.settings, sizes), point.axes) for point in grid.points
        ]
    except ValueError as error:
        raise UserError(
            f"{grid.path}: this grid cannot be made small for a smoke run: {error}"
        ) from None
    notes = [*grid.notes, *_find_notes(grid, points, one_rank)]
    name = grid.name[: 64 - len(SUFFIX)] + SUFFIX
    return replace(grid, name=name, points=points, notes=notes)


def _find_notes(grid: Grid, small: list[Point], one_rank: bool) -> Iterator[str]:
    """What of the grid counts for nothing in the trial, and the precision it trains in."""
    for text in grid.overrides:
        if text.startswith(SMALL):
            yield (
                f"--set {text} counts for nothing in a smoke run, whose size is the profile's"
                " `smoke`"
            )
    settings = [point.settings for point in grid.points]
    if one_rank and any(map(_says_ranks, settings)):
        yield (
            "resources.nodes and ranks_per_node count for nothing in a smoke run on this machine:"
            " one rank"
        )
    yield from _find_unasked(settings)
    if any(point.data.template == CHAT for point in settings):
        yield (
            "the small model of a smoke run has no chat template: examples are written by"
            " data.template: zsg, and the model's own is tried by the prepare job of a real run"
        )
    if any(map(_has_large_batch, settings)):
        yield f"a smoke run takes batches of {MOST_BATCH}, or one example for each rank"
    yield _describe_precision(grid.points, small)


def _says_ranks(settings: Settings) -> bool:
    resources = settings.resources
    return bool(resources.nodes or resources.ranks_per_node)


def _find_unasked(settings: Sequence[Settings]) -> Iterator[str]:
    """Which models of a grid are not asked in the trial."""
    if any(map(_makes_data, settings)):
        yield (
            "a smoke run asks no model for data (make): the examples in the files stand for those"
            " that would be made"
        )
    if any(map(_asks_a_judge, settings)):
        yield "a smoke run asks no judge and no reward model"


def _makes_data(settings: Settings) -> bool:
    return any(
        source.make is not None
        for stage in settings.by_stage()
        for source in stage.data.by_source().values()
    )


def _asks_a_judge(settings: Settings) -> bool:
    mt_bench = settings.checkpoints.suites.mt_bench
    has_judge = mt_bench is not None and bool(mt_bench.judge)
    return REWARD in settings.checkpoints.metrics or has_judge


def _has_large_batch(settings: Settings) -> bool:
    return any(stage.train.batch > MOST_BATCH for stage in settings.by_stage())


def _choose_sizes(
    grid: Grid, smoke: SmokeSettings, one_rank: bool, on_cpus: bool, size: JobSize
) -> _Sizes:
    """The sizes for all points together, so that what differs in the grid differs in the trial."""
    sources = _list_sources(grid)
    if one_rank:
        size = JobSize()
    return _Sizes(
        smoke=smoke,
        one_rank=one_rank,
        on_cpus=on_cpus,
        steps=_choose_steps(grid.claims, smoke),
        nodes=size.nodes,
        ranks_per_node=size.ranks_per_node,
        fractions=_shares({source.fraction for source in sources}, smoke.per_task),
        k=_shares(_named(source.k for source in sources), smoke.per_task),
        ratios=_ratios(_named(source.ratio for source in sources), smoke.tasks),
        counts=_choose_counts(sources, smoke),
        tasks=_counts(_list_task_counts(sources), smoke.tasks),
        per_task=_counts({source.train_per_task for source in sources}, smoke.per_task),
    )


def _list_sources(grid: Grid) -> list[Source]:
    """The sources of every stage of every point."""
    return [
        source
        for point in grid.points
        for stage in point.settings.by_stage()
        for source in stage.data.by_source().values()
    ]


def _list_task_counts(sources: Iterable[Source]) -> set[int | None]:
    """Each number of tasks that the grid has; tasks that it names stay as they are."""
    return {
        source.train_tasks
        for source in sources
        if not isinstance(source.train_tasks, list)
    }


def _named(values: Iterable[T | None]) -> set[T]:
    return {value for value in values if value is not None}


def _choose_steps(claims: Iterable[Claim], smoke: SmokeSettings) -> int:
    """As many as the profile says, or as a claim needs to be decided."""
    needed = [
        math.ceil(1 / claim.within)
        for claim in claims
        if isinstance(claim, OF_EARLY_STEPS)
    ]
    return max([smoke.steps, *needed])


def _choose_counts(
    sources: Iterable[Source], smoke: SmokeSettings
) -> dict[int | None, int | None]:
    """What stands for each number of examples; only where the grid compares several."""
    counts: dict[int | None, int | None] = {None: None}
    named = _named(source.count for source in sources)
    if len(named) > 1:
        counts |= _counts(named, smoke.per_task)
    return counts


def _shares(values: Collection[Fraction], examples: int) -> dict[Fraction, Fraction]:
    """What stands for each share of so many examples: no less than one of them, and
    different shares for different ones.

    Shares that are large enough stand as they are, unless a smaller one would be the same as they.
    """
    small = {
        value: max(value, Fraction(1, examples)) if value else value for value in values
    }
    named = sorted(value for value in values if value)
    if len({small[value] for value in named}) < len(named):
        small |= {
            value: Fraction(max(1, rank * examples // len(named)), examples)
            for rank, value in enumerate(named, 1)
        }
    return small


def _ratios(values: Collection[Fraction], tasks: int) -> dict[Fraction, Fraction]:
    """What stands for each ratio: itself, or, where one is beyond the examples of
    so many tasks, its rank among them."""
    named = sorted(value for value in values if value)
    if not named or named[-1] <= tasks:
        return {value: value for value in values}
    ranks = {
        value: rank if len(named) <= tasks else rank * tasks / len(named)
        for rank, value in enumerate(named, 1)
    }
    return {
        value: Fraction(ranks.get(value, 0)).limit_denominator(tasks)
        for value in values
    }


def _counts(values: Collection[int | None], limit: int) -> dict[int | None, int]:
    """What stands for each number, None being all there are: `limit`, or where there
    are several, steps up to it."""
    named = sorted(values, key=lambda value: math.inf if value is None else value)
    return {
        value: max(1, rank * limit // len(named)) for rank, value in enumerate(named, 1)
    }


def _describe_precision(points: Iterable[Point], small: Iterable[Point]) -> str:
    """Which precision the trial trains in, and where that is not the grid's."""
    pairs = {
        (stage.train.precision, small_stage.train.precision)
        for point, small_point in zip(points, small, strict=True)
        for stage, small_stage in zip(
            point.settings.by_stage(), small_point.settings.by_stage(), strict=True
        )
    }
    used = ", ".join(sorted({after for _, after in pairs}))
    changed = sorted(
        {f"{after} in place of {before}" for before, after in pairs if before != after}
    )
    if not changed:
        return f"the smoke run trains in {used}, as the grid says"
    return f"the smoke run trains in {used}: {', '.join(changed)}, in which most CPUs cannot train"


def _small(settings: Settings, sizes: _Sizes) -> Settings:
    smoke = sizes.smoke
    data = _small_data(settings, sizes)
    resolved = settings.by_stage()
    train = _small_train(settings, resolved, sizes)
    # a choice among a task's examples needs more of them; the small model scores itself
    order: dict[str, Any] = {"choose": None, "scorer": None, "since": None}
    stages = None
    if settings.stages is not None:
        small = data | train | order
        stages = [
            _small_stage(overlay, small, stage, sizes)
            for overlay, stage in zip(settings.stages, resolved, strict=True)
        ]
    train |= _small_precision(settings.train.precision, sizes)
    order |= _small_rounds(settings.arrangement.rounds)
    order |= _small_score(settings.arrangement.score)
    order |= _small_target(settings.arrangement.target)
    order |= _small_rules(settings, sizes)
    resources: dict[str, Any] = {"time_min": smoke.time_min}
    if sizes.one_rank:
        resources |= {"nodes": None, "ranks_per_node": None}
    result = settings.model_copy(
        update={
            "stages": stages,
            "model": _small_model(settings.model, smoke),
            "data": settings.data.model_copy(update=data),
            "arrangement": settings.arrangement.model_copy(update=order),
            "train": settings.train.model_copy(update=train),
            "checkpoints": _small_checkpoints(settings.checkpoints, sizes),
            "strategy": settings.strategy and _small_strategy(settings.strategy, sizes),
            "resources": settings.resources.model_copy(update=resources),
        }
    )
    result.by_stage()
    return result


def _small_data(settings: Settings, sizes: _Sizes) -> dict[str, Any]:
    data = _small_source(settings.data, sizes)
    if settings.checkpoints.representations is not None:
        data["test_per_task"] = IN_GROUPS
    if settings.data.sources is not None:
        whole = settings.data.by_source()
        test = {"test_per_task": data["test_per_task"]}
        data["sources"] = {
            name: source.model_copy(update=_small_source(whole[name], sizes) | test)
            for name, source in settings.data.sources.items()
        }
    if settings.data.template == CHAT:
        data |= {
            "template": DataSettings.model_fields["template"].default,
            "chat_template_kwargs": None,
            "chat_system": "template",
        }
    if settings.data.mix is not None:
        data["mix"] = settings.data.mix.model_copy(update={"total": None})
    return data


def _small_train(
    settings: Settings, stages: Sequence[Settings], sizes: _Sizes
) -> dict[str, Any]:
    """Few steps, which end the run: so many passes that even one example would fill them."""
    epochs = 1
    if not all(_fills(stage, sizes) for stage in stages):
        epochs = sizes.steps * max(_small_batch(stage, sizes) for stage in stages)
    return {
        "steps": sizes.steps,
        "epochs": epochs,
        "warmup_steps": 0,
        "warmup_share": None,
        "batch": _small_batch(settings, sizes),
    }


def _small_checkpoints(
    checkpoints: CheckpointSettings, sizes: _Sizes
) -> CheckpointSettings:
    update: dict[str, Any] = {"every": 1, **_small_suites(checkpoints)}
    update |= _small_insides(checkpoints, sizes.smoke.layers)
    if checkpoints.gradients is not None:
        few = {"items": SMOKE_GRADIENTS}
        update["gradients"] = checkpoints.gradients.model_copy(update=few)
    if checkpoints.snapshots is not None:
        # one half-way and one at the end
        update["snapshots"] = -(-sizes.steps // 2)
    return checkpoints.model_copy(update=update)


def _small_suites(checkpoints: CheckpointSettings) -> dict[str, Any]:
    """Few questions with short answers, which no judge and no reward model is asked
    about: both cost too much."""
    short: dict[str, Any] = {"items": SMOKE_ITEMS, "max_new_tokens": SMOKE_TOKENS}
    unjudged = short | {"judge": None, "samples": 1}
    suites = {
        name: suite and suite.model_copy(update=unjudged if name == MT_BENCH else short)
        for name, suite in checkpoints.suites
        if name != HARNESS
    }
    if checkpoints.harness_tasks:
        few = {"limit": SMOKE_ITEMS}
        suites[HARNESS] = checkpoints.lm_eval.model_copy(update=few)
    metrics = [metric for metric in checkpoints.metrics if metric != REWARD]
    return {
        "suites": checkpoints.suites.model_copy(update=suites),
        "metrics": metrics or [LOSS],
        "reward_model": None,
        "generation": checkpoints.generation.model_copy(update=short),
    }


def _small_model(model: ModelSettings, smoke: SmokeSettings) -> ModelSettings:
    added: dict[str, Any] = {
        "add_tokens": model.add_tokens,
        "token_init": model.token_init,
    }
    return ModelSettings(name=TINY, hidden=smoke.hidden, layers=smoke.layers, **added)


def _small_insides(checkpoints: CheckpointSettings, layers: int) -> dict[str, Any]:
    """What is looked at inside the model, of layers that the small one has."""
    measures = {
        "representations": checkpoints.representations,
        "token_distance": checkpoints.token_distance,
    }
    return {
        key: measure.model_copy(
            update={"layers": sorted({min(layer, layers) for layer in measure.layers})}
        )
        for key, measure in measures.items()
        if measure is not None
    }


def _small_precision(precision: str, sizes: _Sizes) -> dict[str, Any]:
    """fp32 in place of fp16 on CPUs: DeepSpeed refuses those without fp16 arithmetic,
    and the trial is not of that."""
    if not sizes.on_cpus or precision != "fp16":
        return {}
    return {"precision": "fp32", "loss_scale": None}


def _small_batch(settings: Settings, sizes: _Sizes) -> int:
    """As many examples as are asked for, if these are few; else few, and no fewer than
    there are ranks."""
    ranks = 1
    if not sizes.one_rank:
        nodes = settings.resources.nodes or sizes.nodes
        ranks = nodes * (settings.resources.ranks_per_node or sizes.ranks_per_node)
    return min(
        settings.train.batch, max(MOST_BATCH, ranks, settings.train.virtual_ranks)
    )


def _fills(stage: Settings, sizes: _Sizes) -> bool:
    """Whether one pass over what is left is as many steps as are wanted, for sure; else
    the examples come again."""
    data = stage.data
    is_mixed = data.sources is not None or data.mix is not None
    if is_mixed or data.fraction != 1 or data.count is not None:
        return False
    if data.set not in LISTED or stage.arrangement.order == "tma":
        return False
    if isinstance(data.train_tasks, list):
        return False
    examples = sizes.tasks[data.train_tasks] * sizes.per_task[data.train_per_task]
    return examples >= _small_batch(stage, sizes) * sizes.steps


def _small_source(source: SourceSettings | Source, sizes: _Sizes) -> dict[str, Any]:
    """Few tasks of few examples; a share that would leave nothing of them is raised to
    one example."""
    smoke = sizes.smoke
    small: dict[str, Any] = {
        "train_tasks": _limit_tasks(source.train_tasks, sizes),
        "test_tasks": smoke.tasks,
        "train_per_task": sizes.per_task.get(source.train_per_task, smoke.per_task),
        "test_per_task": 1,
        "fraction": sizes.fractions.get(source.fraction, source.fraction),
        "count": sizes.counts.get(source.count),
        "k": None if source.k is None else sizes.k.get(source.k, source.k),
    }
    if isinstance(source.test_tasks, list):
        small["test_tasks"] = source.test_tasks
    if source.ratio is not None:
        small["ratio"] = sizes.ratios[source.ratio]
        # else any ratio would be all there is
        small["train_per_task"] = smoke.tasks * smoke.per_task
    if source.self_sample is not None:
        short = {
            "items": smoke.tasks * smoke.per_task,
            "max_new_tokens": SMOKE_TOKENS,
            "cut": 0,
        }
        small["self_sample"] = source.self_sample.model_copy(update=short)
    if source.make is not None:
        small["make"] = None
        if source.make.instag is not None and source.tags is None:
            # of tags that nobody makes none can be looked for
            small |= {"keep_tags": None, "drop_tags": None}
    return small


def _limit_tasks(limit: int | list[str] | None, sizes: _Sizes) -> int | list[str]:
    """Few tasks in place of a number of them; those that are named."""
    if isinstance(limit, list):
        return limit
    return sizes.tasks.get(limit, sizes.smoke.tasks)


def _small_strategy(strategy: StrategySettings, sizes: _Sizes) -> StrategySettings:
    return strategy.model_copy(
        update={"k": None if strategy.k is None else sizes.k[strategy.k]}
    )


def _small_rounds(rounds: str | None) -> dict[str, str]:
    """As many rounds as a few examples have: of "10:15", the third five, the third."""
    if rounds is None:
        return {}
    first, end = parse_span(rounds)
    return {"rounds": f"{first // (end - first)}:{first // (end - first) + 1}"}


def _small_score(score: str | None) -> dict[str, str]:
    """The loss in place of a score that compares two models: a smoke run has one."""
    if score is None or not SCORE_RULES[score].compares:
        return {}
    return {"score": "answer_loss"}


def _small_target(target: TargetSettings | None) -> dict[str, TargetSettings]:
    """A target set of a few items of each task: which are few, too, as few are tested."""
    if target is None or target.by == BY_FILE or target.per_task is not None:
        return {}
    return {"target": target.model_copy(update={"per_task": PER_TASK})}


def _small_rules(settings: Settings, sizes: _Sizes) -> dict[str, Any]:
    """What becomes of an ordered list, in a few buckets and over a few steps."""
    rules: dict[str, Any] = {}
    buckets, pacing = settings.arrangement.buckets, settings.arrangement.pacing
    if buckets is not None:
        number = min(buckets.number, MOST_BUCKETS)
        rules["buckets"] = buckets.model_copy(update={"number": number})
    if pacing is not None and pacing.over_steps is not None:
        over_steps = min(pacing.over_steps, sizes.steps)
        rules["pacing"] = pacing.model_copy(update={"over_steps": over_steps})
    return rules


def _small_stage(
    overlay: dict[str, dict[str, Any]],
    small: dict[str, Any],
    stage: Settings,
    sizes: _Sizes,
) -> dict[str, dict[str, Any]]:
    """What a stage says, without what would make it long again; its own amounts of data
    as small as the run's."""
    result = {section: _without(values, small) for section, values in overlay.items()}
    data, order = overlay.get("data", {}), overlay.get("arrangement", {})
    if data.keys() & small.keys():
        result["data"] |= _amounts(data, _small_source(stage.data, sizes))
    if "sources" in data:
        whole = stage.data.by_source()
        result["data"]["sources"] = {
            name: _without(source, small)
            | _amounts(source, _small_source(whole[name], sizes))
            for name, source in data["sources"].items()
        }
    rules = _small_rules(stage, sizes)
    own_rules = {key: rules[key].model_dump() for key in rules if key in order}
    if own_rules:
        result["arrangement"] |= own_rules
    changed = _small_precision(stage.train.precision, sizes)
    if "batch" in overlay.get("train", {}):
        changed["batch"] = _small_batch(stage, sizes)
    if changed:
        result["train"] = result.get("train", {}) | changed
    return result


def _without(values: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """The values but for those that are made small."""
    return {key: value for key, value in values.items() if key not in small}


def _amounts(overlay: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a stage says itself, the small values that stand for it."""
    return {
        key: small[key]
        for key in ("fraction", "k", "ratio")
        if key in overlay and key in small
    }
