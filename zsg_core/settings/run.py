"""Says every setting of a run: its name, type, default and meaning. Unknown keys are refused.

These models are the schema of a grid file. What of them enters a run's identity is
decided in `recipe`.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)

from zsg_core.data.prompts import ANSWER, PROMPT
from zsg_core.metrics.metrics import LOSS, RANK_ACCURACY
from zsg_core.model_scores.registry import SCORE_RULES
from zsg_core.orders.curriculum import check_curriculum
from zsg_core.orders.measures import MEASURES
from zsg_core.orders.registry import ORDERS, orders_with
from zsg_core.orders.similarity import CHOICES, POLE, UNIFORM
from zsg_core.orders.tma_lists import LISTS
from zsg_core.orders.turns import EVENLY
from zsg_core.registry import strip_digest
from zsg_core.schema_errors import describe_within
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.curriculum import (
    BucketSettings,
    PacingSettings,
    ReplaySettings,
)
from zsg_core.settings.data import (
    OF_THE_TEST,
    OPTION_SETS,
    DataSettings,
    Source,
    SourceName,
)
from zsg_core.settings.fields import (
    Count,
    FolderName,
    Minutes,
    Nodes,
    RanksPerNode,
    Seed,
    Strict,
    TokenText,
    or_of_plugin,
)
from zsg_core.settings.strategy import BY_NAME, StrategySettings
from zsg_core.settings.target import TargetSettings
from zsg_core.settings.train import TrainSettings

TINY = "tiny"
MINILM = "all-MiniLM-L6-v2"


class ModelSettings(Strict):
    """The model a run starts from: a local Hugging Face folder, or `tiny`, made here
    with random weights."""

    name: str = Field(
        default=TINY,
        description=(
            "A name of yours for the model, shown in tables; it needs `model.path`. "
            "`tiny` is a small Llama with random weights, made on the spot, which has no "
            "path."
        ),
        pattern=r"^[\w.-]{1,64}$",
    )
    path: FolderName | None = Field(
        default=None,
        description=(
            "Folder of a decoder in Hugging Face's form (config.json, safetensors, "
            "tokenizer). Every model but tiny needs it. Its content enters the run id, "
            "not where it lies."
        ),
    )
    hidden: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        default=None,
        description="Hidden size of model tiny; a multiple of 2·heads. Null means 128.",
    )
    layers: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Number of decoder layers of model tiny. Null means 4.",
    )
    heads: Count | None = Field(
        default=None,
        description="Number of attention heads of model tiny. Null means 4.",
    )
    vocab: Annotated[int, Field(ge=300, le=10_000_000)] | None = Field(
        default=None,
        description=(
            "Vocabulary size of model tiny, whose tokenizer is trained on the data. Null "
            "means 4096."
        ),
    )
    add_tokens: Annotated[list[TokenText], Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "Texts that become one token each, such as [<sep>] (DELIA); the embedding "
            "grows by a row each. Control tokens that a tokenizer has and does not mark "
            "as special (<think> of some) keep their rows if named here; not named, they "
            "are read as text."
        ),
    )
    token_init: Literal["random", "mean"] | None = Field(
        default=None,
        description=(
            "First embedding rows of `add_tokens`, which it needs: random = drawn from "
            "N(0,1) by train.init_seed, mean = the mean of all existing rows. Null means "
            "random."
        ),
    )

    @model_validator(mode="after")
    def _either_made_or_loaded(self) -> "ModelSettings":
        problem = (
            self._explain_bad_tiny()
            if self.name == TINY
            else self._explain_bad_folder()
        )
        if problem:
            raise ValueError(problem)
        if self.token_init is not None and self.add_tokens is None:
            raise ValueError(
                "`token_init` is for the rows of `add_tokens`, and there are none"
            )
        if len(set(self.add_tokens or ())) != len(self.add_tokens or ()):
            raise ValueError("`add_tokens` has a token twice")
        return self

    def _explain_bad_tiny(self) -> str | None:
        """Why the tiny model cannot be made; None if it can."""
        if self.path is not None:
            return "`tiny` is made by zsg and has no path; give the model another name"
        if self.shape["hidden"] % (2 * self.shape["heads"]):
            return "hidden must be a multiple of 2·heads (rotary positions need an even head size)"
        return None

    def _explain_bad_folder(self) -> str | None:
        """Why no model can be loaded by these settings; None if one can."""
        if self.path is None:
            return (
                f"model {self.name!r} needs `path`, a local Hugging Face folder (or name it"
                " `tiny`)"
            )
        for key in ("hidden", "layers", "heads", "vocab"):
            if getattr(self, key) is not None:
                return f"`{key}` shapes the tiny model only; a model with a path has its own"
        return None

    def added(self, seed: int) -> dict[str, Any] | None:
        """What is added to the model, defaults written out; `seed` draws the rows of
        the embedding."""
        if self.add_tokens is None:
            return None
        init = self.token_init or "random"
        return {
            "tokens": self.add_tokens,
            "init": init,
            **({"seed": seed} if init == "random" else {}),
        }

    @property
    def shape(self) -> dict[str, int]:
        """The tiny model's sizes with their defaults: at least a million parameters."""
        return {
            "hidden": self.hidden or 128,
            "layers": self.layers or 4,
            "heads": self.heads or 4,
            "vocab": self.vocab or 4096,
        }


