"""The benchmarks that zsg makes: of the harness' shapes, the same everywhere, none of
their questions trained on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from zsg_core.data.harness_tasks import TaskShelf
from zsg_core.skills.__main__ import main
from zsg_core.skills.benchmarks import (
    CHOICES,
    KINDS,
    LETTERS,
    WORDS,
    make_benchmark_files,
    write_benchmarks,
)

# Changes whenever any byte of the default set does.
GOLDEN = "d569f2581b0e4eff3df2ca3c6de65521aa21fc8669714a17e2645c1546a23447"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default set on disk."""
    made = tmp_path_factory.mktemp("made") / "benchmarks"
    write_benchmarks(made)
    return made


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_it_is_the_same_everywhere() -> None:
    """Byte for byte, whatever Python; another seed is another set."""
    files = make_benchmark_files(600, 12, 0)
    text = json.dumps(files, sort_keys=True)

    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN
    assert make_benchmark_files(600, 12, 1) != files


def test_its_tasks_pass_what_plan_asks_of_tasks(folder: Path) -> None:
    """A group of subjects, and a task that is answered."""
    shelf = TaskShelf([folder / "benchmarks"])

    assert len(shelf.find(CHOICES).files) == 1 + 2 * len(KINDS)
    assert shelf.find(WORDS).version == "1"


def test_no_question_of_a_benchmark_is_trained_on(folder: Path) -> None:
    """Nor a word that is right in one: what is learnt is how to answer."""
    trained = {row["question"] for row in read_rows(folder / "train.jsonl")}
    tested = read_rows(folder / "test.jsonl")
    right: set[str] = set()
    for kind in KINDS:
        for row in read_rows(folder / f"benchmarks/{CHOICES}_{kind}.jsonl"):
            right.add(row["options"][row["answer"]])
    shown = {word for text in trained for word in text.replace(".", " ").split()}

    assert trained.isdisjoint(row["question"] for row in tested)
    assert not right & shown


def test_answers_are_right(folder: Path) -> None:
    """Letters of words of the kind that is asked for; sums that add up."""
    for kind in KINDS:
        for row in read_rows(folder / f"benchmarks/{CHOICES}_{kind}.jsonl"):
            [right] = [word for word in row["options"] if word in KINDS[kind]]
            assert row["options"][row["answer"]] == right
            assert len(set(row["options"])) == len(LETTERS)
    for row in read_rows(folder / "train.jsonl"):
        if row["task"] == WORDS:
            numbers = [int(word) for word in row["question"].split() if word.isdigit()]
            assert int(row["answer"].split("#### ")[1]) == sum(numbers)


def test_each_letter_is_right_equally_often(folder: Path) -> None:
    """In each subject, so that a model which always says one letter gains nothing."""
    for kind in KINDS:
        rows = read_rows(folder / f"benchmarks/{CHOICES}_{kind}.jsonl")
        right = [row["answer"] for row in rows]

        assert [right.count(place) for place in range(len(LETTERS))] == [3] * 4


def test_it_is_written_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once more is no error; beside something else it is."""
    main([str(tmp_path / "b"), "--benchmarks"])
    main([str(tmp_path / "b"), "--benchmarks"])
    assert f"tasks {CHOICES} and {WORDS}" in capsys.readouterr().out

    (tmp_path / "b/more.txt").write_text("x")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "b"), "--benchmarks"])
    assert "holds something else" in capsys.readouterr().err
