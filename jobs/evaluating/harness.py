"""Runs tasks of lm-evaluation-harness inside the evaluate job, on the model that it holds:
the one module that knows the harness.

A task is loaded and its prompts are built once, whatever the number of checkpoints; what
is kept is only of the requests, never of what a model said (the harness' own cache looks
at prompts, and would give one checkpoint's answers for another's). Scoring and answering
are zsg's own (scored_requests, jobs.model.generate): the harness asks for them through
its `LM` interface.

The harness' templates are Jinja, and a task of the user's may hold any: they are run in
Jinja's sandbox, each compiled once. Which files a task may name, and that it names no
code but functions of plugins, is judged before (zsg_core.data.harness_tasks).
"""

import atexit
import contextlib
import functools
import importlib.metadata
import inspect
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import datasets
import lm_eval.api.metrics
import lm_eval.api.task
import lm_eval.tasks._yaml_loader
import lm_eval.utils
import torch
from jinja2 import BaseLoader, StrictUndefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.api.model import LM
from lm_eval.api.registry import AGGREGATION_REGISTRY
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from jobs.evaluating.harness_limits import TimeAllowance, TooLong
from jobs.evaluating.harness_prompts import PromptWriter
from jobs.evaluating.harness_replies import (
    REQUESTS,
    AnswerSome,
    HeldReplies,
    Reply,
    digest_request,
)
from jobs.evaluating.harness_values import (
    GroupFound,
    ItemFound,
    KeyValues,
    Metric,
    TaskFound,
    collect_values,
)
from jobs.evaluating.scored_requests import ScoredRequests
from jobs.model.answer_loss import AnswerLoss
from jobs.model.generate import Generator, cut_at_stops
from zsg_core.data.harness_tasks import (
    PACKAGED_READERS,
    HarnessTask,
    TaskCode,
    locate_code,
    locate_shipped,
    split_function,
)
from zsg_core.errors import ClusterError, UserError
from zsg_core.metrics.keys import is_standard_error
from zsg_core.plugins import loading
from zsg_core.plugins.declarations import PluginFile
from zsg_core.settings.lm_eval import PLAINLY
from zsg_core.shown_text import make_showable
from zsg_core.suites import BY_NUMBER, NUCLEUS

logger = logging.getLogger(__name__)

DISTRIBUTION = "lm_eval"
NEW_TOKENS = 256  # where a task does not say how long an answer may be
# by these names, the last counts most
LENGTHS = ("max_completion_tokens", "max_tokens", "max_new_tokens", "max_gen_toks")
UNTIL = ("\n\n",)  # where it does not say at what text an answer is over
MOST_LETTERS = 10_000_000  # of what a template repeats
MOST_POWER = 1000
SHOWN_TEXT = 80  # letters of a template, where it is named
NO_END = (
    "{path}: {what}, and was stopped. It may have no end: a loop within a loop, or a regular"
    " expression with a repeat within a repeat, as (a+)+. Write it with fewer ways to go on"
)
CUT = "{count} of {all} prompts of {task} were cut to the model's positions"
OWN_SHOT = (
    "{count} of {all} items of {task} are among their own solved examples, answer"
    " included (lm-evaluation-harness draws them so)"
)
# where a device has no memory left, or fails; the second is of torch from 2.8 on
DEVICE_ERRORS: tuple[type[Exception], ...] = (
    torch.OutOfMemoryError,
    getattr(torch, "AcceleratorError", torch.OutOfMemoryError),
)
# of errors of files, those that come again however often it is tried
ABSENT_FILES = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
MOST_CAUSES = 10  # of an error, one of another
_WIDE_FIELD = re.compile(r"%[^a-zA-Z%]*([0-9]{5}|[*])")
# makes a generator for a way of answering
MakeGenerator = Callable[[Mapping[str, Any]], Generator]


@dataclass(frozen=True)
class HeldModel:
    """The model as its weights are now. `budget`: the most tokens of a training
    micro-batch; `replies`: what these weights have said to requests of other tasks."""

    model: AnswerLoss
    device: str
    budget: int
    positions: int
    make_generator: MakeGenerator
    replies: HeldReplies = field(default_factory=HeldReplies)


@dataclass(frozen=True)
class HarnessTaken:
    """What was taken of a key: values by keys and items, and what the model said to
    each request. `reused`: how many of the requests it had answered already, for another
    key at the same step."""

    values: KeyValues
    tasks: list[str]
    ids: list[str]
    outputs: list[dict[str, Any]]
    digest: str
    reused: int = 0


