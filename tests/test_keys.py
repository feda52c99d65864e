"""Is what changes a row's meaning refused by its name, what stands beside counted, and
all else left in peace?"""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from zsg_core.data import readers
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import BadData

ASKED = {"role": "user", "content": "q"}
ANSWERED = {"role": "assistant", "content": "a"}


def talk(**marks: Any) -> dict[str, Any]:
    """Two turns; the first answer has the marks."""
    return {"messages": [ASKED, ANSWERED | marks, ASKED, ANSWERED]}


def told(*messages: dict[str, Any]) -> dict[str, Any]:
    """The same as ShareGPT has it."""
    names = {"user": "human", "assistant": "gpt"}
    own = [
        {"from": names[one["role"]], "value": one["content"], **_marks(one)}
        for one in messages
    ]
    return {"conversations": own}


def _marks(message: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in message.items() if key not in ("role", "content")
    }


QUESTION = {"question": "q", "answer": "a"}
ORDER = {"instruction": "q", "input": "", "output": "a"}
REFUSED = [
    ("messages", talk(weight=0), "messages[1]: `weight: 0`"),
    ("messages", talk(weight=0.5), "messages[1]: `weight: 0.5`"),
    ("messages", talk(train=False), "messages[1]: `train: false`"),
    ("messages", talk(training=False), "messages[1]: `training: false`"),
    ("messages", talk(trainable=False), "messages[1]: `trainable: false`"),
    ("messages", talk(loss=False), "messages[1]: `loss: false`"),
    ("messages", talk(loss_mask=0), "messages[1]: `loss_mask: 0`"),
    ("messages", talk(loss_mask=[1, 0]), "messages[1]: `loss_mask: [1,0]`"),
    ("messages", talk(mask=1), "messages[1]: `mask: 1`"),
    ("messages", talk(masked=True), "messages[1]: `masked: true`"),
    (
        "messages",
        talk(train_detail=[{"begin_offset": 0}]),
        "messages[1]: `train_detail: ",
    ),
    ("messages", talk(prefix=True), "messages[1]: `prefix: true`"),
    ("messages", talk(deleted=True), "messages[1]: `deleted: true`"),
    ("messages", talk(tool_calls=[{"id": "1"}]), "messages[1]: `tool_calls: "),
    ("messages", talk(children=[ASKED]), "messages[1]: `children: "),
    (
        "sharegpt",
        told(ASKED, ANSWERED | {"weight": 0}),
        "conversations[1]: `weight: 0`",
    ),
    (
        "sharegpt",
        told(ASKED, ANSWERED | {"loss_weight": 0.0}),
        "conversations[1]: `loss_weight: 0.0`",
    ),
    (
        "flan_mini",
        {"source": "t", **told(ASKED, ANSWERED | {"train": False})},
        "conversations[1]: `train: false`",
    ),
    ("sharegpt", {**told(ASKED, ANSWERED), "mask": "gpt"}, '`mask: "gpt"`'),
    ("sharegpt", {**told(ASKED, ANSWERED), "train": False}, "`train: false`"),
    ("messages", {**talk(), "loss_mask": [0, 1, 0, 1]}, "`loss_mask: [0,1,0,1]`"),
    ("messages", {**talk(), "label": False}, "`label: false`"),
    ("alpaca", {**ORDER, "kto_tag": False}, "`kto_tag: false`"),
    ("alpaca", {**ORDER, "weight": 0}, "`weight: 0`"),
    ("gsm8k", {**QUESTION, "deleted": True}, "`deleted: true`"),
    ("p3", {"prompt": "q", "completion": "a", "label": False}, "`label: false`"),
]


@pytest.mark.parametrize(
    ("name", "row", "said"),
    REFUSED,
    ids=[f"{name} {said}" for name, _, said in REFUSED],
)
@pytest.mark.parametrize("skip", [False, True])
def test_what_is_not_to_be_learnt_is_refused(
    tmp_path: Path, name: str, row: dict[str, Any], said: str, skip: bool
) -> None:
    """With file, line, key and value. No setting passes over it: leaving out a row that
    can be read is a choice."""
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")

    with pytest.raises(BadData) as caught:
        list(readers.read_examples(name, tmp_path / "x.jsonl", Intake(skip)))

    assert str(caught.value).startswith(f"{tmp_path}/x.jsonl:1: {said}")


COUNTED = [
    (
        "messages",
        talk(reasoning_content="why"),
        {"`reasoning_content` beside a message's content": 1},
    ),
    ("messages", talk(thinking="why"), {"`thinking` beside a message's content": 1}),
    ("messages", talk(name="Ada"), {"`name` of a message's speaker": 1}),
    (
        "messages",
        {**talk(), "system": "s"},
        {"`system` beside what is read of a row": 1},
    ),
    (
        "messages",
        {**talk(), "rejected_response": "b"},
        {"rejected side of a preference": 1},
    ),
    (
        "messages",
        {"chosen_messages": [ASKED, ANSWERED], "rejected_messages": [ASKED, ANSWERED]},
        {"rejected side of a preference": 1},
    ),
    (
        "messages",
        {"messages": [{**ASKED, "train": True}, ANSWERED]},
        {"`train` of a user's message, of which nothing is learnt": 1},
    ),
    (
        "sharegpt",
        {**told(ASKED, ANSWERED), "system_prompt": "s"},
        {"`system_prompt` beside what is read of a row": 1},
    ),
    (
        "sharegpt",
        {**told(ASKED, ANSWERED), "tools": "[]"},
        {"`tools` beside what is read of a row": 1},
    ),
    ("gsm8k", {**QUESTION, "context": "c"}, {"`context` beside a question": 1}),
    (
        "gsm8k",
        {**QUESTION, "is_correct": False},
        {"row with `is_correct: false`, which is learnt as any other": 1},
    ),
    (
        "gsm8k",
        {**QUESTION, "weight": 0.5},
        {"`weight` of a row, and all rows count alike": 1},
    ),
]


