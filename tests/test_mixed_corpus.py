"""Does a corpus of several sources hold exactly what its recipe says of each?"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.prepared import read_corpus_notes
from jobs.preparing.corpus import Corpus
from tests.lib.mixed_sources import Make, make, rows
from zsg_core.errors import UserError
from zsg_core.orders.by_task import order_by_task

__all__ = ["make", "rows"]


def questions(name: str, count: int) -> list[dict[str, str]]:
    """GSM8K rows."""
    return [{"question": f"{name} {i}", "answer": str(i)} for i in range(count)]


@pytest.fixture
def two(rows) -> dict[str, Any]:
    """A source of 100 examples with two tests, one of 64 without."""
    math = {
        "set": "gsm8k",
        "path": rows("math.jsonl", questions("m", 100)),
        "test_path": rows("t.jsonl", questions("t", 2)),
    }
    return {
        "math": math,
        "code": {"set": "gsm8k", "path": rows("code.jsonl", questions("c", 64))},
    }


def by_source(made: Corpus) -> dict[str, int]:
    """How many training examples are of each source."""
    return dict(Counter(made_id.partition("/")[0] for made_id in made.train.ids))


def test_sources_stand_one_after_the_other_under_their_names(make: Make, two) -> None:
    """Ids and tasks begin with the source; of equal ids none is lost; only what says so
    is tested."""
    (made,) = make(two)

    assert by_source(made) == {"code": 64, "math": 100}
    assert (
        made.train[0].id == "code/gsm8k:0"
        and made.train[163].id == made.train.ids[163] == "math/gsm8k:99"
    )
    assert made.train[64].turns == (("m 0", "0"),)
    assert set(made.train.tasks) == {"code/gsm8k", "math/gsm8k"}
    assert made.test.ids == ["math/gsm8k:0", "math/gsm8k:1"]
    assert {name: facts["train"] for name, facts in made.meta["sources"].items()} == {
        "code": 64,
        "math": 100,
    }
    assert any("code 64 (39.02%), math 100 (60.98%)" in text for text in make.said)  # type: ignore[attr-defined]


def test_orders_take_turns_among_sources(make: Make, two) -> None:
    """round_robin goes from source to source, cluster through one after the other."""
    (made,) = make(two, count=2)
    tasks = made.train.tasks

    assert [tasks[i][:4] for i in order_by_task("round_robin", tasks, 0)] == [
        "code",
        "math",
        "code",
        "math",
    ]
    assert [tasks[i][:4] for i in order_by_task("cluster", tasks, 0)] == [
        "code",
        "code",
        "math",
        "math",
    ]


def test_shares_are_exact_and_nested(make: Make, two) -> None:
    """Every share of a sweep is part of the next larger one; another seed takes others."""
    kept = [
        set(make(two, fraction=share)[0].train.ids) for share in ("1/16", "1/4", "1/2")
    ]
    other = set(make(two, fraction="1/4", sample_seed=1)[0].train.ids)

    assert list(map(len, kept)) == [4 + 6, 16 + 25, 32 + 50]
    assert kept[0] < kept[1] < kept[2]
    assert other != kept[1]


def test_equal_counts_are_equal(make: Make, two) -> None:
    """`count` beside the sources takes so many of each; more than there are is refused."""
    assert by_source(make(two, count=30)[0]) == {"code": 30, "math": 30}
    with pytest.raises(UserError, match=r"data\.count 70: there are 64"):
        make(two, count=70)


def test_a_ratio_counts_by_another_source(make: Make, two) -> None:
    """Twice the code that there is math; all there is, said, where that is not enough."""
    two["code"] |= {"ratio": 2, "ratio_to": "math"}
    two["math"] |= {"count": 5}
    assert by_source(make(two)[0]) == {"code": 10, "math": 5}
    two["math"]["count"] = 50
    assert by_source(make(two)[0]) == {"code": 64, "math": 50}
    assert any("code: all of its 64 examples are used" in text for text in make.said)  # type: ignore[attr-defined]
    two["code"]["ratio"] = 0
    assert by_source(make(two)[0]) == {"math": 50}


def test_tags_say_what_is_trained_on(make: Make, two, rows) -> None:
    """InsTag's ablation: an example with a tag that matches is dropped; the test set
    stays whole."""
    tags = [
        {"tags": [{"tag": "Python Code"}, "greeting"]},
        {"tags": ["math"]},
        *({"tags": ["chat"]} for _ in range(62)),
    ]
    two["code"] |= {"tags": rows("tags.jsonl", tags), "drop_tags": "code|math"}
    (made,) = make(two)
    assert by_source(made)["code"] == 62 and "code/gsm8k:1" not in made.train.ids

    two["code"] = {**two["code"], "drop_tags": None, "keep_tags": "CODE"}
    assert [i for i in make(two)[0].train.ids if i.startswith("code")] == [
        "code/gsm8k:0"
    ]

    two["code"]["tags"] = rows("fewer.jsonl", tags[1:])
    with pytest.raises(
        UserError, match=r"fewer\.jsonl: has tags of 63 examples and there are 64"
    ):
        make(two)


def test_tags_may_name_their_examples(make: Make, two, rows) -> None:
    """Rows with ids may stand in any order; one that is missing is an error that names
    the example."""
    tags = [
        {"id": f"gsm8k:{i}", "tags": ["odd"] if i % 2 else []}
        for i in reversed(range(64))
    ]
    two["code"] |= {"tags": rows("a.jsonl", tags), "keep_tags": "^odd$"}
    assert by_source(make(two)[0])["code"] == 32

    two["code"]["tags"] = rows("b.jsonl", tags[:-1])
    with pytest.raises(UserError, match="no tags of 1 examples; the first: gsm8k:0"):
        make(two)


def test_tags_join_by_the_ids_of_the_dialogues(make: Make, two, rows) -> None:
    """InsTag's rows name dialogues as ShareGPT does, in any order; what does not join is told."""
    said = [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}]
    two["code"] = {
        "set": "sharegpt",
        "path": rows(
            "s.jsonl", [{"id": f"d{i}", "conversations": said} for i in range(9)]
        ),
    }
    tags = [
        {"id": f"d{i}", "tags": ["code"] if i in (2, 5) else ["chat"]}
        for i in reversed(range(8))
    ]
    two["code"] |= {
        "tags": rows("instag.jsonl", [*tags, {"id": "gone", "tags": ["code"]}]),
        "drop_tags": "code",
    }
    (made,) = make(two)

    left = {f"code/sharegpt:{i}" for i in range(9) if i not in (2, 5)}
    assert {i for i in made.train.ids if i.startswith("code/")} == left
    told = "\n".join(make.said)  # type: ignore[attr-defined]
    assert (
        "instag.jsonl has no tags of 1 of 9 examples, which count as having none: sharegpt:8"
        in told
    )
    assert (
        "instag.jsonl has 1 of 9 rows that are of no example; the first: 'gone'" in told
    )

    two["code"]["tags"] = rows(
        "o.jsonl", [{"id": f"other{i}", "tags": ["code"]} for i in range(9)]
    )
    with pytest.raises(
        UserError,
        match=r"none of which an example has; the first: 'other0', and the data call .* 'd0'",
    ):
        make(two)


