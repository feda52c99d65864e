"""One source of data: its records, its training and test tasks, and which examples are
taken."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import (
    META,
    Workspace,
    is_whole,
    publish_folder,
    read_json,
    write_json,
)
from jobs.contract.prepared import RecordsMeta, read_records_meta
from jobs.model import content
from jobs.preparing import reading_notes
from jobs.preparing.records import Records, write_records
from jobs.preparing.source_files import SourceFiles
from zsg_core.data import data_sets, instructions, readers, splits
from zsg_core.data.readers import tags as tag_files
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import ClusterError, UserError
from zsg_core.recipe import Recipe, records_id

logger = logging.getLogger(__name__)

BY_ROWS = "rows"  # a share of every task's rows is held out
BY_PATH = "path"  # another file is tested
SHOWN = 5  # names that are told; all are counted


class SourceDataset:
    """One source under its recipe. Reads the data unless their records are there;
    UserError for bad data.

    `records`, `ids` of records and `tasks` are by split; a source that is not tested
    has an empty list of test tasks.
    """

    def __init__(
        self, workspace: Workspace, name: str, rule: Recipe, files: SourceFiles
    ) -> None:
        self.name, self.rule, self.files = name, rule, files
        skip, held_out = rule.get("on_bad_row") == "skip", rule.get("held_out", {})
        of_split = {"train": (rule, files.data)}
        of_split["test"] = (held_out, files.test) if files.test else of_split["train"]
        self.ids = {
            split: read_records(workspace, source, path, skip)
            for split, (source, path) in of_split.items()
        }
        # what there is to say of the source whoever made its records, for its users to see
        self.notes: list[str] = []
        for split, (_, path) in of_split.items():
            if split == "train" or self.ids["test"] != self.ids["train"]:
                self._tell_reading(workspace.records(self.ids[split]), path)
        self.records = {
            split: Records(workspace.records(made_id))
            for split, made_id in self.ids.items()
        }
        # As it was when the records were made: the files may have changed since.
        self._lists = (read_json(workspace.records(self.ids["train"]) / META) or {})[
            "lists"
        ]
        self.tasks = self._tasks()

    def _tell_reading(self, folder: Path, path: Path) -> None:
        """Tells what was passed over and left out when these records were made."""
        meta = read_records_meta(folder) or RecordsMeta()
        for note in reading_notes.describe_records(meta):
            self.warn(f"{path}: {note}")
        for note in meta.beside:  # which names its folder
            self.warn(note)

    def warn(self, note: str) -> None:
        """Says what whoever reads the results must know, and keeps it for them."""
        logger.warning(note)
        self.notes.append(note)

    @cached_property
    def instructions(self) -> list[str]:
        """The wordings of its instruction; none where the data's own stay. UserError if
        the file has changed."""
        rules = [
            self.rule[split]["instructions"]
            for split in self.rule.keys() & {"train", "test"}
            if "instructions" in self.rule[split]
        ]
        if not rules:
            return []
        assert self.files.instructions is not None, "job.json names the file"
        content.refuse_changed(
            self.files.instructions, content.one_file, rules[0]["digest"]
        )
        return instructions.read_wordings(self.files.instructions)

    @property
    def is_used(self) -> bool:
        """Whether any of it is trained on."""
        return self.rule["train"].get("k") != "0"

    def train(self) -> list[int]:
        """Places in the training records: of all tasks and templates that are used,
        what tags and caps leave."""
        if not self.is_used:
            return []
        rule = self.rule["train"]
        names = self.tasks["train"]
        if "templates" in rule:
            data_sets.refuse_unknown(
                self.sets, rule.get("data_sets"), "data.templates", self.warn
            )
            names = splits.choose_templates(
                names, rule["templates"], self.set_of, rule.get("seed", 0)
            )
        of_task = self._of_task("train")
        return self._sample(names, of_task, rule, self._wanted, "data.train_tasks")

    @cached_property
    def sets(self) -> data_sets.Sets:
        """The data set that each training task is a template of, None where it is not known."""
        files = readers.FORMATS[self.rule["reader"]].files

        def folders() -> dict[str, str]:
            return data_sets.find_task_folders(self.files.data, files(self.files.data))

        return data_sets.find_data_sets(
            self.tasks["train"], self.rule["train"].get("data_sets"), folders
        )

    def set_of(self, task: str) -> str:
        """The data set that a training task is a template of; the task itself where
        none is known."""
        return self.sets.get(task) or task

    def test(self) -> list[int]:
        """Places in the test records."""
        if "test" not in self.rule:
            return []
        of_task = self._of_task("test")
        names = self.tasks["test"]
        return self._sample(names, of_task, self.rule["test"], None, "data.test_tasks")

    def training_places(self) -> dict[str, NDArray[np.int64]]:
        """Where the examples of each training task stand, whatever is sampled of them."""
        return list_training_places(
            self.records["train"], self.tasks["train"], self.rule
        )

    def list_trainable(self) -> dict[str, NDArray[np.int64]]:
        """The places of all examples of each training task that the tags leave, whatever
        caps take of them."""
        of_task = self.training_places()
        allowed = self._wanted
        if allowed is None:
            return of_task
        return {
            task: positions[allowed[positions]] for task, positions in of_task.items()
        }

    def list_held_out(self) -> Iterator[int]:
        """The places of all examples of the test set's tasks, whatever caps take of them."""
        of_task = self._of_task("test")
        for task in self.tasks["test"]:
            yield from map(int, of_task.get(task, ()))

    def by_task(self, places: list[int]) -> dict[str, list[int]]:
        """The places of each task, tasks in the order in which they come first."""
        found: dict[str, list[int]] = {}
        for task, place in zip(
            self.records["train"].texts("task", np.array(places, np.int64)),
            places,
            strict=True,
        ):
            found.setdefault(task, []).append(place)
        return found

    def _of_task(self, split: str) -> Mapping[str, NDArray[np.int64]]:
        """The places of each task's examples that a split may have."""
        return choose_rows(self.records[split].places(), self.rule, split)

    def _tasks(self) -> dict[str, list[str]]:
        """The names of the tasks of each split, by the rule that says what is held
        out."""
        of_task = self._of_task("train")
        rule = self.rule.get("held_out")
        method = rule["by"] if rule else None
        if method == "list":
            self._tell_absent(of_task)
        train, test = splits.divide_tasks(list(of_task), rule, self._lists)
        if method == BY_PATH:
            test = list(self._of_task("test"))
        return {"train": train, "test": test}

    def _tell_absent(self, of_task: Mapping[str, Any]) -> None:
        """Tells which tasks of the published list have no example. UserError where no
        list lies beside the data."""
        if not self._lists:
            raise UserError(
                f"{self.files.data}: there is no list of held-out tasks beside the data"
            )
        absent = [
            name
            for names in self._lists.values()
            for name in names
            if name not in of_task
        ]
        if absent:
            self.warn(
                f"{self.files.data}: {len(absent)} of the listed tasks have no example:"
                f" {', '.join(absent[:SHOWN])}, …"
            )

    def _sample(
        self,
        names: list[str],
        of_task: Mapping[str, NDArray[np.int64]],
        rule: Recipe,
        wanted: NDArray[np.bool_] | None,
        key: str,
    ) -> list[int]:
        """The places that a split takes of some tasks. UserError, by the setting's key,
        for a name that none of them has."""
        chosen: list[int] = []
        for name in splits.limit_tasks(names, rule.get("tasks"), key):
            places = of_task[name] if name in of_task else np.empty(0, np.int64)
            left = (places if wanted is None else places[wanted[places]]).tolist()
            chosen += splits.cap_items(
                left, rule["per_task"], rule["sampling"], rule.get("seed", 0), name
            )
        return chosen

    @cached_property
    def _wanted(self) -> NDArray[np.bool_] | None:
        """(records,) whether the tags let an example be trained on; None where no tags
        are asked for."""
        rule, records = self.rule["train"], self.records["train"]
        patterns = [
            (re.compile(rule[key], re.I), key == "keep_tags")
            for key in ("keep_tags", "drop_tags")
            if key in rule
        ]
        if not patterns:
            return None
        if self.files.tags:
            content.refuse_changed(self.files.tags, content.one_file, rule["tags"])
            ids = records.texts("id", np.arange(len(records)))
            tags: Any = tag_files.read_tags(
                self.files.tags, ids, self._published_ids, self.warn
            )
        else:
            tags = (records[place].tags for place in range(len(records)))
        made = np.array(
            [
                all(any(map(p.search, own)) == wish for p, wish in patterns)
                for own in tags
            ],
            bool,
        )
        logger.info(
            f"{self.name or self.files.data.name}: tags leave {int(made.sum())} of {len(made)}"
            " examples"
        )
        return made

    def _published_ids(self) -> list[str | None]:
        return read_published_ids(self.rule, self.files.data)


