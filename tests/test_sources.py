"""Do several data sets become one run, its stages and its recipe?"""

import json
import re
from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from launcher.grids import grid, input_checks
from launcher.grids.input_checks import Judged
from zsg_core import recipe as recipes
from zsg_core.errors import UserError
from zsg_core.recipe import InputDigests, SourceDigests
from zsg_core.settings.run import Settings

SOURCES: dict[str, Any] = {
    "math": {"set": "gsm8k", "path": "/m", "test_path": "/mt"},
    "code": {"set": "alpaca", "path": "/c"},
    "general": {"set": "sharegpt", "path": "/g", "role": "general"},
}


def settings(
    strategy: Any = None, sources: dict[str, Any] | None = None, **data: Any
) -> Settings:
    """Settings of a run on DMT's three sources."""
    given = {"data": {"sources": sources or SOURCES, **data}}
    return Settings.model_validate(given | ({"strategy": strategy} if strategy else {}))


def recipe(wanted: Settings) -> dict[str, Any]:
    """The recipe, every source with a digest of its own."""
    digests = InputDigests(
        sources={
            name: SourceDigests(data=name, test="t")
            for name in wanted.data.sources or {}
        }
    )
    return recipes.make_recipe(wanted, digests)


def trained(made: dict[str, Any]) -> list[dict[str, str]]:
    """What share of each source every stage of a recipe trains on."""
    return [
        {
            name: source["train"].get("k", "1")
            for name, source in stage["data"]["sources"].items()
        }
        for stage in made["stages"]
    ]


@pytest.mark.parametrize(
    ("strategy", "stages"),
    [
        pytest.param(None, ["111"], id="no strategy"),
        pytest.param("multitask", ["111"], id="multitask"),
        pytest.param(
            "sequential",
            ["100", "010", "001"],
            id="sequential, as written, the general last",
        ),
        pytest.param(
            {"name": "sequential", "order": ["code", "math", "general"]},
            ["010", "100", "001"],
            id="order",
        ),
        pytest.param("mixed", ["110", "001"], id="mixed"),
        pytest.param({"name": "dmt", "k": 0}, ["110", "001"], id="dmt of nothing"),
        pytest.param({"name": "dmt", "k": 1}, ["110", "111"], id="dmt of all"),
    ],
)
def test_a_strategy_is_its_stages(strategy: Any, stages: list[str]) -> None:
    """Each stage trains on the whole of some sources and on nothing of the others (DMT,
    section 3.5)."""
    made = trained(recipe(settings(strategy)))

    assert ["".join(one[name] for name in SOURCES) for one in made] == stages


def test_dmt_mixes_an_exact_share_of_the_special_data_into_the_general() -> None:
    """The second stage is all general data and k of the others."""
    made = trained(recipe(settings({"name": "dmt", "k": "1/256"})))

    assert made[1] == {"math": "1/256", "code": "1/256", "general": "1"}


def test_points_of_the_k_sweep_share_their_first_stage() -> None:
    """All k, and `mixed`, begin with the same run; k = 0 is `mixed`."""
    made = [
        recipe(settings({"name": "dmt", "k": k})) for k in ("1", "1/4", "1/256", "0")
    ] + [recipe(settings("mixed"))]

    assert len({recipes.run_id(recipes.list_prefixes(one)[0]) for one in made}) == 1
    assert len({recipes.run_id(one) for one in made}) == 4
    assert recipes.run_id(made[3]) == recipes.run_id(made[4])


def test_what_is_said_beside_the_sources_holds_for_each() -> None:
    """One axis sets the share of all sources; a source that says its own keeps it."""
    own = SOURCES | {"code": SOURCES["code"] | {"fraction": "1/2"}}
    made = settings(sources=own, fraction="1/16", on_bad_row="skip").data.by_source()

    assert {name: source.fraction for name, source in made.items()} == {
        "math": Fraction(1, 16),
        "code": Fraction(1, 2),
        "general": Fraction(1, 16),
    }
    assert {source.on_bad_row for source in made.values()} == {"skip"}


