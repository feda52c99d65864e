"""Decides which tokens beside a vocabulary's dictionary may mark something, and so are
never made of a text's words."""

import re
import unicodedata

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def is_control(token: str) -> bool:
    """Whether an added token may mark something: a turn, an end, a tool's call.

    All do but runs of blanks, single printable characters and single bytes, which
    published tokenizers add as pieces of plain text (GPT-NeoX's blanks, DeepSeek's `ø`,
    SentencePiece's `<0x0A>`). Whether a tokenizer calls a token special does not count:
    several chat models publish `<|im_end|>` without it.
    """
    is_blank = not token.strip()
    is_one_character = len(token) == 1 and unicodedata.category(token)[0] != "C"
    return not (is_blank or is_one_character or _BYTE.fullmatch(token))
