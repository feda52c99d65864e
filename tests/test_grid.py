"""Does a grid file expand into the points it declares, and does every mistake in it get
a helpful line?"""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.grids import grid
from launcher.grids.grid import Grid
from zsg_core.errors import UserError

HEAD = "name: demo\ndefaults:\n  data: {path: /d}\n"


@pytest.fixture
def load(tmp_path):
    """Expands a grid file; what is given follows a name and a data path."""

    def expand(text: str, head: str = HEAD, sets: tuple[str, ...] = ()) -> Grid:
        path = tmp_path / "my-grid.yaml"
        path.write_text(head + text, encoding="utf-8")
        return grid.load_grid(path, sets)

    return expand


def axes(loaded: Grid) -> list[dict]:
    """The axes of every point."""
    return [point.axes for point in loaded.points]


def test_a_grid_without_axes_is_one_run(load):
    """The defaults alone are one point."""
    loaded = load("")

    assert ("demo", None, [{}], []) == (
        loaded.name,
        loaded.profile,
        axes(loaded),
        loaded.notes,
    )
    assert loaded.points[0].settings.data.path == "/d"


def test_a_block_is_a_product_whose_last_axis_varies_fastest(load):
    """Two axes of two values are four points, in the order in which one would read them."""
    loaded = load("grid: {arrangement.order: [nft, fft], seed: [0, 1]}")

    assert [(p["arrangement.order"], p["seed"]) for p in axes(loaded)] == [
        ("nft", 0),
        ("nft", 1),
        ("fft", 0),
        ("fft", 1),
    ]


def test_blocks_are_united(load):
    """A list of blocks is the points of the first, then those of the second, equal ones too."""
    loaded = load("grid:\n  - {seed: [0, 1]}\n  - {train.batch: 8}\n  - {seed: 0}\n")

    assert axes(loaded) == [{"seed": 0}, {"seed": 1}, {"train.batch": 8}, {"seed": 0}]


def test_zip_walks_lists_together(load):
    """Zipped lists are one axis, in a product with the others."""
    loaded = load(
        "grid: {zip: {seed: [0, 1], train.batch: [8, 16]}, arrangement.order: [nft, fft]}"
    )

    assert [tuple(p.values()) for p in axes(loaded)] == [
        (0, 8, "nft"),
        (0, 8, "fft"),
        (1, 16, "nft"),
        (1, 16, "fft"),
    ]


def test_a_scalar_in_a_block_is_a_constant(load):
    """A value outside a list holds for every point of its block and is named among the axes."""
    loaded = load("grid: {train.lr: 1e-3, seed: [0, 1]}")

    assert [p.settings.train.lr for p in loaded.points] == [1e-3, 1e-3]
    assert axes(loaded)[1] == {"train.lr": 1e-3, "seed": 1}


def test_a_mapping_as_value_is_laid_over_the_defaults(load):
    """Of a mapping only the keys it names change."""
    loaded = load(
        "  train: {batch: 8, lr: 1e-3}\ngrid: {train: [{lr: 1e-4}, {epochs: 2}]}"
    )

    shown = [
        (p.settings.train.batch, p.settings.train.lr, p.settings.train.epochs)
        for p in loaded.points
    ]
    assert shown == [(8, 1e-4, 1), (8, 1e-3, 2)]


def test_an_empty_mapping_laid_over_a_mapping_changes_nothing(load):
    """`{}` beside other mappings is the default's point, not the loss of the defaults."""
    loaded = load("  train: {batch: 8}\ngrid: {train: [{}, {batch: 4}]}")

    assert [p.settings.train.batch for p in loaded.points] == [8, 4]


def test_dotted_keys_and_nested_mappings_say_the_same(load):
    """`train.lr: x` and `train: {lr: x}` set one value."""
    dotted = load("  train.lr: 1e-3\n")
    nested = load("  train: {lr: 1e-3}\n")

    assert dotted.points[0].settings == nested.points[0].settings


