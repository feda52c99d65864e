"""Which settings make two runs the same run, and which things do runs share?"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from launcher.clusters.profiles import Profile
from launcher.grids import grid
from launcher.grids.inputs import Inputs
from launcher.grids.runs import Run, resolve_runs
from tests.lib.builders import digests, write_niv2
from zsg_core import recipe as recipes
from zsg_core.digest import content_id
from zsg_core.recipe import InputDigests, SourceDigests, make_recipe
from zsg_core.settings.run import Settings

DIGESTS = digests("d" * 64)

# Ids name folders and MLflow runs; if one of these changes, results made before are no
# longer found.
GOLDEN = {
    "run": "da9ddeafccf1",
    "corpus": "42c7f19e9183",
    "arrangement": "d6803e5ab105",
    "base": "940a1cefa19d",
}


def settings(**changes) -> Settings:
    """Settings with a data path; `changes` are mappings laid over the defaults."""
    return Settings.model_validate(
        {**changes, "data": {"path": "/d", **changes.get("data", {})}}
    )


def ids(wanted: Settings, given: InputDigests = DIGESTS) -> dict[str, str | None]:
    """All ids of a run."""
    made = make_recipe(wanted, given)
    return {
        "run": recipes.run_id(made),
        "corpus": recipes.corpus_id(made),
        "arrangement": recipes.arrangement_id(made),
        "base": recipes.base_id(made),
    }


def changed(one: dict, other: dict) -> set[str]:
    """The kinds of ids that differ."""
    return {kind for kind in one if one[kind] != other[kind]}


def test_ids_of_the_default_run_never_change():
    """The ids of the default settings are the recorded ones."""
    assert GOLDEN == ids(settings())


ALL = {"run", "corpus", "arrangement"}
EFFECTS = [
    ("the seed of all", {"seed": 1}, {*ALL, "base"}),
    ("the sample's seed", {"data": {"sample_seed": 1}}, ALL),
    ("the test set's seed", {"data": {"test_seed": 1}}, ALL),
    ("the cap of a training task", {"data": {"train_per_task": 10}}, ALL),
    ("no cap", {"data": {"train_per_task": None}}, ALL),
    ("the cap of a test task", {"data": {"test_per_task": 10}}, ALL),
    ("the sampling", {"data": {"sampling": "first"}}, ALL),
    ("the fraction", {"data": {"fraction": "1/4"}}, ALL),
    ("the prompt", {"data": {"positive_examples": 0}}, {*ALL, "base"}),
    ("the order", {"arrangement": {"order": "cluster"}}, {"run", "arrangement"}),
    ("the order's seed", {"arrangement": {"seed": 1}}, {"run", "arrangement"}),
    ("the weights' seed", {"train": {"init_seed": 1}}, {"run", "base"}),
    ("a size of tiny", {"model": {"layers": 2}}, {"run", "base"}),
    ("a context beyond 1024", {"train": {"max_length": 2048}}, {"run", "base"}),
    ("a length within 1024", {"train": {"max_length": 512}}, {"run"}),
    ("the batch", {"train": {"batch": 8}}, {"run"}),
    ("the learning rate", {"train": {"lr": 2e-6}}, {"run"}),
    ("the floor of the rate", {"train": {"lr_floor": 0.0}}, {"run"}),
    ("the warm-up", {"train": {"warmup_steps": 1}}, {"run"}),
    ("the epochs", {"train": {"epochs": 2}}, {"run"}),
    ("the steps", {"train": {"steps": 2}}, {"run"}),
    ("the precision", {"train": {"precision": "fp32"}}, {"run"}),
    ("a preset", {"train": {"preset": "paper"}}, {"run"}),
    ("virtual ranks", {"train": {"virtual_ranks": 2}}, {"run"}),
    ("a share of warm-up", {"train": {"warmup_share": 0.03}}, {"run"}),
    ("what truncation keeps", {"train": {"truncate": "head"}}, {"run"}),
    (
        "what a lost answer counts",
        {"train": {"truncate": "head", "truncated_answers": "zero"}},
        {"run"},
    ),
    ("a step that may be lost", {"train": {"overflow": "skip"}}, {"run"}),
    ("fp16", {"train": {"precision": "fp16", "loss_scale": 128.0}}, {"run"}),
    ("one virtual rank", {"train": {"virtual_ranks": 1, "warmup_share": None}}, set()),
    ("the betas", {"train": {"betas": (0.9, 0.99)}}, {"run"}),
    ("the epsilon", {"train": {"eps": 1e-5}}, {"run"}),
    ("the weight decay", {"train": {"weight_decay": 0.1}}, {"run"}),
    ("the clipping", {"train": {"clip": 0.5}}, {"run"}),
    (
        "nodes and processes",
        {"resources": {"nodes": 4, "ranks_per_node": 8, "time_min": 5}},
        set(),
    ),
    ("when metrics are taken", {"checkpoints": {"every": 1}}, set()),
    (
        "which weights are kept",
        {"checkpoints": {"snapshots": 10, "keep": "last"}},
        set(),
    ),
    ("where the data lies", {"data": {"path": "/elsewhere"}}, set()),
    ("an unused embedding model", {"arrangement": {"embedding": "/e"}}, set()),
    (
        "a default written out",
        {"data": {"train_per_task": 20}, "train": {"lr": 1e-6, "betas": (0.9, 0.95)}},
        set(),
    ),
    ("a size of tiny written out", {"model": {"hidden": 128, "vocab": 4096}}, set()),
    (
        "a seed equal to the one of all",
        {"arrangement": {"seed": 0}, "train": {"init_seed": 0}},
        set(),
    ),
]


@pytest.mark.parametrize(
    ("change", "effect"), [e[1:] for e in EFFECTS], ids=[e[0] for e in EFFECTS]
)
def test_a_setting_changes_the_ids_of_what_depends_on_it(change, effect):
    """Runs share a corpus, an arrangement or a base exactly when nothing that makes it differs."""
    assert effect == changed(ids(settings()), ids(settings(**change)))


def test_a_warm_up_by_a_share_is_marked():
    """Its rates changed, and so did its run: ids of e79a027 stay wherever nothing is
    warmed up by a share."""
    made = digests(model="m" * 64)
    model = {"name": "m", "path": "/m"}
    run_of = lambda train: ids(settings(model=model, train=train), made)["run"]  # noqa: E731
    kept = [
        {"preset": "dmt", "warmup_steps": 5},
        {"warmup_share": 0.0},
        {"preset": "paper"},
    ]

    assert run_of({"preset": "dmt"}) == "f0d0e87a8fe3" != "2748d3917aeb"
    assert run_of({"warmup_share": 0.03}) == "65fd1c89f704" != "3934e173c631"
    assert [run_of(train) for train in kept] == [
        "943b999c725c",
        "c29278de73a3",
        "ffb829132b4d",
    ]


def test_data_sets_are_in_the_recipe_where_they_count():
    """Said, they make another corpus; where they decide nothing, and where they are not
    said, ids are as at e79a027."""
    sets = {"data_sets": {"a": "x_*"}}
    t0, capped = {"mix": {"rates": "t0"}}, {"mix": {"rates": "capped"}}
    corpus_of = lambda data: ids(settings(data={"set": "p3", **data}))["corpus"]  # noqa: E731
    counting = [{"templates": 4}, {**t0, "rate_max": 20}, {**capped, "rate_max": 20}]

    assert [corpus_of(data) for data in counting] == [
        "29bf9303252d",
        "e2983d8da99d",
        "37ab5dfcc1ea",
    ]
    assert all(corpus_of({**data, **sets}) != corpus_of(data) for data in counting)
    assert all(
        corpus_of({**data, "data_sets": "t0"}) == corpus_of(data)
        for data in counting[:2]
    )
    assert corpus_of({**capped, "rate_max": 20, "data_sets": "t0"}) != corpus_of(
        {**capped, "rate_max": 20}
    )
    assert [corpus_of({**data, **sets}) for data in ({}, capped)] == [
        "890321a6d27a",
        "89da643ce000",
    ]


NO_EFFECT = [
    (
        "the order's seed under cluster",
        {"arrangement": {"order": "cluster"}},
        {"arrangement": {"seed": 1}},
    ),
    (
        "the order's seed under nft",
        {"arrangement": {"order": "nft"}},
        {"arrangement": {"seed": 1}},
    ),
    (
        "the sample's seed when the first are taken",
        {"data": {"sampling": "first"}},
        {"data": {"sample_seed": 1}},
    ),
    (
        "the test's seed when the first are taken",
        {"data": {"sampling": "first"}},
        {"data": {"test_seed": 1}},
    ),
    (
        "the weights' seed of a given model",
        {"model": {"name": "m", "path": "/m"}},
        {"train": {"init_seed": 1}},
    ),
    (
        "a given model's name",
        {"model": {"name": "m", "path": "/m"}},
        {"model": {"name": "other"}},
    ),
    (
        "a given model's path",
        {"model": {"name": "m", "path": "/m"}},
        {"model": {"path": "/copy/of/m"}},
    ),
]


@pytest.mark.parametrize(
    ("given", "change"), [e[1:] for e in NO_EFFECT], ids=[e[0] for e in NO_EFFECT]
)
def test_what_does_nothing_makes_no_replicate(given, change):
    """A seed that takes no effect, and a name or path beside a digest, leave every id as it is."""
    keys = given.keys() | change.keys()
    both = {key: given.get(key, {}) | change.get(key, {}) for key in keys}
    made_of = digests(model="m" * 64, embedding="e")

    assert ids(settings(**given), made_of) == ids(settings(**both), made_of)


@pytest.mark.parametrize(
    ("given", "effect"),
    [
        pytest.param(digests("x", model="m", embedding="e"), ALL, id="the data"),
        pytest.param(digests(model="x", embedding="e"), {"run"}, id="the model"),
        pytest.param(
            digests(model="m", embedding="x"),
            {"run", "arrangement"},
            id="the embedding model",
        ),
    ],
)
def test_a_changed_file_changes_the_ids(given, effect):
    """What the user supplies enters by its content."""
    wanted = settings(model={"name": "m", "path": "/m"}, arrangement={"order": "nft"})
    before = ids(wanted, digests(model="m", embedding="e"))

    assert effect == changed(before, ids(wanted, given))


@pytest.mark.parametrize("fraction", ["0.25", 0.25, "2/8", "25e-2"])
def test_a_quarter_is_a_quarter_however_it_is_written(fraction):
    """1/4 and 0.25 are one run."""
    assert ids(settings(data={"fraction": "1/4"})) == ids(
        settings(data={"fraction": fraction})
    )


def test_a_tenth_is_exact():
    """0.1 is 1/10 and not the binary number nearest to it."""
    made = make_recipe(settings(data={"fraction": 0.1}), DIGESTS)

    assert made["stages"][0]["data"]["train"]["fraction"] == "1/10"


def test_seed_sets_sample_order_and_weights():
    """`seed` stands for the three seeds that are not given themselves, never for the test set's."""
    made = make_recipe(settings(seed=7), DIGESTS)

    data, arrangement = made["stages"][0]["data"], made["stages"][0]["arrangement"]
    assert (7, 7, 7, 0) == (
        data["train"]["seed"],
        arrangement["seed"],
        made["base"]["seed"],
        data["test"]["seed"],
    )


