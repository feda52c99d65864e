"""Reads tasks of lm-evaluation-harness from their YAML files, without the harness and
without running anything of theirs.

A task is named by a YAML file; a group names others, and a tag is carried by some.
What is found of one: the files that decide it, the version that it says it has, and the
data sets that it needs. A task of the user's may hold no code that the user has not
allowed: `!function` imports the Python file beside it, which must be one that the grid
names under `plugins` (TaskCode). `class` imports such a file, too, an unknown metric is
fetched from the hub as a script, and so are a few kinds of data; those are refused here,
before anything is submitted. What is shipped with the harness is trusted as any
installed package is.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor

from zsg_core.data.harness_data import OwnTask, check_own_task, list_files_by_split
from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief, suggest_nearest
from zsg_core.shown_text import make_showable

# what reads files of a user's, in the library `datasets`
PACKAGED_READERS = ("arrow", "csv", "json", "parquet", "text")
SUFFIXES = (".arrow", ".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt")
DATA_OPTIONS = (
    "data_dir",
    "data_files",
    "delimiter",
    "encoding",
    "field",
    "revision",
    "sep",
)
# what a group of the user's may not change of its members: what is read is judged by
# the members' own files
FIXED_BY_TASK = ("custom_dataset", "dataset_kwargs", "dataset_path", "include")
# of what the harness itself registers (lm_eval/api/metrics.py)
KNOWN_METRICS = frozenset(
    "acc acc_all acc_bytes acc_mutual_info acc_norm bits_per_byte bleu brier_score"
    " byte_perplexity bypass chrf chrf++ exact_match f1 likelihood mcc perplexity ter"
    " word_perplexity".split()
)
FUNCTION = "!function"
SCORING = "process_results"  # makes all scores of an item, by names of its own
PACKAGE = "lm_eval"
MOST_BYTES = 1_000_000
MOST_DEPTH = 20  # of groups within groups, and of includes
MOST_FILES = 5000
_HUB_NAME = re.compile(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?")
_DEFINES = re.compile(
    rb"""^[ \t]*["']?(?:task|group|tag)["']?[ \t]*:[ \t]*["']?([\w.+-]+)["']?[ \t]*,?\r?$""",
    re.MULTILINE,
)
_FROM_HUB = re.compile(r"\bevaluate\.load\(|\bfrom evaluate import\b")
_FUNCTION_NAME = re.compile(
    r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\.([A-Za-z_]\w*)", re.ASCII
)
# what is read here as it is written, of which a function would make something else
_WRITTEN_OUT = (
    "custom_dataset",
    "dataset_kwargs",
    "dataset_name",
    "dataset_path",
    "group",
    "include",
    "metadata",
    "tag",
    "unsafe_code",
)


def locate_shipped() -> Path | None:
    """The folder of the tasks that are shipped with the harness; None where it is not
    installed. Imports nothing."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "tasks"


class FunctionName(str):
    """What `!function` names: code beside the file."""


@dataclass(frozen=True)
class TaskCode:
    """A Python file of the user's whose functions tasks may name: one that the grid names
    under `plugins`. `path`: where the user has it; `name`: as the grid calls it; `digest`:
    the SHA-256 of its bytes; `imported`: those of the other plugins that it imports;
    `defined`: the names that it gives at its top level to what it holds itself; `text`:
    the file."""

    path: Path
    name: str
    digest: str
    imported: tuple[str, ...] = ()
    defined: frozenset[str] = frozenset()
    text: str = field(default="", repr=False)


class _Constructor(SafeConstructor):
    """Makes plain values, and names of functions; any other tag is an error.

    `functions`: all that were met, wherever in the file: the harness imports them as it
    reads the file, whatever becomes of the value.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.functions: list[str] = []

    def check_mapping_key(
        self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any
    ) -> bool:
        """Whether a key has this value. Where a key may stand twice it has the last."""
        if self.allow_duplicate_keys:
            return True
        return super().check_mapping_key(node, key_node, mapping, key, value)


def _read_function(constructor: _Constructor, node: Any) -> FunctionName:
    """The name that a tag `!function` is of; noted with its file."""
    name = FunctionName(node.value)
    constructor.functions.append(name)
    return name


_Constructor.add_constructor(FUNCTION, _read_function)


