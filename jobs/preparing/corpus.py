"""Makes and opens a corpus: the sampled training pool and the fixed test set of one data recipe.

A corpus is a list of places in folders of records (records.py), so it is small however
large the data are, and every job maps the records behind it. Of several sources the
examples stand source after source, and their ids and tasks begin with `<source>/`.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
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
from jobs.contract.prepared import write_corpus_notes
from jobs.preparing import few_shots
from jobs.preparing.mixture import mix_places
from jobs.preparing.records import Records
from jobs.preparing.source_dataset import (
    BY_PATH,
    SourceDataset,
    choose_rows,
    list_training_places,
    read_published_ids,
)
from jobs.preparing.source_files import SourceFiles
from zsg_core.data import few_shot, instructions, mixing, splits
from zsg_core.data.examples import Example
from zsg_core.data.few_shot import FewShotRule
from zsg_core.data.presentation import Presentation
from zsg_core.data.prompts import Template
from zsg_core.digest import digest_ids
from zsg_core.errors import UserError
from zsg_core.recipe import Recipe, is_made, list_sources, list_tested

logger = logging.getLogger(__name__)

Places = NDArray[np.int64]
# source → its records and where in them the training examples of each task stand
Tasks = Mapping[str, tuple[Records, Mapping[str, Places]]]
AS_PUBLISHED = Presentation()
SHOWN = 5  # overlapping texts that are told with their ids; all are counted


@dataclass(frozen=True)
class Part:
    """Examples of one source: their places in its records, and the seed by which labels
    are drawn, if they are.

    `wordings` of an instruction are put in by the rule `worded`, if there is one.
    `presentation`: in which form they are asked.
    `shots` (examples, k) are the places in the same records of what stands before each
    example, by the rule `few_shot`: see jobs.preparing.few_shots.
    """

    source: str
    records: Records
    places: Places
    drawn_by: int | None
    wordings: Sequence[str] = ()
    worded: Recipe | None = None
    shots: Places | None = None
    few_shot: FewShotRule | None = None
    presentation: Presentation = AS_PUBLISHED

    def named(self, text: str) -> str:
        """An id or a task as the corpus calls it."""
        return f"{self.source}/{text}" if self.source else text

    def example(self, index: int) -> Example:
        """The example at a place of this part, with its label and its shots drawn."""
        position = int(self.places[index])
        record = self.records[position]
        is_inverted = self.presentation.is_inverted(record)
        example = self._form(record, is_inverted)
        if self.few_shot is not None:
            example = few_shot.add_shots(
                example,
                self.few_shot,
                self._make_shots(index, is_inverted),
            )
        if not self.source:
            return example
        return msgspec.structs.replace(
            example, id=self.named(example.id), task=self.named(example.task)
        )

    def _make_shots(self, index: int, is_inverted: bool) -> list[Example]:
        """The examples that stand before the one at an index of this part, turned round
        as it is."""
        assert self.shots is not None, "a part with a rule has drawn shots"
        return [
            self._form(self.records[position], is_inverted)
            for position in self.shots[index].tolist()
            if position != few_shots.NO_SHOT
        ]

    def _form(self, example: Example, is_inverted: bool) -> Example:
        """A record as the rules of the split have it: with its label drawn, and in their
        words."""
        if self.drawn_by is not None:
            example = splits.choose_answer(example, self.drawn_by)
        if is_inverted:
            return self.presentation.invert(example)
        if self.worded is not None:
            example = instructions.apply_wording(example, self.wordings, self.worded)
        return self.presentation.present(example)


class Selection(Sequence[Example]):
    """Some of the records, in an order, each as the recipe's rule makes it."""

    def __init__(self, parts: Sequence[Part], max_turns: int | None) -> None:
        self.parts, self.max_turns = parts, max_turns
        self._ends = np.cumsum([len(part.places) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._ends, index, side="right"))
        example = self.parts[which].example(
            index - int(self._ends[which - 1] if which else 0)
        )
        if self.max_turns and len(example.turns) > self.max_turns:
            return msgspec.structs.replace(
                example,
                turns=example.turns[: self.max_turns],
                references=(),
                options=(),
            )
        return example

    @cached_property
    def ids(self) -> list[str]:
        """The examples' ids, without making the examples."""
        return self._texts("id")

    @cached_property
    def tasks(self) -> list[str]:
        """The examples' tasks, without making the examples."""
        return self._texts("task")

    @property
    def sources(self) -> list[str]:
        """The names of the examples' sources; '' where data are of one."""
        return [part.source for part in self.parts for _ in part.places]

    @property
    def places(self) -> Places:
        """The examples' places in the records of their sources."""
        return (
            np.concatenate([part.places for part in self.parts])
            if self.parts
            else np.empty(0, np.int64)
        )

    def _texts(self, column: str) -> list[str]:
        return [
            part.named(text)
            for part in self.parts
            for text in part.records.texts(column, part.places)
        ]


