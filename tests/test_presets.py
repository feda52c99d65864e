"""Is each preset the training that its paper published, setting by setting, and do real
jobs keep to it?"""

import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.contract.folder import read_json, write_json
from tests.lib.journal_rows import plain_rows
from tests.lib.train_bench import STEPS, Bench, starts, stop, told
from zsg_core.recipe import InputDigests, SourceDigests, make_recipe
from zsg_core.settings.run import Settings
from zsg_core.settings.train import PRESETS, TrainSettings
from zsg_core.training import schedule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import TrainingArguments, get_scheduler

# fmt: off
# of ours, of Dynamics of Zero-Shot Generalization's code, of DMT with FastChat's recipe
PUBLISHED = {
    "lr":                (1e-6,        1e-6,        2e-5),
    "lr_floor":          (0.1,         0.1,         0.0),
    "warmup_steps":      (0,           0,           0),
    "warmup_share":      (None,        None,        0.03),
    "betas":             ((0.9, 0.95), (0.9, 0.95), (0.9, 0.999)),
    "eps":               (1e-8,        1e-5,        1e-8),
    "weight_decay":      (0.0,         0.0,         0.0),
    "clip":              (1.0,         1.0,         1.0),
    "batch":             (16,          16,          128),
    "epochs":            (1,           1,           3),
    "steps":             (None,        None,        None),
    "max_length":        (1024,        1024,        2048),
    "precision":         ("bf16",      "fp16",      "bf16"),
    "loss_scale":        (None,        6400.0,      None),
    "overflow":          ("stop",      "skip",      "stop"),
    "virtual_ranks":     (1,           2,           1),
    "truncate":          ("prompt",    "head",      "prompt"),
    "truncated_answers": ("exclude",   "zero",      "exclude"),
    "loss_on":           ("answer",    "answer",    "answer"),
    "task_scale":        ("none",      "none",      "none"),
}
# fmt: on
OF_NO_PAPER = {"preset", "tuning", "init_seed"}


def settings(**train: Any) -> Settings:
    """The settings of a run."""
    return Settings.model_validate({"data": {"path": "/d"}, "train": train})


def resolved(wanted: Settings) -> dict[str, Any]:
    """What the recipe says of training."""
    return make_recipe(wanted, InputDigests(sources={"": SourceDigests(data="d")}))[
        "stages"
    ][-1]["train"]


@pytest.mark.parametrize(("place", "preset"), [(0, "zsg"), (1, "paper"), (2, "dmt")])
def test_a_preset_is_what_was_published(place: int, preset: str) -> None:
    """Every setting of training has the value of the table, and the table has every setting."""
    made = TrainSettings.model_validate({"preset": preset}).model_dump(
        exclude=OF_NO_PAPER
    )

    assert made == {key: values[place] for key, values in PUBLISHED.items()}
    assert set(PRESETS) == {"zsg", "paper", "dmt"}


@pytest.mark.parametrize("preset", ["paper", "dmt"])
def test_the_recipe_holds_what_a_preset_resolves_to(preset: str) -> None:
    """Spelt out, the settings of a preset are the same recipe but for its name."""
    named = resolved(settings(preset=preset))
    spelt = resolved(settings(**PRESETS[preset]))

    assert named == spelt | {"preset": preset}
    assert named.get("warmup") == ("hugging face" if preset == "dmt" else None)
    assert {
        key: tuple(v) if isinstance(v, list) else v for key, v in named.items()
    }.items() >= PRESETS[preset].items()


