"""Decides what makes two runs the same: the resolved recipe and the ids derived from it.

A recipe holds every value that can change a run's numbers, defaults written out, so
that a later change of a default can never change what an old id means; and nothing
else: no path, node, profile or metric. Files enter by the digest of their content. Made
once and shared under ids of their own: the corpus (which examples), the base (a tiny
model with its tokenizer, or a model with added tokens) and the arrangement (their
order).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zsg_core.by_object import ByObject
from zsg_core.data.presentation import NATURAL
from zsg_core.data.prompts import ANSWER, CHAT
from zsg_core.data.readers import FORMATS
from zsg_core.digest import content_id
from zsg_core.errors import UserError
from zsg_core.model_scores.registry import SCORE_RULES
from zsg_core.orders import curriculum
from zsg_core.orders.registry import ORDERS
from zsg_core.settings.data import ONE, HeldOut, Source
from zsg_core.settings.makers import MakeSettings
from zsg_core.settings.run import TINY, Settings
from zsg_core.settings.target import TargetSettings
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

MAKE = "make"
MADE = ("self_sample", MAKE)  # keys of a source whose examples a model makes
EMBEDDING = "embedding"  # of MAKE: the model by which meanings are compared
OF_OTHER = "by"  # of MAKE: another model than the one that is trained

# Marks of what an older zsg made otherwise, and what that is. A recipe without its
# marks is the one of then.
MARKS = {
    "warmup": "the rates of its warm-up",
    "read": "how its data are read",
    "added_tokens": "how texts are read that hold its tokenizer's added tokens",
}
# settings of training that decide what of an example a chat template writes
DECIDE_CHAT = ("max_length", "truncate")
# and what decides a score by a model
DECIDE_SCORES = ("precision", *DECIDE_CHAT)
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
class ModelDigests:
    """Of a model in a folder that is asked for data: the digest of its files, and what
    InputDigests has of the run's own."""

    model: str
    control: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()
    chat_template: str | None = None


@dataclass(frozen=True, kw_only=True)
class InputDigests:
    """Digests of what the user supplies, its data by source; None where a run does not use it."""

    sources: Mapping[str, SourceDigests]
    model: str | None = None
    embedding: str | None = None
    # of what the order reads at arrangement.path
    order_input: str | None = None
    # of the models that score for the order, where they are not the run's own
    scorer: str | None = None
    since: str | None = None
    # tokens of the model that an older zsg made of the words of texts
    control: tuple[str, ...] = ()
    # ids at which the model says that an answer is over, beside its tokenizer's EOS
    ends: tuple[int, ...] = ()
    # the tokens between which it thinks: of no recipe, as answers at checkpoints are
    reasoning: tuple[str, str] | None = None
    # of the model's chat template, where the run writes with it
    chat_template: str | None = None
    # of the models in folders that make sources' examples, by the names of these
    asked: Mapping[str, "ModelDigests"] = field(
        default_factory=dict[str, "ModelDigests"]
    )
    # of the models by which makers compare meanings, by the names of the sources
    embedders: Mapping[str, str] = field(default_factory=dict[str, str])
    # of the files of the target set that the order looks at, where it has any
    target: SourceDigests | None = None


def uses_embedding(settings: Settings) -> bool:
    """Whether the order needs a similarity, and so an embedding model."""
    arrangement = settings.arrangement
    return ORDERS[arrangement.order].needs_embedding(arrangement)


def reads_file(settings: Settings) -> bool:
    """Whether the order reads a file of the user's, a list or scores."""
    has_path = settings.arrangement.path is not None
    return ORDERS[settings.arrangement.order].reads is not None and has_path


def make_recipe(settings: Settings, *digests: InputDigests) -> Recipe:
    """The resolved recipe: seeds that do nothing are left out, so that they make no
    false replicates.

    `digests` are those of each stage's inputs, or one where all stages have the same.
    """
    return RecipeMaker().make_recipe(settings.by_stage(), digests)


