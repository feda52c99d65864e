"""Is one number of a YAML file changed, and every other byte left as it was?"""

from pathlib import Path

import pytest

from launcher.clusters import profile_files, profile_mfu, profiles
from launcher.workspace.yaml_number import plan_number
from zsg_core.errors import UserError

BLOCK = """\
# our cards
name: a800
gpu:
  # since spring
  name: A800-80G   # SXM
  mfu:   {mfu}   # measured by hand
  tflops: 312
setup: ['module load cuda # 12', "x: mfu: 0.4"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "p.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("before", "after", "old"),
    [
        (BLOCK.format(mfu="0.40"), BLOCK.format(mfu="0.37"), "0.40"),
        (
            "gpu: {name: A, mfu: 4e-1, tflops: 312}  # c\n",
            "gpu: {name: A, mfu: 0.37, tflops: 312}  # c\n",
            "4e-1",
        ),
        ("gpu:\r\n  mfu: 0.4\r\n", "gpu:\r\n  mfu: 0.37\r\n", "0.4"),
        ("\ufeffgpu:\n  mfu: 0.4", "\ufeffgpu:\n  mfu: 0.37", "0.4"),
        ("gpu:\n    name: A\n", "gpu:\n    mfu: 0.37\n    name: A\n", None),
        ("gpu: {name: A}\n", "gpu: {mfu: 0.37, name: A}\n", None),
        ("inherits: a800", "inherits: a800\ngpu:\n  mfu: 0.37\n", None),
        ("a: 1\r\n", "a: 1\r\ngpu:\r\n  mfu: 0.37\r\n", None),
        ("a: 1\rgpu:\r  mfu: 0.4\rb: 2\r", "a: 1\rgpu:\r  mfu: 0.37\rb: 2\r", "0.4"),
        ("a: 1\rgpu:\r  b: 2\r", "a: 1\rgpu:\r  mfu: 0.37\r  b: 2\r", None),
        ("a: 1\r", "a: 1\rgpu:\r  mfu: 0.37\r", None),
        ("a: 1\rgpu:\n  mfu: 0.4\r\nb: 2", "a: 1\rgpu:\n  mfu: 0.37\r\nb: 2", "0.4"),
    ],
)
def test_all_but_the_number_stays_as_it_was(
    tmp_path: Path, before: str, after: str, old: str | None
) -> None:
    """Comments, order, line ends; where the key is absent, it comes below its mapping."""
    path = write(tmp_path, before)
    path.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)

    change = plan_number(link, "gpu", "mfu", "0.37")
    change.write()

    assert path.read_bytes() == after.encode()
    assert change.old == old
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "text",
    [
        "gpu: &cards\n  mfu: 0.4\nothers: *cards\n",
        "gpu: {}\n",
        "gpu: null\n",
        "- gpu\n",
        "",
    ],
)
def test_what_cannot_be_changed_for_certain_is_left(tmp_path: Path, text: str) -> None:
    """An alias would change with it; the message names the line to write by hand."""
    path = write(tmp_path, text)

    with pytest.raises(UserError, match=r"gpu\.mfu: 0\.37"):
        plan_number(path, "gpu", "mfu", "0.37")

    assert path.read_text() == text


def test_a_measured_mfu_goes_into_the_profile_of_the_user(tmp_path: Path) -> None:
    """Not into the one that it inherits, and never into one that zsg brings."""
    path = write(tmp_path, "name: p\ninherits: a800-80g\n")
    layers = profile_files.read_layers(str(path), tmp_path)

    profile_mfu.plan_mfu(layers, 0.36972).write()

    gpu = profiles.load_profile(str(path), tmp_path).gpu
    assert gpu is not None and gpu.mfu == 0.37 and gpu.tflops == 312
    with pytest.raises(UserError, match="inherits: a800-80g"):
        profile_mfu.plan_mfu(profile_files.read_layers("a800-80g", tmp_path), 0.37)
    with pytest.raises(UserError, match=r"gpu\.tflops"):
        profile_mfu.plan_mfu(layers, 1.2)
    with pytest.raises(UserError, match="describes no GPUs"):
        profile_mfu.refuse_without_gpu(profiles.load_profile("slurm-minimal", tmp_path))
