"""Does every shipped grid plan cleanly once its data are there, with the published
numbers of runs, examples, steps?"""

import json
import math
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.grids import grid as grids
from launcher.planning.plan import Allow
from launcher.submission import workflow
from launcher.submission.submit_plan import SubmitPlanner
from launcher.workspace.ledger import Ledger
from tests.lib import shelf
from tests.lib.command_line import Zsg
from tests.lib.published_llamas import CONFIGS
from tests.lib.shipped_grids import GRIDS, ROOT, STUDIES, TEMPLATES
from zsg_core.data import mixing
from zsg_core.families.registry import shape_of_config
from zsg_core.metrics import summaries
from zsg_core.settings.claims import Correlates, Rises
from zsg_core.settings.run import Settings
from zsg_core.stats.verdict import TAIL, compute_order_chance
from zsg_core.training import schedule, tuning

MEMORY_GB = 1024  # of a node with eight A800


@pytest.fixture(scope="module")
def shelved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the templates name."""
    return shelf.fill(tmp_path_factory.mktemp("shelf"))


def write_roomy_profile(path: Path, folder: Path) -> str | None:
    """The profile that a grid names, on nodes whose memory is known; None where it
    names none."""
    named = re.search(r"^profile: (\S+)", path.read_text(encoding="utf-8"), flags=re.M)
    if named is None:
        return None
    roomy = folder / f"roomy-{named[1]}.yaml"
    roomy.write_text(
        f"name: roomy\ninherits: {named[1]}\nslurm: {{mem_gb: {MEMORY_GB}}}\n"
    )
    return str(roomy)


def need_harness(path: Path) -> None:
    """Skips a template with tasks of lm-evaluation-harness where that is not installed."""
    if "lm_eval/" in path.read_text(encoding="utf-8"):
        pytest.importorskip("lm_eval", reason="no lm-evaluation-harness")


@pytest.mark.parametrize(
    "path", GRIDS, ids=lambda path: str(path.relative_to(ROOT / "templates"))
)
def test_a_template_plans_cleanly(
    path: Path,
    shelved: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
) -> None:
    """Every run of it would be submitted and fits; nothing is merged, left out without
    effect, or warned of, once the profile says how much memory the site's nodes have."""
    need_harness(path)
    monkeypatch.chdir(shelved)
    profile = write_roomy_profile(path, shelved)
    opened = workflow.open_grid(path, profile, shelved / "work")
    plan = SubmitPlanner(
        opened.site, opened.grid, opened.runs, Ledger(opened.site.workspace), Allow()
    ).plan_submit()

    assert {action.kind for action in plan.actions} == {"submit"}
    assert len(plan.actions) == len(opened.grid.points)
    notes = [line for line in logged if "note: " in line]
    # what an order repeats is counted in a note, whoever asks for it
    assert all(" come again" in line for line in notes)


