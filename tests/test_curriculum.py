"""Do pacing, buckets, turns and replays make the lists that they are defined to make, and
is it counted what comes again and what is never seen?"""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.folder import Workspace
from launcher.planning import order_notes
from tests.lib.builders import digests as make_digests
from tests.lib.command_line import Zsg
from zsg_core.errors import BadData
from zsg_core.orders import buckets, curriculum, pacing, turns
from zsg_core.orders.arrange import arrange_items
from zsg_core.orders.from_file import arrange_by_file
from zsg_core.orders.order_list import IDS, ListFile, OrderList, read_order_list
from zsg_core.orders.pacing import CURVES, Pacing
from zsg_core.orders.registry import OrderInputs
from zsg_core.orders.shapes import sort_by_scores
from zsg_core.orders.shaping import DEFAULTS, shape_list
from zsg_core.recipe import arrangement_id, make_recipe
from zsg_core.settings.run import Settings

# places sorted by (7·i) mod 10, many of which tie
SORTED = sort_by_scores([7 * place % 10 for place in range(23)])
COMPETENT: dict[str, Any] = {"curve": "competence", "start": 0.2, "until": 1.0}
LINE, ROOT = 1.0, 2.0


def paced(power: float, draw: str) -> Pacing:
    return Pacing(power=power, draw=draw, **COMPETENT)


@pytest.mark.parametrize(
    ("power", "seen"), [(LINE, [5, 8, 11, 14, 17, 20]), (ROOT, [5, 11, 14, 17, 19, 22])]
)
def test_competence_lets_each_step_see_the_published_share(
    power: float, seen: list[int]
) -> None:
    """Of 23 examples, over six steps from a fifth; the part is rounded up."""
    counted = [paced(power, "once").count_seen(23, 6, before) for before in range(6)]

    assert counted == seen


@pytest.mark.parametrize(
    ("curve", "seen"),
    [
        ("linear", [212, 325, 550, 775]),
        ("root", [418, 550, 736, 879]),
        ("log", [812, 875, 937, 974]),
        ("exp", [100, 100, 106, 173]),
        ("step", [100, 100, 100, 100]),
    ],
)
def test_curves_are_the_published_ones(curve: str, seen: list[int]) -> None:
    """Of 1000 examples from a tenth, all of them after 80 of 100 steps; rounded down."""
    rule = Pacing(curve=curve, start=0.1, until=0.8, draw="once")

    assert [rule.count_seen(1000, 100, time) for time in (10, 20, 40, 60)] == seen
    assert rule.count_seen(1000, 100, 79) < 1000
    assert rule.count_seen(1000, 100, 80) == 1000


@pytest.mark.parametrize(
    ("power", "draw", "expected"),
    [
        (
            LINE,
            "once",
            "0 13 20 10 6 3 16 9 19 12 2 22 5 18 8 15 1 21 4 11 14 7 17",
        ),
        (
            ROOT,
            "once",
            "0 13 20 10 6 12 2 3 15 5 16 19 18 9 1 8 11 22 21 4 17 7 14",
        ),
        (
            LINE,
            "repeats",
            "0 13 20 10 3 10 16 0 12 19 10 16 0 15 10 3 9 0 19 3 11 15 9 8",
        ),
    ],
)
def test_a_paced_list_is_the_golden_one(power: float, draw: str, expected: str) -> None:
    """Batches of four, six steps, seed 42."""
    drawn = pacing.draw_paced(SORTED, paced(power, draw), 4, 6, 42)

    assert drawn == list(map(int, expected.split()))


@given(
    st.integers(1, 60),
    st.integers(1, 9),
    st.sampled_from(CURVES),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
)
def test_what_is_drawn_once_has_every_example_once(
    count: int, batch: int, curve: str, start: float, until: float
) -> None:
    """And no step draws what it may not see, unless its batch would not fill."""
    rule = Pacing(curve=curve, start=start, until=until, draw="once")
    steps = pacing.count_steps_of_pass(count, batch)
    drawn = pacing.draw_paced(range(count), rule, batch, steps, 7)

    assert sorted(drawn) == list(range(count))
    for before in range(steps):
        most = max(rule.count_seen(count, steps, before), (before + 1) * batch)
        assert max(drawn[before * batch : (before + 1) * batch]) < most


