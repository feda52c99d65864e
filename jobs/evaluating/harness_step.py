"""Takes tasks of lm-evaluation-harness of one step, and journals what was found.

Ids of items are their places in their tasks. Items and prompts have a digest, of data,
shots and template together; what is found of a key at one step is never put beside
values of another digest.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import to_builtins

from jobs.contract import harness_outputs, item_losses
from jobs.contract.harness_outputs import HarnessLine
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import InsideTaken
from jobs.evaluating.eval_target import EvalTarget
from jobs.evaluating.harness import Harness, HarnessTaken, HeldModel
from jobs.evaluating.harness_prompts import PromptWriter
from jobs.evaluating.harness_replies import HeldReplies, read_replies
from jobs.evaluating.harness_taking import Taking
from jobs.model import content
from jobs.model.generate import Generator, count_positions
from jobs.model.whole_texts import WholeTexts
from jobs.training.tokens import how_encoded
from zsg_core.data.harness_tasks import (
    HarnessTask,
    TaskCode,
    TaskShelf,
    locate_shipped,
)
from zsg_core.digest import canonical_json
from zsg_core.errors import PluginError, UserError
from zsg_core.metrics.keys import HARNESS, STANDARD_ERROR
from zsg_core.plugins import loading
from zsg_core.suites import Suite, list_task_code, list_task_folders

logger = logging.getLogger(__name__)

CHANGED = (
    "the files of task {task} in {folder} have changed since this was submitted; zsg submit"
    " again takes what they are now, under another `name` in checkpoints.suites.lm_eval"
)
OTHER_ITEMS = (
    "{key}: its items or prompts are not those of earlier steps ({path} has others): its data"
    " have changed. Give checkpoints.suites.lm_eval a name, which keys then carry"
)


class HarnessStep:
    """The tasks of an evaluate job, of all its runs and steps. `item`: the job."""

    def __init__(self, item: str) -> None:
        self._item = item
        self._harness = Harness()
        # what the weights that are held have said, and of which run, step and way
        self._said: tuple[str, HeldReplies] | None = None

    def take(
        self,
        target: EvalTarget,
        suite: Suite,
        key: str,
        journal: Journal,
        taking: Taking,
    ) -> None:
        """Takes one key of a suite by the weights that are held, and journals it: each
        item's values, what the model said, the metrics. UserError for a task that is
        not what was planned with, or that the harness cannot do."""
        started = time.perf_counter()
        definition = suite.scored_by[key]
        task = open_task(suite, definition)
        loaded = self._harness.open_task(
            _describe_asked(target, suite.how),
            task,
            suite.how,
            _find_data(suite),
            lambda: make_writer(target, suite.how),
        )
        replies = self._find_replies(target, suite, taking)
        taken = loaded.take(key, hold_model(target, suite.how, taking, replies))
        name = f"{HARNESS}-{taken.digest[:16]}"
        _refuse_other_items(target.folder, key, name)
        line = HarnessLine(
            step=taking.step, key=key, digest=taken.digest, items=taken.outputs
        )
        output = harness_outputs.keep_outputs(target.folder, journal.name, line)
        settings = suite.find_definition(key)
        event = InsideTaken(
            ways={key: settings} | dict.fromkeys(taken.values.metrics, settings),
            files=[to_builtins(output)],
            weights=taking.weights,
            probe_loss=taking.probe_loss,
            device=taking.device,
            seconds=time.perf_counter() - started,
            by=self._item,
            flags=taken.values.flags,
            **taking.placement,
        )
        journal.add_event(event, step=taking.step, examples=taking.examples)
        _journal_values(target.folder, journal, name, taken, taking)
        journal.commit()
        logger.info(f"{target.folder.name} step {taking.step}: {_describe(taken)}")

    def _find_replies(
        self, target: EvalTarget, suite: Suite, taking: Taking
    ) -> HeldReplies:
        """What the weights of the step have said for other keys, by this job or by those
        before."""
        whose = [str(target.folder), taking.step, taking.weights, dict(suite.how)]
        held_by = canonical_json(whose)
        if self._said is None or self._said[0] != held_by:
            replies = read_replies(
                target.folder, taking.step, taking.weights, suite.how
            )
            self._said = held_by, replies
        return self._said[1]


def _journal_values(
    run: Path, journal: Journal, name: str, taken: HarnessTaken, taking: Taking
) -> None:
    """Journals each item's values, then the metrics.

    The row of metrics comes last, so a key is taken as a whole or not at all. A metric
    without values of items has its value alone.
    """
    values = taken.values
    item_losses.describe_keys(run, name, taken.ids, taken.tasks, values.by_item)
    for key, by_item in values.by_item.items():
        numbers = np.array([by_item.get(item, np.nan) for item in taken.ids])
        item_losses.journal_item_losses(
            journal, key, numbers, step=taking.step, examples=taking.examples, of=name
        )
    errors = {f"{key}{STANDARD_ERROR}": value for key, value in values.errors.items()}
    journal.add_metrics(
        values.values | errors, step=taking.step, examples=taking.examples
    )


def _describe(taken: HarnessTaken) -> str:
    """Each key with its value, and which metric of the harness it is."""
    metrics = taken.values.metrics
    texts = [
        f"{key} {value:.4g} ({metrics[key]})"
        for key, value in taken.values.values.items()
    ]
    if taken.reused:
        texts.append(f"{taken.reused:,} requests were answered for another key already")
    return "; ".join([*texts, *taken.values.flags])


def open_task(suite: Suite, definition: Mapping[str, Any]) -> HarnessTask:
    """A task from the folders that were planned with, read again without running it.

    UserError where its files have changed since: values would be of another task than
    their key says, and shipped tasks hold code.
    """
    name = definition["task"]
    files = list_task_folders(suite.files, name)
    shelf = locate_shipped()
    shipped: list[Path] = []
    users: list[Path] = []
    for file in files:
        folder = Path(file.path)
        is_shipped = shelf is not None and folder.is_relative_to(shelf)
        (shipped if is_shipped else users).append(folder)
    code = find_task_code(suite, name)
    task = TaskShelf(users, shelf, shipped, code).find(name)
    for file in files:
        if _digest_within(task, Path(file.path)) != file.digest:
            raise UserError(CHANGED.format(task=name, folder=file.path))
    return task


def find_task_code(suite: Suite, task: str) -> list[TaskCode]:
    """The plugins whose functions a task may name, as this job has copies of them.
    PluginError where it has none of one: it was submitted without."""
    code: list[TaskCode] = []
    for file in list_task_code(suite.files, task):
        plugin = loading.find_plugin(file.digest)
        if plugin is None:
            raise PluginError(
                f"{file.path}: this job has no copy of it; zsg submit again, with it under"
                " `plugins`"
            )
        code.append(
            TaskCode(
                path=Path(file.path),
                name=plugin.name,
                digest=plugin.digest,
                defined=plugin.defined,
                text=plugin.text,
            )
        )
    return code


def _digest_within(task: HarnessTask, folder: Path) -> str:
    """The digest of those files of a task that are in a folder."""
    paths = [path for path in task.files if path.is_relative_to(folder)]
    return content.folder_digest(folder, paths, content.sha256_of(paths))


def _find_data(suite: Suite) -> Path | None:
    """Where clones of data sets lie, if somewhere."""
    file = suite.files.get(f"{HARNESS}#data")
    return None if file is None else Path(file.path)


def _describe_asked(target: EvalTarget, how: Mapping[str, Any]) -> str:
    """What two runs have in common that are asked the same, token for token."""
    template = how_encoded(target.job.stage)["template"]
    return canonical_json([str(target.job.base_folder), how, template])


def make_writer(target: EvalTarget, how: Mapping[str, Any]) -> PromptWriter:
    """How a run's model is asked."""
    texts = WholeTexts.open(target.tokenizer_folder)
    return PromptWriter(how["chat"], target.make_asker(), texts)


