"""Do the checks of the nodes find what they are there for, on ranks that are real?"""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jobs.contract.node_check import Finding, FindingState, RankRecord
from jobs.node_check.registry import CHECKS

ROOT = Path(__file__).resolve().parents[1]
WORLD = 2


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RankRecord]:
    """What two real ranks have found, one after the other."""
    folder = tmp_path_factory.mktemp("workspace") / "checks" / "trial"
    folder.mkdir(parents=True, mode=0o700)
    script = ROOT / "tests/lib/checked_ranks.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder), str(WORLD)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("RECORD ")]
    found = [
        msgspec.json.decode(line.removeprefix("RECORD "), type=RankRecord)
        for line in lines
    ]
    assert not (folder / "trials").exists(), "what was trained is removed"
    return sorted(found, key=lambda record: record.rank)


def find(record: RankRecord, check: str) -> list[Finding]:
    """What a rank has found in a check."""
    return [finding for finding in record.findings if finding.check == check]


@pytest.mark.engine
@pytest.mark.process
def test_two_sound_ranks_pass_every_check_that_needs_no_gpu(
    records: list[RankRecord],
) -> None:
    """And tell of each that needs one that it was not looked at."""
    assert [record.rank for record in records] == [0, 1]
    assert all(record.ended and not record.at_work for record in records)
    for record in records:
        troubles = [f for f in record.findings if f.state == FindingState.PROBLEM]
        assert troubles == []
        skipped = {f.check for f in record.findings if f.state == FindingState.SKIPPED}
        on_gpus = {check.name for check in CHECKS if check.needs_gpu}
        # a processor may have no arithmetic for fp16
        assert on_gpus <= skipped <= on_gpus | {"steps", "overflow"}
    told = {finding.check for record in records for finding in record.findings}
    assert told == {check.name for check in CHECKS}


@pytest.mark.engine
@pytest.mark.process
def test_what_is_measured_is_told_in_figures(records: list[RankRecord]) -> None:
    """Steps are held against the CPU's float32, and fp16 outlives its overflows."""
    main, _ = records
    steps = {finding.what: finding for finding in find(main, "steps")}
    assert steps.keys() == {"bf16", "fp16"}
    assert 0 < steps["bf16"].figures["loss_deviation"] < 1e-2
    [overflow] = find(main, "overflow")
    if steps["fp16"].state == FindingState.OK:
        assert overflow.figures["skipped_steps"] > 0
    [sums] = find(main, "sums")
    assert sums.figures["bus_gb_per_s"] > 0
    [memory] = find(main, "memory")
    assert memory.assumed and memory.measured and memory.unit == "GB"
    [speed] = find(main, "speed")
    assert speed.figures["tokens_per_s"] > 0
    [stall] = find(main, "stall")
    assert stall.measured is not None and stall.figures["written_gb_per_s"] > 0
