"""Are a run's weights kept whole, where they were asked for, as long as they were asked
for, and can they be loaded?"""

import hashlib
import json
import signal
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.contract import attempt as attempts
from jobs.contract.attempt import Attempt
from jobs.contract.folder import is_committed, read_json, write_json
from jobs.contract.job_file import read_train_job
from jobs.contract.journal import GUEST, Journal, first_points, read_journal
from jobs.contract.journal_rows import SnapshotDiffers
from jobs.runtime.ranks import Ranks
from tests.lib.forked_jobs import wait_until
from tests.lib.journal_rows import plain_rows
from tests.lib.train_bench import Bench, starts, stop, told
from zsg_core.training import schedule
from zsg_core.training.snapshots import count_most_kept, select_kept_steps

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from jobs.model import weights
    from jobs.training.snapshots import Snapshots
    from jobs.training.weight_folders import IN_FLIGHT, Base, WeightFolders

LOSSES = {10: 3.0, 20: 1.0, 30: float("nan"), 40: 2.0, 50: 1.0, 60: None}


@pytest.mark.parametrize(
    ("rule", "stay"),
    [
        pytest.param(None, {10, 20, 30, 40, 50, 60}, id="all"),
        pytest.param({"last": 1}, {60}, id="the last"),
        pytest.param({"last": 2}, {50, 60}, id="the last two"),
        pytest.param({"first": 2}, {10, 20}, id="the first two"),
        pytest.param({"best": 1}, {20}, id="the best, of two equal ones the earlier"),
        pytest.param(
            {"best": 9},
            {10, 20, 40, 50},
            id="a loss that is none is not among the best",
        ),
        pytest.param({"every": 20}, {20, 40, 60}, id="every twentieth step"),
        pytest.param(
            {"first": 1, "last": 1, "best": 1, "every": 30},
            {10, 20, 30, 60},
            id="each part names some",
        ),
        pytest.param({"last": 99}, {10, 20, 30, 40, 50, 60}, id="more than there are"),
    ],
)
def test_which_snapshots_stay(rule: Any, stay: set[int]) -> None:
    """All that a part of the rule names, and nothing else."""
    assert select_kept_steps(LOSSES, LOSSES, rule) == stay


COUNT = st.none() | st.integers(1, 4)


@settings(deadline=None)
@example([(1, None), (2, None), (3, None)], {"last": 3})
@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.none() | st.sampled_from([1.0, 2.0, 3.0])),
        unique_by=lambda it: it[0],
    ),
    st.none()
    | st.fixed_dictionaries(
        {"first": COUNT, "last": COUNT, "best": COUNT, "every": COUNT}
    ),
)
def test_a_rule_applied_as_snapshots_come_leaves_what_it_leaves_at_the_end(
    measured: Any, rule: Any
) -> None:
    """Nothing that is removed early would have stayed, and never are more on disk than was said."""
    losses, there = dict(sorted(measured)), frozenset()
    for step in losses:
        assert len(there | {step}) <= count_most_kept(losses, rule)
        there = select_kept_steps(there | {step}, losses, rule)

    assert there == select_kept_steps(losses, losses, rule)


@pytest.mark.parametrize(
    ("named", "steps"),
    [
        (None, []),
        (10, [10, 20, 24]),
        ("1-2:1, 10-:10", [1, 2, 10, 20, 24]),
        ((5, 99), [5, 24]),
    ],
)
def test_steps_of_snapshots(named: Any, steps: list[int]) -> None:
    """Those that are named and the last, never the untrained model; each is a checkpoint too."""
    assert schedule.list_snapshot_steps(24, named) == steps
    assert schedule.list_measured_steps(24, 20, snapshots=named) == {
        "loss": sorted({0, 20, 24, *steps})
    }


def load(folder: Path) -> Any:
    """The model of a snapshot, as anybody loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def digest_of(model: Any) -> str:
    """The digest of a model's weights."""
    return weights.combine_digests(
        {
            name: weights.tensor_digest(p.detach())
            for name, p in model.named_parameters()
        }
    )


def there(folder: Path) -> list[str]:
    """What is in the folder of a run's snapshots, drafts too."""
    return sorted(
        (path.name for path in (folder / "snapshots").glob("*")),
        key=lambda name: (len(name), name),
    )