@dataclass(frozen=True)
class TaskFile:
    """One YAML file with what it includes merged in, the nearer value first. `files`:
    itself and those; `functions`: all that any of them names, whether its value is in
    force or not, each with the file that names it."""

    path: Path
    settings: Mapping[str, Any]
    files: tuple[Path, ...]
    functions: tuple[tuple[Path, str], ...] = ()

    @property
    def name(self) -> str | None:
        """The task or group that it defines; None of one that is only included."""
        name = self.settings.get("group", self.settings.get("task"))
        return name if isinstance(name, str) else None

    @property
    def tags(self) -> list[str]:
        """The tags that its task carries."""
        tags = self.settings.get("tag", [])
        listed = tags if isinstance(tags, list) else [tags]
        return [tag for tag in listed if isinstance(tag, str)]

    @property
    def is_group(self) -> bool:
        return "group" in self.settings and "class" not in self.settings


@dataclass(frozen=True)
class HarnessTask:
    """A task, a group or a tag. `path`: the file that names it; `folders`: where the
    harness is to look; `files`: those that decide it; `version`: what it says of
    itself; `data_sets`: what it needs of the hub, or of a clone; `code`: the user's
    Python of which it names functions."""

    name: str
    path: Path
    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    version: str
    data_sets: tuple[str, ...] = ()
    code: tuple[TaskCode, ...] = ()


@dataclass
class _Closure:
    """What belongs to a task, as it is collected. `opened`: the names that are being
    collected; `done`: those that are."""

    tasks: list[TaskFile] = field(default_factory=list[TaskFile])
    files: dict[Path, None] = field(default_factory=dict[Path, None])
    code: dict[Path, TaskCode] = field(default_factory=dict[Path, TaskCode])
    opened: set[str] = field(default_factory=set[str])
    done: set[str] = field(default_factory=set[str])

    def add(self, file: TaskFile) -> None:
        """A task, or a group."""
        self.files.update(dict.fromkeys(file.files))
        if not file.is_group:
            self.tasks.append(file)


