"""Draws the shots of a corpus' training examples, and keeps where each stands.

shots.npy (N, k) int64, beside train.npy: for each training example of the corpus the
places of its shots in the training records of its source, in the order shown; −1
where there are fewer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.preparing.records import Records
from jobs.preparing.source_dataset import SourceDataset
from zsg_core.data import few_shot
from zsg_core.data.examples import Example
from zsg_core.data.few_shot import Candidate, FewShotRule
from zsg_core.digest import digest_ids
from zsg_core.errors import UserError
from zsg_core.recipe import Recipe

FILE = "shots.npy"
NO_SHOT = -1
Places = NDArray[np.int64]


@dataclass(frozen=True)
class DrawnShots:
    """The shots of a source's examples and what is to be told of their draw.

    `table` (examples, k) holds places in the records, as shots.npy does. `facts` are
    for meta.json; `note` is a sentence for whoever reads the results.
    """

    table: Places
    facts: Recipe
    note: str


def draw_shots(
    pools: Mapping[str, SourceDataset], trained: Mapping[str, Sequence[int]]
) -> dict[str, DrawnShots]:
    """The shots of each source whose recipe asks for any; `trained` are the places of
    its training examples.

    UserError where a task has too few examples to show.
    """
    rules = {
        name: FewShotRule.from_recipe(pool.rule["train"]["few_shot"])
        for name, pool in pools.items()
        if "few_shot" in pool.rule["train"]
    }
    if not rules:
        return {}
    tested = _list_tested_questions(pools)
    return {
        name: _Draw(pools[name], rule, tested).draw(trained[name])
        for name, rule in rules.items()
    }


def _list_tested_questions(pools: Mapping[str, SourceDataset]) -> set[bytes]:
    """The digests of all questions of all held-out examples, sampled or not."""
    questions: set[bytes] = set()
    for pool in pools.values():
        records = pool.records["test"]
        for position in pool.list_held_out():
            example = records[position]
            questions |= few_shot.list_questions(example)
    return questions


@dataclass
class _TaskPool:
    """The training examples of a task: their positions in the records, in file order,
    and a digest of their ids."""

    positions: Places
    digest: str


@dataclass
class _Draw:
    """The draw of one source.

    `tested` are the digests of the questions that no shot may have. What was found of a
    task's pool and of an example of it is kept while the source is gone through.
    """

    source: SourceDataset
    rule: FewShotRule
    tested: set[bytes]
    _pools: dict[str, _TaskPool] = field(default_factory=dict)
    _task: str | None = None
    _candidates: dict[int, Candidate] = field(default_factory=dict)

    def draw(self, trained: Sequence[int]) -> DrawnShots:
        """The shots of the examples at these positions in the records, in their order.

        UserError where too few may be shown before one of them.
        """
        table = np.full((len(trained), self.rule.k), NO_SHOT, np.int64)
        of_task = self.source.list_trainable()
        count = 0
        for row, position in enumerate(trained):
            example = self._records[position]
            if example.is_text or not self.rule.is_shown_any(example.id):
                continue
            pool = self._open_pool(example.task, of_task)
            table[row] = self._choose(pool, position, example)
            count += 1
        facts = self._describe(count)
        note = self._write_note(count, len(trained))
        return DrawnShots(table, facts, note)

    @property
    def _records(self) -> Records:
        """The training records of the source."""
        return self.source.records["train"]

    def _open_pool(self, task: str, of_task: Mapping[str, Places]) -> _TaskPool:
        """The pool of a task; its ids are digested once.

        Examples mostly stand task after task: what was found of another task's is let
        go, so that a set of millions does not fill the memory.
        """
        if task != self._task:
            self._task = task
            self._candidates.clear()
        if task not in self._pools:
            positions = of_task[task]
            ids = self._records.texts("id", positions)
            self._pools[task] = _TaskPool(positions, digest_ids(ids))
        return self._pools[task]

    def _choose(self, pool: _TaskPool, position: int, example: Example) -> list[int]:
        """The positions of an example's shots, in the order shown."""
        size = len(pool.positions)
        order = self.rule.order_pool(pool.digest, example.id, size)
        chosen = few_shot.choose_shots(
            self._look_at(pool, order),
            self.rule.k,
            position,
            few_shot.list_questions(example),
        )
        if len(chosen) < self.rule.k:
            self._refuse_short(example.task, size, len(chosen))
        return chosen

    def _look_at(self, pool: _TaskPool, order: Iterator[int]) -> Iterator[Candidate]:
        """The examples of a pool, in an order, each judged once."""
        for number in order:
            position = int(pool.positions[number])
            if position not in self._candidates:
                self._candidates[position] = self._judge(position)
            yield self._candidates[position]

    def _judge(self, position: int) -> Candidate:
        """An example by what decides whether it may be shown."""
        question = few_shot.find_question(self._records[position])
        if question in self.tested:
            return Candidate(position, None)
        return Candidate(position, question)

    def _refuse_short(self, task: str, size: int, usable: int) -> None:
        """UserError for a task of whose `size` examples only `usable` could be shown."""
        name = f"{self.source.name}/{task}" if self.source.name else task
        reason = few_shot.explain_short(name, size, usable, self.rule.k)
        raise UserError(f"{self.source.files.data}: {reason}")

    def _describe(self, count: int) -> Recipe:
        """What meta.json tells; `count` examples have shots."""
        sizes = self._list_sizes()
        digests = [f"{task} {pool.digest}" for task, pool in self._pools.items()]
        of_pool: Recipe = {
            "tasks": len(sizes),
            "examples": sum(sizes.values()),
            "digest": digest_ids(sorted(digests)),
        }
        return {
            "k": self.rule.k,
            "examples": count,
            "pool": of_pool,
        }

    def _write_note(self, count: int, examples: int) -> str:
        """The sentence on a draw, in which `count` of the examples got shots."""
        name = self.source.name or self.source.files.data.name
        note = f"{name}: few_shot: {count} of {examples} training examples have"
        note += f" {self.rule.k} of their task before them"
        sizes = self._list_sizes()
        if not sizes:
            return note
        smallest = min(sizes, key=lambda task: sizes[task])
        note += f", out of {sum(sizes.values())} of {len(sizes)} tasks; the smallest"
        note += f" pool, {smallest}, has {sizes[smallest]}"
        return note

    def _list_sizes(self) -> dict[str, int]:
        """How many examples the pool of each task has that any were drawn from."""
        return {task: len(pool.positions) for task, pool in self._pools.items()}


def join_shots(drawn: Mapping[str, DrawnShots], counts: Mapping[str, int]) -> Places:
    """The shots of all sources, one after the other, as shots.npy has them.

    `counts` are the examples of each source, in the order of the corpus; a source
    without shots has rows of −1.
    """
    width = max(shots.table.shape[1] for shots in drawn.values())
    joined = np.full((sum(counts.values()), width), NO_SHOT, np.int64)
    start = 0
    for name, count in counts.items():
        if name in drawn:
            table = drawn[name].table
            joined[start : start + count, : table.shape[1]] = table
        start += count
    return joined


def read_shots(folder: Path) -> Places | None:
    """The shots of a corpus, mapped from its folder; None of one without any source
    that has few_shot."""
    file = folder / FILE
    return np.load(file, mmap_mode="r") if file.exists() else None
