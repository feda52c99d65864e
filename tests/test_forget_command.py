"""Does `zsg forget` ask, tell what goes and what stays, and mark MLflow's runs?"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import typer

from jobs.contract import removal
from jobs.files import ownership
from launcher.commands import lifecycle
from launcher.lifecycle import forget as forgets
from launcher.mlflow import mlflow_commands
from launcher.views import asking
from tests.lib.shared_grids import Shared, make_folder
from zsg_core.errors import ClusterError, UserError

Ask = Callable[[bool], list[str]]


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    """A workspace of two grids."""
    place = Shared(tmp_path)
    make_folder(place.workspace.records("0" * 12), "data.arrow")
    return place


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Somebody at a terminal who answers; what they are asked."""

    def make_terminal(says: bool) -> list[str]:
        questions: list[str] = []

        def confirm(question: str, **how: object) -> bool:
            questions.append(f"{question} {how['default']}")
            return says

        monkeypatch.setattr(asking, "can_ask", lambda yes: not yes)
        monkeypatch.setattr(typer, "confirm", confirm)
        return questions

    return make_terminal


def forget(
    shared: Shared, *names: str, mlflow: bool = False, yes: bool = False
) -> None:
    """The command."""
    root = shared.workspace.root
    lifecycle.forget(list(names), workspace=root, mlflow=mlflow, yes=yes)


def test_it_asks_with_the_bytes_and_enter_alone_is_a_no(
    shared: Shared, answer: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be undone needs a yes."""
    questions = answer(False)
    before = shared.list_folders()
    forget(shared, "one")
    shown = capsys.readouterr().out

    assert questions == ["Remove it? False"] and shared.list_folders() == before
    assert f"1 run ({shared.ids['own']})" in shown and " MB" in shown
    assert "stays:" in shown and "grid two has it, too" in shown
    assert shown.splitlines()[-1] == "nothing was removed"


def test_a_yes_removes_it(
    shared: Shared, answer: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the terminal."""
    answer(True)
    forget(shared, "one")

    assert not shared.run("own").exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith("removed, ")


def test_at_no_terminal_yes_has_to_be_said(
    shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that does not say it removes nothing, and is told how."""
    before = shared.list_folders()
    forget(shared, "one")
    assert shared.list_folders() == before
    assert "nothing was removed: --yes removes it" in capsys.readouterr().out
    forget(shared, "one", yes=True)
    assert not shared.run("own").exists()


def test_without_a_name_there_is_nothing_to_forget(shared: Shared) -> None:
    """Nor is one guessed."""
    with pytest.raises(UserError, match="name a grid or a run"):
        forget(shared, yes=True)
    with pytest.raises(UserError, match="no run 'typo'"):
        forget(shared, "typo", yes=True)


def test_what_could_not_be_removed_is_an_error_and_not_called_free(
    shared: Shared,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The next forget carries on with it."""
    stuck = shared.run("own")
    discard = removal.discard_folder

    def refuse(root: Path, folder: Path, names: Sequence[str] | None) -> str:
        if folder == stuck:
            return f"{folder} cannot be removed"
        return discard(root, folder, names)

    monkeypatch.setattr(removal, "discard_folder", refuse)
    with pytest.raises(ClusterError, match="cannot be removed"):
        forget(shared, "one", yes=True)
    assert "are free" not in capsys.readouterr().out
    monkeypatch.setattr(removal, "discard_folder", discard)
    forget(shared, yes=True)
    shown = capsys.readouterr().out

    assert "carrying on" in shown and "are free" in shown
    assert not stuck.exists()
    assert forgets.find_unfinished(shared.workspace) == []


def test_a_group_workspace_is_told_what_another_member_has(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that this user may not remove stays, and is named with its owner."""
    root = shared.workspace.root
    ownership.open_to_group(root)
    folder = shared.run("own")

    def deny(*_: object, **__: object) -> str:
        return f"{folder} is of user ada; only ada can remove it"

    monkeypatch.setattr(removal, "why_it_stays", deny)
    forget(shared, "one", yes=True)

    assert folder.is_dir()


def test_mlflow_that_does_not_answer_keeps_everything(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are marked before anything goes: else nobody would know which they are."""

    def is_away(*_: object) -> int:
        raise ClusterError("MLflow does not answer")

    monkeypatch.setattr(mlflow_commands, "delete_runs", is_away)
    before = shared.list_folders()
    with pytest.raises(ClusterError, match="does not answer"):
        forget(shared, "one", mlflow=True, yes=True)

    assert shared.list_folders() == before
    forget(shared, "one", yes=True)
    assert not shared.run("own").exists()
