"""Puts one of several wordings of an instruction into an example: beside its question,
or for a paragraph of it."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.intake import read_whole
from zsg_core.data.readers.json_array import LONGEST
from zsg_core.errors import BadData

_GAP = re.compile(r"\n[ \t\r]*\n\s*")


def read_wordings(path: Path) -> list[str]:
    """The wordings of a file: a list of texts in .json, else the lines. BadData for a
    file without any."""
    try:
        text = (
            read_whole(path, LONGEST)
            .decode("utf-8")
            .replace("\r\n", "\n")
            .replace("\r", "\n")
        )
        is_json = path.name.removesuffix(".gz").endswith(".json")
        entries = json.loads(text) if is_json else text.split("\n")
        # JSON may hold halves of characters, which no file may
        json.dumps(entries, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise BadData(f"{path}: cannot be read: {str(error)[:200]}") from error
    if not isinstance(entries, list) or not all(
        isinstance(entry, str) for entry in entries
    ):
        raise BadData(f"{path}: must be a list of texts")
    wordings = [entry.strip() for entry in entries if entry.strip()]
    if not wordings:
        raise BadData(f"{path}: holds no wording of an instruction")
    return wordings


def choose_wording(count: int, rule: Mapping[str, Any], made_id: str) -> int:
    """Which of `count` wordings an example has: drawn by its id where the rule has a
    seed, else the first."""
    return (
        random.Random(f"instruction:{rule['seed']}:{made_id}").randrange(count)
        if "seed" in rule
        else 0
    )


def apply_wording(
    example: Example, texts: Sequence[str], rule: Mapping[str, Any]
) -> Example:
    """The example with its wording. BadData where a paragraph is to be replaced and the
    question has but one."""
    text, (question, answer) = (
        texts[choose_wording(len(texts), rule, example.id)],
        example.turns[0],
    )
    is_after = rule["place"] == "after"
    if rule["replaces"]:
        gaps = list(_GAP.finditer(question.strip()))
        if not gaps:
            raise BadData(
                f"{example.id}: its question has one paragraph, so none is an instruction to be"
                " replaced"
            )
        gap, whole = gaps[-1 if is_after else 0], question.strip()
        worded = whole[: gap.end()] + text if is_after else text + whole[gap.start() :]
    else:
        worded = (
            f"{question.rstrip()}\n\n{text}"
            if is_after
            else f"{text}\n\n{question.lstrip()}"
        )
    return msgspec.structs.replace(
        example, turns=((worded, answer), *example.turns[1:])
    )
