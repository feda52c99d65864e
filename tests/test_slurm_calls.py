"""Does a call of a program of Slurm end in time, and is what it prints read whatever it is?"""

import os
import time
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from jobs.contract.folder import Workspace
from jobs.runtime import canary, ranks
from jobs.runtime.slurm_calls import (
    NoAnswer,
    call_program,
    read_fields,
    run_program,
)
from launcher.clusters import cluster, slurm
from launcher.status.status import collect_states
from launcher.workspace.ledger import Ledger
from tests.lib.command_line import wait_until
from tests.lib.recorded_run import ITEM, submitted
from zsg_core.errors import ClusterError


def program(folder: Path, name: str, text: str) -> Path:
    """A shell script that stands for a program of Slurm."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for programs first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def _has_ended(process: str) -> bool:
    """Whether a process has left; one that nobody has waited for counts as gone."""
    try:
        return "Z (zombie)" in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True


def test_a_program_that_does_not_end_is_ended_with_all_that_it_started(
    tmp_path: Path,
) -> None:
    """A site's wrapper waits for Slurm's own program: both go at the time limit."""
    child = tmp_path / "child"
    hanging = program(tmp_path, "squeue", f"sleep 300 & echo $! > '{child}'; wait")
    began = time.monotonic()
    with pytest.raises(TimeoutExpired):
        run_program([str(hanging)], env=os.environ, timeout=0.5)

    assert time.monotonic() - began < 100, "it sleeps for 300 s"
    # Killed is not yet gone: a machine with much to do takes its time.
    wait_until(lambda: _has_ended(child.read_text().strip()), 60)
    with pytest.raises(NoAnswer, match=r"squeue did not answer within 0\.2 s"):
        call_program([str(hanging)], 0.2, os.environ)
    with pytest.raises(ClusterError, match="nowhere cannot be started here"):
        call_program(["nowhere"], 1, os.environ)


def test_whatever_is_printed_is_text(tmp_path: Path) -> None:
    """Bytes of another encoding, colours before the answer, the line ends of another
    system; nothing waits for a word of the user's."""
    odd = program(
        tmp_path,
        "squeue",
        "read word || printf 'caf\\351\\n' >&2; printf '\\033[0m\\357\\273\\2777|RUNNING\\r\\n'",
    )
    answer = run_program([str(odd)], env=os.environ, timeout=10)

    assert (answer.returncode, answer.stdout) == (0, "7|RUNNING\n")
    assert answer.stderr == "caf\N{REPLACEMENT CHARACTER}\n"


def test_fields_are_those_of_the_answer() -> None:
    """A notice before it has none, and a comment's words count for nothing."""
    text = "Maintenance: Requeue=0\n\nJobId=7 JobName=a Requeue=1 Comment=see Requeue=0 x\n"

    assert read_fields(text, "JobId")["Requeue"] == "1"
    assert read_fields("Maintenance: JobId=7 Requeue=0", "JobId") == {}
    nodes = "*** a | b | c | d | e ***\nn1|gpu:a800:8|512000+|64|ib\n"
    assert [node["name"] for node in cluster.parse_nodes(nodes)] == ["n1"]


def squeue_line(workspace: Workspace, state: str) -> str:
    """What squeue prints of the one run's job."""
    [job] = Ledger(workspace).jobs_of(ITEM)
    return f"7|{state}|None|N/A|0:10|n1|{os.getuid()}|{job.name}"


def test_a_notice_is_no_answer_and_no_error(tmp_path: Path, path: Path) -> None:
    """Of a site's squeue: a line, an empty one and bytes that are no UTF-8, on both ways."""
    workspace = Workspace(tmp_path)
    submitted(workspace)
    program(
        path,
        "squeue",
        "echo '*** Maintenance | Monday ***'; echo; printf 'caf\\351 7|RUNNING\\n' | tee /dev/stderr\n"
        f"echo '{squeue_line(workspace, 'PENDING')}'",
    )

    assert collect_states(workspace, [ITEM], Ledger(workspace))[ITEM].state == "queued"


def test_accounting_that_does_not_answer_is_told(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """A job that has left the queue is unknown, and why; what only looks further goes on."""
    workspace = Workspace(tmp_path)
    submitted(workspace)
    program(path, "squeue", "exit 0")
    program(path, "sacct", "sleep 300")
    monkeypatch.setattr(slurm, "ACCOUNTING_S", 0.3)
    found = collect_states(workspace, [ITEM], Ledger(workspace))[ITEM]

    assert (found.state, found.cause) == (
        "unknown",
        "not known to squeue, and accounting did not answer (sacct did not answer within 0.3 s)",
    )
    monkeypatch.setattr(slurm, "SEARCH_S", 0.3)
    assert slurm.find_job_ids("zsg-g-train-1") == []
    assert "what accounting knows was not looked at" in logged[-1]


def test_a_node_asks_slurm_no_longer_than_it_can_wait(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 is found by its node's name, and the run that goes first is not called gone."""
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    monkeypatch.setattr(ranks.slurm_calls, "ASK_S", 0.3)
    monkeypatch.setattr(canary, "SILENT_S", -1.0)
    for name in ("scontrol", "squeue"):
        program(path, name, "sleep 300")
    assert ranks.find_node_address() == "n7"
    assert canary._is_gone(tmp_path, ["7_0"], time.time()) is False

    program(path, "scontrol", "echo Notice=1; echo NodeName=n7 NodeAddr=10.0.0.7 OS=x")
    program(path, "squeue", "echo '*** Maintenance ***'; echo 7_[1-3]")
    assert ranks.find_node_address() == "10.0.0.7"
    assert canary._is_gone(tmp_path, ["7_0"], time.time()) is False
    program(path, "squeue", "echo '*** Maintenance ***'; echo 71")
    assert canary._is_gone(tmp_path, ["7_0"], time.time()) is True
