"""Does the reference have every key, with a sentence, and does it say truly what enters a
run's id?"""

import re
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from launcher import reference_pages
from launcher.clusters.profiles import NoticeSettings, Profile
from launcher.grids import json_schema, key_reference
from launcher.grids.key_reference import BY_CONTENT, ENTERS, ENTERS_NOT, OF_A_SOURCE
from launcher.views import key_view
from tests.lib.command_line import Zsg
from zsg_core import recipe as recipes
from zsg_core.errors import UserError
from zsg_core.recipe import InputDigests, SourceDigests
from zsg_core.schema_errors import list_leaf_keys
from zsg_core.settings.claims import KINDS
from zsg_core.settings.looks import Expectation, Looks
from zsg_core.settings.run import Settings
from zsg_core.settings.summaries import SummarySettings

ROOT = Path(__file__).resolve().parent.parent
GRID = {entry.path: entry for entry in key_reference.list_keys("grid")}
PROFILE = {entry.path: entry for entry in key_reference.list_keys("profile")}

PAGES = {
    "grid.md": reference_pages.grid_page,
    "profile.md": reference_pages.profile_page,
    "node-checks.md": reference_pages.node_checks_page,
    "python.md": reference_pages.python_page,
    "published-sets.md": reference_pages.published_sets_page,
}


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_are_those_of_the_code(page: str) -> None:
    """docs/reference is as `python -m launcher.reference_pages` makes it."""
    assert (ROOT / "docs/reference" / page).read_text() == PAGES[page]()


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    """What every --help prints at 80 columns; another typer sets the same lines otherwise."""
    installed = f"typer=={version('typer')}"
    if installed not in (ROOT / "constraints.txt").read_text().splitlines():
        pytest.skip(f"{installed} is not the typer of constraints.txt")

    page = (ROOT / "docs/reference/commands.md").read_text()
    assert page == reference_pages.commands_page()


def test_no_key_is_missing() -> None:
    """Every key of the models, of the file and of every claim has its entry, and no other."""
    of_claims = [
        f"claims.{kind}.{name}" for kind in KINDS for name in KINDS[kind].model_fields
    ]
    of_the_file = list(json_schema.make_grid_schema()["properties"])

    assert set(GRID) == {
        *list_leaf_keys(Settings),
        *of_the_file,
        "grid.label",
        "grid.zip",
        *(f"claims.{kind}" for kind in KINDS),
        *of_claims,
        "claims.list",
        "claims.looks",
        *(f"claims.looks.{name}" for name in Looks.model_fields),
        *(f"claims.looks.expect.{name}" for name in Expectation.model_fields),
        *(f"summaries.{name}" for name in SummarySettings.model_fields),
    }
    of_profile = list_leaf_keys(Profile)
    behind = of_profile.index("notify") + 1
    of_profile[behind:behind] = [
        f"notify.{name}" for name in NoticeSettings.model_fields
    ]
    assert list(PROFILE) == of_profile


@pytest.mark.parametrize("entries", [GRID, PROFILE], ids=["grid", "profile"])
def test_every_key_has_a_sentence(entries: dict[str, Any]) -> None:
    """A description has several words, begins as a sentence does and ends as one."""
    sentence = re.compile(r"[A-Z0-9`\"a-z_]\S*( \S+){2,}[.)]", re.S)

    assert [
        path
        for path, entry in entries.items()
        if not sentence.fullmatch(entry.description) or "learnt" in entry.description
    ] == []


def test_every_pattern_has_words() -> None:
    """No value is described as a fraction that is none."""
    with_pattern = {
        path
        for path, entry in (GRID | PROFILE).items()
        if key_reference._FRACTION in entry.allowed
    }

    assert with_pattern == {
        path
        for path in GRID
        if path.rpartition(".")[2] in {"fraction", "ratio", "k", "share"}
        or re.match(r"claims\.(falls|rises)_at\.(at|window)$", path)
        or re.match(
            r"claims\.((falls|rises)_early|is_(earlier|steadier))\.within$", path
        )
    } - {
        "data.instructions.share",
        "data.few_shot.k",
        "data.sources.NAME.few_shot.k",
    }


