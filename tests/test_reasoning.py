"""Is what a model thinks before its answer no part of what is scored, and is that told?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluating.scorers import Scorers
from launcher.grids import model_tokenizer
from tests.lib.model_folders import SMALL, write_tokenizer
from zsg_core import suites
from zsg_core.metrics import external_scores
from zsg_core.metrics.reasoning import (
    CHANNELS,
    cut_answers,
    find_answer,
    is_of_channels,
    part_reasoning,
)
from zsg_core.metrics.scoring import Answered
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import Suite

MARKS = ("<think>", "</think>")


def answered(text: str, number: int = 0, prompt: str = "User: 2 + 2?") -> Answered:
    return Answered(
        id=f"t:{number}", task="t", prompt=prompt, references=("4",), answer=text
    )


def select(of_tokenizer: tuple[str, str] | None = None, **settings: Any) -> Suite:
    """The suite of the run's own test set."""
    told = {"metrics": ["exact_match", "rouge1"], "snapshots": 5, **settings}
    checkpoints = CheckpointSettings.model_validate(told)
    [suite] = suites.select_suites(checkpoints, {}, reasoning=of_tokenizer)
    return suite


def test_the_tokenizers_own_marks_count_unless_the_grid_says_others() -> None:
    """Without either the way of answering is as it was, to the letter."""
    assert select(MARKS).marks == MARKS
    assert select(MARKS, reasoning=["[", "]"]).marks == ("[", "]")
    assert select(None, reasoning=["[", "]"]).marks == ("[", "]")
    assert select(MARKS, reasoning="whole").how == select().how
    assert "reasoning" not in select().how
    assert "reasoning" not in CheckpointSettings().model_dump()


def test_what_an_older_zsg_scored_with_its_reasoning_is_told_from_what_is_cut() -> None:
    """It is an older way, so that its values keep their key and new ones get `v2`."""
    now = select(MARKS).how
    before = {key: value for key, value in now.items() if key != "reasoning"}

    assert suites.is_older_way(before, now)
    assert not suites.is_older_way(now, before)


@pytest.mark.parametrize(
    ("added", "marks"),
    [
        ({}, None),
        ({"<think>": 258}, None),
        ({"<think>": 258, "</think>": 259}, ("<think>", "</think>")),
        ({"[THINK]": 258, "[/THINK]": 259}, ("[THINK]", "[/THINK]")),
        ({"<|channel|>": 258}, None),
        ({"<|channel|>": 258, "<|message|>": 259}, CHANNELS),
    ],
)
def test_a_tokenizer_with_both_tokens_has_marks(
    tmp_path: Path, added: dict[str, int], marks: tuple[str, str] | None
) -> None:
    """One token alone closes nothing."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    write_tokenizer(tmp_path, added)

    assert model_tokenizer.find_reasoning_marks(tmp_path) == marks


def test_the_answer_behind_the_thought_is_scored(tmp_path: Path) -> None:
    """Right behind a thought is right, in a thought alone it is not, and both are told."""
    made = Scorers(tmp_path / "ratings.jsonl", "cpu", {})
    suite = select(MARKS)
    answers = [
        answered("<think>5? No.</think>\n\n4", 0),
        answered("<think>It is 4", 1),
        answered("4", 2),
        answered("so it is 4", 3, prompt="User: 2 + 2? <think>\n"),
    ]
    scores, failed, _ = made.score(suite, object(), ["exact_match"], answers)  # type: ignore[arg-type]

    assert not failed
    by_item = scores.by_item["exact_match"]
    assert [by_item[f"t:{number}"] for number in range(4)] == [100, 0, 100, 0]
    assert scores.flags == [
        "3 of 4 answers have reasoning, which is cut before they are scored; in 2 it is not"
        " over, and what is left is scored: raise max_new_tokens"
    ]
    whole, _, _ = made.score(select(), object(), ["exact_match"], answers)  # type: ignore[arg-type]
    assert whole.values["exact_match"] == 25 and not whole.flags


def test_answers_that_go_elsewhere_are_cut_and_whole() -> None:
    """A scorer of the user's reads `answer`; nothing is lost."""
    answers = [answered("<think>5?</think>4"), answered("4", 1)]
    lines = external_scores.format_answers("r", 5, "test_set", answers, MARKS)
    rows = [json.loads(line) for line in lines]

    assert [row["answer"] for row in rows] == ["4", "4"]
    assert [row.get("whole") for row in rows] == ["<think>5?</think>4", None]
    assert cut_answers(answers, None).answers == answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b", "b"),
        ("a<think>b", "a"),
        ("<think>a</think>b<think>c", "b"),
        ("a</think>b", "b"),
        ("a", "a"),
    ],
)
def test_stops_are_looked_for_in_the_answer_alone(text: str, answer: str) -> None:
    """Behind the last thought, and before one that is not over."""
    begin, end = find_answer(text, MARKS)

    assert text[begin:end] == answer


