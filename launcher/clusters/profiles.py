"""Describes a cluster: what a profile file may say."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, ValidationError

from jobs.contract import continuation
from jobs.runtime.slurm_environment import CLUSTERS, REACHED_BY, is_of_slurm
from launcher.clusters import profile_files, sbatch_options, setup_script
from launcher.clusters.profile_files import Layers
from zsg_core import addresses
from zsg_core.schema_errors import first_problem
from zsg_core.settings.fields import (
    Count,
    Minutes,
    Nodes,
    Positive,
    RanksPerNode,
    Strict,
)

# what Slurm's options are made of; no blank, no quote
Word = Annotated[str, Field(pattern=r"^[\w.,:@=+/-]+$")]
# a100&ib, [rack1|rack2]: quoted where written
Features = Annotated[str, Field(pattern=r"^[\w.,:@=+/&|*!()\[\]-]+$")]
Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.:-]*$")]


class SlurmSettings(Strict):
    """What sbatch and srun are told."""

    partition: Word | None = Field(default=None, description="partition of every job")
    account: Word | None = Field(default=None, description="account to charge")
    qos: Word | None = Field(default=None, description="quality of service")
    constraint: Features | None = Field(
        default=None, description="node features, e.g. a100&ib"
    )
    reservation: Word | None = Field(default=None, description="reservation to run in")
    gpus_by: Literal["gpus-per-node", "gres", "gpus", "gpus-per-task"] = Field(
        default="gpus-per-node",
        description=(
            "the option by which this site wants GPUs asked for; gpus-per-task binds one GPU to"
            " each rank"
        ),
    )
    gpu_type: Word | None = Field(
        default=None, description="type of GPU as gres.conf names it, e.g. a800"
    )
    gres: Word | None = Field(
        default=None,
        description=(
            "generic resources of train jobs, written out, e.g. gpu:a800:8; in place of gpus_by"
        ),
    )
    mem_gb: Count | None = Field(
        default=None, description="memory per node; null = the site's default"
    )
    gpus_per_node: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="GPUs asked for on each node of a train job"
    )
    array_parallelism: Count = Field(
        default=64, description="most tasks of an array that run at once"
    )
    max_array_size: Count = Field(
        default=1000,
        description=(
            "largest array, if Slurm's MaxArraySize is not smaller; larger groups are split"
        ),
    )
    signal_before_end_s: Count = Field(
        default=120,
        description="seconds before the time limit at which a job is told to stop",
    )
    kill_wait_s: Count = Field(
        default=30,
        description=(
            "the site's KillWait, seconds from SIGTERM to SIGKILL: a save must fit well within"
        ),
    )
    on_time_limit: Literal["requeue", "chain", "none"] = Field(
        default="requeue",
        description=(
            "how a run goes on that its time limit has stopped: requeue = its job goes back into"
            " the queue (Slurm holds it for two minutes); chain = jobs queued beforehand take over,"
            " where requeueing is forbidden; none = the next zsg submit"
        ),
    )
    max_continues: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description=(
            "how often a run may go on by itself; null = 20, or 3 in a chain, which queues so many"
            " jobs behind each run"
        ),
    )
    srun_args: list[Word] = Field(
        default=["--kill-on-bad-exit=1", "--wait=60"],
        description="further arguments of srun: one dead rank ends the step",
    )
    sbatch: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")], Word | int | Literal[True]
    ] = Field(
        default={},
        description=(
            "further options of sbatch by their long names, e.g. {exclusive: true, nice: 100}"
        ),
    )
    sacct: bool = Field(
        default=True,
        description="whether zsg may ask sacct what became of jobs; false where it is off or slow",
    )

    @property
    def cluster(self) -> str | None:
        """The cluster that the profile names; None for the default one."""
        name = self.sbatch.get("clusters")
        # of `true` this is no name, and refused
        return None if name is None else str(name)

    @property
    def go_on(self) -> dict[str, Any] | None:
        """The rule that a train job is given: how it goes on after its time limit, and
        at most how often."""
        policy = continuation.choose_policy(self.on_time_limit, self.max_continues)
        return msgspec.to_builtins(policy) if policy else None

    @property
    def links(self) -> int:
        """How many jobs are queued behind each train job."""
        policy = continuation.choose_policy(self.on_time_limit, self.max_continues)
        return policy.most if policy and policy.by == continuation.CHAIN else 0


class JobSize(Strict):
    """The size and time limit of a kind of job."""

    nodes: Nodes = Field(default=1, description="nodes")
    ranks_per_node: RanksPerNode = Field(
        default=1, description="processes per node, one per GPU"
    )
    cpus_per_rank: Count = Field(
        default=1, description="CPUs, and so threads, of each process"
    )
    time_min: Minutes = Field(default=60, description="time limit in minutes")


class EvaluateSize(JobSize):
    """The size and patience of an evaluate job: one process, with one GPU where the
    profile has any."""

    idle_min: Positive = Field(
        default=5.0, description="minutes without a new snapshot after which it ends"
    )


class Tracking(Strict):
    """Where MLflow is."""

    uri: str | None = Field(
        default=None,
        description="MLflow's tracking URI; null = mlflow.db in the workspace",
    )
    live: bool = Field(
        default=False,
        description=(
            "whether the nodes reach tracking.uri, a server, and send to it while they train; else "
            "`zsg sync` does. Local jobs are always followed"
        ),
    )


class DeepSpeedSettings(Strict):
    """How DeepSpeed divides a model; changes memory and speed, not a run's identity."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = Field(
        default=1, description="ZeRO stage"
    )


