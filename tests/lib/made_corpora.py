"""Corpora of data settings, made as a prepare job makes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.contract.folder import Workspace
from jobs.preparing.corpus import Corpus, make_corpus
from launcher.grids import inputs
from zsg_core.recipe import corpus_id, make_recipe
from zsg_core.settings.run import Settings

Make = Callable[..., Corpus]


def make_corpora(folder: Path) -> Make:
    """What makes the corpus of some settings of data, in a workspace of this folder."""
    workspace = Workspace(folder / "work")

    def make(**data: Any) -> Corpus:
        wanted = Settings.model_validate({"data": data})
        reader = inputs.Inputs(folder / "digests.json")
        recipe = make_recipe(wanted, reader.digest_inputs(wanted))
        files = {
            name: inputs.source_files(name, source)
            for name, source in wanted.data.by_source().items()
        }
        rule = recipe["stages"][0]["data"]
        return make_corpus(workspace, corpus_id(recipe), rule, files)

    return make
