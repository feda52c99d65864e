"""Does plan refuse what data cannot give, and nothing that a prepare job makes?"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.contract.folder import Workspace
from launcher.grids import inputs
from launcher.planning import data_checks, row_counts
from zsg_core.data import splits
from zsg_core.errors import UserError
from zsg_core.recipe import corpus_id, make_recipe
from zsg_core.settings.data import HeldOut
from zsg_core.settings.run import Settings

FIELDS = {"prompt": "question", "answer": "answer", "task": "kind"}
SIZES = {"sums": 10, "words": 5, "geo_rivers": 4, "geo_towns": 3}
ROWS = [
    {"question": f"{kind} {number}?", "answer": str(number), "kind": kind}
    for kind, size in SIZES.items()
    for number in range(size)
]


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of four tasks, in the folder where one is."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return file


def plan_run(**data: Any) -> Any:
    """What plan knows of a run of these data."""
    whole = {"set": "records", "path": "rows.jsonl", "fields": FIELDS, **data}
    settings = Settings.model_validate({"data": whole})
    digests = inputs.Inputs(Path("digests.json")).digest_inputs(settings)
    recipe = make_recipe(settings, digests)
    files = {
        name: inputs.source_files(name, source)
        for name, source in settings.data.by_source().items()
    }
    return SimpleNamespace(
        all_before=[],
        stage=recipe["stages"][0],
        sources=files,
        corpus_id=corpus_id(recipe),
    )


def make_corpus(run: Any, folder: Path) -> Any:
    """What a prepare job makes of them."""
    from jobs.preparing import corpus as corpora

    workspace = Workspace(folder)
    return corpora.make_corpus(workspace, run.corpus_id, run.stage["data"], run.sources)


@pytest.mark.engine  # makes corpora, with datasets
@pytest.mark.parametrize(
    ("data", "trained", "tested"),
    [
        pytest.param(
            {"held_out": {"tasks": ["geo_*"]}},
            {"sums": 10, "words": 5},
            {"geo_rivers": 4, "geo_towns": 3},
            id="held out by a pattern",
        ),
        pytest.param(
            {"held_out": {"tasks": "words"}, "train_tasks": "sums"},
            {"sums": 10},
            {"words": 5},
            id="a specialist",
        ),
        pytest.param(
            {
                "held_out": {"share": "1/2"},
                "train_tasks": ["geo_towns", "words"],
                "test_tasks": ["words"],
            },
            {"words": 3, "geo_towns": 2},
            {"words": 2},
            id="rows of a task",
        ),
        pytest.param(
            {"test_path": "rows.jsonl", "test_tasks": ["sums"], "train_tasks": "geo_*"},
            {"geo_rivers": 4, "geo_towns": 3},
            {"sums": 10},
            id="a task of a test file",
        ),
    ],
)
def test_tasks_are_taken_by_their_names(
    tmp_path: Path, data: dict[str, Any], trained: Any, tested: Any
) -> None:
    """As plan counts them, before they are made."""
    run = plan_run(**data)
    data_checks.refuse_unknown_tasks([run])
    corpus = make_corpus(run, tmp_path / "work")
    for split, of_split, wanted in (
        ("train", corpus.train, trained),
        ("test", corpus.test, tested),
    ):
        tasks = [example.task for example in of_split]
        assert {task: tasks.count(task) for task in dict.fromkeys(tasks)} == wanted
        bound = row_counts.bound_examples(run.sources[""], run.stage["data"], split)
        assert bound == sum(wanted.values())


UNKNOWN = [
    ({"held_out": {"tasks": ["sum", "words"]}}, "'sum'. Did you mean 'sums'"),
    ({"held_out": {"tasks": ["z*"]}}, "no task is called 'z*'. There are 4: sums"),
    ({"held_out": {"tasks": ["*"]}}, "names all of the 4 tasks"),
    ({"held_out": {"by": "seed", "tasks": 4}}, "tasks is 4, but there are 4"),
    (
        {"held_out": {"tasks": "sums"}, "train_tasks": "sums"},
        "data.train_tasks: no task is called 'sums'",
    ),
    (
        {"held_out": {"tasks": "sums"}, "test_tasks": "words"},
        "data.test_tasks: no task is called 'words'. There are 1: sums",
    ),
    ({"test_path": "rows.jsonl", "test_tasks": "x"}, "data.test_tasks: no task"),
]


@pytest.mark.parametrize(("data", "told"), UNKNOWN)
def test_plan_refuses_names_that_no_task_has(data: dict[str, Any], told: str) -> None:
    """With the names that there are, and the file."""
    with pytest.raises(UserError) as refused:
        data_checks.refuse_unknown_tasks([plan_run(**data)])
    assert told in str(refused.value)
    assert "rows.jsonl: " in str(refused.value)


BAD_NAMES = [
    ({"by": "names"}, "needs `tasks`, a list of names"),
    ({"by": "names", "tasks": 3}, "needs `tasks`, a list of names"),
    ({"by": "seed", "tasks": ["a"]}, "do nothing under `by: seed`"),
    ({"tasks": ["a"], "share": "1/2"}, "does nothing under `by: names`"),
    ({"tasks": ["a"], "seed": 3}, "draws nothing under `by: names`"),
    ({"tasks": []}, "at least 1 item"),
]


@pytest.mark.parametrize(("rule", "told"), BAD_NAMES)
def test_what_is_named_must_be_clear(rule: dict[str, Any], told: str) -> None:
    """Names go with nothing that draws."""
    with pytest.raises(ValueError) as refused:
        HeldOut.model_validate(rule)
    assert told in str(refused.value)


def test_a_name_with_brackets_is_a_name() -> None:
    """As well as a pattern; what is named stands in the data's order."""
    tasks = ["b [1]", "a", "b 1"]
    assert splits.find_named_tasks(tasks, ["a", "b [1]"], "key") == tasks