class WeightSettings(Strict):
    """The weights of measure wsd, in place of the paper's 1 and mean MD / mean AD."""

    min: FiniteFloat = Field(
        default=1.0,
        description="Weight of the distance to the nearest test item (the paper's is 1).",
    )
    avg: FiniteFloat | Literal["mean"] = Field(
        default="mean",
        description=(
            "Weight of the average distance to the test items. mean = the paper's, which "
            "is the mean nearest distance divided by the mean average distance."
        ),
    )

    @model_validator(mode="after")
    def _some_weight(self) -> "WeightSettings":
        if self.min == 0 and self.avg in (0, "mean"):
            raise ValueError(
                "with min 0 the order is that of the average alone; say measure: cosine_avg"
            )
        return self


OrderName = Annotated[
    Literal[tuple(ORDERS)],  # type: ignore[valid-type]
    or_of_plugin(ORDERS),
]
ScoreName = Annotated[
    Literal[tuple(SCORE_RULES)],  # type: ignore[valid-type]
    or_of_plugin(SCORE_RULES),
]


class ArrangementSettings(Strict):
    """The order of the training data."""

    order: OrderName = Field(  # type: ignore[valid-type]
        default="random",
        description=(
            "In which order training examples are seen. "
            + "; ".join(f"{name}: {order.about}" for name, order in ORDERS.items())
            + "."
        ),
    )
    seed: Seed | None = Field(
        default=None,
        description=(
            "Seed of the orders random, blocks and rt, of list random of tma, of shape "
            "segment, shuffled `tasks`, `jitter`, `noise`, `pacing` and `buckets`. Null means "
            "the top `seed`."
        ),
    )
    tasks: Literal["listed", "shuffled"] | None = Field(
        default=None,
        description=(
            "Orders cluster and round_robin only: in which order the tasks (of data in "
            "categories, the categories) follow one another. listed = as the data list "
            "them; shuffled = drawn by `seed`, for replicates. Null means listed."
        ),
    )
    block: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description=(
            "Order blocks only, which needs it: how many examples of one task stand "
            "together. With train.batch, every step has one task; with a part of it, a "
            "step has several."
        ),
    )
    measure: Literal[MEASURES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Orders nft, rt and fft only: the distance to the test set by which examples "
            "are sorted; smaller is nearer. Null means wsd, the paper's weighted "
            "similarity distance."
        ),
    )
    weights: WeightSettings | None = Field(
        default=None,
        description=(
            "Measure wsd only: the weights of its two distances, such as {min: 1, avg: "
            "0}. Null means the paper's."
        ),
    )
    granularity: Literal["fine", "coarse"] | None = Field(
        default=None,
        description=(
            "Orders nft, rt and fft only: fine = sort examples, coarse = sort whole "
            "tasks, which excludes `choose`. Null means fine."
        ),
    )
    choose: Literal[CHOICES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Orders nft, rt and fft only: which examples of each task are used. all, "
            "polar = the 10 nearest and the 10 farthest, uniform = 20 at equal distances "
            "in the sorted task. Null means all."
        ),
    )
    list: Literal[LISTS] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Order tma only: which of its lists is used. min = nearest rounds; max = "
            "farthest rounds; min-max = the nearest to half the cap, then the farthest "
            "backwards; max-min = the other way round; random = min-max shuffled. All but "
            "min and max need `cap`. Null means min."
        ),
    )
    cap: Count | None = Field(
        default=None,
        description=(
            "Order tma only: stop after the round that reaches this many examples, as the "
            "published code does. It excludes `rounds`. Null means all."
        ),
    )
    rounds: str | None = Field(
        default=None,
        description=(
            'Order tma only: use only these rounds of list min or max, such as "0:5" for '
            "the first five. It excludes `cap`. Null means all."
        ),
    )
    path: FolderName | None = Field(
        default=None,
        description=(
            "Orders file, which needs it, and scores: the file that lists the training "
            "examples in their order, or gives each a score. A list is a text file with an "
            "entry a line, .jsonl with a key `id` (or bare values), .parquet with a column "
            "`id`, or .npy. Scores are .jsonl or .parquet with `id` and `score`, lines of "
            "an id, a tab and a score, or .npy with one of each place. FILE#KEY names "
            "another key or column; .gz is unpacked. The digest of what the file says "
            "enters the run id."
        ),
    )
    score: ScoreName | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Order scores only, in place of `path`: what a model scores examples by, in a "
            "job of its own before the order is made. "
            + "; ".join(f"{name}: {rule.about}" for name, rule in SCORE_RULES.items())
            + "."
        ),
    )
    scorer: FolderName | None = Field(
        default=None,
        description=(
            "Goes with `score`: folder of the model that scores, such as a kept snapshot "
            "or a small model. Its content enters the run id. Null means the weights that "
            "the stage starts from: the run's model, or what the stages before have made "
            "of it."
        ),
    )
    since: FolderName | None = Field(
        default=None,
        description=(
            "Score progress only: folder of the earlier of its two models. Its content "
            "enters the run id. Null means the run's model as it is before training."
        ),
    )
    entries: Literal["ids", "places"] | None = Field(
        default=None,
        description=(
            "Order file only: what the file lists. ids = ids of examples, as zsg arrange "
            "show tells them, or as the data's own rows have them; places = whole numbers "
            "from 0, in order cluster. Null means ids, and places for whole numbers in "
            ".npy."
        ),
    )
    rest: Literal["refuse", "drop"] | None = Field(
        default=None,
        description=(
            "Orders file and scores only: what of training examples that the file does "
            "not name. refuse = refuse such a file, drop = train on the named ones alone. "
            "Null means refuse."
        ),
    )
    repeats: Literal["refuse", "keep"] | None = Field(
        default=None,
        description=(
            "Order file only: what of an example that the file lists several times. refuse "
            "= refuse such a file, keep = train on it so often. Null means refuse."
        ),
    )
    shape: Literal["sort", "fold", "zigzag", "stair", "saw", "segment"] | None = Field(
        default=None,
        description=(
            "Orders scores, nft, fft and tma (list min or max) only: what is made of the "
            "sorted list. sort = nothing; fold = "
            "each `layers`-th example, layer after layer; zigzag = fold, with every second "
            "layer backwards; stair, saw = sorted `bands` with a fold or a zigzag where "
            "they meet; segment = a `front` and a `back` of some scores, shuffled. Null "
            "means sort."
        ),
    )
    direction: Literal["ascending", "descending"] | None = Field(
        default=None,
        description=(
            "Order scores only: whether low or high scores come first. Null means ascending."
        ),
    )
    layers: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description=(
            "Shapes fold, zigzag, stair and saw only: how many layers. Null means the "
            "published 5, 5, 3 and 2."
        ),
    )
    bands: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Shapes stair and saw only: how many bands. Null means the published 2 and 3.",
    )
    overlap: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = Field(
        default=None,
        description=(
            "Shapes stair and saw only: the share of all examples, on either side of a "
            "border between bands, that is shaped. Null means the published 0.225 and "
            "0.075."
        ),
    )
    front: Annotated[FiniteFloat, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="Shape segment only: percent of the examples in front. Null means 10.",
    )
    back: Annotated[FiniteFloat, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="Shape segment only: percent of the examples at the end. Null means 10.",
    )
    front_of: Literal["low", "high"] | None = Field(
        default=None,
        description="Shape segment only: of which scores the front is. Null means low.",
    )
    back_of: Literal["low", "high"] | None = Field(
        default=None,
        description="Shape segment only: of which scores the back is. Null means high.",
    )
    jitter: Annotated[int, Field(ge=2, le=100_000_000)] | None = Field(
        default=None,
        description=(
            "Orders scores, nft, fft and tma only: shuffle each window of so many examples, "
            "after all else. Within a batch (train.batch) it changes nothing. Null means none."
        ),
    )
    noise: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        default=None,
        description=(
            "Shape sort only: add so much Gumbel noise to the ranks. Null means none."
        ),
    )
    pacing: PacingSettings | None = Field(
        default=None,
        description=(
            "Under every order: a step sees only the first part of the ordered list, which "
            "grows, and draws its batch from it, such as {curve: root, draw: once}. The same "
            "pacing of order random is its control. Null means all, in the order."
        ),
    )
    buckets: BucketSettings | None = Field(
        default=None,
        description=(
            "Under every order: the ordered list in equal buckets, shuffled, one after the "
            "other, such as {number: 4, style: baby_steps}. Null means none."
        ),
    )
    turns: (
        Literal[EVENLY]  # type: ignore[valid-type]
        | Annotated[dict[SourceName, Count], Field(min_length=1)]
        | None
    ) = Field(
        default=None,
        description=(
            "Under every order, of several data.sources: so many examples of each in turn, "
            "such as {task: 1, diverse: 4}, each source's in the order; evenly = each "
            "source at equal distances over the whole list. Null means as `order` has them."
        ),
    )
    replay: ReplaySettings | None = Field(
        default=None,
        description=(
            "Under every order, of several data.sources: one of them comes again and again "
            "between the others, such as {source: general, every: 4}. Null means none."
        ),
    )
    target: TargetSettings | None = Field(
        default=None,
        description=(
            "Orders nft, rt, fft and tma only: what they measure similarity to in place of "
            "the test set, such as {by: items} or {path: dev.jsonl}. No test item then "
            "decides the order. Null means the test set itself."
        ),
    )
    embedding: FolderName = Field(
        default=MINILM,
        description=(
            "Folder of the sentence-transformers model that orders nft, rt, fft and tma "
            "compare texts by; the default name ships with zsg. Its content enters the "
            "run id, where the order needs it."
        ),
    )

    @model_validator(mode="after")
    def _only_what_counts(self) -> "ArrangementSettings":
        for name in type(self).model_fields:
            orders = orders_with(name)
            if not orders or self.order in orders or getattr(self, name) is None:
                continue
            raise ValueError(
                f"`{name}` does nothing under order {strip_digest(self.order)}, only under"
                f" {_listed(orders)}; take it out, or give that order a block of its own in"
                " `grid`"
            )
        ORDERS[self.order].check(self)
        check_curriculum(self)
        return self


