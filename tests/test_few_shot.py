"""Do the right examples stand before a training example, drawn by it alone, and are they
written and learnt as the grid says?"""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from pydantic import ValidationError

from jobs.contract.removal import IN_CORPUS
from jobs.preparing.corpus import Corpus
from tests.lib.builders import task, write_niv2
from tests.lib.made_corpora import Make, make_corpora
from zsg_core.data import few_shot, prompts
from zsg_core.data.examples import Example, FewShot
from zsg_core.data.few_shot import FewShotRule, encode_with_shots, list_questions
from zsg_core.data.prompts import EncodedExample, Template
from zsg_core.errors import UserError
from zsg_core.recipe import InputDigests, SourceDigests, make_recipe
from zsg_core.settings.run import Settings

END = 0  # what the words below end with


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the corpus of some data settings."""
    return make_corpora(tmp_path)


def write_tasks(folder: Path, counts: dict[str, int], tested: int = 3) -> None:
    """Flan-mini's rows, so many of each task, and a held-out task."""
    names = [name for name, count in counts.items() for _ in range(count)]
    names += ["held"] * tested
    numbers = dict.fromkeys(names, 0)
    rows: list[dict[str, Any]] = []
    for name in names:
        numbers[name] += 1
        asked = f"{name} question {numbers[name]}"
        said = [
            {"from": "human", "value": asked},
            {"from": "gpt", "value": f"{name} answer {numbers[name]}"},
        ]
        rows.append({"source": name, "conversations": said})
    folder.mkdir(exist_ok=True)
    (folder / "flan_mini.json").write_text(json.dumps(rows))
    split = {"train_key_list": list(counts), "eval_key_list": ["held"]}
    (folder / "train_eval_key_list.json").write_text(json.dumps(split))


