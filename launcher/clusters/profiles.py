"""Describes a cluster: what a profile file may say."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import structs
from pydantic import Field, ValidationError

from jobs.contract import continuation, node_check
from jobs.contract.job_file import Policy
from jobs.contract.notices import Kind as NoticeKind
from jobs.contract.notices import Receiver, Way
from jobs.runtime.slurm_environment import CLUSTERS, REACHED_BY, is_slurm_variable
from launcher.clusters import (
    profile_files,
    sbatch_options,
    setup_script,
    user_settings,
)
from launcher.clusters.profile_files import Layers
from launcher.workspace.faults import Faults
from launcher.workspace.yaml_file import Place
from zsg_core import addresses
from zsg_core.schema_errors import find_first_problem, find_problems
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
# a100&ib, [rack1|rack2], n[1-4,7]: quoted where written
Features = Annotated[str, Field(pattern=r"^[\w.,:@=+/&|*!()\[\]-]+$")]
# an option's value on one line: quoted where it is written, but Slurm reads \ even so
OptionText = Annotated[str, Field(pattern=r"^[\w .,:;@=+/&|*!?()\[\]{}<>#%^~'\"-]+$")]
MOST_RECEIVERS = 10
_ADDRESS = re.compile(r"https?:[^'\"]*", re.IGNORECASE)
Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.:-]*$")]


class SlurmSettings(Strict):
    """What sbatch and srun are told."""

    partition: Word | None = Field(
        default=None,
        description=(
            "Partition of every job, or several, such as main,long, of which Slurm takes "
            "the one that is free first. Null means the site's default."
        ),
    )
    account: Word | None = Field(
        default=None,
        description="Account that jobs are charged to. Null means the user's default.",
    )
    qos: Word | None = Field(
        default=None,
        description="Quality of service of every job. Null means the user's default.",
    )
    constraint: Features | None = Field(
        default=None,
        description="Features that nodes must have, such as a100&ib. Null means any node.",
    )
    reservation: Word | None = Field(
        default=None, description="Reservation that jobs run in. Null means none."
    )
    gpus_by: Literal["gpus-per-node", "gres", "gpus", "gpus-per-task"] = Field(
        default="gpus-per-node",
        description=(
            "The option of sbatch by which this site wants GPUs to be asked for. "
            "gpus-per-task binds one GPU to each rank."
        ),
    )
    gpu_type: Word | None = Field(
        default=None,
        description="Type of GPU, as gres.conf names it, such as a800. Null means any type.",
    )
    gres: Word | None = Field(
        default=None,
        description=(
            "Generic resources of train jobs, written out, such as gpu:a800:8. It takes "
            "the place of gpus_by."
        ),
    )
    mem_gb: Count | None = Field(
        default=None,
        description="Memory of each node, in GB. Null means the site's default.",
    )
    gpus_per_node: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0,
        description="GPUs asked for on each node of a train job; 0 = CPU nodes.",
    )
    array_parallelism: Count = Field(
        default=64, description="Most tasks of a job array that run at once."
    )
    max_array_size: Count = Field(
        default=1000,
        description=(
            "Largest job array; larger groups of runs are split. Slurm's MaxArraySize "
            "counts where it is smaller."
        ),
    )
    signal_before_end_s: Count = Field(
        default=120,
        description="Seconds before the time limit at which a job is told to save and stop.",
    )
    kill_wait_s: Count = Field(
        default=30,
        description=(
            "The site's KillWait: seconds from SIGTERM to SIGKILL. A save must fit well "
            "within."
        ),
    )
    on_time_limit: Literal["requeue", "chain", "none"] = Field(
        default="requeue",
        description=(
            "How a run resumes after its time limit: requeue = its job goes back into the "
            "queue (Slurm holds it for two minutes); chain = jobs queued beforehand take "
            "over, where requeueing is forbidden; none = it waits for the next zsg "
            "submit."
        ),
    )
    max_continues: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description=(
            "How often a run may resume by itself. Null means 20, or 3 in a chain, which "
            "queues that many jobs behind each run."
        ),
    )
    srun_args: list[Features] = Field(
        default=["--kill-on-bad-exit=1", "--wait=60"],
        description="Further arguments of srun; by default one dead rank ends the job step.",
    )
    sbatch: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")],
        OptionText | int | Literal[True],
    ] = Field(
        default={},
        description=(
            "Further options of sbatch by their long names, such as {exclusive: true, "
            "nodelist: 'n[1-4,7]', comment: a note}; requeue: expedite where Slurm has it."
        ),
    )
    sacct: bool = Field(
        default=True,
        description=(
            "Whether zsg may ask sacct what became of jobs; false where accounting is off "
            "or slow."
        ),
    )

    @property
    def cluster(self) -> str | None:
        """The cluster that the profile names; None for the default one."""
        name = self.sbatch.get("clusters")
        # of `true` this is no name, and refused
        return None if name is None else str(name)

    @property
    def continue_policy(self) -> Policy | None:
        """How a train job resumes after its time limit, and at most how often."""
        return continuation.choose_policy(self.on_time_limit, self.max_continues)

    @property
    def chain_length(self) -> int:
        """How many jobs are queued behind each train job."""
        policy = self.continue_policy
        return policy.most if policy and policy.by == continuation.CHAIN else 0


class JobSize(Strict):
    """The size and time limit of a kind of job."""

    nodes: Nodes = Field(default=1, description="Number of nodes of a job.")
    ranks_per_node: RanksPerNode = Field(
        default=1, description="Number of processes on each node, one per GPU."
    )
    cpus_per_rank: Count = Field(
        default=1, description="CPUs of each process, and so its threads."
    )
    time_min: Minutes = Field(
        default=60, description="Time limit of a job, in minutes."
    )


class OneProcessSize(JobSize):
    """The size of a job of one process, which takes a part of a node."""

    mem_gb: Count | None = Field(
        default=None,
        description=(
            "Memory of a job, in GB, where it takes a part of a node. Null means "
            "slurm.mem_gb; so does an option of slurm.sbatch such as mem-per-cpu."
        ),
    )


class EvaluateSize(OneProcessSize):
    """The size and patience of an evaluate job: one process, with one GPU or more where
    the profile has any."""

    gpus: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description=(
            "GPUs of an evaluate job, over which the model's layers are spread; for "
            "models that one GPU has no room for."
        ),
    )
    idle_min: Positive = Field(
        default=5.0,
        description="Minutes without a new snapshot after which an evaluate job ends.",
    )


class Tracking(Strict):
    """Where MLflow is."""

    uri: str | None = Field(
        default=None,
        description="MLflow's tracking URI. Null means the file mlflow.db in the workspace.",
    )
    live: bool = Field(
        default=False,
        description=(
            "Whether the nodes reach tracking.uri, a server, and send to it while they "
            "train; else `zsg sync` does. Local jobs are always followed."
        ),
    )


class DeepSpeedSettings(Strict):
    """How DeepSpeed divides a model; changes memory and speed, not a run's identity."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = Field(
        default=1,
        description=(
            "ZeRO stage: 0 divides nothing, 1 the optimizer's state, 2 gradients too, 3 "
            "weights too."
        ),
    )

    hpz_ranks: Annotated[int, Field(ge=2, le=1024)] | None = Field(
        default=None,
        description=(
            "ZeRO 3 only: among how many ranks, such as the GPUs of a node, a second copy "
            "of the weights is divided, so that backward passes gather them there (hpZ). "
            "It takes memory, and counts for runs on more ranks. Null means none."
        ),
    )

    def count_hpz_ranks(self, world: int) -> int | None:
        """Among how many of a run's ranks a second copy is divided; None for none."""
        return self.hpz_ranks if self.hpz_ranks and world > self.hpz_ranks else None


