"""Is the chat template of a model's folder part of what a run is, where it is used, and
refused by plan where it cannot be?"""

import contextlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.clusters.profiles import Profile
from launcher.grids import chat_template, grid, inputs
from launcher.grids.inputs import Inputs
from launcher.grids.runs import Run, resolve_runs
from tests.lib.builders import write_niv2
from tests.lib.chat_templates import CHATML, THINKING
from tests.lib.model_folders import change, write_llama
from zsg_core.data.prompts import Template, digest_chat_template
from zsg_core.errors import UserError
from zsg_core.settings.run import Settings

Resolve = Callable[..., list[Run]]


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A Llama with a chat template."""
    folder = write_llama(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """The runs of a grid over a small data folder and a model, of data keys."""
    write_niv2(tmp_path / "data")

    def of(model: Path, *keys: str) -> list[Run]:
        data = ", ".join([f"path: {tmp_path / 'data'}", *keys])
        path = tmp_path / "grid.yaml"
        path.write_text(
            f"name: g\ndefaults:\n  model: {{name: m, path: {model}}}\n"
            f"  data: {{{data}}}\ngrid: {{seed: [0]}}\n"
        )
        profile = Profile.model_validate({"name": "p", "kind": "local"})
        cache = Inputs(tmp_path / "digests.json")
        return resolve_runs(grid.load_grid(path), profile, cache)[0]

    return of


def template_of(runs: list[Run]) -> dict[str, object]:
    return runs[0].stage["data"]["template"]


def settings_of(model: Path, **data: object) -> Settings:
    return Settings.model_validate(
        {
            "model": {"name": "m", "path": str(model)},
            "data": {"path": "/d", **data},
        }
    )


def test_the_digest_of_the_template_is_in_the_recipe(
    llama: Path, resolve: Resolve
) -> None:
    """With what it is called with; an edit of the template makes another run, and of
    one that does not use it the same."""
    runs = resolve(llama, "template: chat")
    with_date = resolve(
        llama, "template: chat", "chat_template_kwargs: {seed: 1, a: true}"
    )
    other = resolve(llama, "template: vicuna")

    digest = digest_chat_template(CHATML)
    assert template_of(runs) == {
        "name": "chat",
        "positive_examples": 2,
        "digest": digest,
    }
    assert template_of(with_date)["arguments"] == [["a", True], ["seed", 1]]
    recipe = json.loads(json.dumps(template_of(with_date)))
    assert Template.from_recipe(recipe).arguments == (("a", True), ("seed", 1))

    (llama / "chat_template.jinja").write_text(THINKING)
    assert resolve(llama, "template: chat")[0].id != runs[0].id
    assert resolve(llama, "template: vicuna")[0].id == other[0].id
    ids = {runs[0].id, with_date[0].id, other[0].id}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("{{ a }}", "{{ a }}"),
        ([{"name": "default", "template": "d"}, {"name": "rag", "template": "r"}], "d"),
        (None, None),
    ],
)
def test_the_template_is_the_one_that_transformers_takes(
    llama: Path, told: object, expected: str | None
) -> None:
    """chat_template.jinja before the key in tokenizer_config.json."""
    change(llama / "tokenizer_config.json", chat_template=told)
    assert chat_template.read_template(llama) == CHATML

    (llama / "chat_template.jinja").unlink()
    assert chat_template.read_template(llama) == expected


def test_several_templates_need_a_default(llama: Path) -> None:
    (llama / "chat_template.jinja").unlink()
    change(
        llama / "tokenizer_config.json",
        chat_template=[{"name": "rag", "template": "r"}],
    )

    with pytest.raises(UserError, match="'rag', and none is the default"):
        chat_template.read_template(llama)


@pytest.mark.engine
@pytest.mark.parametrize("key", [None, "k", {"default": "o"}, {"rag": "o"}])
@pytest.mark.parametrize(
    "files",
    [
        (),
        ("chat_template.jinja",),
        ("additional_chat_templates/rag.jinja",),
        ("additional_chat_templates/default.jinja",),
        ("chat_template.jinja", "additional_chat_templates/rag.jinja"),
        ("chat_template.jinja", "additional_chat_templates/default.jinja"),
    ],
)
def test_transformers_takes_the_same_template(
    llama: Path, files: tuple[str, ...], key: object
) -> None:
    """Of files before the key, of a folder's before the one beside it; and where it takes
    none plan refuses, or has none."""
    from transformers import AutoTokenizer

    (llama / "chat_template.jinja").unlink()
    (llama / "additional_chat_templates").mkdir()
    for name in files:
        (llama / name).write_bytes(f"{name}\r\n".encode())
    change(llama / "tokenizer_config.json", chat_template=key)

    tokenizer = AutoTokenizer.from_pretrained(llama)

    try:
        expected = tokenizer.get_chat_template()
    except ValueError:
        expected = None
    try:
        assert chat_template.read_template(llama) == expected
    except UserError:
        assert expected is None


@pytest.mark.engine
def test_a_tokenizer_that_is_saved_anew_has_the_same_template(
    llama: Path, tmp_path: Path
) -> None:
    """As where model.add_tokens adds to it: lines may end otherwise than in the key."""
    from transformers import AutoTokenizer

    (llama / "chat_template.jinja").unlink()
    text = CHATML.replace("\n", "\r\n") + "\r\n{# end #}"
    change(llama / "tokenizer_config.json", chat_template=text)

    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "again")

    source = AutoTokenizer.from_pretrained(tmp_path / "again").get_chat_template()
    planned = chat_template.read_template(llama)
    assert planned is not None and source != planned
    assert digest_chat_template(source) == digest_chat_template(planned)


def test_plan_says_that_a_model_has_a_template_where_the_grid_is_silent(
    llama: Path, tmp_path: Path
) -> None:
    bare = write_llama(tmp_path / "bare")

    [note] = [
        note
        for note in inputs.find_model_notes([settings_of(llama)])
        if "chat template" in note
    ]
    assert "data.template: chat takes the model's" in note
    for settings in (
        settings_of(llama, template="zsg"),
        settings_of(llama, template="chat"),
        settings_of(bare),
    ):
        notes = inputs.find_model_notes([settings])
        assert not any("chat template" in note for note in notes)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{{ strftime_now('%d') }}", "in a copy of the model's folder"),
        (
            "{{ date_string if date_string else strftime_now('%d') }}",
            "date_string: 26 Jul 2024",
        ),
    ],
)
@pytest.mark.parametrize("has_jinja", [True, False])
def test_a_template_that_cannot_be_used_is_refused_by_plan(
    llama: Path,
    resolve: Resolve,
    monkeypatch: pytest.MonkeyPatch,
    template: str | None,
    message: str,
    has_jinja: bool,
) -> None:
    """Where jinja2 is not installed, too: then by the template's words."""
    if has_jinja:
        pytest.importorskip("jinja2")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (llama / "chat_template.jinja").unlink()
    if template is not None:
        (llama / "chat_template.jinja").write_text(template)

    with pytest.raises(UserError, match=message):
        resolve(llama, "template: chat")