def shots_of(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """The questions of the shots of each training example."""
    return {
        example.id: tuple(q for q, _ in example.few_shot.shots)
        if example.few_shot
        else ()
        for example in corpus.train
    }


def test_no_example_sees_itself_its_question_or_a_tested_answer(
    make: Make, tmp_path: Path
) -> None:
    """In 10,000 draws from questions of which many are the same but for case and blanks,
    and some are tested."""
    train = tmp_path / "train.jsonl"
    test = tmp_path / "test.jsonl"
    asked = [f"What is {number % 1500}?" for number in range(2500)]
    rows = [
        {"question": text.upper() if number % 2 else f" {text} ", "answer": str(number)}
        for number, text in enumerate(asked)
    ]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test.write_text("".join(json.dumps(row) + "\n" for row in rows[:100]))
    tested = {few_shot.digest_question(text) for text in asked[:100]}

    corpus = make(set="gsm8k", path=str(train), test_path=str(test), few_shot={"k": 4})

    draws = 0
    for example in corpus.train:
        assert example.few_shot is not None
        shown = [
            few_shot.digest_question(question) for question, _ in example.few_shot.shots
        ]
        draws += len(shown)
        assert len(set(shown)) == 4
        assert not list_questions(example) & set(shown)
        assert not tested & set(shown)
    assert draws == 10_000


def test_shots_are_of_the_same_task_and_never_held_out(
    make: Make, tmp_path: Path
) -> None:
    """Each example of two tasks sees its own task's examples, whatever is sampled."""
    write_tasks(tmp_path / "data", {"add": 9, "sort": 9})

    corpus = make(
        set="flan_mini",
        path=str(tmp_path / "data"),
        few_shot={"k": 3},
        train_per_task=4,
    )

    shown = shots_of(corpus)
    assert len(shown) == 8
    for example in corpus.train:
        assert len(shown[example.id]) == 3
        assert all(text.startswith(example.task) for text in shown[example.id])
    assert all(example.few_shot is None for example in corpus.test)


def test_shots_hang_on_the_example_alone(make: Make, tmp_path: Path) -> None:
    """They are the same under another cap, beside other tasks, as a source with a name,
    and the first of those of a larger k."""
    few, many = tmp_path / "few", tmp_path / "many"
    write_tasks(few, {"add": 30})
    write_tasks(many, {"sort": 12, "add": 30})

    def draw(**data: Any) -> dict[str, tuple[str, ...]]:
        return shots_of(make(set="flan_mini", sample_seed=3, **data))

    whole = draw(path=str(few), few_shot={"k": 2}, train_per_task=None)
    capped = draw(path=str(few), few_shot={"k": 2}, train_per_task=5)
    beside = draw(path=str(many), few_shot={"k": 2}, train_per_task=None)
    longer = draw(path=str(few), few_shot={"k": 4}, train_per_task=None)
    other = draw(path=str(few), few_shot={"k": 2, "seed": 4}, train_per_task=None)
    test = {"held_out": {}, "path": str(few)}
    named = draw(sources={"own": test}, few_shot={"k": 2}, train_per_task=None)

    assert capped == {name: whole[name] for name in capped}
    assert whole == {name: beside[name] for name in whole}
    assert whole == {name: shots[:2] for name, shots in longer.items()}
    assert whole == {name.removeprefix("own/"): shots for name, shots in named.items()}
    assert whole != other
    assert len(set(whole.values())) > 20


def test_fixed_shots_are_the_tasks_first(make: Make, tmp_path: Path) -> None:
    """All examples of a task have the same, but those that are shown themselves."""
    write_tasks(tmp_path / "data", {"add": 6})

    corpus = make(
        set="flan_mini",
        path=str(tmp_path / "data"),
        few_shot={"k": 2, "fixed": "first"},
        sampling="first",
    )

    first, second, third = (f"add question {number}" for number in (1, 2, 3))
    assert list(shots_of(corpus).values()) == [
        (second, third),
        (first, third),
        *[(first, second)] * 4,
    ]
    facts = corpus.meta["sources"][""]["few_shot"]
    assert (facts["k"], facts["examples"]) == (2, 6)
    assert (facts["pool"]["tasks"], facts["pool"]["examples"]) == (1, 6)


def test_a_share_of_the_examples_has_shots_and_a_smaller_one_is_part_of_it(
    make: Make, tmp_path: Path
) -> None:
    """Which have any is drawn for each by itself, and how many is told."""
    write_tasks(tmp_path / "data", {"add": 200})

    def draw(share: str) -> set[str]:
        corpus = make(
            set="flan_mini",
            path=str(tmp_path / "data"),
            train_per_task=None,
            few_shot={"k": 1, "share": share},
        )
        having = {name for name, shots in shots_of(corpus).items() if shots}
        assert corpus.meta["sources"][""]["few_shot"]["examples"] == len(having)
        notes = (corpus.folder / "notes.json").read_text()
        assert f"{len(having)} of 200 training examples have 1 of their task" in notes
        return having

    quarter, half = draw("1/4"), draw("1/2")

    assert quarter < half
    assert 30 < len(quarter) < 70 < len(half) < 130


def test_a_task_with_too_few_examples_is_refused_by_its_name(
    make: Make, tmp_path: Path
) -> None:
    """Three examples leave two for each of them."""
    write_tasks(tmp_path / "data", {"add": 9, "sort": 3})

    def draw(k: int) -> Corpus:
        return make(set="flan_mini", path=str(tmp_path / "data"), few_shot={"k": k})

    assert len(draw(2).train) == 12
    with pytest.raises(UserError, match="task sort has 3 training examples, and 2"):
        draw(3)


def test_a_corpus_with_shots_can_be_forgotten(make: Make, tmp_path: Path) -> None:
    """Each of its files is one that zsg is known to make there."""
    write_tasks(tmp_path / "data", {"add": 6})
    corpus = make(set="flan_mini", path=str(tmp_path / "data"), few_shot={"k": 2})
    names = {file.name for file in corpus.folder.iterdir()}
    assert "shots.npy" in names
    assert names <= set(IN_CORPUS)


def test_dialogues_are_no_shots_and_may_have_them(make: Make, tmp_path: Path) -> None:
    """An example of several turns is not shown; others stand before its first question."""

    def say(*questions: str) -> dict[str, Any]:
        said: list[dict[str, str]] = []
        for text in questions:
            said.append({"role": "user", "content": text})
            said.append({"role": "assistant", "content": f"re {text}"})
        return {"messages": said}

    rows = [say("one", "two"), say("three"), say("four")]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"question": "q", "answer": "a"}))
    data = {"set": "messages", "path": str(file)}
    data |= {"test_path": str(test), "test_set": "gsm8k"}

    first, second, third = shots_of(make(**data, few_shot={"k": 1})).values()

    assert first in [("three",), ("four",)]
    assert (second, third) == (("four",), ("three",))
    with pytest.raises(UserError, match="several turns"):
        make(**data, few_shot={"k": 2})


