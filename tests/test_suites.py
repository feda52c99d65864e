"""May a grid name a benchmark, what must it say of it, and what does that make evaluators do?"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from launcher.clusters import profiles
from launcher.clusters.profiles import Profile
from launcher.grids import suite_files
from launcher.grids.input_faults import InputFaults
from launcher.planning import admission
from launcher.planning.plan import Action, Plan
from tests.lib.planned_runs import a_run
from tests.lib.small_benchmarks import cut
from zsg_core import suites
from zsg_core.metrics import metrics
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import Suite, SuiteFile

JUDGE = {
    "base_url": "http://127.0.0.1:1/v1",
    "model": "gpt-4",
    "key_env": "JUDGE_API_KEY",
    "prompts": "p.jsonl",
}
WHOLE: dict[str, Any] = {
    "metrics": [
        "loss",
        "mt_bench",
        "rouge1",
        "reward",
        "gsm8k/strict",
        "humaneval/pass_at_1",
    ],
    "snapshots": 10,
    "reward_model": "rm",
    "suites": {
        "gsm8k": {"path": "gsm8k.jsonl", "items": 100},
        "humaneval": {"path": "HumanEval.jsonl.gz", "allow_code_execution": True},
        "mt_bench": {"path": "question.jsonl", "judge": JUDGE},
    },
}


def changed(path: str, value: Any, whole: dict[str, Any] = WHOLE) -> dict[str, Any]:
    """The settings with another value at a dotted place; None takes it out."""
    made = json.loads(json.dumps(whole))
    *above, last = path.split(".")
    place = made
    for name in above:
        place = place[name]
    place.pop(last) if value is None else place.update({last: value})
    return made


def wanted(settings: dict[str, Any], template: str = "zsg") -> dict[str, Suite]:
    """The suites that settings ask for, with digests that are their files' names."""
    asked = CheckpointSettings.model_validate(settings)
    files = {
        name: SuiteFile(f"/{given}", f"digest of {given}")
        for name, (_, given) in suites.find_needed_files(asked).items()
    }
    return {one.name: one for one in suites.select_suites(asked, files, template)}


MISTAKES = [
    (
        "suites.gsm8k",
        None,
        r"gsm8k/strict is of a benchmark.* set checkpoints\.suites\.gsm8k: \{path",
    ),
    (
        "metrics",
        ["rouge1", "reward", "gsm8k/strict", "mt_bench"],
        "suites.humaneval does nothing without a metric",
    ),
    ("reward_model", None, "metric reward and checkpoints.reward_model"),
    (
        "metrics",
        ["gsm8k/strict", "mt_bench", "humaneval/pass_at_1"],
        "metric reward and checkpoints.reward_model",
    ),
    (
        "suites.humaneval.allow_code_execution",
        None,
        "allow_code_execution: true.*zsg answers export",
    ),
    (
        "metrics",
        [*WHOLE["metrics"], "humaneval/pass_at_10"],
        "pass_at_10 needs 10 answers.*samples is 1",
    ),
    (
        "suites.humaneval",
        {"path": "h", "samples": 2, "temperature": 0.0},
        "all 2 samples are the same",
    ),
    ("suites.mt_bench.judge.base_url", "api.openai.com", "base_url"),
    ("suites.mt_bench.judge.key_env", "sk-not a name", "key_env"),
    ("snapshots", None, "set checkpoints.snapshots"),
    ("bleu", {"tokenize": "intl"}, "bleu does nothing without metric bleu"),
    ("bleu", {"tokenize": "flores200"}, "bleu.tokenize"),
]


@pytest.mark.parametrize(("path", "value", "said"), MISTAKES)
def test_what_a_metric_needs_and_lacks_is_said(
    path: str, value: Any, said: str
) -> None:
    """And what does nothing is refused; each with what to set."""
    with pytest.raises(ValidationError, match=said):
        CheckpointSettings.model_validate(changed(path, value))


