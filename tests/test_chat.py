"""Is a dialogue written as the model's own chat template has it, and are its answers
learnt, each once, and nothing else?"""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from jobs.model.chat import ChatFault, ChatWriter, Message
from tests.lib.chat_templates import (
    ALTERNATING,
    CHATML,
    CONTROL,
    THINKING,
    make_tokenizer,
)
from tests.lib.requirements import need
from zsg_core.errors import UserError

pytestmark = pytest.mark.engine  # tokenizers are transformers'

DIALOGUE = [
    Message("user", "How far is it?"),
    Message("assistant", "150 million km."),
    Message("user", "In light minutes?"),
    Message("assistant", "About 8."),
]
THOUGHTS = [
    Message("user", "2+2?"),
    Message("assistant", "<think>\ntwo and two\n</think>\n\n4"),
    Message("user", "3+3?"),
    Message("assistant", "6"),
]


def read_learnt(tokenizer: Any, sequence: Any) -> list[str]:
    """The texts that a sequence learns."""
    return [
        tokenizer.decode(sequence.ids[start:stop]) for start, stop in sequence.spans
    ]


@pytest.fixture(scope="module")
def goldens(real_data: Path) -> dict[str, Any]:
    """What transformers makes of three dialogues under six templates."""
    path = real_data.parent / "goldens" / "chat_goldens.json"
    need("data", [] if path.is_file() else [str(path)])
    return json.loads(path.read_text(encoding="utf-8"))


def golden_writer(
    goldens: dict[str, Any], name: str, form: str, **arguments: Any
) -> ChatWriter:
    template = goldens["templates"][name]
    tokenizer = make_tokenizer(
        template[form],
        control=goldens["specials"],
        merges=[tuple(merge.split(" ")) for merge in goldens["merges"]],
        bos=template["bos"],
        eos=template["eos"],
    )
    return ChatWriter(tokenizer, arguments)


def golden_messages(goldens: dict[str, Any], name: str) -> list[Message]:
    return [Message(*row) for row in goldens["dialogues"][name]]


@pytest.mark.parametrize("form", ["template", "with_generation"])
def test_ids_and_answers_are_transformers_own(
    goldens: dict[str, Any], form: str
) -> None:
    """Under every template that writes history as it was learnt, with tags of
    `{% generation %}` and without; which prompts have other tokens alone is told."""
    compared = 0
    for key, expected in goldens["expected"].items():
        name, dialogue, *others = key.split("/")
        if others or "spans" not in expected or "prefix_spans" in expected:
            continue
        writer = golden_writer(goldens, name, form)
        encoded = writer.encode(golden_messages(goldens, dialogue))
        [sequence] = encoded.sequences
        assert sequence.ids == expected["ids"], key
        assert [list(span) for span in sequence.spans] == expected["spans"], key
        told = [f"turn {n}: the prompt alone has other tokens" for n in encoded.apart]
        assert told == [p for p in expected["problems"] if "prompt alone" in p], key
        compared += 1
    assert compared == 13


@pytest.mark.parametrize("form", ["template", "with_generation"])
def test_answers_that_are_history_otherwise_are_texts_of_their_own(
    goldens: dict[str, Any], form: str
) -> None:
    """Whether the empty block of a thought is prompt or answer, `enable_thinking` says."""
    compared = 0
    for key, expected in goldens["expected"].items():
        name, dialogue, *others = key.split("/")
        if "each answer alone" not in others:
            continue
        arguments = {"enable_thinking": False} if len(others) > 1 else {}
        writer = golden_writer(goldens, name, form, **arguments)
        if not all(text["prompt_is_prefix"] for text in expected["examples"]):
            with pytest.raises(ChatFault, match="may hold no thought"):
                writer.encode(golden_messages(goldens, dialogue))
            continue
        sequences = writer.encode(golden_messages(goldens, dialogue)).sequences
        assert [s.ids for s in sequences] == [t["ids"] for t in expected["examples"]]
        spans = [list(span) for s in sequences for span in s.spans]
        assert spans == [text["span"] for text in expected["examples"]]
        compared += 1
    assert compared == 3


