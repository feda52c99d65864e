"""Does a plan say whom a maker asks, how often, at what cost, and which key it needs?"""

import json
from pathlib import Path

import pytest

from jobs.contract import job_file
from jobs.contract.exit_record import replace_unset
from jobs.contract.job_file import SampleJob
from launcher.planning import admission, effects, job_lines
from launcher.planning.plan import Allow, Plan
from launcher.submission import job_files, workflow
from launcher.submission.submit_plan import SubmitPlanner
from launcher.workspace.ledger import Ledger
from tests.lib.published_llamas import remember, write_model
from zsg_core.errors import UserError

GRID = """
name: made
defaults:
  model: {name: tiny, hidden: 32, layers: 2, heads: 2, vocab: 400}
  data:
    sources:
      math: {set: gsm8k, path: math.jsonl, make: MAKE}
      task: {set: gsm8k, path: math.jsonl, test_path: math.jsonl}
  train: {batch: 8, steps: 2, max_length: 64, precision: fp32}
  checkpoints: {every: 2}
grid: {seed: [0, 1]}
"""
SERVED = (
    "{rft: {samples: 3, max_new_tokens: 8, items: 4}, by: {base_url: 'https://x.example/v1',"
    " model: teacher, key_env: X_API_KEY, price_read: 1, price_written: 2, budget: 1}}"
)


class Planned:
    """A grid of two seeds with a made source, opened and planned."""

    def __init__(self, folder: Path, make: str, profile: str = "local") -> None:
        rows = [
            {
                "question": f"What is {number}?",
                "answer": f"It is {number}.\n#### {number}",
            }
            for number in range(6)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "math.jsonl").write_text(text)
        path = folder / "grid.yaml"
        path.write_text(GRID.replace("MAKE", make))
        self.opened = workflow.open_grid(path, profile, folder / "work")
        self.ledger = Ledger(self.opened.site.workspace)

    def plan(self) -> Plan:
        return SubmitPlanner(
            self.opened.site,
            self.opened.grid,
            self.opened.runs,
            self.ledger,
            Allow(),
        ).plan_submit()

    def describe_jobs(self) -> list[str]:
        lines = job_lines.describe_jobs(
            self.plan(), self.opened.site.profile, self.opened.estimates.of
        )
        return [line.words for line in lines]


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Of a server with a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("X_API_KEY", "sk-0123456789")
    return Planned(tmp_path, SERVED)


def test_a_plan_says_how_often_a_server_is_asked_and_at_what_cost(
    planned: Planned,
) -> None:
    """By the requests that the job will write; a byte that is read is a token."""
    first = planned.describe_jobs()[0]

    # 4 items of 10 bytes and 16 tokens around them, three times
    assert first == (
        "1 job: make.rft of source math asks teacher at https://x.example/v1 12 times, of 4"
        " items, for at most 8 tokens each: 96 tokens written at most, a cost of 0.000504 at"
        " most, with a token for each byte that is read; the budget is 1, ≤ 60 min"
    )


def test_runs_of_all_seeds_share_one_set(planned: Planned) -> None:
    """One job makes it, before those that order it; it takes no GPU and makes no model."""
    plan = planned.plan()
    [asks] = [prepare for prepare in plan.prepares if prepare.maker is not None]
    others = [prepare for prepare in plan.prepares if prepare is not asks]

    assert [item.partition("/")[0] for item in asks.makes] == ["records"]
    assert (asks.on_gpus, asks.maker, asks.server) == (False, "rft", "teacher")
    assert others and all(asks.item in prepare.after for prepare in others)


def test_the_job_is_told_the_server_and_never_its_key(planned: Planned) -> None:
    """Only the name of the variable."""
    plan, site = planned.plan(), planned.opened.site
    [asks] = [prepare for prepare in plan.prepares if prepare.maker is not None]
    job_files.write_prepare(site.workspace, asks, site.profile, "0123abcd")
    job = job_file.read_job(site.workspace.root / asks.item)

    assert isinstance(job, SampleJob)
    [sample] = job.samples
    server = replace_unset(sample.server)
    assert (server.base_url, server.model, server.budget) == (
        "https://x.example/v1",
        "teacher",
        1,
    )
    assert job.key_variables == ["X_API_KEY"]
    assert (
        "sk-0123456789"
        not in job_file.job_path(site.workspace.root / asks.item).read_text()
    )


