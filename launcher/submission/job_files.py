"""Writes job.json: the whole of what a node needs to know, resolved, readable,
replayable by hand."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from msgspec import UNSET, UnsetType, to_builtins

from jobs.contract import job_file, leases, stages
from jobs.contract.attempt import now_ms
from jobs.contract.continuation import REQUEUE
from jobs.contract.deepspeed_config import build_deepspeed_config
from jobs.contract.folder import SCHEMA, Workspace
from jobs.contract.job_file import (
    AnswersToSample,
    ArrangementToMake,
    BaseToMake,
    CanaryJob,
    ChatToTry,
    CheckpointPlan,
    CorpusToMake,
    EvaluateJob,
    LookedRun,
    LookJob,
    MadeThings,
    ModelToProve,
    NodeCheckJob,
    OrderListFile,
    Paths,
    Policy,
    PrepareJob,
    PreparePaths,
    Resources,
    SampledCorpus,
    SampleJob,
    SamplePaths,
    ScoreJob,
    Scorer,
    ScoresToMake,
    ServedRun,
    ServerToAsk,
    SubmittedCode,
    TrackingServer,
    TrainJob,
    TrainPaths,
    WatchedRun,
)
from jobs.contract.look_decision import NAME as DECISION
from jobs.contract.node_check import KIND as NODE_CHECK
from jobs.contract.node_check import NodeCheckRequest
from jobs.contract.notices import Receiver
from launcher.clusters.profiles import LIKE_TRAIN, JobSize, Profile, gpus_per_node
from launcher.grids import model_folder
from launcher.grids.runs import Run
from launcher.planning import speeds
from launcher.planning.estimates import Estimates
from launcher.planning.makings import list_servers
from launcher.planning.plan import Canary, Look, Prepare, run_item
from launcher.workspace import code_snapshot
from launcher.workspace.ledger import Submission
from zsg_core import recipe as recipes
from zsg_core.data.prompts import CUT_PROMPT
from zsg_core.errors import UserError
from zsg_core.settings.makers import AskedSettings
from zsg_core.suites import list_key_variables
from zsg_core.training.tuning import NOTHING


def write_train(
    workspace: Workspace,
    run: Run,
    profile: Profile,
    submission: str,
    after: tuple[str, ...],
    is_start: bool,
) -> None:
    """Writes a run's job.json. `after`: the job folders it waits for; `is_start`:
    whether others start from it."""
    estimates = Estimates(workspace, profile, [run])
    head = make_head("train", submission, workspace, run.size, profile)
    job = make_train(workspace, run, estimates, head, after, is_start)
    job_file.write_job(workspace.root / run_item(run), job)


def make_train(
    workspace: Workspace,
    run: Run,
    estimates: Estimates,
    head: Mapping[str, Any],
    after: tuple[str, ...],
    is_start: bool,
) -> TrainJob:
    """A run's job; notes that it is going to start from the weights of a stage before.
    `head`: what all runs of its submission have in common, of `make_head`."""
    profile = estimates.profile
    train = run.stage["train"]
    base = workspace.base(run.base_id) if run.base_id else run.base
    if run.before:
        base = workspace.root / run.before.weights
        stages.note_weights_user(workspace, run.before.id, run.id)
    checkpoints = run.checkpoints.model_dump(mode="json")
    return TrainJob(
        **head,
        run_id=run.id,
        paths=TrainPaths(workspace=str(workspace.root), base=str(base)),
        stage_id=str(len(run.recipe["stages"])),
        recipe=run.recipe,
        before=[stage.id for stage in run.all_before],
        makes=[run.weights]
        if is_start or stages.list_weights_users(workspace, run.id)
        else [],
        checkpoints=CheckpointPlan(**checkpoints),
        scored=run.scored,
        made=MadeThings(
            corpus=run.corpus_id, arrangement=run.arrangement_id, base=run.base_id
        ),
        after=list(after),
        micro_tokens=estimates.micro_tokens(run),
        recompute=estimates.recomputes(run),
        compile=profile.trainer.compile,
        go_on=_continue_policy(profile),
        deepspeed=_deepspeed(train, profile, run.size.nodes * run.size.ranks_per_node),
        proof=run.proof or UNSET,
    )


def write_prepare(
    workspace: Workspace, prepare: Prepare, profile: Profile, submission: str
) -> None:
    """Writes a prepare job's job.json: one corpus, and every base and arrangement asked
    of it; or a sample job's."""
    if prepare.samples:
        _write_sample(workspace, prepare, profile, submission)
        return
    if prepare.scores:
        _write_score(workspace, prepare, profile, submission)
        return
    first = prepare.runs[0]
    stage = first.stage
    embedding = next(
        (str(run.embedding) for run in prepare.runs if run.embedding), None
    )
    job = PrepareJob(
        **make_head("prepare", submission, workspace, profile.prepare, profile),
        run_id=None,
        paths=PreparePaths(
            workspace=str(workspace.root),
            sources=_source_paths(first),
            embedding=embedding,
            lists=_list_order_files(prepare) or UNSET,
            targets=_list_target_files(prepare) or UNSET,
        ),
        stage_id=prepare.item.removeprefix("prepare/"),
        corpus=CorpusToMake(id=first.corpus_id, recipe=stage["data"]),
        bases=_list_bases(prepare),
        arrangements=_list_arrangements(prepare),
        makes=sorted(prepare.makes),
        proofs=_list_models_to_prove(prepare) or UNSET,
        chats=_list_chats(prepare) or UNSET,
    )
    job_file.write_job(workspace.root / prepare.item, job)


