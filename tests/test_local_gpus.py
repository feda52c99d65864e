"""Has each job on this machine GPUs of its own?"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.contract.folder import Workspace, publish_folder
from launcher.clusters.profiles import Profile
from launcher.planning import model_proofs
from launcher.submission import local, local_gpus
from launcher.submission.local_gpus import GpuPool, GpuShare, LocalGpu, list_gpus
from tests.lib.job_records import job_record, write_job_file

UUIDS = ("GPU-1a2b", "GPU-3c4d", "GPU-5e6f")
LISTED = "".join(f"{index}, {uuid}\n" for index, uuid in enumerate(UUIDS))
GPUS = [LocalGpu(str(index), uuid) for index, uuid in enumerate(UUIDS)]


def answer(text: str) -> Any:
    """An nvidia-smi that prints a text."""
    return lambda *command, **options: SimpleNamespace(stdout=text)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which there is an nvidia-smi."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


@pytest.mark.parametrize(
    ("environment", "names", "uuids"),
    [
        pytest.param({}, UUIDS, UUIDS, id="all of the machine"),
        pytest.param(
            {"CUDA_VISIBLE_DEVICES": "2,0"},
            ("2", "0"),
            (UUIDS[2], UUIDS[0]),
            id="those that the user names",
        ),
        pytest.param(
            {"CUDA_VISIBLE_DEVICES": "GPU-3c,MIG-7"},
            ("GPU-3c", "MIG-7"),
            (UUIDS[1], "MIG-7"),
            id="by the beginning of a UUID, and a part of a GPU",
        ),
        pytest.param(
            {"CUDA_VISIBLE_DEVICES": "1,-1,0"}, ("1",), UUIDS[1:2], id="up to -1"
        ),
        pytest.param({"CUDA_VISIBLE_DEVICES": ""}, (), (), id="none"),
    ],
)
def test_the_gpus_of_jobs_are_those_that_the_user_shows(
    driver: Path, environment: dict[str, str], names: tuple[str, ...], uuids: Any
) -> None:
    """As CUDA reads its variable; without it, what the driver lists."""
    found = list_gpus(environment)

    assert tuple(gpu.name for gpu in found) == names
    assert tuple(gpu.uuid for gpu in found) == tuple(uuids)


@pytest.mark.parametrize(
    "text",
    ["", "NVIDIA-SMI has failed because it couldn't communicate with the driver\n"],
)
def test_a_driver_that_does_not_answer_tells_of_no_gpus(
    driver: Path, text: str
) -> None:
    """Jobs then run as on a machine without any."""

    def hang(*command: Any, **options: Any) -> Any:
        raise subprocess.TimeoutExpired("nvidia-smi", 30)

    assert list_gpus({}, answer(text)) == list_gpus({}, hang) == []


def test_a_driver_that_cannot_be_killed_holds_nothing_up(
    driver: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A node's driver may hang where no signal reaches it: it is left alone, and told."""
    monkeypatch.setattr(local_gpus, "LOOK_S", 0.2)
    driver.write_text("#!/bin/sh\nexec sleep 600\n")
    real_wait, waits = subprocess.Popen.wait, list[float | None]()

    def wait(process: Any, timeout: float | None = None) -> int:
        waits.append(timeout)
        if timeout is None:
            raise AssertionError("waited without end")
        return real_wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    assert list_gpus({"CUDA_VISIBLE_DEVICES": "3"}) == [LocalGpu("3", "3")]
    assert waits != []
    assert "does not list the GPUs" in caplog.text