@pytest.mark.soak(part="trials")
def test_shapes_of_orders_are_planned_for_a_large_model(
    shelved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid of the tiny model with four settings changed: all runs fit, on the same
    five held-out splits, in orders that are as many."""
    monkeypatch.chdir(shelved)
    path = STUDIES / "order-shapes.yaml"
    large = (
        "model.name=llama-2-7b",
        "model.path=models/Llama-2-7b-hf",
        "train.lr=1e-6",
        "train.precision=bf16",
    )
    opened = workflow.open_grid(path, "a800-80g", shelved / "large", sets=large)
    tiny = workflow.open_grid(path, "local", shelved / "tiny")

    assert len(opened.runs) == len(tiny.runs) == 50
    assert {run.model_name for run in opened.runs} == {"Llama-2-7b-hf"}
    splits = {run.stage["data"]["held_out"]["seed"] for run in opened.runs}
    assert splits == set(range(5))
    assert len({run.arrangement_id for run in opened.runs}) == 50


@pytest.mark.parametrize(
    "path", GRIDS, ids=lambda path: str(path.relative_to(ROOT / "templates"))
)
def test_a_template_can_be_tried_small(
    path: Path, shelved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--smoke` makes runs of the tiny model of it, on the CPUs of this machine."""
    need_harness(path)
    monkeypatch.chdir(shelved)
    opened = workflow.open_grid(path, "local", shelved / "small", smoke=True)

    steps = 20 if "falls_early" in path.read_text() else opened.site.profile.smoke.steps
    assert {run.stage["train"]["steps"] for run in opened.runs} == {steps}
    assert {run.stage["train"]["precision"] for run in opened.runs} <= {
        "fp32",
        "bf16",
    }, "this machine may lack fp16"


OF_TRIALS = {  # ids of trials at commit e79a027
    "demo": ["5ee6d55129da", "c9039b561fc4", "2579fa4ee085"],
    "skills-dmt": ["95db5355803a", "3ff0f1c9c680"],
}


@pytest.mark.parametrize(("name", "stays"), [("demo", True), ("skills-dmt", False)])
def test_ids_of_trials_change_where_their_recipes_do(
    name: str, stays: bool, shelved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's trial is what it was; in DMT's the shares k had become equal: they are
    others, and so are its ids."""
    monkeypatch.chdir(shelved)
    opened = workflow.open_grid(
        STUDIES / f"{name}.yaml", "local", shelved / "small", smoke=True
    )
    ids = [run.id for run in opened.runs]

    assert (
        (ids[: len(OF_TRIALS[name])] == OF_TRIALS[name])
        if stays
        else not set(ids) & set(OF_TRIALS[name])
    )


def test_a_template_plans_on_the_command_line(shelved: Path) -> None:
    """The demo's grid, as a user would ask for it."""
    zsg = Zsg(shelved)

    planned = zsg("plan", STUDIES / "demo.yaml", "--workspace", "typed")
    assert planned.startswith("demo: 3 to submit, 0 done")


@pytest.mark.parametrize(
    "path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates"))
)
def test_a_template_is_described(path: Path) -> None:
    """The table of templates/README.md names every file, and every template says what
    it is in its first lines."""
    readme = (ROOT / "templates/README.md").read_text(encoding="utf-8")

    assert f"| `{path.relative_to(ROOT / 'templates')}` |" in readme
    assert path.read_text(encoding="utf-8").startswith("# ")


# on tasks and of sizes that no paper has
OURS = {
    "before-and-after",
    "demo",
    "niv2-wsd-order",
    "skills-orders",
    "skills-dmt",
    "order-shapes",
    "order-looks",
}
PUBLISHED = sorted(path for path in STUDIES.glob("*.yaml") if path.stem not in OURS)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_study_says_what_it_is(path: Path) -> None:
    """Its header asks a question, names the paper, and says what counts as reproduced
    and what it costs."""
    header = path.read_text(encoding="utf-8").partition("name: ")[0]

    assert header.splitlines()[0].endswith(("?", "."))
    assert all(f"\n# {part}" in header for part in ("From: ", "Reproduced", "Cost: "))
    assert re.search(r"arXiv \d{4}\.\d{5}", header)


RUNS = {
    "zsg-early-generalisation": 3,
    "zsg-permutations": 3 * 3,
    "zsg-wsd-order": 3 * 3,
    "zsg-granularity": 2,
    "zsg-tma": 5 * 3,
    "zsg-early-rounds": 6,
    "dmt-strategies": 4 * 2,
    "dmt-k-sweep": 6 * 2,
    "dmt-amounts": (3 + 1) * 5 * 2,
    "dmt-ratios": 15 - 2,
    "dmt-rft": 2 * 3,
    "dmt-instag": 2 * 5 + 2,  # math alone at two amounts, which both are held against
    "dmt-representations": 2,
    "dmt-33b": 3 + (3 + 1) * 5,
    "delia-ratio": 5,
    "delia-ablation": 2 * 2 * 2,
    "delia-baselines": 7,
    "delia-samples": 4 * 3,
    "delia-translation": 5 * 2,
    "t0-mixing": 3 + 2,
    "flan-mixing": 7,
    "flan-instructions": 4,
    "flan-palm-mixing": 2 * 2,
    "flan-palm-tasks": 1 + 4,
    "muppet": 2 + 2 + 4,
    "tuning-methods": 5,
}
# of the published data
SIZES = {"math": 110_142, "code": 20_022, "general": 86_060, "flan_mini": 28_751}


