"""Does a grid whose math a model makes end with the same replies, the same set and the
same lists, where the job that makes it is killed twice?

By hand the same was done with SmolLM2-135M-Instruct on 200 problems of GSM8K
(templates/grids/dmt-rft.yaml).
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.folder import read_json
from tests.lib.command_line import Zsg, wait_until

pytestmark = [pytest.mark.soak(part="users"), pytest.mark.engine]

PROBLEMS, SAMPLES = 120, 4
REQUESTS = PROBLEMS * SAMPLES
KILLED_AT = (1, 190)  # replies, or as many more as a batch has
GRID = """
name: made
profile: local
defaults:
  model: {name: tiny}
  data:
    sources:
      math: {set: gsm8k, path: train.jsonl, test_path: test.jsonl}
      rft:
        set: gsm8k
        path: train.jsonl
        make: {rft: {samples: 4, max_new_tokens: 32, read: last}}
      talk: {set: messages, path: talk.jsonl, role: general, test_path: talk-test.jsonl}
  train: {batch: 8, lr: 2e-3, max_length: 256, precision: fp32, steps: 2}
  checkpoints: {every: 2}
grid:
  - {label: own, strategy: [multitask], data.sources.rft.k: 0}
  - {label: made, strategy: [multitask, {name: dmt, k: 1/4}], data.sources.math.k: 0}
"""


def write_study(folder: Path) -> Zsg:
    """A folder with the grid and its data."""
    folder.mkdir()
    zsg = Zsg(folder)
    for name, numbers in (("train", range(PROBLEMS)), ("test", range(100, 108))):
        rows = [
            {
                "question": f"What is {n} + 7?",
                "answer": f"<<{n}+7={n + 7}>>\n#### {n + 7}",
            }
            for n in numbers
        ]
        zsg.write(f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for name, numbers in (("talk", range(40)), ("talk-test", range(50, 54))):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"Hello, {n}."},
                    {"role": "assistant", "content": f"Good day, {n}."},
                ]
            }
            for n in numbers
        ]
        zsg.write(f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    zsg.write("grid.yaml", GRID)
    return zsg


def read_log(zsg: Zsg) -> bytes:
    """The replies that are there."""
    return b"".join(
        path.read_bytes() for path in zsg.work.glob("replies/*/replies.jsonl")
    )


def find_maker(zsg: Zsg) -> Path:
    """The folder of the job that asks the model."""
    [folder] = [
        path.parent
        for path in zsg.work.glob("prepare/*/job.json")
        if (read_json(path) or {}).get("kind") == "sample"
    ]
    return folder


def kill_maker(zsg: Zsg, replies: int, *retry: str) -> None:
    """Submits the grid, and kills the making job once there are so many replies."""
    submit = zsg.start(
        "submit",
        "grid.yaml",
        "--yes",
        *retry,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: read_log(zsg).count(b"\n") >= replies, 600)
    attempt = attempts.read_attempt(find_maker(zsg))
    assert attempt is not None
    os.kill(attempt.pid, signal.SIGKILL)
    assert submit.wait(timeout=900) == 3


def test_a_making_job_that_is_killed_twice_changes_nothing(tmp_path: Path) -> None:
    """Replies, made set and training lists are equal to the byte; no request was made
    twice, and the third attempt goes on with those that were missing."""
    calm, killed = write_study(tmp_path / "calm"), write_study(tmp_path / "killed")
    calm("submit", "grid.yaml", "--yes")
    kill_maker(killed, KILLED_AT[0])
    kill_maker(killed, KILLED_AT[1], "--retry")
    before = read_log(killed)
    killed("submit", "grid.yaml", "--yes", "--retry")
    lines = read_log(killed).splitlines()

    assert KILLED_AT[1] <= before.count(b"\n") < REQUESTS
    assert read_log(killed) == read_log(calm)
    assert read_log(killed).startswith(before)
    assert (
        len({json.loads(line)["request"] for line in lines}) == len(lines) == REQUESTS
    )
    attempt = attempts.read_attempt(find_maker(killed))
    assert attempt is not None and attempt.attempt == 3
    for kind in ("records", "arrangements"):
        assert digest_folder(calm, kind) == digest_folder(killed, kind)
    assert [row["state"] for row in killed.status("made")] == ["done"] * 3


def digest_folder(zsg: Zsg, kind: str) -> dict[str, object]:
    """What was made of a kind: the digests of sets, the ids of lists."""
    made: dict[str, object] = {}
    for folder in (zsg.work / kind).glob("[0-9a-f]*"):
        if kind == "records":
            meta = read_json(folder / "meta.json") or {}
            made[folder.name] = (meta.get("digest"), meta.get("made"))
        else:
            made[folder.name] = (folder / "ids").read_bytes()
    return made
