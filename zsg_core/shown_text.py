"""Makes text of others safe to show: in a terminal, on a page, in a log.

Texts of profiles, grids, data, model folders, judges and Slurm may hold escapes that hide, colour or rewrite what a
terminal shows, and marks that turn the order of what is read. `make_showable` is the one function that all of them
pass before somebody sees them.
"""

LINE_ENDS_AND_TABS = "\n\t"


def make_showable(text: str, *, keep: str = LINE_ENDS_AND_TABS) -> str:
    r"""The text with every character that does not print written as its escape, such as `\x1b` or `\u202e`.

    `keep`: characters that stay although they do not print; "" for one line or one cell.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode()
