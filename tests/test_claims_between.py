"""Are runs of several grids laid beside one another, each counted once, and claims between
them decided as those of one grid?"""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import zsg
from benchmarks.report import listed_run, record_run, write_grid
from jobs.contract import removal
from jobs.contract.folder import Workspace, write_json
from jobs.contract.grid_record import (
    Deviation,
    Summaries,
    read_grid_record,
    write_grid_record,
)
from jobs.deciding import judged_claims
from launcher.reporting import report, verdict_lines
from launcher.reporting.data import claims_between, joined_grids
from launcher.reporting.data.grid_comparison import ReportOptions
from zsg_core import recipe as recipes
from zsg_core.errors import UserError
from zsg_core.settings.claims import OF_A_GRID
from zsg_core.stats.verdict import OPPOSITE, SUPPORTED, TOO_FEW

STEPS = [0, 10, 20]
SPLITS = 4
POINTS = """
points:
  single: {grid: single, data.source: gsm8k}
  mixed: {grid: mixed}
claims:
  - {claim: rises, along: point, values: [mixed, single]}
"""


def record(
    place: Workspace,
    grid: str,
    levels: dict[Any, float],
    key: str = "data.source",
    test: str = "t",
    **recipe: Any,
) -> list[dict[str, Any]]:
    """A grid of a run at each value of an axis on each of four splits; `test` names its
    test items, `recipe` is of the training of each."""
    listed: list[dict[str, Any]] = []
    for split in range(SPLITS):
        height = np.random.default_rng(split).normal(0, 1, 16)
        for value, level in levels.items():
            row = listed_run(
                f"{grid}{value}{split}", {key: value, "data.held_out.seed": split}
            )
            row["recipe"]["stages"][0].update(recipe)
            listed.append(row)
            noise = np.random.default_rng(len(listed)).normal(0, 0.02, (3, 16))
            tasks = [f"{test}{split}_{number // 2}" for number in range(16)]
            record_run(place, row, STEPS, tasks, level + height + noise)
    write_grid(place, grid, listed)
    (place.grid(grid) / "grid.yaml").write_text(f"name: {grid}\n")
    return listed


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A grid of two sources, and one of their mixture."""
    place = Workspace(tmp_path / "work")
    record(place, "single", {"gsm8k": 2.0, "code": 3.0})
    record(place, "mixed", {"mix": 1.0}, "strategy")
    return place


def decide(place: Workspace, text: str, *grids: str) -> list[Any]:
    """The verdicts of a file of claims between grids."""
    path = place.root / "between.yaml"
    path.write_text(text)
    joined = joined_grids.join_grids(place, grids or ("single", "mixed"))
    file = claims_between.read_claim_file(path, joined)
    return claims_between.judge_between(place, file)


def test_a_claim_compares_points_of_several_grids(place: Workspace) -> None:
    """As one of a grid's own would: paired by split, whatever else has the grid's name."""
    [decided] = decide(place, POINTS)
    [contrary] = decide(place, POINTS.replace("[mixed, single]", "[single, mixed]"))

    assert (decided.verdict.word, decided.verdict.splits) == (SUPPORTED, SPLITS)
    assert contrary.verdict.word == OPPOSITE
    assert decided.verdict.levels["single"] - decided.verdict.levels["mixed"] == (
        pytest.approx(1, abs=0.05)
    )
    assert decided.group == {}
    assert any("the places differ in" in note for note in decided.verdict.notes)
    assert any("beside the grids" in note for note in decided.verdict.notes)


def test_it_is_decided_as_if_one_grid_had_listed_the_runs(place: Workspace) -> None:
    """The numbers are the same to the last digit: the statistics are."""
    [between] = decide(place, POINTS)
    rows: list[dict[str, Any]] = []
    for point, key, value in (
        ("mixed", "strategy", "mix"),
        ("single", "data.source", "gsm8k"),
    ):
        known = read_grid_record(place, point)
        assert known is not None
        for row in known.runs:
            if row.axes[key] == value:
                axes = {**row.axes, "point": point}
                rows.append({"run": row.run, "axes": axes, "recipe": row.recipe})
    write_grid(place, "one", rows)
    one = read_grid_record(place, "one")
    assert one is not None
    claims = OF_A_GRID.validate_python(
        [{"claim": "rises", "along": "point", "values": ["mixed", "single"]}]
    )
    [alone] = judged_claims.judge_claims(place, one, claims)

    assert alone.verdict.effects == between.verdict.effects
    assert alone.verdict.word == between.verdict.word


def test_a_run_of_two_grids_counts_once(place: Workspace) -> None:
    """As the first one's; a point finds it by either name, and the page tells it."""
    known = read_grid_record(place, "single")
    assert known is not None
    listed = known.runs
    shared = [
        {"run": row.run, "axes": {"label": "again"}, "recipe": row.recipe}
        for row in listed
        if row.axes["data.source"] == "gsm8k"
    ]
    write_grid(place, "other", shared)
    joined = joined_grids.join_grids(place, ["single", "other"])
    points = POINTS.replace("grid: mixed", "grid: other, label: again")

    assert len(joined.record.runs) == len(listed)
    assert {row.axes["grid"] for row in joined.record.runs} == {"single"}
    assert joined.notes == [
        "4 runs stand in single and in other: they count once, as those of single"
    ]
    with pytest.raises(UserError, match="is of point single, too"):
        decide(place, points, "single", "other")


