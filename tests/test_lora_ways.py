"""Does a stage with LoRA after another one, with dropout or beside experts, train alike however it is divided,
and end alike where it was killed?"""

import itertools
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.deepspeed_config import build_deepspeed_config
from jobs.contract.folder import read_json, write_json
from tests.lib.journal_rows import plain_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tests.lib.family_runs import STEPS, FamilyRuns, find_difference
    from tests.lib.train_bench import Bench

pytestmark = [pytest.mark.soak(part="families"), pytest.mark.engine]

# ranks, ZeRO stage
Way = tuple[int, int]
WAYS: list[Way] = list(itertools.product((1, 2), (0, 1, 2, 3)))
KILLED: list[Way] = [(1, 1), (2, 3)]
# of a loss, by which ways may differ: rounding of float32 in other orders
SAME = 1e-5
LORA = {"method": "lora", "r": 4, "targets": ["all"], "dropout": 0.2}
# what experts and routers are given is chosen on the way, and cannot be dropped
EXPERTS = {"targets": ["all", "experts", "routers"], "dropout": 0.0}
CHANGES = {"mixtral": EXPERTS}
# one whose examples are packed, one whose are padded
CASES = [
    pytest.param(("llama", "continue"), id="llama, trained on"),
    pytest.param(("llama", "merge"), id="llama, merged first"),
    pytest.param(("falcon", "continue"), id="falcon, trained on"),
]
OF_EXPERTS = [
    pytest.param(("mixtral", "continue"), id="mixtral's experts, trained on"),
    pytest.param(("mixtral", "merge"), id="mixtral's experts, merged first"),
]


@dataclass(frozen=True)
class Stages:
    """Two runs, of a first stage that is done and of a second one that starts from it;
    `fresh` is how the second one's folder is before it begins."""

    runs: FamilyRuns
    first: Path
    second: Path
    fresh: Path
    start: str

    def train(self, way: Way, **changes: Any) -> Path:
        """Trains the second stage one way, `changes` being of its settings; where it lies
        then, beside the workspace's runs."""
        self.renew(way, **changes)
        self.runs.train(self.second, way[0])
        done = self.fresh.with_name("-".join(map(str, ("done", *way, *changes))))
        shutil.rmtree(done, ignore_errors=True)  # of another test
        self.second.rename(done)
        return done

    def renew(self, way: Way, **changes: Any) -> None:
        """Makes the second stage's folder anew, to be trained one way."""
        shutil.rmtree(self.second, ignore_errors=True)
        shutil.copytree(self.fresh, self.second)
        self._divide(way, **changes)

    def _divide(self, way: Way, **changes: Any) -> None:
        """Has the second stage's weights divided among ranks as ZeRO's stage says, none of
        them being too small; and its micro-batches short, so that a rank has several."""
        job = read_json(self.second / "job.json")
        assert job is not None
        config = build_deepspeed_config(zero_stage=way[1], precision="fp32", clip=1.0)
        if way[1] == 3:
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        job["deepspeed"] = config
        job["micro_tokens"] = 200
        train = job["recipe"]["stages"][-1]["train"]
        train.update({"lr": 1e-3} | changes)
        write_json(self.second / "job.json", job)


@pytest.fixture(scope="module")
def stages(bench: Bench, request: pytest.FixtureRequest) -> Stages:
    """A first stage with LoRA and dropout to its end, by one rank."""
    family, start = request.param
    runs = FamilyRuns(bench)
    base = runs.make_base(family, f"{family}-{start}")
    tuning = LORA | CHANGES.get(family, {})
    second = runs.make_stages(base, [tuning, tuning | {"start": start}])
    first = runs.find_stage_before(second)
    runs.train(first)
    fresh = second.parent.parent / "fresh"
    second.rename(fresh)
    return Stages(runs, first, second, fresh, start)


def read_tuning(run: Path) -> dict[str, Any]:
    """What a run's recipe says of the tuning of its last stage."""
    job = read_json(run / "job.json")
    assert job is not None
    return job["recipe"]["stages"][-1]["train"]["tuning"]


def list_losses(run: Path) -> list[float]:
    """The training loss of each step, in order."""
    return [
        row["data"]["train/loss"]
        for row in plain_rows(run)
        if "train/loss" in row["data"]
    ]


def find_test_losses(run: Path) -> dict[int, float]:
    """The mean loss on the test set by step."""
    return {
        row["step"]: row["data"]["loss"]
        for row in plain_rows(run)
        if "loss" in row["data"]
    }


@pytest.mark.parametrize("stages", [*CASES, *OF_EXPERTS], indirect=True)
def test_a_second_stage_is_the_same_however_it_is_divided(stages: Stages) -> None:
    """By 1 and 2 ranks, ZeRO 0 to 3 with every adapter divided, in several micro-batches:
    the loss of each step and on each checkpoint is that of one rank."""
    found = {way: stages.train(way) for way in WAYS}

    expected = list_losses(found[1, 0])
    of_test = find_test_losses(found[1, 0])
    assert len(expected) == STEPS
    for way, run in found.items():
        losses = list_losses(run)
        pairs = zip(losses, expected, strict=True)
        furthest = max(abs(loss / other - 1) for loss, other in pairs)
        print(f"{way}: losses apart {furthest:.1e} of them")
        assert losses == pytest.approx(expected, rel=SAME), way
        assert find_test_losses(run) == pytest.approx(of_test, rel=SAME), way


@pytest.mark.parametrize("stages", CASES, indirect=True)
def test_what_is_dropped_is_seen(stages: Stages) -> None:
    """Losses of steps without dropout are others: what is compared above is not that of
    masks which drop nothing."""
    dropping = stages.train((1, 1))
    tuning = read_tuning(stages.fresh) | {"dropout": 0.0}
    plain = stages.train((1, 1), tuning=tuning)

    assert list_losses(plain) != pytest.approx(list_losses(dropping), rel=1e-3)


@pytest.mark.parametrize("stages", [*CASES, *OF_EXPERTS], indirect=True)
@pytest.mark.parametrize("way", KILLED)
def test_a_second_stage_that_was_killed_ends_the_same(stages: Stages, way: Way) -> None:
    """Its losses, digests and weights are to the bit those of one that nobody killed."""
    stages.renew(way)
    undisturbed = stages.runs.train_both_ways(stages.second, way[0])

    assert find_difference(stages.second, undisturbed) == []


@pytest.mark.parametrize("stages", [*CASES, *OF_EXPERTS], indirect=True)
@pytest.mark.parametrize("way", KILLED)
def test_a_second_stage_begins_where_the_first_ended(stages: Stages, way: Way) -> None:
    """One that learns nothing has at each checkpoint the first one's last loss: to the bit
    where its adapters are trained on, to 1e-6 of it where they were merged."""
    still = stages.train(way, lr=1e-30)
    last = find_test_losses(stages.first)[STEPS]
    begun = find_test_losses(stages.first)[0]

    assert abs(last / begun - 1) > 0.01, "the first stage has changed nothing"
    losses = find_test_losses(still)
    print(f"{way}: {last} → {losses}")
    assert max(losses) == 2 * STEPS
    far = 0.0 if stages.start == "continue" else 1e-6
    assert list(losses.values()) == pytest.approx([last] * len(losses), rel=far, abs=0)
