"""Does zsg show what is learnt of each example, and why not the rest?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.contract import job_file
from jobs.contract.folder import Workspace
from jobs.contract.job_file import PrepareJob, read_train_job
from jobs.preparing.prepare import run as run_prepare
from jobs.training.learnt_texts import (
    CONTROL_WORD,
    CUT,
    EMPTY,
    NO_TARGET,
    OTHER_TOKENS,
    LearntStage,
    LearntTexts,
    Piece,
    find_control_words,
    find_empty,
    measure_loss,
)
from jobs.training.tokens import tokens_id
from jobs.training.train_sets import train_and_test
from launcher.planning.plan import Prepare, run_item
from launcher.reporting.data.learnt_runs import (
    Asked,
    Learnt,
    find_planned,
    find_submitted,
    read_learnt,
)
from launcher.reporting.html.learnt_page import render_learnt_page
from launcher.submission import job_files
from launcher.submission.workflow import open_grid
from launcher.views import learnt_view
from tests.lib.chat_templates import THINKING, make_tokenizer
from tests.lib.command_line import Zsg
from tests.lib.model_folders import write_llama
from zsg_core.data.examples import Example
from zsg_core.data.prompts import EncodedExample
from zsg_core.errors import UserError

GRID = """
name: learnt
defaults:
  model: {{name: tiny, hidden: 16, layers: 1, heads: 2, vocab: 600}}
  data: {{set: alpaca, path: {folder}/train.json, test_path: {folder}/test.json, template: {template}}}
  train: {{batch: 4, lr: 1e-3, max_length: 40, precision: fp32, loss_on: {loss_on}}}
  arrangement.order: cluster
grid:
  seed: [0]
"""
TEMPLATES = ("zsg", "vicuna", "llama2", "plain")
LONG = "and so on " * 40
ROWS = [
    {"instruction": "say two", "output": "two ⟦2⟧"},
    {"instruction": "say nothing", "output": ""},
    {"instruction": f"what of this: {LONG}", "output": "much"},
    {"instruction": "say </s> to me", "output": "bye"},
    {"instruction": "tell all", "output": LONG},
    {"instruction": "say six", "output": "six"},
]
TESTED = [{"instruction": "say nine", "output": "nine"}]


class Shelf:
    """A workspace with runs that are submitted and not yet trained, one for each
    template and for each kind of target."""

    def __init__(self, folder: Path) -> None:
        self.zsg = Zsg(folder)
        self._made: dict[tuple[str, str, str], Path] = {}
        for name, rows in (("train.json", ROWS), ("test.json", TESTED)):
            self.zsg.write(name, json.dumps(rows))

    def make(
        self, template: str = "zsg", loss_on: str = "answer", truncate: str = "prompt"
    ) -> Path:
        """The folder of a run."""
        key = (template, loss_on, truncate)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, template: str, loss_on: str, truncate: str) -> Path:
        text = GRID.format(folder=self.zsg.folder, template=template, loss_on=loss_on)
        grid = self.zsg.write(f"{template}-{loss_on}.yaml", text)
        return self.prepare(grid, [f"train.truncate={truncate}"])

    def prepare(self, grid: Path, sets: Sequence[str] = ()) -> Path:
        """The folder of the run of a grid, whose prepare job has ended."""
        opened = open_grid(grid, None, self.zsg.work, sets=sets)
        (run,) = opened.runs
        workspace, profile = opened.site.workspace, opened.site.profile
        prepare = Prepare(f"prepare/{run.id}", [run], set(run.needs))
        job_files.write_prepare(workspace, prepare, profile, "s")
        job_files.write_train(workspace, run, profile, "s", (), is_start=False)
        prepared = job_file.read_job(workspace.root / prepare.item)
        assert isinstance(prepared, PrepareJob)
        run_prepare(prepared)
        return workspace.root / run_item(run)

    def problems(self, run: Path) -> Any:
        """The problems of a run, as `zsg arrange show --problems --json` has them."""
        return self.read(run, Asked(problems=True)).row["problems"]

    def read(self, run: Path, asked: Asked) -> Learnt:
        """What a run learns."""
        workspace = Workspace(self.zsg.work)
        return read_learnt(workspace, find_submitted(workspace, run.name), asked)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """A workspace of this module."""
    return Shelf(tmp_path_factory.mktemp("learnt"))


def opened(run: Path) -> LearntTexts:
    """What a run learns."""
    job = read_train_job(run)
    assert job is not None
    workspace = Workspace(run.parents[1])
    stage = LearntStage(workspace, job.recipe, job.made, job.base_folder)
    return LearntTexts(stage)


def targets_of(pieces: Any) -> list[str]:
    """The texts of the stretches that are learnt."""
    return [piece.text for piece in pieces if piece.is_target]


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_batch_is_what_the_trainer_packs(shelf: Shelf, template: str) -> None:
    """Counts of tokens and targets are those of the trainer's own set, in its order,
    before it has made its tokens and after; the text is the template's."""
    run = shelf.make(template)
    job = read_train_job(run)
    assert job is not None

    before = opened(run).read_batch(1)
    train, _ = train_and_test(job)
    after = opened(run).read_batch(1)

    assert before == after
    assert [example.id for example in after] == train.ids[:4]
    assert [example.tokens for example in after] == train.lengths[:4]
    assert [example.targets for example in after] == train.learnt[:4]
    first = next(example for example in after if "say two" in text_of(example))
    answer, end = targets_of(first.pieces)
    # of `plain` the first token may begin within the prompt: it is learnt whole
    assert answer.strip().endswith("two ⟦2⟧")
    assert end == "</s>"