@pytest.mark.parametrize("file", ["grid", "profile"])
def test_a_key_is_shown_in_80_columns(file: key_reference.File) -> None:
    """No line is longer, and none ends in a blank; every key of the file is there."""
    entries = key_reference.list_keys(file)
    lines = key_view.key_lines(entries)

    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line != line.rstrip()] == []
    assert [entry.path for entry in entries] == [
        line for line in lines if line and line[0] != " "
    ]


def test_the_command_explains_a_key(zsg: Zsg) -> None:
    """The last part of a key is enough; what it says is the reference's."""
    assert zsg("schema", "grid", "lr_floor") == textwrap.dedent(
        """\
        train.lr_floor
          The cosine ends at this share of the peak learning rate. 1 = a constant rate
          after the warm-up.
          values:  number, at least 0, at most 1
          default: 0.1
          run id:  yes
        """
    )


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("train.tuning.r", "train.tuning.r"),
        ("tuning", "train.tuning"),
        ("seed", "seed"),
        ("count", "data.count"),
        ("data.sources.gsm8k.count", "data.sources.NAME.count"),
        ("data.sources.gsm8k", "data.sources.NAME"),
        ("claims.rises.by", "claims.rises.by"),
        ("zip", "grid.zip"),
    ],
)
def test_a_key_is_found(key: str, path: str) -> None:
    """As a whole, by its end, and with a name of the user's own; a key within it follows."""
    found = key_reference.find_keys("grid", key)

    assert found[0].path == path
    assert all(entry.path.startswith(f"{path}.") for entry in found[1:])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "max_new_tokens",
            "several keys of a grid end in 'max_new_tokens'; say which: data.self_sample",
        ),
        ("rank", "a grid has no key 'rank'. Did you mean 'train.tuning.r'?"),
        ("warmup_step", "Did you mean 'train.warmup_steps'?"),
        ("x\x1b[2J", r"a grid has no key 'x\x1b[2J'. Known at the top: name, profile"),
    ],
)
def test_a_key_that_is_not_found_says_what_there_is(key: str, message: str) -> None:
    """Candidates of an ambiguous key, the nearest of an unknown one; nothing that a
    terminal would obey."""
    with pytest.raises(UserError) as error:
        key_reference.find_keys("grid", key)

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("train.tuning", {"method": "lora", "r": 4}, {"rank": 4}),
        ("lr", 1e-5, 0),
        ("checkpoints.keep", {"last": 2}, {"last": 0}),
        ("claims", [{"claim": "falls_at"}], [{"claim": "falls_at", "at": 2}]),
        ("grid", {"seed": [0, 1]}, {"sead": [0, 1]}),
    ],
)
def test_the_schema_of_a_key_stands_alone(key: str, good: Any, bad: Any) -> None:
    """`zsg schema grid KEY --json` checks values of the key, with nothing but itself."""
    schema = key_reference.schema_of_key("grid", key)

    Draft7Validator.check_schema(schema)
    assert Draft7Validator(schema).is_valid(good)
    assert not Draft7Validator(schema).is_valid(bad)


def _with_source(name: str, source: dict[str, Any]) -> dict[str, Any]:
    return {"sources": {**SOURCES["sources"], name: source}}


SOURCES = {"sources": {"a": {"path": "/a", "test_path": "/t"}, "b": {"path": "/b"}}}
SAMPLED = {"data": _with_source("b", {"path": "/b", "self_sample": {}})}


def _made(**make: Any) -> dict[str, Any]:
    return {"data": _with_source("b", {"path": "/b", "make": make})}


