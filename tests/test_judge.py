"""Is an answer's rating what the judge said, asked for once, whatever the judge's server does?"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluating.judge import Judge, Kept, judge
from jobs.tracking.patience import Patience
from zsg_core.errors import ClusterError, UserError
from zsg_core.scores.mt_bench import Request

KEY = "sk-not-to-be-seen"
Answer = tuple[int, dict[str, str], bytes]  # status, headers, body


def said(text: Any) -> Answer:
    """A reply of the protocol's form."""
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


class FakeJudge:
    """A server on loopback that answers each question by its script, one entry a time, the last again and again."""

    def __init__(self, script: Callable[[str, int], Answer]) -> None:
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.script, self._lock = script, threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                user = body["messages"][1]["content"]
                with fake._lock:
                    number = fake.asked[user]
                    fake.asked[user] += 1
                    fake.bodies.append(body)
                    fake.keys.add(self.headers["Authorization"])
                status, headers, text = fake.script(user, number)
                if status == 0:  # hangs up
                    self.connection.close()
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass  # a client that no longer waits, a connection that the script closed

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def judge(self, **options: Any) -> Judge:
        patience = Patience(limit_s=options.pop("limit_s", 20), first_s=0.001, most_s=0.01)
        uri = f"http://127.0.0.1:{self.server.server_port}/v1"
        return Judge(**{"id": "gpt-test", "uri": uri, "key": KEY, "patience": patience} | options)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


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


def requests(count: int, answer: str = "a") -> list[Request]:
    return [
        Request(id=f"q:{n}", task="t", system="Be fair.", user=f"{answer} {n}", answer=f"{answer}{n}", prompt="p")
        for n in range(count)
    ]


def test_a_judge_is_asked_as_fastchat_asks_and_only_once(fake, tmp_path: Path) -> None:
    """Greedy, at most 2048 tokens; what was rated is not asked again, by this process or a later one."""
    server = fake(lambda user, number: said(f"Fine. [[{int(user[2:]) + 1}]]"))
    kept = Kept(tmp_path / "ratings.jsonl")
    first, again = (judge(requests(5), server.judge(), kept) for _ in range(2))
    later = judge(requests(5), server.judge(), Kept(tmp_path / "ratings.jsonl"))

    assert first.ratings == again.ratings == later.ratings == {f"q:{n}": n + 1 for n in range(5)}
    assert (first.asked, again.asked, later.asked, server.asked.total()) == (5, 0, 0, 5)
    assert server.bodies[0] | {"messages": []} == {
        "model": "gpt-test", "messages": [], "temperature": 0, "max_tokens": 2048,
    }  # fmt: skip
    assert server.bodies[0]["messages"][0] == {"role": "system", "content": "Be fair."}
    assert server.keys == {f"Bearer {KEY}"}


def test_another_answer_judge_or_prompt_is_asked_for(fake, tmp_path: Path) -> None:
    """Ratings are kept by all three."""
    server = fake(lambda user, number: said("[[5]]"))
    kept, one = Kept(tmp_path / "ratings.jsonl"), requests(1)
    judge(one, server.judge(), kept)
    other = [Request(id="q:0", task="t", system="Be fair.", user="a 0", answer="a0", prompt="else")]

    assert judge(requests(1, "b"), server.judge(), kept).asked == 1
    assert judge(one, server.judge(id="another"), kept).asked == 1
    assert judge(other, server.judge(), kept).asked == 1


