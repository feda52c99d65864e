"""Adds tokens to a model and its tokenizer, as a base of its own that trains, loads and
is evaluated like any other.

A token stands for a text of the data, such as DELIA's `<sep>`, which becomes one id
wherever it occurs and is not left out of decoded answers; `</s>` in the data stays
text. The embedding and an output layer of its own grow to the next multiple of 64 rows.
A token's row of the embedding is drawn from N(0, 1) or the mean of all rows that there
were. Its row of the output layer, and the rows that stand for no token, are that mean
in both cases: a token that is as likely as the others are on average. A token that the
tokenizer has already, added and not marked special (`<think>` of some), may be named,
too: it keeps its row, and is a token wherever a text has it, as it would not be
otherwise.

DELIA's code means to draw `<sep>`'s row so and draws only those after it, which stand
for nothing: `<sep>` keeps the row that transformers gave it, N(0, 0.02²) at the time.
Its 8-bit weights and the name `sep_token` are left out here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.contract.folder import META, publish_folder, write_json
from jobs.files import ordinary_files, ownership
from jobs.files.model_file_names import GENERATION
from jobs.model import content, text_tokens
from zsg_core.errors import UserError
from zsg_core.training.decoder import padded_vocab


def make_extended_base(folder: Path, source: Path, recipe: Mapping[str, Any]) -> None:
    """Publishes the base of `source` with the recipe's added tokens. UserError for one
    that is a token already."""
    import torch
    from transformers import AddedToken, AutoTokenizer

    from jobs.model import architecture

    added = recipe["added"]
    tokenizer = AutoTokenizer.from_pretrained(
        source, local_files_only=True, trust_remote_code=False
    )
    there = not_special(tokenizer)
    known_words = {
        token: one for token, one in tokenizer.get_vocab().items() if token not in there
    }
    refuse_known(source, added["tokens"], known_words)
    model = _load(source)
    known = min(len(tokenizer), model.config.vocab_size)
    new = [token for token in added["tokens"] if token not in there]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in new])
    rows = tokenizer.convert_tokens_to_ids(new)
    if rows:
        # some tokenizers have words beyond their model's rows, and new ones come after
        size = padded_vocab(max(model.config.vocab_size + len(rows), max(rows) + 1))
        _add_rows(model, known, size)
    if added["init"] == "random":
        draws = torch.Generator().manual_seed(added["seed"])
        table = architecture.find_embedding(model).weight
        drawn = torch.randn(len(rows), table.shape[1], generator=draws)
        with torch.no_grad():
            table[rows] = drawn.to(table.dtype)
    with publish_folder(folder) as draft:
        _save(model, source, draft)
        tokenizer.save_pretrained(draft)
        for path in content.templates_of(source):
            copied = draft / path.relative_to(source)
            if not copied.exists():
                ownership.make_folder(copied.parent)
                ordinary_files.copy_file(source, path, copied)
        files = content.model_files(draft)
        digest = content.folder_digest(draft, files, content.sha256_of(files))
        ids = dict(
            zip(
                added["tokens"],
                tokenizer.convert_tokens_to_ids(added["tokens"]),
                strict=True,
            )
        )
        parameters = sum(p.numel() for p in model.parameters())
        write_json(
            draft / META,
            {
                "recipe": dict(recipe),
                "added": ids,
                "parameters": parameters,
                "digest": digest,
            },
        )


def not_special(tokenizer: Any) -> set[str]:
    """The control tokens of a tokenizer that are not marked special: a grid may name
    them, and they stay tokens."""
    rows = tokenizer.added_tokens_decoder.values()
    return {
        row.content for row in rows if not row.special
    } & text_tokens.control_tokens(tokenizer).keys()


def refuse_known(
    folder: Path, tokens: list[str], vocabulary: Mapping[str, int]
) -> None:
    """UserError for a text that is a token of the model as it is."""
    for token in tokens:
        if token in vocabulary:
            raise UserError(
                f"model.add_tokens: {token!r} is a token of {folder} already; take it out"
            )


def known_tokens(folder: Path) -> Mapping[str, int]:
    """The tokens of a tokenizer.json, read without any engine; none where there is no
    such file, or no dictionary."""
    path = folder / "tokenizer.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        held = told["model"]["vocab"]
        special = {row["content"]: row["id"] for row in told.get("added_tokens") or ()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return (held if isinstance(held, dict) else {}) | special


def _load(source: Path) -> Any:
    """The model of a folder in its own type. UserError for an architecture that zsg does
    not train."""
    from jobs.model import architecture
    from jobs.model.base_model import read_config

    config = read_config(source)
    try:
        model_class = architecture.find_class(config)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return model_class.from_pretrained(
        source, config=config, local_files_only=True, dtype="auto"
    )


def _add_rows(model: Any, known: int, size: int) -> None:
    """Gives embedding and output layer `size` rows; those that stand for none of the
    `known` first tokens are their mean."""
    import torch

    with torch.no_grad():
        tables = _list_tables(model)
        means = [table[:known].double().mean(0) for table in tables]
        model.resize_token_embeddings(size, mean_resizing=False)
        for table, mean in zip(_list_tables(model), means, strict=True):
            table[known:] = mean.to(table.dtype)


def _list_tables(model: Any) -> list[Any]:
    """What of a model has a row, or a value, for each token: the embedding, and weight
    and bias of the output layer unless it has the embedding's."""
    from jobs.model import architecture

    embedding = architecture.find_embedding(model).weight
    head = architecture.find_head(model)
    tables = [embedding, head.weight, getattr(head, "bias", None)]
    return [
        table
        for index, table in enumerate(tables)
        if table is not None and (index == 0 or table is not embedding)
    ]


def _save(model: Any, source: Path, draft: Path) -> None:
    """Saves a model, with the generation config of the folder that it came from as it
    is: transformers does not write all that it reads."""
    from transformers import GenerationConfig

    path = source / GENERATION
    if path.is_file():
        model.generation_config = GenerationConfig()
    model.save_pretrained(draft)
    if path.is_file():
        (draft / GENERATION).unlink(missing_ok=True)
        ordinary_files.copy_file(source, path, draft / GENERATION)
