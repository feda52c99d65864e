"""Are all faults of a grid told at once, each with its line and in plain words?"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from launcher.clusters.profile_files import lay_over
from launcher.clusters.profiles import Profile
from launcher.grids import grid
from launcher.submission import workflow
from launcher.workspace.faults import SeveralFaults
from zsg_core.errors import UserError
from zsg_core.schema_errors import find_problems, list_leaf_keys, suggest_nearest
from zsg_core.settings.run import Settings

# what pydantic says to programmers
PYDANTIC = re.compile(
    r"Input should|Value error|Extra inputs|Field required|type=|pydantic|instance of"
    r"|a valid |NoneType|function-|constrained-|\[key\]|literal\[|dict\[|list\["
    r"|(String|List|Tuple|Dictionary) should|\bdictionary\b|\.(int|float|str|bool)\b"
)
# Grids with faults of different kinds, each with its line and words of its message.
BATTERY = [
    (
        "settings of the defaults and of an axis",
        """\
name: demo
defaults:
  sead: 1
  data: {path: d}
  train: {lr: -1}
  arrangement: {order: cluter}
grid:
  seed:
  - 1
  - x
""",
        {
            3: "unknown key 'sead'. Did you mean 'seed'?",
            5: "train.lr: must be more than 0, found -1",
            6: "Did you mean 'cluster'?",
            10: "seed: must be a whole number, found 'x'",
        },
    ),
    (
        "the top, an axis, a claim",
        """\
name: a b
profile: [x]
defaults:
  data: {path: d}
grid:
  train.lrr: [1]
  train.epochs: []
exclude: {seed: 1}
claims:
- {claim: wins}
- {claim: falls_early, published: nobody}
""",
        {
            1: "`name` must be",
            2: "`profile` must be",
            6: "unknown key 'train.lrr'. Did you mean 'train.lr'?",
            7: "the axis 'train.epochs' is an empty list",
            8: "`exclude` must be a list",
            10: "`claim` must say what is claimed",
            11: "no published curves or table 'nobody'",
        },
    ),
    (
        "blocks, and rules of what they lack",
        """\
name: demo
defaults:
  data: {path: d}
  train.lr: 1.0e-3
  train:
    lr: 1.0e-4
grid:
- zip:
    seed: [0, 1]
    train.batch: [1, 2, 3]
- train.tuning: {method: lora}
  train.tuning.r: [4, 8]
- nothing
exclude:
- train.epochs: many
- {}
""",
        {
            6: "'train.lr' is set twice, also on line 4",
            8: "lists in `zip` must be equally long: seed has 2, train.batch has 3",
            12: "'train.tuning.r' is set twice in this block",
            13: "a block of the grid is a mapping of axes",
            15: "train.epochs: must be a whole number, found 'many'",
            16: "an item of `exclude` is a mapping",
        },
    ),
    (
        "rules and claims of settings that are wrong",
        """\
name: demo
defaults:
  data: {path: d, fraction: 2}
grid:
  arrangement.order: [nft, fft]
exclude:
- train.lr: none
claims:
- {claim: rises, along: seed, values: [0, 1]}
- {claim: rises, along: arrangement.order, values: [nft, tma]}
""",
        {
            3: "data.fraction: must be at most 1, found 2",
            7: "train.lr: must be a number, found 'none'",
            9: "'seed' is no axis of this grid",
            10: "no run has arrangement.order 'tma'",
        },
    ),
    (
        "settings at the top explain what is missing",
        """\
name: demo
data: {path: d}
default:
  train: {lr: 1}
grid:
  arrangement.order: [nft, other]
""",
        {
            2: "'data' is a setting: it stands under `defaults:`",
            3: "unknown key 'default'. Did you mean 'defaults'?",
            6: "arrangement.order: must be",
        },
    ),
    (
        "no name, and settings at the top",
        """\
# a first grid
train:
  lr: 1.0e-4
defaults:
  data: rows.jsonl
  arrangement: random
  resources: {gpus: 4}
""",
        {
            1: "`name` must be",
            2: "'train' is a setting: it stands under `defaults:`",
            5: "data: must be a mapping of settings, found 'rows.jsonl'. Did you mean {path:",
            6: "Did you mean {order: random}?",
            7: "GPUs are said as resources.nodes and resources.ranks_per_node",
        },
    ),
    (
        "words of other tools",
        """\
name: demo
defaults:
  data: {path: d}
  train:
    tuning: lora
    lora: {r: 8}
    learning_rate: 1.0e-4
grid:
  train.tuning.r: [8]
  train.lora.r: [8]
  lr: [1.0e-3]
  modules: [cuda]
""",
        {
            5: "must be a mapping of settings, found 'lora'. Did you mean {method: lora}?",
            6: "In a grid that is train.tuning: {method: lora}",
            7: "In a grid that is train.lr",
            10: "In a grid that is train.tuning.r, with train.tuning.method: lora",
            11: "unknown key 'lr'. Did you mean 'train.lr'?",
            12: "unknown key 'modules'. Module lines go into `setup` of the profile",
        },
    ),
    (
        "sources, stages",
        """\
