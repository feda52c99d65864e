"""Says every setting of checkpoints: when metrics are taken, how answers are made,
which weights are kept.

Metrics other than the loss are taken by evaluators from snapshots, beside training or
later: most are of answers that they generate, some of what they find inside the model.
The generation preset `paper` is that of Dynamics of Zero-Shot Generalization as its
code does it: 120 test items, nucleus sampling at top-p 0.9 and temperature 0.9, a
penalty of 1.2 on tokens that were generated before, no empty answer, 128 new tokens.
There each process drew anew; here an item's draws have a seed of their own, the same at
every checkpoint.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_serializer,
    model_validator,
)

from zsg_core.metrics import metrics as all_metrics
from zsg_core.metrics.keys import ANSWERS, HARNESS
from zsg_core.metrics.metrics import RANK_ACCURACY
from zsg_core.metrics.pairs import WIN_RATE
from zsg_core.metrics.rank_classification import (
    CHOSEN_BY,
    SUM,
    define_key,
    name_key,
)
from zsg_core.metrics.registry import METRICS, PLUGIN
from zsg_core.metrics.rouge import ENGLISH, TYPES
from zsg_core.metrics.translation import BLEU
from zsg_core.registry import find_digest, strip_digest
from zsg_core.settings.fields import (
    Count,
    FolderName,
    Positive,
    Seed,
    Strict,
    TokenText,
    or_of_plugin,
)
from zsg_core.settings.gradients import GRADIENT_RATIO, GradientSettings
from zsg_core.settings.lm_eval import TASK_PATTERN, LmEvalSettings, find_task
from zsg_core.settings.representations import (
    DISTANCE,
    SILHOUETTE,
    RepresentationSettings,
    TokenDistanceSettings,
    Ways,
)
from zsg_core.settings.suites import SuiteSettings, WayName
from zsg_core.settings.text_scores import (
    BleuSettings,
    RougeSettings,
    define_text_scores,
)
from zsg_core.training import schedule


def check_stride(value: Any) -> Any:
    """A stride, the steps themselves, or spans with a stride each; see
    `schedule.list_checkpoint_steps`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if (
        isinstance(value, list | tuple)
        and value
        and all(type(step) is int and step >= 1 for step in value)
    ):
        return tuple(sorted(set(value)))
    if isinstance(value, str):
        schedule.parse_spans(value)
        return value
    raise ValueError(
        "must be steps between checkpoints such as 10, a list of steps, or spans such as '1-50:1,"
        " 50-:10'"
    )


def _stride_or_none(value: Any) -> Any:
    return None if value is None else check_stride(value)


_STRIDES: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 1},
    {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1}},
    {"type": "string", "pattern": r"^\s*\d+-\d*:\d+\s*(,\s*\d+-\d*:\d+\s*)*$"},
]
CheckpointSteps = Annotated[
    Any, BeforeValidator(check_stride), WithJsonSchema({"anyOf": _STRIDES})
]
SnapshotSteps = Annotated[
    Any,
    BeforeValidator(_stride_or_none),
    WithJsonSchema({"anyOf": [*_STRIDES, {"type": "null"}]}),
]


def _check_metric(value: Any, check_known: ValidatorFunctionWrapHandler) -> Any:
    """A metric of zsg's own, or the name of a task of lm-evaluation-harness."""
    if isinstance(value, str) and find_task(value) is not None:
        return value
    return check_known(value)


_METRICS: list[dict[str, Any]] = [
    {"enum": list(all_metrics.NAMES)},
    {"type": "string", "pattern": TASK_PATTERN},
]
MetricName = Annotated[
    Literal[all_metrics.NAMES],  # type: ignore[valid-type]
    or_of_plugin(METRICS),
    WrapValidator(_check_metric),
    WithJsonSchema({"anyOf": _METRICS}),
]


class QuickSettings(Strict):
    """A small part of the test set that is measured at every checkpoint, where the
    whole would cost too much."""

    items: Count = Field(
        description=(
            "How many test items are measured at every checkpoint, each task having its "
            "share. They are drawn by data.test_seed, so all runs on the data share them. "
            "Their loss is metric loss_quick_<items>."
        )
    )
    full_every: CheckpointSteps = Field(
        default=100,
        description=(
            "At which steps the whole test set is measured: a stride, steps or spans as "
            "in `checkpoints.every`. Step 0 and the last step always count."
        ),
    )


class KeepRule(Strict):
    """Which snapshots stay: each that one of these names."""

    first: Count | None = Field(
        default=None, description="Keep this many of the first snapshots."
    )
    last: Count | None = Field(
        default=None, description="Keep this many of the newest snapshots."
    )
    best: Count | None = Field(
        default=None, description="Keep this many snapshots of the lowest loss."
    )
    every: Count | None = Field(
        default=None, description="Keep snapshots of steps that are multiples of this."
    )

    @model_validator(mode="after")
    def _something_stays(self) -> "KeepRule":
        if not any((self.first, self.last, self.best, self.every)):
            raise ValueError(
                "keeps nothing; give first, last, best or every, or take `snapshots` out"
            )
        return self


