"""Decides what makes two runs the same: the resolved recipe and the ids derived from it.

A recipe holds every value that can change a run's numbers, defaults written out, so
that a later change of a default can never change what an old id means; and nothing
else: no path, node, profile or metric. Files enter by the digest of their content. Made
once and shared under ids of their own: the corpus (which examples), the base (a tiny
model with its tokenizer, or a model with added tokens) and the arrangement (their
order).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zsg_core.data.readers import FORMATS
from zsg_core.digest import content_id
from zsg_core.orders.registry import ORDERS
from zsg_core.settings.data import ONE, HeldOut, Source
from zsg_core.settings.run import TINY, Settings
from zsg_core.settings.train import TrainSettings
from zsg_core.training.schedule import HUGGING_FACE

Recipe = dict[str, Any]

# raised when the same recipe would train differently, so that old results are never taken for new
SCHEMA = 1

# Settings of training that came later, absent where they do nothing: recipes made
# before keep their ids.
LATER = {
    key: TrainSettings.model_fields[key].default
    for key in (
        "virtual_ranks",
        "warmup_share",
        "truncate",
        "truncated_answers",
        "loss_scale",
        "overflow",
        "task_scale",
    )
}

# Marks of what an older zsg made otherwise, and what that is. A recipe without its
# marks is the one of then.
MARKS = {
    "warmup": "the rates of its warm-up",
    "read": "how its data are read",
    "added_tokens": "how texts are read that hold its tokenizer's added tokens",
}
# of a base, where an older zsg made control tokens of a text's words
READS_TEXT = {"added_tokens": "split"}


@dataclass(frozen=True, kw_only=True)
class SourceDigests:
    """Digests of a source's files; None where it has none of the kind.

    `marks` and `test_marks` say what is read of data and test otherwise than by earlier
    versions, see `zsg_core.data.readers.format.Inspection`; mostly nothing.
    """

    data: str
    test: str | None = None
    tags: str | None = None
    instructions: str | None = None
    marks: Recipe = field(default_factory=dict)
    test_marks: Recipe = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InputDigests:
    """Digests of what the user supplies, its data by source; None where a run does not use it."""

    sources: Mapping[str, SourceDigests]
    model: str | None = None
    embedding: str | None = None
    # tokens of the model that an older zsg made of the words of texts
    control: tuple[str, ...] = ()


def uses_embedding(settings: Settings) -> bool:
    """Whether the order needs a similarity, and so an embedding model."""
    asked = settings.arrangement
    return ORDERS[asked.order].needs_embedding(asked)


def make_recipe(settings: Settings, *digests: InputDigests) -> Recipe:
    """The resolved recipe: seeds that do nothing are left out, so that they make no
    false replicates.

    `digests` are those of each stage's inputs, or one where all stages have the same.
    """
    stages = settings.by_stage()
    of_stages = digests * len(stages) if len(digests) == 1 else digests
    made = [_stage(own, given) for own, given in zip(stages, of_stages, strict=True)]
    base = _base(stages[0], of_stages[0], made[0]["data"])
    for stage in made:
        for source in list_sources(stage["data"]).values():
            if "self_sample" in source:  # by the model as it is before tokens are added
                answers = remove_added_tokens(base)
                source["self_sample"]["model"] = (
                    id_of_base(answers) or answers["digest"]
                )
                source["self_sample"] |= READS_TEXT if of_stages[0].control else {}
    return {"schema": SCHEMA, "base": base, "stages": made}


def list_prefixes(made: Recipe) -> list[Recipe]:
    """The recipe after its first stage, after its second, …; the last is the recipe itself.

    A prefix is a recipe like any other: runs that begin alike share the run that it is
    the recipe of.
    """
    return [
        {**made, "stages": made["stages"][: count + 1]}
        for count in range(len(made["stages"]))
    ]


def last_stage(recipe: Recipe) -> Recipe:
    """The recipe of the stage that a run trains: the last of its stages."""
    return recipe["stages"][-1]


def run_id(made: Recipe) -> str:
    """The id of a run: 12 hex digits of its recipe's SHA-256."""
    return content_id({"kind": "run", "recipe": made})