@pytest.fixture
def p3(rows, tmp_path: Path) -> dict[str, Any]:
    """Three templates of one data set and one of another, 40, 40, 40 and 10 rows; imdb
    is held out by a list."""
    for name, count in {
        "qasc_a": 40,
        "qasc_b": 40,
        "qasc_c": 40,
        "dream_a": 10,
        "imdb_a": 4,
    }.items():
        rows(
            f"p3/{name}.jsonl",
            [{"prompt": f"{name} {i}", "completion": "x"} for i in range(count)],
        )
    keys = {
        "train_key_list": ["qasc_a", "qasc_b", "qasc_c", "dream_a"],
        "eval_key_list": ["imdb_a"],
    }
    (tmp_path / "p3/train_eval_key_list.json").write_text(json.dumps(keys))
    return {"set": "p3", "path": str(tmp_path / "p3"), "train_per_task": None}


def test_so_many_templates_of_every_data_set(make: Make, p3) -> None:
    """T0 and FLAN vary how many prompts a data set has; fewer are among more."""
    kept = [set(make(**p3, templates=count)[0].train.tasks) for count in (1, 2, None)]

    assert [sum(task.startswith("qasc") for task in tasks) for tasks in kept] == [
        1,
        2,
        3,
    ]
    assert all("dream_a" in tasks for tasks in kept)
    assert kept[0] < kept[1] < kept[2]


