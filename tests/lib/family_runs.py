"""Real runs of tiny models of many families: their folders with a tokenizer, how they are
trained, killed and resumed, and what transformers says of what they leave."""

import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from jobs.contract.item_losses import read_test_losses
from jobs.contract.job_file import read_train_job
from jobs.model import base_model
from jobs.training.state import newest_step
from jobs.training.train_sets import train_and_test
from tests.lib.forked_jobs import wait_until
from tests.lib.tiny_base import BASE
from tests.lib.tiny_families import make_model
from tests.lib.train_bench import Bench, starts, told

ROWS = 600  # of the table of tokens
STEPS = 8
SAVED_EVERY = 2
# of the tokenizer that zsg makes
_MARKS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
_TRAIN = {"steps": STEPS, "lr": 1e-3}
# a job that ends before it is killed is made anew so often
_TRIES = 5


class FamilyRuns:
    """Makes runs of tiny models of families, in a bench's workspaces."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._tokenizer = bench.folder / "tokenizer"

    def make_base(self, family: str, name: str, **changes: Any) -> Path:
        """The folder of a model of a family with large random weights, and a tokenizer
        that knows the bench's data."""
        folder = self._bench.folder / "bases" / name
        model = make_model(family, **{"vocab_size": ROWS, **_MARKS, **changes})
        model.save_pretrained(folder)
        for path in self._find_tokenizer().glob("tokenizer*"):
            shutil.copy(path, folder)
        return folder

    def make(
        self,
        base: Path,
        tuning: Mapping[str, Any] | None = None,
        **checkpoints: Any,
    ) -> Path:
        """The folder of a run that trains a base for a few steps, and keeps its last
        snapshot; not yet started. `tuning`: of all weights by default."""
        train: dict[str, Any] = dict(_TRAIN)
        if tuning:
            train["tuning"] = dict(tuning)
        when = {
            "every": STEPS // 2,
            "state_every": SAVED_EVERY,
            "snapshots": STEPS,
            **checkpoints,
        }
        return self._bench.make(
            train=train, model={"name": base.name, "path": str(base)}, **when
        )

    def make_stages(self, base: Path, tunings: Sequence[Mapping[str, Any]]) -> Path:
        """The folder of the last of several stages, which differ in what is tuned; none
        is started."""
        stages = [{"train": {"tuning": dict(tuning)}} for tuning in tunings]
        return self._bench.make(
            train=dict(_TRAIN),
            model={"name": base.name, "path": str(base)},
            more={"stages": stages},
            every=STEPS // 2,
            state_every=SAVED_EVERY,
            snapshots=STEPS,
        )

    @staticmethod
    def find_stage_before(run: Path) -> Path:
        """The folder of the stage that a run starts from."""
        job = read_train_job(run)
        assert job is not None
        return run.with_name(job.before[-1])

    def train(self, run: Path, world: int = 1) -> None:
        """Trains a run to its end."""
        record = self._bench.jobs.run(run, world)
        assert record["outcome"] == "done", record

    def train_both_ways(self, run: Path, world: int = 1) -> Path:
        """Trains a run once undisturbed and once killed and resumed; the folder of the
        first, beside the workspace's runs."""
        fresh, undisturbed = (
            run.parent.parent / f"{run.name}-{name}"
            for name in ("fresh", "undisturbed")
        )
        shutil.copytree(run, fresh)
        self.train(run, world)
        shutil.rmtree(
            undisturbed, ignore_errors=True
        )  # of the same run, trained before
        run.rename(undisturbed)
        fresh.rename(run)
        self.train_killed(run, world)
        return undisturbed

    def train_killed(self, run: Path, world: int = 1) -> int:
        """Trains a run to its end, killed once by SIGKILL after a state was saved; the
        step that it went on from."""
        fresh = run.parent.parent / f"{run.name}-unkilled"
        shutil.copytree(run, fresh)
        for _ in range(_TRIES):
            if self._kill(run, world):
                break
            shutil.rmtree(run)
            shutil.copytree(fresh, run)
        shutil.rmtree(fresh)
        self.train(run, world)
        first, last = (starts(run)[place] for place in (0, -1))
        is_midway = first["from"] < last["from"] < last["steps"]
        assert is_midway, "the run was not killed under way"
        return last["from"]

    def _kill(self, run: Path, world: int) -> bool:
        """Starts a run and kills all its ranks once a state was saved; whether that was
        before its end."""
        ranks = self._bench.jobs.start(run, world)
        wait_until(lambda: newest_step(run) is not None or ranks[0].ended())
        for rank in ranks:
            rank.send(signal.SIGKILL)
        for rank in ranks:
            assert rank.ended(within_s=60)
        return newest_step(run) is not None

    def _find_tokenizer(self) -> Path:
        """A folder with a tokenizer of the bench's data, made once."""
        if not self._tokenizer.is_dir():
            texts = [
                path.read_text() for path in sorted(self._bench.data.rglob("*.json"))
            ]
            base_model.make_tiny(self._tokenizer, {**BASE, "vocab": ROWS}, texts)
        return self._tokenizer


@dataclass(frozen=True)
class Reloaded:
    """What transformers makes of a snapshot. `class_name`: of the model; `tensors`: the
    shape of each in the files, by its name; `strange`: tensors that its class lacks, or that
    the files lack; `losses`: of each test item, nats a token, by eager attention."""

    class_name: str
    tensors: Mapping[str, tuple[int, ...]]
    strange: list[str]
    losses: NDArray[np.float64]


def reload_folder(folder: Path, run: Path) -> Reloaded:
    """Reads a plain model's folder as anybody would, and asks it the test items of a
    run, each alone."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    model, info = loaded
    strange = [str(name) for key in info for name in info[key]]
    return Reloaded(
        class_name=type(model).__name__,
        tensors=list_tensors(folder),
        strange=strange,
        losses=measure_items(model.eval(), run),
    )


def list_tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in a folder's files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # it is no mapping
                shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes


@torch.no_grad()
def measure_items(model: Any, run: Path) -> NDArray[np.float64]:
    """A model's mean loss of each test item of a run, in nats, float32, one item at a
    time and without padding."""
    job = read_train_job(run)
    assert job is not None
    _, test = train_and_test(job)
    means: list[float] = []
    for example in test.encoded:
        labels = torch.full((len(example.ids),), -100)
        for start, stop in example.spans:
            labels[start:stop] = torch.tensor(example.ids[start:stop])
        logits = model(torch.tensor([example.ids]), use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], labels[1:])
        means.append(float(loss))
    return np.array(means)


def read_last_losses(run: Path) -> NDArray[np.float64]:
    """What a run's journal has of its test items at its last step, nats a token."""
    items = read_test_losses(run)
    assert items.steps[-1] == STEPS
    return items.losses[-1].astype(np.float64)


def find_difference(run: Path, other: Path) -> list[Any]:
    """What two runs tell differently, of losses, digests and weights; empty if they are
    equal to the bit."""
    facts, others = told(run), told(other)
    assert any(key == "weights" and facts[key] for key in facts)
    keys = facts.keys() | others.keys()
    return sorted(str(key) for key in keys if facts.get(key) != others.get(key))