def test_a_seed_of_its_own_goes_before_seed():
    """A seed that is given is used, zero too."""
    made = make_recipe(settings(seed=7, arrangement={"seed": 0}), DIGESTS)

    assert made["stages"][0]["arrangement"]["seed"] == 0


def test_a_recipe_is_plain_json():
    """A recipe written to job.json and read back is the same recipe, so the node
    computes the same ids."""
    made = make_recipe(settings(), DIGESTS)

    assert made == json.loads(json.dumps(made))


@pytest.fixture
def runs(tmp_path):
    """Resolves a grid over a small data folder: its runs and notes."""
    write_niv2(tmp_path / "data")

    def of(block: str) -> tuple[list[Run], list[str]]:
        path = tmp_path / "grid.yaml"
        path.write_text(
            f"name: g\ndefaults:\n  data: {{path: {tmp_path / 'data'}}}\ngrid: {block}\n"
        )
        profile = Profile.model_validate({"name": "p", "kind": "local"})
        return resolve_runs(
            grid.load_grid(path), profile, Inputs(tmp_path / "digests.json")
        )

    return of


def test_equal_points_are_one_run_and_said_so(runs):
    """Points that differ only in a seed without effect merge, and the note names the seed."""
    resolved, notes = runs(
        "{arrangement.order: [cluster, random], arrangement.seed: [0, 1, 2]}"
    )

    assert len(resolved) == 4
    assert [note.partition(",")[0] for note in notes] == ["3 points are one run"]
    assert "(arrangement.seed)" in notes[0]