name: demo
defaults:
  data:
    template: chats
    sources:
      one: {path: a, fraction: 7}
      two:
        path: b
        test_path: t
        k: half
grid:
- seed: [1]
- train: {epochs: 0}
  stages:
  - - train: {lr: high}
""",
        {
            4: "data.template: must be",
            6: "data.sources.one.fraction: must be at most 1, found 7",
            10: "data.sources.two.k: must be a fraction such as 1/4",
            13: "train.epochs: must be at least 1, found 0",
        },
    ),
    (
        "what a source and a stage hold together",
        """\
name: demo
defaults:
  data:
    path: d
grid:
- data.sources:
  - a: {path: a, held_out: {by: seed, tasks: 1}}
    b:
      path: b
      ratio: 2
- stages:
  - - train: {lr: high}
""",
        {
            10: "sources.b: `ratio` and `ratio_to` go together",
            12: "stages[0].train.lr: must be a number, found 'high'",
        },
    ),
]


def list_faults(
    tmp_path: Path, text: str, read: Callable[[Path], object] = grid.load_grid
) -> list[str]:
    """What is told of a grid file, each fault by itself."""
    file = tmp_path / "my-grid.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read(file)
    first, *others = str(error.value).splitlines()
    assert first == f"{len(others)} faults:"
    return others


def check_faults(faults: Sequence[str], told: Mapping[int, str]) -> None:
    """Each is of its line and in the words of a user, and there is no other."""
    lines = [int(re.findall(r"my-grid\.yaml:(\d+): ", fault)[0]) for fault in faults]
    assert lines == list(told)
    pairs = zip(told.values(), faults, strict=True)
    assert [words for words, fault in pairs if words not in fault] == []
    assert not PYDANTIC.search("\n".join(faults))


@pytest.mark.parametrize(
    ("text", "told"), [each[1:] for each in BATTERY], ids=[each[0] for each in BATTERY]
)
def test_all_faults_of_a_grid_are_told_at_once(tmp_path, text, told):
    """Each once with its line, in the order of the lines and in the words of a user; and
    nothing that only follows from another fault."""
    check_faults(list_faults(tmp_path, text), told)


# Faults of what a grid names: files, models, a profile; with those of its settings.
NAMED = [
    (
        "files beside settings",
        """\
name: demo
profile: locl
defaults:
  model: {name: mine, path: nowhere}
  train: {lr: -1}
  data:
    set: alpaca
    path: rows.jsonl
    test_path: gone.jsonl
grid:
  seed: [0, x]
""",
        {
            2: "profile 'locl' not found. Did you mean 'local'?",
            4: "model.path: ",
            5: "train.lr: must be more than 0, found -1",
            8: "rows.jsonl is not of the format alpaca",
            9: "data.test_path: ",
            11: "seed: must be a whole number, found 'x'",
        },
    ),
    (
        "files of axes, and of benchmarks",
        """\
name: demo
defaults:
  checkpoints:
    snapshots: 5
    metrics: [loss, gsm8k/strict]
    suites:
      gsm8k: {path: questions.jsonl}
grid:
  data:
  - {set: gsm8k, path: rows.jsonl, test_path: rows.jsonl}
  - {set: gsm8k, path: lost.jsonl, test_path: rows.jsonl}
  arrangement.embedding:
  - model-a
  arrangement.order: [tma]
""",
        {
            7: "checkpoints.suites.gsm8k.path: ",
            11: "lost.jsonl: no such file or folder",
            13: "model-a is not a folder",
        },
    ),
    (
        "a key that may say how the data are read",
        """\
name: demo
defaults:
  data: {set: alpaca, path: rows.jsonl}
  model: {name: mine, path: nowhere}
grid:
  data.test_pth: [rows.jsonl]
""",
        {
            4: "nowhere is not a folder",
            6: "unknown key 'data.test_pth'. Did you mean 'data.test_path'?",
        },
    ),
]


@pytest.mark.parametrize(
    ("text", "told"), [each[1:] for each in NAMED], ids=[each[0] for each in NAMED]
)
def test_faults_of_what_a_grid_names_are_told_with_its_own(
    tmp_path, monkeypatch, text, told
):
    """Each with the line of the setting that names it; nothing is said of data that a
    misspelt key may read in another way."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"question": "2 + 2?", "answer": "#### 4"}\n')

    faults = list_faults(
        tmp_path, text, lambda file: workflow.resolve_grid(file, None, tmp_path / "w")
    )

    check_faults(faults, told)


