"""Text of others is made safe before it is shown."""

import unicodedata

import pytest

from zsg_core.shown_text import ShownLog, format_value, make_showable, name_few


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("é 漢 🙂", "é 漢 🙂"),
        ("\x1b[8mhidden", r"\x1b[8mhidden"),
        ("\x9b8m\x00\r", r"\x9b8m\x00\r"),
        ("a\u202eb\u2066\u200f", r"a\u202eb\u2066\u200f"),
        ("\ud800", r"\ud800"),
        ("two\nlines\t", "two\nlines\t"),
        ("a\u2028b\u2029c\x85", r"a\u2028b\u2029c\x85"),
        ("a\u200bb\u2060\ufeff\u00ad", r"a\u200bb\u2060\ufeff\xad"),
        ("\U000e0041\U000e007f", r"\U000e0041\U000e007f"),
    ],
)
def test_what_does_not_print_is_shown_by_its_escape(text: str, shown: str) -> None:
    """Escapes of a terminal, C1 controls, bidi marks, half characters, tags; letters of
    all scripts stay."""
    assert make_showable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u3164b", r"a\u3164b"),
        ("\u115f\u1160\u2800\uffa0", r"\u115f\u1160\u2800\uffa0"),
        ("pay\ufe0fpal", r"pay\ufe0fpal"),
        ("😀\ufe0f\ufe01\U000e0141", "😀\ufe0f" + r"\ufe01\U000e0141"),
        ("sys\u200dtem", r"sys\u200dtem"),
        ("م\u200d\u200d", "م" + r"\u200d\u200d"),
    ],
)
def test_what_python_prints_but_nobody_sees_is_shown_by_its_escape(
    text: str, shown: str
) -> None:
    """Fillers, blank letters, joiners in Latin words, and forms of signs that have
    none: none of them hides."""
    assert make_showable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # Persian: a joiner that keeps two letters apart
        "क्\u200dष",  # Devanagari
        "👩\u200d💻 ❤\ufe0f\u200d🔥 1\ufe0f\u20e3",  # pictures of several signs
        "葛\U000e0100飾区",  # a form of an ideograph
        "一\u3000二\u00a0: 5\u202f%",  # blanks of Chinese and French
        "ệ" + "e\u0323\u0302" + "שָׁ",  # marks, composed and not
        "ไม่ได้ ひらがな 한국어 العربية",
    ],
)
def test_letters_of_all_scripts_are_shown_as_they_are(text: str) -> None:
    """What a script or a picture needs stays, in any form."""
    assert make_showable(text, keep="") == text


def test_a_flood_of_marks_is_cut() -> None:
    """Marks that pile up over the lines above are escaped beyond the eighth of a letter."""
    assert (
        make_showable("a" + "\u0301" * 10 + "b")
        == "a" + "\u0301" * 8 + r"\u0301\u0301b"
    )
    assert make_showable("ก" + "\u0e47" * 10) == "ก" + "\u0e47" * 8 + r"\u0e47\u0e47"
    assert make_showable("か" + "\u3099" * 9) == "か" + "\u3099" * 8 + r"\u3099"


def test_a_cell_has_no_line_end() -> None:
    """With nothing kept, a line end and a tab are escaped too."""
    assert make_showable("a\nb\t", keep="") == r"a\nb\t"
    assert make_showable("é\nb", keep="") == r"é\nb"


def test_nothing_that_a_terminal_obeys_is_left() -> None:
    """No control, no format sign, no half character of all blocks that have some; and
    shown twice is shown once."""
    numbers = (
        *range(0x3100),
        *range(0xD7A0, 0x11000),
        *range(0x1D000, 0x20000),
        *range(0xE0000, 0xE0200),
    )
    shown = "".join(make_showable("x" + chr(number), keep="") for number in numbers)
    assert not set(shown) & set(
        "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159"
    )
    kinds = {
        unicodedata.category(one) for one in set(shown) - set("\u00a0\u202f\u3000 ")
    }
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
    assert make_showable(shown[:100_000]) == shown[:100_000]


def of_pieces(*pieces: str) -> str:
    """What a log that comes in pieces shows."""
    log = ShownLog()
    return "".join([*map(log.show, pieces), log.end()])


def test_a_log_is_shown_without_colours_and_nothing_in_it_is_covered() -> None:
    """Colours are left out; what a progress bar would write over stands on a line of its own."""
    text = "\x1b[31mred\x1b[0m \x1b[8mhidden\x1b[0m\r\n 10%|█\r 20%|██\n\x1b]0;title\x07\x1b[2J\x08"

    shown = "red hidden\n 10%|█\n 20%|██\n" + r"\x1b]0;title\x07\x1b[2J\x08"
    assert of_pieces(text) == shown
    assert of_pieces(*text) == shown


def test_a_colour_within_a_colour_makes_no_other() -> None:
    """What is left when a sequence is taken out may be one; it is escaped."""
    assert of_pieces("\x1b\x1b[0m[8mhidden") == r"\x1b[8mhidden"


def test_a_log_that_ends_within_a_sequence_shows_it() -> None:
    """Nothing of a log is lost at its end, and a sequence without end is not waited for."""
    assert of_pieces("a\x1b[3") == r"a\x1b[3"
    assert of_pieces("a\r") == "a\n"
    assert ShownLog().show("\x1b[" + "1" * 40) == r"\x1b[" + "1" * 40


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1e-3", "1e-3"),
        (0.001, "0.001"),
        (True, "true"),
        (None, "null"),
        ({"name": "dmt", "k": "¼"}, '{"name": "dmt", "k": "¼"}'),
        ([1, "a"], '[1, "a"]'),
        (float("inf"), "Infinity"),
    ],
)
def test_a_value_has_the_text_that_mlflow_holds_of_it(value: object, text: str) -> None:
    """Parameters of runs that are there already may never change."""
    assert format_value(value) == text


def test_of_many_names_a_few_are_shown() -> None:
    """A line of ten thousand names tells how many there are."""
    names = [f"{number:04}" for number in range(10_000)]

    assert name_few(names[:3]) == "0000, 0001, 0002"
    assert name_few(names[:8]).endswith("0006, 0007")
    assert name_few(names, most=2) == "0000, 0001 and 9,998 more"
