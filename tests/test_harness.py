"""Do tasks of lm-evaluation-harness give, by zsg's own scoring and answering, what the
harness finds by itself, item by item?"""

import dataclasses
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lib import harness_goldens
from tests.lib.harness_goldens import read_goldens
from zsg_core.data.harness_tasks import HarnessTask, TaskCode, TaskShelf
from zsg_core.errors import ClusterError, PluginError, UserError
from zsg_core.plugins import loading
from zsg_core.plugins.declarations import read_plugins
from zsg_core.settings.lm_eval import LmEvalSettings

pytestmark = pytest.mark.engine

pytest.importorskip("lm_eval", reason="no lm-evaluation-harness: extra harness")
LOOP, END = "{% for i in range(9999) %}", "{% endfor %}"
TOLERANCE = 2e-3  # of a log-likelihood, as the goldens say


class Held:
    """The small model, held as an evaluate job holds one, and what loads tasks."""

    def __init__(self, folder: Path) -> None:
        from jobs.evaluating.harness import Harness
        from jobs.model.packed_attention import NAME

        self.shelf = TaskShelf([harness_goldens.write_tasks(folder)])
        self.tokenizer = harness_goldens.make_tokenizer()
        self.model = harness_goldens.make_model(NAME)
        self._harness = Harness()

    def load(self, name: str, **settings: Any) -> Any:
        """A task, asked in some way."""
        from jobs.evaluating.harness_prompts import PromptWriter
        from jobs.evaluating.items import Asker
        from jobs.model.vocabulary import Vocabulary
        from jobs.model.whole_texts import WholeTexts
        from zsg_core.data.prompts import Template

        version = importlib.metadata.version("lm_eval")
        how = LmEvalSettings(**settings).how | {"harness": version}
        texts = WholeTexts(self.tokenizer)

        def tokenize(text: str) -> list[int]:
            return texts.encode_alone([text])[0]

        asker = Asker(Template("zsg"), Vocabulary(tokenize, 0, 1, texts.decode))
        return self._harness.open_task(
            str(how),
            self.shelf.find(name),
            how,
            None,
            lambda: PromptWriter(how["chat"], asker, texts),
        )

    def take(self, name: str, positions: int = 1024, **settings: Any) -> Any:
        """What is taken of a task by the weights that the model has."""
        return self.load(name, **settings).take(f"lm_eval/{name}", self.hold(positions))

    def hold(self, positions: int = 1024) -> Any:
        """The model as its weights are."""
        from jobs.evaluating.harness import HeldModel
        from jobs.model.answer_loss import AnswerLoss, choose_batching
        from jobs.model.generate import Generator
        from jobs.model.whole_texts import WholeTexts

        texts = WholeTexts(self.tokenizer)

        def make_generator(how: Mapping[str, Any]) -> Any:
            return Generator(self.model, how, 0, 1, "cpu", texts.decode)

        loss = AnswerLoss(self.model, choose_batching(self.model))
        return HeldModel(loss, "cpu", 4096, positions, make_generator)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """One model for all tests of this module, whose weights stay."""
    return Held(tmp_path_factory.mktemp("tasks") / "tasks")


def list_likelihoods(item: Mapping[str, Any]) -> list[float]:
    """The log-likelihoods of an item's requests."""
    return [reply[0][0] for reply in item["resps"]]


def test_options_and_groups_are_the_harness_own(held: Held) -> None:
    """Each option's log-likelihood, whether it is greedy, the item's accuracy, the
    hashes of item and prompt; the group by tasks and by sizes."""
    expected = read_goldens()["expected"]["tiny_mmlu"]
    taken = held.take("tiny_mmlu")

    assert len(taken.outputs) == 14
    for item in taken.outputs:
        golden = expected["items"][item["task"]][item["doc_id"]]
        assert list_likelihoods(item) == pytest.approx(golden["ll"], abs=TOLERANCE)
        assert [reply[0][1] for reply in item["resps"]] == golden["greedy"]
        assert (item["acc"], item["target"]) == (golden["acc"], golden["target"])
        assert item["doc_hash"].startswith(golden["doc_hash"])
        assert item["prompt_hash"].startswith(golden["prompt_hash"])
    values = taken.values.values
    results = expected["results"]["tiny_mmlu"]
    assert values["lm_eval/tiny_mmlu/weighted"] == pytest.approx(
        results["acc,none"], abs=1e-4
    )
    macro = read_goldens()["expected"]["tiny_mmlu_macro"]["acc,none"]
    assert values["lm_eval/tiny_mmlu"] == pytest.approx(macro, abs=1e-4)