class _Templates(SandboxedEnvironment):
    """The harness' templates, each compiled once: that was 98 % of making prompts. They
    are bounded in time, and in what their signs `*`, `**` and `%` make."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True
        )
        self.filters["regex_replace"] = lm_eval.utils.regex_replace
        self._compiled: dict[str, Any] = {}

    def from_string(self, source: Any, *options: Any, **named: Any) -> Any:
        """The template of a text."""
        if source not in self._compiled:
            template = super().from_string(source, *options, **named)
            self._compiled[source] = _LimitedTemplate(str(source), template)
        return self._compiled[source]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """As Jinja does it. OverflowError for what would be larger than any prompt."""
        if operator == "*":
            _refuse_repeating(left, right)
            _refuse_repeating(right, left)
        elif operator == "%":
            _refuse_wide_field(left)
        elif isinstance(right, int | float) and abs(right) > MOST_POWER:
            raise OverflowError(f"a power of more than {MOST_POWER}")
        return super().call_binop(context, operator, left, right)


class _LimitedTemplate:
    """A compiled template, of which all renderings together have so many seconds."""

    def __init__(self, text: str, template: Any) -> None:
        self._template = template
        shown = make_showable(text[:SHOWN_TEXT], keep="")
        self._allowance = TimeAllowance(f"its template {shown!r}")

    def render(self, *values: Any, **named: Any) -> str:
        """The text by these values. TooLong where no second is left."""
        with self._allowance.limiting():
            return self._template.render(*values, **named)


def _refuse_repeating(value: Any, times: Any) -> None:
    """OverflowError where something with a length would be repeated too often."""
    if isinstance(times, int) and isinstance(value, str | bytes | list | tuple):
        if len(value) * times > MOST_LETTERS:
            raise OverflowError(f"repeats to more than {MOST_LETTERS:,} letters")


class _Datasets:
    """The library `datasets` as tasks see it: clones of data sets, and files beside a
    task's own, are found where they lie."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.folders: Sequence[Path] = ()
        self.cache: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(datasets, name)

    def load_dataset(
        self, path: str, name: str | None = None, **options: Any
    ) -> datasets.DatasetDict:
        """As datasets.load_dataset."""
        files = options.get("data_files")
        if path in PACKAGED_READERS and files is not None:
            options["data_files"] = _place_files(files, self.folders)
            options["cache_dir"] = self.cache
        elif self.root is not None and (self.root / path).is_dir():
            path = str(self.root / path)
            options["cache_dir"] = self.cache
        return datasets.load_dataset(path=path, name=name, **options)


def _place_files(files: Any, folders: Sequence[Path]) -> Any:
    """Names of files, those that are relative made absolute."""
    if isinstance(files, Mapping):
        return {split: _place_files(name, folders) for split, name in files.items()}
    if isinstance(files, list | tuple):
        return [_place_files(name, folders) for name in files]
    if Path(files).is_absolute():
        return files
    paths = (folder / files for folder in folders)
    return str(next((path for path in paths if path.exists()), files))


def _refuse_wide_field(pattern: Any) -> None:
    """OverflowError where what is put into a text would be filled up to a width of many
    letters, or to one that is given beside it."""
    if isinstance(pattern, str) and _WIDE_FIELD.search(pattern):
        raise OverflowError("a field of more than 9,999 letters")


_SOURCES = _Datasets()
_import_function = lm_eval.tasks._yaml_loader._import_func_in_yml


# by where the user has them, the Python files of which tasks of this job name functions
_CODE: dict[Path, TaskCode] = {}


def _import_allowed(name: str, folder: Path) -> Any:
    """What `!function` names in a file of a folder: of a shipped one what the harness
    imports, of a user's a function of a plugin, from this job's copy of it.

    UserError for anything else. Such a file is refused before anything is submitted; this
    holds however the harness comes to it.
    """
    shipped = locate_shipped()
    assert shipped is not None, "the harness is imported here"
    if folder.resolve().is_relative_to(shipped.resolve()):
        return _import_function(name, folder)
    parsed = split_function(name)
    code = None if parsed is None else _CODE.get(locate_code(folder / "_", parsed[0]))
    plugin = None if code is None else loading.find_plugin(code.digest)
    if parsed is None or plugin is None:
        raise UserError(
            f"{folder}: a task there names Python code, which zsg does not run"
        )
    return _tell_faults(plugin, loading.find_defined(plugin, parsed[1]))


