"""Reads a held-out list of task names, as ZSG publishes one for Flan-mini:
`train_key_list`, `eval_key_list`."""

from collections import Counter
from pathlib import Path

import msgspec

from zsg_core.data.readers.format import Lists, root_folder
from zsg_core.data.readers.intake import broken_file, read_whole
from zsg_core.data.readers.json_array import BAD, LONGEST

KEY_LIST = "train_eval_key_list.json"


class Keys(msgspec.Struct):
    """The file's two lists."""

    train_key_list: list[str]
    eval_key_list: list[str]


def read_lists(path: Path) -> Lists | None:
    """The list beside the data, None without one. UserError for a file that is none, or
    names a task twice."""
    file = root_folder(path) / KEY_LIST
    if not file.is_file():
        return None
    try:
        keys = msgspec.json.decode(read_whole(file, LONGEST), type=Keys)
    except (OSError, *BAD) as error:
        raise broken_file(
            file, f"cannot be read as a list of task names: {error}"
        ) from error
    counts = Counter(keys.train_key_list + keys.eval_key_list)
    doubled = next((name for name, count in counts.items() if count > 1), None)
    if doubled is not None:
        raise broken_file(
            file,
            f"{doubled!r} is listed more than once; a held-out task must not be trained on",
        )
    return {"train": keys.train_key_list, "test": keys.eval_key_list}


def list_files(path: Path) -> list[Path]:
    """The list's file, where there is one."""
    file = root_folder(path) / KEY_LIST
    return [file] if file.is_file() else []
