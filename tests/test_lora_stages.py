"""Does a stage after one with LoRA train its adapters on, or merge them first, and lose
nothing on the way?"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.contract import attempt as attempts
from jobs.contract import stages
from jobs.contract.folder import Workspace, write_json
from jobs.contract.job_file import write_job
from jobs.contract.states import Outcome
from tests.lib.builders import digests
from tests.lib.command_line import Zsg
from tests.lib.job_records import job_record
from tests.lib.journal_rows import plain_rows
from tests.lib.mlflow_contents import loss_by_step
from tests.lib.small_runs import submit_forked
from zsg_core import recipe as recipes
from zsg_core.settings.run import Settings

LORA: dict[str, Any] = {"method": "lora", "r": 4, "targets": ["attention"]}
MERGED = {"method": "full", "start": "merge"}


def settings(*tunings: dict[str, Any], **train: Any) -> Settings:
    """Settings of a run of stages that differ in what is tuned."""
    stages = [{"train": {"tuning": tuning}} for tuning in tunings]
    data = {"path": "/d"}
    return Settings.model_validate({"data": data, "train": train, "stages": stages})


def tunings_of(wanted: Settings) -> list[dict[str, Any]]:
    """What the recipe of each stage says of its tuning."""
    made = recipes.make_recipe(wanted, digests())
    return [stage["train"]["tuning"] for stage in made["stages"]]


def test_a_stage_with_the_same_adapters_trains_them_on() -> None:
    """The recipe of each stage is that of a run of LoRA alone: nothing is added to it."""
    first, second = tunings_of(settings(LORA, LORA | {"start": "continue"}))

    assert first == second == {**LORA, "alpha": 16.0, "seed": 0}


def test_adapters_are_merged_where_a_stage_says_so() -> None:
    """After it any tuning may follow; the recipe says it where there is something to merge."""
    wanted = settings(
        MERGED, LORA | {"start": "merge"}, LORA | {"start": "merge"}, MERGED
    )

    assert [tuning.get("start") for tuning in tunings_of(wanted)] == [
        None,
        None,
        "merge",
        "merge",
    ]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        pytest.param({"method": "full"}, "start: merge", id="all weights"),
        pytest.param(LORA | {"r": 8}, "start: merge", id="another rank"),
        pytest.param(LORA | {"rslora": True}, "start: merge", id="another scale"),
    ],
)
def test_a_stage_that_cannot_train_the_adapters_on_is_refused(
    second: dict[str, Any], said: str
) -> None:
    """What becomes of the adapters is said, not guessed."""
    with pytest.raises(ValidationError, match=said):
        settings(LORA, second)


@pytest.mark.parametrize("tunings", [[MERGED], [{"method": "ln"}, MERGED]])
def test_a_start_without_a_stage_with_lora_before_is_refused(
    tunings: list[dict[str, Any]],
) -> None:
    """A setting that is not honoured is an error."""
    with pytest.raises(ValidationError, match="no stage here comes after one"):
        settings(*tunings)


@pytest.mark.parametrize("strategy", ["sequential", {"name": "dmt", "k": "1/4"}])
def test_strategies_run_with_lora(strategy: Any) -> None:
    """Sequential training and DMT have one tuning for all of their stages: its adapters
    are trained on, or merged into what the next stage starts from."""
    source = {"path": "/d", "set": "alpaca"}
    chat = source | {"test_path": "/t", "role": "general"}
    sources = {"math": source, "chat": chat}
    for start in (None, "merge"):
        wanted = Settings.model_validate(
            {
                "data": {"sources": sources},
                "train": {"tuning": LORA | {"start": start}},
                "strategy": strategy,
            }
        )
        stages = wanted.by_stage()
        assert [stage.train.tuning.start for stage in stages] == [None, start]


GRID = """
name: adapters
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 4, test_per_task: 2, positive_examples: 0}}
  train:
    batch: 8
    lr: 1e-2
    max_length: 96
    precision: fp32
    tuning: {{method: lora, r: 4, targets: [all]}}
  checkpoints:
    every: 6
    snapshots: 6
    keep: {{last: 1}}
    metrics: [loss, exact_match]
grid:
  stages:
    - [{{}}, &still {{train: {{lr: 1e-30}}, data: {{fraction: 1/2}}}}, *still]
    - - {{}}
      - train: {{lr: 1e-30, tuning: {{method: lora, r: 2, targets: [mlp], start: merge}}}}
        data: {{fraction: 1/2}}
    - [{{}}, {{train: {{tuning: {{method: full, start: merge}}}}, data: {{fraction: 1/4}}}}]
