"""Is job.json byte for byte what zsg has always written, for every kind of job?

`golden/jobs` was written by zsg before job.json had a type, with `@FOLDER@` for the
folder of the user. To see what has changed: `python -m tests.test_job_files FOLDER`
writes the files of this zsg there.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract.folder import write_json
from jobs.contract.job_file import (
    CheckpointPlan,
    ModelToProve,
    PrepareJob,
    read_job,
    read_train_job,
)
from launcher.clusters.profiles import JobSize
from launcher.grids.runs import Run
from launcher.planning.plan import Canary, Prepare, run_item
from launcher.planning.site import Site
from launcher.submission import job_files, workflow
from launcher.workspace.ledger import Submission
from tests.lib.builders import write_niv2
from tests.lib.job_records import job_record
from zsg_core.settings.checkpoints import CheckpointSettings

GOLDEN = Path(__file__).resolve().parent / "golden/jobs"
HERE = "@FOLDER@"
CODE = {
    "zsg": "0.1.0",
    "python": "3.11.7",
    "digest": "6ccefec5c87f2883",
    "commit": "e79a027068fe01f0c392ddb4c4b640489f4ff7dd",
    "dirty": True,
    "folder": "/w/code/6ccefec5c87f2883",
    "patch": "e79a027068fe.patch",
}
CREATED = 1_795_909_202_209
TINY = {"name": "tiny", "hidden": 32, "layers": 2, "heads": 2, "vocab": 400}
TRAIN = {"batch": 4, "steps": 8, "lr": 2e-3, "max_length": 64, "precision": "fp32"}
PLAIN = {
    "model": TINY,
    "data": {
        "path": "tasks",
        "train_per_task": 2,
        "test_per_task": 1,
        "positive_examples": 0,
    },
    "train": TRAIN,
    "checkpoints": {"every": 4},
}
LORA = {"method": "lora", "r": 4, "targets": ["q_proj", "v_proj"]}
WATCHED = {
    "every": "1-4:1, 4-:2",
    "quick": {"items": 1, "full_every": 4},
    "snapshots": [4, 8],
    "keep": {"last": 1, "best": 2},
    "metrics": ["loss", "exact_match", "rougeL"],
    "generation": {"preset": "paper", "max_new_tokens": 4},
    "representations": {"layers": [1], "items": 1},
    "keep_state": True,
    "state_every_min": 7.5,
}
SAMPLED = {
    "model": TINY | {"add_tokens": ["<sep>"]},
    "data": {
        "sources": {
            "task": {
                "set": "messages",
                "path": "task.jsonl",
                "test_path": "held.jsonl",
            },
            "diverse": {
                "set": "messages",
                "path": "queries.jsonl",
                "self_sample": {"max_new_tokens": 16},
                "ratio_to": "task",
                "ratio": 1,
            },
        }
    },
    "train": TRAIN,
    "checkpoints": {"every": 4, "snapshots": 4},
}
LAPTOP = {"name": "laptop", "kind": "local"}
CLUSTER = {
    "name": "cluster",
    "kind": "slurm",
    "slurm": {
        "on_time_limit": "requeue",
        "max_continues": 5,
        "kill_wait_s": 45,
        "gpus_per_node": 4,
    },
    "train": {"nodes": 2, "ranks_per_node": 2, "time_min": 90},
    "gpu": {"name": "A800-80G", "memory_gb": 80, "tflops": 312},
    "deepspeed": {"zero_stage": 2},
    "trainer": {"compile": True},
    "hang_min": 12,
    "tracking": {"uri": "http://mlflow.example:5000", "live": True},
}


def write_inputs(folder: Path) -> None:
    """The data that the grids read."""
    write_niv2(folder / "tasks")
    turns = [(f"say {i}", f"word {i} — ß") for i in range(4)]
    rows = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in turns
    ]
    for name in ("task", "held", "queries"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)


def resolve(
    folder: Path, grid: dict[str, Any], profile: dict[str, Any]
) -> tuple[Site, list[Run]]:
    """A grid's runs, as `zsg submit` has them before it writes any job."""
    point = {"arrangement.order": ["random"]}
    write_json(folder / "grid.yaml", {"name": "g", "defaults": grid, "grid": point})
    write_json(folder / "profile.yaml", profile)
    opened = workflow.open_grid(
        folder / "grid.yaml", str(folder / "profile.yaml"), folder / "zsg-work"
    )
    return opened.site, opened.runs