def test_different_points_are_different_runs_without_a_note(runs):
    """Seeds that take effect are replicates."""
    resolved, notes = runs("{seed: [0, 1, 2]}")

    assert (3, []) == (len({run.id for run in resolved}), notes)


@pytest.mark.parametrize(("template", "told"), [("zsg", 1), ("vicuna", 0)])
def test_the_prompt_of_dmt_is_recalled(runs, template, told):
    """The preset leaves data alone, and a note says which prompt was published with it."""
    _, notes = runs(
        f"{{train.preset: dmt, train.max_length: 1024, data.template: {template}}}"
    )

    assert told == sum("data.template: vicuna" in note for note in notes)


def test_runs_of_one_corpus_share_it_and_the_base(runs):
    """Two orders of the same sample need one corpus and one base, and an arrangement each."""
    (one, other), _ = runs("{arrangement.order: [cluster, round_robin]}")

    assert (one.corpus_id, one.base_id) == (other.corpus_id, other.base_id)
    assert one.needs & other.needs == {f"bases/{one.base_id}"}


def test_resources_of_a_point_go_before_the_profile(runs):
    """A point may ask for more than the profile's job size."""
    (run,), _ = runs("{resources.nodes: 2}")

    assert (2, 1, 60) == (run.size.nodes, run.size.ranks_per_node, run.size.time_min)


