"""Are a grid's claims decided of the right runs, from what they recorded?"""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.report import listed_run, record_run, write_grid
from jobs.contract import attempt as attempts
from jobs.contract import item_losses
from jobs.contract.folder import Workspace, read_json, write_json
from jobs.contract.journal import Journal
from jobs.deciding.judged_claims import JudgedClaim
from launcher.grids import grid_claims, published
from launcher.reporting import report
from launcher.reporting.data import verdicts
from launcher.reporting.data.grid_comparison import ReportOptions
from launcher.reporting.html import verdict_section
from zsg_core.settings.claims import OF_A_GRID
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import (
    HERE,
    HERE_OF_ONE,
    NOT_SUPPORTED,
    OPPOSITE,
    SUPPORTED,
    TOO_FEW,
    Looked,
    judge_claim,
)

STEPS = [0, 10, 20, 30]
# of one held-out split
SUPPORTED_HERE, OPPOSITE_HERE = f"{SUPPORTED} {HERE}", f"{OPPOSITE} {HERE}"
ORDERS = ("nft", "rt", "fft")
CLAIMS = """
claims:
  - {claim: rises, of: end, along: arrangement.order, values: [nft, rt, fft]}
"""


def record(
    place: Workspace,
    runs: list[tuple[dict[str, Any], float]],
    tasks: int = 8,
    name: str = "g",
    **more: Any,
) -> None:
    """A grid of runs (axes, level), each task with a height of its own and two items;
    what it claims beside it."""
    names = [f"t{n // 2}" for n in range(2 * tasks)]
    height = np.random.default_rng(0).normal(0, 1, 2 * tasks)
    listed = [
        listed_run(f"{name}{number:04}", axes) for number, (axes, _) in enumerate(runs)
    ]
    for number, (row, (_, level)) in enumerate(zip(listed, runs, strict=True)):
        noise = np.random.default_rng(number).normal(0, 0.01, (len(STEPS), 2 * tasks))
        losses = level + height + 3 * np.exp(-np.arange(len(STEPS)))[:, None] + noise
        record_run(place, row, STEPS, names, losses, **more)
    write_grid(place, name, listed)
    (place.grid(name) / "grid.yaml").write_text(f"name: {name}\n{CLAIMS}")


@pytest.mark.parametrize(
    ("step", "word"),
    [(0.1, SUPPORTED_HERE), (-0.1, OPPOSITE_HERE), (0.0, NOT_SUPPORTED)],
)
def test_a_claim_is_decided_from_journals(
    tmp_path: Path, step: float, word: str
) -> None:
    """The losses of items make those of tasks, at the places of the axis that the claim names."""
    place = Workspace(tmp_path)
    record(
        place,
        [
            ({"arrangement.order": order}, 1 + step * n)
            for n, order in enumerate(ORDERS)
        ],
    )
    [decided] = verdicts.judge_grid(place, "g")

    assert decided.verdict.word == word
    assert list(decided.verdict.levels) == list(ORDERS)
    assert (decided.verdict.tasks, decided.verdict.splits, decided.verdict.runs) == (
        8,
        1,
        3,
    )


def test_a_value_whose_point_became_another_run_is_no_error(tmp_path: Path) -> None:
    """As of a smoke run, in which small parts of the data become one: there are too few
    curves to decide by."""
    place = Workspace(tmp_path)
    record(place, [({"arrangement.order": order}, 1.0) for order in ORDERS[:2]])
    [decided] = verdicts.judge_grid(place, "g")

    assert decided.verdict.word == TOO_FEW


def test_each_value_of_another_axis_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    """Seeds and held-out splits are replicates within it."""
    place, runs = Workspace(tmp_path), []
    for lr, sign in ((1e-3, 1), (2e-3, -1)):
        for seed in (0, 1):
            axes = {"train.lr": lr, "seed": seed, "data.held_out": {"by": "list"}}
            runs += [
                ({**axes, "arrangement.order": order}, 1 + sign * n / 10)
                for n, order in enumerate(ORDERS)
            ]
    record(place, runs)
    decided = verdicts.judge_grid(place, "g")

    assert [(one.group, one.verdict.word, one.verdict.runs) for one in decided] == [
        ({"train.lr": 1e-3}, SUPPORTED_HERE, 6),
        ({"train.lr": 2e-3}, OPPOSITE_HERE, 6),
    ]


