"""Is what a plugin declares read from its syntax tree alone, and is what could deceive a
reader refused with its line?"""

import pytest

from zsg_core.plugins.declarations import (
    MOST_BYTES,
    BadPlugin,
    Declared,
    read_plugins,
)

PLUGIN = '''"""Two things."""
import zsg

LIMIT = 3


@zsg.metric("words")
def count_words(answers):
    """How many words."""
    return [(one.id, len(one.answer.split())) for one in answers]


# an order
@zsg.order("backwards", seeded=False)
def turn_around(items, seed):
    return list(range(len(items)))[::-1]
'''
WORDS = '@zsg.metric("words")\ndef words(answers): ...\n'


def read(text: str | bytes, **others: str) -> dict[str, Declared]:
    """What a plugin declares, by name. `others`: plugins beside it."""
    content = text if isinstance(text, bytes) else text.encode()
    contents = {"mine.py": content}
    contents |= {f"{name}.py": other.encode() for name, other in others.items()}
    plugins = read_plugins(contents)
    return {one.name: one for one in plugins[0].declared}


def digest(text: str, name: str, **others: str) -> str:
    """The digest of one declared thing."""
    return read(text, **others)[name].digest


def test_kind_name_line_and_options_are_read() -> None:
    """As they are written out; the docstring's first line says what it is about."""
    declared = read(PLUGIN)

    facts = [(one.kind, name, one.line) for name, one in declared.items()]
    assert facts == [("metric", "words", 8), ("order", "backwards", 15)]
    assert declared["words"].about == "How many words."
    assert dict(declared["backwards"].options) == {"seeded": False}


def test_an_edited_function_leaves_the_other_what_it_was() -> None:
    """A metric that is mended must not make other runs of its file's order."""
    edited = PLUGIN.replace("len(one.answer.split())", "1.0")

    assert digest(edited, "words") != digest(PLUGIN, "words")
    assert digest(edited, "backwards") == digest(PLUGIN, "backwards")


def test_a_function_that_calls_a_declared_one_changes_with_it() -> None:
    """Also by way of another; what is called does not change with who calls it."""
    first = (
        'import zsg\n@zsg.order("first")\ndef put_first(items, seed):\n    return [0]\n'
    )
    second = (
        '@zsg.order("second")\ndef turn(items, seed):\n    return put_first(items, 1)\n'
    )
    third = '@zsg.metric("third")\ndef rate(answers):\n    return turn(answers, 2)\n'
    text = f"{first}{second}{third}"
    edited = text.replace("[0]", "[1]")

    assert digest(edited, "first") != digest(text, "first")
    assert digest(edited, "second") != digest(text, "second")
    assert digest(edited, "third") != digest(text, "third")
    edited = text.replace("answers, 2", "answers, 3")
    assert digest(edited, "third") != digest(text, "third")
    assert digest(edited, "second") == digest(text, "second")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# an order", "# the order of names\n\n# backwards"),
        ('"""Two things."""', '"""Other words."""'),
        ("\n", "\r\n"),
    ],
)
def test_what_says_nothing_to_python_changes_no_digest(old: str, new: str) -> None:
    """Comments between functions, the file's docstring, line ends of another system."""
    edited = PLUGIN.replace(old, new)

    assert edited != PLUGIN
    assert digest(edited, "words") == digest(PLUGIN, "words")
    assert digest(edited, "backwards") == digest(PLUGIN, "backwards")


