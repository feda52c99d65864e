"""On a real Slurm: do waves of held-out splits wait for the look before them, and is each
run trained once, or spared, whatever becomes of the look?"""

import os
import signal
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract import look_decision
from jobs.contract.attempt import Attempt
from jobs.contract.causes import Cause
from jobs.contract.look_decision import LookDecision
from jobs.contract.states import State
from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg, wait_until
from tests.lib.forked_jobs import ForkedJobs, JobServer
from tests.lib.light_grid import CLUSTER, LIGHT
from tests.lib.looked_grid import make_splits, write_looked_grid
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import status_rows, wait_until_ended

pytestmark = pytest.mark.slurm

DECIDED = "all claims are decided at look 1 of"


@pytest.fixture(scope="module")
def splits(
    tmp_path_factory: pytest.TempPathFactory, tasks: Path, job_server: JobServer
) -> Path:
    """A workspace with what runs on every split need."""
    zsg = Zsg(tmp_path_factory.mktemp("splits"))
    make_splits(zsg, tasks, ForkedJobs(job_server))
    return zsg.work


@pytest.fixture
def looked(zsg_on_slurm: Zsg, splits: Path) -> Zsg:
    """The command line on a machine with Slurm, whose runs wait for nothing to be made."""
    copy_made(splits, zsg_on_slurm.work)
    return zsg_on_slurm


def submit(
    zsg: Zsg,
    tasks: Path,
    at: list[int],
    *options: str,
    effect: float = 1,
    step_s: float = 0.05,
    **environment: str,
) -> list[str]:
    """Submits the grid with looks after these numbers of splits, and returns its runs in
    order, those of one order first; random order has losses that are higher by the
    effect."""
    text = CLUSTER.format(light=LIGHT, step_s=step_s)
    values = {"LIGHT_EFFECT": str(effect), **environment}
    added = "".join(f'{key}: "{value}", ' for key, value in values.items())
    profile = zsg.write("slurm.yaml", text.replace("set: {", "set: {" + added))
    zsg("submit", write_looked_grid(zsg, tasks, at), "--profile", profile, *options)
    return [row["run"] for row in list_rows(zsg)]


def list_rows(zsg: Zsg) -> list[dict]:
    """The rows of status that are runs."""
    return [row for row in status_rows(zsg) if "/" not in row["run"]]


