"""Do -q and -v say less and more, before and behind a command's name, with results as
they are?"""

import logging
import re

import pytest

from launcher.views import console_log
from launcher.views.console_log import Verbosity
from tests.lib.command_line import Zsg

logger = logging.getLogger("launcher.any")


def say_all() -> None:
    """A message of each level."""
    logger.debug("squeue: exit 0 in 0.12 s")
    logger.info("fetched a.jsonl (1 of 2)")
    logger.warning("note: it may have moved")


@pytest.mark.parametrize(
    ("verbosity", "lines"),
    [
        (Verbosity.QUIET, ["note: it may have moved"]),
        (Verbosity.NORMAL, ["fetched a.jsonl (1 of 2)", "note: it may have moved"]),
        (
            Verbosity.VERBOSE,
            [
                "TIME DEBUG squeue: exit 0 in 0.12 s",
                "TIME INFO fetched a.jsonl (1 of 2)",
                "TIME WARNING note: it may have moved",
            ],
        ),
    ],
    ids=["quiet", "normal", "verbose"],
)
def test_how_much_is_shown(
    capsys: pytest.CaptureFixture[str], verbosity: Verbosity, lines: list[str]
) -> None:
    """As a rule messages stand there as they are, without time and level; on stderr."""
    console_log.configure_console(Verbosity.NORMAL)  # what was before is replaced
    console_log.configure_console(verbosity)
    say_all()

    printed = capsys.readouterr()
    assert printed.out == ""
    shown = [
        re.sub(r"^\d\d:\d\d:\d\d ", "TIME ", line) for line in printed.err.splitlines()
    ]
    assert shown == lines


def test_a_key_is_hidden_and_a_line_end_begins_no_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote the text."""
    monkeypatch.setenv("LAB_API_KEY", "tok-0123456789abcdef")
    console_log.configure_console(Verbosity.NORMAL)
    logger.info("tok-0123456789abcdef\nerror: forged")

    assert capsys.readouterr().err == "…\n  error: forged\n"


def test_options_stand_before_and_behind_the_command(zsg: Zsg) -> None:
    """The results on stdout are the same."""
    zsg("init")
    grid = "grid.yaml"
    usual = zsg("plan", grid)

    assert "profile local:" in zsg.said
    for words in (["-q", "plan", grid], ["plan", grid, "--quiet"]):
        assert (zsg(*words), zsg.said) == (usual, "")
    for words in (["--verbose", "plan", grid], ["plan", grid, "-v"]):
        assert zsg(*words) == usual
        assert re.search(r"^\d\d:\d\d:\d\d DEBUG workspace ", zsg.said, re.M)
        assert re.search(r"^\d\d:\d\d:\d\d INFO profile local:", zsg.said, re.M)


def test_errors_are_shown_by_quiet_commands(zsg: Zsg) -> None:
    """A quiet command still says why it fails."""
    zsg("-q", "plan", "nowhere.yaml", code=2)
    assert zsg.said.startswith("error: ")


@pytest.mark.parametrize(
    "words",
    [("-q", "-v", "status"), ("status", "-qv"), ("-q", "status", "-v")],
    ids=" ".join,
)
def test_more_and_less_at_once_are_refused(zsg: Zsg, words: tuple[str, ...]) -> None:
    """Wherever the two stand."""
    zsg(*words, code=2)
    assert "--verbose and --quiet" in zsg.said