class RecipeMaker:
    """Makes the recipes of a grid's runs. Parts that runs have in common are made once:
    they are the same objects, which nobody may change."""

    def __init__(self) -> None:
        self._corpora = ByObject[Recipe]()
        self._arrangements = ByObject[Recipe]()
        self._bases = ByObject[Recipe]()

    def make_recipe(
        self, stage_settings: Sequence[Settings], digests: Sequence[InputDigests]
    ) -> Recipe:
        """The same as `make_recipe`, of the settings of each stage."""
        stage_digests = list(digests)
        if len(stage_digests) == 1:
            stage_digests *= len(stage_settings)
        pairs = zip(stage_settings, stage_digests, strict=True)
        stages = [self._make_stage(*pair) for pair in pairs]
        base = self._make_base(stage_settings[0], stage_digests[0], stages[0]["data"])
        for stage in stages:
            stage["data"] = _name_sampling_model(stage["data"], base, stage_digests[0])
        for number, stage in enumerate(stages):
            before = {"schema": SCHEMA, "base": base, "stages": stages[:number]}
            stage["arrangement"] = self._name_scorers(
                stage, stage_digests[number], before
            )
        return {"schema": SCHEMA, "base": base, "stages": stages}

    def _name_scorers(
        self, stage: Recipe, digests: InputDigests, before: Recipe
    ) -> Recipe:
        """The recipe of an order, in which a score by a model says which model that is,
        and how examples are written for it. `before`: the recipe of the base and the
        stages before this one."""
        arrangement, train = stage["arrangement"], stage["train"]
        if "score" not in arrangement:
            return arrangement
        start = run_id(before) if before["stages"] else None
        return self._arrangements.get(
            (arrangement, before["base"], digests),
            (train["precision"], train["max_length"], train.get("truncate"), start),
            lambda: _name_scorers(arrangement, train, digests, before),
        )

    def _make_stage(self, settings: Settings, digests: InputDigests) -> Recipe:
        """What of a stage enters a run's id: its data, their order and the training."""
        return {
            "data": self._make_corpus(settings, digests),
            "arrangement": self._make_arrangement(settings, digests),
            "train": _make_training(settings),
        }

    def _make_corpus(self, settings: Settings, digests: InputDigests) -> Recipe:
        """The recipe of a corpus. Beside `data` the run's seed decides it, and of some
        sources the model and the precision."""
        is_tiny = settings.model.name == TINY
        return self._corpora.get(
            (settings.data, digests),
            (settings.seed, settings.train.precision, is_tiny),
            lambda: _make_corpus(settings, digests),
        )

    def _make_arrangement(self, settings: Settings, digests: InputDigests) -> Recipe:
        """The recipe of an order, which the run's seed may decide, too."""
        return self._arrangements.get(
            (settings.arrangement, digests),
            (settings.seed, _find_clock(settings)),
            lambda: _make_arrangement(settings, digests),
        )

    def _make_base(
        self, settings: Settings, digests: InputDigests, corpus: Recipe
    ) -> Recipe:
        """The recipe of the base: of a tiny model the corpus teaches the tokenizer."""
        seed = _choose_seed(settings, settings.train.init_seed)
        return self._bases.get(
            (settings.model, digests, corpus),
            (seed, settings.train.max_length),
            lambda: _make_base(settings, digests, corpus),
        )


def _name_sampling_model(data: Recipe, base: Recipe, digests: InputDigests) -> Recipe:
    """A corpus' recipe, in which the sources whose answers are a model's own say which
    model that is, the base as it is before tokens are added, and where its answers end;
    so do those that the run's own model makes."""
    if not any(map(_asks_own_model, list_sources(data).values())):
        return data
    answering = remove_added_tokens(base)
    names: Recipe = {"model": id_of_base(answering) or answering["digest"]}
    if digests.control:
        names |= READS_TEXT
    if digests.ends:
        names |= {"ends": list(digests.ends)}
    if "sources" not in data:
        return _with_sampling_model(data, names)
    sources = {
        name: _with_sampling_model(source, names)
        for name, source in data["sources"].items()
    }
    return {**data, "sources": sources}


def _asks_own_model(source: Recipe) -> bool:
    """Whether a source's examples are made by the model that is trained."""
    return "self_sample" in source or (MAKE in source and OF_OTHER not in source[MAKE])


def _with_sampling_model(source: Recipe, names: Mapping[str, Any]) -> Recipe:
    if not _asks_own_model(source):
        return source
    key = MAKE if MAKE in source else "self_sample"
    return {**source, key: {**source[key], **names}}


