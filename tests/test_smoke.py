"""Is a trial of a grid small, valid, and of every axis?"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from launcher.clusters.profiles import JobSize, SmokeSettings
from launcher.grids import grid as grids
from launcher.grids import smoke
from launcher.grids.grid import Grid, Point
from zsg_core.settings.run import Settings


def shrunk(**changes) -> Settings:
    """The settings of one point of a grid, made small."""
    settings = Settings.model_validate(
        {**changes, "data": {"path": "/d", **changes.get("data", {})}}
    )
    grid = Grid(
        Path("grid.yaml"),
        "name",
        None,
        [Point(settings, {})],
        [],
        ("train.steps=9", "train.lr=1"),
    )
    made = smoke.shrink_grid(grid, SmokeSettings())
    assert made.name == "name-smoke"
    assert made.notes == [
        (
            "--set train.steps=9 counts for nothing in a smoke run, whose size is the profile's"
            " `smoke`"
        ),
        f"the smoke run trains in {settings.train.precision}, as the grid says",
    ]
    return made.points[0].settings


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="the default"),
        pytest.param(
            {"data": {"fraction": "1/256"}}, id="a fraction that would leave nothing"
        ),
        pytest.param(
            {
                "arrangement": {"order": "nft", "choose": "uniform"},
                "data": {"train_per_task": 100},
            },
            id="a choice among more examples than are left",
        ),
        pytest.param(
            {
                "stages": [
                    {},
                    {
                        "train": {"steps": 5000, "epochs": 3},
                        "data": {"fraction": "1/256"},
                    },
                ]
            },
            id="a stage that would be long again",
        ),
        pytest.param(
            {"checkpoints": {"every": "1-50:1, 50-:10"}}, id="spans of checkpoints"
        ),
        pytest.param(
            {"checkpoints": {"snapshots": 500, "keep": "last"}}, id="snapshots"
        ),
    ],
)
def test_every_stage_of_a_trial_is_small_and_valid(changes) -> None:
    """Few steps, tasks and examples, at least one of them; the settings are such as a
    grid could say."""
    stages = shrunk(**changes).by_stage()
    is_part = any(stage.data.fraction < 1 for stage in stages)
    for stage in stages:
        assert (stage.train.steps, stage.train.epochs) == (
            4,
            4 * 16 if is_part else 1,
        ), "few examples come again"
        assert stage.data.fraction * 8 * 8 >= 1
        assert stage.model.name == "tiny"
        Settings.model_validate(stage.model_dump(exclude_unset=True))


def test_a_trial_has_snapshots_only_where_the_grid_has() -> None:
    """Then one half-way and one at the end, under the grid's rule; none otherwise."""
    trial = shrunk(
        checkpoints={"snapshots": [500, 1000], "keep": {"best": 1}}
    ).checkpoints

    assert (trial.snapshots, trial.keep and trial.keep.best) == (2, 1)
    assert shrunk().checkpoints.snapshots is None


def test_a_trial_looks_into_layers_that_the_small_model_has() -> None:
    """What a grid asks of deeper ones is taken of its last."""
    asked = {"token": "<sep>", "words": ["thought"], "layers": [0, 15, 31]}
    trial = shrunk(checkpoints={"snapshots": 500, "token_distance": asked}).checkpoints

    assert [way["layer"] for way in trial.inside.values()] == [0, 2]


def test_what_is_studied_stays() -> None:
    """Orders, rates and shares that leave something are those of the grid."""
    made = shrunk(
        arrangement={"order": "fft"}, train={"lr": 1e-4}, data={"fraction": "1/4"}
    )

    assert (made.arrangement.order, made.train.lr, made.data.fraction) == (
        "fft",
        1e-4,
        Fraction(1, 4),
    )


def compared(tmp_path: Path, text: str, **options: Any) -> Grid:
    """A grid file, made small."""
    (tmp_path / "grid.yaml").write_text(
        "name: g\ndefaults:\n  data: {path: /d}\n" + text
    )
    return smoke.shrink_grid(
        grids.load_grid(tmp_path / "grid.yaml"), SmokeSettings(), **options
    )


