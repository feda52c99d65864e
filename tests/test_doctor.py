"""Does `zsg doctor` see what would go wrong, and say what to do?"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from jobs.evaluating.sandbox import NoSandbox, Sandbox
from launcher.doctor import doctor
from launcher.doctor.diagnosis import OK, PROBLEM, WARNING
from launcher.workspace import extras, file_systems
from tests.lib.command_line import Zsg

ROOT = Path(__file__).resolve().parent.parent
HERE = dict.fromkeys(doctor.OURS, None)


@pytest.mark.parametrize(
    ("packages", "folders", "verdict", "said"),
    [
        pytest.param({}, HERE, OK, "", id="an editable install names no owner"),
        pytest.param(
            {"jobs": ["zsg"], "launcher": ["zsg", "zsg"]}, HERE, OK, "", id="zsg's own"
        ),
        pytest.param(
            {"jobs": ["zsg", "acme"]},
            HERE,
            PROBLEM,
            "jobs also belongs to acme",
            id="two owners",
        ),
        pytest.param(
            {"launcher": ["acme"]},
            HERE,
            PROBLEM,
            "launcher also belongs to acme",
            id="another owner",
        ),
        pytest.param({"numpy": ["numpy"]}, HERE, OK, "", id="strangers elsewhere"),
        pytest.param(
            {},
            {"launcher": Path("/a/launcher"), "jobs": Path("/b/jobs")},
            PROBLEM,
            "shadows",
            id="a shadow",
        ),
    ],
)
def test_our_names_are_ours(
    packages: dict[str, list[str]],
    folders: dict[str, Path | None],
    verdict: str,
    said: str,
) -> None:
    """Nothing else owns launcher, jobs or zsg_core, and all three come from one folder."""
    check = doctor.check_package_owners(packages, folders)

    assert check.verdict == verdict
    assert said in check.line


@pytest.mark.parametrize(
    ("installed", "verdict"),
    [
        ({"numpy"}, OK),
        ({"faiss-cpu"}, OK),
        ({"faiss-gpu-cu12", "numpy"}, OK),
        ({"faiss-cpu", "faiss-gpu-cu12"}, PROBLEM),
    ],
    ids=["none", "cpu", "gpu", "both"],
)
def test_one_faiss_at_most(installed: set[str], verdict: str) -> None:
    """Of two distributions that own the module `faiss`, one has overwritten the other."""
    assert doctor.check_faiss(installed).verdict == verdict


MOUNTS = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /home rw shared:15 - nfs4 server:/home rw,vers=4.2
31 22 0:27 / /home/me/my\\040disk rw shared:16 - lustre mgs@o2ib:/fs rw
32 22 0:28 / /mnt/s rw - fuse.sshfs host:/ rw
33 32 0:29 / /mnt/s rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/x", "ext4"),
        ("/home/me/work", "nfs4"),
        ("/homes/x", "ext4"),
        ("/home/me/my disk/w", "lustre"),
        ("/mnt/s/w", "tmpfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(
    path: str, kind: str
) -> None:
    """The longest mount point above a path counts, and of two on one point the later."""
    assert file_systems.file_system(MOUNTS, Path(path)) == kind


@pytest.mark.parametrize(
    ("kind", "uri", "verdict"),
    [
        ("ext4", None, OK),
        ("nfs4", None, WARNING),
        ("lustre", None, WARNING),
        ("fuse.sshfs", None, WARNING),
        ("nfs4", "http://127.0.0.1:5000", OK),
    ],
)
def test_sqlite_on_a_shared_disk_is_warned_of(
    kind: str, uri: str | None, verdict: str
) -> None:
    """MLflow's own file is no matter where the profile names another store."""
    assert doctor.check_tracking_store(kind, uri).verdict == verdict


@pytest.mark.parametrize(
    ("missing", "verdict"),
    [
        ((), OK),
        (("sacct",), WARNING),
        (("sbatch",), PROBLEM),
        (("sacct", "srun"), PROBLEM),
    ],
)
def test_slurm_can_do_without_sacct_only(
    missing: tuple[str, ...], verdict: str
) -> None:
    """Every other command of Slurm is needed."""
    assert doctor.check_slurm_programs(missing).verdict == verdict


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("train", PROBLEM),
        ("track", WARNING),
        ("report", WARNING),
        ("evaluate", WARNING),
    ],
)
def test_a_missing_extra_is_told_with_its_command(name: str, verdict: str) -> None:
    """Jobs need the training extra; what the others are for can be done elsewhere and later."""
    check = doctor.check_extra(name, ["x"])

    assert check.verdict == verdict
    assert f"pip install 'zsg[{name}]'" in check.advice
    assert doctor.check_extra(name, []).verdict == OK