RFT = _made(rft={})
IN_FOLDER = _made(rft={}, by={"path": "/f"})
PRICED = {"base_url": "https://x/v1", "model": "m", "price_read": 1, "price_written": 1}
ON_SERVER = _made(rft={}, by=PRICED)
INSTAG = _made(instag={"meaning": {}})
REWORDED = _made(paraphrases={"instruction": "Say <sep> now."})
COUNTED = {"data": _with_source("c", {"path": "/c", "ratio": 2, "ratio_to": "a"})}
WORDED = {"data": {"set": "gsm8k", "instructions": {"path": "/i"}}}
FEW_SHOT = {"data": {"few_shot": {"k": 2, "turns": "many"}}}
TURNED = {"data": {"set": "gsm8k", "invert": {"wordings": ["Ask for {answer}."]}}}
OPTIONS = {"data": {"set": "p3"}}
LISTED = {"arrangement": {"order": "file", "path": "/o"}}
PACED = {"arrangement": {"pacing": {"curve": "root", "draw": "repeats"}}}
IN_BUCKETS = {"arrangement": {"buckets": {"number": 2, "style": "baby_steps"}}}
REPLAYED = {"data": SOURCES, "arrangement": {"replay": {"source": "a", "every": 2}}}
SCORED_BY_MODEL = {"arrangement": {"order": "scores", "score": "answer_loss"}}
# of a stage after another: a base compared with itself is refused
_UNSCORED = {"order": "random", "score": None, "since": None}
PROGRESS = {
    "arrangement": {"order": "scores", "score": "progress"},
    "stages": [{"arrangement": _UNSCORED}, {}],
}


def _scored(**arrangement: Any) -> dict[str, Any]:
    return {"arrangement": {"order": "scores", "path": "/s", **arrangement}}


def _looking(data: dict[str, Any] | None = None, **target: Any) -> dict[str, Any]:
    return {"arrangement": {"order": "nft", "target": target}, "data": data or {}}


OWN_PAIR = {"prompt": "q", "answer": "a"}
OWN = {"data": {"set": "records", "fields": OWN_PAIR}}
OWN_CHAT = {"data": {"set": "records", "fields": {"messages": "m"}}}
OWN_TEXT = {"data": {"set": "records", "fields": {"text": "t"}}}
OWN_TASK = {"data": {"set": "records", "fields": {**OWN_PAIR, "task": "t"}}}
OWN_CHOICES = {"data": {"set": "records", "fields": {**OWN_PAIR, "choices": "c"}}}
OWN_ASK = {"data": {"set": "records", "fields": {"ask": "{q}", "answer": "a"}}}
OWN_WORDS = {"data": {"set": "records", "fields": {"words": "w", "word_tags": "t"}}}
MMLU = {"set": "records", "mapping": {"name": "mmlu"}}
WMT = {"set": "records", "mapping": {"name": "wmt", "languages": "is-en"}}
LORA = {"train": {"tuning": {"method": "lora"}}}
FP16 = {"train": {"precision": "fp16"}}
HEAD = {"train": {"truncate": "head"}}
NFT = {"arrangement": {"order": "nft"}}
TMA = {"arrangement": {"order": "tma"}}
P3 = {"data": {"set": "p3", "mix": {"rates": "t0"}}}
TOKENS = {"model": {"add_tokens": ["<sep>"]}}

