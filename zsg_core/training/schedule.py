"""Derives from an arrangement and a batch size what happens at every step, for any number of ranks.

Steps count from 1; step 0 is the untrained model. Every function is pure, so the order
of examples is the same for 1, 2 or 16 ranks and after any restart.
"""

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from zsg_core.digest import IdDigest
from zsg_core.errors import UserError

Stride = int | str | Sequence[int]  # 10; "1-50:1, 50-500:10, 500-:50"; [1, 2, 5]
# of a stage: more would fill the memory with numbers, and no run measures so often
MOST_CHECKPOINTS = 1_000_000

_QUICK = "loss_quick_"
_SPAN = re.compile(r"(\d{1,9})-(\d{0,9}):(\d{1,9})")

# how a share of the steps is warmed up over; in recipes that have one
HUGGING_FACE = "hugging face"

# tokens per micro-batch; changes speed, not numbers
MICRO_TOKENS = {"cpu": 4096, "cuda": 16_384}
# An evaluation keeps no activations, so it takes so many times the tokens of a training
# micro-batch, of which as many may be targets as there: their logits are its memory. On
# a CPU longer rows are no faster.
EVALUATION_FACTOR = {"cpu": 1, "cuda": 4}
# Of a piece of a micro-batch's logits: so many tokens times the vocabulary at most. In
# float32 a logit takes 12 bytes with what its gradient takes: 0.4 and 1.6 GB. More on a
# GPU, where each piece's share of the head's gradient, as large as its weight, is added
# to the others'.
PIECE_LOGITS = {"cpu": 2**25, "cuda": 2**27}


def count_steps(
    examples: int, batch: int, epochs: int = 1, limit: int | None = None
) -> int:
    """⌈N·epochs / batch⌉ steps, the last one possibly smaller, and never more than `limit`."""
    total = math.ceil(examples * epochs / batch)
    return total if limit is None else min(total, limit)


def list_batch_positions(
    step: int, batch: int, examples: int, epochs: int = 1
) -> list[int]:
    """Places in the arrangement (0…N−1) that step `step` consumes, in order; an epoch
    repeats the order."""
    start = (step - 1) * batch
    return [
        position % examples
        for position in range(start, min(start + batch, examples * epochs))
    ]


def compute_digests(
    ids: Sequence[str], batch: int, epochs: int, steps: int
) -> list[str]:
    """The running digest of the ids consumed after step 0…steps; the last one is the
    schedule's own."""
    digest = IdDigest()
    running = [digest.hex()]
    for step in range(1, steps + 1):
        digest.add(
            step,
            [
                ids[position]
                for position in list_batch_positions(step, batch, len(ids), epochs)
            ],
        )
        running.append(digest.hex())
    return running


def divide_batch(lengths: Sequence[int], world: int) -> list[list[int]]:
    """Divides a batch over ranks: items 0…B−1 by their token counts, longest first to
    the least loaded rank.

    The loss is one mean over the batch's tokens, so who computes an item changes
    nothing but rounding.
    """
    loads = [0] * world
    shares: list[list[int]] = [[] for _ in range(world)]
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rank = min(range(world), key=lambda r: (loads[r], r))
        loads[rank] += lengths[item]
        shares[rank].append(item)
    return shares


def make_micro_batches(
    items: Sequence[int],
    lengths: Sequence[int],
    budget: int,
    is_padded: bool = False,
) -> list[list[int]]:
    """Splits a rank's items, longest first, into groups of at most `budget` tokens;
    `is_padded`: with those that fill each item up to its group's longest.

    An item longer than the budget stands alone.
    """
    groups: list[list[int]] = []
    size = 0
    for item in sorted(items, key=lambda i: (-lengths[i], i)):
        taken = lengths[groups[-1][0]] if groups and is_padded else lengths[item]
        if groups and size + taken <= budget:
            groups[-1].append(item)
            size += taken
        else:
            groups.append([item])
            size = lengths[item]
    return groups