def test_a_list_as_a_value_is_bracketed_twice(load):
    """Inside `grid:` the outer brackets are the axis, the inner ones the value."""
    loaded = load(
        "grid: {train.betas: [[0.9, 0.95], [0.9, 0.99]], checkpoints.metrics: [[loss]]}"
    )

    assert [p.settings.train.betas for p in loaded.points] == [(0.9, 0.95), (0.9, 0.99)]


def test_a_point_overrides_the_defaults(load):
    """An axis wins over the default of the same key."""
    assert [
        p.settings.seed for p in load("  seed: 5\ngrid: {seed: [1, 2]}").points
    ] == [1, 2]


def test_exclude_drops_the_points_it_describes(load):
    """A point goes if every key of the rule says what the point says already."""
    loaded = load(
        "grid: {arrangement.order: [nft, fft], seed: [0, 1]}\nexclude: [{arrangement.order: fft,"
        " seed: 1}]"
    )

    assert [tuple(p.values()) for p in axes(loaded)] == [
        ("nft", 0),
        ("nft", 1),
        ("fft", 0),
    ]
    assert loaded.notes == []


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        pytest.param("{data.fraction: 0.25}", ["1/2"], id="a decimal for a fraction"),
        pytest.param(
            "{data.fraction: 2/8}", ["1/2"], id="a fraction not in lowest terms"
        ),
        pytest.param(
            "{data: {fraction: 1/4}}", ["1/2"], id="a mapping for a dotted key"
        ),
        pytest.param("{data.fraction: 1/2}", ["1/4"], id="the text of the axis"),
    ],
)
def test_exclude_compares_values_not_spellings(load, rule, left):
    """1/4, 0.25 and 2/8 are one value, however the rule writes it."""
    loaded = load(f"grid: {{data.fraction: [1/4, 1/2]}}\nexclude: [{rule}]")

    assert [str(p.settings.data.fraction) for p in loaded.points] == left


def test_exclude_sees_defaults_too(load):
    """A rule may name a key that is no axis."""
    loaded = load(
        "  train.batch: 8\ngrid: {seed: [0, 1]}\nexclude: [{train.batch: 8, seed: 0}]"
    )

    assert axes(loaded) == [{"seed": 1}]


def test_an_exclude_that_matches_nothing_is_noted(load):
    """A rule that drops no point is probably a mistake: it is said, with its line."""
    loaded = load("grid: {seed: [0, 1]}\nexclude:\n  - {seed: 0}\n  - {seed: 7}\n")

    assert [note.partition("my-grid.yaml:")[2] for note in loaded.notes] == [
        "7: this `exclude` matches no point of the grid"
    ]


@pytest.mark.parametrize(
    ("option", "section", "key", "value"),
    [
        ("train.lr=2e-4", "train", "lr", 2e-4),
        ("train={lr: 2e-4}", "train", "lr", 2e-4),
        ("train.betas=[0.8, 0.9]", "train", "betas", (0.8, 0.9)),
        ("data.train_per_task=null", "data", "train_per_task", None),
        ("data.fraction=1/256", "data", "fraction", Fraction(1, 256)),
        ("data.path=/a=b, c", "data", "path", "/a=b, c"),
        ("data.path='/a #1'", "data", "path", "/a #1"),
        ('model={name: on, path: "/m: 1"}', "model", "path", "/m: 1"),
    ],
)
def test_set_overrides_the_defaults_with_a_yaml_value(
    load, option, section, key, value
):
    """`--set key=value` takes any YAML 1.2 scalar or bracketed value; what it does not
    name stays."""
    (point,) = load("  train: {batch: 8, lr: 1e-3}\n", sets=(option,)).points

    assert getattr(getattr(point.settings, section), key) == value
    assert (point.settings.train.batch, point.axes) == (8, {})


def test_set_is_kept_with_the_grid(load):
    """The options stay beside the points, as they were typed, for the grid's record."""
    assert load("", sets=("seed=3", "train.batch=4")).overrides == (
        "seed=3",
        "train.batch=4",
    )


