"""Makes a small set of instruction tasks, or of benchmarks with data to tune on: python
-m zsg_core.skills FOLDER [--per-task N] [--seed S] [--large] [--benchmarks] …"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from zsg_core.errors import UserError
from zsg_core.skills import FAMILIES, MOST_PER_TASK, make_task_files, write_tasks
from zsg_core.skills.benchmarks import CHOICES, WORDS, write_benchmarks


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: writes a folder and says in one line what is in it."""
    parser = argparse.ArgumentParser(
        prog="python -m zsg_core.skills", description=main.__doc__
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="where to write; must be new, empty or hold the same tasks",
    )
    parser.add_argument(
        "--per-task",
        type=int,
        default=40,
        help=f"instances of each task, at most {MOST_PER_TASK} (default 40)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the instances (default 0)"
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help="for studies: 36 training tasks in place of 24, 24 held-out ones in place of 6",
    )
    parser.add_argument(
        "--family",
        action="append",
        default=[],
        choices=FAMILIES,
        metavar="NAME",
        help=f"only tasks of this family; may be repeated: {', '.join(FAMILIES)}",
    )
    parser.add_argument(
        "--benchmarks",
        action="store_true",
        help="two benchmarks for lm-evaluation-harness, of MMLU's and of GSM8K's shape, and"
        " data to tune on; only --seed counts beside it",
    )
    arguments = parser.parse_args(argv)
    if arguments.benchmarks:
        _write_benchmarks(parser, arguments.folder, arguments.seed)
        return
    selection = {"large": arguments.large, "families": arguments.family}
    try:
        write_tasks(arguments.folder, arguments.per_task, arguments.seed, **selection)
    except UserError as error:
        parser.error(str(error))
    files = make_task_files(1, arguments.seed, **selection)
    train, test = (
        files[f"splits/default/{split}_tasks.txt"].count("\n")
        for split in ("train", "test")
    )
    families = len(
        {
            json.loads(text)["Categories"][0]
            for name, text in files.items()
            if name.startswith("tasks/")
        }
    )
    families_text = "1 family" if families == 1 else f"{families} families"
    tasks = f"{train} training and {test} held-out tasks in {families_text}"
    print(f"{arguments.folder}: {tasks}, {arguments.per_task} instances each")


def _write_benchmarks(parser: argparse.ArgumentParser, folder: Path, seed: int) -> None:
    """Writes the benchmarks, and says in one line what is where."""
    try:
        write_benchmarks(folder, seed=seed)
    except UserError as error:
        parser.error(str(error))
    print(
        f"{folder}: tasks {CHOICES} and {WORDS} in benchmarks, train.jsonl, test.jsonl"
    )


if __name__ == "__main__":
    main()
