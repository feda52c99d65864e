"""Are the published sets read by their mappings, from rows as they lie on the hub, and is
data of another layout answered with the mapping that fits?"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tests.lib.builders import digests
from zsg_core.data import published_sets, readers
from zsg_core.data.examples import Example
from zsg_core.data.published_sets import MAPPINGS
from zsg_core.data.readers import classes, entities
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.wrong_format import describe
from zsg_core.errors import UserError
from zsg_core.recipe import make_recipe, run_id
from zsg_core.settings.data import Source
from zsg_core.settings.run import Settings

PROMPT_OF_MBPP = (
    "You are an expert Python programmer, and here is your task: Add two numbers. Your"
    " code should pass these tests:\n\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n"
)
TESTS_OF_MBPP = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
CODE = "def add(a, b):\n    return a + b"

# Of each mapping: a row in the published layout, and of its example what is looked at.
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "flan": (
        {
            "inputs": "Is it good? OPTIONS: - yes - no",
            "targets": "yes",
            "_template_idx": 3,
            "_task_source": "Flan2021",
            "_task_name": "sst2",
            "_template_type": "zs_opt",
        },
        {"turns": (("Is it good? OPTIONS: - yes - no", "yes"),), "task": "sst2"},
    ),
    "flan_submix": (
        {
            "inputs": "Is it good?",
            "targets": "yes",
            "task_source": "Flan2021",
            "task_name": "glue/sst2:2.0.0",
            "template_type": "zs_noopt",
        },
        {"turns": (("Is it good?", "yes"),), "task": "glue/sst2:2.0.0"},
    ),
    "flan_v2": (
        {"inputs": "Is it good?", "targets": "yes", "task": "flan"},
        {"turns": (("Is it good?", "yes"),), "task": "flan"},
    ),
    "niv2_hub": (
        {
            "task_name": "task001_quoref_question_generation",
            "id": "task001-0f8c1cbb3a",
            "definition": "In this task, write a question.",
            "inputs": "Passage: It rains.",
            "targets": "What does it do?",
        },
        {
            "turns": (("Passage: It rains.", "What does it do?"),),
            "task": "task001_quoref_question_generation",
            "definition": "In this task, write a question.",
        },
    ),
    "mmlu": (
        {
            "question": "Find the degree of Q(sqrt(2)) over Q.",
            "subject": "abstract_algebra",
            "choices": ["0", "4", "2", "6"],
            "answer": 2,
        },
        {
            "turns": (("Find the degree of Q(sqrt(2)) over Q.", "2"),),
            "task": "abstract_algebra",
            "options": ("0", "4", "2", "6"),
        },
    ),
    "mmlu_auxiliary": (
        {
            "train": {
                "question": "The sky is",
                "subject": "",
                "choices": ["red", "blue"],
                "answer": 1,
            }
        },
        {"turns": (("The sky is", "blue"),), "options": ("red", "blue")},
    ),
    "mmlu_columns": (
        {
            "input": "The sky is",
            "A": "red",
            "B": "blue",
            "C": "green",
            "D": "black",
            "target": "B",
        },
        {
            "turns": (("The sky is", "blue"),),
            "options": ("red", "blue", "green", "black"),
        },
    ),
    "bigbench": (
        {
            "idx": 0,
            "inputs": "Q: Which is a fruit?\n  choice: apple\n  choice: chair\nA:",
            "targets": ["apple"],
            "multiple_choice_targets": ["chair", "apple"],
            "multiple_choice_scores": [0, 1],
        },
        {
            "turns": (
                (
                    "Q: Which is a fruit?\n  choice: apple\n  choice: chair\nA:",
                    "apple",
                ),
            ),
            "options": ("chair", "apple"),
        },
    ),
    "nq": (
        {
            "question": "where did they film hot tub time machine",
            "answer": ["Fernie Alpine Resort", "Fernie"],
        },
        {
            "turns": (
                ("where did they film hot tub time machine", "Fernie Alpine Resort"),
            ),
            "references": ("Fernie Alpine Resort", "Fernie"),
        },
    ),
    "flores": (
        {
            "id": 1,
            "URL": "https://en.wikinews.org/wiki/x",
            "domain": "wikinews",
            "topic": "health",
            "has_image": 0,
            "has_hyperlink": 0,
            "sentence_eng_Latn": "It rains.",
            "sentence_isl_Latn": "Það rignir.",
        },
        {
            "turns": (
                (
                    "Translate this from English to Icelandic:\n\nIt rains.",
                    "Það rignir.",
                ),
            ),
            "id": "1",
        },
    ),
    "wmt": (
        {"translation": {"is": "Það rignir.", "en": "It rains."}},
        {
            "turns": (
                (
                    "Translate this from Icelandic to English:\n\nÞað rignir.",
                    "It rains.",
                ),
            )
        },
    ),
    "wikisum": (
        {
            "url": "https://www.wikihow.com/Boil-Eggs",
            "title": "How to Boil Eggs",
            "summary": "Boil them.",
            "article": "Put eggs into water and boil it.",
            "step_headers": "Boil.",
        },
        {
            "turns": (
                (
                    "Write a summary of this article:\n\nPut eggs into water and boil it.",
                    "Boil them.",
                ),
            )
        },
    ),
    "ontonotes": (
        {
            "document_id": "nw/wsj/23/wsj_2311",
            "sentences": [
                {
                    "part_id": 0,
                    "words": ["Ann", "Lee", "left", "Iceland", "in", "1944", "."],
                    "named_entities": [1, 2, 0, 9, 0, 15, 0],
                    "speaker": None,
                }
            ],
        },
        {
            "turns": (
                (
                    f"{published_sets.NAME_ENTITIES}Ann Lee left Iceland in 1944 .",
                    "PERSON: Ann Lee; GPE: Iceland; DATE: 1944",
                ),
            )
        },
    ),
    "ontonotes_sentences": (
        {"tokens": ["Ann", "Lee", "left", "Iceland"], "tags": [4, 5, 0, 7]},
        {
            "turns": (
                (
                    f"{published_sets.NAME_ENTITIES}Ann Lee left Iceland",
                    "PERSON: Ann Lee; GPE: Iceland",
                ),
            )
        },
    ),
    "dolly": (
        {
            "instruction": "When did it open?",
            "context": "It opened in 1944.",
            "response": "In 1944.",
            "category": "closed_qa",
        },
        {
            "turns": (("When did it open?\nIt opened in 1944.", "In 1944."),),
            "task": "closed_qa",
        },
    ),
    "openhermes": (
        {
            "conversations": [
                {"from": "human", "value": "Hello", "weight": None},
                {"from": "gpt", "value": "Hi", "weight": None},
            ],
            "source": None,
            "category": None,
            "system_prompt": "Be kind.",
            "id": None,
            "idx": None,
            "title": None,
        },
        {
            "turns": (("Hello", "Hi"),),
            "task": "openhermes",
            "system": "Be kind.",
        },
    ),
    "tulu2": (
        {
            "dataset": "flan_v2",
            "id": "flan_v2_0",
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"},
            ],
        },
        {"turns": (("Hello", "Hi"),), "task": "flan_v2"},
    ),
    "tulu3": (
        {
            "id": "oasst1_4921",
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"},
            ],
            "source": "ai2-adapt-dev/oasst1_converted",
        },
        {"turns": (("Hello", "Hi"),), "task": "ai2-adapt-dev/oasst1_converted"},
    ),
    "cnn_dailymail": (
        {"article": "LONDON (CNN) -- It rained.", "highlights": "Rain .", "id": "4c1f"},
        {
            "turns": (
                (
                    "Write highlights for this article:\n\nLONDON (CNN) -- It rained.",
                    "Rain .",
                ),
            )
        },
    ),
    "math": (
        {
            "problem": "Find $x$ in $x=1$.",
            "level": "Level 1",
            "type": "Algebra",
            "solution": "$\\boxed{1}$",
        },
        {
            "turns": (("Find $x$ in $x=1$.", "$\\boxed{1}$"),),
            "task": "Algebra",
            "tags": ("Level 1",),
        },
    ),
    "math_500": (
        {
            "problem": "Find $x$ in $x=1$.",
            "solution": "$\\boxed{1}$",
            "answer": "1",
            "subject": "Algebra",
            "level": 2,
            "unique_id": "test/algebra/1.json",
        },
        {
            "turns": (("Find $x$ in $x=1$.", "$\\boxed{1}$"),),
            "task": "Algebra",
            "tags": ("2",),
            "id": "test/algebra/1.json",
        },
    ),
    "mbpp": (
        {
            "task_id": 601,
            "text": "Add two numbers.",
            "code": CODE,
            "test_list": TESTS_OF_MBPP,
            "test_setup_code": "",
            "challenge_test_list": [],
        },
        {"turns": ((PROMPT_OF_MBPP, CODE),), "id": "601"},
    ),
    "mbpp_sanitized": (
        {
            "source_file": "Benchmark Questions Verification V2.ipynb",
            "task_id": 2,
            "prompt": "Add two numbers.",
            "code": CODE,
            "test_imports": [],
            "test_list": TESTS_OF_MBPP,
        },
        {"turns": ((PROMPT_OF_MBPP, CODE),), "id": "2"},
    ),
}
LANGUAGES = {"flores": "eng_Latn-isl_Latn", "wmt": "is-en"}


def name_mapping(name: str) -> Any:
    """A mapping as a grid names it."""
    if name not in LANGUAGES:
        return name
    return {"name": name, "languages": LANGUAGES[name]}


def make_source(mapping: Any, **more: Any) -> Source:
    """The settings of data that are read by a mapping."""
    values = {"set": "records", "path": "d", "mapping": mapping, **more}
    return Source.model_validate(values)


def read(path: Path, mapping: Any, **fields: Any) -> list[Example]:
    """The examples of a path by a mapping, with some fields of one's own."""
    source = make_source(mapping, **({"fields": fields} if fields else {}))
    return list(readers.read_examples("records", path, Intake(), source.columns))


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    """Rows as JSON lines."""
    lines = [f"{json.dumps(row)}\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_every_mapping_is_tried() -> None:
    """A new one has a row here."""
    assert set(ROWS) == set(MAPPINGS)


@pytest.mark.parametrize("name", ROWS)
def test_a_published_row_is_read_by_its_mapping(tmp_path, name) -> None:
    """From JSON lines and from Parquet; and no other mapping is of that layout."""
    row, wanted = ROWS[name]
    lines = write_lines(tmp_path / "a.jsonl", row)
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for path in (lines, tmp_path / "a.parquet"):
        (made,) = read(path, name_mapping(name))
        assert {key: getattr(made, key) for key in wanted} == wanted
    assert published_sets.find_fitting([row]) == [name]


@pytest.mark.parametrize("name", ROWS)
def test_data_of_a_layout_that_was_not_asked_for_are_told_its_mapping(
    tmp_path, name
) -> None:
    """With the columns that were found."""
    row, _ = ROWS[name]
    path = write_lines(tmp_path / "a.jsonl", row)
    asked = "dolly" if name != "dolly" else "nq"
    columns = make_source(asked).columns
    told = describe("records", path, columns, asked) or ""
    assert f"a.jsonl has no row of mapping {asked} ({MAPPINGS[asked].about}; " in told
    assert f"its rows have {min(row)}" in told
    fitting = name
    if name in LANGUAGES:
        fitting = f"{{name: {name}, languages: {'-'.join(row_languages(row))}}}"
    assert told.endswith(f"which set records reads with mapping: {fitting}")


def test_a_letter_is_its_column_whatever_the_choices_say(tmp_path) -> None:
    """Some questions of MMLU ask for a letter, and list them in another order."""
    row = {"input": "Which?", "A": "C", "B": "A", "C": "B", "D": "E", "target": "A"}
    path = write_lines(tmp_path / "a.jsonl", row, {**row, "target": "C"})
    answers = [example.answer for example in read(path, "mmlu_columns")]
    assert answers == ["C", "B"]


def test_rows_that_a_mapping_could_read_are_not_taken_for_its_own(tmp_path) -> None:
    """Those of MMLU have a question and an answer, too: a number, which would be learnt.
    Who names the columns herself knows."""
    row, _ = ROWS["mmlu"]
    path = write_lines(tmp_path / "a.jsonl", row)
    told = describe("records", path, make_source("nq").columns, "nq") or ""
    assert "has not the layout of mapping nq (Natural Questions, open)" in told
    assert told.endswith("reads with mapping: mmlu")
    own = make_source("nq", fields={"task": "subject"}).columns
    assert describe("records", path, own, "nq") is None


def row_languages(row: dict[str, Any]) -> list[str]:
    """The languages of a row of translations, in its order."""
    if "translation" in row:
        return list(row["translation"])
    return [key[9:] for key in row if key.startswith("sentence_")]


def test_fields_of_ones_own_count_before_those_of_a_mapping() -> None:
    """One key takes the place of one; what says the same otherwise goes; null takes one
    away, and what rests on it."""
    assert make_source("math", fields={"task": "level"}).columns == {
        "prompt": ["problem"],
        "answer": "solution",
        "task": "level",
        "tags": "level",
    }
    asked = make_source("cnn_dailymail", fields={"prompt": "article"}).columns
    assert asked == {"prompt": ["article"], "answer": "highlights"}
    folder = make_source("openhermes", fields={"task_from": "folder"}).columns or {}
    assert "task" not in folder and "task_else" not in folder
    bare = make_source("mmlu", fields={"task": None}).columns or {}
    assert "task" not in bare
    with pytest.raises(ValueError, match=r"fields: .*both say what a row's task is"):
        make_source("mmlu", fields={"task": "subject", "task_from": "file"})


BAD_MAPPINGS = [
    ({"mapping": "wmt"}, "wmt needs `languages`"),
    ({"mapping": {"name": "mmlu", "languages": "en-is"}}, "mmlu is none"),
    ({"mapping": {"name": "wmt", "languages": "en"}}, "languages"),
    ({"mapping": {"name": "wmt", "languages": "en-en"}}, "need two that differ"),
    ({"mapping": "mmmlu"}, "mmlu"),
    ({"set": "alpaca", "mapping": "mmlu"}, "`mapping` name the columns of set records"),
    ({"mapping": "mmlu", "fields": {"text": "t"}}, "only one of these"),
    (
        {"mapping": "mmlu", "test_mapping": "nq"},
        "`test_mapping` is of `test_path`, which is not given",
    ),
    (
        {"set": "alpaca", "test_path": "t", "test_fields": {"text": "t"}},
        "the test data are alpaca",
    ),
    ({}, "or `mapping`, the name of a published set"),
    (
        {"test_path": "t", "test_mapping": "nq"},
        "set records reads columns of your own, and needs `fields`",
    ),
    (
        {"mapping": "mmlu", "test_path": "t", "test_fields": {"prompt": "q"}},
        "test_fields: `prompt` and `answer` go together",
    ),
]


@pytest.mark.parametrize(("values", "told"), BAD_MAPPINGS)
def test_a_mapping_that_makes_no_sense_is_refused(values, told) -> None:
    """Before any file is opened."""
    data = {"set": "records", "path": "/d", "held_out": {"share": "1/5"}, **values}
    if "test_path" in values:
        del data["held_out"]
    with pytest.raises(ValueError) as refused:
        Settings.model_validate({"data": data})
    assert told in str(refused.value)


def test_what_a_mapping_says_enters_the_run_id_and_not_its_name() -> None:
    """The same fields written out are the same run; the other direction of a pair is
    another; so is another mapping of the test data."""

    def make_id(**data: Any) -> str:
        values = {"set": "records", "path": "/d", **data}
        if "test_path" not in values:
            values["held_out"] = {"share": "1/5"}
        settings = Settings.model_validate({"data": values})
        return run_id(make_recipe(settings, digests("d" * 64)))

    written = {
        "prompt": "question",
        "answer": "answer",
        "choices": "choices",
        "task": "subject",
    }
    assert make_id(mapping="mmlu") == make_id(fields=written)
    pairs = [
        make_id(mapping={"name": "wmt", "languages": languages})
        for languages in ("is-en", "en-is")
    ]
    assert len({*pairs, make_id(mapping="mmlu")}) == 3
    tested = [
        make_id(mapping="mmlu", test_path="/t", **more)
        for more in ({}, {"test_mapping": "nq"}, {"test_mapping": "mmlu"})
    ]
    assert tested[0] == tested[2] != tested[1]


def test_test_data_may_have_other_columns_than_those_of_training() -> None:
    """Their own mapping, or fields of their own; else those of the training data."""
    of_all = {"set": "records", "path": "/d", "test_path": "/t"}
    source = Source.model_validate({**of_all, "mapping": "math"})
    assert source.test_columns == source.columns
    source = Source.model_validate(
        {**of_all, "mapping": "math", "test_fields": {"prompt": "q", "answer": "a"}}
    )
    assert source.test_columns == {"prompt": ["q"], "answer": "a"}
    source = Source.model_validate(
        {
            **of_all,
            "set": "gsm8k",
            "test_set": "records",
            "test_mapping": "math_500",
            "test_fields": {"answer": "answer"},
        }
    )
    assert source.columns is None
    assert (source.test_columns or {})["answer"] == "answer"


def test_a_row_of_bigbench_without_choices_has_its_first_target(tmp_path) -> None:
    """All targets are right; of choices those of the best score are."""
    row, _ = ROWS["bigbench"]
    bare = {
        **row,
        "targets": ["4", "four"],
        "multiple_choice_targets": [],
        "multiple_choice_scores": [],
    }
    equals = {
        **row,
        "multiple_choice_targets": ["a", "b", "c", "b"],
        "multiple_choice_scores": [1, 1, 0, 1],
    }
    first, second = read(write_lines(tmp_path / "a.jsonl", bare, equals), "bigbench")
    assert (first.answer, first.references, first.options) == ("4", ("4", "four"), ())
    assert (second.answer, second.references) == ("a", ("a", "b"))
    assert second.options == ("a", "b", "c")


BAD_SCORES: list[tuple[Any, str]] = [
    ([0, 0], "says of no choice that it is right"),
    ([1], "no list of 2 scores"),
    (None, "no list of 2 scores"),
    (["1", "0"], "a score that is no number"),
]


@pytest.mark.parametrize(("scores", "told"), BAD_SCORES)
def test_choices_without_scores_are_no_question(tmp_path, scores, told) -> None:
    """The row is told."""
    row = {**ROWS["bigbench"][0], "multiple_choice_scores": scores}
    with pytest.raises(UserError, match=told):
        read(write_lines(tmp_path / "a.jsonl", row), "bigbench")


def test_a_document_of_ontonotes_is_an_example_a_sentence(tmp_path) -> None:
    """A sentence without entities answers None, one without words is none; tags may be
    written out, and begin with I- as well."""
    row = {
        "document_id": "bc/x",
        "sentences": [
            {"words": ["It", "rains"], "named_entities": [0, 0]},
            {"words": [], "named_entities": []},
            {"words": ["Ann", "Bo"], "named_entities": ["I-PERSON", "B-PERSON"]},
        ],
    }
    path = write_lines(tmp_path / "a.jsonl", row, row)
    made = read(path, "ontonotes")
    assert [example.answer for example in made[:2]] == [
        "None",
        "PERSON: Ann; PERSON: Bo",
    ]
    assert [example.id for example in made] == [f"records:{n}" for n in range(4)]
    own = read(write_lines(tmp_path / "b.jsonl", row), "ontonotes", id="document_id")
    assert [example.id for example in own] == ["bc/x/0", "bc/x/1"]


BAD_TAGS: list[tuple[list[Any], str]] = [
    ([1], "each word has one tag"),
    ([1, 99], "holds 99, and fields.labels are 37"),
    (["B-", "O"], "is no tag of an entity"),
    ([True, 0], "neither a text nor a number"),
]


@pytest.mark.parametrize(("tags", "told"), BAD_TAGS)
def test_words_whose_tags_are_none_are_told(tmp_path, tags, told) -> None:
    """With the column that they stand in."""
    row = {"tokens": ["Ann", "Lee"], "tags": tags}
    with pytest.raises(UserError, match=told):
        read(write_lines(tmp_path / "a.jsonl", row), "ontonotes_sentences")


def test_an_entity_may_go_on_for_the_whole_of_a_text() -> None:
    """Its words are put together once, at its end."""
    words = [str(number) for number in range(300_000)]
    tags = ["B-X", *["I-X"] * 299_999]
    assert entities.find_entities(words, tags) == [("X", " ".join(words))]


def test_a_task_has_one_definition(tmp_path) -> None:
    """Another one in a later row of the task is told."""
    row, _ = ROWS["niv2_hub"]
    path = write_lines(tmp_path / "a.jsonl", row, {**row, "definition": "Other."})
    with pytest.raises(UserError, match=r"a\.jsonl:2: .* a task has one definition"):
        read(path, "niv2_hub")


def test_a_definition_of_rows_may_be_taken_away() -> None:
    """As that of Natural Instructions, FLAN's ablation; rows without one have none."""
    make_source("niv2_hub", instructions="none", test_instructions="name")
    with pytest.raises(ValueError, match=r"or of records with fields\.definition"):
        make_source("mmlu", instructions="none")


def write_classes(path: Path, names: list[str], label: int = 1) -> Path:
    """A Parquet file with a class, whose names stand in it as `datasets` writes them."""
    feature = {"names": names, "_type": "ClassLabel"}
    told = {"info": {"features": {"label": feature}}}
    table = pa.table({"text": ["It rains."], "label": [label]})
    metadata = {b"huggingface": json.dumps(told).encode()}
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    return path


CLASSES = {"prompt": "text", "answer": "label"}


def read_classes(path: Path, **fields: Any) -> list[Example]:
    """The examples of a path whose answers are classes."""
    source = make_source(None, fields={**CLASSES, **fields})
    return list(readers.read_examples("records", path, Intake(), source.columns))


def test_numbers_of_classes_are_read_as_their_names(tmp_path) -> None:
    """Those of the file, or those that are given; all of them are the options."""
    path = write_classes(tmp_path / "a.parquet", ["bad", "good"])
    (made,) = read_classes(path, labels="file")
    assert (made.answer, made.options) == ("good", ("bad", "good"))
    assert read_classes(path, labels=["bad", "good"]) == [made]
    assert read_classes(path)[0].answer == "1"
    lines = write_lines(
        tmp_path / "a.jsonl",
        {"text": "It rains.", "label": "0"},
        {"text": "It rains.", "label": "good"},
    )
    answers = [row.answer for row in read_classes(lines, labels=["bad", "good"])]
    assert answers == ["bad", "good"]


def test_classes_that_are_not_read_by_name_are_told(tmp_path) -> None:
    """Once, of the file; their numbers would be learnt."""
    path = write_classes(tmp_path / "a.parquet", ["bad", "good"])
    columns = make_source(None, fields=CLASSES).columns
    (note,) = readers.inspect_files("records", path, fields=columns).notes
    assert "label holds the numbers of the classes bad, good" in note
    named = make_source(None, fields={**CLASSES, "labels": "file"}).columns
    assert not readers.inspect_files("records", path, fields=named).notes


@pytest.mark.parametrize("names", [["a", "a"], ["a", " "]])
def test_names_that_tell_no_classes_apart_are_refused(tmp_path, names) -> None:
    """The user may name them."""
    path = write_classes(tmp_path / "a.parquet", names)
    with pytest.raises(UserError, match="is blank, or stands twice"):
        read_classes(path, labels="file")
    assert read_classes(path, labels=["x", "y"])[0].answer == "y"


def test_classes_that_nobody_names_or_two_name_otherwise_are_refused(tmp_path) -> None:
    """A file without names, files that differ, a list that differs; -1 is no class."""
    lines = write_lines(tmp_path / "a.jsonl", {"text": "t", "label": 0})
    with pytest.raises(UserError, match=r"has no names .* \[negative, positive\]"):
        read_classes(lines, labels="file")
    path = write_classes(tmp_path / "a.parquet", ["bad", "good"])
    with pytest.raises(
        UserError, match=r"are bad, good, and fields\.labels are no, yes"
    ):
        read_classes(path, labels=["no", "yes"])
    write_classes(tmp_path / "b.parquet", ["good", "bad"])
    with pytest.raises(UserError, match=r"are good, bad, and fields\.labels are bad"):
        read_classes(tmp_path / "*.parquet", labels="file")
    hidden = write_classes(tmp_path / "c.parquet", ["bad", "good"], label=-1)
    with pytest.raises(UserError, match="'-1', no number of a class"):
        read_classes(hidden, labels="file")


@pytest.mark.parametrize(
    "written",
    [b"[]", b"{", b'{"info": {"features": {"label": {"_type": "ClassLabel"}}}}'],
)
def test_a_schema_that_tells_no_names_is_taken_for_one_without(written) -> None:
    """Whoever writes a file writes what she likes into it."""
    assert classes.find_names(written, "label") is None


def test_names_of_classes_are_found_within_lists() -> None:
    """As `datasets` has written lists over the years."""
    tag = {"names": ["O", "B-X"], "_type": "ClassLabel"}
    shapes: list[Any] = [
        {"feature": tag, "_type": "Sequence"},
        {"feature": tag, "_type": "List"},
        [tag],
    ]
    for shape in shapes:
        for nested in ({"feature": {"t": shape}, "_type": "List"}, [{"t": shape}]):
            written = json.dumps({"info": {"features": {"s": nested}}}).encode()
            assert classes.find_names(written, "s.t") == ["O", "B-X"]


@pytest.mark.engine
def test_names_of_classes_are_found_where_datasets_writes_them(tmp_path) -> None:
    """In the folder of save_to_disk, and in its Parquet."""
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
        }
    )
    rows = datasets.Dataset.from_list([{"text": "t", "label": 1}], features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    rows.to_parquet(str(tmp_path / "a.parquet"))
    for path in (tmp_path / "saved", tmp_path / "a.parquet"):
        assert read_classes(path, labels="file")[0].answer == "good"


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"ask": "Sum up {", "answer": "a"}, "has a { that stands alone"),
    ({"ask": "Sum up {}", "answer": "a"}, "names no column"),
    ({"ask": "Sum up", "answer": "a"}, "names no column; write one in braces"),
    ({"ask": "{a.}", "answer": "a"}, "names no column"),
    ({"ask": "\x1b[2J{a}", "answer": "a"}, "control characters"),
    ({"ask": "{a}"}, "`answer` is missing"),
    ({"ask": "{a}", "prompt": "q", "answer": "a"}, "both say what is asked"),
    ({"words": "w"}, "`words` and `word_tags` go together"),
    ({"words": "w", "word_tags": "t", "tags": "x"}, "are not read beside `words`"),
    ({**CLASSES, "labels": ["a", "a"]}, "name a class twice"),
    ({**CLASSES, "labels": ["a", "b"], "choices": "c"}, "both say what an answer"),
    ({"text": "t", "labels": "file"}, "`labels` name the classes of `answer`"),
    ({**CLASSES, "task_else": "x"}, "give `task`"),
    ({**CLASSES, "definition": "d"}, "that of a row's task; give `task`"),
    ({**CLASSES, "choice_scores": "s"}, "`choice_scores` go with `choices`"),
]


