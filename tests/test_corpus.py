"""Are records kept as they were read, and is a corpus what its recipe says?"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.contract.folder import Workspace, is_committed
from jobs.preparing import corpus as corpora
from jobs.preparing import records, source_dataset
from jobs.preparing.corpus import Corpus
from jobs.preparing.source_files import SourceFiles
from launcher.grids import inputs
from tests.lib.builders import task, write_niv2
from zsg_core.data.examples import Example
from zsg_core.errors import UserError
from zsg_core.recipe import corpus_id, make_recipe
from zsg_core.settings.run import Settings

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TURN = st.tuples(TEXT, TEXT)
EXAMPLES = st.lists(
    st.builds(
        Example,
        id=st.uuids().map(str),
        task=st.just("bare") | TEXT,
        turns=st.lists(TURN, min_size=1, max_size=3).map(tuple),
        system=TEXT,
        references=st.lists(TEXT, max_size=3).map(tuple),
        tags=st.lists(TEXT, max_size=2).map(tuple),
        options=st.lists(TEXT, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EXAMPLES, st.integers(1, 3))
def test_what_is_written_is_read(tmp_path, monkeypatch, examples, batch):
    """Examples of any text come back as they were, from any batch, in any order, and
    their ids and tasks alone."""
    monkeypatch.setattr(records, "ROWS", batch)
    count = records.write_records(tmp_path, examples, with_options=True)
    made = records.Records(tmp_path)
    places = np.arange(len(examples))[::-1]

    assert [made[place] for place in places] == examples[::-1]
    assert count == len(made) == len(examples)
    assert made.texts("id", places) == [e.id for e in examples[::-1]]
    assert {name: found.tolist() for name, found in made.places().items()} == {
        name: [i for i, e in enumerate(examples) if e.task == name]
        for name in dict.fromkeys(e.task for e in examples)
    }


def test_options_have_a_column_only_where_the_format_may_have_them(tmp_path):
    """Records of other formats are the bytes that they were before there were options."""
    example = Example(id="t:0", task="t", turns=(("q", "a"),), options=("a", "b"))
    for name, kept in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        records.write_records(tmp_path / name, [example], with_options=kept)

    assert records.Records(tmp_path / "with")[0].options == ("a", "b")
    assert records.Records(tmp_path / "without")[0].options == ()
    assert b"options" not in (tmp_path / "without" / records.DATA).read_bytes()


def test_definitions_are_kept_once_a_task(tmp_path):
    """What the instances of a task share stands beside the rows, and is in every example."""
    shared = {"task": "t", "definition": "Do it.", "shots": (("a", "b"),)}
    examples = [
        Example(id=f"t:{i}", turns=((f"q{i}", "a"),), **shared) for i in range(3)
    ]
    records.write_records(tmp_path, examples)

    assert list(records.Records(tmp_path)) == examples
    assert (
        json.loads((tmp_path / "tasks.json").read_text())["t"]["definition"] == "Do it."
    )


def test_hugging_face_opens_the_records(tmp_path):
    """`datasets.load_from_disk` maps the folder, with its columns and types."""
    import datasets

    examples = [
        Example(id=f"t:{i}", task="t", turns=(("q", "a"), ("r", "b")), tags=("x",))
        for i in range(3)
    ]
    records.write_records(tmp_path, examples)

    rows = datasets.load_from_disk(str(tmp_path))

    assert rows["id"][:] == ["t:0", "t:1", "t:2"]
    assert rows[1]["turns"] == [
        {"user": "q", "assistant": "a"},
        {"user": "r", "assistant": "b"},
    ]


def test_an_id_that_stands_twice_is_refused(tmp_path):
    """Orders and journals name examples by their ids."""
    records.write_records(
        tmp_path, [Example(id="same", task="t", turns=(("q", "a"),))] * 2
    )

    with pytest.raises(UserError, match="'same' stands more than once"):
        records.Records(tmp_path).refuse_doubled(tmp_path)


@pytest.fixture
def make(tmp_path, logged):
    """Makes the corpus of some data settings; what it says stands in `make.said`."""
    workspace = Workspace(tmp_path / "work")

    def of(**data) -> Corpus:
        wanted = Settings.model_validate(
            {"data": {"path": str(tmp_path / "data"), **data}}
        )
        made = make_recipe(
            wanted, inputs.Inputs(tmp_path / "digests.json").digest_inputs(wanted)
        )
        files = {
            name: inputs.source_files(name, source)
            for name, source in wanted.data.by_source().items()
        }
        return corpora.make_corpus(
            workspace, corpus_id(made), made["stages"][0]["data"], files
        )

    of.said, of.workspace = logged, workspace  # type: ignore[attr-defined]
    return of


def write_rows(path: Path, rows: list[dict]) -> None:
    """JSON lines."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def questions(*names: str) -> list[dict]:
    """GSM8K rows."""
    return [{"question": name, "answer": name.upper()} for name in names]