def remove_marks(made: Any) -> tuple[Any, set[str]]:
    """The recipe as an older zsg would have made it, and which of `MARKS` it does not have."""
    found: set[str] = set()
    if isinstance(made, list):
        rows = [remove_marks(value) for value in made]
        return [row for row, _ in rows], found.union(*(own for _, own in rows))
    if not isinstance(made, dict):
        return made, found
    kept = {}
    for key, value in made.items():
        if key in MARKS:
            found.add(key)
        else:
            kept[key], own = remove_marks(value)
            found |= own
    return kept, found


def remove_seeds(made: Any) -> Any:
    """A recipe without the seeds that make replicates: runs that have it in common
    differ in nothing else.

    The seeds of the test set and of which tasks are held out stay: another test set is
    another question.
    """
    if isinstance(made, list):
        return [remove_seeds(value) for value in made]
    if not isinstance(made, dict):
        return made
    return {
        k: v if k in ("test", "held_out") else remove_seeds(v)
        for k, v in made.items()
        if k != "seed"
    }


def records_id(source: Recipe, skip: bool) -> str:
    """The id of a data set's records, normalised: what reads which files, and whether
    bad rows are passed over.

    `source` has reader and digest, and self_sample where the answers are a model's own;
    `read` where they are read otherwise than by earlier versions.
    """
    rule = {"on_bad_row": "skip"} if skip else {}
    own = {
        key: source[key]
        for key in ("reader", "digest", "read", "self_sample")
        if key in source
    }
    return content_id({"kind": "records", "schema": SCHEMA, **own, **rule})


def find_self_sampled(data: Recipe) -> dict[str, str]:
    """The sources of a corpus' recipe whose answers are a model's own, each with the id
    of its records."""
    own = {
        name: source
        for name, source in list_sources(data).items()
        if "self_sample" in source
    }
    return {
        name: records_id(source, source.get("on_bad_row") == "skip")
        for name, source in own.items()
    }


def corpus_id(made: Recipe) -> str:
    """The id of the last stage's sampled training and test examples."""
    return content_id(
        {"kind": "corpus", "schema": SCHEMA, "data": last_stage(made)["data"]}
    )


def arrangement_id(made: Recipe) -> str:
    """The id of the last stage's ordered training list: its examples and how they are
    put in order."""
    stage = last_stage(made)
    asked = {"data": stage["data"], "arrangement": stage["arrangement"]}
    return content_id({"kind": "arrangement", "schema": SCHEMA, **asked})


def base_id(made: Recipe) -> str | None:
    """The id of a base that zsg makes: tiny, or any with added tokens; None for a model
    as the user supplies it."""
    return id_of_base(made["base"])


def id_of_base(base: Recipe) -> str | None:
    """The same of a base's own recipe."""
    is_made = base["kind"] == TINY or "added" in base
    return (
        content_id({"kind": "base", "schema": SCHEMA, "base": base})
        if is_made
        else None
    )


def remove_added_tokens(base: Recipe) -> Recipe:
    """The recipe of the base to which tokens were added, whose files no mark of how
    texts are read changes."""
    return {
        key: value for key, value in base.items() if key not in ("added", *READS_TEXT)
    }


