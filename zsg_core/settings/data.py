"""Says every setting of the data: what is trained on, how it is sampled and mixed, and
what is tested."""

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from zsg_core.data.mixing import RATES
from zsg_core.data.readers import FORMATS
from zsg_core.settings.diverse import InstructionSettings, SelfSampleSettings
from zsg_core.settings.fields import (
    Count,
    ExactFraction,
    ExactPart,
    ExactRatio,
    ExactWeight,
    FolderName,
    Seed,
    Strict,
    printable,
)

ONE = ""  # the name of the source where data are of one

TEST_SETS = tuple(name for name, made in FORMATS.items() if made.answered)
OPTION_SETS = tuple(name for name, made in FORMATS.items() if made.options)
# sets that say what is asked in a place of its own
DEFINED = tuple(name for name, made in FORMATS.items() if made.defined)
TRAINING_SETS = tuple(name for name, made in FORMATS.items() if made.trains)


class HeldOut(Strict):
    """Which tasks are never trained on, and tested instead."""

    by: Literal["list", "seed", "family"] = Field(
        default="list",
        description=(
            "the published list, tasks drawn by seed, or one task of every family, by a task's"
            " first word"
        ),
    )
    tasks: Count | None = Field(
        default=None, description="how many tasks `seed` holds out"
    )
    seed: Seed = Field(
        default=0, description="the draw's own seed; the top `seed` never changes it"
    )

    @model_validator(mode="after")
    def _only_what_counts(self) -> "HeldOut":
        if (self.tasks is None) == (self.by == "seed"):
            raise ValueError("`tasks` is needed by `by: seed`, and by nothing else")
        if self.by == "list" and "seed" in self.model_fields_set:
            raise ValueError("`seed` draws nothing under `by: list`")
        return self


def tag_pattern(text: str) -> str:
    """A regular expression that compiles and shows."""
    try:
        re.compile(printable(text))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,31}$")]
Pattern = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(tag_pattern)
]


TaskName = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(printable)
]
TaskNames = Annotated[
    list[TaskName],
    Field(min_length=1),
    BeforeValidator(lambda v: [v] if isinstance(v, str) else v),
]
DataSets = Annotated[dict[SourceName, TaskNames], Field(min_length=1)]


class SourceSettings(Strict):
    """One data set: what it is, which of its examples are trained on, and which are tested."""

    set: Literal[TRAINING_SETS] = Field(  # type: ignore[valid-type]
        default="niv2", description="format of the data"
    )
    path: FolderName | None = Field(
        default=None,
        description=(
            "a file, a folder, or a pattern such as tasks/*.json; of set huggingface also a name of"
            " the hub: org/name, org/name:main/train, org/name@revision:main/train"
        ),
    )
    test_set: Literal[TEST_SETS] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="format of test_path; default: set. MT-Bench has no answers to take a loss of",
    )
    test_path: FolderName | None = Field(
        default=None, description="test data of their own, in place of held_out"
    )
    held_out: HeldOut | None = Field(
        default=None,
        description=(
            "how held-out tasks are chosen; default: {by: list}, of a source: none are tested"
        ),
    )
    on_bad_row: Literal["error", "skip"] = Field(
        default="error",
        description="what a row that cannot be read is: an error, or counted, told and passed over",
    )
    train_per_task: Count | None = Field(
        default=20,
        description=(
            "most examples per training task; null = all, the default of sets that are one task"
        ),
    )
    test_per_task: Count | None = Field(
        default=5,
        description=(
            "most examples per held-out task; null = all, the default of sets that are one task"
        ),
    )
    train_tasks: Count | None = Field(
        default=None,
        description="only the first tasks of the training list; null = all",
    )
    test_tasks: Count | None = Field(
        default=None,
        description="only the first held-out tasks of the list; null = all",
    )
    templates: Count | None = Field(
        default=None,
        description=(
            "p3 and flan_mini: so many templates of every data set, drawn by sample_seed; null"
            " = all"
        ),
    )
    data_sets: Literal["t0", "folder"] | DataSets | None = Field(
        default=None,
        description=(
            "which tasks are templates of one data set, for `templates` and `mix`: a mapping of"
            " sets to names or patterns of tasks, folder = by the folders of their files, t0 = by"
            " the names of T0's sets; null = t0, and under rates: capped every task a set of its"
            " own, as in Flan-PaLM"
        ),
    )
    sampling: Literal["random", "first"] = Field(
        default="random", description="how a task is capped"
    )
    tags: FolderName | None = Field(
        default=None,
        description=(
            "JSON lines with the tags of every example, such as InsTag's, by the `id` that the data"
            " or zsg give it, or in the data's order; null = the data's own"
        ),
    )
    keep_tags: Pattern | None = Field(
        default=None,
        description=(
            "train only on examples with a tag that this regular expression finds, in any case"
        ),
    )
    drop_tags: Pattern | None = Field(
        default=None,
        description=(
            "never train on examples with a tag that this regular expression finds: 'code|math'"
        ),
    )
    fraction: ExactFraction = Field(
        default=Fraction(1),
        description=(
            "exact share of the training data kept, such as 1/4; what 1/16 keeps is among what 1/4"
            " keeps"
        ),
    )
    count: Count | None = Field(
        default=None, description="so many training examples, in place of a fraction"
    )
    ratio: ExactRatio | None = Field(
        default=None,
        description="so many times the examples of `ratio_to`, or all there are (DELIA)",
    )
    ratio_to: SourceName | None = Field(
        default=None, description="the source that `ratio` counts by"
    )
    k: ExactPart = Field(
        default=Fraction(1),
        description="share of what is left that is trained on in this stage; 0 = none, only tested",
    )
    role: Literal["special", "general"] = Field(
        default="special",
        description="what `strategy` takes the source for: it trains general data last",
    )
    rate_max: Count | None = Field(
        default=None,
        description=(
            "under `mix`: a task weighs at most so many examples; t0: its data set (500000)"
        ),
    )
    share: ExactWeight | None = Field(
        default=None,
        description=(
            "under `mix`: the source's part of the whole, by the sum of all sources' shares"
        ),
    )
    self_sample: SelfSampleSettings | None = Field(
        default=None,
        description=(
            "of one among `sources`: its answers are the model's own, sampled once by a job before"
            " training (DELIA); {} = as published"
        ),
    )
    instructions: InstructionSettings | None = Field(
        default=None,
        description=(
            "the wordings of a task's instruction, drawn for each example; null = the data's own"
        ),
    )