TROUBLE = {
    "too many requests": (429, {"Retry-After": "0.01"}, b'{"error": "slow down"}'),
    "a server error": (500, {}, b"oops"),
    "an overloaded gateway": (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b""),
    "a connection that is closed": (0, {}, b""),
    "a reply that is no JSON": (200, {}, b"<html>"),
    "a reply without choices": (200, {}, b'{"choices": []}'),
    "a reply without a text": said(None),
    "a reply without a rating": said("I would rather not."),
    "a rating off the scale": said("[[0]]"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_passes_is_tried_again(fake, tmp_path: Path, trouble: str) -> None:
    """Twice in trouble, then well: a rating, not a gap."""
    server = fake(lambda user, number: TROUBLE[trouble] if number < 2 else said("[[9]]"))
    judged = judge(requests(3), server.judge(), Kept(tmp_path / "ratings.jsonl"))

    assert judged.ratings == {"q:0": 9, "q:1": 9, "q:2": 9}
    assert set(server.asked.values()) == {3}


def test_a_server_that_does_not_answer_in_time_is_asked_again(fake, tmp_path: Path) -> None:
    """A request that hangs is given up, not waited for."""

    def script(user: str, number: int) -> Answer:
        time.sleep(1 if number == 0 else 0)
        return said("[[3]]")

    judged = judge(requests(1), fake(script).judge(timeout_s=0.2), Kept(tmp_path / "ratings.jsonl"))

    assert judged.ratings == {"q:0": 3}


def test_what_stays_malformed_is_missing_and_not_zero(fake, tmp_path: Path) -> None:
    """One of three never gets a rating: it is named, with what was said, and asked for again the next time."""
    server = fake(lambda user, number: said("No comment." if user.endswith("1") else "[[8]]"))
    kept = Kept(tmp_path / "ratings.jsonl")
    judged = judge(requests(3), server.judge(), kept)

    assert judged.ratings == {"q:0": 8, "q:2": 8}
    assert judged.missing == {"q:1": "no rating from 1 to 10 in 'No comment.', 3 times"}
    assert judge(requests(3), server.judge(), kept).asked == 1


def test_a_question_that_the_judge_refuses_is_missing(fake, tmp_path: Path) -> None:
    """A content filter refuses one question, and only that; it is not asked again."""
    refusal = 400, {}, f'{{"error": "filtered, {KEY}"}}'.encode()
    server = fake(lambda user, number: refusal if user.endswith("0") else said("[[4]]"))
    judged = judge(requests(2), server.judge(), Kept(tmp_path / "ratings.jsonl"))

    assert judged.ratings == {"q:1": 4}
    assert judged.missing == {"q:0": 'HTTP 400 {"error": "filtered, …"}'}
    assert server.asked["a 0"] == 1


def test_a_judge_that_stays_away_ends_the_judging_with_what_is_rated_kept(fake, tmp_path: Path) -> None:
    """The error says so; the next call asks for the rest only."""
    is_up = [False]
    server = fake(lambda user, number: said("[[6]]") if is_up[0] or user.endswith("0") else (503, {}, b"down"))
    kept = Kept(tmp_path / "ratings.jsonl")

    with pytest.raises(ClusterError, match=r"did not answer for 0\.1 s: HTTP 503 down\. Ratings so far are kept"):
        judge(requests(4), server.judge(limit_s=0.1), kept)
    is_up[0] = True
    judged = judge(requests(4), server.judge(), Kept(kept.path))

    assert judged.ratings == {f"q:{n}": 6 for n in range(4)}
    assert judged.asked == 3


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((401, {}, f"bad key {KEY}".encode()), id="wrong key"),
        pytest.param((404, {}, b"no such model"), id="no such model"),
        pytest.param((302, {"Location": "http://127.0.0.1:9/"}, b""), id="a redirect, which would take the key along"),
    ],
)
def test_a_wrong_setting_is_told_at_once_and_without_the_key(fake, tmp_path: Path, answer: Answer) -> None:
    """It would be wrong for every question."""
    server = fake(lambda user, number: answer)
    with pytest.raises(UserError, match=f"HTTP {answer[0]}") as told:
        judge(requests(1), server.judge(), Kept(tmp_path / "ratings.jsonl"))

    assert KEY not in f"{told.value!r} {server.judge()!r}"
    assert server.asked.total() == 1


def test_the_key_is_not_in_the_file(fake, tmp_path: Path) -> None:
    """What is kept are digests, the rating and the reply."""
    judge(requests(1), fake(lambda user, number: said("[[2]]")).judge(), Kept(tmp_path / "ratings.jsonl"))
    (row,) = [json.loads(line) for line in (tmp_path / "ratings.jsonl").read_text().split("\n") if line]

    assert row == {
        "answer": "a0", "judge": "gpt-test", "prompt": "p", "id": "q:0", "rating": 2.0, "reply": "[[2]]",
    }  # fmt: skip


def test_a_file_that_was_cut_is_read_as_far_as_it_goes(fake, tmp_path: Path) -> None:
    """A job was killed while it wrote: the row is asked for again, and rows after it are whole."""
    server = fake(lambda user, number: said("[[7]]"))
    path = tmp_path / "ratings.jsonl"
    judge(requests(2), server.judge(), Kept(path))
    path.write_bytes(path.read_bytes()[:-20])
    judged = judge(requests(2), server.judge(), Kept(path))

    assert judged.asked == 1
    assert judge(requests(2), server.judge(), Kept(path)).asked == 0


def test_the_judge_comes_from_the_environment() -> None:
    """Without an address the error says which variable is meant."""
    made = Judge.from_environment("m", {"ZSG_JUDGE_URI": "http://127.0.0.1:1/v1/", "ZSG_JUDGE_KEY": KEY})

    assert (made.id, made.uri, made.key) == ("m", "http://127.0.0.1:1/v1", KEY)
    with pytest.raises(UserError, match="set ZSG_JUDGE_URI"):
        Judge.from_environment("m", {})