def test_set_leaves_the_other_keys_of_an_axis_mapping_alone(load):
    """A mapping as an axis value and a `--set` beside it both count where they do not meet."""
    loaded = load(
        "grid: {train: [{lr: 1e-4}, {}]}", sets=("train.batch=4", "train.lr_floor=0")
    )

    assert [(p.settings.train.batch, p.settings.train.lr) for p in loaded.points] == [
        (4, 1e-4),
        (4, 1e-6),
    ]


def test_exclude_sees_what_set_gives(load):
    """A rule is compared with the settings as they are, those of `--set` included."""
    loaded = load(
        "grid: {seed: [0, 1]}\nexclude: [{train.batch: 4, seed: 0}]",
        sets=("train.batch=4",),
    )

    assert axes(loaded) == [{"seed": 1}]


SET_MISTAKES = [
    (
        "an axis",
        ["seed=1"],
        "--set seed=1: the grid sets 'seed' itself, {grid}:5; --set changes defaults, not axes",
    ),
    ("a zipped axis", ["train.batch=1"], "'train.batch' itself, {grid}:6;"),
    ("a key of an axis' mapping", ["model.name=x"], "'model.name' itself, {grid}:7;"),
    (
        "a mapping over an axis",
        ["train={batch: 2}"],
        "--set train={{batch: 2}}: the grid sets 'train.batch' itself",
    ),
    (
        "a key twice",
        ["train.lr=1", "train={lr: 2}"],
        "--set train={{lr: 2}}: another --set also sets 'train.lr'",
    ),
    (
        "an unknown key",
        ["train.lrr=1"],
        "--set train.lrr=1: unknown key 'train.lrr'. Did you mean 'train.lr'?",
    ),
    (
        "an unknown key within",
        ["train={lrr: 1}"],
        "--set train={{lrr: 1}}: unknown key 'lrr' in train. Did you mean",
    ),
    (
        "a wrong type",
        ["train.epochs=two"],
        "--set train.epochs=two: train.epochs: must be a whole number",
    ),
    (
        "no value",
        ["train.epochs="],
        "--set train.epochs=: train.epochs: must be a whole number, found null",
    ),
    (
        "no equals sign",
        ["train.epochs"],
        "--set train.epochs: write key=value, such as",
    ),
    ("no key", ["=1"], "--set =1: write key=value, such as"),
    (
        "a profile",
        ["profile=local"],
        "--set profile=local: `profile` is no setting; use --profile NAME",
    ),
    ("bad YAML", ["train.lr=[1"], "--set train.lr=[1: not valid YAML"),
    ("a tag", ["data.path=!!python/name:os.system x"], "the tag"),
    (
        "a bare mapping",
        ["model=name: x"],
        "--set model=name: x: write a mapping as {{key: value}}",
    ),
    (
        "a comment",
        ["data.path=/a #1"],
        "' #' begins a comment in YAML; quote the value",
    ),
    (
        "a line break",
        ["data.path=a\nseed: 1"],
        "--set data.path=a\\nseed: 1: holds a line break",
    ),
    (
        "a right-to-left mark",
        ["data.path=\u202egpj"],
        "--set data.path=\\u202egpj: holds a line break or",
    ),
]


@pytest.mark.parametrize(
    ("sets", "said"), [m[1:] for m in SET_MISTAKES], ids=[m[0] for m in SET_MISTAKES]
)
def test_a_mistake_in_set_is_told_with_the_option(load, tmp_path, sets, said):
    """The message names the option as typed; an axis that it contradicts is named with its line."""
    block = "grid:\n- seed: [0, 1]\n- zip: {train.batch: [8]}\n- model: [{name: a, path: /m}]\n"
    with pytest.raises(UserError) as error:
        load(block, sets=tuple(sets))

    assert said.format(grid=tmp_path / "my-grid.yaml") in str(error.value)
    assert "\n" not in str(error.value)


