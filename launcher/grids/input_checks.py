"""Finds what no node could use, before gigabytes are read: a folder that holds no
decoder, data without examples.

Of the data the first task with an instance is read; that a few tasks are empty is for
the nodes to find.
"""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.preparing import added_tokens
from launcher.grids import (
    harness_tasks,
    hub,
    inputs,
    model_folder,
    model_tokenizer,
    suite_files,
)
from launcher.grids.hub import Downloads
from launcher.grids.input_faults import InputFault, InputFaults
from launcher.grids.inputs import name_key
from zsg_core.data import data_sets, instructions, readers, splits
from zsg_core.data.harness_tasks import TaskCode
from zsg_core.data.readers import hugging_face, niv2, p3, wrong_format
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import BadData, UserError
from zsg_core.recipe import reads_file, uses_embedding
from zsg_core.registry import find_digest
from zsg_core.settings.data import HeldOut, Source
from zsg_core.settings.run import MINILM, TINY, Settings

# the sections of settings that name inputs
DATA, MODEL, ARRANGEMENT = "data", "model", "arrangement"
TRAIN, CHECKPOINTS = "train", "checkpoints"
SECTIONS = frozenset({DATA, MODEL, ARRANGEMENT, TRAIN, CHECKPOINTS})


@dataclass(frozen=True)
class Judged:
    """Settings of a run or a stage, and the sections of them that can be judged: what
    the others are stands nowhere, as they have a fault."""

    settings: Settings
    sections: frozenset[str] = SECTIONS


def find_input_faults(
    points: Sequence[Judged],
    downloads: Downloads | None = None,
    *,
    only_looks: bool = False,
    is_whole: bool = True,
    fetches: bool = True,
    task_code: tuple[TaskCode, ...] = (),
) -> list[InputFault]:
    """What is wrong with the inputs of some points, as far as they can be judged.

    Of a model that has no weights yet config.json is enough where nothing is submitted,
    `only_looks`. `is_whole`: no setting is left out for a fault; else data are only
    looked for, as what is left out may say how they are read. `fetches`: data sets of
    the hub are fetched, if nothing else is wrong. `task_code`: the Python of which tasks
    of lm-evaluation-harness may name functions.
    """
    checks = _Checks(downloads, only_looks, is_whole, fetches)
    by_section = {
        section: [point.settings for point in points if section in point.sections]
        for section in SECTIONS
    }
    suite_files.find_suite_faults(
        (settings.checkpoints for settings in by_section[CHECKPOINTS]), checks.faults
    )
    harness_tasks.find_harness_faults(
        (settings.checkpoints for settings in by_section[CHECKPOINTS]),
        checks.faults,
        task_code,
    )
    sound_folders = checks.check_models(by_section[MODEL])
    if is_whole:
        with_lengths = [p.settings for p in points if {MODEL, TRAIN} <= p.sections]
        checks.check_lengths(with_lengths, sound_folders)
    checks.check_embeddings(by_section[ARRANGEMENT])
    checks.check_lists(by_section[ARRANGEMENT])
    checks.check_scorers(by_section[ARRANGEMENT])
    checks.check_targets(
        p.settings for p in points if {DATA, ARRANGEMENT} <= p.sections
    )
    checks.check_added_tokens(by_section[MODEL], sound_folders)
    checks.check_sources(by_section[DATA])
    return checks.faults.list_all()


