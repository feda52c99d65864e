"""Are claims locked by the first submit, and later changes kept with their reason?"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from jobs.contract.grid_record import Deviation, GridRecord, ListedRun
from launcher.grids import claim_deviations, grid_claims
from launcher.grids import grid as grids
from launcher.planning.plan import Allow
from launcher.reporting.html import verdict_section
from launcher.submission import submit, workflow
from zsg_core.errors import UserError

FILE = """
name: g
defaults: {data: {path: tasks, held_out: {by: seed, tasks: 2}}}
grid:
  arrangement.order: [nft, rt, fft]
  data.held_out.seed: [0, 1, 2, 3, 4, 5]
claims:
"""
SEEDS = [0, 1, 2, 3, 4, 5]
LIST = "- {claim: rises, along: arrangement.order, values: [nft, fft]%s}"
LOOKS = "  looks: {at: %s}\n  list:\n    "


def load(folder: Path, claims: str) -> grids.Grid:
    """The grid with these claims."""
    path = folder / "grid.yaml"
    path.write_text(f"{FILE}{claims}\n")
    return grids.load_grid(path)


def record(
    grid: grids.Grid, earlier: GridRecord | None = None, **more: Any
) -> GridRecord:
    """The record of a grid's submit."""
    return GridRecord(
        name="g",
        runs=[],
        claims=grid_claims.date_claims(grid.claims, [], 1000, lambda: 0),
        looks=claim_deviations.keep_looks(grid.looks),
        locked=claim_deviations.keep_lock(earlier, grid.looks),
        **more,
    )


def collect(
    earlier: GridRecord | None, grid: grids.Grid, because: str = ""
) -> list[Deviation]:
    """The deviations of a submit when three runs are done."""
    return claim_deviations.collect_deviations(earlier, grid, 2000, lambda: 3, because)


def test_the_first_submit_locks_looks_with_their_bounds(tmp_path: Path) -> None:
    """Their settings, bounds and seed stand in the record, but for what is expected."""
    locked = claim_deviations.lock_looks(
        load(
            tmp_path, LOOKS % "[4, 6], expect: {effect: 1, split_sd: 1}" + LIST % ""
        ).looks
    )

    assert locked is not None
    assert locked.settings["at"] == [4, 6]
    assert "expect" not in locked.settings
    assert [look.splits for look in locked.looks] == [4, 6]
    assert locked.looks[0].t > locked.looks[1].t > 2
    assert locked.seed


def test_locked_claims_do_not_change_without_a_reason(tmp_path: Path) -> None:
    """And with one the change stands in the record, with date and runs done."""
    first = load(tmp_path, LOOKS % "[4, 6]" + LIST % "")
    later = load(tmp_path, LOOKS % "[5, 6]" + LIST % ", by: 0.1")

    with pytest.raises(UserError, match="--because"):
        collect(record(first), later)
    [deviation] = collect(record(first), later, "a task was broken")
    assert (deviation.at, deviation.done) == (2000, 3)
    assert deviation.reason == "a task was broken"
    left_out, added, looks = deviation.changes
    assert left_out.startswith('left out: {"claim": "rises"')
    assert '"by": 0.1' in added
    assert looks == "looks.at: [4, 6] → [5, 6]"


def test_claims_stay_locked_once_their_looks_are_left_out(tmp_path: Path) -> None:
    """However often: claims are not set free by a change that was allowed."""
    first = load(tmp_path, LOOKS % "[4, 6]" + LIST % "")
    without = load(tmp_path, "  " + LIST % "")
    edited = load(tmp_path, "  " + LIST % ", by: 0.1")
    [deviation] = collect(record(first), without, "all at once")
    second = record(without, record(first), deviations=[deviation])
    third = record(without, second)

    assert deviation.changes == ["looks: left out"]
    assert claim_deviations.find_refusal(second, without, "") is None
    for earlier in (second, third):
        with pytest.raises(UserError, match="were locked"):
            collect(earlier, edited)
    with pytest.raises(UserError, match="looks: added"):
        collect(record(load(tmp_path, "  []"), second), first)
    assert record(edited).locked is UNSET


def list_points(seeds: list[int]) -> list[dict[str, Any]]:
    """The axes of runs with held-out splits of these seeds."""
    return [{"data.held_out.seed": seed} for seed in seeds]