def split_of(runs: list[str]) -> dict[str, int]:
    """The split of each run of a grid, which lists one order on all splits, then the
    other."""
    return {run: place % (len(runs) // 2) for place, run in enumerate(runs)}


def list_starts(zsg: Zsg, runs: list[str]) -> list[Attempt | None]:
    """The newest start of each run; None of one that never began."""
    return [attempts.read_attempt(zsg.work / "runs" / run) for run in runs]


def count_starts(zsg: Zsg, runs: list[str]) -> set[int]:
    """How often runs have begun."""
    return {start.attempt if start else 0 for start in list_starts(zsg, runs)}


def read_decisions(zsg: Zsg) -> list[LookDecision]:
    """What looks have decided, in the order in which they did."""
    folders = (zsg.work / look_decision.FOLDER).glob("*")
    read = [look_decision.read_decision(folder) for folder in folders]
    return sorted(filter(None, read), key=lambda decision: decision.at)


def await_look(zsg: Zsg) -> Attempt:
    """The start of the first look that begins, while it looks."""
    begun: list[Attempt] = []

    def has_begun() -> bool:
        for folder in (zsg.work / look_decision.FOLDER).glob("*"):
            attempt = attempts.read_attempt(folder)
            if attempt is not None:
                begun.append(attempt)
        return bool(begun)

    wait_until(has_begun)
    return begun[0]


def sum_cpu_seconds(slurm: SlurmCluster, zsg: Zsg, runs: list[str]) -> int:
    """How long Slurm has given these runs a CPU."""
    jobs = {row["run"]: row["slurm"] for row in list_rows(zsg)}
    ids = ",".join(jobs[run] for run in runs)
    shown = slurm.run("sacct", "-X", "-n", "-P", "-j", ids, "-o", "CPUTimeRAW")
    return sum(map(int, shown.split()))


def assert_trained_and_spared(zsg: Zsg, trained: list[str], spared: list[str]) -> None:
    """Those are done and began once; these were spared, at their only start, and have
    not taken a step."""
    rows = {row["run"]: row for row in list_rows(zsg)}
    assert {rows[run]["state"] for run in trained} == {State.DONE}
    assert count_starts(zsg, trained) == {1}
    told = {(rows[run]["state"], rows[run]["cause"]) for run in spared}
    assert told == {(State.CANCELLED, Cause.SPARED)}
    assert count_starts(zsg, spared) == {1}
    assert not [run for run in spared if (zsg.work / "runs" / run / "state").exists()]


def test_a_look_that_decides_spares_the_wave_behind_it(
    looked: Zsg, tasks: Path
) -> None:
    """All are submitted at once; the wave behind begins only once the look has decided,
    and ends at once. Status says why, and nothing is submitted again."""
    runs = submit(looked, tasks, [4, 5])
    trained = [run for run, split in split_of(runs).items() if split < 4]
    spared = [run for run in runs if run not in trained]
    rows = wait_until_ended(looked, 240)

    [decision] = read_decisions(looked)
    assert decision.is_over
    assert decision.claims == ["rises: supported"]
    assert_trained_and_spared(looked, trained, spared)
    assert all(
        start is not None and start.started >= decision.at
        for start in list_starts(looked, spared)
    )
    assert [row["evidence"] for row in rows if row["run"] in spared] == [
        f"{DECIDED} 2: supported"
    ] * 2
    assert submit(looked, tasks, [4, 5], "--retry") == runs
    assert count_starts(looked, runs) == {1}


@pytest.mark.soak(part="slurm")
def test_a_study_without_an_effect_goes_through_all_waves(
    looked: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """Each wave begins once the look before it has decided, and each run once."""
    runs = submit(looked, tasks, [4, 5, 6], effect=0)
    wait_until_ended(looked, 300)
    first, second = read_decisions(looked)

    assert not first.is_over
    assert not second.is_over
    assert_trained_and_spared_none(looked, runs)
    for run, split in split_of(runs).items():
        [start] = list_starts(looked, [run])
        assert start is not None
        assert (start.started >= first.at) == (split >= 4)
        assert (start.started >= second.at) == (split >= 5)
    assert sum_cpu_seconds(slurm, looked, runs) > 0


def assert_trained_and_spared_none(zsg: Zsg, runs: list[str]) -> None:
    """All are done, and began once."""
    assert {row["state"] for row in list_rows(zsg)} == {State.DONE}
    assert count_starts(zsg, runs) == {1}


@pytest.mark.soak(part="slurm")
def test_a_look_that_is_requeued_decides_the_same(
    looked: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """The waves behind it wait on; the report says when it was decided, and what spared
    runs cost is seconds."""
    runs = submit(looked, tasks, [4, 5, 6])
    start = await_look(looked)
    slurm.run("scontrol", "requeue", str(start.slurm_job_id))
    wait_until_ended(looked, 300)
    decisions = read_decisions(looked)
    trained = [run for run, split in split_of(runs).items() if split < 4]
    spared = [run for run in runs if run not in trained]

    assert [decision.is_over for decision in decisions] == [True, True]
    assert {tuple(decision.claims) for decision in decisions} == {("rises: supported",)}
    assert_trained_and_spared(looked, trained, spared)
    looks = (looked.work / look_decision.FOLDER).glob("*")
    newest = [attempts.read_attempt(folder) for folder in looks]
    assert sorted(each.attempt for each in newest if each) == [1, 2]
    of_spared = sum_cpu_seconds(slurm, looked, spared)
    assert of_spared < sum_cpu_seconds(slurm, looked, trained)
    looked("report", "looked")
    page = (looked.work / "grids/looked/report/report.html").read_text()
    assert "look 1 of 3" in page
    files = [looked.folder / name for name in ("looked.yaml", "slurm.yaml")]
    assert "report looked" in looked("plan", files[0], "--profile", files[1])


@pytest.mark.soak(part="slurm")
def test_what_is_behind_a_look_that_was_killed_comes_by_retry(
    looked: Zsg, tasks: Path
) -> None:
    """No run behind it begins, also behind the next look, and each says why; retried, the
    look decides as it would have, and no run has begun twice."""
    runs = submit(looked, tasks, [4, 5, 6])
    start = await_look(looked)
    os.kill(start.pid, signal.SIGKILL)
    wait_until_ended(looked, 300)
    trained = [run for run, split in split_of(runs).items() if split < 4]
    behind = [run for run in runs if run not in trained]

    def list_causes() -> set[str]:
        rows = list_rows(looked)
        return {row["cause"] for row in rows if row["run"] in behind}

    # the last sign of life of the look is a moment old, so it may yet live
    wait_until(lambda: list_causes() == {Cause.LOOK_FAILED})
    assert count_starts(looked, behind) == {0}
    assert read_decisions(looked) == []
    looked("retry", "looked")
    wait_until_ended(looked, 300)
    assert_trained_and_spared(looked, trained, behind)
    assert read_decisions(looked)[0].why == f"{DECIDED} 3: supported"


@pytest.mark.soak(part="slurm")
def test_a_grid_that_is_edited_in_mid_wave_trains_no_run_twice(
    looked: Zsg, tasks: Path
) -> None:
    """A split is added while the first wave trains: the look of the old design spares
    nothing, so that the runs behind it are there for the new one, which spares the
    split."""
    before = submit(looked, tasks, [4, 5], step_s=0.5)
    wait_until(lambda: any(list_starts(looked, before)))
    because = ("--because", "a split more")
    runs = submit(looked, tasks, [4, 5, 6], *because, step_s=0.5)
    wait_until_ended(looked, 300)
    trained = [run for run, split in split_of(runs).items() if split < 5]
    spared = [run for run in runs if run not in trained]

    assert set(before) == set(trained)
    assert_trained_and_spared(looked, trained, spared)
    assert [decision.is_over for decision in read_decisions(looked)] == [True, True]
    again = submit(looked, tasks, [4, 5, 6], "--retry")
    assert again == runs
    assert count_starts(looked, runs) == {1}


@pytest.mark.soak(part="slurm")
def test_a_first_run_that_diverges_stops_all_waves(looked: Zsg, tasks: Path) -> None:
    """Not only its own: the looks never start, nor do the runs behind them."""
    runs = submit(looked, tasks, [4, 5, 6], LIGHT_DIVERGES="yes")
    rows = wait_until_ended(looked, 240)

    assert sorted(start is not None for start in list_starts(looked, runs)) == [
        *[False] * 11,
        True,
    ]
    causes = [row["cause"] for row in rows]
    assert causes.count(Cause.CANARY_FAILED) == 7
    assert causes.count(Cause.LOOK_FAILED) == 4
    assert read_decisions(looked) == []


@pytest.mark.soak(part="slurm")
def test_a_study_that_is_cancelled_in_mid_wave_goes_on_when_retried(
    looked: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """Its looks leave the queue with its runs; retried, both come again, and runs behind a
    look that decides are spared."""
    runs = submit(looked, tasks, [4, 5], step_s=0.5)
    wait_until(lambda: any(list_starts(looked, runs)))
    looked("cancel", "looked", "--yes")
    wait_until_ended(looked, 300)
    wait_until(lambda: not slurm.run("squeue", "-h"))
    assert read_decisions(looked) == []
    submit(looked, tasks, [4, 5], "--retry")
    wait_until_ended(looked, 300)

    assert [decision.is_over for decision in read_decisions(looked)] == [True]
    states = [row["state"] for row in list_rows(looked)]
    assert states.count(State.DONE) == 8
    assert states.count(State.CANCELLED) == 2
    assert {row["cause"] for row in list_rows(looked)} == {None, Cause.SPARED}