def test_a_corpus_is_sampled_from_its_lists(tmp_path, make):
    """Tasks in the order of the lists, capped; the second corpus of the data parses
    nothing again."""
    write_niv2(
        tmp_path / "data", {"task2": task(5), "task1": task(3), "task9": task(4)}
    )

    made = make(train_per_task=4, test_per_task=2, sampling="first")
    other = make(train_per_task=1, test_per_task=1, sampling="first")

    assert made.train.ids == [f"task2:{i}" for i in range(4)] + [
        f"task1:{i}" for i in range(3)
    ]
    assert made.train.tasks == ["task2"] * 4 + ["task1"] * 3
    assert [example.id for example in made.test] == ["task9:0", "task9:1"]
    assert made.meta["sources"][""]["records"] == other.meta["sources"][""]["records"]
    assert sum("examples of niv2" in text for text in make.said) == 1


def test_the_label_drawn_is_the_recipes(tmp_path, make):
    """Of several references one is drawn by the seed, the same whenever the corpus is opened."""
    rows = [{"id": str(i), "input": "q", "output": ["a", "b", "c"]} for i in range(30)]
    write_niv2(tmp_path / "data", {"task1": task(0, Instances=rows), "task9": task(1)})

    answers = [
        [example.answer for example in make(sample_seed=seed).train]
        for seed in (0, 0, 1)
    ]

    assert set(answers[0]) == {"a", "b", "c"}
    assert answers[0] == answers[1] != answers[2]


def test_test_data_of_their_own_are_whole_and_their_overlap_is_told(tmp_path, make):
    """A set of one task has no cap; prompts that stand on both sides, in whatever case,
    are counted with an example."""
    write_rows(tmp_path / "data/train.jsonl", questions("a", "b c", "d"))
    write_rows(
        tmp_path / "test/test.jsonl",
        [*questions("x"), {"question": " B  C ", "answer": "other"}, *questions("D")],
    )

    made = make(set="gsm8k", test_path=str(tmp_path / "test/test.jsonl"))

    assert (len(made.train), len(made.test)) == (3, 3)
    assert made.meta["overlap"] == {
        "prompts": 2,
        "with_answer": 1,
        "first": [["gsm8k:1", "gsm8k:1", False], ["gsm8k:2", "gsm8k:2", True]],
    }
    assert any(
        "2 test prompts stand in the training examples too, 1 of them" in text
        for text in make.said
    )


def test_skipped_rows_are_counted_and_told(tmp_path, make):
    """Under `on_bad_row: skip` the records say how many rows were passed over and why;
    else nothing is made."""
    write_rows(
        tmp_path / "data/train.jsonl",
        [*questions("a"), {"question": 3}, *questions("b")],
    )
    write_rows(tmp_path / "test/train.jsonl", questions("x"))
    how = {"set": "gsm8k", "test_path": str(tmp_path / "test")}

    with pytest.raises(UserError, match=r"train\.jsonl:2: "):
        make(**how)
    assert not list((tmp_path / "work").rglob("*.arrow"))
    made = make(**how, on_bad_row="skip")
    meta = json.loads(
        (
            make.workspace.records(made.meta["sources"][""]["records"]["train"])
            / "meta.json"
        ).read_text()
    )
    assert (len(made.train), meta["skipped"]) == (2, 1)
    assert "train.jsonl:2: " in meta["reasons"][0]
    assert any("1 bad rows were passed over" in text for text in make.said)


def test_what_there_is_to_know_of_the_data_is_kept_with_the_corpus(tmp_path, make):
    """Overlap, what was left out and passed over, whoever made the records, in the
    words of the log."""
    write_rows(
        tmp_path / "data/train.jsonl",
        [*questions("a", "b"), {"question": 3}, {**questions("c")[0], "context": "x"}],
    )
    write_rows(tmp_path / "test/train.jsonl", questions("a"))
    how = {"set": "gsm8k", "test_path": str(tmp_path / "test"), "on_bad_row": "skip"}

    # the second finds the records there
    for made in (make(**how), make(**how, count=1)):
        told = json.loads((made.folder / "notes.json").read_text())
        assert told[:2] == [
            (
                f"{tmp_path}/data: 1 bad rows were passed over; the first:"
                f" {tmp_path}/data/train.jsonl:3: Expected `str | null`, got `int` - at"
                " `$.question`"
            ),
            f"{tmp_path}/data: left out 1 times: `context` beside a question",
        ]
    assert (
        "1 test prompts stand in the training examples too"
        in json.loads((make(**how).folder / "notes.json").read_text())[-1]
    )


