"""Is each notice told, once and under one id, whatever its receiver or its sender does?"""

import errno
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract import notices as records
from jobs.contract.folder import Unreadable, Workspace
from jobs.contract.notices import Kind, Notice, NoticeRow, Receiver, Way
from jobs.files import ownership
from jobs.notices import approved_commands, messages, sender
from jobs.notices.sender import Patience
from jobs.runtime import exchange
from tests.lib.notice_receiver import (
    ASKED,
    HOOK,
    VARIABLE,
    NoticeReceiver,
    find_two_ids,
    make_failure,
)

WATCHING = Patience(20.0)
Made = Callable[..., NoticeReceiver]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path / "work")
    place.create()
    return place


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Makes a receiver, whose address the variable holds."""
    made: list[NoticeReceiver] = []

    def make(script: Callable[[int], int] = lambda number: 200) -> NoticeReceiver:
        made.append(NoticeReceiver(script))
        monkeypatch.setenv(VARIABLE, made[-1].address)
        return made[-1]

    yield make
    for each in made:
        each.close()


def tell(
    workspace: Workspace,
    *notices: Notice,
    to: Receiver = HOOK,
    patience: Patience = ASKED,
) -> sender.Report:
    return sender.tell(workspace, [to], notices, patience)


def test_what_was_told_is_not_told_again(workspace: Workspace, receiver: Made) -> None:
    """Two that see the same failure tell it once, by its id."""
    hook = receiver()

    tell(workspace, make_failure(1))
    tell(workspace, make_failure(1))

    assert hook.list_told() == ["failed:runs/0001:s1:1"]


def test_a_message_that_was_refused_is_sent_again_as_it_was(
    workspace: Workspace, receiver: Made
) -> None:
    """A receiver that fails gets the same bytes under the same id, also where more has
    failed meanwhile; that comes in a message of its own."""
    hook = receiver(lambda number: 500 if number == 0 else 200)

    assert tell(workspace, make_failure(1)).troubles == {HOOK.name: "it answered 500"}
    tell(workspace, make_failure(1), make_failure(2))

    assert hook.bodies[0] == hook.bodies[1]
    assert [post["ids"] for post in hook.posts[1:]] == [
        [make_failure(1).id],
        [make_failure(2).id],
    ]


def test_who_only_looks_lets_a_receiver_that_failed_rest(
    workspace: Workspace, receiver: Made
) -> None:
    """Looks of `--watch` follow on one another: a refused message is not sent at each;
    `zsg sync`, which a user calls, tries it at once."""
    hook = receiver(lambda number: 500)

    for _ in range(3):
        tell(workspace, make_failure(1), patience=WATCHING)
    assert len(hook.posts) == 1

    tell(workspace, patience=ASKED)
    assert len(hook.posts) == 2


def test_a_receiver_that_hangs_is_left_and_told_later(
    workspace: Workspace, receiver: Made
) -> None:
    """A sender gives up after its time; the next one tells, under the same id."""
    hook = receiver(lambda number: -1 if number == 0 else 200)

    report = tell(workspace, make_failure(1), patience=Patience(0.3, is_asked=True))
    assert report.troubles == {HOOK.name: "it did not answer in time"}
    tell(workspace)

    first, second = hook.posts
    assert first["id"] == second["id"]


def test_a_receiver_that_hangs_keeps_no_other_from_being_told(
    workspace: Workspace, receiver: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its share of the time, here of two seconds, as the machine may be busy."""
    hanging = receiver(lambda number: -1)
    monkeypatch.setenv("HANGING", hanging.address)
    other = receiver()
    first = msgspec.structs.replace(HOOK, variable="HANGING")

    sender.tell(workspace, [first, HOOK], [make_failure(1)], Patience(4.0))

    assert len(other.posts) == 1


def test_a_receiver_that_hangs_up_after_it_has_read_may_hear_it_twice_by_one_id(
    workspace: Workspace, receiver: Made
) -> None:
    """Whether it took the message nobody knows: it is sent again, and known by its id."""
    hook = receiver(lambda number: 0 if number == 0 else 200)

    tell(workspace, make_failure(1))
    tell(workspace)

    assert len(hook.posts) == 2
    assert find_two_ids(hook) == []