def test_a_long_list_is_drawn_as_a_short_one_is() -> None:
    """From several blocks of what remains, as from one plain list."""
    import random

    rule = Pacing(curve="linear", start=0.3, until=0.5, draw="once")
    chance, remaining, expected = random.Random(3), list[int](), list[int]()
    offered = 0
    for before in range(63):
        seen = max(rule.count_seen(5000, 63, before), min(5000, (before + 1) * 80))
        remaining += range(offered, seen)
        offered = seen
        picked = chance.sample(remaining, min(80, len(remaining)))
        remaining = [item for item in remaining if item not in set(picked)]
        expected += picked

    assert pacing.draw_paced(range(5000), rule, 80, 63, 3) == expected


def test_no_step_draws_an_example_twice() -> None:
    """By draw repeats examples come again in other steps; fewer than a batch are refused."""
    rule = Pacing(curve="root", start=0.01, until=0.9, draw="repeats")
    drawn = pacing.draw_paced(range(40), rule, 8, 30, 1)

    assert len(drawn) == 240
    assert all(len(set(drawn[at : at + 8])) == 8 for at in range(0, 240, 8))
    with pytest.raises(ValueError, match="there are 7 training examples"):
        pacing.draw_paced(range(7), rule, 8, 30, 1)


def test_one_pass_is_the_golden_list() -> None:
    """Three buckets of 7, 8 and 8, shuffled by one stream of seed 42."""
    passed = buckets.pass_buckets(SORTED, 3, "one_pass", 42)

    assert passed == list(
        map(
            int,
            "10 3 13 20 16 0 6 12 19 8 15 22 9 5 2 21 14 11 4 1 7 17 18".split(),
        )
    )


def test_baby_steps_repeat_what_stands_early() -> None:
    """7 + 15 + 23 places: the first bucket three times, the last once."""
    passed = buckets.pass_buckets(SORTED, 3, "baby_steps", 42)
    stages = passed[:7], passed[7:22], passed[22:]

    assert len(passed) == buckets.count_passed(23, 3, "baby_steps") == 45
    for number, (stage, size) in enumerate(zip(stages, (7, 15, 23), strict=True)):
        assert sorted(stage) == sorted(SORTED[:size]), number
    assert stages[0] == buckets.pass_buckets(SORTED, 3, "one_pass", 42)[:7]


def test_a_replayed_list_begins_again() -> None:
    """The golden one: each fourth place is of the replayed list."""
    mixed = turns.replay(range(10), [100, 200], 4)

    assert mixed == [0, 1, 2, 100, 3, 4, 5, 200, 6, 7, 8, 100, 9]


def test_sources_take_turns_until_all_are_used() -> None:
    """A source that has run out is passed over; the last turn may be short."""
    by_source = {"task": [0, 1, 2], "diverse": [10, 11, 12, 13, 14, 15, 16]}

    assert turns.take_turns(by_source, [("task", 1), ("diverse", 2)]) == (
        [0, 10, 11, 1, 12, 13, 2, 14, 15, 16]
    )
    assert turns.take_turns(by_source, [("diverse", 1), ("task", 2)]) == (
        [10, 0, 1, 11, 2, 12, 13, 14, 15, 16]
    )


def test_sources_are_spread_at_equal_distances() -> None:
    """Each source's examples in their order; of equal places the first source's first."""
    by_source = {"task": [0, 1], "diverse": [10, 11, 12, 13], "same": [20, 21]}

    assert turns.spread_evenly(by_source) == [10, 0, 20, 11, 12, 1, 21, 13]


PACED: dict[str, Any] = {
    "pacing": {
        "curve": "competence",
        "draw": "repeats",
        "batch": 4,
        "power": LINE,
        "start": 0.2,
        "until": 1.0,
    }
}


def arrange(sources: Any = "", **recipe: Any) -> list[int]:
    """23 items of one task, in an order that need not know what they are."""
    made = arrange_items(
        {"order": "cluster", "seed": 42, **recipe},
        ["a"] * 23,
        lambda: [],
        lambda farthest, cap: iter([]),
        sources=lambda: list(sources),
    )
    return made.places


def test_every_order_may_be_paced() -> None:
    """A shuffled list paced as a sorted one is: the same draws, of other examples."""
    of_sorted = arrange(**PACED)
    shuffled = arrange(order="random")
    of_shuffled = arrange(order="random", **PACED)

    assert of_shuffled == [shuffled[place] for place in of_sorted]


