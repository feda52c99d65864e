"""Is what a rank finds around it, and in the shared folder, judged rightly?"""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.contract.node_check import Finding, FindingState, NodeCheckRequest
from jobs.node_check import environment, shared_folder
from jobs.node_check.context import CheckContext
from jobs.node_check.shared_folder import Reads
from jobs.runtime.ranks import Ranks
from zsg_core import node_limits

GB = 10**9
GIB = 2**30
REQUEST = NodeCheckRequest(
    nodes=2, ranks_per_node=4, cpus_per_rank=8, gpus_per_node=4, mem_gb=64
)


def make_context(folder: Path, request: NodeCheckRequest = REQUEST) -> CheckContext:
    """The one rank that there is, which agrees with itself."""

    def repeat(name: str, text: str) -> list[str]:
        return [text]

    meeting: Any = SimpleNamespace(
        ranks=Ranks(0, 1, 0),
        exchange=repeat,
        describe_answers=lambda answers: "; ".join(answers),
    )
    return CheckContext(
        request=request,
        folder=folder / "checks" / "x",
        ranks=meeting.ranks,
        node="n1",
        deadline=time.monotonic() + 600,
        meeting=meeting,
    )


def by_key(findings: list[Finding]) -> dict[str, Finding]:
    """Findings by their keys."""
    return {finding.what: finding for finding in findings}


def write(path: Path, text: str) -> None:
    """A file of the kernel's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("listing", "limits", "expected"),
    [
        pytest.param(
            "0::/slurm/job_1/step_0\n",
            {"slurm/job_1/memory.max": "8000", "slurm/memory.max": "max"},
            8000,
            id="of the job, in version 2",
        ),
        pytest.param(
            "9:cpu:/\n4:memory:/slurm/job_1\n",
            {"memory/slurm/job_1/memory.limit_in_bytes": "7000"},
            7000,
            id="in version 1",
        ),
        pytest.param(
            "4:memory:/a\n",
            {"memory/a/memory.limit_in_bytes": str(2**63 - 4096)},
            64 * 1024,
            id="without a limit, the node's",
        ),
        pytest.param("", {}, 64 * 1024, id="without cgroups, the node's"),
    ],
)
def test_the_memory_of_a_rank_is_the_least_of_its_limits(
    tmp_path: Path, listing: str, limits: dict[str, str], expected: int
) -> None:
    """Those of its cgroup, of the ones that that lies in, and what the node has."""
    root = tmp_path / "cgroups"
    for name, text in limits.items():
        write(root / name, text + "\n")
    write(tmp_path / "own", listing)
    write(tmp_path / "meminfo", "MemTotal:     64 kB\nMemFree: 1 kB\n")

    files = (tmp_path / "own", tmp_path / "meminfo")
    assert node_limits.read_memory_limit(root, *files) == expected
    nothing = tmp_path / "nothing"
    assert node_limits.read_memory_limit(nothing, nothing, nothing) is None


def test_fewer_cpus_or_less_memory_than_asked_for_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's G is of 1024^3 bytes; a page less is no difference."""
    limit = {"bytes": 64 * GIB - 4096}
    monkeypatch.setattr(environment, "count_cpus", lambda: 8)
    monkeypatch.setattr(environment, "read_memory_limit", lambda: limit["bytes"])
    monkeypatch.setattr(environment, "read_locked_memory_limit", lambda: None)
    found = by_key(environment.check_node_size(make_context(tmp_path)))
    assert (found["cpus"].state, found["memory"].state) == ("ok", "ok")

    limit["bytes"] = 32 * GIB
    monkeypatch.setattr(environment, "count_cpus", lambda: 1)
    monkeypatch.setattr(environment, "read_locked_memory_limit", lambda: 65536)
    found = by_key(environment.check_node_size(make_context(tmp_path)))
    assert "1 CPU, of 8 that the profile asks for" in found["cpus"].text
    assert found["memory"].state == FindingState.WARNING
    assert "34.4 GB of the node's memory, of 68.7 GB" in found["memory"].text
    assert "ulimit -l" in found["locked_memory"].advice


