"""Makes the formats of data that plugins declare: of each row of JSON examples, checked."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.format import Format, bare_name, find_files
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.rows import json_rows
from zsg_core.plugins import loading
from zsg_core.plugins.declarations import Declared
from zsg_core.plugins.loading import refuse

Row = dict[str, Any]
DEFAULT_FILES = "*.jsonl"


def make_format(declared: Declared) -> Format:
    """A format whose files hold rows of JSON, of which a plugin makes examples.

    Caps per task and lists of tasks count as in formats of many tasks: which tasks there
    are, only the plugin knows.
    """
    suffixes = (declared.options.get("files", DEFAULT_FILES).removeprefix("*"),)

    def read(path: Path, intake: Intake) -> Iterator[Example]:
        """The examples of all files, whose ids are all different."""
        seen: set[str] = set()
        for file in find_files(path, suffixes):
            for example in _read_file(declared, file, intake):
                if example.id in seen:
                    raise refuse(declared, f"gives the id {example.id!r} twice")
                seen.add(example.id)
                yield example

    return Format(
        about=declared.about or f"rows that {declared.file} reads",
        files=lambda path: find_files(path, suffixes),
        read=read,
        many_tasks=True,
    )


def _read_file(declared: Declared, file: Path, intake: Intake) -> Iterator[Example]:
    """The examples of a file, row by row. A row that is no JSON is refused or counted as
    in other formats; where the plugin fails, file and row are told with its line."""
    function = loading.find_function(declared)
    name = bare_name(file)
    with closing(json_rows(file, Row, intake)) as chunks:
        for chunk in chunks:
            for number, row in enumerate(chunk.rows, start=chunk.first):
                location = f"{file}{chunk.where.format(number)}"
                with loading.calling(declared, f" of {location}"):
                    made = list(function(row, name))
                for example in made:
                    yield _check_example(declared, example, location)


def _check_example(declared: Declared, example: object, location: str) -> Example:
    """An example. PluginError for what is none, or has fields of other types: a struct
    checks none when it is made, and a number in place of a text would end a job late.
    """
    if not isinstance(example, Example):
        raise refuse(declared, f"gives no zsg.Example of {location}")
    try:
        # bytes stay bytes, which are no text; msgspec would spell them in base64
        plain = msgspec.to_builtins(example, builtin_types=(bytes, bytearray))
        checked = msgspec.convert(plain, Example)
        msgspec.json.encode(checked)  # as corpora are written
    except UnicodeEncodeError:
        why = f"of {location}: a text has half a character, which no file can hold"
        raise refuse(declared, why) from None
    except (msgspec.ValidationError, TypeError) as error:
        raise refuse(declared, f"of {location}: {error}") from None
    for kind, text in (("id", checked.id), ("task", checked.task)):
        if not text or not text.isprintable():
            raise refuse(declared, f"of {location}: {text!r} is no {kind}")
    if not checked.turns:
        raise refuse(declared, f"of {location}: an example has a turn or more")
    return checked