def test_sources_take_turns_in_the_order_of_the_list() -> None:
    """Whatever the order, each source's examples follow one another as it has them."""
    sources = "t" * 5 + "d" * 18
    shuffled = arrange(order="random")
    mixed = arrange(sources, order="random", turns=[["t", 1], ["d", 3]])
    replayed = arrange(sources, order="random", replay={"source": "t", "every": 3})

    assert sorted(mixed) == list(range(23))
    assert [item < 5 for item in mixed[:8]] == [True, False, False, False] * 2
    for part in (range(5), range(5, 23)):
        of_source = [item for item in shuffled if item in part]
        assert [item for item in mixed if item in part] == of_source
    assert [item for item in replayed if item < 5][:6] == [
        *[item for item in shuffled if item < 5],
        next(item for item in shuffled if item < 5),
    ]
    with pytest.raises(BadData, match=r"arrangement\.turns names no d"):
        arrange(sources, turns=[["t", 1]])
    with pytest.raises(BadData, match="source x has no training example"):
        arrange(sources, replay={"source": "x", "every": 3})


@pytest.mark.parametrize(
    "recipe",
    [
        PACED,
        {"pacing": {**PACED["pacing"], "over_steps": 50}},
        {"pacing": {**PACED["pacing"], "most_steps": 3}},
        {"pacing": {**PACED["pacing"], "draw": "once"}},
        {"buckets": {"number": 4, "style": "baby_steps"}},
        {"buckets": {"number": 23, "style": "one_pass"}},
        {"replay": {"source": "t", "every": 4}},
        {"turns": "evenly"},
    ],
)
def test_lengths_are_known_before_anything_is_drawn(recipe: dict[str, Any]) -> None:
    """A replay's at most; and a list that may not repeat does not."""
    places = arrange("t" * 5 + "d" * 18, **recipe)
    presence = curriculum.count_presence(places, 23)
    counts = Counter(places)

    if "replay" in recipe:
        assert len(places) <= curriculum.count_places(recipe, 23)
    else:
        assert len(places) == curriculum.count_places(recipe, 23)
    assert presence.places == len(places)
    assert presence.distinct == len(counts) == 23 - presence.never
    assert presence.repeated == sum(count > 1 for count in counts.values())
    assert presence.most == max(counts.values())
    if not curriculum.may_repeat(recipe):
        assert presence.most == 1
    if not curriculum.may_pass_over(recipe):
        assert presence.never == 0


def test_lists_that_would_fill_the_memory_are_refused() -> None:
    with pytest.raises(BadData, match="the list would have 400,000,000 places"):
        arrange(pacing={**PACED["pacing"], "over_steps": 100_000_000})


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        pytest.param(
            {"pacing": {**PACED["pacing"], "batch": 24}},
            "arrangement.pacing: there are 23 training examples, and a step draws 24",
            id="fewer than a batch",
        ),
        pytest.param(
            {"buckets": {"number": 24, "style": "one_pass"}},
            "arrangement.buckets: there are 23 training examples, too few for 24 buckets",
            id="fewer than buckets",
        ),
        pytest.param(
            {"pacing": {**PACED["pacing"], "over_steps": 100_000_000}},
            "the list would have 400,000,000 places",
            id="a list that would fill the memory",
        ),
    ],
)
def test_an_order_that_data_do_not_allow_is_refused_in_the_plan(
    rule: dict[str, Any], said: str
) -> None:
    """As the job that would make it refuses it; of 23 examples at most, so that the
    data need not be counted."""
    order = {"order": "random", "seed": 0, **rule}
    run: Any = SimpleNamespace(
        stage={"arrangement": order}, all_before=[], arrangement_id="a"
    )

    with pytest.raises(BadData, match=said):
        arrange(**rule)
    with pytest.raises(BadData, match=said):
        order_notes.refuse_impossible([run], lambda run: (23, False))


def listing(*entries: str) -> OrderList:
    return OrderList(Path("x.txt"), IDS, list(entries))


def test_a_list_may_repeat_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """Then an example is trained on as often as it is listed, and all must be listed."""
    (tmp_path / "x.txt").write_text("a:0\na:1\na:0\n")
    inputs = OrderInputs(
        recipe={"order": "file", "repeats": "keep"},
        tasks=["a", "a"],
        distances=lambda: [],
        rounds=lambda farthest, cap: iter([]),
        ids=["a:0", "a:1"],
        read_input=lambda: read_order_list(
            ListFile(tmp_path / "x.txt", may_repeat=True)
        ),
    )

    assert arrange_by_file(inputs).places == [0, 1, 0]
    with pytest.raises(BadData, match=r"x\.txt:3: 'a:0' stands .*repeats: keep"):
        read_order_list(ListFile(tmp_path / "x.txt"))
    (tmp_path / "x.txt").write_text("a:0\na:0\n")
    with pytest.raises(BadData, match="lists 1 of 2 training examples"):
        arrange_by_file(inputs)