MISTAKES = [
    (
        "an unknown key at the top",
        "gird: {seed: 1}",
        4,
        ["'gird'", "Did you mean 'grid'", "exclude"],
    ),
    (
        "an unknown axis",
        "grid:\n  train.lrr: [1]",
        5,
        ["'train.lrr'", "Did you mean 'train.lr'", "Known in train: preset, batch"],
    ),
    ("an unknown default", "  sead: 1", 4, ["'sead'", "Did you mean 'seed'", "model"]),
    (
        "an unknown key in a mapping",
        "  train: {lrr: 1}",
        4,
        ["'lrr' in train", "Did you mean 'lr'", "batch"],
    ),
    ("a key that looks like our own", "  function-x: 1", 4, ["'function-x'", "seed"]),
    (
        "an unknown key in an axis' mapping",
        "grid:\n  train:\n  - {btach: 1}",
        6,
        ["'btach'", "'batch'"],
    ),
    (
        "an unknown key in exclude",
        "exclude:\n- {sede: 1}",
        5,
        ["'sede'", "Did you mean 'seed'"],
    ),
    (
        "an unknown word",
        "  arrangement: {order: nearest}",
        4,
        ["arrangement.order", "'nft'", "found 'nearest'"],
    ),
    (
        "a misspelt word",
        "  arrangement: {order: cluter}",
        4,
        ["found 'cluter'. Did you mean 'cluster'?"],
    ),
    (
        "a text for a number",
        "grid:\n  seed:\n  - 1\n  - x",
        7,
        ["seed", "whole number", "found 'x'"],
    ),
    ("a quoted number", '  seed: "0"', 4, ["seed", "whole number", "found '0'"]),
    (
        "a truth value for a number",
        "  train: {batch: true}",
        4,
        ["train.batch", "whole number", "found true"],
    ),
    (
        "a broken number",
        "  train: {batch: 1.5}",
        4,
        ["train.batch", "whole number", "found 1.5"],
    ),
    (
        "a number out of range",
        "  train: {lr: -1}",
        4,
        ["train.lr", "more than 0", "found -1"],
    ),
    ("not a number", "  train: {lr: .nan}", 4, ["train.lr", "finite", "nan"]),
    (
        "a seed beyond 32 bits",
        "  seed: 4294967296",
        4,
        ["seed", "less than 4294967296"],
    ),
    (
        "a fraction above one",
        "  data.fraction: 2",
        4,
        ["data.fraction", "at most 1", "found 2"],
    ),
    (
        "a fraction by zero",
        "  data.fraction: 1/0",
        4,
        ["data.fraction", "1/4", "'1/0'"],
    ),
    (
        "a fraction that would take hours",
        "  data.fraction: '1e-400000000'",
        4,
        ["data.fraction", "1/4"],
    ),
    (
        "a scalar for a mapping",
        "  train: 5",
        4,
        ["train", "a mapping of settings", "found 5"],
    ),
    (
        "a key below a scalar",
        "  model: 5\n  model.name: x",
        4,
        ["model: must be a mapping of settings, found 5"],
    ),
    (
        "a list for a text",
        "grid:\n  model.path: [[a, b]]",
        5,
        ["model.path", "must be a text", "['a', 'b']"],
    ),
    (
        "a model without a path",
        "  model: {name: llama}",
        4,
        ["'llama' needs `path`", "tiny"],
    ),
    (
        "tiny with a path",
        "  model: {path: /m}",
        4,
        ["`tiny` is made by zsg and has no path"],
    ),
    (
        "a shape for a model with a path",
        "  model: {name: x, path: /m, heads: 2}",
        4,
        ["`heads` shapes the tiny model"],
    ),
    (
        "heads that do not divide",
        "  model: {hidden: 100, heads: 3}",
        4,
        ["hidden", "multiple of 2·heads"],
    ),
    ("an empty axis", "grid:\n  train.lr: []", 5, ["'train.lr' is an empty list"]),
    ("an empty grid", "grid: []", 4, ["`grid` must be a mapping of axes"]),
    (
        "an empty block",
        "grid:\n- {seed: 1}\n- {}",
        6,
        ["a block of the grid is a mapping"],
    ),
    ("a grid that is a word", "grid: nft", 4, ["`grid` must be a mapping of axes"]),
    (
        "zip of unequal lists",
        "grid:\n  zip: {seed: [1, 2], train.batch: [1]}",
        5,
        ["seed has 2", "train.batch has 1"],
    ),
    ("zip of scalars", "grid:\n  zip: {seed: 1}", 5, ["`zip` is a mapping of lists"]),
    (
        "a key twice in a block",
        "grid:\n  seed: 1\n  zip: {seed: [2]}",
        6,
        ["'seed' is set twice"],
    ),
    (
        "a key within a key",
        "grid: {model: [{name: a}], model.name: b}",
        4,
        ["'model.name' is set twice", "'model'"],
    ),
    (
        "an exclude that is no list",
        "exclude: {seed: 1}",
        4,
        ["`exclude` must be a list of mappings"],
    ),
    ("an exclude of words", "exclude: [fft]", 4, ["an item of `exclude` is a mapping"]),
    (
        "an exclude that leaves nothing",
        "grid: {seed: [1]}\nexclude: [{seed: 1}]",
        5,
        ["every point is excluded"],
    ),
    (
        "too many points",
        f"grid: {{seed: {list(range(200))}, train.batch: {list(range(1, 201))}}}",
        4,
        ["40,000"],
    ),
    (
        "a list bracketed once",
        "grid:\n  train.betas: [0.9, 0.95]",
        5,
        ["bracketed twice, train.betas: [[…]]"],
    ),
    (
        "a list of words bracketed once",
        "grid: {checkpoints.metrics: [loss]}",
        4,
        ["metrics: [[…]]", "found 'loss'"],
    ),
    (
        "a list bracketed twice where once is right",
        "  train: {betas: [[0.9, 0.95]]}",
        4,
        ["train.betas"],
    ),
    (
        "a default twice",
        "  train: {lr: 1}\n  train.lr: 2",
        5,
        ["'train.lr' is set twice, also on line 4"],
    ),
    (
        "a value too long to show",
        "  train.lr: " + "x" * 5000,
        4,
        ["train.lr", "… (5,002 characters)"],
    ),
    (
        "a word that is no rule",
        "  checkpoints.keep: none",
        4,
        ["checkpoints.keep: must be all, last", "found 'none'"],
    ),
    (
        "a rule that keeps nothing",
        "  checkpoints: {snapshots: 5, keep: {}}",
        4,
        ["keep: keeps nothing"],
    ),
    (
        "a part of a rule misspelt",
        "  checkpoints.keep: {lasst: 1}",
        4,
        ["'lasst' in checkpoints.keep", "'last'"],
    ),
    (
        "a snapshot of step 0",
        "  checkpoints.snapshots: [0]",
        4,
        ["checkpoints.snapshots: must be steps between"],
    ),
    (
        "a profile that is a number",
        "profile: 3",
        4,
        ["`profile` must be a name or the path"],
    ),
]


