"""Does an example become the published prompt, and is exactly its answer learnt?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lib.character_tokens import BOS, EOS, characters, text
from zsg_core.data.examples import Example
from zsg_core.data.prompts import (
    VICUNA_SYSTEM,
    Template,
    build_question,
    embedding_text,
    encode_example,
    training_texts,
)


def example(**changes) -> Example:
    """An example with two positive examples."""
    parts = {
        "id": "t:0",
        "task": "t",
        "definition": "Add the numbers.",
        "shots": (("1 2", "3"), ("2 2", "4")),
        "input": "3 4",
        "answer": "7",
    }
    parts |= changes
    turn = parts.pop("input"), parts.pop("answer")
    return Example(**{"turns": (turn,), **parts})


def encoded(made: Example, max_length: int = 1024, shots: int = 2):
    """An example in characters."""
    return encoded_by("zsg", made, max_length, shots)


def encoded_by(
    name: str,
    made: Example,
    max_length: int = 1024,
    shots: int = 2,
    truncate: str = "prompt",
):
    """An example in characters, in a template."""
    template = Template(name, shots)
    return encode_example(
        made,
        template=template,
        tokenize=characters,
        bos=BOS,
        eos=EOS,
        max_length=max_length,
        truncate=truncate,
    )


def learnt(made) -> list[str]:
    """What is learnt, span by span."""
    return [text(made.ids[start:stop]) for start, stop in made.spans]


NO_SHOT = "Definition: Add the numbers.\n\nNow complete the following example -\nInput: 3 4.\nOutput: "
ONE_SHOT = NO_SHOT.replace(
    "Now", " Positive Example 1 -\nInput: 1 2.\n Output: 3.\n\nNow"
)
TWO_SHOTS = ONE_SHOT.replace(
    "Now", " Positive Example 2 -\nInput: 2 2.\n Output: 4.\n\nNow"
)


@pytest.mark.parametrize(
    ("shots", "expected"), [(0, NO_SHOT), (1, ONE_SHOT), (2, TWO_SHOTS)]
)
def test_the_source_is_that_of_tk_instruct(shots, expected):
    """Definition, up to two positive examples, the input; no negative example, no explanation."""
    assert expected == build_question(example(), shots)


def test_never_more_positive_examples_than_there_are():
    """A task with one positive example shows one."""
    assert ONE_SHOT == build_question(example(shots=(("1 2", "3"),)), 2)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("word", "word."),
        ("word.", "word."),
        ("why?", "why?"),
        ("a)", "a)"),
        ("  pad  ", "pad."),
        ("", "."),
        ("x。", "x。."),
    ],
)
def test_a_full_stop_is_added_unless_punctuation_ends_the_text(given, shown):
    """Any ASCII punctuation counts as an end."""
    assert f"Input: {shown}\nOutput: " in build_question(example(input=given), 0)


def test_the_text_is_the_published_one():
    """`<s>User: {source}` newline `Assistant: {answer}</s>`."""
    assert text(encoded(example()).ids) == f"<s>User: {TWO_SHOTS}\nAssistant: 7</s>"


def test_only_the_answer_and_its_end_are_learnt():
    """The mask begins after `Assistant: ` and ends with `</s>`."""
    made = encoded(example(answer="  seven  "))

    assert (learnt(made), made.answer_tokens, made.cut) == (["seven</s>"], 6, 0)


def test_pieces_are_tokenised_separately():
    """User part, tag and answer are each handed to the tokenizer alone."""
    pieces: list[str] = []

    def tokenize(piece: str) -> list[int]:
        pieces.append(piece)
        return characters(piece)

    encode_example(
        example(),
        template=Template("zsg"),
        tokenize=tokenize,
        bos=BOS,
        eos=EOS,
        max_length=1024,
    )

    assert set(pieces) == {"\nAssistant: ", "7", f"User: {NO_SHOT}"}


FRAME = len("\nAssistant: ") + len("7") + 2


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        pytest.param(
            len("User: " + TWO_SHOTS) + FRAME, TWO_SHOTS, id="both fit exactly"
        ),
        pytest.param(
            len("User: " + TWO_SHOTS) + FRAME - 1,
            ONE_SHOT,
            id="the second is one token too long",
        ),
        pytest.param(
            len("User: " + ONE_SHOT) + FRAME - 1,
            NO_SHOT,
            id="the first is one token too long",
        ),
        pytest.param(
            len("User: " + NO_SHOT) + FRAME, NO_SHOT, id="only the input fits"
        ),
    ],
)
def test_positive_examples_that_do_not_fit_are_left_out(max_length, expected):
    """Adding examples stops at the first that would make the prompt too long; the rest is whole."""
    made = encoded(example(), max_length)

    assert (text(made.ids), made.cut) == (f"<s>User: {expected}\nAssistant: 7</s>", 0)


def test_adding_stops_at_the_first_example_that_does_not_fit():
    """A short second example is not taken in place of a long first one."""
    made = encoded(example(shots=(("x" * 500, "3"), ("2 2", "4"))), 300)

    assert text(made.ids) == f"<s>User: {NO_SHOT}\nAssistant: 7</s>"


def test_a_prompt_is_cut_before_the_answer():
    """What is too long loses the tail of its prompt, and the answer stays whole."""
    made = encoded(example(answer="a" * 50), 80)

    assert (len(made.ids), made.cut) == (80, len("User: " + NO_SHOT) - 16)
    assert text(made.ids) == "<s>User: Definition\nAssistant: " + "a" * 50 + "</s>"


def test_an_answer_too_long_alone_is_cut_and_keeps_its_end():
    """The head of the answer fills the length, without any prompt, and `</s>` closes it."""
    made = encoded(example(answer="a" * 500), 64)

    assert text(made.ids) == "<s>\nAssistant: " + "a" * 50 + "</s>"
    assert made.cut == 450 + len("User: " + NO_SHOT)


WORDS = st.text("ab .", max_size=120)


@settings(deadline=None)
@given(
    WORDS,
    WORDS,
    WORDS,
    st.lists(st.tuples(WORDS, WORDS), max_size=3),
    st.integers(0, 2),
    st.integers(16, 300),
)
def test_no_example_exceeds_its_length(
    definition, given_, answer, shots, count, max_length
):
    """At most `max_length` tokens; at least `</s>` is learnt, and the answer is cut
    only if alone too long."""
    made = encoded(
        example(definition=definition, input=given_, answer=answer, shots=tuple(shots)),
        max_length,
        count,
    )

    assert len(made.ids) <= max_length
    assert (made.ids[0], made.ids[-1]) == (BOS, EOS)
    assert made.answer_tokens == min(len(answer.strip()), max_length - 14) + 1


def test_similarity_is_measured_on_prompt_and_answer():
    """The embedded text is the whole prompt and the answer, joined by one space."""
    assert embedding_text(example(), 0) == NO_SHOT.strip() + " 7"


def test_a_tokenizer_learns_from_what_the_model_sees():
    """Prompt and answer, without the special tokens."""
    assert training_texts([example()], Template("zsg")) == [
        f"User: {NO_SHOT}\nAssistant: 7"
    ]


def dialogue(**changes) -> Example:
    """Two turns without a definition."""
    turns = (("How are you? ", " Well.\n"), ("And now?", "Better."))
    return Example(**{"id": "d:0", "task": "d", "turns": turns, **changes})


ZSG = "<s>User: How are you?\nAssistant: Well.</s>\nUser: And now?\nAssistant: Better.</s>"
VICUNA = (
    f"<s>{VICUNA_SYSTEM} USER: How are you? ASSISTANT: Well.</s>USER: And now? ASSISTANT:"
    " Better.</s>"
)
LLAMA2 = (
    "<s>[INST] How are you? [/INST] Well. </s><s>[INST] And now? [/INST] Better. </s>"
)
PLAIN = "<s>How are you?  Well.\n</s>And now?Better.</s>"


@pytest.mark.parametrize(
    ("name", "expected", "answers"),
    [
        ("zsg", ZSG, ["Well.</s>", "Better.</s>"]),
        ("vicuna", VICUNA, [" Well.</s>", " Better.</s>"]),
        ("llama2", LLAMA2, [" Well. </s>", " Better. </s>"]),
        ("plain", PLAIN, [" Well.\n</s>", "Better.</s>"]),
    ],
)
def test_every_answer_of_a_dialogue_is_learnt_with_its_end(name, expected, answers):
    """Each template writes the published text; each assistant turn and its `</s>` carry
    loss, nothing else does."""
    made = encoded_by(name, dialogue())

    assert (text(made.ids), learnt(made), made.cut) == (expected, answers, 0)


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("zsg", "<s>User: Be kind.\n\nHow are you?\nAssistant:"),
        ("vicuna", "<s>Be kind. USER: How are you? ASSISTANT:"),
        ("llama2", "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHow are you? [/INST]"),
        ("plain", "<s>How are you? "),
    ],
)
def test_a_system_text_stands_before_the_first_question(name, begin):
    """It takes the place of vicuna's own; plain shows none."""
    assert text(encoded_by(name, dialogue(system="Be kind.\n")).ids).startswith(begin)