def _list_order_files(prepare: Prepare) -> dict[str, OrderListFile]:
    """Where the files lie that orders read, by the digests of what they say."""
    files: dict[str, OrderListFile] = {}
    for run in prepare.runs:
        if run.order_file is not None:
            listed = run.order_file
            files[run.stage["arrangement"]["input"]] = OrderListFile(
                path=str(listed.path), column=listed.column, kind=listed.kind
            )
    return files


def _list_target_files(prepare: Prepare) -> dict[str, str]:
    """Where the files of target sets lie, by the digests of their content."""
    return {
        run.stage["arrangement"]["target"]["digest"]: str(run.target)
        for run in prepare.runs
        if run.target is not None
    }


def _list_models_to_prove(prepare: Prepare) -> list[ModelToProve]:
    """The users' models whose attention the job is to prove, each once: folders of the
    same config are one."""
    models: dict[str, ModelToProve] = {}
    for run in prepare.runs:
        proof = run.proof_item
        if run.proof is None or proof is None or proof not in prepare.makes:
            continue
        own_length: int = run.stage["train"]["max_length"]
        shortest = prepare.shortest.get(proof, own_length)
        model = ModelToProve(folder=str(run.base), digest=run.proof, shortest=shortest)
        models.setdefault(proof, model)
    return list(models.values())


def _list_chats(prepare: Prepare) -> list[ChatToTry]:
    """The models by whose chat templates the corpus is written, each once."""
    chats: dict[str, ChatToTry] = {}
    for run in prepare.runs:
        trial = run.chat_trial_id
        if trial is None or run.chat_trial_item not in prepare.makes:
            continue
        train = run.stage["train"]
        chats[trial] = ChatToTry(
            id=trial,
            base=run.recipe["base"],
            folder=str(run.base),
            max_length=train["max_length"],
            truncate=train.get("truncate", CUT_PROMPT),
        )
    return list(chats.values())


def _list_bases(prepare: Prepare) -> list[BaseToMake]:
    bases = {
        run.base_id: run
        for run in prepare.runs
        if f"bases/{run.base_id}" in prepare.makes
    }
    return [_base(base_id, run) for base_id, run in bases.items() if base_id]


def _list_arrangements(prepare: Prepare) -> list[ArrangementToMake]:
    recipes_by_id = {
        run.arrangement_id: run.stage["arrangement"]
        for run in prepare.runs
        if f"arrangements/{run.arrangement_id}" in prepare.makes
    }
    return [
        ArrangementToMake(id=arrangement, recipe=recipe)
        for arrangement, recipe in recipes_by_id.items()
    ]