@pytest.mark.parametrize(
    ("text", "line", "said"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_mistake_is_told_with_its_line(load, text, line, said):
    """The message has file and line, what was found, and what is allowed or nearest."""
    with pytest.raises(UserError) as error:
        load(text)

    assert f"my-grid.yaml:{line}: " in str(error.value)
    assert [part for part in said if part not in str(error.value)] == []


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.learning_rate", "In a grid that is train.lr"),
        ("train.gradient_accumulation_steps", "In a grid that is train.batch:"),
        ("train.lora_r", "train.tuning.r, with train.tuning.method: lora"),
    ],
)
def test_a_key_of_another_trainer_is_told_by_its_name_here(load, key, meant):
    """On its line, in place of a guess by its letters."""
    with pytest.raises(UserError) as error:
        load(f"  {key}: 1\n")

    assert meant in str(error.value) and "Did you mean" not in str(error.value)


def test_data_without_a_path_is_told(load):
    """The one setting without a default is asked for by name."""
    with pytest.raises(
        UserError, match=r"my-grid\.yaml:1: data is missing and has no default"
    ):
        load("", head="name: x\n")


@pytest.mark.parametrize("name", ["wsd-order", "A", "7b", "a.b_c-d", "x" * 64])
def test_a_name_of_letters_digits_dots_and_dashes_is_good(load, name):
    """Names that are safe as a folder and as a job's name are taken."""
    assert load("", head=HEAD.replace("demo", f'"{name}"')).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "_x",
        "a/b",
        "../x",
        "a b",
        "a\\n",
        "a'b",
        "a$b",
        "a;b",
        "a\\0",
        "é",
        "x" * 65,
    ],
)
def test_a_name_that_is_unsafe_as_a_path_is_refused(load, name):
    """A grid's name becomes a folder and a job's name, so nothing else than a plain name passes."""
    with pytest.raises(
        UserError, match=r"my-grid\.yaml:1: `name` must be 1–64 letters"
    ):
        load("", head=HEAD.replace("demo", f'"{name}"'))


