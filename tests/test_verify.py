"""Does `zsg verify` find that a run is what it says it is, find what was tampered with,
and say what it cannot know?"""

import json
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace, read_json, write_json
from jobs.contract.journal import list_journal_files
from launcher.verification.evidence import Evidence
from launcher.verification.finding import (
    DIFFERS,
    HOLDS,
    NOT_CHECKED,
    Differs,
    Finding,
    NotChecked,
)
from launcher.verification.replay_comparison import (
    Replayed,
    check_same_bits,
    compare_replay,
)
from launcher.verification.verify import verify_run
from tests.lib.command_line import Zsg
from tests.lib.forked_jobs import Rank
from tests.lib.job_records import write_job_file
from tests.lib.journal_rows import typed_rows
from tests.lib.train_bench import Bench
from zsg_core.errors import UserError

CPU = {
    "device": "cpu",
    "world": 1,
    "zero_stage": 1,
    "threads": 1,
    "precision": "fp32",
    "versions": {"torch": "2.13"},
}


class Forked:
    """A forked rank, as `subprocess` knows processes."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank

    def poll(self) -> int | None:
        return 0 if self._rank.ended() else None

    def wait(self, timeout: float | None = None) -> int:
        assert self._rank.ended(within_s=timeout or 0), "a rank of the replay stays"
        return 0

    def terminate(self) -> None:
        self._rank.send(signal.SIGTERM)

    def kill(self) -> None:
        self._rank.send(signal.SIGKILL)


class Verifier:
    """A run of two ranks that has ended, with its last state and two snapshots; and
    verifying of copies of it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.folder = bench.make(keep_state=True, snapshots=[8], precision="bf16")
        assert bench.jobs.run(self.folder, world=2)["outcome"] == "done"

    def copy(self, to: Path) -> Path:
        """The run's folder in a copy of its workspace."""
        shutil.copytree(self.folder.parent.parent, to)
        return to / "runs" / self.folder.name

    def __call__(self, folder: Path, steps: int = 0) -> dict[str, Finding]:
        """What is found, by name, in the order in which it is shown."""

        def start(folder: Path, world: int, env: Mapping[str, str]) -> list[Forked]:
            return [Forked(rank) for rank in self.bench.jobs.start(folder, world)]

        def nowhere() -> Workspace:
            raise AssertionError("a folder needs no workspace to be found in")

        return {
            check.name: check
            for check in verify_run(str(folder), nowhere, steps, start)
        }


@pytest.mark.parametrize(
    ("edit_recipe", "told"),
    [
        (lambda recipe: recipe.update(stages="all"), "has no stage"),
        (lambda recipe: recipe.update(base="tiny"), "has no `base`"),
        (lambda recipe: recipe["stages"].append(1), "has no `data` in its last stage"),
        (lambda recipe: recipe["stages"][-1].pop("train"), "has no `train`"),
        (
            lambda recipe: recipe["stages"][-1]["arrangement"].pop("order"),
            "has no `arrangement.order`",
        ),
    ],
)
def test_a_recipe_that_zsg_did_not_write_is_one_error(
    tmp_path: Path, edit_recipe: Callable[[dict], object], told: str
) -> None:
    """Before anything is looked at; it names the file and what it lacks."""
    stage = {"data": {}, "arrangement": {"order": "random"}, "train": {}}
    recipe = {"base": {"kind": "tiny"}, "stages": [stage]}
    edit_recipe(recipe)
    folder = tmp_path / "runs/one"
    write_job_file(folder, recipe=recipe)

    with pytest.raises(UserError, match=f"job.json: its recipe {re.escape(told)}"):
        Evidence.of(folder)


@pytest.fixture(scope="module")
def verifier(bench: Bench) -> Verifier:
    """One run for all: what each test changes is a copy."""
    return Verifier(bench)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def but(found: Mapping[str, Finding], verdict: str) -> set[str]:
    """The names of the checks that came to something else."""
    return {name for name, check in found.items() if check.verdict != verdict}


