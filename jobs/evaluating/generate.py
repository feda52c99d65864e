"""Makes a model's answers by transformers' generate: in batches of prompts that are about equally long.

Which prompts share a batch depends on their lengths alone, so that a checkpoint's answers are the same whoever makes
them, and whatever was answered before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from zsg_core import schedule
from zsg_core.digest import content_id

BATCH_TOKENS = {"cpu": 8192, "cuda": 65_536}  # prompts and answers of a batch together: their keys and values are kept
ATTENTION = "sdpa"

Ids = Sequence[int]


def batches(prompts: Sequence[Ids], most_new: int, budget: int) -> list[list[int]]:
    """Places of prompts, longest first, in groups of at most `budget` tokens with their answers."""
    lengths = [len(prompt) + most_new for prompt in prompts]
    return schedule.micro_batches(range(len(prompts)), lengths, budget)


class Generator:
    """Answers prompts with a Llama as its weights are at the moment. `how`: see GenerationSettings.how."""

    def __init__(self, llama: Any, how: Mapping[str, Any], bos: int, eos: int, device: str) -> None:
        self._llama, self._how, self._eos, self._device = llama, how, eos, device
        self._budget = BATCH_TOKENS[device.partition(":")[0]]
        self._config = GenerationConfig(
            max_new_tokens=how["max_new_tokens"], min_new_tokens=1 if how.get("not_empty") else None,
            do_sample=False, num_beams=1, bos_token_id=bos, eos_token_id=eos, pad_token_id=eos,
        )  # fmt: skip

    def answers(self, prompts: Sequence[Ids], names: Sequence[str]) -> list[list[int]]:
        """The tokens of each answer, without the end of sequence. `names` tell the items' draws apart.

        What would stand beyond the model's positions is left out, so a prompt that fills them has no answer.
        """
        made: list[list[int]] = [[] for _ in prompts]
        context = self._llama.config.max_position_embeddings
        asked = [place for place, prompt in enumerate(prompts) if len(prompt) < context]
        before = self._llama.config._attn_implementation, self._llama.generation_config
        self._llama.set_attn_implementation(ATTENTION)  # a padded batch is no packed row
        self._llama.generation_config = self._config  # else transformers takes what a model's folder suggests
        try:
            for batch in batches([prompts[place] for place in asked], self._how["max_new_tokens"], self._budget):
                places = [asked[number] for number in batch]
                of = self._batch([prompts[place] for place in places], [names[place] for place in places])
                for place, answer in zip(places, of, strict=True):
                    made[place] = answer[: context - len(prompts[place])]
        finally:
            self._llama.set_attn_implementation(before[0])
            self._llama.generation_config = before[1]
        return made

    @torch.no_grad()
    def _batch(self, prompts: Sequence[Ids], names: Sequence[str]) -> list[list[int]]:
        longest = max(map(len, prompts))
        padded = [[self._eos] * (longest - len(prompt)) + list(map(int, prompt)) for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        drawn = [] if self._how["decoding"] == "greedy" else [Nucleus(self._how, longest, names)]
        out = self._llama.generate(
            input_ids=torch.tensor(padded, device=self._device),
            attention_mask=torch.tensor(mask, device=self._device),
            generation_config=self._config, logits_processor=LogitsProcessorList(drawn),
        )  # fmt: skip
        return [self._cut(row[longest:].tolist()) for row in out]

    def _cut(self, answer: list[int]) -> list[int]:
        return answer[: answer.index(self._eos)] if self._eos in answer else answer


class Nucleus(LogitsProcessor):
    """Draws each item's next token from its own generator, and leaves no other choice to who asks for the likeliest.

    As the published code: first the penalty on tokens that were generated before, then the temperature, then of the
    likeliest tokens, at most `top_k`, the fewest that together have `top_p`.
    """

    def __init__(self, how: Mapping[str, Any], prompt_length: int, names: Sequence[str]) -> None:
        self._how, self._start = how, prompt_length
        seeds = [int(content_id({"draws": how["seed"], "item": name}), 16) for name in names]
        self._draws = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V) logits of the next token, after `input_ids` (B, T)."""
        logits = scores.double().cpu()
        generated = input_ids[:, self._start :].cpu()
        penalty, before = self._how.get("repetition_penalty", 1.0), logits.gather(1, generated)
        logits.scatter_(1, generated, torch.where(before > 0, before / penalty, before * penalty))
        ordered, places = (logits / self._how["temperature"]).softmax(-1).sort(dim=-1, descending=True, stable=True)
        ordered[:, self._how.get("top_k", logits.shape[1]) :] = 0.0
        ordered[ordered.cumsum(-1) - ordered >= self._how["top_p"]] = 0.0
        drawn = torch.stack([
            row_places[torch.multinomial(row, 1, generator=draw)]
            for row, row_places, draw in zip(ordered, places, self._draws, strict=True)
        ])  # fmt: skip
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn.to(scores.device), 0.0)
