"""Is the record of a submitted grid the same file as ever, and does it read older ones?"""

from pathlib import Path

import pytest

from jobs.contract import grid_record
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import DatedClaim, GridRecord, ListedRun
from jobs.contract.job_file import SubmittedCode
from launcher.workspace import recorded_grids

GOLDEN = Path(__file__).parent / "golden"
RECIPE = {"schema": 1, "base": {"kind": "tiny"}, "stages": [{}, {}]}
RECORD = GridRecord(
    name="orders",
    file="/somewhere/orders.yaml",
    opened_with="local",
    smoke=False,
    profile="local",
    tracking=None,
    overrides=["train.lr=0.1"],
    submitted=1_795_909_201_914,
    code=SubmittedCode(
        zsg="0.1.0",
        python="3.11.7",
        digest="6ccefec5c87f2883",
        commit=None,
        dirty=None,
        folder="/somewhere/zsg-work/code/6ccefec5c87f2883",
    ),
    corpora=["c1"],
    before=[ListedRun(run="b1", axes={"stages": "the first 1"})],
    claims=[DatedClaim(claim="{}", since=1_795_909_201_914, done=2)],
    runs=[
        ListedRun(
            run="r1",
            axes={"train.lr": 0.1, "data": "数"},
            recipe=RECIPE,
            model="tiny",
            strategy="",
        )
    ],
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace in which a grid was submitted with three runs and a stage."""
    (tmp_path / "orders.yaml").write_text("name: orders\n")
    workspace = Workspace(tmp_path / "work")
    earlier = GridRecord(
        name="orders",
        before=[ListedRun(run="b0", axes={"stages": "the first 1"})],
        runs=[
            ListedRun(run=run, axes={}, recipe=RECIPE, model="tiny", strategy="dmt")
            for run in ("r0", "r1")
        ],
    )
    recorded_grids.write_grid(workspace, tmp_path / "orders.yaml", earlier)
    return workspace


def test_its_file_is_the_same_byte_for_byte(
    workspace: Workspace, tmp_path: Path
) -> None:
    """With what the grid once listed, which has a mark where it was a stage."""
    recorded_grids.write_grid(workspace, tmp_path / "orders.yaml", RECORD)
    written = workspace.grid("orders") / "grid.json"

    assert written.read_text() == (GOLDEN / "grid.json").read_text()


def test_what_is_written_is_read(workspace: Workspace, tmp_path: Path) -> None:
    """The whole, and the outline without recipes."""
    recorded_grids.write_grid(workspace, tmp_path / "orders.yaml", RECORD)
    record = recorded_grids.read_grid(workspace, "orders")
    outline = recorded_grids.read_outline(workspace, "orders")

    assert (record.runs, record.before, record.code) == (
        RECORD.runs,
        RECORD.before,
        RECORD.code,
    )
    assert [row.run for row in record.all_runs] == ["r1", "b1", "r0", "b0"]
    assert [row.is_stage for row in record.former] == [False, True]
    assert [(row.run, row.axes) for row in outline.all_runs] == [
        (row.run, row.axes) for row in record.all_runs
    ]


@pytest.mark.parametrize("name", ["before", "scored"])
def test_an_older_record_is_read_and_written_as_it_was(
    tmp_path: Path, name: str
) -> None:
    """One of an older zsg, which knew no corpora."""
    kept = GOLDEN / "older_workspace" / "grids" / name / "grid.json"
    workspace = Workspace(tmp_path)
    path = workspace.grid(name) / "grid.json"
    path.parent.mkdir(parents=True)
    path.write_text(kept.read_text())
    record = grid_record.read_grid_record(workspace, name)
    assert record is not None
    grid_record.write_grid_record(workspace, record)

    assert path.read_text().replace(' "corpora": [],\n', "") == kept.read_text()


def test_a_record_may_lack_what_came_later(tmp_path: Path) -> None:
    """Only its name and its runs have always been there; what a later zsg adds is
    passed over."""
    workspace = Workspace(tmp_path)
    path = workspace.grid("g") / "grid.json"
    path.parent.mkdir(parents=True)
    path.write_text(
        '{"name": "g", "later": 1, "runs": [{"run": "r", "axes": {}, "later": 2}]}'
    )

    assert recorded_grids.read_grid(workspace, "g") == GridRecord(
        name="g", runs=[ListedRun(run="r", axes={})]
    )


@pytest.mark.parametrize(
    "text", ["", "[]", '{"name": "g"}', '{"name": "g", "runs": [7]}']
)
def test_a_broken_record_is_named(tmp_path: Path, text: str) -> None:
    """Whoever reads it learns which file it is."""
    workspace = Workspace(tmp_path)
    path = workspace.grid("g") / "grid.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    for read in (recorded_grids.read_grid, recorded_grids.read_outline):
        with pytest.raises(Damaged, match=str(path)):
            read(workspace, "g")
