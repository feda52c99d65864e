"""A model on devices, as scores by a model ask it: sums over the tokens of texts, and
norms of gradients.

Texts go through the loss of training (jobs.model.answer_loss), so what is scored is
what would be learnt. Dropout is off. Which texts meet in a row is a pure function of the
texts that are asked for together and of `tokens`, the most of a row. Of an example whose
gradient is taken the texts are alone in a row.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from jobs.contract.folder import Workspace
from jobs.model import answer_loss, batching, placement
from jobs.model.answer_loss import PADDED, AnswerLoss, choose_batching
from jobs.model.batch_budget import BatchBudget
from jobs.model.example_gradients import GradientNorm
from jobs.model.head_pass import HeadPass
from jobs.training.batches import MicroBatch, Segment, pack_parts
from zsg_core.model_scores.registry import Text
from zsg_core.training import schedule


class ErrorPass(HeadPass):
    """Takes ‖p − onehot(token)‖₂ in place of −ln p."""

    def take_losses(
        self,
        states: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The norm of each target's error (K,) by its state (K, H), float32."""
        assert weights is None, "errors have no gradient"
        size = -(-len(states) // self.count_pieces(len(states), states.device))
        norms: list[torch.Tensor] = []
        pieces = zip(states.split(size), targets.split(size), strict=True)
        for piece, own_targets in pieces:
            logits = self.make_logits(piece).float()
            shares = logits.softmax(-1)
            of_target = shares.gather(-1, own_targets[:, None])[:, 0]
            # of all other tokens, and of the target itself
            error = shares.square().sum(-1) - of_target.square()
            squares = error.clamp(min=0) + (1 - of_target).square()
            norms.append(squares.sqrt())
        return torch.cat(norms)


class LoadedModel:
    """A model that measures texts: a zsg_core.model_scores.registry.ScoringModel."""

    def __init__(
        self,
        folder: Path,
        precision: str,
        devices: Sequence[str],
        workspace: Workspace,
        tokens: int | None = None,
    ) -> None:
        """`tokens`: the most of a row of texts; None for as many as fit. UserError for
        a model that cannot be loaded or gives no numbers."""
        attention = batching.choose_attention(folder, workspace)
        model = placement.load_on(devices, folder, precision, attention=attention)
        self._device = devices[0]
        self._model = model.eval().requires_grad_(False)
        self._batching = choose_batching(self._model)
        self._losses = AnswerLoss(self._model, self._batching)
        rows = self._model.get_input_embeddings().num_embeddings
        answer_loss.refuse_leaks(self._losses, rows, self._device)
        self.tokens = tokens or self._choose_tokens()

    def _choose_tokens(self) -> int:
        """The most tokens of a row."""
        kind = self._device.partition(":")[0]
        budget = BatchBudget(self._model, self._device)
        return budget.choose_loss_tokens(schedule.MICRO_TOKENS[kind])

    def sum_losses(self, texts: Sequence[Text]) -> list[float]:
        """Of each text the sum of −ln p over its measured tokens."""
        return self._sum(self._losses, texts)

    def sum_errors(self, texts: Sequence[Text]) -> list[float]:
        """Of each text the sum of ‖p − onehot(token)‖₂ over its measured tokens."""
        errors = AnswerLoss(self._model, self._batching, ErrorPass(self._model))
        return self._sum(errors, texts)

    def take_gradient_norms(self, examples: Sequence[Sequence[Text]]) -> list[float]:
        """Of each example, which is some texts, the norm of the gradient of the mean of
        −ln p over its measured tokens, by all parameters; each is a pass of its own."""
        parameters = [
            parameter
            for parameter in self._model.parameters()
            if parameter.is_floating_point()
        ]
        norm = GradientNorm(parameters)
        self._losses.eval()
        with norm.listening():
            return [norm.take(self._take_mean_loss(texts)) for texts in examples]

    def _take_mean_loss(self, texts: Sequence[Text]) -> torch.Tensor:
        """The mean of −ln p over the measured tokens of an example, with its graph."""
        row = _pack(texts)
        return self._losses(*row.on(self._device)).sum() / len(row.targets)

    @torch.no_grad()
    def _sum(self, measure: AnswerLoss, texts: Sequence[Text]) -> list[float]:
        """What is measured of each text, float64 sums of float32."""
        lengths = [len(text.ids) for text in texts]
        groups = schedule.make_micro_batches(
            range(len(texts)), lengths, self.tokens, self._batching == PADDED
        )
        sums = [0.0] * len(texts)
        for group in groups:
            row = _pack([texts[number] for number in group])
            measured: list[float] = measure(*row.on(self._device)).tolist()
            for number, total in zip(group, measured, strict=True):
                sums[number] = total
        return sums


def _pack(texts: Sequence[Text]) -> MicroBatch:
    """The texts as one row."""
    segments = [
        Segment(number, text.ids, spans=_drop_first(text))
        for number, text in enumerate(texts)
    ]
    return pack_parts(segments)


def _drop_first(text: Text) -> list[tuple[int, int]]:
    """The measured spans without a text's first token, before which nothing stands."""
    later = [(max(1, start), stop) for start, stop in text.spans]
    return [(start, stop) for start, stop in later if start < stop]
