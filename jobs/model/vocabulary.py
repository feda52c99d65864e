"""The tokenizer of a base, as prompts are written with it: texts to token ids and back."""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.contract.folder import META, read_json
from jobs.model import text_tokens
from jobs.model.chat import ChatWriter
from jobs.model.chat_encoder import ChatEncoder
from zsg_core.data.prompts import Template, Tokenize
from zsg_core.errors import UserError
from zsg_core.metrics.reasoning import list_control_tokens
from zsg_core.recipe import READS_TEXT, Recipe

MOST_COMPARED = 2000  # characters of a text that a tokenizer is tried on


@dataclass(frozen=True)
class Vocabulary:
    """What the prompt encoder needs of a tokenizer, and how token ids become text again.

    `bos`: None of a tokenizer whose texts begin with nothing, as Qwen's.
    """

    tokenize: Tokenize
    bos: int | None
    eos: int
    text: Callable[[Sequence[int]], str] = lambda ids: ""
    # of one token, as the vocabulary writes it
    id_of: Callable[[str], int | None] = lambda token: None
    # the token of what the tokenizer cannot write, if it has one
    unknown: int | None = None
    # how examples are written by the model's own chat template
    chat_encoder: Callable[[Template], ChatEncoder] | None = None

    def open_chat(self, template: Template) -> ChatEncoder:
        """What writes examples by the model's own chat template. UserError where it
        cannot be used."""
        if self.chat_encoder is None:
            raise UserError("this tokenizer has no chat template; take another")
        return self.chat_encoder(template)

    def keeping(self, words: Sequence[str]) -> "Vocabulary":
        """The same, but that `words` stand in a text though they are special tokens,
        which are left out of texts otherwise. Of a word that is no token itself, the
        control tokens within it do."""
        ids: dict[int, str] = {}
        for word in words:
            whole = self.id_of(word)
            names = list_control_tokens(word) if whole is None else [word]
            for name in names:
                token = self.id_of(name)
                if token is not None:
                    ids[token] = name
        hidden = {token: word for token, word in ids.items() if not self.text([token])}
        if not hidden:
            return self

        def text(tokens: Sequence[int]) -> str:
            pieces: list[str] = []
            begin = 0
            for place, token in enumerate(tokens):
                if token in hidden:
                    pieces += [self.text(tokens[begin:place]), hidden[token]]
                    begin = place + 1
            pieces.append(self.text(tokens[begin:]))
            return "".join(pieces)

        return replace(self, text=text)

    @property
    def beginning(self) -> list[int]:
        """What stands before a text: the beginning of sequence, if there is one."""
        return [] if self.bos is None else [self.bos]


