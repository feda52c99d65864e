"""On a real Slurm: do jobs of every kind run the copies of a grid's plugins, whatever
becomes of the files that were submitted, and whatever lies on the path of a node?"""

import json
from pathlib import Path

import pytest

from jobs.contract.folder import read_json
from jobs.contract.item_losses import read_test_losses
from tests.lib import harness_goldens
from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg, wait_until
from tests.lib.evaluate_jobs import metric_rows
from tests.lib.light_grid import LIGHT
from tests.lib.mlflow_contents import assert_exactly_once
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import (
    assert_no_step_twice,
    profile,
    status_rows,
    wait_for_state,
    wait_for_step,
    wait_until_ended,
)

pytestmark = pytest.mark.slurm

STEPS = 120
HELPER = '''"""What the plugin imports."""


def measure(text):
    return len(text)
'''
PLUGIN = '''"""An order of our own, of which a file beside it is a part."""

import zsg

from lengths import measure


@zsg.order("longest_first", seeded=False)
def put_longest_first(items, seed):
    """The longest answer first."""
    return sorted(range(len(items)), key=lambda place: -measure(items[place].answer))

'''
BROKEN = 'raise SystemExit("this was edited after the submit")\n'
GRID = """
name: own
plugins: [own_orders.py, lengths.py]
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 4, test_per_task: 2, positive_examples: 0}}
  train: {{batch: 8, lr: 2e-3, max_length: 96, precision: fp32, epochs: 10, steps: {steps}}}
  checkpoints: {{every: 20, state_every: 5}}
grid: {{arrangement.order: [longest_first]}}
"""
# a folder with other files of the plugins' names comes first on the path of every job
PROFILE = """
name: cluster
kind: slurm
prepare: {{time_min: 30}}
train: {{nodes: 1, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main, array_parallelism: 4}}
environment: {{set: {{PYTHONPATH: {path}, LIGHT_STEP_S: "0.05"}}}}
"""


def write_plugin(folder: Path, plugin: str = PLUGIN, helper: str = HELPER) -> None:
    """The plugin and what it imports, in a folder."""
    (folder / "own_orders.py").write_text(plugin)
    (folder / "lengths.py").write_text(helper)


def test_jobs_run_what_was_submitted_whatever_became_of_the_files(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, made: Path, tasks: Path, tmp_path: Path
) -> None:
    """Both files are broken before any job begins, and broken ones lie first on the path
    of all nodes: the prepare job runs the copies, a requeued run begins with them, and
    `verify` makes the order again by them. A submit of an edited file asks again, for
    another run."""
    zsg = zsg_on_slurm
    copy_made(made, zsg.work)
    zsg.env["HOME"] = str(zsg.folder)
    write_plugin(zsg.folder)
    (first := tmp_path / "first").mkdir()
    write_plugin(first, BROKEN, BROKEN)
    grid = zsg.write("grid.yaml", GRID.format(tasks=tasks, steps=STEPS))
    place = zsg.write("cluster.yaml", PROFILE.format(path=f"{first}:{LIGHT}"))
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg("submit", grid, "--profile", place, "--allow-plugins")
    write_plugin(zsg.folder, BROKEN, BROKEN)
    slurm.run("scontrol", "update", "partitionname=main", "state=up")

    job = wait_for_step(zsg, 8)
    slurm.run("scontrol", "requeue", job)
    wait_for_state(slurm, job, "PENDING")
    slurm.start_requeued()
    [row] = wait_until_ended(zsg, 300)
    assert (row["state"], row["attempt"], row["slurm"]) == ("done", 2, job)
    assert_no_step_twice(zsg, row["run"], STEPS)

    edited = PLUGIN.replace("key=lambda place: -", "key=lambda place: +")
    write_plugin(zsg.folder, edited)
    zsg("submit", grid, "--profile", place, code=2)
    assert "own_orders.py" in zsg.said and "not allowed yet" in zsg.said
    assert "own: 1 to submit, 0 done" in zsg("plan", grid, "--profile", place)
    verified = zsg("verify", row["run"], "--steps", "0")
    assert "✓ plugin order   longest_first by the copy in" in verified


