"""Does a run's DeepSpeed JSON say everything that matters, and nothing that DeepSpeed
would pass over in silence?"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.deepspeed_config import (
    build_deepspeed_config,
    check_deepspeed_config,
)
from zsg_core.errors import UserError

ALLOWED = [
    (stage, precision) for stage in range(4) for precision in ("bf16", "fp16", "fp32")
]
ALLOWED = [
    (stage, precision) for stage, precision in ALLOWED if stage or precision == "fp32"
]


def config(stage: int = 1, precision: str = "bf16") -> dict[str, Any]:
    """A configuration."""
    return build_deepspeed_config(
        zero_stage=stage, precision=precision, clip=0.5, loss_scale=6400.0
    )


def test_a_second_copy_is_told_where_there_is_one() -> None:
    """Else the JSON is as it was."""
    without = build_deepspeed_config(zero_stage=3, precision="bf16", clip=1.0)
    copied = build_deepspeed_config(
        zero_stage=3, precision="bf16", clip=1.0, hpz_ranks=8
    )

    assert without["zero_optimization"]["zero_hpz_partition_size"] == 1
    without["zero_optimization"]["zero_hpz_partition_size"] = 8
    assert copied == without


@pytest.mark.parametrize(("stage", "precision"), ALLOWED)
def test_deepspeed_reads_it_as_it_is_meant(stage: int, precision: str) -> None:
    """DeepSpeed's own models take every part, and hold no other value than the JSON states."""
    from deepspeed.runtime.precision_config import (
        DeepSpeedBF16Config,
        DeepSpeedFP16Config,
    )
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    made = config(stage, precision)
    models = {
        "bf16": DeepSpeedBF16Config,
        "fp16": DeepSpeedFP16Config,
        "zero_optimization": DeepSpeedZeroConfig,
    }
    for part, model in models.items():
        read = model(**made[part]).model_dump(by_alias=True)
        assert {key: read[key] for key in made[part]} == made[part]
    assert (made["bf16"]["enabled"], made["fp16"]["enabled"]) == (
        precision == "bf16",
        precision == "fp16",
    )
    assert (
        made["communication_data_type"]
        == made["data_types"]["grad_accum_dtype"]
        == precision
    )
    assert made["zero_optimization"]["overlap_comm"] == (stage == 3)
    assert made["gradient_clipping"] == 0.5


GOLDEN = sorted((Path(__file__).parent / "golden/deepspeed").glob("*.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_json_stays_as_it_was(path: Path) -> None:
    """Each combination of ZeRO stage, precision and clipping is written byte for byte
    as its golden file, and taken as it is read."""
    stage, precision, *clip = path.stem.removeprefix("zero").split("-")

    made = build_deepspeed_config(
        zero_stage=int(stage),
        precision=precision,
        clip=float(clip[-1]) if clip else 1.0,
        loss_scale=6400.0 if precision == "fp16" and not clip else None,
    )

    assert json.dumps(made, indent=1) + "\n" == path.read_text()
    assert check_deepspeed_config(json.loads(path.read_text())) == made


def test_every_combination_has_a_golden_file() -> None:
    """All that a profile can ask for is held."""
    combinations = {f"zero{stage}-{precision}" for stage, precision in ALLOWED}
    assert {path.stem.partition("-clip")[0] for path in GOLDEN} == combinations


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_stage_0_trains_in_fp32_only(precision: str) -> None:
    """In 16 bits its result differs from that of stages 1 to 3."""
    with pytest.raises(UserError, match=f"zero_stage 0 cannot train in {precision}"):
        config(0, precision)


def changed(place: str, key: str, new: str | None, value: Any = None) -> dict[str, Any]:
    """A configuration of stage 3 in which a key has another name, is gone (None), or
    has another value."""
    made = copy.deepcopy(config(3))
    part = made[place] if place else made
    old = part.pop(key)
    return (
        made
        if new is None
        else made | {place: part | {new: value}}
        if place
        else made | {new: value or old}
    )


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        pytest.param(
            changed("", "gradient_clipping", "gradient_cliping"),
            "unknown key 'gradient_cliping'. Did you mean 'gradient_clipping'",
            id="misspelt at the top",
        ),
        pytest.param(
            changed("", "bf16", "bf17"),
            "unknown key 'bf17'. Did you mean 'bf16'",
            id="a precision",
        ),
        pytest.param(
            changed("zero_optimization", "overlap_comm", "overlap_com", True),
            "'overlap_com' in zero_optimization. Did you mean 'overlap_comm'",
            id="misspelt within",
        ),
        pytest.param(
            changed("", "gradient_clipping", None),
            "gradient_clipping is missing",
            id="left to a default",
        ),
        pytest.param(
            changed("zero_optimization", "sub_group_size", None),
            "sub_group_size is missing",
            id="a key of stage 3",
        ),
        pytest.param(
            changed("zero_optimization", "stage", "stage", 2),
            "unknown key 'sub_group_size'",
            id="another stage",
        ),
        pytest.param(
            changed("", "gradient_allreduce_op", "gradient_allreduce_op", "sum"),
            "gradient_allreduce_op: must be 'mean', found 'sum'",
            id="a sum over ranks",
        ),
        pytest.param(
            changed("bf16", "bf16_optimizer_states", "bf16_optimizer_states", True),
            "bf16.bf16_optimizer_states: must be false, found true",
            id="moments in 16 bits",
        ),
    ],
)
def test_an_edited_configuration_is_refused(
    edited: dict[str, Any], message: str
) -> None:
    """A key that is unknown, missing or would make other numbers is named, with the
    nearest that is known."""
    with pytest.raises(UserError, match="job.json, deepspeed: .*" + message):
        check_deepspeed_config(edited)
