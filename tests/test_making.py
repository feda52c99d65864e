"""Are data made once for what they depend on, by as few requests as there are, whatever
the server does and whoever kills the job?"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.asking import name_asking
from jobs.contract.folder import Workspace, is_whole
from jobs.contract.job_file import ServerToAsk
from jobs.contract.prepared import read_records_meta
from jobs.preparing import asked_server, making, reading_notes
from jobs.preparing.asked_server import AskedServer, Budget
from jobs.preparing.records import Records
from jobs.preparing.reply_log import LOG, LoggedReply, ReplyLog
from jobs.runtime.chat_server import ChatServer
from tests.lib.fake_judge import KEY, Answer, FakeJudge
from zsg_core import recipe as recipes
from zsg_core.errors import ClusterError, UserError
from zsg_core.makers.registry import Request, Sampling
from zsg_core.recipe import InputDigests, ModelDigests, Recipe, SourceDigests
from zsg_core.retry import ExponentialBackoff
from zsg_core.settings.run import Settings

PROBLEMS = 6
SAMPLES = 3
SERVED = {"base_url": "http://127.0.0.1:1/v1", "model": "teacher"}
Script = Callable[[str, int], Answer]


def settings(make: dict[str, Any], **others: Any) -> Settings:
    """A run of math that is made, beside a task that is tested."""
    data = {
        "sources": {
            "task": {"set": "messages", "path": "t", "test_path": "e"},
            "math": {"set": "gsm8k", "path": "m", "make": make},
        }
    }
    model = {"name": "base", "path": "b"}
    return Settings.model_validate({"data": data, "model": model, **others})


def source_of(wanted: Settings, data: str = "m", asked: str | None = None) -> Recipe:
    """The recipe of the made source."""
    of_folder = {} if asked is None else {"math": ModelDigests(model=asked)}
    digests = InputDigests(
        sources={
            "task": SourceDigests(data="t", test="e"),
            "math": SourceDigests(data=data),
        },
        model="b",
        asked=of_folder,
    )
    made = recipes.make_recipe(wanted, digests)
    return made["stages"][-1]["data"]["sources"]["math"]


def set_id(wanted: Settings, **digests: str) -> str:
    """The id of the set that is made."""
    return recipes.records_id(source_of(wanted, **digests), False)


def test_a_set_is_known_by_all_that_it_depends_on_and_nothing_else() -> None:
    """Problems, model, how they are asked and what is kept; not address, price, budget,
    and not what is trained with it."""
    one = set_id(settings({"rft": {}, "by": SERVED}))
    same = [
        settings({"rft": {}, "by": {**SERVED, "base_url": "https://other.example/v1"}}),
        settings({"rft": {}, "by": {**SERVED, "at_once": 2}}),
        settings(
            {
                "rft": {},
                "by": {**SERVED, "price_read": 1, "price_written": 2, "budget": 3},
            }
        ),
        settings({"rft": {}, "by": SERVED}, seed=5),
        settings({"rft": {}, "by": SERVED}, train={"lr": 1.0, "precision": "fp32"}),
    ]
    other = [
        set_id(settings({"rft": {}, "by": {**SERVED, "model": "another"}})),
        set_id(settings({"rft": {"samples": 4}, "by": SERVED})),
        set_id(settings({"rft": {"gold": False}, "by": SERVED})),
        set_id(settings({"rft": {"seed": 1}, "by": SERVED})),
        set_id(settings({"rft": {}, "by": SERVED}), data="n"),
        set_id(settings({"rft": {}})),
        set_id(settings({"rft": {}, "by": {"path": "f"}}), asked="f"),
        set_id(settings({"rft": {}, "by": {"path": "f"}}), asked="g"),
        set_id(
            settings({"rft": {}, "by": {"path": "f", "template": "plain"}}), asked="f"
        ),
    ]

    assert {set_id(each) for each in same} == {one}
    assert len({one, *other}) == 10


def test_the_runs_own_model_is_asked_by_its_content() -> None:
    """A model of that content in a folder is the same model, under another name of the
    run's recipe; no server's model has a template or a precision."""
    own = source_of(settings({"rft": {}}))["make"]
    served = source_of(settings({"rft": {}, "by": SERVED}))["make"]

    assert (own["model"], own["template"], "by" in own) == ("b", {"name": "zsg"}, False)
    assert (served["by"], "template" in served) == ({"served": "teacher"}, False)


def test_sets_that_differ_in_what_is_kept_share_their_replies() -> None:
    """How numbers are read is decided later than what is asked."""

    def asking(**rft: Any) -> str:
        source = source_of(settings({"rft": rft, "by": SERVED}))
        return name_asking(source, making.MAKERS["rft"])

    assert asking() == asking(read="last", gold=False)
    assert len({asking(), asking(samples=4), asking(wording="Be brief.")}) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ({}, "needs one maker"),
        ({"by": SERVED}, "needs one maker"),
        ({"rft": {}, "by": {}}, "give `path`"),
        ({"rft": {}, "by": {**SERVED, "path": "f"}}, "both say who is asked"),
        ({"rft": {}, "by": {"base_url": "http://x/v1"}}, "needs `model`"),
        ({"rft": {}, "by": {"path": "f", "at_once": 2}}, "is of a server"),
        ({"rft": {}, "by": {**SERVED, "template": "chat"}}, "a server has its own"),
        ({"rft": {}, "by": {**SERVED, "budget": 1}}, "needs `price_read`"),
        ({"rft": {}, "by": {**SERVED, "price_read": 1}}, "go together"),
        ({"rft": {}, "by": {**SERVED, "base_url": "http://u:p@x/v1"}}, "key_env"),
        ({"rft": {}, "by": {**SERVED, "key_env": "AWS_TOKEN"}}, "key_env"),
        (
            {
                "rft": {},
                "by": {
                    "base_url": "http://x.example/v1",
                    "model": "m",
                    "key_env": "X_API_KEY",
                },
            },
            "base_url",
        ),
        ({"rft": {"temperature": 0}}, "greater"),
    ],
)
def test_what_cannot_be_made_is_refused(make: dict[str, Any], said: str) -> None:
    """With the reason, before anything is planned."""
    with pytest.raises(ValueError, match=said):
        settings(make)


def write_problems(folder: Path) -> Path:
    """Problems whose answer is ten times their number."""
    path = folder / "math.jsonl"
    rows = [
        {
            "question": f"What is {number} times 10?",
            "answer": f"It is <<{number}*10={number * 10}>>.\n#### {number * 10}",
        }
        for number in range(1, PROBLEMS + 1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reply(text: Any, end: str = "stop", **usage: int) -> Answer:
    """A reply of the protocol's form, with what it cost."""
    choice = {"message": {"content": text}, "finish_reason": end}
    counted = {"prompt_tokens": 10, "completion_tokens": 5} | usage
    body = {"choices": [choice], "usage": counted}
    return 200, {}, json.dumps(body).encode()


