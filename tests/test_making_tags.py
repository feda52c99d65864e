"""Does the job of a maker tag dialogues and word instructions anew by a server's
replies, with the same set however often it is killed?"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.contract.folder import Workspace
from jobs.contract.job_file import ServerToAsk
from jobs.contract.prepared import read_records_meta
from jobs.preparing import making
from jobs.preparing.asked_server import AskedServer
from jobs.preparing.records import Records
from jobs.preparing.reply_log import LoggedReply, ReplyLog
from jobs.runtime.chat_server import ChatServer
from tests.lib.fake_judge import KEY, Answer, FakeJudge
from zsg_core import recipe as recipes
from zsg_core.makers import tag_replies
from zsg_core.recipe import InputDigests, Recipe, SourceDigests
from zsg_core.retry import ExponentialBackoff
from zsg_core.settings.run import Settings

pytestmark = pytest.mark.engine

SERVED = {"base_url": "http://127.0.0.1:1/v1", "model": "tagger"}
DIALOGUES = 9
# what the server says to dialogue after dialogue: good, and of every kind of bad
TEXTS = [
    '[{"tag": "Poem", "explanation": "x"}, {"tag": "Rime", "explanation": "y"}]',
    '["poems", "code review"]',
    "I cannot help with that.",
    '{"tag": "Coding"}\n{"tag": "poem"}',
    "[" * 5_000,
    '["a\\u001b[2Jb", "poem"]',
    '{"tags": ["poem"]}',
    json.dumps(["poem"] * 60),
    '["' + "x" * 101 + '"]',
]


def recipe_of(make: dict[str, Any], data: str = "d", embedding: str = "e") -> Recipe:
    """The recipe of a source that a maker makes."""
    settings = Settings.model_validate(
        {
            "data": {
                "sources": {
                    "task": {"set": "messages", "path": "t", "test_path": "e"},
                    "chat": {
                        "set": "sharegpt",
                        "path": "c",
                        "make": {"by": SERVED, **make},
                    },
                }
            },
        }
    )
    digests = InputDigests(
        sources={
            "task": SourceDigests(data="t", test="e"),
            "chat": SourceDigests(data=data),
        },
        embedders={"chat": embedding},
    )
    made = recipes.make_recipe(settings, digests)
    return made["stages"][-1]["data"]["sources"]["chat"]


def write_dialogues(folder: Path) -> Path:
    """Dialogues whose questions are their numbers."""
    path = folder / "chat.json"
    rows = [
        {
            "id": f"own{number}",
            "conversations": [
                {"from": "human", "value": f"question {number}"},
                {"from": "gpt", "value": "answer"},
            ],
        }
        for number in range(DIALOGUES)
    ]
    path.write_text(json.dumps(rows))
    return path


def reply(text: str) -> Answer:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return 200, {}, json.dumps({"choices": [choice], "usage": usage}).encode()


def tag_by_number(question: str, _: int) -> Answer:
    """The reply to the dialogue of that number."""
    return reply(TEXTS[int(question.split()[-1])])


class Endpoint(FakeJudge):
    """A server on loopback, and who asks it."""

    def asker(self) -> AskedServer:
        waits = ExponentialBackoff(limit_s=5, first_s=0.001, longest_s=0.01)
        server = ChatServer("tagger", self.uri, KEY, retry_policy=waits)
        to_ask = ServerToAsk(base_url=self.uri, model="tagger", at_once=1)
        return AskedServer(server, to_ask)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A tagger."""
    started = Endpoint(tag_by_number)
    yield started
    started.close()


