"""Are the summaries that papers give what a hand comes to: over prompts, of sources and
tasks, the normalised average?"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.report import listed_run, write_grid
from jobs.contract import attempt as attempts
from jobs.contract import item_losses
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun, Summaries
from jobs.contract.journal import Journal
from jobs.contract.states import Outcome
from jobs.deciding.recorded_runs import RecordedRun
from jobs.tracking import mlflow_sync
from launcher.grids import grid, kept_summaries
from launcher.reporting import report
from launcher.reporting.data import verdicts
from launcher.reporting.data.grid_comparison import ReportOptions
from tests.lib.grown_journals import write_grid as write_mlflow_grid
from tests.lib.grown_journals import write_job
from tests.lib.mlflow_contents import child_runs
from zsg_core.errors import UserError
from zsg_core.metrics import means, summaries
from zsg_core.metrics.summaries import AVERAGE

# accuracies of prompts: the arithmetic of T0's figures 4 to 6, by hand
NLI = [52.0, 61.0, 47.0, 58.0, 55.0]
COPA = [70.0, 66.0, 74.0, 69.0]
WIC = [51.0]
TASKS = [
    *(f"super_glue_rte_prompt{number}" for number in range(len(NLI))),
    *(f"super_glue_copa_prompt{number}" for number in range(len(COPA))),
    "my_own_set",
]
STEPS = [0, 10]
KEY = "rank_accuracy"


def record_scores(
    place: Workspace, run: str, tasks: list[str], scores: Any, key: str = KEY
) -> None:
    """A run that is done, with a score of each item at each step."""
    folder = place.run(run)
    attempt = attempts.begin_attempt(folder, "submission")
    ids = [f"{task}:{number}" for number, task in enumerate(tasks)]
    places = list(range(len(tasks)))
    item_losses.describe_items(folder, ids, tasks, [1] * len(tasks), {key: places})
    journal = Journal(folder, attempt, "train", "1")
    for step, of_items in zip(STEPS, np.asarray(scores), strict=True):
        item_losses.journal_item_losses(
            journal, key, of_items, step=step, examples=16 * step
        )
        value = means.compute_means(of_items[:, None], tasks, over_items=False)
        journal.add_row("metric", step=step, examples=16 * step, data={key: value[0]})
    journal.close()
    attempts.end_attempt(folder, attempt, Outcome.DONE, step=STEPS[-1])


def read_run(
    place: Workspace, run: str, settings: Summaries | None = None
) -> RecordedRun:
    """The run as its folder tells."""
    listed = ListedRun(run=run, axes={}, recipe=listed_run(run, {})["recipe"])
    return RecordedRun(place, listed, summaries=settings)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace whose run r has the accuracies of three data sets' prompts: none at
    step 0, those of the hand at step 10."""
    place = Workspace(tmp_path)
    by_hand = [*NLI, *COPA, *WIC]
    record_scores(place, "r", TASKS, [[0.0] * len(by_hand), by_hand])
    return place


@pytest.mark.parametrize(
    ("kind", "of_sets"),
    [
        ("median", [55.0, 69.5, 51.0]),
        ("q1", [52.0, 68.25, 51.0]),
        ("q3", [58.0, 71.0, 51.0]),
        ("iqr", [6.0, 2.75, 0.0]),
        ("mean", [54.6, 69.75, 51.0]),
    ],
)
def test_quartiles_over_the_prompts_of_a_data_set_are_those_of_the_hand(
    place: Workspace, kind: str, of_sets: list[float]
) -> None:
    """Quartiles by linear interpolation; the value of the metric is the mean over data
    sets: of the medians 58.5."""
    run = read_run(place, "r")
    items = run.items(f"prompts/{kind}/{KEY}")
    assert items is not None
    assert items.ids == ["super_glue_rte", "super_glue_copa", "my_own_set"]
    assert items.losses[-1].tolist() == pytest.approx(of_sets)
    points = run.points(f"prompts/{kind}/{KEY}")
    assert points[10].value == pytest.approx(np.mean(of_sets))
    assert points[10].examples == 160
    assert points[0].value == 0