def test_a_real_run_verifies_from_its_state(verifier: Verifier) -> None:
    """Two ranks go on from the newest full state: all that is journalled after it comes
    again, to the bit."""
    before = contents(verifier.folder.parent.parent)
    found = verifier(verifier.folder, steps=10)

    assert but(found, HOLDS) == {"other steps"}
    assert (
        "steps 17–18 from the state of step 16, 2 ranks on cpu" in found["replay"].says
    )
    assert "2 digests of weights are equal to the bit" in found["replay"].says
    assert "16 of 18 were not replayed" in found["other steps"].says
    assert contents(verifier.folder.parent.parent) == before


def test_a_run_without_a_state_is_trained_again_from_the_beginning(
    verifier: Verifier, tmp_path: Path
) -> None:
    """As many steps as are asked for, the test loss of the untrained model among them;
    its snapshot comes again."""
    folder = verifier.copy(tmp_path / "w")
    shutil.rmtree(folder / "state")
    found = verifier(folder, steps=8)

    assert but(found, HOLDS) == {"state", "other steps"}
    assert "steps 1–8 from the beginning" in found["replay"].says
    assert "1 digests of weights" in found["replay"].says
    assert "no full state is kept" in found["state"].says


def edit(path: Path, old: str, new: str) -> None:
    """Puts one text in place of another, which must stand there once."""
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))


def flip(path: Path, place: int) -> None:
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def swap(folder: Path) -> None:
    """Exchanges the first two ids of an order."""
    ids = next(folder.parent.parent.glob("arrangements/*/ids"))
    one, two, *others = ids.read_text().splitlines()
    ids.write_text("\n".join([two, one, *others]) + "\n")