def test_every_extra_that_commands_need_is_looked_at() -> None:
    """Each module that an extra is to bring is brought by it: by a distribution that
    pyproject.toml lists."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    owners = importlib.metadata.packages_distributions()

    assert set(doctor.FOR) | {"train"} == set(extras.MODULES)
    for extra, modules in extras.MODULES.items():
        names = {
            re.split(r"[ >=<;\[]", need)[0].lower().replace("_", "-")
            for need in listed[extra]
        }
        for module in modules:
            assert {
                name.lower().replace("_", "-") for name in owners[module]
            } & names, module


@pytest.mark.parametrize(
    ("found", "named", "verdict"),
    [(["/usr/bin/gcc"], None, OK), ([], "icx", OK), ([], None, WARNING)],
)
def test_a_c_compiler_is_looked_for(
    found: list[str], named: str | None, verdict: str
) -> None:
    """On the PATH, or what CC names; without one a line says when it matters."""
    check = doctor.check_compiler(found, named)

    assert (check.what, check.verdict) == ("compiler", verdict)
    assert ("trainer.compile" in check.line) == (verdict == WARNING)


def test_an_old_python_and_another_encoding_are_seen() -> None:
    """Python 3.10 is a problem; a locale that is not UTF-8 a warning."""
    assert doctor.check_python((3, 10, 12)).verdict == PROBLEM
    assert doctor.check_python((3, 12, 0)).verdict == OK
    assert doctor.check_encoding("iso8859-1", {"LC_ALL": "de_DE"}).line.startswith(
        "warning  locale: iso8859-1 (LC_ALL=de_DE)"
    )
    assert doctor.check_encoding("utf-8", {}).verdict == OK


def test_a_machine_without_a_sandbox_is_warned_of() -> None:
    """No run is stopped by it, and on a cluster it is another machine's to say."""

    def nowhere(**_: bool) -> Sandbox:
        raise NoSandbox("no namespaces")

    told = doctor.check_sandbox("slurm", nowhere)
    assert (told.verdict, "no namespaces" in told.advice) == ("warning", True)
    assert "evaluate jobs try their nodes" in told.found


def test_the_doctor_of_this_machine(zsg: Zsg) -> None:
    """`zsg doctor` prints a line for each check, creates nothing, and its --json says the same."""
    (zsg.folder / "disk").mkdir()
    (zsg.folder / "zsg-work").symlink_to("disk")
    printed = zsg("doctor").splitlines()
    rows = json.loads(zsg("doctor", "--json"))

    assert [row["what"] for row in rows[:2]] == ["python", "package"]
    assert [line.split()[0] for line in printed] == [row["verdict"] for row in rows]
    assert any(f"a link to {zsg.folder}/disk, writable" in line for line in printed)
    assert not list((zsg.folder / "disk").iterdir())


def test_the_doctor_imports_no_engine(zsg: Zsg) -> None:
    """Whether torch is there is seen without importing it."""
    code = (
        "import sys; from launcher import cli; sys.argv = ['zsg', 'doctor'];"
        " cli.app(standalone_mode=False);"
    )
    code += (
        "print([name for name in ('torch', 'mlflow', 'faiss') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=zsg.folder,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_folder_that_cannot_be_written_is_a_problem(zsg: Zsg) -> None:
    """The exit code is 3 where there is a problem, and the line says which."""
    printed = zsg("doctor", "--workspace", "/proc/zsg", code=3)

    assert "problem  workspace: /proc/zsg: " in printed


def test_a_second_owner_of_jobs_is_found(zsg: Zsg) -> None:
    """A distribution that brings a top-level `jobs` of its own is named."""
    info = "acme-1.0.dist-info"
    with zipfile.ZipFile(zsg.folder / "acme-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("jobs/extra.py", "")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(
            f"{info}/RECORD",
            f"jobs/extra.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
        )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
    ]
    subprocess.run(
        [*pip, "--target", "other", "acme-1.0-py3-none-any.whl"],
        cwd=zsg.folder,
        check=True,
    )
    zsg.env["PYTHONPATH"] = str(zsg.folder / "other")

    assert "problem  package: jobs also belongs to acme" in zsg("doctor", code=3)