def test_answers_are_the_harness_own_to_the_letter(held: Held) -> None:
    """Prompts with drawn shots, and what the model says to them, by their hashes."""
    expected = read_goldens()["expected"]["tiny_gsm_model"]
    taken = held.take("tiny_gsm")
    strict = [one for one in taken.outputs if one["filter"] == "strict-match"]

    said = [one["resps"][0][0] for one in strict]
    hashes = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in said]
    assert hashes == expected["said_utf8_sha256"]
    assert [one["prompt_hash"][:16] for one in strict] == expected["prompts"]
    assert set(taken.values.values) == {
        "lm_eval/tiny_gsm",
        "lm_eval/tiny_gsm/exact_match/flexible-extract",
    }


@pytest.mark.parametrize(
    ("positions", "way"),
    [
        (1024, "add_bos_token=False (each token predicted once, after one BOS)"),
        (64, "add_bos_token=False, max_length=64 (windows)"),
    ],
)
def test_perplexity_predicts_each_token_once(
    held: Held, positions: int, way: str
) -> None:
    """After one beginning of sequence, not two; beyond the model's positions in
    windows. The shares of items have the perplexity for their mean."""
    expected = read_goldens()["expected"]["tiny_text"][way]
    loaded = held.load("tiny_text", fewshot_seed=positions)
    taken = loaded.take("lm_eval/tiny_text", held.hold(positions))

    sums = [one["resps"][0][0] for one in taken.outputs]
    assert sums == pytest.approx(expected["ll"], abs=TOLERANCE)
    bits = taken.values.values["lm_eval/tiny_text/bits_per_byte"]
    assert bits == pytest.approx(expected["bits_per_byte"], abs=1e-4)


def test_options_of_unequal_length_by_every_rule(held: Held) -> None:
    """The sum, by letters, by bytes, and against the option without its question."""
    expected = read_goldens()["expected"]["tiny_full"]
    taken = held.take("tiny_full")

    for item, golden in zip(taken.outputs, expected["items"], strict=True):
        both = golden["ll"] + golden["ll_unconditional"]
        assert list_likelihoods(item) == pytest.approx(both, abs=TOLERANCE)
        for rule in ("acc", "acc_norm", "acc_bytes", "acc_mutual_info"):
            assert item[rule] == golden[rule]
    values = taken.values.values
    assert values["lm_eval/tiny_full"] == expected["results"]["acc,none"]
    by_information = values["lm_eval/tiny_full/acc_mutual_info"]
    assert by_information == expected["results"]["acc_mutual_info,none"]


@pytest.mark.parametrize(("several", "way"), [(True, "multiturn"), (False, "one_turn")])
def test_a_chat_template_of_the_model_is_written_as_by_the_harness(
    held: Held, several: bool, way: str
) -> None:
    """Shots as turns, or all in one: prompts letter for letter, and the options."""
    expected = read_goldens()["expected"]["tiny_mmlu_tools_chat"]
    held.tokenizer.chat_template = expected["template"]
    loaded = held.load("tiny_mmlu_tools", chat="model", fewshot_as_multiturn=several)
    taken = loaded.take("lm_eval/tiny_mmlu_tools", held.hold())

    [task] = loaded._loaded["tasks"].values()
    assert list(task.instances[0].args) == expected[way]["request"]
    likelihoods = list_likelihoods(taken.outputs[0])
    assert likelihoods == pytest.approx(expected[way]["ll"], abs=TOLERANCE)


def test_a_prompt_in_the_run_template_is_what_the_run_trains_on(held: Held) -> None:
    """Piece by piece, as its test loss reads it; the option is what would be learnt,
    without the token that closes it."""
    from zsg_core.data import prompts
    from zsg_core.data.examples import Example
    from zsg_core.data.prompts import Template

    loaded = held.load("tiny_mmlu_tools", chat="run")
    writer = loaded._served.writer
    messages = [
        {"role": "system", "content": "About tools."},
        {"role": "user", "content": "What drives a nail?"},
    ]
    [(context, option)] = writer.encode_pairs(
        [(writer.write_dialogue(messages), "A hammer")]
    )

    example = Example(
        id="",
        task="",
        turns=(("What drives a nail?", "A hammer"),),
        system="About tools.",
    )
    words = writer.asker.vocabulary
    learnt = prompts.encode_example(
        example,
        template=Template("zsg"),
        tokenize=words.tokenize,
        bos=words.bos,
        eos=words.eos,
        max_length=1000,
    )
    [(start, stop)] = learnt.spans
    assert [*context, *option, words.eos] == learnt.ids
    assert (len(context), len(option)) == (start, stop - start - 1)


