"""What plan says of published models, from their config.json alone: counts as published, and
what they take on nodes of eight A800."""

import json
from pathlib import Path

import pytest

from launcher.planning.estimates import describe_shapes
from launcher.planning.memory_fit import Layout, Load, explain_misfit, smallest_change
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg
from tests.lib.published_decoders import PUBLISHED
from zsg_core.families.registry import shape_of_config
from zsg_core.training import estimate
from zsg_core.training.estimate import GB

MEMORY_GB, GPUS = 80, 8
TFLOPS, MFU = 312, 0.42  # of cluster_profiles/a800-80g.yaml
# of a run: full tuning in bf16
STEPS, BATCH, LENGTH = 1000, 128, 2048
PAGE = Path(__file__).parents[1] / "docs" / "published_models.md"


def make_load(name: str) -> Load:
    """Full tuning of a published model."""
    shape = shape_of_config(PUBLISHED[name].config)
    return Load(
        shape=shape,
        trained=shape.parameters,
        precision="bf16",
        batch=BATCH,
        max_length=LENGTH,
        budget=16_384,
    )


def describe(name: str) -> str:
    """The row of a model in the page's table."""
    load = make_load(name)
    asked = Layout(zero_stage=2, nodes=1, ranks_per_node=GPUS)
    fits = explain_misfit(load, asked, MEMORY_GB, "A800-80G", GPUS) is None
    layout = asked if fits else smallest_change(load, asked, MEMORY_GB, GPUS)
    assert layout is not None
    tokens = STEPS * BATCH * LENGTH
    flops = estimate.training_flops(load.shape, tokens, tokens * LENGTH)
    cells = [
        name,
        f"{load.shape.parameters:,}",
        f"{load.shape.active / 1e9:.2f}",
        "fits" if fits else f"{load.need(asked, MEMORY_GB) / GB:.1f} GB: does not fit",
        f"ZeRO {layout.zero_stage}, {layout.nodes} × {layout.ranks_per_node}",
        f"{load.tensors(layout).at_step / GB:.1f}",
        f"{load.activations(layout, MEMORY_GB) / GB:.1f}",
        f"{load.micro_tokens(layout, MEMORY_GB):,}",
        "yes" if load.recomputes(layout, MEMORY_GB) else "no",
        f"{estimate.gpu_hours(flops, TFLOPS, MFU):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_the_parameters_that_are_told_of_it(name):
    """From its config.json, with what its class takes where that says nothing."""
    published = PUBLISHED[name]
    shape = shape_of_config(published.config)

    assert shape.parameters == published.parameters
    assert published.active in (None, shape.active)


def test_mixtral_on_one_node_is_refused_with_the_smallest_change():
    """46.7 billion parameters under ZeRO 2 have no room; all experts count, chosen or not."""
    layout = Layout(zero_stage=2, nodes=1, ranks_per_node=GPUS)

    told = explain_misfit(make_load("Mixtral-8x7B"), layout, MEMORY_GB, "A800-80G", 8)

    assert told is not None
    assert "needs 198.5 GB on each GPU, but A800-80G has 80 GB" in told
    assert "deepspeed.zero_stage: 3 in the profile and resources.nodes: 2" in told


def test_active_parameters_are_told_of_a_model_with_experts():
    """Of one without there is nothing to say."""
    shapes = {name: make_load(name).shape for name in PUBLISHED}

    [told] = describe_shapes(shapes)

    assert "of Mixtral-8x7B's 46.70 billion 12.75 multiply a token" in told


def test_the_page_says_what_is_computed():
    """Each row of the table; this prints the rows that should stand there."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [describe(name) for name in PUBLISHED]

    assert all(row in page for row in rows), "\n".join(rows)


def test_a_config_alone_is_planned_and_not_submitted(zsg: Zsg) -> None:
    """Plan tells memory and hours from config.json; submit wants the weights."""
    write_niv2(zsg.folder / "data")
    folder = zsg.folder / "qwen"
    folder.mkdir()
    config = PUBLISHED["Qwen2.5-7B"].config
    (folder / "config.json").write_text(json.dumps(config))
    grid = zsg.write(
        "grid.yaml",
        "name: g\ndefaults:\n  data: {path: data, sampling: first}\n"
        "  model: {name: m, path: qwen}\n  train: {batch: 128, max_length: 2048}\n",
    )

    printed = zsg("plan", grid, "--memory", "--profile", "a800-80g", code=(0, 2))
    assert "7.62B" in printed
    assert "planned from config.json alone" in zsg.said

    zsg("submit", grid, "--profile", "a800-80g", code=2)
    assert "has no weights" in zsg.said