def test_a_golden_template_that_refuses_a_role_is_told_with_its_own_words(
    goldens: dict[str, Any],
) -> None:
    for key, expected in goldens["expected"].items():
        name, _, dialogue = key.partition("/")
        if "error" in expected:
            writer = golden_writer(goldens, name, "template")
            with pytest.raises(ChatFault, match=expected["error"]):
                writer.encode(golden_messages(goldens, dialogue))


def test_control_words_of_golden_questions_end_no_turn(goldens: dict[str, Any]) -> None:
    for key, expected in goldens["expected"].items():
        name, _, what = key.partition("/")
        if "stops_expected" not in expected or not what.startswith("control"):
            continue
        writer = golden_writer(goldens, name, "template")
        messages = [Message(*row) for row in expected["messages"]]
        encoded = writer.encode(messages)
        [sequence] = encoded.sequences
        end = writer.find_end_of_turn()
        assert end is not None
        assert sequence.ids.count(end) == expected["stops_expected"]
        assert encoded.control == 1


def test_every_golden_end_of_turn_is_found(goldens: dict[str, Any]) -> None:
    for name, template in goldens["templates"].items():
        writer = golden_writer(goldens, name, "template")
        expected = goldens["specials"].index(template["stop"])
        assert writer.find_end_of_turn() == expected, name


def test_the_ids_are_those_of_apply_chat_template_and_answers_alone_are_learnt() -> (
    None
):
    tokenizer = make_tokenizer(CHATML)
    [sequence] = ChatWriter(tokenizer).encode(DIALOGUE).sequences

    rows = [message._asdict() for message in DIALOGUE]
    assert sequence.ids == tokenizer.apply_chat_template(rows, return_dict=False)
    assert read_learnt(tokenizer, sequence) == [
        "150 million km.<|im_end|>",
        "About 8.<|im_end|>",
    ]


def test_a_prompt_is_what_stands_before_the_answer() -> None:
    writer = ChatWriter(make_tokenizer(CHATML))
    [sequence] = writer.encode(DIALOGUE).sequences

    prompt, _ = writer.encode_prompt(DIALOGUE[:3])

    assert prompt == sequence.ids[: sequence.spans[1][0]]


def test_thoughts_are_learnt_once_and_dropped_from_history() -> None:
    """Whose marks the template looks for in an answer stay tokens, and count as none
    that a text has."""
    tokenizer = make_tokenizer(THINKING)
    encoded = ChatWriter(tokenizer).encode(THOUGHTS)

    first, second = encoded.sequences
    assert read_learnt(tokenizer, first) == [
        "<think>\ntwo and two\n</think>\n\n4<|im_end|>"
    ]
    assert read_learnt(tokenizer, second) == ["<think>\n\n</think>\n\n6<|im_end|>"]
    assert "two and two" not in tokenizer.decode(second.ids)
    assert first.ids.count(CONTROL.index("<think>")) == 1
    assert encoded.control == 0


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
@pytest.mark.parametrize("word", ["<|im_end|>", "<|im_start|>", "<s>", "</s>"])
def test_words_of_control_tokens_stay_text_whoever_says_them(
    role: str, word: str
) -> None:
    """In the middle, at both ends, and alone."""
    tokenizer = make_tokenizer(CHATML)
    writer = ChatWriter(tokenizer)
    roles = ["system", "user", "assistant"]
    plain = [Message(each, "a b") for each in roles]
    [expected] = writer.encode(plain).sequences

    for text in (f"a{word}b", f"{word} a", f"a {word}", word, word * 2):
        messages = [Message(each, text if each == role else "a b") for each in roles]
        encoded = writer.encode(messages)
        [sequence] = encoded.sequences
        token_id = CONTROL.index(word)
        assert sequence.ids.count(token_id) == expected.ids.count(token_id)
        assert tokenizer.decode(sequence.ids) == tokenizer.apply_chat_template(
            [message._asdict() for message in messages], tokenize=False
        )
        assert encoded.control == text.count(word)
        assert len(sequence.spans) == 1


