"""Computes the digests of tensors from safetensors files, without an engine: they are
those that the engine computes."""

import hashlib
import json
import mmap
from collections.abc import Iterator
from pathlib import Path

DTYPES = {"F32": "torch.float32", "BF16": "torch.bfloat16", "F16": "torch.float16"}


def compute_digests(folder: Path) -> dict[str, str]:
    """The digest of each tensor by its name, as `weights.tensor_digest` has it.
    ValueError for half a file.

    A safetensors file: eight bytes with the length of a JSON header, the header, the
    tensors' bytes.
    """
    digests: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            digests |= dict(_of_file(path))
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is no whole safetensors file") from error
    return digests


def _of_file(path: Path) -> Iterator[tuple[str, str]]:
    """Name and line of each tensor: shape, type and SHA-256 of its bytes, in the order
    of the file's header.

    Source: the format's description, 8 bytes little-endian with the header's length,
    the header as JSON, then the data, to whose begin all offsets refer. The file is
    mapped, and no tensor copied. Raises ValueError where the file is shorter than its
    header says.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        header.pop("__metadata__", None)
        for name, description in header.items():
            begin, end = (start + offset for offset in description["data_offsets"])
            if end > len(data):
                raise ValueError(f"{path} ends before {name} does")
            with memoryview(data) as whole, whole[begin:end] as tensor_bytes:
                digest = hashlib.sha256(tensor_bytes).hexdigest()
            yield (
                name,
                f"{tuple(description['shape'])} {DTYPES[description['dtype']]} {digest}",
            )
