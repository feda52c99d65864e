"""Does a grid run on this machine from one command to MLflow, once, whatever is killed?"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.contract.folder import read_json, write_json
from launcher.planning.plan import Prepare
from launcher.submission import job_files
from launcher.submission.workflow import open_grid
from tests.lib.builders import break_an_instance
from tests.lib.command_line import Zsg, page_at, wait_until
from tests.lib.mlflow_contents import (
    assert_exactly_once,
    child_runs,
    journal_points,
    loss_by_step,
)
from tests.lib.small_runs import (
    LONG,
    UGLY,
    held,
    small_grid,
    submit_forked,
    wait_for_step,
)

TRAINING = (
    "train/loss",
    "train/lr",
    "train/grad_norm",
    "train/tokens",
    "speed/tokens_per_s",
)


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tasks: Path, forked: Path
) -> Zsg:
    """A grid of three orders that has run to its end."""
    zsg = Zsg(tmp_path_factory.mktemp("finished"))
    grid = small_grid(zsg, tasks, "[random, nft, fft]")
    submit_forked(zsg, forked, grid)
    return zsg


def test_all_runs_finish_and_learn(finished: Zsg) -> None:
    """Every run ends done at its last step, with a lower held-out loss than it began with."""
    rows = finished.status("small")

    assert [
        (row["state"], row["step"], row["steps"], row["attempt"]) for row in rows
    ] == [("done", 12, 12, 1)] * 3
    for row in rows:
        losses = loss_by_step(finished.work, row["run"])
        assert list(losses) == [0, 4, 8, 12]
        assert losses[12] == row["loss"] < losses[0] - 0.5


def test_untrained_models_agree(finished: Zsg) -> None:
    """The runs of a grid share their base: at step 0 their losses are the same number."""
    first = {
        loss_by_step(finished.work, row["run"])[0] for row in finished.status("small")
    }

    assert len(first) == 1


def test_every_point_is_in_mlflow_once(finished: Zsg) -> None:
    """MLflow has each journalled point once, under the names of the grid, with what it
    stands on."""
    rows = finished.status("small")

    assert_exactly_once(finished.work, "small", [row["run"] for row in rows])
    held = child_runs(finished.work, "small")
    for row in rows:
        run = held[row["run"]]
        assert run["status"] == "FINISHED"
        assert run["params"]["arrangement.order"] == row["axes"]["arrangement.order"]
        assert (
            len(run["tags"]["zsg.arrangement.ids_digest"])
            == len(run["tags"]["zsg.digest"])
            == 64
        )
        steps = {
            key: [point[1] for point in run["points"] if point[0] == key]
            for key, *_ in run["points"]
        }
        assert {key: sorted(of) for key, of in steps.items()} == {
            **{
                key: [0, 4, 8, 12]
                for key in ("loss", "loss_token_mean", "speed/memory_gb")
            },
            **{key: list(range(1, 13)) for key in TRAINING},
        }


def test_submitting_again_submits_nothing(finished: Zsg) -> None:
    """A grid that is done is left as it is, and submit says so."""
    before = (finished.work / "ledger.jsonl").read_bytes()
    said = finished("submit", "small.yaml")

    assert "nothing to submit (3 done); figures: " in said
    assert (finished.work / "ledger.jsonl").read_bytes() == before


def test_the_arrangement_is_the_order_trained(finished: Zsg) -> None:
    """The digest of the ids consumed is that of the arrangement, step by step."""
    from zsg_core.digest import IdDigest

    for row in finished.status("small"):
        job = json.loads((finished.work / "runs" / row["run"] / "job.json").read_text())
        ids = (
            (finished.work / "arrangements" / job["made"]["arrangement"] / "ids")
            .read_text()
            .splitlines()
        )
        digest = IdDigest()
        for step in range(12):
            digest.add(step + 1, ids[8 * step : 8 * step + 8])
        record = json.loads(
            (finished.work / "runs" / row["run"] / "exit.json").read_text()
        )
        assert record["digest"] == digest.hex()


def test_fewer_checkpoints_are_there_and_more_need_training(
    finished: Zsg, tasks: Path
) -> None:
    """A coarser stride is served by what is there; a finer one needs training again,
    and is not done unasked."""
    text = (finished.folder / "small.yaml").read_text()
    coarse = finished.write("coarse.yaml", text.replace("every: 4", "every: 12"))
    fine = finished.write("fine.yaml", text.replace("every: 4", "every: 3"))

    assert {
        row["reason"] for row in json.loads(finished("plan", coarse, "--json"))
    } == {"already done"}
    reasons = {
        (row["action"], row["reason"])
        for row in json.loads(finished("plan", fine, "--json"))
    }
    assert len(reasons) == 1
    action, reason = reasons.pop()
    assert action == "skip"
    assert "3 of the 5 checkpoints now wanted are missing (the first: step 3)" in reason
    assert reason.endswith("it needs training again (--retrain)")


def test_a_second_grid_takes_over_finished_runs(finished: Zsg) -> None:
    """A run done under one grid appears in another without training, as an MLflow run
    of its own."""
    text = (
        (finished.folder / "small.yaml")
        .read_text()
        .replace("name: small", "name: other")
    )
    other = finished.write("other.yaml", text.replace("[random, nft, fft]", "[nft]"))
    said = finished("submit", other)
    finished("sync", "other")

    assert "nothing to submit (1 done)" in said
    nft = next(
        row["run"]
        for row in finished.status("small")
        if row["axes"]["arrangement.order"] == "nft"
    )
    assert_exactly_once(finished.work, "other", [nft])


def test_the_comparison_is_served(finished: Zsg, unused_port: int) -> None:
    """`zsg ui` serves MLflow's page over HTTP and prints where."""
    server = finished.start(
        "ui",
        "small",
        "--port",
        str(unused_port),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert server.stdout
        address = server.stdout.readline().split()[1]
        found = re.fullmatch(
            rf"(http://127.0.0.1:{unused_port}/)\?token=([\w-]{{43}})#/metric\?runs=.*",
            address,
        )
        assert found
        assert "<title>MLflow</title>" in page_at(found[1], token=found[2])
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=30)