class Corpus:
    """A corpus that is there: see `make_corpus`."""

    def __init__(self, workspace: Workspace, corpus_id: str) -> None:
        self.folder = workspace.corpus(corpus_id)
        self.meta: dict[str, Any] = read_json(self.folder / META) or {}
        if "sources" not in self.meta:
            raise UserError(
                f"{self.folder} was made by an older zsg; remove it, and zsg submit makes it again"
            )
        self.recipe: Recipe = self.meta["recipe"]
        self._workspace = workspace

    @property
    def template(self) -> Template:
        return Template.from_recipe(self.recipe["template"])

    @cached_property
    def train(self) -> Selection:
        return self._selection("train")

    @cached_property
    def test(self) -> Selection:
        return self._selection("test")

    def tasks(self) -> Tasks:
        """The training tasks of every source but the model's own answers, whatever is sampled."""
        own = list_sources(self.recipe)
        tasks: dict[str, tuple[Records, Mapping[str, Places]]] = {}
        for name, facts in self.meta["sources"].items():
            if is_made(own[name]):
                continue
            records = self._records(name, "train")
            places = list_training_places(records, facts["pool"], own[name])
            tasks[name] = records, places
        return tasks

    def _selection(self, split: str) -> Selection:
        places, parts, start = np.load(self.folder / f"{split}.npy"), [], 0
        shots = few_shots.read_shots(self.folder) if split == "train" else None
        for name, facts in self.meta["sources"].items():
            if count := facts[split]:
                own = places[start : start + count]
                wordings = facts.get("instructions", ())
                rule = list_sources(self.recipe)[name][split]
                bare = part_of(name, self._records(name, split), own, rule, wordings)
                table = None if shots is None else shots[start : start + count]
                parts.append(with_shots(bare, table, rule))
            start += count
        return Selection(parts, self.recipe.get("max_turns"))

    def list_held_out(self, name: str) -> dict[str, list[int]]:
        """Of a source that is tested, the places in its test records of all that is held
        out, whatever is tested of it, by task; of a listed task without examples none."""
        rule = list_sources(self.recipe)[name]
        of_task = choose_rows(self._records(name, "test").places(), rule, "test")
        made_of = self._workspace.records(
            self.meta["sources"][name]["records"]["train"]
        )
        lists = (read_json(made_of / META) or {}).get("lists")
        _, tasks = splits.divide_tasks(list(of_task), rule["held_out"], lists)
        if rule["held_out"]["by"] == BY_PATH:
            tasks = list(of_task)
        return {
            task: of_task[task].tolist() if task in of_task else [] for task in tasks
        }

    def open_test_part(self, name: str, places: Places) -> Part:
        """Examples of a source's test records, as its test items are presented."""
        rule = list_tested(self.recipe)[name]
        wordings = self.meta["sources"][name].get("instructions", ())
        return part_of(name, self._records(name, "test"), places, rule, wordings)

    def find_columns(self, name: str, split: str) -> Recipe:
        """Which column of the data of a source's split is what; nothing of a format that
        has columns of its own."""
        rule = list_sources(self.recipe)[name]
        is_apart = split == "test" and rule["held_out"]["by"] == BY_PATH
        return (rule["held_out"] if is_apart else rule).get("fields", {})

    def read_published_ids(self, files: Mapping[str, SourceFiles]) -> list[str | None]:
        """The ids that the rows of the training examples were published with, None for
        rows without; none at all where answers are a model's own.

        UserError where a source is no longer what the corpus was made of.
        """
        rows = np.load(self.folder / "train.npy")
        published: list[str | None] = []
        start = 0
        for name, facts in self.meta["sources"].items():
            count = facts["train"]
            rows_of_source = rows[start : start + count]
            start += count
            rule = list_sources(self.recipe)[name]
            named: Sequence[str | None] = ()
            if count and not is_made(rule):
                named = read_published_ids(rule, files[name].data)
            if named:  # of a format whose rows have ids of their own
                published += [named[int(row)] for row in rows_of_source]
            else:
                published += [None] * count
        return published

    def list_other_ids(self, files: Mapping[str, SourceFiles]) -> set[str]:
        """All ids that zsg and the data give to examples of the sources, also to those
        that this corpus does not train on: tested ones, and those that were not sampled.

        UserError where a source is no longer what the corpus was made of.
        """
        known: set[str] = set()
        for name, rule in list_sources(self.recipe).items():
            prefix = f"{name}/" if name else ""
            for split in ("train", "test"):
                records = self._records(name, split)
                ids = records.texts("id", np.arange(len(records)))
                known.update(f"{prefix}{example_id}" for example_id in ids)
            if not is_made(rule):
                published = read_published_ids(rule, files[name].data)
                known.update(text for text in published if text is not None)
        return known

    def _records(self, name: str, split: str) -> Records:
        return Records(
            self._workspace.records(self.meta["sources"][name]["records"][split])
        )