def test_clean_data_have_no_notes(tmp_path, make):
    """There is nothing to tell, and no file of it."""
    write_rows(tmp_path / "data/train.jsonl", questions("a"))
    write_rows(tmp_path / "test/train.jsonl", questions("b"))

    made = make(set="gsm8k", test_path=str(tmp_path / "test"))

    assert not (made.folder / "notes.json").exists()


def test_empty_answers_are_counted_and_a_set_of_nothing_else_is_refused(tmp_path, make):
    """Of training and of test examples, blanks as well; the examples stay as they are."""
    empty = [{"question": f"e{n}", "answer": " " * n} for n in range(3)]
    write_rows(tmp_path / "data/train.jsonl", [*empty, *questions("a")])
    write_rows(tmp_path / "test/train.jsonl", [*empty[:1], *questions("b", "c")])
    write_rows(tmp_path / "none/train.jsonl", empty)
    how = {"set": "gsm8k", "test_path": str(tmp_path / "test")}

    made = make(**how)

    told = json.loads((made.folder / "notes.json").read_text())
    assert (
        f"{tmp_path}/data: 3 of 4 answers of the 4 training examples are empty"
        in told[0]
    )
    assert (
        f"{tmp_path}/test: 1 of 3 answers of the 3 test examples are empty" in told[1]
    )
    assert (len(made.train), len(made.test)) == (4, 3)
    with pytest.raises(
        UserError, match="none: none of its 3 test examples has an answer"
    ):
        make(set="gsm8k", test_path=str(tmp_path / "none"))
    with pytest.raises(
        UserError, match="none: none of its 3 training examples has an answer"
    ):
        make(**how, path=str(tmp_path / "none"))
    assert not [
        path
        for path in (tmp_path / "work/corpora").iterdir()
        if path.name.startswith(".") and path.is_dir()
    ]


def test_only_the_first_turns_are_kept_where_asked(tmp_path, make):
    """`max_turns: 1` is what TMA does; the answer is then that of the last turn kept."""
    talk = [
        {"from": who, "value": str(n)} for n, who in enumerate(["human", "gpt"] * 3)
    ]
    write_rows(tmp_path / "data/train.jsonl", [{"conversations": talk}])

    made = make(set="sharegpt", test_path=str(tmp_path / "data"), max_turns=2)

    assert [example.turns for example in made.train] == [(("0", "1"), ("2", "3"))]
    assert made.train[0].answer == "3"


def test_held_out_tasks_have_siblings_in_training(tmp_path, make):
    """`by: family` holds one task out of every family of two or more."""
    names = [
        "task1_squad_a",
        "task2_squad_b",
        "task3_piqa_a",
        "task4_piqa_b",
        "task5_only_x",
        "task9_off",
    ]
    write_niv2(tmp_path / "data", {name: task(2) for name in names})

    made = make(held_out={"by": "family"})

    assert sorted(name.split("_")[1] for name in set(made.test.tasks)) == [
        "piqa",
        "squad",
    ]
    assert sorted(name.split("_")[1] for name in set(made.train.tasks)) == [
        "only",
        "piqa",
        "squad",
    ]


def test_data_changed_since_planning_are_refused(tmp_path, make, monkeypatch):
    """Days may lie between plan and prepare."""
    folder = write_niv2(tmp_path / "data")
    refuse = source_dataset.content.refuse_changed

    def change_first(*given) -> None:
        (folder / "tasks/task001_add.json").write_text(json.dumps(task(1)))
        refuse(*given)

    monkeypatch.setattr(source_dataset.content, "refuse_changed", change_first)

    with pytest.raises(UserError, match="has changed since it was submitted"):
        make()
    assert not any(
        is_committed(path) for path in (tmp_path / "work").rglob("*") if path.is_dir()
    )


def test_a_list_changed_since_the_records_were_made_does_not_count(tmp_path, make):
    """A recipe means the files that were planned; their records keep the held-out list, too."""
    folder = write_niv2(
        tmp_path / "data", {"task1": task(2), "task2": task(2), "task9": task(2)}
    )
    before = make(train_per_task=1)
    recipe_of = before.recipe | {"train": before.recipe["train"] | {"per_task": 2}}
    (folder / "splits/default/train_tasks.txt").write_text("task2\n")

    after = corpora.make_corpus(
        make.workspace, "other", recipe_of, {"": SourceFiles(folder)}
    )

    assert after.train.tasks == ["task1"] * 2 + ["task2"] * 2
