"""Are a job's logs found and read from their end, of any rank and attempt, however large?"""

import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace
from jobs.contract.states import Outcome
from launcher.status import logs
from launcher.status.logs import Part
from launcher.workspace.ledger import Ledger
from tests.lib.recorded_run import ITEM, begins, submitted, workspace
from zsg_core.errors import UserError

__all__ = ["workspace"]


def text_of(part: Part, lines: int | None = None) -> str:
    """The last lines of a part."""
    return b"".join(part.read(part.tail(lines))).decode()


def test_the_newest_attempt_is_read_from_its_mark(workspace: Workspace) -> None:
    """Slurm appends a requeued job's output to one file; each attempt is found in it."""
    submitted(workspace)
    begins(workspace, "one\n")
    begins(workspace, "two\n")

    assert text_of(logs.of_rank(workspace, ITEM, 0, None)).splitlines()[1:] == ["two"]
    assert text_of(logs.of_rank(workspace, ITEM, 0, 1)).splitlines()[1:] == [
        "one",
        "submitit INFO",
    ]


def test_the_links_of_a_chain_have_logs_of_their_own(workspace: Workspace) -> None:
    """The newest attempt is in the last link that began one: those behind it find the
    run done and begin none."""
    submitted(workspace)
    ledger = Ledger(workspace)
    last = ledger.last(ITEM)
    assert last
    for link in (["8"], ["9"]):
        ledger.linked(last, link)
    begins(workspace, "one\n")
    begins(workspace, "two\n", link=1)
    (workspace.submission(last.id) / "9_0_log.out").write_text(
        "nothing is left to do\n"
    )

    assert text_of(logs.of_rank(workspace, ITEM, 0, None)).endswith("two\n")
    assert text_of(logs.of_rank(workspace, ITEM, 0, 1)).endswith("one\n")


def test_attempts_of_earlier_submissions_are_found(workspace: Workspace) -> None:
    """After a resubmission, which has a folder of its own, the old log is still there;
    one that is not, is told."""
    submitted(workspace)
    begins(workspace, "one\n")
    submitted(workspace, ids=("8",))
    begins(workspace, "two\n")

    assert text_of(logs.of_rank(workspace, ITEM, 0, 1)).endswith("one\n")
    assert text_of(logs.of_rank(workspace, ITEM, 0, 2)).endswith("two\n")
    with pytest.raises(
        UserError, match=r"no log of attempt 3; there are logs of attempts: 1, 2"
    ):
        logs.of_rank(workspace, ITEM, 0, 3)
    with pytest.raises(UserError, match="no log of rank 1 yet"):
        logs.of_rank(workspace, ITEM, 1, None)


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\nc\n", 9, "a\nb\nc\n"),
        ("a\nb\nc\n", None, "a\nb\nc\n"),
        ("a\n\n\n", 2, "\n\n"),
        ("", 2, ""),
    ],
)
def test_the_last_lines(
    tmp_path: Path, text: str, lines: int | None, expected: str
) -> None:
    """As `tail` has them, with or without a last line break."""
    (tmp_path / "log").write_text(text)

    assert text_of(Part(tmp_path / "log", 0, len(text)), lines) == expected


def test_a_huge_log_is_not_read_whole(tmp_path: Path) -> None:
    """The end of a gigabyte does not cost its memory."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"first\n")
        file.truncate(1 << 30)  # a hole: no byte of it is on disk
        file.seek(0, 2)
        file.write(b"\n" + b"".join(b"line %d\n" % n for n in range(1000)))
    tracemalloc.start()
    printed = text_of(Part(path, 0, path.stat().st_size), 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert printed == "line 997\nline 998\nline 999\n"
    assert peak < 1 << 22


def test_following_goes_on_over_restarts_until_the_run_is_done(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a requeued attempt appends comes, then what one of a new submission writes;
    the end of the run ends it."""
    monkeypatch.setattr(logs, "POLL_S", 0.01)
    submitted(workspace)
    begins(workspace, "early\none\n")
    got: list[bytes] = []
    reader = threading.Thread(
        target=lambda: got.extend(logs.follow_log(workspace, ITEM, 0, 1))
    )
    reader.start()
    begins(workspace, "two\n")
    time.sleep(0.1)
    last = submitted(workspace, ids=("8",))
    begins(workspace, "three\n")
    time.sleep(0.2)
    attempt = attempts.begin_attempt(workspace.root / ITEM, last.id)
    attempts.end_attempt(workspace.root / ITEM, attempt, Outcome.DONE)
    reader.join(10)

    lines = [
        line
        for line in b"".join(got).decode().splitlines()
        if not line.startswith(("===", "submitit"))
    ]
    # the second came before the first look
    assert lines in (["one", "two", "three"], ["two", "three"])
    assert not reader.is_alive()