def points(name: str, **axes: Any) -> list[Settings]:
    """The points of a study at which axes, named by their last words, have these values."""

    def matches(point: grids.Point) -> bool:
        values = {key.rpartition(".")[2]: value for key, value in point.axes.items()}
        return all(values.get(key) == value for key, value in axes.items())

    return [
        point.settings
        for point in grids.load_grid(STUDIES / f"{name}.yaml").points
        if matches(point)
    ]


def examples(stage: Settings) -> dict[str, int]:
    """How many examples of each source a stage trains on, by the published sizes."""
    made = {}
    for name, source in stage.data.by_source().items():
        kept = mixing.count_kept(
            {"fraction": source.fraction}, SIZES[name or source.set]
        )
        made[name or source.set] = mixing.count_kept({"fraction": source.k}, kept)
    return made


def test_studies_have_the_published_number_of_runs() -> None:
    """No more and no fewer: one for each curve or cell."""
    assert {path.stem: len(grids.load_grid(path).points) for path in PUBLISHED} == RUNS


FRACTIONS = {  # of math, code, general
    1: (110_142, 20_022, 86_060),
    Fraction(1, 4): (27_535, 5_005, 21_515),
    Fraction(1, 16): (6_883, 1_251, 5_378),
    Fraction(1, 64): (1_720, 312, 1_344),
    Fraction(1, 256): (430, 78, 336),
}


@pytest.mark.parametrize("name", ["dmt-amounts", "dmt-33b", "dmt-instag"])
def test_amounts_of_dmt_are_the_published_ones(name: str) -> None:
    """All three data sets at one fraction, whole examples; alone, a data set has as
    many as mixed."""
    mixed = {
        stage.data.fraction: examples(stage)
        for stage in points(name, strategy=None)
        if _all(stage)
    }
    assert {
        fraction: tuple(made.values()) for fraction, made in mixed.items()
    } == FRACTIONS
    for stage in points(name, strategy=None):
        assert all(
            count in (0, mixed[stage.data.fraction][source])
            for source, count in examples(stage).items()
        )


def _all(stage: Settings) -> bool:
    return all(examples(stage).values())


# template, axes, examples of every stage, steps of every stage as science.md rounds them
STEPS = [
    ("dmt-strategies", {"strategy": "multitask"}, [216_224], [5068]),
    ("dmt-strategies", {"strategy": "mixed"}, [130_164, 86_060], [3051, 2017]),
    (
        "dmt-strategies",
        {"strategy": {"name": "dmt", "k": "1/256"}},
        [130_164, 86_568],
        [3051, 2029],
    ),
    (
        "dmt-k-sweep",
        {"strategy": {"name": "dmt", "k": 0}},
        [130_164, 86_060],
        [3051, 2017],
    ),
    (
        "dmt-k-sweep",
        {"strategy": {"name": "dmt", "k": "1/256"}},
        [130_164, 86_568],
        [3051, 2029],
    ),
    (
        "dmt-k-sweep",
        {"strategy": {"name": "dmt", "k": 1}},
        [130_164, 216_224],
        [3051, 5068],
    ),
    ("zsg-permutations", {"order": "cluster", "seed": 0}, [28_751], [1797]),
    ("zsg-wsd-order", {"order": "nft", "measure": "wsd"}, [28_751], [1797]),
    ("zsg-granularity", {"granularity": "coarse"}, [28_751], [1797]),
    ("tuning-methods", {"tuning": {"method": "full"}}, [28_751], [1797]),
]


