"""Are values that an older zsg took told from those that zsg takes now, and only where
they are others?"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract import answers, evaluations, journal
from jobs.contract.attempt import Attempt
from jobs.contract.folder import Workspace
from jobs.contract.journal import Journal
from launcher.evaluation import metric_versions
from launcher.evaluation.evaluation_plan import (
    EvaluationState,
    add_evaluations,
    read_evaluation_state,
)
from launcher.grids.runs import Run
from launcher.planning.plan import Action, Allow, run_item
from launcher.workspace.job_state import JobState
from tests.lib.job_records import write_job_file
from tests.lib.planned_runs import a_run
from zsg_core.metrics.scoring import Answered
from zsg_core.suites import SINCE, SuiteFile

# The ways in which zsg at e79a027 took these keys.
OLD = {
    "rouge1": {"decoding": "greedy", "max_new_tokens": 128, "items": None},
    "gsm8k/flexible": {
        "decoding": "greedy",
        "max_new_tokens": 512,
        "items": None,
        "file": "g",
    },
    "rank_accuracy": {
        "options": "published",
        "chosen_by": "least loss, summed over tokens",
    },
}
WANTED = {
    "every": 10,
    "snapshots": 10,
    "metrics": ["rouge1", "gsm8k/flexible", "rank_accuracy"],
    "suites": {"gsm8k": {"path": "g.jsonl"}},
}
SUITE = {"rouge1": "test_set", "gsm8k/flexible": "gsm8k"}


def run(template: str = "zsg", order: str = "random", **generation: Any) -> Run:
    """A run that wants the metrics."""
    data = {"template": template, "set": "p3"}
    made = a_run(order, data=data, checkpoints={**WANTED, "generation": generation})
    return replace(made, suite_files={"gsm8k": SuiteFile("/g.jsonl", "g")})


def taken(
    place: Workspace, of: Run, ways: dict[str, dict[str, Any]], step: int = 10
) -> None:
    """Journals that an evaluator has taken the keys in these ways."""
    folder = place.run(of.id)
    (folder / "journal").mkdir(parents=True, exist_ok=True)
    if not (folder / "job.json").exists():
        write_job_file(folder, stage_id="1", before=[])
    number = len(journal.guest_files(folder))
    writer = Attempt(1, "e", None, 0, "n", "h", 0, 1)
    rows = Journal(folder, writer, journal.GUEST, "1", number, fence=lambda: None)
    for key, way in ways.items():
        if key == "rank_accuracy":
            told = {"event": "representations", "ways": {key: way}}
        else:
            item = Answered(
                id="a:0", task="a", prompt="p", references=("red",), answer="red"
            )
            suite = SUITE[re.sub(r"/v\d$", "", key)]
            about = answers.Asked(step, suite, way)
            kept = answers.keep_answers(
                folder, rows.name, about, answers.Generation(), [item]
            )
            told = {
                "event": "answers",
                "suite": suite,
                "how": way,
                "keys": [key],
            }
            told |= {"file": kept.file, "at": kept.at, "bytes": kept.size, "flags": []}
        rows.add_row("event", step=step, examples=80, data=told)
        rows.add_row("metric", step=step, examples=80, data={key: 50.0})
    rows.commit()
    rows.close()


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path)


def keys(of: Run) -> list[str]:
    """What evaluators take of a run."""
    return [key for suite in of.suites for key in suite.keys]


def test_what_an_older_zsg_took_gets_another_name_in_all_runs_of_the_grid(
    place: Workspace,
) -> None:
    """Also in those that are new: a page compares runs under one key."""
    old, new = run(), run(order="round_robin")
    taken(place, old, OLD)
    runs, notes = metric_versions.name_older_metrics(place, [old, new])

    assert [keys(one) for one in runs] == [
        ["rouge1/v2", "gsm8k/flexible/v2", "rank_accuracy"]
    ] * 2
    assert [one.id for one in runs] == [old.id, new.id]
    assert (
        len(notes) == 2
        and "rouge1 was taken by an older zsg" in notes[0]
        and "rouge1/v2" in notes[0]
    )


def test_drawn_answers_get_a_name_that_no_older_zsg_used(place: Workspace) -> None:
    """Values of two older ways may be there, the second under v2; greedy answers keep theirs."""
    old = run(preset="paper")
    now = old.suites[0].how
    streamed = {name: value for name, value in now.items() if name != "drawn"}
    first = {name: value for name, value in now.items() if name not in SINCE}
    taken(place, old, {"rouge1": streamed})
    [second], notes = metric_versions.name_older_metrics(place, [old])
    assert keys(second)[0] == "rouge1/v2" and "name v2: rouge1/v2" in notes[0]

    older = run(preset="paper", order="round_robin")
    taken(place, older, {"rouge1": first})
    taken(place, older, {"rouge1/v2": streamed}, step=20)
    both, notes = metric_versions.name_older_metrics(place, [old, older])
    assert [keys(one)[0] for one in both] == ["rouge1/v3"] * 2
    assert "name v3: rouge1/v3" in notes[0]
    taken(place, older, {"rouge1/v3": now}, step=30)
    again, _ = metric_versions.name_older_metrics(place, [old, older])
    assert [keys(one)[0] for one in again] == ["rouge1/v3"] * 2


def test_options_after_a_blank_are_compared_anew_under_plain_alone(
    place: Workspace,
) -> None:
    """Under any other template their prompts were the same: their old values are those of today."""
    for template, named in (("plain", "rank_accuracy/v2"), ("llama2", "rank_accuracy")):
        taken(place, one := run(template), {"rank_accuracy": OLD["rank_accuracy"]})

        assert keys(metric_versions.name_older_metrics(place, [one])[0][0])[-1] == named


def test_what_was_taken_as_now_keeps_its_name(place: Workspace) -> None:
    """And so does what was never taken, and what was taken by other settings of the user's own."""
    own = run()
    taken(
        place,
        own,
        {key: suite.find_definition(key) for suite in own.suites for key in suite.keys},
    )

    assert metric_versions.name_older_metrics(
        place, [own, run(order="round_robin")]
    ) == (
        [own, run(order="round_robin")],
        [],
    )
    longer = run(max_new_tokens=9)
    # in the folder of the same run, whose answers were longer
    taken(place, longer, {"rouge1": OLD["rouge1"]})
    assert (
        keys(metric_versions.name_older_metrics(place, [longer])[0][0])[0] == "rouge1"
    )


