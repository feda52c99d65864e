"""Says what in the files of a tokenizer does not fit its Llama: ids beyond the
embedding, no BOS, code of its own.

Read without any engine. The rules by which transformers finds BOS and EOS are those of
transformers.tokenization_utils_base.PreTrainedTokenizerBase._from_pretrained (5.23).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.grids import model_config, sentencepiece_model
from launcher.grids.model_files import is_pointer, read_json
from zsg_core.control_tokens import is_control
from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief

FILES = ("tokenizer.json", "tokenizer.model")  # of which one must be there
OBJECTS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)
SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
# no text of a data set has it, whether it is called special or not
PADDING = ("<pad>", "<PAD>", "[PAD]", "<|pad|>")
MODELS = ("BPE", "Unigram", "WordPiece", "WordLevel")
# Which BOS and EOS a class has where no file names one; of other classes nothing is said.
CLASS_ENDS: dict[str, tuple[str | None, str | None]] = {
    "LlamaTokenizer": ("<s>", "</s>"),
    "PreTrainedTokenizer": (None, None),
    "TokenizersBackend": (None, None),
}


@dataclass
class Tokens:
    """What the files say: the tokens with their ids, and those that were added beside
    the dictionary."""

    held: dict[str, int] = field(default_factory=dict)
    # id, and whether it is special
    added: dict[str, tuple[int, bool]] = field(default_factory=dict)
    is_known: bool = False  # whether tokenizer.json was there to be read
    is_byte_level: bool = False
    # added tokens that the dictionary's model finds in a text, too
    written: set[str] = field(default_factory=set)

    def id_of(self, token: str) -> int | None:
        return self.added[token][0] if token in self.added else self.held.get(token)


def find_faults(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Each as a sentence without the folder's name. UserError for a file that cannot be read."""
    told = _objects(folder)
    for key in ("tokenizer_config.json", "config.json"):
        source = config if key == "config.json" else told["tokenizer_config.json"]
        for fault in model_config.find_code(source, ("AutoTokenizer",)):
            yield f"{key}: {fault}"
    yield from find_other_files(told["tokenizer_config.json"])
    if not (folder / "tokenizer.json").is_file() and (folder / "tekken.json").is_file():
        yield (
            "tekken.json lies beside tokenizer.model, and transformers may take either; take one"
            " out of a copy"
        )
    if (folder / "tokenizer.model").is_file() and is_pointer(
        folder / "tokenizer.model"
    ):
        yield "tokenizer.model is a git-lfs pointer, not the file; run git lfs pull"
    tokens = _tokens(folder, told)
    rows = model_config.size_of(config, "vocab_size")
    yield from _beyond(tokens, rows)
    for place, key in enumerate(("bos_token", "eos_token")):
        yield from _end(key, place, tokens, told, config, rows)
    yield from _generation(told["generation_config.json"], rows)


def find_other_files(told: Mapping[str, Any]) -> Iterator[str]:
    """The fault of a tokenizer_config.json that names another file for transformers to
    take than tokenizer.json."""
    named = told.get("fast_tokenizer_files")
    if named and named != ["tokenizer.json"]:
        yield (
            f"tokenizer_config.json: fast_tokenizer_files is {format_brief(named)}: transformers"
            " would"
            " take the one of its own version in place of tokenizer.json; take it out of a copy of"
            " the folder"
        )


def find_notes(
    folder: Path, config: Mapping[str, Any], named: Collection[str] = ()
) -> Iterator[str]:
    """What works and is not as it seems: each as a sentence; `named` are the grid's own tokens.

    UserError for a file that cannot be read.
    """
    told = _objects(folder)
    tokens = _tokens(folder, told)
    rows = model_config.size_of(config, "vocab_size")
    unused = [
        token
        for token, (one, _) in tokens.added.items()
        if one >= rows and _is_unused(token, tokens, told)
    ]
    if unused:
        yield (
            f"{len(unused)} special token{'s' * (len(unused) > 1)} of the tokenizer, the first"
            f" {format_brief(unused[0])}, lie beyond the embedding's {rows} rows; zsg writes none"
            " of them"
        )
    if control := [
        token for token in _made_of_texts(folder, told, tokens) if token not in named
    ]:
        more = f" and {len(control) - 3} more" if len(control) > 3 else ""
        yield (
            f"{len(control)} control token{'s' * (len(control) > 1)} of the tokenizer,"
            f" {', '.join(map(format_brief, control[:3]))}{more}, that transformers makes of a"
            " text's words: zsg reads them as text wherever data, prompts or answers have them;"
            " model.add_tokens names those that are to stay tokens"
        )
    for place, key in enumerate(("bos_token", "eos_token")):
        _, token = _named(key, place, tokens, told, config)
        made, said = tokens.id_of(token) if token else None, config.get(f"{key}_id")
        among = said if isinstance(said, list) else [said]
        if made is not None and said is not None and made not in among:
            yield (
                f"config.json's {key}_id is {said}, the tokenizer's {key} is {format_brief(token)},"
                f" {made}; zsg takes the tokenizer's"
            )


