"""Does a model in a folder answer each request of a maker once, in batches, as it would
have in one go, however often the job was killed?"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.folder import Workspace
from jobs.model import batch_budget
from jobs.model.generate import Generator
from jobs.preparing import asked_model, making, reply_log
from jobs.preparing.asked_model import AskedModel
from jobs.preparing.reply_log import LOG, LoggedReply, ReplyLog, digest_request
from tests.lib.chat_templates import CHATML
from tests.lib.model_folders import write_tokenizer
from zsg_core.data.prompts import digest_chat_template
from zsg_core.errors import UserError
from zsg_core.makers.registry import Request, Sampling, ask
from zsg_core.recipe import MAKE

pytestmark = pytest.mark.engine

POSITIONS = 160
DRAWN = Sampling(max_new_tokens=8, temperature=1.0)
PLAIN = {"name": "plain"}
CHAT = {"name": "chat", "digest": digest_chat_template(CHATML)}
# of prompts and replies together: some four of the requests below
SMALL_BATCH = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights whose tokens are bytes, and a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(made)
    write_tokenizer(made)
    (made / "chat_template.jinja").write_text(CHATML)
    return made


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round of requests is several batches."""
    monkeypatch.setattr(batch_budget, "CPU_TOKENS", SMALL_BATCH)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of what is generated, batch by batch."""
    seen: list[list[str]] = []
    generate = Generator.answers

    def note(
        self: Generator, prompts: Sequence[Sequence[int]], names: Sequence[str]
    ) -> list[list[int]]:
        seen.append(list(names))
        return generate(self, prompts, names)

    monkeypatch.setattr(Generator, "answers", note)
    return seen


class Asking:
    """A workspace in which a maker asks a model in a folder."""

    def __init__(self, root: Path, folder: Path, **template: Any) -> None:
        self.workspace = Workspace(root)
        rule = {
            "template": template or PLAIN,
            "precision": "fp32",
            "settings": {"seed": 0},
        }
        self._source = {MAKE: rule}
        self._folder = folder
        self.replies = root / "replies"

    def start(self) -> AskedModel:
        """What a job asks that has just begun."""
        return making.open_model(self.workspace, self._source, self._folder)

    def answer(self, requests: Sequence[Request]) -> list[LoggedReply]:
        """What a job that has just begun is replied."""
        log = ReplyLog(self.replies)
        self.start().answer(requests, log)
        logged = [log.get(request) for request in requests]
        return [reply for reply in logged if reply is not None]

    @property
    def log(self) -> Path:
        return self.replies / LOG


@pytest.fixture
def asking(tmp_path: Path, folder: Path) -> Callable[..., Asking]:
    """Makes workspaces."""
    numbers = iter(range(10))
    return lambda **template: Asking(tmp_path / str(next(numbers)), folder, **template)


def write_requests(sampling: Sampling = DRAWN, count: int = 12) -> list[Request]:
    """Questions of different lengths."""
    return [
        Request(
            id=f"q{number}",
            turns=(ask("word " * (1 + number % 5)),),
            sampling=sampling,
        )
        for number in range(count)
    ]


def test_requests_are_answered_in_batches_and_none_twice(
    asking: Callable[..., Asking], batches: list[list[str]]
) -> None:
    """Fewer batches than requests; a job that finds all replies loads no model."""
    place = asking()
    requests = write_requests()
    first = place.answer(requests)
    names = [name for batch in batches for name in batch]

    assert sorted(names) == sorted(request.id for request in requests)
    assert 1 < len(batches) < len(requests)
    assert all(reply.written for reply in first)

    def refuse() -> Any:
        raise AssertionError("the model is loaded, and nothing is asked")

    idle = place.start()
    idle._load = refuse
    idle.answer(requests, ReplyLog(place.replies))
    assert place.answer(requests) == first


def test_a_reply_is_drawn_by_its_request_alone(asking: Callable[..., Asking]) -> None:
    """Samples of one question differ by their names; who else is asked changes none."""
    twice = [
        Request(id=f"q/{number}", turns=(ask("word"),), sampling=DRAWN)
        for number in range(2)
    ]
    alone = asking().answer(twice)
    among_others = asking().answer([*write_requests(), *twice])

    assert alone[0].text != alone[1].text
    assert [reply.text for reply in among_others[-2:]] == [
        reply.text for reply in alone
    ]


def test_a_request_is_looked_up_once_however_many_batches_there_are(
    asking: Callable[..., Asking],
    batches: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not again for every batch: of a million requests that would take days."""
    digested: list[str] = []

    def note(request: Request) -> str:
        digested.append(request.id)
        return digest_request(request)

    monkeypatch.setattr(asked_model, "digest_request", note)
    monkeypatch.setattr(reply_log, "digest_request", note)
    place = asking()
    requests = write_requests(count=24)
    place.start().answer(requests, ReplyLog(place.replies))

    assert len(batches) > 4
    assert len(digested) <= 2 * len(requests)