def _refuse_unknown_source(key: str, names: list[str], data: DataSettings) -> None:
    """ValueError where a name is that of no source of the data."""
    sources = list(data.by_source())
    for name in names:
        if name not in sources:
            raise ValueError(
                f"{key}: there is no source {name!r} in data.sources; there are {_listed(sources)}"
            )


def _refuse_unnamed_sources(
    key: str, named: Collection[str], trained: Sequence[str]
) -> None:
    """ValueError where a key does not name a source that is trained on."""
    unnamed = [name for name in trained if name not in named]
    if unnamed:
        raise ValueError(
            f"{key} does not name {_listed(unnamed)}; name each source that is trained on"
        )


def _listed(names: list[str]) -> str:
    """Names as a sentence has them: a, b and c."""
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


if not TYPE_CHECKING:
    # orders may bring settings of their own
    _PARAMETERS = {
        key: field
        for order in ORDERS.values()
        for key, field in order.parameters.items()
    }
    if _PARAMETERS:
        ArrangementSettings = create_model(
            "ArrangementSettings",
            __base__=ArrangementSettings,
            __doc__=ArrangementSettings.__doc__,
            **_PARAMETERS,
        )


class ResourceSettings(Strict):
    """What a train job asks for, where it differs from the profile; not part of a run's
    identity."""

    nodes: Nodes | None = Field(
        default=None,
        description="Number of nodes per run. Null means the profile's train.nodes.",
    )
    ranks_per_node: RanksPerNode | None = Field(
        default=None,
        description=(
            "Number of processes on each node, one per GPU. Null means the profile's "
            "train.ranks_per_node."
        ),
    )
    time_min: Minutes | None = Field(
        default=None,
        description=(
            "Time limit of a train job, in minutes. Null means the profile's "
            "train.time_min."
        ),
    )
    evaluators: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1,
        description=(
            "How many evaluate jobs work beside an array of runs, where "
            "checkpoints.metrics asks for more than the loss. One more always takes what "
            "is left once the runs have ended."
        ),
    )


