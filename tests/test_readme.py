"""Do the documents say what is true? Their commands, files, grids and links are tried."""

import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from launcher.cli import app
from launcher.grids import grid, json_schema
from tests.lib.command_line import Zsg

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    path
    for path in (
        "README.md",
        *(f"{name}/README.md" for name in ("templates", "cluster_profiles")),
    )
]
PAGES_WITH_COMMANDS = (
    "architecture",
    "concepts",
    "extending",
    "glossary",
    "index",
    "scope",
    "slurm",
    "troubleshooting",
    "tutorial",
)
WITH_COMMANDS = [
    *DOCUMENTS,
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{name}.md" for name in PAGES_WITH_COMMANDS),
]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PICTURE_BYTES = 150_000


def commands_of(text: str) -> Iterator[str]:
    """Every command line of a document: of its `sh` blocks, and what begins with a
    program in running text."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.splitlines():
            yield from (
                part.strip()
                for part in line.partition("  #")[0].split("&&")
                if part.strip()
            )
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    yield from re.findall(r"`((?:[\w./]*zsg|make|python -m) [^`]+)`", prose)


def find_command(words: list[str]) -> Any:
    """The command that a line of words calls, be it one of a group, as `arrange show`."""
    command = COMMANDS[words[0]]
    within = getattr(command, "commands", {})
    return within.get(words[1], command) if len(words) > 1 else command


def assert_it_can_be_run(command: str) -> None:
    """The command exists with the options it is shown with; placeholders are taken as they are."""
    program, *words = shlex.split(command.replace("[", "").replace("]", ""))
    match program.rpartition("/")[2]:
        case "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M), (
                command
            )
        case "pip":
            listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
                "optional-dependencies"
            ]
            [extras] = re.findall(r"'zsg\[([\w,]+)\]'", command)
            assert words[0] == "install" and set(extras.split(",")) <= listed.keys(), (
                command
            )
        case "cd":
            assert len(words) == 1
        case "python":
            assert words[0] == "-m" and importlib.util.find_spec(words[1]), command
        case "zsg":
            if words[0].startswith("-"):
                options = {
                    name
                    for parameter in typer.main.get_command(app).params
                    for name in parameter.opts
                }
                assert words[0] in options | {"--help"}, command
                return
            known = {
                name
                for parameter in find_command(words).params
                for name in parameter.opts
            }
            given = {
                option
                for word in words[1:]
                if word.startswith("-")
                for option in word.split("|")
            }
            assert given <= known | {"--help"}, (
                f"{command}: there is no {given - known}"
            )
        case _:
            pytest.fail(f"nothing checks {command!r}")


@pytest.mark.parametrize("document", WITH_COMMANDS)
def test_every_command_of_a_document_exists(document: str) -> None:
    """Whatever a document shows as a command is one, with the options it is shown with."""
    found = list(commands_of((ROOT / document).read_text(encoding="utf-8")))

    assert found, "nothing was recognised as a command"
    for command in found:
        assert_it_can_be_run(command)


WRITTEN = [
    *sorted(
        path
        for path in ROOT.rglob("*.md")
        if not {".venv", "node_modules"} & set(path.parts)
    )
]


def imports_of(text: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every import that a text shows, and of every dotted name of our
    packages in code marks."""
    for module, names in re.findall(
        r"\bfrom ((?:zsg|launcher|jobs|zsg_core)[\w.]*) import ([\w, ]+)", text
    ):
        yield from ((module, name.strip()) for name in names.split(",") if name.strip())
    for dotted in re.findall(r"`((?:launcher|jobs|zsg_core)(?:\.\w+)+)`", text):
        module, _, name = dotted.rpartition(".")
        yield module, name


def texts_for_people() -> Iterator[tuple[str, str]]:
    """Every document, the help of every command, and the descriptions of every key."""
    yield from (
        (str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
        for path in WRITTEN
    )
    for name, command in COMMANDS.items():
        for one in (command, *getattr(command, "commands", {}).values()):
            yield f"zsg {name} --help", one.help or ""
    for kind in (json_schema.make_grid_schema, json_schema.make_profile_schema):
        yield f"zsg schema {kind.__name__}", json.dumps(kind())


@pytest.mark.engine  # looks for packages of the extras
def test_every_import_that_is_shown_exists() -> None:
    """What README, CHANGELOG, help or a key's description shows as a module or an
    import can be imported."""
    found = [
        (where, *shown)
        for where, text in texts_for_people()
        for shown in imports_of(text)
    ]

    assert ("README.md", "zsg", "metrics") in found
    assert ("zsg export --help", "zsg", "metrics") in found
    assert ("CHANGELOG.md", "jobs.contract.item_losses", "read_test_losses") in found
    for where, module, name in found:
        owner = importlib.import_module(module)
        there = (
            hasattr(owner, name)
            or importlib.util.find_spec(f"{module}.{name}") is not None
        )
        assert there, f"{where}: there is no {module}.{name}"


def test_no_key_sends_a_reader_to_the_source() -> None:
    """Whoever installed the wheel has no source to read: a key's description says what it means."""
    for kind in (json_schema.make_grid_schema, json_schema.make_profile_schema):
        assert not re.findall(r"see (?:launcher|jobs|zsg_core)\b", json.dumps(kind()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    """The README's table has one row for each command."""
    assert len(re.findall(rf"^\| `zsg {name}\b", README, re.M)) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    """`zsg NAME --help` ends with examples, and these can be run."""
    _, marked, examples = (COMMANDS[name].help or "").partition("\b\nExample")
    heading, *shown = [line.strip() for line in examples.strip().splitlines()]

    assert marked and shown
    assert heading == ("s:" if len(shown) > 1 else ":")
    for example in shown:
        assert example.split()[:2] == ["zsg", name]
        assert_it_can_be_run(example)


def test_help_is_printed(zsg: Zsg) -> None:
    """`zsg --help` lists every command with the whole first sentence of its help."""
    printed = zsg("--help").splitlines()

    for name, command in COMMANDS.items():
        first = re.split(r"[.:] ", " ".join((command.help or "").split()))[0]
        [line] = [line for line in printed if line.startswith(f"  {name} ")]
        assert first in line and "..." not in line


def test_the_grid_of_the_readme_plans(zsg: Zsg, tasks: Path) -> None:
    """The README's grid plans once its data are there: 5 order × seed points and 2
    zipped ones, times the seeds."""
    [text] = re.findall(r"```yaml\n(.*?)```", README, re.S)
    as_written = grid.load_grid(zsg.write("grid.yaml", text))
    text = re.sub(r"path: natural-instructions", f"path: {tasks}", text)
    text = re.sub(
        r"model: {name: llama-2-7b, path: [^}]*}", "model: {name: tiny}", text
    )
    planned = zsg("plan", zsg.write("tiny.yaml", text))

    assert len(as_written.points) == 8 + 2
    assert "10 to submit" in planned


def test_the_readme_shows_a_picture_of_the_result() -> None:
    """The picture is a small PNG, and says in words what it shows."""
    [(words, path)] = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", README)

    assert len(words.split()) >= 5
    picture = (ROOT / path).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) <= PICTURE_BYTES
