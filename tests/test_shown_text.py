"""Text of others is made safe before it is shown."""

import pytest

from zsg_core.shown_text import make_showable


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
    ],
)
def test_what_does_not_print_is_shown_by_its_escape(text: str, shown: str) -> None:
    """Escapes of a terminal, C1 controls, bidi marks and half characters; letters of all scripts stay."""
    assert make_showable(text) == shown


def test_a_cell_has_no_line_end() -> None:
    """With nothing kept, a line end and a tab are escaped too."""
    assert make_showable("a\nb\t", keep="") == r"a\nb\t"
