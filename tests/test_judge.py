"""Is an answer's rating what the judge said, asked for once, whatever the judge's server does?"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.contract.folder import Unreadable
from jobs.evaluating.judge import Judge, Kept, Rating, Said, rate_requests
from jobs.files import ownership
from jobs.runtime.chat_server import Completion
from tests.lib.fake_judge import KEY, Answer, FakeJudge, said
from zsg_core.errors import ClusterError, UserError
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.metrics.reasoning import Parted


@pytest.fixture
def fake() -> Iterator[Callable[[Callable[[str, int], Answer]], FakeJudge]]:
    """Makes judges that end with the test."""
    made: list[FakeJudge] = []

    def make(script: Callable[[str, int], Answer]) -> FakeJudge:
        made.append(FakeJudge(script))
        return made[-1]

    yield make
    for one in made:
        one.close()


def requests(count: int, answer: str = "a") -> list[JudgeRequest]:
    return [
        JudgeRequest(
            id=f"q:{n}",
            task="t",
            system="Be fair.",
            user=f"{answer} {n}",
            answer=f"{answer}{n}",
            prompt="p",
        )
        for n in range(count)
    ]


def test_a_judge_is_asked_as_fastchat_asks_and_only_once(fake, tmp_path: Path) -> None:
    """Greedy, at most 2048 tokens; what was rated is not asked again, by this process
    or a later one."""
    server = fake(lambda user, number: said(f"Fine. [[{int(user[2:]) + 1}]]"))
    kept = Kept(tmp_path / "ratings.jsonl")
    first, again = (rate_requests(requests(5), server.judge(), kept) for _ in range(2))
    later = rate_requests(requests(5), server.judge(), Kept(tmp_path / "ratings.jsonl"))

    assert (
        first.ratings
        == again.ratings
        == later.ratings
        == {f"q:{n}": n + 1 for n in range(5)}
    )
    assert (first.asked, again.asked, later.asked, server.asked.total()) == (5, 0, 0, 5)
    assert server.bodies[0] | {"messages": []} == {
        "model": "gpt-test",
        "messages": [],
        "temperature": 0,
        "max_tokens": 2048,
    }
    assert server.bodies[0]["messages"][0] == {"role": "system", "content": "Be fair."}
    assert server.keys == {f"Bearer {KEY}"}


def test_another_answer_judge_or_prompt_is_asked_for(fake, tmp_path: Path) -> None:
    """Ratings are kept by all three."""
    server = fake(lambda user, number: said("[[5]]"))
    kept, one = Kept(tmp_path / "ratings.jsonl"), requests(1)
    rate_requests(one, server.judge(), kept)
    other = [
        JudgeRequest(
            id="q:0",
            task="t",
            system="Be fair.",
            user="a 0",
            answer="a0",
            prompt="else",
        )
    ]

    assert rate_requests(requests(1, "b"), server.judge(), kept).asked == 1
    assert rate_requests(one, server.judge(id="another"), kept).asked == 1
    assert rate_requests(other, server.judge(), kept).asked == 1


TROUBLE = {
    "too many requests": (429, {"Retry-After": "0.01"}, b'{"error": "slow down"}'),
    "a server error": (500, {}, b"oops"),
    "a wait without an end": (503, {"Retry-After": "inf"}, b""),
    "a wait that is no time": (503, {"Retry-After": "nan"}, b""),
    "an overloaded gateway": (
        503,
        {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"},
        b"",
    ),
    "a connection that is closed": (0, {}, b""),
    "a reply that is no JSON": (200, {}, b"<html>"),
    "a reply without choices": (200, {}, b'{"choices": []}'),
    "a reply without a text": said(None),
    "an empty reply": said(""),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_passes_is_tried_again(fake, tmp_path: Path, trouble: str) -> None:
    """Twice in trouble, then well: a rating, not a gap."""
    server = fake(
        lambda user, number: TROUBLE[trouble] if number < 2 else said("[[9]]")
    )
    judged = rate_requests(
        requests(3), server.judge(), Kept(tmp_path / "ratings.jsonl")
    )

    assert judged.ratings == {"q:0": 9, "q:1": 9, "q:2": 9}
    assert set(server.asked.values()) == {3}


def test_a_server_that_does_not_answer_in_time_is_asked_again(
    fake, tmp_path: Path
) -> None:
    """A request that hangs is given up, not waited for."""

    def script(user: str, number: int) -> Answer:
        time.sleep(1 if number == 0 else 0)
        return said("[[3]]")

    judged = rate_requests(
        requests(1), fake(script).judge(timeout_s=0.2), Kept(tmp_path / "ratings.jsonl")
    )

    assert judged.ratings == {"q:0": 3}


def test_what_stays_malformed_is_missing_and_not_zero(fake, tmp_path: Path) -> None:
    """One of three never gets a rating: it is named, with what was said, and asked for
    again the next time. In between it is not, as a judge says the same at temperature 0."""
    server = fake(
        lambda user, number: said("No comment." if user.endswith("1") else "[[8]]")
    )
    kept = Kept(tmp_path / "ratings.jsonl")
    judged = rate_requests(requests(3), server.judge(), kept)

    assert judged.ratings == {"q:0": 8, "q:2": 8}
    assert judged.missing == {"q:1": "no rating from 1 to 10 in 'No comment.'"}
    assert set(server.asked.values()) == {1}
    assert rate_requests(requests(3), server.judge(), kept).asked == 1


def test_a_question_that_the_judge_refuses_is_missing(fake, tmp_path: Path) -> None:
    """A content filter refuses one question, and only that; it is not asked again."""
    refusal = 400, {}, f'{{"error": "filtered, {KEY}"}}'.encode()
    server = fake(lambda user, number: refusal if user.endswith("0") else said("[[4]]"))
    judged = rate_requests(
        requests(2), server.judge(), Kept(tmp_path / "ratings.jsonl")
    )

    assert judged.ratings == {"q:1": 4}
    assert judged.missing == {"q:0": 'HTTP 400 {"error": "filtered, …"}'}
    assert server.asked["a 0"] == 1


def test_a_judge_that_stays_away_ends_the_judging_with_what_is_rated_kept(
    fake, tmp_path: Path
) -> None:
    """The error says so; the next call asks for the rest only."""
    is_up = [False]
    server = fake(
        lambda user, number: (
            said("[[6]]") if is_up[0] or user.endswith("0") else (503, {}, b"down")
        )
    )
    kept = Kept(tmp_path / "ratings.jsonl")

    with pytest.raises(
        ClusterError,
        match=r"did not answer for 0\.1 s: HTTP 503 down\. Ratings so far are kept",
    ):
        rate_requests(requests(4), server.judge(limit_s=0.1), kept)
    is_up[0] = True
    judged = rate_requests(requests(4), server.judge(), Kept(kept.path))

    assert judged.ratings == {f"q:{n}": 6 for n in range(4)}
    assert judged.asked == 3


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((401, {}, f"bad key {KEY}".encode()), id="wrong key"),
        pytest.param((404, {}, b"no such model"), id="no such model"),
        pytest.param(
            (302, {"Location": "http://127.0.0.1:9/"}, b""),
            id="a redirect, which would take the key along",
        ),
    ],
)
def test_a_wrong_setting_is_told_at_once_and_without_the_key(
    fake, tmp_path: Path, answer: Answer
) -> None:
    """It would be wrong for every question."""
    server = fake(lambda user, number: answer)
    with pytest.raises(UserError, match=f"HTTP {answer[0]}") as told:
        rate_requests(requests(1), server.judge(), Kept(tmp_path / "ratings.jsonl"))

    assert KEY not in f"{told.value!r} {server.judge()!r}"
    assert server.asked.total() == 1


def test_the_key_is_not_in_the_file(fake, tmp_path: Path) -> None:
    """What is kept are digests, the rating, the reply and how it was asked for."""
    rate_requests(
        requests(1),
        fake(lambda user, number: said("[[2]]")).judge(),
        Kept(tmp_path / "ratings.jsonl"),
    )
    (row,) = [
        json.loads(line)
        for line in (tmp_path / "ratings.jsonl").read_text().split("\n")
        if line
    ]

    assert row == {
        "answer": "a0",
        "judge": "gpt-test",
        "prompt": "p",
        "id": "q:0",
        "rating": 2.0,
        "reply": "[[2]]",
        "settings": {"temperature": 0, "max_tokens": 2048},
        "read": None,
        "written": None,
    }


def test_a_file_that_was_cut_is_read_as_far_as_it_goes(fake, tmp_path: Path) -> None:
    """A job was killed while it wrote: the row is asked for again, and rows after it are whole."""
    server = fake(lambda user, number: said("[[7]]"))
    path = tmp_path / "ratings.jsonl"
    rate_requests(requests(2), server.judge(), Kept(path))
    path.write_bytes(path.read_bytes()[:-20])
    judged = rate_requests(requests(2), server.judge(), Kept(path))

    assert judged.asked == 1
    assert rate_requests(requests(2), server.judge(), Kept(path)).asked == 0


def test_the_key_comes_from_the_variable_that_the_grid_names() -> None:
    """Which must be set; a judge without a key needs none."""
    how = {"model": "m", "base_url": "http://127.0.0.1:1/v1/", "key_env": "THE_KEY"}
    made = Judge.of(how, {"THE_KEY": KEY})

    assert (made.id, made.uri, made.key) == ("m", "http://127.0.0.1:1/v1", KEY)
    assert Judge.of(how | {"key_env": None}, {}).key == ""
    with pytest.raises(UserError, match="THE_KEY, which checkpoints"):
        Judge.of(how, {})


@pytest.mark.parametrize(("is_group", "mode"), [(True, 0o660), (False, 0o600)])
def test_ratings_are_for_the_group_whose_workspace_it_is(
    tmp_path: Path, is_group: bool, mode: int
) -> None:
    """Every member reads and adds to them, also to those that an older zsg made for one
    alone; elsewhere they are their owner's."""
    [request] = requests(1)
    path = tmp_path / "ratings.jsonl"
    if is_group:
        ownership.open_to_group(tmp_path)
        path.touch(mode=0o600)
    said_so = Said(Completion("[[7]]", settings={"temperature": 0}), Parted("[[7]]"))
    Kept(path).add("judge", request, 7.0, said_so)

    assert path.stat().st_mode & 0o777 == mode
    assert Kept(path).get("judge", request) == Rating(7.0)
    path.unlink()
    path.mkdir()
    with pytest.raises(Unreadable, match=r"ratings\.jsonl: Is a directory"):
        Kept(path)
