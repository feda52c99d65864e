"""Are stages trained one after the other, each once however many runs share it, and
counted as one curve?"""

import csv
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.contract import stages
from jobs.contract.folder import Workspace
from launcher.clusters.profiles import JobSize
from launcher.grids.runs import Run
from launcher.planning.plan import Allow, Plan, choose_actions, make_plan, run_item
from launcher.status.status import JobState
from tests.lib.builders import digests
from tests.lib.command_line import Zsg, wait_until
from tests.lib.job_records import job_record
from tests.lib.mlflow_contents import MlflowClient, child_runs, loss_by_step
from tests.lib.small_runs import submit_forked
from zsg_core import recipe as recipes
from zsg_core.settings.run import Settings

DIGESTS = digests()
FIRST: dict[str, Any] = {"train": {"lr": 1e-3}}


def settings(*of_stages: dict[str, Any], **changes: Any) -> Settings:
    """Settings of a run of some stages."""
    wanted = {"data": {"path": "/d"}, **changes}
    return Settings.model_validate(
        wanted | ({"stages": list(of_stages)} if of_stages else {})
    )


def a_run(*of_stages: dict[str, Any]) -> Run:
    """A run of some stages."""
    wanted, run = settings(*of_stages), None
    for recipe in recipes.list_prefixes(recipes.make_recipe(wanted, DIGESTS)):
        run = Run(
            id=recipes.run_id(recipe),
            recipe=recipe,
            axes={},
            checkpoints=wanted.checkpoints,
            size=JobSize(),
            sources={},
            base=None,
            embedding=None,
            before=run,
        )
    assert run
    return run


def planned(
    runs: list[Run],
    states: dict[str, JobState] | None = None,
    made: frozenset[str] = frozenset(),
    allow: Allow = Allow(),
    makers: dict[str, str] | None = None,
) -> Plan:
    """The plan for runs, where all that prepare makes is there; runs of which nothing
    is said are new."""
    items = [run_item(one) for run in runs for one in [*run.all_before, run]]
    known = {item: JobState(state="absent") for item in items} | (states or {})
    is_made = lambda need: need in made or not need.startswith("runs/")  # noqa: E731
    actions = choose_actions(
        runs, known, allow, lambda need: is_made(need) or need in (makers or {})
    )
    return make_plan(actions, is_made, makers or {})


def test_a_stage_says_only_where_it_differs() -> None:
    """The settings of a stage are the run's, with its own laid over them."""
    one, other = settings(
        FIRST, {"train": {"epochs": 3}, "data": {"fraction": "1/4"}}
    ).by_stage()

    assert (one.train.lr, one.train.epochs, str(one.data.fraction)) == (1e-3, 1, "1")
    assert (other.train.lr, other.train.epochs, str(other.data.fraction)) == (
        1e-6,
        3,
        "1/4",
    )


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        pytest.param(
            {"model": {"layers": 2}}, "unknown key 'model'", id="another model"
        ),
        pytest.param(
            {"train": {"lrr": 1}},
            r"stages\[1\]: unknown key 'lrr' in train\. Did you mean 'lr'\?",
            id="an unknown key",
        ),
        pytest.param(
            {"train": {"lr": "high"}},
            r"stages\[1\]\.train\.lr: must be a number, found 'high'",
            id="a wrong type",
        ),
        pytest.param(
            {"data": {"test_per_task": 9}},
            "is the same for all stages",
            id="another test set",
        ),
        pytest.param(
            {"data": {"path": "/other"}},
            "another test set",
            id="other data and the test set with them",
        ),
        pytest.param(
            {"data": {"positive_examples": 0}},
            "the test set would change",
            id="other prompts",
        ),
        pytest.param(
            {"data": {"sampling": "first"}},
            "the test set would change",
            id="another draw",
        ),
        pytest.param(
            {"train": {"max_length": 64}},
            "is the same for all stages",
            id="shorter test prompts",
        ),
    ],
)
def test_a_stage_that_cannot_be_is_refused(stage: dict[str, Any], said: str) -> None:
    """What a stage must not or cannot say is an error that names the place."""
    with pytest.raises(ValidationError, match=said):
        settings(FIRST, stage)


