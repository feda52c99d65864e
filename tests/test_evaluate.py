"""Are a run's checkpoints scored by the weights that they had, each once, by one model,
whatever is killed?"""

import json
import shutil
import signal
from pathlib import Path

import pytest

from jobs.contract import journal
from jobs.contract.folder import read_json, write_json
from jobs.contract.item_losses import read_test_losses
from tests.lib.command_line import Zsg
from tests.lib.evaluate_jobs import (
    GREEDY,
    KEY,
    PAPER,
    answered,
    fresh_copy,
    metric_rows,
    scores,
    serve,
)
from tests.lib.forked_jobs import wait_until
from tests.lib.mlflow_contents import assert_exactly_once
from tests.lib.small_runs import small_grid, submit_forked
from tests.lib.train_bench import Bench

STEPS = [0, 3, 6, 9, 12, 15, 18]


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Path:
    """A run that is done and has kept the weights of every third of its 18 steps."""
    folder = bench.make(snapshots=3, metrics=["loss", KEY])
    assert bench.jobs.run(folder)["outcome"] == "done"
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The trained run in a workspace of its own, never evaluated."""
    copy = fresh_copy(trained, 0, tmp_path / "work")
    shutil.copytree(trained / "snapshots", copy / "snapshots")
    return copy


@pytest.fixture(scope="module")
def evaluated(
    bench: Bench, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The trained run, evaluated by one job that nobody disturbed."""
    copy = fresh_copy(trained, 0, tmp_path_factory.mktemp("undisturbed") / "work")
    shutil.copytree(trained / "snapshots", copy / "snapshots")
    record = bench.jobs.run(serve([copy]))
    assert (record["outcome"], record["scored"], record["loads"], record["swaps"]) == (
        "done",
        7,
        1,
        6,
    )
    return copy


def test_a_checkpoint_is_scored_as_by_a_process_of_its_own(
    bench: Bench, evaluated: Path, tmp_path: Path
) -> None:
    """With one model for all snapshots, answers and scores are those of a fresh process
    for each, to the letter."""
    said, scored = answered(evaluated), scores(evaluated)
    assert sorted(scored) == sorted(said) == STEPS
    for step in (0, 9, 18):
        alone = fresh_copy(evaluated, step, tmp_path / str(step))
        assert bench.jobs.run(serve([alone]))["outcome"] == "done"
        assert answered(alone)[step] == said[step]
        assert scores(alone)[step] == scored[step]
    assert len({tuple(texts) for texts in said.values()}) > 1, (
        "other weights, other answers"
    )


def test_the_scores_of_items_are_kept_with_their_places(evaluated: Path) -> None:
    """As the losses of items are, for tables and curves by task; their mean over tasks
    is the metric."""
    items = read_test_losses(evaluated, KEY)

    assert items.steps == STEPS and len(items.ids) == 6
    assert dict(zip(items.steps, items.losses.mean(1), strict=True)) == pytest.approx(
        scores(evaluated)
    )


def test_evaluating_again_does_nothing(bench: Bench, evaluated: Path) -> None:
    """A second job finds every checkpoint scored and loads no model."""
    record = bench.jobs.run(serve([evaluated]))

    assert (record["outcome"], record["scored"], record["loads"]) == ("done", 0, 0)


@pytest.mark.parametrize("after", [0, 2, 5])
def test_what_a_killed_evaluator_left_another_takes_over(
    bench: Bench, run: Path, evaluated: Path, after: int
) -> None:
    """Killed once it has scored some checkpoints, or while it works at the first; every
    score is there once."""
    killed = bench.jobs.start(serve([run], lease_s=1))
    wait_until(
        lambda: (
            (len(metric_rows(run)) >= after and list((run / "queue").glob("*.lease")))
            or killed[0].ended()
        )
    )
    killed[0].send(signal.SIGKILL)
    assert killed[0].ended(within_s=5)
    assert bench.jobs.run(serve([run], lease_s=1))["outcome"] == "done"

    assert sorted(row["step"] for row in metric_rows(run)) == STEPS
    assert scores(run) == scores(evaluated)
    assert not list((run / "queue").glob("*.lease"))


