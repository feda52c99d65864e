"""How many test examples a second does zsg take the loss of, against
lm-evaluation-harness on the same items and model?

    python -m benchmarks.loglikelihood SHAPE TASKS REPEATS

Prints the items in a second of CPU time, of zsg and of the harness as JSON: real
`HFLM.loglikelihood`, by batches of one and of eight, of which the faster counts. Five
test examples of each task, which share the beginning that the real ones share. By turns
on one thread of one process; CPU time, as the machine may be shared. Losses must agree
to 1e-4.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.by_turns import by_turns
from benchmarks.trainers import tokenized
from benchmarks.workload import BOS, EOS, SHAPES, Item, make_model, test_items

BATCHES, SAME = (1, 8), 1e-4


def main(shape: str, tasks: int, repeats: int) -> None:
    """Measures by turns and prints."""
    import torch

    from jobs.evaluating.weight_swapper import become_sole_rank
    from jobs.model.answer_loss import AnswerLoss
    from jobs.model.packed_attention import NAME
    from jobs.runtime.ranks import Ranks
    from jobs.training.held_out import HeldOutLoss
    from zsg_core.training.schedule import MICRO_TOKENS

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the harness prints
    torch.set_num_threads(1)
    examples = test_items(SHAPES[shape], tasks)
    become_sole_rank()
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
    words = vocabulary(SHAPES[shape].vocab)
    calls: list[Callable[[], Any]] = [
        own.measure,
        *(harness(stock, words, examples, rows) for rows in BATCHES),
    ]
    seconds, worst = by_turns(calls, repeats, time.process_time, SAME)
    mine, *theirs = (len(examples) / statistics.median(taken) for taken in seconds)
    print(
        json.dumps({"zsg": mine, "harness": max(theirs), "worst": worst}), file=answers
    )


def harness(
    model: Any, words: Any, examples: list[Item], rows: int
) -> Callable[[], list[float]]:
    """The mean loss of each example's answer by `HFLM.loglikelihood`, in batches of so many."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    judged = HFLM(
        pretrained=model,
        tokenizer=words,
        batch_size=rows,
        max_length=2048,
        device="cpu",
    )
    asked = [
        Instance(
            "loglikelihood",
            {},
            (text(one.ids[: -one.answer]), f" {text(one.ids[-one.answer :])}"),
            number,
        )
        for number, one in enumerate(examples)
    ]

    def losses() -> list[float]:
        found = judged.loglikelihood(asked, disable_tqdm=True)
        return [
            -total / one.answer for (total, _), one in zip(found, examples, strict=True)
        ]

    return losses


def word(number: int) -> str:
    """What `vocabulary` calls a token. A special token's name must stand in no other's:
    it is looked for first."""
    return {BOS: "<s>", EOS: "</s>"}.get(number, f"w{number}")


def text(ids: list[int]) -> str:
    """Ids as a text whose words `vocabulary` turns into the same ids."""
    return " ".join(map(word, ids))


def vocabulary(size: int) -> Any:
    """A tokenizer of so many words, each a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(
        models.WordLevel(
            {word(number): number for number in range(size)}, unk_token=word(EOS)
        )
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bos, eos = word(BOS), word(EOS)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=bos, eos_token=eos, pad_token=eos
    )


if __name__ == "__main__":
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    main(sys.argv[1], *map(int, sys.argv[2:]))