MOST_STAGES = 100
_STAGE = {"of": "a stage"}  # what is validated, if not a run
_NO_START = (
    "train.tuning.start says where a stage starts after one with LoRA, and no stage here comes"
    " after one; take it out"
)
# which a stage's preset could change
_ONE_LENGTH = ("max_length", "truncate", "truncated_answers")
_OF_THE_RUN = frozenset({"init_seed", "test_seed", *_ONE_LENGTH})


def _list_strategies(schema: dict[str, Any]) -> None:
    """A schema says which names a strategy may be given by."""
    schema["anyOf"].append({"enum": list(BY_NAME)})


class Settings(Strict):
    """Everything that can be said of one run."""

    seed: Seed = Field(
        default=0,
        description=(
            "The seed of a replicate: default of data.sample_seed, arrangement.seed and "
            "train.init_seed. It never changes the test set."
        ),
    )
    model: ModelSettings = ModelSettings()
    data: DataSettings
    arrangement: ArrangementSettings = ArrangementSettings()
    train: TrainSettings = TrainSettings()
    stages: Annotated[list[dict[str, dict[str, Any]]], Field(min_length=1)] | None = (
        Field(
            default=None,
            description=(
                "Fine-tuning passes, one after the other, each a mapping of what differs in "
                "it: [{train: {lr: 1e-5}}, {train: {lr: 1e-6}}]. A stage may set keys of "
                "data, arrangement and train, but never the test set. It excludes `strategy`."
            ),
        )
    )
    strategy: StrategySettings | None = Field(
        default=None,
        description=(
            "How `data.sources` follow one another, as stages that zsg makes: multitask, "
            "sequential, mixed, or {name: dmt, k: 1/256}. It excludes `stages`."
        ),
        json_schema_extra=_list_strategies,
    )
    checkpoints: CheckpointSettings = CheckpointSettings()
    resources: ResourceSettings = ResourceSettings()

    @model_validator(mode="after")
    def _something_to_choose_from(self) -> "Settings":
        fewest = {"polar": 2 * POLE + 1, "uniform": 2 * UNIFORM}.get(
            self.arrangement.choose or "all"
        )
        if fewest is None:
            return self
        for source in self.data.by_source().values():
            per_task = source.train_per_task
            if per_task is not None and per_task < fewest:
                raise ValueError(
                    f"arrangement.choose: {self.arrangement.choose} takes everything of a task of"
                    f" {per_task}; give data.train_per_task {fewest} or more, or null for all"
                )
        return self

    @model_validator(mode="after")
    def _one_mean_over_answers(self) -> "Settings":
        """Refuses a source of which other tokens are learnt, where losses are scaled."""
        if self.train.task_scale == "none":
            return self
        for name, source in self.data.by_source().items():
            if source.loss_on not in (None, ANSWER):
                key = f"data.sources.{name}.loss_on" if name else "data.loss_on"
                raise ValueError(
                    f"{key}: {source.loss_on} and train.task_scale exclude each other: it makes one"
                    " mean over the answers of a step"
                )
        return self

    @model_validator(mode="after")
    def _items_to_look_at(self) -> "Settings":
        """Refuses a target set for which the data leave nothing."""
        if self.arrangement.target is not None:
            self.arrangement.target.check_data(self.data.by_source())
        return self

    @model_validator(mode="after")
    def _sources_to_take_turns(self) -> "Settings":
        """Refuses turns and replays of sources that the data do not have."""
        turns, replay = self.arrangement.turns, self.arrangement.replay
        if turns is None and replay is None:
            return self
        key = "arrangement.replay" if turns is None else "arrangement.turns"
        trained = [name for name, source in self.data.by_source().items() if source.k]
        if self.data.sources is None or len(trained) < 2:
            raise ValueError(
                f"{key} is of several sources, and there is one to train on; give"
                " data.sources, or take it out"
            )
        if replay is not None:
            _refuse_unknown_source(key, [replay.source], self.data)
        if isinstance(turns, dict):
            _refuse_unknown_source(key, list(turns), self.data)
            _refuse_unnamed_sources(key, turns, trained)
        return self

    @model_validator(mode="after")
    def _sources_to_tell_apart(self) -> "Settings":
        representations = self.checkpoints.representations
        if representations is None or representations.by != "source":
            return self
        tested = [
            source
            for source in self.data.by_source().values()
            if source.test_path or source.held_out
        ]
        if self.data.sources is None or len(tested) < 2:
            raise ValueError(
                "checkpoints.representations.by: source tells sources apart, and fewer than two of"
                " data.sources are tested; say by: task, or give sources a test_path or held_out"
            )
        return self

    @model_validator(mode="after")
    def _options_to_choose_from(self) -> "Settings":
        of_options = list(map(strip_digest, self.checkpoints.choice_metrics))
        if RANK_ACCURACY in self.checkpoints.metrics:
            of_options.insert(0, RANK_ACCURACY)
        if not of_options:
            return self
        sources = self.data.by_source().values()
        tested = [
            source for source in sources if source.test_path or source.held_out
        ] or sources
        formats = dict.fromkeys(source.test_set or source.set for source in tested)
        if not set(OPTION_SETS).intersection(formats):
            raise ValueError(
                f"checkpoints.metrics: {', '.join(of_options)} chooses among the answers that a"
                f" test item was published with, and none are in data of format"
                f" {', '.join(formats)}; it needs test data of {' or '.join(OPTION_SETS)}"
            )
        return self

    @model_validator(mode="after")
    def _texts_have_no_answers(self) -> "Settings":
        others = [key for key in self.checkpoints.metrics if key != LOSS]
        if not others:
            return self
        for source in self.data.by_source().values():
            fields = source.test_columns or {}
            is_tested = bool(source.test_path or source.held_out)
            if "text" in fields and is_tested:
                raise ValueError(
                    f"checkpoints.metrics: {others[0]} scores answers, and a raw text (fields.text)"
                    " asks for none; test other data, or take the loss alone"
                )
        return self

    @model_validator(mode="after")
    def _texts_have_no_prompts(self) -> "Settings":
        for source in self.data.by_source().values():
            fields = source.columns or {}
            learnt = source.loss_on or self.train.loss_on
            if "text" in fields and learnt == PROMPT and source.k:
                raise ValueError(
                    "train.loss_on: prompt learns questions, and a raw text (fields.text) has"
                    " none; give its source loss_on: answer or all, which both learn the text"
                )
        return self

    @model_validator(mode="after")
    def _stages_can_be_resolved(self, info: ValidationInfo) -> "Settings":
        stages = self.by_stage()
        # a stage's own settings are validated before those of the run that it is of
        is_stage = info.context == _STAGE
        if len(stages) == 1 and not is_stage and self.train.tuning.start is not None:
            raise ValueError(_NO_START)
        return self

    def by_stage(self) -> list["Settings"]:
        """The settings of each stage: the run's own, with the stage's laid over them.

        A stage may change data, arrangement and train, but not the test set: a curve
        over stages must be of one.
        """
        overlays = self._overlays()
        if overlays is None:
            return [self]
        if len(overlays) > MOST_STAGES:
            raise ValueError(
                f"a run has at most {MOST_STAGES} stages; these would be {len(overlays):,}"
            )
        run = self.model_dump(exclude={"stages", "strategy"}, exclude_unset=True)
        stages = [
            _lay_over(run, overlay, f"stages[{number}]")
            for number, overlay in enumerate(overlays)
        ]
        for number, stage in enumerate(stages[1:], start=1):
            _check_same_test_set(number, stage, stages[0])
            _check_same_length(number, stage, stages[0])
        return _settle_starts(stages)

    def _overlays(self) -> list[dict[str, dict[str, Any]]] | None:
        if self.strategy is None:
            return self.stages
        if self.stages is not None:
            raise ValueError(
                "`stages` and `strategy` both say what the stages are; give one of them"
            )
        return self.strategy.stages(self.data.by_source())


