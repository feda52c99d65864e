"""job.json: what a job is to do, written by the launcher before the job is submitted,
read by whoever looks at it.

Each kind of job has a record of its own; what all have in common comes first. What is
optional came to job.json later: where it is absent, an older zsg wrote the file.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract.folder import Damaged, Workspace, to_json, write_bytes
from jobs.contract.node_check import KIND as NODE_CHECK
from jobs.contract.node_check import NodeCheckRequest
from jobs.contract.notices import Receiver
from jobs.contract.records import read_record

NAME = "job.json"
# what zsg_core.recipe makes; its bytes decide the run's id, so it has no type of its own
Recipe = dict[str, Any]
HANG_MIN = 20  # of jobs whose job.json does not say
KILL_WAIT_S = 30
IDLE_MIN = 5.0


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is given. `peak_tflops`: of one GPU, 1e12 operations a second;
    `kill_wait_s`: between Slurm's SIGTERM and SIGKILL; `hang_min`: minutes without a
    step after which it is told as hanging; `idle_min`: minutes that an evaluate job
    waits for a snapshot."""

    profile: str
    nodes: int
    ranks_per_node: int
    cpus_per_rank: int
    time_min: int
    idle_min: float | UnsetType = UNSET
    gpus_per_node: int = 0
    peak_tflops: float | None = None
    kill_wait_s: int = KILL_WAIT_S
    hang_min: int = HANG_MIN

    @property
    def gpus(self) -> int | None:
        """The GPUs on all nodes; None for a job that has none."""
        return self.nodes * self.gpus_per_node or None


class TrackingServer(msgspec.Struct, frozen=True, kw_only=True):
    """Where MLflow is, and whether nodes deliver to it themselves."""

    uri: str | None = None
    live: bool = False


class SubmittedCode(msgspec.Struct, frozen=True, kw_only=True):
    """The code that a job runs: versions; the digest and the folder of its copy in the
    workspace; of a checkout the commit, and the patch beside it."""

    zsg: str | UnsetType | None = UNSET
    python: str | UnsetType = UNSET
    digest: str | UnsetType = UNSET
    commit: str | UnsetType | None = UNSET
    dirty: bool | UnsetType | None = UNSET
    folder: str | UnsetType = UNSET
    patch: str | UnsetType = UNSET

    @property
    def facts(self) -> dict[str, Any]:
        """As journals, tags and reports tell it."""
        return msgspec.to_builtins(self)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How a job continues after its time limit, and at most how often; the `go_on` of
    job.json. `by`: requeue or chain."""

    by: str
    most: int


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """Where the workspace lay when the job was submitted."""

    workspace: str


class TrainPaths(Paths, frozen=True, kw_only=True):
    """`base`: the folder of the weights that training starts from."""

    base: str


class SamplePaths(Paths, frozen=True, kw_only=True):
    """`sources`: by name, the files of each: data, test, tags, instructions."""

    sources: dict[str, dict[str, str | None]]


class OrderListFile(msgspec.Struct, frozen=True, kw_only=True):
    """A list or scores of training examples: see `zsg_core.orders.order_list.ListFile`."""

    path: str
    column: str | None = None
    kind: str | None = None


class PreparePaths(SamplePaths, frozen=True, kw_only=True):
    """`embedding`: the folder of the model that embeds texts. `lists`: the files that
    orders read, by the digests of what they say; `targets`: those of target sets, by
    the digests of their content."""

    embedding: str | None = None
    lists: dict[str, OrderListFile] | UnsetType = UNSET
    targets: dict[str, str] | UnsetType = UNSET


class Job(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What all kinds of jobs have in common. `submission` ties it to the launcher's
    ledger; `created`: ms since the epoch; `stage_id`: of a run which of its stages,
    else a name of the job; `notify`: who is told how it ends, unset for nobody."""

    schema: int
    run_id: str | None
    submission: str
    resources: Resources
    tracking: TrackingServer = TrackingServer()
    paths: Paths
    code: SubmittedCode = SubmittedCode()
    created: int = 0
    stage_id: str
    notify: list[Receiver] | UnsetType = UNSET

    @property
    def kind(self) -> str:
        """train, prepare, sample, score, canary, evaluate or check."""
        return str(self.__struct_config__.tag)

    @property
    def workspace(self) -> Workspace:
        """The workspace in which it was submitted."""
        return Workspace(Path(self.paths.workspace))


