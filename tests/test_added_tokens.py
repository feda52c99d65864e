"""Does a model with added tokens know them, and is it otherwise the model that it was?"""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

from jobs.model import base_model
from jobs.model.vocabulary import load_vocabulary
from jobs.preparing import added_tokens
from jobs.training.weight_folders import Base, WeightFolders
from tests.lib.model_folders import write_llama, write_tokenizer
from tests.lib.tiny_base import BASE, TEXTS
from tests.lib.tiny_families import make_model
from zsg_core.errors import UserError
from zsg_core.recipe import id_of_base, remove_added_tokens
from zsg_core.settings.run import Settings

TOKENS = ["<sep>", "<think about it>"]
TEMPLATES = ("chat_template.jinja", "additional_chat_templates/tool_use.jinja")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, whose embedding is its output layer."""
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    base_model.make_tiny(folder, BASE, TEXTS)
    return folder


@pytest.fixture(scope="module")
def untied(tiny: Path) -> Path:
    """The same with an output layer of its own, as LLaMA has one."""
    folder = tiny.parent / "untied"
    llama = LlamaForCausalLM.from_pretrained(tiny)
    config = llama.config
    config.tie_word_embeddings = False
    made = LlamaForCausalLM(config)
    made.model.load_state_dict(llama.model.state_dict())
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def add(source: Path, folder: Path, **how: Any) -> Any:
    """The model of a base with tokens added."""
    added_tokens.make_extended_base(
        folder, source, {**BASE, "added": {"tokens": TOKENS, **how}}
    )
    return LlamaForCausalLM.from_pretrained(folder)


def test_a_text_becomes_one_token_and_stays_text(tiny: Path, tmp_path: Path) -> None:
    """Wherever it stands, and in decoded answers; the end of a sequence in the data is
    text as before."""
    add(tiny, tmp_path / "made", init="random", seed=0)
    vocabulary = load_vocabulary(tmp_path / "made")
    [sep] = vocabulary.tokenize("<sep>")
    ids = vocabulary.tokenize("Mind<sep>, not </s>")

    assert ids.count(sep) == 1
    assert vocabulary.eos not in ids
    assert vocabulary.text(ids) == "Mind<sep>, not </s>"
    assert sep not in load_vocabulary(tiny).tokenize("Mind<sep>, not </s>")


@pytest.mark.parametrize("source", ["tiny", "untied"])
def test_rows_are_drawn_or_the_mean(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """N(0, 1) by the seed, or the mean of the rows there were; all other rows and the
    number of layers stay."""
    folder = request.getfixturevalue(source)
    before = LlamaForCausalLM.from_pretrained(folder)
    old, rows = before.model.embed_tokens.weight, range(400, 402)
    drawn, again, other, mean = (
        add(folder, tmp_path / str(number), **how)
        for number, how in enumerate(
            [
                {"init": "random", "seed": 1},
                {"init": "random", "seed": 1},
                {"init": "random", "seed": 2},
                {"init": "mean"},
            ]
        )
    )
    of = [model.model.embed_tokens.weight for model in (drawn, again, other, mean)]
    average = old.double().mean(0).float()

    assert {tuple(weight.shape) for weight in of} == {(448, 64)}
    assert all(torch.equal(weight[:400], old) for weight in of)
    assert torch.equal(of[0], of[1])
    assert not torch.equal(of[0][rows], of[2][rows])
    assert 0.7 < of[0][rows].std() < 1.3
    assert torch.equal(of[3][rows], average.expand(2, -1))
    assert torch.equal(of[0][402:], average.expand(46, -1))
    if source == "untied":
        head = before.lm_head.weight
        assert torch.equal(drawn.lm_head.weight[:400], head)
        assert torch.equal(
            drawn.lm_head.weight[400:], head.double().mean(0).float().expand(48, -1)
        )


@pytest.mark.parametrize("family", ["phi", "gpt2", "mixtral"])
def test_any_family_gets_tokens_and_is_otherwise_as_it_was(
    tiny: Path, tmp_path: Path, family: str
) -> None:
    """With a bias in its output layer, a tied one, experts: what it makes of the tokens
    that it knew is the same, and its files have the names that they had. Its generation
    config, which transformers reads and would not write, stays as it is."""
    source, made = tmp_path / "source", tmp_path / "made"
    before = make_model(family, vocab_size=400)
    before.save_pretrained(source)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(source)
    settings = '{"temperature": 0.6, "do_sample": false}'
    (source / "generation_config.json").write_text(settings)
    recipe = {**BASE, "added": {"tokens": TOKENS, "init": "random", "seed": 1}}
    added_tokens.make_extended_base(made, source, recipe)

    after = base_model.load_model(made, "fp32", attention="eager")
    text = torch.arange(5, 25)[None]
    with torch.no_grad():
        first, second = (
            model(input_ids=text, use_cache=False).logits for model in (before, after)
        )
    assert second.shape[-1] == after.config.vocab_size == 448
    assert torch.equal(second[..., :400], first)
    names = [load_file(path / "model.safetensors").keys() for path in (source, made)]
    assert names[0] == names[1]
    assert (made / "generation_config.json").read_text() == settings
    if family == "phi":
        bias = after.lm_head.bias
        average = bias[:400].double().mean().float()
        assert torch.equal(bias[400:], average.expand(48))


def test_a_token_that_there_is_cannot_be_added(tiny: Path, tmp_path: Path) -> None:
    """Told from the tokenizer's file before anything is submitted, and where it would be made."""
    known = added_tokens.known_tokens(tiny)

    assert {"<s>", "</s>"} < known.keys()
    for vocabulary in (known, AutoTokenizer.from_pretrained(tiny).get_vocab()):
        with pytest.raises(
            UserError, match=r"add_tokens: '</s>' is a token of .* already; take it out"
        ):
            added_tokens.refuse_known(tiny, ["<sep>", "</s>"], vocabulary)


