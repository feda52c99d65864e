"""Decides what makes two runs the same: the resolved recipe and the ids derived from it.

A recipe holds every value that can change a run's numbers, defaults written out, so that a later change of
a default can never change what an old id means; and nothing else: no path, node, profile or metric. Files
enter by the digest of their content. Made once and shared under ids of their own: the corpus (which examples),
the base (a tiny model with its tokenizer) and the arrangement (their order).
"""

from dataclasses import dataclass
from typing import Any

from zsg_core.arrange import BY_SIMILARITY, SEEDED, TMA
from zsg_core.digest import content_id
from zsg_core.measures import OF_TEXT, WSD
from zsg_core.settings import TINY, ArrangementSettings, Settings, WeightSettings

SCHEMA = 1  # raised when the same recipe would train differently, so that old results are never taken for new

Recipe = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class InputDigests:
    """Digests of what the user supplies; None where a run does not use it."""

    data: str
    model: str | None
    embedding: str | None


def uses_embedding(settings: Settings) -> bool:
    """Whether the order needs a similarity, and so an embedding model."""
    asked = settings.arrangement
    return asked.order == TMA or (asked.order in BY_SIMILARITY and asked.measure not in OF_TEXT)


def recipe(settings: Settings, digests: InputDigests) -> Recipe:
    """The resolved recipe: seeds that do nothing are left out, so that they make no false replicates."""
    base = _base(settings.by_stage()[0], digests)
    return {"schema": SCHEMA, "base": base, "stages": [_stage(own, digests) for own in settings.by_stage()]}


def prefixes(made: Recipe) -> list[Recipe]:
    """The recipe after its first stage, after its second, …; the last is the recipe itself.

    A prefix is a recipe like any other: runs that begin alike share the run that it is the recipe of.
    """
    return [{**made, "stages": made["stages"][: count + 1]} for count in range(len(made["stages"]))]


def run_id(made: Recipe) -> str:
    """The id of a run: 12 hex digits of its recipe's SHA-256."""
    return content_id({"kind": "run", "recipe": made})


def corpus_id(made: Recipe) -> str:
    """The id of the last stage's sampled training and test examples."""
    return content_id({"kind": "corpus", "schema": SCHEMA, "data": made["stages"][-1]["data"]})


def arrangement_id(made: Recipe) -> str:
    """The id of the last stage's ordered training list: its examples and how they are put in order."""
    stage = made["stages"][-1]
    asked = {"data": stage["data"], "arrangement": stage["arrangement"]}
    return content_id({"kind": "arrangement", "schema": SCHEMA, **asked})


def base_id(made: Recipe) -> str | None:
    """The id of a tiny model's weights and tokenizer; None for a model that the user supplies."""
    base = made["base"]
    return content_id({"kind": "base", "schema": SCHEMA, "base": base}) if base["kind"] == TINY else None


def _stage(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    train = settings.train.model_dump(mode="json", exclude={"init_seed", "tuning"})
    train["tuning"] = settings.train.tuning.resolved(_seed(settings, settings.train.init_seed))
    return {"data": _corpus(settings, digests), "arrangement": _arrangement(settings, digests), "train": train}


def _corpus(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    data = settings.data
    drawn: dict[str, Any] = {"sampling": data.sampling, "fraction": str(data.fraction)}
    if data.sampling == "random" or data.fraction != 1:
        drawn["seed"] = _seed(settings, data.sample_seed)
    test: dict[str, Any] = {"per_task": data.test_per_task, **_tasks(data.test_tasks), "sampling": data.sampling}
    if data.sampling == "random":
        test["seed"] = data.test_seed
    return {
        "reader": data.set,
        "digest": digests.data,
        "template": {"name": "niv2", "positive_examples": data.positive_examples},
        "train": {"per_task": data.train_per_task, **_tasks(data.train_tasks), **drawn},
        "test": test,
    }


def _tasks(first: int | None) -> dict[str, int]:
    # Absent where all tasks are meant, as in the recipes made before the setting was.
    return {} if first is None else {"tasks": first}


def _arrangement(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    asked = settings.arrangement
    made: dict[str, Any] = {"order": asked.order}
    if asked.order in SEEDED or (asked.order == TMA and asked.list == "random"):
        made["seed"] = _seed(settings, asked.seed)
    if asked.order in BY_SIMILARITY:
        made |= _measured(asked)
    elif asked.order == TMA:
        made |= {"list": asked.list or "min"}
        made |= {key: getattr(asked, key) for key in ("cap", "rounds") if getattr(asked, key) is not None}
    if uses_embedding(settings):
        made["embedding"] = digests.embedding
        made["similarity"] = "folded"  # distance.fold; orders made before it were summed from first to last
    return made


def _measured(asked: ArrangementSettings) -> dict[str, Any]:
    made: dict[str, Any] = {"measure": asked.measure or WSD}
    if made["measure"] == WSD:
        weights = asked.weights or WeightSettings()
        made |= {"w_min": _weight(weights.min), "w_avg": _weight(weights.avg)}
    if asked.granularity == "coarse":
        made["granularity"] = "coarse"
    return made | ({"choose": asked.choose} if asked.choose not in (None, "all") else {})


def _weight(weight: float | str) -> str:
    return weight if isinstance(weight, str) else f"{weight:.17g}"


def _base(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    if settings.model.name != TINY:
        return {"kind": "folder", "digest": digests.model}
    # The tokenizer learns from every training task whatever is sampled, so that all runs of a grid share it.
    tokenizer = {"kind": "byte-level BPE", "text": digests.data}
    tokenizer["positive_examples"] = str(settings.data.positive_examples)
    shape = {**settings.model.shape, "context": max(1024, settings.train.max_length)}
    return {"kind": TINY, **shape, "tokenizer": tokenizer, "seed": _seed(settings, settings.train.init_seed)}


def _seed(settings: Settings, own: int | None) -> int:
    return settings.seed if own is None else own
