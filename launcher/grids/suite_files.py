"""Finds what the user supplies for benchmarks and the reward model, and refuses what no
evaluator could use.

The files are small, and are read whole before anything is submitted: an evaluator would
meet a bad row hours later.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import TypeVar

from launcher.grids import model_folder
from zsg_core import suites
from zsg_core.data import readers
from zsg_core.data.examples import Example
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError
from zsg_core.metrics import gsm8k, mt_bench
from zsg_core.metrics.metrics import GSM8K, MT_BENCH, REWARD
from zsg_core.metrics.scoring import Answered
from zsg_core.schema_errors import format_brief
from zsg_core.settings.checkpoints import CheckpointSettings

T = TypeVar("T")


def check_suite_files(asked: Iterable[CheckpointSettings]) -> None:
    """Raises UserError, with the setting, for what is not there or cannot be read; each
    is read once."""
    looked_at: set[tuple[str, str]] = set()
    for own in asked:
        found = {
            name: (key, locate_file(key, given))
            for name, (key, given) in suites.find_needed_files(own).items()
        }
        new = [
            name
            for name, (_, path) in found.items()
            if (name, str(path)) not in looked_at
        ]
        looked_at |= {(name, str(found[name][1])) for name in new}
        for name in new:
            _check_one(name, *found[name])
        if suites.PROMPTS in found and (MT_BENCH in new or suites.PROMPTS in new):
            _check_judged(found[MT_BENCH][1], *found[suites.PROMPTS])


def locate_file(key: str, given: str) -> Path:
    """Where a file or folder lies, absolute. UserError where there is none."""
    try:
        path = Path(given).expanduser().resolve()
        is_there = path.exists()
    except (
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: no such user, links in a circle
        raise UserError(
            f"{key}: {format_brief(given)} is no file or folder: {error}"
        ) from error
    if not is_there:
        raise UserError(f"{key}: {path}: no such file or folder")
    return path


def _check_one(name: str, key: str, path: Path) -> None:
    if name == REWARD:
        model_folder.check_reward(key, path)
    elif name == suites.PROMPTS:
        _told(key, lambda: mt_bench.read_judge_prompts(path))
    else:
        read = _told(key, lambda: list(readers.read_examples(name, path, Intake())))
        if name == GSM8K:
            _told(
                key, lambda: gsm8k.score_answers([_said(one, one.id) for one in read])
            )


def _check_judged(questions: Path, key: str, prompts: Path) -> None:
    """Whether every question can be put to the judge: some need a reference answer."""
    read = list(readers.read_examples(MT_BENCH, questions, Intake()))
    said = [
        [
            _said(one, mt_bench.turn_id(one, number))
            for number in range(1, len(one.turns) + 1)
        ]
        for one in read
    ]
    _told(
        key,
        lambda: mt_bench.build_requests(
            read, mt_bench.read_judge_prompts(prompts), chain.from_iterable(said)
        ),
    )


def _said(question: Example, item: str) -> Answered:
    return Answered(
        id=item,
        task=question.task,
        prompt="",
        references=question.right_answers,
        answer="",
    )


def _told(key: str, do: Callable[[], T]) -> T:
    """What is done; an error names the setting."""
    try:
        return do()
    except UserError as error:
        raise type(error)(f"{key}: {error}") from None
