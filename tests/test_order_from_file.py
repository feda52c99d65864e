"""Is an order that a file lists read right from every format, and told by line where it
is wrong?"""

import gzip
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from jobs.contract.folder import Workspace
from launcher.clusters import profiles
from launcher.grids import grid as grids
from launcher.grids import runs
from launcher.grids.inputs import Inputs
from launcher.reporting.data import arrangements
from launcher.submission import workflow
from tests.lib.builders import digests as make_digests
from tests.lib.command_line import Zsg
from zsg_core.errors import BadData, UserError
from zsg_core.orders.from_file import arrange_by_file
from zsg_core.orders.order_list import (
    IDS,
    PLACES,
    ListFile,
    OrderList,
    read_order_list,
)
from zsg_core.orders.registry import OrderInputs
from zsg_core.orders.score_list import read_scores
from zsg_core.recipe import arrangement_id, make_recipe
from zsg_core.settings.run import Settings

NAMES = ["b:1", "a:2", "a:0"]
ITEMS = ["a:0", "a:1", "a:2", "b:0", "b:1"]


def write_lines(path: Path) -> None:
    path.write_text("".join(f"{name}\n" for name in NAMES))


def write_windows_lines(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(NAMES).encode())


def write_packed_lines(path: Path) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(f"{name}\n" for name in NAMES)


def write_bare_json(path: Path) -> None:
    path.write_text("".join(json.dumps(name) + "\n" for name in NAMES))


def write_json_rows(key: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        rows = (json.dumps({"rank": 1, key: name}) for name in NAMES)
        path.write_text("".join(f"{row}\n" for row in rows))

    return write


def write_parquet(column: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        parquet.write_table(pa.table({"rank": [1, 2, 3], column: NAMES}), path)

    return write


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("order.txt", write_lines),
        ("no-suffix", write_lines),
        ("windows.txt", write_windows_lines),
        ("order.txt.gz", write_packed_lines),
        ("bare.jsonl", write_bare_json),
        ("rows.jsonl", write_json_rows("id")),
        ("rows.jsonl#key", write_json_rows("key")),
        ("rows.parquet", write_parquet("id")),
        ("rows.parquet#key", write_parquet("key")),
        ("order.npy", lambda path: np.save(path, np.array(NAMES))),
        ("it's #1.txt", write_lines),
    ],
)
def test_a_list_is_the_same_from_every_format(
    tmp_path: Path, name: str, write: Callable[[Path], Any]
) -> None:
    """The entries in their order, and their digest, which is what a run id knows of it."""
    write(tmp_path / (name if "'" in name else name.partition("#")[0]))

    listed = read_order_list(ListFile.parse(str(tmp_path / name)))

    assert listed.kind == IDS and list(listed.entries) == NAMES
    assert listed.digest == OrderList(Path("x"), IDS, NAMES).digest
    assert listed.digest != OrderList(Path("x"), IDS, NAMES[::-1]).digest


@pytest.mark.parametrize(
    ("name", "kind", "write"),
    [
        ("order.npy", None, lambda path: np.save(path, np.array([4, 2, 0]))),
        ("order.npy", None, lambda path: np.save(path, np.array([4, 2, 0], np.uint8))),
        ("order.txt", PLACES, lambda path: path.write_text("4\n2\n0\n")),
        ("order.jsonl", PLACES, lambda path: path.write_text('4\n{"id": 2}\n"0"\n')),
    ],
)
def test_places_are_whole_numbers(
    tmp_path: Path, name: str, kind: str | None, write: Callable[[Path], Any]
) -> None:
    """Those of NumPy are places unasked; in other files it is said that they are."""
    write(tmp_path / name)

    listed = read_order_list(ListFile(tmp_path / name, kind=kind))

    assert listed.kind == PLACES and list(listed.entries) == [4, 2, 0]