@pytest.mark.parametrize("lines", [1, 5, 6, 11])
def test_a_killed_job_ends_with_the_log_of_one_in_one_go(
    lines: int, asking: Callable[..., Asking], batches: list[list[str]]
) -> None:
    """To the byte, also where some replies of a batch were lost, and where the memory
    that is free would make other batches; a batch that is there whole is not answered
    again."""
    calm, killed = asking(), asking()
    requests = write_requests()
    calm.answer(requests)
    planned = list(batches)
    killed.answer(requests)
    whole = killed.log.read_bytes().splitlines(keepends=True)
    killed.log.write_bytes(b"".join(whole[:lines]) + b'{"request": "tor')
    batches.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_budget, "CPU_TOKENS", 2 * SMALL_BATCH)
        killed.answer(requests)

    assert killed.log.read_bytes() == calm.log.read_bytes()
    there, missing = 0, list[list[str]]()
    for batch in planned:
        there += len(batch)
        if there > lines:
            missing.append(batch)
    assert batches == missing


def test_what_is_too_long_for_the_model_is_refused_and_nothing_else(
    asking: Callable[..., Asking], batches: list[list[str]]
) -> None:
    """A question of more tokens than the model's positions leave beside its answer;
    every question, where the answer alone fills them."""
    short = write_requests(count=1)[0]
    long = Request(id="long", turns=(ask("word " * 40),), sampling=DRAWN)
    filled = Sampling(max_new_tokens=POSITIONS, temperature=1.0)
    for template in (PLAIN, CHAT):
        replies = asking(**template).answer([long, short])
        assert [reply.refused for reply in replies] == [asked_model.TOO_LONG, ""]
        assert (replies[0].read, replies[0].written, replies[0].text) == (0, 0, "")
    [none] = asking().answer(write_requests(filled, count=1))

    assert none.refused == asked_model.TOO_LONG
    assert batches == [["q0"], ["q0"]]


def test_an_answer_is_over_at_a_stop_or_is_cut(asking: Callable[..., Asking]) -> None:
    """The stop and what follows is left out of the text; one that is not over after
    max_new_tokens says so."""
    long = Sampling(max_new_tokens=24, temperature=1.0)
    [free] = asking().answer(write_requests(long, count=1))
    stop = free.text[3]
    stopped = Sampling(max_new_tokens=24, temperature=1.0, stops=(stop,))
    [reply] = asking().answer(write_requests(stopped, count=1))

    assert (free.cut, free.written) == (True, 24)
    assert (reply.cut, reply.text) == (False, free.text[: free.text.index(stop)])


def test_requests_of_a_round_are_each_drawn_as_they_say(
    asking: Callable[..., Asking],
) -> None:
    """The likeliest token each time, or one by its chance; the likeliest are the same
    whatever the request's name."""
    greedy = Sampling(max_new_tokens=8)
    turns = (ask("word"),)
    requests = [
        Request(id="a", turns=turns, sampling=greedy),
        Request(id="b", turns=turns, sampling=DRAWN),
        Request(id="c", turns=turns, sampling=greedy),
    ]
    first, drawn, second = asking().answer(requests)

    assert first.text == second.text != drawn.text


def test_a_model_is_asked_by_its_own_chat_template(
    asking: Callable[..., Asking], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """System text, question, and what the template writes before an answer."""
    from transformers import AutoTokenizer

    seen: list[list[int]] = []
    generate = Generator.answers

    def note(self: Generator, prompts: Any, names: Any) -> Any:
        seen.extend(map(list, prompts))
        return generate(self, prompts, names)

    monkeypatch.setattr(Generator, "answers", note)
    request = Request(id="a", turns=(ask("Why?"),), system="Be kind.", sampling=DRAWN)
    [reply] = asking(**CHAT).answer([request])
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
    ]
    written = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )

    assert seen == [list(written)]
    assert reply.read == len(seen[0])


def test_a_folder_whose_template_was_changed_is_not_asked(
    tmp_path: Path, folder: Path
) -> None:
    """The recipe names another one than the folder has."""
    digest = hashlib.sha256(b"another").hexdigest()
    place = Asking(tmp_path, folder, name="chat", digest=digest)

    with pytest.raises(UserError, match="chat template"):
        place.answer(write_requests(count=1))