def hold_model(
    target: EvalTarget, how: Mapping[str, Any], taking: Taking, replies: HeldReplies
) -> HeldModel:
    """The model as its weights are now. `replies`: what these have said already.

    Answers end, too, at the tokens that a base's generation_config.json names, as in
    the harness.
    """
    words = target.vocabulary

    def make_generator(decoding: Mapping[str, Any]) -> Generator:
        ends = sorted({*decoding.get("ends", ()), *how.get("ends", ())})
        generator = Generator(
            taking.swapper.decoder,
            {**decoding, "ends": ends},
            words.bos,
            words.eos,
            taking.device,
            words.text,
        )
        assert taking.swapper.budget is not None, "a model is held"
        generator.budget = taking.swapper.budget
        return generator

    return HeldModel(
        model=taking.swapper.model,
        device=taking.device,
        budget=taking.budget,
        positions=count_positions(taking.swapper.decoder.config),
        make_generator=make_generator,
        replies=replies,
    )


def _refuse_other_items(run: Path, key: str, name: str) -> None:
    """UserError where a key has values of other items already.

    The list of a key's items is named by the digest of items and prompts; so another
    list with the key in it is of other data, shots or template.
    """
    for path in sorted(run.glob(f"{HARNESS}-*.json")):
        if path.stem == name:
            continue
        if key in item_losses.read_items(run, path.stem).parts:
            raise UserError(OTHER_ITEMS.format(key=key, path=path.name))