A, B = (
    "{set: gsm8k, path: /a, test_path: /t}",
    "{set: alpaca, path: /b, test_path: /t, role: general}",
)
SOURCES = f"  data.sources: {{a: {A}, b: {B}}}\n"
# the grid; how to read what is compared off a point's settings; the small values
AMOUNTS = [
    pytest.param(
        "grid: {data.fraction: [1, 1/4, 1/16, 1/64, 1/256]}",
        lambda one: one.data.fraction,
        [
            Fraction(8, 8),
            Fraction(6, 8),
            Fraction(4, 8),
            Fraction(3, 8),
            Fraction(1, 8),
        ],
        id="shares",
    ),
    pytest.param(
        "grid: {data.fraction: [1/2, 1/256]}",
        lambda one: one.data.fraction,
        [Fraction(1, 2), Fraction(1, 8)],
        id="shares that stay apart",
    ),
    pytest.param(
        SOURCES + "grid: {data.fraction: [1, 1/64, 1/256]}",
        lambda one: one.data.by_source()["b"].fraction,
        [Fraction(1), Fraction(5, 8), Fraction(2, 8)],
        id="shares of all sources",
    ),
    pytest.param(
        SOURCES
        + "grid: {strategy: [{name: dmt, k: 1/16}, {name: dmt, k: 1/256}, {name: dmt, k: 0}]}",
        lambda one: one.by_stage()[1].data.by_source()["a"].k,
        [Fraction(5, 8), Fraction(2, 8), 0],
        id="k",
    ),
    pytest.param(
        SOURCES.replace("role: general", "ratio_to: a")
        + "grid: {data.sources.b.ratio: [0, 67, 135, 260, 520]}",
        lambda one: one.data.by_source()["b"].ratio,
        [0, 1, 2, 3, 4],
        id="ratios",
    ),
    pytest.param(
        SOURCES.replace("role: general", "ratio_to: a")
        + "grid: {data.sources.b.ratio: [0, 1/2, 3]}",
        lambda one: one.data.by_source()["b"].ratio,
        [0, Fraction(1, 2), 3],
        id="ratios that are small",
    ),
    pytest.param(
        "grid: {data.train_tasks: [46, 10, 15, null]}",
        lambda one: one.data.train_tasks,
        [6, 2, 4, 8],
        id="numbers of tasks",
    ),
    pytest.param(
        "grid: {data.train_per_task: [20, 100]}",
        lambda one: one.data.train_per_task,
        [4, 8],
        id="examples of a task",
    ),
    pytest.param(
        "grid: {data.count: [500, 900]}",
        lambda one: one.data.count,
        [4, 8],
        id="counts",
    ),
    pytest.param(
        SOURCES
        + "  stages:\n  - {data: {sources: {b: {k: 0}}}}\n  - {data: {sources: {a: {k: 1/256}}}}\n",
        lambda one: [
            one.by_stage()[0].data.by_source()["b"].k,
            one.by_stage()[1].data.by_source()["a"].k,
        ],
        [[Fraction(0), Fraction(1, 8)]],
        id="what stages say themselves",
    ),
]


@pytest.mark.parametrize(("text", "read", "small"), AMOUNTS)
def test_what_a_grid_compares_differs_in_its_trial(
    tmp_path: Path, text: str, read, small: list
) -> None:
    """Amounts that few examples would make equal become steps in the same order; what
    stays apart stays as it is."""
    made = compared(tmp_path, text)

    assert [read(point.settings) for point in made.points] == small
    for point in made.points:
        Settings.model_validate(point.settings.model_dump(exclude_unset=True))


def test_a_ratio_has_examples_to_count_by(tmp_path: Path) -> None:
    """The source that a ratio fills up keeps as many examples as the largest one asks for."""
    text = (
        SOURCES.replace("role: general", "ratio_to: a")
        + "grid: {data.sources.b.ratio: [0, 520]}"
    )
    sources = compared(tmp_path, text).points[1].settings.data.by_source()

    assert (sources["a"].train_per_task, sources["b"].train_per_task) == (8, 64)


def test_a_claim_of_the_first_steps_has_them(tmp_path: Path) -> None:
    """Within 1/20 of the steps is one step of 20: the trial takes so many, over
    examples that come again."""
    [point] = compared(
        tmp_path, "claims: [{claim: falls_early, within: 1/20}]\n"
    ).points

    assert (point.settings.train.steps, point.settings.train.epochs) == (20, 20 * 16)


def test_hidden_states_have_groups(tmp_path: Path) -> None:
    """A silhouette is of groups of more than one: each task keeps several test items."""
    text = SOURCES + "  checkpoints: {snapshots: 9, representations: {layers: [1]}}\n"
    [point] = compared(tmp_path, text).points

    assert [
        source.test_per_task for source in point.settings.data.by_source().values()
    ] == [4, 4]