def _settle_starts(stages: list[Settings]) -> list[Settings]:
    """The stages, without `train.tuning.start` where no stage with LoRA goes before.

    ValueError where it does nothing in any stage, and where a stage can neither train
    the adapters of the stage before on nor is told to merge them.
    """
    settled = stages[:1]
    for number, stage in enumerate(stages[1:], start=1):
        before, tuning = stages[number - 1].train.tuning, stage.train.tuning
        if before.method != "lora":
            settled.append(_without_start(stage))
            continue
        settled.append(stage)
        if tuning.start != "merge" and not tuning.is_trained_on(before):
            raise ValueError(
                f"stages[{number}]: the stage before trains LoRA's adapters, and this one has"
                " another train.tuning (method, r, alpha, targets or rslora); give both the same,"
                " to train these adapters on, or this one train.tuning.start: merge"
            )
    starts = {stage.train.tuning.start for stage in stages}
    if starts != {None} and all(s.train.tuning.start is None for s in settled[1:]):
        raise ValueError(_NO_START)
    return [_without_start(settled[0]), *settled[1:]]


def _without_start(stage: Settings) -> Settings:
    if stage.train.tuning.start is None:
        return stage
    tuning = stage.train.tuning.model_copy(update={"start": None})
    train = stage.train.model_copy(update={"tuning": tuning})
    return stage.model_copy(update={"train": train})