def _name_scorers(
    arrangement: Recipe, train: Recipe, digests: InputDigests, before: Recipe
) -> Recipe:
    """See RecipeMaker. A model of the user's is known by the digest of its folder; else
    it is the base, or the run of the stages before, whose weights the stage starts
    from. UserError for a score that would compare a model with itself."""
    score = dict(arrangement["score"])
    base = before["base"]
    untrained = {"base": id_of_base(base) or base["digest"]}
    untrained |= {key: base[key] for key in READS_TEXT if key in base}
    start = {"run": run_id(before)} if before["stages"] else untrained
    score["model"] = {"digest": digests.scorer} if digests.scorer else start
    if SCORE_RULES[score["name"]].compares:
        score["since"] = {"digest": digests.since} if digests.since else untrained
        if score["since"] == score["model"]:
            raise UserError(
                f"arrangement.score: {score['name']} compares two models, and here both are one:"
                " set arrangement.scorer to the later one, such as a snapshot's folder, or"
                " arrangement.since to the earlier one"
            )
    score |= {key: train[key] for key in DECIDE_SCORES if key in train}
    return {**arrangement, "score": score}


class RecipeIds:
    """The ids of what runs share. Recipes of one `RecipeMaker` have parts in common, and
    the id of each is computed once."""

    def __init__(self) -> None:
        self._ids = ByObject[str | None]()

    def find_corpus_id(self, recipe: Recipe) -> str:
        """The same as `corpus_id`."""
        data = last_stage(recipe)["data"]
        found = self._ids.get((data,), "corpus", lambda: corpus_id(recipe))
        assert found is not None, "every run has a corpus"
        return found

    def find_arrangement_id(self, recipe: Recipe) -> str:
        """The same as `arrangement_id`."""
        stage = last_stage(recipe)
        parts = stage["data"], stage["arrangement"]
        found = self._ids.get(parts, "arrangement", lambda: arrangement_id(recipe))
        assert found is not None, "every run has an arrangement"
        return found

    def find_chat_trial_id(self, recipe: Recipe) -> str | None:
        """The same as `chat_trial_id`."""
        stage = last_stage(recipe)
        lengths = [stage["train"].get(key) for key in DECIDE_CHAT]
        return self._ids.get(
            (recipe["base"], stage["data"]),
            ("chat trial", *lengths),
            lambda: chat_trial_id(recipe),
        )

    def find_base_id(self, recipe: Recipe) -> str | None:
        """The same as `base_id`."""
        return self._ids.get((recipe["base"],), "base", lambda: base_id(recipe))


def list_prefixes(recipe: Recipe) -> list[Recipe]:
    """The recipe after its first stage, after its second, …; the last is the recipe itself.

    A prefix is a recipe like any other: runs that begin alike share the run that it is
    the recipe of.
    """
    return [
        {**recipe, "stages": recipe["stages"][: count + 1]}
        for count in range(len(recipe["stages"]))
    ]


def last_stage(recipe: Recipe) -> Recipe:
    """The recipe of the stage that a run trains: the last of its stages."""
    return recipe["stages"][-1]


def run_id(recipe: Recipe) -> str:
    """The id of a run: 12 hex digits of its recipe's SHA-256."""
    return content_id({"kind": "run", "recipe": recipe})


def remove_marks(recipe: Any) -> tuple[Any, set[str]]:
    """The recipe as an older zsg would have made it, and which of `MARKS` it does not have."""
    removed: set[str] = set()
    return _without_marks(recipe, removed), removed


def _without_marks(recipe: Any, removed: set[str]) -> Any:
    """The recipe without marks, which it adds to `removed`."""
    if isinstance(recipe, list):
        return [_without_marks(value, removed) for value in recipe]
    if not isinstance(recipe, dict):
        return recipe
    removed.update(recipe.keys() & MARKS.keys())
    return {
        key: _without_marks(value, removed)
        for key, value in recipe.items()
        if key not in MARKS
    }


def remove_seeds(recipe: Any) -> Any:
    """A recipe without the seeds that make replicates: runs that have it in common
    differ in nothing else.

    The seeds of the test set and of which tasks are held out stay: another test set is
    another question.
    """
    if isinstance(recipe, list):
        return [remove_seeds(value) for value in recipe]
    if not isinstance(recipe, dict):
        return recipe
    return {
        key: value if key in ("test", "held_out") else remove_seeds(value)
        for key, value in recipe.items()
        if key != "seed"
    }


