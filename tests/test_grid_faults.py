"""Are all faults of a grid told at once, each with its line and in plain words?"""

import re

import pytest

from launcher.grids import grid
from zsg_core.errors import UserError

# what pydantic says to programmers
PYDANTIC = re.compile(
    r"Input should|Value error|Extra inputs|Field required|valid (integer|number|string)"
    r"|type=|pydantic|For further information|instance of|NoneType|_type\b"
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
            11: "no published curves 'nobody'",
        },
    ),
    (
        "zip, overlap, rules",
        """\
name: demo
defaults:
  data: {path: d, path: e}
""",
        {3: "not valid YAML"},
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
]


def tell_faults(tmp_path, text: str, sets: tuple[str, ...] = ()) -> list[str]:
    """What is told of a grid file, each fault by itself."""
    file = tmp_path / "my-grid.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        grid.load_grid(file, sets)
    first, *others = str(error.value).splitlines()
    if not others:
        return [first]
    assert first == f"{len(others)} faults:"
    return others


@pytest.mark.parametrize(
    ("text", "told"), [each[1:] for each in BATTERY], ids=[each[0] for each in BATTERY]
)
def test_all_faults_of_a_grid_are_told_at_once(tmp_path, text, told):
    """Each once with its line, in the order of the lines and in the words of a user; and
    nothing that only follows from another fault."""
    faults = tell_faults(tmp_path, text)

    lines = [int(re.findall(r"my-grid\.yaml:(\d+): ", fault)[0]) for fault in faults]
    assert lines == list(told)
    assert [
        words
        for words, fault in zip(told.values(), faults, strict=True)
        if words not in fault
    ] == []
    assert not PYDANTIC.search("\n".join(faults))


def test_faults_of_the_command_line_are_told_beside_those_of_the_file(tmp_path):
    """Those of the file first."""
    text = "name: demo\ndefaults: {data: {path: d}, sead: 1}\ngrid: {seed: [1]}\n"

    faults = tell_faults(tmp_path, text, ("train.lrr=1", "seed=2", "train.lr=x"))

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