@pytest.mark.soak(part="models")
def test_gradients_of_a_killed_evaluator_are_taken_by_another(
    bench: Bench, run: Path, trained: Path, tmp_path: Path
) -> None:
    """How far they cancel is there once for each snapshot, and what an undisturbed job
    finds; what was taken before the kill is not taken again."""
    key = "gradient_ratio"
    inside = {key: {"items": 3, "gradients": "mean answer loss"}}
    undisturbed = fresh_copy(trained, 0, tmp_path / "undisturbed")
    shutil.copytree(trained / "snapshots", undisturbed / "snapshots")
    killed = bench.jobs.start(serve([run], keys=(), inside=inside, lease_s=1))
    wait_until(lambda: len(metric_rows(run, key)) >= 2 or killed[0].ended())
    killed[0].send(signal.SIGKILL)
    assert killed[0].ended(within_s=5)
    before = len(metric_rows(run, key))

    record = bench.jobs.run(serve([run], keys=(), inside=inside, lease_s=1))
    bench.jobs.run(serve([undisturbed], keys=(), inside=inside))

    assert record["scored"] == len(STEPS) - before
    assert sorted(row["step"] for row in metric_rows(run, key)) == STEPS
    assert scores(run, key) == scores(undisturbed, key)
    moved = scores(run, "weights_moved")
    assert moved[0] == 0.0 < moved[3] < moved[18]


def test_two_evaluators_share_a_run(bench: Bench, run: Path, evaluated: Path) -> None:
    """Side by side they score every checkpoint, none of them twice."""
    ranks = [bench.jobs.start(job)[0] for job in (serve([run]), serve([run]))]
    for rank in ranks:
        assert rank.ended(within_s=60)

    assert sorted(row["step"] for row in metric_rows(run)) == STEPS
    assert scores(run) == scores(evaluated)


def test_an_evaluator_that_slept_too_long_writes_nothing(
    bench: Bench, run: Path, evaluated: Path
) -> None:
    """Another takes its checkpoint over; awake again it finds that, and goes on with
    what is left, in a new file."""
    slow = serve([run], lease_s=1.5)
    [rank] = bench.jobs.start(slow)
    wait_until(
        lambda: len(metric_rows(run)) >= 2 and list((run / "queue").glob("*.lease"))
    )
    rank.send(signal.SIGSTOP)
    held = next(iter((run / "queue").glob("*.lease")), None)
    bench.jobs.run(serve([run], lease_s=1.5))
    rank.send(signal.SIGCONT)
    assert rank.ended(within_s=30)

    assert sorted(row["step"] for row in metric_rows(run)) == STEPS
    assert scores(run) == scores(evaluated)
    assert held is None or read_json(slow / "exit.json")["lost"] <= 1


def test_an_evaluator_that_its_time_limit_stops_has_not_failed(
    bench: Bench, run: Path, evaluated: Path
) -> None:
    """It lets its checkpoint go and tells how far it came; what is left another takes."""
    job = serve([run])
    [rank] = bench.jobs.start(job)
    wait_until(lambda: len(metric_rows(run)) >= 2)
    rank.send(signal.SIGUSR2)  # as Slurm does before the time limit
    assert rank.ended(within_s=20)
    record = read_json(job / "exit.json")

    assert (record["outcome"], record["evidence"], record["scored"] >= 1) == (
        "continue",
        "SIGUSR2",
        True,
    )
    assert not list((run / "queue").glob("*.lease"))
    assert bench.jobs.run(serve([run]))["outcome"] == "done"
    assert sorted(row["step"] for row in metric_rows(run)) == STEPS
    assert scores(run) == scores(evaluated)


def swap(run: Path, one: int, other: int) -> None:
    """Exchanges the weights of two snapshots, and nothing else."""
    paths = [
        next((run / "snapshots" / str(step)).glob("*.safetensors"))
        for step in (one, other)
    ]
    texts = [path.read_bytes() for path in paths]
    for path, text in zip(paths, reversed(texts), strict=True):
        path.write_bytes(text)


def test_weights_that_are_not_the_snapshots_are_refused(
    bench: Bench, run: Path
) -> None:
    """By their digest; the other checkpoints are scored, and the job says at its end
    which were not."""
    swap(run, 6, 9)
    record = bench.jobs.run(serve([run]))

    assert (
        record["outcome"] == "failed"
        and "step 6" in record["evidence"]
        and "digest" in record["evidence"]
    )
    assert sorted(scores(run)) == [0, 3, 12, 15, 18]


def test_a_model_that_computes_another_loss_is_refused(bench: Bench, run: Path) -> None:
    """Weights that have the right digest must also have the test loss that the trainer
    measured with them."""
    path = run / "snapshots/6/meta.json"
    loss = str(read_json(path)["probe_loss"])
    # another third decimal: a file of another size would be one that is damaged
    other = f"{loss[:4]}{'1' if loss[4] == '0' else '0'}{loss[5:]}"
    path.write_text(path.read_text().replace(loss, other))
    record = bench.jobs.run(serve([run]))

    assert (
        record["outcome"] == "failed" and "the trainer measured" in record["evidence"]
    )
    assert sorted(scores(run)) == [step for step in STEPS if step != 6]