SOURCES = """
name: sources
defaults:
  model: {{name: tiny, hidden: 16, layers: 1, heads: 2, vocab: 600}}
  data:
    set: alpaca
    test_path: {folder}/test.json
    sources:
      text: {{path: {folder}/train.json, loss_on: all}}
      ask: {{path: {folder}/train.json, few_shot: {{k: 2}}}}
  train: {{batch: 12, lr: 1e-3, max_length: 40, precision: fp32}}
grid:
  seed: [0]
"""


def test_each_source_has_its_own_targets_and_shots(shelf: Shelf) -> None:
    """Text of one source and instructions of another share a batch; what is learnt and
    which shots did not fit is said of each example."""
    grid = shelf.zsg.write("sources.yaml", SOURCES.format(folder=shelf.zsg.folder))
    run = shelf.prepare(grid)
    job = read_train_job(run)
    assert job is not None

    train, _ = train_and_test(job)
    batch = opened(run).read_batch(1)

    rules = {name.split("/")[0]: set() for name in train.ids}
    for name, rule in zip(train.ids, train.targets, strict=True):
        rules[name.split("/")[0]].add(rule)
    assert rules == {"text": {"all"}, "ask": {"answer"}}
    assert [example.id for example in batch] == train.ids[:12]
    assert [example.targets for example in batch] == train.learnt[:12]
    learnt = {example.id: targets_of(example.pieces) for example in batch}
    assert "".join(learnt["text/alpaca:5"]) == "User: say six\nAssistant: six</s>"
    assert learnt["ask/alpaca:5"] == ["six", "</s>"]
    told = [problem.text for example in batch for problem in example.problems]
    assert any("of the 2 examples of data.few_shot" in text for text in told)


def text_of(example: Any) -> str:
    """The whole text of an example."""
    return "".join(piece.text for piece in example.pieces)


def test_prompts_are_marked_where_they_are_learnt(shelf: Shelf) -> None:
    """train.loss_on decides which stretches are targets; the first token never is."""
    run = shelf.make(loss_on="all")
    learnt = opened(run)
    examples = [*learnt.read_batch(1), *learnt.read_batch(2)]
    six = next(example for example in examples if "say six" in text_of(example))

    assert six.pieces[0] == ("<s>", False, True, 0)
    assert "".join(targets_of(six.pieces)) == "User: say six\nAssistant: six</s>"