def test_a_prompt_without_a_value_is_left_out_where_it_has_none() -> None:
    """The median of the two that have one; no number where none has."""
    values = np.array([[10.0, np.nan, 30.0], [np.nan] * 3])
    found = summaries.summarize_prompts(values, "median")
    assert found[0] == 20
    assert np.isnan(found[1])


def test_data_sets_are_t0_s_or_those_that_the_grid_names() -> None:
    """By how tasks' names begin, also behind the name of a source; by patterns; a task
    that none of them names is a set of its own."""
    tasks = ["p3/super_glue_rte_GPT", "p3/super_glue_rte_MNLI", "p3/other"]
    assert summaries.group_prompts(tasks) == {
        "p3/super_glue_rte": [0, 1],
        "p3/other": [2],
    }
    own = summaries.group_prompts(["a_1", "b", "a_2"], {"mine": ["a_*"]})
    assert own == {"mine": [0, 2], "b": [1]}


def test_a_source_and_a_task_have_values_of_their_own(tmp_path: Path) -> None:
    """A source's is the mean over its tasks, as the metric's own; a task's name may have
    slashes, as may the metric's key."""
    place = Workspace(tmp_path)
    tasks = ["math/add", "math/add", "math/mul:1.0", "chat/hello"]
    key = "rouge1/mine"
    record_scores(place, "r", tasks, [[0] * 4, [10, 30, 60, 100]], key)
    run = read_run(place, "r")

    assert run.points(f"source/math/{key}")[10].value == 40
    assert run.points(f"source/chat/{key}")[10].value == 100
    assert run.points(f"task/math/mul:1.0/{key}")[10].value == 60
    assert run.points(f"task/math/none/{key}") == {}
    assert run.summary_keys() == [f"source/math/{key}", f"source/chat/{key}"]


def test_the_normalised_average_is_flan_palm_s() -> None:
    """Six suites against chance, by hand; below chance it is negative, not 0; of a suite
    that has no score there is none."""
    scores = {"a": 55.0, "b": 51.0, "c": 44.0, "d": 40.0, "e": 60.0, "f": 12.0}
    chances = {"a": 25.0, "b": 25.0, "c": 25.7, "d": 25.7, "e": 0.0, "f": 0.0}
    assert summaries.average_scores(scores, chances) == pytest.approx(31.757141)
    assert summaries.normalise_score(20, 25) == pytest.approx(-6.666667)
    assert summaries.average_scores({"a": 55.0}, chances) is None


def test_an_average_is_of_the_suites_that_a_grid_names(tmp_path: Path) -> None:
    """Its items are the suites' tasks, so that its table has a line for each suite."""
    place = Workspace(tmp_path)
    tasks = ["mmlu/law", "mmlu/art", "tydiqa/en"]
    record_scores(place, "r", tasks, [[25, 25, 0], [40, 70, 60]])
    settings = Summaries(
        averages={"ours": {f"source/mmlu/{KEY}": 25.0, f"source/tydiqa/{KEY}": 0.0}}
    )
    run = read_run(place, "r", settings)

    points = run.points("average/ours")
    assert [point.value for point in points.values()] == pytest.approx([0, 50])
    items = run.items("average/ours")
    assert items is not None
    names, by_suite = items.by_task()
    assert names == [f"source/mmlu/{KEY}", f"source/tydiqa/{KEY}"]
    assert by_suite[-1].tolist() == pytest.approx([40, 60])
    assert "average/ours" in run.summary_keys()


def test_an_average_that_would_be_of_itself_is_refused(tmp_path: Path) -> None:
    """Also where a record says it, which no plan has checked."""
    place = Workspace(tmp_path)
    record_scores(place, "r", ["a"], [[0], [1]])
    settings = Summaries(averages={"b": {f"task/a/source/x/task/y/{AVERAGE}/b": 0.0}})
    run = read_run(place, "r", settings)

    for ask in (run.points, run.items):
        with pytest.raises(UserError, match="not of other averages"):
            ask(f"{AVERAGE}/b")


