"""Does zsg say in one sentence that it needs Linux?"""

import subprocess
import sys

import pytest

# What Python lacks on Windows; on a Mac /proc and parts of `resource` are missing.
LACKING = ("fcntl", "grp", "pwd", "resource")
CODE = f"""
import importlib, sys, types
sys.modules["_winapi"] = types.ModuleType("_winapi")  # there with Windows, for shutil
sys.platform, program, module = sys.argv[1:4]
for name in {LACKING}:
    sys.modules[name] = None
sys.argv = [program, "status"]
importlib.import_module(module)
print("imported", sorted({{"pydantic", "typer", "numpy"}} & set(sys.modules)))
"""


def import_on(system: str, module: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python that takes this machine for another imports a module."""
    command = [sys.executable, "-c", CODE, system, "zsg", module]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("system", "module"),
    [
        ("darwin", "launcher.cli"),
        ("win32", "launcher.cli"),
        ("win32", "launcher"),
        ("darwin", "jobs"),
        ("cygwin", "jobs.entry"),
        ("freebsd14", "jobs.contract.folder"),
    ],
)
def test_another_system_is_refused_in_one_sentence(system: str, module: str) -> None:
    """Whatever is imported first of launcher and jobs: exit code 2, and no traceback."""
    refused = import_on(system, module)

    assert refused.returncode == 2
    assert refused.stdout == ""
    [line] = refused.stderr.splitlines()
    assert line.startswith(f"zsg needs Linux, and this is {system}: ")


def test_linux_is_not_refused() -> None:
    """By whichever name Python gives it."""
    for system in ("linux", "linux2"):
        assert import_on(system, "launcher").stdout == "imported []\n"


def test_what_programs_may_import_is_not_bound_to_linux() -> None:
    """`import zsg` has types that may be read anywhere."""
    assert import_on("linux", "zsg").returncode == 0
