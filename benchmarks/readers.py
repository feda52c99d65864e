"""How long does it take to read a large data set and put it in order, against parsing
its rows and nothing else?

    python -m benchmarks.readers --json

A made-up Flan-mini: one JSON array of 1,340,000 records of 1,825 tasks, 1.5 GB. zsg
reads it, keeps it as records on disk and puts it in round-robin order by id. The peer
is the standard library's `json.loads` over the same records as lines, which are thrown
away.

Then the same texts as JSON lines under column names of somebody's own, with an id that
is kept, read by `set: records` and thrown away; the peer is `json.loads` over these
lines. The best of two, by turns, each in a process of its own, whose peak memory counts
too.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.rows import Row, show

REPEATS, RECORDS, TASKS = 2, 1_340_000, 1_825
MAPPED = "mapped.jsonl"
FIELDS = {"prompt": ["question"], "answer": "answer", "task": "category", "id": "key"}
SPEED_GOAL, PEAK_GOAL = 2.0, 1.0  # times the peer's seconds; GB


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readers", description="How long reading takes."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--records", type=int, default=RECORDS, help="records of the array"
    )
    parser.add_argument(
        "--child", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS
    )
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(_measured(CHILDREN[asked.child[0]], Path(asked.child[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        show(measure(Path(folder), asked.records), asked.json)


def measure(folder: Path, records: int) -> list[Row]:
    """The rows; `folder` takes the data twice and the records once."""
    write_data(folder, records)
    size = (folder / "flan_mini.json").stat().st_size / 1e9
    what = f"{records:,} records, {size:.2f} GB"
    rows = _compare(
        folder, f"{what}: read, kept, in round-robin order", "read", "parse"
    )
    size = (folder / MAPPED).stat().st_size / 1e9
    what = f"{records:,} lines of columns of one's own, {size:.2f} GB"
    return rows + _compare(folder, f"{what}: read", "read_mapped", "parse_mapped")


def _compare(folder: Path, title: str, ours: str, peer: str) -> list[Row]:
    """The seconds of two children by turns, the best of each, and the peak of ours."""
    our_seconds: list[float] = []
    peer_seconds: list[float] = []
    peaks: list[float] = []
    for _ in range(REPEATS):
        seconds, peak = _child(ours, folder)
        our_seconds.append(seconds)
        peaks.append(peak)
        seconds, _ = _child(peer, folder)
        peer_seconds.append(seconds)
    best, best_of_peer, highest = min(our_seconds), min(peer_seconds), max(peaks)
    goal = SPEED_GOAL * best_of_peer
    return [
        Row(title, best, "s", best_of_peer, goal, best <= goal),
        Row(f"{title}: peak", highest, "GB", None, PEAK_GOAL, highest <= PEAK_GOAL),
    ]


def write_data(folder: Path, records: int) -> None:
    """The same records as one array, as lines, and as lines under names of somebody's
    own: words with some quotes, accents and record-like ends among them."""
    rng = random.Random(0)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9)))
        for _ in range(5000)
    ]
    words += ['"quoted"', "naïve", "}, {", "\\n", "line\nbreak"]
    asked, answered = (
        [_text(rng, words, *span) for _ in range(3000)] for span in ((60, 200), (2, 80))
    )
    with (
        (folder / "flan_mini.json").open("w", encoding="utf-8") as array,
        (folder / "lines").open("w") as lines,
        (folder / MAPPED).open("w", encoding="utf-8") as mapped,
    ):
        for number in range(records):
            source = json.dumps(f"task{number * 7919 % TASKS:04d}_made")
            question, answer = rng.choice(asked), rng.choice(answered)
            said = (
                f'{{"from": "human", "value": {question}}}, {{"from": "gpt", "value":'
                f" {answer}}}"
            )
            row = (
                f'{{"id": "r{number}", "source": {source}, "conversations": [{said}]}}'
            )
            array.write(f"{', ' if number else '['}{row}")
            lines.write(row + "\n")
            mapped.write(
                f'{{"question": {question}, "answer": {answer}, "category": {source}, "key":'
                f' "r{number}"}}\n'
            )
        array.write("]")


def _text(rng: random.Random, words: list[str], least: int, most: int) -> str:
    return json.dumps(
        " ".join(rng.choices(words, k=rng.randint(least, most))), ensure_ascii=False
    )


def _child(what: str, folder: Path) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.readers", "--child", what, str(folder)]
    os.sync()  # what was written before is not this child's to wait for
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def _measured(work: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    import resource

    began = time.perf_counter()
    work(folder)
    seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _read(folder: Path) -> None:
    from jobs.preparing import records
    from zsg_core.data import readers
    from zsg_core.data.readers.intake import Intake
    from zsg_core.digest import digest_ids
    from zsg_core.orders.by_task import order_by_task

    with tempfile.TemporaryDirectory(dir=folder) as made:
        records.write_records(
            Path(made), readers.read_examples("flan_mini", folder, Intake())
        )
        kept = records.Records(Path(made))
        kept.refuse_doubled(folder)
        places = np.concatenate(list(kept.places().values()))
        order = order_by_task("round_robin", kept.texts("task", places), seed=0)
        digest_ids(kept.texts("id", places[np.array(order)]))


def _parse(folder: Path) -> None:
    with (folder / "lines").open(encoding="utf-8") as lines:
        for line in lines:
            json.loads(line)


def _read_mapped(folder: Path) -> None:
    from zsg_core.data import readers
    from zsg_core.data.readers.intake import Intake

    examples = readers.read_examples("records", folder / MAPPED, Intake(), FIELDS)
    for _ in examples:
        pass


def _parse_mapped(folder: Path) -> None:
    with (folder / MAPPED).open(encoding="utf-8") as lines:
        for line in lines:
            json.loads(line)


CHILDREN = {
    "read": _read,
    "parse": _parse,
    "read_mapped": _read_mapped,
    "parse_mapped": _parse_mapped,
}


if __name__ == "__main__":
    main()
