"""Does an order that has a target set look at that alone, and are leaks told?"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.contract.folder import Workspace
from jobs.contract.job_file import PreparePaths
from jobs.contract.prepared import (
    TARGET_IDS,
    describe_arrangement,
    read_arrangement_meta,
)
from jobs.preparing import arrangement, target_set
from jobs.preparing.corpus import Corpus, make_corpus
from launcher.grids import inputs
from launcher.planning import target_notes
from launcher.reporting.data import arrangements, order_comparison
from launcher.verification import record_checks
from launcher.verification.finding import Differs
from tests.lib.builders import digests as make_digests
from tests.lib.command_line import Zsg
from zsg_core.data.target_sets import (
    TargetSummary,
    TrainedItems,
    choose_places,
    find_shared,
)
from zsg_core.errors import UserError
from zsg_core.recipe import arrangement_id, corpus_id, make_recipe, run_id
from zsg_core.settings.run import Settings

FIELDS = {"prompt": "question", "answer": "answer", "task": "kind"}
# the question is an angle in degrees; texts are as similar as these are near
ANGLES = {"pool": [0, 30, 60, 85], "near": [90, 2, 4], "far": [80, 50]}
HELD_OUT = {"tasks": ["near", "far"]}
NEAREST = {"order": "nft", "measure": "cosine_min"}
IN_ORDER = ["pool:0", "pool:1", "pool:2", "pool:3"]

Order = Callable[..., "Ordered"]


def write_rows(path: Path, angles: Mapping[str, Sequence[int]]) -> None:
    """Rows of tasks, each a question and the answer `yes` and the angle."""
    rows = [
        {"question": f"{angle} degrees", "answer": f"yes {angle}", "kind": task}
        for task, of_task in angles.items()
        for angle in of_task
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of three tasks, two of them to be held out, in the folder where one is."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", ANGLES)


class Ordered(SimpleNamespace):
    """An order as a prepare job makes it: `made`, the settings and the texts that were
    embedded."""

    settings: Settings
    run: Any
    corpus: Corpus
    made: arrangements.Arrangement
    texts: list[str]

    @property
    def summary(self) -> TargetSummary:
        """What the order tells of its target."""
        meta = read_arrangement_meta(self.made.folder)
        assert meta is not None and meta.target is not None
        return meta.target


def plan_run(settings: Settings) -> Any:
    """What plan knows of a run of these settings."""
    reader = inputs.Inputs(Path("digests.json"))
    recipe = make_recipe(settings, reader.digest_inputs(settings))
    target = inputs.find_target_source(settings)
    return SimpleNamespace(
        all_before=[],
        recipe=recipe,
        stage=recipe["stages"][0],
        sources=reader.find_files(settings),
        corpus_id=corpus_id(recipe),
        arrangement_id=arrangement_id(recipe),
        target=inputs.find_target(target) if target else None,
    )


def make_settings(order: dict[str, Any], **data: Any) -> Settings:
    """Settings of a run that tests the first item of each task that is held out."""
    whole = {
        "set": "records",
        "path": "rows.jsonl",
        "fields": FIELDS,
        "held_out": HELD_OUT,
        "sampling": "first",
        "test_per_task": 1,
        **data,
    }
    return Settings.model_validate({"data": whole, "arrangement": order})


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    """What makes an order of some settings, with vectors at the angles of the texts."""
    texts: list[str] = []

    def embed(
        workspace: Workspace, of_split: Sequence[str], model: Path, digest: str
    ) -> Path:
        texts.extend(of_split)
        found = [float(re.findall(r"\d+", text)[0]) for text in of_split]
        angles = np.radians(found)
        folder = workspace.embedding(f"e{len(texts)}")
        folder.mkdir(parents=True, exist_ok=True)
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        np.save(folder / "vectors.npy", vectors.astype(np.float32))
        return folder

    monkeypatch.setattr(arrangement, "embed_texts", embed)

    def make(asked: dict[str, Any], **data: Any) -> Ordered:
        texts.clear()
        settings = make_settings(asked, **data)
        run = plan_run(settings)
        workspace = Workspace(tmp_path / "work")
        rule = run.stage["arrangement"]
        corpus = make_corpus(workspace, run.corpus_id, run.stage["data"], run.sources)
        paths = PreparePaths(
            workspace=str(workspace.root),
            sources={name: files.texts for name, files in run.sources.items()},
            targets={rule["target"]["digest"]: str(run.target)} if run.target else {},
        )
        made = arrangements.Arrangement(workspace, run.arrangement_id)
        arrangement.make_arrangement(workspace, corpus, made.id, rule, paths)
        return Ordered(
            settings=settings, run=run, corpus=corpus, made=made, texts=list(texts)
        )

    return make


@pytest.mark.parametrize(
    ("asked", "by_test"),
    [
        (NEAREST, [3, 2, 1, 0]),  # of the test items at 90° and 80°
        ({"order": "tma"}, [3, 2, 1, 0]),
        ({**NEAREST, "order": "fft"}, [0, 1, 2, 3]),
        ({**NEAREST, "shape": "fold", "layers": 2}, [3, 1, 2, 0]),
        ({"order": "tma", "rounds": "1:3"}, [2, 1]),
    ],
)
def test_orders_look_at_the_target_in_place_of_the_test_set(order, asked, by_test):
    """The training items stand at 0°, 30°, 60° and 85°, the test items at 90° and 80°,
    and the target at 2° and 4°: what is last by the one is first by the other."""
    target = {"by": "items", "tasks": ["near"]}

    by_target = order({**asked, "target": target})

    assert order(asked).made.ids == [f"pool:{place}" for place in by_test]
    assert by_target.made.ids == [f"pool:{3 - place}" for place in by_test]
    listed = (by_target.made.folder / TARGET_IDS).read_text().split()
    assert listed == ["near:1", "near:2"]


def test_no_text_of_a_test_item_is_embedded(order):
    """Only training texts and the target's are; without one, the test items' are."""
    tested = ["90 degrees yes 90", "80 degrees yes 80"]

    assert set(tested) <= set(order(NEAREST).texts)
    by_target = order({**NEAREST, "target": {"by": "items"}})
    assert not set(tested) & set(by_target.texts)
    assert len(by_target.texts) == 4 + 3


def test_an_order_is_made_while_its_test_items_cannot_be_read(order, monkeypatch):
    """Beside the one function that looks for leaks, nothing reads a test item."""
    asked = {**NEAREST, "target": {"by": "items", "per_task": 1}}
    whole = order(asked).made
    assert whole.ids != order(NEAREST).made.ids
    nothing = find_shared([], [])

    def refuse(self: Any, index: int) -> Any:
        raise AssertionError(f"test item {index} was read")

    def poison(target: Any, test: Any, own_ids: set[str]) -> Any:
        poisoned = type("Poisoned", (type(test),), {"__getitem__": refuse})
        test.__class__ = poisoned
        return replace(nothing, same_as=[None] * len(target))

    monkeypatch.setattr(target_set, "_compare", poison)
    again = order({**asked, "target": {**asked["target"], "seed": 0}})

    assert again.made.ids == whole.ids
    with pytest.raises(AssertionError, match="was read"):
        list(again.corpus.test)


def test_another_test_set_changes_no_order(order, tmp_path):
    """Two runs that differ in their test files alone have one order by one target."""
    write_rows(tmp_path / "pool.jsonl", {"pool": ANGLES["pool"]})
    write_rows(tmp_path / "dev.jsonl", {"dev": [3, 8]})
    listed = []
    for name, angles in (("a", [70, 75]), ("b", [1, 20])):
        write_rows(tmp_path / f"{name}.jsonl", {"test": angles})
        made = order(
            {**NEAREST, "target": {"path": "dev.jsonl"}},
            path="pool.jsonl",
            test_path=f"{name}.jsonl",
            held_out=None,
        )
        listed.append(made)
    first, second = listed

    assert first.run.corpus_id != second.run.corpus_id
    assert first.made.ids == second.made.ids == IN_ORDER
    assert first.made.meta["ids_digest"] == second.made.meta["ids_digest"]


def test_items_that_the_test_set_has_are_left_out_and_counted(order, tmp_path):
    """Case and blanks make no other question; the same answer is told apart."""
    file = tmp_path / "dev.jsonl"
    write_rows(file, {"near": [90, 5], "new": [80]})
    file.write_text(file.read_text().replace("80 deg", "80   DEG").replace("s 80", "!"))
    made = order({**NEAREST, "target": {"path": "dev.jsonl"}})
    kept = order({**NEAREST, "target": {"path": "dev.jsonl", "overlap": "keep"}})

    assert made.summary.ids_digest != kept.summary.ids_digest
    assert (made.summary.chosen, made.summary.count) == (3, 1)
    assert (made.summary.shared, made.summary.answered) == (2, 1)
    assert made.summary.tasks_in_test == 1
    assert made.made.ids == IN_ORDER
    assert kept.summary.count == 3
    assert kept.made.ids != IN_ORDER
    [note] = describe_arrangement(kept.made.folder)
    assert "2 of 3 items ask what test items ask" in note
    assert "a leak" in note


@pytest.mark.parametrize(
    ("angles", "overlap", "told"),
    [
        (
            [90, 5],
            "refuse",
            "1 of its 2 items ask what test items ask; the first: dev:0",
        ),
        ([90, 80], "drop", "all of its 2 items ask what test items ask"),
    ],
)
def test_a_target_that_would_be_the_test_set_is_refused(
    order, tmp_path, angles, overlap, told
):
    """By plan and by prepare, in the same words."""
    write_rows(tmp_path / "dev.jsonl", {"dev": angles})
    asked = {**NEAREST, "target": {"path": "dev.jsonl", "overlap": overlap}}

    with pytest.raises(UserError, match=told):
        order(asked)
    with pytest.raises(UserError, match=told):
        target_notes.describe_targets(
            Workspace(tmp_path / "none"), [plan_run(make_settings(asked))]
        )


@pytest.mark.parametrize(
    ("target", "data"),
    [
        ({"by": "items"}, {}),
        ({"by": "items", "per_task": 1, "tasks": ["n*"]}, {}),
        ({"by": "tasks"}, {"test_tasks": ["near"]}),
        ({"by": "tasks", "per_task": None}, {"test_tasks": 1}),
        ({"by": "items"}, {"held_out": {"share": "1/2"}}),
        ({"path": "rows.jsonl", "per_task": 2}, {}),
    ],
)
def test_plan_tells_the_target_that_prepare_makes(order, tmp_path, target, data):
    """Its items are counted and compared before anything runs."""
    made = order({**NEAREST, "target": target}, **data)
    [planned] = target_notes.describe_targets(Workspace(tmp_path / "none"), [made.run])
    [known] = target_notes.describe_targets(made.made.workspace, [made.run])

    assert planned == known
    assert planned.endswith(made.summary.describe())
    assert made.summary.count > 0


def test_items_that_are_trained_on_are_counted_and_left_out_where_asked(
    order, tmp_path
):
    """By what they ask; one of the two has the same answer, too."""
    file = tmp_path / "dev.jsonl"
    write_rows(file, {"dev": [30, 60, 5], "pool": [7]})
    file.write_text(file.read_text().replace("yes 60", "no").replace("30 d", "30  D"))
    target = {"path": "dev.jsonl"}
    kept = order({**NEAREST, "target": target})
    dropped = order({**NEAREST, "target": {**target, "train_overlap": "drop"}})

    assert kept.summary.trained == TrainedItems(asked=2, answered=1, tasks=1)
    assert (kept.summary.count, dropped.summary.count) == (4, 2)
    assert kept.made.ids[:2] == ["pool:1", "pool:2"]
    assert dropped.made.ids == IN_ORDER
    assert kept.made.id != dropped.made.id
    assert "2 of 4 ask what training examples ask" in kept.summary.describe()
    for made in (kept, dropped):
        workspace = Workspace(tmp_path / "none")
        [planned] = target_notes.describe_targets(workspace, [made.run])
        assert planned.endswith(made.summary.describe())


@pytest.mark.parametrize("angles", [[30, 5], [30, 60]])
def test_a_target_that_is_trained_on_is_refused_where_asked(order, tmp_path, angles):
    """By its rule, or as none is left; by plan and by prepare, in the same words."""
    write_rows(tmp_path / "dev.jsonl", {"dev": angles})
    fate = "refuse" if 5 in angles else "drop"
    asked = {**NEAREST, "target": {"path": "dev.jsonl", "train_overlap": fate}}
    told = "items ask what training examples ask; the first: dev:0"

    with pytest.raises(UserError, match=told):
        order(asked)
    with pytest.raises(UserError, match=told):
        target_notes.describe_targets(
            Workspace(tmp_path / "none"), [plan_run(make_settings(asked))]
        )


def test_plan_says_where_it_cannot_know_what_is_trained_on(tmp_path):
    """Of a share of the examples only a prepare job knows which these are."""
    write_rows(tmp_path / "dev.jsonl", {"dev": [30, 5]})
    told = []
    for fate in ("keep", "drop"):
        target = {"path": "dev.jsonl", "train_overlap": fate}
        settings = make_settings({**NEAREST, "target": target}, fraction="1/2")
        workspace = Workspace(tmp_path / "none")
        told += target_notes.describe_targets(workspace, [plan_run(settings)])

    assert "how many are trained on is counted when the data are prepared" in told[0]
    assert "2 items" in told[0]
    assert "is compared with the test set when the data are prepared" in told[1]


@pytest.mark.parametrize("overlap", ["drop", "keep", "refuse"])
def test_the_test_sets_of_other_stages_are_compared_too(tmp_path, overlap):
    """A later stage tests an item that the order of an earlier one looks at: no order
    can leave it out, so it is told, or refused."""
    write_rows(tmp_path / "dev.jsonl", {"dev": [33, 5]})
    write_rows(tmp_path / "exam.jsonl", {"exam": [5, 11]})
    target = {"path": "dev.jsonl", "overlap": overlap}
    first = plan_run(make_settings({**NEAREST, "target": target}))
    later = plan_run(
        make_settings(
            {"order": "random"},
            path="rows.jsonl",
            test_path="exam.jsonl",
            held_out=None,
        )
    )
    later.all_before = [first]
    workspace = Workspace(tmp_path / "none")
    leak = "1 of its items ask what test items of the run's other stages ask"

    [alone] = target_notes.describe_targets(workspace, [first])
    assert "other stages" not in alone
    if overlap == "refuse":
        with pytest.raises(UserError, match=f"{leak}; the first: dev:1"):
            target_notes.describe_targets(workspace, [later])
    else:
        [told] = target_notes.describe_targets(workspace, [later])
        assert f"{leak}, which is a leak" in told


def test_held_out_tasks_that_are_not_tested_are_a_target(order):
    """Transfer: the order looks at some tasks, and others are tested."""
    made = order({**NEAREST, "target": {"by": "tasks"}}, test_tasks=["near"])

    assert (made.made.folder / TARGET_IDS).read_text().split() == ["far:0", "far:1"]
    assert made.summary.tasks_in_test == 0


def test_several_sources_give_their_items(order, tmp_path):
    """Ids begin with the name of the source, as in the test set."""
    write_rows(tmp_path / "other.jsonl", {"far": [10, 20], "pool": [40]})
    sources = {
        "one": {"held_out": HELD_OUT},
        "two": {"path": "other.jsonl", "held_out": {"tasks": ["far"]}},
    }
    made = order(
        {**NEAREST, "target": {"by": "items", "per_task": 1}},
        sources=sources,
        held_out=None,
    )

    listed = (made.made.folder / TARGET_IDS).read_text().split()
    assert [name.partition(":")[0] for name in listed] == [
        "one/near",
        "one/far",
        "two/far",
    ]


def test_answers_may_be_hidden(order):
    """Of the target; the training examples keep theirs."""
    made = order({**NEAREST, "target": {"by": "items", "answers": False}})

    looked_at = made.texts[4:]
    assert sorted(text.strip() for text in looked_at) == [
        "2 degrees",
        "4 degrees",
        "50 degrees",
    ]
    assert all("yes" in text for text in made.texts[:4])


def test_an_item_with_a_test_items_own_id_is_that_item(order, tmp_path):
    """Where the data have ids of their own, whatever the item says."""
    fields = {**FIELDS, "id": "name"}
    row = {"question": "3 degrees", "answer": "a", "kind": "near", "name": "x"}
    pool = [
        {**row, "question": f"{angle} degrees", "kind": "pool", "name": f"p{angle}"}
        for angle in (0, 30)
    ]
    others = [{**row, "name": "y"}, {**row, "question": "7 degrees"}]
    for name, written in (("all", [*pool, row]), ("dev", others)):
        text = "".join(f"{json.dumps(each)}\n" for each in written)
        (tmp_path / f"{name}.jsonl").write_text(text)
    target = {"path": "dev.jsonl", "overlap": "refuse", "fields": fields}

    with pytest.raises(UserError, match="all of its 2 items"):
        order(
            {**NEAREST, "target": target},
            path="all.jsonl",
            fields=fields,
            held_out={"tasks": ["near"]},
        )


@given(st.data())
def test_a_target_has_no_tested_place_and_grows_by_parts(data):
    """A smaller one is part of a larger one, of each task, for each seed."""
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    held_out: dict[str, list[int]] = {}
    for number, size in enumerate(sizes):
        held_out[f"t{number}"] = [10 * number + place for place in range(size)]
    everything = [place for places in held_out.values() for place in places]
    tested = data.draw(st.sets(st.sampled_from([*everything, 99])))
    seed = data.draw(st.integers(0, 3))

    def choose(count: int | None) -> set[int]:
        rule = {"by": "items", "per_task": count, "seed": seed}
        return set(choose_places(rule, held_out, list(held_out), tested))

    assert choose(None) == set(everything) - tested
    assert choose(1) <= choose(3) <= choose(None)
    for places in held_out.values():
        assert len(choose(3) & set(places)) == min(3, len(set(places) - tested))


def test_only_a_target_that_is_asked_for_enters_the_recipe():
    """Null is today's recipe to the byte, and the data's recipe never changes."""

    def recipe(**order: Any) -> Any:
        settings = make_settings({"order": "nft", **order})
        return make_recipe(settings, make_digests(embedding="e"))

    bare, null = recipe(), recipe(target=None)
    with_target = recipe(target={"by": "items"})

    assert run_id(bare) == run_id(null)
    assert "target" not in bare["stages"][0]["arrangement"]
    assert corpus_id(bare) == corpus_id(with_target)
    assert with_target["stages"][0]["arrangement"]["target"] == {
        "by": "items",
        "per_task": 5,
        "seed": 0,
        "overlap": "drop",
    }
    others = [
        recipe(target={"by": "items", **changes})
        for changes in ({}, {"seed": 1}, {"per_task": 2}, {"answers": False})
    ]
    assert len({run_id(each) for each in [bare, *others]}) == 5


@pytest.mark.parametrize(
    ("asked", "data", "told"),
    [
        ({"order": "random"}, {}, "`target` does nothing under order random"),
        ({"by": "path"}, {}, "`by: path` needs `path`"),
        ({"by": "items", "set": "records"}, {}, "`set` is of a target in files"),
        ({"seed": 1, "per_task": None}, {}, "`seed` draws nothing"),
        ({"by": "items"}, {"test_per_task": None}, "give data.test_per_task"),
        ({"by": "tasks"}, {}, "give data.test_tasks"),
        ({"path": "d", "set": "niv2", "fields": FIELDS}, {}, "niv2 has columns of its"),
        (
            {"path": "d", "answers": False, "fields": {"text": "t"}},
            {},
            "leaves nothing of raw texts",
        ),
    ],
)
def test_a_target_that_cannot_be_is_refused(asked, data, told):
    """By the grid, with what to do."""
    order = asked if "order" in asked else {"order": "nft"}
    target = {} if "order" in asked else asked
    with pytest.raises(ValidationError, match=told):
        make_settings({**order, "target": target}, **data)


def test_what_an_order_looks_at_is_shown(order):
    """By arrange show and compare, and in notes for reports; of the test set, that it
    is an oracle."""
    by_test = order(NEAREST).made
    by_target = order({**NEAREST, "target": {"by": "items"}})
    told = f"a target set apart from the test set: {by_target.summary.describe()}"
    summary = arrangements.summarize_arrangement(by_target.made, 2)
    compared = order_comparison.compare_orders(by_test, by_target.made, 2)

    assert summary["looks_at"] == told
    assert any(told in note for note in summary["notes"])
    assert compared.looks_at["two"] == told
    assert "an oracle" in str(compared.looks_at["one"])
    assert order_comparison.compare_orders(by_test, by_test, 2).looks_at == {}
    assert "by target items" in arrangements.label_arrangement(by_target.made)


def test_similarity_is_drawn_to_the_target(order):
    """The pool's items at 0° to 85°, along the order, to a target at 2°."""
    asked = {**NEAREST, "target": {"by": "items", "tasks": "near", "per_task": 1}}
    made = order(asked)
    item = int((made.made.folder / TARGET_IDS).read_text().strip()[-1]) * 2

    nearest, _ = arrangements.measure_similarity(made.made)

    angles = np.radians([0, 30, 60, 85])
    assert nearest == pytest.approx(np.cos(angles - np.radians(item)), abs=1e-6)
    with pytest.raises(UserError, match="without a target"):
        arrangements.load_test_embeddings(made.made)


