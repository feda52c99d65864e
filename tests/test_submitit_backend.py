"""Is what sbatch is given exactly what the profile says, whatever a grid or the user's shell holds?

`golden/` shows the whole script of every shipped Slurm profile, and of one that uses
every setting. After a change that is meant, ZSG_WRITE_GOLDEN=1 writes them anew.
"""

import os
import pickle
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.runtime import slurm_environment
from launcher.clusters import profiles, submitit_backend
from launcher.clusters.profiles import Profile
from launcher.clusters.submitit_backend import make_parameters
from launcher.submission.sbatch import build_dependency, build_parameters
from launcher.workspace.ledger import Submission
from tests.lib.slurm_answers import profile

GOLDEN = Path(__file__).resolve().parent / "golden"
EVERYTHING = GOLDEN / "everything.yaml"
NAMES = ("slurm-minimal", "a100-80g", "a800-80g", "a800-80g-zero3", "everything")
AFTER = ("6_0", "6_1")
SBATCH = """#!/bin/sh
env > {here}/env
echo "Submitted batch job 61"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with blanks and quotes in its name, and an sbatch that takes whatever it
    is given."""
    folder = tmp_path / "a user's $(work)"
    (folder / "bin").mkdir(parents=True)
    here = shlex.quote(str(folder))
    for name, text in (("sbatch", SBATCH.format(here=here)), ("srun", "#!/bin/sh\n")):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return folder


def submitted(
    place: Path, own: Profile, count: int = 3, kind: str = "train"
) -> tuple[list[str], str]:
    """The ids and the script of a submission of so many jobs."""
    size, after = (
        (own.train, build_dependency(AFTER)) if kind == "train" else (own.prepare, None)
    )
    submission = Submission(
        "0123abcd", "slurm", kind, "grid", [], 0, "login", chain=own.slurm.chain_length
    )
    wanted = build_parameters(
        own, submission, size, after, {"folder": "/workspace/code/0123456789abcdef"}
    )
    jobs = place / "jobs"
    jobs.mkdir(exist_ok=True)
    env = slurm_environment.make_job_environment(own.environment.keep)
    told = submitit_backend.submit_held(
        jobs, count, wanted, submitit_backend.make_python_command(own), env
    )
    ids = [f"{told.id}_{n}" for n in range(count)] if count > 1 else [str(told.id)]
    submitit_backend.complete_submission(
        jobs,
        "name",
        [place / f"runs/{i}" for i in range(count)],
        ids,
        wanted["time"],
        told.script,
    )
    return ids, (jobs / "61_submission.sh").read_text()


def line(script: str, start: str) -> str:
    """The rest of the one line that begins so."""
    [found] = [
        line.removeprefix(start)
        for line in script.splitlines()
        if line.startswith(start)
    ]
    return found


@pytest.mark.parametrize("kind", ["train", "prepare"])
@pytest.mark.parametrize("name", NAMES)
def test_the_script_of_a_profile(place: Path, name: str, kind: str) -> None:
    """The whole of what sbatch reads is as it is shown in golden/."""
    own = profiles.load_profile(
        str(EVERYTHING) if name == "everything" else name, place
    )
    _, script = submitted(place, own, kind=kind)
    text = script.replace(str(place).replace("'", "'\"'\"'"), "FOLDER").replace(
        sys.executable, "PYTHON"
    )
    path = GOLDEN / f"{name}.{kind}.sbatch"
    if os.environ.get("ZSG_WRITE_GOLDEN"):
        path.write_text(text)

    assert text == path.read_text()


