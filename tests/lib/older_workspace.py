"""A workspace as zsg at e79a027 left it, and the data and grids that it was made of.

`golden/older_workspace` holds what such a workspace has of its runs, with `@FOLDER@`
for the folder it lay in: no weights, no caches. To make it again: `python -m
tests.lib.older_workspace FOLDER`; in FOLDER, with zsg at e79a027, `zsg submit
before.yaml` and `zsg submit scored.yaml`; then `python -m
tests.lib.older_workspace FOLDER --keep`.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.lib.builders import write_niv2

KEPT = Path(__file__).resolve().parents[1] / "golden/older_workspace"
HERE = "@FOLDER@"
RUN_FILES = ("job.json", "attempt.json", "exit.json", "test_set.json")
GRID = """
name: {name}
defaults:
  model: {{name: tiny, hidden: 32, layers: 1, vocab: 400}}
  data: {{path: tasks, train_per_task: 2, test_per_task: 1, positive_examples: 0}}
  train: {{batch: 2, steps: 2, lr: 2e-3, max_length: 64, precision: fp32}}
  checkpoints: {{every: 1, snapshots: 2, metrics: {metrics}}}
grid:
{points}
"""
UNCHANGED = "  - {arrangement.order: [random]}"
WARM_UP = "  - {train.warmup_share: [0.5]}"
SHARDS = (
    "  - {data: [{set: p3, path: shards, test_path: held.jsonl, train_per_task: 2, test_per_task:"
    " 1}]}"
)


def write_inputs(folder: Path) -> None:
    """The data and the grids, as users write them."""
    write_niv2(folder / "tasks")
    (folder / "shards").mkdir()
    for shard in range(2):
        rows = [
            {"prompt": f"say {2 * shard + i}", "completion": f"word {2 * shard + i}"}
            for i in range(2)
        ]
        _write_rows(folder / f"shards/sst_say-{shard:05}-of-00002.jsonl", rows)
    _write_rows(folder / "held.jsonl", [{"prompt": "say nine", "completion": "nine"}])
    before = GRID.format(
        name="before", metrics="[loss]", points="\n".join((UNCHANGED, WARM_UP, SHARDS))
    )
    (folder / "before.yaml").write_text(before)
    (folder / "scored.yaml").write_text(
        GRID.format(name="scored", metrics="[loss, exact_match]", points=UNCHANGED)
    )


def lay_out(folder: Path) -> None:
    """The workspace, its inputs and its grids in a folder."""
    write_inputs(folder)
    for path in sorted(KEPT.rglob("*")):
        target = folder / "zsg-work" / path.relative_to(KEPT)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text().replace(HERE, str(folder)))


def keep(folder: Path) -> None:
    """Takes what `lay_out` gives back from a workspace that zsg has made."""
    work = folder / "zsg-work"
    shutil.rmtree(KEPT, ignore_errors=True)
    for path in _worth_keeping(work):
        target = KEPT / path.relative_to(work)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text().replace(str(folder.resolve()), HERE))


def _worth_keeping(work: Path) -> Iterator[Path]:
    yield work / "ledger.jsonl"
    yield from sorted(work.glob("grids/*/grid.json"))
    for run in sorted(work.glob("runs/*")):
        yield from (run / name for name in RUN_FILES)
        yield from sorted(run.glob("journal/*"))
        yield from sorted(run.glob("answers/*"))
        yield from sorted(run.glob("snapshots/*/meta.json"))
        yield from sorted(run.glob("snapshots/*/COMMIT"))


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    """Writes the inputs, or keeps what was made of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    if given.keep:
        keep(given.folder)
    else:
        given.folder.mkdir(parents=True)
        write_inputs(given.folder)


if __name__ == "__main__":
    main()