class TrainerSettings(Strict):
    """How a train job computes; changes memory and speed, not a run's identity."""

    recompute: bool | None = Field(
        default=None,
        description=(
            "Whether activations are computed again for the backward pass, which saves "
            "memory and takes time. Null means where a run fits only so."
        ),
    )
    compile: bool = Field(
        default=False,
        description=(
            "Whether each layer but its attention is compiled. It needs a C++ compiler on "
            "the nodes and does not work with ZeRO 3."
        ),
    )


class SmokeSettings(Strict):
    """What `--smoke` makes of every run."""

    hidden: Annotated[int, Field(ge=1, le=65_536)] = Field(
        default=128,
        description="Hidden size of the tiny model that stands for the grid's.",
    )
    layers: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=2,
        description="Number of layers of the tiny model that stands for the grid's.",
    )
    tasks: Count = Field(
        default=8,
        description="How many training and held-out tasks are used, the first of the lists.",
    )
    per_task: Count = Field(
        default=8,
        description="Examples of each training task; held-out tasks have one.",
    )
    steps: Count = Field(
        default=4,
        description="Optimizer steps, with a checkpoint at each; more where a claim needs them.",
    )
    time_min: Minutes = Field(
        default=15, description="Time limit of a job of a trial, in minutes."
    )