def test_runs_that_are_not_done_do_not_count(tmp_path: Path) -> None:
    """They are told, and nothing is decided without them."""
    place = Workspace(tmp_path)
    record(
        place,
        [({"arrangement.order": order}, 1.0) for order in ORDERS],
        outcome="failed",
    )
    [decided] = verdicts.judge_grid(place, "g")

    assert decided.verdict.word == TOO_FEW
    assert (
        decided.verdict.notes[-1]
        == "3 runs are not done, or have no test items' losses of the metric"
    )


def test_places_that_are_mappings_are_found_however_they_are_written(
    tmp_path: Path,
) -> None:
    """`{k: 1, name: dmt}` of a claim is `{name: dmt, k: 1}` of an axis; other runs are
    not of the claim."""
    place, strategies = (
        Workspace(tmp_path),
        [{"name": "dmt", "k": k} for k in (1, 0, "1/4")],
    )
    record(
        place,
        [({"strategy": strategy}, 1 + n / 10) for n, strategy in enumerate(strategies)],
    )
    claims = "claims: [{claim: rises, along: strategy, values: [{k: 1, name: dmt}, {k: 0, name: dmt}]}]"
    (place.grid("g") / "grid.yaml").write_text(f"name: g\n{claims}\n")
    [decided] = verdicts.judge_grid(place, "g")

    assert (decided.verdict.word, decided.verdict.runs) == (SUPPORTED_HERE, 2)


def test_items_are_drawn_where_all_are_of_one_task(tmp_path: Path) -> None:
    """As those of GSM8K: a verdict on it is on its items."""
    place, listed = Workspace(tmp_path), []
    for number, order in enumerate(ORDERS):
        listed.append(listed_run(f"run{number}", {"arrangement.order": order}))
        losses = (
            1
            + number / 10
            + np.random.default_rng(number).normal(0, 0.05, (len(STEPS), 40))
        )
        record_run(place, listed[-1], STEPS, ["gsm8k"] * 40, losses)
    write_grid(place, "g", listed)
    (place.grid("g") / "grid.yaml").write_text(f"name: g\n{CLAIMS}")
    [decided] = verdicts.judge_grid(place, "g")

    assert (decided.verdict.word, decided.verdict.tasks) == (
        f"{SUPPORTED} {HERE_OF_ONE}",
        40,
    )
    assert "over items" in decided.verdict.notes[0]


def test_a_claim_on_the_loss_of_a_source_is_decided_by_its_items(
    tmp_path: Path,
) -> None:
    """Of several sources trained on together, one may be forgotten while another is learnt."""
    place, listed = Workspace(tmp_path), []
    for number, order in enumerate(ORDERS):
        listed.append(listed_run(f"run{number}", {"arrangement.order": order}))
        noise = np.random.default_rng(number).normal(0, 0.01, (len(STEPS), 16))
        losses = 1 + noise + np.repeat([number / 10, -number / 10], 8)
        record_run(
            place,
            listed[-1],
            STEPS,
            [f"{source}/t{n}" for source in ("math", "code") for n in range(8)],
            losses,
        )
    write_grid(place, "g", listed)
    claims = [
        CLAIMS.partition("claims:")[2].replace("{", f"{{metric: loss/{of}, ")
        for of in ("math", "code", "cod")
    ]
    (place.grid("g") / "grid.yaml").write_text(f"name: g\nclaims:{''.join(claims)}")
    decided = [one.verdict for one in verdicts.judge_grid(place, "g")]

    assert [(one.word, one.tasks) for one in decided] == [
        (SUPPORTED_HERE, 8),
        (OPPOSITE_HERE, 8),
        (TOO_FEW, 0),
    ]