class CheckpointPlan(msgspec.Struct, frozen=True, kw_only=True):
    """When a run is measured and saved, and what is kept: the grid's `checkpoints`,
    whose settings say what each means (zsg_core.settings.checkpoints)."""

    every: int | str | list[int]
    quick: dict[str, Any] | None = None
    metrics: list[str] | UnsetType = UNSET
    generation: dict[str, Any] | UnsetType = UNSET
    rank_accuracy: dict[str, Any] | UnsetType | None = UNSET
    bleu: dict[str, Any] | UnsetType = UNSET
    rouge: dict[str, Any] | UnsetType = UNSET
    suites: dict[str, Any] | UnsetType = UNSET
    reward_model: str | UnsetType | None = UNSET
    representations: dict[str, Any] | UnsetType | None = UNSET
    token_distance: dict[str, Any] | UnsetType | None = UNSET
    gradients: dict[str, Any] | UnsetType | None = UNSET
    snapshots: int | str | list[int] | None = None
    keep: dict[str, int | None] | None = None
    state_every_min: float | None = None
    state_every: int | None = None
    keep_state: bool = False

    @property
    def strides(self) -> tuple[Any, Any, Any]:
        """What `schedule.list_measured_steps` takes: every, quick, snapshots."""
        return self.every, self.quick, self.snapshots


