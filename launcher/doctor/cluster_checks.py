"""Says where a Slurm and the profile that describes it do not agree, and what to
change. Pure but for `check_cluster`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from jobs.runtime.slurm_calls import Runner, run_program
from launcher.clusters import cluster as clusters
from launcher.clusters import which_cluster
from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import JobSize, Profile, SlurmSettings, mem_gb
from launcher.doctor.diagnosis import OK, PROBLEM, WARNING, Diagnosis, make_diagnosis
from launcher.planning import accounting_limits, limits, partition_limits
from launcher.planning.accounting_limits import Terms
from launcher.planning.job_request import JobRequest, list_requests


def check_cluster(profile: Profile, run: Runner = run_program) -> list[Diagnosis]:
    """Every check of the cluster. ClusterError if the controller is away."""
    name = which_cluster.choose_cluster(profile)
    cluster = clusters.query_cluster(run, name)
    names = partition_limits.list_partitions(profile, cluster)
    checks = [
        *check_settings(cluster.config, profile),
        *check_preemption(cluster, profile),
        *check_partitions(cluster, profile),
        *check_accounts(cluster, profile),
    ]
    nodes = {
        partition: clusters.query_nodes(partition, run, name)
        for partition in names
        if partition in cluster.partitions
    }
    return [*checks, *check_nodes_of(nodes, profile)]


def check_settings(config: Mapping[str, str], profile: Profile) -> Iterator[Diagnosis]:
    """What of `scontrol show config` bears on the profile."""
    array_size = limits.array_size(profile, config)
    yield _check_array_size(array_size, profile)
    yield _check_kill_wait(config, profile)
    storage = config.get("AccountingStorageType", "none").rpartition("/")[2]
    yield _check_accounting(storage or "none", profile)
    yield _check_job_count(config, array_size)
    by_default = config.get("JobRequeue", "1") == "1"
    when = "by default" if by_default else "where a job asks for it, as zsg's do"
    yield Diagnosis("requeue", OK, f"after a node failure or a preemption, {when}")


def _check_array_size(array_size: int, profile: Profile) -> Diagnosis:
    limit = profile.slurm.max_array_size
    reason = ""
    if array_size < limit:
        reason = f", Slurm's MaxArraySize; the profile would allow {limit}"
    return Diagnosis("arrays", OK, f"up to {array_size} jobs each{reason}")


def _check_kill_wait(config: Mapping[str, str], profile: Profile) -> Diagnosis:
    wait = int(config.get("KillWait", "30").split()[0])
    expected = profile.slurm.kill_wait_s
    advice = ""
    if expected > wait:
        advice = f"a save would be cut short: slurm.kill_wait_s: {wait} in the profile"
    finding = f"{wait} s, the profile says {expected} s"
    return make_diagnosis("KillWait", WARNING, finding, advice)


def _check_job_count(config: Mapping[str, str], array_size: int) -> Diagnosis:
    jobs = int(config.get("MaxJobCount", "10000"))
    advice = ""
    if array_size > jobs:
        advice = (
            f"a full array of {array_size} would be refused: a smaller"
            " slurm.max_array_size"
        )
    finding = f"{jobs} jobs in the queue at most"
    return make_diagnosis("MaxJobCount", WARNING, finding, advice)


def _check_accounting(kind: str, profile: Profile) -> Diagnosis:
    if not profile.slurm.sacct:
        return Diagnosis(
            "accounting", OK, f"{kind}; not asked, as slurm.sacct is false"
        )
    advice = ""
    if kind == "none":
        advice = (
            "a job that died without a word stays `unknown`; ask the site for slurmdbd"
        )
    return make_diagnosis("accounting", WARNING, kind, advice)


def check_preemption(cluster: Cluster, profile: Profile) -> Iterator[Diagnosis]:
    """What happens to a run that makes way for another's, and whether it is warned: in
    each partition where they differ."""
    names = partition_limits.list_partitions(profile, cluster)
    rows = [cluster.partitions.get(name, {}) for name in names] or [{}]
    diagnoses = [_check_preemption_in(row, cluster) for row in rows]
    if len(set(diagnoses)) == 1:
        yield diagnoses[0]
        return
    for name, diagnosis in zip(names, diagnoses, strict=True):
        yield replace(diagnosis, what=f"preemption in {name}")


def _check_preemption_in(partition: Mapping[str, str], cluster: Cluster) -> Diagnosis:
    mode = partition.get("PreemptMode") or cluster.config.get("PreemptMode", "OFF")
    plugin = cluster.config.get("PreemptType", "preempt/none")
    if plugin == "preempt/none" or mode == "OFF":
        return Diagnosis("preemption", OK, "off")
    if mode not in ("REQUEUE", "CANCEL"):
        finding = f"{mode}: a run that makes way is suspended and resumes by itself"
        return Diagnosis("preemption", OK, finding)
    grace = partition.get("GraceTime", "0")
    after = ""
    if mode == "CANCEL":
        after = "; zsg submit resumes a run that made way"
    if "preempt_send_user_signal" in cluster.config.get("SlurmctldParameters", ""):
        return Diagnosis(
            "preemption",
            OK,
            f"{mode}, a run is told {grace} s before (preempt_send_user_signal){after}",
        )
    wait = cluster.config.get("KillWait", "30").split()[0]
    advice = (
        f"a run has GraceTime {grace} s and KillWait {wait} s to save, or goes back to its last"
        " state: set checkpoints.state_every_min, or ask the site for"
        " SlurmctldParameters=preempt_send_user_signal and a GraceTime"
    )
    return Diagnosis(
        "preemption", WARNING, f"{mode}, a run is told by SIGTERM only{after}", advice
    )


def check_partitions(cluster: Cluster, profile: Profile) -> Iterator[Diagnosis]:
    """Whether the profile's partitions exist, are up, and grant what is asked for, each
    for itself."""
    yield from _check_partition_names(cluster, profile)
    names = partition_limits.list_partitions(profile, cluster)
    requests = list_requests(profile)
    refused_in = {
        name: _list_refusals(name, cluster, requests)
        for name in names
        if name in cluster.partitions
    }
    for name in refused_in:
        label = "partition" if len(names) == 1 else f"partition {name}"
        yield _check_partition(label, name, cluster, refused_in)


def _check_partition_names(cluster: Cluster, profile: Profile) -> Iterator[Diagnosis]:
    names = partition_limits.list_partitions(profile, cluster)
    findings = partition_limits.check_names(profile, cluster)
    if findings.refusals:
        unknown = [
            f"there is no {name!r}" for name in names if name not in cluster.partitions
        ]
        finding = "; ".join(unknown) or "there is no default partition"
        names_here = ", ".join(cluster.partitions)
        advice = f"slurm.partition in the profile, one of: {names_here}"
        yield Diagnosis("partition", PROBLEM, finding, advice)
    for note in findings.notes:
        yield Diagnosis("partition", WARNING, "not looked at", note)


# why a partition does not grant a kind of job, by the kinds
RefusedKinds = Mapping[str, Sequence[str]]


def _list_refusals(
    name: str, cluster: Cluster, requests: Sequence[JobRequest]
) -> RefusedKinds:
    refused: dict[str, list[str]] = {}
    for request in requests:
        terms = _find_terms(name, cluster, request.profile)
        refusals = partition_limits.check_partition(name, cluster, request, terms)
        # what is in doubt is none: that flags or accounts are not known is told of itself
        refused[request.kind] = [r.text for r in refusals if not r.doubt]
    return refused


def _find_terms(name: str, cluster: Cluster, profile: Profile) -> Terms:
    return accounting_limits.find_terms(profile, cluster, name)


def _check_partition(
    label: str, name: str, cluster: Cluster, refused_in: Mapping[str, RefusedKinds]
) -> Diagnosis:
    """What a partition does not grant: a problem, unless another of the list does."""
    refusals = [text for texts in refused_in[name].values() for text in texts]
    notes = list(partition_limits.list_notes(name, cluster))
    row = cluster.partitions[name]
    mark = " (the default)" if name == cluster.default_partition else ""
    finding = f"{name}{mark}, {row.get('TotalNodes', '?')} nodes"
    is_down = row.get("State", "UP") != "UP" and len(refused_in) == 1
    is_problem = is_down or not _is_granted_elsewhere(name, cluster, refused_in)
    advice = "; ".join(dict.fromkeys([*notes, *refusals]))
    return make_diagnosis(label, PROBLEM if is_problem else WARNING, finding, advice)


def _is_granted_elsewhere(
    name: str, cluster: Cluster, refused_in: Mapping[str, RefusedKinds]
) -> bool:
    """Whether each kind of job that a partition refuses starts in another of the list."""
    if partition_limits.must_satisfy_all(cluster):
        return not any(refused_in[name].values())
    return all(
        any(not refused[kind] for refused in refused_in.values())
        for kind, texts in refused_in[name].items()
        if texts
    )


def check_accounts(cluster: Cluster, profile: Profile) -> Iterator[Diagnosis]:
    """Whether account and QoS are the user's to name, and what they grant."""
    if not cluster.enforces("associations"):
        return
    account = accounting_limits.find_account(profile, cluster) or "none"
    qos = f", QoS {profile.slurm.qos}" if profile.slurm.qos else ""
    refusals = [
        *accounting_limits.check_account(profile, cluster),
        *accounting_limits.check_qos(profile, cluster),
    ]
    yield make_diagnosis("account", PROBLEM, f"{account}{qos}", "; ".join(refusals))
    yield _check_limits(cluster, profile)