def encode_by_length(texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts of one length have one vector."""
    vectors = np.zeros((len(texts), 120), np.float32)
    for row, text in enumerate(texts):
        vectors[row, len(text)] = 1
    return vectors


@pytest.fixture(autouse=True)
def no_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are embedded by their lengths."""
    monkeypatch.setattr(making, "make_encode", lambda *_: encode_by_length)


class Making:
    """A set that is made in a workspace."""

    def __init__(self, folder: Path, make: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        self.workspace = Workspace(folder / "work")
        self.path = write_dialogues(folder)
        hashes = making.content.sha256_of([self.path])
        digest = making.content.folder_digest(self.path, [self.path], hashes)
        self.source = recipe_of(make, digest)
        self.id = recipes.records_id(self.source, False)

    def make(self, asker: AskedServer) -> "Making":
        making.make_examples(
            self.workspace, self.id, self.source, self.path, asker, Path("embedder")
        )
        return self

    @property
    def folder(self) -> Path:
        return self.workspace.records(self.id)

    def tags(self) -> list[tuple[str, ...]]:
        return [example.tags for example in Records(self.folder)]


TAGGED = {"instag": {"at_least": 1, "support": 0}}


def test_a_tagged_set_is_the_dialogues_with_their_tags(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """Every reply that is no list of tags is counted by its reason, and the files lie
    beside the records."""
    made = Making(tmp_path, TAGGED).make(endpoint.asker())
    facts = read_records_meta(made.folder)

    assert made.tags()[:4] == [
        ("poem", "rime"),
        ("code review", "poem"),
        (),
        ("code", "poem"),
    ]
    assert facts is not None and facts.made is not None
    assert facts.made.refused == {
        tag_replies.NOT_JSON: 2,
        tag_replies.NOT_TAGS: 1,
        tag_replies.MANY_TAGS: 1,
        tag_replies.NO_TAG: 1,
    }
    tags = (made.folder / "made-tags.jsonl").read_text().splitlines()
    assert [tuple(json.loads(line)["tags"]) for line in tags] == made.tags()
    assert (made.folder / "made-spellings.jsonl").exists()


class Killed(BaseException):
    """What a kill is to a process."""


def test_a_killed_job_tags_the_same_and_asks_nobody_twice(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after every single reply that is kept."""
    calm = Making(tmp_path / "calm", TAGGED).make(endpoint.asker())
    endpoint.asked.clear()
    killed = Making(tmp_path / "killed", TAGGED)
    keep = ReplyLog.add

    def die_after(log: ReplyLog, replies: Sequence[LoggedReply]) -> None:
        keep(log, replies)
        raise Killed

    monkeypatch.setattr(ReplyLog, "add", die_after)
    for _ in range(DIALOGUES):
        with pytest.raises(Killed):
            killed.make(endpoint.asker())
    monkeypatch.setattr(ReplyLog, "add", keep)
    killed.make(endpoint.asker())

    assert killed.tags() == calm.tags()
    assert set(endpoint.asked.values()) == {1}
    assert endpoint.asked.total() == DIALOGUES


def test_other_steps_on_the_same_replies_ask_nobody(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """Thresholds, meanings and the choice of few are decided over what is there."""
    Making(tmp_path, TAGGED).make(endpoint.asker())
    others = [
        {"at_least": 2, "frequency": "rules", "support": 0},
        {"at_least": 1, "support": 2, "confidence": 0.5},
        {"at_least": 1, "support": 0, "meaning": {}},
        {"at_least": 1, "support": 0, "choose": 2},
    ]
    made = [
        Making(tmp_path, {"instag": steps}).make(endpoint.asker()).tags()
        for steps in others
    ]

    assert endpoint.asked.total() == DIALOGUES
    assert made[0][1] == ("poem",)
    assert made[2][0] == ("poem",)  # as long as Rime, by its spelling
    assert len(made[3]) == 2


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        pytest.param({}, {"embedding": "elsewhere"}, True, id="where the model lies"),
        pytest.param({}, {"threshold": 0.1}, False, id="how close is one"),
        pytest.param({}, None, False, id="whether meanings are compared"),
    ],
)
def test_a_tagged_set_is_known_by_how_meanings_are_compared(
    one: Any, other: Any, is_same: bool
) -> None:
    """By the content of the model that embeds, not by its place."""
    ids = [
        recipes.records_id(recipe_of({"instag": {"meaning": meaning}}), False)
        for meaning in (one, other)
    ]
    moved = recipe_of({"instag": {"meaning": one}}, embedding="f")

    assert (ids[0] == ids[1]) == is_same
    assert recipes.records_id(moved, False) != ids[0]


def test_paraphrases_are_asked_for_in_rounds_and_each_round_once(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """The wordings are a file that `instructions` reads, and each dialogue has one."""
    lists = ["1. Reply briefly.\n2. Keep it short.", "1. Few words, please."]
    endpoint.script = lambda question, number: reply(lists[min(number, 1)])
    make = {"paraphrases": {"instruction": "Answer in short.", "wordings": 3}}
    made = Making(tmp_path, make).make(endpoint.asker()).make(endpoint.asker())

    wordings = json.loads((made.folder / "made-wordings.json").read_text())
    assert wordings == [
        "Answer in short.",
        "Reply briefly.",
        "Keep it short.",
        "Few words, please.",
    ]
    assert endpoint.asked.total() == 2
    ends = {example.input.split("\n\n")[1] for example in Records(made.folder)}
    assert len(Records(made.folder)) == DIALOGUES
    assert ends <= set(wordings) and len(ends) > 1


def test_a_missing_package_is_told_before_anybody_is_asked(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stems of tags need one."""
    find: Callable[..., Any] = making.importlib.util.find_spec
    monkeypatch.setattr(
        making.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "nltk" else find(name, *more),
    )
    with pytest.raises(making.UserError, match=r"make\.instag needs nltk"):
        Making(tmp_path, TAGGED).make(endpoint.asker())

    assert endpoint.asked.total() == 0
