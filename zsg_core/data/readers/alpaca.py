"""Reads Alpaca rows, Code Alpaca's too: `instruction`, `input`, `output`, and
Self-Instruct's seeds.

The user says the instruction and, on the next line, the input, where there is one.
"""

import msgspec

from zsg_core.data.examples import Example, Turn
from zsg_core.data.readers.format import row_reader
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.keys import RowKeys


class AlpacaRow(RowKeys, gc=False, kw_only=True):
    """One row; `history` holds the turns before it (LLaMA-Factory's dialect)."""

    instruction: str
    output: str
    input: str | None = ""
    system: str | None = ""
    history: list[Turn] | None = msgspec.field(default_factory=list)


class SeedInstance(msgspec.Struct, gc=False):
    """An input of a seed task and its output."""

    output: str
    input: str | None = ""


class SeedRow(RowKeys, gc=False):
    """A seed task of Self-Instruct."""

    instruction: str
    instances: list[SeedInstance]


@row_reader(
    "alpaca",
    "Alpaca and Code Alpaca: instruction, input, output",
    AlpacaRow,
    (".json", ".jsonl"),
)
def parse_row(row: AlpacaRow, name: str, intake: Intake) -> list[Example]:
    """One example. A null in a key that may be absent is absence: pandas writes it, and
    Parquet has no other way to say it."""
    if row.input is None or row.system is None or row.history is None:
        intake.note_nulls(input=row.input, system=row.system, history=row.history)
    question = _asked(row.instruction, row.input or "")
    turns = (*(row.history or ()), (question, row.output))
    made_id = intake.next_id("alpaca")
    return [Example(id=made_id, task="alpaca", turns=turns, system=row.system or "")]


@row_reader(
    "self_instruct", "Self-Instruct's seeds: instruction and instances", SeedRow
)
def parse_seed(row: SeedRow, name: str, intake: Intake) -> list[Example]:
    """An example for each instance. Malformed without one."""
    if not row.instances:
        raise Malformed("`instances` is empty")
    task = "self_instruct"
    for instance in row.instances:
        intake.note_nulls(**{"instances[].input": instance.input})
    turns = [
        (_asked(row.instruction, instance.input or ""), instance.output)
        for instance in row.instances
    ]
    return [
        Example(id=intake.next_id(task), task=task, turns=(turn,)) for turn in turns
    ]


def _asked(instruction: str, input_text: str) -> str:
    return f"{instruction}\n{input_text}" if input_text.strip() else instruction