Marks = Annotated[list[TokenText], Field(min_length=2, max_length=2)]
KEEP_WORDS: dict[str, dict[str, int] | None] = {"all": None, "last": {"last": 1}}


def _keep_rule(value: Any) -> Any:
    """The rule that a word stands for, or what was given."""
    if isinstance(value, str) and value not in KEEP_WORDS:
        raise ValueError(
            "must be all, last, or a rule such as {last: 2, best: 1, every: 100}"
        )
    return KEEP_WORDS[value] if isinstance(value, str) else value


class _Words:
    """Tells the JSON Schema of the words; as a part of the type they would spoil the
    messages about the rule."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(KEEP_WORDS)}, *handler(core)["anyOf"]]}


Keep = Annotated[KeepRule | None, BeforeValidator(_keep_rule), _Words()]


class GenerationSettings(Strict):
    """How answers to test items are generated, from which metrics other than the loss
    are taken."""

    preset: Literal["greedy", "paper"] = Field(
        default="greedy",
        description=(
            "How the answers to test items are generated. greedy: the most likely token "
            "each time; paper: nucleus sampling as published (top-p 0.9, temperature 0.9, "
            "repetition penalty 1.2, no empty answer)."
        ),
    )
    max_new_tokens: Count = Field(
        default=128, description="Longest answer, in tokens; a longer one is cut there."
    )
    items: Count | None = Field(
        default=None,
        description=(
            "How many test items are answered, each task having its share, the same at "
            "every checkpoint. Null means all, or 120 in preset paper."
        ),
    )
    seed: Seed = Field(
        default=0,
        description="Preset paper only: seed of the draws; each item has a stream of its own.",
    )
    name: WayName | None = Field(
        default=None,
        description=(
            "A name of yours that the metrics' keys carry, `rouge1/NAME`. Needed to keep "
            "values of two ways of answering side by side."
        ),
    )

    @property
    def how(self) -> dict[str, Any]:
        """All that decides the answers. A key of metrics is of one way of answering only."""
        if self.preset == "greedy":
            return {
                "decoding": "greedy",
                "max_new_tokens": self.max_new_tokens,
                "items": self.items,
            }
        sampled = {
            "decoding": "nucleus",
            "top_p": 0.9,
            "temperature": 0.9,
            "repetition_penalty": 1.2,
            "not_empty": True,
        }
        return {
            **sampled,
            "max_new_tokens": self.max_new_tokens,
            "items": self.items or 120,
            "seed": self.seed,
        }


class RankSettings(Strict):
    """How the metric rank_accuracy is taken."""

    by: Annotated[list[Literal["sum", "token", "byte"]], Field(min_length=1)] = Field(
        default=[SUM],
        description=(
            "By what an option is chosen: the least loss, summed over its tokens (T0's "
            "rule), per token, or per byte of its text. Each is a key of its own: "
            "`rank_accuracy`, `rank_accuracy/token`, `rank_accuracy/byte`."
        ),
    )
    name: WayName | None = Field(
        default=None,
        description="A name of yours that the metric's keys carry, `rank_accuracy/NAME`.",
    )

    @model_serializer(mode="wrap")
    def _leave_default_out(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """A job by the sum alone is written as before there were other rules."""
        written = serialize(self)
        if written.get("by") == [SUM]:
            del written["by"]
        return written

    @field_validator("name")
    @classmethod
    def _no_rule(cls, name: str | None) -> str | None:
        if name in CHOSEN_BY:
            raise ValueError(
                f"{name!r} is a rule of `by`, and keys carry it already; give another name"
            )
        return name


class CheckpointSettings(Strict):
    """When metrics are taken, which weights are kept, when a run is saved; not part of
    a run's identity."""

    every: CheckpointSteps = Field(
        default=10,
        description=(
            "At which steps metrics are taken: a stride such as 10, a list of steps [1, "
            "2, 5], or spans `1-50:1, 50-500:10, 500-:50`. Step 0 and the last step "
            "always count."
        ),
    )
    quick: QuickSettings | None = Field(
        default=None,
        description=(
            "Measure only some test items at every checkpoint, and all of them now and "
            "then, such as {items: 100, full_every: 100}. Null means all items, always."
        ),
    )
    metrics: Annotated[list[MetricName], Field(min_length=1)] = Field(  # type: ignore[valid-type]
        default=["loss"],
        description=(
            "What is measured. The run itself takes the loss at every checkpoint; "
            "evaluators take all others from the base and from every snapshot, so these "
            "need `snapshots`. Metrics may be added later. rank_accuracy needs test items "
            "published with answer choices, such as P3's. lm_eval/NAME is a task or group "
            "of lm-evaluation-harness, such as lm_eval/mmlu."
        ),
    )
    generation: GenerationSettings = GenerationSettings()
    reasoning: Literal["whole"] | Marks | None = Field(
        default=None,
        description=(
            "Between which two texts a model thinks before its answer, such as [<think>, "
            "</think>]: that is cut before an answer is scored, judged or followed by a "
            "next turn, and a stop text in it ends nothing; answers are kept with it. "
            "whole = it is scored as a part of the answer. Null means the pair that the "
            "model's tokenizer has as tokens, if it has one."
        ),
    )
    rank_accuracy: RankSettings = RankSettings()
    bleu: BleuSettings | None = None
    rouge: RougeSettings | None = None
    suites: SuiteSettings = SuiteSettings()
    reward_model: FolderName | None = Field(
        default=None,
        description=(
            "Folder of the reward model for metric reward, which needs it: a model for "
            "sequence classification, or one like UltraRM. Null without that metric."
        ),
    )
    representations: RepresentationSettings | None = None
    token_distance: TokenDistanceSettings | None = None
    gradients: GradientSettings | None = None
    snapshots: SnapshotSteps = Field(
        default=None,
        description=(
            "After which steps the weights are saved for evaluators, in the words of "
            "`checkpoints.every`. The last step always counts, and each is a checkpoint "
            "too. Null means none."
        ),
    )
    keep: Keep = Field(
        default=None,
        description=(
            "Which snapshots stay on disk: all, last, or a rule such as {first: 1, last: "
            "2, best: 1, every: 100}. One that is being evaluated always stays. Null "
            "means all. Of a run that is done `zsg gc` frees what the grid, as it was "
            "submitted last, keeps no longer."
        ),
    )
    state_every_min: Positive | None = Field(
        default=30.0,
        description=(
            "Minutes between full states (weights, optimizer, position in the data) that "
            "a run resumes from. Null means only when the job is told to stop."
        ),
    )
    state_every: Count | None = Field(
        default=None,
        description=(
            "Save a full state also after every so many steps. Null means by minutes "
            "only."
        ),
    )
    keep_state: bool = Field(
        default=False,
        description=(
            "Whether the last full state stays after the run is done; false = it is "
            "removed."
        ),
    )

    @model_serializer(mode="wrap")
    def _leave_unasked_out(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """A job that does not ask for them is written as before they were there."""
        written = serialize(self)
        for name in ("bleu", "rouge", "gradients", "reasoning"):
            if written.get(name) is None:
                written.pop(name, None)
        return written

    @model_validator(mode="after")
    def _texts_are_compared(self) -> "CheckpointSettings":
        for name, metrics in (("bleu", (BLEU,)), ("rouge", TYPES)):
            is_asked = not set(metrics).isdisjoint(self.metrics)
            if getattr(self, name) is not None and not is_asked:
                raise ValueError(
                    f"{name} does nothing without metric {' or '.join(metrics)}; add it to"
                    " checkpoints.metrics, or take it out"
                )
        return self

    @model_validator(mode="after")
    def _something_to_answer_with(self) -> "CheckpointSettings":
        if self.scored and self.snapshots is None:
            raise ValueError(
                f"{self.scored[0]} is taken by evaluators, with kept weights, and none are kept;"
                " set checkpoints.snapshots to the steps at which it is wanted, e.g. in the words"
                " of `every`"
            )
        return self

    @model_validator(mode="after")
    def _all_that_metrics_need(self) -> "CheckpointSettings":
        for suite, metrics in all_metrics.SUITES.items():
            if suite == all_metrics.TEST_SET:
                continue
            measured = [metric for metric in metrics if metric in self.metrics]
            is_there = self.suites.find_benchmark(suite) is not None
            if measured and not is_there:
                raise ValueError(
                    f"metrics: {measured[0]} is of a benchmark, and where it lies is not said; set "
                    f"checkpoints.suites.{suite}: {{path: …}}"
                )
            if is_there and not measured:
                raise ValueError(
                    f"suites.{suite} does nothing without a metric of it: {', '.join(metrics)}"
                )
        if self.suites.lm_eval is not None and not self.harness_tasks:
            raise ValueError(
                f"suites.{HARNESS} does nothing without a metric of it, such as {HARNESS}/mmlu"
            )
        if (all_metrics.REWARD in self.metrics) != (self.reward_model is not None):
            raise ValueError(
                "metric reward and checkpoints.reward_model, a folder, need each other; one is"
                " missing"
            )
        self._refuse_win_rate_alone()
        self._refuse_what_humaneval_cannot()
        return self

    def _refuse_win_rate_alone(self) -> None:
        suite = self.suites.mt_bench
        has_baseline = suite is not None and suite.baseline is not None
        if (WIN_RATE in self.metrics) != has_baseline:
            raise ValueError(
                "metric win_rate and checkpoints.suites.mt_bench.baseline, the answers that the"
                " model's are compared with, need each other; one is missing"
            )

    def _refuse_what_humaneval_cannot(self) -> None:
        suite = self.suites.humaneval
        if suite is None:
            return
        if suite.allow_code_execution is None:
            raise ValueError(
                "metrics: humaneval runs programs that a model wrote, in a sandbox, and only where"
                " the grid says checkpoints.suites.humaneval.allow_code_execution: true. With false"
                " its answers are kept instead: `zsg answers export` writes them to a file, for"
                " running them elsewhere, and `zsg score` reads the scores"
            )
        largest_k = max(
            k for metric, k in all_metrics.PASS_AT.items() if metric in self.metrics
        )
        if largest_k > suite.samples:
            raise ValueError(
                f"metrics: humaneval/pass_at_{largest_k} needs {largest_k} answers to each problem;"
                f" checkpoints.suites.humaneval.samples is {suite.samples}"
            )

    @property
    def scored(self) -> list[str]:
        """The keys that evaluators take; of a suite that is scored elsewhere, that its
        answers are kept."""
        return [
            *(key for suite in all_metrics.SUITES for key in self.keys(suite)),
            *self.harness_tasks,
            *self.inside,
        ]

    @property
    def lm_eval(self) -> LmEvalSettings:
        """How tasks of lm-evaluation-harness are asked."""
        return self.suites.lm_eval or LmEvalSettings()

    @property
    def harness_tasks(self) -> dict[str, str]:
        """Keys of metrics that are tasks of lm-evaluation-harness, with the names of
        these."""
        tasks: dict[str, str] = {}
        for metric in self.metrics:
            task = find_task(metric)
            if task is not None:
                tasks[self.lm_eval.name_key(metric)] = task
        return tasks

    def define_text_scores(self, keys: Iterable[str]) -> Ways:
        """By key of the test set's answers, what decides its score beside them."""
        keys = list(keys)
        tokenizer = self.rouge.tokenizer if self.rouge else ENGLISH
        ways = define_text_scores(keys, self.bleu or BleuSettings(), tokenizer)
        digests = {strip_digest(metric): find_digest(metric) for metric in self.metrics}
        for key in keys:
            if digest := digests.get(key.partition("/")[0]):
                ways[key] = {PLUGIN: digest}
        return ways

    @property
    def choice_metrics(self) -> list[str]:
        """The metrics of plugins, with their digests, that are of what a model makes of
        options."""
        return [
            metric
            for metric in dict.fromkeys(self.metrics)
            if find_digest(metric) and METRICS[metric].score_choices is not None
        ]

    @property
    def inside(self) -> Ways:
        """Those of them that are taken inside the model, and how."""
        definitions: Ways = {}
        if RANK_ACCURACY in self.metrics:
            for rule in dict.fromkeys(self.rank_accuracy.by):
                key = name_key(rule, self.rank_accuracy.name)
                definitions[key] = define_key(rule)
        for metric in self.choice_metrics:
            definitions[strip_digest(metric)] = dict(METRICS[metric].definition)
        for measure in (self.representations, self.token_distance, self.gradients):
            if measure is not None:
                definitions |= measure.ways
        return definitions

    def named_by(self, key: str) -> str:
        """The setting whose `name` gives another way of taking a metric of the run's
        own test set another key."""
        settings = {
            DISTANCE: "token_distance",
            SILHOUETTE: "representations",
            GRADIENT_RATIO: "gradients",
            RANK_ACCURACY: RANK_ACCURACY,
        }
        return settings.get(key.partition("/")[0], "generation")

    def keys(self, suite: str) -> list[str]:
        """The keys of a suite that evaluators take, as they stand in tables."""
        metrics = [
            metric
            for metric in dict.fromkeys(self.metrics)
            if metric in all_metrics.SUITES[suite]
        ]
        is_test_set = suite == all_metrics.TEST_SET
        if is_test_set:
            metrics += [
                strip_digest(metric)
                for metric in dict.fromkeys(self.metrics)
                if find_digest(metric) and metric not in self.choice_metrics
            ]
        if not metrics:
            return []
        settings = self.generation if is_test_set else self.suites.find_benchmark(suite)
        suffix = f"/{settings.name}" if settings and settings.name else ""
        if suite in self.suites.scored_elsewhere:
            metrics = [f"{ANSWERS}/{suite}"]
        return [f"{metric}{suffix}" for metric in metrics]
