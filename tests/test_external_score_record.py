"""Do answers leave a workspace whole, and do scores of them come back once, to where
they belong?"""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import answers, evaluations, item_losses, leases
from jobs.contract import journal as journals
from jobs.contract.attempt import Attempt
from jobs.contract.folder import Workspace
from jobs.contract.journal import Journal
from jobs.evaluating import external_score_record
from tests.lib.command_line import Zsg
from tests.lib.job_records import write_job_file
from zsg_core.errors import BadData, ClusterError, UserError
from zsg_core.metrics.metrics import TEST_SET
from zsg_core.metrics.scoring import Answered

HOW = {"decoding": "greedy", "max_new_tokens": 8, "items": None}
ANSWERED = [
    Answered(
        id=f"{task}:{number}",
        task=task,
        prompt=f"[bold] :smile: {number}?\n",
        references=("x",),
        answer=f"é {number}",
    )
    for task, number in [("a", 0), ("a", 1), ("b", 0)]
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has answered its items at steps 0 and 40, as an
    evaluator leaves it."""
    folder = Workspace(tmp_path / "zsg-work").run("ab12cd34ef56")
    folder.mkdir(parents=True)
    write_job_file(folder, run_id=folder.name, stage_id="stage", before=[])
    ids = [
        one.id
        for one in [*ANSWERED[::-1], Answered(id="c:0", task="c", prompt="", answer="")]
    ]
    item_losses.describe_items(folder, ids, [item[0] for item in ids], [1] * 4, {})
    attempt = Attempt(1, "s", None, 0, uuid.uuid4().hex, "host", 0)
    journal = Journal(folder, attempt, journals.GUEST, "stage", fence=lambda: None)
    for step in (0, 40):
        answer(folder, journal, step, HOW)
    journal.close()
    return folder


def answer(run: Path, journal: Journal, step: int, how: dict[str, Any]) -> None:
    """What an evaluator journals of a step."""
    about = answers.Asked(step, TEST_SET, how)
    place = answers.keep_answers(
        run, journal.name, about, answers.Generation(), ANSWERED
    )
    told = {
        "event": "answers",
        "suite": TEST_SET,
        "how": how,
        "keys": ["rouge1"],
    }
    told |= {"file": place.file, "at": place.at, "bytes": place.size}
    journal.add_row("event", step=step, examples=16 * step, data=told)
    journal.add_row("metric", step=step, examples=16 * step, data={"rouge1": 12.5})


def points(run: Path) -> dict[tuple[str, int], float]:
    """The values of a run's journal that count, other than those of the evaluator."""
    found, disagree = journals.first_points(journals.read_journal(run))
    assert disagree == []
    return {(one.key, one.step): one.value for one in found if one.key != "rouge1"}


def test_answers_go_out_and_scores_come_back(zsg: Zsg, run: Path) -> None:
    """Each line that was exported comes back with a metric and a score; the second time
    nothing is added."""
    out = zsg("answers", "export", "ab12", "--step", "40")
    rows = [json.loads(line) for line in out.splitlines()]
    scored = [
        row | {"metric": "judge", "score": 10 * place} for place, row in enumerate(rows)
    ]
    file = zsg.write("scores.jsonl", "".join(json.dumps(row) + "\n" for row in scored))

    assert [(row["step"], row["id"], row["prompt"], row["answer"]) for row in rows] == [
        (40, one.id, one.prompt, one.answer) for one in ANSWERED
    ]
    assert "3 answers of 1 checkpoint" in zsg.said
    assert zsg("score", file) == "ab12cd34ef56 step 40: judge 12.5\n"
    assert points(run) == {("judge", 40): 12.5, ("judge_stderr", 40): 7.5}
    assert zsg("score", file) == "ab12cd34ef56 step 40: judge was there already\n"
    assert points(run) == {("judge", 40): 12.5, ("judge_stderr", 40): 7.5}


def test_answers_that_cannot_be_read_do_not_keep_the_others(
    zsg: Zsg, run: Path
) -> None:
    """All others are exported first; then the export fails with file and byte of each
    that is unreadable."""
    [file] = (run / answers.FOLDER).iterdir()
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"\0" * len(first) + second)

    out = zsg("answers", "export", "ab12", code=3)

    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["step"], row["id"]) for row in rows] == [
        (40, answered.id) for answered in ANSWERED
    ]
    assert "3 answers of 1 checkpoint" in zsg.said
    assert f"{file}: the answers at byte 0 cannot be read" in zsg.said


