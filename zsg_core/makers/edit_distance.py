"""Counts the edits between two texts: insertions, deletions and substitutions of single
characters (Levenshtein 1966)."""


def count_edits(left: str, right: str) -> int:
    """The least number of edits that make one text of the other.

    A column of the table of distances is held in two whole numbers, a bit for each
    character of `left`, that say where it rises and falls by one (Myers 1999, in the
    form of Hyyrö 2003): so a step of a whole column is a dozen operations.
    """
    if not left:
        return len(right)
    places = _find_places(left)
    every = (1 << len(left)) - 1
    last = 1 << (len(left) - 1)
    rises = every
    falls = 0
    distance = len(left)
    for character in right:
        equal = places.get(character, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal | falls
        right_rises = falls | (~(diagonal | rises) & every)
        right_falls = rises & diagonal
        if right_rises & last:
            distance += 1
        elif right_falls & last:
            distance -= 1
        right_rises = ((right_rises << 1) | 1) & every
        right_falls = (right_falls << 1) & every
        rises = right_falls | (~(diagonal | right_rises) & every)
        falls = right_rises & diagonal
    return distance


def _find_places(text: str) -> dict[str, int]:
    """By character a bit for each place where it stands."""
    places: dict[str, int] = {}
    for number, character in enumerate(text):
        places[character] = places.get(character, 0) | (1 << number)
    return places
