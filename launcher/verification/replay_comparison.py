"""Compares what a run has journalled with what a replay has: bit by bit, or within what
the ways of computing allow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.contract import journal, journal_rows
from jobs.contract.journal import WAY
from jobs.contract.journal_rows import as_mapping, find_first_start
from launcher.verification.evidence import Row
from launcher.verification.finding import Differs, NotChecked
from launcher.verification.journal_check import SNAPSHOT, replayable_values

TOLD = (
    "steps",
    "train",
    "test",
    "shortened",
    "unanswered",
    "tokens",
    "test_sets",
    "parameters",
    "trained",
)
WEIGHTS = ("digest of weights", SNAPSHOT)
ENGINE = ("versions", "machine")  # older runs have told no machine
MOST_NAMED = 3

Cells = Mapping[tuple[int, str], Any]


@dataclass(frozen=True)
class Replayed:
    """What a replay has journalled. `differing`: by the step of a snapshot, its tensors
    that are not as they were."""

    rows: list[journal_rows.Row]
    differing: dict[int, list[str]] = field(default_factory=dict)

    @property
    def start(self) -> Row:
        """What it told when it began. NotChecked if it did not."""
        start = find_first_start(self.rows)
        if start:
            return as_mapping(start)
        raise NotChecked("the replay has not begun to train")


def compare_replay(recorded: Cells, starts: Sequence[Row], replayed: Replayed) -> str:
    """What of `recorded` is equal. Differs with the first that is not: what is trained
    on, then step after step.

    `starts`: what the attempts told that have computed it.
    """
    there, now = replayable_values(replayed.rows), replayed.start
    tolerance = journal.agreement(list_ways(starts, now))
    for key in TOLD:
        if key in starts[0] and key in now and starts[0][key] != now[key]:
            raise Differs(
                f"{key} was {starts[0][key]} when it began, is {now[key]} now"
            )
    counts = {"values": 0, "digests of weights": 0}
    for (step, key), value in recorded.items():
        if tolerance and key in WEIGHTS:
            continue
        again = there.get((step, key))
        if again is None:
            raise Differs(f"step {step}: {key} is recorded, but does not come again")
        if not (
            again == value
            if isinstance(value, str)
            else journal.agree(value, again, tolerance)
        ):
            named = _named(replayed.differing.get(step, [])) if key == SNAPSHOT else ""
            raise Differs(
                f"step {step}: {key} is {value!r} in the journal, {again!r} again{named}"
            )
        counts["digests of weights" if key in WEIGHTS else "values"] += 1
    how = f"agree within {tolerance:g}" if tolerance else "are equal to the bit"
    lacking = (
        ""
        if counts["digests of weights"] or tolerance
        else "; there is no digest of weights at these steps"
    )
    return (
        f"{' and '.join(f'{count} {what}' for what, count in counts.items() if count)}"
        f" {how}{lacking}"
    )


def check_same_bits(starts: Sequence[Row], now: Row) -> str:
    """What both were computed with. NotChecked where that is not the same, or a GPU, so
    that bits tell nothing."""
    found = list_ways(starts, now)
    if any(way["device"] != "cpu" for way in found):
        raise NotChecked(
            "a GPU does not add in the same order twice: values need only be near, weights not"
            " compared"
        )
    for way in found[:-1]:
        for key, value in way.items():
            if value != found[-1][key]:
                what = f"{key} was {_told(value)}, is {_told(found[-1][key])} here"
                raise NotChecked(
                    f"{what}: values need only be near, weights are not compared"
                )
    return _told(found[-1].get("versions")) or "the same way of computing"


def list_ways(starts: Sequence[Row], now: Row) -> list[Row]:
    """All that decides the last bits of values, as far as every attempt has told it;
    the replay's stands last."""
    keys = [*WAY, *(key for key in ENGINE if all(key in one for one in (*starts, now)))]
    return [{key: one.get(key) for key in keys} for one in (*starts, now)]


def _named(tensors: Sequence[str]) -> str:
    more = f" and {len(tensors) - MOST_NAMED} more" if len(tensors) > MOST_NAMED else ""
    return f", in {', '.join(tensors[:MOST_NAMED])}{more}" if tensors else ""


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
