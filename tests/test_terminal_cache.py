"""Does status remember how runs ended, and never a moment too long?"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace
from jobs.contract.states import State
from launcher.status import terminal_cache
from launcher.status.status import collect_states
from launcher.status.terminal_cache import RememberedEnd, TerminalCache
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from tests.lib.recorded_run import ITEM, FakeSlurm, ended, started, submitted, workspace

__all__ = ["workspace"]

Change = Callable[[Workspace], None]
GOLDEN = Path(__file__).parent / "golden" / "ended.json"
FAILED = RememberedEnd(
    state=State.FAILED,
    attempt=2,
    step=7,
    steps=9,
    first=3,
    loss="nan",
    slurm="7_0",
    cause="nccl timeout",
    evidence="é",
    saved=5,
    stopped=False,
    signature="ab",
)
DONE = RememberedEnd(
    state=State.DONE,
    attempt=1,
    step=9,
    steps=9,
    first=0,
    loss=0.5,
    slurm=None,
    cause=None,
    evidence=None,
    saved=None,
    stopped=False,
    signature=None,
)
FAILED_KEY = ("00000001", 1_700_000_000_000_000_000, 11)
DONE_KEY = ("00000001", 1_700_000_000_000_000_001, 12)
NO_END_KEY = (None, 1_700_000_000_000_000_002, 13)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written just now is remembered too: so a test need not wait."""
    monkeypatch.setattr(terminal_cache, "RESTED_S", -1)


def look(workspace: Workspace) -> JobState:
    """What `zsg status` finds."""
    slurm = FakeSlurm("8|PENDING|Priority", "7|CANCELLED|0:0")
    return collect_states(
        workspace, [ITEM], Ledger(workspace), slurm, settled=TerminalCache(workspace)
    )[ITEM]


def test_an_end_is_read_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second look opens nothing in the run's folder and says the same."""
    ended(workspace, submitted(workspace), "done")
    first = look(workspace)
    monkeypatch.setattr(
        "launcher.status.exit_states.read_end",
        lambda *_: pytest.fail("its record was read again"),
    )

    assert (first.state, look(workspace)) == ("done", first)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        pytest.param(lambda w: submitted(w, ids=("8",)), "queued", id="a resubmission"),
        pytest.param(
            lambda w: started(w, next(iter(Ledger(w).submissions.values()))),
            "unknown",
            id="a requeue",
        ),
        pytest.param(
            lambda w: ended(w, next(iter(Ledger(w).submissions.values())), "failed"),
            "failed",
            id="a run by hand",
        ),
        pytest.param(
            lambda w: shutil.rmtree(w.root / ITEM),
            "cancelled",
            id="a folder that was removed",
        ),
    ],
)
def test_what_happens_since_counts(
    workspace: Workspace, change: Change, state: str
) -> None:
    """A new submission, attempt or record is seen at once."""
    ended(workspace, submitted(workspace), "done")
    assert look(workspace).state == "done"
    change(workspace)

    assert look(workspace).state == state


def test_the_memory_may_be_lost_or_spoilt(workspace: Workspace) -> None:
    """Without it, or with nonsense in it, everything is read anew."""
    ended(workspace, submitted(workspace), "done")
    first = look(workspace)
    for text in (None, "", "{", '{"schema": 99, "ends": {"runs/r": [1, null]}}'):
        workspace.ends.unlink() if text is None else workspace.ends.write_text(text)
        assert look(workspace) == first


def test_a_folder_that_changed_just_now_is_not_remembered(
    workspace: Workspace, monkeypatch
) -> None:
    """A second change within the clock's tick would go unseen."""
    monkeypatch.setattr(terminal_cache, "RESTED_S", 5.0)
    ended(workspace, submitted(workspace), "done")
    look(workspace)

    assert not workspace.ends.exists()


def test_its_file_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    """The file of an earlier zsg, and what this one writes of the same ends."""
    workspace = Workspace(tmp_path)
    cache = TerminalCache(workspace)
    cache.remember("runs/a", FAILED_KEY, FAILED, 2e9)
    cache.remember("runs/b", DONE_KEY, DONE, 2e9)
    cache.remember("runs/c", NO_END_KEY, None, 2e9)
    cache.remember_left_queue("runs/b", DONE_KEY)
    cache.save()

    assert workspace.ends.read_text() == GOLDEN.read_text().strip()


def test_a_file_of_an_earlier_zsg_is_read(tmp_path: Path) -> None:
    """Each end under its key, and under no other."""
    workspace = Workspace(tmp_path)
    workspace.ends.write_text(GOLDEN.read_text())
    cache = TerminalCache(workspace)

    assert cache.recall("runs/a", FAILED_KEY) == (True, FAILED)
    assert cache.recall("runs/b", DONE_KEY) == (True, DONE)
    assert cache.recall("runs/c", NO_END_KEY) == (True, None)
    assert cache.recall("runs/a", DONE_KEY) == (False, None)
    assert cache.has_left_queue("runs/b", DONE_KEY)
    assert not cache.has_left_queue("runs/a", FAILED_KEY)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda file: file.update(schema=99), id="another schema"),
        pytest.param(lambda file: file["fields"].append("speed"), id="another version"),
        pytest.param(
            lambda file: file["ends"]["runs/a"][1].update(speed=3),
            id="a field too many",
        ),
        pytest.param(
            lambda file: file["ends"]["runs/a"][1].pop("state"), id="a field too few"
        ),
        pytest.param(
            lambda file: file["ends"]["runs/a"][1].update(state="lost"),
            id="a state that is none",
        ),
        pytest.param(
            lambda file: file["ends"]["runs/b"].append("left"), id="a part too many"
        ),
        pytest.param(lambda file: file["ends"].update({"runs/c": 7}), id="no entry"),
    ],
)
def test_a_file_of_another_version_is_ignored(
    tmp_path: Path, spoil: Callable[[dict], object]
) -> None:
    """Nothing of it is used, and the next ends are written over it."""
    workspace = Workspace(tmp_path)
    file = json.loads(GOLDEN.read_text())
    spoil(file)
    workspace.ends.write_text(json.dumps(file))
    cache = TerminalCache(workspace)
    assert cache.recall("runs/b", DONE_KEY) == (False, None)
    cache.remember("runs/b", DONE_KEY, DONE, 2e9)
    cache.save()

    assert list(json.loads(workspace.ends.read_text())["ends"]) == ["runs/b"]
    assert TerminalCache(workspace).recall("runs/b", DONE_KEY) == (True, DONE)