def test_a_token_over_the_edge_of_an_answer_is_learnt():
    """Where question and answer are tokenised together, a token that spans both belongs
    to the answer."""
    pairs = {"ab": 500}

    def tokenize(piece: str) -> list[int]:
        return [
            pairs.get(piece[i : i + 2], ord(piece[i]))
            for i in range(len(piece))
            if piece[i - 1 : i + 1] != "ab"
        ]

    made = encode_example(
        dialogue(turns=(("xa", "by"),)),
        template=Template("plain"),
        tokenize=tokenize,
        bos=1,
        eos=2,
        max_length=64,
    )

    assert (made.ids, made.spans) == ([1, ord("x"), 500, ord("y"), 2], ((2, 5),))


@pytest.mark.parametrize("short_by", [0, 1, 10])
def test_a_later_turn_that_does_not_fit_is_left_out_whole(short_by):
    """The first turn stays as it is; the tokens of all left-out turns are counted."""
    turns = (("a", "b"), ("c", "d"), ("e", "f"))
    one, two = (
        len(f"<User: a\nAssistant: b|{more}")
        for more in ("", "\nUser: c\nAssistant: d|")
    )
    whole = two + two - one

    made = encoded_by("zsg", dialogue(turns=turns), whole - short_by)

    assert len(made.ids) == (whole if short_by == 0 else two)
    assert (len(made.spans), made.cut) == ((3, 0) if short_by == 0 else (2, two - one))


