"""Keeps a training list as token ids: made once, mapped by every rank, run and restart
that needs it.

tokens/<id>/   ids.npy (T,) int32: the examples' tokens one after the other; spans.npy
               (S, 2) int32: what of each is
               learnt; ends.npy (N, 3) int64: where each example's tokens and spans
                   end, and how many tokens it lost; texts.npy (X, 2) int64: where
                   examples are several texts, the number of the example and the length
                   of each
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import (
    is_whole,
    lock_folder,
    publish_folder,
)
from jobs.contract.prepared import (
    TokensMeta,
    read_tokens_meta,
    write_prepared_meta,
)
from zsg_core.data.examples import Example
from zsg_core.data.prompts import EncodedExample
from zsg_core.digest import content_id

Encode = Callable[[Example], EncodedExample]


class Tokens(Sequence[EncodedExample]):
    """The examples of a folder; each is made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Maps the files of `folder` instead of reading them: a stage's tokens may be
        larger than memory, and the ranks of a node share the pages.

        `_bounds` is (examples + 1, 3): up to where ids, spans and cut tokens of the
        examples before each one reach. `_texts` is (texts, 2), example and length, and
        empty where no example is made of several texts or an older zsg wrote the
        folder.
        """
        self._folder = folder
        self._ids, self._spans, ends = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in _FILES
        )
        # row by row where an example begins and ends
        self._bounds = np.concatenate([np.zeros((1, 3), np.int64), ends])
        texts = folder / _TEXTS
        self._texts = np.load(texts) if texts.exists() else np.empty((0, 2), np.int64)

    @property
    def questionless(self) -> int | None:
        """How many examples have lost their whole question; None where an older zsg made
        the folder."""
        meta = read_tokens_meta(self._folder)
        return replace_unset(meta.questionless) if meta else None

    @property
    def apart(self) -> int:
        """Of how many examples the last prompt has other tokens where it stands alone."""
        meta = read_tokens_meta(self._folder)
        return (meta and replace_unset(meta.apart)) or 0

    @property
    def control(self) -> int:
        """How many words of control tokens stayed text under a chat template."""
        meta = read_tokens_meta(self._folder)
        return (meta and replace_unset(meta.control)) or 0

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> EncodedExample:  # type: ignore[override]
        """The example at `index`, from its rows of the mapped arrays.

        Nothing but this example's part of the files is read. Negative indices and
        slices are not supported; an index out of range raises IndexError, on which
        iteration ends.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        (first, span, _), (stop, last, cut) = (
            self._bounds[index],
            self._bounds[index + 1],
        )
        spans = tuple((int(a), int(b)) for a, b in self._spans[span:last])
        begin, end = np.searchsorted(self._texts[:, 0], [index, index + 1])
        sequences = tuple(map(int, self._texts[begin:end, 1]))
        return EncodedExample(
            self._ids[first:stop], spans, int(cut), sequences=sequences
        )


def how_encoded(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What of a stage's recipe decides how an example becomes tokens."""
    train = stage["train"]
    how = {"template": stage["data"]["template"], "max_length": train["max_length"]}
    return how | {"truncate": train.get("truncate", "prompt")}


def tokens_id(recipe: Mapping[str, Any], arrangement: str) -> str:
    """The id of the tokens of an arrangement as the last stage of a recipe reads them."""
    how = how_encoded(recipe["stages"][-1])
    return content_id(
        {"kind": "tokens", "arrangement": arrangement, "base": recipe["base"], **how}
    )


_FILES = ("ids", "spans", "ends")
_TEXTS = "texts.npy"


def prepare_tokens(
    folder: Path, examples: Callable[[], Sequence[Example]], encode: Encode
) -> Tokens:
    """The tokens of the examples, in their order; made now unless they are there. One
    process makes, others wait.

    `examples` is asked for them only if they are to be made.
    """
    with lock_folder(folder):
        if not is_whole(folder):
            with publish_folder(folder) as draft:
                _write(draft, examples(), encode)
    return Tokens(folder)


def _write(draft: Path, examples: Sequence[Example], encode: Encode) -> None:
    """Writes the tokens of all examples, one after the other, where each ends, and which
    of them are targets. Token ids go to the disk at once: they may not fit the memory."""
    ends, spans, sizes, questionless = [], [], [0, 0], 0
    texts: list[tuple[int, int]] = []
    apart, control = 0, 0
    raw_ids = draft / "ids"
    with raw_ids.open("wb") as file:
        for example in examples:
            encoded = encode(example)
            np.array(encoded.ids, np.int32).tofile(file)
            spans += encoded.spans
            sizes = [sizes[0] + len(encoded.ids), sizes[1] + len(encoded.spans)]
            ends.append([*sizes, encoded.cut])
            texts += [(len(ends) - 1, length) for length in encoded.sequences]
            questionless += encoded.lost_question
            apart += encoded.apart
            control += encoded.control
    # a file without bytes cannot be mapped
    ids = np.memmap(raw_ids, np.int32, "r") if sizes[0] else np.empty(0, np.int32)
    np.save(draft / "ids.npy", ids)
    raw_ids.unlink()
    np.save(draft / "spans.npy", np.array(spans, np.int32).reshape(-1, 2))
    np.save(draft / "ends.npy", np.array(ends, np.int64).reshape(-1, 3))
    if texts:
        np.save(draft / _TEXTS, np.array(texts, np.int64))
    meta = TokensMeta(
        examples=len(ends),
        tokens=sizes[0],
        questionless=questionless,
        apart=apart or UNSET,
        control=control or UNSET,
    )
    write_prepared_meta(draft, meta)