def test_each_suite_has_keys_and_a_way_of_answering_of_its_own() -> None:
    """Of the file's content, of the judge and of the reward model too; paths and
    addresses are no part of it."""
    made = wanted(WHOLE)

    assert {name: list(one.keys) for name, one in made.items()} == {
        "test_set": ["rouge1", "reward"],
        "gsm8k": ["gsm8k/strict"],
        "humaneval": ["humaneval/pass_at_1"],
        "mt_bench": ["mt_bench"],
    }
    assert made["test_set"].find_definition("reward")["reward_model"] == "digest of rm"
    assert made["test_set"].find_definition("reward")["words"] == "text", (
        "an older zsg's rewards are of other tokens"
    )
    assert "reward_model" not in made["test_set"].find_definition("rouge1")
    assert made["gsm8k"].find_definition("gsm8k/strict") == {
        "decoding": "greedy",
        "max_new_tokens": 512,
        "items": 100,
        "file": "digest of gsm8k.jsonl",
        "stops": ["\nUser:", "Question:", "</s>", "<|im_end|>"],
    }
    assert made["humaneval"].how["decoding"] == "greedy" and made["humaneval"].runs_code
    assert made["mt_bench"].find_definition("mt_bench")["judge"] == "gpt-4"
    assert not any(
        "127.0.0.1" in str(one.find_definition(key))
        for one in made.values()
        for key in one.keys
    )
    assert suites.list_key_variables(made.values()) == ["JUDGE_API_KEY"]
    told = json.loads(json.dumps(msgspec.to_builtins(list(made.values()))))
    assert msgspec.convert(told, list[Suite]) == list(made.values())


STOPS = {
    "zsg": ["\nUser:"],
    "vicuna": ["USER:"],
    "llama2": ["[INST]"],
    "plain": [],
}


@pytest.mark.parametrize("template", STOPS)
def test_an_answer_is_over_at_the_templates_next_turn_and_the_suites_own_stops(
    template: str,
) -> None:
    """HumanEval's are of completions, so not of a template that asks for a whole
    program, whose second line is one."""
    made = wanted(WHOLE, template)
    turn = STOPS[template]

    assert made["test_set"].how["stops"] == made["mt_bench"].how["stops"] == turn
    assert made["gsm8k"].how["stops"] == [*turn, "Question:", "</s>", "<|im_end|>"]
    completions = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]
    assert made["humaneval"].how["stops"] == (
        completions if template == "plain" else turn
    )


def test_rank_accuracy_is_taken_otherwise_under_plain_alone() -> None:
    """Where a prompt may end in a blank, which a tokenizer joins to one option and not
    to another."""
    settings = {"metrics": ["rank_accuracy"], "snapshots": 10}
    # of an older zsg
    before = {"options": "published", "chosen_by": "least loss, summed over tokens"}

    assert (
        wanted(settings)["representations"].find_definition("rank_accuracy") == before
    )
    assert wanted(settings, "plain")["representations"].find_definition(
        "rank_accuracy"
    ) == before | {"prompt": "the same tokens"}


def test_how_texts_are_compared_decides_their_keys() -> None:
    """BLEU's signature always; ROUGE's tokenizer where it is not the papers', so that
    keys of before are of the same way."""
    asked = {"metrics": ["bleu", "chrf_pp", "rouge1"], "snapshots": 10}
    usual = CheckpointSettings.model_validate(asked)
    other = CheckpointSettings.model_validate(
        {
            **asked,
            "bleu": {"tokenize": "intl", "lowercase": True},
            "rouge": {"tokenizer": "unicode"},
        }
    )
    [suite] = suites.select_suites(usual, {})
    [changed_suite] = suites.select_suites(other, {})

    assert suite.scored_by["bleu"]["signature"] == (
        "case:mixed|eff:no|tok:13a|smooth:exp"
    )
    assert suite.scored_by["chrf_pp"]["signature"] == (
        "case:mixed|eff:yes|nc:6|nw:2|space:no"
    )
    assert "rouge1" not in suite.scored_by
    assert changed_suite.scored_by["bleu"]["signature"] == (
        "case:lc|eff:no|tok:intl|smooth:exp"
    )
    assert changed_suite.scored_by["rouge1"] == {"tokenizer": "unicode"}