def test_a_mixture_draws_by_its_rates(make: Make, p3) -> None:
    """FLAN's rule with a maximum of 20; repeats only where the recipe says so, and counted."""
    assert Counter(make(**p3, rate_max=20, mix={})[0].train.tasks) == {
        "qasc_a": 20,
        "qasc_b": 20,
        "qasc_c": 20,
        "dream_a": 10,
    }
    with pytest.raises(UserError, match="dream_a with 10 examples for 20"):
        make(**p3, rate_max=20, mix={"total": 140})

    (made,) = make(**p3, rate_max=20, mix={"total": 140, "repeat": True})
    ids = Counter(made.train.ids)
    assert made.meta["mix"] == {"qasc_a": 40, "qasc_b": 40, "qasc_c": 40, "dream_a": 20}
    assert {count for made_id, count in ids.items() if made_id.startswith("dream")} == {
        2
    }
    assert made.meta["repeated"] == 10
    assert any("10 of 140 examples come again" in text for text in make.said)  # type: ignore[attr-defined]


def test_a_mixture_of_nothing_is_told_as_no_mixture_is(make: Make, two) -> None:
    """A fraction that leaves no example is the user's, whether or not there is a mix."""
    for mix in (None, {"rates": "capped"}, {"total": 5}):
        with pytest.raises(UserError, match="the train tasks have no instance left"):
            make(two, fraction="1/1000", mix=mix)


TEN = {f"alpha{i}": 30 for i in range(10)}
SETS = {"one": "alpha*", "two": ["beta*"]}


@pytest.fixture
def templates(rows, tmp_path: Path) -> Callable[[dict[str, int]], dict[str, Any]]:
    """Data of P3 with so many rows of each template, by names that T0 does not know; a
    test task is apart."""

    def write(sizes: dict[str, int]) -> dict[str, Any]:
        for name, count in sizes.items():
            rows(
                f"own/{name}.jsonl",
                [{"prompt": f"{name} {i}", "completion": "x"} for i in range(count)],
            )
        held_out = rows("held.jsonl", [{"prompt": "held", "completion": "x"}])
        return {
            "set": "p3",
            "path": str(tmp_path / "own"),
            "test_path": held_out,
            "train_per_task": None,
        }

    return write


@pytest.mark.parametrize(("count", "kept"), [(1, 60), (4, 240), (10, 600)])
def test_templates_are_counted_by_data_set(
    make: Make, templates, count: int, kept: int
) -> None:
    """Of two sets of ten templates, 30 rows each, so many templates of each are kept."""
    data = templates({**TEN, **{f"beta{i}": 30 for i in range(10)}})

    assert len(make(**data, data_sets=SETS, templates=count)[0].train) == kept


def test_templates_of_unknown_sets_are_refused(make: Make, templates) -> None:
    """By T0's names nothing is known of them: each would be a data set, and `templates`
    would do nothing."""
    data = templates({**TEN, "beta": 30})
    with pytest.raises(
        UserError,
        match=r"11 of 11 tasks are of no data set that is known: alpha0, .* data\.data_sets",
    ):
        make(**data, templates=1)
    with pytest.raises(
        UserError, match=r"1 of 11 tasks are of no data set that is known: beta"
    ):
        make(**data, templates=1, data_sets={"one": "alpha*"})
    with pytest.raises(UserError, match="'alpha1' is of one and of two"):
        make(
            **data, templates=1, data_sets={"one": "alpha*", "two": ["beta", "alpha1"]}
        )


def test_a_template_of_no_known_set_is_told(make: Make, p3, rows) -> None:
    """Beside known sets it is one of its own, as it was, and that is said."""
    rows("p3/mine.jsonl", [{"prompt": "q", "completion": "x"}])
    Path(p3["path"], "train_eval_key_list.json").unlink()
    (made,) = make(**p3, held_out={"by": "seed", "tasks": 1}, templates=1)

    assert made.tasks()
    assert any(
        "of no data set that is known: mine; data.templates takes each" in one
        for one in make.said
    )  # type: ignore[attr-defined]