PAPER = "  train: {preset: paper}\n"


def test_a_trial_on_cpus_trains_in_fp32_where_the_grid_says_fp16(
    tmp_path: Path,
) -> None:
    """It says so; on GPUs, and in bf16, the grid's own precision stays."""
    on_cpus = compared(
        tmp_path, PAPER + "grid: {train.precision: [fp16, bf16]}", on_cpus=True
    )
    on_gpus = compared(tmp_path, PAPER)

    assert [point.settings.train.precision for point in on_cpus.points] == [
        "fp32",
        "bf16",
    ]
    assert [point.settings.train.loss_scale for point in on_cpus.points] == [None, None]
    assert (
        "the smoke run trains in bf16, fp32: fp32 in place of fp16, in which most CPUs cannot train"
        in on_cpus.notes
    )
    assert on_gpus.points[0].settings.train.precision == "fp16"
    assert "the smoke run trains in fp16, as the grid says" in on_gpus.notes


def test_a_stage_of_its_own_precision_is_tried_on_cpus_too(tmp_path: Path) -> None:
    """A stage that says fp16 itself is tried in fp32, the others in what they say."""
    text = "  stages: [{}, {train: {precision: fp16, loss_scale: 100}}]\n"
    [point] = compared(tmp_path, text, on_cpus=True).points

    assert [stage.train.precision for stage in point.settings.by_stage()] == [
        "bf16",
        "fp32",
    ]


def test_a_trial_of_a_chat_template_is_written_by_zsgs_own(tmp_path: Path) -> None:
    """The small model has none; a note says so. In stages, too."""
    settings = Settings.model_validate(
        {
            "model": {"name": "m", "path": str(tmp_path)},
            "data": {"path": "/d", "template": "chat", "chat_system": "drop"},
            "stages": [{}, {"data": {"fraction": "1/2"}}],
        }
    )
    whole = Grid(Path("grid.yaml"), "name", None, [Point(settings, {})], [])

    made = smoke.shrink_grid(whole, SmokeSettings())

    stages = made.points[0].settings.by_stage()
    assert {stage.data.template for stage in stages} == {"zsg"}
    assert any("no chat template" in note for note in made.notes)


def test_a_trial_takes_small_batches(tmp_path: Path) -> None:
    """Of 16 examples where the grid has more, and one for each rank where those are
    more; small ones stay."""
    text = "grid: {train.batch: [4, 512], resources.nodes: [1, 8]}"
    nodes = compared(tmp_path, text, size=JobSize(ranks_per_node=4))
    here = compared(tmp_path, text, one_rank=True)

    assert [point.settings.train.batch for point in nodes.points] == [4, 4, 16, 32]
    assert [point.settings.train.batch for point in here.points] == [4, 4, 16, 16]
    assert "a smoke run takes batches of 16, or one example for each rank" in here.notes


def test_a_trial_has_few_buckets_and_draws_over_few_steps() -> None:
    """Of a stage's own order, too; what it says beside stays."""
    many = {"order": "random", "buckets": {"number": 500, "style": "one_pass"}}
    paced = {"curve": "root", "draw": "repeats", "over_steps": 90_000}
    small = shrunk(
        arrangement=many,
        stages=[{"arrangement": {"buckets": None, "pacing": paced}}, {}],
    )
    first, second = small.by_stage()

    assert first.arrangement.pacing is not None
    assert first.arrangement.pacing.over_steps == SmokeSettings().steps
    assert first.arrangement.pacing.curve == "root"
    assert second.arrangement.buckets is not None
    assert second.arrangement.buckets.number == smoke.MOST_BUCKETS
    assert second.arrangement.buckets.style == "one_pass"


def test_a_trial_looks_for_no_tags_that_a_model_would_make(tmp_path: Path) -> None:
    """It asks no model, and says so; tags of a file are still chosen by."""
    chosen = "set: sharegpt, path: /s, drop_tags: code"
    sources_given = (
        "math: {set: gsm8k, path: /m, test_path: /t}",
        f"talk: {{{chosen}, make: {{instag: {{}}}}}}",
        f"filed: {{{chosen}, tags: /tags.jsonl}}",
    )
    text = f"  data.sources: {{{', '.join(sources_given)}}}\n"
    made = compared(tmp_path, text)
    sources = made.points[0].settings.data.by_source()

    assert (sources["talk"].make, sources["talk"].drop_tags) == (None, None)
    assert sources["filed"].drop_tags == "code"
    assert any("asks no model for data (make)" in note for note in made.notes)