def first_of_each_task(
    tasks: Tasks, least: int, together: int
) -> Iterator[list[Example]]:
    """The first examples of every task that has any: `least` of each, or `together` of all."""
    there = [
        (records, places)
        for records, of_task in tasks.values()
        for places in of_task.values()
    ]
    each = max(least, together // max(1, len(there)))
    for records, places in there:
        yield [records[int(place)] for place in places[:each]]


def part_of(
    name: str, records: Records, places: Places, rule: Recipe, wordings: Sequence[str]
) -> Part:
    """Examples of a source under the rule of its training or its test examples."""
    drawn_by = rule.get("seed") if rule["sampling"] == "random" else None
    return Part(
        name,
        records,
        places,
        drawn_by,
        wordings,
        rule.get("instructions"),
        presentation=Presentation.from_recipe(rule),
    )


def with_shots(part: Part, shots: Places | None, rule: Recipe) -> Part:
    """The part with the shots of its examples, (examples, k) places in its records;
    itself where its rule has none."""
    if shots is None or "few_shot" not in rule:
        return part
    few_shot_rule = FewShotRule.from_recipe(rule["few_shot"])
    return replace(
        part,
        shots=shots,
        few_shot=few_shot_rule,
    )


def make_corpus(
    workspace: Workspace,
    corpus_id: str,
    recipe: Recipe,
    files: Mapping[str, SourceFiles],
) -> Corpus:
    """Reads and samples the data unless that is done. UserError for data that cannot be
    read or leave nothing.

    `files` are those of every source.
    """
    if not is_whole(workspace.corpus(corpus_id)):
        pools = {
            name: SourceDataset(workspace, name, rule, files[name])
            for name, rule in list_sources(recipe).items()
        }
        _Making(workspace, corpus_id, recipe, pools).make()
    return Corpus(workspace, corpus_id)


class _Making:
    """What the steps of making a corpus share."""

    def __init__(
        self,
        workspace: Workspace,
        corpus_id: str,
        recipe: Recipe,
        pools: Mapping[str, SourceDataset],
    ) -> None:
        self.workspace, self.id = workspace, corpus_id
        self.recipe, self.pools = recipe, pools
        self.notes: list[str] = []  # what is said of no single source
        self._shots: dict[str, few_shots.DrawnShots] = {}

    @property
    def all_notes(self) -> list[str]:
        """What was said of the sources, and of the whole."""
        of_sources = [note for pool in self.pools.values() for note in pool.notes]
        return [*of_sources, *self.notes]

    def warn(self, text: str) -> None:
        """Says what whoever reads the results must know, and keeps it with the corpus."""
        logger.warning(text)
        self.notes.append(text)

    def make(self) -> None:
        taken = {name: pool.train() for name, pool in self.pools.items()}
        trained = self._mix(self._parts(self._amounts(taken)))
        self._shots = few_shots.draw_shots(self.pools, trained)
        for drawn in self._shots.values():
            self.warn(drawn.note)
        tested = {name: pool.test() for name, pool in self.pools.items()}
        for name, pool in self.pools.items():
            if "test" in pool.rule:
                self._tell_if_empty(name, "test", tested[name])
        made = {
            "train": self._selection("train", trained),
            "test": self._selection("test", tested),
        }
        for split, chosen in made.items():
            if not len(chosen):
                told = ", ".join(str(pool.files.data) for pool in self.pools.values())
                raise UserError(
                    f"{told}: the {split} tasks have no instance left (check the caps and fraction)"
                )
        logger.info(
            f"corpus {self.id}: {len(made['train'])} training and {len(made['test'])} test examples"
        )
        if len(self.pools) > 1:
            logger.info(
                "training examples by source:"
                f" {_shown({name: len(own) for name, own in trained.items()})}"
            )
        self._publish(made, {"train": trained, "test": tested})

    def _amounts(self, taken: dict[str, list[int]]) -> dict[str, list[int]]:
        """What fraction, count or ratio leave of every source; ratios last, for they
        count others."""
        made: dict[str, list[int]] = {}
        for name in sorted(
            taken, key=lambda name: "ratio" in self.pools[name].rule["train"]
        ):
            rule, have = self.pools[name].rule["train"], taken[name]
            if not self.pools[name].is_used:
                made[name] = []
                continue
            wanted = mixing.count_kept(
                rule, len(have), len(made.get(rule.get("ratio_to"), ()))
            )
            if "ratio" in rule and wanted == len(have):
                self.warn(
                    f"{name}: all of its {len(have)} examples are used, for ratio {rule['ratio']}"
                    " asks for as many"
                )
            made[name] = splits.sample_nested(have, wanted, rule.get("seed", 0), name)
            self._tell_if_empty(name, "training", made[name])
        return {name: made[name] for name in taken}

    def _tell_if_empty(self, name: str, kind: str, places: Sequence[int]) -> None:
        """Says of a source that nothing of it is used, though the recipe asks for it.

        The other sources then make up the whole, and of a mix its shares, too.
        """
        if not places:
            self.warn(
                f"{name or self.pools[name].files.data}: its caps, tags and amounts leave no"
                f" {kind} example"
            )

    def _parts(self, taken: dict[str, list[int]]) -> dict[str, list[int]]:
        """The share k of every source that this stage trains on."""
        made = {}
        for name, places in taken.items():
            rule = self.pools[name].rule["train"]
            count = mixing.count_kept({"fraction": rule.get("k", 1)}, len(places))
            made[name] = splits.sample_nested(places, count, rule.get("seed", 0), name)
            if places and not count:
                self.warn(
                    f"{name}: k {rule['k']} of {len(places)} examples leaves none"
                )
        return made

    def _mix(self, taken: dict[str, list[int]]) -> dict[str, list[int]]:
        """Every task as often as the recipe's mix draws it; without one, every example once."""
        if "mix" not in self.recipe:
            return taken
        return mix_places(self.recipe["mix"], self.pools, taken, self.warn)

    def _selection(self, split: str, places: Mapping[str, list[int]]) -> Selection:
        drawn = self._shots if split == "train" else {}
        parts: list[Part] = []
        for name, pool in self.pools.items():
            if not places[name]:
                continue
            rule = pool.rule[split]
            bare = part_of(
                name,
                pool.records[split],
                np.array(places[name], np.int64),
                rule,
                pool.instructions,
            )
            table = drawn[name].table if name in drawn else None
            parts.append(with_shots(bare, table, rule))
        return Selection(parts, self.recipe.get("max_turns"))

    def _publish(
        self, made: dict[str, Selection], places: Mapping[str, Mapping[str, list[int]]]
    ) -> None:
        """Writes the places of the examples of each split, what they are made of, and
        what whoever reads results must know of them."""
        told = self._tell_overlap(made)
        facts = self._describe_sources(made["train"], places)
        with publish_folder(self.workspace.corpus(self.id)) as draft:
            for split, selection in made.items():
                np.save(draft / f"{split}.npy", selection.places)
            if self._shots:
                counts = {
                    name: len(trained) for name, trained in places["train"].items()
                }
                table = few_shots.join_shots(self._shots, counts)
                np.save(draft / few_shots.FILE, table)
            meta = {"recipe": self.recipe, "sources": facts, "overlap": told}
            meta |= self._count_examples(made)
            write_json(draft / META, meta)
            write_corpus_notes(draft, self.all_notes)

    def _tell_overlap(self, made: Mapping[str, Selection]) -> Recipe:
        """Goes through the examples of both splits once, and tells which test prompts
        are trained on and how many answers are empty. UserError where all of a source
        are."""
        answers = {split: _Answers(selection) for split, selection in made.items()}
        overlap = splits.find_overlap(answers["train"], answers["test"])
        for split, seen in answers.items():
            self._judge(split, seen)
        told = {
            "prompts": len(overlap),
            "with_answer": sum(same for *_, same in overlap),
            "first": overlap[:SHOWN],
        }
        if overlap:
            test_id, train_id, _ = overlap[0]
            self.warn(
                f"{told['prompts']} test prompts stand in the training examples too,"
                f" {told['with_answer']} of them with the same answer; the first: {test_id} is"
                f" {train_id}"
            )
        return told

    def _count_examples(self, made: Mapping[str, Selection]) -> Recipe:
        """What meta.json tells of both splits: how many examples and tasks, and by which
        digests of their ids they are known again."""
        meta: Recipe = {split: len(selection) for split, selection in made.items()}
        meta["tasks"] = {
            split: len(set(selection.tasks)) for split, selection in made.items()
        }
        for split, selection in made.items():
            meta[f"{split}_digest"] = digest_ids(selection.ids)
        if "mix" in self.recipe:
            meta["mix"] = dict(Counter(made["train"].tasks))
            meta["repeated"] = _repeats(made["train"].ids)
        return meta

    def _describe_sources(
        self, train: Selection, places: Mapping[str, Mapping[str, list[int]]]
    ) -> Recipe:
        """What meta.json tells of each source: its records, tasks and counts."""
        facts: Recipe = {}
        for name, pool in self.pools.items():
            facts[name] = {"records": pool.ids, "pool": pool.tasks["train"]}
            facts[name] |= {
                split: len(of_split[name]) for split, of_split in places.items()
            }
            if pool.instructions:
                facts[name] |= {
                    "instructions": pool.instructions,
                    "worded": _worded(train, name),
                }
            if name in self._shots:
                facts[name]["few_shot"] = self._shots[name].facts
        return facts

    def _judge(self, split: str, seen: "_Answers") -> None:
        """Tells how many answers are empty. UserError where a source has no other."""
        kind = {"train": "training", "test": "test"}[split]
        for part in seen.parts:
            files = self.pools[part.source].files
            lies = files.test if split == "test" and files.test else files.data
            if part.empty == part.turns:
                raise UserError(
                    f"{lies}: none of its {part.examples} {kind} examples has an answer; all are"
                    " empty"
                )
            if part.empty:
                taught = (
                    "only the answer's end is learnt of them"
                    if split == "train"
                    else "their loss and score say little"
                )
                self.warn(
                    f"{lies}: {part.empty} of {part.turns} answers of the {part.examples} {kind}"
                    f" examples are empty; {taught}"
                )


@dataclass
class _Seen:
    """How many answers of a source's examples are empty or blank."""

    source: str
    examples: int = 0
    turns: int = 0
    empty: int = 0


class _Answers:
    """Goes through examples, and has counted their empty answers by source when it has
    come to their end."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self.parts: list[_Seen] = []

    def __iter__(self) -> Iterator[Example]:
        self.parts, place = [], 0
        for part in self._selection.parts:
            seen = _Seen(part.source, len(part.places))
            for example in map(
                self._selection.__getitem__, range(place, place + seen.examples)
            ):
                seen.turns += len(example.turns)
                seen.empty += sum(not answer.strip() for _, answer in example.turns)
                yield example
            place += seen.examples
            self.parts.append(seen)


def _worded(train: Selection, name: str) -> list[int]:
    """How many training examples of a source have each wording of its instruction."""
    counts = [0] * max(
        (len(part.wordings) for part in train.parts if part.source == name), default=0
    )
    for part in train.parts:
        if part.source == name and part.worded is not None:
            for made_id in part.records.texts("id", part.places):
                counts[
                    instructions.choose_wording(len(counts), part.worded, made_id)
                ] += 1
    return counts


def _repeats(ids: Sequence[str]) -> int:
    """How many examples have come before in the list."""
    return len(ids) - len(set(ids))


def _shown(counts: Mapping[str, int]) -> str:
    whole = sum(counts.values())
    return ", ".join(
        f"{name} {count} ({count / whole:.2%})" for name, count in counts.items()
    )