def test_rows_that_are_held_out_are_no_shots(make: Make, tmp_path: Path) -> None:
    """Of a task some rows are tested, which no other row sees."""
    file = tmp_path / "rows.jsonl"
    rows = [{"q": f"ask {number}", "a": str(number)} for number in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: dict[str, Any] = {"set": "records", "path": str(file)}
    data |= {"held_out": {"share": "1/4"}, "few_shot": {"k": 5}}

    corpus = make(**data, fields={"prompt": "q", "answer": "a"})

    tested = {example.input for example in corpus.test}
    shown = {text for shots in shots_of(corpus).values() for text in shots}
    assert len(shown) == 30
    assert not tested & shown


def test_few_shot_of_nothing_is_the_recipe_without(tmp_path: Path) -> None:
    """k 0, a share of 0, and no few_shot make one run; any other is another."""
    digests = InputDigests(sources={"": SourceDigests(data="d")})

    def recipe(value: Any) -> Any:
        wanted = {"data": {"path": "p", "few_shot": value}}
        return make_recipe(Settings.model_validate(wanted), digests)

    without = recipe(None)
    shown = recipe({"k": 2})
    assert recipe({"k": 0, "seed": 5}) == without
    assert recipe({"k": 2, "share": 0}) == without
    assert shown["stages"][0]["data"]["train"]["few_shot"] == {
        "k": 2,
        "turns": "one",
        "loss_on": "last",
        "seed": 0,
    }
    assert recipe({"k": 2, "fixed": "first"}) != shown
    with pytest.raises(ValidationError, match="set turns: many"):
        recipe({"k": 2, "loss_on": "answers"})


EGGS = "Question: Half of 18 eggs break. How many are whole?\nAnswer:"
COWS = "Question: Two cows give 7 litres each. How much in all?\nAnswer:"
SHOTS = ((COWS, "2 * 7 = 14.\n#### 14"), (EGGS, "18 / 2 = 9.\n#### 9"))
ITEM = Example(
    id="gsm:3",
    task="gsm",
    turns=(("Question: 1200 apples and 34 pears. How many fruits?\nAnswer:", "1234"),),
    few_shot=FewShot(shots=SHOTS, turns="one", loss_on="last"),
)


def test_one_turn_is_written_as_the_harness_writes_it() -> None:
    """A blank before each answer and a blank line after it, of lm-evaluation-harness
    0.4.13; a blank that the data have is not doubled."""
    assert prompts.build_question(ITEM, 0) == (
        f"{COWS} 2 * 7 = 14.\n#### 14\n\n{EGGS} 18 / 2 = 9.\n#### 9\n\n{ITEM.input}"
    )
    spaced = FewShot(
        shots=(("It is ", "so"), ("It is", " so")), turns="one", loss_on="last"
    )
    assert prompts.build_question(structs.replace(ITEM, few_shot=spaced), 0) == (
        f"It is so\n\nIt is so\n\n{ITEM.input}"
    )
    assert "cows" not in prompts.embedding_text(ITEM, 0)


def test_shots_follow_positive_examples_under_a_definition() -> None:
    """They are numbered on, and as turns each asks in the same words under one definition."""
    defined = Example(
        id="task1:1",
        task="task1",
        turns=(("in", "out"),),
        definition="Do it",
        shots=(("published", "yes"),),
        few_shot=FewShot(shots=(("drawn", "no"),), turns="one", loss_on="last"),
    )
    tail = "Now complete the following example -\nInput: in.\nOutput: "
    assert prompts.build_question(defined, 1) == (
        "Definition: Do it.\n\n"
        " Positive Example 1 -\nInput: published.\n Output: yes.\n\n"
        f" Positive Example 2 -\nInput: drawn.\n Output: no.\n\n{tail}"
    )
    assert defined.few_shot is not None
    many = structs.replace(defined.few_shot, turns="many")
    shown = few_shot.show_last(structs.replace(defined, few_shot=many), 1)
    assert shown.turns == (("drawn", "no"), (tail, "out"))
    assert prompts.build_question(shown, 0).endswith(
        "Definition: Do it.\n\nNow complete the following example -\nInput:"
        " drawn.\nOutput: "
    )


class Words:
    """A tokenizer of whole words."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def tokenize(self, text: str) -> list[int]:
        """The number of each word, from 1."""
        return [
            self._known.setdefault(word, len(self._known) + 1) for word in text.split()
        ]

    def decode(self, ids: Any) -> str:
        """The words of numbers; `END` is a bar."""
        words = {number: word for word, number in self._known.items()}
        return " ".join(words.get(number, "|") for number in ids)


def encode(
    example: Example, max_length: int, words: Words, template: str = "zsg"
) -> EncodedExample:
    """As a train job encodes, by words."""
    how: dict[str, Any] = {
        "template": Template(template),
        "tokenize": words.tokenize,
        "bos": None,
        "eos": END,
    }

    def within(length: int) -> few_shot.Encode:
        return lambda given: prompts.encode_example(given, max_length=length, **how)

    return encode_with_shots(
        example,
        encode=within(max_length),
        encode_whole=within(10_000),
        max_length=max_length,
    )


def make_item(turns: str, loss_on: str, own: int = 1) -> Example:
    """An example with three shots."""
    shots = tuple((f"q{n} ", f"a{n}") for n in (1, 2, 3))
    asked = tuple((f"ask{n} ", f"say{n}") for n in range(own))
    drawn = FewShot(shots=shots, turns=turns, loss_on=loss_on)
    return Example(id="e", task="t", turns=asked, few_shot=drawn)


def learnt(encoded: EncodedExample, words: Words) -> list[str]:
    """The learnt stretches as text."""
    return [
        words.decode(encoded.ids[start:stop])
        for start, stop in encoded.target_spans("answer")
    ]


@pytest.mark.parametrize("template", ["zsg", "vicuna", "llama2", "plain"])
def test_what_is_learnt_is_the_last_answer_or_all(template: str) -> None:
    """In one turn and in many, under each template."""
    words = Words()
    seen: dict[tuple[str, str], list[str]] = {}
    for turns, loss_on in (("one", "last"), ("many", "last"), ("many", "answers")):
        encoded = encode(make_item(turns, loss_on), 200, words, template)
        seen[turns, loss_on] = learnt(encoded, words)
        text = words.decode(encoded.ids)
        assert text.index("a1") < text.index("q2") < text.index("ask0")
        assert encoded.cut == encoded.lost_shots == 0
    assert seen == {
        ("one", "last"): ["say0 |"],
        ("many", "last"): ["say0 |"],
        ("many", "answers"): ["a1 |", "a2 |", "a3 |", "say0 |"],
    }


def test_all_own_turns_of_a_dialogue_are_learnt() -> None:
    """The shots stand before the first of them."""
    words = Words()
    encoded = encode(make_item("many", "last", own=2), 200, words)
    assert learnt(encoded, words) == ["say0 |", "say1 |"]


@pytest.mark.parametrize("turns", ["one", "many"])
def test_cutting_leaves_out_whole_shots_from_the_front(turns: str) -> None:
    """At each length the example is whole, with the last shots that fit."""
    words = Words()
    whole = encode(make_item(turns, "last"), 200, words)
    bare = encode(structs.replace(make_item(turns, "last"), few_shot=None), 200, words)
    kept: list[int] = []
    for length in range(len(bare.ids), len(whole.ids) + 1):
        encoded = encode(make_item(turns, "last"), length, words)
        text = words.decode(encoded.ids).split()
        shown = [n for n in (1, 2, 3) if f"q{n}" in text]
        assert shown == [n for n in (1, 2, 3) if f"a{n}" in text]
        assert shown == [1, 2, 3][encoded.lost_shots :]
        assert learnt(encoded, words) == ["say0 |"]
        assert encoded.cut == len(whole.ids) - len(encoded.ids)
        kept.append(len(shown))
    assert kept == sorted(kept)
    assert set(kept) == {0, 1, 2, 3}


def test_an_example_that_is_too_long_alone_is_cut_as_ever() -> None:
    """Then it has no shots, and the rest is as without them."""
    words = Words()
    item = make_item("one", "last")
    long = structs.replace(item, turns=((" ".join(["long"] * 40), "say0"),))
    encoded = encode(long, 20, words)
    bare = encode(structs.replace(long, few_shot=None), 20, words)
    assert (encoded.ids, encoded.spans) == (bare.ids, bare.spans)
    assert encoded.lost_shots == 3
    assert encoded.cut > bare.cut


def test_what_is_drawn_stays_as_it_is() -> None:
    """The order of a pool, and who has shots, are frozen: kept corpora are made anew alike."""
    rule = FewShotRule(k=2, turns="one", loss_on="last", seed=7)
    assert list(rule.order_pool("digest", "task:1", 6)) == [1, 4, 2, 3, 5, 0]
    assert sorted(rule.order_pool("digest", "task:2", 50)) == list(range(50))


def test_the_definition_set_draws_instances(make: Make, tmp_path: Path) -> None:
    """Of Natural Instructions, whose examples share definition and positive examples."""
    write_niv2(tmp_path / "data", {"task1": task(6), "task9": task(2)})
    corpus = make(path=str(tmp_path / "data"), few_shot={"k": 2}, template="zsg")
    example = corpus.train[0]
    assert example.few_shot is not None
    question = prompts.build_question(example, 2)
    for text, _ in example.few_shot.shots:
        assert text in question
    assert "Positive Example 2" in question
