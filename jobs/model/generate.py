"""Makes a model's answers by transformers' generate: in batches of prompts that are
about equally long.

Which prompts share a batch depends on their lengths and, on a GPU, on its memory (see
jobs.model.batch_budget), and on nothing that was answered before. An answer depends on
its batch by rounding alone.

An answer may be over at a text that `how` names, a stop, whatever tokens it is made of.
It is looked for in the text of the whole answer, by that answer alone; that generation
ends early where all answers are over saves time, and no more.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from jobs.model import batch_budget
from jobs.model.architecture import choose_attention
from jobs.model.batch_budget import BatchBudget
from jobs.runtime import devices
from zsg_core.digest import content_id
from zsg_core.errors import UserError
from zsg_core.families.registry import position_count
from zsg_core.metrics.reasoning import Marks, find_answer
from zsg_core.suites import BY_NUMBER, NUCLEUS, find_marks

LOOKED_EVERY = 8  # tokens, for a stop while answers are made: to look costs time, too
# Of the likeliest token, as a whole number; those of a vocabulary of 2^23 add up in 64 bits.
LIKELIEST = 2.0**40
# tokens' weights that are there at once: 32 MB for each of a dozen tensors
MOST_WEIGHTS = 4_000_000

LONGEST_MARK = 256  # tokens of a prompt's end that are looked at for a mark

Ids = Sequence[int]
Text = Callable[[Ids], str]  # of an answer's tokens
FindTokens = Callable[[torch.Tensor], torch.Tensor]


def cut_at_stops(
    text: str, stops: Sequence[str], marks: Marks | None = None, before: str = ""
) -> str:
    """A text up to the first of the stops in it; whole where there is none. `marks`:
    between which texts it has thoughts, in which a stop ends nothing; `before`: the
    prompt, in which a thought may have begun."""
    begin, end = (0, len(text)) if marks is None else find_answer(text, marks, before)
    ends = [
        position for stop in stops if (position := text.find(stop, begin, end)) >= 0
    ]
    return text[: min(ends, default=len(text))]


@lru_cache(maxsize=8)
def find_completing_tokens(
    text: Text, stops: tuple[str, ...], size: int
) -> frozenset[int] | None:
    """Of a vocabulary of `size` those tokens that hold the last letter of a stop:
    without one, a text has no stop.

    None where a token alone does not tell it, of a blank, which some tokenizers take
    off, and beyond ASCII.
    """
    last = {stop[-1] for stop in stops}
    if any(letter.isspace() or not letter.isascii() for letter in last):
        return None
    return frozenset(
        token for token in range(size) if not last.isdisjoint(text([token]))
    )


class Generator:
    """Answers prompts with a model as its weights are at the moment. `how`: see
    GenerationSettings.how.

    Its `ends` are tokens at which an answer is over, as at `eos`, the end of sequence;
    its `stops` are texts at which one is: where there are some, `text` says what tokens
    are as a text. `budget`: of its batches; generators of one model may
    share one.
    """

    def __init__(
        self,
        model: Any,
        how: Mapping[str, Any],
        bos: int | None,
        eos: int,
        device: str,
        text: Text | None = None,
    ) -> None:
        self._model, self._how, self._eos, self._device = model, how, eos, device
        self._ends = frozenset({eos, *how.get("ends", ())})
        self._stops: Sequence[str] = how.get("stops", ())
        self._marks = find_marks(how)
        if self._stops and text is None:
            raise ValueError(
                "to find stops in answers, what their tokens are as a text must be known"
            )
        self._text: Text = text or (lambda ids: "")
        size = model.config.vocab_size
        self._completing = (
            find_completing_tokens(self._text, tuple(self._stops), size)
            if self._stops
            else frozenset[int]()
        )
        self._context = count_positions(model.config)
        self.budget = BatchBudget(model, device)
        self._config = GenerationConfig(
            max_new_tokens=how["max_new_tokens"],
            min_new_tokens=1 if how.get("not_empty") else None,
            do_sample=False,
            num_beams=1,
            bos_token_id=bos,
            eos_token_id=sorted(self._ends),
            pad_token_id=eos,
        )

    def answers(self, prompts: Sequence[Ids], names: Sequence[str]) -> list[list[int]]:
        """The tokens of each answer, without the end of sequence. `names` tell the
        items' draws apart.

        An answer with a stop in it ends with the token that completes the first. What
        would stand beyond the model's positions is left out, so a prompt that fills
        them has no answer: see `fits`.
        """
        answers_of: list[list[int]] = [[] for _ in prompts]
        fitting = [index for index, prompt in enumerate(prompts) if self.fits(prompt)]
        before = self._model.config._attn_implementation, self._model.generation_config
        # a padded batch is no packed row
        self._model.set_attn_implementation(choose_attention(type(self._model)))
        # else transformers takes what a model's folder suggests
        self._model.generation_config = self._config
        try:
            for index, answer in self._answer_batches(prompts, names, fitting):
                answers_of[index] = self._stopped(
                    answer[: self._context - len(prompts[index])],
                    self._read_end(prompts[index]),
                )
        finally:
            self._model.set_attn_implementation(before[0])
            self._model.generation_config = before[1]
        return answers_of

    def plan_batches(self, prompts: Sequence[Ids]) -> list[list[int]]:
        """Places of prompts, longest first, in the batches in which they are answered."""
        budget = self.choose_tokens(prompts)
        rows = self._row_lengths(prompts)
        return batch_budget.plan_batches(rows, budget, self.budget.is_padded)

    def choose_tokens(self, prompts: Sequence[Ids]) -> int:
        """The most tokens of a batch of these prompts, with their answers."""
        return self.budget.choose_tokens(self._row_lengths(prompts))

    def _row_lengths(self, prompts: Sequence[Ids]) -> list[int]:
        return [len(prompt) + self._how["max_new_tokens"] for prompt in prompts]

    def _answer_batches(
        self, prompts: Sequence[Ids], names: Sequence[str], fitting: Sequence[int]
    ) -> Iterable[tuple[int, list[int]]]:
        """The answers to the prompts at `fitting`, each with its index."""
        waiting = deque(self._plan_indices(prompts, fitting))
        while waiting:
            indices = waiting.popleft()
            batch = [prompts[index] for index in indices]
            answers = batch_budget.compute_unless_too_much(
                partial(self._batch, batch, [names[index] for index in indices]),
                self._advise(batch[0]) if len(batch) == 1 else None,
            )
            if answers is not None:
                yield from zip(indices, answers, strict=True)
                continue
            longest = max(map(len, batch)) + self._how["max_new_tokens"]
            self.budget.halve(len(batch), len(batch) * longest)
            remaining = [index for planned in (indices, *waiting) for index in planned]
            waiting = deque(self._plan_indices(prompts, remaining))

    def _plan_indices(
        self, prompts: Sequence[Ids], indices: Sequence[int]
    ) -> list[list[int]]:
        planned = self.plan_batches([prompts[index] for index in indices])
        return [[indices[number] for number in batch] for batch in planned]

    def _advise(self, prompt: Ids) -> str:
        """What to do where not even one prompt can be answered."""
        gpus = self.budget.gpus
        return (
            f"out of GPU memory with one prompt of {len(prompt)} tokens and up to"
            f" {self._how['max_new_tokens']} of its answer: spread the model over more than"
            f" {gpus} GPU{'s' * (gpus > 1)} (evaluate.gpus in the profile), or lower"
            " max_new_tokens"
        )

    def fits(self, prompt: Ids) -> bool:
        """Whether there is something to answer, and a position left for the answer."""
        return 0 < len(prompt) < self._context

    def is_cut(self, prompt: Ids, answer: Ids) -> bool:
        """Whether an answer has all the tokens that it may have, and neither the end of
        sequence nor a stop."""
        max_length = min(self._how["max_new_tokens"], self._context - len(prompt))
        if len(answer) < max_length:
            return False
        return not self._has_stop(answer, self._read_end(prompt))

    def _read_end(self, prompt: Ids) -> str:
        """The end of a prompt as a text, in which a thought may have begun; empty where
        no stop is looked for outside of thoughts."""
        if not self._stops or self._marks is None:
            return ""
        return self._text(prompt[-LONGEST_MARK:])

    def _has_stop(self, answer: Ids, before: str = "") -> bool:
        if self._completing is not None and self._completing.isdisjoint(answer):
            return False
        text = self._text(answer)
        return cut_at_stops(text, self._stops, self._marks, before) != text

    def _stopped(self, answer: list[int], before: str) -> list[int]:
        """The answer up to the token that completes a stop."""
        if not self._has_stop(answer, before):
            return answer
        too_few, enough = 0, len(answer)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            too_few, enough = (
                (too_few, middle)
                if self._has_stop(answer[:middle], before)
                else (middle, enough)
            )
        return answer[:enough]

    @torch.no_grad()
    def _batch(self, prompts: Sequence[Ids], names: Sequence[str]) -> list[list[int]]:
        """The answers to prompts that are generated together: padded on the left, each
        drawn by its own name, cut at their ends."""
        longest = max(map(len, prompts))
        padded = [
            [self._eos] * (longest - len(prompt)) + list(map(int, prompt))
            for prompt in prompts
        ]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        drawing = choose_drawing(self._how["decoding"], self._how.get("drawn"))
        drawn = [drawing(self._how, longest, names)] if drawing else []
        # tokens, of at least a byte each
        before = max((len(stop.encode()) for stop in self._stops), default=0)
        if self._marks:  # whether a stop is within a thought, the whole answer tells
            before = self._how["max_new_tokens"]
        over: list[AtStops] = []
        if self._stops:
            ends = [self._read_end(prompt) for prompt in prompts]
            over = [AtStops(self._has_stop, longest, before, ends)]
        out = self._model.generate(
            input_ids=torch.tensor(padded, device=self._device),
            attention_mask=torch.tensor(mask, device=self._device),
            generation_config=self._config,
            logits_processor=LogitsProcessorList(drawn),
            stopping_criteria=StoppingCriteriaList(over),
        )
        for processor in drawn:
            if isinstance(processor, NumberedNucleus):
                processor.refuse_broken()
        return [self._cut(row[longest:].tolist()) for row in out]

    def _cut(self, answer: list[int]) -> list[int]:
        for length, token in enumerate(answer):
            if token in self._ends:
                return answer[:length]
        return answer


def count_positions(config: Any) -> int:
    """How many tokens a model sees at once, prompt and answer together."""
    positions = getattr(config, "max_position_embeddings", None)
    return positions or position_count(config.to_dict())


class AtStops(StoppingCriteria):
    """Says, every so many tokens, which answers of a batch have a stop in what is new of them.

    `before`: the most tokens that a stop is made of; `ends`: the ends of the prompts as
    texts, which are told to `has_stop`.
    """

    def __init__(
        self,
        has_stop: Callable[[Ids, str], bool],
        prompt_length: int,
        before: int,
        ends: Sequence[str],
    ) -> None:
        self._has_stop, self._start, self._before = has_stop, prompt_length, before
        self._ends = ends

    def __call__(self, input_ids: torch.Tensor, scores: Any, **unused: Any) -> Any:
        """(B,) bool of `input_ids` (B, T)."""
        length = input_ids.shape[1]
        if (length - self._start) % LOOKED_EVERY:
            return torch.zeros(
                len(input_ids), dtype=torch.bool, device=input_ids.device
            )
        begin = max(self._start, length - LOOKED_EVERY - self._before)
        rows = input_ids[:, begin:].tolist()
        stopped = list(map(self._has_stop, rows, self._ends))
        return torch.tensor(stopped, dtype=torch.bool, device=input_ids.device)


class Nucleus(LogitsProcessor):
    """Draws each item's next token from its own generator on the CPU, as an older zsg
    did, and leaves no other choice to who asks for the likeliest.

    As the published code: first the penalty on tokens that were generated before, then
    the temperature, then of the likeliest tokens, at most `top_k`, the fewest that
    together have `top_p`.
    """

    def __init__(
        self, how: Mapping[str, Any], prompt_length: int, names: Sequence[str]
    ) -> None:
        self._how, self._start = how, prompt_length
        self._draws = _draws(how["seed"], names)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V) logits of the next token, after `input_ids` (B, T)."""
        logits = scores.double().cpu()
        generated = input_ids[:, self._start :].cpu()
        penalty, before = (
            self._how.get("repetition_penalty", 1.0),
            logits.gather(1, generated),
        )
        logits.scatter_(
            1, generated, torch.where(before > 0, before / penalty, before * penalty)
        )
        ordered, token_ids = (
            (logits / self._how["temperature"])
            .softmax(-1)
            .sort(dim=-1, descending=True, stable=True)
        )
        ordered[:, self._how.get("top_k", logits.shape[1]) :] = 0.0
        ordered[ordered.cumsum(-1) - ordered >= self._how["top_p"]] = 0.0
        drawn = torch.stack(
            [
                row_places[torch.multinomial(row, 1, generator=draw)]
                for row, row_places, draw in zip(
                    ordered, token_ids, self._draws, strict=True
                )
            ]
        )
        return torch.full_like(scores, -torch.inf).scatter_(
            1, drawn.to(scores.device), 0.0
        )