def _tell_faults(plugin: PluginFile, function: Any) -> Any:
    """A function of a plugin, of which what it raises is told with the plugin's line.

    Arguments that it does not take are Python's own TypeError: the harness tries metrics
    with others then.
    """
    if not callable(function) or isinstance(function, type):
        return function
    signature = _read_signature(function)

    @functools.wraps(function, updated=())
    def call(*arguments: Any, **options: Any) -> Any:
        if signature is not None:
            signature.bind(*arguments, **options)
        with loading.told(plugin.name, "asked by a task of lm-evaluation-harness"):
            return function(*arguments, **options)

    return call


def _read_signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Which arguments a function takes; None of one that does not say, as `max`."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _download_beside(task: Any, *arguments: Any, **options: Any) -> None:
    """Reads a task's data; names of files are relative to the task's own file."""
    source = (task.config.metadata or {}).get("config_source")
    if source is not None:
        _SOURCES.folders = [Path(source).parent]
    _download(task, *arguments, **options)


_download = lm_eval.api.task.ConfigurableTask.download


def prepare_library() -> None:
    """Has the harness render templates in a sandbox, import no code of a user's folder
    that was not allowed, find data where they lie, and print no bars; done once or often.
    """
    datasets.disable_progress_bars()
    if not isinstance(lm_eval.utils.env, _Templates):
        lm_eval.utils.env = _Templates()
    library: Any = lm_eval.api.task
    library.datasets = _SOURCES
    library.tqdm = _without_bar
    library.ConfigurableTask.download = _download_beside
    loader: Any = lm_eval.tasks._yaml_loader
    loader._import_func_in_yml = _import_allowed
    logging.getLogger(DISTRIBUTION).setLevel(logging.ERROR)


def _without_bar(iterable: Any, *_arguments: Any, **_options: Any) -> Any:
    return iterable


