"""Does a plan bound the examples of small data by their rows, never below what the data
give?"""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.folder import Workspace
from jobs.preparing import corpus as corpora
from launcher.grids import inputs
from launcher.planning import row_counts
from zsg_core.recipe import corpus_id, list_sources, make_recipe
from zsg_core.settings.run import Settings

FIELDS = {"prompt": "question", "answer": "answer", "task": "kind"}
ROWS = [
    {"question": f"{number} + 1?", "answer": str(number + 1), "kind": kind}
    for kind, size in (("sums", 10), ("words", 5), ("tales", 1))
    for number in range(size)
]
RECORDS: dict[str, Any] = {"set": "records", "path": "rows.jsonl", "fields": FIELDS}
BY_ROWS = {"by": "rows", "share": "1/5"}


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of three tasks under names of their own, in the folder where one is."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def bound(data: dict[str, Any]) -> dict[str, int | None]:
    """The most examples of each split, of all sources."""
    settings = Settings.model_validate({"data": data})
    digests = inputs.Inputs(Path("digests.json")).digest_inputs(settings)
    recipe = make_recipe(settings, digests)["stages"][0]["data"]
    counts: dict[str, int | None] = {"train": 0, "test": 0}
    for name, source in list_sources(recipe).items():
        files = inputs.source_files(name, settings.data.by_source()[name])
        for split in counts:
            if split in source:
                counts[split] = row_counts.bound_examples(files, source, split)
    return counts


@pytest.mark.engine  # makes the data, with datasets
@pytest.mark.parametrize(
    ("data", "exact"),
    [
        pytest.param({"held_out": BY_ROWS}, True, id="a share of the rows"),
        pytest.param(
            {"held_out": BY_ROWS, "train_per_task": 3, "test_per_task": 1},
            True,
            id="capped",
        ),
        pytest.param({"held_out": BY_ROWS, "fraction": "1/4"}, True, id="a fraction"),
        pytest.param({"test_path": "rows.jsonl"}, True, id="test data of their own"),
        pytest.param(
            {"held_out": {"by": "seed", "tasks": 1}}, False, id="a task held out"
        ),
        pytest.param(
            {"held_out": {"by": "seed", "tasks": 1}, "train_tasks": 1},
            False,
            id="one task to train on",
        ),
    ],
)
def test_data_give_no_more_than_their_bound(
    tmp_path: Path, data: dict[str, Any], exact: bool
) -> None:
    """Of rows that are held out, of caps and of shares it is exact; of tasks that are
    drawn it is at most."""
    whole = {**RECORDS, "train_per_task": None, "test_per_task": None, **data}
    settings = Settings.model_validate({"data": whole})
    digests = inputs.Inputs(tmp_path / "digests.json").digest_inputs(settings)
    recipe = make_recipe(settings, digests)
    files = {"": inputs.source_files("", settings.data.by_source()[""])}
    made = corpora.make_corpus(
        Workspace(tmp_path / "work"),
        corpus_id(recipe),
        recipe["stages"][0]["data"],
        files,
    )

    counts = {"train": len(made.train), "test": len(made.test)}
    most = bound(whole)

    if exact:
        assert most == counts
    assert all((most[split] or 0) >= counts[split] for split in counts)


def test_data_that_cannot_be_counted_are_unknown(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with a row that is no example, unless it is to be passed over, and large ones."""
    data = {**RECORDS, "held_out": BY_ROWS, "train_per_task": None}
    with rows.open("a") as file:
        file.write("no row\n")

    bounds = [bound(data)["train"], bound({**data, "on_bad_row": "skip"})["train"]]
    monkeypatch.setattr(row_counts, "MOST_BYTES", 10)
    rows.rename("large.jsonl")

    large = {**data, "path": "large.jsonl", "on_bad_row": "skip"}

    assert [*bounds, bound(large)["train"]] == [None, 13, None]
