"""Are claims read from a grid file, and refused where they could not be decided?"""

from pathlib import Path

import pytest

from launcher.grids import grid as grids
from launcher.grids import grid_claims
from launcher.workspace import yaml_file
from zsg_core.errors import UserError

GRID = """
name: g
defaults: {data: {path: tasks}}
grid:
  arrangement.order: [nft, rt, fft]
  train.lr: [1e-3, 2e-3]
"""


def load(folder: Path, claims: str) -> grids.Grid:
    """A grid file with these claims."""
    path = folder / "grid.yaml"
    path.write_text(f"{GRID}claims:\n  - {claims}\n")
    return grids.load_grid(path)


def test_claims_are_read_and_are_part_of_no_run(tmp_path: Path) -> None:
    """The points are those of the grid without them."""
    [claim] = (
        made := load(
            tmp_path, "{claim: rises, along: arrangement.order, values: [nft, fft]}"
        )
    ).claims
    (tmp_path / "plain.yaml").write_text(GRID)

    assert claim.axis == ("arrangement.order", ["nft", "fft"])
    assert made.points == grids.load_grid(tmp_path / "plain.yaml").points


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        (
            "{claim: wins}",
            "`claim` must say what is claimed, one of: rises, correlates, trends, falls_early",
        ),
        ("{metric: loss}", "`claim` must say what is claimed"),
        ("nft < rt", "a claim: "),
        (
            "{claim: rises, along: arrangement.order}",
            "values is missing: Values of the axis `along`, the one with the lowest metric first",
        ),
        (
            "{claim: rises, along: x, values: [nft]}",
            "values: must have at least 2 items",
        ),
        (
            "{claim: rises, alnog: x, values: [1, 2]}",
            "unknown key 'alnog' in a claim that rises. Did you mean 'along'?",
        ),
        (
            "{claim: rises, along: arrangment.order, values: [nft, fft]}",
            (
                "'arrangment.order' is no axis of this grid. Did you mean 'arrangement.order'? "
                "Axes: arrangement.order, train.lr"
            ),
        ),
        (
            "{claim: rises, along: arrangement.order, values: [nft, tma]}",
            "no run has arrangement.order 'tma'; there are: 'nft', 'rt', 'fft'",
        ),
        ("{claim: falls_early, stage: 2}", "stage 2: the runs have 1 stages at most"),
        (
            "{claim: falls_early, published: wsd-ordr}",
            (
                "no published curves or table 'wsd-ordr'. Did you mean 'wsd-order'? There are:"
                " delia-distance, early-generalisation-flan-mini"
            ),
        ),
        (
            "{claim: rises, along: arrangement.order, values: [nft, rt, nft]}",
            "'nft' stands in `values` already; name each once",
        ),
        ("{claim: falls_at, at: 1}", "at: is a share of the steps below 1"),
        (
            "{claim: falls_early, where: {train.lr: 3e-3}}",
            "no run has train.lr 0.003; there are: 0.001, 0.002",
        ),
    ],
)
def test_a_claim_that_cannot_be_decided_is_refused(
    tmp_path: Path, claims: str, said: str
) -> None:
    """With the line of the file, before anything runs."""
    with pytest.raises(UserError) as refused:
        load(tmp_path, claims)

    assert said in str(refused.value)
    assert "grid.yaml:8" in str(refused.value)


def test_claims_are_a_list(tmp_path: Path) -> None:
    """One claim is a list of one."""
    (tmp_path / "grid.yaml").write_text(f"{GRID}claims: {{claim: falls_early}}\n")
    with pytest.raises(UserError, match="must be a list"):
        grids.load_grid(tmp_path / "grid.yaml")


def test_a_claim_keeps_the_date_of_its_first_submission(tmp_path: Path) -> None:
    """One that comes later, or is another in anything but what is drawn beside it, is
    of the day it came."""
    rises = "{claim: rises, along: arrangement.order, values: [nft, fft]%s}"
    first = grid_claims.date_claims(
        load(tmp_path, rises % "").claims, [], 1000, lambda: 0
    )
    drawn = load(tmp_path, rises % ", published: wsd-order").claims
    changed = load(tmp_path, rises % ", by: 0.1").claims
    again = grid_claims.date_claims([*drawn, *changed], first, 2000, lambda: 7)

    assert [(row.since, row.done) for row in again] == [(1000, 0), (2000, 7)]
    assert grid_claims.find_doubt(drawn[0], again) is None
    assert (
        grid_claims.find_doubt(changed[0], again)
        == "first submitted when 7 runs were done"
    )
    assert (
        grid_claims.find_doubt(changed[0], first)
        == "not among the claims that were submitted"
    )
    assert grid_claims.find_doubt(changed[0], None) is None


