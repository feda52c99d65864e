"""Says which options of sbatch a profile may pass on by name, and who sets those that
it may not."""

from zsg_core.schema_errors import suggest_nearest

# Long options of sbatch(1), Slurm 22.05 to 25.05, that change where and how a job runs
# and that zsg leaves alone.
PASSED = frozenset(
    """acctg-freq batch bb bbf begin burst-buffer clusters cluster-constraint comment
    consolidate-segments contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu
    deadline delay-boot distribution exclude exclusive extra extra-node-info
    get-user-env gid gpu-bind gpu-freq gpus-per-socket gres-flags hint licenses
    mail-type mail-user mcs-label mem-bind mem-per-cpu mem-per-gpu mincpus network nice
    no-kill nodefile nodelist ntasks-per-core ntasks-per-gpu ntasks-per-socket
    oom-kill-step overcommit oversubscribe power prefer priority profile propagate
    reboot resv-ports segment sockets-per-node spread-job stepmgr switches thread-spec
    threads-per-core time-min tmp tres-bind tres-per-task uid use-min-nodes
    wait-all-nodes wckey""".split()
)

_KEYS = dict.fromkeys(
    ("account", "constraint", "gres", "partition", "qos", "reservation"), "slurm.{}"
)
_GPUS = dict.fromkeys(
    ("gpus", "gpus-per-node", "gpus-per-task"), "slurm.gpus_per_node and slurm.gpus_by"
)
SET_BY = {
    **{name: key.format(name) for name, key in _KEYS.items()},
    **_GPUS,
    "array": "slurm.array_parallelism and slurm.max_array_size",
    "container": "container.prefix",
    "cpus-per-task": "train.cpus_per_rank and prepare.cpus_per_rank",
    "export": "environment.keep and environment.set",
    "export-file": "environment.keep and environment.set",
    "mem": "slurm.mem_gb, prepare.mem_gb and evaluate.mem_gb",
    "nodes": "train.nodes",
    "ntasks": "train.ranks_per_node",
    "ntasks-per-node": "train.ranks_per_node",
    "signal": "slurm.signal_before_end_s",
    "time": "train.time_min and prepare.time_min",
}
OURS = frozenset(
    """chdir dependency error hold input job-name kill-on-invalid-dep no-requeue open-mode
    output parsable quiet requeue test-only verbose wait wrap""".split()
)


def explain_refusal(name: str) -> str | None:
    """Why an option cannot be passed on; None if it can."""
    if name in SET_BY:
        return f"zsg sets --{name} itself, by {SET_BY[name]}"
    if name in OURS:
        return f"zsg sets --{name} itself; its jobs depend on it"
    if name in PASSED:
        return None
    return (
        f"sbatch has no option --{name}.{suggest_nearest(name, sorted(PASSED))} Options by their"
        " long names, without dashes"
    )