def records_id(source: Recipe, skip: bool) -> str:
    """The id of a data set's records, normalised: what reads which files, and whether
    bad rows are passed over.

    `source` has reader and digest, and self_sample or make where a model makes them;
    `read` where they are read otherwise than by earlier versions, `fields` where the
    user says which columns are what.
    """
    rule = {"on_bad_row": "skip"} if skip else {}
    decides = ("reader", "digest", "read", "fields", *MADE)
    content = {key: source[key] for key in decides if key in source}
    return content_id({"kind": "records", "schema": SCHEMA, **content, **rule})


def find_self_sampled(data: Recipe) -> dict[str, str]:
    """The sources of a corpus' recipe whose examples a model makes, each with the id of
    its records."""
    return {
        name: records_id(source, source.get("on_bad_row") == "skip")
        for name, source in list_sources(data).items()
        if is_made(source)
    }


def is_made(source: Recipe) -> bool:
    """Whether a model makes the examples of a source: its own answers, or by a maker."""
    return any(key in source for key in MADE)


def corpus_id(recipe: Recipe) -> str:
    """The id of the last stage's sampled training and test examples."""
    return content_id(
        {"kind": "corpus", "schema": SCHEMA, "data": last_stage(recipe)["data"]}
    )


def arrangement_id(recipe: Recipe) -> str:
    """The id of the last stage's ordered training list: its examples and how they are
    put in order."""
    stage = last_stage(recipe)
    content = {"data": stage["data"], "arrangement": stage["arrangement"]}
    return content_id({"kind": "arrangement", "schema": SCHEMA, **content})


def scores_id(recipe: Recipe) -> str | None:
    """The id of the scores by a model that order the last stage's training list; None
    where none do."""
    stage = last_stage(recipe)
    score = stage["arrangement"].get("score")
    if score is None:
        return None
    content = {"data": stage["data"], "score": score}
    return content_id({"kind": "scores", "schema": SCHEMA, **content})


def chat_trial_id(recipe: Recipe) -> str | None:
    """The id of the trial of the last stage's chat template, whose digest is among the
    data, on its examples; None where no chat template writes them."""
    stage = last_stage(recipe)
    if stage["data"]["template"]["name"] != CHAT:
        return None
    lengths = {key: stage["train"].get(key) for key in DECIDE_CHAT}
    content = {"base": recipe["base"], "data": stage["data"], **lengths}
    return content_id({"kind": "chat trial", "schema": SCHEMA, **content})


def base_id(recipe: Recipe) -> str | None:
    """The id of a base that zsg makes: tiny, or any with added tokens; None for a model
    as the user supplies it."""
    return id_of_base(recipe["base"])


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


def _make_training(settings: Settings) -> Recipe:
    """How a stage is trained."""
    train = settings.train.model_dump(mode="json", exclude={"init_seed", "tuning"})
    train = {
        key: value
        for key, value in train.items()
        if key not in LATER or value != LATER[key]
    }
    train |= _make_targets(settings)
    # the first rate and the rounding; runs made before it warmed up in another way
    if settings.train.warmup_share:
        train["warmup"] = HUGGING_FACE
    train["tuning"] = settings.train.tuning.resolved(
        _choose_seed(settings, settings.train.init_seed)
    )
    return train


def _make_targets(settings: Settings) -> Recipe:
    """Which tokens are learnt: of all sources by one rule, or of some by another.

    Absent where no source says anything, so that recipes of then stay, and in one form
    whichever key says it: `loss_on_of` names the sources of which more than answers
    is learnt, or other than answers.
    """
    sources = settings.data.by_source()
    if all(source.loss_on is None for source in sources.values()):
        return {}
    of_source = {
        name: source.loss_on or settings.train.loss_on
        for name, source in sources.items()
        if source.k != 0
    }
    rules = set(of_source.values())
    if len(rules) == 1:
        return {"loss_on": rules.pop()}
    others = {name: rule for name, rule in of_source.items() if rule != ANSWER}
    return {"loss_on": ANSWER, "loss_on_of": others}


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