@pytest.mark.parametrize(("name", "axes", "counts", "steps"), STEPS)
def test_examples_and_steps_are_the_published_ones(
    name: str, axes: dict[str, Any], counts: list[int], steps: list[int]
) -> None:
    """Stage by stage. Published steps are rounded; a step on the few examples that are
    left is one more here."""
    for settings in points(name, **axes):
        stages = settings.by_stage()
        assert [sum(examples(stage).values()) for stage in stages] == counts
        exact = [
            Fraction(sum(examples(one).values()) * one.train.epochs, one.train.batch)
            for one in stages
        ]
        assert [round(number) for number in exact] == steps
        planned = [
            schedule.count_steps(n, one.train.batch, one.train.epochs)
            for n, one in zip(counts, stages, strict=True)
        ]
        assert planned == [math.ceil(number) for number in exact]


def test_ratios_of_dmt_hold_one_side() -> None:
    """All specialist data with five amounts of general, and all or 1/64 of the general
    data with five of specialist."""
    found = [
        tuple(source.fraction for source in settings.data.by_source().values())
        for settings in points("dmt-ratios")
    ]
    amounts, few = list(FRACTIONS), Fraction(1, 64)
    wanted = (
        {(1, 1, of) for of in amounts}
        | {(of, of, 1) for of in amounts}
        | {(of, of, few) for of in amounts}
    )

    assert set(found) == wanted
    assert len(found) == len(wanted)


def test_rounds_are_five_each() -> None:
    """[0,5), [5,10) … [25,30)."""
    rounds = [settings.arrangement.rounds for settings in points("zsg-early-rounds")]

    assert rounds == [f"{start}:{start + 5}" for start in range(0, 30, 5)]


@pytest.mark.parametrize(
    ("data", "cap", "steps"),
    [("flan_mini", 30_000, 1875), ("sharegpt", 4_800, 300), ("messages", 5_600, 350)],
)
def test_lists_of_tma_are_as_long_as_the_published_curves(
    data: str, cap: int, steps: int
) -> None:
    """Five lists of each data set, capped at what the steps of the figures take."""
    runs = points("zsg-tma", set=data)

    assert {run.arrangement.list for run in runs} == {
        "min",
        "max",
        "min-max",
        "max-min",
        "random",
    }
    assert {run.arrangement.cap for run in runs} == {cap}
    assert {
        schedule.count_steps(cap, run.train.batch, run.train.epochs, run.train.steps)
        for run in runs
    } == {steps}


def test_mixtures_have_the_published_caps_and_shares() -> None:
    """T0's steps of 1024; FLAN's 30,000 examples with a maximum of 3000; table 23 of Flan-PaLM."""
    [t0, *_] = points("t0-mixing")
    [flan, *_] = points("flan-mixing")
    shares = {
        tuple(source.share for source in run.data.by_source().values()): _rates(run)
        for run in points("flan-palm-mixing")
    }

    assert (t0.data.mix.total, t0.data.mix.rates) == (12_200 * 1024, "t0")
    assert (flan.data.train_per_task, flan.data.rate_max, flan.data.mix.total) == (
        30_000,
        3_000,
        30_000 * 32,
    )
    assert [list(map(float, of)) for of in shares] == [
        [52, 15, 30, 3],
        [46, 27.9, 24.2, 1.8],
    ]
    assert set(shares.values()) == {(30_000, 20_000, 5_000, 100_000)}


def test_each_set_of_flan_palm_s_tasks_holds_the_smaller() -> None:
    """9 of chains of thought, 80 of Muffin, 193 of T0-SF, 1,554 of Natural Instructions,
    one after the other, with shares A; the model itself is not trained; suites are
    tested and never trained on."""
    trained = []
    for run in points("flan-palm-tasks"):
        sources = run.data.by_source()
        trained.append([name for name, source in sources.items() if source.k != 0])
    assert trained == [
        ["cot"],
        ["cot"],
        ["cot", "muffin"],
        ["cot", "muffin", "t0sf"],
        ["cot", "muffin", "t0sf", "niv2"],
    ]
    base, *others = points("flan-palm-tasks")
    assert base.train.lr == 1e-12
    assert {run.train.lr for run in others} == {1e-5}
    shares = [source.share for source in list(base.data.by_source().values())[:4]]
    assert shares == [3, 52, 15, 30]


