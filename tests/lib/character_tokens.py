"""Vocabularies whose tokens are characters."""

from jobs.model.vocabulary import Vocabulary

# A token is a character; the first two are the beginning and the end of a sequence.
WORDS = Vocabulary(
    lambda text: [ord(one) + 2 for one in text],
    0,
    1,
    lambda ids: "".join(chr(one - 2) for one in ids if one > 1),
)
BOS, EOS = 1, 2


def characters(text: str) -> list[int]:
    """A tokenizer whose tokens are characters."""
    return [ord(letter) for letter in text]


def text(ids: list[int]) -> str:
    """The text of such tokens."""
    return "".join({BOS: "<s>", EOS: "</s>"}.get(i, chr(i)) for i in ids)