@pytest.mark.parametrize(
    ("name", "row", "notes"),
    COUNTED,
    ids=[f"{one[0]} {next(iter(one[2]))}" for one in COUNTED],
)
def test_what_stands_beside_what_is_read_is_counted(
    tmp_path: Path, name: str, row: dict[str, Any], notes: dict[str, int]
) -> None:
    """The example is as it was, and the notes say what is not in it."""
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    intake = Intake()

    (made,) = readers.read_examples(name, tmp_path / "x.jsonl", intake)

    assert {turn for turn in made.turns} == {("q", "a")}
    assert intake.notes == notes


HARMLESS = [
    ("messages", talk(weight=1)),
    (
        "messages",
        talk(
            weight=1.0,
            train=True,
            loss=None,
            mask=False,
            prefix=False,
            tool_calls=[],
            deleted=False,
        ),
    ),
    (
        "messages",
        {"messages": [{**ASKED, "weight": 0, "loss_mask": 0, "mask": 1}, ANSWERED]},
    ),
    (
        "messages",
        {"messages": [{"role": "tool", "content": "q", "name": "search"}, ANSWERED]},
    ),
    (
        "messages",
        {
            **talk(),
            "id": 3,
            "meta": {"weight": 0},
            "label": 0,
            "lang": "en",
            "label_text": False,
        },
    ),
    (
        "sharegpt",
        {**told(ASKED, ANSWERED), "mask": "User", "label": "positive", "kto_tag": True},
    ),
    (
        "alpaca",
        {**ORDER, "is_correct": True, "split": "train", "weight": 1, "label": None},
    ),
    ("gsm8k", {**QUESTION, "context": " ", "choices": []}),
]


@pytest.mark.parametrize(("name", "row"), HARMLESS)
def test_a_key_that_changes_nothing_is_left_in_peace(
    tmp_path: Path, name: str, row: dict[str, Any]
) -> None:
    """Marks that say what holds anyway, marks of what is never learnt, and every key
    that nobody knows."""
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    intake = Intake()

    (made,) = readers.read_examples(name, tmp_path / "x.jsonl", intake)

    assert {turn for turn in made.turns} == {("q", "a")}
    assert not intake.notes


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_a_mark_is_found_wherever_it_stands(tmp_path: Path, ending: str) -> None:
    """In the middle of lines, of an array, of a table: the row's own place is told."""
    rows = [talk(weight=weight) for weight in (1, 1, 0, 1)]
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text if ending == "jsonl" else json.dumps(rows))
    name = "huggingface" if ending == "parquet" else "messages"

    with pytest.raises(BadData, match=r"x\.\w+(:3|\[2\]): messages\[1\]: `weight: 0"):
        list(readers.read_examples(name, path, Intake()))


def test_rows_of_several_splits_are_not_one_set(tmp_path: Path) -> None:
    """A column that says train of some rows and test of others: refused with both; one
    split is read."""
    for name, splits in {
        "mixed": ("train", "test", "train"),
        "one": ("test", "test"),
    }.items():
        rows = [{**QUESTION, "split": split} for split in splits]
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )

    with pytest.raises(
        BadData, match=r"several splits: train \(2 rows\), test \(1 rows\)"
    ):
        list(readers.read_examples("gsm8k", tmp_path / "mixed.jsonl", Intake()))
    assert (
        len(list(readers.read_examples("gsm8k", tmp_path / "one.jsonl", Intake()))) == 2
    )


def test_preference_rows_keep_their_error_under_skip(tmp_path: Path) -> None:
    """`loss_weight` in messages is a bad row as it always was: passed over and counted
    where that is asked for."""
    rows = [talk(loss_weight=0.0), talk()]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    intake = Intake(skip=True)

    assert (
        len(list(readers.read_examples("messages", tmp_path / "x.jsonl", intake))) == 1
    )
    assert intake.skipped == 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_refused_row_closes_its_file_at_once(tmp_path: Path, packed: bool) -> None:
    """Not when the error is forgotten: a handle that is left to the garbage collector
    is a warning at some later, unrelated line."""
    name = "x.jsonl.gz" if packed else "x.jsonl"
    write = gzip.open if packed else open
    with write(tmp_path / name, "wt") as file:
        file.write(json.dumps(talk(deleted=True)) + "\n")
    before = set(Path("/proc/self/fd").iterdir())

    with pytest.raises(BadData) as caught:
        list(readers.read_examples("messages", tmp_path / name, Intake()))

    assert caught.value.__traceback__ is not None
    assert set(Path("/proc/self/fd").iterdir()) <= before
