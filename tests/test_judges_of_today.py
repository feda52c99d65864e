"""Is every answer rated or counted as missing, whatever a judge of today does: think
first, refuse settings, be cut, say nothing?"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluating import judge as judges
from jobs.evaluating.judge import Judged, Kept, rate_requests
from jobs.evaluating.judging import JudgedAnswers
from jobs.runtime.refused_settings import find_refused
from tests.lib.fake_judge import Answer, FakeJudge, said
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.metrics.reasoning import part_reasoning
from zsg_core.settings.suites import JudgeSettings

Script = Callable[[str, int], Answer]
USAGE = {"prompt_tokens": 100, "completion_tokens": 20}


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict[str, Any]], Answer]], FakeJudge]]:
    """Makes judges that answer by the whole request, and that end with the test."""
    made: list[FakeJudge] = []

    def make(script: Callable[[dict[str, Any]], Answer]) -> FakeJudge:
        server = FakeJudge(lambda user, number: script(server.bodies[-1]))
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()


def request(number: int = 0) -> JudgeRequest:
    return JudgeRequest(
        id=f"q:{number}",
        task="t",
        system="Be fair.",
        user=f"answer {number}",
        answer=f"a{number}",
        prompt="p",
    )


def reply(message: dict[str, Any], finish: str = "stop", **more: Any) -> Answer:
    """A reply of the protocol's form."""
    choice = {"message": message, "finish_reason": finish}
    return 200, {}, json.dumps({"choices": [choice], **more}).encode()


def refuse(param: str | None, message: str, status: int = 400) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": param}
    return status, {}, json.dumps({"error": error}).encode()


def ask(server: FakeJudge, folder: Path, count: int = 1, **options: Any) -> Judged:
    """What a judge says of some answers, asked one after the other."""
    kept = Kept(folder / "ratings.jsonl")
    listed = [request(number) for number in range(count)]
    return rate_requests(listed, server.judge(**options), kept, workers=1)


def refuse_as_thinkers_do(body: dict[str, Any]) -> Answer:
    """A model of today: no temperature but its own, and the most tokens by a new name."""
    if "max_tokens" in body:
        return refuse(
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
            " 'max_completion_tokens' instead.",
        )
    if body.get("temperature", 1) != 1:
        return refuse(
            "temperature",
            "Unsupported value: 'temperature' does not support 0 with this model. Only"
            " the default (1) value is supported.",
        )
    return reply({"content": "Good. [[7]]"}, usage=USAGE)


