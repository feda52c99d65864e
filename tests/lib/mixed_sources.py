"""Fixtures that write files of rows and make the corpora of several sources."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.folder import Workspace
from jobs.preparing import corpus as corpora
from jobs.preparing.corpus import Corpus
from launcher.grids import inputs
from zsg_core.recipe import corpus_id, list_prefixes, make_recipe
from zsg_core.settings.run import Settings

Make = Callable[..., list[Corpus]]


@pytest.fixture
def make(tmp_path: Path, logged: list[str]) -> Make:
    """Makes the corpora of the stages of a run; what is said stands in `make.said`."""
    workspace = Workspace(tmp_path / "work")
    digests = inputs.Inputs(tmp_path / "digests.json")

    def of(
        sources: dict[str, Any] | None = None, strategy: Any = None, **data: Any
    ) -> list[Corpus]:
        given = {"data": data | ({"sources": sources} if sources else {})}
        wanted = Settings.model_validate(
            given | ({"strategy": strategy} if strategy else {})
        )
        made = []
        for one, own in zip(
            list_prefixes(make_recipe(wanted, digests.digest_inputs(wanted))),
            wanted.by_stage(),
            strict=True,
        ):
            files = {
                name: inputs.source_files(name, source)
                for name, source in own.data.by_source().items()
            }
            made.append(
                corpora.make_corpus(
                    workspace,
                    corpus_id(one),
                    one["stages"][-1]["data"],
                    files,
                )
            )
        return made

    of.said = logged  # type: ignore[attr-defined]
    return of


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., str]:
    """Writes a file of rows; its path."""

    def write(name: str, rows: list[dict[str, Any]]) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write