def test_flan_palm_s_average_is_of_its_six_suites() -> None:
    """MMLU and BBH direct and with chains of thought, TyDiQA direct, MGSM with chains of
    thought; by hand 100 (score - guess) / (100 - guess), in the mean: (40 + 34.67 +
    24.63 + 19.25 + 60 + 12) / 6."""
    grid = grids.load_grid(STUDIES / "flan-palm-tasks.yaml")
    suites = {
        "source/mmlu/rank_accuracy": 55.0,
        "lm_eval/mmlu_flan_cot_fewshot": 0.51,
        "source/bbh/rank_accuracy": 44.0,
        "lm_eval/bbh_cot_fewshot": 0.40,
        "source/tydiqa/exact_match": 60.0,
        "lm_eval/mgsm_cot_native": 0.12,
    }
    chances = grid.summaries.averages["suites"]
    assert list(chances) == list(suites)
    average = summaries.average_scores(suites, chances)
    assert average == pytest.approx(31.757141)
    for suite in suites:
        assert summaries.average_scores({**suites, suite: 1.0}, chances) != average
    metrics = set(grid.points[0].settings.checkpoints.metrics)
    assert metrics >= {suite for suite in suites if suite.startswith("lm_eval/")}


def test_batches_of_muppet_are_of_many_tasks_or_of_one() -> None:
    """64 blocks of 8 are a step, as 64 workers with a task each; one block of 512; and
    10 to 46 tasks."""
    runs = [point.settings for point in grids.load_grid(STUDIES / "muppet.yaml").points]
    blocks = {run.arrangement.block for run in runs}

    assert {
        run.train.batch // block for run in runs if (block := run.arrangement.block)
    } == {64, 1}
    assert blocks == {8, 512, None}
    assert {run.data.train_tasks for run in runs} == {10, 15, 20, 25, 46}
    assert [run.train.task_scale for run in runs].count("none") == 1


def _rates(run: Settings) -> tuple[int | None, ...]:
    return tuple(source.rate_max for source in run.data.by_source().values())


def test_ratios_of_delia_have_the_published_steps() -> None:
    """100·(ratio + 1)/16 in one epoch; the ablation has for both of its ratios the
    whole steps of 260."""
    runs = [
        (one.data.by_source()["diverse"].ratio, one)
        for name in DELIA
        for one in points(name)
    ]
    examples = [100 * (1 + int(ratio or 0)) for ratio, _ in runs]
    asked = [(one.train.batch, one.train.epochs, one.train.steps) for _, one in runs]
    steps = [
        schedule.count_steps(count, *how)
        for count, how in zip(examples, asked, strict=True)
    ]
    told = {
        (
            one.train.lr,
            one.train.lr_floor,
            one.train.warmup_steps,
            one.train.weight_decay,
        )
        for _, one in runs
    }
    lora = one_of(json.dumps(one.train.tuning.resolved(0)) for _, one in runs)

    assert [int(ratio or 0) for ratio, _ in runs] == [0, 67, 135, 260, 520] + [
        0
    ] * 4 + [260] * 4
    assert steps == [7, 425, 850, 1632, 3257] + [1631] * 8
    assert told == {(2e-4, 1.0, 25, 0.01)}
    assert (lora["r"], lora["alpha"], len(lora["targets"])) == (16, 16.0, 5)


DELIA = ("delia-ratio", "delia-ablation")