class Gpu(Strict):
    """The GPUs of a train job, as far as estimates need to know them."""

    name: str = Field(
        description="Name of the GPU for tables, such as A800-80G.",
        pattern=r"^[\w.+-]+$",
    )
    memory_gb: Positive = Field(
        description=(
            "Memory of one GPU as it is sold, such as 80, in units of 1e9 bytes; what is "
            "beyond is left to the driver."
        )
    )
    tflops: Positive = Field(
        description=(
            "Dense bf16 peak of one GPU in 1e12 operations a second, such as 312 for an "
            "A100."
        )
    )
    mfu: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.4,
        description=(
            "Share of that peak that training reaches; it turns operations into "
            "GPU-hours."
        ),
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
        description="Variables of the submitting shell that are handed on to the jobs.",
    )
    set: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")],
        Annotated[str, Field(pattern=r"^[\w.,:@=+/^-]*$")],
    ] = Field(
        default={},
        description="Variables that are set for the jobs, such as {HF_HOME: /data/hf}.",
    )
    cache: Annotated[
        str, Field(pattern=r"^(/[\w.-]+|/?\$[A-Za-z_]\w*)(/([\w.-]+|\$[A-Za-z_]\w*))*$")
    ] = Field(
        default="$TMPDIR",
        description=(
            "Folder on the node's own disk for what is compiled there. A variable at its "
            "start that the node lacks is read as /tmp."
        ),
    )

    def select_variables(self, shell: Mapping[str, str]) -> dict[str, str]:
        """What jobs have of a shell's variables, and those that are set for them."""
        kept = {name: shell[name] for name in self.keep if name in shell}
        return kept | self.set

    def make_variables(self, size: JobSize) -> dict[str, str]:
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
        description=(
            "Network interfaces, such as [bond0], for NCCL_SOCKET_IFNAME and "
            "GLOO_SOCKET_IFNAME. [] = they choose."
        ),
    )
    hcas: list[Device] = Field(
        default=[],
        description=(
            "InfiniBand adapters, such as [mlx5_0, mlx5_1], for NCCL_IB_HCA. [] = NCCL "
            "chooses."
        ),
    )

    @property
    def variables(self) -> dict[str, str]:
        """As NCCL and gloo read them. `=` makes NCCL take whole names, where it would
        take beginnings."""
        variables: dict[str, str] = {}
        if self.interfaces:
            names = ",".join(self.interfaces)
            variables["NCCL_SOCKET_IFNAME"] = f"={names}"
            variables["GLOO_SOCKET_IFNAME"] = names
        if self.hcas:
            variables["NCCL_IB_HCA"] = f"={','.join(self.hcas)}"
        return variables


class Container(Strict):
    """What starts Python on the nodes, where it lives in a container."""

    prefix: list[Word] = Field(
        default=[],
        description=(
            "Words before Python in each srun step, such as [apptainer, exec, --nv, "
            "/images/zsg.sif]."
        ),
    )
    python: Word | None = Field(
        default=None,
        description=(
            "Python within the container, with zsg in it. Null means the one that calls "
            "zsg."
        ),
    )


