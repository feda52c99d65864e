"""Says every setting of the data: what is trained on, how it is sampled and mixed, and
what is tested."""

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from zsg_core.data.mixing import RATES
from zsg_core.data.presentation import INSTRUCTIONS, NAME, NATURAL, NONE
from zsg_core.data.prompts import CHAT, TARGETS
from zsg_core.data.readers import FORMATS
from zsg_core.schema_errors import describe_within
from zsg_core.settings.diverse import InstructionSettings, SelfSampleSettings
from zsg_core.settings.few_shot import FewShotSettings
from zsg_core.settings.fields import (
    Count,
    ExactFraction,
    ExactPart,
    ExactRatio,
    ExactWeight,
    FolderName,
    Seed,
    Strict,
    check_printable,
    or_of_plugin,
)
from zsg_core.settings.inverse import InvertSettings
from zsg_core.settings.makers import MakeSettings
from zsg_core.settings.mapping import NAMES as MAPPING_NAMES
from zsg_core.settings.mapping import MappingSettings, lay_over
from zsg_core.settings.record_fields import FieldSettings, RecordFields

ONE = ""  # the name of the source where data are of one

TEST_SETS = tuple(name for name, made in FORMATS.items() if made.answered)
OPTION_SETS = tuple(name for name, made in FORMATS.items() if made.options)
# sets that say what is asked in a place of its own
DEFINED = tuple(name for name, made in FORMATS.items() if made.defined)
TRAINING_SETS = tuple(name for name, made in FORMATS.items() if made.trains)
TrainingSet = Annotated[
    Literal[TRAINING_SETS],  # type: ignore[valid-type]
    or_of_plugin(FORMATS),
]
TestSet = Annotated[
    Literal[TEST_SETS],  # type: ignore[valid-type]
    or_of_plugin(FORMATS),
]
# keys by which a model makes what is trained on, and what that is
MADE = {"self_sample": "answers", "make": "examples"}
# sets whose columns the user names
OWN_SETS = tuple(name for name, made in FORMATS.items() if made.with_fields)


TaskName = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(check_printable)
]
TaskNames = Annotated[
    list[TaskName],
    Field(min_length=1),
    BeforeValidator(lambda v: [v] if isinstance(v, str) else v),
]
# the first so many tasks, or those of one name or pattern, or several
if TYPE_CHECKING:
    TaskLimit = int | list[str]  # one name is read as a list of it
else:
    TaskLimit = Annotated[
        Count | TaskName | TaskNames,
        AfterValidator(lambda v: [v] if isinstance(v, str) else v),
    ]