def change_loss(folder: Path, key: str, step: int) -> None:
    """Puts another last digit into the journalled value of a step."""
    path = list_journal_files(folder)[0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    value = next(
        row["data"][key] for row in rows if row["step"] == step and key in row["data"]
    )
    edit(
        path,
        f'"{key}": {value!r}',
        f'"{key}": {repr(value)[:5]}{9 - int(repr(value)[5])}{repr(value)[6:]}',
    )


PLANTED = {
    "a setting of the recipe": (
        "recipe",
        lambda run: edit(run / "job.json", '"lr": 0.002', '"lr": 0.003'),
    ),
    "the code": (
        "code",
        lambda run: flip(
            next(run.parent.parent.glob("code/*/jobs/runtime/signals.py")), 5
        ),
    ),
    "the base": (
        "base",
        lambda run: flip(next(run.parent.parent.glob("bases/*/tokenizer.json")), 99),
    ),
    "the order": ("arrangement", swap),
    "the test set": (
        "corpus",
        lambda run: flip(next(run.parent.parent.glob("corpora/*/test.npy")), -8),
    ),
    "a test loss": ("losses", lambda run: change_loss(run, "loss", 6)),
    "a row of the journal": (
        "journal",
        lambda run: _drop(list_journal_files(run)[0], '"train/loss"'),
    ),
    "a snapshot": (
        "weights",
        lambda run: flip(next(run.glob("snapshots/8/*.safetensors")), -1),
    ),
    "the last weights": (
        "weights",
        lambda run: _change(run / "exit.json", weights="0" * 64),
    ),
    "the ids of the state": (
        "state",
        lambda run: _change(run / "state/16/state.json", ids="0" * 64),
    ),
}


def _drop(path: Path, what: str) -> None:
    lines = path.read_text().splitlines()
    lines.remove(next(line for line in lines if what in line))
    path.write_text("\n".join(lines) + "\n")


def _change(path: Path, **values: str) -> None:
    write_json(path, read_json(path) | values)


@pytest.mark.parametrize(("name", "plant"), PLANTED.values(), ids=PLANTED.keys())
def test_what_was_tampered_with_is_named_first(
    verifier: Verifier, tmp_path: Path, name: str, plant: Callable[[Path], None]
) -> None:
    """Without any training, from the records."""
    folder = verifier.copy(tmp_path / "w")
    plant(folder)
    found = verifier(folder)

    assert found[name].verdict == DIFFERS
    assert name in [check for check, one in found.items() if one.verdict == DIFFERS][:3]
    assert [one.verdict == DIFFERS for one in found.values()] == sorted(
        (one.verdict == DIFFERS for one in found.values()), reverse=True
    )


def test_an_order_is_found_whose_record_was_tampered_with_too(
    verifier: Verifier, tmp_path: Path
) -> None:
    """The journal has the digest of the ids that were consumed."""
    from zsg_core.digest import digest_ids

    folder = verifier.copy(tmp_path / "w")
    swap(folder)
    made = next(folder.parent.parent.glob("arrangements/*"))
    _change(
        made / "meta.json",
        ids_digest=digest_ids((made / "ids").read_text().splitlines()),
    )
    found = verifier(folder)

    assert found["arrangement"].verdict == HOLDS
    assert found["schedule"].verdict == DIFFERS
    assert "step 6: the digest of the ids consumed is" in found["schedule"].says


def test_data_that_have_changed_are_named(verifier: Verifier, tmp_path: Path) -> None:
    """The user's own files are held against the recipe; where they are gone, that is
    said and nothing differs."""
    folder = verifier.copy(tmp_path / "w")
    for prepare in folder.parent.parent.glob("prepare/*/job.json"):
        edit(prepare, str(verifier.bench.data), str(tmp_path / "tasks"))
    gone = verifier(folder)["data"]
    shutil.copytree(verifier.bench.data, tmp_path / "tasks")
    there = verifier(folder)["data"]
    flip(next((tmp_path / "tasks/tasks").glob("*.json")), 40)
    changed = verifier(folder)["data"]

    assert [one.verdict for one in (gone, there, changed)] == [
        NOT_CHECKED,
        HOLDS,
        DIFFERS,
    ]
    assert f"{tmp_path / 'tasks'} is not" in changed.says


@pytest.mark.parametrize(
    ("plant", "proof"),
    [
        pytest.param(
            lambda run: change_loss(run, "train/loss", 17),
            "step 17: train/loss is",
            id="a training loss",
        ),
        pytest.param(
            lambda run: _spoil(run / "state/16"),
            "step 17: ",
            id="a weight in the state",
        ),
    ],
)
def test_what_only_training_again_can_find(
    verifier: Verifier, tmp_path: Path, plant: Callable[[Path], None], proof: str
) -> None:
    """The first step that does not come again is named, with both values."""
    folder = verifier.copy(tmp_path / "w")
    plant(folder)
    found = verifier(folder, steps=10)

    assert but(found, HOLDS) == {"replay", "other steps"}
    assert next(iter(found)) == "replay"
    assert found["replay"].verdict == DIFFERS
    assert proof in found["replay"].says


def _spoil(state: Path) -> None:
    import torch

    [path] = state.glob("ranks/*model_states.pt")
    saved = torch.load(path, weights_only=False)
    next(iter(saved["module"].values())).view(-1)[0] += 1.0
    torch.save(saved, path)


def test_a_workspace_that_has_moved_verifies(
    verifier: Verifier, tmp_path: Path
) -> None:
    """What the records name by its old place is found beside the run."""
    folder = verifier.copy(tmp_path / "elsewhere")
    edit(
        folder / "job.json",
        f'"workspace": "{verifier.folder.parent.parent}"',
        '"workspace": "/gone"',
    )
    text = (folder / "job.json").read_text()
    (folder / "job.json").write_text(
        text.replace(str(verifier.folder.parent.parent), "/gone")
    )

    assert but(verifier(folder, steps=1), HOLDS) == {"other steps"}


def test_of_a_folder_alone_is_said_what_it_lacks(
    verifier: Verifier, tmp_path: Path
) -> None:
    """What stands in the run's own folder is checked; for the rest is said what is not there."""
    folder = verifier.copy(tmp_path / "w").rename(tmp_path / "alone")
    shutil.rmtree(tmp_path / "w")
    text = (folder / "job.json").read_text()
    (folder / "job.json").write_text(
        text.replace(str(verifier.folder.parent.parent), "/gone")
    )
    found = verifier(folder, steps=10)

    assert {name for name, check in found.items() if check.verdict == HOLDS} == {
        "recipe",
        "journal",
        "losses",
        "weights",
    }
    assert DIFFERS not in {check.verdict for check in found.values()}
    assert all(
        "is not in" in found[name].says
        for name in ("code", "base", "corpus", "arrangement", "replay")
    )


def start_row(**changes: object) -> dict:
    """What an attempt told when it began."""
    return {
        "kind": "event",
        "step": 0,
        "attempt": 1,
        "data": {"event": "start", **CPU, **changes},
    }


def metric(**values: float) -> dict:
    """A journalled step."""
    return {"kind": "metric", "step": 1, "attempt": 1, "data": values}


@pytest.mark.parametrize(
    ("then", "now", "again", "agree"),
    [
        ({}, {}, 2.0, "equal to the bit"),
        ({}, {}, 2.0000001, None),
        ({}, {"threads": 2}, 2.0000001, "agree within 1e-05"),
        (
            {"precision": "bf16"},
            {"precision": "bf16", "versions": {"torch": "2.14"}},
            2.01,
            "agree within 0.01",
        ),
        ({"device": "cuda"}, {"device": "cuda"}, 2.01, "agree within 0.01"),
        ({"device": "cuda"}, {"device": "cuda"}, 2.1, None),
        ({"train": 8}, {"train": 9}, 2.0, None),
    ],
)
def test_how_near_values_must_be(
    then: dict, now: dict, again: float, agree: str | None
) -> None:
    """Equal if computed in the same way on CPUs, else within what is told; then weights
    are not compared."""
    recorded = {(1, "train/loss"): 2.0, (1, "digest of weights"): "a"}
    rows = [start_row(**now), metric(**{"train/loss": again})]
    weights = "b" if agree and "within" in agree else "a"
    rows.append(
        {"kind": "digest", "step": 1, "attempt": 1, "data": {"weights": weights}}
    )
    starts = [start_row(**then)["data"]]

    if agree is None:
        with pytest.raises(Differs):
            compare_replay(recorded, starts, Replayed(typed_rows(rows)))
    else:
        assert agree in compare_replay(recorded, starts, Replayed(typed_rows(rows)))


def test_other_versions_are_both_told() -> None:
    """Whoever sees values that are only near sees why."""
    with pytest.raises(
        NotChecked, match=r"versions was torch 2\.11, is torch 2\.13 here"
    ):
        check_same_bits([start_row(versions={"torch": "2.11"})["data"]], CPU)


def test_the_command_ends_with_what_it_found(
    verifier: Verifier, tmp_path: Path
) -> None:
    """0 for a run that verifies, trained again in processes of its own; 1 for one that
    differs, which stands first."""
    folder = verifier.copy(tmp_path / "w")
    zsg = Zsg(tmp_path)
    place = ("--workspace", tmp_path / "w")
    printed = zsg("verify", folder.name[:5], *place, "--steps", "1")
    _change(folder / "exit.json", loss="9.5")
    told = json.loads(zsg("verify", folder, "--steps", "0", "--json", code=1))

    assert (
        "✓ replay         steps 17–17 from the state of step 16, 2 ranks on cpu"
        in printed
    )
    assert printed.endswith("0 differ, 13 hold, 1 not checked (–)\n")
    assert (told[0]["check"], told[0]["verdict"]) == ("losses", "differs")
    assert "zsg verify looks at runs" in zsg_error(zsg, "verify", "prepare/p", *place)


def zsg_error(zsg: Zsg, *argv: str | Path) -> str:
    """What a command says that is the user's mistake."""
    zsg(*argv, code=2)
    return zsg.said
