"""Does `zsg plan` say what the grid language makes of a file: which points are runs,
and which are one run?"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import cli
from launcher.clusters.cluster import Cluster
from launcher.planning import admission
from launcher.submission import submit
from launcher.workspace import extras
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg

HEAD = "name: g\ndefaults:\n  data: {path: data, sampling: first}\n  train: {batch: 4, init_seed: 0}\n"


@pytest.fixture
def planned(zsg: Zsg):
    """Plans a grid that follows name, data and a fixed seed of the weights: the rows,
    and what was said."""
    write_niv2(zsg.folder / "data")

    def plan(text: str, *options: str) -> tuple[list[dict[str, Any]], str]:
        rows = json.loads(
            zsg("plan", zsg.write("grid.yaml", HEAD + text), "--json", *options)
        )
        return rows, zsg.said

    return plan


def test_only_seeds_that_take_effect_make_runs(planned) -> None:
    """Of three seeds the order by task, of the first examples and fixed weights, sees
    none; a random order sees all."""
    rows, said = planned(
        "grid: {arrangement.order: [cluster, random], seed: [0, 1, 2]}\n"
    )

    assert [
        (row["axes"]["arrangement.order"], row["axes"]["seed"]) for row in rows
    ] == [
        ("cluster", 0),
        ("random", 0),
        ("random", 1),
        ("random", 2),
    ]
    assert (
        f"note: 3 points are one run, {rows[0]['run']}: they differ only in settings that change"
        " nothing" in said
    )
    assert "(seed); the first of them stands for all" in said


def test_points_of_several_blocks_that_are_equal_are_one_run(planned) -> None:
    """A run that two blocks ask for, in other words too, is planned once, and the plan says so."""
    rows, said = planned(
        "grid:\n- {data.fraction: [1/4, 1/2]}\n- {data: {fraction: 0.25}}\n"
    )

    assert [row["axes"] for row in rows] == [
        {"data.fraction": "1/4"},
        {"data.fraction": "1/2"},
    ]
    assert "note: 2 points are one run" in said


def test_set_makes_the_run_that_the_file_would_make(planned) -> None:
    """A setting has the same run id from `--set` as from the file."""
    [given], _ = planned("", "--set", "train.lr=1e-3", "--set", "data.fraction=1/4")
    [written], _ = planned("  train.lr: 1e-3\n  data.fraction: 0.25\n")
    [other], _ = planned("")

    assert given["run"] == written["run"] != other["run"]


def test_an_exclude_without_effect_is_said(planned) -> None:
    """A rule that leaves nothing out is probably a mistake: plan goes on and names its line."""
    rows, said = planned(
        "grid: {seed: [0, 1], arrangement.order: [random]}\nexclude:\n- {seed: 7}\n"
    )

    assert len(rows) == 2
    assert "grid.yaml:7: this `exclude` matches no point of the grid" in said


def test_only_and_except_say_which_runs_are_meant(planned) -> None:
    """Options add up; runs that they do not name are skipped as such, and the same axes
    are shown."""
    grid = "grid: {arrangement.order: [cluster, random], data.fraction: [1/4, 1/2]}\n"
    rows, _ = planned(
        grid,
        "--only",
        "order=random",
        "--only",
        "data.fraction=0.25",
        "--except",
        "state=done",
    )

    assert [(row["action"], row["reason"]) for row in rows] == [
        ("submit", "new"),
        ("skip", "not selected"),
        ("submit", "new"),
        ("submit", "new"),
    ]


def seeds_of_one_rate(zsg: Zsg, count: int) -> Path:
    """A grid of so many runs that differ in their seeds."""
    write_niv2(zsg.folder / "data")
    seeds = ", ".join(map(str, range(count)))
    axes = f"grid:\n  train.lr: [1e-3]\n  train.init_seed: [{seeds}]\n"
    return zsg.write("grid.yaml", HEAD + axes)


def test_a_long_plan_is_whole_where_it_is_asked_for(zsg: Zsg) -> None:
    """A table of hundreds of runs has a line for each, its columns in line, and nothing
    is cut."""
    printed = zsg("plan", seeds_of_one_rate(zsg, 300), "--all").splitlines()
    head, *rows = printed[1:302]

    assert head.split() == ["run", "init_seed", "why"]
    assert [row.split()[1] for row in rows] == [str(seed) for seed in range(300)]
    assert {row.index("new") for row in rows} == {head.index("why")}


def test_a_long_plan_takes_one_screen(zsg: Zsg) -> None:
    """The first runs, how many more there are, and the values of each axis."""
    printed = zsg("plan", seeds_of_one_rate(zsg, 300)).splitlines()

    assert len(printed) <= 24
    assert "… and 292 more, all to submit (--all shows every run)" in printed
    assert "axis    init_seed: 0, 1, 2, 3, … 299 (300 values)" in printed


def full_disk(patch: pytest.MonkeyPatch) -> None:
    """A disk with a kilobyte left."""
    patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))


def bare_python(patch: pytest.MonkeyPatch) -> None:
    """An installation of zsg with none of its extras."""
    patch.setattr(extras, "find_missing", list)


def a_cluster(patch: pytest.MonkeyPatch) -> None:
    """A Slurm that answers, and limits nothing."""
    patch.setattr(admission, "cluster_of", lambda *_, **__: Cluster())
    patch.setattr(submit, "refuse_without_slurm", lambda: None)


TORCH = (
    "training needs torch, transformers, deepspeed, which are not installed here: pip install"
    " 'zsg[train]'"
)
REFUSALS = [  # what is different here; the profile's lines; the exit code; what is said
    pytest.param(
        full_disk,
        "kind: local",
        2,
        "GB of states would be on disk at once",
        id="the disk",
    ),
    pytest.param(
        bare_python, "kind: local", 3, TORCH, id="no torch here, and jobs run here"
    ),
    pytest.param(
        bare_python,
        "inherits: slurm-minimal",
        3,
        TORCH,
        id="no torch in the Python that jobs start",
    ),
    pytest.param(
        a_cluster,
        "inherits: a100-80g\nmax_gpus: 7",
        2,
        "16 GPUs would be held at once, more than the profile's max_gpus 7",
        id="GPUs at once",
    ),
    pytest.param(
        a_cluster,
        "inherits: a100-80g\nmax_gpu_hours: 1e-9",
        2,
        "more than the profile's max_gpu_hours 1e-09",
        id="GPU-hours",
    ),
]


@pytest.fixture
def ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    """How a command ends in this process: its exit code, what it printed, what it said."""
    write_niv2(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*argv: str) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["zsg", *argv])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code, printed=out, said=err)

    return run


@pytest.mark.parametrize(("different", "lines", "code", "words"), REFUSALS)
def test_plan_ends_as_submit_would(
    different: Callable[[pytest.MonkeyPatch], None],
    lines: str,
    code: int,
    words: str,
    ended,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What submit refuses, plan, a dry run and a detached submit refuse in the same
    words, with the same exit code."""
    Path("own.yaml").write_text(f"name: own\n{lines}\n")
    Path("grid.yaml").write_text(
        HEAD + "grid: {arrangement.order: [cluster, random]}\n"
    )
    different(monkeypatch)
    if different is bare_python and "slurm" in lines:
        a_cluster(monkeypatch)
    given = ["grid.yaml", "--profile", "own.yaml", "--set", "train.batch=8"]

    submitted = ended("submit", *given)
    detached = ended("submit", *given, "--detach")
    planned, dry = ended("plan", *given), ended("submit", *given, "--dry-run")
    rows = ended("plan", *given, "--json")
    why = submitted.said.partition("error: ")[2].strip()

    assert (submitted.code, submitted.printed) == (code, "")
    assert words in why
    assert (detached.code, detached.said.partition("error: ")[2].strip()) == (code, why)
    assert (planned.code, dry.code, rows.code) == (code, code, code)
    assert f"submit would refuse: {why}" in planned.printed.splitlines()
    assert (
        "own: 2 to submit" not in planned.printed
        and "g: 2 to submit" in planned.printed
    ), "the plan is shown all the same"
    assert [row["refused"] for row in json.loads(rows.printed)] == [[why], [why]]
    assert not Path("zsg-work/ledger.jsonl").exists()


