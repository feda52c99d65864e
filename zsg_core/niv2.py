"""Reads Natural Instructions V2 in its official layout: tasks/*.json and splits/default/*.txt.

Source: allenai/natural-instructions. A task's position in its split file is its place in every order, and an
instance's place in its file is its id, since published ids are missing or doubled in some copies.
"""

import json
from pathlib import Path
from typing import Any

from zsg_core.errors import UserError
from zsg_core.examples import Example

SPLITS = {"train": "splits/default/train_tasks.txt", "test": "splits/default/test_tasks.txt"}


def task_names(folder: Path, split: str) -> list[str]:
    """The tasks of a split in file order. UserError if the list is missing, empty, doubled or unsafe."""
    path = folder / SPLITS[split]
    if not path.is_file():
        raise UserError(
            f"{path}: not found. A Natural Instructions folder has tasks/<task>.json and {SPLITS[split]}; "
            "set data.path to such a folder"
        )
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if not names:
        raise UserError(f"{path}: names no task; write one task name per line")
    for name in names:
        if "/" in name or "\\" in name or name.startswith("."):
            raise UserError(f"{path}: {name!r} is not a task name; a name has no slash and no leading dot")
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        raise UserError(f"{path}: {doubled[0]} is listed more than once")
    return names


def files(folder: Path) -> list[Path]:
    """Every file whose content decides what is read, in a fixed order."""
    named = [folder / path for path in SPLITS.values()]
    for split in SPLITS:
        named += [_task_file(folder, name) for name in task_names(folder, split)]
    return named


def read_task(folder: Path, name: str) -> list[Example]:
    """All instances of a task in file order, `answer` being the first reference.

    Raises UserError with the file, the instance and the reason when the file is not what it should be.
    """
    path = _task_file(folder, name)
    try:
        task = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(task, dict):
        raise UserError(f"{path}: a task file is one JSON object, not {type(task).__name__}")
    definition = _definition(path, task)
    shots = tuple(_shot(path, i, shot) for i, shot in enumerate(_list(path, task, "Positive Examples")))
    rows = _list(path, task, "Instances")
    return [_example(path, name, i, row, definition, shots) for i, row in enumerate(rows)]


def _task_file(folder: Path, name: str) -> Path:
    path = folder / "tasks" / f"{name}.json"
    if not path.is_file():
        raise UserError(f"{path}: not found, but the split files of {folder} name this task")
    return path


def _list(path: Path, task: dict[str, Any], key: str) -> list[Any]:
    value = task.get(key)
    if not isinstance(value, list):
        raise UserError(f"{path}: {key!r} must be a list, found {type(value).__name__}")
    return value


def _definition(path: Path, task: dict[str, Any]) -> str:
    # The official layout has a list of one text; two older dialects have the bare text.
    value = task.get("Definition")
    value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{path}: 'Definition' must be a text or a list of texts")
    return value


def _shot(path: Path, index: int, shot: Any) -> tuple[str, str]:
    if isinstance(shot, dict) and isinstance(shot.get("input"), str) and isinstance(shot.get("output"), str):
        return shot["input"], shot["output"]
    raise UserError(f"{path}: Positive Examples[{index}] must have the texts 'input' and 'output'")


def _example(path: Path, task: str, index: int, row: Any, definition: str, shots: tuple) -> Example:
    where = f"{path}: Instances[{index}]"
    if not isinstance(row, dict) or not isinstance(row.get("input"), str):
        raise UserError(f"{where} must be an object with a text 'input'")
    output = row.get("output")
    references = [output] if isinstance(output, str) else output
    if not isinstance(references, list) or not references or not all(isinstance(r, str) for r in references):
        raise UserError(f"{where}: 'output' must be a list of at least one text")
    if any("\ud800" <= character <= "\udfff" for text in (row["input"], *references) for character in text):
        raise UserError(f"{where}: holds half a character (a lone surrogate, \\ud800 to \\udfff); repair the file")
    return Example(
        id=f"{task}:{index}",
        task=task,
        definition=definition,
        shots=shots,
        input=row["input"],
        answer=references[0],
        references=tuple(references),
    )