def test_shares_of_the_harness_count_as_per_cent_in_an_average(tmp_path: Path) -> None:
    """An accuracy of 0.7 where a guess has 25 % is 60 % of the way; a perplexity is
    refused."""
    place = Workspace(tmp_path)
    key = "lm_eval/mmlu"
    record_scores(place, "r", ["law", "art"], [[0.25, 0.25], [0.6, 0.8]], key)
    run = read_run(place, "r", Summaries(averages={"ours": {key: 25.0}}))
    items = run.items(f"{AVERAGE}/ours")

    assert items is not None
    assert items.losses[-1].tolist() == pytest.approx([140 / 3, 220 / 3])
    assert run.points(f"{AVERAGE}/ours")[10].value == pytest.approx(60)
    with pytest.raises(UserError, match="from 0 to 1"):
        summaries.average_scores({"lm_eval/wikitext": 12.5}, {"lm_eval/wikitext": 0.0})


TOP = "name: g\ndefaults: {data: {path: tasks}}\n"


def test_the_page_has_each_data_set_with_its_quartiles_beside_the_paper_s(
    place: Workspace,
) -> None:
    """T0's row is found by the set's name; a set that the paper has not is a dash."""
    write_grid(place, "t0", [listed_run("r", {})])
    page = report.write_report(place, "t0", ReportOptions(metric=KEY))
    text = page.read_text(encoding="utf-8")
    section = text.partition("over the prompts of each data set")[2]
    rows = re.findall(r"<tr>(.*?)</tr>", section.partition("</table>")[0])
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in rows]
    assert [row for row in cells if row] == [
        ["super_glue_rte", "5", "55 (52 to 58)", "81.0 mean"],
        ["super_glue_copa", "4", "69.5 (68.25 to 71)", "91.5 mean"],
        ["my_own_set", "1", "51", "–"],
    ]


GRID = """\
name: averaged
defaults: {data: {path: tasks}}
grid: {arrangement.order: [nft, rt]}
summaries:
  averages: {ours: {source/mmlu/rank_accuracy: 25, exact_match: 0}}
claims:
  - {claim: rises, metric: METRIC, along: arrangement.order, values: [nft, rt]}
"""


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        ("average/ours", ""),
        ("prompts/median/loss", ""),
        ("task/a/b/loss", ""),
        ("average/theirs", "names no average 'theirs'"),
        ("prompts/mode/loss", "over prompts there are median, q1, q3"),
        ("prompts/median", "lacks the metric that it is of"),
        ("prompts/" * 40 + "loss", "at most 16 slashes"),
    ],
)
def test_a_claim_is_of_a_summary_that_there_can_be(
    tmp_path: Path, metric: str, problem: str
) -> None:
    """Told by plan, with the line, before anything is submitted."""
    file = tmp_path / "grid.yaml"
    file.write_text(GRID.replace("METRIC", metric), encoding="utf-8")
    if not problem:
        [claim] = grid.load_grid(file).claims
        assert claim.metric == metric
        return
    with pytest.raises(UserError, match=problem) as told:
        grid.load_grid(file)
    assert "grid.yaml:7" in str(told.value)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("averages: {a: {exact_match: 100}}", "less than 100"),
        ("averages: {a: {}}", "at least 1"),
        ("averages: {a: {average/b: 0}}", "names no average"),
        ("averages: {a: {task/x/average/a: 0}}", "not of other averages"),
        ("averages: {a: {loss/math: 0}}", "loss is none"),
        ("averages: {a: {task/x/mt_bench: 0}}", "mt_bench is none"),
        ("averages: [a]", "mapping"),
        ("average: {a: {exact_match: 0}}", "averages"),
        ("tracked: [loss]", "the key of no summary"),
        ("data_sets: {a: []}", "at least 1"),
    ],
)
def test_what_a_grid_says_of_summaries_is_checked(
    tmp_path: Path, said: str, problem: str
) -> None:
    """One sentence with the line."""
    file = tmp_path / "grid.yaml"
    file.write_text(f"{TOP}summaries:\n  {said}\n", encoding="utf-8")
    with pytest.raises(UserError, match=problem) as told:
        grid.load_grid(file)
    assert "grid.yaml:" in str(told.value)


