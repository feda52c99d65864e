"""Does status remember how runs ended, and never a moment too long?"""

import shutil
from collections.abc import Callable

import pytest

from jobs.contract.folder import Workspace
from launcher.status import terminal_cache
from launcher.status.status import collect_states
from launcher.status.terminal_cache import TerminalCache
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from tests.lib.recorded_run import ITEM, FakeSlurm, ended, started, submitted, workspace

__all__ = ["workspace"]

Change = Callable[[Workspace], None]


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
        "launcher.status.status._ended",
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
