"""Does a setup line that fails stop the job, and does what setup lines do still reach it?"""

import os
import subprocess
from pathlib import Path

import pytest

from jobs.contract.causes import Cause, Known
from jobs.runtime import setup
from launcher.clusters import setup_script
from launcher.status import logs

JOB = 'echo "JOB began in $PWD with A=${A:-} failed=${ZSG_SETUP_FAILED:-}"'


def script(folder: Path, given: list[str]) -> tuple[str, Path]:
    """What a job's script prints with these setup lines, and its log."""
    place, log = folder / "slurm_script", folder / "log"
    place.write_text(
        "\n".join(["#!/bin/bash", *setup_script.make_setup_lines(given), JOB])
    )
    with log.open("wb") as file:
        env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "T": str(folder)}
        subprocess.run(["bash", place], stdout=file, stderr=file, env=env, cwd="/")
    return log.read_text(), log


@pytest.mark.parametrize(
    ("given", "line"),
    [
        pytest.param(
            ["export A=1", "exit 3"], "2 of 2 ended with exit 3: exit 3", id="exit"
        ),
        pytest.param(
            ["exit 0", "export A=1"], "1 of 2 ended with exit 0: exit 0", id="exit 0"
        ),
        pytest.param(["return"], "1 of 1 ended with 2: return", id="return"),
        pytest.param(
            ["false", "true"],
            "1 of 2 ended with 1: false",
            id="a failing line before others",
        ),
        pytest.param(["(exit 5)"], "1 of 1 ended with 5: (exit 5)", id="a subshell"),
        pytest.param(
            ["no-such-command x"],
            "1 of 1 ended with 127: no-such-command x",
            id="not found",
        ),
        pytest.param(
            ["source /no/such/activate"],
            "1 of 1 ended with 1: source /no/such/activate",
            id="source",
        ),
        pytest.param(
            ["true && false"],
            "1 of 1 ended with 1: true && false",
            id="the second of a && b",
        ),
        pytest.param(
            ["false && true"],
            "1 of 1 ended with 1: false && true",
            id="the first of a && b",
        ),
        pytest.param(
            ["false; true"], "1 of 1 ended with 1: false; true", id="the first of a; b"
        ),
        pytest.param(
            ["false | cat"],
            "1 of 1 ended with 1: false | cat",
            id="the first of a pipe",
        ),
        pytest.param(
            ["set -e", "false", "true"], "2 of 3 ended with 1: false", id="with set -e"
        ),
        pytest.param(
            ["set +e", "false"], "2 of 2 ended with 1: false", id="with set +e"
        ),
        pytest.param(
            ["set -u", "echo $NOPE"],
            "2 of 2 ended with exit 1: echo $NOPE",
            id="an unset variable",
        ),
        pytest.param(
            ["true\nfalse\ntrue"],
            "2 of 3 ended with 1: false",
            id="a line of a text of several",
        ),
        pytest.param(
            ["if true; then", "false", "export A=1", "fi"],
            "1 of 1 ended with 1: if true; then …",
            id="if",
        ),
        pytest.param(
            ["f() { return 4; }", "f"], "2 of 2 ended with 4: f", id="a function"
        ),
        pytest.param(
            ["A=$(false)"],
            "1 of 1 ended with 1: A=$(false)",
            id="a value that cannot be found out",
        ),
        pytest.param(
            ["exec > /dev/null 2>&1", "false"],
            "2 of 2 ended with 1: false",
            id="output closed",
        ),
        pytest.param(
            ["echo )"], "1 of 1 ended with 2: echo )", id="what the shell cannot read"
        ),
        pytest.param(
            ["""echo 'it"s' "it's"; false"""],
            """1 of 1 ended with 1: echo 'it"s' "it's"; false""",
            id="q",
        ),
    ],
)
def test_a_line_that_fails_is_told_to_the_job(
    tmp_path: Path, given: list[str], line: str
) -> None:
    """The lines after it are not run, and the job begins with its number, how it ended,
    and its words."""
    text, _ = script(tmp_path, given)

    assert text.splitlines()[-1].endswith(f" failed={line}")
    assert "zsg setup done" not in text


