"""Says what in the files of a tokenizer does not fit its model: ids beyond the
embedding, no EOS, code of its own.

Read without any engine. The rules by which transformers finds BOS and EOS are those of
transformers.tokenization_utils_base.PreTrainedTokenizerBase._from_pretrained (5.23).
"""

import importlib.util
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from jobs.contract.folder import get_object
from jobs.files.model_file_names import GENERATION
from launcher.grids import model_config, sentencepiece_model
from launcher.grids.model_files import is_pointer, read_json
from zsg_core.control_tokens import is_control
from zsg_core.errors import UserError
from zsg_core.metrics.reasoning import KNOWN_MARKS, Marks, list_control_tokens
from zsg_core.schema_errors import format_brief

SENTENCEPIECE = "tokenizer.model"
FILES = ("tokenizer.json", SENTENCEPIECE)  # of which one must be there
OBJECTS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    GENERATION,
)
NAMING = OBJECTS[:2]  # of them those that name special tokens
BOS, EOS = ENDS = ("bos_token", "eos_token")
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


Objects = Mapping[str, dict[str, Any]]  # what the files hold, by their names
# Whether the files settle which token ends a text on one side, and which; None: there is none.
End = tuple[bool, str | None]


@dataclass
class Tokens:
    """What the files say: the tokens with their ids, and those that were added beside
    the dictionary."""

    dictionary: dict[str, int] = field(default_factory=dict[str, int])
    # id, and whether it is special
    added: dict[str, tuple[int, bool]] = field(
        default_factory=dict[str, tuple[int, bool]]
    )
    is_known: bool = False  # whether tokenizer.json was there to be read
    is_byte_level: bool = False
    # added tokens that the dictionary's model finds in a text, too
    written: set[str] = field(default_factory=set[str])

    def find_id(self, token: str) -> int | None:
        """The id of a token; None of what is no token."""
        if token in self.added:
            return self.added[token][0]
        return self.dictionary.get(token)


