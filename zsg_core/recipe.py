"""Decides what makes two runs the same: the resolved recipe and the ids derived from it.

A recipe holds every value that can change a run's numbers, defaults written out, so that a later change of
a default can never change what an old id means; and nothing else: no path, node, profile or metric. Files
enter by the digest of their content. Made once and shared under ids of their own: the corpus (which examples),
the base (a tiny model with its tokenizer) and the arrangement (their order).
"""

from dataclasses import dataclass
from typing import Any

from zsg_core.arrange import BY_SIMILARITY, SEEDED, TMA
from zsg_core.data_settings import DataSettings, HeldOut
from zsg_core.digest import content_id
from zsg_core.measures import OF_TEXT, WSD
from zsg_core.settings import TINY, ArrangementSettings, Settings, WeightSettings

SCHEMA = 1  # raised when the same recipe would train differently, so that old results are never taken for new

SEVERAL_ANSWERS = ("niv2",)  # sets of which a label is drawn among several right answers

Recipe = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class InputDigests:
    """Digests of what the user supplies; None where a run does not use it."""

    data: str
    model: str | None
    embedding: str | None
    test: str | None = None


def uses_embedding(settings: Settings) -> bool:
    """Whether the order needs a similarity, and so an embedding model."""
    asked = settings.arrangement
    return asked.order == TMA or (asked.order in BY_SIMILARITY and asked.measure not in OF_TEXT)


def recipe(settings: Settings, *digests: InputDigests) -> Recipe:
    """The resolved recipe: seeds that do nothing are left out, so that they make no false replicates.

    `digests` are those of each stage's inputs, or one where all stages have the same.
    """
    stages = settings.by_stage()
    of_stages = digests * len(stages) if len(digests) == 1 else digests
    made = [_stage(own, given) for own, given in zip(stages, of_stages, strict=True)]
    return {"schema": SCHEMA, "base": _base(stages[0], of_stages[0]), "stages": made}


def prefixes(made: Recipe) -> list[Recipe]:
    """The recipe after its first stage, after its second, …; the last is the recipe itself.

    A prefix is a recipe like any other: runs that begin alike share the run that it is the recipe of.
    """
    return [{**made, "stages": made["stages"][: count + 1]} for count in range(len(made["stages"]))]


def run_id(made: Recipe) -> str:
    """The id of a run: 12 hex digits of its recipe's SHA-256."""
    return content_id({"kind": "run", "recipe": made})


def records_id(reader: str, digest: str, skip: bool) -> str:
    """The id of a data set's records, normalised: what reads which files, and whether bad rows are passed over."""
    rule = {"on_bad_row": "skip"} if skip else {}
    return content_id({"kind": "records", "schema": SCHEMA, "reader": reader, "digest": digest, **rule})


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
    drawn = _drawn(data, data.set, data.train_per_task, _seed(settings, data.sample_seed))
    if data.fraction != 1:
        drawn["seed"] = _seed(settings, data.sample_seed)
    drawn["fraction"] = str(data.fraction)
    tested = _drawn(data, data.test_set or data.set, data.test_per_task, data.test_seed)
    made = {
        "reader": data.set,
        "digest": digests.data,
        "template": _template(settings),
        "held_out": _held_out(settings, digests),
        "train": {"per_task": data.train_per_task, **_tasks(data.train_tasks), **drawn},
        "test": {"per_task": data.test_per_task, **_tasks(data.test_tasks), **tested},
    }
    # What is absent where it does nothing is as it was before the setting came.
    made |= {} if data.max_turns is None else {"max_turns": data.max_turns}
    return made | ({"on_bad_row": "skip"} if data.on_bad_row == "skip" else {})


def _drawn(data: DataSettings, reader: str, per_task: int | None, seed: int) -> dict[str, Any]:
    # Where all examples are taken and none has several answers, nothing is drawn and no seed makes a replicate.
    if per_task is None and reader not in SEVERAL_ANSWERS:
        return {"sampling": "all"}
    return {"sampling": data.sampling, **({"seed": seed} if data.sampling == "random" else {})}


def _template(settings: Settings) -> dict[str, Any]:
    data = settings.data
    shots = {"positive_examples": data.positive_examples} if data.set == "niv2" or data.test_set == "niv2" else {}
    return {"name": data.template, **shots}


def _held_out(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    data = settings.data
    if data.test_path is not None:
        return {"by": "path", "reader": data.test_set or data.set, "digest": digests.test}
    rule = data.held_out or HeldOut()
    return {"by": "list"} if rule.by == "list" else rule.model_dump(mode="json", exclude_none=True)


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
    corpus = _corpus(settings, digests)
    seen = ("reader", "digest", "on_bad_row", "template", "held_out")
    tokenizer = {"kind": "byte-level BPE", "text": {key: corpus[key] for key in seen if key in corpus}}
    shape = {**settings.model.shape, "context": max(1024, settings.train.max_length)}
    return {"kind": TINY, **shape, "tokenizer": tokenizer, "seed": _seed(settings, settings.train.init_seed)}


def _seed(settings: Settings, own: int | None) -> int:
    return settings.seed if own is None else own
