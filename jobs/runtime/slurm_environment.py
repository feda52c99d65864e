"""Decides what Slurm's own programs see of the environment: one place for every call,
on login nodes and on nodes.

Each of them takes options from variables (SLURM_*, SBATCH_*, SQUEUE_*, …; see "INPUT
ENVIRONMENT VARIABLES" in their manuals), and a shell within an allocation is full of
them. None of those may change what zsg asks or is told.
"""

import os
import re
from collections.abc import Iterable, Mapping

# How Slurm is reached: the configuration or where it comes from, and the token of sites
# that use tokens.
REACHED_BY = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
CLUSTERS = "SLURM_CLUSTERS"
_PROGRAMS = (
    "SALLOC",
    "SACCT",
    "SACCTMGR",
    "SATTACH",
    "SBATCH",
    "SBCAST",
    "SCANCEL",
    "SCONTROL",
    "SCRONTAB",
    "SDIAG",
    "SINFO",
    "SLURM",
    "SLURMD",
    "SPANK",
    "SPRIO",
    "SQUEUE",
    "SREPORT",
    "SRUN",
    "SSHARE",
    "SSTAT",
    "STRIGGER",
)
_OF_SLURM = re.compile(rf"_?({'|'.join(_PROGRAMS)})_\w*")
# Answers are read as these make Slurm write them: times in one format, lists of array tasks whole.
_FORMATS = {"SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}


def is_slurm_variable(name: str) -> bool:
    """Whether a variable may change what a program of Slurm does."""
    return _OF_SLURM.fullmatch(name) is not None


def make_call_environment(
    cluster: str | None = None, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment of a program that asks or tells Slurm something; `cluster`: the
    one it is to speak to, if named.

    What is no option of Slurm's stays, since a site's own programs may stand before Slurm's.
    """
    variables = {
        key: value
        for key, value in environ.items()
        if key in REACHED_BY or not is_slurm_variable(key)
    }
    return variables | _FORMATS | _name_cluster(cluster)


def make_job_environment(
    keep: Iterable[str],
    cluster: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The environment of sbatch, which it hands on to the job whole: nothing but the
    variables to `keep`.

    A list in `--export` would let Slurm add what the user's login files set on the node.
    """
    names = [*REACHED_BY, *(name for name in keep if not is_slurm_variable(name))]
    if "SLURM_JOB_ID" in environ and "TMPDIR" in names:
        # of the job that submits: it goes when that ends, and other nodes lack it
        names.remove("TMPDIR")
    return {name: environ[name] for name in names if name in environ} | _name_cluster(
        cluster
    )


def _name_cluster(cluster: str | None) -> dict[str, str]:
    return {CLUSTERS: cluster} if cluster else {}
