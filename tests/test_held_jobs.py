"""Are held jobs released by whoever asks for it, and no others?"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.contract.folder import Workspace
from jobs.contract.states import State
from launcher.clusters.profiles import Profile
from launcher.grids.runs import Run
from launcher.grids.selection import EVERYTHING, Selection
from launcher.planning.plan import Allow, Plan, run_item
from launcher.planning.site import Site
from launcher.status import reasons, why
from launcher.status.status import collect_states
from launcher.submission import submit_plan
from launcher.views import plan_view
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import write_job_file
from tests.lib.planned_runs import a_run
from tests.lib.slurm_answers import owned

NOTHING_ELSE: dict[str, Any] = {"flag": None, "evidence": None, "doing": None}


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two runs whose jobs Slurm has, and the prepare job of the first."""
    runs = [a_run("cluster"), a_run("random")]
    ledger = Ledger(Workspace(tmp_path))
    for number, item in enumerate(["prepare/p", *map(run_item, runs)], start=6):
        kind = item.partition("/")[0].removesuffix("s")
        name = {"run": "train"}.get(kind, kind)
        intent = ledger.intend(scheduler="slurm", kind=name, grid="g", items=[item])
        ledger.submitted(intent, [f"{number}_0"])
        ledger.released(intent)
        after = ["prepare/p"] if item == run_item(runs[0]) else []
        settings = {"makes": ["corpora/c"]} if name == "prepare" else {"after": after}
        write_job_file(tmp_path / item, name, **settings)
    return runs


def plan_held(
    folder: Path, runs: list[Run], allow: Allow, monkeypatch: pytest.MonkeyPatch
) -> Plan:
    """What a submit would do of runs that are held, each by the number of its job."""
    ledger = Ledger(Workspace(folder))

    def collect(workspace: Workspace, items: list[str], *_: Any, **__: Any) -> Any:
        del workspace
        last = ledger.by_item()
        return {
            item: JobState(
                state=State.QUEUED,
                reason="JobHeldUser",
                slurm=last[item].ids[0],
                in_queue=True,
                unreleased=last[item].is_unfinished,
            )
            for item in items
        }

    monkeypatch.setattr(submit_plan, "collect_states", collect)
    grid = cast("Any", SimpleNamespace(name="g", looks=None, claims=[]))
    profile = Profile(name="p", kind="slurm")
    site = Site(Workspace(folder), profile)
    return submit_plan.SubmitPlanner(site, grid, runs, ledger, allow).plan_submit()


@pytest.mark.parametrize(
    ("retry", "selected", "released"),
    [
        pytest.param(True, [0, 1], ["6_0", "7_0", "8_0"], id="all"),
        pytest.param(True, [0], ["6_0", "7_0"], id="a run and what it waits for"),
        pytest.param(True, [1], ["8_0"], id="no other run's"),
        pytest.param(False, [0, 1], [], id="not unasked"),
    ],
)
def test_held_jobs_are_released_of_selected_runs_alone(
    retry: bool,
    selected: list[int],
    released: list[str],
    tmp_path: Path,
    runs: list[Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what they wait for; the plan shows it, and it is asked for as new jobs are."""
    selection = Selection.of_ids([runs[index].id for index in selected])
    if len(selected) == len(runs):
        selection = EVERYTHING
    plan = plan_held(
        tmp_path, runs, Allow(retry=retry, selection=selection), monkeypatch
    )
    profile = Profile(name="p", kind="slurm")
    shown = plan_view.PlanShown("g", profile, estimate_of=lambda run: run)  # type: ignore[arg-type]
    plan_view.print_runs(plan, shown)
    printed = capsys.readouterr().out

    assert sorted(job.id for job in plan.held) == released
    assert plan.changes_queue == bool(released)
    assert ("released: " in printed and "or you held them" in printed) == bool(released)
    assert ("held job" in plan_view.count_runs(plan)) == bool(released)


def test_a_job_that_a_plain_submit_releases_is_said_to_be_so(
    tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submit that was cut short before its release is settled by the next one: neither
    plan nor status nor why names --retry, which tries failed runs again, too."""
    workspace, ledger = Workspace(tmp_path), Ledger(Workspace(tmp_path))
    item = run_item(runs[0])
    intent = ledger.intend(scheduler="slurm", kind="train", grid="g", items=[item])
    ledger.submitted(intent, ["9_0"])
    line = "9_0|PENDING|JobHeldUser|N/A|0:00|"

    def squeue(argv: list[str], **_: object) -> Any:
        printed = owned(line, intent.name, 6) if argv[0] == "squeue" else ""
        return SimpleNamespace(returncode=0, stdout=printed, stderr="")

    advice: list[str] = []
    for _ in range(2):
        [state] = collect_states(workspace, [item], ledger, squeue).values()
        assert state.reason == "JobHeldUser"
        plan = plan_held(tmp_path, runs, Allow(), monkeypatch)
        row = {"state": state.state, "reason": state.reason}
        row |= {"unreleased": state.unreleased, "starts": None}
        shown = reasons.describe_run(
            {"wanted": True, "cause": None} | row | NOTHING_ELSE
        )
        told = why.make_why_row(runs[0].id, "g", state, None)["next"]
        advice.append(f"{plan.actions[0].reason}\n{shown}\n{told}")
        ledger.released(intent)

    assert advice[0].count("cut short: zsg submit GRID.YAML releases it") == 3
    assert advice[1].count("zsg submit GRID.YAML --retry") == 3
    assert f"--retry --only {runs[0].id} releases it" in advice[1]