@pytest.mark.parametrize(
    ("name", "text", "kind", "said"),
    [
        ("x.txt", b"", None, "x.txt: lists no example"),
        ("x.txt", b"a\n\nb\n", None, "x.txt:2: is empty"),
        ("x.txt", b"a\nb\na\n", None, "x.txt:3: 'a' stands in {}/x.txt:1 already"),
        ("x.txt", b"a\n\xff\n", None, "x.txt:2: is no UTF-8 text"),
        ("x.txt", b"a" * 20_000, None, "x.txt: line 1 has more than 10,000 bytes"),
        ("x.txt", b"1\nx\n", PLACES, "x.txt:2: 'x' is no place"),
        ("x.txt", b"1\n-1\n", PLACES, "x.txt:2: '-1' is no place"),
        ("x.txt", b"1\n1\n", PLACES, "x.txt:2: 1 stands in"),
        ("x.txt", b"9" * 5000, PLACES, "x.txt:1: '9999"),
        ("x.txt.gz", b"a\n", None, "x.txt.gz: cannot be read"),
        ("x.jsonl", b'{"key": 1}\n', None, "x.jsonl:1: has no key 'id'; it has key"),
        ("x.jsonl", b'"a"\n{"id"\n', None, "x.jsonl:2: is no JSON"),
        ("x.jsonl", b"[" * 9000 + b"\n", None, "x.jsonl:1: is no JSON"),
        ("x.jsonl", b'{"id": null}\n', None, "x.jsonl:1: None is no id"),
        ("x.jsonl", b'{"id": true}\n', None, "x.jsonl:1: True is no id"),
        ("x.jsonl", b'{"id": 1.5}\n', PLACES, "x.jsonl:1: 1.5 is no place"),
        ("x.parquet", b"a", None, "x.parquet: "),
        ("x.npy", b"a", None, "x.npy: cannot be read as .npy"),
    ],
)
def test_what_is_no_list_is_told_by_line(
    tmp_path: Path, name: str, text: bytes, kind: str | None, said: str
) -> None:
    """With the file, the line, and what stands there."""
    (tmp_path / name).write_bytes(text)

    with pytest.raises(BadData) as caught:
        read_order_list(ListFile(tmp_path / name, kind=kind))

    assert str(caught.value).startswith(f"{tmp_path}/{said.format(tmp_path)}")


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), int), np.array([0.5]), np.array([{"a": 1}], dtype=object)],
)
def test_an_array_that_is_no_list_is_refused(tmp_path: Path, array: Any) -> None:
    """Objects, too: to read them could run code."""
    np.save(tmp_path / "x.npy", array, allow_pickle=True)

    with pytest.raises(BadData, match=r"x\.npy: "):
        read_order_list(ListFile(tmp_path / "x.npy"))


def test_a_file_whose_own_name_has_a_mark_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below ~, too; what can be no path is no such file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a#b.jsonl").write_text("1\n")

    assert ListFile.parse("~/a#b.jsonl") == ListFile(Path("~/a#b.jsonl"))
    assert ListFile.parse("~/c.jsonl#key") == ListFile(Path("~/c.jsonl"), "key")
    for text in ("~nobody-of-this-name/x#key", "x" * 5000 + "#key"):
        assert ListFile.parse(text).column == "key"


HEADERS = [
    b"{",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (True,)}",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999,)}",
    b"{'descr': '<U1', 'fortran_order': False, 'shape': (2,)}",
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("read", [read_order_list, read_scores])
def test_an_array_whose_header_or_letters_are_none_is_refused(
    tmp_path: Path, header: bytes, read: Callable[[ListFile], Any]
) -> None:
    """Whatever NumPy raises for them."""
    size = len(header).to_bytes(2, "little")
    made = b"\x93NUMPY\x01\x00" + size + header + b"\xff" * 8
    (tmp_path / "x.npy").write_bytes(made)

    with pytest.raises(BadData, match=r"x\.npy: "):
        read(ListFile(tmp_path / "x.npy"))


def make_inputs(
    listed: OrderList,
    *,
    rest: str | None = None,
    published: Sequence[str | None] = (),
    others: Sequence[str] = (),
) -> OrderInputs:
    """What the order is made from, over five items of two tasks."""
    recipe = {"order": "file", "input": listed.digest}
    return OrderInputs(
        recipe=recipe | ({"rest": rest} if rest else {}),
        tasks=[name[0] for name in ITEMS],
        distances=list,
        rounds=lambda farthest, cap: iter(()),
        ids=ITEMS,
        published_ids=lambda: published,
        other_ids=lambda: {*ITEMS, *others},
        read_input=lambda: listed,
    )


def listing(*entries: str | int) -> OrderList:
    """A list of a text file."""
    kind = IDS if isinstance(entries[0], str) else PLACES
    return OrderList(Path("x.txt"), kind, list(entries))


WHOLE = ("b:1", "a:2", "a:0", "b:0", "a:1")


