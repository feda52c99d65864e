"""Does an interrupted run end with the weights, the numbers and the digests of one that was never disturbed?"""

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_jobs import ForkedJobs, Rank, wait_until

from jobs.folder import read_json, write_json
from jobs.journal import SPEED, files, first_points, last_rows, read
from jobs.state import newest_step
from launcher import job_files
from launcher.plan import Prepare, run_item
from launcher.runs import Run
from launcher.session import open_grid
from launcher.submit import Site
from zsg_core import skills

STEPS = 18  # of one epoch
MANY = 4  # epochs that leave time to disturb
EXIT_S = 20.0  # within which every rank leaves that was told to
LEFT_S = 60.0  # within which a rank notices that its peer is gone; far less than the half hour of a collective
CONFIGURATIONS = [(1, 1, "fp32"), (1, 2, "bf16"), (2, 1, "fp32"), (2, 2, "bf16"), (2, 3, "fp32"), (2, 3, "bf16")]


class Bench:
    """A workspace with one data set, in which runs are made and started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.jobs = folder, folder / "tasks", ForkedJobs()
        self._made = 0
        self._undisturbed: dict[Any, dict[Any, Any]] = {}
        skills.write_tasks(self.data, per_task=6)

    def make(self, zero: int = 1, precision: str = "fp32", epochs: int = 1, **checkpoints: Any) -> Path:
        """The folder of a new run of 18 steps an epoch, ready to start; no two runs share a workspace."""
        self._made += 1
        folder = self.folder / f"run{self._made}"
        folder.mkdir()
        grid = {
            "model": {"name": "tiny", "hidden": 64, "layers": 2, "vocab": 600},
            "data": {"path": str(self.data), "train_per_task": 6, "test_per_task": 1, "positive_examples": 0},
            "train": {"batch": 8, "lr": 2e-3, "max_length": 96, "precision": precision, "epochs": epochs},
            "checkpoints": {"every": 6, "state_every": 4, **checkpoints},
        }
        profile = {"name": "p", "kind": "slurm", "deepspeed": {"zero_stage": zero}}
        write_json(folder / "grid.yaml", {"name": "g", "defaults": grid, "grid": {"arrangement.order": ["random"]}})
        write_json(folder / "p.yaml", profile)
        opened = open_grid(folder / "grid.yaml", str(folder / "p.yaml"), folder / "work")
        return self._prepare(opened.site, opened.runs[0])

    def _prepare(self, site: Site, run: Run) -> Path:
        prepare = Prepare("prepare/p", [run], set(run.needs))
        job_files.write_prepare(site.workspace, prepare, site.profile, "s")
        job_files.write_train(site.workspace, run, site.profile, "s", (), is_start=False)
        assert self.jobs.run(site.workspace.root / "prepare/p")["outcome"] == "done"
        return site.workspace.root / run_item(run)

    def undisturbed(self, world: int, zero: int, precision: str, epochs: int = 1) -> dict[Any, Any]:
        """What the run tells that nobody disturbs and that saves nothing."""
        key = (world, zero, precision, epochs)
        if key not in self._undisturbed:
            folder = self.make(zero, precision, epochs, state_every=None)
            assert self.jobs.run(folder, world)["outcome"] == "done"
            self._undisturbed[key] = told(folder)
        return self._undisturbed[key]

    def stopped(self, number: int, world: int = 1, step: int = 9, **how: Any) -> tuple[Path, dict[str, Any]]:
        """A long run that was sent a signal once it had reached a step, and its exit record."""
        folder = self.make(epochs=MANY, **how)
        stop(self.jobs.start(folder, world), folder, step, number)
        return folder, read_json(folder / "exit.json")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One bench for all: its jobs' imports are the dear part."""
    made = Bench(tmp_path_factory.mktemp("resume"))
    yield made
    made.jobs.stop()


def told(folder: Path) -> dict[Any, Any]:
    """Every number that counts by (key, step), every digest of ids, the weights; all attempts must agree on them."""
    points, disagree = first_points(read(folder))
    assert disagree == []
    facts: dict[Any, Any] = {(p.key, p.step): p.value for p in points if not p.key.startswith(SPEED)}
    for row in read(folder):
        if row["kind"] == "digest":
            assert facts.setdefault(("ids", row["step"]), row["data"]["ids"]) == row["data"]["ids"]
    record = read_json(folder / "exit.json")
    return facts | {"weights": record["weights"], "digest": record["digest"], "checkpoints": record["checkpoints"]}


def starts(folder: Path) -> list[dict[str, Any]]:
    """How each attempt began."""
    return [row["data"] for row in read(folder) if row["data"].get("event") == "start"]


def reached(folder: Path, step: int) -> bool:
    """Whether the newest attempt has journalled a step, or a later one."""
    listed = files(folder)
    return bool(listed) and any(row["step"] >= step for row in last_rows(listed[-1]))


def stop(ranks: list[Rank], folder: Path, step: int, number: int) -> None:
    """Sends a signal to all ranks once a step is reached; all must leave in time."""
    wait_until(lambda: reached(folder, step) or ranks[0].ended())
    for rank in ranks:
        rank.send(number)
    until = time.monotonic() + EXIT_S
    for rank in ranks:
        assert rank.ended(within_s=until - time.monotonic()), "a rank has not left"


Question = Callable[[], bool]


