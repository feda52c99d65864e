"""Says every setting of a target set: what an order measures similarity to, in place of
the test set."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from zsg_core.data.target_sets import (
    BY_FILE,
    BY_ITEMS,
    DROP,
    HIDDEN,
    KEEP,
    OVERLAPS,
    WAYS,
)
from zsg_core.schema_errors import describe_within
from zsg_core.settings.data import (
    TEST_SETS,
    FieldSettings,
    MappingSettings,
    Source,
    TaskLimit,
)
from zsg_core.settings.fields import Count, FolderName, Seed, Strict
from zsg_core.settings.mapping import NAMES as MAPPING_NAMES

PER_TASK = 5  # of what is held out, as many as are tested by default
OF_FILES = ("set", "path", "fields", "mapping")


class TargetSettings(Strict):
    """What an order looks at in place of the test set, so that no test item decides it."""

    by: Literal[WAYS] = Field(  # type: ignore[valid-type]
        default=BY_ITEMS,
        description=(
            "Where the target comes from: items = other items of the tested tasks, held "
            "out and not tested; tasks = held-out tasks that are not tested, as "
            "data.test_tasks leaves them; path = files of its own, the default where "
            "`path` is given."
        ),
    )
    path: FolderName | None = Field(
        default=None,
        description=(
            "The target in files of its own: a file, a folder, a pattern, or a name on the "
            "hub, as data.path. The content enters the run id, not where it lies."
        ),
    )
    set: Literal[TEST_SETS] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="Format of `path`. Null means data.set, where data are of one source.",
    )
    fields: FieldSettings | None = Field(
        default=None,
        description=(
            "Format records only, which needs it or `mapping`: which column of the rows at "
            "`path` is what, as data.fields."
        ),
    )
    mapping: MappingSettings | Literal[MAPPING_NAMES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=(
            "Format records only: the published set whose columns the rows at `path` have."
        ),
    )
    tasks: TaskLimit | None = Field(
        default=None,
        description=(
            "Use only this many of those tasks, the first, or those of these names or "
            "patterns. Null means all."
        ),
    )
    per_task: Count | None = Field(
        default=PER_TASK,
        description=(
            "Most items of each task, drawn by `seed`; a smaller target is part of a "
            "larger one. Null means all, which is the default of `path`."
        ),
    )
    seed: Seed = Field(
        default=0,
        description=(
            "Seed of the draw of its items, for replicates. The top `seed` never changes it."
        ),
    )
    answers: bool = Field(
        default=True,
        description=(
            "Whether the target's answers are part of the texts that are compared. false = "
            "its questions alone, as where nobody has the answers yet."
        ),
    )
    overlap: Literal[OVERLAPS] = Field(  # type: ignore[valid-type]
        default=DROP,
        description=(
            "What of target items that ask what a test item asks, or are one; they are "
            "counted and told. drop = leave them out; refuse = refuse such a target; keep "
            "= look at them all the same, which is a leak."
        ),
    )
    train_overlap: Literal[OVERLAPS] = Field(  # type: ignore[valid-type]
        default=KEEP,
        description=(
            "The same of target items that ask what a training example asks, or are one: "
            "such examples are the nearest by being the same, whatever else the order "
            "means. They are counted and told. keep = look at them; drop = leave them "
            "out; refuse = refuse such a target."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _of_files(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("path") is None:
            return values
        return {"by": BY_FILE, "per_task": None, **values}

    @model_validator(mode="after")
    def _only_what_counts(self) -> "TargetSettings":
        if self.by == BY_FILE:
            if self.path is None:
                raise ValueError("`by: path` needs `path`, the files of the target")
            return self
        for key in OF_FILES:
            if getattr(self, key) is not None:
                raise ValueError(
                    f"`{key}` is of a target in files of its own, and `by: {self.by}` takes"
                    " what the data hold out; take one of the two out"
                )
        if "seed" in self.model_fields_set and self.per_task is None:
            raise ValueError("`seed` draws nothing where all items are taken")
        return self

    def find_source(self, sources: Mapping[str, Source]) -> Source | None:
        """Its files as a source of data; None where it has none. ValueError where their
        format is not said, or their columns are not."""
        if self.path is None:
            return None
        values: dict[str, Any] = {"set": self._find_set(sources), "path": self.path}
        if self.fields is not None:
            values["fields"] = self.fields.model_dump(exclude_unset=True)
        if self.mapping is not None:
            values["mapping"] = self.mapping
        if self.fields is None and self.mapping is None:
            values |= _take_columns(sources, values["set"])
        try:
            return Source.model_validate(values)
        except ValidationError as error:
            section = "arrangement.target"
            raise ValueError(describe_within(section, error, Source)) from None

    def _find_set(self, sources: Mapping[str, Source]) -> str:
        """The format of its files. ValueError where nothing says it."""
        if self.set is not None:
            return self.set
        formats = {source.set for source in sources.values()}
        if len(formats) == 1:
            return formats.pop()
        raise ValueError(
            "arrangement.target: its files need `set`, their format, as data.sources have"
            " several"
        )

    def check_data(self, sources: Mapping[str, Source]) -> None:
        """ValueError where the data leave no item for it, whatever they are."""
        source = self.find_source(sources)
        if source is None:
            self._check_held_out(sources)
        elif not self.answers and "text" in (source.columns or {}):
            raise ValueError(
                "arrangement.target: `answers: false` leaves nothing of raw texts (fields.text),"
                " which ask nothing; take it out"
            )

    def _check_held_out(self, sources: Mapping[str, Source]) -> None:
        """ValueError where all that is held out is tested."""
        tested = [each for each in sources.values() if _is_tested(each, sources)]
        limits = [each.test_tasks for each in tested]
        if self.by == BY_ITEMS:
            limits = [each.test_per_task for each in tested]
        if any(limit is not None for limit in limits):
            return
        if self.by == BY_ITEMS:
            raise ValueError(
                "arrangement.target: every item of the tested tasks is tested, as"
                " data.test_per_task is null, so none is left for the target; give"
                " data.test_per_task, or the target a `path`"
            )
        raise ValueError(
            "arrangement.target: every task that is held out is tested, so none is left for the"
            " target; give data.test_tasks, those to test, or the target a `path`"
        )

    @property
    def recipe(self) -> dict[str, Any]:
        """What enters the recipe of a run, but for what its files are."""
        recipe: dict[str, Any] = {"by": self.by, "per_task": self.per_task}
        if self.per_task is not None:
            recipe["seed"] = self.seed
        if self.tasks is not None:
            recipe["tasks"] = self.tasks
        if not self.answers:
            recipe["answers"] = HIDDEN
        recipe["overlap"] = self.overlap
        if self.train_overlap != KEEP:
            recipe["train_overlap"] = self.train_overlap
        return recipe


def _is_tested(source: Source, sources: Mapping[str, Source]) -> bool:
    """Whether anything of a source is tested: of one among several only where it says
    what."""
    is_told = source.test_path is not None or source.held_out is not None
    return is_told or len(sources) == 1


def _take_columns(sources: Mapping[str, Source], reader: str) -> dict[str, Any]:
    """The columns of data of the same format, where these are of one source."""
    alike = [source for source in sources.values() if source.set == reader]
    if len(alike) != 1:
        return {}
    columns: dict[str, Any] = {}
    if alike[0].fields is not None:
        columns["fields"] = alike[0].fields.model_dump(exclude_unset=True)
    if alike[0].mapping is not None:
        columns["mapping"] = alike[0].mapping
    return columns