def _check_same_test_set(number: int, stage: Settings, first: Settings) -> None:
    """ValueError where a stage would change the test set."""
    of_first = _collect_test_settings(first)
    for key, value in _collect_test_settings(stage).items():
        if value != of_first.get(key):
            raise ValueError(
                f"stages[{number}]: data.{key} would be {value!r} and in the first stage"
                f" {of_first.get(key)!r}, so the test set would change; give the run data.{key},"
                " for all stages"
            )


def _check_same_length(number: int, stage: Settings, first: Settings) -> None:
    """ValueError where a stage would cut examples in another way."""
    for key in _ONE_LENGTH:
        of_first, of_stage = getattr(first.train, key), getattr(stage.train, key)
        if of_first != of_stage:
            raise ValueError(
                f"stages[{number}]: preset {stage.train.preset} would make train.{key}"
                f" {of_stage!r}, and in the first stage it is {of_first!r}; give the run"
                f" train.{key}, for all stages"
            )


def _collect_test_settings(settings: Settings) -> dict[str, Any]:
    """Whatever decides the test set, by the names of the settings."""
    data = settings.data
    values = {
        key: getattr(data, key)
        for key in (
            "template",
            "chat_template_kwargs",
            "chat_system",
            "positive_examples",
            "max_turns",
        )
    }
    for name, source in data.by_source().items():
        values |= {
            f"sources.{name}.{key}" if name else key: value
            for key, value in _collect_test_of_source(source).items()
        }
    return values