class NoticeSettings(Strict):
    """One receiver of notices, and what it is told. Exactly one of webhook, slack and
    command is given."""

    webhook: str | None = Field(
        default=None,
        description=(
            "Name of the environment variable that holds the address to which each "
            "message is posted as JSON, such as LAB_WEBHOOK. The address itself is a "
            "secret and stands in no file."
        ),
    )
    slack: str | None = Field(
        default=None,
        description=(
            "Name of the environment variable that holds the address of an incoming "
            "webhook of Slack, such as SLACK_URL."
        ),
    )
    command: list[str] | None = Field(
        default=None,
        description=(
            "Program and its arguments, such as [/home/me/bin/tell], that gets each "
            "message as JSON on its standard input; no shell reads them."
        ),
    )
    on: list[Literal["failed", "done", "verdict", "hang"]] = Field(
        default=["failed", "done"],
        description=(
            "Of what is told: failed = a job has failed; done = all runs of a grid have "
            "ended; verdict = and what its claims came to; hang = a job takes no step."
        ),
    )

    @property
    def receiver(self) -> Receiver:
        """The same as jobs and records know it."""
        settings = {
            Way.WEBHOOK: self.webhook,
            Way.SLACK: self.slack,
            Way.COMMAND: self.command,
        }
        chosen = next(key for key, value in settings.items() if value is not None)
        return Receiver(
            way=chosen,
            variable=self.webhook or self.slack or "",
            command=self.command or [],
            on=[NoticeKind(word) for word in dict.fromkeys(self.on)],
            user=os.geteuid(),
        )


class UserSettings(Strict):
    """What a user has said for all profiles, in ~/.zsg/settings.yaml."""

    notify: list[NoticeSettings] = Field(
        default=[], description="Who is told under a profile that names nobody."
    )