def test_words_in_two_halves_make_no_token_with_what_the_template_writes() -> None:
    """`<|im_` at the end of a text, and a template that goes on with `end|>`."""
    broken = "{% for m in messages %}{{ m.content }}end|>\n<|im_end|>{% endfor %}"
    tokenizer = make_tokenizer(broken)

    [sequence] = (
        ChatWriter(tokenizer)
        .encode([Message("user", "a"), Message("assistant", "b<|im_")])
        .sequences
    )

    assert sequence.ids.count(CONTROL.index("<|im_end|>")) == 2


def test_kept_words_are_tokens_wherever_a_text_has_them() -> None:
    """As those that model.add_tokens names."""
    tokenizer = make_tokenizer(CHATML)
    messages = [Message("user", "<think> <|im_end|>"), Message("assistant", "a<think>")]
    encoded = ChatWriter(tokenizer, kept_words=["<think>"]).encode(messages)

    [sequence] = encoded.sequences
    assert sequence.ids.count(CONTROL.index("<think>")) == 2
    assert sequence.ids.count(CONTROL.index("<|im_end|>")) == 2
    assert encoded.control == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        ("{% for %}", "cannot be read"),
        ("{{ strftime_now('%d') }}" + CHATML, "day's date.*copy"),
        (
            "{% if not date_string %}{{ strftime_now('%d') }}{% endif %}" + CHATML,
            "date_string: 26 Jul 2024",
        ),
    ],
)
def test_templates_that_cannot_be_used_are_refused_at_once(
    template: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ChatWriter(make_tokenizer(template))


def test_a_date_that_is_given_is_the_date_of_every_day() -> None:
    dated = (
        "{% if date_string is not defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}\n" + CHATML
    )
    writer = ChatWriter(make_tokenizer(dated), {"date_string": "26 Jul 2024"})

    assert writer.write(DIALOGUE).text.startswith("26 Jul 2024\n")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML.replace("m.content", "m.content | upper"), "changes what message 1"),
        (CHATML.replace("m.content", "m.content ~ m.content"), "more than once"),
        (CHATML.replace("{{ m.content }}", ""), "leaves out what message 1"),
        (CHATML.replace("<|im_end|>", ""), "no token of its own"),
        (CHATML.replace("{% if add", "{% if not add"), "opens an answer"),
        (CHATML.replace("assistant\n", "helper\n"), "does not begin"),
        (CHATML.partition("{% endfor %}")[0] + "{% endfor %}", "opens an answer"),
        ("{{ bos_token }}{{ bos_token }}" + CHATML, "two BOS"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ messages[99].content }}", "the template refuses it"),
        ("{{ messages[0].__class__.__mro__ }}" + CHATML, "the template refuses it"),
        ("{{ 1 / 0 }}", "the template refuses it"),
    ],
)
def test_what_a_template_makes_of_its_own_is_told(template: str, message: str) -> None:
    """Texts that are changed, doubled or left out; answers without an end, and prompts
    that are none."""
    writer = ChatWriter(make_tokenizer(template))

    with pytest.raises(ChatFault, match=message):
        writer.encode(DIALOGUE)


def test_a_template_that_judges_texts_is_refused_for_the_text() -> None:
    """Such as one that ends where a question has a certain word; others are written."""
    judging = "{% if 'secret' in messages[0].content %}A{% endif %}" + CHATML
    writer = ChatWriter(make_tokenizer(judging))

    assert len(writer.encode(DIALOGUE).sequences) == 1
    with pytest.raises(ChatFault, match=r"message 1 \(user\)"):
        writer.encode([Message("user", "a secret"), Message("assistant", "b")])


def test_a_role_that_the_template_refuses_is_told_with_its_words() -> None:
    writer = ChatWriter(make_tokenizer(ALTERNATING))

    with pytest.raises(ChatFault, match="roles must alternate"):
        writer.encode([Message("system", "Be brief."), *DIALOGUE])


