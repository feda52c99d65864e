"""Keeps what a model answered at each checkpoint, so that it can be scored and judged
again without a GPU.

<run>/answers/<writer>.jsonl   one file per evaluator, named as its journal; a line is
                               one AnswersLine

The journal's event AnswersKept tells file, offset and bytes of a line: what no event
tells of was cut by a kill and counts for nothing.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from jobs.contract import journal
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import SCHEMA
from jobs.contract.journal_rows import AnswersKept, Number, Row, find_events
from jobs.contract.json_values import DECODE_ERRORS, convert_json
from jobs.files import ownership
from zsg_core.errors import ClusterError
from zsg_core.metrics.scoring import Answered
from zsg_core.suites import is_older_way

FOLDER = "answers"
Item = tuple[str, str, str, list[str], str]  # id, task, prompt, references, answer


class Generation(Struct, frozen=True, kw_only=True):
    """How answers came about. `weights`: the snapshot's digest, None of the base.
    `probe_loss`: the test loss of what answered. `tokens`: how many were generated.
    `asked`: counts, see jobs.evaluating.asking. `by`: the evaluate job."""

    weights: str | UnsetType | None = UNSET
    probe_loss: Number | UnsetType | None = UNSET
    engine: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    versions: dict[str, str] | UnsetType = UNSET
    swap_s: float | UnsetType = UNSET
    generate_s: float | UnsetType = UNSET
    tokens: int | UnsetType = UNSET
    asked: dict[str, Any] | UnsetType = UNSET
    slurm_job_id: str | UnsetType | None = UNSET
    nodes: str | UnsetType = UNSET
    by: str | UnsetType = UNSET


class AnswersLine(Struct, frozen=True, kw_only=True):
    """The answers of one step to one suite: what of a line is read. Before `items` it
    has a schema number, the fields of Generation, and step, suite and how."""

    items: list[Item]


@dataclass(frozen=True)
class Place:
    """Where the answers of a step are: `size` bytes of a file of the run, from `at` on.

    `asked` counts how they came about: see jobs.evaluating.asking; empty of an older zsg's.
    """

    file: str
    at: int
    size: int
    asked: Mapping[str, int] = field(default_factory=dict[str, int], compare=False)


@dataclass(frozen=True)
class KeptAnswers:
    """What a run's journal tells of the answers of a step, made in one way: `how`. `keys`:
    the metrics that were taken of them."""

    step: int
    suite: str
    how: dict[str, Any]
    keys: tuple[str, ...]
    place: Place


@dataclass(frozen=True)
class Asked:
    """What was answered: a suite at a step. `how`: the settings that answers depend on."""

    step: int
    suite: str
    how: Mapping[str, Any]


def keep_answers(
    run: Path,
    writer: str,
    request: Asked,
    generation: Generation,
    answers: Sequence[Answered],
) -> Place:
    """Appends the answers to the writer's file; on disk when this returns."""
    folder = run / FOLDER
    ownership.make_folder(folder)
    content = {
        "schema": SCHEMA,
        **msgspec.to_builtins(generation),
        "step": request.step,
        "suite": request.suite,
        "how": request.how,
        "items": [
            [answer.id, answer.task, answer.prompt, answer.references, answer.answer]
            for answer in answers
        ],
    }
    line = json.dumps(content, ensure_ascii=False).encode() + b"\n"
    with (folder / writer).open("ab") as file:
        at = file.seek(0, os.SEEK_END)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return Place(f"{FOLDER}/{writer}", at, len(line))


def read_answers(run: Path, location: Place) -> list[Answered]:
    """The answers at a place. ClusterError where they are not there."""
    path = run / location.file
    try:
        with path.open("rb") as file:
            file.seek(location.at)
            line = _decode_line(file.read(location.size))
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ClusterError(
            f"{path}: the answers at byte {location.at} cannot be read ({error})"
        ) from None
    return [
        Answered(
            id=item,
            task=task,
            prompt=prompt,
            references=tuple(references),
            answer=answer,
        )
        for item, task, prompt, references, answer in line.items
    ]


def _decode_line(line: bytes) -> AnswersLine:
    """The record of a line. Python's JSON reads what msgspec's does not: a loss that is
    no number."""
    try:
        return msgspec.json.decode(line, type=AnswersLine)
    except DECODE_ERRORS:
        return convert_json(json.loads(line), AnswersLine)


def find_place(
    rows: Iterable[Row], step: int, suite: str, how: Mapping[str, Any]
) -> Place | None:
    """Where the first answers are that were made so at a step, by a run's journal; None
    if there are none."""
    for row, event in find_events(rows, AnswersKept):
        if (row.step, event.suite, event.how) == (step, suite, how):
            return _place_of(event)
    return None


def _place_of(event: AnswersKept) -> Place:
    return Place(event.file, event.at, event.bytes, replace_unset(event.asked, {}))


def find_kept(run: Path) -> list[KeptAnswers]:
    """What a run's journal tells of answers, one for each step and way; the first place
    counts."""
    answers_by_key: dict[str, KeptAnswers] = {}
    for row, event in find_events(journal.read_guests(run), AnswersKept):
        key = json.dumps([row.step, event.suite, event.how], sort_keys=True)
        first = answers_by_key.get(key) or KeptAnswers(
            row.step, event.suite, event.how, (), _place_of(event)
        )
        keys = dict.fromkeys([*first.keys, *event.keys])
        answers_by_key[key] = replace(first, keys=tuple(keys))
    return list(answers_by_key.values())


def select_current(answers: Sequence[KeptAnswers]) -> list[KeptAnswers]:
    """Those of `find_kept` without answers of an older zsg where the same items were
    answered anew."""
    return [
        older
        for older in answers
        if not any(_replaces(newer, older) for newer in answers)
    ]


def _replaces(newer: KeptAnswers, older: KeptAnswers) -> bool:
    """Whether these are the same answers but for what zsg has since come to do otherwise."""
    if (newer.step, newer.suite) != (older.step, older.suite):
        return False
    return is_older_way(older.how, newer.how)
