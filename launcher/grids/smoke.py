"""Shrinks a grid to a trial of everything but its size: the same jobs and axes, a tiny model, few tasks, few steps."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

from launcher.clusters.profiles import SmokeSettings
from launcher.grids.grid import Grid, Point
from zsg_core.errors import UserError
from zsg_core.orders.arrange import span
from zsg_core.scores.metrics import LOSS, MT_BENCH, REWARD
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.data import SourceSettings
from zsg_core.settings.run import TINY, ModelSettings, Settings
from zsg_core.settings.strategy import StrategySettings

SUFFIX = "-smoke"
SMOKE_ITEMS, SMOKE_TOKENS = 2, 16  # of what is answered
SMALL = (
    "model", "data.train_tasks", "data.test_tasks", "data.train_per_task", "data.test_per_task", "data.count",
    "train.steps", "train.epochs", "train.warmup_steps", "train.warmup_share",
    "checkpoints.every", "checkpoints.snapshots", "resources.time_min",
)  # fmt: skip


def shrink(grid: Grid, smoke: SmokeSettings, one_rank: bool = False) -> Grid:
    """The grid under the name `<name>-smoke`, every point made small. Points that become equal are one run.

    `one_rank`: where there are no more, a grid made for a cluster's nodes runs all the same.
    """
    try:
        points = [Point(_small(point.settings, smoke, one_rank), point.axes) for point in grid.points]
    except ValueError as error:
        raise UserError(f"{grid.path}: this grid cannot be made small for a smoke run: {error}") from None
    lost = [text for text in grid.overrides if text.startswith(SMALL)]
    notes = [f"--set {text} counts for nothing in a smoke run, whose size is the profile's `smoke`" for text in lost]
    if one_rank and any(one.settings.resources.nodes or one.settings.resources.ranks_per_node for one in grid.points):
        notes.append("resources.nodes and ranks_per_node count for nothing in a smoke run on this machine: one rank")
    asked = [one.settings.checkpoints for one in grid.points]
    if any(REWARD in one.metrics or (one.suites.mt_bench and one.suites.mt_bench.judge) for one in asked):
        notes.append("a smoke run asks no judge and no reward model")
    name = grid.name[: 64 - len(SUFFIX)] + SUFFIX
    return replace(grid, name=name, points=points, notes=[*grid.notes, *notes])


def _small(settings: Settings, smoke: SmokeSettings, one_rank: bool) -> Settings:
    data = _small_source(settings.data, smoke)
    if settings.data.sources is not None:
        small = {name: own.model_copy(update=_small_source(own, smoke)) for name, own in settings.data.sources.items()}
        data["sources"] = small
    if settings.data.mix is not None:
        data["mix"] = settings.data.mix.model_copy(update={"total": None})
    train = {"steps": smoke.steps, "epochs": 1, "warmup_steps": 0, "warmup_share": None}
    order = {"choose": None}  # a choice among a task's examples needs more of them
    stages = [_small_stage(stage, data | train | order) for stage in settings.stages] if settings.stages else None
    checkpoints: dict[str, Any] = {"every": 1, **_small_suites(settings.checkpoints)}
    checkpoints |= _small_insides(settings.checkpoints, smoke.layers)
    if settings.checkpoints.snapshots is not None:
        checkpoints["snapshots"] = -(-smoke.steps // 2)  # one half-way and one at the end
    resources: dict[str, Any] = {"time_min": smoke.time_min}
    resources |= {"nodes": None, "ranks_per_node": None} if one_rank else {}
    made = settings.model_copy(
        update={
            "stages": stages,
            "model": _small_model(settings.model, smoke),
            "data": settings.data.model_copy(update=data),
            "arrangement": settings.arrangement.model_copy(update=order | _small_rounds(settings.arrangement.rounds)),
            "train": settings.train.model_copy(update=train),
            "checkpoints": settings.checkpoints.model_copy(update=checkpoints),
            "strategy": settings.strategy and _small_strategy(settings.strategy, smoke),
            "resources": settings.resources.model_copy(update=resources),
        }
    )
    made.by_stage()
    return made


def _small_suites(own: CheckpointSettings) -> dict[str, Any]:
    """Few questions with short answers, which no judge and no reward model is asked about: both cost too much."""
    short: dict[str, Any] = {"items": SMOKE_ITEMS, "max_new_tokens": SMOKE_TOKENS}
    suites = {
        name: suite and suite.model_copy(update=short | ({"judge": None, "samples": 1} if name == MT_BENCH else {}))
        for name, suite in own.suites
    }
    metrics = [metric for metric in own.metrics if metric != REWARD] or [LOSS]
    generation = own.generation.model_copy(update=short)
    made = {"suites": own.suites.model_copy(update=suites), "metrics": metrics, "reward_model": None}
    return made | {"generation": generation}


def _small_model(model: ModelSettings, smoke: SmokeSettings) -> ModelSettings:
    added = {"add_tokens": model.add_tokens, "token_init": model.token_init}
    return ModelSettings(name=TINY, hidden=smoke.hidden, layers=smoke.layers, **added)


def _small_insides(checkpoints: CheckpointSettings, layers: int) -> dict[str, Any]:
    """What is looked at inside the model, of layers that the small one has."""
    asked = {"representations": checkpoints.representations, "token_distance": checkpoints.token_distance}
    return {
        key: own.model_copy(update={"layers": sorted({min(layer, layers) for layer in own.layers})})
        for key, own in asked.items()
        if own is not None
    }


def _small_source(source: SourceSettings, smoke: SmokeSettings) -> dict[str, Any]:
    """Few tasks of few examples; a share that would leave nothing of them is raised to one example."""
    least = Fraction(1, smoke.per_task)
    small: dict[str, Any] = {
        "train_tasks": smoke.tasks,
        "test_tasks": smoke.tasks,
        "train_per_task": smoke.per_task,
        "test_per_task": 1,
    }
    if source.self_sample is not None:
        few = {"items": smoke.tasks * smoke.per_task, "max_new_tokens": SMOKE_TOKENS, "cut": 0}
        small["self_sample"] = source.self_sample.model_copy(update=few)
    return {**small, "fraction": max(source.fraction, least), "count": None, "k": source.k and max(source.k, least)}


def _small_strategy(strategy: StrategySettings, smoke: SmokeSettings) -> StrategySettings:
    least = Fraction(1, smoke.per_task)
    return strategy.model_copy(update={"k": strategy.k and max(strategy.k, least)})


def _small_rounds(rounds: str | None) -> dict[str, str]:
    """As many rounds as a few examples have: of "10:15", the third five, the third."""
    if rounds is None:
        return {}
    first, end = span(rounds)
    return {"rounds": f"{first // (end - first)}:{first // (end - first) + 1}"}


def _small_stage(stage: dict[str, dict[str, Any]], small: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A stage without what would make it long again."""
    return {part: {key: value for key, value in values.items() if key not in small} for part, values in stage.items()}