def test_what_is_sent_away_is_told(planned: Planned) -> None:
    """As of a judge."""
    opened = planned.opened
    told = [effect.what for effect in effects._list_servers(opened.grid, opened.runs)]

    assert told == [
        "make: texts of source math are sent to https://x.example/v1 with the value of"
        " X_API_KEY"
    ]


def test_a_missing_key_is_an_objection(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the setting that names the variable."""
    monkeypatch.delenv("X_API_KEY")
    faults = admission._check_asked_keys(planned.plan())

    assert faults == [
        "X_API_KEY, which data.sources.math.make.by.key_env names, is not set here; export it"
    ]


def test_the_runs_own_model_is_made_where_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny one by the same job; the most examples are samples and gold."""
    monkeypatch.chdir(tmp_path)
    planned = Planned(tmp_path, "{rft: {samples: 3, max_new_tokens: 8}}")
    # each seed has a model of its own
    asks, _ = [each for each in planned.plan().prepares if each.maker is not None]

    assert sorted(item.partition("/")[0] for item in asks.makes) == ["bases", "records"]
    assert asks.on_gpus
    assert (
        "asks the run's own model, tiny 18 times, of 6 items"
        in (planned.describe_jobs()[0])
    )


def test_a_folder_that_is_no_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its key, at plan."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.sources\.math\.make\.by\.path"):
        Planned(tmp_path, "{rft: {}, by: {path: nowhere}}")


REWORDED = (
    "{paraphrases: {rounds: 3, max_new_tokens: 8}, by: {base_url: 'https://x.example/v1',"
    " model: teacher}}"
)


def test_rounds_that_depend_on_replies_are_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of six questions may be asked three times."""
    monkeypatch.chdir(tmp_path)
    first = Planned(tmp_path, REWORDED).describe_jobs()[0]

    assert "about 18 times, of 6 items, for at most 8 tokens each: 144 tokens" in first


@pytest.mark.parametrize(
    ("make", "package"),
    [
        (REWORDED, "rouge_score"),
        (REWORDED.replace("paraphrases: {rounds: 3, ", "instag: {"), "nltk"),
    ],
)
def test_packages_that_read_the_replies_are_looked_for(
    make: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody is asked."""
    monkeypatch.chdir(tmp_path)
    looked: list[str] = []
    monkeypatch.setattr(
        admission.extras,
        "find_missing",
        lambda modules: [looked.extend(modules)] and [],
    )
    admission.find_missing_packages(Planned(tmp_path, make).plan())

    assert package in looked


def test_a_model_of_a_folder_that_does_not_fit_a_gpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its size, and what would make it fit; one that fits is planned."""
    monkeypatch.chdir(tmp_path)
    remember(
        tmp_path / "work",
        write_model(tmp_path / "large", "33B"),
        write_model(tmp_path / "small", "7B"),
    )
    make = "{rft: {samples: 3, max_new_tokens: 8}, by: {path: FOLDER}}"
    told = (
        r"cannot have source math made: its job needs 1\d\d\.\d GB .*evaluate.gpus: 2"
    )
    with pytest.raises(UserError, match=told):
        Planned(tmp_path, make.replace("FOLDER", "large"), "a100-80g")
    planned = Planned(tmp_path, make.replace("FOLDER", "small"), "a100-80g")

    assert any("asks the model in" in line for line in planned.describe_jobs())


def test_a_model_with_a_long_context_that_fits_a_gpu_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No prompt of a maker's is as long as the context, which alone would not fit."""
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "long", "7B")
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 1 << 20
    (folder / "config.json").write_text(json.dumps(config))
    remember(tmp_path / "work", folder)
    make = "{rft: {samples: 3, max_new_tokens: 8}, by: {path: long}}"
    planned = Planned(tmp_path, make, "a100-80g")

    assert any("asks the model in" in line for line in planned.describe_jobs())


@pytest.mark.parametrize(("tokens", "is_told"), [(24, True), (512, False)])
def test_a_limit_that_cuts_every_tag_off_is_told(
    tokens: int, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what a tag takes; the published limit needs no word."""
    monkeypatch.chdir(tmp_path)
    planned = Planned(tmp_path, f"{{instag: {{max_new_tokens: {tokens}}}}}")
    line = planned.describe_jobs()[0]

    assert ("a reply that is cut has no tags" in line) == is_told
