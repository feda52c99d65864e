"""Does one evaluator at a time work at a snapshot, and is nothing held by the dead?"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from jobs.contract import leases
from jobs.contract.leases import Lost, claim_lease, is_leased, path_of


def claim_it(
    run: Path, holder: str = "evaluate/a", lost_s: float = 60.0
) -> leases.Lease | None:
    """A claim on the snapshot of step 5."""
    return claim_lease(
        path_of(run, 5, "test_set"), holder, f"{holder[-1]}.jsonl", ["rouge1"], lost_s
    )


def age(run: Path, seconds: float) -> None:
    """Makes the lease look as if its holder had been silent for so long."""
    then = time.time() - seconds
    os.utime(path_of(run, 5, "test_set"), (then, then))


def left(run: Path) -> list[str]:
    """What the queue has beside its clock."""
    return sorted(
        path.name for path in (run / "queue").iterdir() if path.name != ".clock"
    )


def test_one_of_many_gets_a_lease(tmp_path: Path) -> None:
    """Whoever asks at the same time; the others leave nothing behind."""
    with ThreadPoolExecutor(16) as pool:
        made = list(
            pool.map(lambda number: claim_it(tmp_path, f"evaluate/{number}"), range(16))
        )

    assert sum(one is not None for one in made) == 1
    assert left(tmp_path) == ["5.test_set.lease"]


def test_a_silent_holders_lease_goes_to_one_of_many(tmp_path: Path) -> None:
    """Who takes it over learns whose it was; the former holder may write no more, and
    cannot let it go."""
    first = claim_it(tmp_path)
    assert first and claim_it(tmp_path, "evaluate/b") is None
    age(tmp_path, 61)
    with ThreadPoolExecutor(16) as pool:
        made = [
            one
            for one in pool.map(
                lambda number: claim_it(tmp_path, f"evaluate/{number}"), range(16)
            )
            if one
        ]

    [second] = made
    [before] = second.before
    assert (before.holder, before.journal) == ("evaluate/a", "a.jsonl")
    second.forget()
    with pytest.raises(Lost):
        first.check()
    first.touch()
    first.release()
    second.check()
    assert left(tmp_path) == ["5.test_set.lease"]


def test_a_holder_that_lives_keeps_its_lease(tmp_path: Path) -> None:
    """By touching it, however long its work takes."""
    first = claim_it(tmp_path)
    assert first
    age(tmp_path, 61)
    assert not is_leased(tmp_path, 5)
    first.touch()

    assert claim_it(tmp_path, "evaluate/b") is None
    assert is_leased(tmp_path, 5)
    first.release()
    assert not left(tmp_path)


def test_a_lease_of_work_that_is_done_is_removed(tmp_path: Path) -> None:
    """Its holder was killed between the last row and letting go; one whose metrics are
    yet to be taken stays."""
    claim_it(tmp_path)
    leases.sweep_leases(tmp_path, lambda step, keys: False)
    assert left(tmp_path) == ["5.test_set.lease"]
    leases.sweep_leases(tmp_path, lambda step, keys: (step, keys) == (5, ["rouge1"]))
    assert not left(tmp_path)


def test_a_lease_behind_a_link_stays(tmp_path: Path) -> None:
    """What looks like the lease of work that is done, in a folder that the queue is a
    link to; nor one of no step."""
    run, outside = tmp_path / "runs/r", tmp_path / "mine"
    run.mkdir(parents=True)
    outside.mkdir()
    (run / "queue").symlink_to(outside)
    for name in ("5.test_set.lease", "5x.test_set.lease"):
        lease = leases.LeaseRecord(
            nonce="n", holder="h", host="n1", journal="j", keys=["rouge1"], since=0
        )
        (outside / name).write_bytes(msgspec.json.encode(lease))
    leases.sweep_leases(run, lambda step, keys: True)

    assert sorted(path.name for path in outside.iterdir()) == [
        "5.test_set.lease",
        "5x.test_set.lease",
    ]