def _make_corpus(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    data, sources = settings.data, settings.data.by_source()
    template = _make_template(settings, sources.values(), digests.chat_template)
    shared: dict[str, Any] = {"template": template}
    # What is absent where it does nothing is as it was before the setting came.
    shared |= {} if data.max_turns is None else {"max_turns": data.max_turns}
    shared |= {} if data.mix is None else {"mix": _make_mix(settings)}
    if data.sources is None:
        return _make_source(settings, sources[ONE], digests, ONE) | shared
    return {
        "sources": {
            name: _make_source(settings, source, digests, name)
            for name, source in sources.items()
            if _is_used(settings, source)
        }
    } | shared


def _is_used(settings: Settings, source: Source) -> bool:
    """Whether a source among several is there: it is trained on or tested, or a tiny
    model's tokenizer learns from it, as from every source but its own answers."""
    if source.made_by is not None:
        return source.is_sampled
    return bool(source.k) or is_tested(source) or settings.model.name == TINY


def is_tested(source: Source) -> bool:
    """Whether a source among several says what of it is tested."""
    return source.test_path is not None or source.held_out is not None


def _make_source(
    settings: Settings, source: Source, of_all: InputDigests, name: str
) -> dict[str, Any]:
    digests = of_all.sources[name]
    recipe: dict[str, Any] = {
        "reader": source.set,
        "digest": digests.data,
        **_make_read_marks(digests.marks),
        **_make_fields(source.columns),
    }
    if settings.data.sources is None or is_tested(source):
        recipe["held_out"] = _make_held_out(source, digests)
        recipe["test"] = _make_test(settings, source, digests)
    if source.self_sample is not None:
        recipe["self_sample"] = {
            **source.self_sample.recipe,
            "template": _make_template(settings, [source], of_all.chat_template),
            "precision": settings.train.precision,
        }
    if source.make is not None:
        recipe[MAKE] = _make_making(settings, source, source.make, of_all, name)
    recipe["train"] = _make_train(settings, source, digests)
    return recipe | ({"on_bad_row": "skip"} if source.on_bad_row == "skip" else {})


def _make_making(
    settings: Settings,
    source: Source,
    make: MakeSettings,
    of_all: InputDigests,
    name: str,
) -> dict[str, Any]:
    """How a source's examples are made, and by whom: a server's model by its name, one
    in a folder by its content; the run's own is said later."""
    recipe = make.recipe
    if make.of_maker.embeds:
        recipe[EMBEDDING] = of_all.embedders[name]
    if make.by is not None and make.by.base_url is not None:
        return recipe | {OF_OTHER: {"served": make.by.model}}
    teacher = of_all.asked.get(name)
    recipe["template"] = _make_asked_template(settings, source, make, of_all, teacher)
    recipe["precision"] = settings.train.precision
    if teacher is None:
        return recipe
    return recipe | {OF_OTHER: {"folder": teacher.model}} | _name_teacher(teacher)


def _make_asked_template(
    settings: Settings,
    source: Source,
    make: MakeSettings,
    of_all: InputDigests,
    teacher: ModelDigests | None,
) -> dict[str, Any]:
    """How requests to a model in a folder are written: as the run's examples, or as the
    grid says."""
    chat_template = (teacher or of_all).chat_template
    name = None if make.by is None else make.by.template
    if name is None or name == settings.data.template:
        return _make_template(settings, [source], chat_template)
    return {"name": name, "digest": chat_template} if name == CHAT else {"name": name}


def _name_teacher(teacher: ModelDigests) -> dict[str, Any]:
    """Which model in a folder is asked, and how its texts are read."""
    names: dict[str, Any] = {"model": teacher.model}
    if teacher.control:
        names |= READS_TEXT
    if teacher.ends:
        names["ends"] = list(teacher.ends)
    return names


def _make_test(
    settings: Settings, source: Source, digests: SourceDigests
) -> dict[str, Any]:
    """What of a source is tested."""
    reader = source.test_set or source.set
    seed = settings.data.test_seed
    recipe: dict[str, Any] = {
        "per_task": source.test_per_task,
        **_limit_tasks(source.test_tasks),
        **_make_sampling(source, reader, source.test_per_task, seed),
    }
    if source.wordings:
        wordings = source.wordings.of_test(digests.instructions)
        recipe |= {"instructions": wordings} if wordings else {}
    form = source.test_instructions or NATURAL
    return recipe | _make_form(form, source.test_show_options)


def _make_form(instructions: str, shows_options: bool) -> dict[str, Any]:
    """In which form examples are asked; absent where it is as published."""
    recipe: dict[str, Any] = {}
    if instructions != NATURAL:
        recipe["instruction_form"] = instructions
    if shows_options:
        recipe["options"] = "shown"
    return recipe


def _make_train(
    settings: Settings, source: Source, digests: SourceDigests
) -> dict[str, Any]:
    """What of a source is trained on, without whatever does nothing."""
    if source.k == 0:
        return {"k": "0"}
    seed = _choose_seed(settings, settings.data.sample_seed)
    recipe = {"per_task": source.train_per_task, **_limit_tasks(source.train_tasks)}
    recipe |= _make_sampling(source, source.set, source.train_per_task, seed)
    recipe |= _make_tags(source, digests)
    if source.wordings is not None:
        recipe["instructions"] = source.wordings.of_train(digests.instructions, seed)
    recipe |= _make_form(source.instruction_form, source.show_options)
    if source.invert is not None and source.invert.share:
        recipe["inverted"] = source.invert.make_recipe(seed)
    recipe |= _take_given(source, "templates", "count")
    recipe |= _make_data_sets(settings, source)
    recipe |= _make_amounts(source)
    if source.few_shot is not None and source.few_shot.is_used:
        recipe["few_shot"] = source.few_shot.make_recipe(seed)
    is_part = bool(recipe.keys() & {"templates", "count", "ratio", "k"})
    if source.fraction != 1 or is_part or settings.data.mix:
        # splits.sample_nested; parts made before it were drawn one by one
        recipe |= {"seed": seed, "parts": "nested"}
    return recipe


def _make_amounts(source: Source) -> dict[str, Any]:
    """How much of a source is taken, and how much it weighs in a mix."""
    recipe: dict[str, Any] = {}
    if source.ratio is not None:
        recipe |= {"ratio": str(source.ratio), "ratio_to": source.ratio_to}
    recipe["fraction"] = str(source.fraction)
    if source.k != 1:
        recipe["k"] = str(source.k)
    if source.rate_max is not None:
        recipe["rate_max"] = source.rate_max
    if source.share is not None:
        recipe["share"] = str(source.share)
    return recipe


def _take_given(source: Source, *keys: str) -> dict[str, Any]:
    """The values of these settings of a source, of those that have one."""
    values = {key: getattr(source, key) for key in keys}
    return {key: value for key, value in values.items() if value is not None}


def _make_data_sets(settings: Settings, source: Source) -> dict[str, Any]:
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


def _make_tags(source: Source, digests: SourceDigests) -> dict[str, Any]:
    rules = _take_given(source, "keep_tags", "drop_tags")
    return rules | ({"tags": digests.tags} if source.tags is not None else {})


def _make_mix(settings: Settings) -> dict[str, Any]:
    mix = settings.data.mix
    assert mix is not None
    return mix.model_dump(mode="json", exclude_none=True)


def _make_sampling(
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


def _make_template(
    settings: Settings, sources: Iterable[Source], chat_template: str | None
) -> dict[str, Any]:
    """How examples are written; `chat_template` is the digest of the model's own."""
    data = settings.data
    recipe: dict[str, Any] = {"name": data.template}
    if any("niv2" in (source.set, source.test_set) for source in sources):
        recipe["positive_examples"] = data.positive_examples
    if data.template != CHAT:
        return recipe
    recipe["digest"] = chat_template
    if data.chat_template_kwargs:
        # in pairs: as a mapping a key `seed` would be taken for one of the recipe's own
        recipe["arguments"] = [
            [key, value] for key, value in sorted(data.chat_template_kwargs.items())
        ]
    if data.chat_system != "template":
        recipe["system"] = data.chat_system
    return recipe


def _make_held_out(source: Source, digests: SourceDigests) -> dict[str, Any]:
    if source.test_path is not None:
        reader = source.test_set or source.set
        files = {
            "reader": reader,
            "digest": digests.test,
            **_make_fields(source.test_columns),
        }
        return {"by": "path", **files, **_make_read_marks(digests.test_marks)}
    return (source.held_out or HeldOut()).recipe


def _make_fields(fields: Recipe | None) -> Recipe:
    # Absent of formats that have columns of their own, so that the ids of earlier recipes stay.
    return {} if fields is None else {"fields": fields}


def _make_read_marks(marks: Recipe) -> Recipe:
    # Absent where nothing is read otherwise than before, so that the ids of earlier recipes stay.
    return {"read": dict(marks)} if marks else {}


def _limit_tasks(first: int | list[str] | None) -> dict[str, int | list[str]]:
    # Absent where all tasks are meant, as in the recipes made before the setting was.
    return {} if first is None else {"tasks": first}


def _find_clock(settings: Settings) -> tuple[int, int | None] | None:
    """The batch and the steps by which an order is paced; None where it is not."""
    if settings.arrangement.pacing is None:
        return None
    return settings.train.batch, settings.train.steps


def _make_arrangement(settings: Settings, digests: InputDigests) -> dict[str, Any]:
    arrangement = settings.arrangement
    order = ORDERS[arrangement.order]
    recipe: dict[str, Any] = {"order": arrangement.order}
    if order.is_seeded(arrangement) or curriculum.is_drawn(arrangement):
        recipe["seed"] = _choose_seed(settings, arrangement.seed)
    recipe |= order.resolve(arrangement)
    train = settings.train
    recipe |= curriculum.resolve_curriculum(arrangement, train.batch, train.steps)
    if reads_file(settings):
        recipe["input"] = digests.order_input
    if order.needs_embedding(arrangement):
        recipe["embedding"] = digests.embedding
        # distance.fold_sum; orders made before it were summed from first to last
        recipe["similarity"] = "folded"
    if arrangement.target is not None:
        recipe["target"] = _make_target(settings, arrangement.target, digests)
    return recipe


def _make_target(
    settings: Settings, target: TargetSettings, digests: InputDigests
) -> dict[str, Any]:
    """The recipe of a target set: which of what the data hold out, or what its files
    hold."""
    source = target.find_source(settings.data.by_source())
    if source is None:
        return target.recipe
    assert digests.target is not None, "a target in files has a digest"
    return {
        **target.recipe,
        "reader": source.set,
        "digest": digests.target.data,
        **_make_read_marks(digests.target.marks),
        **_make_fields(source.columns),
    }


def _make_base(
    settings: Settings, digests: InputDigests, corpus: Recipe
) -> dict[str, Any]:
    seed = _choose_seed(settings, settings.train.init_seed)
    tokens = _make_base_tokens(settings, digests, seed)
    if settings.model.name != TINY:
        return {"kind": "folder", "digest": digests.model, **tokens}
    tokenizer = {"kind": "byte-level BPE", "text": _make_tokenizer_text(corpus)}
    shape = {**settings.model.shape, "context": max(1024, settings.train.max_length)}
    return {"kind": TINY, **shape, "tokenizer": tokenizer, "seed": seed, **tokens}


def _make_base_tokens(
    settings: Settings, digests: InputDigests, seed: int
) -> dict[str, Any]:
    """Which tokens are added to the base, and whether others are read as text."""
    added = settings.model.added(seed)
    if added and set(added["tokens"]) <= set(digests.control):
        # all have rows, and no seed draws any
        added = {"tokens": added["tokens"], "init": "kept"}
    recipe = {"added": added} if added else {}
    if set(digests.control) - set(settings.model.add_tokens or ()):
        recipe |= READS_TEXT
    return recipe


def _make_tokenizer_text(corpus: Recipe) -> dict[str, Any]:
    """The texts that tiny's tokenizer learns from: every training task whatever is
    sampled, so that all runs of a grid share it."""
    text = _select_text_keys(corpus)
    if "sources" in corpus:
        text["sources"] = {
            name: _select_text_keys(source)
            for name, source in corpus["sources"].items()
            if not is_made(source)
        }
    return text


def _select_text_keys(corpus: Recipe) -> dict[str, Any]:
    """What of a corpus' recipe decides the texts that a tokenizer learns from."""
    decides = (
        "reader",
        "digest",
        "read",
        "fields",
        "on_bad_row",
        "template",
        "held_out",
    )
    return {key: corpus[key] for key in decides if key in corpus}


def _choose_seed(settings: Settings, seed: int | None) -> int:
    """A seed of its own where one is set, else the run's."""
    return settings.seed if seed is None else seed
