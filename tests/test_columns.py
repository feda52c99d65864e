"""Are long tables laid out so that a person and a script can read them?"""

from launcher.views.columns import format_columns


def test_columns_are_as_wide_as_what_is_shown() -> None:
    """Wide characters count as two, the last column ends where its text does."""
    text = format_columns(["run", "why"], [["a", "new"], ["数据", "already done"]])

    assert text == "run  why\na    new\n数据 already done"


def test_a_cell_never_breaks_its_line() -> None:
    """Line breaks and marks that turn the writing are shown, not obeyed."""
    assert format_columns(["a", "b"], [["x\ny", "\u202ez"]]) == "a    b\nx\\ny \\u202ez"
