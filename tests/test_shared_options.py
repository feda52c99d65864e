"""An option that several commands have reads and says the same in each."""

from collections import defaultdict
from typing import get_args, get_type_hints

import pytest
import typer
from typer.models import OptionInfo

from launcher.cli import app


def options_of(group: typer.Typer) -> list[tuple[str, OptionInfo]]:
    """(command, option) of a group of commands and of those below it."""
    found = []
    for command in group.registered_commands:
        hints = get_type_hints(command.callback, include_extras=True)
        infos = [info for hint in hints.values() for info in get_args(hint)]
        options = [info for info in infos if isinstance(info, OptionInfo)]
        found += [(command.callback.__name__, option) for option in options]
    for below in group.registered_groups:
        found += options_of(below.typer_instance)
    return found


def spellings(option: OptionInfo) -> tuple[str, ...]:
    """How an option is written; inside of Annotated, typer takes the first for its default."""
    return option.default, *(option.param_decls or ())


OPTIONS = options_of(app)


def test_a_workspace_that_may_not_be_read_is_told_by_us() -> None:
    """Typer would refuse it by a box of its own, with exit code 2."""
    readable = {
        command: option.readable
        for command, option in OPTIONS
        if "--workspace" in spellings(option)
    }
    assert len(readable) >= 15
    assert not any(readable.values()), readable


@pytest.mark.parametrize(
    "spelling", ["--workspace", "--only", "--except", "--json", "--detach"]
)
def test_options_that_are_shared_have_one_text(spelling: str) -> None:
    """Of --workspace two: commands that read a profile say that it overrides that."""
    texts = defaultdict(list)
    for command, option in OPTIONS:
        if spelling in spellings(option):
            texts[option.help, option.metavar].append(command)
    assert len(texts) == (2 if spelling == "--workspace" else 1), texts


@pytest.mark.parametrize("group", [[], ["arrange"], ["answers"]])
def test_a_group_without_a_command_shows_its_help(group: list[str], capsys) -> None:
    """As lines on stdout, with exit code 2: nothing was done."""
    with pytest.raises(SystemExit) as ended:
        app(group, standalone_mode=True)

    out = capsys.readouterr().out
    assert ended.value.code == 2 and "\nCommands:\n" in out and "\\n" not in out
