"""Decides what of a profile's further options of sbatch (slurm.sbatch) a site would not
take. Pure."""

import re
from collections.abc import Iterator, Sequence

from launcher.clusters import slurm
from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile
from launcher.clusters.sbatch_options import EXPEDITE
from launcher.planning.job_request import JobRequest

# a job whose node fails then starts again at once, before all others
EXPEDITE_SINCE = (25, 11)
EXPEDITE_SWITCH = "enable_expedited_requeue"


def find_refusals(
    profile: Profile, cluster: Cluster, requests: Sequence[JobRequest]
) -> Iterator[str]:
    """Why sbatch would refuse an option."""
    if _expedites(profile):
        yield from _check_expedite(cluster)
    nodes = _list_nodes(str(profile.slurm.sbatch.get("nodelist", "")))
    for request in requests:
        if len(nodes) > request.size.nodes:
            yield (
                f"slurm.sbatch.nodelist names {len(nodes)} nodes, each of which every job must"
                f" have, but a {request.kind} job has {request.size.nodes}; leave nodes out by"
                " slurm.sbatch.exclude, or choose them by slurm.constraint"
            )


def _expedites(profile: Profile) -> bool:
    return profile.slurm.sbatch.get("requeue") == EXPEDITE


def _check_expedite(cluster: Cluster) -> Iterator[str]:
    asked_for = f"slurm.sbatch.requeue is {EXPEDITE}, which"
    advice = "leave it out: jobs are requeued all the same"
    version = cluster.config.get("SLURM_VERSION", "")
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", version)
    if match and (int(match[1]), int(match[2])) < EXPEDITE_SINCE:
        since = ".".join(map(str, EXPEDITE_SINCE))
        yield f"{asked_for} Slurm has since {since}, and this is {version}; {advice}"
        return
    switches = ",".join(
        cluster.config.get(key, "")
        for key in ("SlurmctldParameters", "SchedulerParameters")
    )
    if EXPEDITE_SWITCH not in switches.split(","):
        yield (
            f"{asked_for} this site has not switched on (SlurmctldParameters={EXPEDITE_SWITCH});"
            f" {advice}"
        )


def _list_nodes(names: str) -> set[str]:
    """The nodes of a list such as n[1-4,7]; none where it is a file, or cannot be read."""
    if "/" in names:
        return set()
    try:
        return set(slurm.parse_hosts(names))
    except ValueError:
        return set()


def find_notes(profile: Profile) -> Iterator[str]:
    """What comes with an option."""
    if _expedites(profile):
        yield (
            f"slurm.sbatch.requeue: {EXPEDITE}: a job that fails by itself may stay in the queue,"
            " held; zsg cancel takes it out"
        )