def _write_sample(
    workspace: Workspace, prepare: Prepare, profile: Profile, submission: str
) -> None:
    """It runs where answers of checkpoints are made, or, if it only asks a server, as a
    prepare job does. Of a corpus' recipe it reads what a tiny model learns from."""
    [run] = prepare.runs
    samples = [
        _make_sample(run, name, need)
        for name, need in run.answers.items()
        if need in prepare.makes
    ]
    kind, size = "sample", profile.evaluate
    if prepare.server is not None:
        kind, size = "prepare", profile.prepare
    job = SampleJob(
        **make_head(kind, submission, workspace, size, profile),
        run_id=None,
        paths=SamplePaths(workspace=str(workspace.root), sources=_source_paths(run)),
        stage_id=prepare.item.removeprefix("prepare/"),
        corpus=SampledCorpus(recipe=run.stage["data"]),
        samples=samples,
        makes=sorted(prepare.makes),
        key_variables=list_asked_keys(prepare) or UNSET,
    )
    job_file.write_job(workspace.root / prepare.item, job)


def _write_score(
    workspace: Workspace, prepare: Prepare, profile: Profile, submission: str
) -> None:
    """It runs where answers of checkpoints are made."""
    first = prepare.runs[0]
    job = ScoreJob(
        **make_head("score", submission, workspace, profile.evaluate, profile),
        run_id=None,
        paths=SamplePaths(workspace=str(workspace.root), sources=_source_paths(first)),
        stage_id=prepare.item.removeprefix("prepare/"),
        corpus=CorpusToMake(id=first.corpus_id, recipe=first.stage["data"]),
        scores=[_make_scores(run) for run in prepare.runs],
        makes=sorted(prepare.makes),
        after=sorted(prepare.after),
    )
    job_file.write_job(workspace.root / prepare.item, job)


def _make_scores(run: Run) -> ScoresToMake:
    """The scores that a run's order is made of, and by which models."""
    made_id = recipes.scores_id(run.recipe)
    assert made_id is not None, "its order is made of scores by a model"
    recipe = run.stage["arrangement"]["score"]
    base = Scorer(base=run.recipe["base"], folder=_folder_of_base(run))
    scorer = base
    if run.scorer is not None:
        scorer = Scorer(folder=str(run.scorer), digest=recipe["model"]["digest"])
    elif run.scoring_run is not None:
        # the tokenizer is the base's, with what that says of it
        scorer = Scorer(run=run.scoring_run.id, base=run.recipe["base"])
    earlier = None
    if "since" in recipe:
        earlier = base
        if run.since is not None:
            earlier = Scorer(folder=str(run.since), digest=recipe["since"]["digest"])
    return ScoresToMake(id=made_id, recipe=recipe, scorer=scorer, earlier=earlier)


def _make_sample(run: Run, name: str, need: str) -> AnswersToSample:
    """What is made of a source of a run, and who is asked."""
    teacher = run.asked.get(name)
    base = recipes.remove_added_tokens(run.recipe["base"])
    folder = _folder_of_base(run)
    server: ServerToAsk | UnsetType = UNSET
    if teacher is not None and teacher.folder is not None:
        making: recipes.Recipe = recipes.list_sources(run.stage["data"])[name]["make"]
        base = {"kind": "folder", "digest": making["model"]}
        folder = str(teacher.folder)
    if teacher is not None and teacher.server is not None:
        base, folder = {}, None
        server = _describe_server(teacher.server)
    return AnswersToSample(
        id=need.removeprefix("records/"),
        source=name,
        base=base,
        folder=folder,
        server=server,
        embedding=str(teacher.embedder) if teacher and teacher.embedder else UNSET,
    )


def _describe_server(settings: AskedSettings) -> ServerToAsk:
    """A server as a job reads it."""
    assert settings.base_url is not None and settings.model is not None
    return ServerToAsk(
        base_url=settings.base_url,
        model=settings.model,
        key_env=settings.key_env,
        at_once=settings.at_once,
        seeds=settings.seeds,
        price_read=settings.price_read,
        price_written=settings.price_written,
        budget=settings.budget,
    )


def list_asked_keys(prepare: Prepare) -> list[str]:
    """The variables that hold the keys of the servers which a job asks for data."""
    names = [server.key_env for _, server in list_servers(prepare)]
    return list(dict.fromkeys(name for name in names if name))


def _source_paths(run: Run) -> dict[str, dict[str, str | None]]:
    return {name: files.texts for name, files in run.sources.items()}