def test_the_order_in_which_sources_are_written_makes_no_other_run() -> None:
    """A corpus holds its sources by their names."""
    turned = dict(reversed(SOURCES.items()))

    assert recipes.run_id(recipe(settings("mixed"))) == recipes.run_id(
        recipe(settings("mixed", turned))
    )
    assert list(
        recipes.list_sources(recipe(settings(sources=turned))["stages"][0]["data"])
    ) == [
        "code",
        "general",
        "math",
    ]


def test_a_source_that_is_not_used_changes_nothing_but_a_tiny_tokenizer() -> None:
    """With weights of the user's own, a source neither trained on nor tested does not
    enter the recipe."""
    without = {name: own for name, own in SOURCES.items() if name != "code"}
    unused = SOURCES | {"code": SOURCES["code"] | {"k": 0}}
    given = {"model": {"name": "m", "path": "/m"}}
    made = [
        Settings.model_validate({"data": {"sources": sources}, **given})
        for sources in (without, unused)
    ]
    digests = InputDigests(
        sources={name: SourceDigests(data=name, test="t") for name in SOURCES},
        model="m",
    )

    assert len({recipes.run_id(recipes.make_recipe(one, digests)) for one in made}) == 1
    assert recipes.run_id(recipe(settings(sources=without))) != recipes.run_id(
        recipe(settings(sources=unused))
    )


def test_a_seed_counts_only_where_something_is_drawn() -> None:
    """All of every source in one stage needs no sample; a share of one does."""
    seeds = [
        {
            recipes.corpus_id(recipe(settings(fraction=fraction, sample_seed=seed)))
            for seed in (0, 1)
        }
        for fraction in ("1", "1/4")
    ]

    assert list(map(len, seeds)) == [1, 2]


BAD = [
    (
        "strategy of one data set",
        {"data": {"path": "/d"}, "strategy": "mixed"},
        "give data.sources",
    ),
    ("dmt without k", {"strategy": "dmt"}, "`k` is needed by dmt"),
    ("k of mixed", {"strategy": {"name": "mixed", "k": "1/4"}}, "by nothing else"),
    (
        "an order that lacks a source",
        {"strategy": {"name": "sequential", "order": ["math"]}},
        "name each source once",
    ),
    (
        "an order of dmt",
        {"strategy": {"name": "dmt", "k": 0, "order": ["math"]}},
        "`order` is that of sequential",
    ),
    ("strategy and stages", {"strategy": "mixed", "stages": [{}]}, "give one of them"),
    (
        "no general data",
        {
            "strategy": "mixed",
            "data": {"sources": {"a": SOURCES["math"], "b": SOURCES["code"]}},
        },
        "role: general",
    ),
    ("nothing tested", {"data": {"sources": {"a": SOURCES["code"]}}}, "what is tested"),
    (
        "a source without a path",
        {"data": {"sources": {"a": {"set": "gsm8k", "test_path": "/t"}}}},
        "sources.a: `path`",
    ),
    (
        "a name that is a path",
        {"data": {"sources": {"../x": SOURCES["math"]}}},
        "pattern",
    ),
    (
        "an unknown key",
        {"data": {"sources": {"a": {**SOURCES["math"], "fractoin": 1}}}},
        "Extra inputs",
    ),
    (
        "a fraction and a count",
        {
            "data": {
                "sources": {"a": {**SOURCES["math"], "fraction": "1/2", "count": 3}}
            }
        },
        "both say how much",
    ),
    (
        "a ratio of itself",
        {"data": {"sources": {"a": {**SOURCES["math"], "ratio": 2, "ratio_to": "a"}}}},
        "no other source",
    ),
    (
        "a ratio of nothing",
        {"data": {"sources": {"a": {**SOURCES["math"], "ratio": 2}}}},
        "go together",
    ),
    (
        "a share outside a mix",
        {"data": {"sources": {"a": {**SOURCES["math"], "share": 2}}}},
        "give data.mix",
    ),
    (
        "shares of some",
        {
            "data": {
                "mix": {},
                "sources": {"a": {**SOURCES["math"], "share": 2}, "b": SOURCES["code"]},
            }
        },
        "give all of them one",
    ),
    (
        "nothing trained",
        {"data": {"sources": {"a": {**SOURCES["math"], "k": 0}}}},
        "nothing would be trained",
    ),
    (
        "tags that nothing asks for",
        {"data": {"sources": {"a": {**SOURCES["math"], "tags": "/t"}}}},
        "neither is given",
    ),
    (
        "no pattern",
        {"data": {"sources": {"a": {**SOURCES["math"], "drop_tags": "("}}}},
        "regular expression",
    ),
    (
        "a large pattern",
        {"data": {"sources": {"a": {**SOURCES["math"], "keep_tags": "a{4294967296}"}}}},
        "too large",
    ),
    (
        "a stage with another test",
        {"stages": [{}, {"data": {"sources": {"math": {"test_path": "/x"}}}}]},
        "data.sources.math.test_path would be",
    ),
]