def test_runs_that_begin_alike_share_the_run_of_their_first_stage() -> None:
    """The first stage of two runs is one run; it is that of the grid that lists just this stage."""
    one, other = (
        a_run(FIRST, {"train": {"lr": 1e-4}}),
        a_run(FIRST, {"train": {"lr": 1e-5}}),
    )

    assert one.id != other.id
    assert one.before and other.before
    assert one.before.id == other.before.id == a_run(FIRST).id
    assert (
        recipes.run_id(recipes.make_recipe(settings(train={"lr": 1e-3}), DIGESTS))
        == one.before.id
    )


def test_stages_may_be_of_other_data() -> None:
    """With a test set of its own a run goes from one data set to another; each enters
    by its digest."""
    own = {"path": "/d", "set": "gsm8k", "test_set": "gsm8k", "test_path": "/t"}
    wanted = settings({}, {"data": {"path": "/code", "set": "alpaca"}}, data=own)
    made = recipes.make_recipe(wanted, *(digests(d, "t") for d in ("m", "c")))

    assert [
        (stage["data"]["reader"], stage["data"]["digest"]) for stage in made["stages"]
    ] == [
        ("gsm8k", "m"),
        ("alpaca", "c"),
    ]
    assert len({str(stage["data"]["test"]) for stage in made["stages"]}) == 1


def test_a_shared_first_stage_is_one_job_that_the_others_wait_for() -> None:
    """Of a sweep over the second stage, the first is trained once, before."""
    runs = [a_run(FIRST, {"train": {"lr": rate}}) for rate in (1e-4, 1e-5, 1e-6)]
    plan = planned(runs)

    first, second = plan.groups
    assert [run.id for run in first.runs] == [
        runs[0].before.id if runs[0].before else ""
    ]
    assert second.runs == runs
    assert second.after == (run_item(first.runs[0]),)
    assert plan.starts == {first.runs[0].id}


def test_weights_that_are_there_or_coming_are_not_made_again() -> None:
    """A first stage whose weights are kept, or which is being trained to keep them, is
    no new job."""
    run = a_run(FIRST, {})
    assert run.before
    kept = planned(
        [run],
        {run_item(run.before): JobState(state="done")},
        made=frozenset({run.before.weights}),
    )
    coming = planned(
        [run],
        {run_item(run.before): JobState(state="running")},
        makers={run.before.weights: run_item(run.before)},
    )

    assert [(group.runs, group.after) for group in kept.groups] == [([run], ())]
    assert [(group.runs, group.after) for group in coming.groups] == [
        ([run], (run_item(run.before),))
    ]


@pytest.mark.parametrize(
    ("state", "allow", "kind", "said"),
    [
        pytest.param(
            JobState(state="running"),
            Allow(),
            "skip",
            "keeps no weights",
            id="running for itself: wait",
        ),
        pytest.param(
            JobState(state="failed"),
            Allow(),
            "skip",
            "zsg retry",
            id="failed: only by zsg retry",
        ),
        pytest.param(
            JobState(state="failed"),
            Allow(retry=True),
            "submit",
            "new",
            id="failed, by zsg retry: again",
        ),
        pytest.param(
            JobState(state="done"),
            Allow(),
            "submit",
            "new",
            id="done, its weights gone: again",
        ),
        pytest.param(
            JobState(state="waiting", stopped=True),
            Allow(),
            "submit",
            "new",
            id="stopped: it goes on",
        ),
    ],
)
def test_a_stage_before_decides_too(
    state: JobState, allow: Allow, kind: str, said: str
) -> None:
    """A run is submitted only if the stage it starts from can be had."""
    run = a_run(FIRST, {})
    assert run.before
    [action] = planned([run], {run_item(run.before): state}, allow=allow).actions

    assert action.kind == kind
    assert said in action.reason