def find_tokens_made_of_text(folder: Path) -> tuple[str, ...]:
    """The control tokens that transformers makes of a text's words though it is to
    split special tokens, in order.

    Those are added and not marked special, or in the dictionary, too, where its model
    finds them. zsg reads them as text. UserError for a file that cannot be read.
    """
    told = _objects(folder)
    return _made_of_texts(folder, told, _tokens(folder, told))


def _made_of_texts(
    folder: Path, told: Mapping[str, dict[str, Any]], tokens: Tokens
) -> tuple[str, ...]:
    special = _named_special(told)
    unknown = [_content(told[name].get("unk_token")) for name in OBJECTS[:2]]
    control = [
        token for token in tokens.added if is_control(token) and token not in unknown
    ]
    found = {
        token
        for token in control
        if not tokens.added[token][1] and token not in special
    }
    found |= {token for token in control if token in tokens.written}
    found |= {
        token
        for token in _user_defined(folder)
        if is_control(token) and token not in special
    }
    return tuple(sorted(found))


def _named_special(told: Mapping[str, dict[str, Any]]) -> set[str]:
    """The tokens that files beside tokenizer.json call special, which transformers then
    takes for special.

    It does not for those that are only listed, in additional_special_tokens or
    extra_special_tokens.
    """
    own, older = told["tokenizer_config.json"], told["special_tokens_map.json"]
    found: list[object] = [own.get(key) for key in SPECIAL]
    extra, decoder = own.get("extra_special_tokens"), own.get("added_tokens_decoder")
    found += list(extra.values()) if isinstance(extra, dict) else []
    if isinstance(decoder, dict):
        found += [
            row
            for row in decoder.values()
            if isinstance(row, dict) and row.get("special") is True
        ]
    else:
        found += [older.get(key) for key in SPECIAL]
    return {text for one in found if (text := _content(one)) is not None}


def _user_defined(folder: Path) -> list[str]:
    """The user-defined pieces of a tokenizer.model that stands alone; transformers adds
    them, not marked special.

    A file that is none of SentencePiece's has none: others have that name, too.
    """
    path = folder / "tokenizer.model"
    if not path.is_file() or (folder / "tokenizer.json").is_file():
        return []
    try:
        return [
            piece
            for piece, kind in sentencepiece_model.read_pieces(path)
            if kind == sentencepiece_model.USER_DEFINED
        ]
    except ValueError:
        return []


def _objects(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        name: read_json(folder / name) if (folder / name).is_file() else {}
        for name in OBJECTS
    }


def _tokens(folder: Path, told: Mapping[str, dict[str, Any]]) -> Tokens:
    made = Tokens()
    path = folder / "tokenizer.json"
    if path.is_file():
        _read_dictionary(path, made)
    decoder = told["tokenizer_config.json"].get("added_tokens_decoder")
    if isinstance(decoder, dict):
        for key, row in decoder.items():
            is_id = key.isdecimal() and len(key) < 10
            if not (
                is_id and isinstance(row, dict) and isinstance(row.get("content"), str)
            ):
                raise UserError(
                    f"{folder}/tokenizer_config.json: added_tokens_decoder: {format_brief(key)} is"
                    " no added token"
                )
            made.added.setdefault(
                row["content"], (int(key), row.get("special") is True)
            )
    else:
        for token, one in told["added_tokens.json"].items():
            if type(one) is not int or one < 0:
                raise UserError(
                    f"{folder}/added_tokens.json: {format_brief(token)} has the id"
                    f" {format_brief(one)}"
                )
            made.added.setdefault(token, (one, False))
    return made


def _read_dictionary(path: Path, made: Tokens) -> None:
    read = read_json(path)
    model = read.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if (
        not isinstance(model, dict)
        or not vocab
        or model.get("type", "BPE") not in MODELS
    ):
        raise UserError(
            f"{path}: no tokenizer: it has no dictionary (model.vocab); fetch it again"
        )
    try:
        if isinstance(vocab, list):  # Unigram: pairs of a token and its score
            made.held = {token: place for place, (token, _) in enumerate(vocab)}
        else:
            made.held = dict(vocab)
        added = {
            row["content"]: (row["id"], row.get("special") is True)
            for row in read.get("added_tokens") or ()
        }
    except (TypeError, ValueError, KeyError, AttributeError):
        raise UserError(
            f"{path}: no tokenizer: its tokens cannot be read; fetch it again"
        ) from None
    ids = [*made.held.values(), *(one for one, _ in added.values())]
    names = [*made.held, *added]
    if not all(type(one) is int and one >= 0 for one in ids) or not all(
        type(name) is str for name in names
    ):
        raise UserError(
            f"{path}: no tokenizer: it has a token without an id; fetch it again"
        )
    made.added, made.is_known = added, True
    made.written = _written(model, made)
    made.is_byte_level = any(
        _has_byte_level(read.get(part)) for part in ("pre_tokenizer", "decoder")
    )