def test_baselines_of_delia_begin_with_runs_of_its_ablation() -> None:
    """DELIA itself, a token as drawn, and one that begins as the mean: the same model,
    data and training, so that a workspace trains them once."""

    def describe(one: Settings) -> str:
        return one.model_dump_json(include={"model", "data", "train", "strategy"})

    of_ablation = {describe(one) for one in points("delia-ablation")}
    by_label = {
        one.axes["label"]: describe(one.settings)
        for one in grids.load_grid(STUDIES / "delia-baselines.yaml").points
    }
    shared = [label for label, told in by_label.items() if told in of_ablation]

    assert shared == ["DELIA", "random", "mean embedding"]


def test_sample_sizes_of_delia_are_updated_as_often() -> None:
    """Ten examples alone as often as a hundred with 260 times as many others."""
    for one in points("delia-samples"):
        sources = one.data.by_source()
        count, ratio = sources["task"].count, sources["diverse"].ratio
        assert count is not None and ratio is not None
        examples = count * (1 + int(ratio))
        assert schedule.count_steps(examples, 16, one.train.epochs, None) >= 1631


def test_both_directions_of_delia_have_one_epoch_at_its_ratio() -> None:
    """Of the 56 documents from Icelandic; the 71 into it would have more."""
    of_delia = points("delia-translation", label="DELIA")

    assert {one.train.steps for one in of_delia} == {913}
    assert schedule.count_steps(56 * 261, 16, 1, None) in (913, 914)


def one_of(values: Iterable[str]) -> Any:
    """The one value that all are."""
    [value] = set(values)
    return json.loads(value)


def test_ways_of_tuning_train_the_published_number_of_weights() -> None:
    """Of LLaMA-2-7B: LoRA of rank 16 on queries and values, on all of attention, and on
    the embedding, too."""
    shape = shape_of_config({**CONFIGS["7B"], "vocab_size": 32000})
    found = [
        tuning.count_trained_parameters(shape, run.train.tuning.resolved(0))
        for run in points("tuning-methods")
    ]

    assert found == [
        6_738_415_616,
        8_388_608,
        16_777_216,
        16_777_216 + 577_536,
        65 * 4096,
    ]


SCORES = ("gsm8k/strict", "humaneval/pass_at_1", "mt_bench")
AMOUNTS = ("1/256", "1/64", "1/16", "1/4", "1")
# Tables 1 to 6 of DMT: template, what the claim's `where` must have, places → the three scores.
TABLES: list[tuple[str, dict[str, Any], dict[str, tuple[float, float, float]]]] = [
    (
        "dmt-strategies",
        {"model.name": "llama-7b"},
        {
            "multitask": (47.53, 14.63, 5.76),
            "sequential": (31.39, 15.85, 5.72),
            "mixed": (32.60, 15.24, 6.02),
            "1/256": (41.92, 17.68, 6.08),
        },
    ),
    (
        "dmt-strategies",
        {"model.name": "llama-13b"},
        {
            "multitask": (50.94, 19.50, 5.73),
            "sequential": (39.12, 20.12, 5.93),
            "mixed": (40.48, 18.30, 5.93),
            "1/256": (46.47, 19.50, 6.03),
        },
    ),
    (
        "dmt-k-sweep",
        {},
        {
            "1": (45.79, 14.02, 5.63),
            "1/4": (48.37, 13.41, 5.69),
            "1/16": (43.3, 15.24, 5.78),
            "1/64": (42.53, 15.85, 6.01),
            "1/256": (41.92, 17.68, 6.08),
            "0": (32.6, 15.24, 6.02),
        },
    ),
    (
        "dmt-k-sweep",
        {},
        {
            "1": (50.49, 16.46, 5.76),
            "1/4": (50.18, 18.9, 5.83),
            "1/16": (48.59, 18.9, 5.96),
            "1/64": (47.61, 15.24, 6.03),
            "1/256": (46.47, 19.5, 6.03),
            "0": (40.48, 18.30, 5.93),
        },
    ),
    # Each column of a single source was trained on that source.
    (
        "dmt-amounts",
        {},
        {
            "1": (49.10, 18.4, 5.88),
            "1/4": (43.37, 11.58, 5.85),
            "1/16": (35.90, 12.19, 5.61),
            "1/64": (22.71, 9.14, 5.11),
            "1/256": (12.70, 5.48, 4.00),
        },
    ),
    (
        "dmt-amounts",
        {},
        {
            "1": (51.4, 18.4, 6.13),
            "1/4": (48.59, 13.41, 6.03),
            "1/16": (43.0, 12.8, 5.66),
            "1/64": (27.4, 12.2, 5.24),
            "1/256": (18.4, 10.36, 2.95),
        },
    ),
    (
        "dmt-33b",
        {},
        {
            "1": (57.91, 26.82, 6.63),
            "1/4": (56.10, 25.61, 6.66),
            "1/16": (54.60, 21.95, 6.17),
            "1/64": (44.60, 18.59, 5.99),
            "1/256": (29.21, 14.02, 2.3),
        },
    ),
    (
        "dmt-ratios",
        {},
        dict(
            zip(
                AMOUNTS,
                [
                    (48.52, 16.46, 4.69),
                    (47.23, 14.63, 5.16),
                    (47.99, 15.24, 5.27),
                    (48.44, 15.85, 5.73),
                    (47.53, 14.63, 5.76),
                ],
                strict=True,
            )
        ),
    ),
    (
        "dmt-instag",
        {},
        dict(
            zip(
                AMOUNTS,
                [
                    (15.31, 11.37, 4.38),
                    (25.62, 10.97, 5.21),
                    (36.23, 10.36, 5.38),
                    (43.13, 15.85, 5.71),
                    (49.05, 17.68, 5.80),
                ],
                strict=True,
            )
        ),
    ),
]


