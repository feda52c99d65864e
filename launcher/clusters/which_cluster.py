"""Says which cluster a profile's jobs go to, where a site has several: Slurm's default
one, unless one is named."""

import os
from collections.abc import Mapping

from jobs.runtime.slurm_environment import CLUSTERS
from launcher.clusters.profiles import Profile, is_one_cluster
from zsg_core.errors import UserError


def choose_cluster(
    profile: Profile, environ: Mapping[str, str] = os.environ
) -> str | None:
    """The cluster that every call must name; None for the default one.

    The profile's slurm.sbatch.clusters counts, else SLURM_CLUSTERS. UserError for a
    variable that names several, of which sbatch would take the one that starts first:
    nobody could tell where a job is.
    """
    if profile.kind != "slurm":
        return None
    if profile.slurm.cluster:
        return profile.slurm.cluster
    name = environ.get(CLUSTERS, "").strip()
    if name and not is_one_cluster(name):
        raise UserError(
            f"{CLUSTERS} is {name!r}: zsg needs one cluster, or it could not tell where a job is. "
            "Name one there, or as slurm.sbatch.clusters in the profile"
        )
    return name or None


def explain_choice(
    profile: Profile, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """What of the user's variables decides, or does not, where jobs go."""
    notes: list[str] = []
    by_variable = environ.get(CLUSTERS, "").strip()
    by_profile = profile.slurm.cluster
    if by_variable and not by_profile:
        notes.append(f"jobs go to cluster {by_variable}, since {CLUSTERS} says so")
    if by_variable and by_profile and by_variable != by_profile:
        notes.append(
            f"jobs go to cluster {by_profile}, as the profile says, not to {by_variable}, as"
            f" {CLUSTERS} does"
        )
    if "SBATCH_CLUSTERS" in environ:
        notes.append(
            f"SBATCH_CLUSTERS is not honoured, like all SBATCH_*: {CLUSTERS} or"
            " slurm.sbatch.clusters is"
        )
    return notes
