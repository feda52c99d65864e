"""Scores answers that zsg exported by BLEURT-20: its PyTorch port, by transformers alone.

    zsg answers export GRID > answers.jsonl
    python bleurt.py answers.jsonl models/BLEURT-20 > scores.jsonl
    zsg score scores.jsonl

The folder is that of a port of BLEURT-20, a RemBERT with one number as its head, whose
weights are called `bleurt.…`; it has config.json, the weights and SentencePiece's
model. Of an item with several references the best counts; the score is the head's
number, about 0 to 1.

`bleurt` is of texts without the preamble that TELL's references begin with ("Sure, here
is the Icelandic translation:"), which is cut off both sides; `bleurt/whole` is with it.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, RemBertConfig, RemBertForSequenceClassification

MOST_TOKENS = 512
BATCH = 16
# the first line of an answer that announces the translation and is none of it
_PREAMBLE = re.compile(r"\A\s*sure[,!.][^\n]*:[ \t]*(?:\n\s*|\Z)", re.IGNORECASE)
# names of the port ↦ those of RemBERT in transformers
RENAMED = (
    ("bleurt.", "rembert."),
    ("embedding_projection", "embedding_hidden_mapping_in"),
)


def cut_preamble(text: str) -> str:
    """A text without a first line such as "Sure, here is the translation:"."""
    return _PREAMBLE.sub("", text, count=1)


def make_model(
    config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
) -> RemBertForSequenceClassification:
    """The model of a port's config and weights. RuntimeError where a weight is missing."""
    settings = dict(config)
    settings["input_embedding_size"] = settings.pop("embedding_size")
    model = RemBertForSequenceClassification(RemBertConfig(**settings, num_labels=1))
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if name.endswith("position_ids"):
            continue
        for old, new in RENAMED:
            name = name.replace(old, new)
        renamed[name] = tensor
    model.load_state_dict(renamed)
    return model.eval()


def load_model(folder: Path) -> RemBertForSequenceClassification:
    """The model of a folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {
        key: value
        for key, value in config.items()
        if key
        not in ("architectures", "model_type", "auto_map", "transformers_version")
    }
    file = folder / "model.safetensors"
    if file.exists():
        from safetensors.torch import load_file

        return make_model(config, load_file(file))
    file = folder / "pytorch_model.bin"
    return make_model(config, torch.load(file, map_location="cpu", weights_only=True))


@torch.no_grad()
def score_pairs(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], device: str
) -> list[float]:
    """The score of each (reference, candidate): [CLS] reference [SEP] candidate [SEP]."""
    scores: list[float] = []
    for first in range(0, len(pairs), BATCH):
        batch = pairs[first : first + BATCH]
        encoded = tokenizer(
            [reference for reference, _ in batch],
            [candidate for _, candidate in batch],
            truncation=True,
            max_length=MOST_TOKENS,
            padding=True,
            return_tensors="pt",
        ).to(device)
        scores += model(**encoded).logits.squeeze(-1).tolist()
    return scores


def list_pairs(
    answer: Mapping[str, Any], *, is_whole: bool
) -> Iterator[tuple[str, str]]:
    """An answer beside each of its references."""
    for reference in answer["references"]:
        texts = reference, answer["answer"]
        yield texts if is_whole else (cut_preamble(texts[0]), cut_preamble(texts[1]))


def score_answers(
    answers: Sequence[Mapping[str, Any]], model: Any, tokenizer: Any, device: str
) -> Iterator[dict[str, Any]]:
    """The scores of exported answers, in the form that `zsg score` reads; none of an
    answer without references."""
    for metric, is_whole in (("bleurt", False), ("bleurt/whole", True)):
        pairs: list[tuple[str, str]] = []
        counts: list[int] = []
        for answer in answers:
            own = list(list_pairs(answer, is_whole=is_whole))
            pairs += own
            counts.append(len(own))
        scores = iter(score_pairs(model, tokenizer, pairs, device))
        for answer, count in zip(answers, counts, strict=True):
            if not count:
                continue
            best = max(next(scores) for _ in range(count))
            same = {key: answer[key] for key in ("run", "step", "suite", "id")}
            yield {**same, "metric": metric, "score": best}


def main() -> None:
    """Reads answers, prints scores."""
    parser = argparse.ArgumentParser(
        description="Scores exported answers by BLEURT-20."
    )
    parser.add_argument("answers", type=Path, help="what `zsg answers export` printed")
    parser.add_argument("model", type=Path, help="a folder with BLEURT-20 for PyTorch")
    given = parser.parse_args()
    lines = given.answers.read_text(encoding="utf-8").split("\n")
    answers = [json.loads(line) for line in lines if line.strip()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(given.model).to(device)
    tokenizer = AutoTokenizer.from_pretrained(given.model, local_files_only=True)
    for score in score_answers(answers, model, tokenizer, device):
        sys.stdout.write(json.dumps(score) + "\n")


if __name__ == "__main__":
    main()
