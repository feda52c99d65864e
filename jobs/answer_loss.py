"""Computes the loss: negative log-likelihood summed over each example's answer tokens."""

from typing import Any

import torch
from torch import nn


class AnswerLoss(nn.Module):
    """Wraps a Llama so that one forward gives (B,) float32 sums of −log p over the learnt tokens.

    Logits are made only where something is learnt: prompts are most of the tokens and the vocabulary most of
    a small model's work. Training and evaluation both go through here, so they cannot differ.
    """

    def __init__(self, llama: Any) -> None:
        super().__init__()
        self.llama = llama

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """`tokens`, `mask`, `labels`: (B, T) int64, right-padded, labels −100 where nothing is learnt."""
        hidden = self.llama.model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        rows, columns = torch.nonzero(labels[:, 1:] != -100, as_tuple=True)
        # The token at column + 1 is predicted from the state at column. Without any, position 0 keeps the graph.
        idle = rows.numel() == 0
        if idle:
            rows = columns = torch.zeros(1, dtype=torch.int64, device=tokens.device)
        logits = self.llama.lm_head(hidden[rows, columns]).float()
        targets = torch.zeros_like(rows) if idle else labels[rows, columns + 1]
        nll = nn.functional.cross_entropy(logits, targets, reduction="none") * (0.0 if idle else 1.0)
        return torch.zeros(len(tokens), dtype=torch.float32, device=tokens.device).index_add(0, rows, nll)
