"""Scores answers to GSM8K by their final number."""

import re
from collections.abc import Iterable

from zsg_core.errors import BadData
from zsg_core.metrics.registry import GSM8K, metric
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

# As published: OpenAI's, gsm8k-ScRel's and lm-evaluation-harness's. `#### $18` is no strict answer.
STRICT = re.compile(r"#### (-?[0-9.,]+)")
# A number holds a digit. The pattern of lm-evaluation-harness, -?[$0-9.,]{2,}, takes
# marks such as `$.` for one. A `-` after a digit is none of the number: of the range
# 10-72 the last is 72.
ANY_NUMBER = re.compile(
    r"(?:(?<![0-9])-)?\$?(?:[0-9][0-9,]*(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
)
# How LaTeX writes the comma of 1,000: 1{,}000 or 1\,000 or 1,\!000.
THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\[,!])(?=[0-9]{3}(?![0-9]))")
TOLERANCE = 1e-4  # of gsm8k-ScRel
# an older zsg took marks such as `$.` for numbers
DEFINITION = {"flexible": "the last number that holds a digit"}


def read_strict(text: str) -> float | None:
    """The number after the first `#### `; None where there is no such mark or no number
    after it."""
    marked = STRICT.search(text)
    return _number(marked.group(1)) if marked else None


def read_flexible(text: str) -> float | None:
    """The last number, whatever stands before and after it; None without one."""
    numbers = ANY_NUMBER.findall(THOUSANDS.sub(",", text))
    return _number(numbers[-1]) if numbers else None


@metric(
    "gsm8k/strict",
    "gsm8k/flexible",
    suite=GSM8K,
    definitions={"gsm8k/flexible": DEFINITION},
)
def score_answers(answers: Iterable[Answered]) -> dict[str, ByItem]:
    """100 where an answer's final number is that of the reference, else 0, read
    strictly and flexibly.

    Numbers are compared, not texts: 18 and 18.0 are equal, as for gsm8k-ScRel (|a − b|
    < 1e-4), where lm-evaluation-harness would call only the first right. Read flexibly,
    $18.00 is 18 as well; read strictly, `#### $18` is no answer, as for the published
    pattern. BadData for a reference that holds no number.
    """
    listed = list(answers)
    return {
        f"gsm8k/{name}": mean_by_item(
            (answered.id, 100.0 * _is_right(read(answered.answer), _gold(answered)))
            for answered in listed
        )
        for name, read in (("strict", read_strict), ("flexible", read_flexible))
    }


def _gold(answered: Answered) -> float:
    """The reference's number: after `####`, or the last, as in published model
    solutions that end in `A: 18`."""
    text = answered.references[0] if answered.references else ""
    gold = read_strict(text) if STRICT.search(text) else read_flexible(text)
    if gold is None:
        raise BadData(
            f"{answered.id}: its reference holds no final number, such as `#### 18`: {text[-40:]!r}"
        )
    return gold


def _is_right(number: float | None, gold: float) -> bool:
    return number is not None and abs(number - gold) < TOLERANCE


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").replace("$", "").rstrip("."))
    except ValueError:
        return None