def test_answers_are_learnt_as_they_are_written() -> None:
    """A template may take blanks off their ends; what it writes is learnt."""
    tokenizer = make_tokenizer(ALTERNATING)
    messages = [Message("user", " a "), Message("assistant", "\n b \n")]
    [sequence] = ChatWriter(tokenizer).encode(messages).sequences

    assert tokenizer.decode(sequence.ids) == "<s>[INST] a [/INST] b</s>"
    assert read_learnt(tokenizer, sequence) == [" b</s>"]


def test_blank_answers_are_an_end_of_turn_and_blank_texts_nothing() -> None:
    tokenizer = make_tokenizer(CHATML)
    messages = [Message("user", ""), Message("assistant", "")]
    [sequence] = ChatWriter(tokenizer).encode(messages).sequences

    assert read_learnt(tokenizer, sequence) == ["<|im_end|>"]


def test_what_stands_behind_an_end_of_turn_is_not_learnt() -> None:
    """A text's own end, which templates write behind the last turn alone, makes no
    texts of their own of the answers before."""
    closing = CHATML + "{% if not add_generation_prompt %}</s>{% endif %}"
    tokenizer = make_tokenizer(closing)
    [sequence] = ChatWriter(tokenizer).encode(DIALOGUE).sequences

    assert len(sequence.spans) == 2
    assert read_learnt(tokenizer, sequence)[1] == "About 8.<|im_end|>"
    assert sequence.ids[-1] == CONTROL.index("</s>")


def test_a_token_over_the_end_of_a_prompt_is_learnt_and_told() -> None:
    """Generation sees other tokens there."""
    merges = [("Ċ", "Ċ")]
    tokenizer = make_tokenizer(CHATML, merges=merges)
    messages = [Message("user", "a"), Message("assistant", "\n\nb")]
    encoded = ChatWriter(tokenizer).encode(messages)

    [sequence] = encoded.sequences
    assert read_learnt(tokenizer, sequence) == ["\n\n\nb<|im_end|>"]
    assert encoded.apart == (1,)


# of dialogues without thoughts or with parts: what their templates make of plain ones
REFUSED = re.compile(
    "deepseek|nemotron|glm4moe$|idefics|llava|smolvlm|gptoss|muse_glimmer"
)


@pytest.mark.soak(part="families")
def test_published_templates_are_learnt_from_or_refused_with_a_reason() -> None:
    """Those that TRL carries: of each either every answer with its end of turn, or why
    not; and of no template another answer than was said."""
    found = find_spec("trl")
    need("bench", [] if found and found.origin else ["trl"])
    assert found is not None and found.origin is not None
    learnt, refused = 0, 0
    for path in sorted((Path(found.origin).parent / "chat_templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        words = set(re.findall(r"<[|｜]?[/a-zA-Z_▁|｜]+[|｜]?>", source))
        end = "<|im_end|>" if "<|im_end|>" in words else "<eos>"
        control = sorted(words | {"<bos>", end, "<think>", "</think>"})
        tokenizer = make_tokenizer(source, control=control, bos="<bos>", eos=end)
        try:
            writer = ChatWriter(tokenizer)
        except UserError as error:
            if "date_string" not in str(error):
                refused += 1
                assert REFUSED.search(path.stem), f"{path.stem}: {error}"
                continue
            writer = ChatWriter(tokenizer, {"date_string": "26 Jul 2024"})
        try:
            sequences = writer.encode(DIALOGUE).sequences
        except ChatFault as fault:
            refused += 1
            assert REFUSED.search(path.stem), f"{path.stem}: {fault}"
            continue
        closing = tokenizer.decode([writer.find_end_of_turn() or 0])
        texts = [text for each in sequences for text in read_learnt(tokenizer, each)]
        assert len(texts) == 2, path.stem
        for text, answer in zip(texts, (DIALOGUE[1], DIALOGUE[3]), strict=True):
            assert text.endswith(answer.content + closing), path.stem
        learnt += 1
    assert learnt > 2 * refused > 0
