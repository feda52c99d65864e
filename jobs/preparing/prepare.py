"""The prepare job: samples the data, embeds it, puts it in order, makes the base; each thing once.

One prepare job serves every run that shares its corpus. What is already there is left
alone, so the job may be killed and repeated at any moment. Where data are a model's own
answers, a sample job makes them before, on a GPU.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from jobs.contract import model_proof
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Workspace, is_whole, lock_folder
from jobs.contract.job_file import (
    AnswersToSample,
    ModelToProve,
    PrepareJob,
    SampleJob,
)
from jobs.model import base_model, content
from jobs.preparing import (
    added_tokens,
    arrangement,
    asked_server,
    chat_trial,
    making,
    self_sample,
)
from jobs.preparing import corpus as corpora
from jobs.preparing.corpus import Corpus, Tasks
from jobs.preparing.source_dataset import SourceDataset
from jobs.preparing.source_files import SourceFiles
from zsg_core import recipe as recipes
from zsg_core.data import prompts
from zsg_core.data.prompts import Template
from zsg_core.errors import UserError
from zsg_core.recipe import Recipe

logger = logging.getLogger(__name__)

# what the tokenizer learns from: the published cap, whatever the run samples,
BASE_TEXTS_PER_TASK = 100
BASE_TEXTS = 10_000  # or more of each where there are few tasks


def run(job: PrepareJob) -> None:
    """Makes every corpus, base and arrangement that the job lists, proves how the
    examples of its models may meet, and tries their chat templates.

    A model that is refused ends nothing of the others: all the rest is made before it
    is told, as UserError.
    """
    refusals = _prove_models(job)
    if not _only_proves(job):
        refusals += _make_things(job)
    if refusals:
        raise UserError("; ".join(refusals))


def _only_proves(job: PrepareJob) -> bool:
    """Whether nothing is to be made but proofs, for which no data are read."""
    proofs = {model_proof.name_proof(model.digest) for model in _list_models(job)}
    return bool(proofs) and proofs >= set(job.makes)


def _make_things(job: PrepareJob) -> list[str]:
    """Makes corpus, bases and arrangements, and tries chat templates; returns why some
    of these are refused."""
    workspace = job.workspace
    files = {name: SourceFiles.of(paths) for name, paths in job.paths.sources.items()}
    corpus = corpora.make_corpus(workspace, job.corpus.id, job.corpus.recipe, files)
    refusals = _try_chats(job, corpus)
    for base in job.bases:
        make_base(workspace, base.recipe, base.source, texts_of_base(corpus))
    refusals += _make_arrangements(job, corpus)
    return refusals


def _make_arrangements(job: PrepareJob, corpus: Corpus) -> list[str]:
    """Makes every order that the job lists; returns why the data do not allow some."""
    refusals: list[str] = []
    for order in job.arrangements:
        if is_whole(job.workspace.arrangement(order.id)):
            continue
        try:
            arrangement.make_arrangement(
                job.workspace, corpus, order.id, order.recipe, job.paths
            )
        except UserError as error:
            _note_refusal(refusals, f"arrangement {order.id}: {error}")
    return refusals


def _try_chats(job: PrepareJob, corpus: Corpus) -> list[str]:
    """Tries the chat templates of the models that the job names; why some are refused."""
    refusals: list[str] = []
    for chat in replace_unset(job.chats) or ():
        try:
            chat_trial.try_chat_once(job.workspace, corpus, chat)
        except UserError as error:
            _note_refusal(refusals, str(error))
    return refusals


def _list_models(job: PrepareJob) -> list[ModelToProve]:
    """The models that the job is to prove."""
    return replace_unset(job.proofs) or []


def _prove_models(job: PrepareJob) -> list[str]:
    """Proves the attention of each model that the job names, before anything is made for
    it; returns why some are refused."""
    models = _list_models(job)
    if not models:
        return []
    from jobs.model import batching

    refusals: list[str] = []
    for model in models:
        folder = Path(model.folder)
        proof = batching.find_or_make_proof(
            folder, job.workspace, digest=model.digest, must_keep=True
        )
        why = proof.find_refusal(model.shortest)
        if why is not None:
            _note_refusal(refusals, f"{folder}: {why}")
    return refusals


def _note_refusal(refusals: list[str], why: str) -> None:
    """Notes why a model or an order is refused, and tells it at once: it ends the job only when all
    the rest is made."""
    logger.error(why)
    refusals.append(why)


def sample_answers(job: SampleJob) -> None:
    """Makes the answers and examples that the job lists, by the base before tokens are
    added to it, or by whom else a maker is to ask."""
    workspace, data = job.workspace, job.corpus.recipe
    files = {name: SourceFiles.of(paths) for name, paths in job.paths.sources.items()}

    def tasks() -> Tasks:
        read = {
            name: rule
            for name, rule in recipes.list_sources(data).items()
            if not recipes.is_made(rule)
        }
        pools = {
            name: SourceDataset(workspace, name, rule, files[name])
            for name, rule in read.items()
        }
        return {
            name: (pool.records["train"], pool.training_places())
            for name, pool in pools.items()
        }

    texts = partial(_base_texts, tasks, Template.from_recipe(data["template"]))

    def make(
        asker: making.Asker, answers: AnswersToSample, source: Recipe, path: Path
    ) -> None:
        named = replace_unset(answers.embedding)
        embedding = None if named is None else Path(named)
        making.make_examples(workspace, answers.id, source, path, asker, embedding)

    gpus = job.resources.gpus_per_node
    for answers in job.samples:
        source = recipes.list_sources(data)[answers.source]
        path = files[answers.source].data
        if server := replace_unset(answers.server):
            making_rule = source[recipes.MAKE]
            seed = making_rule["settings"]["seed"]
            asker = asked_server.open_server(making_rule["maker"], seed, server)
            make(asker, answers, source, path)
            continue
        base = make_base(workspace, answers.base, answers.folder, texts)
        if recipes.MAKE in source:
            asker = making.open_model(workspace, source, base, gpus)
            make(asker, answers, source, path)
        else:
            self_sample.make_answers(workspace, answers.id, source, path, base, gpus)


def make_base(
    workspace: Workspace,
    recipe: Recipe,
    given: str | None,
    texts: Callable[[], Sequence[str]],
) -> Path:
    """The folder of a base, made now unless it is there: `tiny`, or the one of the
    folder `given` with more tokens."""
    made_id = recipes.id_of_base(recipe)
    if made_id is None:
        assert given is not None, "a model that zsg does not make has a folder"
        content.refuse_changed(Path(given), content.model_files, recipe["digest"])
        return Path(given)
    folder = workspace.base(made_id)
    with lock_folder(folder):
        if is_whole(folder):
            return folder
        if "added" in recipe:
            source = make_base(
                workspace, recipes.remove_added_tokens(recipe), given, texts
            )
            logger.info(
                f"base {made_id}: adding {', '.join(recipe['added']['tokens'])}"
            )
            added_tokens.make_extended_base(folder, source, recipe)
        else:
            logger.info(f"base {made_id}: training the tokenizer, drawing the weights")
            base_model.make_tiny(folder, recipe, texts())
    return folder


def texts_of_base(corpus: Corpus) -> Callable[[], Sequence[str]]:
    """What a tiny model's tokenizer learns from, read when it is asked for."""
    return partial(_base_texts, corpus.tasks, corpus.template)


def _base_texts(tasks: Callable[[], Tasks], template: Template) -> list[str]:
    texts: list[str] = []
    for task in corpora.first_of_each_task(tasks(), BASE_TEXTS_PER_TASK, BASE_TEXTS):
        # A task's definition and positive examples repeat in every prompt; learning
        # them once is enough.
        whole = task[:1] if task[0].definition else task
        texts += prompts.training_texts(whole, template)
        texts += [f"{e.input}\n{e.answer}" for e in task] if task[0].definition else []
    return texts