@pytest.mark.parametrize("text", ["", "x", "[]", "5", "- name: x"])
def test_a_file_that_is_no_mapping_is_told_what_a_grid_is(load, text):
    """An empty file, a word or a list gets the list of keys."""
    with pytest.raises(
        UserError,
        match="a grid file is a mapping with the keys name, profile, defaults, grid",
    ):
        load(text, head="")


WORDS = [
    "name",
    "defaults",
    "grid",
    "exclude",
    "zip",
    "seed",
    "model",
    "train",
    "train.lr",
    "data",
    "data.path",
]
KEYS = st.sampled_from(
    [*WORDS, "betas", "path", "fraction", "lr", "metrics", "", "a.b", "function-x"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*WORDS, "1/4", "", "nft", "\0"])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS[:4]), TREES, max_size=4), st.booleans())
def test_no_tree_crashes_a_grid(tmp_path_factory, tree, is_named):
    """Any small YAML tree is a grid with points or a UserError with file and line."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    text = json.dumps(tree | ({"name": "x"} if is_named else {}))
    path.write_text(
        text.replace("NaN", ".nan")
        .replace("-Infinity", "-.inf")
        .replace("Infinity", ".inf")
    )
    try:
        assert grid.load_grid(path).points
    except UserError as error:
        assert "any.yaml" in str(error)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_a_block_has_as_many_points_as_its_product(tmp_path_factory, sizes):
    """n·m·k values are n·m·k different points."""
    keys = ["seed", "train.batch", "train.epochs"]
    path = tmp_path_factory.getbasetemp() / "product.yaml"
    block = {
        key: list(range(1, size + 1)) for key, size in zip(keys, sizes, strict=False)
    }
    path.write_text(HEAD + f"grid: {json.dumps(block)}\n")

    points = [tuple(point.axes.values()) for point in grid.load_grid(path).points]

    product = 1
    for size in sizes:
        product *= size
    assert (product, product) == (len(points), len(set(points)))


def test_a_section_that_points_share_is_checked_once(load):
    """Points that differ in one section have the others in common, as one object."""
    points = load("grid: {train.lr: [1e-5, 2e-5], seed: [0, 1]}").points

    assert len({id(point.settings.data) for point in points}) == 1
    assert len({id(point.settings.train) for point in points}) == 2
    assert [point.settings.train.lr for point in points] == [1e-5, 1e-5, 2e-5, 2e-5]


def test_a_section_of_several_axes_is_each_their_own(load):
    """Two axes of one section, and a rule of `exclude` over them, are told apart."""
    loaded = load(
        "grid: {train.lr: [1e-5, 2e-5], train.steps: [3, 4]}\n"
        "exclude: [{train.lr: 1e-5, train.steps: 4}]"
    )

    trained = [point.settings.train for point in loaded.points]
    assert [(train.lr, train.steps) for train in trained] == [
        (1e-5, 3),
        (2e-5, 3),
        (2e-5, 4),
    ]