def test_a_recipe_of_zsg_has_no_key_that_came_later() -> None:
    """What does nothing is absent, so that ids of recipes made before stay."""
    later = {
        "virtual_ranks",
        "warmup_share",
        "truncate",
        "truncated_answers",
        "loss_scale",
        "overflow",
    }

    assert (
        later
        & resolved(
            settings(preset="zsg", virtual_ranks=1, overflow="stop", warmup_share=None)
        ).keys()
        == set()
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"preset": "paper", "eps": 1e-8},
            {"eps": 1e-8, "lr": 1e-6, "virtual_ranks": 2},
        ),
        (
            {"preset": "paper", "precision": "fp32"},
            {"precision": "fp32", "loss_scale": None, "overflow": "skip"},
        ),
        ({"preset": "paper", "truncate": "prompt"}, {"truncated_answers": "exclude"}),
        (
            {"preset": "dmt", "warmup_steps": 5},
            {"warmup_steps": 5, "warmup_share": None},
        ),
        (
            {"preset": "dmt", "warmup_steps": 0},
            {"warmup_steps": 0, "warmup_share": None},
        ),
        ({"preset": "dmt", "batch": 16}, {"batch": 16, "epochs": 3}),
        ({"precision": "fp16"}, {"loss_scale": 6400.0, "overflow": "stop"}),
    ],
)
def test_what_is_given_goes_before_the_preset(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A preset is defaults; those that another setting puts out of force are dropped with it."""
    assert TrainSettings.model_validate(given).model_dump().items() >= expected.items()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"warmup_steps": 1, "warmup_share": 0.1}, "both say how long the warm-up is"),
        ({"loss_scale": 128.0}, "`loss_scale` does nothing in bf16"),
        (
            {"truncated_answers": "zero"},
            "`truncated_answers` does nothing under truncate: prompt",
        ),
        ({"virtual_ranks": 17}, "virtual_ranks is 17, but a batch has 16 items"),
        (
            {"preset": "paper", "batch": 1},
            "virtual_ranks is 2, but a batch has 1 items",
        ),
        ({"preset": "papre"}, "Input should be 'zsg', 'paper' or 'dmt'"),
    ],
)
def test_settings_that_cannot_hold_together_are_refused(
    given: dict[str, Any], message: str
) -> None:
    """A setting that would do nothing, or that contradicts another, is an error and not a guess."""
    with pytest.raises(ValidationError, match=message):
        TrainSettings.model_validate(given)


def test_a_stage_may_name_a_preset_of_its_own() -> None:
    """What the run's preset set is no setting of the run, so the stage's preset replaces it."""
    stages = [
        {"train": {"preset": "dmt", "max_length": 1024}},
        {"train": {"eps": 1e-6}},
    ]
    wanted = {
        "data": {"path": "/d"},
        "train": {"preset": "dmt", "lr": 3e-5, "max_length": 1024},
    }
    first, second = Settings.model_validate(
        {**wanted, "stages": [{"train": {"preset": "zsg"}}, {}]}
    ).by_stage()

    assert (first.train.batch, first.train.lr, second.train.batch, second.train.lr) == (
        16,
        3e-5,
        128,
        3e-5,
    )
    with pytest.raises(ValidationError, match="max_length: is the same for all stages"):
        Settings.model_validate({**wanted, "stages": stages})
    with pytest.raises(ValidationError, match="preset paper would make train"):
        Settings.model_validate(
            {**wanted, "stages": [{}, {"train": {"preset": "paper"}}]}
        )


@pytest.mark.parametrize(
    ("total", "steps", "share", "expected"),
    [
        (100, 7, None, 7),
        (100, 0, 0.03, 3),
        (101, 0, 0.03, 4),
        (100, 0, 0.07, 7),
        (100, 0, 0.0, 0),
        (5068, 0, 0.03, 153),
    ],
)
def test_a_share_of_the_steps_is_rounded_up(
    total: int, steps: int, share: float | None, expected: int
) -> None:
    """Of runs made before Hugging Face's rule: 0.07 of 100 is 7."""
    assert expected == schedule.count_warmup_steps(total, steps, share)


@pytest.mark.parametrize(
    ("total", "expected"),
    [(100, 3), (101, 4), (5068, 153), (3051, 92), (2029, 61), (1, 1)],
)
def test_the_warm_up_of_dmt_is_that_of_hugging_face(total: int, expected: int) -> None:
    """As many steps as TrainingArguments.get_warmup_steps counts, and the rate that its
    schedule has at every step."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2e-5)
    theirs = get_scheduler(
        "cosine", optimizer, num_warmup_steps=expected, num_training_steps=total
    )
    rate_of = theirs.lr_lambdas[0]
    rates = [
        schedule.compute_learning_rate(step, total, 2e-5, 0.0, expected, "hugging face")
        for step in range(1, total + 1)
    ]

    assert (
        TrainingArguments(output_dir="unused", warmup_steps=0.03).get_warmup_steps(
            total
        )
        == expected
    )
    assert schedule.count_warmup_steps(total, 0, 0.03, "hugging face") == expected
    assert rates == [2e-5 * rate_of(step) for step in range(total)]
    assert rates[0] == 0.0


def test_a_share_is_rounded_as_hugging_face_rounds_it() -> None:
    """With what binary fractions add: 0.07 of 100 steps are 8."""
    assert (
        TrainingArguments(output_dir="unused", warmup_steps=0.07).get_warmup_steps(100)
        == 8
    )
    assert schedule.count_warmup_steps(100, 0, 0.07, "hugging face") == 8


@pytest.mark.parametrize(
    ("examples", "steps"), [(28_751, 1797), (28_752, 1797), (28_753, 1798)]
)
def test_the_last_batch_may_be_small(examples: int, steps: int) -> None:
    """⌈N/16⌉ steps; where 16 divides N the published code counts a step for which there
    are no data."""
    assert steps == schedule.count_steps(examples, 16)


# What follows are real jobs.


def metric(folder: Path, key: str) -> dict[int, float]:
    """A metric by step."""
    return {
        row["step"]: row["data"][key]
        for row in plain_rows(folder)
        if row["kind"] == "metric" and key in row["data"]
    }


def losses(bench: Bench, world: int, **train: Any) -> list[float]:
    """The training losses of a run of four steps."""
    folder = bench.make(train={"steps": 4, **train}, state_every=None)
    assert bench.jobs.run(folder, world)["outcome"] == "done"
    return list(metric(folder, "train/loss").values())


def test_virtual_ranks_do_not_depend_on_real_ones(bench: Bench) -> None:
    """One rank and two train to the same losses under virtual_ranks: 2, which are not
    those of the token mean."""
    one, two = (losses(bench, world, virtual_ranks=2) for world in (1, 2))

    assert two == pytest.approx(one, rel=1e-5)
    assert one != pytest.approx(losses(bench, 1), rel=1e-4)


def test_answers_cut_away_are_left_out_or_count_as_nothing(bench: Bench) -> None:
    """With heads kept, the mean over the answers left, and over all items with zero for
    those that have none."""
    how = {"truncate": "head", "max_length": 80, "steps": 1}
    excluded, zeroed = (
        bench.make(train={**how, "truncated_answers": rule})
        for rule in ("exclude", "zero")
    )
    for folder in (excluded, zeroed):
        assert bench.jobs.run(folder)["outcome"] == "done"
    items, lost = starts(excluded)[0]["test"], starts(excluded)[0]["unanswered"]["test"]

    assert 0 < lost < items
    assert metric(excluded, "loss_excluded")[0] == lost
    assert metric(zeroed, "loss_excluded") == {}
    for step, loss in metric(zeroed, "loss").items():
        assert loss * items == pytest.approx(
            metric(excluded, "loss")[step] * (items - lost)
        )


def test_a_misspelt_key_in_job_json_ends_the_job(bench: Bench) -> None:
    """DeepSpeed would train on with its own default; a job that is replayed from an
    edited file says so first."""
    folder = bench.make()
    job = read_json(folder / "job.json")
    job["deepspeed"]["gradient_cliping"] = job["deepspeed"].pop("gradient_clipping")
    write_json(folder / "job.json", job)
    record = bench.jobs.run(folder)

    assert (record["outcome"], record["cause"]) == ("failed", "bad input")
    assert "'gradient_cliping'. Did you mean 'gradient_clipping'" in record["evidence"]


HAS_FP16 = torch.ops.mkldnn._is_mkldnn_fp16_supported()  # what DeepSpeed asks of a CPU
in_fp16 = pytest.mark.skipif(
    not HAS_FP16,
    reason="this CPU has no fp16 arithmetic, without which DeepSpeed refuses",
)
# so large that it must be halved a dozen times
OVERFLOWING = {"loss_scale": 1e9, "virtual_ranks": 2}


@in_fp16
@pytest.mark.parametrize(
    ("world", "zero"),
    [(1, 1), pytest.param(2, 3, marks=pytest.mark.soak(part="models"))],
)
def test_a_step_that_overflows_is_lost_and_counted(
    bench: Bench, world: int, zero: int
) -> None:
    """Weights and learning rate stay, journal and exit record count it, and an
    interruption changes nothing."""
    undisturbed, stopped = (
        bench.make(
            zero, "fp16", train={**OVERFLOWING, "overflow": "skip"}, state_every=None
        )
        for _ in range(2)
    )
    record = bench.jobs.run(undisturbed, world)
    rates, lost, loss = (
        metric(undisturbed, key) for key in ("train/lr", "train/skipped", "loss")
    )

    assert 6 < record["skipped"] == lost[STEPS] < STEPS - 1
    before = {step: lost.get(step - 1, 0) for step in lost}
    assert rates == {
        s: schedule.compute_learning_rate(s - int(before[s]), STEPS, 2e-3, 0.1)
        for s in lost
    }
    assert loss[0] == loss[6] != loss[STEPS]
    assert metric(undisturbed, "train/grad_norm").keys() == {
        step for step in lost if lost[step] == before[step]
    }

    stop(bench.jobs.start(stopped, world), stopped, 3, signal.SIGUSR2)
    assert bench.jobs.run(stopped, world)["skipped"] == record["skipped"]
    assert starts(stopped)[-1]["from"] >= 3
    assert told(stopped) == told(undisturbed)


@in_fp16
def test_a_step_that_overflows_ends_a_run_that_may_lose_none(bench: Bench) -> None:
    """Without train.overflow: skip the first one is the end."""
    record = bench.jobs.run(bench.make(1, "fp16", train=OVERFLOWING))

    assert (record["outcome"], record["cause"], record["step"]) == (
        "failed",
        "diverged",
        1,
    )
    assert "step 1: DeepSpeed skipped the update" in record["evidence"]


@in_fp16
def test_the_whole_paper_preset_trains(bench: Bench) -> None:
    """fp16 from a loss scale of 6400, two virtual ranks, heads kept: every step is
    taken and the loss falls."""
    folder = bench.make(1, "fp16", train={"preset": "paper"}, state_every=None)
    record = bench.jobs.run(folder)
    loss = metric(folder, "loss")

    assert (record["outcome"], record["skipped"]) == ("done", 0)
    assert loss[STEPS] < 0.95 * loss[0]
