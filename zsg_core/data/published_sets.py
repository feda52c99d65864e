"""Knows in which columns published data sets have what, as they lie on the hub: the one
list of their layouts.

An entry of MAPPINGS is a layout: which columns its rows have, and which of them is what
in the words of `data.fields`. A set that is published in two layouts has two entries. A
new entry is a new set: the settings, the reference and the advice on data that do not
fit are made from this list.

What enters the recipe of a run is what an entry says, not its name: so an entry may be
renamed, and one that is changed makes other runs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# kinds of values, as they are told
TEXT, NUMBER, LIST, NESTED = "text", "number", "list", "mapping"
KINDS: dict[str, tuple[type, ...]] = {
    TEXT: (str,),
    NUMBER: (int, float),
    LIST: (list,),
    NESTED: (dict,),
}
# what stands in an entry for the codes of two languages, and for their names
SOURCE, TARGET = "<source>", "<target>"
SOURCE_NAME, TARGET_NAME = "<Source>", "<Target>"

# the code of a language, such as en or eng_Latn
CODE = "[A-Za-z]{2,8}(_[A-Za-z0-9]{2,8})*"

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """A layout of a published set.

    `about`: what it is. `places`: the hub's names of sets that have it, or where else
    it is from. `layout`: the columns of its rows, each with the kind of its values.
    `fields`: which is what. `also`: columns that some copies have more. `note`: what one
    must know who uses it.
    """

    about: str
    places: tuple[str, ...]
    layout: Mapping[str, str]
    fields: Mapping[str, Any]
    also: tuple[str, ...] = ()
    note: str = ""

    @property
    def has_languages(self) -> bool:
        """Whether it is of two languages, which the user names."""
        return SOURCE in str(self.fields)


# The names of tags by their numbers, as the scripts of the sets on the hub list them.
CONLL_2012_TAGS = (
    "O",
    "B-PERSON",
    "I-PERSON",
    "B-NORP",
    "I-NORP",
    "B-FAC",
    "I-FAC",
    "B-ORG",
    "I-ORG",
    "B-GPE",
    "I-GPE",
    "B-LOC",
    "I-LOC",
    "B-PRODUCT",
    "I-PRODUCT",
    "B-DATE",
    "I-DATE",
    "B-TIME",
    "I-TIME",
    "B-PERCENT",
    "I-PERCENT",
    "B-MONEY",
    "I-MONEY",
    "B-QUANTITY",
    "I-QUANTITY",
    "B-ORDINAL",
    "I-ORDINAL",
    "B-CARDINAL",
    "I-CARDINAL",
    "B-EVENT",
    "I-EVENT",
    "B-WORK_OF_ART",
    "I-WORK_OF_ART",
    "B-LAW",
    "I-LAW",
    "B-LANGUAGE",
    "I-LANGUAGE",
)
TNER_ONTONOTES_TAGS = (
    "O",
    "B-CARDINAL",
    "B-DATE",
    "I-DATE",
    "B-PERSON",
    "I-PERSON",
    "B-NORP",
    "B-GPE",
    "I-GPE",
    "B-LAW",
    "I-LAW",
    "B-ORG",
    "I-ORG",
    "B-PERCENT",
    "I-PERCENT",
    "B-ORDINAL",
    "B-MONEY",
    "I-MONEY",
    "B-WORK_OF_ART",
    "I-WORK_OF_ART",
    "B-FAC",
    "B-TIME",
    "I-CARDINAL",
    "B-LOC",
    "B-QUANTITY",
    "I-QUANTITY",
    "I-NORP",
    "I-LOC",
    "B-PRODUCT",
    "I-TIME",
    "B-EVENT",
    "I-EVENT",
    "I-FAC",
    "B-LANGUAGE",
    "I-PRODUCT",
    "I-ORDINAL",
    "I-LANGUAGE",
)

# Wordings. Those of FLAN and of MBPP are the published ones; the others are plain.
TRANSLATE = f"Translate this from {SOURCE_NAME} to {TARGET_NAME}:\n\n"
NAME_ENTITIES = (
    "List the named entities of this sentence, each with its type, as TYPE: words; TYPE:"
    " words. Without any, answer None.\n\n"
)
WRITE_CODE = (
    "You are an expert Python programmer, and here is your task: {PROMPT} Your code should"
    " pass these tests:\n\n{test_list}\n"
)

MAPPINGS: dict[str, PublishedSet] = {
    "flan": PublishedSet(
        about="FLAN Collection",
        places=("Open-Orca/FLAN",),
        layout={
            "inputs": TEXT,
            "targets": TEXT,
            "_template_idx": NUMBER,
            "_task_source": TEXT,
            "_task_name": TEXT,
            "_template_type": TEXT,
        },
        fields={"prompt": "inputs", "answer": "targets", "task": "_task_name"},
    ),
    "flan_submix": PublishedSet(
        about="FLAN Collection, by submixture",
        places=(
            "conceptofmind/flan2021_submix_original",
            "conceptofmind/t0_submix_original",
            "conceptofmind/niv2_submix_original",
            "conceptofmind/cot_submix_original",
            "conceptofmind/dialog_submix_original",
        ),
        layout={
            "inputs": TEXT,
            "targets": TEXT,
            "task_source": TEXT,
            "task_name": TEXT,
            "template_type": TEXT,
        },
        also=("template_used",),
        fields={"prompt": "inputs", "answer": "targets", "task": "task_name"},
    ),
    "flan_v2": PublishedSet(
        about="FLAN Collection, as JSON lines",
        places=("SirNeural/flan_v2",),
        layout={"inputs": TEXT, "targets": TEXT, "task": TEXT},
        fields={"prompt": "inputs", "answer": "targets", "task": "task"},
        note="`task` is the submixture, such as flan or cot",
    ),
    "niv2_hub": PublishedSet(
        about="Super-Natural Instructions, as rows",
        places=("Muennighoff/natural-instructions",),
        layout={
            "task_name": TEXT,
            "id": TEXT,
            "definition": TEXT,
            "inputs": TEXT,
            "targets": TEXT,
        },
        fields={
            "prompt": "inputs",
            "answer": "targets",
            "task": "task_name",
            "definition": "definition",
        },
        note="has no positive examples; `set: niv2` reads the official folder",
    ),
    "mmlu": PublishedSet(
        about="MMLU",
        places=("cais/mmlu",),
        layout={"question": TEXT, "subject": TEXT, "choices": LIST, "answer": NUMBER},
        fields={
            "prompt": "question",
            "answer": "answer",
            "choices": "choices",
            "task": "subject",
        },
        note="`show_options` lists the choices below the question",
    ),
    "mmlu_auxiliary": PublishedSet(
        about="MMLU, its auxiliary training set",
        places=("cais/mmlu:auxiliary_train",),
        layout={"train": NESTED},
        fields={
            "prompt": "train.question",
            "answer": "train.answer",
            "choices": "train.choices",
        },
    ),
    "mmlu_columns": PublishedSet(
        about="MMLU, a column for each choice",
        places=("lukaemon/mmlu",),
        layout={
            "input": TEXT,
            "A": TEXT,
            "B": TEXT,
            "C": TEXT,
            "D": TEXT,
            "target": TEXT,
        },
        fields={
            "prompt": "input",
            "answer": "target",
            "choices": ["A", "B", "C", "D"],
        },
        note="a subject is a configuration: `fields: {task_from: folder}` makes it the task",
    ),
    "bigbench": PublishedSet(
        about="BIG-bench",
        places=("google/bigbench", "tasksource/bigbench"),
        layout={
            "idx": NUMBER,
            "inputs": TEXT,
            "targets": LIST,
            "multiple_choice_targets": LIST,
            "multiple_choice_scores": LIST,
        },
        fields={
            "prompt": "inputs",
            "answer": "targets",
            "choices": "multiple_choice_targets",
            "choice_scores": "multiple_choice_scores",
        },
        note=(
            "a task is a configuration: `fields: {task_from: folder}` makes it the task; rows"
            " without choices take their first target"
        ),
    ),
    "nq": PublishedSet(
        about="Natural Questions, open",
        places=("google-research-datasets/nq_open",),
        layout={"question": TEXT, "answer": LIST},
        fields={"prompt": "question", "answer": "answer"},
    ),
    "flores": PublishedSet(
        about="FLORES-101 and -200, pairs",
        places=("facebook/flores", "gsarti/flores_101"),
        layout={
            "id": NUMBER,
            "URL": TEXT,
            "domain": TEXT,
            "topic": TEXT,
            "has_image": NUMBER,
            "has_hyperlink": NUMBER,
            f"sentence_{SOURCE}": TEXT,
            f"sentence_{TARGET}": TEXT,
        },
        fields={
            "ask": f"{TRANSLATE}{{sentence_{SOURCE}}}",
            "answer": f"sentence_{TARGET}",
            "id": "id",
        },
        note="codes as in its columns: `languages: eng_Latn-isl_Latn`",
    ),
    "wmt": PublishedSet(
        about="WMT, pairs",
        places=("wmt/wmt14", "wmt/wmt16", "wmt/wmt19", "haoranxu/ALMA-Human-Parallel"),
        layout={"translation": NESTED},
        fields={
            "ask": f"{TRANSLATE}{{translation.{SOURCE}}}",
            "answer": f"translation.{TARGET}",
        },
        note="either direction of a pair: `languages: is-en`",
    ),
    "wikisum": PublishedSet(
        about="WikiSum",
        places=("d0rj/wikisum",),
        layout={
            "url": TEXT,
            "title": TEXT,
            "summary": TEXT,
            "article": TEXT,
            "step_headers": TEXT,
        },
        fields={
            "ask": "Write a summary of this article:\n\n{article}",
            "answer": "summary",
        },
    ),
    "ontonotes": PublishedSet(
        about="OntoNotes 5, entities as text",
        places=("ontonotes/conll2012_ontonotesv5",),
        layout={"document_id": TEXT, "sentences": LIST},
        fields={
            "ask": f"{NAME_ENTITIES}{{sentences.words}}",
            "words": "sentences.words",
            "word_tags": "sentences.named_entities",
            "labels": list(CONLL_2012_TAGS),
        },
        note=(
            "an example for each sentence; the English documents pt/nt have no entities marked:"
            " take them out"
        ),
    ),
    "ontonotes_sentences": PublishedSet(
        about="OntoNotes 5 by sentences, entities as text",
        places=("tner/ontonotes5",),
        layout={"tokens": LIST, "tags": LIST},
        fields={
            "ask": f"{NAME_ENTITIES}{{tokens}}",
            "words": "tokens",
            "word_tags": "tags",
            "labels": list(TNER_ONTONOTES_TAGS),
        },
    ),
    "dolly": PublishedSet(
        about="Dolly",
        places=("databricks/databricks-dolly-15k",),
        layout={
            "instruction": TEXT,
            "context": TEXT,
            "response": TEXT,
            "category": TEXT,
        },
        fields={
            "prompt": ["instruction", "context"],
            "answer": "response",
            "task": "category",
        },
    ),
    "openhermes": PublishedSet(
        about="OpenHermes 2.5",
        places=("teknium/OpenHermes-2.5",),
        layout={"conversations": LIST, "source": TEXT},
        also=(
            "avatarUrl",
            "category",
            "custom_instruction",
            "hash",
            "id",
            "idx",
            "language",
            "model",
            "model_name",
            "skip_prompt_formatting",
            "system_prompt",
            "title",
            "topic",
            "user",
            "views",
        ),
        fields={
            "messages": "conversations",
            "system": "system_prompt",
            "task": "source",
            "task_else": "openhermes",
        },
        note=(
            "rows that name no source are of the task openhermes; OpenHermes 1 has Alpaca's"
            " columns: `set: alpaca`"
        ),
    ),
    "tulu2": PublishedSet(
        about="Tulu 2",
        places=("allenai/tulu-v2-sft-mixture",),
        layout={"dataset": TEXT, "id": TEXT, "messages": LIST},
        fields={"messages": "messages", "task": "dataset"},
    ),
    "tulu3": PublishedSet(
        about="Tulu 3",
        places=("allenai/tulu-3-sft-mixture",),
        layout={"id": TEXT, "messages": LIST, "source": TEXT},
        fields={"messages": "messages", "task": "source"},
    ),
    "cnn_dailymail": PublishedSet(
        about="CNN/DailyMail",
        places=("abisee/cnn_dailymail",),
        layout={"article": TEXT, "highlights": TEXT, "id": TEXT},
        fields={
            "ask": "Write highlights for this article:\n\n{article}",
            "answer": "highlights",
        },
    ),
    "math": PublishedSet(
        about="MATH",
        places=("hendrycks/competition_math", "EleutherAI/hendrycks_math"),
        layout={"problem": TEXT, "level": TEXT, "type": TEXT, "solution": TEXT},
        fields={
            "prompt": "problem",
            "answer": "solution",
            "task": "type",
            "tags": "level",
        },
        note="`keep_tags: 'Level [12]'` trains on the easy ones",
    ),
    "math_500": PublishedSet(
        about="MATH-500",
        places=("HuggingFaceH4/MATH-500",),
        layout={
            "problem": TEXT,
            "solution": TEXT,
            "answer": TEXT,
            "subject": TEXT,
            "level": NUMBER,
            "unique_id": TEXT,
        },
        fields={
            "prompt": "problem",
            "answer": "solution",
            "task": "subject",
            "tags": "level",
            "id": "unique_id",
        },
    ),
    "mbpp": PublishedSet(
        about="MBPP",
        places=("google-research-datasets/mbpp:full",),
        layout={
            "task_id": NUMBER,
            "text": TEXT,
            "code": TEXT,
            "test_list": LIST,
            "test_setup_code": TEXT,
            "challenge_test_list": LIST,
        },
        fields={
            "ask": WRITE_CODE.replace("PROMPT", "text"),
            "answer": "code",
            "id": "task_id",
        },
    ),
    "mbpp_sanitized": PublishedSet(
        about="MBPP, sanitized",
        places=("google-research-datasets/mbpp:sanitized",),
        layout={
            "source_file": TEXT,
            "task_id": NUMBER,
            "prompt": TEXT,
            "code": TEXT,
            "test_imports": LIST,
            "test_list": LIST,
        },
        fields={
            "ask": WRITE_CODE.replace("PROMPT", "prompt"),
            "answer": "code",
            "id": "task_id",
        },
    ),
}

# English names of languages by their codes, for wordings: of ISO 639-1 and, as FLORES
# writes them, of ISO 639-3. A language that is not here is called by its code.
LANGUAGES = {
    "ar": "Arabic",
    "arb": "Arabic",
    "bg": "Bulgarian",
    "bul": "Bulgarian",
    "bn": "Bengali",
    "ben": "Bengali",
    "cs": "Czech",
    "ces": "Czech",
    "da": "Danish",
    "dan": "Danish",
    "de": "German",
    "deu": "German",
    "el": "Greek",
    "ell": "Greek",
    "en": "English",
    "eng": "English",
    "es": "Spanish",
    "spa": "Spanish",
    "et": "Estonian",
    "est": "Estonian",
    "fi": "Finnish",
    "fin": "Finnish",
    "fr": "French",
    "fra": "French",
    "gu": "Gujarati",
    "guj": "Gujarati",
    "ha": "Hausa",
    "hau": "Hausa",
    "he": "Hebrew",
    "heb": "Hebrew",
    "hi": "Hindi",
    "hin": "Hindi",
    "hr": "Croatian",
    "hrv": "Croatian",
    "hu": "Hungarian",
    "hun": "Hungarian",
    "id": "Indonesian",
    "ind": "Indonesian",
    "is": "Icelandic",
    "isl": "Icelandic",
    "it": "Italian",
    "ita": "Italian",
    "ja": "Japanese",
    "jpn": "Japanese",
    "kk": "Kazakh",
    "kaz": "Kazakh",
    "km": "Khmer",
    "khm": "Khmer",
    "ko": "Korean",
    "kor": "Korean",
    "lt": "Lithuanian",
    "lit": "Lithuanian",
    "lv": "Latvian",
    "lvs": "Latvian",
    "nl": "Dutch",
    "nld": "Dutch",
    "nb": "Norwegian",
    "nob": "Norwegian",
    "pl": "Polish",
    "pol": "Polish",
    "ps": "Pashto",
    "pbt": "Pashto",
    "pt": "Portuguese",
    "por": "Portuguese",
    "ro": "Romanian",
    "ron": "Romanian",
    "ru": "Russian",
    "rus": "Russian",
    "sv": "Swedish",
    "swe": "Swedish",
    "sw": "Swahili",
    "swh": "Swahili",
    "ta": "Tamil",
    "tam": "Tamil",
    "th": "Thai",
    "tha": "Thai",
    "tr": "Turkish",
    "tur": "Turkish",
    "uk": "Ukrainian",
    "ukr": "Ukrainian",
    "vi": "Vietnamese",
    "vie": "Vietnamese",
    "xh": "Xhosa",
    "xho": "Xhosa",
    "zh": "Chinese",
    "zho": "Chinese",
    "zu": "Zulu",
    "zul": "Zulu",
}


def name_language(code: str) -> str:
    """A language's name in English by its code, `en`, `eng` or `eng_Latn`; the code
    itself where it is not known."""
    head = code.partition("_")[0].lower()
    return LANGUAGES.get(head, code)


def fill_languages(value: Any, source: str, target: str) -> Any:
    """A value of an entry's fields with two languages, by their codes, in their places."""
    if isinstance(value, list):
        return [fill_languages(item, source, target) for item in value]
    if not isinstance(value, str):
        return value
    replacements = {
        SOURCE_NAME: name_language(source),
        TARGET_NAME: name_language(target),
        SOURCE: source,
        TARGET: target,
    }
    for mark, words in replacements.items():
        value = value.replace(mark, words)
    return value


