"""BLEURT-20 as a metric of every checkpoint: a plugin that holds a model.

Copy this file and bleurt.py beside a grid, say below where the port lies, and name both:

    plugins: [bleurt_metric.py, bleurt.py]
    defaults:
      checkpoints: {metrics: [loss, bleurt, bleurt_whole], snapshots: 100}

The model is loaded by the first checkpoint that is scored and kept for the others of the
job, beside the model that answers. `bleurt` is without the preamble of TELL's references,
`bleurt_whole` with it: see bleurt.py.

The digest of a plugin is of its text. So a change of FOLDER, of which port scores, is
told; other weights in the same folder are not.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from bleurt import cut_preamble, load_model, score_pairs
from transformers import AutoTokenizer

import zsg

FOLDER = "/models/BLEURT-20"


@cache
def open_scorer() -> tuple[Any, Any, str]:
    """The model, its tokenizer and the device on which it scores."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    return load_model(Path(FOLDER)).to(device), tokenizer, device


def score_best(pairs_of: Sequence[tuple[str, list[tuple[str, str]]]]) -> Iterator[Any]:
    """The id of each item with the best score of its pairs of reference and answer."""
    model, tokenizer, device = open_scorer()
    pairs = [pair for _, of_item in pairs_of for pair in of_item]
    scores = iter(score_pairs(model, tokenizer, pairs, device))
    for item, of_item in pairs_of:
        if of_item:
            yield item, max(next(scores) for _ in of_item)


@zsg.metric("bleurt")
def score_without_preamble(answers: Sequence[zsg.Answered]) -> Iterator[Any]:
    """BLEURT-20 of answers and references without what announces them."""
    pairs_of: list[tuple[str, list[tuple[str, str]]]] = []
    for one in answers:
        answer = cut_preamble(one.answer)
        pairs = [(cut_preamble(right), answer) for right in one.references]
        pairs_of.append((one.id, pairs))
    return score_best(pairs_of)


@zsg.metric("bleurt_whole")
def score_whole(answers: Sequence[zsg.Answered]) -> Iterator[Any]:
    """BLEURT-20 of the texts as they stand."""
    pairs_of = [
        (one.id, [(right, one.answer) for right in one.references]) for one in answers
    ]
    return score_best(pairs_of)