def test_scores_are_kept_by_item_and_tell_where_they_are_from(run: Path) -> None:
    """Items as those of a loss, by the test set's order; an item without a score is NaN
    and flagged."""
    scores, before = external_score_record.record_scores(
        run, 40, {"judge": {"b:0": 3, "a:0": 1}}, "scores.jsonl"
    )
    held = item_losses.read_test_losses(run, "judge")
    (kept,) = [told for told in answers.find_kept(run) if told.step == 40]

    assert (held.steps, held.ids) == ([40], ["b:0", "a:1", "a:0"])
    assert held.losses[0].tolist() == [3, pytest.approx(float("nan"), nan_ok=True), 1]
    assert (scores.flags, before) == (["judge: 1 of 3 items have no score"], [])
    assert kept.keys == ("rouge1", "judge")
    assert evaluations.collect_taken_keys(run)[40] == {
        "rouge1",
        "judge",
        "judge_stderr",
    }


def test_what_a_writer_left_that_was_killed_does_not_count(run: Path) -> None:
    """Its rows are written off by who takes its lease over; the lease of a writer that
    lives is respected."""
    path = leases.path_of(run, 40, external_score_record.SUITE)
    journal = external_score_record._journal(run, lambda: None)
    lease = leases.claim_lease(path, "zsg score", journal.name, ["judge"])
    journal.add_row("metric", step=40, examples=0, data={"other": 1.0})
    journal.commit()
    with pytest.raises(ClusterError, match="another `zsg score` is at it"):
        external_score_record.record_scores(run, 40, {"judge": {"a:0": 1}}, "s")
    leases.os.utime(path, (0, 0))  # it has given no sign of life for long
    external_score_record.record_scores(run, 40, {"judge": {"a:0": 1}}, "s")
    journal.add_row("metric", step=40, examples=0, data={"judge": 99.0})
    journal.close()

    assert lease is not None and not path.exists()
    assert points(run) == {("other", 40): 1.0, ("judge", 40): 1.0}


@pytest.mark.parametrize(
    ("step", "given", "error", "said"),
    [
        pytest.param(
            50,
            {"a:0": 1},
            UserError,
            "has no answers of step 50; there are of steps 0, 40",
            id="a step",
        ),
        pytest.param(
            40,
            {"a:9": 1},
            BadData,
            "step 40: m of 'a:9', of which there is no answer",
            id="an item",
        ),
        pytest.param(
            40,
            {"c:0": 1},
            BadData,
            "m of 'c:0'",
            id="an item of the test set that was not answered",
        ),
    ],
)
def test_scores_of_what_was_not_answered_are_refused(
    run: Path, step: int, given: dict[str, float], error: type[Exception], said: str
) -> None:
    """And nothing is written."""
    with pytest.raises(error, match=said):
        external_score_record.record_scores(run, step, {"m": given}, "s")

    assert points(run) == {}


def test_answers_made_in_two_ways_are_told_apart(run: Path) -> None:
    """A score does not say of which it is."""
    attempt = Attempt(2, "s", None, 0, uuid.uuid4().hex, "host", 0)
    journal = Journal(run, attempt, journals.GUEST, "stage", fence=lambda: None)
    answer(run, journal, 40, HOW | {"max_new_tokens": 16})
    journal.close()

    with pytest.raises(UserError, match="answers made in 2 ways"):
        external_score_record.record_scores(run, 40, {"m": {"a:0": 1}}, "s")


def test_a_workspace_without_answers_says_how_to_get_some(zsg: Zsg, run: Path) -> None:
    """No empty file that would pass for answers."""
    assert zsg("answers", "export", "ab12", "--step", "7", code=2) == ""
    assert (
        "no run has answers of step 7 yet" in zsg.said
        and "checkpoints.metrics" in zsg.said
    )