def test_all_slurm_profiles_have_a_golden_script() -> None:
    """A new profile shows what it makes."""
    shipped = profiles.profile_files.find_shipped("cluster_profiles").glob("*.yaml")
    kinds = {
        path.stem: profiles.load_profile(path.stem, Path()).kind for path in shipped
    }

    assert {name for name, kind in kinds.items() if kind == "slurm"} == set(NAMES) - {
        "everything"
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gpus_per_node": 8}, "#SBATCH --gpus-per-node=8"),
        ({"gpus_per_node": 8, "gpu_type": "a800"}, "#SBATCH --gpus-per-node=a800:8"),
        ({"gpus_per_node": 8, "gpus_by": "gres"}, "#SBATCH --gres=gpu:8"),
        (
            {"gpus_per_node": 8, "gpus_by": "gpus", "gpu_type": "a800"},
            "#SBATCH --gpus=a800:16",
        ),
        ({"gpus_per_node": 8, "gpus_by": "gpus-per-task"}, "#SBATCH --gpus-per-task=1"),
        (
            {"gpus_per_node": 8, "gres": "gpu:a800:8,nvme:1"},
            "#SBATCH --gres=gpu:a800:8,nvme:1",
        ),
        ({}, None),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants(
    place: Path, settings: dict, expected: str | None
) -> None:
    """One option names them, for train jobs only."""
    own = profile(slurm=settings, train={"nodes": 2, "ranks_per_node": 8})
    asked = [
        one
        for one in submitted(place, own)[1].splitlines()
        if "--gpus" in one or "--gres" in one
    ]
    prepare = submitted(place, own, kind="prepare")[1]

    assert asked == ([expected] if expected else [])
    assert "--gpus" not in prepare and "--gres" not in prepare


@pytest.mark.parametrize("kind", ["evaluate", "sample"])
@pytest.mark.parametrize(
    ("settings", "option", "value"),
    [
        ({}, "gpus-per-node", "2"),
        ({"gpus_by": "gpus", "gpu_type": "a800"}, "gpus", "a800:2"),
        ({"gpus_by": "gpus-per-task"}, "gpus-per-task", "2"),
        ({"gres": "gpu:a800:8,nvme:1"}, "gres", "gpu:a800:2,nvme:1"),
    ],
)
def test_an_evaluator_has_gpus_cpus_and_memory_of_its_own(
    settings: dict[str, Any], option: str, value: str, kind: str
) -> None:
    """As many as `evaluate` says, of the node that a train job would have whole."""
    own = profile(
        slurm={"gpus_per_node": 8, "mem_gb": 900} | settings,
        train={"ranks_per_node": 8},
        evaluate={"gpus": 2, "cpus_per_rank": 6, "mem_gb": 96},
    )

    made = make_parameters(own, own.evaluate, "name", None, kind)
    train = make_parameters(own, own.train, "name", None, "train")

    assert made["additional_parameters"][option] == value
    assert (made["cpus_per_task"], made["mem"], train["mem"]) == (6, "96GB", "900GB")
    assert made["ntasks_per_node"] == 1


def test_memory_by_an_option_of_sbatch_counts_alone() -> None:
    """sbatch would refuse a job with --mem beside --mem-per-cpu."""
    own = profile(slurm={"sbatch": {"mem-per-cpu": "8G"}}, evaluate={"mem_gb": 96})

    made = make_parameters(own, own.evaluate, "name", None, "evaluate")

    assert "mem" not in made
    assert made["additional_parameters"]["mem-per-cpu"] == "8G"


@pytest.mark.parametrize("name", ["a100-80g", "a800-80g", "a800-80g-zero3"])
def test_shipped_profiles_give_evaluators_what_a_model_needs(name: str) -> None:
    """CPUs and memory: the site's default may be one core's share, and 33B has 65 GB."""
    own = profiles.load_profile(name, Path())

    made = make_parameters(own, own.evaluate, "name", None, "evaluate")

    assert (made["cpus_per_task"], made["mem"]) == (8, "96GB")
    assert made["additional_parameters"]["gpus-per-node"] == "1"


@pytest.mark.parametrize(
    ("count", "ids"),
    [(1, ["61"]), (2, ["61_0", "61_1"]), (12, [f"61_{i}" for i in range(12)])],
)
def test_one_job_is_no_array_and_indices_begin_at_0(
    place: Path, count: int, ids: list[str]
) -> None:
    """The ids are in the order of the folders, and each finds its own: a group of one
    has no index."""
    made, script = submitted(place, profile(slurm={"array_parallelism": 4}), count)
    pickles = [
        pickle.loads((place / f"jobs/{job}_submitted.pkl").read_bytes()) for job in made
    ]

    assert made == ids
    assert [one.args for one in pickles] == [
        (str(place / f"runs/{i}"),) for i in range(count)
    ]
    assert ("--array" in script) == (count > 1)
    if count > 1:
        assert line(script, "#SBATCH --array=") == f"0-{count - 1}%{min(count, 4)}"


def test_pickles_are_in_place_before_a_job_may_start(place: Path) -> None:
    """submitit renames them after sbatch; jobs are held until then."""
    assert "#SBATCH --hold\n" in submitted(place, profile())[1]


def test_time_limits_are_whole_minutes_however_short(place: Path) -> None:
    """submitit's own count of time is never in play: its handler wants a number, and
    ours replaces it."""
    own = profile(train={"time_min": 3}, slurm={"signal_before_end_s": 60})
    ids, script = submitted(place, own)
    call = pickle.loads((place / f"jobs/{ids[0]}_submitted.pkl").read_bytes())

    assert line(script, "#SBATCH --time=") == "3"
    assert call._timeout_min == 3


def test_a_signal_reaches_every_rank_and_a_dead_rank_ends_all(place: Path) -> None:
    """The step runs under srun, which passes the signal on: no `B:`, which would tell
    the script alone."""
    script = submitted(place, profile(slurm={"signal_before_end_s": 90}))[1]

    assert line(script, "#SBATCH --signal=") == "USR2@90"
    assert " --kill-on-bad-exit=1 --wait=60 " in line(script, "srun ")


def test_no_wckey_is_made_up(place: Path) -> None:
    """submitit names itself, which sites with wckeys refuse."""
    assert line(submitted(place, profile())[1], "#SBATCH --wckey=") == "''"
    assert (
        line(
            submitted(place, profile(slurm={"sbatch": {"wckey": "nlp"}}))[1],
            "#SBATCH --wckey=",
        )
        == "nlp"
    )


def test_jobs_may_be_requeued_and_write_on_in_their_logs(place: Path) -> None:
    """Also where the site's JobRequeue is 0; an attempt's log does not overwrite the last one's."""
    script = submitted(place, profile())[1]

    assert "#SBATCH --requeue\n" in script
    assert "#SBATCH --open-mode=append\n" in script


def test_a_job_sees_nothing_of_the_users_shell(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch hands on all that it is started with, so that no login file is read, and
    is started with the list alone.

    Neither secrets nor a stale MASTER_ADDR pass, nor the options of sbatch and srun
    that an allocation's shell is full of; a variable to keep passes by its value, which
    no script holds.
    """
    for name in (
        "MASTER_ADDR",
        "HF_TOKEN",
        "SBATCH_JOB_NAME",
        "SLURM_MEM_PER_CPU",
        "SLURM_JOB_ID",
        "SRUN_DEBUG",
    ):
        monkeypatch.setenv(name, "stale")
    monkeypatch.setenv("SLURM_CONF", "/etc/s.conf")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    own = profiles.keep_variables(profile(), ["JUDGE_KEY"])
    script = submitted(place, own)[1]
    seen = dict(line.split("=", 1) for line in (place / "env").read_text().splitlines())

    assert line(script, "#SBATCH --export=") == "ALL"
    assert "secret" not in script
    assert (seen["JUDGE_KEY"], seen["SLURM_CONF"]) == ("secret", "/etc/s.conf")
    assert seen.keys() <= {*own.environment.keep, "PWD", "SHLVL", "_", "OLDPWD"}


@pytest.mark.parametrize(
    ("within", "kept"),
    [({}, True), ({"SLURM_JOB_ID": "7"}, False)],
    ids=["login node", "job"],
)
def test_the_temporary_folder_of_a_job_is_not_handed_on(
    within: dict[str, str], kept: bool
) -> None:
    """Submitted from within a job: its TMPDIR goes when it ends."""
    seen = slurm_environment.make_job_environment(
        ["HOME", "TMPDIR"], environ={"HOME": "/h", "TMPDIR": "/tmp/7", **within}
    )

    assert seen == {"HOME": "/h"} | ({"TMPDIR": "/tmp/7"} if kept else {})


@pytest.mark.parametrize(
    ("printed", "job", "cluster"),
    [
        ("Submitted batch job 61\n", "61", None),
        ("Submitted batch job 61 on cluster big\n", "61", "big"),
        ("61\n", "61", None),
        ("61;big\n", "61", "big"),
        (
            "sbatch: reminder: your job 60 holds 1 of your 4 GPUs\nSubmitted batch job 61\n",
            "61",
            None,
        ),
        ("Submitted batch job 61\nLast job 60 ended; see job 59\n", "61", None),
        ("60\nSubmitted batch job 61\n", "61", None),
        ("Your job 60 was: Submitted batch job 59\n", None, None),
        ("Submitted batch job 60 for you\n", None, None),
        ("Submitted batch job 60\nSubmitted batch job 61\n", None, None),
        ("60\n61\n", None, None),
        ("job 60\n", None, None),
        ("", None, None),
    ],
)
def test_the_id_is_that_of_sbatchs_own_line(
    printed: str, job: str | None, cluster: str | None
) -> None:
    """Or of --parsable, which a wrapper may ask for; what else is printed is no answer,
    and two answers are none."""
    assert submitit_backend.parse_sbatch(printed) == submitit_backend.SbatchAnswer(
        job, cluster
    )


def test_slurm_alone_says_which_gpus_are_a_jobs(place: Path) -> None:
    """No script sets CUDA_VISIBLE_DEVICES, a port or a rank: on a shared node they
    would be another job's."""
    script = submitted(place, profiles.load_profile("a800-80g", place))[1]

    assert not [
        word
        for word in ("CUDA_VISIBLE_DEVICES", "MASTER_PORT", "LOCAL_RANK")
        if word in script
    ]


def test_the_environment_of_a_container_is_the_jobs(place: Path) -> None:
    """The prefix stands before Python in the srun line, quoted, and nowhere else."""
    own = profile(
        container={
            "prefix": ["apptainer", "exec", "/images/z.sif"],
            "python": "/opt/bin/python",
        }
    )
    script = submitted(place, own)[1]

    assert (
        " apptainer exec /images/z.sif /opt/bin/python -u -m submitit.core._submit "
        in line(script, "srun ")
    )
    assert script.count("apptainer") == 1


@pytest.mark.parametrize(
    ("ids", "whatever", "expected"),
    [
        ([], False, None),
        (["7"], False, "afterok:7"),
        (["7_0", "7_2", "8"], False, "afterok:7_0:7_2:8"),
        (["7_0", "7_2", "8"], True, "afterany:7:8"),
    ],
)
def test_what_a_job_waits_for(
    ids: list[str], whatever: bool, expected: str | None
) -> None:
    """For jobs of its own to end well; or, where many groups share an array, for all of
    them to end."""
    assert build_dependency(ids, whatever) == expected


def test_a_dependency_that_can_never_hold_ends_the_job(place: Path) -> None:
    """It would be pending for ever."""
    assert "#SBATCH --kill-on-invalid-dep=yes\n" in submitted(place, profile())[1]
    assert "kill-on-invalid-dep" not in submitted(place, profile(), kind="prepare")[1]