def test_the_order_of_held_out_splits_is_locked_with_the_looks(tmp_path: Path) -> None:
    """It says of which splits a look is: other splits first would be another look."""
    grid = load(tmp_path, LOOKS % "[4, 6]" + LIST % "")
    first = record(grid)
    runs = [
        ListedRun(run=f"r{n}", axes=axes) for n, axes in enumerate(list_points(SEEDS))
    ]
    first = msgspec.structs.replace(first, runs=runs)
    swapped = list_points([*SEEDS[:3], 5, 4, 3])

    assert claim_deviations.find_refusal(first, grid, "", list_points(SEEDS)) is None
    refusal = claim_deviations.find_refusal(first, grid, "", swapped)
    assert refusal is not None
    assert 'held-out split 4: {"data.held_out.seed": 3}' in str(refusal)
    assert claim_deviations.find_refusal(first, grid, "a reason", swapped) is None


def test_what_does_not_change_is_no_deviation(tmp_path: Path) -> None:
    """A first submit, the same again, other expectations, and a grid that claims nothing
    yet."""
    grid = load(tmp_path, LOOKS % "[4, 6]" + LIST % "")
    expecting = "[4, 6], expect: {effect: 1, split_sd: 1}"

    assert collect(None, grid) == []
    assert collect(record(grid), grid) == []
    assert collect(record(grid), load(tmp_path, LOOKS % expecting + LIST % "")) == []
    assert (
        collect(record(load(tmp_path, "  []")), load(tmp_path, "  " + LIST % "")) == []
    )


def test_claims_without_looks_change_freely_and_it_is_kept(tmp_path: Path) -> None:
    """Once each; what was recorded before stays."""
    first = load(tmp_path, "  " + LIST % "")
    later = load(tmp_path, "  " + LIST % ", by: 0.1")
    [deviation] = kept = collect(record(first), later)

    assert deviation.reason == ""
    assert collect(record(later, deviations=kept), later) == kept


@pytest.mark.engine
def test_the_page_tells_deviations_as_text(tmp_path: Path) -> None:
    """With their dates; what looks like HTML stays text."""
    grid = load(tmp_path, "  " + LIST % "")
    because = "<b>see</b> notes"
    kept = [
        Deviation(at=1_700_000_000_000, done=3, changes=["added: x"], reason=because),
        Deviation(at=10**30, done=1, changes=["added: y"]),
    ]
    page = "".join(
        verdict_section.make_deviation_section(record(grid, deviations=kept))
    )

    assert "at an unknown time, when 1 runs" in page
    assert "2023-11-14 22:13 UTC, when 3 runs were done: added: x" in page
    assert "&lt;b&gt;see" in page
    assert "<b>see" not in page
    assert verdict_section.make_deviation_section(record(grid)) == []


SMALL = """
name: g
defaults:
  model: {name: tiny, hidden: 32, layers: 1, heads: 2, vocab: 400}
  data: {path: %s, train_per_task: 4, test_per_task: 1, held_out: {by: seed, tasks: 2}}
  train: {batch: 16, lr: 1e-3, max_length: 64, precision: fp32, steps: 2}
  checkpoints: {every: 2}
grid:
  arrangement.order: [round_robin, cluster]
  data.held_out.seed: [0, 1, 2, 3, 4, 5]
claims:
  looks: {at: [4, 6]}
  list:
  - {claim: rises, along: arrangement.order, values: [round_robin, cluster], by: %s}
"""


@pytest.mark.engine
def test_plan_says_that_submit_would_refuse_changed_claims(
    tmp_path: Path,
    tasks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And submit refuses them before anything else; with a reason neither does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster_profiles").mkdir()
    (tmp_path / "cluster_profiles/local.yaml").write_text("name: local\nkind: local\n")
    path = tmp_path / "grid.yaml"
    data = json.dumps(str(tasks))
    path.write_text(SMALL % (data, "0.1"))
    first = workflow.open_grid(path, None, None)
    submit.record_grid(first.site, first.grid, first.runs, first.opened_by)
    path.write_text(SMALL % (data, "0.2"))
    changed = workflow.open_grid(path, None, None)

    refused = workflow.show_plan(changed, Allow(), json=False)
    assert "submit would refuse: the claims of g were locked" in capsys.readouterr().out
    assert '"by": 0.2' in str(refused)
    with pytest.raises(UserError, match="--because"):
        workflow.submit_grid(changed, Allow(), lambda question: True)
    assert workflow.show_plan(changed, Allow(because="why"), json=False) is None
