"""Does `zsg doctor --model` prove what files cannot tell, and does a plan know of what
it was proven?"""

import json
import shutil
import struct
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace
from jobs.model import base_model
from jobs.preparing import proof
from launcher.doctor import proofs
from launcher.doctor.diagnosis import OK
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg
from tests.lib.tiny_base import BASE, TEXTS

UNPROVEN = "is not proven here: zsg doctor --model"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that trains."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    base_model.make_tiny(folder, BASE, TEXTS)
    return folder


def test_a_folder_that_loads_is_proven_once(zsg: Zsg, llama: Path) -> None:
    """The plan says that it is not proven until it is, and again when the weights have changed."""
    folder = zsg.folder / "model"
    shutil.copytree(llama, folder)
    data = write_niv2(zsg.folder / "data")
    text = (
        f"name: g\ndefaults:\n  data.path: {data}\n  model: {{name: m, path: {folder}}}\n "
        " train.max_length: 64\n"
    )
    grid, place = zsg.write("grid.yaml", text), Workspace(zsg.work)
    zsg("plan", grid)
    assert UNPROVEN in zsg.said
    check = proofs.prove_model(folder, place)
    assert (check.verdict, "are proven with torch" in check.found) == (OK, True), check
    assert "it attends by torch's flash kernel" in check.found
    zsg("plan", grid)
    assert UNPROVEN not in zsg.said
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text() + "\n")
    zsg("plan", grid)
    assert UNPROVEN in zsg.said


@pytest.mark.engine  # needs torch
def test_weights_that_are_no_numbers_are_told(llama: Path, tmp_path: Path) -> None:
    """Their file is whole: only loading it tells."""
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    held = bytearray((folder / "model.safetensors").read_bytes())
    length = struct.unpack("<Q", held[:8])[0]
    begin = (
        8
        + length
        + json.loads(held[8 : 8 + length])["model.norm.weight"]["data_offsets"][0]
    )
    held[begin : begin + 4] = struct.pack("<f", float("nan"))
    (folder / "model.safetensors").write_bytes(held)

    assert [*proof.find_faults(folder)] == [
        "1 tensors hold NaN or infinity, the first model.norm.weight"
    ]
    assert [*proof.find_faults(llama)] == []
