"""Has the user allow the plugins of a grid before anything of them is copied or run.

A grid may have been sent by somebody. What its plugins would do no program can tell, so
whoever submits it is shown each file with its digest and what it declares, once for each
digest, and decides. Nobody decides for a script: it must say `--allow-plugins`.
"""

import shlex
from collections.abc import Callable, Sequence

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
    _refuse_written_by_others(grid, unallowed)
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


def describe_line(grid: Grid, plugin: PluginFile) -> str:
    """A plugin for people: its file, its digest, what it declares."""
    path = format_path(grid.path.parent / plugin.name)
    declares = plugin_files.describe_plugin(plugin)
    return f"plugin {path} (sha256 {plugin.digest[:16]}) declares {declares}"


def _refuse_written_by_others(grid: Grid, plugins: Sequence[PluginFile]) -> None:
    for plugin in plugins:
        path = grid.path.resolve().parent / plugin.name
        fault = ownership.find_fault(path)
        if fault is not None:
            mend = fault.mend or f"cp {shlex.quote(str(path))} to a folder of yours"
            raise UserError(
                f"plugin {fault}: what others may write is not run as yours; {mend}"
            )
