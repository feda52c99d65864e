"""Do scripts that import modules by their former names get the modules, and the new name told?"""

import subprocess
import sys

import pytest

from zsg_core import moved_modules
from zsg_core.moved_modules import FOLDERS, MODULES


@pytest.mark.parametrize(
    "line",
    [
        "from jobs.preparing import base_model",
        "from zsg_core.scores.gsm8k import score_answers",
        "import zsg_core.readers.intake",
        "from launcher.submission.ledger import Ledger",
        "import launcher.observing.status",
        "from jobs.training.item_losses import read_test_losses",
        "from zsg_core import verdict",
    ],
)
def test_a_former_name_is_found_and_told(line: str) -> None:
    """In a process that has imported nothing else of zsg."""
    code = f"import warnings; warnings.simplefilter('error', ResourceWarning)\n{line}"
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert "DeprecationWarning: " in done.stderr and " is now " in done.stderr


def test_it_is_the_same_module() -> None:
    """Not a copy, whose classes would be others; and it keeps its own name."""
    code = """
import warnings; warnings.simplefilter("ignore")
import zsg_core.scores.metrics as old, zsg_core.metrics.metrics as new
import jobs.folder, jobs.contract.folder, importlib
assert old is new and jobs.folder is jobs.contract.folder
assert new.__name__ == new.__spec__.name == "zsg_core.metrics.metrics"
importlib.reload(new)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*FOLDERS, *MODULES])
def test_every_former_name_is_free(name: str) -> None:
    """No module stands where another one was."""
    new = moved_modules.new_name(name)
    assert new is not None and moved_modules.new_name(new) is None


def test_every_former_name_leads_to_a_module() -> None:
    """None of the new names is missing."""
    code = "import sys, importlib.util; print([name for name in sys.argv[1:] if not importlib.util.find_spec(name)])"
    names = [str(moved_modules.new_name(name)) for name in [*FOLDERS, *MODULES]]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True
    )

    assert done.stdout == "[]\n", done.stderr


@pytest.mark.engine
def test_a_former_name_can_be_run() -> None:
    """As a job does that began before the move: `python -m`, with the code of today."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.tracking.deliver", "--help"],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


def test_other_names_are_left_to_python() -> None:
    """Also those that only begin alike."""
    assert [
        moved_modules.new_name(name)
        for name in ("jobs", "jobs.folders", "zsg_core.scoresheet", "torch")
    ] == [None] * 4