@pytest.mark.engine
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{# no strftime_now here #}{{ a }}", None),
        (
            "{# date_string #}{{ strftime_now('%d') }}",
            "in a copy of the model's folder",
        ),
        ("{% if a %}", "cannot be read"),
        ("{{ " + "(" * 5000, "cannot be read"),
    ],
)
def test_plan_reads_a_template_as_the_job_does(
    llama: Path, resolve: Resolve, template: str, message: str | None
) -> None:
    """What stands in a comment is not written, and what cannot be read is told before
    the queue."""
    (llama / "chat_template.jinja").write_text(template)

    refused = pytest.raises(UserError, match=message)
    with refused if message else contextlib.nullcontext():
        resolve(llama, "template: chat")


def test_a_model_without_a_folder_has_no_template(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data": {"path": "/d", "template": "chat"}})

    with pytest.raises(UserError, match="model tiny has none"):
        chat_template.find_digest(settings, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"chat_system": "drop"}, "template chat alone"),
        ({"chat_template_kwargs": {"a": 1}}, "template chat alone"),
        ({"template": "chat", "chat_template_kwargs": {"tools": 1}}, "zsg itself"),
        ({"template": "chat", "chat_template_kwargs": {"a b": 1}}, "pattern"),
        ({"template": "chat", "chat_template_kwargs": {"a": [1]}}, "valid"),
    ],
)
def test_keys_of_a_template_are_judged_with_the_grid(
    data: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(Path("m"), **data)