class HeldOut(Strict):
    """What is never trained on, and tested instead: tasks, or rows of every task."""

    by: Literal["list", "seed", "family", "rows", "names"] = Field(
        default="list",
        description=(
            "How held-out tasks are chosen: list = the list published with the data; seed "
            "= `tasks` tasks, or a `share` of them, drawn by `seed`; family = one task of "
            "every family, which is a task's first word; names = those that `tasks` "
            "names, the default where it does. Or rows = of every task that `share` of "
            "its examples, the default where a share is given."
        ),
    )
    tasks: TaskLimit | None = Field(
        default=None,
        description=(
            "Which tasks are held out, by names or patterns such as [sums, 'geo_*']; or, "
            "under `by: seed`, how many, which needs this or `share`."
        ),
    )
    share: ExactFraction | None = Field(
        default=None,
        description=(
            "Exact share that is held out, such as 1/5: of every task's examples, or under "
            "`by: seed` of the tasks. At least one of each task of two or more."
        ),
    )
    seed: Seed = Field(
        default=0,
        description=(
            "Seed of the draw of what is held out; a published list has none. The top "
            "`seed` never changes it."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _share_of_rows(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if isinstance(values.get("tasks"), list | str):
            return {"by": "names", **values}
        if values.get("share") is None:
            return values
        return {"by": "rows", **values}

    @model_validator(mode="after")
    def _only_what_counts(self) -> "HeldOut":
        problem = self._explain_bad_tasks() or self._explain_bad_share()
        if problem:
            raise ValueError(problem)
        if self.by in ("list", "names") and "seed" in self.model_fields_set:
            raise ValueError(f"`seed` draws nothing under `by: {self.by}`")
        return self

    @property
    def recipe(self) -> dict[str, Any]:
        """What enters the recipe of a run: what decides which examples are held out."""
        if self.by == "list":
            return {"by": "list"}
        recipe = self.model_dump(mode="json", exclude_none=True)
        if self.by == "names":
            del recipe["seed"]  # which draws nothing
        return recipe

    def _explain_bad_tasks(self) -> str | None:
        """Why the number of tasks does not fit the way of choosing; None where it does."""
        has_names = isinstance(self.tasks, list)
        if has_names != (self.by == "names"):
            return self._explain_bad_names()
        if has_names:
            return None
        if self.by != "seed":
            return None if self.tasks is None else "`tasks` is of `by: seed` alone"
        if self.tasks is None and self.share is None:
            return "`by: seed` needs `tasks`, or `share`"
        if self.tasks is not None and self.share is not None:
            return "`tasks` and `share` both say how much; give one of them"
        return None

    def _explain_bad_names(self) -> str:
        """Why there are names and they do not count, or none where some are needed."""
        if self.by == "names":
            return "`by: names` needs `tasks`, a list of names"
        return f"names in `tasks` do nothing under `by: {self.by}`; take `by` out"

    def _explain_bad_share(self) -> str | None:
        """Why the share does not fit the way of choosing; None where it does."""
        if self.share is None:
            return (
                "`by: rows` needs `share`, such as 1/5" if self.by == "rows" else None
            )
        if self.by not in ("rows", "seed"):
            return f"`share` does nothing under `by: {self.by}`"
        if self.share == 1:
            return "`share` 1 would leave nothing to train on"
        return None


def check_tag_pattern(text: str) -> str:
    """A regular expression that compiles and shows."""
    try:
        re.compile(check_printable(text))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


# what transformers' apply_chat_template is called with by zsg
_TAKEN_ARGUMENTS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


def check_chat_argument(name: str) -> str:
    """The name of what a chat template is called with, if zsg does not say that itself."""
    if name in _TAKEN_ARGUMENTS:
        raise ValueError("is said by zsg itself; take it out")
    return name


SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,31}$")]
Pattern = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(check_tag_pattern)
]


# what a chat template is called with beside the dialogue
ChatArguments = Annotated[
    dict[
        Annotated[
            str,
            Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"),
            AfterValidator(check_chat_argument),
        ],
        bool | int | FiniteFloat | str,
    ],
    Field(min_length=1),
]
DataSets = Annotated[dict[SourceName, TaskNames], Field(min_length=1)]


class SourceSettings(Strict):
    """One data set: what it is, which of its examples are trained on, and which are tested."""

    set: TrainingSet = Field(  # type: ignore[valid-type]
        default="niv2",
        description=(
            "Format of the data. `zsg plan` says what a format expects if the files do "
            "not fit."
        ),
    )
    path: FolderName | None = Field(
        default=None,
        description=(
            "The data, which every source needs: a file, a folder, or a pattern such as "
            "tasks/*.json. For formats huggingface and records also a name on the hub: "
            "org/name, org/name:main/train, org/name@revision:main/train. The content "
            "enters the run id, not where it lies."
        ),
    )
    fields: FieldSettings | None = Field(
        default=None,
        description=(
            "Format records only, which needs it or `mapping`: which column of your rows "
            "is what, such as {prompt: question, answer: answer, task: category}. Beside "
            "a mapping its keys count before the mapping's. It holds for test data of "
            "that format, too."
        ),
    )
    mapping: MappingSettings | Literal[MAPPING_NAMES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Format records only: the published set whose columns the data have, such as "
            "mmlu, or {name: wmt, languages: en-is}. It holds for test data of that "
            "format, too. What it says of the columns enters the run id."
        ),
    )
    test_set: TestSet | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Format of `test_path`, which it needs. MT-Bench has no answers to take a "
            "loss of. Null means the same as `set`."
        ),
    )
    test_path: FolderName | None = Field(
        default=None,
        description=(
            "Test data in files of their own, in place of held-out tasks. It excludes "
            "`held_out`."
        ),
    )
    test_fields: FieldSettings | None = Field(
        default=None,
        description=(
            "The `fields` of test data of format records that have other columns than the "
            "training data, in place of `fields` and `mapping`."
        ),
    )
    test_mapping: MappingSettings | Literal[MAPPING_NAMES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "The `mapping` of such test data, in place of `fields` and `mapping`; "
            "`test_fields` count before it."
        ),
    )
    held_out: HeldOut | None = Field(
        default=None,
        description=(
            "What is never trained on, and tested instead, such as {share: 1/5} of every "
            "task's rows, or {by: seed, tasks: 20}. It excludes `test_path`. Null means "
            "{by: list} for one data set, and no test for one of several `sources`."
        ),
    )
    on_bad_row: Literal["error", "skip"] = Field(
        default="error",
        description=(
            "What happens to a row that cannot be read: error = zsg refuses the data; "
            "skip = the row is left out, counted and reported."
        ),
    )
    train_per_task: Count | None = Field(
        default=20,
        description=(
            "Most examples of each training task. Null means all, which is the default of "
            "records and of formats that are one task."
        ),
    )
    test_per_task: Count | None = Field(
        default=5,
        description=(
            "Most examples of each held-out task. Null means all, which is the default of "
            "records and of formats that are one task."
        ),
    )
    train_tasks: TaskLimit | None = Field(
        default=None,
        description=(
            "Use only this many tasks, the first of the training list, or those of these "
            "names or patterns: sums, or [sums, 'geo_*']. Null means all."
        ),
    )
    test_tasks: TaskLimit | None = Field(
        default=None,
        description=(
            "Test only this many held-out tasks, the first of the list, or those of these "
            "names or patterns. Null means all."
        ),
    )
    templates: Count | None = Field(
        default=None,
        description=(
            "Formats p3 and flan_mini only: use this many templates of every data set, "
            "drawn by data.sample_seed. Null means all."
        ),
    )
    data_sets: Literal["t0", "folder"] | DataSets | None = Field(
        default=None,
        description=(
            "Which tasks are templates of one data set, for `templates` and `data.mix`: a "
            "mapping from set names to names or patterns of tasks; folder = by the "
            "folders of their files; t0 = by the names of T0's sets. Null means t0, and "
            "under `rates: capped` every task a set of its own, as in Flan-PaLM."
        ),
    )
    sampling: Literal["random", "first"] = Field(
        default="random",
        description=(
            "How a task with more examples than train_per_task or test_per_task is cut: "
            "random = drawn by data.sample_seed (data.test_seed for tests); first = its "
            "first examples."
        ),
    )
    tags: FolderName | None = Field(
        default=None,
        description=(
            "A file of JSON lines with the tags of every example, such as InsTag's, "
            "matched by `id`, or by the order of the data. It needs `keep_tags` or "
            "`drop_tags`. Null means the tags in the data themselves."
        ),
    )
    keep_tags: Pattern | None = Field(
        default=None,
        description=(
            "Train only on examples that have a tag in which this regular expression is "
            "found; case does not matter. Null means all."
        ),
    )
    drop_tags: Pattern | None = Field(
        default=None,
        description=(
            "Never train on examples that have a tag in which this regular expression is "
            "found, such as 'code|math'. Null means none are left out."
        ),
    )
    fraction: ExactFraction = Field(
        default=Fraction(1),
        description=(
            "Exact share of the training examples that is kept, such as 1/4; smaller "
            "shares are subsets of larger ones. It excludes `count` and `ratio`."
        ),
    )
    count: Count | None = Field(
        default=None,
        description=(
            "Number of training examples that are kept. It excludes `fraction` and "
            "`ratio`. Null means all."
        ),
    )
    ratio: ExactRatio | None = Field(
        default=None,
        description=(
            "Keep this many times as many examples as source `ratio_to` has, or all there "
            "are (DELIA). It excludes `fraction` and `count`."
        ),
    )
    ratio_to: SourceName | None = Field(
        default=None,
        description="Name of the source that `ratio` counts by; needed by it and by nothing else.",
    )
    k: ExactPart = Field(
        default=Fraction(1),
        description=(
            "Share of the kept examples that is trained on in this stage (DMT's k), such "
            "as 1/256. 0 = none; the source is only tested."
        ),
    )
    role: Literal["special", "general"] = Field(
        default="special",
        description=(
            "What `strategy` takes the source for: mixed and dmt train on special sources "
            "first and on general ones last."
        ),
    )
    rate_max: Count | None = Field(
        default=None,
        description=(
            "Needs `data.mix`: a task weighs no more than this many examples; under "
            "`rates: t0`, its data set (500000). Null means no limit under `rates: "
            "capped`."
        ),
    )
    share: ExactWeight | None = Field(
        default=None,
        description=(
            "Needs `data.mix`: the source's weight in the whole, relative to the sum of "
            "all sources' shares. All sources have one, or none has."
        ),
    )
    self_sample: SelfSampleSettings | None = Field(
        default=None,
        description=(
            "For one of several `sources`, which must not be tested: its answers are "
            "sampled from the model itself, once, by a job before training (DELIA). {} = "
            "as published. Null means the answers in the data."
        ),
    )
    make: MakeSettings | None = Field(
        default=None,
        description=(
            "For one of several `sources`, which must not be tested: its examples are "
            "made of those in its files by asking a model, once, by a job before "
            "training, such as {rft: {samples: 4}}. Null means the examples in the data."
        ),
    )
    instructions: InstructionSettings | Literal[INSTRUCTIONS] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Wordings of a task's instruction, one drawn for each example; not for "
            "formats niv2 and niv2_csv, which have definitions. For these: natural = the "
            "definition, name = the task's name in its place, none = the input alone, in "
            "training examples (FLAN's ablation). Null means the data's own."
        ),
    )
    test_instructions: Literal[INSTRUCTIONS] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "The same of test examples of formats with definitions: natural, name, or "
            "none. Null means natural."
        ),
    )
    show_options: bool = Field(
        default=False,
        description=(
            "Whether training examples that were published with options list them below "
            "the question, whatever the question says itself."
        ),
    )
    test_show_options: bool = Field(
        default=False, description="The same of test examples."
    )
    invert: InvertSettings | None = Field(
        default=None,
        description=(
            "Turns a share of the training examples round, such as {share: 3/10, "
            "wordings: ['Write a question with this answer:']}. Null means none."
        ),
    )
    loss_on: Literal[TARGETS] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Which tokens of the source's training examples are target tokens: answer, "
            "prompt, or all, as for language modelling. Null means train.loss_on."
        ),
    )
    few_shot: FewShotSettings | None = Field(
        default=None,
        description=(
            "Solved examples of the same task before each training example, such as {k: "
            "2}. Test examples have none. Null means none."
        ),
    )