@pytest.mark.parametrize(
    ("given", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_what_cannot_be_mixed_is_refused(given: dict[str, Any], said: str) -> None:
    """One message that names the key."""
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({"data": {"sources": SOURCES}, **given})


def write(tmp_path, text: str) -> grid.Grid:
    """A grid of two sources with some axes."""
    path = tmp_path / "g.yaml"
    path.write_text(
        "name: g\ndefaults:\n  data:\n    sources:\n      math: {set: gsm8k, path: /m, test_path:"
        f" /t}}\n      talk: {{set: sharegpt, path: /s, role: general}}\n{text}"
    )
    return grid.load_grid(path)


def test_a_source_s_settings_are_axes(tmp_path) -> None:
    """`data.sources.math.fraction` varies, and so do strategies, by a word or a mapping."""
    made = write(
        tmp_path,
        "grid: {data.sources.math.fraction: [1, 1/4], strategy: [multitask, {name: dmt, k:"
        " 1/256}]}",
    )

    assert [str(p.settings.data.by_source()["math"].fraction) for p in made.points] == [
        "1",
        "1",
        "1/4",
        "1/4",
    ]
    assert [len(point.settings.by_stage()) for point in made.points] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "grid: {data.sources.math.fractoin: [1]}",
            "Did you mean 'data.sources.math.fraction'",
            id="axis",
        ),
        pytest.param(
            "grid: {data.sources.math.fraction: [2]}",
            "g.yaml:7: data.sources.math.fraction",
            id="value",
        ),
        pytest.param(
            "exclude: [{data.sources.math.k: 2}]",
            "data.sources.math.k",
            id="a value in exclude",
        ),
    ],
)
def test_a_mistake_within_a_source_is_told_with_its_place(
    tmp_path, text: str, said: str
) -> None:
    """Hints know the names of the sources."""
    with pytest.raises(UserError, match=said):
        write(tmp_path, text)


def test_templates_of_no_known_set_are_refused_before_the_queue(tmp_path) -> None:
    """Where no file is of a known data set `data.templates` would do nothing; rows may
    name their own tasks."""
    names = ("own_a", "own_b", "own_c", "held")
    row = {"prompt": "q", "completion": "a"}
    for name in names:
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    data = {
        "set": "p3",
        "path": str(tmp_path),
        "templates": 1,
        "held_out": {"by": "seed", "tasks": 1},
    }
    wanted = Settings.model_validate({"data": data})

    [fault] = input_checks.find_input_faults([Judged(wanted)])
    assert re.search(
        r"4 of 4 tasks are of no data set that is known: held, .* data\.data_sets",
        str(fault.error),
    )
    with_sets = {**data, "data_sets": {"own": "own_*", "rest": "held"}}
    named = Settings.model_validate({"data": with_sets})
    assert input_checks.find_input_faults([Judged(named)]) == []
    for name in names:
        (tmp_path / f"{name}.jsonl").write_text(
            json.dumps({**row, "task": f"super_glue_rte_{name}"}) + "\n"
        )
    assert input_checks.find_input_faults([Judged(wanted)]) == []


def test_sources_of_a_changed_copy_are_those_of_the_copy() -> None:
    """What was resolved of settings is not taken for that of others made from them."""
    data = Settings.model_validate({"data": {"path": "/d", "fraction": 0.5}}).data
    assert data.by_source()[""].fraction == Fraction(1, 2)

    changed = data.model_copy(update={"fraction": Fraction(1, 4)})
    assert changed.by_source()[""].fraction == Fraction(1, 4)
    assert data.by_source()[""].fraction == Fraction(1, 2)