class Profile(Strict):
    """A cluster, or this machine."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = Field(
        description="The profile's name, by which a grid asks for it: that of its file."
    )
    inherits: str | None = Field(
        default=None,
        description=(
            "Name or file of the profile that this one is laid over, key by key. Null "
            "means none."
        ),
    )
    kind: Literal["local", "slurm"] = Field(
        description=(
            "Where jobs run: local = on this machine, without a scheduler; slurm = by "
            "sbatch."
        )
    )
    workspace: str = Field(
        default="zsg-work",
        description="Folder of all runs, relative to where zsg is called.",
    )
    share: Literal["nobody", "group"] = Field(
        default="nobody",
        description=(
            "Who may use a workspace that zsg makes: nobody else, or group = the group of "
            "the folder it lies in may read and write it too. Code and records of another "
            "member are never run."
        ),
    )
    internet: bool = Field(
        default=False,
        description=(
            "Whether zsg may fetch data sets from the Hugging Face hub, where it is "
            "called; jobs never do."
        ),
    )
    max_parallel: Count = Field(
        default=2,
        description="Profiles of kind local only: how many jobs run side by side.",
    )
    jobs_per_gpu: Count = Field(
        default=1,
        description=(
            "Profiles of kind local only: how many jobs share a GPU of this machine; 1 = "
            "each has its own, and waits for it."
        ),
    )
    hang_min: Count = Field(
        default=20,
        description=(
            "Minutes without a step after which `zsg status` flags a run; evaluations and "
            "saves may take three times their longest so far."
        ),
    )
    max_gpus: Count | None = Field(
        default=None,
        description=(
            "Guard: a submit that would hold more GPUs than this at once is refused. Null "
            "means no limit."
        ),
    )
    max_gpu_hours: Positive | None = Field(
        default=None,
        description=(
            "Guard: a submit of more GPU-hours than this is refused, as estimated, or by "
            "time limits where there is no estimate. Null means no limit."
        ),
    )
    prepare: OneProcessSize = OneProcessSize()
    train: JobSize = JobSize()
    evaluate: EvaluateSize = EvaluateSize()
    deepspeed: DeepSpeedSettings = DeepSpeedSettings()
    trainer: TrainerSettings = TrainerSettings()
    slurm: SlurmSettings = SlurmSettings()
    gpu: Gpu | None = Field(
        default=None,
        description=(
            "The GPUs, for estimates. Null means CPU nodes: no refusal for memory, no "
            "GPU-hours."
        ),
    )
    smoke: SmokeSettings = SmokeSettings()
    tracking: Tracking = Tracking()
    notify: list[NoticeSettings] = Field(
        default=[],
        description=(
            "Who is told when runs fail, hang or are done: a list of {slack: VARIABLE}, "
            "{webhook: VARIABLE} or {command: [PROGRAM]}, each with on: [failed, done, "
            "verdict, hang]; see docs/notices.md. [] = "
            "nobody; without the key ~/.zsg/settings.yaml counts."
        ),
    )
    environment: Environment = Environment()
    network: Network = Network()
    container: Container = Container()
    setup: list[str] = Field(
        default=[],
        description=(
            "Shell lines that run verbatim at the start of every Slurm job; a line that "
            "fails ends the job. `zsg plan` shows them."
        ),
    )

    @property
    def receivers(self) -> list[Receiver]:
        """Who is told of notices; one that is named twice, once, of all it is for."""
        merged: dict[str, Receiver] = {}
        for settings in self.notify:
            receiver = settings.receiver
            earlier = merged.get(receiver.key)
            kinds = [*(earlier.on if earlier else []), *receiver.on]
            on = list(dict.fromkeys(kinds))
            merged[receiver.key] = structs.replace(receiver, on=on)
        return list(merged.values())

    def variables(self, size: JobSize) -> dict[str, str]:
        """The variables set for a job."""
        return {**self.network.variables, **self.environment.make_variables(size)}


# kinds of jobs: those with the size of a train job, and all that compute on GPUs
LIKE_TRAIN = ("train", node_check.KIND)
WITH_GPUS = (*LIKE_TRAIN, "evaluate", "sample", "score")


def gpus_per_node(profile: Profile, kind: str) -> int:
    """The GPUs that a kind of job has on each of its nodes."""
    if kind not in WITH_GPUS:
        return 0
    if profile.kind == "local":
        # of its own GPUs a local job finds one by itself
        several = kind not in LIKE_TRAIN and profile.evaluate.gpus > 1
        return profile.evaluate.gpus if several else 0
    per_node = profile.slurm.gpus_per_node
    return per_node if kind in LIKE_TRAIN else min(profile.evaluate.gpus, per_node)


def mem_gb(profile: Profile, kind: str) -> int | None:
    """The memory of a kind of job on each of its nodes; None: the site's default."""
    sizes = {
        "prepare": profile.prepare,
        "evaluate": profile.evaluate,
        "sample": profile.evaluate,
        "score": profile.evaluate,
    }
    own_gb = sizes[kind].mem_gb if kind in sizes else None
    # sbatch takes one of its options of memory only
    if {"mem-per-cpu", "mem-per-gpu"} & profile.slurm.sbatch.keys():
        own_gb = None
    return own_gb or profile.slurm.mem_gb


def is_python_of_jobs(profile: Profile) -> bool:
    """Whether jobs see the packages that are installed here, and no others."""
    is_container = bool(profile.container.prefix or profile.container.python)
    # a line may load a module with packages
    brings = profile.kind == "slurm" and bool(profile.setup)
    return not (is_container or brings or "PYTHONPATH" in profile.environment.set)


def keep_variables(profile: Profile, variables: Sequence[str]) -> Profile:
    """The profile, under which jobs are given these variables too."""
    keep = list(dict.fromkeys([*profile.environment.keep, *variables]))
    return profile.model_copy(
        update={"environment": profile.environment.model_copy(update={"keep": keep})}
    )


def load_profile(name: str, beside: Path) -> Profile:
    """The profile of a name, or of a path that ends in .yaml; `beside` is the grid's folder.

    Raises UserError with file and line for what is wrong in it or in a profile it inherits from.
    """
    return make_profile(profile_files.read_layers(name, beside))


def make_profile(layers: Layers) -> Profile:
    """The profile that the files make together. UserError with each fault."""
    faults = Faults()
    profile = None
    try:
        profile = Profile.model_validate(layers.value)
    except ValidationError as error:
        for problem in find_problems(error, Profile):
            message = _hide_receiver(problem.place, problem.message)
            faults.add(layers.error(problem.place, message))
    if profile is None:
        faults.raise_any()
        raise AssertionError("what has no fault is a profile")
    for check in CHECKS:
        refusal = check(profile)
        if refusal is not None:
            faults.add(layers.error(refusal.key, refusal.message))
    faults.raise_any()
    if "notify" not in layers.value:
        profile = profile.model_copy(update={"notify": _read_user_notify(profile)})
    # nodes send notices, too
    return keep_variables(profile, _list_address_variables(profile))