def test_names_enter_the_recipe_without_a_seed() -> None:
    """What draws nothing makes no other run, and other rules stay as they were."""
    assert HeldOut.model_validate({"tasks": "a"}).recipe == {
        "by": "names",
        "tasks": ["a"],
    }
    drawn = HeldOut.model_validate({"by": "seed", "tasks": 2}).recipe
    assert drawn == {"by": "seed", "tasks": 2, "seed": 0}


SHOTS = [
    pytest.param({"held_out": {"tasks": "words"}}, 2, True, id="enough"),
    pytest.param({"held_out": {"tasks": "words"}}, 3, False, id="one too few"),
    pytest.param({"held_out": {"share": "1/3"}}, 1, True, id="rows"),
    pytest.param({"held_out": {"share": "1/3"}}, 2, False, id="too few rows"),
    pytest.param(
        {"held_out": {"share": "1/3"}, "train_tasks": ["sums", "words"]},
        3,
        True,
        id="the small task left out",
    ),
    pytest.param({"test_path": "tested.jsonl"}, 2, False, id="asked in the test"),
    pytest.param(
        {"held_out": {"tasks": "words"}, "fraction": "1/10", "sample_seed": 1},
        3,
        True,
        id="perhaps not taken",
    ),
]


@pytest.mark.engine  # makes corpora, with datasets
@pytest.mark.parametrize(("data", "k", "is_fit"), SHOTS)
def test_plan_refuses_too_few_examples_where_prepare_does(
    tmp_path: Path, rows: Path, data: dict[str, Any], k: int, is_fit: bool
) -> None:
    """In the same words; a part of the data that may do is left to it."""
    rows.with_name("tested.jsonl").write_text(json.dumps(ROWS[-1]))
    run = plan_run(few_shot={"k": k}, **data)
    if is_fit:
        data_checks.refuse_few_examples([run])
        make_corpus(run, tmp_path / "work")
        return
    with pytest.raises(UserError) as planned:
        data_checks.refuse_few_examples([run])
    with pytest.raises(UserError) as made:
        make_corpus(run, tmp_path / "work")
    assert str(planned.value) == str(made.value)
    assert "fewer than data.few_shot.k" in str(made.value)


def test_large_data_are_left_to_the_prepare_job(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are rows that cannot be read: it tells of which line."""
    data: dict[str, Any] = {"held_out": {"tasks": "none such"}, "few_shot": {"k": 200}}
    with pytest.raises(UserError):
        data_checks.refuse_unknown_tasks([plan_run(**data)])
    monkeypatch.setattr(row_counts, "MOST_BYTES", 10)
    rows.rename("large.jsonl")
    large = plan_run(path="large.jsonl", **data)
    data_checks.refuse_unknown_tasks([large])
    data_checks.refuse_few_examples([large])


TAGGED = {**FIELDS, "tags": "kind"}


@pytest.mark.parametrize(
    ("data", "is_refused"),
    [
        ({"drop_tags": "code|math"}, True),
        ({"keep_tags": "code"}, True),
        ({"drop_tags": "sums", "fields": TAGGED}, False),
        ({"drop_tags": "code", "tags": "tags.jsonl"}, False),
        ({}, False),
    ],
)
def test_plan_refuses_to_choose_by_tags_that_are_not_there(
    data: dict[str, Any], is_refused: bool, tmp_path: Path
) -> None:
    """Rows without any tag; those with a column or a file of tags are chosen from."""
    (tmp_path / "tags.jsonl").write_text('{"id": "sums:0", "tags": ["code"]}\n')
    run = plan_run(test_path="rows.jsonl", **data)
    if not is_refused:
        data_checks.refuse_idle_tags([run])
        return
    with pytest.raises(UserError, match=r"rows\.jsonl: .*no example has any; name"):
        data_checks.refuse_idle_tags([run])