def _check_limits(cluster: Cluster, profile: Profile) -> Diagnosis:
    names = partition_limits.list_partitions(profile, cluster)
    refusals = [
        refusal
        for name in names
        for request in list_requests(profile)
        for refusal in accounting_limits.check_job(
            _find_terms(name, cluster, profile), request
        )
    ]
    quota = limits.find_submit_quota(profile, cluster)
    finding = "none on the number of jobs"
    if quota:
        finding = f"{quota.jobs} more jobs now: {quota.why}"
        if quota.jobs == 0:
            refusals.append("nothing more can be submitted before jobs have ended")
    refusals += limits.list_unknown(profile, cluster)
    advice = "; ".join(dict.fromkeys(refusals))
    return make_diagnosis("limits", WARNING, finding, advice)


def check_nodes_of(
    nodes: Mapping[str, Sequence[Mapping[str, str]]], profile: Profile
) -> Iterator[Diagnosis]:
    """The checks of the nodes of each partition. What one does not offer is no problem
    where another does."""
    checks_of = {name: list(check_nodes(rows, profile)) for name, rows in nodes.items()}
    is_offered = any(
        all(check.verdict == OK for check in checks) for checks in checks_of.values()
    )
    for name, checks in checks_of.items():
        for check in checks:
            label = check.what if len(nodes) == 1 else f"{check.what} in {name}"
            is_mild = is_offered and check.verdict == PROBLEM
            verdict = WARNING if is_mild else check.verdict
            yield replace(check, what=label, verdict=verdict)


