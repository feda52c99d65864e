"""The prepare job: samples the data, embeds it, puts it in order, makes the tiny base; each thing once.

One prepare job serves every run that shares its corpus. What is already there is left alone, so the job may
be killed and repeated at any moment.
"""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs import arrangement, base_model, content
from jobs.folder import Workspace, is_committed, publish, write_json
from zsg_core import examples, niv2, prompts, splits
from zsg_core.errors import UserError
from zsg_core.examples import Example
from zsg_core.recipe import Recipe

BASE_TEXTS_PER_TASK = 100  # what the tokenizer learns from: the published cap, whatever the run samples

Say = Callable[[str], None]


def run(job: dict[str, Any], say: Say) -> None:
    """Makes every corpus, base and arrangement that the job lists."""
    workspace = Workspace(Path(job["paths"]["workspace"]))
    data = Path(job["paths"]["data"])
    content.refuse_changed(data, content.data_files, job["corpus"]["recipe"]["digest"])
    corpus = Corpus(workspace, job["corpus"]["id"], job["corpus"]["recipe"], data, say)
    corpus.make()
    for base in job["bases"]:
        if not is_committed(workspace.base(base["id"])):
            say(f"base {base['id']}: training the tokenizer, drawing the weights")
            base_model.make_tiny(workspace.base(base["id"]), base["recipe"], _base_texts(data, base["recipe"]))
    for wanted in job["arrangements"]:
        if not is_committed(workspace.arrangement(wanted["id"])):
            arrangement.make(workspace, corpus, wanted["id"], wanted["recipe"], job["paths"]["embedding"], say)


class Corpus:
    """The sampled training pool and the fixed test set of one data recipe."""

    def __init__(self, workspace: Workspace, corpus_id: str, recipe: Recipe, data: Path, say: Say) -> None:
        self._workspace, self._id, self._recipe, self._data, self._say = (
            workspace,
            corpus_id,
            recipe,
            data,
            say,
        )

    @property
    def folder(self) -> Path:
        return self._workspace.corpus(self._id)

    @property
    def shots(self) -> int:
        return self._recipe["template"]["positive_examples"]

    @cached_property
    def train(self) -> list[Example]:
        return list(examples.read_jsonl(self.folder / "train.jsonl"))

    @cached_property
    def test(self) -> list[Example]:
        return list(examples.read_jsonl(self.folder / "test.jsonl"))

    def make(self) -> None:
        """Reads and samples the data unless that is done; the tasks of the two splits must differ."""
        if is_committed(self.folder):
            return
        names = {split: niv2.task_names(self._data, split) for split in ("train", "test")}
        both = sorted(set(names["train"]) & set(names["test"]))
        if both:
            raise UserError(f"{self._data}: {both[0]} is in both splits; a held-out task must not be trained on")
        train = self._sample(names["train"], self._recipe["train"])
        train = splits.take_fraction(
            train, Fraction(self._recipe["train"]["fraction"]), self._recipe["train"].get("seed", 0)
        )
        test = self._sample(names["test"], self._recipe["test"])
        self._refuse_empty(train, test)
        self._say(f"corpus {self._id}: {len(train)} training and {len(test)} test examples")
        self._publish(train, test)

    def _sample(self, names: list[str], rule: Recipe) -> list[Example]:
        chosen: list[Example] = []
        for name in names[: rule.get("tasks")]:
            task = niv2.read_task(self._data, name)
            capped = splits.cap(task, rule["per_task"], rule["sampling"], rule.get("seed", 0))
            drawn = rule["sampling"] == "random"
            chosen += [splits.choose_answer(e, rule["seed"]) for e in capped] if drawn else capped
        return chosen

    def _refuse_empty(self, train: list[Example], test: list[Example]) -> None:
        for split, chosen in (("train", train), ("test", test)):
            if not chosen:
                raise UserError(f"{self._data}: the {split} tasks have no instance left (check the caps and fraction)")

    def _publish(self, train: list[Example], test: list[Example]) -> None:
        with publish(self.folder) as draft:
            examples.write_jsonl(draft / "train.jsonl", train)
            examples.write_jsonl(draft / "test.jsonl", test)
            meta = {"recipe": self._recipe, "train": len(train), "test": len(test)}
            meta |= {"tasks": {"train": len({e.task for e in train}), "test": len({e.task for e in test})}}
            meta |= {f"{split}_digest": _file_digest(draft / f"{split}.jsonl") for split in ("train", "test")}
            write_json(draft / "meta.json", meta)


def _base_texts(data: Path, base: Recipe) -> list[str]:
    shots = int(base["tokenizer"]["positive_examples"])
    texts: list[str] = []
    for name in niv2.task_names(data, "train"):
        task = niv2.read_task(data, name)[:BASE_TEXTS_PER_TASK]
        # A task's definition and positive examples repeat in every prompt; learning them once is enough.
        texts += prompts.training_texts(task[:1], shots) + [f"{e.input}\n{e.answer}" for e in task]
    return texts


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