def test_a_task_that_is_nowhere_measured_is_left_out(tmp_path: Path) -> None:
    """Answers that were cut away have no loss; the other tasks decide."""
    place, listed = Workspace(tmp_path), []
    for number, order in enumerate(ORDERS):
        listed.append(listed_run(f"run{number}", {"arrangement.order": order}))
        losses = (
            1
            + number / 10
            + np.random.default_rng(number).normal(0, 0.01, (len(STEPS), 8))
        )
        losses[:, 0] = np.nan
        record_run(place, listed[-1], STEPS, [f"t{n}" for n in range(8)], losses)
    write_grid(place, "g", listed)
    (place.grid("g") / "grid.yaml").write_text(f"name: g\n{CLAIMS}")
    [decided] = verdicts.judge_grid(place, "g")

    assert (decided.verdict.word, decided.verdict.tasks) == (SUPPORTED_HERE, 7)


def test_a_grid_without_claims_has_no_verdicts(tmp_path: Path) -> None:
    """Nor has one whose file was not kept."""
    place = Workspace(tmp_path)
    record(place, [({"arrangement.order": order}, 1.0) for order in ORDERS])
    (place.grid("g") / "grid.yaml").write_text("name: g\n")
    assert verdicts.judge_grid(place, "g") == []
    (place.grid("g") / "grid.yaml").unlink()
    assert verdicts.judge_grid(place, "g") == []


@pytest.mark.engine  # needs matplotlib
def test_the_report_shows_verdicts_with_what_they_rest_on(tmp_path: Path) -> None:
    """Claim, word and effects are in the page; a grid without claims has no such section."""
    place = Workspace(tmp_path)
    record(
        place,
        [({"arrangement.order": order}, 1 + 0.1 * n) for n, order in enumerate(ORDERS)],
    )
    page = report.write_report(place, "g", ReportOptions()).read_text(encoding="utf-8")
    assert "<h2>Verdicts</h2>" in page
    assert "end of loss: nft &lt; rt &lt; fft" in page
    assert f">{SUPPORTED_HERE}<" in page

    (place.grid("g") / "grid.yaml").write_text("name: g\n")
    assert "Verdicts" not in report.write_report(place, "g", ReportOptions()).read_text(
        encoding="utf-8"
    )


def judge_pair(tail: float) -> JudgedClaim:
    """A claim of four splits, whose intervals leave out so much on either side."""
    [asked] = OF_A_GRID.validate_python(
        [{"claim": "rises", "along": "x", "values": ["a", "b"]}]
    )
    rng = np.random.default_rng(0)
    curves = [
        Curve(
            level,
            f"s{split}",
            "0",
            [0, 10],
            [f"t{split}{task}" for task in range(8)],
            [1] * 8,
            rng.normal(place, 0.1, (2, 8)),
        )
        for split in range(4)
        for place, level in enumerate("ab")
    ]
    decided = judge_claim(asked, curves, ["a", "b"], tail=tail)
    return JudgedClaim(asked, {}, decided, {})


@pytest.mark.engine  # needs jinja2
@pytest.mark.parametrize(
    ("tails", "said"),
    [
        ([0.025], [">95 %<", "Intervals are of 95 %"]),
        ([0.0015], [">99.7 %<", "Intervals are of 99.7 %"]),
        ([0.025, 0.0015], [">interval<", "(95 %)<", "(99.7 %)<", "as they say"]),
    ],
)
def test_intervals_say_of_how_many_per_cent_they_are(
    tails: list[float], said: list[str]
) -> None:
    """Of claims that are looked at they are wider than of 95 %, at each look by its own
    bound."""
    decided = [judge_pair(tail) for tail in tails]
    page = "".join(verdict_section.make_verdict_section(decided))
    rows = verdict_section.verdict_rows(decided)

    assert all(words in page for words in said)
    assert ("95 %" in page) == (0.025 in tails)
    assert [row["confidence"] for row in rows] == [
        pytest.approx(1 - 2 * tail) for tail in tails
    ]