def test_old_answers_serve_no_new_key_and_all_cells_are_asked_for(
    place: Workspace,
) -> None:
    """A resubmit of an older workspace evaluates its snapshots anew; nothing made
    otherwise is scored again."""
    old = run()
    taken(place, old, OLD)
    (place.run(old.id) / "snapshots" / "10").mkdir(parents=True)
    [own], _ = metric_versions.name_older_metrics(place, [old])
    found = read_evaluation_state(place, own)
    done = JobState(state="done", steps=10)
    [action] = add_evaluations(
        [Action(own, "skip", "already done")],
        {run_item(own): done},
        Allow(),
        {own.id: found},
        {},
    )

    assert found.answered == frozenset()
    assert (
        action.kind == "evaluate" and "rouge1/v2 and gsm8k/flexible/v2" in action.reason
    )
    assert isinstance(found, EvaluationState) and found.taken[10] == {
        "rouge1",
        "gsm8k/flexible",
        "rank_accuracy",
    }


def damage_line(place: Workspace, of: Run, kind: str, key: str) -> Path:
    """Makes the rows of a kind that tell of a key unreadable, in place."""
    [path] = journal.guest_files(place.run(of.id))
    lines = path.read_bytes().splitlines(keepends=True)
    hit = [
        json.loads(line)["kind"] == kind and f'"{key}"'.encode() in line
        for line in lines
    ]
    assert any(hit)
    path.write_bytes(
        b"".join(
            b"\0" * (len(line) - 1) + b"\n" if is_hit else line
            for line, is_hit in zip(lines, hit, strict=True)
        )
    )
    return path