def write_all(folder: Path) -> Iterator[tuple[str, str]]:
    """The name and the text of a job.json of every kind and of what may be in it."""
    write_inputs(folder)
    for name, profile in (("local", LAPTOP), ("slurm", CLUSTER)):
        yield from write_plain(folder, name, profile)
    yield from write_staged(folder)
    yield from write_sampled(folder)


def write_plain(
    folder: Path, name: str, profile: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Train, LoRA, prepare, evaluate and canary jobs of one profile."""
    site, [run] = resolve(folder, PLAIN, profile)
    yield f"{name}.train", train(folder, site, run, after=("prepare/p",))
    yield f"{name}.prepare", prepare(folder, site, run)
    lora = PLAIN | {"train": TRAIN | {"tuning": LORA}, "checkpoints": WATCHED}
    site, [run] = resolve(folder, lora, profile)
    yield f"{name}.lora", train(folder, site, run)
    yield f"{name}.evaluate", evaluate(folder, site, run)
    yield f"{name}.canary", canary(folder, site, run)


def write_staged(folder: Path) -> Iterator[tuple[str, str]]:
    """Both stages of a run, the first of which the second starts from."""
    stages = [{"train": {"steps": 4}}, {"train": {"lr": 1e-3}}]
    site, [run] = resolve(folder, PLAIN | {"stages": stages}, LAPTOP)
    assert run.before
    yield "staged.first", train(folder, site, run.before, is_start=True)
    yield "staged.last", train(folder, site, run, (run_item(run.before),))


def write_sampled(folder: Path) -> Iterator[tuple[str, str]]:
    """Jobs of a run on its model's own answers."""
    site, [run] = resolve(folder, SAMPLED, LAPTOP)
    sampler = Prepare("prepare/s", [run], set(run.answers.values()), samples=True)
    job_files.write_prepare(site.workspace, sampler, site.profile, "5ub")
    yield "sampled.sample", text_of(folder, site, sampler.item)
    yield "sampled.prepare", prepare(folder, site, run)
    yield "sampled.train", train(folder, site, run)


def train(
    folder: Path,
    site: Site,
    run: Run,
    after: tuple[str, ...] = (),
    is_start: bool = False,
) -> str:
    """The job.json of a run."""
    job_files.write_train(site.workspace, run, site.profile, "5ub", after, is_start)
    return text_of(folder, site, run_item(run))


def prepare(folder: Path, site: Site, run: Run) -> str:
    """The job.json of the job that makes what a run needs."""
    item = Prepare("prepare/p", [run], set(run.needs))
    job_files.write_prepare(site.workspace, item, site.profile, "5ub")
    return text_of(folder, site, item.item)


def evaluate(folder: Path, site: Site, run: Run) -> str:
    """The job.json of an evaluate job of one run."""
    job_files.write_evaluate(
        site.workspace, "evaluate/e", [run], site.profile, "5ub", drains=True
    )
    return text_of(folder, site, "evaluate/e")


def canary(folder: Path, site: Site, run: Run) -> str:
    """The job.json of the job that watches the first of many runs."""
    watched = Submission(
        id="w4tch",
        scheduler="slurm",
        kind="train",
        grid="g",
        items=[run_item(run)],
        created=CREATED,
        host="login",
        ids=["7_0"],
        links=[["8_0"]],
    )
    first, size = Canary("canary/c", run, 9), JobSize(time_min=30)
    job_files.write_canary(site.workspace, first, site.profile, "5ub", watched, size)
    return text_of(folder, site, first.item)


def text_of(folder: Path, site: Site, item: str) -> str:
    """What stands in the job.json of a job, without the folder that it lies in."""
    text = (site.workspace.root / item / "job.json").read_text(encoding="utf-8")
    return text.replace(str(folder.resolve()), HERE)


def set_still(patch: pytest.MonkeyPatch) -> None:
    """Has the code and the time be the same in every job.json."""
    patch.setattr(
        job_files.code_snapshot, "take_snapshot", lambda workspace: dict(CODE)
    )
    patch.setattr(job_files, "now_ms", lambda: CREATED)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every job.json that this zsg writes."""
    folder = tmp_path_factory.mktemp("jobs").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        set_still(patch)
        return dict(write_all(folder))


NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def test_every_kind_is_held(texts: dict[str, str]) -> None:
    """No golden file is without its job, and no job without its file."""
    assert sorted(texts) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_job_json_is_written_as_ever(texts: dict[str, str], name: str) -> None:
    """Not a byte of job.json changes with the code that writes it."""
    assert texts[name] == (GOLDEN / f"{name}.json").read_text(encoding="utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    (target / "user").mkdir(parents=True)
    os.chdir(target / "user")
    set_still(pytest.MonkeyPatch())
    for name, text in write_all(target / "user"):
        (target / f"{name}.json").write_text(text, encoding="utf-8")


def test_a_job_tells_by_which_proof_its_model_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its train job reads that one; its prepare job makes it where it is to, for the
    shortest examples of all runs that need it. A Llama's jobs tell none."""
    monkeypatch.chdir(tmp_path)
    set_still(monkeypatch)
    write_niv2(tmp_path / "tasks")
    site, [llama] = resolve(tmp_path, PLAIN, LAPTOP)
    run = replace(llama, proof="0123456789ab")
    assert run.proof_item == "model-proofs/0123456789ab"
    proven = replace(run, base=tmp_path / "model")
    item = Prepare("prepare/p", [llama, proven], set(run.needs))
    item.shortest = {run.proof_item: 32}
    job_files.write_prepare(site.workspace, item, site.profile, "5ub")
    prepare = read_job(site.workspace.root / "prepare/p")
    job_files.write_train(site.workspace, run, site.profile, "5ub", (), is_start=False)

    assert isinstance(prepare, PrepareJob)
    assert prepare.proofs == [
        ModelToProve(folder=str(tmp_path / "model"), digest="0123456789ab", shortest=32)
    ]
    trained = read_train_job(site.workspace.run(run.id))
    assert trained is not None and trained.proof == "0123456789ab"


def test_a_plan_of_every_checkpoint_setting_is_read_back() -> None:
    """What a grid may say is what a job may hold: each setting, whatever its type."""
    settings = CheckpointSettings.model_validate(
        {
            "every": 4,
            "quick": {"items": 1, "full_every": 4},
            "metrics": ["loss", "exact_match", "rank_accuracy", "reward"],
            "reward_model": "/models/reward",
            "snapshots": 2,
            "keep": {"last": 1, "best": 2},
            "representations": {"layers": [1], "items": 1},
            "token_distance": {"token": "yes", "words": ["no", "maybe"]},
            "state_every_min": None,
            "state_every": 2,
        }
    ).model_dump(mode="json")
    written = msgspec.json.encode(CheckpointPlan(**settings))

    assert (
        msgspec.to_builtins(msgspec.json.decode(written, type=CheckpointPlan))
        == settings
    )
    assert settings.keys() <= set(CheckpointPlan.__struct_fields__)


def test_a_golden_job_with_a_reward_model_is_read() -> None:
    """The reward model is a folder, as the grid has it."""
    job = job_record(checkpoints={"reward_model": "/models/reward"})

    assert job.checkpoints.reward_model == "/models/reward"