class _Checks:
    """The checks of the inputs; what is wrong is added to `faults`."""

    def __init__(
        self,
        downloads: Downloads | None,
        only_looks: bool,
        is_whole: bool,
        fetches: bool,
    ) -> None:
        self._downloads, self._only_looks = downloads, only_looks
        self._is_whole, self._fetches = is_whole, fetches
        self.faults = InputFaults()

    def check_models(self, points: Sequence[Settings]) -> dict[str | None, Path]:
        """The folders of models that nothing is wrong with, by their `model.path`."""
        by_path = {
            point.model.path: point for point in points if point.model.name != TINY
        }
        sound: dict[str | None, Path] = {}
        for path, point in by_path.items():
            with self.faults.collecting("model.path", path):
                folder = inputs.base_folder(point)
                assert folder is not None, "tiny is left out above"
                if self._only_looks and not model_folder.has_weights(folder):
                    model_folder.check_config(folder)
                else:
                    model_folder.check_decoder(folder)
                sound[path] = folder
        return sound

    def check_lengths(
        self, points: Sequence[Settings], sound: Mapping[str | None, Path]
    ) -> None:
        """Whether the models' positions reach."""
        lengths = {
            (point.model.path, point.train.max_length)
            for point in points
            if point.model.path in sound
        }
        for path, length in lengths:
            with self.faults.collecting("train.max_length", length):
                model_folder.check_length("train.max_length", length, sound[path])

    def check_embeddings(self, points: Iterable[Settings]) -> None:
        """Whether the orders have the embedding models that they need."""
        key = "arrangement.embedding"
        names = {
            point.arrangement.embedding for point in points if uses_embedding(point)
        }
        for name in names - {MINILM}:
            with self.faults.collecting(key, name):
                folder = inputs.find_folder(key, name)
                if not folder.is_dir():
                    raise UserError(f"{key}: {folder} is not a folder")
                model_folder.check_embedding(key, folder)

    def check_lists(self, points: Iterable[Settings]) -> None:
        """Whether the lists are there that orders are read from."""
        by_path = {
            point.arrangement.path: point for point in points if reads_file(point)
        }
        for path, point in by_path.items():
            with self.faults.collecting("arrangement.path", path):
                inputs.find_order_file(point)

    def check_scorers(self, points: Iterable[Settings]) -> None:
        """Whether the models that score for orders are there, and can be loaded."""
        named = {
            (key, path)
            for point in points
            for key, path in (
                ("scorer", point.arrangement.scorer),
                ("since", point.arrangement.since),
            )
            if path is not None
        }
        for key, path in sorted(named):
            with self.faults.collecting(f"arrangement.{key}", path):
                model_folder.check_decoder(inputs.find_scorer(key, path))

    def check_targets(self, points: Iterable[Settings]) -> None:
        """Whether the files of target sets are there, and can be read as they are said
        to be."""
        sources: dict[str, Source] = {}
        for point in points:
            source = inputs.find_target_source(point)
            if source is not None:
                sources[repr((source.path, source.set, source.columns))] = source
        for source in sources.values():
            if _is_on_hub(source) and (self.faults or not self._fetches):
                continue
            with self.faults.collecting(inputs.TARGET_PATH, source.path):
                path = inputs.find_target(source, self._downloads)
                if self._is_whole:
                    _refuse_unreadable(source.set, path, source, "target")

    def check_added_tokens(
        self, points: Iterable[Settings], sound: Mapping[str | None, Path]
    ) -> None:
        """Refuses to add what the tokenizer knows already; but zsg reads some of its tokens
        as text, and such a one may be named to stay a token."""
        added: dict[Path, dict[str, None]] = {}
        for point in points:
            if point.model.add_tokens and point.model.path in sound:
                tokens = dict.fromkeys(point.model.add_tokens)
                added.setdefault(sound[point.model.path], {}).update(tokens)
        for folder, tokens in added.items():
            with self.faults.collecting("model.add_tokens", list(tokens)):
                as_text = set(model_tokenizer.find_tokens_made_of_text(folder))
                vocabulary = {
                    token: row
                    for token, row in added_tokens.known_tokens(folder).items()
                    if token not in as_text
                }
                added_tokens.refuse_known(folder, list(tokens), vocabulary)

    def check_sources(self, points: Sequence[Settings]) -> None:
        """Checks each source once, however many points draw from it alike; those of the
        hub, which are fetched, last."""
        sources = {
            (name, _drawn(source)): (name, source, settings.data.sources is None)
            for settings in points
            for name, source in settings.data.by_source().items()
        }
        on_hub: list[tuple[str, Source, bool]] = []
        for name, source, is_alone in sources.values():
            if _is_on_hub(source):
                on_hub.append((name, source, is_alone))
            else:
                self._check_source(name, source, is_alone)
        if self._fetches and not self.faults:
            for name, source, is_alone in on_hub:
                self._check_source(name, source, is_alone)

    def _check_source(self, name: str, source: Source, is_alone: bool) -> None:
        located: dict[str, Path] = {}
        for key, (path, reader) in inputs.list_paths(source).items():
            with self.faults.collecting(name_key(name, key), path):
                located[key] = inputs.find_data(
                    name_key(name, key), path, reader, self._downloads
                )
                if key == "tags" and located[key].is_dir():
                    raise UserError(f"{located[key]} is a folder; name a file of tags")
        if not self._is_whole:
            return
        if "path" in located:
            self._check_data(name, source, located["path"], is_alone)
        if "test_path" in located:
            with self.faults.collecting(name_key(name, "test_path"), source.test_path):
                _refuse_unreadable(
                    inputs.test_set(source), located["test_path"], source, "test"
                )
        wordings = "instructions.path"
        if wordings in located:
            with self.faults.collecting(
                name_key(name, wordings), str(located[wordings])
            ):
                instructions.read_wordings(located[wordings])

    def _check_data(
        self, name: str, source: Source, folder: Path, is_alone: bool
    ) -> None:
        """Whether there is something to train on, and to test if these data are to be."""
        key = name_key(name, "path")
        lists: Mapping[str, Sequence[str]] | None = None
        is_there = False
        with self.faults.collecting(key, source.path):
            # there, and of the format, before anything is said of what they hold
            readers.FORMATS[source.set].files(folder)
            lists = readers.read_lists(source.set, folder)
            is_there = True
        if not is_there:
            return
        if lists is None:
            with self.faults.collecting(key, source.path):
                _check_held_out(name, source, folder, is_alone)
        else:
            with self.faults.collecting("data.fraction", source.fraction):
                _refuse_tiny(source, _count_tasks(lists["train"], source.train_tasks))
        with self.faults.collecting(key, source.path):
            if source.set == "niv2" and lists is not None:
                _refuse_empty_splits(key, source, folder, lists)
            else:
                _refuse_unreadable(source.set, folder, source, "train")
        with self.faults.collecting("data.templates", source.templates):
            _refuse_unknown_sets(source, folder)


