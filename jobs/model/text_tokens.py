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
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from zsg_core.control_tokens import is_control
from zsg_core.errors import UserError


def reads_text(tokenizer: Any, kept_words: Collection[str] = ()) -> Any:
    """A tokenizer that, with split_special_tokens, makes no control token of any text,
    but those that are in `kept_words`.

    It is the tokenizer itself where that does so already.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # transformers' own Python tokenizers split all that was added
        return tokenizer
    control = {
        word: token_id
        for word, token_id in control_tokens(tokenizer).items()
        if word not in kept_words
    }
    if not any(_is_made(tokenizer, *named) for named in control.items()):
        return tokenizer
    return _renamed(tokenizer, _other_words(control), are_special=True)


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The added tokens that may mark something, with their ids. The unknown token is
    none: texts are full of it."""
    added = {
        token.content: token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
    }
    return {
        word: token_id
        for word, token_id in added.items()
        if is_control(word) and word != tokenizer.unk_token
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
        longest_first = sorted(self._words, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # Tokens may overlap, as in `<s<s>>`, so each place is looked at by itself.
        self._begins = re.compile(f"(?=({self._pattern.pattern}))", re.DOTALL)

    @property
    def words(self) -> Mapping[str, int]:
        """The control tokens, with their ids."""
        return self._ids_of

    @cached_property
    def _renamed(self) -> Any:
        """The tokenizer with other words for its control tokens; made when one is needed."""
        return _renamed(self._tokenizer, self._words, are_special=False)

    def text(self, text: str) -> list[int]:
        """The ids of a text in which nothing is a token, with what the tokenizer puts
        around every text."""
        return self._ids(text, add_special_tokens=True)

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """The ids of a chat's messages, by role and content, as the tokenizer's own chat
        template writes them."""
        mark = f"zsg{secrets.token_hex(16)}"
        marked_messages = [
            {key: self._hide_control_words(text, mark) for key, text in message.items()}
            for message in messages
        ]
        text = self._tokenizer.apply_chat_template(marked_messages, tokenize=False)
        spans = self.find_control_tokens(text)
        marked, _ = self._rename(text, spans)
        ids = self._ids(
            re.sub(f"{mark}x([0-9a-f]+)x", lambda match: chr(int(match[1], 16)), marked)
        )
        if sum(token_id in self._control for token_id in ids) != len(spans):
            raise UserError(
                f"{self._tokenizer.name_or_path}: zsg cannot tell the control tokens of its chat"
                " template from those that an answer may write"
            )
        return ids

    def encode(self, text: str) -> "PlacedIds":
        """The ids of a text as the tokenizer reads it, its control tokens, too."""
        return _place_ids(self._tokenizer, text, split_special_tokens=False)

    def encode_with(self, text: str, spans: Sequence[tuple[int, int]]) -> "PlacedIds":
        """The ids of a text of which the words of control tokens at `spans` are tokens,
        and all others are text. UserError where the tokenizer cannot tell them apart."""
        marked, stretches = self._rename(text, spans)
        encoded = _place_ids(self._renamed, marked, split_special_tokens=True)
        if sum(token_id in self._control for token_id in encoded.ids) != len(spans):
            raise UserError(
                f"{self._tokenizer.name_or_path}: zsg cannot tell the control tokens of its chat"
                " template from those that a text may write"
            )
        return PlacedIds(
            encoded.ids,
            [_move_back(start, stretches) for start in encoded.starts],
            [_move_back(stop, stretches) for stop in encoded.stops],
        )

    def _rename(
        self, text: str, spans: Sequence[tuple[int, int]]
    ) -> tuple[str, list["_Stretch"]]:
        """A text with other words for its control tokens at `spans`, and which stretch
        of it stands where in the text as it was."""
        pieces: list[str] = []
        stretches: list[_Stretch] = []
        since, length = 0, 0
        for start, stop in [*spans, (len(text), len(text))]:
            between = text[since:start]
            word = self._words[text[start:stop]] if stop > start else ""
            stretches.append(_Stretch(length, since, len(between)))
            length += len(between)
            stretches.append(_Stretch(length, start, 0))
            length += len(word)
            pieces += [between, word]
            since = stop
        # what stands behind all
        stretches.append(_Stretch(length, len(text), 0))
        return "".join(pieces), stretches

    def find_control_tokens(self, text: str) -> list[tuple[int, int]]:
        """Where the words of control tokens stand that become tokens: some do only
        after a blank, say."""
        spans = [match.span() for match in self._pattern.finditer(text)]
        if not spans:
            return []
        tokens = self._list_control_tokens(text)
        position = 0
        becoming_tokens: list[tuple[int, int]] = []
        for start, stop in spans:
            while position < len(tokens) and tokens[position].stop <= start:
                position += 1
            token = tokens[position] if position < len(tokens) else None
            token_id = self._ids_of[text[start:stop]]
            if token and token.start < stop and token.token_id == token_id:
                becoming_tokens.append((start, stop))
        return becoming_tokens

    def _list_control_tokens(self, text: str) -> list["_PlacedToken"]:
        """The control tokens that the tokenizer finds in a text, in its order."""
        encoding = self._tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        placed = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        return [
            _PlacedToken(token_id, *span)
            for token_id, span in placed
            if token_id in self._control
        ]

    def _hide_control_words(self, text: str, mark: str) -> str:
        """A text whose control tokens lack their first letter, so that no template's
        own is taken for one of them."""
        pieces, since = [], 0
        for match in self._begins.finditer(text):
            start = match.start()
            pieces += [text[since:start], f"{mark}x{ord(text[start]):x}x"]
            since = start + 1
        return "".join([*pieces, text[since:]])

    def _ids(self, text: str, add_special_tokens: bool = False) -> list[int]:
        encoding = self._renamed(
            text,
            add_special_tokens=add_special_tokens,
            split_special_tokens=True,
            verbose=False,
        )
        return encoding["input_ids"]


class PlacedIds(NamedTuple):
    """The ids of a text, and from which character to which each of them stands."""

    ids: list[int]
    starts: list[int]
    stops: list[int]


class _Stretch(NamedTuple):
    """Where a stretch of a renamed text begins, and of the text as it was, and how many
    characters they have in common; 0 of a word that was renamed."""

    start: int
    original: int
    length: int


def _move_back(offset: int, stretches: Sequence[_Stretch]) -> int:
    """The place in a text as it was of one in the renamed text: of one within a renamed
    word the end of it."""
    number = bisect_right(stretches, offset, key=lambda stretch: stretch.start) - 1
    stretch = stretches[number]
    inside = offset - stretch.start
    if inside <= stretch.length:
        return stretch.original + inside
    return stretches[number + 1].original


def _place_ids(tokenizer: Any, text: str, *, split_special_tokens: bool) -> PlacedIds:
    """The ids of a text with their places, without what the tokenizer puts around every
    text."""
    encoding = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=split_special_tokens,
        return_offsets_mapping=True,
        verbose=False,
    )
    offsets = encoding["offset_mapping"]
    starts = [start for start, _ in offsets]
    stops = [stop for _, stop in offsets]
    return PlacedIds(encoding["input_ids"], starts, stops)


class _PlacedToken(NamedTuple):
    """A token of a text, and from which character to which it stands."""

    token_id: int
    start: int
    stop: int


def _is_made(tokenizer: Any, word: str, token_id: int) -> bool:
    """Whether a text that holds the token's word becomes the token, at its beginning or within."""
    options: dict[str, Any] = {
        "add_special_tokens": False,
        "split_special_tokens": True,
        "verbose": False,
    }
    return any(
        token_id in tokenizer(text, **options)["input_ids"]
        for text in (word, f"a {word} b", f"a{word}b")
    )


def _other_words(tokens: Collection[str]) -> dict[str, str]:
    """Words for each token that no text has: letters and digits, which every normalizer
    leaves as they are."""
    drawn = secrets.token_hex(16)
    return {token: f"zsg{drawn}x{number}x" for number, token in enumerate(tokens)}


def _renamed(tokenizer: Any, words: Mapping[str, str], are_special: bool) -> Any:
    """A copy of a tokenizer in which tokens have other words and their old ids.
    UserError where that cannot be."""
    from tokenizers import Tokenizer

    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    for row in settings["added_tokens"]:
        if row["content"] in words:
            row |= {"content": words[row["content"]], "special": are_special}
    settings["model"] = _renamed_dictionary(settings["model"], words)
    backend = Tokenizer.from_str(json.dumps(settings))
    expected = {
        token_id: words.get(token.content, token.content)
        for token_id, token in tokenizer.added_tokens_decoder.items()
    }
    added = {
        token_id: token.content
        for token_id, token in backend.get_added_tokens_decoder().items()
    }
    if added != expected:
        raise UserError(
            f"{tokenizer.name_or_path}: its added tokens have ids that zsg cannot keep; save it"
            " anew"
        )
    renamed = copy.copy(tokenizer)
    renamed._tokenizer = backend
    return renamed


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
    renamed = {
        **model,
        "vocab": {words.get(token, token): number for token, number in vocab.items()},
    }
    if "merges" in model:
        pairs = [
            pair.split(" ") if isinstance(pair, str) else pair
            for pair in model["merges"]
        ]
        renamed["merges"] = [
            pair
            for pair in pairs
            if not {pair[0], pair[1], pair[0] + pair[1]} & words.keys()
        ]
    return renamed
