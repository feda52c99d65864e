"""Remembers in the user's home which programs the user's own submits have named for
notices: a workspace may have come from somebody else, and its records name programs,
too.

Where nodes have another home, only `zsg sync` and `zsg status --watch` run the programs.
See `jobs.files.own_notes`.
"""

import logging
from collections.abc import Sequence

from jobs.contract.notices import Receiver, Way
from jobs.files import own_notes
from zsg_core.digest import content_id

logger = logging.getLogger(__name__)

KIND = "notify"
DIGEST = 40  # hex digits


def approve_commands(receivers: Sequence[Receiver]) -> None:
    """Notes the programs among the receivers of a profile that the user has named;
    says where that cannot be."""
    commands = [each.command for each in receivers if each.way == Way.COMMAND]
    if not commands:
        return
    try:
        own_notes.keep_notes(KIND, map(_name_command, commands))
    except OSError as error:
        why = error.strerror or type(error).__name__
        logger.warning(f"note: notify: no program is run for notices: ~/.zsg: {why}")


def is_approved(receiver: Receiver) -> bool:
    """Whether the user's own submit has named this program.

    False also where others may write what says so, and where it cannot be read.
    """
    return own_notes.is_noted(KIND, _name_command(receiver.command))


def _name_command(command: Sequence[str]) -> str:
    """The name of the file of a command."""
    words = list(command)
    return content_id(words, DIGEST)