class MadeThings(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of what prepare jobs make for a run; `base` is None for a model as the
    user supplies it, and for a stage that starts from another run's weights."""

    corpus: str
    arrangement: str
    base: str | None = None

    @property
    def ids(self) -> dict[str, str | None]:
        """The same by name."""
        return {
            "corpus": self.corpus,
            "arrangement": self.arrangement,
            "base": self.base,
        }


class TrainJob(Job, frozen=True, kw_only=True, tag="train"):
    """Trains the last stage of a recipe. `before`: the runs of the stages before;
    `makes`: where its weights go if others start from them; `scored`: the keys that
    evaluators take of its snapshots; `after`: the job folders it waits for;
    `micro_tokens`: the most of a micro-batch, None = the device's default;
    `deepspeed`: see jobs.contract.deepspeed_config; `proof`: by which digest of
    jobs.contract.model_proof it is known how its examples may meet, unset of a Llama."""

    run_id: str
    paths: TrainPaths
    recipe: Recipe
    before: list[str] = []
    makes: list[str] = []
    checkpoints: CheckpointPlan
    scored: list[str] = []
    made: MadeThings
    after: list[str] = []
    micro_tokens: int | None = None
    recompute: bool = False
    compile: bool = False
    go_on: Policy | None = None
    deepspeed: dict[str, Any]
    proof: str | UnsetType = UNSET

    @property
    def stage(self) -> Recipe:
        """The recipe of the stage that it trains."""
        return self.recipe["stages"][-1]

    @property
    def train(self) -> Recipe:
        """How that stage is trained."""
        return self.stage["train"]

    @property
    def base_folder(self) -> Path:
        """The folder of the weights that training starts from."""
        return Path(self.paths.base)


class CorpusToMake(msgspec.Struct, frozen=True, kw_only=True):
    """The examples that are sampled."""

    id: str
    recipe: Recipe


class BaseToMake(msgspec.Struct, frozen=True, kw_only=True):
    """A base, and the user's folder that it is made from, if it is."""

    id: str
    recipe: Recipe
    source: str | None = msgspec.field(name="from", default=None)


class ArrangementToMake(msgspec.Struct, frozen=True, kw_only=True):
    """An order of the corpus."""

    id: str
    recipe: Recipe


class ModelToProve(msgspec.Struct, frozen=True, kw_only=True):
    """A model whose attention is to be proven: its folder, and by which digest the proof
    is known (jobs.contract.model_proof). `shortest`: the least max_length of the runs
    that need it: where not even these can be trained, none can."""

    folder: str
    digest: str
    shortest: int


class ChatToTry(msgspec.Struct, frozen=True, kw_only=True):
    """A model by whose chat template a corpus is written: its recipe and its folder, how
    long an example may be, and what a longer one loses. `id`: of the trial, by which it
    is known that it went well; unset of an older zsg."""

    id: str | UnsetType = UNSET
    base: Recipe
    folder: str
    max_length: int
    truncate: str


class PrepareJob(Job, frozen=True, kw_only=True, tag="prepare"):
    """Makes one corpus, and every base and arrangement asked of it; tries the chat
    templates that write it, and proves the attention of models (`proofs`)."""

    paths: PreparePaths
    corpus: CorpusToMake
    bases: list[BaseToMake]
    arrangements: list[ArrangementToMake]
    makes: list[str]
    proofs: list[ModelToProve] | UnsetType = UNSET
    chats: list[ChatToTry] | UnsetType = UNSET


class SampledCorpus(msgspec.Struct, frozen=True, kw_only=True):
    """What a tiny model's tokenizer learns from."""

    recipe: Recipe


class ServerToAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A model at an address: how it is asked, and what it may cost. `price_read` and
    `price_written`: of a million tokens; `budget`: in the same currency."""

    base_url: str
    model: str
    key_env: str | None = None
    at_once: int = 8
    seeds: bool = False
    price_read: float | None = None
    price_written: float | None = None
    budget: float | None = None


class AnswersToSample(msgspec.Struct, frozen=True, kw_only=True):
    """A model's own answers to a source, or what a maker makes of it. `id`: of the
    records that they become; `base`: the recipe of the model; `folder`: the user's
    folder that it is made from, if it is; `server`: who is asked in place of a model in
    a folder; `embedding`: the folder of the model by which meanings are compared."""

    id: str
    source: str
    base: Recipe
    folder: str | None = msgspec.field(name="from", default=None)
    server: ServerToAsk | UnsetType = UNSET
    embedding: str | UnsetType = UNSET


class SampleJob(Job, frozen=True, kw_only=True, tag="sample"):
    """Samples a model's own answers, or has a maker make examples, which other jobs
    read as data. `key_variables`: the variables that hold the keys of servers."""

    paths: SamplePaths
    corpus: SampledCorpus
    samples: list[AnswersToSample]
    makes: list[str]
    key_variables: list[str] | UnsetType = UNSET


class Scorer(msgspec.Struct, frozen=True, kw_only=True):
    """A model that scores: `folder` of the user's, whose files have the `digest`; or the
    `base` of runs, made of a folder if one is given; or the weights that the run `run`
    leaves."""

    folder: str | None = None
    digest: str | None = None
    base: Recipe | None = None
    run: str | None = None


class ScoresToMake(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of a corpus' training examples. `recipe`: the score's, as an arrangement's
    recipe has it; `scorer`: by which model; `earlier`: the one that it is compared
    with."""

    id: str
    recipe: Recipe
    scorer: Scorer
    earlier: Scorer | None = None


class ScoreJob(Job, frozen=True, kw_only=True, tag="score"):
    """Scores training examples by a model, for orders that prepare jobs make. The corpus
    is made, too, unless it is there."""

    paths: SamplePaths
    corpus: CorpusToMake
    scores: list[ScoresToMake]
    makes: list[str]
    after: list[str] = []


class WatchedRun(msgspec.Struct, frozen=True, kw_only=True):
    """The run that goes first, its submission and its Slurm ids."""

    run: str
    submission: str
    slurm: list[str]


class CanaryJob(Job, frozen=True, kw_only=True, tag="canary"):
    """Waits for what the first of many runs shows; `makes`: where its speed is kept."""

    canary: WatchedRun
    after: list[str]
    makes: list[str]


class LookedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that a look is of, and its axes."""

    run: str
    axes: dict[str, Any]


class LookJob(Job, frozen=True, kw_only=True, tag="look"):
    """Looks at a grid's claims between two waves. `number` counts from 1; `runs`: those of
    the waves up to it, in the order of the grid; `spares`: those behind, which end where
    all is decided; `claims`, `looks`: as the grid said when it was submitted
    (zsg_core.settings)."""

    grid: str
    number: int
    runs: list[LookedRun]
    spares: list[str]
    claims: list[str]
    looks: dict[str, Any]
    after: list[str]
    makes: list[str]


class ServedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is evaluated, and what is wanted of it. `suites`: the fields of each,
    a zsg_core.suites.Suite, which `zsg status` has no need to load."""

    run: str
    keys: list[str]
    suites: list[dict[str, Any]]


class EvaluateJob(Job, frozen=True, kw_only=True, tag="evaluate"):
    """Evaluates snapshots of runs. `drains`: it ends once nothing is left, in place of
    waiting for snapshots; `lease_s`: after how long a silent evaluator has lost its."""

    serves: list[ServedRun]
    key_variables: list[str] = []
    go_on: Policy | None = None
    drains: bool
    lease_s: float
    after: list[str] = []
    makes: list[str] = []

    @property
    def idle_s(self) -> float:
        """How long it waits for a new snapshot."""
        minutes = self.resources.idle_min
        return 60 * (IDLE_MIN if isinstance(minutes, UnsetType) else minutes)


class NodeCheckJob(Job, frozen=True, kw_only=True, tag=NODE_CHECK):
    """Finds out on the nodes themselves what plan assumes of them: see
    jobs.contract.node_check."""

    request: NodeCheckRequest
    makes: list[str] = []


AnyJob = (
    TrainJob
    | PrepareJob
    | SampleJob
    | ScoreJob
    | CanaryJob
    | LookJob
    | EvaluateJob
    | NodeCheckJob
)
# a union, which no type checker takes for a type[T]
_ANY_KIND: Any = AnyJob


def read_job(folder: Path) -> AnyJob | None:
    """The job of a folder; None if there is none. Damaged for what is no job, or one of
    a newer zsg."""
    return read_record(job_path(folder), _ANY_KIND, "zsg submit writes it anew")


def read_train_job(folder: Path) -> TrainJob | None:
    """The job of a run's folder; None if there is none. Damaged also for a job of
    another kind."""
    job = read_job(folder)
    if job is not None and not isinstance(job, TrainJob):
        raise Damaged(
            f"{job_path(folder)}: is a {job.kind} job; a run's folder has a train job"
        )
    return job


def read_job_if_sound(folder: Path) -> AnyJob | None:
    """The same for who goes on without it: None also for one that cannot be read."""
    try:
        return read_job(folder)
    except Damaged:
        return None


def has_job(folder: Path) -> bool:
    """Whether a folder holds a job."""
    return job_path(folder).is_file()


def job_path(folder: Path) -> Path:
    """Where a folder's job is, for people."""
    return folder / NAME


def write_job(folder: Path, job: AnyJob) -> None:
    """Writes the job of a folder."""
    write_bytes(job_path(folder), encode_job(job))


def encode_job(job: AnyJob) -> bytes:
    """The bytes of a job.json."""
    return f"{to_json(fields_of(job), indent=1)}\n".encode()


def fields_of(job: AnyJob) -> dict[str, Any]:
    """A job as it stands in job.json: the schema before the kind, what is unset left
    out."""
    fields: dict[str, Any] = msgspec.to_builtins(job)
    return {"schema": fields.pop("schema"), **fields}


def jobs_before(job: AnyJob | None) -> list[str]:
    """The job folders that a job waits for."""
    waits = isinstance(job, TrainJob | ScoreJob | CanaryJob | LookJob | EvaluateJob)
    return job.after if waits else []


def is_run_item(item: str) -> bool:
    """Whether a job folder is a run's."""
    return item.startswith("runs/")


def is_look_item(item: str) -> bool:
    """Whether a job folder is that of a look between two waves."""
    return item.startswith("looks/")


def jobs_needed(job: AnyJob | None) -> list[str]:
    """The job folders that must have ended well for a job to start: a look waits for the
    runs before it however they end."""
    before = jobs_before(job)
    if isinstance(job, LookJob):
        return [item for item in before if not is_run_item(item)]
    return before


def continue_policy(job: AnyJob) -> Policy | None:
    """How a job continues after its time limit; None where nothing continues it."""
    return job.go_on if isinstance(job, TrainJob | EvaluateJob) else None


def runs_served(job: AnyJob | None) -> list[ServedRun]:
    """The runs that an evaluate job serves; none of a job of another kind."""
    return job.serves if isinstance(job, EvaluateJob) else []


def stage_folders(workspace: Workspace, run_id: str) -> list[Path]:
    """The folders in which a run's stages are journalled, its own last."""
    folder = workspace.run(run_id)
    job = read_train_job(folder)
    before = job.before if job else []
    return [*map(workspace.run, before), folder]