def data_digest(tmp_path: Path) -> str:
    """The digest of the data folder, from the cache where it holds."""
    inputs = Inputs(tmp_path / "digests.json")
    digest = (
        inputs.digest_inputs(settings(data={"path": str(tmp_path / "data")}))
        .sources[""]
        .data
    )
    inputs.save()
    return digest


def test_a_changed_file_changes_the_digest(tmp_path):
    """A file of another content, size or time of change is read again."""
    path = write_niv2(tmp_path / "data") / "tasks/task001_add.json"
    before = data_digest(tmp_path)
    path.write_text(path.read_text().replace("answer 0", "ANSWER 0"))
    os.utime(path, ns=(1, 1))

    assert before != data_digest(tmp_path)


def test_an_unchanged_file_is_not_read_again(tmp_path):
    """With path, size and time of change as they were, the kept digest is believed."""
    path = write_niv2(tmp_path / "data") / "tasks/task001_add.json"
    before, stat = data_digest(tmp_path), path.stat()
    path.write_text(path.read_text().replace("answer 0", "ANSWER 0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert before == data_digest(tmp_path)


def test_a_digest_does_not_depend_on_where_the_folder_lies(tmp_path):
    """A copy of the data is the same data."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_niv2(tmp_path / "a/data")
    write_niv2(tmp_path / "b/data")

    assert data_digest(tmp_path / "a") == data_digest(tmp_path / "b")


def test_a_file_that_no_split_names_does_not_count(tmp_path):
    """Only files that decide what is read enter the digest."""
    folder = write_niv2(tmp_path / "data")
    before = data_digest(tmp_path)
    (folder / "tasks/task777_unused.json").write_text("{}")

    assert before == data_digest(tmp_path)


def test_a_model_below_the_home_folder_is_found(tmp_path, monkeypatch):
    """`~` in model.path is the user's home, for the digest too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    write_niv2(tmp_path / "data")

    wanted = settings(model={"name": "m", "path": "~/m"}, data={"path": "~/data"})

    assert (
        len(Inputs(tmp_path / "digests.json").digest_inputs(wanted).model or "") == 64
    )


def test_what_runs_share_is_made_and_named_once(
    runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of runs that differ in the rate alone one corpus, order and base is made, and the
    id of each is computed once."""
    named: list[dict] = []

    def count(value: dict, length: int = 12) -> str:
        named.append(value)
        return content_id(value, length)

    monkeypatch.setattr(recipes, "content_id", count)
    resolved, _ = runs("{train.lr: [1e-5, 2e-5, 3e-5, 4e-5, 5e-5]}")
    ids = {(run.corpus_id, run.arrangement_id, run.base_id) for run in resolved}

    kinds = Counter(value["kind"] for value in named)
    assert kinds == {"run": 5, "corpus": 1, "arrangement": 1, "base": 1}
    assert ids == {
        (
            recipes.corpus_id(run.recipe),
            recipes.arrangement_id(run.recipe),
            recipes.base_id(run.recipe),
        )
        for run in resolved
    }


def test_runs_with_data_seeds_of_their_own_share_no_corpus(runs) -> None:
    """The top seed draws the examples, whatever section it stands in."""
    resolved, _ = runs("{seed: [0, 1], train.lr: [1e-5, 2e-5]}")

    assert len({run.id for run in resolved}) == 4
    assert len({run.corpus_id for run in resolved}) == 2


def test_which_tokens_a_source_learns_is_part_of_its_runs_training_alone():
    """Said by whichever key, the same is the same run; the corpus is shared."""
    sources = {"a": {"held_out": {}, "path": "/a"}, "b": {"path": "/b"}}
    digest = SourceDigests(data="d")
    two = InputDigests(sources={"a": digest, "b": digest}, model="m")

    def of(loss_on: str = "answer", **given: str) -> dict[str, str | None]:
        said = {
            name: {**source, **({"loss_on": given[name]} if name in given else {})}
            for name, source in sources.items()
        }
        train = {"loss_on": loss_on}
        return ids(settings(data={"sources": said}, train=train), two)

    assert of("all") == of(a="all", b="all") == of("prompt", a="all", b="all")
    assert of(a="all") == of("all", b="answer")
    assert changed(of(), of(a="all")) == changed(of(), of(b="all")) == {"run"}
    assert of(a="all") != of(b="all")
    assert of(a="answer") == of()


def test_scaled_losses_are_of_answers_in_all_sources():
    """A source of which text is learnt has no classes."""
    with pytest.raises(
        ValidationError, match=r"data\.loss_on: all and train\.task_scale"
    ):
        settings(data={"loss_on": "all"}, train={"task_scale": "log_n"})
