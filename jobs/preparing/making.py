"""Has a maker make the examples of a source, as records that a corpus draws from.

The replies lie in replies/<id>/ (jobs.preparing.reply_log), and the maker is run over
them (zsg_core.makers.registry): killed at any moment the job goes on after the last
reply, and makes the set that it would have made in one go.
"""

import importlib.metadata
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from jobs.contract.asking import name_asking
from jobs.contract.folder import (
    META,
    Workspace,
    is_whole,
    lock_folder,
    publish_folder,
    read_json,
    write_json,
)
from jobs.contract.prepared import MakingFacts
from jobs.model import content
from jobs.model.vocabulary import load_vocabulary
from jobs.preparing import embed, reading_notes, records, self_sample
from jobs.preparing.asked_model import AskedModel, Writing
from jobs.preparing.reply_log import ReplyLog
from jobs.runtime import devices
from zsg_core.data import readers, splits
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError
from zsg_core.families.registry import position_count
from zsg_core.makers.registry import (
    MAKERS,
    Encode,
    Made,
    Maker,
    Reply,
    Request,
    run_maker,
)
from zsg_core.recipe import EMBEDDING, MAKE, Recipe

logger = logging.getLogger(__name__)

MADE_FILE = "made-"  # how the names of a maker's files begin in the folder of records
VERSIONS = ("torch", "transformers")


class Asker(Protocol):
    """Who answers a maker's requests. `name`: for people."""

    name: str

    def answer(self, requests: Sequence[Request], log: ReplyLog) -> None:
        """Has every request of a round in the log."""

    def cost(self, read: int, written: int) -> float | None:
        """What so many tokens cost; None where there is no price."""


def make_examples(
    workspace: Workspace,
    made_id: str,
    source: Recipe,
    path: Path,
    asker: Asker,
    embedding: Path | None = None,
) -> None:
    """Publishes records/<made_id> unless it is there. `embedding`: the folder of the
    model by which meanings are compared. UserError where no example is made."""
    folder = workspace.records(made_id)
    with lock_folder(folder):
        if is_whole(folder):  # another job has made it while this one waited
            return
        intake = Intake(source.get("on_bad_row") == "skip")
        examples = read_items(source, path, intake)
        maker = MAKERS[source[MAKE]["maker"]]
        refuse_missing(maker)
        settings = maker.settings.model_validate(source[MAKE]["settings"])
        replies = workspace.replies(name_asking(source, maker))
        with lock_folder(replies):
            log = ReplyLog(replies)
            requests_asked: list[Request] = []

            def answer(requests: Sequence[Request]) -> list[Reply]:
                asker.answer(requests, log)
                requests_asked.extend(requests)
                return [_find_reply(log, request) for request in requests]

            steps = maker.start(
                examples,
                settings,
                make_encode(workspace, embedding, source[MAKE].get(EMBEDDING)),
            )
            outcome = run_maker(steps, answer)
            facts = collect_facts(outcome, maker, asker, requests_asked, log)
        facts = msgspec.structs.replace(facts, items=len(examples), **intake.facts())
        publish_made(folder, source, outcome, facts)


def refuse_missing(maker: Maker) -> None:
    """UserError where a package is not installed that the maker needs later."""
    for package in maker.packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"make.{maker.name} needs {package}, which is not installed: pip install"
                " 'zsg[evaluate]'"
            )


def make_encode(
    workspace: Workspace, embedding: Path | None, digest: str | None
) -> Encode | None:
    """What makes vectors of texts, which are kept by content; None where no meanings are
    compared. `digest`: of the model's files."""
    if embedding is None or digest is None:
        return None

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        folder = embed.embed_texts(workspace, texts, embedding, digest)
        return np.array(embed.map_vectors(folder))

    return encode


def read_items(source: Recipe, path: Path, intake: Intake) -> list[Example]:
    """The examples that the maker is given: all of the source's files, or so many of
    them. UserError where the files are no longer what was planned."""
    reader = source["reader"]
    content.refuse_changed(path, content.data_files(reader), source["digest"])
    content.refuse_other_reading(reader, path, source)
    examples = list(readers.read_examples(reader, path, intake, source.get("fields")))
    settings = source[MAKE]["settings"]
    count = settings["items"]
    if count is None:
        return examples
    return splits.sample_nested(examples, count, settings["seed"], MAKE)


def open_model(
    workspace: Workspace, source: Recipe, folder: Path, gpus: int = 0
) -> AskedModel:
    """The model of a folder, as a source's maker asks it. `gpus`: those that the job
    was given."""
    from jobs.model import placement
    from jobs.model.batching import choose_attention

    rule = source[MAKE]
    vocabulary = load_vocabulary(folder, rule)
    used = devices.choose_devices(gpus)

    def load() -> Any:
        return placement.load_on(
            used,
            folder=folder,
            precision=rule["precision"],
            attention=choose_attention(folder, workspace),
        )

    writing = Writing(
        vocabulary=vocabulary,
        template=Template.from_recipe(rule["template"]),
        context=position_count(read_json(folder / "config.json") or {}),
        ends=tuple(self_sample.list_ends(rule, vocabulary).get("ends", ())),
    )
    seed = rule["settings"]["seed"]
    return AskedModel(f"model {folder.name}", load, writing, seed, used[0])


def collect_facts(
    outcome: Made,
    maker: Maker,
    asker: Asker,
    requests: Sequence[Request],
    log: ReplyLog,
) -> MakingFacts:
    """What there is to tell of a making."""
    read = 0
    written = 0
    for request in requests:
        logged = log.get(request)
        if logged is not None:
            read += logged.read
            written += logged.written
    return MakingFacts(
        maker=maker.name,
        asked=asker.name,
        requests=len(requests),
        examples=len(outcome.examples),
        refused=outcome.refused,
        facts=outcome.facts,
        read=read,
        written=written,
        cost=asker.cost(read, written),
    )


def publish_made(
    folder: Path, source: Recipe, outcome: Made, facts: MakingFacts
) -> None:
    """Writes the examples with the recipe of their making and what became of the
    rest. UserError where there are none."""
    for note in reading_notes.describe_making(facts):
        logger.info(note)
    if not outcome.examples:
        raise UserError(
            f"make.{facts.maker}: no example was made; refused: {_list_refused(facts)}"
        )
    reader = source["reader"]
    with publish_folder(folder) as draft:
        records.write_records(
            draft,
            outcome.examples,
            folder.name,
            with_options=readers.FORMATS[reader].options,
        )
        records.Records(draft).refuse_doubled(folder)
        for name, text in outcome.files.items():
            (draft / f"{MADE_FILE}{name}").write_text(text, encoding="utf-8")
        meta: dict[str, Any] = {
            "reader": reader,
            "source": source["digest"],
            "lists": None,
            "count": len(outcome.examples),
            "make": source[MAKE],
            "digest": content.sha256_of([draft / records.DATA])[0],
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        }
        write_json(draft / META, {**meta, "made": msgspec.to_builtins(facts)})


def _find_reply(log: ReplyLog, request: Request) -> Reply:
    logged = log.get(request)
    if logged is None:
        raise AssertionError(f"nobody answered request {request.id!r}")
    return logged.reply


def _list_refused(facts: MakingFacts) -> str:
    counts = [f"{count} ({reason})" for reason, count in facts.refused.items()]
    return ", ".join(counts) or "nothing; the source has no items"
