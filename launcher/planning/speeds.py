"""How fast runs have trained here: what a grid's first run has measured, by what it takes to train.

<workspace>/speeds/<id>.json   tokens_per_s of all ranks together, and the run that
                               measured it; written by
                               jobs.runtime.canary
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.contract.folder import read_json
from launcher.clusters.profiles import Gpu
from launcher.planning.memory_fit import Layout, Load
from zsg_core.digest import content_id

# what a shape has beside the sizes of a Llama
BEYOND_LLAMA = ("family", "kinds", "outside", "names", "known")


@dataclass(frozen=True)
class Speed:
    """Real tokens a second in training, of all ranks together."""

    run: str
    tokens_per_s: float


def name_speed_item(load: Load, layout: Layout, gpu: Gpu | None) -> str:
    """Where the speed is kept of whatever trains the same model in the same way on as
    many of the same GPUs."""
    facts = [_describe_load(load), _describe_layout(layout), gpu and gpu.name]
    return f"speeds/{content_id(facts)}.json"


def _describe_load(load: Load) -> dict[str, Any]:
    """A load's facts: of a shape the sizes that a Llama has, and of another family its
    name and its kinds of layers. Where it is trained the layout tells."""
    facts: dict[str, Any] = asdict(load)
    del facts["device"]
    if not facts["dropping"]:  # speeds measured before it was told keep their names
        del facts["dropping"]
    shape = facts["shape"]
    beyond_llama = {name: shape.pop(name) for name in BEYOND_LLAMA}
    if load.shape.family != "llama":
        shape |= beyond_llama
    return facts


def _describe_layout(layout: Layout) -> dict[str, int]:
    """A layout's facts. What is not set is not among them: speeds that an older zsg
    measured keep their names."""
    facts: dict[str, int | None] = asdict(layout)
    return {name: value for name, value in facts.items() if value is not None}


def read_speed(root: Path, load: Load, layout: Layout, gpu: Gpu | None) -> Speed | None:
    """The speed that was measured; None if none was."""
    record = read_json(root / name_speed_item(load, layout, gpu))
    return Speed(record["run"], record["tokens_per_s"]) if record else None
