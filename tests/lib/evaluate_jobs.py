"""What tests of evaluate jobs share: a job for runs that were trained, and what it has
journalled of them."""

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from jobs.contract import answers, journal
from jobs.contract.folder import read_json, write_json
from tests.lib.journal_rows import plain_rows
from zsg_core.metrics.keys import INSIDE
from zsg_core.metrics.metrics import TEST_SET
from zsg_core.suites import Suite

KEY = "exact_match"
GREEDY = {"decoding": "greedy", "max_new_tokens": 8, "items": None}
PAPER = {
    "decoding": "nucleus",
    "top_p": 0.9,
    "temperature": 0.9,
    "repetition_penalty": 1.2,
    "not_empty": True,
    "max_new_tokens": 8,
    "items": None,
    "seed": 0,
}


def serve(
    runs: Sequence[Path],
    keys: Sequence[str] = (KEY,),
    how: dict[str, Any] = PAPER,
    lease_s: float = 60,
    drains: bool = True,
    idle_min: float = 5,
    suites: Sequence[Suite] = (),
    inside: dict[str, dict[str, Any]] | None = None,
) -> Path:
    """The folder of a new evaluate job, ready to start; of `suites` where there are
    some, else of the test set."""
    workspace, first = runs[0].parent.parent, read_json(runs[0] / "job.json")
    folder = workspace / "evaluate" / uuid.uuid4().hex[:8]
    folder.mkdir(parents=True)
    job = {
        key: first[key]
        for key in ("schema", "submission", "tracking", "code", "created")
    }
    job |= {
        "resources": first["resources"] | {"idle_min": idle_min},
        "paths": {"workspace": str(workspace)},
    }
    job |= {
        "kind": "evaluate",
        "run_id": None,
        "stage_id": folder.name,
        "after": [],
        "makes": [],
    }
    asked = list(suites) or (
        [Suite(name=TEST_SET, keys=tuple(keys), how=how)] if keys else []
    )
    asked += (
        [Suite(name=INSIDE, keys=tuple(inside), how={}, scored_by=inside)]
        if inside
        else []
    )
    wanted = {
        "keys": [key for one in asked for key in one.keys],
        "suites": to_builtins(asked),
    }
    job |= {"serves": [{"run": run.name, **wanted} for run in runs]}
    write_json(folder / "job.json", job | {"drains": drains, "lease_s": lease_s})
    return folder


def metric_rows(run: Path, key: str = KEY) -> list[dict[str, Any]]:
    """The rows of a metric that count, as the journals have them."""
    return [
        row for row in plain_rows(run) if row["kind"] == "metric" and key in row["data"]
    ]


def scores(run: Path, key: str = KEY) -> dict[int, float]:
    """A metric by step."""
    return {row["step"]: float(row["data"][key]) for row in metric_rows(run, key)}


def answered(run: Path, how: dict[str, Any] = PAPER) -> dict[int, list[str]]:
    """What was answered at each step."""
    found = {}
    for kept in answers.find_kept(run):
        if kept.how == how:
            items = answers.read_answers(run, kept.place)
            found[kept.step] = [item.answer for item in items]
    return found


def fresh_copy(run: Path, step: int, folder: Path) -> Path:
    """The run in a workspace of its own that has one snapshot, and was never evaluated."""
    work = run.parent.parent
    for name in ("corpora", "records", "bases"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(work / name)
    copy = folder / "runs" / run.name
    copy.mkdir(parents=True)
    job = read_json(run / "job.json")
    write_json(
        copy / "job.json", job | {"paths": job["paths"] | {"workspace": str(folder)}}
    )
    for name in ("attempt.json", "exit.json", "test_set.json"):
        shutil.copy(run / name, copy / name)
    (copy / "journal").mkdir()
    for path in journal.list_owned_files(run):
        shutil.copy(path, copy / "journal" / path.name)
    if step:
        shutil.copytree(run / "snapshots" / str(step), copy / "snapshots" / str(step))
    return copy