def load_vocabulary(folder: Path, recipe: Recipe | None = None) -> Vocabulary:
    """The tokenizer of a base, without special tokens of its own: its control tokens in
    a text are text.

    `recipe` is the base's: tokens that it adds are tokens wherever a text has them. One
    without the mark READS_TEXT is of a model of which nothing is to be read otherwise,
    or of an older zsg, and read as then. Without a recipe, the tokens that zsg added
    are by the meta.json of the base, or of the base that it is a snapshot of.

    UserError where it has no EOS, which answers are trained to end with, and, when a
    text is tokenized, for a token without a row in the embedding: on a GPU that would
    be an error of CUDA on every rank.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{folder}: the tokenizer has no EOS token, with which answers end; set eos_token in"
            " tokenizer_config.json of a copy of the folder"
        )

    rows = count_rows(folder)
    if recipe is None:
        reader = text_tokens.reads_text(tokenizer, _added(folder))
    elif READS_TEXT.keys() <= recipe.keys():
        reader = text_tokens.reads_text(tokenizer, _list_added(recipe))
    else:
        reader = tokenizer

    def tokenize(text: str) -> list[int]:
        # A `</s>` in the data is text and must not end the example; a text beyond the
        # model's context is no oversight (verbose), the prompt rules cut it.
        ids = reader(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        if ids and rows is not None and max(ids) >= rows:
            token = tokenizer.convert_ids_to_tokens(max(ids))
            raise UserError(
                f"{folder}: the tokenizer writes {token!r} as {max(ids)}, but the embedding has"
                f" {rows} rows (vocab_size in config.json); take the tokenizer that belongs to the"
                " weights"
            )
        return ids

    def text(ids: Sequence[int]) -> str:
        return tokenizer.decode(
            list(map(int, ids)),
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )

    kept_words = _added(folder) if recipe is None else _list_added(recipe)

    # by what is written of them: arguments may be lists. Some tokenizers have thousands
    # of control tokens, for which a template takes most of a second to open.
    encoders: dict[str, ChatEncoder] = {}

    def chat_encoder(template: Template) -> ChatEncoder:
        key = repr(template)
        if key not in encoders:
            writer = ChatWriter(tokenizer, dict(template.arguments), kept_words)
            encoders[key] = ChatEncoder(writer, template, rows)
        return encoders[key]

    ends = tokenizer.bos_token_id, tokenizer.eos_token_id
    return Vocabulary(
        tokenize,
        *ends,
        text,
        tokenizer.get_vocab().get,
        tokenizer.unk_token_id,
        chat_encoder,
    )


def _list_added(recipe: Recipe) -> Collection[str]:
    """The tokens that the recipe of a base adds."""
    return recipe.get("added", {}).get("tokens", ())


def count_rows(folder: Path) -> int | None:
    """How many rows the embedding of a model has, by its config.json or, where that
    leaves it out, by its class; None of a folder without one, as of adapters."""
    config = read_json(folder / "config.json")
    if config is None:
        return None
    rows = config.get("vocab_size")
    if isinstance(rows, int):
        return rows
    from transformers import AutoConfig

    whole = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    return getattr(whole, "vocab_size", None)


def _added(folder: Path) -> Collection[str]:
    """The tokens that zsg added to a base, or to the base that a snapshot is of."""
    meta = read_json(folder / META) or {}
    base = meta.get("base")
    if isinstance(base, dict) and "path" in base:
        meta = read_json(Path(base["path"]) / META) or {}
    added = meta.get("added")
    return added if isinstance(added, dict) else {}


def refuse_lossy(folder: Path, vocabulary: Vocabulary, texts: Iterable[str]) -> None:
    """UserError unless the texts, encoded and decoded, come back as they were but for
    blanks at their ends.

    Versions of transformers have lost every blank and line end of some tokenizers
    without a word. What a tokenizer means to change is let pass: letters of one form
    for another (Unicode's NFKC), control characters, and texts with a letter that it
    has no token for.
    """
    for whole in texts:
        written = whole[:MOST_COMPARED]
        ids = vocabulary.tokenize(written)
        if vocabulary.unknown is not None and vocabulary.unknown in ids:
            continue
        read = vocabulary.text(ids)
        if _comparable(read) != _comparable(written):
            import transformers

            difference = next(
                (
                    at
                    for at, (a, b) in enumerate(zip(written, read, strict=False))
                    if a != b
                ),
                0,
            )
            start = max(0, difference - 20)
            raise UserError(
                f"{folder}: the tokenizer does not give a text of the data back:"
                f" {written[start : start + 60]!r} comes back as {read[start : start + 60]!r}, so"
                " prompts and answers would not be what the data say. Its tokenizer_class may not"
                f" be that of its tokenizer.json, or transformers {transformers.__version__} reads"
                " it wrongly; try another version"
            )


def _comparable(text: str) -> str:
    """A text in one form of those that tokenizers take for the same."""
    # U+2581 is how SentencePiece writes a blank.
    folded = unicodedata.normalize("NFKC", text.replace("▁", " "))
    return "".join(
        letter
        for letter in folded
        if letter in "\n\t" or unicodedata.category(letter)[0] != "C"
    ).strip()