def test_problems_are_found_in_the_whole_list(shelf: Shelf) -> None:
    """What is cut, empty, or a control token's word, with the step that learns it; the
    same once the trainer has made its tokens."""
    run = shelf.make("plain")
    job = read_train_job(run)
    assert job is not None
    before = shelf.problems(run)
    train_and_test(job)
    after = shelf.problems(run)
    kinds = {
        problem["kind"]: (row["step"], problem["text"])
        for row in after["train"]
        for problem in row["problems"]
    }

    assert before == after
    assert after["test"] == []
    assert set(kinds) == {CUT, EMPTY, CONTROL_WORD}
    assert kinds[EMPTY][1] == "its answer is empty: only the answer's end is learnt"
    assert kinds[CONTROL_WORD][1].startswith("its text has </s>, which is read as text")
    steps = [row["step"] for row in after["train"]]
    assert steps == [row["place"] // 4 + 1 for row in after["train"]]


def test_a_prompt_that_pushes_its_answer_out_has_no_target(shelf: Shelf) -> None:
    """By train.truncate: head nothing of the answer may be left, and it is said."""
    run = shelf.make("plain", truncate="head")
    rows = shelf.problems(run)["train"]
    (without,) = [row for row in rows if not row["targets"]]

    kinds = [problem["kind"] for problem in without["problems"]]
    assert kinds == [CUT, NO_TARGET]
    assert "of its answers" in without["problems"][0]["text"]


def test_a_pipe_gets_brackets(shelf: Shelf) -> None:
    """Targets stand in brackets, brackets of the data are escapes, each line is
    indented, and counts stand above."""
    printed = shelf.zsg(
        "arrange", "show", shelf.make().name, "--step", "1", "--text", "--problems"
    )

    assert "step 1: 4 examples, " in printed
    assert "<s>User: say two\n  Assistant: ⟦two \\u27e62\\u27e7</s>⟧" in printed
    assert "cut: train.max_length 40 left out" in printed
    assert "no problem in 1 test items" in printed


def test_a_page_marks_targets_and_escapes_the_data(shelf: Shelf) -> None:
    """Words of the data become no markup; problems stand in a table."""
    learnt = shelf.read(shelf.make(), Asked(text=True, problems=True))

    page = render_learnt_page(learnt)

    assert "<b>&lt;s&gt;</b>User: say two\nAssistant: <mark>two ⟦2⟧</mark>" in page
    assert "User: say &lt;/s&gt; to me" in page
    assert page.count("train.max_length 40 left out") >= 2
    assert "no problem in 1 test items" in page


@pytest.mark.parametrize("step", [0, 3])
def test_a_step_that_no_stage_takes_is_refused(shelf: Shelf, step: int) -> None:
    """The steps that there are stand in the message."""
    with pytest.raises(UserError, match="the run has steps 1 to 2"):
        shelf.read(shelf.make(), Asked(step=step, text=True))


def test_without_a_tokenizer_it_is_said_which_files_lack(
    shelf: Shelf, tmp_path: Path
) -> None:
    """Neither weights nor a GPU: the tokenizer's files, and where else they may lie."""
    asked = Asked(text=True, tokenizer=tmp_path)

    with pytest.raises(UserError, match=r"has none here.*json.*--tokenizer FOLDER"):
        shelf.read(shelf.make(), asked)


def test_a_run_that_is_not_submitted_is_shown_by_its_grid(shelf: Shelf) -> None:
    """The order must be made, and nothing else of the run: the same batch."""
    folder = shelf.make()
    workspace = Workspace(shelf.zsg.work)
    grid = shelf.zsg.folder / "zsg-answer.yaml"
    opened = open_grid(grid, None, shelf.zsg.work)

    planned = find_planned(workspace, opened.runs, folder.name[:6])

    assert planned == find_submitted(workspace, folder.name)
    with pytest.raises(UserError, match="'zz' begins the id of 0 runs"):
        find_planned(workspace, opened.runs, "zz")


def test_other_tokens_than_this_zsg_makes_are_shown_with_a_note(shelf: Shelf) -> None:
    """What the train job keeps is what the model gets, whatever would be made now."""
    run = shelf.make("llama2")
    job = read_train_job(run)
    assert job is not None
    train_and_test(job)
    folder = Workspace(shelf.zsg.work).tokens(
        tokens_id(job.recipe, job.made.arrangement)
    )
    ids = np.load(folder / "ids.npy")
    ids[1] += 1
    np.save(folder / "ids.npy", ids)
    first, second, *_ = opened(run).read_batch(1)

    assert OTHER_TOKENS in [problem.kind for problem in first.problems]
    assert OTHER_TOKENS not in [problem.kind for problem in second.problems]


def test_losses_are_told_by_what_was_lost() -> None:
    """A prompt, answers, later turns, or positive examples that did not fit."""
    whole = EncodedExample(list(range(30)), ((8, 10), (18, 20), (28, 30)))
    one_turn = EncodedExample(list(range(7)), ((5, 7),), 23)
    shorter = EncodedExample(list(range(26)), ((4, 6), (14, 16), (24, 26)))

    assert measure_loss(one_turn, whole).describe() == (
        "3 of its prompt; 20, its last 2 turns"
    )
    assert measure_loss(shorter, whole).describe() == "4 of its positive examples"
    assert measure_loss(whole, whole).tokens == 0


CHAT_GRID = """
name: talks
defaults:
  model: {{name: talks, path: {folder}/talks}}
  data:
    set: messages
    path: {folder}/talks.json
    test_path: {folder}/talks.json
    template: chat
  train: {{batch: 1, lr: 1e-3, max_length: 120, precision: fp32}}
grid:
  seed: [0]
"""


def test_a_dialogue_of_the_models_own_template_is_shown_text_by_text(
    shelf: Shelf,
) -> None:
    """A template that writes history otherwise makes one text of each answer; each
    answer is marked once, with the end of its turn."""
    folder = write_llama(shelf.zsg.folder / "talks")
    make_tokenizer(THINKING).save_pretrained(folder)
    turns = ["How far?", "Far.", "Really?", "Yes."]
    messages = [
        {"role": "user" if place % 2 == 0 else "assistant", "content": text}
        for place, text in enumerate(turns)
    ]
    shelf.zsg.write("talks.json", json.dumps([{"messages": messages}]))
    text = CHAT_GRID.format(folder=shelf.zsg.folder)
    run = shelf.prepare(shelf.zsg.write("talks.yaml", text))
    (example,) = opened(run).read_batch(1)

    assert {piece.text_number for piece in example.pieces} == {0, 1}
    marked = learnt_view.mark_targets(example.pieces)
    first, second = marked.split(learnt_view.BETWEEN_TEXTS)
    assert first.endswith("⟧\n") and "Far.<|im_end|>⟧" in first
    assert "Far.<|im_end|>⟧" not in second and "Yes.<|im_end|>⟧" in second
    assert marked.count("⟦") == 2


@pytest.mark.parametrize(
    ("question", "answer", "told"),
    [
        ("How far?", "<think>\nhm\n</think>\n\nFar.", []),
        ("How <think> far?", "Far.", ["its text has <think>, which is read as text"]),
        ("How far?", "Far.<|im_end|>", ["its text has <|im_end|>, which is read as"]),
    ],
)
def test_the_marks_of_a_thought_are_no_problem_of_an_answer(
    shelf: Shelf, question: str, answer: str, told: list[str]
) -> None:
    """The template looks for them there and writes them as tokens; anywhere else they
    are text, as other control tokens' words are everywhere."""
    folder = write_llama(shelf.zsg.folder / "talks")
    make_tokenizer(THINKING).save_pretrained(folder)
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    shelf.zsg.write("talks.json", json.dumps([{"messages": messages}]))
    text = CHAT_GRID.format(folder=shelf.zsg.folder)
    run = shelf.prepare(shelf.zsg.write("talks.yaml", text))

    (example,) = opened(run).read_batch(1)

    problems = [said for kind, said in example.problems if kind == "control word"]
    assert [said[: len(start)] for said, start in zip(problems, told, strict=True)] == (
        told
    )


def test_empty_texts_are_told_by_turn() -> None:
    """Of several turns it is said which."""
    example = Example(id="a", task="t", turns=(("q", "a"), (" ", "\n")))

    assert [text for _, text in find_empty(example)] == [
        "its question of turn 2 is empty",
        "its answer of turn 2 is empty: only the answer's end is learnt",
    ]
    assert list(find_control_words(example, ["</s>"])) == []


def test_a_raw_text_that_asks_nothing_is_no_problem() -> None:
    """Its question is empty by its nature."""
    example = Example(id="a", task="t", turns=(("", "Once."),), is_text=True)

    assert list(find_empty(example)) == []


def test_brackets_open_and_close_once_around_neighbouring_targets() -> None:
    """Also around a control token within, and at the end of a text."""
    pieces = [
        Piece("q ", False, False),
        Piece("a", True, False),
        Piece("</s>", True, True),
        Piece("\x1b[31mUSER", False, False),
        Piece("b", True, False),
        Piece("c", True, False, text_number=1),
    ]
    between = learnt_view.BETWEEN_TEXTS

    assert learnt_view.mark_targets(pieces) == (
        f"q ⟦a</s>⟧\\x1b[31mUSER⟦b⟧{between}⟦c⟧"
    )