def _hide_receiver(place: Place, message: str) -> str:
    """What is wrong with a value, without the value where it may be the address of a
    receiver, which is a secret."""
    if place[:1] != ("notify",):
        return message
    # a key may be one, too: `{slack:https://…}` lacks a blank, and has no value
    told, _, _ = message.partition(", found ")
    return _ADDRESS.sub("…", told)


def _read_user_notify(profile: Profile) -> list[NoticeSettings]:
    """Who the user's own settings say is told, under a profile that names nobody. For a
    group's workspace no program is run. UserError with file and line."""
    document = user_settings.read_user_settings()
    if document is None:
        return []
    try:
        settings = UserSettings.model_validate(document.value)
    except ValidationError as error:
        place, message = find_first_problem(error, UserSettings)
        raise document.error(place, _hide_receiver(place, message)) from None
    notify = settings.notify
    if profile.share == "group":
        notify = [each for each in notify if each.command is None]
    refusal = _check_receivers(profile.model_copy(update={"notify": notify}))
    if refusal is not None:
        raise document.error(refusal.key, refusal.message)
    return notify


def _list_address_variables(profile: Profile) -> list[str]:
    """The variables that hold addresses of receivers."""
    return [each.variable for each in profile.receivers if each.variable]


@dataclass(frozen=True)
class Refusal:
    """A value that would not be honoured: the key it stands at, and why."""

    key: tuple[str | int, ...]
    message: str


def _check_setup_is_for_slurm(profile: Profile) -> Refusal | None:
    if profile.kind != "local" or not profile.setup:
        return None
    message = "`setup` lines run in Slurm jobs only; a local profile has none"
    return Refusal(("setup",), message)


def _check_setup_can_be_read(profile: Profile) -> Refusal | None:
    bad_line = setup_script.find_bad_line(profile.setup)
    if bad_line is None:
        return None
    number, why = bad_line
    return Refusal(("setup", number), f"setup: {why}")


def _check_tracking_uri(profile: Profile) -> Refusal | None:
    why = _uri_refusal(profile.tracking.uri)
    return None if why is None else Refusal(("tracking", "uri"), why)


def _check_live_tracking(profile: Profile) -> Refusal | None:
    reaches_server = profile.kind == "slurm" and _is_server(profile.tracking.uri)
    if not profile.tracking.live or reaches_server:
        return None
    message = (
        "tracking.live is for Slurm jobs whose nodes reach a server: kind: slurm, and"
        " tracking.uri: http://…"
    )
    return Refusal(("tracking", "live"), message)


def _check_container_is_for_slurm(profile: Profile) -> Refusal | None:
    if profile.kind != "local" or not profile.container.prefix:
        return None
    message = "containers are for Slurm jobs only; a local profile starts Python itself"
    return Refusal(("container",), message)


def _check_container_python(profile: Profile) -> Refusal | None:
    if not profile.container.python or profile.container.prefix:
        return None
    message = "container.python counts only with a container.prefix"
    return Refusal(("container", "python"), message)


def _check_gpu_is_used(profile: Profile) -> Refusal | None:
    has_gpus = profile.kind == "slurm" and profile.slurm.gpus_per_node
    if profile.gpu is None or has_gpus:
        return None
    message = "`gpu` describes GPUs, but train jobs get none: slurm.gpus_per_node is 0"
    return Refusal(("gpu",), message)


def _count_gres_gpus(gres: str) -> int:
    """How many GPUs `gpu:a800:8,nvme:1` has a node have; one where no number is said."""
    count = 0
    for resource in gres.split(","):
        kind, *words = resource.strip().split(":")
        if kind == "gpu":
            count += int(words[-1]) if words and words[-1].isdecimal() else 1
    return count


