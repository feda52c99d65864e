"""Does a job whose node has other versions than the submit say so, where people look?"""

import subprocess
from pathlib import Path

import pytest

from jobs.contract import heartbeat
from jobs.contract.attempt import Attempt
from jobs.contract.heartbeat import Heartbeat, Pulse
from jobs.runtime import installed_versions as versions
from launcher.status import version_notes
from launcher.views import show
from launcher.workspace import code_snapshot
from tests.lib.status_rows import row

PYTHON_HERE = versions.read_versions()["python"]
DIFFERENCE = (
    "this node has other versions than the submit: numpy 1.26.0 (submitted with 2.4.6)"
)


def difference(submitted: str, installed: str) -> str | None:
    """What is said of a node, by two values of the variable."""
    return versions.describe_difference(
        versions.parse_versions(submitted), versions.parse_versions(installed)
    )


def test_other_versions_are_named_with_those_of_the_submit() -> None:
    """All that differ, of Python also where only its patch does, and none that agrees."""
    assert difference(
        "python=3.11.7 torch=2.13.0 numpy=2.4.6",
        "python=3.11.2 torch=2.13.0 numpy=1.26.0",
    ) == (
        "this node has other versions than the submit: python 3.11.2 (submitted with"
        " 3.11.7), numpy 1.26.0 (submitted with 2.4.6)"
    )


@pytest.mark.parametrize(
    ("submitted", "installed"),
    [
        ("python=3.11.7", "python=3.11.7 torch=2.13.0"),
        ("python=3.11.7 torch=2.13.0", "python=3.11.7"),
        ("torch=2.13.0", "torch=2.13.0+cu126"),
        ("torch=2.13.0+cpu", "torch=2.13.0+cu126"),
        ("", "torch=2.13.0"),
        ("torch", "torch=2.13.0"),
        ("torch=\x1b[31m PATH=x torch==", "torch=2.13.0"),
    ],
)
def test_what_a_side_lacks_is_no_difference(submitted: str, installed: str) -> None:
    """A login node without torch, or with the one for CPUs; a variable that is damaged."""
    assert difference(submitted, installed) is None


def test_another_build_for_gpus_is_a_difference() -> None:
    """Both sides name one, and they are not the same."""
    said = difference("torch=2.13.0+cu118", "torch=2.13.0+cu126")

    assert said and "torch 2.13.0+cu126 (submitted with 2.13.0+cu118)" in said


def test_a_job_by_hand_compares_nothing() -> None:
    """Nobody has told it what a submit had."""
    assert versions.find_difference({}) is None
    told = {versions.VARIABLE: "python=3.0.0"}
    assert f"python {PYTHON_HERE} (submitted with 3.0.0)" in str(
        versions.find_difference(told)
    )


def test_a_damaged_installation_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose record has no version, or none that could stand in a script."""
    for name, text in (("torch", ""), ("peft", "Version: $(touch x)\n")):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    versions.read_versions.cache_clear()
    try:
        found = versions.read_versions()
    finally:
        versions.read_versions.cache_clear()

    assert not {"torch", "peft"} & set(found)
    assert {"python", "zsg", "numpy", "msgspec"} <= set(found)


def test_jobs_know_the_versions_of_their_submit() -> None:
    """By their script on Slurm, by their variables on this machine: nothing of it enters
    job.json."""
    code = {"folder": "/a user's/code/x"}
    lines = code_snapshot.version_lines()
    script = "\n".join([*lines, f'echo "${versions.VARIABLE}"'])
    exported = subprocess.run(
        ["/bin/bash", "-c", script], capture_output=True, text=True
    ).stdout

    expected = dict(versions.read_versions())
    assert versions.parse_versions(exported) == expected
    local = code_snapshot.make_environment(code)[versions.VARIABLE]
    assert versions.parse_versions(local) == expected


def test_a_heartbeat_tells_of_other_versions(tmp_path: Path) -> None:
    """While a job runs; a beat without them is as it was."""
    attempt = Attempt(1, "s", None, 0, "n", "h", 0)
    for said in (None, DIFFERENCE):
        pulse = Pulse()
        pulse.other_versions = said
        Heartbeat(tmp_path, attempt, pulse)._beat()
        read = heartbeat.read_heartbeat(tmp_path, "n")

        assert read and read[0].other_versions == said
        text = heartbeat.locate_heartbeat(tmp_path).read_text()
        assert ("other_versions" in text) == (said is not None)


def test_status_names_the_runs_once_for_each_difference(logged: list[str]) -> None:
    """However many there are: the first four by name, and how many more."""
    rows = [row(f"r{n}", "running", other_versions=DIFFERENCE) for n in range(7)]
    rows.append(row("fine", "running", other_versions=None))

    show.version_notes(version_notes.of_rows(rows))

    assert logged == [f"note on versions: r0, r1, r2, r3 and 3 more: {DIFFERENCE}"]


def test_very_many_differences_are_cut_short() -> None:
    """Five are shown, and how many more there are."""
    rows = [row(f"r{n}", "done", other_versions=f"{n}") for n in range(9)]

    assert version_notes.of_rows(rows)[4:] == [
        "r4: 4",
        "and 4 more; zsg why RUN shows each",
    ]
