"""Makes and opens a corpus: the sampled training pool and the fixed test set of one data recipe.

A corpus is a list of places in folders of records (jobs.records), so it is small however large the data are, and
every job maps the records behind it.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from jobs import content
from jobs.folder import Workspace, is_committed, publish, read_json, write_json
from jobs.records import Records
from jobs.records import write as write_records
from zsg_core import readers, splits
from zsg_core.digest import ids_digest
from zsg_core.errors import UserError
from zsg_core.examples import Example
from zsg_core.prompts import Template
from zsg_core.readers.intake import Intake
from zsg_core.recipe import Recipe, records_id

Places = NDArray[np.int64]
Say = Callable[[str], None]
SHOWN = 5  # overlapping texts that are told with their ids; all are counted


class Selection(Sequence[Example]):
    """Some of the records, in an order, each as the recipe's rule makes it."""

    def __init__(self, records: Records, places: Places, rule: Recipe, max_turns: int | None) -> None:
        self._records, self.places, self._max_turns = records, places, max_turns
        self._drawn_by = rule.get("seed") if rule["sampling"] == "random" else None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        example = self._records[int(self.places[index])]
        if self._max_turns and len(example.turns) > self._max_turns:
            turns = example.turns[: self._max_turns]
            example = msgspec.structs.replace(example, turns=turns, references=())
        return example if self._drawn_by is None else splits.choose_answer(example, self._drawn_by)

    @cached_property
    def ids(self) -> list[str]:
        """The examples' ids, without making the examples."""
        return self._records.texts("id", self.places)

    @cached_property
    def tasks(self) -> list[str]:
        """The examples' tasks, without making the examples."""
        return self._records.texts("task", self.places)


