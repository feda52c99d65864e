"""The prepare job: samples the data, embeds it, puts it in order, makes the tiny base; each thing once.

One prepare job serves every run that shares its corpus. What is already there is left alone, so the job may
be killed and repeated at any moment.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.folder import Workspace, is_committed
from jobs.preparing import arrangement, base_model
from jobs.preparing import corpus as corpora
from jobs.preparing.corpus import Corpus
from jobs.preparing.pool import Files
from zsg_core import prompts

BASE_TEXTS_PER_TASK = 100  # what the tokenizer learns from: the published cap, whatever the run samples,
BASE_TEXTS = 10_000  # or more of each where there are few tasks

Say = Callable[[str], None]


def run(job: dict[str, Any], say: Say) -> None:
    """Makes every corpus, base and arrangement that the job lists."""
    workspace = Workspace(Path(job["paths"]["workspace"]))
    files = {name: Files.of(paths) for name, paths in job["paths"]["sources"].items()}
    corpus = corpora.make(workspace, job["corpus"]["id"], job["corpus"]["recipe"], files, say)
    for base in job["bases"]:
        if not is_committed(workspace.base(base["id"])):
            say(f"base {base['id']}: training the tokenizer, drawing the weights")
            base_model.make_tiny(workspace.base(base["id"]), base["recipe"], _base_texts(corpus))
    for wanted in job["arrangements"]:
        if not is_committed(workspace.arrangement(wanted["id"])):
            arrangement.make(workspace, corpus, wanted["id"], wanted["recipe"], job["paths"]["embedding"], say)


def _base_texts(corpus: Corpus) -> list[str]:
    texts: list[str] = []
    for task in corpus.first_of_each_task(BASE_TEXTS_PER_TASK, BASE_TEXTS):
        # A task's definition and positive examples repeat in every prompt; learning them once is enough.
        whole = task[:1] if task[0].definition else task
        texts += prompts.training_texts(whole, corpus.template)
        texts += [f"{e.input}\n{e.answer}" for e in task] if task[0].definition else []
    return texts
