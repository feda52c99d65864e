"""Finds the chat template of a model's folder, without any engine.

Which text is taken is by the rules of transformers (PreTrainedTokenizerBase, 5.23): that
of files, chat_template.jinja and those in additional_chat_templates/, before the key in
tokenizer_config.json, and of several the one called `default`. A job compares the digest
with that of what transformers has loaded.
"""

import importlib.util
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from jobs.contract.folder import get_object
from jobs.files.model_file_names import TEMPLATE_FOLDER, TEMPLATE_NAMES
from launcher.grids.model_files import read_json
from zsg_core.data import prompts
from zsg_core.data.prompts import CHAT
from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief
from zsg_core.settings.run import Settings

CONFIG = "tokenizer_config.json"
MOST_BYTES = 10_000_000  # of a template; published ones have up to 30,000
MOST_NAMES = 8  # of templates that an error tells
DEFAULT = "default"
CLOCK, DATE = "strftime_now", "date_string"


def read_template(folder: Path) -> str | None:
    """The chat template that transformers takes of a folder; None where there is none.

    UserError for a file that cannot be read, and for several without a default.
    """
    paths = _list_files(folder)
    if DEFAULT in paths:
        return _read_text(paths[DEFAULT])
    if paths:
        raise _without_default(folder, paths)
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    template = config.get("chat_template")
    if isinstance(template, str):
        return template
    named = _list_named(template)
    if DEFAULT not in named and named:
        raise _without_default(folder, named)
    return named.get(DEFAULT)


def _without_default(folder: Path, names: Collection[str]) -> UserError:
    told = ", ".join(format_brief(name) for name in sorted(names)[:MOST_NAMES])
    return UserError(
        f"{folder}: its chat templates are {told}, and none is the default; name one `default` in a"
        " copy of the folder"
    )


def has_template(folder: Path) -> bool:
    """Whether a model has a chat template that can be taken."""
    try:
        return read_template(folder) is not None
    except UserError:
        return False


def find_digest(settings: Settings, base: Path | None) -> str | None:
    """The digest of the chat template that a run writes with; None of a run that does
    not. UserError for a model without one, and for one that writes the day's date."""
    if settings.data.template != CHAT:
        return None
    arguments = settings.data.chat_template_kwargs or {}
    if base is None:
        raise UserError(
            f"data.template: chat is the model's own, and model {settings.model.name} has none;"
            " take another template, or a model.path"
        )
    return digest_own(base, "data.template", arguments)


def digest_own(base: Path, key: str, arguments: Mapping[str, Any]) -> str:
    """The digest of the chat template of a model's folder, which `key` asks for and
    which is called with `arguments`. UserError as of `find_digest`."""
    source = read_template(base)
    if source is None:
        raise UserError(
            f"{base}: {key} is chat, and its tokenizer has no chat template"
            f" ({TEMPLATE_NAMES[0]}, or chat_template in {CONFIG}); take another {key}"
        )
    try:
        problem = _find_date_problem(source, arguments)
    except UserError as error:
        raise UserError(f"{base}: {error}") from None
    if problem:
        raise UserError(f"{base}: its chat template {problem}")
    return prompts.digest_chat_template(source)


def _find_date_problem(source: str, arguments: Mapping[str, Any]) -> str | None:
    """Why a template's text would change with the day, by the rule of jobs; where jinja2
    is not installed by its words, which may ask for a date that is not needed. UserError
    for a template that cannot be read."""
    if importlib.util.find_spec("jinja2") is not None:
        from jobs.model import chat_source

        tree = chat_source.parse_template(source)
        return chat_source.find_date_problem(tree, arguments)
    takes_date = DATE in source
    if CLOCK not in source or (takes_date and DATE in arguments):
        return None
    return prompts.explain_date(takes_date=takes_date)


def find_notes(points: Iterable[tuple[Settings, Path]]) -> Iterator[str]:
    """Models with a chat template of their own, where a grid does not say how prompts
    are written: each as a line."""
    silent = {
        folder: settings.data.template
        for settings, folder in points
        if "template" not in settings.data.model_fields_set
    }
    for folder, name in sorted(silent.items()):
        if has_template(folder):
            yield (
                f"model.path {folder}: has a chat template of its own, and prompts are written by"
                f" data.template: {name}, the default; data.template: chat takes the model's, and"
                f" data.template: {name} says that this is meant"
            )


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{path} has {size:,} bytes: no chat template")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {str(error)[:200]}") from error


def _list_files(folder: Path) -> dict[str, Path]:
    """The files of templates by the names that transformers gives them: one in
    additional_chat_templates/ comes before chat_template.jinja."""
    paths: dict[str, Path] = {}
    if (folder / TEMPLATE_NAMES[0]).is_file():
        paths[DEFAULT] = folder / TEMPLATE_NAMES[0]
    for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja")):
        name = path.name.removesuffix(".jinja")
        paths[name] = path
    return paths


def _list_named(template: object) -> dict[str, str]:
    """The templates of a list of them, or of an object, as tokenizer_config.json may
    have it, by name."""
    if isinstance(template, dict):
        rows_by_name = cast("dict[str, Any]", template)
        return {
            name: text for name, text in rows_by_name.items() if isinstance(text, str)
        }
    if not isinstance(template, list):
        return {}
    rows = [get_object(row) for row in cast("list[Any]", template)]
    return {
        row["name"]: row["template"]
        for row in rows
        if isinstance(row.get("name"), str) and isinstance(row.get("template"), str)
    }
