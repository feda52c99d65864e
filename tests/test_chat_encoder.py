"""Does an example under a model's chat template become token ids within max_length, and
are they trained, kept and asked as those of any template?"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from msgspec import structs

from jobs.contract.folder import Workspace, is_whole
from jobs.contract.job_file import ChatToTry
from jobs.contract.journal_rows import Start
from jobs.contract.length_notes import describe_chat
from jobs.contract.removal import IN_TOKENS
from jobs.evaluating.choices import Choices
from jobs.evaluating.items import Asker
from jobs.model.chat import ChatWriter
from jobs.model.chat_encoder import ChatEncoder
from jobs.model.vocabulary import Vocabulary, load_vocabulary
from jobs.preparing.chat_trial import try_chat, try_chat_once
from jobs.preparing.self_sample import encode_questions
from jobs.runtime.ranks import Ranks
from jobs.training.batches import TokenizedSet
from jobs.training.held_out import HeldOutLoss
from jobs.training.tokens import prepare_tokens
from jobs.training.train_sets import (
    _refuse_repeated,
    find_trained_end,
    make_encoder,
)
from tests.lib.chat_templates import (
    ALTERNATING,
    CHATML,
    CONTROL,
    THINKING,
    make_tokenizer,
)
from tests.lib.requirements import need
from zsg_core.data import readers
from zsg_core.data.examples import Example, FewShot
from zsg_core.data.prompts import EncodedExample, Template, digest_chat_template
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError

CHAT = Template("chat")
END = CONTROL.index("<|im_end|>")
TURNS = (("How far?", "Far."), ("Really?", "Yes."), ("Sure?", "No."))
TALK = Example(id="talk:1", task="talk", turns=TURNS, system="Be brief.")
QUESTION = Example(id="ask:1", task="ask", turns=(("one two three four", "five six"),))
SHOTS = Example(
    id="task:1",
    task="task",
    turns=(("in", "out"),),
    definition="Do it",
    shots=(("shot one", "yes one"), ("shot two", "yes two")),
)


def open_encoder(template: str = CHATML, how: Template = CHAT) -> ChatEncoder:
    tokenizer = make_tokenizer(template)
    return ChatEncoder(ChatWriter(tokenizer, dict(how.arguments)), how)


def make_words(template: str = CHATML) -> Vocabulary:
    """A tokenizer with a chat template as jobs have it."""
    tokenizer = make_tokenizer(template)

    def chat_encoder(how: Template) -> ChatEncoder:
        return ChatEncoder(ChatWriter(tokenizer, dict(how.arguments)), how)

    return Vocabulary(
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        lambda ids: tokenizer.decode([int(token) for token in ids]),
        chat_encoder=chat_encoder,
    )


def decode(ids: Sequence[int]) -> str:
    return str(make_tokenizer(CHATML).decode([int(token) for token in ids]))


def list_learnt(encoded: EncodedExample) -> list[str]:
    return [decode(encoded.ids[start:stop]) for start, stop in encoded.spans]


def test_a_system_text_and_all_turns_are_written() -> None:
    encoded = open_encoder().encode(TALK, 1000)

    assert decode(encoded.ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert list_learnt(encoded) == [f"{answer}<|im_end|>" for _, answer in TURNS]
    assert (encoded.cut, encoded.sequences) == (0, ())


@pytest.mark.parametrize(
    ("system", "begins"),
    [
        ("prepend", "<s>[INST] Be brief.\n\nHow far? [/INST]"),
        ("drop", "<s>[INST] How far? [/INST]"),
    ],
)
def test_a_template_without_system_texts_is_used_as_the_grid_says(
    system: str, begins: str
) -> None:
    encoder = open_encoder(ALTERNATING, Template("chat", system=system))

    assert decode(encoder.encode(TALK, 1000).ids).startswith(begins)
    with pytest.raises(
        UserError, match=r"example talk:1: .*data\.chat_system: prepend"
    ):
        open_encoder(ALTERNATING).encode(TALK, 1000)


def test_turns_that_do_not_fit_whole_are_left_out() -> None:
    """The rest is what the template writes of a dialogue that ends there."""
    encoder = open_encoder()
    whole = encoder.encode(TALK, 1000)
    second = whole.spans[1][1] + 1  # with the line end behind it

    for room in (second, second + 5, len(whole.ids) - 1):
        encoded = encoder.encode(TALK, room)
        assert encoded.ids == whole.ids[:second]
        assert encoded.cut == len(whole.ids) - second
        assert len(encoded.spans) == 2
    assert encoder.encode(TALK, len(whole.ids)) == whole


def test_a_question_is_cut_at_its_tail_and_then_the_answer_which_keeps_its_end() -> (
    None
):
    encoder = open_encoder()
    whole = encoder.encode(QUESTION, 1000)
    size = len(whole.ids)

    shorter = encoder.encode(QUESTION, size - 5)
    assert "one two three<|im_end|>" in decode(shorter.ids)
    assert list_learnt(shorter) == ["five six<|im_end|>"]
    assert (shorter.cut, shorter.lost_question) == (5, False)
    questionless = encoder.encode(QUESTION, size - len("one two three four"))
    assert questionless.lost_question
    assert list_learnt(questionless) == ["five six<|im_end|>"]
    half = encoder.encode(QUESTION, size - len("one two three four six"))
    assert list_learnt(half) == ["five<|im_end|>"]
    assert half.lost_question
    with pytest.raises(UserError, match=r"ask:1: the chat template alone writes"):
        encoder.encode(QUESTION, 20)


def test_every_length_is_kept_and_no_answer_loses_its_end() -> None:
    encoder = open_encoder()
    for example in (TALK, QUESTION, SHOTS):
        longest = len(encoder.encode(example, 1000).ids)
        for room in range(80, longest + 1):
            encoded = encoder.encode(example, room)
            assert len(encoded.ids) <= room
            assert all(text.endswith("<|im_end|>") for text in list_learnt(encoded))


def test_positive_examples_are_dropped_before_the_question_is_cut() -> None:
    encoder = open_encoder(CHATML, Template("chat", shots=2))
    whole = encoder.encode(SHOTS, 1000)

    shorter = encoder.encode(SHOTS, len(whole.ids) - 1)

    assert "shot two" in decode(whole.ids)
    assert "shot one" in decode(shorter.ids)
    assert "shot two" not in decode(shorter.ids)
    assert "Input: in.\nOutput: <|im_end|>" in decode(shorter.ids)


def test_a_system_text_is_cut_first_where_the_grid_says_so() -> None:
    encoder = open_encoder()
    example = Example(
        id="e:1", task="e", turns=QUESTION.turns, system="long long words"
    )
    size = len(encoder.encode(example, 1000).ids)

    shorter = decode(encoder.encode(example, size - 6, "system").ids)

    assert "system\nlong long<|im_end|>" in shorter
    assert "one two three four<|im_end|>" in shorter


def test_the_head_of_a_text_may_lose_answers() -> None:
    encoder = open_encoder()
    whole = encoder.encode(TALK, 1000)

    head = encoder.encode(TALK, whole.spans[1][0] + 2, "head")

    assert head.ids == whole.ids[: whole.spans[1][0] + 2]
    assert head.spans == (whole.spans[0], (whole.spans[1][0], len(head.ids)))


def test_a_token_without_a_row_in_the_embedding_is_refused() -> None:
    writer = ChatWriter(make_tokenizer(CHATML))

    with pytest.raises(UserError, match="the embedding has 200 rows"):
        ChatEncoder(writer, CHAT, rows=200).encode(TALK, 1000)


def test_a_template_that_has_changed_since_the_plan_is_refused() -> None:
    writer = ChatWriter(make_tokenizer(CHATML))
    planned = Template("chat", digest=digest_chat_template(THINKING))

    with pytest.raises(UserError, match="has changed since this was submitted"):
        ChatEncoder(writer, planned)
    ChatEncoder(writer, Template("chat", digest=digest_chat_template(CHATML)))


def test_each_answer_of_a_thinking_template_is_a_text_and_each_has_its_room() -> None:
    """An example stays one; what of it does not fit is left out with all that follows."""
    encoder = open_encoder(THINKING)
    whole = encoder.encode(TALK, 1000)

    assert len(whole.sequences) == 3
    assert sum(whole.sequences) == len(whole.ids)
    assert len(whole.spans) == 3
    shorter = encoder.encode(TALK, whole.sequences[2] - 1)
    assert shorter.sequences == whole.sequences[:2]
    assert shorter.ids == whole.ids[: sum(whole.sequences[:2])]
    assert shorter.cut == whole.sequences[2]


def test_of_several_texts_the_first_token_of_none_is_learnt() -> None:
    encoded = open_encoder(THINKING).encode(TALK, 1000)
    begins = {begin for begin, _ in encoded.bounds}

    for which in ("answer", "prompt", "all"):
        learnt = {
            place
            for start, stop in encoded.target_spans(which)
            for place in range(start, stop)
        }
        assert not learnt & begins
        if which == "all":
            assert len(learnt) == len(encoded.ids) - 3


def test_texts_of_an_example_are_packed_as_examples_and_counted_once() -> None:
    """Over ranks and micro-batches: every target token once, with the positions of its
    own text; the example counts where its first text is."""
    encoder = open_encoder(THINKING)
    short = Example(id="s:1", task="s", turns=TURNS[:1])
    encoded = [encoder.encode(example, 1000) for example in (TALK, short, TALK)]
    tokens = TokenizedSet(["a", "b", "c"], encoded)

    micros = [
        micro
        for rank in range(2)
        for micro in tokens.micro_batches([2, 1, 0], rank, 2, 150)
    ]

    counted = [item for micro in micros for item in micro.counted]
    assert sorted(counted) == [0, 1, 2]
    learnt: list[int] = []
    for micro in micros:
        learnt += [micro.items[owner] for owner in micro.owners] if micro.items else []
        begin = 0
        for length in micro.lengths:
            assert list(micro.positions[begin : begin + length]) == list(range(length))
            begin += length
        assert max(micro.lengths) <= 150 or len(micro.lengths) == 1
    assert [learnt.count(item) for item in range(3)] == [
        tokens.learnt[index] for index in (2, 1, 0)
    ]
    squares = sum(n * n for example in encoded for n in example.sequences or [])
    squares += len(encoded[1].ids) ** 2
    assert tokens.token_counts["squares"] == squares


def test_kept_tokens_are_the_texts_that_were_encoded(tmp_path: Path) -> None:
    encoder = open_encoder(THINKING)
    examples = [
        TALK,
        QUESTION,
        Example(id="t:2", task="t", turns=(("<|im_end|>", "b"),)),
    ]

    kept = prepare_tokens(
        tmp_path / "id", lambda: examples, lambda e: encoder.encode(e, 1000)
    )

    for example, found in zip(examples, kept, strict=True):
        made = encoder.encode(example, 1000)
        assert list(found.ids) == made.ids
        assert (found.spans, found.sequences) == (made.spans, made.sequences)
    assert (kept.apart, kept.control) == (0, 1)
    names = {file.name for file in (tmp_path / "id").iterdir()}
    assert names <= set(IN_TOKENS)  # so that the folder can be forgotten


@pytest.mark.parametrize("template", [CHATML, THINKING, ALTERNATING])
def test_a_model_is_asked_what_it_has_learnt_to_answer(template: str) -> None:
    """The prompt of an item is what stands before its last answer in training, and the
    end of a turn ends what is said."""
    how = Template("chat", system="drop")
    words = make_words(template)
    asker = Asker(how, words, 1000)
    trained = make_encoder(words, how, 1000)(TALK)

    assert asker.prompt(TALK) == trained.prompt
    assert asker.test_prompt(TALK) == (trained.prompt, False)
    end = trained.last.ids[trained.last.spans[-1][1] - 1]
    assert asker.add_ends({"ends": [7]})["ends"] == sorted({7, end})
    assert Asker(Template("zsg"), words).add_ends({}) == {}


def test_a_prompt_that_does_not_fit_is_cut_or_not_asked() -> None:
    words = make_words()
    whole = Asker(CHAT, words, 1000).prompt(QUESTION)

    ids, is_cut = Asker(CHAT, words, len(whole) - 5).test_prompt(QUESTION)

    assert is_cut
    assert ids is not None
    assert "one two three<|im_end|>" in decode(ids)
    assert decode(ids).endswith("<|im_start|>assistant\n")
    assert Asker(CHAT, words, 60).test_prompt(TALK) == (None, True)


@pytest.fixture(scope="module")
def goldens(real_data: Path) -> dict[str, Any]:
    """Six templates with the behaviours of well-known ones."""
    path = real_data.parent / "goldens" / "chat_goldens.json"
    need("data", [] if path.is_file() else [str(path)])
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dialogues(real_data: Path) -> list[Example]:
    """500 published examples, half of them of several turns."""
    sources = (
        ("messages", "messages_format/delia_train_dataset.jsonl", 100),
        ("sharegpt", "sharegpt/fastchat_dummy_conversation.json", 250),
        ("alpaca", "alpaca/alpaca_5000.json", 400),
    )
    examples: list[Example] = []
    for reader, name, count in sources:
        read = list(readers.read_examples(reader, real_data / name, Intake(True)))
        examples += read[:: max(1, len(read) // count)][:count]
    return examples[:500]


def replace_texts(example: Example) -> Example:
    """The same dialogue, in which nobody says more than a letter."""
    turns = tuple(
        ("a" if asked.strip() else "", "a" if answered.strip() else "")
        for asked, answered in example.turns
    )
    return structs.replace(example, turns=turns, system="a" if example.system else "")


@pytest.mark.parametrize(
    "name",
    [
        "llama3_like",
        "qwen_like",
        "qwen3_like",
        "gemma_like",
        "mistral_like",
        "zephyr_like",
    ],
)
@pytest.mark.parametrize(
    "step", [10, pytest.param(1, marks=pytest.mark.soak(part="families"))]
)
def test_real_answers_are_learnt_once_each_and_nothing_else(
    goldens: dict[str, Any], dialogues: list[Example], name: str, step: int
) -> None:
    """What is learnt is each answer and the end of its turn, in their order, and no word
    of a text is an end."""
    template = goldens["templates"][name]
    tokenizer = make_tokenizer(
        template["template"],
        control=goldens["specials"],
        merges=[tuple(merge.split(" ")) for merge in goldens["merges"]],
        bos=template["bos"],
        eos=template["eos"],
    )
    encoder = ChatEncoder(ChatWriter(tokenizer), Template("chat", system="prepend"))
    end = goldens["specials"].index(template["stop"])

    several = 0
    for example in dialogues[::step]:
        encoded = encoder.encode(example, 1 << 30)
        several += len(example.turns) > 1
        learnt = [
            tokenizer.decode(encoded.ids[start:stop]) for start, stop in encoded.spans
        ]
        assert all(text.endswith(template["stop"]) for text in learnt), example.id
        said = [text.removesuffix(template["stop"]).strip() for text in learnt]
        if name == "qwen3_like":
            said = [text.removeprefix("<think>\n\n</think>").strip() for text in said]
        assert said == [answer.strip() for _, answer in example.turns], example.id
        plain = encoder.encode(replace_texts(example), 1 << 30)
        assert encoded.ids.count(end) == plain.ids.count(end), example.id
    assert len(dialogues) == 500
    assert several > 100 / step


def test_the_vocabulary_of_a_folder_writes_by_its_template(tmp_path: Path) -> None:
    """As transformers reads it: chat_template.jinja of the folder."""
    tokenizer = make_tokenizer(CHATML)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 300}')

    encoder = load_vocabulary(tmp_path, {}).open_chat(CHAT)

    assert encoder.encode(TALK, 1000) == open_encoder().encode(TALK, 1000)
    assert encoder.end_of_turn == END


def test_what_a_template_refuses_is_told_before_anything_trains(tmp_path: Path) -> None:
    """By the prepare job, which tries every example, those of the test set, too."""
    make_tokenizer(ALTERNATING).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 300}')
    chat = ChatToTry(base={}, folder=str(tmp_path), max_length=1000, truncate="prompt")
    sound: Any = SimpleNamespace(train=[QUESTION], test=[QUESTION], template=CHAT)
    broken: Any = SimpleNamespace(train=[QUESTION], test=[TALK], template=CHAT)

    try_chat(sound, chat)
    with pytest.raises(UserError, match="example talk:1: the template refuses it"):
        try_chat(broken, chat)


def test_a_chat_template_is_tried_once(tmp_path: Path) -> None:
    """That it went well is kept by an id; a trial that fails leaves nothing, so the next
    tries again."""
    make_tokenizer(ALTERNATING).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 300}')
    chat = ChatToTry(
        id="0123456789ab",
        base={},
        folder=str(tmp_path),
        max_length=1000,
        truncate="prompt",
    )
    workspace = Workspace(tmp_path / "work")
    sound: Any = SimpleNamespace(train=[QUESTION], test=[QUESTION], template=CHAT)
    broken: Any = SimpleNamespace(train=[QUESTION], test=[TALK], template=CHAT)
    with pytest.raises(UserError, match="the template refuses it"):
        try_chat_once(workspace, broken, chat)
    trial = workspace.chat_trial("0123456789ab")
    assert not trial.exists()

    try_chat_once(workspace, sound, chat)
    assert is_whole(trial)
    try_chat_once(workspace, broken, chat)  # not looked at again


class CountingEngine:
    """In place of a model: of each target token a loss by what it is and where it stands."""

    def eval(self) -> None:
        """As torch's modules have it."""

    def train(self) -> None:
        """As torch's modules have it."""

    def __call__(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        lengths: Sequence[int],
        predicting: torch.Tensor,
        targets: torch.Tensor,
        owners: torch.Tensor,
        after: Sequence[int] | None = None,
    ) -> torch.Tensor:
        nll = (targets + 7 * positions[predicting]).float()
        return torch.zeros(len(lengths)).index_add(0, owners, nll)