def test_t0_divides_by_the_templates_of_a_set(make: Make, templates) -> None:
    """Ten templates of 30 rows with a maximum of 20 weigh 2 each, one of 15 weighs 15:
    of 200 they have 114 and 86."""
    data = templates({**TEN, "beta": 15}) | {"rate_max": 20}
    mix = {"rates": "t0", "total": 200, "repeat": True}
    drawn = make(**data, mix=mix, data_sets=SETS)[0].meta["mix"]

    assert (sum(drawn[name] for name in TEN), drawn["beta"]) == (114, 86)
    with pytest.raises(
        UserError, match=r"T0's rule .* counts by data set, and 11 of 11 tasks"
    ):
        make(**data, mix=mix)


def test_the_maximum_of_flan_is_that_of_a_set(make: Make, templates) -> None:
    """A set of 300 rows in ten templates weighs 30, one of 20 weighs 20: of 200 they
    have 120 and 80."""
    data = templates({**TEN, "beta": 20}) | {"rate_max": 30}
    drawn = make(**data, mix={"total": 200, "repeat": True}, data_sets=SETS)[0].meta[
        "mix"
    ]

    assert (sum(drawn[name] for name in TEN), drawn["beta"]) == (120, 80)
    assert {drawn[name] for name in TEN} == {12}


def test_sets_are_known_by_folder(make: Make, templates, rows, tmp_path: Path) -> None:
    """A folder of template files for each data set; two files of one name would be one
    task, and are refused."""
    (tmp_path / "own").mkdir()
    data = templates(
        {f"{folder}/{folder}_{i}": 30 for folder in ("sst", "rte") for i in range(3)}
    )
    data |= {
        "path": str(tmp_path / "own/*/*.jsonl"),
        "data_sets": "folder",
        "templates": 1,
    }
    assert len(make(**data)[0].train) == 60

    rows("own/rte/sst_0.jsonl", [{"prompt": "q", "completion": "x"}])
    with pytest.raises(UserError, match="are both the task 'sst_0'; name them apart"):
        make(**{**data, "templates": 2})


def test_what_is_given_is_what_is_learnt_from_by_every_stage(make: Make, two) -> None:
    """The test set is the same in every stage, whatever is trained on."""
    first, second = make(
        {**two, "talk": {**two["code"], "role": "general"}}, {"name": "dmt", "k": "1/4"}
    )

    assert by_source(first) == {"code": 64, "math": 100}
    assert by_source(second) == {"code": 16, "math": 25, "talk": 64}
    assert first.test.ids == second.test.ids
    assert first.meta["test_digest"] == second.meta["test_digest"]


@pytest.mark.data
def test_dmt_on_real_files_has_exact_counts(make: Make, real_data: Path) -> None:
    """GSM8K as math, Code Alpaca and the ShareGPT-format file: ⌊k·N⌋ of each special
    set beside all general data."""
    math, code, general = 7473, 2017, 500
    sources = {
        "math": {
            "set": "gsm8k",
            "path": str(real_data / "gsm8k/train.jsonl"),
            "test_path": str(real_data / "gsm8k/test.jsonl"),
            "test_tasks": 1,
            "test_per_task": 20,
        },
        "code": {
            "set": "alpaca",
            "path": str(real_data / "code_alpaca/code_alpaca_2k.json"),
        },
        "general": {
            "set": "sharegpt",
            "path": str(real_data / "sharegpt/fastchat_dummy_conversation.json"),
            "role": "general",
        },
    }
    for k, parts in (
        ("1", 1),
        ("1/4", 4),
        ("1/16", 16),
        ("1/64", 64),
        ("1/256", 256),
        ("0", 0),
    ):
        first, second = make(sources, {"name": "dmt", "k": k}, template="vicuna")
        wanted = {"code": code // parts, "math": math // parts} if parts else {}

        assert by_source(first) == {"code": code, "math": math}
        assert by_source(second) == wanted | {"general": general}
        assert len(second.test) == 20


def test_a_source_of_which_nothing_is_left_is_told(make: Make, two) -> None:
    """Beside others it would be missed by nobody: of a mix with shares, too, which the
    others then fill."""
    for name in two:
        two[name]["share"] = "1/2"
    two["code"]["fraction"] = "1/1000"

    (made,) = make(two, mix={})

    assert by_source(made) == {"math": 100}
    assert read_corpus_notes(made.folder) == [
        "code: its caps, tags and amounts leave no training example"
    ]
