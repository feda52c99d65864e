"""Does an example become the published prompt, and is exactly its answer learnt?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsg_core.examples import Example
from zsg_core.prompts import embedding_text, encode, source, training_texts

BOS, EOS = 1, 2


def example(**changes) -> Example:
    """An example with two positive examples."""
    parts = {
        "id": "t:0",
        "task": "t",
        "definition": "Add the numbers.",
        "shots": (("1 2", "3"), ("2 2", "4")),
        "input": "3 4",
        "answer": "7",
        "references": ("7",),
    }
    return Example(**{**parts, **changes})


def characters(text: str) -> list[int]:
    """A tokenizer whose tokens are characters."""
    return [ord(letter) for letter in text]


def text(ids: list[int]) -> str:
    """The text of such tokens."""
    return "".join({BOS: "<s>", EOS: "</s>"}.get(i, chr(i)) for i in ids)


def encoded(made: Example, max_length: int = 1024, shots: int = 2):
    """An example in characters."""
    return encode(made, shots=shots, tokenize=characters, bos=BOS, eos=EOS, max_length=max_length)


NO_SHOT = "Definition: Add the numbers.\n\nNow complete the following example -\nInput: 3 4.\nOutput: "
ONE_SHOT = NO_SHOT.replace("Now", " Positive Example 1 -\nInput: 1 2.\n Output: 3.\n\nNow")
TWO_SHOTS = ONE_SHOT.replace("Now", " Positive Example 2 -\nInput: 2 2.\n Output: 4.\n\nNow")


@pytest.mark.parametrize(("shots", "expected"), [(0, NO_SHOT), (1, ONE_SHOT), (2, TWO_SHOTS)])
def test_the_source_is_that_of_tk_instruct(shots, expected):
    """Definition, up to two positive examples, the input; no negative example, no explanation."""
    assert expected == source(example(), shots)


def test_never_more_positive_examples_than_there_are():
    """A task with one positive example shows one."""
    assert ONE_SHOT == source(example(shots=(("1 2", "3"),)), 2)


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
    assert f"Input: {shown}\nOutput: " in source(example(input=given), 0)


def test_the_text_is_the_published_one():
    """`<s>User: {source}` newline `Assistant: {answer}</s>`."""
    assert text(encoded(example()).ids) == f"<s>User: {TWO_SHOTS}\nAssistant: 7</s>"


def test_only_the_answer_and_its_end_are_learnt():
    """The mask begins after `Assistant: ` and ends with `</s>`."""
    made = encoded(example(answer="  seven  "))

    assert (text(made.ids[made.answer_start :]), made.answer_tokens, made.cut) == ("seven</s>", 6, 0)


def test_pieces_are_tokenised_separately():
    """User part, tag and answer are each handed to the tokenizer alone."""
    pieces: list[str] = []

    def tokenize(piece: str) -> list[int]:
        pieces.append(piece)
        return characters(piece)

    encode(example(), shots=0, tokenize=tokenize, bos=BOS, eos=EOS, max_length=1024)

    assert set(pieces) == {"\nAssistant: ", "7", f"User: {NO_SHOT}"}


FRAME = len("\nAssistant: ") + len("7") + 2


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        pytest.param(len("User: " + TWO_SHOTS) + FRAME, TWO_SHOTS, id="both fit exactly"),
        pytest.param(len("User: " + TWO_SHOTS) + FRAME - 1, ONE_SHOT, id="the second is one token too long"),
        pytest.param(len("User: " + ONE_SHOT) + FRAME - 1, NO_SHOT, id="the first is one token too long"),
        pytest.param(len("User: " + NO_SHOT) + FRAME, NO_SHOT, id="only the input fits"),
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
@given(WORDS, WORDS, WORDS, st.lists(st.tuples(WORDS, WORDS), max_size=3), st.integers(0, 2), st.integers(16, 300))
def test_no_example_exceeds_its_length(definition, given_, answer, shots, count, max_length):
    """At most `max_length` tokens; at least `</s>` is learnt, and the answer is cut only if alone too long."""
    made = encoded(example(definition=definition, input=given_, answer=answer, shots=tuple(shots)), max_length, count)

    assert len(made.ids) <= max_length
    assert (made.ids[0], made.ids[-1]) == (BOS, EOS)
    assert made.answer_tokens == min(len(answer.strip()), max_length - 14) + 1


def test_similarity_is_measured_on_prompt_and_answer():
    """The embedded text is the whole prompt and the answer, joined by one space."""
    assert embedding_text(example(), 0) == NO_SHOT.strip() + " 7"


def test_a_tokenizer_learns_from_what_the_model_sees():
    """Prompt and answer, without the special tokens."""
    assert training_texts([example()], 0) == [f"User: {NO_SHOT}\nAssistant: 7"]
