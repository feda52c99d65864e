"""Says of which data set each task is a template: by T0's names, by folder, or by lists
and patterns of names.

`data.templates` counts the templates of a set, T0's rule divides by them, and FLAN's
maximum is that of a set.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from zsg_core.data.readers import p3
from zsg_core.data.readers.format import bare_name, root_folder
from zsg_core.errors import UserError

logger = logging.getLogger(__name__)

BY_NAME, BY_FOLDER = "t0", "folder"
SHOWN = 5  # tasks that are named; all are counted

Rule = str | Mapping[str, Sequence[str]] | None
Sets = dict[str, str | None]  # task → its data set, None where none is known


def find_data_sets(
    tasks: Sequence[str], rule: Rule, folders: Callable[[], Mapping[str, str]]
) -> Sets:
    """The data set of each task, None where the rule knows none.

    `rule`: BY_NAME, and None, which is the same: the sets of T0 by how tasks' names
    begin. BY_FOLDER: by `folders`, those of the tasks' files. Or set → names and
    patterns of tasks. UserError for a task that two of these find.
    """
    if rule in (None, BY_NAME):
        return {
            task: folder_of
            if (folder_of := p3.find_data_set(task)) in p3.SETS
            else None
            for task in tasks
        }
    if isinstance(rule, str):
        folder_of = folders()
        return {task: folder_of.get(task) for task in tasks}
    return {task: _of_lists(task, rule or {}) for task in tasks}


def find_task_folders(path: Path, files: Sequence[Path]) -> dict[str, str]:
    """The folder of each task's file below that of `path`; a file beside no other
    folder is of none.

    UserError for two files of one name in two folders: their rows are one task.
    """
    folder_of: dict[str, str] = {}
    for file in files:
        folder, task = (
            file.parent.relative_to(root_folder(path)).as_posix(),
            bare_name(file),
        )
        if folder_of.setdefault(task, folder) != folder:
            raise UserError(
                f"data.data_sets: folder: {file} and one in {folder_of[task]} are both the task"
                f" {task!r}; name them apart"
            )
    return {task: folder for task, folder in folder_of.items() if folder != "."}


def refuse_unknown(
    sets: Sets, rule: Rule, purpose: str, warn: Callable[[str], None] = logger.warning
) -> None:
    """Warns of the tasks that are of no known set, and so are each one of its own for `purpose`.

    UserError where the rule was given, for it is to name all; or where T0's names know
    none of several tasks, for `purpose` would count every template as a data set.
    """
    bare = [task for task, data_set in sets.items() if data_set is None]
    if not bare:
        return
    names = ", ".join(bare[:SHOWN]) + (", …" if len(bare) > SHOWN else "")
    problem = (
        f"{len(bare)} of {len(sets)} tasks are of no data set that is known: {names}"
    )
    if rule not in (None, BY_NAME) or (len(bare) == len(sets) and len(sets) > 1):
        raise UserError(
            f"{purpose} counts by data set, and {problem}. Say which tasks are templates of one"
            " set, as data.data_sets: {sst2: sst2_*, rte: [rte_1, rte_2]}, or data_sets: folder for"
            " a folder of files for each set"
        )
    warn(
        f"{problem}; {purpose} takes each for a data set of its own"
        " (data.data_sets says which are one)"
    )


def _of_lists(task: str, rule: Mapping[str, Sequence[str]]) -> str | None:
    matching = [
        name
        for name, patterns in rule.items()
        if any(fnmatchcase(task, pattern) for pattern in patterns)
    ]
    if len(matching) > 1:
        raise UserError(
            f"data.data_sets: the task {task!r} is of {matching[0]} and of"
            f" {matching[1]}; let only one find it"
        )
    return matching[0] if matching else None