class _ServedModel(LM):
    """The model as the harness asks it. Layouts of requests are kept from one
    checkpoint to the next; what these weights have said already is not asked again."""

    def __init__(self, writer: PromptWriter) -> None:
        super().__init__()
        self.writer = writer
        self.held: HeldModel | None = None
        self.cut: dict[str, int] = {}
        self.reused = 0
        self._digests: dict[str, list[str]] = {}
        self._pairs: list[tuple[list[int], list[int]]] = []
        self._scored: tuple[tuple[int, ...], ScoredRequests] | None = None
        self._rolling: tuple[tuple[int, ...], ScoredRequests, list[int]] | None = None
        self._prompts: list[list[int]] | None = None

    @property
    def tokenizer_name(self) -> str:
        """Nothing is cached by it."""
        return ""

    @property
    def _model(self) -> HeldModel:
        assert self.held is not None, "a model is held while tasks are taken"
        return self.held

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A dialogue as one text."""
        return self.writer.write_dialogue(chat_history, add_generation_prompt)

    def _ask_missing(
        self, kind: str, requests: Sequence[Any], ask: AnswerSome
    ) -> list[Reply]:
        """The replies to requests of a kind; those that these weights have not answered
        yet are asked for."""
        if kind not in self._digests:
            self._digests[kind] = list(map(_digest_asked, requests))
        replies = self._model.replies.answer(self._digests[kind], ask)
        self.reused += self._model.replies.reused
        return replies

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """How likely continuations are after their contexts."""
        if not self._pairs:
            self._pairs = self.writer.encode_pairs([asks.args for asks in requests])
            longest = self._model.positions + 1
            lengths = [len(before) + len(after) for before, after in self._pairs]
            self.cut["loglikelihood"] = sum(length > longest for length in lengths)
        replies = self._ask_missing("loglikelihood", requests, self._score_pairs)
        return cast("list[tuple[float, bool]]", replies)

    def _score_pairs(self, missing: Sequence[int]) -> list[Reply]:
        """The scores of some of the requests. Those that are missing at one checkpoint
        are so at the next, so that their layout is kept."""
        model = self._model
        numbers = tuple(missing)
        if self._scored is None or self._scored[0] != numbers:
            pairs = [self._pairs[number] for number in numbers]
            self._scored = numbers, ScoredRequests(pairs, model.positions)
        scores = self._scored[1].measure(model.model, model.device, model.budget)
        return [(score.log_likelihood, score.is_greedy) for score in scores]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """How likely whole texts are: each token once, after one beginning of
        sequence.

        A longer text is read in windows of the model's positions, of which the later
        ones have one token of what stands before them for context.
        """
        texts = [asks.args[0] for asks in requests]

        def score_texts(missing: Sequence[int]) -> list[Reply]:
            return self._score_windows(missing, texts)

        replies = self._ask_missing("loglikelihood_rolling", requests, score_texts)
        return cast("list[float]", replies)

    def _score_windows(
        self, missing: Sequence[int], texts: Sequence[str]
    ) -> list[Reply]:
        """The scores of some of the texts, each the sum over its windows."""
        model = self._model
        numbers = tuple(missing)
        if self._rolling is None or self._rolling[0] != numbers:
            windows, owners = self._lay_windows([texts[number] for number in numbers])
            self._rolling = numbers, ScoredRequests(windows, model.positions), owners
        _, scored, owners = self._rolling
        sums = [0.0] * len(numbers)
        measured = scored.measure(model.model, model.device, model.budget)
        for owner, score in zip(owners, measured, strict=True):
            sums[owner] += score.log_likelihood
        return list(sums)

    def _lay_windows(
        self, texts: Sequence[str]
    ) -> tuple[list[tuple[list[int], list[int]]], list[int]]:
        """The windows of texts, and of which text each is."""
        windows: list[tuple[list[int], list[int]]] = []
        owners: list[int] = []
        for number, ids in enumerate(self.writer.encode_rolling(texts)):
            overlapping = lm_eval.utils.get_rolling_token_windows(
                ids, self.writer.texts.first, self._model.positions, 1
            )
            for window in map(lm_eval.utils.make_disjoint_window, overlapping):
                windows.append(window)
                owners.append(number)
        return windows, owners

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The answers to contexts, each up to the first of its stops.

        Requests that are answered in one way are answered together; which share a batch
        depends on their lengths (see jobs.model.generate). Prompts are encoded once.
        """
        if self._prompts is None:
            contexts = [request.args[0] for request in requests]
            self._prompts = self.writer.encode_prompts(contexts)
        self.cut["generate_until"] = self._count_cut_prompts(requests)

        def answer_some(missing: Sequence[int]) -> list[Reply]:
            return self._generate(missing, requests)

        replies = self._ask_missing("generate_until", requests, answer_some)
        return cast("list[str]", replies)

    def _count_cut_prompts(self, requests: Sequence[Any]) -> int:
        """How many prompts leave no room for the longest answer."""
        assert self._prompts is not None
        count = 0
        for prompt, request in zip(self._prompts, requests, strict=True):
            longest = _take_length(dict(request.args[1]))
            count += len(prompt) > self._model.positions - longest
        return count

    def _generate(self, missing: Sequence[int], requests: Sequence[Any]) -> list[Reply]:
        """The answers to some of the requests, in their order."""
        answers: dict[int, str] = {}
        by_way: dict[str, list[int]] = {}
        for number in missing:
            by_way.setdefault(repr(requests[number].args[1]), []).append(number)
        for numbers in by_way.values():
            settings = requests[numbers[0]].args[1]
            decoding = _read_way(settings, self.writer.texts.eos_text)
            answers.update(self._answer(decoding, numbers, requests))
        return [answers[number] for number in missing]

    def _answer(
        self,
        decoding: Mapping[str, Any],
        numbers: Sequence[int],
        requests: Sequence[Any],
    ) -> Iterator[tuple[int, str]]:
        """The answers to the prompts of those numbers, all answered in one way.

        Of a prompt that leaves no room for the longest answer the beginning is left out,
        as the harness does. UserError where an answer alone is longer than the model's
        positions.
        """
        assert self._prompts is not None
        model = self._model
        firsts = _find_firsts(requests)
        room = model.positions - decoding["max_new_tokens"]
        if room < 1:
            raise UserError(
                f"a task asks for answers of up to {decoding['max_new_tokens']} tokens, and the"
                f" model has {model.positions} positions"
            )
        whole = [self._prompts[number] for number in numbers]
        names = [_name_request(requests[number], number, firsts) for number in numbers]
        ending = self.writer.add_ends(decoding)
        generator = model.make_generator(ending)
        answers = generator.answers([ids[-room:] for ids in whole], names)
        for number, ids in zip(numbers, answers, strict=True):
            yield number, cut_at_stops(self.writer.texts.decode(ids), ending["stops"])


