"""Does an interrupted run end with the weights, the numbers and the digests of one that
was never disturbed?"""

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.contract.folder import read_json, write_json
from jobs.contract.item_losses import read_test_losses
from jobs.contract.journal import list_journal_files
from jobs.training.state import newest_step
from tests.lib.forked_jobs import wait_until
from tests.lib.journal_rows import plain_rows
from tests.lib.train_bench import (
    EXIT_S,
    MANY,
    STEPS,
    Bench,
    reached,
    starts,
    stop,
    told,
)

# within which a rank notices that its peer is gone; far less than the half hour of a collective
LEFT_S = 60.0
CONFIGURATIONS = [
    (1, 1, "fp32"),
    (1, 2, "bf16"),
    (2, 1, "fp32"),
    (2, 2, "bf16"),
    (2, 3, "fp32"),
    (2, 3, "bf16"),
]


Question = Callable[[], bool]


def mid_step(folder: Path, chance: random.Random) -> Question:
    """Whether a step of the new attempt has been reached."""
    step, before = chance.randrange(1, STEPS), len(list_journal_files(folder))
    return lambda: len(list_journal_files(folder)) > before and reached(folder, step)


def mid_save(folder: Path, chance: random.Random) -> Question:
    """Whether a new draft of a state has appeared."""
    before = set((folder / "state").glob(".*"))
    return lambda: bool(set((folder / "state").glob(".*")) - before)


def mid_commit(folder: Path, chance: random.Random) -> Question:
    """Whether a new draft is complete."""
    before = set((folder / "state").glob(".*/state.json"))
    return lambda: bool(set((folder / "state").glob(".*/state.json")) - before)


def after_commit(folder: Path, chance: random.Random) -> Question:
    """Whether a new state stands beside, or instead of, the older one."""
    before = newest_step(folder)
    return lambda: newest_step(folder) != before


MOMENTS = [mid_step, mid_save, mid_commit, after_commit]


def disturb(
    bench: Bench, folder: Path, world: int, chance: random.Random, number: int
) -> None:
    """Starts the run and kills a rank, or all, at a random moment; a rank that is left
    must end by itself."""
    moment = MOMENTS[number % len(MOMENTS)](folder, chance)
    ranks = bench.jobs.start(folder, world)
    wait_until(lambda: moment() or ranks[0].ended())
    victims = chance.choice([ranks, [chance.choice(ranks)]])
    for rank in victims:
        rank.send(signal.SIGKILL)
    for rank in ranks:
        assert rank.ended(within_s=LEFT_S), (
            f"rank {ranks.index(rank)} outlives {len(victims)} killed: {rank.stack()}"
        )