def files_of(folder: Path) -> dict[str, str]:
    """The digest of every file of a run's snapshots, but for the attempt that wrote it."""
    found = {}
    for path in sorted((folder / "snapshots").rglob("*")):
        if path.is_file() and path.name != "meta.json":
            found[str(path.relative_to(folder))] = hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
    metas = {
        path: json.loads(path.read_text())
        for path in (folder / "snapshots").glob("*/meta.json")
    }
    return found | {
        path.parent.name: str({**meta, "attempt": None, "base": None})
        for path, meta in metas.items()
    }


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    """The journal's events of a kind, with their steps."""
    return [
        {"step": row["step"], **row["data"]}
        for row in plain_rows(folder)
        if row["data"].get("event") == name
    ]


def _is_written_and_loaded(bench: Bench, world: int, zero: int, precision: str) -> Path:
    folder = bench.make(zero, precision, snapshots=[7, 12], state_every=None)
    record = bench.jobs.run(folder, world)

    assert record["outcome"] == "done", record
    assert there(folder) == ["7", "12", "18"]
    assert [(row["step"], row["kept"]) for row in record["snapshots"]] == [
        (7, True),
        (12, True),
        (18, True),
    ]
    shards = [
        path.name for path in sorted((folder / "snapshots/18").glob("*.safetensors"))
    ]
    assert shards == [
        f"model-{rank + 1:05}-of-{world:05}.safetensors" for rank in range(world)
    ]
    base = Base.of(read_train_job(folder))
    losses = {
        p.step: p.value
        for p in first_points(read_journal(folder))[0]
        if p.key == "loss"
    }
    for event in events(folder, "snapshot"):
        meta = read_json(folder / f"snapshots/{event['step']}/meta.json")
        model = load(folder / f"snapshots/{event['step']}")
        assert digest_of(model) == meta["weights"] == event["digest"]
        assert (
            str(model.dtype)
            == f"torch.{meta['dtype']}"
            == ("torch.float32" if precision == "fp32" else "torch.bfloat16")
        )
        assert meta["probe_loss"] == event["probe_loss"] == losses[event["step"]]
        assert meta["base"] == {"path": str(base.path), "digest": base.digest}
        assert (
            meta["bytes"]
            == event["bytes"]
            == sum(p.numel() * p.element_size() for p in model.parameters())
        )
    assert read_json(folder / "snapshots/18/meta.json")["weights"] == record["weights"]
    assert (
        len(
            AutoTokenizer.from_pretrained(
                folder / "snapshots/18", local_files_only=True
            )
        )
        == 600
    )
    return folder


@pytest.mark.parametrize(
    ("world", "zero", "precision"),
    [
        pytest.param(1, 1, "bf16", id="one rank"),
        pytest.param(2, 1, "fp32", id="two ranks"),
        pytest.param(
            1, 3, "bf16", id="one rank, ZeRO-3", marks=pytest.mark.soak(part="models")
        ),
        pytest.param(
            2, 3, "fp32", id="two ranks, ZeRO-3", marks=pytest.mark.soak(part="models")
        ),
    ],
)
def test_a_snapshot_is_the_live_model(
    bench: Bench, world: int, zero: int, precision: str
) -> None:
    """What transformers loads has the digest, the type and the size of what was
    trained; a shard from every rank."""
    _is_written_and_loaded(bench, world, zero, precision)


def test_a_run_from_a_snapshot_begins_with_its_loss(bench: Bench) -> None:
    """A model folder like any other: a run that starts from a snapshot measures, bit
    for bit, its probe loss."""
    folder = bench.make(snapshots=18)
    bench.jobs.run(folder)
    path = folder / "snapshots/18"
    model = {
        "name": "again",
        "path": str(path),
        "hidden": None,
        "layers": None,
        "vocab": None,
    }
    again = bench.make(more={"model": model, "train.steps": 1})
    assert bench.jobs.run(again)["outcome"] == "done"

    first = next(
        p
        for p in first_points(read_journal(again))[0]
        if (p.key, p.step) == ("loss", 0)
    )
    assert first.value == read_json(path / "meta.json")["probe_loss"]


def test_the_end_of_a_stage_is_written_the_same_way(bench: Bench) -> None:
    """Weights that others start from are a folder of the same kind, with the steps that
    later stages go on from."""
    folder = bench.make(is_start=True)
    record = bench.jobs.run(folder, 2)
    meta = read_json(folder / "weights/meta.json")

    assert digest_of(load(folder / "weights")) == meta["weights"] == record["weights"]
    assert (meta["steps"], meta["examples"], meta["digest"]) == (
        18,
        record["examples"],
        record["digest"],
    )
    assert len(list((folder / "weights").glob("model-*.safetensors"))) == 2
    assert not list(folder.glob(".weights*"))


