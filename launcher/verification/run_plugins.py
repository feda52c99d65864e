"""Finds the plugins that a run was made with, and runs them only if their user has
allowed them: a run's folder may have been sent by somebody."""

from pathlib import Path

from jobs.files import ownership
from launcher.verification.evidence import Evidence
from launcher.verification.finding import NotChecked
from launcher.workspace import allowed_plugins, code_snapshot
from zsg_core.errors import PluginError
from zsg_core.plugins import entries, loading
from zsg_core.plugins.declarations import PluginFile


def enter_declared(e: Evidence) -> tuple[Path, tuple[PluginFile, ...]]:
    """The folder of the run's code, and the plugins whose copies lie there; what they
    declare is known from now on, and nothing of them is run. NotChecked where they
    cannot be read."""
    name = code_snapshot.name_folder(e.job.code.facts)
    folder = e.made(f"code/{name}")
    try:
        plugins = loading.read_copies(folder)
    except PluginError as error:
        raise NotChecked(str(error)) from error
    entries.enter_plugins(plugins)
    return folder, plugins


def let_run(folder: Path, plugins: tuple[PluginFile, ...]) -> None:
    """Lets this process run the copies. NotChecked where the user has not allowed one,
    and where others may write them."""
    fault = ownership.find_fault_on_path(
        folder.parent.parent, folder
    ) or ownership.find_fault_within(folder)
    if fault:
        raise NotChecked(f"its plugins are not run, since {fault}")
    unallowed = allowed_plugins.find_unallowed(plugins)
    if unallowed:
        raise NotChecked(
            f"plugin {unallowed[0].name} is not allowed for you, and is not run; a submit"
            " of its grid with --allow-plugins allows it"
        )
    loading.let_run(folder, plugins)