def test_examples_are_seen_as_they_are_listed() -> None:
    """By ids, by places, or by the ids that the data have of their own."""
    places = [4, 2, 0, 3, 1]
    own = ["q0", "q1", "q2", "q3", "q4"]
    by_own = make_inputs(listing("q4", "q2", "q0", "q3", "q1"), published=own)

    assert arrange_by_file(make_inputs(listing(*WHOLE))).places == places
    assert arrange_by_file(make_inputs(listing(*places))).places == places
    assert arrange_by_file(by_own).places == places
    assert arrange_by_file(by_own).facts["listed"]["by"] == "the data's own ids"


def test_a_part_is_a_list_only_where_it_is_asked_for() -> None:
    """Else it is told how many are not listed, and which."""
    part = listing("b:1", "a:2")

    assert arrange_by_file(make_inputs(part, rest="drop")).places == [4, 2]
    with pytest.raises(BadData) as caught:
        arrange_by_file(make_inputs(part))
    assert str(caught.value).startswith(
        "x.txt: lists 2 of 5 training examples; not listed are a:0, a:1, b:0. Set"
        " arrangement.rest: drop"
    )


def test_listed_examples_that_are_not_trained_on_are_passed_over() -> None:
    """A list of all of one's rows does where some are held out, or were not sampled;
    how many is kept with the order. One that is no example at all is a mistake."""
    whole = listing("held:1", *WHOLE, "a:7")
    inputs = make_inputs(whole, others=["held:1", "a:7"])

    made = arrange_by_file(inputs)

    assert made.places == [4, 2, 0, 3, 1]
    assert made.facts["listed"] == {"by": "ids", "count": 5, "passed_over": 2}
    with pytest.raises(
        BadData, match=r"x\.txt:7: no training example has the id 'a:7'"
    ):
        arrange_by_file(make_inputs(whole, others=["held:1"]))


def test_a_list_of_held_out_examples_alone_is_told_to_be_that() -> None:
    """Its ids are right, so no other name is proposed."""
    with pytest.raises(BadData, match=r"x\.txt:1: 'held:1' is held out, or was not"):
        arrange_by_file(make_inputs(listing("held:1"), others=["held:1"]))


@pytest.mark.parametrize(
    ("entries", "published", "said"),
    [
        (("b:1", "a:9", "c"), (), "x.txt:2: no training example has the id 'a:9'"),
        ((0, 5), (), "x.txt:2: there is no training example at place 5: there are 5"),
        (("q1", "q2"), ("q1", "q1", "q2", None, None), "x.txt:1: 'q1' is the id of"),
        (("q1", "q7"), ("q1", "q2", None, None, None), "x.txt:2: no training example"),
    ],
)
def test_what_is_no_training_example_is_told_by_line(
    entries: Sequence[str | int], published: Sequence[str | None], said: str
) -> None:
    """The first of them, and how many more there are."""
    inputs = make_inputs(listing(*entries), rest="drop", published=published)

    with pytest.raises(BadData) as caught:
        arrange_by_file(inputs)

    assert str(caught.value).startswith(said)


def test_places_that_look_counted_from_one_are_told_to_be_that() -> None:
    """Where the least is 1 and the most the number of examples."""
    with pytest.raises(BadData, match=r"from 0 on; these look as if counted from 1$"):
        arrange_by_file(make_inputs(listing(3, 1, 5, 2, 4)))
    with pytest.raises(BadData, match=r"from 0 on$"):
        arrange_by_file(make_inputs(listing(0, 5), rest="drop"))


def test_where_a_mix_repeats_examples_places_are_asked_for() -> None:
    """One id stands for both; told as what it is, not as an example that is missing."""
    ids = ["a:0", "b:0", "a:0"]
    by_ids = replace(make_inputs(listing("b:0", "a:0")), ids=ids)
    by_places = replace(make_inputs(listing(2, 0, 1)), ids=ids)

    assert arrange_by_file(by_places).places == [2, 0, 1]
    with pytest.raises(BadData, match=r"1 of 3 training examples come again"):
        arrange_by_file(by_ids)