def test_weights_stay_until_the_last_user_has_had_them(tmp_path: Path) -> None:
    """Each run that is done takes its mark away; with the last mark the weights go."""
    place = Workspace(tmp_path)
    (place.run("start") / "weights").mkdir(parents=True)
    for run in ("one", "other"):
        stages.note_weights_user(place, "start", run)

    stages.release_weights(place, "start", "one")
    assert (place.run("start") / "weights").is_dir()
    stages.release_weights(place, "start", "other")
    assert not (place.run("start") / "weights").exists()
    assert stages.list_weights_users(place, "start") == []


def test_weights_and_marks_behind_a_link_stay(tmp_path: Path) -> None:
    """The mark that looks like a run's own, and weights, lie in folders of somebody else's."""
    place = Workspace(tmp_path / "work")
    for name in ("users", "weights"):
        (tmp_path / name).mkdir()
        place.run("start").mkdir(parents=True, exist_ok=True)
        (place.run("start") / name).symlink_to(tmp_path / name)
    (tmp_path / "users/r").touch()
    (tmp_path / "weights/COMMIT").touch()
    stages.release_weights(place, "start", "r")
    (tmp_path / "users/r").unlink()
    stages.release_weights(place, "start", "r")

    assert (tmp_path / "weights/COMMIT").exists() and (
        place.run("start") / "weights"
    ).is_symlink()


def test_adapters_hold_on_to_the_weights_that_they_are_put_on(tmp_path: Path) -> None:
    """A run that is done and has kept LoRA's adapters still needs its start; without
    any, or with all weights, not."""
    lora, full = (
        job_record(recipe={"stages": [{"train": {"tuning": {"method": name}}}]})
        for name in ("lora", "full")
    )
    (tmp_path / "snapshots/.8.draft").mkdir(parents=True)

    assert not stages.is_still_needed(tmp_path, lora)
    (tmp_path / "snapshots/8").mkdir()
    assert stages.is_still_needed(tmp_path, lora)
    assert not stages.is_still_needed(tmp_path, full)


GRID = """
name: staged
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 4, test_per_task: 2, positive_examples: 0}}
  train: {{batch: 8, lr: 2e-3, max_length: 96, precision: fp32}}
  checkpoints: {{every: 4, snapshots: 4, keep: {{best: 1}}}}
grid:
  stages:
    - [{{}}, {{train: {{lr: 1e-30}}, data: {{fraction: 1/2}}}}]
    - [{{}}, {{train: {{lr: 1e-3, epochs: 2}}, data: {{fraction: 1/4}}}}]
"""


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory, tasks: Path, forked: Path) -> Zsg:
    """A grid of two runs that share their first stage, run to its end."""
    zsg = Zsg(tmp_path_factory.mktemp("staged"))
    grid = zsg.write("staged.yaml", GRID.format(tasks=tasks))
    submit_forked(zsg, forked, grid)
    return zsg


def test_two_stages_are_one_curve(staged: Zsg) -> None:
    """Steps go on where the first stage ended; a stage that learns nothing keeps the
    loss it started from."""
    still, learns = staged.status()
    assert [(row["state"], row["step"], row["steps"]) for row in (still, learns)] == [
        ("done", 18, 18)
    ] * 2

    [start] = json.loads(
        (staged.work / "runs" / still["run"] / "job.json").read_text()
    )["before"]
    first = loss_by_step(staged.work, start)
    assert list(first) == [0, 4, 8, 12]
    assert loss_by_step(staged.work, still["run"]) == {16: first[12], 18: first[12]}
    assert list(loss_by_step(staged.work, learns["run"])) == [16, 18]
    assert learns["loss"] != first[12]


def test_a_shared_stage_is_trained_once_and_its_weights_go(staged: Zsg) -> None:
    """Two runs make three train jobs; nothing of the weights is left when both are done."""
    rows = [
        json.loads(line)
        for line in (staged.work / "ledger.jsonl").read_text().splitlines()
    ]
    items = [
        item
        for row in rows
        if row["event"] == "intent" and row["kind"] == "train"
        for item in row["items"]
    ]

    assert len(items) == len(set(items)) == 3
    assert list(staged.work.glob("runs/*/weights")) == []
    assert "nothing to submit" in staged("submit", "staged.yaml")