def _collect_test_of_source(source: Source) -> dict[str, Any]:
    """Whatever decides what of a source is tested."""
    values = {key: getattr(source, key) for key in OF_THE_TEST}
    values["test_set"] = source.test_set or source.set
    if not source.test_path:
        values |= {"path": source.path, "on_bad_row": source.on_bad_row}
    values["fields"] = source.test_columns
    wordings = source.wordings
    if wordings and not wordings.replaces:
        values["instructions"] = (wordings.path, wordings.place)
    return values


def _lay_over(
    run: dict[str, Any], overlay: dict[str, dict[str, Any]], stage: str
) -> Settings:
    """The run's settings with a stage's laid over them; `stage` is what messages call it."""
    merged = dict(run)
    for section, values in overlay.items():
        if section not in ("data", "arrangement", "train"):
            raise ValueError(
                f"{stage}: unknown key {section!r}; a stage may say data, arrangement and train"
            )
        fixed = sorted(
            (_OF_THE_RUN | {"held_out", *OF_THE_TEST}) & values.keys() - {"sampling"}
        )
        if fixed:
            raise ValueError(
                f"{stage}.{section}.{fixed[0]}: is the same for all stages of a run; set it outside"
                " `stages`"
            )
        brings_data = section == "data" and {"set", "path"} & values.keys()
        if brings_data and "test_path" not in run["data"]:
            raise ValueError(
                f"{stage}.data: other data would bring another test set; give the run a"
                " data.test_path"
            )
        merged[section] = _merge(merged.get(section, {}), values)
    try:
        return Settings.model_validate(merged, context=_STAGE)
    except ValidationError as error:
        raise ValueError(describe_within(stage, error, Settings)) from None


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them; of data, source by source."""
    merged = old | {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in new.items()
    }
    old_sources, new_sources = old.get("sources"), new.get("sources")
    if isinstance(new_sources, dict) and isinstance(old_sources, dict):
        merged["sources"] = old_sources | {
            name: old_sources.get(name, {}) | values
            for name, values in new_sources.items()
            if isinstance(values, dict)
        }
    return merged