@pytest.mark.parametrize(
    ("number", "is_over", "unbiased", "stands"),
    [
        (2, True, [(0.9, (0.8, 1.0))], "decided"),
        (2, True, [], "given up"),
        (3, True, [], "at its end"),
        (2, False, [], "goes on"),
    ],
)
def test_each_claim_that_is_looked_at_says_how_it_stands(
    number: int,
    is_over: bool,
    unbiased: list[tuple[float, tuple[float, float]]],
    stands: str,
) -> None:
    """And after how many splits: one may be decided or given up while the study goes on
    for others."""
    judged = judge_pair(0.025)
    looked = Looked(number, 3, is_over, unbiased)
    verdict = replace(judged.verdict, looked=looked)
    [row] = verdict_section.list_look_rows([replace(judged, verdict=verdict)])

    assert row[2] == f"{number} of 3"
    assert row[3].text == "4"
    assert row[4] == stands


def test_a_claim_of_a_stage_is_of_its_part_of_the_curve(tmp_path: Path) -> None:
    """It begins where the stage before ended: what is at the last checkpoint of that is
    its first point."""
    place = Workspace(tmp_path)
    start = listed_run("start", {})
    listed = [listed_run(order, {"arrangement.order": order}) for order in ORDERS]
    names = [f"t{number}" for number in range(8)]
    record_run(place, start, [0, 10, 20], names, np.tile([[9.0], [2.0], [5.0]], 8))
    for number, row in enumerate(listed):
        row["recipe"]["stages"] = [
            *row["recipe"]["stages"],
            {**row["recipe"]["stages"][0], "part": number},
        ]
        later = 4 + number / 10 + np.random.default_rng(number).normal(0, 0.001, (2, 8))
        record_run(place, row, [30, 40], names, later, before=["start"], first=20)
    write_grid(place, "g", listed)
    claim = "claim: rises, of: area, along: arrangement.order, values: [nft, rt, fft]"
    (place.grid("g") / "grid.yaml").write_text(
        f"name: g\nclaims:\n  - {{{claim}, stage: 2}}\n  - {{{claim}}}\n"
    )
    of_stage, of_all = verdicts.judge_grid(place, "g")

    assert of_stage.curves["nft"][0] == [0, 10, 20]
    assert of_stage.curves["nft"][1] == pytest.approx([5, 4, 4], abs=0.01)
    assert of_all.curves["nft"][0] == [0, 10, 20, 30, 40]
    assert (
        of_stage.verdict.levels["fft"]
        > of_stage.verdict.levels["nft"]
        > of_all.verdict.levels["nft"] - 2
    )


def test_a_claim_that_came_after_results_is_told(tmp_path: Path) -> None:
    """The verdict stands, with what to bear in mind."""
    place = Workspace(tmp_path)
    record(
        place,
        [({"arrangement.order": order}, 1 + 0.1 * n) for n, order in enumerate(ORDERS)],
    )
    path = place.grid("g") / "grid.json"
    [decided] = verdicts.judge_grid(place, "g")
    dated = grid_claims.date_claims([decided.claim], [], 0, lambda: 3)
    write_json(path, {**read_json(path), "claims": msgspec.to_builtins(dated)})
    [doubted] = verdicts.judge_grid(place, "g")

    assert doubted.verdict.notes == [
        *decided.verdict.notes,
        "first submitted when 3 runs were done",
    ]


@pytest.mark.engine  # needs matplotlib
def test_verdicts_are_drawn_beside_published_curves(tmp_path: Path) -> None:
    """Each on axes of its own; the table of verdicts lies beside; a grid without claims
    leaves neither."""
    place = Workspace(tmp_path)
    record(
        place,
        [({"arrangement.order": order}, 1 + 0.1 * n) for n, order in enumerate(ORDERS)],
    )
    grid = place.grid("g") / "grid.yaml"
    grid.write_text(grid.read_text().replace("fft]}", "fft], published: wsd-order}"))
    page = report.write_report(place, "g", ReportOptions())
    assert "figure 3 left, read off: Flan-mini" in page.read_text(encoding="utf-8")
    assert (page.parent / "verdicts.png").stat().st_size > 10_000
    assert "rt − nft" in (page.parent / "verdicts.csv").read_text(encoding="utf-8")

    grid.write_text("name: g\n")
    report.write_report(place, "g", ReportOptions())
    assert not list(page.parent.glob("verdicts*"))