def _base(base_id: str, run: Run) -> BaseToMake:
    """A base as a prepare job reads it: its recipe, and the user's folder that it is
    made from, if it is."""
    recipe = run.recipe["base"]
    return BaseToMake(id=base_id, recipe=recipe, source=_folder_of_base(run))


def _folder_of_base(run: Run) -> str | None:
    return str(run.base) if run.base else None


def write_canary(
    workspace: Workspace,
    first: Canary,
    profile: Profile,
    submission: str,
    watched: Submission,
    size: JobSize,
) -> None:
    """Writes the job.json of the job that waits for what the first run shows."""
    speed = speeds.name_speed_item(*Estimates(workspace, profile, []).taken(first.run))
    job = CanaryJob(
        **make_head("canary", submission, workspace, size, profile),
        run_id=None,
        paths=Paths(workspace=str(workspace.root)),
        stage_id=first.run.id,
        canary=WatchedRun(
            run=first.run.id, submission=watched.id, slurm=watched.all_ids
        ),
        after=[],
        makes=[speed],
    )
    job_file.write_job(workspace.root / first.item, job)


def write_look(
    workspace: Workspace,
    look: Look,
    grid: str,
    profile: Profile,
    submission: str,
    size: JobSize,
) -> None:
    """Writes the job.json of a look between two waves of a grid."""
    job = LookJob(
        **make_head("look", submission, workspace, size, profile),
        run_id=None,
        paths=Paths(workspace=str(workspace.root)),
        stage_id=look.item.partition("/")[2],
        grid=grid,
        number=look.number,
        runs=[LookedRun(run=run.id, axes=run.axes) for run in look.runs],
        spares=[run.id for run in look.spares],
        claims=list(look.claims),
        looks=dict(look.looks),
        after=list(look.after),
        makes=[f"{look.item}/{DECISION}"],
    )
    job_file.write_job(workspace.root / look.item, job)


def write_evaluate(
    workspace: Workspace,
    item: str,
    runs: Sequence[Run],
    profile: Profile,
    submission: str,
    drains: bool,
) -> None:
    """Writes the job.json of an evaluate job: which runs it serves, which metrics of
    them, how answers are made.

    `drains`: it ends once nothing is left, in place of waiting for snapshots that may yet come.
    """
    serves = [
        ServedRun(run=run.id, keys=run.scored, suites=to_builtins(run.suites))
        for run in runs
    ]
    job = EvaluateJob(
        **make_head("evaluate", submission, workspace, profile.evaluate, profile),
        run_id=None,
        paths=Paths(workspace=str(workspace.root)),
        stage_id=item.partition("/")[2],
        serves=serves,
        key_variables=list_key_variables(suite for run in runs for suite in run.suites),
        go_on=_requeue_policy(profile),
        drains=drains,
        lease_s=leases.LOST_S,
        after=[],
        makes=[],
    )
    job_file.write_job(workspace.root / item, job)


def write_node_check(
    workspace: Workspace,
    item: str,
    request: NodeCheckRequest,
    profile: Profile,
    submission: str,
    size: JobSize,
) -> None:
    """Writes the job.json of a check of the nodes."""
    job = NodeCheckJob(
        **make_head(NODE_CHECK, submission, workspace, size, profile),
        run_id=None,
        paths=Paths(workspace=str(workspace.root)),
        stage_id=item.partition("/")[2],
        request=request,
    )
    job_file.write_job(workspace.root / item, job)


def _continue_policy(profile: Profile) -> Policy | None:
    """How a train job continues after its time limit."""
    return profile.slurm.continue_policy if profile.kind == "slurm" else None


def _requeue_policy(profile: Profile) -> Policy | None:
    """How an evaluate job continues: it has no chain, so else zsg submit sends another."""
    policy = _continue_policy(profile)
    return policy if policy and policy.by == REQUEUE else None


