"""Reads texts of others as text: no word of theirs becomes a control token of a model.

A tokenizer finds its added tokens in a text before anything else. transformers'
`split_special_tokens` passes over those that are marked special, and no others; and
some dictionaries (Unigram's) hold the words of special tokens, too. So here is a copy
of the tokenizer in which control tokens have other words, drawn anew for each copy,
which no text has. Every token keeps its id, and a text without control tokens becomes
the same ids as before.
"""

import copy
import json
import re
import secrets
from collections.abc import Collection, Mapping
from typing import Any

from zsg_core.control_tokens import is_control
from zsg_core.errors import UserError


def reads_text(tokenizer: Any, kept: Collection[str] = ()) -> Any:
    """A tokenizer that, with split_special_tokens, makes no control token of any text,
    but those that are `kept`.

    It is the tokenizer itself where that does so already.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # transformers' own Python tokenizers split all that was added
        return tokenizer
    control = {
        token: one
        for token, one in control_tokens(tokenizer).items()
        if token not in kept
    }
    if not any(_is_made(tokenizer, token, one) for token, one in control.items()):
        return tokenizer
    return _renamed(tokenizer, _other_words(control), are_special=True)


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The added tokens that may mark something, with their ids. The unknown token is
    none: texts are full of it."""
    added = {
        token.content: one for one, token in tokenizer.added_tokens_decoder.items()
    }
    return {
        token: one
        for token, one in added.items()
        if is_control(token) and token != tokenizer.unk_token
    }


class ChatTokens:
    """Encodes chats: the control tokens that a template writes are tokens, those in
    what was said are text."""

    def __init__(self, tokenizer: Any) -> None:
        """UserError for a tokenizer that is computed in Python, whose tokens cannot be
        told apart."""
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise UserError(
                f"{tokenizer.name_or_path}: a {type(tokenizer).__name__} has no tokenizer.json of"
                " the tokenizers library; zsg could not keep words of answers from becoming"
                " control tokens; save it as a fast tokenizer"
            )
        self._tokenizer = tokenizer
        self._ids_of = control_tokens(tokenizer)
        self._control = set(self._ids_of.values())
        self._words = _other_words(self._ids_of)
        self._renamed = _renamed(tokenizer, self._words, are_special=False)
        longest_first = sorted(self._words, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # Tokens may overlap, as in `<s<s>>`, so each place is looked at by itself.
        self._begins = re.compile(f"(?=({self._pattern.pattern}))", re.DOTALL)

    def text(self, text: str) -> list[int]:
        """The ids of a text in which nothing is a token, with what the tokenizer puts
        around every text."""
        return self._ids(text, add_special_tokens=True)

    def chat(self, said: list[dict[str, str]]) -> list[int]:
        """The ids of what was said, by role and content, as the tokenizer's own chat
        template writes it."""
        mark = f"zsg{secrets.token_hex(16)}"
        held = [
            {key: self._held_back(text, mark) for key, text in one.items()}
            for one in said
        ]
        whole = self._tokenizer.apply_chat_template(held, tokenize=False)
        tokens = self._found(whole)
        pieces, since = [], 0
        for start, stop in tokens:
            pieces += [whole[since:start], self._words[whole[start:stop]]]
            since = stop
        marked = "".join([*pieces, whole[since:]])
        ids = self._ids(
            re.sub(f"{mark}x([0-9a-f]+)x", lambda found: chr(int(found[1], 16)), marked)
        )
        if sum(one in self._control for one in ids) != len(tokens):
            raise UserError(
                f"{self._tokenizer.name_or_path}: zsg cannot tell the control tokens of its chat"
                " template from those that an answer may write"
            )
        return ids

    def _found(self, text: str) -> list[tuple[int, int]]:
        """Where the words of control tokens stand that become tokens: some do only
        after a blank, say."""
        places = [
            (found.start(), found.end()) for found in self._pattern.finditer(text)
        ]
        if not places:
            return []
        asked: dict[str, Any] = {
            "add_special_tokens": False,
            "return_offsets_mapping": True,
            "verbose": False,
        }
        made = self._tokenizer(text, **asked)
        spans = zip(made["input_ids"], made["offset_mapping"], strict=True)
        tokens = [(one, span) for one, span in spans if one in self._control]
        found, at = [], 0
        for start, stop in places:
            while at < len(tokens) and tokens[at][1][1] <= start:
                at += 1
            if (
                at < len(tokens)
                and tokens[at][1][0] < stop
                and tokens[at][0] == self._ids_of[text[start:stop]]
            ):
                found.append((start, stop))
        return found

    def _held_back(self, text: str, mark: str) -> str:
        """A text whose control tokens lack their first letter, so that no template's
        own is taken for one of them."""
        places = [found.start() for found in self._begins.finditer(text)]
        made, since = [], 0
        for place in places:
            made += [text[since:place], f"{mark}x{ord(text[place]):x}x"]
            since = place + 1
        return "".join([*made, text[since:]])

    def _ids(self, text: str, add_special_tokens: bool = False) -> list[int]:
        asked: dict[str, Any] = {"split_special_tokens": True, "verbose": False}
        return self._renamed(text, add_special_tokens=add_special_tokens, **asked)[
            "input_ids"
        ]


def _is_made(tokenizer: Any, token: str, one: int) -> bool:
    """Whether a text that holds the token's words becomes the token, at its beginning or within."""
    texts = (token, f"a {token} b", f"a{token}b")
    asked: dict[str, Any] = {
        "add_special_tokens": False,
        "split_special_tokens": True,
        "verbose": False,
    }
    return any(one in tokenizer(text, **asked)["input_ids"] for text in texts)


def _other_words(tokens: Collection[str]) -> dict[str, str]:
    """Words for each token that no text has: letters and digits, which every normalizer
    leaves as they are."""
    drawn = secrets.token_hex(16)
    return {token: f"zsg{drawn}x{number}x" for number, token in enumerate(tokens)}


def _renamed(tokenizer: Any, words: Mapping[str, str], are_special: bool) -> Any:
    """A copy of a tokenizer in which tokens have other words and their old ids.
    UserError where that cannot be."""
    from tokenizers import Tokenizer

    told = json.loads(tokenizer.backend_tokenizer.to_str())
    for row in told["added_tokens"]:
        if row["content"] in words:
            row |= {"content": words[row["content"]], "special": are_special}
    told["model"] = _renamed_dictionary(told["model"], words)
    backend = Tokenizer.from_str(json.dumps(told))
    wanted = {
        one: words.get(token.content, token.content)
        for one, token in tokenizer.added_tokens_decoder.items()
    }
    if {
        one: token.content for one, token in backend.get_added_tokens_decoder().items()
    } != wanted:
        raise UserError(
            f"{tokenizer.name_or_path}: its added tokens have ids that zsg cannot keep; save it"
            " anew"
        )
    made = copy.copy(tokenizer)
    made._tokenizer = backend
    return made


def _renamed_dictionary(
    model: dict[str, Any], words: Mapping[str, str]
) -> dict[str, Any]:
    """The dictionary with other words for the tokens, and without the merges that would
    make the old ones."""
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: pairs of a token and its score
        return {
            **model,
            "vocab": [[words.get(token, token), score] for token, score in vocab],
        }
    made = {
        **model,
        "vocab": {words.get(token, token): one for token, one in vocab.items()},
    }
    if "merges" in model:
        pairs = [
            pair.split(" ") if isinstance(pair, str) else pair
            for pair in model["merges"]
        ]
        made["merges"] = [
            pair
            for pair in pairs
            if not {pair[0], pair[1], pair[0] + pair[1]} & words.keys()
        ]
    return made
