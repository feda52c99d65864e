"""Is a model asked each suite's items in the run's own template, and is what it says
taken as it stands?"""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract import item_losses
from jobs.evaluating.items import Asker, Dialogues, OwnTestSet, Problems, Questions
from jobs.model import content
from jobs.model.vocabulary import Vocabulary
from jobs.training.batches import TokenizedSet
from tests.lib.character_tokens import WORDS
from zsg_core.data.examples import Example
from zsg_core.data.prompts import VICUNA_SYSTEM, Template
from zsg_core.errors import UserError
from zsg_core.metrics import gsm8k, mt_bench
from zsg_core.metrics.metrics import GSM8K, HUMANEVAL, MT_BENCH
from zsg_core.settings.suites import Gsm8kSettings, HumanEvalSettings, MtBenchSettings
from zsg_core.suites import Suite, SuiteFile

VICUNA = Asker(Template("vicuna"), WORDS)
NO_ROOM = "no room"  # of a prompt that fills the model's positions


class Model:
    """Answers as a script says, by the text of the prompt, and remembers how it was asked."""

    def __init__(self, script: Mapping[str, str] | None = None) -> None:
        self.script, self.asked = script or {}, dict[str, tuple[dict[str, Any], str]]()

    def __call__(
        self, how: Mapping[str, Any], prompts: Sequence[Any], names: Sequence[str]
    ) -> list[list[int] | None]:
        made: list[list[int] | None] = []
        for prompt, name in zip(prompts, names, strict=True):
            text = WORDS.text(prompt)
            self.asked[name] = dict(how), text
            said = next(
                (say for part, say in self.script.items() if part in text), " Yes. "
            )
            made.append(None if said == NO_ROOM else WORDS.tokenize(said))
        return made


def suite(name: str, path: Path, **settings: Any) -> Suite:
    """A suite as the launcher resolves it."""
    made = {
        GSM8K: Gsm8kSettings,
        HUMANEVAL: HumanEvalSettings,
        MT_BENCH: MtBenchSettings,
    }[name]
    files = content.suite_files(name)(path)
    digest = content.folder_digest(path, files, content.sha256_of(files))
    how = made.model_validate({"path": str(path), **settings}).how | {"file": digest}
    return Suite(
        name=name, keys=(), how=how, files={name: SuiteFile(str(path), digest)}
    )


