"""Reads Flan-mini: one JSON array of ShareGPT-like `conversations` whose `source` names the task.

Source: declare-lab/flan-mini, and ZSG's train_eval_key_list.json, which holds 225 of
1825 tasks out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers import keyed
from zsg_core.data.readers.dialogue import pair_turns
from zsg_core.data.readers.format import (
    Facts,
    Inspection,
    choose_form,
    find_files,
    note_other_forms,
    parse_rows,
    reader,
)
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.keys import MessageKeys, RowKeys
from zsg_core.data.readers.rows import json_rows

ARRAY = "flan_mini.json"


class FlanMessage(MessageKeys, gc=False):
    """One message."""

    from_: str = msgspec.field(name="from")
    value: str


class FlanRow(RowKeys, gc=False):
    """One record. `source`: None in data sets where some rows have none."""

    source: str | None
    conversations: list[FlanMessage]


class BareMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A message of nothing but its keys, as nearly all are."""

    from_: str = msgspec.field(name="from")
    value: str


class BareRow(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A record of such messages."""

    source: str
    conversations: list[BareMessage]
    id: Any = None


def parse_row(row: FlanRow | BareRow, name: str, intake: Intake) -> list[Example]:
    """One example of the task `source`. Malformed without one."""
    if row.source is None:
        raise Malformed("`source` is null, and names the task")
    messages = row.conversations
    # nearly all: the fast way
    if (
        len(messages) == 2
        and messages[0].from_ == "human"
        and messages[1].from_ == "gpt"
    ):
        system, pairs = "", ((messages[0].value, messages[1].value),)
    else:
        system, pairs = pair_turns(
            [(message.from_, message.value) for message in messages], intake
        )
    made_id = intake.next_id(row.source)
    return [Example(id=made_id, task=row.source, turns=pairs, system=system)]


def _array(path: Path) -> list[Path]:
    file = choose_form(path, ARRAY) if path.is_dir() else path
    return find_files(file, (".json", ".jsonl"))


def inspect_files(path: Path, facts: Facts) -> Inspection:
    """Which other forms of the file a folder has."""
    return Inspection(notes=note_other_forms(path, _array(path)))


@reader(
    "flan_mini",
    about=f"Flan-mini: a folder with {ARRAY} and ZSG's {keyed.KEY_LIST}",
    files=lambda path: _array(path) + keyed.list_files(path),
    lists=keyed.read_lists,
    many_tasks=True,
    inspect=inspect_files,
)
def read_examples(path: Path, intake: Intake) -> Iterator[Example]:
    """All records in file order."""
    for file in _array(path):
        yield from parse_rows(
            file, json_rows(file, FlanRow, intake, bare=BareRow), parse_row, intake
        )
