"""Does every shipped grid run small on CPUs without 16-bit arithmetic, from `zsg submit
--smoke` to a report?"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.causes import Cause
from jobs.contract.folder import read_json, write_json
from launcher.grids import grid as grids
from tests.lib import shelf
from tests.lib.command_line import Zsg
from tests.lib.forked_jobs import JobServer
from tests.lib.shipped_grids import GRIDS, STUDIES

ROWS = 16  # of each file, or of each task: twice as many as a smoke run takes
# by which torch, and so DeepSpeed, takes this one for a CPU without fp16
OLD_CPU = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
OF_THE_MODEL = {"model.name", "model.path"}  # in whose place one tiny model stands


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zsg]:
    """A folder with all that the templates name, and one workspace for all of them:
    what two share is made once."""
    folder = shelf.fill(tmp_path_factory.mktemp("shelf"), ROWS)
    # each job's own imports would take longer than all else
    with JobServer(folder / "socket", ["sentence_transformers"]) as server:
        environment = {"set": server.variables | OLD_CPU}
        write_json(
            folder / "forked.yaml",
            {"name": "forked", "inherits": "local", "environment": environment},
        )
        yield Zsg(folder)


def job_of(zsg: Zsg, run: str) -> dict[str, Any]:
    """What a run's job was told."""
    job = read_json(zsg.work / "runs" / run / "job.json")
    assert job is not None
    return job


def list_of(zsg: Zsg, run: str) -> list[str]:
    """The ids of a run's last stage, in the order in which it trained on them."""
    made = job_of(zsg, run)["made"]["arrangement"]
    return (
        (zsg.work / "arrangements" / made / "ids")
        .read_text(encoding="utf-8")
        .splitlines()
    )


def by_axis(zsg: Zsg, name: str, axis: str) -> dict[str, list[str]]:
    """The training list of each value of an axis, in the grid's order."""
    rows = zsg.status(f"{name}-smoke")
    return {str(row["axes"][axis]): list_of(zsg, row["run"]) for row in rows}


# of templates whose benchmarks' data lie on a hub: the metrics that need none of them
WITHOUT_HUB = {"flan-palm-tasks": "[loss, rank_accuracy, exact_match]"}


def submit(zsg: Zsg, path: Path) -> None:
    """A smoke run; what is done already is not done again."""
    options: list[str] = []
    if path.stem in WITHOUT_HUB:
        options = ["--set", f"checkpoints.metrics={WITHOUT_HUB[path.stem]}"]
        options += ["--set", "checkpoints.suites.lm_eval=null"]
    zsg("submit", path, "--smoke", "--profile", "forked.yaml", "--yes", *options)


@pytest.mark.soak(part="trials")
@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_template_runs_small_to_a_report(path: Path, small: Zsg) -> None:
    """All its runs are done, as many as it has points, but those that a look has spared;
    the report has a value of each, and verdicts on its claims."""
    submit(small, path)
    name = f"{grids.load_grid(path).name}-smoke"
    rows = small.status(name)
    small("report", name)
    folder = small.work / "grids" / name
    with (folder / "report/finals.csv").open(encoding="utf-8") as lines:
        finals = list(csv.DictReader(lines))
    points = grids.load_grid(path).points
    apart = {
        repr({key: value for key, value in one.axes.items() if key not in OF_THE_MODEL})
        for one in points
    }

    assert len(rows) == len(apart), "points that the grid compares have become one run"
    spared = [row for row in rows if row["cause"] == Cause.SPARED]
    assert not spared or "\n  looks:" in path.read_text()
    tried = [row for row in rows if row not in spared]
    assert [row["state"] for row in tried] == ["done"] * len(tried)
    assert min(row["steps"] for row in tried) >= 4
    for row in tried:
        trained = job_of(small, row["run"])["recipe"]["stages"][-1]["train"]
        assert trained["precision"] in ("fp32", "bf16")
    assert finals and all(
        int(row["runs"]) and float(row["final"]) > 0 for row in finals
    )
    assert ("Verdicts" in (folder / "report/report.html").read_text()) == (
        "\nclaims:" in path.read_text()
    )


@pytest.mark.soak(part="trials")
@pytest.mark.parametrize(
    ("name", "axis", "sizes"),
    [
        ("delia-ratio", "data.sources.diverse.ratio", [8, 16, 24, 32, 40]),
        ("dmt-k-sweep", "strategy", [24, 20, 16, 14, 10, 8]),
    ],
)
def test_amounts_that_are_compared_differ(
    name: str, axis: str, sizes: list[int], small: Zsg
) -> None:
    """Each of DELIA's ratios, and each k of DMT's last stage, is another number of examples."""
    submit(small, STUDIES / f"{name}.yaml")

    assert [len(ids) for ids in by_axis(small, name, axis).values()] == sizes


@pytest.mark.soak(part="trials")
@pytest.mark.parametrize(
    ("name", "axis", "count"),
    [
        ("zsg-early-rounds", "arrangement.rounds", 6),
        ("zsg-granularity", "arrangement.granularity", 2),
    ],
)
def test_orders_that_are_compared_differ(
    name: str, axis: str, count: int, small: Zsg
) -> None:
    """Each of TMA's early rounds is there and has other examples; sorting tasks is
    another order than examples."""
    submit(small, STUDIES / f"{name}.yaml")
    lists = [tuple(ids) for ids in by_axis(small, name, axis).values()]

    assert len(set(lists)) == len(lists) == count
    assert all(lists)


@pytest.mark.soak(part="trials")
def test_representations_have_a_silhouette(small: Zsg) -> None:
    """Hidden states of each source stand in a group of several, at the base and at the end."""
    submit(small, STUDIES / "dmt-representations.yaml")
    small("export", "dmt-representations-smoke", "--out", "all.csv")
    with (small.folder / "all.csv").open(encoding="utf-8") as lines:
        found = [
            row
            for row in csv.DictReader(lines)
            if row["key"] == "silhouette/layer_2/math"
        ]

    assert len(found) >= 2
    assert all(-1 <= float(row["value"]) <= 1 for row in found)


@pytest.mark.soak(part="trials")
def test_a_template_runs_small_under_the_profile_local(small: Zsg) -> None:
    """Nothing of the profile that the other tests lay over `local` is needed: a grid in
    fp16 trains in fp32 here."""
    zsg = Zsg(small.folder)
    own = ("--workspace", "own")
    zsg(
        "submit",
        STUDIES / "zsg-granularity.yaml",
        "--smoke",
        "--profile",
        "local",
        *own,
    )

    assert (
        "note: the smoke run trains in fp32: fp32 in place of fp16, in which most CPUs cannot train"
        in zsg.said
    )
    assert [row["state"] for row in zsg.status("zsg-granularity-smoke", *own)] == [
        "done",
        "done",
    ]