def mid_step(folder: Path, chance: random.Random) -> Question:
    """Whether a step of the new attempt has been reached."""
    step, before = chance.randrange(1, STEPS), len(files(folder))
    return lambda: len(files(folder)) > before and reached(folder, step)


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


def disturb(bench: Bench, folder: Path, world: int, chance: random.Random, number: int) -> None:
    """Starts the run and kills a rank, or all, at a random moment; a rank that is left must end by itself."""
    moment = MOMENTS[number % len(MOMENTS)](folder, chance)
    ranks = bench.jobs.start(folder, world)
    wait_until(lambda: moment() or ranks[0].ended())
    victims = chance.choice([ranks, [chance.choice(ranks)]])
    for rank in victims:
        rank.send(signal.SIGKILL)
    for rank in ranks:
        assert rank.ended(within_s=LEFT_S), f"rank {ranks.index(rank)} outlives {len(victims)} killed: {rank.stack()}"


def survives(bench: Bench, seed: int, configuration: tuple[int, int, str]) -> None:
    """Killed three times, the run ends as if it had never been."""
    world, zero, precision = configuration
    chance = random.Random(seed)
    folder = bench.make(zero, precision, state_every=2)
    saved = [None]
    for kill in range(3):
        disturb(bench, folder, world, chance, seed + kill)
        saved.append(newest_step(folder))
    record = bench.jobs.run(folder, world)

    assert record["outcome"] == "done", record
    assert told(folder) == bench.undisturbed(world, zero, precision)
    assert starts(folder)[-1]["from"] == (saved[-1] or 0), "the last attempt did not go on from what was saved"
    assert not (folder / "state").exists()
    print(f"seed {seed}, {world} rank(s), ZeRO-{zero}, {precision}: went on from {[s['from'] for s in starts(folder)]}")


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_ends_with_the_same_weights(bench: Bench, seed: int) -> None:
    """`kill -9` at random moments, saves and commits among them: weights, numbers and digests are the undisturbed."""
    survives(bench, seed, [(1, 1, "fp32"), (2, 2, "bf16")][seed % 2])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_killed_run_ends_with_the_same_weights_in_every_configuration(bench: Bench, seed: int) -> None:
    """Twenty times, over numbers of ranks, ZeRO stages and precisions."""
    survives(bench, seed, CONFIGURATIONS[seed % len(CONFIGURATIONS)])


@pytest.mark.parametrize("world", [1, 2])
def test_the_announced_end_loses_no_step(bench: Bench, world: int) -> None:
    """On USR2 a run saves after the step it is in, is to be continued, and computes no step twice."""
    folder, record = bench.stopped(signal.SIGUSR2, world, state_every=None)

    assert (record["outcome"], record["evidence"]) == ("continue", "SIGUSR2")
    assert record["step"] == record["saved"] == newest_step(folder) >= 9
    assert bench.jobs.run(folder, world)["outcome"] == "done"
    steps = [row["step"] for row in read(folder) if "train/loss" in row["data"]]
    assert steps == list(range(1, MANY * STEPS + 1))
    assert told(folder) == bench.undisturbed(world, 1, "fp32", MANY)
    rewinds = [(row["attempt"], row["step"], row["examples"]) for row in read(folder) if row["kind"] == "rewind"]
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
    """On SIGTERM a run saves if its last save says that SIGKILL will not come in between, and is cancelled."""
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
    """A state of two ranks is not read by one: the run starts over, says why, and its numbers agree."""
    folder, _ = bench.stopped(signal.SIGUSR2, world=2)
    record = bench.jobs.run(folder)

    assert (record["outcome"], starts(folder)[-1]["from"]) == ("done", 0)
    assert "is of another world (2, now 1)" in starts(folder)[-1]["passed_over"]
    assert told(folder)["digest"] == bench.undisturbed(1, 1, "fp32", MANY)["digest"]


def test_other_ids_than_the_schedules_are_refused(bench: Bench) -> None:
    """If what was consumed is not what the schedule says, nothing is trained and both digests are named."""
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
    """If a state cannot be written, the run fails with the reason, leaves nothing half written, and can go on."""
    folder, first = bench.stopped(signal.SIGUSR2)
    record = bench.jobs.run(folder, largest_file=1_000_000)

    assert (record["outcome"], record["saved"]) == ("failed", first["step"])
    assert "could not be saved" in record["evidence"]
    assert f"that of step {first['step']} is intact" in record["evidence"]
    assert [path.name for path in (folder / "state").iterdir()] == [str(first["step"])]
    assert bench.jobs.run(folder)["outcome"] == "done"
    assert told(folder) == bench.undisturbed(1, 1, "fp32", MANY)


def test_a_superseded_attempt_commits_no_state(bench: Bench) -> None:
    """Once a newer attempt owns the folder, the older one ends, with at most the commit that was under way."""
    folder = bench.make(epochs=MANY, state_every=1)
    [rank] = bench.jobs.start(folder)
    wait_until(lambda: newest_step(folder))
    write_json(folder / "attempt.json", read_json(folder / "attempt.json") | {"nonce": "of another", "attempt": 2})
    newest = newest_step(folder)

    assert rank.ended(within_s=EXIT_S)
    assert newest <= newest_step(folder) <= newest + 1
    assert read_json(folder / "exit.json") is None