def find_faults(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Each as a sentence without the folder's name. UserError for a file that cannot be read."""
    objects = _read_objects(folder)
    tokenizer_config = objects["tokenizer_config.json"]
    for fault in model_config.find_code(tokenizer_config, ("AutoTokenizer",)):
        yield f"tokenizer_config.json: {fault}"
    for fault in model_config.find_code(config, ("AutoTokenizer",)):
        yield f"config.json: {fault}"
    yield from find_other_files(tokenizer_config)
    if (folder / SENTENCEPIECE).is_file() and is_pointer(folder / SENTENCEPIECE):
        yield f"{SENTENCEPIECE} is a git-lfs pointer, not the file; run git lfs pull"
    elif not (folder / "tokenizer.json").is_file():
        yield from _find_faults_alone(folder, _class_name(tokenizer_config, config))
    tokens = _read_tokens(folder, objects)
    rows = model_config.size_of(config, "vocab_size")
    yield from _find_beyond(tokens, rows)
    for key in ENDS:
        end = _find_end(key, tokens, objects, config)
        yield from _find_end_faults(key, end, tokens, rows)
    yield from _find_generation_faults(objects[GENERATION], rows)


def _find_faults_alone(folder: Path, kind: str) -> Iterator[str]:
    """The faults of a tokenizer.model without a tokenizer.json, of which transformers
    makes a tokenizer of a class: in 5.23 one that writes SentencePiece's own ids for a
    LlamaTokenizer and others, without a word, for most."""
    if (folder / "tekken.json").is_file():
        yield (
            "tekken.json lies beside tokenizer.model, and transformers may take either; take one"
            " out of a copy"
        )
    elif kind != "LlamaTokenizer" or not _is_sentencepiece(folder / SENTENCEPIECE):
        yield (
            f"{SENTENCEPIECE} stands alone, and of it transformers may make other tokens than the"
            " model was trained on; put the tokenizer.json that is published with the weights"
            " beside it"
        )
    elif importlib.util.find_spec("sentencepiece") is None:
        yield (
            f"{SENTENCEPIECE} stands alone, and to read it needs the package sentencepiece, which"
            " is not installed: put the tokenizer.json that is published with the weights beside"
            " it, or pip install sentencepiece"
        )


def _is_sentencepiece(path: Path) -> bool:
    """Whether a file has pieces of SentencePiece's; tiktoken's have the same name."""
    try:
        return any(True for _ in sentencepiece_model.read_pieces(path))
    except ValueError:
        return False


def find_other_files(tokenizer_config: Mapping[str, Any]) -> Iterator[str]:
    """The fault of a tokenizer_config.json that names another file for transformers to
    take than tokenizer.json."""
    names = tokenizer_config.get("fast_tokenizer_files")
    if names and names != ["tokenizer.json"]:
        yield (
            f"tokenizer_config.json: fast_tokenizer_files is {format_brief(names)}: transformers"
            " would take the one of its own version in place of tokenizer.json; take it out of a"
            " copy of the folder"
        )


def find_notes(
    folder: Path, config: Mapping[str, Any], added: Collection[str] = ()
) -> Iterator[str]:
    """What works and is not as it seems: each as a sentence; `added` are the grid's own tokens.

    UserError for a file that cannot be read.
    """
    objects = _read_objects(folder)
    tokens = _read_tokens(folder, objects)
    yield from _find_unused_notes(objects, tokens, config)
    made_of_text = _find_tokens_made_of_text(folder, objects, tokens)
    control = [token for token in made_of_text if token not in added]
    if control:
        yield _describe_control(control)
    if _find_end(BOS, tokens, objects, config) == (True, None):
        yield (
            "the tokenizer has no BOS token: texts begin without one, and their first token is"
            " never learnt"
        )
    for key in ENDS:
        yield from _find_id_notes(key, tokens, objects, config)


def _find_unused_notes(
    objects: Objects, tokens: Tokens, config: Mapping[str, Any]
) -> Iterator[str]:
    rows = model_config.size_of(config, "vocab_size")
    if not rows:  # of a family that is not known by heart
        return
    unused = [
        token
        for token, (token_id, _) in tokens.added.items()
        if token_id >= rows and _is_unused(token, tokens, objects)
    ]
    if unused:
        yield (
            f"{len(unused)} special token{'s' * (len(unused) > 1)} of the tokenizer, the first"
            f" {format_brief(unused[0])}, lie beyond the embedding's {rows} rows; zsg writes none"
            " of them"
        )


def _describe_control(control: list[str]) -> str:
    following = f" and {len(control) - 3} more" if len(control) > 3 else ""
    return (
        f"{len(control)} control token{'s' * (len(control) > 1)} of the tokenizer,"
        f" {', '.join(map(format_brief, control[:3]))}{following}, that transformers makes of a"
        " text's words: zsg reads them as text wherever data, prompts or answers have them;"
        " model.add_tokens names those that are to stay tokens"
    )


def _find_id_notes(
    key: str, tokens: Tokens, objects: Objects, config: Mapping[str, Any]
) -> Iterator[str]:
    """Where config.json and the tokenizer differ in the id of an end."""
    _, token = _find_end(key, tokens, objects, config)
    token_id = tokens.find_id(token) if token else None
    in_config = config.get(f"{key}_id")
    if token_id is None or in_config is None:
        return
    ids = cast("list[Any]", in_config) if isinstance(in_config, list) else [in_config]
    if token_id not in ids:
        yield (
            f"config.json's {key}_id is {in_config}, the tokenizer's {key} is"
            f" {format_brief(token)}, {token_id}; zsg takes the tokenizer's"
        )


def find_tokens_made_of_text(folder: Path) -> tuple[str, ...]:
    """The control tokens that transformers makes of a text's words though it is to
    split special tokens, in order.

    Those are added and not marked special, or in the dictionary, too, where its model
    finds them. zsg reads them as text. UserError for a file that cannot be read.
    """
    objects = _read_objects(folder)
    tokens = _read_tokens(folder, objects)
    return _find_tokens_made_of_text(folder, objects, tokens)


def _find_tokens_made_of_text(
    folder: Path, objects: Objects, tokens: Tokens
) -> tuple[str, ...]:
    """See `find_tokens_made_of_text`; sorted, so that two machines agree.

    They are the control tokens that no file marks as special, those that SentencePiece
    calls user-defined, and those that stand in the model's own dictionary, too
    (`tokens.written`). The token for what is unknown is no control token, whatever it
    looks like.
    """
    special = _list_special(objects)
    unknown = [_content(objects[name].get("unk_token")) for name in NAMING]
    control = [
        token for token in tokens.added if is_control(token) and token not in unknown
    ]
    unmarked = {token for token in control if not tokens.added[token][1]}
    unmarked |= set(filter(is_control, _user_defined(folder)))
    written = tokens.written.intersection(control)
    return tuple(sorted((unmarked - special) | written))


def read_generation_ends(folder: Path) -> tuple[int, ...]:
    """The ids at which generation_config.json says that an answer is over, in order; what
    is no id is left out. UserError for a file that cannot be read."""
    path = folder / GENERATION
    ends = read_json(path).get(f"{EOS}_id") if path.is_file() else None
    named = cast("list[Any]", ends) if isinstance(ends, list) else [ends]
    return tuple(sorted({end for end in named if type(end) is int and end >= 0}))


def find_other_ends(folder: Path, named: Collection[int]) -> tuple[int, ...]:
    """Those of the `named` ids that are not the tokenizer's own end of sequence, at which
    every answer is over.

    UserError for a file that cannot be read.
    """
    objects = _read_objects(folder)
    tokens = _read_tokens(folder, objects)
    config = read_json(folder / "config.json")
    _, token = _find_end(EOS, tokens, objects, config)
    token_id = tokens.find_id(token) if token else None
    if token_id is None:  # of a tokenizer that is not read here
        token_id = config.get(f"{EOS}_id")
    return tuple(sorted(end for end in named if end != token_id))


def find_reasoning_marks(folder: Path) -> Marks | None:
    """The first pair of known marks of reasoning of which the tokenizer has both as
    tokens, or as words between control tokens that it has; None where it has none.
    UserError for a file that cannot be read."""
    tokens = _read_tokens(folder, _read_objects(folder))
    for marks in KNOWN_MARKS:
        if all(_has_mark(tokens, mark) for mark in marks):
            return marks
    return None


def _has_mark(tokens: Tokens, mark: str) -> bool:
    """Whether a mark is a token, or all the control tokens within it are."""
    if tokens.find_id(mark) is not None:
        return True
    names = list_control_tokens(mark)
    return bool(names) and all(tokens.find_id(name) is not None for name in names)


def _list_special(objects: Objects) -> set[str]:
    """The tokens that files beside tokenizer.json call special, which transformers then
    takes for special.

    It does not for those that are only listed, in additional_special_tokens or
    extra_special_tokens.
    """
    config, older = (objects[name] for name in NAMING)
    tokens: list[object] = [config.get(key) for key in SPECIAL]
    extra, decoder = (
        config.get("extra_special_tokens"),
        config.get("added_tokens_decoder"),
    )
    if isinstance(extra, dict):
        tokens += extra.values()
    if isinstance(decoder, dict):
        tokens += [
            row
            for row in cast("dict[str, Any]", decoder).values()
            if _is_marked_special(row)
        ]
    else:
        tokens += [older.get(key) for key in SPECIAL]
    return {text for token in tokens if (text := _content(token)) is not None}


def _is_marked_special(row: object) -> bool:
    return get_object(row).get("special") is True


def _user_defined(folder: Path) -> list[str]:
    """The user-defined pieces of a tokenizer.model that stands alone; transformers adds
    them, not marked special.

    A file that is none of SentencePiece's has none: others have that name, too.
    """
    path = folder / SENTENCEPIECE
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


def _read_objects(folder: Path) -> Objects:
    return {
        name: read_json(folder / name) if (folder / name).is_file() else {}
        for name in OBJECTS
    }


def _read_tokens(folder: Path, objects: Objects) -> Tokens:
    tokens = Tokens()
    path = folder / "tokenizer.json"
    if path.is_file():
        _read_dictionary(path, tokens)
    decoder = objects["tokenizer_config.json"].get("added_tokens_decoder")
    if isinstance(decoder, dict):
        _read_decoder(folder, cast("dict[str, Any]", decoder), tokens)
    else:
        _read_added(folder, objects["added_tokens.json"], tokens)
    return tokens


def _read_decoder(folder: Path, decoder: Mapping[str, Any], tokens: Tokens) -> None:
    for key, row in decoder.items():
        is_id = key.isdecimal() and len(key) < 10
        token = get_object(row).get("content")
        if not is_id or not isinstance(token, str):
            raise UserError(
                f"{folder}/tokenizer_config.json: added_tokens_decoder: {format_brief(key)} is"
                " no added token"
            )
        tokens.added.setdefault(token, (int(key), _is_marked_special(row)))


def _read_added(folder: Path, added: Mapping[str, Any], tokens: Tokens) -> None:
    for token, token_id in added.items():
        if type(token_id) is not int or token_id < 0:
            raise UserError(
                f"{folder}/added_tokens.json: {format_brief(token)} has the id"
                f" {format_brief(token_id)}"
            )
        tokens.added.setdefault(token, (token_id, False))


def _read_dictionary(path: Path, tokens: Tokens) -> None:
    tokenizer = read_json(path)
    model = get_object(tokenizer.get("model"))
    vocab = model.get("vocab")
    if not vocab:
        raise _damaged(path, "it has no dictionary (model.vocab)")
    if model.get("type", "BPE") not in MODELS:
        raise _damaged(path, "it has no dictionary (model.vocab)")
    try:
        tokens.dictionary = _read_vocab(vocab)
        tokens.added = {
            row["content"]: (row["id"], row.get("special") is True)
            for row in tokenizer.get("added_tokens") or ()
        }
    except (TypeError, ValueError, KeyError, AttributeError):
        raise _damaged(path, "its tokens cannot be read") from None
    if not _has_sound_ids(tokens):
        raise _damaged(path, "it has a token without an id")
    tokens.is_known = True
    tokens.written = _find_written(model, tokens)
    tokens.is_byte_level = any(
        _has_byte_level(tokenizer.get(key)) for key in ("pre_tokenizer", "decoder")
    )


def _damaged(path: Path, fault: str) -> UserError:
    return UserError(f"{path}: no tokenizer: {fault}; fetch it again")


def _read_vocab(vocab: Any) -> dict[str, int]:
    if isinstance(vocab, list):  # Unigram: pairs of a token and its score
        return {
            token: number for number, (token, _) in enumerate(cast("list[Any]", vocab))
        }
    return dict(vocab)


def _has_sound_ids(tokens: Tokens) -> bool:
    """Whether all ids are whole numbers from 0 and all tokens texts. `type` and not
    isinstance: JSON's `true` is an int to Python, and is no id."""
    ids = [*tokens.dictionary.values(), *(each for each, _ in tokens.added.values())]
    names = [*tokens.dictionary, *tokens.added]
    are_ids = all(type(token_id) is int and token_id >= 0 for token_id in ids)
    return are_ids and all(type(name) is str for name in names)


def _find_written(model: Mapping[str, Any], tokens: Tokens) -> set[str]:
    """The added tokens that the model itself may make of a text: BPE by a merge, the
    others by the word alone."""
    inside = tokens.added.keys() & tokens.dictionary.keys()
    if model.get("type", "BPE") != "BPE":
        return inside
    merges = model.get("merges")
    pairs: list[Any] = cast("list[Any]", merges) if isinstance(merges, list) else []
    return inside & set(map(_join_pair, pairs))


def _join_pair(pair: object) -> str:
    """What a merge makes; older files write its pair as a text with a blank."""
    if isinstance(pair, list):
        return "".join(map(str, cast("list[Any]", pair)))
    return str(pair).replace(" ", "")


def _has_byte_level(step: object) -> bool:
    """Whether a pre-tokenizer or a decoder, or one that it is made of, is ByteLevel."""
    if not isinstance(step, dict):
        return False
    whole = cast("dict[str, Any]", step)
    steps = [whole]
    for key in ("pretokenizers", "decoders"):
        inner = whole.get(key)
        if isinstance(inner, list):
            steps += [
                cast("dict[str, Any]", each)
                for each in cast("list[Any]", inner)
                if isinstance(each, dict)
            ]
    return any(each.get("type") == "ByteLevel" for each in steps)


def _is_unused(token: str, tokens: Tokens, objects: Objects) -> bool:
    """Whether zsg never makes the token of a text: it encodes special tokens as the
    text that they are."""
    if tokens.added[token][1] or token in PADDING:
        return True
    named = [objects[name].get(key) for name in NAMING for key in SPECIAL]
    return token in map(_content, named)


def _find_beyond(tokens: Tokens, rows: int) -> Iterator[str]:
    beyond = [
        (token_id, token)
        for token, token_id in tokens.dictionary.items()
        if token_id >= rows and token not in tokens.added
    ]
    beyond += [
        (token_id, token)
        for token, (token_id, is_special) in tokens.added.items()
        if token_id >= rows and not is_special
    ]
    beyond = [(token_id, token) for token_id, token in beyond if token not in PADDING]
    if beyond:
        token_id, token = min(beyond)
        yield (
            f"{len(beyond)} token{'s' * (len(beyond) > 1)} of the tokenizer lie beyond the"
            f" embedding's {rows} rows (vocab_size), the first {format_brief(token)} with id"
            f" {token_id}; take the tokenizer that belongs to these weights, or add tokens with"
            " model.add_tokens"
        )


def _find_end_faults(key: str, end: End, tokens: Tokens, rows: int) -> Iterator[str]:
    is_settled, token = end
    if not is_settled:
        return
    if not token:
        if key == EOS:
            yield (
                "the tokenizer has no EOS token, with which answers end: set eos_token in"
                " tokenizer_config.json of a copy of the folder"
            )
        return
    if not tokens.is_known:
        return
    token_id = tokens.find_id(token)
    if token_id is None:
        yield f"the tokenizer's {key} is {format_brief(token)}, which is none of its tokens"
    elif token_id >= rows:
        yield (
            f"the tokenizer's {key} {format_brief(token)} has id {token_id}, beyond the"
            f" embedding's {rows} rows (vocab_size)"
        )


def _find_end(
    key: str, tokens: Tokens, objects: Objects, config: Mapping[str, Any]
) -> End:
    """The token that ends a text on one side."""
    tokenizer_config, older = (objects[name] for name in NAMING)
    if "added_tokens_decoder" not in tokenizer_config and key in older:
        return True, _content(older[key])
    if key in tokenizer_config:
        return True, _content(tokenizer_config[key])
    kind = _class_name(tokenizer_config, config)
    if kind not in CLASS_ENDS or not tokens.is_known:
        return False, None
    # which transformers then loads as it would any other
    if kind == "LlamaTokenizer" and tokens.is_byte_level:
        return True, None
    return True, CLASS_ENDS[kind][ENDS.index(key)]


def _class_name(tokenizer_config: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    for settings in (tokenizer_config, config):
        if name := settings.get("tokenizer_class"):
            return str(name).removesuffix("Fast")
    return "TokenizersBackend"


def _content(token: object) -> str | None:
    """The text of a token, which files write as a text or as an object."""
    if isinstance(token, dict):
        token = cast("dict[str, Any]", token).get("content")
    return token if isinstance(token, str) else None


def _find_generation_faults(
    generation_config: Mapping[str, Any], rows: int
) -> Iterator[str]:
    ends = generation_config.get("eos_token_id")
    for token_id in cast("list[Any]", ends) if isinstance(ends, list) else [ends]:
        if token_id is not None and (type(token_id) is not int or token_id >= rows):
            yield (
                f"generation_config.json: eos_token_id is {format_brief(ends)}, but the embedding"
                f" has {rows} rows"
            )
            return
