"""Are MT-Bench's judge prompts and ratings those of FastChat?"""

import json
from pathlib import Path

import pytest

from zsg_core.data.examples import Example
from zsg_core.data.readers.evaluation import read_mt_bench
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import BadData
from zsg_core.metrics import mt_bench
from zsg_core.metrics.mt_bench import JudgePrompt
from zsg_core.metrics.scoring import Answered


@pytest.fixture(scope="module")
def questions(real_data: Path) -> list[Example]:
    return list(read_mt_bench(real_data / "mt_bench" / "mt_bench", Intake()))


@pytest.fixture(scope="module")
def prompts(real_data: Path) -> dict[str, JudgePrompt]:
    return mt_bench.read_judge_prompts(real_data / "mt_bench" / "judge_prompts.jsonl")


def answered(
    questions: list[Example], turns: tuple[int, ...] = (1, 2)
) -> list[Answered]:
    """An answer with braces to every turn."""
    return [
        Answered(
            id=f"{one.id}:{turn}",
            task=one.task,
            prompt="p",
            answer=f"{{answer}} {turn} to {one.id}",
        )
        for one in questions
        for turn in turns
    ]


@pytest.mark.data
def test_every_turn_is_judged_with_the_prompt_of_its_category(
    questions: list[Example], prompts: dict[str, JudgePrompt]
) -> None:
    """160 requests; mathematics, reasoning and coding beside GPT-4's answers, the
    second turn beside the first."""
    made = {
        one.id: one
        for one in mt_bench.build_requests(questions, prompts, answered(questions))
    }
    maths = next(one for one in questions if one.task == "math")
    writing = next(one for one in questions if one.task == "writing")
    (first, gpt4), (second, gpt4_second) = maths.turns

    assert len(made) == 160
    assert made[f"{writing.id}:1"].system == "You are a helpful assistant."
    assert made[f"{writing.id}:1"].user.endswith(
        f"[Question]\n{writing.turns[0][0]}\n\n[The Start of Assistant's Answer]\n{{answer}} 1 to"
        f" {writing.id}\n[The End of Assistant's Answer]"
    )
    assert (
        f"[The Start of Reference Answer]\n{gpt4}\n[The End of Reference Answer]"
        in made[f"{maths.id}:1"].user
    )
    assert (
        made[f"{maths.id}:2"].user
        == f"<|The Start of Reference Answer|>\n\n### User:\n{first}\n\n### Reference"
        f" answer:\n{gpt4}\n\n### User:\n{second}\n\n### Reference"
        f" answer:\n{gpt4_second}\n\n<|The End of Reference Answer|>\n\n\n<|The Start of"
        f" Assistant A's Conversation with User|>\n\n### User:\n{first}\n\n### Assistant"
        f" A:\n{{answer}} 1 to {maths.id}\n\n### User:\n{second}\n\n### Assistant A:\n{{answer}}"
        f" 2 to {maths.id}\n\n<|The End of Assistant A's Conversation with User|>"
    )


@pytest.mark.data
def test_a_turn_that_cannot_be_judged_is_left_out(
    questions: list[Example], prompts: dict[str, JudgePrompt]
) -> None:
    """Without its answer, or that before it, there is no request, and so no rating."""
    asked = [
        len(mt_bench.build_requests(questions, prompts, answered(questions, turns)))
        for turns in [(1,), (2,), ()]
    ]

    assert asked == [80, 0, 0]


@pytest.mark.data
def test_digests_tell_answers_and_prompts_apart(
    questions: list[Example], prompts: dict[str, JudgePrompt]
) -> None:
    """Another answer changes the one, another prompt the other; nothing else does."""
    changed = {
        name: JudgePrompt(one.name, "Be strict.", one.prompt_template)
        for name, one in prompts.items()
    }
    answers = answered(questions[:1])
    other = [
        Answered(id=one.id, task=one.task, prompt="p", answer="else") for one in answers
    ]
    base, same, said, asked = (
        mt_bench.build_requests(questions[:1], given, told)
        for given, told in [
            (prompts, answers),
            (prompts, list(answers)),
            (prompts, other),
            (changed, answers),
        ]
    )

    assert base == same
    assert all(
        a.answer != b.answer and a.prompt == b.prompt
        for a, b in zip(base, said, strict=True)
    )
    assert all(
        a.answer == b.answer and a.prompt != b.prompt
        for a, b in zip(base, asked, strict=True)
    )
    assert base[0].answer != base[1].answer and base[0].prompt != base[1].prompt


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("Good. Rating: [[7]]", 7),
        ("Rating: [[8.5]] and [[2]]", 8.5),
        ("Rating: [6]", 6),
        ("[1] first, then [[9]]", 9),
        ("Rating: 7", None),
        ("Rating: [[0]]", None),
        ("Rating: [[100]]", None),
        ("[[rating]]", None),
        ("", None),
    ],
)
def test_a_rating_is_read_as_fastchat_reads_it(reply: str, value: float | None) -> None:
    """Double brackets before single ones, the first of them; nothing outside the scale
    of 1 to 10."""
    assert mt_bench.read_rating(reply) == value


