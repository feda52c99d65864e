"""Finds the tasks of lm-evaluation-harness that a grid asks for, and says before anything
is submitted what is wrong with them, and what they lack on nodes without internet.

The harness itself is not imported: see zsg_core.data.harness_tasks.
"""

import importlib.metadata
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from jobs.model import content
from launcher.grids.input_faults import InputFaults
from launcher.grids.suite_files import locate_file
from zsg_core.data.harness_tasks import (
    HarnessTask,
    TaskCode,
    TaskShelf,
    locate_shipped,
)
from zsg_core.errors import UserError
from zsg_core.metrics.keys import HARNESS
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import SuiteFile, name_task_code, name_task_folder

METRICS = "checkpoints.metrics"
TASKS_PATH = f"checkpoints.suites.{HARNESS}.tasks_path"
DATA_PATH = f"checkpoints.suites.{HARNESS}.data_path"
ABSENT = (
    "metrics of lm-evaluation-harness need the package lm-eval: pip install"
    " 'zsg[harness]'"
)
LACKS = (
    "{metric} reads {data} of the hub, which is in no cache of this machine ({looked});"
    " nodes without internet will not find it. Fetch it where there is internet (hf"
    f" download --repo-type dataset {{data}}), or clone it below a folder and name that in"
    f" {DATA_PATH}"
)


ELSEWHERE = (
    "{metric} reads {data} of the hub. This shell has it in {cache}, where jobs do not look:"
    " they see of its environment what the profile keeps. Write environment.set: {{HF_HOME:"
    " {home}}} into the profile"
)
OFFLINE = "{note}. The profile sets {variable}, so it is not fetched either: nothing is submitted"
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
TRUE_WORDS = ("1", "ON", "YES", "TRUE")  # huggingface_hub/constants.py


def find_harness_faults(
    settings: Iterable[CheckpointSettings],
    faults: InputFaults,
    code: tuple[TaskCode, ...] = (),
) -> None:
    """Adds, with the setting, which tasks are not there or hold what is not run. `code`:
    the plugins of the grid, of which tasks may name functions."""
    for checkpoints in _list_asking(settings):
        for key in (TASKS_PATH, DATA_PATH):
            path = _read_path(checkpoints, key)
            if path is not None:
                with faults.collecting(key, path):
                    _locate_folder(key, path)
        if faults:
            continue
        for metric, task in checkpoints.harness_tasks.items():
            with faults.collecting(METRICS, metric):
                _find_named(metric, checkpoints, task, code)


def _list_asking(
    settings: Iterable[CheckpointSettings],
) -> list[CheckpointSettings]:
    """Those of the settings that ask for tasks, each once: the points of a grid share
    theirs."""
    each = {id(checkpoints): checkpoints for checkpoints in settings}
    return [checkpoints for checkpoints in each.values() if checkpoints.harness_tasks]


def find_task(
    checkpoints: CheckpointSettings, task: str, code: tuple[TaskCode, ...] = ()
) -> HarnessTask:
    """A task that checkpoints are scored on, which may name functions of `code`. UserError
    where there is none such."""
    path = checkpoints.lm_eval.tasks_path
    shipped = _locate_shipped()
    if path is None:
        return _open_shelf(None, shipped, (), ()).find(task)
    folder = _locate_folder(TASKS_PATH, path)
    files = (file for file in folder.rglob("*") if file.is_file())
    stamps = sorted((file, file.stat().st_mtime_ns) for file in files)
    return _open_shelf(folder, shipped, tuple(stamps), code).find(task)


def digest_tasks(
    checkpoints: CheckpointSettings, code: tuple[TaskCode, ...] = ()
) -> dict[str, SuiteFile]:
    """Where the files of all tasks lie, with the digests of their content, and the
    version of the harness; nothing where none is asked for.

    Each task has the folders that it is of, under names that `name_task_folder` gives:
    the evaluate job looks in these alone, and refuses files that are not the same. Of
    `code` it has the files whose functions it names (`name_task_code`), of which the job
    runs its copies.
    """
    if not checkpoints.harness_tasks:
        return {}
    version = importlib.metadata.version(HARNESS)
    files = {HARNESS: SuiteFile("", version)}
    path = checkpoints.lm_eval.data_path
    if path is not None:
        folder = _locate_folder(DATA_PATH, path)
        files[f"{HARNESS}#data"] = SuiteFile(str(folder), "")
    for name in checkpoints.harness_tasks.values():
        task = find_task(checkpoints, name, code)
        for number, of_code in enumerate(task.code):
            files[name_task_code(name, number)] = _describe_code(of_code)
        for number, folder in enumerate(task.folders):
            files[name_task_folder(name, number)] = SuiteFile(
                str(folder), digest_folder(task, folder), {"version": task.version}
            )
    return files


