"""Scores answers by a reward model: a folder with a head for classification into one,
or one as UltraRM's.

Each answer's reward is its own: batches are of texts of about the same length, padded
on the right to the longest.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jobs.model import batch_budget
from jobs.model.batch_budget import make_padded_batches
from jobs.model.text_tokens import ChatTokens
from zsg_core.errors import UserError
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

logger = logging.getLogger(__name__)

MOST_TOKENS = 1024  # of a text, as in the ZSG paper; what is longer is cut at its end
BATCH_TOKENS = 16_384  # of a batch, padding included
HUMAN = "Human: {instruction}\n\nAssistant: {completion}"  # UltraRM's


class Reward:
    """A reward model, loaded once: in bfloat16 on a GPU, in float32 on a CPU."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        """Loads the model. UserError for a folder that holds none, or a head that does
        not give one number."""
        import torch
        from transformers import AutoTokenizer

        self._torch = torch
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        self._model, self._rewards = _loaded(folder, dtype)
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._model.to(self.device).eval()

    def score(
        self, answers: Iterable[Answered], instructions: Mapping[str, str]
    ) -> dict[str, ByItem]:
        """Each item's reward; `instructions` are what a user would have asked, by item,
        without the run's template."""
        listed = list(answers)
        rewards = self.rewards([(instructions[one.id], one.answer) for one in listed])
        return {
            "reward": mean_by_item(
                (one.id, reward) for one, reward in zip(listed, rewards, strict=True)
            )
        }

    def rewards(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The reward of each (instruction, answer), at the text's last token."""
        rows = [self._tokens(instruction, answer) for instruction, answer in pairs]
        found = [0.0] * len(rows)
        with self._torch.inference_mode():
            for places in make_padded_batches([len(row) for row in rows], BATCH_TOKENS):
                rewards = self._reward_in_parts([rows[place] for place in places])
                for place, reward in zip(places, rewards, strict=True):
                    found[place] = reward
        return found

    def _reward_in_parts(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The rewards of rows; in halves where all are too much for the GPU's memory."""
        advice = f"out of GPU memory with one answer of {len(rows[0])} tokens to reward"
        rewards = batch_budget.compute_unless_too_much(
            partial(self._of, rows), advice if len(rows) == 1 else None
        )
        if rewards is not None:
            return rewards
        middle = len(rows) // 2
        logger.warning(
            f"the GPU's memory has no room for {len(rows)} answers to reward at once: in halves"
        )
        return [
            *self._reward_in_parts(rows[:middle]),
            *self._reward_in_parts(rows[middle:]),
        ]

    def _tokens(self, instruction: str, answer: str) -> list[int]:
        """A text by the model's own chat template, or by UltraRM's where it has none.

        Control tokens are the template's alone: an answer that writes `</s>` closes no
        turn of its own.
        """
        if self._tokenizer.chat_template:
            said = [
                {"role": "user", "content": instruction},
                {"role": "assistant", "content": answer},
            ]
            ids = self._chat_tokens.chat(said)
        else:
            ids = self._chat_tokens.text(
                HUMAN.format_map({"instruction": instruction, "completion": answer})
            )
        return ids[:MOST_TOKENS]

    @cached_property
    def _chat_tokens(self) -> ChatTokens:
        return ChatTokens(self._tokenizer)

    def _of(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The rewards of texts, given as token ids, in one forward of the model."""
        torch, longest = self._torch, max(map(len, rows))
        filler = self._filler({row[-1] for row in rows})
        ids = torch.tensor(
            [[*row, *[filler] * (longest - len(row))] for row in rows],
            device=self.device,
        )
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = (torch.arange(longest, device=self.device) < lengths[:, None]).long()
        return self._rewards(self._model, ids, mask, filler).float().tolist()

    def _filler(self, last: set[int]) -> int:
        """The padding token, or another that ends no text of a batch: heads find a
        text's end by it."""
        pad = self._tokenizer.pad_token_id
        if pad is not None and pad not in last:
            return pad
        return next(token for token in range(len(last) + 1) if token not in last)


def _loaded(folder: Path, dtype: Any) -> tuple[Any, Any]:
    """The model, and how it gives rewards (B) of ids and mask (B, T), and the token that fills."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: no reward model: {str(error).splitlines()[0]}"
        ) from None
    kinds = config.architectures or []
    if any(kind.endswith("ForSequenceClassification") for kind in kinds):
        if config.num_labels != 1:
            raise UserError(
                f"{folder}: classifies into {config.num_labels}; a reward model has one output"
            )
        model, told = AutoModelForSequenceClassification.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
        )
        return _complete(folder, model, told), _of_classifier
    if config.model_type != "llama":
        raise UserError(
            f"{folder}: a {config.model_type!r} model of kind {kinds}; a reward model is one for"
            " sequence classification, or a Llama with a regression_head as UltraRM"
        )
    model, told = _with_regression_head().from_pretrained(
        folder, local_files_only=True, dtype=dtype, output_loading_info=True
    )
    return _complete(folder, model, told), _of_regression_head


def _complete(folder: Path, model: Any, told: dict[str, Any]) -> Any:
    """The model; UserError where weights were made up, as transformers does for what it
    does not find."""
    if missing := sorted(told["missing_keys"]):
        raise UserError(
            f"{folder}: no reward model: it holds no weights for {', '.join(missing[:3])}"
        )
    return model


def _with_regression_head() -> Any:
    """The class of UltraRM (Cui et al. 2023): a Llama, and a linear map of its last
    hidden states without bias."""
    from torch import nn
    from transformers import LlamaConfig, LlamaModel, PreTrainedModel

    class LlamaRewardModel(PreTrainedModel):
        config_class = LlamaConfig
        base_model_prefix = "model"

        def __init__(self, config: LlamaConfig) -> None:
            super().__init__(config)
            self.model = LlamaModel(config)
            self.regression_head = nn.Linear(config.hidden_size, 1, bias=False)
            self.post_init()

    return LlamaRewardModel


def _of_classifier(model: Any, ids: Any, mask: Any, filler: int) -> Any:
    model.config.pad_token_id = filler  # by which a decoder finds the last token
    return model(input_ids=ids, attention_mask=mask).logits[:, 0]


def _of_regression_head(model: Any, ids: Any, mask: Any, filler: int) -> Any:
    """The scores (texts,), float32, of a model whose head reads the state of each
    text's last token. `ids` and `mask` are (texts, tokens), filled up on the right;
    `filler` is part of the signature that all heads share."""
    hidden = model.model(
        input_ids=ids, attention_mask=mask, use_cache=False
    ).last_hidden_state
    last = hidden.gather(
        1, (mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
    )[:, 0]
    return last.float() @ model.regression_head.weight[0].float()