def _check_evaluate_gpus(profile: Profile) -> Refusal | None:
    slurm, gpus = profile.slurm, profile.evaluate.gpus
    of_gres = _count_gres_gpus(slurm.gres or "")
    per_node = of_gres or slurm.gpus_per_node
    if profile.kind != "slurm" or gpus <= max(1, per_node):
        return None
    source = f"slurm.gpus_per_node is {per_node}"
    if of_gres:
        source = f"slurm.gres is {slurm.gres}"
    message = f"evaluate.gpus is {gpus}, but {source}: an evaluate job is on one node"
    return Refusal(("evaluate", "gpus"), message)


def _check_compile_without_zero_3(profile: Profile) -> Refusal | None:
    if not profile.trainer.compile or profile.deepspeed.zero_stage != 3:
        return None
    message = (
        "ZeRO 3 frees and gathers weights within the layers, which cannot be compiled; use"
        " stages up to 2"
    )
    return Refusal(("trainer", "compile"), message)


def _check_hpz_is_of_zero_3(profile: Profile) -> Refusal | None:
    if profile.deepspeed.hpz_ranks is None or profile.deepspeed.zero_stage == 3:
        return None
    message = (
        f"a second copy of divided weights is of zero_stage 3, and it is"
        f" {profile.deepspeed.zero_stage}; leave deepspeed.hpz_ranks out"
    )
    return Refusal(("deepspeed", "hpz_ranks"), message)


def _check_gres_counts_alone(profile: Profile) -> Refusal | None:
    slurm = profile.slurm
    if not slurm.gres:
        return None
    if slurm.gpu_type:
        beside = "gpu_type"
    elif slurm.gpus_by != "gpus-per-node":
        beside = "gpus_by"
    else:
        return None
    message = f"slurm.gres is written out and counts alone; leave slurm.{beside} out"
    return Refusal(("slurm", beside), message)


def _check_sbatch_options(profile: Profile) -> Refusal | None:
    for name, value in profile.slurm.sbatch.items():
        if why := sbatch_options.explain_refusal(name, value):
            return Refusal(("slurm", "sbatch", name), f"slurm.sbatch.{name}: {why}")
    return None


def _check_one_cluster(profile: Profile) -> Refusal | None:
    cluster = profile.slurm.cluster
    if cluster is None or is_one_cluster(cluster):
        return None
    message = (
        f"slurm.sbatch.clusters: {cluster} is not one cluster. sbatch would take the one"
        " that starts a job first, and nobody could tell where it is: name one, or write a"
        " profile for each"
    )
    return Refusal(("slurm", "sbatch", "clusters"), message)


def _check_kept_variables(profile: Profile) -> Refusal | None:
    for name in profile.environment.keep:
        if is_slurm_variable(name) and name not in (*REACHED_BY, CLUSTERS):
            message = (
                f"environment.keep: {name} is an option of Slurm's own programs, and zsg keeps such"
                " out of its calls and its jobs; say it by slurm.sbatch or slurm.srun_args"
            )
            return Refusal(("environment", "keep"), message)
    return None


def _check_variables_are_set_once(profile: Profile) -> Refusal | None:
    doubled = profile.network.variables.keys() & profile.environment.set.keys()
    if not doubled:
        return None
    name = min(doubled)
    message = f"`network` sets {name} already; leave one out"
    return Refusal(("environment", "set", name), message)


def _check_receivers(profile: Profile) -> Refusal | None:
    for number, settings in enumerate(profile.notify):
        why = _explain_receiver_refusal(settings, profile)
        if why is not None:
            return Refusal(("notify", number), f"notify: {why}")
    if len(profile.notify) > MOST_RECEIVERS:
        return Refusal(("notify",), f"notify: at most {MOST_RECEIVERS} receivers")
    return None


def _explain_receiver_refusal(settings: NoticeSettings, profile: Profile) -> str | None:
    """Why this is no receiver; a value is not repeated, as it may be an address."""
    named = [settings.webhook, settings.slack, settings.command]
    if sum(value is not None for value in named) != 1:
        return "a receiver has one of webhook, slack and command"
    if not settings.on:
        return (
            "on is empty: name one of failed, done, verdict and hang, or leave it out"
        )
    if settings.command is not None:
        return _explain_command_refusal(settings.command, profile)
    key = "slack" if settings.webhook is None else "webhook"
    name = settings.webhook or settings.slack or ""
    return _explain_variable_refusal(key, name, profile)


