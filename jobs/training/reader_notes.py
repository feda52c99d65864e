"""Writes into a folder of weights what its readers must know: by which token answers
end, and how adapters must not be used.

A model's folder may name another end than the one that answers are trained to end
with: its tokenizer's, or its chat template's end of turn. Whoever generates from
`config.json` and `generation_config.json` must stop there.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.contract.folder import Damaged, Unreadable, read_json, write_json
from jobs.model.lora import find_adapted_base

logger = logging.getLogger(__name__)

README = "README.md"
_END = "eos_token_id"


def name_end(settings: Mapping[str, Any], eos: int | None) -> dict[str, Any]:
    """The settings of a config whose `eos_token_id` names the end that was trained;
    other ends that it names stay ends. `eos`: None where it is not known."""
    named = settings.get(_END)
    ends: list[Any] = [] if named is None else [named]
    if isinstance(named, list):
        ends = list(named)
    if eos is None or eos in ends:
        return dict(settings)
    return {**settings, _END: [eos, *ends] if ends else eos}


def name_end_in_file(path: Path, eos: int | None) -> None:
    """The same in a file of a draft; one that names the end already stays to the byte,
    so does the base's own that is no JSON, and one that is not there is not made."""
    try:
        settings = read_json(path)
    except Unreadable:
        raise
    except Damaged as error:
        logger.warning(f"{error}; it stays as the base has it")
        return
    if isinstance(settings, dict) and (named := name_end(settings, eos)) != settings:
        write_json(path, named)


def list_adapter_notes(
    config: Mapping[str, Any], table: str | None, eos: int | None
) -> list[str]:
    """What who loads adapters must know of them. `config`: the base's; `table`: which of
    embedding and output layer is adapted, where both are one table."""
    notes: list[str] = []
    if table is not None:
        notes.append(
            "Do not merge these adapters into the base. It has one table for embedding and output"
            f" layer (tie_word_embeddings), and the adapters of `{table}` are of one of the two:"
            " `merge_and_unload()` would change both, and the model would give other losses"
            " than were measured. Load them as adapters, or set tie_word_embeddings to false"
            " in a copy of the base, whose output layer has a weight of its own, before you"
            " merge, as `zsg merge` does."
        )
    if name_end(config, eos) != config:
        notes.append(
            f"Answers were trained to end with token {eos}, which the base's config.json does not"
            " name: have generation stop there"
            f" (`generate(..., eos_token_id={eos})`)."
        )
    return notes


def write_readme(draft: Path, base: Path, table: str | None, eos: int | None) -> None:
    """Writes the notes on adapters, if there are any, where people look for them.
    `table`: see list_adapter_notes."""
    config: dict[str, Any] = read_json(base / "config.json") or {}
    notes = list_adapter_notes(config, table, eos)
    if find_adapted_base(base):
        notes.append(
            "The weights that these adapters are put on are a sum that no folder holds: those of a"
            " stage before were merged first. `zsg merge` writes a model's folder of them all."
        )
    if not notes:
        return
    text = "\n\n".join(["# Adapters", *notes])
    path = draft / README
    path.write_text(f"{text}\n", encoding="utf-8")