@settings(deadline=None)
@given(
    st.sampled_from(["zsg", "vicuna", "llama2", "plain"]),
    st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4),
    st.integers(16, 300),
)
def test_every_span_ends_with_the_end_of_a_turn(name, turns, max_length):
    """However it is shortened: at most `max_length` tokens, and as many `</s>` as
    spans, each the last of its span."""
    made = encoded_by(name, dialogue(turns=tuple(turns)), max_length)

    assert len(made.ids) <= max_length
    assert [made.ids[stop - 1] for _, stop in made.spans] == [EOS] * made.ids.count(EOS)
    assert sum(stop - start for start, stop in made.spans) == made.answer_tokens


def test_all_turns_are_embedded():
    """Similarity sees the whole dialogue, its texts joined by one space (WSD scripts)."""
    assert embedding_text(dialogue(), 2) == "How are you? Well. And now? Better."


TURNS = (("2 + 2?", "four"), ("And 3?", "five"))
WHOLE = "<s>User: 2 + 2?\nAssistant: four</s>\nUser: And 3?\nAssistant: five</s>"
OF_TURNS = len("xUser: 2 + 2?\nAssistant: foury")  # `<s>` and `</s>` are a token each


@pytest.mark.parametrize(
    ("max_length", "answers"),
    [
        pytest.param(1024, ["four</s>", "five</s>"], id="all of it"),
        pytest.param(OF_TURNS, ["four</s>"], id="the first turn whole"),
        pytest.param(OF_TURNS - 1, ["four"], id="its end cut off"),
        pytest.param(OF_TURNS - 4, ["f"], id="its answer cut"),
        pytest.param(OF_TURNS - 5, [], id="its answer pushed out"),
        pytest.param(16, [], id="its prompt cut"),
    ],
)
@pytest.mark.parametrize("name", ["zsg", "plain"])
def test_the_head_is_kept_whatever_it_is(name, max_length, answers):
    """Under `head` the first tokens of the whole stay, and what is left of the answers
    is learnt."""
    made = example(definition="", shots=(), turns=TURNS)
    whole = encoded_by(name, made)
    cut = encoded_by(name, made, max_length, truncate="head")

    assert cut.ids == whole.ids[:max_length]
    assert cut.cut == len(whole.ids) - len(cut.ids)
    if name == "zsg":
        assert (text(whole.ids), learnt(cut)) == (WHOLE, answers)


def test_positive_examples_give_way_only_to_the_question_under_head():
    """As in Tk-Instruct the source alone must fit; the answer is no reason to drop an example."""
    long = example(answer="x" * 50)
    kept, dropped = (
        encoded_by("zsg", long, len(TWO_SHOTS) - less, truncate="head")
        for less in (0, 1)
    )

    assert (text(kept.ids), learnt(kept)) == (
        f"<s>User: {TWO_SHOTS}"[: len("<s>") - 1 + len(TWO_SHOTS)],
        [],
    )
    assert text(dropped.ids).startswith(f"<s>User: {ONE_SHOT}\nAssistant: xxx")


