"""Compares what a run has journalled with what a replay has: bit by bit, or within what
the ways of computing allow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

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
    differing: dict[int, list[str]] = field(default_factory=dict[int, list[str]])

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
    journalled, now = replayable_values(replayed.rows), replayed.start
    tolerance = journal.choose_tolerance(list_ways(starts, now))
    _refuse_other_facts(starts[0], now)
    counts = {"values": 0, "digests of weights": 0}
    for cell, value in recorded.items():
        is_of_weights = cell[1] in WEIGHTS
        if tolerance and is_of_weights:
            continue
        _refuse_other_value(cell, value, journalled.get(cell), tolerance, replayed)
        counts["digests of weights" if is_of_weights else "values"] += 1
    return _describe_equal(counts, tolerance)


def _refuse_other_facts(first: Row, now: Row) -> None:
    """Differs where the replay told something else when it began than the first attempt."""
    for key in TOLD:
        if key in first and key in now and first[key] != now[key]:
            raise Differs(f"{key} was {first[key]} when it began, is {now[key]} now")


def _refuse_other_value(
    cell: tuple[int, str],
    value: Any,
    replayed_value: Any,
    tolerance: float,
    replayed: Replayed,
) -> None:
    """Differs where a recorded value is not what the replay computed."""
    step, key = cell
    if replayed_value is None:
        raise Differs(f"step {step}: {key} is recorded, but the replay has none")
    if _is_equal(value, replayed_value, tolerance):
        return
    tensors = replayed.differing.get(step, []) if key == SNAPSHOT else []
    raise Differs(
        f"step {step}: {key} is {value!r} in the journal, {replayed_value!r}"
        f" in the replay{_named(tensors)}"
    )


def _is_equal(value: Any, replayed_value: Any, tolerance: float) -> bool:
    if isinstance(value, str):
        return replayed_value == value
    return journal.values_agree(value, replayed_value, tolerance)


def _describe_equal(counts: Mapping[str, int], tolerance: float) -> str:
    compared = " and ".join(
        f"{count} {kind}" for kind, count in counts.items() if count
    )
    if tolerance:
        return f"{compared} agree within {tolerance:g}"
    lacking = "; there is no digest of weights at these steps"
    note = "" if counts["digests of weights"] else lacking
    return f"{compared} are equal to the bit{note}"


def check_same_bits(starts: Sequence[Row], now: Row) -> str:
    """What both were computed with. NotChecked where that is not the same, or a GPU, so
    that bits tell nothing."""
    all_ways = list_ways(starts, now)
    if any(attempt_way["device"] != "cpu" for attempt_way in all_ways):
        raise NotChecked(
            "a GPU does not add in the same order twice: values need only be near, weights not"
            " compared"
        )
    for attempt_way in all_ways[:-1]:
        for key, value in attempt_way.items():
            if value != all_ways[-1][key]:
                difference = (
                    f"{key} was {_told(value)}, is {_told(all_ways[-1][key])} here"
                )
                raise NotChecked(
                    f"{difference}: values need only be near, weights are not compared"
                )
    return _told(all_ways[-1].get("versions")) or "the same way of computing"


def list_ways(starts: Sequence[Row], now: Row) -> list[Row]:
    """All that decides the last bits of values, as far as every attempt has told it;
    the replay's stands last."""
    keys = [
        *WAY,
        *(key for key in ENGINE if all(key in start for start in (*starts, now))),
    ]
    return [{key: start.get(key) for key in keys} for start in (*starts, now)]


def _named(tensors: Sequence[str]) -> str:
    unnamed = (
        f" and {len(tensors) - MOST_NAMED} more" if len(tensors) > MOST_NAMED else ""
    )
    return f", in {', '.join(tensors[:MOST_NAMED])}{unnamed}" if tensors else ""


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        versions = cast("Mapping[str, Any]", value)
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[Any]", value)))
    return str(value)