class NumberedNucleus(LogitsProcessor):
    """Draws from the same nucleus where the logits are, by one number for each item and
    token; the numbers are drawn on the CPU.

    Equal logits give equal tokens on any device. So nothing rests on the order in which
    a device adds, or on how it rounds: tokens are ordered by the logits themselves,
    their weights are whole numbers, 2^40 that of the likeliest, and a division is a
    multiplication by a number from the host. The number u in [0, 1) names the first of
    the likeliest tokens that together have more than u of the nucleus.
    """

    def __init__(
        self, how: Mapping[str, Any], prompt_length: int, names: Sequence[str]
    ) -> None:
        self._how, self._start = how, prompt_length
        count = how["max_new_tokens"]
        drawn = [
            torch.rand(count, dtype=torch.float64, generator=draws)
            for draws in _draws(how["seed"], names)
        ]
        self._numbers = torch.stack(drawn)  # (B, tokens)
        self._is_broken = torch.zeros((), dtype=torch.bool)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V) logits of the next token, after `input_ids` (B, T)."""
        if self._numbers.device != scores.device:
            self._numbers = self._numbers.to(scores.device)
            self._is_broken = self._is_broken.to(scores.device)
        generated = input_ids[:, self._start :]
        numbers = self._numbers[:, generated.shape[1]]
        rows = max(1, MOST_WEIGHTS // scores.shape[1])
        in_pieces = (each.split(rows) for each in (generated, scores, numbers))
        drawn = torch.cat(
            [self._draw(*piece) for piece in zip(*in_pieces, strict=True)]
        )
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)

    def refuse_broken(self) -> None:
        """Raises UserError if a token was to be drawn by what is no number."""
        if self._is_broken:
            raise UserError(
                "answers cannot be drawn: the model gives no numbers (its likeliest token has"
                " a logit that is not finite)"
            )

    def _draw(
        self, generated: torch.Tensor, scores: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        """(B, 1) the next tokens."""
        logits = self._penalise(generated, scores.double())
        ordered, find_tokens = rank_tokens(logits)
        weights = self._weigh(ordered)
        together = weights.cumsum(-1)

        nucleus_size = self._count_nucleus(weights, together)
        whole = together.gather(1, nucleus_size - 1)
        named = (numbers[:, None] * whole.double()).long()
        named = named.minimum(whole - 1)

        rank = (together <= named).sum(-1, keepdim=True)
        return find_tokens(rank)

    def _weigh(self, ordered: torch.Tensor) -> torch.Tensor:
        """(B, V) int64: the weights of tokens by their logits, the likeliest first."""
        likeliest = ordered[:, :1]
        self._is_broken |= ~torch.isfinite(likeliest).all()
        below = (ordered - likeliest).nan_to_num(nan=0.0)
        below *= 1.0 / self._how["temperature"]
        return (below.exp() * LIKELIEST).round().long()

    def _count_nucleus(
        self, weights: torch.Tensor, together: torch.Tensor
    ) -> torch.Tensor:
        """(B, 1): of how many of the likeliest tokens the nucleus is; one at the least.

        `together`: what they weigh with those before them.
        """
        whole = together[:, -1:].double()
        is_kept = together - weights < whole * self._how["top_p"]
        limit = self._how.get("top_k", weights.shape[1])
        is_kept[:, limit:] = False
        return is_kept.sum(-1, keepdim=True)

    def _penalise(self, generated: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The logits, lowered for tokens that were generated before; no zero has a sign."""
        penalty = self._how.get("repetition_penalty", 1.0)
        if penalty != 1.0:
            before = logits.gather(1, generated)
            positive = before * (1.0 / penalty)
            lowered = torch.where(before > 0, positive, before * penalty)
            logits = logits.scatter(1, generated, lowered)
        return logits + 0.0