class TaskShelf:
    """The tasks of some folders, and of those that are shipped with the harness."""

    def __init__(
        self,
        folders: Sequence[Path] = (),
        shipped: Path | None = None,
        shipped_folders: Sequence[Path] = (),
        code: Iterable[TaskCode] = (),
    ) -> None:
        """`folders`: those that are read whole; `shipped`: the folder `tasks` of the
        package lm_eval, of which only what is needed is read; `shipped_folders`: those of
        these in which that is, where it is known; `code`: the Python files of which tasks
        in `folders` may name functions."""
        self._own, self._shipped = folders, shipped
        self._code = {each.path: each for each in code}
        self._read: dict[Path, TaskFile] = {}
        self._shipped_folders = dict.fromkeys(shipped_folders)
        self._listed: dict[Path, list[TaskFile]] = {}
        self._names: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str) -> HarnessTask:
        """The task, group or tag of that name. UserError where there is none, or where
        one of the user's holds what zsg does not run."""
        closure = _Closure()
        first = self._collect(name, closure, 0)
        folders = [*self._shipped_folders, *self._own]
        used = [
            folder
            for folder in folders
            if any(path.is_relative_to(folder) for path in closure.files)
        ]
        needed: dict[str, None] = {}
        for task in closure.tasks:
            needed.update(dict.fromkeys(self._check(task, closure)))
        return HarnessTask(
            name=name,
            path=first.path,
            folders=tuple(used),
            files=tuple(sorted(closure.files)),
            version=_read_version(first, closure.tasks),
            data_sets=tuple(needed),
            code=tuple(closure.code[path] for path in sorted(closure.code)),
        )

    def _collect(self, name: str, closure: _Closure, depth: int) -> TaskFile:
        """Adds what belongs to a name; returns the first file of it."""
        if depth > MOST_DEPTH or name in closure.opened:
            raise UserError(f"{format_brief(name)}: its groups are nested in a circle")
        files = self._find_files(name)
        if not files:
            raise UserError(self._explain_absence(name))
        if name in closure.done:
            return files[0]
        closure.opened.add(name)
        for file in files:
            closure.add(file)
            if len(closure.files) > MOST_FILES:
                raise UserError(
                    f"{format_brief(name)}: names more than {MOST_FILES} files"
                )
            if file.is_group:
                self._check_group(file, closure)
                self._collect_members(file.settings, file.path, closure, depth)
        closure.opened.discard(name)
        closure.done.add(name)
        return files[0]

    def _check_group(self, group: TaskFile, closure: _Closure) -> None:
        """UserError for a group of the user's that names code which nobody has allowed;
        adds to the closure what it may name. What is shipped is trusted."""
        if not self._is_shipped(group.path):
            _refuse_code(group)
            self._add_code(group, closure)

    def _add_code(self, file: TaskFile, closure: _Closure) -> None:
        """Adds the Python files of which a user's task or group names functions.

        They are looked for as the harness does, beside the file that names them, but
        among the grid's plugins alone, which somebody has allowed. UserError for any
        other function, such as one of an installed module.
        """
        for path, name in file.functions:
            code = self._find_code(path, name)
            if _FROM_HUB.search(code.text):
                raise _refuse(
                    path,
                    f"its {code.name} takes a metric from the hub (evaluate.load), which nodes"
                    " do not fetch",
                )
            closure.code[code.path] = code

    def _find_code(self, path: Path, name: str) -> TaskCode:
        """The Python file that has a function which a task file names. UserError where
        the grid names no such plugin, and where that has no such function."""
        function = split_function(name)
        code = None
        if function is not None:
            code = self._code.get(locate_code(path, function[0]))
        if function is None or code is None:
            raise _refuse(path, _explain_code(path, name))
        if function[1] not in code.defined:
            suggestion = suggest_nearest(function[1], sorted(code.defined))
            raise _refuse(
                path,
                f"names {format_brief(name)}, and {code.name} defines no {function[1]} at its"
                f" top level.{suggestion}",
            )
        return code

    def _collect_members(
        self, group: Mapping[str, Any], path: Path, closure: _Closure, depth: int
    ) -> None:
        """Adds what a group names: tasks, groups and tags, or groups that stand in it.

        A mapping names a task or a group with some settings changed; one that nothing
        defines is a group by itself, with a list of its own. UserError for what is
        neither, and where a group of the user's changes what it may not.
        """
        if not self._is_shipped(path):
            _refuse_changes(group, path)
        members = group.get("task", [])
        if not isinstance(members, list):
            members = [members]
        for member in members:
            if isinstance(member, Mapping):
                inner = member.get("group", member.get("task"))
                if not self._is_shipped(path):
                    _refuse_changes(member, path)
                if isinstance(inner, str) and self._find_files(inner):
                    self._collect(inner, closure, depth + 1)
                elif isinstance(member.get("task"), list) and depth < MOST_DEPTH:
                    self._collect_members(member, path, closure, depth + 1)
                else:
                    raise _refuse(
                        path, f"names {format_brief(inner)}, which is no task"
                    )
            elif isinstance(member, str):
                self._collect(member, closure, depth + 1)
            else:
                raise _refuse(path, f"names {format_brief(member)}, which is no task")

    def _find_files(self, name: str) -> list[TaskFile]:
        """The file that defines a name, or those of the tasks that carry it as a tag."""
        for folder in self._own:
            listed = self._list_folder(folder)
            _refuse_namesakes(name, listed)
            if files := self._select(listed, name):
                return files
        tagged: dict[Path, TaskFile] = {}
        for folder in self._find_shipped(name):
            files = self._select(self._list_folder(folder), name)
            if files:
                self._shipped_folders.setdefault(folder)
            if _is_defined(name, files):
                return files
            tagged.update((file.path, file) for file in files)
        return list(tagged.values())

    @staticmethod
    def _select(files: Sequence[TaskFile], name: str) -> list[TaskFile]:
        named = [file for file in files if file.name == name]
        return named[:1] or [file for file in files if name in file.tags]

    def _list_folder(self, folder: Path) -> list[TaskFile]:
        """All task files of a folder, in the order in which the harness reads them."""
        if folder in self._listed:
            return self._listed[folder]
        paths = sorted(folder.rglob("*.yaml"), key=lambda path: path.as_posix())
        if len(paths) > MOST_FILES:
            raise UserError(f"{_show(folder)}: more than {MOST_FILES} files of tasks")
        opened = map(self._open, paths)
        self._listed[folder] = [file for file in opened if file is not None]
        return self._listed[folder]

    def _open(self, path: Path) -> TaskFile | None:
        """A task file; None of a shipped one that cannot be read, which the harness
        passes over, too."""
        if path not in self._read:
            try:
                self._read[path] = self._load(path, set())
            except UserError:
                if self._is_shipped(path):
                    return None
                raise
        return self._read[path]

    def _load(self, path: Path, seen: set[Path]) -> TaskFile:
        """Reads a file and what it includes; its own keys win.

        `seen`: the files that were read for the same task. Each may be there once, as in
        the harness.
        """
        resolved = path.resolve()
        if resolved in seen or len(seen) > MOST_DEPTH:
            raise _refuse(
                path, "its includes are nested in a circle, or name a file twice"
            )
        seen.add(resolved)
        settings, names = read_task_yaml(path, is_trusted=self._is_shipped(path))
        functions = [(path, name) for name in names]
        included = settings.pop("include", [])
        merged: dict[str, Any] = {}
        files = [path]
        for name in included if isinstance(included, list) else [included]:
            if not isinstance(name, str):
                raise _refuse(path, f"includes {format_brief(name)}, which is no file")
            include = self._load(self._locate(path, name), seen)
            merged.update(include.settings)
            files += include.files
            functions += include.functions
        merged.update(settings)
        return TaskFile(path, merged, tuple(files), tuple(functions))

    def _locate(self, path: Path, name: str) -> Path:
        """Where a file lies that another names, links followed.

        UserError where it is not there, or lies outside the folders of tasks: what is
        included or read as data has a digest, and comes with the folder.
        """
        named = path.parent / name
        allowed = [*self._own, *filter(None, [self._shipped])]
        try:
            resolved = named.resolve()
            is_there = resolved.is_file()
        except (OSError, RuntimeError, ValueError):
            is_there, resolved = False, named
        if not is_there:
            raise _refuse(path, f"names {format_brief(name)}, which is no file")
        if not any(resolved.is_relative_to(folder.resolve()) for folder in allowed):
            raise _refuse(path, f"names {format_brief(name)}, outside its folder")
        return resolved

    def _is_shipped(self, path: Path) -> bool:
        return self._shipped is not None and path.is_relative_to(self._shipped)

    @cached_property
    def _shipped_names(self) -> dict[str, list[Path]]:
        """By names that any shipped file seems to define, the folders of these: a look
        into 14,000 files."""
        return {} if self._shipped is None else _list_names(self._shipped)

    def _names_below(self, folder: Path) -> dict[str, list[Path]]:
        """The same of one of the folders that are shipped."""
        if folder not in self._names:
            self._names[folder] = _list_names(folder)
        return self._names[folder]

    def _find_shipped(self, name: str) -> list[Path]:
        """The shipped folders that may define a name: those in which something was
        found before, those that are called as the name begins, or any. Of a tag all that
        have tasks of it, wherever they are, as in the harness."""
        carrying: list[Path] = []
        for folder in self._shipped_folders:
            files = self._select(self._list_folder(folder), name)
            if _is_defined(name, files):
                return [folder]
            if files:
                carrying.append(folder)
        if self._shipped is None:
            return carrying
        for folder in self._top_folders:
            if name.startswith(folder.name):
                for defining in self._names_below(folder).get(name, []):
                    files = self._select(self._list_folder(defining), name)
                    if _is_defined(name, files):
                        return [defining]
        return _leave_out_inner([*carrying, *self._shipped_names.get(name, [])])

    @cached_property
    def _top_folders(self) -> list[Path]:
        """The folders of the shipped tasks, those with the longest names first."""
        assert self._shipped is not None
        folders = [path for path in self._shipped.iterdir() if path.is_dir()]
        return sorted(folders, key=lambda path: (-len(path.name), path.name))

    def _explain_absence(self, name: str) -> str:
        names = [*self._shipped_names]
        for folder in self._own:
            names += [file.name for file in self._list_folder(folder) if file.name]
        looked = " and ".join(_show(folder) for folder in self._own)
        beside = "; tasks_path names a folder of yours"
        if looked:
            beside = f", nor in {looked}"
        return (
            f"lm-evaluation-harness has no task, group or tag {format_brief(name)}"
            f"{beside}.{suggest_nearest(name, names)}"
        )

    def _check(self, task: TaskFile, closure: _Closure) -> list[str]:
        """The data sets of the hub that a task needs. UserError for what it holds that
        zsg does not run; adds to the closure the files beside it that decide it."""
        settings = task.settings
        if settings.get("unsafe_code"):
            raise _refuse(task.path, "runs code that the model wrote (unsafe_code)")
        metrics = _list_metrics(task)
        if self._is_shipped(task.path):
            self._check_shipped(task, closure)
            return _list_data_sets(settings)
        _refuse_code(task)
        self._add_code(task, closure)
        _refuse_unknown_metrics(task, metrics)
        files = self._add_data_files(task, closure)
        has_code = bool(task.functions)
        check_own_task(OwnTask(task.path, settings, files, has_code))
        names = _list_data_sets(settings)
        if names:
            _refuse_outside(task)
        if any("/" not in name for name in names):
            raise _refuse(
                task.path, f"dataset_path: {names[0]} is no OWNER/NAME of the hub"
            )
        return names

    def _add_data_files(
        self, task: TaskFile, closure: _Closure
    ) -> dict[str, list[Path]]:
        """Adds the files of a user's task's data, and returns them by splits. UserError
        for those of a kind that may run code."""
        files: dict[str, list[Path]] = {}
        for split, names in _list_data_files(task).items():
            for name in names:
                file = self._locate(task.path, name)
                if not file.name.endswith(SUFFIXES):
                    raise _refuse(
                        task.path,
                        f"{format_brief(name)} ends in none of {', '.join(SUFFIXES)}",
                    )
                closure.files.setdefault(file)
                files.setdefault(split, []).append(file)
        return files

    def _check_shipped(self, task: TaskFile, closure: _Closure) -> None:
        """Adds the Python beside a shipped task. UserError where it fetches a script
        from the hub."""
        if not any(_list_functions(task.settings)):
            return
        for path in sorted(task.path.parent.glob("*.py")):
            closure.files.setdefault(path)
            if _FROM_HUB.search(path.read_text(encoding="utf-8", errors="replace")):
                raise _refuse(
                    task.path,
                    f"its {path.name} takes a metric from the hub (evaluate.load), which"
                    " nodes do not fetch",
                )


