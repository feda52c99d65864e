"""Says which options of sbatch a profile may pass on by name, and who sets those that
it may not."""

import re
from collections.abc import Callable
from functools import cache

from jobs.runtime import slurm_calls, slurm_environment
from zsg_core.errors import ClusterError
from zsg_core.schema_errors import suggest_nearest

# Long options of sbatch(1), Slurm 22.05 to 26.05, that change where and how a job runs
# and that zsg leaves alone.
PASSED = frozenset(
    """acctg-freq batch bb bbf begin burst-buffer clusters cluster-constraint comment
    consolidate-segments contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu
    deadline delay-boot distribution exclude exclusive extra extra-node-info
    get-user-env gid gpu-bind gpu-freq gpus-per-socket gres-flags hint ignore-pbs
    licenses mail-type mail-user mcs-label mem-bind mem-per-cpu mem-per-gpu mem-update
    mincpus network nice no-kill nodefile nodelist ntasks-per-core ntasks-per-gpu ntasks-per-socket
    oom-kill-step overcommit oversubscribe power prefer priority profile propagate
    reboot resources resv-ports segment sockets-per-node spread-job spread-segments stepmgr
    switches thread-spec
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
    "container-id": "container.prefix",
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


# Values by which a profile says more of an option that zsg sets itself.
EXPEDITE = "expedite"
OUR_VALUES = {"requeue": (EXPEDITE,)}
_HELP_S = 10.0  # sbatch --help asks nobody


@cache
def list_options_here() -> frozenset[str]:
    """The long options that the sbatch of this machine says it has, those of a site's
    plugins among them; none where it is not at hand."""
    env = slurm_environment.make_call_environment()
    try:
        answer = slurm_calls.call_program(["sbatch", "--help"], _HELP_S, env)
    except ClusterError:
        return frozenset()
    return parse_help(answer.stdout)


def parse_help(text: str) -> frozenset[str]:
    """The long options of `sbatch --help`: those with which its lines begin."""
    return frozenset(
        re.findall(r"^[ \t]*(?:-\w, +)?--([a-z][a-z0-9-]*)", text, flags=re.M)
    )


def explain_refusal(
    name: str,
    value: str | int = "",
    list_options: Callable[[], frozenset[str]] = list_options_here,
) -> str | None:
    """Why an option cannot be passed on with a value; None if it can.

    `list_options`: what the sbatch at hand has, asked where zsg does not know an option:
    a newer Slurm has more, and so has a site by its plugins.
    """
    if value in OUR_VALUES.get(name, ()):
        return None
    if name in SET_BY:
        return f"zsg sets --{name} itself, by {SET_BY[name]}"
    if name in OURS:
        values = "".join(
            f", but for --{name}={word}" for word in OUR_VALUES.get(name, ())
        )
        return f"zsg sets --{name} itself{values}; its jobs depend on it"
    if name in PASSED or name in list_options():
        return None
    return (
        f"sbatch has no option --{name}.{suggest_nearest(name, sorted(PASSED))} Options by their"
        " long names, without dashes"
    )