def _describe_code(code: TaskCode) -> SuiteFile:
    """A plugin whose functions a task names, as the job's file has it."""
    facts = {"file": code.digest, "imported": list(code.imported)}
    return SuiteFile(str(code.path), code.digest, facts)


def digest_folder(task: HarnessTask, folder: Path) -> str:
    """The digest of those files of a task that are in a folder."""
    files = [path for path in task.files if path.is_relative_to(folder)]
    return content.folder_digest(folder, files, content.sha256_of(files))


def note_absent_data(
    settings: Iterable[CheckpointSettings],
    environment: Mapping[str, str],
    shell: Mapping[str, str] = os.environ,
    code: tuple[TaskCode, ...] = (),
) -> list[str]:
    """A sentence for each data set that a task reads and that lies neither below
    `data_path` nor in a cache of this machine.

    `environment`: what jobs have of it; `shell`: what this process has. UserError where
    jobs are told that there is no hub: there the task cannot be taken.
    """
    notes: dict[str, None] = {}
    for checkpoints in _list_asking(settings):
        for metric, name in checkpoints.harness_tasks.items():
            for data in find_task(checkpoints, name, code).data_sets:
                note = _note_absence(checkpoints, metric, data, environment, shell)
                if note is not None:
                    notes.setdefault(note)
    offline = [name for name in OFFLINE_VARIABLES if _is_true(environment, name)]
    if offline and notes:
        first = next(iter(notes))
        raise UserError(OFFLINE.format(note=first, variable=offline[0]))
    return list(notes)


def _note_absence(
    checkpoints: CheckpointSettings,
    metric: str,
    data: str,
    environment: Mapping[str, str],
    shell: Mapping[str, str],
) -> str | None:
    """Where jobs will not find a data set, and what helps; None where they will."""
    root = checkpoints.lm_eval.data_path
    if root is not None and (Path(root).expanduser() / data).is_dir():
        return None
    looked = _list_caches(environment)
    if any(_is_cached(folder, data) for folder in looked):
        return None
    for cache in _list_caches(shell):
        if _is_cached(cache, data):
            home = cache.parent
            return ELSEWHERE.format(metric=metric, data=data, cache=cache, home=home)
    folders = ", ".join(map(str, looked))
    return LACKS.format(metric=metric, data=data, looked=folders)


def _is_true(environment: Mapping[str, str], name: str) -> bool:
    """Whether a variable is set to what the Hugging Face libraries take for true."""
    return environment.get(name, "").upper() in TRUE_WORDS


def _list_caches(environment: Mapping[str, str]) -> list[Path]:
    """Where the Hugging Face libraries keep data sets, by their own variables."""
    home = Path(
        environment.get("HF_HOME")
        or Path(environment.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    ).expanduser()
    hub = environment.get("HF_HUB_CACHE") or home / "hub"
    datasets = environment.get("HF_DATASETS_CACHE") or home / "datasets"
    return [Path(hub).expanduser(), Path(datasets).expanduser()]


def _is_cached(folder: Path, data: str) -> bool:
    """Whether a cache has a data set, by the names that the libraries give folders.

    Whether all of its files are there is seen where it is read.
    """
    downloaded = "datasets--" + data.replace("/", "--")
    read = data.replace("/", "___")
    names = (downloaded, read, read.lower())
    return any((folder / name).is_dir() for name in names)


@lru_cache(maxsize=8)
def _open_shelf(
    folder: Path | None,
    shipped: Path,
    _stamps: tuple[tuple[Path, int], ...],
    code: tuple[TaskCode, ...],
) -> TaskShelf:
    """The tasks of a folder and of the package, each file read once as it is now."""
    return TaskShelf([] if folder is None else [folder], shipped, code=code)


def _locate_shipped() -> Path:
    """The folder of the harness' tasks. UserError where it is not installed."""
    folder = locate_shipped()
    if folder is None:
        raise UserError(ABSENT)
    return folder


def _read_path(checkpoints: CheckpointSettings, key: str) -> str | None:
    return getattr(checkpoints.lm_eval, key.rpartition(".")[2])


def _locate_folder(key: str, path: str) -> Path:
    """A folder that a setting names. UserError for what is none."""
    folder = locate_file(key, path)
    if not folder.is_dir():
        raise UserError(f"{key}: {folder} is no folder")
    return folder


def _find_named(
    metric: str,
    checkpoints: CheckpointSettings,
    task: str,
    code: tuple[TaskCode, ...],
) -> HarnessTask:
    """The task of a metric; an error names the metric."""
    try:
        return find_task(checkpoints, task, code)
    except UserError as error:
        raise UserError(f"{METRICS}: {metric}: {error}") from None
