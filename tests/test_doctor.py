"""Does `zsg doctor` see what would go wrong, and say what to do?"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import Zsg

from launcher import doctor, slurm
from launcher.doctor import OK, PROBLEM, WARNING
from launcher.profiles import Profile

HERE = dict.fromkeys(doctor.OURS, None)


def profile(**settings: object) -> Profile:
    """A Slurm profile with these settings."""
    return Profile.model_validate({"name": "p", "kind": "slurm", **settings})


# As Slurm 22.05 prints it, shortened.
CONFIG = """Configuration data as of 2026-11-21T09:50:11
AccountingStorageType   = accounting_storage/slurmdbd
AuthInfo                = socket=/run/munge
KillWait                = 30 sec
MaxArraySize            = 101
MaxJobCount             = 10000
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at head is UP
"""
PARTITIONS = (
    "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A "
    "DefaultTime=NONE MaxNodes=2 MaxTime=01:00:00 MinNodes=0 Nodes=n[1-4] PriorityTier=1 State=UP TotalCPUs=16 "
    "TotalNodes=4 SelectTypeParameters=NONE DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED\n"
    "PartitionName=gpu Default=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED Nodes=g1 State=DOWN TotalNodes=1\n"
)


def test_scontrol_is_read_line_by_line() -> None:
    """`scontrol show config` becomes names and values; heads and tails are no settings."""
    config = slurm.parse_config(CONFIG)

    assert len(config) == 6
    assert (config["KillWait"], config["AuthInfo"]) == ("30 sec", "socket=/run/munge")


def test_partitions_are_read_one_a_line() -> None:
    """`scontrol show partition -o` becomes a mapping for each partition."""
    found = slurm.parse_partitions(PARTITIONS)

    assert list(found) == ["main", "gpu"]
    assert (found["main"]["MaxTime"], found["gpu"]["State"]) == ("01:00:00", "DOWN")
    assert slurm.parse_partitions("") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("01:00:00", 60), ("7-00:30:00", 7 * 24 * 60 + 30), ("00:00:30", 0.5), ("UNLIMITED", float("inf"))],
)
def test_time_limits_are_minutes(text: str, expected: float) -> None:
    """Days, hours, minutes and seconds; no limit is infinite."""
    assert slurm.minutes(text) == expected


@pytest.mark.parametrize(
    ("changes", "settings", "what", "verdict", "said"),
    [
        pytest.param({}, {"slurm": {"max_array_size": 101}}, "arrays", OK, "", id="arrays that fit"),
        pytest.param({}, {}, "arrays", PROBLEM, "slurm.max_array_size: 101", id="arrays that sbatch refuses"),
        pytest.param({}, {}, "KillWait", OK, "", id="the site's KillWait"),
        pytest.param({}, {"slurm": {"kill_wait_s": 60}}, "KillWait", WARNING, "kill_wait_s: 30", id="less than said"),
        pytest.param({}, {}, "accounting", OK, "", id="accounting"),
        pytest.param(
            {"AccountingStorageType": "accounting_storage/none"}, {}, "accounting", WARNING, "unknown", id="none"
        ),
        pytest.param({"MaxJobCount": "500"}, {}, "MaxJobCount", WARNING, "smaller", id="a short queue"),
    ],
)
def test_the_cluster_is_compared_with_the_profile(
    changes: dict[str, str], settings: dict[str, object], what: str, verdict: str, said: str
) -> None:
    """Each setting of the cluster that contradicts the profile is told with the line to change."""
    checks = {c.what: c for c in doctor.cluster(slurm.parse_config(CONFIG) | changes, profile(**settings))}

    assert checks[what].verdict == verdict
    assert said in checks[what].advice
    assert bool(checks[what].advice) == (verdict != OK)


@pytest.mark.parametrize(
    ("settings", "verdict", "said"),
    [
        pytest.param({}, OK, "main (the default), 4 nodes", id="the default"),
        pytest.param({"slurm": {"partition": "main"}}, OK, "main (the default)", id="named"),
        pytest.param({"slurm": {"partition": "man"}}, PROBLEM, "there is no 'man'; slurm.partition", id="unknown"),
        pytest.param({"slurm": {"partition": "gpu"}}, PROBLEM, "it is DOWN", id="down"),
        pytest.param({"train": {"time_min": 61}}, PROBLEM, "train.time_min is 61, more than its 60", id="too long"),
        pytest.param({"prepare": {"time_min": 90}}, PROBLEM, "prepare.time_min is 90", id="prepare too long"),
        pytest.param({"train": {"nodes": 3}}, PROBLEM, "train.nodes is 3, more than its 2", id="too many nodes"),
    ],
)
def test_the_partition_grants_what_is_asked(settings: dict[str, object], verdict: str, said: str) -> None:
    """The profile's partition, or the default one, exists, is up, and has the time and the nodes."""
    check = doctor.partition(slurm.parse_partitions(PARTITIONS), profile(**settings))

    assert check.verdict == verdict
    assert said in check.line


def test_a_cluster_without_a_default_partition_needs_a_name() -> None:
    """Where no partition is the default, the profile must name one, and the message lists them."""
    check = doctor.partition(slurm.parse_partitions(PARTITIONS.replace("YES", "NO")), profile())

    assert (check.verdict, check.advice) == (PROBLEM, "slurm.partition in the profile, one of: main, gpu")