class TrainerSettings(Strict):
    """How a train job computes; changes memory and speed, not a run's identity."""

    recompute: bool | None = Field(
        default=None,
        description=(
            "compute activations again for the backward pass; null = where a run fits only so"
        ),
    )
    compile: bool = Field(
        default=False,
        description=(
            "compile each layer but its attention; needs a C++ compiler on the nodes, not for"
            " ZeRO 3"
        ),
    )


class SmokeSettings(Strict):
    """What `--smoke` makes of every run."""

    hidden: Annotated[int, Field(ge=1, le=65_536)] = Field(
        default=128,
        description="hidden size of the tiny model that stands for the grid's",
    )
    layers: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=2, description="its layers"
    )
    tasks: Count = Field(
        default=8, description="first training and held-out tasks of the lists"
    )
    per_task: Count = Field(
        default=8, description="instances of a training task; held-out tasks have one"
    )
    steps: Count = Field(
        default=4,
        description="steps, a checkpoint at each; more where a claim needs them",
    )
    time_min: Minutes = Field(default=15, description="time limit in minutes")


class Gpu(Strict):
    """The GPUs of a train job, as far as estimates need to know them."""

    name: str = Field(description="for tables, e.g. A800-80G", pattern=r"^[\w.+-]+$")
    memory_gb: Positive = Field(
        description=(
            "memory of one GPU as it is sold, e.g. 80, taken as 1e9 bytes each; what is beyond is"
            " the driver's"
        )
    )
    tflops: Positive = Field(
        description="its dense bf16 peak in 1e12 operations a second, e.g. 312 of an A100"
    )
    mfu: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.4,
        description="share of the peak that training reaches; turns operations into GPU-hours",
    )


class Environment(Strict):
    """What a job sees of the shell that submits it: nothing but this. Login files on
    the node are not read, either."""

    keep: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]] = Field(
        default=[
            "HOME",
            "LANG",
            "LD_LIBRARY_PATH",
            "LOGNAME",
            "PATH",
            "SLURM_CONF",
            "TMPDIR",
            "USER",
        ],
        description="variables handed on to the jobs",
    )
    set: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")],
        Annotated[str, Field(pattern=r"^[\w.,:@=+/^-]*$")],
    ] = Field(default={}, description="variables set for the jobs")
    cache: Annotated[
        str, Field(pattern=r"^(/[\w.-]+|/?\$[A-Za-z_]\w*)(/([\w.-]+|\$[A-Za-z_]\w*))*$")
    ] = Field(
        default="$TMPDIR",
        description=(
            "folder on the node's own disk for what is compiled there; a variable at its start that"
            " the node lacks is /tmp"
        ),
    )

    def of(self, size: JobSize) -> dict[str, str]:
        """The variables set for a job. The working directory must not shadow our
        packages on the nodes."""
        return {
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": str(size.cpus_per_rank),
            **self.set,
        }


class Network(Strict):
    """Over which devices nodes speak to one another, where NCCL and gloo cannot be left
    to choose."""

    interfaces: list[Device] = Field(
        default=[],
        description="network interfaces, e.g. [bond0]: NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME",
    )
    hcas: list[Device] = Field(
        default=[],
        description="InfiniBand adapters, e.g. [mlx5_0, mlx5_1]: NCCL_IB_HCA",
    )

    @property
    def variables(self) -> dict[str, str]:
        """As NCCL and gloo read them. `=` makes NCCL take whole names, where it would
        take beginnings."""
        made = {}
        if self.interfaces:
            names = ",".join(self.interfaces)
            made |= {"NCCL_SOCKET_IFNAME": f"={names}", "GLOO_SOCKET_IFNAME": names}
        return made | ({"NCCL_IB_HCA": f"={','.join(self.hcas)}"} if self.hcas else {})


