"""Does the ledger remember every submission, whatever was cut when, and let one
submitter in at a time?"""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.contract.folder import Damaged, Workspace
from jobs.contract.ledger_rows import Retried
from jobs.files import locks
from launcher.clusters.profiles import Profile
from launcher.submission import arrange_make
from launcher.workspace import ledger as ledgers
from launcher.workspace.ledger import Ledger
from launcher.workspace.submit_lock import submit_lock


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """An empty workspace."""
    made = Workspace(tmp_path / "work")
    made.create()
    return made


def intend(ledger: Ledger, *items: str, kind: str = "train"):
    """A submission of job folders."""
    return ledger.intend(scheduler="slurm", kind=kind, grid="g", items=items)


def test_a_new_workspace_has_an_empty_ledger(workspace):
    """No file is no submission."""
    assert Ledger(workspace).submissions == {}


def test_what_is_written_is_read(workspace):
    """A ledger read anew knows what the one that wrote it knows."""
    ledger = Ledger(workspace)
    done, cut, given_up = (
        intend(ledger, "runs/a", "runs/b"),
        intend(ledger, "runs/c"),
        intend(ledger, "runs/d"),
    )
    ledger.submitted(done, ["7_0", "7_1"])
    ledger.released(done)
    ledger.submitted(cut, ["8_0"])
    ledger.void(given_up, "sbatch failed")

    assert Ledger(workspace).submissions == ledger.submissions
    assert (["7_0", "7_1"], True, None) == (done.ids, done.released, done.void)


def test_an_intent_is_on_disk_before_anything_happens(workspace):
    """A submission killed right after its intent is found again, with its host and name."""
    made = intend(Ledger(workspace), "runs/a")
    (found,) = Ledger(workspace).unfinished()

    assert (found, found.ids) == (made, [])
    assert found.name == f"zsg-g-train-{made.id}"


def test_names_are_unique(workspace):
    """Two submissions of the same things can be told apart in the queue."""
    ledger = Ledger(workspace)

    assert intend(ledger, "runs/a").name != intend(ledger, "runs/a").name


def test_an_item_has_the_id_at_its_place(workspace):
    """Ids are in the order of the items; without ids there is none."""
    ledger = Ledger(workspace)
    made = intend(ledger, "runs/a", "runs/b")
    before = made.job_ids("runs/b")
    ledger.submitted(made, ["7_0", "7_1"])

    assert ([], ["7_1"]) == (before, made.job_ids("runs/b"))


def test_the_newest_submission_of_an_item_counts(workspace):
    """A retry replaces the submission before it; one that was given up does not."""
    ledger = Ledger(workspace)
    intend(ledger, "runs/a")
    second = intend(ledger, "runs/a")
    ledger.void(intend(ledger, "runs/a"), "never reached Slurm")

    assert ledger.last("runs/a") is second
    assert ledger.last("runs/b") is None


@pytest.mark.parametrize(
    ("events", "is_unfinished"),
    [
        pytest.param([], True, id="only an intent"),
        pytest.param(["submitted"], True, id="held jobs"),
        pytest.param(["submitted", "released"], False, id="released"),
        pytest.param(["void"], False, id="given up"),
    ],
)
def test_unfinished_is_what_was_cut_short(workspace, events, is_unfinished):
    """A submission is finished when its jobs are released or when it was given up."""
    ledger = Ledger(workspace)
    made = intend(ledger, "runs/a")
    acts = {
        "submitted": lambda: ledger.submitted(made, ["7_0"]),
        "released": lambda: ledger.released(made),
        "void": lambda: ledger.void(made, "x"),
    }
    for event in events:
        acts[event]()

    assert bool(Ledger(workspace).unfinished()) == is_unfinished


def test_a_line_cut_anywhere_costs_that_line_only(workspace):
    """Whatever byte a kill stops at, the rows before it stand, and the next row is whole."""
    ledger = Ledger(workspace)
    first = intend(ledger, "runs/a")
    whole = workspace.ledger.stat().st_size
    intend(ledger, "runs/b")
    content = workspace.ledger.read_bytes()

    for size in range(whole, len(content)):
        workspace.ledger.write_bytes(content[:size])
        again = Ledger(workspace)
        third = intend(again, "runs/c")
        known = {
            item for s in Ledger(workspace).submissions.values() for item in s.items
        }
        assert {"runs/a", "runs/c"} <= known
        assert ("runs/b" in known) == (size == len(content) - 1)
        assert {first.id, third.id} <= Ledger(workspace).submissions.keys()


def test_the_lock_is_free_after_use(workspace):
    """The lock is held for as long as a submit is at work, and no longer."""
    with submit_lock(workspace):
        during = locks.is_locked(workspace.submit_lock)

    assert (during, locks.is_locked(workspace.submit_lock)) == (True, False)


def test_a_workspace_is_its_owners(workspace):
    """Nobody else may look into it."""
    assert workspace.root.stat().st_mode & 0o777 == 0o700


def test_a_submission_knows_the_links_of_its_chain(workspace):
    """A job's ids are its own and those of the links behind it, in the order in which they run."""
    ledger = Ledger(workspace)
    made = ledger.intend(
        scheduler="slurm", kind="train", grid="g", items=["runs/a", "runs/b"], chain=2
    )
    ledger.submitted(made, ["7_0", "7_1"])
    ledger.linked(made, ["8_0", "8_1"])

    found = Ledger(workspace).last("runs/b")
    assert found
    assert (found.chain, found.job_ids("runs/b"), found.link_name(2)) == (
        2,
        ["7_1", "8_1"],
        f"{found.name}-2",
    )
    assert found.all_ids == ["7_0", "7_1", "8_0", "8_1"]