def test_a_redirect_is_not_followed(workspace: Workspace, receiver: Made) -> None:
    """Another host would get the message, and the address with it."""
    elsewhere = receiver()
    hook = receiver(lambda number: 302)
    hook.headers["Location"] = elsewhere.address

    report = tell(workspace, make_failure(1))

    assert "redirect" in str(report.troubles)
    assert elsewhere.posts == []


def test_fifty_that_fail_alike_are_one_message(
    workspace: Workspace, receiver: Made
) -> None:
    """Who looks in the morning sends one message, which says how many and of what."""
    hook = receiver()

    tell(workspace, *map(make_failure, range(50)))

    (post,) = hook.posts
    assert post["count"] == 50
    assert "50 jobs of g failed" in post["text"]
    assert "out of memory" in post["text"]


def test_fifty_that_fail_one_after_another_are_a_few_messages(
    workspace: Workspace, receiver: Made
) -> None:
    """The first is told at once; the others wait for as many as were told. The last
    ones are told by who looks next, and none twice."""
    hook = receiver()

    for number in range(50):
        tell(workspace, make_failure(number), patience=WATCHING)
    while_failing = len(hook.posts)
    tell(workspace)

    assert hook.posts[0]["count"] == 1
    assert while_failing <= 6
    assert sorted(hook.list_told()) == sorted(
        make_failure(number).id for number in range(50)
    )


def test_other_reasons_have_messages_of_their_own_until_they_are_many(
    workspace: Workspace, receiver: Made
) -> None:
    """Two reasons are two messages; twenty are one that tells the commonest."""
    hook = receiver()

    tell(workspace, make_failure(1, "disk full"), make_failure(2))
    tell(workspace, *(make_failure(n, f"reason {n}") for n in range(10, 30)))

    assert [post["count"] for post in hook.posts] == [1, 1, 20]
    assert "and 17 more reasons" in hook.posts[-1]["text"]


def test_only_what_was_asked_for_is_told(workspace: Workspace, receiver: Made) -> None:
    """A receiver of hangs hears of no failure."""
    hook = receiver()
    of_hangs = msgspec.structs.replace(HOOK, on=[Kind.HANG])

    tell(workspace, make_failure(1), to=of_hangs)

    assert hook.posts == []