class Source(SourceSettings):
    """A source with everything said of it: what holds for all sources, and its own."""

    @model_validator(mode="before")
    @classmethod
    def _caps_of_one_task(cls, values: Any) -> Any:
        return caps_of_one_task(values)

    @model_validator(mode="after")
    def _makes_sense(self) -> "Source":
        if self.path is None:
            raise ValueError("`path` is missing and has no default")
        if self.test_path is None and self.test_set is not None:
            raise ValueError(
                "`test_set` is the format of `test_path`, which is not given"
            )
        if self.test_path is not None and self.held_out is not None:
            raise ValueError(
                "`held_out` and `test_path` both say what is tested; give one of them"
            )
        amounts = [
            key
            for key in ("fraction", "count", "ratio")
            if key in self.model_fields_set
        ]
        amounts = [key for key in amounts if getattr(self, key) not in (None, 1)]
        if len(amounts) > 1:
            raise ValueError(
                f"`{amounts[0]}` and `{amounts[1]}` both say how much is kept; give one of them"
            )
        if (self.ratio is None) != (self.ratio_to is None):
            raise ValueError(
                "`ratio` and `ratio_to` go together: so many times the examples of that source"
            )
        if self.tags is not None and self.keep_tags is None and self.drop_tags is None:
            raise ValueError(
                "`tags` are read for keep_tags or drop_tags, and neither is given"
            )
        if self.self_sample is not None and (self.held_out or self.test_path):
            raise ValueError(
                "`self_sample` makes answers to train on; give another source the held_out or"
                " test_path"
            )
        if self.instructions is not None and self.set in DEFINED:
            raise ValueError(
                f"`instructions` do nothing to {self.set}, whose tasks have definitions; take"
                " them out"
            )
        return self

    @property
    def is_sampled(self) -> bool:
        """Whether its answers are the model's own, and any of them are trained on."""
        return self.self_sample is not None and self.k != 0 and self.ratio != 0


class MixSettings(Strict):
    """How often every task is drawn, in place of using each example once."""

    rates: Literal[RATES] = Field(  # type: ignore[valid-type]
        default="capped",
        description=(
            "capped: by a task's examples, at most rate_max (FLAN, Flan-PaLM); t0: by T0's rule for"
            " templates"
        ),
    )
    total: Count | None = Field(
        default=None,
        description="examples drawn; null = as many as there are without any example coming twice",
    )
    repeat: bool = Field(
        default=False,
        description="a task too small for its part is gone through again; counted and told",
    )