def test_settings_of_before_are_written_as_before() -> None:
    """What compares texts stands in job.json only where it is asked for."""
    usual = CheckpointSettings.model_validate({"metrics": ["loss"]})
    asked = {"metrics": ["rouge1"], "snapshots": 9, "rouge": {"tokenizer": "unicode"}}
    other = CheckpointSettings.model_validate(asked)

    assert {"bleu", "rouge"}.isdisjoint(usual.model_dump(mode="json"))
    assert other.model_dump(mode="json")["rouge"] == {"tokenizer": "unicode"}


def test_several_samples_are_drawn() -> None:
    """At the published temperature for several, or at the one that is given."""
    several = wanted(changed("suites.humaneval.samples", 10))["humaneval"].how
    cooler = wanted(changed("suites.humaneval.temperature", 0.2))["humaneval"].how

    assert (
        several["decoding"],
        several["temperature"],
        several["top_p"],
        several["samples"],
    ) == (
        "nucleus",
        0.8,
        0.95,
        10,
    )
    assert (cooler["decoding"], cooler["temperature"]) == ("nucleus", 0.2)


def test_what_is_scored_elsewhere_is_answered_all_the_same() -> None:
    """Without a judge, and where code may not be run, evaluators keep answers; named
    ways have keys of their own."""
    made = changed("suites.mt_bench.judge", None)
    made = changed(
        "suites.humaneval",
        {"path": "h", "allow_code_execution": False, "name": "twice"},
        made,
    )
    asked = wanted(made)

    assert asked["mt_bench"].keys == ("answers/mt_bench",)
    assert (
        asked["humaneval"].keys == ("answers/humaneval/twice",)
        and not asked["humaneval"].runs_code
    )
    assert suites.list_key_variables(asked.values()) == []


def test_benchmarks_are_no_part_of_a_run() -> None:
    """What is measured changes no weights: the run stays the same, and its checkpoints
    are scored later."""
    assert a_run(checkpoints=WHOLE).id == a_run().id


@pytest.mark.parametrize(
    ("key", "metric"),
    [
        ("rouge1", "rouge1"),
        ("rouge1/short", "rouge1"),
        ("gsm8k/strict", "gsm8k/strict"),
        ("mt_bench", "mt_bench"),
        ("gsm8k/flexible/strict", "gsm8k/flexible"),
        ("humaneval/pass_at_10", "humaneval/pass_at_10"),
        ("humaneval/pass_at_1/ten", "humaneval/pass_at_1"),
        ("mt_bench/gpt-4", "mt_bench"),
    ],
)
def test_a_key_tells_its_metric(key: str, metric: str) -> None:
    """Also where the metric's own name has two parts, and where it carries the name of
    the way of answering."""
    assert metrics.find_metric(key) == metric


def test_a_key_of_no_metric_is_refused() -> None:
    """`gsm8k` alone is a benchmark, not a metric."""
    with pytest.raises(ValueError, match="'gsm8k' is the key of no metric"):
        metrics.find_metric("gsm8k")