def fill_fields(name: str, languages: str | None) -> dict[str, Any]:
    """The fields of an entry by its name; of translations with `languages`, from which
    to which, such as is-en."""
    published = MAPPINGS[name]
    if languages is None:
        return dict(published.fields)
    source, _, target = languages.partition("-")
    filled: dict[str, Any] = {}
    for key, value in published.fields.items():
        filled[key] = fill_languages(value, source, target)
    return filled


def find_fitting(rows: Rows) -> list[str]:
    """The names of the entries whose layout rows have: their columns, each of its kind,
    and no others."""
    # under None csv keeps what a row has beyond the header
    columns = {column for row in rows for column in row if column is not None}
    fitting: list[str] = []
    for name, published in MAPPINGS.items():
        if _has_columns(published, columns) and _has_kinds(published, rows):
            fitting.append(name)
    return fitting


def _has_columns(published: PublishedSet, columns: set[str]) -> bool:
    """Whether the columns are those of an entry."""
    plain = {column for column in published.layout if "<" not in column}
    if not plain <= columns:
        return False
    unknown = columns - plain - set(published.also)
    if len(plain) == len(published.layout):
        return not unknown
    # a column for each language
    spoken = list_languages(published, [dict.fromkeys(columns)])
    return len(spoken) >= 2 and len(unknown) == len(spoken)


def _has_kinds(published: PublishedSet, rows: Rows) -> bool:
    """Whether the values of the columns are of the kinds that an entry says."""
    for column, kind in published.layout.items():
        for row in rows:
            value = row.get(column)
            if value is not None and not isinstance(value, KINDS[kind]):
                return False
    return not published.has_languages or len(list_languages(published, rows)) >= 2


def list_languages(published: PublishedSet, rows: Rows) -> list[str]:
    """The codes of the languages that rows of an entry have, in their order."""
    pattern = str(published.fields["answer"])
    head, dot, _ = pattern.partition(".")
    codes: dict[str, None] = {}
    for row in rows:
        if dot:
            nested = row.get(head)
            codes |= dict.fromkeys(nested if isinstance(nested, dict) else ())
            continue
        beginning = pattern.removesuffix(TARGET)
        for column in filter(None, row):
            match = re.fullmatch(f"{re.escape(beginning)}(.+)", column)
            if match is not None:
                codes[match[1]] = None
    return list(codes)