def make_fields(
    mapping: MappingSettings | str | None, fields: FieldSettings | None
) -> RecordFields:
    """The fields of a mapping with the user's own laid over them. ValidationError where
    they do not say what is asked and answered."""
    if isinstance(mapping, str):
        mapping = MappingSettings.model_validate({"name": mapping})
    mapped = {} if mapping is None else mapping.fields
    own_fields = {} if fields is None else fields.model_dump(exclude_unset=True)
    merged = lay_over(mapped, own_fields)
    return RecordFields.model_validate(merged)


def _name_mapping(mapping: MappingSettings | str | None) -> str | None:
    """The name of a mapping that is given by its name alone, or with its languages."""
    return mapping.name if isinstance(mapping, MappingSettings) else mapping


def _make_columns(
    mapping: MappingSettings | str | None, fields: FieldSettings | None
) -> dict[str, Any] | None:
    """The same as a recipe has them; None where nothing is said."""
    if mapping is None and fields is None:
        return None
    return make_fields(mapping, fields).recipe


class Source(SourceSettings):
    """A source with everything said of it: what holds for all sources, and its own."""

    @model_validator(mode="before")
    @classmethod
    def _caps_of_one_task(cls, values: Any) -> Any:
        return check_caps_of_one_task(values)

    @model_validator(mode="after")
    def _makes_sense(self) -> "Source":
        problem = (
            self._explain_bad_files()
            or self._explain_bad_fields()
            or self._explain_bad_amount()
            or self._explain_idle_key()
        )
        if problem:
            raise ValueError(problem)
        return self

    def _explain_bad_files(self) -> str | None:
        """Why the files do not say what is trained on and tested; None where they do."""
        if self.path is None:
            return "`path` is missing and has no default"
        if self.test_path is None and self.test_set is not None:
            return "`test_set` is the format of `test_path`, which is not given"
        if self.test_path is not None and self.held_out is not None:
            return (
                "`held_out` and `test_path` both say what is tested; give one of them"
            )
        return None

    def _explain_bad_fields(self) -> str | None:
        """Why the columns are not said where they must be, or are where nobody reads
        them; None where all is well."""
        is_own = self.set in OWN_SETS or self.test_set in OWN_SETS
        if self.fields is None and self.mapping is None:
            needing = self._list_untold()
            if needing:
                return (
                    "set records reads columns of your own, and needs `fields`, such as {prompt:"
                    " question, answer: answer, task: category}, or `mapping`, the name of a"
                    " published set"
                )
        for key in ("fields", "mapping"):
            if getattr(self, key) is not None and not is_own:
                return (
                    f"`{key}` name the columns of set records, and {self.set} has columns of its"
                    f" own; say set: records, or take `{key}` out"
                )
        problem = self._explain_idle_test_fields() or self._explain_bad_columns()
        if problem:
            return problem
        return self._explain_asked_text()

    def _list_untold(self) -> list[str]:
        """The formats whose columns are said neither by `fields` nor by `mapping`."""
        has_test_fields = bool(self.test_fields or self.test_mapping)
        tested = None if has_test_fields else self.test_set
        return [name for name in (self.set, tested) if name in OWN_SETS]

    def _explain_idle_test_fields(self) -> str | None:
        """Why nobody reads the columns of the test data; None where somebody does, or
        none are said."""
        for key in ("test_fields", "test_mapping"):
            if getattr(self, key) is None:
                continue
            if self.test_path is None:
                return f"`{key}` is of `test_path`, which is not given"
            test_set = self.test_set or self.set
            if test_set not in OWN_SETS:
                return (
                    f"`{key}` names the columns of set records, and the test data are"
                    f" {test_set}; say test_set: records, or take it out"
                )
        return None

    def _explain_bad_columns(self) -> str | None:
        """What the columns, a mapping's and the user's together, lack; None where they
        are whole."""
        for key, mapping, fields in (
            ("fields", self.mapping, self.fields),
            ("test_fields", self.test_mapping, self.test_fields),
        ):
            if mapping is None and fields is None:
                continue
            try:
                make_fields(mapping, fields)
            except ValidationError as error:
                return describe_within(key, error, RecordFields)
        return None

    def _explain_asked_text(self) -> str | None:
        """Which key words a question where there is none, of raw texts; None where none
        does."""
        fields = self.columns or {}
        if "text" not in fields:
            return None
        for key in ("instructions", "few_shot", "invert", "self_sample", "make"):
            if getattr(self, key) is not None:
                return f"`{key}` goes with questions, and a raw text (fields.text) has none"
        return None

    def _explain_bad_amount(self) -> str | None:
        """Why it is not clear how much is kept; None where it is."""
        amounts = [
            key
            for key in ("fraction", "count", "ratio")
            if key in self.model_fields_set and getattr(self, key) not in (None, 1)
        ]
        if len(amounts) > 1:
            return f"`{amounts[0]}` and `{amounts[1]}` both say how much is kept; give one of them"
        if (self.ratio is None) != (self.ratio_to is None):
            return "`ratio` and `ratio_to` go together: so many times the examples of that source"
        return None

    def _explain_bad_making(self) -> str | None:
        """Why a model cannot make its examples; None where it can, or makes none."""
        if self.made_by is not None and (self.held_out or self.test_path):
            return (
                f"`{self.made_by}` makes {MADE[self.made_by]} to train on; give another source the"
                " held_out or test_path"
            )
        if self.self_sample is not None and self.make is not None:
            return "`self_sample` and `make` both say how examples are made; give one of them"
        return None

    def _explain_idle_key(self) -> str | None:
        """Which key does nothing beside the others; None where none does."""
        if self.tags is not None and self.keep_tags is None and self.drop_tags is None:
            return "`tags` are read for keep_tags or drop_tags, and neither is given"
        if problem := self._explain_bad_making():
            return problem
        if self.wordings is not None and self._is_defined(self.set, self.columns):
            return (
                f"`instructions` do nothing to {self.set}, whose tasks have definitions; take"
                " them out"
            )
        return self._explain_idle_form()

    def _explain_idle_form(self) -> str | None:
        """Which form the examples cannot have, of either split; None where they can."""
        test_set = self.test_set or self.set
        for prefix, name, form, columns in (
            ("", self.set, self.instruction_form, self.columns),
            ("test_", test_set, self.test_instructions, self.test_columns),
        ):
            if form in (NAME, NONE) and not self._is_defined(name, columns):
                return (
                    f"`{prefix}instructions: {form}` takes away the definition of a task, and"
                    f" {name} has its instructions within its questions; that is of format"
                    f" {' or '.join(DEFINED)}, or of records with fields.definition"
                )
        for prefix, name, shows in (
            ("", self.set, self.show_options),
            ("test_", test_set, self.test_show_options),
        ):
            if shows and name not in OPTION_SETS:
                return (
                    f"`{prefix}show_options`: {name} is published without options; those of"
                    f" format {' or '.join(OPTION_SETS)} may have them"
                )
        return None

    @property
    def wordings(self) -> InstructionSettings | None:
        """The file of wordings of its instruction; None where the data's own stay."""
        if isinstance(self.instructions, InstructionSettings):
            return self.instructions
        return None

    @property
    def instruction_form(self) -> str:
        """What stands before the input of its training examples, of INSTRUCTIONS."""
        if isinstance(self.instructions, str):
            return self.instructions
        return NATURAL

    @staticmethod
    def _is_defined(reader: str, columns: Mapping[str, Any] | None) -> bool:
        """Whether data of a format say what is asked in a place of its own."""
        return reader in DEFINED or "definition" in (columns or {})

    @property
    def mapping_name(self) -> str | None:
        """The published set whose columns the data have; None where none is named."""
        return _name_mapping(self.mapping)

    @property
    def test_mapping_name(self) -> str | None:
        """The same of what is tested."""
        if self.test_mapping is None and self.test_fields is None:
            return self.mapping_name
        return _name_mapping(self.test_mapping)

    @property
    def columns(self) -> dict[str, Any] | None:
        """Which column of the data is what, as a recipe has it; None of a format that
        has columns of its own."""
        if self.set not in OWN_SETS:
            return None
        return _make_columns(self.mapping, self.fields)

    @property
    def test_columns(self) -> dict[str, Any] | None:
        """The same of what is tested: in files of their own, or held out."""
        if (self.test_set or self.set) not in OWN_SETS:
            return None
        if self.test_mapping is None and self.test_fields is None:
            return _make_columns(self.mapping, self.fields)
        return _make_columns(self.test_mapping, self.test_fields)

    @property
    def made_by(self) -> str | None:
        """The key that has a model make its examples; None where they are the data's."""
        for key in MADE:
            if getattr(self, key) is not None:
                return key
        return None

    @property
    def is_sampled(self) -> bool:
        """Whether a model makes its examples, and any of them are trained on."""
        return self.made_by is not None and self.k != 0 and self.ratio != 0


