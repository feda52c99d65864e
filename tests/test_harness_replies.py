"""Is what weights said to the harness' requests taken again for the same weights, step and
way of asking, and for no others?"""

from pathlib import Path
from typing import Any

from msgspec import to_builtins

from jobs.contract import attempt as attempts
from jobs.contract import harness_outputs
from jobs.contract import journal as journals
from jobs.contract.folder import Workspace
from jobs.contract.harness_outputs import HarnessLine
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import InsideTaken
from jobs.evaluating.harness_replies import HeldReplies, digest_request, read_replies

HOW = {"limit": 3, "chat": "none", "ends": [5]}
PAIR = digest_request(("a", " b"))
TEXT = digest_request(("a", {"until": ["\n"]}))


def refuse(missing: object) -> Any:
    raise AssertionError(f"{missing} are asked again")


def make_items(*replies: Any) -> list[dict[str, Any]]:
    """Items of one request each, as they are kept."""
    return [
        {"task": "t", "doc_id": number, "requests": [PAIR], "resps": [[reply]]}
        for number, reply in enumerate(replies)
    ]


def journal_items(run: Path, step: int, weights: str, items: list[Any]) -> None:
    """What an evaluate job keeps of one key at a step."""
    attempt = attempts.begin_attempt(run, "s")
    journal = Journal(run, attempt, journals.GUEST, "evaluate")
    line = HarnessLine(step=step, key="lm_eval/t", digest="d", items=items)
    place = harness_outputs.keep_outputs(run, journal.name, line)
    event = InsideTaken(
        ways={"lm_eval/t": HOW | {"task": "t"}},
        files=[{"file": "inside/x"}, to_builtins(place)],
        weights=weights,
    )
    journal.add_event(event, step=step, examples=0)
    journal.close()


def test_replies_are_of_one_step_of_one_way(tmp_path: Path) -> None:
    """Other weights, another step and another way of asking have none of them."""
    run = Workspace(tmp_path).run("r")
    journal_items(run, 4, "w", make_items((-1.5, False)))
    found = read_replies(run, 4, "w", HOW)

    assert found.answer([PAIR], refuse) == [(-1.5, False)]
    for step, weights, how in (
        (5, "w", HOW),
        (4, "v", HOW),
        (4, "w", HOW | {"limit": 4}),
    ):
        other = read_replies(run, step, weights, how)
        assert other.answer([PAIR], lambda missing: [(0.0, True)]) == [(0.0, True)]


def test_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    """A request that comes three times, as of samples, has three replies in their order;
    a likelihood that was not finite is asked again, and so is what cannot be read."""
    run = Workspace(tmp_path).run("r")
    journal_items(run, 4, "w", make_items((-1.0, True), (float("nan"), False)))
    (run / "lm_eval" / "strange").write_bytes(b"")
    found = read_replies(run, 4, "w", HOW)
    asked: list[list[int]] = []

    def answer(missing: Any) -> list[Any]:
        asked.append(list(missing))
        return [f"text {index}" for index in missing]

    digests = [PAIR, TEXT, PAIR, TEXT]
    replies = [(-1.0, True), "text 1", "text 2", "text 3"]
    assert found.answer(digests, answer) == replies
    assert found.answer(digests, refuse) == replies
    assert (asked, found.reused) == ([[1, 2, 3]], 4)
    [line] = (run / "lm_eval").glob("*evaluate*")
    line.write_bytes(b"{}")
    lost = read_replies(run, 4, "w", HOW)
    assert lost.answer([PAIR], answer) == ["text 0"]


def test_what_an_older_zsg_kept_is_asked_again() -> None:
    """It did not say what was asked."""
    held = HeldReplies()
    held.keep_items([{"task": "t", "doc_id": 0, "resps": [[[-1.0, True]]]}])
    assert held.answer([PAIR], lambda missing: [(-2.0, False)]) == [(-2.0, False)]
