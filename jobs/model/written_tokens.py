"""Token ids as people read them: as text in which control tokens are written, too."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.model import text_tokens


class WrittenTokens:
    """A tokenizer's ids as text. `control`: the ids of its control tokens by their
    words, as `</s>`."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        words: Mapping[str, int] = text_tokens.control_tokens(self._tokenizer)
        self.control = dict(words)

    def write(self, ids: Sequence[int]) -> str:
        """The text of the ids; no blank of theirs is taken for an oversight."""
        return self._tokenizer.decode(
            list(ids),
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )

    def write_stretches(self, ids: Sequence[int], bounds: Sequence[int]) -> list[str]:
        """The texts of the ids between neighbouring bounds, the first of them 0.

        Some tokenizers write a blank before a text's first word or leave it out, so a
        stretch is what its ids add to the text of those before it. A letter whose bytes
        are divided between two stretches is whole in neither.
        """
        texts: list[str] = []
        before = ""
        for start, stop in itertools.pairwise(bounds):
            whole = self.write(ids[:stop])
            if whole.startswith(before):
                texts.append(whole[len(before) :])
            else:
                texts.append(self.write(ids[start:stop]))
            before = whole
        return texts