def _is_on_hub(source: Source) -> bool:
    """Whether a source is read from the hub, as far as its names tell."""
    return any(
        bool(reader)
        and readers.FORMATS[reader].is_on_hub
        and hub.parse_name(path) is not None
        and not _is_there(path)
        for path, reader in inputs.list_paths(source).values()
    )


def _is_there(path: str) -> bool:
    try:
        return inputs.find_folder("", path).exists()
    except UserError:
        return False


def _drawn(source: Source) -> str:
    """What decides which examples are drawn, as far as the checks depend on it; written,
    as lists of names cannot be looked up."""
    deciding = (
        source.set,
        source.columns,
        source.test_columns,
        source.path,
        source.train_per_task,
        source.train_tasks,
        source.test_tasks,
        source.fraction,
        source.templates,
        source.data_sets,
        source.test_set,
        source.test_path,
        source.held_out,
        source.tags,
        source.instructions,
    )
    return repr(deciding)


def _check_held_out(name: str, source: Source, folder: Path, is_alone: bool) -> None:
    """Refuses data without a list of held-out tasks where such a list is to decide."""
    is_decided = is_alone or source.held_out is not None
    by_list = (source.held_out or HeldOut()).by == "list" and is_decided
    if source.test_path is None and by_list:
        key = name_key(name, "path")
        test_path, held_out = name_key(name, "test_path"), name_key(name, "held_out")
        raise UserError(
            f"{key}: {folder}: no list of held-out tasks lies beside the data of {source.set}; set"
            f" {test_path}, or {held_out}: {{share: 1/5}} of the rows, {{by: seed, tasks: …}}"
            " or {by: family}"
        )


def _refuse_empty_splits(
    key: str, source: Source, folder: Path, lists: Mapping[str, Sequence[str]]
) -> None:
    for split, count in (
        ("train", source.train_tasks),
        ("test", source.test_tasks),
    ):
        if isinstance(count, list):
            continue  # what is named may be held out of the other list
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


def _count_tasks(tasks: Sequence[str], limit: int | list[str] | None) -> int:
    """How many tasks a limit leaves; a name that none has is refused with the data."""
    if isinstance(limit, list):
        return sum(
            any(splits.is_named(task, pattern) for pattern in limit) for task in tasks
        )
    return len(tasks[:limit])


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


def _refuse_unreadable(name: str, path: Path, source: Source, split: str) -> None:
    """BadData for data of a split, train or test, of which no row can be read."""
    # The first example tells a wrong format; the rest is read on a node, where pyarrow is for sure.
    if name == hugging_face.NAME and importlib.util.find_spec("pyarrow") is None:
        return
    if find_digest(name):
        return  # a plugin reads them, which only jobs run
    columns, mapping = source.columns, source.mapping_name
    if split == "test":
        columns, mapping = source.test_columns, source.test_mapping_name
    intake = Intake(source.on_bad_row == "skip")
    try:
        next(iter(readers.read_examples(name, path, intake, columns)))
    except BadData as error:
        if misfit := wrong_format.describe(name, path, columns, mapping):
            raise BadData(misfit) from error
        raise
    if mapping is None:
        return
    # rows of another published set may be read, as what they are not
    if misfit := wrong_format.describe(name, path, columns, mapping):
        raise BadData(misfit)