@pytest.mark.parametrize(("fields", "told"), BAD_FIELDS)
def test_fields_that_make_no_sense_are_refused(fields, told) -> None:
    """Before any file is opened."""
    with pytest.raises(ValueError) as refused:
        make_source(None, fields=fields)
    assert told in str(refused.value)


def test_a_wording_is_put_together_and_never_run(tmp_path) -> None:
    """Braces of the text are written twice; those of a row stay as they are."""
    row = {"q": "{a.__class__}", "o": ["x", "y"], "a": "yes"}
    fields = {"ask": "{{{q}}}\n{o}?", "answer": "a"}
    source = make_source(None, fields=fields)
    path = write_lines(tmp_path / "a.jsonl", row)
    (made,) = readers.read_examples("records", path, Intake(), source.columns)
    assert made.input == "{{a.__class__}}\nx\ny?"
    blank = write_lines(tmp_path / "b.jsonl", {"q": " ", "o": [], "a": "yes"})
    with pytest.raises(UserError, match="`q, o` is blank"):
        list(readers.read_examples("records", blank, Intake(), source.columns))


def test_rows_that_name_no_task_have_the_one_that_is_said(tmp_path) -> None:
    """Null, an empty text, or no such column."""
    rows: list[dict[str, Any]] = [
        {"text": "t", "label": "a", "c": value} for value in (None, "", "own")
    ]
    path = write_lines(tmp_path / "a.jsonl", *rows, {"text": "t", "label": "a"})
    tasks = [row.task for row in read_classes(path, task="c", task_else="other")]
    assert tasks == ["other", "other", "own", "other"]