def test_prompts_are_kept_and_answers_are_not(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second pass builds no prompt and finds the same; with other weights it finds
    what a fresh load finds with them."""
    import torch

    loaded = held.load("tiny_mmlu", fewshot_seed=5)
    first = loaded.take("lm_eval/tiny_mmlu", held.hold())

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a prompt is built again")

    for task in loaded._loaded["tasks"].values():
        monkeypatch.setattr(task, "fewshot_context", refuse)
    again = loaded.take("lm_eval/tiny_mmlu", held.hold())
    assert again.outputs == first.outputs and again.digest == first.digest

    weight = next(held.model.parameters())
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(-1.5)
        swapped = loaded.take("lm_eval/tiny_mmlu", held.hold())
        fresh = held.take("tiny_mmlu", fewshot_seed=6)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    swapped_likelihoods = list(map(list_likelihoods, swapped.outputs))
    assert swapped_likelihoods == list(map(list_likelihoods, fresh.outputs))
    assert swapped_likelihoods != list(map(list_likelihoods, first.outputs))


def check_alike(outputs: Any, expected: Any) -> None:
    """The same outputs, with what a model says of them as far as sums in another batch
    are the same."""
    if isinstance(expected, float):
        assert outputs == pytest.approx(expected, abs=1e-4)
    elif isinstance(expected, dict):
        assert outputs.keys() == expected.keys()
        for key, value in expected.items():
            check_alike(outputs[key], value)
    elif isinstance(expected, list | tuple):
        assert len(outputs) == len(expected)
        for output, value in zip(outputs, expected, strict=True):
            check_alike(output, value)
    else:
        assert outputs == expected


def test_keys_that_share_a_task_ask_the_model_once(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task, the group that it is of and another group of the same: each has what it
    finds alone, of requests that the weights answer once. The same holds for answers
    that are generated, and for what a job before has kept."""
    from jobs.evaluating.harness_replies import HeldReplies
    from jobs.evaluating.scored_requests import ScoredRequests

    asked: list[int] = []
    measure = ScoredRequests.measure

    def count(self: Any, *arguments: Any) -> Any:
        found = measure(self, *arguments)
        asked.append(len(found))
        return found

    names = ("tiny_mmlu_birds", "tiny_mmlu", "tiny_mmlu_macro", "tiny_gsm")
    loaded = {name: held.load(name, fewshot_seed=7) for name in names}
    alone = {name: one.take(name, held.hold()) for name, one in loaded.items()}
    monkeypatch.setattr(ScoredRequests, "measure", count)
    replies = HeldReplies()
    for name in names:
        for _ in range(2):
            hold = dataclasses.replace(held.hold(), replies=replies)
            shared = loaded[name].take(name, hold)
            check_alike(shared.outputs, alone[name].outputs)
            assert shared.values.metrics == pytest.approx(alone[name].values.metrics)
    items = {name: len(alone[name].ids) for name in names}
    assert asked == [4 * items["tiny_mmlu_birds"], 4 * (14 - items["tiny_mmlu_birds"])]
    assert shared.reused == items["tiny_gsm"]

    kept = HeldReplies()
    for line in map(
        json.dumps, (alone["tiny_gsm"].outputs, alone["tiny_mmlu"].outputs)
    ):
        kept.keep_items(json.loads(line))
        kept.keep_items(json.loads(line))
    asked.clear()
    for name in names:
        hold = dataclasses.replace(held.hold(), replies=kept)
        check_alike(loaded[name].take(name, hold).outputs, alone[name].outputs)
    assert not asked


def test_tasks_of_one_name_are_each_of_its_folder(held: Held, tmp_path: Path) -> None:
    """Runs of one evaluate job may have other folders."""
    task = dict(read_goldens()["tasks"]["tiny_full"], task="own")
    taken = []
    for name, text in (("a", "{{ctx}}"), ("b", "Well, {{ctx}}")):
        folder = harness_goldens.write_tasks(tmp_path / name)
        harness_goldens.write_task(folder, "own", task | {"doc_to_text": text})
        held.shelf = TaskShelf([folder])
        taken.append(held.take("own", fewshot_seed=24, limit=2))

    assert taken[0].digest != taken[1].digest


def test_drawn_answers_are_an_items_own(held: Held, tmp_path: Path) -> None:
    """Whatever else is asked, and in which order: two tasks that put the same question
    draw each for itself, alone as in their group, and also from what a job before kept."""
    from jobs.evaluating.harness_replies import HeldReplies

    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    task = dict(read_goldens()["tasks"]["tiny_gsm"], repeats=2)
    task["generation_kwargs"] = {
        "until": ["\n"],
        "max_gen_toks": 6,
        "do_sample": True,
        "temperature": 1.0,
    }
    for name in ("first", "second"):
        harness_goldens.write_task(folder, name, task | {"task": name})
    (folder / "both.yaml").write_text("group: both\ntask: [first, second]\n")
    held.shelf = TaskShelf([folder])
    loaded = {name: held.load(name, limit=2) for name in ("first", "second", "both")}
    alone = {name: one.take(name, held.hold()).outputs for name, one in loaded.items()}
    assert alone["both"] == alone["first"] + alone["second"]
    said = [[item["resps"] for item in alone[name]] for name in ("first", "second")]
    assert said[0] != said[1]

    replies = HeldReplies()
    replies.keep_items(json.loads(json.dumps(alone["first"])))
    for name in ("second", "both"):
        hold = dataclasses.replace(held.hold(), replies=replies)
        taken = loaded[name].take(name, hold)
        assert taken.outputs == alone[name]
    assert taken.reused == len(taken.ids) * 2


def test_a_template_that_reaches_for_python_is_stopped(
    held: Held, tmp_path: Path
) -> None:
    """The harness' templates run in Jinja's sandbox: a task's text is no program."""
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    task = dict(read_goldens()["tasks"]["tiny_full"], task="sly")
    task["doc_to_text"] = "{{ ctx.__class__.__mro__ }}"
    harness_goldens.write_task(folder, "sly", task)
    held.shelf = TaskShelf([folder])

    with pytest.raises(UserError, match="sandbox forbids"):
        held.load("sly", fewshot_seed=9)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{LOOP}{LOOP}{END}{END}", r"its template .* takes more than"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{{ 'a' * 10**9 }}", "repeats to more than"),
        ("{{ '%1000000d' % 1 }}", "a field of more than"),
        ("{{ 9 ** 99999 }}", "a power of more than"),
        ("{{ ctx | regex_replace('(.|.|.)*(?!)', '') }}", "takes more than"),
    ],
)
def test_a_template_without_end_is_stopped(
    held: Held,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    problem: str,
) -> None:
    """With the task's file; the job goes on with what else it is to take."""
    monkeypatch.setattr("jobs.evaluating.harness_limits.AT_LEAST_S", 0.1)
    monkeypatch.setattr("jobs.evaluating.harness_limits.TICK_S", 0.05)
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    task = dict(read_goldens()["tasks"]["tiny_full"], task="endless")
    harness_goldens.write_task(folder, "endless", task | {"doc_to_text": text})
    held.shelf = TaskShelf([folder])

    with pytest.raises(UserError, match=rf"endless\.yaml: .*{problem}"):
        held.load("endless", fewshot_seed=20)