def test_a_turn_counts_the_mean_of_its_conversations() -> None:
    """As the paper's average of three runs; what was not rated in one of them counts by
    the others."""
    found = mt_bench.score_ratings(
        [{"q:1": 7, "q:2": 2}, {"q:1": 8}, {"q:1": 9, "q:2": 4}]
    )

    assert found == {"mt_bench": {"q:1": 8, "q:2": 3}}


def test_a_turn_is_asked_after_what_the_model_said() -> None:
    """The second turn of a dialogue holds the model's first answer, not GPT-4's."""
    question = Example(
        id="mt_bench/1", task="math", turns=(("2+2?", "4"), ("And 3?", "7"))
    )
    first, second = (
        mt_bench.build_turn(question, []),
        mt_bench.build_turn(question, ["five"]),
    )

    assert (first.id, first.turns) == ("mt_bench/1:1", (("2+2?", "4"),))
    assert (second.id, second.turns) == (
        "mt_bench/1:2",
        (("2+2?", "five"), ("And 3?", "7")),
    )


def test_what_cannot_be_judged_fairly_is_refused(tmp_path: Path) -> None:
    """A question of mathematics without a reference answer; a file without FastChat's prompts."""
    names = set(mt_bench.NAMES.values())
    prompts = {
        name: JudgePrompt(
            name, "s", "{question_1}" if "multi" in name else "{question}"
        )
        for name in names
    }
    question = Example(id="mt_bench/1", task="math", turns=(("2+2?", ""),))
    answer = Answered(id="mt_bench/1:1", task="math", prompt="p", answer="4")
    row = {"name": "single-v1", "system_prompt": "s", "prompt_template": "t"}
    (tmp_path / "judge_prompts.jsonl").write_text(json.dumps(row))

    with pytest.raises(BadData, match=r"mt_bench/1: .* reference answer"):
        mt_bench.build_requests([question], prompts, [answer])
    with pytest.raises(BadData, match="no prompt named single-math-v1, "):
        mt_bench.read_judge_prompts(tmp_path / "judge_prompts.jsonl")


def write_prompts(path: Path, **templates: str) -> Path:
    """A file with the four prompts that grade single answers, some with other
    templates; the first is `single-v1`."""
    names = sorted(mt_bench.NAMES.values(), key=len)
    rows = [
        {
            "name": name,
            "system_prompt": "s",
            "prompt_template": templates.get(name, "t"),
        }
        for name in names
    ]
    path.write_text(
        "\n".join(
            map(
                json.dumps,
                [*rows, {**rows[0], "name": "pair-v2", "prompt_template": "{0.x}"}],
            )
        )
    )
    return path


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{question.__class__}",
            r"has \{question\.__class__\}; its fields are \{answer\}, \{answer_1\}, \{question\}",
        ),
        ("{question[0]}", r"has \{question\[0\]\}"),
        ("{question:>1000000000}", r"has \{question:>1000000000\}"),
        ("{question:{answer}}", r"has \{question:\{answer\}\}"),
        ("{question!r}", r"has \{question!r\}"),
        ("{ref_answer_1}", r"has \{ref_answer_1\}"),
        ("{answer_2}", r"has \{answer_2\}"),
        ("{}", r"has \{\}"),
        ("{0}", r"has \{0\}"),
        (
            "{question",
            "expected '}' before end of string; write braces that are text twice",
        ),
        (
            "a } b",
            "Single '}' encountered in format string; write braces that are text twice",
        ),
    ],
)
def test_a_judges_prompt_has_plain_fields_only(
    tmp_path: Path, template: str, said: str
) -> None:
    """Anything else is refused with file and line: Python's own format would look into
    objects and fill memory."""
    file = write_prompts(tmp_path / "judge_prompts.jsonl", **{"single-v1": template})
    with pytest.raises(
        BadData, match=rf"judge_prompts\.jsonl:1: prompt_template of single-v1.*{said}"
    ):
        mt_bench.read_judge_prompts(file)


def test_braces_written_twice_are_text_and_answers_are_never_filled(
    tmp_path: Path,
) -> None:
    """As published prompts write their JSON; what a model answers stays as it is."""
    template = '{{"q": "{question}"}} {answer}'
    prompts = mt_bench.read_judge_prompts(
        write_prompts(tmp_path / "p.jsonl", **{"single-v1": template})
    )
    question = Example(id="q", task="writing", turns=(("2+2?", ""),))
    [asked] = mt_bench.build_requests(
        [question],
        prompts,
        [Answered(id="q:1", task="w", prompt="", answer="{question} }} {")],
    )

    assert asked.user == '{"q": "2+2?"} {question} }} {'
    prompts["single-v1"] = JudgePrompt("single-v1", "s", "{question:>1000000000}")
    with pytest.raises(
        BadData, match=r"has \{question:>1000000000\}, which is none of its fields"
    ):
        mt_bench.build_requests(
            [question], prompts, [Answered(id="q:1", task="w", prompt="", answer="a")]
        )
