"""Tries a model's chat template on every example of a corpus, before any job with GPUs
starts: what it refuses is told here, with the example."""

from pathlib import Path

from jobs.contract.job_file import ChatToTry
from jobs.model.vocabulary import load_vocabulary
from jobs.preparing.corpus import Corpus


def try_chat(corpus: Corpus, chat: ChatToTry) -> None:
    """UserError for a template that is not the planned one, and for an example that it
    cannot write or of which no answer can be learnt."""
    vocabulary = load_vocabulary(Path(chat.folder), chat.base)
    encoder = vocabulary.open_chat(corpus.template)
    for examples in (corpus.train, corpus.test):
        for example in examples:
            encoder.encode(example, chat.max_length, chat.truncate)