def _explain_variable_refusal(key: str, name: str, profile: Profile) -> str | None:
    """Why a name is that of no variable which can hold an address; `key`: the setting."""
    if "/" in name or ":" in name:
        return (
            f"{key} holds an address, which is a secret: whoever reads the file could post"
            " there. Put it into an environment variable, such as"
            f" {key.upper()}_URL, and give that name here"
        )
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        return (
            f"{key} is the name of an environment variable, such as {key.upper()}_URL"
        )
    if is_slurm_variable(name):
        return f"{key}: variables of Slurm's own programs do not reach jobs; take another name"
    if name in profile.environment.set:
        return (
            f"{key}: environment.set says that variable, and an address is a secret: set it"
            " in your shell"
        )
    return None


def _explain_command_refusal(command: list[str], profile: Profile) -> str | None:
    if not command or not command[0] or any("\0" in word for word in command):
        return "command is a program and its arguments, such as [/home/me/bin/tell]"
    if "/" in command[0] and not command[0].startswith("/"):
        return "command: give the program's whole path, such as /home/me/bin/tell"
    if any("://" in word for word in command):
        return (
            "command has an address among its arguments, and zsg writes them into its"
            " records, from which others could learn it: use webhook or slack, or let the"
            " program read it from a file of yours"
        )
    if profile.share == "group":
        return (
            "command is not run for a group's workspace (share: group), whose records others"
            " may change; use webhook or slack"
        )
    return None


def _check_time_to_save(profile: Profile) -> Refusal | None:
    if profile.kind != "slurm":
        return None
    sizes = {
        "prepare": profile.prepare,
        "train": profile.train,
        "evaluate": profile.evaluate,
    }
    for kind, size in sizes.items():
        if profile.slurm.signal_before_end_s >= 60 * size.time_min:
            message = (
                f"signal_before_end_s is not less than {kind}.time_min: every job would be stopped"
                " at its start"
            )
            return Refusal(("slurm", "signal_before_end_s"), message)
    return None


def _check_prepare_size(profile: Profile) -> Refusal | None:
    return _check_one_process(profile.prepare, "prepare", "a prepare job")


def _check_evaluate_size(profile: Profile) -> Refusal | None:
    return _check_one_process(profile.evaluate, "evaluate", "an evaluate job")


def _check_one_process(size: JobSize, key: str, job: str) -> Refusal | None:
    if size.nodes * size.ranks_per_node == 1:
        return None
    message = f"{job} is one process: nodes and ranks_per_node must be 1"
    return Refusal((key,), message)


# In this order: of several refusals a user sees the first.
CHECKS: tuple[Callable[[Profile], Refusal | None], ...] = (
    _check_setup_is_for_slurm,
    _check_setup_can_be_read,
    _check_tracking_uri,
    _check_live_tracking,
    _check_container_is_for_slurm,
    _check_container_python,
    _check_gpu_is_used,
    _check_evaluate_gpus,
    _check_compile_without_zero_3,
    _check_hpz_is_of_zero_3,
    _check_gres_counts_alone,
    _check_sbatch_options,
    _check_one_cluster,
    _check_kept_variables,
    _check_variables_are_set_once,
    _check_receivers,
    _check_time_to_save,
    _check_prepare_size,
    _check_evaluate_size,
)


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
    if uri is None or _is_database_file(uri):
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
    why: str | None = "is no MLflow that zsg can fill"
    if _is_server(uri):
        why = addresses.explain_refusal(uri)
    if why is None:
        return None
    return (
        f"tracking.uri {why}; give http://HOST:PORT (see zsg server), a file by its "
        "whole path as sqlite:////FILE, or null for mlflow.db in the workspace"
    )


def _is_database_file(uri: str) -> bool:
    is_plain = uri.isprintable() and not {"?", "#"} & set(uri)
    return uri.startswith("sqlite:////") and is_plain