def test_a_long_list_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Any permutation of many ids, by its digest."""
    names = [f"task{number % 1600:04}:{number // 1600}" for number in range(200_000)]
    random.Random(7).shuffle(names)
    (tmp_path / "order.txt").write_text("".join(f"{name}\n" for name in names))

    listed = read_order_list(ListFile(tmp_path / "order.txt"))

    assert listed.digest == OrderList(Path("x"), IDS, names).digest


def settings_of(**arrangement: Any) -> Settings:
    """A run in an order."""
    return Settings.model_validate(
        {"data": {"path": "tasks"}, "train": {"lr": 1}, "arrangement": arrangement}
    )


def test_the_list_makes_the_run_and_not_where_it_lies() -> None:
    """Another path or format is the same run; another list, or a part that is asked
    for, is another."""

    def identify(digest: str, **arrangement: Any) -> str:
        settings = settings_of(order="file", **arrangement)
        digests = make_digests("d" * 64, order_input=digest)
        return arrangement_id(make_recipe(settings, digests))

    made = identify("d1", path="a.txt")
    assert identify("d1", path="b.npy", entries="places") == made
    assert identify("d2", path="a.txt") != made
    assert identify("d1", path="a.txt", rest="drop") != made


@pytest.mark.parametrize(
    ("arrangement", "said"),
    [
        ({"order": "file"}, "order file needs `path`"),
        ({"order": "random", "path": "a.txt"}, "`path` does nothing under order"),
        ({"order": "cluster", "rest": "drop"}, "`rest` does nothing under order"),
        ({"order": "file", "path": "a.txt", "block": 2}, "`block` does nothing under"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    arrangement: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(**arrangement)


GRID = """
name: listed
defaults:
  data: {{path: {tasks}, train_per_task: 2, test_per_task: 1}}
  train: {{batch: 8, lr: 1e-3}}
grid:
  - {{arrangement.order: [cluster]}}
  - {{arrangement: [{{order: file, path: {order}}}, {{order: file, path: {wrong}}}]}}
"""


def test_a_wrong_list_ends_no_other_order(zsg: Zsg, tasks: Path) -> None:
    """One prepare job makes the orders of a corpus: those that the data allow are there,
    and what is wrong with the other is said. Once the data are prepared, plan says it."""
    first = GRID.format(tasks=tasks, order="order.txt", wrong="part.txt")
    cluster_only = first[: first.index("  - {arrangement: [")]
    zsg("arrange", "make", zsg.write("grid.yaml", cluster_only))
    [made] = (zsg.work / "arrangements").iterdir()
    ids = (made / "ids").read_text().splitlines()
    shutil.rmtree(zsg.work)
    zsg.write("order.txt", "".join(f"{name}\n" for name in reversed(ids)))
    zsg.write("part.txt", "".join(f"{name}\n" for name in ids[1:]))
    grid = zsg.write("grid.yaml", first)

    zsg("arrange", "make", grid, code=2)

    workspace = Workspace(zsg.work)
    orders = [
        arrangements.find_arrangement(workspace, path.name)
        for path in (zsg.work / "arrangements").iterdir()
    ]
    assert sorted(one.ids for one in orders) == sorted([ids, ids[::-1]])
    problem = f"part.txt: lists {len(ids) - 1} of {len(ids)} training examples"
    assert problem in zsg.said and f"not listed are {ids[0]}" in zsg.said
    zsg("plan", grid, code=2)
    assert problem in zsg.said


PLANNED = """
name: planned
defaults:
  data: {{path: {tasks}, train_per_task: 2, test_per_task: 1}}
  train: {{batch: 8, lr: 1e-3}}
grid:
  arrangement: [{{order: {order}, path: {file}{more}}}]
