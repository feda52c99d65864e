"""Finds what the user supplies for benchmarks and the reward model, and refuses what no
evaluator could use.

The files are small, and are read whole before anything is submitted: an evaluator would
meet a bad row hours later.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar

from jobs.files import paths
from launcher.grids import model_folder
from launcher.grids.input_faults import InputFaults
from zsg_core import suites
from zsg_core.data import readers
from zsg_core.data.examples import Example
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError
from zsg_core.metrics import gsm8k, mt_bench, pairs
from zsg_core.metrics.metrics import GSM8K, MT_BENCH, REWARD
from zsg_core.metrics.scoring import Answered
from zsg_core.schema_errors import format_brief
from zsg_core.settings.checkpoints import CheckpointSettings

T = TypeVar("T")


def find_suite_faults(
    settings: Iterable[CheckpointSettings], faults: InputFaults
) -> None:
    """Adds, with the setting, what is not there or cannot be read; each file is read
    once."""
    checked: dict[tuple[str, str], bool] = {}
    for checkpoints in settings:
        needed = suites.find_needed_files(checkpoints)
        is_new = False
        for name, (key, path) in needed.items():
            if (name, path) not in checked:
                checked[name, path] = _has_no_fault(name, key, path, faults)
                is_new = True
        to_judge = [each for each in (MT_BENCH, suites.PROMPTS) if each in needed]
        both_read = all(checked[each, needed[each][1]] for each in to_judge)
        if is_new and len(to_judge) == 2 and both_read:
            key, path = needed[suites.PROMPTS]
            with faults.collecting(key, path):
                questions = locate_file(*needed[MT_BENCH])
                prompts = locate_file(key, path)
                _check_judged(questions, key, prompts)
                if suites.BASELINE in needed:
                    _check_pair_prompts(key, prompts)
            _find_baseline_fault(needed, checked, faults)


def _has_no_fault(name: str, key: str, path: str, faults: InputFaults) -> bool:
    """Whether a file is there and can be read; else what is wrong is added."""
    is_sound = False
    with faults.collecting(key, path):
        _check_file(name, key, locate_file(key, path))
        is_sound = True
    return is_sound


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
    elif name == suites.BASELINE:
        _name_setting(key, lambda: pairs.read_baseline(path))
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


def _check_pair_prompts(key: str, prompts: Path) -> None:
    """Whether a judge can be asked to compare."""
    _name_setting(key, lambda: pairs.read_prompts(prompts))


def _find_baseline_fault(
    needed: Mapping[str, tuple[str, str]],
    checked: Mapping[tuple[str, str], bool],
    faults: InputFaults,
) -> None:
    """Adds that a baseline has nothing to compare with, where it can be read."""
    compared = (MT_BENCH, suites.BASELINE)
    if not all(name in needed and checked[name, needed[name][1]] for name in compared):
        return
    key, path = needed[suites.BASELINE]
    with faults.collecting(key, path):
        _check_baseline(locate_file(*needed[MT_BENCH]), key, path)


def _check_baseline(questions: Path, key: str, baseline: str) -> None:
    """Whether a baseline answers any of the questions. UserError where it answers none,
    with an id of each."""
    items = readers.read_examples(MT_BENCH, questions, Intake())
    turns = pairs.list_turns(items)
    path = locate_file(key, baseline)
    answered = _name_setting(key, lambda: pairs.read_baseline(path))
    if not any(turn in answered for turn in turns):
        raise UserError(
            f"{key}: {path}: answers no question of {questions}: its ids are like"
            f" {format_brief(next(iter(answered)))}, those of the questions' turns like"
            f" {format_brief(next(iter(turns), None))}; take what `zsg answers export` prints of"
            " answers to these questions"
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
