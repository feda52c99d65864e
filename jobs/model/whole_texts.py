"""Turns whole texts into token ids as lm-evaluation-harness does: its tokens in a text
are tokens, and what the tokenizer puts before a text is put there.

A benchmark's prompt is one text, in which a chat template may have written control
tokens, so they cannot be told from those of the data (jobs.model.text_tokens does that
for what is trained on).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsg_core.errors import UserError

Ids = list[int]


class WholeTexts:
    """A tokenizer of whole texts, and its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer`: transformers'. UserError for one without an end of sequence."""
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"{tokenizer.name_or_path}: the tokenizer has no EOS token, with which"
                " answers end"
            )
        self._tokenizer = tokenizer
        self.eos: int = tokenizer.eos_token_id
        self.eos_text: str = tokenizer.eos_token
        self.bos: int | None = tokenizer.bos_token_id

    @classmethod
    def open(cls, folder: Path) -> "WholeTexts":
        """The tokenizer of a model's folder."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return cls(tokenizer)

    @property
    def first(self) -> int:
        """What an empty context is: the beginning of sequence, or the end where there
        is none."""
        return self.eos if self.bos is None else self.bos

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text with what the tokenizer puts around one; without where a
        text begins with the beginning of sequence, as a chat template may write it."""
        beginning = self._tokenizer.bos_token or self._tokenizer.eos_token
        has_own = [text.startswith(beginning) for text in texts]
        encoded: list[Ids] = [[] for _ in texts]
        for begins, adds in ((True, False), (False, True)):
            numbers = [n for n, has_one in enumerate(has_own) if has_one == begins]
            ids = self._encode([texts[n] for n in numbers], adds)
            for number, of_text in zip(numbers, ids, strict=True):
                encoded[number] = of_text
        return encoded

    def encode_alone(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text with nothing around it."""
        return self._encode(texts, False)

    def _encode(self, texts: Sequence[str], adds_special: bool) -> list[Ids]:
        if not texts:
            return []
        encoded = self._tokenizer(
            list(texts), add_special_tokens=adds_special, verbose=False
        )
        return encoded["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return self._tokenizer.decode(list(map(int, ids)), skip_special_tokens=True)

    def write_chat(
        self,
        messages: Sequence[Mapping[str, str]],
        asks: bool,
        arguments: Mapping[str, Any],
    ) -> str:
        """A dialogue by the tokenizer's own chat template; with what opens an answer
        where it `asks` for one, else with its last message left open. ValueError where
        the template refuses it or is not there."""
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=asks,
                continue_final_message=not asks,
                **arguments,
            )
        except Exception as error:  # whatever a template does, it is told as its own
            raise ValueError(str(error)[:200] or type(error).__name__) from None
        return str(text)