@pytest.mark.parametrize("kind", ["event", "metric"])
def test_a_damaged_row_of_one_run_lets_no_other_be_taken_under_an_older_key(
    place: Workspace, kind: str
) -> None:
    """What the sound rows tell counts; where none tells how a value was taken, it may
    be an older zsg's."""
    old, new = run(), run(order="round_robin")
    taken(place, old, OLD)
    damage_line(place, old, kind, "rouge1")
    runs, notes = metric_versions.name_older_metrics(place, [old, new])

    assert [keys(one) for one in runs] == [
        ["rouge1/v2", "gsm8k/flexible/v2", "rank_accuracy"]
    ] * 2
    assert any("how rouge1 of" in note for note in notes) == (kind == "event")


def test_a_damaged_row_renames_nothing_that_was_taken_as_now(place: Workspace) -> None:
    """The other rows of the key tell how it was taken."""
    first, second = run(), run(order="round_robin")
    now = {
        key: suite.find_definition(key) for suite in first.suites for key in suite.keys
    }
    taken(
        place, first, {"rouge1": now["rouge1"], "rank_accuracy": now["rank_accuracy"]}
    )
    damage_line(place, first, "metric", "rouge1")
    runs, notes = metric_versions.name_older_metrics(place, [first, second])

    assert [keys(one) for one in runs] == [keys(first), keys(second)]
    assert notes == []


def test_a_damaged_row_names_its_file_where_a_key_is_renamed_for_it(
    place: Workspace,
) -> None:
    """She learns which file to look at."""
    first = run()
    now = {
        key: suite.find_definition(key) for suite in first.suites for key in suite.keys
    }
    taken(place, first, {"rouge1": now["rouge1"]})
    path = damage_line(place, first, "event", "rouge1")
    _, notes = metric_versions.name_older_metrics(place, [first])

    assert notes[0].startswith(f"{path}: ") and "how rouge1 of" in notes[0]


def test_a_second_submit_asks_for_the_same_keys(place: Workspace) -> None:
    """Once they are taken, under the names that they have by then."""
    old = run()
    taken(place, old, OLD)
    [own], _ = metric_versions.name_older_metrics(place, [old])
    taken(
        place,
        own,
        {
            key: suite.find_definition(key)
            for suite in own.suites
            for key in suite.keys
            if key in ("rouge1/v2",)
        },
    )
    [again], _ = metric_versions.name_older_metrics(place, [old])

    assert keys(again) == keys(own)
    assert evaluations.collect_key_ways(place.run(old.id))["rouge1"] == OLD["rouge1"]


def test_answers_that_were_made_anew_are_those_that_are_exported_and_scored(
    place: Workspace,
) -> None:
    """Not the older ones of the same items beside them; alone, the older are."""
    old = run()
    taken(place, old, {"rouge1": OLD["rouge1"]})
    folder, new = place.run(old.id), old.suites[0].how
    current = answers.select_current(answers.find_kept(folder))
    assert [one.how for one in current] == [OLD["rouge1"]]
    taken(place, old, {"rouge1": new})

    current = answers.select_current(answers.find_kept(folder))
    assert [one.how for one in current] == [new]


def test_every_mark_of_a_way_is_known() -> None:
    """A way without what is told of zsg itself is that of e79a027, to the letter."""
    for template in ("zsg", "vicuna", "llama2", "plain"):
        for suite in run(template).suites:
            for key in suite.keys:
                assert {
                    name: of
                    for name, of in suite.find_definition(key).items()
                    if name not in SINCE
                } == OLD[key]
    assert msgspec.to_builtins(list(run().suites))
