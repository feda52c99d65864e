"""How many test items a second are scored, with what they share computed once, without, and by a plain loop?

    python -m benchmarks.held_out --data FOLDER --json

Natural Instructions in its official layout: up to five examples of each held-out task, two positive examples each,
and a random Llama of 5.8 million weights in fp32. The peer is the loop that one writes with transformers: eight items
at a time, padded, logits of every token. All by turns in one process; the best of so many counts.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, show
from zsg_core import prompts, readers, splits
from zsg_core.examples import Example
from zsg_core.prompts import Encoded, Template
from zsg_core.readers.intake import Intake

BASE = {"vocab": 4096, "hidden": 256, "layers": 6, "heads": 8, "context": 1024, "seed": 0}
TEMPLATE, PER_TASK, BUDGET, PADDED = Template("zsg", 2), 5, 4096, 8
GOAL = 2.0  # times the peer


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.held_out", description="How fast test items score.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--data", type=Path, required=True, help="a folder of Natural Instructions")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    os.environ["DS_ACCELERATOR"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        show(measure(asked.data, Path(folder) / "base", asked.repeats), asked.json)


def measure(data: Path, folder: Path, repeats: int) -> list[Row]:
    """The rows; `folder` takes the model. Raises AssertionError if the three do not agree to 1e-5."""
    import torch
    import torch.distributed as dist
    from transformers import LlamaForCausalLM

    from jobs.answer_loss import AnswerLoss
    from jobs.base_model import load_model, load_vocabulary, make_tiny
    from jobs.batches import TokenizedSet
    from jobs.held_out import HeldOutLoss
    from jobs.ranks import Ranks
    from jobs.train_sets import encoder

    train, test = _examples(data)
    make_tiny(folder, BASE, prompts.training_texts(train, TEMPLATE))
    encode = encoder(load_vocabulary(folder), TEMPLATE, BASE["context"])
    items = TokenizedSet([e.id for e in test], [encode(e) for e in test], [e.task for e in test])
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    model, stock = AnswerLoss(load_model(folder, "fp32")), LlamaForCausalLM.from_pretrained(folder).eval()
    ours, apart = (HeldOutLoss(model, items, Ranks(0, 1, 0), "cpu", BUDGET, sharing=s) for s in (True, False))
    ways = (ours.measure, apart.measure, lambda: _padded(stock, items.encoded))
    taken = [[_timed(way) for way in ways] for _ in range(repeats)]
    dist.destroy_process_group()
    for _, means in taken[0][1:]:
        assert torch.allclose(taken[0][0][1], means, rtol=1e-5, atol=0)
    speeds = [len(test) / min(seconds for seconds, _ in column) for column in zip(*taken, strict=True)]
    counts = [held_out.token_counts["sum"] for held_out in (ours, apart)]
    goals = [Row(f"{len(test)} items, {name}", speed, "1/s", speeds[2], GOAL * speeds[2], speed >= GOAL * speeds[2])
             for name, speed in zip(("prefixes shared", "each alone"), speeds, strict=False)]  # fmt: skip
    return [*goals, Row("tokens computed", counts[0], "", counts[1], None, None)]


def _examples(data: Path) -> tuple[Sequence[Example], Sequence[Example]]:
    lists, of_task = readers.lists("niv2", data) or {}, dict[str, list[Example]]()
    for example in readers.read("niv2", data, Intake()):
        of_task.setdefault(example.task, []).append(example)
    test = [e for name in lists["test"] for e in splits.cap(of_task.get(name, []), PER_TASK, "random", 0, name)]
    return [e for name in lists["train"] for e in of_task.get(name, [])[:10]], test


def _timed(way: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    means = way()
    return time.perf_counter() - began, means


def _padded(model: Any, items: Sequence[Encoded]) -> Any:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    means: list[float] = []
    for start in range(0, len(items), PADDED):
        part = items[start : start + PADDED]
        labels = [torch.full((len(item.ids),), -100) for item in part]
        for label, item in zip(labels, part, strict=True):
            for first, stop in item.spans:
                label[first:stop] = torch.tensor(item.ids[first:stop])
        tokens = pad_sequence([torch.tensor(item.ids) for item in part], batch_first=True)
        seen = pad_sequence([torch.ones(len(item.ids), dtype=torch.long) for item in part], batch_first=True)
        wanted = pad_sequence(labels, batch_first=True, padding_value=-100)[:, 1:]
        with torch.no_grad():
            logits = model(input_ids=tokens, attention_mask=seen).logits[:, :-1]
        nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        means += (nll.sum(1) / (wanted != -100).sum(1)).tolist()
    return torch.tensor(means, dtype=torch.float64)


if __name__ == "__main__":
    main()