class FastNucleus(LogitsProcessor):
    """Draws from the same nucleus, without a penalty, by one number of each item's
    generator, where the logits are: how a model's own answers are made to be trained on.

    The number u in [0, 1) names the first of the likeliest tokens that together have
    more than u of the nucleus. What `Nucleus` does with a vocabulary on the CPU takes
    longer than a large model on a GPU does.
    """

    def __init__(
        self, how: Mapping[str, Any], prompt_length: int, names: Sequence[str]
    ) -> None:
        self._how, self._draws = how, _draws(how["seed"], names)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V) logits of the next token."""
        chances = (scores.double() / self._how["temperature"]).softmax(-1)
        ordered, find_tokens = rank_tokens(chances)
        together = ordered.cumsum(-1)
        before = together - ordered
        nucleus_size = (before < self._how["top_p"]).sum(-1, keepdim=True)
        whole = together.gather(1, nucleus_size - 1)
        drawn = torch.stack(
            [torch.rand(1, dtype=torch.float64, generator=draw) for draw in self._draws]
        )
        rank = (before <= drawn.to(scores.device) * whole).sum(-1, keepdim=True) - 1
        token = find_tokens(rank.minimum(nucleus_size - 1))
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def rank_tokens(values: torch.Tensor) -> tuple[torch.Tensor, FindTokens]:
    """Values of tokens (B, V) from the greatest to the least, and what finds the tokens
    (B, 1) at ranks (B, 1); of equal values the first token comes first.

    On a CPU a sort that carries the tokens along takes longer than a small model does,
    so the values are sorted alone, and a token is found by its value.
    """
    if values.device.type != devices.CPU:
        ordered, token_ids = values.sort(dim=-1, descending=True, stable=True)
        return ordered, partial(token_ids.gather, 1)
    ascending = np.sort(values.numpy(), axis=-1)
    ordered = torch.from_numpy(ascending[:, ::-1].copy())

    def find_tokens(rank: torch.Tensor) -> torch.Tensor:
        value = ordered.gather(1, rank)
        greater = (values > value).sum(-1, keepdim=True)
        is_equal = values == value
        place = is_equal.cumsum(-1) + greater
        # the first of those that are as far along
        return (place > rank).int().argmax(-1, keepdim=True)

    return ordered, find_tokens


def _draws(seed: int, names: Sequence[str]) -> list[torch.Generator]:
    """A generator for each item."""
    seeds = [int(content_id({"draws": seed, "item": name}), 16) for name in names]
    return [torch.Generator().manual_seed(item_seed) for item_seed in seeds]


# by `decoding` and `drawn`
_DRAWINGS = {
    (NUCLEUS, None): Nucleus,
    (NUCLEUS, BY_NUMBER): NumberedNucleus,
    ("fast_nucleus", None): FastNucleus,
}


def choose_drawing(decoding: str, drawn_by: str | None) -> type[Any] | None:
    """What draws the tokens of a way of answering; None where none is drawn."""
    if decoding == "greedy":
        return None
    return _DRAWINGS[decoding, drawn_by]