class DataSettings(SourceSettings):
    """What is trained on, and the fixed test set: one data set, or several as `sources`."""

    sources: Annotated[dict[SourceName, SourceSettings], Field(min_length=1)] | None = (
        Field(
            default=None,
            description=(
                "several data sets by name; what is said beside `sources` holds for each that does"
                " not"
                " say it"
            ),
        )
    )
    mix: MixSettings | None = Field(
        default=None, description="how often tasks are drawn; null = every example once"
    )
    sample_seed: Seed | None = Field(
        default=None,
        description="seed of the sample and of the label drawn; default: seed",
    )
    test_seed: Seed = Field(
        default=0, description="the test set's own seed; `seed` never changes it"
    )
    template: Literal["zsg", "vicuna", "llama2", "plain"] = Field(
        default="zsg",
        description="how the turns of an example are written out as one text",
    )
    positive_examples: Annotated[int, Field(ge=0, le=2)] = Field(
        default=2, description="niv2 only: positive examples in a prompt"
    )
    max_turns: Count | None = Field(
        default=None, description="only the first turns of a dialogue; null = all"
    )

    @model_validator(mode="before")
    @classmethod
    def _caps_of_one_task(cls, values: Any) -> Any:
        # A cap per task means nothing where all examples are of one: 20 examples of
        # GSM8K are nobody's wish.
        return (
            values
            if isinstance(values, dict) and values.get("sources")
            else caps_of_one_task(values)
        )

    @model_validator(mode="after")
    def _sources_make_sense(self) -> "DataSettings":
        made = self.by_source()
        for name, source in made.items():
            if source.ratio_to is not None and (
                source.ratio_to not in made or source.ratio_to == name
            ):
                raise ValueError(
                    f"sources.{name}.ratio_to: {source.ratio_to!r} is no other source"
                )
            if source.ratio_to is not None and made[source.ratio_to].ratio is not None:
                raise ValueError(
                    f"sources.{name}.ratio_to: {source.ratio_to!r} is itself counted by a ratio"
                )
        if self.mix is None:
            for name, source in made.items():
                for key in ("rate_max", "share"):
                    if getattr(source, key) is not None:
                        raise ValueError(
                            f"{_place(name, key)}: `{key}` weighs a source in a mix; give data.mix"
                        )
        shares = {name: source.share for name, source in made.items()}
        if None in shares.values() and set(shares.values()) != {None}:
            bare = next(name for name, share in shares.items() if share is None)
            raise ValueError(
                f"sources.{bare}: has no `share`, and other sources do; give all of them one, or"
                " none"
            )
        if self.sources is not None and not any(
            source.test_path or source.held_out for source in made.values()
        ):
            raise ValueError(
                "no source says what is tested: give one of them a test_path, or held_out"
            )
        if self.sources is None and made[ONE].self_sample is not None:
            raise ValueError(
                "`self_sample` is of one among several `sources`, another of which is tested"
            )
        if all(source.k == 0 for source in made.values()):
            raise ValueError("every source has k 0: nothing would be trained on")
        return self

    def by_source(self) -> dict[str, Source]:
        """Every source whole, in the order written; of one data set, that under the name ''.

        ValueError names the source for what cannot be.
        """
        of_all = {
            key: value
            for key, value in self.model_dump(exclude_unset=True).items()
            if key in _OF_A_SOURCE
        }
        if self.sources is None:
            return {ONE: _source(ONE, of_all)}
        given = {
            name: own.model_dump(exclude_unset=True)
            for name, own in self.sources.items()
        }
        return {name: _source(name, of_all | own) for name, own in given.items()}


# Decides what is tested, beside the top settings; `held_out` decides both.
OF_THE_TEST = (
    "test_set",
    "test_path",
    "held_out",
    "test_tasks",
    "test_per_task",
    "sampling",
)
_OF_A_SOURCE = frozenset(SourceSettings.model_fields)


# the runs of a grid have few sources, and each is asked for often
_MADE: dict[str, Source] = {}
_MOST_MADE = 10_000


def _source(name: str, values: dict[str, Any]) -> Source:
    if (written := repr(values)) in _MADE:
        return _MADE[written]
    if len(_MADE) == _MOST_MADE:
        _MADE.clear()
    try:
        return _MADE.setdefault(written, Source.model_validate(values))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(
            f"{_place(name, '.'.join(map(str, first['loc'])))}: {message}".lstrip(": ")
        ) from None


def _place(name: str, key: str) -> str:
    return ".".join(part for part in ("sources" if name else "", name, key) if part)


def caps_of_one_task(values: Any) -> Any:
    """The values with caps per task taken off where all examples are of one task,
    unless they are given."""
    if not isinstance(values, dict):
        return values
    trained, tested = (
        values.get("set", "niv2"),
        values.get("test_set") or values.get("set", "niv2"),
    )
    caps = {"train_per_task": None} if _is_one_task(trained) else {}
    caps |= {"test_per_task": None} if _is_one_task(tested) else {}
    return {**caps, **values}


def _is_one_task(name: Any) -> bool:
    return isinstance(name, str) and name in FORMATS and not FORMATS[name].many_tasks