def test_adapters_are_kept_without_their_base(bench: Bench) -> None:
    """A snapshot of LoRA holds the adapters alone; transformers puts them on the base
    that it names."""
    folder = bench.make(
        more={"train.tuning": {"method": "lora", "r": 4}},
        snapshots=18,
        state_every=None,
    )
    record = bench.jobs.run(folder, 2)
    path = folder / "snapshots/18"

    assert record["outcome"] == "done", record
    assert read_json(path / "meta.json")["bytes"] == 4 * 2 * 2 * 4 * (64 + 64)
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= {
        p.name for p in path.iterdir()
    }
    assert digest_of(load(path)) == record["weights"]


@pytest.mark.parametrize(
    ("world", "zero"),
    [
        pytest.param(1, 1, id="one rank"),
        pytest.param(
            2, 3, id="two ranks, ZeRO-3", marks=pytest.mark.soak(part="models")
        ),
    ],
)
def test_a_killed_run_ends_with_the_same_snapshots(
    bench: Bench, world: int, zero: int
) -> None:
    """Killed while it writes, a run leaves nothing half that counts; it ends with the
    files of an undisturbed one."""
    folder, other = (bench.make(zero, snapshots=2) for _ in range(2))
    bench.jobs.run(other, world)
    for kill in range(2):
        ranks, before = bench.jobs.start(folder, world), there(folder)
        wait_until(partial(_writes_anew, folder, before))
        ranks[kill % world].send(signal.SIGKILL)
        assert all(rank.ended(within_s=60) for rank in ranks)
        assert all(is_committed(path) for path in (folder / "snapshots").glob("[0-9]*"))
    record = bench.jobs.run(folder, world)

    assert (record["outcome"], len(starts(folder))) == ("done", 3), record
    assert files_of(folder) == files_of(other)
    assert [row["step"] for row in record["snapshots"]] == [
        event["step"] for event in events(other, "snapshot")
    ]
    assert not list((folder / "snapshots").glob(".*"))
    assert not events(folder, "snapshot differs")


def _writes_anew(folder: Path, before: list[str]) -> bool:
    try:
        drafts = {path.parent.name for path in (folder / "snapshots").glob(".*/*")}
    except FileNotFoundError:  # it was whole, and renamed, while it was listed
        return False
    return bool(drafts - set(before)) and len(there(folder)) > len(before)


def test_a_paused_run_has_written_what_it_began(bench: Bench) -> None:
    """On USR2 every snapshot up to the step that is saved is there, and going on writes
    only the others."""
    folder = bench.make(snapshots=2)
    stop(bench.jobs.start(folder, 2), folder, 5, signal.SIGUSR2)
    record = read_json(folder / "exit.json")

    assert record["outcome"] == "continue", record
    assert there(folder) == [str(step) for step in range(2, record["saved"] + 1, 2)]
    assert bench.jobs.run(folder, 2)["outcome"] == "done"
    assert [event["step"] for event in events(folder, "snapshot")] == list(
        range(2, 19, 2)
    )
    assert told(folder)["weights"] == bench.undisturbed(2, 1, "fp32")["weights"]


def test_only_what_the_rule_names_stays_and_what_is_leased(bench: Bench) -> None:
    """With `keep: last` one snapshot stays, and one that is being evaluated; the
    journal says which have gone."""
    folder = bench.make(snapshots=4, keep="last", state_every=None)
    (folder / "queue").mkdir()
    (folder / "queue/8.test_set.lease").touch()
    record = bench.jobs.run(folder)

    assert there(folder) == ["8", "18"]
    assert sorted(event["step"] for event in events(folder, "snapshot removed")) == [
        4,
        12,
        16,
    ]
    # the other is there to be evaluated
    assert [row["step"] for row in record["snapshots"] if row["kept"]] == [18]
    assert len(record["snapshots"]) == 5


def test_a_full_disk_ends_the_run_with_the_path(bench: Bench) -> None:
    """A snapshot that cannot be written ends the run with path and reason, and leaves
    no half; it can be run again."""
    folder = bench.make(snapshots=6, state_every=None)
    record = bench.jobs.run(folder, largest_file=100_000)

    assert (record["outcome"], record["cause"]) == ("failed", "disk full"), record
    assert f"could not be written to {folder}/snapshots/6" in record["evidence"]
    assert "File too large" in record["evidence"]
    assert list((folder / "snapshots").iterdir()) == []
    assert bench.jobs.run(folder)["outcome"] == "done"
    assert there(folder) == ["6", "12", "18"]