def test_the_judges_key_is_handed_on() -> None:
    """To the jobs that need it, whatever else the profile hands on."""
    profile = Profile(name="p", kind="local")

    assert profiles.keep_variables(profile, ["JUDGE_API_KEY"]).environment.keep == [
        *profile.environment.keep,
        "JUDGE_API_KEY",
    ]
    assert profiles.keep_variables(profile, []) == profile


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small benchmarks, whole."""
    return cut(real_data, tmp_path_factory.mktemp("benchmarks") / "whole")


def placed(folder: Path) -> dict[str, Any]:
    """Settings whose files lie in a folder."""
    made = changed("reward_model", None)
    made["metrics"].remove("reward")
    for name, file in (
        ("gsm8k", "gsm8k.jsonl"),
        ("humaneval", "HumanEval.jsonl"),
        ("mt_bench", "question.jsonl"),
    ):
        made["suites"][name]["path"] = str(folder / file)
    made["suites"]["mt_bench"]["judge"]["prompts"] = str(folder / "judge_prompts.jsonl")
    return made


BROKEN = [
    ("gsm8k.jsonl", None, r"suites\.gsm8k\.path: .*no such file"),
    (
        "gsm8k.jsonl",
        '{"question": "1 + 1?", "answer": "two"}\n',
        r"suites\.gsm8k\.path: gsm8k:0: its reference holds",
    ),
    ("gsm8k.jsonl", '{"query": "1 + 1?"}\n', r"suites\.gsm8k\.path: .*gsm8k\.jsonl"),
    ("HumanEval.jsonl", '{"task_id": "a"}\n', r"suites\.humaneval\.path: .*prompt"),
    ("HumanEval.jsonl", "", r"suites\.humaneval\.path: .*holds no example"),
    (
        "reference_answer/gpt-4.jsonl",
        "",
        r"judge\.prompts: mt_bench/101: .*reference answer, and has none",
    ),
    (
        "judge_prompts.jsonl",
        '{"name": "a", "system_prompt": "", "prompt_template": ""}\n',
        "has no prompt named",
    ),
]


def tell_faults(folder: Path) -> list[str]:
    """What is wrong with the files of a folder."""
    faults = InputFaults()
    settings = CheckpointSettings.model_validate(placed(folder))
    suite_files.find_suite_faults([settings], faults)
    return [str(fault.error) for fault in faults.list_all()]


@pytest.mark.data
@pytest.mark.parametrize(("name", "text", "said"), BROKEN)
def test_a_file_that_no_evaluator_could_use_is_refused(
    folder: Path, tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    """By the setting that names it, before anything is submitted."""
    (tmp_path / "reference_answer").mkdir()
    for path in folder.rglob("*.jsonl"):
        (tmp_path / path.relative_to(folder)).write_bytes(path.read_bytes())
    assert tell_faults(tmp_path) == []
    (tmp_path / name).unlink() if text is None else (tmp_path / name).write_text(text)

    [told] = tell_faults(tmp_path)
    assert re.search(said, told, re.DOTALL)


def test_a_key_that_is_not_set_is_said_before_anything_is_submitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its name; an evaluate job would find out hours later."""
    run = replace(
        a_run(checkpoints=WHOLE),
        suite_files={
            name: SuiteFile(path, "d")
            for name, (_, path) in suites.find_needed_files(
                a_run(checkpoints=WHOLE).checkpoints
            ).items()
        },
    )
    wanted = Plan([Action(run, "evaluate", "")], [], [])
    monkeypatch.delenv("JUDGE_API_KEY", raising=False)

    assert (
        "JUDGE_API_KEY, which checkpoints.suites.mt_bench.judge.key_env names, is not set"
        in admission._check_judge_keys(wanted)[0]
    )
    monkeypatch.setenv("JUDGE_API_KEY", "sk")
    assert admission._check_judge_keys(wanted) == []


def test_a_models_further_ends_enter_the_way_of_all_its_answers() -> None:
    """Where it has none the way is as before; else what an older zsg took is told from
    it, and nothing inside the model changes."""
    asked = CheckpointSettings.model_validate(WHOLE)
    files = {
        name: SuiteFile(f"/{given}", f"digest of {given}")
        for name, (_, given) in suites.find_needed_files(asked).items()
    }
    before = suites.select_suites(asked, files)

    assert suites.select_suites(asked, files, ends=()) == before
    for old, new in zip(
        before, suites.select_suites(asked, files, ends=(107,)), strict=True
    ):
        assert new.how == {**old.how, "ends": [107]}
        assert suites.is_older_way(old.how, new.how)