def test_a_correlation_over_four_places_is_told_to_stay_undecided(
    tmp_path: Path,
) -> None:
    """With the line, before anything runs; one over five is not."""
    text = (
        "name: g\ndefaults: {{data: {{path: tasks}}}}\ngrid: {{train.steps: [1, 2, 3, 4,"
        " 5]}}\nclaims:\n  - {}\n"
    )
    path = tmp_path / "grid.yaml"
    path.write_text(
        text.format("{claim: correlates, along: train.steps, values: [1, 2, 3, 4]}")
    )
    [note] = grids.load_grid(path).notes
    path.write_text(
        text.format("{claim: correlates, along: train.steps, values: [1, 2, 3, 4, 5]}")
    )

    assert (
        "grid.yaml:5: this claim will stay undecided: of the 24 orders of 4 places one rises"
        " throughout" in note
    )
    assert grids.load_grid(path).notes == []


MEASURED = """
name: g
plugins: [mine.py]
defaults:
  data:
    set: p3
    sources: {math: {path: a, held_out: {share: 1/5}}, code: {path: b}}
  checkpoints:
    snapshots: 10
    metrics: [loss, rouge1, lm_eval/arc_easy, rank_accuracy, shouts]
    quick: {items: 64, full_every: 10}
    gradients: {}
    generation: {name: mine}
grid:
  arrangement.order: [cluster, random]
"""
PLUGIN = """import zsg


@zsg.metric("shouts")
def shouts(answers):
    return {}
"""


@pytest.mark.parametrize(
    "metric",
    [
        *("loss", "loss/math", "loss_quick_64", "train/loss"),
        *("rouge1/mine", "rouge1/mine-v2", "rank_accuracy", "shouts/mine"),
        *("lm_eval/arc_easy", "lm_eval/arc_easy/acc_norm", "lm_eval/arc_easy/weighted"),
        *("gradient_ratio/code", "gradient_cosine"),
        *("source/math/rank_accuracy", "task/x/y/loss", "prompts/iqr/rank_accuracy"),
    ],
)
def test_claims_may_be_of_all_that_runs_take(tmp_path: Path, metric: str) -> None:
    """And of what is made of it; nothing is told of them."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    path = tmp_path / "grid.yaml"
    path.write_text(f"{MEASURED}claims: [{{claim: falls_early, metric: {metric}}}]\n")

    assert grids.load_grid(path).notes == []


def write_metric_claim(path: Path, taken: str, metric: str) -> None:
    """A claim of three metrics, the last of which stands in line 10, in a grid that
    takes two."""
    checkpoints = f"checkpoints: {{snapshots: 5, metrics: [loss, {taken}]}}"
    text = GRID.replace("{path: tasks}}", f"{{path: tasks}}, {checkpoints}}}")
    claim = f"{{claim: is_higher, metric: loss,\n     than: [{taken},\n     {metric}]}}"
    path.write_text(f"{text}claims:\n  - {claim}\n")


@pytest.mark.parametrize(
    ("taken", "metric", "said"),
    [
        ("rouge1", "rougeL", "'rougeL'. Add it to checkpoints.metrics. They take:"),
        ("rouge1", "loss/nosuch", "'loss/nosuch'."),
        ("rouge1", "rouge_1", "'rouge_1'. Did you mean 'rouge1'?"),
        ("rouge1", "lm_eval/mmlu", "'lm_eval/mmlu'. Add it to checkpoints.metrics."),
        ("rouge1", "source/math/rougeL", "'source/math/rougeL'. Add it to"),
    ],
)
def test_a_metric_that_no_run_takes_is_refused_by_line(
    tmp_path: Path, taken: str, metric: str, said: str
) -> None:
    """With what may be meant, wherever among a claim's metrics it stands."""
    write_metric_claim(tmp_path / "grid.yaml", taken, metric)

    with pytest.raises(UserError) as caught:
        grids.load_grid(tmp_path / "grid.yaml")

    expected = f"grid.yaml:10: no run of this grid takes the metric {said}"
    assert expected in str(caught.value)


def test_where_no_model_answers_no_score_comes_from_elsewhere(tmp_path: Path) -> None:
    """So a metric of any name is refused."""
    with pytest.raises(UserError, match=r"the metric 'comet'\. They take: loss"):
        load(tmp_path, "{claim: falls_early, metric: comet}")


def test_a_claim_may_wait_for_scores_from_elsewhere(tmp_path: Path) -> None:
    """Where models answer, others may score it under a name of theirs, which is told."""
    write_metric_claim(tmp_path / "grid.yaml", "rouge1", "comet")

    [note] = grids.load_grid(tmp_path / "grid.yaml").notes

    assert "grid.yaml:10: no run of this grid takes the metric 'comet'" in note
    assert "when zsg score has taken its scores in" in note


def test_claims_of_a_submitted_grid_are_held_against_no_settings(
    tmp_path: Path,
) -> None:
    """Its runs may have metrics that an older grid asked for."""
    path = tmp_path / "grid.yaml"
    path.write_text(f"{GRID}claims: [{{claim: falls_early, metric: rougeL}}]\n")
    document = yaml_file.load_document(path)

    [claim] = grid_claims.read_claims(document, None, lambda: 1)

    assert claim.metric == "rougeL"