@pytest.mark.parametrize(
    ("packages", "folders", "verdict", "said"),
    [
        pytest.param({}, HERE, OK, "", id="an editable install names no owner"),
        pytest.param({"jobs": ["zsg"], "launcher": ["zsg", "zsg"]}, HERE, OK, "", id="zsg's own"),
        pytest.param({"jobs": ["zsg", "acme"]}, HERE, PROBLEM, "jobs also belongs to acme", id="two owners"),
        pytest.param({"launcher": ["acme"]}, HERE, PROBLEM, "launcher also belongs to acme", id="another owner"),
        pytest.param({"numpy": ["numpy"]}, HERE, OK, "", id="strangers elsewhere"),
        pytest.param({}, {"launcher": Path("/a/launcher"), "jobs": Path("/b/jobs")}, PROBLEM, "shadows", id="a shadow"),
    ],
)
def test_our_names_are_ours(
    packages: dict[str, list[str]], folders: dict[str, Path | None], verdict: str, said: str
) -> None:
    """Nothing else owns launcher, jobs or zsg_core, and all three come from one folder."""
    check = doctor.owners(packages, folders)

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
    assert doctor.faiss(installed).verdict == verdict


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
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    """The longest mount point above a path counts, and of two on one point the later."""
    assert doctor.file_system(MOUNTS, Path(path)) == kind


@pytest.mark.parametrize(
    ("kind", "uri", "verdict"),
    [("ext4", None, OK), ("nfs4", None, WARNING), ("lustre", None, WARNING), ("fuse.sshfs", None, WARNING),
     ("nfs4", "http://127.0.0.1:5000", OK)],
)  # fmt: skip
def test_sqlite_on_a_shared_disk_is_warned_of(kind: str, uri: str | None, verdict: str) -> None:
    """MLflow's own file is no matter where the profile names another store."""
    assert doctor.store(kind, uri).verdict == verdict


@pytest.mark.parametrize(
    ("missing", "verdict"), [((), OK), (("sacct",), WARNING), (("sbatch",), PROBLEM), (("sacct", "srun"), PROBLEM)]
)
def test_slurm_can_do_without_sacct_only(missing: tuple[str, ...], verdict: str) -> None:
    """Every other command of Slurm is needed."""
    assert doctor.programs(missing).verdict == verdict


@pytest.mark.parametrize(("name", "verdict"), [("train", PROBLEM), ("track", WARNING)])
def test_a_missing_extra_is_told_with_its_command(name: str, verdict: str) -> None:
    """Jobs need the training extra; MLflow can be filled elsewhere and later."""
    check = doctor.extra(name, ["x"])

    assert check.verdict == verdict
    assert f"pip install 'zsg[{name}]'" in check.advice
    assert doctor.extra(name, []).verdict == OK


def test_an_old_python_and_another_encoding_are_seen() -> None:
    """Python 3.10 is a problem; a locale that is not UTF-8 a warning."""
    assert doctor.python((3, 10, 12)).verdict == PROBLEM
    assert doctor.python((3, 12, 0)).verdict == OK
    assert doctor.encoding("iso8859-1", {"LC_ALL": "de_DE"}).line.startswith(
        "warning  locale: iso8859-1 (LC_ALL=de_DE)"
    )
    assert doctor.encoding("utf-8", {}).verdict == OK


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
    code = "import sys; from launcher import cli; sys.argv = ['zsg', 'doctor']; cli.app(standalone_mode=False);"
    code += "print([name for name in ('torch', 'mlflow', 'faiss') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=zsg.folder, capture_output=True, text=True, check=True)

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
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"jobs/extra.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", "other", "acme-1.0-py3-none-any.whl"], cwd=zsg.folder, check=True)
    zsg.env["PYTHONPATH"] = str(zsg.folder / "other")

    assert "problem  package: jobs also belongs to acme" in zsg("doctor", code=3)


@pytest.mark.slurm
def test_the_doctor_of_a_cluster(zsg_on_slurm: Zsg) -> None:
    """On a real Slurm it finds what the profile gets wrong, with the line to change; mended, there is no problem."""
    text = "name: mine\ninherits: slurm-minimal\nslurm: {partition: PARTITION, max_array_size: 101}\n"
    wrong = zsg_on_slurm.write("wrong.yaml", text.replace("PARTITION", "nowhere").replace("101", "1000"))
    right = zsg_on_slurm.write("right.yaml", text.replace("PARTITION", "main"))
    said = zsg_on_slurm("doctor", "--profile", wrong, code=3)
    rows = {row["what"]: row for row in json.loads(zsg_on_slurm("doctor", "--profile", right, "--json"))}

    assert "problem  arrays: up to 1000 jobs each, of Slurm's 101; slurm.max_array_size: 101 in the profile" in said
    assert "problem  partition: there is no 'nowhere'; slurm.partition in the profile, one of: main, urgent" in said
    assert {rows[what]["verdict"] for what in ("slurm", "arrays", "KillWait", "accounting", "partition")} == {OK}
    assert rows["accounting"]["found"] == "slurmdbd"