def _digest_asked(request: Any) -> str:
    """By what a request is known."""
    task, item, _repeats = request.metadata
    return _digest_of_item(task, item, request.args)


def _digest_of_item(task: str, item: int, arguments: Sequence[Any]) -> str:
    """By what a request is known: what it asks. Where the answer is drawn its item is
    part of that, which has draws of its own: it would else be another's where that is
    asked before, and its own where it is not."""
    settings = arguments[-1] if arguments else None
    if isinstance(settings, Mapping) and _is_drawn(settings):
        return digest_request([task, item, *arguments])
    return digest_request(arguments)


def _find_firsts(requests: Sequence[Any]) -> dict[str, int]:
    """By tasks, the place of the first request of each."""
    firsts: dict[str, int] = {}
    for number, request in enumerate(requests):
        firsts.setdefault(request.metadata[0], number)
    return firsts


def _name_request(request: Any, number: int, firsts: Mapping[str, int]) -> str:
    """What tells a request's draws apart, whatever else is asked. `firsts`: by tasks, the
    places of their first requests, from which a task's own are counted."""
    task, item, _repeats = request.metadata
    if request.repeats > 1:
        return f"{task}/{item}~{number - firsts[task]}"
    return f"{task}/{item}"


def _is_drawn(settings: Mapping[str, Any]) -> bool:
    """Whether a task's generation settings have tokens drawn."""
    temperature = float(settings.get("temperature", 0.0) or 0.0)
    return bool(settings.get("do_sample", True)) and temperature > 0


def _read_way(settings: Mapping[str, Any], end: str) -> dict[str, Any]:
    """A task's generation settings as zsg's way of answering.

    `end`: the end of sequence as text, which ends answers, too. Without a temperature,
    or with `do_sample: false`, the likeliest token is taken; else tokens are drawn with
    a seed of each item's own. UserError for settings that zsg does not know, as a task
    with others would be another task.
    """
    remaining = dict(settings)
    decoding: dict[str, Any] = {
        "decoding": "greedy",
        "max_new_tokens": _take_length(remaining),
        "stops": _take_stops(remaining, end),
    }
    is_drawn = _is_drawn(settings)
    temperature = float(remaining.pop("temperature", 0.0) or 0.0)
    remaining.pop("do_sample", None)
    top_p, top_k = remaining.pop("top_p", None), remaining.pop("top_k", None)
    if is_drawn:
        decoding |= {
            "decoding": NUCLEUS,
            "drawn": BY_NUMBER,
            "seed": 0,
            "temperature": temperature,
            "top_p": 1.0 if top_p is None else float(top_p),
        }
    if is_drawn and top_k:
        decoding["top_k"] = int(top_k)
    if remaining:
        names = ", ".join(sorted(map(str, remaining)))
        raise UserError(f"generation_kwargs of a task: zsg does not know {names}")
    return decoding


def _take_length(settings: dict[str, Any]) -> int:
    """How long an answer may be, by the name that counts most of those that are given."""
    length = NEW_TOKENS
    for name in LENGTHS:
        value = settings.pop(name, None)
        if value is not None:
            length = int(value)
    return length


def _take_stops(settings: dict[str, Any], end: str) -> list[str]:
    """The texts at which an answer is over, each once.

    A task that says nothing has the harness' own, an empty line; one that gives an empty
    list has none but the end of sequence.
    """
    until = settings.pop("until", None)
    stops = list(UNTIL) if until is None else until
    if isinstance(stops, str):
        stops = [stops]
    return [stop for stop in dict.fromkeys([*stops, end]) if stop]