def solve(question: str, sample: int) -> Answer:
    """The first sample by one equation, the second by another, the third wrongly."""
    number = int(question.split()[2])
    if sample % SAMPLES == 2:
        return reply(f"So {number}.\n#### {number}")
    left, right = (number, 10) if sample % SAMPLES else (10, number)
    return reply(f"<<{left}*{right}={number * 10}>>\n#### {number * 10}")


def stumble(question: str, sample: int) -> Answer:
    """The same, after each kind of trouble once: busy, failing, hung up, torn."""
    trouble: list[Answer] = [
        (429, {"Retry-After": "0"}, b"slow down"),
        (500, {}, b"oops"),
        (0, {}, b""),
        (-1, {}, solve(question, 0)[2]),
        (200, {}, b'{"choices": [{"mess'),
    ]
    if sample < len(trouble):
        return trouble[sample]
    return solve(question, sample - len(trouble))


class Endpoint(FakeJudge):
    """A server on loopback, and how a maker asks it."""

    def asker(self, limit_s: float = 5, **settings: Any) -> AskedServer:
        """What asks it, with short pauses."""
        to_ask = ServerToAsk(
            base_url=self.uri, model="teacher", **{"at_once": 1, **settings}
        )
        waits = ExponentialBackoff(limit_s=limit_s, first_s=0.001, longest_s=0.01)
        return AskedServer(
            ChatServer("teacher", self.uri, KEY, retry_policy=waits), to_ask
        )


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Endpoint]]:
    """Starts servers that follow a script."""
    started: list[Endpoint] = []

    def start(script: Script) -> Endpoint:
        started.append(Endpoint(script))
        return started[-1]

    yield start
    for endpoint in started:
        endpoint.close()


