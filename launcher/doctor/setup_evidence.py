"""Says which setup line failed in words that may be sent to others: a line may hold a
key, by whatever program it is given to. Pure."""

import re
from collections.abc import Iterator

from zsg_core.secrets import HIDDEN

# how what is said of a line begins, and what follows it: of jobs.runtime.setup
_HEAD = re.compile(r"setup line \d+ of \d+ (?:ended with \S+|is the last that began): ")
PRINTED = " (it printed"
# what is given to these is no key
_HARMLESS = re.compile(
    r"(?:module|ml|source|\.|cd|ulimit|test|mkdir|spack load|(?:micro)?(?:conda|mamba) activate)"
    r"(?: [\w./+~:-]+)+"
)
_NAME_ALONE = re.compile(r"[\w./+~-]+")
_ASSIGNS = re.compile(r"(?:export +)?[A-Za-z_]\w*=")
_BETWEEN_WORDS = re.compile(r"[\s'\"=;|&()<>`$,:@]+")
SHORTEST_KEY = 8  # a shorter word could be any of a message
NO_KEY = ("/", "~", ".", "-")  # with which paths and options begin


def hide_arguments(evidence: str) -> str:
    """What is said of a setup line that failed, with the program's name in place of the
    line, and without the line's words in what it printed. A line that is known to hold
    no key stays whole, and so does any other text."""
    match = _HEAD.search(evidence)
    if match is None:
        return evidence
    # the last counts: what a line prints may look like this, too
    line, sign, printed = evidence[match.end() :].rpartition(PRINTED)
    if not sign:
        line, printed = printed, ""
    line = line.strip()
    if _HARMLESS.fullmatch(line):
        return evidence
    for word in _list_possible_keys(line):
        printed = printed.replace(word, HIDDEN)
    return f"{evidence[: match.end()]}{_name_program(line)}{sign}{printed}"


def _name_program(line: str) -> str:
    """The first word of a line; of one that begins with a variable, its name."""
    assigned = _ASSIGNS.match(line)
    if assigned:
        return f"{assigned[0]}{HIDDEN}"
    program = _NAME_ALONE.match(line)
    if program is None:
        return HIDDEN
    return line if program[0] == line else f"{program[0]} {HIDDEN}"


def _list_possible_keys(line: str) -> Iterator[str]:
    """The words behind the first that are as long as keys are."""
    for word in _BETWEEN_WORDS.split(line)[1:]:
        if len(word) >= SHORTEST_KEY and not word.startswith(NO_KEY):
            yield word