class Container(Strict):
    """What starts Python on the nodes, where it lives in a container."""

    prefix: list[Word] = Field(
        default=[],
        description=(
            "words before Python in each srun step, e.g. [apptainer, exec, --nv, /images/zsg.sif]"
        ),
    )
    python: Word | None = Field(
        default=None,
        description="Python within the container, with zsg in it; null = the one that calls zsg",
    )


class Profile(Strict):
    """A cluster, or this machine."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = Field(
        description="the profile's name"
    )
    inherits: str | None = Field(
        default=None,
        description="name or file of the profile that this one is laid over, key by key",
    )
    kind: Literal["local", "slurm"] = Field(
        description="local: this machine, no scheduler; slurm: sbatch"
    )
    workspace: str = Field(
        default="zsg-work",
        description="folder of all runs; relative to where zsg is called",
    )
    share: Literal["nobody", "group"] = Field(
        default="nobody",
        description=(
            "whose a workspace is that zsg makes: nobody else's, or group = the group of the folder"
            " it lies in may read and write it, too; what is run is never taken from another member"
        ),
    )
    internet: bool = Field(
        default=False,
        description=(
            "whether zsg may fetch data sets of the Hugging Face hub, where it runs; jobs never do"
        ),
    )
    max_parallel: Count = Field(default=2, description="local only: jobs side by side")
    hang_min: Count = Field(
        default=20,
        description=(
            "minutes without a step after which `zsg status` flags a run; evaluations and saves may"
            " take three times their longest so far"
        ),
    )
    max_gpus: Count | None = Field(
        default=None,
        description="guard: most GPUs that one submit may hold at once; more is refused",
    )
    max_gpu_hours: Positive | None = Field(
        default=None,
        description=(
            "guard: most GPU-hours of one submit, as estimated, or by time limits where no"
            " estimate is"
        ),
    )
    prepare: JobSize = JobSize()
    train: JobSize = JobSize()
    evaluate: EvaluateSize = EvaluateSize()
    deepspeed: DeepSpeedSettings = DeepSpeedSettings()
    trainer: TrainerSettings = TrainerSettings()
    slurm: SlurmSettings = SlurmSettings()
    gpu: Gpu | None = Field(
        default=None,
        description="the GPUs, for estimates; null = CPU nodes: no memory refusal, no GPU-hours",
    )
    smoke: SmokeSettings = SmokeSettings()
    tracking: Tracking = Tracking()
    environment: Environment = Environment()
    network: Network = Network()
    container: Container = Container()
    setup: list[str] = Field(
        default=[],
        description=(
            "shell lines run verbatim at the start of every Slurm job, which one that fails ends"
            " (`… || true` may fail); plan shows them"
        ),
    )

    def variables(self, size: JobSize) -> dict[str, str]:
        """The variables set for a job."""
        return {**self.network.variables, **self.environment.of(size)}


WITH_GPUS = ("train", "evaluate", "sample")  # kinds of jobs


def gpus_per_node(profile: Profile, kind: str) -> int:
    """The GPUs that a kind of job has on each of its nodes."""
    most = profile.slurm.gpus_per_node if profile.kind == "slurm" else 0
    return {"train": most, "evaluate": min(1, most), "sample": min(1, most)}.get(
        kind, 0
    )


def handing_on(profile: Profile, variables: Sequence[str]) -> Profile:
    """The profile, under which jobs are given these variables too."""
    keep = list(dict.fromkeys([*profile.environment.keep, *variables]))
    return profile.model_copy(
        update={"environment": profile.environment.model_copy(update={"keep": keep})}
    )


def load(name: str, beside: Path) -> Profile:
    """The profile of a name, or of a path that ends in .yaml; `beside` is the grid's folder.

    Raises UserError with file and line for what is wrong in it or in a profile it inherits from.
    """
    return of(profile_files.read(name, beside))


def of(layers: Layers) -> Profile:
    """The profile that the files make together."""
    try:
        profile = Profile.model_validate(layers.value)
    except ValidationError as error:
        place, message = first_problem(error, Profile)
        raise layers.error(place, message) from None
    _refuse_what_is_not_honoured(layers, profile)
    if profile.prepare.nodes * profile.prepare.ranks_per_node != 1:
        raise layers.error(
            ("prepare",),
            "a prepare job is one process: nodes and ranks_per_node must be 1",
        )
    if profile.evaluate.nodes * profile.evaluate.ranks_per_node != 1:
        raise layers.error(
            ("evaluate",),
            "an evaluate job is one process: nodes and ranks_per_node must be 1",
        )
    return profile


def _refuse_what_is_not_honoured(layers: Layers, profile: Profile) -> None:
    slurm = profile.slurm
    if profile.kind == "local" and profile.setup:
        raise layers.error(
            ("setup",), "`setup` lines run in Slurm jobs only; a local profile has none"
        )
    if unread := setup_script.refusal(profile.setup):
        raise layers.error(("setup", unread[0]), f"setup: {unread[1]}")
    if refusal := _uri_refusal(profile.tracking.uri):
        raise layers.error(("tracking", "uri"), refusal)
    if profile.tracking.live and (
        profile.kind == "local" or not _is_server(profile.tracking.uri)
    ):
        message = (
            "tracking.live is for Slurm jobs whose nodes reach a server: kind: slurm, and"
            " tracking.uri: http://…"
        )
        raise layers.error(("tracking", "live"), message)
    if profile.kind == "local" and profile.container.prefix:
        raise layers.error(
            ("container",),
            "containers are for Slurm jobs only; a local profile starts Python itself",
        )
    if profile.container.python and not profile.container.prefix:
        raise layers.error(
            ("container", "python"),
            "container.python counts only with a container.prefix",
        )
    if profile.gpu and (profile.kind == "local" or not slurm.gpus_per_node):
        raise layers.error(
            ("gpu",),
            "`gpu` describes GPUs, but train jobs get none: slurm.gpus_per_node is 0",
        )
    if profile.trainer.compile and profile.deepspeed.zero_stage == 3:
        message = (
            "ZeRO 3 frees and gathers weights within the layers, which cannot be compiled; use"
            " stages up to 2"
        )
        raise layers.error(("trainer", "compile"), message)
    if slurm.gres and (slurm.gpu_type or slurm.gpus_by != "gpus-per-node"):
        said = "gpu_type" if slurm.gpu_type else "gpus_by"
        raise layers.error(
            ("slurm", said),
            f"slurm.gres is written out and counts alone; leave slurm.{said} out",
        )
    for name in slurm.sbatch:
        if why := sbatch_options.refusal(name):
            raise layers.error(("slurm", "sbatch", name), f"slurm.sbatch.{name}: {why}")
    if slurm.cluster is not None and not is_one_cluster(slurm.cluster):
        message = (
            f"slurm.sbatch.clusters: {slurm.cluster} is not one cluster. sbatch would take the one"
            " that starts a job first, and nobody could tell where it is: name one, or write a"
            " profile for each"
        )
        raise layers.error(("slurm", "sbatch", "clusters"), message)
    for name in profile.environment.keep:
        if is_of_slurm(name) and name not in (*REACHED_BY, CLUSTERS):
            message = (
                f"environment.keep: {name} is an option of Slurm's own programs, and zsg keeps such"
                " out of its calls and its jobs; say it by slurm.sbatch or slurm.srun_args"
            )
            raise layers.error(("environment", "keep"), message)
    if doubled := sorted(
        profile.network.variables.keys() & profile.environment.set.keys()
    ):
        raise layers.error(
            ("environment", "set", doubled[0]),
            f"`network` sets {doubled[0]} already; leave one out",
        )
    for kind, size in (
        ("prepare", profile.prepare),
        ("train", profile.train),
        ("evaluate", profile.evaluate),
    ):
        if profile.kind == "slurm" and slurm.signal_before_end_s >= 60 * size.time_min:
            message = (
                f"signal_before_end_s is not less than {kind}.time_min: every job would be stopped"
                " at its start"
            )
            raise layers.error(("slurm", "signal_before_end_s"), message)


def is_one_cluster(name: str) -> bool:
    """Whether this names one cluster, not several or all."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is not None and name not in (
        "all",
        "True",
    )


def _is_server(uri: str | None) -> bool:
    return uri is not None and uri.startswith(("http://", "https://"))


def _uri_refusal(uri: str | None) -> str | None:
    """Why this is no address of an MLflow; a password in it is not repeated."""
    if uri is None or (
        uri.startswith("sqlite:////")
        and uri.isprintable()
        and not {"?", "#"} & set(uri)
    ):
        return None
    if not uri.isprintable():
        return (
            "tracking.uri holds a line end, a control character or another mark that does not"
            " show"
        )
    if "@" in uri:
        return (
            "tracking.uri names a user, and zsg would write it into its records: leave it out, and"
            " set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or for nodes too the file"
            " ~/.mlflow/credentials"
        )
    why = (
        addresses.refusal(uri) if _is_server(uri) else "is no MLflow that zsg can fill"
    )
    if why is None:
        return None
    return (
        f"tracking.uri {why}; give http://HOST:PORT (see zsg server), a file by its "
        "whole path as sqlite:////FILE, or null for mlflow.db in the workspace"
    )