def read_published_ids(rule: Recipe, path: Path) -> list[str | None]:
    """The ids that the rows of a source's training records were published with, in the
    order of the records. UserError if the data have changed."""
    reader = rule["reader"]
    content.refuse_changed(path, content.data_files(reader), rule["digest"])
    return readers.read_published_ids(
        reader, path, rule.get("on_bad_row") == "skip", rule.get("fields")
    )


def choose_rows(
    places: Mapping[str, NDArray[np.int64]], source: Recipe, split: str
) -> Mapping[str, NDArray[np.int64]]:
    """Of every task the places of the examples that a split may have: all of them, but
    where rows are held out.

    Then those that are drawn are the test's, and all others are trained on. `source` is
    the recipe of the source.
    """
    rule = source.get("held_out", {})
    if rule.get("by") != BY_ROWS:
        return places
    as_lists = {task: of_task.tolist() for task, of_task in places.items()}
    held_out = splits.hold_out_rows(as_lists, rule["share"], rule["seed"])
    chosen: dict[str, NDArray[np.int64]] = {}
    for task, of_task in places.items():
        drawn = np.array(held_out[task], np.int64)
        is_tested = np.isin(of_task, drawn)
        if split == "test":
            chosen[task] = of_task[is_tested]
        else:
            chosen[task] = of_task[~is_tested]
    return chosen


