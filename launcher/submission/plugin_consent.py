"""Has the user allow the plugins of a grid before anything of them is copied or run.

A grid may have been sent by somebody. What its plugins would do no program can tell, so
whoever submits it is shown each file with its digest and what it declares, once for each
digest, and decides. Nobody decides for a script: it must say `--allow-plugins`.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from jobs.files import ownership
from launcher.grids import plugin_files
from launcher.grids.grid import Grid
from launcher.views import show
from launcher.workspace import allowed_plugins
from launcher.workspace.yaml_file import format_path
from zsg_core.errors import UserError
from zsg_core.plugins.declarations import PluginFile

OPTION = "--allow-plugins"


def settle_consent(
    grid: Grid, *, allows: bool, ask: Callable[[str], bool] | None
) -> None:
    """Returns once the plugins of a grid are allowed. `allows`: the user has said so;
    `ask`: puts a question to the user, None where nobody is there.

    UserError where they are not, and for files that somebody else may write.
    """
    unallowed = allowed_plugins.find_unallowed(grid.plugins)
    if not unallowed:
        return
    refuse_written_by_others(grid, unallowed)
    if not allows:
        lines = [describe_line(grid, plugin) for plugin in unallowed]
        if ask is None:
            raise UserError(
                f"{'; '.join(lines)}: not allowed yet. Read"
                f" {'them' if len(lines) > 1 else 'it'}, then say so: the same command"
                f" with {OPTION}. Nothing of it was run"
            )
        for line in lines:
            show.print_result(line)
        question = (
            "Jobs run this code with your rights. Have you read it, and may it run?"
        )
        if not ask(question):
            raise UserError("the plugins are not allowed; nothing was submitted")
    allowed_plugins.allow_plugins(unallowed)


def drop_word(words: Sequence[str], plugins: Sequence[PluginFile]) -> list[str]:
    """The words of a command for another process, without the word that allows plugins:
    that reads their files again, and would allow whatever they hold by then.

    Where nothing can be remembered, the word is all that the process has.
    """
    if not allowed_plugins.are_remembered(plugins):
        return list(words)
    return [word for word in words if word != OPTION]


def describe_line(grid: Grid, plugin: PluginFile) -> str:
    """A plugin for people: its file, its digest, what it declares."""
    path = format_path(grid.path.parent / plugin.name)
    declares = plugin_files.describe_plugin(plugin)
    return f"plugin {path} (sha256 {plugin.digest[:16]}) declares {declares}"


def refuse_written_by_others(grid: Grid, plugins: Sequence[PluginFile]) -> None:
    """UserError for a file that somebody else may write."""
    for plugin in plugins:
        path = grid.path.resolve().parent / plugin.name
        fault = _find_fault(path, plugin.content)
        if fault is not None:
            mend = fault.mend or f"cp {shlex.quote(str(path))} to a folder of yours"
            raise UserError(
                f"plugin {fault}: what others may write is not run as yours; {mend}"
            )


def _find_fault(path: Path, content: bytes) -> ownership.Fault | None:
    """Why others may have written what was read. UserError for a file that holds
    something else by now: whoever reads it would allow what is not there any more.

    The file is looked at by a handle: by its path it could be another each time.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            fault = ownership.find_fault(Path(f"/proc/self/fd/{file.fileno()}"))
            found = file.read(len(content) + 1)
    except OSError:
        found, fault = b"", None
    if found != content:
        raise UserError(
            f"plugin {format_path(path)} has been changed since it was read; the same"
            " command again shows it as it is now"
        )
    return replace(fault, path=path, mend=_spell_mend(fault, path)) if fault else None


def _spell_mend(fault: ownership.Fault, path: Path) -> str | None:
    """The command by which the user ends a fault, with the file's own name."""
    return f"chmod go-w {shlex.quote(str(path))}" if fault.mend else None