class Making:
    """A set that is made in a workspace of its own."""

    def __init__(self, folder: Path, **rft: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.workspace = Workspace(folder / "work")
        self.path = write_problems(folder)
        files = [self.path]
        hashes = making.content.sha256_of(files)
        digest = making.content.folder_digest(self.path, files, hashes)
        wanted = settings({"rft": {"samples": SAMPLES, **rft}, "by": SERVED})
        self.source = source_of(wanted, data=digest)
        self.id = recipes.records_id(self.source, False)

    @property
    def folder(self) -> Path:
        return self.workspace.records(self.id)

    @property
    def log(self) -> Path:
        asking = name_asking(self.source, making.MAKERS["rft"])
        return self.workspace.replies(asking) / LOG

    def make(self, asker: AskedServer) -> "Making":
        making.make_examples(self.workspace, self.id, self.source, self.path, asker)
        return self

    def answers(self) -> list[tuple[str, str]]:
        return [(example.id, example.answer) for example in Records(self.folder)]


def test_right_answers_become_the_records_of_the_source(serve, tmp_path: Path) -> None:
    """With the recipe of their making and every refusal counted."""
    endpoint = serve(solve)
    made = Making(tmp_path).make(endpoint.asker(price_read=1, price_written=2))
    meta = json.loads((made.folder / "meta.json").read_text())
    facts = read_records_meta(made.folder)

    assert len(made.answers()) == 3 * PROBLEMS
    assert made.answers()[1][1] == "<<10*1=10>>\n#### 10"
    assert meta["make"] == made.source["make"]
    assert facts is not None and facts.made is not None
    assert reading_notes.describe_records(facts) == [
        "rft made 18 examples of 6 items by 18 requests to teacher at"
        f" {endpoint.uri}: 180 tokens read and 90 written, at a cost of 0.00036; problems"
        " asked 6, problems with a right answer 6, right answers kept 12",
        "rft refused 6: another number than the problem's answer",
    ]


def test_trouble_changes_nothing_of_the_set(serve, tmp_path: Path) -> None:
    """A server that limits, fails, hangs up and tears its replies is asked until it
    replies, and no more often."""
    calm = Making(tmp_path / "calm").make(serve(solve).asker())
    endpoint = serve(stumble)
    troubled = Making(tmp_path / "troubled").make(endpoint.asker(at_once=1))

    assert troubled.answers() == calm.answers()
    assert set(endpoint.asked.values()) == {5 + SAMPLES}
    assert endpoint.keys == {f"Bearer {KEY}"}
    assert KEY not in troubled.log.read_text()


class Killed(BaseException):
    """What a kill is to a process."""


def solve_by_seed(endpoint: Endpoint) -> Script:
    """The sample that the request's seed names, as servers do that know it."""

    def script(question: str, _: int) -> Answer:
        return solve(question, endpoint.bodies[-1]["seed"])

    return script


def test_a_killed_job_makes_the_same_set_and_asks_nothing_twice(
    serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed twice, each time with a reply that is lost, and a line that is torn."""
    endpoint = serve(solve)
    endpoint.script = solve_by_seed(endpoint)
    calm = Making(tmp_path / "calm").make(endpoint.asker(seeds=True))
    endpoint.asked.clear()
    killed = Making(tmp_path / "killed")
    keep = ReplyLog.add

    def die_after(count: int) -> Callable[..., None]:
        def add(log: ReplyLog, replies: Sequence[LoggedReply]) -> None:
            if len(log) >= count:
                raise Killed
            keep(log, replies)

        return add

    for count in (4, 11):
        monkeypatch.setattr(ReplyLog, "add", die_after(count))
        with pytest.raises(Killed):
            killed.make(endpoint.asker(seeds=True))
        with killed.log.open("ab") as file:
            file.write(b'{"request": "tor')
        assert not is_whole(killed.folder)
    monkeypatch.setattr(ReplyLog, "add", keep)
    killed.make(endpoint.asker(seeds=True))

    assert killed.answers() == calm.answers()
    # but for the two that were under way when it was killed
    assert endpoint.asked.total() == PROBLEMS * SAMPLES + 2
    assert len(killed.log.read_bytes().splitlines()) == PROBLEMS * SAMPLES


def test_another_reading_of_the_same_replies_asks_nobody(serve, tmp_path: Path) -> None:
    """And a set that is there is not made again."""
    endpoint = serve(solve)
    Making(tmp_path).make(endpoint.asker()).make(endpoint.asker())
    other = Making(tmp_path, gold=False).make(endpoint.asker())

    assert len(other.answers()) == 2 * PROBLEMS
    assert endpoint.asked.total() == PROBLEMS * SAMPLES


def test_what_a_server_refuses_is_counted(serve, tmp_path: Path) -> None:
    """A request that it will not answer, one that it never answers with a text, and
    replies that are cut; the other items are made all the same."""

    def script(question: str, sample: int) -> Answer:
        number = int(question.split()[2])
        if number == 1:
            return 400, {}, f"no, {KEY}".encode()
        if number == 2:
            return reply(None)
        if number == 3:
            return reply("#### 30", end="length")
        return solve(question, sample)

    endpoint = serve(script)
    made = Making(tmp_path).make(endpoint.asker())
    facts = read_records_meta(made.folder)

    assert facts is not None and facts.made is not None
    assert facts.made.refused == {
        "refused by the server (HTTP 400)": SAMPLES,
        asked_server.NO_TEXT: SAMPLES,
        "not over after max_new_tokens": SAMPLES,
        "another number than the problem's answer": 3,
    }
    asked = Counter(int(each.split()[2]) for each in endpoint.asked.elements())
    assert (asked[1], asked[2], asked[3]) == (3, 3 * asked_server.ATTEMPTS, 3)
    assert KEY not in made.log.read_text()


def test_a_server_that_refuses_everything_is_set_up_wrongly(
    serve, tmp_path: Path
) -> None:
    """The job ends with what it says, and nothing of it is kept for good."""
    endpoint = serve(lambda question, sample: (400, {}, b"no such field: seed"))
    made = Making(tmp_path)
    with pytest.raises(UserError, match=r"none of the first 5.*no such field: seed"):
        made.make(endpoint.asker(seeds=True))
    endpoint.script = solve
    made.make(endpoint.asker())

    assert len(made.answers()) == 3 * PROBLEMS


def test_a_server_that_stays_away_ends_the_job_and_loses_nothing(
    serve, tmp_path: Path
) -> None:
    """What it has replied is not asked for again."""
    is_away = threading.Event()

    def script(question: str, sample: int) -> Answer:
        if is_away.is_set() and "3" in question:
            return 503, {}, b"down"
        return solve(question, sample)

    is_away.set()
    endpoint = serve(script)
    made = Making(tmp_path)
    with pytest.raises(ClusterError, match="submit again later"):
        made.make(endpoint.asker(limit_s=0.01))
    before = endpoint.asked.copy()
    is_away.clear()
    made.make(endpoint.asker())

    assert len(made.log.read_bytes().splitlines()) == PROBLEMS * SAMPLES
    assert endpoint.asked["What is 1 times 10?"] == before["What is 1 times 10?"] == 3


def test_a_budget_is_never_exceeded(serve, tmp_path: Path) -> None:
    """The job ends before the request that could, and goes on with a larger one."""
    endpoint = serve(solve)
    made = Making(tmp_path, max_new_tokens=5)
    prices = {"price_read": 1e6, "price_written": 1e6}
    # a request is of 19 bytes and 16 tokens around them, and costs 15 of these
    with pytest.raises(
        UserError, match="budget is 100, and 75 is spent with 13 requests"
    ):
        made.make(endpoint.asker(budget=100, **prices))
    made.make(endpoint.asker(budget=1000, **prices))

    assert endpoint.asked.total() == PROBLEMS * SAMPLES


def test_requests_side_by_side_share_a_budget() -> None:
    """What is under way counts with its dearest outcome."""
    budget = Budget(price_read=1e6, price_written=1e6, limit=10)

    assert budget.reserve(3, 2) and budget.reserve(3, 2)
    assert not budget.reserve(0, 1)
    budget.settle((3, 2), (1, 1))
    assert budget.reserve(0, 3) and not budget.reserve(0, 1)


def test_a_request_is_told_as_the_protocol_has_it() -> None:
    """With what it was said before, and only what differs from the usual."""
    plain = Request(
        id="a",
        turns=(("q", "a"), ("r", "")),
        system="s",
        sampling=Sampling(max_new_tokens=3),
    )
    drawn = Sampling(max_new_tokens=3, temperature=0.5, top_p=0.9, stops=("x",))

    assert asked_server.write_messages(plain) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "r"},
    ]
    assert asked_server.write_settings(plain) == {"temperature": 0, "max_tokens": 3}
    other = Request(id="b", turns=(("q", ""),), sampling=drawn)
    assert asked_server.write_settings(other) == {
        "temperature": 0.5,
        "max_tokens": 3,
        "top_p": 0.9,
        "stop": ["x"],
    }


def test_a_damaged_line_of_the_log_is_asked_again(serve, tmp_path: Path) -> None:
    """It hides no other line."""
    endpoint = serve(solve)
    made = Making(tmp_path).make(endpoint.asker())
    lines = made.log.read_bytes().splitlines()
    lines[4] = b'{"request": 7}'
    made.log.write_bytes(b"\n".join(lines) + b"\n")
    other = Making(tmp_path, gold=False)
    other.make(endpoint.asker())

    assert endpoint.asked.total() == PROBLEMS * SAMPLES + 1


def test_no_right_answer_and_no_gold_is_told(serve, tmp_path: Path) -> None:
    """A set of nothing is no set; why, stands in the error."""
    endpoint = serve(lambda question, sample: reply("who knows"))
    made = Making(tmp_path, gold=False)
    with pytest.raises(UserError, match=r"no example was made.*18 \(no final number\)"):
        made.make(endpoint.asker())