def survives(bench: Bench, seed: int, configuration: tuple[int, int, str]) -> None:
    """Killed three times, the run ends as if it had never been."""
    world, zero, precision = configuration
    chance = random.Random(seed)
    folder = bench.make(zero, precision, state_every=2)
    saved = [None]
    for kill in range(3):
        disturb(bench, folder, world, chance, seed + kill)
        saved.append(newest_step(folder))
    # before the last kill
    had_ended = (read_json(folder / "exit.json") or {}).get("outcome") == "done"
    record = bench.jobs.run(folder, world)

    assert record["outcome"] == "done", record
    assert told(folder) == bench.undisturbed(world, zero, precision)
    goes_on = starts(folder)[-1]["from"] == (saved[-1] or 0)
    assert had_ended or goes_on, "the last attempt did not go on from what was saved"
    assert not (folder / "state").exists()
    print(
        f"seed {seed}, {world} rank(s), ZeRO-{zero}, {precision}: went on from"
        f" {[s['from'] for s in starts(folder)]}"
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_ends_with_the_same_weights(bench: Bench, seed: int) -> None:
    """`kill -9` at random moments, saves and commits among them: weights, numbers and
    digests are the undisturbed."""
    survives(bench, seed, [(1, 1, "fp32"), (2, 2, "bf16")][seed % 2])


@pytest.mark.soak(part="models")
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_killed_run_ends_with_the_same_weights_in_every_configuration(
    bench: Bench, seed: int
) -> None:
    """Twenty times, over numbers of ranks, ZeRO stages and precisions."""
    survives(bench, seed, CONFIGURATIONS[seed % len(CONFIGURATIONS)])


@pytest.mark.soak(part="models")
def test_a_second_copy_of_the_weights_changes_no_number(bench: Bench) -> None:
    """hpZ of ZeRO 3, also over checkpoints, and through a pause and a resume."""
    folder = bench.make(zero=3, precision="bf16", epochs=MANY)
    job = read_json(folder / "job.json")
    job["deepspeed"]["zero_optimization"]["zero_hpz_partition_size"] = 2
    write_json(folder / "job.json", job)
    stop(bench.jobs.start(folder, 2), folder, 9, signal.SIGUSR2)

    assert bench.jobs.run(folder, 2)["outcome"] == "done"
    assert told(folder) == bench.undisturbed(2, 3, "bf16", MANY)


@pytest.mark.parametrize("world", [1, 2])
def test_the_announced_end_loses_no_step(bench: Bench, world: int) -> None:
    """On USR2 a run saves after the step it is in, is to be continued, and computes no
    step twice."""
    folder, record = bench.stopped(signal.SIGUSR2, world, state_every=None)

    assert (record["outcome"], record["evidence"]) == ("continue", "SIGUSR2")
    assert record["step"] == record["saved"] == newest_step(folder) >= 9
    assert bench.jobs.run(folder, world)["outcome"] == "done"
    steps = [row["step"] for row in plain_rows(folder) if "train/loss" in row["data"]]
    assert steps == list(range(1, MANY * STEPS + 1))
    assert told(folder) == bench.undisturbed(world, 1, "fp32", MANY)
    rewinds = [
        (row["attempt"], row["step"], row["examples"])
        for row in plain_rows(folder)
        if row["kind"] == "rewind"
    ]
    assert rewinds == [(2, record["step"], 8 * record["step"])]


@pytest.mark.parametrize(
    ("state_every", "kill_wait_s", "saves"),
    [
        pytest.param(4, 30, True, id="a save like the last one fits"),
        pytest.param(4, 10, False, id="SIGKILL would come too soon"),
        pytest.param(None, 30, False, id="no save was ever measured"),
    ],
)
def test_a_cancelled_run_saves_only_if_there_is_time(
    bench: Bench, state_every: int | None, kill_wait_s: int, saves: bool
) -> None:
    """On SIGTERM a run saves if its last save says that SIGKILL will not come in
    between, and is cancelled."""
    folder = bench.make(epochs=MANY, state_every=state_every)
    job = read_json(folder / "job.json")
    job["resources"]["kill_wait_s"] = kill_wait_s
    write_json(folder / "job.json", job)
    stop(bench.jobs.start(folder), folder, 9, signal.SIGTERM)
    record = read_json(folder / "exit.json")

    assert record["outcome"] == "cancelled"
    assert record["saved"] == newest_step(folder)
    assert (record["saved"] == record["step"]) == saves
    assert (record["saved"] is None) == (state_every is None)


def test_a_finished_run_keeps_its_state_only_if_asked(bench: Bench) -> None:
    """What the last save left is removed when a run is done, unless the grid says keep."""
    folder = bench.make(keep_state=True)
    bench.jobs.run(folder)

    assert newest_step(folder) == 16
    assert [path.name for path in (folder / "state").iterdir()] == ["16"]


def test_another_number_of_ranks_starts_over_and_says_so(bench: Bench) -> None:
    """A state of two ranks is not read by one: the run starts over, says why, and its
    numbers agree."""
    folder, _ = bench.stopped(signal.SIGUSR2, world=2)
    record = bench.jobs.run(folder)

    assert (record["outcome"], starts(folder)[-1]["from"]) == ("done", 0)
    assert "is of another world (2, now 1)" in starts(folder)[-1]["passed_over"]
    assert told(folder)["digest"] == bench.undisturbed(1, 1, "fp32", MANY)["digest"]


def test_other_ids_than_the_schedules_are_refused(bench: Bench) -> None:
    """If what was consumed is not what the schedule says, nothing is trained and both
    digests are named."""
    folder, _ = bench.stopped(signal.SIGUSR2, world=2)
    path = next((folder / "state").glob("*/state.json"))
    saved = json.loads(path.read_text())
    write_json(path, saved | {"ids": "0" * 64})
    record = bench.jobs.run(folder, 2)

    assert (record["outcome"], record["cause"]) == ("failed", "cluster")
    assert "0" * 64 in record["evidence"]
    assert saved["ids"] in record["evidence"]
    assert len(starts(folder)) == 1


def test_a_full_disk_leaves_the_older_state(bench: Bench) -> None:
    """If a state cannot be written, the run fails with the reason, leaves nothing half
    written, and can go on."""
    folder, first = bench.stopped(signal.SIGUSR2)
    record = bench.jobs.run(folder, largest_file=1_000_000)

    assert (record["outcome"], record["saved"]) == ("failed", first["step"])
    assert "could not be saved" in record["evidence"]
    assert f"that of step {first['step']} is intact" in record["evidence"]
    assert [path.name for path in (folder / "state").iterdir()] == [str(first["step"])]
    assert bench.jobs.run(folder)["outcome"] == "done"
    assert told(folder) == bench.undisturbed(1, 1, "fp32", MANY)


def test_a_superseded_attempt_commits_no_state(bench: Bench) -> None:
    """Once a newer attempt owns the folder, the older one ends, with at most the commit
    that was under way."""
    folder = bench.make(epochs=MANY, state_every=1)
    [rank] = bench.jobs.start(folder)
    wait_until(lambda: newest_step(folder))
    write_json(
        folder / "attempt.json",
        read_json(folder / "attempt.json") | {"nonce": "of another", "attempt": 2},
    )
    newest = newest_step(folder)

    assert rank.ended(within_s=EXIT_S)
    assert newest <= newest_step(folder) <= newest + 1
    assert read_json(folder / "exit.json") is None


QUICK = {"items": 3, "full_every": 9}


def test_a_quick_set_is_a_curve_of_its_own_through_a_restart(bench: Bench) -> None:
    """The quick loss is there at every checkpoint, the whole one at its own; a restart
    changes no bit of either."""
    folder, _ = bench.stopped(signal.SIGUSR2, quick=QUICK)
    first = read_test_losses(folder)
    assert bench.jobs.run(folder)["outcome"] == "done"
    facts, last = told(folder), MANY * STEPS
    undisturbed = bench.undisturbed(1, 1, "fp32", MANY)

    assert facts["quick"] == {
        "loss_quick_3": sorted({*range(0, last + 1, 6), *range(0, last + 1, 9)})
    }
    assert facts["checkpoints"] == list(range(0, last + 1, 9))
    assert [facts["loss", step] for step in range(0, last + 1, 18)] == [
        undisturbed["loss", step] for step in range(0, last + 1, 18)
    ]
    whole, quick = read_test_losses(folder), read_test_losses(folder, "loss_quick_3")
    assert (whole.steps, quick.steps) == (
        facts["checkpoints"],
        facts["quick"]["loss_quick_3"],
    )
    assert whole.losses[: len(first.steps)].tolist() == first.losses.tolist()
    for key, kept in (("loss", whole), ("loss_quick_3", quick)):
        means = [facts[key, step] for step in kept.steps]
        assert kept.losses.mean(axis=1) == pytest.approx(means, rel=1e-6)
    assert set(quick.ids) < set(whole.ids) and len(quick.ids) == 3


def test_what_a_base_scores_is_computed_once(bench: Bench) -> None:
    """A run takes step 0 from another one of its base, says so, and has what it would
    have computed."""
    first = bench.make(quick=QUICK)
    bench.jobs.run(first)
    second = bench.make(quick=QUICK, state_every=None)
    shutil.copytree(
        first.parent.parent / "first_losses", second.parent.parent / "first_losses"
    )
    bench.jobs.run(second)
    taken = [
        [
            row["data"]["what"]
            for row in plain_rows(folder)
            if row["data"].get("event") == "taken"
        ]
        for folder in (first, second)
    ]

    assert taken == [[], ["loss", "loss_quick_3"]]
    assert told(first) == told(second)
    assert (
        read_test_losses(first).losses.tobytes()
        == read_test_losses(second).losses.tobytes()
    )


def test_another_precision_takes_nothing(bench: Bench) -> None:
    """What a base scores in fp32 is not taken for bf16."""
    first, second = bench.make(), bench.make(precision="bf16")
    bench.jobs.run(first)
    shutil.copytree(
        first.parent.parent / "first_losses", second.parent.parent / "first_losses"
    )
    bench.jobs.run(second)

    assert not [
        row for row in plain_rows(second) if row["data"].get("event") == "taken"
    ]
    assert len(list((second.parent.parent / "first_losses").iterdir())) == 2
