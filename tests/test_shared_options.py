"""An option that several commands have reads and says the same in each."""

from collections import defaultdict
from typing import Any

import pytest
import typer

from launcher.cli import app


def options_of(group: Any, above: str = "") -> list[tuple[str, Any]]:
    """(command, option) of a group of commands and of those below it."""
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += options_of(command, f"{above}{name} ")
            continue
        found += [
            (f"{above}{name}", parameter)
            for parameter in command.params
            if parameter.param_type_name == "option"
        ]
    return found


OPTIONS = options_of(typer.main.get_command(app))


def test_a_workspace_that_may_not_be_read_is_told_by_us() -> None:
    """Typer would refuse it by a box of its own, with exit code 2."""
    workspaces = [(name, one) for name, one in OPTIONS if "--workspace" in one.opts]
    assert len(workspaces) >= 15
    assert not [name for name, one in workspaces if one.type.readable]


@pytest.mark.parametrize(
    "spelling", ["--workspace", "--only", "--except", "--json", "--detach"]
)
def test_options_that_are_shared_have_one_text(spelling: str) -> None:
    """Of --workspace two: commands that read a profile say that it overrides that."""
    texts = defaultdict(list)
    for name, option in OPTIONS:
        if spelling in option.opts:
            texts[option.help, option.metavar].append(name)
    assert len(texts) == (2 if spelling == "--workspace" else 1), texts
