"""Looks at data before anything is planned or prepared: those of a grid as its runs
would split them, or those of a path by themselves.

Nothing is written and no GPU is needed. Each file is read twice, once for its counts
and once for the examples that are measured and shown.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.contract.folder import Workspace
from jobs.files.model_file_names import TOKENIZER_NAMES
from jobs.preparing.source_files import SourceFiles
from launcher.grids.inputs import name_model
from launcher.grids.runs import Run
from launcher.planning import target_notes
from launcher.views.looked_data import (
    CHARACTERS,
    TEST,
    TOKENS,
    TRAIN,
    Cut,
    DataLook,
    GridLook,
    ShownExample,
    SourceLook,
    SplitLook,
)
from launcher.workspace import extras
from zsg_core.data import data_look, readers
from zsg_core.data.data_look import (
    Overlap,
    Places,
    ReadExamples,
    Split,
    Spread,
)
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.data.published_sets import MAPPINGS
from zsg_core.data.readers import wrong_format
from zsg_core.data.readers.fields import Fields
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.wrong_format import Guess
from zsg_core.errors import BadData, UserError
from zsg_core.recipe import Recipe, list_sources, remove_seeds
from zsg_core.settings.record_fields import RecordFields
from zsg_core.settings.run import Settings

if TYPE_CHECKING:  # brings torch
    from jobs.training.example_lengths import ExampleLength, LengthCounter, Writing

MODULES = ("torch", "transformers")
MOST_LOOKS = 4  # of a grid whose runs have different data
ALL: Recipe = {"train": {"per_task": None, "sampling": "all"}}
# what changes examples when a corpus is made of them, in a source's recipe
CHANGING = ("few_shot", "inverted", "instructions", "instruction_form", "options")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a user wants to see. `sample`: at most so many examples of each split are
    measured, 0 = all; `shown`: so many are shown of each source."""

    sample: int = 2000
    shown: int = 3
    tokenizer: Path | None = None


@dataclass(frozen=True, kw_only=True)
class _File:
    """Data and how they are read. `recipe`: the fields as a recipe has them."""

    path: Path
    reader: str
    recipe: Recipe | None

    def read(self, intake: Intake) -> Iterator[Example]:
        """Its examples."""
        return readers.read_examples(self.reader, self.path, intake, self.recipe)

    @property
    def key(self) -> str:
        """By which it is known."""
        return json.dumps([str(self.path), self.reader, self.recipe])


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A file, gone through once."""

    file: _File
    examples: ReadExamples
    bad_rows: int
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _DividedSource:
    """A source: its files as they were read, and which examples a split takes of which."""

    name: str
    rule: Recipe
    of_split: Mapping[str, _Reading]
    split: Split
    guessed: bool = False
    mapping: str | None = None

    def places(self, split: str) -> Places:
        """The places of a split's examples in its file."""
        return self.split.train if split == TRAIN else self.split.test