ASKED = "What is the capital of France?"
RULES = "Rule " * 80


@pytest.mark.parametrize("name", ["zsg", "vicuna", "llama2"])
@pytest.mark.parametrize("max_length", [80, 100, 300])
def test_a_question_that_is_cut_off_is_told_or_its_system_text_goes_first(
    name, max_length
):
    """Cut at its tail a prompt loses the question behind a long system text, and says
    so; under `system` the text gives way, and what is too long otherwise is cut as ever."""
    made = example(definition="", shots=(), input=ASKED, answer="Paris", system=RULES)
    cut, system_cut = (
        encoded_by(name, made, max_length, truncate=truncate)
        for truncate in ("prompt", "system")
    )

    assert "France" not in text(cut.ids) and "France" in text(system_cut.ids)
    assert (cut.lost_question, system_cut.lost_question) == (True, False)
    for encoded_example in (cut, system_cut):
        assert learnt(encoded_example)[0].strip().startswith("Paris")
        assert len(encoded_example.ids) == max_length
    assert cut.cut == system_cut.cut
    whole = encoded_by(name, made)
    assert encoded_by(name, made, truncate="system") == whole
    assert not whole.lost_question


@pytest.mark.parametrize("truncate", ["prompt", "system"])
@pytest.mark.parametrize("name", ["zsg", "vicuna", "llama2", "plain"])
@given(data=st.data())
@settings(deadline=None)
def test_whether_a_question_is_lost_is_whether_none_of_it_is_left(name, truncate, data):
    """For any lengths of system text, question, answer and room; of a question that
    keeps a token nothing is told, nor of one that is empty."""
    lengths = data.draw(st.tuples(*[st.integers(0, 60)] * 3), label="lengths")
    # letters that no template has
    system, question, answer = (
        letter * length for letter, length in zip("ßþæ", lengths, strict=True)
    )
    made = example(
        definition="", shots=(), input=question, answer=answer, system=system
    )
    max_length = data.draw(st.integers(40, 200), label="max_length")
    if name == "vicuna":
        max_length += len(VICUNA_SYSTEM)

    found = encoded_by(name, made, max_length, truncate=truncate)

    assert len(found.ids) <= max_length
    left = text(found.ids[: found.spans[0][0]])
    assert found.lost_question == (bool(question) and "þ" not in left)
    if truncate == "system" and left.count("þ") < len(question):
        assert "ß" not in left


def test_natural_instructions_lose_their_input_and_are_told():
    """Their tail is the input: a definition that fills the room leaves nothing of it."""
    long = example(definition="d" * 100)

    told = {
        room: encoded(long, room).lost_question
        for room in (90, len(encoded(long, 500).ids), 500)
    }

    assert list(told.values()) == [True, False, False]


@pytest.mark.parametrize("name", ["zsg", "vicuna", "llama2", "plain"])
def test_without_a_beginning_of_sequence_the_rest_is_the_same(name):
    """As with Qwen's tokenizers: every token and every target but the beginnings."""
    begun = encoded_by(name, dialogue())
    made = encode_example(
        dialogue(),
        template=Template(name),
        tokenize=characters,
        bos=None,
        eos=EOS,
        max_length=1024,
    )

    assert made.ids == [token for token in begun.ids if token != BOS]
    assert learnt(made) == learnt(begun)


@pytest.mark.parametrize("truncate", ["prompt", "head"])
@pytest.mark.parametrize("which", ["answer", "prompt", "all"])
def test_the_first_token_of_all_is_never_learnt(truncate, which):
    """Nothing comes before it: also where a text begins with its answer."""
    made = encode_example(
        dialogue(turns=(("", "abc"), ("d", "e"))),
        template=Template("plain"),
        tokenize=characters,
        bos=None,
        eos=EOS,
        max_length=64,
        truncate=truncate,
    )

    assert made.spans[0] == (0, 4)
    targets = [
        place
        for start, stop in made.target_spans(which)
        for place in range(start, stop)
    ]
    assert (
        targets
        == {
            "answer": [1, 2, 3, 5, 6],
            "prompt": [4],
            "all": [1, 2, 3, 4, 5, 6],
        }[which]
    )