# A value of each key, and settings in which it has an effect.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "seed": (1, {}),
    "model.name": ("other", {"model": {"name": "mine", "path": "/m"}}),
    "model.path": ("/n", {"model": {"name": "mine", "path": "/m"}}),
    "model.hidden": (64, {}),
    "model.layers": (1, {}),
    "model.heads": (2, {}),
    "model.vocab": (300, {}),
    "model.add_tokens": (["<x>"], TOKENS),
    "model.token_init": ("mean", TOKENS),
    "data.set": ("niv2_csv", {}),
    "data.path": ("/elsewhere", {}),
    "data.test_set": ("gsm8k", {"data": {"test_path": "/t"}}),
    "data.test_path": ("/elsewhere", {"data": {"test_path": "/t"}}),
    "data.held_out.by": ("family", {}),
    "data.held_out.tasks": (3, {"data": {"held_out": {"by": "seed", "tasks": 2}}}),
    "data.held_out.seed": (1, {"data": {"held_out": {"by": "family"}}}),
    "data.on_bad_row": ("skip", {}),
    "data.train_per_task": (3, {}),
    "data.test_per_task": (3, {}),
    "data.train_tasks": (3, {}),
    "data.test_tasks": (3, {}),
    "data.templates": (3, P3),
    "data.data_sets": ({"x": "task_*"}, P3),
    "data.sampling": ("first", {}),
    "data.tags": ("/elsewhere", {"data": {"tags": "/tags", "keep_tags": "x"}}),
    "data.keep_tags": ("x", {}),
    "data.drop_tags": ("x", {}),
    "data.fraction": ("1/2", {}),
    "data.count": (3, {}),
    "data.sources.c.ratio": (1, COUNTED),
    "data.sources.c.ratio_to": ("b", COUNTED),
    "data.k": ("1/2", {}),
    "data.role": ("general", {}),
    "data.rate_max": (3, {"data": {"mix": {}}}),
    "data.share": (2, {"data": {"mix": {}}}),
    "data.sources.b.self_sample.system": ("x", SAMPLED),
    "data.sources.b.self_sample.temperature": (0.5, SAMPLED),
    "data.sources.b.self_sample.top_p": (0.5, SAMPLED),
    "data.sources.b.self_sample.max_new_tokens": (5, SAMPLED),
    "data.sources.b.self_sample.cut": (0, SAMPLED),
    "data.sources.b.self_sample.items": (5, SAMPLED),
    "data.sources.b.self_sample.seed": (5, SAMPLED),
    **{
        f"data.sources.b.make.rft.{key}": (value, RFT)
        for key, value in {
            "items": 5,
            "seed": 5,
            "samples": 5,
            "temperature": 0.5,
            "top_p": 0.5,
            "max_new_tokens": 5,
            "stops": ["x"],
            "system": "x",
            "wording": "x",
            "read": "last",
            "gold": False,
        }.items()
    },
    **{
        f"data.sources.b.make.instag.{key}": (value, INSTAG)
        for key, value in {
            "items": 5,
            "seed": 5,
            "turns": "first",
            "longest_query": 5,
            "prompt": "{query}",
            "system": "x",
            "max_new_tokens": 5,
            "at_least": 5,
            "frequency": "rules",
            "meaning.embedding": "/elsewhere",
            "meaning.threshold": 0.5,
            "meaning.kind": "similarity",
            "meaning.least_neighbours": 5,
            "support": 5,
            "confidence": 0.5,
            "choose": 5,
            "untagged": "drop",
        }.items()
    },
    **{
        f"data.sources.b.make.paraphrases.{key}": (value, REWORDED)
        for key, value in {
            "items": 5,
            "seed": 5,
            "instruction": "x",
            "wordings": 5,
            "per_request": 5,
            "rounds": 5,
            "marks": ["<sep>"],
            "most_similar": 0.5,
            "place": "before",
            "replaces": True,
            "original": False,
            "prompt": "{text}",
            "system": "x",
            "temperature": 0.5,
            "top_p": 0.5,
            "max_new_tokens": 5,
        }.items()
    },
    "data.sources.b.make.by.path": ("/elsewhere", IN_FOLDER),
    "data.sources.b.make.by.template": ("plain", IN_FOLDER),
    "data.sources.b.make.by.base_url": ("https://y/v1", ON_SERVER),
    "data.sources.b.make.by.model": ("n", ON_SERVER),
    "data.sources.b.make.by.key_env": ("X_API_KEY", ON_SERVER),
    "data.sources.b.make.by.at_once": (2, ON_SERVER),
    "data.sources.b.make.by.seeds": (True, ON_SERVER),
    "data.sources.b.make.by.price_read": (2, ON_SERVER),
    "data.sources.b.make.by.price_written": (2, ON_SERVER),
    "data.sources.b.make.by.budget": (2, ON_SERVER),
    "data.instructions.path": ("/elsewhere", WORDED),
    "data.instructions.diversify": (False, WORDED),
    "data.instructions.place": ("before", WORDED),
    "data.instructions.replaces": (True, WORDED),
    "data.mix.rates": ("t0", {"data": {"mix": {"total": 5}}}),
    "data.mix.total": (5, {"data": {"mix": {"rates": "t0"}}}),
    "data.mix.repeat": (True, {"data": {"mix": {"rates": "t0"}}}),
    "data.sample_seed": (1, {}),
    "data.test_seed": (1, {}),
    "data.template": ("vicuna", {}),
    "data.chat_template_kwargs": (
        {"enable_thinking": False},
        {"data": {"template": "chat"}},
    ),
    "data.chat_system": ("drop", {"data": {"template": "chat"}}),
    "data.positive_examples": (1, {}),
    "data.max_turns": (1, {}),
    "arrangement.order": ("cluster", {}),
    "arrangement.seed": (1, {}),
    "arrangement.block": (8, {"arrangement": {"order": "blocks", "block": 4}}),
    "arrangement.measure": ("ot", NFT),
    "arrangement.weights.min": (2.0, NFT),
    "arrangement.weights.avg": (2.0, NFT),
    "arrangement.granularity": ("coarse", NFT),
    "arrangement.choose": ("polar", {**NFT, "data": {"train_per_task": 30}}),
    "arrangement.list": ("max", TMA),
    "arrangement.cap": (5, TMA),
    "arrangement.rounds": ("0:5", TMA),
    "arrangement.embedding": ("/elsewhere", NFT),
    "arrangement.target.by": ("tasks", _looking(data={"test_tasks": 2})),
    "arrangement.target.path": ("/elsewhere", _looking(path="/t")),
    "arrangement.target.set": ("p3", _looking(path="/t", set="alpaca")),
    "arrangement.target.tasks": (3, _looking()),
    "arrangement.target.per_task": (3, _looking()),
    "arrangement.target.seed": (3, _looking()),
    "arrangement.target.answers": (False, _looking()),
    "arrangement.target.overlap": ("keep", _looking()),
    "arrangement.target.train_overlap": ("drop", _looking()),
    "train.preset": ("paper", {}),
    "train.batch": (4, {}),
    "train.virtual_ranks": (2, {}),
    "train.lr": (1.0, {}),
    "train.lr_floor": (1.0, {}),
    "train.warmup_steps": (5, {}),
    "train.warmup_share": (0.5, {}),
    "train.epochs": (5, {}),
    "train.steps": (5, {}),
    "train.max_length": (16, {}),
    "train.truncate": ("head", {}),
    "train.truncated_answers": ("zero", HEAD),
    "train.precision": ("fp32", {}),
    "train.loss_scale": (2.0, FP16),
    "train.overflow": ("skip", {}),
    "train.betas": ((0.5, 0.5), {}),
    "train.eps": (1.0, {}),
    "train.weight_decay": (1.0, {}),
    "train.loss_on": ("all", {}),
    "train.task_scale": ("log_n", {}),
    "train.tuning.method": ("ln", {}),
    "train.tuning.r": (4, LORA),
    "train.tuning.alpha": (4.0, LORA),
    "train.tuning.targets": (["k_proj"], LORA),
    "train.tuning.rslora": (True, LORA),
    "train.tuning.dropout": (0.5, LORA),
    "train.tuning.start": ("merge", LORA | {"stages": [{}, {}]}),
    "data.few_shot.k": (3, FEW_SHOT),
    "data.few_shot.share": ("1/2", FEW_SHOT),
    "data.few_shot.fixed": ("first", FEW_SHOT),
    "data.few_shot.turns": ("one", FEW_SHOT),
    "data.few_shot.loss_on": ("answers", FEW_SHOT),
    "data.few_shot.seed": (1, FEW_SHOT),
    "data.invert.share": ("1/2", TURNED),
    "data.invert.seed": (1, TURNED),
    "data.invert.wordings": (["Say what asks for {answer}."], TURNED),
    "data.show_options": (True, OPTIONS),
    "data.test_show_options": (True, OPTIONS),
    "data.test_instructions": ("name", {}),
    "data.loss_on": ("all", {}),
    "arrangement.path": ("/elsewhere", LISTED),
    "arrangement.score": ("el2n", SCORED_BY_MODEL),
    "arrangement.scorer": ("/elsewhere", SCORED_BY_MODEL),
    "arrangement.since": ("/elsewhere", PROGRESS),
    "arrangement.entries": ("places", LISTED),
    "arrangement.rest": ("drop", LISTED),
    "arrangement.repeats": ("keep", LISTED),
    "arrangement.tasks": ("shuffled", {"arrangement": {"order": "cluster"}}),
    "arrangement.pacing.curve": ("linear", PACED),
    "arrangement.pacing.draw": ("once", PACED),
    "arrangement.pacing.start": (0.5, PACED),
    "arrangement.pacing.until": (0.5, PACED),
    "arrangement.pacing.over_steps": (9, PACED),
    "arrangement.pacing.power": (
        1,
        {"arrangement": {"pacing": {"curve": "competence", "draw": "once"}}},
    ),
    "arrangement.buckets.number": (9, IN_BUCKETS),
    "arrangement.buckets.style": ("one_pass", IN_BUCKETS),
    "arrangement.turns": ("evenly", {"data": SOURCES}),
    "arrangement.replay.source": ("b", REPLAYED),
    "arrangement.replay.every": (9, REPLAYED),
    "arrangement.shape": ("fold", _scored()),
    "arrangement.direction": ("descending", _scored()),
    "arrangement.noise": (0.5, _scored()),
    "arrangement.jitter": (4, _scored()),
    "arrangement.layers": (7, _scored(shape="fold")),
    "arrangement.bands": (5, _scored(shape="saw")),
    "arrangement.overlap": (0.1, _scored(shape="saw")),
    "arrangement.front": (20, _scored(shape="segment")),
    "arrangement.back": (20, _scored(shape="segment")),
    "arrangement.front_of": ("high", _scored(shape="segment", back_of="low")),
    "arrangement.back_of": ("low", _scored(shape="segment", front_of="high")),
    "data.fields.prompt": ("question", OWN),
    "data.fields.answer": ("response", OWN),
    "data.fields.messages": ("dialog", OWN_CHAT),
    "data.fields.role": ("speaker", OWN_CHAT),
    "data.fields.content": ("said", OWN_CHAT),
    "data.fields.roles": ({"agent": "assistant"}, OWN_CHAT),
    "data.fields.text": ("body", OWN_TEXT),
    "data.fields.system": ("system", OWN),
    "data.fields.task": ("category", OWN),
    "data.fields.task_from": ("file", OWN),
    "data.fields.choices": ("choices", OWN),
    "data.fields.ask": ("Say: {q}", OWN_ASK),
    "data.fields.task_else": ("other", OWN_TASK),
    "data.fields.definition": ("definition", OWN_TASK),
    "data.fields.choice_scores": ("scores", OWN_CHOICES),
    "data.fields.labels": (["no", "yes"], OWN),
    "data.fields.words": ("tokens", OWN_WORDS),
    "data.fields.word_tags": ("tags", OWN_WORDS),
    "data.mapping.name": ("nq", {"data": MMLU}),
    "data.mapping.languages": ("en-is", {"data": WMT}),
    "data.fields.id": ("id", OWN),
    "data.fields.tags": ("tags", OWN),
    "data.held_out.share": (
        "1/5",
        {"data": {"held_out": {"by": "rows", "share": "1/4"}}},
    ),
    "train.clip": (2.0, {}),
    "train.init_seed": (1, {}),
    "stages": ([{}, {}], {}),
    "strategy": ("sequential", {"data": SOURCES}),
    "checkpoints.every": (1, {}),
    "checkpoints.quick": ({"items": 5}, {}),
    "checkpoints.snapshots": (1, {}),
    "checkpoints.keep": ("last", {}),
    "checkpoints.metrics": (["loss", "rouge1"], {"checkpoints": {"snapshots": 5}}),
    "checkpoints.generation": ({"preset": "paper"}, {}),
    "checkpoints.state_every": (5, {}),
    "resources.nodes": (2, {}),
    "resources.ranks_per_node": (2, {}),
    "resources.time_min": (2, {}),
    "resources.evaluators": (2, {}),
}


