"""Do file names tell splits apart and shards together, and is a template called by its name?"""

from pathlib import Path

import pytest

from zsg_core.data.readers import names
from zsg_core.errors import UserError

# Files of a source; whether names are tasks; the splits that they are of.
SPLITS = [
    pytest.param(
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        False,
        ["train"],
        id="shards",
    ),
    pytest.param(
        ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"],
        False,
        ["test", "train"],
        id="hub",
    ),
    pytest.param(
        [
            "train-00000-of-00001-0a1b2c3d4e.parquet",
            "dev-00000-of-00001-0a1b2c3d4e.parquet",
        ],
        False,
        ["dev", "train"],
        id="hub, with a digest",
    ),
    pytest.param(
        ["train_sft-00000-of-00001.parquet", "test_sft-00000-of-00001.parquet"],
        False,
        ["test_sft", "train_sft"],
        id="splits of other names",
    ),
    pytest.param(
        ["chat-00000-of-00001.parquet", "code-00000-of-00001.parquet"],
        False,
        ["chat", "code"],
        id="splits of any name",
    ),
    pytest.param(
        ["train/0000.parquet", "validation/0000.parquet"],
        False,
        ["train", "validation"],
        id="folders",
    ),
    pytest.param(
        ["a/train/0000.parquet", "b/train/0000.parquet"],
        False,
        ["train"],
        id="one split of several sets",
    ),
    pytest.param(
        ["train.jsonl", "valid.jsonl"], False, ["train", "validation"], id="bare names"
    ),
    pytest.param(
        ["train.parquet", "extra.parquet"],
        False,
        ["extra", "train"],
        id="what is no shard of train",
    ),
    pytest.param(["train_0.json", "train_1.json"], False, ["train"], id="numbers"),
    pytest.param(
        ["gsm8k_train.json", "gsm8k_test.json"],
        False,
        ["test", "train"],
        id="words at the end",
    ),
    pytest.param(["0000.parquet", "0001.parquet"], False, [""], id="numbers alone"),
    pytest.param(
        [
            "part-00000-0a1b2c3d-0000-4000-8000-0123456789ab-c000.parquet",
            "part-00001-0a1b2c3d-0000-4000-8000-0123456789ab-c000.parquet",
        ],
        False,
        [""],
        id="Spark",
    ),
    pytest.param(["alpaca.json", "dolly.json"], False, [""], id="no word of a split"),
    pytest.param(
        ["race_high_Taking_a_test.jsonl", "race_high_Select.jsonl"],
        True,
        [""],
        id="templates",
    ),
    pytest.param(
        ["quail_train.jsonl", "quail_test.jsonl"],
        True,
        ["test", "train"],
        id="one template's splits",
    ),
    pytest.param(
        ["x/train.json", "x/test.json"], True, ["test", "train"], id="a task's splits"
    ),
]


@pytest.mark.parametrize(("files", "names_are_tasks", "splits"), SPLITS)
def test_files_of_several_splits_are_told_apart(
    files: list[str], names_are_tasks: bool, splits: list[str]
) -> None:
    """By the hub's, `datasets`' and other tools' ways of naming; shards of one split
    stay together."""
    folder = Path("/d")
    there = [folder / file for file in files]

    made = names.group_by_split(there, folder, names_are_tasks)

    assert sorted(made) == splits
    if len(splits) > 1:
        with pytest.raises(UserError, match=f"several splits: .*{splits[0]}"):
            names.refuse_several_splits(folder, folder, there, names_are_tasks)


def test_a_refusal_names_a_path_for_each_split() -> None:
    """One file is named as it is, several by a pattern that means them and no others."""
    folder = Path("/d")
    files = [
        folder / f"{split}-0000{n}-of-00002.parquet"
        for split in ("test", "train")
        for n in range(2)
    ]

    with pytest.raises(UserError) as caught:
        names.refuse_several_splits(
            folder, folder, [*files[1:], folder / "dev.parquet"]
        )

    assert str(caught.value).endswith(
        "/d/test-00001-of-00002.parquet, /d/train-*.parquet, /d/dev.parquet"
    )


# Files below /data/p3; the template of each; the name that is none of theirs.
TASKS = [
    pytest.param(["x_a.jsonl", "x_b.jsonl"], ["x_a", "x_b"], None, id="files"),
    pytest.param(
        ["x_a-00000-of-00002.jsonl", "x_a-00001-of-00002.jsonl"],
        ["x_a", "x_a"],
        None,
        id="shards",
    ),
    pytest.param(
        ["x_a/train/0000.parquet", "x_b/train/0000.parquet"],
        ["x_a", "x_b"],
        None,
        id="folders",
    ),
    pytest.param(
        ["x_a/train/0000.parquet", "x_a/train/0001.parquet"],
        ["x_a", "x_a"],
        None,
        id="shards in a folder",
    ),
    pytest.param(
        ["org+x_a/x_a+train/0000.parquet"], ["x_a"], None, id="zsg's downloads"
    ),
    pytest.param(
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["p3", "p3"],
        "p3",
        id="above",
    ),
    pytest.param(
        ["data/data-00000-of-00001.arrow"], ["p3"], "p3", id="of save_to_disk"
    ),
    pytest.param(["train.jsonl"], ["train"], None, id="a file alone, called as it was"),
    pytest.param(
        ["cnn_3.0.0_q.jsonl", "anli_GPT_3.jsonl"],
        ["cnn_3.0.0_q", "anli_GPT_3"],
        None,
        id="numbers of names",
    ),
]


@pytest.mark.parametrize(("files", "tasks", "outside"), TASKS)
def test_a_template_is_called_by_its_name_and_never_by_a_shard(
    files: list[str], tasks: list[str], outside: str | None
) -> None:
    """The file's, or the nearest folder's that says something; one above the source is
    told, for no digest knows it."""
    folder = Path("/data/p3")

    made, above = names.find_tasks([folder / file for file in files], folder)

    assert (list(made.values()), above) == (tasks, outside)


def test_a_shard_of_nothing_known_is_refused() -> None:
    """No name is made up."""
    with pytest.raises(UserError, match="nothing tells which template"):
        names.find_tasks([Path("/data/train/0000.parquet")], Path("/data"))
