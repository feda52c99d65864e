"""Says where a Slurm and the profile that describes it do not agree, and what to
change. Pure but for `check_cluster`."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence

from launcher.clusters import cluster as clusters
from launcher.clusters import which_cluster
from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile
from launcher.clusters.slurm import Runner
from launcher.doctor.diagnosis import OK, PROBLEM, WARNING, Diagnosis, make_diagnosis
from launcher.planning import limits


def check_cluster(profile: Profile, run: Runner = subprocess.run) -> list[Diagnosis]:
    """Every check of the cluster. ClusterError if the controller is away."""
    named = which_cluster.choose_cluster(profile)
    found = clusters.query_cluster(run, named)
    checks = [
        *check_settings(found.config, profile),
        check_preemption(found, profile),
        check_partition(found, profile),
    ]
    checks += check_accounts(found, profile)
    if (name := profile.slurm.partition or found.default_partition) in found.partitions:
        checks += check_nodes(clusters.query_nodes(str(name), run, named), profile)
    return checks


def check_settings(config: Mapping[str, str], profile: Profile) -> Iterator[Diagnosis]:
    """What of `scontrol show config` bears on the profile."""
    size, wish = limits.array_size(profile, config), profile.slurm.max_array_size
    smaller = (
        f", Slurm's MaxArraySize; the profile would allow {wish}" if size < wish else ""
    )
    yield Diagnosis("arrays", OK, f"up to {size} jobs each{smaller}")
    wait, told = int(config.get("KillWait", "30").split()[0]), profile.slurm.kill_wait_s
    advice = (
        f"a save would be cut short: slurm.kill_wait_s: {wait} in the profile"
        if told > wait
        else ""
    )
    yield make_diagnosis(
        "KillWait", WARNING, f"{wait} s, the profile says {told} s", advice
    )
    yield _accounting(
        config.get("AccountingStorageType", "none").rpartition("/")[2] or "none",
        profile,
    )
    jobs = int(config.get("MaxJobCount", "10000"))
    advice = (
        f"a full array of {size} would be refused: a smaller slurm.max_array_size"
        if size > jobs
        else ""
    )
    yield make_diagnosis(
        "MaxJobCount", WARNING, f"{jobs} jobs in the queue at most", advice
    )
    default = (
        "by default"
        if config.get("JobRequeue", "1") == "1"
        else "where a job asks for it, as zsg's do"
    )
    yield Diagnosis("requeue", OK, f"after a node failure or a preemption, {default}")


def _accounting(kind: str, profile: Profile) -> Diagnosis:
    if not profile.slurm.sacct:
        return Diagnosis(
            "accounting", OK, f"{kind}; not asked, as slurm.sacct is false"
        )
    advice = (
        ""
        if kind != "none"
        else "a job that died without a word stays `unknown`; ask the site for slurmdbd"
    )
    return make_diagnosis("accounting", WARNING, kind, advice)


def check_preemption(found: Cluster, profile: Profile) -> Diagnosis:
    """What happens to a run that makes way for another's, and whether it is warned."""
    name = profile.slurm.partition or found.default_partition or ""
    mode = found.partitions.get(name, {}).get("PreemptMode") or found.config.get(
        "PreemptMode", "OFF"
    )
    grace = found.partitions.get(name, {}).get("GraceTime", "0")
    if (
        found.config.get("PreemptType", "preempt/none") == "preempt/none"
        or mode == "OFF"
    ):
        return Diagnosis("preemption", OK, "off")
    if mode not in ("REQUEUE", "CANCEL"):
        return Diagnosis(
            "preemption",
            OK,
            f"{mode}: a run that makes way is suspended and goes on by itself",
        )
    warned = "preempt_send_user_signal" in found.config.get("SlurmctldParameters", "")
    after = "" if mode == "REQUEUE" else "; zsg submit goes on with a run that made way"
    if warned:
        return Diagnosis(
            "preemption",
            OK,
            f"{mode}, a run is told {grace} s before (preempt_send_user_signal){after}",
        )
    wait = found.config.get("KillWait", "30").split()[0]
    advice = (
        f"a run has GraceTime {grace} s and KillWait {wait} s to save, or goes back to its last"
        " state: set checkpoints.state_every_min, or ask the site for"
        " SlurmctldParameters=preempt_send_user_signal and a GraceTime"
    )
    return Diagnosis(
        "preemption", WARNING, f"{mode}, a run is told by SIGTERM only{after}", advice
    )