def test_what_one_grid_varies_is_read_of_the_others_recipes(tmp_path: Path) -> None:
    """A rate that is an axis here and a setting there is the same thing: runs of other
    rates are not compared."""
    place = Workspace(tmp_path)
    rates = {1e-3: 1.0, 2e-3: 5.0}
    rows: list[dict[str, Any]] = []
    for rate, level in rates.items():
        rows += record(place, f"r{rate}", {rate: level}, "train.lr", train={"lr": rate})
    write_grid(place, "varied", rows)
    record(place, "fixed", {"x": 2.0}, "strategy", train={"lr": 1e-3})
    text = "claims: [{claim: rises, along: grid, values: [varied, fixed]}]\n"
    decided = decide(place, text, "varied", "fixed")
    words = {judged.group["train.lr"]: judged.verdict.word for judged in decided}

    assert words == {1e-3: SUPPORTED, 2e-3: TOO_FEW}


def test_runs_that_are_not_said_which_are_not_compared(place: Workspace) -> None:
    """Of two sources here and one mixture there it is not said which are meant; the
    verdict says what would say it."""
    text = "claims: [{claim: rises, along: grid, values: [mixed, single]}]\n"
    decided = decide(place, text)

    assert {judged.verdict.word for judged in decided} == {TOO_FEW}
    assert all(
        any("`points` say which are compared" in note for note in judged.verdict.notes)
        for judged in decided
    )


def test_other_test_items_are_no_split_in_common(place: Workspace) -> None:
    """Nothing is decided; and the page says which grids they are of."""
    record(place, "far", {"mix": 1.0}, "strategy", test="other")
    [decided] = decide(
        place, POINTS.replace("grid: mixed", "grid: far"), "single", "far"
    )

    assert decided.verdict.word == TOO_FEW
    assert "no split has runs at all places" in decided.verdict.notes


def test_splits_of_one_name_with_other_test_sets_are_told_apart(
    place: Workspace,
) -> None:
    """By the digests of what was arranged: a metric that is one number a run has no
    items that would tell it."""
    digests = {"single": "a" * 64, "mixed": "b" * 64}
    for grid, digest in digests.items():
        known = read_grid_record(place, grid)
        assert known is not None
        row = known.runs[0]
        stage = row.recipe["stages"][0]
        stage.update(data={"set": grid}, arrangement={"order": "random"})
        write_grid_record(place, msgspec.structs.replace(known, runs=[row]))
        folder = place.arrangement(recipes.arrangement_id(row.recipe))
        folder.mkdir(parents=True, exist_ok=True)
        meta = {"sources": {"corpus_meta": {"test_digest": digest}}}
        write_json(folder / "meta.json", meta)
    joined = joined_grids.join_grids(place, ["single", "mixed"])

    sets = [row.axes["data.held_out.test_set"] for row in joined.record.runs]
    assert sets == ["a" * 8, "b" * 8]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "must be a mapping with `claims`"),
        ("{claims: []}", "`claims` must be a list"),
        ("{claims: {looks: {at: [4]}, list: []}}", "looks are of one grid"),
        (
            "{claim: []}",
            "unknown key 'claim' in a file of claims. Did you mean 'claims'?",
        ),
        ("{points: [a], claims: [{claim: falls_early}]}", "`points` must be a mapping"),
        (
            "{points: {a: {}}, claims: [{claim: falls_early}]}",
            "point a: must say of which",
        ),
        (
            "{points: {a: {grid: mixd}}, claims: [{claim: falls_early}]}",
            "point a: no run has grid 'mixd'",
        ),
        (
            "{points: {a: {stratgy: mix}}, claims: [{claim: falls_early}]}",
            "point a: 'stratgy' is no axis of this grid. Did you mean 'strategy'?",
        ),
        (
            "{points: {a: {grid: mixed, data.source: code}}, claims: [{claim: falls_early}]}",
            "point a: no run has all of this",
        ),
        (
            "{claims: [{claim: rises, along: point, values: [a, b]}]}",
            "'point' is no axis of this grid",
        ),
        (
            "{claims: [{claim: rises, along: grid, values: [mixed, sngle]}]}",
            "no run has grid 'sngle'; there are: 'single', 'mixed'",
        ),
    ],
)
def test_what_is_wrong_in_a_file_of_claims_is_told(
    place: Workspace, text: str, said: str
) -> None:
    """With its line, before anything is written."""
    with pytest.raises(UserError) as refused:
        decide(place, f"{text}\n")

    assert said in str(refused.value)
    assert "between.yaml:1: " in str(refused.value)