def test_a_summary_that_was_submitted_keeps_its_meaning(tmp_path: Path) -> None:
    """Under another name anything goes; the record of a grid without any is as it was."""
    file = tmp_path / "grid.yaml"
    text = TOP + "summaries: {averages: {a: {exact_match: 0}}}\n"
    file.write_text(text, encoding="utf-8")
    first = grid.load_grid(file)
    kept = kept_summaries.make_record(first)
    earlier = GridRecord(name="g", runs=[], summaries=kept)
    assert kept_summaries.find_refusal(earlier, first) is None

    file.write_text(text.replace("exact_match: 0", "exact_match: 5"), encoding="utf-8")
    refusal = kept_summaries.find_refusal(earlier, grid.load_grid(file))
    assert "give the new one another name" in str(refusal)
    file.write_text(TOP, encoding="utf-8")
    without = kept_summaries.make_record(grid.load_grid(file))
    record = GridRecord(name="g", runs=[], summaries=without)
    assert b"summaries" not in msgspec.json.encode(record)


def test_claims_and_the_report_take_a_summary_as_any_metric(tmp_path: Path) -> None:
    """More prompts raise the median of each of eight data sets: the report has a line
    for each set, the claim its difference."""
    place = Workspace(tmp_path)
    names = ["rte", "copa", "wic", "cb", "boolq", "axg", "multirc", "record"]
    tasks = [f"super_glue_{name}_p{number}" for name in names for number in range(3)]
    listed = []
    for run, rise in (("one", 0.0), ("all", 5.0)):
        row = listed_run(run, {"data.templates": run})
        row["recipe"]["stages"][0]["data"]["templates"] = run
        listed.append(row)
        last = [50 + rise + place_of % 3 for place_of in range(len(tasks))]
        record_scores(place, run, tasks, [[0.0] * len(tasks), last])
    write_grid(place, "prompts", listed)

    metric = f"prompts/median/{KEY}"
    page = report.write_report(place, "prompts", ReportOptions(metric=metric))
    text = page.read_text(encoding="utf-8")
    assert f"{metric} by test task" in text
    assert text.count(">super_glue_") >= len(names)
    assert ">56<" in text

    question = {
        "claim": "rises",
        "metric": metric,
        "along": "data.templates",
        "values": ["one", "all"],
    }
    [judged] = verdicts.judge_question(place, "prompts", question)
    assert judged.verdict.tasks == len(names)
    assert judged.verdict.effects[0].found.value == pytest.approx(5)
    assert judged.verdict.word.startswith("supported")
    with pytest.raises(UserError, match="over prompts there are"):
        report.write_report(place, "prompts", ReportOptions(metric="prompts/x/loss"))


def test_mlflow_is_told_what_claims_and_averages_are_of(tmp_path: Path) -> None:
    """Once each, at the time of the values that they follow from; a median has its
    quartiles beside it, and nothing else comes."""
    work = tmp_path
    tasks = [*TASKS[:-1], "gsm"]
    run = write_job(work, "r").name
    scores = [*NLI, *COPA, 40.0]
    record_scores(Workspace(work), run, tasks, [[0.0] * len(tasks), scores])
    write_mlflow_grid(work, "grid", [run])
    file = work / "grids/grid/grid.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    claim = {"claim": "rises", "metric": f"prompts/median/{KEY}"}
    record["claims"] = [{"claim": json.dumps(claim), "since": 0, "done": 0}]
    record["summaries"] = {
        "averages": {"ours": {KEY: 20.0}},
        "tracked": [f"task/gsm/{KEY}"],
    }
    file.write_text(json.dumps(record), encoding="utf-8")

    sent = mlflow_sync.sync_grid(Workspace(work), "grid")
    # two steps of the metric itself and of five summaries
    assert sent == {"runs": 1, "points": 12}
    points = child_runs(work, "grid")[run]["points"]
    at_end = {key: value for key, step, value, _ in points if step == STEPS[-1]}
    assert at_end[f"prompts/median/{KEY}"] == pytest.approx((55 + 69.5 + 40) / 3)
    assert at_end[f"prompts/q1/{KEY}"] == pytest.approx((52 + 68.25 + 40) / 3)
    assert at_end[f"task/gsm/{KEY}"] == 40
    whole = at_end[KEY]
    assert at_end["average/ours"] == pytest.approx(100 * (whole - 20) / 80)
    times = {(step, ts) for _, step, _, ts in points}
    assert len(times) == len(STEPS)
    again = mlflow_sync.sync_grid(Workspace(work), "grid")
    assert again == {"runs": 0, "points": 0}