def rows(path: Path, *rows: dict[str, Any]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Two questions of MT-Bench's form, of a category that is sampled and of one that is not."""
    rows(
        tmp_path / "question.jsonl",
        {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
        {"question_id": 111, "category": "math", "turns": ["Add.", "More."]},
    )
    return tmp_path / "question.jsonl"


def test_gsm8k_is_asked_in_the_runs_template(tmp_path: Path) -> None:
    """Greedily, with the published answer as reference; what the model says is kept."""
    path = rows(
        tmp_path / "g.jsonl",
        *({"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(4)),
    )
    asked, model = (
        Questions(suite(GSM8K, path, items=2), VICUNA),
        Model({"1 + 1": " 2. #### 2"}),
    )
    made = asked.answer(model)

    assert len(made) == 2 and [one.id for one in made] == [
        asked.ids[place] for place in asked.places
    ]
    assert {text for _, text in model.asked.values()} == {
        f"{VICUNA_SYSTEM} USER: {one.id[-1]} + 1? ASSISTANT:" for one in made
    }
    assert all(how["decoding"] == "greedy" for how, _ in model.asked.values())
    assert [one.references for one in made] == [
        (f"#### {int(one.id[-1]) + 1}",) for one in made
    ]
    assert asked.name == f"gsm8k-{suite(GSM8K, path).how['file'][:8]}"


def test_mt_bench_goes_on_after_what_the_model_said(talk: Path) -> None:
    """Turn after turn, at FastChat's temperature for the category; answers without
    blanks around them."""
    model = Model({"Again.": "Another.", "Write.": "  A poem. "})
    asked = Dialogues(suite(MT_BENCH, talk, max_new_tokens=8), VICUNA)
    made = {one.id: one for one in asked.answer(model)}

    assert (
        list(made)
        == ["mt_bench/81:1", "mt_bench/81:2", "mt_bench/111:1", "mt_bench/111:2"]
        == asked.ids
    )
    assert (made["mt_bench/81:1"].answer, made["mt_bench/81:2"].answer) == (
        "A poem.",
        "Another.",
    )
    # The tokens of </s> show as no text.
    assert (
        model.asked["mt_bench/81:2"][1]
        == f"{VICUNA_SYSTEM} USER: Write. ASSISTANT: A poem.USER: Again. ASSISTANT:"
    )
    how = {name: told for name, (told, _) in model.asked.items()}
    assert (how["mt_bench/81:2"]["decoding"], how["mt_bench/81:2"]["temperature"]) == (
        "nucleus",
        0.7,
    )
    assert {how[f"mt_bench/111:{turn}"]["decoding"] for turn in (1, 2)} == {"greedy"}
    assert [made[item].task for item in made] == ["writing", "writing", "math", "math"]


def test_mt_bench_is_talked_about_several_times(talk: Path) -> None:
    """Each conversation goes on after its own answers, with draws of its own, and its
    turns have the same ids."""
    model = Model({"Write.": "A poem."})
    asked = Dialogues(suite(MT_BENCH, talk, samples=2), VICUNA)
    first, second = mt_bench.split_conversations(asked.answer(model))

    assert [one.id for one in first] == [one.id for one in second] == asked.ids
    assert set(model.asked) == {
        f"{item}{sample}" for item in asked.ids for sample in ("", "~1")
    }
    assert "A poem." in model.asked["mt_bench/81:2~1"][1]


def test_what_cannot_be_asked_has_no_answer(talk: Path) -> None:
    """Nor has what would follow it; the other turns and conversations keep theirs."""
    model = Model({"Again.": NO_ROOM, "Write.": "A poem."})
    made = Dialogues(suite(MT_BENCH, talk, samples=2), VICUNA).answer(model)

    assert [one.id for one in made] == [
        "mt_bench/81:1",
        "mt_bench/111:1",
        "mt_bench/111:2",
    ] * 2
    assert [len(one) for one in mt_bench.split_conversations(made)] == [3, 3]
    lacking = [one for place, one in enumerate(made) if place != 2]
    assert [
        [one.id[-5:] for one in said] for said in mt_bench.split_conversations(lacking)
    ] == [
        ["/81:1", "111:1"],
        ["/81:1", "111:1", "111:2"],
    ]


def test_an_answer_ends_where_the_model_goes_on_with_the_users_part(
    tmp_path: Path,
) -> None:
    """A base that does not stop is read up to there, and so is one that goes on with
    another question."""
    path = rows(
        tmp_path / "g.jsonl",
        *({"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(2)),
    )
    asked = suite(GSM8K, path)
    stopping = msgspec.structs.replace(
        asked, how=asked.how | {"stops": ["USER:", "Question:"]}
    )
    model = Model(
        {"0 + 1": " #### 1\n\nUSER: 7 + 7? #### 14", "1 + 1": " #### 2\nQuestion: 5?"}
    )
    made = Questions(stopping, VICUNA).answer(model)

    assert [one.answer for one in made] == [" #### 1\n\n", " #### 2\n"]
    assert [sum(by.values()) for by in gsm8k.score_answers(made).values()] == [200, 200]


def dialogues() -> tuple[TokenizedSet, list[Example]]:
    """Test items of which the second has a last turn of 300 letters, and the third an
    answer of 300."""
    turns = [
        (("say red", "red"), ("say blue", "blue")),
        (("say red", "red"), ("say blue " * 33, "blue")),
        (("say red", "red" * 100),),
    ]
    made = [Example(id=f"d:{n}", task="d", turns=own) for n, own in enumerate(turns)]
    return TokenizedSet([one.id for one in made], [], [one.task for one in made]), made


@pytest.mark.parametrize("truncate", ["prompt", "head"])
def test_no_other_turn_is_asked_than_the_references_are_of(truncate: str) -> None:
    """An item whose last turn max_length leaves out has no answer, and is counted."""
    model = Model()
    asked = OwnTestSet(
        {"items": None, "stops": ["."]},
        dialogues(),
        Asker(Template("zsg"), WORDS, 64, truncate),
    )
    made = asked.answer(model)

    assert [(one.id, one.references, one.answer) for one in made] == [
        ("d:0", ("blue",), " Yes"),
        ("d:2", ("red" * 100,), " Yes"),
    ]
    assert [text for _, text in model.asked.values()] == [
        "User: say red\nAssistant: red\nUser: say blue\nAssistant: ",
        "User: say red\nAssistant: ",
    ]
    assert asked.shortened == {"turns_left_out": 1, "prompts_cut": 0}
    assert asked.places == [0, 1, 2]


@pytest.mark.parametrize("answer", ["none", "12", "x" * 200])
def test_a_test_items_prompt_is_the_same_whatever_its_answer(answer: str) -> None:
    """Its length, and what a tokenizer would join to the prompt's last blank, must not
    tell of it."""
    item = Example(id="d:0", task="d", turns=(("How many? Output: ", answer),))
    joined = Vocabulary(
        lambda text: WORDS.tokenize(text.replace(" n", "@").replace(" A", "@")),
        0,
        1,
        WORDS.text,
    )
    test = TokenizedSet(["d:0"], [], ["d"]), [item]
    [prompt] = OwnTestSet(
        {"items": None}, test, Asker(Template("plain"), joined, 32)
    ).prompts

    assert joined.text(prompt) == "How many? Output:"


PROBLEM = {
    "task_id": "HumanEval/0",
    "prompt": 'def f():\n    """One."""\n',
    "entry_point": "f",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}


@pytest.mark.parametrize(
    ("template", "said", "kept"),
    [
        pytest.param(
            "vicuna",
            " ```python\nx\n```",
            "```python\nx\n```",
            id="the template's own blank goes",
        ),
        pytest.param("vicuna", "    return 1", "    return 1", id="an indent stays"),
        pytest.param(
            "plain",
            " return 1",
            " return 1",
            id="without a template every blank is the model's",
        ),
    ],
)
def test_blanks_before_code_are_kept(
    tmp_path: Path, template: str, said: str, kept: str
) -> None:
    """They are a part of the program."""
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(PROBLEM).encode()))
    model = Model({"def f()": said})
    [answer] = Problems(
        suite(HUMANEVAL, path), Asker(Template(template), WORDS)
    ).answer(model)
    [(how, text)] = model.asked.values()

    assert answer.answer == kept
    assert how["decoding"] == "greedy"
    assert (
        text == PROBLEM["prompt"]
        if template == "plain"
        else "make sure that it passes the tests" in text
    )


def test_every_sample_has_draws_of_its_own(tmp_path: Path) -> None:
    """All under the problem's id, by which pass@k counts them."""
    path = rows(tmp_path / "HumanEval.jsonl", PROBLEM)
    model = Model()
    made = Problems(suite(HUMANEVAL, path, samples=3), VICUNA).answer(model)

    assert [one.id for one in made] == ["HumanEval/0"] * 3
    assert list(model.asked) == ["HumanEval/0~0", "HumanEval/0~1", "HumanEval/0~2"]


def test_an_answer_goes_on_from_its_prompt() -> None:
    """Where a tokenizer takes the first blank off a text, as Llama's does, the answer's
    is not the first."""
    strips = Vocabulary(
        WORDS.tokenize, 0, 1, lambda ids: WORDS.text(ids).removeprefix(" ")
    )
    prompt, answer = WORDS.tokenize("ask:"), WORDS.tokenize("    return 1")

    assert (
        Asker(Template("vicuna"), strips).decode_answer(prompt, answer)
        == "    return 1"
    )
    assert strips.text(answer) == "   return 1"


def test_a_file_that_changed_since_the_plan_is_refused(talk: Path) -> None:
    """Its answers would be of another benchmark."""
    planned = suite(MT_BENCH, talk)
    talk.write_text(talk.read_text().replace("Add.", "Subtract."))

    with pytest.raises(UserError, match="has changed since it was submitted"):
        Dialogues(planned, VICUNA)


def test_a_reward_model_reads_what_the_user_said() -> None:
    """Definition and examples included, the run's template not; earlier turns stand as
    in UltraRM's own form."""
    told = Example(
        id="a:0",
        task="a",
        turns=(("2 3", "5"),),
        definition="Add",
        shots=(("1 1", "2"),),
    )
    talked = Example(
        id="b:0",
        task="b",
        turns=(("Hi.", "Hello."), ("Bye.", "So long.")),
        system="Be kind.",
    )
    test = TokenizedSet(["a:0", "b:0"], [], ["a", "b"]), [told, talked]
    asked = OwnTestSet(
        {"items": None}, test, Asker(Template("zsg", shots=1), WORDS)
    ).instructions

    assert asked["a:0"].startswith(
        "Definition: Add.\n\n Positive Example 1 -\nInput: 1 1.\n Output: 2."
    )
    assert asked["b:0"] == "Be kind.\n\nHi.\n\nAssistant: Hello.\n\nHuman: Bye."


def test_items_of_another_file_have_another_name() -> None:
    """So that places always are of the list that they were counted in."""
    assert item_losses.name_of("gsm8k", {"file": "a" * 64}) != item_losses.name_of(
        "gsm8k", {"file": "b" * 64}
    )
    assert item_losses.name_of("test_set", {}) == "test_set"
