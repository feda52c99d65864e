"""Do plan and submit list all that a grid's and a profile's files have run and sent,
and which file says so?"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.clusters import profile_files, profiles
from launcher.clusters.cluster import Cluster
from launcher.grids.grid import Grid
from launcher.planning import effects
from launcher.planning.effects import RUNS, SENDS, SETS, Effect
from launcher.planning.plan import Allow, Plan
from launcher.submission import workflow
from launcher.views import plan_view
from zsg_core.suites import Suite

Listed = Callable[..., list[Effect]]


def grid(folder: Path, *overrides: str) -> Grid:
    return Grid(folder / "grid.yaml", "g", None, [], [], overrides)


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Listed:
    """What a profile's text has run and sent, laid over a shipped profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(
        text: str,
        base: str = "slurm-minimal",
        environment: dict[str, str] | None = None,
    ) -> list[Effect]:
        (tmp_path / "p.yaml").write_text(f"name: p\ninherits: {base}\n{text}\n")
        layers = profile_files.read_layers("p.yaml", tmp_path)
        return effects.list_effects(
            layers, profiles.make_profile(layers), grid(tmp_path), [], environment or {}
        )

    return make


@pytest.mark.parametrize(
    "name", ["local", "slurm-minimal", "a100-80g", "a800-80g", "a800-80g-zero3"]
)
def test_nothing_is_listed_of_what_zsg_ships(tmp_path: Path, name: str) -> None:
    """What the shipped profiles set is zsg's own."""
    layers = profile_files.read_layers(name, tmp_path)

    assert (
        effects.list_effects(
            layers, profiles.make_profile(layers), grid(tmp_path), [], {}
        )
        == []
    )


def test_nothing_is_listed_of_a_profile_that_only_says_where_and_how_much(
    listed: Listed,
) -> None:
    """Partition, account and sizes run nothing."""
    assert (
        listed(
            "slurm: {partition: gpu, account: project, gpus_per_node: 8}\ntrain: {time_min: 30}"
        )
        == []
    )


@pytest.mark.parametrize(
    ("text", "does", "what"),
    [
        ("setup: [touch RAN]", RUNS, "setup line of every job: touch RAN"),
        (
            "environment: {set: {PYTHONPATH: evil}}",
            RUNS,
            "environment.set, in every job: PYTHONPATH=evil, which decides",
        ),
        (
            "environment: {set: {LD_PRELOAD: m.so}}",
            RUNS,
            "environment.set, in every job: LD_PRELOAD=m.so, which decides",
        ),
        (
            "environment: {set: {BASH_ENV: m.sh}}",
            RUNS,
            "environment.set, in every job: BASH_ENV=m.sh, which decides",
        ),
        (
            "environment: {set: {NCCL_NET_PLUGIN: m}}",
            RUNS,
            "environment.set, in every job: NCCL_NET_PLUGIN=m, which",
        ),
        (
            "environment: {set: {NCCL_DEBUG: INFO}}",
            SETS,
            "environment.set, in every job: NCCL_DEBUG=INFO",
        ),
        (
            "environment: {set: {LAB_API_KEY: sk-1}}",
            SETS,
            "environment.set, in every job: LAB_API_KEY=…",
        ),
        (
            "environment: {keep: [HOME, M_TOKEN]}",
            SENDS,
            "environment.keep hands your shell's variables to every job: M_T",
        ),
        (
            "notify: [{command: [touch, RAN]}]",
            RUNS,
            "notify: a program is told (failed, done): touch RAN",
        ),
        (
            "notify: [{slack: LAB_URL, on: [hang]}]",
            SENDS,
            "notify: names and errors (hang) are sent to the address in LAB_URL",
        ),
        (
            "environment: {cache: /shared/m}",
            RUNS,
            "environment.cache, from where jobs load code that was compiled before",
        ),
        (
            "container: {prefix: [m.sh, exec]}",
            RUNS,
            "container.prefix starts every job's Python: m.sh exec",
        ),
        (
            "slurm: {srun_args: [--task-prolog=m.sh]}",
            RUNS,
            "slurm.srun_args, by which srun may run programs: --task-pr",
        ),
        (
            "slurm: {sbatch: {mail-user: m@evil}}",
            SENDS,
            "slurm.sbatch, an option of every job: --mail-user=m@evil",
        ),
        (
            "slurm: {sbatch: {get-user-env: true}}",
            RUNS,
            "slurm.sbatch, an option of every job: --get-user-env",
        ),
        (
            "slurm: {sbatch: {nice: 5}}",
            SETS,
            "slurm.sbatch, an option of every job: --nice=5",
        ),
        (
            "tracking: {uri: 'http://m.example'}",
            SENDS,
            "tracking.uri: metrics, parameters and settings are sent to http",
        ),
        (
            "tracking: {uri: 'sqlite:////m/m.db'}",
            SENDS,
            "tracking.uri: metrics, parameters and settings are written to",
        ),
        (
            "workspace: /shared/m",
            SETS,
            "workspace: all that is made lies in /shared/m, unless you name another",
        ),
        (
            "share: group",
            SETS,
            "share: a group reads and writes a workspace that is made",
        ),
        (
            "internet: true",
            SENDS,
            "internet: data sets that the grid names are fetched from https://huggingface.co",
        ),
    ],
)
def test_each_key_that_runs_sends_or_sets_is_listed_with_its_file(
    listed: Listed, text: str, does: str, what: str
) -> None:
    """One line, with file and line of the file."""
    [found] = listed(text)

    assert (found.does, found.where) == (does, "p.yaml:3")
    assert found.what.startswith(what)