class Place:
    """A run's folder, and an engine that is no more than its weights: for what a real
    one cannot be made to do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder / "run", []
        self.base = Base(folder / "base", "d")
        write_json(self.base.path / "config.json", {"model_type": "llama"})
        module = torch.nn.ModuleDict({"model": torch.nn.Linear(8, 8)})
        self.engine = SimpleNamespace(
            module=module, device="cpu", zero_optimization_stage=lambda: 0
        )
        self.attempt = attempts.begin_attempt(self.folder, "s")

    def snapshots(
        self, rule: dict[str, int] | None = None, scored: tuple[str, ...] = ()
    ) -> Snapshots:
        """Its snapshots after steps 1 to 9."""
        note = lambda *row: self.rows.append(row)  # noqa: E731
        return Snapshots(
            self.engine,
            self.folder,
            self.attempt,
            Ranks(0, 1, 0),
            self.base,
            range(1, 10),
            rule,
            note,
            scored,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place, with a process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Place(tmp_path)
    dist.destroy_process_group()


def test_a_slow_disk_makes_training_wait_and_say_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two snapshots may be under way; for the third, training waits until one is
    written, and journals how long."""
    slow_s, write = 0.4, WeightFolders._write_share
    monkeypatch.setattr(
        WeightFolders,
        "_write_share",
        lambda *given: (time.sleep(slow_s), write(*given)),
    )
    snapshots = place.snapshots()
    stood = [snapshots.take(step) for step in range(1, IN_FLIGHT + 3)]
    snapshots.finish()

    assert max(stood[:IN_FLIGHT]) < slow_s / 2
    assert min(stood[IN_FLIGHT:]) > slow_s / 2
    assert [
        data["speed/snapshot_stall_s"]
        for _, data in place.rows
        if isinstance(data, dict)
    ] == stood
    assert there(place.folder) == ["1", "2", "3", "4"]


def test_a_superseded_attempt_writes_nothing(place: Place) -> None:
    """Once a newer attempt owns the folder, no snapshot of the older one appears, and
    the older one ends."""
    snapshots = place.snapshots()
    attempts.begin_attempt(place.folder, "s")
    snapshots.take(1)

    with pytest.raises(attempts.Superseded):
        snapshots.finish()
    assert there(place.folder) == []
    (place.folder / "snapshots/.1.of-the-newer").mkdir(parents=True)
    with pytest.raises(attempts.Superseded):
        place.snapshots()
    assert there(place.folder) == [".1.of-the-newer"]


def test_the_first_snapshot_counts_and_another_is_told(place: Place) -> None:
    """What is committed stays as it is; if a resumed run has other weights there, the
    journal has both digests."""
    first = place.snapshots()
    first.take(1)
    first.finish()
    before, digest = (
        files_of(place.folder),
        read_json(place.folder / "snapshots/1/meta.json")["weights"],
    )
    with torch.no_grad():
        place.engine.module["model"].bias += 1
    again = place.snapshots()
    again.take(1)
    again.finish()

    assert files_of(place.folder) == before
    [told_of] = [data for _, data in place.rows if isinstance(data, SnapshotDiffers)]
    assert told_of.first == digest != told_of.again


@pytest.mark.parametrize("is_broken", [False, True], ids=["whole", "broken"])
def test_a_broken_file_of_an_evaluator_keeps_snapshots_and_stops_no_training(
    place: Place, caplog: pytest.LogCaptureFixture, is_broken: bool
) -> None:
    """Nobody can tell what the evaluator has: every snapshot stays, which is said once.
    With a whole file only the one stays that the rule names."""
    evaluator = Attempt(1, "evaluation", None, 0, "guest", "node", 0)
    guest = Journal(place.folder, evaluator, GUEST, "s", fence=lambda: None)
    for step in range(1, 5):
        guest.add_metrics({"rouge1": 1.0}, step=step, examples=step)
    guest.close()
    path = place.folder / "journal" / guest.name
    if is_broken:
        first, *later = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(first + b"\0" * 20 + b"\n" + b"".join(later))
    snapshots = place.snapshots({"last": 1}, ("rouge1",))
    for step in range(1, 5):
        snapshots.take(step)
    snapshots.finish()

    assert there(place.folder) == (["1", "2", "3", "4"] if is_broken else ["4"])
    warned = [text for text in caplog.messages if "a snapshot is not removed" in text]
    assert len(warned) == is_broken
    assert all(str(path) in text for text in warned)