def test_an_encoding_that_is_not_utf_8_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line of setup that mends it."""
    monkeypatch.setattr(environment.locale, "getpreferredencoding", lambda _: "ASCII")
    found = by_key(environment.check_system(make_context(tmp_path)))

    assert found["encoding"].state == FindingState.WARNING
    assert "LC_ALL" in found["encoding"].advice


def test_the_driver_is_told_by_its_version(tmp_path: Path) -> None:
    """As the kernel has it; where it has none nothing is."""
    path = tmp_path / "version"
    path.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC\n"
    )
    assert environment._list_drivers(path) == ["driver 535.104.05"]
    assert environment._list_drivers(tmp_path / "nothing") == []


def test_a_sound_folder_passes_all_that_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single rank sees, replaces, locks and writes."""
    monkeypatch.setattr(shared_folder, "REPLACING_S", 0.1)
    monkeypatch.setattr(shared_folder, "CHUNKS", 1)
    monkeypatch.setattr(shared_folder, "FREE_BYTES", 1)
    context = make_context(tmp_path)
    findings = [
        *shared_folder.check_visibility(context),
        *shared_folder.check_replacing(context),
        *shared_folder.check_locks(context),
        *shared_folder.check_writing(context),
    ]
    assert {finding.state for finding in findings} == {"ok"}


def test_what_is_never_seen_or_late_is_told(tmp_path: Path) -> None:
    """A folder that is another on each node is a problem, an attribute cache a warning."""
    judge = shared_folder._judge_visibility
    assert judge(tmp_path, None, None)[0].state == "problem"
    assert "what replaced a file" in judge(tmp_path, 0.1, None)[0].text
    [late] = judge(tmp_path, 0.1, 29.0)
    assert (late.state, late.figures["replaced_seen_s"]) == ("warning", 29.0)
    assert "actimeo" in late.advice


def test_a_file_that_is_written_in_place_is_found_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where renaming is not atomic; else the check would say nothing."""
    monkeypatch.setattr(shared_folder, "REPLACING_S", 1.0)
    path = tmp_path / "file"
    path.write_bytes(bytes(shared_folder.REPLACED_BYTES))
    is_over = threading.Event()

    def write_in_place() -> None:
        while not is_over.is_set():
            with path.open("r+b", buffering=0) as file:
                for number in (1, 2):
                    file.seek(0)
                    file.write(bytes([number]) * 1000)
                    time.sleep(0.001)

    writer = threading.Thread(target=write_in_place)
    writer.start()
    reads = shared_folder.read_repeatedly(path)
    is_over.set()
    writer.join()

    assert reads.torn > 0
    assert shared_folder.judge_reads(path, reads)[0].state == "problem"
    missing = shared_folder.judge_reads(path, Reads(whole=5, missing=1))
    assert missing[0].state == "warning"


def test_a_lock_that_is_free_here_while_it_is_held_is_a_problem(tmp_path: Path) -> None:
    """Locks of one node only: two processes would do one thing at once."""
    [finding] = shared_folder.judge_lock(tmp_path, is_held=False)
    assert finding.state == "problem" and "localflock" in finding.advice


def test_a_file_system_without_locks_is_told_before_anybody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the system says of it."""
    monkeypatch.setattr(
        shared_folder.locks, "find_missing_locks", lambda folder: "no locks here"
    )
    [finding] = shared_folder.check_locks(make_context(tmp_path))
    assert (finding.state, finding.text) == ("problem", "no locks here")


def test_a_clock_or_a_disk_that_is_short_is_told(tmp_path: Path) -> None:
    """Little room, and files that are dated by another clock."""
    assert shared_folder.judge_clocks(1.0) == []
    [clock] = shared_folder.judge_clocks(-40.0)
    assert "40 s behind" in clock.text
    [room] = shared_folder.judge_room(tmp_path, GB)
    assert (room.state, room.figures) == ("warning", {"free_gb": 1.0})
