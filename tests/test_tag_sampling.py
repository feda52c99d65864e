"""Are few dialogues with many different tags chosen as InsTag chooses them?"""

from zsg_core.makers.tag_sampling import TagFigures, choose_diverse, measure_tags

ROWS = [["a"], ["a", "b", "c"], [], ["b", "c", "d"], ["a", "b"], ["e"], ["a", "e"]]


def test_the_most_complex_come_first_and_each_of_a_pass_brings_a_new_tag() -> None:
    """Pass one takes abc, bcd and ae; the rest waits for the second."""
    assert choose_diverse(ROWS, 3) == [1, 3, 6]
    assert choose_diverse(ROWS, 5) == [1, 3, 6, 4, 5]


def test_a_smaller_choice_is_the_beginning_of_a_larger_one() -> None:
    """So a sweep over sizes is nested."""
    whole = choose_diverse(ROWS, 99)

    assert all(choose_diverse(ROWS, count) == whole[:count] for count in range(8))


def test_dialogues_without_tags_are_never_chosen() -> None:
    """However many are asked for."""
    assert sorted(choose_diverse(ROWS, 99)) == [0, 1, 3, 4, 5, 6]


def test_complexity_and_diversity_are_the_papers_figures() -> None:
    """Tags of a dialogue on average, different tags of the set."""
    assert measure_tags(ROWS) == TagFigures(
        dialogues=7, complexity=12 / 7, diversity=5, untagged=1
    )
    assert measure_tags([]).complexity == 0