def settings_of(arrangement: dict[str, Any], **train: Any) -> Settings:
    return Settings.model_validate(
        {
            "data": {"set": "niv2", "path": "x"},
            "arrangement": arrangement,
            "train": {"batch": 16, "lr": 1e-3} | train,
        }
    )


def identify(arrangement: dict[str, Any], **train: Any) -> str:
    return arrangement_id(
        make_recipe(settings_of(arrangement, **train), make_digests("d" * 64))
    )


ROOT_ONCE = {"curve": "root", "draw": "once"}


def test_a_pacing_is_of_a_batch_and_other_orders_are_not() -> None:
    """Its defaults written out are the same order; batch, steps and seed are others."""
    made = identify({"order": "cluster", "pacing": ROOT_ONCE})
    written = {**ROOT_ONCE, "start": 0.01, "until": 0.9}

    assert identify({"order": "cluster", "pacing": written}) == made
    assert identify({"order": "cluster"}, batch=8) == identify({"order": "cluster"})
    others = [
        identify({"order": "cluster", "pacing": ROOT_ONCE}, batch=8),
        identify({"order": "cluster", "pacing": ROOT_ONCE}, steps=9),
        identify({"order": "cluster", "pacing": ROOT_ONCE, "seed": 1}),
        identify({"order": "cluster", "pacing": {**ROOT_ONCE, "draw": "repeats"}}),
        identify(
            {"order": "cluster", "pacing": {"curve": "competence", "draw": "once"}}
        ),
        identify({"order": "random", "pacing": ROOT_ONCE}),
        identify({"order": "cluster"}),
    ]
    assert len({made, *others}) == 8


