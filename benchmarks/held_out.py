"""How many test examples a second does zsg take the loss of, against a plain loop with
Hugging Face's model?

    python -m benchmarks.held_out SHAPE REPEATS      prints items a second of zsg
        and of the faster plain loop, as JSON

What a training job does at each checkpoint, in one process: five examples of each of
twelve held-out tasks, which share the beginning that the real ones share. The plain
loop pads batches of eight, or takes one example at a time; the losses must agree.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.by_turns import by_turns
from benchmarks.trainers import tokenized
from benchmarks.workload import SHAPES, Item, make_model, test_items

TASKS, ROWS, SAME = 12, 8, 1e-3


def main(shape: str, repeats: int) -> None:
    """Measures by turns and prints."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import torch

    from jobs.model.answer_loss import AnswerLoss
    from jobs.model.packed_attention import NAME
    from jobs.runtime.ranks import Ranks
    from jobs.training.held_out import HeldOutLoss
    from zsg_core.training.schedule import MICRO_TOKENS

    examples = test_items(SHAPES[shape], TASKS)
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{Path(folder) / 'meeting'}",
            rank=0,
            world_size=1,
        )
        packed, stock = (
            make_model(SHAPES[shape], attention, torch.float32, "cpu")
            for attention in (NAME, "sdpa")
        )
        own = HeldOutLoss(
            AnswerLoss(packed),
            tokenized(examples),
            Ranks(0, 1, 0),
            "cpu",
            MICRO_TOKENS["cpu"],
        )
        calls: list[Callable[[], Any]] = [
            own.measure,
            *(lambda n=n: plain(stock, examples, n) for n in (1, ROWS)),
        ]
        seconds, _ = by_turns(calls, repeats, time.perf_counter, SAME)
        torch.distributed.destroy_process_group()
    mine, *plains = (len(examples) / statistics.median(taken) for taken in seconds)
    print(json.dumps({"zsg": mine, "plain": max(plains)}))


def plain(model: Any, examples: list[Item], rows: int) -> list[float]:
    """The mean loss of each example's answer, by batches of so many, padded to the
    longest of each."""
    import torch

    found = []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(examples), rows):
            batch = examples[start : start + rows]
            longest = max(len(one.ids) for one in batch)
            ids = torch.tensor(
                [one.ids + [0] * (longest - len(one.ids)) for one in batch]
            )
            mask = torch.tensor(
                [[1] * len(one.ids) + [0] * (longest - len(one.ids)) for one in batch]
            )
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for one, row in zip(batch, logits, strict=True):
                end, answer = len(one.ids), torch.tensor(one.ids[-one.answer :])
                found.append(
                    torch.nn.functional.cross_entropy(
                        row[end - one.answer - 1 : end - 1], answer
                    ).item()
                )
    return found


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