class LoadedTask:
    """A task, a group or a tag, its prompts and the layout of its requests."""

    def __init__(self, task: HarnessTask, how: Mapping[str, Any], writer: PromptWriter):
        """UserError where it cannot be loaded: its data are not there, or its file is
        not what the harness understands."""
        self._task, self._how = task, how
        self._served = _ServedModel(writer)
        manager = TaskManager(
            include_path=[str(folder) for folder in task.folders],
            include_defaults=False,
        )
        with _telling(task):
            self._loaded = manager.load([task.name])
            for loaded in self._loaded["tasks"].values():
                _set_shots(loaded, how)
                _keep_requests(loaded)
                if not _is_shipped(loaded):
                    _limit_scoring(loaded)
        self._flags: list[str] = []
        # by task and item, the digests of what is asked
        self._requests: dict[tuple[str, int], list[str]] = {}

    def take(self, key: str, model: HeldModel) -> HarnessTaken:
        """Its values by the weights that are held.

        `key` is the grid's; those of further metrics go on from it. Prompts are built
        with the first call and kept. UserError for what the harness cannot do with it.
        """
        self._served.held = model
        self._served.reused = 0
        with _telling(self._task):
            results: Any = evaluate(
                lm=self._served,
                task_dict=self._loaded,
                limit=self._how["limit"],
                bootstrap_iters=0,
                apply_chat_template=self._how["chat"] != PLAINLY,
                fewshot_as_multiturn=self._how.get("fewshot_as_multiturn", False),
            )
        assert results is not None, "this process is the only rank"
        if not self._flags:
            self._flags = self._list_flags()
        with _telling(self._task):
            tasks = [self._read_task(name, results) for name in self._loaded["tasks"]]
            values = collect_values(key, tasks, self._read_group(results))
        values.flags.extend(self._flags)
        items = [item for task in tasks for item in task.items]
        return HarnessTaken(
            values=values,
            tasks=[item.task for item in items],
            ids=[item.id for item in items],
            outputs=list(self._list_outputs(results["samples"])),
            digest=_digest_prompts(results["samples"]),
            reused=self._served.reused,
        )

    def _list_flags(self) -> list[str]:
        """Sentences on what its prompts are, which is the same at every checkpoint:

        how many were cut to the model's positions, how many items are among their own
        solved examples, and what the chat template could not write.
        """
        flags = list(self._served.writer.flags)
        for name, task in self._loaded["tasks"].items():
            requests = task.instances
            count = sum(map(functools.partial(_shows_own_answer, task), requests))
            if count:
                flags.append(OWN_SHOT.format(count=count, all=len(requests), task=name))
        cut = sum(self._served.cut.values())
        if cut:
            count = sum(len(task.instances) for task in self._loaded["tasks"].values())
            flags.append(CUT.format(count=cut, all=count, task=self._task.name))
        return flags

    def _list_outputs(self, samples: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the model said to each item, as it is kept beside the journal.

        Prompts are left out: they are the same at every checkpoint, and their hashes tell
        which they were. So do the digests of requests, which are made once.
        """
        for task, of_task in samples.items():
            for sample in of_task:
                name = task, sample["doc_id"]
                if name not in self._requests:
                    digest = functools.partial(_digest_of_item, *name)
                    self._requests[name] = list(map(digest, sample["arguments"]))
                yield {
                    "task": task,
                    "doc_id": sample["doc_id"],
                    "filter": sample["filter"],
                    "doc_hash": sample["doc_hash"],
                    "prompt_hash": sample["prompt_hash"],
                    "target": sample["target"],
                    REQUESTS: self._requests[name],
                    "resps": sample["resps"],
                    "filtered_resps": sample["filtered_resps"],
                } | {metric: sample[metric] for metric in sample["metrics"]}

    def _read_task(self, name: str, results: Any) -> TaskFound:
        """What was found of one task, by metrics and filters.

        The harness logs an item once for each filter; here an item has the values of
        all. How the values of items become the task's is told by the harness' name of
        it, which decides what share an item has.
        """
        task = self._loaded["tasks"][name]
        items: dict[int, dict[Metric, Any]] = {}
        facts: dict[int, tuple[str, str]] = {}
        aggregations: dict[Metric, str] = {}
        makers = cast("dict[str, Any]", task.aggregation())
        for sample in results["samples"][name]:
            number = int(sample["doc_id"])
            facts.setdefault(number, (sample["prompt_hash"], _read_answer(sample)))
            for metric in sample["metrics"]:
                name_and_filter = metric, sample["filter"]
                items.setdefault(number, {})[name_and_filter] = sample[metric]
                aggregation = _name_aggregation(makers.get(metric))
                aggregations.setdefault(name_and_filter, aggregation)
        return TaskFound(
            name=name,
            items=[
                ItemFound(name, number, *facts[number], values)
                for number, values in sorted(items.items())
            ],
            aggregations=aggregations,
            values=_read_numbers(results["results"][name]),
        )

    def _read_group(self, results: Any) -> GroupFound | None:
        """The harness' own numbers of the group; None of a task or a tag."""
        groups = cast("dict[str, Any]", self._loaded.get("groups") or {})
        group = groups.get(self._task.name)
        if group is None:
            return None
        values = _read_numbers(results["results"].get(group.name, {}))
        weighing = {
            aggregate.metric
            for aggregate in group.aggregate_metric_list or ()
            if aggregate.weight_by_size
        }
        by_size = frozenset(metric for metric in values if metric[0] in weighing)
        return GroupFound(values, by_size)


class Harness:
    """The tasks of a job, each loaded when it is first taken, for each way of asking."""

    def __init__(self) -> None:
        """What its data are read into goes when the process ends."""
        prepare_library()
        self._cache = tempfile.mkdtemp(prefix="zsg-lm-eval-")
        atexit.register(shutil.rmtree, self._cache, ignore_errors=True)
        self._loaded: dict[tuple[Any, ...], LoadedTask] = {}

    def open_task(
        self,
        whose: str,
        task: HarnessTask,
        how: Mapping[str, Any],
        data: Path | None,
        make_writer: Callable[[], PromptWriter],
    ) -> LoadedTask:
        """A task as the model `whose` is asked. ClusterError where another version of
        the harness is installed than was planned with."""
        installed = importlib.metadata.version(DISTRIBUTION)
        if how["harness"] != installed:
            raise ClusterError(
                f"lm-evaluation-harness is {installed} here, and {how['harness']} where this"
                " was submitted; install the same version"
            )
        # two runs may have tasks of one name, of other folders
        key = whose, task, data
        if key not in self._loaded:
            _SOURCES.root, _SOURCES.folders = data, task.folders
            _SOURCES.cache = self._cache
            _CODE.update({code.path: code for code in task.code})
            self._loaded[key] = LoadedTask(task, how, make_writer())
        return self._loaded[key]


def _set_shots(task: Any, how: Mapping[str, Any]) -> None:
    """Solved examples as lm-evaluation-harness sets them.

    A task that says 0 keeps it, since its prompt is not made for any; one that says
    nothing has as many as the grid says, or none. Which are drawn depends on the seed
    and on the items before, as in the harness.
    """
    default = task.get_config("num_fewshot")
    if default is None:
        task.set_config(key="num_fewshot", value=how["num_fewshot"] or 0)
    elif default != 0 and how["num_fewshot"] is not None:
        task.set_config(key="num_fewshot", value=how["num_fewshot"])
    task.set_fewshot_seed(seed=how["fewshot_seed"])


def _keep_requests(task: Any) -> None:
    """Has a task build its requests once, and its documents be made once."""
    build = task.build_all_requests
    docs = task.eval_docs

    def build_once(**options: Any) -> None:
        if getattr(task, "_instances", None) is None:
            build(**options)
        for request in task._instances:
            request.resps, request.filtered_resps = [], {}

    task.build_all_requests = build_once
    name = "test_docs" if task.has_test_docs() else "validation_docs"
    setattr(task, name, lambda: docs)


def _is_shipped(task: Any) -> bool:
    """Whether a task's file came with the harness: it is trusted as any package is, and
    some have alarms of their own."""
    source = (task.config.metadata or {}).get("config_source")
    shipped = locate_shipped()
    if source is None or shipped is None:
        return False
    return Path(source).resolve().is_relative_to(shipped.resolve())


def _limit_scoring(task: Any) -> None:
    """Gives what scores a user's task a time allowance: each of its filters, whose
    regular expressions read what a model wrote, and its metrics, which may have some,
    too. Not to metrics that are functions of a plugin: such may load a model of their
    own, or compute for a second with each item, and the user has allowed them."""
    for ensemble in task._filters:
        ensemble.apply = _limit_filter(ensemble.apply, ensemble.name)
    if _scores_by_functions(task):
        return
    allowance = TimeAllowance("scoring its items, by metric_list,")
    process = task.process_results

    def process_in_time(*arguments: Any, **options: Any) -> Any:
        with allowance.limiting():
            return process(*arguments, **options)

    task.process_results = process_in_time


def _scores_by_functions(task: Any) -> bool:
    """Whether a user's task names functions for its scores."""
    listed = [each for each in task.config.metric_list or () if isinstance(each, dict)]
    values = [task.config.process_results]
    values += [value for each in listed for value in each.values()]
    return any(map(callable, values))


def _limit_filter(apply: Callable[[Any], None], name: str) -> Callable[[Any], None]:
    """What applies a filter to all requests of a task, stopped after some seconds at
    each checkpoint."""
    shown = make_showable(str(name)[:SHOWN_TEXT], keep="")

    def apply_in_time(requests: Any) -> None:
        with TimeAllowance(f"its filter {shown!r}").limiting(len(requests)):
            apply(requests)

    return apply_in_time


@contextlib.contextmanager
def _telling(task: HarnessTask) -> Iterator[None]:
    """Names the task in what ends the harness' work.

    Where memory or the device fails it is no fault of the task's, and is told as of any
    other metric.
    """
    try:
        yield
    except SecurityError as error:
        raise UserError(
            f"{task.path}: a template of it does what Jinja's sandbox forbids: {error}"
        ) from None
    except TooLong as error:
        raise UserError(NO_END.format(path=task.path, what=error)) from None
    except (UserError, ClusterError, *DEVICE_ERRORS):
        raise
    except Exception as error:
        logger.debug("lm-evaluation-harness", exc_info=True)
        text = next(iter(str(error).splitlines()), "")[:300]
        kind = ClusterError if _may_pass(error) else UserError
        raise kind(
            f"{task.path}: lm-evaluation-harness cannot do {task.name}:"
            f" {type(error).__name__}: {text}"
        ) from error


def _may_pass(error: BaseException) -> bool:
    """Whether an error, or what it comes of, may be gone when the job is tried again: of a
    disk, of a server, of memory or of the device. What is not there, or may not be read,
    is for the user to mend."""
    cause: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if cause is None or isinstance(cause, ABSENT_FILES):
            return False
        is_of_device = isinstance(cause, RuntimeError) and "CUDA" in str(cause)
        if is_of_device or isinstance(cause, OSError | MemoryError):
            return True
        cause = cause.__cause__
    return False


def _shows_own_answer(task: Any, request: Any) -> bool:
    """Whether a request's context has the question of its own document twice.

    Where the run's template writes prompts, a context names its dialogue as JSON, so the
    question is looked for as JSON writes it, too.
    """
    question = task.doc_to_text(request.doc)
    context = request.args[0]
    if not isinstance(question, str) or not isinstance(context, str):
        return False
    text = question.strip()
    has_shots = bool(task.config.num_fewshot)
    if not has_shots or not text:
        return False
    in_json = json.dumps(text, ensure_ascii=False)[1:-1]
    return max(context.count(text), context.count(in_json)) > 1


def _read_answer(sample: Mapping[str, Any]) -> str:
    """What the model said, or the number of the option that it found likeliest.

    It is what tells that a model always says the same, which is likely to be broken.
    """
    [*replies] = [reply for replies in sample["resps"] for reply in replies]
    if replies and isinstance(replies[0], str):
        return replies[0]
    if len(replies) > 1 and isinstance(replies[0], tuple):
        likely = [reply[0] for reply in replies]
        return str(likely.index(max(likely)))
    return str(replies)


def _name_aggregation(aggregation: Any) -> str:
    """The harness' name of how a metric's value is made of its items; the mean where it
    has none for it, as the harness does."""
    if aggregation is None:
        return "mean"
    names = {maker: name for name, maker in AGGREGATION_REGISTRY.items()}
    return names.get(aggregation, "")


def _read_numbers(results: Mapping[str, Any]) -> dict[Metric, float]:
    """By metric and filter, the harness' numbers of a task or a group.

    Its names are `METRIC,FILTER`; standard errors, sizes and what is no number are left
    out.
    """
    numbers: dict[Metric, float] = {}
    for name, value in results.items():
        metric, comma, used = name.partition(",")
        if comma and not is_standard_error(metric):
            with contextlib.suppress(TypeError, ValueError):
                numbers[metric, used] = float(value)
    return numbers


def _digest_prompts(samples: Mapping[str, Any]) -> str:
    """One digest of all items and prompts: of data, shots and template."""
    rows = [
        f"{task} {sample['doc_id']} {sample['doc_hash']} {sample['prompt_hash']}"
        for task, of_task in samples.items()
        for sample in of_task
    ]
    return lm_eval.utils.hash_string("\n".join(rows))
