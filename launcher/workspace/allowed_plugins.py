"""Knows which plugins the user has allowed to be run, by the SHA-256 of each file.

They are noted in the user's home (`jobs.files.own_notes`), where no other user of the
machine can write. Where there is no home, what is allowed holds for this command alone.
"""

import logging
from collections.abc import Sequence

from jobs.files import own_notes
from zsg_core.plugins.declarations import PluginFile

logger = logging.getLogger(__name__)

KIND = "plugins"
# allowed to this process, whose notes could not be kept
_ALLOWED_NOW: set[str] = set()


def allow_plugins(plugins: Sequence[PluginFile]) -> None:
    """Notes that the user allows these; says where that cannot be kept."""
    digests = [plugin.digest for plugin in plugins]
    _ALLOWED_NOW.update(digests)
    why = "there is no home folder"
    try:
        if own_notes.keep_notes(KIND, digests):
            return
    except OSError as error:
        why = error.strerror or type(error).__name__
    logger.warning(
        f"note: that plugins are allowed is not remembered for the next submit: ~/.zsg: {why}"
    )


def are_remembered(plugins: Sequence[PluginFile]) -> bool:
    """Whether other commands of the user know, too, that these are allowed."""
    return all(own_notes.is_noted(KIND, plugin.digest) for plugin in plugins)


def find_unallowed(plugins: Sequence[PluginFile]) -> list[PluginFile]:
    """Those that the user has not allowed yet."""
    return [
        plugin
        for plugin in plugins
        if plugin.digest not in _ALLOWED_NOW
        and not own_notes.is_noted(KIND, plugin.digest)
    ]