def test_a_metric_asked_for_later_is_taken_of_the_answers_that_were_kept(
    bench: Bench, evaluated: Path
) -> None:
    """No weights are read for it: the snapshots may be gone."""
    shutil.copytree(
        evaluated.parent.parent,
        evaluated.parent.parent.with_name("later"),
        symlinks=True,
    )
    later = evaluated.parent.parent.with_name("later") / "runs" / evaluated.name
    for path in (later / "snapshots").glob("*/*.safetensors"):
        path.unlink()
    job = read_json(later / "job.json")
    job["paths"]["workspace"] = str(later.parent.parent)
    write_json(later / "job.json", job)
    record = bench.jobs.run(serve([later], keys=[KEY, "rouge1"]))

    assert (record["outcome"], record["loads"]) == ("done", 0)
    assert sorted(scores(later, "rouge1")) == STEPS
    assert len(metric_rows(later)) == len(STEPS)


def test_snapshots_wait_for_their_evaluator_and_then_go(bench: Bench) -> None:
    """Of `keep: last` all stay while they are to be scored; the evaluator then removes
    all but what the rule keeps."""
    folder = bench.make(
        snapshots=4, keep="last", metrics=["loss", KEY], state_every=None
    )
    record = bench.jobs.run(folder)
    there = lambda: sorted(  # noqa: E731
        int(path.name) for path in (folder / "snapshots").glob("[0-9]*")
    )
    assert there() == [4, 8, 12, 16, 18]
    assert [row["step"] for row in record["snapshots"] if row["kept"]] == [18]

    bench.jobs.run(serve([folder], how=GREEDY))
    assert there() == [18]
    assert sorted(scores(folder)) == [0, 4, 8, 12, 16, 18]


def test_an_evaluator_beside_training_scores_snapshots_as_they_come(
    bench: Bench,
) -> None:
    """It waits for a run that has not begun, ends with it, and disturbs neither its
    numbers nor its restart."""
    folder = bench.make(snapshots=3, metrics=["loss", KEY])
    evaluator = bench.jobs.start(serve([folder], drains=False))
    rank = bench.jobs.start(folder)
    wait_until(lambda: len(metric_rows(folder)) >= 1 or rank[0].ended())
    rank[0].send(signal.SIGKILL)
    assert rank[0].ended(within_s=5)
    assert bench.jobs.run(folder)["outcome"] == "done"
    assert evaluator[0].ended(within_s=60)

    assert sorted(row["step"] for row in metric_rows(folder)) == STEPS
    assert {
        p.key: p.value
        for p in journal.first_points(journal.read_journal(folder))[0]
        if p.step == 18
    }["loss"] == (read_json(folder / "exit.json")["loss"])


def test_adapters_are_put_on_their_base(bench: Bench) -> None:
    """Of LoRA a snapshot has adapters alone; the model they are put on has the trainer's loss."""
    lora = {"tuning": {"method": "lora", "r": 4}}
    folder = bench.make(snapshots=9, metrics=["loss", KEY], train=lora)
    assert bench.jobs.run(folder)["outcome"] == "done"
    record = bench.jobs.run(serve([folder]))

    assert (record["outcome"], record["evidence"]) == ("done", None)
    assert sorted(scores(folder)) == [0, 9, 18]


def test_an_idle_evaluator_ends(bench: Bench, run: Path) -> None:
    """Of a run that is not over, once no snapshot has come for a while; what there is
    was scored."""
    attempt = read_json(run / "attempt.json")
    write_json(run / "attempt.json", attempt | {"nonce": "another attempt has begun"})
    record = bench.jobs.run(serve([run], drains=False, idle_min=0.02))

    assert (record["outcome"], record["scored"]) == ("done", 7)
    assert (
        json.loads((run / "journal/1-evaluate-0.jsonl").read_text().splitlines()[0])[
            "data"
        ]["how"]
        == PAPER
    )


def test_a_grid_is_scored_and_scored_again_without_training(
    prepared: Zsg, tasks: Path, forked: Path
) -> None:
    """In one submit on this machine; what is asked for later is taken of the kept
    snapshots; MLflow has all once."""
    zsg, grid = prepared, small_grid(prepared, tasks, "[random]")
    words = (
        "snapshots=4",
        "metrics=[loss, exact_match]",
        "generation.max_new_tokens=8",
    )
    asked = [word for setting in words for word in ("--set", f"checkpoints.{setting}")]
    submit_forked(zsg, forked, grid, *asked)
    [row] = zsg.status()
    folder = zsg.work / "runs" / row["run"]
    assert sorted(scores(folder)) == [0, 4, 8, 12]

    later = ("--set", "checkpoints.generation.name=later")
    submit_forked(zsg, forked, grid, *asked, *later)
    assert sorted(scores(folder, f"{KEY}/later")) == [0, 4, 8, 12]
    assert read_json(folder / "attempt.json")["attempt"] == 1
    assert_exactly_once(zsg.work, "small", [folder.name])