def count_logit_pieces(tokens: int, vocabulary: int, kind: str) -> int:
    """In how many pieces, about alike, the logits of so many learnt tokens are made on a
    kind of device; see jobs.model.head_pass."""
    largest = max(1, PIECE_LOGITS[kind] // vocabulary)
    return max(1, -(-tokens // largest))


def compute_learning_rate(
    step: int,
    total: int,
    peak: float,
    floor: float,
    warmup: int = 0,
    rule: str | None = None,
) -> float:
    """The rate of step 1…total: linear warm-up, then a cosine from `peak` to `floor`·`peak`.

    The warm-up of w steps has the rates peak·(1/w, 2/w, …, 1); by the rule HUGGING_FACE
    peak·(0, 1/w, …, (w−1)/w), as transformers' get_cosine_schedule_with_warmup, whose
    first update has no rate. After it both are the same.

    lr = peak·(floor + (1 − floor)/2·(1 + cos πx)), x running from 0 at the first step
    after warm-up; with floor 0.1 the published schedule peak·max(0.1, 0.1 + 0.45·(1 +
    cos πx)).
    """
    steps_before = step - 1
    if steps_before < warmup:
        return (
            peak * (steps_before / warmup)
            if rule == HUGGING_FACE
            else peak * (steps_before + 1) / warmup
        )
    x = min(1.0, (steps_before - warmup) / max(1, total - warmup))
    return peak * (floor + (1 - floor) / 2 * (1 + math.cos(math.pi * x)))


def count_warmup_steps(
    total: int, steps: int, share: float | None, rule: str | None = None
) -> int:
    """The steps of warm-up: `steps`, or ⌈share·total⌉.

    By the rule HUGGING_FACE the product is that of binary fractions, as in
    TrainingArguments.get_warmup_steps: 0.07 of 100 steps are 8. Without it, in runs
    made before the rule was, the share is exact.
    """
    if share is None:
        return steps
    return math.ceil(
        total * share if rule == HUGGING_FACE else total * Fraction(str(share))
    )


def list_checkpoint_steps(total: int, every: Stride) -> list[int]:
    """The steps at which metrics are taken: 0, those that `every` names, and the last.

    UserError for more than MOST_CHECKPOINTS: `count_checkpoints` counts without listing them.
    """
    named = _list_named_steps(total, every)
    _check_count(sum(map(_count_listed, named)), total, every)
    return sorted({0, *(step for steps in named for step in steps), total})


def count_checkpoints(total: int, *strides: Stride) -> int:
    """How many steps the strides name together; of more than MOST_CHECKPOINTS at most
    so many. Lists no more."""
    named = [steps for every in strides for steps in _list_named_steps(total, every)]
    size = 2 + sum(map(_count_listed, named))
    if size > MOST_CHECKPOINTS:
        return min(size, total + 1)
    return len({0, *(step for steps in named for step in steps), total})


def _list_named_steps(total: int, every: Stride) -> list[range | list[int]]:
    """The steps up to `total` that a stride names, unlisted where it is a rule."""
    if isinstance(every, int):
        return [range(0, total + 1, every)]
    if isinstance(every, str):
        return [*parse_spans(every, total)]
    return [[step for step in every if step <= total]]


def _count_listed(steps: range | list[int]) -> int:
    # Python refuses the len() of a range of 2^63 steps.
    return (
        max(0, -((steps.start - steps.stop) // steps.step))
        if isinstance(steps, range)
        else len(steps)
    )


def _check_count(count: int, total: int, every: Stride) -> None:
    if count > MOST_CHECKPOINTS:
        raise UserError(
            f"checkpoints at {every} of {total:,} steps are {count:,}, more than"
            f" {MOST_CHECKPOINTS:,}; set a larger stride (checkpoints.every,"
            " checkpoints.quick.full_every, checkpoints.snapshots), or fewer train.steps or"
            " train.epochs"
        )


def list_measured_steps(
    total: int,
    every: Stride,
    quick: Mapping[str, Stride] | None = None,
    snapshots: Stride | None = None,
) -> dict[str, list[int]]:
    """The steps at which each loss is measured, by its key: `loss` is always that of
    the whole test set.

    It is measured wherever weights are kept. With `quick`, {items, full_every}, the
    checkpoints are the steps of both strides. At all of them the quick set is measured,
    under a key that names its size, so that no curve is of two sets; the whole one at
    `full_every`. UserError for more than MOST_CHECKPOINTS of a stride.
    """
    return {
        key: sorted(
            set().union(*(list_checkpoint_steps(total, stride) for stride in strides))
        )
        for key, strides in _list_strides(every, quick, snapshots).items()
    }


def count_measured_steps(
    total: int,
    every: Stride,
    quick: Mapping[str, Stride] | None = None,
    snapshots: Stride | None = None,
) -> dict[str, int]:
    """How many steps there are of each key of `list_measured_steps`; of more than MOST_CHECKPOINTS
    at most so many.

    The key with the most has all checkpoints.
    """
    return {
        key: count_checkpoints(total, *strides)
        for key, strides in _list_strides(every, quick, snapshots).items()
    }


def refuse_too_many_checkpoints(
    total: int,
    every: Stride,
    quick: Mapping[str, Stride] | None = None,
    snapshots: Stride | None = None,
) -> None:
    """Raises UserError where one of the strides names more than MOST_CHECKPOINTS of so
    many steps. Lists none."""
    for strides in _list_strides(every, quick, snapshots).values():
        for stride in strides:
            _check_count(
                sum(map(_count_listed, _list_named_steps(total, stride))), total, stride
            )


def _list_strides(
    every: Stride, quick: Mapping[str, Stride] | None, snapshots: Stride | None
) -> dict[str, list[Stride]]:
    """The strides whose steps are those of each loss together, by its key."""
    full = [
        quick["full_every"] if quick else every,
        *([] if snapshots is None else [snapshots]),
    ]
    return {
        "loss": full,
        **({f"{_QUICK}{quick['items']}": [every, *full]} if quick else {}),
    }


def quick_items(key: str) -> int:
    """How many items the quick set has that a metric is the loss of; 0 for any other metric."""
    size = key.removeprefix(_QUICK)
    return int(size) if key.startswith(_QUICK) and size.isdigit() else 0


def list_snapshot_steps(total: int, named: Stride | None) -> list[int]:
    """The steps after which weights are kept: those that `named` names, and the last;
    none without it.

    Never step 0: those weights are the base's own.
    """
    return (
        []
        if named is None
        else [step for step in list_checkpoint_steps(total, named) if step]
    )


def count_snapshots(total: int, named: Stride | None) -> int:
    """How many steps `list_snapshot_steps` names; of more than MOST_CHECKPOINTS at most so many."""
    return 0 if named is None else count_checkpoints(total, named) - 1  # step 0


def parse_spans(text: str, total: int = 0) -> list[range]:
    """The steps of `1-50:1, 50-500:10, 500-:50`: from, to, stride; an open end goes to `total`.

    Raises ValueError for what is not such a list, or whose spans overlap or go back.
    """
    spans: list[range] = []
    words = text.split(",")
    last_step = 0
    for word in words:
        first, end, stride = _parse_span(word.strip(), last_step)
        if end is None and word != words[-1]:
            raise ValueError(f"{word.strip()!r} has no end, so nothing can follow it")
        last_step = first if end is None else end
        spans.append(
            range(first, min(total, total if end is None else end) + 1, stride)
        )
    return spans


def _parse_span(word: str, last_step: int) -> tuple[int, int | None, int]:
    """First step, last step (None: open) and stride of one span, behind `last_step`."""
    match = _SPAN.fullmatch(word)
    if match is None:
        raise ValueError(
            f"{word!r} is not a span of steps such as 50-500:10 or 500-:50"
        )
    first, stride = int(match[1]), int(match[3])
    end = int(match[2]) if match[2] else None
    if first < last_step or stride < 1 or (end is not None and end < first):
        raise ValueError(
            f"{word!r} overlaps the span before it, goes back, or has no stride"
        )
    return first, end, stride
