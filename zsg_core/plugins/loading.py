"""Runs plugins, in jobs and where a user verifies a run, and tells what is wrong in one
with its file and line.

A job finds them beside its own code, as `zsg_plugins/DIGEST/NAME`: the copies of the
submit, each under the name that the grid gives it. A file is run once, when the first
thing that it declares is asked for. What it then registers must be what its syntax tree
declares, no more and no less.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from zsg_core.errors import PluginError
from zsg_core.plugins.declarations import (
    MOST_BYTES,
    BadPlugin,
    Declared,
    PluginFile,
    read_plugins,
)
from zsg_core.plugins.decorators import Noted, noting
from zsg_core.secrets import hide_known

logger = logging.getLogger(__name__)

PACKAGE = "zsg_plugins"
DIGITS = 16
LONGEST = 300  # characters of an error that are told

Function = Callable[..., Any]


def name_copy(plugin: PluginFile) -> str:
    """Where a plugin's copy lies in the code of a submit: in a folder of its digest, under
    the name that the grid gives it."""
    return f"{PACKAGE}/{plugin.digest[:DIGITS]}/{plugin.name}"


class _Loaded:
    """The plugins of this process: where they lie, and those that were run.

    Empty but in a job, and where the user's own word lets it run them: nothing else of
    zsg ever runs a plugin.
    """

    def __init__(self) -> None:
        self.plugins: dict[str, PluginFile] = {}  # by their paths
        self.functions: dict[tuple[str, str], Function] = {}
        self.modules: dict[str, ModuleType] = {}  # by their paths


_LOADED = _Loaded()


def read_copies(code: Path) -> tuple[PluginFile, ...]:
    """The plugins whose copies lie with a job's code; runs none. PluginError for a copy
    that is not what its folder says."""
    paths: dict[str, Path] = {}
    for folder in sorted((code / PACKAGE).glob("*")):
        for path in sorted(folder.rglob("*.py")):
            paths[path.relative_to(folder).as_posix()] = path
    try:
        copies = read_plugins({name: _read_copy(path) for name, path in paths.items()})
    except BadPlugin as bad:
        raise PluginError(f"{bad.file}:{bad.line}: {bad.message}") from None
    for plugin in copies:
        path = paths[plugin.name]
        if path != code / name_copy(plugin):
            raise PluginError(f"{path} is not what was submitted; submit again")
    return copies


def _read_copy(path: Path) -> bytes:
    """The bytes of a copy, at most one more than a plugin may have. PluginError for what
    is no file: a folder of runs may have been sent by somebody."""
    try:
        if not path.is_file():
            raise PluginError(f"{path} is no file; submit again")
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PluginError(f"{path} cannot be read: {reason}") from error


def let_run(code: Path, plugins: Iterable[PluginFile]) -> None:
    """From now on this process runs these copies where what they declare is asked for."""
    for plugin in plugins:
        _LOADED.plugins[str(code / name_copy(plugin))] = plugin


def find_function(declared: Declared) -> Function:
    """The function that was declared so; its file is run if it was not yet. PluginError
    for one that fails, and where there is no copy of it in this process."""
    key = declared.kind, declared.full_name
    if key not in _LOADED.functions:
        _load(_find_path(declared))
    return _LOADED.functions[key]


def find_plugin(digest: str) -> PluginFile | None:
    """The plugin that this process may run whose file has this SHA-256."""
    for plugin in _LOADED.plugins.values():
        if plugin.digest == digest:
            return plugin
    return None


def find_defined(plugin: PluginFile, name: str) -> Any:
    """What a plugin's file calls so at its top level; the file is run if it was not yet.
    PluginError for a file that fails, and for a name that it does not define."""
    if name not in plugin.defined:
        raise PluginError(f"{plugin.name}: defines no {name} at its top level")
    for path, loaded in list(_LOADED.plugins.items()):
        if loaded.digest == plugin.digest:
            module = _load(path)
            if name in module.__dict__:
                return module.__dict__[name]
    raise PluginError(f"{plugin.name}: {name} is not there once the file was run")


def _find_path(declared: Declared) -> str:
    """Where the copy lies that declares this, of those that this process may run.

    PluginError where there is none: in a command that only plans, and in a job that was
    submitted without the plugin.
    """
    for path, plugin in _LOADED.plugins.items():
        for candidate in plugin.declared:
            if (candidate.kind, candidate.full_name) == (
                declared.kind,
                declared.full_name,
            ):
                return path
    raise PluginError(
        f"{declared.file}:{declared.line}: {declared.words} is run by jobs only, from the"
        " copy that a submit makes"
    )


def _load(path: str) -> ModuleType:
    """Runs a file, once, and before it those that it imports.

    It is compiled from the bytes whose digest was checked: what lies on the disk by now
    is not read again. A file that fails is run again when it is next asked for, so that
    each metric of it is told why it is lacking. PluginError where it fails, or registers
    something else than it declares.
    """
    if path in _LOADED.modules:
        return _LOADED.modules[path]
    plugin = _LOADED.plugins[path]
    module = ModuleType(_name_module(plugin))
    module.__file__ = path
    _LOADED.modules[path] = module
    # where dataclasses, and whatever else looks a class's module up, find it
    sys.modules[module.__name__] = module
    try:
        if _is_imported(plugin):
            # first, as Python does: one that it imports may import it
            _offer(plugin.module, module)
        for sibling in plugin.siblings:
            _offer_module(sibling)
        with noting() as notes, told(plugin.name, "loading it"):
            code = compile(plugin.text, path, "exec", dont_inherit=True)
            exec(code, module.__dict__)
        _keep_functions(plugin, notes)
    except BaseException:
        del _LOADED.modules[path]
        sys.modules.pop(module.__name__, None)
        raise
    return module


def _name_module(plugin: PluginFile) -> str:
    """By which name Python knows a plugin; with its digest where another has its own."""
    modules = [each.module for each in _LOADED.plugins.values() if each != plugin]
    if plugin.module not in modules:
        return f"{PACKAGE}.{plugin.module}"
    return f"{PACKAGE}.{plugin.digest[:DIGITS]}.{plugin.module}"


def _is_imported(plugin: PluginFile) -> bool:
    """Whether another plugin imports this one. If none does, its name stays what it is
    to everybody else, such as that of a package."""
    return any(plugin.name in other.siblings for other in _LOADED.plugins.values())


def _offer_module(name: str) -> None:
    """Has a plugin that another imports be there for it; one that imports the first in
    turn finds it as far as it has been run, as in any circle of imports."""
    for path, plugin in list(_LOADED.plugins.items()):
        if plugin.name == name:
            _load(path)


def _offer(name: str, module: ModuleType) -> None:
    """Has `import NAME` give a plugin's module. PluginError where that is another's
    name."""
    taken = sys.modules.get(name)
    if taken is not None and not taken.__name__.startswith(f"{PACKAGE}."):
        raise PluginError(
            f"{name}.py: a module {name} is loaded already; give the plugin another name"
        )
    sys.modules[name] = module


def _keep_functions(plugin: PluginFile, notes: Sequence[Noted]) -> None:
    """Keeps what was registered. PluginError where that is not what the file declares:
    nobody was told of it."""
    by_name = {(note.kind, note.name): note.function for note in notes}
    declared = {(each.kind, each.name): each for each in plugin.declared}
    if len(notes) != len(by_name) or by_name.keys() != declared.keys():
        odd = sorted(map(str, by_name.keys() ^ declared.keys())) or ["one name twice"]
        raise PluginError(
            f"{plugin.name}: registers something else than it declares at its top level:"
            f" {', '.join(odd)}"
        )
    for key, thing in declared.items():
        _LOADED.functions[thing.kind, thing.full_name] = by_name[key]


def calling(declared: Declared, what: str = "") -> AbstractContextManager[None]:
    """See `told`, of a call of what was declared. `what`: for what it is called."""
    return told(declared.file, f"{declared.words}{what}", declared.line)


@contextmanager
def told(file: str, doing: str, declared_line: int | None = None) -> Generator[None]:
    """Raises what a plugin raises as a PluginError that names file and line; the
    traceback from the user's file down goes to the log.

    `declared_line`: the line to name where the error passed none of the file's own, as
    where what a function returns is no list.
    """
    try:
        yield
    except (PluginError, KeyboardInterrupt):
        raise
    except BaseException as error:  # also SystemExit, or one of the plugin's own
        frames = traceback.extract_tb(error.__traceback__)
        own_frames = [number for number, frame in enumerate(frames) if _is_own(frame)]
        line = _find_line(error, frames, own_frames)
        first = own_frames[0] if own_frames else 0
        printed = "".join(traceback.format_list(frames[first:]))
        logger.error(hide_known(f"plugin {file}:\n{printed}{_describe(error)}"))
        if line is None and declared_line is not None:
            line = file, declared_line
        location = f"{line[0]}:{line[1]}" if line else file
        message = f"{location}: {_describe(error)}, {doing}"
        raise PluginError(hide_known(message)) from error


def _is_own(frame: traceback.FrameSummary) -> bool:
    """Whether a frame of a traceback is in a plugin."""
    return frame.filename in _LOADED.plugins


def _find_line(
    error: BaseException, frames: traceback.StackSummary, own_frames: Sequence[int]
) -> tuple[str, int] | None:
    """The last line of a plugin that an error passed, with the plugin's name as the grid
    gives it; None where it passed none."""
    if isinstance(error, SyntaxError) and error.filename in _LOADED.plugins:
        return _LOADED.plugins[str(error.filename)].name, error.lineno or 1
    if not own_frames:
        return None
    frame = frames[own_frames[-1]]
    return _LOADED.plugins[frame.filename].name, frame.lineno or 1


def _describe(error: BaseException) -> str:
    """An error in a line. Its text is the plugin's, and may itself fail."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return name
    first = text.strip().partition("\n")[0]
    return f"{name}: {first[:LONGEST]}" if first else name


def refuse(declared: Declared, why: str) -> PluginError:
    """The error of what a plugin gives."""
    told_why = why if len(why) <= LONGEST else f"{why[:LONGEST]}…"
    return PluginError(f"{declared.file}:{declared.line}: {declared.words} {told_why}")