def test_a_judge_that_refuses_settings_is_asked_as_it_takes_them(
    serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each refusal costs one request, not a rating; it is told once; what was sent stands
    beside each rating, and that the ratings were drawn in a flag, now and when they are
    read again."""
    server = serve(refuse_as_thinkers_do)
    judged = ask(server, tmp_path, 4)
    again = ask(server, tmp_path, 4)

    assert judged.ratings == again.ratings == {f"q:{n}": 7.0 for n in range(4)}
    assert server.asked.total() == 4 + 2
    assert caplog.text.count("takes no max_tokens: it is asked by") == 1
    assert caplog.text.count("takes no temperature: it is asked without one") == 1
    rows = (tmp_path / "ratings.jsonl").read_text().split("\n")
    settings = [json.loads(row)["settings"] for row in rows if row]
    assert settings == 4 * [{"max_completion_tokens": 2048}]
    assert judged.drawn == again.drawn == 4
    found = JudgedAnswers()
    found.add(4, again)
    assert "takes no temperature: 4 of 4 ratings" in found.list_flags()[0]


def test_a_judge_that_takes_no_most_of_tokens_at_all_is_refused(
    serve, tmp_path: Path
) -> None:
    """Without one a reply might be of any length and price."""
    server = serve(
        lambda body: refuse(
            "max_tokens" if "max_tokens" in body else "max_completion_tokens",
            "Unsupported parameter",
        )
    )
    judged = ask(server, tmp_path)

    assert judged.ratings == {}
    assert judged.reasons == {judges.REFUSED: 1}
    assert server.asked.total() == 2


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (refuse("temperature", "Unsupported value"), {"temperature"}),
        (refuse(None, "`temperature` is deprecated for this model."), {"temperature"}),
        (
            (422, {}, b'{"detail": "max_tokens: Extra inputs are not permitted"}'),
            {"max_tokens"},
        ),
        (refuse("messages", "Unsupported value"), set()),
        (refuse(None, "max_tokens is too large: 9000"), set()),
        (refuse(None, "the content filter refuses temperature talk"), set()),
        (refuse("temperature", "Unsupported value", 500), set()),
        ((400, {}, b"[" * 5000), set()),
        ((400, {}, b'{"error": {"param": ["temperature"], "message": 3}}'), set()),
    ],
)
def test_a_refused_setting_is_told_from_a_refused_question(
    answer: Answer, refused: set[str]
) -> None:
    """By the field or by the words; never a setting that was not sent."""
    status, _, body = answer
    sent = {"temperature": 0, "max_tokens": 2048}

    assert find_refused(status, body, sent) == refused


THOUGHT = {
    "before the rating": {"content": "<think>[[2]] or [[3]]?</think>\n\nFine: [[8]]"},
    "begun in the prompt": {"content": "Say [[2]]? No.</think> [[8]]"},
    "in marks of its own": {"content": "<thinking>[[1]]</thinking>[[8]]"},
    "as gpt-oss does": {
        "content": "<|channel|>analysis<|message|>[[1]]<|end|><|start|>assistant"
        "<|channel|>final<|message|>[[8]]"
    },
    "in a field": {"content": "[[8]]", "reasoning_content": "[[2]]"},
    "in a part": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "[[2]]"}]},
            {"type": "text", "text": "[[8]]"},
        ]
    },
    "about marks": {"content": "<think>a <think> b </think> [[2]] </think>[[8]]"},
}


@pytest.mark.parametrize("where", THOUGHT)
def test_a_rating_is_read_behind_what_the_judge_thought(
    serve, tmp_path: Path, where: str
) -> None:
    """A number that was only thought of is none."""
    judged = ask(serve(lambda body: reply(THOUGHT[where])), tmp_path)

    assert judged.ratings == {"q:0": 8.0}


WITHOUT = {
    "thinks to the end of its tokens": (
        reply({"content": "<think>perhaps [[9]]"}, "length"),
        judges.CUT,
    ),
    "thinks so in a field": (
        reply({"content": None, "reasoning_content": "[[9]]"}, "length"),
        judges.CUT,
    ),
    "only thinks": (reply({"content": "<think>[[9]]</think>"}), judges.ONLY_THOUGHT),
    "never ends to think": (reply({"content": "<think>[[9]]"}), judges.ONLY_THOUGHT),
    "is cut at a number of another kind": (
        reply({"content": "See [1], that"}, "length"),
        judges.CUT,
    ),
    "says nothing": (reply({"content": ""}), judges.EMPTY),
    "says no number": (reply({"content": "Good."}), judges.NO_RATING),
    "is off the scale": (reply({"content": "[[11]]"}), judges.OFF_SCALE),
    "says null": (reply({"content": None}), judges.NO_REPLY),
    "says no JSON": ((200, {}, b"<html>"), judges.NO_REPLY),
    "filters": ((400, {}, b"filtered"), judges.REFUSED),
    "declines": (reply({"content": None, "refusal": "I will not."}), judges.REFUSED),
    "filters its reply": (reply({"content": ""}, "content_filter"), judges.REFUSED),
}


@pytest.mark.parametrize("judge", WITHOUT)
def test_a_judge_that_gives_no_rating_gives_no_zero(
    serve, tmp_path: Path, judge: str
) -> None:
    """It is missing, counted by its reason, and told; the other answer is rated."""
    answer, kind = WITHOUT[judge]
    server = serve(
        lambda body: (
            answer
            if body["messages"][-1]["content"].endswith("0")
            else reply({"content": "[[5]]"})
        )
    )
    judged = ask(server, tmp_path, 2)
    found = JudgedAnswers()
    found.add(2, judged)

    assert judged.ratings == {"q:1": 5.0}
    assert judged.reasons == {kind: 1} and list(judged.missing) == ["q:0"]
    assert (
        f"gave 1 of 2 answers no rating, and these count for nothing: {kind} (1)"
        in (found.list_flags()[0])
    )


@pytest.mark.parametrize("judge", ["declines", "filters", "says no number"])
def test_what_a_judge_would_say_again_is_asked_for_once(
    serve, tmp_path: Path, judge: str
) -> None:
    """At temperature 0: each further request would cost as much, for the same."""
    server = serve(lambda body: WITHOUT[judge][0])
    assert ask(server, tmp_path).ratings == {}
    assert server.asked.total() == 1


@pytest.mark.parametrize(
    "message",
    [
        {"content": "<think>[[2]]</think>[[6]], as"},
        {"content": "[[6]], as", "reasoning_content": "[[2]]"},
    ],
)
def test_a_reply_that_was_cut_behind_its_rating_has_one(
    serve, tmp_path: Path, message: dict[str, Any]
) -> None:
    """Where its thought is over, the first in double brackets counts: nothing later could
    be before it."""
    judged = ask(serve(lambda body: reply(message, "length")), tmp_path)

    assert judged.ratings == {"q:0": 6.0}


def test_a_rating_in_a_cut_reply_that_may_be_all_thought_does_not_count(
    serve, tmp_path: Path
) -> None:
    """The template may have begun the thought in the prompt, and thoughts repeat how a
    rating is to be written: told as what it is, with what to raise."""
    text = 'It wants the format "Rating: [[5]]". Let me see whether'
    judged = ask(serve(lambda body: reply({"content": text}, "length")), tmp_path)

    assert judged.ratings == {}
    assert judged.reasons == {judges.CUT_WITHIN: 1}
    assert "judge.max_tokens" in judged.missing["q:0"]


@pytest.mark.parametrize("is_drawn", [False, True])
def test_a_reply_that_was_cut_is_asked_for_once_more_with_more_room(
    serve, tmp_path: Path, *, is_drawn: bool
) -> None:
    """It would be cut again there. One that is cut with more room is not asked for a
    third time; what it took, and what helps, is told."""

    def write(body: dict[str, Any]) -> Answer:
        if is_drawn and "temperature" in body:
            return refuse("temperature", "Unsupported")
        text = "On and on" if body["max_tokens"] < needed[0] else "[[4]]"
        return reply(
            {"content": text}, "stop" if "[" in text else "length", usage=USAGE
        )

    needed = [4096]
    server = serve(write)
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    judged = ask(server, tmp_path / "1")
    assert (judged.ratings, judged.widened) == ({"q:0": 4.0}, 1)
    assert judged.spent.requests == 2
    found = JudgedAnswers()
    found.add(1, judged)
    assert "1 of the judge's replies to 1 answers were cut" in found.list_flags()[0]
    assert "judge.max_tokens" in found.list_flags()[0]
    needed[0] = 5000
    judged = ask(server, tmp_path / "2")
    assert judged.reasons == {judges.CUT: 1}
    assert judged.missing["q:0"].startswith("cut at 4096 tokens before a rating; raise")
    assert judged.missing["q:0"].endswith(", 2 times")
    assert judged.spent.requests == 2


def test_a_judge_that_has_no_more_room_has_not_refused_the_answer(
    serve, tmp_path: Path
) -> None:
    """It stays one whose reply was cut, and the name of the setting is not learnt to be
    another."""

    def write(body: dict[str, Any]) -> Answer:
        if body["max_tokens"] > 3000:
            return refuse("max_tokens", "max_tokens may only be 3000 at most")
        return reply({"content": "On and on"}, "length")

    server = serve(write)
    judged = ask(server, tmp_path, 2)
    assert judged.reasons == {judges.CUT: 2}
    assert "a longer reply it refuses: HTTP 400" in judged.missing["q:0"]
    assert server.asked.total() == 4


def test_what_a_judge_took_is_counted_with_replies_that_gave_no_rating(
    serve, tmp_path: Path
) -> None:
    """Three tries at one answer, each drawn anew, are three replies; one without a count
    is told."""
    replies = iter(
        [
            reply({"content": "Hm."}, usage=USAGE),
            reply({"content": "Hm."}, usage={"prompt_tokens": -1}),
            reply({"content": "[[4]]"}, usage=USAGE),
        ]
    )

    def draw(body: dict[str, Any]) -> Answer:
        is_refused = "temperature" in body
        return refuse("temperature", "Unsupported") if is_refused else next(replies)

    judged = ask(serve(draw), tmp_path)
    spent = judged.spent

    assert (spent.requests, spent.read, spent.written) == (3, 200, 40)
    found = JudgedAnswers()
    found.add(1, judged)
    assert "did not say the tokens of 1 of 3 replies" in found.list_flags()[-1]


def test_a_judge_may_be_given_room_to_think(serve, tmp_path: Path) -> None:
    """Its longest reply is the grid's; what is as it was is not written into the job."""
    server = serve(lambda body: said(f"[[{body['max_tokens'] / 1000}]]"))

    assert ask(server, tmp_path, most_tokens=9000).ratings == {"q:0": 9.0}
    told = {"base_url": "https://j.example/v1", "model": "m", "prompts": "p"}
    as_before = JudgeSettings.model_validate(told).reached
    assert as_before == {"base_url": told["base_url"], "model": "m", "key_env": None}
    wider = JudgeSettings.model_validate({**told, "max_tokens": 9000})
    assert wider.reached == {**as_before, "max_tokens": 9000}


@pytest.mark.parametrize(
    ("text", "before", "answer", "is_open"),
    [
        ("<think>a</think>b<think>c</think>d", "", "bd", False),
        ("plain < text >", "", "plain < text >", False),
        ("all of it", "user: q\nassistant: <think>\n", "", True),
        ("so</think>\n\n  x = 1\n", "<think>\n", "  x = 1\n", False),
        ("said <think> on and on", "", "said ", True),
        ("", "", "", False),
    ],
)
def test_an_answer_is_what_stands_outside_the_marks(
    text: str, before: str, answer: str, is_open: bool
) -> None:
    """Blank lines behind a thought go with it, and no indentation does."""
    parted = part_reasoning(text, before=before)

    assert (parted.answer, parted.is_open) == (answer, is_open)


def test_many_marks_take_no_time_that_grows_with_their_square() -> None:
    """A hostile reply of as many bytes as are read."""
    assert part_reasoning("</think>" * 500_000 + "[[5]]").answer == "[[5]]"
    assert part_reasoning("<think>" * 500_000).is_open
