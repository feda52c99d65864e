"""Keeps what a model answered at each checkpoint, so that it can be scored and judged
again without a GPU.

<run>/answers/<writer>.jsonl   one file per evaluator, named as its journal. A line:
                               {schema, step, suite, how, weights,
                               items} with items: [[id, task, prompt, [references], answer], …]

The journal's row `answers` tells file, offset and bytes of a line: what no row tells of
was cut by a kill and counts for nothing.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.contract import journal
from jobs.contract.evaluations import ANSWERS
from jobs.contract.folder import SCHEMA
from jobs.files import ownership
from zsg_core.errors import ClusterError
from zsg_core.metrics.scoring import Answered
from zsg_core.suites import SINCE


@dataclass(frozen=True)
class Place:
    """Where the answers of a step are: `size` bytes of a file of the run, from `at` on.

    `asked` counts how they came about: see jobs.evaluating.asking; empty of an older zsg's.
    """

    file: str
    at: int
    size: int
    asked: Mapping[str, int] = field(default_factory=dict, compare=False)


def keep(
    run: Path, writer: str, facts: Mapping[str, Any], answers: Sequence[Answered]
) -> Place:
    """Appends the answers to the writer's file; on disk when this returns."""
    folder = run / "answers"
    ownership.make_folder(folder)
    items = [
        [one.id, one.task, one.prompt, one.references, one.answer] for one in answers
    ]
    line = (
        json.dumps(
            {"schema": SCHEMA, **facts, "items": items}, ensure_ascii=False
        ).encode()
        + b"\n"
    )
    with (folder / writer).open("ab") as file:
        at = file.seek(0, os.SEEK_END)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return Place(f"answers/{writer}", at, len(line))


def read(run: Path, place: Place) -> list[Answered]:
    """The answers at a place. ClusterError where they are not there."""
    path = run / place.file
    try:
        with path.open("rb") as file:
            file.seek(place.at)
            told = json.loads(file.read(place.size))
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{path}: the answers at byte {place.at} cannot be read ({error})"
        ) from None
    return [
        Answered(
            id=item,
            task=task,
            prompt=prompt,
            references=tuple(references),
            answer=answer,
        )
        for item, task, prompt, references, answer in told["items"]
    ]


def find(
    rows: Iterable[Mapping[str, Any]], step: int, suite: str, how: Mapping[str, Any]
) -> Place | None:
    """Where the first answers are that were made so at a step, by a run's journal; None
    if there are none."""
    for row in rows:
        data = row["data"]
        if data.get("event") == ANSWERS and (
            row["step"],
            data["suite"],
            data["how"],
        ) == (
            step,
            suite,
            how,
        ):
            return Place(data["file"], data["at"], data["bytes"], data.get("asked", {}))
    return None


def found(run: Path) -> list[dict[str, Any]]:
    """What a run's journal tells of answers: step, suite, how, keys, and where they
    are; one for each step and way."""
    told: dict[str, dict[str, Any]] = {}
    for row in journal.read(run):
        data = row["data"]
        if data.get("event") == ANSWERS:
            key = json.dumps([row["step"], data["suite"], data["how"]], sort_keys=True)
            one = told.setdefault(key, {"step": row["step"], **data, "keys": []})
            one["keys"] = list(dict.fromkeys([*one["keys"], *data["keys"]]))
    return list(told.values())


def current(told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of `found` without answers of an older zsg where the same items were answered anew."""
    return [one for one in told if not any(_is_newer(other, one) for other in told)]


def _is_newer(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    is_same = (one["step"], one["suite"]) == (other["step"], other["suite"]) and one[
        "how"
    ] != other["how"]
    return (
        is_same
        and {name: value for name, value in one["how"].items() if name not in SINCE}
        == other["how"]
    )