class MixSettings(Strict):
    """How often every task is drawn, in place of using each example once."""

    rates: Literal[RATES] = Field(  # type: ignore[valid-type]
        default="capped",
        description=(
            "How often a task is drawn: capped = by its number of examples, at most "
            "`rate_max` (FLAN, Flan-PaLM); t0 = by T0's rule for templates."
        ),
    )
    total: Count | None = Field(
        default=None,
        description=(
            "Number of examples drawn in all. Null means as many as there are without an "
            "example coming twice."
        ),
    )
    repeat: bool = Field(
        default=False,
        description=(
            "Whether a task that is too small for its part is gone through again; repeats "
            "are counted and reported."
        ),
    )


class DataSettings(SourceSettings):
    """What is trained on, and the fixed test set: one data set, or several as `sources`."""

    sources: Annotated[dict[SourceName, SourceSettings], Field(min_length=1)] | None = (
        Field(
            default=None,
            description=(
                "Several data sets, each by a name of yours. What is set beside `sources` "
                "holds for every source that does not set it."
            ),
        )
    )
    mix: MixSettings | None = Field(
        default=None,
        description=(
            "How often each task is drawn, such as {rates: capped, total: 50000}. Null "
            "means every example is used once."
        ),
    )
    sample_seed: Seed | None = Field(
        default=None,
        description=(
            "Seed of the sample of training examples, and of the label drawn where an "
            "example has several right answers. Null means the top `seed`."
        ),
    )
    test_seed: Seed = Field(
        default=0,
        description=(
            "Seed of the sample of test examples. The top `seed` never changes it, so "
            "that all replicates share one test set."
        ),
    )
    template: Literal["zsg", "vicuna", "llama2", "plain", "chat"] = Field(
        default="zsg",
        description=(
            "How the turns of an example are written as one text: zsg's own, vicuna's, "
            "Llama 2's, plain, or by the chat template of the model's tokenizer."
        ),
    )
    chat_template_kwargs: ChatArguments | None = Field(
        default=None,
        description=(
            "Template chat only: what the model's chat template is called with, such as "
            "{enable_thinking: false} or {date_string: 26 Jul 2024}."
        ),
    )
    chat_system: Literal["template", "prepend", "drop"] = Field(
        default="template",
        description=(
            "Template chat only: how an example's system text is written: as the chat "
            "template has it, before the first question (for templates that know no "
            "system text), or not at all."
        ),
    )
    positive_examples: Annotated[int, Field(ge=0, le=2)] = Field(
        default=2,
        description="Format niv2 only: how many positive examples a prompt holds.",
    )
    max_turns: Count | None = Field(
        default=None,
        description="Use only this many turns of a dialogue, the first. Null means all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _caps_of_one_task(cls, values: Any) -> Any:
        # A cap per task means nothing where all examples are of one: 20 examples of
        # GSM8K are nobody's wish.
        return (
            values
            if isinstance(values, dict) and values.get("sources")
            else check_caps_of_one_task(values)
        )

    @model_validator(mode="after")
    def _chat_keys_have_their_template(self) -> "DataSettings":
        is_given = (
            self.chat_template_kwargs is not None or self.chat_system != "template"
        )
        if is_given and self.template != CHAT:
            raise ValueError(
                "`chat_template_kwargs` and `chat_system` are of template chat alone; set template:"
                " chat, or leave them out"
            )
        return self

    @model_validator(mode="after")
    def _sources_make_sense(self) -> "DataSettings":
        sources = self.by_source()
        _check_ratios(sources)
        _check_weights(sources, is_mixed=self.mix is not None)
        if self.sources is not None and not any(
            source.test_path or source.held_out for source in sources.values()
        ):
            raise ValueError(
                "no source says what is tested: give one of them a test_path, or held_out"
            )
        if self.sources is None and (made_by := sources[ONE].made_by) is not None:
            raise ValueError(
                f"`{made_by}` is of one among several `sources`, another of which is tested"
            )
        if all(source.k == 0 for source in sources.values()):
            raise ValueError("every source has k 0: nothing would be trained on")
        return self

    def __copy__(self) -> Self:
        copied = super().__copy__()
        vars(copied).pop("_sources", None)  # of the settings as they were
        return copied

    def by_source(self) -> dict[str, Source]:
        """Every source whole, in the order written; of one data set, that under the name ''.

        ValueError names the source for what cannot be.
        """
        return dict(self._sources)

    @cached_property
    def _sources(self) -> dict[str, Source]:
        of_all = {
            key: value
            for key, value in self.model_dump(exclude_unset=True).items()
            if key in _OF_A_SOURCE
        }
        if self.sources is None:
            return {ONE: _make_source(ONE, of_all)}
        return {
            name: _make_source(name, of_all | source.model_dump(exclude_unset=True))
            for name, source in self.sources.items()
        }


# Decides what is tested, beside the top settings; `held_out` decides both.
OF_THE_TEST = (
    "test_set",
    "test_path",
    "held_out",
    "test_tasks",
    "test_per_task",
    "test_instructions",
    "test_show_options",
    "sampling",
)
_OF_A_SOURCE = frozenset(SourceSettings.model_fields)


# the runs of a grid have few sources, and each is asked for often
_MADE: dict[str, Source] = {}
_MOST_MADE = 10_000


def _make_source(name: str, values: dict[str, Any]) -> Source:
    if (written := repr(values)) in _MADE:
        return _MADE[written]
    if len(_MADE) == _MOST_MADE:
        _MADE.clear()
    try:
        return _MADE.setdefault(written, Source.model_validate(values))
    except ValidationError as error:
        section = _setting_name(name, "")
        raise ValueError(describe_within(section, error, Source)) from None


def _setting_name(name: str, key: str) -> str:
    """A source's setting as messages call it; `name` is empty where there is one data set."""
    return ".".join(word for word in ("sources" if name else "", name, key) if word)


def _check_ratios(sources: Mapping[str, Source]) -> None:
    """ValueError for a ratio to a source that is none, or that is counted by a ratio itself."""
    for name, source in sources.items():
        if source.ratio_to is None:
            continue
        if source.ratio_to not in sources or source.ratio_to == name:
            raise ValueError(
                f"sources.{name}.ratio_to: {source.ratio_to!r} is no other source"
            )
        if sources[source.ratio_to].ratio is not None:
            raise ValueError(
                f"sources.{name}.ratio_to: {source.ratio_to!r} is itself counted by a ratio"
            )


def _check_weights(sources: Mapping[str, Source], is_mixed: bool) -> None:
    """ValueError for a weight without a mix, or a share of some sources only."""
    for name, source in sources.items():
        for key in ("rate_max", "share"):
            if not is_mixed and getattr(source, key) is not None:
                raise ValueError(
                    f"{_setting_name(name, key)}: `{key}` weighs a source in a mix; give data.mix"
                )
    bare = [name for name, source in sources.items() if source.share is None]
    if bare and len(bare) < len(sources):
        raise ValueError(
            f"sources.{bare[0]}: has no `share`, and other sources do; give all of them one, or"
            " none"
        )


def check_caps_of_one_task(values: Any) -> Any:
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