def test_faults_of_a_profile_are_told_at_once_with_those_of_the_grid(
    tmp_path, monkeypatch
):
    """Those of the profile's file with its lines, after those of the grid."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.yaml").write_text(
        "name: site\nkind: slurm\nslurm: {partition: 3}\nmodules: [cuda]\n"
        "train: {cpus_per_rank: many}\n"
    )
    text = "name: demo\nprofile: site.yaml\ndefaults: {data: {path: rows}, sead: 1}\n"

    faults = list_faults(
        tmp_path, text, lambda file: workflow.resolve_grid(file, None, tmp_path / "w")
    )

    assert [re.findall(r"(grid|site)\.yaml:(\d)", fault)[0] for fault in faults] == [
        ("grid", "3"),
        ("grid", "3"),
        ("site", "3"),
        ("site", "4"),
        ("site", "5"),
    ]
    assert "unknown key 'modules'. Module lines go into `setup`" in faults[3]


def test_faults_of_the_command_line_are_told_beside_those_of_the_file(tmp_path):
    """Those of the file first."""
    text = "name: demo\ndefaults: {data: {path: d}, sead: 1}\ngrid: {seed: [1]}\n"

    sets = ("train.lrr=1", "seed=2", "train.lr=x")
    faults = list_faults(tmp_path, text, lambda file: grid.load_grid(file, sets))

    assert [":2: unknown key 'sead'" in faults[0], len(faults)] == [True, 4]
    assert [fault.split("--set ")[1].split(": ")[0] for fault in faults[1:]] == [
        "train.lrr=1",
        "seed=2",
        "train.lr=x",
    ]


def test_more_faults_than_anyone_reads_are_counted(tmp_path):
    """Twenty are listed."""
    values = ", ".join(f"{number}.5" for number in range(1, 26))
    file = tmp_path / "grid.yaml"
    file.write_text(
        f"name: demo\ndefaults: {{data: {{path: d}}}}\ngrid: {{seed: [{values}]}}\n"
    )

    with pytest.raises(UserError) as error:
        grid.load_grid(file)

    first, *listed, last = str(error.value).splitlines()
    assert (first, len(listed), last) == ("25 faults:", 20, "and 5 more")


JUNK: list[Any] = [None, True, -1, 2.5, "x", [], {}, [1, "x"], {"x": {"y": 1}}]


@pytest.mark.parametrize(
    ("schema", "whole"),
    [
        (Settings, {"data": {"path": "d", "test_path": "t"}}),
        (Profile, {"name": "a", "kind": "slurm"}),
    ],
)
def test_no_word_of_programmers_is_told_of_any_setting(schema, whole) -> None:
    """Whatever stands in place of a value, of grids and of profiles."""
    told: dict[str, None] = {}
    for key in list_leaf_keys(schema, "data.sources.one"):
        for junk in JUNK:
            value = junk
            for name in reversed(key.split(".")):
                value = {name: value}
            try:
                schema.model_validate(lay_over(whole, value))
            except ValidationError as error:
                for problem in find_problems(error, schema):
                    told[problem.message.partition(", found ")[0]] = None

    assert len(told) > 100
    assert [message for message in told if PYDANTIC.search(message)] == []


def test_no_word_of_programmers_is_told_of_any_claim(tmp_path) -> None:
    """Whatever stands in place of a value."""
    values = ["null", "true", "-1", "2.5", "x", "[]", "{}", "[1, x]", "{x: {y: 1}}"]
    claims = [f"- {value}" for value in values]
    for kind in ("rises, along: seed", "correlates, along: seed", "falls_early"):
        for key in ("values", "metric", "where", "stage", "published", "share"):
            claims += [f"- {{claim: {kind}, {key}: {value}}}" for value in values]
    file = tmp_path / "grid.yaml"
    head = "name: c\ndefaults: {data: {path: d}}\ngrid: {seed: [0, 1]}\nclaims:\n"
    file.write_text(head + "\n".join(claims))

    with pytest.raises(SeveralFaults) as error:
        grid.load_grid(file)

    messages = [str(fault) for fault in error.value.faults]
    assert len(messages) > 100
    assert [message for message in messages if PYDANTIC.search(message)] == []


def test_a_word_that_is_near_none_is_not_guessed() -> None:
    """Of dotted keys the last words count: all of a section begin alike."""
    keys = ["smoke", "setup", "train.lr", "train.batch", "train.warmup_steps"]

    asked = ["modules", "train.or", "train.bach", "warmup_steps", "warm", "train.xyz"]
    assert [suggest_nearest(word, keys) for word in asked] == [
        "",
        "",
        " Did you mean 'train.batch'?",
        " Did you mean 'train.warmup_steps'?",
        "",
        "",
    ]


def test_a_name_of_the_user_s_own_stands_in_a_message_on_one_line(
    tmp_path: Path,
) -> None:
    """That of a source, say, which somebody else may have written: its signs command no
    terminal, its line ends begin no fault, and of a long one the beginning is shown."""
    name = r"\e[2J\n1. fake" + "a" * 900
    file = tmp_path / "grid.yaml"
    file.write_text(
        f'name: g\ndefaults:\n  data: {{sources: {{"{name}": {{set: x}}}}}}\n'
    )

    with pytest.raises(UserError) as refusal:
        grid.load_grid(file)

    told = str(refusal.value)
    assert r"data.sources.\x1b[2J\n1. fakeaaa" in told
    assert told.isprintable()
    assert "a" * 200 not in told