"""


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, tasks: Path, forked: Path) -> Zsg:
    """Runs that share a first stage with LoRA, and start from it in all ways, to their
    ends."""
    zsg = Zsg(tmp_path_factory.mktemp("adapters"))
    grid = zsg.write("adapters.yaml", GRID.format(tasks=tasks))
    submit_forked(zsg, forked, grid)
    return zsg


def test_the_second_stage_begins_where_the_first_ended(adapted: Zsg) -> None:
    """A stage that learns nothing has the loss of the stage before: to the bit where its
    adapters are trained on, to 1e-6 where they were merged."""
    on, merged, full = adapted.status()
    assert [row["state"] for row in (on, merged, full)] == ["done"] * 3

    [start] = _job(adapted, full)["before"]
    first = loss_by_step(adapted.work, start)
    last = first[12]
    assert last < 0.95 * first[0]
    assert set(loss_by_step(adapted.work, on["run"]).values()) == {last}
    still = loss_by_step(adapted.work, merged["run"])
    assert list(still.values()) == pytest.approx([last] * len(still), rel=1e-6)
    assert full["loss"] != last


def test_snapshots_of_later_stages_are_evaluated(adapted: Zsg) -> None:
    """An evaluator puts adapters on what they were trained on, be it merged, and finds the
    trainer's loss there: else it says so and gives no answers."""
    for row in adapted.status():
        rows = plain_rows(adapted.work / "runs" / row["run"])
        scored = {r["step"] for r in rows if "exact_match" in r["data"]}
        assert scored == {row["steps"]}


def test_adapters_that_others_rest_on_stay(adapted: Zsg) -> None:
    """A stage's adapters are kept for the snapshots of the stages after it, of which one
    may have merged them."""
    on, _merged, _full = adapted.status()
    kept = {path.parent.name for path in adapted.work.glob("runs/*/weights")}

    assert kept == set(_job(adapted, on)["before"])


def test_a_snapshot_is_merged_into_a_plain_folder(adapted: Zsg) -> None:
    """Also one whose adapters stand on merged ones; the folder loads with no PEFT, and
    nothing is overwritten."""
    _on, merged, full = adapted.status()
    told = json.loads(adapted("merge", merged["run"], "--to", "plain", "--json"))

    assert told["difference"] < 1e-5 and told["step"] == 18
    names = {path.name for path in (adapted.folder / "plain").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith("adapter")]
    assert "nothing is overwritten" in _refused(adapted, merged["run"], "--to", "plain")
    assert "no snapshot of step 7" in _refused(adapted, merged["run"], "7")
    assert "trains no adapters" in _refused(adapted, full["run"])


def _refused(zsg: Zsg, *argv: str) -> str:
    zsg("merge", *argv, code=2)
    return zsg.said


def test_with_the_last_snapshot_all_adapters_before_go(tmp_path: Path) -> None:
    """What nobody starts from any more is removed, and so what it was put on, stage by
    stage; weights that another run wants stay."""
    place = Workspace(tmp_path)
    runs = ["first", "second", "third"]
    for number, run in enumerate(runs):
        folder = place.run(run)
        record = job_record(
            run_id=run,
            before=runs[:number],
            recipe={"stages": [{"train": {"tuning": LORA}}] * (number + 1)},
        )
        write_job(folder, record)
        attempt = attempts.begin_attempt(folder, "s")
        attempts.end_attempt(folder, attempt, Outcome.DONE)
        if run != "third":
            (folder / "weights").mkdir()
            (folder / "weights/COMMIT").touch()
            stages.note_weights_user(place, run, runs[number + 1])
    stages.note_weights_user(place, "first", "other")

    stages.release_weights(place, "second", "third")
    assert not (place.run("second") / "weights").exists()
    assert stages.list_weights_users(place, "first") == ["other"]
    stages.release_weights(place, "first", "other")
    assert not (place.run("first") / "weights").exists()


def _job(zsg: Zsg, row: dict[str, Any]) -> dict[str, Any]:
    return json.loads((zsg.work / "runs" / row["run"] / "job.json").read_text())


@pytest.mark.engine
def test_later_stages_refuse_a_model_that_has_changed_since_the_submit(
    tmp_path: Path,
) -> None:
    """Adapters that are trained on, or were merged, stand on the user's own weights."""
    from jobs.training import changed_base

    workspace, user = tmp_path / "work", tmp_path / "model"
    first, second, whole = (workspace / "runs" / name for name in ("1", "2", "3"))
    for folder in (user, first, second, whole):
        folder.mkdir(parents=True)
        write_json(folder / "config.json", {})
    for folder, base in ((first, user), (second, first)):
        write_json(folder / "adapter_config.json", {})
        write_json(folder / "meta.json", {"base": {"path": str(base)}})

    def find(base_folder: Path, made: str | None = None) -> Path | None:
        job: Any = SimpleNamespace(
            made=SimpleNamespace(base=made),
            before=["a stage"] if base_folder != user else [],
            base_folder=base_folder,
            workspace=SimpleNamespace(root=workspace),
        )
        return changed_base.find_users_base(job)

    assert [find(folder) for folder in (user, first, second)] == [user] * 3
    assert find(whole) is None
    assert find(first, made="tiny") is None