@pytest.mark.parametrize(
    ("arrangement", "said"),
    [
        ({"pacing": {"curve": "root"}}, "draw"),
        ({"pacing": {**ROOT_ONCE, "power": 2}}, "`power` is that of curve competence"),
        ({"pacing": {**ROOT_ONCE, "over_steps": 9}}, "`over_steps` is of draw repeats"),
        ({"pacing": {**ROOT_ONCE, "start": 0}}, "start"),
        (
            {"pacing": ROOT_ONCE, "buckets": {"number": 2, "style": "one_pass"}},
            "`pacing` and `buckets` both say",
        ),
        ({"buckets": {"number": 1, "style": "one_pass"}}, "number"),
        ({"turns": {"a": 1}}, "arrangement.turns is of several sources"),
        ({"replay": {"source": "a", "every": 2}}, "arrangement.replay is of several"),
        ({"order": "random", "repeats": "keep"}, "`repeats` does nothing"),
        ({"order": "random", "tasks": "shuffled"}, "`tasks` does nothing under order"),
        ({"order": "rt", "shape": "fold"}, "`shape` does nothing under order rt"),
        ({"order": "nft", "layers": 2}, "`layers` does nothing in shape sort"),
        ({"order": "fft", "shape": "segment"}, "use order nft"),
        (
            {"order": "tma", "list": "random", "cap": 4, "shape": "fold"},
            "a shape is of a sorted list, min or max, not of random; take shape out",
        ),
    ],
)
def test_what_does_nothing_is_refused(arrangement: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(arrangement)


@pytest.mark.parametrize(
    ("arrangement", "said"),
    [
        ({"turns": {"t": 1, "x": 2}}, "there is no source 'x' in data.sources"),
        ({"turns": {"t": 1}}, "arrangement.turns does not name d"),
        ({"replay": {"source": "x", "every": 2}}, "there are t and d"),
    ],
)
def test_turns_are_of_the_sources_of_the_data(
    arrangement: dict[str, Any], said: str
) -> None:
    sources = {
        "t": {"set": "niv2", "path": "x"},
        "d": {"set": "messages", "path": "y", "test_path": "z"},
    }
    with pytest.raises(ValueError, match=said):
        Settings.model_validate(
            {
                "data": {"sources": sources},
                "arrangement": arrangement,
                "train": {"lr": 1e-3},
            }
        )


@pytest.mark.parametrize("shape", list(DEFAULTS))
def test_a_shape_is_of_any_ranks(shape: str) -> None:
    """The nearest-first list, and a list of TMA, as a list by scores: the same list in
    the same shape."""
    distances = [float(7 * place % 10) for place in range(23)]
    recipe = {"seed": 42, "shape": shape, **DEFAULTS[shape]}
    nearest_first = {"order": "nft", "measure": "wsd", **recipe}
    of_rounds = {"order": "tma", "list": "min", **recipe}
    by_rank = [
        arrange_items(
            asked,
            ["a"] * 23,
            lambda: distances,
            lambda farthest, cap: iter([[place] for place in SORTED]),
        ).places
        for asked in (nearest_first, of_rounds)
    ]

    assert by_rank == [shape_list(SORTED, recipe, 42)] * 2


def test_shuffled_tasks_stay_whole() -> None:
    """Each seed has another order of the tasks; what stands in one keeps its order."""
    tasks = ["a"] * 3 + ["b"] * 2 + ["c"] * 4
    lists: dict[int, list[int]] = {}
    for seed in range(8):
        lists[seed] = arrange_items(
            {"order": "cluster", "tasks": "shuffled", "seed": seed},
            tasks,
            lambda: [],
            lambda farthest, cap: iter([]),
        ).places
    groups = {tuple(range(3)), tuple(range(3, 5)), tuple(range(5, 9))}

    for places in lists.values():
        names = [tasks[place] for place in places]
        runs = [name for at, name in enumerate(names) if names[at - 1 : at] != [name]]
        assert sorted(runs) == ["a", "b", "c"] and sorted(places) == list(range(9))
        assert all(
            [place for place in places if place in group] == list(group)
            for group in groups
        )
    assert len({tuple(places) for places in lists.values()}) > 3
    assert identify({"order": "cluster", "tasks": "shuffled", "seed": 1}) != identify(
        {"order": "cluster", "tasks": "shuffled", "seed": 2}
    )
    assert identify({"order": "cluster", "tasks": "listed"}) == identify(
        {"order": "cluster"}
    )


def test_replicates_of_a_rule_are_told_in_one_note(tmp_path: Path) -> None:
    """As drawn, before anything is made: the counts of all seeds, from the least to the
    most; what only the data can tell is said to be counted later."""
    runs: list[Any] = []
    for seed in range(3):
        order = {"order": "random", "seed": seed, **PACED}
        runs.append(
            SimpleNamespace(
                stage={"arrangement": order}, all_before=[], arrangement_id=f"a{seed}"
            )
        )
    replayed = {"order": "random", "replay": {"source": "t", "every": 3}}
    runs.append(
        SimpleNamespace(
            stage={"arrangement": replayed}, all_before=[], arrangement_id="b"
        )
    )
    told = list(
        order_notes.describe_repeats(Workspace(tmp_path), runs, lambda run: (23, True))
    )

    counted = [
        curriculum.count_presence(arrange(seed=seed, **PACED), 23) for seed in range(3)
    ]
    least = min(presence.never for presence in counted)
    most = max(presence.never for presence in counted)
    assert len(told) == 2
    assert "24 places for 23 examples" in told[0]
    assert f" and {least}–{most} are never seen" in told[0]
    assert "counted when the data are prepared" in told[1]


GRID = """
name: paced
defaults:
  model: {{name: tiny, hidden: 16, layers: 1, heads: 2, vocab: 400}}
  data: {{path: {tasks}, train_per_task: 1, test_per_task: 1}}
  train: {{batch: 8, lr: 1e-3, max_length: 1024}}
  checkpoints: {{every: 100}}
grid:
  arrangement: [{{order: cluster, buckets: {{number: 2, style: baby_steps}}}}]
"""


@pytest.mark.soak(part="users")
def test_a_list_with_repeats_is_trained_on_and_proven(zsg: Zsg, tasks: Path) -> None:
    """From the command line: plan counts, the run takes the steps of the longer list,
    verify proves its order, and status says what comes again."""
    zsg("submit", zsg.write("g.yaml", GRID.format(tasks=tasks)))
    counted = "36 places for at most 24 examples, of which 12 come again"
    assert counted in zsg.said
    (row,) = zsg.status()

    assert (row["state"], row["steps"]) == ("done", 5)
    assert row["notes"] == [
        "the order has 36 places for 24 examples, of which 12 come again, 2 times at most"
    ]
    zsg("verify", row["run"])