def test_rows_are_written_as_ever(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of row, with all its fields and with few, byte for byte as the zsg of
    schema 1 wrote it; and read again."""
    ids = (f"{number:08x}{'0' * 24}" for number in itertools.count(1))
    times = itertools.count(1_700_000_000_000, 7)
    monkeypatch.setattr(ledgers.uuid, "uuid4", lambda: SimpleNamespace(hex=next(ids)))
    monkeypatch.setattr(ledgers, "now_ms", lambda: next(times))
    monkeypatch.setattr(ledgers.socket, "gethostname", lambda: "login1")
    monkeypatch.setattr(ledgers.os, "getuid", lambda: 1000)
    ledger = Ledger(workspace)
    monkeypatch.setattr(ledger, "_here", "/somewhere/work")
    short = intend(ledger, "runs/aé", "runs/b")
    ledger.submitted(short, ["7_0", "7_1"])
    ledger.linked(short, ["8_0", "8_1"])
    ledger.released(short)
    ledger.cancelled(short, ["runs/b"])
    failure = Retried(cause="nccl timeout", signature="ab12", nodes=["n1"])
    full = ledger.intend(
        scheduler="slurm",
        kind="evaluate",
        grid="g\udc80",
        items=["evaluate/x"],
        sacct=False,
        chain=2,
        retries={"evaluate/x": failure, "evaluate/y": Retried(cause=None)},
        exclude=["n1", "n2"],
        cluster="c1",
        named=True,
    )
    ledger.submitted(full, ["9_0"], "c2")
    ledger.void(full, "sbatch failed")
    monkeypatch.setattr(ledger, "_is_groups", True)
    in_a_group = ledger.intend(scheduler="local", kind="prepare", grid="g", items=[])
    ledger.submitted(in_a_group, [])

    golden = Path(__file__).parent / "golden/ledger.jsonl"
    assert workspace.ledger.read_bytes() == golden.read_bytes()
    assert Ledger(workspace).submissions == ledger.submissions


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{"event": "linked", "submission": "x"}', "missing required field `ids`"),
        (
            '{"event": "linked", "submission": "x", "ids": 7}',
            "Expected `array`, got `int`",
        ),
        ('{"event": "released", "submission": "x"}', "is of submission x"),
        ("{}", "missing required field `event`"),
    ],
)
def test_a_foreign_row_is_one_error_with_the_path(
    workspace: Workspace, row: str, fault: str
) -> None:
    """What cannot be a row of a ledger is told, and where; never passed over."""
    workspace.ledger.write_text(row + "\n")

    with pytest.raises(Damaged, match=r"ledger\.jsonl: a row is") as caught:
        Ledger(workspace)
    assert fault in str(caught.value)


def test_a_later_event_is_passed_over(workspace: Workspace) -> None:
    """What a later zsg notes beside these rows keeps nobody from reading them."""
    submission = intend(Ledger(workspace), "runs/a")
    with workspace.ledger.open("a") as file:
        file.write('{"event": "moved", "submission": "x", "to": 7}\n')

    assert Ledger(workspace).last("runs/a") == submission


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\0" * 40, "40 zero bytes"),
        (b'{"event": "intent", "subm{"event": "submitted"}', "Expecting"),
        (b'{"event": "void", "submission": "\xff\xfe"}', "can't decode byte"),
        (b"[1, 2]", "no row of a ledger"),
    ],
)
def test_a_line_that_is_lost_is_named_and_nothing_is_submitted_until_it_is_settled(
    workspace: Workspace, line: bytes, reason: str, logged: list[str]
) -> None:
    """What else the ledger knows is known; rows of a submission that the line began are
    lost with it."""
    ledger = Ledger(workspace)
    first, second = intend(ledger, "runs/a"), intend(ledger, "runs/b")
    ledger.submitted(second, ["8_0"])
    lines = workspace.ledger.read_bytes().splitlines()
    lines[1] = line
    workspace.ledger.write_bytes(b"\n".join(lines) + b"\n")
    assert ledger.find_refusal() is None
    damaged = Ledger(workspace)

    assert list(damaged.submissions) == [first.id]
    refusal = str(damaged.find_refusal())
    assert f"{workspace.ledger}, line 2: " in refusal and reason in refusal
    assert "line 3: a row is of submission" in refusal and "squeue" in refusal
    assert sum(str(workspace.ledger) in text for text in logged) == 2


def test_arrangements_are_not_made_either_until_a_lost_line_is_settled(
    workspace: Workspace,
) -> None:
    """`zsg arrange make` submits prepare jobs, by the rules of a submit."""
    submission = Ledger(workspace).intend(
        scheduler="local", kind="prepare", grid="g", items=["prepare/p"]
    )
    assert submission.id
    with workspace.ledger.open("ab") as file:
        file.write(b"\0" * 40 + b"\n")
    opened = SimpleNamespace(
        site=SimpleNamespace(
            workspace=workspace, profile=Profile(name="p", kind="local")
        ),
        grid=SimpleNamespace(name="g"),
        runs=[],
        effects=[],
    )

    with pytest.raises(Damaged, match="is lost"):
        arrange_make._make_missing(opened)  # type: ignore[arg-type]