def test_mlflow_has_all_stages_of_a_run(staged: Zsg) -> None:
    """Each run's curve in MLflow begins at step 0 of the first stage and holds every step once."""
    for row in staged.status():
        points = child_runs(staged.work, "staged")[row["run"]]["points"]
        assert sorted(step for key, step, *_ in points if key == "loss") == [
            0,
            4,
            8,
            12,
            16,
            18,
        ]
        assert sorted(step for key, step, *_ in points if key == "train/loss") == list(
            range(1, 19)
        )


def test_mlflow_finds_the_best_snapshot_of_a_grid(staged: Zsg) -> None:
    """Each run has a model for the best snapshot of each stage; the first by loss is there."""
    client = MlflowClient(f"sqlite:///{staged.work}/mlflow.db")
    experiment = client.get_experiment_by_name("staged")
    assert experiment
    order = [{"field_name": "metrics.loss", "ascending": True}]
    found = client.search_logged_models([experiment.experiment_id], order_by=order)
    losses = [
        next(metric.value for metric in one.metrics if metric.key == "loss")
        for one in found
    ]

    assert len(found) == 4 and losses == sorted(losses)
    place, step = Path(found[0].tags["zsg.path"]), int(found[0].tags["zsg.step"])
    assert (place / "COMMIT").exists() and loss_by_step(
        staged.work, place.parents[1].name
    )[step] == losses[0]


def test_the_report_has_all_stages_of_a_run(staged: Zsg) -> None:
    """Each curve begins at step 0 of the first stage, and the second stage is said to
    begin after step 12."""
    staged("report", "staged")
    folder = staged.work / "grids/staged/report"
    with (folder / "curves.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    with (folder / "finals.csv").open() as file:
        finals = list(csv.DictReader(file))

    assert steps == [0, 4, 8, 12, 16, 18] * 2
    assert [(row["stage_1_step"], row["step"]) for row in finals] == [("12", "18")] * 2
    assert (
        finals[0]["stage_1_final"]
        == finals[1]["stage_1_final"]
        == finals[0]["final"]
        != finals[1]["final"]
    )


def test_points_that_a_shared_stage_gains_are_sent(staged: Zsg, forked: Path) -> None:
    """Measured more finely by another grid, a first stage that was sent before is sent
    again where it has more."""
    one_run = GRID.rpartition("    - [")[0]
    finer = one_run.replace("name: staged", "name: finer").replace(
        "every: 4", "every: 3"
    )
    tasks = (staged.folder / "staged.yaml").read_text().split("path: ")[1].split(",")[0]
    grid = staged.write("finer.yaml", finer.format(tasks=tasks))
    submit_forked(staged, forked, grid, "--retrain")
    staged("sync")

    for name in ("staged", "finer"):
        for row in staged.status(name):
            points = child_runs(staged.work, name)[row["run"]]["points"]
            losses = sorted(step for key, step, *_ in points if key == "loss")
            assert losses == sorted({*losses}) and {
                0,
                3,
                4,
                6,
                8,
                9,
                12,
                15,
                16,
                18,
            } >= {*losses} > {0, 3, 6, 9, 12}


@pytest.mark.soak(part="models")
def test_a_stopped_first_stage_goes_on_and_the_rest_follows(
    zsg: Zsg, tasks: Path
) -> None:
    """Interrupted in its first stage, a run of two stages is finished by the next submit."""
    grid = zsg.write(
        "staged.yaml", GRID.format(tasks=tasks).replace("[{}", "[{train: {epochs: 20}}")
    )
    submit = zsg.start(
        "submit", grid, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(
        lambda: any(
            '"train/loss"' in path.read_text()
            for path in zsg.work.glob("runs/*/journal/*.jsonl")
        )
    )
    submit.send_signal(signal.SIGINT)
    submit.wait(timeout=120)

    zsg("submit", grid, "--retry")
    rows = zsg.status()
    assert [row["state"] for row in rows] == ["done", "done"]
    for row in rows:
        steps = [
            step
            for key, step, *_ in child_runs(zsg.work, "staged")[row["run"]]["points"]
            if key == "train/loss"
        ]
        assert sorted(steps) == list(range(1, row["steps"] + 1))