def test_containers_python_is_listed(listed: Listed) -> None:
    """It is what every job runs."""
    found = listed("container: {prefix: [m.sh], python: /evil/python}")

    assert [one.what for one in found] == [
        "container.prefix starts every job's Python: m.sh",
        "container.python is every job's Python: /evil/python",
    ]


def test_what_a_parent_says_is_listed_with_the_parents_file(
    tmp_path: Path, listed: Listed
) -> None:
    """And what its child takes away or says otherwise is not."""
    (tmp_path / "site.yaml").write_text(
        "name: site\nkind: slurm\nsetup:\n- module load a\n- module load b\n"
        "environment:\n  set:\n    PATH: /x\n    CC: gcc\n"
    )
    found = listed("environment:\n  set:\n    PATH: /y", base="site.yaml")

    assert [(one.what.partition(", which")[0], one.where) for one in found] == [
        ("setup line of every job: module load a", "site.yaml:4"),
        ("setup line of every job: module load b", "site.yaml:5"),
        ("environment.set, in every job: PATH=/y", "p.yaml:5"),
        ("environment.set, in every job: CC=gcc", "site.yaml:9"),
    ]


def test_a_setup_item_of_several_lines_is_listed_line_by_line(listed: Listed) -> None:
    """None hides behind another, nor behind escapes."""
    found = listed('setup: ["module load a\\e[8m; touch RAN\\r\\n\\n  touch RAN2"]')

    assert [one.what for one in found] == [
        r"setup line of every job: module load a\x1b[8m; touch RAN\r",
        "setup line of every job:   touch RAN2",
    ]


def test_nothing_is_left_out_of_what_runs(listed: Listed) -> None:
    """What is written like an address with a password may be a command."""
    line = "echo ://;touch${IFS}RAN;#@ ?key=;touch${IFS}RAN2"
    found = listed(
        f"setup: ['{line}']\nenvironment: {{set: {{PATH: '/a://evil@/b', https_proxy:"
        " 'http://me:pw@p:1'}}"
    )

    assert [one.what.partition(", which")[0] for one in found] == [
        f"setup line of every job: {line}",
        "environment.set, in every job: PATH=/a://evil@/b",
        "environment.set, in every job: https_proxy=http://p:1",
    ]


