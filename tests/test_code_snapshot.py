"""Does a job run the code that was submitted, also if the checkout has changed since,
and refuse any other?"""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace, is_committed, is_whole, sync_to_disk
from jobs.contract.job_file import SubmittedCode
from jobs.runtime import code_guard
from launcher.workspace import code_snapshot
from tests.lib.command_line import Zsg
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import profile, wait_until_ended
from tests.lib.small_runs import small_grid
from zsg_core.errors import ClusterError, UserError

ROOT = Path(__file__).resolve().parent.parent


def test_the_digest_is_over_names_and_bytes():
    """Another byte, another name, or a byte that has moved to the next file, is another digest."""
    texts = [
        {"a.py": b"x", "b.py": b""},
        {"a.py": b"y", "b.py": b""},
        {"c.py": b"x", "b.py": b""},
        {"a.py": b"", "b.py": b"x"},
    ]

    assert len({code_snapshot.compute_digest(files) for files in texts}) == 4
    assert code_snapshot.compute_digest(
        dict(reversed(texts[0].items()))
    ) == code_snapshot.compute_digest(texts[0])


def test_what_is_compiled_or_hidden_is_not_code(tmp_path):
    """Only what Python reads as source, and data beside it; else every start would make
    another digest."""
    for name in (
        "p/a.py",
        "p/q/b.json",
        "p/__pycache__/a.cpython-311.pyc",
        "p/.a.py.swp",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")

    assert list(code_snapshot.read_packages([tmp_path / "p"])) == [
        "p/a.py",
        "p/q/b.json",
    ]


def test_a_snapshot_is_taken_once(tmp_path):
    """Jobs of the same files share a whole folder, in which everything that a node imports lies."""
    one, two = (code_snapshot.take_snapshot(Workspace(tmp_path)) for _ in range(2))

    assert one == two
    folder = Path(one["folder"])
    assert (is_committed(folder), folder.name, folder.parent) == (
        True,
        one["digest"],
        tmp_path / "code",
    )
    assert [path.name for path in (tmp_path / "code").iterdir()] == [one["digest"]]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import jobs.entry, jobs.preparing.prepare; print(jobs.__file__)",
        ],
        env=os.environ | code_snapshot.make_environment(one) | {"PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(folder / "jobs/__init__.py"), done.stderr


def test_a_folder_that_pythonpath_cannot_name_is_refused(tmp_path):
    """A colon would cut the folder in two, and other code would run."""
    with pytest.raises(UserError, match="':' parts the folders of PYTHONPATH"):
        code_snapshot.take_snapshot(Workspace(tmp_path / "a:b"))


def test_a_jobs_own_path_comes_behind(tmp_path):
    """What a profile's lines put on the path stays there, after the code; quotes and
    blanks reach no shell.

    An empty part of the path, which Python takes for the current folder, goes.
    """
    lines = code_snapshot.script_lines({"folder": "/a user's folder/code/x"})
    script = "\n".join([*lines, 'echo "$PYTHONPATH|$ZSG_CODE"'])
    run = lambda env: (  # noqa: E731
        subprocess.run(
            ["/bin/bash", "-c", script], env=env, capture_output=True, text=True
        ).stdout
    )

    assert run({}) == "/a user's folder/code/x|/a user's folder/code/x\n"
    assert (
        run({"PYTHONPATH": "/site"})
        == "/a user's folder/code/x:/site|/a user's folder/code/x\n"
    )
    assert (
        run({"PYTHONPATH": ":/site::/more:"})
        == "/a user's folder/code/x:/site:/more|/a user's folder/code/x\n"
    )


@pytest.mark.parametrize(
    ("code", "python", "message"),
    [
        pytest.param(str(ROOT), None, None, id="the submitted code"),
        pytest.param(None, None, None, id="by hand"),
        pytest.param(
            "/elsewhere",
            None,
            "submitted is /elsewhere, but jobs is imported from",
            id="other",
        ),
        pytest.param(
            str(ROOT),
            "2.7.18",
            "submitted under Python 2.7.18, started under",
            id="another Python",
        ),
    ],
)
def test_other_code_is_refused(monkeypatch, code, python, message):
    """What a submit has started runs its own code under its own Python, or not at all."""
    monkeypatch.delenv(code_guard.VARIABLE, raising=False)
    if code:
        monkeypatch.setenv(code_guard.VARIABLE, code)
    code = SubmittedCode(python=python) if python else SubmittedCode()
    if message is None:
        code_guard.check_submitted_code(code)
    else:
        with pytest.raises(ClusterError, match=message):
            code_guard.check_submitted_code(code)


def test_a_job_that_finds_other_code_says_so(prepared: Zsg, tasks: Path) -> None:
    """A job started with another package first on its path fails with a record of why,
    before it does anything."""
    zsg = prepared
    zsg("submit", small_grid(zsg, tasks, "[random]"), "--set", "train.steps=1")
    [folder] = (zsg.work / "runs").iterdir()
    code = json.loads((folder / "job.json").read_text())["code"]["folder"]
    env = zsg.env | {"PYTHONPATH": str(ROOT), "ZSG_CODE": code, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.entry", folder],
        env=env,
        capture_output=True,
        text=True,
    )

    record = json.loads((folder / "exit.json").read_text())
    assert (done.returncode, record["outcome"], record["cause"]) == (
        1,
        "failed",
        "cluster",
    )
    assert f"but jobs is imported from {ROOT}" in record["evidence"]


def copy_of_the_code(folder: Path) -> Path:
    """The packages and what lies beside them, in a folder of their own, as a checkout
    that may be changed."""
    for name in ("jobs", "zsg_core", "launcher", "templates", "cluster_profiles"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder


def other_pyarrow(folder: Path) -> Path:
    """A folder by which Python takes pyarrow for another version; its code is as it was."""
    record = folder / "site/pyarrow-99.1.dist-info/METADATA"
    record.parent.mkdir(parents=True)
    record.write_text("Metadata-Version: 2.1\nName: pyarrow\nVersion: 99.1\n")
    return record.parent.parent


@pytest.mark.slurm
def test_a_queued_job_runs_what_was_submitted(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, tmp_path: Path
) -> None:
    """The checkout is broken while the jobs wait in the queue: they run the code as it
    was, from its snapshot, and tell of a package that their node has in another version."""
    zsg = prepared_on_slurm
    checkout = copy_of_the_code(zsg.folder / "checkout")
    zsg.env |= {"PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}
    # jobs wait instead of running
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    chosen = profile(zsg)
    with chosen.open("a") as file:
        file.write(f"setup: ['export PYTHONPATH={other_pyarrow(tmp_path)}']\n")
    zsg("submit", small_grid(zsg, tasks, steps=1), "--profile", chosen)
    for path in (checkout / "jobs").rglob("*.py"):
        path.write_text("raise SystemExit('the checkout has changed')\n")
    slurm.run("scontrol", "update", "partitionname=main", "state=up")
    zsg.env["PYTHONPATH"] = str(ROOT)
    [row] = wait_until_ended(zsg, 120)

    assert (row["state"], row["attempt"]) == ("done", 1)
    code = json.loads((zsg.work / "runs" / row["run"] / "job.json").read_text())["code"]
    assert Path(code["folder"]) == zsg.work / "code" / code["digest"]
    difference = (
        "this node has other versions than the submit: pyarrow 99.1 (submitted with"
    )
    assert row["other_versions"].startswith(difference)
    for command in ("status", "why", "logs"):
        printed = zsg(command, *([] if command == "status" else [row["run"]]))
        assert difference in " ".join(f"{printed} {zsg.said}".split())


def test_the_files_of_a_snapshot_wait_for_the_disk_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of files, one after the other, would take a second on any disk."""
    threads: set[int] = set()

    def note(path: Path) -> None:
        threads.add(threading.get_ident())
        threading.Event().wait(0.001)
        sync_to_disk(path)

    monkeypatch.setattr(code_snapshot, "sync_to_disk", note)
    code = code_snapshot.take_snapshot(Workspace(tmp_path))

    assert is_whole(Path(code["folder"]))
    assert len(threads) > 1
    assert threading.get_ident() not in threads