def make_head(
    kind: str,
    submission: str,
    workspace: Workspace,
    size: JobSize,
    profile: Profile,
) -> dict[str, Any]:
    """The fields that all kinds of jobs have in common, but for the run."""
    is_trained = kind in LIKE_TRAIN
    resources = Resources(
        profile=profile.name,
        **size.model_dump(exclude={"mem_gb", "gpus"}),
        gpus_per_node=gpus_per_node(profile, kind),
        peak_tflops=profile.gpu.tflops if profile.gpu and is_trained else None,
        kill_wait_s=profile.slurm.kill_wait_s,
        hang_min=profile.hang_min,
    )
    return {
        "schema": SCHEMA,
        "submission": submission,
        "resources": resources,
        "tracking": TrackingServer(
            uri=profile.tracking.uri, live=profile.tracking.live
        ),
        "code": SubmittedCode(**code_snapshot.take_snapshot(workspace)),
        "created": now_ms(),
        "notify": _list_receivers(kind, profile) or UNSET,
    }


def _list_receivers(kind: str, profile: Profile) -> list[Receiver]:
    """Who a job tells how it ends; whoever checks nodes waits for it."""
    return [] if kind == NODE_CHECK else profile.receivers


def check_run(run: Run, profile: Profile) -> None:
    """Raises UserError for a run that the profile cannot train, before anything is submitted."""
    train = run.stage["train"]
    batch, ranks = train["batch"], run.size.nodes * run.size.ranks_per_node
    _deepspeed(train, profile, ranks)
    _refuse_uneven_copies(run, profile, ranks)
    if batch < ranks:
        raise UserError(
            f"train.batch is {batch}, but {run.size.nodes} nodes × {run.size.ranks_per_node} ranks"
            f" are {ranks}: {ranks - batch} would hold a GPU for nothing. Ask for at most {batch}"
            f" ranks, or a batch of {ranks} or more; it need not be a multiple of the ranks"
        )
    _refuse_nothing_to_train(run, train["tuning"]["method"])
    _refuse_unknown_layers(run)
    gpus = gpus_per_node(profile, "train")
    if gpus and run.size.ranks_per_node > gpus:
        raise UserError(
            f"ranks_per_node is {run.size.ranks_per_node}, but a node has {gpus} GPUs; one rank"
            " needs one"
        )
    if profile.kind == "local" and run.size.nodes * run.size.ranks_per_node > 1:
        raise UserError(
            f"profile {profile.name!r} is local and runs one rank; nodes and ranks_per_node must"
            " be 1"
        )


def _refuse_uneven_copies(run: Run, profile: Profile, ranks: int) -> None:
    """Raises UserError where a second copy of the weights is for groups of unequal size."""
    hpz_ranks = profile.deepspeed.count_hpz_ranks(ranks)
    if hpz_ranks and ranks % hpz_ranks:
        raise UserError(
            f"deepspeed.hpz_ranks is {hpz_ranks}, which does not divide the {ranks} ranks of"
            f" {run.size.nodes} nodes × {run.size.ranks_per_node}; use ranks_per_node"
        )


def _deepspeed(train: dict[str, Any], profile: Profile, world: int) -> dict[str, Any]:
    return _build_deepspeed_once(
        zero_stage=profile.deepspeed.zero_stage,
        precision=train["precision"],
        clip=train["clip"],
        loss_scale=train.get("loss_scale"),
        hpz_ranks=profile.deepspeed.count_hpz_ranks(world),
    )


# the runs of a grid have few among them; nobody changes what is shared
_build_deepspeed_once = cache(build_deepspeed_config)


def _refuse_unknown_layers(run: Run) -> None:
    if not run.checkpoints.inside:
        return
    last = run.recipe["base"].get("layers")
    if run.base:
        last = model_folder.read_shape(run.base).layers
    for key, probe in run.checkpoints.inside.items():
        if last is not None and probe.get("layer", 0) > last:
            raise UserError(
                f"checkpoints: {key} is of layer {probe['layer']}, but model"
                f" {run.settings['model']['name']} has the layers 0, its input embedding, to {last}"
            )


def _refuse_nothing_to_train(run: Run, method: str) -> None:
    """Raises UserError for a tuning of biases or norms that the model does not have."""
    if method not in NOTHING:
        return
    biases, norms = 0, 1  # of tiny, a Llama
    if run.base:
        shape = model_folder.read_shape(run.base)
        biases, norms = shape.biases, shape.norms
    if not {"bitfit": biases, "ln": norms}[method]:
        raise UserError(NOTHING[method])