def test_what_a_function_may_read_changes_its_digest() -> None:
    """A constant of the file, and a plugin that it imports, also by way of another."""
    of_import = f"import helper\n{PLUGIN}"
    helper, far = "import far\nX = 1\n", "Y = 1\n"
    before = digest(of_import, "words", helper=helper, far=far)

    assert digest(PLUGIN.replace("= 3", "= 4"), "words") != digest(PLUGIN, "words")
    assert digest(of_import, "words", helper="import far\nX = 2\n", far=far) != before
    assert digest(of_import, "words", helper=helper, far="Y = 2\n") != before


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            f"import zsg\nif True:\n    {WORDS.splitlines()[0]}\n    def f(a): ...",
            3,
            "top",
        ),
        (
            f"import zsg\nclass A:\n    {WORDS.splitlines()[0]}\n    def f(a): ...",
            3,
            "top",
        ),
        ('import zsg\n@zsg.metric("a")\nclass A: ...', 2, "top level"),
        ('import zsg\n@zsg.metric("a")\nasync def f(a): ...', 2, "top level"),
        ("import zsg\n@zsg.metric\ndef f(a): ...", 2, "with its name"),
        ('import zsg\n@zsg.family("a")\ndef f(a): ...', 2, "needs no plugin"),
        (
            "import zsg\nclass A:\n @zsg.metrics\n def f(a): ...",
            3,
            "there are zsg.metric",
        ),
        ('import zsg\nmake = zsg.metric\n@make("a")\ndef f(a): ...', 2, "another name"),
        ('import zsg\nzsg.metric("a")(len)', 2, "only as a decorator"),
        ('import zsg as z\n@z.metric("a")\ndef f(a): ...', 1, "import zsg"),
        ('from zsg import metric\n@metric("a")\ndef f(a): ...', 1, "import zsg"),
        ("from zsg import *", 1, "import zsg"),
        ('import zsg\n@zsg.metric("a" + "b")\ndef f(a): ...', 2, "written out"),
        ("import zsg\nN = 'a'\n@zsg.metric(N)\ndef f(a): ...", 3, "written out"),
        ('import zsg\n@zsg.metric(f"a")\ndef f(a): ...', 2, "written out"),
        ('import zsg\n@zsg.metric(*["a"])\ndef f(a): ...', 2, "written out"),
        ('import zsg\n@zsg.metric(b"a")\ndef f(a): ...', 2, "written out"),
        ('import zsg\n@zsg.metric("a/b")\ndef f(a): ...', 2, "lower-case"),
        ('import zsg\n@zsg.metric("a@b")\ndef f(a): ...', 2, "lower-case"),
        ('import zsg\n@zsg.metric("\\x1b[2J")\ndef f(a): ...', 2, "lower-case"),
        ('import zsg\n@zsg.metric("a", of="x")\ndef f(a): ...', 2, "of is answers or"),
        ('import zsg\n@zsg.metric("a", by="x")\ndef f(a): ...', 2, "no argument by"),
        ('import zsg\n@zsg.order("a", **{})\ndef f(a): ...', 2, "no argument"),
        ('import zsg\n@zsg.order("a", seeded=1)\ndef f(a): ...', 2, "bool"),
        ('import zsg\n@zsg.score("a", passes=-1)\ndef f(a): ...', 2, "written out"),
        ('import zsg\n@zsg.score("a", passes=9999)\ndef f(a): ...', 2, "0 to 1000"),
        ('import zsg\n@zsg.reader("a", files="../x")\ndef f(a): ...', 2, r"\*\.jsonl"),
        (f"import zsg\n{WORDS}{WORDS}", 5, "declared already, mine.py:3"),
        ("import zsg\nfrom . import other", 2, "without the leading dot"),
        ("x = (", 1, "no Python"),
        ("x = 1\0", 1, r"U\+0000"),
        ("x = " + "(" * 5000, 1, "no Python|too deeply"),
        ("x" + ".a" * 40_000, 1, "too deeply"),
        ("x = " + "-" * 90_000 + "1", 1, "too deeply"),
        (b"x = '\xff'", 1, "UTF-8"),
        (b"# coding: latin-1\nx = 1", 1, "UTF-8"),
        (b"# coding: utf-7\nx = 1", 1, "UTF-8"),
        (b"# coding: nonsense\nx = 1", 1, "UTF-8"),
        (b"#" * (MOST_BYTES + 1), 1, "more than"),
        # behind such a line end Python finds an encoding, in which comments are code
        (b"\r# coding: utf-7\n# +AAo-x = 1+AAo-\n", 1, r"U\+000D"),
        (b"x = 1\nimport os; os.abort()\rx = 2\n", 2, r"U\+000D"),
        (b"x = 1\nx = 2  # \x1b[2K\x1b[1A\n", 2, r"U\+001B"),
        ("x = 1\n\nx = 'a\u202e' # b", 3, r"U\+202E"),
        ("x = 1 # a\u2028x = 2", 1, r"U\+2028"),
        ("x = 'a\u200b'", 1, r"U\+200B"),
    ],
)
def test_what_could_deceive_a_reader_is_refused(
    text: str | bytes, line: int, message: str
) -> None:
    """Whoever reads the file sees all that it declares, where he looks for it."""
    with pytest.raises(BadPlugin, match=message) as refused:
        read(text)

    assert (refused.value.file, refused.value.line) == ("mine.py", line)


def test_texts_of_any_language_can_be_read() -> None:
    """Tabs, line ends of other systems and every letter stand as they are."""
    text = "\ufeffimport zsg\r\n\r\nx = 'ð å 中 \U0001f600 עברית'\r\nif x:\r\n\ty = 1\x0c\r\n"
    [plugin] = read_plugins({"mine.py": text.encode()})

    assert plugin.text == text.removeprefix("\ufeff").replace("\r\n", "\n")


def test_a_module_beside_the_plugin_is_to_be_named_too() -> None:
    """It would lie where no job finds it, and change without changing a digest."""
    text = b"def f():\n    import helper.inner\n"
    with pytest.raises(BadPlugin, match=r"imports helper.*name helper.py") as refused:
        read_plugins({"mine.py": text}, unlisted={"helper"})

    assert refused.value.line == 2


def test_two_plugins_cannot_declare_one_name() -> None:
    """Neither would say which of them a grid means."""
    text = f"import zsg\n{WORDS}"
    with pytest.raises(BadPlugin, match=r"declared already, mine\.py:3") as refused:
        read(text, other=text)

    assert refused.value.file == "other.py"