@pytest.mark.parametrize(("name", "where", "table"), TABLES)
def test_what_dmt_published_supports_the_claims(
    name: str, where: dict[str, Any], table: dict[str, tuple[float, float, float]]
) -> None:
    """Every claim of a score whose places a table has; each table decides one at least."""
    decided = 0
    for claim in grids.load_grid(STUDIES / f"{name}.yaml").claims:
        said = {
            key: value for key, value in (claim.where or {}).items() if key in where
        }
        places = [_place(value) for value in claim.axis[1]] if claim.axis else []
        if claim.metric not in SCORES or any(
            where[key] != value for key, value in said.items()
        ):
            continue
        if not table.keys() >= set(places):
            continue
        values = np.array(
            [table[place][SCORES.index(claim.metric)] for place in places]
        )
        decided += 1
        if isinstance(claim, Rises):
            assert (np.diff(values) >= max(claim.by, 1e-9)).all(), claim
        else:
            assert isinstance(claim, Correlates)
            ranks = np.sign(values[:, None] - values[None, :]).sum(axis=1)
            assert np.corrcoef(ranks, np.arange(len(values)))[0, 1] >= claim.at_least, (
                claim
            )
    assert decided


def test_orders_of_five_places_decide_where_they_are_perfect() -> None:
    """Of DMT's tables one pair swapped among five amounts is no more than chance: such
    claims stay undecided there."""
    undecided = set()
    for name, _, table in TABLES:
        for claim in grids.load_grid(STUDIES / f"{name}.yaml").claims:
            places = [_place(value) for value in claim.axis[1]] if claim.axis else []
            if (
                not isinstance(claim, Correlates)
                or claim.metric not in SCORES
                or not table.keys() >= set(places)
            ):
                continue
            values = [table[place][SCORES.index(claim.metric)] for place in places]
            if compute_order_chance(values)[0] > TAIL:
                undecided.add((name, claim.metric, tuple(values)))

    assert undecided == {
        ("dmt-amounts", "humaneval/pass_at_1", (5.48, 9.14, 12.19, 11.58, 18.4)),
        ("dmt-33b", "mt_bench", (2.3, 5.99, 6.17, 6.66, 6.63)),
    }


def _place(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return str(value["k"]) if "k" in value else value["name"]