def _stage(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    train = settings.train.model_dump(mode="json", exclude={"init_seed", "tuning"})
    train = {
        key: value
        for key, value in train.items()
        if key not in LATER or value != LATER[key]
    }
    # the first rate and the rounding; runs made before it warmed up in another way
    if settings.train.warmup_share:
        train["warmup"] = HUGGING_FACE
    train["tuning"] = settings.train.tuning.resolved(
        _seed(settings, settings.train.init_seed)
    )
    return {
        "data": _corpus(settings, digests),
        "arrangement": _arrangement(settings, digests),
        "train": train,
    }


def list_sources(data: Recipe) -> dict[str, Recipe]:
    """The sources of a corpus' recipe, in the order in which their examples stand: that
    of their names.

    Of one data set the recipe is its own source, under the name ''.
    """
    return dict(sorted(data["sources"].items())) if "sources" in data else {ONE: data}


def list_tested(data: Recipe) -> dict[str, Recipe]:
    """What is tested of each source of a corpus' recipe, by the sources' names; of
    those that are tested at all."""
    return {
        name: source["test"]
        for name, source in list_sources(data).items()
        if "test" in source
    }


def _corpus(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    data, made = settings.data, settings.data.by_source()
    shared: dict[str, Any] = {"template": _template(settings, made.values())}
    # What is absent where it does nothing is as it was before the setting came.
    shared |= {} if data.max_turns is None else {"max_turns": data.max_turns}
    shared |= {} if data.mix is None else {"mix": _mix(settings)}
    if data.sources is None:
        return _source(settings, made[ONE], digests.sources[ONE]) | shared
    # A tiny model's tokenizer learns from every source but its own answers; else one
    # that is neither trained on nor tested is not there.
    is_read = settings.model.name == TINY
    used = {
        name: own
        for name, own in made.items()
        if (own.is_sampled if own.self_sample else own.k or is_tested(own) or is_read)
    }
    return {
        "sources": {
            name: _source(settings, own, digests.sources[name])
            for name, own in used.items()
        }
    } | shared


def is_tested(source: Source) -> bool:
    """Whether a source among several says what of it is tested."""
    return source.test_path is not None or source.held_out is not None


def _source(
    settings: Settings, source: Source, digests: SourceDigests
) -> dict[str, Any]:
    data = settings.data
    made: dict[str, Any] = {
        "reader": source.set,
        "digest": digests.data,
        **_read(digests.marks),
    }
    if data.sources is None or is_tested(source):
        tested = _drawn(
            source, source.test_set or source.set, source.test_per_task, data.test_seed
        )
        made["held_out"] = _held_out(source, digests)
        made["test"] = {
            "per_task": source.test_per_task,
            **_tasks(source.test_tasks),
            **tested,
        }
        worded = source.instructions and source.instructions.of_test(
            digests.instructions
        )
        made["test"] |= {"instructions": worded} if worded else {}
    if source.self_sample is not None:
        how = {
            "template": _template(settings, [source]),
            "precision": settings.train.precision,
        }
        made["self_sample"] = source.self_sample.recipe | how
    made["train"] = _trained(settings, source, digests)
    return made | ({"on_bad_row": "skip"} if source.on_bad_row == "skip" else {})


def _trained(
    settings: Settings, source: Source, digests: SourceDigests
) -> dict[str, Any]:
    """What of a source is trained on, without whatever does nothing."""
    if source.k == 0:
        return {"k": "0"}
    seed = _seed(settings, settings.data.sample_seed)
    made = {"per_task": source.train_per_task, **_tasks(source.train_tasks)}
    made |= _drawn(source, source.set, source.train_per_task, seed)
    made |= _tagged(source, digests)
    if source.instructions is not None:
        made["instructions"] = source.instructions.of_train(digests.instructions, seed)
    made |= {
        key: getattr(source, key)
        for key in ("templates", "count")
        if getattr(source, key) is not None
    }
    made |= _data_sets(settings, source)
    made |= (
        {}
        if source.ratio is None
        else {"ratio": str(source.ratio), "ratio_to": source.ratio_to}
    )
    made["fraction"] = str(source.fraction)
    made |= {} if source.k == 1 else {"k": str(source.k)}
    made |= {} if source.rate_max is None else {"rate_max": source.rate_max}
    made |= {} if source.share is None else {"share": str(source.share)}
    if (
        source.fraction != 1
        or made.keys() & {"templates", "count", "ratio", "k"}
        or settings.data.mix
    ):
        # splits.nested; parts made before it were drawn one by one
        made |= {"seed": seed, "parts": "nested"}
    return made


def _data_sets(settings: Settings, source: Source) -> dict[str, Any]:
    """Which tasks are one data set, where it is said and counts for anything."""
    rule, mix = source.data_sets, settings.data.mix
    # else each task counts alone
    by_set = mix is not None and mix.rates == "capped" and source.rate_max is not None
    counts = (
        source.templates is not None
        or by_set
        or (mix is not None and mix.rates == "t0")
    )
    # by T0's names is what is done without it
    if rule is None or not counts or (rule == "t0" and not by_set):
        return {}
    return {"data_sets": rule}


def _tagged(source: Source, digests: SourceDigests) -> dict[str, Any]:
    rules = {
        key: getattr(source, key)
        for key in ("keep_tags", "drop_tags")
        if getattr(source, key) is not None
    }
    return rules | ({"tags": digests.tags} if source.tags is not None else {})


def _mix(settings: Settings) -> dict[str, Any]:
    mix = settings.data.mix
    assert mix is not None
    return mix.model_dump(mode="json", exclude_none=True)


def _drawn(
    source: Source, reader: str, per_task: int | None, seed: int
) -> dict[str, Any]:
    # Where all examples are taken and none has several answers, nothing is drawn and no
    # seed makes a replicate.
    if per_task is None and not FORMATS[reader].draws_answers:
        return {"sampling": "all"}
    return {
        "sampling": source.sampling,
        **({"seed": seed} if source.sampling == "random" else {}),
    }


def _template(settings: Settings, made: Iterable[Source]) -> dict[str, Any]:
    data = settings.data
    is_niv2 = any("niv2" in (source.set, source.test_set) for source in made)
    return {
        "name": data.template,
        **({"positive_examples": data.positive_examples} if is_niv2 else {}),
    }


def _held_out(source: Source, digests: SourceDigests) -> dict[str, Any]:
    if source.test_path is not None:
        own = {"reader": source.test_set or source.set, "digest": digests.test}
        return {"by": "path", **own, **_read(digests.test_marks)}
    rule = source.held_out or HeldOut()
    return (
        {"by": "list"}
        if rule.by == "list"
        else rule.model_dump(mode="json", exclude_none=True)
    )


def _read(marks: Recipe) -> Recipe:
    # Absent where nothing is read otherwise than before, so that the ids of earlier recipes stay.
    return {"read": dict(marks)} if marks else {}


def _tasks(first: int | None) -> dict[str, int]:
    # Absent where all tasks are meant, as in the recipes made before the setting was.
    return {} if first is None else {"tasks": first}


def _arrangement(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    asked = settings.arrangement
    order = ORDERS[asked.order]
    made: dict[str, Any] = {"order": asked.order}
    if order.is_seeded(asked):
        made["seed"] = _seed(settings, asked.seed)
    made |= order.resolve(asked)
    if order.needs_embedding(asked):
        made["embedding"] = digests.embedding
        # distance.fold; orders made before it were summed from first to last
        made["similarity"] = "folded"
    return made


def _base(settings: Settings, digests: InputDigests, corpus: Recipe) -> dict[str, Any]:
    seed = _seed(settings, settings.train.init_seed)
    added = settings.model.added(seed)
    if added and set(added["tokens"]) <= set(digests.control):
        # all have rows, and no seed draws any
        added = {"tokens": added["tokens"], "init": "kept"}
    more = {"added": added} if added else {}
    if set(digests.control) - set(settings.model.add_tokens or ()):
        more |= READS_TEXT
    if settings.model.name != TINY:
        return {"kind": "folder", "digest": digests.model, **more}
    # The tokenizer learns from every training task whatever is sampled, so that all
    # runs of a grid share it.
    text = _seen(corpus)
    if "sources" in corpus:
        read = {
            name: source
            for name, source in corpus["sources"].items()
            if "self_sample" not in source
        }
        text["sources"] = {name: _seen(source) for name, source in read.items()}
    tokenizer = {"kind": "byte-level BPE", "text": text}
    shape = {**settings.model.shape, "context": max(1024, settings.train.max_length)}
    return {"kind": TINY, **shape, "tokenizer": tokenizer, "seed": seed, **more}


def _seen(corpus: Recipe) -> dict[str, Any]:
    """What of a corpus' recipe decides the texts that a tokenizer learns from."""
    decides = ("reader", "digest", "read", "on_bad_row", "template", "held_out")
    return {key: corpus[key] for key in decides if key in corpus}


def _seed(settings: Settings, own: int | None) -> int:
    return settings.seed if own is None else own
