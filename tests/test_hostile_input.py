"""Is every mistake and every attack refused in one clear message, with nothing
submitted and nothing left behind?

Each row is told to the real command line, `zsg submit`, in a folder of its own. It must
end with 2 (the user's input) or 3 (the cluster), print one error that names the thing,
and leave everything around it as it was.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import cli
from tests.lib.builders import task
from tests.lib.model_folders import SMALL, shapes, write_llama, write_tensors
from tests.lib.refusals import GRID, Ended, Home, assert_refused

USER, CLUSTER = 2, 3
PROFILE = "name: p\nkind: slurm\n"
LINK_OUT = "$(touch x)"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user's folder in an otherwise empty one."""
    return Home(tmp_path)


@pytest.fixture
def zsg_here(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """The whole command line in this process: its arguments, its exit code, what it
    printed and said."""

    def run(*argv: str | Path) -> Ended:
        monkeypatch.chdir(home.folder)
        monkeypatch.delenv("ZSG_WORKSPACE", raising=False)
        monkeypatch.setattr(sys, "argv", ["zsg", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_the_grid_that_the_rows_change_is_good(
    home: Home, zsg_here: Callable[..., Ended]
) -> None:
    """Without the mistake the same command plans a run, so a refusal is due to the mistake."""
    ended = zsg_here("plan", "grid.yaml")

    assert (ended.code, "g: 1 to submit" in ended.printed) == (0, True), ended.said


def bomb() -> str:
    """Nested aliases that stand for ten thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


TEXTS = {
    "an unknown key at the top": (
        GRID + "gird: {seed: 1}\n",
        ["grid.yaml:5", "'gird'", "Did you mean 'grid'"],
    ),
    "an unknown key in defaults": (
        GRID + "  sead: 1\n",
        ["grid.yaml:5", "'sead'", "Did you mean 'seed'"],
    ),
    "an unknown key in a section": (
        GRID.replace("batch", "bacth"),
        ["grid.yaml:4", "'bacth'", "'batch'"],
    ),
    "an unknown axis": (
        GRID + "grid: {train.lrr: [1]}\n",
        ["grid.yaml:5", "'train.lrr'", "'train.lr'"],
    ),
    "an unknown key in a value": (
        GRID + "grid:\n  train: [{lrr: 1}]\n",
        ["grid.yaml:6", "'lrr'", "'lr'"],
    ),
    "an unknown key in zip": (
        GRID + "grid: {zip: {sed: [1]}}\n",
        ["grid.yaml:5", "'sed'", "'seed'"],
    ),
    "an unknown key in exclude": (
        GRID + "exclude: [{sed: 1}]\n",
        ["grid.yaml:5", "'sed'", "'seed'"],
    ),
    "a wrong type": (
        GRID.replace("batch: 4", "batch: four"),
        ["grid.yaml:4", "train.batch", "whole number", "'four'"],
    ),
    "a fraction by zero": (
        GRID + "  data.fraction: 1/0\n",
        ["grid.yaml:5", "data.fraction", "'1/0'"],
    ),
    "an alias bomb": (bomb(), ["grid.yaml:", "aliases multiply them"]),
    "a bomb of points": (
        GRID
        + f"grid: {{seed: {list(range(300))}, train.epochs: {list(range(1, 301))}}}\n",
        ["grid.yaml:5", "90,000 points"],
    ),
    "a tag that runs a command": (
        "name: !!python/object/apply:os.system ['touch x']\n",
        ["grid.yaml:1", "tag", "python/object/apply:os.system"],
    ),
    "a tag that imports": (
        GRID + "  seed: !!python/name:os.system\n",
        ["grid.yaml:5", "tag", "os.system"],
    ),
    "a doubled key": (GRID + "name: h\n", ["grid.yaml:5", 'duplicate key "name"']),
    "a doubled default": (
        GRID + "  train.batch: 8\n",
        ["grid.yaml:5", "'train.batch' is set twice", "line 4"],
    ),
    "a text of fifty megabytes": (
        b"name: " + b"x" * 50_000_000,
        ["grid.yaml", "200,000 bytes"],
    ),
    "brackets without end": ("[" * 100_000, ["grid.yaml:1", "brackets open"]),
    "no text at all": (b"\x89PNG\r\n\x1a\n\xff\x00", ["grid.yaml", "cannot be read"]),
    "a path as name": (
        GRID.replace("name: g", "name: ../../x"),
        ["grid.yaml:1", "`name`", "'../../x'"],
    ),
    "a command as name": (
        GRID.replace("name: g", "name: $(touch x)"),
        ["grid.yaml:1", "'$(touch x)'"],
    ),
    "a name of 300 characters": (
        GRID.replace("name: g", "name: " + "x" * 300),
        ["1–64", "302 characters"],
    ),
    "a line break in the name": (
        GRID.replace("name: g", 'name: "a\\nb"'),
        ["grid.yaml:1", r"'a\nb'"],
    ),
    "a right-to-left mark in the name": (
        GRID.replace("name: g", "name: \u202eg"),
        ["grid.yaml:1", r"'\u202eg'"],
    ),
    "a path as a model's name": (
        GRID + "  model: {name: ../../x, path: m}\n",
        ["grid.yaml:5", "model.name", "'../../x'"],
    ),
    "a command as data": (
        GRID.replace("path: data", "path: $(touch x)"),
        ["data.path", "$(touch x): no such file"],
    ),
    "data of 300 characters": (
        GRID.replace("path: data", "path: " + "x" * 300),
        ["data.path", "xxx"],
    ),
    "a line break in a path": (
        GRID.replace("path: data", r'path: "a\nb"'),
        ["grid.yaml:3", "data.path", r"'a\nb'"],
    ),
    "a right-to-left mark in a path": (
        GRID.replace("path: data", "path: \u202e/d"),
        ["data.path", r"'\u202e/d'"],
    ),
    "a path that is nothing": (
        GRID.replace("path: data", "path: ''"),
        ["grid.yaml:3", "data.path"],
    ),
    "a user who is not there": (
        GRID.replace("path: data", "path: ~nobody-here/d"),
        ["data.path", "~nobody-here"],
    ),
    "a missing data folder": (
        GRID.replace("path: data", "path: dta"),
        ["data.path", "home/dta: no such file"],
    ),
    "a file for a data folder": (
        GRID.replace("path: data", "path: grid.yaml"),
        ["home/grid.yaml: no file of this format, which ends in .json"],
    ),
    "a fraction that leaves nothing": (
        GRID + "  data.fraction: 1/256\n",
        ["data.fraction", "1/256", "40 examples"],
    ),
    "an unknown profile": (
        GRID + "profile: locl\n",
        ["profile 'locl'", "Did you mean 'local'?", "Known: "],
    ),
    "a path as profile": (GRID + "profile: ../../x\n", ["profile '../../x'"]),
    "a missing embedding": (
        GRID + "grid: {arrangement: [{order: nft, embedding: no}]}\n",
        ["arrangement.embedding"],
    ),
}


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=TEXTS.keys())
def test_a_grid_is_refused(
    home: Home, zsg_here: Callable[..., Ended], text: str | bytes, said: list[str]
) -> None:
    """A mistake or an attack in the grid file is the user's error, named with what is allowed."""
    home.write("grid.yaml", text)
    before = home.listing()

    assert_refused(home, before, zsg_here("submit", "grid.yaml"), USER, said)


PROFILES = {
    "an unknown key": (PROFILE + "partiton: gpu\n", ["p.yaml:3", "'partiton'"]),
    "an unknown key within": (
        PROFILE + "slurm: {partiton: gpu}\n",
        ["p.yaml:3", "'partiton'", "'partition'"],
    ),
    "a wrong type": (
        PROFILE + "train: {nodes: two}\n",
        ["p.yaml:3", "train.nodes", "'two'"],
    ),
    "an option as partition": (
        PROFILE + "slurm: {partition: a --wrap=x}\n",
        ["p.yaml:3", "slurm.partition"],
    ),
    "a command as account": (
        PROFILE + "slurm: {account: $(touch x)}\n",
        ["p.yaml:3", "slurm.account", LINK_OUT],
    ),
    "a line break in a variable": (
        PROFILE + 'environment: {set: {A: "a\\nb"}}\n',
        ["p.yaml:3", "environment.set"],
    ),
    "a tag": (
        "name: !!python/object/apply:os.system ['touch x']\n",
        ["p.yaml:1", "tag"],
    ),
    "an alias bomb": (bomb(), ["p.yaml:", "aliases multiply them"]),
    "no mapping": ("[]", ["p.yaml:1", "mapping"]),
    "a workspace with a line break": (
        PROFILE + 'workspace: "a\\nb"\n',
        ["workspace", r"a\nb"],
    ),
}


@pytest.mark.parametrize(("text", "said"), PROFILES.values(), ids=PROFILES.keys())
def test_a_profile_is_refused(
    home: Home, zsg_here: Callable[..., Ended], text: str, said: list[str]
) -> None:
    """A mistake or an attack in the profile is the user's error, with file and line."""
    home.write("p.yaml", text)
    before = home.listing()

    assert_refused(
        home, before, zsg_here("submit", "grid.yaml", "--profile", "p.yaml"), USER, said
    )


OPTIONS = {
    "a grid that is not there": (["no.yaml"], ["no.yaml", "No such file"]),
    "a grid that is a folder": (["data"], ["data", "not a file"]),
    "a grid that never ends": (["/dev/zero"], ["/dev/zero", "not a file"]),
    "a line break in the grid's path": (["a\nb.yaml"], [r"a\nb.yaml: cannot"]),
    "a profile that is not there": (
        ["grid.yaml", "--profile", LINK_OUT + ".yaml"],
        ["$(touch x).yaml"],
    ),
    "a path as profile": (
        ["grid.yaml", "--profile", "../../x"],
        ["profile '../../x' not found"],
    ),
    "an unknown setting": (
        ["grid.yaml", "--set", "seeed=1"],
        ["--set seeed=1", "Did you mean 'seed'"],
    ),
    "a bomb as setting": (
        ["grid.yaml", "--set", f"data.path={'[' * 5000}"],
        ["--set data.path=[[", "5,010 characters", "brackets open"],
    ),
    "a workspace that is a file": (
        ["grid.yaml", "--workspace", "grid.yaml"],
        ["grid.yaml", "is a file"],
    ),
    "a workspace below a file": (
        ["grid.yaml", "--workspace", "grid.yaml/w"],
        ["grid.yaml/w", "is a file"],
    ),
    "a workspace of 300 characters": (
        ["grid.yaml", "--workspace", "x" * 300],
        ["workspace", "too long"],
    ),
    "a line break in the workspace": (
        ["grid.yaml", "--workspace", "a\nb"],
        ["workspace", r"a\nb"],
    ),
    "a right-to-left mark in the workspace": (
        ["grid.yaml", "--workspace", "\u202ex"],
        ["workspace", r"\u202ex"],
    ),
    "a pattern of Slurm in the workspace": (
        ["grid.yaml", "--workspace", "%j"],
        ["workspace", "'%'"],
    ),
    "a workspace of an unknown user": (
        ["grid.yaml", "--workspace", "~nobody-here/w"],
        ["workspace", "~nobody-here"],
    ),
}


@pytest.mark.parametrize(("argv", "said"), OPTIONS.values(), ids=OPTIONS.keys())
def test_an_option_is_refused(
    home: Home, zsg_here: Callable[..., Ended], argv: list[str], said: list[str]
) -> None:
    """A mistake or an attack on the command line is the user's error."""
    before = home.listing()

    assert_refused(home, before, zsg_here("submit", *argv), USER, said)


LINKS = {
    "to nothing": ("nowhere", ["is a link to nothing", "home/link"]),
    "to a file": ("grid.yaml", ["is a file, not a folder"]),
    "in a circle": ("link", ["link", "--workspace"]),
}


@pytest.mark.parametrize(("target", "said"), LINKS.values(), ids=LINKS.keys())
def test_a_workspace_that_is_a_bad_link_is_refused(
    home: Home, zsg_here: Callable[..., Ended], target: str, said: list[str]
) -> None:
    """A link to no folder is refused, itself or on the way to the workspace; its target
    is not made."""
    (home.folder / "link").symlink_to(target)
    before = home.listing()

    for path in ("link", "link/below"):
        ended = zsg_here("submit", "grid.yaml", "--workspace", home.folder / path)
        assert_refused(home, before, ended, USER, said[:1] if path == "link" else [])


def test_a_workspace_may_be_a_link_to_a_folder(
    home: Home, zsg_here: Callable[..., Ended]
) -> None:
    """Clusters link a home's folder to a larger disk: such a link is followed."""
    (home.root / "large").mkdir()
    (home.folder / "zsg-work").symlink_to(home.root / "large")

    assert zsg_here("plan", "grid.yaml").code == 0
    assert [path.name for path in (home.root / "large").iterdir()] == ["digests.json"]


def tensors(folder: Path, drop: str = "") -> None:
    """The weights of a one-layer Llama without one of its tensors."""
    shaped = shapes(SMALL)
    write_tensors(
        folder / "model.safetensors",
        {name: shape for name, shape in shaped.items() if name != drop},
    )


def model(home: Home, **config: object) -> Path:
    """A folder with a Llama of one layer."""
    write_llama(home.folder / "model", **config)
    tensors(home.folder / "model")
    return home.folder / "model"


def sharded(home: Home, *shards: str) -> None:
    """The model with an index that names these files, of which the first is there."""
    folder = model(home)
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    where = {f"tensor{i}": shard for i, shard in enumerate(shards)}
    home.write("model/model.safetensors.index.json", json.dumps({"weight_map": where}))


def cut(home: Home, size: int) -> None:
    """The model with its weights cut to a size."""
    path = model(home) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])


MODELS: dict[str, tuple[Callable[[Home], object], list[str]]] = {
    "no folder": (lambda home: None, ["home/model is not a folder"]),
    "an empty folder": (
        lambda home: (home.folder / "model").mkdir(),
        ["no config.json"],
    ),
    "a broken config": (
        lambda home: (model(home), home.write("model/config.json", "{")),
        ["config.json", "JSON"],
    ),
    "a config that is a list": (
        lambda home: (model(home), home.write("model/config.json", "[]")),
        ["JSON object"],
    ),
    "another type": (
        lambda home: model(home, model_type="gpt2"),
        ["'gpt2'", "zsg trains GPT2LMHeadModel"],
    ),
    "another architecture": (
        lambda home: model(home, architectures=["LlamaForSequenceClassification"]),
        ["'LlamaForSequenceClassification'", "zsg trains LlamaForCausalLM"],
    ),
    "dropout in attention": (
        lambda home: model(home, attention_dropout=[]),
        ["attention_dropout"],
    ),
    "no weights": (
        lambda home: (model(home) / "model.safetensors").unlink(),
        ["has no weights"],
    ),
    "empty weights": (lambda home: cut(home, 0), ["model.safetensors is empty"]),
    "weights cut in the header": (lambda home: cut(home, 50), ["cut short"]),
    "weights cut in the tensors": (
        lambda home: cut(home, -1),
        ["not whole", "59,071 bytes", "59,072"],
    ),
    "other bytes for weights": (
        lambda home: (
            model(home),
            home.write("model/model.safetensors", b"\2" + bytes(7) + b"[]"),
        ),
        ["no safetensors file"],
    ),
    "a pointer for weights": (
        lambda home: (
            model(home),
            home.write(
                "model/model.safetensors", "version https://git-lfs.github.com/spec"
            ),
        ),
        ["git-lfs pointer", "git lfs pull"],
    ),
    "a tensor missing": (
        lambda home: tensors(model(home), drop="model.layers.0.mlp.up_proj.weight"),
        ["lack 1 tensors", "model.layers.0.mlp.up_proj.weight"],
    ),
    "no head": (
        lambda home: tensors(model(home), drop="lm_head.weight"),
        ["lack 1 tensors", "lm_head.weight"],
    ),
    "a missing shard": (
        lambda home: sharded(home, "one.safetensors", "two.safetensors"),
        ["1 of 2", "two.safe"],
    ),
    "a shard elsewhere": (
        lambda home: sharded(home, "../../etc/passwd"),
        ["lacks 1 of 1", "'../../etc/passwd'"],
    ),
    "an index of nothing": (lambda home: sharded(home), ["no weight_map"]),
    "no tokenizer": (
        lambda home: (model(home) / "tokenizer.json").unlink(),
        ["no tokenizer"],
    ),
}


@pytest.mark.parametrize(("make", "said"), MODELS.values(), ids=MODELS.keys())
def test_a_model_folder_is_refused(
    home: Home,
    zsg_here: Callable[..., Ended],
    make: Callable[[Home], object],
    said: list[str],
) -> None:
    """What a node could not load, or would fill with random weights, is refused before
    anything is submitted."""
    make(home)
    home.write("grid.yaml", GRID + "  model: {name: m, path: model}\n")
    before = home.listing()

    assert_refused(
        home, before, zsg_here("submit", "grid.yaml"), USER, ["model.path: ", *said]
    )


WHOLE: dict[str, Callable[[Home], object]] = {
    "in one file": model,
    "in shards": lambda home: sharded(home, "one.safetensors"),
    "with a shared head": lambda home: tensors(
        model(home, tie_word_embeddings=True), drop="lm_head.weight"
    ),
    "as torch wrote it": (
        lambda home: (m := model(home) / "model.safetensors").rename(
            m.with_name("pytorch_model.bin")
        )
    ),
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_model_folder_is_taken(
    home: Home, zsg_here: Callable[..., Ended], make: Callable[[Home], object]
) -> None:
    """The forms of weights that the nodes load are planned."""
    make(home)
    home.write("grid.yaml", GRID + "  model: {name: m, path: model}\n")

    assert zsg_here("plan", "grid.yaml").code == 0


DATA: dict[str, tuple[Callable[[Home], object], list[str]]] = {
    "an empty list of tasks": (
        lambda home: home.write("data/splits/default/test_tasks.txt", "\n"),
        ["names no task"],
    ),
    "no list of tasks": (
        lambda home: (home.folder / "data/splits/default/train_tasks.txt").unlink(),
        ["train_tasks.txt", "not found"],
    ),
    "tasks without instances": (
        lambda home: home.write("data/tasks/task900_count.json", json.dumps(task(0))),
        ["the test split is empty"],
    ),
    "a task that is no JSON": (
        lambda home: home.write("data/tasks/task001_add.json", "{"),
        ["task001_add.json"],
    ),
    "a missing task": (
        lambda home: (home.folder / "data/tasks/task002_sort.json").unlink(),
        ["task002_sort.json"],
    ),
    "a task elsewhere": (
        lambda home: home.write("data/splits/default/train_tasks.txt", "../../../x\n"),
        ["'../../../x' is not a task name"],
    ),
}


@pytest.mark.parametrize(("make", "said"), DATA.values(), ids=DATA.keys())
def test_a_data_folder_is_refused(
    home: Home,
    zsg_here: Callable[..., Ended],
    make: Callable[[Home], object],
    said: list[str],
) -> None:
    """Data without an example to train or to test on are refused before anything is submitted."""
    make(home)
    before = home.listing()

    assert_refused(home, before, zsg_here("submit", "grid.yaml"), USER, said)


RANKS = {
    "a batch smaller than the ranks": (
        "resources: {nodes: 3, ranks_per_node: 2}",
        ["4", "3 nodes × 2 ranks are 6: 2"],
    ),
    "more ranks than GPUs": (
        "resources.ranks_per_node: 3",
        ["ranks_per_node is 3", "2 GPUs"],
    ),
}


@pytest.mark.parametrize(("line", "said"), RANKS.values(), ids=RANKS.keys())
def test_a_size_that_wastes_or_lacks_gpus_is_refused(
    home: Home, zsg_here: Callable[..., Ended], line: str, said: list[str]
) -> None:
    """A GPU held for nothing, or a rank without one, is refused with the numbers."""
    home.write("p.yaml", PROFILE + "slurm: {gpus_per_node: 2}\n")
    home.write("grid.yaml", f"{GRID}  {line}\n")
    before = home.listing()

    assert_refused(
        home, before, zsg_here("submit", "grid.yaml", "--profile", "p.yaml"), USER, said
    )


def test_a_batch_need_not_be_a_multiple_of_the_ranks(
    home: Home, zsg_here: Callable[..., Ended]
) -> None:
    """Four examples on three ranks are trained as they are, so they are planned."""
    ended = zsg_here(
        "plan", "grid.yaml", "--profile", "slurm-minimal", "--set", "resources.nodes=3"
    )

    assert ended.code == 0, ended.said


def test_a_slurm_that_is_not_here_is_told(
    home: Home, zsg_here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without sbatch on the PATH nothing is recorded: planning works, submitting is the
    cluster's error."""
    (home.root / "bin").mkdir()
    monkeypatch.setenv("PATH", str(home.root / "bin"))
    before = home.listing()

    ended = zsg_here("submit", "grid.yaml", "--profile", "slurm-minimal")
    # the first line names the profile's file
    ended.said = ended.said.partition("\n")[2]
    assert_refused(home, before, ended, CLUSTER, ["sbatch", "PATH"])
    assert zsg_here("plan", "grid.yaml", "--profile", "slurm-minimal").code == 0