def _of_the_test(key: str) -> tuple[Any, dict[str, Any]]:
    """The change of a key of the training data's columns, of test data of their own."""
    value, around = CHANGES[key]
    columns = {f"test_{name}": part for name, part in around["data"].items()}
    return value, {"data": {**MMLU, **columns, "test_path": "/t"}}


CHANGES |= {
    key.replace("data.", "data.test_", 1): _of_the_test(key)
    for key in list(CHANGES)
    if key.startswith(("data.fields.", "data.mapping."))
}


def _of_the_target(key: str) -> tuple[Any, dict[str, Any]]:
    """The change of a key of the training data's columns, of a target in files."""
    value, around = CHANGES[key]
    target = {**around["data"], "path": "/t"}
    return value, {"arrangement": {"order": "nft", "target": target}}


CHANGES |= {
    key.replace("data.", "arrangement.target.", 1): _of_the_target(key)
    for key in list(CHANGES)
    if key.startswith(("data.fields.", "data.mapping."))
}
# A section whose keys enter no id by one rule, or which is an id's only as a whole.
AS_A_WHOLE = ("checkpoints.", "strategy.")


@pytest.mark.parametrize("key", CHANGES)
def test_the_reference_says_what_enters_the_run_id(key: str) -> None:
    """Another value is another run exactly where the reference says so."""
    value, around = CHANGES[key]
    before = _run_id(around)
    after = _run_id(_set(around, key.split("."), value))
    entry = key_reference.find_keys("grid", key)[0]

    assert (before == after) == (
        entry.run_id in (ENTERS_NOT, BY_CONTENT)
        or key
        in ("model.name", "data.role")  # without another kind of model, a strategy
    )


