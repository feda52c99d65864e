"""Does every shipped grid run small on this machine, from `zsg submit --smoke` to a report?"""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import shelf
from conftest import Zsg
from forked_jobs import serve
from test_templates import STUDIES

from jobs.folder import read_json, write_json

ROWS = 16  # of each file, or of each task: twice as many as a smoke run takes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zsg]:
    """A folder with all that the templates name, and one workspace for all of them: what two share is made once."""
    folder = shelf.fill(tmp_path_factory.mktemp("shelf"), ROWS)
    with serve(folder / "socket") as variables:  # each job's own imports would take longer than all else
        write_json(folder / "forked.yaml", {"name": "forked", "inherits": "local", "environment": {"set": variables}})
        yield Zsg(folder)


@pytest.mark.soak
@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_template_runs_small_to_a_report(path: Path, small: Zsg) -> None:
    """All its runs are done; the report has a value of each, and a verdict on what the study claims."""
    small("submit", path, "--smoke", "--profile", "forked.yaml", "--yes")
    name = f"{path.stem}-smoke"
    states = [row["state"] for row in small.status(name)]
    small("report", name)
    folder = small.work / "grids" / name
    with (folder / "report/finals.csv").open(encoding="utf-8") as lines:
        finals = list(csv.DictReader(lines))

    assert states == ["done"] * len(read_json(folder / "grid.json")["runs"])
    assert finals and all(int(row["runs"]) and float(row["final"]) > 0 for row in finals)
    assert ("Verdicts" in (folder / "report/report.html").read_text()) == ("\nclaims:" in path.read_text())