@pytest.mark.parametrize("name", published.list_published())
def test_published_curves_are_whole(name: str) -> None:
    """Each says what it was read off, and has curves whose steps rise."""
    found = published.read_published(name)
    assert "arXiv" in found.source and "figure" in found.source
    assert found.curves
    for steps, values in found.curves.values():
        assert steps == sorted(set(steps)) and len(steps) == len(values) > 0


@pytest.mark.engine  # needs matplotlib
def test_a_page_claims_what_its_table_shows(tmp_path: Path) -> None:
    """A score of answers from 10 to 90, each the mean over a task of 60 items and nine
    of one: no 87 to 13."""
    place, listed = Workspace(tmp_path), []
    names = ["large"] * 60 + [f"small{n}" for n in range(9)]
    for order, large, small in (("nft", 100.0, 0.0), ("rt", 0.0, 100.0)):
        listed.append(listed_run(order, {"arrangement.order": order}))
        record_run(place, listed[-1], STEPS, names, np.ones((len(STEPS), len(names))))
        attempt = attempts.begin_attempt(place.run(order), "s")
        journal = Journal(place.run(order), attempt, "train", "1")
        scores = np.array([large] * 60 + [small] * 9)
        item_losses.journal_item_losses(
            journal,
            "exact_match",
            scores,
            step=30,
            examples=480,
            places=range(len(names)),
        )
        journal.add_row(
            "metric",
            step=30,
            examples=480,
            data={"exact_match": (large + 9 * small) / 10},
        )
        journal.close()
        attempts.end_attempt(place.run(order), attempt, "done", step=30)
    write_grid(place, "g", listed)
    claim = "{claim: rises, metric: exact_match, along: arrangement.order, values: [nft, rt]}"
    (place.grid("g") / "grid.yaml").write_text(f"name: g\nclaims:\n  - {claim}\n")
    page = report.write_report(place, "g", ReportOptions(metric="exact_match"))
    with (page.parent / "finals.csv").open(encoding="utf-8") as lines:
        finals = {row["arrangement.order"]: row for row in csv.DictReader(lines)}
    [decided] = verdicts.judge_grid(place, "g")

    assert {order: float(row["final"]) for order, row in finals.items()} == {
        "nft": 10,
        "rt": 90,
    }
    assert decided.verdict.levels == pytest.approx({"nft": 10, "rt": 90})
    assert decided.verdict.effects[0].found.value == pytest.approx(80)
    for row in finals.values():
        for kind in ("items", "tasks"):
            assert (
                float(row[f"final_{kind}_low"])
                <= float(row["final"])
                <= float(row[f"final_{kind}_high"])
            )


@pytest.mark.parametrize("name", published.list_tables())
def test_published_tables_are_whole(name: str) -> None:
    """Each says what it is from, and has a cell for each heading in every row."""
    table = published.read_table(name)
    assert "arXiv" in table.source
    assert table.rows
    assert {len(row) for row in table.rows} == {len(table.headings)}


@pytest.mark.engine  # needs matplotlib
def test_a_published_table_is_laid_beside_what_the_runs_have(tmp_path: Path) -> None:
    """With its source, the values at the claim's places, and what was not found."""
    place = Workspace(tmp_path)
    record(
        place,
        [({"arrangement.order": order}, 1 + 0.1 * n) for n, order in enumerate(ORDERS)],
    )
    grid = place.grid("g") / "grid.yaml"
    grid.write_text(
        grid.read_text().replace("fft]}", "fft], published: zsg-cluster-shocks}")
    )
    page = report.write_report(place, "g", ReportOptions()).read_text(encoding="utf-8")

    assert "<h2>Published tables</h2>" in page
    assert "single unseen tasks under cluster" in page
    assert "Here: end of loss: nft &lt; rt &lt; fft: nft " in page
    assert "Not found of Dynamics of Zero-Shot Generalization" in page