def _written(model: Mapping[str, Any], made: Tokens) -> set[str]:
    """The added tokens that the model itself may make of a text: BPE by a merge, the
    others by the word alone."""
    inside = made.added.keys() & made.held.keys()
    if model.get("type", "BPE") != "BPE":
        return inside
    merges = model.get("merges")
    pairs = merges if isinstance(merges, list) else []
    joined = {
        "".join(map(str, pair))
        if isinstance(pair, list)
        else str(pair).replace(" ", "")
        for pair in pairs
    }
    return inside & joined


def _has_byte_level(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    parts = [part]
    for key in ("pretokenizers", "decoders"):
        inner = part.get(key)
        parts += (
            [one for one in inner if isinstance(one, dict)]
            if isinstance(inner, list)
            else []
        )
    return any(one.get("type") == "ByteLevel" for one in parts)


def _is_unused(token: str, tokens: Tokens, told: Mapping[str, dict[str, Any]]) -> bool:
    """Whether zsg never makes the token of a text: it encodes special tokens as the
    text that they are."""
    if tokens.added[token][1] or token in PADDING:
        return True
    named = [told[name].get(key) for name in OBJECTS[:2] for key in SPECIAL]
    return token in [_content(one) for one in named]


def _beyond(tokens: Tokens, rows: int) -> Iterator[str]:
    found = [
        (one, token)
        for token, one in tokens.held.items()
        if one >= rows and token not in tokens.added
    ]
    found += [
        (one, token)
        for token, (one, special) in tokens.added.items()
        if one >= rows and not special
    ]
    found = [(one, token) for one, token in found if token not in PADDING]
    if found:
        one, token = min(found)
        yield (
            f"{len(found)} token{'s' * (len(found) > 1)} of the tokenizer lie beyond the"
            f" embedding's {rows} rows (vocab_size), the first {format_brief(token)} with id {one};"
            " take"
            " the tokenizer that belongs to these weights, or add tokens with model.add_tokens"
        )


def _end(
    key: str,
    place: int,
    tokens: Tokens,
    told: Mapping[str, dict[str, Any]],
    config: Mapping[str, Any],
    rows: int,
) -> Iterator[str]:
    is_said, token = _named(key, place, tokens, told, config)
    name = key.partition("_")[0].upper()
    if not is_said:
        return
    if not token:
        yield (
            f"the tokenizer has no {name} token, which the prompt format needs: set {key} in"
            " tokenizer_config.json of a copy of the folder"
        )
        return
    if not tokens.is_known:
        return
    made = tokens.id_of(token)
    if made is None:
        yield f"the tokenizer's {key} is {format_brief(token)}, which is none of its tokens"
    elif made >= rows:
        yield (
            f"the tokenizer's {key} {format_brief(token)} has id {made}, beyond the embedding's"
            f" {rows} rows (vocab_size)"
        )


def _named(
    key: str,
    place: int,
    tokens: Tokens,
    told: Mapping[str, dict[str, Any]],
    config: Mapping[str, Any],
) -> tuple[bool, str | None]:
    """Whether the files say which token ends a text on one side, and which it is; None:
    there is none."""
    own, older = told["tokenizer_config.json"], told["special_tokens_map.json"]
    if "added_tokens_decoder" not in own and key in older:
        return True, _content(older[key])
    if key in own:
        return True, _content(own[key])
    kind = (
        own.get("tokenizer_class")
        or config.get("tokenizer_class")
        or "TokenizersBackend"
    )
    kind = str(kind).removesuffix("Fast")
    if kind not in CLASS_ENDS or not tokens.is_known:
        return False, None
    # which transformers then loads as it would any other
    if kind == "LlamaTokenizer" and tokens.is_byte_level:
        return True, None
    return True, CLASS_ENDS[kind][place]


def _content(token: object) -> str | None:
    """The text of a token, which files write as a text or as an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _generation(told: Mapping[str, Any], rows: int) -> Iterator[str]:
    ends = told.get("eos_token_id")
    for one in ends if isinstance(ends, list) else [ends]:
        if one is not None and (type(one) is not int or one >= rows):
            yield (
                f"generation_config.json: eos_token_id is {format_brief(ends)}, but the embedding"
                f" has {rows} rows"
            )
            return