def list_training_places(
    records: Records, tasks: Sequence[str], source: Recipe
) -> dict[str, NDArray[np.int64]]:
    """Where the examples of each of these tasks stand that are not held out; of tasks
    without any nothing."""
    places = choose_rows(records.places(), source, "train")
    return {task: places[task] for task in tasks if task in places}


def read_records(workspace: Workspace, source: Recipe, path: Path, skip: bool) -> str:
    """Makes the folder of records of a source unless it is there; its id."""
    reader = source["reader"]
    made_id = records_id(source, skip)
    folder = workspace.records(made_id)
    if is_whole(folder):
        return made_id
    if "self_sample" in source:
        raise ClusterError(
            f"{folder}: the model's own answers have not been sampled; submit again, a job samples"
            " them"
        )
    content.refuse_changed(path, content.data_files(reader), source["digest"])
    content.refuse_other_reading(reader, path, source)
    intake = Intake(skip)
    with publish_folder(folder) as draft:
        fields = source.get("fields")
        examples = readers.read_examples(reader, path, intake, fields)
        count = write_records(
            draft,
            examples,
            made_id,
            with_options=readers.FORMATS[reader].options,
            are_texts="text" in (fields or {}),
        )
        Records(draft).refuse_doubled(path)
        made = {
            "reader": reader,
            "source": source["digest"],
            "lists": readers.read_lists(reader, path),
        }
        if notes := readers.inspect_files(reader, path, fields=fields).notes:
            made["beside"] = list(notes)
        write_json(draft / META, {**made, "count": count, **intake.facts()})
    logger.info(f"records {made_id}: {count} examples of {reader}")
    return made_id