def _is_defined(name: str, files: Sequence[TaskFile]) -> bool:
    """Whether files are the one that defines a name, not those that carry it as a tag."""
    return any(file.name == name for file in files)


def _leave_out_inner(folders: Sequence[Path]) -> list[Path]:
    """Each folder once, without those that lie in another of them, which is read whole."""
    outer: list[Path] = []
    for folder in sorted(set(folders)):
        if not any(folder.is_relative_to(other) for other in outer):
            outer.append(folder)
    return outer


def _list_names(root: Path) -> dict[str, list[Path]]:
    """By names that files below a folder seem to define, the folders of these.

    Files are not parsed, as there are thousands: a line `task: NAME`, `group: NAME` or
    `tag: NAME` is looked for. Whether a file defines the name is seen when it is read.
    """
    folders: dict[str, dict[Path, None]] = {}
    for path in sorted(root.rglob("*yaml")):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        for name in _DEFINES.findall(content):
            of_name = folders.setdefault(name.decode("ascii", "replace"), {})
            of_name.setdefault(path.parent)
    return {name: list(of_name) for name, of_name in folders.items()}


def read_task_yaml(
    path: Path, *, is_trusted: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The plain values of a task file, and all functions that it names; as values these
    are FunctionName.

    It is read as YAML 1.1, as the harness reads it, with no tag but `!function`: others
    make objects of Python. UserError for what is no YAML mapping, holds another tag, or
    is larger than any task, by its bytes or by what its aliases repeat. Where a key stands
    twice the last counts, as in the harness, in a file that `is_trusted`; in another it is
    an error.
    """
    try:
        if not path.is_file():
            raise _refuse(path, "is no file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _refuse(path, f"cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise _refuse(path, f"more than {MOST_BYTES:,} bytes; is this a task?")
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)  # as the harness reads it
    reader.allow_duplicate_keys = is_trusted
    reader.Constructor = _Constructor
    try:
        settings = reader.load(content.decode("utf-8-sig"))
    except RecursionError:
        raise _refuse(path, "not valid YAML: nested too deeply") from None
    except Exception as error:  # ruamel meets odd text with errors of many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _refuse(path, f"not valid YAML: {lines[0][:200]}") from None
    if not isinstance(settings, dict):
        raise _refuse(path, "is no mapping of keys to values")
    if _has_more_values(settings, MOST_BYTES):
        raise _refuse(path, "its aliases repeat more values than any task has")
    return (
        {str(key): value for key, value in settings.items()},
        list(reader.constructor.functions),
    )


def _has_more_values(value: Any, most: int) -> bool:
    """Whether a value of YAML has more than so many values in it, those that aliases
    repeat counted each time. Ends where a value holds itself, too."""
    waiting = [value]
    count = 0
    while waiting:
        item = waiting.pop()
        count += 1
        if count > most:
            return True
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple | set):
            waiting.extend(item)
    return False


def _refuse_namesakes(name: str, listed: Sequence[TaskFile]) -> None:
    """UserError where two files of the user's define one name: which of them the harness
    takes is decided by how it reads each."""
    named = [file for file in listed if file.name == name]
    if len(named) > 1:
        raise _refuse(
            named[1].path,
            f"defines {format_brief(name)}, as {_show(named[0].path)} does",
        )


def _refuse_changes(settings: Mapping[str, Any], path: Path) -> None:
    """UserError for what a group of the user's may not change of its members.

    `settings` are those of the group, or of a member as it stands in it; all but a few
    of them go before the member's own.
    """
    for name in FIXED_BY_TASK:
        if settings.get(name) is not None:
            raise _refuse(
                path, f"a group cannot change {name} of its tasks; write a task file"
            )
    if settings.get("unsafe_code"):
        raise _refuse(path, "runs code that the model wrote (unsafe_code)")
    if not isinstance(settings.get(SCORING, FunctionName()), FunctionName):
        # names of metrics would be looked for on the hub
        raise _refuse(path, f"a group cannot take {SCORING} from its tasks")
    group = TaskFile(path, settings, ())
    _refuse_code(group)
    _refuse_unknown_metrics(group, _list_metrics(group))


def split_function(name: str) -> tuple[str, str] | None:
    """The module, with dots where it lies in folders, and the name in it that `!function`
    is of; None of what is no such name."""
    match = _FUNCTION_NAME.fullmatch(name)
    return None if match is None else (match[1], match[2])


def locate_code(path: Path, module: str) -> Path:
    """Where the harness looks for a module that a task file names: beside the file, links
    of the file's own path followed."""
    return path.resolve().parent / f"{module.replace('.', '/')}.py"


def _explain_code(path: Path, name: str) -> str:
    """Why a function that a task file names is not run, and what can be done."""
    why = f"names Python code ({FUNCTION} {format_brief(name)}), which zsg does not run"
    function = split_function(name)
    if function is None or not locate_code(path, function[0]).is_file():
        return f"{why}; write it as a template, or put the rows as they are to be read"
    return (
        f"{why} unless the grid names {function[0].replace('.', '/')}.py, beside it, under"
        " `plugins`, and you allow it; or write it as a template"
    )


def _list_metrics(task: TaskFile) -> list[Any]:
    """The metrics that a task names. UserError for one that is fetched from the hub."""
    metrics = task.settings.get("metric_list") or []
    if not isinstance(metrics, list):
        raise _refuse(task.path, "metric_list is no list")
    for metric in metrics:
        if isinstance(metric, Mapping) and metric.get("hf_evaluate"):
            raise _refuse(task.path, "takes a metric from the hub (hf_evaluate)")
    return metrics


def _refuse_code(task: TaskFile) -> None:
    """UserError for a task of the user's that is a class of Python, takes a prompt of
    another library or options of which some run code, and for a function where plan reads
    a value. Other functions are judged by their files."""
    if "class" in task.settings:
        raise _refuse(
            task.path,
            "names Python code (class), which zsg does not run; write it as a template, or"
            " put the rows as they are to be read",
        )
    for key in _WRITTEN_OUT:
        if any(_list_functions(task.settings.get(key))):
            raise _refuse(
                task.path,
                f"names Python code for {key}, which is to be written out; put the rows as"
                " they are to be read",
            )
    if task.settings.get("use_prompt") is not None:
        raise _refuse(task.path, "takes its prompt from another library (use_prompt)")
    options = task.settings.get("dataset_kwargs") or {}
    if not isinstance(options, Mapping):
        raise _refuse(task.path, "dataset_kwargs is no mapping")
    for name in options:
        if name not in DATA_OPTIONS:
            raise _refuse(
                task.path,
                f"dataset_kwargs: {format_brief(name)} is none of {', '.join(DATA_OPTIONS)}",
            )


def _refuse_unknown_metrics(task: TaskFile, metrics: Iterable[Any]) -> None:
    """UserError for a metric that the harness would fetch from the hub as a script. One
    that is a function is judged by its file; where a function makes all scores of an
    item, it gives them names of its own, and nothing is fetched."""
    if isinstance(task.settings.get(SCORING), FunctionName):
        _refuse_unnamed_scores(task, metrics)
        return
    for metric in metrics:
        name = metric.get("metric") if isinstance(metric, Mapping) else metric
        if isinstance(name, FunctionName):
            continue
        if not isinstance(name, str) or name not in KNOWN_METRICS:
            suggestion = suggest_nearest(str(name), sorted(KNOWN_METRICS))
            raise _refuse(
                task.path,
                f"{format_brief(name)} is no metric of the harness.{suggestion}",
            )


def _refuse_unnamed_scores(task: TaskFile, metrics: Iterable[Any]) -> None:
    """UserError for a score of a task's own function whose name is none, or that says not
    how it is aggregated over items: the harness knows that of its own metrics alone."""
    for metric in metrics:
        score = metric if isinstance(metric, Mapping) else {"metric": metric}
        name = score.get("metric")
        if not isinstance(name, str):
            raise _refuse(task.path, f"{format_brief(name)} is no name of a metric")
        if name not in KNOWN_METRICS and score.get("aggregation") is None:
            raise _refuse(
                task.path,
                f"metric_list: {format_brief(name)} needs an `aggregation`, such as mean",
            )


def _list_functions(value: Any, depth: int = 0) -> Iterator[str]:
    """The names of functions anywhere in a task's settings."""
    if isinstance(value, FunctionName):
        yield str(value)
    if depth > MOST_DEPTH:
        return
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _list_functions(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _list_functions(item, depth + 1)


def _list_data_files(task: TaskFile) -> dict[str, list[str]]:
    """The files that a task of the user's names for its data, by splits. UserError for an
    address, or what is no name."""
    if task.settings.get("dataset_path") not in PACKAGED_READERS:
        return {}
    options = task.settings.get("dataset_kwargs") or {}
    files = options.get("data_files") if isinstance(options, Mapping) else None
    if files is None:
        raise _refuse(task.path, "dataset_kwargs.data_files names no file")
    by_split = list_files_by_split(files)
    for name in _flatten(list(by_split.values())):
        if not isinstance(name, str) or "://" in name or "*" in name:
            raise _refuse(
                task.path, f"data_files: {format_brief(name)} is no name of a file"
            )
    return {split: _flatten(names) for split, names in by_split.items()}


def _refuse_outside(task: TaskFile) -> None:
    """UserError for a user's task that reads a data set of the hub and names files of it
    that lie elsewhere: on this machine, or at another address."""
    options = task.settings.get("dataset_kwargs") or {}
    named = [options.get("data_files"), options.get("data_dir")]
    for name in _flatten(named):
        if name is None:
            continue
        text = str(name)
        is_elsewhere = "://" in text or "::" in text or text.startswith(("/", "~"))
        if is_elsewhere or ".." in text.split("/"):
            raise _refuse(
                task.path,
                f"{format_brief(text)} is no file of the data set that it names",
            )


def _flatten(value: Any, depth: int = 0) -> list[Any]:
    """What stands in lists and mappings of any depth."""
    if depth > MOST_DEPTH or not isinstance(value, Mapping | list):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value
    return [inner for item in items for inner in _flatten(item, depth + 1)]


def _list_data_sets(settings: Mapping[str, Any]) -> list[str]:
    """The data set of the hub that a task reads, if it reads one."""
    path = settings.get("dataset_path")
    if not isinstance(path, str) or path in PACKAGED_READERS:
        return []
    if not _HUB_NAME.fullmatch(path):
        raise UserError(
            f"dataset_path: {format_brief(path)} is neither OWNER/NAME of the hub nor one of"
            f" {', '.join(PACKAGED_READERS)} with data_files"
        )
    return [path]


def _read_version(first: TaskFile, tasks: Sequence[TaskFile]) -> str:
    """What a task or group says of its version; of a tag, the versions of its tasks."""
    version = _version_of(first)
    if first.is_group and version:
        return version
    return ",".join(sorted({_version_of(task) for task in tasks}))


def _version_of(task: TaskFile) -> str:
    metadata = task.settings.get("metadata")
    version = metadata.get("version", "") if isinstance(metadata, Mapping) else ""
    return str(version)[:40]


def _refuse(path: Path, problem: str) -> UserError:
    return UserError(f"{_show(path)}: {problem}")


def _show(path: Path) -> str:
    """A path on one line, without marks that deceive the eye."""
    return make_showable(str(path), keep="")
