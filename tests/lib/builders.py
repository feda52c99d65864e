"""Small data that several tests build: a Natural Instructions folder, digests of inputs."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from zsg_core.recipe import InputDigests, SourceDigests

TASKS = {"train": ["task001_add", "task002_sort"], "test": ["task900_count"]}


def task(instances: int, **changes: Any) -> dict[str, Any]:
    """A task file in the official layout."""
    rows = [
        {"id": f"x-{i}", "input": f"input {i}", "output": [f"answer {i}"]}
        for i in range(instances)
    ]
    shots = [
        {"input": f"shot {i}", "output": f"yes {i}", "explanation": "because"}
        for i in range(3)
    ]
    return {
        "Definition": ["Do it"],
        "Positive Examples": shots,
        "Negative Examples": [],
        "Instances": rows,
        **changes,
    }


def write_niv2(
    folder: Path, tasks: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """A folder in the official layout: `tasks` by name; those called task9… are held out."""
    tasks = tasks or {name: task(4) for names in TASKS.values() for name in names}
    (folder / "tasks").mkdir(parents=True)
    (folder / "splits/default").mkdir(parents=True)
    for name, content in tasks.items():
        (folder / "tasks" / f"{name}.json").write_text(
            json.dumps(content), encoding="utf-8"
        )
    for split, is_test in (("train", False), ("test", True)):
        names = [name for name in tasks if name.startswith("task9") == is_test]
        (folder / f"splits/default/{split}_tasks.txt").write_text(
            "\n".join(names) + "\n", encoding="utf-8"
        )
    return folder


def break_an_instance(tasks: Path, copy: Path) -> Path:
    """Copies a data folder and spoils what only its whole reading finds: the path of
    the task file."""
    shutil.copytree(tasks, copy)
    name = (copy / "splits/default/train_tasks.txt").read_text().split()[0]
    path = copy / "tasks" / f"{name}.json"
    task = json.loads(path.read_text())
    task["Instances"][3]["output"] = None
    path.write_text(json.dumps(task))
    return path


def digests(
    data: str = "d", test: str | None = None, **others: str | None
) -> InputDigests:
    """The digests of a run's inputs; of one data set."""
    return InputDigests(sources={"": SourceDigests(data=data, test=test)}, **others)


def copy_made(work: Path, other: Path) -> None:
    """Puts what prepare jobs have made in one workspace into another, which then need
    not prepare it again."""
    for made in ("arrangements", "bases", "corpora", "records"):
        shutil.copytree(work / made, other / made)


@contextlib.contextmanager
def mounted(size: str, folder: Path, lazily: bool = False) -> Iterator[Path]:
    """A file system in memory of a size, soon full; the test skips where none can be mounted.

    It must be free of open files afterwards, or `lazily` is given.
    """
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", *(["--lazy"] if lazily else []), folder], check=True)