class Corpus:
    """A corpus that is there: see `make`."""

    def __init__(self, workspace: Workspace, corpus_id: str) -> None:
        self.folder = workspace.corpus(corpus_id)
        self.meta: dict[str, Any] = read_json(self.folder / "meta.json") or {}
        self.recipe: Recipe = self.meta["recipe"]
        self._workspace = workspace

    @property
    def template(self) -> Template:
        return Template.of(self.recipe["template"])

    @cached_property
    def train(self) -> Selection:
        return self._selection("train")

    @cached_property
    def test(self) -> Selection:
        return self._selection("test")

    def first_of_each_task(self, least: int, together: int) -> Iterator[list[Example]]:
        """The first examples of every training task, whatever is sampled: `least` of each, or `together` of all."""
        records = self._records("train")
        of_task = records.places()
        names = [name for name in self.meta["pool"] if name in of_task]
        each = max(least, together // max(1, len(names)))
        for name in names:
            yield [records[int(place)] for place in of_task[name][:each]]

    def _selection(self, split: str) -> Selection:
        places = np.load(self.folder / f"{split}.npy")
        return Selection(self._records(split), places, self.recipe[split], self.recipe.get("max_turns"))

    def _records(self, split: str) -> Records:
        return Records(self._workspace.records(self.meta["records"][split]))


def make(workspace: Workspace, corpus_id: str, recipe: Recipe, data: Path, test_data: Path | None, say: Say) -> Corpus:
    """Reads and samples the data unless that is done. UserError for data that cannot be read or leave nothing."""
    if not is_committed(workspace.corpus(corpus_id)):
        _Making(workspace, corpus_id, recipe, data, test_data, say).make()
    return Corpus(workspace, corpus_id)


class _Making:
    """What the steps of making a corpus share."""

    def __init__(
        self, workspace: Workspace, corpus_id: str, recipe: Recipe, data: Path, test_data: Path | None, say: Say
    ) -> None:
        self.workspace, self.id, self.recipe, self.say = workspace, corpus_id, recipe, say
        self.data, self.test_data = data, test_data
        skip = recipe.get("on_bad_row") == "skip"
        held_out = recipe["held_out"]
        sources = {"train": (recipe, data), "test": (held_out, test_data) if test_data else (recipe, data)}
        self.sources = {split: _read(workspace, source, path, skip, say) for split, (source, path) in sources.items()}

    def make(self) -> None:
        records = {split: Records(self.workspace.records(source)) for split, source in self.sources.items()}
        of_task = {split: records[split].places() for split in records}
        names = self._names(of_task)
        chosen = {split: self._sample(names[split], of_task[split], self.recipe[split]) for split in records}
        rule = self.recipe["train"]
        fraction = splits.take_fraction(chosen["train"], Fraction(rule["fraction"]), rule.get("seed", 0))
        places = {"train": np.array(fraction, np.int64), "test": np.array(chosen["test"], np.int64)}
        max_turns = self.recipe.get("max_turns")
        made = {split: Selection(records[split], places[split], self.recipe[split], max_turns) for split in records}
        self._refuse_useless(made)
        self.say(f"corpus {self.id}: {len(made['train'])} training and {len(made['test'])} test examples")
        self._publish(made, names["train"])

    def _names(self, of_task: dict[str, dict[str, Places]]) -> dict[str, list[str]]:
        # As it was when the records were made: the files may have changed since.
        lists = (read_json(self.workspace.records(self.sources["train"]) / "meta.json") or {})["lists"]
        pool = lists["train"] if lists else list(of_task["train"])
        rule = self.recipe["held_out"]
        if rule["by"] == "path":
            return {"train": pool, "test": list(of_task["test"])}
        if rule["by"] == "list":
            if not lists:
                raise UserError(f"{self.data}: there is no list of held-out tasks beside the data")
            absent = [name for names in lists.values() for name in names if name not in of_task["train"]]
            if absent:
                self.say(f"{len(absent)} of the listed tasks have no example: {', '.join(absent[:SHOWN])}, …")
            return lists
        train, test = splits.hold_out(pool, rule["by"], rule.get("tasks"), rule["seed"])
        return {"train": train, "test": test}

    def _sample(self, names: list[str], of_task: dict[str, Places], rule: Recipe) -> list[int]:
        chosen: list[int] = []
        for name in names[: rule.get("tasks")]:
            places = of_task[name].tolist() if name in of_task else []
            chosen += splits.cap(places, rule["per_task"], rule["sampling"], rule.get("seed", 0), name)
        return chosen

    def _refuse_useless(self, made: dict[str, Selection]) -> None:
        for split, chosen in made.items():
            if not len(chosen):
                raise UserError(f"{self.data}: the {split} tasks have no instance left (check the caps and fraction)")

    def _publish(self, made: dict[str, Selection], pool: list[str]) -> None:
        overlap = splits.overlap(made["train"], made["test"])
        told = {"prompts": len(overlap), "with_answer": sum(same for *_, same in overlap), "first": overlap[:SHOWN]}
        if overlap:
            test_id, train_id, _ = overlap[0]
            self.say(
                f"{told['prompts']} test prompts stand in the training examples too, {told['with_answer']} of them "
                f"with the same answer; the first: {test_id} is {train_id}"
            )
        with publish(self.workspace.corpus(self.id)) as draft:
            for split, selection in made.items():
                np.save(draft / f"{split}.npy", selection.places)
            meta = {"recipe": self.recipe, "records": self.sources, "pool": pool, "overlap": told}
            meta |= {split: len(selection) for split, selection in made.items()}
            meta |= {"tasks": {split: len(set(selection.tasks)) for split, selection in made.items()}}
            meta |= {f"{split}_digest": ids_digest(selection.ids) for split, selection in made.items()}
            write_json(draft / "meta.json", meta)


def _read(workspace: Workspace, source: Recipe, path: Path, skip: bool, say: Say) -> str:
    """Makes the folder of records of a source unless it is there; its id."""
    reader = source["reader"]
    made_id = records_id(reader, source["digest"], skip)
    folder = workspace.records(made_id)
    if is_committed(folder):
        return made_id
    content.refuse_changed(path, content.data_files(reader), source["digest"])
    intake = Intake(skip)
    with publish(folder) as draft:
        count = write_records(draft, readers.read(reader, path, intake), made_id)
        Records(draft).refuse_doubled(path)
        made = {"reader": reader, "source": source["digest"], "lists": readers.lists(reader, path)}
        write_json(draft / "meta.json", {**made, "count": count, **intake.facts()})
    say(f"records {made_id}: {count} examples of {reader}")
    if intake.skipped:
        say(f"{intake.skipped} bad rows were passed over; the first: {intake.reasons[0]}")
    for what, count in sorted(intake.notes.items()):
        say(f"left out {count} times: {what}")
    return made_id
