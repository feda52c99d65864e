"""`import zsg`: does it do what the command line does, as documented, and leave the program as it was?"""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zsg as public
from launcher.api import grids, submitting
from launcher.submission import workflow
from launcher.views import show
from tests.lib.command_line import Zsg

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs/notebook.ipynb"
PAGE = ROOT / "docs/python-api.md"
# what is promised to stay: the arguments of each function
PROMISED = {
    "compare": ["grid", "along", "values", "metric", "of", "workspace"],
    "item_losses": ["grid", "workspace", "metric"],
    "load_grid": ["file", "overrides", "profile", "workspace", "smoke"],
    "metrics": ["grid", "workspace"],
    "plan": ["grid", "only", "leave_out", "retry", "retrain"],
    "report": ["grid", "out", "metric", "x", "panel", "workspace"],
    "status": ["grid", "states", "workspace"],
    "submit": ["planned", "wait"],
    "write_starter": ["folder"],
}
# and the fields of each record
FIELDS = {
    "Effect": ["name", "value", "low", "high"],
    "Grid": ["name", "file", "profile", "workspace", "runs", "overrides", "smoke"],
    "Plan": ["grid", "runs", "refusals", "acting", "gpu_hours"],
    "PlannedRun": ["run", "action", "reason", "estimate", "gpu_hours"],
    "Run": ["id", "axes"],
    "RunStatus": ["run", "grid", "state", "axes", "attempt", "step", "steps", "loss"],
    "Verdict": ["word", "claim", "group", "values", "effects", "tasks", "notes"],
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The starter in an empty folder, where the program stands."""
    monkeypatch.chdir(tmp_path)
    public.write_starter()
    yield tmp_path


def test_what_is_promised_is_there() -> None:
    """Names, arguments by their order, and fields; more may be there."""
    for name, arguments in PROMISED.items():
        found = list(inspect.signature(getattr(public, name)).parameters)
        assert found[: len(arguments)] == arguments
    for name, fields in FIELDS.items():
        record = getattr(public, name)
        missing = [
            field
            for field in fields
            if field not in record.__annotations__ and not hasattr(record, field)
        ]
        assert missing == []
    assert set(public.__all__) >= {*PROMISED, *FIELDS, "ZsgError", "UserError"}
    assert all(getattr(public, name) is not None for name in public.__all__)


def test_a_name_is_imported_when_it_is_used() -> None:
    """`import zsg` brings neither the launcher nor numpy; where runs stand needs neither
    torch, MLflow nor pandas; a name that there is not is no name."""
    code = """
import sys, zsg
print([name for name in ("launcher", "numpy", "torch", "pydantic") if name in sys.modules])
zsg.status
print([name for name in ("torch", "mlflow", "pandas", "pydantic") if name in sys.modules])
print(hasattr(zsg, "nothing"), dir(zsg) == sorted(zsg.__all__))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["[]", "[]", "False True"]


@pytest.mark.engine  # needs the extras
def test_plan_says_what_the_command_says(study: Path) -> None:
    """The rows of `zsg plan --json`: actions, reasons, estimates; overrides count."""
    grid = public.load_grid("grid.yaml", {"train.lr": 1e-4, "seed": 3})
    planned = public.plan(grid, only=["order=random"])

    zsg = Zsg(study)
    options = ["--set", "train.lr=1e-4", "--set", "seed=3", "--only", "order=random"]
    rows = json.loads(zsg("plan", "grid.yaml", "--json", *options))
    assert [
        [each.run.id, each.action, each.reason, each.run.axes, each.estimate]
        for each in planned.runs
    ] == [
        [row[key] for key in ("run", "action", "reason", "axes", "estimate")]
        for row in rows
    ]
    assert [each.run.axes for each in planned.acting] == [
        {"arrangement.order": "random"}
    ]
    assert not (study / "zsg-work").exists()


def test_a_detached_submit_is_the_same_command(study: Path) -> None:
    """The command line that it starts has all that was asked for."""
    grid = public.load_grid("grid.yaml", ["train.lr=1e-4"], workspace="w", smoke=True)
    planned = public.Plan(grid=grid, runs=(), only=("seed=0",), retry=True)

    words = submitting.write_command(planned)

    shared = f"submit {study}/grid.yaml --profile local --workspace {study}/w --yes"
    asked = "--set train.lr=1e-4 --only seed=0 --smoke --retry"
    assert words == f"{shared} {asked}".split()


@pytest.mark.engine  # needs the extras
def test_what_is_shown_meanwhile_is_of_the_selected_runs(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the others, of which nothing is known."""
    shown: list[list[str]] = []

    class Seen(show.Progress):
        def show(self, note: str, rows: Any) -> None:
            shown.append([row["run"] for row in rows])

    def run_none(workspace: Any, profile: Any, jobs: Any, tick: Any) -> None:
        tick()

    monkeypatch.setattr(workflow.show, "Progress", Seen)
    monkeypatch.setattr(workflow.local, "run_all", run_none)
    command = [sys.executable, "-c", NO_DELIVERY]
    monkeypatch.setattr(
        workflow, "start_delivery", lambda *_: subprocess.Popen(command)
    )
    grid = public.load_grid("grid.yaml")
    first = grid.runs[0].id
    public.submit(public.plan(grid, only=[first]))

    assert len(grid.runs) > 1
    assert shown == [[first]]


def test_grids_of_several_workspaces_make_no_page_together(study: Path) -> None:
    """A page is of one; of one workspace names and loaded grids go together."""
    here = public.load_grid("grid.yaml", workspace="here")
    there = public.load_grid("grid.yaml", workspace="there")

    with pytest.raises(public.UserError, match="of several workspaces"):
        public.report([here, there])
    assert grids.find_grids([here, "other"], None) == (
        ["starter", "other"],
        study / "here",
    )


def test_a_grid_that_has_changed_is_not_submitted(study: Path) -> None:
    """What would be trained is not what was loaded and planned."""
    grid = public.load_grid("grid.yaml")
    file = study / "grid.yaml"
    file.write_text(file.read_text().replace("lr: 2e-3", "lr: 1e-3"))

    with pytest.raises(public.UserError, match=r"changed since it was loaded.*again"):
        public.submit(grid)
    assert not (study / "zsg-work").exists()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: public.load_grid("none.yaml"), "none.yaml: cannot be read"),
        (lambda: public.load_grid("grid.yaml", {"train.lrr": 1}), "Did you mean"),
        (lambda: public.load_grid("grid.yaml", {"train.lr": set()}), "allowed are"),
        (lambda: public.load_grid("grid.yaml", profile="moon"), "moon"),
        (lambda: public.status("starter"), "no grid was submitted"),
        (lambda: public.metrics("starter"), "no grid was submitted"),
        (lambda: public.compare("starter"), "no grid was submitted"),
        (lambda: public.report("starter"), "no grid was submitted"),
        (lambda: public.report([]), "no grid is named"),
        (lambda: public.report(Path("g")), "a grid is a loaded one, or the name"),  # type: ignore[arg-type]
        (lambda: public.report(["g", 3]), "a grid is a loaded one, or the name"),  # type: ignore[list-item]
        (lambda: public.compare("starter", values=["a", "b"]), "give along"),
        (lambda: public.compare("starter", along="a", values=["b"]), "two or more"),
    ],
)
@pytest.mark.engine  # needs the extras
def test_every_mistake_is_an_error_of_zsg(
    call: Any, told: str, study: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A UserError that says what; nothing is printed, and the program goes on."""
    with pytest.raises(public.UserError, match=re.escape(told)):
        call()

    assert capfd.readouterr() == ("", "")


def test_the_program_stays_as_it_was(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its umask and its environment; also where a call fails."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    former = os.umask(0o002)
    try:
        public.load_grid("grid.yaml")
        with pytest.raises(public.ZsgError):
            public.status("none")

        assert os.umask(0o002) == 0o002
    finally:
        os.umask(former)
    assert "PYTHONSAFEPATH" not in os.environ


def code_of_notebook() -> list[str]:
    """The code cells of the notebook."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["language_info"]["name"]) == (
        4,
        "python",
    )
    return [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def code_of_page() -> list[str]:
    """The examples of the page."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)


# what ends well when it is told to, as delivery does
NO_DELIVERY = "import signal; signal.signal(15, lambda *_: exit()); signal.pause()"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace for both: their runs are the same, and the second finds them done."""
    return tmp_path_factory.mktemp("trained") / "work"


@pytest.fixture
def spared(
    trained: Path, forked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty folder; jobs are forks, and MLflow is left out, to spare their imports."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("ZSG_WORKSPACE", str(trained))
    command = [sys.executable, "-c", NO_DELIVERY]
    monkeypatch.setattr(
        workflow, "start_delivery", lambda *_: subprocess.Popen(command)
    )
    return forked


@pytest.mark.engine  # trains the starter's two runs
@pytest.mark.parametrize("read_code", [code_of_notebook, code_of_page])
def test_what_is_shown_runs_as_it_is_shown(
    read_code: Any, spared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The notebook and the page, cell by cell, in an empty folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in read_code():
        exec(compile(cell, "cell", "exec"), names)
        file = tmp_path / "grid.yaml"
        text = file.read_text().replace("profile: local", f"profile: {spared}")
        file.write_text(text)

    assert capfd.readouterr().err == ""
    [page] = tmp_path.glob("*/report.html")
    assert "arrangement.order" in page.read_text(encoding="utf-8")


def test_a_cell_of_the_notebook_is_code_and_has_no_output() -> None:
    """What was printed once is no part of the repository."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))

    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))
            assert cell["outputs"] == [] and cell["execution_count"] is None