@pytest.mark.engine
def test_a_stop_in_a_thought_ends_nothing() -> None:
    """Neither while the answer is made nor when it is cut."""
    from jobs.model.generate import cut_at_stops

    thought = "<think>Question: what?</think>It is 4. Question: 3 + 3?"
    assert cut_at_stops(thought, ["Question:"], MARKS) == (
        "<think>Question: what?</think>It is 4. "
    )
    assert cut_at_stops("<think>Question:", ["Question:"], MARKS) == "<think>Question:"
    assert cut_at_stops("<think>Question:", ["Question:"]) == "<think>"


@pytest.mark.engine
def test_a_stop_in_a_thought_that_began_in_the_prompt_ends_nothing() -> None:
    """Whether the thought is over or not; behind it a stop ends the answer."""
    from jobs.model.generate import cut_at_stops

    prompt = "user: 2 + 2?\nassistant: <think>\n"
    thought = "Question: what?"
    answer = f"{thought}</think>It is 4. Question:"
    stops = ["Question:"]
    assert cut_at_stops(thought, stops, MARKS, prompt) == thought
    assert cut_at_stops(thought, stops, MARKS, "assistant: ") == ""
    assert cut_at_stops(answer, stops, MARKS, prompt) == answer.removesuffix(stops[0])


@pytest.mark.engine
def test_marks_that_are_special_tokens_stand_in_texts() -> None:
    """Else what a model thinks could not be told from its answer."""
    from jobs.model.vocabulary import Vocabulary

    special = {"[THINK]": 7, "[/THINK]": 8}

    def text(ids: Sequence[int]) -> str:
        return "".join(chr(96 + one) for one in ids if one not in special.values())

    words = Vocabulary(lambda text: [], 0, 0, text, special.get)
    keeping = words.keeping(("[THINK]", "[/THINK]"))

    assert words.text([7, 1, 8, 2]) == "ab"
    assert keeping.text([7, 1, 8, 2]) == "[THINK]a[/THINK]b"
    assert words.keeping(("<think>", "</think>")) is words


@pytest.mark.engine
def test_channels_that_are_begun_by_special_tokens_stand_in_texts() -> None:
    """gpt-oss' marks are words between control tokens; the other ones stay hidden."""
    from jobs.model.vocabulary import Vocabulary

    special = {"<|channel|>": 7, "<|message|>": 8, "<|end|>": 9}
    spelt = {1: "analysis", 2: "final", 3: "No. ", 4: "assistant", 5: "4"}

    def text(ids: Sequence[int]) -> str:
        return "".join(spelt.get(one, "") for one in ids)

    words = Vocabulary(lambda text: [], 0, 0, text, special.get)
    said = words.keeping(CHANNELS).text([7, 1, 8, 3, 9, 4, 7, 2, 8, 5])

    assert said == f"{CHANNELS[0]}No. assistant{CHANNELS[1]}4"
    assert part_reasoning(said, [CHANNELS]).answer == "4"


STRIPPED = "analysisWe need 2 + 2. finalassistantfinalIt is 4."


def test_channels_without_their_control_tokens_are_parted_of_such_models_alone() -> (
    None
):
    """A decoder or a server took these out; of any other model the words are text."""
    parted = part_reasoning(STRIPPED, has_channels=True)
    assert (parted.answer, parted.had_reasoning) == ("It is 4.", True)
    assert part_reasoning(STRIPPED).answer == STRIPPED
    still = part_reasoning("analysisWe need", has_channels=True)
    assert (still.answer, still.is_open) == ("", True)
    for text in ("My analysis: assistantfinal", "It is 4.", ""):
        assert part_reasoning(text, has_channels=True).answer == text
    cut = cut_answers([answered(STRIPPED, 0), answered("4", 1)], CHANNELS)
    assert [one.answer for one in cut.answers] == ["It is 4.", "4"]
    assert cut_answers([answered(STRIPPED, 0)], MARKS).answers[0].answer == STRIPPED


@pytest.mark.parametrize(
    ("model", "has_channels"),
    [
        ("openai/gpt-oss-20b", True),
        ("GPT_OSS", True),
        ("gpt-4", False),
        ("gptossified", False),
    ],
)
def test_a_models_name_says_that_it_answers_in_channels(
    model: str, *, has_channels: bool
) -> None:
    """A judge is known by nothing else."""
    assert is_of_channels(model) == has_channels
