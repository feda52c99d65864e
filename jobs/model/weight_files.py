"""Opens the files of weights of a model's folder: which tensors there are, by the names
that they are published under, and each on its own when it is asked for."""

import json
import pickle
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from jobs.contract.folder import get_object
from jobs.files.model_file_names import SINGLE_WEIGHTS, WEIGHT_INDEXES
from zsg_core.errors import UserError

# what torch raises for a file that is none of its own
_UNREADABLE = (RuntimeError, ValueError, EOFError, KeyError, pickle.PickleError)


@dataclass(frozen=True)
class Source:
    """A tensor of a file: what is known of it before it is read."""

    file: Path
    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[], torch.Tensor]


def open_weights(
    folder: Path, opened: ExitStack, *, is_reading: bool = True
) -> dict[str, Source]:
    """All tensors of a folder by their names, of the files that transformers would take.

    Not `is_reading`: only what is known of them. UserError for files that are none.
    """
    from safetensors import SafetensorError

    sources: dict[str, Source] = {}
    for path in list_weight_files(folder):
        try:
            if path.suffix == ".safetensors":
                sources |= _open_safetensors(path, opened)
            else:
                sources |= _open_pickled(path, is_reading)
        except (SafetensorError, *_UNREADABLE) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(
                f"{path} cannot be read as weights ({reason}); get the model anew"
            ) from error
    return sources


def list_weight_files(folder: Path) -> list[Path]:
    """The files of weights in the first form that transformers would take."""
    for single, index in zip(SINGLE_WEIGHTS, WEIGHT_INDEXES, strict=True):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _list_shards(folder / index)
    raise UserError(
        f"{folder} has no weights ({', '.join((*SINGLE_WEIGHTS, *WEIGHT_INDEXES))})"
    )


def _list_shards(index: Path) -> list[Path]:
    """The files that an index names, which must lie beside it."""
    try:
        content = get_object(json.loads(index.read_text()))
        file_by_tensor = get_object(content["weight_map"])
    except (ValueError, KeyError) as error:
        raise UserError(f"{index} has no weight_map of names to files") from error
    names = set(map(str, file_by_tensor.values()))
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{index} names {name[:80]!r}, which lies elsewhere")
    return sorted(map(index.with_name, names))


def _open_safetensors(path: Path, opened: ExitStack) -> dict[str, Source]:
    from safetensors import safe_open

    file = opened.enter_context(safe_open(path, framework="pt"))
    sources: dict[str, Source] = {}
    for name in file.keys():
        header = file.get_slice(name)
        read = partial(file.get_tensor, name)
        shape = tuple(header.get_shape())
        sources[name] = Source(path, shape, header.get_dtype(), read)
    return sources


def _open_pickled(path: Path, is_reading: bool) -> dict[str, Source]:
    tensors = _load_pickled(path, "cpu" if is_reading else "meta")
    return {
        name: Source(path, tuple(tensor.shape), tensor.dtype, partial(_itself, tensor))
        for name, tensor in tensors.items()
    }


def _load_pickled(path: Path, device: str) -> Mapping[str, torch.Tensor]:
    """The tensors of a file that torch.save wrote, by name; other values are left out.

    `weights_only` keeps the file from running code. Files are mapped where they can be,
    so that only what is used is read. Raises ValueError for a file that holds no table.
    """
    load = partial(torch.load, path, map_location=device, weights_only=True)
    try:
        loaded = load(mmap=True)
    except RuntimeError:  # files of torch before 1.6 cannot be mapped
        loaded = load(mmap=False)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"a {type(loaded).__name__}, no table of tensors")
    table = cast("Mapping[str, Any]", loaded)
    return {name: value for name, value in table.items() if torch.is_tensor(value)}


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    """What is read of a file that is there whole."""
    return tensor