SCORES = '''"""A score of training examples and metrics of answers, of which one reads a list that
somebody is yet to write."""

from pathlib import Path

import zsg


@zsg.score("tokens", passes=0)
def count_tokens(inputs):
    """The tokens of question and answer."""
    return [float(len(one.ids)) for one in inputs.examples]


@zsg.metric("letters")
def count_letters(answers):
    """The letters of an answer."""
    for one in answers:
        yield one.id, len(one.answer)


@zsg.metric("known")
def count_known(answers):
    """How many words of an answer stand in our list."""
    known = set(Path(WORDS).read_text().split())
    for one in answers:
        yield one.id, sum(word in known for word in one.answer.split())
'''
ASKING = '''"""Which documents of a task are asked."""


def choose_two(docs):
    return docs.select([0, 1])
'''
SCORED = """
name: scored
plugins: [own_scores.py, benchmarks/asking.py]
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 12, test_per_task: 6, positive_examples: 0}}
  train: {{batch: 8, lr: 2e-3, max_length: 96, precision: fp32, epochs: 20, steps: 16}}
  checkpoints:
    every: 2
    snapshots: 2
    metrics: [loss, letters, known, lm_eval/own]
    generation: {{items: 4, max_new_tokens: 4}}
    suites: {{lm_eval: {{tasks_path: benchmarks}}}}
  resources: {{evaluators: 0}}
grid: {{arrangement.order: [scores], arrangement.score: [tokens]}}
"""
ALL_STEPS = list(range(0, 17, 2))
LIVING = ("letters", "lm_eval/own")


def write_scored(zsg: Zsg, scores: str, asking: str) -> None:
    """The plugins of scores and of a task, in the folder of the grid."""
    zsg.write("own_scores.py", scores)
    zsg.write("benchmarks/asking.py", asking)


def list_steps(run: Path, key: str) -> list[int]:
    """The steps at which a metric was taken, each as often as it stands in journals."""
    return sorted(row["step"] for row in metric_rows(run, key))


def find_evaluator(zsg: Zsg) -> str:
    """The Slurm job of the one evaluator that has begun."""
    [attempt] = (zsg.work / "evaluate").glob("*/attempt.json")
    return read_json(attempt)["slurm_job_id"]


@pytest.mark.engine
@pytest.mark.soak(part="slurm")
def test_metrics_of_plugins_arrive_once_from_a_requeued_evaluator(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """The score job and both starts of the evaluator run the copies, of a score, a metric
    and a task's function, while the files say something else; a metric that fails is told with its line and takes
    nothing from the others, and comes by `retry` once what it lacks is there."""
    pytest.importorskip("lm_eval", reason="no lm-evaluation-harness: extra harness")
    zsg = zsg_on_slurm
    zsg.env["HOME"] = str(zsg.folder)
    words = zsg.folder / "words.txt"
    text = SCORES.replace("WORDS", repr(str(words)))
    line = 1 + text.splitlines().index(
        next(each for each in text.splitlines() if "read_text" in each)
    )
    benchmarks = harness_goldens.write_tasks(zsg.folder / "benchmarks")
    own = dict(harness_goldens.read_goldens()["tasks"]["tiny_full"], task="own")
    path = harness_goldens.write_task(benchmarks, "own", own)
    path.write_text(f"{path.read_text()}process_docs: !function asking.choose_two\n")
    write_scored(zsg, text, ASKING)
    grid = zsg.write("grid.yaml", SCORED.format(tasks=json.dumps(str(tasks))))
    place = profile(zsg)
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg("submit", grid, "--profile", place, "--allow-plugins")
    write_scored(zsg, BROKEN, BROKEN)
    slurm.run("scontrol", "update", "partitionname=main", "state=up")

    [name] = [row["run"] for row in status_rows(zsg) if "/" not in row["run"]]
    run = zsg.work / "runs" / name
    wait_until(lambda: 2 <= len(list_steps(run, "letters")) < len(ALL_STEPS), 400)
    job = find_evaluator(zsg)
    slurm.run("scancel", "--signal=USR2", job)
    wait_until(
        lambda: "PENDING" in slurm.run("squeue", "-h", "-j", job, "-o", "%T"), 120
    )
    slurm.start_requeued()
    wait_until_ended(zsg, 600)
    assert [list_steps(run, key) for key in LIVING] == [ALL_STEPS] * 2
    assert list_steps(run, "known") == []
    assert len(read_test_losses(run, "lm_eval/own").ids) == 2
    told = f"known: PluginError: own_scores.py:{line}: FileNotFoundError"
    [trouble] = [row for row in status_rows(zsg) if row["state"] == "failed"]
    assert (trouble["cause"], told in trouble["evidence"]) == ("plugin", True)
    assert told in zsg("why", trouble["run"])

    words.write_text("yes no film\n")
    write_scored(zsg, text, ASKING)
    zsg("submit", grid, "--profile", place, "--retry")
    wait_until_ended(zsg, 600)
    keys = [*LIVING, "known"]
    assert [list_steps(run, key) for key in keys] == [ALL_STEPS] * 3
    zsg("sync", "scored")
    assert_exactly_once(zsg.work, "scored", [name])
