"""Finds what the user supplies for benchmarks and the reward model, and refuses what no
evaluator could use.

The files are small, and are read whole before anything is submitted: an evaluator would
meet a bad row hours later.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import TypeVar

from jobs.files import paths
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


def check_suite_files(settings: Iterable[CheckpointSettings]) -> None:
    """Raises UserError, with the setting, for what is not there or cannot be read; each
    is read once."""
    checked: set[tuple[str, str]] = set()
    for checkpoints in settings:
        files = {
            name: (key, locate_file(key, path))
            for name, (key, path) in suites.find_needed_files(checkpoints).items()
        }
        new = [
            name
            for name, (_, path) in files.items()
            if (name, str(path)) not in checked
        ]
        checked |= {(name, str(files[name][1])) for name in new}
        for name in new:
            _check_file(name, *files[name])
        if suites.PROMPTS in files and (MT_BENCH in new or suites.PROMPTS in new):
            _check_judged(files[MT_BENCH][1], *files[suites.PROMPTS])


def locate_file(key: str, text: str) -> Path:
    """Where a file or folder lies, absolute. UserError where there is none."""
    try:
        path = paths.make_absolute(Path(text).expanduser())
        path.resolve()  # raises for links in a circle
        is_there = path.exists()
    except (
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: no such user, links in a circle
        raise UserError(
            f"{key}: {format_brief(text)} is no file or folder: {error}"
        ) from error
    if not is_there:
        raise UserError(f"{key}: {path}: no such file or folder")
    return path


def _check_file(name: str, key: str, path: Path) -> None:
    if name == REWARD:
        model_folder.check_reward(key, path)
    elif name == suites.PROMPTS:
        _name_setting(key, lambda: mt_bench.read_judge_prompts(path))
    else:
        questions = _name_setting(
            key, lambda: list(readers.read_examples(name, path, Intake()))
        )
        if name == GSM8K:
            answers = [_empty_answer(each, each.id) for each in questions]
            _name_setting(key, lambda: gsm8k.score_answers(answers))


def _check_judged(questions: Path, key: str, prompts: Path) -> None:
    """Whether every question can be put to the judge: some need a reference answer."""
    items = list(readers.read_examples(MT_BENCH, questions, Intake()))
    answers = [
        [
            _empty_answer(item, mt_bench.turn_id(item, number))
            for number in range(1, len(item.turns) + 1)
        ]
        for item in items
    ]
    _name_setting(
        key,
        lambda: mt_bench.build_requests(
            items, mt_bench.read_judge_prompts(prompts), chain.from_iterable(answers)
        ),
    )


def _empty_answer(question: Example, item: str) -> Answered:
    return Answered(
        id=item,
        task=question.task,
        prompt="",
        references=question.right_answers,
        answer="",
    )


def _name_setting(key: str, do: Callable[[], T]) -> T:
    """What is done; an error names the setting."""
    try:
        return do()
    except UserError as error:
        raise type(error)(f"{key}: {error}") from None