@pytest.mark.parametrize(
    ("given", "a"),
    [
        pytest.param(["export A='x  y'"], "x  y", id="a variable"),
        pytest.param(
            ["false || true", "export A=1"], "1", id="a failure that is allowed"
        ),
        pytest.param(["if ! false; then export A=2; fi"], "2", id="a condition"),
        pytest.param(
            ["if true; then", "export A=3", "fi"], "3", id="a command of several lines"
        ),
        pytest.param(["export A=4 \\", "  B=5"], "4", id="a line that goes on"),
        pytest.param(
            ["read -r A <<X", "it's", "X", "export A"], "it's", id="a here-document"
        ),
        pytest.param(
            ["yes | head -1", "export A=6"], "6", id="a pipe whose reader has enough"
        ),
        pytest.param(
            ["f() { false; true; }", "f", "export A=7"],
            "7",
            id="what a function passes over itself",
        ),
        pytest.param(
            ["echo 'false; A=8; true' > $T/s", "source $T/s"],
            "8",
            id="what a sourced file passes over",
        ),
        pytest.param(["set -euo pipefail", "export A=9"], "9", id="a strict shell"),
        pytest.param(
            ["trap 'echo bye' EXIT", "export A=10"], "10", id="a trap of its own"
        ),
        pytest.param(["# a comment", "", "export A=11"], "11", id="nothing to do"),
        pytest.param(
            ["shopt -s extglob", "[[ abc == +([a-z]) ]]", "export A=12"],
            "12",
            id="other patterns",
        ),
    ],
)
def test_what_setup_lines_do_reaches_the_job(
    tmp_path: Path, given: list[str], a: str
) -> None:
    """Variables, the folder and functions are those of the shell that starts the job;
    nothing of ours is left in it."""
    own = [*given, "cd /tmp"]
    text, log = script(tmp_path, own)

    assert setup_script.find_bad_line(own) is None
    assert f"JOB began in /tmp with A={a} failed=\n" in f"{text}\n"
    assert logs.setup_trouble(log) is None
    (tmp_path / "slurm_script").write_text(
        "\n".join(["#!/bin/bash", *setup_script.make_setup_lines(own), "set; trap"])
    )
    left = subprocess.run(
        ["bash", tmp_path / "slurm_script"],
        capture_output=True,
        text=True,
        env={"SLURM_JOB_ID": "7"},
    )
    assert "zsg_" not in left.stdout.replace("BASH_SOURCE", "")


def test_what_a_line_printed_is_its_proof(tmp_path: Path) -> None:
    """The record's cause is `setup`; its evidence the line and what that line has
    printed, and no other line."""
    _, log = script(tmp_path, ["echo before", "echo looking; module load cuda/12.1"])
    environ = {
        setup.FAILED: "2 of 2 ended with 127: module load cuda/12.1",
        setup.LOG: str(log),
    }
    with pytest.raises(Known) as told:
        setup.check_setup(environ)

    assert told.value.cause == Cause.SETUP
    expected = (
        "setup line 2 of 2 ended with 127: module load cuda/12.1 (it printed: looking; module:"
        " command not found)"
    )
    assert str(told.value) == expected
    assert setup.check_setup({}) is None


@pytest.mark.parametrize("given", [["exec true"], ["trap 'echo bye' EXIT", "exit 0"]])
def test_a_script_that_its_setup_ends_is_found_by_its_log(
    tmp_path: Path, given: list[str]
) -> None:
    """Where the job never begins, not even to tell so, its log names the line that began last."""
    text, log = script(tmp_path, given)

    assert "JOB began" not in text
    told = logs.setup_trouble(log)
    assert told is not None
    assert told[1] is False
    assert (
        f"setup line {len(given)} of {len(given)} is the last that began: {given[-1]}"
        in told[0]
    )


@pytest.mark.parametrize(
    ("given", "place", "why"),
    [
        (
            ["export A='b", "module load cuda", "echo it's"],
            0,
            "the quote ' of \"export A='b\" is not closed",
        ),
        (["true", 'export A="b'], 1, "the quote \" of 'export A=\"b' is not closed"),
        (
            ["true", "if true; then", "false"],
            1,
            "begins a command that no later line ends",
        ),
        (["true", "fi"], 1, "syntax error"),
        (["#SBATCH --mem=4G"], 0, "use slurm.sbatch"),
    ],
)
def test_lines_that_the_shell_cannot_read_are_refused(
    given: list[str], place: int, why: str
) -> None:
    """An open quote, which would swallow the lines after it, a command without its end,
    and an option of sbatch."""
    told = setup_script.find_bad_line(given)

    assert told is not None
    assert told[0] == place
    assert why in told[1]


def test_a_quote_may_go_on_within_one_text() -> None:
    """A text of several lines is one item: what it opens and closes is its own."""
    assert setup_script.find_bad_line(["export A='b\nc'\nexport D=e"]) is None
    assert setup_script.group_commands(["export A='b\nc'\nexport D=e"]) == [
        "export A='b\nc'",
        "export D=e",
    ]