def test_a_full_machine_leaves_waiting_jobs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While all GPUs are taken, nobody locks the folders of jobs that wait, and what
    they need is looked through once; a job without a GPU starts all the same."""
    started: list[str] = []

    def start(command: list[str], **options: Any) -> Any:
        started.append(Path(command[-1]).name)
        return SimpleNamespace(poll=lambda: None)

    locked: list[Path] = []
    looked: list[Path] = []
    real_lock, real_look = local.locks.try_lock, model_proofs.is_whole
    monkeypatch.setattr(local.subprocess, "Popen", start)
    monkeypatch.setattr(local.code_snapshot, "refuse_strange", lambda *given: None)
    monkeypatch.setattr(
        local.locks,
        "try_lock",
        lambda handle, path: (locked.append(path), real_lock(handle, path))[1],
    )
    monkeypatch.setattr(
        model_proofs,
        "is_whole",
        lambda folder: (looked.append(folder), real_look(folder))[1],
    )
    workspace = Workspace(tmp_path / "work")
    workspace.create()
    with publish_folder(workspace.root / "corpora" / "c") as folder:
        (folder / "rows").write_text("x")
    kinds = {f"runs/{number}": "train" for number in range(9)} | {"canary/x": "canary"}
    for name, kind in kinds.items():
        write_job_file(workspace.root / name, kind)
    needs = frozenset({"corpora/c"})
    jobs = [local.LocalJob(name, needs, ("prepare/p",)) for name in kinds]
    profile = Profile.model_validate({"name": "p", "kind": "local", "max_parallel": 5})
    pool = GpuPool(GPUS[:1], folder=tmp_path / "gpus")
    there = local.Needs(workspace, profile)
    share = pool.take(1)
    for _ in range(3):
        local._start_ready(workspace, profile, jobs, pool, there)

    folders = [path for path in locked if path.parent.parent == workspace.root / "runs"]
    assert (started, folders, len(looked)) == (["x"], [], 2)
    assert share
    share.close()
    local._start_ready(workspace, profile, jobs, pool, there)
    assert started[:2] == ["x", "0"]


def taken(pool: GpuPool, *counts: int) -> list[GpuShare | None]:
    """What jobs of so many GPUs get one after the other."""
    return [pool.take(count) for count in counts]


def names_of(shares: list[GpuShare | None]) -> list[str | None]:
    """What each job is shown; None for one that must wait."""
    return [share and share.variables.get("CUDA_VISIBLE_DEVICES") for share in shares]


def test_no_gpu_has_two_jobs(tmp_path: Path) -> None:
    """Also of two submits; a job that needs two waits until two are free, and a GPU is
    free again once its job has ended."""
    one, other = GpuPool(GPUS, folder=tmp_path), GpuPool(GPUS, folder=tmp_path)

    first = taken(one, 1, 0)
    second = taken(other, 2, 1)
    assert names_of(first + second) == ["0", None, "1,2", None]
    assert first[1] == GpuShare()

    assert first[0] and second[0]
    first[0].close()
    assert names_of(taken(one, 2)) == [None]
    last = taken(one, 1)
    assert names_of(last) == ["0"]
    for share in (*last, second[0]):
        assert share
        share.close()


def test_a_job_that_wants_more_gpus_than_there_are_has_them_all(tmp_path: Path) -> None:
    """It could never start else."""
    pool = GpuPool(GPUS, folder=tmp_path)

    assert names_of(taken(pool, 8)) == ["0,1,2"]
    assert names_of(taken(GpuPool([]), 1)) == [None]
    assert GpuPool([]).take(1) == GpuShare()


def test_jobs_share_a_gpu_where_the_profile_says_so(tmp_path: Path) -> None:
    """So many each; and none of a job that another submit lets have it alone."""
    shared, alone = GpuPool(GPUS[:2], 2, tmp_path), GpuPool(GPUS[:2], 1, tmp_path)

    first = taken(shared, 1)
    assert names_of(first + taken(alone, 1, 1)) == ["0", "1", None]
    assert names_of(taken(shared, 1, 1)) == ["0", None]
    assert (shared.jobs, alone.jobs, GpuPool([]).jobs) == (4, 2, None)


def test_a_lock_lives_as_long_as_the_job(tmp_path: Path) -> None:
    """Through the descriptor that it inherits, whatever became of who started it."""
    pool = GpuPool(GPUS[:1], folder=tmp_path)
    share = pool.take(1)
    assert share
    job = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=share.locks
    )
    share.close()

    assert pool.take(1) is None
    job.communicate(b"\n")
    again = pool.take(1)
    assert again
    again.close()


@pytest.mark.parametrize(
    ("kind", "gpus"),
    [("train", 1), ("prepare", 1), ("evaluate", 2), ("sample", 2), ("canary", 0)],
)
def test_how_many_gpus_a_job_takes(kind: str, gpus: int) -> None:
    """One each; those in which a model answers as many as `evaluate.gpus` says."""
    profile = Profile.model_validate(
        {"name": "p", "kind": "local", "evaluate": {"gpus": 2}}
    )

    assert local_gpus.count_gpus(profile, job_record(kind)) == gpus


def test_each_local_job_is_shown_its_own_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as it takes, and the locks of them; a job for which none is free waits
    for an end."""
    started: list[tuple[str, str]] = []
    inherited: dict[str, list[int]] = {}

    def start(command: list[str], **options: Any) -> Any:
        visible = options["env"]["CUDA_VISIBLE_DEVICES"]
        name = Path(command[-1]).name
        started.append((name, visible))
        inherited[name] = [os.dup(handle) for handle in options["pass_fds"]]
        return SimpleNamespace(poll=lambda: None)

    monkeypatch.setattr(local.subprocess, "Popen", start)
    monkeypatch.setattr(local.code_snapshot, "refuse_strange", lambda *given: None)
    workspace = Workspace(tmp_path / "work")
    for name, kind in (("a", "train"), ("b", "evaluate"), ("c", "train")):
        write_job_file(workspace.root / "runs" / name, kind)
    profile = Profile.model_validate(
        {"name": "p", "kind": "local", "max_parallel": 3, "evaluate": {"gpus": 2}}
    )
    jobs = [local.LocalJob(f"runs/{name}") for name in ("a", "b", "c")]
    pool = GpuPool(GPUS, folder=tmp_path)

    local._start_ready(workspace, profile, jobs, pool)
    assert started == [("a", "0"), ("b", "1,2")]
    # a lock of the folder, and one for each GPU
    assert {name: len(handles) for name, handles in inherited.items()} == {
        "a": 2,
        "b": 3,
    }
    for handle in inherited.pop("a"):
        os.close(handle)
    local._start_ready(workspace, profile, jobs, pool)
    assert started[2:] == [("c", "0")]
    for handle in (*inherited["b"], *inherited["c"]):
        os.close(handle)


def test_fewer_gpus_than_jobs_is_told(
    driver: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the key that has jobs share one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    settings = {"name": "p", "kind": "local", "max_parallel": 4}
    with caplog.at_level("INFO"):
        local.make_pool(Profile.model_validate(settings))
        local.make_pool(Profile.model_validate(settings | {"jobs_per_gpu": 2}))

    [message] = caplog.messages
    assert "3 GPUs for jobs, so 3 of max_parallel 4 run side by side" in message
    assert "jobs_per_gpu" in message


def test_a_submit_whose_gpus_others_have_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of its own runs, and nothing would tell why."""
    workspace = Workspace(tmp_path / "work")
    write_job_file(workspace.root / "runs/a", "train")
    profile = Profile.model_validate({"name": "p", "kind": "local", "max_parallel": 2})
    pool = GpuPool(GPUS[:1], folder=tmp_path / "gpus")
    other = GpuPool(GPUS[:1], folder=tmp_path / "gpus").take(1)
    with caplog.at_level("INFO"):
        for _ in range(3):
            local._start_ready(workspace, profile, [local.LocalJob("runs/a")], pool)

    assert caplog.text.count("jobs of other submits of yours") == 1
    assert other
    other.close()
