"""forgetting.json: what a `zsg forget` is removing. It is written before the first thing
goes and removed after the last, so that one that was killed can be carried on.
"""

from pathlib import Path

import msgspec

from jobs.contract import removal
from jobs.contract.folder import SCHEMA, Workspace
from jobs.contract.records import read_record, write_record

NAME = "forgetting.json"


class ForgetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What goes. `grids` and `runs` were asked for; `items`: job folders, `things`: what
    was made for them; both relative to the workspace. `created`: ms since the epoch:
    what was submitted later stays."""

    schema: int = SCHEMA
    created: int
    grids: list[str] = []
    runs: list[str] = []
    items: list[str] = []
    things: list[str] = []


def locate_forget_record(workspace: Workspace) -> Path:
    """Where it is."""
    return workspace.root / NAME


def read_forget_record(workspace: Workspace) -> ForgetRecord | None:
    """What was being removed when a `zsg forget` died; None where none did. Damaged for
    what is no such record."""
    return read_record(locate_forget_record(workspace), ForgetRecord)


def write_forget_record(workspace: Workspace, record: ForgetRecord) -> None:
    """Writes down what is going to be removed."""
    write_record(locate_forget_record(workspace), record)


def remove_forget_record(workspace: Workspace) -> None:
    """All of it has been removed."""
    removal.remove_file(workspace.root, locate_forget_record(workspace))
