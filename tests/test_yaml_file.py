"""Is a file read as YAML 1.2, with the line of everything, and is whatever is odd refused?"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.workspace import yaml_file
from zsg_core.errors import UserError


@pytest.fixture
def load(tmp_path):
    """Reads a text as a file's document."""

    def read(content: str | bytes) -> yaml_file.Document:
        path = tmp_path / "grid.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return yaml_file.load_document(path)

    return read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E5", 1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("+1", 1),
        (".inf", float("inf")),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("true", True),
        ("True", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("12:30:00", "12:30:00"),
        ("1/4", "1/4"),
        ('"1"', "1"),
        ("'on'", "on"),
        ("0:5", "0:5"),
        ("[1, [2]]", [1, [2]]),
        ("{b: {c: 1}}", {"b": {"c": 1}}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(load, text, value):
    """Every scalar has its YAML 1.2 value and a plain Python type."""
    read = load(f"a: {text}\n").value["a"]

    assert (value, type(value)) == (read, type(read))


def test_every_key_and_item_knows_its_line(load):
    """Keys and items are found on the line on which they stand."""
    document = load("# grid\na: 1\nb:\n  c: 2\n  d:\n    - x\n    - {e: 3}\n")

    lines = {
        place: document.line(place)
        for place in [("a",), ("b", "c"), ("b", "d", 0), ("b", "d", 1, "e")]
    }

    assert {("a",): 2, ("b", "c"): 4, ("b", "d", 0): 6, ("b", "d", 1, "e"): 7} == lines


def test_an_unknown_place_has_the_line_of_what_holds_it(load):
    """A place that is not in the file, such as a missing key, is shown where it should
    have been."""
    document = load("a:\n  b:\n    c: 1\n")

    assert 2 == document.line(("a", "b", "missing", 0))


def test_an_error_begins_with_file_and_line(load):
    """`error` names the file and the line, as editors understand them."""
    document = load("a: 1\nb: 2\n")

    assert str(document.error(("b",), "too large")) == f"{document.path}:2: too large"


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        pytest.param("a: 1\na: 2\n", 2, "duplicate key", id="a doubled key"),
        pytest.param(
            "\"a\": 1\n'a': 2\n", 2, "duplicate key", id="a doubled key in other quotes"
        ),
        pytest.param(
            "b: 1\na:\n\tc: 1\n", 3, "not valid YAML", id="a tab as indentation"
        ),
        pytest.param("b: 1\na: [1", 2, "not valid YAML", id="an open bracket"),
        pytest.param("b: 1\na: @b\n", 2, "not valid YAML", id="a reserved character"),
        pytest.param("a: *x\n", 1, "undefined alias", id="an alias of nothing"),
        pytest.param("a: 1\n---\nb: 1\n", 2, "another document", id="two documents"),
        pytest.param("b: 1\na: 2020-01-01\n", 2, "date; quote it", id="a date"),
        pytest.param(
            "b: 1\na: 2020-01-01T10:00:00Z\n",
            2,
            "TimeStamp; quote it",
            id="a timestamp",
        ),
        pytest.param("b: 1\na: !foo bar\n", 2, "tag !foo", id="a tag on a text"),
        pytest.param("b: 1\na: !foo {b: 1}\n", 2, "tag !foo", id="a tag on a mapping"),
        pytest.param("b: 1\na: !foo [1]\n", 2, "tag !foo", id="a tag on a list"),
        pytest.param(
            "a: !!python/object/apply:os.system ['true']\n",
            1,
            "tag",
            id="a tag that builds an object",
        ),
        pytest.param("a: !!set {a, b}\n", 1, "CommentedSet", id="a set"),
        pytest.param(
            "a: !!omap [a: 1]\n", 1, "CommentedOrderedMap", id="an ordered map"
        ),
        pytest.param("a: !!binary aGk=\n", 1, "bytes", id="bytes"),
        pytest.param(
            "b: &x {c: 1}\na:\n  <<: *x\n", 2, "merges nothing", id="a merge key"
        ),
        pytest.param("1: 2\n", 1, "key 1 is not a text", id="a number as key"),
        pytest.param(
            "true: 2\n", 1, "key True is not a text", id="a truth value as key"
        ),
        pytest.param("~: 2\n", 1, "key None is not a text", id="nothing as key"),
        pytest.param("? [a]\n: b\n", 1, "is not a text", id="a list as key"),
        pytest.param(
            "b: 1\na: 0x" + "f" * 5000 + "\n",
            2,
            "18 digits",
            id="a number too long to be printed",
        ),
    ],
)
def test_oddities_are_refused_with_file_and_line(load, content, line, said):
    """What is not plain YAML is refused, and the message says where and what."""
    with pytest.raises(UserError) as error:
        load(content)

    assert f"grid.yaml:{line}: " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x00\x01\xff\xfe", id="binary junk"),
        pytest.param(b"a: \xe9\n", id="latin-1"),
        pytest.param(b"a: \x07\n", id="a control character"),
        pytest.param("[" * 500, id="brackets without end"),
        pytest.param("{a: " * 200 + "1" + "}" * 200, id="mappings nested too deeply"),
        pytest.param("a: !!bool foo", id="a tag that does not fit"),
        pytest.param("a: " + "1" * 5000, id="a decimal number too long to be read"),
        pytest.param("a: 1\n" + "#" * 1_000_001, id="a file of more than a megabyte"),
    ],
)
def test_what_is_no_yaml_text_is_refused(load, content):
    """A file that cannot be read at all is a user's error that names the file."""
    with pytest.raises(UserError, match=r"grid\.yaml"):
        load(content)


def test_an_alias_bomb_is_refused(load):
    """A few lines of nested aliases that stand for a billion values are refused before
    they are expanded."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
    )

    with pytest.raises(UserError, match="aliases multiply them"):
        load(bomb)


def test_an_alias_gives_the_value_again(load):
    """An anchored value may be repeated, and an anchor may be set anew."""
    assert load("a: &x [1]\nb: *x\nc: &x 2\nd: *x\n").value == {
        "a": [1],
        "b": [1],
        "c": 2,
        "d": 2,
    }


@pytest.mark.parametrize("content", ["", "\n", "# only a comment\n", "---\n"])
def test_an_empty_file_is_nothing(load, content):
    """A file without a value reads as None; what that means is the caller's to say."""
    assert load(content).value is None


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b.yaml"])
def test_what_is_no_file_is_refused(tmp_path, name):
    """A missing file, a folder or an impossible name is a user's error."""
    with pytest.raises(UserError, match="cannot be read"):
        yaml_file.load_document(Path(f"{tmp_path}/{name}"))


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#?<0.1e\n\t ,~=", max_size=40))
def test_no_text_crashes_the_reader(tmp_path_factory, text):
    """Any text is either read or refused with a UserError."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        assert isinstance(yaml_file.load_document(path), yaml_file.Document)
    except UserError as error:
        assert "any.yaml" in str(error)