def model(**given: Any) -> Settings:
    """Settings of a run with these of its model."""
    return Settings.model_validate({"data": {"path": "d"}, "model": given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"token_init": "mean"},
            "`token_init` is for the rows of `add_tokens`, and there are none",
        ),
        ({"add_tokens": ["<sep>", "<sep>"]}, "has a token twice"),
        ({"add_tokens": [" <sep>"]}, "must not begin or end with a blank"),
        ({"add_tokens": ["<\n>"]}, "must not hold line breaks"),
        ({"add_tokens": []}, "at least 1 item"),
    ],
)
def test_tokens_that_make_no_sense_are_refused(
    given: dict[str, Any], said: str
) -> None:
    """With the reason, before anything is planned."""
    with pytest.raises(ValueError, match=said):
        model(**given)


def test_a_base_with_tokens_is_a_base_of_its_own() -> None:
    """Made from the base without them; the mean has no seed, and two models share what
    they are made from."""
    from tests.lib.builders import digests
    from zsg_core.recipe import make_recipe

    def base(seed: int, **given: Any) -> dict[str, Any]:
        where = {"name": "llama", "path": "/m"} if given.pop("folder", False) else {}
        return make_recipe(
            model(**given, **where).model_copy(update={"seed": seed}),
            digests(model="m" * 64),
        )["base"]

    plain, added = base(0), base(0, add_tokens=["<sep>"])
    of_folder = [
        base(seed, add_tokens=["<sep>"], token_init="mean", folder=True)
        for seed in (0, 1)
    ]

    assert remove_added_tokens(added) == plain
    assert id_of_base(added) != id_of_base(plain)
    assert of_folder[0] == of_folder[1]
    assert id_of_base(of_folder[0]) is not None
    assert id_of_base(base(0, folder=True)) is None


def test_a_new_token_has_a_row_where_a_tokenizer_has_more_words_than_the_model(
    tmp_path: Path,
) -> None:
    """Its id comes after those words, which nothing is read from."""
    source = write_llama(tmp_path / "source", vocab_size=258)
    beyond = {f"<unused{number}>": 258 + number for number in range(70)}
    write_tokenizer(source, beyond)

    rows = add(source, tmp_path / "made", init="mean").get_input_embeddings().weight
    [sep] = load_vocabulary(tmp_path / "made").tokenize("<sep>")

    assert 258 + 70 <= sep < len(rows)


def test_a_chat_models_templates_come_along(tiny: Path, tmp_path: Path) -> None:
    """The one beside the tokenizer, and those of other names, which transformers keeps
    in a folder of their own."""
    source = tmp_path / "chat"
    shutil.copytree(tiny, source)
    (source / "additional_chat_templates").mkdir()
    for name in TEMPLATES:
        (source / name).write_text(f"{{# {name} #}}")
    add(source, tmp_path / "made", init="mean")
    (tmp_path / "snapshot").mkdir()
    copied = SimpleNamespace(
        _base=Base(source, "d"),
        _is_adapter=False,
        _dtype="float32",
        _class="LlamaForCausalLM",
    )
    draft = tmp_path / "snapshot"
    WeightFolders._complete(copied, draft, [], 0, is_start=False)  # type: ignore[arg-type]

    for folder in ("made", "snapshot"):
        assert [(tmp_path / folder / name).read_text() for name in TEMPLATES] == [
            f"{{# {n} #}}" for n in TEMPLATES
        ]