def test_logs_are_found_by_the_beginning_of_an_id(finished: Zsg) -> None:
    """`zsg logs` prints a run's log; an id that is not there is a user's error."""
    run = finished.status("small")[0]["run"]

    finished("logs", run[:6])
    finished("logs", "zzz", code=2)
    assert "no run 'zzz'" in finished.said


def test_bf16_follows_fp32(finished: Zsg, forked: Path) -> None:
    """In bf16, with fp32 master weights, a run ends within 1 % of its loss in fp32; it
    is another run."""
    text = (
        (finished.folder / "small.yaml")
        .read_text()
        .replace("name: small", "name: half")
    )
    text = text.replace("[random, nft, fft]", "[random]").replace(
        "precision: fp32", "precision: bf16"
    )
    submit_forked(finished, forked, finished.write("half.yaml", text))
    [half] = finished.status("half")
    full = next(
        row
        for row in finished.status("small")
        if row["axes"]["arrangement.order"] == "random"
    )

    assert half["run"] != full["run"]
    assert half["loss"] == pytest.approx(full["loss"], rel=0.01)


def test_a_killed_run_is_retried_with_the_same_numbers(
    prepared: Zsg, tasks: Path
) -> None:
    """A run killed in the middle is `failed`; a retry trains it again, agrees bit for
    bit, and adds no point twice."""
    zsg = prepared
    grid = small_grid(zsg, tasks, "[random]", steps=LONG)
    submit = zsg.start(
        "submit", grid, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    process = wait_for_step(zsg.work, 8)
    os.kill(process, signal.SIGKILL)
    assert submit.wait(timeout=60) == 3
    first = zsg.status()[0]

    assert (first["state"], first["attempt"], first["cause"]) == ("failed", 1, "died")
    assert "zsg retry submits it again" in zsg("plan", grid)
    zsg("submit", grid, "--retry")
    again = zsg.status()[0]
    assert (again["state"], again["attempt"], again["step"]) == ("done", 2, LONG)
    assert_exactly_once(zsg.work, "small", [again["run"]])
    assert "zsg.flag" not in child_runs(zsg.work, "small")[again["run"]]["tags"]


def test_a_killed_submit_is_taken_up_without_doubling(
    prepared: Zsg, tasks: Path
) -> None:
    """Jobs outlive a submit killed with -9; the next submit sees them run and starts no
    second one."""
    zsg = prepared
    grid = small_grid(zsg, tasks, "[random]", steps=LONG)
    submit = zsg.start(
        "submit", grid, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with held(zsg.work):
        submit.kill()
        submit.wait()
        said = zsg("submit", grid)

    assert "already running" in said
    assert "nothing to submit" in said
    wait_until(lambda: zsg.status()[0]["state"] == "done")
    zsg("sync")
    assert zsg.status()[0]["attempt"] == 1
    assert_exactly_once(zsg.work, "small", [zsg.status()[0]["run"]])


def test_what_a_killed_submit_never_started_starts_with_the_next(
    zsg: Zsg, tasks: Path, forked: Path
) -> None:
    """Killed with -9 while some runs wait, submit leaves them unstarted; the next one
    starts just those."""
    grid = small_grid(zsg, tasks, "[cluster, random]")
    submit = zsg.start(
        "submit", grid, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(
        lambda: (
            (zsg.work / "ledger.jsonl").exists()
            and "train" in (zsg.work / "ledger.jsonl").read_text()
        )
    )
    submit.kill()
    submit.wait()

    submit_forked(zsg, forked, grid)
    assert [(row["state"], row["attempt"]) for row in zsg.status()] == [("done", 1)] * 2
    assert_exactly_once(zsg.work, "small", [row["run"] for row in zsg.status()])


def test_data_changed_after_planning_are_refused(
    zsg: Zsg, tasks: Path, tmp_path: Path
) -> None:
    """A prepare job whose data are no longer those that were planned makes nothing and says so."""
    data = tmp_path / "data"
    subprocess.run(["cp", "-r", str(tasks), str(data)], check=True)
    opened = open_grid(small_grid(zsg, data), None, zsg.work)
    [run], place = opened.runs, opened.site.workspace
    job_files.write_prepare(
        place, Prepare("prepare/p", [run], set(run.needs)), opened.site.profile, "s"
    )
    path = next((data / "tasks").iterdir())
    path.write_text(path.read_text().replace('"output"', '"output" '))
    entry = subprocess.run(
        [sys.executable, "-m", "jobs.entry", str(zsg.work / "prepare/p")],
        env=zsg.env,
        capture_output=True,
        text=True,
    )

    assert entry.returncode == 1
    assert f"{zsg.folder / UGLY} has changed since it was submitted" in entry.stderr
    assert not list((zsg.work / "corpora").glob("*"))


def test_ctrl_c_ends_the_jobs_and_says_so(prepared: Zsg, tasks: Path) -> None:
    """Ctrl-C stops the jobs cleanly: they are `cancelled`, and nothing is left running."""
    zsg = prepared
    grid = small_grid(zsg, tasks, "[random]", steps=LONG)
    submit = zsg.start(
        "submit", grid, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    process = wait_for_step(zsg.work, 1)
    submit.send_signal(signal.SIGINT)
    said = submit.communicate(timeout=60)[1]

    assert submit.returncode == 130
    assert "zsg submit again continues from here" in said
    assert zsg.status()[0]["state"] == "cancelled"
    assert not Path(f"/proc/{process}").exists()


def test_a_failed_prepare_fails_its_runs_with_the_reason(
    zsg: Zsg, tasks: Path, tmp_path: Path
) -> None:
    """Bad data end as one clear line: the file, the instance, the reason; the runs that
    need them are failed."""
    broken = break_an_instance(tasks, tmp_path / "broken")
    path = zsg.folder / UGLY / broken.relative_to(tmp_path / "broken")

    zsg("submit", small_grid(zsg, tmp_path / "broken"), code=3)
    row = zsg.status()[0]
    assert (row["state"], row["cause"]) == ("failed", "prepare failed")
    assert (
        f"{path}: Instances[3]: Expected `str | array`, got `null` - at `$.output`"
        in row["evidence"]
    )


def test_a_job_is_replayed_by_hand(finished: Zsg) -> None:
    """`python -m jobs.entry <folder>` runs any job again, without MLflow; told of a
    GPU's peak, it records MFU."""
    row = finished.status("small")[0]
    folder = finished.work / "runs" / row["run"]
    job = read_json(folder / "job.json")
    job["resources"]["peak_tflops"] = 1e-3
    write_json(folder / "job.json", job)
    command = [sys.executable, "-X", "importtime", "-m", "jobs.entry", str(folder)]
    imported = subprocess.run(
        command, env=finished.env, check=True, capture_output=True, text=True
    ).stderr

    assert json.loads((folder / "attempt.json").read_text())["attempt"] == 2
    # what was computed again agrees
    assert loss_by_step(finished.work, row["run"])[12] == row["loss"]
    shares = [
        point[2]
        for point in journal_points(finished.work, row["run"])
        if point[0] == "speed/mfu"
    ]
    assert len(shares) == 12 and min(shares) > 0
    assert "deepspeed.autotuning" in imported
    assert " mlflow." not in imported  # mlflow itself is named, for it was looked for
