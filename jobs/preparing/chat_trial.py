"""Tries a model's chat template on every example of a corpus, before any job with GPUs
starts: what it refuses is told here, with the example.

That it went well is kept, so that the same is not tried again.
"""

from pathlib import Path

from msgspec import UNSET

from jobs.contract.folder import Workspace, is_whole, publish_folder
from jobs.contract.job_file import ChatToTry
from jobs.contract.prepared import ChatTrialMeta, write_prepared_meta
from jobs.model.vocabulary import load_vocabulary
from jobs.preparing.corpus import Corpus


def try_chat_once(workspace: Workspace, corpus: Corpus, chat: ChatToTry) -> None:
    """The same as try_chat, unless it has gone well before."""
    if chat.id is UNSET:
        try_chat(corpus, chat)
        return
    folder = workspace.chat_trial(chat.id)
    if is_whole(folder):
        return
    try_chat(corpus, chat)
    with publish_folder(folder) as draft:
        examples = len(corpus.train) + len(corpus.test)
        write_prepared_meta(draft, ChatTrialMeta(examples=examples))


def try_chat(corpus: Corpus, chat: ChatToTry) -> None:
    """UserError for a template that is not the planned one, and for an example that it
    cannot write or of which no answer can be learnt."""
    vocabulary = load_vocabulary(Path(chat.folder), chat.base)
    encoder = vocabulary.open_chat(corpus.template)
    for examples in (corpus.train, corpus.test):
        for example in examples:
            encoder.encode(example, chat.max_length, chat.truncate)