def check_nodes(
    nodes: Sequence[Mapping[str, str]], profile: Profile
) -> Iterator[Diagnosis]:
    """Whether enough nodes offer the GPUs, the memory and the CPUs that a job asks for on each."""
    if not nodes:
        advice = "Slurm shows none of its nodes to you (PrivateData?): not looked at"
        yield Diagnosis("nodes", WARNING, "none", advice)
        return
    yield _check_gpus(nodes, profile)
    yield _check_memory(nodes, profile)
    cpus = max((int(node["cpus"].rstrip("+")) for node in nodes), default=0)
    for request in list_requests(profile):
        yield _check_cpus(request.kind, request.size, cpus)


def _check_gpus(nodes: Sequence[Mapping[str, str]], profile: Profile) -> Diagnosis:
    """Whether enough nodes of the partition have the GPUs that a training job asks for
    on each.

    A node counts where it has at least as many of the wanted type; without a type any
    will do. `gres` is as Slurm prints it, such as `gpu:a100:4(S:0-1)`; the sockets in
    brackets are left out of what is told.
    """
    slurm = profile.slurm
    gpu_type, count = _requested_gpus(slurm)
    fitting = [node for node in nodes if _count_gpus(node, gpu_type) >= count]
    requested = f"{count} of type {gpu_type}" if gpu_type else f"{count}"
    advice = ""
    if count and len(fitting) < profile.train.nodes:
        keys = "slurm.gres" if slurm.gres else "slurm.gpus_per_node and slurm.gpu_type"
        advice = (
            f"{len(fitting)} nodes have {requested}, a run wants {profile.train.nodes}:"
            f" {keys} in the profile"
        )
    offers = sorted({node["gres"].partition("(")[0] for node in nodes})
    finding = f"a node has {' or '.join(offers) or 'none'}, asked for are {requested}"
    return make_diagnosis("GPUs", PROBLEM, finding, advice)


def _requested_gpus(slurm: SlurmSettings) -> tuple[str, int]:
    """The type of the GPUs that a node must have, empty for any, and their number."""
    if not slurm.gres:
        return slurm.gpu_type or "", slurm.gpus_per_node
    return next(iter(clusters.parse_gpus(slurm.gres).items()), ("", 0))


def _count_gpus(node: Mapping[str, str], gpu_type: str) -> int:
    gpus = clusters.parse_gpus(node["gres"])
    return gpus.get(gpu_type, 0) if gpu_type else sum(gpus.values())


def _check_memory(nodes: Sequence[Mapping[str, str]], profile: Profile) -> Diagnosis:
    """Whether the largest node has the memory that any kind of job asks for.

    A request that is not set counts as nothing: the site's default is the site's to
    grant. `sinfo` marks the least of several nodes' memories with `+`; GB are 1024 MB,
    as Slurm counts.
    """
    memory_mb = max((int(node["memory_mb"].rstrip("+")) for node in nodes), default=0)
    requests = {
        key: gb
        for key, gb in (
            ("slurm", profile.slurm.mem_gb),
            ("prepare", mem_gb(profile, "prepare")),
            ("evaluate", mem_gb(profile, "evaluate")),
        )
        if gb is not None
    }
    largest = max(requests, key=lambda key: requests[key], default="slurm")
    requested_gb = requests.get(largest)
    advice = ""
    if requested_gb is not None and requested_gb * 1024 > memory_mb:
        advice = f"{largest}.mem_gb: {memory_mb // 1024} or less in the profile"
    requested = f"{requested_gb} GB" if requested_gb else "the site's default"
    finding = f"a node has {memory_mb / 1024:.0f} GB at most, asked for is {requested}"
    return make_diagnosis("memory", PROBLEM, finding, advice)


def _check_cpus(kind: str, size: JobSize, available: int) -> Diagnosis:
    requested = size.ranks_per_node * size.cpus_per_rank
    advice = ""
    if requested > available:
        fitting = max(1, available // size.ranks_per_node)
        advice = f"{kind}.cpus_per_rank: {fitting} in the profile"
    finding = f"a node has {available} at most, asked for are {requested}"
    return make_diagnosis(f"CPUs of {kind} jobs", PROBLEM, finding, advice)