def test_every_key_was_changed() -> None:
    """Each setting is among the changes, those of `sources` by their twin in `data`."""
    changed = {re.sub(r"^data\.sources\.[abc]\.", "data.", key) for key in CHANGES}
    single = {
        path
        for path in list_leaf_keys(Settings)
        if not GRID[path].is_section
        and not path.startswith((OF_A_SOURCE, *AS_A_WHOLE))
        and path != "data.sources"
    }

    assert single - changed == set()
    assert {
        entry.run_id for path, entry in GRID.items() if path.startswith(AS_A_WHOLE[0])
    } == {ENTERS_NOT}
    assert GRID["train.lr"].run_id == ENTERS


def _run_id(settings: dict[str, Any]) -> str:
    data = settings.get("data", {})
    if "sources" not in data:
        data = {"path": "/d", **data}
    whole = Settings.model_validate({**settings, "data": data})
    digests = InputDigests(
        sources={
            name: SourceDigests(data="d", test="t", tags="g", instructions="i")
            for name in whole.data.by_source()
        },
        model="m",
        embedding="e",
        target=SourceDigests(data="t"),
        embedders=dict.fromkeys(whole.data.by_source(), "e"),
    )
    return recipes.run_id(recipes.make_recipe(whole, digests))


def _set(settings: Any, parts: list[str], value: Any) -> dict[str, Any]:
    """The settings with one more, those around it untouched."""
    first, *below = parts
    inner = _set(settings.get(first, {}), below, value) if below else value
    return {**settings, first: inner}
