"""Keeps what a model said to each item of a task of lm-evaluation-harness at each
checkpoint: the likelihood of every option, every answer, what filters made of it.

<run>/lm_eval/<writer>.jsonl   one file per evaluator, named as its journal; a line is
                               one HarnessLine

The journal's event InsideTaken tells file, offset and bytes of a line: what no event
tells of was cut by a kill and counts for nothing.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from jobs.contract.folder import SCHEMA
from jobs.files import ownership
from zsg_core.errors import ClusterError
from zsg_core.metrics.keys import HARNESS


class HarnessLine(Struct, frozen=True, kw_only=True):
    """The items of one task or group at a step. `digest`: of all items and prompts, the
    same at every checkpoint. `items`: as lm-evaluation-harness logs its samples."""

    schema: int = SCHEMA
    step: int
    key: str
    digest: str
    items: list[dict[str, Any]]


class OutputPlace(Struct, frozen=True):
    """Where a line is: `bytes` of a file of the run, from `at` on."""

    file: str
    at: int
    bytes: int


def keep_outputs(run: Path, writer: str, line: HarnessLine) -> OutputPlace:
    """Appends a line to the writer's file; on disk when this returns."""
    folder = run / HARNESS
    ownership.make_folder(folder)
    written = msgspec.json.encode(line, enc_hook=_make_plain) + b"\n"
    with (folder / writer).open("ab") as file:
        at = file.seek(0, os.SEEK_END)
        file.write(written)
        file.flush()
        os.fsync(file.fileno())
    return OutputPlace(f"{HARNESS}/{writer}", at, len(written))


def read_outputs(run: Path, location: OutputPlace) -> HarnessLine:
    """The line at a location. ClusterError where it is not there."""
    path = run / location.file
    try:
        with path.open("rb") as file:
            file.seek(location.at)
            return msgspec.json.decode(file.read(location.bytes), type=HarnessLine)
    except (OSError, msgspec.MsgspecError) as error:
        raise ClusterError(
            f"{path}: what was said at byte {location.at} cannot be read ({error})"
        ) from None


def _make_plain(value: Any) -> Any:
    """What a task may hold beside plain values: numbers of numpy, and anything else as
    its text."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", 1) == 0:
        return item()
    tolist = getattr(value, "tolist", None)
    return tolist() if callable(tolist) else str(value)