def test_grids_are_named_once_and_known(place: Workspace) -> None:
    """Each error names what there is."""
    with pytest.raises(UserError, match="no grid 'mixd'"):
        joined_grids.join_grids(place, ["single", "mixd"])
    with pytest.raises(UserError, match="single is named twice"):
        joined_grids.join_grids(place, ["single", "mixed", "single"])


def test_summaries_of_one_name_mean_one_thing(place: Workspace) -> None:
    """What only one of the grids names counts for the runs of both."""
    for grid, guess in (("single", 25.0), ("mixed", 50.0)):
        known = read_grid_record(place, grid)
        assert known is not None
        named = Summaries(averages={grid: {"m": 1.0}, "both": {"m": guess}})
        write_grid_record(place, msgspec.structs.replace(known, summaries=named))
    with pytest.raises(UserError, match="the summary 'both' of grid mixed is another"):
        joined_grids.join_grids(place, ["single", "mixed"])
    known = read_grid_record(place, "mixed")
    assert known is not None
    alone = Summaries(averages={"mixed": {"m": 1.0}})
    write_grid_record(place, msgspec.structs.replace(known, summaries=alone))
    joined = joined_grids.join_grids(place, ["single", "mixed"])

    assert isinstance(joined.record.summaries, Summaries)
    assert set(joined.record.summaries.averages) == {"single", "both", "mixed"}


@pytest.mark.engine  # needs matplotlib
def test_one_page_has_the_runs_and_claims_of_several_grids(place: Workspace) -> None:
    """The curves of each, their own claims, those between, what changed of their claims;
    it lies beside the first grid's own page."""
    own = "  - {claim: rises, along: data.source, values: [gsm8k, code]}\n"
    (place.grid("single") / "grid.yaml").write_text(f"name: single\nclaims:\n{own}")
    known = read_grid_record(place, "single")
    assert known is not None
    change = Deviation(at=1, done=2, changes=["added: x"], reason="why")
    write_grid_record(place, msgspec.structs.replace(known, deviations=[change]))
    file = place.root / "between.yaml"
    file.write_text(POINTS)
    subject = report.find_subject(place, ["single", "mixed"], file)
    written = report.write_subject(place, subject, ReportOptions())
    page = written.page.read_text(encoding="utf-8")
    lines = verdict_lines.describe_verdicts(written.decided)
    values = report.list_values(place, subject, ReportOptions())
    row = verdict_lines.make_report_row(["single", "mixed"], values, written.decided)

    folder = place.grid("single") / "report-with-mixed"
    assert written.page == folder / "report.html"
    assert "12 of 12 runs done" in page
    assert "grid mixed" in page and "grid single" in page
    assert "single: added: x" in page
    assert lines == [
        "supported: end of loss: mixed < single",
        "supported: end of loss: gsm8k < code (grid single)",
    ]
    assert [each["verdict"] for each in json.loads(json.dumps(row))["verdicts"]] == [
        SUPPORTED,
        SUPPORTED,
    ]
    assert {each["axes"]["grid"] for each in values} == {"single", "mixed"}
    assert zsg.report(["single", "mixed"], workspace=place.root) == written.page
    removal.discard_folder(place.root, place.grid("single"), removal.IN_GRID)
    assert not folder.exists()


@pytest.mark.engine  # needs matplotlib
def test_a_page_says_which_grids_have_no_test_items_in_common(
    place: Workspace,
) -> None:
    """And which of them lacks the metric that others have."""
    record(place, "far", {"mix": 1.0}, "strategy", test="other")
    record(place, "none", {"x": 1.0}, "strategy")
    for path in place.root.glob("runs/none*/journal"):
        for file in path.iterdir():
            file.unlink()
    subject = report.find_subject(place, ["single", "far", "none"])
    page = report.write_subject(place, subject, ReportOptions()).page.read_text()

    assert "single and far are tested on other items" in page
    assert "no run of none has loss" in page
