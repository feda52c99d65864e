"""Are tasks of lm-evaluation-harness taken of every checkpoint of a run, each once,
whatever is killed?"""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import evaluations
from jobs.contract.folder import read_json
from jobs.contract.harness_outputs import OutputPlace, read_outputs
from jobs.contract.item_losses import read_test_losses
from jobs.contract.journal import read_guests
from jobs.contract.journal_rows import InsideTaken, find_events
from launcher.grids import harness_tasks
from tests.lib import harness_goldens
from tests.lib.evaluate_jobs import fresh_copy, metric_rows, scores, serve
from tests.lib.forked_jobs import wait_until
from tests.lib.train_bench import Bench
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import Suite, select_suites

pytestmark = pytest.mark.engine

pytest.importorskip("lm_eval", reason="no lm-evaluation-harness: extra harness")
CHOICES, TEXT = "lm_eval/tiny_mmlu", "lm_eval/tiny_text"
MEMBER = "lm_eval/tiny_mmlu_birds"  # of the group of choices
STEPS = [0, 9, 18]


def make_suite(folder: Path, *metrics: str, **settings: object) -> Suite:
    """The suite of some tasks of a folder, as a grid would have it."""
    checkpoints = CheckpointSettings.model_validate(
        {
            "metrics": list(metrics),
            "snapshots": 1,
            "suites": {"lm_eval": {"tasks_path": str(folder), **settings}},
        }
    )
    files = harness_tasks.digest_tasks(checkpoints)
    [suite] = select_suites(checkpoints, files)
    return suite


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Path:
    """A run that is done and has kept the weights of two of its 18 steps."""
    folder = bench.make(snapshots=9, metrics=["loss", "exact_match"])
    assert bench.jobs.run(folder)["outcome"] == "done"
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The trained run in a workspace of its own, never evaluated."""
    copy = fresh_copy(trained, 0, tmp_path / "work")
    shutil.copytree(trained / "snapshots", copy / "snapshots")
    return copy


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A user's folder of tasks."""
    return harness_goldens.write_tasks(tmp_path / "tasks")


def test_tasks_are_metrics_of_every_checkpoint(
    bench: Bench, run: Path, tasks: Path
) -> None:
    """With their items by leaf task, the harness' own number of a weighted group, what
    the model said, and how all that was taken; a second job finds nothing to do."""
    suite = make_suite(tasks, CHOICES, TEXT, limit=2)
    record = bench.jobs.run(serve([run], suites=[suite]))

    assert (record["outcome"], record["scored"], record["loads"]) == ("done", 6, 1)
    assert sorted(scores(run, CHOICES)) == sorted(scores(run, TEXT)) == STEPS
    items = read_test_losses(run, CHOICES)
    assert items.steps == STEPS and items.ids[:2] == [
        "tiny_mmlu_birds/0",
        "tiny_mmlu_birds/1",
    ]
    assert len(items.ids) == 8 and set(items.tasks) == {
        f"tiny_mmlu_{subject}" for subject in harness_goldens.SUBJECTS
    }
    means = dict(zip(items.steps, items.losses.mean(1).tolist(), strict=True))
    assert means == pytest.approx(scores(run, CHOICES))
    assert scores(run, f"{CHOICES}/weighted") == pytest.approx(means)
    events = [event for _, event in find_events(read_guests(run), InsideTaken)]
    said = read_outputs(run, OutputPlace(**events[0].files[0]))
    assert said.key == CHOICES and len(said.items) == 8
    way = evaluations.collect_key_ways(run)[CHOICES]
    assert way == suite.find_definition(CHOICES)
    assert {"harness", "limit", "chat", "task_digest", "task_version"} <= way.keys()
    again = bench.jobs.run(serve([run], suites=[suite]))
    assert (again["outcome"], again["scored"], again["loads"]) == ("done", 0, 0)


def test_what_a_killed_evaluator_left_is_taken_once(
    bench: Bench, run: Path, tasks: Path, tmp_path: Path
) -> None:
    """Killed between two tasks of a step: no value is there twice, and all are those of
    a job that nobody disturbed. A task whose group was taken before the kill has what the
    model said then."""
    suite = make_suite(tasks, CHOICES, MEMBER, TEXT)
    killed = bench.jobs.start(serve([run], suites=[suite], lease_s=1))
    wait_until(lambda: metric_rows(run, CHOICES) or killed[0].ended())
    killed[0].send(signal.SIGKILL)
    assert killed[0].ended(within_s=5)
    assert bench.jobs.run(serve([run], suites=[suite], lease_s=1))["outcome"] == "done"

    copy = fresh_copy(run, 0, tmp_path / "undisturbed")
    shutil.copytree(run / "snapshots", copy / "snapshots")
    assert bench.jobs.run(serve([copy], suites=[suite]))["outcome"] == "done"
    for key in (CHOICES, f"{CHOICES}/weighted", MEMBER, TEXT):
        assert sorted(row["step"] for row in metric_rows(run, key)) == STEPS
        assert scores(run, key) == scores(copy, key)
    said: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row, event in find_events(read_guests(run), InsideTaken):
        taken = row.step, next(iter(event.ways))
        assert taken not in said
        said[taken] = read_outputs(run, OutputPlace(**event.files[0])).items
    assert said.keys() == {(step, key) for step in STEPS for key in suite.keys}
    for step in STEPS:
        of_group = said[step, CHOICES]
        assert said[step, MEMBER] == [
            item for item in of_group if item["task"] == "tiny_mmlu_birds"
        ]


def test_a_task_that_has_changed_is_not_run(
    bench: Bench, run: Path, tasks: Path
) -> None:
    """Its other tasks are taken; the reason stands where the job tells its end."""
    suite = make_suite(tasks, CHOICES, TEXT)
    with (tasks / "text.jsonl").open("a") as file:
        file.write('{"page": "One more."}\n')
    folder = serve([run], suites=[suite])
    record = bench.jobs.run(folder)

    assert record["outcome"] == "failed"
    assert "have changed since this was submitted" in str(
        read_json(folder / "exit.json")
    )
    assert sorted(scores(run, CHOICES)) == STEPS and not scores(run, TEXT)