def test_what_may_be_elsewhere_is_no_refusal(
    ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where setup lines, a container or PYTHONPATH may bring jobs their packages, plan
    tells what is missing here."""
    bare_python(monkeypatch)
    Path("grid.yaml").write_text(HEAD)
    for number, lines in enumerate(
        (
            "inherits: slurm-minimal\nsetup: [module load torch]",
            "inherits: slurm-minimal\ncontainer: {prefix: [apptainer, exec, a.sif]}",
            "kind: local\nenvironment: {set: {PYTHONPATH: /opt/site}}",
        )
    ):
        Path(f"p{number}.yaml").write_text(f"name: p{number}\n{lines}\n")
        planned = ended("plan", "grid.yaml", "--profile", f"p{number}.yaml")

        assert planned.code == 0
        assert f"note: {TORCH}; not needed where" in planned.said


def test_plan_says_where_it_could_not_look(
    ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from the cluster a plan is no refusal, and says that the limits were not looked at."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    Path("grid.yaml").write_text(HEAD)
    planned = ended("plan", "grid.yaml", "--profile", "slurm-minimal")

    assert planned.code == 0
    assert (
        "the cluster's limits were not looked at: there is no scontrol here"
        in planned.said
    )


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        pytest.param(
            "train.tuning: {method: lora}",
            ["torch", "transformers", "deepspeed", "peft"],
            id="LoRA",
        ),
        pytest.param(
            "arrangement: {order: nft, measure: ot}",
            ["torch", "transformers", "deepspeed", "sentence_transformers", "ot"],
            id="optimal transport",
        ),
        pytest.param(
            "checkpoints: {snapshots: 1, metrics: [loss, rouge1]}",
            ["torch", "transformers", "deepspeed", "rouge_score"],
            id="ROUGE",
        ),
        pytest.param(
            "checkpoints: {snapshots: 1, representations: {layers: [1]}}",
            ["torch", "transformers", "deepspeed", "sklearn"],
            id="silhouettes",
        ),
    ],
)
def test_packages_are_asked_for_where_they_are_needed(
    changes: str, asked: list[str], ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan looks for what its own jobs import, and for nothing else."""
    looked: list[str] = []
    monkeypatch.setattr(
        extras, "find_missing", lambda modules: [looked.extend(modules)] and []
    )
    Path("grid.yaml").write_text(HEAD + f"  {changes}\n")

    assert ended("plan", "grid.yaml").code == 0
    assert looked == asked
