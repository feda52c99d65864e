"""Takes the log-probability of tokens after states of packed rows, and whether each is
the likeliest there.

Beside the loss (jobs.model.answer_loss) a state may have several tokens to score: the
options of one question that are a token each all follow the same state, whose logits are
made once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.model.answer_loss import PADDED, AnswerLoss
from jobs.model.architecture import find_body
from jobs.model.head_pass import HeadPass
from jobs.model.packed_attention import Row, make_inputs
from jobs.model.padding import pad
from jobs.model.transfer import send_integers

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ScoredRow:
    """A packed row, and the tokens to score after some of its states.

    `tokens`, `positions`: (T,), segments one after the other, of `lengths`; `after`: see
    jobs.model.packed_attention. `places`: (P,), which states of the row are asked.
    `targets`: (K,), the tokens to score; `of_place`: (K,), after which of the P states
    each stands, in rising order.
    """

    tokens: Integers
    positions: Integers
    lengths: Sequence[int]
    after: Sequence[int] | None
    places: Integers
    targets: Integers
    of_place: Integers


@torch.no_grad()
def score_targets(
    model: AnswerLoss, row: ScoredRow, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the K targets of a row the log-probabilities, (K,) float64, and whether each is
    the likeliest token, (K,) bool; both on the CPU.

    The softmax is taken in float32 whatever the model's type. Logits are made in pieces,
    as many as the loss of as many states would be made in (see jobs.model.head_pass), so
    a large vocabulary needs no more memory here than it does there.
    """
    tokens, positions, asked_states, targets, of_place = send_integers(
        device, row.tokens, row.positions, row.places, row.targets, row.of_place
    )
    states = _encode(model, tokens, positions, row)[
        _find_states(model, tokens, positions, row, asked_states)
    ]
    head = HeadPass(model.model)
    pieces = head.count_pieces(len(states), states.device)
    scores: list[torch.Tensor] = []
    is_likeliest: list[torch.Tensor] = []
    for piece, targets_of_piece in _list_pieces(row.of_place, len(states), pieces):
        logits = head.make_logits(states[piece]).float()
        state = of_place[targets_of_piece] - piece.start
        chosen = targets[targets_of_piece]
        normaliser = logits.logsumexp(-1)
        scores.append(logits[state, chosen].double() - normaliser[state].double())
        is_likeliest.append(logits.argmax(-1)[state] == chosen)
    return torch.cat(scores).cpu(), torch.cat(is_likeliest).cpu()


def _list_pieces(
    of_place: Integers, states: int, pieces: int
) -> Iterator[tuple[slice, slice]]:
    """Slices of the states, each with the slice of the targets that follow them.

    `of_place` rises, so the targets of neighbouring states are neighbours. `states` is
    how many states there are, `pieces` in how many slices of one size they are cut; the
    last slice may be shorter.
    """
    size = -(-states // pieces)
    for start in range(0, states, size):
        stop = min(start + size, states)
        first, last = np.searchsorted(of_place, [start, stop])
        yield slice(start, stop), slice(int(first), int(last))


def _encode(
    model: AnswerLoss, tokens: torch.Tensor, positions: torch.Tensor, row: ScoredRow
) -> torch.Tensor:
    """The states that the model's body gives of a row, (T, H).

    Where the model pads examples each segment is a row of its own, filled up to the
    longest, and the states are those of all its places: see `_find_states`.
    """
    body: Any = find_body(model.model)
    if model.batching == PADDED:
        return pad(tokens, positions, row.lengths).encode(body)
    inputs = make_inputs(tokens, positions, Row(row.lengths, row.after))
    return body(**inputs).last_hidden_state[0]


def _find_states(
    model: AnswerLoss,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    row: ScoredRow,
    asked_states: torch.Tensor,
) -> torch.Tensor:
    """Where the states at `asked_states` of the row are among those that were made.

    They are where they were, unless the segments were padded: then each has moved by
    what was filled in before it.
    """
    if model.batching == PADDED:
        return pad(tokens, positions, row.lengths).places[asked_states]
    return asked_states
