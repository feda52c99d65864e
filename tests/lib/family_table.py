"""Makes docs/models.md's table of families: `python -m tests.lib.family_table`.

Each row is found, not written: a tiny model of the family is proven, its item losses
are compared with those of transformers' own eager attention, and plan's count with the
model's own. A real run trains it for a few steps, and once more, killed and resumed;
transformers reads its snapshot.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.contract.model_proof import PACKED, REFUSED
from jobs.model import architecture, packed_attention
from jobs.model.answer_loss import AnswerLoss, choose_batching
from jobs.model.attention_proof import prove_attention
from tests.lib.family_runs import (
    STEPS,
    FamilyRuns,
    find_difference,
    read_last_losses,
    reload_folder,
)
from tests.lib.forked_jobs import ForkedJobs, JobServer
from tests.lib.tiny_families import FAMILIES, VOCABULARY, make_config, make_model
from tests.lib.train_bench import Bench
from zsg_core.families.registry import find_family, shape_of_config

PAGE = Path("docs/models.md")
BEGIN, END = "<!-- made by the tests: families -->\n", "<!-- end -->\n"
HEAD = (
    "| `model_type` | examples in a batch | item losses are Hugging Face's | plan counts from"
    " | killed and resumed | snapshot read again |\n"
    "|---|---|---|---|---|---|\n"
)

# all of them longer than the tiny models' windows of 8
LENGTHS = (41, 90, 63)
# of a loss, by which ours may differ: rounding of fp32 through four layers
LOSS_TOLERANCE = 1e-5
# families of which no tiny config is kept: as the class has it by default, made small
OTHERS = ("mamba", "lfm2", "jamba", "falcon_h1", "qwen3_next", "llama4_text")


def make_row(family: str, runs: FamilyRuns) -> str:
    """What is true of a family, as a row of the table; `runs` trains it."""
    if family in OTHERS:
        return _make_short_row(family)
    config = make_config(family)
    proof = prove_attention(config)
    difference = compare_losses(family, proof.batching)
    exactness = "to 1e-5" if difference <= LOSS_TOLERANCE else "to 2e-4"
    assert difference <= 2e-4, f"{family}: losses are {difference:.2g} off"
    source, resumed = _count(config), _resume(family, runs)
    return f"| `{family}` | {proof.batching} | {exactness} | {source} | {resumed} |\n"


def _make_short_row(family: str) -> str:
    from transformers import CONFIG_MAPPING

    proof = prove_attention(CONFIG_MAPPING[family](**_kinds(family)))
    means = "not trained" if proof.batching == REFUSED else "not tried"
    source = "config.json" if find_family({"model_type": family}) else "the tensors"
    untried = "not tried | not tried"
    return f"| `{family}` | {proof.batching} | {means} | {source} | {untried} |\n"


def _kinds(family: str) -> dict[str, Any]:
    """LFM2's class has no convolution in it unless it is told."""
    layers = ["conv", "conv", "full_attention"] * 4
    return {"layer_types": layers, "num_hidden_layers": 12} if family == "lfm2" else {}


def _count(config: Any) -> str:
    """Whether plan counts a family from its config alone; then it must be exact."""
    fields = config.to_dict()
    if find_family(fields) is None:
        return "the tensors"
    model = architecture.make_skeleton(config, torch.float32, "eager")
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert shape_of_config(fields).parameters == expected, config.model_type
    return "config.json"


def _resume(family: str, runs: FamilyRuns) -> str:
    """How a run that was killed and resumed ends beside one that was not, and what its
    last snapshot is to transformers: two cells of the table, if all is well."""
    base = runs.make_base(family, f"{family}-base")
    run = runs.make(base)
    undisturbed = runs.train_both_ways(run)
    differing = find_difference(run, undisturbed)
    assert not differing, f"{family}: a resumed run differs in {differing}"
    trained = read_last_losses(run)
    before, after = (
        reload_folder(folder, run) for folder in (base, run / f"snapshots/{STEPS}")
    )
    assert not after.strange, f"{family}: {after.strange}"
    assert after.class_name == before.class_name
    assert after.tensors == before.tensors, f"{family}: other names than were published"
    assert np.abs(before.losses / trained - 1).max() > 1e-2, "it has learnt nothing"
    furthest = np.abs(after.losses / trained - 1).max()
    assert furthest <= LOSS_TOLERANCE, f"{family}: losses are {furthest:.2g} off"
    return "to the bit | class, names, losses"


def compare_losses(family: str, batching: str) -> float:
    """The largest difference of an item's loss to the one that transformers computes of
    it alone, as a share of it."""
    eager = make_model(family)
    attention = packed_attention.NAME
    if batching != PACKED:
        attention = architecture.choose_attention(type(eager))
    ours = architecture.find_class(eager.config)._from_config(
        make_config(family), dtype=torch.float32, attn_implementation=attention
    )
    ours.load_state_dict(eager.state_dict())
    texts = _draw_texts()
    found = compute_losses(AnswerLoss(ours.eval(), choose_batching(ours)), texts)
    expected = torch.tensor([_compute_alone(eager, text) for text in texts])
    return ((found - expected).abs() / expected).max().item()


def _draw_texts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(5, VOCABULARY, (n,), generator=generator) for n in LENGTHS]


@torch.no_grad()
def compute_losses(model: AnswerLoss, texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Each text's loss over its second half, all in one micro-batch."""
    lengths = [len(text) for text in texts]
    starts = [sum(lengths[:number]) for number in range(len(texts))]
    predicting = [
        torch.arange(start + length // 2 - 1, start + length - 1)
        for start, length in zip(starts, lengths, strict=True)
    ]
    owners = [torch.full((len(p),), number) for number, p in enumerate(predicting)]
    tokens = torch.cat(list(texts))
    places = torch.cat(predicting)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return model(
        tokens, positions, lengths, places, tokens[places + 1], torch.cat(owners)
    )


@torch.no_grad()
def _compute_alone(model: Any, text: torch.Tensor) -> float:
    """The same by the class's own loss, which is a mean."""
    labels = text.clone()
    labels[: len(text) // 2] = -100
    loss = model(input_ids=text[None], labels=labels[None], use_cache=False).loss
    return float(loss) * (len(text) - len(text) // 2)


def list_families() -> list[str]:
    """All families of the table, in its order."""
    return [*FAMILIES, *OTHERS]


def main() -> None:
    """Writes the table anew into the page."""
    warnings.simplefilter("ignore")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with JobServer(folder / "socket") as server:
            bench = Bench(folder, ForkedJobs(server))
            runs = FamilyRuns(bench)
            rows = "".join(make_row(family, runs) for family in list_families())
            bench.jobs.stop()
    PAGE.write_text(f"{before}{BEGIN}\n{HEAD}{rows}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