def test_a_variable_that_is_not_set_here_keeps_nothing_from_whoever_has_it(
    workspace: Workspace, receiver: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node without the variable notes what befell; the login node tells it."""
    hook = receiver()
    monkeypatch.delenv(VARIABLE)
    report = tell(workspace, make_failure(1))
    monkeypatch.setenv(VARIABLE, hook.address)
    tell(workspace)

    assert report.troubles == {HOOK.name: f"{VARIABLE} is not set"}
    assert len(hook.posts) == 1


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://lab.example.org/s3cr3t", "plain http to another machine"),
        ("https://user:s3cr3t@lab.example.org/", "names a user or a password"),
        ("file:///s3cr3t", "is not http://"),
        ("https://lab.example.org/?key=s3 cr3t", "holds a blank"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    """The refusal names the variable and never its value."""
    monkeypatch.setenv(VARIABLE, address)

    trouble = tell(workspace, make_failure(1), patience=Patience(0.01)).troubles

    assert why in str(trouble)
    assert "s3cr3t" not in str(trouble)


def test_the_address_stands_in_no_file_and_no_log(
    workspace: Workspace, receiver: Made, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in what is kept nor in what is said, also where sending fails."""
    receiver(lambda number: [0, 302, 500, 200][min(number, 3)])

    reports = [tell(workspace, make_failure(1)) for _ in range(4)]

    kept = [path.read_bytes() for path in workspace.root.iterdir()]
    assert b"s3cr3t" not in b"".join(kept)
    assert "s3cr3t" not in caplog.text + repr(reports)


def test_a_pipe_in_place_of_the_notices_keeps_nobody_waiting(
    workspace: Workspace,
) -> None:
    """A workspace that somebody sent may hold one; `zsg status --watch` goes on."""
    os.mkfifo(records.locate_notices(workspace))

    with pytest.raises(Unreadable, match="no ordinary file"):
        records.read_outboxes(workspace)


def test_on_a_full_disk_no_message_is_sent_at_every_look(
    workspace: Workspace, receiver: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it was taken cannot be noted: what cannot be noted before is not sent."""
    hook = receiver()
    append = records.append_rows

    def append_until_full(place: Workspace, rows: Sequence[NoticeRow]) -> None:
        if hook.posts:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(place, rows)

    monkeypatch.setattr(records, "append_rows", append_until_full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            tell(workspace, make_failure(1))
    assert len(hook.posts) == 1

    monkeypatch.setattr(records, "append_rows", append)
    tell(workspace)
    assert len(hook.posts) == 2
    assert find_two_ids(hook) == []


def test_a_line_of_megabytes_is_noted_in_part_and_once(
    workspace: Workspace, receiver: Made
) -> None:
    """Else its row would be too long to be read, and noted anew at every look."""
    hook = receiver()
    huge = msgspec.structs.replace(make_failure(1), evidence="a" * 3_000_000)

    tell(workspace, huge)
    tell(workspace, huge)

    assert len(hook.posts) == 1
    assert records.locate_notices(workspace).stat().st_size < 10_000


def test_a_full_file_of_notices_is_said(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Else a night would pass in silence."""
    monkeypatch.setattr(records, "is_full", lambda _: True)

    tell(workspace, make_failure(1))

    assert "notices.jsonl is full" in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (exchange.UnknownName("s3cr3t"), "its name is not known here"),
        (ssl.SSLCertVerificationError(1, "s3cr3t"), "another one's certificate"),
    ],
)
def test_what_kept_a_message_is_said_in_words_that_lead_on(
    workspace: Workspace,
    receiver: Made,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    words: str,
) -> None:
    """A node without internet knows no names; a proxy may show its own certificate."""
    receiver()

    def fail(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(exchange, "post_request", fail)

    trouble = str(tell(workspace, make_failure(1)).troubles)

    assert words in trouble
    assert "s3cr3t" not in trouble


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder of its own, in which programs are approved."""
    (tmp_path / "home").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("home")
def test_a_program_gets_the_message_and_is_tried_again_where_it_fails(
    workspace: Workspace, tmp_path: Path
) -> None:
    """It reads JSON on its standard input; no shell reads its arguments."""
    script = "import sys; from pathlib import Path; got = Path(sys.argv[1]); seen = got.exists(); "
    script += "got.write_text(sys.stdin.read()); sys.exit(not seen)"
    got = tmp_path / "$(touch ran); got"
    to = Receiver(
        way=Way.COMMAND, command=[sys.executable, "-c", script, str(got)], on=list(Kind)
    )

    approved_commands.approve_commands([to])

    first = tell(workspace, make_failure(1), to=to)
    second = tell(workspace, to=to)

    assert "it ended with 1" in str(first.troubles)
    assert second.troubles == {}
    assert json.loads(got.read_text())["ids"] == [make_failure(1).id]


@pytest.mark.usefixtures("home")
def test_a_program_finds_no_file_in_the_folder_in_which_the_user_stands(
    workspace: Workspace,
) -> None:
    """`[python3, tell.py]` would run that of a folder that somebody sent."""
    script = "import os, sys; sys.exit(os.getcwd() != '/')"
    command = [sys.executable, "-c", script]
    to = Receiver(way=Way.COMMAND, command=command, on=list(Kind))
    approved_commands.approve_commands([to])

    assert tell(workspace, make_failure(1), to=to).troubles == {}


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("is_group", [True, False])
def test_no_program_is_run_that_others_may_have_named(
    workspace: Workspace, tmp_path: Path, is_group: bool
) -> None:
    """Another member in a group's workspace; who sent a workspace that no submit of the
    user's has filled."""
    if is_group:
        ownership.open_to_group(workspace.root)
    ran = tmp_path / "ran"
    to = Receiver(
        way=Way.COMMAND, command=["touch", str(ran)], on=list(Kind), user=os.geteuid()
    )

    if is_group:
        approved_commands.approve_commands([to])

    tell(workspace, make_failure(1), to=to)

    assert not ran.exists()


def test_texts_of_others_neither_command_a_terminal_nor_mention_a_channel() -> None:
    """Causes and lines of logs are escaped and cut, for Slack too."""
    evil = msgspec.structs.replace(
        make_failure(1), evidence="\x1b[2J<!channel> <https://x|y> & " + "a" * 9999
    )

    body = json.loads(messages.write_message(Way.SLACK, "m", [evil]))
    plain = messages.write_message(Way.WEBHOOK, "m", [evil] * 500)

    assert "<" not in body["text"]
    assert "\x1b" not in body["text"]
    assert "\\x1b" in body["text"]
    assert len(plain) < 100_000


def test_a_line_that_a_kill_has_cut_loses_no_other(
    workspace: Workspace, receiver: Made
) -> None:
    """Half a row at the end of the file is passed over, and the next begins a line."""
    hook = receiver()
    tell(workspace, make_failure(1))
    with records.locate_notices(workspace).open("ab") as file:
        file.write(b'{"row":"seen","to":"webh')

    tell(workspace, make_failure(1), make_failure(2))
    tell(workspace, make_failure(1), make_failure(2))

    assert hook.list_told() == [make_failure(1).id, make_failure(2).id]


def test_senders_at_once_tell_each_notice_once(
    workspace: Workspace, receiver: Made
) -> None:
    """Eight that see the same forty failures, each in an order of its own."""
    hook = receiver()
    failures = [make_failure(number, f"reason {number % 3}") for number in range(40)]

    def look(seed: int) -> None:
        shuffled = random.Random(seed).sample(failures, len(failures))
        sender.tell(workspace, [HOOK], shuffled, ASKED)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(hook.list_told()) == sorted(each.id for each in failures)


def kill_at(workspace: Workspace, moment: int, numbers: list[int]) -> int:
    """A process that tells of these failures and is killed at a moment; its exit."""
    words = ["-m", "tests.lib.notice_receiver", str(workspace.root), str(moment)]
    ended = subprocess.run(
        [sys.executable, *words, json.dumps(numbers)], check=False, timeout=60
    )
    return ended.returncode


def check_all_is_told(
    workspace: Workspace, hook: NoticeReceiver, moments: list[int]
) -> None:
    """Kills a sender at each moment, each with more to tell; then looks once more."""
    killed = [
        kill_at(workspace, moment, list(range(2 * number + 4)))
        for number, moment in enumerate(moments)
    ]
    tell(workspace)
    told = set(hook.list_told())

    assert -signal.SIGKILL in killed
    assert told == {make_failure(n).id for n in range(2 * len(moments) + 2)}
    assert find_two_ids(hook) == []
    outbox = records.read_outboxes(workspace)[HOOK.key]
    assert not outbox.waiting
    assert not outbox.untold


@pytest.mark.parametrize("moments", [[2, 5, 8]])
def test_a_sender_that_is_killed_leaves_nothing_untold(
    workspace: Workspace, receiver: Made, moments: list[int]
) -> None:
    """Killed while it notes, before it sends, and between the reply and its note."""
    check_all_is_told(workspace, receiver(), moments)


@pytest.mark.soak(part="tracking")
@pytest.mark.parametrize("seed", [1, 2])
def test_senders_killed_at_twenty_moments_tell_all_under_one_id(
    workspace: Workspace, receiver: Made, seed: int
) -> None:
    """Every failure is told, none under two ids, while the receiver fails, hangs up and
    answers."""
    chance = random.Random(seed)
    answers = [chance.choice([200, 200, 200, 500, 0]) for _ in range(200)]
    hook = receiver(lambda number: answers[number % len(answers)])
    moments = [chance.randrange(1, 14) for _ in range(20)]
    for number, moment in enumerate(moments):
        kill_at(workspace, moment, list(range(2 * number + 4)))
    hook.script = lambda number: 200

    check_all_is_told(workspace, hook, moments)