@pytest.mark.parametrize("template", [CHATML, THINKING])
def test_the_loss_of_an_item_is_that_of_all_its_texts(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its texts are shared out; each alone has the same."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda sums: None)
    encoder = open_encoder(template)
    encoded = [encoder.encode(example, 1000) for example in (TALK, QUESTION, TALK)]
    tokens = TokenizedSet(["a", "b", "c"], encoded)
    single = [text for example in encoded for text in example.texts]
    singles = TokenizedSet([str(number) for number in range(len(single))], single)

    means, alone = (
        HeldOutLoss(CountingEngine(), made, Ranks(0, 1, 0), "cpu", 300)
        for made in (tokens, singles)
    )

    sums = means.measure() * means.tokens
    of_texts = (alone.measure() * alone.tokens).tolist()
    begin = 0
    for number, example in enumerate(encoded):
        end = begin + len(example.texts)
        assert sums[number].item() == pytest.approx(sum(of_texts[begin:end]))
        assert means.tokens[number].item() == tokens.learnt[number]
        begin = end


@pytest.mark.parametrize("question", ["Is it?", "Is it " * 30])
@pytest.mark.parametrize("template", [CHATML, THINKING])
def test_options_are_compared_after_the_same_prompt_and_to_their_ends(
    template: str, question: str
) -> None:
    """Whether the prompt is shortened or not; what a template writes behind an end of
    turn is of no option."""
    words = make_words(template)
    options = ("No", "Yes, that is what it is")
    item = Example(id="i:1", task="i", turns=((question, options[1]),), options=options)
    seen: list[TokenizedSet] = []

    def loss_of(compared: TokenizedSet) -> Any:
        seen.append(compared)
        tokens = torch.tensor(compared.learnt, dtype=torch.float64)
        return SimpleNamespace(tokens=tokens, measure=lambda: torch.ones(2) / tokens)

    choices = Choices([item], lambda most: make_encoder(words, CHAT, most), 130)
    choices.measure(loss_of, ["rank_accuracy"])

    [compared] = seen
    starts = {encoded.spans[-1][0] for encoded in compared.encoded}
    assert len(starts) == 1
    for option, encoded in zip(options, compared.encoded, strict=True):
        [span] = encoded.spans
        assert span[1] == len(encoded.ids) <= 130
        assert decode(encoded.ids[span[0] :]).endswith(f"{option}<|im_end|>")


def test_a_model_samples_its_own_answers_by_its_template() -> None:
    """The published dialogue, written by the chat template; a question that leaves no
    room is passed over."""
    rule = {
        "template": {"name": "chat"},
        "system": "Be brief.",
        "how": {"max_new_tokens": 16},
    }

    sampled = encode_questions([QUESTION], rule, make_words(), 300)

    [prompt] = sampled.prompts
    question, answer = QUESTION.turns[0]
    asked = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    assert decode(prompt) == (
        f"<|im_start|>system\nBe brief.<|im_end|>\n{asked}{answer}<|im_end|>\n{asked}"
    )
    for context in (10, 100):
        assert encode_questions([QUESTION], rule, make_words(), context).too_long == 1


def test_what_a_template_met_is_told() -> None:
    notes = describe_chat(Start(apart={"train": 3, "test": 0}, control={"test": 2}))

    assert [note.partition(":")[0] for note in notes] == [
        "under the chat template the last prompt of 3 training examples has other tokens"
        " where it stands alone, as for generation",
        "2 words of control tokens in test examples were read as text",
    ]
    assert describe_chat(Start()) == []


SHOWN = (("Near?", "Near."), ("Here?", "Here."))


@pytest.mark.parametrize("template", [CHATML, THINKING])
def test_shots_are_turns_of_the_template_of_which_the_last_may_be_learnt_alone(
    template: str,
) -> None:
    """Also where the template writes one text for each answer: those of the shots are
    then left out. Where not all fit, the first ones are missing."""
    words = make_words(template)

    def encode(loss_on: str, max_length: int) -> EncodedExample:
        drawn = FewShot(shots=SHOWN, turns="many", loss_on=loss_on)
        shown = structs.replace(TALK, few_shot=drawn, system="")
        return make_encoder(words, CHAT, max_length)(shown)

    own, every = encode("last", 400), encode("answers", 400)

    answers = [answer for _, answer in (*SHOWN, *TURNS)]
    for encoded, wanted in ((own, answers[2:]), (every, answers)):
        learnt = zip(list_learnt(encoded), wanted, strict=True)
        assert all(text.endswith(f"{answer}<|im_end|>") for text, answer in learnt)
    longest = max(stop - begin for begin, stop in own.bounds)
    shorter = encode("last", longest - 1)
    text = decode(shorter.ids)
    assert ("Near?" in text, "Here?" in text) == (False, True)
    assert shorter.lost_shots == 1
    assert list_learnt(shorter) == list_learnt(own)


def test_shots_in_one_turn_stand_in_the_first_question() -> None:
    """As lm-evaluation-harness writes them for a chat model."""
    drawn = FewShot(shots=SHOWN, turns="one", loss_on="last")
    shown = structs.replace(QUESTION, few_shot=drawn)
    encoded = make_encoder(make_words(CHATML), CHAT, 400)(shown)
    assert "Near? Near.\n\nHere? Here.\n\none two three four" in decode(encoded.ids)
    assert len(encoded.spans) == 1


def ask(question: str, answer: str) -> Example:
    """An example of one turn."""
    return Example(id="one:1", task="one", turns=((question, answer),))


def test_a_text_is_cut_within_characters_of_several_tokens() -> None:
    """All tokens of an emoji end behind it, so that one less took nothing away, for ever."""
    encoder = open_encoder()
    question = ask("abc " + "\U0001f600" * 5, "ok")
    answer = ask("q", "ok " + "\u4e2d" * 10)
    fewest = len(encoder.encode(ask("q", "a"), 1000).ids)

    for example in (question, answer):
        whole = len(encoder.encode(example, 1000).ids)
        for length in range(fewest, whole):
            assert len(encoder.encode(example, length).ids) <= length


def test_an_answer_is_not_cut_before_a_word_that_its_template_looks_for() -> None:
    """A thought that is never closed would be written as an answer behind an empty one."""
    encoder = open_encoder(THINKING)
    thought = ask("q", "<think>\nstep one step two step three\n</think>\n\nFinal")
    whole = len(encoder.encode(thought, 1000).ids)

    with pytest.raises(UserError, match=r"one:1.*before '</think>'"):
        encoder.encode(thought, whole - 12)


def test_a_thought_without_an_answer_learns_its_end_of_turn() -> None:
    """The last word of the answer is the template's, too; it ends no turn."""
    encoded = open_encoder(THINKING).encode(
        ask("q", "<think>\nstep one\n</think>"), 1000
    )

    assert list_learnt(encoded)[-1].rstrip().endswith("<|im_end|>")


def test_words_of_control_tokens_are_text_but_in_answers_that_a_template_reads() -> (
    None
):
    """Also the very word that a template looks for, and an end of turn that it looks for."""
    thinking = open_encoder(THINKING)
    close = CONTROL.index("</think>")
    asked = thinking.encode_prompt(ask("</think>", "a"), 1000).ids
    plain = thinking.encode_prompt(ask("x", "a"), 1000).ids
    looks = CHATML + "{% if '<|im_end|>' in messages[-1].content %}{% endif %}"
    answered = open_encoder(looks).encode(ask("q", "yes <|im_end|> injected"), 1000)

    assert asked.count(close) == plain.count(close)
    assert list(answered.ids).count(END) == 2
    assert answered.control == 1


@pytest.mark.parametrize("loss_on", ["prompt", "all"])
def test_only_answers_are_learnt_of_an_example_of_several_texts(loss_on: str) -> None:
    """Earlier answers stand in the prompts of later ones."""
    encoded = open_encoder(THINKING).encode(TALK, 1000)

    with pytest.raises(UserError, match=r"talk:1 as 3 texts"):
        _refuse_repeated(TokenizedSet([TALK.id], [encoded], learnt=loss_on))


def test_the_end_that_is_trained_is_the_templates_end_of_turn() -> None:
    """Snapshots name it, so that whoever generates from them stops there."""
    chat = {"data": {"template": {"name": "chat"}}}
    plain = {"data": {"template": {"name": "zsg"}}}
    words = make_words()

    assert find_trained_end(chat, words) == END
    assert find_trained_end(plain, words) == words.eos