def test_verify_checks_the_recorded_target(order):
    """A list of other items is told, and a test item among them."""
    made = order({**NEAREST, "target": {"by": "items"}})
    path = made.made.folder / TARGET_IDS
    evidence: Any = SimpleNamespace(
        arrangement=made.made.folder,
        job=SimpleNamespace(made=SimpleNamespace(corpus=made.run.corpus_id)),
        workspace_of=lambda need: made.made.workspace,
    )

    assert record_checks.check_target(evidence) == made.summary.describe()
    path.write_text(path.read_text().replace("near:1", "near:0"))
    with pytest.raises(Differs, match="is not the list"):
        record_checks.check_target(evidence)


GRID = """\
name: looked
defaults:
  data:
    set: records
    path: rows.jsonl
    fields: {prompt: question, answer: answer, task: kind}
    held_out: {tasks: [near, far]}
    test_per_task: 1
grid:
  - {arrangement.order: nft, arrangement.measure: kl,
     arrangement.target: [null, {path: dev.jsonl}], arrangement.granularity: [fine]}
  - {arrangement.order: nft, arrangement.measure: kl, arrangement.target.per_task: [1, 2]}
"""


def test_a_grid_compares_targets(tmp_path):
    """As an axis like any other; planned, made and shown."""
    write_rows(tmp_path / "dev.jsonl", {"dev": [30]})
    zsg = Zsg(tmp_path)
    grid = zsg.write("grid.yaml", GRID)
    orders = json.loads(zsg("arrange", "make", "--json", grid))
    shown = json.loads(zsg("data", "show", grid, "--json"))

    assert len(orders) == 4
    by_file = next(row["arrangement"] for row in orders if "dev" in str(row["axes"]))
    workspace = Workspace(zsg.work)
    made = arrangements.find_arrangement(workspace, by_file)
    assert "1 items of 1 tasks, files of its own" in str(
        arrangements.describe_looked_at(made)
    )
    assert [len(look["targets"]) for look in shown["data"]] == [3]