def check_partition(found: Cluster, profile: Profile) -> Diagnosis:
    """Whether the profile's partition exists, is up, and grants what is asked for."""
    known, default = found.partitions, found.default_partition
    name = profile.slurm.partition or default
    if name is None or name not in known:
        said = f"there is no {name!r}" if name else "there is no default partition"
        return Diagnosis(
            "partition",
            PROBLEM,
            said,
            f"slurm.partition in the profile, one of: {', '.join(known)}",
        )
    row = known[name]
    advice = (
        [f"it is {row['State']}: jobs wait until it is up"]
        if row.get("State", "UP") != "UP"
        else []
    )
    for kind, size in (("prepare", profile.prepare), ("train", profile.train)):
        advice += limits.partition(name, row, profile, kind, size)
    mark = " (the default)" if name == default else ""
    said = f"{name}{mark}, {row.get('TotalNodes', '?')} nodes"
    return make_diagnosis("partition", PROBLEM, said, "; ".join(dict.fromkeys(advice)))


def check_accounts(found: Cluster, profile: Profile) -> Iterator[Diagnosis]:
    """Whether account and QoS are the user's to name, and what they grant."""
    if not found.enforces("associations"):
        return
    whose = profile.slurm.account or next(
        (row["Account"] for row in found.associations if row.get("DefAssoc") == "Yes"),
        "none",
    )
    said = f"{whose}{f', QoS {profile.slurm.qos}' if profile.slurm.qos else ''}"
    advice = "; ".join([*limits.account(profile, found), *limits.qos(profile, found)])
    yield make_diagnosis("account", PROBLEM, said, advice)
    binding = limits.granted(profile, found)
    advice = [
        refused
        for kind, size in (("prepare", profile.prepare), ("train", profile.train))
        for owner, row in binding
        for refused in limits.per_job(owner, row, profile, kind, size)
    ]
    space = limits.room(profile, found)
    if space is not None and space.jobs == 0:
        advice.append("nothing more can be submitted before jobs have ended")
    said = (
        f"{space.jobs} more jobs now: {space.why}"
        if space
        else "none on the number of jobs"
    )
    yield make_diagnosis("limits", WARNING, said, "; ".join(dict.fromkeys(advice)))


def check_nodes(
    rows: Sequence[Mapping[str, str]], profile: Profile
) -> Iterator[Diagnosis]:
    """Whether enough nodes offer the GPUs, the memory and the CPUs that a job asks for on each."""
    slurm, size = profile.slurm, profile.train
    offered = sorted({row["gres"].partition("(")[0] for row in rows})
    wanted = (
        clusters.parse_gpus(slurm.gres)
        if slurm.gres
        else {slurm.gpu_type or "": slurm.gpus_per_node}
    )
    [(kind, count)] = list(wanted.items())[:1] or [("", 0)]
    fitting = [row for row in rows if _gpus_of(row, kind) >= count]
    asked = f"{count} of type {kind}" if kind else f"{count}"
    advice = ""
    if count and len(fitting) < size.nodes:
        change = (
            "slurm.gres" if slurm.gres else "slurm.gpus_per_node and slurm.gpu_type"
        )
        advice = (
            f"{len(fitting)} nodes have {asked}, a run wants {size.nodes}: {change} in"
            " the profile"
        )
    yield make_diagnosis(
        "GPUs",
        PROBLEM,
        f"a node has {' or '.join(offered) or 'none'}, asked for are {asked}",
        advice,
    )
    memory = max((int(row["memory_mb"].rstrip("+")) for row in rows), default=0)
    too_much = slurm.mem_gb is not None and slurm.mem_gb * 1024 > memory
    advice = (
        f"slurm.mem_gb: {memory // 1024} or less in the profile" if too_much else ""
    )
    said = f"{slurm.mem_gb} GB" if slurm.mem_gb else "the site's default"
    yield make_diagnosis(
        "memory",
        PROBLEM,
        f"a node has {memory / 1024:.0f} GB at most, asked for is {said}",
        advice,
    )
    most = max((int(row["cpus"].rstrip("+")) for row in rows), default=0)
    for name, own in (("prepare", profile.prepare), ("train", profile.train)):
        cpus = own.ranks_per_node * own.cpus_per_rank
        advice = (
            f"{name}.cpus_per_rank: {max(1, most // own.ranks_per_node)} in the profile"
            if cpus > most
            else ""
        )
        yield make_diagnosis(
            f"CPUs of {name} jobs",
            PROBLEM,
            f"a node has {most} at most, asked for are {cpus}",
            advice,
        )


def _gpus_of(row: Mapping[str, str], kind: str) -> int:
    there = clusters.parse_gpus(row["gres"])
    return there.get(kind, 0) if kind else sum(there.values())