def test_a_filter_without_end_is_stopped(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A regular expression that tries every way to part what a model wrote."""
    monkeypatch.setattr("jobs.evaluating.harness_limits.AT_LEAST_S", 0.1)
    monkeypatch.setattr("jobs.evaluating.harness_limits.EACH_S", 0.0)
    monkeypatch.setattr("jobs.evaluating.harness_limits.TICK_S", 0.05)
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    step = {"function": "regex", "regex_pattern": "(?s)(?:.|.|.|.)*~~~~~"}
    task = dict(read_goldens()["tasks"]["tiny_gsm"], task="endless")
    task["filter_list"] = [{"name": "slow", "filter": [step]}]
    (folder / "endless.yaml").write_text(json.dumps(task), encoding="utf-8")
    held.shelf = TaskShelf([folder])
    loaded = held.load("endless", fewshot_seed=21)

    with pytest.raises(UserError, match=r"its filter 'slow' takes more than"):
        loaded.take("lm_eval/endless", held.hold())


def test_no_code_of_a_users_folder_is_imported(held: Held, tmp_path: Path) -> None:
    """Even where a task has come to name some since it was judged."""
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    held.shelf = TaskShelf([folder])
    held.shelf.find("tiny_full")
    (folder / "code.py").write_text("raise SystemExit('this was run')\n")
    with (folder / "tiny_full.yaml").open("a") as file:
        file.write("\nprocess_docs: !function code.run\n")

    with pytest.raises(UserError, match="names Python code"):
        held.load("tiny_full", fewshot_seed=10)


CODE = '''"""How a task of ours is asked."""


def shorten(docs):
    return docs.select([0, 1])


def ask(doc):
    return f"{doc['question']}?"


def count(items):
    gold, said = items
    return 7.0


def fail(doc):
    return 1 / 0


def score_slowly(doc, said):
    import time

    end = time.thread_time() + 0.3
    while time.thread_time() < end:
        pass
    return {"slow": 1.0}


largest = max
'''


def allow(held: Held, folder: Path, code: Path, text: str = CODE) -> None:
    """Has tasks of a folder name functions of a plugin, of which this process has a copy,
    as an evaluate job has; what lies in the folder itself fails."""
    (folder / "asking.py").write_text("raise SystemExit('this was run')\n")
    [plugin] = read_plugins({"asking.py": text.encode()})
    copy = code / loading.name_copy(plugin)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(plugin.content)
    loading.let_run(code, loading.read_copies(code))
    allowed = TaskCode(
        path=folder.resolve() / "asking.py",
        name="asking.py",
        digest=plugin.digest,
        defined=plugin.defined,
    )
    held.shelf = TaskShelf([folder], code=[allowed])


def test_a_tasks_functions_are_those_of_the_copy(held: Held, tmp_path: Path) -> None:
    """Whatever the file beside the task holds by now: of documents, of prompts, and of a
    metric, which the harness hands a pair."""
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    task = dict(read_goldens()["tasks"]["tiny_gsm"], task="own", num_fewshot=0)
    for key in ("doc_to_text", "metric_list", "filter_list"):
        task.pop(key, None)
    path = harness_goldens.write_task(folder, "own", task)
    with path.open("a") as file:
        file.write("process_docs: !function asking.shorten\n")
        file.write("doc_to_text: !function asking.ask\n")
        file.write("metric_list: [{metric: !function asking.count, aggregation: mean,")
        file.write(" higher_is_better: true}]\n")
    allow(held, folder, tmp_path / "code")
    taken = held.take("own", fewshot_seed=21)

    assert taken.ids == ["own/0", "own/1"]
    assert taken.values.values == {"lm_eval/own": 7.0}


def test_a_function_that_fails_is_told_with_its_line(
    held: Held, tmp_path: Path
) -> None:
    """Of the plugin, as of one that declares a metric."""
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    task = dict(read_goldens()["tasks"]["tiny_full"], task="own")
    task.pop("doc_to_text")
    path = harness_goldens.write_task(folder, "own", task)
    with path.open("a") as file:
        file.write("doc_to_text: !function asking.fail\n")
    allow(held, folder, tmp_path / "code", CODE.replace("1 / 0", "2 / 0"))

    with pytest.raises(PluginError, match=r"^asking\.py:18: ZeroDivisionError"):
        held.take("own", fewshot_seed=22)


def test_functions_of_a_plugin_may_take_long(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that loads a model of its own: the user has allowed it. One of Python's
    own, which does not say what it takes, may be named, too."""
    monkeypatch.setattr("jobs.evaluating.harness_limits.AT_LEAST_S", 0.1)
    monkeypatch.setattr("jobs.evaluating.harness_limits.TICK_S", 0.05)
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    task = dict(read_goldens()["tasks"]["tiny_full"], task="own")
    task.pop("metric_list", None)
    path = harness_goldens.write_task(folder, "own", task)
    with path.open("a") as file:
        file.write("process_results: !function asking.score_slowly\n")
        file.write("metric_list: [{metric: slow, aggregation:")
        file.write(" !function asking.largest, higher_is_better: true}]\n")
    allow(held, folder, tmp_path / "code", f"{CODE}# slowly\n")
    taken = held.take("own", fewshot_seed=23, limit=1)

    assert taken.values.values == {"lm_eval/own": 1.0}


def test_a_device_without_memory_is_no_fault_of_a_task(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the job as it does for any other metric; a fault in what the harness
    found is told with the task."""
    import torch

    from jobs.evaluating import harness

    held.shelf = TaskShelf([harness_goldens.write_tasks(tmp_path / "tasks")])
    loaded = held.load("tiny_full", fewshot_seed=12)
    faults = [torch.OutOfMemoryError("no memory"), ValueError("not a number")]

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise faults.pop(0)

    monkeypatch.setattr(harness, "collect_values", fail)
    with pytest.raises(torch.OutOfMemoryError):
        loaded.take("lm_eval/tiny_full", held.hold())
    with pytest.raises(
        UserError, match="cannot do tiny_full: ValueError: not a number"
    ):
        loaded.take("lm_eval/tiny_full", held.hold())


@pytest.mark.parametrize(
    ("fault", "cause", "kind"),
    [
        (OSError(116, "Stale file handle"), None, ClusterError),
        (ConnectionError("Couldn't reach the hub"), None, ClusterError),
        (MemoryError(), None, ClusterError),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
            None,
            ClusterError,
        ),
        (ValueError("data"), OSError(28, "No space left on device"), ClusterError),
        (ValueError("data"), FileNotFoundError("rows.jsonl"), UserError),
        (FileNotFoundError("a data set"), None, UserError),
        (RuntimeError("a task's own"), None, UserError),
    ],
)
def test_what_may_pass_is_tried_again(
    fault: Exception, cause: Exception | None, kind: type[Exception]
) -> None:
    """A job that ends by a mistake of the user's is not; a disk, a server or a device may
    be back."""
    from jobs.evaluating import harness

    task = HarnessTask("own", Path("own.yaml"), (), (), "1")
    fault.__cause__ = cause

    with pytest.raises(kind, match=r"own\.yaml: lm-evaluation-harness cannot do own"):
        with harness._telling(task):
            raise fault


def test_a_machine_without_the_harness_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what helps, and no other metric is lost by it."""
    from jobs.evaluating.harness_opening import open_harness

    monkeypatch.delitem(sys.modules, "jobs.evaluating.harness_step", raising=False)
    monkeypatch.delitem(sys.modules, "jobs.evaluating.harness", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.metrics", None)
    with pytest.raises(ClusterError, match=r"lm_eval.* is not there: pip install"):
        open_harness("job")


def test_a_tasks_data_are_those_beside_its_own_file(held: Held, tmp_path: Path) -> None:
    """Where tasks of several folders call theirs by the same name."""
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    rows = (folder / "full.jsonl").read_text(encoding="utf-8").splitlines()
    task = read_goldens()["tasks"]["tiny_full"]
    for name, kept in (("one", rows[:1]), ("three", rows[:3])):
        (folder / name).mkdir()
        text = "\n".join(kept) + "\n"
        (folder / name / "full.jsonl").write_text(text, encoding="utf-8")
        harness_goldens.write_task(folder / name, name, task | {"task": name})
    harness_goldens.write_task(
        folder, "both", {"group": "both", "task": ["one", "three"]}
    )
    held.shelf = TaskShelf([folder])
    taken = held.take("both", fewshot_seed=11)

    assert taken.tasks == ["one", "three", "three", "three"]


def test_an_item_among_its_own_shots_is_told(held: Held, tmp_path: Path) -> None:
    """As where shots are drawn from the very split that is asked, by another name."""
    folder = harness_goldens.write_tasks(tmp_path / "tasks")
    task = dict(read_goldens()["tasks"]["tiny_gsm"], task="leaky")
    files = {"test": "gsm_test.jsonl", "train": "gsm_test.jsonl"}
    task["dataset_kwargs"] = {"data_files": files}
    harness_goldens.write_task(folder, "leaky", task)
    held.shelf = TaskShelf([folder])
    flags = held.take("leaky", fewshot_seed=7).values.flags

    assert any("among their own solved examples" in flag for flag in flags)
    by_run = held.take("leaky", fewshot_seed=7, chat="run").values.flags
    assert any("among their own solved examples" in flag for flag in by_run)