"""


@pytest.mark.parametrize(
    ("order", "end"), [("file", "\n"), ("scores", "\t1\n")], ids=["file", "scores"]
)
def test_plan_judges_ids_by_data_that_are_not_prepared(
    tmp_path: Path, tasks: Path, order: str, end: str
) -> None:
    """What the data do not have is refused, with its line; what only the job can tell is
    said to be so."""
    [task, *_] = sorted(file.stem for file in tasks.rglob("task*.json"))
    (tmp_path / "part.txt").write_text(f"{task}:0{end}{task}:1{end}")
    (tmp_path / "wrong.txt").write_text(f"{task}:0{end}{task}:1x{end}")
    grid = tmp_path / "grid.yaml"

    def plan(file: str, more: str = "") -> list[str]:
        file = str(tmp_path / file)
        grid.write_text(PLANNED.format(tasks=tasks, order=order, file=file, more=more))
        return [*workflow.resolve_grid(grid, None, tmp_path / "work").notes]

    later = f"{tmp_path}/part.txt: whether it names every training example is judged"
    assert any(note.startswith(later) for note in plan("part.txt"))
    assert not any("judged by" in note for note in plan("part.txt", ", rest: drop"))
    with pytest.raises(
        UserError, match=r"wrong\.txt:2: no training example has the id"
    ):
        plan("wrong.txt", ", rest: drop")


@pytest.mark.parametrize(
    ("order", "array", "said"),
    [
        (
            "file",
            np.arange(1, 49),
            r"x\.npy\[47\]: there is no .* at place 48: .* most 48",
        ),
        (
            "scores",
            np.zeros(49),
            r"x\.npy: has 49 scores by place, and there are at most 48",
        ),
    ],
)
def test_plan_judges_places_by_how_many_examples_there_can_be(
    tmp_path: Path, tasks: Path, order: str, array: Any, said: str
) -> None:
    """Of data that are not prepared: of the 24 tasks two examples are trained on."""
    np.save(tmp_path / "x.npy", array)
    file = str(tmp_path / "x.npy")
    grid = tmp_path / "grid.yaml"
    grid.write_text(PLANNED.format(tasks=tasks, order=order, file=file, more=""))

    with pytest.raises(UserError, match=said):
        workflow.resolve_grid(grid, None, tmp_path / "work")


def test_plan_refuses_a_list_that_cannot_be_read(tmp_path: Path, tasks: Path) -> None:
    """Before a job is made; and names the key."""
    (tmp_path / "order.txt").write_text("a\na\n")
    text = GRID.format(
        tasks=tasks, order=tmp_path / "order.txt", wrong=tmp_path / "none.txt"
    )
    (tmp_path / "grid.yaml").write_text(text)
    inputs = Inputs(tmp_path / "cache")
    _, listed, absent = (
        point.settings for point in grids.load_grid(tmp_path / "grid.yaml").points
    )

    with pytest.raises(UserError, match=r"arrangement\.path: .*order\.txt:2: 'a'"):
        inputs.digest_inputs(listed)
    with pytest.raises(UserError, match=r"arrangement\.path: .*none\.txt: no such"):
        inputs.digest_inputs(absent)


BY_PLACE = """
name: placed
defaults:
  data: {{path: {tasks}, train_per_task: 2, test_per_task: 1}}
  train: {{batch: 8, lr: 1e-3}}
  arrangement: {{order: {order}, path: {file}}}
grid:
  data.sample_seed: {seeds}
"""


@pytest.mark.parametrize(
    ("order", "file", "seeds", "is_told"),
    [
        ("file", "places.npy", [0, 1], True),
        ("scores", "scores.npy", [0, 1], True),
        ("file", "places.npy", [0], False),
        ("file", "ids.txt", [0, 1], False),
        ("file", "ids.npy", [0, 1], False),
    ],
)
def test_places_of_several_samples_of_the_data_are_told(
    tmp_path: Path, tasks: Path, order: str, file: str, seeds: list[int], is_told: bool
) -> None:
    """A place is another example in each sample, and no size of a list tells which was
    meant; ids are safe."""
    np.save(tmp_path / "places.npy", np.arange(48))
    np.save(tmp_path / "scores.npy", np.arange(48) / 7)
    np.save(tmp_path / "ids.npy", np.array(["a", "b"]))
    (tmp_path / "ids.txt").write_text("a\nb\n")
    text = BY_PLACE.format(tasks=tasks, order=order, file=tmp_path / file, seeds=seeds)
    (tmp_path / "grid.yaml").write_text(text)
    profile = profiles.load_profile("local", tmp_path)
    grid = grids.load_grid(tmp_path / "grid.yaml")

    _, notes = runs.resolve_runs(grid, profile, Inputs(tmp_path / "cache"))

    assert any("is by place, and orders 2 different" in note for note in notes) == (
        is_told
    )


def test_an_array_of_json_is_a_list(tmp_path: Path) -> None:
    """Of ids, of objects with a key, or of places; with the digest of other forms."""
    path = tmp_path / "x.json"
    path.write_text('["b:1", "a:0"]')
    by_id = read_order_list(ListFile(path))
    path.write_text('[{"id": "b:1"}, {"id": "a:0"}]')
    by_key = read_order_list(ListFile(path))
    path.write_text("[3, 0]")
    by_place = read_order_list(ListFile(path, kind="places"))

    assert by_id.entries == by_key.entries == ["b:1", "a:0"]
    assert by_id.digest == by_key.digest
    assert by_place.entries == [3, 0]
    path.write_text('["b:1", "b:1"]')
    with pytest.raises(BadData, match=r"x\.json\[1\]: 'b:1' stands in .*\[0\] already"):
        read_order_list(ListFile(path))


@pytest.mark.parametrize("name", ["x.pt", "x.pickle", "x.npz", "x.pkl.gz"])
def test_a_file_that_may_run_code_is_not_read(tmp_path: Path, name: str) -> None:
    """And what to do instead."""
    (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(BadData, match=r"is not read.*save the one as \.npy"):
        read_order_list(ListFile(tmp_path / name))
