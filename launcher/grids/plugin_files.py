"""Reads the plugins that a grid names, as files that lie beside it. Nothing of them is
run: see `zsg_core.plugins.declarations`.

A plugin is an ordinary file below the grid's folder, reached by no link: what somebody
sends with a grid is that grid's own, and nothing else of the disk becomes code by being
named. Its bytes are read once; what is shown, allowed and copied are these.
"""

import os
import re
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, cast

from launcher.workspace.faults import Faults
from launcher.workspace.yaml_file import Document, format_path
from zsg_core.data.harness_tasks import TaskCode
from zsg_core.errors import UserError
from zsg_core.plugins import declarations, entries
from zsg_core.plugins.declarations import MOST_BYTES, BadPlugin, Declared, PluginFile
from zsg_core.schema_errors import format_brief

KEY = "plugins"
MOST = 20
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_OURS = ("zsg", "zsg_core", "zsg_plugins", "jobs", "launcher")


def read_plugins(document: Document, faults: Faults) -> tuple[PluginFile, ...]:
    """The plugins that a grid names, entered beside what is built in; none where one
    has a fault, which is added to `faults`."""
    value = document.value.get(KEY)
    if value is None:
        return ()
    of_plugins = Faults()
    contents: dict[str, bytes] = {}
    folder = document.path.resolve().parent
    with of_plugins.collecting():
        for number, name in enumerate(_read_names(document, value)):
            with of_plugins.collecting():
                contents[name] = _read_file(document, folder, number, name)
    plugins: tuple[PluginFile, ...] = ()
    if not of_plugins:
        with of_plugins.collecting():
            plugins = _enter(document, contents, _list_unlisted(folder, contents))
    for fault in of_plugins.list_all():
        faults.add(fault)
    return plugins


def _read_names(document: Document, value: Any) -> list[str]:
    """The names of the files, as the grid gives them. UserError for what is no list of
    them, and where one is there twice."""
    names = cast("list[Any]", value) if isinstance(value, list) else []
    if not names or len(names) > MOST or not all(isinstance(n, str) for n in names):
        raise document.error(
            (KEY,),
            f"`{KEY}` is a list of 1 to {MOST} Python files beside the grid, such as"
            " plugins: [my_metrics.py]",
        )
    for number, name in enumerate(names):
        _refuse_name(document, number, name)
        if name in names[:number]:
            raise document.error((KEY, number), f"{name} is there twice")
    return names


def _refuse_name(document: Document, number: int, name: str) -> None:
    """UserError for a name that is that of no plugin: a path that leads elsewhere, a
    pattern, an address, a file that is no module, a module that others know by this
    name."""
    path = PurePosixPath(name)
    names = path.parts
    is_plain = bool(names) and all(map(_PART.fullmatch, names)) and name == str(path)
    module = declarations.name_module(name)
    if not is_plain or path.suffix != ".py" or not module.isidentifier():
        raise document.error(
            (KEY, number),
            f"{format_brief(name)} is no plugin: give the name of a Python file in the"
            " grid's folder, such as my_metrics.py, of letters, digits and _",
        )
    if module in _OURS or module in sys.stdlib_module_names:
        raise document.error(
            (KEY, number),
            f"{name}: {module} is the name of another module; rename the file",
        )


def _read_file(document: Document, folder: Path, number: int, name: str) -> bytes:
    """The bytes of a plugin, as far as one more than may be read. UserError for one that
    is no ordinary file, or a link, or lies behind one.

    A pipe is not waited for, and a link that takes the file's place in between is not
    followed.
    """
    path = folder
    for name_in_path in PurePosixPath(name).parts:
        path = path / name_in_path
        if path.is_symlink():
            raise document.error(
                (KEY, number),
                f"{name}: {name_in_path} is a link; a plugin is a file in the grid's own folder",
            )
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(path, flags)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise document.error((KEY, number), f"{name} is no file")
        with os.fdopen(handle, "rb") as file:
            return file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise document.error(
            (KEY, number), f"{name} is not in the grid's folder, {format_path(folder)}"
        ) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise document.error((KEY, number), f"{name} cannot be read: {why}") from None


def _list_unlisted(folder: Path, names: Iterable[str]) -> set[str]:
    """The modules that lie beside plugins and are none themselves: files of Python, and
    folders that are packages. Other folders may have the name of an installed package.
    """
    modules: set[str] = set()
    listed = {declarations.name_module(name) for name in names}
    for beside in {(folder / name).parent for name in names}:
        # a folder there may be closed to the user, as in /tmp
        with suppress(PermissionError):
            for path in beside.iterdir():
                if path.suffix == ".py" or _is_package(path):
                    modules.add(path.stem)
    return modules - listed - {declarations.MODULE}


def _is_package(folder: Path) -> bool:
    """Whether a folder is one of modules; none is that the user may not look into."""
    try:
        return (folder / "__init__.py").is_file()
    except PermissionError:
        return False


def _enter(
    document: Document, contents: dict[str, bytes], unlisted: set[str]
) -> tuple[PluginFile, ...]:
    """What the files declare. UserError, with file and line, for what cannot be."""
    try:
        plugins = declarations.read_plugins(contents, unlisted)
        entries.refuse_taken(plugins)
    except BadPlugin as bad:
        beside = document.path.parent / bad.file
        message = f"{format_path(beside)}:{bad.line}: {bad.message}"
        raise UserError(message) from None
    entries.enter_plugins(plugins)
    return plugins


def list_task_code(grid: Path, plugins: Iterable[PluginFile]) -> tuple[TaskCode, ...]:
    """The plugins of a grid file as Python of which tasks of lm-evaluation-harness may
    name functions: where they lie, and what they hold."""
    folder = grid.resolve().parent
    by_name = {plugin.name: plugin for plugin in plugins}
    return tuple(
        TaskCode(
            path=folder / plugin.name,
            name=plugin.name,
            digest=plugin.digest,
            imported=tuple(by_name[name].digest for name in plugin.siblings),
            defined=plugin.defined,
            text=plugin.text,
        )
        for plugin in by_name.values()
    )


def describe_plugin(plugin: PluginFile) -> str:
    """What a plugin declares, in words."""
    names = [_describe_declared(declared) for declared in plugin.declared]
    return ", ".join(names) or "nothing itself"


def _describe_declared(declared: Declared) -> str:
    """What is declared, with what of a metric is not usual."""
    facts: list[str] = []
    if declared.is_of_choices:
        facts.append("of options")
    if declared.options.get("higher_is_better") is False:
        facts.append("lower is better")
    return f"{declared.words} ({', '.join(facts)})" if facts else declared.words