@pytest.mark.parametrize("place", ["beside", "inherited"])
def test_a_file_in_place_of_a_shipped_profile_is_told(
    tmp_path: Path, monkeypatch, place: str
) -> None:
    """Whether the grid names it or its profile inherits from it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster_profiles").mkdir()
    (tmp_path / "cluster_profiles/local.yaml").write_text("name: local\nkind: local\n")
    (tmp_path / "cluster_profiles/mine.yaml").write_text(
        "name: mine\ninherits: local\n"
    )
    layers = profile_files.read_layers(
        "local" if place == "beside" else "mine", tmp_path
    )
    [found] = effects.list_effects(
        layers, profiles.make_profile(layers), grid(tmp_path), [], {}
    )

    assert (
        found.line
        == "profile local is a file of yours, in place of the profile of that name that zsg ships "
        "(cluster_profiles/local.yaml)"
    )


@pytest.mark.parametrize(
    ("environment", "more"),
    [
        ({}, ""),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, ", with MLFLOW_TRACKING_TOKEN"),
        (
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "t"},
            ", with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ),
    ],
)
def test_what_login_a_tracking_address_is_told_is_said(
    listed: Listed, environment: dict[str, str], more: str
) -> None:
    """By the names of the variables that are set where zsg is called."""
    [found] = listed("tracking: {uri: 'https://m.example'}", environment=environment)

    assert (
        found.what
        == f"tracking.uri: metrics, parameters and settings are sent to https://m.example{more}"
    )


def test_a_login_in_mlflows_file_is_said(tmp_path: Path, listed: Listed) -> None:
    """Its client sends it to every server."""
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\n")
    [found] = listed("tracking: {uri: 'https://m.example'}")

    assert found.what.endswith(
        "https://m.example, with the login of ~/.mlflow/credentials"
    )


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (
            "LAB_API_KEY",
            "judge: answers are sent to https://m.example/v1 with the value of LAB_API_KEY",
        ),
        (None, "judge: answers are sent to https://m.example/v1, without a key"),
    ],
)
def test_where_answers_are_sent_is_listed_once(
    tmp_path: Path, key: str | None, told: str
) -> None:
    """Of many runs that ask the same judge, with the variable of its key."""
    judge = {"base_url": "https://m.example/v1", "model": "m", "key_env": key}
    suite = Suite(name="mt_bench", keys=("mt_bench",), how={}, judge=judge)
    runs: Any = [
        SimpleNamespace(servers={}, suites=(suite,)),
        SimpleNamespace(servers={}, suites=(suite,)),
    ]
    layers = profile_files.read_layers("local", tmp_path)
    found = effects.list_effects(
        layers, profiles.make_profile(layers), grid(tmp_path), runs, {}
    )

    assert [(one.does, one.what) for one in found] == [(SENDS, told)]
    assert found[0].where.endswith("grid.yaml")


def test_programs_that_a_model_wrote_are_listed(tmp_path: Path) -> None:
    """Where the grid, or an option, lets them run."""
    suite = Suite(
        name="humaneval", keys=("humaneval/pass_at_1",), how={}, runs_code=True
    )
    runs: Any = [SimpleNamespace(servers={}, suites=(suite,))]
    layers = profile_files.read_layers("local", tmp_path)
    asked = grid(tmp_path, "checkpoints.suites.humaneval.allow_code_execution=true")
    [found] = effects.list_effects(
        layers, profiles.make_profile(layers), asked, runs, {}
    )

    assert (found.does, found.what) == (
        RUNS,
        "humaneval: programs that the model wrote are run, in a sandbox",
    )
    assert found.where.endswith("grid.yaml and --set")


def test_effects_are_in_every_row_for_scripts(tmp_path: Path) -> None:
    """As what stands in submit's way is."""
    found = effects.as_rows([Effect(RUNS, "setup line of every job: a", "p.yaml:3")])
    run: Any = SimpleNamespace(id="r", axes={})
    plan = Plan([SimpleNamespace(run=run, kind="submit", reason="new")] * 2, [], [])  # type: ignore[arg-type]

    assert [row["effects"] for row in plan_view.plan_rows(plan, {}, [], found)] == [
        [{"does": "runs", "what": "setup line of every job: a", "where": "p.yaml:3"}]
    ] * 2


GRID = """
name: g
defaults:
  model: {name: tiny, hidden: 32, layers: 1, heads: 2, vocab: 400}
  data: {path: tasks, train_per_task: 4, test_per_task: 1}
  train: {batch: 16, lr: 1e-3, max_length: 64, precision: fp32, steps: 2}
  checkpoints: {every: 2}
"""


@pytest.fixture
def opened(
    tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], workflow.ResolvedGrid]:
    """Opens a grid with this text of a profile that is beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster_profiles").mkdir()
    (tmp_path / "grid.yaml").write_text(
        GRID.replace("path: tasks", f"path: {json.dumps(str(tasks))}")
    )

    def make(profile: str) -> workflow.ResolvedGrid:
        (tmp_path / "cluster_profiles/local.yaml").write_text(
            f"name: local\n{profile}\n"
        )
        return workflow.open_grid(Path("grid.yaml"), None, None)

    return make


TOLD = (
    "  environment.set, in every job: PYTHONPATH=evil, which decides what code runs"
    " (cluster_profiles/local.yaml:3)"
)


def test_plan_and_a_submit_that_runs_here_list_it_first(
    opened, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A profile beside the grid brings a folder of modules; submit says so before any
    job is there."""
    asked = opened("kind: local\nenvironment: {set: {PYTHONPATH: evil}}")
    workflow.show_plan(asked, Allow(), json=False)
    planned = capsys.readouterr().out.splitlines()
    monkeypatch.setattr(
        workflow.submits, "submit_local", lambda *_: (print("BEGINS"), ([], []))[1]
    )
    monkeypatch.setattr(workflow, "_run_here", lambda *_: None)
    workflow.submit_grid(asked, Allow(), lambda question: True)
    submitted = capsys.readouterr().out.splitlines()

    assert TOLD in planned
    assert submitted.index(TOLD) < submitted.index("BEGINS")


def test_a_submit_to_slurm_lists_it_before_it_asks(
    opened, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever says yes has seen it."""
    asked = opened("kind: slurm\nenvironment: {set: {PYTHONPATH: evil}}")
    monkeypatch.setattr(workflow.submits, "refuse_without_slurm", lambda: None)
    monkeypatch.setattr(workflow.admission, "cluster_of", lambda *_, **__: Cluster())
    workflow.submit_grid(asked, Allow(), lambda question: bool(print("ASKED")))
    lines = capsys.readouterr().out.splitlines()

    assert lines.index(TOLD) < lines.index("ASKED")