class DataReader:
    """Reads data for a look; each file is gone through once, however many runs have it."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._readings: dict[str, _Reading] = {}

    def look_at_path(
        self,
        path: Path,
        fields: RecordFields | None = None,
        format_name: str | None = None,
    ) -> DataLook:
        """The examples of a path by themselves, none of them held out. Their format and
        columns are guessed where none is given.

        UserError for what cannot be read, or does not say what is asked and answered.
        """
        guess = _choose_reading(path, fields, format_name)
        reader, columns = guess.reader, guess.fields
        recipe = RecordFields.model_validate(columns).recipe if columns else None
        file = _File(path=path, reader=reader, recipe=recipe)
        try:
            reading = self._read(file)
        except BadData as error:
            misfit = wrong_format.describe(reader, path, recipe)
            raise UserError(misfit or str(error)) from error
        source = _DividedSource(
            name="",
            rule=ALL,
            of_split={TRAIN: reading, TEST: reading},
            split=data_look.split_examples(reading.examples, ALL),
            guessed=fields is None and format_name is None,
            mapping=guess.mapping,
        )
        writing = None
        if self._asked.tokenizer is not None:
            writing = _write_by_default(self._asked.tokenizer)
        return self._look(str(path), [source], writing)

    def look_at_runs(self, workspace: Workspace, runs: Sequence[Run]) -> GridLook:
        """The data of some runs, each once, whatever seeds sample them. UserError for
        data that cannot be read, or of which nothing would be left."""
        stages: dict[str, list[Run]] = {}
        for run in runs:
            for stage in [*run.all_before, run]:
                stages.setdefault(_key_of(stage), []).append(stage)
        looks: list[DataLook] = []
        for run, *alike in list(stages.values())[:MOST_LOOKS]:
            divided = self._divide(run)
            title = _name_data(run)
            look = self._look(title, divided, self._find_writing(workspace, run))
            targets = target_notes.describe_targets(workspace, [run, *alike])
            looks.append(replace(look, targets=tuple(targets)))
        return GridLook(looks=tuple(looks), more=max(0, len(stages) - MOST_LOOKS))

    def _divide(self, run: Run) -> list[_DividedSource]:
        """The sources of a run, each divided into what is trained on and tested."""
        divided: list[_DividedSource] = []
        for name, rule in list_sources(run.stage["data"]).items():
            divided.append(self._divide_source(name, rule, run.sources[name]))
        return divided

    def _divide_source(
        self, name: str, rule: Recipe, files: SourceFiles
    ) -> _DividedSource:
        file = _File(path=files.data, reader=rule["reader"], recipe=rule.get("fields"))
        reading = tested = self._read(file)
        lists = readers.read_lists(file.reader, file.path)
        try:
            split = data_look.split_examples(reading.examples, rule, lists)
        except UserError as error:
            raise UserError(f"{files.data}: {error}") from None
        if files.test is not None:
            held_out = rule["held_out"]
            test_file = _File(
                path=files.test,
                reader=held_out["reader"],
                recipe=held_out.get("fields"),
            )
            tested = self._read(test_file)
            taken = data_look.take_tested(tested.examples, rule)
            split = Split(train=split.train, test=taken, is_bound=split.is_bound)
        return _DividedSource(
            name=name,
            rule=rule,
            of_split={TRAIN: reading, TEST: tested},
            split=split,
        )

    def _read(self, file: _File) -> _Reading:
        """A file's examples, as counts. Rows that are none are counted, whatever the
        grid does with them. UserError for a file of which nothing can be read."""
        if file.key in self._readings:
            return self._readings[file.key]
        intake = Intake(skip=True)
        inspection = readers.inspect_files(file.reader, file.path, fields=file.recipe)
        examples = data_look.read_facts(file.read(intake))
        left_out = [
            f"left out {count} times: {omission}"
            for omission, count in sorted(intake.notes.items())
        ]
        reading = _Reading(
            file=file,
            examples=examples,
            bad_rows=intake.skipped,
            reasons=tuple(intake.reasons),
            notes=(*inspection.notes, *left_out),
        )
        self._readings[file.key] = reading
        return reading

    def _find_writing(self, workspace: Workspace, run: Run) -> "Writing | str":
        """How a run writes its examples, or why its tokens cannot be counted here."""
        missing = extras.describe_missing("to count tokens", MODULES, "train")
        if missing:
            return missing
        folder = self._asked.tokenizer or run.base
        if folder is None and run.base_id is not None:
            folder = workspace.base(run.base_id)
            if not _has_tokenizer(folder):
                return "the tokenizer of a tiny model is made of the data, by a prepare job"
        assert folder is not None, "a model that zsg does not make has a folder"
        _refuse_without_tokenizer(folder)
        from jobs.training.example_lengths import Writing

        stage = run.stage
        return Writing(
            tokenizer=folder,
            base=run.recipe["base"],
            template=Template.from_recipe(stage["data"]["template"]),
            max_length=stage["train"]["max_length"],
            truncate=stage["train"].get("truncate", "prompt"),
        )

    def _look(
        self,
        title: str,
        divided: Sequence[_DividedSource],
        writing: "Writing | str | None",
    ) -> DataLook:
        """What is to be seen of some sources together."""
        counter = _open_counter(writing)
        sources = [self._look_at_source(source, counter) for source in divided]
        unit = CHARACTERS if counter is None else TOKENS
        return DataLook(
            title=title,
            unit=unit,
            counted_by=_describe_counting(writing),
            sources=tuple(sources),
            overlap=_count_overlap(divided),
        )

    def _look_at_source(
        self, source: _DividedSource, counter: "LengthCounter | None"
    ) -> SourceLook:
        looked: dict[str, SplitLook] = {}
        displayed: list[ShownExample] = []
        for split in (TRAIN, TEST):
            is_empty = not len(source.places(split))
            if split == TEST and is_empty:
                continue
            split_look, examples = self._look_at_split(source, split, counter)
            looked[split] = split_look
            name = split if TEST in source.rule else ""
            for example in examples:
                displayed.append(ShownExample(split=name, example=example))
        reading = source.of_split[TRAIN]
        tested = source.of_split[TEST]
        everything = np.arange(len(reading.examples))
        notes = list(reading.notes)
        bad_rows, reasons = reading.bad_rows, reading.reasons
        if tested is not reading:
            notes += tested.notes
            bad_rows += tested.bad_rows
            reasons += tested.reasons
        return SourceLook(
            name=source.name,
            path=reading.file.path,
            test_path=None if tested is reading else tested.file.path,
            reader=reading.file.reader,
            fields=write_fields(reading.file.recipe),
            guessed=source.guessed,
            mapping=source.mapping,
            tasks=reading.examples.count_tasks(everything),
            repeats=data_look.count_repeats(reading.examples),
            bad_rows=bad_rows,
            reasons=reasons,
            is_bound=source.split.is_bound,
            splits=looked,
            shown=tuple(displayed),
            notes=(*notes, *_note_changes(source.rule)),
            skips=source.rule.get("on_bad_row") == "skip",
        )

    def _look_at_split(
        self, source: _DividedSource, split: str, counter: "LengthCounter | None"
    ) -> tuple[SplitLook, list[Example]]:
        """A split of a source, and those of its examples that are shown."""
        reading = source.of_split[split]
        taken = source.places(split)
        in_order = np.sort(taken)
        measured = data_look.choose_evenly(in_order, self._asked.sample)
        displayed = set[int]()
        if self._asked.shown:
            chosen = data_look.choose_evenly(in_order, self._asked.shown)
            displayed.update(chosen.tolist())
        measuring = _Measuring(counter)
        numbers = {*measured.tolist(), *displayed}
        examples: list[Example] = []
        stream = reading.file.read(Intake(skip=True))
        to_measure = set(measured.tolist())
        for number, example in data_look.pick_examples(stream, numbers):
            if number in displayed:
                examples.append(example)
            if number in to_measure:
                measuring.add(example)
        split_look = SplitLook(
            tasks=reading.examples.count_tasks(taken),
            blank=int(reading.examples.blank[taken].sum()),
            measured=len(measured),
            lengths=measuring.list_spreads(),
            cut=measuring.describe_cut(),
        )
        return split_look, examples


class _Measuring:
    """Gathers how long examples are: in tokens, or in characters without a counter."""

    def __init__(self, counter: "LengthCounter | None") -> None:
        self._counter = counter
        self._lengths: dict[str, list[int]] = {}
        self._lost: Counter[str] = Counter()
        self._questionless = 0

    def add(self, example: Example) -> None:
        """Measures an example."""
        if self._counter is None:
            self._note("whole", data_look.count_characters(example))
            return
        length = self._counter.measure(example)
        self._note("prompt", length.prompt)
        self._note("answer", length.answer)
        self._note("whole", length.whole)
        self._note_loss(example, length)

    def _note(self, section: str, length: int) -> None:
        self._lengths.setdefault(section, []).append(length)

    def _note_loss(self, example: Example, length: "ExampleLength") -> None:
        if length.loss is None:
            return
        self._lost[example.id] += length.loss.tokens
        self._questionless += length.lost_question

    def list_spreads(self) -> dict[str, Spread]:
        """The spread of the lengths of each section."""
        spreads: dict[str, Spread] = {}
        for section, lengths in self._lengths.items():
            spread = data_look.measure_spread(lengths)
            if spread is not None:
                spreads[section] = spread
        return spreads

    def describe_cut(self) -> Cut | None:
        """What is cut; None where that cannot be told."""
        if self._counter is None:
            return None
        worst = [example_id for example_id, _ in self._lost.most_common(3)]
        return Cut(
            max_length=self._counter.max_length,
            examples=len(self._lost),
            tokens=self._lost.total(),
            questionless=self._questionless,
            worst=tuple(worst),
        )


def _choose_reading(
    path: Path, fields: RecordFields | None, format_name: str | None
) -> Guess:
    """How a path is read: as it is said, or as its first rows seem to be. UserError for a
    format that is none, or where nothing can be guessed."""
    if format_name is None and fields is None:
        try:
            return wrong_format.guess_format(path)
        except UserError as error:
            raise UserError(
                f"{error}. The format of a published set is named: --set NAME"
            ) from None
    name = format_name or wrong_format.NAME
    if name in MAPPINGS:
        raise UserError(
            f"--set: {name} is a mapping of set {wrong_format.NAME}; leave --set out, and rows of"
            " its layout are known by their columns"
        )
    if name not in readers.FORMATS:
        names = ", ".join(readers.FORMATS)
        raise UserError(f"--set: {name!r} is no format of data; there are {names}")
    if fields is None and name == wrong_format.NAME:
        raise UserError(
            f"--set {name} goes with --fields, such as '{{prompt: question, answer: answer}}';"
            " leave it out, and the columns are guessed"
        )
    if fields is None:
        return Guess(name)
    if name != wrong_format.NAME:
        raise UserError(f"--fields goes with set {wrong_format.NAME}, not with {name}")
    return Guess(name, fields.model_dump(exclude_none=True))


def _key_of(run: Run) -> str:
    """By what two runs have the same data and lengths, but for seeds."""
    train = run.stage["train"]
    seen = {
        "data": remove_seeds(run.stage["data"]),
        "base": remove_seeds(run.recipe["base"]),
        "max_length": train["max_length"],
        "truncate": train.get("truncate"),
    }
    return json.dumps(seen, sort_keys=True, default=str)


def _name_data(run: Run) -> str:
    """A run by what decides its data."""
    words = [f"run {run.id}"]
    for key, value in run.axes.items():
        if key.partition(".")[0] in ("data", "model", "train"):
            words.append(f"{key} {value}")
    return ", ".join(words)


def _write_by_default(tokenizer: Path) -> "Writing | str":
    """How examples are written that no grid says anything of."""
    missing = extras.describe_missing("to count tokens", MODULES, "train")
    if missing:
        return missing
    _refuse_without_tokenizer(tokenizer)
    from jobs.training.example_lengths import Writing

    # a grid must say which data; nothing of the rest depends on that
    settings = Settings.model_validate({"data": {"path": "rows"}})
    return Writing(
        tokenizer=tokenizer,
        base=None,
        template=Template(settings.data.template),
        max_length=settings.train.max_length,
    )


def _open_counter(writing: "Writing | str | None") -> "LengthCounter | None":
    if writing is None or isinstance(writing, str):
        return None
    from jobs.training.example_lengths import LengthCounter

    return LengthCounter(writing)


def _describe_counting(writing: "Writing | str | None") -> str:
    """Whose tokens are counted, or why characters are."""
    if writing is None:
        return "--tokenizer FOLDER counts tokens"
    if isinstance(writing, str):
        return writing
    template = writing.template.name
    return f"tokens of {name_model(writing.tokenizer)}, template {template}"


def _has_tokenizer(folder: Path) -> bool:
    """Whether a model folder has a file that a tokenizer is read from."""
    return any((folder / name).is_file() for name in TOKENIZER_NAMES)


def _refuse_without_tokenizer(folder: Path) -> None:
    """UserError for a folder without a tokenizer."""
    if _has_tokenizer(folder):
        return
    raise UserError(
        f"{folder}: has no tokenizer (tokenizer.json and its like), by which tokens are counted;"
        " name a folder that has one: --tokenizer FOLDER"
    )


def _count_overlap(divided: Sequence[_DividedSource]) -> Overlap | None:
    """How many tested examples of all sources stand among the trained ones of all."""
    trained = [
        (source.of_split[TRAIN].examples, source.split.train) for source in divided
    ]
    tested = [(source.of_split[TEST].examples, source.split.test) for source in divided]
    if not any(len(places) for _, places in tested):
        return None
    return data_look.count_overlap(trained, tested)


def write_fields(recipe: Recipe | None) -> str:
    """The fields of a recipe as YAML has them; nothing of a format of its own columns."""
    if not recipe:
        return ""
    fields = Fields.from_recipe(recipe)
    return wrong_format.write_fields(fields.written)


def _note_changes(rule: Recipe) -> list[str]:
    """What is done to the examples later, which is not seen here."""
    changing = [key for key in CHANGING if key in rule["train"]]
    notes: list[str] = []
    if changing:
        notes.append(
            f"shown and measured as they are read; {', '.join(changing)} will change them"
        )
    if "self_sample" in rule:
        notes.append("its answers will be sampled from the model")
    return notes
